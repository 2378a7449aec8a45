import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.ops import attention, batch_sharding
from swin_jax.ops.window_geometry import MASKED
from tests.kernels import interpret_kernels


@pytest.fixture(params=["xla", "sequential", "fused"])
def implementation(request, monkeypatch):
    if request.param == "fused":
        interpret_kernels(monkeypatch)
    return request.param


def test_a_token_outside_the_window_has_exactly_zero_gradient(implementation):
    qkv = jax.random.normal(jax.random.key(0), (4, 9, 3, 2, 8))
    bias = jax.random.normal(jax.random.key(1), (1, 2, 9, 9))
    attend = lambda x: attention.window_attention(x, bias, windows=4, implementation=implementation)  # noqa: E731
    gradient = jax.jit(jax.grad(lambda x: attend(x)[1].sum()))(qkv)
    assert (gradient[jnp.array([0, 2, 3])] == 0).all() and (gradient[1] != 0).any()


@pytest.mark.parametrize("copies", [1, 2])
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


def test_cosine_attention_is_the_same_by_every_implementation(implementation):
    qkv = jax.random.normal(jax.random.key(0), (2, 4, 3, 2, 8))
    bias, scale = jax.random.normal(jax.random.key(1), (1, 2, 4, 4)), jnp.array([3.0, 7.0])
    q, k, v = (qkv[:, :, i] for i in range(3))
    q, k = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    expected = attention.window_attention(jnp.stack([q * scale[None, None, :, None], k, v], 2), bias)
    out = attention.window_attention(qkv, bias, None, 1, implementation, scale)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_auto_is_the_plain_form_where_the_kernel_cannot_be_had_and_says_so_once(monkeypatch, caplog):
    attention._log.cache_clear()
    caplog.set_level("INFO")
    qkv, bias = jax.random.normal(jax.random.key(0), (2, 4, 3, 1, 8)), jnp.zeros((1, 1, 4, 4))
    expected = attention.window_attention(qkv, bias)
    for _ in range(2):
        np.testing.assert_array_equal(attention.window_attention(qkv, bias, implementation="auto"), expected)
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert record.message.endswith("is 'xla' here: the fused kernel is for TPUs, and this program is for a CPU")

    monkeypatch.setattr(batch_sharding, "platform", lambda: "tpu")
    caplog.clear()
    for _ in range(2):
        assert attention.choose("auto", qkv.shape, jnp.float32) == "fused"
    assert attention.choose("auto", qkv.shape, jnp.float16) == "xla"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    first, second = (record.message for record in caplog.records)
    assert first == attention.NOT_RUN_YET
    assert second.endswith("computes in float32 or bfloat16, not in float16")


def test_the_platform_is_that_of_the_default_device():
    assert batch_sharding.platform() == "cpu"
    for device in ("tpu", jax.devices("cpu")[0]):
        with jax.default_device(device):
            assert batch_sharding.platform() == getattr(device, "platform", device)


def test_the_kernel_by_name_is_refused_with_the_reason(monkeypatch):
    shape = (2, 4, 3, 1, 8)
    with pytest.raises(UserError, match="attention='fused': .* for TPUs, and this program is for a CPU"):
        attention.choose("fused", shape, jnp.float32)
    monkeypatch.setattr(batch_sharding, "platform", lambda: "tpu")
    with pytest.raises(UserError, match="attention='fused': .* over 99999 tokens .* does not fit"):
        attention.choose("fused", (1, 99_999, 3, 1, 32), jnp.bfloat16)
