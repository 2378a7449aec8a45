"""Infers the architecture of a Swin from the names, shapes and buffers of its state dict."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace

import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.core.sizes import Size, per_axis, simplest
from swin_jax.ops import window_geometry
from swin_jax.pretrained import compare, recognize
from swin_jax.pretrained.swin import buffers, layouts, windows
from swin_jax.pretrained.swin.windows import Window


def infer(
    state_dict: Mapping[str, np.ndarray],
    window_size: Size | None = None,
    image_size: Size | None = None,
) -> dict:
    """The arguments of `models.swin.Swin` that a state dict was made with.

    `image_size` comes from absolute positions, from a mask buffer, or from a stage whose window
    shrank. Where none of them is there it is the smallest image whose every stage holds a window,
    which is the official size of every v1 file: 224 for window 7, 256 for 8, 384 for 12. (It only
    fixes shapes; other images may be given.)

    Args:
        state_dict: State dict in any layout of `pretrained.swin.layouts`, with or without buffers.
        window_size, image_size: An int or (height, width), used only where the state dict does
            not tell: a continuous bias without buffers, and tables of a window or an image that
            is not square without buffers.

    Returns:
        Keyword arguments; `drop_path_rate` cannot be recovered from the weights and is omitted. A
        warning says if square windows were assumed for tables that others would have too.

    Raises:
        UserError: Not a Swin; one that does not tell its windows without the two arguments.
    """
    found = layouts.official_names(state_dict)[0]
    proj, depths = found.get("patch_embed.proj.weight"), _depths(found)
    other = recognize.recognize(found)
    if proj is None or not depths or other:
        raise UserError(
            other
            or "not a Swin state dict: it has no patch_embed.proj.weight or no layers.0.blocks.0"
        )
    compare.check_channels_first("patch_embed.proj.weight", proj)
    fields = choices(found)
    patch = tuple(proj.shape[2:])
    made = SimpleNamespace(
        patch_size=patch, merge_size=2, depths=depths, small=_rules(state_dict, fields)
    )
    as_in_file = (
        value for name, value in state_dict.items() if name.endswith("absolute_pos_embed")
    )
    positions = next(as_in_file, found.get("absolute_pos_embed"))
    geometry = _geometry(found, made, fields["continuous_bias"], window_size, image_size, positions)
    fc1, head = found.get("layers.0.blocks.0.mlp.fc1.weight"), found.get("head.weight")
    first, is_mlp = "layers.0.blocks.0.attn.", "token_mixer" in fields
    pretrained = _pretrained(found, len(depths)) if fields["continuous_bias"] else ()
    return fields | dict(
        num_classes=0 if head is None else len(head),
        patch_size=simplest(patch),
        in_channels=proj.shape[1],
        embed_dim=proj.shape[0],
        depths=depths,
        num_heads=tuple(_heads(found, s) for s in range(len(depths))),
        pretrained_window_sizes=pretrained,
        mlp_ratio=4.0 if fc1 is None else len(fc1) / proj.shape[0],
        qkv_bias=is_mlp or first + "qkv.bias" in found or first + "q_bias" in found,
        ape="absolute_pos_embed" in found,
        patch_norm="patch_embed.norm.weight" in found,
        **geometry,
    )


def choices(state_dict: Mapping[str, np.ndarray]) -> dict:
    """The arguments that tell version 1, version 2, their mixtures, Swin-MLP and the dense backbone
    apart.

    Args:
        state_dict: State dict in official names.
    """
    attention = "layers.0.blocks.0.attn."
    cosine = attention + "logit_scale" in state_dict
    norm = state_dict.get("layers.0.downsample.norm.weight")
    reduction = state_dict.get("layers.0.downsample.reduction.weight")
    post_norm = cosine if norm is None or reduction is None else len(norm) == len(reduction)
    main_norms = [
        int(m[1])
        for name in state_dict
        if (m := re.match(r"layers\.\d+\.blocks\.(\d+)\.enorm\.", name))
    ]
    outputs = {int(m[1]) for name in state_dict if (m := re.match(r"norm(\d+)\.weight", name))}
    is_mlp = "layers.0.blocks.0.spatial_mlp.weight" in state_dict
    mixer = dict(token_mixer="mlp", shift="pad") if is_mlp else {}
    return mixer | dict(
        cosine_attention=cosine,
        post_norm=post_norm,
        continuous_bias=attention + "cpb_mlp.0.weight" in state_dict,
        main_norm_every=min(main_norms) + 1 if main_norms else 0,
        out_norms=tuple(sorted(outputs)),
    )


def sizes(state_dict: Mapping[str, np.ndarray]) -> dict:
    """The sizes that no conversion changes: embed_dim, depths and num_heads.

    Args:
        state_dict: State dict in official names, of a Swin over any axes.

    Returns:
        {} where the names do not tell them.
    """
    proj, depths = state_dict.get("patch_embed.proj.weight"), _depths(state_dict)
    if proj is None or not depths:
        return {}
    try:
        heads = tuple(_heads(state_dict, s) for s in range(len(depths)))
    except UserError:
        return {}
    return dict(embed_dim=len(proj), depths=depths, num_heads=heads)


def trained_scales(state_dict: Mapping[str, np.ndarray]) -> tuple[Size, ...] | None:
    """The windows that scale the coordinates of a file's continuous bias, one per stage;
    None without buffers.
    """
    found = layouts.official_names(state_dict)[0]
    tables = [
        windows.attention(found, s, "relative_coords_table") for s in range(len(_depths(found)))
    ]
    if not tables or any(table is None for table in tables):
        return None
    return tuple(buffers.read_coordinates(table)[1] for table in tables)


def main_norm_every(state_dict: Mapping[str, np.ndarray]) -> int:
    """The argument of that name of a state dict in any layout."""
    return choices(layouts.official_names(state_dict)[0])["main_norm_every"]


def _depths(state_dict: Mapping) -> tuple[int, ...]:
    """Blocks of each stage."""
    blocks = {}
    for name in state_dict:
        if found := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name):
            blocks.setdefault(int(found[1]), set()).add(int(found[2]))
    stages = compare.count_of(blocks, "stages")
    return tuple(
        compare.count_of(blocks.get(s, ()), f"blocks of layers.{s}") for s in range(stages)
    )


def _heads(state_dict: Mapping, stage: int) -> int:
    for name, axis in (
        ("relative_position_bias_table", 1),
        ("logit_scale", 0),
        ("cpb_mlp.2.weight", 0),
    ):
        if (found := windows.attention(state_dict, stage, name)) is not None:
            return found.shape[axis]
    matrices = state_dict.get(f"layers.{stage}.blocks.0.spatial_mlp.weight")
    if matrices is not None:
        return len(matrices) // matrices.shape[1]
    raise UserError(
        f"cannot infer num_heads: stage {stage} has neither a bias table nor a continuous bias"
    )


def _rules(state_dict: Mapping, fields: dict) -> tuple[str, ...]:
    """The rules by which windows may have shrunk, the likeliest first: values of Swin's `small`."""
    if fields["out_norms"]:
        return ("keep",)
    rule = layouts.RULES.get(layouts.library(state_dict), "shrink")
    if rule not in window_geometry.SHRINKING:
        return (rule,)
    return tuple(dict.fromkeys((rule, "shrink", "shrink_axis")))


