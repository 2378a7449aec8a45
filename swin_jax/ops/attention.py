"""The attention core of all windowed transformers: softmax(q k + bias + mask) v inside each window.

One function with implementations by name; 'xla' is the plain one that the others are held to.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.ops.normalize import widen
from swin_jax.ops.window_geometry import MASKED

IMPLEMENTATIONS = ("xla", "sequential")


def window_attention(
    qkv: jax.Array,
    bias: jax.Array,
    regions: jax.Array | None = None,
    windows: int = 1,
    implementation: str = "xla",
) -> jax.Array:
    """Attends inside each window.

    Args:
        qkv: (B * nW, N, 3, h, d); q already scaled. Matrix products run in its dtype. Windows of
            one image are contiguous.
        bias: (S, h, N, N) float32, the relative position bias:
            S equal parts of the rows have one each.
        regions: (nW, N) int, tokens of different regions get `MASKED` added to their logits;
            None for no mask.
        windows: nW.
        implementation: 'xla' computes all windows at once; 'sequential' one window of each image
            after the other and, in the backward pass, once more, so that the logits of a single
            window are in memory (Swin V2, arXiv 2111.09883, section 3.5).

    Returns:
        (B * nW, N, h, d) in the dtype of qkv. The softmax is in float32.

    Raises:
        UserError: An unknown implementation.
    """
    if implementation not in IMPLEMENTATIONS:
        raise UserError(
            f"attention implementation {implementation!r} is not one of {IMPLEMENTATIONS}"
        )
    if implementation == "xla":
        return _attend(qkv, bias, regions)
    return sequential(lambda x, region: _attend(x, bias, region), qkv, regions, windows)


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
    logits = jnp.einsum(
        "bqhd,bkhd->bhqk", qkv[:, :, 0], qkv[:, :, 1], preferred_element_type=jnp.float32
    )
    logits = (logits.reshape(len(bias), -1, *logits.shape[1:]) + bias[:, None]).reshape(
        logits.shape
    )
    if regions is not None:
        mask = jnp.where(regions[:, :, None] == regions[:, None, :], 0.0, MASKED)  # (nW, N, N)
        split = logits.reshape(-1, len(regions), *logits.shape[1:])  # (B, nW, h, N, N)
        logits = (split + mask[None, :, None]).reshape(logits.shape)
    return jax.nn.softmax(logits, axis=-1)


def _attend(qkv, bias, regions):
    weights = attention_weights(qkv, bias, regions).astype(qkv.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, qkv[:, :, 2])
