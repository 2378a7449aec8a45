"""Downloads weights into a cache, with their checksums.

Nothing is downloaded unless `fetch` is called. The environment variable SWIN_JAX_CACHE sets the
cache folder (default ~/.cache/swin_jax), and SWIN_JAX_OFFLINE=1 turns downloads off.
"""

import hashlib
import http.client
import json
import os
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swin_jax.core.errors import UserError
from swin_jax.core.storage import cache_folder, download_failure, downloads_are_off

HUB = "https://huggingface.co"
_LONGEST = 100  # characters of the name of a file


def cached_path(url: str) -> Path:
    """The path in the cache for a URL, whether or not the file is there."""
    file = url.split("?")[0].rstrip("/").rpartition("/")[2][-_LONGEST:]
    return cache_folder() / f"{zlib.crc32(url.encode()):08x}-{file}"


def fetch(
    url: str,
    path: Path | None = None,
    name: str = "",
    offline: bool | None = None,
    license: str = "",
) -> Path:
    """The path of a file, which is downloaded into the cache unless it is there.

    The checksum of the file, whether it was downloaded or put there by hand, is recorded beside it
    and compared at every later use.

    Args:
        url: Any URL.
        path: Path to keep the file at; None for `cached_path(url)`.
        name: Name of the file in messages; '' for the URL.
        offline: True never downloads; None reads the environment variable SWIN_JAX_OFFLINE.
        license: License to record beside the file.

    Raises:
        UserError: The download fails, or the cached file has changed.
    """
    path, name = path or cached_path(url), name or url
    by_hand = f"download {url} elsewhere and put it at {path}"
    if not path.exists():
        if downloads_are_off() if offline is None else offline:
            raise UserError(
                f"{name} is not in the cache and downloads are off (SWIN_JAX_OFFLINE): {by_hand}"
            )
        try:
            _download(url, path)
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = download_failure(error)
            raise UserError(f"{name} could not be downloaded ({reason}): {by_hand}") from None
    _check(path, url, license)
    return path


def _download(url: str, path: Path) -> None:
    """Downloads to a temporary name first, so that a file at `path` is always complete."""
    from tqdm import tqdm

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(url, timeout=60) as response, open(part, "wb") as file:
            size = int(response.headers.get("Content-Length") or 0)
            with tqdm(
                total=size or None, unit="B", unit_scale=True, desc=path.name, disable=None
            ) as bar:
                while block := response.read(1 << 20):
                    file.write(block)
                    bar.update(len(block))
            if size and file.tell() != size:
                raise ValueError(f"only {file.tell()} of {size} bytes arrived")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read(path: Path, url: str, take: Callable[[Path], Any]) -> Any:
    """The result of `take(path)` for a downloaded file, which may be a sign-in page or incomplete.

    Raises:
        UserError: The error of `take`, with the files to delete before downloading again.
    """
    try:
        return take(path)
    except UserError as error:
        again = f"to download it again, delete {path} and {path.name}.json"
        raise UserError(f"{error.message}; it came from {url}: {again}", error.items) from error


def sha256(path) -> str:
    """The checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, url: str, license: str) -> None:
    """Records the checksum beside a file the first time, and compares it every later time."""
    record = path.with_name(path.name + ".json")
    digest = sha256(path)
    if not record.exists():
        text = json.dumps(
            {"url": url, "sha256": digest, "bytes": path.stat().st_size, "license": license},
            indent=1,
        )
        part = record.with_name(f".{record.name}.{os.getpid()}.part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, record)
        return
    try:
        recorded = json.loads(record.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(
            f"{record} does not hold the checksum of {path.name}; delete both to start again"
        ) from error
    if recorded != digest:
        raise UserError(
            f"{path} is not the file that was downloaded (see {record.name}); "
            "delete both to start again"
        )
