"""Image transforms of the ImageNet recipes: PIL inside, uint8 arrays out;
normalization happens on the device.

References: timm 0.4.12 `create_transform` (training) and torchvision's Resize, CenterCrop and
RandomResizedCrop. The transforms are plain functions of (example, random generator), so they pickle
to loader workers. `picture` decides how files become pixels. A picture so narrow that it would be
resized to more than `picture.MAX_RESIZED_PIXELS` is unreadable (UnreadableError).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from swin_jax.core.constants import CLIP_MEAN, CLIP_STD
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import (
    Byte,
    FiniteFloat,
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInterval,
    PositiveInts,
    Shares,
    check_scale,
    checked,
)
from swin_jax.core.sizes import Size, per_axis
from swin_jax.data.image import picture, randaugment, resizing

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_CROP_TRIES = 10
RESIZE_MODES = ("shortest", "longest", "squash")


@checked
def train_transform(
    size: Size,
    scale: Shares = (0.08, 1.0),
    ratio: PositiveInterval = (3 / 4, 4 / 3),
    interpolation: str = "bicubic",
    hflip: Fraction = 0.5,
    auto_augment: str = "rand-m9-mstd0.5-inc1",
    fast: bool = False,
) -> Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]:
    """Random resized crop, horizontal flip, RandAugment.

    Args:
        size: (H, W) of the result in pixels, or one int for both.
        scale: Range of the crop's share of the image's area.
        ratio: Range of the crop's width / height, drawn log-uniformly.
        interpolation: 'nearest', 'bilinear' or 'bicubic',
            of the resize and of RandAugment's geometry.
        hflip: Probability of a flip.
        auto_augment: RandAugment in timm's notation; '' for none.
        fast: True for faster filters and decoding, which change pixels: photographs are decoded as
            small as the result allows and by approximation, and filters are bilinear.

    Returns:
        transform(example, rng): replaces `image` (PIL, or uint8 (H, W), (H, W, 1) or (H, W, 3)) by
        uint8 (H, W, 3). Raises UserError for an unknown interpolation or auto_augment.
    """
    resample = _filter(interpolation, fast)
    augment = randaugment.parse(auto_augment, resample, fast) if auto_augment else None
    return functools.partial(
        _train,
        size=per_axis(size, 2),
        scale=tuple(scale),
        ratio=tuple(ratio),
        resample=resample,
        hflip=hflip,
        augment=augment,
        fast=fast,
    )


@checked
def eval_transform(
    size: Size, crop: bool = True, interpolation: str = "bicubic", fast: bool = False
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Resize and center crop, or direct resize.

    Args:
        size: (H, W) of the result in pixels, or one int for both.
        crop: Resizes the picture to cover int(256 / 224 * size) and crops the center; if False,
            resizes to `size` without keeping the aspect, as the official 384 models do.
        interpolation: 'nearest', 'bilinear' or 'bicubic'.
        fast: The same as in `train_transform`.

    Returns:
        transform(example): replaces `image` (as for train_transform) by uint8 (H, W, 3). Raises
        UserError for an unknown interpolation.
    """
    resample = _filter(interpolation, fast)
    return functools.partial(_eval, size=per_axis(size, 2), crop=crop, resample=resample, fast=fast)


