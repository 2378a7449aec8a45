"""Robustness to natural distribution shift: label subsets, ObjectNet, effective and relative
robustness, and a report.

CLIP (arXiv 2103.00020), section 3.3, after Taori et al. (arXiv 2007.00644): over ordinary models,
accuracy under shift is a line in accuracy in the domain, both on the logit scale; effective
robustness is what a model has above that line, and relative robustness what a change to a model
gains under shift. The report works for any pair of sets.
"""

import dataclasses
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.output import plots


def _ranges(text: str) -> tuple[int, ...]:
    """Numbers from text such as '3 5-7'."""
    parts = [[int(end) for end in part.split("-")] for part in text.split()]
    return tuple(number for ends in parts for number in range(ends[0], ends[-1] + 1))


# Of the 1000 classes of ImageNet, those of ImageNet-A and ImageNet-R,
# whose labels 0..199 are in this order.
IMAGENET_A = _ranges(
    "6 11 13 15 17 22 23 27 30 37 39 42 47 50 57 70 71 76 79 89 90 94 96 97 99 105 107 108 110 "
    "113 124 125 130 132 143 144 150 151 207 234 235 254 277 283 287 291 295 298 301 306-311 "
    "313-315 317 319 323 324 326 327 330 334-336 347 361 363 372 378 386 397 400-402 404 407 411 "
    "416 417 420 425 428 430 437 438 445 456 457 461 462 470 472 483 486 488 492 496 514 516 528 "
    "530 539 542 543 549 552 557 561 562 569 572 573 575 579 589 606 607 609 614 626 627 640-643 "
    "658 668 677 682 684 687 701 704 719 736 746 749 752 758 763 765 768 773 774 776 779 780 786 "
    "792 797 802-804 813 815 820 823 831 833 835 839 845 847 850 859 862 870 879 880 888 890 897 "
    "900 907 913 924 932-934 937 943 945 947 951 954 956 957 959 971 972 980 981 984 986-988"
)

IMAGENET_R = _ranges(
    "1 2 4 6 8 9 11 13 22 23 26 29 31 39 47 63 71 76 79 84 90 94 96 97 99 100 105 107 113 122 125 "
    "130 132 144 145 147 148 150 151 155 160-163 171 172 178 187 195 199 203 207 208 219 231 232 "
    "234 235 242 245 247 250 251 254 259 260 263 265 267 269 276 277 281 288 289 291-293 296 299 "
    "301 308-311 314 315 319 323 327 330 334 335 337 338 340 341 344 347 353 355 361 362 365-368 "
    "372 388 390 393 397 401 407 413 414 425 428 430 435 437 441 447 448 457 462 463 469-472 476 "
    "483 487 515 546 555 558 570 579 583 587 593 594 596 609 613 617 621 629 637 657 658 701 717 "
    "724 763 768 774 776 779 780 787 805 812 815 820 824 833 847 852 866 875 883 889 895 907 928 "
    "931-934 936 937 943 945 947-949 951 953 954 957 963 965 967 980 981 983 988"
)

# OpenAI's weights, evaluated by open_clip: 1000-way prompts and label subsets,
# ObjectNet with its own names.
DATASETS = ("imagenet", "imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch", "objectnet")
OPENAI_CLIP = {
    "RN50": (0.5982, 0.5284, 0.2327, 0.6073, 0.3544, 0.4141),
    "RN101": (0.6228, 0.5612, 0.2944, 0.6817, 0.4106, 0.4515),
    "RN50x4": (0.6627, 0.5944, 0.4145, 0.7274, 0.4468, 0.5141),
    "RN50x16": (0.7072, 0.642, 0.5724, 0.7933, 0.5063, 0.6071),
    "RN50x64": (0.7391, 0.6706, 0.7077, 0.8441, 0.5593, 0.682),
    "ViT-B/32": (0.6332, 0.5592, 0.3155, 0.6933, 0.4229, 0.4431),
    "ViT-B/16": (0.6834, 0.6188, 0.4995, 0.777, 0.4824, 0.5531),
    "ViT-L/14": (0.7554, 0.6983, 0.7075, 0.8784, 0.5959, 0.6889),
    "ViT-L/14@336": (0.7656, 0.7089, 0.7748, 0.8905, 0.61, 0.7183),
}


def crop_border(image: np.ndarray, pixels: int = 2) -> np.ndarray:
    """Cuts off ObjectNet's red border: (H, W, C) -> (H - 2 pixels, W - 2 pixels, C).

    Raises:
        UserError: An image that is nothing but border.
    """
    if min(image.shape[:2]) <= 2 * pixels:
        raise UserError(
            f"an image of {image.shape[0]}x{image.shape[1]} is all border at {pixels} pixels"
        )
    return image[pixels : image.shape[0] - pixels, pixels : image.shape[1] - pixels]


@dataclasses.dataclass(frozen=True)
class ObjectNetClass:
    """A class of ObjectNet that ImageNet has too.

    Attributes:
        folder: Folder of its images.
        name: Name for prompts, in lower case.
        imagenet: Numbers of its classes among ImageNet's 1000.
    """

    folder: str
    name: str
    imagenet: tuple[int, ...]


