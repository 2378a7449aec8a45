"""Files of a run, in a folder (pathlib) or in a bucket of Google Cloud Storage (gs://...,
etils.epath).

A bucket has no folders, no renaming and no appending; an object appears there when all of it was
uploaded. So a file is written whole or not at all in both (`writing`), and what is appended to is
kept in a local folder and copied (`Spool`).
"""

import concurrent.futures
import contextlib
import errno
import fnmatch
import functools
import json
import os
import pathlib
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import IO, Any

from etils import epath

from swin_jax.core.errors import UserError, extra
from swin_jax.core.output.text import say

_LONGEST_NAME = 255  # bytes, on all usual file systems


def is_remote(name: str | os.PathLike) -> bool:
    """True if a path is of a bucket."""
    return os.fspath(name).startswith("gs://")


def path(name: str | os.PathLike) -> epath.Path:
    """The path of a file or folder of a run: for a bucket epath's, otherwise pathlib's,
    which has the same methods.

    A leading `~/` is the home folder: shells leave it as it is in `--workdir=~/runs`.

    Raises:
        UserError: A name that no file can have, another kind of store,
            a bucket without the package that reads it.
    """
    text = os.fspath(name)
    if is_remote(text):
        _check_installed()
        return epath.Path(text)
    if found := re.match(r"(gs|s3|az|hf|https?):/|[a-z0-9]+://", text):
        raise UserError(
            f"{text}: {found[0]} cannot hold the files of a run; "
            "give a folder, a mounted one too, or gs://"
        )
    found = pathlib.Path(text)
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in found.parts):
        raise UserError(
            f"{text[:100]}... cannot be the name of a file: a name of a file has at "
            f"most {_LONGEST_NAME} bytes"
        )
    return found.expanduser() if found.parts[:1] == ("~",) else found


def expanded(name: Any) -> Any:
    """A path with the user's home in the place of a leading ~; what is no path as it is."""
    return os.path.expanduser(name) if isinstance(name, (str, os.PathLike)) else name


@functools.cache
def _check_installed() -> None:
    with extra("gs", "gs:// needs a package"):
        import fsspec

        # Orbax writes without gcsfs, so that a list of files that gcsfs remembers is soon wrong.
        fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
        fsspec.get_filesystem_class("gcs")


def absolute(name: str | os.PathLike) -> epath.Path:
    """A path that does not depend on the current folder."""
    found = path(name)
    return found if is_remote(found) else found.absolute()


@epath.register_path_cls
class LiteralPath(type(epath.Path("/"))):
    """A path of epath whose `glob` takes the folder's own name as it is,
    and whose `rmtree` removes links.

    That of epath joins name and pattern, so that libraries which look for files below a folder such
    as `runs/lr[3]` find none, or those of another folder. Their code gets this class instead; paths
    that they derive from it are of the same class.
    """

    def glob(self, pattern: str) -> Iterator[epath.Path]:
        """Paths below this folder that match a pattern; `**` is not supported, as in epath."""
        if "**" in pattern:
            raise NotImplementedError(f"no recursive pattern: {pattern!r}")
        first, _, rest = pattern.strip("/").partition("/")
        if not self.is_dir():
            return
        for entry in sorted(self.iterdir()):
            if not fnmatch.fnmatchcase(entry.name, first):
                continue
            if entry.name.startswith(".") and not first.startswith("."):
                continue
            yield from entry.glob(rest) if rest else [entry]

    def rmtree(self, missing_ok: bool = False) -> None:
        """Removes this folder and all in it; where it is a link, the link alone."""
        if os.path.islink(self):
            os.unlink(self)
        else:
            super().rmtree(missing_ok=missing_ok)


def files(folder: epath.Path) -> Iterator[epath.Path]:
    """All files below a folder, a bucket's too."""
    for entry in folder.iterdir():
        if entry != folder:  # as an object that stands for the folder
            yield from files(entry) if entry.is_dir() else [entry]


@contextlib.contextmanager
def writing(name: str | os.PathLike) -> Iterator[IO[bytes]]:
    """A binary file to write to, which is at `name` when the block ends, whole;
    after an error nothing has changed.

    Raises:
        UserError: `name` is a folder.
    """
    target = path(name)
    if is_remote(target):
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with target.open("wb") as out:
                shutil.copyfileobj(file, out, 2**22)
        return
    check_target(target)
    # A name that holds for the longest target, and for processes of one number in two containers.
    part = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def check_target(name: str | os.PathLike) -> None:
    """Raises UserError where a folder is in the place of a file that is to be written."""
    target = path(name)
    if not is_remote(target) and target.is_dir():
        raise UserError(f"{target} cannot be written: it is a folder; remove it or move it away")


def write(name: str | os.PathLike, data: bytes | str) -> None:
    """Writes a file whole or not at all; text as UTF-8."""
    with writing(name) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_figure(name: str | os.PathLike, figure, dpi: int) -> None:
    """Writes a figure of matplotlib in the format that the name ends in, PNG by default."""
    with writing(name) as file:
        figure.savefig(file, dpi=dpi, format=path(name).suffix[1:].lower() or "png")


def read_text(name: str | os.PathLike) -> str:
    """A file's text; bytes that are not UTF-8 become question marks.
    A pipe, which may never end, is an OSError.
    """
    found = path(name)
    if not is_remote(found) and found.exists() and not (found.is_file() or found.is_dir()):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(name))
    return found.read_bytes().decode(errors="replace")


