"""On which step several processes stop. The signal itself is sent in e2e/test_runs.py and devices/test_processes.py."""

import jax
import pytest
from jax.experimental import multihost_utils

from swin_jax.train.preemption import Preemption


class Runtime:
    """What JAX's runtime does with a notice: the sync point is one after the last step that was reported."""

    def __init__(self, notice_after):
        self.last, self.notice_after, self.point = 0, notice_after, None
        self.notice(0)

    def notice(self, reports):
        if reports == self.notice_after:
            self.point = self.last + 1

    def reached(self, step):
        self.last = step
        return step == self.point


@pytest.mark.parametrize("start", [0, 1, 5000])
@pytest.mark.parametrize("steps_before_notice", [0, 1, 3])
def test_a_notice_stops_the_next_step_also_before_the_first_of_a_resumed_run(monkeypatch, start, steps_before_notice):
    runtime = Runtime(steps_before_notice)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", runtime.reached)
    preemption, stopped = Preemption(), []
    for number, step in enumerate(range(start + 1, start + 8), 1):
        stopped += [step] if preemption.reached(step) else []
        runtime.notice(number)
    assert stopped == [start + steps_before_notice + 1]
