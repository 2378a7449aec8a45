"""The gradient step on a problem whose gradients are known, the keys of a step, and what a task may leave out."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swin_jax import optim
from swin_jax.core.errors import UserError
from swin_jax.models.swin import rules
from swin_jax.optim import schedules
from swin_jax.tasks import base
from swin_jax.tasks.base import TrainState, gradient_step, step_key


def loss_fn(params, mutable, batch, key):
    """Half the mean squared error; counts its calls and reports where the data lie."""
    error = batch["x"] @ params["w"] + params["b"] - batch["y"]
    mutable = {"calls": mutable["calls"] + 1}
    return 0.5 * jnp.mean(error**2), ({"mean_x": batch["x"].mean(), "draw": jax.random.uniform(key)}, mutable)


def problem(batch_size=8, seed=0):
    rng = np.random.default_rng(seed)
    batch = {"x": rng.normal(size=(batch_size, 3)), "y": rng.normal(size=(batch_size,))}
    return {key: jnp.asarray(value, jnp.float32) for key, value in batch.items()}


def first_state(tx, ema=False):
    params = {"w": jnp.asarray([0.5, -1.0, 2.0]), "b": jnp.zeros(())}
    average = jax.tree.map(lambda x: x + 1, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), {"calls": jnp.zeros((), jnp.int32)}, average)


@functools.partial(jax.jit, static_argnames=("tx", "accumulate", "ema_decay"))
def step(tx, state, batch, accumulate=1, ema_decay=0.0):
    key = step_key(0, state.step, "train")
    return gradient_step(state, batch, loss_fn, tx, key, accumulate=accumulate, ema_decay=ema_decay)


def exact_gradients(params, batch):
    x, y = (np.asarray(batch[key], np.float64) for key in ("x", "y"))
    error = x @ np.asarray(params["w"], np.float64) + float(params["b"]) - y
    return {"w": x.T @ error / len(y), "b": error.mean()}


@pytest.mark.parametrize("accumulate", [1, 2, 4, 8])
def test_one_sgd_update_by_the_mean_gradient_however_it_is_accumulated(accumulate):
    tx, batch = optax.sgd(0.1), problem()
    before = first_state(tx)
    after, metrics = step(tx, before, batch, accumulate=accumulate)
    for name, gradient in exact_gradients(before.params, batch).items():
        np.testing.assert_allclose(after.params[name], before.params[name] - 0.1 * gradient, atol=1e-6)
    assert after.step == 1 and after.mutable["calls"] == accumulate
    error = batch["x"] @ before.params["w"] - batch["y"]
    np.testing.assert_allclose(metrics["loss"], 0.5 * jnp.mean(error**2), rtol=1e-6)
    np.testing.assert_allclose(metrics["mean_x"], batch["x"].mean(), atol=1e-6)
    assert all(value.shape == () for value in metrics.values())


def test_accumulation_makes_one_optimizer_update_and_agrees_over_many_steps():
    tx = optim.adamw(schedules.warmup_cosine(1e-2, 5, warmup_steps=2), no_decay=rules.NO_DECAY)
    once = spread = first_state(tx, ema=True)
    for i in range(5):
        once, one = step(tx, once, problem(seed=i), ema_decay=0.9)
        spread, four = step(tx, spread, problem(seed=i), ema_decay=0.9, accumulate=4)
        for name in ("loss", "grad_norm", "learning_rate"):
            np.testing.assert_allclose(one[name], four[name], rtol=2e-6, err_msg=name)
    assert spread.step == once.step == 5
    assert optax.tree_utils.tree_get(spread.opt_state, "ScaleByAdamState").count == 5
    for a, b in zip(jax.tree.leaves((once.params, once.ema)), jax.tree.leaves((spread.params, spread.ema))):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_micro_batches_have_keys_of_their_own():
    tx, key = optax.sgd(0.1), step_key(0, 0, "train")
    _, metrics = step(tx, first_state(tx), problem(), accumulate=4)
    draws = [jax.random.uniform(jax.random.fold_in(key, i)) for i in range(4)]
    assert len({float(draw) for draw in draws}) == 4
    np.testing.assert_allclose(metrics["draw"], np.mean(draws), rtol=1e-6)


def test_every_micro_batch_takes_rows_from_the_whole_batch():
    """Rows i, i + 4, ...: a mesh that holds consecutive rows moves none of them."""
    seen = []

    def record(params, mutable, batch, key):
        jax.debug.callback(lambda rows: seen.append(sorted(rows.tolist())), batch["row"])
        return jnp.sum(params["w"]) + params["b"], ({}, mutable)

    tx = optax.sgd(0.1)
    jax.block_until_ready(
        gradient_step(first_state(tx), {"row": jnp.arange(8)}, record, tx, jax.random.key(0), accumulate=4)
    )
    jax.effects_barrier()
    assert sorted(seen) == [[0, 4], [1, 5], [2, 6], [3, 7]]


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_the_average_follows_the_updated_parameters(decay):
    tx = optax.sgd(0.1)
    state = first_state(tx, ema=True)
    for i in range(3):
        before, (state, _) = state, step(tx, state, problem(seed=i), ema_decay=decay)
        for name in ("w", "b"):
            expected = decay * before.ema[name] + (1 - decay) * state.params[name]
            np.testing.assert_allclose(state.ema[name], expected, atol=1e-6)


def test_without_an_average_none_appears_and_metrics_are_what_the_optimizer_keeps():
    batch = problem()
    tx = optim.adamw(schedules.constant(0.25), no_decay=rules.NO_DECAY, clip_norm=0.01)
    before = first_state(tx)
    after, metrics = step(tx, before, batch)
    assert after.ema is None
    gradients = exact_gradients(before.params, batch)
    norm = np.hypot(np.linalg.norm(gradients["w"]), gradients["b"])
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
    assert metrics["learning_rate"] == 0.25
    _, plain = step(optax.sgd(0.1), first_state(optax.sgd(0.1)), batch)
    assert set(metrics) - set(plain) == {"grad_norm", "learning_rate"}


def test_a_step_key_is_a_function_of_seed_step_and_name():
    def data(seed, step, name):
        return tuple(jax.random.key_data(step_key(seed, step, name)).tolist())

    names = [(seed, step, name) for seed in (0, 1) for step in (0, 1, 70000) for name in ("train", "mix")]
    assert len({data(*name) for name in names}) == len(names)
    traced = jax.jit(lambda step: jax.random.key_data(step_key(3, step, "train")))
    assert tuple(traced(jnp.int32(7)).tolist()) == data(3, 7, "train") == data(3, 7, "train")


# ---- what a task may leave out ----


@dataclasses.dataclass(frozen=True)
class Constant:
    """A frozen model of one array, as long as the batch's `x` is wide."""

    value: float
    model: Any = None
    path: str = "some/where"

    def shapes(self, batch):
        return {"params": jax.ShapeDtypeStruct(batch["x"].shape[1:], jnp.float32)}

    def load(self, batch, key):
        self.check(key)
        return {"params": np.full(batch["x"].shape[1:], self.value, np.float32)}

    def check(self, key):
        if not self.path:
            raise UserError(f"give {key}.path=")


