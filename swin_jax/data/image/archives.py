"""Images in a zip archive, which is never unpacked:
ImageNet-Zip of the official Swin code, or folders of classes.

The official code's `--zip` (microsoft/Swin-Transformer, data/cached_image_folder.py) reads
train.zip with train_map.txt, lines of `n01440764/n01440764_10026.JPEG<tab>0`. Only the directory of
the archive is read when a source is made; members are then read by their places, so that nothing
stays open and any process or thread can read.
"""

import collections
import dataclasses
import os
import posixpath
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from swin_jax.core.errors import UnreadableError, UserError, warn
from swin_jax.core.labels import composed, count_up, read_names
from swin_jax.core.ranges import NonNegativeInt, checked
from swin_jax.data import annotations, folders, label_numbers
from swin_jax.data.image import jpeg, picture
from swin_jax.data.labels import Marked

_HEADER, _SIGNATURE = struct.Struct("<4s22xHH"), b"PK\x03\x04"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LARGEST = 2**63 - 1
_ENCRYPTED = 1  # bit of the flags
_ODD = "encrypted, of a rare compression, beyond the archive or too large"


@dataclasses.dataclass(frozen=True)
class ZipSource:
    """Image files in a zip archive.

    Attributes:
        archive: Path of the archive.
        paths: Names of the members, one for a record.
        places: int64 (N, 5): offset of the local header, compressed size, size, compression and
            CRC-32 of each; a size of -1 marks a member that is not read.
        labels: One for a record.
        class_names: Class names in label order.
        conversion: 'reference' or 'display', see data/image/picture.py.
        limits: Limits on a picture; None for `picture.Limits()`.
    """

    archive: str
    paths: tuple[str, ...]
    places: np.ndarray
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    conversion: str = "display"
    limits: picture.Limits | None = None

    def __post_init__(self):
        picture.check_conversion(self.conversion)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        data = read_member(self.archive, self.places[index])
        return {
            "image": jpeg.open_late(data, self.conversion, self.limits),
            "label": self.labels[index],
        }

    def record_name(self, index: int) -> str:
        return f"{self.archive}: {self.paths[index]}"


@checked
def image_zip(
    archive: str,
    annotation: str = "",
    class_names: str = "",
    num_classes: NonNegativeInt = 0,
    conversion: str = "display",
    limits: picture.Limits | None = None,
) -> ZipSource | Marked:
    """Images of a zip archive.

    Args:
        archive: The archive.
        annotation: The list of its images, see `annotations.read`; paths are names of
            members, with or without the one folder that all may lie in. '' takes the folders of
            the archive as classes.
        class_names: A text file of one name a line, in label order. Without it a list of numbers
            takes the names of the folders, where each folder has one number of its own.
        num_classes: Number of classes, for a list in which the last ones do not occur; 0 counts
            them.
        conversion: The same as in `sources.image_folder`.
        limits: Limits on a picture; a member that is larger than their `bytes` is unreadable.

    Returns:
        The source, with `Marked` around it for several labels of an image. Raises UserError for a
        missing or damaged archive, images of the list that it lacks, and what is wrong in the list.
        A warning counts members that are not in the list, and those that cannot be read.
    """
    archive = os.path.expanduser(archive)
    members = _directory(archive)
    if annotation:
        listed = annotations.read(annotation, class_names, num_classes)
        found = _listed(archive, members, annotation, listed.paths)
        names = _folder_names(listed, found) if not class_names else listed.class_names
        labels = listed.labels
    else:
        listed, (found, labels, names) = None, _by_folder(archive, members)
        if class_names and read_names(class_names) != composed(names):
            raise UserError(
                f"{class_names} does not have the names of the folders of {archive} in their order"
            )
    places = _places(archive, [members[name] for name in found], limits or picture.Limits())
    source = ZipSource(
        archive, tuple(found), places, tuple(labels), tuple(names), conversion, limits
    )
    return source if listed is None or listed.marks is None else Marked(source, listed.marks)


def flat_zip(archive: str) -> ZipSource:
    """All images of a zip archive, by their suffixes, with label 0 and no class names;
    raises UserError if there are none.
    """
    archive = os.path.expanduser(archive)
    members = _directory(archive)
    images = [
        name
        for name in sorted(members)
        if name.lower().endswith(picture.suffixes()) and not _is_hidden(name)
    ]
    if not images:
        raise UserError(f"{archive} holds no images")
    places = _places(archive, [members[name] for name in images], picture.Limits())
    return ZipSource(archive, tuple(images), places, (0,) * len(images), ())


def read_member(archive: str, place: Sequence[int]) -> bytes:
    """The bytes of a member by its row of `ZipSource.places`;
    never more than it says that it holds.

    Raises:
        UnreadableError: What it says of itself is not so, or its place is none.
    """
    offset, compressed, size, method, crc = (int(number) for number in place)
    if size < 0:
        raise UnreadableError(f"the member is {_ODD}")
    try:
        with open(archive, "rb") as file:
            file.seek(offset)
            signature, name, extra = _HEADER.unpack(file.read(_HEADER.size))
            file.seek(name + extra, os.SEEK_CUR)
            data = file.read(compressed)
        if signature != _SIGNATURE or len(data) != compressed:
            raise UnreadableError("the archive has another file, or none, at the member's place")
        if method == zipfile.ZIP_DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except (OSError, struct.error, zlib.error) as error:
        raise UnreadableError(f"the member cannot be read: {error}") from error
    if len(data) != size or zlib.crc32(data) != crc:
        raise UnreadableError("the member is not what the directory of the archive says")
    return data


