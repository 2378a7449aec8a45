"""Geometry of windows over any number of spatial axes: partition, shift mask, relative positions.

Swin Transformer (arXiv 2103.14030, section 3.2), Video Swin (arXiv 2106.13230, section 3.2). Everything that depends on
shapes only is computed with numpy, so that it is a constant of the compiled program and never a parameter.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

# What the official code adds to the logits of pairs that shifting brought into one window without being neighbours.
MASKED = -100.0


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


def fit(grid: tuple[int, ...], window: tuple[int, ...], small: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The window and the shift of odd blocks on a grid, by the rule for grids no larger than the window.

    Args:
        grid: size of the feature map, one int per spatial axis.
        window: the wanted window.
        small: 'shrink' (classification: any axis <= window makes the window the smaller side and the shift 0 on all
            axes), 'axis' (video: the same, axis by axis) or 'keep' (dense prediction: never shrinks, pads).

    Returns:
        (window, shift), one int per axis each.
    """
    half = tuple(w // 2 for w in window)
    if small == "keep":
        return window, half
    if small == "axis":
        pairs = [(g, 0) if g <= w else (w, s) for g, w, s in zip(grid, window, half, strict=True)]
        return tuple(w for w, _ in pairs), tuple(s for _, s in pairs)
    if small == "shrink":
        if any(g <= w for g, w in zip(grid, window, strict=True)):
            return (min(grid),) * len(grid), (0,) * len(grid)
        return window, half
    raise ValueError(f"small={small!r} is none of 'shrink', 'axis', 'keep'")


@functools.lru_cache
def shift_mask(spatial: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]) -> np.ndarray:
    """What to add to the logits so that a shifted window attends only within regions that were neighbours.

    Args:
        spatial: size of the (padded) map; divisible by the window.
        window, shift: one int per axis.

    Returns:
        (nW, N, N) float32: 0 where both tokens are of one region, `MASKED` elsewhere.
    """
    labels = np.zeros(spatial, np.int64)
    for axis, (size, w, s) in enumerate(zip(spatial, window, shift, strict=True)):
        position = np.arange(size)
        region = (position >= size - w).astype(np.int64) + (position >= size - s) if s else np.zeros(size, np.int64)
        labels = labels * 3 + region.reshape([-1 if i == axis else 1 for i in range(len(spatial))])
    n = len(spatial)
    split = labels.reshape(list(itertools.chain(*((size // w, w) for size, w in zip(spatial, window)))))
    labels = split.transpose(*range(0, 2 * n, 2), *range(1, 2 * n, 2)).reshape(-1, math.prod(window))  # (nW, N)
    return np.where(labels[:, :, None] == labels[:, None, :], 0.0, MASKED).astype(np.float32)


@functools.lru_cache
def relative_position_index(window: tuple[int, ...]) -> np.ndarray:
    """Rows of the bias table for each pair of tokens: index of (query - key), axes in 'ij' order.

    Returns:
        (N, N) int32 into a table of prod(2 * window - 1) rows.
    """
    coordinates = np.stack(np.meshgrid(*(np.arange(w) for w in window), indexing="ij"), axis=-1)
    coordinates = coordinates.reshape(-1, len(window))  # (N, axes)
    difference = coordinates[:, None] - coordinates[None, :] + np.array(window) - 1  # (N, N, axes)
    return np.ravel_multi_index(np.moveaxis(difference, -1, 0), [2 * w - 1 for w in window]).astype(np.int32)


def pad_to_multiple(x: jax.Array, window: tuple[int, ...]) -> jax.Array:
    """Pads the end of every spatial axis of (B, *spatial, C) with zeros to a multiple of the window."""
    pads = [(0, -size % w) for size, w in zip(x.shape[1:-1], window, strict=True)]
    return jnp.pad(x, [(0, 0), *pads, (0, 0)]) if any(after for _, after in pads) else x
