"""Opens pictures, for the whole package: which formats, up to which limits,
and how they become gray or RGB.

Two conversions turn what a file stores into pixels:

- 'reference' is that of the published recipes, `convert("RGB")` as in torchvision's
  ImageFolder: transparency is dropped, which uncovers whatever colors lie below it, and a
  camera's EXIF orientation is ignored, but for TIFFs, which PIL itself turns upright.
- 'display' is what a viewer shows: pictures are turned upright by their EXIF orientation, and what
  is transparent is laid on white.

Both give the same pixels for pictures that have neither.
"""

import dataclasses
import functools
import io
import os
import re
import stat
from typing import Any

import numpy as np
from PIL import Image

from swin_jax.core.errors import UnreadableError, UserError, did_you_mean
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.data.image import noise, tiff

CONVERSIONS = ("reference", "display")

# Formats that PIL may read, and the endings of their names. PostScript is not among them, because
# PIL would start Ghostscript with it, nor are rare formats, whose readers few have tried to break.
SUFFIXES_OF = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
}

_OF_16_BITS = ("PNG", "PPM")  # formats whose pictures of mode I end at 65535
# Gray levels of PNGs of 2 and 4 bits, and what PIL multiplies their pixels by.
_STEPS = ((4, 85), (16, 17))

_ORIENTATION = 0x0112  # tag of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTERS = (5, 6, 7, 8)  # which swap the sides
_SCAN, _END = 0xDA, 0xD9  # markers of JPEG
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
# Within a scan; 0 and restarts belong to its data.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")


