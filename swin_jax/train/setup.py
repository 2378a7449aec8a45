"""What a run starts from: mesh, task and layout of a config, and the first state. Shared by training and prediction."""

import dataclasses
import os
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from swin_jax.core import config as configs
from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.core.params import path_name
from swin_jax.tasks.base import GatheredState, Task, TrainState
from swin_jax.train import checkpoint, resume, sharding


@dataclasses.dataclass(frozen=True)
class Setup:
    """What follows from a config before any array exists.

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


def setup(config, devices: Sequence[jax.Device] | None = None) -> Setup:
    """Builds mesh and task, and decides where everything goes, without allocating anything.

    Args:
        config: from an experiment file.
        devices: of the mesh; those of this machine by default.
    """
    mesh = sharding.make_mesh(**config.mesh, devices=devices)
    try:
        task = configs.build(config.task)
        shapes = jax.eval_shape(task.init, jax.random.key(0))
    except (ValueError, TypeError) as error:
        raise UserError(f"the config makes no task: {' '.join(str(error).split())}", 2) from error
    partition = configs.build(config.partition)

    def place(shapes):
        with_sharding = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)  # noqa: E731
        return jax.tree.map(with_sharding, shapes, partition.shardings(shapes, mesh))

    return Setup(sharding.Placement(mesh), partition, task, place(shapes), place(task.frozen_shapes()))


def check_batch(config, placement: sharding.Placement) -> None:
    """Raises UserError for a batch that mesh, number of micro-batches or mixing do not divide (exit status 2)."""
    placement.check(config.batch_size)
    accumulate = config.task.get("accumulate", 1)
    if accumulate < 1:
        raise UserError(f"accumulate must be at least 1, not {accumulate}", 2)
    if config.batch_size % accumulate:
        raise UserError(f"batch_size {config.batch_size} is not a multiple of accumulate {accumulate}", 2)
    placement.check(config.batch_size // accumulate, "batch_size / accumulate")
    if config.get("total_steps", 1) and not can_mix(config.task, config.batch_size // accumulate):
        raise UserError(
            f"mixup and CutMix pair neighbours in groups of task.mix_group = {config.task.mix_group}: batch_size / "
            f"accumulate is {config.batch_size // accumulate}, which is odd, or larger and no multiple of it",
            2,
        )


def can_mix(task, examples: int) -> bool:
    """Whether a task's config mixes nothing, or can mix so many examples: `ops.augmentation.mix`."""
    if not (task.get("mix_group") and (task.get("mixup") or task.get("cutmix"))):
        return True
    return examples % 2 == 0 and (examples <= task.mix_group or examples % task.mix_group == 0)


def jitted_step(at: Setup) -> Callable:
    """The training step, jitted: (state, batch, frozen) -> (state, metrics), the state's memory being used again."""

    def train_step(state, batch, frozen):
        return at.task.train_step(_gathered(state, at) if at.partition.gather else state, batch, frozen)

    return jax.jit(train_step, donate_argnums=0, out_shardings=(sharding.of(at.abstract), None))


def _gathered(state: TrainState, at: Setup) -> GatheredState:
    """What a step computes with: a copy of the parameters that only `opt_axis` splits, whole over it."""
    whole = dataclasses.replace(at.partition, gather="").shardings({"params": at.abstract.params}, at.placement.mesh)

    def copy(x, kept, whole):
        return x if kept == whole else jax.lax.with_sharding_constraint(x.astype(at.partition.gather), whole)

    params = jax.tree.map(copy, state.params, sharding.of(at.abstract.params), whole["params"])
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return GatheredState(**fields | {"params": params, "master": state.params})


def first_state(config, at: Setup, manager, write: bool) -> tuple[TrainState, dict]:
    """The state to start from and the meta data of its checkpoint, {} where there is none.

    The order matters: the run's own checkpoints come before `init_from`, so that a run that is started again goes on.
    """

    def say(line):
        print(line, file=sys.stderr, flush=True)

    restored = checkpoint.restore(manager, at.abstract, say, write)
    if restored is not None:
        return restored
    # First, because what is wrong with the weights should not have to wait for a program.
    flat, report = configs.build(config.init_from).load(at.task, at.abstract.params, at.abstract.mutable)
    say(report)
    # On a CPU the code of random numbers takes longer to optimise than to run.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    init = jax.jit(at.task.init, out_shardings=sharding.of(at.abstract), compiler_options=options)
    state = init(jax.random.key(config.seed))
    names = ("params", "ema", "mutable")
    return state.replace(**{name: _replace(getattr(state, name), flat) for name in names}), {}


