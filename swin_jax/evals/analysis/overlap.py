"""Data-overlap analysis: near-duplicates between training and evaluation data,
and what they do to accuracy.

CLIP (arXiv 2103.00020), section 5: an evaluation set is split at a threshold on the similarity to
the nearest training image into Overlap and Clean; the effect is accuracy on All minus accuracy on
Clean, with a one-tailed binomial test, a Clopper-Pearson interval, and Bonferroni's correction over
data sets. The reference of the statistics is scipy.

CLIP's own features are about content rather than about the single picture; `difference_hash` is a
first pass that needs no model.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.output import plots
from swin_jax.core.ranges import (
    FiniteFloat,
    Fraction,
    NonNegativeInt,
    OpenFraction,
    PositiveInt,
    checked,
)


@jax.jit
def _best(
    queries: jax.Array, reference: jax.Array, valid: jax.Array
) -> tuple[jax.Array, jax.Array]:
    scores = jnp.matmul(queries, reference.T, precision=jax.lax.Precision.HIGHEST)
    scores = jnp.where(valid[None, :], scores, -jnp.inf)
    return scores.max(axis=-1), scores.argmax(axis=-1)


@checked
def nearest(
    queries: np.ndarray,
    reference: np.ndarray,
    query_chunk: PositiveInt = 1024,
    reference_chunk: PositiveInt = 16384,
) -> tuple[np.ndarray, np.ndarray]:
    """The most similar reference row of each query.
    Only one chunk of similarities exists at a time.

    Args:
        queries: (N, E) of unit length, of the evaluation set.
        reference: (M, E) of unit length, of the training set;
            a memory map may be larger than memory.
        query_chunk: Queries at a time.
        reference_chunk: Reference rows at a time.

    Returns:
        (similarity (N,) float32, index (N,) int64); of equal ones the first.

    Raises:
        UserError: Widths that differ, or nothing to compare with.
    """
    if queries.shape[-1] != reference.shape[-1] or not len(reference):
        raise UserError(
            f"features of shape {queries.shape} cannot be compared with {reference.shape}"
        )
    similarity, index = np.full(len(queries), -np.inf, np.float32), np.zeros(len(queries), np.int64)
    reference_chunk = min(reference_chunk, len(reference))
    for first in range(0, len(reference), reference_chunk):
        rows = _filled(reference[first : first + reference_chunk], reference_chunk)
        valid = np.arange(reference_chunk) < len(reference) - first
        rows = jnp.asarray(rows)
        for start in range(0, len(queries), query_chunk):
            part = slice(start, start + query_chunk)
            found, place = _best(_filled(queries[part], query_chunk), rows, valid)
            found, place = (np.asarray(x)[: len(queries) - start] for x in (found, place))
            better = found > similarity[part]
            similarity[part] = np.where(better, found, similarity[part])
            index[part] = np.where(better, place + first, index[part])
    return similarity, index


def _filled(rows: np.ndarray, count: int) -> np.ndarray:
    """Rows filled up with zeros, so that one compiled program does."""
    rows = np.asarray(rows, np.float32)
    return np.concatenate([rows, np.zeros((count - len(rows), rows.shape[-1]), np.float32)])


@checked
def difference_hash(images: np.ndarray, size: PositiveInt = 8) -> np.ndarray:
    """A perceptual hash of images as unit vectors,
    so that `nearest` finds near-duplicates without a model.

    Bit (y, x) says whether cell x + 1 of the gray picture, averaged to size rows and size + 1
    columns, is brighter than cell x. Vectors that differ in d of the size^2 bits have similarity
    1 - 2 d / size^2.

    Args:
        images: (N, H, W, C) uint8, H >= size, W > size.
        size: 8 gives the usual 64 bits.

    Returns:
        (N, size^2) float32.
    """
    if images.shape[1] < size or images.shape[2] <= size:
        raise UserError(
            f"images of {images.shape[1]}x{images.shape[2]} are too small for a "
            f"hash of {size}x{size} bits"
        )
    cells = images.astype(np.float32).mean(axis=-1)
    for axis, count in ((1, size), (2, size + 1)):
        edges = np.linspace(0, cells.shape[axis], count + 1).round().astype(int)
        widths = np.diff(edges).reshape([-1 if a == axis else 1 for a in range(3)])
        cells = np.add.reduceat(cells, edges[:-1], axis=axis) / widths
    bits = np.diff(cells, axis=2) > 0
    return (np.where(bits, 1, -1) / size).astype(np.float32).reshape(len(images), -1)


def exact_duplicates(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(N,) bool, True for images (N, H, W,
    C) that equal a reference image (M, H, W, C) in every pixel.
    """
    seen = {hashlib.sha256(np.ascontiguousarray(image)).digest() for image in reference}
    return np.array(
        [hashlib.sha256(np.ascontiguousarray(image)).digest() in seen for image in images], bool
    )


