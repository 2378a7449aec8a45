"""Files that are made to harm, a few megabytes at most: one line, and no more memory than allowed."""

import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.pretrained.files import limits, pickles
from swin_jax.pretrained.files.read import read

MEGABYTE = 2**20
PROTO = b"\x80\x02"
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"


def refused(path, megabytes=0, **arguments) -> str:
    """The one line that a file is refused with, having taken no more memory than that if it is given."""
    if megabytes:
        tracemalloc.start()
    try:
        with pytest.raises(UserError) as error:
            read(path, **arguments)
        assert not megabytes or tracemalloc.get_traced_memory()[1] < megabytes * MEGABYTE
    finally:
        tracemalloc.stop()
    text = str(error.value)
    assert "\n" not in text and len(text) < 900 and text.startswith(str(path))
    return text


def save_zip(path, payload: bytes, script=False, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", payload)
        for name, data in members.items():
            archive.writestr(f"a/data/{name}", data)
        if script:
            archive.writestr("a/constants.pkl", b"")
    return path


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def tensor(size: bytes, stride: bytes, offset=b"K\x00", storage=STORAGE) -> bytes:
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + size + stride + b"\x89NtR"


DOUBLED = b"K\x01" + b"2\x86" * 60  # x = (x, x), sixty times
DEEP = b")" + b"\x85" * 200_000
PICKLES = {
    "memo index": PROTO + b"Nr" + struct.pack("<I", 250_000_000) + b".",
    "memo index as text": b"Np250000000\n.",
    "memo index of many digits": b"Np" + b"9" * 5000 + b"\n.",
    "holds itself": PROTO + b"}q\x00" + text("model") + b"h\x00s.",
    "holds itself under two names": PROTO + b"}q\x00(" + text("model") + b"h\x00" + text("module") + b"h\x00u.",
    "doubled tuples": PROTO + b"}" + text("model") + DOUBLED + b"s.",
    "doubled tuples at the top": PROTO + DOUBLED + b".",
    "doubled tuples as a key": PROTO + b"}" + DOUBLED + b"K\x01s.",
    "doubled tuples in a set": b"\x80\x04\x8f(" + DOUBLED + b"\x90.",
    "doubled tuples in a frozenset": b"\x80\x04(" + DOUBLED + b"\x91.",
    "doubled tuples in set()": PROTO + b"cbuiltins\nset\n(]" + DOUBLED + b"atR.",
    "doubled tuples in an OrderedDict": PROTO + b"ccollections\nOrderedDict\n(]" + DOUBLED + b"K\x01\x86atR.",
    "doubled tuples as a storage": PROTO + b"(" + DOUBLED * 5 + b"tQ.",
    "doubled tuples as a storage's dtype": PROTO + b"(" + text("storage") + DOUBLED * 4 + b"tQ.",
    "doubled tuples as a size": PROTO + b"}" + text("a") + tensor(DOUBLED, DOUBLED, DOUBLED) + b"s.",
    "deep tuples as a key": PROTO + b"}" + DEEP + b"K\x01s.",
    "deep lists": PROTO + b"]" * 100_000 + b"a" * 99_999 + b".",
    "keys of one hash": PROTO + b"}(" + b"".join(
        b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N" for k in range(1, 100_000)
    ) + b"u.",
    "a number of many digits": b"I" + b"9" * 5000 + b"\n.",
    "a long number of many digits": b"L" + b"9" * 5000 + b"L\n.",
    "bytes past the end": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a.",
    "text past the end": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.",
    "negative bytes": b"\x80\x02\x8b" + struct.pack("<i", -5) + b"a.",
    "too many instructions": PROTO + b"N0" * 600_000 + b"N.",
    "one text encoded many times": PROTO + text("a" * MEGABYTE) + b"q\x000(c_codecs\nencode\nq\x01"
    + b"h\x01h\x00\x85R" * 3000 + b"l.",
    "one list made a Size many times": PROTO + b"](" + b"N" * 100_000 + b"eq\x000ctorch\nSize\nq\x01("
    + b"h\x01h\x00\x85R" * 3000 + b"l.",
    "one long key many times": PROTO + b"}" + text("a" * MEGABYTE) + b"q\x00N" + b"h\x00Nsh\x00N" * 10 + b"s.",
    "classes without end": PROTO + b"cyacs.config\nCfgNode\n0" * 50_000 + b"N.",
    "a long dtype": PROTO + b"cnumpy\ndtype\n" + text("i4," * 100_000) + b"\x85R.",
}  # fmt: skip


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_that_asks_for_too_much_is_refused(tmp_path, name):
    (tmp_path / "w.pth").write_bytes(PICKLES[name])
    refused(tmp_path / "w.pth", megabytes=0 if name == "too many instructions" else 100)
    if len(PICKLES[name]) < 10_000:
        refused(save_zip(tmp_path / "w.pth", PICKLES[name]), megabytes=100)


def test_dicts_that_share_everything_are_walked_once(tmp_path):
    for depth in (30, 60, 90, 120):
        node = {"epoch": 1}
        for _ in range(depth):
            node = {"model": node, "state_dict": node, "module": node}
        (tmp_path / "w.pth").write_bytes(pickle.dumps(node, 2))
        message = refused(tmp_path / "w.pth")
        assert ("depth=100" in message) == (depth > 100)


def test_shared_dicts_with_weights_at_their_end_are_read(tmp_path):
    node = {"a": np.ones(1)}
    for _ in range(60):
        node = {"model": node, "state_dict": node}
    (tmp_path / "w.pth").write_bytes(pickle.dumps(node, 2))
    with pytest.warns(UserWarning, match="took the weights under model"):
        assert read(tmp_path / "w.pth").keys() == {"a"}


@pytest.mark.parametrize("depth", [30, 60])
@pytest.mark.parametrize("leaf", [b"", text("w") + tensor(b"K\x01\x85", b"K\x01\x85") + b"s"])
def test_modules_that_share_everything_are_counted(tmp_path, depth, leaf):
    module = b"c__torch__\nM\nq\x00)\x81}" + leaf + b"b"
    for _ in range(depth):
        module += b"q\x01" + b"0h\x00)\x81}(" + text("a") + b"h\x01" + text("b") + b"h\x01ub"
    path = save_zip(tmp_path / "w.pt", PROTO + module + b".", script=True, **{"0": bytes(16)})
    assert "names=100,000" in refused(path)


def test_a_module_with_long_names_inside_each_other_is_counted(tmp_path):
    module = b"c__torch__\nM\nq\x00)\x81}b"
    for _ in range(50):
        module += b"q\x010h\x00)\x81}" + text("a" * 5000) + b"h\x01sb"
    assert "name_length" in refused(save_zip(tmp_path / "w.pt", PROTO + module + b".", script=True))


def test_zeros_that_inflate_are_refused_before_they_do(tmp_path):
    zeros = np.zeros(8 * MEGABYTE, np.float32)
    np.savez_compressed(tmp_path / "w.npz", a=zeros, b=zeros, c=zeros)
    assert "inflation=16" in refused(tmp_path / "w.npz", megabytes=150)
    payload = PROTO + b"}" + text("a") + tensor(b"K\x04\x85", b"K\x01\x85") + b"s."
    save_zip(tmp_path / "w.pth", payload, **{"0": bytes(100 * MEGABYTE)})
    assert "inflation=16" in refused(tmp_path / "w.pth", megabytes=10)
    assert "inflation=16" in refused(save_zip(tmp_path / "w.pth", payload + bytes(100 * MEGABYTE)), megabytes=10)


def test_a_member_that_lies_about_its_size_is_not_inflated(tmp_path):
    """An archive whose directory says 16 bytes, of a stream that inflates to 100 MB."""
    payload = PROTO + b"}" + text("a") + tensor(b"K\x04\x85", b"K\x01\x85") + b"s."
    path = save_zip(tmp_path / "w.pth", payload, **{"0": bytes(100 * MEGABYTE)})
    data = path.read_bytes().replace(struct.pack("<I", 100 * MEGABYTE), struct.pack("<I", 16))
    path.write_bytes(data)
    refused(path, megabytes=10)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused_before_they_inflate(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "w.npz", "w", method) as archive:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(10))
        archive.writestr("a.npy", buffer.getvalue())
    assert "neither PyTorch nor NumPy writes" in refused(tmp_path / "w.npz")


