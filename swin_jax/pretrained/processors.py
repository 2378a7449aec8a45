"""What a config beside weights says of the preparation of pictures and texts.

Configs of transformers, open_clip and timm are read. Every field that changes a number is obeyed, or refused by name.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swin_jax.core import public_names
from swin_jax.core.errors import UserError
from swin_jax.pretrained import beside

CROP = "swin_jax.data.image.transforms.crop_transform"
CLIP = "swin_jax.data.image.transforms.clip_eval_transform"
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # numbers of PIL
# Fields of an image processor of transformers that change no number here.
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
    "CLIP": {"resample": 3, "do_center_crop": True},
    "Bit": {"resample": 3, "do_center_crop": True},
    "ViT": {"resample": 2, "do_center_crop": False},
    "Siglip": {"resample": 3, "do_center_crop": False},
}
_PROCESSOR = {
    "crop_size",
    "do_center_crop",
    "do_normalize",
    "do_rescale",
    "do_resize",
    "image_mean",
    "image_std",
    "resample",
    "rescale_factor",
    "size",
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
_TIMM = {"crop_mode", "crop_pct", "input_size", "interpolation", "mean", "std"}
_OPEN_CLIP = {"fill_color", "interpolation", "mean", "mode", "resize_mode", "size", "std"}
_CLEAN = {"lower": "openai", "whitespace": "whitespace", "canonicalize": "canonicalize"}  # open_clip's names


def preparation_beside(path: Path) -> dict[str, Any] | None:
    """Fields of a `preparation.Preparation` that a config beside a file gives.

    Args:
        path: The file of weights.

    Returns:
        {'transform': ..., 'arguments': ..., 'mean': ..., 'std': ...} as far as pictures are told, and 'clean' as far as
        texts are; None if no such config lies there.

    Raises:
        UserError: A config that cannot be read, or a field that cannot be obeyed, by name.
    """
    clip, plain = path.with_name("open_clip_config.json"), path.with_name("config.json")
    open_clip, timm = beside.read_json(clip) or {}, beside.read_json(plain) or {}
    texts = _texts_of_open_clip(open_clip, clip)
    config = beside.config_beside(path)
    sources = [lambda: _of_processor(path), lambda: _of_open_clip(open_clip, clip), lambda: _of_timm(timm, plain)]
    if config and config.kind == beside.OPEN_CLIP and path.name.startswith("open_clip"):
        sources[:2] = reversed(sources[:2])
    pixels = next(filter(None, (source() for source in sources)), {})
    return pixels | texts or None


def _of_processor(path: Path) -> dict[str, Any] | None:
    """What transformers' image processor says, which newer versions store inside of a processor."""
    own, whole = path.with_name("preprocessor_config.json"), path.with_name("processor_config.json")
    if config := beside.read_json(own):
        return _of_transformers(config, own)
    inside = (beside.read_json(whole) or {}).get("image_processor")
    return _of_transformers(inside, whole) if isinstance(inside, Mapping) else None