def _directory(archive: str) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by name; two of one name are refused, folders left out."""
    if not os.path.isfile(archive):
        raise UserError(f"there is no archive {archive}")
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
    except (OSError, ValueError, struct.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(
            f"{archive} is not a whole zip archive: {' '.join(str(error).split())}"
        ) from error
    paths = annotations.with_slashes([info.filename for info in members])
    files = [(path, info) for path, info in zip(paths, members) if not path.endswith("/")]
    names = collections.Counter(path for path, _ in files)
    double = next((name for name, count in names.items() if count > 1), None)
    if double is not None:
        raise UserError(f"{archive} has {names[double]} members called {double!r}; rebuild it")
    return dict(files)


def _listed(archive: str, members: dict, annotation: str, paths: Sequence[str]) -> list[str]:
    """The members that a list names, and a warning about others."""
    prefix, paths = "", [path if path in members else posixpath.normpath(path) for path in paths]
    if paths[0] not in members:
        tops = {name.partition("/")[0] for name in members if not _is_hidden(name)}
        prefix = f"{tops.pop()}/" if len(tops) == 1 else ""
    found = [prefix + path for path in paths]
    missing = [path for name, path in zip(found, paths) if name not in members]
    if missing:
        raise UserError(
            f"{archive} lacks {len(missing)} of the {len(paths)} images of {annotation}, "
            f"{missing[0]!r} for one"
        )
    if others := len(members) - len(set(found)):
        warn(f"{archive}: left out {others} of {len(members)} files, which are not in {annotation}")
    return found


def _folder_names(listed: label_numbers.Annotations, found: Sequence[str]) -> tuple[str, ...]:
    """The names of the folders where each stands for one number, else those of the list."""
    folder_of = [os.path.basename(os.path.dirname(name)) for name in found]
    pairs = set(zip(folder_of, listed.labels))
    names = dict((label, folder) for folder, label in pairs)
    one = len(pairs) == len(names) == len(set(folder_of)) == len(listed.class_names)
    if (
        listed.marks is not None
        or not one
        or not count_up(listed.class_names)
        or not all(names.values())
    ):
        return listed.class_names
    return tuple(names[label] for label in range(len(names)))


def _by_folder(archive: str, members: dict) -> tuple[list[str], list[int], tuple[str, ...]]:
    """(members, labels, class names) of an archive whose folders are classes,
    below those that are around all.
    """
    suffixes, left_out = picture.suffixes(), collections.Counter()
    images = []
    for name in sorted(members):
        if not name.lower().endswith(suffixes) or _is_hidden(name):
            left_out[os.path.splitext(name)[1].lower() or "no suffix"] += 1
        else:
            images.append(name)
    parts = [[part for part in name.split("/") if part not in ("", ".")] for name in images]
    while (
        parts and len({found[0] for found in parts}) == 1 and all(len(found) > 2 for found in parts)
    ):
        parts = [found[1:] for found in parts]
    if not parts or any(len(found) < 2 for found in parts):
        raise UserError(
            f"{archive} has no folders of classes, CLASS/*.jpg; put the list of its images beside "
            f"it, as {os.path.splitext(archive)[0]}_map.txt with lines of `path label`"
        )
    if left_out:
        warn(f"{archive}: {folders.describe(left_out)}")
    names = tuple(sorted({found[0] for found in parts}))
    folders.refuse_names(archive, names)
    place = {name: number for number, name in enumerate(names)}
    return images, [place[found[0]] for found in parts], names


def _is_hidden(name: str) -> bool:
    """True for what archivers add, and for names that lead out of a folder."""
    return name.startswith("/") or any(
        (part.startswith(".") and part != ".") or folders.is_made(part) for part in name.split("/")
    )


def _places(archive: str, members: Sequence[zipfile.ZipInfo], limits: picture.Limits) -> np.ndarray:
    end, odd = os.path.getsize(archive), []
    places = np.zeros((len(members), 5), np.int64)
    for place, info in zip(places, members):
        numbers = (
            info.header_offset,
            info.compress_size,
            info.file_size,
            info.compress_type,
            info.CRC,
        )
        # Any 64 bits without a sign may stand there.
        place[:] = [min(number, _LARGEST) for number in numbers]
        beyond = info.header_offset + info.compress_size > end or info.file_size > limits.bytes
        if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS or beyond:
            place[2] = -1
            odd.append(info.filename)
    if odd:
        warn(
            f"{archive}: {len(odd)} of {len(members)} members are {_ODD}: unreadable; "
            f"the first is {odd[0][:100]!r}"
        )
    return places
