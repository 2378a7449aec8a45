"""Random masks for masked image modeling, made where the image is transformed.

SimMIM (arXiv 2111.09886); the reference is `MaskGenerator` of `data/data_simmim_pt.py`
of microsoft/Swin-Transformer. Masks stay on the grid of cells; the task repeats
them to tokens and pixels.
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
    """A mask of exactly `count` ones at uniformly random places: uint8 of shape `grid`."""
    mask = np.zeros(math.prod(grid), np.uint8)
    mask[rng.permutation(mask.size)[:count]] = 1
    return mask.reshape(grid)


def masked_cells(size: Size, cell: Size, patch: Size, ratio: float) -> tuple[Size, int]:
    """(cells along each axis, an int for a square, number of masked cells) of an image.

    Args:
        size: (H, W) of the image in pixels, or one int for both, as are the other two.
        cell: Side of a cell in pixels, a multiple of `patch`.
        patch: Side of the model's patch in pixels.
        ratio: Share of masked cells; their number is rounded up, as in the official code.

    Raises:
        UserError: A cell that does not divide the image, a patch that does not divide the cell, or
            a ratio that masks none or all of the cells.
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
    """Adds a random mask, new at every visit, to what another transform returns.

    Args:
        transform: (example, rng) -> example with `image`.
        size, cell, patch, ratio: The same as in `masked_cells`.

    Returns:
        transform(example, rng): `image` and `mask` uint8 (H / cell, W / cell), 1 where the image is
        masked; without the label. Raises UserError as `masked_cells`.
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
    """Adds a fixed mask to what another transform returns: a function of `seed` and the pixels.

    The mask so is the same at every evaluation and in any batch.

    Args:
        transform: (example) -> example with `image`.
        size, cell, patch, ratio: The same as in `masked_cells`.
        seed: Seed of the masks.

    Returns:
        transform(example): as for `mask_train_transform`.
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
