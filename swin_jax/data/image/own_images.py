"""Pictures of one's own: a folder of classes, a part of which is held back to measure with."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Annotated, Any

from PIL import Image

from swin_jax.core import workdirs
from swin_jax.core.errors import UserError, warn
from swin_jax.core.ranges import NonNegativeInt, Range, Seed, checked
from swin_jax.data import annotations, folders, labels, sources, subsets
from swin_jax.data.image import picture

TRAIN, VALIDATION = "train", ("val", "validation", "valid", "dev", "eval", "test")
Share = Annotated[float, Range(low=0.01, high=0.9)]
_MOST_NAMES = 8  # folders that a message names
_CACHED_BYTES = 2**30  # of pixels, in each process


@dataclasses.dataclass(frozen=True)
class Count:
    """The content of a folder of images, in numbers.

    Attributes:
        classes: Number of classes, at least 2.
        train: Number of images to train on.
        val: Number of images that are held back.
    """

    classes: int = 2
    train: int = 1
    val: int = 1


@checked
def own_images(
    root: str | None,
    split: str,
    share: Share = 0.2,
    seed: Seed = 0,
    side: NonNegativeInt = 0,
) -> "SmallCopies | subsets.Selection | sources.FileSource":
    """The pictures of a folder to train on, or those that are held back.

    Classes lie in root/CLASS/ or in root/train/CLASS/, or a list beside root/train tells them, as
    in `sources.image_folder`. If there is a root/val (or another of `VALIDATION`) in either form,
    it is what is held back. Otherwise that is a share of the pictures of each class, which the seed
    and their names choose: the split is the same on every machine. A warning names splits that are
    not read.

    Args:
        root: The folder.
        split: 'train' or 'val'.
        share: Share of each class that is held back, at least one picture.
        seed: Seed of the choice.
        side: Shorter side, in pixels, of copies that are kept in memory, see `SmallCopies`. 0 keeps
            none.

    Returns:
        The source; its class names are the names of the folders, sorted.

    Raises:
        UserError: No folder, one class or none, a class that cannot be split, folders of images
            beside a root/train that might be a class.
    """
    if split not in (TRAIN, "val"):
        raise UserError(f"the split of a folder of images is 'train' or 'val', not {split!r}")
    source = _read(root, split, share, seed)
    return SmallCopies(source, side) if side else source


def count(root: str | None, share: float = 0.2, seed: int = 0) -> Count:
    """Counts the classes and images of a folder and of its parts, see `own_images`.

    There are 2 classes and 1 image of each part where there is no folder, as in a config before its
    flags; `own_images` refuses that.
    """
    if not root or not os.path.isdir(os.path.expanduser(root)):
        return Count()
    train, val = (_read(root, split, share, seed) for split in (TRAIN, "val"))
    return Count(len(train.class_names), len(train), len(val))


def split_classes(root: str | None) -> tuple[str, ...]:
    """The class names of a folder of which `own_images` chooses the images that are held back;
    () for a folder with a split of its own, and for what is no folder of classes.
    """
    try:
        source = _read(root, TRAIN, 0.2, 0)
    except UserError:  # told by whoever reads it
        return ()
    return source.class_names if isinstance(source, subsets.Selection) else ()


def _read(root: str | None, split: str, share: float, seed: int) -> Any:
    """The source of a split, without copies."""
    root = root and os.path.expanduser(root)
    source = _open(root, split, share, seed)
    if len(source.class_names) < 2:
        raise UserError(
            f"{root} has one class, {source.class_names[0]!r}: put the images of each class into a "
            "folder of its own"
        )
    return source


def _open(root: str | None, split: str, share: float, seed: int) -> Any:
    there = [name for name in (TRAIN, *VALIDATION) if root and _is_split(root, name)]
    if there:
        _check_others(root, there)
    if TRAIN in there and len(there) > 1:
        return sources.image_folder(root, TRAIN if split == TRAIN else there[1])
    whole = sources.image_folder(root, TRAIN if TRAIN in there else None)
    if not isinstance(whole, sources.FileSource):
        raise UserError(
            f"{os.path.join(root, TRAIN)} cannot be split automatically, because its images are in "
            f"an archive or have several labels: give {os.path.join(root, 'val')} too"
        )
    chosen = held_back(whole, share, seed)
    if split == TRAIN:
        chosen = frozenset(range(len(whole))) - chosen
    return subsets.Selection(whole, tuple(sorted(chosen)))


def _is_split(root: str, name: str) -> bool:
    """True if a folder has a split of this name, and no class, which holds images, is called so.

    A list of the split 'test' without labels, as competitions give it, makes none.
    """
    folder = os.path.join(root, name)
    if _has_folders(folder) or (os.path.isfile(f"{folder}.zip") and not os.path.isdir(folder)):
        return True
    file, names = annotations.beside(root, name)
    if not file or name != "test":
        return bool(file)
    try:
        annotations.read(file, names)
    except UserError as error:
        warn(f"the images of {name} are not read: {error}")
        return False
    return True


def _has_folders(folder: str) -> bool:
    """True for a folder with folders that may be classes."""
    return os.path.isdir(folder) and any(
        entry.is_dir()
        and not (entry.name.startswith(".") or folders.is_made(entry.name))
        and not workdirs.is_workdir(entry.path)
        for entry in os.scandir(folder)
    )


def _check_others(root: str, there: Sequence[str]) -> None:
    """Looks for splits and folders of images that are not read.

    Where train is the only split, a folder beside it may be a class like it and is refused;
    otherwise a warning names it, as it names splits. A list may take images from any folder, so
    that only splits are looked for where train is one.
    """
    if TRAIN not in there:
        warn(f"{root}: there is no {TRAIN}, so that {_shown(there)} is not read as a split")
        return
    used, has_classes = there[:2], _has_folders(os.path.join(root, TRAIN))
    unread = _folders_of_images(root, used, only_splits=not has_classes)
    others = [name for name in unread if not folders.are_splits([name])]
    if others and len(there) == 1:
        raise UserError(
            f"{root} has folders of images beside {TRAIN}: {_shown(others)}. If {TRAIN} is a class "
            f"like them, call its folder otherwise; if it has the classes, give "
            f"--config.data_dir={os.path.join(root, TRAIN)}"
        )
    if unread := sorted({*unread, *there[2:]}):
        warn(f"{root}: read {' and '.join(used)}, and not the images in {_shown(unread)}")


def _folders_of_images(root: str, used: Sequence[str], only_splits: bool) -> list[str]:
    """Names of the folders with images that are not read, sorted."""
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    return [
        name
        for name in names
        if not (name in used or name.startswith(".") or folders.is_made(name))
        and not workdirs.is_workdir(os.path.join(root, name))
        and (folders.are_splits([name]) or not only_splits)
        and folders.files_under(os.path.join(root, name), picture.suffixes()).paths
    ]


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")


def held_back(source: sources.FileSource, share: float, seed: int) -> frozenset[int]:
    """The indices of the images to measure with: the same share of each class.

    The names of the files below the folder decide, so that neither their order nor the folder's
    place matters, and an image that is added moves at most one other.

    Raises:
        UserError: A class of one image.
    """
    chosen = []
    for label, name in enumerate(source.class_names):
        members = [i for i, found in enumerate(source.labels) if found == label]
        if len(members) < 2:
            raise UserError(
                f"the class {name!r} in {source.root} has {len(members)} image: each needs at "
                "least two, one to train on and one to measure with"
            )
        members.sort(key=lambda i: _rank(source.paths[i], seed))
        chosen += members[: min(max(round(share * len(members)), 1), len(members) - 1)]
    return frozenset(chosen)


def _rank(path: str, seed: int) -> bytes:
    name = path.replace(os.sep, "/")
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()


class SmallCopies:
    """Keeps pictures in memory, made small, from their first reading on; each process for itself.

    Photos of many megapixels would otherwise be decoded in every epoch.
    """

    def __init__(self, source: Any, side: int, limit: int = _CACHED_BYTES):
        """Wraps a source of pictures.

        Args:
            source: The data set that is read.
            side: Shorter side of a copy, in pixels. Smaller pictures stay as they are.
            limit: Bytes of pixels in memory; pictures beyond are read each time.
        """
        self._arguments = source, side, limit
        self._source, self._side, self._left = source, side, limit
        self._examples = {}
        self.class_names, self.multi_label = source.class_names, labels.has_several(source)

    def __reduce__(self):
        return SmallCopies, self._arguments

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index in self._examples:
            return dict(self._examples[index])
        example = self._source[index]
        example = {**example, "image": _shrink(example["image"], self._side)}
        size = example["image"].width * example["image"].height * 3
        if size <= self._left:  # threads that meet here store equal copies
            self._left -= size
            self._examples[index] = example
        return dict(example)

    def record_name(self, index: int) -> str:
        return self._source.record_name(index)


def _shrink(image: Image.Image, side: int) -> Image.Image:
    """The picture, in RGB, with a shorter side of at most `side` pixels."""
    image = image.convert("RGB")
    scale = side / min(image.size)
    if scale >= 1:
        return image
    size = [max(round(length * scale), 1) for length in image.size]
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
