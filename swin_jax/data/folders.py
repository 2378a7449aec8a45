"""Lists the files of a folder, each once and in an order that depends only on names, and counts
what it leaves out.
"""

import collections
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from swin_jax.core import labels, workdirs
from swin_jax.core.errors import UserError, warn
from swin_jax.core.output.text import shown

LINKS = "links to folders that are read anyway"
COPIES = "links to files that are read anyway"
NO_FILES = "pipes, sockets or devices"
CLOSED = "folders that cannot be opened"
NOWHERE = "links that lead nowhere"
BESIDE = "files beside the folders of classes"
SYSTEM = "folders that a system made"
RUNS = "workdirs of runs"
# The name of a split within the name of a folder, such as 'Testing' or 'seg_test'.
_SPLIT = re.compile(
    r"(?<![a-z])(train(ing)?|val(id(ation)?)?|test(ing)?|dev|eval(uation)?)(?=set|data|[^a-z]|$)"
)
# Folders that Synology, QNAP, Windows, macOS and Linux put beside users' files, in lower case:
# thumbnails, deleted files and parts of damaged files, none of which is meant as data.
_MADE = frozenset(
    (
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin"),
        *("system volume information", "__macosx", "lost+found"),
    )
)
_SHOWN = 8  # kinds that a message names at most


@dataclass(frozen=True)
class Files:
    """Files below a folder.

    Attributes:
        paths: Paths relative to the folder; files of a folder come before those of its subfolders,
            both sorted.
        left_out: {suffix in lower case, or kind of entry: number of entries}.
    """

    paths: tuple[str, ...]
    left_out: Mapping[str, int]


@dataclass
class _Walk:
    """The state of a walk: the real folders that were read, and the paths found in them."""

    suffixes: tuple[str, ...]
    real: set[str] = field(default_factory=set)
    left_out: collections.Counter = field(default_factory=collections.Counter)
    paths: list[str] = field(default_factory=list)
    file_links: list[str] = field(default_factory=list)
    folder_links: collections.deque = field(default_factory=collections.deque)


def files_under(
    folder: str,
    suffixes: Sequence[str],
    root: str = "",
    seen: set[str] | None = None,
    copies: bool = False,
) -> Files:
    """Finds the files at any depth of a folder, including those that links lead to.

    Each file is found once: links to files and folders that are read anyway, such as a link to the
    parent, are left out, as are pipes, sockets, devices, workdirs and the folders that systems make
    (see `is_made`). Names that begin with a dot are ignored. A broken link is listed as a file, so
    that its reader reports it as missing.

    Args:
        folder: The folder.
        suffixes: Endings of names, in lower case, such as '.jpg'.
        root: An enclosing folder all of whose subfolders are read,
            so that links between them are left out too.
        seen: Real paths that links in other subfolders led to, which are left out here;
            those found here are added.
        copies: True to list a file again for each link to it.

    Returns:
        The files, and what was left out. Raises UserError if the folder cannot be opened.
    """
    top = os.path.realpath(root or folder)
    walk = _Walk(tuple(suffixes))
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be opened: {error.strerror}") from error
    _read(walk, folder, "")
    while walk.folder_links:
        path = walk.folder_links.popleft()
        target = os.path.realpath(os.path.join(folder, path))
        if target in walk.real or _is_read(target, top):
            walk.left_out[LINKS] += 1
        else:
            _read(walk, folder, path)
    seen = set() if seen is None else seen
    for path in sorted(walk.file_links, key=_order):
        target = os.path.realpath(os.path.join(folder, path))
        if not copies and (
            target in seen
            or _is_listed(target, walk)
            or (root and _is_in_subfolder(target, top, walk.suffixes))
        ):
            walk.left_out[COPIES] += 1
        else:
            seen.add(target)
            walk.paths.append(path)
    return Files(tuple(sorted(walk.paths, key=_order)), dict(walk.left_out))


def class_folders(
    root: str, suffixes: Sequence[str] = ()
) -> tuple[tuple[str, ...], dict[str, int]]:
    """The subfolders of a folder that stand for classes, sorted, and what was left out.

    Names that begin with a dot are ignored, and workdirs and folders that systems make (see
    `is_made`) are left out. A link to the folder itself, to a folder that encloses it or a class,
    or to another subfolder is not a class of its own and is left out, as is a broken link, for
    example to a disk that is not mounted. Raises UserError if the folder cannot be opened, is a
    workdir, or holds splits instead of classes.

    Args:
        root: The folder.
        suffixes: Endings as in `files_under`; files with them beside the subfolders are counted.
    """
    top, names, left_out = os.path.realpath(root), [], collections.Counter()
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"the folder {root} cannot be opened: {error.strerror}") from error
    if workdirs.is_workdir(root):
        raise UserError(
            f"{root} is the workdir of a run, whose folders would be taken for classes: "
            "give --workdir another folder"
        )
    entries = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in entries:
        if entry.is_symlink() and not os.path.exists(entry.path):
            left_out[NOWHERE] += 1
        elif entry.name.lower().endswith(tuple(suffixes)) and _is(entry.is_file):
            left_out[BESIDE] += 1
    entries = [entry for entry in entries if _is(entry.is_dir)]
    kinds = {entry.name: kind for entry in entries if (kind := _not_meant(entry))}
    left_out.update(kinds.values())
    entries = [entry for entry in entries if entry.name not in kinds]
    targets = {entry.name: os.path.realpath(entry.path) for entry in entries}
    seen, around = set(), set()
    for target in targets.values():
        while (target := os.path.dirname(target)) not in around:
            around.add(target)
    for entry in entries:
        target = targets[entry.name]
        if entry.is_symlink() and (_is_read(target, top) or target in seen or target in around):
            left_out[LINKS] += 1
        else:
            seen.add(target)
            names.append(entry.name)
    refuse_names(root, names)
    return tuple(names), dict(left_out)


