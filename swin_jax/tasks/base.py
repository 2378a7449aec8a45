"""The base of tasks: the state that is trained and saved,
the protocol that the loop calls, the usual gradient step.

A task also declares what it predicts, by one of the names in `PREDICTIONS`. That is all that
prediction, export, search and evaluation know of it.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax

from swin_jax.core.errors import UserError
from swin_jax.tasks.freezing import hold_parameters, hold_statistics

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
    """Everything that a checkpoint holds, for all tasks.

    Attributes:
        step: int32 scalar, the number of updates made.
        params: Trained parameters. A task with several networks keeps a dict of them.
        opt_state: State of the optimizer, or a dict of several.
        mutable: linen collections and running scalars that a step changes without gradients;
            {} where there are none.
        ema: An average of `params` that is evaluated beside them, or None.
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
    """A TrainState within a step: `params` are the copy that is computed with,
    `master` what is updated and kept.

    Only `apply_gradients` knows the difference; a task with an update of its own reads `master`.
    """

    master: Any = None


# What a task can predict -> the keys of `predict`'s dict. B examples, K classes, features of
# width E.
#   logits: `logits` (B, K) floating point, before the softmax.
#   features: `image_features` (B, E) of a batch with `image`, `text_features` (B, E) of one with
#       `text`, float32 of length 1; `logit_scale` float32 scalar, the factor of their products.
#   reconstruction: `reconstruction` (B, H, W, C) float32, pixels in 0..1; `pixel_mask` (B, H, W)
#       uint8, 1 where the model did not see them; `error` and `masked` (B,) float32, the summed
#       error of each and what to divide it by.
#   samples: `image` (B, H, W, C) float32, nominally in -1..1, of a batch with `latent` (B, z) and,
#       for a conditional generator, `label` (B,).
#   maps: `maps` (B, h, w, K) float32, logits on the grid of the model, which may be coarser than
#       the pixels; `labels` (B, H, W) uint8, the class of each pixel of `image`, from `maps`
#       brought to its size.
PREDICTIONS: dict[str, tuple[str, ...]] = {
    "logits": ("logits",),
    "features": ("image_features", "text_features", "logit_scale"),
    "reconstruction": ("reconstruction", "pixel_mask", "error", "masked"),
    "samples": ("image",),
    "maps": ("maps", "labels"),
}