def objectnet_classes(mappings: str | os.PathLike) -> tuple[ObjectNetClass, ...]:
    """The 113 classes of ObjectNet that overlap with ImageNet, sorted by folder;
    their order is that of the labels.

    Args:
        mappings: The folder `mappings` of ObjectNet's archive.

    Raises:
        UserError: Files that are absent or do not fit together.
    """
    folder = Path(mappings)
    try:
        labels = json.loads((folder / "folder_to_objectnet_label.json").read_text())
        to_imagenet = json.loads((folder / "objectnet_to_imagenet_1k.json").read_text())
        numbers = json.loads((folder / "pytorch_to_imagenet_2012_id.json").read_text())
        lines = (folder / "imagenet_to_label_2012_v2").read_text().splitlines()
        folder_of = {name: own for own, name in labels.items()}
        number_of = {int(line): int(number) for number, line in numbers.items()}
        class_of = {line.strip(): number_of[place] for place, line in enumerate(lines)}
        found = [
            ObjectNetClass(
                folder_of[name], name.lower(), tuple(class_of[own] for own in names.split("; "))
            )
            for name, names in to_imagenet.items()
        ]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder} does not hold ObjectNet's mappings ({type(error).__name__}: {error}); "
            "give the folder `mappings` of its archive"
        ) from error
    return tuple(sorted(found, key=lambda x: x.folder))


def accuracy_by_any(
    scores: np.ndarray, label: np.ndarray, groups: Sequence[Collection[int]]
) -> float:
    """Accuracy where a class stands for several columns:
    right if the best of the columns in use is one of its own.

    ObjectNet through ImageNet's classes is this.

    Args:
        scores: (N, 1000).
        label: (N,) int, a number of `groups`.
        groups: The columns of each class; columns of no class are left out.
    """
    used = np.array(sorted({column for group in groups for column in group}))
    best = used[scores[:, used].argmax(axis=-1)]
    return float(np.mean([column in groups[own] for column, own in zip(best, label)]))


def accuracy_of_sets(prediction: np.ndarray, labels: Sequence[Collection[int]]) -> float:
    """ReaL accuracy: right if the prediction is one of the image's labels;
    images without any are left out.
    """
    right = [own in allowed for own, allowed in zip(prediction, labels) if len(allowed)]
    if not right:
        raise UserError("no image has a label")
    return float(np.mean(right))


def worst_case_accuracy(correct: np.ndarray, frames: np.ndarray) -> float:
    """Accuracy of anchor frames where all frames of a window must be right (PM-10 of
    the robust video sets).

    Args:
        correct: (F,) bool, of each frame.
        frames: (F,) number of the anchor whose window a frame is in;
            every window of one frame gives PM-0.
    """
    _, window = np.unique(frames, return_inverse=True)
    wrong = np.bincount(window, weights=~np.asarray(correct, bool))
    return float(np.mean(wrong == 0))


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One model on one pair of sets.

    Attributes:
        model: Name of the model.
        shift: Name of the shifted set.
        in_domain: Accuracy on the original set, over the classes that the shifted one has, in 0..1.
        shifted: Accuracy on the shifted set, in 0..1.
        base: Name of the model that this one is a change of, for relative robustness; '' for none.
    """

    model: str
    shift: str
    in_domain: float
    shifted: float
    base: str = ""


@dataclasses.dataclass(frozen=True)
class Line:
    """logit(shifted) = slope * logit(in domain) + intercept."""

    slope: float
    intercept: float

    def expected(self, in_domain: np.ndarray) -> np.ndarray:
        """Accuracy under shift that goes with an accuracy in the domain, both in 0..1."""
        return 1 / (1 + np.exp(-(self.slope * logit(in_domain) + self.intercept)))


def logit(accuracy: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), with p kept within 0.0001 and 0.9999."""
    accuracy = np.clip(np.asarray(accuracy, np.float64), 1e-4, 1 - 1e-4)
    return np.log(accuracy) - np.log1p(-accuracy)


def fit(in_domain: Sequence[float], shifted: Sequence[float]) -> Line:
    """The least-squares line through ordinary models on the logit scale.

    Raises:
        UserError: Fewer than two different accuracies.
    """
    x, y = logit(in_domain), logit(shifted)
    if len(x) != len(y) or np.unique(x).size < 2:
        raise UserError("a line needs at least two baselines of different accuracy in the domain")
    slope, intercept = np.polyfit(x, y, 1)
    return Line(float(slope), float(intercept))


@dataclasses.dataclass(frozen=True)
class Robustness:
    """One row of the report.

    Attributes:
        measurement: The measurement.
        expected: Accuracy under shift of an ordinary model of that accuracy in the domain.
        effective: Measured minus expected accuracy.
        relative: Accuracy under shift minus that of the base model, or None.
    """

    measurement: Measurement
    expected: float
    effective: float
    relative: float | None


