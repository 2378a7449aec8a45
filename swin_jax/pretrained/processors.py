"""Reads the preparation of pictures and texts from a config beside weights.

Configs of transformers, open_clip and timm are read. Every field that affects the input of a model
is applied, or refused by name.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swin_jax.core import public_names
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import (
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    check_scale,
    refusal,
    shown,
)
from swin_jax.core.sizes import Size, per_axis, simplest
from swin_jax.pretrained import beside
from swin_jax.pretrained.clip.texts import texts_beside

CROP = "swin_jax.data.image.transforms.crop_transform"
CLIP = "swin_jax.data.image.transforms.clip_eval_transform"
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # numbers of PIL
# Fields of transformers' image processors that have no effect here.
_IDLE = {
    "_processor_class",
    "_valid_processor_keys",
    "auto_map",
    "data_format",
    "device",
    "disable_grouping",
    "do_convert_rgb",
    "feature_extractor_type",
    "image_processor_type",
    "input_data_format",
    "processor_class",
    "return_tensors",
}
# Defaults of transformers' classes that prepare as `_of_transformers` does.
_PROCESSORS = {
    "CLIP": {"resample": 3, "do_center_crop": True, "crop_size": 224, "default_to_square": False},
    "Bit": {"resample": 3, "do_center_crop": True, "crop_size": 224, "default_to_square": False},
    "ViT": {"resample": 2, "do_center_crop": False, "default_to_square": True},
    "Siglip": {"resample": 3, "do_center_crop": False, "default_to_square": False},
}
# Classes that transformers uses for kinds of models whose config names none.
_OF_MODELS = {"clip": "CLIP", "swin": "ViT", "swinv2": "ViT"}
# The other fields and the types of their values; None where a function below looks at them.
_PROCESSOR = {
    "crop_size": None,
    "default_to_square": bool,
    "do_center_crop": bool,
    "do_normalize": bool,
    "do_pad": bool,
    "do_rescale": bool,
    "do_resize": bool,
    "image_mean": None,
    "image_std": None,
    "resample": NonNegativeInt,
    "rescale_factor": PositiveFloat,
    "size": None,
}
# The same of timm and open_clip.
_IDLE_TIMM = {
    "architecture",
    "classifier",
    "custom_load",
    "description",
    "file",
    "first_conv",
    "fixed_input_size",
    "global_pool",
    "hf_hub_filename",
    "hf_hub_id",
    "label_descriptions",
    "label_names",
    "label_offset",
    "labels",
    "license",
    "min_input_size",
    "model_args",
    "notes",
    "num_classes",
    "num_features",
    "origin_url",
    "paper_ids",
    "paper_name",
    "pool_size",
    "source",
    "state_dict",
    "tag",
    "test_crop_pct",
    "test_input_size",
    "test_pool_size",
    "url",
}
_TIMM = {
    "crop_mode": str,
    "crop_pct": PositiveFloat,
    "input_size": None,
    "interpolation": str,
    "mean": None,
    "std": None,
}
_OPEN_CLIP = {
    "fill_color": NonNegativeInt,
    "interpolation": str,
    "mean": None,
    "mode": str,
    "resize_mode": str,
    "size": None,
    "std": None,
}
# Open_clip's names.
_CLEAN = {"lower": "openai", "whitespace": "whitespace", "canonicalize": "canonicalize"}


def preparation_beside(path: Path) -> dict[str, Any] | None:
    """Fields of a `preparation.Preparation` that a config beside a file gives.

    Args:
        path: The file of weights.

    Returns:
        {'transform': ..., 'arguments': ..., 'mean': ..., 'std': ...} as far as the config
        describes pictures, and 'clean', 'vocabulary' and 'context_length' as far as it describes
        texts; None if there is no such config.

    Raises:
        UserError: A config cannot be read, or has a field that is not supported, which is named.
    """
    clip, plain = path.with_name("open_clip_config.json"), path.with_name("config.json")
    open_clip, timm = beside.read_json(clip) or {}, beside.read_json(plain) or {}
    texts = _texts_of_open_clip(open_clip, clip)
    config = beside.config_beside(path)
    if config and config.kind == beside.TRANSFORMERS and config.fields["model_type"] == "clip":
        texts = texts_beside(config)
    sources = [
        lambda: _of_processor(path),
        lambda: _of_open_clip(open_clip, clip),
        lambda: _of_timm(timm, plain),
    ]
    if config and config.kind == beside.OPEN_CLIP and path.name.startswith("open_clip"):
        sources[:2] = reversed(sources[:2])
    pixels = next(filter(None, (source() for source in sources)), {})
    return pixels | texts or None


def _of_processor(path: Path) -> dict[str, Any] | None:
    """The settings of transformers' image processor, kept inside a processor by newer versions."""
    own, whole = path.with_name("preprocessor_config.json"), path.with_name("processor_config.json")
    model = (beside.read_json(path.with_name("config.json")) or {}).get("model_type")
    if config := beside.read_json(own):
        return _of_transformers(config, own, model)
    inside = (beside.read_json(whole) or {}).get("image_processor")
    return _of_transformers(inside, whole, model) if isinstance(inside, Mapping) else None