def test_a_tensor_of_strides_of_zero_is_counted(tmp_path):
    big = b"J" + struct.pack("<i", 2**20)
    size, stride = b"(" + big + big + b"t", b"(K\x00K\x00t"
    path = save_zip(tmp_path / "w.pth", PROTO + b"}" + text("a") + tensor(size, stride) + b"s.", **{"0": bytes(16)})
    assert "inflation=16" in refused(path)


def test_many_tensors_of_one_storage_are_counted(tmp_path):
    count = MEGABYTE
    payload = PROTO + b"}q\x00" + STORAGE + b"q\x010"
    number = b"J" + struct.pack("<i", count) + b"\x85"
    for index in range(100):
        payload += text(f"w{index}") + tensor(number, b"K\x01\x85", storage=b"h\x01") + b"s"
    path = save_zip(tmp_path / "w.pth", payload + b".", **{"0": bytes(4 * count)})
    assert "inflation=16" in refused(path)


def test_a_limit_can_be_moved(tmp_path):
    np.savez_compressed(tmp_path / "w.npz", a=np.zeros(18 * MEGABYTE, np.float32))
    refused(tmp_path / "w.npz")
    assert read(tmp_path / "w.npz", limits=limits.Limits(inflation=2000))["a"].shape == (18 * MEGABYTE,)
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": np.zeros(3), "layer.200000.b": np.zeros(1)}))
    assert "counts to 200000" in refused(tmp_path / "w.pkl")
    assert len(read(tmp_path / "w.pkl", limits=limits.Limits(number=10**6))) == 2
    assert "opcodes=10" in refused(tmp_path / "w.pkl", limits=limits.Limits(opcodes=10))