def report(
    measurements: Sequence[Measurement], baselines: Sequence[Measurement]
) -> list[Robustness]:
    """Effective and relative robustness of models on any number of shifts.

    Args:
        measurements: The models in question.
        baselines: Ordinary models, at least two on each of the shifts.

    Raises:
        UserError: A shift with too few baselines, or a base that was not measured on it.
    """
    lines = lines_of(measurements, baselines)
    shifted = {(x.model, x.shift): x.shifted for x in (*baselines, *measurements)}
    rows = []
    for x in measurements:
        if x.base and (x.base, x.shift) not in shifted:
            raise UserError(
                f"{x.base!r}, of which {x.model!r} is a change, was not measured on {x.shift!r}"
            )
        expected = float(lines[x.shift].expected(x.in_domain))
        relative = x.shifted - shifted[x.base, x.shift] if x.base else None
        rows.append(Robustness(x, expected, x.shifted - expected, relative))
    return rows


def lines_of(
    measurements: Sequence[Measurement], baselines: Sequence[Measurement]
) -> dict[str, Line]:
    """The fitted line of each shift that was measured."""
    lines = {}
    for shift in dict.fromkeys(x.shift for x in measurements):
        own = [x for x in baselines if x.shift == shift]
        try:
            lines[shift] = fit([x.in_domain for x in own], [x.shifted for x in own])
        except UserError as error:
            raise UserError(f"{shift}: {error}") from error
    return lines


def table(rows: Sequence[Robustness]) -> str:
    """A markdown table, and where a model has several shifts a line with its averages."""
    lines = [
        "| model | shift | in domain | shifted | expected | effective | relative |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for model in dict.fromkeys(row.measurement.model for row in rows):
        own = [row for row in rows if row.measurement.model == model]
        lines += [_line(row) for row in own]
        if len(own) > 1:
            lines.append(_line(_mean(own)))
    return "\n".join(lines)


def _mean(rows: Sequence[Robustness]) -> Robustness:
    """The averages of one model over its shifts."""
    in_domain = float(np.mean([row.measurement.in_domain for row in rows]))
    shifted = float(np.mean([row.measurement.shifted for row in rows]))
    expected = float(np.mean([row.expected for row in rows]))
    relative = [row.relative for row in rows if row.relative is not None]
    return Robustness(
        Measurement(rows[0].measurement.model, "mean", in_domain, shifted),
        expected,
        shifted - expected,
        float(np.mean(relative)) if len(relative) == len(rows) else None,
    )


def _line(row: Robustness) -> str:
    x = row.measurement
    relative = "" if row.relative is None else f"{100 * row.relative:+.1f}"
    return (
        f"| {x.model} | {x.shift} | {x.in_domain:.1%} | {x.shifted:.1%} | {row.expected:.1%} "
        f"| {100 * row.effective:+.1f} | {relative} |"
    )


def plot(
    measurements: Sequence[Measurement], baselines: Sequence[Measurement], path: str | os.PathLike
) -> None:
    """Draws a panel per shift on logit axes: baselines with their line, y = x,
    and the models in question.
    """
    from matplotlib.figure import Figure

    lines = lines_of(measurements, baselines)
    columns = min(3, len(lines))
    rows = -(-len(lines) // columns)
    figure = Figure(figsize=(4.4 * columns, 4 * rows), layout="constrained")
    for place, (shift, line) in enumerate(lines.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        ordinary = [x for x in baselines if x.shift == shift]
        own = [x for x in measurements if x.shift == shift]
        low, high = (pick([x.in_domain for x in (*ordinary, *own)]) for pick in (min, max))
        across = np.linspace(max(low * 0.8, 1e-3), min(high * 1.1, 0.999), 100)
        axes.plot(across, across, color="gray", linewidth=0.8, linestyle=":", label="y = x")
        expected = line.expected(across)
        expected = np.where((expected > 1e-3) & (expected < 0.999), expected, np.nan)
        axes.plot(across, expected, color="C0", linewidth=1, label="fit of baselines")
        axes.plot(
            [x.in_domain for x in ordinary],
            [x.shifted for x in ordinary],
            "o",
            color="C0",
            markersize=4,
        )
        handles, names = axes.get_legend_handles_labels()
        for number, model in enumerate(dict.fromkeys(x.model for x in own)):
            points = [x for x in own if x.model == model]
            style = {"color": f"C{1 + number % 9}", "markersize": 8}
            handles += axes.plot(
                [x.in_domain for x in points], [x.shifted for x in points], "*", **style
            )
            names.append(plots.plain(model))
        axes.set(
            xscale="logit",
            yscale="logit",
            xlabel="accuracy in the domain",
            ylabel=plots.plain(f"accuracy on {shift}"),
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{100 * value:.6g}%")
            axis.set_minor_formatter(lambda value, _: "")
        axes.grid(alpha=0.3)
        # Handed over, since labels that begin with an underscore are left out otherwise.
        axes.legend(handles, names, fontsize=8, frameon=False)
    with plots.quiet_glyphs():
        figure.savefig(path, dpi=120)
