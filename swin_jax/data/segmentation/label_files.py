"""Files of labels: one number for each pixel."""

import io
import os

import numpy as np
from PIL import Image

from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UnreadableError
from swin_jax.data.image import picture

# What PIL multiplies the pixels of gray PNGs of 2 and 4 bits by.
_SCALED = {"L;2": 85, "L;4": 17}


class UnfitError(UnreadableError):
    """A file that can be read, but whose content is no label of its image: a mistake of whoever
    made the data set, not damage.
    """


def decode(
    file: bytes | str | os.PathLike,
    limits: picture.Limits | None = None,
    conversion: str = "reference",
) -> tuple[np.ndarray, bool]:
    """Decodes a label file.

    Args:
        file: The encoded bytes, or a path.
        limits: Limits on the picture; None for `picture.Limits()`.
        conversion: 'display' turns labels by the EXIF orientation of their file, as images;
            'reference' does not.

    Returns:
        (uint8 (H, W), True if it has a palette, whose indices are the labels).

    Raises:
        UnreadableError: What `picture.open_image` refuses, and what is damaged.
        UnfitError: Labels in color or with transparency, in JPEG, fractions, or larger than a byte.
    """
    image = picture.open_image(file, limits or picture.USUAL)
    if image.format in ("JPEG", "MPO"):
        raise UnfitError("it is a JPEG, which changes numbers: save labels as PNG")
    if image.mode not in ("1", "L", "P", "I", "F") and not image.mode.startswith("I;16"):
        raise UnfitError(
            f"it is in color ({image.mode}), and a label is one number for each pixel: save it in "
            "gray or with a palette"
        )
    raw = image.tile[0][3] if image.tile else ""
    try:
        label = np.asarray(picture.upright(image) if conversion == "display" else image)
    except Exception as error:  # decoders have no common class of errors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableError(reason) from error
    label = label // _SCALED.get(raw if isinstance(raw, str) else "", 1)
    return from_numbers(label), image.mode == "P"


def from_numbers(label: np.ndarray) -> np.ndarray:
    """Labels of any whole numbers (H, W), or True and False, as uint8.

    Raises UnfitError for one that is larger than a byte, and for fractions.
    """
    if label.dtype.kind not in "biu":
        raise UnfitError(f"its numbers are {label.dtype}, and labels are whole numbers")
    if label.size and (label.max() > IGNORED or label.min() < 0):
        wrong = label.max() if label.min() >= 0 else label.min()
        raise UnfitError(f"it has the label {wrong}, and labels are 0 to {IGNORED}")
    return label.astype(np.uint8)


def reduce_zero(label: np.ndarray) -> np.ndarray:
    """Labels that count from 1, with 0 for everything else, as labels that count from 0.

    Args:
        label: uint8 (H, W).

    Returns:
        uint8 (H, W): 255 where it was 0 or 255, elsewhere one less.
    """
    return np.where(label == IGNORED, label, label - np.uint8(1))


def check_values(label: np.ndarray, classes: int, reduce_zero_label: bool = False) -> None:
    """Raises UnfitError for a label, as it stands in its file, that is neither a class nor 255.

    Args:
        label: uint8 (H, W).
        classes: K.
        reduce_zero_label: True if the classes are 1 to K and 0 is everything else.
    """
    last = classes if reduce_zero_label else classes - 1
    wrong = label[(label > last) & (label != IGNORED)]
    if wrong.size:
        first = last - classes + 1
        raise UnfitError(
            f"it has the label {wrong.max()}, and there are {classes} classes, {first} to {last}"
        )


def check_size(label: np.ndarray, size: tuple[int, int]) -> None:
    """Raises UnfitError for a label of another size (height, width) than its image."""
    if label.shape != size:
        raise UnfitError(
            f"it is {label.shape[1]} x {label.shape[0]} pixels, its image {size[1]} x {size[0]}"
        )


def encode(label: np.ndarray, colors: np.ndarray) -> bytes:
    """A PNG of labels, uint8 (H, W), with a palette of `colors`, uint8 (K, 3)."""
    image = Image.fromarray(label)
    image.putpalette(colors.ravel().tolist())
    return _png(image)


def encode_overlay(label: np.ndarray, image: np.ndarray, colors: np.ndarray) -> bytes:
    """A PNG of an image, uint8 (H, W, 3), with the colors of its labels laid over it by half."""
    mixed = (image.astype(np.uint16) + colors[label]) // 2
    return _png(Image.fromarray(mixed.astype(np.uint8)))


def _png(image: Image.Image) -> bytes:
    image.save(file := io.BytesIO(), "PNG")
    return file.getvalue()
