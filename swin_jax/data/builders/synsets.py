"""Reads ImageNet's images by synset (WordNet id, such as n01440764) from tars or folders,
one image at a time.
"""

import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from swin_jax.core.errors import UserError

Files = Callable[[], Iterator[tuple[str, bytes]]]  # yields (file name, encoded image)


def open_synsets(path: Path) -> dict[str, Files]:
    """Lists the synsets of a set of images.

    Args:
        path: A tar of tars nXXXXXXXX.tar, or a folder of such tars and of folders nXXXXXXXX.

    Returns:
        {synset: function that reads its files}, sorted. Raises UserError if there is no synset.
    """
    found = {}
    if path.is_dir():
        for entry in path.iterdir():
            if entry.suffix == ".tar" and _is_synset(entry.stem):
                found[entry.stem] = _tar_reader(entry)
            elif entry.is_dir() and _is_synset(entry.name):
                found[entry.name] = _folder_reader(entry)
    else:
        try:
            with tarfile.open(path, "r:") as outer:
                for member in outer:
                    name = Path(member.name)
                    if name.suffix == ".tar" and _is_synset(name.stem):
                        found[name.stem] = _nested_reader(path, member)
        except tarfile.TarError as error:
            raise UserError(
                f"{path} is not a whole uncompressed tar file ({error}); unpack or fetch it again"
            ) from error
    if not found:
        raise UserError(f"{path} holds no synsets (n01440764.tar, or folders n01440764)")
    return dict(sorted(found.items()))


def read_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yields (file name, bytes) of the files of a tar in its order, or of a folder sorted."""
    return (_folder_reader(path) if path.is_dir() else _tar_reader(path))()


def _is_synset(name: str) -> bool:
    return re.fullmatch(r"n\d{8}", name) is not None


def _folder_reader(folder: Path) -> Files:
    def read():
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                yield path.name, path.read_bytes()

    return read


def _tar_reader(path: Path) -> Files:
    def read():
        with open(path, "rb") as file:
            yield from _read_tar(file, str(path))

    return read


def _nested_reader(path: Path, member: tarfile.TarInfo) -> Files:
    def read():
        with tarfile.open(path, "r:") as outer:
            yield from _read_tar(outer.extractfile(member), f"{path}:{member.name}")

    return read


def _read_tar(file, name: str) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=file, mode="r|") as tar:  # a stream: members are not kept
            for member in tar:
                if member.isfile():
                    yield Path(member.name).name, tar.extractfile(member).read()
    except tarfile.TarError as error:
        raise UserError(f"{name} is damaged ({error}); fetch it again") from error
