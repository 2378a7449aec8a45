"""The folder of a run: made and tried before anything is computed, in a bucket too,
and one place for all hosts.
"""

import contextlib
import os
import pathlib
import time
import uuid
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from swin_jax.core import storage, workdirs
from swin_jax.core.errors import UserError


def make_workdir(folder: epath.Path) -> None:
    """Makes a workdir where there is none; raises UserError where that cannot be."""
    check_place(folder)
    try:
        if storage.is_remote(folder):
            _check_bucket(folder)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(13, "not writable")
    except OSError as error:
        raise UserError(
            f"--workdir={folder} cannot be used: {storage.reason(error)}{_weights_in(folder)}"
        ) from error


def _weights_in(folder: epath.Path) -> str:
    """Advice for a workdir with checkpoints that may be read but not written, as a colleague's."""
    with contextlib.suppress(OSError):
        if (folder / "checkpoints").is_dir():
            return (
                "; to use the weights in it, give a --workdir of your own, its experiment as "
                f"--config, and --config.init_from.path={folder}"
            )
    return ""


@contextlib.contextmanager
def writing_to(folder: str | os.PathLike | None) -> Iterator[None]:
    """A block that reads and writes a workdir, or elsewhere;
    raises UserError where a disk is full or gone, a file may not be used or is in the place of a
    folder.
    """
    try:
        with storage.permitted(), workdirs.current(folder):
            yield
    except (FileExistsError, NotADirectoryError) as error:
        if not error.filename:
            raise
        raise UserError(
            f"{error.filename} cannot be used: a file or a link is in the place of a folder; "
            "remove it or move it away"
        ) from error
    except OSError as error:
        if not storage.is_unwritable(error):
            raise
        where = error.filename or folder or "a file"
        raise UserError(
            f"{where} cannot be written: {storage.reason(error)}; "
            "the same command resumes once that is fixed"
        ) from error


def check_place(folder: epath.Path) -> None:
    """Raises UserError for a workdir whose name libraries would take for another one,
    and for one inside the checkpoints of a run, which would be damage to them.
    """
    _check_name(folder)
    if storage.is_remote(folder):
        return
    for path in dict.fromkeys((os.path.abspath(folder), os.path.realpath(folder))):
        inside = pathlib.Path(path)
        for place in (inside, *inside.parents):
            if place.name == "checkpoints" and _is_run(place.parent):
                raise UserError(
                    f"--workdir={folder} cannot be used: it is inside the checkpoints of a run, "
                    f"whose workdir is {place.parent}; give that, or a folder of its own"
                )


def _is_run(folder: pathlib.Path) -> bool:
    """True if a folder holds what a run writes at its start; a config.json alone many others do."""
    return all((folder / name).is_file() for name in ("config.json", "header.json"))


def _check_name(folder: epath.Path) -> None:
    """Raises UserError for a name that libraries below would take for another one."""
    # TensorStore writes a\\b to a/b. fsspec takes what it is to delete in a bucket for a pattern,
    # and gcsfs what follows a # for a version.
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:  # TensorStore and JSON take no other names
        raise UserError(
            f"--workdir={ascii(str(folder))} cannot be used: its name is not UTF-8; rename it"
        ) from error
    wrong = [c for c in ("*?[]#\\" if storage.is_remote(folder) else "\\") if c in str(folder)]
    if wrong:
        kind = "a bucket" if storage.is_remote(folder) else "a workdir"
        raise UserError(
            f"--workdir={folder} cannot be used: {wrong[0]} in the name of {kind} is taken for a "
            "pattern or a separator; give a folder without it"
        )


# What a run writes into its workdir, besides files that it replaces.
_FILES = "config.json", "header.json", "metrics.jsonl", "owner.json"
_FOLDERS = (
    *("checkpoints", "damaged_checkpoints", "pictures"),
    *("profile", "tables", "tensorboard"),
)


def check_entries(
    folder: epath.Path, files: Sequence[str] = _FILES, folders: Sequence[str] = _FOLDERS
) -> None:
    """Raises UserError where something of another kind has the name of a file or folder of a run.

    In a bucket nothing can.

    Args:
        folder: The workdir.
        files, folders: Names of what is about to be written, a folder before those in it.
    """
    if storage.is_remote(folder):
        return
    for name in (*files, *folders):
        path = folder / name
        right = path.is_file() if name in files else path.is_dir()
        if os.path.lexists(path) and not right:
            if path.is_dir():
                kind = "a folder"
            elif path.is_file():
                kind = "a file"
            else:
                kind = "no file or folder"
            if path.is_symlink():
                kind = (
                    f"a link to {os.readlink(path)}, which is "
                    f"{kind if path.exists() else 'not there'}"
                )
            raise UserError(f"{path} cannot be used: it is {kind}; remove it or move it away")


def check_shared(folder: epath.Path, patience: float = 10) -> None:
    """Checks that what one process writes to the workdir the others see,
    within some seconds; call it on all processes.

    Raises:
        UserError: On all of them where one does not.
    """
    if jax.process_count() == 1:
        return
    # Process 0 says the name after it has written the file:
    # file systems remember for a while what is not there.
    number = np.int32(uuid.uuid4().int % 2**31)
    if jax.process_index() == 0:
        storage.write(folder / f"seen_{number}", b"")
    token = folder / f"seen_{int(multihost_utils.broadcast_one_to_all(number))}"
    end = time.monotonic() + patience
    while not (seen := token.exists()) and time.monotonic() < end:
        time.sleep(0.2)
    seen = multihost_utils.process_allgather(np.int32(seen)).ravel()
    if jax.process_index() == 0:
        token.unlink()
    if not seen.all():
        raise UserError(
            f"--workdir={folder} is not one place for all hosts: process "
            f"{int(seen.argmin())} does not see what process 0 writes there; give a folder "
            "that they share, or gs://BUCKET/..."
        )


def _check_bucket(folder: epath.Path) -> None:
    """Raises OSError where checkpoints cannot be kept, whatever the store raised;
    a folder cannot be made there.
    """
    trial = folder / f"trial_{uuid.uuid4().hex}"
    try:
        storage.write(trial, b"")
        trial.unlink()
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise OSError(f"no object can be written there ({type(error).__name__}: {text})") from error
    from orbax.checkpoint._src.path import gcs_utils  # where Orbax changes it, local runs go on

    try:
        # Orbax asks it before it deletes an old checkpoint.
        gcs_utils.is_hierarchical_namespace_enabled(folder)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise OSError(
            f"the bucket does not say of what kind it is ({type(error).__name__}: {text}); "
            "give the service account the role Storage Legacy Bucket Reader as well"
        ) from error
