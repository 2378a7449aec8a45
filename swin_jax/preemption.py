"""The notice that a run is to stop: SIGTERM, which schedulers send before they take a machine away."""

import signal
import threading

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Whether this run has been asked to stop: a SIGTERM, at the same step on every host."""

    def __init__(self):
        self._asked = threading.Event()
        # With several processes the JAX runtime owns the signal and agrees on a step.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, lambda *_: self._asked.set())

    def reached(self, step: int) -> bool:
        """To be called once per step, on all processes."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked.is_set()

    def close(self) -> None:
        """Gives the signal back."""
        if hasattr(self, "_previous"):
            signal.signal(signal.SIGTERM, self._previous)
