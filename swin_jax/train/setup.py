"""Everything a run needs that can be built without allocating arrays:
mesh, task and layout of a config, and the jitted step.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from swin_jax.core import config as configs
from swin_jax.core.errors import UserError, is_ours, warn
from swin_jax.core.ranges import NonNegativeInt, PositiveInt, Seed, check_settings
from swin_jax.tasks import base
from swin_jax.tasks.base import GatheredState, Task, TrainState, frozen_shapes, load_frozen
from swin_jax.train import checkpoint, sharding
from swin_jax.train.trackers import weights_and_biases

# What a run's own settings may be, besides those that `check_computed_from` knows; those of a spec
# are in the signature of what it calls.
SETTINGS = {
    "seed": Seed,
    "total_steps": NonNegativeInt,
    "max_bad_records": NonNegativeInt,
    "mesh.*": sharding.AxisSize,
    "checkpoint.every": NonNegativeInt,
    "checkpoint.keep": PositiveInt,
    "logs.every": NonNegativeInt,
    "evals.*.every": NonNegativeInt,
}
# Names of a project of W&B that nobody means.
_NO_PROJECT = ("none", "null", "no", "off", "false", "0", "yes", "on", "true", "1")


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything a run needs that can be built without allocating arrays.

    Attributes:
        placement: Placement of batches on the mesh.
        partition: Partition of the state.
        task: The built task.
        abstract: A TrainState of jax.ShapeDtypeStruct with shardings.
        frozen: The same for what a step only reads.
    """

    placement: sharding.Placement
    partition: sharding.Partition
    task: Task
    abstract: TrainState
    frozen: Any


def build_run(config, devices: Sequence[jax.Device] | None = None) -> Run:
    """Builds mesh and task, and decides where everything goes, without allocating anything.

    Args:
        config: Config from an experiment file.
        devices: Devices of the mesh; those of this machine by default.
    """
    configs.check_computed_from(config)
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
        raise UserError(
            f"the config does not make a task: {' '.join(str(error).split())}"
        ) from error
    partition = configs.build(config.partition, "partition")

    def place(shapes):
        def with_sharding(x, s):
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)

        return jax.tree.map(with_sharding, shapes, partition.shardings(shapes, mesh))

    return Run(sharding.Placement(mesh), partition, task, place(shapes), place(frozen))


def read_frozen(run: Run) -> Any:
    """The arrays that a step only reads, on the host and whole, in the dtypes that it expects.

    Raises:
        UserError: Weights that are missing, cannot be read or do not fit.
    """
    arrays = load_frozen(run.task)
    return jax.tree.map(lambda array, like: np.asarray(array, like.dtype), arrays, run.frozen)


