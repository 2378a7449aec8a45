"""Random masks for masked image modeling, drawn by the image transform.

SimMIM (arXiv 2111.09886); the reference is `MaskGenerator` in `data/data_simmim_pt.py`
of microsoft/Swin-Transformer. Masks have one value per cell; the task repeats
them for tokens and pixels.
"""

import functools
import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import Fraction, Seed, checked
from swin_jax.core.sizes import Size, cells, per_axis, simplest


def random_mask(grid: tuple[int, ...], count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws a mask with exactly `count` ones at uniformly random places: uint8 of shape `grid`."""
    mask = np.zeros(math.prod(grid), np.uint8)
    mask[rng.permutation(mask.size)[:count]] = 1
    return mask.reshape(grid)


def masked_cells(size: Size, cell: Size, patch: Size, ratio: float) -> tuple[Size, int]:
    """(cells along each axis, or an int for a square, and the number of masked cells) of an image.

    Args:
        size: (H, W) of the image in pixels, or one int for both; likewise `cell` and `patch`.
        cell: Sides of a cell in pixels, multiples of those of `patch`.
        patch: Sides of the model's patch in pixels.
        ratio: Share of masked cells; their number is rounded up, as in the official code.

    Raises:
        UserError: The cell does not divide the image, the patch does not divide the cell, or
            the ratio masks none or all of the cells.
    """
    try:
        grid = cells(size, cell)
    except UserError:
        raise UserError(
            f"a mask cell of {cell} pixels does not divide an image of {size} pixels"
        ) from None
    try:
        cells(cell, patch)
    except UserError:
        raise UserError(
            f"the model's patch of {patch} pixels does not divide a mask cell of {cell} pixels"
        ) from None
    total = math.prod(grid)
    count = math.ceil(total * ratio) if math.isfinite(ratio) else 0
    if not 0 < count < total:
        raise UserError(
            f"a mask ratio of {ratio} masks {count} of {total} cells of {cell} pixels in an image "
            f"of {size} pixels; some must be masked, not all"
        )
    return simplest(grid), count


@checked
def mask_train_transform(
    transform: Callable, size: Size, cell: Size = 32, patch: Size = 4, ratio: Fraction = 0.6
) -> Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]:
    """Adds a random mask, new at every visit, to the result of another transform.

    Args:
        transform: (example, rng) -> example with `image`.
        size, cell, patch, ratio: The same as in `masked_cells`.

    Returns:
        transform(example, rng): `image` and `mask` uint8 (H / cell, W / cell), 1 where the image is
        masked; without the label. Raises the same errors as `masked_cells`.
    """
    grid, count = masked_cells(size, cell, patch, ratio)
    return functools.partial(_train, transform=transform, grid=grid, count=count)


@checked
def mask_eval_transform(
    transform: Callable,
    size: Size,
    cell: Size = 32,
    patch: Size = 4,
    ratio: Fraction = 0.6,
    seed: Seed = 0,
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Adds a mask that depends only on `seed` and the pixels to the result of another transform.

    The mask is therefore the same in every evaluation and batch.

    Args:
        transform: (example) -> example with `image`.
        size, cell, patch, ratio: The same as in `masked_cells`.
        seed: Seed of the masks.

    Returns:
        transform(example), with the same result as for `mask_train_transform`.
    """
    grid, count = masked_cells(size, cell, patch, ratio)
    return functools.partial(_eval, transform=transform, grid=grid, count=count, seed=seed)


def _train(example, rng, *, transform, grid, count):
    image = transform(example, rng)["image"]
    return {"image": image, "mask": random_mask(per_axis(grid, 2), count, rng)}


def _eval(example, *, transform, grid, count, seed):
    image = transform(example)["image"]
    rng = np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(image).tobytes())])
    return {"image": image, "mask": random_mask(per_axis(grid, 2), count, rng)}
