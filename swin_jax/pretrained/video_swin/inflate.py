"""Inflation: the weights of an image Swin, of either version, as a start for a Video Swin.

Video Swin (arXiv 2106.13230, tables 8 and 9); the reference is `inflate_weights` of
`SwinTransformer3D` in SwinTransformer/Video-Swin-Transformer. For version 2, whose bias is an MLP
of coordinates, there is no reference: its input gets a column of zeros for the time axis, which is
what duplicating a table does.
"""

import re
from collections.abc import Mapping

import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.core.sizes import per_axis
from swin_jax.ops import window_geometry
from swin_jax.pretrained.swin import adapt, buffers, finetune, infer, layouts, windows
from swin_jax.pretrained.swin import convert as swin
from swin_jax.pretrained.swin.resize import resize_rows
from swin_jax.pretrained.video_swin.layouts import is_video

PATCHES, BIASES = ("inflate", "center"), ("duplicate", "center")
OUTSIDE = -4.6  # bias between frames where attention shall start inside of them (table 9)


def inflate(
    state_dict: Mapping[str, np.ndarray],
    model,
    patch: str = "inflate",
    bias: str = "duplicate",
    made_for=None,
) -> dict:
    """The backbone of a Video Swin with the weights of an image Swin.

    A video of equal frames then has the image's features, where no stage is padded or smaller than
    its window, with patch='inflate' and bias='duplicate'. Tables of another height and width are
    resized bicubically, and it is told.

    Args:
        state_dict: {name: array} of an image Swin of either version, in any layout of
            `pretrained.swin.layouts`; its head and buffers are left out.
        model: The `models.video_swin.VideoSwin` to fill, of any design.
        patch: 'inflate' repeats the patch embedding in time, divided by the repeats; 'center' puts
            it at the frame patch // 2, among zeros.
        bias: 'duplicate' gives every frame offset the image's table;
            'center' only offset 0, all others get `OUTSIDE`.
        made_for: Anything with the fields of the Swin that the weights are of, where that is known:
            it tells the windows of tables and the scale of a continuous bias.

    Returns:
        {'params': {'backbone': nested dict of float32 numpy arrays}}. The head and the
        attention along time of the designs 'split' and 'factorized' are not there: they
        keep their initialization.

    Raises:
        UserError: An unknown choice; weights of a video or of a segmenter; tables of an unknown
            window; keys that do not fit, all listed.
    """
    if patch not in PATCHES:
        raise UserError(f"patch={patch!r} is not one of {', '.join(map(repr, PATCHES))}")
    if bias not in BIASES:
        raise UserError(f"bias={bias!r} is not one of {', '.join(map(repr, BIASES))}")
    if is_video(state_dict):
        raise UserError(
            "only an image Swin can be inflated; these patches have a time axis already"
        )
    layouts.refuse_segmenter(state_dict)
    backbone = model.backbone
    tables = windows.read_tables(
        layouts.official_names(state_dict)[0], len(backbone.depths), made_for
    )
    found = adapt.adapt_channels(layouts.to_official_names(state_dict), backbone.in_channels)
    swin.check_sizes(found, backbone)
    if (
        backbone.continuous_bias
        and bias == "center"
        and window_geometry.stage_geometry(backbone)[1][0][0] > 1
    ):
        raise UserError(
            "bias='center' needs position tables, the bias of version 2 is "
            "continuous: take 'duplicate'"
        )
    if not backbone.pretrained_window_sizes:
        _tell_scales(state_dict, made_for, backbone)
    inflated, resized = {}, 0
    for name, value in found.items():
        if name.startswith("head."):
            continue
        if name == "patch_embed.proj.weight":
            value = _inflate_patch(value, backbone.patch_size[0], patch)
        elif re.match(r"layers\.\d+\..*\.relative_position_bias_table$", name):
            stage = int(name.split(".")[1])
            window = window_geometry.stage_geometry(backbone)[1][stage]
            options = windows.windows_of_rows(len(value))
            old = finetune.shape_of(name, options, tables.windows[stage], window[1:])
            resized += old != window[1:]
            value = _inflate_table(value, old, window, bias)
        elif name.endswith("cpb_mlp.0.weight"):
            value = np.pad(np.asarray(value, np.float32), ((0, 0), (1, 0)))
        inflated[name] = value
    if resized:
        warn(f"{resized} position tables were resized (bicubic) to another window")
    return {"params": {"backbone": swin.from_official(inflated, backbone)["params"]}}


def _inflate_patch(weight: np.ndarray, frames: int, patch: str) -> np.ndarray:
    """(C, 3, h, w) to (C, 3, frames, h, w)."""
    weight = np.asarray(weight, np.float32)[:, :, None]
    if patch == "inflate":
        return weight.repeat(frames, axis=2) / np.float32(frames)
    return np.pad(weight, ((0, 0), (0, 0), (frames // 2, frames - 1 - frames // 2), (0, 0), (0, 0)))


def _inflate_table(
    table: np.ndarray, old: tuple[int, ...], window: tuple[int, ...], bias: str
) -> np.ndarray:
    """(rows of a table of `old`, heads) to (rows of a table of the window, heads);
    time is its slowest axis.
    """
    frames, *sides = (2 * w - 1 for w in window)
    table = resize_rows(
        np.asarray(table, np.float32), tuple(2 * w - 1 for w in old), tuple(sides), "bicubic"
    )
    if bias == "duplicate":
        return np.tile(table, (frames, 1))
    spread = np.full((frames, *table.shape), OUTSIDE, np.float32)
    spread[frames // 2] = table
    return spread.reshape(-1, table.shape[1])


def _tell_scales(state_dict: Mapping, made_for, backbone) -> None:
    """Warns where a continuous bias will see rows and columns at another scale than
    the image model did.
    """
    if not backbone.continuous_bias:
        return
    trained = infer.trained_scales(state_dict)
    if trained is None and made_for is not None and made_for.continuous_bias:
        trained = buffers.coordinate_windows(made_for)
    if trained is not None:
        own = buffers.coordinate_windows(backbone)
        finetune.tell_scales([(o[0], *per_axis(t, 2)) for o, t in zip(own, trained)], backbone)
