"""Optimizers, weight-decay masks, layer-wise learning rates and freezing.

The references are `torch.optim.AdamW` / `SGD` and `torch.nn.utils.clip_grad_norm_` as the official
training scripts use them. Every choice that depends on a parameter is a function of its official
name (`layers.0.blocks.1.norm1.weight`, see `swin_jax.core.params`), given as regexes that
`re.search` applies. Learning rates over time are in `swin_jax.optim.schedules`.
"""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.core.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    RangeError,
    Rate,
    check_pattern,
    checked,
    shown,
)
from swin_jax.core.stacking import multipliers, official_names


@checked
def adamw(
    schedule: Callable,
    no_decay: tuple[str, ...],
    b1: Rate = 0.9,
    b2: Rate = 0.999,
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.05,
    clip_norm: NonNegativeFloat = 5.0,
    freeze: str = "",
    layer_scale: Callable | None = None,
) -> optax.GradientTransformation:
    """AdamW as in PyTorch: p -= lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay * p),
    after clipping.

    The state holds two scalars for the log, which `optax.tree_utils.tree_get(opt_state,
    name)` finds: `grad_norm`, the global norm before clipping, and `learning_rate`, the one
    that the last update used.

    Args:
        schedule: Step -> learning rate; called as `schedule(step,
            scale=...)` where `layer_scale` is given.
        no_decay: Regexes on official names of parameters that are not decayed, such as
            `models.swin.rules.NO_DECAY`.
        b1, b2, eps: Constants of Adam; both moments are float32.
        weight_decay: Decoupled weight decay, multiplied by the learning rate.
        clip_norm: Largest global gradient norm; 0 doesn't clip.
        freeze: Regex on official names of parameters that are not trained: no update, no decay, no
            moments, no part in the norm. Running statistics of a BatchNorm whose parameters are
            all frozen, and averages of frozen parameters, keep their bits too; dropout and drop
            path still act there.
        layer_scale: Official name -> factor on the base learning rate, such as
            `models.swin.layer_decay` gives; 0 leaves a parameter as it is.

    Returns:
        The transformation; `update` needs `params`. Its `init` raises UserError if `freeze` matches
        no parameter or all of them.
    """
    _check_patterns("no_decay", no_decay)
    rule = optax.chain(scale_by_adam(b1, b2, eps), _decay(weight_decay, no_decay))
    return _optimizer(rule, schedule, clip_norm, freeze, layer_scale)


@checked
def sgd(
    schedule: Callable,
    no_decay: tuple[str, ...],
    momentum: Rate = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegativeFloat = 0.0,
    clip_norm: NonNegativeFloat = 0.0,
    freeze: str = "",
    layer_scale: Callable | None = None,
) -> optax.GradientTransformation:
    """SGD with momentum as in PyTorch: weight decay is part of the gradient
    that enters the momentum.

    Args:
        momentum: 0 keeps no buffer.
        nesterov: Nesterov's form; without effect where `momentum` is 0.
        schedule, no_decay, weight_decay, clip_norm, freeze, layer_scale:
            as in `adamw`, as is the state.

    Returns:
        The transformation, as `adamw`.
    """
    _check_patterns("no_decay", no_decay)
    velocity = optax.trace(momentum, nesterov) if momentum else optax.identity()
    rule = optax.chain(_decay(weight_decay, no_decay), velocity)
    return _optimizer(rule, schedule, clip_norm, freeze, layer_scale)


@checked
def lazy_adam(
    schedule: Callable,
    b1: Rate = 0.0,
    b2: Rate = 0.99,
    eps: PositiveFloat = 1e-8,
    regularize_every: NonNegativeInt = 0,
    freeze: str = "",
) -> optax.GradientTransformation:
    """Adam for a loss whose regularizer has an update of its own every few steps.

    Between two steps of the loss there are then more updates than one, so that the rate and the
    moments are those of the share c = k / (k + 1): c times the rate, b1^c, b2^c (Karras et al.,
    arXiv 1912.04958, appendix B).

    Args:
        schedule: Step of the loss -> learning rate, as if there were no regularizer; called as
            `schedule(step, scale=c)`.
        b1, b2, eps: Constants of Adam, as if there were no regularizer.
        regularize_every: Steps of the loss for one of the regularizer, k;
            0 if it has no update of its own.
        freeze: The same as in `adamw`, as is the state.

    Returns:
        The transformation, as `adamw`.
    """
    share = regularize_every / (regularize_every + 1) if regularize_every else 1.0
    _check_functions(schedule, None)

    def rate(update):
        return schedule(jnp.floor(update * share), scale=share)

    return _optimizer(scale_by_adam(b1**share, b2**share, eps), rate, 0.0, freeze, None)


