"""Random-access sources of video files: annotation lists, class folders and folders without classes.

A source has a length, `source[i] -> {'video', 'label'}` (a decode.Reader, which has not opened its file yet, and
an int), `record_name(i)` for messages, and `class_names`. Lists and folders are checked when the source is made;
whether the files can be decoded shows when they are read (data/video/scan.py tells before).
"""

import collections
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from swin_jax.core.errors import UserError, did_you_mean, warn
from swin_jax.core.ranges import NonNegativeInt, PositiveInt, checked
from swin_jax.data import folders
from swin_jax.data.annotations import has_several
from swin_jax.data.annotations import read as read_labels
from swin_jax.data.labels import Marked
from swin_jax.data.video import annotations
from swin_jax.data.video.annotations import Entry, short
from swin_jax.data.video.container import DEFAULT_LIMITS, Limits
from swin_jax.data.video.decode import Reader
from swin_jax.data.video.tfds import tfds_video as tfds_video

_SUFFIXES = (
    ".mp4 .m4v .mov .qt .mkv .webm .avi .divx .flv .f4v .wmv .asf .mpg .mpeg .mpe .m1v .m2v .mpv .vob .ts .mts .m2ts "
    ".m2t .3gp .3g2 .ogv .ogm .mxf .rm .rmvb .dv .h264 .264 .hevc .h265 .265 .mjpeg .mjpg .ivf .nut .wtv .gif"
)
VIDEO_SUFFIXES = tuple(_SUFFIXES.split())
MAX_LABEL = 1_000_000  # a larger number is a slip, and every label up to the largest gets a name


@checked
@dataclasses.dataclass(frozen=True)
class VideoFileSource:
    """Video files.

    Attributes:
      root: folder of all files.
      paths: relative to root, one for a record.
      labels: one for a record.
      class_names: in label order.
      variable_frame_rate: if False, a file with one is an unreadable record, see Reader.
      max_pixels: of a frame; a file with larger ones is an unreadable record.
      max_frames: of a file; one with more, or that announces more, is an unreadable record.
    """

    root: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    variable_frame_rate: bool = False
    max_pixels: PositiveInt = DEFAULT_LIMITS.pixels
    max_frames: PositiveInt = DEFAULT_LIMITS.frames

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        limits = Limits(self.max_pixels, self.max_frames)
        reader = Reader(self.record_name(index), variable_frame_rate=self.variable_frame_rate, limits=limits)
        return {"video": reader, "label": self.labels[index]}

    def record_name(self, index: int) -> str:
        return os.path.join(self.root, self.paths[index])


@checked
def video_list(
    annotation: str | None,
    data_prefix: str = "",
    class_names: str = "",
    num_classes: NonNegativeInt = 0,
    variable_frame_rate: bool = False,
    max_pixels: PositiveInt = DEFAULT_LIMITS.pixels,
    max_frames: PositiveInt = DEFAULT_LIMITS.frames,
) -> VideoFileSource | Marked:
    """Videos of an annotation list.

    Args:
      annotation: a list in any of the forms of data/video/annotations.py: lines of `relative/path.mp4 label`, a table
        of paths and labels (.csv, .tsv), .json, .jsonl, Kinetics' .csv, or Something-Something's .json. Several labels
        of a video stand in it as data/annotations.py says.
      data_prefix: folder in front of every path. For the lists of Kinetics and Something-Something, which hold no
        paths, the folder in which, at any depth, files are called YOUTUBE_ID_START_END, YOUTUBE_ID or ID; records
        without a file are left out with a warning.
      class_names: a text file with one name on each line, in label order, or Something-Something's labels.json, which
        is found beside its list. By default names are those in the list, sorted, or the numbers.
      num_classes: how many there are, for a list in which the last ones do not occur; 0 counts them.
      variable_frame_rate: whether a file with one is read, exactly, by time stamps (as evaluation does), or is an
        unreadable record, which training names, replaces and counts.
      max_pixels: of a frame; a file with larger ones is an unreadable record. By default those of 8K.
      max_frames: of a file; one with more is an unreadable record.

    Returns:
      The source, with `Marked` around it for several labels of a video. Raises UserError, naming file and line, where
      the list is missing, empty or malformed, or where a label is not below `num_classes` or the number of names, or
      not among them; without either one above MAX_LABEL is refused.
    """
    if not annotation:
        raise UserError(
            "a list of videos is missing: give --config.train_list=FILE and --config.val_list=FILE (lines of "
            "`path.mp4 label`)"
        )
    data_prefix = os.path.expanduser(data_prefix)
    if data_prefix and not os.path.isdir(data_prefix):
        raise UserError(f"there is no folder {data_prefix}, which should hold the videos of {annotation}")
    limits = (variable_frame_rate, max_pixels, max_frames)
    if has_several(annotation):
        listed = read_labels(annotation, class_names, num_classes)
        source = VideoFileSource(data_prefix, listed.paths, listed.labels, listed.class_names, *limits)
        return Marked(source, listed.marks)
    found = annotations.read(annotation)
    class_names = class_names or (_labels_beside(annotation) if not found.has_paths else "")
    names = annotations.read_names(class_names) if class_names else ()
    if num_classes and names and len(names) != num_classes:
        raise UserError(f"{class_names} has {len(names)} names, num_classes is {num_classes}")
    entries = _checked(found.entries, _label_limit(names, class_names, num_classes))
    if not entries:
        raise UserError(f"{annotation} names no videos")
    names, labels = _labels(entries, names, class_names, num_classes)
    if found.has_paths:
        paths = tuple(entry.names[0] for entry in entries)
    else:
        paths, labels = _files(annotation, data_prefix, entries, labels)
    return VideoFileSource(data_prefix, paths, labels, names, *limits)


