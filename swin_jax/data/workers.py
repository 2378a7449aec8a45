"""Loader processes: they end with the process that reads from them, and leave the signals of a terminal to it."""

import multiprocessing
import os
import signal
import threading

_LEFT = signal.SIGINT, signal.SIGTERM  # Ctrl-C and schedulers send them to whole groups of processes


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
