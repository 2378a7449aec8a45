"""Linear probe: logistic regression on features, and CLIP's search for its regularization.

CLIP (arXiv 2103.00020), appendix A.3; the fits are those of `logistic_regression`.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from swin_jax.core import labels
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import (
    OpenFraction,
    PositiveFloat,
    PositiveInt,
    Seed,
    checked,
)
from swin_jax.evals import features, metrics
from swin_jax.evals.probes.logistic_regression import (
    CHUNK,
    Classifier,
    Rows,
    fit_rows,
    with_ones,
)
from swin_jax.tasks.base import PREDICTIONS, Task, TrainState, check_predicts

log = logging.getLogger(__name__)

# 1e-6 .. 1e6 in 96 steps, 8 per decade.
LAMBDAS = np.logspace(-6, 6, 97)
_FIRST_STEP = 16  # every second decade: 7 points


@dataclasses.dataclass(frozen=True)
class Search:
    """The record of a search for lambda.

    Attributes:
        best: lambda with the best score; of several the largest, the most regularized.
        visited: ((lambda, score), ...) in the order of visit.
    """

    best: float
    visited: tuple[tuple[float, float], ...]


def search(score: Callable[[float], float]) -> Search:
    """CLIP's search: 7 points two decades apart, then the interval around the best is halved down
    to 8 steps a decade.

    Args:
        score: lambda -> figure on the validation set, the higher the better;
            called 15 times at most.
    """
    found: dict[int, float] = {}
    step, wanted = _FIRST_STEP, list(range(0, len(LAMBDAS), _FIRST_STEP))
    while True:
        for index in wanted:
            if index not in found:
                found[index] = score(float(LAMBDAS[index]))
        best = max(found, key=lambda index: (found[index], index))
        if step == 1:
            return Search(
                float(LAMBDAS[best]),
                tuple((float(LAMBDAS[i]), value) for i, value in found.items()),
            )
        step //= 2
        wanted = [index for index in (best - step, best + step) if 0 <= index < len(LAMBDAS)]


@checked
def split(
    label: np.ndarray,
    fraction: OpenFraction = 0.2,
    seed: Seed = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Carves a validation set out of a training set, class by class.

    Args:
        label: (N,) int.
        fraction: Share of each class that goes to validation; a class of several examples gives at
            least one and keeps one.
        seed: Seed of the choice.

    Returns:
        (training indices, validation indices), sorted.
    """
    rng, held = np.random.default_rng(seed), []
    for kind in np.unique(label):
        members = rng.permutation(np.flatnonzero(label == kind))
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held.append(members[:count])
    held = np.sort(np.concatenate(held))
    if not len(held):
        raise UserError(
            "no class has two examples, so that none is left for validation: give a validation set"
        )
    return np.setdiff1d(np.arange(len(label)), held), held


@dataclasses.dataclass(frozen=True)
class Probe:
    """The result of a probe.

    Attributes:
        classifier: Classifier that was fitted to training and validation data with the chosen
            lambda.
        search: Record of the search that chose it.
    """

    classifier: Classifier
    search: Search

    def evaluate(self, x: np.ndarray, label: np.ndarray) -> dict[str, float]:
        """`metrics.top_scores` of features (N, E) with labels (N,)."""
        weights = self.classifier.stacked()
        rank, _ = metrics.rank_labels(with_ones(np.asarray(x, np.float32)), label, weights)
        return metrics.top_scores(rank, label, weights.shape[-1])


