"""The layouts that Swin state dicts come in -> the names of the official classifiers;
and back to timm's.

Besides the classifiers of microsoft/Swin-Transformer: SimMIM's files (`encoder.` before the
backbone, a mask token and a decoder beside it, `rpe_mlp` for the MLP of the continuous bias),
detectors and segmenters (`backbone.`, necks and heads beside it, absolute positions as a map), and
timm (merging at the start of the next stage, `head.fc`; `layers_0` in its `features_only` models).
`transformers` and `torchvision` have modules of their own.
"""

import re
from collections import Counter
from collections.abc import Mapping

import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.pretrained import compare
from swin_jax.pretrained.swin import torchvision, transformers

# What stands before the names of a backbone that is part of something larger.
BACKBONE_PREFIXES = ("encoder.", "backbone.")
# What libraries do with windows no smaller than the map, where it is not the official way:
# values of Swin's `small`.
RULES = {"timm": "shrink_axis", "torchvision": "pad"}
# The parts of a CLIP, in any of its layouts, that may lie beside a Swin in one file.
_CLIP = (
    r"(visual|transformer|token_embedding|ln_final|text|text_model|vision_model"
    r"|visual_projection)\.|(text_projection|positional_embedding|logit_scale|logit_bias)\b"
)

# Words in the names of what training adds beside the classifier: for self-supervision,
# distillation, several tasks. What could change the features (tokens, prompts, adapters) has none
# of them, and is refused as unexpected.
_HEADS = {
    "head",
    "heads",
    "classifier",
    "classifiers",
    "fc",
    "proj",
    "projector",
    "projection",
    "predictor",
    "pred",
}
_HEADS |= {
    "prototypes",
    "queue",
    "decoder",
    "criterion",
    "loss",
    "metric",
    "center",
    "aux",
    "auxiliary",
    "dist",
}


