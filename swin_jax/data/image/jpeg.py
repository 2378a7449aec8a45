"""JPEG files that are decoded when their pixels are asked for, by simplejpeg if it is installed.

Both decode with libjpeg-turbo, and pixels are equal. What simplejpeg does not decode without a
warning is left to PIL, whose verdict counts.
"""

import functools
import io
import os
from typing import Any

import numpy as np
from PIL import Image

from swin_jax.data.image import picture

_FACTORS = (8, 4, 2)  # by which libjpeg decodes smaller
_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN, _BASELINE = 0xDA, 0xC0  # markers
_OTHER_FRAMES = (0xC1, 0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))


def open_late(
    file: bytes | str | os.PathLike,
    conversion: str = "reference",
    limits: picture.Limits | None = None,
) -> Image.Image:
    """Opens an encoded picture, whose pixels are decoded when they are first used if it is a JPEG.

    A transform may then decode them in its own way, see `pixels`.

    Args:
        file, conversion, limits: The same as in `picture.decode`.

    Returns:
        The same as `picture.decode`, which decodes all but whole JPEGs in RGB and upright. It
        raises the same, but for the rare damage of a JPEG that has an end.
    """
    picture.check_conversion(conversion)
    image = picture.open_image(file, limits or picture.USUAL)
    late = is_undecoded(image) and image.fp.getvalue().endswith(_END)
    if not late or picture.orientation(image) != 1:
        return picture.finish(image, conversion)
    image.info = {}
    return image


def factor(shrink: float) -> int:
    """The largest factor, 1 to 8, that leaves enough pixels for an image `shrink` times smaller."""
    return next((value for value in _FACTORS if value <= shrink), 1)


def is_undecoded(image: Image.Image) -> bool:
    """True for a JPEG in RGB that was opened from bytes and is to be decoded in full size."""
    if image.format != "JPEG" or image.mode != "RGB" or not image.tile:
        return False
    return isinstance(image.fp, io.BytesIO) and not image.decoderconfig


def pixels(
    image: Image.Image, factor: int = 1, fast: bool = False, bottom: int | None = None
) -> np.ndarray | None:
    """Decodes a JPEG that PIL has opened.

    Args:
        image: A PIL image.
        factor: 1, 2, 4 or 8, by which it is decoded smaller.
        fast: True for the fast transform and upsampling of colors, which change pixels.
        bottom: Row above which pixels are needed, in pixels of the image; None for all rows.

    Returns:
        uint8 (H, W, 3), with sides divided by `factor` and rounded up, and at least `bottom` rows;
        None for all but undecoded JPEGs in RGB, where simplejpeg is not installed, and for damaged
        files.
    """
    library = _library()
    if library is None or not is_undecoded(image):
        return None
    data = image.fp.getvalue()
    cut = _cut_off(data, bottom) if bottom is not None and factor == 1 else None
    width, height = (-(-side // factor) for side in image.size)
    try:
        return library.decode_jpeg(
            cut or data,
            "RGB",
            fastdct=fast,
            fastupsample=fast,
            min_height=height if factor > 1 else 0,
            min_width=width if factor > 1 else 0,
            min_factor=factor,
            strict=cut is None,  # what follows the rows of a cut file is worth a warning
        )
    except ValueError:  # of a warning as well; PIL tells whether it can be read
        return None


def _cut_off(data: bytes, bottom: int) -> bytes | None:
    """The file with a smaller height, whose decoding ends below `bottom`.

    Rows of pixels are coded from top to bottom, and none depends on those below but for the colors
    of the next block. None for files with several scans, and where nothing would be saved.
    """
    at, frame = 2, None
    if not data.startswith(_START) or not data.endswith(_END):
        return None
    while data[at] == 0xFF and data[at + 1] != _SCAN:
        if data[at + 1] in _OTHER_FRAMES:
            return None
        if data[at + 1] == _BASELINE:
            frame = at + 5  # where the height is
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
        if at + 5 > len(data):
            return None
    if frame is None or data[at] != 0xFF or data[at + 4] != data[frame + 4]:
        return None
    samples = [data[frame + 6 + 3 * index] & 15 for index in range(data[frame + 4])]
    block = 8 * max(samples)
    height = (-(-bottom // block) + 1) * block
    if height >= int.from_bytes(data[frame : frame + 2]):
        return None
    return data[:frame] + height.to_bytes(2) + data[frame + 2 :]


def drafted(image: Image.Image, factor: int) -> Image.Image:
    """The image, which PIL is told to decode `factor` times smaller if it still can."""
    if is_undecoded(image) and factor > 1:
        image.draft("RGB", tuple(side // factor for side in image.size))
    return image


@functools.cache
def _library() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg
