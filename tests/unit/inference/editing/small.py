"""The small generator of `tests.editing` and a CLIP like its, for longer texts, with random weights."""

import functools

import jax
import numpy as np

from swin_jax.inference.editing.relevance import Models
from swin_jax.models.clip import make_clip
from tests.editing import CLIP, networks

LENGTH = 24  # tokens of a text


@functools.cache
def models() -> Models:
    """Both with their variables."""
    generator, clip = networks()["generator"], make_clip(**CLIP | dict(context_length=LENGTH))
    image, text = np.zeros((1, 16, 16, 3)), np.zeros((1, LENGTH), np.int32)
    return Models(generator.model, generator.variables, clip, jax.jit(clip.init)(jax.random.key(1), image, text))