def to_official_names(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict in official names without buffers, whatever layout it came in;
    a warning tells what was left out.

    Args:
        state_dict: {name: array}, as `pretrained.files.read` gives it.
    """
    renamed, left = official_names(state_dict)
    if left:
        parts = ", ".join(f"{part} ({count})" for part, count in left.items())
        warn(f"ignored weights that do not belong to a Swin: {parts}")
    return compare.drop_buffers(renamed)


def official_names(
    state_dict: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Renames a state dict, with its buffers.

    Returns:
        ({official name: array}, {what is not part of a Swin and was left out:
        number of its arrays}).
    """
    state_dict, left = take_backbone(_of_libraries(compare.strip_wrappers(state_dict)))
    if "mask_token" in state_dict:
        del state_dict["mask_token"]
        left["mask_token"] = 1
    state_dict = rename_bias_mlp(state_dict)
    positions = state_dict.get("absolute_pos_embed")
    if positions is not None and positions.ndim > 3:  # (1, C, *grid) -> (1, L, C)
        flat = positions.reshape(*positions.shape[:2], -1)
        state_dict["absolute_pos_embed"] = np.ascontiguousarray(flat.transpose(0, 2, 1))
    return from_timm(state_dict), left


def _of_libraries(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames what transformers, torchvision and timm's `features_only` call in their own ways;
    others pass.
    """
    if transformers.is_transformers(state_dict):
        return transformers.to_official_names(state_dict)
    if torchvision.is_torchvision(state_dict):
        return torchvision.to_official_names(state_dict)
    return {
        re.sub(r"^((?:.*\.)?)layers_(?=\d+\.)", r"\1layers.", name): x
        for name, x in state_dict.items()
    }


def is_segmenter(state_dict: Mapping[str, np.ndarray]) -> bool:
    """True for a state dict that holds a whole UPerNet, in any layout and under any wrapper."""
    return any(name.endswith("decode_head.fpn_bottleneck.conv.weight") for name in state_dict)


def refuse_segmenter(state_dict: Mapping[str, np.ndarray]) -> None:
    """Raises UserError for the weights of a segmenter where a classifier's are wanted."""
    if is_segmenter(state_dict):
        raise UserError(
            "these weights are of a whole segmenter (UPerNet), not of a classifier: "
            "swin_jax.load(weights=FILE), without the name of a Swin, loads them, and an "
            "experiment of experiments/segmentation starts from them with "
            "--config.init_from.path=FILE --config.init_from.backbone=False"
        )


def num_classes(state_dict: Mapping[str, np.ndarray]) -> int:
    """Classes of the head of a state dict in any layout; 0 without one."""
    return len(official_names(state_dict)[0].get("head.weight", ()))


def simmim_names(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A pretrained SimMIM in the official names, with its buffers:
    the Swin and the mask token under `encoder.`.
    """
    state_dict = compare.strip_wrappers(state_dict)
    if transformers.is_transformers(state_dict):
        found = transformers.to_official_names(state_dict)
        state_dict = {
            n if n.startswith("decoder.") else f"encoder.{n}": value for n, value in found.items()
        }
    return rename_bias_mlp(state_dict)


def rename_bias_mlp(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gives the MLP of the continuous bias the classifiers' name;
    SimMIM's files call it `rpe_mlp`.
    """
    return {
        name.replace(".attn.rpe_mlp.", ".attn.cpb_mlp."): value
        for name, value in state_dict.items()
    }


def take_backbone(
    state_dict: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The Swin inside a pretrained SimMIM, a detector or a segmenter, or beside a CLIP;
    anything else stays whole.

    Returns:
        (the backbone's arrays without their prefix, {first part of the other names:
        how many they are}).
    """
    for prefix in BACKBONE_PREFIXES:
        if (
            prefix + "patch_embed.proj.weight" in state_dict
            and prefix + "layers.0.blocks.0.norm1.weight" in state_dict
        ):
            inside = {
                name[len(prefix) :]: value
                for name, value in state_dict.items()
                if name.startswith(prefix)
            }
            left = Counter(name.split(".")[0] for name in state_dict if not name.startswith(prefix))
            inside, heads = _without_heads(inside)
            return inside, dict(left + heads)
    if "patch_embed.proj.weight" in state_dict and "layers.0.blocks.0.norm1.weight" in state_dict:
        inside, heads = _without_heads(
            {n: value for n, value in state_dict.items() if not re.match(_CLIP, n)}
        )
        left = Counter(name.split(".")[0] for name in state_dict if re.match(_CLIP, name))
        return inside, dict(left + heads)
    return dict(state_dict), {}


def is_timm(state_dict: Mapping[str, np.ndarray]) -> bool:
    """True for timm's layout, in which the merging of a stage lies at its start,
    after any prefix.
    """
    if any(re.search(r"(^|\.)layers_0\.blocks\.", name) for name in state_dict):
        return True  # `features_only`
    stages = {
        int(m[1])
        for name in state_dict
        if (m := re.search(r"(?:^|\.)layers\.(\d+)\.downsample\.", name))
    }
    return bool(stages) and 0 not in stages and any("layers.0." in name for name in state_dict)


def library(state_dict: Mapping[str, np.ndarray]) -> str:
    """The library whose layout a state dict has: 'timm', 'torchvision', 'transformers',
    or '' for the official one.
    """
    if is_timm(state_dict):
        return "timm"
    names = compare.strip_wrappers(state_dict)
    if torchvision.is_torchvision(names):
        return "torchvision"
    return "transformers" if transformers.is_transformers(names) else ""


def _without_heads(state_dict: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Counter]:
    """(the arrays but for those of heads that no Swin here has, {first part of the others' names:
    their number}).
    """
    inside = {name: value for name, value in state_dict.items() if not is_extra_head(name)}
    return inside, Counter(name.split(".")[0] for name in state_dict if name not in inside)


def is_extra_head(name: str) -> bool:
    """True for an array of a head that is not the classifier,
    or of what else training adds beside it.
    """
    part, _, rest = name.partition(".")
    if part == "head":
        return rest not in ("weight", "bias", "fc.weight", "fc.bias")
    return not _HEADS.isdisjoint(part.lower().split("_"))


def from_timm(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames timm's layout (merging at the start of the next stage,
    `head.fc`) to the official one; others pass.
    """
    shift = is_timm(state_dict)
    renamed = {}
    for name, value in state_dict.items():
        if shift:
            name = re.sub(
                r"^layers\.(\d+)(?=\.downsample\.)", lambda m: f"layers.{int(m[1]) - 1}", name
            )
        renamed[re.sub(r"^head\.fc\.", "head.", name)] = value
    return renamed


def to_timm(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames an official state dict to timm's layout, which has no buffers;
    the inverse of `from_timm`.
    """
    renamed = {}
    for name, value in compare.drop_buffers(state_dict).items():
        name = re.sub(
            r"^layers\.(\d+)(?=\.downsample\.)", lambda m: f"layers.{int(m[1]) + 1}", name
        )
        renamed[re.sub(r"^head\.", "head.fc.", name)] = value
    return renamed
