"""The evaluation suite on the models of clip_emoji.py: zero-shot, robustness, linear probe,
overlap; tables and plots.

    python experiments/studies/clip_emoji.py --data_dir=data --out=runs/clip_emoji_report \
        --workdirs runs/clip_emoji_0 runs/clip_emoji_1 runs/clip_emoji_2

zero-shot: top-1 among the 1,571 common names, median of the runs; beside it the nearest training
drawing by its pixels (20 x 20, mean removed, cosine). A group or sub-group is right where the name
that is chosen belongs to it.

robustness: in the domain are the training drawings of common concepts, moved, zoomed and turned
(fixed seed); under shift the seen concepts in styles without training. The line through models that
see pixels only (nearest neighbors and nearest class means at several resolutions) says what to
expect; effective robustness is what is above it. The probe is a ridge regression on the features of
the first run, with a class for each seen concept; its base is zero-shot.

linear probe: logistic regressions on the features of the first run, trained on the training
drawings, to tell 9 groups and their sub-groups in the new styles; lambda is chosen on a fifth of
the concepts. L-BFGS stops after --iterations, 1,000 in the paper.

few-shot: logistic regressions on a few training drawings of each group, three draws;
the stars are zero-shot.

sub-groups: the FairFace protocol with emoji of people in place of portraits: accuracy of the name,
and of who is shown, for drawings of a man, a woman or a person; how often a name of a man or a
woman is given to each. Median run.

overlap: a drawing in a new style counts as overlap where its pixels (32 x 32, mean removed) have a
cosine of at least 0.95 with some training drawing; overlap.png shows pairs about this threshold.
"""

import argparse
import dataclasses
import functools
import pathlib
import statistics

import jax
import numpy as np
from PIL import Image

import swin_jax
from swin_jax.core.constants import CLIP_MEAN, CLIP_STD
from swin_jax.data.emoji import images as emoji
from swin_jax.data.emoji import style
from swin_jax.data.image_text.tokenizer import tokenize
from swin_jax.evals import zero_shot
from swin_jax.evals.analysis import overlap, robustness, subgroups
from swin_jax.evals.features import normalize
from swin_jax.evals.probes import few_shot, linear_probe, logistic_regression

STYLES = emoji.UNSEEN_VENDORS
THRESHOLD = 0.95
WHO = {
    "man": "man",
    "men": "man",
    "woman": "woman",
    "women": "woman",
    "person": "person",
    "people": "person",
}


class Model:
    """A trained run: features of drawings, and the classifier of the common names."""

    def __init__(self, workdir: str):
        self.name = pathlib.Path(workdir).name
        self.model, self.variables = swin_jax.load(weights=workdir)
        self.image_size = self.model.visual.image_size
        self.encode_image = jax.jit(
            lambda x: self.model.apply(self.variables, x, normalize=True, method="encode_image")
        )
        self.encode_text = jax.jit(
            lambda x: self.model.apply(self.variables, x, normalize=True, method="encode_text")
        )

    def features(self, images: np.ndarray, batch: int = 256) -> np.ndarray:
        """Features (N, E) of unit length for drawings (N, H, W, 3) uint8 of any size."""
        found = []
        for start in range(0, len(images), batch):
            part = resized(images[start : start + batch], self.image_size)
            filled = np.concatenate(
                [part, np.zeros((batch - len(part), *part.shape[1:]), part.dtype)]
            )
            pixels = (filled.astype(np.float32) / 255 - np.float32(CLIP_MEAN)) / np.float32(
                CLIP_STD
            )
            found.append(np.asarray(self.encode_image(pixels))[: len(part)])
        return np.concatenate(found)

    def classifier(self, names: list[str]) -> np.ndarray:
        """(E, C), of the names in two templates."""
        length = self.model.text.context_length
        tokens = functools.partial(tokenize, context_length=length, truncate=True)
        return zero_shot.classifier(
            self.encode_text, tokens, names, emoji.TEMPLATES[:2], 256, progress=False
        )


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """(N, size, size, 3) uint8."""
    return np.stack(
        [
            np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.BICUBIC))
            for x in images
        ]
    )