def _geometry(
    found: Mapping,
    made: SimpleNamespace,
    continuous: bool,
    window: Size | None,
    image: Size | None,
    positions: np.ndarray | None,
) -> dict:
    """`window_size`, `image_size` and `small`.

    Args:
        found: The state dict in official names, with its buffers.
        made: The fields of the model that are known, and all rules that `small` may be.
        continuous: True if the bias is.
        window, image: The sizes that the user gave, or None.
        positions: The absolute positions as they lie in the file, or None.
    """
    told = windows.read_buffers(found, len(made.depths))
    rows = [
        windows.attention(found, s, "relative_position_bias_table") for s in range(len(made.depths))
    ]
    if continuous and None in told:
        missing = " and ".join(
            n for n, v in (("window_size", window), ("image_size", image)) if v is None
        )
        if missing:
            raise UserError(
                "a state dict of a continuous position bias (Swin V2) without buffers does not "
                f"tell {missing}: give it (and pretrained_window_sizes, where the weights were "
                "fine-tuned at another window than pretrained)"
            )
        return dict(
            window_size=window, image_size=image, small=_plain(made.small, per_axis(image, 2))
        )
    is_mlp = all(windows.mlp_window(found, s) for s in range(len(made.depths)))
    if not continuous and not is_mlp and any(t is None or t.ndim != 2 for t in rows):
        raise UserError(
            "cannot infer window_size and num_heads: a relative_position_bias_table is missing"
        )
    options = [[w] if w else windows.windows_of_rows(len(table)) for w, table in zip(told, rows)]
    given = None if image is None else per_axis(image, 2)
    if None in told and (known := _fitting(made, options, window, given, positions)):
        return known
    wanted = [None] * len(told)
    if window is not None:
        wanted = window_geometry.per_stage(window, len(told), 2)
    stages = [
        windows.choose(f"the bias table of stage {s}", few, [told[s], wanted[s]])
        for s, few in enumerate(options)
    ]
    grid = windows.read_grid(found, stages)
    if grid is None and None in told:
        _tell_assumed(stages, options)
    images = list(_images(made, stages, grid, given))
    if positions is not None:
        grids = [_grid(image, made.patch_size) for image in images]
        images = [_pixels(_lie(positions, grids), made.patch_size)]
    masked = {s for s in range(len(stages)) if f"layers.{s}.blocks.1.attn_mask" in found}
    return _reproduce(made, stages, images, masked)


