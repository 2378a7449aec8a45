"""CLIP as a model family that `load` supports."""

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core import stacking
from swin_jax.core.errors import UserError, warn
from swin_jax.core.sizes import per_axis, simplest
from swin_jax.models import clip, swin
from swin_jax.models.clip import presets as clip_presets
from swin_jax.pretrained import beside, run_config
from swin_jax.pretrained.clip import config as clip_config
from swin_jax.pretrained.clip import convert as convert_clip
from swin_jax.pretrained.clip import resize as clip_resize
from swin_jax.pretrained.clip import urls as clip_official
from swin_jax.pretrained.clip.activation import Activation, activation
from swin_jax.pretrained.family import Family, Weights
from swin_jax.pretrained.preparation import Preparation
from swin_jax.pretrained.preparations.published import of_pairs

log = logging.getLogger(__name__)

FIELDS = frozenset(inspect.signature(clip.make_clip).parameters)
VOCAB_SIZE = 49408  # tokens in CLIP's vocabulary
# Weights that differ from the model in one of these never fit; positions and heads can be fitted.
SIZES = (
    "embed_dim",
    "vision_layers",
    "vision_width",
    "patch_size",
    "text_width",
    "text_layers",
    "vocab_size",
)


def names() -> list[str]:
    """The names in `models.clip.PRESETS`."""
    return list(clip_presets.PRESETS)


def find(word: str) -> str | None:
    """The model name that a word stands for: another spelling of it, or a repository of OpenAI's
    weights on the hub.
    """
    repositories = {
        known: name for name, known in clip_official.HUB.items()
    } | clip_official.TRANSFORMERS
    return repositories.get(word) or clip_presets.canonical_name(word)


def fetch(word: str) -> Path:
    """Downloads OpenAI's weights of the model that a word stands for; returns their path."""
    return clip_official.fetch(word if word in clip_official.HUB.values() else find(word))


def preset(word: str) -> dict:
    """Arguments of the CLIP that a word stands for; 'quickgelu' in the word sets the activation."""
    fields = clip_presets.PRESETS[find(word)]
    return fields | {"act": "quick_gelu"} if "quickgelu" in word.lower() else fields


def infer_fields(arrays: Mapping[str, np.ndarray], known: Mapping[str, Any]) -> dict:
    """Infers the arguments of a CLIP with `infer.infer`, given the heads and image size in `known`.

    Raises:
        UserError: `infer.infer` raises it, or the grid of the positions is unknown.
    """
    heads, size = (known.get("vision_heads"), known.get("text_heads")), known.get("image_size")
    found = convert_clip.infer(arrays, *heads, size)
    if convert_clip.told_image_size(arrays, size) is None:
        raise UserError(
            "the grid of these weights' positions is unknown (64 of them can be 8 x 8 "
            "or 4 x 16): give image_size, a number of pixels or (height, width)"
        )
    return found


def configured(weights: Weights) -> dict:
    """The arguments of a CLIP that the config beside its weights gives, including `image_size`."""
    if weights.config is None:
        return {}
    declared = clip_config.declared_image_size(weights.config)
    found = clip_config.arguments_of(
        weights.config, convert_clip.infer(weights.arrays, 1, 1, declared)
    )
    return found if declared is None else found | {"image_size": declared}


def load(
    weights: Weights, fields: dict, resize: str | None, overrides: dict
) -> tuple[clip.CLIP, dict]:
    """Makes a CLIP with these weights, which were made for a model of `fields`; logs where its
    activation comes from.
    """
    evidence = _evidence(weights, overrides.get("act"))
    model = clip.make_clip(**fields | {"act": evidence.act} | overrides)
    act = model.text.act
    if "act" not in overrides and not evidence.known:
        warn(
            f"act={act!r} is assumed, since {evidence.source}; weights of the same shape exist "
            "with the other activation and would silently lose accuracy: give act='quick_gelu' or "
            "act='gelu', whichever the publisher of the weights states",
        )
    elif act != evidence.act and evidence.known:
        warn(f"act={act!r}, but the weights were trained with {evidence.act!r}: {evidence.source}")
    if model.text.vocab_size > VOCAB_SIZE and not _has_tokenizer(weights):
        warn(
            f"the text tower has {model.text.vocab_size} tokens, not the {VOCAB_SIZE} of CLIP's "
            "vocabulary: give it the token ids of its own tokenizer, and check at which token it "
            "takes the features of a text (here the one with the highest id)"
        )
    log.info("act=%r: %s", act, "as asked for" if "act" in overrides else evidence.source)
    return model, _put(
        convert_clip.from_official(weights.arrays, model, resize, fields["image_size"]), model
    )


