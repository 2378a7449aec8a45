"""Video Swin: official state dicts <-> our parameters,
and what a state dict tells about its architecture.

Official names and shapes are those of `SwinTransformer3D` and `I3DHead` of
SwinTransformer/Video-Swin-Transformer; `pretrained.video_swin.layouts` brings torchvision's and
mmaction2's to them. Only the fields of a model are looked at. The designs 'split' and 'factorized'
were never released: they have no official form.
"""

import itertools
import math
import re
from collections.abc import Mapping

import numpy as np

from swin_jax.core import stacking
from swin_jax.core.errors import UserError, warn
from swin_jax.core.params import flatten, official_name
from swin_jax.ops import window_geometry
from swin_jax.pretrained import compare, recognize
from swin_jax.pretrained.swin import convert as swin
from swin_jax.pretrained.swin.infer import choices
from swin_jax.pretrained.video_swin.inflate import inflate
from swin_jax.pretrained.video_swin.layouts import is_video, to_official_names, to_torchvision

__all__ = [
    "from_official",
    "infer",
    "inflate",
    "is_video",
    "to_official_names",
    "official_shapes",
    "to_official",
    "to_state_dict",
    "to_torchvision",
]

_HEAD = "cls_head.fc_cls."


def official_shapes(model) -> dict[str, tuple[int, ...]]:
    """{official name: official shape} of a VideoSwin's parameters, in the official order.

    Args:
        model: A `models.video_swin.VideoSwin` of the joint design.

    Raises:
        UserError: One of the other designs.
    """
    if model.temporal_layers or model.backbone.temporal_window:
        raise UserError(
            "only design='joint' has an official form; load models of the other designs from a "
            "workdir, or inflate an image Swin into them (pretrained.video_swin.inflate)"
        )
    shapes = {
        f"backbone.{name}": shape for name, shape in swin.official_shapes(model.backbone).items()
    }
    if model.num_classes:
        dim = model.backbone.embed_dim * 2 ** (len(model.backbone.depths) - 1)
        shapes |= {_HEAD + "weight": (model.num_classes, dim), _HEAD + "bias": (model.num_classes,)}
    return shapes


def from_official(state_dict: Mapping[str, np.ndarray], model) -> dict:
    """Converts a state dict to the variables of a VideoSwin; every key must fit.

    Args:
        state_dict: {name: array} as `pretrained.files.read` gives it, in any layout of
            `pretrained.video_swin.layouts`; buffers may be there and are dropped.
        model: A `models.video_swin.VideoSwin` of the joint design.

    Returns:
        {'params': nested dict of float32 numpy arrays}, as `model.init` makes it.

    Raises:
        UserError: Lists every missing, unexpected and mis-shaped key;
            or tells which other family the weights are of.
    """
    found = compare.drop_buffers(to_official_names(state_dict))
    _check(found, model)
    inside = {
        name.removeprefix("backbone."): value
        for name, value in found.items()
        if name.startswith("backbone.")
    }
    params = {"backbone": swin.from_official(inside, model.backbone)["params"]}
    if model.num_classes:
        kernel, bias = (np.asarray(found[_HEAD + leaf], np.float32) for leaf in ("weight", "bias"))
        params["cls_head"] = {"fc_cls": {"kernel": np.ascontiguousarray(kernel.T), "bias": bias}}
    return {"params": params}


def to_official(variables: Mapping, model, buffers: bool = False) -> dict[str, np.ndarray]:
    """Converts the variables of a VideoSwin to an official state dict;
    the inverse of `from_official`.

    Gradients, or anything else of the same structure, convert the same way.

    Args:
        variables: {'params': nested dict of arrays}.
        model: The `models.video_swin.VideoSwin` that they belong to, of the joint design.
        buffers: True to add `relative_position_index`, which the official `load_state_dict` wants
            when it is strict.

    Returns:
        {official name: float32 numpy array in PyTorch's layout} (int64 for the index),
        in the official order.

    Raises:
        UserError: The variables are not this model's, or of another design.
    """
    found = to_state_dict(variables)
    _check(found, model)
    official = {name: found[name] for name in official_shapes(model)}
    if buffers:
        windows = window_geometry.stage_geometry(model.backbone)[1]
        for s, i in ((s, i) for s, depth in enumerate(model.backbone.depths) for i in range(depth)):
            index = window_geometry.relative_position_index(windows[s]).astype(np.int64)
            official[f"backbone.layers.{s}.blocks.{i}.attn.relative_position_index"] = index
    return official


