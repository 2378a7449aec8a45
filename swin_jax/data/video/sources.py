"""Random-access sources of video files: annotation lists,
class folders and folders without classes.

A source has a length, `source[i] -> {'video', 'label'}` (a decode.Reader, which has not opened its
file yet, and an int), `record_name(i)` for messages, and `class_names`. Lists and folders are
checked when the source is made; whether the files can be decoded shows when they are read
(data/video/scan.py tells before).
"""

import collections
import dataclasses
import os
from typing import Any

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import NonNegativeInt, PositiveInt, checked
from swin_jax.data import annotations, folders, label_numbers
from swin_jax.data.labels import Marked
from swin_jax.data.video import published as published_lists
from swin_jax.data.video.container import DEFAULT_LIMITS, Limits
from swin_jax.data.video.decode import Reader
from swin_jax.data.video.tfds import tfds_video as tfds_video

_SUFFIXES = (
    ".mp4 .m4v .mov .qt .mkv .webm .avi .divx .flv .f4v .wmv .asf .mpg .mpeg .mpe .m1v .m2v .mpv "
    ".vob .ts .mts .m2ts .m2t .3gp .3g2 .ogv .ogm .mxf .rm .rmvb .dv .h264 .264 .hevc .h265 .265 "
    ".mjpeg .mjpg .ivf .nut .wtv .gif"
)
VIDEO_SUFFIXES = tuple(_SUFFIXES.split())


@checked
@dataclasses.dataclass(frozen=True)
class VideoFileSource:
    """Video files.

    Attributes:
        root: Folder of all files.
        paths: Paths relative to root, one for a record.
        labels: One for a record.
        class_names: Class names in label order.
        variable_frame_rate: False if a file with a variable frame rate is an unreadable record, see
              Reader.
        max_pixels: Most pixels of a frame; a file with larger ones is an unreadable record.
        max_frames: Most frames of a file; one with more, or that announces more, is an unreadable
              record.
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
        reader = Reader(
            self.record_name(index), variable_frame_rate=self.variable_frame_rate, limits=limits
        )
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
        annotation: A list in any of the forms of data/annotations.py: lines of `relative/path.mp4
            label`, a table of paths and labels (.csv, .tsv), .json, .jsonl, with one or several
            labels of a video; Kinetics' .csv, or Something-Something's .json.
        data_prefix: Folder in front of every path. For the lists of Kinetics and
            Something-Something, which hold no paths, the folder in which, at any depth, files are
            called YOUTUBE_ID_START_END, YOUTUBE_ID or ID; records without a file are left out with
            a warning.
        class_names: A text file with one name on each line, in label order, or
            Something-Something's labels.json, which is found beside its list. By default names are
            those in the list, sorted, or the numbers.
        num_classes: Number of classes, for a list in which the last ones do not occur; 0 counts
            them.
        variable_frame_rate: True if a file with a variable frame rate is read, exactly, by time
            stamps (as evaluation does); False if it is an unreadable record, which training names,
            replaces and counts.
        max_pixels: Most pixels of a frame; a file with larger ones is an unreadable record. By
              default those of 8K.
        max_frames: Most frames of a file; one with more is an unreadable record.

    Returns:
        The source, with `Marked` around it for several labels of a video. Raises UserError,
        naming file and line, where the list is missing, empty or malformed, or where a label is
        not below `num_classes` or the number of names, or not among them; without either one
        above MAX_LABEL is refused.
    """
    if not annotation:
        raise UserError(
            "a list of videos is missing: give --config.train_list=FILE and "
            "--config.val_list=FILE (lines of `path.mp4 label`)"
        )
    data_prefix = os.path.expanduser(data_prefix)
    if data_prefix and not os.path.isdir(data_prefix):
        raise UserError(
            f"there is no folder {data_prefix}, which should hold the videos of {annotation}"
        )
    annotation, limits = (
        os.path.expanduser(annotation),
        (variable_frame_rate, max_pixels, max_frames),
    )
    published = published_lists.read(annotation)
    if published is None:
        listed = annotations.read(annotation, class_names, num_classes)
        source = VideoFileSource(
            data_prefix, listed.paths, listed.labels, listed.class_names, *limits
        )
        return source if listed.marks is None else Marked(source, listed.marks)
    if not published.entries:
        raise UserError(f"{annotation} lists no videos")
    class_names = class_names or published_lists.labels_beside(annotation)
    listed = label_numbers.numbered(annotation, published.entries, class_names, num_classes)
    found = published_lists.find_files(annotation, published, data_prefix, VIDEO_SUFFIXES)
    labels = tuple(listed.labels[record] for record in found)
    return VideoFileSource(data_prefix, tuple(found.values()), labels, listed.class_names, *limits)


