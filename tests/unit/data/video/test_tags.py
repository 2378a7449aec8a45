"""Tags of videos are counted before FFmpeg compares each with all before it: 90,000 of them, 4 MB, took minutes."""

import io
import pathlib
import struct

import av
import pytest

from swin_jax.core.errors import UnreadableError
from swin_jax.data.video.decode import Reader
from swin_jax.data.video.scan import check_file
from swin_jax.data.video.tags import MAX_TAGS, check_tags
from tests.unit.data.video import video_files


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """films(suffix): the bytes of a small film."""
    folder = tmp_path_factory.mktemp("videos")
    return lambda suffix: pathlib.Path(video_files.make(folder / f"film.{suffix}", 4)).read_bytes()


def box(kind, content):
    return struct.pack(">I", len(content) + 8) + kind + content


def mp4(data, count, version=bytes(4)):
    """Tags behind the film, as iTunes writes them."""
    return data + box(b"udta", box(b"meta", version + box(b"ilst", box(b"----", b"") * (count - 2))))


def quicktime(data, count):
    """QuickTime's, before it, and a box of metadata without a version."""
    return box(b"udta", box(b"\xa9nam", b"") * (count - 2) + box(b"meta", box(b"\xa9nam", b""))) + data


def element(name, content):
    return name + struct.pack(">Q", len(content) | 1 << 56) + content


def tags_of_matroska(count):
    tag = element(b"\x67\xc8", element(b"\x45\xa3", b"a") + element(b"\x44\x87", b"b"))
    return element(b"\x12\x54\xc3\x67", element(b"\x73\x73", tag * count))


def without_tags(data):
    """A Matroska film without the tags of its writer, and where its segment begins."""
    assert data.count(b"\x67\xc8") < 20
    return data.replace(b"\x12\x54\xc3\x67", b"\x12\x54\xc3\x68"), data.index(b"\x18\x53\x80\x67") + 12


def matroska(data, count):
    """Tags before the first cluster, in a segment of unknown size."""
    data, segment = without_tags(data)
    return data[: segment - 8] + b"\x01" + b"\xff" * 7 + tags_of_matroska(count) + data[segment:]


def matroska_behind(data, count):
    """Tags behind the last cluster, which a table of contents names."""
    data, segment = without_tags(data)
    place = element(b"\x53\xab", b"\x12\x54\xc3\x67") + element(b"\x53\xac", bytes(8))
    content = element(b"\x11\x4d\x9b\x74", element(b"\x4d\xbb", place))
    position = len(content) + len(data) - segment
    content = content[:-8] + struct.pack(">Q", position)
    return data[: segment - 8] + b"\x01" + b"\xff" * 7 + content + data[segment:] + tags_of_matroska(count)


def chapters(data, count):
    data, segment = without_tags(data)
    atoms = element(b"\x45\xb9", element(b"\xb6", b"") * count)
    found = element(b"\x10\x43\xa7\x70", atoms)
    return data[: segment - 8] + b"\x01" + b"\xff" * 7 + found + data[segment:]


def avi(data, count, behind=False):
    """A list of tags inside the list of headers, or behind the frames."""
    start = data.index(b"LIST", 12)
    assert data[start + 8 : start + 12] == b"hdrl" and b"INFO" not in data[:start]
    data = data.replace(b"INFO", b"JUNK")
    found = b"INFO" + b"".join(b"%04d" % (index % 10_000) + bytes(4) for index in range(count))
    found = b"LIST" + struct.pack("<I", len(found)) + found
    return data + found if behind else data[: start + 12] + found + data[start + 12 :]


def asf(data, count):
    """Two objects of tags, one within the extension of the header."""
    described = bytes.fromhex("40a4d0d207e3d21197f000a0c95ea850")
    library = bytes.fromhex("941c23449894d149a1411d134e457054")
    extension = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")
    inner = library + struct.pack("<QH", 26, count - 6000)
    found = described + struct.pack("<QH", 26, 6000) + extension + struct.pack("<Q", 72) + bytes(22) + inner
    data = data.replace(described, bytes(16)).replace(library, bytes(16))
    return data[:30] + found + data[30:]