def _has_tokenizer(weights: Weights) -> bool:
    """True if a tokenizer of transformers lies beside a file; `texts` warns about its contents."""
    if weights.config is None or weights.config.kind != beside.TRANSFORMERS:
        return False
    return any(
        weights.config.path.with_name(name).is_file() for name in ("tokenizer.json", "vocab.json")
    )


def _evidence(weights: Weights, given: str | None) -> Activation:
    if weights.published:
        return Activation("quick_gelu", "they are OpenAI's own")
    try:
        return activation(weights.arrays, weights.words, weights.path)
    except UserError as error:
        if given is None:
            raise
        return Activation(given, str(error), known=False)


def _put(variables: dict, model: clip.CLIP) -> dict:
    """Puts variables on the default device, each tower in its `param_dtype`; the logit scale and
    running statistics stay float32.
    """
    params = dict(variables["params"])
    for name, tower in (("visual", model.visual), ("text", model.text)):
        params[name] = jax.tree.map(
            lambda leaf, dtype=tower.param_dtype: leaf.astype(dtype), params[name]
        )
    return jax.device_put({**variables, "params": params})


def load_workdir(
    workdir: str | Path, config: dict, resize: str | None, overrides: dict
) -> tuple[clip.CLIP, dict]:
    """The CLIP that a run trained; `config` is the run's."""
    from swin_jax.train import checkpoint

    if given := ", ".join([*overrides, *(["resize"] if resize else [])]):
        raise UserError(
            f"{workdir} holds a trained CLIP, which cannot be changed on loading: leave out {given}"
        )
    model, variables = run_config.clip_of(config), checkpoint.load_variables(workdir)
    if isinstance(model.visual, swin.Swin):
        visual = stacking.stack_as(variables["params"]["visual"], model.visual)
        variables = {**variables, "params": {**variables["params"], "visual": visual}}
    return model, jax.device_put(variables)


def preprocess(model: clip.CLIP, word: str | None) -> Preparation:
    """OpenAI's preparation, with the image size and context length of the towers."""
    return of_pairs(simplest(_sizes(model)), model.text.context_length, assumed=word is None)


def _sizes(model: clip.CLIP, image_size: int | tuple[int, int] | None = None) -> tuple[int, ...]:
    """Height and width of the images that a model takes."""
    size = image_size or getattr(model.visual, "image_size", None)
    if size is None:
        raise UserError(
            f"a {type(model.visual).__name__} has no field image_size: give image_size="
        )
    return per_axis(size, 2)


def inputs(
    model: clip.CLIP, image_size: int | tuple[int, int] | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch of one: `image`, normalized floats, and `text`, token ids."""
    return {
        "image": jax.ShapeDtypeStruct((1, *_sizes(model, image_size), 3), jnp.float32),
        "text": jax.ShapeDtypeStruct((1, model.text.context_length), jnp.int32),
    }


FAMILY = Family(
    title="CLIP",
    usual="ViT-B/32",
    names=names,
    fields=FIELDS,
    sizes=SIZES,
    models=(clip.CLIP,),
    makers=(clip.CLIP, clip.make_clip),
    find=find,
    fetch=fetch,
    preset=preset,
    recognizes=convert_clip.is_clip,
    infer=infer_fields,
    configured=configured,
    make=clip.make_clip,
    load=load,
    load_workdir=load_workdir,
    preprocess=preprocess,
    inputs=inputs,
    predict=clip.encode,
    resizes=clip_resize.METHODS,
)
