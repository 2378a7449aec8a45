"""Alternatives to attention inside windows: the grouped linear layer of Swin-MLP, and two kinds
of attention that Swin is compared with.

Swin-MLP is in microsoft/Swin-Transformer (models/swin_mlp.py); the comparison is that of Swin
Transformer (arXiv 2103.14030).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.models.layers import init_linear
from swin_jax.models.swin.attention import WindowAttention
from swin_jax.ops.attention_variants import performer, sliding_window


class SpatialMlp(nn.Module):
    """A linear layer over the positions of a window, one matrix and bias for the channels of each
    head: (B * nW, N, C) to the same.

    Attributes:
        num_heads: Groups of channels.
        window: The window, one int per axis; N is their product.
    """

    num_heads: int
    window: tuple[int, ...]
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, regions: jax.Array | None, windows: int) -> jax.Array:
        """`regions` and `windows` are there for the callers of `WindowAttention` only: shifting
        by padding brings no tokens together that a mask must part.
        """
        tokens, types = math.prod(self.window), self.param_dtype
        shape = (self.num_heads, tokens, tokens)  # (h, from, to)
        kernel = self.param("kernel", init_linear, shape, types).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, shape[:2], types).astype(self.dtype)
        grouped = x.astype(self.dtype).reshape(*x.shape[:2], self.num_heads, -1)
        out = jnp.einsum("bnhd,hnm->bmhd", grouped, kernel) + bias.T[None, :, :, None]
        return out.reshape(x.shape)


def attend_sliding(x: jax.Array, attn: WindowAttention) -> jax.Array:
    """Every token attends to the window around it: (B, *spatial, C) to the same."""
    qkv = _heads(x, attn)
    qkv = qkv.reshape(*x.shape[:-1], *qkv.shape[2:])
    bias = sliding_window.neighborhood_bias(attn.bias_table(), attn.window)
    return attn.proj(sliding_window.sliding_attention(qkv, bias, attn.window))


def attend_performer(x: jax.Array, attn: WindowAttention) -> jax.Array:
    """Every token attends to all, approximately: (B, *spatial, C) to the same.

    All heads and blocks have the same random features.
    """
    qkv = _heads(x, attn)
    dim = qkv.shape[-1]
    features = performer.random_features(dim, performer.num_features(dim))
    return attn.proj(performer.performer_attention(qkv, features)).reshape(x.shape)


def _heads(x: jax.Array, attn: WindowAttention) -> jax.Array:
    """q, k and v of a whole map: (B, *spatial, C) to (B, H * W, 3, h, d)."""
    return attn.heads(x.reshape(x.shape[0], -1, x.shape[-1]))
