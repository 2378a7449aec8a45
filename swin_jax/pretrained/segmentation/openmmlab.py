"""OpenMMLab's own Swin (mmsegmentation, mmdetection) -> the official names.

Its merging of patches unfolds the map, which puts channels before the places of a cell and the
places row by row; the official one puts places before channels, column by column.
"""

import re
from collections.abc import Mapping

import numpy as np

_RENAMED = (
    (r"(^|\.)patch_embed\.projection\.", r"\1patch_embed.proj."),
    (r"(^|\.)stages\.(?=\d+\.)", r"\1layers."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)
# Places of a 2 x 2 cell row by row -> column by column; its own inverse.
_ORDER = [0, 2, 1, 3]


def is_openmmlab(state_dict: Mapping[str, np.ndarray]) -> bool:
    """True for a Swin in OpenMMLab's names, under any prefix."""
    return any(".attn.w_msa." in name for name in state_dict)


def to_official_names(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames a state dict, under any prefix, and brings merging to the official order."""
    renamed = {}
    for name, value in state_dict.items():
        for pattern, new in _RENAMED:
            name = re.sub(pattern, new, name)
        if re.search(r"\.downsample\.(norm|reduction)\.", name):
            value = _places_first(value)
        renamed[name] = value
    return renamed


def _places_first(value: np.ndarray) -> np.ndarray:
    """(..., C * 4) by channel and place to (..., 4 * C) by place and channel."""
    cells = value.reshape(*value.shape[:-1], -1, len(_ORDER))[..., _ORDER]
    return np.ascontiguousarray(np.moveaxis(cells, -1, -2)).reshape(value.shape)
