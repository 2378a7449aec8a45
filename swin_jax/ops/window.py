"""Windows of feature maps over any number of spatial axes: partition, reverse, padding.

Swin Transformer (arXiv 2103.14030, section 3.2). What depends on shapes only is in `swin_jax.geometry`.
"""

import itertools
import math

import jax
import jax.numpy as jnp


def partition(x: jax.Array, window: tuple[int, ...]) -> jax.Array:
    """Splits a feature map into non-overlapping windows.

    Args:
        x: (B, *spatial, C); every spatial size divisible by its window size.
        window: one int per spatial axis, (7, 7) or (8, 7, 7).

    Returns:
        (B * nW, N, C): windows of one image are contiguous and in raster order, N = prod(window).
    """
    batch, *spatial, channels = x.shape
    n = len(spatial)
    counts = [size // w for size, w in zip(spatial, window, strict=True)]
    x = x.reshape(batch, *itertools.chain(*zip(counts, window)), channels)  # (B, H/w, w, W/w, w, C)
    x = x.transpose(0, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2), 2 * n + 1)  # (B, H/w, W/w, w, w, C)
    return x.reshape(batch * math.prod(counts), math.prod(window), channels)


def reverse(windows: jax.Array, window: tuple[int, ...], spatial: tuple[int, ...]) -> jax.Array:
    """Puts windows back in place; the inverse of `partition`.

    Args:
        windows: (B * nW, N, C).
        window: one int per spatial axis.
        spatial: size of the map, one int per spatial axis.

    Returns:
        (B, *spatial, C).
    """
    n, channels = len(spatial), windows.shape[-1]
    counts = [size // w for size, w in zip(spatial, window, strict=True)]
    x = windows.reshape(-1, *counts, *window, channels)  # (B, H/w, W/w, w, w, C)
    x = x.transpose(0, *itertools.chain(*((1 + i, 1 + n + i) for i in range(n))), 2 * n + 1)
    return x.reshape(-1, *spatial, channels)


def pad_to_multiple(x: jax.Array, window: tuple[int, ...]) -> jax.Array:
    """Pads the end of every spatial axis of (B, *spatial, C) with zeros to a multiple of the window."""
    pads = [(0, -size % w) for size, w in zip(x.shape[1:-1], window, strict=True)]
    return jnp.pad(x, [(0, 0), *pads, (0, 0)]) if any(after for _, after in pads) else x
