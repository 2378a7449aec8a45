"""Visualizing attention: what a block of a Swin attends to, and its relative position bias,
as arrays and pictures.

    image = swin_jax.preprocess(name)("cat.jpg")
    maps = attention_maps.attention_map(model, variables, image, "layers.2.blocks.3", query=(5, 7))
    attention_maps.draw_attention(image, maps, query=(5, 7), path="attention.png")

    # A Video Swin's backbone is a Swin of three axes.
    clip = swin_jax.preprocess(name)("jump.mp4")
    inside = {"params": variables["params"]["backbone"]}
    block = "layers.2.blocks.3"
    maps = attention_maps.attention_map(model.backbone, inside, clip, block, query=(4, 5, 7))
    attention_maps.draw_video_attention(clip, maps, query=(4, 5, 7), path="attention.png")

Blocks go by their official names. Arrays are (heads, *grid) on the un-shifted grid of the block's
stage, so that maps of plain and shifted blocks lie over the picture alike.
"""

import functools
import math
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core import stacking
from swin_jax.core.errors import UserError, nearest
from swin_jax.core.output import plots
from swin_jax.core.ranges import NonNegativeInt, checked, refusal
from swin_jax.core.sizes import Size, per_axis
from swin_jax.models import swin
from swin_jax.ops import window, window_geometry

COLUMNS = 6  # panels in a line of a figure
MARK = "#00e5ff"  # of the query: no color of the maps


def attention_map(
    model: nn.Module,
    variables: dict,
    image: np.ndarray,
    block: str,
    query: tuple[int, ...] | None = None,
) -> np.ndarray:
    """The attention of one block for one image, with shifted windows put back in place
    and padding cut off.

    Args:
        model: A `Swin` over any number of axes, of any size of window and of image.
        variables: Variables of the model, {'params': ...}.
        image: (*size, in_channels) or (1, *size, in_channels), floating point and normalized;
            (H, W, 3) for pictures.
        block: The official name, 'layers.2.blocks.3'.
        query: The query token, one int per axis of the stage's grid, (row, column). A pixel
            (y, x) is in token (y // stride, x // stride), where stride is the patch size times
            2^stage. None for all tokens.

    Returns:
        (h, *grid) float32. With a query: how much it attends to each token; 0 outside its window,
        and practically 0 (the mask adds -100 to the logits) where shifting brought tokens of
        another region into its window. Without: how much attention each token receives, averaged
        over all the grid's tokens, so uniform attention is 1 / tokens. Either sums to 1 over the
        grid for each head, minus the share of the padding.

    Raises:
        UserError: A block or a query that the model does not have, an image that is not one image,
            a model without attention in windows.
    """
    if model.token_mixer != "attention":
        raise UserError(
            f"attention maps are of attention in windows, not of token_mixer={model.token_mixer!r}"
        )
    stage, number = _stage_and_block(model, block)
    axes = window_geometry.num_axes(model)
    image = jnp.asarray(image)
    image = image[None] if image.ndim == axes + 1 else image
    if image.ndim != axes + 2 or len(image) != 1:
        raise UserError(
            f"give one image, (*size, channels) with {axes} sizes, "
            f"not an array of shape {image.shape}"
        )
    grid, size, shift = swin.block_geometry(model, image.shape[1:-1], stage, number)
    asked = np.full(grid, 1 / math.prod(grid), np.float32)
    if query is not None:
        _check_query(query, grid, block)
        asked = np.zeros(grid, np.float32)
        asked[tuple(query)] = 1
    return np.asarray(_attended(model, variables, image, asked, (stage, number), size, shift))


