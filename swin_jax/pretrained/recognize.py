"""Recognizes the families of state dicts that cannot be loaded, for error messages."""

import re
from collections.abc import Mapping

import numpy as np

_OFFICIAL = (
    "take Microsoft's own file or timm's, both of which load: "
    "swin_jax.load(name, weights='official')"
)

_SWIN = "take a file of a Swin"
_BLIP = (
    r"(^text_decoder\.bert\.|^text_(encoder|model)\..*\.crossattention\."
    r"|^vision_model\..*\.self_attn\.qkv\.)"
)
_STYLEGAN = (
    r"g_ema\.|synthesis\.|mapping\.fc\d|convs\.\d+\.conv\.modulation|conv1\.conv\.modulation"
)
_IR_SE = r"(^|\.)body\.\d+\.res_layer\."

# (a name that only this family has, what it is, what to do). The first match counts.
_SIGNS = (
    (_BLIP, "BLIP", _SWIN),
    (r"^visual\.blocks\.\d+\.attn\.", "EVA-CLIP", "take a CLIP with OpenAI's towers"),
    (
        r"(^|\.)(token_embedding\.weight|text_model\.|visual\.(conv1|class_embedding))",
        "CLIP",
        "no Swin can hold them",
    ),
    (
        r"(^|\.)synthesis\.(input\.(freqs|transform)|L\d+_\d+_\d+\.)",
        "StyleGAN3",
        "of StyleGANs, StyleGAN2 is read",
    ),
    (
        rf"^({_STYLEGAN}|b\d+\.fromrgb\.)",
        "StyleGAN",
        "no Swin can hold them; of StyleGANs, a whole StyleGAN2 is read",
    ),
    (_IR_SE, "ArcFace's IR-SE50 or e4e", "take a whole file of either, under its own name"),
    (
        r"\._moe_layer\.",
        "Swin-MoE (experts in place of MLPs)",
        "take the dense Swin of the same size",
    ),
    (
        r"(^|\.)swin2sr\.|(^|\.)encoder\.stages\.\d+\.layers\.\d+\.attention\.self\.",
        "Swin2SR",
        _SWIN,
    ),
    (r"(^|\.)swinViT\.layers\d\.", "Swin-UNETR of MONAI", _SWIN),
    (
        r"(^|\.)(encoder\.block\.\d+\.\d+\.attention\.self\.|block1\.0\.attn\.(q|kv)\.)",
        "SegFormer or PVT",
        _SWIN,
    ),
    (r"(^|\.)embeddings\.word_embeddings\.weight$", "BERT or another transformer of texts", _SWIN),
    (r"^(videomae\.|encoder_to_decoder\.weight)", "VideoMAE", _SWIN),
    (r"\.attn\.pool_[qkv]\.", "MViT", _SWIN),
    (
        r"\.modulation\.(f|h|projection_(in|context)|focal_layers\.\d+\.\d+)\.weight$",
        "FocalNet",
        _SWIN,
    ),
    (
        r"\.attn\.w_msa\.",
        (
            "OpenMMLab's Swin (mmdet, mmseg, mmpretrain), "
            "whose merging layers order channels differently"
        ),
        _OFFICIAL,
    ),
    (
        r"\.attn\.meta_mlp\.",
        "timm's swinv2_cr, another position bias than Swin V2's",
        "take timm's swinv2_* files",
    ),
    (
        r"(rel_pos_bias|^(encoder\.)?blocks\.\d+\.attn)\.relative_position_bias_table$",
        "SimMIM's or BEiT's ViT",
        "take SimMIM's Swin files",
    ),
    (r"(^|\.)(cls_token|class_token|pos_embed|embeddings\.position_embeddings)$", "ViT", _SWIN),
    (r"(^|[./])Transformer/encoderblock_\d+/", "ViT of Google's vision_transformer", _SWIN),
    (r"^vision_model\.", "the image tower of Hugging Face's CLIP", "no Swin can hold them"),
    (r"(^|\.)layer1\.0\.conv1\.weight$", "ResNet", _SWIN),
    (
        r"(^|\.)(res2\.0\.conv1\.|resnet\.embedder\.|encoder\.stages\.0\.layers\.0\.layer\.0\.)",
        "ResNet",
        _SWIN,
    ),
    (r"\.(dwconv|conv_dw)\.weight$", "ConvNeXt or EfficientNet", _SWIN),
)

_TOWERS = "take a CLIP with OpenAI's towers (ViT-* or RN* without a timm or Hugging Face part)"