@checked
def probe(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    num_classes: PositiveInt | None = None,
    metric: str = "top1",
    refit: bool = True,
    seed: Seed = 0,
    max_iterations: PositiveInt = 1000,
    tolerance: PositiveFloat = 1e-4,
    chunk: PositiveInt = CHUNK,
    pause: Callable[[], None] = lambda: None,
) -> Probe:
    """The whole protocol: lambda is chosen on validation data,
    then the classifier is fitted to both parts.

    Args:
        train: (features (N, E), labels (N,) int).
        validation: The same; None carves a fifth of `train` out.
        num_classes: K; None for the largest label + 1.
        metric: A key of `metrics.top_scores` that chooses lambda.
        refit: True if the last fit is to training and validation data, as in the paper.
        seed: Seed of the split into training and validation data.
        max_iterations: Most iterations of L-BFGS.
        tolerance: Tolerance of L-BFGS.
        chunk: Rows at a time.
        pause: A function that is called before every fit, and in one process after each of its
            iterations; it may raise to end all.

    Raises:
        UserError: One class, and as `fit` and `split`.
    """
    x, label = np.asarray(train[0], np.float32), np.asarray(train[1])
    if validation is None:
        kept, held = split(label, seed=seed)
        (x, label), validation = (x[kept], label[kept]), (x[held], label[held])
    other, other_label = np.asarray(validation[0], np.float32), np.asarray(validation[1])
    if num_classes is None:
        num_classes = int(max(label.max(initial=0), other_label.max(initial=0))) + 1
    labels.refuse_one_class(num_classes, "a linear probe", "it needs features of a second one")
    rows, ones, fitted = Rows.put(x, label, num_classes, chunk), with_ones(other), {}

    def score(strength):
        near = min(fitted, key=lambda known: abs(np.log(known / strength)), default=None)
        # Each fit starts from the nearest one before it:
        # the optimum is the same, and sooner reached.
        fitted[strength] = fit_rows(
            rows, strength, fitted.get(near), max_iterations, tolerance, pause
        )
        rank, _ = metrics.rank_labels(ones, other_label, fitted[strength].stacked())
        return metrics.top_scores(rank, other_label, num_classes)[metric]

    found = search(score)
    classifier = fitted[found.best]
    if refit:
        both = Rows.put(
            np.concatenate([x, other]), np.concatenate([label, other_label]), num_classes, chunk
        )
        classifier = fit_rows(both, found.best, classifier, max_iterations, tolerance, pause)
    return Probe(classifier, found)


@checked
@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """Evaluates the features of a task during training.

    Attributes:
        train: A `data.pipeline.EvalData` with `image` and `label`, as are the others.
        test: Data that is reported; its classes, by name, are some of those of `train`, as are
            those of `validation`.
        validation: Data that chooses lambda; None carves a fifth of `train` out.
        output: Key of what `task.predict` returns that is probed; the paper takes ViT's class token
            before the projection, 'image_features' are after it and of unit length.
        metric: Key of `metrics.top_scores` that chooses lambda.
        max_iterations: Most iterations of L-BFGS.
    """

    own_classes: ClassVar[bool] = True  # those of `train`

    train: Any
    test: Any
    validation: Any = None
    output: str = "image_features"
    metric: str = "top1"
    max_iterations: PositiveInt = 1000

    def bind(self, task: Task, placement: Any) -> Callable[[TrainState, Any], dict[str, float]]:
        """Compiles for a task and a `sharding.Placement`; returns run(state,
        frozen) -> {name: value}.

        Among the values are 'lambda' and 'validation', the score that chose it.
        """
        if self.output in PREDICTIONS["features"]:
            check_predicts(task, "features", type(self).__name__)
        sets = labels.share(
            {"train": self.train, "test": self.test, "validation": self.validation},
            "the linear probe's",
        )
        extractors = [
            features.extractor(task, placement, data, (self.output,)) for data in sets.values()
        ]
        num_classes = len(self.train.class_names)

        def run(state: TrainState, frozen: Any) -> dict[str, float]:
            found = [extract(state, frozen) for extract in extractors]
            train, test, *validation = [(x[self.output], x["label"]) for x in found]
            limits = dict(max_iterations=self.max_iterations, pause=placement.pause)
            fitted = probe(train, *(validation or [None]), num_classes, self.metric, **limits)
            results = fitted.evaluate(*test)
            del results["mean_top1_top5"]
            best = max(value for _, value in fitted.search.visited)
            results |= {"lambda": fitted.search.best, "validation": best}
            return results | features.left_out(sets.values(), found)

        return run