class Task(Protocol):
    """An objective. Implementations are frozen dataclasses; all methods but `load_frozen` are pure.

    Seven more methods are optional, and called by the functions of the same names in this module,
    which have an answer where a task has none:

        frozen_shapes() -> tree: abstract arrays that a step reads and never changes; reads no file.
        load_frozen() -> tree: the same as numpy arrays.
        check_frozen(): raises UserError, naming the flag, if there is nothing to load them from.
        describe() -> dict: facts for the run header, `gflops_per_image` for example.
        train_flops() -> float: floating-point operations of one update for each example, without
            recomputation; two for each multiply-accumulate of a matrix product or convolution.
        probabilities(logits) -> (..., K): of classes, where they are not a softmax.
        check_batch(batch_size, accumulate): raises UserError for a batch that a step cannot learn
            from, or not in so many micro-batches.

    Attributes:
        predicts: A key of `PREDICTIONS`, or a name of the task's own where nothing but its
            own evaluations reads it.
    """

    predicts: ClassVar[str]

    def init(self, key: jax.Array) -> TrainState: ...

    def train_step(
        self, state: TrainState, batch: Batch, frozen: Any
    ) -> tuple[TrainState, Metrics]:
        """One update. `metrics` are scalars, among them `loss` and `grad_norm`."""

    def predict(self, state: TrainState, batch: Batch, frozen: Any) -> dict[str, jax.Array]:
        """The outputs that `predicts` names; pure, so that it can be compiled and exported."""

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the batch that `train_step` reads,
        so that it can be compiled where there is no data.
        """


class FrozenModel(Protocol):
    """A model that a task reads and never changes, as a field of the task:
    `train.init_from.Frozen` is one.

    A step finds its variables in `frozen[NAME OF THE FIELD]`.

    Attributes:
        model: A linen module.
        path: Source of its weights.
    """

    model: Any
    path: str

    def shapes(self, batch: dict[str, jax.ShapeDtypeStruct]) -> Any:
        """Abstract variables of the model applied to such a batch; reads no file."""

    def load(self, batch: dict[str, jax.ShapeDtypeStruct], key: str) -> Any:
        """The same tree as numpy arrays; `key` is the dotted key of this value in the config,
        for messages.
        """

    def check(self, key: str) -> None:
        """Raises UserError, naming the flag under `key`, if there are no weights to load."""


def frozen_models(task: Task) -> dict[str, FrozenModel]:
    """The fields of a task that are frozen models, by name."""
    fields = dataclasses.fields(task) if dataclasses.is_dataclass(task) else ()
    values = {field.name: getattr(task, field.name) for field in fields}
    # Not isinstance, which asks in any order for attributes too:
    # an unbound linen module raises ValueError for `path`.
    methods = ("shapes", "load", "check")
    return {
        name: value
        for name, value in values.items()
        if all(hasattr(value, method) for method in methods)
    }


def frozen_shapes(task: Task) -> Any:
    """Abstract tree of the arrays that a step reads and never changes:
    `task.frozen_shapes()`, or its frozen models.
    """
    if hasattr(task, "frozen_shapes"):
        return task.frozen_shapes()
    return {name: item.shapes(task.batch_shapes(1)) for name, item in frozen_models(task).items()}


def load_frozen(task: Task) -> Any:
    """The tree of `frozen_shapes` as numpy arrays:
    `task.load_frozen()`, or the weights of its frozen models.

    Raises:
        UserError: Weights that are missing, cannot be read or do not fit.
    """
    if hasattr(task, "load_frozen"):
        return task.load_frozen()
    items = frozen_models(task).items()
    return {name: item.load(task.batch_shapes(1), f"task.{name}") for name, item in items}


def check_frozen(task: Task) -> None:
    """Raises UserError, naming the flag, if a frozen model of a task has no weights to load."""
    if hasattr(task, "check_frozen"):
        return task.check_frozen()
    for name, item in frozen_models(task).items():
        item.check(f"task.{name}")


def describe(task: Task, state: TrainState) -> dict[str, Any]:
    """Facts for the run header: `task.describe()`, or else counts of what is trained.

    Args:
        task: Any task.
        state: Its state, which may be abstract.

    Returns:
        `parameters`, their number; `gflops_per_image`, multiply-accumulates in 1e9, if the task
        has a `model` that counts them in `flops()`; `train_gflops`, `train_flops` in 1e9, and
        `example`, what it is of, if they are known; `notes`, what `task.notes()` wants said.
    """
    flops = train_flops(task)
    facts = {"train_gflops": flops / 1e9, "example": example_name(task)} if flops else {}
    if hasattr(task, "describe"):
        return facts | task.describe()
    facts["parameters"] = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    model = getattr(task, "model", None)
    if hasattr(model, "flops") and model.flops():
        facts["gflops_per_image"] = model.flops() / 1e9
    if hasattr(task, "notes") and (notes := task.notes()):
        facts["notes"] = notes
    return facts


def train_flops(task: Task) -> float:
    """`task.train_flops()`, or else three forward passes of its `model`; 0 if it is not known."""
    if hasattr(task, "train_flops"):
        return task.train_flops()
    model = getattr(task, "model", None)
    # Two operations per multiply-accumulate; backward costs twice forward.
    return 6.0 * model.flops() if hasattr(model, "flops") else 0.0


def example_name(task: Task) -> str:
    """The word for one example of a batch: 'clip', 'pair' or 'image'."""
    words = {"video": "clip", "text": "pair"}
    return next((word for key, word in words.items() if key in task.batch_shapes(1)), "image")


def probabilities(task: Task, logits: jax.Array) -> jax.Array:
    """Class probabilities (..., K) of logits (..., K):
    `task.probabilities(logits)`, or else their softmax.
    """
    if hasattr(task, "probabilities"):
        return task.probabilities(logits)
    return jax.nn.softmax(logits, axis=-1)


def check_batch(task: Task, batch_size: int, accumulate: int) -> None:
    """Raises UserError if a task cannot train on batches of this size in so many micro-batches."""
    if hasattr(task, "check_batch"):
        task.check_batch(batch_size, accumulate)


def prediction_shapes(task: Task, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of the batch that `predict` reads: that of a step, without `label` and
    `size`; for `samples` those that `PREDICTIONS` names.
    """
    shapes = dict(task.batch_shapes(batch_size))
    shapes.pop("size", None)
    label = {name: shapes.pop(name) for name in ("label",) if name in shapes}
    if task.predicts != "samples":
        return shapes
    latent = jax.ShapeDtypeStruct((batch_size, task.generator.z_dim), jnp.float32)
    return {"latent": latent, **label}


