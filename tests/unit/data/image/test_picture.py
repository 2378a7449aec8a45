"""Opening pictures: formats, limits, transparency and orientation."""

import ast
import io
import os
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

import swin_jax
from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data.image import picture
from swin_jax.data.image.picture import Limits, decode

ROOT = pathlib.Path(swin_jax.__file__).parents[1]
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(/tmp/x) (w) file\nshowpage\n%%EOF\n"


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def encoded(image, file_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def with_orientation(image, file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, file_format, exif=exif, **({} if file_format == "JPEG" else dict(lossless=True)))


# --- Formats


def test_pictures_are_opened_in_one_place_only():
    """Everywhere else, a file could start any of PIL's plugins, Ghostscript among them."""
    found = []
    for path in [*ROOT.glob("swin_jax/**/*.py"), *ROOT.glob("experiments/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
            of = ast.unparse(node.value) if isinstance(node, ast.Attribute) else ""
            imported = isinstance(node, ast.ImportFrom) and (node.module or "").startswith("PIL")
            if (name == "open" and of.endswith(("Image", "PIL"))) or name in ("imread", "ImageFile", "imopen"):
                found.append(f"{path.relative_to(ROOT)}: {ast.unparse(node)}")
            if imported and {alias.name for alias in node.names} & {"open", "ImageFile"}:
                found.append(f"{path.relative_to(ROOT)}: {ast.unparse(node)}")
    assert found == ["swin_jax/data/image/picture.py: Image.open"]


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.eps", "x.gif", "x.tif"])
def test_postscript_starts_no_program(name, tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *args, **kwargs: pytest.fail("a program was started"))
    monkeypatch.setattr("subprocess.check_call", lambda *args, **kwargs: pytest.fail("a program was started"))
    (tmp_path / name).write_bytes(POSTSCRIPT)
    binary = b"\xc5\xd0\xd3\xc6" + bytes([32, 0, 0, 0, len(POSTSCRIPT), 0, 0, 0]) + bytes(20) + POSTSCRIPT
    for file in (str(tmp_path / name), POSTSCRIPT, binary):
        with pytest.raises(UnreadableError, match="not a picture in a supported format .JPEG, PNG"):
            decode(file)


def test_formats_are_those_that_people_have():
    assert {"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"} <= set(picture.formats())
    listed = set(picture.suffixes())
    assert {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm"} <= listed
    assert not listed & {".eps", ".ps", ".pdf", ".wmf", ".mpg"}
    for name in picture.formats():
        pixels = np.zeros((8, 8, 3), np.uint8)
        assert decode(encoded(Image.fromarray(pixels), name)).size == (8, 8)


# --- What becomes of modes


@pytest.mark.parametrize(
    ("mode", "file_format", "decoded"),
    [("RGB", "JPEG", "RGB"), ("L", "JPEG", "L"), ("CMYK", "JPEG", "RGB"), ("P", "PNG", "RGB"), ("RGBA", "PNG", "RGB")],
)
@pytest.mark.parametrize("conversion", picture.CONVERSIONS)
def test_decode_gives_gray_or_rgb(mode, file_format, decoded, conversion):
    assert decode(encoded(Image.fromarray(noise(9, 11, 3)).convert(mode), file_format), conversion).mode == decoded


def test_a_damaged_picture_is_named_unreadable():
    data = encoded(Image.fromarray(noise(60, 60, 3)), "JPEG")
    assert Image.open(io.BytesIO(data[:-1000])).size == (60, 60)  # the header is whole
    with pytest.raises(UnreadableError, match="truncated"):
        decode(data[:-1000])
    with pytest.raises(UnreadableError, match="it is empty"):
        decode(b"")
    png = encoded(Image.fromarray(noise(60, 60, 3)))
    for cut in range(1, len(png), 997):
        with pytest.raises(UnreadableError):
            decode(png[:cut])


@pytest.mark.parametrize("conversion", picture.CONVERSIONS)
@pytest.mark.parametrize(("mode", "kind"), [("F", np.float32), ("I", np.int32)])
def test_numbers_of_unknown_range_are_refused(mode, kind, conversion):
    image = Image.fromarray(np.linspace(0, 255, 12).reshape(3, 4).astype(kind))
    for read in (lambda: decode(encoded(image, "TIFF"), conversion), lambda: picture.convert(image, conversion)):
        with pytest.raises(UnreadableError, match=f"mode {mode} .* are not supported; save them with 8 or 16 bits"):
            read()


def test_16_bits_are_scaled_whatever_holds_them():
    pixels = np.array([[0, 25_700, 65_535]], np.uint16)
    files = [encoded(Image.fromarray(pixels), name) for name in ("PNG", "TIFF")]
    files += [b"P5 3 1 65535\n" + pixels.astype(">u2").tobytes(), b"P5 3 1 100\n" + bytes([0, 39, 100])]
    for file in files:
        for conversion in picture.CONVERSIONS:
            assert np.abs(np.asarray(decode(file, conversion)).astype(int) - [[0, 100, 255]]).max() <= 1


# --- Transparency and orientation


def gray_png(depth, steps, key):
    """A PNG of 2 or 4 bits with a transparent level, which PIL does not write."""
    bits = ((steps[..., None] >> np.arange(depth)[::-1]) & 1).reshape(len(steps), -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    size = struct.pack(">2I5B", steps.shape[1], len(steps), depth, 0, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"tRNS", struct.pack(">H", key)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def transparent_pictures():
    """(name, file, gray or colors as stored (H, W, C), alpha (H, W))."""
    colors, alpha = noise(6, 7, 3), np.array([0, 255, 128, 1, 254, 77, 200] * 6, np.uint8).reshape(6, 7)
    rgba = Image.fromarray(np.dstack([colors, alpha]))
    yield "RGBA png", encoded(rgba), colors, alpha
    yield "RGBA webp", encoded(rgba, "WEBP", lossless=True, exact=True), colors, alpha
    yield "RGBA tiff", encoded(rgba, "TIFF"), colors, alpha
    gray = noise(6, 7)
    yield "LA png", encoded(Image.merge("LA", [Image.fromarray(gray), Image.fromarray(alpha)])), gray[..., None], alpha
    key = tuple(map(int, colors[2, 3]))
    hidden = np.where((colors == key).all(-1), 0, 255)
    yield "RGB key", encoded(Image.fromarray(colors), transparency=key), colors, hidden
    hidden = np.where(gray == gray[1, 1], 0, 255)
    yield "L key", encoded(Image.fromarray(gray), transparency=int(gray[1, 1])), gray[..., None], hidden
    deep = gray.astype(np.uint16) * 257
    file = encoded(Image.fromarray(deep), transparency=int(deep[1, 1]))
    yield "16 bits key", file, gray[..., None], hidden
    for depth in (2, 4):
        steps = gray >> (8 - depth)
        file = gray_png(depth, steps, int(steps[1, 1]))
        stored = np.uint8(steps * (255 // (2**depth - 1)))[..., None]
        yield f"{depth} bits key", file, stored, np.where(steps == steps[1, 1], 0, 255)
    bits = gray > 127
    for key in (0, 255):
        file = encoded(Image.fromarray(bits), transparency=key)
        yield f"1 bit key {key}", file, np.uint8(bits * 255)[..., None], np.where(np.uint8(bits * 255) == key, 0, 255)
    palette = Image.fromarray(noise(6, 7) % 4, "P")
    palette.putpalette(noise(4, 3).reshape(-1).tolist())
    stored = np.asarray(palette.convert("RGB"))
    yield "P key", encoded(palette, transparency=2), stored, np.where(np.asarray(palette) == 2, 0, 255)
    steps = bytes([0, 255, 128, 30])
    yield "P alpha", encoded(palette, transparency=steps), stored, np.frombuffer(steps, np.uint8)[np.asarray(palette)]
    yield "GIF", encoded(palette, "GIF", transparency=2), stored, np.where(np.asarray(palette) == 2, 0, 255)


PICTURES = list(transparent_pictures())


@pytest.mark.parametrize("case", PICTURES, ids=[case[0] for case in PICTURES])
def test_display_lays_on_white_and_reference_drops_transparency(case):
    _, file, stored, alpha = case
    alpha = alpha[..., None] / 255
    expected = stored * alpha + 255 * (1 - alpha)
    found = decode(file, "display")
    assert found.mode == ("L" if stored.shape[-1] == 1 else "RGB")
    pixels = np.asarray(found).reshape(*stored.shape)
    np.testing.assert_allclose(pixels, expected, atol=0.51)
    reference = decode(file, "reference")
    with Image.open(io.BytesIO(file)) as image:
        if not image.mode.startswith("I"):  # which PIL clips
            np.testing.assert_array_equal(np.asarray(reference.convert("RGB")), np.asarray(image.convert("RGB")))
    with Image.open(io.BytesIO(file)) as image:  # as an object of the user
        image.load()
        before = image.mode, dict(image.info)
        np.testing.assert_array_equal(np.asarray(picture.convert(image, "display")), np.asarray(found))
        assert (image.mode, image.info) == before


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_display_turns_upright_and_reference_does_not(orientation, file_format):
    file = with_orientation(Image.fromarray(noise(9, 11, 3)), file_format, orientation)
    with Image.open(io.BytesIO(file)) as image:
        stored, upright = np.asarray(image.convert("RGB")), ImageOps.exif_transpose(image).convert("RGB")
    found = decode(file, "display")
    np.testing.assert_array_equal(np.asarray(found), np.asarray(upright))
    np.testing.assert_array_equal(np.asarray(decode(file)), stored)
    for image in (found, decode(file), Image.open(io.BytesIO(file))):  # never twice, never after the reference's
        once = picture.convert(image, "display")
        np.testing.assert_array_equal(np.asarray(picture.convert(once, "display")), np.asarray(once))
        assert image is not found or once.size == found.size
    np.testing.assert_array_equal(np.asarray(picture.convert(decode(file), "display")), stored)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
def test_the_size_that_is_told_is_that_of_the_decoded_picture(orientation, file_format):
    file = with_orientation(Image.fromarray(noise(9, 11, 3)), file_format, orientation)
    for conversion in picture.CONVERSIONS:
        found = decode(file, conversion)
        with Image.open(io.BytesIO(file)) as image:
            assert picture.displayed_size(image, conversion) == found.size[::-1]
            image.load()
            assert picture.displayed_size(image, conversion) == found.size[::-1]


def test_orientation_and_transparency_go_together():
    pixels = noise(5, 8, 4)
    found = np.asarray(decode(with_orientation(Image.fromarray(pixels), "PNG", 6), "display"))
    plain = np.asarray(decode(encoded(Image.fromarray(pixels)), "display"))
    np.testing.assert_array_equal(found, np.rot90(plain, -1))
    keyed = Image.fromarray(pixels[..., 0])
    exif = Image.Exif()
    exif[0x0112] = 8
    file = encoded(keyed, transparency=int(pixels[1, 2, 0]), exif=exif)
    plain = np.asarray(decode(encoded(keyed, transparency=int(pixels[1, 2, 0])), "display"))
    np.testing.assert_array_equal(np.asarray(decode(file, "display")), np.rot90(plain))


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0" + bytes(range(200)), b"nonsense"])
def test_damaged_exif_tells_nothing(exif):
    image = Image.fromarray(noise(9, 11, 3))
    assert decode(encoded(image, "JPEG", exif=exif), "display").size == (11, 9)


def test_an_unknown_conversion_is_refused():
    with pytest.raises(UserError, match="conversion='displayed' must be 'reference' or 'display'; did you mean"):
        decode(encoded(Image.fromarray(noise(2, 2, 3))), "displayed")


# --- Limits


def png_header(width, height):
    """A PNG that claims a size and has no pixels to speak of."""

    def chunk(kind, data):
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    head = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 1), (13_378, 13_378), (30_000, 6_000)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("was decoded"))
    with pytest.raises(UnreadableError, match="pixels"):
        decode(png_header(*size))


def test_limits_are_adjustable_and_checked():
    file = encoded(Image.fromarray(noise(20, 30, 3)))
    assert decode(file, limits=Limits(pixels=600)).size == (30, 20)
    with pytest.raises(UnreadableError, match="30 x 20 pixels, more than the limit of 599"):
        decode(file, limits=Limits(pixels=599))
    with pytest.raises(UnreadableError, match="bytes, more than the limit of 100"):
        decode(file, limits=Limits(bytes=100))
    for wrong in (0, -1, 1.5, True, "9"):
        with pytest.raises(UserError, match="pixels=.* must be a whole number, at least 1"):
            Limits(pixels=wrong)


def with_scans(data, count):
    """A progressive JPEG whose last scan is repeated."""
    begin = data.rindex(b"\xff\xda")
    return data[:begin] + data[begin:-2] * count + data[-2:]


@pytest.mark.parametrize("thumbnail", [False, True])
def test_scans_of_a_jpeg_are_counted(thumbnail):
    image, options = Image.fromarray(noise(64, 48, 3)), {}
    progressive = encoded(image, "JPEG", progressive=True)
    if thumbnail:  # a JPEG in a segment, and one behind the picture: not of this one
        options["comment"] = encoded(image, "JPEG", progressive=True)[:60_000]
    file = encoded(image, "JPEG", progressive=True, **options)
    file += bytes.fromhex("ffda0008") * 500
    assert picture.count_scans(file) == picture.count_scans(progressive) == 10
    assert decode(file).size == (48, 64)
    for wrapped in (with_scans(progressive, 1000), with_scans(progressive, 92) + b"\0" * 99):
        with pytest.raises(UnreadableError, match="scans of 48 x 64 pixels, more than the limit of 100"):
            decode(wrapped)
    assert decode(with_scans(progressive, 50), limits=Limits(scans=60)).size == (48, 64)
    with pytest.raises(UnreadableError, match="scans"):
        decode(progressive, limits=Limits(scanned_pixels=10 * 64 * 48 - 1))
    for plain in (encoded(image, "JPEG"), encoded(image.convert("L"), "JPEG"), encoded(image.convert("CMYK"), "JPEG")):
        assert picture.count_scans(plain) == 1


def test_comments_of_a_picture_in_digits_are_counted():
    """PIL takes a minute for 4.8 MB of them."""
    head, pixel = b"P3\n300 200\n255\n", b"1 #\n"
    with pytest.raises(UnreadableError, match="180000 comments, more than the limit of 1000"):
        decode(head + 180_000 * pixel)
    assert decode(head + 900 * pixel + 179_100 * b"1 ").size == (300, 200)


@pytest.mark.parametrize("filler", ["ff", "ff01", "fffe0002", "ffda", "00", "ffc20003"])
def test_counting_scans_of_hostile_bytes_ends(filler):
    assert picture.count_scans(bytes.fromhex("ffd8" + filler * (2**21 // len(filler)))) <= 2**20


def test_a_pipe_a_folder_and_a_device_are_no_pictures(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for path in (tmp_path / "pipe.jpg", tmp_path, "/dev/zero", "/dev/null"):
        with pytest.raises(UnreadableError, match="this is (not a regular file|a folder)"):
            decode(path)
    for path in (tmp_path / "missing.jpg", tmp_path / "loop.jpg", "a\0b.jpg"):
        with pytest.raises(UnreadableError):
            decode(path)


def test_exif_in_thousands_of_parts_is_refused_before_it_is_joined(monkeypatch):
    """PIL joins them one by one, which takes the square of their number."""
    file = encoded(Image.fromarray(noise(8, 8, 3)), "JPEG")
    part = b"\xff\xe1\x00\x0cExif\0\0abcd"
    assert decode(file[:2] + part * 20 + file[2:]).size == (8, 8)
    monkeypatch.setattr("PIL.Image.open", lambda *args, **kwargs: pytest.fail("was opened"))
    with pytest.raises(UnreadableError, match="300000 parts of Exif, more than the limit of 100"):
        decode(file[:2] + part * 300_000 + file[2:])
