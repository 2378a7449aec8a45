"""A SIGTERM as an exception, as Python makes Ctrl-C one."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class Terminated(BaseException):
    """A SIGTERM came where there is nothing to save."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """A block in which a SIGTERM raises Terminated; training takes the signal over where it has something to save."""

    def terminate(*_):
        raise Terminated

    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN
    previous = signal.signal(signal.SIGTERM, terminate) if ours else None
    try:
        yield
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
