"""Makes any weights fit a Video Swin before training:
an image Swin's are inflated, a Video Swin's adapted.

The official code starts from image weights (`inflate_weights`) or from a Video Swin of the same
window, whose head is left out where its classes differ (`load_from`, which is not strict). Another
window in time is not supported there. The rule of this file: a frame offset that both windows have
keeps its rows of the position table; offsets beyond the old window get the rows of the farthest one
it had, and those beyond the new window are left out.
"""

import functools
import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.core.saved_config import tuples
from swin_jax.ops import window_geometry
from swin_jax.pretrained import beside, compare
from swin_jax.pretrained.swin import adapt, buffers, finetune
from swin_jax.pretrained.swin import convert as swin
from swin_jax.pretrained.swin.resize import resize_rows
from swin_jax.pretrained.video_swin import convert as video_swin
from swin_jax.pretrained.video_swin.inflate import inflate

RESIZES = ("bicubic",)
_ADVICE = "give the weights with their buffers (relative_position_index), or as a workdir"
_HEAD = ("cls_head.fc_cls.weight", "cls_head.fc_cls.bias")

# Parameter paths that keep their initialization when a backbone is taken:
# `InitFrom(backbone=True, head=FRESH)`.
FRESH = r"^cls_head/|(^|/)temporal/"


def remap(
    state_dict: Mapping[str, np.ndarray],
    model,
    resize: str | None = None,
    window: tuple[int, ...] | None = None,
) -> dict[str, np.ndarray]:
    """Resizes the position tables of a Video Swin and adapts its head to a model;
    everything else stays.

    Args:
        state_dict: {name: array} of a Video Swin of any window and number of classes,
            in any layout.
        model: The `models.video_swin.VideoSwin` to fill, of the joint design.
        resize: 'bicubic' fits tables of another window, bicubically in height and width and in
            time by the rule above; None where everything should fit. A continuous bias is computed
            again for any window.
        window: Window of the weights, looked at where they do not tell it.

    Returns:
        The state dict for `pretrained.video_swin.convert.from_official`. A head of zeros, a first
        convolution of other channels and resized tables are told in warnings.

    Raises:
        UserError: Tables of another window without `resize`; windows that the tables do not tell.
    """
    if resize not in (None, *RESIZES):
        raise UserError(f"resize={resize!r} is not 'bicubic'")
    found = compare.drop_buffers(video_swin.to_official_names(state_dict))
    swin.check_sizes(
        {name.removeprefix("backbone."): value for name, value in found.items()}, model.backbone
    )
    found = adapt.adapt_channels(
        found, model.backbone.in_channels, "backbone.patch_embed.proj.weight"
    )
    found = _adapt_head(found, model.num_classes)
    resized, old = {}, None
    sizes = window_geometry.stage_geometry(model.backbone)[1]
    for name, shape in video_swin.official_shapes(model).items():
        table = found.get(name)
        if table is None or table.ndim != 2 or not name.endswith("relative_position_bias_table"):
            continue
        new = sizes[int(name.split(".")[2])]
        if table.shape == shape and window is None:
            _check_told(state_dict, name, new)
            window = new
        old = old or video_swin.infer(state_dict, window)["window_size"]
        if old == new:
            continue
        if resize is None:
            raise UserError(
                f"{name} is {table.shape} in the weights and {shape} in the model, whose window "
                f"is {new}; choose resize='bicubic' (offsets in time beyond the old window get "
                f"the farthest one's rows) or keep the weights' window of {old}"
            )
        resized[name] = _resize_box(table, [2 * w - 1 for w in old], [2 * w - 1 for w in new])
    if resized:
        warn(f"{len(resized)} position tables were resized to the window of the model")
    return found | resized


def _check_told(state_dict: Mapping[str, np.ndarray], name: str, window: tuple[int, ...]) -> None:
    """Raises UserError for tables of the model's window, whose sides differ, or of a square one:
    nothing tells which.

    The rule of image Swins; buffers would tell.
    """
    squares = video_swin.windows_of_rows(math.prod(2 * w - 1 for w in window))
    if window[1] != window[2] and squares and not _has_index(state_dict):
        raise UserError(
            f"it is unknown whether {name} is of {squares[0]} or of {window}, "
            f"which the model has: {_ADVICE}"
        )


def _tell_assumed(state_dict: Mapping[str, np.ndarray], model) -> None:
    """Warns where the tables of a file are taken for those of the model's window
    and nothing tells it.
    """
    window = window_geometry.stage_geometry(model.backbone)[1][0]
    rows = math.prod(2 * w - 1 for w in window)
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    table = video_swin.to_official_names(state_dict).get(f"backbone.{name}")
    if (
        window[1] == window[2]
        and table is not None
        and len(table) == rows
        and not _has_index(state_dict)
    ):
        video_swin.tell_assumed(window, rows, f"{_ADVICE}, where that is wrong")


