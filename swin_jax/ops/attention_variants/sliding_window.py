"""Attention of every token to the window around it.

Swin Transformer (arXiv 2103.14030) is compared with it: the window moves from token to token, so
that neighbors never fall into different windows. Queries are taken in windows all the same, each
with the keys of all of its queries: (2w - 1) x (2w - 1) for w x w. Most of these products are
masked, but they are plain matrix products, and no copy of the keys is made for each token.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.ops import window

# Far below any logit, so that the weight is exactly 0, and finite: a query beyond the map has no
# key at all.
EXCLUDED = -1e30


def sliding_attention(qkv: jax.Array, bias: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Attends from every token to the window around it, cut at the edges of the map.

    Args:
        qkv: (B, *spatial, 3, h, d); q already scaled. Matrix products run in its dtype.
        bias: (h, N, M) float32 of `neighborhood_bias`.
        size: The window, one int per axis. Of an even one a token has one more neighbor before
            it than after it.

    Returns:
        (B, *spatial, h, d) in the dtype of qkv. The softmax is in float32.
    """
    batch, *spatial, _, heads, dim = qkv.shape
    flat = qkv.reshape(batch, *spatial, -1)  # (B, *spatial, 3 h d)
    width = heads * dim
    padded = window.pad_to_multiple(flat[..., :width], size)
    q = window.partition(padded, size).reshape(-1, math.prod(size), heads, dim)
    k, v = _neighborhoods(flat[..., width:], size, 2, heads)
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32)
    logits = logits + bias[None]
    allowed = _allowed(tuple(spatial), size)  # (nW, N, M)
    split = logits.reshape(batch, len(allowed), *logits.shape[1:])
    split = jnp.where(allowed[None, :, None], split, EXCLUDED)
    weights = jax.nn.softmax(split.reshape(logits.shape), axis=-1).astype(qkv.dtype)
    out = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(-1, math.prod(size), width)
    out = window.reverse(out, size, padded.shape[1:-1])
    out = out[(slice(None), *(slice(n) for n in spatial))]
    return out.reshape(batch, *spatial, heads, dim)


def neighborhood_bias(table: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Spreads a table of relative positions over the queries of a window and all of their keys.

    Only differences inside the window around a query are used: of 7 those from -3 to 3. Pairs
    that do not attend get 0.

    Args:
        table: (prod(2 * size - 1), h) float32, rows as in `window.relative_bias`.
        size: The window, one int per axis.

    Returns:
        (h, N, M) float32, N = prod(size) queries and M = prod(2 * size - 1) keys.
    """
    axes = len(size)
    bias = table.reshape(*(2 * w - 1 for w in size), -1)
    for w in size:
        # Products with ones and zeros: the gradient of an index would be a scatter.
        picked = jnp.tensordot(_rows(w), bias, ((2,), (0,)), precision="highest")
        bias = jnp.moveaxis(picked, (0, 1), (-2, -1))
    # (h, queries, keys, queries, keys) to (h, queries, queries, keys, keys)
    order = (0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2))
    return bias.transpose(order).reshape(bias.shape[0], math.prod(size), -1)


def _neighborhoods(
    x: jax.Array, size: tuple[int, ...], parts: int, heads: int
) -> tuple[jax.Array, ...]:
    """The tokens around each window, zeros beyond the map: (B, *spatial, parts * h * d) to
    `parts` arrays (B * nW, M, h, d).
    """
    for axis, w in zip(range(1, 2 * len(size), 2), size):
        length = x.shape[axis]
        count = -(-length // w)
        pads = [(0, 0)] * x.ndim
        pads[axis] = (w // 2, (count + 1) * w - length - w // 2)
        blocks = jnp.pad(x, pads)
        blocks = blocks.reshape(*x.shape[:axis], count + 1, w, *x.shape[axis + 1 :])
        before, after = (jax.lax.slice_in_dim(blocks, i, i + count, axis=axis) for i in (0, 1))
        around = jnp.concatenate([before, after], axis + 1)
        x = jax.lax.slice_in_dim(around, 0, 2 * w - 1, axis=axis + 1)
    n = len(size)  # x is (B, H/w, 2w - 1, W/w, 2w - 1, ...)
    x = x.transpose(0, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2), 2 * n + 1)
    keys = math.prod(2 * w - 1 for w in size)
    x = x.reshape(-1, keys, parts, heads, x.shape[-1] // (parts * heads))
    return tuple(x[:, :, part] for part in range(parts))


def _rows(w: int) -> np.ndarray:
    """(w, 2w - 1, 2w - 1) float32: 1 where the difference of a query and a key along one axis is
    that of a row of the table, and the key is near.
    """
    query, key, row = np.ogrid[:w, : 2 * w - 1, : 2 * w - 1]
    behind = key - query  # 0 is the first key of the window around the query
    near = (behind >= 0) & (behind < w)
    return (near & (row == w // 2 + w - 1 - behind)).astype(np.float32)


def _allowed(spatial: tuple[int, ...], size: tuple[int, ...]) -> np.ndarray:
    """(nW, N, M) bool: the keys that are near a query and on the map."""
    near, known = np.ones((1, 1), bool), np.ones((1, 1), bool)
    for length, w in zip(spatial, size, strict=True):
        start = w * np.arange(-(-length // w))[:, None] - w // 2
        place = start + np.arange(2 * w - 1)
        near = np.kron(near, _rows(w).any(-1))
        known = np.kron(known, (place >= 0) & (place < length))
    return near[None] & known[:, None]
