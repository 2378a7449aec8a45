"""What is frozen keeps its bits: weights, running statistics and averages, whichever way it is frozen."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax import optim
from swin_jax.core.params import flatten
from swin_jax.models import stylegan2
from swin_jax.optim import schedules
from swin_jax.optim.optimizers import scale_by_name
from swin_jax.tasks.base import TrainState, apply_gradients, gradient_step
from swin_jax.tasks.gan import GAN


class Tower(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, name="proj")(x)
        bare = nn.BatchNorm(use_running_average=False, use_bias=False, use_scale=False, name="bare")(x)
        return nn.BatchNorm(use_running_average=False, name="bn")(x) + bare


class Net(nn.Module):
    """Two equal towers and norms: with parameters of their own, without, and of a frozen weight only."""

    @nn.compact
    def __call__(self, x):
        x = Tower(name="left")(x) + Tower(name="right")(x)
        x = nn.BatchNorm(use_running_average=False, name="half")(x)
        return nn.BatchNorm(use_running_average=False, use_bias=False, use_scale=False, name="plain")(2 * x)


FROZEN = r"^left\.|^half\.weight"
WAYS = {
    "freeze": dict(freeze=FROZEN),
    "factor": dict(layer_scale=scale_by_name(((FROZEN, 0.0), ("^right", 0.5)))),
}
SCHEDULE = schedules.warmup_cosine(0.1, total_steps=8, warmup_steps=2, warmup_lr=0.01, min_lr=0.01)


def trained(tx, steps=4, accumulate=1):
    net, x = Net(), jnp.asarray(np.random.default_rng(0).normal(1, 3, (8, 3)), jnp.float32)
    variables = dict(net.init(jax.random.key(0), x))
    params = variables.pop("params")
    params["left"]["proj"]["bias"] = jnp.asarray([-0.0, 0.0, 1e-3, 3.1])
    ema = jax.tree.map(jnp.copy, params)
    before = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), variables, ema)

    def loss(params, mutable, batch, key):
        y, mutable = net.apply({"params": params, **mutable}, batch["x"], mutable=["batch_stats"])
        return ((y - 1) ** 3).mean(), ({}, mutable)

    update = functools.partial(gradient_step, loss_fn=loss, tx=tx, accumulate=accumulate, ema_decay=0.9)
    step, after = jax.jit(lambda state: update(state, {"x": x}, key=jax.random.key(1))[0]), before
    for _ in range(steps):
        after = step(after)
    return before, after


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rule", [optim.adamw, functools.partial(optim.sgd, nesterov=True)], ids=["adamw", "sgd"])
def test_what_is_frozen_keeps_its_bits(rule, way, accumulate):
    tx = rule(SCHEDULE, no_decay=(), weight_decay=0.3, clip_norm=1.0, **WAYS[way])
    before, after = trained(tx, accumulate=accumulate)
    tree = lambda state: flatten(dict(params=state.params, mutable=state.mutable, ema=state.ema))  # noqa: E731
    old, new = tree(before), tree(after)
    same = {name for name in old if np.asarray(old[name]).tobytes() == np.asarray(new[name]).tobytes()}
    assert same == {name for name in old if "/left/" in name or name in ("params/half/scale", "ema/half/scale")}


def test_blocks_of_a_stacked_leaf_keep_their_bits_whatever_their_gradient_is():
    """Blocks 0 and 2 of four are frozen: elements 0 and 1 of the first of two leaves."""
    tx = optim.adamw(SCHEDULE, no_decay=(), weight_decay=0.3, clip_norm=1.0, freeze=r"blocks\.[02]\.")
    tx2 = optim.adamw(SCHEDULE, no_decay=(), weight_decay=0.3, clip_norm=1.0, freeze=r"blocks\.2\.")
    values = jnp.asarray([[-0.0, 0.0, 1e-40, 3.1]] * 2)
    params = {"layers_0": {"units_2": {f"blocks_{i}": {"norm1": {"bias": values}} for i in range(2)}}}
    grads = jax.tree.map(lambda p: p.at[1, 0].set(jnp.nan) - 1.0, params)
    grads["layers_0"]["units_2"]["blocks_1"] = jax.tree.map(jnp.ones_like, params["layers_0"]["units_2"]["blocks_1"])
    for frozen, one in (((0, 1), tx), ((1,), tx2)):
        before = TrainState(jnp.zeros((), jnp.int32), params, one.init(params), {}, None)
        after = apply_gradients(before, grads, {}, one, {})[0].params["layers_0"]["units_2"]
        for element in range(2):
            kept = np.asarray(after["blocks_0"]["norm1"]["bias"][element]).tobytes() == np.asarray(values[0]).tobytes()
            assert kept == (element in frozen)
        assert np.isfinite(after["blocks_1"]["norm1"]["bias"]).all()


def test_the_mean_of_w_and_the_average_of_frozen_layers_keep_their_bits():
    sizes, rate = dict(resolution=8, channel_base=32, channel_max=4), schedules.constant(0.01)
    generator = stylegan2.Generator(**sizes, z_dim=3, w_dim=3, mapping_layers=1)
    tx = optim.lazy_adam(rate, freeze=r"^mapping\.")
    task = GAN(generator, stylegan2.Discriminator(**sizes), tx, optim.lazy_adam(rate))
    params = generator.init(jax.random.key(0), jnp.zeros((1, 3)))
    params, mutable = params.pop("params"), params
    mutable["averages"]["mapping"]["w_avg"] = jnp.asarray([0.1, 0.7, -0.3])
    before = TrainState(
        jnp.zeros((), jnp.int32),
        {"generator": params},
        {"generator": tx.init(params)},
        {"generator": mutable},
        {"generator": params},
    )
    after = task.with_w_avg(before, jnp.ones(3))
    after, _ = task.apply(after, "generator", jax.tree.map(jnp.ones_like, params))
    after = after.replace(ema=task.average(after, 8))
    tree = lambda state: flatten(dict(params=state.params, mutable=state.mutable, ema=state.ema))  # noqa: E731
    old, new = tree(before), tree(after)
    moved = {name for name in old if np.asarray(old[name]).tobytes() != np.asarray(new[name]).tobytes()}
    assert moved and not any("/mapping/" in name for name in moved)
    free = dataclasses.replace(task, generator_tx=optim.lazy_adam(rate)).with_w_avg(before, jnp.ones(3))
    assert (free.mutable["generator"]["averages"]["mapping"]["w_avg"] == 1).all()