@checked
@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits on a picture; all is counted from the file,
    so that it gets the same verdict everywhere.

    Attributes:
        bytes: Size of the file.
        pixels: Height times width. Above PIL's own limit, which is the default,
            `PIL.Image.MAX_IMAGE_PIXELS` must be raised as well.
        scans: Most passes over the picture that a JPEG makes; usual ones have 1, progressive ones
            about 10.
        scanned_pixels: Most scans times pixels, which is the time that a JPEG takes.
        exif_parts: Segments of Exif in a JPEG, which PIL joins one by one; usual ones have 1.
        comments: Most signs # in a PPM, PGM or PBM written in digits, for whose comments PIL takes
            quadratic time.
    """

    bytes: PositiveInt = 2**29
    pixels: PositiveInt = 178_956_970
    scans: PositiveInt = 100
    scanned_pixels: PositiveInt = 2**31
    exif_parts: PositiveInt = 100
    comments: PositiveInt = 1000


USUAL = Limits()
MAX_RESIZED_PIXELS = 2**26  # of a picture on its way to the square that a model takes


@functools.cache
def formats() -> tuple[str, ...]:
    """The formats of `SUFFIXES_OF` that the installed PIL reads."""
    Image.init()
    return tuple(name for name in SUFFIXES_OF if name in Image.OPEN)


@functools.cache
def suffixes() -> tuple[str, ...]:
    """Endings of the names of pictures that can be read, in lower case."""
    return tuple(suffix for name in formats() for suffix in SUFFIXES_OF[name])


def open_image(file: bytes | str | os.PathLike, limits: Limits = USUAL) -> Image.Image:
    """Opens an encoded picture: the only place that calls `PIL.Image.open`.

    Args:
        file: The encoded bytes, or a path.
        limits: Limits on the picture.

    Returns:
        PIL's image in the mode that the file has, whose pixels are not decoded yet; the file is
        closed. Raises UnreadableError for what is missing, no regular file, no picture of `formats`
        or beyond the limits.
    """
    noise.hush()
    data = file if isinstance(file, bytes) else _read(file, limits)
    if len(data) > limits.bytes:
        raise UnreadableError(
            f"the picture has {len(data)} bytes, more than the limit of {limits.bytes}"
        )
    parts = data.count(b"Exif\0\0") if data.startswith(b"\xff\xd8") else 0
    if parts > limits.exif_parts:
        raise UnreadableError(
            f"the picture has {parts} parts of Exif, more than the limit of {limits.exif_parts}"
        )
    try:
        image = Image.open(io.BytesIO(data), formats=formats())
    except (
        Exception
    ) as error:  # decoders raise OSError, SyntaxError, struct.error, ...: no common class
        raise UnreadableError(_reason(error, data)) from error
    pixels = image.width * image.height
    if pixels > limits.pixels:
        size = f"{image.width} x {image.height}"
        raise UnreadableError(
            f"the picture has {size} pixels, more than the limit of {limits.pixels}"
        )
    comments = data.count(b"#") if data.startswith((b"P1", b"P2", b"P3")) else 0
    if comments > limits.comments:
        raise UnreadableError(
            f"the picture has {comments} comments, more than the limit of {limits.comments}"
        )
    if image.format == "TIFF":
        tiff.check_unpacked(image, len(data), limits.pixels)
    if image.format in ("JPEG", "MPO"):
        scans = count_scans(data)
        if scans > limits.scans or scans * pixels > limits.scanned_pixels:
            what = f"{scans} scans of {image.width} x {image.height} pixels"
            raise UnreadableError(
                f"the picture has {what}, more than the limit of {limits.scans} scans"
            )
    return image


def decode(
    file: bytes | str | os.PathLike, conversion: str = "reference", limits: Limits | None = None
) -> Image.Image:
    """Decodes an encoded picture completely, so that a damaged one raises here.

    Args:
        file: The encoded bytes, or a path.
        conversion: 'reference' or 'display', see the module.
        limits: Limits on the picture; None for `Limits()`.

    Returns:
        An image of mode 'L' where it is stored in gray, else 'RGB'; of an animation the first
        frame. Raises UnreadableError for what `open_image` refuses, what is damaged, and numbers of
        unknown range: floating point and 32-bit integers.
    """
    check_conversion(conversion)
    return finish(open_image(file, limits or USUAL), conversion)


def finish(image: Image.Image, conversion: str) -> Image.Image:
    """Decodes an opened picture, see `decode`; what it returns knows nothing of the file."""
    found = convert(image, conversion)
    found = found.copy() if found is image else found  # which the EXIF of the file does not follow
    found.info = {}  # an orientation that was left there would turn the picture again
    return found


def convert(image: Image.Image, conversion: str) -> Image.Image:
    """An image of mode 'L' where it is gray, else 'RGB'; UnreadableError for what `decode` refuses.

    Args:
        image: A picture of any mode.
        conversion: 'reference' or 'display', see the module.
    """
    check_decoder(image)
    try:
        image.load()
        return _convert(image, conversion)
    except UnreadableError:
        raise
    except Exception as error:  # decoders raise what they like, see open_image
        raise UnreadableError(_reason(error)) from error


def check_decoder(image: Image.Image) -> None:
    """Raises UnreadableError for an image of PostScript, opened elsewhere,
    that Ghostscript would have to decode.
    """
    if image.format == "EPS" and image.tile:
        raise UnreadableError("it is PostScript, a program, which is not run; save it as PNG first")


def _convert(image: Image.Image, conversion: str) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and image.format not in _OF_16_BITS):
        kind = "floating point" if image.mode == "F" else "32-bit integers"
        what = f"pictures of mode {image.mode} ({kind}, whose range is not known)"
        raise UnreadableError(f"{what} are not supported; save them with 8 or 16 bits")
    if conversion == "display":
        image = _on_white(upright(image))
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def check_conversion(conversion: Any) -> None:
    """Raises UserError for a conversion that does not exist."""
    if conversion not in CONVERSIONS:
        hint = did_you_mean(str(conversion), CONVERSIONS)
        raise UserError(f"conversion={conversion!r} must be 'reference' or 'display'{hint}")


def check_resized(width: int, height: int, limit: int = MAX_RESIZED_PIXELS) -> None:
    """Raises UnreadableError for a size, in pixels, that no picture needs to be resized to."""
    if width * height > limit:
        narrow = max(width, height) > 4 * min(width, height)
        what = (
            f"{'so narrow a picture' if narrow else 'it'} would be resized to "
            f"{width} x {height} pixels"
        )
        remedy = "crop it first" if narrow else "ask for a smaller size"
        raise UnreadableError(f"{what}, more than the limit of {limit}; {remedy}")


def count_scans(data: bytes) -> int:
    """Passes that a JPEG file makes over its picture.

    Embedded previews and what lies behind the picture are not counted. A file whose first scan has
    all there is, as almost all have, is not read further.
    """
    at, scans, frame, components = 2, 0, 0, 0
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker == _END:
            break
        if marker < 0xC0 or marker == 0xD8:  # without a length
            continue
        if marker in _FRAMES:
            frame, components = marker, int.from_bytes(data[at + 7 : at + 8])
        if marker == _SCAN:
            scans += 1
            if frame not in _PROGRESSIVE and int.from_bytes(data[at + 2 : at + 3]) >= components:
                break
        at += max(int.from_bytes(data[at : at + 2]), 2)
    return scans


def _read(path: str | os.PathLike, limits: Limits) -> bytes:
    """The bytes of a regular file; a pipe would wait for somebody to write into it."""
    try:
        if os.path.isdir(path):
            raise UnreadableError("this is a folder")
        with open(
            path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)
        ) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableError("this is not a regular file")
            if status.st_size > limits.bytes:
                raise UnreadableError(
                    f"the file has {status.st_size} bytes, more than the limit of {limits.bytes}"
                )
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UnreadableError(
            f"{getattr(error, 'strerror', None) or error}: {str(path)!r}"
        ) from error


def _reason(error: Exception, data: bytes = b"") -> str:
    """The fault of a picture, in one line."""
    if isinstance(error, Image.UnidentifiedImageError):  # its text shows the address of an object
        if not data:
            return "it is empty"
        return f"it is not a picture in a supported format ({', '.join(formats())})"
    return " ".join(str(error).split()) or type(error).__name__


def displayed_size(image: Image.Image, conversion: str) -> tuple[int, int]:
    """(H, W) that `convert` would give an image; nothing is decoded."""
    if image.format == "TIFF":
        return tiff.displayed_size(image)
    turned = conversion == "display" and orientation(image) in _QUARTERS
    return image.size if turned else image.size[::-1]


def orientation(image: Image.Image) -> int:
    """The orientation in the EXIF of an image, 1 to 8; 1, upright, where none is told."""
    try:
        found = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged EXIF tells nothing, as in viewers
        return 1
    return found if found in _TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """An image turned upright by its EXIF orientation."""
    turn = _TURNS.get(orientation(image))
    if turn is None:
        return image
    transparency = image.info.get("transparency")
    image = image.transpose(turn)
    image.info = {} if transparency is None else {"transparency": transparency}
    return image


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):
        gray = np.asarray(_from_16_bits(image))
        return Image.fromarray(
            np.where(np.asarray(image) == image.info["transparency"], np.uint8(255), gray)
        )
    gray = image.mode in ("1", "L", "LA", "La")
    if image.mode == "1":  # PIL applies no transparency to it
        image, white = image.convert("L"), image.info["transparency"]
        image.info["transparency"] = 255 if white else 0
    if image.mode == "L" and isinstance(image.info.get("transparency"), int):
        image = _with_scaled_key(image)
    if image.mode == "RGB" and max(key := image.info["transparency"]) > 255:
        # PIL keeps 8 of 16 bits of the pixels only.
        image.info["transparency"] = tuple(value >> 8 for value in key)
    if image.mode == "La":  # which PIL converts to LA only
        image = image.convert("LA")
    image = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image.getchannel("A"))
    return canvas.getchannel("R") if gray else canvas


def _with_scaled_key(image: Image.Image) -> Image.Image:
    """A gray image whose transparent level is scaled as its pixels:
    of PNGs of few bits, PIL scales the pixels only.

    Nothing else tells that of an image that is loaded. A level that no pixel has hides nothing, so
    that images of 8 bits stay as they are.
    """
    key, pixels = image.info["transparency"], np.asarray(image)
    step = next(
        (step for levels, step in _STEPS if 0 < key < levels and not (pixels % step).any()), 1
    )
    if step > 1:
        image = image.copy()
        image.info["transparency"] = key * step
    return image


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Scales to 8 bits, where PIL would clip."""
    pixels = np.clip(np.asarray(image), 0, 65535)
    if image.format == "TIFF":
        pixels = tiff.levels(image, pixels)
    return Image.fromarray((pixels // 257).astype(np.uint8))
