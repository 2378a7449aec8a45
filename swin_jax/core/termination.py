"""SIGTERM, the SIGHUP of a closed terminal and the warnings of schedulers as an exception, as
Python makes Ctrl-C one; processes that end with the one that started them.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
import types
from collections.abc import Iterator, Sequence
from importlib.machinery import ExtensionFileLoader
from typing import Any

from swin_jax.core.output.text import say

# What schedulers can be asked to send some time before the end: Slurm by --signal, SGE by -notify
# and its limits, LSF. They end a process that does not expect them.
WARNINGS = signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU
SIGNALS = signal.SIGTERM, signal.SIGHUP, *WARNINGS
_asked: list[int] = []
_AGAIN = 0.1  # seconds
_LOOK = 1.0  # seconds between two looks for the parent


class Terminated(BaseException):
    """One of SIGNALS came where there is nothing to save.

    Attributes:
        signal: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)


def check() -> None:
    """Raises Terminated again where a library has swallowed it,
    as imports that catch everything do.
    """
    if _asked:
        raise Terminated(_asked[0])


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """A block in which SIGNALS raise Terminated where they are free; training takes them over where
    it has something to save.
    """

    def terminate(number, frame):
        _asked.append(number)
        if not _loads_extension(frame):
            raise Terminated(number)
        timer = threading.Timer(_AGAIN, again, [number])
        timer.daemon = True
        timer.start()

    def again(number):
        with lock:
            if active:
                os.kill(os.getpid(), number)

    lock, active, previous = threading.Lock(), [True], {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if is_free(number):
                previous[number] = signal.signal(number, terminate)
    try:
        yield
    finally:
        with lock:
            active.clear()
        for number, handler in previous.items():
            signal.signal(number, handler)
        if previous:
            _asked.clear()


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """The whole of a program that runs trainings: Ctrl-C and SIGNALS end it in one line, with the
    shell's status.
    """
    try:
        with terminable():
            yield
    except (KeyboardInterrupt, Terminated) as error:
        number = error.signal if isinstance(error, Terminated) else signal.SIGINT
        say(f"{number.name}: stopped; run the same command to resume")
        raise SystemExit(128 + number) from error


def run_saving(command: Sequence[str], **settings: Any) -> int:
    """Runs a training in a process of its own; what stops the caller has it save and end first.

    Args:
        command: The command line.
        **settings: Further arguments of `subprocess.Popen`.

    Returns:
        The exit status. Raises KeyboardInterrupt and Terminated once the process has ended.
    """
    with subprocess.Popen(command, **settings) as process:
        try:
            return process.wait()
        except (KeyboardInterrupt, Terminated):
            # Ctrl-C reaches both, other signals the caller alone.
            process.terminate()
            process.wait()
            raise


def is_free(number: int) -> bool:
    """False for a signal that is ignored, as after `nohup`, and for a warning that a program
    around this one has a handler for.
    """
    handler = signal.getsignal(number)
    if number in WARNINGS and handler is not signal.SIG_DFL:
        return getattr(handler, "__module__", "") == __name__  # of `terminable`
    return handler is not signal.SIG_IGN


def end_with_parent() -> None:
    """Ends this process soon after the one that started it, which may have been killed."""

    def follow(parent):
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os._exit(1)

    threading.Thread(target=follow, args=(os.getppid(),), name="parent", daemon=True).start()


def _loads_extension(frame: types.FrameType | None) -> bool:
    """True if a module in C is being loaded;
    most abort the process where an exception comes out of nowhere.
    """
    while frame is not None:
        loads = frame.f_code.co_name in ("create_module", "exec_module")
        if loads and isinstance(frame.f_locals.get("self"), ExtensionFileLoader):
            return True
        frame = frame.f_back
    return False
