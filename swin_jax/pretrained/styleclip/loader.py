"""StyleCLIP's latent mappers as a family of `load`."""

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.public_names import name_of
from swin_jax.models.styleclip import LevelsMapper, SingleMapper, StyleSpaceMapper, make_mapper
from swin_jax.pretrained.arcface.loader import load_run
from swin_jax.pretrained.family import Family, Outputs, Prepare, Weights
from swin_jax.pretrained.preparation import Preparation
from swin_jax.pretrained.styleclip import mappers

log = logging.getLogger(__name__)

NAME = "latent_mapper"
LICENSE = (
    "StyleCLIP's code is under the MIT license; "
    "the generator in files of its mappers is NVIDIA's, non-commercial"
)
MODELS = (LevelsMapper, SingleMapper, StyleSpaceMapper)
Mapper = LevelsMapper | SingleMapper | StyleSpaceMapper
_LATENT = (1, 18, 512)  # of the published generators of faces


def find(word: str) -> str | None:
    """The name that a word means, in any spelling; None for another."""
    return NAME if word.lower().replace("-", "_") == NAME else None


def fetch(word: str) -> Path:
    """Raises UserError: a mapper is a file for one text."""
    raise UserError(
        "mappers are not downloaded, because their files hold a generator under NVIDIA's "
        "non-commercial license: get one as the README of orpatashnik/StyleCLIP says, and give "
        f"its path, load({NAME!r}, weights='purple_hair.pt')"
    )


def load(
    weights: Weights, fields: dict, resize: str | None, overrides: dict
) -> tuple[Mapper, dict]:
    """A mapper with these weights, which tell its class; the log names the license of the file."""
    model = make_mapper(**mappers.infer(weights.arrays) | overrides)
    variables = mappers.from_official(weights.arrays, model)
    log.warning("%s: %s", weights.path, LICENSE)
    return model, jax.device_put(variables)


def load_workdir(
    workdir: str | Path, config: dict, resize: str | None, overrides: dict
) -> tuple[Mapper, dict]:
    """The mapper that a run trained; `config` is the run's."""
    (kind,) = (model for model in MODELS if name_of(model) == config["task.model.fn"])
    return load_run(kind, workdir, config, overrides)


def preprocess(model: Mapper, word: str | None) -> Preparation:
    """Raises UserError: a mapper takes no pictures."""
    raise UserError("a mapper takes latents, not pictures: W+ of an inverted picture, or styles")


def inputs(model: Mapper, image_size: Any = None) -> dict[str, jax.ShapeDtypeStruct]:
    """One row of `latent`, W+ of the published generators, or of `styles`, those of all layers."""
    if isinstance(model, StyleSpaceMapper):
        return {"styles": jax.ShapeDtypeStruct((1, sum(model.channels)), jnp.float32)}
    return {"latent": jax.ShapeDtypeStruct(_LATENT, jnp.float32)}


def predict(
    model: nn.Module, variables: dict, batch: Mapping[str, jax.Array], prepare: Prepare
) -> Outputs:
    """`step`, which an edit adds 0.1 times to the latent."""
    (latent,) = batch.values()
    return {"step": model.apply(variables, latent)}


def infer_fields(arrays: Mapping[str, np.ndarray], known: Mapping[str, Any]) -> dict:
    """`mappers.infer`, which needs nothing that is known."""
    return mappers.infer(arrays)


FAMILY = Family(
    title="latent mapper",
    usual=NAME,
    names=lambda: [NAME],
    fields=frozenset(inspect.signature(make_mapper).parameters),
    sizes=(),
    models=MODELS,
    makers=MODELS,
    find=find,
    fetch=fetch,
    source="its file is given as weights=",
    preset=lambda word: dict(kind="levels"),
    recognizes=mappers.is_mapper,
    infer=infer_fields,
    make=make_mapper,
    load=load,
    load_workdir=load_workdir,
    preprocess=preprocess,
    inputs=inputs,
    predict=predict,
)
