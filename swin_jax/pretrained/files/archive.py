"""Reads zip archives of weights, whose members are counted before they are decompressed, and the
arrays that `numpy.savez` and `numpy.save` write.
"""

import io
import math
import zipfile
from typing import BinaryIO

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.pretrained.files.limits import DEFAULT, Budget, Limits

# Other methods can inflate a few bytes to gigabytes in one step; PyTorch and NumPy never do.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Archive:
    """The members of a zip file.

    Args:
        file: The open file.
        limits: Bounds on the number of members.
        budget: Bytes that the file may still use; each member that is read is deducted.

    Attributes:
        names: Names of the members, in their order.

    Raises:
        UserError: There are more members than the limits allow, or two of the same name.
        zipfile.BadZipFile: The archive is damaged.
    """

    def __init__(self, file: BinaryIO, limits: Limits, budget: Budget):
        self._zip, self._budget = zipfile.ZipFile(file), budget
        self.names = tuple(self._zip.namelist())
        limits.check("names", len(self.names), "an archive of more members")
        if len(set(self.names)) != len(self.names):
            raise UserError("an archive with two members of the same name")

    def find(self, name: str) -> str:
        """The first member that is called `name`, in any folder; '' if there is none."""
        return next((member for member in self.names if member.rsplit("/", 1)[-1] == name), "")

    def read(self, name: str) -> bytes:
        """The bytes of a member.

        Raises:
            UserError: The member is encrypted, compressed by a method other than deflate, or too
                large for the file.
            KeyError: There is no such member.
            zipfile.BadZipFile: The bytes are damaged.
        """
        member = self._zip.getinfo(name)
        if member.compress_type not in _METHODS or member.flag_bits & 1:
            raise UserError(
                f"{name[:200]} is encrypted or compressed in a way that "
                "neither PyTorch nor NumPy writes"
            )
        self._budget.take(member.file_size, name[:200])
        with self._zip.open(member) as file:
            # Without a size, zipfile would decompress everything before checking.
            data = file.read(member.file_size)
        if len(data) != member.file_size:
            raise ValueError(f"{name[:200]} ends too early")
        return data


def read_npz(archive: Archive, limits: Limits) -> dict[str, np.ndarray]:
    """The read-only arrays of a file of `numpy.savez`, by name.

    Raises:
        UserError: A member is not an array, or is an array of Python objects.
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
    """The arrays of an open file of `numpy.savez`; raises what `read_npz` and `Archive` raise."""
    size = file.seek(0, io.SEEK_END)
    return read_npz(Archive(file, limits, Budget(limits, size)), limits)


def read_npy(data: bytes, name: str, limits: Limits) -> np.ndarray:
    """The read-only array in the bytes of a file of `numpy.save`.

    Raises:
        UserError: The bytes are not an array, are cut off, or are an array of Python objects.
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
        raise UserError(f"{name} has {len(data) - start} bytes instead of {count * dtype.itemsize}")
    flat = np.frombuffer(data, dtype, count, start) if count else np.zeros(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")
