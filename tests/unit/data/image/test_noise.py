"""Decoders of pictures write nothing to standard error, which a training would repeat at every reading."""

import io
import struct
import subprocess
import sys

import numpy as np
from PIL import Image

READ = """
import sys
from swin_jax.core.errors import UnreadableError
from swin_jax.data.image import picture
for path in sys.argv[1:]:
    try:
        print(picture.decode(path, "display").size)
    except UnreadableError as error:
        print(error)
"""


def damaged_tiff(compression):
    """A TIFF with wrong bytes in its strips."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    image, file = Image.fromarray(pixels), io.BytesIO()
    (image.convert("1") if compression == "group4" else image).save(file, "TIFF", compression=compression)
    data = bytearray(file.getvalue())
    for place in range(150, 230):
        data[place] ^= 0x5A
    return bytes(data)


def large_png():
    file = io.BytesIO()
    Image.new("1", (10_000, 9_000)).save(file, "PNG")
    return file.getvalue()


def with_damaged_exif():
    """A JPEG whose tags of EXIF lie beyond its end."""
    file = io.BytesIO()
    tags = struct.pack("<H", 3) + struct.pack("<HHII", 0x112, 5, 3, 90_000) * 3
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + tags)
    return file.getvalue()


def test_decoders_are_quiet(tmp_path):
    files = {f"{kind}.tif": damaged_tiff(kind) for kind in ("group4", "tiff_lzw")}
    files |= {"large.png": large_png(), "exif.jpg": with_damaged_exif()}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in files]
    found = subprocess.run([sys.executable, "-c", READ, *paths], capture_output=True, text=True, check=True)
    fax, lzw, large, exif = found.stdout.splitlines()
    assert (fax, large, exif) == ("(64, 64)", "(10000, 9000)", "(8, 8)") and "decode" in lzw
    assert found.stderr == ""
