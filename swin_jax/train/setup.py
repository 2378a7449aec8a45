"""What a run needs before any array exists: mesh, task, layout, the jitted step, and one label space."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import jax
import numpy as np
from etils import epath

from swin_jax.core import config as configs
from swin_jax.core import labels, storage
from swin_jax.core.errors import UserError, is_ours
from swin_jax.core.ranges import NonNegativeInt, PositiveInt, Range, Seed, check_settings
from swin_jax.tasks.base import GatheredState, Task, TrainState, frozen_models, frozen_shapes, load_frozen
from swin_jax.train import checkpoint, sharding

_HEAD = "head/kernel"  # a path that `InitFrom.head` matches where it leaves the classifier out

# What a run's own settings may be; those of a spec are in the signature of what it calls.
SETTINGS = {
    "seed": Seed,
    "batch_size": PositiveInt,
    "total_steps": NonNegativeInt,
    "epochs": NonNegativeInt,
    "accumulate": PositiveInt,
    "max_bad_records": NonNegativeInt,
    "mesh.*": Annotated[int, Range(low=1, also=(-1,))],
    "checkpoint.every": NonNegativeInt,
    "checkpoint.keep": PositiveInt,
    "logs.every": NonNegativeInt,
    "evals.*.every": NonNegativeInt,
}


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything a run needs that can be built without allocating arrays.

    Attributes:
        placement: of batches on the mesh.
        partition: of the state.
        task: built.
        abstract: a TrainState of jax.ShapeDtypeStruct with shardings.
        frozen: the same for what a step only reads.
    """

    placement: sharding.Placement
    partition: sharding.Partition
    task: Task
    abstract: TrainState
    frozen: Any


def build_run(config, devices: Sequence[jax.Device] | None = None) -> Run:
    """Builds mesh and task, and decides where everything goes, without allocating anything.

    Args:
        config: from an experiment file.
        devices: of the mesh; those of this machine by default.
    """
    check_settings(configs.flatten(config), SETTINGS)
    mesh = sharding.make_mesh(**config.mesh, devices=devices)
    try:
        task = configs.build(config.task, "task")
        shapes, frozen = jax.eval_shape(task.init, jax.random.key(0)), frozen_shapes(task)
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        if not is_ours(error):
            raise
        raise UserError(f"the config makes no task: {' '.join(str(error).split())}") from error
    partition = configs.build(config.partition, "partition")

    def place(shapes):
        with_sharding = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)  # noqa: E731
        return jax.tree.map(with_sharding, shapes, partition.shardings(shapes, mesh))

    return Run(sharding.Placement(mesh), partition, task, place(shapes), place(frozen))


def read_frozen(run: Run) -> Any:
    """The arrays that a step only reads, on the host and whole, in the dtypes that it expects.

    Raises:
        UserError: weights that are missing, cannot be read or do not fit.
    """
    arrays = load_frozen(run.task)
    return jax.tree.map(lambda array, like: np.asarray(array, like.dtype), arrays, run.frozen)


