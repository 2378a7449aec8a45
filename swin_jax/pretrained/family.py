"""The interface of a model family: the functions and facts that `load`, `preprocess` and `export`
need.

A family has folders in `models/` and `pretrained/`, experiments, and a `FAMILY`, made by its
loader, in the tuple of `pretrained/load.py`.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from swin_jax.pretrained.beside import Config
from swin_jax.pretrained.preparation import Preparation

Outputs = dict[str, jax.Array]
Prepare = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Weights:
    """Arrays that were read, and where they came from.

    Attributes:
        arrays: {name: array}, names as in the file.
        path: The file that they were read from.
        words: Words that the user asked for the weights with: a name as given, a repository or a
            URL.
        name: The name of the model that they are for, as given; None to infer the model from the
            arrays alone.
        published: True if they are published weights, fetched by name.
        config: The config of their model that lies beside them, or None.
    """

    arrays: Mapping[str, np.ndarray]
    path: Path | None = None
    words: tuple[str, ...] = ()
    name: str | None = None
    published: bool = False
    config: Config | None = None


def _no_arguments(weights: Weights) -> dict:
    return {}


@dataclasses.dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        title: Name in messages, 'Swin' for example.
        usual: Name of the model to suggest if only the title is given.
        names: () -> all names that can be loaded.
        fields: Names of the arguments that make a model.
        sizes: Names in `fields` for which weights and model must have the same value.
        takes: Other families whose weights `load` can fit if the sizes are the same.
        resizes: Values that `resize` may have.
        models: Classes of its models.
        makers: Classes and functions that a run may name for its model.
        place: Dotted key of the model in the config of a run.
        find: A word (a name, another spelling of it, or a repository) -> the model name that it
            stands for, or None.
        fetch: A word that `find` accepts -> the path of its published weights,
            downloaded unless they are in the cache.
        source: Advice on how to get trained weights, for the warning about random ones.
        preset: A word that `find` accepts -> arguments that make the model.
        recognizes: {name: array} of a file -> True if it is of this family.
        infer: ({name: array}, known arguments) -> arguments of the model that the
            arrays belong to.
        configured: Weights -> arguments of the model that a config beside them gives and
            their arrays don't; raises UserError for a field that is not supported or
            contradicts the arrays.
        make: (**arguments) -> a model; overrides are checked against the ranges in its signature.
        load: (weights, arguments of the model that they were made for, resize,
            overrides) -> (model, variables).
        load_workdir: (workdir, its flat config, resize, overrides) -> (model, variables).
        preprocess: (model, the word that it was loaded by or None) -> its Preparation.
        inputs: (model, image_size or None for its own) -> {name: the shape and dtype of one row}.
        predict: (model, variables, batch of its inputs,
            function to apply to pixels first) -> outputs by name.
    """

    title: str
    usual: str
    names: Callable[[], Collection[str]]
    fields: frozenset[str]
    sizes: tuple[str, ...]
    models: tuple[type, ...]
    makers: tuple[Callable, ...]
    find: Callable[[str], str | None]
    fetch: Callable[[str], Path]
    preset: Callable[[str], dict]
    recognizes: Callable[[Mapping[str, np.ndarray]], bool]
    infer: Callable[[Mapping[str, np.ndarray], Mapping[str, Any]], dict]
    make: Callable[..., nn.Module]
    load: Callable[[Weights, dict, str | None, dict], tuple[nn.Module, dict]]
    load_workdir: Callable[[str | Path, dict, str | None, dict], tuple[nn.Module, dict]]
    preprocess: Callable[[nn.Module, str | None], Preparation]
    inputs: Callable[[nn.Module, Any], dict[str, jax.ShapeDtypeStruct]]
    predict: Callable[[nn.Module, dict, Mapping[str, jax.Array], Prepare], Outputs]
    place: str = "task.model"
    takes: tuple["Family", ...] = ()
    resizes: tuple[str, ...] = ()
    source: str = "weights='official' downloads the published ones"
    configured: Callable[[Weights], dict] = _no_arguments
