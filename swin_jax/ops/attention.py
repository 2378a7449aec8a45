"""The attention core of all windowed transformers: softmax(q k + bias + mask) v inside each window.

One function with implementations by name; 'xla' is the plain one that the others are held to.
'fused' is the kernel of `ops.kernels.window_attention`, for TPUs only; 'auto' is that kernel where
it can be had, and 'xla' elsewhere.
"""

import functools
import logging
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from swin_jax.core.errors import UserError
from swin_jax.ops import batch_sharding
from swin_jax.ops.kernels import window_attention as kernel
from swin_jax.ops.normalize import inverse_length, widen
from swin_jax.ops.window_geometry import MASKED

IMPLEMENTATIONS = ("auto", "xla", "sequential", "fused")
NOT_RUN_YET = (
    "attention inside windows is a fused kernel, which was compiled for TPUs and tested in "
    "interpret mode but has not been run on a TPU yet; attention='xla' is the plain form"
)


def window_attention(
    qkv: jax.Array,
    bias: jax.Array,
    regions: jax.Array | None = None,
    windows: int = 1,
    implementation: str = "xla",
    scale: jax.Array | None = None,
) -> jax.Array:
    """Attends inside each window.

    Args:
        qkv: (B * nW, N, 3, h, d); q already scaled if there is no `scale`. Matrix products run in
            its dtype. Windows of one image are contiguous.
        bias: (S, h, N, N) float32, the relative position bias:
            S equal parts of the rows have one each.
        regions: (nW, N) int, tokens of different regions get `MASKED` added to their logits;
            None for no mask.
        windows: nW.
        implementation: 'xla' computes all windows at once; 'sequential' one window of each image
            after the other and, in the backward pass, once more, so that the logits of a single
            window are in memory (Swin V2, arXiv 2111.09883, section 3.5); 'fused' keeps logits on
            the chip; 'auto' is 'fused' or 'xla', see `choose`.
        scale: (h,) float32, factors of scaled cosine attention, see `cosine_scaled`; None for dot
            products.

    Returns:
        (B * nW, N, h, d) in the dtype of qkv. The softmax is in float32.

    Raises:
        UserError: An unknown implementation, or 'fused' where it cannot be had.
    """
    implementation = choose(implementation, qkv.shape, qkv.dtype)
    if implementation == "fused":
        return _fused(qkv, bias, regions, scale)
    if scale is not None:
        qkv = cosine_scaled(qkv, scale).astype(qkv.dtype)
    if implementation == "xla":
        return _attend(qkv, bias, regions)
    return sequential(lambda x, region: _attend(x, bias, region), qkv, regions, windows)


def choose(implementation: str, shape: tuple[int, ...], dtype: jnp.dtype) -> str:
    """The implementation that 'auto' stands for, and any other name as it is.

    Args:
        implementation: One of `IMPLEMENTATIONS`.
        shape: Shape of qkv, (B * nW, N, 3, h, d).
        dtype: Type of its matrix products.

    Raises:
        UserError: An unknown implementation, or 'fused' where it cannot be had.
    """
    if implementation not in IMPLEMENTATIONS:
        raise UserError(
            f"attention implementation {implementation!r} is not one of {IMPLEMENTATIONS}"
        )
    if implementation not in ("auto", "fused"):
        return implementation
    platform = batch_sharding.platform()
    reason = _refusal(platform, shape, dtype)
    if not reason:
        _log(logging.WARNING, NOT_RUN_YET)
        return "fused"
    if implementation == "fused":
        raise UserError(f"attention='fused': {reason}; 'auto' takes 'xla' instead")
    level = logging.WARNING if platform == "tpu" else logging.INFO
    _log(level, f"attention='auto' is 'xla' here: {reason}")
    return "xla"


