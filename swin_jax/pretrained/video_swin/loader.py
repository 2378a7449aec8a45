"""Video Swin as a family of `load`: weights of videos, and of images, which are inflated."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core import stacking
from swin_jax.core.errors import UserError, warn
from swin_jax.core.params import flatten, unflatten
from swin_jax.core.sizes import per_axis
from swin_jax.models import video_swin
from swin_jax.models.video_swin import presets as video_swin_presets
from swin_jax.pretrained import beside, recognize
from swin_jax.pretrained.arguments import random_variables
from swin_jax.pretrained.family import Family, Outputs, Prepare, Weights
from swin_jax.pretrained.preparation import Preparation
from swin_jax.pretrained.preparations.published import of_videos
from swin_jax.pretrained.swin import buffers, finetune
from swin_jax.pretrained.swin import loader as swin
from swin_jax.pretrained.video_swin import convert
from swin_jax.pretrained.video_swin import finetune as video_swin_finetune
from swin_jax.pretrained.video_swin import urls as video_swin_official

FIELDS = frozenset(inspect.signature(video_swin.make_video_swin).parameters)


def names() -> list[str]:
    """The models of `models.video_swin.PRESETS`, and torchvision's names of the same."""
    return [*video_swin_presets.PRESETS, *video_swin_presets.TORCHVISION]


def preset(word: str) -> dict:
    """Arguments of the Video Swin that a word means."""
    return swin.V1 | video_swin_presets.PRESETS[video_swin_presets.canonical_name(word)]


def infer_fields(arrays: Mapping[str, np.ndarray], known: Mapping[str, Any]) -> dict:
    """`convert.infer`, with the window where it is known."""
    return convert.infer(arrays, known.get("window_size"))


def configured(weights: Weights) -> dict:
    """Nothing: no library writes configs of Video Swins.
    That one beside their weights is not read is said.
    """
    if weights.config is not None and convert.is_video(weights.arrays):
        unread = (
            f"{weights.config.path} is not read: a config of "
            f"{weights.config.kind} describes no Video Swin"
        )
        warn(f"{unread}; give load() what else you know, image_size for example")
    return {}


def load(
    weights: Weights, fields: dict, resize: str | None, overrides: dict
) -> tuple[video_swin.VideoSwin, dict]:
    """A Video Swin with these weights, made for a model of `fields`;
    those of an image Swin are inflated.
    """
    if weights.name is None and "pretrained_window_sizes" not in overrides:
        finetune.tell_scale_assumed(weights.arrays, video_swin.make_video_swin(**fields).backbone)
    return _fit(weights.arrays, fields, resize, overrides, weights.config)


def _fit(
    found: Mapping,
    fields: dict,
    resize: str | None,
    overrides: dict,
    config: beside.Config | None = None,
) -> tuple[video_swin.VideoSwin, dict]:
    model = video_swin.make_video_swin(**fields | overrides)
    if convert.is_video(found):
        if "pretrained_window_sizes" not in overrides:
            trained = buffers.coordinate_windows(video_swin.make_video_swin(**fields).backbone)
            finetune.tell_scales(trained, model.backbone)
        fitted = video_swin_finetune.remap(found, model, resize, fields.get("window_size"))
        return model, _put(convert.from_official(fitted, model), model)
    if looks := recognize.recognize(found):
        raise UserError(looks)
    made_for = finetune.fields_beside(found, config)
    fresh = random_variables(model, *inputs(model).values())["params"]
    params = flatten(fresh) | flatten(convert.inflate(found, model, made_for=made_for)["params"])
    said = "the head starts from zeros" if model.num_classes else "there is no head"
    if model.temporal_layers or model.backbone.temporal_window:
        said += ", attention along time from random weights"
    warn(f"weights of an image Swin were inflated; {said}, and the model must be trained")
    heads = {
        path: np.zeros_like(leaf) for path, leaf in params.items() if path.startswith("cls_head/")
    }
    return model, _put({"params": unflatten(params | heads)}, model)


def _put(variables: dict, model: video_swin.VideoSwin) -> dict:
    return jax.device_put(
        jax.tree.map(lambda leaf: leaf.astype(model.backbone.param_dtype), variables)
    )


def load_workdir(
    workdir: str | Path, config: dict, resize: str | None, overrides: dict
) -> tuple[video_swin.VideoSwin, dict]:
    """The model that a run trained, its average if it kept one; `config` is the run's."""
    from swin_jax.train import checkpoint

    fields = video_swin_finetune.fields_of(config)
    params, average, _ = checkpoint.load_params(workdir)
    params = params if average is None else average
    if overrides:
        return _fit(convert.to_state_dict({"params": params}), fields, resize, overrides)
    model = video_swin.make_video_swin(**fields)
    return model, jax.device_put({"params": stacking.stack_as(params, model.backbone)})


def preprocess(model: video_swin.VideoSwin, word: str | None) -> Preparation:
    """The clips of the published models: every second frame,
    or for Something-Something frames of the whole video.
    """
    name = word and video_swin_presets.canonical_name(word)
    uniform = bool(name) and name.endswith("_sthv2")
    return of_videos(model.backbone.image_size, uniform, assumed=word is None)


def inputs(
    model: video_swin.VideoSwin, image_size: int | tuple[int, int, int] | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """One row of `video`: a clip of normalized floats."""
    sizes = per_axis(image_size or model.backbone.image_size, 3)
    return {"video": jax.ShapeDtypeStruct((1, *sizes, model.backbone.in_channels), jnp.float32)}


def predict(
    model: video_swin.VideoSwin, variables: dict, batch: Mapping[str, jax.Array], prepare: Prepare
) -> Outputs:
    """`logits`, or pooled `features` where there is no head."""
    return {
        "logits" if model.num_classes else "features": model.apply(
            variables, prepare(batch["video"])
        )
    }


FAMILY = Family(
    title="Video Swin",
    usual="swin_tiny_patch244_window877_kinetics400_1k",
    names=names,
    fields=FIELDS,
    sizes=swin.SIZES,
    models=(video_swin.VideoSwin,),
    makers=(video_swin.make_video_swin,),
    find=video_swin_presets.canonical_name,
    fetch=video_swin_official.fetch,
    preset=preset,
    recognizes=convert.is_video,
    infer=infer_fields,
    make=video_swin.make_video_swin,
    load=load,
    load_workdir=load_workdir,
    preprocess=preprocess,
    inputs=inputs,
    predict=predict,
    takes=(swin.FAMILY,),
    resizes=video_swin_finetune.RESIZES,
    configured=configured,
)
