"""Lists that name no files: Kinetics' csv and Something-Something v2's json say what
files are called after.

- Kinetics: `label,youtube_id,time_start,time_end,split`, times in seconds. Its tools call files
  ID_START_END with times of six digits, or ID.
- Something-Something v2: `[{"id": "78687", "template": "Holding [something]", ...}]`, and
  labels.json, which maps templates without brackets to labels. Files are called ID.
"""

import collections
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from swin_jax.core import text_files
from swin_jax.core.errors import UserError, warn
from swin_jax.data import annotations, folders, label_numbers, rows_of_lists
from swin_jax.data.label_numbers import Entry
from swin_jax.data.rows_of_lists import short

LABELS = ("labels.json", "something-something-v2-labels.json")
_IDS = ("youtube_id", "time_start", "time_end")
_NO_LABELS = "has no labels, as the list of a test set"


@dataclass(frozen=True)
class Published:
    """A list of videos without their files.

    Attributes:
        entries: One for a record, whose path is the best name of its file, without a suffix.
        names: Names that the file of each record may have, the best first.
    """

    entries: tuple[Entry, ...]
    names: tuple[tuple[str, ...], ...]


def read(file: str) -> Published | None:
    """Reads a list of Kinetics or Something-Something; None for any other, whatever is wrong in it.

    Raises:
        UserError: A record is malformed or has no label, as in the lists of test sets;
            names file and line.
    """
    suffix, found = os.path.splitext(file)[1].lower(), None
    if suffix == ".csv":
        rows = rows_of_lists.table_rows(file, text_files.read(file), ",")
        header = [name.strip().lower() for name in next(rows, (1, []))[1]]
        if set(_IDS) <= set(header):
            found = list(_kinetics(file, header, rows))
    elif suffix == ".json":
        rows = list(rows_of_lists.objects(file, text_files.read(file), whole=True))
        first = rows[0][1] if rows and isinstance(rows[0][1], dict) else {}
        if "id" in first and not any(key in first for key in annotations.PATH_KEYS):
            found = list(_something(rows))
    if found is None:
        return None
    entries = tuple(Entry(place, names[0], (label,)) for place, names, label in found)
    return Published(entries, tuple(names for _, names, _ in found))


def labels_beside(file: str) -> str:
    """The path of Something-Something's labels in the folder of a .json list, or ''."""
    paths = [os.path.join(os.path.dirname(file), name) for name in LABELS]
    is_json = file.lower().endswith(".json")
    return next((path for path in paths if is_json and os.path.lexists(path)), "")


def find_files(
    file: str, published: Published, folder: str, suffixes: Sequence[str]
) -> dict[int, str]:
    """The files of the records of a list, at any depth of a folder.

    Args:
        file: The list, for messages.
        published: The published list.
        folder: Folder of its videos.
        suffixes: Suffixes of videos.

    Returns:
        {record: path relative to the folder}, each video once. Warnings count records without a
        file, as videos vanish from the web, and those that repeat one. Raises UserError where none
        has a file, or two files could be meant.
    """
    if not folder:
        raise UserError(
            f"{file} lists ids, not files: data_prefix must be the folder of its videos"
        )
    called = collections.defaultdict(list)
    for path in folders.files_under(folder, suffixes).paths:
        called[os.path.splitext(os.path.basename(path))[0]].append(path)
    found, missing, owners = {}, [], {}
    for record, names in enumerate(published.names):
        name = next((name for name in names if name in called), None)
        if name is None:
            missing.append(names[0])
        elif len(called[name]) > 1:
            both = " and ".join(called[name][:2])
            raise UserError(
                f"{published.entries[record].place}: {both} in {folder} could both be the video"
            )
        else:
            owner = owners.setdefault(name, record)
            if owner == record:
                found[record] = called[name][0]
                continue
            entry, first = published.entries[record], published.entries[owner]
            if (entry.path, entry.labels) != (first.path, first.labels):
                raise UserError(
                    f"{entry.place}: {found[owner]} in {folder} is the video of {first.place}, too"
                )
    label_numbers.tell_repeated(file, len(published.names) - len(missing), len(found))
    if missing:
        said = (
            f"{file}: of {len(published.names)} videos {len(missing)} are not in {folder}, "
            f"{missing[0]} for one"
        )
        if not found:
            raise UserError(f"{said}; files must be called this, with a suffix such as .mp4")
        warn(f"{said}; they are left out")
    return found


def _kinetics(
    file: str, header: Sequence[str], rows: Iterable[tuple[int, list[str]]]
) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """(place, names of the file, label) of each row."""
    if "label" not in header:
        raise UserError(f"{file} {_NO_LABELS}")
    for line, fields in rows:
        place, row = f"{file}:{line}", dict(zip(header, (field.strip() for field in fields)))
        times = [row.get(key, "") for key in _IDS[1:]]
        if len(fields) != len(header) or not row["youtube_id"] or not all(map(_is_seconds, times)):
            raise UserError(f"{place}: malformed, {short(repr(','.join(fields)))}")
        if not row["label"]:
            raise UserError(f"{place}: {_NO_LABELS}")
        start, end = (int(float(time)) for time in times)
        number = row["youtube_id"]
        yield place, (f"{number}_{start:06d}_{end:06d}", number), row["label"]


def _is_seconds(text: str) -> bool:
    return re.fullmatch(r"\d{1,9}(\.\d{0,9})?", text, re.ASCII) is not None


def _something(rows: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, tuple[str, ...], str]]:
    for place, entry in rows:
        entry = entry if isinstance(entry, dict) else {}
        name, template = entry.get("id"), entry.get("template")
        if template is None and "label" not in entry:
            raise UserError(f"{place}: {_NO_LABELS}")
        if type(name) not in (str, int) or not isinstance(template, str) or not template.strip():
            raise UserError(f'{place}: needs an "id" and a "template"')
        yield place, (str(name),), template.replace("[", "").replace("]", "").strip()
