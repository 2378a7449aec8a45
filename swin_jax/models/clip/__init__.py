"""CLIP: one tower for images, one for texts, joined by their features;
the towers of OpenAI and others.
"""

from swin_jax.models.clip.model import CLIP, encode, make_clip
from swin_jax.models.clip.presets import OPENAI, PRESETS
from swin_jax.models.clip.resnet import ModifiedResNet
from swin_jax.models.clip.text import TextTransformer
from swin_jax.models.clip.vit import VisionTransformer
from swin_jax.ops.normalize import unit as normalize

__all__ = [
    "CLIP",
    "ModifiedResNet",
    "OPENAI",
    "PRESETS",
    "TextTransformer",
    "VisionTransformer",
    "encode",
    "make_clip",
    "normalize",
]
