"""Reads files of weights into NumPy arrays, without PyTorch and without running foreign code.

The formats are .pth, .pt and .pkl (including TorchScript archives, see unpickle.py), .safetensors
and .npz. The content of a file decides its format, not its name.
"""

import dataclasses
import os
import re
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.pretrained import wrappers
from swin_jax.pretrained.files import choose, unpickle
from swin_jax.pretrained.files.archive import Archive, read_npz
from swin_jax.pretrained.files.limits import DEFAULT, Budget, Limits, exceeded
from swin_jax.pretrained.files.opening import opened
from swin_jax.pretrained.files.safetensors import is_safetensors, read_safetensors

_KINDS = ".pth .pt .pkl .safetensors .npz"
# Files that are often mistaken for weights, by their first bytes.
_OTHERS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "one array of NumPy; write the arrays by their names with numpy.savez"),
    (b"\x1f\x8b", "compressed with gzip; unpack it"),
    (b"BZh", "compressed with bzip2; unpack it"),
    (b"\xfd7zXZ", "compressed with xz; unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstandard; unpack it"),
    (b"version https://git-lfs", "a pointer of Git LFS in place of the file; run 'git lfs pull'"),
    (b"<", "a web page, or a text"),
)
_SUFFIXES = {
    ".h5": "HDF5 (Keras)",
    ".keras": "Keras",
    ".pb": "TensorFlow",
    ".index": "TensorFlow",
    ".onnx": "ONNX",
    ".tflite": "TensorFlow Lite",
    ".msgpack": "Flax",
}


def read(path, key: str | None = None, limits: Limits = DEFAULT) -> dict[str, np.ndarray]:
    """Reads the weights of a .pth, .pt, .pkl, .safetensors or .npz file.

    If a checkpoint holds more than weights, the entry `model`, `state_dict`, `module` or
    `model_state` is read and the rest (optimizer, configuration) is dropped. State dicts in a list
    are named by their index. Prefixes that wrappers add to all names are removed, and so is
    everything around a Swin (`pretrained.wrappers`). A warning says which of several weights were
    chosen, by the rule of `files.choose`, and which were left out.

    Args:
        path: The file.
        key: The weights to take instead: an entry such as 'model_ema', the first part of names
            such as 'teacher' or 'student.backbone', or one inside the other, such as
            'state_dict.student'.
        limits: Limits on the file.

    Returns:
        {name: array} in the layouts and dtypes of the file (bfloat16 is `ml_dtypes.bfloat16`, which
        NumPy converts with `astype`). The arrays are read-only and may share memory.

    Raises:
        UserError: The file is missing, cut off, of another format or without arrays; a pickle tries
            to run code; a limit is exceeded; there are no weights under `key`, or several among
            which the rule does not decide.
    """
    return unwrapped(read_whole(path, key, limits), path)


def unwrapped(arrays: dict[str, np.ndarray], path) -> dict[str, np.ndarray]:
    """Removes everything that training put around a model's weights, and warns about it; see
    `pretrained.wrappers.unwrap`.

    Args:
        arrays: {name: array} of a file, or of several that belong together.
        path: The file, for messages.

    Raises:
        UserError: There are several models, and the rule does not decide.
    """
    try:
        found, said = wrappers.unwrap(arrays)
    except UserError as error:
        raise error.about(path) from None
    for line in said:
        warn(f"{path}: {line}")
    return found


def read_whole(path, key: str | None = None, limits: Limits = DEFAULT) -> dict[str, np.ndarray]:
    """Reads a file like `read`, but keeps all of its names, with the prefixes of wrappers; the file
    may be one part of several.
    """
    path = Path(path)
    if key is not None and not (isinstance(key, str) and key.strip(".")):
        raise UserError(f"key={str(key)[:60]!r} must be a text, such as 'model_ema' or 'teacher'")
    with opened(path, f"a file of weights ({_KINDS})") as file:
        found = _read_open(file, path.suffix.lower(), key and key.strip("."), limits)
        _check_arrays(found.arrays, limits)
    if not found.arrays:
        raise UserError(f"{path}: holds no arrays{found.outline}")
    for line in found.said:
        warn(f"{path}: {line}")
    return found.arrays


