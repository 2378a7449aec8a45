"""Standard output and error whose failures end no work.

Whoever reads them may be gone before the work is done: `tee` ends at the same Ctrl-C, `head` has
enough, a terminal is closed, the disk behind a redirection is full. What was trained must be saved
all the same.
"""

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import TextIO


class _Lasting(io.FileIO):
    """A file that drops what cannot be written.

    Attributes:
        failure: The first error, or None.
    """

    failure: OSError | None = None

    def write(self, data) -> int:
        try:
            # Another program that shares a pipe may have made it non-blocking.
            while (count := super().write(data)) is None:
                select.select([], [self], [])
        except OSError as error:
            self.failure = self.failure or error
            return memoryview(data).nbytes
        return count


def lasting(stream: TextIO) -> TextIO:
    """A text stream to the file of another one that raises nothing where that cannot be written.

    Args:
        stream: An open text stream; one without a file descriptor is returned as it is.
    """
    try:
        stream.flush()
        raw = _Lasting(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering or stream.write_through,
    )


def failure(stream: TextIO) -> OSError | None:
    """The first error of a stream that `lasting` made; None if all was written."""
    stream.flush()
    return getattr(getattr(getattr(stream, "buffer", None), "raw", None), "failure", None)


def write_past(text: str) -> None:
    """Writes to standard error past its stream, which may be in the middle of a line or locked, as
    for a handler of signals; what cannot be written is dropped.
    """
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="backslashreplace"))


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """A block in which writing to standard output and error raises nothing."""
    _open_all()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(lasting, before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _open_all() -> None:
    """Opens the null device where standard streams were closed, as `2>&-` does;
    otherwise the next file that is opened would get their messages.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)  # by loader processes
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
