"""Fused window attention against the plain one: interpreted on the CPU, and compiled for chips that are not there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.ops import attention
from swin_jax.ops.kernels import tiling
from swin_jax.ops.kernels.window_attention import window_attention
from swin_jax.ops.normalize import unit, widen
from swin_jax.plan import chips, tpu_compiler


def plain(qkv, bias, regions, scale):
    """What `models.swin.attention` and `ops.attention` compute, with q scaled by its head's factor."""
    rows, tokens, _ = qkv.shape
    heads, dtype = len(bias), qkv.dtype
    qkv = qkv.reshape(rows, tokens, 3, heads, -1)
    if scale is not None:
        x = widen(qkv)
        factor = jnp.stack([scale, jnp.ones_like(scale)])[None, None, :, :, None]
        qkv = jnp.concatenate([unit(x[:, :, :2]) * factor, x[:, :, 2:]], 2).astype(dtype)
    windows = 1 if regions is None else len(regions)
    return attention.window_attention(qkv, bias[None], regions, windows).reshape(rows, tokens, -1)


def example(rows, tokens, heads, size, dtype="float32", regions=0, cosine=False, seed=0):
    """Random (qkv, bias, regions, scale) and the gradient of the result."""
    rng = np.random.default_rng(seed)
    qkv = rng.normal(size=(rows, tokens, 3 * heads * size)) * (1 if cosine else size**-0.25)
    bias = jnp.asarray(rng.normal(size=(heads, tokens, tokens)), jnp.float32)
    regions = rng.integers(0, 3, (regions, tokens)).astype(np.int32) if regions else None
    scale = jnp.asarray(rng.uniform(2, 20, heads), jnp.float32) if cosine else None
    gradient = rng.normal(size=(rows, tokens, heads * size))
    return (jnp.asarray(qkv, dtype), bias, regions, scale), jnp.asarray(gradient, dtype)


def results(attend, inputs, gradient):
    """The result and the gradients of qkv, bias and, if there is one, scale."""
    qkv, bias, regions, scale = inputs

    def both(qkv, bias, scale, gradient):
        out, pull = jax.vjp(lambda qkv, bias, scale: attend(qkv, bias, regions, scale), qkv, bias, scale)
        return out, *pull(gradient)

    return jax.tree.leaves(jax.jit(both)(qkv, bias, scale, gradient))


def assert_equal_to_plain(inputs, gradient):
    fused = results(lambda *x: window_attention(*x, interpret=True), inputs, gradient)
    expected = results(plain, inputs, gradient)
    assert [x.dtype for x in fused] == [x.dtype for x in expected]
    tolerance = 1e-5 if inputs[0].dtype == jnp.float32 else 2e-2
    for one, other in zip(fused, expected, strict=True):
        one, other = np.float64(one), np.float64(other)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(1, np.abs(other).max()))


@pytest.mark.parametrize(
    "shape",
    [
        dict(rows=4, tokens=49, heads=3, size=32, regions=4),
        dict(rows=4, tokens=64, heads=2, size=24, regions=2, cosine=True),
        dict(rows=2, tokens=49, heads=2, size=32, dtype="bfloat16", regions=2, cosine=True),
        dict(rows=1, tokens=144, heads=2, size=64, dtype="bfloat16"),
    ],
    ids=str,
)
def test_result_and_gradients_equal_the_plain_ones(shape):
    assert_equal_to_plain(*example(**shape))


@pytest.mark.parametrize(
    "budget, blocks, shape",
    [
        (250_000, [(1, 2, 9, 9), None], dict(rows=8, tokens=9, heads=2, size=8, regions=4, cosine=True)),
        (940_000, [(1, 4, 40, 40), None], dict(rows=2, tokens=40, heads=8, size=32, regions=2)),
        (
            1_720_000,
            [(1, 2, 48, 136), (1, 2, 136, 128)],
            dict(rows=2, tokens=136, heads=2, size=8, regions=2, cosine=True),
        ),
        (
            2_000_000,
            [(1, 4, 48, 136), (1, 4, 136, 128)],
            dict(rows=1, tokens=136, heads=8, size=32, regions=1),
        ),
    ],
    ids=["steps over windows", "groups of heads", "blocks of queries, then of keys", "blocks of groups"],
)
def test_steps_and_groups_of_heads_and_blocks_of_tokens_change_nothing(monkeypatch, budget, blocks, shape):
    monkeypatch.setattr(tiling, "VMEM", budget)
    inputs, gradient = example(**shape)
    sizes = (shape[name] for name in ("rows", "tokens", "heads", "size"))
    problem = tiling.Problem(*sizes, itemsize=4, regions=shape["regions"])
    assert tiling.backward_tiling(problem) == tuple(x and tiling.Tiling(*x) for x in blocks)
    assert_equal_to_plain(inputs, gradient)


