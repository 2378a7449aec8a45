"""Reads a config of open_clip or transformers that lies beside the weights of a CLIP.

Every field that changes the model's outputs is applied, compared with the arrays, or refused by
name. The references are `CLIPVisionCfg` and `CLIPTextCfg` of open_clip 3.3 and `CLIPConfig` of
transformers 5.24, whose defaults apply to fields that a config leaves out.
"""

from collections.abc import Mapping
from typing import Any

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveFloat, Rate
from swin_jax.core.sizes import Size
from swin_jax.pretrained import beside
from swin_jax.pretrained.beside import Config

ACTIVATIONS = ("quick_gelu", "gelu")
EPSILON = 1e-5
END = 49407  # CLIP's end token, whose position gives the features of a text

# Fields of open_clip's towers, with the only value that the models here support.
_PLAIN = dict(
    ls_init_value=None,
    qk_norm=False,
    scaled_cosine_attn=False,
    scale_heads=False,
    scale_attn_inner=False,
    scale_attn=False,
    scale_fc=False,
)
_VISION = _PLAIN | dict(
    attentional_pool=False, no_ln_pre=False, pool_type="tok", timm_model_name=None
)
_TEXT = _PLAIN | dict(
    embed_cls=False,
    hf_model_name=None,
    hf_tokenizer_name=None,
    no_causal_mask=False,
    pool_type="argmax",
    proj_bias=False,
    proj_type="linear",
    tokenizer_mode=None,
)
# Fields that change nothing in such towers. The last norm acts on each token by itself, so it may
# come before or after the pooling.
_IDLE_VISION = {
    "attn_pooler_heads",
    "attn_pooler_queries",
    "final_ln_after_pool",
    "output_tokens",
    "timm_drop",
    "timm_drop_path",
    "timm_model_pretrained",
    "timm_pool",
    "timm_proj",
    "timm_proj_bias",
}
_IDLE_TEXT = {
    "eos_id",
    "final_ln_after_pool",
    "hf_model_pretrained",
    "hf_pooler_type",
    "hf_proj_type",
    "output_tokens",
    "pad_id",
    "tokenizer_kwargs",  # read for the preparation, see `processors`
}
_TYPES = dict(
    act_kwargs=dict, mlp_ratio=PositiveFloat, norm_kwargs=dict, patch_dropout=Rate, block_type=str
)
_IDLE_CLIP = {
    "cast_dtype",
    "custom_text",
    "init_logit_scale",
    "nonscalar_logit_scale",
    "output_dict",
}
# open_clip's name of a size -> the name in `make_clip`.
_SIZES_VISION = dict(
    layers="vision_layers", width="vision_width", patch_size="patch_size", image_size="image_size"
)
_SIZES_TEXT = dict(
    context_length="context_length",
    vocab_size="vocab_size",
    width="text_width",
    layers="text_layers",
)
_TRANSFORMERS_VISION = dict(
    hidden_size="vision_width",
    num_hidden_layers="vision_layers",
    patch_size="patch_size",
    image_size="image_size",
)
_TRANSFORMERS_TEXT = dict(
    hidden_size="text_width",
    num_hidden_layers="text_layers",
    max_position_embeddings="context_length",
    vocab_size="vocab_size",
)
_IDLE_TRANSFORMERS = beside.IDLE | {
    "attention_dropout",
    "dropout",
    "initializer_factor",
    "initializer_range",
    "projection_dim",  # matters only to a tower that is used alone
}


