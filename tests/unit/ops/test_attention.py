import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops import attention
from swin_jax.ops.window_geometry import MASKED


@pytest.mark.parametrize("implementation", attention.IMPLEMENTATIONS)
def test_a_token_outside_the_window_has_exactly_zero_gradient(implementation):
    qkv = jax.random.normal(jax.random.key(0), (4, 9, 3, 2, 8))
    bias = jax.random.normal(jax.random.key(1), (1, 2, 9, 9))
    attend = lambda x: attention.window_attention(x, bias, windows=4, implementation=implementation)  # noqa: E731
    gradient = jax.jit(jax.grad(lambda x: attend(x)[1].sum()))(qkv)
    assert (gradient[jnp.array([0, 2, 3])] == 0).all() and (gradient[1] != 0).any()


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("implementation", attention.IMPLEMENTATIONS)
def test_attention_equals_a_loop(implementation, copies):
    qkv = np.random.default_rng(0).normal(size=(4, 6, 3, 2, 5)).astype(np.float32)
    bias = np.random.default_rng(1).normal(size=(copies, 2, 6, 6)).astype(np.float32)
    regions = np.array([[0, 0, 0, 1, 1, 1], [2, 2, 2, 2, 2, 2]], np.int32)
    mask = np.where(regions[:, :, None] == regions[:, None, :], 0, MASKED)
    out = np.asarray(attention.window_attention(qkv, bias, regions, 2, implementation))
    for b, head in itertools.product(range(4), range(2)):
        q, k, v = (qkv[b, :, i, head] for i in range(3))
        logits = q @ k.T + bias[b * copies // 4, head] + mask[b % 2]
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        np.testing.assert_allclose(out[b, :, head], weights / weights.sum(-1, keepdims=True) @ v, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_one_window_at_a_time_has_the_same_gradients(masked):
    qkv = jax.random.normal(jax.random.key(0), (6, 4, 3, 2, 8))
    bias = jax.random.normal(jax.random.key(1), (1, 2, 4, 4))
    regions = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], np.int32) if masked else None

    def gradients(implementation):
        loss = lambda x, b: (attention.window_attention(x, b, regions, 3, implementation) ** 2).sum()  # noqa: E731
        return jax.jit(jax.grad(loss, argnums=(0, 1)))(qkv, bias)

    for one, other in zip(gradients("xla"), gradients("sequential"), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_one_window_at_a_time_needs_the_memory_of_one_window():
    qkv = jax.ShapeDtypeStruct((64, 64, 3, 2, 8), jnp.float32)
    bias = jax.ShapeDtypeStruct((1, 2, 64, 64), jnp.float32)

    def temporary_bytes(implementation):
        loss = lambda x, b: attention.window_attention(x, b, None, 64, implementation).sum()  # noqa: E731
        return jax.jit(jax.grad(loss)).lower(qkv, bias).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes("xla") > 2 * temporary_bytes("sequential")


def test_an_unknown_implementation_names_those_that_exist():
    with pytest.raises(ValueError, match="'flesh' is not one of .*'sequential'"):
        attention.window_attention(jnp.zeros((1, 4, 3, 1, 2)), jnp.zeros((1, 1, 4, 4)), implementation="flesh")
