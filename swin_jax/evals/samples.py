"""A picture of what a generator makes of the same latents each time."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from swin_jax.core.ranges import PositiveInt, Seed, checked
from swin_jax.tasks.base import Task, TrainState, check_predicts

_SHOWN = 64  # pixels that smaller images are enlarged to, in whole steps


@checked
@dataclasses.dataclass(frozen=True)
class SampleGrid:
    """Draws a grid of samples of a task that predicts them.

    Attributes:
        rows, columns: Size of the grid.
        seed: Seed of the latents and, for a conditional generator, the labels.
    """

    rows: PositiveInt = 6
    columns: PositiveInt = 10
    seed: Seed = 0

    def bind(self, task: Task, placement: Any) -> Callable[[TrainState, Any], dict[str, Any]]:
        """Compiles for a task and a `sharding.Placement`.

        Returns:
            run(state, frozen) -> {'samples': uint8 (height, width, 3) picture}.
        """
        check_predicts(task, "samples", type(self).__name__)
        everywhere = jax.sharding.NamedSharding(placement.mesh, jax.sharding.PartitionSpec())
        predict = jax.jit(
            lambda *args: to_bytes(task.predict(*args)["image"]), out_shardings=everywhere
        )

        def run(state: TrainState, frozen: Any) -> dict[str, Any]:
            count = self.rows * self.columns
            size = placement.round_up(count)
            batch = draw_latents(task, np.random.default_rng(self.seed), size)
            rows = placement.rows(size)
            batch = placement.to_global({key: value[rows] for key, value in batch.items()}, size)
            images = np.asarray(predict(state, batch, frozen))[:count]
            return {"samples": enlarge(tile(images, self.columns), images.shape[1])}

        return run


def draw_latents(task: Task, rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """A batch for `task.predict`: `latent` (count, z) float32 and, for a conditional generator,
    `label` (count,).
    """
    generator = task.generator
    batch = {"latent": rng.standard_normal((count, generator.z_dim), np.float32)}
    if generator.c_dim:
        batch["label"] = rng.integers(0, generator.c_dim, count, np.int32)
    return batch


def to_bytes(image: jax.Array) -> jax.Array:
    """Floats, nominally in -1..1, as uint8: clipped and truncated as the reference does."""
    return jax.numpy.clip(image * 127.5 + 128, 0, 255).astype(jax.numpy.uint8)


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """(N, H, W, C) -> one picture, row by row; what is missing in the last row stays black."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    picture = np.zeros((rows * columns, height, width, channels), images.dtype)
    picture[:count] = images
    picture = picture.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return picture.reshape(rows * height, columns * width, channels)


def enlarge(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture of images whose side is `side`, in whole steps so that these are seen well."""
    times = max(_SHOWN // side, 1)
    return picture.repeat(times, axis=0).repeat(times, axis=1)
