"""A trained run for inference: its newest weights, and pictures prepared for it.
Nothing is overwritten.
"""

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from etils import epath

from swin_jax.core import config as configs
from swin_jax.core import storage, termination
from swin_jax.core.errors import UserError, warn
from swin_jax.core.output.progress import Progress
from swin_jax.core.output.text import say
from swin_jax.data import unreadable
from swin_jax.data.pipeline import EvalData
from swin_jax.evals import features
from swin_jax.pretrained import beside, processors
from swin_jax.pretrained.arguments import read_config
from swin_jax.pretrained.preparation import TRANSFORMS, Preparation
from swin_jax.pretrained.run_preparation import of_run
from swin_jax.tasks.base import TrainState
from swin_jax.train import checkpoint, sharding
from swin_jax.train.label_space import takes_classifier
from swin_jax.train.setup import Run, read_frozen
from swin_jax.train.state import first_state
from swin_jax.train.workdir import check_place, make_workdir, resume

_THREADS = 4
_OF_TEXTS = ("clean", "vocabulary", "context_length")


def open_trained(config, workdir: str, writes: bool = True) -> epath.Path:
    """Opens the workdir of a run to read its weights;
    makes it if the weights are those of `init_from`.

    Args:
        config: The experiment's config.
        workdir: Workdir of the run.
        writes: True if something will be written into it;
            otherwise a run that may only be read will do.

    Raises:
        UserError: No checkpoint and no `init_from`, an unusable workdir, a config of more layers
            than its checkpoint has.
    """
    folder = storage.path(workdir)
    has_weights = checkpoint.exists(folder)
    if has_weights:
        checkpoint.check_layers(folder, configs.flatten(config))
    if not has_weights:
        check_place(folder)
        if not config.init_from.path:
            where = checkpoint.folder(folder)
            raise UserError(
                f"no checkpoint in {where}: train first, or give --config.init_from.path="
            )
        check_first_weights(config, workdir)
    if writes or not has_weights:
        make_workdir(folder)
    return folder


def check_first_weights(config, workdir: str) -> None:
    """Warns where a run without a checkpoint uses the weights of `init_from` as they are, on
    pictures prepared in another way, or as a classifier of one class where they tell several.

    Raises:
        UserError: `init_from` has no weights, or a config beside them cannot be read.
    """
    if checkpoint.exists(storage.path(workdir)) or not config.init_from.path:
        return
    configs.build(config.init_from, "init_from").check()
    _tell_other_classifier(config)
    if own := _own_preparation(config):
        _tell_other_preparation(config.init_from.path, own)


def _tell_other_classifier(config) -> None:
    """Warns where a classifier was trained to tell each class by itself, and the run gives
    probabilities of all together, or the other way round.
    """
    source, several = config.init_from, config.get("task", {}).get("multi_label")
    if several is None or not takes_classifier(source):
        return
    trained = _has_several_labels(source.path)
    if trained in (None, several):
        return
    ways = ("one class for each record, by a softmax", "each class by itself, by a sigmoid")
    warn(
        f"{source.path} was trained to tell {ways[trained]}; with --config.task.multi_label="
        f"{several} this run tells {ways[several]}: give --config.task.multi_label={trained}"
    )


def _has_several_labels(source: str) -> bool | None:
    """True for a classifier of several classes for a record, as its run or transformers' config
    tells it; None where nothing does.
    """
    if (storage.path(source) / "checkpoints").is_dir():
        return read_config(source).get("task.multi_label")
    beside_it = None if storage.is_remote(source) else beside.config_beside(beside.locate(source))
    kind = beside_it.fields.get("problem_type") if beside_it else None
    known = {"multi_label_classification": True, "single_label_classification": False}
    return known.get(kind) if isinstance(kind, str) else None


def check_first_pixels(config, workdir: str) -> None:
    """Warns where a run is to be trained from weights whose pictures had another mean or standard
    deviation. Sizes and crops are the recipe's.
    """
    if checkpoint.exists(storage.path(workdir)) or not config.init_from.path:
        return
    source = config.init_from.path
    try:
        own = _own_preparation(config)
    except UserError:  # of predictions, which are not what is asked for
        return
    if own is None or not storage.path(source).exists():  # which `init_from` tells
        return
    try:
        theirs = _preparation_of(source, own)
    except UserError as error:
        warn(f"how {source} was trained is not told: {error}")
        return
    if theirs is None or len(theirs.mean) != len(own.mean):
        return
    wrong = [name for name in ("mean", "std") if not _equal(theirs, own, name)]
    if wrong:
        there, here = (
            " and ".join(f"{name}={tuple(getattr(one, name))}" for name in wrong)
            for one in (theirs, own)
        )
        warn(
            f"{source} was trained on pictures normalized with {there}, this run has {here}; "
            f"give {' '.join(f'--config.task.{name}=' for name in wrong)} to use the same"
        )