@pytest.mark.parametrize(
    "name",
    [
        "layers.0.blocks.1000000000.w",
        "layers.0.blocks." + "9" * 5000 + ".w",
        "layers.١٠٠٠٠٠٠٠٠٠.w",
        "a\nb",
        "a\x1b[2Jb",
        "a" * 2000,
        "layers_9999999.blocks.0.w",
    ],
)
def test_names_that_no_model_has_are_refused(tmp_path, name):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {name: np.zeros(1)}}))
    header = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    for file in ("w.pkl", "w.safetensors"):
        refused(tmp_path / file)


def test_archives_of_other_things_are_one_line(tmp_path):
    for members in ({}, {"picture.jpg": b"x"}, {"a/version": b"3"}, {"a/constants.pkl": b""}, {"a/data.pkl": b""}):
        with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        refused(tmp_path / "w.pth")


@pytest.mark.parametrize("file, data, word", [
    ("w.h5", b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"), ("w.npy", b"\x93NUMPY\x01\x00", "savez"),
    ("w.pth", b"", "ends too early"),
    ("w.index", b"\x00" * 40, "TensorFlow"), ("saved_model.pb", b"\x08\x01\x12", "TensorFlow"),
    ("w.pth.gz", zlib.compress(b"a", wbits=31), "gzip"), ("w.gguf", b"GGUF", "GGUF"),
    ("w.pth", b"version https://git-lfs.github.com/spec/v1\n", "lfs"),
    ("w.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ("w.safetensors", b"<!doctype html>", "web page"), ("w.safetensors", b"<" + bytes(20), "header"),
    ("w.pth", b"\n <!doctype html>", "web page"), ("w.msgpack", b"\x81\xa6params", "Flax"),
])  # fmt: skip
def test_files_of_others_are_named(tmp_path, file, data, word):
    (tmp_path / file).write_bytes(data)
    assert word in refused(tmp_path / file)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo.pth")
    (tmp_path / "loop.pth").symlink_to(tmp_path / "loop.pth")
    (tmp_path / "dangling.pth").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "link.pth").symlink_to(tmp_path / "fifo.pth")
    for name in ("fifo", "loop", "dangling", "folder", "link"):
        assert "cannot be read" in refused(tmp_path / f"{name}.pth")


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_read_as_python_reads_it(protocol):
    numbers = [None, True, False, 0, 255, -1, 65535, 2**31, -(2**70), 2**2000, 1.5]
    value = [numbers, "a", "ä\n\u20ac'", "x" * 300, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [[]] * 2]
    value.append({"a": [1, {"b": 2}], 3: "c", None: 4, 1.5: (), True: []})
    if protocol >= 3:
        value += [b"b" * 300, b"c"]
    counter = pickles.Counter(limits.DEFAULT, limits.Budget(limits.DEFAULT, 10**6))
    for data in (pickle.dumps(value, protocol), pickle.dumps({"long": list(range(2000))}, protocol)):
        found = pickles.Pickle(io.BytesIO(data), None, None, (), counter).load()
        assert found == pickle.loads(data)
