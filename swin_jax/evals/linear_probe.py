"""Linear probe: multinomial logistic regression on features by L-BFGS,
and CLIP's search for its regularisation.

CLIP (arXiv 2103.00020), appendix A.3. The peer is scikit-learn's LogisticRegression. With C its
inverse regularisation, its objective is this one at lambda = 1 / C for three classes or more. For
two it fits one column of weights w, where there are two here, which at the optimum are -w / 2 and w
/ 2: their penalty is half of that of w, so that lambda = 2 / C. Value and gradient run on the
accelerator, in chunks of rows; scipy's L-BFGS, the one scikit-learn uses, runs on the host.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core import labels
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import (
    NonNegativeFloat,
    OpenFraction,
    PositiveFloat,
    PositiveInt,
    Seed,
    checked,
)
from swin_jax.evals import features, metrics
from swin_jax.tasks.base import PREDICTIONS, Task, TrainState, check_predicts

log = logging.getLogger(__name__)

# 1e-6 .. 1e6 in 96 steps, 8 per decade.
LAMBDAS = np.logspace(-6, 6, 97)
_FIRST_STEP = 16  # every second decade: 7 points

_CHUNK = 8192  # rows at a time, so that (rows, classes) logits fit


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A linear classifier of features.

    Attributes:
        weights: (E, K) float32.
        bias: (K,) float32.
        strength: lambda that it was fitted with.
        loss: summed cross-entropy + lambda / 2 ||weights||^2 at the end.
    """

    weights: np.ndarray
    bias: np.ndarray
    strength: float
    loss: float

    def stacked(self) -> np.ndarray:
        """(E + 1, K): a classifier of features with a one appended, `with_ones`."""
        return np.concatenate([self.weights, self.bias[None]])

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The class of each row of (N, E): (N,) int."""
        return np.argmax(np.asarray(x, np.float32) @ self.weights + self.bias, axis=-1)


def with_ones(x: np.ndarray) -> np.ndarray:
    """Features with a one appended: (N, E) -> (N, E + 1)."""
    return np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=-1)


def check_finite(x: np.ndarray) -> None:
    """Raises UserError for features of which some are not finite."""
    if not np.isfinite(x).all():
        raise UserError("the features of a probe contain values that are not finite")


@jax.jit
def _cross_entropy(parameters: jax.Array, x: jax.Array, label: jax.Array, weight: jax.Array):
    """Cross-entropies, which the host adds in float64 because line searches need the digits,
    and their gradient.

    parameters (E + 1, K), x (chunks, rows, E), label and weight (chunks, rows) -> (chunks, rows),
    (E + 1, K).
    """
    matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def add(gradient, rows):
        x, label, weight = rows
        logits = matmul(x, parameters[:-1]) + parameters[-1:]
        logs = jax.nn.log_softmax(logits, axis=-1)
        losses = -jnp.take_along_axis(logs, label[:, None], axis=-1)[:, 0] * weight
        error = (jnp.exp(logs) - jax.nn.one_hot(label, logits.shape[-1])) * weight[:, None]
        return gradient + jnp.concatenate(
            [matmul(x.T, error), error.sum(axis=0, keepdims=True)]
        ), losses

    gradient, losses = jax.lax.scan(add, jnp.zeros_like(parameters), (x, label, weight))
    return losses, gradient


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Features on the device, cut into chunks of one size; what fills up the last one weighs 0."""

    x: jax.Array  # (chunks, rows, E)
    label: jax.Array  # (chunks, rows)
    weight: jax.Array  # (chunks, rows)
    count: int
    num_classes: int

    @staticmethod
    def put(x: np.ndarray, label: np.ndarray, num_classes: int, chunk: int) -> "_Rows":
        if len(x) != len(label) or not len(x):
            raise UserError(
                f"a probe needs as many labels as features, and some: got {len(label)} and {len(x)}"
            )
        if np.min(label) < 0 or np.max(label) >= num_classes:
            raise UserError(
                f"labels must be in 0..{num_classes - 1}, got {np.min(label)}..{np.max(label)}"
            )
        check_finite(x)
        chunk = min(chunk, len(x))
        chunks = -(-len(x) // chunk)
        index = np.minimum(np.arange(chunks * chunk), len(x) - 1)
        weight = (np.arange(chunks * chunk) < len(x)).astype(np.float32)
        shape = (chunks, chunk)
        return _Rows(
            jnp.asarray(np.asarray(x, np.float32)[index].reshape(*shape, -1)),
            jnp.asarray(np.asarray(label, np.int32)[index].reshape(shape)),
            jnp.asarray(weight.reshape(shape)),
            len(x),
            num_classes,
        )


@checked
def fit(
    x: np.ndarray,
    label: np.ndarray,
    strength: NonNegativeFloat,
    num_classes: PositiveInt | None = None,
    start: Classifier | None = None,
    max_iterations: PositiveInt = 1000,
    tolerance: PositiveFloat = 1e-4,
    chunk: PositiveInt = _CHUNK,
    pause: Callable[[], None] = lambda: None,
) -> Classifier:
    """Minimises summed cross-entropy + strength / 2 ||weights||^2; the bias is not penalised.

    Args:
        x: (N, E) features.
        label: (N,) int in 0..K-1.
        strength: lambda on the summed loss: scikit-learn's 1 / C, of two classes 2 / C.
        num_classes: K; None for the largest label + 1.
        start: where to start; None starts at zero, as scikit-learn.
        max_iterations: of L-BFGS; the paper has 1000.
        tolerance: on the largest gradient of loss / N, as scikit-learn's `tol`.
        chunk: rows at a time.
        pause: as of `probe`.

    Raises:
        UserError: no rows, labels out of range, or features that are not finite.
    """
    num_classes = int(np.max(label, initial=0)) + 1 if num_classes is None else num_classes
    return _fit(
        _Rows.put(x, label, num_classes, chunk), strength, start, max_iterations, tolerance, pause
    )


def _fit(
    rows: _Rows,
    strength: float,
    start: Classifier | None,
    max_iterations: int,
    tolerance: float,
    pause: Callable[[], None],
) -> Classifier:
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    shape = (rows.x.shape[-1] + 1, rows.num_classes)

    def value_and_gradient(flat):
        parameters = flat.reshape(shape)
        losses, gradient = _cross_entropy(
            parameters.astype(np.float32), rows.x, rows.label, rows.weight
        )
        penalised = parameters[:-1]
        value = np.asarray(losses, np.float64).sum() + 0.5 * strength * np.vdot(
            penalised, penalised
        )
        gradient = np.array(gradient, np.float64)
        gradient[:-1] += strength * penalised
        return value / rows.count, gradient.ravel() / rows.count

    def pause_alone(_):
        # Hosts that differ in a last bit may take another number of iterations,
        # but the same number of fits.
        if jax.process_count() == 1:
            pause()

    pause()
    first = np.zeros(shape) if start is None else start.stacked().astype(np.float64)
    options = {
        "maxiter": max_iterations,
        "maxls": 50,
        "gtol": tolerance,
        "ftol": 64 * np.finfo(np.float64).eps,
    }
    # The threads of OpenBLAS spin between L-BFGS's short vector operations,
    # 10 times slower where cores are shared.
    with threadpool_limits(1, "blas"):
        found = minimize(
            value_and_gradient,
            first.ravel(),
            jac=True,
            method="L-BFGS-B",
            options=options,
            callback=pause_alone,
        )
    largest = float(np.abs(found.jac).max())
    if found.nit >= max_iterations:
        log.warning(
            "L-BFGS stopped after %d iterations at lambda %.3g (gradient %.2g)",
            found.nit,
            strength,
            largest,
        )
    parameters = found.x.reshape(shape).astype(np.float32)
    return Classifier(parameters[:-1], parameters[-1], strength, float(found.fun) * rows.count)


@dataclasses.dataclass(frozen=True)
class Search:
    """What a search for lambda saw.

    Attributes:
        best: lambda with the best score; of several the largest, the most regularised.
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
        fraction: of each class that goes to validation;
            a class of several examples gives at least one and keeps one.
        seed: of the choice.

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
        classifier: fitted to training and validation data with the chosen lambda.
        search: how that was chosen.
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
    chunk: PositiveInt = _CHUNK,
    pause: Callable[[], None] = lambda: None,
) -> Probe:
    """The whole protocol: lambda is chosen on validation data,
    then the classifier is fitted to both parts.

    Args:
        train: (features (N, E), labels (N,) int).
        validation: the same; None carves a fifth of `train` out.
        num_classes: K; None for the largest label + 1.
        metric: a key of `metrics.top_scores` that chooses lambda.
        refit: whether the last fit is to training and validation data, as in the paper.
        seed: of the carving.
        max_iterations: of L-BFGS.
        tolerance: of L-BFGS.
        chunk: rows at a time.
        pause: is called before every fit, and in one process after each of its iterations;
            it may raise to end all.

    Raises:
        UserError: as `fit` and `split`.
    """
    x, label = np.asarray(train[0], np.float32), np.asarray(train[1])
    if validation is None:
        kept, held = split(label, seed=seed)
        (x, label), validation = (x[kept], label[kept]), (x[held], label[held])
    other, other_label = np.asarray(validation[0], np.float32), np.asarray(validation[1])
    if num_classes is None:
        num_classes = int(max(label.max(initial=0), other_label.max(initial=0))) + 1
    rows, ones, fitted = _Rows.put(x, label, num_classes, chunk), with_ones(other), {}

    def score(strength):
        near = min(fitted, key=lambda known: abs(np.log(known / strength)), default=None)
        # Each fit starts from the nearest one before it:
        # the optimum is the same, and sooner reached.
        fitted[strength] = _fit(rows, strength, fitted.get(near), max_iterations, tolerance, pause)
        rank, _ = metrics.rank_labels(ones, other_label, fitted[strength].stacked())
        return metrics.top_scores(rank, other_label, num_classes)[metric]

    found = search(score)
    classifier = fitted[found.best]
    if refit:
        both = _Rows.put(
            np.concatenate([x, other]), np.concatenate([label, other_label]), num_classes, chunk
        )
        classifier = _fit(both, found.best, classifier, max_iterations, tolerance, pause)
    return Probe(classifier, found)


@checked
@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """Evaluates the features of a task during training.

    Attributes:
        train: a `data.pipeline.EvalData` with `image` and `label`, as are the others.
        test: what is reported; its classes, by name, are some of those of `train`,
            as are those of `validation`.
        validation: chooses lambda; None carves a fifth of `train` out.
        output: key of what `task.predict` returns that is probed; the paper takes ViT's class token
            before the projection, 'image_features' are after it and of unit length.
        metric: key of `metrics.top_scores` that chooses lambda.
        max_iterations: of L-BFGS.
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
