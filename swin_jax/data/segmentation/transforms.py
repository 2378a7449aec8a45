"""Transforms of images with a label for each pixel; normalization happens on the device.

Reference: the pipelines of Swin-Transformer-Semantic-Segmentation (mmsegmentation 0.11). They pad
after they normalize, so a padded pixel is 0 there, the mean color, and no byte stands for it
exactly: `size` tells the device where the image ends.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from swin_jax.core.constants import IGNORED
from swin_jax.core.ranges import Fraction, PositiveInt, PositiveInterval, checked
from swin_jax.core.sizes import Size, per_axis
from swin_jax.data.image.transforms import to_rgb
from swin_jax.data.segmentation import photometric
from swin_jax.data.segmentation.label_files import check_size
from swin_jax.data.segmentation.resizing import Box, fitted_size, resize_image, resize_labels

_TRIES = 10  # further crops where the first has too much of one class

Example = dict[str, Any]
Scale = tuple[PositiveInt, PositiveInt]


@checked
def train_transform(
    size: Size,
    scale: Scale | None = (2048, 512),
    ratio: PositiveInterval = (0.5, 2.0),
    most_of_one_class: Fraction = 0.75,
    hflip: Fraction = 0.5,
    distort: bool = True,
) -> Callable[[Example, np.random.Generator], Example]:
    """Random resize and crop, horizontal flip, photometric distortion; what is smaller is padded.

    Args:
        size: (H, W) of the result in pixels, or one int for both.
        scale: The most pixels of the two sides, in any order, into which an image is resized at
            the ratio 1, keeping its aspect; None does not resize.
        ratio: Range of the random factor on `scale`.
        most_of_one_class: Share of the labeled pixels that one class may take before another crop
            is tried, at most 10 times; 1 takes the first crop.
        hflip: Probability of a flip.
        distort: True for the photometric distortion.

    Returns:
        transform(example, rng): replaces `image` (PIL, or uint8 (h, w, 3)) by uint8 (H, W, 3) and
        `label` (uint8 (h, w)) by uint8 (H, W), which is 255 in the padding, and adds `size` int32
        (2,), the rows and columns of the image, which lies at the top left. Raises UnfitError for a
        label of another size than its image.
    """
    return functools.partial(
        _train,
        size=per_axis(size, 2),
        scale=scale and tuple(scale),
        ratio=tuple(ratio),
        most_of_one_class=most_of_one_class,
        hflip=hflip,
        distort=distort,
    )


@checked
def eval_transform(scale: Scale | None = (2048, 512)) -> Callable[[Example], Example]:
    """Resize that keeps the aspect; labels stay as they are, since they are what results are
    compared with at the size of the file.

    Args:
        scale: The most pixels of the two sides, in any order; None does not resize.

    Returns:
        transform(example): replaces `image` (PIL, or uint8 (h, w, 3)) by uint8 (H, W, 3).
    """
    return functools.partial(_eval, scale=scale and tuple(scale))


def random_scale(
    scale: tuple[int, int], ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int]:
    """Draws the two sides into which an image is resized, in whole pixels."""
    factor = rng.uniform(*ratio)
    return max(int(scale[0] * factor), 1), max(int(scale[1] * factor), 1)


def random_crop(
    label: np.ndarray,
    resized: tuple[int, int],
    size: tuple[int, int],
    most_of_one_class: float,
    rng: np.random.Generator,
) -> Box:
    """Draws a crop of a resized image in which no class takes too much.

    Args:
        label: uint8 (h, w), not resized yet.
        resized: (H, W) of the resized image.
        size: (H, W) of the crop; a smaller image is taken whole.
        most_of_one_class: The same as in `train_transform`.
        rng: Generator of the draws.

    Returns:
        (top, left, bottom, right) in the resized image.
    """
    margin = [max(whole - part, 0) for whole, part in zip(resized, size)]
    for tried in range(1 + _TRIES):
        top, left = (int(rng.integers(0, free + 1)) for free in margin)
        box = top, left, min(top + size[0], resized[0]), min(left + size[1], resized[1])
        if tried == _TRIES or most_of_one_class == 1:
            return box
        if is_mixed(resize_labels(label, resized, box), most_of_one_class):
            return box


def is_mixed(label: np.ndarray, most_of_one_class: float) -> bool:
    """True if a label has several classes and none takes the share `most_of_one_class` of the
    pixels that have one.
    """
    counts = np.bincount(label.ravel(), minlength=IGNORED + 1)[:IGNORED]
    return (counts > 0).sum() > 1 and bool(counts.max() / counts.sum() < most_of_one_class)


def flip(example: Example) -> Example:
    """The mirror image of an example."""
    image, label = example["image"][:, ::-1], example["label"][:, ::-1]
    return {**example, "image": image, "label": label}


def pad(example: Example, size: tuple[int, int]) -> Example:
    """Pads an example at the bottom and on the right, the image with 0 and its label with 255.

    Args:
        example: `image` uint8 (h, w, 3) and `label` uint8 (h, w), both at most of `size`.
        size: (H, W) of the result.

    Returns:
        The example with `image` (H, W, 3), `label` (H, W) and `size` int32 (2,), which is (h, w).
    """
    height, width = example["label"].shape
    image = np.zeros((*size, 3), np.uint8)
    image[:height, :width] = example["image"]
    label = np.full(size, IGNORED, np.uint8)
    label[:height, :width] = example["label"]
    return {**example, "image": image, "label": label, "size": np.array([height, width], np.int32)}


def _train(example, rng, *, size, scale, ratio, most_of_one_class, hflip, distort):
    image, label = _pixels(example["image"]), example["label"]
    check_size(label, image.shape[:2])
    resized = label.shape
    if scale is not None:
        resized = fitted_size(label.shape, random_scale(scale, ratio, rng))
    box = random_crop(label, resized, size, most_of_one_class, rng)
    image, label = resize_image(image, resized, box), resize_labels(label, resized, box)
    example = {**example, "image": image, "label": label}
    if rng.random() < hflip:
        example = flip(example)
    if distort:
        example["image"] = photometric.distort(example["image"], photometric.draw(rng))
    return pad(example, size)


def _eval(example, *, scale):
    image = _pixels(example["image"])
    if scale is not None:
        image = resize_image(image, fitted_size(image.shape[:2], scale))
    return {**example, "image": image}


def _pixels(image: Image.Image | np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3)."""
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[-1] == 3:
        return image
    return np.asarray(to_rgb(image))
