"""Random-access sources of video files: annotation lists as Kinetics and Something-Something have, and class folders.

A source has a length, `source[i] -> {'video', 'label'}` (a decode.Reader, which has not opened its file yet, and
an int), `record_name(i)` for messages, and `class_names`. Lists and folders are checked when the source is made;
whether the files can be decoded shows when they are read (data/video/scan.py tells before).
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

from swin_jax.core.errors import UserError
from swin_jax.data.video.decode import Reader
from swin_jax.data.video.tfds import tfds_video as tfds_video

_SUFFIXES = ".mp4 .m4v .mov .mkv .webm .avi .flv .wmv .mpg .mpeg .ts .3gp .ogv .gif"
VIDEO_SUFFIXES = tuple(_SUFFIXES.split())
MAX_LABEL = 1_000_000  # a larger number is a slip, and every label up to the largest gets a name


@dataclasses.dataclass(frozen=True)
class VideoFileSource:
    """Video files.

    Attributes:
      root: folder of all files.
      paths: relative to root, one for a record.
      labels: one for a record.
      class_names: in label order.
      variable_frame_rate: if False, a file with one is an unreadable record, see Reader.
    """

    root: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    variable_frame_rate: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        reader = Reader(self.record_name(index), variable_frame_rate=self.variable_frame_rate)
        return {"video": reader, "label": self.labels[index]}

    def record_name(self, index: int) -> str:
        return os.path.join(self.root, self.paths[index])


def video_list(
    annotation: str | None,
    data_prefix: str = "",
    class_names: str = "",
    num_classes: int = 0,
    variable_frame_rate: bool = False,
) -> VideoFileSource:
    """Videos of an annotation list.

    Args:
      annotation: a text file with `relative/path.mp4 label` on each line, separated by white space, or a .json file
        with a list of {"filename": path, "label": number or [number]}.
      data_prefix: folder in front of every path.
      class_names: a text file with one name on each line, in label order; by default the names are the numbers.
      num_classes: how many there are, for a list in which the last ones do not occur; 0 counts them.
      variable_frame_rate: whether a file with one is read, exactly, by time stamps (as evaluation does), or is an
        unreadable record, which training names, replaces and counts.

    Returns:
      The source. Raises UserError, naming file and line, where the list is missing, empty or malformed, or where a
      label is not below `num_classes` or the number of names; without either one above MAX_LABEL is refused.
    """
    if not annotation:
        raise UserError(
            "a list of videos is missing: give --config.train_list=FILE and --config.val_list=FILE (lines of "
            "`path.mp4 label`)"
        )
    text, data_prefix = _read(annotation), os.path.expanduser(data_prefix)
    if data_prefix and not os.path.isdir(data_prefix):
        raise UserError(f"there is no folder {data_prefix}, which should hold the videos of {annotation}")
    names = tuple(line.strip() for line in _read(class_names).splitlines() if line.strip()) if class_names else ()
    if num_classes and class_names and len(names) != num_classes:
        raise UserError(f"{class_names} has {len(names)} names, num_classes is {num_classes}")
    limit, why = MAX_LABEL + 1, f"without num_classes the largest is {MAX_LABEL}"
    if num_classes or class_names:
        limit = num_classes or len(names)
        why = f"num_classes is {num_classes}" if num_classes else f"{class_names} has {len(names)} names"
    if limit > MAX_LABEL + 1:
        raise UserError(f"{why}, more than {MAX_LABEL + 1}")
    records = _read_json(annotation, text) if annotation.endswith(".json") else _read_lines(annotation, text)
    paths, labels = [], []
    for place, path, label in records:
        if label >= limit:
            raise UserError(f"{place}: label {_short(label)} is out of range, {why}")
        paths.append(path)
        labels.append(label)
    if not paths:
        raise UserError(f"{annotation} names no videos")
    names = names or tuple(map(str, range(num_classes or max(labels) + 1)))
    return VideoFileSource(data_prefix, tuple(paths), tuple(labels), names, variable_frame_rate)


def video_folder(root: str | None, split: str | None = None, variable_frame_rate: bool = False) -> VideoFileSource:
    """Videos in one sub-folder for each class, at any depth, classes and files in sorted order.

    Args:
      root: the folder.
      split: reads root/split instead.
      variable_frame_rate: as for video_list.

    Returns:
      The source. Raises UserError where the folder is missing, has no class folder, or a class has no video.
    """
    if not root:
        raise UserError("a video folder needs its path: give --config.data_dir=DIR")
    folder = os.path.join(os.path.expanduser(root), split or "").rstrip("/") or "/"
    if not os.path.isdir(folder):
        what = "is a file" if os.path.isfile(folder) else "does not exist"
        raise UserError(f"the folder {folder} {what}; videos lie in {folder}/CLASS/*.mp4")
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"{folder} has no class folders; it must hold one sub-folder of videos for each class")
    paths, labels = [], []
    for label, name in enumerate(names):
        found = [os.path.join(name, path) for path in _video_paths(os.path.join(folder, name))]
        if not found:
            raise UserError(f"{os.path.join(folder, name)} holds no videos ({_SUFFIXES})")
        paths += found
        labels += [label] * len(found)
    return VideoFileSource(folder, tuple(paths), tuple(labels), tuple(names), variable_frame_rate)


def flat_video_folder(root: str) -> VideoFileSource:
    """Videos without labels, for prediction: every video under a folder, in sorted order, or one file.

    Args:
      root: the folder, or one video.

    Returns:
      A source with label 0 and no class names; `paths` are relative to root. Raises UserError where the folder is
      missing or holds no video.
    """
    root = os.path.expanduser(root)
    if os.path.isfile(root):
        return VideoFileSource(os.path.dirname(root), (os.path.basename(root),), (0,), (), variable_frame_rate=True)
    if not os.path.isdir(root):
        raise UserError(f"there is no folder or file {root}")
    paths = _video_paths(root)
    if not paths:
        raise UserError(f"no videos in {root} (looked for {_SUFFIXES})")
    return VideoFileSource(root, tuple(paths), (0,) * len(paths), (), variable_frame_rate=True)


def _read(path: str) -> str:
    try:
        with open(os.path.expanduser(path), encoding="utf-8-sig") as file:  # some editors begin a file with a BOM
            return file.read()
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is not UTF-8 text") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _read_lines(annotation: str, text: str) -> Iterator[tuple[str, str, int]]:
    """(file:line, path, label) of every line that is not empty."""
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2 or not fields[1].isdecimal():
            hint = "; paths with spaces need a .json list" if len(fields) > 2 else ""
            shown = _short(repr(line))
            raise UserError(f"{annotation}:{number}: write `path label`, label a number from 0, not {shown}{hint}")
        yield f"{annotation}:{number}", fields[0], _number(fields[1])


def _read_json(annotation: str, text: str) -> Iterator[tuple[str, str, int]]:
    """(file: entry number, path, label) of every entry; entries count from 1."""
    try:
        entries = json.loads(text, parse_int=_number)
    except json.JSONDecodeError as error:
        raise UserError(f"{annotation}:{error.lineno}: not JSON: {error.msg}") from error
    if not isinstance(entries, list):
        raise UserError(f'{annotation}: must be a list of {{"filename": ..., "label": ...}}')
    for number, entry in enumerate(entries, 1):
        yield f"{annotation}: entry {number}", *_json_record(annotation, number, entry)


def _number(digits: str) -> int:
    """Python refuses to read more than 4300 digits; no label has so many that the first ones would not tell."""
    return int(digits[:100])


def _short(text: Any) -> str:
    text = str(text)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _json_record(annotation: str, number: int, entry: Any) -> tuple[str, int]:
    entry = entry if isinstance(entry, dict) else {}
    name, label = entry.get("filename"), entry.get("label")
    label = label[0] if isinstance(label, list) and len(label) == 1 else label
    if not isinstance(name, str) or type(label) is not int or label < 0:
        raise UserError(f"{annotation}: entry {number}: needs a filename and one label, a number from 0")
    return name, label


def _video_paths(folder: str) -> list[str]:
    """Paths of all videos under `folder`, relative to it."""
    paths = []
    for directory, subfolders, files in os.walk(folder, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        relative = os.path.relpath(directory, folder)
        videos = (name for name in sorted(files) if name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith("."))
        paths += [os.path.normpath(os.path.join(relative, name)) for name in videos]
    return paths
