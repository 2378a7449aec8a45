"""UPerNet over Swins as a family of `load`."""

import inspect
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core import stacking
from swin_jax.core.sizes import per_axis
from swin_jax.models.segmentation import PRESETS, UPerNet, make_upernet
from swin_jax.ops.segmentation import pixel_labels
from swin_jax.pretrained import beside
from swin_jax.pretrained.family import Family, Outputs, Prepare, Weights
from swin_jax.pretrained.files import objects
from swin_jax.pretrained.preparation import Preparation
from swin_jax.pretrained.preparations.published import of_scenes
from swin_jax.pretrained.segmentation import config as upernet_config
from swin_jax.pretrained.segmentation import convert, finetune, urls
from swin_jax.pretrained.swin import buffers
from swin_jax.pretrained.swin import finetune as swin_finetune
from swin_jax.pretrained.swin import infer as swin_infer
from swin_jax.pretrained.swin import loader as swin

FIELDS = frozenset(inspect.signature(make_upernet).parameters)
SIZES = (*swin.SIZES, "channels")


def find(word: str) -> str | None:
    """The name that a word means: itself, or the file of it."""
    name = word.removesuffix(".pth")
    return name if name in PRESETS else None


def preset(word: str) -> dict:
    """Arguments of the UPerNet that a word means."""
    return swin.V1 | PRESETS[find(word)]


def fetch(word: str) -> Path:
    """The path of the published weights that a word means, see `urls.fetch`."""
    return urls.fetch(find(word))


def configured(weights: Weights) -> dict:
    """`config.arguments_of` what lies beside a file; that another model's is not read is said."""
    upernet_config.tell_unread(weights.config)
    return upernet_config.arguments_of(weights.config, weights.arrays)


def load(
    weights: Weights, fields: dict, resize: str | None, overrides: dict
) -> tuple[UPerNet, dict]:
    """An UPerNet with these weights, made for a model of `fields`. It carries the class names that
    the file tells.
    """
    made_for = make_upernet(**fields).backbone
    told = upernet_config.arguments_of(weights.config, weights.arrays)
    untold = not {"pretrained_window_sizes", "window_size"} & (overrides.keys() | told.keys())
    if weights.name is None and untold:
        inside = convert.backbone_of(convert.to_official_names(weights.arrays))
        swin_finetune.tell_scale_assumed(inside, made_for)
    model, variables = _fit(weights.arrays, fields, resize, overrides)
    if weights.path is not None:
        beside.attach_class_names(model, objects.class_names(weights.path))
    return model, variables


def _fit(
    found: Mapping[str, np.ndarray], fields: dict, resize: str | None, overrides: dict
) -> tuple[UPerNet, dict]:
    made_for, model = make_upernet(**fields).backbone, make_upernet(**fields | overrides)
    if "pretrained_window_sizes" not in overrides:
        inside = convert.backbone_of(convert.to_official_names(found))
        trained = swin_infer.trained_scales(inside) or buffers.coordinate_windows(made_for)
        swin_finetune.tell_scales(trained, model.backbone)
    fitted = finetune.remap(found, model, resize, made_for)
    variables = convert.from_official(fitted, model)
    kind = model.backbone.param_dtype
    params = jax.tree.map(lambda leaf: leaf.astype(kind), variables["params"])
    return model, jax.device_put({**variables, "params": params})


def load_workdir(
    workdir: str | Path, config: dict, resize: str | None, overrides: dict
) -> tuple[UPerNet, dict]:
    """The model that a run trained, its average if it kept one; `config` is the run's."""
    from swin_jax.train import checkpoint

    fields = finetune.fields_of(config)
    variables = checkpoint.load_variables(workdir)
    if overrides:
        return _fit(convert.to_state_dict(variables), fields, resize, overrides)
    model = make_upernet(**fields)
    params = stacking.stack_as(variables["params"], model.backbone)
    return model, jax.device_put({**variables, "params": params})


def preprocess(model: UPerNet, word: str | None) -> Preparation:
    """The published preparation: the whole picture, whose short side is that of the crops."""
    short = min(per_axis(model.backbone.image_size, 2))
    return of_scenes(short, model.backbone.in_channels, assumed=word is None)


def inputs(
    model: UPerNet, image_size: int | tuple[int, int] | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """One row of `image`: normalized floats."""
    shape = (1, *per_axis(image_size or model.backbone.image_size, 2), model.backbone.in_channels)
    return {"image": jax.ShapeDtypeStruct(shape, jnp.float32)}


def predict(
    model: UPerNet, variables: dict, batch: Mapping[str, jax.Array], prepare: Prepare
) -> Outputs:
    """`maps`, logits (B, H / 4, W / 4, K), and `labels` uint8 (B, H, W), as a run's task gives."""
    image = prepare(batch["image"])
    maps = model.apply(variables, image)["logits"]
    return {"maps": maps, "labels": pixel_labels(maps, image.shape[1:3])}


FAMILY = Family(
    title="UPerNet",
    usual="upernet_swin_tiny_patch4_window7_512x512",
    names=lambda: list(PRESETS),
    fields=FIELDS,
    sizes=SIZES,
    models=(UPerNet,),
    makers=(make_upernet,),
    find=find,
    fetch=fetch,
    preset=preset,
    recognizes=convert.is_upernet,
    infer=convert.infer,
    configured=configured,
    make=make_upernet,
    load=load,
    load_workdir=load_workdir,
    preprocess=preprocess,
    inputs=inputs,
    predict=predict,
    resizes=finetune.RESIZES,
)
