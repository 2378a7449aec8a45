"""torchvision's `swin_*` and `swin_v2_*` -> the official names.

The reference is `torchvision/models/swin_transformer.py` of torchvision 0.28. Stages and the
merging between them are numbered in one list.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

_RENAMED = (
    (r"^features\.0\.0\.", "patch_embed.proj."),
    (r"^features\.0\.2\.", "patch_embed.norm."),
    (
        r"^features\.(\d+)\.(?=reduction\.|norm\.)",
        lambda found: f"layers.{int(found[1]) // 2 - 1}.downsample.",
    ),
    (r"^features\.(\d+)\.(?=\d+\.)", lambda found: f"layers.{int(found[1]) // 2}.blocks."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
)


def is_torchvision(state_dict: Mapping[str, np.ndarray]) -> bool:
    """True for a Swin over images in the names of torchvision."""
    return np.ndim(state_dict.get("features.0.0.weight")) == 4 and any(
        re.match(r"features\.1\.0\.attn\.", name) for name in state_dict
    )


def to_official_names(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames a state dict, with its buffers."""
    renamed = {}
    for name, value in state_dict.items():
        for pattern, new in _RENAMED:
            name = re.sub(pattern, new, name)
        renamed[name] = _squared(value) if name.endswith("relative_position_index") else value
    for name in [name for name in renamed if name.endswith(".attn.logit_scale")]:
        attention = name.removesuffix("logit_scale")
        bias = renamed.pop(attention + "qkv.bias", None)
        if bias is not None:  # version 2 sets that of the keys to zero in every pass
            renamed[attention + "q_bias"], _, renamed[attention + "v_bias"] = np.split(bias, 3)
    return renamed


def _squared(index: np.ndarray) -> np.ndarray:
    """An index (N * N,) as the official (N, N)."""
    side = math.isqrt(np.size(index))
    return np.reshape(index, (side, side)) if side**2 == np.size(index) else index
