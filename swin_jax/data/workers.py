"""Loader processes: they end with the process that reads from them,
and leave the signals of a terminal to it.
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

# Ctrl-C, schedulers and terminals that are closed send them to whole groups of processes.
_LEFT = (signal.SIGINT, *SIGNALS)


def start_tracker() -> None:
    """Starts Python's tracker of shared memory, if it does not run yet.

    Call it before workers are started.

    What loader processes have read ahead is left over when a run ends. The tracker removes it, but
    warns of a leak, which nobody can mend.
    """
    before = os.environ.get("PYTHONWARNINGS")
    quiet = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = f"{before},{quiet}" if before else quiet
    # It ignores the other signals of a terminal by itself, and inherits what is blocked.
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
    """Prepares a loader process before it reads anything;
    grain gives its number and how many there are.

    Python's own tracker removes their shared memory once all of them are gone.
    """
    for number in _LEFT:
        signal.signal(number, signal.SIG_IGN)
    # What a transform prints makes no record unreadable.
    sys.stdout, sys.stderr = lasting(sys.stdout), lasting(sys.stderr)
    threading.Thread(target=_follow, name="parent", daemon=True).start()


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """A block that waits for loader processes; raises UserError where one of them was killed."""
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
            "memory or of room in /dev/shm: give a lower num_workers or prefetch, "
            "or the machine more memory (a container --shm-size)"
        ) from error


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
