"""Small networks for edits by texts: a generator of 8 pixels, a CLIP and a network of faces, with random weights."""

import functools

import jax
import jax.numpy as jnp

from swin_jax.models.arcface import IRSE
from swin_jax.models.clip import make_clip
from swin_jax.models.stylegan2 import Generator
from swin_jax.tasks.editing import Given

GENERATOR = dict(resolution=8, z_dim=8, w_dim=8, mapping_layers=2, channel_base=128, channel_max=8)
CLIP = dict(embed_dim=8, image_size=16, patch_size=8, vision_layers=1, vision_width=16, vision_heads=2)
CLIP |= dict(text_width=16, text_layers=1, text_heads=2, context_length=6, vocab_size=49408)
FACES = dict(blocks=((8, 8, 1), (8, 16, 1)), image_size=16, embed_dim=8)


@functools.cache
def networks():
    """{name: `Given`} of the three networks."""
    generator, clip, faces = Generator(**GENERATOR), make_clip(**CLIP), IRSE(**FACES)
    text = jnp.zeros((1, CLIP["context_length"]), jnp.int32)
    arguments = {
        "generator": (generator, jnp.zeros((1, GENERATOR["z_dim"]))),
        "clip": (clip, jnp.zeros((1, 16, 16, 3)), text),
        "arcface": (faces, jnp.zeros((1, 16, 16, 3))),
    }
    return {
        name: Given(model, jax.jit(model.init)(jax.random.key(i), *inputs))
        for i, (name, (model, *inputs)) in enumerate(arguments.items())
    }
