"""Sets up loader processes, which end together with the process that reads from them
and leave the terminal's signals to it.
"""

import contextlib
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker

from swin_jax.core.errors import UserError
from swin_jax.core.output.streams import lasting
from swin_jax.core.termination import SIGNALS, WARNINGS

# Ctrl-C, schedulers and closed terminals send these to whole process groups.
_LEFT = (signal.SIGINT, *SIGNALS)


def start_tracker() -> None:
    """Starts Python's tracker of shared memory, without its warnings, unless it is running.

    Call it before workers are started. When a run ends, the tracker removes what loader processes
    have read ahead, but would warn of a leak that the user can do nothing about.
    """
    before = os.environ.get("PYTHONWARNINGS")
    quiet = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = f"{before},{quiet}" if before else quiet
    # The tracker ignores the terminal's other signals itself, and inherits the blocked ones.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, *WARNINGS])
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def set_up(*_: int) -> None:
    """Prepares a loader process before it reads anything.

    Grain passes the number of the process and the number of processes. Python's tracker removes
    their shared memory once all of them have ended.
    """
    for number in _LEFT:
        signal.signal(number, signal.SIG_IGN)
    # A transform that prints to a closed stream must not make records unreadable.
    sys.stdout, sys.stderr = lasting(sys.stdout), lasting(sys.stderr)
    threading.Thread(target=_follow, name="parent", daemon=True).start()


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Context manager for waiting on loader processes; raises UserError if one was killed."""
    try:
        yield
    except RuntimeError as error:  # grain's, which has no type of its own
        found = re.match(
            r"Worker process was terminated unexpectedly with exit code -(\d+)", str(error)
        )
        if not found:
            raise
        number = int(found[1])
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        raise UserError(
            f"a loader process was killed by {name}, most likely because it ran out of "
            "memory or of space in /dev/shm: lower num_workers or prefetch, "
            "or provide more memory (for a container, --shm-size)"
        ) from error


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
