"""UPerNet: official state dicts <-> our variables, and what a state dict tells of its architecture.

Official names and shapes are those of `EncoderDecoder` of Swin-Transformer-Semantic-Segmentation;
`to_official_names` brings mmsegmentation's own and transformers' to them. Convolutions go from
(out, in, h, w) to (h, w, in, out); running statistics are in 'batch_stats'. Only the fields of a
model are looked at, so that no model is imported here.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten, official_name
from swin_jax.pretrained import compare
from swin_jax.pretrained.arcface.convert import to_variables
from swin_jax.pretrained.segmentation import openmmlab
from swin_jax.pretrained.swin import convert as swin
from swin_jax.pretrained.swin import infer as swin_infer
from swin_jax.pretrained.swin import layouts

POOL_SCALES = (1, 2, 3, 6)
_HEADS = ("decode_head.", "auxiliary_head.")
_BACKBONE = "backbone."
# transformers' names of what the heads consist of.
_RENAMED = ((r"\.batch_norm\.", ".bn."), (r"^(\w+_head)\.classifier\.", r"\1.conv_seg."))


def is_upernet(state_dict: Mapping[str, np.ndarray]) -> bool:
    """True for a state dict that holds a whole UPerNet over a Swin, in any layout."""
    return layouts.is_segmenter(state_dict)


def official_shapes(model) -> dict[str, tuple[int, ...]]:
    """{official name: official shape} of a `models.segmentation.UPerNet`, running statistics among
    them, in the official order.
    """
    inside = swin.official_shapes(model.backbone)
    shapes = {f"{_BACKBONE}{name}": shape for name, shape in inside.items()}
    stages, width, classes = len(model.backbone.depths), model.channels, model.num_classes
    dims = [model.backbone.embed_dim * 2**s for s in range(stages)]
    head = "decode_head"
    shapes |= _classifier_shapes(head, classes, width)
    for i in range(len(model.pool_scales)):
        shapes |= _conv_shapes(f"{head}.psp_modules.{i}.1", dims[-1], width, 1)
    pooled = dims[-1] + len(model.pool_scales) * width
    shapes |= _conv_shapes(f"{head}.bottleneck", pooled, width, 3)
    for i in range(stages - 1):
        shapes |= _conv_shapes(f"{head}.lateral_convs.{i}", dims[i], width, 1)
    for i in range(stages - 1):
        shapes |= _conv_shapes(f"{head}.fpn_convs.{i}", width, width, 3)
    shapes |= _conv_shapes(f"{head}.fpn_bottleneck", stages * width, width, 3)
    if not model.auxiliary_channels:
        return shapes
    shapes |= _classifier_shapes("auxiliary_head", classes, model.auxiliary_channels)
    return shapes | _conv_shapes("auxiliary_head.convs.0", dims[-2], model.auxiliary_channels, 3)


def _classifier_shapes(head: str, classes: int, width: int) -> dict:
    return {
        f"{head}.conv_seg.weight": (classes, width, 1, 1),
        f"{head}.conv_seg.bias": (classes,),
    }


def _conv_shapes(name: str, before: int, after: int, kernel: int) -> dict:
    norm = ("weight", "bias", "running_mean", "running_var")
    shapes = {f"{name}.conv.weight": (after, before, kernel, kernel)}
    return shapes | {f"{name}.bn.{leaf}": (after,) for leaf in norm}


def to_official_names(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames a state dict to the official names, with the buffers of its backbone.

    Args:
        state_dict: {name: array}, as `pretrained.files.read` gives it: the official layout,
            mmsegmentation's own or transformers', under any wrapper that all names have.
    """
    names = compare.strip_wrappers(state_dict)
    if openmmlab.is_openmmlab(names):
        names = openmmlab.to_official_names(names)
    backbone = {
        name.removeprefix(_BACKBONE): value
        for name, value in names.items()
        if name.startswith(_BACKBONE)
    }
    inside, _ = layouts.official_names(backbone)
    found = {f"{_BACKBONE}{name}": value for name, value in inside.items()}
    for name, value in names.items():
        if name.startswith(_HEADS):
            for pattern, new in _RENAMED:
                name = re.sub(pattern, new, name)
            found[name] = value
        elif not name.startswith(_BACKBONE):
            found[name] = value
    return found


