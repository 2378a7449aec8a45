"""Runs of upernet_emoji_scenes.py: tables, curves and pictures of results, beside a baseline that
knows colors only.

    python experiments/studies/emoji_scenes.py --data_dir=data --out=runs/emoji_scenes_report \
        --workdirs runs/emoji_scenes_0 runs/emoji_scenes_1 runs/emoji_scenes_2

splits: mean IoU over 13 classes and over the 12 emoji, and the share of pixels that is right, at
the last update: every run and the median. The baseline looks up the color of a pixel, in 32 steps
per channel, in a table of the class that it has most often in the training scenes; another one
calls everything background.

classes: IoU of each class, median of the runs.

curves.png: mean IoU by update. val.png and shift.png: scenes, their truth, and what the median run
makes of them. The drawings in shift.png are openmoji's, so that it stands under CC-BY-SA-4.0.
"""

import argparse
import csv
import json
import pathlib
import statistics

import numpy as np

import swin_jax
from swin_jax.data.emoji import scenes
from swin_jax.data.segmentation import palettes
from swin_jax.evals.mean_iou import scores
from swin_jax.inference.segmentation import segment

SPLITS = ("val", "shift")
FIGURES = ("mean_iou", "foreground_iou", "pixel_accuracy")
TITLES = ("mean IoU", "mean IoU of the emoji", "pixels")
LEVELS = 32  # of a channel, in the baseline
SHOWN = 8  # scenes in a picture
COLORS = np.array([(0, 0, 0), *palettes.distinct(len(scenes.CLASSES) - 1)], np.uint8)


class Run:
    """The log of a run.

    Attributes:
        workdir: Its folder.
        steps: Updates at which each split was measured, by split.
        values: {split: {figure: values at these updates}}.
    """

    def __init__(self, workdir: str):
        self.workdir = pathlib.Path(workdir)
        lines = (self.workdir / "metrics.jsonl").read_text().splitlines()
        self.steps, self.values = {}, {}
        for split in SPLITS:
            key = f"eval/{split}/"
            found = [x for x in map(json.loads, lines) if f"{key}mean_iou" in x]
            self.steps[split] = [x["step"] for x in found]
            self.values[split] = {name: [x[key + name] for x in found] for name in FIGURES}

    def last(self, split: str, figure: str) -> float:
        """A figure after the last update."""
        return self.values[split][figure][-1]

    def classes(self, split: str) -> dict[str, float]:
        """The IoU of each class after the last update."""
        path = self.workdir / "tables" / f"{split}_classes_{self.steps[split][-1]:07d}.csv"
        with open(path, newline="") as file:
            return {row["class"]: float(row["iou"] or "nan") for row in csv.DictReader(file)}


class ColorTable:
    """The class that each color has most often."""

    def __init__(self, source):
        counts = np.zeros((LEVELS**3, len(scenes.CLASSES)), np.int64)
        for index in range(len(source)):
            example = source[index]
            np.add.at(counts, (self._index(example["image"]), example["label"]), 1)
        self._classes = counts.argmax(axis=1).astype(np.uint8)

    def predict(self, image) -> np.ndarray:
        """The class of each pixel, uint8 (H, W)."""
        return self._classes[self._index(image)]

    @staticmethod
    def _index(image) -> np.ndarray:
        levels = np.asarray(image, np.int64) * LEVELS // 256
        return levels @ np.array([LEVELS**2, LEVELS, 1])


def measure(predict, source) -> dict[str, float]:
    """The figures of a function from a picture to the class of each pixel."""
    classes = len(scenes.CLASSES)
    table = np.zeros((classes, classes), np.int64)
    for index in range(len(source)):
        example = source[index]
        pairs = classes * example["label"].astype(np.int64) + predict(example["image"])
        table += np.bincount(pairs.ravel(), minlength=classes**2).reshape(classes, classes)
    counts = dict(intersect=np.diag(table), predicted=table.sum(0), labeled=table.sum(1))
    return scores(counts, scenes.CLASSES, background=scenes.CLASSES[0])


