"""transformers' Swin and Swin V2 -> the official names.

The references are `modeling_swin.py` and `modeling_swinv2.py` of transformers 5.24.
`save_pretrained` of every version writes the names of the first; a newer Swin in memory has others
(`attention.q_proj`, `mlp.fc1`). Their Swin V2 adds the mask of shifted windows twice, which shows
only where logits of one window lie some 80 apart.
"""

import re
from collections.abc import Mapping

import numpy as np

_PATCHES = r"^(swin(v2)?\.)?embeddings\.patch_embeddings\.projection\.weight$"
_BLOCKS = r"^(swin(v2)?\.)?encoder\.layers\.\d+\.blocks\.\d+\."
# In this order: `attention.output.dense` before the MLP's `output.dense`.
_RENAMED = (
    (r"^swin(v2)?\.", ""),
    (r"^classifier\.", "head."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.(?=layers\.)", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^embeddings\.position_embeddings$", "absolute_pos_embed"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^hidden_states_norms\.stage([1-9]\d*)\.", lambda found: f"norm{int(found[1]) - 1}."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.attention\.(self\.)?(relative_position_bias\.)?", ".attn."),
    (r"\.attn\.continuous_position_bias_mlp\.", ".attn.cpb_mlp."),
    (r"\.attn\.(query|key|value)\.", lambda found: f".attn.{found[1][0]}_proj."),
)


def is_transformers(state_dict: Mapping[str, np.ndarray]) -> bool:
    """True for a Swin or Swin V2 in the names of transformers;
    other models of theirs have other blocks.
    """
    patches = any(re.match(_PATCHES, name) for name in state_dict)
    return patches and any(re.match(_BLOCKS, name) for name in state_dict)


def to_official_names(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames a state dict and joins queries, keys and values.

    A mask token and a decoder stay beside the Swin.
    A backbone's final norm, which it has and never computes, is dropped.
    """
    renamed = {}
    for name, value in state_dict.items():
        for pattern, new in _RENAMED:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    if any(re.match(r"norm\d+\.", name) for name in renamed):
        renamed = {name: value for name, value in renamed.items() if not name.startswith("norm.")}
    for name in [name for name in renamed if name.endswith(".attn.q_proj.weight")]:
        _join(renamed, name.removesuffix("q_proj.weight"))
    return renamed


def _join(arrays: dict[str, np.ndarray], attention: str) -> None:
    """Replaces the three projections of one attention by `qkv`, as far as all three are there."""
    # Version 2 has no bias of keys; one that is there all the same stays,
    # and is refused by its name.
    if attention + "logit_scale" in arrays:
        for part in "qv":
            if (bias := arrays.pop(f"{attention}{part}_proj.bias", None)) is not None:
                arrays[f"{attention}{part}_bias"] = bias
    for kind in ("weight", "bias"):
        parts = [f"{attention}{part}_proj.{kind}" for part in "qkv"]
        if all(part in arrays for part in parts):
            arrays[f"{attention}qkv.{kind}"] = np.concatenate([arrays.pop(part) for part in parts])
