"""The .safetensors format: what its own library refuses is refused here, in one line; what it takes is read."""

import json
import struct

import numpy as np
import pytest

from swin_jax.pretrained.files.read import read
from tests.unit.pretrained.files.test_hostile import refused


def entry(begin, end, dtype="F32", shape=None):
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


HEADERS = {
    "an overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, 12),
    "the same place twice": ({"a": entry(0, 8), "b": entry(0, 8)}, 8),
    "8,000 slices of one place": ({f"w{i}": entry(0, 4000) for i in range(8000)}, 4000),
    "8,000 overlapping slices": ({f"w{i}": entry(4 * i, 4 * i + 4000) for i in range(8000)}, 36000),
    "a hole": ({"a": entry(0, 4), "b": entry(8, 12)}, 12),
    "a hole at the start": ({"a": entry(4, 8)}, 8),
    "bytes at the end": ({"a": entry(0, 4)}, 12),
    "past the end": ({"a": entry(0, 8)}, 4),
    "backwards": ({"a": entry(4, 0, shape=[1])}, 4),
    "a negative place": ({"a": entry(-4, 0, shape=[1])}, 4),
    "a negative shape": ({"a": entry(0, 4, shape=[-1])}, 4),
    "two negative sides": ({"a": entry(0, 4, shape=[-1, -1])}, 4),
    "another size": ({"a": entry(0, 8, shape=[1])}, 8),
    "another dtype's size": ({"a": entry(0, 8, "F16", [2])}, 8),
    "an unknown dtype": ({"a": entry(0, 4, "F33")}, 4),
    "a dtype that is a list": ({"a": entry(0, 4, ["F32"])}, 4),
    "a side that is not a whole number": ({"a": entry(0, 4, shape=[1.0])}, 4),
    "a side that is a truth value": ({"a": entry(0, 4, shape=[True])}, 4),
    "a huge side": ({"a": entry(0, 0, shape=[0, 2**70])}, 0),
    "many huge sides": ({"a": entry(0, 4, shape=[2**62] * 100_000)}, 4),
    "a shape that is a number": ({"a": entry(0, 4, shape=1)}, 4),
    "no offsets": ({"a": {"dtype": "F32", "shape": [1]}}, 4),
    "three offsets": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, 4),
    "an entry that is a list": ({"a": []}, 0),
    "metadata that is a list": ({"__metadata__": [1], "a": entry(0, 4)}, 4),
    "metadata of numbers": ({"__metadata__": {"a": 1}, "a": entry(0, 4)}, 4),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_the_strictness_of_safetensors(tmp_path, name):
    header, size = HEADERS[name]
    data = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(data)) + data + bytes(size))
    refused(tmp_path / "w.safetensors")


@pytest.mark.parametrize("header", [
    b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    b'{"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}',
    b'{"a":' + b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}", b'{"\xff":1}', b'{"a"', b"[]", b'"a"', b"{}", b" ",
    b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}',
])  # fmt: skip
def test_a_header_that_is_none(tmp_path, header):
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    refused(tmp_path / "w.safetensors")


@pytest.mark.parametrize("length", [0, 10**6, 2**40, 2**63, 2**64 - 1])
def test_a_header_of_another_length(tmp_path, length):
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
    refused(tmp_path / "w.safetensors")


def test_legal_safetensors_are_read(tmp_path):
    """Entries in any order, empty ones, metadata, blanks after the header; as the library takes them."""
    header = {"__metadata__": {"format": "pt"}, "b": entry(4, 12), "empty": entry(4, 4, shape=[0, 3]), "a": entry(0, 4)}
    data = json.dumps(header).encode() + b"   "
    numbers = np.arange(3, dtype=np.float32)
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(data)) + data + numbers.tobytes())
    found = read(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(found["b"], [1, 2])
    assert found["empty"].shape == (0, 3) and found["a"] == 0 and not found["a"].flags.writeable
