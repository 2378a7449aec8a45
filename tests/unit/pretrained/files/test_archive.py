"""Archives of `numpy.savez`: members that are not arrays are one line, whatever stands in them."""

import io
import struct
import zipfile

import numpy as np
import pytest

from swin_jax.pretrained.files.read import read
from tests.unit.pretrained.files.test_hostile import refused


def npy(array, version=None) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version, allow_pickle=True)
    return buffer.getvalue()


def header(text: str) -> bytes:
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(8)


MEMBERS = {
    "readme.txt": b"hello",
    "a.npy": b"hello",
    "empty.npy": b"",
    "torn.npy": npy(np.arange(9))[:-4],
    "torn_header.npy": npy(np.arange(9))[:40],
    "long.npy": npy(np.arange(9)) + b"more",
    "object.npy": npy(np.array([{}], object)),
    "giant.npy": header("{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000,)}"),
    "negative.npy": header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"),
    "axes.npy": header("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1," * 33 + ")}"),
    "code.npy": header("{'descr': '<f8', 'fortran_order': exit(), 'shape': (1,)}"),
    "deep.npy": header("(" * 110),
    "version.npy": npy(np.zeros(1)).replace(b"NUMPY\x01", b"NUMPY\x07"),
}  # fmt: skip


@pytest.mark.parametrize("name", MEMBERS)
def test_members_that_are_no_arrays(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("fine.npy", npy(np.arange(3)))
        archive.writestr(name, MEMBERS[name])
    assert name in refused(tmp_path / "w.npz")


def test_two_members_of_one_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.npy", npy(np.arange(3)))
        archive.writestr("a.npy", npy(np.arange(4)))
    assert "two members" in refused(tmp_path / "w.npz")


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3), np.zeros((0, 2)), np.float32(3), np.array(["ab", "c"])]
)
def test_legal_npz_are_read(tmp_path, array, order):
    np.savez_compressed(tmp_path / "w.npz", a=np.asarray(array, order=order))
    found = read(tmp_path / "w.npz")["a"]
    np.testing.assert_array_equal(found, array)
    assert found.shape == np.shape(array) and found.dtype == np.asarray(array).dtype
