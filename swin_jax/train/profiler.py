"""A trace of JAX's profiler over some steps of a run."""

from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from swin_jax.core import storage


class Profiler:
    """Traces the steps `steps`, (first, last), into the folder `profile` of a workdir."""

    def __init__(self, workdir: epath.Path, steps: tuple[int, int] | None):
        self.folder, self.steps = workdir / "profile", steps
        self.files = None  # where the profiler writes to, while it does

    def reach(self, step: int, state: Any, say: Callable[[str], None]) -> None:
        """Starts or stops at a step that is about to be computed.

        Args:
            step: The number of the step.
            state: The run's; waited for before the trace ends.
            say: A function that is told where the trace is.
        """
        if self.steps and step == self.steps[0]:
            self.files = storage.Spool(self.folder)
            jax.profiler.start_trace(str(self.files.folder))
        if self.files and step > self.steps[1]:
            self.stop(state, say)

    def stop(self, state: Any, say: Callable[[str], None]) -> None:
        """Writes the trace, if one is being taken; arguments as for `reach`."""
        if self.files:
            files, self.files = self.files, None
            jax.block_until_ready(state.step)
            jax.profiler.stop_trace()
            files.close()
            say(f"profile of steps {self.steps[0]}-{self.steps[1]} in {self.folder}")
