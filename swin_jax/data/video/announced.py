"""What an MP4 or QuickTime file announces, read before FFmpeg makes room for it.

Eight bytes announce a billion frames of one size, and twelve that all of them are played once more;
FFmpeg fills a table of them when it opens the file. Reference: ISO/IEC 14496-12 (4.2, 8.6.1, 8.6.6,
8.7.3, 8.7.5, 8.8.8).
"""

import io
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from swin_jax.core.errors import UnreadableError

_FIRST = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"sidx")
# Boxes that hold others, within a track or fragment.
_INNER = (b"mdia", b"minf", b"stbl", b"traf", b"edts")
_COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}  # where a count of samples stands
_BYTES_OF_EDIT = 12
_CHUNKS = (b"stco", b"co64")
_USUAL_EDITS = 2  # a wait and all of the film
_SAMPLES_A_BYTE = 2  # of sound; IMA ADPCM has 64 in 34 bytes

_Box = tuple[bytes, int, int]  # kind, start and end of its content


def check_announced(file: str | os.PathLike | bytes, max_frames: int) -> None:
    """Raises UnreadableError where a path is no file, or boxes announce more samples than can be.

    Args:
        file: A path, or the bytes of a file.
        max_frames: The most samples of a track of video.
    """
    if isinstance(file, bytes):
        _check(io.BytesIO(file), len(file), max_frames)
        return
    status = os.stat(file)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableError("is not a file but a folder, a pipe or a device")
    with open(file, "rb") as opened:
        _check(opened, status.st_size, max_frames)


def _check(file: BinaryIO, size: int, max_frames: int) -> None:
    if file.read(8)[4:] not in _FIRST:
        return
    in_fragments = 0
    for kind, start, end in _boxes(file, 0, size):
        if kind == b"moov":
            for track in _boxes(file, start, end):
                if track[0] == b"trak":
                    _check_track(file, track, size, max_frames)
        elif kind == b"moof":
            in_fragments += sum(_count(file, box) for box in _inside(file, (kind, start, end)))
            if in_fragments > _SAMPLES_A_BYTE * size:
                raise UnreadableError(f"announces {in_fragments} samples in {size} bytes")


def _check_track(file: BinaryIO, track: _Box, size: int, max_frames: int) -> None:
    boxes = list(_inside(file, track))
    handlers = [_read(file, start + 8, 4) for kind, start, _ in boxes if kind == b"hdlr"]
    count = max((_count(file, box) for box in boxes), default=0)
    if handlers != [b"soun"] and count > max_frames:
        raise UnreadableError(f"announces {count} frames, more than max_frames={max_frames}")
    if count > max(max_frames, _SAMPLES_A_BYTE * size):
        raise UnreadableError(f"announces {count} samples in {size} bytes")
    edits = max((_edits(file, box) for box in boxes), default=0)
    if edits > _USUAL_EDITS:
        count = min(count, _parts_of_sound(file, boxes, count)) if handlers == [b"soun"] else count
        if edits * count > max_frames:
            raise UnreadableError(
                f"announces {edits} edits of {count} samples, more than max_frames={max_frames}"
            )


def _edits(file: BinaryIO, box: _Box) -> int:
    """The entries of an edit list, as far as there is room for them."""
    kind, start, end = box
    if kind != b"elst":
        return 0
    announced = int.from_bytes(_read(file, start + 4, 4), "big")
    return min(announced, max(end - start - 8, 0) // _BYTES_OF_EDIT)


def _parts_of_sound(file: BinaryIO, boxes: list[_Box], count: int) -> int:
    """How many parts FFmpeg makes of sound whose samples are all of one tick:
    one of 1024, and one for each chunk.
    """
    times = [_read(file, start + 4, 12) for kind, start, _ in boxes if kind == b"stts"]
    if len(times) != 1 or times[0][:4] != b"\0\0\0\1" or times[0][8:] != b"\0\0\0\1":
        return count
    chunks = [
        int.from_bytes(_read(file, start + 4, 4), "big")
        for kind, start, _ in boxes
        if kind in _CHUNKS
    ]
    return count // 1024 + max(chunks, default=0)


def _inside(file: BinaryIO, box: _Box) -> Iterator[_Box]:
    """The boxes at any depth of a track or fragment."""
    todo = [box]
    while todo:
        for inner in _boxes(file, *todo.pop()[1:]):
            yield inner
            if inner[0] in _INNER:
                todo.append(inner)


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    """The boxes between two positions, one after the other; a size that cannot be ends them."""
    while start + 8 <= end:
        head = _read(file, start, 16)
        size, content = int.from_bytes(head[:4], "big"), start + 8
        if size == 1:
            size, content = int.from_bytes(head[8:], "big"), start + 16
        last = start + size if size else end
        if last < content:
            return
        yield head[4:8], content, min(last, end)
        start = last


def _count(file: BinaryIO, box: _Box) -> int:
    kind, start, _ = box
    return int.from_bytes(_read(file, start + _COUNTS[kind], 4), "big") if kind in _COUNTS else 0


def _read(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)
