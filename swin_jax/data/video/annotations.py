"""Annotation lists of videos, in the forms in which data sets publish them.

| file | a record |
|---|---|
| text | `path.mp4 3` |
| .csv, .tsv | columns of a path and a label, named or not: `path,label` |
| .csv | Kinetics': `label,youtube_id,time_start,time_end,split` |
| .json | `{"filename": "path.mp4", "label": 3}` in a list |
| .json | Something-Something v2's: `{"id": "78687", "template": "Holding [something]"}` in a list |
| .jsonl | `{"video": "path.mp4", "label": "run"}` on each line |

Kinetics and Something-Something name no files but what files are called after.
"""

import collections
import dataclasses
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from swin_jax.core import labels
from swin_jax.core.errors import UserError
from swin_jax.data.annotations import read_text, short, table_rows

PATH_KEYS = ("filename", "path", "video", "file", "video_path", "filepath", "file_name", "video_name", "file_path")
LABEL_KEYS = ("label", "class", "label_name", "class_name", "action", "category", "target", "class_id")
_IDS = ("youtube_id", "time_start", "time_end")
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_NO_LABELS = "has no labels, as the list of a test set"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A record of a list.

    Attributes:
      place: file and line, or number of the entry, for messages.
      names: its path; or what its file may be called, without a suffix, the best first.
      label: a number or the name of a class.
    """

    place: str
    names: tuple[str, ...]
    label: int | str


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What a list says.

    Attributes:
      entries: one for a record, to be iterated over once; a malformed record raises UserError then.
      has_paths: if False, entries name no paths but what files are called.
    """

    entries: Iterator[Entry]
    has_paths: bool


def read(path: str) -> Annotations:
    """Reads a list of any of the forms above, by its suffix and what it begins with.

    Raises:
      UserError: It is missing, no UTF-8 text, or a record is malformed; names file and line.
    """
    text, suffix = read_text(path), os.path.splitext(path)[1].lower()
    if suffix == ".json":
        return _read_json(path, text)
    if suffix in (".jsonl", ".ndjson"):
        return _annotations(_json_lines(path, text))
    if suffix in _SEPARATORS and _SEPARATORS[suffix] in text:
        return _read_table(path, text, _SEPARATORS[suffix])
    return _annotations(_lines(path, text))


def read_names(path: str) -> tuple[str, ...]:
    """The names of classes in the order of their labels.

    Args:
      path: A text file with a name on each line, or .json: a list, or Something-Something's labels.json, which maps
        names to labels.

    Raises:
      UserError: The file is missing, malformed, or names a class twice.
    """
    if path.lower().endswith(".json"):
        names = _names_of(path, _parse(path, read_text(path)))
    else:
        names = labels.read_names(path)
    if not names:
        raise UserError(f"{path} names no classes")
    (name, count), *_ = collections.Counter(names).most_common(1)
    if count > 1:
        raise UserError(f"{path} names the class {short(repr(name))} twice")
    return tuple(names)


def _annotations(entries: Iterable[Entry], has_paths: bool = True) -> Annotations:
    return Annotations(iter(entries), has_paths)


