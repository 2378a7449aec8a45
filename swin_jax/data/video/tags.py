"""The number of tags in a video, counted before FFmpeg reads them.

FFmpeg looks through all tags for each new one: 10,000 take a second, 90,000 in 4 MB minutes.
"""

from collections.abc import Iterator
from typing import BinaryIO

from swin_jax.core.errors import UnreadableError
from swin_jax.data.video.boxes import FIRST, INNER, boxes, read

MAX_TAGS = 10_000
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"

_AROUND = (b"moov", b"trak", b"moof", *INNER)
_HOLDS_TAGS = (b"udta", b"meta", b"ilst")
_SEEK_HEAD, _CLUSTER = b"\x11\x4d\x9b\x74", b"\x1f\x43\xb6\x75"
_SEEK_POSITION = b"\x53\xac"
# By the element that holds them: tags, and chapters, which FFmpeg compares in the same way.
_COUNTED = {b"\x12\x54\xc3\x67": b"\x67\xc8", b"\x10\x43\xa7\x70": b"\xb6"}
_PIECE = 2**20
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_EXTENSION = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")
_ASF_TAGS = tuple(
    map(
        bytes.fromhex,
        (
            "40a4d0d207e3d21197f000a0c95ea850",
            "941c23449894d149a1411d134e457054",
            "eacbf8c5af5b48778467aa8c44fa4cca",
        ),
    )
)
_SCRIPT = 18  # the type of an FLV tag that holds named values
_AMF_BYTES = {0: 8, 1: 1, 5: 0, 6: 0, 7: 2, 11: 10}  # of values, by their type
_COMMENTS = (b"\x81theora", b"\x03vorbis", b"OpusTags", b"OVP80\x02 ")
_HEADERS_OF_OGG = 3  # packets of a stream before its frames


def check_tags(file: BinaryIO, size: int) -> None:
    """Raises UnreadableError where a video has more than MAX_TAGS.

    Args:
        file: A file that is open for reading bytes.
        size: Number of bytes in the file.
    """
    count = 0
    for more in _tags(file, size):
        count += more
        if count > MAX_TAGS:
            raise UnreadableError(f"has more than {MAX_TAGS} tags")


def ebml_size(head: bytes, position: int) -> tuple[int | None, int]:
    """Reads a size of variable length: (bytes or None for unknown, position behind it)."""
    width = 9 - head[position].bit_length() if position < len(head) and head[position] else 8
    value = int.from_bytes(head[position : position + width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), position + width


def _tags(file: BinaryIO, size: int) -> Iterator[int]:
    """The number of tags in each part of a file."""
    start = 0
    head = read(file, start, 16)
    if head.startswith(b"ID3"):  # before any other format
        start = 10 + _seven_bits(head[6:10])
        yield from _of_id3(file, min(start, size), head[3])
        head = read(file, start, 16)
    if head[4:8] in FIRST:
        yield from _of_boxes(file, start, size)
    elif head.startswith(EBML):
        yield from _of_matroska(file, start, size)
    elif head.startswith(b"RIFF"):
        yield from _of_riff(file, start, size)
    elif head == _ASF:
        yield from _of_asf(file, start + 30, size)
    elif head.startswith(b"FLV"):
        yield from _of_flv(file, start, size)
    elif head.startswith(b"OggS"):
        yield from _of_ogg(file, start, size)


def _of_boxes(file: BinaryIO, start: int, end: int) -> Iterator[int]:
    todo = [(b"", start, end)]
    while todo:
        kind, start, end = todo.pop()
        # A version stands before the boxes, but not in QuickTime's files.
        start += 4 if kind == b"meta" and read(file, start, 4) == bytes(4) else 0
        for box in boxes(file, start, end):
            yield kind in _HOLDS_TAGS
            if box[0] in (*_AROUND, *_HOLDS_TAGS):
                todo.append(box)


def _of_matroska(file: BinaryIO, start: int, size: int) -> Iterator[int]:
    """Counts the tags of the elements before the first cluster,
    and of those that a table of contents names.
    """
    segment, todo = 0, []
    while start < size:
        name, length, content = _element(file, start)
        if not name or name == _CLUSTER:
            break
        if name == SEGMENT:
            segment, start = content, content
            continue
        todo.append(start)
        if length is None:
            break
        start = content + length
    done = set()
    while todo:
        position = todo.pop()
        if position in done or position >= size:
            continue
        done.add(position)
        name, length, content = _element(file, position)
        end = size if length is None else min(content + length, size)
        if name in _COUNTED:
            for at in range(content, end, _PIECE):
                yield read(file, at, min(_PIECE, end - at)).count(_COUNTED[name])
        elif name == _SEEK_HEAD:
            todo += [segment + place for place in _places(read(file, content, end - content))]


def _element(file: BinaryIO, position: int) -> tuple[bytes, int | None, int]:
    """The name, '' if that is invalid, the size, None for unknown, and the start of an element."""
    head = read(file, position, 16)
    width = 9 - head[0].bit_length() if head else 9
    if width > 4:
        return b"", None, position
    length, after = ebml_size(head, width)
    return head[:width], length, position + after


def _places(content: bytes) -> Iterator[int]:
    """The positions in a table of contents."""
    at = content.find(_SEEK_POSITION)
    while at >= 0:
        length, start = ebml_size(content, at + 2)
        yield int.from_bytes(content[start : start + min(length or 0, 8)], "big")
        at = content.find(_SEEK_POSITION, at + 2)


def _of_riff(file: BinaryIO, start: int, size: int) -> Iterator[int]:
    """Counts tags as FFmpeg reads them: lists end nowhere, but for those of tags and of frames."""
    listed = start
    while start + 8 <= size:
        head = read(file, start, 12)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] in (b"RIFF", b"LIST") and head[8:] == b"INFO":
            listed, start = start + 8 + length, start + 12
        elif head[:4] in (b"RIFF", b"LIST") and head[8:] != b"movi":
            start += 12
        else:
            yield start < listed
            start += 8 + length + length % 2