def to_state_dict(variables: Mapping) -> dict[str, np.ndarray]:
    """Official names and layouts of the variables of any joint VideoSwin, whatever its shapes;
    nothing is checked.
    """
    params = dict(variables["params"])
    found = swin.to_state_dict({"params": params.pop("backbone")})
    found = {f"backbone.{name}": value for name, value in found.items()}
    for path, value in flatten(stacking.unstack(params)).items():
        value = np.asarray(value, np.float32)
        found[official_name(path)] = np.ascontiguousarray(value.T) if value.ndim == 2 else value
    return found


def _check(found: Mapping, model) -> None:
    """Raises what `from_official` raises for a state dict in official names."""
    report = compare.compare(found, official_shapes(model))
    if not report:
        return
    inside = {name.removeprefix("backbone."): value for name, value in found.items()}
    if other := recognize.recognize(inside, 3):
        if "2 spatial axes" in other:
            other += "; an image Swin becomes a Video Swin by pretrained.video_swin.inflate"
        raise UserError(other)
    swin.check_sizes(inside, model.backbone)
    swin_ = model.backbone
    raise report.error(
        f"these weights are not for VideoSwin(embed_dim={swin_.embed_dim}, "
        f"depths={tuple(swin_.depths)}, num_heads={tuple(swin_.num_heads)}, "
        f"window_size={tuple(swin_.window_size)}, num_classes={model.num_classes})"
    )


