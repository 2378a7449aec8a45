"""Headers of tars against tarfile, and tars made to harm: the walk always ends, inside of the file."""

import io
import re
import tarfile

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.data.image_text import tar_headers, tar_shards

BLOCK = tarfile.BLOCKSIZE


def header(name, size=0, kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def with_size(block, field):
    """The header block with these 12 bytes as its size, and the checksum that belongs to them."""
    block = bytearray(block)
    block[124:136] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data):
    return data + bytes(-len(data) % BLOCK)


def member(name, data):
    return header(name, len(data)) + padded(data)


PAIR = member("a.png", b"pixels") + member("a.txt", b"caption")
END = bytes(20 * BLOCK)


def found(data):
    """The members of a tar and the damage, '' for none."""
    members = []
    try:
        for item in tar_headers.members(io.BytesIO(data), len(data)):
            members.append(item)
    except tar_headers.DamagedTarError as error:
        return members, str(error)
    return members, ""


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_equal_to_tarfile(format):
    file, rng = io.BytesIO(), np.random.default_rng(0)
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for number, name in enumerate(("a.png", "é.txt", "d" * 90 + "/" + "f" * 90 + ".json", "g" * 300, "./h", "i/")):
            if format == tarfile.USTAR_FORMAT and len(name) > 200:
                continue
            info = tarfile.TarInfo(name)
            info.size = int(rng.integers(0, 3000))
            info.mtime = 1.5 * number
            if name.endswith("/"):
                info.type, info.size = tarfile.DIRTYPE, 0
            tar.addfile(info, io.BytesIO(rng.bytes(info.size)))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo("link")
            info.type, info.linkname = kind, "a.png" if format == tarfile.USTAR_FORMAT else "l" * 200
            tar.addfile(info)
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        expected = [(item.name, item.offset, item.offset_data, item.size, item.isfile(), item.isdir()) for item in tar]
    members, damage = found(file.getvalue())
    assert (
        not damage
        and [(m.name.rstrip("/"), m.offset, m.start, m.size, m.kind == "file", m.kind == "folder") for m in members]
        == expected
    )


def test_sizes_of_pax_records_hold():
    records = tarfile.TarInfo._create_pax_generic_header({"path": "b.png", "size": "6"}, tarfile.XHDTYPE, "utf-8")
    members, damage = found(records + with_size(header("x"), b"00000000000\0") + padded(b"pixels") + END)
    assert [(m.name, m.size) for m in members] == [("b.png", 6)] and not damage


NEGATIVE = {
    "octal": b"-1000\0\0\0\0\0\0\0",
    "base 256": b"\xff" * 10 + b"\xfe\x00",
    "of a whole number of blocks": b"-0000010000\0",
}
TOO_LONG = {"octal": b"77777777777\0", "base 256": b"\x80" + b"\xff" * 11, "by one": b"%011o\0" % (len(END) + 1)}
HOSTILE = {
    **{f"negative, {key}": (with_size(header("b.png"), field), "a size of -") for key, field in NEGATIVE.items()},
    **{f"too long, {key}": (with_size(header("b.png"), field), "ends inside") for key, field in TOO_LONG.items()},
    "a name of a gigabyte": (with_size(header("x", kind=tarfile.GNUTYPE_LONGNAME), b"07777777777\0"), "name or attr"),
    "a negative name": (with_size(header("x", kind=tarfile.GNUTYPE_LONGNAME), NEGATIVE["octal"]), "a size of -"),
    "long names without end": (header("x", kind=tarfile.GNUTYPE_LONGNAME) * 3000, "end mark|truncated|inside"),
    "a pax size that is negative": (
        tarfile.TarInfo._create_pax_generic_header({"size": "-512"}, tarfile.XHDTYPE, "utf-8") + header("b"),
        "a size of b'-512'",
    ),
    "a pax size of many digits": (
        tarfile.TarInfo._create_pax_generic_header({"size": "9" * 5000}, tarfile.XHDTYPE, "utf-8") + header("b"),
        "a size of b'999",
    ),
    "a pax record of length 0": (header("x", 11, tarfile.XHDTYPE) + padded(b"0 path=b.p\n"), "attributes"),
    "a pax record of a negative length": (header("x", 11, tarfile.XHDTYPE) + padded(b"-9 path=b.\n"), "attributes"),
    "a pax record that is too long": (header("x", 11, tarfile.XHDTYPE) + padded(b"99 path=b.\n"), "attributes"),
    "names for all members": (
        tarfile.TarInfo._create_pax_generic_header({"path": "b.png"}, tarfile.XGLTYPE, "utf-8"),
        "for all members",
    ),
    "a sparse map without end": (
        b"".join(
            [
                with_size(header("b", kind=tarfile.GNUTYPE_SPARSE)[:482] + b"\1" + bytes(29), b"0" * 11 + b"\0"),
                (bytes(504) + b"\1" + bytes(7)) * 50,
            ]
        ),
        "",
    ),
    "text": (b"not a header" * 100, "damaged at byte"),
    "a checksum that is wrong": (b"x" + header("b.png")[1:], "bad checksum"),
    "joined tars": (bytes(2 * BLOCK) + PAIR, "continues after its end mark"),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.timeout(10)
def test_the_walk_ends_and_keeps_what_comes_before(tmp_path, data, message):
    members, damage = found(PAIR + data + END)
    assert [m.name for m in members[:2]] == ["a.png", "a.txt"] and re.search(message, damage)
    assert all(0 <= m.offset < m.start <= m.start + m.size <= len(PAIR + data + END) for m in members)
    (tmp_path / "x.tar").write_bytes(PAIR + data + END)
    if damage:
        with pytest.warns(UserWarning, match="1 pairs of it are used"):
            source = tar_shards.tar_shards(str(tmp_path / "x.tar"))
    else:
        source = tar_shards.tar_shards(str(tmp_path / "x.tar"))
    assert source.record(0) == {"text": ("caption",)}


@pytest.mark.parametrize("data", [b"", b"x", bytes(300), header("b.png")[:200], b"\x1f\x8b\x08" + bytes(600)])
def test_what_is_no_tar_is_one_line(tmp_path, data):
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(UserError, match="is not an uncompressed tar [^\n]*$"):
        tar_shards.tar_shards(str(tmp_path / "x.tar"))


def test_bytes_of_any_kind_end(tmp_path):
    rng, whole = np.random.default_rng(1), bytearray(PAIR + END)
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(PAIR), 4):
            data[place] = rng.integers(256)
        members, _ = found(bytes(data))
        assert all(m.start + m.size <= len(data) or m.kind != "file" for m in members)


def test_a_tar_in_a_tar_is_a_file_like_others(tmp_path):
    (tmp_path / "x.tar").write_bytes(PAIR + member("inner.tar", member("b.png", b"x") + member("b.txt", b"y")) + END)
    with pytest.warns(UserWarning, match=r"1 pairs; left out: 1 other files \(inner.tar"):
        assert len(tar_shards.tar_shards(str(tmp_path / "x.tar"))) == 1