@checked
def video_folder(
    root: str | None,
    split: str | None = None,
    variable_frame_rate: bool = False,
    max_pixels: PositiveInt = DEFAULT_LIMITS.pixels,
    max_frames: PositiveInt = DEFAULT_LIMITS.frames,
) -> VideoFileSource:
    """Videos in one sub-folder for each class, at any depth, classes and files in sorted order.

    A warning counts what is left out, see data/folders.py.

    Args:
      root: the folder.
      split: reads root/split instead.
      variable_frame_rate, max_pixels, max_frames: as for video_list.

    Returns:
      The source. Raises UserError where the folder is missing, has no class folder, or a class has no video.
    """
    if not root:
        raise UserError("a video folder needs its path: give --config.data_dir=DIR")
    folder = os.path.join(os.path.expanduser(root), split or "").rstrip("/") or "/"
    if not os.path.isdir(folder):
        what = "is a file" if os.path.isfile(folder) else "does not exist"
        raise UserError(f"the folder {folder} {what}; videos lie in {folder}/CLASS/*.mp4")
    names, left_out = folders.class_folders(folder)
    if not names:
        raise UserError(f"{folder} has no class folders; it must hold one sub-folder of videos for each class")
    paths, labels, left_out = [], [], collections.Counter(left_out)
    for label, name in enumerate(names):
        found = folders.files_under(os.path.join(folder, name), VIDEO_SUFFIXES, root=folder)
        if not found.paths:
            others = folders.describe(found.left_out) or "it is empty"
            raise UserError(f"{os.path.join(folder, name)} holds no videos ({others})")
        left_out.update(found.left_out)
        paths += [os.path.join(name, path) for path in found.paths]
        labels += [label] * len(found.paths)
    folders.tell_left_out(folder, left_out)
    return VideoFileSource(folder, tuple(paths), tuple(labels), names, variable_frame_rate, max_pixels, max_frames)


@checked
def flat_video_folder(
    root: str, max_pixels: PositiveInt = DEFAULT_LIMITS.pixels, max_frames: PositiveInt = DEFAULT_LIMITS.frames
) -> VideoFileSource:
    """Videos without labels, for prediction: every video under a folder, in sorted order, or one file.

    A warning counts what is left out, see data/folders.py.

    Args:
      root: the folder, or one video.
      max_pixels, max_frames: as for video_list.

    Returns:
      A source with label 0 and no class names; `paths` are relative to root. Raises UserError where the folder is
      missing or holds no video.
    """
    root, limits = os.path.expanduser(root), (max_pixels, max_frames)
    if os.path.isfile(root):
        return VideoFileSource(os.path.dirname(root), (os.path.basename(root),), (0,), (), True, *limits)
    if not os.path.isdir(root):
        raise UserError(f"there is no folder or file {root}")
    found = folders.files_under(root, VIDEO_SUFFIXES)
    if not found.paths:
        raise UserError(f"no videos in {root} ({folders.describe(found.left_out) or 'it is empty'})")
    folders.tell_left_out(root, found.left_out)
    return VideoFileSource(root, found.paths, (0,) * len(found.paths), (), True, *limits)


