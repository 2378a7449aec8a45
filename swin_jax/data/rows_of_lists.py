"""Reads the rows of users' lists (tables, lines of JSON, a JSON list) and lists within a field."""

import collections
import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from swin_jax.core import text_files
from swin_jax.core.errors import UserError
from swin_jax.core.output.text import shown

_COCO = ("images", "annotations", "categories")
SPLIT = "split"  # the column that names the split a row belongs to
_MAX_LISTED = 100_000  # characters of a list within a field


def table_rows(path: str, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, fields) of every row that is not empty, with the row's last line."""
    reader = text_files.csv_reader(io.StringIO(text, newline=""), separator, strict=True)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise UserError(
            f"{path}:{reader.line_num}: {error}; is a quotation mark not closed?"
        ) from error


def objects(file: str, text: str, whole: bool) -> Iterator[tuple[str, Any]]:
    """Yields (place, value) of every JSON value in a list, or of each line unless `whole`."""
    if not whole:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"{file}:{number}", _json(f"{file}:{number}", line)
        return
    found = _records(file, _json(file, text))
    yield from ((f"{file}: entry {number}", entry) for number, entry in enumerate(found, 1))


def _records(file: str, found: Any) -> list[Any]:
    """The records of a JSON list, of {path: label}, or of COCO's images and their categories."""
    if isinstance(found, list):
        return found
    if isinstance(found, dict) and all(isinstance(found.get(key), list) for key in _COCO):
        return _categorized(file, *(found[key] for key in _COCO))
    if isinstance(found, dict) and found and all(os.path.splitext(path)[1] for path in found):
        if not any(isinstance(label, dict) for label in found.values()):
            return [{"path": path, "label": label} for path, label in found.items()]
    raise UserError(f'{file}: must be a list of {{"path": ..., "label": ...}}')


def _categorized(file: str, images: list, marks: list, categories: list) -> list[dict[str, Any]]:
    """One record for each image of iNaturalist or COCO, with the names of its categories."""
    try:
        names = {row["id"]: row["name"] for row in categories}
        # The keys of a dict serve as an ordered set.
        found = {row["id"]: {"path": row["file_name"], "label": {}} for row in images}
        for mark in marks:
            found[mark["image_id"]]["label"][names[mark["category_id"]]] = None
    except (LookupError, TypeError) as error:
        raise UserError(
            f'{file}: images need "id" and "file_name", annotations "image_id" and '
            '"category_id" of existing ones, categories "id" and "name" '
            f"({type(error).__name__}: {short(error)})"
        ) from error
    for rows, known, what in ((images, found, "images"), (categories, names, "categories")):
        if len(known) < len(rows):
            raise UserError(f"{file}: two {what} have the same id")
    if len(set(map(str, names.values()))) < len(names):
        raise UserError(f"{file}: two categories have the same name")
    return [record | {"label": list(record["label"])} for record in found.values()]


def _json(place: str, text: str) -> Any:
    try:
        return text_files.parse_json(text)
    except json.JSONDecodeError as error:
        line = f":{error.lineno}" if error.doc.count("\n") else ""
        raise UserError(f"{place}{line}: not JSON: {error.msg}") from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # integers of thousands of digits, thousands of brackets
        raise UserError(
            f"{place}: not JSON that can be read: {' '.join(str(error).split())[:200]}"
        ) from error


def refuse_splits(file: str, values: Sequence[Any]) -> None:
    """Raises UserError if the `split` fields of a list name several splits."""
    counts = collections.Counter(str(value).strip() for value in values if value not in (None, ""))
    if len(counts) > 1:
        known = ", ".join(f"{name} ({count})" for name, count in counts.most_common(10))
        raise UserError(
            f"{file} has rows of several splits, {short(known)}: "
            "write those of each split to a file of their own"
        )


def listed(text: str) -> list[Any] | None:
    """The values of a list that a program wrote into a field; None if the field is not a list.

    The list may be written as JSON, as a Python list or tuple, or as a NumPy array of strings.
    """
    text = text.strip()
    if text[:1] + text[-1:] not in ("[]", "()") or len(text) > _MAX_LISTED:
        return None
    for parse in (json.loads, text_files.parse_literal):
        try:
            found = parse(text)
        # Nested brackets raise the last ones.
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        return list(found) if isinstance(found, (list, tuple)) else None
    return None


def short(text: Any) -> str:
    """Shortens a text to one line of at most 100 characters, for messages."""
    return shown(text, 100)