@checked
def choose_threshold(
    similarity: np.ndarray, duplicate: np.ndarray, precision: Fraction = 0.99
) -> float:
    """The threshold that finds the most duplicates while keeping a precision.

    Args:
        similarity: (n,) of pairs that were looked at.
        duplicate: (n,) bool: what was seen.
        precision: Least share of true duplicates among the pairs at or above
            the threshold, in 0..1.

    Returns:
        A similarity, to be compared by >=.

    Raises:
        UserError: No threshold is that precise.
    """
    order = np.argsort(-np.asarray(similarity), kind="stable")
    ordered, hits = np.asarray(similarity)[order], np.cumsum(np.asarray(duplicate, bool)[order])
    last = np.append(np.diff(ordered) != 0, True) if len(ordered) else np.zeros(0, bool)
    good = last & (hits >= precision * np.arange(1, len(ordered) + 1)) & (hits > 0)
    if not good.any():
        raise UserError(
            f"no threshold has a precision of {precision}: look at more pairs, or ask for less"
        )
    found = np.flatnonzero(good)
    return float(ordered[found[np.argmax(hits[found])]])


@checked
def clopper_pearson(
    successes: NonNegativeInt, trials: NonNegativeInt, confidence: OpenFraction = 0.995
) -> tuple[float, float]:
    """The exact two-sided interval of a binomial probability.

    Args:
        successes: k.
        trials: n; 0 gives (0, 1).
        confidence: 1 - alpha; CLIP uses 0.995 for overlap.
    """
    from scipy.special import betaincinv

    half, failures = (1 - confidence) / 2, trials - successes
    low = float(betaincinv(successes, failures + 1, half)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, failures, 1 - half)) if failures > 0 else 1.0
    return low, high


@checked
def binomial_test(
    successes: NonNegativeInt, trials: NonNegativeInt, probability: Fraction
) -> float:
    """One-tailed p-value: the chance of at least so many successes if each has this probability."""
    from scipy.special import betainc

    if successes <= 0:
        return 1.0
    return float(betainc(successes, trials - successes + 1, probability))


@dataclasses.dataclass(frozen=True)
class Overlap:
    """One row of the report; accuracies in 0..1, nan where there are no examples.

    Attributes:
        name: Data set.
        count: Number of all examples.
        overlap: Examples whose nearest training image is at or above the threshold.
        threshold: Similarity from which on an image is a duplicate.
        accuracy: Accuracy on all examples.
        clean: Accuracy below the threshold.
        overlapped: Accuracy at or above it.
        p_value: One-tailed p-value by `binomial_test` of the right answers in the overlap, with
            `clean` as their probability.
        interval: Clopper-Pearson interval of `overlapped`.
    """

    name: str
    count: int
    overlap: int
    threshold: float
    accuracy: float
    clean: float
    overlapped: float
    p_value: float
    interval: tuple[float, float]

    @property
    def effect(self) -> float:
        """Accuracy on all minus on clean: what the overlap adds to the reported figure."""
        return self.accuracy - self.clean


@checked
def analyze(
    name: str,
    correct: np.ndarray,
    similarity: np.ndarray,
    threshold: FiniteFloat,
    confidence: OpenFraction = 0.995,
) -> Overlap:
    """The overlap of one data set and its effect on accuracy.

    Args:
        name: Data set.
        correct: (N,) bool, whether each example is classified rightly.
        similarity: (N,) to the nearest training image.
        threshold: Similarity from which on, itself included, an image is a duplicate.
        confidence: Confidence level of the interval.
    """
    correct, similarity = np.asarray(correct, bool), np.asarray(similarity)
    if len(correct) != len(similarity) or not len(correct):
        raise UserError(
            f"{len(correct)} results and {len(similarity)} similarities "
            "must be of the same examples"
        )
    over = similarity >= threshold
    hits, count = int(correct[over].sum()), int(over.sum())
    clean = float(correct[~over].mean()) if count < len(correct) else float("nan")
    return Overlap(
        name=name,
        count=len(correct),
        overlap=count,
        threshold=float(threshold),
        accuracy=float(correct.mean()),
        clean=clean,
        overlapped=hits / count if count else float("nan"),
        p_value=binomial_test(hits, count, clean) if count < len(correct) else float("nan"),
        interval=clopper_pearson(hits, count, confidence),
    )


