"""Swin, Swin V2, Swin-MLP and the encoders of SimMIM as a family of `load`."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core import stacking, storage
from swin_jax.core.errors import UserError, warn
from swin_jax.core.public_names import name_of
from swin_jax.core.saved_config import tuples
from swin_jax.core.sizes import per_axis, simplest
from swin_jax.models import simmim, swin
from swin_jax.ops.window_geometry import num_axes
from swin_jax.pretrained import beside
from swin_jax.pretrained.arguments import read_config
from swin_jax.pretrained.family import Family, Outputs, Prepare, Weights
from swin_jax.pretrained.preparation import Preparation
from swin_jax.pretrained.preparations.published import of_pictures, of_videos
from swin_jax.pretrained.swin import buffers, finetune, imagenet22k, infer, layouts, urls
from swin_jax.pretrained.swin import config as swin_config
from swin_jax.pretrained.swin import convert as convert_swin

FIELDS = frozenset(field.name for field in dataclasses.fields(swin.Swin)) - {"parent", "name"}
SIZES = ("embed_dim", "depths", "num_heads", "token_mixer", "cosine_attention", "continuous_bias")
# What presets of the first version leave out; a file of version 2 differs in it.
V1 = dict(cosine_attention=False, continuous_bias=False)
ATTENTION = dict(token_mixer="attention")  # the same for files of Swin-MLP


def names() -> list[str]:
    """The models of `models.swin.PRESETS`, and the published files."""
    return list(dict.fromkeys([*swin.PRESETS, *urls.WEIGHTS]))


def find(word: str) -> str | None:
    """The name that a word means: itself, an official file name,
    a timm name or a repository of the hub.
    """
    name = urls.canonical_name(word) or word
    if name in swin.PRESETS or name in urls.WEIGHTS:
        return name
    # transformers' repositories have the official names with dashes; of the large ones, which were
    # never trained on ImageNet-1K alone, without '_22kto1k'.
    plain = word.removeprefix("microsoft/").replace("-", "_").replace("_in22k", "_22k")
    meant = (plain, f"{plain}_22kto1k") if word.startswith("microsoft/swin-large-") else (plain,)
    return next((name for name in meant if name in swin.PRESETS), None)


def preset(word: str) -> dict:
    """Arguments of the Swin that a word means."""
    name = find(word)
    return ATTENTION | V1 | (swin.PRESETS[name] if name in swin.PRESETS else _simmim_preset(name))


def _simmim_preset(name: str) -> dict:
    """Arguments of the encoder (pretrained) or classifier (fine-tuned) that a
    file of SimMIM holds.
    """
    classes = 1000 if name.startswith("simmim_finetune") else 0
    if found := re.match(r"simmim_[a-z]+__swin_([a-z]+)__img(\d+)_window(\d+)__", name):
        variant, size, window = found[1], int(found[2]), int(found[3])
        return dict(
            swin.VARIANTS[variant], window_size=window, image_size=size, num_classes=classes
        )
    variant = re.match(r"simmim_[a-z]+_swinv2_([a-z]+)_", name)[1]
    arguments = dict(
        swin.VARIANTS["giant_1b" if variant == "giant" else variant], **swin.V2, num_classes=classes
    )
    if classes:
        return dict(
            arguments, window_size=14, image_size=224, pretrained_window_sizes=(12, 12, 12, 6)
        )
    return dict(arguments, window_size=12, image_size=192)


def recognizes(arrays: Mapping[str, np.ndarray]) -> bool:
    """True if a file's arrays are of a Swin over two axes, in any layout, and of no segmenter."""
    if layouts.is_segmenter(arrays):
        return False
    found = layouts.official_names(arrays)[0]
    proj = found.get("patch_embed.proj.weight")
    blocks = any(name.startswith("layers.0.blocks.0.") for name in found)
    return blocks and np.ndim(proj) == 4


def infer_fields(arrays: Mapping[str, np.ndarray], known: Mapping[str, Any]) -> dict:
    """`infer.infer`, with the known arguments in place of what the arrays don't tell;
    a Video Swin's without time.
    """
    window, image = (
        size[1:] if isinstance(size, (tuple, list)) and len(size) == 3 else size
        for size in map(known.get, ("window_size", "image_size"))
    )
    return ATTENTION | infer.infer(arrays, window, image)


def configured(weights: Weights) -> dict:
    """`config.arguments_of` what lies beside a file."""
    return swin_config.arguments_of(weights.config, weights.arrays)


def load(
    weights: Weights, fields: dict, resize: str | None, overrides: dict
) -> tuple[swin.Swin, dict]:
    """A Swin with these weights, made for a model of `fields`."""
    if weights.name and (find(weights.name) or "").startswith("simmim_"):
        # Whether the largest have the main-branch norm is not documented.
        fields = fields | dict(main_norm_every=infer.main_norm_every(weights.arrays))
    if (
        weights.name is None
        and "pretrained_window_sizes" not in overrides
        and "window_size" not in configured(weights)
    ):
        finetune.tell_scale_assumed(weights.arrays, swin.Swin(**fields))
    return _fit(
        weights.arrays, swin.Swin(**fields), resize, overrides, infer.trained_scales(weights.arrays)
    )