def _has_index(state_dict: Mapping[str, np.ndarray]) -> bool:
    return any(key.endswith("position_index") for key in state_dict)


def _resize_box(table: np.ndarray, old: list[int], new: list[int]) -> np.ndarray:
    """(prod(old), heads) to (prod(new), heads), time by the rule of this file."""
    boxes = np.asarray(table, np.float32).reshape(old[0], -1, table.shape[1])
    boxes = np.stack([resize_rows(box, tuple(old[1:]), tuple(new[1:]), "bicubic") for box in boxes])
    offsets = np.arange(new[0]) - new[0] // 2
    return boxes[np.clip(offsets + old[0] // 2, 0, old[0] - 1)].reshape(math.prod(new), -1)


def _adapt_head(state_dict: dict[str, np.ndarray], num_classes: int) -> dict[str, np.ndarray]:
    """A head of another number of classes becomes one of zeros, or none."""
    weight = state_dict.get(_HEAD[0])
    classes = 0 if weight is None else len(weight)
    if classes == num_classes:
        return state_dict
    rest = {name: value for name, value in state_dict.items() if name not in _HEAD}
    if num_classes == 0 or "backbone.norm.weight" not in rest:
        return rest if num_classes == 0 else state_dict
    warn(
        f"the weights have a head of {classes} classes; "
        f"the head of {num_classes} classes starts from zeros and must be trained"
    )
    zeros = np.zeros((num_classes, len(rest["backbone.norm.weight"])), np.float32)
    return rest | {_HEAD[0]: zeros, _HEAD[1]: zeros[:, 0]}


def load_pretrained(
    source,
    model,
    patch: str = "inflate",
    bias: str = "duplicate",
    resize: str | None = None,
    head: bool = True,
    key: str | None = None,
) -> dict:
    """Fits the weights of an image Swin or of a Video Swin into a Video Swin.

    Args:
        source: A file of `pretrained.files.read`; or {'params': ...} of a Swin, a SimMIM or a
            VideoSwin, and 'config', the flat config of its run, if there is one.
        model: The `models.video_swin.VideoSwin` to fill.
        patch, bias: The inflation of an image Swin, see `pretrained.video_swin.inflate.inflate`.
        resize: The method that resizes a Video Swin's position tables of another window, see
            `remap`.
        head: True to take a Video Swin's head (zeros for other classes, with a warning);
            otherwise, and always from an image Swin, only the backbone is there, for
            `InitFrom(backbone=True, head=FRESH)`.
        key: The weights to take from a file that holds several, see `pretrained.files.read`.

    Returns:
        {'params': nested dict of float32 numpy arrays}.

    Raises:
        UserError: An unreadable file; missing, unexpected and mis-shaped keys, all listed;
            choices that don't fit.
    """
    try:
        config = source.get("config") if isinstance(source, Mapping) else None
        found = _state_dict(source, key)
        if not video_swin.is_video(found):
            return inflate(found, model, patch, bias, finetune.fields_of(source, found))
        fields = fields_of(config or {})
        if fields.get("continuous_bias") and not model.backbone.pretrained_window_sizes:
            made_for = SimpleNamespace(**fields, merge_size=(1, 2, 2), small="axis")
            finetune.tell_scales(buffers.coordinate_windows(made_for), model.backbone)
        elif not (isinstance(source, Mapping) or model.backbone.pretrained_window_sizes):
            finetune.tell_scale_assumed(found, model.backbone)
        if not isinstance(source, Mapping):
            _tell_assumed(found, model)
        filled = model if head else model.clone(num_classes=0)
        return video_swin.from_official(
            remap(found, filled, resize, fields.get("window_size")), filled
        )
    except UserError as error:
        if isinstance(source, Mapping):
            raise
        raise error.about(source) from error


def fields_of(config: Mapping) -> dict:
    """The arguments of `models.video_swin.make_video_swin` in the flat config of a run,
    tuples for JSON's lists.
    """
    own = {
        key.removeprefix("task.model."): value
        for key, value in config.items()
        if key.startswith("task.model.")
    }
    return {key: tuples(value) for key, value in own.items() if key != "fn"}


def _state_dict(source, key: str | None) -> dict[str, np.ndarray]:
    if not isinstance(source, Mapping):
        return beside.read(beside.locate(source), key)
    params = source["params"]
    if "backbone" in params:
        return video_swin.to_state_dict({"params": params})
    return swin.to_state_dict({"params": params.get("encoder", params)})


def pretrained(
    patch: str = "inflate", bias: str = "duplicate", resize: str | None = None, head: bool = True
) -> Callable:
    """`load_pretrained` as a function of (source, model), for an experiment file."""
    return functools.partial(load_pretrained, patch=patch, bias=bias, resize=resize, head=head)
