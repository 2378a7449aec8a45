"""The loop depends on no task: two networks with two optimizers, alternating, a running scalar and frozen weights."""

import dataclasses
import shutil
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from swin_jax.core.config import spec
from swin_jax.core.errors import UserError
from swin_jax.tasks.base import TrainState, step_key
from swin_jax.train import loop, sharding
from swin_jax.train.init_from import InitFrom
from tests.e2e.test_experiments import assert_equal_runs


class Net(nn.Module):
    width: int
    out: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.out)(nn.gelu(nn.Dense(self.width)(x)))


@dataclasses.dataclass(frozen=True)
class Adversarial:
    """A generator of points and a discriminator, each with its optimizer; the generator every second step."""

    generator: nn.Module
    discriminator: nn.Module
    tx_generator: Any
    tx_discriminator: Any
    shift: float
    seed: int = 0
    predicts: ClassVar[str] = "points"

    def init(self, key):
        params = {
            "generator": self.generator.init(key, jnp.zeros((1, 4))),
            "discriminator": self.discriminator.init(key, jnp.zeros((1, 2))),
        }
        opt_state = {
            "generator": self.tx_generator.init(params["generator"]),
            "discriminator": self.tx_discriminator.init(params["discriminator"]),
        }
        mutable = {"mean": jnp.zeros((2,))}
        return TrainState(jnp.zeros((), jnp.int32), params, opt_state, mutable, {"generator": params["generator"]})

    def train_step(self, state, batch, frozen):
        noise = jax.random.normal(step_key(self.seed, state.step, "noise"), (batch["point"].shape[0], 4))
        real = batch["point"] + frozen["shift"][None]

        def judge(params, points):
            return self.discriminator.apply(params, points)[:, 0]

        def loss_d(params):
            made = self.generator.apply(state.params["generator"], noise)
            return (jax.nn.softplus(judge(params, made)) + jax.nn.softplus(-judge(params, real))).mean()

        d_loss, grads = jax.value_and_grad(loss_d)(state.params["discriminator"])
        updates, d_opt = self.tx_discriminator.update(
            grads, state.opt_state["discriminator"], state.params["discriminator"]
        )
        d_params = optax.apply_updates(state.params["discriminator"], updates)

        def loss_g(params):
            return jax.nn.softplus(-judge(d_params, self.generator.apply(params, noise))).mean()

        def update_g(args):
            params, opt = args
            updates, opt = self.tx_generator.update(jax.grad(loss_g)(params), opt)
            return optax.apply_updates(params, updates), opt

        g = (state.params["generator"], state.opt_state["generator"])
        g_params, g_opt = jax.lax.cond(state.step % 2 == 1, update_g, lambda args: args, g)
        metrics = {"loss": d_loss, "loss_generator": loss_g(g_params), "grad_norm": optax.tree.norm(grads)}
        new = TrainState(
            state.step + 1,
            {"generator": g_params, "discriminator": d_params},
            {"generator": g_opt, "discriminator": d_opt},
            {"mean": 0.9 * state.mutable["mean"] + 0.1 * real.mean(0)},
            optax.incremental_update({"generator": g_params}, state.ema, 0.1),
        )
        return new, metrics

    def predict(self, state, batch, frozen):
        # Evaluated with raw parameters, and with the average, which holds the generator only.
        return {"points": self.generator.apply(state.params["generator"], batch["noise"])}

    def frozen_shapes(self):
        return {"shift": jax.ShapeDtypeStruct((2,), jnp.float32)}

    def load_frozen(self):
        return {"shift": np.full(2, self.shift, np.float32)}


@dataclasses.dataclass(frozen=True)
class Points:
    batch_size: int

    def batches(self, start_step, rows):
        step = start_step
        while True:
            points = np.random.default_rng(step).normal(size=(self.batch_size, 2)).astype(np.float32)
            yield {"point": points[list(rows)]}
            step += 1


@dataclasses.dataclass(frozen=True)
class MeanPoint:
    batch_size: int

    def bind(self, task, placement):
        predict = jax.jit(task.predict)

        def run(state, frozen):
            noise = np.random.default_rng(0).normal(size=(self.batch_size, 4)).astype(np.float32)
            batch = placement.to_global({"noise": noise[placement.rows(self.batch_size)]}, self.batch_size)
            return {"mean": float(predict(state, batch, frozen)["points"].mean())}

        return run


def get_config(steps, shift=3.0):
    c = ConfigDict(dict(seed=0, total_steps=steps, batch_size=16, max_bad_records=0))
    c.task = spec(
        Adversarial,
        generator=spec(Net, width=8, out=2),
        discriminator=spec(Net, width=8, out=1),
        tx_generator=spec(optax.sgd, learning_rate=0.05, momentum=0.9),
        tx_discriminator=spec(optax.adamw, learning_rate=0.01),
        shift=shift,
    )
    c.data = spec(Points, batch_size=16)
    c.evals = dict(point=dict(every=4, run=spec(MeanPoint, batch_size=16)))
    c.init_from, c.partition = spec(InitFrom), spec(sharding.Partition, min_size=8)
    c.mesh, c.checkpoint = dict(data=-1, fsdp=2, tensor=1), dict(every=4, keep=9)
    c.logs = dict(every=1, wandb="")
    return c


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    assert loop.prepare(get_config(12), str(workdir))() == 0
    return workdir


@pytest.fixture
def whole(trained, tmp_path):
    """A copy of a run of twelve steps."""
    shutil.copytree(trained, tmp_path / "whole")
    return tmp_path / "whole"


def test_it_trains_resumes_bitwise_and_evaluates(whole, tmp_path):
    cut = tmp_path / "cut"
    assert loop.prepare(get_config(8), str(cut))() == 0
    assert loop.prepare(get_config(12), str(cut))() == 0
    # The first part also evaluated at its own end; the lines are the same because step 8 is an evaluation of both.
    assert_equal_runs(whole, cut, 12)


@pytest.mark.parametrize("header", ["as it was", "{}", "gone"])
def test_other_frozen_weights_are_refused(whole, header):
    if header == "{}":
        (whole / "header.json").write_text(header)
    elif header == "gone":
        (whole / "header.json").unlink()
    config = get_config(16, shift=4.0)
    with pytest.raises(UserError, match="frozen weights"):
        loop.prepare(config, str(whole), allow_change=["task.shift"])()