@checked
def crop_transform(
    size: Size,
    short_side: NonNegativeInt | PositiveInts = 0,
    interpolation: str = "bicubic",
    rounding: str = "even",
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Resize of the short side and center crop, with every number given,
    as configs of timm and transformers do.

    Args:
        size: (H, W) of the result in pixels, or one int for both.
        short_side: Size to which the short side is resized, in pixels, or (H, W) that the picture
            is resized to cover; 0 resizes to `size` without keeping the aspect.
        interpolation: 'nearest', 'bilinear', 'bicubic' or 'lanczos'.
        rounding: Rounding of where the crop of an odd margin begins: 'even' as torchvision, 'floor'
              as transformers.

    Returns:
        transform(example): replaces `image` (as for train_transform) by uint8 (H, W, 3). Raises
        UserError for an unknown interpolation or rounding, and for a short side less than `size`.
    """
    if rounding not in ("even", "floor"):
        raise UserError(f"rounding {rounding!r} is not known: use 'even' or 'floor'")
    sides = per_axis(size, 2)
    least = max(sides) if isinstance(short_side, int) else sides
    if short_side and any(
        side < most for side, most in zip(per_axis(short_side, 2), per_axis(least, 2))
    ):
        raise UserError(
            f"short_side={short_side} is less than size={size}: the crop would leave the image"
        )
    short_side = short_side if isinstance(short_side, int) else tuple(short_side)
    return functools.partial(
        _crop, size=sides, short_side=short_side, resample=_filter(interpolation), rounding=rounding
    )


@checked
def clip_preprocess(
    size: Size,
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = CLIP_MEAN,
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = CLIP_STD,
    mode: str = "shortest",
    interpolation: str = "bicubic",
    fill: Byte = 0,
) -> Callable[[Image.Image | np.ndarray], np.ndarray]:
    """Preprocesses single images for CLIP, as OpenAI's `preprocess` does.

    Args:
        size: (H, W) of the result in pixels, or one int for both.
        mean: Mean of each channel, in 0..1.
        std: Standard deviation of each channel, in 0..1.
        mode: 'shortest' resizes the picture to cover `size` and crops the center, 'longest' resizes
            it to fit in and pads, 'squash' resizes without keeping the aspect (SigLIP).
        interpolation: 'nearest', 'bilinear' or 'bicubic', with antialiasing.
        fill: Gray level 0 to 255 of the padding.

    Returns:
        preprocess(image): float32 (H, W, 3) of a PIL image or of uint8 (H, W), (H, W, 1), (H, W, 3)
        or (H, W, 4). Raises UserError for an unknown mode or interpolation; preprocess for an array
        that is not uint8.
    """
    check_scale(mean, std)
    fit = _fit_of(size, mode, interpolation, fill)
    return functools.partial(_clip_preprocess, fit=fit, mean=np.float32(mean), std=np.float32(std))


@checked
def clip_eval_transform(
    size: Size, mode: str = "shortest", interpolation: str = "bicubic", fill: Byte = 0
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The part of clip_preprocess before it normalizes, for loaders: the device normalizes.

    Args:
        size, mode, interpolation, fill: The same as in `clip_preprocess`.

    Returns:
        transform(example): replaces `image` by uint8 (H, W, 3). Raises as clip_preprocess.
    """
    return functools.partial(_clip_eval, fit=_fit_of(size, mode, interpolation, fill))


@checked
def clip_train_transform(
    size: Size,
    scale: Shares = (0.9, 1.0),
    ratio: PositiveInterval = (3 / 4, 4 / 3),
    interpolation: str = "bicubic",
    hflip: Fraction = 0.0,
) -> Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]:
    """CLIP's only augmentation, a random resized crop of most of the image;
    arguments as for train_transform.
    """
    return train_transform(size, scale, ratio, interpolation, hflip, auto_augment="")


def to_rgb(image: Image.Image | np.ndarray) -> Image.Image:
    """Converts a PIL image, or a uint8 array (H, W), (H, W, 1) or (H, W, 3),
    to a PIL image of mode 'RGB'.

    Raises UnreadableError for an image of PostScript that is not decoded yet, and for numbers of
    unknown range: floating point and 32-bit integers.
    """
    if isinstance(image, np.ndarray):
        image = Image.fromarray(
            image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
        )
    picture.check_decoder(image)
    return image if image.mode == "RGB" else picture.convert(image, "reference").convert("RGB")


