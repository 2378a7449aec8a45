"""What the names, shapes and buffers of a Swin's state dict tell about its architecture."""

import math
import re
from collections.abc import Mapping

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.pretrained import recognize
from swin_jax.pretrained.swin import buffers, layouts


def infer(state_dict: Mapping[str, np.ndarray], window_size: int | None = None, image_size: int | None = None) -> dict:
    """The arguments of `models.swin.Swin` that a state dict was made with.

    `image_size` comes from absolute positions, from a mask buffer, or from a stage whose window shrank. Where none of
    them is there it is the smallest image whose every stage holds a window, which is the official size of every v1
    file: 224 for window 7, 256 for 8, 384 for 12. (It only fixes shapes; other images may be given.)

    Args:
        state_dict: in any layout of `pretrained.swin.layouts`, with or without buffers.
        window_size, image_size: used only where the state dict does not tell: a continuous bias without buffers.

    Returns:
        Keyword arguments; `drop_path_rate` leaves no trace and is not among them.

    Raises:
        UserError: not a Swin; a window that is not square; a continuous bias without buffers (timm's files) and
            without the two arguments.
    """
    found = layouts.official_names(state_dict)[0]
    proj, depths = found.get("patch_embed.proj.weight"), _depths(found)
    other = recognize.recognize(found)
    if proj is None or not depths or other:
        raise UserError(other or "not a Swin state dict: it has no patch_embed.proj.weight or no layers.0.blocks.0")
    fields = choices(found)
    windows = _windows(found, len(depths), fields["continuous_bias"])
    if windows is None and (window_size is None or image_size is None):
        missing = " and ".join(
            name for name, value in (("window_size", window_size), ("image_size", image_size)) if value is None
        )
        raise UserError(
            f"a state dict of a continuous position bias (Swin V2) without buffers does not tell {missing}: give it "
            "(and pretrained_window_sizes, where the weights were fine-tuned at another window than pretrained)"
        )
    patch = proj.shape[2:] if proj.shape[2] != proj.shape[3] else proj.shape[2]
    fc1, head = found.get("layers.0.blocks.0.mlp.fc1.weight"), found.get("head.weight")
    first = "layers.0.blocks.0.attn."
    return fields | dict(
        num_classes=0 if head is None else len(head),
        image_size=image_size if windows is None else _image_size(found, patch, windows),
        patch_size=patch,
        in_channels=proj.shape[1],
        embed_dim=proj.shape[0],
        depths=depths,
        num_heads=tuple(_heads(found, s) for s in range(len(depths))),
        window_size=window_size if windows is None else _window_size(windows, fields["out_norms"]),
        pretrained_window_sizes=_pretrained(found, len(depths)) if fields["continuous_bias"] else (),
        mlp_ratio=4.0 if fc1 is None else len(fc1) / proj.shape[0],
        qkv_bias=first + "qkv.bias" in found or first + "q_bias" in found,
        ape="absolute_pos_embed" in found,
        patch_norm="patch_embed.norm.weight" in found,
        small="keep" if fields["out_norms"] else "shrink",
    )


def choices(state_dict: Mapping[str, np.ndarray]) -> dict:
    """The arguments that tell version 1, version 2, their mixtures and the dense backbone apart.

    Args:
        state_dict: in official names.
    """
    attention = "layers.0.blocks.0.attn."
    cosine = attention + "logit_scale" in state_dict
    norm = state_dict.get("layers.0.downsample.norm.weight")
    reduction = state_dict.get("layers.0.downsample.reduction.weight")
    post_norm = cosine if norm is None or reduction is None else len(norm) == len(reduction)
    main_norms = [int(m[1]) for name in state_dict if (m := re.match(r"layers\.\d+\.blocks\.(\d+)\.enorm\.", name))]
    outputs = {int(m[1]) for name in state_dict if (m := re.match(r"norm(\d+)\.weight", name))}
    return dict(
        cosine_attention=cosine,
        post_norm=post_norm,
        continuous_bias=attention + "cpb_mlp.0.weight" in state_dict,
        main_norm_every=min(main_norms) + 1 if main_norms else 0,
        out_norms=tuple(sorted(outputs)),
    )


