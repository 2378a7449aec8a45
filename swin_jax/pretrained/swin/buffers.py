"""The tensors that official Swins compute for themselves and store all the same: made, and read for what they tell.

`relative_position_index` and `attn_mask` of both versions, `relative_coords_table` of Swin V2 (arXiv 2111.09883).
"""

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.ops import window_geometry


def official_buffers(model) -> dict[str, np.ndarray]:
    """The tensors that the official code stores beside a Swin's parameters.

    Args:
        model: anything with the fields of `models.swin.Swin`.

    Returns:
        {name: array}: per block `attn.relative_position_index` (N, N) int64; with a continuous bias
        `attn.relative_coords_table` (1, *(2 * window - 1), axes) float32; and `attn_mask` (nW, N, N) float32, 0 or
        -100, in blocks that are shifted. The dense backbone (`small='keep'`) stores no masks.

    Raises:
        UserError: a window that does not divide a stage's grid, which the official classifier cannot have.
    """
    buffers = {}
    scales = coordinate_windows(model)
    for s, (grid, window) in enumerate(zip(*window_geometry.stage_geometry(model))):
        shifted = model.small != "keep" and any(window_geometry.fit(grid, window, model.small)[1])
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
                    raise UserError(f"no official buffers: a window of {window} does not divide a grid of {grid}")
                shift = window_geometry.fit(grid, window, model.small)[1]
                buffers[f"{block}.attn_mask"] = window_geometry.shift_mask(grid, window, shift)
    return buffers


def coordinate_windows(model) -> list[tuple[int, ...]]:
    """The window that scales the coordinates of each stage's continuous bias: the pretraining's or the stage's own."""
    windows = window_geometry.stage_geometry(model)[1]
    given = window_geometry.per_stage(
        model.pretrained_window_sizes or (0,), len(windows), len(windows[0]), one_each=True
    )
    return [tuple(p or w for p, w in zip(*pair)) for pair in zip(given, windows, strict=True)]


def read_coordinates(table: np.ndarray) -> tuple[int, int]:
    """What a `relative_coords_table` was made with.

    Args:
        table: (1, 2w - 1, 2w - 1, 2).

    Returns:
        (window w, the window that scales the coordinates).

    Raises:
        UserError: a window that is not square, or coordinates of another formula.
    """
    if table.ndim != 4 or table.shape[1] != table.shape[2]:
        raise UserError("cannot infer window_size: a relative_coords_table is not of a square window")
    window = (table.shape[1] + 1) // 2
    if window == 1:  # 0 / 0 in the official code
        return 1, 1
    step = 2 ** (3 * float(table[0, window, 0, 0])) - 1  # 8 / (scale - 1), from the coordinate of a difference of 1
    scale = round(8 / step) + 1 if step > 0 else 0
    if scale < 2 or not np.allclose(table[0], _coordinates(window, scale), atol=5e-3):
        raise UserError("cannot infer pretrained_window_sizes: a relative_coords_table is not the official formula's")
    return window, scale


def _coordinates(window: int, scale: int) -> np.ndarray:
    side = 2 * window - 1
    return window_geometry.log_coordinates((window, window), (scale, scale)).reshape(side, side, 2)