def files_of_classes(
    root: str, names: Sequence[str], suffixes: Sequence[str], what: str
) -> tuple[list[str], list[int], dict[str, int]]:
    """The files of class folders, each once: a link to a file of another class is left out.

    Args:
        root: The folder of the class folders.
        names: Names of the class folders, from `class_folders`.
        suffixes: The same as in `files_under`.
        what: A word for the files, for messages.

    Returns:
        (paths relative to root, the class number of each, what was left out). Raises UserError if
        a class has no files.
    """
    paths, labels, left_out, seen = [], [], collections.Counter(), set()
    for label, name in enumerate(names):
        folder = os.path.join(root, name)
        found = files_under(folder, suffixes, root=root, seen=seen)
        if not found.paths:
            others = describe(found.left_out) or "it is empty"
            raise UserError(f"{folder} holds no {what} ({others}); every class needs one")
        paths += [os.path.join(name, path) for path in found.paths]
        labels += [label] * len(found.paths)
        left_out.update(found.left_out)
    return paths, labels, dict(left_out)


def is_made(name: str) -> bool:
    """True for the name of a folder that a system makes, such as Synology's @eaDir."""
    return name.lower() in _MADE


def _not_meant(entry: os.DirEntry) -> str:
    """The kind of a folder that is not meant as data, or ''."""
    if is_made(entry.name):
        return SYSTEM
    return RUNS if workdirs.is_workdir(entry.path) else ""


def refuse_names(place: str, names: Sequence[str]) -> None:
    """Raises UserError if the names of classes are those of splits, or if two look the same."""
    labels.refuse_twins(place, names)
    if len(names) > 1 and are_splits(names):
        advice = "call them train and val"
        if "train" in names:
            advice = "give each of them class folders, train/CLASS, or a list beside it"
        raise UserError(
            f"{place} holds splits, not classes: {', '.join(names)}; "
            f"read each of them separately, or {advice}"
        )


def are_splits(names: Collection[str]) -> bool:
    """True if the names of folders are those of splits and differ in nothing else."""
    parts = [_SPLIT.subn("", name.casefold()) for name in names]
    return {count for _, count in parts} == {1} and len({rest for rest, _ in parts}) == 1


def describe(left_out: Mapping[str, int]) -> str:
    """A line such as 'left out 3: .heic (2), .txt (1)'; '' if nothing was left out."""
    if not left_out:
        return ""
    kinds = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(f"{shown(kind, 40)} ({count})" for kind, count in kinds[:_SHOWN])
    others = sum(count for _, count in kinds[_SHOWN:])
    return f"left out {sum(left_out.values())}: {text}{f', others ({others})' if others else ''}"


def tell_left_out(folder: str, left_out: Mapping[str, int]) -> None:
    """Warns in one line of what was left out of a folder."""
    if left_out:
        warn(f"{folder}: {describe(left_out)}")


def _read(walk: _Walk, folder: str, start: str) -> None:
    """Reads the folder `start` and its subfolders; notes links without following them."""
    todo = [start]
    while todo:
        path = todo.pop()
        real = os.path.realpath(os.path.join(folder, path))
        if real in walk.real:
            continue
        walk.real.add(real)
        for entry in _entries(walk, os.path.join(folder, path)):
            inner = os.path.join(path, entry.name)
            if _is(entry.is_dir) and (kind := _not_meant(entry)):
                walk.left_out[kind] += 1
            elif _is(entry.is_dir):
                (walk.folder_links if entry.is_symlink() else todo).append(inner)
            elif not entry.name.lower().endswith(walk.suffixes):
                walk.left_out[os.path.splitext(entry.name)[1].lower() or "no suffix"] += 1
            elif entry.is_symlink() and not os.path.exists(entry.path):
                walk.paths.append(inner)
            elif not _is(entry.is_file):
                walk.left_out[NO_FILES] += 1
            else:
                (walk.file_links if entry.is_symlink() else walk.paths).append(inner)


def _entries(walk: _Walk, folder: str) -> Iterator[os.DirEntry]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        walk.left_out[CLOSED] += 1
        return
    yield from (entry for entry in entries if not entry.name.startswith("."))


def _is(kind) -> bool:
    """The result of `DirEntry.is_dir` or `is_file`; False for a link that leads to itself."""
    try:
        return kind()
    except OSError:
        return False


def _is_read(target: str, top: str) -> bool:
    """True if a walk of `top` reaches the real folder `target` without links,
    or if `target` encloses `top`.
    """
    if os.path.commonpath([target, top]) == target:
        return True
    inside = os.path.relpath(target, top).split(os.sep)
    return not any(part.startswith(".") or is_made(part) for part in inside)  # '..' is outside


def _is_listed(target: str, walk: _Walk) -> bool:
    """True if the file with this real path was found without a link."""
    folder, name = os.path.split(target)
    return folder in walk.real and not name.startswith(".") and name.lower().endswith(walk.suffixes)


def _is_in_subfolder(target: str, top: str, suffixes: Sequence[str]) -> bool:
    """True if a walk of the subfolders of `top` reaches the real file `target` without links."""
    folder, name = os.path.split(target)
    inside = os.path.commonpath([folder, top]) == top != folder
    return (
        inside
        and _is_read(folder, top)
        and not name.startswith(".")
        and name.lower().endswith(suffixes)
    )


def _order(path: str) -> tuple:
    *folders, name = path.split(os.sep)
    return folders, name
