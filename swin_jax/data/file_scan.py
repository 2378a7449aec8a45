"""Scans files for damage, with a report from which an interrupted scan resumes;
shared by the scans of images and videos.

A report has one line of JSON per file, a finding: its `path`, `bytes`, time of change (`changed`),
`problem` ('' for a good file) and whatever else the check finds. A `passing` problem lies with the
system, for example with permissions, so the next scan reads the file again.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from swin_jax.core import storage
from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.core.output.progress import Progress
from swin_jax.core.output.text import say
from swin_jax.data import folders

Finding = dict[str, Any]


class UnfinishedError(Exception):
    """Raised when a scan that has begun cannot continue, because findings can no longer be written
    or files no longer be read; its text is one line for the user.
    """


_BATCH = 256  # files handed to the threads at once


def begin(path: str) -> Finding:
    """The first fields of a finding (path, size, time of change), taken before the file is read."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a name with a zero byte
        return {"path": path, "bytes": -1, "changed": 0}
    return {"path": path, "bytes": status.st_size, "changed": storage.changed(status)}


def problem(path: str, error: UnreadableError) -> Finding:
    """The remaining fields of a finding about a file that cannot be read.

    Raises:
        UnfinishedError: The file is not at fault: its mount is gone, or too many files are open.
    """
    if storage.is_of_machine(error):
        raise UnfinishedError(_unfinished(f"read {path}", str(error))) from error
    return {"problem": str(error), "passing": storage.is_of_system(error)}


def scan(
    paths: Sequence[str],
    report: str,
    check: Callable[[str], Finding],
    holds: Callable[[Finding], bool],
    num_threads: int = 0,
) -> list[Finding]:
    """Checks files, with a progress bar; skips unchanged files that are in the report already.

    Args:
        paths: Paths of the files.
        report: Path of the report to which findings are added.
        check: A function that returns the finding of a path.
        holds: A function that returns True if a finding of an earlier scan is still sufficient.
        num_threads: Number of threads that check; 0 for one per core.

    Returns:
        The findings, one for each path. Raises UserError if the report cannot be read or opened, or
        is not a report but, for example, a list or one of the files; UnfinishedError if the disk
        becomes full, or files can no longer be read.
    """
    if os.path.lexists(report) and not os.path.isfile(report):
        raise UserError(
            f"cannot write the report {report} (it is not a file): give another --report=FILE"
        )
    _check_not_scanned(report, paths)
    try:
        known = {finding["path"]: finding for finding in _known(report, holds)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{report} is not the report of a scan: give another --report=FILE"
        ) from error
    known = {path: known[path] for path in dict.fromkeys(paths) if path in known}
    todo = [path for path in dict.fromkeys(paths) if path not in known]
    try:
        with (
            open(report, "a", encoding="utf-8") as file,
            ThreadPoolExecutor(num_threads or os.cpu_count()) as pool,
        ):
            try:
                for finding in _with_bar(
                    _check_all(pool, todo, check), list(known.values()), len(todo)
                ):
                    known[finding["path"]] = finding
                    file.write(json.dumps(finding) + "\n")
                    file.flush()
            finally:
                # An interruption waits only for the files that are being checked.
                pool.shutdown(cancel_futures=True)
    except OSError as error:
        if storage.is_unwritable(error):
            raise UnfinishedError(_unfinished(f"write {report}", storage.reason(error))) from error
        raise UserError(
            f"cannot write the report {report} ({error.strerror}): give another --report=FILE"
        ) from error
    return [known[path] for path in paths]


def _check_not_scanned(report: str, paths: Sequence[str]) -> None:
    """Raises UserError if the report is one of the files to scan, which must not be written to."""
    name = os.path.basename(report)
    same = [path for path in paths if os.path.basename(path) == name and os.path.exists(path)]
    if os.path.exists(report) and any(os.path.samefile(report, path) for path in same):
        raise UserError(
            f"--report={report} is one of the files to scan: give another --report=FILE"
        )


