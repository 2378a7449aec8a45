"""A SIGTERM as an exception, as Python makes Ctrl-C one;
processes that end with the one that started them.
"""

import contextlib
import os
import signal
import threading
import time
import types
from collections.abc import Iterator
from importlib.machinery import ExtensionFileLoader

_asked = threading.Event()
_AGAIN = 0.1  # seconds
_LOOK = 1.0  # seconds between two looks for the parent


class Terminated(BaseException):
    """A SIGTERM came where there is nothing to save."""


def check() -> None:
    """Raises Terminated again where a library has swallowed it,
    as imports that catch everything do.
    """
    if _asked.is_set():
        raise Terminated


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """A block in which a SIGTERM raises Terminated;
    training takes the signal over where it has something to save.
    """

    def terminate(_, frame):
        _asked.set()
        if not _loads_extension(frame):
            raise Terminated
        timer = threading.Timer(_AGAIN, again)
        timer.daemon = True
        timer.start()

    def again():
        with lock:
            if active:
                os.kill(os.getpid(), signal.SIGTERM)

    lock, active = threading.Lock(), [True]
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN
    previous = signal.signal(signal.SIGTERM, terminate) if ours else None
    try:
        yield
    finally:
        if previous is not None:
            with lock:
                active.clear()
            _asked.clear()
            signal.signal(signal.SIGTERM, previous)


def end_with_parent() -> None:
    """Ends this process soon after the one that started it, which may have been killed."""

    def follow(parent):
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os._exit(1)

    threading.Thread(target=follow, args=(os.getppid(),), name="parent", daemon=True).start()


def _loads_extension(frame: types.FrameType | None) -> bool:
    """Whether a module in C is being loaded; most abort the process where an exception
    comes out of nowhere.
    """
    while frame is not None:
        loads = frame.f_code.co_name in ("create_module", "exec_module")
        if loads and isinstance(frame.f_locals.get("self"), ExtensionFileLoader):
            return True
        frame = frame.f_back
    return False
