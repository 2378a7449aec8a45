"""What a CLIP's state dict, and what lies beside it, tell about its architecture and its activation.

The activation leaves no trace in the weights, and a model with the wrong one still works, a few points worse. So it
comes with the source that it was taken from.
"""

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.pretrained import recognize
from swin_jax.pretrained.clip import layouts as clip_layouts
from swin_jax.pretrained.files.read import is_torchscript

# Widths of open_clip's large image towers, whose heads are wider than 64: all have 16.
_SIXTEEN_HEADS = (1280, 1408, 1664)
# (embedding, image size, patch size, width of the image tower, of the text tower) of OpenAI's nine models.
_OPENAI = {
    (1024, 224, None, 64, 512),
    (512, 224, None, 64, 512),
    (640, 288, None, 80, 640),
    (768, 384, None, 96, 768),
    (1024, 448, None, 128, 1024),
    (512, 224, 32, 768, 512),
    (512, 224, 16, 768, 512),
    (768, 224, 14, 1024, 768),
    (768, 336, 14, 1024, 768),
}


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
    return max((int(m[1]) for name in found if (m := re.match(pattern, name))), default=-1) + 1


def _heads(argument: str, width: int) -> int:
    if width % 64:
        raise UserError(f"a width of {width} does not tell the number of heads; give {argument}")
    return width // 64


@dataclasses.dataclass(frozen=True)
class Activation:
    """`act` of `models.clip.make_clip`, where that is known from, and whether that is more than an assumption."""

    act: str
    source: str
    known: bool = True


def activation(state_dict: Mapping[str, np.ndarray], names: Iterable[str] = (), path: Path | None = None) -> Activation:
    """Which activation a CLIP was trained with.

    The first that tells decides: the file is one of OpenAI's archives; a config of transformers or open_clip lies
    beside it; a name says quickgelu, or whose weights they are (OpenAI's, MetaCLIP's and DFN's have quick_gelu, LAION's
    and DataComp's gelu). Else quick_gelu is assumed for the shapes of OpenAI's nine models, and gelu for others.

    Args:
        state_dict: in any layout of `pretrained.clip.layouts`.
        names: what the weights are called.
        path: of the file.

    Raises:
        UserError: towers of different activations, or one that there is not.
    """
    if clip_layouts.is_from_archive(state_dict) or (path is not None and is_torchscript(path)):
        return Activation("quick_gelu", "the file is one of OpenAI's archives")
    if path is not None and (found := _from_config(path)):
        return found
    words = " ".join([*names, *(path.parts[-2:] if path else ())]).lower()
    if "quickgelu" in words or "quick_gelu" in words:
        return Activation("quick_gelu", "the name says quickgelu")
    quick = re.search(r"(?<![a-z])(openai|metaclip|dfn)(?![a-z])", words)
    exact = re.search(r"(?<![a-z])(laion|datacomp|commonpool)(?![a-z])", words)
    if quick and not exact:
        return Activation("quick_gelu", f"the name says {quick[1]}")
    if exact and not quick:
        return Activation("gelu", f"the name says {exact[1]}")
    fields = infer(state_dict, 1, 1)
    shape = tuple(fields[key] for key in ("embed_dim", "image_size", "patch_size", "vision_width", "text_width"))
    if shape in _OPENAI:
        return Activation("quick_gelu", "it has the shape of one of OpenAI's models", known=False)
    return Activation("gelu", "it has not the shape of one of OpenAI's models", known=False)


def _from_config(path: Path) -> Activation | None:
    """What `open_clip_config.json` or `config.json` beside a file says."""
    if config := _read_json(path.with_name("open_clip_config.json")):
        quick = bool(config.get("model_cfg", config).get("quick_gelu", False))
        return Activation("quick_gelu" if quick else "gelu", "open_clip_config.json beside the file")
    config = _read_json(path.with_name("config.json"))
    if not config or config.get("model_type") != "clip":
        return None
    # transformers leaves out what is the default.
    acts = {(config.get(f"{tower}_config") or {}).get("hidden_act", "quick_gelu") for tower in ("text", "vision")}
    if len(acts) > 1 or not acts <= {"quick_gelu", "gelu"}:
        raise UserError(
            f"{path.with_name('config.json')} names the activations {', '.join(sorted(acts))}; a CLIP here has one, "
            "quick_gelu or gelu"
        )
    return Activation(acts.pop(), "hidden_act in config.json beside the file")


def _read_json(path: Path) -> dict | None:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