def _fit(
    found: Mapping,
    made_for: swin.Swin,
    resize: str | None,
    overrides: dict,
    trained: tuple | None = None,
) -> tuple[swin.Swin, dict]:
    """A model like `made_for` but for the overrides, and the weights made to fit it."""
    model = made_for.clone(**overrides)
    library = layouts.library(found)
    is_square = len(set(per_axis(model.image_size, num_axes(model)))) == 1
    # On squares timm's rule is the official one.
    if library in layouts.RULES and not model.out_norms and not (library == "timm" and is_square):
        model = model.clone(small=overrides.get("small", layouts.RULES[library]))
    if "pretrained_window_sizes" not in overrides:
        finetune.tell_scales(trained or buffers.coordinate_windows(made_for), model)
    rows = _rows(found, model)
    variables = convert_swin.from_official(
        finetune.remap(found, model, resize, rows, made_for), model
    )
    return model, jax.device_put(
        jax.tree.map(lambda leaf: leaf.astype(model.param_dtype), variables)
    )


def _rows(state_dict: Mapping, model: swin.Swin) -> np.ndarray | None:
    """The 1K rows of a 22K head where the model wants them and an installed package
    tells which they are.
    """
    if model.num_classes != 1000 or model.out_norms or layouts.num_classes(state_dict) != 21841:
        return None
    try:
        return imagenet22k.derive_map()
    except UserError as error:
        warn(f"the 22K head cannot be cut to 1,000 classes: {error}")
        return None


def arguments_of(path: str) -> dict:
    """The arguments of the Swin whose weights lie at a path; reads no more than they tell.

    Args:
        path: A workdir, of a SimMIM too, a file of weights, or a folder of the hub.

    Raises:
        UserError: Nothing there, or weights of something else.
    """
    if (storage.path(path) / "checkpoints").is_dir():
        fields = finetune.fields_of_run({"config": read_config(path)})
        if fields is None:
            raise UserError(f"{path} is the workdir of a run whose model is not a Swin")
        found = {name: tuples(value) for name, value in vars(fields).items()}
        return {name: value for name, value in found.items() if name in FIELDS}
    arrays = beside.read(beside.locate(path))
    told = finetune.fields_beside(arrays, beside.config_beside(beside.locate(path)))
    return vars(told) if told is not None else infer.infer(arrays)


def load_workdir(
    workdir: str | Path, config: dict, resize: str | None, overrides: dict
) -> tuple[swin.Swin, dict]:
    """The Swin that a run trained, its average if it kept one; of a SimMIM the encoder."""
    from swin_jax.train import checkpoint

    inside = "encoder." if config["task.model.fn"] == name_of(simmim.SimMIM) else ""
    prefix = f"task.model.{inside}"
    keys = [key for key in config if key.startswith(prefix)]
    fields = {key.removeprefix(prefix): tuples(config[key]) for key in keys}
    if fields.pop("fn", None) != name_of(swin.Swin):
        raise UserError(f"{workdir}: its {prefix}fn is {config.get(prefix + 'fn')}, not a Swin")
    params, average, _ = checkpoint.load_params(workdir)
    params = params if average is None else average
    variables = {"params": params["encoder"] if inside else params}
    model = swin.Swin(**fields)
    if not overrides:
        return model, jax.device_put({"params": stacking.stack_as(variables["params"], model)})
    return _fit(convert_swin.to_state_dict(variables), model, resize, overrides)


def preprocess(model: swin.Swin, word: str | None) -> Preparation:
    """The preparation of the official Swins; for a Swin over three axes,
    that of the Video Swins.
    """
    axes = num_axes(model)
    sizes = per_axis(model.image_size, axes)
    if axes == 3:
        return of_videos(sizes, uniform=False, assumed=word is None)
    if axes != 2:
        raise UserError(
            f"image_size={model.image_size} is neither of pictures nor of clips; "
            "give your own function"
        )
    return of_pictures(simplest(sizes), model.in_channels, assumed=word is None)


def inputs(
    model: swin.Swin, image_size: int | tuple[int, ...] | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """One row of `image`, or over three axes of `video`: normalized floats."""
    axes = num_axes(model)
    sizes = per_axis(image_size or model.image_size, axes)
    shape = (1, *sizes, model.in_channels)
    return {"image" if axes == 2 else "video": jax.ShapeDtypeStruct(shape, jnp.float32)}


def predict(
    model: swin.Swin, variables: dict, batch: Mapping[str, jax.Array], prepare: Prepare
) -> Outputs:
    """`logits`, or pooled `features` where there is no head, or the maps `features_0`,
    ... of `out_norms`.
    """
    found = model.apply(variables, prepare(batch["image" if num_axes(model) == 2 else "video"]))
    if isinstance(found, list):
        return {f"features_{stage}": x for stage, x in zip(model.out_norms, found)}
    return {"logits" if model.num_classes else "features": found}


FAMILY = Family(
    title="Swin",
    usual="swin_tiny_patch4_window7_224",
    names=names,
    fields=FIELDS,
    sizes=SIZES,
    models=(swin.Swin,),
    makers=(swin.Swin, simmim.SimMIM),
    find=find,
    fetch=urls.fetch,
    preset=preset,
    recognizes=recognizes,
    infer=infer_fields,
    configured=configured,
    make=swin.Swin,
    load=load,
    load_workdir=load_workdir,
    preprocess=preprocess,
    inputs=inputs,
    predict=predict,
    resizes=finetune.RESIZES,
)
