"""Measures how well the cosine of two embeddings tells what two records have in common."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.data.unreadable import left_out
from swin_jax.evals import features, metrics
from swin_jax.ops import losses
from swin_jax.tasks.base import Task, TrainState, check_predicts


@checked
@dataclasses.dataclass(frozen=True)
class CosineOfPairs:
    """Evaluates embeddings on the pairs of a set, for a task that predicts `embedding`.

    Attributes:
        data: A `data.pipeline.EvalData` whose labels are marks, as of `ops.losses.shared_marks`.
        limit: The first records only, so many; each is compared with every other one.
    """

    data: Any
    limit: PositiveInt = 5000

    def bind(self, task: Task, placement: Any) -> Callable[[TrainState, Any], dict[str, float]]:
        """Compiles for a task and a `sharding.Placement`; returns run(state,
        frozen) -> {name: value}.
        """
        check_predicts(task, "embedding", type(self).__name__)
        extract = features.extractor(task, placement, self.data, ("embedding",))

        def run(state: TrainState, frozen: Any) -> dict[str, float]:
            found = extract(state, frozen)
            scores = pair_scores(found["embedding"][: self.limit], found["label"][: self.limit])
            return scores | left_out(self.data, len(found["label"]))

        return run


def pair_scores(embedding: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """The figures of all pairs of a set.

    Args:
        embedding: (N, E) of length 1.
        label: (N, K) marks, as of `ops.losses.shared_marks`.

    Returns:
        'rms_error', the root mean square difference of the cosine and the share of the choices in
        common, over the pairs of which a choice is known for both; 'cosine_same',
        'cosine_one_differs' and 'cosine_any', the mean cosine of pairs with no other class in a
        known choice, with one, and of all; 'auc', how often one of the first has a larger cosine
        than one of the second. A figure without pairs is left out.
    """
    first, second = np.triu_indices(len(embedding), 1)
    common, known = (np.asarray(x)[first, second] for x in losses.shared_marks(label, label))
    cosine = (embedding @ embedding.T)[first, second]
    cosine, common, known = (x[known > 0] for x in (cosine, common, known))
    same, one = common == known, common == known - 1
    results = {}
    for name, kind in (("same", same), ("one_differs", one), ("any", known > 0)):
        if kind.any():
            results[f"cosine_{name}"] = float(cosine[kind].mean())
    if len(cosine):
        results["rms_error"] = float(np.sqrt(np.square(cosine - common / known).mean()))
    if same.any() and one.any():
        either = same | one
        results["auc"] = metrics.roc_auc(cosine[either], same[either])
    return results
