"""The file of an index: the features of the pictures in a folder, and what made them."""

import dataclasses
import json
import os
import zipfile

import numpy as np

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.core.public_names import current_names
from swin_jax.pretrained.files.archive import arrays_of

_FORMAT = 1
_RENAMED = {"normalised": "normalized"}  # arrays of older files
_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    MemoryError,
    RecursionError,
    zipfile.BadZipFile,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """Features of N pictures.

    Attributes:
        root: Folder of the pictures.
        names: Paths relative to it.
        features: (N, E) float32.
        normalized: True if they are of unit length.
        stamps: (N, 2) int64, size in bytes and time of change in ns of each file when it was read.
        model: The model that made them, in words.
        checksum: Checksum of the network that made them.
        preparation: Fingerprint of how pictures were prepared, '' if that is not known.
        complete: True if all pictures were read, False if that was interrupted.
    """

    root: str
    names: tuple[str, ...]
    features: np.ndarray
    normalized: bool
    stamps: np.ndarray
    model: str
    checksum: str
    preparation: str = ""
    complete: bool = True

    def __len__(self) -> int:
        return len(self.names)


def save(index: Index, path: str | os.PathLike) -> None:
    """Writes an index, wholly or not at all; numpy reads the file too,
    an array for each attribute.
    """
    arrays = {field.name: getattr(index, field.name) for field in dataclasses.fields(Index)}
    try:
        with storage.writing(path) as file:
            np.savez(file, format=_FORMAT, **{**arrays, "names": np.array(index.names, str)})
    except OSError as error:
        raise UserError(
            f"the index cannot be written to {path}: {storage.reason(error)}"
        ) from error


def load(path: str | os.PathLike) -> Index:
    """Reads an index; raises UserError if there is none."""
    if not storage.path(path).is_file():
        raise UserError(f"there is no index {path}")
    try:
        with storage.path(path).open("rb") as file:
            stored = {_RENAMED.get(name, name): array for name, array in arrays_of(file).items()}
        if int(stored["format"]) == _FORMAT:
            return _index_of(stored)
    except _DAMAGE as error:
        raise UserError(f"{path} is not an index ({' '.join(str(error).split())[:300]})") from error
    raise UserError(f"{path} is an index of another version; rebuild it")


def _index_of(stored: dict[str, np.ndarray]) -> Index:
    names, vectors, stamps = (stored[name] for name in ("names", "features", "stamps"))
    if not _fit(names, vectors, stamps):
        raise ValueError("its arrays do not fit each other")
    return Index(
        names=tuple(names.tolist()),
        features=vectors,
        stamps=stamps,
        normalized=bool(stored["normalized"]),
        complete=bool(stored["complete"]),
        **{name: str(stored[name]) for name in ("root", "model", "checksum")},
        preparation=_current(str(stored["preparation"])),
    )


def _fit(names: np.ndarray, vectors: np.ndarray, stamps: np.ndarray) -> bool:
    """True if arrays are those of one index: (N,) texts, (N, E) floating point, (N, 2) integers."""
    shapes = (
        names.ndim == 1
        and vectors.ndim == 2
        and len(vectors) == len(names)
        and stamps.shape == (len(names), 2)
    )
    return shapes and (names.dtype.kind, vectors.dtype.kind, stamps.dtype.kind) == ("U", "f", "i")


def _current(preparation: str) -> str:
    """The fingerprint of a preparation, with the names that callables have today."""
    if preparation.startswith("{"):
        return json.dumps(current_names(json.loads(preparation)))
    return preparation