@checked
def scale_by_name(rules: tuple[tuple[str, NonNegativeFloat], ...]) -> Callable:
    """Factors on the learning rate by regexes.

    Args:
        rules: (regex, factor); the first one that matches an official name counts,
            1 where none does.

    Returns:
        A function of official names, for `layer_scale`.
    """
    for pattern, _ in rules:
        check_pattern("rules", rules, pattern)

    def factor(name):
        return next((value for pattern, value in rules if re.search(pattern, name)), 1.0)

    return factor


# ---- their parts ----


class ClipState(NamedTuple):
    grad_norm: jax.Array  # () float32, before clipping


class LearningRateState(NamedTuple):
    count: jax.Array  # () int32, updates done
    learning_rate: jax.Array  # () float32, of the last update


def clip_by_norm(clip_norm: float) -> optax.GradientTransformation:
    """Casts gradients to float32, keeps their global norm and, unless `clip_norm` is 0,
    clips as PyTorch does.
    """

    def init(params):
        del params
        return ClipState(jnp.zeros((), jnp.float32))

    def update(updates, state, params=None):
        del state, params
        updates = jax.tree.map(lambda g: g.astype(jnp.float32), updates)
        norm = optax.tree.norm(updates)
        if clip_norm:
            factor = jnp.minimum(1.0, clip_norm / (norm + 1e-6))
            updates = jax.tree.map(lambda g: g * factor, updates)
        return updates, ClipState(norm)

    return optax.GradientTransformation(init, update)


def float32_zeros(params: Any) -> Any:
    """A tree of zeros in float32, of the shapes of the parameters."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=jnp.float32), params)


def scale_by_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam's direction with float32 moments and exact bias correction.

    optax 0.2.8 computes 1 - b2**count in float32,
    which at the first update is off by 5e-5 for b2 = 0.999.
    """

    def init(params):
        count = jnp.zeros((), jnp.int32)
        return optax.ScaleByAdamState(count, float32_zeros(params), float32_zeros(params))

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, updates)
        correct1, correct2 = one_minus_power(b1, count), one_minus_power(b2, count)
        updates = jax.tree.map(lambda m, v: (m / correct1) / (jnp.sqrt(v / correct2) + eps), mu, nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def one_minus_power(base, count):
    """1 - base**count to float32 precision, for 0 <= base < 1."""
    return -jnp.expm1(count * math.log(base)) if base else jnp.float32(1.0)


def _decay(weight_decay, no_decay):
    """Adds weight_decay * p to the updates of parameters that no regex of `no_decay` matches."""

    def factor(name):
        return 0.0 if any(re.search(pattern, name) for pattern in no_decay) else weight_decay

    def init(params):
        del params
        return optax.EmptyState()

    def update(updates, state, params):
        def add(u, p, f):
            return u if np.all(f == 0) else u + f * p

        return jax.tree.map(add, updates, params, multipliers(factor, params)), state

    return optax.GradientTransformation(init, update)


def _check_patterns(name, given):
    """Raises RangeError for anything but a tuple of regular expressions;
    a str would be one of letters.
    """
    if not isinstance(given, (tuple, list)) or not all(
        isinstance(pattern, str) for pattern in given
    ):
        one = f", ({given!r},) for one" if isinstance(given, str) else ""
        raise RangeError(name, f"={shown(given)}: it must be a tuple of regular expressions{one}")
    for pattern in given:
        check_pattern(name, given, pattern)


def _check_functions(schedule, layer_scale):
    if not callable(schedule):
        advice = f"a function of the step, such as schedules.constant({shown(schedule)})"
        raise RangeError("schedule", f"={shown(schedule)}: it must be {advice}")
    if layer_scale is not None and not callable(layer_scale):
        advice = "a function of names, such as scale_by_name gives"
        raise RangeError("layer_scale", f"={shown(layer_scale)}: it must be {advice}")


def _scale_by_learning_rate(schedule, layer_scale):
    """Multiplies by minus the learning rate, of the layer where `layer_scale` is given,
    and keeps it in the state.
    """

    def init(params):
        del params
        return LearningRateState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32))

    def update(updates, state, params=None):
        del params
        learning_rate = jnp.asarray(schedule(state.count), jnp.float32)
        if layer_scale is None:
            updates = jax.tree.map(lambda u: -learning_rate * u, updates)
        else:
            factors = multipliers(layer_scale, updates)

            # A schedule adds its final rate to the scaled one,
            # and -0.0 + 0.0 has other bits than -0.0.
            def rate(f):
                return jnp.where(f == 0, 0.0, schedule(state.count, scale=f))

            updates = jax.tree.map(
                lambda u, f: jnp.where(f == 0, -0.0, -rate(f) * u), updates, factors
            )
        return updates, LearningRateState(optax.safe_increment(state.count), learning_rate)

    return optax.GradientTransformation(init, update)


