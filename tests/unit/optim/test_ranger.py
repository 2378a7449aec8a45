"""Ranger against the numbers of the released code, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swin_jax.optim import ranger
from swin_jax.optim.ranger import centralize, multiplier

# mapper/training/ranger.py of orpatashnik/StyleCLIP: what it multiplies the learning rate with.
MULTIPLIERS = {1: 20, 2: 10.2564, 3: 7.0114, 4: 5.3910, 5: 4.4205, 6: 0.0075407, 7: 0.0090665, 8: 0.0102763}
MULTIPLIERS |= {9: 0.0112936, 10: 0.0121835, 12: 0.0137229, 100: 0.0668391, 1000: 0.5131473, 10000: 0.9997507}


@pytest.mark.parametrize("step, expected", MULTIPLIERS.items())
def test_the_multiplier_of_a_step_is_the_released_one(step, expected):
    found, is_adaptive = multiplier(jnp.int32(step), 0.95, 0.999)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    assert bool(is_adaptive) == (step > 5)


def reference(steps, value, gradient, rate=0.5):
    """The scalar case in double precision, as the released code has it."""
    m = v = 0.0
    slow, values = value, []
    for t in range(1, steps + 1):
        g = gradient(value)
        v = 0.999 * v + 0.001 * g * g
        m = 0.95 * m + 0.05 * g
        power = 0.999**t
        length = 1999 - 2 * t * power / (1 - power)
        if length > 5:
            root = (1 - power) * (length - 4) / 1995 * (length - 2) / length * 1999 / 1997
            value -= rate * root**0.5 / (1 - 0.95**t) * m / (v**0.5 + 1e-5)
        else:
            value -= rate / (1 - 0.95**t) * m
        if t % 6 == 0:
            slow += 0.5 * (value - slow)
            value = slow
        values.append(value)
    return values


def test_twelve_steps_by_hand_with_slow_weights_at_the_sixth_and_the_twelfth():
    tx, params = ranger(0.5), {"x": jnp.float32(3.0)}
    state = tx.init(params)
    found, slow = [], []
    for _ in range(12):
        updates, state = tx.update({"x": 0.1 * params["x"]}, state, params)
        params = optax.apply_updates(params, updates)
        found.append(float(params["x"]))
        slow.append(float(state.slow["x"]))
    np.testing.assert_allclose(found, reference(12, 3.0, lambda x: 0.1 * x), rtol=2e-6)
    assert slow[:5] == [3.0] * 5 and slow[6:11] == [slow[5]] * 5 and slow[5] != slow[11]
    np.testing.assert_allclose([slow[5], slow[11]], [found[5], found[11]], rtol=1e-6)
    assert float(state.learning_rate) == 0.5


def test_epsilon_is_added_to_the_root_before_its_bias_is_corrected():
    small = lambda x: 1e-5 * x  # noqa: E731
    tx, params = ranger(0.5), {"x": jnp.float32(3.0)}
    state = tx.init(params)
    for _ in range(11):
        updates, state = tx.update({"x": small(params["x"])}, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["x"], reference(11, 3.0, small)[-1], rtol=1e-6)


def test_gradients_are_centralized_for_each_output():
    """Official kernels are (out, in), and the mean is over all axes but the first."""
    official = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    expected = official - official.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(centralize(official.T), expected.T, atol=1e-6)
    kernel = np.random.default_rng(0).standard_normal((4, 2, 3, 3)).astype(np.float32)
    expected = kernel - kernel.mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(centralize(kernel.transpose(2, 3, 1, 0)), expected.transpose(2, 3, 1, 0), atol=1e-6)
    np.testing.assert_array_equal(centralize(jnp.arange(3.0)), [0, 1, 2])


def test_a_step_centralizes_kernels_and_no_biases():
    tx, params = ranger(1.0), {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    gradients = {"kernel": jnp.array([[1.0, 5.0], [3.0, 5.0]]), "bias": jnp.ones(2)}
    updates, state = jax.jit(tx.update)(gradients, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], [[1, 0], [-1, 0]], atol=1e-5)
    np.testing.assert_allclose(updates["bias"], [-1, -1], atol=1e-5)
    np.testing.assert_allclose(state.grad_norm, np.sqrt(1 + 9 + 50 + 2), rtol=1e-6)
