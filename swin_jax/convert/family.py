"""Which family a foreign state dict is of: for the message of what does not load."""

import re
from collections.abc import Mapping

import numpy as np

_OFFICIAL = "take Microsoft's own file or timm's, both of which load: swin_jax.load(name, weights='official')"

# (a name that only this family has, what it is, what to do). The first that fits is told.
_SIGNS = (
    (r"(^|\.)(token_embedding\.weight|text_model\.|visual\.(conv1|class_embedding))", "CLIP", "no Swin can hold them"),
    (
        r"^(g_ema\.|synthesis\.|mapping\.fc\d|convs\.\d+\.conv\.modulation|conv1\.conv\.modulation)",
        "StyleGAN",
        "no Swin can hold them",
    ),
    (r"\.spatial_mlp\.weight$", "Swin-MLP (no attention)", "take the Swin of the same size"),
    (r"\._moe_layer\.", "Swin-MoE (experts in place of MLPs)", "take the dense Swin of the same size"),
    (r"\.attention\.self\.query\.", "Swin of Hugging Face's transformers", _OFFICIAL),
    (r"^(.*\.)?features\.\d+\.\d+\.attn\.qkv\.", "torchvision's Swin (another training, other names)", _OFFICIAL),
    (
        r"\.attn\.w_msa\.",
        "OpenMMLab's Swin (mmdet, mmseg, mmpretrain), whose merging layers order channels in another way",
        _OFFICIAL,
    ),
    (r"\.attn\.meta_mlp\.", "timm's swinv2_cr, another position bias than Swin V2's", "take timm's swinv2_* files"),
    (
        r"(rel_pos_bias\.relative_position_bias_table|^(encoder\.)?blocks\.\d+\.attn\.relative_position_bias_table)$",
        "SimMIM's or BEiT's ViT",
        "take SimMIM's Swin files",
    ),
    (r"(^|\.)(cls_token|class_token|pos_embed|embeddings\.position_embeddings)$", "ViT", "take a file of a Swin"),
    (r"(^|\.)layer1\.0\.conv1\.weight$", "ResNet", "take a file of a Swin"),
)


def recognise(state_dict: Mapping[str, np.ndarray], axes: int = 2) -> str | None:
    """Tells which family a state dict looks like that is not of an image Swin.

    Args:
        state_dict: {name: array}, names as in the file.
        axes: spatial axes of the Swin that should be filled.

    Returns:
        One line that names the family and what to do, or None for a Swin or something unknown.
    """
    for pattern, family, advice in _SIGNS:
        if any(re.search(pattern, name) for name in state_dict):
            return f"these weights look like {family}, not like a Swin of microsoft/Swin-Transformer: {advice}"
    proj = next((value for name, value in state_dict.items() if name.endswith("patch_embed.proj.weight")), None)
    if proj is None or np.ndim(proj) == axes + 2:
        return None
    if np.ndim(proj) == 5:
        return (
            "these weights look like Video Swin (patch_embed.proj has a time axis), not like a Swin for images: give "
            "the model three axes (image_size, patch_size and window_size of three), or take a Swin for images"
        )
    return f"these weights are of {np.ndim(proj) - 2} spatial axes (patch_embed.proj), the model has {axes}"
