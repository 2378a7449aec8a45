"""Stand-ins for the values of a pickle that hold numbers: storages and tensors of PyTorch, arrays
and dtypes of NumPy.
"""

import math
import re
from typing import Any

import ml_dtypes
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.pretrained.files.limits import Budget, Limits

DTYPES = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
    "complex64": np.dtype("<c8"),
    "complex128": np.dtype("<c16"),
}


class Storage:
    """The numbers of one or more tensors; they are read only when a tensor is needed."""

    def __init__(self, key: str, dtype: str, size: int):
        self.key, self.dtype, self.size, self.data = key, dtype, size, None

    def array(self, dtype: str) -> np.ndarray:
        return np.frombuffer(self.data, DTYPES[dtype])


def _are_sizes(values: tuple) -> bool:
    return all(type(value) is int and 0 <= value < 2**63 for value in values)


class Tensor:
    """A view of a storage: element offset, shape and strides."""

    def __init__(
        self, storage: Storage, offset: int, size: tuple, stride: tuple, dtype: str | None = None
    ):
        if not isinstance(storage, Storage):
            raise ValueError("a tensor without a storage")
        self.storage, self.offset, self.size, self.stride = (
            storage,
            offset,
            tuple(size),
            tuple(stride),
        )
        self.dtype = storage.dtype if dtype is None else dtype
        if not _are_sizes((offset, *self.size, *self.stride)) or len(self.size) != len(self.stride):
            raise ValueError("a tensor with an invalid size or stride")
        if not isinstance(self.dtype, str) or self.dtype not in DTYPES:
            raise ValueError("a tensor of no dtype")

    def array(self, budget: Budget, limits: Limits) -> np.ndarray:
        """The tensor as a read-only array; its storage must have been read.

        Strides may be 0 and storages may be shared, so the tensor can be larger than the file; the
        bytes that a copy of it takes are counted.
        """
        limits.check("axes", len(self.size), "a tensor of more axes")
        flat = self.storage.array(self.dtype)
        if 0 in self.size:
            return np.zeros(self.size, flat.dtype)
        if self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride)) >= flat.size:
            raise ValueError(f"a tensor that reaches past its storage of {flat.size} elements")
        budget.take(math.prod(self.size) * flat.itemsize, "a tensor")
        strides = [s * flat.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.size, strides, writeable=False
        )


class NumpyArray:
    """A stand-in for a pickled NumPy array or dtype, because NumPy's own reconstruction trusts its
    input too much.
    """

    def __init__(self, *arguments):
        self.value = None
        if arguments and isinstance(arguments[0], str):
            if not re.fullmatch(r"[<>=|]?[a-zA-Z?]\d{0,9}(\[\w{1,9}\])?", arguments[0]):
                raise ValueError("a numpy array of no simple dtype")
            self.value = np.dtype(arguments[0])
            if self.value.hasobject:
                raise UserError("refused: a numpy array of Python objects; save numbers only")

    @staticmethod
    def of(value: np.ndarray | np.generic) -> "NumpyArray":
        """Makes the stand-in for an existing array."""
        found = NumpyArray()
        found.value = np.asarray(value)
        return found

    def __setstate__(self, state):
        if self.value is not None:  # a dtype: (version, byte order, ...)
            self.value = self.value.newbyteorder(state[1]) if state[1] in ("<", ">") else self.value
            return
        _, shape, dtype, fortran, data = state
        self.value = _fill(data, dtype, shape, "F" if fortran else "C")


def _fill(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """Makes an array from bytes."""
    if not isinstance(dtype, NumpyArray) or not isinstance(dtype.value, np.dtype):
        raise ValueError("a numpy array of no dtype")
    if not isinstance(shape, tuple) or len(shape) > 64 or not _are_sizes(shape):
        raise ValueError("a numpy array with an invalid size")
    data = data.encode("latin1") if isinstance(data, str) else data
    if math.prod(shape) == 0:
        return np.zeros(shape, dtype.value)
    return np.frombuffer(data, dtype.value).reshape(shape, order=order)


def scalar(dtype: Any, data: Any) -> np.generic:
    """Makes one number from its bytes; replaces numpy.core.multiarray.scalar."""
    return _fill(data, dtype, (1,), "C")[0]


def from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> NumpyArray:
    """Makes an array of pickle protocol 5; replaces numpy.core.numeric._frombuffer."""
    return NumpyArray.of(_fill(data, dtype, shape, "F" if order == "F" else "C"))
