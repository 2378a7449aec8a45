"""Resizes CLIP's positions for images of another size or longer texts.

OpenAI's ViT-L/14@336px began as ViT-L/14 with its positions stretched bilinearly; open_clip resizes
bicubically with antialiasing, and text positions linearly. Reference:
`torch.nn.functional.interpolate` with align_corners=False.
"""

import math
from collections.abc import Mapping

import numpy as np

from swin_jax.core.errors import UserError

METHODS = ("bilinear", "bicubic")


def resize_positions(
    state_dict: Mapping[str, np.ndarray],
    grid: tuple[int, int],
    text_rows: int,
    method: str | None = None,
    old: tuple[int, int] | None = None,
) -> dict[str, np.ndarray]:
    """Fits the positions of both towers to a model; positions that already fit are unchanged.

    If the model takes shorter texts, only the first text positions are kept.

    Args:
        state_dict: State dict in OpenAI's names, as `pretrained.clip.layouts.to_official_names`
            gives it.
        grid: (rows, columns) of the model's image positions, without the extra first one.
        text_rows: Number of the model's text positions.
        method: 'bilinear' or 'bicubic', for the image;
            text positions are stretched linearly under either.
        old: The weights' grid; None if unknown.

    Returns:
        The state dict with positions of the wanted lengths, float32 where they changed.

    Raises:
        UserError: Positions must be resized but no method is given, or their grid is unknown.
    """
    state_dict = dict(state_dict)
    for name in ("visual.positional_embedding", "visual.attnpool.positional_embedding"):
        if name in state_dict:
            state_dict[name] = _resize_grid(name, state_dict[name], grid, method, old)
    table = state_dict.get("positional_embedding")
    if table is not None and len(table) > text_rows:
        state_dict["positional_embedding"] = table[:text_rows]
    elif table is not None and len(table) < text_rows:
        _require(
            method,
            f"these weights are for texts of {len(table)} tokens, but the model takes {text_rows}",
        )
        matrix = resize_matrix(len(table), text_rows, "bilinear")
        state_dict["positional_embedding"] = (matrix @ table.astype(np.float64)).astype(np.float32)
    return state_dict


def _resize_grid(
    name: str,
    table: np.ndarray,
    grid: tuple[int, int],
    method: str | None,
    old: tuple[int, int] | None,
) -> np.ndarray:
    """Resizes all rows but the first, which belongs to the class token or the mean."""
    old = _grid_of(name, len(table) - 1, grid, old)
    if old == tuple(grid):
        return table
    _require(
        method,
        f"these weights are for images of {_shown(old)} positions, but the model takes "
        f"{_shown(grid)}",
    )
    rows, columns = (resize_matrix(before, after, method) for before, after in zip(old, grid))
    box = table[1:].astype(np.float64).reshape(*old, -1)
    box = np.einsum("ai,bj,ijc->abc", rows, columns, box, optimize=True).reshape(
        math.prod(grid), -1
    )
    return np.concatenate([table[:1].astype(np.float32), box.astype(np.float32)])


def _grid_of(
    name: str, count: int, wanted: tuple[int, int], told: tuple[int, int] | None
) -> tuple[int, int]:
    """The grid of `count` positions: the known one, or else a square, or else the model's."""
    if told is not None and math.prod(told) == count:
        return tuple(told)
    side, wanted = math.isqrt(count), tuple(wanted)
    if side * side == count and (wanted == (side, side) or math.prod(wanted) != count):
        return side, side
    if math.prod(wanted) == count and side * side != count:
        return wanted
    what = "a square" if side * side == count else "a grid that is not a square"
    raise UserError(
        f"the grid of the weights is unknown: {name} has {count + 1} rows, one more than {what}, "
        f"and the model's grid is {_shown(wanted)}; put their config beside them, or pass their "
        "image_size=(H, W) to swin_jax.load"
    )


def _shown(grid: tuple[int, int]) -> str:
    return " x ".join(map(str, grid))


def _require(method: str | None, what: str) -> None:
    if method not in METHODS:
        raise UserError(
            f"{what}: choose resize='bilinear' (as OpenAI's 336-pixel model was made) or "
            "'bicubic' (as open_clip does)"
        )


def resize_matrix(old: int, new: int, method: str) -> np.ndarray:
    """The matrix (new, old), float64, that interpolates along one axis with half-pixel centers and
    antialiasing.
    """
    scale = max(old / new, 1)
    u = np.abs((np.arange(old) + 0.5) - (np.arange(new)[:, None] + 0.5) * old / new) / scale
    if method == "bilinear":
        weights = np.maximum(0, 1 - u)
    else:  # Keys' kernel with A = -0.5
        near, far = 1.5 * u**3 - 2.5 * u**2 + 1, -0.5 * u**3 + 2.5 * u**2 - 4 * u + 2
        weights = np.where(u <= 1, near, np.where(u < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)