def arguments_of(config: Config | None, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `models.clip.make_clip` that the arrays don't show but a config gives.

    Args:
        config: The config beside the weights, or None.
        sizes: The sizes that `clip.infer.infer` finds in the arrays.

    Returns:
        'act', 'vision_heads', 'text_heads' and 'patch_dropout', as far as the config gives them.

    Raises:
        UserError: A field is not supported or contradicts the arrays; the message names it.
    """
    if config is None or config.kind == beside.TIMM:
        return {}
    return (_of_open_clip if config.kind == beside.OPEN_CLIP else _of_transformers)(config, sizes)


def declared_image_size(config: Config | None) -> Size | None:
    """The image size that a config gives, an int or (H, W); None if it gives none."""
    if config is None or config.kind == beside.TIMM:
        return None
    if config.kind == beside.OPEN_CLIP:
        tower = config.fields.get("model_cfg", config.fields)
        tower = tower.get("vision_cfg") if isinstance(tower, Mapping) else None
    else:
        tower = (
            (config.fields.get("vision_config") or {}) if "vision_config" in config.fields else None
        )
    size = _plain(tower.get("image_size")) if isinstance(tower, Mapping) else None
    sides = size if isinstance(size, tuple) else (size,)
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides)
    return size if whole and len(sides) in (1, 2) else None


def _of_open_clip(config: Config, sizes: Mapping[str, Any]) -> dict[str, Any]:
    model = (
        _part(config, config.fields, "model_cfg") if "model_cfg" in config.fields else config.fields
    )
    vision, text = _part(config, model, "vision_cfg"), _part(config, model, "text_cfg")
    known = {"embed_dim", "init_logit_bias", "quick_gelu", "text_cfg", "vision_cfg", *_IDLE_CLIP}
    _refuse_unknown(config, model, known, "")
    _refuse_unknown(
        config,
        vision,
        {*_SIZES_VISION, *_VISION, *_IDLE_VISION, *_TOWER, "head_width", "patch_dropout"},
        "vision_cfg.",
    )
    _refuse_unknown(
        config, text, {*_SIZES_TEXT, *_TEXT, *_IDLE_TEXT, *_TOWER, "heads"}, "text_cfg."
    )
    beside.check_types(config.path, model, {"quick_gelu": bool})
    quick = model.get("quick_gelu") or False
    for tower, only, prefix in ((vision, _VISION, "vision_cfg."), (text, _TEXT, "text_cfg.")):
        beside.check_types(config.path, tower, _TYPES, prefix)
        for name, value in only.items():
            if tower.get(name, value) not in (value, None):
                raise config.refuse(prefix + name, tower[name])
        _check_tower(config, tower, prefix, quick)
    is_resnet = not isinstance(sizes["vision_layers"], int)
    if is_resnet:
        vision = {
            name: value for name, value in vision.items() if name not in ("patch_size", "mlp_ratio")
        }
    _compare(config, model, {"embed_dim": "embed_dim"}, sizes, "")
    _compare(config, vision, _SIZES_VISION, sizes, "vision_cfg.")
    _compare(config, text, _SIZES_TEXT, sizes, "text_cfg.")
    _compare_hidden(
        config, vision, "vision_cfg.mlp_ratio", sizes["vision_width"], sizes.get("vision_mlp_ratio")
    )
    _compare_hidden(config, text, "text_cfg.mlp_ratio", sizes["text_width"], 4.0)
    if model.get("init_logit_bias") is not None and sizes["logit_bias"] is None:
        raise config.refuse(
            "init_logit_bias", model["init_logit_bias"], "but the weights have no logit_bias"
        )
    found = {"act": "quick_gelu" if quick else "gelu"}
    if _is_whole(vision, "width", 768, sizes["vision_width"]):
        channels = sizes["vision_width"] * (32 if is_resnet else 1)
        head = _count(config, "vision_cfg.head_width", vision.get("head_width", 64))
        found["vision_heads"] = _divided(config, "vision_cfg.head_width", channels, head)
    if _is_whole(text, "width", 512, sizes["text_width"]):
        heads = _count(config, "text_cfg.heads", text.get("heads", 8))
        _divided(config, "text_cfg.heads", sizes["text_width"], heads)
        found["text_heads"] = heads
    if vision.get("patch_dropout") and not is_resnet:
        found["patch_dropout"] = vision["patch_dropout"]
    return found


# Fields of a tower that are checked one by one.
_TOWER = {"act_kwargs", "block_type", "mlp_ratio", "norm_kwargs", "pos_embed_type"}


def _check_tower(config: Config, tower: Mapping[str, Any], prefix: str, quick: bool) -> None:
    """Raises UserError if a tower of open_clip is configured to compute something different."""
    norm = tower.get("norm_kwargs") or {}
    if norm.keys() - {"eps"} or norm.get("eps", EPSILON) != EPSILON:
        raise config.refuse(f"{prefix}norm_kwargs", norm)
    act = tower.get("act_kwargs") or {}
    if act and (quick or act != {"approximate": "none"}):
        raise config.refuse(f"{prefix}act_kwargs", act)
    if tower.get("block_type") not in (None, "default"):
        raise config.refuse(f"{prefix}block_type", tower["block_type"])
    # The arrays hold the positions of both types; those that are not learned come from sines.
    if tower.get("pos_embed_type", "learnable") not in ("learnable", "sin_cos_2d"):
        raise config.refuse(f"{prefix}pos_embed_type", tower["pos_embed_type"])


def _of_transformers(config: Config, sizes: Mapping[str, Any]) -> dict[str, Any]:
    fields = config.fields
    if fields["model_type"] != "clip":
        raise config.refuse(
            "model_type", fields["model_type"], "is not 'clip', but these weights are a CLIP"
        )
    known = {"logit_scale_init_value", "projection_dim"}
    towers = {f"{name}{end}" for name in ("text", "vision") for end in ("_config", "_config_dict")}
    _refuse_unknown(config, fields, known | towers | _IDLE_TRANSFORMERS, "")
    vision, text = (_tower(config, name) for name in ("vision", "text"))
    own = {
        "intermediate_size",
        "num_attention_heads",
        "hidden_act",
        "layer_norm_eps",
        *beside.IDLE_IF,
    }
    own |= _IDLE_TRANSFORMERS
    _refuse_unknown(config, vision, own | {*_TRANSFORMERS_VISION, "num_channels"}, "vision_config.")
    _refuse_unknown(config, text, own | {*_TRANSFORMERS_TEXT, "eos_token_id"}, "text_config.")
    _compare(config, vision, _TRANSFORMERS_VISION, sizes, "vision_config.")
    _compare(config, text, _TRANSFORMERS_TEXT, sizes, "text_config.")
    _compare(config, fields, {"projection_dim": "embed_dim"}, sizes, "")
    if vision.get("num_channels", 3) != 3:
        raise config.refuse("vision_config.num_channels", vision["num_channels"])
    end = text.get("eos_token_id", END)
    # 2 means the highest id.
    if end not in (2, END, sizes["vocab_size"] - 1) or isinstance(end, bool):
        raise config.refuse(
            "text_config.eos_token_id",
            end,
            "is not supported: features are taken at the token with the highest id",
        )
    found: dict[str, Any] = {}
    for name, tower, width, heads in (("vision", vision, 768, 12), ("text", text, 512, 8)):
        prefix, channels = f"{name}_config.", sizes[f"{name}_width"]
        for key, off in {"layer_norm_eps": EPSILON, **beside.IDLE_IF}.items():
            if tower.get(key, off) not in (off, None):
                raise config.refuse(prefix + key, tower[key])
        hidden = tower.get("intermediate_size")
        ratio = sizes["vision_mlp_ratio"] if name == "vision" else 4.0
        if hidden is not None and hidden != round(channels * ratio):
            raise config.refuse(
                f"{prefix}intermediate_size", hidden, _hidden(name, round(channels * ratio))
            )
        if _is_whole(tower, "hidden_size", width, channels):
            count = _count(
                config, f"{prefix}num_attention_heads", tower.get("num_attention_heads", heads)
            )
            _divided(config, f"{prefix}num_attention_heads", channels, count)
            found[f"{name}_heads"] = count
    return found | {"act": _activation(config, vision, text)}


def _activation(config: Config, vision: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    for name, tower in (("vision", vision), ("text", text)):
        beside.check_types(config.path, tower, {"hidden_act": str}, f"{name}_config.")
    acts = {tower.get("hidden_act", "quick_gelu") for tower in (vision, text)}
    if len(acts) > 1 or not acts <= {*ACTIVATIONS}:
        named = ", ".join(sorted(str(act)[:40] for act in acts))
        raise UserError(
            f"{config.path} gives the activations (hidden_act) {named}; "
            "both towers of a CLIP here must have the same one, quick_gelu or gelu"
        )
    return acts.pop()


def _tower(config: Config, name: str) -> Mapping[str, Any]:
    """The config of a tower. Older files hold a second one, which takes precedence, also with its
    defaults.
    """
    first, second = (_part(config, config.fields, f"{name}_config{end}") for end in ("", "_dict"))
    if config.fields.get(f"{name}_config_dict") is None:
        return first
    named = {"hidden_act", "layer_norm_eps", "num_attention_heads", "eos_token_id"}
    return {key: value for key, value in first.items() if key not in named} | second


def _part(config: Config, fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = fields.get(name)
    if not isinstance(found, Mapping | None):
        raise config.refuse(name, found, "is not a config")
    return found or {}


def _refuse_unknown(
    config: Config, fields: Mapping[str, Any], known: set[str], prefix: str
) -> None:
    for name in sorted(fields.keys() - known):
        raise config.refuse(prefix + name, fields[name], "is not a known field")


def _compare(
    config: Config,
    fields: Mapping[str, Any],
    names: Mapping[str, str],
    sizes: Mapping[str, Any],
    prefix: str,
) -> None:
    """Raises UserError for a size that contradicts the arrays; a pair of equal numbers is the same
    as the number.
    """
    for name, ours in names.items():
        value = fields.get(name)
        if value is not None and _plain(value) != _plain(sizes[ours]):
            raise config.refuse(prefix + name, value, _but(sizes[ours]))


def _plain(size: Any) -> Any:
    if not isinstance(size, (list, tuple)):
        return size
    return size[0] if len(size) == 2 and size[0] == size[1] else tuple(size)


def _compare_hidden(
    config: Config, tower: Mapping[str, Any], name: str, width: int, ratio: float | None
) -> None:
    told = tower.get("mlp_ratio")
    if told is not None and ratio is not None and int(width * told) != round(width * ratio):
        raise config.refuse(name, told, _hidden(name, ratio))


def _hidden(name: str, ours: float) -> str:
    """The reason why the hidden width of a tower's MLPs is refused; that of the text tower is
    fixed here, so there the config may well match the file.
    """
    if name.startswith("vision"):
        return _but(ours)
    return f"is not supported: it is always {ours} in the text tower here"


def _but(value: Any) -> str:
    return f"but the weights have {value}"


def _is_whole(tower: Mapping[str, Any], name: str, default: int, width: int) -> bool:
    """True if a config, or else its default, gives the width of the arrays.

    A config that does not is a fragment, so its other defaults cannot be trusted.
    """
    return tower.get(name, default) == width


def _count(config: Config, name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise config.refuse(name, value, "is not a whole number above 0")
    return value


def _divided(config: Config, name: str, width: int, parts: int) -> int:
    if width % parts:
        raise config.refuse(name, parts, f"does not divide the {width} channels of the weights")
    return width // parts
