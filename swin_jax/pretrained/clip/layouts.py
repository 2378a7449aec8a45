"""Converts the layouts of CLIP's state dicts to the names of openai/CLIP.

The layouts are:

- OpenAI's own, as a TorchScript archive (with three numbers beside the weights) or as a plain
  state dict;
- open_clip's: the same names, but `text.` before those of the text tower in its CustomTextCLIP,
  and masks in older versions;
- `CLIPModel` of Hugging Face's transformers: other names, and separate q, k and v.

If the CLIP is a part of a larger model, all names may start with a prefix (`clip.`,
`clip_model.`).
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.pretrained import compare
from swin_jax.pretrained.files import choose

# Numbers beside the weights in OpenAI's archives and in older files of transformers.
_NUMBERS = ("input_resolution", "context_length", "vocab_size")
_SWIN = (
    r"(encoder\.|backbone\.)?(patch_embed|layers|norm\d?|head|absolute_pos_embed|mask_token)(\.|$)"
)
_TOKENS = r"(.*?)(?:text\.)?(?:text_model\.embeddings\.)?token_embedding\.weight$"
_HEADS = r"([a-z]+_)?(head|classifier)\."  # heads of classifiers on top of a CLIP
_TRANSFORMERS = ("text_model.", "vision_model.")

_TRANSFORMERS_NAMES = (
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    # The released files spell it 'pre_layrnorm'.
    (r"^vision_model\.pre_laye?rnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)


def is_transformers(state_dict: Mapping[str, np.ndarray]) -> bool:
    """True if the names are those of transformers' CLIPModel."""
    return any(name.startswith(_TRANSFORMERS) for name in state_dict)


def is_clip(state_dict: Mapping[str, np.ndarray]) -> bool:
    """True if a state dict holds a CLIP, or part of one, in any layout of this module."""
    names = compare.strip_wrappers(state_dict)
    if prefixes(names):
        return True
    return is_transformers(names) or any(
        re.match(r"(text\.)?token_embedding\.|visual\.", name) for name in names
    )


def is_from_archive(state_dict: Mapping[str, np.ndarray], sizes: Mapping[str, Any]) -> bool:
    """True if a state dict holds the numbers of OpenAI's archives, and they match the model.

    Args:
        state_dict: {name: array}, names as in the file.
        sizes: Arguments of the model, from `pretrained.clip.infer.infer`.
    """
    wanted = (sizes["image_size"], sizes["context_length"], sizes["vocab_size"])
    found = [state_dict.get(name) for name in _NUMBERS]
    return all(
        one is not None and np.size(one) == 1 and int(np.reshape(one, ())) == other
        for one, other in zip(found, wanted)
    )


def prefixes(state_dict: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """The prefix of each whole CLIP in a state dict; '' for one without a prefix."""
    names = state_dict.keys()
    found = dict.fromkeys(match[1] for name in names if (match := re.match(_TOKENS, name)))
    images = ("visual.conv1.weight", "vision_model.embeddings.class_embedding")
    return tuple(prefix for prefix in found if any(prefix + name in names for name in images))


def own_part(state_dict: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The arrays of the CLIP in a state dict, without their prefix; and the names of all others.

    Raises:
        UserError: There are several CLIPs, and the rule of `files.choose` does not decide.
    """
    prefix, others = preferred(state_dict)
    own = {
        name.removeprefix(prefix): value
        for name, value in state_dict.items()
        if name.startswith(prefix)
    }
    if not prefix:
        own = {
            name: value
            for name, value in own.items()
            if not name.startswith(others) and not re.match(_HEADS, name)
        }
    return own, tuple(
        name
        for name in state_dict
        if name.removeprefix(prefix) not in own or not name.startswith(prefix)
    )


def preferred(state_dict: Mapping[str, np.ndarray]) -> tuple[str, tuple[str, ...]]:
    """The prefix of the CLIP to take, and the prefixes of the other whole ones.

    Raises:
        UserError: There are several CLIPs, and the rule of `files.choose` does not decide.
    """
    found = prefixes(state_dict) or ("",)
    if len(found) == 1:
        return found[0], ()
    chosen = choose.preferred([prefix.removesuffix(".") for prefix in found])
    if chosen is None:
        raise UserError(
            "these weights hold several CLIPs, under "
            f"{', '.join(map(repr, found))}: choose with key="
        )
    (prefix,) = (prefix for prefix in found if prefix.removesuffix(".") == chosen)
    return prefix, tuple(other for other in found if other != prefix)


def names_of_swin(state_dict: Mapping[str, np.ndarray]) -> list[str]:
    """The names of a whole Swin beside a CLIP in the same file; [] if there is none."""
    names = compare.strip_wrappers(state_dict)
    found = [name for name in names if re.match(_SWIN, name)]
    if is_clip(names) and any(name.endswith("layers.0.blocks.0.norm1.weight") for name in found):
        return found
    return []


def to_official_names(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Converts a state dict of any layout to OpenAI's names; values keep their dtype.

    Buffers are left out, and so are a Swin beside the CLIP, the rest of a larger model and the head
    of a classifier.

    Args:
        state_dict: {name: array}, as `pretrained.files.read` gives it.
    """
    state_dict, _ = own_part(compare.strip_wrappers(state_dict))
    left = {*_NUMBERS, *names_of_swin(state_dict)}
    state_dict = {name: value for name, value in state_dict.items() if name not in left}
    if is_transformers(state_dict):
        state_dict = _from_transformers(state_dict)
    elif "text.token_embedding.weight" in state_dict:
        state_dict = _from_custom_text(state_dict)
    for scalar in ("logit_scale", "logit_bias"):
        if np.size(state_dict.get(scalar, ())) == 1:  # open_clip can store both as (1,)
            state_dict[scalar] = np.reshape(state_dict[scalar], ())
    return compare.drop_buffers(state_dict)


def _from_custom_text(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    renamed = {name.removeprefix("text."): value for name, value in state_dict.items()}
    if "text_projection.weight" in renamed:  # a Linear layer, if it was configured with a bias
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
