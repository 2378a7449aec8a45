"""Geometry of windows over any number of spatial axes, in numpy: what follows from shapes alone.

Swin (arXiv 2103.14030, section 3.2), Swin V2 (arXiv 2111.09883, section 3.3), Video Swin
(arXiv 2106.13230). Everything here is a constant of the compiled program and never a parameter;
models and conversion share it.
"""

import functools
import itertools
import math

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.sizes import per_axis

SMALL = ("shrink", "axis", "keep", "shrink_axis", "pad")
SHRINKING = ("shrink", "shrink_axis")  # rules by which parameters are of the smaller window
CPB_HIDDEN = 512  # of the MLP of the continuous position bias

# What the official code adds to the logits of pairs that shifting brought into one window
# without being neighbors.
MASKED = -100.0


def per_stage(value, stages: int, axes: int, one_each: bool = False) -> list[tuple[int, ...]]:
    """One size per stage.

    Args:
        value: A size for all stages, or a tuple of one size (an int or a tuple) per stage,
            a 1-tuple being repeated.
        one_each: True if a tuple of ints has one per stage; otherwise it has one per axis.
    """
    nested = not isinstance(value, int) and any(not isinstance(entry, int) for entry in value)
    if not nested and not one_each:
        return [per_axis(value, axes)] * stages
    if len(value) not in (1, stages):
        raise UserError(f"{value} has {len(value)} entries for {stages} stages")
    return [per_axis(entry, axes) for entry in (value * stages if len(value) == 1 else value)]


def num_axes(model) -> int:
    """Spatial axes of a Swin: as many as its longest size has entries, at least two."""
    window = model.window_size
    if isinstance(window, int) or all(isinstance(entry, int) for entry in window):
        window = [window]
    given = [model.image_size, model.patch_size, model.merge_size, *window]
    return max([2, *(len(value) for value in given if not isinstance(value, int))])


