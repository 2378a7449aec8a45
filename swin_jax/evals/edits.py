"""Edits of pictures: their losses, and a picture of them before and after."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.evals.samples import enlarge, tile, to_bytes
from swin_jax.tasks.base import Task, TrainState, check_predicts

_PICTURES = ("before", "image")


@checked
@dataclasses.dataclass(frozen=True)
class Edits:
    """Measures a task that predicts edits.

    Attributes:
        data: A `data.pipeline.EvalData` of latents; None for a task that holds its own.
        pictures: Number of edits in the picture, the first ones.
        columns: Columns of that picture, each a pair of before and after.
    """

    data: Any = None
    pictures: PositiveInt = 12
    columns: PositiveInt = 4

    def bind(self, task: Task, placement: Any) -> Callable[[TrainState, Any], dict[str, Any]]:
        """Compiles for a task and a `sharding.Placement`.

        Returns:
            run(state, frozen) -> the mean over the latents of each term of the loss, with CLIP's
            before the edits (`clip_before`); of a mapper `step_cosine` and `step_cosine_std`, how
            consistent its steps are (arXiv 2103.17249, table 2); and {'edits': uint8
            (height, width, 3) picture}.
        """
        check_predicts(task, "edits", type(self).__name__)
        everywhere = jax.sharding.NamedSharding(placement.mesh, jax.sharding.PartitionSpec())

        def predict(state, batch, frozen):
            found = task.predict(state, batch, frozen)
            return found | {name: to_bytes(found[name]) for name in _PICTURES}

        predict = jax.jit(predict, out_shardings=everywhere)

        def run(state: TrainState, frozen: Any) -> dict[str, Any]:
            terms: dict[str, list] = {}
            pairs, count = [], 0
            for batch, real in self.batches(placement):
                found = jax.tree.map(np.asarray, predict(state, batch, frozen))
                before, after = (found.pop(name) for name in _PICTURES)
                real = np.ones(len(before), bool) if real is None else real
                kept = np.flatnonzero(real)[: max(self.pictures - count, 0)]
                pairs += [picture for row in kept for picture in (before[row], after[row])]
                count += len(kept)
                for name, values in found.items():
                    terms.setdefault(name, []).append(values[real])
            steps = terms.pop("step", [])
            means = {
                name: float(np.concatenate(values).mean(dtype=np.float64))
                for name, values in terms.items()
            }
            if steps:
                means |= consistency(np.concatenate(steps))
            return means | {
                "edits": enlarge(tile(np.stack(pairs), 2 * self.columns), before.shape[1])
            }

        return run

    def batches(self, placement: Any):
        """Batches on the mesh, and which of all their rows are real;
        one empty batch without data.
        """
        if self.data is None:
            yield {}, None
            return
        size = placement.round_up(self.data.batch_size)
        for number, batch in enumerate(self.data.batches(size, placement.rows(size))):
            latents = {name: batch[name] for name in ("latent", "styles") if name in batch}
            real = number * size + np.arange(size) < self.data.num_examples
            yield placement.to_global(latents, size), real


def consistency(steps: np.ndarray) -> dict[str, float]:
    """Mean and deviation of the cosine between any two of some steps (N, D);
    nothing for fewer than two.
    """
    count = len(steps)
    if count < 2:
        return {}
    lengths = np.linalg.norm(steps, axis=1, keepdims=True)
    unit = steps / np.where(lengths > 0, lengths, 1)
    cosines = (unit @ unit.T)[np.triu_indices(count, 1)]
    return {"step_cosine": float(cosines.mean()), "step_cosine_std": float(cosines.std())}
