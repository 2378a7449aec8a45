"""Class names of two sets that share a label space: compared and mapped by name, never by place."""

import collections
import csv
import dataclasses
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from swin_jax.core import text_files
from swin_jax.core.errors import UserError, nearest, warn

_LISTED = 5  # classes that a message names
_SYNSET = re.compile(r"n\d{8}\s+\S")
_NUMBERED = re.compile(r"(LABEL_)?\d+")  # what transformers calls classes without names


@dataclasses.dataclass(frozen=True)
class Match:
    """A map from the labels of one set to those of another.

    Attributes:
        index: The number in the other set of each class of this one; None where labels and names
            stay as they are.
        said: A line for the user; '' where there is nothing to tell.
    """

    index: tuple[int, ...] | None
    said: str = ""


def read_names(file: str) -> tuple[str, ...]:
    """The class names in a file, in label order.

    Args:
        file: UTF-8 text with a name on each line, or a label and its name, as in Kinetics' table
            `id,name`; or .json: a list of names, or an object of names and their labels, as
            Something-Something's labels.json, or of labels and their names, as the id2label of
            transformers, whose config.json may be given whole.

    Raises:
        UserError: The file cannot be read, has no names, labels that do not count up from 0,
            or a key twice.
    """
    text = text_files.read(file)
    try:
        if os.fspath(file).lower().endswith(".json"):
            names = _names_in(text_files.parse_json(text))
        else:
            names = _names_of_lines(file, text)
    except UserError:
        raise
    # ValueError: no JSON, integers of thousands of digits; SyntaxError and the like of Python.
    except (RecursionError, ValueError, csv.Error, SyntaxError, MemoryError, TypeError) as error:
        raise UserError(
            f"cannot read {file}: it is not a list of names ({' '.join(str(error).split())[:100]})"
        ) from error
    if names is None:
        raise UserError(
            f"{file} must list class names, or map them to their labels, which count up from 0"
        )
    if not names:
        raise UserError(f"{file} lists no classes; it must have one name per line, in label order")
    return composed(names)


def names_beside(source: str | os.PathLike) -> tuple[str, ...]:
    """The class names of a classifier in a folder of the hub, or in a file there,
    in the order of its logits.

    Args:
        source: The folder, that of the hub's cache with one version, or the file. Its config.json
            tells the names: `id2label` of transformers, `label_names` of timm.

    Returns:
        The names; () where nothing tells them, as where they are numbered only. What is wrong in a
        config is said by whoever reads the weights.
    """
    folder = source if os.path.isdir(source) else os.path.dirname(source)
    try:
        versions = os.path.join(folder, "snapshots")
        if os.path.isdir(versions) and len(names := os.listdir(versions)) == 1:
            folder = os.path.join(versions, names[0])
        config = text_files.parse_json(text_files.read(os.path.join(folder, "config.json")))
        inside = (
            config.get("pretrained_cfg") if isinstance(config.get("pretrained_cfg"), dict) else {}
        )
        names = _names_in(
            config.get("id2label") or config.get("label_names") or inside.get("label_names")
        )
    except (AttributeError, OSError, RecursionError, ValueError):  # a UserError is a ValueError
        return ()
    return () if not names or all(map(_NUMBERED.fullmatch, names)) else names


def _names_of_lines(file: str, text: str) -> tuple[str, ...] | None:
    """The names on the lines of a text, in the order of the labels where these stand beside them.

    Raises:
        UserError: Labels that do not count up from 0, or a table of other columns.
    """
    if os.fspath(file).lower().endswith((".yaml", ".yml")):
        raise UserError(f"{file} is YAML: write one name a line, or a list of names in a .json")
    if re.fullmatch(r"\s*(\{.*\}|\[.*\])\s*", text, re.DOTALL):
        return _names_in(text_files.parse_literal(text))
    lines = [line.strip() for line in io.StringIO(text, newline=None) if line.strip()]
    if len(lines) > 1 and all(map(_SYNSET.match, lines)):  # as in ILSVRC's synset_words.txt
        return tuple(line.split(None, 1)[1] for line in lines)
    tables = [list(text_files.csv_reader(lines, sign)) for sign in (",", "\t", ";")]
    forms = [*tables, *(rows[1:] for rows in tables)]  # the first line may name the columns
    forms += [[line.split(None, 1) for line in lines], [line.rsplit(None, 1) for line in lines]]
    found = next(filter(None, map(_labeled, forms)), None)
    if found and 0 not in found:
        raise UserError(
            f"{file} counts its classes from 1: write one name a line, in the order of labels "
            "from 0 (names that begin with a number go into a .json, as a list)"
        )
    if found:
        return tuple(found[label] for label in range(len(found)))
    if os.fspath(file).lower().endswith((".csv", ".tsv")):
        if any(rows and all(len(row) > 1 for row in rows) for rows in tables):
            raise UserError(f"{file} must have one name a line, or a label from 0 and its name")
        if any('"' in line for line in lines):
            return tuple(rows[0] for rows in text_files.csv_reader(lines, strict=True))
    return tuple(lines)