def _fitting(
    made: SimpleNamespace,
    options: Sequence[Sequence[Window]],
    window: Size | None,
    image: Window | None,
    positions: np.ndarray | None,
) -> dict | None:
    """The arguments that the user gave, if they make tables of these rows;
    a window may be found among them.
    """
    if image is None:
        return None
    grid = _grid(image, made.patch_size)
    if positions is not None and grid not in windows.shapes_of_rows(math.prod(_lengths(positions))):
        return None
    first = [window] if window is not None else dict.fromkeys(itertools.chain(*options))
    for wanted, small in itertools.product(first, made.small):
        try:
            found = _stage_windows(made, wanted, image, small)
        except UserError:
            continue
        if all(shape in few for shape, few in zip(found, options)):
            if isinstance(wanted, int) or not isinstance(wanted[0], int):
                window = wanted
            else:
                window = simplest(wanted)
            return dict(
                window_size=window, image_size=simplest(image), small=_plain((small,), image)
            )
    return None


def _reproduce(
    made: SimpleNamespace, stages: list[Window], images: list[Window], masked: set[int]
) -> dict:
    """The arguments by which a model has these windows in its stages,
    and masks where the file has them.

    Args:
        made: The same as in `_geometry`.
        stages: The windows.
        images: Sizes in pixels that the image may have, the surest first.
        masked: Stages that have a mask; without any the file may have been stripped of them.
    """
    largest, each = tuple(map(max, zip(*stages))), tuple(stages)
    for pixels, wanted, small in itertools.product(images, (largest, each), made.small):
        if _stage_windows(made, wanted, pixels, small) != stages:
            continue
        if not masked or masked == _shifted(made, wanted, pixels, small):
            size = simplest(wanted) if wanted is largest else wanted
            return dict(
                window_size=size, image_size=simplest(pixels), small=_plain((small,), pixels)
            )
    return dict(
        window_size=each, image_size=simplest(images[0]), small=_plain(made.small, images[0])
    )


