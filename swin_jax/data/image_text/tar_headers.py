"""The places of the members of an uncompressed tar, by its headers alone.

The walk only goes forward and never past the end of the file, whatever the headers say; Python
3.11's tarfile goes back by a negative size and then reads the same headers forever. Formats:
ustar, GNU and pax, as tarfile reads them.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from swin_jax.core.output.text import quoted

BLOCK = tarfile.BLOCKSIZE
_MAX_EXTRA = 2**20  # bytes of a long name or of pax records
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_WITHOUT_DATA = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class DamagedTarError(Exception):
    """A tar cannot be read from some place on; the message continues 'FILE ...'."""


@dataclass(frozen=True)
class Member:
    """A member of a tar.

    Attributes:
        name: Path of the member.
        kind: 'file', 'folder', or 'special' for links, sparse files, devices and what else has no
            plain bytes.
        offset: Start of its first header, in bytes.
        start: Start of its content.
        size: Number of its bytes.
        end: Start of the next header.
    """

    name: str
    kind: str
    offset: int
    start: int
    size: int
    end: int


def members(file: BinaryIO, size: int) -> Iterator[Member]:
    """Yields the members in order.

    Args:
        file: A file opened for reading.
        size: Size of the file in bytes.

    Raises:
        DamagedTarError: What follows the members that were yielded is damaged, cut off, or behind
            the end mark.
    """
    offset = 0
    while (member := read_member(file, offset, size)) is not None:
        yield member
        offset = member.end
    file.seek(offset + 2 * BLOCK)
    if file.read(20 * BLOCK).strip(b"\0"):
        place = f"after its end mark at byte {offset}"
        raise DamagedTarError(f"continues {place}, as joined tars do, which is not supported")


def read_member(file: BinaryIO, offset: int, size: int) -> Member | None:
    """The member whose first header begins at `offset`; None where the end mark is.
    Arguments and errors: `members`.
    """
    place, name, records = offset, None, {}
    while True:
        header = _header(file, place)
        if header is None:
            return None
        start = place + BLOCK
        if header.type not in (*_LONG, *_PAX, tarfile.XGLTYPE):
            break
        extra = _extra(file, start, header.size, size)
        if header.type == tarfile.GNUTYPE_LONGNAME:
            name = extra.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        elif header.type in _PAX:
            records = _pax(extra, place)
        elif header.type == tarfile.XGLTYPE and {b"path", b"size"} & _pax(extra, place).keys():
            raise DamagedTarError(
                f"has names or sizes for all members at byte {place}, which no writer makes"
            )
        place = _after(start, header.size)
    sparse = header.type == tarfile.GNUTYPE_SPARSE
    if sparse and header.buf[482]:
        start = _after_sparse_map(file, start, size)
    name = records.get(b"path", b"").decode("utf-8", "surrogateescape") or name or header.name
    length = _size(records, header.size, place)
    end = start if header.type in _WITHOUT_DATA else _after(start, length)
    if end > start and start + length > size:
        raise DamagedTarError(f"ends inside of its member {quoted(name)}")
    if header.type in _REGULAR:
        kind = "file"
    elif header.type == tarfile.DIRTYPE:
        kind = "folder"
    else:
        kind = "special"
    if sparse or any(key.startswith(b"GNU.sparse") for key in records):
        kind = "special"
    return Member(name, kind, offset, start, length, end)


@dataclass(frozen=True)
class _Header:
    buf: bytes
    type: bytes
    name: str
    size: int


def _header(file: BinaryIO, offset: int) -> _Header | None:
    """The header block at `offset`; None for the end mark of two empty blocks."""
    file.seek(offset)
    block = file.read(BLOCK)
    if not block.strip(b"\0"):
        block += file.read(BLOCK)
        if len(block) < 2 * BLOCK or block.strip(b"\0"):
            raise DamagedTarError("ends without its end mark, it is probably truncated")
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TruncatedHeaderError:
        raise DamagedTarError("ends without its end mark, it is probably truncated") from None
    except tarfile.HeaderError as error:
        raise DamagedTarError(f"is damaged at byte {offset} ({error})") from error
    if info.size < 0:
        raise DamagedTarError(f"is damaged at byte {offset} (a size of {info.size})")
    return _Header(block, info.type, info.name, info.size)


def _extra(file: BinaryIO, start: int, length: int, size: int) -> bytes:
    """The bytes of a long name or of pax records."""
    if length > _MAX_EXTRA or start + length > size:
        raise DamagedTarError(
            f"is damaged at byte {start} (a name or attributes of {length:,} bytes)"
        )
    file.seek(start)
    return file.read(length)


def _pax(data: bytes, offset: int) -> dict[bytes, bytes]:
    """The records 'LENGTH key=value' of a pax header."""
    found, place = {}, 0
    while place < len(data):
        digits, space, _ = data[place : place + 9].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = data[place + len(digits) + 1 : place + length]
        if not space or not record.endswith(b"\n") or place + length > len(data):
            raise DamagedTarError(f"is damaged at byte {offset} (attributes)")
        key, _, value = record[:-1].partition(b"=")
        found[key] = value
        place += length
    return found


def _size(records: dict[bytes, bytes], size: int, offset: int) -> int:
    text = records.get(b"size")
    if text is None:
        return size
    if not text.isdigit() or len(text) > 19:
        raise DamagedTarError(f"is damaged at byte {offset} (a size of {text[:20]!r})")
    return int(text)


def _after(start: int, length: int) -> int:
    return start + -(-length // BLOCK) * BLOCK


def _after_sparse_map(file: BinaryIO, start: int, size: int) -> int:
    """The start of a sparse file's content: behind the blocks that continue its map."""
    more = True
    while more:
        if start + BLOCK > size:
            raise DamagedTarError("ends inside of the map of a sparse file")
        file.seek(start)
        more = bool(file.read(BLOCK)[504])
        start += BLOCK
    return start