def _lines(path: str, text: str) -> Iterator[Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2 or not fields[1].isdecimal():
            hint = "; paths with spaces need a .csv or .json list" if len(fields) > 2 else ""
            shown = short(repr(line))
            raise UserError(f"{path}:{number}: write `path label`, label a number from 0, not {shown}{hint}")
        yield Entry(f"{path}:{number}", (fields[0],), _number(fields[1]))


def _read_table(path: str, text: str, separator: str) -> Annotations:
    rows = table_rows(path, text, separator)
    first = next(rows, None)
    if first is None:
        return _annotations(())
    names = [name.strip().lower() for name in first[1]]
    if set(_IDS) <= set(names):
        return _annotations(_kinetics(path, names, rows), has_paths=False)
    paths, labels = ([key for key in names if key in known] for known in (PATH_KEYS, LABEL_KEYS))
    if len(paths) == 1 and len(labels) == 1:
        columns = names.index(paths[0]), names.index(labels[0])
    elif paths and any(name in LABEL_KEYS + PATH_KEYS for name in names[1:]):
        raise UserError(f"{path}:1: one column of a path and one of a label are needed, not {short(', '.join(names))}")
    elif len(names) == 1 and paths:
        raise UserError(f"{path} {_NO_LABELS}")
    else:
        second = list(itertools.islice(rows, 1))
        if second and not _has_suffix(first[1]) and _has_suffix(second[0][1]):
            raise UserError(f"{path}:1: call the columns path and label, not {short(', '.join(first[1]))}")
        names, columns, rows = ["path", "label"], (0, 1), itertools.chain([first], second, rows)
    return _annotations(_table_entries(path, names, columns, rows))


def _has_suffix(fields: Sequence[str]) -> bool:
    return bool(os.path.splitext(fields[0].strip())[1])


def _table_entries(path: str, names: Sequence[str], columns: tuple[int, int], rows: Iterable) -> Iterator[Entry]:
    for line, fields in rows:
        if len(fields) != len(names):
            form = ",".join(names)
            raise UserError(
                f"{path}:{line}: has {len(fields)} fields, not the {len(names)} of `{short(form)}`; a field with the "
                "separator in it stands in quotation marks"
            )
        name, label = (fields[column].strip() for column in columns)
        if not name or not label:
            raise UserError(f"{path}:{line}: needs a path and a label, not {short(repr(fields))}")
        yield Entry(f"{path}:{line}", (name,), _label(label))


def _kinetics(path: str, names: Sequence[str], rows: Iterable) -> Iterator[Entry]:
    """Entries of Kinetics' files, which are called ID_START_END or ID, with times in seconds of six digits."""
    if "label" not in names:
        raise UserError(f"{path} {_NO_LABELS}")
    for line, fields in rows:
        row = dict(zip(names, (field.strip() for field in fields)))
        times = [row.get(key, "") for key in _IDS[1:]]
        if len(fields) != len(names) or not row["youtube_id"] or not all(map(_is_seconds, times)):
            raise UserError(f"{path}:{line}: malformed, {short(repr(','.join(fields)))}")
        if not row["label"]:
            raise UserError(f"{path}:{line}: {_NO_LABELS}")
        start, end = (int(float(time)) for time in times)
        number = row["youtube_id"]
        yield Entry(f"{path}:{line}", (f"{number}_{start:06d}_{end:06d}", number), row["label"])


def _is_seconds(text: str) -> bool:
    return re.fullmatch(r"\d{1,9}(\.\d{0,9})?", text, re.ASCII) is not None


def _read_json(path: str, text: str) -> Annotations:
    entries = _parse(path, text)
    if not isinstance(entries, list):
        raise UserError(f'{path}: must be a list of {{"filename": ..., "label": ...}}')
    first = entries[0] if entries and isinstance(entries[0], dict) else {}
    if "id" in first and not any(key in first for key in PATH_KEYS):
        return _annotations(_something(path, entries), has_paths=False)
    places = ((f"{path}: entry {number}", entry) for number, entry in enumerate(entries, 1))
    return _annotations(Entry(place, *_record(place, entry)) for place, entry in places)


def _something(path: str, entries: Sequence[Any]) -> Iterator[Entry]:
    """Entries of Something-Something v2, whose label is the template without its brackets."""
    for number, entry in enumerate(entries, 1):
        place = f"{path}: entry {number}"
        entry = entry if isinstance(entry, dict) else {}
        name, template = entry.get("id"), entry.get("template")
        if template is None and "label" not in entry:
            raise UserError(f"{place}: {_NO_LABELS}")
        if type(name) not in (str, int) or not isinstance(template, str) or not template.strip():
            raise UserError(f'{place}: needs an "id" and a "template"')
        yield Entry(place, (str(name),), template.replace("[", "").replace("]", "").strip())


def _json_lines(path: str, text: str) -> Iterator[Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{path}:{number}"
            yield Entry(place, *_record(place, _parse(place, line)))


def _record(place: str, entry: Any) -> tuple[tuple[str], int | str]:
    entry = entry if isinstance(entry, dict) else {}
    paths, labels = ([entry[key] for key in known if key in entry] for known in (PATH_KEYS, LABEL_KEYS))
    label = labels[0] if len(labels) == 1 else None
    label = label[0] if isinstance(label, list) and len(label) == 1 else label
    if len(paths) != 1 or not isinstance(paths[0], str) or not paths[0]:
        raise UserError(f"{place}: needs a filename and one label")
    if isinstance(label, str) and label.strip():
        return (paths[0],), _label(label.strip())
    if type(label) is not int or label < 0:
        raise UserError(f"{place}: needs a filename and one label, a number from 0 or a name")
    return (paths[0],), label


def _parse(place: str, text: str) -> Any:
    try:
        return json.loads(text, parse_int=_number)
    except json.JSONDecodeError as error:
        line = "" if re.search(r":\d+$", place) else f":{error.lineno}"
        raise UserError(f"{place}{line}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise UserError(f"{place}: not a list of records but lists in lists") from error


def _names_of(path: str, value: Any) -> list[str]:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return value
    numbers = [_label(str(number)) for number in value.values()] if isinstance(value, dict) else [None]
    if set(numbers) != set(range(len(numbers))):
        raise UserError(f"{path} must map the names of classes to the numbers from 0 on, or list them")
    return [name for _, name in sorted(zip(numbers, value))]


def _label(text: str) -> int | str:
    return _number(text) if text.isdecimal() and text.isascii() else text


def _number(digits: str) -> int:
    """Python refuses to read more than 4300 digits; no label has so many that the first ones would not tell."""
    return int(digits[:100])
