"""The pre-norm residual transformer that CLIP's ViT and text tower share.

CLIP (arXiv 2103.00020); the reference is `Transformer` of openai/CLIP, clip/model.py, and of
mlfoundations/open_clip. Inside a block the names are those of our other transformers (norm1,
attn.qkv, attn.proj, norm2, mlp.fc1, mlp.fc2), so that one table of partition rules serves all;
`swin_jax.pretrained.clip.convert` knows the official ones.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.models.layers import init_conv, layer_norm
from swin_jax.models.swin.blocks import REMAT
from swin_jax.ops import linear
from swin_jax.ops.attention import attention_weights, dot_product_attention, split_parts
from swin_jax.ops.batch_sharding import constrain_batch

# PyTorch's default for linear layers, weights and biases alike, is that for convolutions.
init_default = init_conv

ATTENTION = ("xla", "cudnn")


def quick_gelu(x: jax.Array) -> jax.Array:
    """x sigmoid(1.702 x), the approximation of GELU that OpenAI's models were trained with."""
    return x * nn.sigmoid(1.702 * x)


def exact_gelu(x: jax.Array) -> jax.Array:
    """x Phi(x)."""
    return nn.gelu(x, approximate=False)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": exact_gelu}


def transformer_macs(tokens: int, width: int, layers: int, mlp_ratio: float) -> int:
    """Multiply-accumulates of a `Transformer` for so many tokens: matrix products and attention."""
    hidden = round(width * mlp_ratio)
    return layers * tokens * width * (4 * width + 2 * tokens + 2 * hidden)


class Attention(nn.Module):
    """Multi-head self-attention: (B, N, C) to the same.

    Where the collection 'attention' is mutable, the weights (B, h, N, N) are kept there.
    """

    width: int
    num_heads: int
    causal: bool
    init_qkv: Callable
    init_proj: Callable
    dtype: Any
    param_dtype: Any
    implementation: str

    def setup(self):
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        shared = dict(dot_general=linear.dot_general, **types)
        heads = (3, self.num_heads, self.width // self.num_heads)
        self.qkv = nn.DenseGeneral(heads, kernel_init=self.init_qkv, **shared)
        self.proj = nn.DenseGeneral(self.width, axis=(-2, -1), kernel_init=self.init_proj, **shared)

    def __call__(self, x: jax.Array) -> jax.Array:
        qkv = self.qkv(x)  # (B, N, 3, h, d)
        if self.is_mutable_collection("attention") and not self.is_initializing():
            self.sow("attention", "weights", self._weights(qkv))
        out = dot_product_attention(*split_parts(qkv), self.causal, self.implementation)
        return self.proj(out)

    def _weights(self, qkv: jax.Array) -> jax.Array:
        tokens, scale = qkv.shape[1], qkv.shape[-1] ** -0.5
        below = jnp.tril(jnp.ones((tokens, tokens), bool)) | (not self.causal)
        mask = jnp.where(below, 0.0, jnp.finfo(jnp.float32).min)[None, None]
        return attention_weights(
            qkv * jnp.asarray([scale, 1, 1], qkv.dtype).reshape(1, 1, 3, 1, 1), mask
        )


class Mlp(nn.Module):
    """Linear, activation, Linear on the last axis."""

    width: int
    hidden: int
    act: str
    init_fc1: Callable
    init_fc2: Callable
    dtype: Any
    param_dtype: Any

    def setup(self):
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        shared = dict(dot_general=linear.dot_general, **types)
        bias = init_default(self.width)
        self.fc1 = nn.Dense(self.hidden, kernel_init=self.init_fc1, bias_init=bias, **shared)
        self.fc2 = nn.Dense(
            self.width, kernel_init=self.init_fc2, bias_init=init_default(self.hidden), **shared
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(ACTIVATIONS[self.act](self.fc1(x)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    attn_fields: dict
    mlp_fields: dict

    def setup(self):
        dtype, param_dtype = self.attn_fields["dtype"], self.attn_fields["param_dtype"]
        self.norm1 = layer_norm(dtype, param_dtype=param_dtype)
        self.attn = Attention(**self.attn_fields)
        self.norm2 = layer_norm(dtype, param_dtype=param_dtype)
        self.mlp = Mlp(**self.mlp_fields)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = constrain_batch(x)
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A stack of blocks, (B, N, C) to the same.

    Attributes:
        causal: Tokens see themselves and those before them.
        init: 'default' is PyTorch's (OpenAI's image tower), 'scaled' draws normal
            weights whose deviation falls with the width, and with the depth where a
            branch ends (OpenAI's text tower).
        dtype, param_dtype: Types of the residual stream and matrix products, and of the parameters;
            softmax and the statistics of the norms are float32.
        remat: The same as in `models.swin.Swin`.
        attention: 'xla', or 'cudnn' for the fused kernel of NVIDIA GPUs (half precision only).
    """

    width: int
    layers: int
    num_heads: int
    mlp_ratio: float = 4.0
    act: str = "quick_gelu"
    causal: bool = False
    init: str = "default"
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"
    attention: str = "xla"

    def setup(self):
        self._check()
        hidden = round(self.width * self.mlp_ratio)
        types = dict(dtype=jnp.dtype(self.dtype), param_dtype=jnp.dtype(self.param_dtype))
        init_qkv, init_proj, init_fc1, init_fc2 = self._initializers(hidden)
        attn_fields = dict(
            width=self.width,
            num_heads=self.num_heads,
            causal=self.causal,
            init_qkv=init_qkv,
            init_proj=init_proj,
            implementation=self.attention,
            **types,
        )
        mlp_fields = dict(
            width=self.width,
            hidden=hidden,
            act=self.act,
            init_fc1=init_fc1,
            init_fc2=init_fc2,
            **types,
        )
        block = Block if self.remat == "none" else nn.remat(Block, policy=REMAT[self.remat])
        self.resblocks = [block(attn_fields, mlp_fields) for _ in range(self.layers)]

    def __call__(self, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        """Returns the tokens after the last block, and after each block."""
        outputs = []
        for block in self.resblocks:
            x = block(x)
            outputs.append(x)
        return x, outputs

    def _initializers(self, hidden: int) -> tuple[Callable, ...]:
        """The initializers of the kernels of qkv, proj, fc1 and fc2."""
        if self.init == "default":
            # Xavier's bound for the packed matrix (3 C, C) of torch.nn.MultiheadAttention.
            return (
                init_conv(4 * self.width / 6),
                *map(init_default, (self.width, self.width, hidden)),
            )
        normal = nn.initializers.normal
        branch_end = normal((2 * self.layers * self.width) ** -0.5)
        return normal(self.width**-0.5), branch_end, normal((2 * self.width) ** -0.5), branch_end

    def _check(self) -> None:
        """Raises UserError where fields are not among the known ones or contradict each other."""
        for name, value, known in (
            ("act", self.act, ACTIVATIONS),
            ("init", self.init, ("default", "scaled")),
            ("remat", self.remat, ("none", *REMAT)),
            ("attention", self.attention, ATTENTION),
            ("dtype", self.dtype, ("float32", "bfloat16", "float16")),
            ("param_dtype", self.param_dtype, ("float32", "bfloat16", "float16")),
        ):
            if value not in known:
                raise UserError(f"{name}={value!r} is not one of {tuple(known)}")
        if self.width % self.num_heads:
            raise UserError(f"{self.num_heads} heads do not divide a width of {self.width}")
