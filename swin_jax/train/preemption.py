"""The request that a run stops: SIGTERM, which schedulers send before they take a
machine away, their earlier warnings, Ctrl-C, or the SIGHUP of a terminal or connection that is
closed.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from swin_jax.core import termination
from swin_jax.core.output.streams import write_past

_NAMES = {number: number.name for number in termination.SIGNALS} | {signal.SIGINT: "Ctrl-C"}
_AGAIN = "\nCtrl-C: the run saves and stops; press it again to end at once\n"


class Interrupted(BaseException):
    """A run was asked to stop in the middle of an evaluation, or while it waits for a batch;
    no Exception, so that nothing takes it for one.
    """


class Preemption:
    """The request to stop this run, at the same place on every host;
    a context manager, for the signals.

    Attributes:
        name: Name of what asked, for messages.
        status: The exit status of a run that stops for it, 128 and the number of the signal: 143
            for SIGTERM, 130 for Ctrl-C, 129 for SIGHUP.
    """

    def __init__(self):
        self._asked = threading.Event()
        self._places = 0
        self._previous = {}
        self._pressed = self._raises = False
        self.name, self.status = "SIGTERM", 143

    def reached(self) -> bool:
        """True from the place on at which all processes stop.

        Call it at the same places on every process.
        """
        if jax.process_count() > 1 and not self._asked.is_set():
            # Those who agree stop one place after the last that any of them has reported.
            self._places += 1
            if multihost_utils.reached_preemption_sync_point(self._places):
                self._asked.set()
        return self._asked.is_set()

    def pause(self) -> None:
        """Raises Interrupted where `reached` is True; for evaluations, between their batches."""
        if self.reached():
            raise Interrupted

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that may wait for data: one process raises Interrupted wherever it is in it.

        With several processes nothing changes, since all stop at the same place.
        """
        self._raises = jax.process_count() == 1
        try:
            if self._raises:
                self.pause()
            yield
        finally:
            self._raises = False

    def __enter__(self):
        if threading.current_thread() is not threading.main_thread():
            return self
        termination.check()
        for number in _NAMES:
            # With several processes the JAX runtime owns SIGTERM and agrees on a place.
            owned = number == signal.SIGTERM and jax.process_count() > 1
            if not owned and termination.is_free(number):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception):
        """Restores the previous handlers."""
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _on_signal(self, number: int, _) -> None:
        if number == signal.SIGINT and self._pressed:
            raise KeyboardInterrupt
        self._pressed |= number == signal.SIGINT
        self.name, self.status = _NAMES[number], 128 + number
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._asked.set()
        if number == signal.SIGINT:
            write_past(_AGAIN)
        if self._raises:
            self._raises = False
            raise Interrupted
