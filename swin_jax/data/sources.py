"""Random-access sources: scikit-learn's digits, TFDS data sets in array_record files,
folders of images.

A source has a length, `source[i] -> {'image', 'label'}` (a PIL image or a uint8 array, and an
int), `record_name(i)` for messages, and `class_names`. It is pickled to loader workers without open
files. Users' mistakes raise UserError when the source is made; a damaged record raises an error
when it is read.
"""

import collections
import dataclasses
import functools
import os
import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import NonNegativeInt, checked
from swin_jax.data import annotations, folders
from swin_jax.data import tfds as tfds_directory
from swin_jax.data.image import archives, jpeg, picture
from swin_jax.data.labels import Marked, has_several
from swin_jax.data.rows_of_lists import short

_PROBED = 100  # files of a list whose existence is checked when it is read
_DIGITS_TEST_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Images and labels in memory.

    Attributes:
        name: Name for messages.
        images: uint8 (N, H, W) or (N, H, W, C).
        labels: int (N,).
        class_names: Class names in label order.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": int(self.labels[index])}

    def record_name(self, index: int) -> str:
        return f"{self.name} record {index}"


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Image files.

    Attributes:
        root: Folder of all files.
        paths: Paths relative to root, one for each record.
        labels: Class numbers, one for each record.
        class_names: Class names in label order.
        conversion: 'reference' or 'display', see data/image/picture.py.
        limits: Limits on an image; None for `picture.Limits()`.
    """

    root: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    conversion: str = "display"
    limits: picture.Limits | None = None

    def __post_init__(self):
        picture.check_conversion(self.conversion)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = jpeg.open_late(self.record_name(index), self.conversion, self.limits)
        return {"image": image, "label": self.labels[index]}

    def record_name(self, index: int) -> str:
        return os.path.join(self.root, self.paths[index])


class TfdsSource:
    """One split of a TFDS data set in array_record files; it is pickled as its arguments and
    reopened when unpickled.
    """

    def __init__(
        self, directory: str, split: str, image_key: str = "image", label_key: str = "label"
    ):
        """Opens the data set in `directory`, which ends in its version; see `tfds`."""
        self._arguments = (directory, split, image_key, label_key)
        self._records, self.class_names, name = tfds_directory.open_split(
            directory, split, image_key, label_key
        )
        self._name = f"{name} {split}"
        self._image_key, self._label_key = image_key, label_key

    def __reduce__(self):
        return TfdsSource, self._arguments

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._records[index]
        return {
            "image": jpeg.open_late(record[self._image_key]),
            "label": int(record[self._label_key]),
        }

    def record_name(self, index: int) -> str:
        return f"{self._name} record {index}"


class CachedSource:
    """Caches the decoded images of another source in the memory of each process."""

    def __init__(self, source):
        self._source = source
        self._examples = [None] * len(source)
        self.class_names, self.multi_label = source.class_names, has_several(source)

    def __reduce__(self):
        return CachedSource, (self._source,)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._examples[index] is None:
            example = self._source[index]
            example = {**example, "image": np.asarray(example["image"])}
            self._examples[index] = example  # if threads race, they store equal examples
        return dict(self._examples[index])

    def record_name(self, index: int) -> str:
        return self._source.record_name(index)


def digits(split: str = "train") -> ArraySource:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, in a stratified split of 80% for
    training and 20% for testing with seed 0.

    Args:
        split: 'train' or 'test'.

    Returns:
        A source of `image` uint8 (8, 8), 0 to 255, and `label` 0 to 9. Raises
        UserError for any other split.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if split not in ("train", "test"):
        raise UserError(f"digits has the splits 'train' and 'test', not {split!r}")
    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, data.target, test_size=_DIGITS_TEST_SHARE, stratify=data.target, random_state=0
    )
    names = tuple(str(name) for name in data.target_names)
    if split == "train":
        return ArraySource("digits train", train_images, train_labels, names)
    return ArraySource("digits test", test_images, test_labels, names)


def tfds(
    name: str,
    split: str,
    data_dir: str | None = None,
    image_key: str = "image",
    label_key: str = "label",
    in_memory: bool = False,
) -> TfdsSource | CachedSource:
    """Opens a TFDS data set prepared in the array_record format; does not need TensorFlow.

    Args:
        name: 'fashion_mnist', 'cifar10:3.0.2', 'set/config' or 'set/config:1.0.0';
            the newest version unless one is named.
        split: Split in TFDS's notation, for example 'train' or 'train[:90%]'.
        data_dir: Folder of data sets; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        image_key: The feature that holds the encoded image.
        label_key: The feature that holds the integer label.
        in_memory: True to cache decoded images, for data sets that fit in the memory of every
            loader process.

    Returns:
        The source. Raises UserError, saying what to do, if the data set,
        split or feature is missing or the files are TFRecord.
    """
    source = TfdsSource(tfds_directory.find(name, data_dir), split, image_key, label_key)
    return CachedSource(source) if in_memory else source


def image_folder(
    root: str | None,
    split: str | None = None,
    conversion: str = "display",
    limits: picture.Limits | None = None,
) -> FileSource | archives.ZipSource | Marked:
    """Opens a folder of images with one subfolder for each class.

    Images may lie at any depth; classes and files are sorted, as in torchvision.

    If `split` is given and root/split has no subfolders, the images are those of a list beside it,
    'split.csv', '.tsv', '.jsonl', '.json', '.txt' or 'split_map.txt' (see `image_list`), or those
    of 'split.zip', which such a list may label (see `archives.image_zip`), as in ImageNet-Zip of
    the official Swin code. 'classes.txt' may give the class names, one per line in label order. If
    there are subfolders too, a list is read only if it labels their files differently than the
    folders do, see `annotations.labels_otherwise`.

    Args:
        root: The folder.
        split: Name of a subfolder of root to read instead.
        conversion: 'display' turns images upright by their EXIF orientation and puts transparent
            ones on white; 'reference' does neither, like torchvision, for ImageNet itself.
        limits: Limits on an image, beyond which a record is unreadable; None for
            `picture.Limits()`.

    Returns:
        The source. Raises UserError if the folder is missing or has no class folder, or if a
        class has no images. Warns in one line of what was left out: other files, and links to
        files that are read anyway.
    """
    if not root:
        raise UserError("an image folder needs its path: give --config.data_dir=DIR")
    root = os.path.expanduser(root)
    folder = os.path.join(root, split) if split else root
    names, left_out = (
        folders.class_folders(folder, picture.suffixes()) if os.path.isdir(folder) else ((), {})
    )
    if split and not names and (listed := _listed(root, split, conversion, limits)):
        return listed
    if not os.path.isdir(folder):
        others = f", in {folder}.zip, or in a list {folder}.csv" if split else ""
        raise UserError(
            f"there is no folder {folder}; images belong in {folder}/CLASS/*.jpg{others}"
        )
    if not names:
        raise UserError(
            f"{folder} has no class folders; it must hold one sub-folder of images for each class"
        )
    paths, labels, others = folders.files_of_classes(folder, names, picture.suffixes(), "images")
    if split and annotations.labels_otherwise(root, split, paths, labels):
        return _of_list(root, split, conversion, limits)
    folders.tell_left_out(folder, collections.Counter(left_out) + collections.Counter(others))
    return FileSource(folder, tuple(paths), tuple(labels), names, conversion, limits)


@checked
def image_list(
    annotation: str,
    root: str = "",
    class_names: str = "",
    num_classes: NonNegativeInt = 0,
    conversion: str = "display",
    limits: picture.Limits | None = None,
) -> FileSource | Marked:
    """Opens the images of a list, each with one label or several.

    Args:
        annotation: The list, in one of the forms of `annotations.read`.
        root: Folder that paths are relative to; '' is that of the list.
        class_names: A text file of one name per line, in label order;
            '' takes the names in the list, sorted, or the numbers.
        num_classes: Number of classes, needed if labels are numbers and the highest ones do not
            occur; 0 counts them from the list.
        conversion, limits: The same as in `image_folder`.

    Returns:
        The source, wrapped in `Marked` if images have several labels. Raises UserError for
        mistakes in the list, and if none of its first images exists.
    """
    annotation = os.path.expanduser(annotation)
    listed = annotations.read(annotation, class_names, num_classes)
    root = os.path.expanduser(root) or os.path.dirname(annotation)
    if not _has_some(root, listed.paths):
        raise UserError(
            f"{annotation}: its first image, {short(listed.paths[0])}, is not in {root or '.'}, "
            "nor are the next ones"
        )
    source = FileSource(root, listed.paths, listed.labels, listed.class_names, conversion, limits)
    return source if listed.marks is None else Marked(source, listed.marks)


def _listed(root: str, split: str, conversion: str, limits: picture.Limits | None):
    """The images of root/split.zip, or of a list beside root/split; None if there is neither."""
    annotation, names = annotations.beside(root, split)
    archive = os.path.join(root, f"{split}.zip")
    if os.path.isfile(archive):
        fields = dict(class_names=names, conversion=conversion, limits=limits)
        return archives.image_zip(archive, annotation, **fields)
    return _of_list(root, split, conversion, limits) if annotation else None


def _of_list(root: str, split: str, conversion: str, limits: picture.Limits | None):
    """The images of the list beside root/split, whose paths are relative to it or to root."""
    annotation, names = annotations.beside(root, split)
    inside = os.path.join(root, split)
    has_some = _has_some(inside, annotations.read(annotation).paths)
    fields = dict(class_names=names, conversion=conversion, limits=limits)
    return image_list(annotation, inside if has_some else root, **fields)


def _has_some(root: str, paths: Sequence[str]) -> bool:
    """True if a folder has any of the first files of a list, some of which may be missing."""
    return any(os.path.isfile(os.path.join(root, path)) for path in paths[:_PROBED])


def flat_folder(
    root: str, conversion: str = "display", limits: picture.Limits | None = None
) -> FileSource:
    """Opens every image under a folder, sorted and without labels, for prediction.

    Args:
        root: The folder, or one image.
        conversion, limits: The same as in `image_folder`.

    Returns:
        A source with label 0 and no class names; `paths` are relative to root. Raises UserError
        if the folder is missing or contains no images.
    """
    root = os.path.expanduser(root)
    if os.path.isfile(root):
        return FileSource(
            os.path.dirname(root), (os.path.basename(root),), (0,), (), conversion, limits
        )
    if not os.path.isdir(root):
        raise UserError(f"there is no folder {root}")
    found = folders.files_under(root, picture.suffixes())
    if not found.paths:
        raise UserError(
            f"no images in {root} ({folders.describe(found.left_out) or 'it is empty'})"
        )
    folders.tell_left_out(root, found.left_out)
    return FileSource(root, found.paths, (0,) * len(found.paths), (), conversion, limits)


def may_be_imagenet(data_dir: str | None) -> bool:
    """True if images may be those of ImageNet-1K or one of its test sets: they have 1000 classes or
    classes named by synsets, or cannot be read yet.

    Args:
        data_dir: A folder, list or archive of images, as `image_folder` reads it, or None.
    """
    try:
        names = _class_names(data_dir) if data_dir else ()
    except UserError:
        return True
    return not names or len(names) == 1000 or all(re.fullmatch(r"n\d{8}", name) for name in names)


@functools.lru_cache
def _class_names(data_dir: str) -> tuple[str, ...]:
    """The class names of images in a folder, list or archive; raises UserError, which is not
    cached, if they cannot be read.
    """
    try:
        return _split_classes(data_dir, "val")
    except UserError:
        return _split_classes(data_dir, "train")


def _split_classes(data_dir: str, split: str) -> tuple[str, ...]:
    folder = os.path.join(data_dir, split)
    names = folders.class_folders(folder)[0] if os.path.isdir(folder) else ()
    with warnings.catch_warnings(action="ignore"):  # they are shown when the source is made
        return tuple(names or image_folder(data_dir, split).class_names)