# The same for state dicts that are not a CLIP with OpenAI's towers; names as
# `pretrained.clip.layouts.to_official_names` leaves them.
_NOT_CLIP = (
    (
        (
            r"(^|\.)layers[._]\d+\.blocks\.\d+\."
            r"(attn\.(relative_position_bias_table|cpb_mlp|logit_scale|qkv)|spatial_mlp)"
            r"|(^|\.)encoder\.layers\.\d+\.blocks\.\d+\.attention\."
            r"|(^|\.)features\.\d+\.\d+\.attn\.qkv\."
        ),
        "a Swin",
        "load it by its own name",
    ),
    (r"^visual\.trunk\.", "open_clip's CLIP with a timm image tower", _TOWERS),
    (
        r"^text\.(transformer\.(embeddings|encoder)|proj)\.",
        "open_clip's CLIP with a Hugging Face text tower",
        _TOWERS,
    ),
    (_BLIP, "BLIP", _TOWERS),
    (r"^visual\.blocks\.\d+\.attn\.", "EVA-CLIP", _TOWERS),
    (r"^text_decoder\.", "CoCa (it has a text decoder)", _TOWERS),
    (r"^(vision|text)_model\.head\.", "SigLIP of Hugging Face's transformers", _TOWERS),
    (
        rf"^({_STYLEGAN})",
        "StyleGAN",
        "no CLIP can hold them",
    ),
    (_IR_SE, "ArcFace's IR-SE50 or e4e", "load it by its own name"),
    (
        r"^(cls_token|class_token|pos_embed|.*embeddings\.position_embeddings)$",
        "a ViT without a text tower",
        _TOWERS,
    ),
    (r"^layer1\.0\.conv1\.weight$", "a ResNet without a text tower", _TOWERS),
)


def recognize(state_dict: Mapping[str, np.ndarray], axes: int = 2) -> str | None:
    """Describes a state dict that does not belong to a Swin.

    Args:
        state_dict: {name: array}, names as in the file.
        axes: Spatial axes of the Swin that should be filled.

    Returns:
        One line that names the family and what to do, or None for a Swin or something unknown.
    """
    if found := _sign(state_dict):
        return (
            f"these weights look like {found[0]}, not like a Swin of "
            f"microsoft/Swin-Transformer: {found[1]}"
        )
    proj = next(
        (value for name, value in state_dict.items() if name.endswith("patch_embed.proj.weight")),
        None,
    )
    if proj is None or np.ndim(proj) == axes + 2:
        return None
    if np.ndim(proj) == 5:
        return (
            "these weights look like Video Swin (patch_embed.proj has a time axis), not like a "
            "Swin for images: give the model three axes (image_size, patch_size and window_size "
            "of three), or take a Swin for images"
        )
    return (
        f"these weights have {np.ndim(proj) - 2} spatial axes (patch_embed.proj), "
        f"but the model has {axes}"
    )


def _sign(state_dict: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
    """The family whose names a state dict has, and what to do, if it is one of `_SIGNS`."""
    for pattern, family, advice in _SIGNS:
        if any(re.search(pattern, name) for name in state_dict):
            return family, advice
    return None


def foreign(state_dict: Mapping[str, np.ndarray]) -> str | None:
    """Describes a state dict that no family here recognizes.

    Returns:
        One line that names the family and what to do; None for something unknown.
    """
    if found := _sign(state_dict):
        return f"these weights look like {found[0]}, which load() does not support: {found[1]}"
    return None


def recognize_not_clip(
    state_dict: Mapping[str, np.ndarray], swin_tower: bool = False
) -> str | None:
    """Describes a state dict that does not belong to a CLIP with OpenAI's towers.

    Args:
        state_dict: {name: array}, as `pretrained.clip.layouts.to_official_names` gives it.
        swin_tower: True if the model's image tower is a Swin.

    Returns:
        One line that names the family and what to do, or None for a CLIP or something unknown.
    """
    if any(re.match(r"visual\.layers\.\d+\.blocks\.", name) for name in state_dict):
        if swin_tower:
            return None
        return (
            "these weights are for a CLIP whose image tower is a Swin: make that model, "
            "CLIP(visual=Swin(...), text=...), and load them with convert.clip.from_official"
        )
    for pattern, family, advice in _NOT_CLIP:
        if any(re.search(pattern, name) for name in state_dict):
            return (
                f"these weights look like {family}, not like a CLIP of "
                f"openai/CLIP or open_clip: {advice}"
            )
    return None
