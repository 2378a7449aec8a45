"""Pictures of one's own: a folder of classes, a part of which is held back to measure with."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Annotated, Any

from PIL import Image

from swin_jax.core.errors import UserError, warn
from swin_jax.core.ranges import NonNegativeInt, Range, Seed, checked
from swin_jax.data import annotations, folders, labels, sources, subsets
from swin_jax.data.image import picture

TRAIN, VALIDATION = "train", ("val", "validation", "valid", "test")
Share = Annotated[float, Range(low=0.01, high=0.9)]
_SHOWN = 8  # folders that a message names
_CACHED_BYTES = 2**30  # of pixels, in each process


@dataclasses.dataclass(frozen=True)
class Count:
    """The content of a folder of images, in numbers.

    Attributes:
        classes: Number of classes.
        train: Number of images to train on.
        val: Number of images that are held back.
    """

    classes: int = 1
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

    Classes lie in root/CLASS/ or in root/train/CLASS/. If there is a folder root/val (or another
    of `VALIDATION`), it is what is held back. Otherwise that is a share of the pictures of each
    class, which the seed and their names choose: the split is the same on every machine.

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
    if len(source.class_names) < 2:
        raise UserError(
            f"{root} has one class, {source.class_names[0]!r}: put the images of each class into a "
            "folder of its own"
        )
    return SmallCopies(source, side) if side else source


def count(root: str | None, share: float = 0.2, seed: int = 0) -> Count:
    """Counts the classes and images of a folder and of its parts, see `own_images`.

    Everything is 1 where there is no folder, as in a config before its flags; `own_images` refuses
    that.
    """
    if not root or not os.path.isdir(os.path.expanduser(root)):
        return Count()
    train, val = (_read(root, split, share, seed) for split in (TRAIN, "val"))
    return Count(len(train.class_names), len(train), len(val))


def _read(root: str | None, split: str, share: float, seed: int) -> Any:
    """The source of a split, without copies."""
    root = root and os.path.expanduser(root)
    there = [name for name in (TRAIN, *VALIDATION) if root and _is_split(root, name)]
    if TRAIN in there:
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
    """True if a folder has a split of this name, and no class, which holds images, is called so."""
    folder = os.path.join(root, name)
    if os.path.isdir(folder):
        return any(entry.is_dir() for entry in os.scandir(folder))
    return os.path.isfile(f"{folder}.zip") or bool(annotations.beside(root, name)[0])


def _check_others(root: str, there: Sequence[str]) -> None:
    """Looks for folders of images beside those of the splits, which are not read.

    Where only train is there, it may be a class like them, so that they are refused; otherwise a
    warning names them. Folders whose names are of other parts of a data set are passed over.
    """
    if not os.path.isdir(os.path.join(root, TRAIN)):
        return
    folder_names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    others = [
        name
        for name in folder_names
        if not (name.startswith(".") or folders.is_made(name) or folders.are_splits([name]))
        and folders.files_under(os.path.join(root, name), picture.suffixes()).paths
    ]
    if not others:
        return
    listed = ", ".join(others[:_SHOWN]) + (", ..." if len(others) > _SHOWN else "")
    if len(there) > 1:
        warn(f"{root}: read {there[0]} and {there[1]}, and not the images in {listed}")
        return
    raise UserError(
        f"{root} has folders of images beside {TRAIN}: {listed}. If {TRAIN} is a class like them, "
        f"call its folder otherwise; if it has the classes, give "
        f"--config.data_dir={os.path.join(root, TRAIN)}"
    )


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
