"""Resizing position tables to another window or image size, in the two ways of the official code.

'bicubic' is what supervised fine-tuning does (`load_pretrained` of utils.py in
microsoft/Swin-Transformer; PyTorch's interpolation). 'geometric' is what SimMIM's fine-tuning does
(utils_simmim.py): the old rows are taken to lie at distances in geometric progression, so that near
positions keep their spacing, and a bicubic spline through them is read at whole positions.
Reference of the spline: `scipy.interpolate.RectBivariateSpline` with s=0.
"""

import math

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.ops import window_geometry


def resize_rows(
    table: np.ndarray, old: tuple[int, ...], new: tuple[int, ...], method: str
) -> np.ndarray:
    """Resizes a map of two axes that is stored as rows.

    Args:
        table: (prod(old), C).
        old, new: (height, width) of the map; an axis that keeps its size keeps its numbers.
        method: 'bicubic' or 'geometric'.

    Returns:
        (prod(new), C) float32.

    Raises:
        UserError: A table of other rows than `old`;
            'geometric' for a map too small for a cubic spline.
    """
    if math.prod(old) != len(table):
        raise UserError(
            f"a position table of {len(table)} rows is not of {' x '.join(map(str, old))} positions"
        )
    matrices = [_matrix(before, after, method) for before, after in zip(old, new, strict=True)]
    box = table.astype(np.float64).reshape(*old, -1)
    resized = np.einsum("ai,bj,ijc->abc", *matrices, box, optimize=True)
    return resized.reshape(math.prod(new), -1).astype(np.float32)


def _matrix(old: int, new: int, method: str) -> np.ndarray:
    if old == new:
        return np.eye(old)
    if method == "bicubic":
        return window_geometry.bicubic_matrix(old, new)
    return geometric_matrix(old, new)


def geometric_matrix(old: int, new: int) -> np.ndarray:
    """SimMIM's interpolation along one axis of a bias table, as a matrix (new, old), float64.

    Args:
        old, new: 2 * window - 1 of the two windows.
    """
    if old < 5:
        raise UserError(
            f"resize='geometric' needs windows of 3 or more, not {(old + 1) // 2}; take 'bicubic'"
        )
    ratio = progression_ratio(old, new)
    side = np.cumsum(ratio ** np.arange(old // 2))
    positions = np.concatenate([-side[::-1], [0], side])
    return spline_matrix(positions, np.arange(-(new // 2), new // 2 + 1))


def progression_ratio(old: int, new: int) -> float:
    """The ratio q with 1 + q + ... + q^(old // 2 - 1) = new // 2,
    by the official bisection of [1.01, 1.5] to 1e-6.
    """
    left, right = 1.01, 1.5
    while right - left > 1e-6:
        ratio = (left + right) / 2
        reach = (1 - ratio ** (old // 2)) / (1 - ratio)
        left, right = (left, ratio) if reach > new // 2 else (ratio, right)
    return ratio


def spline_matrix(x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The interpolating cubic spline (not-a-knot) as a matrix: values at `x` -> values at `at`.

    Args:
        x: (n,) ascending, n >= 4.
        at: (m,); positions outside of `x` take the value at its end, as in FITPACK.

    Returns:
        (m, n) float64.
    """
    knots = np.concatenate([x[:1].repeat(4), x[2:-2], x[-1:].repeat(4)]).astype(np.float64)
    return _b_splines(np.clip(at, x[0], x[-1]), knots) @ np.linalg.inv(_b_splines(x, knots))


def _b_splines(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Cubic B-splines at x by Cox and de Boor's recursion: (len(x), len(knots) - 4)."""
    inside = np.clip(np.searchsorted(knots, x, side="right") - 1, 3, len(knots) - 5)
    basis = (inside[:, None] == np.arange(len(knots) - 1)).astype(np.float64)
    x = np.asarray(x, np.float64)[:, None]
    for degree in range(1, 4):
        width = knots[degree:] - knots[:-degree]
        rise = (x - knots[:-degree]) / np.where(width, width, 1) * (width > 0)
        basis = rise[:, :-1] * basis[:, :-1] + (width[1:] > 0) * (1 - rise[:, 1:]) * basis[:, 1:]
    return basis
