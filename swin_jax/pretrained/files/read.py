"""Reads files of weights into numpy arrays, whatever wrote them,
without PyTorch and without running foreign code.

.pth, .pt and .pkl (see unpickle.py; TorchScript archives too), .safetensors and .npz; told apart by
their content, not by their name.
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
# Files that people take for weights, by how they begin.
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

    Of a checkpoint that holds more than weights, the entry `model`, `state_dict`, `module` or
    `model_state` is taken and the rest (optimizer, configuration) is dropped. State dicts in a list
    are called by their numbers. Prefixes that wrappers put before every name are taken off, and a
    Swin is taken out of what lies around it (`pretrained.wrappers`). A warning says which of
    several weights were taken, by the rule of `files.choose`, and what was left out.

    Args:
        path: The file.
        key: The weights to take instead: an entry such as 'model_ema', or a first part
            of names such as 'teacher' or 'student.backbone'; also one inside the
            other, 'state_dict.student'.
        limits: Limits on the file.

    Returns:
        {name: array}; layouts are the file's, arrays are read-only and may share memory, dtypes are
        kept (bfloat16 is `ml_dtypes.bfloat16`, which numpy converts with `astype`).

    Raises:
        UserError: No such file, a truncated or foreign one, one without arrays, a pickle that wants
            to run code, a file that asks for more than the limits; no weights under `key`, or
            several of which none goes first.
    """
    return unwrapped(read_whole(path, key, limits), path)


def unwrapped(arrays: dict[str, np.ndarray], path) -> dict[str, np.ndarray]:
    """The weights of a model without what training put around them, `pretrained.wrappers.unwrap`,
    with its warnings.

    Args:
        arrays: {name: array} of a file, or of several that belong together.
        path: The file, for messages.

    Raises:
        UserError: Several models, of which none goes first.
    """
    try:
        found, said = wrappers.unwrap(arrays)
    except UserError as error:
        raise error.about(path) from None
    for line in said:
        warn(f"{path}: {line}")
    return found


def read_whole(path, key: str | None = None, limits: Limits = DEFAULT) -> dict[str, np.ndarray]:
    """Reads as `read` does, with the names of the file,
    wrappers' prefixes included; a file that is one of several too.
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
    """Arrays, what the file holds at its top for an error message,
    and what a user should know of the choice.
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
    # The eighth byte is 0 in the length that such a file begins with, cut off or not.
    if is_safetensors(head, size) or (suffix == ".safetensors" and head[7:8] in (b"", b"\0")):
        return _part(read_safetensors(file, size, limits), key)
    for start, text in _OTHERS:
        if head.lstrip().startswith(start):
            raise UserError(f"not a file of weights ({_KINDS}) but {text}")
    if suffix in _SUFFIXES:
        raise UserError(
            f"files of {_SUFFIXES[suffix]} are not read; "
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
    """Raises UserError for what no model has.

    Names that are too long, not printable or with numbers that nothing counts to; long axes of
    arrays without numbers; whole numbers where weights are due, whose scales lie elsewhere.
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
