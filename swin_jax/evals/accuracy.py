"""Exact top-1 and top-5 accuracy, or mean average precision, and cross-entropy over a whole set,
on any mesh.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.data.unreadable import left_out
from swin_jax.evals import features, metrics
from swin_jax.ops import losses
from swin_jax.tasks.base import Task, TrainState, check_predicts


@checked
@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Evaluates a classifier on a data set.

    The number of batches comes from the global length, the batch is rounded up to the mesh, padding
    has weight 0, and sums are divided once. Of records with several labels each it gives
    `metrics.multi_label_scores` and the binary cross-entropy.

    Attributes:
        data: A `data.pipeline.EvalData`.
        top: The k of the second figure; min(k, number of classes) is used.
    """

    data: Any
    top: PositiveInt = 5

    def bind(self, task: Task, placement: Any) -> Callable[[TrainState, Any], dict[str, float]]:
        """Compiles for a task and a `sharding.Placement`; returns run(state,
        frozen) -> {name: value}.
        """
        check_predicts(task, "logits", type(self).__name__)
        if getattr(self.data, "multi_label", False):
            return self._bind_multi_label(task, placement)

        @jax.jit
        def count(state, batch, frozen):
            logits = task.predict(state, batch, frozen)["logits"].astype(jnp.float32)
            label, weight = batch["label"], batch["weight"]
            top = min(self.top, logits.shape[-1])
            target = losses.smooth_one_hot(label, logits.shape[-1], 0.0)
            # Counts as integers: float32 would stop being exact at 2^24 examples.
            valid = weight > 0
            return {
                "top1": (losses.top_k_correct(logits, label, 1).astype(bool) & valid).sum(),
                f"top{top}": (losses.top_k_correct(logits, label, top).astype(bool) & valid).sum(),
                "loss": (losses.soft_cross_entropy(logits, target) * weight).sum(),
                "count": valid.sum(),
            }

        def run(state: TrainState, frozen: Any) -> dict[str, float]:
            batch_size = placement.round_up(self.data.batch_size)
            sums: dict[str, float] = {}
            pending = None
            for batch in self.data.batches(batch_size, placement.rows(batch_size)):
                batch = {key: array for key, array in batch.items() if key not in ("bad", "record")}
                batch = placement.to_global(batch, batch_size)
                pending, previous = count(state, batch, frozen), pending
                _add(sums, previous)
            _add(sums, pending)
            total = sums.pop("count")
            return {name: value / total for name, value in sums.items()} | left_out(
                self.data, total
            )

        return run

    def _bind_multi_label(
        self, task: Task, placement: Any
    ) -> Callable[[TrainState, Any], dict[str, float]]:
        extract = features.extractor(
            task, placement, self.data, ("logits",), (getattr(task, "input", "image"),)
        )

        def run(state: TrainState, frozen: Any) -> dict[str, float]:
            found = extract(state, frozen)
            logits, label = found["logits"], found["label"]
            each = np.asarray(losses.sigmoid_cross_entropy(logits, np.maximum(label, 0)))
            values = metrics.multi_label_scores(logits, label) | {
                "loss": float(each[label >= 0].mean())
            }
            return values | left_out(self.data, len(label))

        return run


def _add(sums: dict[str, float], counts: dict[str, jax.Array] | None) -> None:
    for name, value in (counts or {}).items():
        sums[name] = sums.get(name, 0) + value.item()
