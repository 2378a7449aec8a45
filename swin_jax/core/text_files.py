"""Text files that people give: lists of files, names of classes."""

import os
import stat

from swin_jax.core.errors import UserError


def read(path: str | os.PathLike) -> str:
    """The text of a UTF-8 file, with or without a mark; line ends stay as they are.

    Raises:
        UserError: The file cannot be read, is not UTF-8, or is a pipe or device, which may never end.
    """
    try:
        with open(os.path.expanduser(path), "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError("it is a pipe or a device, not a file")
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is not UTF-8 text") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
