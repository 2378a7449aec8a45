"""Masked L1 over a whole set with fixed masks, and a picture of input,
masked input and reconstruction.

The loss is that of SimMIM's training (arXiv 2111.09886),
with the mean over all masked pixels of the set.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from swin_jax.core.ranges import NonNegativeInt, checked
from swin_jax.data.unreadable import left_out
from swin_jax.tasks.base import Task, TrainState, check_predicts

_GAP = 2  # white pixels between pictures
_SHOWN = 96  # pixels that smaller images are enlarged to, in whole steps


@checked
@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Evaluates a task that reconstructs masked images on a data set.

    Attributes:
        data: A `data.pipeline.EvalData` whose transform adds a fixed `mask`.
        pictures: Images in the grid, the first of the set; 0 draws none.
    """

    data: Any
    pictures: NonNegativeInt = 8

    def bind(self, task: Task, placement: Any) -> Callable[[TrainState, Any], dict[str, Any]]:
        """Compiles for a task and a `sharding.Placement`.

        Returns:
            run(state, frozen) -> {'loss': float, 'reconstruction': uint8 (height, width, C)
            picture}. The picture has a row for each image: input, input with gray cells where it is
            masked, and what the model makes of that.
        """
        check_predicts(task, "reconstruction", type(self).__name__)
        everywhere = jax.sharding.NamedSharding(placement.mesh, jax.sharding.PartitionSpec())

        @jax.jit
        def measure(state, batch, frozen):
            found = task.predict(state, {"image": batch["image"], "mask": batch["mask"]}, frozen)
            sums = {name: (found[name] * batch["weight"]).sum() for name in ("error", "masked")}
            return sums | {"count": (batch["weight"] > 0).sum()}

        def draw(state, batch, frozen):
            found = task.predict(state, {"image": batch["image"], "mask": batch["mask"]}, frozen)
            return tuple(
                x[: self.pictures]
                for x in (batch["image"], found["pixel_mask"], found["reconstruction"])
            )

        draw = jax.jit(draw, out_shardings=everywhere)

        def run(state: TrainState, frozen: Any) -> dict[str, Any]:
            batch_size = placement.round_up(self.data.batch_size)
            sums, drawn, pending = {"error": 0.0, "masked": 0.0, "count": 0}, {}, None
            for number, batch in enumerate(
                self.data.batches(batch_size, placement.rows(batch_size))
            ):
                batch = placement.to_global(
                    {key: batch[key] for key in ("image", "mask", "weight")}, batch_size
                )
                if number == 0 and self.pictures:
                    kept = min(self.pictures, self.data.num_examples)
                    picture = grid(*(np.asarray(x)[:kept] for x in draw(state, batch, frozen)))
                    times = max(_SHOWN // batch["image"].shape[1], 1)
                    drawn = {"reconstruction": picture.repeat(times, axis=0).repeat(times, axis=1)}
                pending, previous = measure(state, batch, frozen), pending
                _add(sums, previous)
            _add(sums, pending)
            return (
                {"loss": sums["error"] / sums["masked"]}
                | left_out(self.data, sums["count"])
                | drawn
            )

        return run


def grid(image: np.ndarray, mask: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """One picture of several images: a row for each with input, masked input,
    and reconstruction in the masked pixels.

    Args:
        image: (N, H, W, C) uint8.
        mask: (N, H, W), 1 where a pixel is masked.
        reconstruction: (N, H, W, C) floating point, in 0..1.

    Returns:
        uint8 (N * (H + 2) - 2, 3 * (W + 2) - 2, C), white between the images.
    """
    hidden = mask[..., None] > 0
    filled = np.round(np.clip(np.nan_to_num(reconstruction), 0, 1) * 255).astype(np.uint8)
    columns = np.stack(
        [image, np.where(hidden, np.uint8(128), image), np.where(hidden, filled, image)]
    )
    columns = np.pad(columns, [(0, 0), (0, 0), (0, _GAP), (0, _GAP), (0, 0)], constant_values=255)
    _, rows, height, width, channels = columns.shape  # (3, N, H, W, C)
    picture = columns.transpose(1, 2, 0, 3, 4).reshape(rows * height, 3 * width, channels)
    return picture[:-_GAP, :-_GAP]


def _add(sums: dict[str, float], counts: dict[str, jax.Array] | None) -> None:
    for name, value in (counts or {}).items():
        sums[name] += value.item()