def _of_transformers(config: Mapping[str, Any], path: Path, model: Any) -> dict[str, Any]:
    config = _checked(config, _PROCESSOR, _IDLE, path)
    if config.get("do_pad", False):
        raise UserError(f"{path}: do_pad is on, which is not supported; give your own preparation")
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if not config.get(name, True):
            raise UserError(
                f"{path}: {name} is off, which is not supported; give your own preparation"
            )
    factor = config.get("rescale_factor", 1 / 255)
    if not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise UserError(f"{path}: rescale_factor={factor} is not 1/255")
    defaults = _defaults(config, path, model)
    resample = config.get("resample", defaults.get("resample"))
    if resample is None:
        raise UserError(
            f"{path} gives neither resample nor the class "
            "(image_processor_type) that determines its default"
        )
    if resample not in _RESAMPLE:
        raise UserError(f"{path}: resample={resample!r} is not one of {sorted(_RESAMPLE)}")
    missing = [name for name in ("size", "image_mean", "image_std") if name not in config]
    if missing:
        raise UserError(f"{path} does not tell {', '.join(missing)}")
    arguments = _sizes(config, defaults, path) | dict(
        interpolation=_RESAMPLE[resample], rounding="floor"
    )
    return _fields(path, CROP, arguments, config["image_mean"], config["image_std"])


