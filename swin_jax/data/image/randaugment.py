"""RandAugment as timm 0.4.12 defines it and the official Swin recipes use it
('rand-m9-mstd0.5-inc1').

Paper: RandAugment (arXiv 1909.13719). Reference: `rand_augment_transform` of timm 0.4.12, operation
by operation. Each of num_ops operations is drawn with replacement and then applied with probability
1/2; its magnitude is drawn anew from N(magnitude, magnitude_std) and clipped to [0, 10].

Where OpenCV is installed (extra `loader`) it translates, in a quarter of the time of PIL's affine
transform; 0.3 % of the values then differ from PIL's, by 1.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import Byte, NonNegativeFloat, NonNegativeInt, Range, checked

IMAGENET_FILL = (124, 116, 104)  # round(255 * ImageNet mean)
MAX_LEVEL = 10.0
PROBABILITY = 0.5
SOLARIZE_ADD_THRESHOLD = 128
_CUT_OFF = -0.498  # OpenCV rounds and PIL cuts off; not half, which would cut off what is whole
_EXAMPLE = "'rand-m9-mstd0.5-inc1'"


@checked
@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Applies random operations to an image.

    Attributes:
        magnitude: Mean magnitude, 0 to 10.
        magnitude_std: Standard deviation of the magnitude; 0 keeps it fixed.
        num_ops: Operations drawn for an image.
        increasing: True if posterize, solarize and the enhancements grow stronger with the
            magnitude.
        fill: RGB of pixels that come from outside the image.
        resample: PIL filter of the geometric operations.
        fast: True for geometric operations that change pixels: translations by whole pixels, and
            others by OpenCV, if it is installed and `resample` is bilinear.
    """

    magnitude: Annotated[float, Range(low=0, high=MAX_LEVEL)] = MAX_LEVEL
    magnitude_std: NonNegativeFloat = 0.0
    num_ops: NonNegativeInt = 2
    increasing: bool = False
    fill: tuple[Byte, Byte, Byte] = IMAGENET_FILL
    resample: Image.Resampling = Image.Resampling.BICUBIC
    fast: bool = False

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Returns an augmented RGB image of the same size; `rng` decides everything."""
        for op in rng.integers(len(OPS), size=self.num_ops):
            if rng.random() < PROBABILITY:
                level = float(
                    np.clip(rng.normal(self.magnitude, self.magnitude_std), 0.0, MAX_LEVEL)
                )
                image = self.apply(list(OPS)[op], image, level, rng.choice((-1.0, 1.0)))
        return image

    def apply(self, name: str, image: Image.Image, level: float, sign: float) -> Image.Image:
        """Applies the operation `name` of OPS at a magnitude of 0 to 10,
        to the side that `sign` (1 or -1) says.
        """
        argument, function = OPS[name]
        return function(image, argument(level / MAX_LEVEL, sign, self.increasing), self)


def parse(
    text: str,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
    fast: bool = False,
) -> RandAugment:
    """Reads timm's notation: 'rand', then -m<magnitude> -n<operations> -mstd<standard
    deviation> -inc<0 or 1>.

    Args:
        text: A policy, such as 'rand-m9-mstd0.5-inc1'.
        resample, fast: The same as in `RandAugment`.

    Returns:
        The augmentation. Raises UserError where the text cannot be read.
    """
    fields = {"m": ("magnitude", float), "n": ("num_ops", int), "mstd": ("magnitude_std", float)}
    fields["inc"] = ("increasing", lambda value: bool(int(value)))
    kind, *sections = text.split("-")
    if kind != "rand":
        raise UserError(
            f"auto_augment {text!r} is not known: write 'rand-...' as in {_EXAMPLE}, or '' for none"
        )
    values = {}
    for section in sections:
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", section)
        try:
            name, read = fields[match[1]]
            values[name] = read(match[2])
        except (TypeError, KeyError, ValueError):
            raise UserError(
                f"auto_augment {text!r}: cannot read {section!r}; "
                f"write m, n, mstd or inc and a number as in {_EXAMPLE}"
            ) from None
    return RandAugment(**values, resample=resample, fast=fast)


def _signed(maximum: float) -> Callable[[float, float, bool], float]:
    return lambda fraction, sign, increasing: sign * fraction * maximum


def _none(fraction: float, sign: float, increasing: bool) -> None:
    """The operation has no strength."""


def _bits(fraction: float, sign: float, increasing: bool) -> int:
    """Bits to keep: 4 down to 0, or 0 up to 4."""
    return 4 - int(fraction * 4) if increasing else int(fraction * 4)


def _threshold(fraction: float, sign: float, increasing: bool) -> int:
    """Value from which pixels are inverted: 256 down to 0, or 0 up to 256."""
    return 256 - int(fraction * 256) if increasing else int(fraction * 256)


def _addition(fraction: float, sign: float, increasing: bool) -> int:
    return int(fraction * 110)


def _factor(fraction: float, sign: float, increasing: bool) -> float:
    """Blend with the degenerate image: 1 away to 0.1 or 1.9, or 0.1 up to 1.9."""
    return 1.0 + sign * fraction * 0.9 if increasing else 0.1 + fraction * 1.8


def _affine(image: Image.Image, matrix: tuple[float, ...], settings: RandAugment) -> Image.Image:
    library = _opencv() if settings.fast else None
    if library is None or settings.resample != Image.Resampling.BILINEAR:
        transform = Image.Transform.AFFINE
        return image.transform(
            image.size, transform, matrix, resample=settings.resample, fillcolor=settings.fill
        )
    turn, shift = np.reshape(matrix, (2, 3))[:, :2], np.reshape(matrix, (2, 3))[:, 2]
    shift = shift + turn.sum(axis=1) / 2 - 0.5  # from and to the centers of pixels
    options = dict(borderMode=library.BORDER_CONSTANT, borderValue=settings.fill)
    flags = library.INTER_LINEAR | library.WARP_INVERSE_MAP
    matrix = np.column_stack([turn, shift])
    pixels = library.warpAffine(np.asarray(image), matrix, image.size, flags=flags, **options)
    return Image.fromarray(pixels)


def _translate(image: Image.Image, x: float, y: float, settings: RandAugment) -> Image.Image:
    """Translates by x and y pixels, of which one is 0."""
    if settings.fast:
        settings = dataclasses.replace(settings, resample=Image.Resampling.NEAREST)
    library = _opencv()
    if library is None or settings.resample != Image.Resampling.BICUBIC or image.mode != "RGB":
        return _affine(image, (1, 0, x, 0, 1, y), settings)
    return Image.fromarray(_moved(library, np.asarray(image), x or y, int(not y), settings.fill))


def _moved(
    library: Any, pixels: np.ndarray, shift: float, axis: int, fill: tuple[int, int, int]
) -> np.ndarray:
    """uint8 (H, W, 3) in which each pixel is that at `shift` more along an axis."""
    whole, length = math.floor(shift), pixels.shape[axis]
    first = max(math.ceil(-shift - 0.5), 0)
    end = min(math.ceil(length - shift - 0.5), length)  # of what lies inside the image
    moved = np.empty_like(pixels)
    moved[:] = fill
    if first >= end:
        return moved
    weights = _bicubic(shift - whole)
    weights = weights[None] if axis else weights[:, None]
    edge = library.BORDER_REPLICATE
    pixels = library.copyMakeBorder(pixels, 1 - axis, 0, axis, 0, edge)
    anchor = (axis, 1 - axis)
    pixels = library.filter2D(pixels, -1, weights, None, anchor, _CUT_OFF, edge)
    given, taken = slice(first, end), slice(first + whole + 1, end + whole + 1)
    if axis:
        moved[:, given] = pixels[:, taken]
    else:
        moved[given] = pixels[taken]
    return moved


def _bicubic(share: float) -> np.ndarray:
    """Weights of the four neighbors of a place between the middle ones, as PIL's transforms have.

    `share` is its distance from the first of these two.
    """
    square, cube = share**2, share**3
    middle = (1 - 2 * square + cube, share + square - cube)
    return np.array([-share + 2 * square - cube, *middle, -square + cube])


@functools.cache
def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        return None
    return cv2


def _rotate(image: Image.Image, degrees: float, settings: RandAugment) -> Image.Image:
    if not settings.fast:
        return image.rotate(degrees, resample=settings.resample, fillcolor=settings.fill)
    turn = -math.radians(degrees)
    cos, sin = math.cos(turn), math.sin(turn)
    x, y = image.width / 2, image.height / 2
    matrix = (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)
    return _affine(image, matrix, settings)


def _posterize(image: Image.Image, bits: int, settings: RandAugment) -> Image.Image:
    return image.point(
        [value & ~(2 ** (8 - bits) - 1) for value in range(256)] * len(image.getbands())
    )


def _solarize_add(image: Image.Image, addition: int, settings: RandAugment) -> Image.Image:
    table = [
        min(255, value + addition) if value < SOLARIZE_ADD_THRESHOLD else value
        for value in range(256)
    ]
    return image.point(table * len(image.getbands()))


def _enhance(enhancer) -> Callable[[Image.Image, float, RandAugment], Image.Image]:
    return lambda image, factor, settings: enhancer(image).enhance(factor)


# name -> (argument(level / 10, sign, increasing), function(image, argument, settings))
OPS = {
    "AutoContrast": (_none, lambda image, _, settings: ImageOps.autocontrast(image)),
    "Equalize": (_none, lambda image, _, settings: ImageOps.equalize(image)),
    "Invert": (_none, lambda image, _, settings: ImageOps.invert(image)),
    "Rotate": (_signed(30.0), _rotate),  # degrees
    "Posterize": (_bits, _posterize),
    "Solarize": (
        _threshold,
        lambda image, threshold, settings: ImageOps.solarize(image, threshold),
    ),
    "SolarizeAdd": (_addition, _solarize_add),
    "Color": (_factor, _enhance(ImageEnhance.Color)),
    "Contrast": (_factor, _enhance(ImageEnhance.Contrast)),
    "Brightness": (_factor, _enhance(ImageEnhance.Brightness)),
    "Sharpness": (_factor, _enhance(ImageEnhance.Sharpness)),
    "ShearX": (
        _signed(0.3),
        lambda image, shear, settings: _affine(image, (1, shear, 0, 0, 1, 0), settings),
    ),
    "ShearY": (
        _signed(0.3),
        lambda image, shear, settings: _affine(image, (1, 0, 0, shear, 1, 0), settings),
    ),
    "TranslateXRel": (  # fraction of the width
        _signed(0.45),
        lambda image, part, settings: _translate(image, part * image.width, 0, settings),
    ),
    "TranslateYRel": (  # fraction of the height
        _signed(0.45),
        lambda image, part, settings: _translate(image, 0, part * image.height, settings),
    ),
}
