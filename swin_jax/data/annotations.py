"""Lists of files and their labels: csv and tsv, lines of `path label`, JSON lines, a JSON list.

A list is read completely when a source is made, so every mistake in it is reported at that point,
with file and line.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from swin_jax.core import text_files
from swin_jax.core.errors import UserError, warn
from swin_jax.data.label_numbers import Annotations, Entry, numbered, once, tell_repeated
from swin_jax.data.labels import UNKNOWN
from swin_jax.data.rows_of_lists import SPLIT, listed, objects, refuse_splits, short, table_rows

PATH_KEYS = tuple(
    "path image video filename file_name filepath file_path image_path video_path file "
    "video_name name".split()
)
LABEL_KEYS = tuple(
    "label labels class classes target targets label_name class_name action category".split()
)
# What follows the split's name in the name of a list beside the split's folder.
BESIDE = (".csv", ".tsv", ".jsonl", ".json", ".txt", "_map.txt")
_TABLES = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_UNNAMED = re.compile(r"(Unnamed: \d+)?")
# Marks of a class, including what pandas writes for columns with gaps or booleans.
_MARKS = {
    "0": 0,
    "1": 1,
    "-1": UNKNOWN,
    "": UNKNOWN,
    "0.0": 0,
    "1.0": 1,
    "-1.0": UNKNOWN,
    "False": 0,
    "True": 1,
}


def read(file: str, class_names: str = "", num_classes: int = 0) -> Annotations:
    """Reads a list of files and their labels.

    The form depends on the ending of the file's name:

    - .csv, .tsv: columns in any order if the first line names them (`PATH_KEYS`, `LABEL_KEYS`),
      otherwise path and label. A column of 0, 1 and -1 (not known) for each class gives files
      several labels. Named columns may also be separated by semicolons.
    - .jsonl: one object per line, {"path": ..., "label": number, name or list}; .json: a list
      of such objects, {path: label}, or images, annotations and categories as in
      iNaturalist's and COCO's files.
    - others: lines of `path label`, separated by a tab or by the last blank,
      as in the official train_map.txt.

    If no path has a slash, backslashes are read as the separators of Windows paths. Several labels
    of a file are separated by `;` or `|` (numbers also by commas), or written as a list,
    ['cat', 'dog']. If a list gives both the number and the name of each class, for example in
    columns `label` and `label_name`, the names become the class names.

    Args:
        file: The list, UTF-8.
        class_names: A text file of one name per line, in label order;
            '' takes the names in the list, sorted, or the numbers.
        num_classes: Number of classes, needed if labels are numbers and the highest ones do not
            occur; 0 counts them from the list.

    Returns:
        The list, each file once; a warning counts the rows that repeat a file. Raises UserError,
        naming file and line, if something is missing or malformed, if a path is listed twice with
        different labels, if a label is not a class, and if the column `split` names several splits.
    """
    entries = _entries(file)
    if not isinstance(entries, Annotations):
        if not entries:
            raise UserError(f"{file} lists no files")
        entries = numbered(file, once(file, entries), class_names, num_classes)
    return replace(entries, paths=with_slashes(entries.paths))


def with_slashes(paths: Sequence[str]) -> tuple[str, ...]:
    """Replaces the backslashes of Windows paths by slashes, unless a path has a slash already."""
    if any("/" in path for path in paths):
        return tuple(paths)
    return tuple(path.replace("\\", "/") for path in paths)


def beside(root: str, split: str) -> tuple[str, str]:
    """Finds the list of a split in a folder, 'split.csv' or another ending of `BESIDE`.

    Args:
        root: The folder.
        split: Name of the split, such as 'train'.

    Returns:
        (path of the list, path of the class names 'classes.txt'), each '' if there is none.
        Raises UserError if there are several lists.
    """
    # A broken link counts as present, so that reading it fails:
    # without the names, labels would be taken as numbers.
    lists = [
        name
        for name in (f"{split}{ending}" for ending in BESIDE)
        if os.path.lexists(os.path.join(root, name))
    ]
    if len(lists) > 1:
        raise UserError(f"{root} has several lists for {split}: {', '.join(lists)}; keep one")
    names = os.path.join(root, "classes.txt")
    return os.path.join(root, lists[0]) if lists else "", names if os.path.lexists(names) else ""


def labels_otherwise(
    root: str,
    split: str,
    paths: Sequence[str],
    labels: Sequence[int],
    read: Callable[[str, str], Annotations | None] = read,
) -> bool:
    """True if a list beside a split's folders labels their files differently than the folders do,
    for example because the folders are batches, patients or days.

    Warns that the list is read or is not read, unless it has the folders' files and classes.

    Args:
        root: The folder around the split.
        split: Name of the split, such as 'train'.
        paths: Files in the folders, relative to root/split.
        labels: Number of each file's folder.
        read: A function that reads a list, given its path and that of the class names; it returns
            None if the labels are those of the folders.
    """
    folder = os.path.join(root, split)
    not_read = f"is not read, and the folders in {folder} are the classes"
    try:
        file, names = beside(root, split)
        listed = read(file, names) if file else None
    except UserError as error:
        warn(f"a list of {split} {not_read}: {error}")
        return False
    if listed is None:
        return False
    of_folders, pairs, inside = dict(zip(paths, labels)), set(), 0
    for number, path in enumerate(listed.paths):
        path = os.path.normpath(path)
        label = of_folders.get(path, of_folders.get(path.removeprefix(split + os.sep)))
        if label is not None:
            inside += 1
            marked = listed.marks is not None
            pairs.add((label, listed.marks[number].tobytes() if marked else listed.labels[number]))
    if 2 * inside < len(listed.paths):
        warn(f"{file} {not_read}: only {inside} of its {len(listed.paths)} files are in them")
        return False
    if len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}):
        if len(listed.paths) != len(paths):
            warn(f"{file} {not_read}: it lists {len(listed.paths)} of {len(paths)} files")
        return False
    warn(
        f"the labels in {folder} are those of {file} ({_few(listed.class_names)}), not the names "
        f"of the folders; move the list away if the folders are the classes"
    )
    return True


def _few(names: Sequence[str]) -> str:
    return short(", ".join(names[:4]) + (", ..." if len(names) > 4 else ""))


def _entries(file: str) -> list[Entry] | Annotations:
    suffix = os.path.splitext(file)[1].lower()
    text = text_files.read(file)
    if suffix in _TABLES and (separator := _separator(text, _TABLES[suffix])):
        return _table(file, text, separator)
    if suffix in (".jsonl", ".ndjson", ".json"):
        found = list(objects(file, text, suffix == ".json"))
        refuse_splits(file, [row.get(SPLIT) for _, row in found if isinstance(row, dict)])
        return [_from_object(place, row) for place, row in found]
    found = [
        _from_line(f"{file}:{n}", line)
        for n, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]
    return found[1:] if found and _is_header(found[0]) else found


def _is_header(first: Entry) -> bool:
    """True if the first line names columns; raises UserError if no name stands for the path."""
    if [label.lower() in LABEL_KEYS for label in first.labels] != [True] or os.path.splitext(
        first.path
    )[1]:
        return False
    if first.path.lower() not in PATH_KEYS:
        raise UserError(
            f"{first.place}: call the columns path and label, not {short(first.path)}, "
            f"{first.labels[0]}"
        )
    return True


def _separator(text: str, usual: str) -> str:
    """The separator of a table's fields; '' if there is none, as in VideoMAE's .csv files of
    `path label`.
    """
    first = text.lstrip().split("\n", 1)[0]
    for sign in (usual, ";", "\t", ","):
        if sign in first and any(
            name.strip().strip('"').lower() in PATH_KEYS for name in first.split(sign)
        ):
            return sign
    if usual not in text and re.match(r"[^\s;]+;", first):
        return ";"
    return usual if usual in text else ""


def _from_line(place: str, line: str) -> Entry:
    """The entry of a line `path<tab>label`, `path label` or `path,label`."""
    line = line.strip("\r\n")
    parts = line.split("\t") if "\t" in line else line.strip().rsplit(None, 1)
    if len(parts) == 1:
        parts = line.strip().rsplit(",", 1)
    if len(parts) == 2 and re.search(r"(\.\w+|^\S+)(\s+\d+)+$", parts[0].strip()):
        raise UserError(
            f"{place}: write `path label`, not a third field, {short(repr(line))}; "
            "write several labels as `path 1,3`"
        )
    if len(parts) != 2 or not parts[0].strip():
        raise UserError(f"{place}: write `path label`, not {short(repr(line))}")
    return Entry(place, parts[0].strip(), _split(parts[1]))


def _split(text: str) -> tuple[str, ...]:
    """The labels in one field."""
    if (found := listed(text)) is not None:
        return tuple(str(part).strip() for part in found)
    parts = re.split("[;|]", text)
    if len(parts) == 1 and re.fullmatch(r"\s*\d+(\s*,\s*\d+)+\s*", text):
        parts = text.split(",")
    return tuple(part.strip() for part in parts if part.strip())


def _table(file: str, text: str, separator: str) -> list[Entry] | Annotations:
    rows = [
        (f"{file}:{line}", [field.strip() for field in fields])
        for line, fields in table_rows(file, text, separator)
    ]
    if not rows:
        return []
    header = [name.lower() for name in rows[0][1]]
    path = _column(file, header, PATH_KEYS)
    has_header = path is not None
    if not has_header:
        path, label, width = 0, 1, 2
        suffixes = [os.path.splitext(row[0])[1] for _, row in rows[:2]]
        if not suffixes[0] and (suffixes[-1] or header[-1] in LABEL_KEYS):
            raise UserError(
                f"{rows[0][0]}: call the columns path and label, not {short(', '.join(rows[0][1]))}"
            )
    else:
        label, width, (_, names), rows = (
            _column(file, header, LABEL_KEYS),
            len(header),
            rows[0],
            rows[1:],
        )
    for place, row in rows:
        if len(row) != width:
            raise UserError(
                f"{place}: {len(row)} fields, not {width}"
                + ("; without column names a row is path and label" if width == 2 else "")
            )
    if has_header and SPLIT in header:
        refuse_splits(file, [row[header.index(SPLIT)] for _, row in rows])
    if label is None:
        return _marked(file, rows, path, names)
    others = [
        header.index(key)
        for key in LABEL_KEYS
        if has_header and key in header and header.index(key) != label
    ]
    return [
        Entry(place, _path(place, row[path]), _split(row[label]), row[others[0]] if others else "")
        for place, row in rows
    ]


def _column(file: str, header: Sequence[str], known: Sequence[str]) -> int | None:
    """Index of the column with the first of the known names that occurs; None if none does."""
    name = next((name for name in known if name in header), None)
    if name is not None and header.count(name) > 1:
        raise UserError(f"{file}: the column {name!r} appears {header.count(name)} times")
    return None if name is None else header.index(name)


def _marked(
    file: str, rows: Sequence[tuple[str, list[str]]], path: int, names: Sequence[str]
) -> Annotations:
    """Reads a table with a column of marks for each class.

    A column without a name is the index that pandas writes and is skipped.
    """
    classes = [
        column
        for column, name in enumerate(names)
        if column != path and not _UNNAMED.fullmatch(name)
    ]
    names = [names[column] for column in classes]
    marks = np.zeros((len(rows), len(names)), np.int8)
    if len(names) < 2 or not rows:
        raise UserError(
            f"{file} has neither a column of labels ({', '.join(LABEL_KEYS)}) "
            "nor a column of marks for each class"
        )
    if len(set(names)) < len(names):
        raise UserError(f"{file}: two columns have the same name")
    for number, (place, row) in enumerate(rows):
        fields = [row[column] for column in classes]
        wrong = [f"{name}={field!r}" for name, field in zip(names, fields) if field not in _MARKS]
        if wrong:
            raise UserError(
                f"{place}: {short(wrong[0])} is neither 0, 1 nor -1; {file} has no column of "
                f"labels ({', '.join(LABEL_KEYS)}), so each column is taken as a class"
            )
        marks[number] = [_MARKS[field] for field in fields]
    first: dict[str, int] = {}
    for number, (place, row) in enumerate(rows):
        same = first.setdefault(os.path.normpath(_path(place, row[path])), number)
        if (marks[same] != marks[number]).any():
            raise UserError(
                f"{place}: {short(row[path])} has other marks in {rows[same][0]}; keep one row"
            )
    tell_repeated(file, len(rows), len(first))
    kept = list(first.values())
    paths = tuple(rows[number][1][path] for number in kept)
    return Annotations(paths, (0,) * len(kept), marks[kept], tuple(names))


def _from_object(place: str, found: Any) -> Entry:
    if not isinstance(found, dict):
        raise UserError(f'{place}: not an object; write {{"path": ..., "label": ...}}')
    path, label = (
        next((key for key in keys if key in found), None) for keys in (PATH_KEYS, LABEL_KEYS)
    )
    if path is None or label is None or not isinstance(found[path], str):
        have = ", ".join(map(repr, list(found)[:10]))
        raise UserError(
            f'{place}: needs "path", a string, and "label"; it has {short(have) or "nothing"}'
        )
    labels = found[label] if isinstance(found[label], list) else [found[label]]
    for one in labels:
        if type(one) not in (int, str) or one == "":
            raise UserError(f"{place}: the label {short(repr(one))} is neither a number nor a name")
    names = [found[key] for key in LABEL_KEYS if key in found and key != label]
    name = names[0].strip() if names and isinstance(names[0], str) else ""
    return Entry(place, _path(place, found[path]), tuple(str(one).strip() for one in labels), name)


def _path(place: str, path: str) -> str:
    if not path.strip():
        raise UserError(f"{place}: the path is empty")
    return path
