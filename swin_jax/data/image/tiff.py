"""Handles what PIL does not in TIFFs: strips that unpack to gigabytes, the size of images that are
turned upright while loading, and gray levels of 12 and 16 bits.
"""

import numpy as np
from PIL import Image
from PIL import TiffImagePlugin as tags

from swin_jax.core.errors import UnreadableError

# Limits on the unpacked bytes of a strip or tile: per pixel of the image limit; for a file of any
# size; and per byte of the file, more than any compression of photographs reaches.
_UNPACKED, _FREE, _INFLATION = 4, 2**26, 2**11
_ORIENTATION, _QUARTERS = 0x0112, (5, 6, 7, 8)  # a tag, and its values that swap the sides
_WHITE_IS_ZERO = 0  # photometric interpretation


def check_unpacked(image: Image.Image, size: int, pixels: int) -> None:
    """Raises UnreadableError if a strip or tile is larger than the limits or the file allow.

    Args:
        image: An open TIFF.
        size: Bytes of its file.
        pixels: Limit on the pixels of an image.
    """
    if all(part[0] != "libtiff" for part in image.tile):  # not compressed
        return
    told = image.tag_v2
    try:
        width = int(told.get(tags.TILEWIDTH, told[tags.IMAGEWIDTH]))
        length = told[tags.IMAGELENGTH]
        height = int(told.get(tags.TILELENGTH, min(told.get(tags.ROWSPERSTRIP, length), length)))
        if told.get(tags.PLANAR_CONFIGURATION) == 2:
            samples = 1
        else:
            samples = int(told.get(tags.SAMPLESPERPIXEL, 1))
        bits = max(told.get(tags.BITSPERSAMPLE, (1,)))
    except (TypeError, ValueError) as error:  # of another type, or several
        raise UnreadableError(
            "the picture has sizes of strips or tiles that are not numbers"
        ) from error
    unpacked = width * height * samples * bits // 8
    limit = min(_UNPACKED * pixels, _FREE + _INFLATION * size)
    if unpacked > limit:
        raise UnreadableError(
            f"the picture unpacks {unpacked} bytes at once, "
            f"more than the limit of {limit} for its size"
        )


def displayed_size(image: Image.Image) -> tuple[int, int]:
    """(H, W) that an open TIFF will have when loaded, independent of PIL's version."""
    told = image.tag_v2
    if told.get(_ORIENTATION) in _QUARTERS:
        return told[tags.IMAGEWIDTH], told[tags.IMAGELENGTH]
    return image.height, image.width


def levels(image: Image.Image, pixels: np.ndarray) -> np.ndarray:
    """Scales gray levels to 0 (black) to 65535 (white).

    PIL does not scale 12 bits, and inverts files in which zero is white only up to 8 bits.

    Args:
        image: A loaded TIFF of 12 or 16 bits.
        pixels: Pixels from PIL, whole numbers (H, W) of 0 to 65535.

    Returns:
        Whole numbers (H, W).
    """
    white = 2 ** max(image.tag_v2.get(tags.BITSPERSAMPLE, (16,))) - 1
    pixels = pixels.astype(np.uint32) * 65535 // white
    inverted = image.tag_v2.get(tags.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
    return 65535 - pixels if inverted else pixels