def infer(
    state_dict: Mapping[str, np.ndarray], window_size: tuple[int, int, int] | None = None
) -> dict:
    """The arguments of `models.video_swin.make_video_swin` that a state dict was made with.

    Its parameters do not depend on the size of the clips: `image_size` is 32 frames, as all
    published models have, of the smallest square image whose every stage holds a window, which is
    224 for window 7 and 384 for window 12.

    Args:
        state_dict: State dict in any layout of `pretrained.video_swin.layouts`, with or without
            buffers.
        window_size: Window that is used only where the state dict does not tell: a continuous bias
            without buffers, and a number of rows that several windows have.

    Returns:
        Keyword arguments; `drop_path_rate` and `dropout_rate` leave no trace and
        are not among them.

    Raises:
        UserError: Not a Video Swin, or a window that is not told.
    """
    found = to_official_names(state_dict)
    inside = {
        name.removeprefix("backbone."): value
        for name, value in found.items()
        if name.startswith("backbone.")
    }
    proj = inside.get("patch_embed.proj.weight")
    blocks = {
        (int(m[1]), int(m[2]))
        for name in inside
        if (m := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.norm1\.", name))
    }
    if proj is None or proj.ndim != 5 or (0, 0) not in blocks:
        other = recognize.recognize(inside or found, 3)
        raise UserError(
            other
            or "not a Video Swin state dict: no patches with a time axis, or no layers.0.blocks.0"
        )
    compare.check_channels_first("patch_embed.proj.weight", proj)
    fields = choices(inside)
    del fields["out_norms"]  # mmaction2's norm3 is the final norm
    stages = compare.count_of({s for s, _ in blocks}, "stages")
    window = _window(inside, window_size)
    fc1, head = inside["layers.0.blocks.0.mlp.fc1.weight"], found.get(_HEAD + "weight")
    sides = [size * patch * 2 ** (stages - 1) for size, patch in zip(window[1:], proj.shape[3:])]
    attn = "layers.0.blocks.0.attn."
    return fields | dict(
        num_classes=0 if head is None else len(head),
        image_size=(32, *sides),
        patch_size=tuple(proj.shape[2:]),
        window_size=window,
        in_channels=proj.shape[1],
        embed_dim=proj.shape[0],
        depths=tuple(1 + max(i for t, i in blocks if t == s) for s in range(stages)),
        num_heads=tuple(_heads(inside, s) for s in range(stages)),
        mlp_ratio=len(fc1) / proj.shape[0],
        qkv_bias=attn + "qkv.bias" in inside or attn + "q_bias" in inside,
        patch_norm="patch_embed.norm.weight" in inside,
    )


def _heads(state_dict: Mapping, stage: int) -> int:
    for name, axis in (
        ("relative_position_bias_table", 1),
        ("logit_scale", 0),
        ("cpb_mlp.2.weight", 0),
    ):
        if (found := state_dict.get(f"layers.{stage}.blocks.0.attn.{name}")) is not None:
            return found.shape[axis]
    raise UserError(
        f"cannot infer num_heads: stage {stage} has neither a bias table nor a continuous bias"
    )


def _window(state_dict: Mapping, given: tuple[int, ...] | None) -> tuple[int, int, int]:
    """The window from the index of relative positions, or the given one,
    or from the number of rows of the tables.

    An index of a line or of a plane may be of several windows, of which the given one is taken.
    """
    if given is not None and (isinstance(given, int) or [*map(type, given)] != [int] * 3):
        raise UserError(f"window_size={given} must be (time, height, width)")
    table = state_dict.get("layers.0.blocks.0.attn.relative_position_bias_table")
    # All blocks are of one window.
    index = next(
        (
            value
            for name, value in state_dict.items()
            if name.endswith("attn.relative_position_index")
        ),
        None,
    )
    if index is not None:
        candidates = [w for w in _boxes(len(index)) if np.array_equal(_first_row(w), index[0])]
        if len(candidates) == 1 or given is not None and tuple(given) in candidates:
            return candidates[0] if len(candidates) == 1 else tuple(given)
    rows = 0 if table is None else len(table)
    candidates = windows_of_rows(rows)
    if given is not None and (not rows or math.prod(2 * w - 1 for w in given) == rows):
        return tuple(given)
    if len(candidates) == 1:
        tell_assumed(candidates[0], rows, "give window_size where that is wrong")
        return candidates[0]
    if not rows:
        raise UserError(
            "a state dict of a continuous position bias without buffers does not tell "
            "window_size: give it (and pretrained_window_sizes, where the weights were fine-tuned "
            "at another window than pretrained)"
        )
    known = " or ".join(map(str, candidates)) or "no window with equal height and width"
    raise UserError(
        f"position tables of {rows} rows do not tell window_size: {known}; "
        "give window_size=(t, h, w)"
    )


def tell_assumed(window: tuple[int, int, int], rows: int, advice: str) -> None:
    """Warns where windows of another height than width have tables of as many rows;
    the nearest one is named.

    Published windows make no exception: 8 x 7 x 7 and 7 x 7 x 8 have as many,
    and published files have buffers.

    Args:
        window: (t, w, w) that is assumed.
        rows: Number of rows of its table.
        advice: Advice for the case that the window is wrong.
    """
    sides = [side for side in range(1, rows + 1, 2) if rows % side == 0]
    boxes = [
        (rows // (h * w), h, w)
        for h, w in itertools.combinations(sides[1:], 2)
        if rows % (h * w) == 0
    ]
    if boxes:
        t, h, w = (
            (side + 1) // 2
            for side in min(boxes, key=lambda box: math.dist(box, [2 * w - 1 for w in window]))
        )
        warn(
            "the window of these weights is unknown; "
            f"{window} is assumed, though ({t}, {h}, {w}) has a table of the same size: {advice}"
        )


def windows_of_rows(rows: int) -> list[tuple[int, int, int]]:
    """The windows (t, w, w), with w of at least 2, whose position tables have so many rows."""
    sides = [
        side
        for side in range(3, math.isqrt(rows) + 1, 2)
        if rows % side**2 == 0 and rows // side**2 % 2
    ]
    return [
        ((rows // side**2 + 1) // 2, (side + 1) // 2, (side + 1) // 2) for side in reversed(sides)
    ]


def _boxes(tokens: int) -> list[tuple[int, int, int]]:
    """All windows of so many tokens."""
    divisors = [n for n in range(1, tokens + 1) if tokens % n == 0]
    return [
        (tokens // (h * w), h, w)
        for h, w in itertools.product(divisors, divisors)
        if tokens % (h * w) == 0
    ]


def _first_row(window: tuple[int, ...]) -> np.ndarray:
    """The first row of `window_geometry.relative_position_index`."""
    back = [w - 1 - c for w, c in zip(window, np.indices(window).reshape(len(window), -1))]
    return np.ravel_multi_index(tuple(back), [2 * w - 1 for w in window])