def _equal(one: Preparation, other: Preparation, name: str) -> bool:
    return np.allclose(getattr(one, name), getattr(other, name), atol=5e-4)


def _own_preparation(config) -> Preparation | None:
    """The preparation of an experiment on images; None for others, and where nothing tells it."""
    if "predict" not in config:
        return None
    own = preparation(config)
    return own if own.transform in TRANSFORMS["image"] and own.mean else None


def _preparation_of(source: str, own: Preparation) -> Preparation | None:
    """The preparation that comes with weights, a run's or what lies beside a file;
    None where nothing tells it.
    """
    if (storage.path(source) / "checkpoints").is_dir():
        try:
            found = of_run(read_config(source), source)
        except UserError:
            return None
        return found if found.input == own.input and found.mean else None
    told = (
        None if storage.is_remote(source) else processors.preparation_beside(beside.locate(source))
    )
    if told is None:
        return None
    if own.context_length is None:
        told = {name: value for name, value in told.items() if name not in _OF_TEXTS}
    return dataclasses.replace(own, **told, **({"function": None} if "transform" in told else {}))


def _tell_other_preparation(source: str, own: Preparation) -> None:
    theirs = _preparation_of(source, own)
    if theirs is None:
        return
    height, width = own.image_size or (64, 64)
    size = (2 * height + 7, 3 * width + 4, 3)
    noise = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    one, other = own(noise), theirs(noise)
    texts = [name for name in _OF_TEXTS if getattr(own, name) != getattr(theirs, name)]
    same_pixels = one.shape == other.shape and np.allclose(one, other, atol=1e-6)
    if texts or not same_pixels or own.conversion != theirs.conversion:
        only_conversion = same_pixels and not texts
        flags = "--config.conversion=" if only_conversion else "--config.task.mean= and so on"
        there, here = (
            " and ".join(
                [found.fingerprint(), *(f"{name}={getattr(found, name)!r}" for name in texts)]
            )
            for found in (theirs, own)
        )
        warn(
            f"{source} comes with another preparation than this experiment's: "
            f"{there}, here {here}; give {flags}"
        )


def trained(config, run: Run, folder: epath.Path) -> tuple[TrainState, Any, dict]:
    """Restores the state, frozen arrays and metadata for inference (EMA weights if kept)."""
    termination.check()
    state, meta = first_state(config, run, checkpoint.open(folder, write=False), write=False)
    if changes := resume.used_changes(config, meta.get("config", {})):
        say(f"changed since this model was trained: {changes}")
    state = state if state.ema is None else state.replace(params=state.ema)
    return state, sharding.device_put_tree(read_frozen(run), run.frozen), meta


def pictures(config, images: str) -> Any:
    """The `data.pipeline.EvalData` of a folder of images, or of one,
    read as the config's `predict` says.

    Raises:
        UserError: A config without `predict`, no images.
    """
    prepared = preparation(config)
    config.predict.source.root = images
    return dataclasses.replace(
        configs.build(config.predict, "predict"), transform=prepared.transform_example
    )


def preparation(config) -> Preparation:
    """The preparation of a run's pictures and texts, as its `predict` says.

    Raises:
        UserError: A config without `predict`.
    """
    if "predict" not in config:
        raise UserError(
            "this experiment's config has no `predict`, which says how a folder of images is read"
        )
    return of_run(
        configs.flatten(config),
        "the experiment",
        configs.build(config.predict.transform, "predict.transform"),
    )


def image_encoder(run: Run, state: TrainState, frozen: Any) -> Callable[[EvalData], Iterator]:
    """The encoder for `image_index.build` of a run whose task predicts features."""
    batches = features.feature_batches(run.task, run.placement)

    def encode(data: EvalData) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for found in batches(state, frozen, data):
            yield found["label"], found["image_features"]

    return encode


def examples(data: EvalData, transform: Callable[[dict], dict]) -> Iterator[tuple[str, dict]]:
    """(name, transformed example) of every record that can be read; names the others."""

    def tell(what, index, why=""):
        bar.write(f"{what}: {data.source.record_name(index)}{why}")

    def read(index):
        try:
            example = data.source[index]
            if "video" in example and len(example["video"]) == 1:
                tell("one frame only, which the whole clip repeats", index)
            return transform(example)
        except unreadable.CAUSES as error:
            return unreadable.describe(error)

    with (
        ThreadPoolExecutor(_THREADS) as pool,
        Progress(data.num_examples, "files", show=jax.process_index() == 0) as bar,
    ):
        for start in range(0, data.num_examples, data.batch_size):
            indices = range(start, min(start + data.batch_size, data.num_examples))
            for index, example in zip(indices, pool.map(read, indices)):
                bar.update()
                if isinstance(example, str):
                    tell("left out, cannot be read", index, f" ({example})")
                else:
                    yield data.source.record_name(index), example
