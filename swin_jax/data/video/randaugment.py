"""RandAugment of video clips as imgaug 0.4.0 defines it and the official Something-Something V2
recipe uses it (4, 7).

Paper: RandAugment (arXiv 1909.13719). Reference: `imgaug.augmenters.RandAugment`, made
deterministic once for each clip, so that all its frames get the same operations at the same
strength. It differs from timm's (data/randaugment.py): 18 operations, drawn without replacement,
all of them applied; magnitudes up to 30; geometry with the nearest pixel; and before them imgaug
always flips half of the clips and crops up to 3 % of each side. The official recipe therefore does
flip clips, although its own flip is off and the data set has classes that a flip exchanges.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import numpy as np

from swin_jax.core.errors import UserError, extra
from swin_jax.core.ranges import Byte, NonNegativeInt, Range, checked

MAX_MAGNITUDE = 30
Magnitude = Annotated[int, Range(low=0, high=MAX_MAGNITUDE)]
_CROP_REFERENCE = 224  # a magnitude of m crops up to m pixels of a picture of this size
_SHEAR_MAX = 0.3  # radians
_TRANSLATE_MAX = 0.33
_ROTATE_MAX = 30.0  # degrees
_ENHANCE_MAX = 0.9
_POSTERIZE_MAX = 6  # bits that go
_CUTOUT_MAX = 20 / 32


@checked
@dataclasses.dataclass(frozen=True)
class VideoRandAugment:
    """Applies random operations to all frames of a clip alike.

    Attributes:
        num_ops: Different operations drawn for a clip.
        magnitude: Strength of the operations, 0 to 30.
        hidden_flip: True to flip half of the clips first, as the reference does without saying so.
        hidden_crop: True to crop up to magnitude / 224 of each side first and resize back, as the
            reference does.
        fill: Gray level of pixels that come from outside the frame, and of the cut-out square.
    """

    num_ops: NonNegativeInt = 4
    magnitude: Magnitude = 7
    hidden_flip: bool = True
    hidden_crop: bool = True
    fill: Byte = 128

    def __post_init__(self):
        if not 0 <= self.num_ops <= len(OPS):
            raise UserError(
                f"RandAugment of clips has {len(OPS)} operations: num_ops cannot be {self.num_ops}"
            )

    def __call__(self, clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns an augmented clip uint8 (T, H, W, 3) of the same shape;
        `rng` decides everything.
        """
        if self.hidden_flip and rng.random() < 0.5:
            clip = clip[:, :, ::-1]
        if self.hidden_crop:
            clip = crop_sides(clip, rng.uniform(0, self.magnitude / _CROP_REFERENCE, 4))
        for op in rng.permutation(len(OPS))[: self.num_ops]:
            clip = self.apply(list(OPS)[op], clip, rng.choice((-1.0, 1.0)), rng.random(2))
        return clip

    def apply(self, name: str, clip: np.ndarray, sign: float, position: np.ndarray) -> np.ndarray:
        """Applies one operation.

        Args:
            name: A key of OPS.
            clip: uint8 (T, H, W, 3).
            sign: 1 or -1, the side to which operations that have two go.
            position: (2,) center (y, x) of the cut-out square, as shares of height and width.

        Returns:
            uint8 (T, H, W, 3).
        """
        return OPS[name](
            clip, _Strength(self.magnitude / MAX_MAGNITUDE, sign, tuple(position), self.fill)
        )


@dataclasses.dataclass(frozen=True)
class _Strength:
    """The facts an operation may depend on: magnitude / 30, the side, a random place, the fill."""

    share: float
    sign: float
    position: tuple[float, float]
    fill: int


