"""Folders of images and of the files that label their pixels."""

import os
from collections.abc import Sequence
from pathlib import Path

from swin_jax.core import labels as label_names
from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UserError, did_you_mean
from swin_jax.core.ranges import checked
from swin_jax.data import folders
from swin_jax.data.image import picture
from swin_jax.data.segmentation import checking, palettes
from swin_jax.data.segmentation.pairing import pair
from swin_jax.data.segmentation.source import LabeledFiles
from swin_jax.data.sources import CachedSource

IMAGES, LABELS = "images", ("labels", "annotations")
CLASSES = "classes.txt"
_OTHER_NAMES = {"train": ("training",), "val": ("validation",)}


@checked
def label_folder(
    root: str | None,
    split: str,
    class_names: str = "",
    reduce_zero_label: bool = False,
    image_suffix: str = "",
    label_suffix: str = "",
    palette: str = "",
    conversion: str = "display",
    limits: picture.Limits | None = None,
    check: bool = True,
    in_memory: bool = False,
) -> LabeledFiles | CachedSource:
    """Images in root/images/SPLIT with labels in root/labels/SPLIT, or root/annotations/SPLIT.

    A label has the name of its image, 'a.png' for 'a.jpg', and one number for each pixel: that of
    its class, or 255 for none. A PNG with a palette has indices, which are the numbers.

    Args:
        root: The folder.
        split: Name of the split, 'train' for example; 'training' and 'validation' are found too.
        class_names: A file with the names of the classes in the order of their numbers; '' is
            root/classes.txt.
        reduce_zero_label: True if files count classes from 1, with 0 for everything else.
        image_suffix: The end of the names of images, before '.jpg', that labels lack.
        label_suffix: The end of the names of labels, before '.png', that images lack.
        palette: A file with a color for each class, see `palettes.read`; '' is root/palette.txt if
            there is one.
        conversion: The same as in `sources.image_folder`.
        limits: Limits on a picture; None for `picture.Limits()`.
        check: True to look at all labels before the first is used, see `checking.check`.
        in_memory: True to keep decoded images, for sets that fit in the memory of every loader
            process.

    Returns:
        A source of `image` and of `label` uint8 (H, W), 255 where a pixel belongs to no class; its
        `palette` is () where there is no file of colors.

    Raises:
        UserError: No folder, no class list, images without labels, and, by `check`, labels of
            another size than their images, beyond the classes, or in color.
    """
    if not root:
        raise UserError("a folder of labeled images needs its path: give --config.data_dir=DIR")
    root = os.path.expanduser(root)
    if not os.path.isdir(root):
        raise UserError(f"there is no folder {root}: give --config.data_dir=DIR")
    names = _class_names(root, class_names)
    colors = palettes.of_folder(root, palette, len(names))
    images, labels = find_split(root, split)
    files = pair_files(root, images, labels, image_suffix, label_suffix)
    source = LabeledFiles(root, *files, names, colors, reduce_zero_label, conversion, limits)
    if check:
        checking.check(source, os.path.join(root, labels))
    return CachedSource(source) if in_memory else source


def find_split(root: str, split: str) -> tuple[str, str]:
    """The folders of a split's images and labels, relative to root.

    Raises:
        UserError: One of them is missing; the message names the splits that are there.
    """
    images = os.path.join(root, IMAGES)
    if not os.path.isdir(images):
        raise UserError(
            f"there is no folder {images}: images belong in {images}/{split} and their labels in "
            f"{os.path.join(root, LABELS[0])}/{split}"
        )
    for name in (split, *_OTHER_NAMES.get(split, ())):
        if not os.path.isdir(os.path.join(images, name)):
            continue
        for part in LABELS:
            if os.path.isdir(os.path.join(root, part, name)):
                return os.path.join(IMAGES, name), os.path.join(part, name)
        raise UserError(
            f"{os.path.join(images, name)} has no labels: they belong in "
            f"{os.path.join(root, LABELS[0], name)}"
        )
    there = sorted(entry.name for entry in os.scandir(images) if entry.is_dir())
    hint = did_you_mean(split, there)
    raise UserError(f"{images} has no split {split!r}; it has {', '.join(there) or 'none'}{hint}")


def pair_files(
    root: str, images: str, labels: str, image_suffix: str = "", label_suffix: str = ""
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files of two folders as (images, their labels), relative to root; see `pairing.pair`.

    Several labels may be links to one file, that of a scene without an object for example.
    """
    found = [
        folders.files_under(os.path.join(root, folder), picture.suffixes(), copies=copies)
        for folder, copies in ((images, False), (labels, True))
    ]
    for folder, files in zip((images, labels), found):
        folders.tell_left_out(os.path.join(root, folder), files.left_out)
    paths = [files.paths for files in found]
    pairs = pair(*paths, os.path.join(root, labels), image_suffix, label_suffix)
    return (
        tuple(os.path.join(images, image) for image, _ in pairs),
        tuple(os.path.join(labels, label) for _, label in pairs),
    )


def check_names(place: str, names: Sequence[str]) -> None:
    """Raises UserError for two names that look alike, none at all, and more than 255."""
    label_names.refuse_twins(place, names)
    if not 0 < len(names) <= IGNORED:
        raise UserError(
            f"{place} has {len(names)} names; labels of one byte tell 1 to {IGNORED} apart"
        )
    double = next((name for name in names if list(names).count(name) > 1), None)
    if double is not None:
        raise UserError(f"{place} has {double!r} twice: tell the classes apart")


def read_classes(root: str, file: str = "") -> tuple[str, ...]:
    """The names of the classes of a folder, as `label_folder` takes them; () where it has no list.

    Args:
        root: The folder; '' for none.
        file: A file with the names; '' is root/classes.txt.
    """
    path = file or os.path.join(os.path.expanduser(root), CLASSES)
    return label_names.read_names(path) if file or (root and os.path.isfile(path)) else ()


def _class_names(root: str, file: str) -> tuple[str, ...]:
    path = file or os.path.join(root, CLASSES)
    if not file and not os.path.lexists(path):
        raise UserError(
            f"{root} has no class list: write {Path(path).name} there, one name a line in the "
            "order of the numbers in the labels, or give class_names=FILE"
        )
    names = label_names.read_names(path)
    check_names(path, names)
    return names
