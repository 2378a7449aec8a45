"""Attention inside windows, and along time, with the position bias of either generation.

Swin Transformer (arXiv 2103.14030) and Swin Transformer V2 (arXiv 2111.09883); the
references are `WindowAttention` of microsoft/Swin-Transformer, models/swin_transformer.py
and swin_transformer_v2.py.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.models.layers import init_linear, layer_norm
from swin_jax.ops import attention, linear, window, window_geometry
from swin_jax.ops.batch_sharding import per_shard_copies
from swin_jax.ops.normalize import widen

MAX_LOGIT_SCALE = math.log(100)


class HeadsProjection(nn.Module):
    """Linear to q, k and v of all heads: (..., C) -> (..., 3, h, d)."""

    num_heads: int
    bias: bool
    dtype: Any
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (3, self.num_heads, x.shape[-1] // self.num_heads)
        kernel = self.param("kernel", init_linear, (x.shape[-1], *shape), self.param_dtype).astype(
            self.dtype
        )
        x = linear.dot_general(x.astype(self.dtype), kernel, (((2,), (0,)), ((), ())))
        if not self.bias:
            return x
        return (
            x
            + self.param("bias", nn.initializers.zeros, shape, self.param_dtype).astype(self.dtype)[
                None, None
            ]
        )


class WindowAttention(nn.Module):
    """Multi-head attention inside windows with a relative position bias.

    `qkv` holds heads as an axis of their own, (C, 3, h, d), so that a mesh can split heads. Where
    the collection 'attention' is mutable, the weights (B * nW, h, N, N) are kept there.

    Attributes:
        window: Window that the bias is made for.
        pretrained_window: Window that scales the coordinates of the continuous bias; 0 for
            `window`.
        cosine: Scaled cosine attention with one learned scale per head, no bias on keys;
            else dot products.
        continuous_bias: The bias is an MLP of log-spaced coordinates; else a table.
        relative_position: False for no bias.
    """

    dim: int
    num_heads: int
    window: tuple[int, ...]
    pretrained_window: tuple[int, ...]
    cosine: bool
    continuous_bias: bool
    qkv_bias: bool
    dtype: Any
    param_dtype: Any
    implementation: str
    relative_position: bool = True

    def setup(self):
        h, dtype = self.num_heads, self.param_dtype
        shared = dict(param_dtype=dtype, kernel_init=init_linear)
        self.qkv = HeadsProjection(h, self.qkv_bias and not self.cosine, self.dtype, dtype)
        if self.cosine:
            if self.qkv_bias:
                self.q_bias = self.param("q_bias", nn.initializers.zeros, (h, self.dim // h), dtype)
                self.v_bias = self.param("v_bias", nn.initializers.zeros, (h, self.dim // h), dtype)
            self.logit_scale = self.param(
                "logit_scale", nn.initializers.constant(math.log(10)), (h, 1, 1), dtype
            )
        if self.continuous_bias:
            self.cpb_mlp_0 = nn.Dense(window_geometry.CPB_HIDDEN, **shared)
            self.cpb_mlp_2 = nn.Dense(h, use_bias=False, **shared)
        elif self.relative_position:
            self.relative_position_bias_table = self.param(
                "relative_position_bias_table", init_linear, self.table_shape(), dtype
            )
        shared |= dict(dtype=self.dtype, dot_general=linear.dot_general)
        self.proj = nn.DenseGeneral(self.dim, axis=(-2, -1), **shared)

    def __call__(self, x: jax.Array, regions: jax.Array | None, windows: int) -> jax.Array:
        """x is (B * nW, N, C), `windows` is nW; see `ops.attention.window_attention`."""
        tokens = x.shape[1]
        # The corner is what the official video code takes where the grid is
        # smaller than the window.
        # (S, rows, h): gradients travel as tables
        tables = per_shard_copies(self.bias_table(), x.shape[0] // windows)

        def spread(table):
            return window.relative_bias(table, self.window)[:, :tokens, :tokens]

        bias = jax.vmap(spread)(tables)  # (S, h, N, N)
        if self.is_mutable_collection("attention") and not self.is_initializing():
            self.sow(
                "attention", "weights", attention.attention_weights(self.heads(x), bias, regions)
            )
        if self.implementation != "sequential" or self.is_initializing():
            return self.attend(x, bias, regions)
        # The projections are inside the loop: q, k and v of all windows would be three
        # maps and their gradients.
        params, plain = self.variables["params"], self.clone(parent=None)

        def attend(x, region):
            return plain.apply({"params": params}, x, bias, region, method="attend")

        return attention.sequential(attend, x, regions, windows)

    def attend(self, x: jax.Array, bias: jax.Array, regions: jax.Array | None) -> jax.Array:
        """(B * nW, N, C) to the same, windows all at once."""
        name, scale = "xla", None
        if self.implementation != "sequential" and not self.is_initializing():
            shape = (*x.shape[:2], 3, self.num_heads, self.dim // self.num_heads)
            name = attention.choose(self.implementation, shape, self.dtype)
        if name == "fused" and self.cosine:
            qkv, scale = self.cosine_parts(x)
            qkv = qkv.astype(self.dtype)
        else:
            qkv = self.heads(x)
        return self.proj(attention.window_attention(qkv, bias, regions, 1, name, scale))

    def heads(self, x: jax.Array) -> jax.Array:
        """q, k and v of all heads, q scaled: (B * nW, N, 3, h, d)."""
        return self.cosine_qkv(x) if self.cosine else self.dot_qkv(x)

    def bias_table(self) -> jax.Array:
        """The bias for every difference of positions: (prod(2 * window - 1), h) float32."""
        if not self.relative_position:
            return jnp.zeros(self.table_shape(), jnp.float32)
        if not self.continuous_bias:
            return self.relative_position_bias_table.astype(jnp.float32)
        coordinates = window_geometry.log_coordinates(self.window, self.pretrained_window)
        hidden = nn.relu(self.cpb_mlp_0(jnp.asarray(coordinates)).astype(jnp.float32))
        return 16 * nn.sigmoid(self.cpb_mlp_2(hidden).astype(jnp.float32))

    @nn.nowrap
    def table_shape(self) -> tuple[int, int]:
        """(prod(2 * window - 1), h)."""
        return math.prod(2 * w - 1 for w in self.window), self.num_heads

    def dot_qkv(self, x: jax.Array) -> jax.Array:
        """(B * nW, N, 3, h, d), q scaled after its bias was added, as in the official code."""
        scale = (self.dim // self.num_heads) ** -0.5
        return self.qkv(x) * jnp.asarray([scale, 1, 1], self.dtype).reshape(1, 1, 3, 1, 1)

    def cosine_qkv(self, x: jax.Array) -> jax.Array:
        """(B * nW, N, 3, h, d) with q and k of length 1, q times the learned scale;
        computed in float32.
        """
        return attention.cosine_scaled(*self.cosine_parts(x)).astype(self.dtype)

    def cosine_parts(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """q, k and v before they are normalized, (B * nW, N, 3, h, d), and the learned scale of
        each head, (h,); float32.
        """
        qkv = widen(self.qkv(x))
        if self.qkv_bias:
            bias = jnp.stack([self.q_bias, jnp.zeros_like(self.q_bias), self.v_bias]).astype(
                jnp.float32
            )
            qkv = qkv + bias[None, None]
        # Above the limit no gradient, at the limit all of it, as torch.clamp.
        limited = jnp.where(self.logit_scale > MAX_LOGIT_SCALE, MAX_LOGIT_SCALE, self.logit_scale)
        return qkv, jnp.exp(limited.astype(jnp.float32)).reshape(-1)


class TemporalAttention(nn.Module):
    """Attention along the first axis only, times a gate that starts at zero:
    (B, T, *spatial, C) to the same.

    What the 'factorized' design of Video Swin (arXiv 2106.13230, table 4) adds to each block.

    Attributes:
        window: Frames that attend to each other; odd blocks shift by half of it.
        attn_fields: Fields of the block's own `WindowAttention`.
    """

    window: int
    attn_fields: dict
    shifted: bool
    post_norm: bool
    dtype: Any
    param_dtype: Any

    def setup(self):
        line = (self.window, *(1,) * (len(self.attn_fields["window"]) - 1))
        fields = dict(
            self.attn_fields, window=line, pretrained_window=(0,) * len(line), implementation="xla"
        )
        self.norm = layer_norm(self.dtype, param_dtype=self.param_dtype)
        self.attn = WindowAttention(**fields, dtype=self.dtype, param_dtype=self.param_dtype)
        self.gate = self.param("gate", nn.initializers.zeros, (), self.param_dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        size, shift = window_and_shift(x.shape[1:-1], self.attn.window, "axis", self.shifted)
        if not self.post_norm:
            x = self.norm(x)
        x = attend_in_windows(x, self.attn, size, shift)
        if self.post_norm:
            x = self.norm(x)
        return self.gate.astype(x.dtype) * x


def attend_in_windows(
    x: jax.Array,
    attn: nn.Module,
    size: tuple[int, ...],
    shift: tuple[int, ...],
    way: str = "roll",
) -> jax.Array:
    """Pads, shifts, partitions, attends and puts everything back: (B, *spatial, C) to the same.

    Args:
        x: The map.
        attn: A `WindowAttention`, or anything that is called as one.
        size, shift: One int per axis.
        way: The way to shift windows, 'roll' or 'pad', see `models.swin.Swin`.
    """
    spatial = x.shape[1:-1]
    x = window.pad_to_multiple(x, size)
    whole, axes = x.shape[1:-1], tuple(range(1, 1 + len(spatial)))
    starts, regions = (0,) * len(spatial), None
    if any(shift) and way == "pad":
        pads = window_geometry.shift_padding(size, shift)
        starts, regions = [p[0] for p in pads], window_geometry.padded_regions(whole, size, shift)
        x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
    elif any(shift):
        regions = window_geometry.shift_regions(whole, size, shift)
        x = jnp.roll(x, [-s for s in shift], axes)
    shifted = x.shape[1:-1]
    windows = math.prod(shifted) // math.prod(size)
    x = window.reverse(attn(window.partition(x, size), regions, windows), size, shifted)
    if any(shift) and way == "roll":
        x = jnp.roll(x, shift, axes)
    return x[(slice(None), *(slice(i, i + n) for i, n in zip(starts, spatial)))]


def window_and_shift(
    spatial: tuple[int, ...], made_for: tuple[int, ...], small: str, shifted: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Window and shift of a block on a map, one int per axis each.

    Args:
        spatial: Size of the map.
        made_for: The window that the parameters are of. Where it shrank with the map of
            `image_size` it stays, whatever the input's size, and the map is padded.
        small: The stage's of `window_geometry.stage_rules`.
        shifted: True for odd blocks.
    """
    size, shift = window_geometry.fit(spatial, made_for, small)
    if small in window_geometry.SHRINKING:
        size = made_for
    return size, shift if shifted else (0,) * len(spatial)
