"""Few-shot probes: a linear classifier from 1, 2, 4, 8 or 16 labeled examples per class.

CLIP (arXiv 2103.00020), Figure 6, fits logistic regression; the other choice is the ridge
regression of big_vision: whitened features, targets of -1 and 1, closed form. The paper tells no
seeds, so here examples are drawn with seeds and can be saved.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from swin_jax.core import labels, text_files
from swin_jax.core.errors import UserError
from swin_jax.core.output import plots
from swin_jax.core.ranges import (
    NonNegativeInt,
    NotEmpty,
    PositiveInt,
    Seed,
    checked,
    refusal,
    shown,
)
from swin_jax.evals import features, metrics
from swin_jax.evals.probes import linear_probe, logistic_regression
from swin_jax.tasks.base import PREDICTIONS, Task, TrainState, check_predicts

SHOTS = (1, 2, 4, 8, 16)
# Of `save_indices`.
_DRAWN = {"shots": PositiveInt, "seed": Seed, "indices": tuple[NonNegativeInt, ...]}
RIDGE_STRENGTHS = tuple(2.0**i for i in range(-10, 20))
_BIAS = 100.0  # of the constant feature: large, so that the penalty hardly touches the bias

Method = Literal["logistic", "ridge"]
Shots = Annotated[Sequence[PositiveInt], NotEmpty()]
Seeds = Annotated[Sequence[Seed], NotEmpty()]
Examples = tuple[np.ndarray, np.ndarray]  # features (N, E), labels (N,) int


@checked
def sample(label: np.ndarray, shots: PositiveInt, seed: Seed) -> np.ndarray:
    """Draws examples of each class; those of fewer shots are among those of more shots
    of the same seed.

    Args:
        label: (N,) int.
        shots: Number of examples per class.
        seed: Seed of the choice.

    Returns:
        Indices (classes * shots,) int, sorted.

    Raises:
        UserError: A class with fewer examples.
    """
    rng, chosen = np.random.default_rng(seed), []
    for kind in np.unique(label):
        members = rng.permutation(np.flatnonzero(label == kind))
        if len(members) < shots:
            raise UserError(
                f"class {kind} has {len(members)} examples, fewer than {shots} shots: ask for fewer"
            )
        chosen.append(members[:shots])
    return np.sort(np.concatenate(chosen))


def save_indices(path: str | os.PathLike, indices: dict[tuple[int, int], np.ndarray]) -> None:
    """Writes which examples were used, {(shots, seed): indices}, as JSON."""
    entries = [
        {"shots": shots, "seed": seed, "indices": [int(i) for i in chosen]}
        for (shots, seed), chosen in indices.items()
    ]
    Path(path).write_text(json.dumps(entries), encoding="utf-8")


def load_indices(path: str | os.PathLike) -> dict[tuple[int, int], np.ndarray]:
    """Reads what `save_indices` wrote.

    Raises:
        UserError: A file that it did not write.
    """
    try:
        entries = text_files.parse_json(text_files.read(path))
        for entry in entries:
            for name, hint in _DRAWN.items():
                if wanted := refusal(hint, entry[name]):
                    raise ValueError(f"{name}={shown(entry[name])}: it must be {wanted}")
        return {(x["shots"], x["seed"]): np.array(x["indices"], np.int64) for x in entries}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{Path(path)} does not hold the indices of few-shot examples: {error}"
        ) from error


def ridge(
    train: Examples, num_classes: int, strengths: Sequence[float] = RIDGE_STRENGTHS
) -> np.ndarray:
    """Ridge regression to targets of -1 and 1 for a grid of strengths, by one eigendecomposition.

    Features are whitened one by one (mean 0, deviation 1) and a constant 100 is appended for the
    bias; the classifiers are returned for features as they came, with a one appended.

    Args:
        train: Features (N, E) and labels (N,).
        num_classes: K.
        strengths: S L2 penalties of the squared error, summed over examples.

    Returns:
        (S, E + 1, K) float32, for `logistic_regression.with_ones(features)`.

    Raises:
        UserError: Features that are not finite.
    """
    x, label = np.asarray(train[0], np.float64), np.asarray(train[1])
    logistic_regression.check_finite(x)
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-5
    white = np.concatenate([(x - mean) / deviation, np.full((len(x), 1), _BIAS)], axis=-1)
    target = 2.0 * np.eye(num_classes)[label] - 1.0
    if len(white) < white.shape[-1]:  # X^T (X X^T + l)^-1 Y, the smaller of two equal forms
        values, vectors = np.linalg.eigh(white @ white.T)
        left, right = white.T @ vectors, vectors.T @ target
    else:  # (X^T X + l)^-1 X^T Y
        values, left = np.linalg.eigh(white.T @ white)
        right = left.T @ (white.T @ target)
    found = []
    for strength in strengths:
        solution = (left / (values + strength)[None, :]) @ right  # (E + 1, K), of whitened features
        weights = solution[:-1] / deviation[:, None]
        found.append(np.concatenate([weights, (_BIAS * solution[-1] - mean @ weights)[None]]))
    return np.stack(found).astype(np.float32)


def _fit(
    train: Examples,
    validation: Examples,
    num_classes: int,
    method: Method,
    pause: Callable[[], None],
) -> np.ndarray:
    """(E + 1, K) of the strength that does best on validation; of several the largest."""
    if method == "logistic":
        found = linear_probe.probe(train, validation, num_classes, refit=False, pause=pause)
        return found.classifier.stacked()
    classifiers = ridge(train, num_classes)
    return max(reversed(classifiers), key=lambda weights: _accuracy(weights, validation))


def _accuracy(weights: np.ndarray, examples: Examples) -> float:
    x, label = examples
    rank, _ = metrics.rank_labels(
        logistic_regression.with_ones(np.asarray(x, np.float32)), label, weights
    )
    return float(np.mean(rank == 0))


@dataclasses.dataclass(frozen=True)
class Result:
    """Accuracies of one data set.

    Attributes:
        accuracy: {shots: top-1 of each seed, in 0..1}.
        indices: {(shots, seed): the training examples}.
    """

    accuracy: dict[int, tuple[float, ...]]
    indices: dict[tuple[int, int], np.ndarray]

    def mean(self) -> dict[int, float]:
        """{shots: mean over the seeds}."""
        return {shots: float(np.mean(values)) for shots, values in self.accuracy.items()}


@checked
def few_shot(
    train: Examples,
    test: Examples,
    validation: Examples,
    shots: Shots = SHOTS,
    seeds: Seeds = (0, 1, 2),
    method: Method = "logistic",
    num_classes: PositiveInt | None = None,
    indices: dict[tuple[int, int], np.ndarray] | None = None,
    pause: Callable[[], None] = lambda: None,
) -> Result:
    """Fits on a few examples per class, chooses the regularization on validation data,
    and counts on test data.

    Args:
        train: Features (N, E) and labels (N,) that examples are drawn from.
        test: The same.
        validation: The same.
        shots: Examples per class.
        seeds: One draw each.
        method: 'logistic', as in the paper, or 'ridge'.
        num_classes: K; None for the largest label + 1.
        indices: Examples of an earlier run, to be used again; those that are absent are drawn.
        pause: A function that is called before every fit, and within those of 'logistic' as
            `linear_probe.probe` says; it may raise.

    Raises:
        UserError: Another method, one class, or a class with too few examples.
    """
    if method not in ("logistic", "ridge"):
        raise UserError(f"the method of few-shot probes is 'logistic' or 'ridge', not {method!r}")
    x, label = np.asarray(train[0], np.float32), np.asarray(train[1])
    if num_classes is None:
        num_classes = int(max(own.max() for own in (label, test[1], validation[1]))) + 1
    labels.refuse_one_class(num_classes, "a few-shot probe", "it needs features of a second one")
    known, used, accuracy = indices or {}, {}, {}
    for count in shots:
        values = []
        for seed in seeds:
            if (count, seed) in known:
                chosen = known[count, seed]
                _check_chosen(chosen, label, count)
            else:
                chosen = sample(label, count, seed)
            used[count, seed] = chosen
            pause()
            weights = _fit((x[chosen], label[chosen]), validation, num_classes, method, pause)
            values.append(_accuracy(weights, test))
        accuracy[count] = tuple(values)
    return Result(accuracy, used)


def _check_chosen(chosen: np.ndarray, label: np.ndarray, shots: int) -> None:
    """Raises UserError for indices that are not of so many examples of each class."""
    chosen = np.asarray(chosen)
    inside = bool(((chosen >= 0) & (chosen < len(label))).all())
    classes = np.repeat(np.unique(label), shots)
    is_right = inside and len(np.unique(chosen)) == len(chosen)
    if not is_right or not np.array_equal(np.sort(label[chosen]), classes):
        raise UserError(
            f"the indices of {shots} shots are of another training set: they are not {shots} "
            f"examples of each class among these {len(label)}"
        )


def shots_to_reach(means: dict[int, float], target: float) -> float:
    """The number of examples per class that equals an accuracy,
    zero-shot's for example (CLIP's Figure 7).

    Args:
        means: {shots: accuracy}.
        target: Accuracy in 0..1.

    Returns:
        Shots, interpolated log-linearly; the smallest measured number if that is already enough,
        inf if none is.
    """
    counts = sorted(means)
    enough = [number for number, count in enumerate(counts) if means[count] >= target]
    if not enough:
        return float("inf")
    place = enough[0]
    if place == 0:
        return float(counts[0])
    low, high = counts[place - 1], counts[place]
    share = (target - means[low]) / (means[high] - means[low])
    return float(low * (high / low) ** share)


def table(results: dict[str, Result], zero_shot: dict[str, float] | None = None) -> str:
    """A markdown table: a row per name with mean and deviation over the seeds,
    and the zero-shot accuracy if given.
    """
    shots = sorted({count for result in results.values() for count in result.accuracy})
    lines = [
        f"| | zero-shot | {' | '.join(f'{count}-shot' for count in shots)} |",
        f"|---|{'--:|' * (len(shots) + 1)}",
    ]
    for name, result in results.items():
        start = (zero_shot or {}).get(name)
        cells = ["" if start is None else f"{start:.1%}"]
        for count in shots:
            values = result.accuracy.get(count)
            cells.append(
                "" if values is None else f"{np.mean(values):.1%} ± {100 * np.std(values):.1f}"
            )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(
    results: dict[str, Result], path: str | os.PathLike, zero_shot: dict[str, float] | None = None
) -> None:
    """Draws CLIP's Figure 6: accuracy against labeled examples per class,
    with a star for zero-shot at 0.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    shots = sorted({count for result in results.values() for count in result.accuracy})
    drawn = []
    for number, (name, result) in enumerate(results.items()):
        own = sorted(result.accuracy)
        values = [100 * np.mean(result.accuracy[count]) for count in own]
        spread = [100 * np.std(result.accuracy[count]) for count in own]
        places = [1 + shots.index(count) for count in own]
        drawn.append(
            axes.errorbar(
                places, values, yerr=spread, marker="o", capsize=2, color=f"C{number % 10}"
            )
        )
        if zero_shot and name in zero_shot:
            axes.plot([0], [100 * zero_shot[name]], "*", markersize=12, color=f"C{number % 10}")
    axes.set_xticks(range(len(shots) + 1), ["0", *map(str, shots)])
    axes.set(xlabel="labeled examples per class", ylabel="accuracy (%)")
    axes.grid(alpha=0.3)
    # Handed over, since labels that begin with an underscore are left out otherwise.
    axes.legend(drawn, list(map(plots.plain, results)), fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    with plots.quiet_glyphs():
        figure.savefig(path, dpi=120)


@checked
@dataclasses.dataclass(frozen=True)
class FewShot:
    """Evaluates the features of a task during training.

    Attributes:
        train: A `data.pipeline.EvalData` with `image` and `label`, as are the others.
        test: Data that is reported; its classes, by name, are some of those of `train`, as are
            those of `validation`.
        validation: Data that chooses the regularization.
        shots: Examples per class.
        seeds: One draw each.
        method: 'ridge', which takes no time, or 'logistic'.
        output: Key of what `task.predict` returns that is probed.
    """

    own_classes: ClassVar[bool] = True  # those of `train`

    train: Any
    test: Any
    validation: Any
    shots: Shots = SHOTS
    seeds: Seeds = (0, 1, 2)
    method: Method = "ridge"
    output: str = "image_features"

    def bind(self, task: Task, placement: Any) -> Callable[[TrainState, Any], dict[str, float]]:
        """Compiles for a task and a `sharding.Placement`;
        returns run(state, frozen) -> {'<n>shot_top1': mean}.
        """
        if self.output in PREDICTIONS["features"]:
            check_predicts(task, "features", type(self).__name__)
        sets = labels.share(
            {"train": self.train, "test": self.test, "validation": self.validation},
            "the few-shot probe's",
        )
        extractors = [
            features.extractor(task, placement, data, (self.output,)) for data in sets.values()
        ]
        num_classes = len(self.train.class_names)

        def run(state: TrainState, frozen: Any) -> dict[str, float]:
            found = [extract(state, frozen) for extract in extractors]
            examples = [(x[self.output], x["label"]) for x in found]
            result = few_shot(
                *examples, self.shots, self.seeds, self.method, num_classes, pause=placement.pause
            )
            values = {f"{shots}shot_top1": value for shots, value in result.mean().items()}
            return values | features.left_out(sets.values(), found)

        return run
