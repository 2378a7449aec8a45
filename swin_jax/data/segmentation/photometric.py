"""The photometric distortion of the published segmentation recipe, with OpenCV's arithmetic for
hue and saturation.

Reference: `PhotoMetricDistortion` of mmsegmentation 0.11, on images in BGR; ours are RGB.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

_SHIFT = 12  # bits behind the point of OpenCV's divisions
_HUES = 180  # hues of a byte in OpenCV: steps of two degrees
_ONE = 1 << _SHIFT
_BYTES = np.arange(256)
_PER_VALUE = np.rint((255 << _SHIFT) / np.maximum(_BYTES, 1)).astype(np.int32)
_PER_CHROMA = np.rint((_HUES << _SHIFT) / (6.0 * np.maximum(_BYTES, 1))).astype(np.int32)
_PER_VALUE[0] = _PER_CHROMA[0] = 0
# OpenCV cuts the fractions off where it computes so many pixels of a line at a time (AVX2), and
# rounds those that are left at the end of the line.
_LANES = 32
# What red, green and blue are in each sixth of the hues: the largest, the smallest, or between.
_PLACES = np.array([[0, 2, 1], [2, 0, 1], [1, 0, 2], [1, 2, 0], [2, 1, 0], [0, 1, 2]])


@dataclasses.dataclass(frozen=True)
class Photometric:
    """The random choices of one distortion; None leaves a step out.

    Attributes:
        brightness: Gray levels that are added.
        contrast: Factor on all channels.
        saturation: Factor on the saturation.
        hue: Steps of two degrees by which the hue is turned.
        contrast_first: True if contrast comes before saturation and hue, not after them.
    """

    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: int | None = None
    contrast_first: bool = True


def draw(rng: np.random.Generator) -> Photometric:
    """The choices of the published recipe: each step with probability 1/2."""
    brightness, contrast_first, contrast, saturation, hue = rng.random(5) < 0.5
    return Photometric(
        brightness=rng.uniform(-32, 32) if brightness else None,
        contrast=rng.uniform(0.5, 1.5) if contrast else None,
        saturation=rng.uniform(0.5, 1.5) if saturation else None,
        hue=int(rng.integers(-18, 18)) if hue else None,
        contrast_first=bool(contrast_first),
    )


def distort(image: np.ndarray, choices: Photometric) -> np.ndarray:
    """Brightness, contrast, saturation and hue; each step ends in whole gray levels.

    Args:
        image: uint8 (H, W, 3) RGB.
        choices: The choices.

    Returns:
        uint8 (H, W, 3).
    """
    before, after = [], []
    if choices.brightness is not None:
        before.append(_linear(1, choices.brightness))
    if choices.contrast is not None:
        (before if choices.contrast_first else after).append(_linear(choices.contrast))
    image = _look_up(before, image)
    if choices.saturation is not None:
        hue, saturation, value = to_hsv(image)
        image = to_rgb(hue, np.take(_linear(choices.saturation), saturation), value)
    if choices.hue is not None:
        hue, saturation, value = to_hsv(image)
        turned = np.roll(np.arange(_HUES), -choices.hue)
        image = to_rgb(np.take(turned, hue), saturation, value)
    return _look_up(after, image)


def _look_up(tables: Sequence[np.ndarray], image: np.ndarray) -> np.ndarray:
    """The bytes that tables (256,) make of those of an image, one after the other."""
    if not tables:
        return image
    return np.take(functools.reduce(lambda one, other: other[one], tables), image)


def to_hsv(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """OpenCV's hue (0 to 179), saturation and value of bytes.

    Args:
        image: uint8 (..., 3) RGB.

    Returns:
        Three int32 arrays (...).
    """
    red, green, blue = np.moveaxis(image.astype(np.int32), -1, 0)
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    saturation = (chroma * np.take(_PER_VALUE, value) + _ONE // 2) >> _SHIFT
    # Products with True and False take a quarter of the time of np.where.
    is_red = value == red
    is_green = (value == green) & ~is_red
    sixths = is_red * (green - blue) + is_green * (blue - red + 2 * chroma)
    sixths += ~(is_red | is_green) * (red - green + 4 * chroma)
    hue = (sixths * np.take(_PER_CHROMA, chroma) + _ONE // 2) >> _SHIFT
    return hue + (hue < 0) * np.int32(_HUES), saturation, value


def to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """OpenCV's inverse of `to_hsv`.

    Args:
        hue: Whole numbers (..., W), 0 to 179.
        saturation: Whole numbers (..., W), 0 to 255.
        value: Whole numbers (..., W), 0 to 255.

    Returns:
        uint8 (..., W, 3) RGB.
    """
    turn = hue.astype(np.float32) * np.float32(6 / _HUES)
    sector = turn.astype(np.int8)
    turn -= sector
    # On its way through a sixth of the hues, one channel rises or falls between the other two.
    rest = np.abs(np.float32(1) - (sector & 1) - turn)
    # OpenCV multiplies and subtracts in one rounding, as float64 does for these factors.
    saturation = (saturation.astype(np.float32) * np.float32(1 / 255)).astype(np.float64)
    value = value.astype(np.float32) * np.float32(1 / 255)
    levels = [_level(value)]
    for lost in (saturation, saturation * rest):
        levels.append(_level((1 - lost).astype(np.float32) * value))
    levels, pixels = np.stack(levels), np.arange(sector.size).reshape(sector.shape)
    channels = (np.take(places * sector.size, sector) + pixels for places in _PLACES.T)
    return np.stack([np.take(levels, places) for places in channels], axis=-1)


def _level(share: np.ndarray) -> np.ndarray:
    """The byte that stands for shares of 1, (..., W)."""
    levels = share * np.float32(255)
    whole = levels.shape[-1] // _LANES * _LANES
    levels[..., whole:] = np.rint(levels[..., whole:])
    return levels.astype(np.uint8)


def _linear(factor: float, offset: float = 0.0) -> np.ndarray:
    """The byte that each byte becomes, uint8 (256,)."""
    levels = np.float32(_BYTES) * np.float32(factor) + np.float32(offset)
    return np.clip(levels, 0, 255).astype(np.uint8)
