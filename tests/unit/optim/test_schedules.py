"""Learning rates over time, by values that are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.optim import schedules

# orpatashnik/StyleCLIP, optimization/run_optimization.py, get_lr, for 300 steps at 0.1.
RAMPS = {0: 0, 1: 0.006667, 2: 0.013333, 14: 0.093333, 15: 0.1, 225: 0.1, 226: 0.099956, 262: 0.051047, 299: 0.000044}


@pytest.mark.parametrize("step, expected", RAMPS.items())
def test_the_ramps_are_those_of_the_released_code(step, expected):
    rate = schedules.ramps(0.1, 300)(jnp.int32(step))
    assert rate.dtype == jnp.float32
    exact = (0.5 - 0.5 * np.cos(np.pi * min(1, (1 - step / 300) / 0.25))) * min(1, step / 300 / 0.05) * 0.1
    np.testing.assert_allclose(rate, exact, rtol=1e-6)
    np.testing.assert_allclose(rate, expected, atol=5e-7)


def test_a_ramp_of_no_length_is_left_out():
    flat = schedules.ramps(0.1, 10, rampup=0.0, rampdown=0.0)
    assert [float(flat(step)) for step in (1, 9)] == [float(jnp.float32(0.1))] * 2
