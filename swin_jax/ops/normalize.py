"""Vectors of length 1, in every dtype that a model computes in, forward and backward,
zeros included.

The reference is `torch.nn.functional.normalize`, x / max(|x|, 1e-12). That limit is 0 in float16,
and its gradient for zeros, 1e12, is not finite there; with zeros that a map is padded with, that
makes NaN. Here zeros stay zeros and have no gradient.
"""

import jax
import jax.numpy as jnp

_LEAST = 1e-24  # square of the least length


def unit(x: jax.Array) -> jax.Array:
    """Vectors of length 1 along the last axis: (..., E) of any float -> float32;
    zeros stay zeros.
    """
    x = widen(x)
    return x * inverse_length(x)


def inverse_length(x: jax.Array) -> jax.Array:
    """1 / max(|x|, 1e-12) along the last axis, (..., E) float32 -> (..., 1);
    0 for zeros, without a gradient.
    """
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    some = square > 0
    return jnp.where(some, jax.lax.rsqrt(jnp.maximum(jnp.where(some, square, 1.0), _LEAST)), 0.0)


def unit_power(x: jax.Array, axis: int = -1) -> jax.Array:
    """Scales to a mean square of 1 along an axis: any float -> float32;
    zeros stay zeros (StyleGAN2's latents).
    """
    x = widen(x)
    return x * inverse_deviation(jnp.mean(x * x, axis=axis, keepdims=True))


def inverse_deviation(power: jax.Array) -> jax.Array:
    """1 / sqrt(power + 1e-8), in float32: 1e-8 is 0 in float16."""
    return jax.lax.rsqrt(widen(power) + 1e-8)


def widen(x: jax.Array) -> jax.Array:
    """Casts to float32; the gradient is cut to what the dtype of `x` holds,
    before it is cast back.
    """
    return x if x.dtype == jnp.float32 else _widen(x)


@jax.custom_vjp
def _widen(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32)


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _widen(x), jnp.zeros((), x.dtype)  # which carries the dtype to the backward pass


def _backward(like: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    largest = float(jnp.finfo(like.dtype).max)
    return (jnp.clip(cotangent, -largest, largest).astype(like.dtype),)


_widen.defvjp(_forward, _backward)
