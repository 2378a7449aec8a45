"""Image-text pairs in webdataset-style tar shards, with random access.

A record is the members of one shard that share their name up to the first dot: 000123.jpg with 000123.txt or
000123.json. Where members lie is found once and kept in a small file for each shard, which is mapped, not read, so that
any number of shards costs no memory. Peer: webdataset's grouping by key (its shards can be read as they are).
"""

import concurrent.futures
import functools
import glob
import itertools
import json
import logging
import os
import re
import tarfile
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm

from swin_jax.core.errors import UserError
from swin_jax.data.image import transforms as image_lib
from swin_jax.data.image_text.pairs import captions_of, texts_of
from swin_jax.data.sources import IMAGE_SUFFIXES

log = logging.getLogger(__name__)

_FORMAT = 1  # of the index files; row 0 is (format, bytes and modification time of the shard, records left out)
_OPEN_INDICES = 4096  # mapped at a time; Linux allows 65,530 maps in a process
_BUILDERS = 8  # threads that read shards' headers


class TarPairs:
    """Pairs in tar shards; pickles as the paths and lengths. See `tar_shards`."""

    class_names: tuple[str, ...] = ()

    def __init__(self, shards: tuple[str, ...], indices: tuple[str, ...], lengths: Sequence[int], text_key: str):
        """`indices` are the shards' index files and `lengths` their numbers of records."""
        self._arguments = (shards, indices, tuple(lengths), text_key)
        self._shards, self._indices, self._text_key = shards, indices, text_key
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
            return {"image": image_lib.decode(_read(file, place[:2])), **example}

    def record(self, index: int) -> dict[str, Any]:
        """The captions of a record."""
        shard, place = self._find(index)
        with open(self._shards[shard], "rb") as file:
            return self._texts(file, place)

    def record_name(self, index: int) -> str:
        shard, place = self._find(index)
        return f"{self._shards[shard]}{_member_name(self._shards[shard], place)} (image at byte {place[0]})"

    def _find(self, index: int) -> tuple[int, np.ndarray]:
        """The number of the shard, and (image start, bytes, text start, bytes)."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[shard - 1]) if shard else 0
        return shard, _index(self._indices[shard])[1 + index - first]

    def _texts(self, file, place: np.ndarray) -> dict[str, Any]:
        data = _read(file, place[2:])
        if not self._text_key:
            return {"text": (data.decode("utf-8-sig").strip(),)}
        return {"text": texts_of(json.loads(data), self._text_key)}


def tar_shards(patterns: str | Sequence[str] | None, text_key: str = "", index_dir: str | None = None) -> TarPairs:
    """Pairs in tar shards.

    Args:
      patterns: paths of shards; '{000..127}' and '{a,b}' are expanded as in a shell, then '*', '?' and '[]'.
      text_key: '' takes captions from .txt members, a name from that key of .json members (a caption or a list).
      index_dir: where index files go; by default beside each shard. They are made where they are missing or older than
        the shard; every process of a run may do so at once.

    Returns:
      The source, shards in the order of the patterns. Raises UserError where a pattern fits no file, a shard is
      compressed or not a tar, an index cannot be written, or there are no pairs.
    """
    shards = expand(patterns)
    kind = ".json" if text_key else ".txt"
    folders = [index_dir or os.path.dirname(shard) or "." for shard in shards]
    if index_dir:
        os.makedirs(index_dir, exist_ok=True)
        if len({os.path.basename(shard) for shard in shards}) < len(shards):
            raise UserError(f"shards of equal names cannot share index_dir={index_dir}; leave it out")
    indices = [
        os.path.join(folder, f"{os.path.basename(shard)}{kind}.index.npy") for folder, shard in zip(folders, shards)
    ]
    stale = [(shard, index) for shard, index in zip(shards, indices) if not _is_fresh(shard, index)]
    if stale:
        with concurrent.futures.ThreadPoolExecutor(_BUILDERS) as pool:
            built = pool.map(lambda pair: _build(*pair, kind), stale)
            for _ in tqdm.tqdm(built, "indexing tar shards", total=len(stale), unit=" shards"):
                pass
        _index.cache_clear()
    heads = [np.load(index, mmap_mode="r") for index in indices]
    lengths, left_out = [len(head) - 1 for head in heads], sum(int(head[0, 3]) for head in heads)
    if left_out:
        log.warning("%d images in %d shards have no %s member and are left out", left_out, len(shards), kind)
    if not sum(lengths):
        raise UserError(
            f"{shards[0]} and the other shards hold no image with a {kind} member"
            + ("" if text_key else "; for captions in .json members give text_key")
        )
    return TarPairs(tuple(shards), tuple(indices), lengths, text_key)


def expand(patterns: str | Sequence[str] | None) -> list[str]:
    """Expands braces, then wildcards, in order; raises UserError for a pattern that fits no file, or for none."""
    if not patterns or not all(patterns):
        raise UserError(
            "tar shards need their paths: give --config.pairs='DIR/{000..127}.tar' "
            "(for validation pairs --config.validation_pairs='DIR/{000..127}.tar')"
        )
    patterns = [patterns] if isinstance(patterns, str) else patterns
    paths = []
    for pattern in itertools.chain.from_iterable(map(_braces, patterns)):
        found = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern] * os.path.isfile(pattern)
        if not found:
            raise UserError(f"no tar shard fits {pattern!r}")
        paths += found
    if not paths:
        raise UserError(f"no tar shard fits {' '.join(patterns)!r}")
    return list(dict.fromkeys(paths))


def _braces(pattern: str) -> list[str]:
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        return [pattern]
    bounds = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    parts = match[1].split(",")
    if bounds:
        width = max(len(bound) for bound in bounds.groups()) if "0" in (bounds[1][0], bounds[2][0]) else 0
        parts = [f"{number:0{width}d}" for number in range(int(bounds[1]), int(bounds[2]) + 1)]
    return [whole for part in parts for whole in _braces(f"{pattern[: match.start()]}{part}{pattern[match.end() :]}")]


def _build(shard: str, index: str, kind: str) -> None:
    """Writes the index of a shard, whole or not at all."""
    status = os.stat(shard)
    rows, left_out = _scan(shard, kind)
    table = np.array([(_FORMAT, status.st_size, status.st_mtime_ns, left_out), *rows], np.int64)
    try:
        part = f"{index}.{uuid.uuid4().hex}"
        with open(part, "wb") as file:
            np.save(file, table)
        os.replace(part, index)
    except OSError as error:
        raise UserError(f"the index of {shard} cannot be written ({error}); give index_dir=FOLDER") from error


def _member_name(shard: str, place: np.ndarray) -> str:
    """' member NAME' of the image, from the header before it; '' where that cannot be read."""
    try:
        with open(shard, "rb") as file:
            header = _read(file, np.array([place[0] - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE]))
        return f" member {tarfile.TarInfo.frombuf(header, 'utf-8', 'replace').name}"
    except (OSError, EOFError, tarfile.TarError):
        return ""


def _scan(shard: str, kind: str) -> tuple[list[tuple[int, int, int, int]], int]:
    """Reads a shard's headers; returns where the image and the text of each record lie, and the images without text."""
    records: dict[str, dict[str, tuple[int, int]]] = {}
    cut = False
    end = os.path.getsize(shard)
    try:
        with tarfile.open(shard, "r:") as tar:
            try:
                for member in tar:
                    folder, name = os.path.split(member.name)
                    stem, _, suffix = name.partition(".")
                    suffix = os.path.splitext(f".{suffix}")[1].lower() or f".{suffix.lower()}"
                    part = "image" if suffix in IMAGE_SUFFIXES else suffix
                    if member.isfile() and stem and member.offset_data + member.size <= end:
                        record = records.setdefault(os.path.join(folder, stem), {})
                        record.setdefault(part, (member.offset_data, member.size))
                    tar.members = []  # which tarfile keeps of every member
                tar.fileobj.seek(tar.offset)  # tarfile takes the end of the file, or what is no header, for the end
                cut = tar.fileobj.read(2 * tarfile.BLOCKSIZE) != bytes(2 * tarfile.BLOCKSIZE)
            except tarfile.ReadError as error:
                log.warning("%s is damaged (%s); what comes before is used", shard, error)
    except (tarfile.ReadError, OSError) as error:
        raise UserError(
            f"{shard} is not an uncompressed tar ({error}); compressed ones have no random access"
        ) from error
    images = [record for record in records.values() if "image" in record]
    rows = [(*record["image"], *record[kind]) for record in images if kind in record]
    if cut:
        message = "%s ends without its end mark, it is probably truncated; %d records of it are used"
        log.warning(message, shard, len(rows))
    return rows, len(images) - len(rows)


def _is_fresh(shard: str, index: str) -> bool:
    status = os.stat(shard)
    try:
        head = np.load(index, mmap_mode="r")[0].tolist()
    except (OSError, ValueError, IndexError, EOFError):
        return False
    return head[:3] == [_FORMAT, status.st_size, status.st_mtime_ns]


@functools.lru_cache(maxsize=_OPEN_INDICES)
def _index(path: str) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def _read(file, place: np.ndarray) -> bytes:
    file.seek(int(place[0]))
    data = file.read(int(place[1]))
    if len(data) < place[1]:
        raise EOFError("the shard ends inside of the record")
    return data