def crop_sides(clip: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Crops a share of each side, (top, right, bottom, left), and resizes back bilinearly;
    uint8 (T, H, W, 3).
    """
    with extra("video", "frames are resized with OpenCV"):
        import cv2

    height, width = clip.shape[1:3]
    top, right, bottom, left = np.round(np.array([height, width, height, width]) * shares).astype(
        int
    )
    frames = np.ascontiguousarray(clip[:, top : height - bottom, left : width - right])
    if frames.shape == clip.shape:
        return clip
    return np.stack(
        [cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in frames]
    )


def _frames(function: Callable) -> Callable[[np.ndarray, _Strength], np.ndarray]:
    """An operation on clips from function(PIL image, strength) -> PIL image."""

    def apply(clip, strength):
        from PIL import Image

        clip = np.ascontiguousarray(clip)
        return np.stack([np.asarray(function(Image.fromarray(frame), strength)) for frame in clip])

    return apply


def _auto_contrast(image, strength):
    from PIL import ImageOps

    return ImageOps.autocontrast(image)


def _equalize(image, strength):
    from PIL import ImageOps

    return ImageOps.equalize(image)


def _blur(image, strength):
    from PIL import ImageFilter

    return image.filter(ImageFilter.BLUR)


def _smooth(image, strength):
    from PIL import ImageFilter

    return image.filter(ImageFilter.SMOOTH)


def _enhance(name: str) -> Callable[[np.ndarray, _Strength], np.ndarray]:
    """One of PIL's enhancements by 1 plus or minus up to 0.9, at least 0.1."""

    def enhance(image, strength):
        from PIL import ImageEnhance

        enhancers = {
            "color": ImageEnhance.Color,
            "contrast": ImageEnhance.Contrast,
            "brightness": ImageEnhance.Brightness,
            "sharpness": ImageEnhance.Sharpness,
        }
        return enhancers[name](image).enhance(1 + strength.sign * strength.share * _ENHANCE_MAX)

    return _frames(enhance)


def _affine(
    matrix_of: Callable[[int, int, float], np.ndarray],
) -> Callable[[np.ndarray, _Strength], np.ndarray]:
    """Geometry from matrix_of(height, width, signed share), (2, 3), which maps a source place (x,
    y) to its target.
    """

    def affine(image, strength):
        from PIL import Image

        matrix = matrix_of(image.height, image.width, strength.sign * strength.share)
        inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
        fill = (strength.fill,) * 3
        return image.transform(
            image.size, Image.Transform.AFFINE, inverse.ravel().tolist(), fillcolor=fill
        )

    return _frames(affine)


def _rotation(height, width, share):
    angle = np.deg2rad(share * _ROTATE_MAX)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    center = np.array([width, height]) / 2
    return np.column_stack([turn, center - turn @ center])


def _shear_x(height, width, share):
    # Tanh, not tan, in the reference, too.
    return np.array([[1, np.tanh(share * _SHEAR_MAX), 0], [0, 1, 0]])


def _shear_y(height, width, share):
    return np.array([[1, 0, 0], [np.tanh(share * _SHEAR_MAX), 1, 0]])


def _translation_x(height, width, share):
    return np.array([[1, 0, share * _TRANSLATE_MAX * width], [0, 1, 0]])


def _translation_y(height, width, share):
    return np.array([[1, 0, 0], [0, 1, share * _TRANSLATE_MAX * height]])


def _identity(clip, strength):
    return clip


def _invert(clip, strength):
    return 255 - clip


def _posterize(clip, strength):
    return clip & np.uint8(256 - 2 ** int(strength.share * _POSTERIZE_MAX))


def _solarize(clip, strength):
    return np.where(clip >= 256 - int(strength.share * 256), 255 - clip, clip)


def _cutout(clip, strength):
    """Fills one square, whose side is a share of the height,
    and whose parts outside of the frame are lost.
    """
    height, width = clip.shape[1:3]
    center_y, center_x = strength.position[0] * height, strength.position[1] * width
    half = strength.share * _CUTOUT_MAX * height / 2
    top, bottom = (min(max(int(center_y + side), 0), height) for side in (-half, half))
    left, right = (min(max(int(center_x + side), 0), width) for side in (-half, half))
    clip = clip.copy()
    clip[:, top:bottom, left:right] = strength.fill
    return clip


OPS = {
    "Identity": _identity,
    "AutoContrast": _frames(_auto_contrast),
    "Equalize": _frames(_equalize),
    "Invert": _invert,
    "Rotate": _affine(_rotation),
    "Posterize": _posterize,
    "Solarize": _solarize,
    "Color": _enhance("color"),
    "Contrast": _enhance("contrast"),
    "Brightness": _enhance("brightness"),
    "Sharpness": _enhance("sharpness"),
    "ShearX": _affine(_shear_x),
    "ShearY": _affine(_shear_y),
    "TranslateX": _affine(_translation_x),
    "TranslateY": _affine(_translation_y),
    "Cutout": _cutout,
    "Blur": _frames(_blur),
    "Smooth": _frames(_smooth),
}
