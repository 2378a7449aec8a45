"""Opens untrusted files; any error becomes a UserError of one line that names the file."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from swin_jax.core.errors import UserError


@contextlib.contextmanager
def opened(path: str | os.PathLike, kind: str) -> Iterator[BinaryIO]:
    """Context manager that opens a file and turns errors of its reader into a UserError.

    Args:
        path: The file.
        kind: The kind of file that is expected, for messages: 'a file of weights'.
    """
    path = Path(path)
    try:
        with open(path, "rb", opener=_open) as file:
            yield file
    except UserError as error:
        raise error.about(path) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged file can provoke any error in the readers
        reason = " ".join(str(error)[:2000].split())[:300] or type(error).__name__
        raise UserError(f"{path}: not {kind}, or it is damaged: {reason}") from error


def _open(path: str, flags: int) -> int:
    """Opens a regular file; refuses folders, pipes and devices, which could block or never end."""
    found = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(found).st_mode
    if not stat.S_ISREG(mode):
        os.close(found)
        raise UserError(
            f"cannot be read: it is a {'folder' if stat.S_ISDIR(mode) else 'pipe or a device'}"
        )
    return found
