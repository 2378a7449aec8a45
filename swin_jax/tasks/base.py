"""What a task is: the state that is trained and saved, the protocol that the loop calls, the usual gradient step."""

import zlib
from collections.abc import Callable
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
    """Everything that a checkpoint holds, for all tasks.

    Attributes:
        step: int32 scalar, the number of updates made.
        params: trained parameters. A task with several networks keeps a dict of them.
        opt_state: of the optimizer, or a dict of several.
        mutable: linen collections and running scalars that a step changes without gradients; {} where there are none.
        ema: an average of `params` that is evaluated beside them, or None.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    mutable: Any
    ema: Any = None

    @property
    def master(self) -> Any:
        """The parameters that an update changes."""
        return self.params


class GatheredState(TrainState):
    """A TrainState within a step: `params` are the copy that is computed with, `master` what is updated and kept.

    Only `apply_gradients` knows the difference; a task with an update of its own reads `master`.
    """

    master: Any = None


class Task(Protocol):
    """What is optimised. Implementations are frozen dataclasses; all methods but `load_frozen` are pure."""

    def init(self, key: jax.Array) -> TrainState: ...

    def train_step(self, state: TrainState, batch: Batch, frozen: Any) -> tuple[TrainState, Metrics]:
        """One update. `metrics` are scalars, among them `loss` and `grad_norm`."""

    def predict(self, state: TrainState, batch: Batch, frozen: Any) -> dict[str, jax.Array]: ...

    def frozen_shapes(self) -> Any:
        """Abstract tree of the arrays that a step reads and never changes; reads no file."""

    def load_frozen(self) -> Any:
        """The same tree as numpy arrays."""

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """What `train_step` reads of a batch, so that it can be compiled where there is no data."""

    def describe(self) -> dict[str, Any]:
        """Facts for the run header, `gflops_per_image` for example."""


def step_key(seed: int, step: jax.Array | int, name: str) -> jax.Array:
    """The key of one use of randomness at one step: a function of (seed, step, name), so that none is stored."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.random.fold_in(key, step)


def gradient_step(
    state: TrainState,
    batch: Batch,
    loss_fn: Callable[[Any, Any, Batch, jax.Array], tuple[jax.Array, tuple[Metrics, Any]]],
    tx: optax.GradientTransformation,
    key: jax.Array,
    *,
    accumulate: int = 1,
    ema_decay: float = 0.0,
) -> tuple[TrainState, Metrics]:
    """One update of a task with a single optimizer.

    Args:
        state: before the update.
        batch: arrays of (B, ...).
        loss_fn: (params, mutable, batch, key) -> (loss, (metrics, mutable)).
        tx: the optimizer.
        key: for this step; each micro-batch gets its own.
        accumulate: number of micro-batches whose gradients are averaged before the one update. Rows are dealt out in
            turn, so that every micro-batch is spread over the mesh as the batch is.
        ema_decay: of the average in `state.ema`; 0 where it is None.

    Returns:
        The state after the update and the metrics, `loss`, `grad_norm` and `learning_rate` (the latter two if the
        optimizer keeps them) among them.
    """
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    if accumulate == 1:
        (loss, (metrics, mutable)), grads = grad_fn(state.params, state.mutable, batch, key)
    else:
        micro = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, accumulate, *x.shape[1:]), 1, 0), batch)

        def add(carry, inputs):
            mutable, total = carry
            number, rows = inputs
            (loss, (metrics, mutable)), grads = grad_fn(state.params, mutable, rows, jax.random.fold_in(key, number))
            return (mutable, jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, grads)), (loss, metrics)

        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), state.params)
        (mutable, total), (loss, metrics) = jax.lax.scan(add, (state.mutable, zeros), (jnp.arange(accumulate), micro))
        grads = jax.tree.map(lambda g, p: (g / accumulate).astype(p.dtype), total, state.master)
        loss, metrics = jax.tree.map(lambda x: x.mean(axis=0), (loss, metrics))

    return apply_gradients(state, grads, mutable, tx, {"loss": loss, **metrics}, ema_decay=ema_decay)


def apply_gradients(
    state: TrainState,
    grads: Any,
    mutable: Any,
    tx: optax.GradientTransformation,
    metrics: Metrics,
    *,
    ema_decay: float = 0.0,
    project: Callable[[Any], Any] | None = None,
) -> tuple[TrainState, Metrics]:
    """The update that a gradient makes: the end of every step with one optimizer.

    Args:
        state: before the update.
        grads: tree of the parameters.
        mutable: what `state.mutable` becomes.
        tx: the optimizer.
        metrics: of the step.
        ema_decay: as in `gradient_step`.
        project: parameters -> parameters, brings them back to where they are allowed to be after the update.

    Returns:
        The state after the update, and the metrics with `grad_norm` and `learning_rate` if the optimizer keeps them.
    """
    grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, state.master)
    updates, opt_state = tx.update(grads, state.opt_state, state.master)
    params = optax.apply_updates(state.master, updates)
    params = params if project is None else project(params)
    ema = state.ema
    if ema is not None:
        ema = optax.incremental_update(params, ema, 1 - ema_decay)
    kept = {name: optax.tree_utils.tree_get(opt_state, name) for name in ("grad_norm", "learning_rate")}
    metrics = {**{name: value for name, value in kept.items() if value is not None}, **metrics}
    return TrainState(state.step + 1, params, opt_state, mutable, ema), metrics
