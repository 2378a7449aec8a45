"""TIFFs: their levels of gray, and files that ask for more than they hold."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UnreadableError
from swin_jax.data.image import picture
from swin_jax.data.image.picture import decode
from tests.unit.data.image.test_picture import encoded, noise


def tiff(compressed, tags):
    """A gray TIFF of 16 x 16 pixels whose pixels are `compressed`, with more or other tags, {number: value}."""
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1} | tags
    where = (324, 325) if 322 in tags else (273, 279)
    tags |= dict(zip(where, (8, len(compressed))))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    head = b"II*\0" + struct.pack("<I", 8 + len(compressed)) + compressed
    return head + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("conversion", picture.CONVERSIONS)
@pytest.mark.parametrize("bits, white_is_zero", [(8, False), (8, True), (12, False), (16, False), (16, True)])
def test_levels_of_a_tiff_are_those_that_it_stands_for(bits, white_is_zero, conversion):
    shown = np.array([[0, 50, 200, 255]])
    stored = (255 - shown if white_is_zero else shown) * ((2**bits - 1) / 255)
    rows = "".join(f"{round(value):0{bits}b}" for value in stored[0])  # 12 bits lie side by side
    packed = int(rows, 2).to_bytes(len(rows) // 8) if bits == 12 else stored.round().astype(f"<u{bits // 8}").tobytes()
    sizes = {256: 4, 257: 1, 258: bits, 259: 1, 262: int(not white_is_zero), 278: 1, 279: len(packed)}
    assert np.abs(np.asarray(decode(tiff(packed, sizes), conversion)).astype(int) - shown).max() <= 1


def test_tags_of_a_tiff_take_no_more_memory_than_the_file_has():
    """200 tags at the same 64 KiB: Pillow before 13 made 2,000 at 1 MiB to 4 GB of numbers."""
    size = 2**16
    own = {
        256: (3, 8),
        257: (3, 8),
        258: (3, 8),
        259: (3, 1),
        262: (3, 1),
        273: (4, 8),
        277: (3, 1),
        278: (3, 8),
        279: (4, 64),
    }
    tags = [struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in own.items()]
    tags += [struct.pack("<HHII", 40000 + i, 1, size, 8) for i in range(200)]
    data = struct.pack("<2sHI", b"II", 42, 72) + bytes(64) + struct.pack("<H", len(tags)) + b"".join(tags)
    tracemalloc.start()
    try:
        assert picture.decode(data + bytes(4 + size), "display").size == (8, 8)
        assert tracemalloc.get_traced_memory()[1] < 40 * size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "tags",
    [
        {322: 32_768, 323: 32_768},  # one tile of a gigabyte
        {322: 16, 323: 2**30},
        {256: 13_000, 257: 13_000},  # one strip, within the limit of pixels
        {256: 9000, 257: 9000, 258: 16, 278: 2**32 - 1},
    ],
)
@pytest.mark.parametrize(
    "method, pixels", [(8, zlib.compress(bytes(1000))), (5, b"\x80\x0b\x60\x50" * 50)], ids=["deflate", "lzw"]
)
def test_a_tiff_unpacks_no_more_at_once_than_its_bytes_can_hold(tags, method, pixels, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("was decoded"))
    with pytest.raises(UnreadableError, match="unpacks .* bytes at once"):
        decode(tiff(pixels, {**tags, 259: method}))


def test_whole_tiffs_are_within_the_limits():
    blank = zlib.compress(bytes(2000 * 2000))
    assert decode(tiff(blank, {256: 2000, 257: 2000, 278: 2000})).size == (2000, 2000)  # 4 kB
    assert decode(tiff(zlib.compress(bytes(256 * 256)), {322: 256, 323: 256})).size == (16, 16)
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4"):
        image = Image.fromarray(noise(40, 50, 3)).convert("1" if compression == "group4" else "RGB")
        assert decode(encoded(image, "TIFF", compression=compression)).size == (50, 40)