def _of_asf(file: BinaryIO, start: int, size: int) -> Iterator[int]:
    while start + 24 <= size:
        head = read(file, start, 26)
        length = int.from_bytes(head[16:24], "little")
        if head[:16] in _ASF_TAGS:
            yield int.from_bytes(head[24:], "little")
        if head[:16] == _ASF_EXTENSION:
            start += 46
        elif length < 24:
            return
        else:
            start += length


def _of_flv(file: BinaryIO, start: int, size: int) -> Iterator[int]:
    start += int.from_bytes(read(file, start + 5, 4), "big") + 4
    while start + 11 <= size:
        head = read(file, start, 4)
        length = int.from_bytes(head[1:], "big")
        if head[0] & 0x1F == _SCRIPT:
            yield _names(read(file, start + 11, length))
        start += 11 + length + 4


def _names(data: bytes) -> int:
    """The number of values that have a name in a script of FLV, at any depth (AMF 0)."""
    position, count = 0, 0
    rest: list[int] = []  # values left in each list around a position; -1 where they have names
    while position < len(data):
        if rest and not rest[-1]:
            rest.pop()
            continue
        if rest and rest[-1] < 0:
            length = int.from_bytes(data[position : position + 2], "big")
            position += 2 + length
            if not length:
                position += data[position : position + 1] == b"\x09"
                rest.pop()
                continue
            count += 1
        elif rest:
            rest[-1] -= 1
        kind = data[position] if position < len(data) else 0
        number = int.from_bytes(data[position + 1 : position + 5], "big")
        position += 1
        if kind == 2:
            position += 2 + (number >> 16)
        elif kind in (3, 8):
            position += 4 * (kind == 8)
            rest.append(-1)
        elif kind == 10:
            position += 4
            rest.append(number)
        elif kind == 12:
            position += 4 + number
        else:
            position += _AMF_BYTES.get(kind, 0)
    return count


def _of_ogg(file: BinaryIO, start: int, size: int) -> Iterator[int]:
    """Counts the tags of the first packets of each stream."""
    packets: dict[bytes, list[bytes]] = {}
    while start + 27 <= size:
        head = read(file, start, 27)
        lengths = read(file, start + 27, head[26])
        found = packets.setdefault(head[14:18], [b""])
        start += 27 + head[26]
        for length in lengths if head[:4] == b"OggS" else ():
            if len(found) <= _HEADERS_OF_OGG:
                found[-1] += read(file, start, length)
                if length < 255:
                    yield _comments(found[-1])
                    found.append(b"")
            start += length
        if all(len(each) > _HEADERS_OF_OGG for each in packets.values()):
            return


def _comments(packet: bytes) -> int:
    """The number of comments in a header of a stream (of Vorbis; Theora and Opus have the same)."""
    for first in _COMMENTS:
        if packet.startswith(first):
            vendor = int.from_bytes(packet[len(first) : len(first) + 4], "little")
            start = len(first) + 4 + vendor
            return min(int.from_bytes(packet[start : start + 4], "little"), len(packet) // 4)
    return 0


def _of_id3(file: BinaryIO, end: int, version: int) -> Iterator[int]:
    start, head = 10, 6 if version == 2 else 10
    while start + head <= end:
        frame = read(file, start, head)
        if not frame[0]:
            return
        if version == 2:
            length = int.from_bytes(frame[3:6], "big")
        else:
            length = _seven_bits(frame[4:8]) if version == 4 else int.from_bytes(frame[4:8], "big")
        yield 1
        start += head + length


def _seven_bits(data: bytes) -> int:
    """A number whose bytes hold seven bits each."""
    number = 0
    for byte in data:
        number = number << 7 | byte & 0x7F
    return number
