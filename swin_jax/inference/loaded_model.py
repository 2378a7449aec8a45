"""A model of `load` as a task that only predicts:
its features are those of a run, to the last bit.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core import params
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import FiniteFloat, PositiveFloat, check_scale, checked
from swin_jax.data.pipeline import EvalData
from swin_jax.evals import features
from swin_jax.evals.features import Encode
from swin_jax.ops import augmentation
from swin_jax.pretrained.load import family_of, shapes
from swin_jax.pretrained.media import shown
from swin_jax.pretrained.preparation import Preparation
from swin_jax.pretrained.preprocess import preprocess
from swin_jax.tasks.base import TrainState

Preprocess = Callable[[Any], np.ndarray]  # pictures -> (B, H, W, 3) float32, normalized


@checked
@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A task without training.

    Attributes:
        model: A model of `load`.
        mean, std: Mean and deviation of each channel, for uint8 pixels;
            floating point is taken as normalized.
    """

    model: nn.Module
    mean: tuple[FiniteFloat, ...]
    std: tuple[PositiveFloat, ...]

    def __post_init__(self):
        check_scale(self.mean, self.std)

    def predict(
        self, state: TrainState, batch: Mapping[str, jax.Array], frozen: Any
    ) -> dict[str, jax.Array]:
        """The outputs of the model's family for `image`, `video` or `text`."""

        def prepare(pixels):
            if pixels.dtype == jnp.uint8:
                return augmentation.normalize(pixels, self.mean, self.std)
            return pixels

        variables = {"params": state.params, **state.mutable}
        return family_of(self.model).predict(self.model, variables, batch, prepare)


@dataclasses.dataclass(frozen=True)
class _WhereTheyAre:
    """A placement that leaves arrays on the devices that hold the variables."""

    mesh: None = None

    def round_up(self, batch_size: int) -> int:
        return batch_size

    def rows(self, batch_size: int) -> Sequence[int]:
        return range(batch_size)

    def to_global(self, batch: dict[str, np.ndarray], batch_size: int) -> dict[str, np.ndarray]:
        return batch


def preparation_of(
    model: nn.Module, given: Preparation | Preprocess | None
) -> Preparation | Preprocess:
    """The preparation, or function, that is given; if none is, the model's own.

    Raises:
        UserError: Anything else.
    """
    if given is None:
        return preprocess(model)
    if not callable(given):
        raise UserError(
            f"preprocess={shown(given)} is neither a preparation, "
            "which swin_jax.preprocess() gives, nor a function"
        )
    return given


def example_transform(
    prepare: Preparation | Preprocess,
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Makes a transform of records whose `image` has any form that `preprocess` takes.

    Returns:
        {'image': picture, 'label': int} -> the same with `image` uint8,
        or floating point where a function prepares it.
    """
    pixels = prepare.pixels if isinstance(prepare, Preparation) else prepare
    return lambda example: {"image": pixels(example["image"])[0], "label": example["label"]}


def image_batches(
    model: nn.Module, variables: dict, prepare: Preparation | Preprocess, data: EvalData
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Features of pictures.

    Args:
        model: A model of pictures and texts.
        variables: Variables of the model.
        prepare: The argument of the `example_transform` that prepares `data`.
        data: Pictures, prepared by it.

    Yields:
        (label (n,), features (n, E) float32 of length 1) of the records in order.
    """
    batches = _image_features(_task(model, prepare))
    for found in batches(_state(variables), {}, data):
        yield found["label"], found["image_features"]


def text_encoder(model: nn.Module, variables: dict) -> Encode:
    """A function of (B, L) int32 tokens that gives their features, (B, E) float32 of length 1."""
    return _text_features(LoadedModel(model, (), ()))(_state(variables), {})


def check_features(model: Any, variables: Any) -> None:
    """Raises UserError unless `model` is one of pictures and texts, and `variables` are of it."""
    try:
        inputs = family_of(model).inputs(model, 32)
    except UserError:
        inputs = {}
    if "text" not in inputs:
        raise UserError(
            f"a {type(model).__name__} has no text encoder; load a CLIP, "
            "swin_jax.load('ViT-B/32', ...)"
        )
    check_variables(variables, _shapes(model))


def check_variables(variables: Any, expected: Mapping[str, Any]) -> None:
    """Compares variables with those of a model.

    Args:
        variables: {collection: tree of arrays}, as `swin_jax.load` gives them.
        expected: The shapes of the model's variables, from `pretrained.load.shapes`.

    Raises:
        UserError: Anything but such a dict; arrays that are missing, of another shape or not the
            model's. The first of them is named.
    """
    what = "variables must be those of the model, {'params': ...}"
    if not isinstance(variables, Mapping):
        raise UserError(f"{what}, not {_kind(variables)}")
    if absent := sorted(expected.keys() - variables.keys()):
        found = ", ".join(map(str, variables)) or "nothing"
        raise UserError(f"{what}: {absent[0]!r} is not among {found}")
    wanted = params.flatten(dict(expected))
    found = params.flatten({name: variables[name] for name in expected})
    for path in [*wanted, *found]:
        ours, theirs = (np.shape(tree[path]) if path in tree else None for tree in (found, wanted))
        if ours != theirs:
            here, there = _size(ours), _size(theirs)
            raise UserError(
                f"these variables are of another model: {path} is {here}, in this model {there}"
            )


def _size(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else f"of shape {shape}"


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _task(model: nn.Module, prepare: Preparation | Preprocess) -> LoadedModel:
    if isinstance(prepare, Preparation):
        return LoadedModel(model, tuple(prepare.mean), tuple(prepare.std))
    return LoadedModel(model, (), ())


def _state(variables: dict) -> TrainState:
    mutable = {name: tree for name, tree in variables.items() if name != "params"}
    return TrainState(np.zeros((), np.int32), variables["params"], (), mutable)


# Traced and compiled once for a model, however often it is asked.
_shapes = functools.lru_cache(maxsize=16)(shapes)


@functools.lru_cache(maxsize=16)
def _image_features(task: LoadedModel) -> Callable:
    return features.feature_batches(task, _WhereTheyAre())


@functools.lru_cache(maxsize=16)
def _text_features(task: LoadedModel) -> Callable:
    return features.text_encoder(task, _WhereTheyAre())