def _of_transformers(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    _refuse_unknown(config, _IDLE | _PROCESSOR, path)
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if not config.get(name, True):
            raise UserError(f"{path}: {name} is off, which is not supported; give your own preparation")
    if not math.isclose(config.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-6):
        raise UserError(f"{path}: rescale_factor={config['rescale_factor']} is not 1/255")
    defaults = _defaults(config, path)
    resample = config.get("resample", defaults.get("resample"))
    if resample not in _RESAMPLE:
        raise UserError(f"{path}: resample={resample!r} is none of {sorted(_RESAMPLE)}")
    missing = [name for name in ("size", "image_mean", "image_std") if name not in config]
    if missing:
        raise UserError(f"{path} does not tell {', '.join(missing)}")
    size, crop = config["size"], config.get("crop_size")
    if isinstance(size, dict) and set(size) not in ({"shortest_edge"}, {"height", "width"}):
        raise UserError(f"{path}: size={size} is neither a shortest_edge nor a height and a width")
    cropped = config.get("do_center_crop", defaults.get("do_center_crop", crop is not None))
    short_side = size if isinstance(size, int) else size.get("shortest_edge")
    if cropped and short_side is not None:
        arguments = dict(size=_side(short_side if crop is None else crop, path), short_side=short_side)
    elif not cropped and not (isinstance(size, dict) and "shortest_edge" in size):
        arguments = dict(size=_side(size, path), short_side=0)
    else:
        raise UserError(f"{path}: size={size} with do_center_crop={cropped} does not make squares")
    arguments |= dict(interpolation=_RESAMPLE[resample], rounding="floor")
    return _fields(path, CROP, arguments, config["image_mean"], config["image_std"])


def _defaults(config: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The defaults of the class that wrote a config, which may leave them out."""
    name = config.get("image_processor_type", config.get("feature_extractor_type"))
    if name is None:
        return {"resample": 3}
    kind = re.sub(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$", "", str(name))
    if kind not in _PROCESSORS:
        raise UserError(f"{path}: image_processor_type={name!r} is not understood; give your own preparation")
    return _PROCESSORS[kind]


def _refuse_unknown(config: Mapping[str, Any], known: set[str], path: Path) -> None:
    for name in sorted(config.keys() - known):
        raise UserError(f"{path}: {name}={config[name]!r} is not understood; give your own preparation")


def _side(size: int | Mapping[str, int], path: Path) -> int:
    sides = {size} if isinstance(size, int) else {size.get("height"), size.get("width")}
    if len(sides) != 1 or None in sides:
        raise UserError(f"{path}: size {size} is not square")
    return sides.pop()


def _of_open_clip(config: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    found = config.get("preprocess_cfg")
    if found is None:
        return None
    _refuse_unknown(found, _OPEN_CLIP, path)
    if found.get("mode", "RGB") != "RGB":
        raise UserError(f"{path}: mode={found['mode']!r} is not RGB")
    model = config.get("model_cfg", {})
    size = found.get("size", model.get("vision_cfg", {}).get("image_size"))
    side = size[0] if isinstance(size, list) and len(set(size)) == 1 else size
    missing = [
        name for name, value in (("size", side), ("mean", found.get("mean")), ("std", found.get("std"))) if not value
    ]
    if missing or not isinstance(side, int):
        raise UserError(f"{path} does not tell a square {', '.join(missing) or 'size'}")
    fill = found.get("fill_color", 0)
    arguments = dict(
        size=side,
        mode=found.get("resize_mode", "shortest"),
        interpolation=found.get("interpolation", "bicubic"),
        fill=fill,
    )
    return _fields(path, CLIP, arguments, found["mean"], found["std"])


def _texts_of_open_clip(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    if "model_cfg" not in config:
        return {}
    text = config["model_cfg"].get("text_cfg") or {}
    if text.get("hf_tokenizer_name"):
        raise UserError(f"{path}: hf_tokenizer_name={text['hf_tokenizer_name']!r} is not CLIP's vocabulary")
    kwargs = text.get("tokenizer_kwargs") or {}
    _refuse_unknown(kwargs, {"clean"}, path)
    clean = kwargs.get("clean", "lower")
    if clean not in _CLEAN:
        raise UserError(f"{path}: clean={clean!r} is none of {', '.join(_CLEAN)}")
    return {"clean": _CLEAN[clean]}


def _of_timm(whole: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    config = whole.get("pretrained_cfg", whole)
    if "architecture" not in whole or "mean" not in config:
        return None
    _refuse_unknown(config, _IDLE_TIMM | _TIMM, path)
    missing = [name for name in ("input_size", "std") if name not in config]
    if missing:
        raise UserError(f"{path} does not tell {', '.join(missing)}")
    channels, *sides = config["input_size"]
    if channels != 3 or len(set(sides)) != 1:
        raise UserError(f"{path}: input_size={config['input_size']} is not square with three channels")
    mode = config.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise UserError(f"{path}: crop_mode={mode!r} is neither 'center' nor 'squash'")
    share = config.get("crop_pct", 0.875)
    short_side = math.floor(sides[0] / share)
    if mode == "squash" and short_side != sides[0]:
        raise UserError(f"{path}: crop_pct={share} with crop_mode='squash' is not supported")
    arguments = dict(
        size=sides[0],
        short_side=0 if mode == "squash" else short_side,
        interpolation=config.get("interpolation", "bicubic"),
        rounding="even",
    )
    return _fields(path, CROP, arguments, config["mean"], config["std"])


def _fields(path: Path, transform: str, arguments: dict, mean: Any, std: Any) -> dict[str, Any]:
    """Fields of a preparation; raises UserError for arguments that the transform does not take."""
    for name, values in (("mean", mean), ("std", std)):
        if not isinstance(values, list) or len(values) != 3:
            raise UserError(f"{path}: {name}={values!r} is not a number for each of three channels")
    try:
        public_names.find(transform)(**arguments)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return dict(transform=transform, arguments=arguments, mean=tuple(mean), std=tuple(std))
