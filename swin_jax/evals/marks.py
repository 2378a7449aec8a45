"""The accuracy of each mark: by a classifier of several labels, or by texts."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.data.unreadable import left_out
from swin_jax.evals import features, metrics
from swin_jax.evals.features import Tokenize
from swin_jax.tasks.base import Task, TrainState, check_predicts


@dataclasses.dataclass(frozen=True)
class MarkAccuracy:
    """Evaluates a classifier of several labels, where a class is there if its logit is positive.

    Attributes:
        data: A `data.pipeline.EvalData` whose labels are marks: 1, 0, or -1 where nothing is known.
    """

    data: Any

    def bind(self, task: Task, placement: Any) -> Callable[[TrainState, Any], dict[str, float]]:
        """Compiles for a task and a `sharding.Placement`; returns run(state,
        frozen) -> {name: value}.
        """
        check_predicts(task, "logits", type(self).__name__)
        _check(self)
        extract = features.extractor(task, placement, self.data, ("logits",))

        def run(state: TrainState, frozen: Any) -> dict[str, float]:
            found = extract(state, frozen)
            scores = mark_scores(found["logits"], found["label"], self.data.class_names)
            return scores | left_out(self.data, len(found["label"]))

        return run


@dataclasses.dataclass(frozen=True)
class TextPairs:
    """Evaluates an image-text task on records of several labels, each class by a pair of texts.

    A class is there if the picture is nearer to the first text of its pair than to the second.

    Attributes:
        data: A `data.pipeline.EvalData` whose labels are marks: 1, 0, or -1 where nothing is known.
        tokenize: Texts -> (n, L) int32.
        pairs: {class name: (text with it, text without it)}, for each class of the data.
    """

    data: Any
    tokenize: Tokenize
    pairs: Mapping[str, tuple[str, str]]

    def bind(self, task: Task, placement: Any) -> Callable[[TrainState, Any], dict[str, float]]:
        """Compiles for a task and a `sharding.Placement`; returns run(state,
        frozen) -> {name: value}.
        """
        check_predicts(task, "features", type(self).__name__)
        _check(self)
        names = self.data.class_names
        missing = [name for name in names if name not in self.pairs]
        if missing:
            raise UserError(
                f"pairs lack {len(missing)} classes of the data set, {missing[0]!r} for example"
            )
        texts = list(dict.fromkeys(text for name in names for text in self.pairs[name]))
        places = np.array([[texts.index(text) for text in self.pairs[name]] for name in names])
        extract = features.extractor(task, placement, self.data)
        encoder = features.text_encoder(task, placement)
        batch_size = placement.round_up(len(texts))

        def run(state: TrainState, frozen: Any) -> dict[str, float]:
            found = extract(state, frozen)
            encoded = features.encode_texts(
                encoder(state, frozen), self.tokenize, texts, batch_size
            )
            nearness = found["image_features"] @ encoded.T
            scores = nearness[:, places[:, 0]] - nearness[:, places[:, 1]]
            return mark_scores(scores, found["label"], names) | left_out(self.data, len(scores))

        return run


def mark_scores(
    scores: np.ndarray, label: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, float]:
    """The figures of each class of records with several labels.

    Args:
        scores: (N, C) floating point, positive where the class is there.
        label: (N, C): 1 where it is there, 0 where not, -1 where that is not known.
        class_names: C of them.

    Returns:
        For each class '<name>/accuracy', the share of known marks that are right (a score that is
        NaN never is), and '<name>/auc', its `metrics.roc_auc` if it both occurs and does not;
        'accuracy', the mean of the former over the classes, and 'least_accuracy', the least of
        them.

    Raises:
        UserError: Nothing is known of a class.
    """
    results, each = {}, []
    for name, score, marks in zip(class_names, scores.T, label.T):
        known = marks >= 0
        if not known.any():
            raise UserError(f"the data set has no record that tells whether it is {name!r}")
        positive = marks[known] > 0
        is_right = ((score[known] > 0) == positive) & ~np.isnan(score[known])
        each.append(float(is_right.mean()))
        results[f"{name}/accuracy"] = each[-1]
        if positive.any() and not positive.all():
            results[f"{name}/auc"] = metrics.roc_auc(score[known], positive)
    return results | {"accuracy": float(np.mean(each)), "least_accuracy": min(each)}


def _check(evaluation: MarkAccuracy | TextPairs) -> None:
    if not evaluation.data.multi_label:
        raise UserError(
            f"{type(evaluation).__name__} evaluates records with several labels; "
            "these have one each"
        )
