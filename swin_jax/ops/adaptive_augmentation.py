"""Differentiable augmentation of images with a probability that may change: the pipe 'bgc' of ADA.

Karras et al., arXiv 2006.06676, appendix B; the reference is training/augment.py of
NVlabs/stylegan2-ada-pytorch. Its margin of reflected pixels is that of the batch at hand; here it
is always the largest, so that shapes do not depend on draws.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.ranges import PositiveFloat, checked
from swin_jax.ops.stylegan2 import upfirdn

# The low-pass filter of the wavelet sym6.
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
_PAD = len(SYM6) // 4  # pixels that the filter needs around the result
_UP_PADDING = ((len(SYM6) + 1) // 2, (len(SYM6) - 2) // 2)
_DOWN_PADDING = ((len(SYM6) - 1) // 2 - 2 * _PAD, (len(SYM6) - 2) // 2 - 2 * _PAD)
_LUMA = np.array([1, 1, 1, 0], np.float32) / np.float32(math.sqrt(3))


@checked
def bgc(margin: PositiveFloat = 1.0) -> Callable:
    """Pixel blitting, geometry and color.

    Args:
        margin: Reflected pixels around an image, as a share of its side, at most 1 as in the
            reference; black lies beyond. Memory grows with its square.

    Returns:
        (images (B, H, W, 3 or 1) float32 in -1..1, probability of each transform, key) -> images.
    """

    def augment(images: jax.Array, probability: jax.Array | float, key: jax.Array) -> jax.Array:
        geometry, color = jax.random.split(key)
        height, width = images.shape[1:3]
        matrix = geometric_matrix(images.shape[0], height, width, probability, geometry)
        images = warp(images, matrix, min(margin, 1.0))
        return recolor(images, color_matrix(images.shape[0], probability, color))

    return augment


@dataclasses.dataclass
class _Draws:
    """Random numbers for each image of a batch, in the order in which they are asked for."""

    batch: int
    key: jax.Array
    count: int = 0

    def _next(self) -> jax.Array:
        self.count += 1
        return jax.random.fold_in(self.key, self.count)

    def uniform(self, low: float, high: float) -> jax.Array:
        return jax.random.uniform(self._next(), (self.batch,), minval=low, maxval=high)

    def normal(self, deviation: float) -> jax.Array:
        return deviation * jax.random.normal(self._next(), (self.batch,))

    def happens(self, probability: jax.Array | float) -> jax.Array:
        """1 where a transform is applied, else 0."""
        return (self.uniform(0, 1) < probability).astype(jnp.float32)


def geometric_matrix(
    batch: int, height: int, width: int, probability: jax.Array | float, key: jax.Array
) -> jax.Array:
    """Random maps from pixels of the result to those of the image, both counted from
    the center: (B, 3, 3).
    """
    p, draws = probability, _Draws(batch, key)
    # Either of two rotations happens with the probability asked for.
    once = 1 - jnp.sqrt(jnp.clip(1 - jnp.asarray(p, jnp.float32), 0, 1))
    one = jnp.ones(batch)

    matrix = _scale(1 - 2 * jnp.floor(draws.uniform(0, 2)) * draws.happens(p), one)  # x-flip
    quarters = jnp.floor(draws.uniform(0, 4)) * draws.happens(p)
    matrix = matrix @ _rotate(math.pi / 2 * quarters)
    happens = draws.happens(p)
    x = jnp.round(draws.uniform(-0.125, 0.125) * happens * width)
    y = jnp.round(draws.uniform(-0.125, 0.125) * happens * height)
    matrix = matrix @ _translate(x, y)
    scale = jnp.exp2(draws.normal(0.2) * draws.happens(p))
    matrix = matrix @ _scale(scale, scale)
    matrix = matrix @ _rotate(draws.uniform(-math.pi, math.pi) * draws.happens(once))
    scale = jnp.exp2(draws.normal(0.2) * draws.happens(p))
    matrix = matrix @ _scale(scale, 1 / scale)
    matrix = matrix @ _rotate(draws.uniform(-math.pi, math.pi) * draws.happens(once))
    happens = draws.happens(p)
    x, y = draws.normal(0.125) * happens * width, draws.normal(0.125) * happens * height
    return matrix @ _translate(x, y)


def color_matrix(batch: int, probability: jax.Array | float, key: jax.Array) -> jax.Array:
    """Random affine maps of colors: (B, 4, 4)."""
    p, draws = probability, _Draws(batch, key)
    eye = jnp.eye(4)[None]
    axis = jnp.outer(_LUMA, _LUMA)[None]

    brightness = draws.normal(0.2) * draws.happens(p)
    matrix = (
        eye + brightness[:, None, None] * jnp.outer(jnp.array([1, 1, 1, 0]), jnp.eye(4)[3])[None]
    )
    contrast = jnp.exp2(draws.normal(0.5) * draws.happens(p))
    diagonal = jnp.stack([contrast, contrast, contrast, jnp.ones(batch)], axis=1)
    matrix = (eye * diagonal[:, None, :]) @ matrix
    flip = jnp.floor(draws.uniform(0, 2)) * draws.happens(p)
    matrix = (eye - 2 * axis * flip[:, None, None]) @ matrix
    hue = draws.uniform(-math.pi, math.pi) * draws.happens(p)
    matrix = _rotate_about_luma(hue) @ matrix
    saturation = jnp.exp2(draws.normal(1.0) * draws.happens(p))
    return (axis + (eye - axis) * saturation[:, None, None]) @ matrix


def warp(images: jax.Array, matrix: jax.Array, margin: float = 1.0) -> jax.Array:
    """Images (B, H, W, C), resampled at twice the resolution through the wavelet's filter.

    Args:
        images: float32.
        matrix: (B, 3, 3), from pixels (x, y, 1) of the result to those of the image,
            from the center.
        margin: The same as in `bgc`.

    Returns:
        (B, H, W, C); the identity where the matrix is.
    """
    _, height, width, _ = images.shape
    rows, columns = (min(math.ceil(margin * side) + _PAD, side - 1) for side in (height, width))
    padding = ((0, 0), (rows, rows), (columns, columns), (0, 0))
    fine = upfirdn(jnp.pad(images, padding, mode="reflect"), 2, 1, _UP_PADDING, SYM6)

    tall, wide = 2 * (height + 2 * _PAD), 2 * (width + 2 * _PAD)
    x = (jnp.arange(wide) - (wide - 1) / 2 + 0.5) / 2  # the filter shifts by half a fine pixel
    y = (jnp.arange(tall) - (tall - 1) / 2 + 0.5) / 2
    points = jnp.stack([*jnp.broadcast_arrays(x[None], y[:, None]), jnp.ones((tall, wide))])
    found = jnp.einsum("bij,jhw->bihw", matrix, points)
    x = 2 * found[:, 0] - 0.5 + (fine.shape[2] - 1) / 2
    y = 2 * found[:, 1] - 0.5 + (fine.shape[1] - 1) / 2
    sampled = jax.vmap(_sample)(fine, y, x)
    return upfirdn(sampled, 1, 2, _DOWN_PADDING, SYM6[::-1])


def _sample(image: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """Bilinear samples (h, w, C) of an image (H, W, C), black outside, at places (h,
    w) in pixels.
    """
    height, width, _ = image.shape
    top, left = jnp.floor(y), jnp.floor(x)
    total = 0.0
    for down in (0, 1):
        for right in (0, 1):
            row, column = top + down, left + right
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = (1 - jnp.abs(y - row)) * (1 - jnp.abs(x - column)) * inside
            rows = jnp.clip(row, 0, height - 1).astype(jnp.int32)
            columns = jnp.clip(column, 0, width - 1).astype(jnp.int32)
            total = total + image[rows, columns] * weight[..., None]
    return total


def recolor(images: jax.Array, matrix: jax.Array) -> jax.Array:
    """Colors (B, H, W, 3), or gray (B, H, W, 1), under affine maps (B, 4, 4).

    Gray stays gray: it gets the mean of the colors that it would become.
    """
    if images.shape[-1] == 1:
        gray = matrix[:, :3].mean(axis=1)
        return (
            images * gray[:, :3].sum(axis=1)[:, None, None, None] + gray[:, 3][:, None, None, None]
        )
    shifted = matrix[:, :3, 3][:, None, None]
    return jnp.einsum("bij,bhwj->bhwi", matrix[:, :3, :3], images) + shifted


def _matrix(rows) -> jax.Array:
    """(B, n, n) from nested lists of numbers and arrays (B,)."""
    size = next(len(x) for row in rows for x in row if hasattr(x, "shape"))
    return jnp.stack([jnp.stack([jnp.broadcast_to(x, (size,)) for x in row], 1) for row in rows], 1)


def _scale(x: jax.Array, y: jax.Array) -> jax.Array:
    """The inverse of a scaling by x and y."""
    return _matrix([[1 / x, 0.0, 0.0], [0.0, 1 / y, 0.0], [0.0, 0.0, 1.0]])


def _translate(x: jax.Array, y: jax.Array) -> jax.Array:
    """The inverse of a shift by x and y pixels."""
    return _matrix([[1.0, 0.0, -x], [0.0, 1.0, -y], [0.0, 0.0, 1.0]])


def _rotate(angle: jax.Array) -> jax.Array:
    """A rotation by an angle in radians."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _matrix([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _rotate_about_luma(angle: jax.Array) -> jax.Array:
    """(B, 4, 4): colors turned about the axis of gray, in radians (Rodrigues)."""
    v = float(_LUMA[0])
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    same, plus, minus = (
        v * v * (1 - cos) + cos,
        v * v * (1 - cos) + v * sin,
        v * v * (1 - cos) - v * sin,
    )
    return _matrix(
        [
            [same, minus, plus, 0.0],
            [plus, same, minus, 0.0],
            [minus, plus, same, 0.0],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