def random_crop_box(
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """Draws the box of a random resized crop as torchvision does;
    after ten misses the largest allowed center box.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        scale: Range of the box's share of the area.
        ratio: Range of the box's width / height.
        rng: Generator of the draws.

    Returns:
        (left, top, right, bottom) in pixels, inside the image.
    """
    for _ in range(_CROP_TRIES):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w = round(math.sqrt(area * aspect))
        h = round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(0, height - h + 1))
            left = int(rng.integers(0, width - w + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < min(ratio):
        h = round(width / min(ratio))
    elif width / height > max(ratio):
        w = round(height * max(ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _train(example, rng, *, size, scale, ratio, resample, hflip, augment, fast):
    image = _colored(example["image"])
    box = random_crop_box(*resizing.width_and_height(image), scale, ratio, rng)
    image = resizing.resize_box(image, box, size, resample, fast)
    if augment is not None:
        image = resizing.as_pil(image)
    if rng.random() < hflip:
        image = resizing.mirror(image)
    if augment is not None:
        image = augment(image, rng)
    return {**example, "image": np.asarray(image)}


def _eval(example, *, size, crop, resample, fast):
    image = _colored(example["image"])
    whole = size
    if crop:
        covered = tuple(int(256 / 224 * side) for side in size)
        whole = _cover_size(*resizing.width_and_height(image), covered)
    window = _center_box(*whole[::-1], size)
    image = resizing.resize_window(image, whole, window, resample, fast)
    return {**example, "image": np.asarray(image)}


def _crop(example, *, size, short_side, resample, rounding):
    image = _colored(example["image"])
    whole = size
    if short_side:
        whole = _cover_size(*resizing.width_and_height(image), per_axis(short_side, 2))
    window = _center_box(*whole[::-1], size)
    if rounding == "floor":
        left, top = ((before - after) // 2 for before, after in zip(whole[::-1], size[::-1]))
        window = (left, top, left + size[1], top + size[0])
    image = resizing.resize_window(image, whole, window, resample)
    return {**example, "image": np.asarray(image)}


def _colored(image: Image.Image | np.ndarray) -> Image.Image | np.ndarray:
    """An image of `to_rgb`, but arrays in RGB stay arrays, and JPEGs are not decoded yet."""
    return image if isinstance(image, np.ndarray) and image.shape[2:] == (3,) else to_rgb(image)


def _clip_eval(example, *, fit):
    return {**example, "image": np.asarray(fit(example["image"]))}


def _clip_preprocess(image, *, fit, mean, std):
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise UserError(f"an image array must be uint8, 0 to 255, not {image.dtype}")
        image = Image.fromarray(
            image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
        )
    return (np.asarray(fit(image), np.float32) / 255 - mean) / std


def _fit_of(
    size: Size, mode: str, interpolation: str, fill: int
) -> Callable[[Image.Image], Image.Image]:
    if mode not in RESIZE_MODES:
        raise UserError(f"resize mode {mode!r} is not known: use one of {', '.join(RESIZE_MODES)}")
    return functools.partial(
        _fit, size=per_axis(size, 2), mode=mode, resample=_filter(interpolation), fill=fill
    )


def _fit(image, *, size, mode, resample, fill) -> Image.Image:
    """Brings an image to `size` (H, W) in RGB; the mode is converted last, as in the original."""
    if isinstance(image, np.ndarray):
        image = to_rgb(image)
    if mode == "squash":
        return to_rgb(_resize(image, size, resample))
    if mode == "shortest":
        return to_rgb(_center_crop(_cover(image, size, resample), size))
    height, width = size
    scale = min(width / image.width, height / image.height)
    picture.check_resized(width, height)
    image = to_rgb(image.resize([max(1, round(side * scale)) for side in image.size], resample))
    canvas = Image.new("RGB", (width, height), (fill,) * 3)
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


def _cover(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Resizes to the smallest picture of the same aspect that holds `size` (H, W).

    Of a square that is a resize of the short side; there the other side is cut to whole pixels, as
    in torchvision, and for other sizes rounded, as in timm and open_clip.
    """
    return _resize(image, _cover_size(*image.size, size), resample)


def _cover_size(wide: int, high: int, size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) to which `_cover` resizes an image of `wide` x `high` pixels."""
    height, width = size
    by_width = wide * height <= high * width
    along, across = (wide, high) if by_width else (high, wide)
    fixed = width if by_width else height
    other = int(fixed * across / along) if height == width else round(fixed * across / along)
    return (other, fixed) if by_width else (fixed, other)


def _resize(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Resizes to (H, W); raises UnreadableError for more pixels than a picture needs."""
    picture.check_resized(*size[::-1])
    return image.resize(size[::-1], resample)


def _center_crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.crop(_center_box(*image.size, size))


def _center_box(wide: int, high: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    height, width = size
    left = round((wide - width) / 2)  # halves to even, as in torchvision
    top = round((high - height) / 2)
    return left, top, left + width, top + height


def _filter(interpolation: str, fast: bool = False) -> Image.Resampling:
    if interpolation not in _FILTERS:
        raise UserError(
            f"interpolation {interpolation!r} is not known: use one of {', '.join(_FILTERS)}"
        )
    fast = fast and interpolation != "nearest"
    return _FILTERS["bilinear" if fast else interpolation]