@functools.partial(jax.jit, static_argnames=("model", "at", "size", "shift"))
def _attended(model, variables, image, asked, at, size, shift):
    """Attention summed over queries with the weights `asked` (*grid): (h, *grid)."""
    axes = tuple(range(1, 1 + asked.ndim))
    # Weights are kept under the path of their block, which a scanned stage doesn't have. Padded
    # windows attend as rolled ones do.
    way = "none" if model.shift == "none" else "roll"
    model = model.clone(scan=False, remat="none", attention="xla", shift=way)
    params = stacking.unstack(variables["params"])
    _, kept = model.apply({"params": params}, image, method="features", mutable=["attention"])
    # (nW, h, N, N)
    (weights,) = kept["attention"][f"layers_{at[0]}"][f"blocks_{at[1]}"]["attn"]["weights"]
    padded = window.pad_to_multiple(asked[None, ..., None], size)
    asking = window.partition(jnp.roll(padded, [-s for s in shift], axes), size)[..., 0]  # (nW, N)
    found = jnp.einsum("wq,whqk->wkh", asking, weights, precision="highest")
    # (*padded, h)
    found = jnp.roll(window.reverse(found, size, padded.shape[1:-1]), shift, axes)[0]
    return jnp.moveaxis(found[tuple(slice(n) for n in asked.shape)], -1, 0)


def bias_maps(model: nn.Module, variables: dict, block: str) -> np.ndarray:
    """The relative position bias of one block as a map around the query,
    from its table or its continuous form.

    Args:
        model: A `Swin`.
        variables: Variables of the model, {'params': ...}.
        block: The official name, 'layers.2.blocks.3'.

    Returns:
        (h, *(2 * window - 1)) float32, added to the logits. The query is in the center: [:, wh -
        1 + y, ww - 1 + x] is for the key y rows below and x columns right of it. (The table itself
        runs the other way, query minus key.)

    Raises:
        UserError: A block that the model does not have.
    """
    stage, _ = _stage_and_block(model, block)
    rows = np.asarray(swin.position_bias(model, variables, block))  # (rows, h)
    size = window_geometry.stage_geometry(model)[1][stage]
    maps = np.moveaxis(rows.reshape(*(2 * w - 1 for w in size), -1), -1, 0)
    return np.flip(maps, axis=tuple(range(1, maps.ndim)))


def _check_query(query: tuple[int, ...], grid: tuple[int, ...], what: str) -> None:
    inside = refusal(tuple[NonNegativeInt, ...], query) == "" and len(query) == len(grid)
    if not inside or any(q >= n for q, n in zip(query, grid)):
        raise UserError(
            f"the query {query} is not a token of {what}, "
            f"whose grid is {tuple(grid)} for this image"
        )


@checked
def draw_attention(
    picture,
    maps: np.ndarray,
    query: tuple[int, int] | None = None,
    path: str | os.PathLike | None = None,
    stride: Size | None = None,
    title: str = "",
):
    """Draws attention over a picture: the picture itself, the mean over heads, then each head.

    Colors run from the bare picture (no attention) through red to yellow (most attention); each
    panel has its own scale, up to the maximum that its title gives.

    Args:
        picture: The picture that the model saw: a PIL image, or an array (H, W), (H, W, 1 or 3) or
            with a batch axis of 1 before it; uint8, or floats (the normalized image, say), which
            are stretched to their range.
        maps: (h, rows, columns) of `attention_map`.
        query: The token that `maps` are for; it is framed.
        path: A picture file to write, or None.
        stride: Pixels of the picture per token, patch size times 2^stage, (rows, columns) or one
            int for both; None where the map spans the picture exactly, as it does unless the
            model had to pad.
        title: Title above the panels.

    Returns:
        The matplotlib figure.

    Raises:
        UserError: Maps or a picture that are not of two axes.
    """
    from matplotlib.patches import Rectangle

    maps = np.asarray(maps, np.float32)
    if maps.ndim != 3:
        raise UserError(
            f"only maps (heads, rows, columns) can be drawn, not {maps.shape}; pick one frame"
        )
    picture = _rgb(picture)
    height, width = picture.shape[:2]
    cell = per_axis(stride, 2) if stride else (height / maps.shape[1], width / maps.shape[2])
    if query is not None:
        _check_query(query, maps.shape[1:], "the maps")
    extent = (0, maps.shape[2] * cell[1], maps.shape[1] * cell[0], 0)
    gray = np.repeat(picture.mean(axis=-1, keepdims=True), 3, axis=-1)
    shown = {f"head {i}": values for i, values in enumerate(maps)}
    shown = {"mean of heads": maps.mean(axis=0)} | shown if len(maps) > 1 else shown
    figure, panels = _panels(1 + len(shown), width / height, title)
    panels[0].imshow(picture, extent=(0, width, height, 0))
    panels[0].set_title(
        "picture" if query is None else f"query {tuple(int(q) for q in query)}", fontsize=8
    )
    for axes, (name, values) in zip(panels[1:], shown.items()):
        top = float(values.max()) or 1.0
        axes.imshow(0.7 * gray, extent=(0, width, height, 0))
        axes.imshow(_glow(values / top), extent=extent, interpolation="nearest")
        axes.set_title(f"{name}, max {top:.2g}", fontsize=8)
    for axes in panels:
        axes.set(xlim=(0, width), ylim=(height, 0))
        if query is not None:
            corner = (query[1] * cell[1], query[0] * cell[0])
            axes.add_patch(
                Rectangle(corner, cell[1], cell[0], fill=False, edgecolor=MARK, linewidth=1.5)
            )
    return _written(figure, path)


