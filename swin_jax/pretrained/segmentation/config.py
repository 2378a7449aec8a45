"""Reads a config of transformers that lies beside the weights of an UPerNet.

Every field that changes a number is obeyed, compared with the arrays, or refused by its name. The
reference is `UperNetConfig` of transformers 5.24; its backbone's part is read as a Swin's.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from swin_jax.core.errors import warn
from swin_jax.core.ranges import PositiveInt
from swin_jax.pretrained import beside
from swin_jax.pretrained.beside import Config
from swin_jax.pretrained.segmentation import convert
from swin_jax.pretrained.swin import config as swin_config

# The only value that the models here compute with.
_ONLY = dict(
    auxiliary_concat_input=False,
    auxiliary_num_convs=1,
    backbone=None,
    backbone_kwargs=None,
    use_timm_backbone=False,
    **beside.IDLE_IF,
)
_TYPES = dict(
    auxiliary_channels=PositiveInt, hidden_size=PositiveInt, pool_scales=tuple[PositiveInt, ...]
)
# Fields that count in training only, that arrays tell, or that `swin_config` reads.
_IDLE = beside.IDLE | {
    "auxiliary_in_channels",
    "auxiliary_loss_weight",
    "backbone_config",
    "initializer_range",
    "loss_ignore_index",
    "use_auxiliary_head",
    "use_pretrained_backbone",
}


def arguments_of(config: Config | None, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The arguments of `models.segmentation.make_upernet` that a config tells, and that arrays may
    not.

    Args:
        config: The config beside the weights, or None.
        arrays: The weights, in any layout of `convert.to_official_names`.

    Returns:
        `pool_scales`, `window_size`, `pretrained_window_sizes` and, where the model depends on it,
        `image_size`, as far as the config tells them; {} for the config of another model.

    Raises:
        UserError: A field that cannot be obeyed, or that says something else than the arrays;
            the field is named.
    """
    if not _is_read(config):
        return {}
    fields, found = config.fields, convert.to_official_names(arrays)
    for name in sorted(fields.keys() - _TYPES.keys() - _ONLY.keys() - _IDLE):
        raise config.refuse(name, fields[name], "is not understood")
    beside.check_types(config.path, fields, _TYPES)
    for name, value in _ONLY.items():
        if fields.get(name, value) not in (value, None, {}):
            raise config.refuse(name, fields[name])
    _compare(config, found)
    told = _of_backbone(config, convert.backbone_of(found))
    if fields.get("pool_scales") is not None:
        told["pool_scales"] = tuple(fields["pool_scales"])
    return told


def tell_unread(config: Config | None) -> None:
    """Warns of a config beside the weights of an UPerNet that is of another model."""
    if config is not None and not _is_read(config):
        warn(f"{config.path} is not read: it describes no UPerNet")


def _is_read(config: Config | None) -> bool:
    if config is None or config.kind != beside.TRANSFORMERS:
        return False
    return config.fields["model_type"] == "upernet"


def _compare(config: Config, found: Mapping[str, np.ndarray]) -> None:
    """Raises UserError for a size of the heads that is another one in the arrays."""
    kernel, auxiliary = (
        found.get(f"{name}.weight")
        for name in ("decode_head.fpn_bottleneck.conv", "auxiliary_head.conv_seg")
    )
    sizes = dict(hidden_size=None if kernel is None else len(kernel))
    if auxiliary is not None:  # it helps training only, and may have been taken away
        sizes["auxiliary_channels"] = auxiliary.shape[1]
    for name, ours in sizes.items():
        if config.fields.get(name, ours) not in (ours, None):
            raise config.refuse(name, config.fields[name], f"but the weights have {ours}")
    scales, count = config.fields.get("pool_scales"), convert.count_pools(found)
    if scales is not None and len(scales) != count:
        raise config.refuse("pool_scales", scales, f"but the weights pool to {count} grids")


def _of_backbone(config: Config, backbone: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The backbone's part, see `pretrained.swin.config.arguments_of`.

    The image of a first version without absolute positions is left out: nothing depends on it, and
    transformers' configs keep that of the classifier.
    """
    if not isinstance(config.fields.get("backbone_config"), Mapping):
        return {}
    told = swin_config.arguments_of(config, backbone)
    is_second = "layers.0.blocks.0.attn.logit_scale" in backbone
    if not is_second and "absolute_pos_embed" not in backbone:
        told.pop("image_size", None)
    return told
