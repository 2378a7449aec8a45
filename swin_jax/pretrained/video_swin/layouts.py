"""The layouts that Video Swin state dicts come in -> the names of Video-Swin-Transformer.

Besides the official one (`backbone.` and `cls_head.`): torchvision's swin3d_* (`features`, `head`),
mmaction2 1.x (`norm3` for the final norm), and a backbone alone.
"""

import re
from collections import Counter
from collections.abc import Mapping

import numpy as np

from swin_jax.core.errors import warn
from swin_jax.pretrained import compare
from swin_jax.pretrained.swin.layouts import is_extra_head

# torchvision numbers stages and the merging between them in one list,
# and GELU and dropout with the MLP's layers.
_MLP = {"0": "fc1", "3": "fc2"}
_BACKBONE = ("patch_embed.", "layers.", "norm.", "norm3.")


def is_video(state_dict: Mapping[str, np.ndarray]) -> bool:
    """True if a state dict, in any layout, is of a Swin over videos: patches have a time axis."""
    patches = [
        value for name, value in state_dict.items() if name.endswith("patch_embed.proj.weight")
    ]
    return len(patches) == 1 and np.ndim(patches[0]) == 5


def to_official_names(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict in official names, `backbone.` and `cls_head.`, with its buffers.

    Args:
        state_dict: {name: array} of any layout, as `pretrained.files.read` gives it; names of other
            layouts stay as they are.
    """
    found = compare.strip_wrappers(state_dict)
    left = Counter(name.split(".")[0] for name in found if _is_left_out(name))
    if left:
        warn(f"ignored weights that do not belong to a Video Swin: {', '.join(left)}")
    renamed = {}
    for name, value in found.items():
        if _is_left_out(name):
            continue
        if not name.startswith(("backbone.", "cls_head.", "data_preprocessor.")):
            name = _from_torchvision(name)
            name = f"backbone.{name}" if name.startswith(_BACKBONE) else name
        if not name.startswith("data_preprocessor."):  # mean and standard deviation
            renamed[name.replace("backbone.norm3.", "backbone.norm.")] = value
    return renamed


def _is_left_out(name: str) -> bool:
    return not name.startswith(("backbone.", "cls_head.", "features.")) and is_extra_head(name)


def to_torchvision(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames an official state dict to torchvision's layout;
    buffers stay, as torchvision has the same.
    """
    numbers = {layer: number for number, layer in _MLP.items()}
    renamed = {}
    for name, value in state_dict.items():
        name = name.removeprefix("backbone.").replace("cls_head.fc_cls.", "head.")
        name = re.sub(r"^layers\.(\d+)\.blocks\.", lambda m: f"features.{2 * int(m[1])}.", name)
        name = re.sub(
            r"^layers\.(\d+)\.downsample\.", lambda m: f"features.{2 * int(m[1]) + 1}.", name
        )
        renamed[re.sub(r"\.mlp\.(fc\d)\.", lambda m: f".mlp.{numbers[m[1]]}.", name)] = value
    return renamed


def _from_torchvision(name: str) -> str:
    name = re.sub(
        r"^features\.(\d+)\.(\d+)\.", lambda m: f"layers.{int(m[1]) // 2}.blocks.{m[2]}.", name
    )
    name = re.sub(
        r"^features\.(\d+)\.(?=norm|reduction)",
        lambda m: f"layers.{int(m[1]) // 2}.downsample.",
        name,
    )
    name = re.sub(r"\.mlp\.([03])\.", lambda m: f".mlp.{_MLP[m[1]]}.", name)
    return re.sub(r"^head\.(?=weight$|bias$)", "cls_head.fc_cls.", name)