def _sizes(config: Mapping[str, Any], defaults: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The arguments `size` and `short_side` of `crop_transform`; a single number is a square or a
    short side, depending on the class.
    """
    size, crop = config["size"], config.get("crop_size", defaults.get("crop_size"))
    cropped = config.get("do_center_crop", defaults.get("do_center_crop", crop is not None))
    square = config.get("default_to_square", defaults.get("default_to_square", not cropped))
    if isinstance(size, int) and not square:
        size = {"shortest_edge": size}
    if cropped and crop is None:
        raise UserError(f"{path}: do_center_crop={cropped} needs crop_size, which is missing")
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        if not cropped:
            raise UserError(
                f"{path}: size={shown(size)} with do_center_crop={cropped} "
                "makes pictures of varying width, which is not supported"
            )
        return dict(
            size=_size("crop_size", crop, path),
            short_side=_pixels("size", size["shortest_edge"], path),
        )
    sides = _size("size", size, path)
    if cropped and _size("crop_size", crop, path) != sides:
        raise UserError(
            f"{path}: crop_size={shown(crop)} with size={shown(size)} crops a squeezed picture, "
            "which is not supported"
        )
    return dict(size=sides, short_side=0)


def _size(name: str, value: Any, path: Path) -> Size:
    """An int or (height, width), from a number, a list or a dict."""
    if isinstance(value, Mapping) and set(value) == {"height", "width"}:
        value = [value["height"], value["width"]]
    if isinstance(value, list) and len(value) == 2:
        return simplest(tuple(_pixels(name, side, path) for side in value))
    return _pixels(name, value, path)


def _pixels(name: str, value: Any, path: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(
            f"{path}: {name}={shown(value)} is neither a number of pixels nor a height and a width"
        )
    return value


def _defaults(config: Mapping[str, Any], path: Path, model: Any) -> Mapping[str, Any]:
    """The defaults of the class that a config names, or else of the class for its kind of model."""
    name = config.get("image_processor_type", config.get("feature_extractor_type"))
    if name is None:
        return _PROCESSORS.get(_OF_MODELS.get(model) if isinstance(model, str) else None, {})
    kind = re.sub(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$", "", str(name))
    if kind not in _PROCESSORS:
        raise UserError(
            f"{path}: image_processor_type={shown(name)} is not supported; "
            "give your own preparation"
        )
    return _PROCESSORS[kind]


def _checked(
    config: Mapping[str, Any], types: Mapping[str, Any], idle: set[str], path: Path
) -> dict[str, Any]:
    """The fields that have a value; fast processors write null for a default.

    Raises:
        UserError: A field is unknown or has the wrong type.
    """
    config = {name: value for name, value in config.items() if value is not None}
    for name in sorted(config.keys() - types.keys() - idle):
        raise UserError(
            f"{path}: {name}={shown(config[name])} is not understood; give your own preparation"
        )
    beside.check_types(path, config, types)
    return config


def _inside(config: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    """A nested object in a config; empty if it is absent or null."""
    beside.check_types(path, config, {name: dict})
    return config.get(name) or {}


def _of_open_clip(config: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    if config.get("preprocess_cfg") is None:
        return None
    found = _checked(_inside(config, "preprocess_cfg", path), _OPEN_CLIP, set(), path)
    if found.get("mode", "RGB") != "RGB":
        raise UserError(f"{path}: mode={shown(found['mode'])} is not RGB")
    vision = _inside(_inside(config, "model_cfg", path), "vision_cfg", path)
    size = found.get("size", vision.get("image_size"))
    told = {"size": size, "mean": found.get("mean"), "std": found.get("std")}
    if missing := [name for name, value in told.items() if not value]:
        raise UserError(f"{path} does not tell {', '.join(missing)}")
    fill = found.get("fill_color", 0)
    arguments = dict(
        size=_size("size", size, path),
        mode=found.get("resize_mode", "shortest"),
        interpolation=found.get("interpolation", "bicubic"),
        fill=fill,
    )
    return _fields(path, CLIP, arguments, found["mean"], found["std"])


def _texts_of_open_clip(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    if "model_cfg" not in config:
        return {}
    text = _inside(_inside(config, "model_cfg", path), "text_cfg", path)
    if text.get("hf_tokenizer_name"):
        raise UserError(
            f"{path}: hf_tokenizer_name={shown(text['hf_tokenizer_name'])} is not CLIP's vocabulary"
        )
    kwargs = _checked(_inside(text, "tokenizer_kwargs", path), {"clean": str}, set(), path)
    clean = kwargs.get("clean", "lower")
    if clean not in _CLEAN:
        raise UserError(f"{path}: clean={shown(clean)} is not one of {', '.join(_CLEAN)}")
    return {"clean": _CLEAN[clean]}


def _of_timm(whole: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    if "architecture" not in whole:
        return None
    config = _inside(whole, "pretrained_cfg", path) or whole
    if config.get("mean") is None:
        return None
    config = _checked(config, _TIMM, _IDLE_TIMM, path)
    missing = [name for name in ("input_size", "std") if name not in config]
    if missing:
        raise UserError(f"{path} does not tell {', '.join(missing)}")
    size = config["input_size"]
    if not isinstance(size, list) or len(size) != 3 or size[0] != 3:
        raise UserError(f"{path}: input_size={shown(size)} is not [3, height, width]")
    sides = per_axis(_size("input_size", size[1:], path), 2)
    mode = config.get("crop_mode", "center")
    if mode not in ("center", "squash"):
        raise UserError(f"{path}: crop_mode={shown(mode)} is neither 'center' nor 'squash'")
    share = config.get("crop_pct", 0.875)
    short_side = tuple(math.floor(side / share) for side in sides)
    if mode == "squash" and short_side != sides:
        raise UserError(f"{path}: crop_pct={share} with crop_mode='squash' is not supported")
    arguments = dict(
        size=simplest(sides),
        short_side=0 if mode == "squash" else simplest(short_side),
        interpolation=config.get("interpolation", "bicubic"),
        rounding="even",
    )
    return _fields(path, CROP, arguments, config["mean"], config["std"])


def _fields(path: Path, transform: str, arguments: dict, mean: Any, std: Any) -> dict[str, Any]:
    """Fields of a preparation; raises UserError for arguments that the transform does not take."""
    for name, values, kind in (("mean", mean, FiniteFloat), ("std", std, PositiveFloat)):
        if refusal(tuple[kind, kind, kind], values):
            above = ", above 0," if kind is PositiveFloat else ""
            raise UserError(
                f"{path}: {name}={shown(values)} is not a number{above} for each of three channels"
            )
    try:
        check_scale(mean, std)
        public_names.find(transform)(**arguments)
    except UserError as error:
        raise UserError(f"{path}: {str(error)[:300]}") from error
    return dict(transform=transform, arguments=arguments, mean=tuple(mean), std=tuple(std))
