"""Reads files of arrays without names (a .npy file, or lists in a pickle or a file of
`torch.save`), and the class names in a checkpoint.
"""

import os
from typing import Any, BinaryIO

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.pretrained.files import unpickle
from swin_jax.pretrained.files.archive import Archive, read_npy
from swin_jax.pretrained.files.limits import DEFAULT, Budget, Limits
from swin_jax.pretrained.files.opening import opened

_KINDS = ".npy .pt .pkl"
_PLAIN = (str, bytes, bool, int, float, type(None), np.generic)


def read_object(path: str | os.PathLike, limits: Limits = DEFAULT) -> Any:
    """Reads the object in a .npy, .pt or .pkl file without running foreign code.

    Args:
        path: The file; its content decides the format, so it needs no suffix.
        limits: Limits on the file.

    Returns:
        A read-only array, or lists and dicts of arrays, texts and numbers; tuples become lists.

    Raises:
        UserError: The file is missing or damaged, exceeds the limits, tries to run code, or holds
            anything else.
    """
    with opened(path, f"a file of arrays ({_KINDS})") as file:
        size = os.fstat(file.fileno()).st_size
        budget = Budget(limits, size)
        head = file.read(6)
        file.seek(0)
        if head == b"\x93NUMPY":
            return read_npy(file.read(), "it", limits)
        value, read_storage = _unpickled(file, limits, budget)
        return _Plain(read_storage, limits, budget).of(value)


def class_names(path: str | os.PathLike, limits: Limits = DEFAULT) -> tuple[str, ...]:
    """The class names in a checkpoint of OpenMMLab; does not read its arrays.

    Args:
        path: Any file of `torch.save`.
        limits: Limits on the file.

    Returns:
        `CLASSES` of its `meta`, or the `classes` of `dataset_meta` there, in the order of the
        logits; () if it has neither or cannot be read.
    """
    try:
        with opened(path, f"a file of arrays ({_KINDS})") as file:
            budget = Budget(limits, os.fstat(file.fileno()).st_size)
            meta = _entry(_unpickled(file, limits, budget)[0], "meta")
    except UserError:
        return ()
    names = _entry(meta, "CLASSES") or _entry(_entry(meta, "dataset_meta"), "classes")
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(name.strip() for name in names)


def _entry(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _unpickled(file: BinaryIO, limits: Limits, budget: Budget) -> tuple[Any, unpickle.Read | None]:
    """The object in a pickle or a file of `torch.save`, and a function that reads its storages."""
    head = file.read(4)
    file.seek(0)
    if head != b"PK\x03\x04":
        return unpickle.read_stream(file, limits, budget)
    archive = Archive(file, limits, budget)
    if not archive.find("data.pkl"):
        raise UserError("an archive of named arrays, but one array or a list of them is expected")
    return unpickle.read_zip(archive, limits, budget)


class _Plain:
    """Replaces the stand-ins for arrays in an object by the arrays."""

    def __init__(self, read_storage: unpickle.Read | None, limits: Limits, budget: Budget):
        self._read_storage, self._limits, self._budget = read_storage, limits, budget
        self._count = 0

    def of(self, value: Any, depth: int = 0) -> Any:
        """The object with its arrays; raises UserError if it contains itself, or anything other
        than arrays, lists, dicts, texts and numbers.
        """
        self._count += 1
        self._limits.check("names", self._count, "an object of more parts")
        self._limits.check("depth", depth, "an object with more lists inside each other")
        if unpickle.is_array(value):
            return unpickle.array_of(value, self._read_storage, self._limits, self._budget)
        if isinstance(value, (list, tuple)):
            return [self.of(item, depth + 1) for item in value]
        if isinstance(value, dict):
            return {name: self.of(item, depth + 1) for name, item in value.items()}
        if isinstance(value, _PLAIN):
            return value
        raise UserError(
            f"holds a {type(value).__name__}; only arrays, lists, texts and numbers are allowed"
        )
