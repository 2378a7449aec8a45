"""Writes PyTorch's zip format without PyTorch: dicts of float32 tensors, and no code.

Its pickle names only an OrderedDict, FloatStorage and the function that makes a tensor, so that
`torch.load(path, weights_only=True)` accepts it.
"""

import os
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from swin_jax.core import storage

_TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
_NO_HOOKS = b"ccollections\nOrderedDict\n)R"
_ALIGNMENT = 64  # bytes, of the storages, as torch writes them for memory maps


def write(path: str | os.PathLike, value: Mapping) -> None:
    """Writes a dict of float32 arrays, or of such dicts, as `torch.save` does.

    Args:
        path: The file, local or in a bucket; it is written atomically.
        value: {name: array or dict}.

    Raises:
        TypeError: A leaf that is not a float32 array, or a name that is not text.
    """
    arrays: list[np.ndarray] = []
    data = b"\x80\x02" + _dict(value, arrays) + b"."
    with storage.writing(path) as file, zipfile.ZipFile(file, "w") as archive:
        _add(archive, "archive/data.pkl", data)
        _add(archive, "archive/byteorder", b"little")
        for number, array in enumerate(arrays):
            _add(archive, f"archive/data/{number}", array.astype("<f4").tobytes())
        _add(archive, "archive/version", b"3\n")


def _dict(value: Mapping, arrays: list[np.ndarray]) -> bytes:
    """The pickle instructions that make a dict; adds its arrays to `arrays`."""
    parts = [b"}("]
    for name, leaf in value.items():
        if not isinstance(name, str):
            raise TypeError(f"{name!r} is not the name of a tensor")
        parts += [
            _text(name),
            _dict(leaf, arrays) if isinstance(leaf, Mapping) else _tensor(name, leaf, arrays),
        ]
    return b"".join([*parts, b"u"])


def _tensor(name: str, array: np.ndarray, arrays: list[np.ndarray]) -> bytes:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        raise TypeError(f"{name} is not a float32 array")
    array = np.asarray(array, order="C")
    stored = (
        b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text(str(len(arrays))) + _text("cpu")
    )
    stored += _number(array.size) + b"tQ"
    stride = [size // array.itemsize for size in array.strides]
    arrays.append(array)
    return (
        _TENSOR
        + b"("
        + stored
        + _number(0)
        + _numbers(array.shape)
        + _numbers(stride)
        + b"\x89"
        + _NO_HOOKS
        + b"tR"
    )


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def _numbers(values) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Adds a member whose bytes begin at a multiple of the alignment."""
    member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    start = archive.fp.tell() + 30 + len(name) + 4  # after its header and the padding's
    padding = -start % _ALIGNMENT
    member.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    archive.writestr(member, data)
