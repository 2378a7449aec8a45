"""Fetches packages of the npm registry as tarballs, with checksums and resumption, and reads their
files without unpacking.
"""

import dataclasses
import hashlib
import http.client
import json
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tqdm

from swin_jax.core.errors import UserError

REGISTRY = "https://registry.npmjs.org"
_CHUNK = 1 << 16
_TIMEOUT = 60  # seconds without a byte


@dataclasses.dataclass(frozen=True)
class Package:
    """One version of a package.

    Attributes:
        name: Name with its scope, such as '@iconify-json/noto'.
        version: Version, such as '1.2.9'.
        sha256: Checksum of the tarball in hex; '' skips the check.
    """

    name: str
    version: str
    sha256: str = ""

    @property
    def tarball(self) -> str:
        """The name that `npm pack` gives the file."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def url_path(self) -> str:
        """Path of the tarball on a registry."""
        return f"{self.name}/-/{self.name.split('/')[-1]}-{self.version}.tgz"


def fetch(packages: Iterable[Package], folder: Path, registry: str = REGISTRY) -> None:
    """Downloads missing tarballs, with a progress bar; resumes interrupted downloads.

    Args:
        packages: Packages to fetch.
        folder: Folder for the tarballs, which get the names of `npm pack`.
        registry: The registry's address.

    Raises UserError if a tarball cannot be fetched or is not the expected one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        path = folder / package.tarball
        if path.is_file() and _is_right(path, package):
            continue
        part = path.with_name(f"{path.name}.part")
        url = f"{registry}/{package.url_path}"
        try:
            _download(url, part)
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            raise UserError(
                f"cannot fetch {url} ({error}); run the command again to resume, or fetch it "
                f"elsewhere (npm pack {package.name}@{package.version}) and give --source FOLDER"
            ) from error
        if not _is_right(part, package):
            part.unlink()
            raise UserError(
                f"{url} is not the expected file (its sha256 is not {package.sha256}); try again"
            )
        part.replace(path)


def find(packages: Iterable[Package], folder: Path) -> dict[str, Path]:
    """Finds tarballs in a folder.

    Args:
        packages: Packages to look for.
        folder: Folder of the tarballs, named as `npm pack` or as the registry names them.

    Returns:
        {package name: path}. Raises UserError, naming the packages,
        if some are missing or one is not the right file.
    """
    found, missing = {}, []
    for package in packages:
        candidates = (folder / package.tarball, folder / package.url_path.split("/")[-1])
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            missing.append(f"{package.name}@{package.version}")
        elif not _is_right(path, package):
            raise UserError(f"{path} is not the expected file (its sha256 is not {package.sha256})")
        else:
            found[package.name] = path
    if missing:
        raise UserError(
            f"{folder} lacks tarballs; put them there with: npm pack {' '.join(missing)}"
        )
    return found


def read(path: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yields (path inside the package, contents) of the files of a tarball that end
    in one of `suffixes`.

    Raises UserError if the tarball is damaged.
    """
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                name = member.name.split("/", 1)[-1]  # behind 'package/'
                if member.isfile() and name.endswith(suffixes):
                    yield name, tar.extractfile(member).read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); fetch it again") from error


def read_json(path: Path, *names: str) -> dict[str, Any]:
    """Reads those JSON files among `names` that a tarball contains: {name: contents}."""
    return {name: json.loads(data) for name, data in read(path, names) if name in names}


def _download(url: str, path: Path) -> None:
    """Downloads to `path`, continuing after the bytes that it already has."""
    start = path.stat().st_size if path.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # everything was there already
            return
        raise
    with response:
        start = start if response.status == 206 else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            path.open("ab" if start else "wb") as file,
            tqdm.tqdm(
                desc=path.stem, total=total, initial=start, unit="B", unit_scale=True
            ) as progress,
        ):
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                progress.update(len(chunk))
    if total is not None and path.stat().st_size < total:
        raise ConnectionError("the connection was closed before the end")


def _is_right(path: Path, package: Package) -> bool:
    return not package.sha256 or hashlib.sha256(path.read_bytes()).hexdigest() == package.sha256
