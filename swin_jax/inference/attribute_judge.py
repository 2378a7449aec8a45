"""A classifier of several attributes as the judge of generated and edited pictures."""

import os

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.pretrained.load import load


class AttributeJudge:
    """A run of a Swin with an output for each attribute, whose pixels are in -1..1."""

    @checked
    def __init__(self, workdir: str | os.PathLike, batch_size: PositiveInt = 250):
        model, self._variables = load(weights=workdir)
        self._batch_size = batch_size

        @jax.jit
        def judge(variables, pictures):
            image = pictures.astype(jnp.float32) / 127.5 - 1
            maps = model.apply(variables, image, method="features")[-1]
            return model.apply(variables, image) > 0, maps.mean(axis=(1, 2))

        self._judge = judge

    def __call__(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8 (N, H, W, 3) -> which attributes they have, bool (N, K), and their
        features (N, D) float32.
        """
        starts = range(0, len(pictures), self._batch_size)
        parts = [self._judge(self._variables, pictures[i : i + self._batch_size]) for i in starts]
        marks, features = zip(*parts)
        return np.concatenate(marks), np.concatenate(features)
