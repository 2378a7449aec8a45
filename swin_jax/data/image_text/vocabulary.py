"""CLIP's vocabulary: OpenAI's `bpe_simple_vocab_16e6.txt.gz`, from wherever it is,
as tables of ids.

It is looked for in the installed packages, none of which is imported (open_clip_torch and OpenAI's
clip carry the file, the library of instant-clip-tokenizer holds its text), then in the cache; else
it is downloaded. The checksum is compared every time. Two environment variables: SWIN_JAX_CACHE
names the cache directory (default ~/.cache/swin_jax), SWIN_JAX_OFFLINE=1 forbids the download.
"""

import contextlib
import functools
import hashlib
import http.client
import os
import sys
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from swin_jax.core import storage, text_files
from swin_jax.core.errors import UserError

FILE = "bpe_simple_vocab_16e6.txt.gz"
URL = f"https://github.com/openai/CLIP/raw/main/clip/{FILE}"
_CARRIERS = (f"*/{FILE}", "instant_clip_tokenizer/*.so")  # in the folders of sys.path
# The merges follow the header, one per line. The first 48,894 are the vocabulary,
# the others were never used.
_HEADER = b"#version: 0.2\n"
_LENGTH, _SHA256 = 524604, "f61f2adf497e6f5357c347aeb4646fabe82f341e946de5bdec5d2858e41bef4a"

_MOST = 2**26  # bytes of any file that holds it, packed and unpacked


class Vocabulary(NamedTuple):
    """Byte-pair encoding as tables.

    Attributes:
        byte_ids: The id of each byte inside a word, as a table for `bytes.translate`;
            256 more at a word's end.
        joined: {two neighboring ids: the id that they become}; of several pairs the one that
            becomes the lowest id is joined first.
        pieces: The bytes of each of the 49,408 ids,
            with `</w>` behind those of an id at a word's end.
    """

    byte_ids: bytes
    joined: dict[tuple[int, int], int]
    pieces: list[bytes]


@functools.cache
def vocabulary() -> Vocabulary:
    """CLIP's vocabulary; raises UserError if it is nowhere."""
    # Bytes that the file writes as themselves.
    letters = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in letters]
    pieces = [bytes([byte]) for byte in letters + others]
    byte_ids = bytes(pieces.index(bytes([byte])) for byte in range(256))
    names = [chr(byte) for byte in letters] + [chr(256 + index) for index in range(len(others))]
    names += [name + "</w>" for name in names]
    pieces += [piece + b"</w>" for piece in pieces]
    ids = {name: index for index, name in enumerate(names)}
    joined = {}
    for line in _merges().decode().split("\n"):
        left, right = line.split(" ")
        pair = ids[left], ids[right]
        joined[pair] = ids[left + right] = len(pieces)
        pieces.append(pieces[pair[0]] + pieces[pair[1]])
    pieces += [b"<|startoftext|>", b"<|endoftext|>"]
    return Vocabulary(byte_ids, joined, pieces)


def _merges() -> bytes:
    """The lines of the vocabulary, of the first place that has them."""
    cached = cache_path()
    for path in (*_installed(), cached):
        with contextlib.suppress(OSError):
            if merges := _checked(text_files.read_bytes(path, _MOST)):
                return merges
    damaged = cached if os.path.lexists(cached) else None
    data, problem = _download()
    if merges := _checked(data):
        with contextlib.suppress(OSError):  # a cache that cannot be written
            cached.parent.mkdir(parents=True, exist_ok=True)
            storage.write(cached, data)
        return merges
    state = f"is damaged, the file {damaged} has another checksum" if damaged else "is missing"
    raise UserError(
        f"CLIP's vocabulary {state} ({problem}): pip install --no-deps open_clip_torch, "
        f"or put {URL} at {cached}"
    )


def cache_path() -> Path:
    """The path of the downloaded file."""
    return storage.cache_folder() / FILE


def _installed() -> Iterator[Path]:
    for pattern in _CARRIERS:
        for folder in sys.path:
            yield from Path(folder).glob(pattern)


def _checked(data: bytes) -> bytes | None:
    """The lines of the vocabulary in a file that holds them, compressed or not;
    None if it does not.
    """
    if data.startswith(b"\x1f\x8b"):
        try:
            data = zlib.decompressobj(wbits=31).decompress(data, _MOST)
        except zlib.error:
            return None
    start = data.find(_HEADER) + len(_HEADER)
    merges = data[start : start + _LENGTH]
    return merges if hashlib.sha256(merges).hexdigest() == _SHA256 else None


def _download() -> tuple[bytes, str]:
    """The downloaded bytes, and their fault if they are not the file."""
    if storage.downloads_are_off():
        return b"", "downloads are off, SWIN_JAX_OFFLINE"
    try:
        with urllib.request.urlopen(URL, timeout=30) as response:
            return response.read(_MOST), "the download has another checksum"
    except (OSError, http.client.HTTPException) as error:
        return b"", f"its download failed: {storage.download_failure(error)}"
