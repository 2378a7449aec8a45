"""Zip archives of weights: their members, counted before they are inflated;
and the arrays of `numpy.savez`.
"""

import io
import math
import zipfile
from typing import BinaryIO

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.pretrained.files.limits import DEFAULT, Budget, Limits

# Others inflate a few bytes to gigabytes at one stroke; neither PyTorch nor NumPy writes them.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Archive:
    """The members of a zip file.

    Args:
        file: The open file.
        limits: Bounds on their number.
        budget: Bytes that are left to the file; those of every member that is read are taken off.

    Attributes:
        names: Names of the members, in their order.

    Raises:
        UserError: More members than the limits allow, or several of one name.
        zipfile.BadZipFile: A damaged archive.
    """

    def __init__(self, file: BinaryIO, limits: Limits, budget: Budget):
        self._zip, self._budget = zipfile.ZipFile(file), budget
        self.names = tuple(self._zip.namelist())
        limits.check("names", len(self.names), "an archive of more members")
        if len(set(self.names)) != len(self.names):
            raise UserError("an archive with two members of one name")

    def find(self, name: str) -> str:
        """The first member that is called `name`, whatever folder it is in; '' for none."""
        return next((member for member in self.names if member.rsplit("/", 1)[-1] == name), "")

    def read(self, name: str) -> bytes:
        """The bytes of a member.

        Raises:
            UserError: A member that is compressed in another way than deflated,
                or is too large for the file.
            KeyError: No such member.
            zipfile.BadZipFile: Damaged bytes.
        """
        member = self._zip.getinfo(name)
        if member.compress_type not in _METHODS or member.flag_bits & 1:
            raise UserError(
                f"{name[:200]} is encrypted or compressed in a way that "
                "neither PyTorch nor NumPy writes"
            )
        self._budget.take(member.file_size, name[:200])
        with self._zip.open(member) as file:
            # Without its size, zipfile would inflate all before it looks.
            data = file.read(member.file_size)
        if len(data) != member.file_size:
            raise ValueError(f"{name[:200]} ends too early")
        return data


def read_npz(archive: Archive, limits: Limits) -> dict[str, np.ndarray]:
    """The arrays of `numpy.savez`, read-only, by their names.

    Raises:
        UserError: A member that is not an array, or one of Python objects.
    """
    found = {}
    for name in archive.names:
        if not name.endswith(".npy"):
            raise UserError(
                f"{name[:200]} is not an array: neither an archive of PyTorch "
                "(data.pkl) nor of NumPy (.npy)"
            )
        found[name.removesuffix(".npy")] = read_npy(archive.read(name), name[:200], limits)
    return found


def arrays_of(file: BinaryIO, limits: Limits = DEFAULT) -> dict[str, np.ndarray]:
    """`read_npz` of an open file; raises what that and `Archive` raise."""
    size = file.seek(0, io.SEEK_END)
    return read_npz(Archive(file, limits, Budget(limits, size)), limits)


def read_npy(data: bytes, name: str, limits: Limits) -> np.ndarray:
    """The read-only array of `numpy.save`.

    Raises:
        UserError: No such array, one of Python objects, or one that is cut off.
    """
    file = io.BytesIO(data)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        shape, fortran, dtype = readers[np.lib.format.read_magic(file)](file)
    except Exception as error:  # whatever a damaged header provokes in Python's parser
        raise UserError(f"{name} is not a NumPy array") from error
    if dtype.hasobject:
        raise UserError(f"refused: {name} is an array of Python objects; save numbers only")
    limits.check("axes", len(shape), f"{name} of more axes")
    if any(side < 0 for side in shape):
        raise UserError(f"{name} has a negative size")
    start, count = file.tell(), math.prod(shape)
    if count * dtype.itemsize != len(data) - start:
        raise UserError(
            f"{name} has {len(data) - start} bytes in place of {count * dtype.itemsize}"
        )
    flat = np.frombuffer(data, dtype, count, start) if count else np.zeros(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")
