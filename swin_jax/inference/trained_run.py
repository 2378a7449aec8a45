"""A trained run for inference: its newest weights, and pictures prepared for it. Nothing is overwritten."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath

from swin_jax.core import config as configs
from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.data.pipeline import EvalData
from swin_jax.evals import features
from swin_jax.pretrained.preparation import Preparation, of_run
from swin_jax.tasks.base import TrainState
from swin_jax.train import checkpoint, resume, sharding
from swin_jax.train.setup import Run, read_frozen
from swin_jax.train.state import first_state
from swin_jax.train.workdir import make_workdir


def open_trained(config, workdir: str) -> epath.Path:
    """Opens the workdir of a run to read its weights; makes it if the weights are those of `init_from`.

    Raises:
        UserError: No checkpoint and no `init_from`, an unusable workdir.
    """
    folder = storage.path(workdir)
    if not checkpoint.exists(folder):
        if not config.init_from.path:
            where = checkpoint.folder(folder)
            raise UserError(f"no checkpoint in {where}: train first, or give --config.init_from.path=")
        configs.build(config.init_from, "init_from").check()
    make_workdir(folder)
    return folder


def trained(config, run: Run, folder: epath.Path) -> tuple[TrainState, Any, dict]:
    """Restores the state, frozen arrays and metadata for inference (EMA weights if kept)."""
    state, meta = first_state(config, run, checkpoint.open(folder, write=False), write=False)
    for line in resume.model_changes(config, meta.get("config", {})):
        print(f"changed since this model was trained: {line}", file=sys.stderr, flush=True)
    state = state if state.ema is None else state.replace(params=state.ema)
    return state, sharding.device_put_tree(read_frozen(run), run.frozen), meta


def pictures(config, images: str) -> Any:
    """The `data.pipeline.EvalData` of a folder of images, or of one, read as the config's `predict` says.

    Raises:
        UserError: A config without `predict`, no images.
    """
    prepared = preparation(config)
    config.predict.source.root = images
    return dataclasses.replace(configs.build(config.predict, "predict"), transform=prepared.transform_example)


def preparation(config) -> Preparation:
    """How a run's pictures and texts are prepared, as its `predict` says.

    Raises:
        UserError: A config without `predict`.
    """
    if "predict" not in config:
        raise UserError("this experiment's config has no `predict`, which says how a folder of images is read")
    return of_run(
        configs.flatten(config), "the experiment", configs.build(config.predict.transform, "predict.transform")
    )


def image_encoder(run: Run, state: TrainState, frozen: Any) -> Callable[[EvalData], Iterator]:
    """The encoder for `image_index.build` of a run whose task predicts features."""
    batches = features.feature_batches(run.task, run.placement)

    def encode(data: EvalData) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for found in batches(state, frozen, data):
            yield found["label"], found["image_features"]

    return encode
