"""The study of runs on scenes of emoji: its tables, its baseline and its pictures, on made-up logs and scenes."""

import csv
import json
import pathlib

import numpy as np
import pytest
from experiments.studies import emoji_scenes as study

import swin_jax
from swin_jax.data import fake
from swin_jax.data.emoji import scenes

EXPERIMENT = "experiments/segmentation/upernet_emoji_scenes.py:fake"


def figures(split, mean_iou):
    values = (mean_iou, mean_iou / 2, mean_iou + 0.1)
    return {f"eval/{split}/{name}": value for name, value in zip(study.FIGURES, values)}


@pytest.fixture
def runs(tmp_path):
    """Three runs of two evaluations; 0.7 is the median of the last ones on val."""
    found = []
    for number, last in enumerate((0.8, 0.6, 0.7)):
        workdir = tmp_path / f"run_{number}"
        (workdir / "tables").mkdir(parents=True)
        lines = [{"step": 50, "train/loss": 1.0}]
        for step, value in ((50, 0.1), (100, last)):
            lines += [{"step": step, **figures("shift", value / 2)}, {"step": step, **figures("val", value)}]
        (workdir / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        for split in study.SPLITS:
            with open(workdir / "tables" / f"{split}_classes_0000100.csv", "w", newline="") as file:
                rows = [(name, last - 0.01 * k) for k, name in enumerate(scenes.CLASSES)]
                csv.writer(file).writerows([("class", "iou"), *rows])
        found.append(study.Run(str(workdir)))
    return found


def test_splits_are_told_at_the_last_update_with_their_median(runs):
    baseline = {"colors": {split: dict.fromkeys(study.FIGURES, 0.25) for split in study.SPLITS}}
    rows = study.split_table(runs, baseline).splitlines()[2:]
    assert rows == [
        "| run_0 | 80.0 | 40.0 | 90.0 | 40.0 | 20.0 | 50.0 |",
        "| run_1 | 60.0 | 30.0 | 70.0 | 30.0 | 15.0 | 40.0 |",
        "| run_2 | 70.0 | 35.0 | 80.0 | 35.0 | 17.5 | 45.0 |",
        "| median | 70.0 | 35.0 | 80.0 | 35.0 | 17.5 | 45.0 |",
        "| colors | 25.0 | 25.0 | 25.0 | 25.0 | 25.0 | 25.0 |",
    ]


def test_classes_have_the_median_of_the_runs(runs):
    rows = study.class_table(runs).splitlines()[2:]
    assert len(rows) == 13 and rows[2] == "| frog | 68.0 | 68.0 |"


def test_curves_are_drawn(runs, tmp_path):
    study.draw_curves(runs, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_the_baseline_knows_the_color_and_nothing_else():
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    label = np.array([[0, 1], [2, 2]], np.uint8)
    train = [{"image": colors[label], "label": label}] * 2
    table = study.ColorTable(train)
    np.testing.assert_array_equal(table.predict(colors[[[2, 1]]]), [[2, 1]])
    np.testing.assert_array_equal(table.predict(np.uint8([[[3, 3, 3]]])), [[0]])  # the same of 32 steps
    found = study.measure(table.predict, [{"image": colors[label], "label": np.uint8([[0, 1], [2, 1]])}])
    assert found["pixel_accuracy"] == 0.75 and found["mean_iou"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert found["foreground_iou"] == pytest.approx(1 / 2)


def test_results_of_a_run_are_drawn(launch, tmp_path):
    root = pathlib.Path(study.__file__).parents[2]
    assert launch(root / EXPERIMENT, tmp_path / "run")[0] == 0
    model, variables = swin_jax.load(weights=str(tmp_path / "run"))
    source = fake.scenes(32, split="test")
    examples = [source[index] for index in range(study.SHOWN)]
    labeled = [{**example, "label": np.minimum(example["label"], 3)} for example in examples]
    study.draw_results(model, variables, labeled, tmp_path / "val.png")
    assert (tmp_path / "val.png").stat().st_size > 5000
