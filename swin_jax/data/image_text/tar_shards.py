"""Image-text pairs in webdataset-style tar shards, with random access.

A record is an image and a text of one shard whose names differ only in the suffix (grouping.py):
000123.jpg with 000123.txt or 000123.json. Where members lie is found once and kept in a small file
for each shard, which is mapped, not read, so that any number of shards costs no memory. Reference:
webdataset, whose shards can be read as they are.
"""

import concurrent.futures
import contextlib
import functools
import os
import tarfile
import uuid
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm

from swin_jax.core import storage
from swin_jax.core.errors import UnreadableError, UserError, warn
from swin_jax.core.output.text import quoted
from swin_jax.data.image import picture
from swin_jax.data.image_text import grouping, tar_headers
from swin_jax.data.image_text.captions import (
    MAX_BYTES,
    captions_of,
    from_text,
    parse_json,
    texts_of,
)
from swin_jax.data.image_text.patterns import expand

# An index is an int64 table (rows, 4). Row 0 is (format, bytes and modification time of the shard,
# checksum of the other rows); then for each of grouping.KINDS (how many are left out, where the
# header of the first one begins, 0, 0); then each pair (where the image begins, its bytes, where
# the text begins, its bytes).
_FORMAT = 2
_HEAD = 1 + len(grouping.KINDS)
_OPEN_INDICES = 4096  # mapped at a time; Linux allows 65,530 maps in a process
_BUILDERS = 8  # threads that read shards' headers