def _label_limit(names: tuple[str, ...], file: str, num_classes: int) -> tuple[int, str]:
    """(the number that labels must be below, why); `names` are those of `file`, if any."""
    limit, why = MAX_LABEL + 1, f"without num_classes the largest is {MAX_LABEL}"
    if num_classes:
        limit, why = num_classes, f"num_classes is {num_classes}"
    elif names:
        limit, why = len(names), f"{file} has {len(names)} names"
    if limit > MAX_LABEL + 1:
        raise UserError(f"{why}, more than {MAX_LABEL + 1}")
    return limit, why


def _checked(entries: Iterable[Entry], limit: tuple[int, str]) -> list[Entry]:
    """The entries of a list; labels are numbers below the limit, or all are names."""
    found = []
    for entry in entries:
        if not isinstance(entry.label, str) and entry.label >= limit[0]:
            raise UserError(f"{entry.place}: label {short(entry.label)} is out of range, {limit[1]}")
        if found and isinstance(entry.label, str) != isinstance(found[0].label, str):
            raise UserError(
                f"{entry.place}: {short(repr(entry.label))}; labels are all numbers or all names, and the first is "
                f"{short(repr(found[0].label))}"
            )
        found.append(entry)
    return found


def _labels(
    entries: Sequence[Entry], names: tuple[str, ...], file: str, num_classes: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """(class names, the number of each entry's class)."""
    labels = tuple(entry.label for entry in entries)
    if not isinstance(labels[0], str):
        return names or tuple(map(str, range(num_classes or max(labels) + 1))), labels
    if names:
        index = {name: number for number, name in enumerate(names)}
        return names, tuple(_named(entry, index, file) for entry in entries)
    names = tuple(sorted(set(labels)))
    if num_classes and len(names) > num_classes:
        raise UserError(f"the list has {len(names)} classes, num_classes is {num_classes}")
    index = {name: number for number, name in enumerate(names)}
    return names, tuple(index[label] for label in labels)


def _named(entry: Entry, index: Mapping[str, int], file: str) -> int:
    name = entry.label
    if name not in index:
        raise UserError(f"{entry.place}: the class {short(repr(name))} is not in {file}{did_you_mean(name, index)}")
    return index[name]


def _labels_beside(annotation: str) -> str:
    """Something-Something's list of labels in the folder of its list, or ''."""
    folder = os.path.dirname(os.path.expanduser(annotation))
    paths = [os.path.join(folder, name) for name in ("labels.json", "something-something-v2-labels.json")]
    is_json = annotation.lower().endswith(".json")
    return next((path for path in paths if is_json and os.path.isfile(path)), "")


def _files(
    annotation: str, folder: str, entries: Sequence[Entry], labels: Sequence[int]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """(paths, labels) of the entries that have a file in `folder`."""
    if not folder:
        raise UserError(f"{annotation} names no files: data_prefix must be the folder of its videos")
    called = collections.defaultdict(list)
    for path in folders.files_under(folder, VIDEO_SUFFIXES).paths:
        called[os.path.splitext(os.path.basename(path))[0]].append(path)
    found, missing = [], []
    for entry, label in zip(entries, labels):
        name = next((name for name in entry.names if name in called), None)
        if name is None:
            missing.append(entry)
        elif len(called[name]) > 1:
            raise UserError(f"{entry.place}: {' and '.join(called[name][:2])} in {folder} could both be the video")
        else:
            found.append((called[name][0], label))
    if missing:
        said = f"of {len(entries)} videos {len(missing)} are not in {folder}: {missing[0].names[0]}"
        if not found:
            raise UserError(f"{annotation}: {said} for one; files are called so, with a suffix such as .mp4")
        warn(f"{annotation}: left out; {said}{' for one' if len(missing) > 1 else ''}")
    return tuple(path for path, _ in found), tuple(label for _, label in found)