@checked
def video_folder(
    root: str | None,
    split: str | None = None,
    variable_frame_rate: bool = False,
    max_pixels: PositiveInt = DEFAULT_LIMITS.pixels,
    max_frames: PositiveInt = DEFAULT_LIMITS.frames,
) -> VideoFileSource | Marked:
    """Videos in one sub-folder for each class, at any depth, classes and files in sorted order.

    With `split`, where root/split has no sub-folders of classes, the videos are instead those of a
    list beside it, 'split.csv', '.tsv', '.jsonl', '.json' or '.txt' (see `video_list`), whose paths
    start from root/split or root. 'classes.txt' may give the class names, one per line in label
    order. Where there are sub-folders as well, such a list is read if it labels their files
    otherwise than by folder, see `annotations.labels_otherwise`. A warning counts what is left out,
    see data/folders.py.

    Args:
        root: The folder.
        split: Name of a subfolder of root to read instead.
        variable_frame_rate, max_pixels, max_frames: The same as in `video_list`.

    Returns:
        The source. Raises UserError where the folder is missing, has no class folder, or a class
        has no video; for a list as `video_list`, and where none of its videos is there.
    """
    if not root:
        raise UserError("a video folder needs its path: give --config.data_dir=DIR")
    root, limits = os.path.expanduser(root), (variable_frame_rate, max_pixels, max_frames)
    folder = os.path.join(root, split or "").rstrip("/") or "/"
    names, left_out = (
        folders.class_folders(folder, VIDEO_SUFFIXES) if os.path.isdir(folder) else ((), {})
    )
    if split and not names and (listed := _listed(root, split, limits)):
        return listed
    if not os.path.isdir(folder):
        what = "is a file" if os.path.isfile(folder) else "does not exist"
        others = f", or in a list {folder}.csv" if split else ""
        raise UserError(
            f"the folder {folder} {what}; videos belong in {folder}/CLASS/*.mp4{others}"
        )
    if not names:
        raise UserError(
            f"{folder} has no class folders; it must hold one sub-folder of videos for each class"
        )
    paths, labels, others = folders.files_of_classes(folder, names, VIDEO_SUFFIXES, "videos")
    if split and annotations.labels_otherwise(root, split, paths, labels, _read_paths):
        return _listed(root, split, limits)
    folders.tell_left_out(folder, collections.Counter(left_out) + collections.Counter(others))
    return VideoFileSource(folder, tuple(paths), tuple(labels), names, *limits)


def _read_paths(annotation: str, class_names: str) -> annotations.Annotations | None:
    """A list of paths; None for one of Kinetics or Something-Something, whose labels are those of
    their folders.
    """
    if published_lists.read(annotation) is not None:
        return None
    return annotations.read(annotation, class_names)


def _listed(root: str, split: str, limits: tuple) -> VideoFileSource | Marked | None:
    """The videos of a list that lies beside root/split; None where there is none."""
    annotation, names = annotations.beside(root, split)
    if not annotation:
        return None
    places = [place for place in (os.path.join(root, split), root) if os.path.isdir(place)]
    if published_lists.read(annotation) is None:
        paths = annotations.read(annotation, names).paths
        places = [
            place
            for place in places
            if any(os.path.isfile(os.path.join(place, path)) for path in paths)
        ]
        if not places:
            raise UserError(
                f"{annotation}: none of its videos, {paths[0]} for one, "
                f"is in {root} or {root}/{split}"
            )
    return video_list(annotation, places[0], names, 0, *limits)


@checked
def flat_video_folder(
    root: str,
    max_pixels: PositiveInt = DEFAULT_LIMITS.pixels,
    max_frames: PositiveInt = DEFAULT_LIMITS.frames,
) -> VideoFileSource:
    """Videos without labels, for prediction: every video under a folder, in sorted order,
    or one file.

    A warning counts what is left out, see data/folders.py.

    Args:
        root: The folder, or one video.
        max_pixels, max_frames: The same as in `video_list`.

    Returns:
        A source with label 0 and no class names; `paths` are relative to root. Raises UserError
        where the folder is missing or holds no video.
    """
    root, limits = os.path.expanduser(root), (max_pixels, max_frames)
    if os.path.isfile(root):
        return VideoFileSource(
            os.path.dirname(root), (os.path.basename(root),), (0,), (), True, *limits
        )
    if not os.path.isdir(root):
        raise UserError(f"there is no folder or file {root}")
    found = folders.files_under(root, VIDEO_SUFFIXES)
    if not found.paths:
        raise UserError(
            f"no videos in {root} ({folders.describe(found.left_out) or 'it is empty'})"
        )
    folders.tell_left_out(root, found.left_out)
    return VideoFileSource(root, found.paths, (0,) * len(found.paths), (), True, *limits)