def pixels(images: np.ndarray, size: int) -> np.ndarray:
    """Pixels with their mean removed, of unit length: (N, size * size * 3)."""
    flat = resized(images, size).reshape(len(images), -1).astype(np.float32)
    return normalize(flat - flat.mean(axis=1, keepdims=True))


class Sets:
    """The drawings, and who is seen."""

    def __init__(self, data_dir: str):
        self.train = emoji.emoji(data_dir, concepts="seen")
        self.test = {vendor: emoji.emoji(data_dir, (vendor,), common=True) for vendor in STYLES}
        source = self.train
        self.names, self.unseen = source.class_names, np.array(source.unseen)
        self.common = np.flatnonzero(source.common)
        self.groups = {
            kind: numbers(values)
            for kind, values in (("group", source.groups), ("sub-group", source.subgroups))
        }
        rng = np.random.default_rng(0)
        move = style.style_train_transform(64, outline=0, gray=0, hue=0, saturation=(1, 1), gamma=0)
        of = np.isin(self.train.labels, self.common)
        self.domain_labels = self.train.labels[of]
        self.domain = np.stack(
            [move({"image": image}, rng)["image"] for image in self.train.images[of]]
        )


def numbers(values) -> np.ndarray:
    """Each value's number in sorted order."""
    return np.unique(np.array(values), return_inverse=True)[1]


