"""The sizes that an MP4 or QuickTime file announces, read before FFmpeg makes room for them.

Eight bytes of an MP4 announce a billion frames of one size, and twelve that all of them are played
once more; FFmpeg fills a table of them when it opens the file. Reference: ISO/IEC 14496-12 (8.6.1,
8.6.6, 8.7.3, 8.7.5, 8.8.8).
"""

import io
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from swin_jax.core.errors import UnreadableError
from swin_jax.data.video.boxes import FIRST, INNER, Box, boxes, read
from swin_jax.data.video.tags import check_tags

_COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}  # where a count of samples stands
_BYTES_OF_EDIT = 12
_CHUNKS = (b"stco", b"co64")
_USUAL_EDITS = 2  # a wait and all of the film
_SAMPLES_A_BYTE = 2  # of sound; IMA ADPCM has 64 in 34 bytes


def check_announced(file: str | os.PathLike | bytes, max_frames: int) -> None:
    """Raises UnreadableError where a path is not a file, or announces too many samples or tags.

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
    check_tags(file, size)
    if read(file, 0, 8)[4:] not in FIRST:
        return
    in_fragments = 0
    for kind, start, end in boxes(file, 0, size):
        if kind == b"moov":
            for track in boxes(file, start, end):
                if track[0] == b"trak":
                    _check_track(file, track, size, max_frames)
        elif kind == b"moof":
            in_fragments += sum(_count(file, box) for box in _inside(file, (kind, start, end)))
            if in_fragments > _SAMPLES_A_BYTE * size:
                raise UnreadableError(f"announces {in_fragments} samples in {size} bytes")


def _check_track(file: BinaryIO, track: Box, size: int, max_frames: int) -> None:
    parts = list(_inside(file, track))
    handlers = [read(file, start + 8, 4) for kind, start, _ in parts if kind == b"hdlr"]
    count = max((_count(file, box) for box in parts), default=0)
    if handlers != [b"soun"] and count > max_frames:
        raise UnreadableError(f"announces {count} frames, more than max_frames={max_frames}")
    if count > max(max_frames, _SAMPLES_A_BYTE * size):
        raise UnreadableError(f"announces {count} samples in {size} bytes")
    edits = max((_edits(file, box) for box in parts), default=0)
    if edits > _USUAL_EDITS:
        count = min(count, _parts_of_sound(file, parts, count)) if handlers == [b"soun"] else count
        if edits * count > max_frames:
            raise UnreadableError(
                f"announces {edits} edits of {count} samples, more than max_frames={max_frames}"
            )


def _edits(file: BinaryIO, box: Box) -> int:
    """The entries of an edit list, as far as there is room for them."""
    kind, start, end = box
    if kind != b"elst":
        return 0
    announced = int.from_bytes(read(file, start + 4, 4), "big")
    return min(announced, max(end - start - 8, 0) // _BYTES_OF_EDIT)


def _parts_of_sound(file: BinaryIO, parts: list[Box], count: int) -> int:
    """The number of parts that FFmpeg makes of sound whose samples are all of one tick:
    one of 1024, and one for each chunk.
    """
    times = [read(file, start + 4, 12) for kind, start, _ in parts if kind == b"stts"]
    if len(times) != 1 or times[0][:4] != b"\0\0\0\1" or times[0][8:] != b"\0\0\0\1":
        return count
    chunks = [
        int.from_bytes(read(file, start + 4, 4), "big")
        for kind, start, _ in parts
        if kind in _CHUNKS
    ]
    return count // 1024 + max(chunks, default=0)


def _inside(file: BinaryIO, box: Box) -> Iterator[Box]:
    """The boxes at any depth of a track or fragment."""
    todo = [box]
    while todo:
        for inner in boxes(file, *todo.pop()[1:]):
            yield inner
            if inner[0] in INNER:
                todo.append(inner)


def _count(file: BinaryIO, box: Box) -> int:
    kind, start, _ = box
    return int.from_bytes(read(file, start + _COUNTS[kind], 4), "big") if kind in _COUNTS else 0