def _labeled(rows: Sequence[Sequence[str]]) -> dict[int, str] | None:
    """{label: name} of rows of two, a number from 0 or 1 on, in any order, and a name of its own;
    None for others.
    """
    if len(rows) < 2 or any(len(row) != 2 for row in rows):
        return None
    for place in (0, 1):
        if all(_is_number(row[place].strip()) for row in rows):
            found = {int(row[place]): row[1 - place].strip() for row in rows}
            counts = sorted(found) in (list(range(len(rows))), list(range(1, len(rows) + 1)))
            if counts and len(set(found.values())) == len(rows):
                return found
    return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _names_in(found: Any) -> tuple[str, ...] | None:
    """The names of JSON; None where it is neither a list of them nor maps them to 0, 1, ..."""
    if isinstance(found, list):
        return tuple(found) if all(isinstance(name, str) for name in found) else None
    if not isinstance(found, dict):
        return None
    if isinstance(found.get("id2label"), dict):
        found = found["id2label"]
    # Those of Keras have the synset of each class beside its name.
    pairs = all(
        isinstance(x, list) and len(x) == 2 and _SYNSET.match(f"{x[0]} {x[1]}")
        for x in found.values()
    )
    found = {str(label): x[1] if pairs else x for label, x in found.items()}
    for by_label in ({str(label): name for name, label in found.items()}, found):
        names = [by_label.get(str(label)) for label in range(len(found))]
        if all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def match(
    names: Sequence[str], reference: Sequence[str], whose: str, of: str, subset: bool = False
) -> Match:
    """Finds the classes of one set among those of another.

    Names are equal if they are the same characters (composed or not). Names that are all numbers
    stand for places in the order of `reference`, unless its names are numbers too. Sets without
    names, or with the names '0', '1', ... in this order, are compared by count.

    Args:
        names: Class names of the first set, in label order.
        reference: The same of the other set.
        whose: Owner of `names`, for messages.
        of: Owner of `reference`, for messages.
        subset: True if some of the classes of `reference` may be absent from `names`.

    Raises:
        UserError: Classes that `reference` lacks or, unless `subset`, that `names` lack; two
            classes of one name in sets of another order.
    """
    names, reference = composed(names), composed(reference)
    if names == reference:
        return Match(None)
    if not names or not reference:
        unnamed = of if names else whose
        index = tuple(range(len(reference))) if reference else None
        return Match(
            index,
            f"the class names of {unnamed} are not known: labels of {whose} are taken by number",
        )
    if not set(names) <= set(reference) and (_are_numbers(names) != _are_numbers(reference)):
        return _by_number(names, reference, whose, of, subset)
    both = f"{whose} and {of}"
    for some, owner in ((names, whose), (reference, of)):
        if len(set(some)) < len(some):
            double = collections.Counter(some).most_common(1)[0][0]
            raise UserError(
                f"{both} have different classes, and {owner} has {double!r} twice: tell them apart"
            )
    _refuse_unknown(names, reference, whose, of, subset)
    place = {name: number for number, name in enumerate(reference)}
    index = tuple(place[name] for name in names)
    if len(names) < len(reference):
        return Match(
            index,
            f"{whose} has {len(names)} of the {len(reference)} classes of {of}, mapped by name",
        )
    return Match(
        index, f"{whose} has the classes of {of} in another order: its labels are mapped by name"
    )


def map_data(
    data: Any, reference: Sequence[str], whose: str, of: str, subset: bool = True
) -> tuple[Any, str]:
    """A data set with the labels of another.

    Args:
        data: Has `class_names` and `with_classes(index, class_names)`, as those of `data.pipeline`
            do. Without names it stays as it is; without that method its names must be equal.
        reference, whose, of, subset: The same as in `match`.

    Returns:
        (the data set, a line for the user or ''). Raises UserError as `match`.
    """
    if not hasattr(data, "class_names"):
        return data, ""
    found = match(data.class_names, reference, whose, of, subset)
    if found.index is None:
        return data, found.said
    if not hasattr(data, "with_classes"):
        if found.index == tuple(range(len(found.index))):
            return data, found.said
        raise UserError(
            f"{whose} has the classes of {of} in another order, "
            "and its data has no method `with_classes`"
        )
    return data.with_classes(found.index, tuple(reference)), found.said