def zero_shot_table(models: list[Model], sets: Sets) -> tuple[str, dict]:
    """Markdown, and the concept that each model chooses for each drawing of each style,
    models by top-1.
    """
    lines = [
        (
            "| style | | top-1, every run | median | top-5, "
            "median | right group | right sub-group | nearest by pixels |"
        )
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    classifiers = [model.classifier([sets.names[c] for c in sets.common]) for model in models]
    train_pixels, answers = pixels(sets.train.images, 20), {}
    for vendor, source in sets.test.items():
        label = source.labels
        order = [
            np.argsort(-(m.features(source.images) @ w), axis=1)[:, :5]
            for m, w in zip(models, classifiers)
        ]
        chosen = [sets.common[o] for o in order]
        nearest = sets.train.labels[(pixels(source.images, 20) @ train_pixels.T).argmax(1)]
        answers[vendor] = sorted(
            (c[:, 0] for c in chosen), key=lambda c, label=label: (c == label).mean()
        )
        for kind in ("seen", "unseen"):
            of = sets.unseen[label] == (kind == "unseen")
            top1 = [float((c[:, 0] == label)[of].mean()) for c in chosen]
            top5 = [float((c == label[:, None]).any(1)[of].mean()) for c in chosen]
            grouped = [
                statistics.median(float((g[c[:, 0]] == g[label])[of].mean()) for c in chosen)
                for g in sets.groups.values()
            ]
            cells = [
                " / ".join(f"{100 * x:.1f}" for x in top1),
                f"**{100 * statistics.median(top1):.1f}**",
            ]
            cells += [
                f"{100 * x:.1f}"
                for x in (statistics.median(top5), *grouped, float((nearest == label)[of].mean()))
            ]
            lines.append(f"| {vendor} | {kind} ({of.sum()}) | {' | '.join(cells)} |")
        of = sets.unseen[label]
        own = np.flatnonzero(sets.unseen[sets.common])
        top1 = []
        for model, weights in zip(models, classifiers):
            best = sets.common[own[(model.features(source.images[of]) @ weights[:, own]).argmax(1)]]
            top1.append(float((best == label[of]).mean()))
        runs, median = " / ".join(f"{100 * x:.1f}" for x in top1), 100 * statistics.median(top1)
        lines.append(
            f"| {vendor} | unseen among their {len(own)} names | {runs} | "
            f"**{median:.1f}** | | | | |"
        )
    return "\n".join(lines), answers


def robustness_report(models: list[Model], sets: Sets, path: pathlib.Path) -> str:
    """Markdown; draws the plot."""
    train, of = sets.train, {v: ~sets.unseen[s.labels] for v, s in sets.test.items()}

    def measure(name, predict, base=""):
        inside = float((predict(sets.domain) == sets.domain_labels).mean())
        return [
            robustness.Measurement(
                name,
                vendor,
                inside,
                float((predict(s.images) == s.labels)[of[vendor]].mean()),
                base,
            )
            for vendor, s in sets.test.items()
        ]

    kinds, label = np.unique(train.labels, return_inverse=True)
    baselines, found = [], []
    for size in (4, 6, 8, 12, 20):
        rows = pixels(train.images, size)
        means = normalize(np.stack([rows[label == k].mean(0) for k in range(len(kinds))]))

        def nearest(x, rows=rows, size=size):
            return train.labels[(pixels(x, size) @ rows.T).argmax(1)]

        def center(x, m=means, size=size):
            return kinds[(pixels(x, size) @ m.T).argmax(1)]

        baselines += measure(f"nearest drawing, {size} px", nearest) + measure(
            f"nearest mean, {size} px", center
        )
    for model in models:
        weights = model.classifier([sets.names[c] for c in sets.common])

        def chosen(x, m=model, w=weights):
            return sets.common[(m.features(x) @ w).argmax(1)]

        found += measure(f"zero-shot, {model.name}", chosen)
    first = models[0]
    inside = logistic_regression.with_ones(first.features(sets.domain))
    probes = few_shot.ridge((first.features(train.images), label), len(kinds))
    best = max(
        probes, key=lambda w: float((kinds[(inside @ w).argmax(1)] == sets.domain_labels).mean())
    )

    def predict(x):
        return kinds[(logistic_regression.with_ones(first.features(x)) @ best).argmax(1)]

    found += measure(f"probe, {first.name}", predict, f"zero-shot, {first.name}")
    robustness.plot(found, baselines, path)
    return robustness.table(robustness.report(found, baselines))


def probe_table(model: Model, sets: Sets, iterations: int) -> str:
    """Markdown: groups and sub-groups from features, and from pixels."""
    lines = [
        "| labels | inputs | lambda | "
        + " | ".join(f"{v} {k}" for v in STYLES for k in ("seen", "unseen"))
        + " |"
    ]
    lines.append("|---" * (3 + 2 * len(STYLES)) + "|")
    for kind, group in sets.groups.items():
        for what, encode in (
            ("features", model.features),
            ("pixels, 12 x 12", lambda x: pixels(x, 12)),
        ):
            rows, label = encode(sets.train.images), group[sets.train.labels]
            # Whole concepts are held out: the same thing in another style would be too easy
            # to choose lambda by.
            held = sets.train.labels % 5 == 0
            probe = linear_probe.probe(
                (rows[~held], label[~held]),
                (rows[held], label[held]),
                int(group.max()) + 1,
                max_iterations=iterations,
            )
            cells = []
            for source in sets.test.values():
                for unseen in (False, True):
                    of = sets.unseen[source.labels] == unseen
                    right = probe.evaluate(encode(source.images[of]), group[source.labels[of]])[
                        "top1"
                    ]
                    cells.append(f"{100 * right:.1f}")
            name = f"{group.max() + 1} {kind}s"
            lines.append(f"| {name} | {what} | {probe.search.best:.2g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def few_shot_report(model: Model, sets: Sets, path: pathlib.Path) -> str:
    """Markdown: the 9 groups in the new styles from a few training drawings of each;
    draws the plot.
    """
    group, results, zero = sets.groups["group"], {}, {}
    train = model.features(sets.train.images), group[sets.train.labels]
    validation = model.features(sets.domain), group[sets.domain_labels]
    weights = model.classifier([sets.names[c] for c in sets.common])
    for vendor, source in sets.test.items():
        found, label = model.features(source.images), group[source.labels]
        results[vendor] = few_shot.few_shot(
            train, (found, label), validation, num_classes=int(group.max()) + 1
        )
        zero[vendor] = float((group[sets.common[(found @ weights).argmax(1)]] == label).mean())
    few_shot.plot(results, path, zero)
    return few_shot.table(results, zero)


def subgroup_report(sets: Sets, chosen: dict, out: pathlib.Path) -> str:
    """Markdown: drawings of a man, a woman and a person; draws the plots."""
    who = np.array([WHO.get(name.split(" ")[0].rstrip(":"), "") for name in sets.names])
    parts = []
    for vendor, source in sets.test.items():
        of = who[source.labels] != ""
        label, given = source.labels[of], chosen[vendor][len(chosen[vendor]) // 2][of]
        columns = {
            "name": np.array(sets.names)[label],
            "given": np.array(sets.names)[given],
            "who": who[label],
            "given who": np.where(who[given] == "", "nobody", who[given]),
        }
        rates = [
            rate
            for attributes in ((), ("who",))
            for rate in subgroups.accuracy(columns, "given", "name", attributes)
            + [
                dataclasses.replace(rate, figure="who")
                for rate in subgroups.accuracy(columns, "given who", "who", attributes)
            ]
            + subgroups.assignment(
                columns,
                "given who",
                {f"called a {name}": (name,) for name in ("man", "woman")},
                attributes,
            )
        ]
        subgroups.plot(rates, out / f"subgroups_{vendor}.png")
        gaps = ", ".join(
            f"{figure} {100 * value:.1f}" for figure, value in subgroups.gap(rates).items()
        )
        parts.append(
            f"{vendor}:\n\n{subgroups.table(rates)}\n\nLargest difference in points: {gaps}."
        )
    return "\n\n".join(parts)


def overlap_table(sets: Sets, answers: dict, out: pathlib.Path) -> str:
    """Markdown, of the median run; draws pairs at the threshold, and the effect."""
    reference, rows = pixels(sets.train.images, 32), []
    for vendor, source in sets.test.items():
        seen = ~sets.unseen[source.labels]
        similarity, index = overlap.nearest(pixels(source.images[seen], 32), reference)
        correct = answers[vendor][len(answers[vendor]) // 2] == source.labels
        rows.append(overlap.analyze(vendor, correct[seen], similarity, THRESHOLD))
        overlap.sheet(
            source.images[seen],
            sets.train.images,
            similarity,
            index,
            out / f"overlap_{vendor}.png",
            THRESHOLD,
            18,
        )
    overlap.plot(rows, out / "overlap.png")
    return overlap.table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdirs", nargs="+", required=True, help="runs of clip_emoji.py")
    parser.add_argument("--data_dir", required=True, help="folder of the prepared emoji")
    parser.add_argument(
        "--out", default="runs/clip_emoji_report", help="folder of the tables and plots"
    )
    parser.add_argument(
        "--iterations", type=int, default=200, help="iterations of L-BFGS for each lambda"
    )
    flags = parser.parse_args()
    out = pathlib.Path(flags.out)
    out.mkdir(parents=True, exist_ok=True)
    models, sets = [Model(workdir) for workdir in flags.workdirs], Sets(flags.data_dir)
    zero, answers = zero_shot_table(models, sets)
    reports = {
        "Zero-shot": lambda: zero,
        "Robustness": lambda: robustness_report(models, sets, out / "robustness.png"),
        "Linear probe": lambda: probe_table(models[0], sets, flags.iterations),
        "Few-shot": lambda: few_shot_report(models[0], sets, out / "few_shot.png"),
        "Sub-groups": lambda: subgroup_report(sets, answers, out),
        "Overlap": lambda: overlap_table(sets, answers, out),
    }
    with open(out / "report.md", "w", encoding="utf-8") as file:
        for title, make in reports.items():
            text = f"## {title}\n\n{make()}\n"
            print(text, flush=True)
            print(text, file=file, flush=True)


if __name__ == "__main__":
    main()
