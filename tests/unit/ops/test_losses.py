"""Targets, cross entropy and exact top-k."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops import losses


def test_smooth_one_hot_values():
    target = losses.smooth_one_hot(jnp.array([2, 0]), 4, 0.1)
    np.testing.assert_allclose(target, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]], rtol=1e-6)
    assert target.dtype == jnp.float32


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smooth_one_hot_is_a_distribution(smoothing):
    target = losses.smooth_one_hot(jnp.arange(7), 7, smoothing)
    np.testing.assert_allclose(target.sum(axis=1), 1.0, rtol=1e-6)


def test_soft_cross_entropy_of_one_hot_is_the_negative_log_probability():
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(5, 3)) * 4, rng.integers(0, 3, 5)
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), label]
    loss = losses.soft_cross_entropy(jnp.asarray(logits, jnp.float32), losses.smooth_one_hot(jnp.asarray(label), 3))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_soft_cross_entropy_is_linear_in_the_target_and_blind_to_a_shift():
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=(4, 6)), jnp.float32)
    a, b = (jnp.asarray(rng.dirichlet(np.ones(6), 4), jnp.float32) for _ in range(2))
    mixed = losses.soft_cross_entropy(logits + 100.0, 0.3 * a + 0.7 * b)
    parts = 0.3 * losses.soft_cross_entropy(logits, a) + 0.7 * losses.soft_cross_entropy(logits, b)
    np.testing.assert_allclose(mixed, parts, rtol=1e-4)


def test_soft_cross_entropy_is_float32_and_finite_for_large_half_precision_logits():
    loss = losses.soft_cross_entropy(jnp.array([[3e4, -3e4]], jnp.bfloat16), jnp.array([[0.0, 1.0]]))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 6e4, rtol=1e-2)


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_top_k_matches_a_stable_sort(k):
    rng = np.random.default_rng(k)
    logits, label = rng.integers(0, 4, (200, 6)).astype(np.float32), rng.integers(0, 6, 200)  # many ties
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    correct = jax.jit(losses.top_k_correct, static_argnames="k")(logits, label, k=k)
    np.testing.assert_array_equal(correct, (best == label[:, None]).any(axis=1))
    assert correct.dtype == jnp.float32


def test_equal_logits_score_as_chance_would():
    assert losses.top_k_correct(jnp.zeros((10, 10)), jnp.arange(10), 3).sum() == 3


def test_nan_logits_are_wrong():
    nan = jnp.nan
    logits = jnp.array([[nan, nan, nan], [nan, 2.0, 1.0], [2.0, nan, 1.0]])
    label = jnp.array([0, 0, 0])
    np.testing.assert_array_equal(losses.top_k_correct(logits, label, 1), [0, 0, 0])
    np.testing.assert_array_equal(losses.top_k_correct(logits, label, 5), [0, 0, 1])
