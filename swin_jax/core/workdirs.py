"""Folders of runs, which nobody means as data, wherever they lie."""

import contextlib
import contextvars
import os
from collections.abc import Iterator

# The workdir of the command that runs: it may be empty yet.
_CURRENT: contextvars.ContextVar[str] = contextvars.ContextVar("workdir", default="")


@contextlib.contextmanager
def current(folder: str | os.PathLike | None) -> Iterator[None]:
    """Context in which a folder counts as a workdir, before a run has written anything there."""
    token = _CURRENT.set(os.path.realpath(folder) if folder else "")
    try:
        yield
    finally:
        _CURRENT.reset(token)


def is_workdir(folder: str | os.PathLike) -> bool:
    """True for the workdir of a run: that of this command, or a folder with a run's files."""
    if _CURRENT.get() and os.path.realpath(folder) == _CURRENT.get():
        return True
    inside = (os.path.join(folder, name) for name in ("config.json", "header.json"))
    return all(map(os.path.isfile, inside))
