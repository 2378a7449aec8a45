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


# Of torch 2.13: F.cross_entropy(logits, label or mixed, weight=WEIGHTS, label_smoothing=s) and
# F.binary_cross_entropy_with_logits(logits, marks, weight=WEIGHTS), in float64.
LOGITS = np.array(
    [
        [0.25, -0.26, 1.28, 0.21],
        [-1.07, 0.72, 2.61, 1.89],
        [-1.41, -2.53, -1.25, 0.08],
        [-4.65, -0.44, -2.49, -1.46],
        [-1.09, -0.63, 0.82, 2.09],
    ]
)
LABEL, WEIGHTS = np.array([0, 3, 1, 1, 2]), (0.5, 2.0, 1.0, 3.0)
MARKS = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 1, 1]])
PARTNER = np.array([1, 0, 3, 2, 4])  # row i is mixed with row PARTNER[i], 0.7 to 0.3


def mixed(target):
    return 0.7 * target + 0.3 * target[PARTNER]


@pytest.mark.parametrize(
    "smoothing, numbers, mixtures", [(0.0, 1.5357560808, 2.7743979851), (0.1, 1.5369245101, 2.7600230501)]
)
def test_weights_of_classes_are_torchs(smoothing, numbers, mixtures):
    target = losses.smooth_one_hot(jnp.asarray(LABEL), 4, smoothing)
    logits = jnp.asarray(LOGITS, jnp.float32)
    found = losses.weighted_cross_entropy(logits, target, WEIGHTS, jnp.asarray(LABEL))
    np.testing.assert_allclose(found, numbers, rtol=1e-6)
    np.testing.assert_allclose(losses.weighted_cross_entropy(logits, mixed(target), WEIGHTS), mixtures, rtol=1e-6)
    plain = losses.weighted_cross_entropy(logits, target, np.ones(4), jnp.asarray(LABEL))
    np.testing.assert_allclose(plain, losses.soft_cross_entropy(logits, target).mean(), rtol=1e-6)


def test_the_gradient_with_weights_and_smoothing_is_torchs():
    target = losses.smooth_one_hot(jnp.asarray(LABEL), 4, 0.1)
    found = jax.grad(losses.weighted_cross_entropy)(jnp.asarray(LOGITS, jnp.float32), target, WEIGHTS, LABEL)
    expected = [
        [-0.0409738481, 0.0021870566, 0.0346993126, 0.0040874789],
        [0.003637029, 0.0247094776, 0.1995574287, -0.2279039353],
    ]
    np.testing.assert_allclose(found[:2], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "marks, weights, expected",
    [(MARKS, None, 0.9107063266), (MARKS, WEIGHTS, 1.4840598811), (mixed(MARKS), WEIGHTS, 1.5305598811)],
)
def test_binary_cross_entropy_is_torchs(marks, weights, expected):
    values = losses.sigmoid_cross_entropy(jnp.asarray(LOGITS, jnp.float32), jnp.asarray(marks, jnp.float32))
    known = jnp.ones(values.shape, bool)
    np.testing.assert_allclose(losses.known_mean(values, known, weights), expected, rtol=1e-6)


def test_what_is_not_known_counts_neither_in_the_sum_nor_in_the_number():
    values = jnp.array([[1.0, jnp.inf], [2.0, 6.0]])
    assert losses.known_mean(values, jnp.array([[True, False], [True, True]])) == 3.0
    assert losses.known_mean(values, jnp.zeros((2, 2), bool)) == 0.0


def test_binary_cross_entropy_is_finite_for_large_half_precision_logits():
    values = losses.sigmoid_cross_entropy(jnp.array([[3e4, -3e4]], jnp.float16), jnp.array([[0, 1]], jnp.int8))
    np.testing.assert_allclose(values, [[3e4, 3e4]], rtol=1e-3)