def _optimizer(rule, schedule, clip_norm, freeze, layer_scale):
    """Clipping, the optimizer's rule and the learning rate,
    on the parameters that `freeze` doesn't match.
    """
    _check_functions(schedule, layer_scale)
    tx = optax.chain(clip_by_norm(clip_norm), rule, _scale_by_learning_rate(schedule, layer_scale))
    if not freeze:
        return _saying(tx, (lambda name: layer_scale(name) == 0) if layer_scale else None)

    if not isinstance(freeze, str):
        raise RangeError(
            "freeze", f"={shown(freeze)}: it must be a regular expression, '' for none"
        )
    try:
        re.compile(freeze)
    except re.error as error:
        raise UserError(f"freeze={freeze!r} is not a regular expression: {error}") from error

    def trained(name):
        return 0.0 if re.search(freeze, name) else 1.0

    def labels(params):
        tree = jax.tree.map(
            lambda f: "trained" if np.any(f) else "frozen", multipliers(trained, params)
        )
        found = set(jax.tree.leaves(tree))
        partly = any(np.ndim(f) for f in jax.tree.leaves(multipliers(trained, params)))
        if len(found) < 2 and not partly:
            names = [
                name
                for path, leaf in flatten(params).items()
                for name in official_names(path, leaf)
            ]
            what = "every parameter" if "frozen" in found else "no parameter"
            raise UserError(
                f"freeze='{freeze}' matches {what}; names are such as {', '.join(_sample(names))}"
            )
        return tree

    def hold(updates):
        """Zeroes the frozen blocks of a stacked leaf that others of are trained."""

        # -0.0 added to a number leaves its bits; a gradient that is not finite
        # counts for nothing here.
        def keep(u, f):
            return u if np.ndim(f) == 0 else jnp.where(f == 0, -0.0, u)

        return jax.tree.map(keep, updates, multipliers(trained, updates))

    parts = optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)

    def update(updates, state, params=None):
        updates, state = parts.update(hold(updates), state, params)
        return hold(updates), state

    def frozen(name):
        return not trained(name) or bool(layer_scale and layer_scale(name) == 0)

    return _saying(optax.GradientTransformation(parts.init, update), frozen)


def _saying(tx, freezes):
    """The same transformation, whose `update` says as `update.freezes(official name)` what it
    leaves as it is.
    """

    def update(updates, state, params=None):
        return tx.update(updates, state, params)

    update.freezes = freezes or (lambda name: False)
    return optax.GradientTransformation(tx.init, update)


def _sample(names, count=6):
    """Up to `count` names, evenly spread over the list."""
    return names[:: max(len(names) // count, 1)][:count]