def read_object(name: str | os.PathLike) -> dict[str, Any]:
    """The JSON object in a file of a run.

    Raises:
        UserError: In one line, whatever is wrong with the file.
    """
    try:
        found = json.loads(read_text(name))
    except OSError as error:
        raise UserError(f"{name} cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        why = first_line(error)
    else:
        if isinstance(found, dict):
            return found
        why = "it holds no JSON object"
    raise UserError(f"{name} is damaged: {why}. Restore it from a copy, or move it away")


def size(name: str | os.PathLike) -> int:
    """Bytes of a file."""
    found = path(name).stat()
    return found.length if is_remote(name) else found.st_size


def changed(status: os.stat_result) -> int:
    """When a file was changed or put in its place, in ns.

    Its own time may be an older one: rsync, cp -p and archives set it.
    """
    return max(status.st_mtime_ns, status.st_ctime_ns)


def move(folder: epath.Path, target: epath.Path) -> None:
    """Moves a folder; in a bucket every object of it is copied and then deleted."""
    if not is_remote(folder):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(str(folder), str(target))  # `checkpoints` may be a link to another disk
        return
    if target.exists():
        target.rmtree()
    for file in files(folder):
        file.copy(target / str(file.relative_to(folder)), overwrite=True)
    folder.rmtree()


# A mount or a network that is gone, as NFS and FUSE tell it.
_GONE = (
    *(errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ECONNABORTED),
    *(errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def is_unwritable(error: OSError) -> bool:
    """True if a disk is full, a quota used up, a file too large, or a mount read-only, broken
    or gone.
    """
    return error.errno in (*_FULL, *_GONE)


def is_of_machine(error: BaseException | None) -> bool:
    """True if a file could not be read, according to the causes of an error, because its mount is
    gone or this process may open no more files: nothing that the file itself could mend.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (*_GONE, errno.EMFILE, errno.ENFILE):
            return True
        error = error.__cause__
    return False


def is_of_system(error: BaseException | None) -> bool:
    """True if the system, not the content or the lack of a file, is a cause of an error:
    permissions, a failing disk, memory.
    """
    while error is not None:
        told = isinstance(error, OSError) and error.errno not in (None, errno.ENOENT)
        if told or isinstance(error, MemoryError):
            return True
        error = error.__cause__
    return False


@contextlib.contextmanager
def permitted() -> Iterator[None]:
    """A block that reads or writes files; raises UserError, with its name, for one that may not be
    used.
    """
    try:
        yield
    except PermissionError as error:
        if not error.filename:
            raise
        raise UserError(f"{error.filename} cannot be used: {reason(error)}") from error


def reason(error: OSError) -> str:
    """The message of an error of a file system, without the path."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of its text, at most 300 characters."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class Spool:
    """A local folder to append to, whose files are copied to a bucket.

    Where the target is a local folder itself, it is that folder, and nothing is copied.

    Args:
        target: A folder, there or not.
        seconds: Time between two copies of `tick`.
        check: A function that is called before anything is copied; it raises UserError where the
            target belongs to another run by now.

    Attributes:
        folder: Folder to write to.
    """

    def __init__(
        self, target: epath.Path, seconds: float = 30.0, check: Callable[[], None] = lambda: None
    ):
        self._target, self._seconds, self._check = target, seconds, check
        self._remote = is_remote(target)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="swin_jax_") if self._remote else target)
        self._copied: dict[str, tuple[int, int]] = {}
        self._pool = concurrent.futures.ThreadPoolExecutor(1) if self._remote else None
        self._running, self._began = None, time.monotonic()

    def tick(self) -> None:
        """Copies in the background, every so many seconds;
        call it often. A failure is told, and tried again.
        """
        if not self._remote or time.monotonic() - self._began < self._seconds:
            return
        if self._running is None or self._running.done():
            self._began, self._running = time.monotonic(), self._pool.submit(self._try)

    def sync(self) -> None:
        """Returns when everything written so far is in the bucket.

        Raises:
            UserError: It cannot be written to.
        """
        if self._remote:
            try:
                self._pool.submit(self._copy).result()
            except UserError:
                raise
            except Exception as error:  # whatever the store raises
                raise UserError(
                    f"{self._target} cannot be written: {_in_one_line(error)}"
                ) from error

    def close(self) -> None:
        """The last `sync`, after which the local folder is gone."""
        if self._remote:
            try:
                self.sync()
            finally:
                self._pool.shutdown()
                shutil.rmtree(self.folder, ignore_errors=True)

    def _try(self) -> None:
        try:
            self._copy()
        except Exception as error:
            text = f"{self._target} cannot be written now: {_in_one_line(error)}"
            say(text)

    def _copy(self) -> None:
        self._check()
        for file in sorted(self.folder.rglob("*")):
            if file.is_file():
                name, found = file.relative_to(self.folder).as_posix(), file.stat()
                state = found.st_size, found.st_mtime_ns
                if self._copied.get(name) != state:
                    write(self._target / name, file.read_bytes())
                    self._copied[name] = state


def cache_folder() -> pathlib.Path:
    """The folder of this user that downloads are kept in:
    $SWIN_JAX_CACHE, by default ~/.cache/swin_jax.
    """
    return pathlib.Path(os.environ.get("SWIN_JAX_CACHE") or "~/.cache/swin_jax").expanduser()


def downloads_are_off() -> bool:
    """True if the environment variable SWIN_JAX_OFFLINE forbids downloads."""
    return os.environ.get("SWIN_JAX_OFFLINE", "0").lower() not in ("", "0", "false")


def download_failure(error: Exception) -> str:
    """The reason why a download failed, in one line; of a URLError the words of its cause."""
    text = " ".join(str(error).split())
    return re.sub(r"^<urlopen error (.*)>$", r"\1", text)
