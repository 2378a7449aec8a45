"""The tensors that official Swins compute for themselves and store all the same:
made, and read for what they tell.

`relative_position_index` and `attn_mask` of both versions,
`relative_coords_table` of Swin V2 (arXiv 2111.09883).
"""

import itertools

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.sizes import Size, simplest
from swin_jax.ops import window_geometry


def official_buffers(model) -> dict[str, np.ndarray]:
    """The tensors that the official code stores beside a Swin's parameters.

    Args:
        model: Anything with the fields of `models.swin.Swin`.

    Returns:
        {name: array}: per block `attn.relative_position_index` (N, N) int64; with a continuous bias
        `attn.relative_coords_table` (1, *(2 * window - 1), axes) float32; and `attn_mask`
        (nW, N, N) float32, 0 or -100, in blocks that are shifted. The dense backbone
        (`small='keep'`) stores no masks, a Swin-MLP nothing.

    Raises:
        UserError: A window that does not divide a stage's grid,
            which the official classifier cannot have.
    """
    buffers = {}
    if model.token_mixer == "mlp":
        return buffers
    scales = coordinate_windows(model)
    geometry = zip(*window_geometry.stage_geometry(model), window_geometry.stage_rules(model))
    for s, (grid, window, rule) in enumerate(geometry):
        shift = window_geometry.fit(grid, window, rule)[1]
        shifted = model.small != "keep" and any(shift)
        for i in range(model.depths[s]):
            block = f"layers.{s}.blocks.{i}"
            if model.continuous_bias:
                table = window_geometry.log_coordinates(window, scales[s])
                shape = (1, *(2 * w - 1 for w in window), len(window))
                buffers[f"{block}.attn.relative_coords_table"] = table.reshape(shape)
            index = window_geometry.relative_position_index(window)
            buffers[f"{block}.attn.relative_position_index"] = index.astype(np.int64)
            if i % 2 and shifted:
                if any(n % w for n, w in zip(grid, window)):
                    raise UserError(
                        f"no official buffers: a window of {window} does "
                        f"not divide a grid of {grid}"
                    )
                buffers[f"{block}.attn_mask"] = window_geometry.shift_mask(grid, window, shift)
    return buffers


def coordinate_windows(model) -> list[tuple[int, ...]]:
    """The window that scales the coordinates of each stage's continuous bias:
    the pretraining's or the stage's own.
    """
    windows = window_geometry.stage_geometry(model)[1]
    given = window_geometry.per_stage(
        model.pretrained_window_sizes or (0,), len(windows), len(windows[0]), one_each=True
    )
    return [tuple(p or w for p, w in zip(*pair)) for pair in zip(given, windows, strict=True)]


def read_coordinates(table: np.ndarray) -> tuple[Size, Size]:
    """The sizes that a `relative_coords_table` was made with.

    Args:
        table: (1, 2h - 1, 2w - 1, 2).

    Returns:
        (window, the window that scales the coordinates), an int or (h, w) each.

    Raises:
        UserError: No table of a window, or coordinates of another formula.
    """
    if table.ndim != 4 or table.shape[-1] != 2 or not all(side % 2 for side in table.shape[1:3]):
        raise UserError(
            "cannot infer window_size: a relative_coords_table is not of a window (h, w)"
        )
    window = tuple((side + 1) // 2 for side in table.shape[1:3])
    scales = []
    for axis, size in enumerate(window):
        if size == 1:  # 0 / 0 in the official code
            scales.append(1)
            continue
        center = [0, *(side - 1 for side in window), axis]
        center[1 + axis] += 1
        # 8 / (scale - 1), from the coordinate of a difference of 1
        step = 2 ** (3 * float(table[tuple(center)])) - 1
        scales.append(round(8 / step) + 1 if step > 0 else 0)
    told = [axis for axis, size in enumerate(window) if size > 1]
    if any(scales[axis] < 2 for axis in told) or not np.allclose(
        table[0][..., told], _coordinates(window, tuple(scales))[..., told], atol=5e-3
    ):
        raise UserError(
            "cannot infer pretrained_window_sizes: a relative_coords_table is "
            "not the official formula's"
        )
    return simplest(window), simplest(tuple(scales))


def _coordinates(window: tuple[int, int], scale: tuple[int, int]) -> np.ndarray:
    sides = [2 * size - 1 for size in window]
    return window_geometry.log_coordinates(window, scale).reshape(*sides, 2)


def read_index(index: np.ndarray) -> tuple[int, int] | None:
    """The window (h, w) that a `relative_position_index` (N, N) is of.

    Returns:
        None for a line of tokens, which may be horizontal or vertical.

    Raises:
        UserError: An index that belongs to no window.
    """
    tokens = len(index)
    found = []
    for height in (n for n in range(1, tokens + 1) if tokens % n == 0):
        window = (height, tokens // height)
        if np.array_equal(window_geometry.relative_position_index(window), index):
            found.append(window)
    if not found:
        raise UserError(
            "cannot infer window_size: a relative_position_index is not of a window (h, w)"
        )
    return found[0] if len(found) == 1 else None


def read_mask(mask: np.ndarray, window: tuple[int, int]) -> tuple[int, int] | None:
    """The number of windows that an `attn_mask` (nW,
    N, N) has along each axis; None if it does not tell.
    """
    masked = mask[:, 0] != 0  # (nW, N): one query tells the windows that are cut, and where
    found = []
    halves = [(0, size // 2) for size in window]
    for rows in (n for n in range(1, len(mask) + 1) if len(mask) % n == 0):
        counts = (rows, len(mask) // rows)
        spatial = tuple(count * size for count, size in zip(counts, window))
        for shift in itertools.product(*halves):
            regions = window_geometry.shift_regions(spatial, window, shift)
            if any(shift) and np.array_equal(regions != regions[:, :1], masked):
                found.append(counts)
    return found[0] if len(set(found)) == 1 else None
