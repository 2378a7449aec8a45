"""The parts of masked image modeling: masks on finer grids,
the L1 of masked pixels, the locally normalized target.

SimMIM (arXiv 2111.09886); the reference is `models/simmim.py` of microsoft/Swin-Transformer.
The normalized target is that of its `NORM_TARGET` (On Data Scaling in Masked Image
Modeling, arXiv 2206.04664).
"""

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.errors import UserError

NORM_EPSILON = 1e-6  # added to the variance
_SUM_EPSILON = 1e-5  # added to the number of masked pixels


def upsample(mask: jax.Array, grid: tuple[int, ...]) -> jax.Array:
    """Repeats each entry of a mask, so that it lies on a finer grid.

    Args:
        mask: (B, *coarse).
        grid: A multiple of `coarse` in every axis.

    Returns:
        (B, *grid), of the same dtype.

    Raises:
        UserError: The grid is not a multiple of the mask's.
    """
    for axis, size in enumerate(grid, start=1):
        times, rest = divmod(size, mask.shape[axis])
        if rest or not times:
            raise UserError(
                f"a mask of {mask.shape[1:]} cells does not divide a grid of {tuple(grid)}"
            )
        mask = jnp.repeat(mask, times, axis=axis)
    return mask


def masked_error(
    prediction: jax.Array, target: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sums of absolute differences over the masked pixels of each image.

    Args:
        prediction, target: (B, *size, C).
        mask: (B, *size), 1 where a pixel is masked.

    Returns:
        (error, count), each (B,) float32: the sum over masked pixels of the mean absolute
        difference of their channels, and the number of masked pixels.
    """
    # (B, *size)
    difference = jnp.abs(prediction.astype(jnp.float32) - target.astype(jnp.float32)).mean(axis=-1)
    mask = mask.astype(jnp.float32)
    axes = tuple(range(1, mask.ndim))
    return (difference * mask).sum(axes), mask.sum(axes)


def masked_mean(error: jax.Array, count: jax.Array) -> jax.Array:
    """The mean absolute difference over all masked pixels of a batch, from
    `masked_error`: a scalar.
    """
    return error.sum() / (count.sum() + _SUM_EPSILON)


def local_statistics(image: jax.Array, window: int) -> tuple[jax.Array, jax.Array]:
    """Mean and unbiased variance of each channel in the window around each pixel,
    over the pixels inside the image.

    Args:
        image: (B, *size, C).
        window: Side in pixels, odd.

    Returns:
        (mean, variance), each (B, *size, C) float32; the variance is not negative.

    Raises:
        UserError: An even window, or one of a single pixel.
    """
    if window % 2 == 0 or window < 3:
        raise UserError(
            f"the window of the normalized target must be odd and at least 3, not {window}"
        )
    image = image.astype(jnp.float32)
    count = _valid_pixels(image.shape[1:-1], window)
    mean = _window_sum(image, window) / count
    square = _window_sum(image**2, window) / count
    return mean, jnp.maximum((square - mean**2) * count / (count - 1), 0.0)


def normalize_locally(image: jax.Array, window: int) -> jax.Array:
    """Subtracts the mean and divides by the standard deviation of the window around each pixel,
    channel by channel.
    """
    mean, variance = local_statistics(image, window)
    return (image - mean) / jnp.sqrt(variance + NORM_EPSILON)


def _valid_pixels(size: tuple[int, ...], window: int) -> np.ndarray:
    """The number of pixels of each pixel's window inside the image: float32 (1, *size, 1)."""
    count = np.ones((1, *size, 1), np.float32)
    for axis, length in enumerate(size, start=1):
        ends = np.clip(np.arange(length)[:, None] + (-(window // 2), window // 2 + 1), 0, length)
        count = count * np.diff(ends).reshape(
            [length if a == axis else 1 for a in range(count.ndim)]
        )
    return count.astype(np.float32)


def _window_sum(x: jax.Array, window: int) -> jax.Array:
    """Sums over windows with stride 1; what lies outside counts 0. One axis at a time,
    which costs less.
    """
    for axis in range(1, x.ndim - 1):
        size = [1] * x.ndim
        size[axis] = window
        x = jax.lax.reduce_window(x, 0.0, jax.lax.add, size, [1] * x.ndim, "SAME")
    return x