def check_batch(config, run: Run) -> None:
    """Raises UserError for a batch that the mesh or the micro-batches do not divide,
    or that the task cannot train on.
    """
    run.placement.check(config.batch_size)
    accumulate = config.task.get("accumulate", 1)
    if config.batch_size % accumulate:
        raise UserError(
            f"batch_size {config.batch_size} is not a multiple of accumulate {accumulate}"
        )
    run.placement.check(config.batch_size // accumulate, "batch_size / accumulate")
    if config.get("total_steps", 1):
        base.check_batch(run.task, config.batch_size, accumulate)


def can_train(task: Task, batch_size: int, accumulate: int) -> bool:
    """True if a task can train on batches of this size in so many micro-batches."""
    try:
        base.check_batch(task, batch_size, accumulate)
    except UserError:
        return False
    return True


def check_start(config, folder: epath.Path) -> None:
    """Raises UserError where a run has nothing to do, first weights that are not there, or W&B that
    is not installed or whose project is a word for none; warns of a warm-up that is too long.
    """
    if (project := config.logs.wandb) and project.lower() in _NO_PROJECT:
        raise UserError(
            f"--config.logs.wandb={project} would be a project of this name: "
            "write --config.logs.wandb= for none, or the project's name"
        )
    if project and jax.process_index() == 0:
        weights_and_biases.check_installed()
    if config.get("steps_per_epoch") == 0:
        raise UserError(
            f"num_train {config.num_train} is less than batch_size {config.batch_size}, "
            f"so that an epoch has no step: give --config.batch_size={config.num_train} or less"
        )
    if not checkpoint.exists(folder):
        if config.total_steps == 0 and not config.init_from.path:
            raise UserError(
                f"nothing to evaluate: no checkpoint in {folder}, and no --config.init_from.path="
            )
        configs.build(config.init_from, "init_from").check()
    if jax.process_index() == 0:
        warn_of_warmup(config)


def warn_of_warmup(config) -> None:
    """Warns if the run ends before a learning rate has warmed up, so that it never peaks.

    Args:
        config: Config from an experiment file. A schedule is what has the argument `warmup_steps`,
            or `warmup_epochs` and `steps_per_epoch`.
    """
    values, total = configs.flatten(config), config.total_steps
    for key, warmup in values.items():
        schedule, _, name = key.rpartition(".")
        if name not in ("warmup_steps", "warmup_epochs") or f"{schedule}.fn" not in values:
            continue
        if name == "warmup_epochs":
            warmup = warmup * values.get(f"{schedule}.steps_per_epoch", 0)
        if warmup >= total > 0:
            flag = "warmup_epochs" if "warmup_epochs" in config else key
            warn(
                f"the learning rate of {schedule} warms up for {warmup:g} steps and the run has "
                f"{total}, so that it never reaches its peak: train for longer, or give a smaller "
                f"--config.{flag}="
            )


def build_evaluations(config) -> dict[str, Any]:
    """Builds the evaluations of a config: {name: evaluation}."""
    return {
        name: configs.build(item.run, f"evals.{name}.run") for name, item in config.evals.items()
    }


def bind_evaluations(
    config, evaluations: Mapping[str, Any], task: Task, placement: sharding.Placement
) -> dict[str, tuple[int, Callable]]:
    """Binds evaluations to a task; errors, also later ones, name the evaluation.

    Args:
        config: Config from an experiment file.
        evaluations: The built evaluations by name.
        task, placement: The same as in `Run`.

    Returns:
        {name: (updates between two of them, run(state, frozen))}.
    """
    found = {}
    for name, evaluation in evaluations.items():
        naming = functools.partial(_naming_evaluation, config, name)
        with naming():
            found[name] = config.evals[name].every, naming()(evaluation.bind(task, placement))
    return found


@contextlib.contextmanager
def _naming_evaluation(config, name: str) -> Iterator[None]:
    """A block that prepares or runs an evaluation: a UserError names it, and the flag of an
    `unreadable` that the message is about.
    """
    try:
        yield
    except UserError as error:
        told = error.about(f"the evaluation {name!r}")
        keys = [
            f"--config.{key}=leave_out"
            for key in configs.flatten(config)
            if key.startswith(f"evals.{name}.run.") and key.endswith(".unreadable")
        ]
        hint = f" ({' or '.join(keys)})" if keys and "unreadable=" in told.message else ""
        raise UserError(told.message + hint, told.items) from error


def once_options() -> dict | None:
    """Compiler options for first values: on a CPU the code of random numbers takes longer to
    optimize than to run.
    """
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


def jitted_step(run: Run) -> Callable:
    """The training step, jitted: (state, batch, frozen) -> (state, metrics),
    the state's memory being used again.
    """
    train_step = run.task.train_step
    if run.partition.gather:

        def train_step(state, batch, frozen):
            return run.task.train_step(_gathered(state, run), batch, frozen)

    return jax.jit(
        train_step, donate_argnums=0, out_shardings=(sharding.tree_shardings(run.abstract), None)
    )


def _gathered(state: TrainState, run: Run) -> GatheredState:
    """Casts the parameters sharded over `opt_axis` and gathers them for this step."""
    whole = dataclasses.replace(run.partition, gather="").shardings(
        {"params": run.abstract.params}, run.placement.mesh
    )

    def copy(x, kept, whole):
        if kept == whole:
            return x
        return jax.lax.with_sharding_constraint(x.astype(run.partition.gather), whole)

    params = jax.tree.map(
        copy, state.params, sharding.tree_shardings(run.abstract.params), whole["params"]
    )
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return GatheredState(**fields | {"params": params, "master": state.params})
