"""Files of arrays that have no names: one of NumPy (.npy),
or lists of them in a pickle or a file of `torch.save`.
"""

import os
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.pretrained.files import unpickle
from swin_jax.pretrained.files.archive import Archive, read_npy
from swin_jax.pretrained.files.limits import DEFAULT, Budget, Limits
from swin_jax.pretrained.files.opening import opened

_KINDS = ".npy .pt .pkl"
_PLAIN = (str, bytes, bool, int, float, type(None), np.generic)


def read_object(path: str | os.PathLike, limits: Limits = DEFAULT) -> Any:
    """The object in a .npy, .pt or .pkl file, without running foreign code;
    told apart by its content.

    Args:
        path: The file; one without a suffix will do.
        limits: Limits on the file.

    Returns:
        A read-only array, or lists and dicts of arrays, texts and numbers; tuples become lists.

    Raises:
        UserError: No such file, a damaged one, one that asks for more than the limits or wants to
            run code, or one that holds anything else.
    """
    with opened(path, f"a file of arrays ({_KINDS})") as file:
        size = os.fstat(file.fileno()).st_size
        budget = Budget(limits, size)
        head = file.read(8)
        file.seek(0)
        if head.startswith(b"\x93NUMPY"):
            return read_npy(file.read(), "it", limits)
        if head.startswith(b"PK\x03\x04"):
            archive = Archive(file, limits, budget)
            if not archive.find("data.pkl"):
                raise UserError(
                    "an archive of arrays with names; one array, or a list of them, is expected"
                )
            value, read_storage = unpickle.read_zip(archive, limits, budget)
        else:
            value, read_storage = unpickle.read_stream(file, limits, budget)
        return _Plain(read_storage, limits, budget).of(value)


class _Plain:
    """Puts arrays in the places of what stands for them in an object."""

    def __init__(self, read_storage: unpickle.Read | None, limits: Limits, budget: Budget):
        self._read_storage, self._limits, self._budget = read_storage, limits, budget
        self._count = 0

    def of(self, value: Any, depth: int = 0) -> Any:
        """The object; raises UserError for one that holds itself or anything but arrays, lists,
        texts and numbers.
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
            f"holds a {type(value).__name__} in place of arrays, lists, texts and numbers"
        )
