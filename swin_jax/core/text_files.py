"""Text files that people give: lists of files, names of classes."""

import ast
import collections
import csv
import io
import itertools
import json
import os
import re
import stat
import tokenize
from collections.abc import Iterable
from typing import Any

from swin_jax.core.errors import UserError

MAX_FIELD = 16 * 2**20  # characters of a field of a table; more are a quotation mark left open
_NEIGHBORS = re.compile(r"""['"]\s+['"]""")  # texts without a comma between them


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


def csv_reader(lines: Iterable[str], separator: str = ",", strict: bool = False):
    """`csv.reader` for fields of up to `MAX_FIELD` characters, where Python's limit is 131,072."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD))
    return csv.reader(lines, delimiter=separator, strict=strict)


def parse_json(text: str | bytes) -> Any:
    """The value that JSON stands for. An object with a key twice is refused:
    one of its values would be lost.

    Raises:
        ValueError: No JSON, or a key that appears twice, integers of thousands of digits.
        RecursionError: It is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_unique)


def parse_literal(text: str) -> Any:
    """The value of a literal of Python, or the list that an array of texts is in the print of
    NumPy, "['one' 'two']". A dict with a key twice is refused, as in `parse_json`, and so are
    texts that a missing comma would join.

    Raises:
        ValueError, SyntaxError, TypeError, MemoryError, RecursionError: No literal, or one that is
            refused.
    """
    text = text.strip()
    if _NEIGHBORS.search(text) and (found := _texts_side_by_side(text)) is not None:
        return found
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            _unique([(ast.literal_eval(key), None) for key in node.keys if key is not None])
    return ast.literal_eval(tree)


def _texts_side_by_side(text: str) -> list[str] | None:
    """The texts between brackets where no comma stands between any; None where none follow each
    other.
    """
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    try:
        tokens = [token for token in tokens if token.string.strip()]
    except tokenize.TokenError as error:
        raise ValueError(str(error)) from error
    kinds = [token.type == tokenize.STRING for token in tokens]
    if not any(one and following for one, following in itertools.pairwise(kinds)):
        return None
    if not all(kinds[1:-1]):
        raise ValueError("a comma between two texts is missing")
    return [ast.literal_eval(token.string) for token in tokens[1:-1]]


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = collections.Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {str(twice)[:40]!r} appears twice")
    return found


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
