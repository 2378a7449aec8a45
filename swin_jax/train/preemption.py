"""The notice that a run is to stop: SIGTERM, which schedulers send before they take a machine away."""

import signal
import threading

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Whether this run has been asked to stop: a SIGTERM, at the same step on every host."""

    def __init__(self):
        self._asked = threading.Event()
        self._started = False
        # With several processes the JAX runtime owns the signal and agrees on a step.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, lambda *_: self._asked.set())

    def reached(self, step: int) -> bool:
        """Call once per step on every process."""
        if jax.process_count() > 1:
            # Those who agree stop one step after the last that any of them has reported. Before the first report that
            # is step 1, which a run that resumes would never come by, and no later signal would count.
            first, self._started = not self._started, True
            asked_before = first and step > 1 and multihost_utils.reached_preemption_sync_point(1)
            return multihost_utils.reached_preemption_sync_point(step) or asked_before
        return self._asked.is_set()

    def close(self) -> None:
        """Restores the previous handler."""
        if hasattr(self, "_previous"):
            signal.signal(signal.SIGTERM, self._previous)