def check_batch(config, placement: sharding.Placement) -> None:
    """Raises UserError for a batch that mesh, number of micro-batches or mixing do not divide."""
    placement.check(config.batch_size)
    accumulate = config.task.get("accumulate", 1)
    if accumulate < 1:
        raise UserError(f"accumulate must be at least 1, not {accumulate}")
    if config.batch_size % accumulate:
        raise UserError(f"batch_size {config.batch_size} is not a multiple of accumulate {accumulate}")
    placement.check(config.batch_size // accumulate, "batch_size / accumulate")
    if config.get("total_steps", 1) and not can_mix(config.task, config.batch_size // accumulate):
        raise UserError(
            f"mixup and CutMix pair neighbours in groups of task.mix_group = {config.task.mix_group}: batch_size / "
            f"accumulate is {config.batch_size // accumulate}, which is odd, or larger and no multiple of it"
        )


def can_mix(task, examples: int) -> bool:
    """Whether a task's config mixes nothing, or can mix so many examples: `ops.augmentation.mix`."""
    if not (task.get("mix_group") and (task.get("mixup") or task.get("cutmix"))):
        return True
    return examples % 2 == 0 and (examples <= task.mix_group or examples % task.mix_group == 0)


def jitted_step(run: Run) -> Callable:
    """The training step, jitted: (state, batch, frozen) -> (state, metrics), the state's memory being used again."""
    train_step = run.task.train_step
    if run.partition.gather:

        def train_step(state, batch, frozen):
            return run.task.train_step(_gathered(state, run), batch, frozen)

    return jax.jit(train_step, donate_argnums=0, out_shardings=(sharding.tree_shardings(run.abstract), None))


def _gathered(state: TrainState, run: Run) -> GatheredState:
    """Casts the parameters sharded over `opt_axis` and gathers them for this step."""
    whole = dataclasses.replace(run.partition, gather="").shardings({"params": run.abstract.params}, run.placement.mesh)

    def copy(x, kept, whole):
        return x if kept == whole else jax.lax.with_sharding_constraint(x.astype(run.partition.gather), whole)

    params = jax.tree.map(copy, state.params, sharding.tree_shardings(run.abstract.params), whole["params"])
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return GatheredState(**fields | {"params": params, "master": state.params})


@dataclasses.dataclass(frozen=True)
class Reference:
    """The classes that logits stand for.

    Attributes:
        names: In the order of the logits; () where they are not known.
        owner: What has these classes, for messages.
        advice: What to do where they are not wanted.
    """

    names: tuple[str, ...] = ()
    owner: str = ""
    advice: str = ""


def weights_classes(config, folder: epath.Path, classes: int = 0) -> Reference:
    """The classes of the weights that a run starts from: those of its own checkpoint, or of `init_from`.

    Args:
        config: From an experiment file.
        folder: The workdir.
        classes: Number that the model is made for; a classifier of `init_from` with another one is replaced. 0 if not
            known.

    Returns:
        The classes; `owner` is '' where the run starts from scratch or trains a classifier of unknown classes.
    """
    if checkpoint.exists(folder):
        names = checkpoint.class_names(folder)
        advice = "" if names else "; the checkpoint has no class names, so that all of its classes must be there"
        return Reference(names, f"the checkpoint in {folder}", advice)
    source = configs.build(config.init_from)
    path = getattr(source, "path", "")
    if not path or (getattr(source, "backbone", False) and re.search(source.head, _HEAD)):
        return Reference()
    names, advice = (), "; for a new classifier give --config.init_from.backbone=True"
    if getattr(source, "class_names", ""):
        names = labels.read_names(source.class_names)
    elif checkpoint.exists(storage.path(path)):
        names = checkpoint.class_names(storage.path(path))
    if (classes and len(names) not in (0, classes)) or (not names and config.total_steps > 0):
        return Reference()
    if not names:
        advice = "; or give the names of all classes of the weights in a file, --config.init_from.class_names=FILE"
    return Reference(names, f"the weights {path}", advice)


def share_labels(
    config, folder: epath.Path, task: Any, data: Any, evaluations: Mapping[str, Any]
) -> tuple[Any, dict[str, Any], list[str]]:
    """Gives training data and evaluations of a classifier the labels of its logits.

    Args:
        config: From an experiment file.
        folder: The workdir, whose checkpoint decides; without one the weights of `init_from` do if they have as many
            classes, or else the training data.
        task: Built. Only where it predicts logits do labels stand for them.
        data: Built `config.data`; not compared where nothing is trained and the classes of the weights are known.
        evaluations: Built evaluations by name, each with a data set in any of its fields. One that has classes of its
            own says so by the attribute `own_classes`.

    Returns:
        (training data, evaluations, lines for the user).

    Raises:
        UserError: Sets of different classes; the message names both sets and the classes.
    """
    classifies = getattr(task, "predicts", None) == "logits"
    reference = weights_classes(config, folder, getattr(data, "expected_classes", 0)) if classifies else Reference()
    lines, found = [], {}
    if config.total_steps > 0 or not reference.names:
        if classifies and getattr(data, "multi_label", False) and _wants_numbers(task):
            raise UserError("records of the training data have several labels: give --config.task.multi_label=True")
        data, lines = _map(data, reference, "the training data", subset=False)
        if labels.count_up(reference.names):  # names are worth more than numbers
            reference = Reference(tuple(getattr(data, "class_names", ())), "the training data")
    lines += _teachers(task, reference) if classifies else []
    for key, evaluation in evaluations.items() if classifies else ():
        changed = {}
        for name, value in _data_sets(evaluation).items():
            changed[name], said = _map(value, reference, f"the evaluation {key!r}")
            lines += said
        found[key] = dataclasses.replace(evaluation, **changed) if changed else evaluation
    return data, {**evaluations, **found}, lines


def _map(data: Any, reference: Reference, whose: str, subset: bool = True) -> tuple[Any, list[str]]:
    """A data set with the labels of `reference`, and lines for the user."""
    said = ""
    try:
        if reference.owner:
            data, said = labels.map_data(data, reference.names, whose, reference.owner, subset)
        if hasattr(data, "check_counts"):
            data.check_counts()
    except UserError as error:
        raise UserError(f"{error}{reference.advice}") from error
    return data, [said] if said else []


def _teachers(task: Task, reference: Reference) -> list[str]:
    """Lines for the user about frozen models whose logits may stand for other classes."""
    lines = []
    for name, item in frozen_models(task).items():
        known = checkpoint.exists(storage.path(item.path)) if item.path else False
        names = checkpoint.class_names(storage.path(item.path)) if known else ()
        if len(names) == len(reference.names) and names != reference.names:
            lines.append(
                f"task.{name} was trained with other class names than {reference.owner}, or in another order: its "
                "logits stand for other classes"
            )
    return lines


def _wants_numbers(task: Task) -> bool:
    """True if a batch has one number for each record as its label."""
    return hasattr(task, "batch_shapes") and len(task.batch_shapes(1)["label"].shape) == 1


def _data_sets(evaluation: Any) -> dict[str, Any]:
    """The fields of an evaluation whose labels stand for logits, by name."""
    if not dataclasses.is_dataclass(evaluation) or getattr(evaluation, "own_classes", False):
        return {}
    values = {field.name: getattr(evaluation, field.name) for field in dataclasses.fields(evaluation)}
    return {name: value for name, value in values.items() if hasattr(value, "class_names")}
