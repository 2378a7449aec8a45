"""Augmentation of small drawings that changes their style, not their content: place, colors,
outlines.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from swin_jax.core.ranges import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInterval,
    PositiveInterval,
    checked,
)
from swin_jax.core.sizes import Size, per_axis
from swin_jax.data.image.color import recolor


@checked
def style_train_transform(
    size: Size,
    rotation: NonNegativeFloat = 15.0,
    zoom: PositiveInterval = (0.75, 1.15),
    shift: NonNegativeFloat = 0.08,
    outline: Fraction = 0.2,
    gray: Fraction = 0.2,
    hue: NonNegativeFloat = 0.35,
    saturation: NonNegativeInterval = (0.4, 1.6),
    gamma: NonNegativeFloat = 0.25,
) -> Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]:
    """Makes the transform that rotates, zooms, stretches and shifts a drawing over white, then
    draws outlines, then changes colors, all at random.

    Args:
        size: (H, W) of the result in pixels, or one int for both.
        rotation: Largest rotation in degrees.
        zoom: Range of the scale; at 1 the image fills the result.
        shift: Largest shift, as a share of the image.
        outline: Probability that edges become dark lines, over the image or over white.
        gray: Probability of a gray image; others get another hue and
            saturation with probability 0.8.
        hue: Standard deviation of the rotation of colors about the gray axis, in radians.
        saturation: Range of the factor on the distance from gray.
        gamma: Standard deviation of the logarithm of the brightness exponent.

    Returns:
        transform(example, rng): replaces `image` (PIL, or uint8 (H, W, 3)) by uint8 (H, W, 3).
    """
    place = functools.partial(
        _place, size=per_axis(size, 2), rotation=rotation, zoom=zoom, shift=shift
    )
    change = functools.partial(recolor, gray=gray, hue=hue, saturation=saturation, gamma=gamma)
    return functools.partial(_transform, place=place, change=change, outline=outline)


def _transform(example, rng, *, place, change, outline):
    pixels = place(example["image"], rng)
    if rng.random() < outline:
        pixels = _outline(pixels, rng)
    pixels = change(pixels, rng)
    return {**example, "image": np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)}


def _place(image, rng, *, size, rotation, zoom, shift) -> np.ndarray:
    """Maps the image by a random affine map, with bilinear sampling: float32 (H, W, 3) in 0..1."""
    from PIL import Image

    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image = image.convert("RGB")
    # Maps pixels of the result to the image: a rotation, zoom and stretch about the centers.
    extent, result = np.float64(image.size), np.float64(size[::-1])
    angle, factor, stretch = (
        math.radians(rng.uniform(-rotation, rotation)),
        rng.uniform(*zoom),
        rng.uniform(0.9, 1.1),
    )
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    matrix = np.array([[cos * stretch, sin], [-sin, cos / stretch]]) * (extent[:, None] / result)
    offset = extent / 2 + rng.uniform(-shift, shift, 2) * extent - matrix @ (result / 2)
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    moved = image.transform(
        size[::-1],
        Image.Transform.AFFINE,
        coefficients,
        Image.Resampling.BILINEAR,
        fillcolor=(255, 255, 255),
    )
    return np.asarray(moved, np.float32) / 255


def _outline(pixels: np.ndarray, rng) -> np.ndarray:
    """Draws dark lines where neighboring pixels differ, over the picture or over white."""
    edges = np.zeros(pixels.shape[:2], np.float32)
    down = np.abs(np.diff(pixels, axis=0)).max(-1)
    right = np.abs(np.diff(pixels, axis=1)).max(-1)
    edges[1:] = down
    edges[:-1] = np.maximum(edges[:-1], down)
    edges[:, 1:] = np.maximum(edges[:, 1:], right)
    edges[:, :-1] = np.maximum(edges[:, :-1], right)
    lines = np.clip(edges * rng.uniform(2, 8), 0, 1)[..., None]
    base = pixels if rng.random() < 0.6 else np.ones_like(pixels)
    return base * (1 - lines)
