"""Reads a config of timm or transformers that lies beside the weights of a Swin.

Every field that changes a number is obeyed, compared with the arrays, or refused by its name. The
references are `SwinTransformer` and `SwinTransformerV2` of timm 1.0, and `SwinConfig` and
`Swinv2Config` of transformers 5.24.
"""

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import NonNegativeInt, PositiveFloat
from swin_jax.core.sizes import per_axis, simplest
from swin_jax.ops import window_geometry
from swin_jax.pretrained import beside
from swin_jax.pretrained.beside import Config
from swin_jax.pretrained.swin import infer

EPSILON = 1e-5
# Fields that arrays tell too, by the names of the libraries.
_SIZES = dict(
    patch_size="patch_size", embed_dim="embed_dim", depths="depths", num_heads="num_heads"
)
_SIZES |= dict(mlp_ratio="mlp_ratio", qkv_bias="qkv_bias")
_TIMM = _SIZES | dict(in_chans="in_channels", num_classes="num_classes")
_TRANSFORMERS = _SIZES | dict(
    num_channels="in_channels", use_absolute_embeddings="ape", patch_norm="patch_norm"
)
# Fields that only a config tells, where files have no buffers.
_GEOMETRY = ("window_size", "image_size", "pretrained_window_sizes")
# The only value that the models here compute with.
_ONLY_TIMM = dict(
    act_layer="gelu", always_partition=False, embed_layer=None, global_pool="avg", norm_layer=None
)
_ONLY_TRANSFORMERS = dict(hidden_act="gelu", layer_norm_eps=EPSILON, **beside.IDLE_IF)
# Their types; a field that is only compared with the arrays may have any.
_TYPES = dict(
    image_size=beside.PIXELS,
    img_size=beside.PIXELS,
    window_size=beside.PIXELS,
    mlp_ratio=PositiveFloat,
)
_TYPES |= dict(pretrained_window_sizes=tuple[NonNegativeInt | tuple[NonNegativeInt, ...], ...])
_IDLE_TIMM = {
    "attn_drop_rate",
    "drop_path_rate",
    "drop_rate",
    "dynamic_img_size",
    "head_dim",  # of the attention, as the arrays have it
    "proj_drop_rate",
    "strict_img_size",
    "weight_init",
}
_IDLE_TRANSFORMERS = beside.IDLE | {
    "attention_probs_dropout_prob",
    "drop_path_rate",
    "encoder_stride",
    "hidden_dropout_prob",
    "hidden_size",
    "initializer_range",
    "num_layers",
    "out_features",
    "out_indices",
    "path_norm",  # of older files, and without an effect
    "stage_names",
}
# Where larger models of transformers keep the config of a Swin.
_PARTS = ("backbone_config", "encoder")
# Kinds of transformers' configs, and whether their attention is that of version 2.
_KINDS = {"swin": False, "donut-swin": False, "maskformer-swin": False, "swinv2": True}