def _images(
    made: SimpleNamespace, stages: list[Window], grid: Window | None, image: Window | None
) -> Iterator[Window]:
    """Sizes in pixels that the image may have, the surest first."""
    if grid is not None:
        yield _pixels(grid, made.patch_size)
        return
    largest = tuple(map(max, zip(*stages)))
    last = [side * 2 ** (len(stages) - 1) for side in stages[-1]]
    shrunk = list(last)
    for axis, most in enumerate(largest):
        found = [window[axis] * 2**s for s, window in enumerate(stages) if window[axis] < most]
        shrunk[axis] = found[0] if found else last[axis]
    yield _pixels(shrunk, made.patch_size)
    if image is not None:
        yield image
    yield _pixels(last, made.patch_size)


def _pixels(grid: Sequence[int], patch: Window) -> Window:
    return tuple(side * size for side, size in zip(grid, patch))


def _grid(image: Window, patch: Window) -> Window:
    return tuple(-(-side // size) for side, size in zip(image, patch))


def _model(made: SimpleNamespace, window: Size, image: Window, small: str) -> SimpleNamespace:
    return SimpleNamespace(**vars(made) | dict(window_size=window, image_size=image, small=small))


def _shifted(made: SimpleNamespace, window: Size, image: Window, small: str) -> set[int]:
    """The stages in which blocks are shifted."""
    model = _model(made, window, image, small)
    stages = zip(*window_geometry.stage_geometry(model), window_geometry.stage_rules(model))
    shifts = [window_geometry.fit(*stage)[1] for stage in stages]
    return {s for s, shift in enumerate(shifts) if any(shift) and made.depths[s] > 1}


def _stage_windows(made: SimpleNamespace, window: Size, image: Window, small: str) -> list[Window]:
    return window_geometry.stage_geometry(_model(made, window, image, small))[1]


def _plain(rules: tuple[str, ...], image: Window) -> str:
    """The first rule, in the official classifiers' name where that is the same: on squares."""
    return "shrink" if rules[0] in window_geometry.SHRINKING and len(set(image)) == 1 else rules[0]


def _lie(positions: np.ndarray, known: Sequence[Window]) -> Window:
    """The grid of absolute positions: as it lies in the file, a known one of as many cells,
    or a square.
    """
    sides = _lengths(positions)
    if len(sides) == 2:
        return sides
    return windows.choose("absolute_pos_embed", windows.shapes_of_rows(*sides), known)


def _lengths(positions: np.ndarray) -> tuple[int, ...]:
    """(L,) of positions (1, L, C), (h, w) of (1, C, h, w)."""
    return tuple(positions.shape[2:]) if positions.ndim == 4 else (positions.shape[1],)


def _tell_assumed(stages: list[Window], options: Sequence[Sequence[Window]]) -> None:
    """Warns where other windows than the assumed square ones would have tables of as many rows."""
    others = [few[1] for few in options if len(few) > 1 and 1 not in few[1]]
    if others:
        warn(
            "the windows of these weights are unknown; square ones of "
            f"{tuple(w[0] for w in stages)} are assumed, though one of "
            f"{' x '.join(map(str, others[0]))} has a table of the same size: give window_size "
            "and image_size where that is wrong"
        )


def _pretrained(state_dict: Mapping, stages: int) -> tuple[Size, ...]:
    """`pretrained_window_sizes`: () where every stage's coordinates are scaled
    by its own window.
    """
    tables = [windows.attention(state_dict, s, "relative_coords_table") for s in range(stages)]
    if any(table is None for table in tables):
        return ()
    pairs = [buffers.read_coordinates(table) for table in tables]
    if all(window == scale for window, scale in pairs):
        return ()
    return tuple(scale for _, scale in pairs)
