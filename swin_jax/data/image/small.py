"""Transforms of small images (digits, Fashion-MNIST, CIFAR) in numpy, fast enough for one core."""

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from PIL import Image

from swin_jax.core.ranges import Fraction, NonNegativeFloat, NonNegativeInt, Range, Rate, checked
from swin_jax.core.sizes import Size, per_axis

Channels = Annotated[int, Range(low=1, high=1, also=(3,))]
_LUMA = np.float32((0.299, 0.587, 0.114))  # ITU-R 601, as PIL's convert("L")
_FAINTEST = 16  # smallest contrast, in levels, of a drawing; less is noise on an empty page


@checked
def small_train_transform(
    size: Size,
    padding: NonNegativeInt = 2,
    hflip: Fraction = 0.0,
    rotation: NonNegativeFloat = 0.0,
    zoom: Rate = 0.0,
    channels: Channels = 3,
) -> Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]:
    """Makes the training transform: resizes, then randomly rotates, zooms, shifts (as a random crop
    of a padded image does) and flips.

    Args:
        size: (H, W) of the result in pixels, or one int for both; other images are stretched to it.
        padding: Largest shift in pixels of the result.
        hflip: Probability of a horizontal flip.
        rotation: Largest rotation in degrees.
        zoom: Largest relative change of the scale, for example 0.1.
        channels: 3 copies gray to RGB; 1 keeps gray and turns colors to gray.

    Returns:
        transform(example, rng): replaces `image` (PIL, or uint8 (H, W) or (H, W, C)) by
        uint8 (H, W, channels).
    """
    return functools.partial(
        _train,
        size=per_axis(size, 2),
        padding=padding,
        hflip=hflip,
        rotation=rotation,
        zoom=zoom,
        channels=channels,
    )


@checked
def small_eval_transform(
    size: Size, channels: Channels = 3
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Makes the evaluation transform, which resizes by bilinear sampling without antialiasing.

    Args:
        size: (H, W) of the result in pixels, or one int for both.
        channels: 3 copies gray to RGB; 1 keeps gray and turns colors to gray.

    Returns:
        transform(example): replaces `image` (as for small_train_transform) by uint8 (H, W,
        channels).
    """
    return functools.partial(_eval, size=per_axis(size, 2), channels=channels)


@checked
def drawing_eval_transform(
    size: Size,
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Makes the transform that normalizes images of a single drawing, such as a digit, to a bright
    drawing that fills a black image.

    An image of `size` is only turned to gray. In any other, the drawing may be dark or bright, of
    any color, and anywhere on a background of about one color, which is taken from the edges of
    the image: the drawing is cut out and resized by averaging.

    Args:
        size: (H, W) of the result in pixels, or one int for both.

    Returns:
        transform(example): Replaces `image` (as for small_train_transform) by uint8 (H, W, 1).
    """
    return functools.partial(_draw, size=per_axis(size, 2))


def _train(example, rng, *, size, padding, hflip, rotation, zoom, channels):
    image = _resize(_to_array(example["image"]), size)
    if rotation or zoom:
        image = _turn(
            image, math.radians(rng.uniform(-rotation, rotation)), 1.0 + rng.uniform(-zoom, zoom)
        )
    image = _shift(image, rng.integers(-padding, padding + 1, 2))
    if rng.random() < hflip:
        image = image[:, ::-1]
    return {**example, "image": _with_channels(image, channels)}


def _eval(example, *, size, channels):
    return {
        **example,
        "image": _with_channels(_resize(_to_array(example["image"]), size), channels),
    }


def _draw(example, *, size):
    gray = _with_channels(_to_array(example["image"]), 1)[..., 0]
    if gray.shape != size:
        edges = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
        gray = _cut_out(np.abs(gray - np.median(edges).astype(np.float32)), size)
    return {**example, "image": gray[..., None]}


def _cut_out(ink: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cuts the drawing out of float32 (H, W) with background 0 and centers it in uint8 `size`."""
    result = np.zeros(size, np.uint8)
    if ink.max() < _FAINTEST:
        return result
    marked = ink > 0.35 * ink.max()
    rows, columns = np.flatnonzero(marked.any(1)), np.flatnonzero(marked.any(0))
    part = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = min(size[0] / part.shape[0], size[1] / part.shape[1])
    height, width = (max(round(length * scale), 1) for length in part.shape)
    small = Image.fromarray(part).resize((width, height), Image.Resampling.BOX)
    small = np.asarray(small) * (255 / np.max(small))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    result[top : top + height, left : left + width] = np.round(small)
    return result


def _to_array(image) -> np.ndarray:
    image = np.asarray(image)
    return image[..., None] if image.ndim == 2 else image


def _with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    if image.shape[-1] == channels:
        return np.ascontiguousarray(image)
    if image.shape[-1] == 1:
        return np.repeat(image, channels, axis=-1)
    if (image.shape[-1], channels) == (3, 1):
        return np.round(image @ _LUMA).astype(np.uint8)[..., None]
    raise ValueError(f"cannot make {channels} channels of an image of shape {image.shape}")


def _shift(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Moves the image down and right by `shift` pixels over black."""
    down, right = int(shift[0]), int(shift[1])
    height, width = image.shape[:2]
    moved = np.zeros_like(image)
    rows, columns = (
        slice(max(down, 0), height + min(down, 0)),
        slice(max(right, 0), width + min(right, 0)),
    )
    source_rows, source_columns = (
        slice(max(-down, 0), height - max(down, 0)),
        slice(max(-right, 0), width - max(right, 0)),
    )
    moved[rows, columns] = image[source_rows, source_columns]
    return moved


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear resize with half-pixel centers and repeated edges to (*size, C)."""
    if image.shape[:2] == size:
        return image
    rows, columns = (_weights(old, new) for old, new in zip(image.shape, size))
    resized = np.tensordot(rows, image.astype(np.float32), 1)  # (height, W, C)
    resized = np.einsum("xw,ywc->yxc", columns, resized)  # (*size, C)
    return np.round(resized).astype(np.uint8)


@functools.lru_cache(maxsize=64)  # bounded, as photos have many different sizes
def _weights(length: int, size: int) -> np.ndarray:
    """The bilinear matrix (size, length)."""
    position = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, length - 1)
    weights = np.zeros((size, length), np.float32)
    np.add.at(weights, (np.arange(size), low), 1 - (position - low))
    np.add.at(weights, (np.arange(size), high), position - low)
    return weights


def _turn(image: np.ndarray, angle: float, factor: float) -> np.ndarray:
    """Rotates an image clockwise by `angle` (radians) and zooms it by `factor`, about
    its center, over black.
    """
    height, width, channels = image.shape
    middle, center = (height - 1) / 2, (width - 1) / 2
    y, x = np.ogrid[-middle : middle + 0.5, -center : center + 0.5]
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    # Where each pixel of the result comes from, in an image with a black border of one pixel.
    row = np.clip(cos * y - sin * x + middle + 1, 0, height + 1)
    column = np.clip(sin * y + cos * x + center + 1, 0, width + 1)
    top, left = np.minimum(row.astype(int), height), np.minimum(column.astype(int), width)
    down, right = (row - top)[..., None], (column - left)[..., None]
    pixels = np.pad(image, ((1, 1), (1, 1), (0, 0))).reshape(-1, channels)
    corner = top * (width + 2) + left  # (height, width)
    upper = pixels[corner] * (1 - right) + pixels[corner + 1] * right
    lower = pixels[corner + width + 2] * (1 - right) + pixels[corner + width + 3] * right
    return np.round(upper * (1 - down) + lower * down).astype(np.uint8)