def sizes(state_dict: Mapping[str, np.ndarray]) -> dict:
    """The sizes that no conversion changes: embed_dim, depths and num_heads.

    Args:
        state_dict: in official names, of a Swin over any axes.

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


def trained_scales(state_dict: Mapping[str, np.ndarray]) -> tuple[int, ...] | None:
    """The windows that scale the coordinates of a file's continuous bias, one per stage; None without buffers."""
    found = layouts.official_names(state_dict)[0]
    tables = [_attention(found, s, "relative_coords_table") for s in range(len(_depths(found)))]
    if not tables or any(table is None for table in tables):
        return None
    return tuple(buffers.read_coordinates(table)[1] for table in tables)


def main_norm_every(state_dict: Mapping[str, np.ndarray]) -> int:
    """The argument of that name of a state dict in any layout."""
    return choices(layouts.official_names(state_dict)[0])["main_norm_every"]


def _attention(state_dict: Mapping, stage: int, name: str) -> np.ndarray | None:
    return state_dict.get(f"layers.{stage}.blocks.0.attn.{name}")


def _depths(state_dict: Mapping) -> tuple[int, ...]:
    """Blocks of each stage."""
    found = {(int(m[1]), int(m[2])) for name in state_dict if (m := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name))}
    stages = max((s for s, _ in found), default=-1) + 1
    return tuple(max((i for t, i in found if t == s), default=-1) + 1 for s in range(stages))


def _heads(state_dict: Mapping, stage: int) -> int:
    for name, axis in (("relative_position_bias_table", 1), ("logit_scale", 0), ("cpb_mlp.2.weight", 0)):
        if (found := _attention(state_dict, stage, name)) is not None:
            return found.shape[axis]
    raise UserError(f"cannot infer num_heads: stage {stage} has neither a bias table nor a continuous bias")


def _windows(state_dict: Mapping, stages: int, continuous: bool) -> list[int] | None:
    """The window of each stage; None where a continuous bias comes without buffers."""
    if continuous:
        tables = [_attention(state_dict, s, "relative_coords_table") for s in range(stages)]
        if all(table is not None for table in tables):
            return [buffers.read_coordinates(table)[0] for table in tables]
        indices = [_attention(state_dict, s, "relative_position_index") for s in range(stages)]
        return None if any(index is None for index in indices) else [math.isqrt(len(index)) for index in indices]
    tables = [_attention(state_dict, s, "relative_position_bias_table") for s in range(stages)]
    if any(table is None or table.ndim != 2 for table in tables):
        raise UserError("cannot infer window_size and num_heads: a relative_position_bias_table is missing")
    windows = [(math.isqrt(len(table)) + 1) // 2 for table in tables]
    if any((2 * w - 1) ** 2 != len(table) for w, table in zip(windows, tables)):
        raise UserError("cannot infer window_size: a relative_position_bias_table is not of a square window")
    return windows


def _window_size(windows: list[int], out_norms: tuple[int, ...]) -> int | tuple[tuple[int, int], ...]:
    """One window, which shrinks on small grids; a dense backbone's never shrink, so other ones are of their own."""
    if out_norms and len(set(windows)) > 1:
        return tuple((window, window) for window in windows)
    return max(windows)


def _pretrained(state_dict: Mapping, stages: int) -> tuple[int, ...]:
    """`pretrained_window_sizes`: () where every stage's coordinates are scaled by its own window."""
    tables = [_attention(state_dict, s, "relative_coords_table") for s in range(stages)]
    if any(table is None for table in tables):
        return ()
    pairs = [buffers.read_coordinates(table) for table in tables]
    return () if all(window == scale for window, scale in pairs) else tuple(scale for _, scale in pairs)


def _image_size(state_dict: Mapping, patch, windows: list[int]) -> int:
    if not isinstance(patch, int):
        raise UserError(f"cannot infer image_size with patches of {patch}; give image_size")
    sides = []
    if "absolute_pos_embed" in state_dict:
        sides.append(math.isqrt(state_dict["absolute_pos_embed"].shape[1]))
    for s, window in enumerate(windows):
        mask = state_dict.get(f"layers.{s}.blocks.1.attn_mask")
        if mask is not None:
            sides.append(math.isqrt(len(mask)) * window * 2**s)
        if window < max(windows):
            sides.append(window * 2**s)
    return patch * (sides[0] if sides else windows[-1] * 2 ** (len(windows) - 1))
