"""Windows of feature maps over any number of spatial axes: partition, reverse, padding, cutting.

Swin Transformer (arXiv 2103.14030, section 3.2). What depends on shapes only is in
`swin_jax.ops.window_geometry`.
"""

import itertools
import math

import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError


def partition(x: jax.Array, window: tuple[int, ...]) -> jax.Array:
    """Splits a feature map into non-overlapping windows.

    Args:
        x: (B, *spatial, C); every spatial size divisible by its window size.
        window: One int per spatial axis, (7, 7) or (8, 7, 7).

    Returns:
        (B * nW, N, C): windows of one image are contiguous and in raster order, N = prod(window).
    """
    batch, *spatial, channels = x.shape
    n = len(spatial)
    counts = [size // w for size, w in zip(spatial, window, strict=True)]
    x = x.reshape(batch, *itertools.chain(*zip(counts, window)), channels)  # (B, H/w, w, W/w, w, C)
    # (B, H/w, W/w, w, w, C)
    x = x.transpose(0, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2), 2 * n + 1)
    return x.reshape(batch * math.prod(counts), math.prod(window), channels)


def reverse(windows: jax.Array, window: tuple[int, ...], spatial: tuple[int, ...]) -> jax.Array:
    """Puts windows back in place; the inverse of `partition`.

    Args:
        windows: (B * nW, N, C).
        window: One int per spatial axis.
        spatial: Size of the map, one int per spatial axis.

    Returns:
        (B, *spatial, C).
    """
    n, channels = len(spatial), windows.shape[-1]
    counts = [size // w for size, w in zip(spatial, window, strict=True)]
    x = windows.reshape(-1, *counts, *window, channels)  # (B, H/w, W/w, w, w, C)
    x = x.transpose(0, *itertools.chain(*((1 + i, 1 + n + i) for i in range(n))), 2 * n + 1)
    return x.reshape(-1, *spatial, channels)


def pad_to_multiple(x: jax.Array, window: tuple[int, ...]) -> jax.Array:
    """Pads the end of every spatial axis of (B, *spatial,
    C) with zeros to a multiple of the window.
    """
    pads = [(0, -size % w) for size, w in zip(x.shape[1:-1], window, strict=True)]
    return jnp.pad(x, [(0, 0), *pads, (0, 0)]) if any(after for _, after in pads) else x


def cut_to_multiple(x: jax.Array, window: tuple[int, ...]) -> jax.Array:
    """Cuts the end of every spatial axis of (B, *spatial, C) down to a multiple of the window.

    Raises:
        UserError: An axis shorter than the window.
    """
    spatial = x.shape[1:-1]
    if any(size < w for size, w in zip(spatial, window, strict=True)):
        raise UserError(f"images of {spatial} are smaller than a patch of {window}")
    return x[:, *(slice(size - size % w) for size, w in zip(spatial, window))]


def relative_bias(table: jax.Array, window: tuple[int, ...]) -> jax.Array:
    """Spreads a table of relative positions over all pairs of a window's tokens.

    The same as `table[window_geometry.relative_position_index(window)]`, axis by axis, by reshapes:
    the gradient of an index is a scatter, which is slow, not deterministic on a GPU, and pads N * N
    rows of h numbers to 128 lanes on a TPU.

    Args:
        table: (prod(2 * window - 1), h).
        window: One int per spatial axis.

    Returns:
        (h, N, N), queries before keys.
    """
    bias = table.T.reshape(-1, *(2 * w - 1 for w in window))  # (h, 2w - 1, 2w - 1)
    inner = window[-2:]
    first = bias.ndim - len(inner)
    for w in inner:
        # (..., w, w): the next axis takes the place of this one
        bias = _toeplitz(jnp.moveaxis(bias, first, -1), w)
    bias = bias.transpose(
        *range(first), *range(first, bias.ndim, 2), *range(first + 1, bias.ndim, 2)
    )
    bias = bias.reshape(*bias.shape[:first], math.prod(inner), -1)  # (h, ..., queries, keys)
    # Frames as blocks of these: in an array with six axes of their own, two per axis,
    # nearly all is a TPU's padding.
    for w in reversed(window[:-2]):
        bias = _block_toeplitz(bias, w)
    return bias


def _block_toeplitz(x: jax.Array, w: int) -> jax.Array:
    """(..., 2w - 1, q, k) to (..., w * q, w * k): block (i, j) is x[i - j + w - 1]."""
    k = x.shape[-1]
    strip = jnp.moveaxis(jnp.flip(x, -3), -3, -2)
    strip = strip.reshape(*strip.shape[:-2], -1)  # all blocks side by side; row i is a piece of it
    return jnp.concatenate(
        [strip[..., (w - 1 - i) * k : (2 * w - 1 - i) * k] for i in range(w)], -2
    )


def _toeplitz(x: jax.Array, w: int) -> jax.Array:
    """(..., 2w - 1) to (..., w, w): element (i, k) is x[i - k + w - 1]."""
    lead = x.shape[:-1]
    x = jnp.broadcast_to(jnp.flip(x, -1)[..., None, :], (*lead, w, 2 * w - 1)).reshape(*lead, -1)
    # Rows of 2w instead of 2w - 1 numbers: each begins one further to the right
    # than the one before.
    x = jnp.pad(x, [(0, 0)] * len(lead) + [(0, w)]).reshape(*lead, w, 2 * w)[..., :w]
    return jnp.flip(x, -2)
