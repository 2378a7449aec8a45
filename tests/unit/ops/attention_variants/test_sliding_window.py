"""Attention to the window around each token, against a loop over tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops.attention_variants import sliding_window

SIZES = [(7, 7), (3, 5), (4, 2), (1, 3)]


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def near(at, shape, size):
    """The tokens in the window around one, cut at the edges: slices."""
    return tuple(slice(max(p - w // 2, 0), min(p - w // 2 + w, n)) for p, n, w in zip(at, shape, size))


def attend_one(qkv, table, size, at):
    """What the token `at` gets, (h, d), from (H, W, 3, h, d)."""
    around = near(at, qkv.shape, size)
    q, (k, v) = qkv[at][0], (qkv[around][:, :, part].reshape(-1, *qkv.shape[-2:]) for part in (1, 2))
    table = table.reshape(2 * size[0] - 1, 2 * size[1] - 1, -1)
    rows, columns = (at[i] - np.arange(around[i].start, around[i].stop) + size[i] - 1 for i in (0, 1))
    logits = np.einsum("hd,khd->kh", q, k) + table[np.ix_(rows, columns)].reshape(len(k), -1)
    weights = np.exp(logits - logits.max(0))
    return np.einsum("kh,khd->hd", weights / weights.sum(0), v)


def attend(qkv, table, size):
    bias = sliding_window.neighborhood_bias(jnp.asarray(table), size)
    return sliding_window.sliding_attention(jnp.asarray(qkv), bias, size)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_token_gets_what_its_own_window_gives(size):
    """Inside the map, at its edges, and where windows of queries reach beyond it."""
    qkv, table = random(2, 9, 10, 3, 2, 3), random((2 * size[0] - 1) * (2 * size[1] - 1), 2, seed=1)
    found = np.asarray(jax.jit(attend, static_argnums=2)(qkv, table, size))
    for b, i, j in np.ndindex(2, 9, 10):
        wanted = attend_one(qkv[b], table, size, (i, j))
        np.testing.assert_allclose(found[b, i, j], wanted, atol=2e-6, rtol=1e-5, err_msg=f"{b, i, j}")


@pytest.mark.parametrize("at", [(4, 4), (0, 9)])
def test_a_token_outside_the_window_has_a_gradient_of_exactly_zero(at):
    size, table = (5, 3), jnp.asarray(random(9 * 5, 2, seed=1))
    gradient = jax.jit(jax.grad(lambda qkv, table: attend(qkv, table, size)[0, at[0], at[1]].sum(), (0, 1)))
    by_qkv, by_table = (np.asarray(g) for g in gradient(jnp.asarray(random(1, 9, 10, 3, 2, 3)), table))
    seen = np.zeros((9, 10), bool)
    seen[near(at, (9, 10), size)] = True
    for part in (1, 2):
        np.testing.assert_array_equal(np.abs(by_qkv[0, :, :, part]).max((-2, -1)) > 0, seen)
    only_itself = np.abs(by_qkv[0, :, :, 0]).max((-2, -1)) > 0
    assert only_itself[at] and only_itself.sum() == 1
    assert np.count_nonzero(np.abs(by_table).max(-1)) == seen.sum()


def test_three_axes_with_one_frame_equal_two():
    qkv, table = random(1, 6, 6, 3, 1, 4), random(25, 1, seed=1)
    np.testing.assert_allclose(attend(qkv[:, None], table, (1, 3, 3))[:, 0], attend(qkv, table, (3, 3)), atol=1e-6)
