"""Fused attention inside windows for TPUs: logits and weights never leave the chip.

The reference is `ops.attention`. Operand and result are flat, with the heads as slices of the
last axis: with heads as an axis of their own a TPU pads every head to 128 lanes, and XLA copies
q, k and v into that layout first. The backward pass computes the weights again, as
FlashAttention does (arXiv 2205.14135), but whole rows of them at a time: a window has few keys.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from swin_jax.core.errors import UserError
from swin_jax.ops.kernels import steps, tiling
from swin_jax.ops.kernels.blocks import Call

DTYPES = ("float32", "bfloat16")


def window_attention(
    qkv: jax.Array,
    bias: jax.Array,
    regions: jax.Array | None = None,
    scale: jax.Array | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Attends inside each window, on a TPU.

    Args:
        qkv: (B * nW, N, 3 * C), float32 or bfloat16: q, k and v, each with its h heads of d
            channels beside each other. Windows of one image are contiguous. Without `scale`, q is
            already scaled.
        bias: (h, N, N) float32, added to the logits.
        regions: (nW, N) int, tokens of different regions get `MASKED` added to their logits;
            None for no mask.
        scale: (h,) float32, the factors of scaled cosine attention (arXiv 2111.09883): q and k
            are divided by their lengths, q is multiplied by the factor of its head. None for dot
            products.
        interpret: True to run the kernel without a TPU, slowly, as JAX operations.

    Returns:
        (B * nW, N, C) in the dtype of qkv. Logits, softmax and sums are in float32.

    Raises:
        UserError: A dtype, or a shape, that the kernel cannot do.
    """
    (rows, tokens, channels), heads = qkv.shape, len(bias)
    if channels % (3 * heads):
        raise UserError(f"{channels} channels are not q, k and v of {heads} heads")
    check((rows, tokens, 3, heads, channels // (3 * heads)), qkv.dtype)
    if regions is not None:
        if rows % len(regions):
            raise UserError(f"{len(regions)} windows per image do not divide {rows} windows")
        regions = jnp.asarray(regions, jnp.float32)[:, None]  # (nW, 1, N)
    scale = None if scale is None else scale.astype(jnp.float32)
    return _attention(qkv, bias.astype(jnp.float32), regions, scale, interpret)


def check(shape: tuple[int, int, int, int, int], dtype: jnp.dtype) -> None:
    """Raises UserError if the kernel cannot do q, k and v of this shape, (B * nW, N, 3, h, d), and
    dtype.
    """
    dtype = jnp.dtype(dtype)
    if dtype.name not in DTYPES:
        raise UserError(f"fused attention computes in {' or '.join(DTYPES)}, not in {dtype.name}")
    rows, tokens, _, heads, size = shape
    problem = tiling.Problem(rows, tokens, heads, size, dtype.itemsize)
    tiling.forward_tiling(problem)
    tiling.backward_tiling(problem)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attention(qkv, bias, regions, scale, interpret):
    problem = _problem(qkv, bias, regions)
    call = Call(problem, tiling.forward_tiling(problem), scale is not None)
    inputs, specs = call.inputs(qkv, bias, regions, scale)
    return pl.pallas_call(
        functools.partial(steps.forward, call),
        grid=call.grid,
        in_specs=specs,
        out_specs=call.heads_spec(call.blocks.queries),
        out_shape=_result(qkv),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 4),
        interpret=interpret,
        name="window_attention",
    )(*inputs)


def _forward(qkv, bias, regions, scale, interpret):
    return _attention(qkv, bias, regions, scale, interpret), (qkv, bias, regions, scale)


def _backward(interpret, held, gradient):
    qkv, bias, regions, scale = held
    problem = _problem(qkv, bias, regions)
    blocks, by_keys = tiling.backward_tiling(problem)
    call = Call(problem, blocks, scale is not None)
    inputs, specs = call.inputs(qkv, bias, regions, scale)
    flat, queries = _result(qkv), call.heads_spec(blocks.queries)
    if call.one_view:
        shapes = [jax.ShapeDtypeStruct(qkv.shape, qkv.dtype)]
        out_specs = [call.tokens_spec(problem.tokens, qkv.shape[-1])]
    elif by_keys:
        statistics, spec = call.statistics()
        shapes, out_specs = [flat, statistics], [queries, spec]
    else:
        shapes, out_specs = [flat] * 3, [queries] * 3
    sums, sum_specs = call.sums()
    *parts, of_bias, of_scale = pl.pallas_call(
        functools.partial(steps.backward, call),
        grid=call.grid,
        in_specs=[*specs, queries],
        out_specs=[*out_specs, *sum_specs],
        out_shape=[*shapes, *sums],
        # Steps over windows add to the same block of the bias's gradient.
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")
        ),
        interpret=interpret,
        name="window_attention_backward",
    )(*inputs, gradient)
    if by_keys:
        call = Call(problem, by_keys, scale is not None)
        parts = [parts[0], *_key_gradients(call, held, parts[1], gradient, interpret)]
    of_qkv = parts[0] if len(parts) == 1 else jnp.concatenate(parts, -1)
    if scale is not None:
        scale = of_scale.sum((0, 2)).reshape(scale.shape)
    return of_qkv, of_bias.sum(0), None, scale


def _key_gradients(call, held, statistics, gradient, interpret):
    """The gradients of keys and values, (B * nW, N, C) each."""
    inputs, specs = call.inputs(*held)
    tokens, keys = call.problem.tokens, call.heads_spec(call.blocks.keys)
    return pl.pallas_call(
        functools.partial(steps.backward_by_keys, call),
        grid=call.grid,
        in_specs=[*specs, call.statistics()[1], call.heads_spec(tokens)],
        out_specs=[keys] * 2,
        out_shape=[_result(held[0])] * 2,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 4),
        interpret=interpret,
        name="window_attention_backward_by_keys",
    )(*inputs, statistics, gradient)


_attention.defvjp(_forward, _backward)


def _problem(qkv, bias, regions):
    (rows, tokens, channels), heads = qkv.shape, len(bias)
    return tiling.Problem(
        rows=rows,
        tokens=tokens,
        heads=heads,
        size=channels // (3 * heads),
        itemsize=qkv.dtype.itemsize,
        regions=0 if regions is None else len(regions),
    )


def _result(qkv):
    rows, tokens, channels = qkv.shape
    return jax.ShapeDtypeStruct((rows, tokens, channels // 3), qkv.dtype)