def split_table(runs: list[Run], baselines: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown, in percent: the runs and their median, and baselines by name and split."""
    titles = [f"{split}, {title}" for split in SPLITS for title in TITLES]
    lines = [f"| | {' | '.join(titles)} |", "|---" * (1 + len(titles)) + "|"]
    keys = [(split, figure) for split in SPLITS for figure in FIGURES]
    rows = {run.workdir.name: [run.last(*key) for key in keys] for run in runs}
    rows["median"] = [statistics.median(column) for column in zip(*rows.values())]
    for name, found in baselines.items():
        rows[name] = [found[split][figure] for split, figure in keys]
    for name, values in rows.items():
        lines.append(f"| {name} | {' | '.join(f'{100 * value:.1f}' for value in values)} |")
    return "\n".join(lines)


def class_table(runs: list[Run]) -> str:
    """Markdown: the IoU of each class in percent, median of the runs."""
    lines = [f"| class | {' | '.join(SPLITS)} |", "|---" * (1 + len(SPLITS)) + "|"]
    found = {split: [run.classes(split) for run in runs] for split in SPLITS}
    for name in scenes.CLASSES:
        medians = [statistics.median(x[name] for x in found[split]) for split in SPLITS]
        lines.append(f"| {name} | {' | '.join(f'{100 * value:.1f}' for value in medians)} |")
    return "\n".join(lines)


def draw_curves(runs: list[Run], path: pathlib.Path) -> None:
    """Draws mean IoU by update, a line for each run and split."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for split, color in zip(SPLITS, ("tab:blue", "tab:orange")):
        for number, run in enumerate(runs):
            values = 100 * np.array(run.values[split]["mean_iou"])
            label = split if number == 0 else None
            axes.plot(run.steps[split], values, color=color, label=label, alpha=0.7)
    axes.set(xlabel="update", ylabel="mean IoU, 13 classes (%)", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_results(model, variables, source, path: pathlib.Path) -> None:
    """Draws the first scenes of a source, their truth and what a model makes of them."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    examples = [source[index] for index in range(SHOWN)]
    images = [np.asarray(example["image"]) for example in examples]
    found = segment(model, variables, images)
    rows = {
        "scene": images,
        "truth": [COLORS[example["label"]] for example in examples],
        "prediction": [COLORS[labels] for labels in found],
    }
    figure, axes = plt.subplots(len(rows), SHOWN, figsize=(1.4 * SHOWN, 1.4 * len(rows) + 0.7))
    for line, (title, pictures) in zip(axes, rows.items()):
        line[0].set_ylabel(title)
        for place, picture in zip(line, pictures):
            place.imshow(picture, interpolation="nearest")
            place.set(xticks=[], yticks=[])
    patches = [Patch(color=color / 255, label=name) for name, color in zip(scenes.CLASSES, COLORS)]
    figure.legend(handles=patches, loc="lower center", ncols=7, frameon=False, fontsize=9)
    figure.subplots_adjust(0.03, 0.14, 0.995, 0.99, 0.03, 0.03)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdirs", nargs="+", required=True, help="runs of the experiment")
    parser.add_argument("--data_dir", required=True, help="folder of the prepared scenes")
    parser.add_argument("--out", default="runs/emoji_scenes_report", help="folder of the results")
    flags = parser.parse_args()
    out = pathlib.Path(flags.out)
    out.mkdir(parents=True, exist_ok=True)
    runs = [Run(workdir) for workdir in flags.workdirs]
    sources = {split: scenes.emoji_scenes(flags.data_dir, split) for split in ("train", *SPLITS)}
    colors = ColorTable(sources["train"])
    rules = {
        "color of the pixel": colors.predict,
        "all background": lambda image: np.zeros(np.shape(image)[:2], np.int64),
    }
    baselines = {
        name: {split: measure(rule, sources[split]) for split in SPLITS}
        for name, rule in rules.items()
    }
    draw_curves(runs, out / "curves.png")
    median = sorted(runs, key=lambda run: run.last("val", "mean_iou"))[len(runs) // 2]
    model, variables = swin_jax.load(weights=str(median.workdir))
    for split in SPLITS:
        draw_results(model, variables, sources[split], out / f"{split}.png")
    text = f"## Splits\n\n{split_table(runs, baselines)}\n\n## Classes\n\n{class_table(runs)}\n"
    (out / "report.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
