"""Ranger: RAdam with Lookahead and centralized gradients, as StyleCLIP trains its mappers.

RAdam (arXiv 1908.03265), Lookahead (1907.08610), gradient centralization (2004.01461). The
reference is mapper/training/ranger.py of orpatashnik/StyleCLIP, which differs from optax in three
ways: epsilon is added to the root of the second moment before its bias is corrected, gradients are
centralized for each output of a kernel, and the slow weights are held beside the parameters.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from swin_jax.core.ranges import Fraction, PositiveFloat, PositiveInt, Rate, checked
from swin_jax.optim.optimizers import float32_zeros, one_minus_power

_LONGEST = 5.0  # of the length of the moving average, below which its variance is not known


class RangerState(NamedTuple):
    count: jax.Array  # () int32, updates done
    mu: Any
    nu: Any
    slow: Any
    grad_norm: jax.Array  # () float32
    learning_rate: jax.Array  # () float32


@checked
def ranger(
    learning_rate: PositiveFloat = 0.5,
    b1: Rate = 0.95,
    b2: Rate = 0.999,
    eps: PositiveFloat = 1e-5,
    slow_step: Fraction = 0.5,
    slow_every: PositiveInt = 6,
) -> optax.GradientTransformation:
    """Ranger at a constant rate.

    Args:
        learning_rate: 0.5 suits parameters that are stored with a deviation of 100,
            as those of StyleGAN2's mapping.
        b1, b2, eps: Constants of Adam; both moments are float32.
        slow_step: Share of the way from slow weights to the parameters in one move; the parameters
            are then set to them.
        slow_every: Updates between two of these moves.

    Returns:
        The transformation; `update` needs `params`. Its state holds `grad_norm`, before
        centralization, and `learning_rate`.
    """

    def init(params):
        scalar = jnp.zeros((), jnp.float32)
        slow = jax.tree.map(jnp.copy, params)
        moments = float32_zeros(params), float32_zeros(params)
        return RangerState(jnp.zeros((), jnp.int32), *moments, slow, scalar, scalar)

    def update(updates, state, params):
        gradients = jax.tree.map(lambda g: g.astype(jnp.float32), updates)
        norm = optax.tree.norm(gradients)
        gradients = jax.tree.map(centralize, gradients)
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, gradients)
        factor, is_adaptive = multiplier(count, b1, b2)

        def move(p, m, v):
            direction = jnp.where(is_adaptive, m / (jnp.sqrt(v) + eps), m)
            return p - learning_rate * factor * direction

        fast = jax.tree.map(move, params, mu, nu)
        due = count % slow_every == 0
        slow = jax.tree.map(
            lambda s, p: jnp.where(due, s + slow_step * (p - s), s), state.slow, fast
        )
        changes = jax.tree.map(lambda p, f, s: jnp.where(due, s, f) - p, params, fast, slow)
        return changes, RangerState(count, mu, nu, slow, norm, jnp.float32(learning_rate))

    return optax.GradientTransformation(init, update)


def centralize(gradient: jax.Array) -> jax.Array:
    """The gradient of a kernel (..., in, out) without its mean for each output;
    vectors stay as they are.
    """
    if gradient.ndim < 2:
        return gradient
    return gradient - gradient.mean(axis=tuple(range(gradient.ndim - 1)), keepdims=True)


def multiplier(count: jax.Array, b1: float, b2: float) -> tuple[jax.Array, jax.Array]:
    """The factor of an update, and whether the update divides by the root of the second moment.

    Args:
        count: Number of the update, from 1 on.
        b1, b2: Constants of Adam.
    """
    largest = 2 / (1 - b2) - 1
    length = _length(count.astype(jnp.float32), b2)
    is_adaptive = length > _LONGEST
    safe = jnp.where(is_adaptive, length, _LONGEST)
    variance = (safe - 4) / (largest - 4) * (safe - 2) / safe * largest / (largest - 2)
    rectified = jnp.sqrt(one_minus_power(b2, count) * variance)
    return jnp.where(is_adaptive, rectified, 1.0) / one_minus_power(b1, count), is_adaptive


def _length(count: jax.Array, b2: float) -> jax.Array:
    """2 / (1 - b2) - 1 - 2 t b2^t / (1 - b2^t), without the difference of two numbers near 2000.

    With a = -log(b2) and x = a t, t b2^t / (1 - b2^t) is x / (e^x - 1) / a; what is left of 1 after
    that fraction is a series for small x.
    """
    rate = -math.log(b2)
    x = rate * count
    near = x / 2 - x**2 / 12 + x**4 / 720 - x**6 / 30240
    far = 1 - x / jnp.expm1(jnp.maximum(x, 0.1))
    return (2 / (1 - b2) - 1 - 2 / rate) + 2 / rate * jnp.where(x < 0.5, near, far)
