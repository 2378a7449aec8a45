import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops import attention, window


@pytest.mark.parametrize("spatial, size", [((8, 12), (4, 4)), ((4, 6), (2, 3)), ((4, 6, 8), (2, 3, 4)), ((9,), (3,))])
def test_reverse_undoes_partition(spatial, size):
    x = np.random.default_rng(0).normal(size=(2, *spatial, 3)).astype(np.float32)
    np.testing.assert_array_equal(window.reverse(window.partition(x, size), size, spatial), x)


def test_partition_is_batch_major_then_raster():
    x = np.arange(2 * 4 * 6).reshape(2, 4, 6, 1)
    windows = np.asarray(window.partition(x, (2, 3)))
    assert windows.shape == (8, 6, 1)
    np.testing.assert_array_equal(windows[1, :, 0], [3, 4, 5, 9, 10, 11])  # second window of the first row
    assert windows[4, 0, 0] == 24  # the second image starts after all windows of the first


def test_relative_position_index_golden():
    np.testing.assert_array_equal(
        window.relative_position_index((2, 2)), [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    )
    index = window.relative_position_index((2, 3))
    np.testing.assert_array_equal(index[0], [7, 6, 5, 2, 1, 0])
    np.testing.assert_array_equal(index[-1], [14, 13, 12, 9, 8, 7])
    index = window.relative_position_index((7, 7))
    assert (np.diag(index) == 84).all() and index[0, 48] == 0 and index[48, 0] == 168 and index.sum() == 201_684
    np.testing.assert_array_equal(index[0, :9], [84, 83, 82, 81, 80, 79, 78, 71, 70])


@pytest.mark.parametrize(
    "spatial, size, shift, masked",
    [((4, 4), (2, 2), (1, 1), [0, 8, 8, 12]), ((14, 14), (7, 7), (3, 3), [0, 1176, 1176, 1776])],
)
def test_shift_mask_golden(spatial, size, shift, masked):
    mask = window.shift_mask(spatial, size, shift)
    np.testing.assert_array_equal((mask == -100).sum(axis=(1, 2)), masked)


def test_shift_mask_golden_sum():
    assert window.shift_mask((56, 56), (7, 7), (3, 3)).sum() == -1_824_000


def test_shift_mask_of_an_axis_without_shift_does_not_cut_it():
    mask = window.shift_mask((4, 8), (4, 4), (0, 2))
    per_axis = window.shift_mask((8,), (4,), (2,))  # (2, 4, 4)
    np.testing.assert_array_equal(mask.reshape(2, 4, 4, 4, 4)[:, 1, :, 3, :], per_axis)


@pytest.mark.parametrize(
    "grid, size, small, expected",
    [
        ((56, 56), (7, 7), "shrink", ((7, 7), (3, 3))),
        ((7, 7), (7, 7), "shrink", ((7, 7), (0, 0))),
        ((6, 12), (7, 7), "shrink", ((6, 6), (0, 0))),
        ((2, 14, 14), (8, 7, 7), "axis", ((2, 7, 7), (0, 3, 3))),
        ((7, 7), (7, 7), "keep", ((7, 7), (3, 3))),
    ],
)
def test_fit(grid, size, small, expected):
    assert window.fit(grid, size, small) == expected


def test_a_token_outside_the_window_has_exactly_zero_gradient():
    qkv = jax.random.normal(jax.random.key(0), (4, 9, 3, 2, 8))
    bias = jax.random.normal(jax.random.key(1), (2, 9, 9))
    gradient = jax.grad(lambda x: attention.window_attention(x, bias)[1].sum())(qkv)
    assert (gradient[jnp.array([0, 2, 3])] == 0).all() and (gradient[1] != 0).any()


def test_attention_equals_a_loop():
    qkv = np.random.default_rng(0).normal(size=(4, 6, 3, 2, 5)).astype(np.float32)
    bias = np.random.default_rng(1).normal(size=(2, 6, 6)).astype(np.float32)
    mask = np.random.default_rng(2).normal(size=(2, 6, 6)).astype(np.float32)
    out = np.asarray(attention.window_attention(qkv, bias, mask))
    for b, head in itertools.product(range(4), range(2)):
        q, k, v = (qkv[b, :, i, head] for i in range(3))
        logits = q @ k.T + bias[head] + mask[b % 2]
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        np.testing.assert_allclose(out[b, :, head], weights / weights.sum(-1, keepdims=True) @ v, atol=1e-5)