@dataclasses.dataclass(frozen=True)
class Bare:
    """A task with nothing but what it must have."""

    teacher: Any = None
    other: Any = None

    def init(self, key):
        return TrainState(jnp.zeros((), jnp.int32), {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}, {}, {})

    def batch_shapes(self, batch_size):
        return {"x": jax.ShapeDtypeStruct((batch_size, 5), jnp.float32)}


class Full(Bare):
    """A task that answers for itself."""

    def frozen_shapes(self):
        return {"own": jax.ShapeDtypeStruct((1,), jnp.float32)}

    def load_frozen(self):
        return {"own": np.ones(1, np.float32)}

    def describe(self):
        return {"parameters": 1}


def test_a_task_without_frozen_arrays_has_none():
    assert base.frozen_shapes(Bare()) == base.load_frozen(Bare()) == base.frozen_models(Bare()) == {}


def test_frozen_models_are_found_among_the_fields():
    task = Bare(teacher=Constant(2.0), other="Constant")
    assert base.frozen_models(task) == {"teacher": Constant(2.0)}
    assert base.frozen_shapes(task) == {"teacher": {"params": jax.ShapeDtypeStruct((5,), jnp.float32)}}
    np.testing.assert_array_equal(base.load_frozen(task)["teacher"]["params"], np.full(5, 2.0))


def test_a_frozen_model_without_weights_is_named_by_its_flag():
    task = Bare(teacher=Constant(2.0), other=Constant(1.0, path=""))
    for fn in (base.check_frozen, base.load_frozen):
        with pytest.raises(UserError, match="give task.other.path="):
            fn(task)
    base.frozen_shapes(task)


def test_a_task_that_answers_itself_is_asked():
    task = Full(teacher=Constant(2.0))
    assert set(base.frozen_shapes(task)) == set(base.load_frozen(task)) == {"own"}
    assert base.describe(task, None) == {"parameters": 1}


def test_a_task_that_says_nothing_is_counted():
    assert base.describe(Bare(), jax.eval_shape(Bare().init, jax.random.key(0))) == {"parameters": 8}


def test_what_a_task_predicts_is_checked_by_name():
    class Logits:
        predicts = "logits"

    base.check_predicts(Logits(), "logits", "Accuracy")
    with pytest.raises(UserError, match="^Retrieval needs features; Logits predicts logits$"):
        base.check_predicts(Logits(), "features", "Retrieval")
    with pytest.raises(UserError, match="^Accuracy needs logits; Bare does not say what it `predicts`$"):
        base.check_predicts(Bare(), "logits", "Accuracy")
