"""Random-access sources of video files: annotation lists as Kinetics and Something-Something have, and class folders.

A source has a length, `source[i] -> {'video', 'label'}` (a video_decode.Reader, which has not opened its file yet, and
an int), `record_name(i)` for messages, and `class_names`. Lists and folders are checked when the source is made;
whether the files can be decoded shows when they are read (data/video_scan.py tells before).
"""

import dataclasses
import json
import os
from typing import Any

from swin_jax.data.video_decode import Reader
from swin_jax.data.video_tfds import tfds_video as tfds_video
from swin_jax.errors import UnreadableError, UserError

_SUFFIXES = ".mp4 .m4v .mov .mkv .webm .avi .flv .wmv .mpg .mpeg .ts .3gp .ogv .gif"
VIDEO_SUFFIXES = tuple(_SUFFIXES.split())


@dataclasses.dataclass(frozen=True)
class VideoFileSource:
    """Video files.

    Attributes:
      root: folder of all files.
      paths: relative to root, one for a record.
      labels: one for a record.
      class_names: in label order.
      variable_frame_rate: if False, a file with one is an unreadable record.
    """

    root: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    variable_frame_rate: bool = True

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        reader = Reader(self.record_name(index))
        if not self.variable_frame_rate and reader.variable_frame_rate:
            raise UnreadableError("has a variable frame rate")
        return {"video": reader, "label": self.labels[index]}

    def record_name(self, index: int) -> str:
        return os.path.join(self.root, self.paths[index])


def video_list(
    annotation: str | None,
    data_prefix: str = "",
    class_names: str = "",
    num_classes: int = 0,
    variable_frame_rate: bool = True,
) -> VideoFileSource:
    """Videos of an annotation list.

    Args:
      annotation: a text file with `relative/path.mp4 label` on each line, separated by white space, or a .json file
        with a list of {"filename": path, "label": number or [number]}.
      data_prefix: folder in front of every path.
      class_names: a text file with one name on each line, in label order; by default the names are the numbers.
      num_classes: how many there are, for a list in which the last ones do not occur; 0 counts them.
      variable_frame_rate: whether files with a variable frame rate are read (by frame number) or count as unreadable.

    Returns:
      The source. Raises UserError, naming file and line, where the list is missing, empty or malformed.
    """
    if not annotation:
        raise UserError("a video list needs its path: give --config.annotation=FILE (lines of `path.mp4 label`)", 2)
    text, data_prefix = _read(annotation), os.path.expanduser(data_prefix)
    if data_prefix and not os.path.isdir(data_prefix):
        raise UserError(f"there is no folder {data_prefix}, which should hold the videos of {annotation}")
    records = _read_json(annotation, text) if annotation.endswith(".json") else _read_lines(annotation, text)
    if not records:
        raise UserError(f"{annotation} names no videos")
    needed = max(label for _, label in records) + 1
    if class_names:
        names = tuple(line.strip() for line in _read(class_names).splitlines() if line.strip())
    else:
        names = tuple(str(label) for label in range(max(needed, num_classes)))
    if len(names) < needed or num_classes and len(names) != num_classes:
        expected = f"num_classes is {num_classes}" if num_classes else f"there are {len(names)} class names"
        raise UserError(f"{annotation} has labels up to {needed - 1}, and {expected}", 2)
    paths, labels = zip(*records)
    return VideoFileSource(data_prefix, paths, labels, names, variable_frame_rate)


def video_folder(root: str | None, split: str | None = None, variable_frame_rate: bool = True) -> VideoFileSource:
    """Videos in one sub-folder for each class, at any depth, classes and files in sorted order.

    Args:
      root: the folder.
      split: reads root/split instead.
      variable_frame_rate: as for video_list.

    Returns:
      The source. Raises UserError where the folder is missing, has no class folder, or a class has no video.
    """
    if not root:
        raise UserError("a video folder needs its path: give --config.data_dir=DIR", 2)
    folder = os.path.join(root, split) if split else root
    if not os.path.isdir(folder):
        raise UserError(f"there is no folder {folder}; videos lie in {folder}/CLASS/*.mp4")
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
        return VideoFileSource(os.path.dirname(root), (os.path.basename(root),), (0,), ())
    if not os.path.isdir(root):
        raise UserError(f"there is no folder or file {root}")
    paths = _video_paths(root)
    if not paths:
        raise UserError(f"no videos in {root} (looked for {_SUFFIXES})")
    return VideoFileSource(root, tuple(paths), (0,) * len(paths), ())


def _read(path: str) -> str:
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _read_lines(annotation: str, text: str) -> list[tuple[str, int]]:
    records = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2 or not fields[1].isdecimal():
            hint = "; paths with spaces need a .json list" if len(fields) > 2 else ""
            raise UserError(f"{annotation}:{number}: write `path label`, label a number from 0, not {line!r}{hint}")
        records.append((fields[0], int(fields[1])))
    return records


def _read_json(annotation: str, text: str) -> list[tuple[str, int]]:
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{annotation}:{error.lineno}: not JSON: {error.msg}") from error
    if not isinstance(entries, list):
        raise UserError(f'{annotation}: must be a list of {{"filename": ..., "label": ...}}')
    return [_json_record(annotation, number, entry) for number, entry in enumerate(entries)]


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