def flv(data, count):
    """Named values of every type, a list of numbers among them, which have no names."""
    values = [b"\0" + bytes(8), b"\1\0", b"\2\0\3abc", b"\5", b"\x0b" + bytes(10), b"\x0c\0\0\0\1a"]
    values += [b"\x0a\0\0\x40\0" + (b"\0" + bytes(8)) * 0x4000, b"\3\0\0\x09"]
    names = b"".join(b"\0\1a" + values[index % 8] for index in range(8)) + b"\0\1a\6" * (count - 8)
    script = b"\2\0\nonMetaData\x08\0\0\0\0" + names + b"\0\0\x09"
    tag = b"\x12" + struct.pack(">I", len(script))[1:] + bytes(7) + script + struct.pack(">I", len(script) + 11)
    start = data.index(b"\x12", 13)  # the writer's own tags are not metadata from here on
    return data[:13] + tag + data[13:start] + b"\x0f" + data[start + 1 :]


def ogg(data, count):
    """Comments of Theora, on several pages."""
    packet = b"\x81theora" + struct.pack("<I", 3) + b"abc" + struct.pack("<I", count)
    packet += (struct.pack("<I", 3) + b"a=b") * count
    packets, pages, flags = [b"\x80theora", packet], b"", 2
    for packet in packets:
        for start in range(0, len(packet) + 1, 255 * 255):
            piece = packet[start : start + 255 * 255]
            sizes = [255] * (len(piece) // 255) + [len(piece) % 255] * (len(piece) < 255 * 255)
            pages += b"OggS\0" + bytes([flags]) + bytes(8) + b"film" + bytes(8) + bytes([len(sizes), *sizes]) + piece
            flags = 0
    return pages


def id3(data, count):
    """Frames before another format."""
    frames = b"".join(b"TXXX" + struct.pack(">I", 1) + bytes(3) for _ in range(count))
    size = len(frames)
    sizes = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + sizes + frames + data


FORMS = {
    "mp4": ("mp4", mp4),
    "mp4 by QuickTime": ("mp4", lambda data, count: mp4(data, count, b"")),
    "mov": ("mov", quicktime),
    "mkv": ("mkv", matroska),
    "mkv, behind": ("mkv", matroska_behind),
    "chapters": ("mkv", chapters),
    "avi": ("avi", avi),
    "avi, behind": ("avi", lambda data, count: avi(data, count, behind=True)),
    "asf": ("asf", asf),
    "flv": ("flv", flv),
    "ogg": ("mp4", ogg),
    "id3": ("mp4", id3),
}


@pytest.mark.parametrize("form", FORMS)
def test_tags_are_counted(form, films):
    suffix, make = FORMS[form]
    data = films(suffix)
    check_tags(io.BytesIO(data), len(data))
    many = make(data, MAX_TAGS + 1)
    with pytest.raises(UnreadableError, match=f"has more than {MAX_TAGS} tags"):
        check_tags(io.BytesIO(many), len(many))
    most = make(data, MAX_TAGS - 20)  # the writer has left some of its own
    check_tags(io.BytesIO(most), len(most))


@pytest.mark.parametrize("form", ["mp4", "mkv, behind", "avi"])
def test_a_video_with_too_many_tags_is_unreadable(form, films, tmp_path, monkeypatch):
    suffix, make = FORMS[form]
    path, data = tmp_path / f"film.{suffix}", films(suffix)
    path.write_bytes(make(data, 20))
    assert Reader(path).get([0]).shape[0] == 1  # what was made by hand is still a film
    path.write_bytes(make(data, MAX_TAGS + 1))
    monkeypatch.setattr(av, "open", lambda *_, **__: pytest.fail("opened"))
    for file in (path, path.read_bytes()):
        with pytest.raises(UnreadableError, match="tags"):
            Reader(file).get([0])
    assert "tags" in check_file(str(path))["problem"]


@pytest.mark.parametrize(
    "head", [b"\0\0\0\x08moov", b"\x1a\x45\xdf\xa3", b"RIFF", b"FLV\1\5\0\0\0\x09", b"OggS", b"ID3\4"]
)
@pytest.mark.parametrize("rest", [b"", b"\0", b"\xff" * 40, bytes(100), b"\x01" * 300])
def test_what_is_torn_has_no_tags(head, rest):
    """It is FFmpeg that says what is wrong with it."""
    check_tags(io.BytesIO(head + rest), len(head + rest))