@pytest.mark.parametrize("seed", range(3))
def test_random_shapes_equal_the_plain_ones(seed):
    rng = np.random.default_rng([22, seed])
    regions = int(rng.integers(0, 4))
    assert_equal_to_plain(
        *example(
            rows=max(1, regions) * int(rng.integers(1, 6)),
            tokens=int(rng.integers(2, 40)),
            heads=int(rng.integers(1, 5)),
            size=int(rng.choice([8, 24, 32])),
            dtype=str(rng.choice(["float32", "bfloat16"])),
            regions=regions,
            cosine=bool(rng.integers(0, 2)),
            seed=seed,
        )
    )


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("tokens", [49, 64, 144, 256, 343, 392, 576, 1024])
@pytest.mark.parametrize("size", [24, 32, 64])
def test_all_windows_and_head_sizes_equal_the_plain_ones(tokens, size, cosine, dtype):
    assert_equal_to_plain(*example(2, tokens, 4, size, dtype, regions=2, cosine=cosine))


def test_zeros_have_a_finite_gradient_under_cosine_attention():
    (qkv, bias, _, scale), gradient = example(1, 8, 1, 8, cosine=True)
    inputs = (qkv.at[:, 3].set(0), bias, None, scale)
    assert_equal_to_plain(inputs, gradient)


COMPILED = {
    "window 7": dict(rows=128, tokens=49, heads=3, size=32, regions=64),
    "window 8, cosine": dict(rows=64, tokens=64, heads=3, size=32, regions=64, cosine=True),
    "window 12": dict(rows=16, tokens=144, heads=8, size=32, regions=16),
    "window 16, cosine": dict(rows=16, tokens=256, heads=4, size=32, regions=16, cosine=True),
    "7 frames": dict(rows=8, tokens=343, heads=3, size=32, regions=4),
    "8 frames": dict(rows=8, tokens=392, heads=3, size=32, regions=8),
    "8 frames, many heads": dict(rows=4, tokens=392, heads=24, size=32),
    "window 24": dict(rows=4, tokens=576, heads=4, size=64, regions=4),
    "window 32, cosine": dict(rows=4, tokens=1024, heads=16, size=32, regions=4, cosine=True),
    "heads of 24": dict(rows=16, tokens=64, heads=4, size=24, regions=16),
    "one window": dict(rows=1, tokens=49, heads=24, size=32),
}


def compile_for(chip, rows, tokens, heads, size, dtype="bfloat16", regions=0, cosine=False):
    """Result and gradients, compiled for one chip that is not there."""
    tpu_compiler.prepare_backend()
    axes = 2 if chips.CHIPS[chip].torus == 2 else 3
    device, *_ = tpu_compiler.devices(chips.Topology(chips.CHIPS[chip], (1,) * axes))
    place = jax.sharding.SingleDeviceSharding(device)

    def array(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    def both(qkv, bias, regions, scale, gradient):
        attend = lambda qkv, bias, scale: window_attention(qkv, bias, regions, scale)  # noqa: E731
        out, pull = jax.vjp(attend, qkv, bias, scale)
        return out, pull(gradient)

    arguments = (
        array(rows, tokens, 3 * heads * size, dtype=dtype),
        array(heads, tokens, tokens),
        array(regions, tokens, dtype=jnp.int32) if regions else None,
        array(heads) if cosine else None,
        array(rows, tokens, heads * size, dtype=dtype),
    )
    return jax.jit(both).lower(*arguments).compile()


def test_it_compiles_for_a_tpu_and_keeps_no_logits():
    memory = compile_for("v5e", **COMPILED["window 7"]).memory_analysis()
    # The logits of one head alone would be 128 * 49 * 49 numbers.
    assert memory.temp_size_in_bytes < 128 * 49 * 49 * 2


@pytest.mark.long
@pytest.mark.parametrize("chip", ["v4", "v5e", "v5p", "v6e"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", COMPILED)
def test_every_window_compiles_for_every_chip(name, dtype, chip):
    compile_for(chip, dtype=dtype, **COMPILED[name])


def test_what_the_kernel_cannot_do_is_refused_with_the_reason():
    (qkv, bias, _, _), _ = example(2, 4, 2, 8)
    with pytest.raises(UserError, match="float32 or bfloat16, not in float16"):
        window_attention(qkv.astype(jnp.float16), bias)
    with pytest.raises(UserError, match="47 channels are not q, k and v of 2 heads"):
        window_attention(qkv[..., :-1], bias)
    with pytest.raises(UserError, match="3 windows per image do not divide 2"):
        window_attention(qkv, bias, np.zeros((3, 4), np.int32))
    huge = tiling.Problem(rows=1, tokens=100_000, heads=4, size=32, itemsize=2)
    with pytest.raises(UserError, match="over 100000 tokens .* does not fit"):
        tiling.forward_tiling(huge)
    with pytest.raises(UserError, match="over 100000 tokens .* does not fit"):
        tiling.backward_tiling(huge)
