"""Turns the labels of a list into numbers, which are either given or follow from class names."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swin_jax.core.errors import UserError, did_you_mean, warn
from swin_jax.core.labels import composed, read_names
from swin_jax.data.rows_of_lists import short

MAX_LABEL = 1_000_000  # larger is a mistake: every label up to the largest one needs a name
MAX_MARKS = 2**33  # bytes, one for each file and class if files have several labels


@dataclass(frozen=True)
class Entry:
    """A file and its labels as strings.

    Attributes:
        place: Place of the entry for messages, such as 'train.csv:7'.
        path: Path as the list gives it.
        labels: Labels in composed Unicode; empty only if other files have several.
        name: Class name that the list gives beside the number; '' if it gives none.
    """

    place: str
    path: str
    labels: tuple[str, ...]
    name: str = ""

    def __post_init__(self):
        object.__setattr__(self, "labels", composed(self.labels))


@dataclass(frozen=True)
class Annotations:
    """The files of a list and their labels as numbers.

    Attributes:
        paths: N paths as the list gives them.
        labels: N class numbers; 0 if `marks` are used.
        marks: int8 (N, K) marks, see `data.labels.Marked`, if files have several labels; else None.
        class_names: K names in label order; '0', '1', ... if the list has only numbers.
    """

    paths: tuple[str, ...]
    labels: tuple[int, ...]
    marks: np.ndarray | None
    class_names: tuple[str, ...]


def numbered(
    file: str, entries: Sequence[Entry], class_names: str = "", num_classes: int = 0
) -> Annotations:
    """Numbers the labels of a list.

    Args:
        file: The list, for messages.
        entries: Files of the list, at least one.
        class_names, num_classes: The same as in `annotations.read`.

    Returns:
        The list. Raises the same errors as `annotations.read`.
    """
    if num_classes > MAX_LABEL + 1:
        raise UserError(f"num_classes is {num_classes}, more than {MAX_LABEL + 1}")
    several = any(len(entry.labels) > 1 for entry in entries)
    _check_labels(entries)
    bare = next((entry for entry in entries if not entry.labels), None)
    if bare and not several:
        raise UserError(f"{bare.place}: {short(bare.path)} has no label")
    known = read_names(class_names) if class_names else ()
    if known and num_classes and len(known) != num_classes:
        raise UserError(f"{class_names} has {len(known)} names, but num_classes is {num_classes}")
    numbers, names = _numbers(file, entries, known, num_classes)
    marks = None
    if several:
        if len(entries) * len(names) > MAX_MARKS:
            raise UserError(
                f"{file}: a mark for each of {len(entries):,} files and {len(names):,} classes "
                f"takes more than {MAX_MARKS:,} bytes: number classes without gaps, or split the "
                "list"
            )
        marks = np.zeros((len(entries), len(names)), np.int8)
        for row, found in zip(marks, numbers):
            row[list(found)] = 1
    labels = tuple(0 if several else found[0] for found in numbers)
    return Annotations(tuple(entry.path for entry in entries), labels, marks, names)


def once(file: str, entries: Sequence[Entry]) -> list[Entry]:
    """The entries of a list, each file once; warns with the number of rows that repeat a file.

    Otherwise a list with one row per bounding box would count an image once for each box.

    Raises:
        UserError: A file appears twice with different labels.
    """
    seen: dict[str, Entry] = {}
    for entry in entries:
        first = seen.setdefault(os.path.normpath(entry.path), entry)
        if set(first.labels) != set(entry.labels):
            raise UserError(
                f"{entry.place}: {short(entry.path)} has other labels in {first.place}; "
                "write several labels of a file in one row, as 'cat;dog' or as a JSON list"
            )
    tell_repeated(file, len(entries), len(seen))
    return list(seen.values())


def tell_repeated(file: str, rows: int, files: int) -> None:
    """Warns of the rows of a list that repeat a file, if there are any."""
    if rows > files:
        warn(
            f"{file}: left out {rows - files} of {rows} rows, "
            "which repeat a file with the same labels"
        )


def _check_labels(entries: Sequence[Entry]) -> None:
    """Raises UserError if a file has a label twice; warns if one label may be meant as several."""
    known = {label for entry in entries for label in entry.labels}
    joined = {
        label: any(part.strip() in known for part in label.split(","))
        for label in known
        if "," in label
    }
    for entry in entries:
        if len(set(entry.labels)) < len(entry.labels):
            raise UserError(
                f"{entry.place}: {short(entry.path)} has the label "
                f"{short(max(entry.labels, key=entry.labels.count))} twice; write marks of 0 and 1 "
                "as a table with a column for each class"
            )
        if found := next((label for label in entry.labels if joined.get(label)), None):
            warn(
                f"{entry.place}: {short(repr(found))} is read as one class; "
                "write several labels as 'cat;dog'"
            )
            joined = {}


def _refuse_mixed(entries: Sequence[Entry]) -> None:
    """Raises UserError if labels mix numbers and names, as a typo would become its own class."""
    labels = [(entry.place, label) for entry in entries for label in entry.labels]
    number = next((found for found in labels if re.fullmatch(r"[-+]?[\d.]+", found[1])), None)
    if number is None:
        return
    place, name = next(
        found for found in labels if not (found[1].isascii() and found[1].isdecimal())
    )
    raise UserError(
        f"{place}: the label {short(repr(name))} is not a number from 0, "
        f"but others are ({number[0]}); give class_names=FILE if all are names"
    )


def _numbers(
    file: str, entries: Sequence[Entry], known: Sequence[str], num_classes: int
) -> tuple[list[tuple[int, ...]], tuple[str, ...]]:
    """(the numbers of each entry's classes, the names of all classes)."""
    found = {label for entry in entries for label in entry.labels}
    if all(label.isascii() and label.isdecimal() for label in found) and not found <= set(known):
        limit = len(known) or num_classes or MAX_LABEL + 1
        if limit <= MAX_LABEL:
            why = f"there are {len(known) or num_classes} classes"
        else:
            why = f"the largest is {MAX_LABEL}"
        for entry in entries:
            for label in entry.labels:
                if len(label) > 9 or int(label) >= limit:
                    raise UserError(
                        f"{entry.place}: the label {short(label)} is out of range, {why}"
                    )
        numbers = [tuple(int(label) for label in entry.labels) for entry in entries]
        count = num_classes or max(map(max, filter(None, numbers))) + 1
        return numbers, tuple(known) or _names_beside(entries, numbers, count)
    if not known:
        _refuse_mixed(entries)
    names = tuple(known) or tuple(sorted(found))
    if num_classes and len(names) > num_classes:
        raise UserError(f"{file} has {len(names)} classes, but num_classes is {num_classes}")
    place = {name: number for number, name in enumerate(names)}
    if len(place) < len(names):
        raise UserError(f"two classes have the same name in the class names of {file}")
    for entry in entries:
        for label in entry.labels:
            if label not in place:
                hint = did_you_mean(label, names)
                raise UserError(
                    f"{entry.place}: the label {short(repr(label))} is not "
                    f"among the class names{hint}"
                )
    return [tuple(place[label] for label in entry.labels) for entry in entries], names


def _names_beside(
    entries: Sequence[Entry], numbers: Sequence[tuple[int, ...]], count: int
) -> tuple[str, ...]:
    """The names that the list gives beside the numbers, if each class has one of its own;
    otherwise the numbers.
    """
    pairs = {
        (own[0] if len(own) == 1 else None, entry.name) for entry, own in zip(entries, numbers)
    }
    names = {number: name for number, name in pairs}
    is_one_to_one = len(pairs) == len(names) == len(set(names.values()))
    if (
        None in names
        or not is_one_to_one
        or any(not name or name.isdecimal() for name in names.values())
    ):
        return tuple(map(str, range(count)))
    return tuple(names.get(number, str(number)) for number in range(count))
