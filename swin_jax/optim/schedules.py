"""Learning rates as functions of the update.

The references are timm's schedulers as the official Swin and SimMIM training scripts use them, and
mmcv's as those of Video Swin do. A schedule is a function `schedule(step, scale=1.0) ->
learning rate`, float32 scalar: `step` counts updates from 0 and `scale` multiplies the base
rate only. With layer-wise decay the layers so share the warm-up and the final rate, as in the
official fine-tuning of SimMIM.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp

from swin_jax.core.ranges import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt, checked


@checked
def constant(base_lr: NonNegativeFloat) -> Callable:
    """A learning rate that never changes; returns `schedule(step, scale=1.0)`."""

    def schedule(step, scale=1.0):
        del step
        return jnp.float32(base_lr * scale)

    return schedule


@checked
def warmup_cosine(
    base_lr: NonNegativeFloat,
    total_steps: NonNegativeInt,
    warmup_steps: NonNegativeInt = 0,
    warmup_lr: NonNegativeFloat = 0.0,
    min_lr: NonNegativeFloat = 0.0,
    warmup_prefix: bool = True,
    delay: NonNegativeInt = 1,
) -> Callable:
    """Linear warm-up, then a half cosine down to `min_lr`.

    Args:
        base_lr: The peak, already scaled to the batch size (as are the two below).
        total_steps: Updates in the run, warm-up included; the rate is `min_lr` from there on.
        warmup_steps: Updates from `warmup_lr` up to `base_lr`; may be 0.
        warmup_lr: Rate at the start of the warm-up.
        min_lr: Rate at the end of the cosine.
        warmup_prefix: True: the cosine spans the updates after the warm-up. False: it spans the
            whole run and the warm-up hides its start, so that the rate drops at the join: the form
            before October 2022, which made the released Swin v1 weights and SimMIM's.
        delay: 1: the official scripts set the rate of index k after update k, so that update k uses
            f(max(k - 1, 0)); 0: update k uses f(k).

    Returns:
        `schedule(step, scale=1.0)`.
    """
    start = warmup_steps if warmup_prefix else 0

    def after(t, peak):
        progress = jnp.clip((t - start) / max(total_steps - start, 1), 0.0, 1.0)
        return min_lr + 0.5 * (peak - min_lr) * (1.0 + jnp.cos(math.pi * progress))

    return _with_warmup(after, base_lr, warmup_steps, warmup_lr, delay)


@checked
def warmup_linear(
    base_lr: NonNegativeFloat,
    total_steps: NonNegativeInt,
    warmup_steps: NonNegativeInt = 0,
    warmup_lr: NonNegativeFloat = 0.0,
    min_lr: NonNegativeFloat = 0.0,
    delay: NonNegativeInt = 1,
) -> Callable:
    """Linear warm-up, then a straight line down to `min_lr` at `total_steps`;
    arguments as in `warmup_cosine`.
    """

    def after(t, peak):
        progress = jnp.clip((t - warmup_steps) / max(total_steps - warmup_steps, 1), 0.0, 1.0)
        return peak + (min_lr - peak) * progress

    return _with_warmup(after, base_lr, warmup_steps, warmup_lr, delay)


@checked
def warmup_multistep(
    base_lr: NonNegativeFloat,
    milestones: NonNegativeInt | tuple[NonNegativeInt, ...],
    gamma: Fraction = 0.1,
    warmup_steps: NonNegativeInt = 0,
    warmup_lr: NonNegativeFloat = 0.0,
    delay: NonNegativeInt = 1,
) -> Callable:
    """Linear warm-up, then `base_lr` times `gamma` for every milestone reached.

    Args:
        milestones: Updates, counted from the start of the run, at which the rate falls;
            an int is the only one.
        gamma: The factor at each of them.
        base_lr, warmup_steps, warmup_lr, delay: The same as in `warmup_cosine`.

    Returns:
        `schedule(step, scale=1.0)`.
    """

    milestones = (milestones,) if isinstance(milestones, int) else milestones

    def after(t, peak):
        for milestone in milestones:
            peak = peak * jnp.where(t >= milestone, gamma, 1.0)
        return peak

    return _with_warmup(after, base_lr, warmup_steps, warmup_lr, delay)


def _with_warmup(after, base_lr, warmup_steps, warmup_lr, delay):
    """The schedule that rises linearly for `warmup_steps` and is `after(t, peak)` from there on."""

    def schedule(step, scale=1.0):
        t = jnp.maximum(jnp.asarray(step) - delay, 0).astype(jnp.float32)
        peak = base_lr * scale
        rising = warmup_lr + (peak - warmup_lr) * t / max(warmup_steps, 1)
        return jnp.where(t < warmup_steps, rising, after(t, peak)).astype(jnp.float32)

    return schedule


@checked
def warmup_poly(
    base_lr: NonNegativeFloat,
    total_steps: NonNegativeInt,
    power: NonNegativeFloat = 1.0,
    min_lr: NonNegativeFloat = 0.0,
    warmup_steps: NonNegativeInt = 0,
    warmup_ratio: Fraction = 1e-6,
) -> Callable:
    """A power of the share of the run that is left, under a linear warm-up (mmcv 1.3's poly).

    The warm-up multiplies the falling rate, so that it never reaches `base_lr`.

    Args:
        base_lr: Rate of the first update, if there were no warm-up; each `scale` multiplies it.
        total_steps: Updates in the run; the rate is `min_lr` from there on.
        power: Exponent of the share that is left; 1 falls along a straight line.
        min_lr: Rate at the end.
        warmup_steps: Length of the warm-up; 0 for none.
        warmup_ratio: Factor at the first update.

    Returns:
        `schedule(step, scale=1.0)`.
    """

    def schedule(step, scale=1.0):
        step = jnp.asarray(step).astype(jnp.float32)
        left = jnp.clip(1.0 - step / max(total_steps, 1), 0.0)
        rate = min_lr + (base_lr * scale - min_lr) * left**power
        done = jnp.minimum(step / warmup_steps, 1.0) if warmup_steps else 1.0
        return (rate * (warmup_ratio + (1.0 - warmup_ratio) * done)).astype(jnp.float32)

    return schedule


@checked
def epoch_cosine(
    base_lr: NonNegativeFloat,
    epochs: PositiveInt,
    steps_per_epoch: PositiveInt,
    warmup_epochs: NonNegativeFloat = 2.5,
    warmup_ratio: Fraction = 0.1,
    accumulate: PositiveInt = 1,
) -> Callable:
    """A half cosine that falls once an epoch and never reaches 0,
    under a linear warm-up (mmcv 1.3's CosineAnnealing).

    The warm-up multiplies the epoch's rate by a factor that grows from `warmup_ratio` to 1, counted
    in micro-batches: an update uses the rate of its last one. Where the warm-up ends inside a
    micro-batch, the rest of that epoch keeps the rate of the last whole one.

    Args:
        base_lr: The peak; each `scale` multiplies everything.
        epochs: The cosine would be 0 at this epoch.
        steps_per_epoch: Updates in an epoch.
        warmup_epochs: Length of the warm-up in epochs; 0 for none.
        warmup_ratio: Rate at the start of the warm-up, as a share of the peak.
        accumulate: Micro-batches per update.

    Returns:
        `schedule(step, scale=1.0)`.
    """
    length = steps_per_epoch * accumulate
    end = warmup_epochs * length

    def schedule(step, scale=1.0):
        done = (jnp.asarray(step, jnp.int32) + 1) * accumulate - 1
        epoch = done // length
        rate = (
            base_lr * scale * 0.5 * (1.0 + jnp.cos(math.pi * jnp.minimum(epoch, epochs) / epochs))
        )
        rising = warmup_ratio + (1.0 - warmup_ratio) * jnp.minimum(done, math.floor(end)) / max(
            end, 1.0
        )
        # An epoch that begins where the warm-up ends is the first without it.
        return (rate * jnp.where(epoch * length >= end, 1.0, rising)).astype(jnp.float32)

    return schedule


@checked
def ramps(
    base_lr: NonNegativeFloat,
    total_steps: PositiveInt,
    rampup: Fraction = 0.05,
    rampdown: Fraction = 0.25,
) -> Callable:
    """A rate that rises linearly from 0 at the first update and falls along a cosine at the end.

    It is that of StyleCLIP's latent optimization, and of StyleGAN2's projector before it.

    Args:
        base_lr: The rate between both ramps; each `scale` multiplies everything.
        total_steps: Updates in the run; after them the rate would be 0.
        rampup, rampdown: Lengths of the ramps as shares of the run; 0 for none.

    Returns:
        `schedule(step, scale=1.0)`.
    """

    def schedule(step, scale=1.0):
        step = jnp.asarray(step).astype(jnp.float32)
        left = jnp.clip(total_steps - step, 0.0) / max(rampdown * total_steps, 1e-9)
        done = step / (rampup * total_steps) if rampup else 1.0
        # 0.5 - 0.5 cos(pi x), without the difference of two numbers that are nearly the same.
        falling = jnp.sin(jnp.minimum(left, 1.0) * (math.pi / 2)) ** 2
        return (base_lr * scale * falling * jnp.minimum(done, 1.0)).astype(jnp.float32)

    return schedule
