"""Reads and writes .safetensors files, by the same strict rules as the library `safetensors`.

A file is the length of its header in 8 bytes, the header in JSON, and the numbers, in which every
byte belongs to exactly one tensor.
"""

import json
import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.pretrained.files.limits import Limits

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "C64": np.dtype("<c8"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def is_safetensors(head: bytes, size: int) -> bool:
    """True if a file of `size` bytes that begins with `head` is a .safetensors file."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def read_safetensors(file: BinaryIO, size: int, limits: Limits) -> dict[str, np.ndarray]:
    """Reads the arrays of a .safetensors file: {name: read-only array}.

    Args:
        file: The open file, at its beginning.
        size: Size of the file in bytes.
        limits: Bounds on the header.

    Raises:
        UserError: The header is cut off, invalid or too large; tensors overlap, leave holes, reach
            past the end or do not fill their places; a name occurs twice; or NumPy lacks a dtype.
    """
    length = int.from_bytes(file.read(8), "little")
    limits.check("header", length, f"a header of {length} bytes")
    if length > size - 8:
        raise UserError(
            f"the header should have {length} bytes, but the file has {size}: its end is missing"
        )
    entries = _header(file.read(length))
    limits.check("names", len(entries), "a file of more arrays")
    data = file.read()
    places = {name: _place(name, entry, limits) for name, entry in entries.items()}
    end = 0
    for name, (_, _, begin, stop) in sorted(places.items(), key=lambda item: item[1][2:]):
        if begin != end:
            raise UserError(
                f"{name[:200]} begins at byte {begin}, where {end} was expected: "
                "a hole or an overlap"
            )
        end = stop
    if end > len(data):
        raise UserError(
            f"its arrays reach outside the file: they take {end} bytes, "
            f"but only {len(data)} follow the header"
        )
    if end < len(data):
        raise UserError(f"{len(data) - end} bytes at its end belong to no array")
    return {name: _array(data, *place) for name, place in places.items()}


def write_safetensors(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes {name: float32 array} as a .safetensors file, local or in a bucket, atomically."""
    header, end = {}, 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": "F32",
            "shape": array.shape,
            "data_offsets": (end, end + 4 * array.size),
        }
        end += 4 * array.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with storage.writing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(np.asarray(array, "<f4").tobytes())


def _header(text: bytes) -> dict[str, Any]:
    """The entries of a header, without its metadata."""
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        reason = "a name occurs twice" if isinstance(error, UserError) else "it is not JSON"
        raise UserError(f"the header of the .safetensors file is damaged: {reason}") from error
    if not isinstance(header, dict):
        raise UserError(f"the header of the .safetensors file is a {type(header).__name__}")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise UserError("the metadata of the .safetensors file is not {text: text}")
    return header


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UserError("a name occurs twice")
    return found


def _place(name: str, entry: Any, limits: Limits) -> tuple[np.dtype, list[int], int, int]:
    """(dtype, shape, first byte, byte after the last) of an entry."""
    shown = name[:200]
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise UserError(f"{shown} has no dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise UserError(f"{shown} is {str(kind)[:20]}, which numpy does not have")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise UserError(f"{shown} has a shape or data_offsets that are not whole numbers from 0")
    limits.check("axes", len(shape), f"{shown} of more axes")
    begin, end = offsets
    wanted = math.prod(shape) * _DTYPES[kind].itemsize
    if end - begin != wanted:
        raise UserError(
            f"{shown} is {kind} {shape}, {wanted} bytes, but its place has {end - begin}"[:400]
        )
    return _DTYPES[kind], shape, begin, end


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 2**63 for value in values
    )


def _array(data: bytes, dtype: np.dtype, shape: list[int], begin: int, end: int) -> np.ndarray:
    if begin == end:
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype, (end - begin) // dtype.itemsize, begin).reshape(shape)
