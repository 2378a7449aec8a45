"""Finds the windows and the grid of a state dict's position tables, one size per axis.

Tables are stored as rows, so that a window of 5 x 13 has as many as one of 8 x 8. The buffers of
the official files tell them apart; files of timm have none.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.sizes import per_axis
from swin_jax.ops import window_geometry
from swin_jax.pretrained.swin import buffers

Window = tuple[int, ...]


def attention(found: Mapping[str, np.ndarray], stage: int, name: str) -> np.ndarray | None:
    """An array of the attention of a stage's first block; `found` is in official names."""
    return found.get(f"layers.{stage}.blocks.0.attn.{name}")


def mlp_tokens(found: Mapping[str, np.ndarray], stage: int) -> int | None:
    """The tokens in a window of a stage, which the matrices of a Swin-MLP tell; None without them.
    `found` is in official names.
    """
    matrices = found.get(f"layers.{stage}.blocks.0.spatial_mlp.weight")
    return None if matrices is None else matrices.shape[1]


def mlp_window(found: Mapping[str, np.ndarray], stage: int) -> Window | None:
    """The window of a stage of a Swin-MLP: the square of its tokens, where that is a window."""
    tokens = mlp_tokens(found, stage)
    side = math.isqrt(tokens or 0)
    return (side, side) if tokens and side * side == tokens else None


def read_buffers(found: Mapping[str, np.ndarray], stages: int) -> list[Window | None]:
    """The window of each stage that its buffers tell, or the matrices of a Swin-MLP; None for a
    stage without.

    Args:
        found: A state dict in official names, with its buffers.
        stages: Number of stages.

    Raises:
        UserError: Buffers that are not of the official formulas.
    """
    windows = []
    for stage in range(stages):
        coordinates = attention(found, stage, "relative_coords_table")
        index = attention(found, stage, "relative_position_index")
        if coordinates is not None:
            windows.append(per_axis(buffers.read_coordinates(coordinates)[0], 2))
        elif index is not None:
            windows.append(buffers.read_index(index))
        else:
            windows.append(mlp_window(found, stage))
    return windows


def read_grid(found: Mapping[str, np.ndarray], windows: Sequence[Window | None]) -> Window | None:
    """The token grid of the first stage that a mask tells, the first that there is; or None.

    Args:
        found: A state dict in official names, with its buffers.
        windows: The window of each stage, None where it is not known.
    """
    for stage, window in enumerate(windows):
        mask = found.get(f"layers.{stage}.blocks.1.attn_mask")
        if mask is None or window is None:
            continue
        counts = buffers.read_mask(mask, window)
        if counts is not None:
            return tuple(count * side * 2**stage for count, side in zip(counts, window))
    return None


@dataclasses.dataclass(frozen=True)
class Tables:
    """The windows and the grid of a file's position tables,
    as far as its buffers or the model that it was made for tell.

    Attributes:
        windows: (h, w) of each stage, or None.
        grid: (h, w) of absolute positions, or None.
    """

    windows: tuple[Window | None, ...]
    grid: Window | None


def read_tables(found: Mapping[str, np.ndarray], stages: int, made_for=None) -> Tables:
    """The windows and the grid of a file's tables.

    Args:
        found: A state dict in official names, with its buffers.
        stages: Number of stages.
        made_for: Anything with the fields of the Swin that the weights are of, where that is known;
            its sizes count where buffers tell none and the tables have as many rows.
    """
    told = read_buffers(found, stages)
    grid = read_grid(found, told)
    if made_for is None or len(made_for.depths) != stages:
        return Tables(tuple(told), grid)
    grids, windows = window_geometry.stage_geometry(made_for)
    for stage, window in enumerate(windows):
        table = attention(found, stage, "relative_position_bias_table")
        if (
            told[stage] is None
            and table is not None
            and len(table) == math.prod(2 * w - 1 for w in window)
        ):
            told[stage] = window
    positions = found.get("absolute_pos_embed")
    if grid is None and positions is not None and positions.shape[1] == math.prod(grids[0]):
        grid = grids[0]
    return Tables(tuple(told), grid)


def windows_of_rows(rows: int) -> list[Window]:
    """The windows (h, w) whose tables have this many rows; a square one first, lines last."""
    sides = [side for side in range(1, rows + 1, 2) if rows % side == 0 and rows // side % 2]
    windows = [((side + 1) // 2, (rows // side + 1) // 2) for side in sides]
    return sorted(windows, key=lambda window: (1 in window, abs(window[0] - window[1]), window))


def shapes_of_rows(rows: int) -> list[Window]:
    """The grids (h, w) of so many positions; a square one first, lines last."""
    grids = [(side, rows // side) for side in range(1, rows + 1) if rows % side == 0]
    return sorted(grids, key=lambda grid: (1 in grid, abs(grid[0] - grid[1]), grid))


def choose(what: str, candidates: Sequence[Window], known: Iterable[Window | None]) -> Window:
    """The shape of a table: a known one that has its rows, else a square.

    Args:
        what: The table, for the message.
        candidates: The shapes that have as many rows, a square one first.
        known: Shapes to prefer, the surest first; None for what is not known.

    Raises:
        UserError: A number of rows that fits neither a known shape nor a square.
    """
    for shape in known:
        if shape in candidates:
            return shape
    if candidates and len(set(candidates[0])) == 1:
        return candidates[0]
    options = " or ".join(" x ".join(map(str, shape)) for shape in candidates[:4] if 1 not in shape)
    raise UserError(
        f"{what} is not of a square, and it is unknown whether it is of {options or 'a line'}: "
        "give window_size and image_size, (height, width) each, to swin_jax.load"
    )