class TarPairs:
    """Pairs in tar shards; pickles as the paths and lengths. See `tar_shards`."""

    class_names: tuple[str, ...] = ()

    def __init__(
        self,
        shards: tuple[str, ...],
        indices: tuple[str, ...],
        lengths: Sequence[int],
        text_key: str,
        conversion: str,
        caption_lines: bool,
    ):
        """`indices` are the shards' index files and `lengths` their numbers of records."""
        self._arguments = (shards, indices, tuple(lengths), text_key, conversion, caption_lines)
        self._shards, self._indices, self._text_key = shards, indices, text_key
        self._conversion, self._caption_lines = conversion, caption_lines
        self._ends = np.cumsum(np.asarray(lengths, np.int64))

    def __reduce__(self):
        return TarPairs, self._arguments

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        shard, place = self._find(index)
        with open(self._shards[shard], "rb") as file:
            example = self._texts(file, place)
            example["text"] = captions_of(example["text"])
            return {"image": picture.decode(_read(file, place[:2]), self._conversion), **example}

    def record(self, index: int) -> dict[str, Any]:
        """The captions of a record."""
        shard, place = self._find(index)
        with open(self._shards[shard], "rb") as file:
            return self._texts(file, place)

    def image_bytes(self, index: int) -> bytes:
        """The encoded image of a record."""
        shard, place = self._find(index)
        with open(self._shards[shard], "rb") as file:
            return _read(file, place[:2])

    def record_name(self, index: int) -> str:
        shard, place = self._find(index)
        return (
            f"{self._shards[shard]}{_member_name(self._shards[shard], place)} "
            f"(image at byte {place[0]})"
        )

    def _find(self, index: int) -> tuple[int, np.ndarray]:
        """The number of the shard, and (image start, bytes, text start, bytes)."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[shard - 1]) if shard else 0
        return shard, _index(self._indices[shard])[_HEAD + index - first]

    def _texts(self, file, place: np.ndarray) -> dict[str, Any]:
        if place[3] > MAX_BYTES:
            raise UnreadableError(f"a text of {place[3]:,} bytes, more than {MAX_BYTES:,}")
        data = _read(file, place[2:])
        if not self._text_key:
            return {"text": from_text(data, self._caption_lines)}
        return {"text": texts_of(parse_json(data), self._text_key)}


def tar_shards(
    patterns: str | Sequence[str] | None,
    text_key: str = "",
    index_dir: str | None = None,
    conversion: str = "reference",
    caption_lines: bool = False,
) -> TarPairs:
    """Pairs in tar shards.

    Args:
        patterns: Paths of shards; '{000..127}' and '{a,b}' are expanded as in a shell, then '*',
            '?' and '[]'. A file or folder whose name has such signs is taken as it is called.
        text_key: '' takes captions from .txt members, a name from that key of .json members (a
            caption or a list).
        index_dir: Folder for index files; by default each lies beside its shard. They are made
            where they are missing, damaged or older than the shard; every process of a run may do
            so at once.
        conversion: Conversion of pixels: 'display' turns pictures upright by their EXIF orientation
            and lays what is transparent on white, 'reference' does neither, as the recipes of CLIP.
        caption_lines: True if each line of a .txt is a caption of its own, as CLIP_benchmark writes
            the shards of its retrieval; otherwise a text is one caption.

    Returns:
        The source, shards in the order of the patterns. Members that are in no pair are counted in
        a warning. Raises UserError where a pattern fits no file, a shard is compressed or not a
        tar, an index cannot be written, or there are no pairs.
    """
    picture.check_conversion(conversion)
    shards = expand(patterns)
    suffix = ".json" if text_key else ".txt"
    folders = [index_dir or os.path.dirname(shard) or "." for shard in shards]
    if index_dir:
        os.makedirs(index_dir, exist_ok=True)
        if len({os.path.basename(shard) for shard in shards}) < len(shards):
            raise UserError(
                f"shards of equal names cannot share index_dir={index_dir}; leave it out"
            )
    indices = [
        os.path.join(folder, f"{os.path.basename(shard)}{suffix}.index.npy")
        for folder, shard in zip(folders, shards)
    ]
    _build_stale(shards, indices, suffix)
    tables = [np.load(index, mmap_mode="r") for index in indices]
    lengths = [len(table) - _HEAD for table in tables]
    left_out = grouping.describe(_left_out(shards, tables), suffix)
    if not sum(lengths):
        advice = "" if text_key else "; for captions in .json members give text_key"
        found = f" ({left_out})" if left_out else ""
        wanted = f"no image with a {suffix} member of its name"
        raise UserError(f"{shards[0]} and the other shards hold {wanted}{advice}{found}")
    if left_out:
        warn(
            f"{shards[0]}{' and the other shards' if shards[1:] else ''}: "
            f"{sum(lengths):,} pairs; {left_out}"
        )
    return TarPairs(tuple(shards), tuple(indices), lengths, text_key, conversion, caption_lines)


def _build_stale(shards: Sequence[str], indices: Sequence[str], suffix: str) -> None:
    """Writes the indices that are missing, damaged or old; warns of shards that are damaged."""
    stale = [(shard, index) for shard, index in zip(shards, indices) if not _is_fresh(shard, index)]
    if not stale:
        return
    with concurrent.futures.ThreadPoolExecutor(_BUILDERS) as pool:
        built = pool.map(lambda pair: _build(*pair, suffix), stale)
        bar = tqdm.tqdm(built, "indexing tar shards", total=len(stale), unit=" shards")
        for damage in filter(None, bar):
            warn(damage)
    _index.cache_clear()


def _left_out(shards: Sequence[str], tables: Sequence[np.ndarray]) -> dict[int, tuple[int, str]]:
    """For `grouping.describe`: the sums over all shards, and the first member of each kind."""
    counts = np.sum([table[1:_HEAD, 0] for table in tables], axis=0)
    found = {}
    for why in np.flatnonzero(counts):
        shard, table = next(
            (shard, table) for shard, table in zip(shards, tables) if table[1 + why, 0]
        )
        member = "" if why == grouping.DAMAGED else f"{_name_at(shard, int(table[1 + why, 1]))} in "
        found[int(why)] = int(counts[why]), f"{member}{shard}"
    return found


def _name_at(shard: str, offset: int) -> str:
    """The name of the member whose first header begins at `offset`;
    'a member' where that cannot be read any more.
    """
    with contextlib.suppress(OSError, tar_headers.DamagedTarError), open(shard, "rb") as file:
        if member := tar_headers.read_member(file, offset, os.path.getsize(shard)):
            return quoted(member.name)
    return "a member"


def _build(shard: str, index: str, suffix: str) -> str:
    """Writes the index of a shard, whole or not at all;
    returns in one line how the shard is damaged, or ''.
    """
    status = os.stat(shard)
    table, damage = _scan(shard, suffix)
    rows = np.array(table, np.int64)
    head = (_FORMAT, status.st_size, status.st_mtime_ns, zlib.crc32(rows.tobytes()))
    part = f"{index}.{uuid.uuid4().hex}"
    try:
        with open(part, "wb") as file:
            np.save(file, np.concatenate([np.array([head], np.int64), rows]))
        os.replace(part, index)
    except OSError as error:
        raise UserError(
            f"the index of {shard} cannot be written ({error}); give index_dir=FOLDER"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)
    return f"{shard} {damage}; {len(rows) + 1 - _HEAD} pairs of it are used" if damage else ""


def _member_name(shard: str, place: np.ndarray) -> str:
    """The text ' member NAME' for an image, from the header before it; '' if that is unreadable."""
    try:
        with open(shard, "rb") as file:
            header = _read(file, np.array([place[0] - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE]))
        return f" member {tarfile.TarInfo.frombuf(header, 'utf-8', 'replace').name}"
    except (OSError, UnreadableError, tarfile.TarError):
        return ""


def _scan(shard: str, suffix: str) -> tuple[list[tuple[int, int, int, int]], str]:
    """Reads a shard's headers; returns the rows of its index below the first,
    and what is wrong with it or ''.
    """
    files, special, damage = [], [], ""
    size = os.path.getsize(shard)
    try:
        with open(shard, "rb", buffering=0) as file:
            for member in tar_headers.members(file, size):
                if member.kind != "folder":
                    (files if member.kind == "file" else special).append(member)
    except tar_headers.DamagedTarError as error:
        damage = str(error)
    except OSError as error:
        raise UserError(f"{shard} cannot be read ({error.strerror})") from error
    if damage and not (files or special):
        raise UserError(
            f"{shard} is not an uncompressed tar ({damage}); compressed ones have no random access"
        )
    found = grouping.pair_up([member.name for member in files], suffix)
    left_out = [(why, files[position].offset) for why, position in found.left_out]
    left_out += [(grouping.SPECIAL, member.offset) for member in special]
    left_out += [(grouping.DAMAGED, 0)] * bool(damage)
    rows = []
    for kind in range(len(grouping.KINDS)):
        offsets = [offset for why, offset in left_out if why == kind]
        rows.append((len(offsets), offsets[0] if offsets else 0, 0, 0))
    for image, text in ((files[image], files[text]) for image, text in found.pairs):
        rows.append((image.start, image.size, text.start, text.size))
    return rows, damage


def _is_fresh(shard: str, index: str) -> bool:
    status = os.stat(shard)
    if not os.path.isfile(index) or storage.changed(os.stat(index)) < storage.changed(status):
        return False  # a shard that took the place of another has its own time, perhaps an old one
    try:
        table = np.load(index, mmap_mode="r")
    except Exception:  # whatever numpy says of a torn or foreign file: the index is made again
        return False
    if table.dtype != np.int64 or table.ndim != 2 or table.shape[1] != 4 or len(table) < _HEAD:
        return False
    places, size = np.asarray(table[_HEAD:]), status.st_size
    if ((places < 0) | (places > size)).any() or (places[:, ::2] + places[:, 1::2] > size).any():
        return False
    checksum = zlib.crc32(np.ascontiguousarray(table[1:]))
    return table[0].tolist() == [_FORMAT, status.st_size, status.st_mtime_ns, checksum]


@functools.lru_cache(maxsize=_OPEN_INDICES)
def _index(path: str) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def _read(file, place: np.ndarray) -> bytes:
    file.seek(int(place[0]))
    data = file.read(int(place[1]))
    if len(data) < place[1]:
        raise UnreadableError("the shard ends inside the record")
    return data