def check_predicts(task: Task, needed: str, user: str) -> None:
    """Checks that a task predicts what an evaluation or an action needs.

    Args:
        task: A built task.
        needed: A key of `PREDICTIONS`.
        user: Name of what needs it, for the message.

    Raises:
        UserError: The task predicts something else, or does not say.
    """
    predicts = getattr(task, "predicts", None)
    if predicts is None:
        raise UserError(
            f"{user} needs {needed}; {type(task).__name__} does not say what it `predicts`"
        )
    if predicts != needed:
        raise UserError(f"{user} needs {needed}; {type(task).__name__} predicts {predicts}")


def step_key(seed: int, step: jax.Array | int, name: str) -> jax.Array:
    """The key of one use of randomness at one step:
    a function of (seed, step, name), so that none is stored.
    """
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
        state: State before the update.
        batch: Arrays of (B, ...).
        loss_fn: (params, mutable, batch, key) -> (loss, (metrics, mutable)).
        tx: The optimizer.
        key: Random key of this step; each micro-batch gets its own.
        accumulate: Number of micro-batches whose gradients are averaged before the one
            update. Rows are dealt out in turn, so that every micro-batch is spread over the
            mesh as the batch is.
        ema_decay: Decay of the average in `state.ema`; 0 where it is None.

    Returns:
        The state after the update and the metrics, `loss`, `grad_norm` and `learning_rate` (the
        latter two if the optimizer keeps them) among them.
    """
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    if accumulate == 1:
        (loss, (metrics, mutable)), grads = grad_fn(state.params, state.mutable, batch, key)
    else:
        micro = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(-1, accumulate, *x.shape[1:]), 1, 0), batch
        )

        def add(carry, inputs):
            mutable, total = carry
            number, rows = inputs
            (loss, (metrics, mutable)), grads = grad_fn(
                state.params, mutable, rows, jax.random.fold_in(key, number)
            )
            return (mutable, jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, grads)), (
                loss,
                metrics,
            )

        zeros = jax.tree.map(
            lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), state.params
        )
        (mutable, total), (loss, metrics) = jax.lax.scan(
            add, (state.mutable, zeros), (jnp.arange(accumulate), micro)
        )
        grads = jax.tree.map(lambda g, p: (g / accumulate).astype(p.dtype), total, state.master)
        loss, metrics = jax.tree.map(lambda x: x.mean(axis=0), (loss, metrics))

    return apply_gradients(
        state, grads, mutable, tx, {"loss": loss, **metrics}, ema_decay=ema_decay
    )


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
        state: State before the update.
        grads: Tree of the parameters.
        mutable: New value of `state.mutable`.
        tx: The optimizer.
        metrics: Metrics of the step.
        ema_decay: The same as in `gradient_step`.
        project: Parameters -> parameters, brings them back to where they are allowed to
            be after the update.

    What `tx` freezes keeps its bits: the parameters, running statistics beside them, averages. An
    optimizer of `optim` says it as `tx.update.freezes(official name)`; of any other, nothing is
    known to be frozen.

    Returns:
        The state after the update, and the metrics with `grad_norm` and `learning_rate` if
        the optimizer keeps them.
    """
    grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, state.master)
    updates, opt_state = tx.update(grads, state.opt_state, state.master)
    params = optax.apply_updates(state.master, updates)
    params = params if project is None else project(params)
    freezes = getattr(tx.update, "freezes", None)
    params = params if freezes is None else hold_parameters(state, params, freezes)
    ema = state.ema
    if ema is not None:
        ema = running_average(params, ema, 1 - ema_decay)
    mutable = hold_statistics(state, mutable, tx)
    kept = {
        name: optax.tree_utils.tree_get(opt_state, name) for name in ("grad_norm", "learning_rate")
    }
    metrics = {**{name: value for name, value in kept.items() if value is not None}, **metrics}
    return TrainState(state.step + 1, params, opt_state, mutable, ema), metrics


def running_average(params: Any, ema: Any, share: Any) -> Any:
    """`ema` moved by a share toward `params`; where both are equal it keeps its bits,
    which the average may round.
    """
    average = optax.incremental_update(params, ema, share)
    return jax.tree.map(lambda e, p, a: jnp.where(e == p, e, a), ema, params, average)
