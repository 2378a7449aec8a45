"""e4e as a model family that `load` supports."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.models.arcface import IR_SE50
from swin_jax.models.e4e import E4E
from swin_jax.pretrained.arcface.loader import fields_of, inputs, load_run, put
from swin_jax.pretrained.e4e import convert
from swin_jax.pretrained.family import Family, Outputs, Prepare, Weights
from swin_jax.pretrained.preparation import Preparation
from swin_jax.pretrained.preparations.published import of_faces

log = logging.getLogger(__name__)

# The released encoders, for generators of 1024,
# 512 (of 512 x 384 pictures in a square) and 256 pixels.
NUM_WS = {"e4e_ffhq": 18, "e4e_cars": 16, "e4e_church": 14, "e4e_horse": 14}


def find(word: str) -> str | None:
    """The model name that a word stands for: itself, or the released file's name."""
    plain = word.lower().removesuffix(".pt").replace("-", "_").removesuffix("_encode")
    return plain if plain in NUM_WS else None


def fetch(word: str) -> Path:
    """Raises UserError: the released file also holds a generator with a non-commercial license."""
    name = find(word)
    file = f"{name}_encode.pt"
    raise UserError(
        f"{name} is not downloaded, because its file holds a generator under NVIDIA's "
        f"non-commercial license: get {file} as the README of omertov/encoder4editing says, and "
        f"give its path, load({name!r}, weights={file!r})"
    )


def infer_fields(arrays: Mapping[str, np.ndarray], known: Mapping[str, Any]) -> dict:
    """The fields of an E4E, inferred from its arrays alone; see `convert.infer`."""
    return convert.infer(arrays)


def load(weights: Weights, fields: dict, resize: str | None, overrides: dict) -> tuple[E4E, dict]:
    """Makes an E4E with these weights, and logs their license."""
    model = E4E(**fields | overrides)
    variables = put(convert.from_official(weights.arrays, model), model)
    log.warning("%s: %s", weights.path, convert.LICENSE)
    return model, variables


def load_workdir(
    workdir: str | Path, config: dict, resize: str | None, overrides: dict
) -> tuple[E4E, dict]:
    """The encoder that a run trained, with its averaged weights if the run kept an average."""
    return load_run(E4E, workdir, config, overrides)


def preprocess(model: E4E, word: str | None) -> Preparation:
    """The preparation of whole pictures that are aligned as in FFHQ."""
    return of_faces(model.image_size)


def predict(
    model: E4E, variables: dict, batch: Mapping[str, jax.Array], prepare: Prepare
) -> Outputs:
    """Computes `latents` in W+: (B, num_ws, w_dim)."""
    return {"latents": model.apply(variables, prepare(batch["image"]))}


FAMILY = Family(
    title="e4e",
    usual="e4e_ffhq",
    names=lambda: list(NUM_WS),
    fields=fields_of(E4E),
    sizes=("num_ws", "image_size", "blocks", "w_dim"),
    models=(E4E,),
    makers=(E4E,),
    find=find,
    fetch=fetch,
    source="its file, NAME_encode.pt, is given as weights=",
    preset=lambda word: dict(num_ws=NUM_WS[find(word)], image_size=256, blocks=IR_SE50, w_dim=512),
    recognizes=convert.is_e4e,
    infer=infer_fields,
    make=E4E,
    load=load,
    load_workdir=load_workdir,
    preprocess=preprocess,
    inputs=inputs,
    predict=predict,
)
