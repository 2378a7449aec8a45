"""Figures of classification as CLIP (arXiv 2103.00020, Table 9) reports them,
from features and a linear classifier.

The references are scikit-learn's metrics and the VOC2007 development kit.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.evals import features

# What CLIP's Table 9 reports where it is not accuracy;
# 'top1' and 'mean_..' are keys of `top_scores`.
METRICS = {
    **{
        "fgvc_aircraft": "mean_per_class",
        "oxford_pets": "mean_per_class",
        "caltech101": "mean_per_class",
    },
    **{"flowers102": "mean_per_class", "voc2007": "map_11_points", "kinetics700": "mean_top1_top5"},
    **{"hateful_memes": "roc_auc"},
}


def metric(dataset: str) -> str:
    """The figure that CLIP reports for a data set: 'top1' or a value of `METRICS`."""
    return METRICS.get(dataset, "top1")


def evaluate(
    image_features: np.ndarray,
    label: np.ndarray,
    weights: np.ndarray,
    dataset: str = "",
    scale: float = 100.0,
) -> dict[str, float]:
    """All figures that fit a data set, `metric(dataset)` among them.

    Args:
        image_features: (N, E).
        label: (N,) int in 0..C-1, or (N, C) of `mean_average_precision`.
        weights: (E, C).
        dataset: A name in `METRICS`.
        scale: Scale of the logits where probabilities are ranked.

    Returns:
        'map_11_points' of multi-label sets, else `top_scores`,
        and 'roc_auc' of the second of two classes.
    """
    if np.ndim(label) == 2:
        return {"map_11_points": mean_average_precision(image_features, label, weights, scale)}
    rank, _ = rank_labels(image_features, label, weights)
    results = top_scores(rank, label, weights.shape[1])
    if metric(dataset) == "roc_auc":
        logits = scale * features.normalize(image_features) @ weights
        results["roc_auc"] = roc_auc(logits[:, 1] - logits[:, 0], label == 1)
    return results


@jax.jit
def _ranks(
    image_features: jax.Array, label: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(rank of the label, best class) of each row;
    ties go to the lower class, NaN counts as larger than everything.
    """
    scores = jnp.matmul(image_features, weights, precision=jax.lax.Precision.HIGHEST)
    own = jnp.take_along_axis(scores, label[:, None], axis=-1)
    tied_before = (scores == own) & (jnp.arange(scores.shape[-1])[None, :] < label[:, None])
    return (~(scores <= own) | tied_before).sum(axis=-1), scores.argmax(axis=-1)