def is_torchscript(path) -> bool:
    """True if a file is an archive of `torch.jit.save`."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[-1] == "constants.pkl" for name in archive.namelist())


@dataclasses.dataclass(frozen=True)
class _Found:
    """The arrays of a file, an outline of its top level for error messages, and lines that report
    which weights were chosen.
    """

    arrays: dict[str, Any]
    outline: str = ""
    said: tuple[str, ...] = ()


def _read_open(file: BinaryIO, suffix: str, key: str | None, limits: Limits) -> _Found:
    size = os.fstat(file.fileno()).st_size
    budget = Budget(limits, size)
    head = file.read(64)
    file.seek(0)
    if head[:4] == b"PK\x03\x04":
        archive = Archive(file, limits, budget)
        if archive.find("data.pkl"):
            return _choose(*unpickle.read_zip(archive, limits, budget), key, limits, budget)
        return _part(read_npz(archive, limits), key)
    # The file begins with a length whose eighth byte is 0, even if the file is cut off.
    if is_safetensors(head, size) or (suffix == ".safetensors" and head[7:8] in (b"", b"\0")):
        return _part(read_safetensors(file, size, limits), key)
    for start, text in _OTHERS:
        if head.lstrip().startswith(start):
            raise UserError(f"not a file of weights ({_KINDS}) but {text}")
    if suffix in _SUFFIXES:
        raise UserError(
            f"files of {_SUFFIXES[suffix]} are not supported; "
            "save a state dict of PyTorch, .safetensors or .npz"
        )
    if suffix == ".safetensors":
        return _part(read_safetensors(file, size, limits), key)
    return _choose(*unpickle.read_stream(file, limits, budget), key, limits, budget)


def _part(arrays: dict, key: str | None, places: Collection[str] = ()) -> _Found:
    return _Found(choose.part(arrays, key, places) if key else arrays)


def _choose(
    value: Any, read_storage: unpickle.Read | None, key: str | None, limits: Limits, budget: Budget
) -> _Found:
    """The arrays of an unpickled object: finds the dict of weights,
    then reads the storages that it needs.
    """
    value = choose.numbered(value)
    if not isinstance(value, dict):
        kind = type(value).__name__
        return _Found(
            {}, f" by name: it is a {kind}, not a dict of arrays; save the model's state_dict()"
        )
    entries = [name[:60] for name in value if isinstance(name, str)]
    outline = f"; its entries are {choose.listed(entries)}" if entries else ""
    checkpoint = choose.Checkpoint(value, unpickle.is_array, limits)
    if checkpoint.is_empty():
        lists = {name: choose.numbered(entry) for name, entry in value.items()}
        checkpoint = choose.Checkpoint(lists, unpickle.is_array, limits)
    leaves, said = checkpoint.named(key) if key else checkpoint.weights()
    leaves = checkpoint.with_beside(
        {str(name): leaf for name, leaf in leaves.items() if unpickle.is_array(leaf)}
    )
    limits.check("names", len(leaves), "a file of more arrays")
    arrays = {}
    for name, leaf in leaves.items():
        arrays[name] = unpickle.array_of(leaf, read_storage, limits, budget)
    return _Found(arrays, outline, said)


def _check_arrays(arrays: dict[str, np.ndarray], limits: Limits) -> None:
    """Raises UserError for arrays that no model has.

    These are names that are too long, not printable or contain huge numbers; arrays without
    numbers but with a long axis; and integers in place of weights, which are quantized.
    """
    for name, array in arrays.items():
        if name.endswith("weight") and array.ndim > 1 and array.dtype.kind in "iu":
            raise UserError(
                f"{name[:200]} holds {array.dtype}, so these weights are quantized, "
                "which is not supported; save them as floating point"
            )
        if array.size == 0 and max(array.shape) > limits.number:
            raise exceeded(
                f"{name[:200]} has no numbers and an axis of {max(array.shape)}",
                "number",
                limits.number,
            )
        limits.check("name_length", len(name), "an array with a longer name")
        if not name.isprintable():
            raise UserError(f"{name[:60]!r} is not the name of an array")
        for number in re.findall(r"\d+", name):
            if len(number) > 18 or int(number) > limits.number:
                raise exceeded(f"{name[:200]} counts to {number[:20]}", "number", limits.number)
