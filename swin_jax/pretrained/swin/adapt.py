"""Gives a Swin's state dict another head, other norms or another number of input channels.

A head of other classes as microsoft/Swin-Transformer does it;
input channels as `adapt_input_conv` of timm 1.0.
"""

import re
from collections.abc import Mapping

import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.pretrained import compare


def adapt_channels(
    state_dict: Mapping[str, np.ndarray], in_channels: int, name: str = "patch_embed.proj.weight"
) -> dict[str, np.ndarray]:
    """Makes the first convolution one over another number of channels, by the rule of timm.

    For one channel, its weights are summed over their channels. For others, they are repeated in
    order, cut, and scaled by old / new channels, so that equal channels give what they gave before.

    Args:
        state_dict: State dict in official names.
        in_channels: Channels of the new images or videos.
        name: The weights of the first convolution.

    Returns:
        The state dict: unchanged where the channels agree, otherwise with a warning that names the
        rule. Raises UserError where the channels come last.
    """
    weight = state_dict.get(name)
    if weight is None or weight.ndim < 3 or weight.shape[1] in (0, in_channels):
        return dict(state_dict)
    compare.check_channels_first(name, weight)
    old, weight = weight.shape[1], np.asarray(weight, np.float32)
    if in_channels == 1:
        adapted, rule = weight.sum(axis=1, keepdims=True), "summed over its channels"
    else:
        adapted = weight[:, np.arange(in_channels) % old] * np.float32(old / in_channels)
        rule = f"repeated and scaled by {old}/{in_channels}"
    warn(
        f"the first convolution is of {old} channels, the model of {in_channels}: "
        f"{rule}, as timm does (adapt_input_conv)"
    )
    return dict(state_dict) | {name: adapted}


def adapt_head(
    state_dict: Mapping[str, np.ndarray], num_classes: int, rows: np.ndarray | None = None
) -> dict:
    """Gives a state dict a head of another size.

    Args:
        state_dict: State dict in official names.
        num_classes: Classes of the new head; 0 takes the head off.
        rows: (1000,) which row of a 22K head each 1K class is.

    Returns:
        The state dict: unchanged where the sizes agree; with the 1,000 rows where a head of
        21,841 classes becomes one of 1,000 and `rows` is given; otherwise with a head of
        zeros, and a warning.
    """
    weight = state_dict.get("head.weight")
    classes = 0 if weight is None else len(weight)
    if classes == num_classes:
        return dict(state_dict)
    if (classes, num_classes) == (21841, 1000) and rows is not None:
        return head_22k_to_1k(state_dict, rows)
    rest = {name: value for name, value in state_dict.items() if not name.startswith("head.")}
    if num_classes == 0:
        return rest
    if "norm.weight" not in rest:  # not a Swin: `from_official` lists what is missing
        return dict(state_dict)
    warn(
        f"the weights have a head of {classes} classes; "
        f"the head of {num_classes} classes starts from zeros and must be trained"
    )
    zeros = np.zeros((num_classes, len(rest["norm.weight"])), np.float32)
    return rest | {"head.weight": zeros, "head.bias": zeros[:, 0]}


def head_22k_to_1k(state_dict: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Picks the rows of a 22K head that are the ImageNet-1K classes,
    in the order given (never sorted).

    Args:
        state_dict: State dict in official names.
        rows: (1000,) int.
    """
    rows = np.asarray(rows)
    classes = len(state_dict["head.weight"])
    if classes <= rows.max():
        raise UserError(f"the head has {classes} classes, the map asks for row {rows.max()}")
    return dict(state_dict) | {
        name: state_dict[name][rows] for name in ("head.weight", "head.bias")
    }


def adapt_norms(state_dict: Mapping[str, np.ndarray], model) -> dict[str, np.ndarray]:
    """Gives a state dict the norms that a model has and the weights have not;
    they start as the identity.

    Those are the norms of a dense backbone's output maps, where the weights are of a classifier,
    and any where they end with the maps of their stages, without norms and head.

    Args:
        state_dict: State dict in official names.
        model: The `models.swin.Swin` to fill.

    Returns:
        The state dict: unchanged where nothing is missing, or something else than that;
        otherwise with a warning.
    """
    ends_with_maps = "layers.0.blocks.0.norm1.weight" in state_dict and not any(
        re.match(r"(norm\d*|head)\.", name) for name in state_dict
    )
    if not ends_with_maps and not (model.out_norms and "norm.weight" in state_dict):
        return dict(state_dict)
    stages = model.out_norms or (len(model.depths) - 1,)
    names = {(f"norm{s}" if model.out_norms else "norm"): model.embed_dim * 2**s for s in stages}
    fresh = {name: dim for name, dim in names.items() if f"{name}.weight" not in state_dict}
    if not fresh:
        return dict(state_dict)
    if model.out_norms:
        warn(
            f"the norms of the output maps of stages {_numbers(fresh)} start as ones "
            "and zeros and must be trained"
        )
    else:
        warn(
            "the weights end with the maps of their stages, which method='features' gives; "
            "the final norm starts as ones and zeros"
        )
    norms = {f"{name}.weight": np.ones(dim, np.float32) for name, dim in fresh.items()}
    norms |= {f"{name}.bias": np.zeros(dim, np.float32) for name, dim in fresh.items()}
    return {
        name: value for name, value in state_dict.items() if not name.startswith("norm.")
    } | norms


def _numbers(norms: Mapping[str, int]) -> list[int]:
    return [int(name.removeprefix("norm")) for name in norms]