@checked
def rank_labels(
    image_features: np.ndarray, label: np.ndarray, weights: np.ndarray, chunk: PositiveInt = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """The rank of the right class among all, for any number of images:
    only (chunk, C) scores exist at a time.

    Args:
        image_features: (N, E); their length does not matter.
        label: (N,) int in 0..C-1.
        weights: (E, C).
        chunk: Images at a time.

    Returns:
        (rank (N,), prediction (N,)) int; rank 0 is right, rank < k is among the top k.
        Equal scores rank by class.

    Raises:
        UserError: Widths that differ, or no images.
    """
    if image_features.shape[-1] != weights.shape[0]:
        raise UserError(
            f"image features have {image_features.shape[-1]} numbers, "
            f"the classifier {weights.shape[0]}: they come from different models"
        )
    if not len(label):
        raise UserError("there are no images to classify")
    rank, prediction = np.zeros(len(label), np.int64), np.zeros(len(label), np.int64)
    weights = jnp.asarray(weights)
    for start in range(0, len(label), chunk):
        part = slice(start, start + chunk)
        # One shape, so that one program does.
        index = np.minimum(np.arange(start, start + chunk), len(label) - 1)
        found = _ranks(image_features[index], np.asarray(label)[index].astype(np.int32), weights)
        rank[part], prediction[part] = (np.asarray(x)[: len(label) - start] for x in found)
    return rank, prediction


def top_scores(rank: np.ndarray, label: np.ndarray, num_classes: int) -> dict[str, float]:
    """The figures of a single-label data set.

    Args:
        rank: (N,) int of `rank_labels`.
        label: (N,) int in 0..C-1.
        num_classes: C.

    Returns:
        'top1', 'top5' (top-min(5, C), under that name), 'mean_per_class' over the classes that have
        examples, and 'mean_top1_top5', in 0..1.
    """
    right = rank == 0
    count = np.bincount(label, minlength=num_classes)
    per_class = (
        np.bincount(label, weights=right, minlength=num_classes)[count > 0] / count[count > 0]
    )
    top = min(5, num_classes)
    top1, top5 = float(right.mean()), float((rank < top).mean())
    return {
        "top1": top1,
        f"top{top}": top5,
        "mean_per_class": float(per_class.mean()),
        "mean_top1_top5": (top1 + top5) / 2,
    }


def roc_auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores higher than a negative,
    ties counted half.

    Args:
        score: (N,) floating point, for Hateful Memes the probability of the hateful class.
        positive: (N,) bool.

    Raises:
        UserError: Only positives, or only negatives.
    """
    from scipy.stats import rankdata

    positive = np.asarray(positive, bool)
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        raise UserError("the area under the ROC curve needs positive and negative examples")
    return float((rankdata(score)[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def average_precision_11_points(score: np.ndarray, positive: np.ndarray) -> float:
    """Average precision of VOC2007: the mean over recalls 0, 0.1,
    .. 1 of the best precision at that recall or higher.

    Args:
        score: (N,) floating point; equal scores are counted together.
        positive: (N,) bool.

    Returns:
        The precision, NaN where a score is.
    """
    precision, recall = _curve(score, positive)
    if np.isnan(score).any():
        return math.nan
    return float(
        np.mean([precision[recall >= level - 1e-9].max() for level in np.linspace(0, 1, 11)])
    )


def _curve(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(precision, recall) at each different score, the highest first."""
    order = np.argsort(-np.asarray(score), kind="stable")
    hits = np.cumsum(np.asarray(positive, bool)[order])
    if not len(hits) or not hits[-1]:
        raise UserError("average precision needs positive examples")
    last = np.append(np.diff(np.asarray(score)[order]) != 0, True)
    return hits[last] / (np.flatnonzero(last) + 1), hits[last] / hits[-1]


def mean_average_precision(
    image_features: np.ndarray, label: np.ndarray, weights: np.ndarray, scale: float = 100.0
) -> float:
    """The 11-point mAP of a multi-label set. Scores are softmaxed over the classes first,
    which CLIP's figure needs.

    Args:
        image_features: (N, E).
        label: (N, C): 1 where the class is there, 0 where not,
            -1 where it does not count (VOC's 'difficult').
        weights: (E, C).
        scale: Scale of the logits.
    """
    logits = scale * features.normalize(image_features) @ weights
    probabilities = np.asarray(jax.nn.softmax(logits, axis=-1))
    counts = label >= 0
    each = [
        average_precision_11_points(p[c], y[c] > 0)
        for p, y, c in zip(probabilities.T, label.T, counts.T)
    ]
    return float(np.mean(each))


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """The area under the curve of precision over recall, summed in steps (scikit-learn's
    `average_precision_score`).

    Args:
        score: (N,) floating point; equal scores are counted together.
        positive: (N,) bool.

    Returns:
        The area, NaN where a score is.
    """
    precision, recall = _curve(score, positive)
    if np.isnan(score).any():
        return math.nan
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def multi_label_scores(scores: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """The figure of records with several labels each.

    Args:
        scores: (N, C) floating point, the higher the likelier;
            only their order within a class counts.
        label: (N, C): 1 where the class is there, 0 where not, -1 where that is not known.

    Returns:
        {'map': the mean of `average_precision` over the classes that occur}.

    Raises:
        UserError: No class occurs.
    """
    occurring = np.flatnonzero((label > 0).any(axis=0))
    if not len(occurring):
        raise UserError("mean average precision needs records with a label; none of these has one")
    known = label >= 0
    each = [average_precision(scores[known[:, c], c], label[known[:, c], c] > 0) for c in occurring]
    return {"map": float(np.mean(each))}