def draw_video_attention(
    clip: np.ndarray,
    maps: np.ndarray,
    query: tuple[int, int, int] | None = None,
    path: str | os.PathLike | None = None,
    title: str = "",
):
    """Draws attention over a clip, averaged over heads:
    frames above, the same frames with their attention below.

    Colors as in `draw_attention`, with one scale for all frames.
    One frame stands for each token in time, its first.

    Args:
        clip: The clip that the model saw, (T, H, W, 3) or with a batch axis of 1 before it; uint8,
            or floats, which are stretched to their range.
        maps: (h, T', rows, columns) of `attention_map` for a model of three axes.
        query: The token that `maps` are for, (time, row, column); it is framed.
        path: A picture file to write, or None.
        title: Title above the panels.

    Returns:
        The matplotlib figure.

    Raises:
        UserError: Maps or a clip with another number of axes.
    """
    from matplotlib.patches import Rectangle

    maps, clip = np.asarray(maps, np.float32), np.asarray(clip)
    clip = clip[0] if clip.ndim == 5 and len(clip) == 1 else clip
    if maps.ndim != 4 or clip.ndim != 4:
        raise UserError(
            "maps are (heads, time, rows, columns) and a clip is (T, H, W, 3), "
            f"not {maps.shape}, {clip.shape}"
        )
    values = maps.mean(axis=0)
    if query is not None:
        _check_query(query, values.shape, "the maps")
    frames = _rgb(clip.reshape(-1, *clip.shape[2:])).reshape(*clip.shape[:3], 3)[
        :: -(-len(clip) // len(values))
    ]
    height, width = frames.shape[1:3]
    cell, top = (height / values.shape[1], width / values.shape[2]), float(values.max()) or 1.0
    figure, panels = _panels(2 * len(values), width / height, title, columns=len(values))
    for time, (frame, value) in enumerate(zip(frames, values)):
        above, below = panels[time], panels[len(values) + time]
        above.imshow(frame, extent=(0, width, height, 0))
        gray = np.repeat(frame.mean(axis=-1, keepdims=True), 3, axis=-1)
        below.imshow(0.7 * gray, extent=(0, width, height, 0))
        below.imshow(_glow(value / top), extent=(0, width, height, 0), interpolation="nearest")
        below.set_title(f"{value.sum():.0%}", fontsize=8)
        if query is not None and query[0] == time:
            for axes in (above, below):
                corner = (query[2] * cell[1], query[1] * cell[0])
                axes.add_patch(
                    Rectangle(corner, cell[1], cell[0], fill=False, edgecolor=MARK, linewidth=1.5)
                )
    return _written(figure, path)


def draw_bias(maps: np.ndarray, path: str | os.PathLike | None = None, title: str = ""):
    """Draws the relative position bias, a panel per head with its own scale;
    a cross marks the query in the center.

    Args:
        maps: (h, 2 wh - 1, 2 ww - 1) of `bias_maps`.
        path: A picture file to write, or None.
        title: Title above the panels.

    Returns:
        The matplotlib figure.

    Raises:
        UserError: Maps that are not of two axes.
    """
    maps = np.asarray(maps, np.float32)
    if maps.ndim != 3:
        raise UserError(
            f"only maps (heads, rows, columns) can be drawn, not {maps.shape}; "
            "pick one distance in time"
        )
    down, right = maps.shape[1] // 2, maps.shape[2] // 2
    # Room for color bars.
    figure, panels = _panels(len(maps), 1.25 * maps.shape[2] / maps.shape[1], title)
    for i, (axes, values) in enumerate(zip(panels, maps)):
        extent = (-right - 0.5, right + 0.5, down + 0.5, -down - 0.5)
        # A constant added to a whole head changes nothing, so colors compare with the head's mean.
        reach = float(np.abs(values - values.mean()).max()) or 1.0
        limits = dict(vmin=values.mean() - reach, vmax=values.mean() + reach)
        image = axes.imshow(values, cmap="RdBu_r", extent=extent, interpolation="nearest", **limits)
        axes.plot(0, 0, "+", color="black", markersize=7)
        axes.set_title(f"head {i}", fontsize=8)
        axes.set_axis_on()
        axes.set(xticks=(-right, 0, right), yticks=(-down, 0, down))
        axes.tick_params(labelsize=6)
        figure.colorbar(image, ax=axes, fraction=0.046, pad=0.04).ax.tick_params(labelsize=6)
    return _written(figure, path)


def _stage_and_block(model: nn.Module, name: str) -> tuple[int, int]:
    """The numbers in the official name of a block."""
    names = {
        f"layers.{s}.blocks.{i}": (s, i)
        for s, depth in enumerate(model.depths)
        for i in range(depth)
    }
    if name not in names:
        raise UserError(
            f"the model has no block {name!r}; the nearest name is {nearest(name, names)!r}"
        )
    return names[name]


def _rgb(picture) -> np.ndarray:
    """(H, W, 3) float32 in 0..1."""
    picture = np.asarray(picture)
    shape = picture.shape
    picture = picture[0] if picture.ndim == 4 and len(picture) == 1 else picture
    picture = picture[..., None] if picture.ndim == 2 else picture
    if picture.ndim != 3 or picture.shape[-1] not in (1, 3):
        raise UserError(f"a picture is (H, W), (H, W, 1) or (H, W, 3), not {shape}")
    if picture.dtype == np.uint8:
        picture = picture / np.float32(255)
    else:
        low, high = float(picture.min()), float(picture.max())
        picture = (picture.astype(np.float32) - low) / max(high - low, np.finfo(np.float32).tiny)
    return np.broadcast_to(picture, (*picture.shape[:2], 3))


def _glow(values: np.ndarray) -> np.ndarray:
    """Colors of attention in 0..1: from red, transparent at 0, to yellow; (rows, columns, 4)."""
    from matplotlib import colormaps

    colors = colormaps["autumn"](values)
    colors[..., 3] = 0.85 * np.sqrt(values)
    return colors


def _panels(count: int, ratio: float, title: str, columns: int = COLUMNS):
    """A figure and `count` axes without frames, each of this width to height."""
    from matplotlib.figure import Figure

    columns = min(count, columns)
    lines = math.ceil(count / columns)
    # Height of a panel from its width, and room for its title.
    figure = Figure(
        figsize=(2 * columns, (2 / ratio + 0.3) * lines + (0.35 if title else 0)),
        layout="constrained",
    )
    panels = [figure.add_subplot(lines, columns, i + 1) for i in range(count)]
    for axes in panels:
        axes.set_axis_off()
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure, panels


def _written(figure, path: str | os.PathLike | None):
    if path is not None:
        with plots.quiet_glyphs():
            figure.savefig(path, dpi=150, bbox_inches="tight")
    return figure
