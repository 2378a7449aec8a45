"""The columns of a list that hold image and caption, and the entries that a row must have there."""

import collections
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from swin_jax.core.errors import UnreadableError, UserError, did_you_mean
from swin_jax.data.image_text.captions import value_of
from swin_jax.data.rows_of_lists import SPLIT, short

# What lists call their columns; the first is meant wherever it is there, and is the default.
IMAGE_KEYS = (
    "image",
    "filepath",
    "file_name",
    "filename",
    "image_path",
    "image_name",
    "path",
    "file",
    "img",
)
TEXT_KEYS = (
    "text",
    "caption",
    "captions",
    "title",
    "texts",
    "sentence",
    "sentences",
    "description",
    "comment",
    "raw",
)
KNOWN = (IMAGE_KEYS, TEXT_KEYS)
# COCO's training set has the images of its split 'restval' too: 113,287 images.
_WITH = {"train": ("train", "restval")}
_MAX_LABEL = 2**31
_PROBED = 100  # rows whose images are looked for


def choose(name: str, argument: str, columns: Collection[str], place: str) -> str:
    """The column of the images or of the captions.

    Args:
        name: The name that the user gives, in lower or upper case. Where there is no such column
            and it is the first of IMAGE_KEYS or TEXT_KEYS, the other known names stand in for it.
        argument: 'image_key' or 'text_key'.
        columns: Names of the columns.
        place: The file, for messages.

    Returns:
        A column. Raises UserError where there is none, or several known ones could be meant.
    """
    known = IMAGE_KEYS if argument == "image_key" else TEXT_KEYS
    for same in (
        [name] if name in columns else [],
        [key for key in columns if key.lower() == name.lower()],
    ):
        if len(same) == 1:
            return same[0]
    found = [key for key in columns if key.lower() in known and name == known[0]]
    found.sort(key=lambda key: known.index(key.lower()))
    if len(found) == 1:
        return found[0]
    subject = "images" if argument == "image_key" else "captions"
    have = ", ".join(map(repr, list(columns)[:20])) or "none"
    wrong = f"has no column {name!r} of {subject} among {have}"
    if found:
        wrong = f"could have its {subject} in {' or '.join(map(repr, found))}"
    raise UserError(
        f"{place} {wrong}: give --config.data.source.{argument}= "
        f"(for validation pairs --config.evals.validation.run.data.source.{argument}=)"
    )


def split_key(columns: Iterable[str]) -> str | None:
    """The column that tells which split a row belongs to, 'split' or 'Split';
    None where there is none.
    """
    return next((key for key in columns if key.lower() == SPLIT), None)


def rows_of_split(path: str, values: Sequence[Any], split: str) -> list[int]:
    """The numbers of the rows that belong to a split.

    Args:
        path: Path of the file, for messages.
        values: The entry of each row under 'split'; None where it has none.
        split: The one that is asked for; 'train' means 'restval' too.
            '' takes all rows where there are not several.

    Returns:
        Row numbers, all of them where no row has a split. Raises UserError where the split is
        missing, or there are several and none is named.
    """
    values = [None if value is None else str(value).strip() for value in values]
    counts = collections.Counter(value for value in values if value is not None)
    wanted = [name for name in _WITH.get(split, (split,)) if name in counts]
    if not counts or (not split and len(counts) == 1):
        return list(range(len(values)))
    if not wanted:
        known = ", ".join(f"{short(name)} ({count})" for name, count in counts.most_common(20))
        wrong = f"no split {split!r}{did_you_mean(split, counts)}" if split else "several splits"
        advice = "--config.data.source.split= or --config.evals.validation.run.data.source.split="
        raise UserError(f"{path} has {wrong}; it has {known}: give {advice}")
    return [row for row, value in enumerate(values) if value in wanted]


def path_of(record: Any, key: str) -> str:
    """The path of an image in a row; raises UnreadableError where there is none."""
    path = value_of(record, key, "image_key")
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        raise UnreadableError(f"{key!r} is not a path")
    return path


def place_of(root: str, path: str) -> str:
    """The whole path of an image of a list; where no file is called so, one that Windows wrote,
    which has backslashes in the place of slashes.
    """
    place = os.path.join(root, path)
    if "\\" in path and not os.path.lexists(place):
        return os.path.join(root, path.replace("\\", "/"))
    return place


def check_images(source: Any, path: str, root: str) -> None:
    """Looks for the images of some rows of a list, which are all missing in a wrong folder.

    Args:
        source: The source, whose `record(index)` gives an `image_path`.
        path: Path of the list, for messages.
        root: Folder that image paths start from.

    Raises:
        UserError: None of them is there.
    """
    missing = []
    for index in range(0, len(source), max(len(source) // _PROBED, 1)):
        try:
            place = source.record(index)["image_path"]
        except UnreadableError:  # told when it is read
            continue
        if os.path.isfile(place):
            return
        missing.append(place)
    if missing:
        root = root or "."
        raise UserError(
            f"{path}: its first image, {short(os.path.relpath(missing[0], root))}, is not in "
            f"{root}, nor are others: give the folder that its paths start from, "
            "--config.data.source.root= (for validation pairs "
            "--config.evals.validation.run.data.source.root=)"
        )


def label_of(record: Mapping[str, Any], key: str) -> dict[str, int]:
    """{'label': the integer that a row has under `key`}, or {} for key '';
    raises UnreadableError for no integer.
    """
    if not key:
        return {}
    label = value_of(record, key, "label_key")
    if isinstance(label, str) and label.strip().isdecimal() and len(label) < 20:
        label = int(label)
    if type(label) is not int or not -_MAX_LABEL <= label < _MAX_LABEL:  # True is an int too
        raise UnreadableError(f"{key!r} is not an integer")
    return {"label": label}


def check_file(path: str | None, kind: str) -> str:
    """The path of a list as it is; raises UserError where none is given or there
    is no such file.
    """
    if not path:
        raise UserError(
            f"{kind} pairs need their file: give --config.pairs=FILE.{kind} "
            f"(for validation pairs --config.validation_pairs=FILE.{kind})"
        )
    path = os.path.expanduser(os.fspath(path))
    if not os.path.isfile(path):
        raise UserError(
            f"there is no file {path}; it must hold an image's path and its caption in each row"
        )
    return path
