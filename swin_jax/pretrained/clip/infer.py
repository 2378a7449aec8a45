"""Infers the architecture of a CLIP from its state dict."""

import math
import re
from collections.abc import Mapping

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.sizes import Size, per_axis, simplest
from swin_jax.pretrained import compare, recognize
from swin_jax.pretrained.clip import layouts as clip_layouts

# (width, pixels per position along an axis, number of positions) of the image towers that OpenAI
# and open_clip published. All grids are square, though some counts would also fit another grid.
_SQUARES = {
    *((width, 32, count) for width in (384, 512, 768) for count in (49, 64)),
    *((width, 16, 196) for width in (384, 512, 768)),
    *((896, 16, 225), (1024, 16, 196), (1024, 14, 256), (1024, 14, 400), (1024, 14, 576)),
    *((1280, 14, count) for count in (256, 576, 729)),
    *((1408, 14, 256), (1664, 14, 256), (1664, 14, 576), (1664, 14, 729)),
    *((80, 32, 81), (96, 32, 144), (128, 32, 196)),
}
# Widths of open_clip's large image towers, which all have 16 heads of more than 64 channels.
_SIXTEEN_HEADS = (1280, 1408, 1664)


def infer(
    state_dict: Mapping[str, np.ndarray],
    vision_heads: int | None = None,
    text_heads: int | None = None,
    image_size: Size | None = None,
) -> dict:
    """The arguments of `models.clip.make_clip` that fit a state dict, except `act`.

    Args:
        state_dict: State dict in any layout of `pretrained.clip.layouts`.
        vision_heads, text_heads: Number of heads; None for one per 64 channels, or 16 in
            open_clip's large image towers.
        image_size: Image size, an int or (H, W), if the arrays do not determine it.

    Returns:
        Keyword arguments. If `told_image_size` is None, `image_size` is that of a square grid, or
        None if the positions fit no square.

    Raises:
        UserError: The weights are not a CLIP with OpenAI's towers, or the number of heads cannot be
            inferred from a width.
    """
    found = clip_layouts.to_official_names(state_dict)
    if other := recognize.recognize_not_clip(found):
        raise UserError(other)
    needed = (
        "token_embedding.weight",
        "positional_embedding",
        "text_projection",
        "visual.conv1.weight",
    )
    missing = [name for name in needed if name not in found]
    if missing:
        raise UserError(
            f"not a whole CLIP: it lacks {', '.join(missing)} (half of a CLIP cannot be loaded on "
            "its own)"
        )
    compare.check_channels_first("visual.conv1.weight", found["visual.conv1.weight"])
    text_width = found["token_embedding.weight"].shape[1]
    bias = found.get("logit_bias")
    return _infer_visual(found, vision_heads, told_image_size(state_dict, image_size)) | dict(
        embed_dim=found["text_projection"].shape[1],
        context_length=len(found["positional_embedding"]),
        vocab_size=len(found["token_embedding.weight"]),
        text_width=text_width,
        text_heads=text_heads or _heads("text_heads", text_width),
        text_layers=_count(found, r"transformer\.resblocks\.(\d+)\."),
        logit_bias=None if bias is None else float(bias),
    )


def told_image_size(state_dict: Mapping[str, np.ndarray], known: Size | None = None) -> Size | None:
    """The image size, in pixels, that a file's positions are for; None if their grid is unknown.

    The number of positions alone is ambiguous: 64 can be 8 x 8 or 4 x 16. The grid is known for
    OpenAI's archives, for the shapes of published towers, for a known size with that many
    positions, and if the only grids of that many positions are a square and a line.

    Args:
        state_dict: State dict in any layout of `pretrained.clip.layouts`.
        known: Known image size, an int or (H, W).
    """
    count, stride, width = _positions(clip_layouts.to_official_names(state_dict))
    side = math.isqrt(count)
    square = simplest((side * stride[0], side * stride[1]))
    if (width, stride[0], count) in _SQUARES:
        return square
    told = [
        value for name, value in state_dict.items() if name.rpartition(".")[2] == "input_resolution"
    ]
    sizes = [int(np.reshape(value, ())) for value in told if np.size(value) == 1]
    for size in (*sizes, known):
        if (
            size is not None
            and math.prod(n // s for n, s in zip(per_axis(size, 2), stride)) == count
        ):
            return simplest(per_axis(size, 2))
    others = any(count % n == 0 for n in range(2, side))
    return None if others or side * side != count else square


def _positions(found: Mapping) -> tuple[int, tuple[int, int], int]:
    """(number of positions, pixels per position along each axis, width) of an image tower."""
    stem = found["visual.conv1.weight"]
    if "visual.class_embedding" in found:
        return len(found["visual.positional_embedding"]) - 1, tuple(stem.shape[2:]), len(stem)
    if "visual.attnpool.positional_embedding" not in found:
        raise UserError(
            "the image tower is neither CLIP's ViT (visual.class_embedding) nor "
            "its ResNet (visual.attnpool)"
        )
    return len(found["visual.attnpool.positional_embedding"]) - 1, (32, 32), 2 * len(stem)


def _infer_visual(found: Mapping, heads: int | None, image_size: Size | None) -> dict:
    count, stride, width = _positions(found)
    side = math.isqrt(count)
    if image_size is None and side * side == count:
        image_size = simplest((side * stride[0], side * stride[1]))
    if "visual.class_embedding" in found:
        fc1 = found.get("visual.transformer.resblocks.0.mlp.c_fc.weight")
        return dict(
            image_size=image_size,
            vision_layers=_count(found, r"visual\.transformer\.resblocks\.(\d+)\."),
            vision_width=width,
            vision_heads=heads
            or (16 if width in _SIXTEEN_HEADS else _heads("vision_heads", width)),
            vision_mlp_ratio=4.0 if fc1 is None else len(fc1) / width,
            patch_size=simplest(stride),
        )
    return dict(
        image_size=image_size,
        vision_layers=tuple(_count(found, rf"visual\.layer{s}\.(\d+)\.") for s in range(1, 5)),
        vision_width=width,
        vision_heads=heads or _heads("vision_heads", 32 * width),
        patch_size=None,
    )


def _count(found: Mapping, pattern: str) -> int:
    """The number of blocks, by the highest index in the names."""
    return compare.count_of(
        (int(m[1]) for name in found if (m := re.match(pattern, name))), "blocks of a tower"
    )


def _heads(argument: str, width: int) -> int:
    if width % 64:
        raise UserError(
            f"the number of heads cannot be inferred from a width of {width}; give {argument}"
        )
    return width // 64
