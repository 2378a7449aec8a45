"""A SIGTERM as an exception, as Python makes Ctrl-C one."""

import contextlib
import signal
import threading
from collections.abc import Iterator

_asked = threading.Event()


class Terminated(BaseException):
    """A SIGTERM came where there is nothing to save."""


def check() -> None:
    """Raises Terminated again where a library has swallowed it, as imports that catch everything do."""
    if _asked.is_set():
        raise Terminated


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """A block in which a SIGTERM raises Terminated; training takes the signal over where it has something to save."""

    def terminate(*_):
        _asked.set()
        raise Terminated

    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN
    previous = signal.signal(signal.SIGTERM, terminate) if ours else None
    try:
        yield
    finally:
        if previous is not None:
            _asked.clear()
            signal.signal(signal.SIGTERM, previous)
