"""A Swin or Swin V2 by name, from a file of weights, or with random ones."""

import dataclasses
import re

import jax
import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.models import swin
from swin_jax.ops.window_geometry import num_axes, per_axis
from swin_jax.pretrained.arguments import random_variables
from swin_jax.pretrained.swin import buffers, finetune, imagenet22k, urls
from swin_jax.pretrained.swin import convert as convert_swin

FIELDS = {field.name for field in dataclasses.fields(swin.Swin)} - {"parent", "name"}


def fit(
    found: dict, made_for: swin.Swin, resize: str | None, overrides: dict, trained: tuple | None = None
) -> tuple[swin.Swin, dict]:
    """A model like `made_for` but for the overrides, and the weights made to fit it."""
    model = made_for.clone(**overrides)
    if "pretrained_window_sizes" not in overrides:
        finetune.tell_scales(trained or buffers.coordinate_windows(made_for), model)
    rows = _rows(found, model)
    return model, _put(convert_swin.from_official(finetune.remap(found, model, resize, rows), model), model)


def _put(variables: dict, model: swin.Swin) -> dict:
    return jax.device_put(jax.tree.map(lambda leaf: leaf.astype(model.param_dtype), variables))


def load_random(name: str, fields: dict) -> tuple[swin.Swin, dict]:
    """A Swin with random weights."""
    model = swin.Swin(**fields)
    warn(f"{name} has random weights; weights='official' downloads the published ones")
    image = np.zeros((1, *per_axis(model.image_size, num_axes(model)), model.in_channels), np.float32)
    return model, random_variables(model, image)


def _rows(state_dict: dict, model: swin.Swin) -> np.ndarray | None:
    """The 1K rows of a 22K head where the model wants them and an installed package tells which they are."""
    head = state_dict.get("head.weight", state_dict.get("head.fc.weight", ()))
    if model.num_classes != 1000 or model.out_norms or len(head) != 21841:
        return None
    try:
        return imagenet22k.derive_map()
    except UserError as error:
        warn(f"the 22K head cannot be cut to 1,000 classes: {error}")
        return None


def preset(name: str) -> dict | None:
    """Arguments of the Swin that a name means; None if it means none."""
    name = urls.canonical_name(name) or name
    if name in swin.PRESETS:
        return swin.PRESETS[name]
    return _simmim_preset(name) if name in urls.WEIGHTS else None


def _simmim_preset(name: str) -> dict:
    """Arguments of the encoder (pretrained) or classifier (fine-tuned) that a file of SimMIM holds."""
    classes = 1000 if name.startswith("simmim_finetune") else 0
    if found := re.match(r"simmim_[a-z]+__swin_([a-z]+)__img(\d+)_window(\d+)__", name):
        variant, size, window = found[1], int(found[2]), int(found[3])
        return dict(swin.VARIANTS[variant], window_size=window, image_size=size, num_classes=classes)
    variant = re.match(r"simmim_[a-z]+_swinv2_([a-z]+)_", name)[1]
    arguments = dict(swin.VARIANTS["giant_1b" if variant == "giant" else variant], **swin.V2, num_classes=classes)
    if classes:
        return dict(arguments, window_size=14, image_size=224, pretrained_window_sizes=(12, 12, 12, 6))
    return dict(arguments, window_size=12, image_size=192)