def fit(
    grid: tuple[int, ...], window: tuple[int, ...], small: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The window and the shift of odd blocks on a grid,
    by the rule for grids no larger than the window.

    Args:
        grid: Size of the feature map, one int per spatial axis.
        window: The wanted window.
        small: 'shrink' (the official classifiers: any axis <= window makes a square window the
            smaller side and the shift 0 on all axes; a window that is not square is treated as by
            'shrink_axis'), 'shrink_axis' (timm: an axis <= window makes the window the grid and the
            shift 0 on this axis), 'axis' (video: the same, but parameters are those of the whole
            window), 'keep' (dense prediction: never shrinks, pads) or 'pad' (torchvision: the same,
            but the shift is 0 on an axis <= window).

    Returns:
        (window, shift), one int per axis each.
    """
    half = tuple(w // 2 for w in window)
    small = rule(window, small)
    if small == "keep":
        return window, half
    if small == "shrink":
        if any(g <= w for g, w in zip(grid, window, strict=True)):
            return (min(grid),) * len(grid), (0,) * len(grid)
        return window, half
    if small == "pad":
        return window, tuple(0 if g <= w else s for g, w, s in zip(grid, window, half, strict=True))
    pairs = [(g, 0) if g <= w else (w, s) for g, w, s in zip(grid, window, half, strict=True)]
    return tuple(w for w, _ in pairs), tuple(s for _, s in pairs)


def rule(window: tuple[int, ...], small: str) -> str:
    """The rule of `fit` for a configured window: 'shrink_axis' in place of 'shrink'
    unless it is square.

    Blocks are given this one, for a window that was made smaller may have become square.
    """
    if small not in SMALL:
        raise UserError(f"small={small!r} is not one of {SMALL}")
    return "shrink_axis" if small == "shrink" and len(set(window)) > 1 else small


def stage_rules(model) -> list[str]:
    """`rule` of each stage; `model` as for `stage_geometry`."""
    windows = per_stage(model.window_size, len(model.depths), num_axes(model))
    return [rule(window, model.small) for window in windows]


def stage_geometry(model) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """(grids, windows) of each stage at `image_size`:
    the windows that the parameters are shaped for.

    Args:
        model: Anything with the fields of `models.swin.Swin`.
    """
    axes = num_axes(model)
    windows = per_stage(model.window_size, len(model.depths), axes)
    grids = stage_grids(model, per_axis(model.image_size, axes))
    if model.small not in SHRINKING:
        return grids, windows
    return grids, [fit(g, w, model.small)[0] for g, w in zip(grids, windows)]


def stage_grids(model, image: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The map's size in each stage for an image of this size, one int per axis."""
    patch, merge = per_axis(model.patch_size, len(image)), per_axis(model.merge_size, len(image))
    # Under 'pad', torchvision's rule, pixels beyond whole patches are cut off.
    grids = [tuple(n // p if model.small == "pad" else -(-n // p) for n, p in zip(image, patch))]
    for _ in model.depths[1:]:
        grids.append(tuple(-(-n // m) for n, m in zip(grids[-1], merge)))
    return grids


def total_stride(model, axes: int) -> tuple[int, ...]:
    """Pixels per token of the last stage, along each axis."""
    patch, merge = per_axis(model.patch_size, axes), per_axis(model.merge_size, axes)
    return tuple(p * m ** (len(model.depths) - 1) for p, m in zip(patch, merge))


@functools.lru_cache
def shift_regions(
    spatial: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]
) -> np.ndarray:
    """The region of the rolled map that each token of each window comes from;
    windows attend within regions only.

    Args:
        spatial: Size of the (padded) map; divisible by the window.
        window, shift: One int per axis.

    Returns:
        (nW, N) int32 labels. At 1536 pixels and window 32 the mask that they stand for has 0.6 GB.
    """
    labels = np.zeros(spatial, np.int32)
    for axis, (size, w, s) in enumerate(zip(spatial, window, shift, strict=True)):
        position = np.arange(size)
        if s:
            region = (position >= size - w).astype(np.int32) + (position >= size - s)
        else:
            region = np.zeros(size, np.int32)
        labels = labels * 3 + region.reshape([-1 if i == axis else 1 for i in range(len(spatial))])
    return _in_windows(labels, window)


def _in_windows(labels: np.ndarray, window: tuple[int, ...]) -> np.ndarray:
    """(*spatial) to (nW, N)."""
    n = len(window)
    split = labels.reshape(
        list(itertools.chain(*((size // w, w) for size, w in zip(labels.shape, window))))
    )
    return split.transpose(*range(0, 2 * n, 2), *range(1, 2 * n, 2)).reshape(-1, math.prod(window))


def shift_padding(window: tuple[int, ...], shift: tuple[int, ...]) -> list[tuple[int, int]]:
    """The tokens to pad before and after each axis in order to shift windows without rolling: the
    same windows, and one more along each axis that is shifted.
    """
    return [(w - s, s) if s else (0, 0) for w, s in zip(window, shift, strict=True)]


@functools.lru_cache
def padded_regions(
    spatial: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]
) -> np.ndarray:
    """`shift_regions` of a map that was padded by `shift_padding`: 0 for its tokens, 1 for the
    padding, (nW, N) int32.
    """
    pads = shift_padding(window, shift)
    return _in_windows(np.pad(np.zeros(spatial, np.int32), pads, constant_values=1), window)


def shift_mask(
    spatial: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]
) -> np.ndarray:
    """The official mask: (nW, N, N) float32, 0 where both tokens are of one
    region and `MASKED` elsewhere.
    """
    labels = shift_regions(spatial, window, shift)
    return np.where(labels[:, :, None] == labels[:, None, :], 0.0, MASKED).astype(np.float32)


@functools.lru_cache
def relative_position_index(window: tuple[int, ...]) -> np.ndarray:
    """Rows of the bias table for each pair of tokens: index of (query - key), axes in 'ij' order.

    Returns:
        (N, N) int32 into a table of prod(2 * window - 1) rows.
    """
    coordinates = np.indices(window).reshape(len(window), -1)  # (axes, N)
    difference = (
        coordinates[:, :, None] - coordinates[:, None, :] + np.array(window)[:, None, None] - 1
    )
    return np.ravel_multi_index(tuple(difference), [2 * w - 1 for w in window]).astype(np.int32)


@functools.lru_cache
def log_coordinates(window: tuple[int, ...], pretrained: tuple[int, ...]) -> np.ndarray:
    """Log-spaced relative coordinates of Swin V2, one row per row of a bias table
    of the same window.

    sign(x) log2(|x| + 1) / log2(8) of x = 8 (query - key) / (size - 1),
    where size is the window of the pretraining.

    Args:
        window: One int per axis.
        pretrained: The window that coordinates are scaled by, one int per axis;
            0 for `window` itself.

    Returns:
        (prod(2 * window - 1), axes) float32. An axis of a single token has coordinate 0 (the
        official code: 0 / 0).
    """
    scales = [max((p or w) - 1, 1) for w, p in zip(window, pretrained, strict=True)]
    lines = [
        8 * np.arange(1 - w, w, dtype=np.float32) / np.float32(scale)
        for w, scale in zip(window, scales)
    ]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(window))
    return np.sign(grid) * np.log2(np.abs(grid) + 1) / np.log2(np.float32(8))


def bicubic_matrix(old: int, new: int) -> np.ndarray:
    """PyTorch's bicubic interpolation along one axis as a matrix (new, old), float64.

    Keys' kernel with A = -0.75 (`jax.image.resize` has -0.5), half-pixel centers, taps clamped at
    the edges, no antialiasing.
    """
    a = -0.75
    matrix = np.zeros((new, old))
    x = (np.arange(new) + 0.5) * old / new - 0.5
    for tap in range(-1, 3):
        place = np.floor(x) + tap
        u = np.abs(x - place)
        near = (a + 2) * u**3 - (a + 3) * u**2 + 1
        far = a * u**3 - 5 * a * u**2 + 8 * a * u - 4 * a
        np.add.at(
            matrix,
            (np.arange(new), np.clip(place, 0, old - 1).astype(int)),
            np.where(u <= 1, near, far),
        )
    return matrix
