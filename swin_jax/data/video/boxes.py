"""The boxes that MP4 and QuickTime files are made of (ISO/IEC 14496-12, 4.2)."""

from collections.abc import Iterator
from typing import BinaryIO

# With which FFmpeg takes a file for one of these.
FIRST = (
    *(b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"sidx"),
    *(b"udta", b"uuid", b"junk", b"pict", b"ediw", b"prfl"),
)
# Boxes that hold others, within a track or fragment.
INNER = (b"mdia", b"minf", b"stbl", b"traf", b"edts")

Box = tuple[bytes, int, int]  # kind, start and end of its content


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """The boxes between two positions, one after the other; a size that cannot be ends them."""
    while start + 8 <= end:
        head = read(file, start, 16)
        size, content = int.from_bytes(head[:4], "big"), start + 8
        if size == 1:
            size, content = int.from_bytes(head[8:], "big"), start + 16
        last = start + size if size else end
        if last < content:
            return
        yield head[4:8], content, min(last, end)
        start = last


def read(file: BinaryIO, position: int, count: int) -> bytes:
    """Up to `count` bytes at a position."""
    file.seek(position)
    return file.read(count)