def share(sets: dict[str, Any], whose: str) -> dict[str, Any]:
    """Gives data sets the labels of the first one.

    Args:
        sets: The data sets, under the words that messages call them by; None is left out.
        whose: Owner of the sets, for messages; it comes before these words.

    Returns:
        The sets. Raises UserError, as `match`, for classes that the first one lacks;
        warns where labels change.
    """
    several = [name for name, data in sets.items() if getattr(data, "multi_label", False)]
    if several:
        raise UserError(
            f"{whose} {several[0]} set has several labels for a record; a probe needs one"
        )
    (first, reference), *others = ((name, data) for name, data in sets.items() if data is not None)
    found = {first: reference}
    for name, data in others:
        names = getattr(reference, "class_names", ())
        found[name], said = map_data(data, names, f"{whose} {name} set", f"its {first} set")
        if said:
            warn(said)
    return found


def count_up(names: Sequence[str]) -> bool:
    """True for no names and for '0', '1', ... in this order,
    which tell no more than how many there are.
    """
    return list(names) == [str(number) for number in range(len(names))]


def refuse_twins(place: str, names: Sequence[str]) -> None:
    """Raises UserError for two names that look the same,
    with letters that are composed in two ways.
    """
    same = composed(names)
    if len(set(same)) < len(set(names)):
        twin, _ = collections.Counter(same).most_common(1)[0]
        raise UserError(
            f"{place} has two classes {twin!r}, whose letters are composed in two ways: join them"
        )


def refuse_one_class(number: int, what: str, advice: str) -> None:
    """Raises UserError for a choice among one class, which is always right."""
    if number == 1:
        raise UserError(f"{what} with one class is always right: {advice}")


def same_spelling(names: Iterable[str], others: Iterable[str], whose: str, of: str) -> None:
    """Raises UserError for a name that differs from one of the others in case
    or outer blanks only.
    """
    known = set(others)
    spelled = {_plain(name): name for name in known}
    for name in sorted(set(names) - known, key=str):
        if _plain(name) in spelled:
            raise UserError(
                f"{whose} have {name!r} where {of} have {spelled[_plain(name)]!r}: "
                "spell classes alike"
            )


def composed(names: Sequence[str]) -> tuple[str, ...]:
    """Names with composed letters, so that those that look the same are equal."""
    return tuple(unicodedata.normalize("NFC", str(name)) for name in names)


def _plain(name: Any) -> str:
    return str(name).strip().casefold()


def _are_numbers(names: Sequence[str]) -> bool:
    return all(map(_is_number, names))


def _by_number(names, reference, whose: str, of: str, subset: bool) -> Match:
    """Matches names where those of one side only are numbers."""
    said = (
        f"{whose} and {of} are compared by number, "
        "because only one of them has names that are not numbers"
    )
    counts = f"{whose} has {len(names)} classes, {of} {len(reference)}"
    if not _are_numbers(names):
        # Places of named classes among numbers are known only where there are as many
        # and they count up.
        if len(names) != len(reference) or sorted(map(int, reference)) != list(map(int, reference)):
            raise UserError(f"{counts}, whose names are numbers: give both the same names")
        return Match(None, said)
    index = tuple(map(int, names))
    if max(index) >= len(reference):
        wrong = names[index.index(max(index))]
        raise UserError(
            f"{counts}; the number {wrong!r} is not a label of {of}, "
            f"which end at {len(reference) - 1}: give both the same names"
        )
    if len(set(index)) < len(index) or (len(index) < len(reference) and not subset):
        raise UserError(f"{counts}, named by number in {whose}: give both the same names")
    return Match(index, said)


def _refuse_unknown(names, reference, whose: str, of: str, subset: bool) -> None:
    known, own = set(reference), set(names)
    unknown = [name for name in names if name not in known]
    absent = [] if subset else [name for name in reference if name not in own]
    if not unknown and not absent:
        return
    if not own & known:
        raise UserError(
            f"{whose} and {of} have no class in common: {_listed([*map(repr, names)])} against "
            f"{_listed([*map(repr, reference)])}"
        )
    parts = []
    if unknown:
        free = [name for name in reference if name not in own] or list(reference)
        # A hint looks through all of them, so that only names that are shown get one.
        hinted = [_with_hint(name, free) for name in unknown[:_LISTED]]
        parts.append(f"{of} lacks {_listed([*hinted, *unknown[_LISTED:]])}")
    if absent:
        parts.append(f"{whose} lacks {_listed([*map(repr, absent)])}")
    raise UserError(
        f"{whose} and {of} have different classes: {'; '.join(parts)}; give both the same names"
    )


def _with_hint(name: str, free: Sequence[str]) -> str:
    same = next((other for other in free if _plain(other) == _plain(name)), None)
    if same:
        return f"{name!r} (only case or blanks differ from {same!r})"
    near = nearest(name, free, 0.6)
    return f"{name!r} (did you mean {near!r}?)" if near else repr(name)


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more
