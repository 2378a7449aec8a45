"""Resizing CLIP's positions to images of another size, or to longer texts.

OpenAI's ViT-L/14@336px began as ViT-L/14 with its positions stretched bilinearly; open_clip resizes bicubically with
antialiasing, and text positions linearly. Peer: `torch.nn.functional.interpolate` with align_corners=False.
"""

import math
from collections.abc import Mapping

import numpy as np

from swin_jax.core.errors import UserError

METHODS = ("bilinear", "bicubic")


def resize_positions(
    state_dict: Mapping[str, np.ndarray], image_rows: int, text_rows: int, method: str | None = None
) -> dict[str, np.ndarray]:
    """Fits the positions of both towers to a model; what fits already stays as it is.

    Fewer text positions are the first ones, which changes nothing for shorter texts.

    Args:
        state_dict: in OpenAI's names, as `pretrained.clip.layouts.to_official_names` gives it.
        image_rows: positions of the image tower, 1 + side * side.
        text_rows: the longest text.
        method: 'bilinear' or 'bicubic', for the image; text positions are stretched linearly under either.

    Returns:
        The state dict with positions of the wanted lengths, float32 where they changed.

    Raises:
        UserError: positions that must be stretched and no method to do so; grids that are not square.
    """
    state_dict = dict(state_dict)
    for name in ("visual.positional_embedding", "visual.attnpool.positional_embedding"):
        if name in state_dict and len(state_dict[name]) != image_rows:
            state_dict[name] = _resize_grid(name, state_dict[name], image_rows, method)
    table = state_dict.get("positional_embedding")
    if table is not None and len(table) > text_rows:
        state_dict["positional_embedding"] = table[:text_rows]
    elif table is not None and len(table) < text_rows:
        _require(method, f"these weights are for texts of {len(table)} tokens, the model for {text_rows}")
        matrix = resize_matrix(len(table), text_rows, "bilinear")
        state_dict["positional_embedding"] = (matrix @ table.astype(np.float64)).astype(np.float32)
    return state_dict


def _resize_grid(name: str, table: np.ndarray, rows: int, method: str | None) -> np.ndarray:
    """Stretches all rows but the first, which is of the class token or the mean."""
    old, new = math.isqrt(len(table) - 1), math.isqrt(rows - 1)
    if old * old + 1 != len(table) or new * new + 1 != rows:
        raise UserError(f"{name} has {len(table)} rows, which can't be resized to {rows}: not a square and one more")
    _require(method, f"these weights are for images of {old} x {old} positions, the model for {new} x {new}")
    matrix = resize_matrix(old, new, method)
    grid = table[1:].astype(np.float64).reshape(old, old, -1)
    grid = np.einsum("ai,bj,ijc->abc", matrix, matrix, grid, optimize=True).reshape(new * new, -1)
    return np.concatenate([table[:1].astype(np.float32), grid.astype(np.float32)])


def _require(method: str | None, what: str) -> None:
    if method not in METHODS:
        raise UserError(
            f"{what}: choose resize='bilinear' (as OpenAI's 336-pixel model was made) or 'bicubic' (as open_clip does)"
        )


def resize_matrix(old: int, new: int, method: str) -> np.ndarray:
    """Interpolation along one axis with half-pixel centres and antialiasing, as a matrix (new, old), float64."""
    scale = max(old / new, 1)
    u = np.abs((np.arange(old) + 0.5) - (np.arange(new)[:, None] + 0.5) * old / new) / scale
    if method == "bilinear":
        weights = np.maximum(0, 1 - u)
    else:  # Keys' kernel with A = -0.5
        near, far = 1.5 * u**3 - 2.5 * u**2 + 1, -0.5 * u**3 + 2.5 * u**2 - 4 * u + 2
        weights = np.where(u <= 1, near, np.where(u < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)
