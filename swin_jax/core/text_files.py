"""Text files that people give: lists of files, names of classes."""

import json
import os
import stat
from typing import Any

from swin_jax.core.errors import UserError


def read(path: str | os.PathLike) -> str:
    """The text of a UTF-8 file, with or without a mark; line ends stay as they are.

    Raises:
        UserError: The file cannot be read, is not UTF-8, or is a pipe or device,
            which may never end.
    """
    try:
        return read_bytes(os.path.expanduser(path)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is not UTF-8 text") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UserError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
        ) from error


def read_bytes(path: str | os.PathLike, most: int = -1) -> bytes:
    """The first `most` bytes of a file, or all; OSError also for a pipe or device,
    which may never end.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is a pipe or a device, not a file")
        return file.read(most)


def parse_json(text: str | bytes) -> Any:
    """The value that JSON stands for. An object with a key twice is refused:
    one of its values would be lost.

    Raises:
        ValueError: No JSON, or a key that appears twice, integers of thousands of digits.
        RecursionError: It is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(
            f"the key {next(key for key in keys if keys.count(key) > 1)[:40]!r} appears twice"
        )
    return found


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