def bonferroni(p_values: Sequence[float]) -> np.ndarray:
    """p-values corrected for their number: min(1, n p), (n,) float64."""
    return np.minimum(1.0, len(p_values) * np.asarray(p_values, np.float64))


@checked
def table(results: Sequence[Overlap], alpha: Fraction = 0.05) -> str:
    """A markdown table of several data sets; 'significant' is after Bonferroni's
    correction at level alpha.
    """
    lines = [
        "| data set | all | overlap | share | acc. all | acc. clean | acc. overlap | interval | "
        "all - clean | p | significant |",
        "|---|--:|--:|--:|--:|--:|--:|---|--:|--:|---|",
    ]
    for x, corrected in zip(results, bonferroni([x.p_value for x in results])):
        low, high = x.interval
        lines.append(
            f"| {x.name} | {x.count} | {x.overlap} | {x.overlap / x.count:.1%} | {x.accuracy:.1%} "
            f"| {x.clean:.1%} | {x.overlapped:.1%} | {low:.1%} to {high:.1%} | "
            f"{100 * x.effect:+.2f} | {x.p_value:.2g} | {'yes' if corrected < alpha else 'no'} |"
        )
    return "\n".join(lines)


def plot(results: Sequence[Overlap], path: str | os.PathLike) -> None:
    """Draws CLIP's Figure 17: accuracy on overlap minus clean with its interval,
    and on all minus clean.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    for x in (x for x in results if x.overlap and np.isfinite(x.clean)):
        share, difference = 100 * x.overlap / x.count, 100 * (x.overlapped - x.clean)
        bars = [[100 * (x.overlapped - x.interval[0])], [100 * (x.interval[1] - x.overlapped)]]
        left.errorbar([share], [difference], yerr=bars, fmt="o", capsize=3)
        beside = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 8}
        left.annotate(x.name, (share, difference), **beside, parse_math=False)
        right.plot([share], [100 * x.effect], "o")
        right.annotate(x.name, (share, 100 * x.effect), **beside, parse_math=False)
    for axes, title in ((left, "accuracy on overlap - clean"), (right, "accuracy on all - clean")):
        axes.axhline(0, color="gray", linewidth=0.8)
        axes.set(xlabel="share of overlap (%)", ylabel="points")
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    with plots.quiet_glyphs():
        figure.savefig(path, dpi=120)


def sheet(
    images: np.ndarray,
    reference: np.ndarray,
    similarity: np.ndarray,
    index: np.ndarray,
    path: str | os.PathLike,
    threshold: float | None = None,
    pairs: int = 24,
) -> np.ndarray:
    """Draws evaluation images beside their nearest training images,
    to choose or to check a threshold by eye.

    Args:
        images: (N, H, W, C) uint8.
        reference: (M, H, W, C) uint8.
        similarity: (N,) of `nearest`.
        index: (N,) of `nearest`.
        path: Path of the picture.
        threshold: None shows pairs spread over all similarities,
            else the ones that are closest to it.
        pairs: Number of pairs.

    Returns:
        The numbers of the images on the sheet, from the most similar on.
    """
    from matplotlib.figure import Figure

    order = np.argsort(-similarity, kind="stable")
    if threshold is None:
        shown = order[np.unique(np.linspace(0, len(order) - 1, min(pairs, len(order))).astype(int))]
    else:
        close = np.argsort(np.abs(similarity[order] - threshold), kind="stable")[:pairs]
        shown = order[np.sort(close)]
    columns = min(6, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.2 * columns, 1.4 * rows), layout="constrained")
    for place, number in enumerate(shown):
        axes = figure.add_subplot(rows, columns, place + 1)
        both = np.concatenate([images[number], reference[index[number]]], axis=1)
        axes.imshow(both.squeeze(), cmap="gray" if both.shape[-1] == 1 else None, vmin=0, vmax=255)
        axes.set_title(f"{number}: {similarity[number]:.3f}", fontsize=7)
        axes.set_axis_off()
    figure.savefig(path, dpi=120)
    return shown
