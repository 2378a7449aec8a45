"""The attention core of all windowed transformers: softmax(q k + bias + mask) v inside each window.

One function with implementations by name; 'xla' is the plain one that the others are held to.
"""

import jax
import jax.numpy as jnp


def window_attention(qkv: jax.Array, bias: jax.Array, mask: jax.Array | None = None, implementation: str = "xla"):
    """Attends inside each window.

    Args:
        qkv: (B * nW, N, 3, h, d); q already scaled. Matrix products run in its dtype.
        bias: (h, N, N) float32, the relative position bias.
        mask: (nW, N, N) float32 added to the logits, or None. Windows of one image are contiguous.
        implementation: 'xla'.

    Returns:
        (B * nW, N, h, d) in the dtype of qkv. The softmax is in float32.

    Raises:
        ValueError: an unknown implementation.
    """
    if implementation != "xla":
        raise ValueError(f"attention implementation {implementation!r} is none of 'xla'")
    q, k, v = (qkv[:, :, i] for i in range(3))
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32)
    logits = logits + bias[None]
    if mask is not None:
        windows, tokens = mask.shape[:2]
        split = logits.reshape(-1, windows, *logits.shape[1:])  # (B, nW, h, N, N)
        logits = (split + mask[None, :, None]).reshape(logits.shape[0], -1, tokens, tokens)
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)
