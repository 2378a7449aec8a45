"""Loader processes: they end with the process that reads from them, and leave the signals of a terminal to it."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

_LEFT = {signal.SIGINT, signal.SIGTERM}  # Ctrl-C and schedulers send them to whole groups of processes


def set_up(*_: int) -> None:
    """Is called in a loader process before it reads anything; grain gives its number and how many there are.

    Python's own tracker removes their shared memory once all of them are gone.
    """
    for number in _LEFT:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_follow, name="parent", daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """A block in which processes that are started inherit that signals wait, until `set_up` has its say."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
