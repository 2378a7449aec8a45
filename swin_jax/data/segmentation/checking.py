"""Looks at all labels of a set before they are used: do they fit their images and their classes?"""

import collections
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from swin_jax.core import storage
from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UnreadableError, UserError, warn
from swin_jax.core.output.text import say
from swin_jax.data import file_scan
from swin_jax.data.file_scan import Finding
from swin_jax.data.image import picture
from swin_jax.data.segmentation import label_files
from swin_jax.data.segmentation.source import LabeledFiles

FEW = 1000  # labels that are looked at again each time: that takes two seconds
_SHOWN = 8  # files and classes that a message names


def check(source: LabeledFiles, place: str) -> None:
    """Looks at every label of a source, of large sets once for unchanged files.

    Warnings tell of palettes, of images that are turned upright, of files that cannot be read
    (which training replaces), and of classes without a pixel.

    Args:
        source: The files.
        place: The folder of labels, for messages.

    Raises:
        UserError: Labels that do not fit, with their files, numbers and sizes; no pixel that
            belongs to a class.
    """
    with report_of(source, place) as report:
        try:
            findings = scan(source, report)
        except file_scan.UnfinishedError as error:
            raise UserError(error) from error
        except UserError as error:
            raise UserError(
                f"the findings of an earlier check, {report}, cannot be used: remove them"
            ) from error
    refuse(findings, source, place)
    if unlabeled := describe_unlabeled(findings, source):
        raise UserError(f"{place}: {unlabeled}")
    tell(findings, source, place)


def scan(
    source: LabeledFiles, report: str, decode: bool = False, num_threads: int = 0
) -> list[Finding]:
    """Looks at every label of a source, with a progress bar.

    Args:
        source: The files.
        report: Path of the JSON lines to which findings are added, and from which those of
            unchanged files are taken.
        decode: True to decode the images too; False takes their sizes from their heads.
        num_threads: Threads; 0 for one per core.

    Returns:
        A finding of `check_file` for each record. Raises as `file_scan.scan`.
    """
    number = {source.label_path(index): index for index in range(len(source))}
    look = functools.partial(check_file, source, decode=decode)

    def holds(finding: Finding) -> bool:
        index = number.get(finding["path"])
        if index is None:
            return False
        asked = _asked(source, index)
        known = {key: finding.get(key) for key in asked}
        return known == asked and finding["decoded"] >= decode and "turned" in finding

    paths = list(number)
    return file_scan.scan(paths, report, lambda path: look(number[path]), holds, num_threads)


def check_file(source: LabeledFiles, index: int, decode: bool = False) -> Finding:
    """Looks for what is wrong with the label of an image.

    Args:
        source: The files.
        index: Number of the record.
        decode: The same as in `scan`.

    Returns:
        {'path', 'bytes', 'changed' (its time), 'image' (path, bytes and time of the image),
        'classes', 'reduce_zero_label', 'conversion', 'limits', 'decoded', 'values' (the labels in
        the file), 'palette' (True if it has one), 'turned' (of an image that is turned upright:
        'both' if the size of its label shows that this is too, 'image' if it does not tell; else
        ''), 'problem' ('' if good), 'unfit' (True for a problem that is a mistake of the set, not
        damage, as a link that leads nowhere)}.
    """
    path = source.label_path(index)
    finding = {
        **file_scan.begin(path),
        **_asked(source, index),
        **dict(decoded=decode, values=[], palette=False, turned="", problem="", unfit=False),
    }
    try:
        label, finding["palette"] = label_files.decode(path, source.limits, source.conversion)
        finding["values"] = np.flatnonzero(np.bincount(label.ravel())).tolist()
        label_files.check_values(label, len(source.class_names), source.reduce_zero_label)
        size, orientation = _image_size(source, index, decode)
        label_files.check_size(label, size)
        finding["turned"] = _turned(size, orientation)
    except label_files.UnfitError as error:
        finding.update(problem=str(error), unfit=True)
    except UnreadableError as error:
        finding |= file_scan.problem(path, error)
        if os.path.islink(path) and not os.path.exists(path):
            finding |= dict(problem="it is a link that leads nowhere", unfit=True)
    return finding


@contextlib.contextmanager
def report_of(source: LabeledFiles, place: str) -> Iterator[str]:
    """The path of the report on a folder of labels, which no other process writes meanwhile.

    It is in the cache; in a temporary folder where that cannot be written, and for few labels.
    """
    name = hashlib.sha256(os.path.realpath(place).encode("utf-8", "surrogateescape")).hexdigest()
    folder = storage.cache_folder() / "scans"
    with contextlib.ExitStack() as stack:
        if len(source) < FEW:
            yield os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "report.jsonl")
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(open(folder / f"{name[:16]}.lock", "w"))
            _wait_for(lock, place)
        except OSError:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        yield os.path.join(folder, f"{name[:16]}.jsonl")


