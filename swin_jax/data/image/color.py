"""Color augmentation by random changes of hue, saturation and brightness."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from swin_jax.core.ranges import Fraction, NonNegativeFloat, NonNegativeInterval, checked

_LUMA = np.float32((0.299, 0.587, 0.114))  # ITU-R 601
_GRAY_AXIS = np.float32((1, 1, 1)) / math.sqrt(3)


@checked
def color_train_transform(
    transform: Callable[[dict[str, Any], np.random.Generator], dict[str, Any]],
    gray: Fraction = 0.2,
    hue: NonNegativeFloat = 0.35,
    saturation: NonNegativeInterval = (0.4, 1.6),
    gamma: NonNegativeFloat = 0.25,
) -> Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]:
    """Adds random color changes to a training transform.

    Args:
        transform: A training transform whose `image` is uint8 (H, W, 3).
        gray, hue, saturation, gamma: The same as in `recolor`.

    Returns:
        transform(example, rng): Replaces `image` by uint8 (H, W, 3).
    """
    change = functools.partial(recolor, gray=gray, hue=hue, saturation=saturation, gamma=gamma)
    return functools.partial(_transform, transform=transform, change=change)


def _transform(example, rng, *, transform, change):
    example = transform(example, rng)
    pixels = change(example["image"].astype(np.float32) / 255, rng)
    return {**example, "image": np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)}


def recolor(
    pixels: np.ndarray,
    rng: np.random.Generator,
    *,
    gray: float,
    hue: float,
    saturation: tuple[float, float],
    gamma: float,
) -> np.ndarray:
    """Makes an image gray or changes its hue and saturation, then changes its brightness.

    Args:
        pixels: float32 (H, W, 3) in 0..1.
        rng: Generator of the random changes.
        gray: Probability of a gray image. Others get another hue and saturation with
            probability 0.8.
        hue: Standard deviation of the rotation of colors about the gray axis, in radians.
        saturation: Range of the factor on the distance from gray.
        gamma: Standard deviation of the logarithm of the brightness exponent.

    Returns:
        float32 (H, W, 3) in 0..1.
    """
    luma = (pixels @ _LUMA)[..., None]
    if rng.random() < gray:
        pixels = np.repeat(luma, 3, axis=-1)
    elif rng.random() < 0.8:
        factor, turn = rng.uniform(*saturation), _turn_of_hue(rng.normal(0, hue))
        pixels = luma + factor * ((pixels - luma) @ turn.T)
    return np.clip(pixels, 0, 1) ** np.float32(math.exp(rng.normal(0, gamma)))


def _turn_of_hue(angle: float) -> np.ndarray:
    """The rotation of RGB about the gray axis, (3, 3) float32."""
    x, y, z = _GRAY_AXIS
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = math.cos(angle) * np.eye(3) + math.sin(angle) * cross
    return (turn + (1 - math.cos(angle)) * np.outer(_GRAY_AXIS, _GRAY_AXIS)).astype(np.float32)
