"""FLOPs and traffic of Pallas kernels: traced only, and in the text of a program for v5e."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from swin_jax.plan import chips, collectives, flops, kernels, tpu_compiler
from swin_jax.train.sharding import make_mesh

MIB = 2**20


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def multiply(x, w, columns_first=True, name=None):
    """x @ w in blocks of 64 x 128; where the columns are the outer loop, x is read for each of them."""
    rows, columns = x.shape[0] // 64, w.shape[1] // 128

    def place(index):
        return (lambda j, i: index(i, j)) if columns_first else index

    def body(x_ref, w_ref, out_ref):
        out_ref[...] = jnp.dot(x_ref[...], w_ref[...], preferred_element_type=jnp.float32)

    return pl.pallas_call(
        body,
        grid=(columns, rows) if columns_first else (rows, columns),
        in_specs=[
            pl.BlockSpec((64, x.shape[1]), place(lambda i, j: (i, 0))),
            pl.BlockSpec((x.shape[1], 128), place(lambda i, j: (0, j))),
        ],
        out_specs=pl.BlockSpec((64, 128), place(lambda i, j: (i, j))),
        out_shape=array(x.shape[0], w.shape[1]),
        name=name,
    )(x, w)


def only(fn, *args):
    (found,) = kernels.kernels(jax.make_jaxpr(fn)(*args))
    return found


X, W = array(256, 128), array(128, 1024)


def test_a_kernel_that_reads_its_input_eight_times_shows_it():
    assert only(multiply, X, W).moved == (8, 1, 1)
    # The other way round, each block of x stays while all of w passes.
    assert only(functools.partial(multiply, columns_first=False), X, W).moved == (1, 4, 1)


def test_the_products_of_a_kernel_count_at_each_step_of_its_grid():
    plain = flops.count(lambda x, w: x @ w, X, W)
    assert flops.count(multiply, X, W) == plain == 2 * 256 * 128 * 1024


@pytest.mark.parametrize("unit", [128, 256])
@pytest.mark.parametrize("dtype, register", [(jnp.float32, 8), (jnp.bfloat16, 16)])
def test_products_in_kernels_are_padded_to_the_matrix_unit(unit, dtype, register):
    def body(x_ref, out_ref):
        x = x_ref[0]
        out_ref[0] = jax.lax.dot_general(x, x, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)

    def scores(x):
        spec = pl.BlockSpec((1, 49, 32), lambda b: (b, 0, 0))
        out = pl.BlockSpec((1, 49, 49), lambda b: (b, 0, 0))
        return pl.pallas_call(body, grid=(6,), in_specs=[spec], out_specs=out, out_shape=array(6, 49, 49))(x)

    def fn(x, w):
        return scores(x), x @ w

    traced = jax.make_jaxpr(fn)(array(6, 49, 32, dtype=dtype), array(32, 96, dtype=dtype))
    outside = 2 * 6 * 49 * 32 * 96  # as it is: XLA chooses the layout
    rows = -(-49 // register) * register
    assert flops.count_jaxpr(traced) == 6 * 2 * 49 * 49 * 32 + outside
    assert flops.count_jaxpr(traced, unit) == 6 * 2 * rows * unit * unit + outside


def test_loops_transformations_and_devices_around_a_kernel():
    def body(w, x, _=None):
        return x + multiply(x, w)[:, :128], None

    def loop(x, w):
        step = jax.checkpoint(functools.partial(body, w))
        return jax.lax.scan(step, x, None, length=5)[0]

    mesh = make_mesh(8)

    def split(x, w):
        specs = (jax.P("data"), jax.P())
        return jax.shard_map(loop, mesh=mesh, in_specs=specs, out_specs=specs[0], check_vma=False)(x, w)

    looped, per_device = only(loop, X, W), only(split, array(8 * 256, 128), W)
    assert (looped.count, looped.operands) == (5, (4 * 256 * 128, 4 * 128 * 1024)) and looped.moved == (8, 1, 1)
    assert per_device == looped
    once = 2 * 256 * 128 * 1024
    assert flops.count(loop, X, W) == 5 * once and flops.count(split, array(8 * 256, 128), W) == 8 * 5 * once


def test_a_gradient_that_is_a_kernel_of_its_own_is_seen():
    product = jax.custom_vjp(lambda x, w: multiply(x, w))

    def backward(residuals, cotangent):
        x, w = residuals
        return multiply(cotangent, w.T), multiply(x.T, cotangent)

    product.defvjp(lambda x, w: (multiply(x, w), (x, w)), backward)
    assert [k.count for k in kernels.kernels(jax.make_jaxpr(product)(X, W))] == [1]
    grad = jax.grad(lambda x, w: product(x, w).sum(), argnums=(0, 1))
    found = kernels.kernels(jax.make_jaxpr(grad)(X, W))
    assert [k.moved for k in found] == [(8, 1, 1), (1, 1, 1), (8, 1, 1)]
    assert flops.count(grad, X, W) == 3 * 2 * 256 * 128 * 1024


@pytest.mark.parametrize(
    "grid, block, index, times",
    [
        ((4, 3), (8, 128), lambda i, j: (i, 0), 1),  # the same block three times in a row
        ((3, 4), (8, 128), lambda j, i: (i, 0), 3),
        ((4,), (8, 128), lambda i: (i // 2, 0), 0.5),  # half of it is never read
        ((4,), (8, 128), lambda i: (i % 2, 0), 1),  # two blocks, each twice, not in a row
        ((3,), (12, 128), lambda i: (i, 0), 1),  # the last block is cut off at the end
        ((2, 4), (None, 128), lambda j, i: (i, 0), 0.25),
        ((5,), (pl.Element(16), pl.Element(128)), lambda i: (4 * i, 0), 2.5),  # overlapping
        ((), (32, 128), lambda: (0, 0), 1),
    ],
)
def test_blocks_are_counted_where_they_change(grid, block, index, times):
    def body(x_ref, out_ref):
        out_ref[...] = jnp.zeros_like(out_ref)

    spec, out = pl.BlockSpec(block, index), pl.BlockSpec((8, 128), lambda *ids: (0, 0))
    call = pl.pallas_call(body, grid=grid, in_specs=[spec], out_specs=out, out_shape=array(8, 128))
    assert only(call, array(32, 128)).moved == (times, 1)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_places_of_blocks_are_computed_on_this_machine():
    """Their functions were traced for a mesh of chips that are absent."""

    def body(x_ref, out_ref):
        out_ref[...] = x_ref[...]

    spec, out = pl.BlockSpec((8, 128), lambda i: (i % 2, 0)), pl.BlockSpec((8, 128), lambda i: (i, 0))
    call = pl.pallas_call(body, grid=(4,), in_specs=[spec], out_specs=out, out_shape=array(32, 128))
    tpu_compiler.prepare_backend()
    with jax.set_mesh(make_mesh(devices=tpu_compiler.devices(chips.topology("v5e:1x1")))):
        traced = jax.make_jaxpr(call)(array(32, 128))
    (found,) = kernels.kernels(traced)
    assert found.moved == (1, 1)


@pytest.mark.parametrize("space", [pl.ANY, pltpu.SMEM])
def test_an_operand_without_blocks_counts_once(space):
    def body(x_ref, out_ref):
        out_ref[...] = jnp.zeros_like(out_ref)

    out = pl.BlockSpec((8, 128), lambda i: (i, 0))
    specs = dict(in_specs=[pl.BlockSpec(memory_space=space)], out_specs=out)
    call = pl.pallas_call(body, grid=(4,), out_shape=array(32, 128), **specs)
    assert only(call, array(3, 5)).moved == (1, 1)


def test_a_batched_kernel_has_one_more_axis_of_steps():
    batched = only(jax.vmap(multiply, in_axes=(0, None)), array(3, 256, 128), W)
    assert batched.moved == (8, 3, 1) and batched.operands[0] == 3 * 4 * 256 * 128


def test_blocks_that_are_chosen_at_run_time_count_at_each_step():
    def body(order_ref, x_ref, out_ref):
        out_ref[...] = x_ref[...]

    chosen = pl.BlockSpec((8, 128), lambda i, order: (order[i], 0))
    known = pl.BlockSpec((8, 128), lambda i, order: (i // 2, 0))
    grid_spec = pltpu.PrefetchScalarGridSpec(num_scalar_prefetch=1, grid=(8,), in_specs=[chosen], out_specs=known)
    call = pl.pallas_call(body, grid_spec=grid_spec, out_shape=array(32, 128))
    assert only(call, array(8, dtype=jnp.int32), array(32, 128)).moved == (1, 2, 1)


CALL = """ENTRY %main.5 (x.1: f32[256,128], w.1: f32[128,1024]) -> f32[256,1024] {
  %x.1 = f32[256,128]{1,0:T(8,128)} parameter(0)
  %w.1 = f32[128,1024]{1,0:T(8,128)SPACE} parameter(1)
  ROOT %f.1 = f32[256,1024]{1,0:T(8,128)} custom-call(%x.1, %w.1), custom_call_target="tpu_custom_call", operand_layout_constraints={f32[256,128]{1,0}, f32[128,1024]{1,0}}, frontend_attributes={kernel_metadata={}}, metadata={op_name="jit(f)/NAME/pallas_call" stack_frame_id=12}, backend_config={"custom_call_config":{"body":"TUzv"}}
}
"""  # noqa: E501 of a program for v5e:1x1


def traffic(*fns, name="x", space=""):
    found = [k for fn in fns for k in kernels.kernels(jax.make_jaxpr(fn)(X, W))]
    return collectives.hbm_bytes(CALL.replace("NAME", name).replace("SPACE", space), found) / MIB


def test_a_call_of_a_program_moves_what_its_grid_does():
    x, w, out = 1 / 8, 1 / 2, 1
    assert traffic() == x + w + out
    assert traffic(multiply) == 8 * x + w + out
    assert traffic(multiply, space="S(1)") == 8 * x + out  # w is on the chip
    other = functools.partial(multiply, columns_first=False)
    assert traffic(multiply, other) == (8 + 1) / 2 * x + (1 + 4) / 2 * w + out  # nothing tells which
    by_name = functools.partial(multiply, name="by_column"), functools.partial(other, name="by_row")
    assert traffic(*by_name, name="by_column") == 8 * x + w + out
    assert traffic(*by_name, name="by_row") == x + 4 * w + out
    twice = kernels.kernels(jax.make_jaxpr(lambda x, w: (multiply(x, w), multiply(2 * x, w), other(x, w)))(X, W))
    assert collectives.hbm_bytes(CALL, twice) / MIB == pytest.approx((8 + 8 + 1) / 3 * x + (1 + 1 + 4) / 3 * w + out)