def _wait_for(lock: Any, place: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"waiting for another process that looks at {place}")
        fcntl.flock(lock, fcntl.LOCK_EX)


def refuse(findings: Sequence[Finding], source: LabeledFiles, place: str) -> None:
    """Raises UserError where labels do not fit."""
    unfit = [finding for finding in findings if finding["unfit"]]
    if not unfit:
        return
    named = "; ".join(f"{finding['path']}: {finding['problem']}" for finding in unfit[:_SHOWN])
    more = f"; and {len(unfit) - _SHOWN} more" if len(unfit) > _SHOWN else ""
    raise UserError(
        f"{len(unfit)} of {len(findings)} labels in {place} do not fit: {named}{more}; correct "
        "them, or the class list"
    )


def tell(findings: Sequence[Finding], source: LabeledFiles, place: str) -> None:
    """Warns of palettes, of images that are turned, of files that cannot be read, and of classes
    without a pixel.
    """
    for line in filter(None, (describe_palettes(findings), describe_turned(findings))):
        warn(f"{place}: {line}")
    broken = [finding for finding in findings if finding["problem"] and not finding["unfit"]]
    if broken:
        first = f"{broken[0]['path']}: {broken[0]['problem']}"
        warn(f"{len(broken)} of {len(findings)} records in {place} cannot be read, {first}")
    start = int(source.reduce_zero_label)
    seen = collections.Counter(value for finding in findings for value in finding["values"])
    names = enumerate(source.class_names, start)
    absent = [name for number, name in names if not seen[number]]
    if absent:
        hint = ""
        if len(absent) == len(source.class_names) - 1 and seen[IGNORED]:
            hint = "; 255 stands for no class: number the second class of a mask 1"
        listed = ", ".join(absent[:_SHOWN]) + (", ..." if len(absent) > _SHOWN else "")
        warn(f"{place} has no pixel of {len(absent)} of the classes: {listed}{hint}")


def describe_unlabeled(findings: Sequence[Finding], source: LabeledFiles) -> str:
    """A line about labels none of which has a pixel of a class; '' where any has."""
    seen = {value for finding in findings for value in finding["values"]}
    first = int(source.reduce_zero_label)
    last = first + len(source.class_names) - 1
    if not seen or any(first <= value <= last for value in seen):
        return ""
    listed = " and ".join(map(str, sorted(seen)))
    return (
        f"no pixel of the {len(findings)} labels belongs to a class: their numbers are {listed}, "
        f"the classes are {first} to {last}"
    )


def describe_palettes(findings: Sequence[Finding]) -> str:
    """A line about labels with a palette; '' if there are none."""
    palettes = sum(finding["palette"] for finding in findings)
    if not palettes:
        return ""
    return (
        f"{palettes} of {len(findings)} labels have a palette: the index of a color is the "
        "number of its class"
    )


def describe_turned(findings: Sequence[Finding]) -> str:
    """A line about images that are turned upright, whose labels might not be; '' if there are none,
    or if the sizes of other labels of the set show that they are.
    """
    kinds = collections.Counter(finding["turned"] for finding in findings)
    if kinds["both"] or not kinds["image"]:
        return ""
    paths = [finding["image"][0] for finding in findings if finding["turned"] == "image"]
    listed = ", ".join(paths[:_SHOWN]) + (", ..." if len(paths) > _SHOWN else "")
    return (
        f"{len(paths)} of {len(findings)} images are turned upright by their EXIF orientation, and "
        "the size of their labels does not tell whether these are of the upright pixels; if they "
        "are of the pixels as stored, read the images with conversion=reference, or save TIFFs "
        f"upright: {listed}"
    )


def _turned(size: tuple[int, int], orientation: int) -> str:
    """The entry 'turned' of a finding whose label has the size of its image, (H, W)."""
    if orientation == 1:
        return ""
    return "both" if orientation >= 5 and size[0] != size[1] else "image"


def _image_size(source: LabeledFiles, index: int, decode: bool) -> tuple[tuple[int, int], int]:
    """((H, W) of an image, the orientation by which it is turned upright)."""
    try:
        head = source.open_image(index)
        turns = source.conversion == "display" or head.format == "TIFF"
        orientation = picture.orientation(head) if turns else 1
        if not decode:
            return picture.displayed_size(head, source.conversion), orientation
        image = picture.decode(source.record_name(index), source.conversion, source.limits)
        return (image.height, image.width), orientation
    except UnreadableError as error:
        raise UnreadableError(f"its image {source.record_name(index)}: {error}") from error


def _asked(source: LabeledFiles, index: int) -> dict[str, Any]:
    """Everything that a finding depends on besides the file of the label."""
    return dict(
        image=list(file_scan.begin(source.record_name(index)).values()),
        classes=len(source.class_names),
        reduce_zero_label=source.reduce_zero_label,
        conversion=source.conversion,
        limits=dataclasses.asdict(source.limits or picture.USUAL),
    )
