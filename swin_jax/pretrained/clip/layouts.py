"""The layouts that CLIP's state dicts come in -> the names of openai/CLIP.

OpenAI's own, as a TorchScript archive (three numbers beside the weights) or as a plain state dict; open_clip (the same
names; `text.` before those of the text tower in its CustomTextCLIP; masks of older versions); `CLIPModel` of Hugging
Face's transformers (other names, q, k and v apart).
"""

import re
from collections.abc import Mapping

import numpy as np

from swin_jax.pretrained import compare

# What OpenAI's archives and transformers' older files hold beside the weights.
_NUMBERS = ("input_resolution", "context_length", "vocab_size")
_SWIN = r"(encoder\.|backbone\.)?(patch_embed|layers|norm\d?|head|absolute_pos_embed|mask_token)(\.|$)"
_TRANSFORMERS = ("text_model.", "vision_model.")

_TRANSFORMERS_NAMES = (
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_laye?rnorm\.", "visual.ln_pre."),  # the released files spell it without the e
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)


def is_transformers(state_dict: Mapping[str, np.ndarray]) -> bool:
    """Whether the names are those of transformers' CLIPModel."""
    return any(name.startswith(_TRANSFORMERS) for name in state_dict)


def is_clip(state_dict: Mapping[str, np.ndarray]) -> bool:
    """Whether a state dict holds a CLIP of any layout that `to_official_names` knows, or part of one."""
    names = compare.strip_wrappers(state_dict)
    return is_transformers(names) or any(re.match(r"(text\.)?token_embedding\.|visual\.", name) for name in names)


def is_from_archive(state_dict: Mapping[str, np.ndarray]) -> bool:
    """Whether the numbers are there that only OpenAI's archives hold."""
    return all(name in state_dict for name in _NUMBERS)


def names_of_swin(state_dict: Mapping[str, np.ndarray]) -> list[str]:
    """The names of a whole Swin that lies beside a CLIP in one file; [] for none."""
    names = compare.strip_wrappers(state_dict)
    found = [name for name in names if re.match(_SWIN, name)]
    return found if is_clip(names) and any(name.endswith("layers.0.blocks.0.norm1.weight") for name in found) else []


def to_official_names(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict in OpenAI's names without buffers, whatever layout it came in; values keep their dtype.

    A Swin beside the CLIP is left out.

    Args:
        state_dict: {name: array}, as `pretrained.files.read` gives it.
    """
    state_dict = compare.strip_wrappers(state_dict)
    left = {*_NUMBERS, *names_of_swin(state_dict)}
    state_dict = {name: value for name, value in state_dict.items() if name not in left}
    if is_transformers(state_dict):
        state_dict = _from_transformers(state_dict)
    elif "text.token_embedding.weight" in state_dict:
        state_dict = _from_custom_text(state_dict)
    for scalar in ("logit_scale", "logit_bias"):
        if np.size(state_dict.get(scalar, ())) == 1:  # open_clip stores either as (1,) by choice
            state_dict[scalar] = np.reshape(state_dict[scalar], ())
    return compare.drop_buffers(state_dict)


def _from_custom_text(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    renamed = {name.removeprefix("text."): value for name, value in state_dict.items()}
    if "text_projection.weight" in renamed:  # a Linear, where it was configured with a bias
        renamed["text_projection"] = np.transpose(renamed.pop("text_projection.weight"))
    return renamed


def _from_transformers(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    renamed = {}
    for name, value in state_dict.items():
        if name.endswith(".position_ids"):
            continue
        if name in ("text_projection.weight", "visual_projection.weight"):
            name = "text_projection" if name.startswith("text") else "visual.proj"
            value = np.transpose(value)
        for pattern, replacement in _TRANSFORMERS_NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    for name in [name for name in renamed if ".self_attn.q_proj." in name]:
        thirds = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if all(third in renamed for third in thirds):
            packed = np.concatenate([renamed.pop(third) for third in thirds])
            renamed[name.replace(".self_attn.q_proj.", ".attn.in_proj_")] = packed
    return renamed