def backbone_of(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The backbone's arrays of a state dict in official names, without their prefix."""
    return {
        name.removeprefix(_BACKBONE): value
        for name, value in state_dict.items()
        if name.startswith(_BACKBONE)
    }


def infer(state_dict: Mapping[str, np.ndarray], known: Mapping[str, Any]) -> dict:
    """The arguments of `models.segmentation.make_upernet` that a state dict was made with.

    Args:
        state_dict: State dict in any layout of `to_official_names`, with or without buffers.
        known: Arguments that are used where the arrays do not tell: `window_size` and `image_size`
            of a continuous bias without buffers, `pool_scales` where they are not four, and
            `image_size` of the crops, which is 512 unless absolute positions tell it.

    Returns:
        Keyword arguments; rates of dropout and drop path leave no trace and are not among them.

    Raises:
        UserError: Not an UPerNet over a Swin, or one that does not tell its windows.
    """
    found = to_official_names(state_dict)
    kernel = found.get("decode_head.fpn_bottleneck.conv.weight")
    classes = found.get("decode_head.conv_seg.weight")
    if kernel is None or classes is None:
        raise UserError(
            "not an UPerNet: decode_head.fpn_bottleneck.conv.weight or "
            "decode_head.conv_seg.weight is missing"
        )
    size = known.get("image_size")
    fields = swin_infer.infer(backbone_of(found), known.get("window_size"), size)
    stages = tuple(range(len(fields["depths"])))
    if fields["out_norms"] != stages:
        raise UserError(
            f"the backbone of these weights has norms of the maps of stages {fields['out_norms']}, "
            f"an UPerNet has them of all, {stages}"
        )
    dense = ("num_classes", "small", "out_norms")
    fields = {name: value for name, value in fields.items() if name not in dense}
    if not fields["ape"]:
        fields["image_size"] = 512 if size is None else size
    auxiliary = found.get("auxiliary_head.conv_seg.weight")
    return fields | dict(
        num_classes=len(classes),
        channels=len(kernel),
        auxiliary_channels=0 if auxiliary is None else auxiliary.shape[1],
        pool_scales=_pool_scales(found, known),
    )


def count_pools(state_dict: Mapping[str, np.ndarray]) -> int:
    """The number of grids that the decode head pools to.

    Args:
        state_dict: State dict in official names.
    """
    pattern = r"decode_head\.psp_modules\.(\d+)\.1\.conv\.weight"
    numbers = [int(match[1]) for name in state_dict if (match := re.fullmatch(pattern, name))]
    return compare.count_of(numbers, "pooled maps of decode_head.psp_modules")


def _pool_scales(found: Mapping[str, np.ndarray], known: Mapping[str, Any]) -> tuple[int, ...]:
    count = count_pools(found)
    if (given := known.get("pool_scales")) is not None and len(given) == count:
        return tuple(given)
    if count != len(POOL_SCALES):
        raise UserError(
            f"these weights pool to {count} grids, and their sides are not told: "
            "give pool_scales=(...)"
        )
    return POOL_SCALES


def from_official(state_dict: Mapping[str, np.ndarray], model) -> dict:
    """Converts a state dict to the variables of an UPerNet; every key must fit.

    Args:
        state_dict: {name: array} as `pretrained.files.read` gives it, in any layout of
            `to_official_names`; buffers may be there and are dropped.
        model: A `models.segmentation.UPerNet`.

    Returns:
        {'params': ..., 'batch_stats': ...}, nested dicts of float32 numpy arrays, as `model.init`
        makes them.

    Raises:
        UserError: Lists every missing, unexpected and mis-shaped key.
    """
    found = compare.drop_buffers(to_official_names(state_dict))
    shapes = official_shapes(model)
    swin.check_sizes(backbone_of(found), model.backbone)
    compare.check(found, shapes, _describe(model))
    heads = to_variables(found, [name for name in shapes if name.startswith(_HEADS)])
    backbone = swin.from_official(backbone_of(found), model.backbone)
    return {**heads, "params": heads["params"] | {"backbone": backbone["params"]}}


def to_official(variables: Mapping, model, buffers: bool = False) -> dict[str, np.ndarray]:
    """Converts the variables of an UPerNet to an official state dict;
    the inverse of `from_official`.

    Gradients, or anything else of the same structure, convert the same way; without 'batch_stats'
    there are no running statistics in the result.

    Args:
        variables: {'params': nested dict of arrays, 'batch_stats': the same}.
        model: The `models.segmentation.UPerNet` that they belong to.
        buffers: True adds `relative_position_index`, `relative_coords_table` and
            `num_batches_tracked`, which `load_state_dict` wants when it is strict.

    Returns:
        {official name: float32 numpy array in PyTorch's layout} (int64 for index and counters), in
        the official order.

    Raises:
        UserError: The variables are not this model's.
    """
    found, shapes = to_state_dict(variables), official_shapes(model)
    if not variables.get("batch_stats"):
        shapes = {name: shape for name, shape in shapes.items() if "running_" not in name}
    compare.check(found, shapes, _describe(model))
    inside = {"params": variables["params"]["backbone"]}
    backbone = swin.to_official(inside, model.backbone, buffers)
    official = {f"{_BACKBONE}{name}": value for name, value in backbone.items()}
    for name in (name for name in shapes if name.startswith(_HEADS)):
        official[name] = found[name]
        if buffers and name.endswith("running_var"):
            counter = name.replace("running_var", "num_batches_tracked")
            official[counter] = np.zeros((), np.int64)
    return official


def to_state_dict(variables: Mapping) -> dict[str, np.ndarray]:
    """Official names and layouts of the variables of any UPerNet, whatever its shapes;
    nothing is checked.
    """
    params = dict(variables["params"])
    backbone = swin.to_state_dict({"params": params.pop("backbone")})
    found = {f"{_BACKBONE}{name}": value for name, value in backbone.items()}
    statistics = flatten(variables.get("batch_stats", {}))
    heads = {official_name(path): value for path, value in flatten(params).items()}
    heads |= {
        re.sub(r"(mean|var)$", r"running_\1", official_name(path)): value
        for path, value in statistics.items()
    }
    for name, value in heads.items():
        value = np.asarray(value, np.float32)
        theirs = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        found[name] = np.ascontiguousarray(theirs)
    return found


def _describe(model) -> str:
    swin_ = model.backbone
    return (
        f"UPerNet(embed_dim={swin_.embed_dim}, depths={tuple(swin_.depths)}, "
        f"num_heads={tuple(swin_.num_heads)}, window_size={swin_.window_size}, "
        f"num_classes={model.num_classes}, channels={model.channels}, "
        f"auxiliary_channels={model.auxiliary_channels})"
    )
