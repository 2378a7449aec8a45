"""Finds checkpoints, tells whether their files are what was saved,
and which errors are damage or may pass.
"""

import json
import math
import os
import pathlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from swin_jax.core import storage
from swin_jax.core.errors import UserError

CHECKSUMS = "checksums.json"
SEALED = "sealed"  # key of the meta data of a checkpoint that was saved with checksums

# Arrays that take no more bytes are read whatever their files are; of larger ones a byte of the
# files may stand for so many, far more than any weights that were trained.
_SMALL, _PACKED = 2**26, 100

# What reading raises of files that are missing or not what was saved. Memory, rights and networks
# raise other types, or a ValueError of TensorStore's with one of these words or with the number of
# an error other than ENOENT.
_DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    FileNotFoundError,
    NotADirectoryError,
)
_PASSING = re.compile(
    r"\b(UNAVAILABLE|RESOURCE_EXHAUSTED|PERMISSION_DENIED|UNAUTHENTICATED|DEADLINE_EXCEEDED"
    r"|ABORTED|CANCELLED|INTERNAL|UNKNOWN)\b|os_error_code='(?!2')"
)


def steps_in(directory: epath.Path) -> list[int]:
    """The steps of the checkpoints in a folder, the newest first."""
    while True:
        found = []
        if directory.is_dir():
            found = [entry for entry in directory.iterdir() if _is_step(entry.name)]
        steps = [
            int(entry.name)
            for entry in found
            if _exists(entry) and ocp.utils.is_checkpoint_finalized(entry)
        ]
        # One that is gone has given way to a newer one, which the list may lack.
        if all(map(_exists, found)):
            return sorted(steps, reverse=True)


def _exists(entry: epath.Path) -> bool:
    """False if a run at work has removed a checkpoint since it was listed."""
    return storage.is_remote(entry) or os.path.lexists(entry)


def newest_first(directory: epath.Path) -> Iterator[epath.Path]:
    """The checkpoints in a folder, listed anew each time,
    because a run at work replaces them.
    """
    seen: list[int] = []
    while left := [step for step in steps_in(directory) if step not in seen]:
        seen.append(left[0])
        yield directory / str(left[0])


def is_passed(path: epath.Path, newest: int) -> bool:
    """True if a run at work has removed a checkpoint, or saved one newer than `newest`,
    since they were listed.
    """
    return not path.exists() or any(step > newest for step in steps_in(path.parent))


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdecimal() and name == str(int(name))


def write_checksums(directory: epath.Path) -> None:
    for path in directory.glob("*.orbax-checkpoint-tmp*") if jax.process_index() == 0 else ():
        storage.write(path / CHECKSUMS, json.dumps(_checksums(path), indent=1) + "\n")


def _checksums(path: epath.Path, names: Iterable[str] | None = None) -> dict[str, int]:
    """The CRC-32 of every file in the parts of a checkpoint, or of those with these names."""
    sums = {}
    for name, file in _files(path).items():
        if names is not None and name not in names:
            continue
        value = 0
        with file.open("rb") as stream:
            while block := stream.read(2**22):
                value = zlib.crc32(block, value)
        sums[name] = value
    return sums


def _files(path: epath.Path) -> dict[str, pathlib.Path]:
    """The files in the parts of a checkpoint by their names, paths below it."""
    files = sorted(file for file in pathlib.Path(path).glob("*/**/*") if file.is_file())
    return {str(file.relative_to(path)): file for file in files}


def check_whole(path: epath.Path, part: int = 0, parts: int = 1) -> None:
    """Raises ValueError if a file of a checkpoint, one of this part, is not what was saved.

    Files that were not saved are no damage: Finder, Windows, file servers and programs that
    synchronize folders leave files of their own in any folder, and nothing reads them. A bucket
    checks its objects itself, and old checkpoints have no checksums.
    """
    if storage.is_remote(path):
        return
    if not (path / CHECKSUMS).is_file():
        if (path / CHECKSUMS).exists() or _meta(path).get(SEALED):
            raise ValueError(f"{CHECKSUMS} is missing")
        return
    saved = _object(path / CHECKSUMS)
    if not saved:
        raise ValueError(f"{CHECKSUMS} is not what was saved")
    missing = saved.keys() - _files(path).keys()
    own = sorted(saved.keys() - missing)[part::parts]
    found = _checksums(path, own)
    wrong = sorted(missing | {name for name in own if saved[name] != found.get(name)})
    if wrong:
        raise ValueError(f"{wrong[0]} is not what was saved")


def check_sizes(path: epath.Path, tree: Any) -> None:
    """Raises ValueError where arrays are said to be far larger than the files that hold them.

    Args:
        path: A part of a checkpoint, `<step>/params` for example.
        tree: Orbax's description of the arrays to read.
    """
    if storage.is_remote(path):
        return
    leaves = [leaf for leaf in jax.tree.leaves(tree) if getattr(leaf, "shape", None)]
    claimed = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
    held = sum(file.stat().st_size for file in pathlib.Path(path).rglob("*") if file.is_file())
    if claimed > _SMALL + _PACKED * held:
        raise ValueError(f"its arrays would take {claimed} bytes, and its files have {held}")


def _meta(path: epath.Path) -> dict[str, Any]:
    """The meta data of a checkpoint as Orbax has written it."""
    return _object(path / "meta" / "metadata")


def check_file(path: epath.Path) -> None:
    """Raises ValueError for a folder, a pipe or a device in the place of a file;
    reading a pipe would never end.
    """
    # A bucket, where neither is, has files only.
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path.name} is a folder, a pipe or a device")


def _object(path: epath.Path) -> dict[str, Any]:
    """The JSON object in a file; raises ValueError, or what reading raises."""
    check_file(path)
    try:
        found = json.loads(storage.read_text(path))
    except RecursionError as error:
        raise ValueError(f"{path.name} is not what was saved") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is not what was saved")
    return found


def is_damage(error: Exception) -> bool:
    """True if an error is of the files themselves, and no trouble in reading, which may pass."""
    if isinstance(error, UserError):  # a ValueError too, of a package that is missing for example
        return False
    return isinstance(error, _DAMAGE) and not _PASSING.search(str(error))


def unreadable(path: epath.Path, error: Exception) -> UserError:
    return UserError(
        f"cannot read the checkpoint {path}: {storage.first_line(error)}. It was left in "
        "place; rerun to retry, or move it away to resume from the previous one"
    )


class DamagedError(Exception):
    """A checkpoint's files are not what was saved; on all processes."""


def read_together(read: Callable[..., Any], path: epath.Path, *arguments: Any) -> Any:
    """Runs `read(path, *arguments)` on every process and fails on all if it fails on one.

    Raises:
        DamagedError: On all processes, if one found damage and none had trouble in reading.
        UserError: On all processes, if one had trouble in reading.
    """
    error, found = None, None
    try:
        found = read(path, *arguments)
    except Exception as caught:  # whatever the storage raised
        error = caught
    if error is None:
        verdict = 0
    elif is_damage(error):
        verdict = 1
    else:
        verdict = 2
    verdicts = multihost_utils.process_allgather(np.int32(verdict)).ravel()
    worst = int(verdicts.argmax())
    if not verdicts[worst]:
        return found
    if verdict < verdicts[worst]:
        error = ValueError(
            f"process {worst} found a file that is not what was saved, or could not read one"
        )
    raise (
        unreadable(path, error) if verdicts[worst] == 2 else DamagedError(storage.first_line(error))
    ) from error
