"""Makes weights fit an UPerNet before training: a classifier's become its backbone, a segmenter's
get position tables of another window and classifiers of other classes.

The official code starts from a classifier (`pretrained=`), whose final norm and head are left out,
or from a segmenter (`load_from=`).
"""

import functools
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.core.saved_config import tuples
from swin_jax.pretrained import beside, compare
from swin_jax.pretrained.segmentation import config as upernet_config
from swin_jax.pretrained.segmentation import convert
from swin_jax.pretrained.swin import finetune as swin

RESIZES = swin.RESIZES
# Paths of parameters and statistics that keep their initialization when a backbone is taken:
# `InitFrom(backbone=True, head=FRESH)`.
FRESH = r"^(batch_stats/)?(decode_head|auxiliary_head)/"


def remap(
    state_dict: Mapping[str, np.ndarray], model, resize: str | None = None, made_for=None
) -> dict[str, np.ndarray]:
    """Resizes the position tables of a segmenter and adapts its classifiers to a model;
    everything else stays.

    Args:
        state_dict: {name: array} of an UPerNet of any window and number of classes, in any layout.
        model: The `models.segmentation.UPerNet` to fill.
        resize: 'bicubic' or 'geometric' fits tables of another window, see
            `pretrained.swin.resize`; None where everything should fit. A continuous bias is
            computed again for any window.
        made_for: Anything with the fields of the Swin that the backbone is of, where they are
            known.

    Returns:
        The state dict for `pretrained.segmentation.convert.from_official`. Classifiers of zeros,
        a first convolution of other channels and resized tables are told in warnings.

    Raises:
        UserError: Not a segmenter, or one without the model's auxiliary head. Tables of another
            window without `resize`.
    """
    _check_heads(state_dict, model)
    found = convert.to_official_names(state_dict)
    inside = convert.backbone_of(found)
    backbone = swin.remap(inside, model.backbone, resize, made_for=made_for)
    heads = {name: value for name, value in found.items() if name.startswith("decode_head.")}
    if model.auxiliary_channels:
        heads |= {name: value for name, value in found.items() if name.startswith("auxiliary_head")}
    heads = _adapt_classes(compare.drop_buffers(heads), model.num_classes)
    return {f"backbone.{name}": value for name, value in backbone.items()} | heads


def _check_heads(state_dict: Mapping[str, np.ndarray], model) -> None:
    if not convert.is_upernet(state_dict):
        raise UserError(
            "these weights have no decode_head, so that they are not of a segmenter (UPerNet) but "
            "of a classifier, for example: swin_jax.load(weights=FILE), without the name of an "
            "UPerNet, loads them, and an experiment of experiments/segmentation makes them its "
            "backbone with --config.init_from.path=FILE"
        )
    if model.auxiliary_channels and not any("auxiliary_head." in name for name in state_dict):
        raise UserError(
            "these weights have no auxiliary head: give auxiliary_channels=0, in an experiment "
            "--config.task.model.auxiliary_channels=0 --config.task.auxiliary_weight=0"
        )


def _adapt_classes(heads: dict[str, np.ndarray], num_classes: int) -> dict[str, np.ndarray]:
    """Classifiers of another number of classes become zeros, with a warning."""
    names = [name for name in heads if name.endswith("conv_seg.weight")]
    others = [name for name in names if len(heads[name]) != num_classes]
    for name in others:
        _, *shape = heads[name].shape
        bias = name.replace("conv_seg.weight", "conv_seg.bias")
        heads |= {name: np.zeros((num_classes, *shape), np.float32)}
        heads |= {bias: np.zeros(num_classes, np.float32)}
    if others:
        warn(
            f"the classifiers of these weights are not of {num_classes} classes: "
            f"{' and '.join(name.partition('.')[0] for name in others)} end with zeros "
            "and must be trained"
        )
    return heads


def load_pretrained(source, model, resize: str | None = None, key: str | None = None) -> dict:
    """Fits the weights of a classifier or of a segmenter into an UPerNet.

    Args:
        source: A file of `pretrained.files.read`, a folder of a hub, or {'params': ...} of a Swin,
            a SimMIM or an UPerNet, and 'config', the flat config of its run, if there is one.
        model: The `models.segmentation.UPerNet` to fill.
        resize: The method that resizes position tables of another window, see `remap`.
        key: The weights to take from a file that holds several, see `pretrained.files.read`.

    Returns:
        {'params': {'backbone': ...}} of a classifier, for `InitFrom(backbone=True, head=FRESH)`:
        its final norm and head are left out, and norms of maps start as ones and zeros, which a
        warning says. {'params': ..., 'batch_stats': ...} of a segmenter.

    Raises:
        UserError: An unreadable file; missing, unexpected and mis-shaped keys, all listed; no
            choice of resizing where one is needed.
    """
    if isinstance(source, Mapping) and "decode_head" in source["params"]:
        found, made_for = convert.to_state_dict(source), backbone_of_run(source.get("config"))
        return convert.from_official(remap(found, model, resize, made_for), model)
    found = swin.read(source, key)
    if not convert.is_upernet(found):
        return {"params": {"backbone": swin.fit(found, source, model.backbone, resize)["params"]}}
    try:
        beside_it = beside.config_beside(beside.locate(source))
        upernet_config.tell_unread(beside_it)
        told = upernet_config.arguments_of(beside_it, found)
        _tell_pools(told.get("pool_scales"), model)
        made_for = _dense(convert.infer(found, told)) if "window_size" in told else None
        return convert.from_official(remap(found, model, resize, made_for), model)
    except UserError as error:
        raise error.about(source) from error


def _tell_pools(theirs: tuple[int, ...] | None, model) -> None:
    """Warns where a decode head was trained on other grids; the arrays of both are alike."""
    if theirs is not None and tuple(theirs) != tuple(model.pool_scales):
        warn(
            f"the decode head of these weights pools to grids of {theirs}, the model's to "
            f"{tuple(model.pool_scales)}: to use it as it was trained, give "
            f"--config.task.model.pool_scales={theirs}"
        )


def backbone_of_run(config: Mapping | None) -> SimpleNamespace | None:
    """The fields of the Swin in an UPerNet that a run trained, from the run's flat config."""
    fields = fields_of(config or {})
    if "window_size" not in fields:
        return None
    return _dense(fields)


def _dense(fields: Mapping) -> SimpleNamespace:
    """The fields of the backbone that `models.segmentation.make_upernet` makes of arguments."""
    dense = dict(small="keep", merge_size=2, out_norms=tuple(range(len(fields["depths"]))))
    return SimpleNamespace(**{**fields, **dense})


def fields_of(config: Mapping) -> dict:
    """The arguments of `models.segmentation.make_upernet` in the flat config of a run,
    tuples for JSON's lists.
    """
    prefix = "task.model."
    own = {name.removeprefix(prefix): x for name, x in config.items() if name.startswith(prefix)}
    return {name: tuples(value) for name, value in own.items() if name != "fn"}


def pretrained(resize: str | None = None) -> Callable:
    """`load_pretrained` as a function of (source, model), for an experiment file."""
    return functools.partial(load_pretrained, resize=resize)