def arguments_of(config: Config | None, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The arguments of `models.swin.Swin` that a config tells, and that arrays may not.

    Args:
        config: The config beside the weights, or None.
        arrays: The weights, in any layout of `pretrained.swin.layouts`.

    Returns:
        `window_size`, `image_size` and `pretrained_window_sizes`, as far as the config tells them.

    Raises:
        UserError: A field that cannot be obeyed, or that says something else than the arrays;
            the field is named.
    """
    if config is None or config.kind == beside.OPEN_CLIP:
        return {}
    told = (_of_timm if config.kind == beside.TIMM else _of_transformers)(config)
    geometry = {ours: value for ours, (_, value) in told.items() if ours in _GEOMETRY}
    try:
        found = infer.infer(arrays, geometry.get("window_size"), geometry.get("image_size"))
    except UserError:
        if {"window_size", "image_size"} <= geometry.keys():
            raise
        return geometry  # whoever loads it gives the rest
    for ours, (name, value) in told.items():
        if ours in ("image_size", "pretrained_window_sizes"):
            continue
        if ours == "num_classes" and not found[ours]:
            continue  # a backbone without its head
        if ours == "window_size" and _windows(found, **geometry) == _windows(found):
            continue  # larger than any map, for one
        wanted = (
            int(found["embed_dim"] * value) / found["embed_dim"] if ours == "mlp_ratio" else value
        )
        if _plain(found[ours]) != _plain(wanted):
            raise config.refuse(name, value, f"but the weights have {found[ours]}")
    if not found["continuous_bias"]:
        geometry.pop("pretrained_window_sizes", None)
        if _windows(found, **geometry) != _windows(found):
            # The tables of transformers' first version are of whole windows, whatever the image.
            geometry.pop("image_size", None)
    if config.kind == beside.TRANSFORMERS:
        _check_windows(config, found | geometry)
    return geometry


def _windows(found: Mapping[str, Any], **geometry: Any) -> list[tuple[int, ...]]:
    """The window of each stage of a model with these fields."""
    return window_geometry.stage_geometry(_model({**found, **geometry}))[1]


def _model(fields: Mapping[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**fields, merge_size=2)


def _check_windows(config: Config, fields: Mapping[str, Any]) -> None:
    """Raises UserError where version 2 of transformers has other windows or shifts than a
    model of these fields.

    It makes both fit the height of `image_size` alone, divided by rounding down.
    """
    if not fields["cosine_attention"] or not isinstance(fields["window_size"], int):
        return
    model = _model(fields)
    height = per_axis(fields["image_size"], 2)[0] // per_axis(fields["patch_size"], 2)[0]
    stages = zip(*window_geometry.stage_geometry(model), window_geometry.stage_rules(model))
    for stage, (grid, window, rule) in enumerate(stages):
        side = height // 2**stage
        there = min(side, fields["window_size"])
        shift = 0 if side <= there else there // 2
        if window_geometry.fit(grid, window, rule) != ((there, there), (shift, shift)):
            raise config.refuse(
                "image_size",
                fields["image_size"],
                f"makes windows of {there} for maps of {grid} there, which are "
                "not supported here: give image_size= of whole windows",
            )


def _of_timm(config: Config) -> dict[str, tuple[str, Any]]:
    """{our field: (name in the config, value)}."""
    fields, arguments = config.fields, config.fields.get("model_args") or {}
    if not isinstance(arguments, Mapping):
        raise config.refuse("model_args", arguments, "is not a dict of arguments")
    geometry = dict(
        window_size="window_size",
        img_size="image_size",
        pretrained_window_sizes="pretrained_window_sizes",
    )
    known = _TIMM | geometry
    _check(config, arguments, known, _ONLY_TIMM, _IDLE_TIMM, "model_args.")
    if fields.get("global_pool", "avg") != "avg":
        raise config.refuse("global_pool", fields["global_pool"])
    found = _of_architecture(str(fields["architecture"]))
    if fields.get("num_classes") is not None:
        found["num_classes"] = ("num_classes", fields["num_classes"])
    return found | _renamed(arguments, known, "model_args.")


def _of_architecture(name: str) -> dict[str, tuple[str, Any]]:
    """The window and the image that timm's name of a Swin V2 tells; of others the arrays do."""
    sizes = re.match(r"swinv2_.*window(\d+)(?:to(\d+))?_(\d+)(?:to(\d+))?$", name.partition(".")[0])
    if sizes is None:
        return {}
    first, window, image, larger = (size and int(size) for size in sizes.groups())
    found = dict(window_size=window or first, image_size=larger or image)
    # Fine-tuned at a larger one: the last stage was pretrained with half of it.
    if window is not None:
        found["pretrained_window_sizes"] = (first, first, first, first // 2)
    return {field: (f"architecture={name}, {field}", value) for field, value in found.items()}


def _of_transformers(config: Config) -> dict[str, tuple[str, Any]]:
    fields = config.fields
    beside.check_types(config.path, fields, {"model_type": str})
    for (
        name
    ) in _PARTS:  # a detector, a segmenter or a reader of documents, whose other parts are left out
        inside = fields.get(name)
        if (
            isinstance(inside, Mapping)
            and fields["model_type"] not in _KINDS
            and inside.get("model_type") in list(_KINDS)
        ):
            fields = inside
    if fields["model_type"] not in _KINDS:
        problem = f"is not one of {', '.join(_KINDS)}"
        raise config.refuse("model_type", fields["model_type"], problem)
    known = _TRANSFORMERS | {name: name for name in _GEOMETRY}
    _check(config, fields, known, _ONLY_TRANSFORMERS, _IDLE_TRANSFORMERS, "")
    found = _renamed(fields, known, "")
    return found | {"cosine_attention": ("model_type", _KINDS[fields["model_type"]])}


def _check(
    config: Config,
    fields: Mapping[str, Any],
    known: Mapping,
    only: Mapping[str, Any],
    idle: set[str],
    prefix: str,
) -> None:
    for name in sorted(fields.keys() - known.keys() - only.keys() - idle):
        raise config.refuse(prefix + name, fields[name], "is not understood")
    beside.check_types(config.path, fields, _TYPES, prefix)
    for name, value in only.items():
        if fields.get(name, value) not in (value, None):
            raise config.refuse(prefix + name, fields[name])


def _renamed(
    fields: Mapping[str, Any], names: Mapping[str, str], prefix: str
) -> dict[str, tuple[str, Any]]:
    found = {}
    for name, ours in names.items():
        value = fields.get(name)
        if value is None or (ours == "pretrained_window_sizes" and not any(value)):
            continue
        found[ours] = (prefix + name, tuple(value) if isinstance(value, list) else value)
    return found


def _plain(value: Any) -> Any:
    """Sizes as the simplest of their forms, so that 7 is (7, 7)."""
    if not isinstance(value, (list, tuple)):
        return value
    parts = tuple(map(_plain, value))
    if len(parts) == 2 and all(isinstance(part, int) for part in parts):
        return simplest(parts)
    return parts
