"""FAVOR+: what its random features have in common with the softmax, and with each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops.attention_variants import performer

DIM = 8


def random(*shape, scale=1.0, seed=0):
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=shape), jnp.float32)


def softmax_attention(qkv):
    q, k, v = (qkv[:, :, part] for part in range(3))
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k)), v)


def test_it_approaches_softmax_attention_as_the_features_grow():
    scales = jnp.asarray([0.6 * DIM**-0.5, 0.6, 1]).reshape(1, 1, 3, 1, 1)
    qkv = random(2, 20, 3, 2, DIM) * scales
    wanted = softmax_attention(qkv)

    def error(count):
        draws = [performer.performer_attention(qkv, performer.random_features(DIM, count, seed)) for seed in range(4)]
        return float(np.mean([jnp.abs(found - wanted).mean() for found in draws]))

    errors = [error(count) for count in (128, 2048, 32768)]
    # Sixteen times the features: about a third of the error.
    assert all(small < 0.4 * large for large, small in zip(errors, errors[1:])), errors
    assert errors[-1] < 5e-3


def test_the_mean_of_products_of_features_is_the_exponential_of_the_product():
    q, k = np.random.default_rng(0).normal(size=(2, DIM)) / 4
    w = performer.random_features(DIM, 50_000).astype(float)
    estimate = np.mean(np.exp(w @ q - q @ q / 2) * np.exp(w @ k - k @ k / 2))
    assert abs(estimate / np.exp(q @ k) - 1) < 0.02


def test_features_are_orthogonal_within_groups_and_as_long_as_normal_vectors():
    w = performer.random_features(DIM, 5 * DIM + 3)
    assert w.shape == (5 * DIM + 3, DIM) and w.dtype == np.float32
    unit = w / np.linalg.norm(w, axis=1, keepdims=True)
    for start in range(0, 5 * DIM, DIM):
        group = unit[start : start + DIM]
        np.testing.assert_allclose(group @ group.T, np.eye(DIM), atol=1e-5)
    assert abs(np.mean(np.sum(performer.random_features(DIM, 4000) ** 2, axis=1)) / DIM - 1) < 0.03
    np.testing.assert_array_equal(w, performer.random_features(DIM, 5 * DIM + 3))
    assert np.any(w != performer.random_features(DIM, 5 * DIM + 3, seed=1))


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_outputs_are_means_of_the_values(scale):
    """Weights are positive and sum to one, also where the exponentials differ by more than a float32 holds."""
    features = performer.random_features(DIM, performer.num_features(DIM))
    qkv = random(1, 12, 3, 2, DIM, scale=scale)

    def run(qkv):
        return performer.performer_attention(qkv, features)

    found = run(qkv)
    values = qkv[:, :, 2]
    assert jnp.all(found <= values.max(1, keepdims=True) + 1e-4 * scale)
    assert jnp.all(found >= values.min(1, keepdims=True) - 1e-4 * scale)
    assert jnp.all(jnp.isfinite(jax.grad(lambda qkv: (run(qkv) ** 2).sum())(qkv)))
    same = qkv.at[:, :, 2].set(values[:, :1])
    np.testing.assert_allclose(run(same), jnp.broadcast_to(values[:, :1], values.shape), rtol=1e-4, atol=1e-4)


def test_as_many_features_as_the_paper_asks_for():
    assert [performer.num_features(dim) for dim in (1, 2, 16, 32)] == [1, 2, 48, 128]
