"""ArcFace's IR-SE50 as a model family that `load` supports."""

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
from swin_jax.core.saved_config import tuples
from swin_jax.models.arcface import IR_SE50, IRSE
from swin_jax.pretrained.arcface import convert
from swin_jax.pretrained.family import Family, Outputs, Prepare, Weights
from swin_jax.pretrained.preparation import Preparation
from swin_jax.pretrained.preparations.published import of_faces

log = logging.getLogger(__name__)

NAME, FILE = "ir_se50", "model_ir_se50.pth"


def fields_of(kind: type[nn.Module]) -> frozenset[str]:
    """Names of the arguments that a model class takes."""
    return frozenset(inspect.signature(kind).parameters) - {"parent", "name"}


def find(word: str) -> str | None:
    """The model name that a word stands for: another spelling, or the released file's name."""
    plain = word.lower().removesuffix(".pth").replace("-", "_").removeprefix("model_")
    return NAME if plain in (NAME, "irse50", "ir_se_50") else None


def fetch(word: str) -> Path:
    """Raises UserError: the weights are not downloaded, because no terms of use are stated."""
    raise UserError(
        f"{NAME} is not downloaded, because no terms of use are stated for its weights: get "
        f"{FILE} as the README of orpatashnik/StyleCLIP or of TreB1eN/InsightFace_Pytorch says, "
        f"and give its path, load({NAME!r}, weights={FILE!r})"
    )


def infer_fields(arrays: Mapping[str, np.ndarray], known: Mapping[str, Any]) -> dict:
    """The fields of an IRSE, inferred from its arrays alone; see `convert.infer`."""
    return convert.infer(arrays)


def load(weights: Weights, fields: dict, resize: str | None, overrides: dict) -> tuple[IRSE, dict]:
    """Makes an IRSE with these weights, and logs their license."""
    model = IRSE(**fields | overrides)
    variables = put(convert.from_official(weights.arrays, model), model)
    log.warning("%s: %s", weights.path, convert.LICENSE)
    return model, variables


def put(variables: dict, model: Any) -> dict:
    """Puts variables on the default device: parameters in the model's `param_dtype`, all others
    in float32.
    """
    params = jax.tree.map(lambda leaf: leaf.astype(model.param_dtype), variables["params"])
    return jax.device_put({**variables, "params": params})


def load_workdir(
    workdir: str | Path, config: dict, resize: str | None, overrides: dict
) -> tuple[IRSE, dict]:
    """The network that a run trained, with its averaged weights if the run kept an average.

    Args:
        workdir: Workdir of the run.
        config: The run's config.
        resize: Ignored.
        overrides: Must be empty.
    """
    return load_run(IRSE, workdir, config, overrides)


def load_run(
    kind: type[nn.Module], workdir: str | Path, config: dict, overrides: dict
) -> tuple[nn.Module, dict]:
    """Makes a model of a class from a run's config, with the variables that the run trained."""
    from swin_jax.train import checkpoint

    if overrides:
        given = ", ".join(overrides)
        raise UserError(
            f"{workdir} holds a trained network, which cannot be changed on loading: "
            f"leave out {given}"
        )
    found = {
        name: config[f"task.model.{name}"]
        for name in fields_of(kind)
        if f"task.model.{name}" in config
    }
    model = kind(**{name: tuples(value) for name, value in found.items()})
    return model, jax.device_put(checkpoint.load_variables(workdir))


def preprocess(model: IRSE, word: str | None) -> Preparation:
    """The preparation of pictures that are aligned faces: nothing is cropped."""
    return of_faces(model.image_size)


def inputs(model: Any, image_size: int | None = None) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch of one: `image`, an aligned face in -1..1."""
    size = image_size or model.image_size
    return {"image": jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)}


def predict(
    model: IRSE, variables: dict, batch: Mapping[str, jax.Array], prepare: Prepare
) -> Outputs:
    """Computes `features`, the embeddings of the faces: (B, embed_dim), rows of length 1."""
    return {"features": model.apply(variables, prepare(batch["image"]))}


FAMILY = Family(
    title="ArcFace",
    usual=NAME,
    names=lambda: [NAME],
    fields=fields_of(IRSE),
    sizes=("blocks", "image_size", "embed_dim"),
    models=(IRSE,),
    makers=(IRSE,),
    find=find,
    fetch=fetch,
    source=f"its file, {FILE}, is given as weights=",
    preset=lambda word: dict(blocks=IR_SE50, image_size=112, embed_dim=512),
    recognizes=convert.is_arcface,
    infer=infer_fields,
    make=IRSE,
    load=load,
    load_workdir=load_workdir,
    preprocess=preprocess,
    inputs=inputs,
    predict=predict,
)