def check_writable(path: str, others: Sequence[str], flag: str) -> None:
    """Raises UserError if a list cannot be written, before hours are spent on a scan.

    Args:
        path: Path of the list.
        others: Files that it must not overwrite.
        flag: The flag that gave the path, for messages.
    """
    if _real(path) in map(_real, others):
        raise UserError(f"{flag}={path} would overwrite the input or the report: give another file")
    try:
        existed = os.path.lexists(path)
        with open(path, "a", encoding="utf-8"):
            pass
        if not existed:
            os.remove(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def write_list(path: str, data: bytes) -> None:
    """Writes a list atomically, also through a link; writes directly to a pipe or a device.

    Raises:
        UnfinishedError: The list cannot be written, for example because the disk is full.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, "wb") as file:
                file.write(data)
        else:
            storage.write(os.path.realpath(path), data)
    except OSError as error:
        raise UnfinishedError(_unfinished(f"write {path}", storage.reason(error))) from error


def _unfinished(what: str, reason: str) -> str:
    return f"cannot {what}: {reason}; once that is fixed, run the command again to resume"


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    # The name, for example from a list, has a zero byte or half a character: no file has it.
    except ValueError:
        return path


def exit_status(act: Callable[[], bool]) -> int:
    """Runs a scan's command line and says in a line what ended it.

    Args:
        act: The scan; returns True where all files are good.

    Returns:
        0 where all files are good, 1 where any is not or the disk is full, 2 for a mistake of the
        user, 130 after an interruption.
    """
    try:
        return 0 if act() else 1
    except UserError as error:
        say(f"error: {error}")
        return 2
    except UnfinishedError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: run the command again to resume", file=sys.stderr)
        return 130


def show(text: str) -> None:
    """Prints a text; escapes characters that the terminal cannot show, such as those of names that
    are not UTF-8.
    """
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def check_splits(folder: str, flag: str) -> bool:
    """True if a folder has class folders; raises UserError if its subfolders are splits."""
    inner = {entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."}
    if folders.are_splits(inner):
        one = os.path.join(flag, min(inner))
        raise UserError(f"--folder={flag} holds splits, not classes; scan each: --folder={one}")
    return bool(inner)


def _check_all(
    pool: ThreadPoolExecutor, paths: Sequence[str], check: Callable[[str], Finding]
) -> Iterator[Finding]:
    def look(path):
        try:
            return check(path)
        except MemoryError as error:
            raise UnfinishedError(_unfinished(f"read {path}", "there is no memory")) from error

    for start in range(0, len(paths), _BATCH):
        yield from pool.map(look, paths[start : start + _BATCH])


def _with_bar(findings: Iterable[Finding], known: list[Finding], num_new: int) -> Iterator[Finding]:
    """Yields the findings, with a bar of how many are done and failing unless all were known."""
    failing = sum(bool(finding["problem"]) for finding in known)
    total, done = len(known) + num_new, len(known)
    with Progress(total, "files", "scan", initial=done, show=num_new > 0) as progress:
        for finding in findings:
            failing += bool(finding["problem"])
            progress.update(note=f"{failing} failing")
            yield finding


def _known(report: str, holds: Callable[[Finding], bool]) -> Iterator[Finding]:
    """Yields an earlier run's findings about files that have not changed since;
    cuts off an unfinished last line.
    """
    if not os.path.isfile(report):
        return
    with open(report, "rb+") as file:
        *lines, torn = file.read().split(b"\n")
        for finding in map(json.loads, lines):
            unchanged = finding.items() >= begin(finding["path"]).items()
            if not finding.keys() >= {"bytes", "problem"}:  # a list of files, for example
                raise ValueError("not a finding")
            if unchanged and not finding.get("passing") and holds(finding):
                yield finding
        if not _is_torn(torn):
            raise ValueError("not a line of this program")
        file.truncate(file.tell() - len(torn))


def _is_torn(line: bytes) -> bool:
    """True if a line is a finding that was cut off, not a line of another file with paths."""
    start, rest = b'{"path": ', line
    if path := re.match(rb'\{"path": "(?:[^"\\]|\\.)*"', line):
        start, rest = b', "bytes": ', line[path.end() :]
    return rest[: len(start)] == start[: len(rest)]
