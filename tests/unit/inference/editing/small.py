"""A generator of 8 pixels and a CLIP, with random weights."""

import functools

import jax
import numpy as np

from swin_jax.inference.editing.relevance import Models
from swin_jax.models.clip import make_clip
from swin_jax.models.stylegan2 import Generator

GENERATOR = dict(resolution=8, z_dim=6, w_dim=6, mapping_layers=1, channel_base=64, channel_max=8)
CLIP = dict(embed_dim=8, image_size=16, patch_size=8, vision_layers=1, vision_width=16, vision_heads=2)
CLIP |= dict(text_width=16, text_layers=1, text_heads=2, context_length=24, vocab_size=49408)


@functools.cache
def models() -> Models:
    """Both with their variables."""
    generator, clip = Generator(**GENERATOR), make_clip(**CLIP)
    variables = generator.init(jax.random.key(0), np.zeros((1, 6)))
    text = np.zeros((1, CLIP["context_length"]), np.int32)
    return Models(generator, variables, clip, clip.init(jax.random.key(1), np.zeros((1, 16, 16, 3)), text))