def split_parts(qkv: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q, k and v, (..., h, d) each, of (..., 3, h, d).

    The gradient is one concatenation. That of three slices is a sum of three arrays of the size of
    `qkv`, mostly zeros.
    """
    q, k, v = jax.lax.split(qkv, (1, 1, 1), axis=qkv.ndim - 3)
    return q.squeeze(-3), k.squeeze(-3), v.squeeze(-3)


def cosine_scaled(qkv: jax.Array, scale: jax.Array) -> jax.Array:
    """q and k divided by their lengths, q times the factor of its head, v as it is:
    (..., 3, h, d) to the same in float32.

    Args:
        qkv: (B * nW, N, 3, h, d).
        scale: (h,) float32.
    """
    qkv = widen(qkv)
    inverse = inverse_length(qkv)
    scale = scale.reshape(1, -1, 1)
    # (1, 1, 3, h, 1)
    scale = jnp.concatenate([scale, jnp.ones_like(scale), jnp.ones_like(scale)])[None, None]
    is_value = (jnp.arange(3) == 2).reshape(1, 1, 3, 1, 1)
    return qkv * jnp.where(is_value, 1.0, inverse * scale)


def dot_product_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    is_causal: bool = False,
    implementation: str | None = None,
) -> jax.Array:
    """`jax.nn.dot_product_attention`, whose plain form is computed in float32 where
    the dtype is float16.

    On CPUs JAX has no product of float16 with sums in float32, which that form asks for.
    """
    dtype = q.dtype
    if dtype == jnp.float16 and implementation != "cudnn":
        q, k, v = map(widen, (q, k, v))
    return jax.nn.dot_product_attention(
        q, k, v, is_causal=is_causal, implementation=implementation
    ).astype(dtype)


def sequential(
    attend: Callable[[jax.Array, jax.Array | None], jax.Array],
    x: jax.Array,
    regions: jax.Array | None,
    windows: int,
) -> jax.Array:
    """Applies a function to one window of each image after the other,
    and once more in the backward pass.

    Args:
        attend: (x (B, N, ...), regions (1, N) or None) -> (B, N, ...).
        x: (B * nW, N, ...), windows of one image contiguous.
        regions: (nW, N) or None.
        windows: nW.

    Returns:
        (B * nW, N, ...).
    """
    # The batch stays whole, so that a mesh may split it:
    # windows of an image are what is looped over.
    split = jnp.moveaxis(x.reshape(-1, windows, *x.shape[1:]), 1, 0)  # (nW, B, N, ...)

    # Without the checkpoint the loop keeps every window's weights for the backward pass.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def one_window(inputs):
        x, region = inputs
        return attend(x, None if region is None else region[None])

    out = jax.lax.map(one_window, (split, None if regions is None else jnp.asarray(regions)))
    return jnp.moveaxis(out, 0, 1).reshape(x.shape[0], *out.shape[2:])


def attention_weights(
    qkv: jax.Array, bias: jax.Array, regions: jax.Array | None = None
) -> jax.Array:
    """The weights softmax(q k + bias + mask): (B * nW, h, N, N) float32;
    arguments as `window_attention`.
    """
    q, k, _ = split_parts(qkv)
    return _weights(q, k, bias, regions)


def _weights(q, k, bias, regions):
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32)
    logits = (logits.reshape(len(bias), -1, *logits.shape[1:]) + bias[:, None]).reshape(
        logits.shape
    )
    if regions is not None:
        mask = jnp.where(regions[:, :, None] == regions[:, None, :], 0.0, MASKED)  # (nW, N, N)
        split = logits.reshape(-1, len(regions), *logits.shape[1:])  # (B, nW, h, N, N)
        logits = (split + mask[None, :, None]).reshape(logits.shape)
    return jax.nn.softmax(logits, axis=-1)


def _attend(qkv, bias, regions):
    q, k, v = split_parts(qkv)
    weights = _weights(q, k, bias, regions).astype(qkv.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def _fused(qkv, bias, regions, scale):
    """Every device computes its own windows and heads: the partitioner cannot divide a kernel."""

    def attend(qkv, bias, regions, scale):
        # Heads become slices of the last axis here, where no mesh splits them any more.
        flat = qkv.reshape(*qkv.shape[:2], -1)
        parts = zip(jnp.split(flat, len(bias)), bias, strict=True)
        found = [kernel.window_attention(part, one, regions, scale) for part, one in parts]
        return jnp.concatenate(found).reshape(*qkv.shape[:2], *qkv.shape[3:])

    axes = batch_sharding.rows_and_heads(*bias.shape[:2])
    if axes is None:
        return attend(qkv, bias, regions, scale)
    rows, heads = axes
    specs = P(rows, None, None, heads), P(rows, heads), P(), P(heads)
    out = P(rows, None, heads)
    mapped = jax.shard_map(attend, in_specs=specs, out_specs=out, check_vma=False)
    return mapped(qkv, bias, regions, scale)


def _refusal(platform, shape, dtype):
    """The reason for which the kernel cannot be had, or ''."""
    if platform != "tpu":
        return f"the fused kernel is for TPUs, and this program is for a {platform.upper()}"
    try:
        kernel.check(shape, dtype)
    except UserError as error:
        return str(error)
    return ""


@functools.cache
def _log(level, message):
    """Logs a message once, however many blocks are traced."""
    logging.getLogger(__name__).log(level, message)
