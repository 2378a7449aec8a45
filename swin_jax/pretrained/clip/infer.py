"""What a CLIP's state dict tells about its architecture."""

import math
import re
from collections.abc import Mapping

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.pretrained import compare, recognize
from swin_jax.pretrained.clip import layouts as clip_layouts

# Widths of open_clip's large image towers, whose heads are wider than 64: all have 16.
_SIXTEEN_HEADS = (1280, 1408, 1664)


def infer(state_dict: Mapping[str, np.ndarray], vision_heads: int | None = None, text_heads: int | None = None) -> dict:
    """The arguments of `models.clip.make_clip` that a state dict was made with, all but `act`.

    Args:
        state_dict: in any layout of `pretrained.clip.layouts`.
        vision_heads, text_heads: for towers that don't have one head per 64 channels, nor 16 as the large ones.

    Returns:
        Keyword arguments.

    Raises:
        UserError: not a CLIP with OpenAI's towers; a width that does not tell the number of heads.
    """
    found = clip_layouts.to_official_names(state_dict)
    if other := recognize.recognize_not_clip(found):
        raise UserError(other)
    needed = ("token_embedding.weight", "positional_embedding", "text_projection", "visual.conv1.weight")
    missing = [name for name in needed if name not in found]
    if missing:
        raise UserError(
            f"not a whole CLIP: {', '.join(missing)} are not there (half of a CLIP does not load by itself)"
        )
    text_width = found["token_embedding.weight"].shape[1]
    bias = found.get("logit_bias")
    return _infer_visual(found, vision_heads) | dict(
        embed_dim=found["text_projection"].shape[1],
        context_length=len(found["positional_embedding"]),
        vocab_size=len(found["token_embedding.weight"]),
        text_width=text_width,
        text_heads=text_heads or _heads("text_heads", text_width),
        text_layers=_count(found, r"transformer\.resblocks\.(\d+)\."),
        logit_bias=None if bias is None else float(bias),
    )


def _infer_visual(found: Mapping, heads: int | None) -> dict:
    if "visual.class_embedding" in found:
        width, _, _, patch = found["visual.conv1.weight"].shape
        fc1 = found.get("visual.transformer.resblocks.0.mlp.c_fc.weight")
        return dict(
            image_size=patch * math.isqrt(len(found["visual.positional_embedding"]) - 1),
            vision_layers=_count(found, r"visual\.transformer\.resblocks\.(\d+)\."),
            vision_width=width,
            vision_heads=heads or (16 if width in _SIXTEEN_HEADS else _heads("vision_heads", width)),
            vision_mlp_ratio=4.0 if fc1 is None else len(fc1) / width,
            patch_size=patch,
        )
    if "visual.attnpool.positional_embedding" not in found:
        raise UserError(
            "the image tower is neither CLIP's ViT (visual.class_embedding) nor its ResNet (visual.attnpool)"
        )
    width = 2 * len(found["visual.conv1.weight"])
    return dict(
        image_size=32 * math.isqrt(len(found["visual.attnpool.positional_embedding"]) - 1),
        vision_layers=tuple(_count(found, rf"visual\.layer{s}\.(\d+)\.") for s in range(1, 5)),
        vision_width=width,
        vision_heads=heads or _heads("vision_heads", 32 * width),
        patch_size=None,
    )


def _count(found: Mapping, pattern: str) -> int:
    """Blocks, by the highest number."""
    return compare.count_of((int(m[1]) for name in found if (m := re.match(pattern, name))), "blocks of a tower")


def _heads(argument: str, width: int) -> int:
    if width % 64:
        raise UserError(f"a width of {width} does not tell the number of heads; give {argument}")
    return width // 64
