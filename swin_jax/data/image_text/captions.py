"""Captions as they lie in people's files, checked: what cannot be one makes its record unreadable.

Training replaces an unreadable record by the next one and counts it; an evaluation names it.
"""

import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from swin_jax.core import text_files
from swin_jax.core.errors import UnreadableError
from swin_jax.data.rows_of_lists import listed

MAX_CHARACTERS = 100_000  # of a caption; a model reads a few hundred
MAX_NESTED = (
    64  # HTML entities in each other, as `&amp;amp;`; cleaning text resolves one after the other
)
_ENTITY = re.compile("&#?[0-9A-Za-z]{1,24};")  # as ftfy takes them
MAX_BYTES = 2**24  # of what captions are read from: a text file, a line, a member of a tar


def parse_json(data: bytes | str) -> Any:
    """The value that JSON stands for; raises UnreadableError where it is damaged
    or beyond Python's limits.
    """
    _check_length(data)
    try:
        return text_files.parse_json(data)
    except json.JSONDecodeError as error:
        raise UnreadableError(
            f"not JSON: {error.msg}, at character {error.pos + 1} of the line"
        ) from error
    except UnicodeDecodeError as error:
        raise UnreadableError(f"not UTF-8, at byte {error.start + 1}") from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # integers of thousands of digits, thousands of brackets
        raise UnreadableError(f"not JSON that can be read: {error}") from error


def decode_text(data: bytes) -> str:
    """The text of a UTF-8 file, with or without a mark, stripped;
    raises UnreadableError for other encodings.
    """
    _check_length(data)
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UnreadableError(f"the caption is not UTF-8, at byte {error.start + 1}") from error


def from_text(data: bytes, lines: bool) -> tuple[str, ...]:
    """The caption in a text file, or with `lines` one for each line;
    raises UnreadableError as `decode_text`.
    """
    text = decode_text(data)
    # Not `splitlines`, which ends a line at signs within captions too, such as U+2028.
    return tuple(line.strip() for line in io.StringIO(text, newline=None)) if lines else (text,)


def captions_of(texts: Sequence[str]) -> tuple[str, ...]:
    """The texts that are captions, not blank.

    Raises:
        UnreadableError: There is none, or one is not text that can be tokenized: binary
            data, which has NULs, half a character, more than MAX_CHARACTERS, or entities
            nested more than MAX_NESTED deep.
    """
    if not texts:
        raise UnreadableError("no caption")
    captions = tuple(text for text in texts if text.strip())
    if not captions:
        raise UnreadableError("the caption is empty")
    for text in captions:
        if len(text) > MAX_CHARACTERS:
            raise UnreadableError(
                f"a caption of {len(text):,} characters, more than {MAX_CHARACTERS:,}"
            )
        if "\0" in text:
            raise UnreadableError("the caption has NUL characters: it is binary or not UTF-8")
        if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
            raise UnreadableError("the caption has half a surrogate pair, which is not a character")
        if is_nested(text):
            raise UnreadableError(
                f"the caption has HTML entities nested more than {MAX_NESTED} deep"
            )
    return captions


def is_nested(text: str) -> bool:
    """True if HTML entities are nested more than MAX_NESTED deep."""
    for _ in range(MAX_NESTED + 1):
        if "&" not in text:
            return False
        before, text = text, _ENTITY.sub(lambda found: html.unescape(found[0]), text)
        if text == before:
            return False
    return True


def texts_of(record: Any, key: str) -> tuple[str, ...]:
    """The texts of a record under `key`: a caption, several, or none where there is null.

    Several may be written as a list within a text, see `rows_of_lists.listed`. Raises
    UnreadableError for others.
    """
    value = value_of(record, key, "text_key")
    inside = listed(value) if isinstance(value, str) else None
    if inside is not None and (not inside or any(isinstance(text, str) for text in inside)):
        value = inside
    if not isinstance(value, (str, list, type(None))):
        raise UnreadableError(f"{key!r} is neither a caption nor a list of captions")
    texts = value if isinstance(value, list) else [value]
    for number, text in enumerate(texts, 1):
        if not isinstance(text, (str, type(None))):
            raise UnreadableError(f"caption {number} of {key!r} is not text but {str(text)[:40]}")
    return tuple(text for text in texts if text is not None)


def value_of(record: Any, key: str, argument: str) -> Any:
    """The value of a JSON record; raises UnreadableError, naming the source's argument,
    where the key is missing.
    """
    if not isinstance(record, Mapping):
        raise UnreadableError("not a JSON object")
    if key not in record:
        keys = ", ".join(map(repr, list(record)[:20])) or "none"
        raise UnreadableError(
            f"no key {key!r}; it has {keys}: give --config.data.source.{argument}="
        )
    return record[key]


def _check_length(data: bytes | str) -> None:
    if len(data) > MAX_BYTES:
        raise UnreadableError(f"a text of more than {MAX_BYTES:,} bytes")