def open_trained(config, workdir: str) -> epath.Path:
    """The workdir of a run that only looks at weights; made where the weights are those of `init_from`.

    Raises:
        UserError: no checkpoint and no `init_from`, an unusable workdir.
    """
    folder = storage.path(workdir)
    if not config.init_from.path and not checkpoint.exists(folder):
        raise UserError(f"no checkpoint in {checkpoint.folder(folder)}: train first, or give --config.init_from.path=")
    make_workdir(folder)
    return folder


def trained(config, at: Setup, folder: epath.Path) -> tuple[TrainState, Any, dict]:
    """What to predict with: the newest state, its parameters the average if it keeps one; what is frozen; meta data."""
    state, meta = first_state(config, at, checkpoint.open(folder, write=False), write=False)
    for line in resume.model_changes(config, meta.get("config", {})):
        print(f"changed since this model was trained: {line}", file=sys.stderr, flush=True)
    state = state if state.ema is None else state.replace(params=state.ema)
    return state, sharding.put_tree(at.task.load_frozen(), at.frozen), meta


def pictures(config, images: str) -> Any:
    """The `data.pipeline.EvalData` of a folder of images, or of one, read as the config's `predict` says.

    Raises:
        UserError: a config without `predict` (exit status 2), no images.
    """
    if "predict" not in config:
        raise UserError("this experiment's config has no `predict`, which says how a folder of images is read", 2)
    config.predict.source.root = images
    return configs.build(config.predict)


def outputs(at: Setup, example: dict[str, np.ndarray]) -> set[str]:
    """What the task predicts of an image or of the views of a video: 'logits' of a classifier, for example."""
    shape = lambda x: x.shape[1:] if x.ndim == 5 else x.shape  # noqa: E731
    batch = {key: jax.ShapeDtypeStruct((at.placement.batch_divisor, *shape(x)), x.dtype) for key, x in example.items()}
    with jax.set_mesh(at.placement.mesh):
        return set(jax.eval_shape(at.task.predict, at.abstract, batch, at.frozen))


def _replace(params: Any, flat: dict[str, np.ndarray]) -> Any:
    """Puts the arrays of {path: array} into a tree, laid out as what they replace."""

    def replace(path, old):
        new = flat.get(path_name(path))
        return old if new is None else sharding.put_tree(new, old)

    return jax.tree_util.tree_map_with_path(replace, params)


def make_workdir(folder: epath.Path) -> None:
    """Makes a workdir where there is none; raises UserError where that cannot be."""
    try:
        if storage.is_remote(folder):
            _check_bucket(folder)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(13, "not writable")
    except OSError as error:
        raise UserError(f"--workdir={folder} cannot be used: {storage.reason(error)}") from error


def check_shared(folder: epath.Path, patience: float = 10) -> None:
    """To be called on all processes: that what one writes to the workdir the others see, within some seconds.

    Raises:
        UserError: on all of them where one does not.
    """
    if jax.process_count() == 1:
        return
    # Process 0 says the name after it has written the file: file systems remember for a while what is not there.
    number = np.int32(uuid.uuid4().int % 2**31)
    if jax.process_index() == 0:
        storage.write(folder / f"seen_{number}", b"")
    token = folder / f"seen_{int(multihost_utils.broadcast_one_to_all(number))}"
    end = time.monotonic() + patience
    while not (seen := token.exists()) and time.monotonic() < end:
        time.sleep(0.2)
    seen = multihost_utils.process_allgather(np.int32(seen)).ravel()
    if jax.process_index() == 0:
        token.unlink()
    if not seen.all():
        raise UserError(
            f"--workdir={folder} is not one place for all hosts: process {int(seen.argmin())} does not see what "
            "process 0 writes there; give a folder that they share, or gs://BUCKET/..."
        )


def _check_bucket(folder: epath.Path) -> None:
    """Raises OSError where checkpoints cannot be kept, whatever the store raised; a folder cannot be made there."""
    trial = folder / f"trial_{uuid.uuid4().hex}"
    try:
        storage.write(trial, b"")
        trial.unlink()
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise OSError(f"no object can be written there ({type(error).__name__}: {text})") from error
    from orbax.checkpoint._src.path import gcs_utils  # where Orbax changes it, local runs go on

    try:
        gcs_utils.is_hierarchical_namespace_enabled(folder)  # Orbax asks it before it deletes an old checkpoint
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise OSError(
            f"the bucket does not say of what kind it is ({type(error).__name__}: {text}); give the service account "
            "the role Storage Legacy Bucket Reader as well"
        ) from error
