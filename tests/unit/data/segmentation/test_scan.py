"""The scan of labeled folders: it decodes what a run only measures, and both share what they found."""

import json
import os
import runpy
import sys

import numpy as np
import pytest
from PIL import Image

from swin_jax.data.segmentation import checking
from swin_jax.data.segmentation import scan as segmentation_scan
from swin_jax.data.segmentation.folder import label_folder

SIZE = (6, 9)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two splits of three records; train has a label that does not fit, and damage that heads do not show."""
    monkeypatch.setenv("SWIN_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checking, "FEW", 3)
    root = tmp_path / "set"
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True)
        for index in range(3):
            draw = np.random.default_rng(index)
            image = draw.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
            Image.fromarray(image).save(root / "images" / split / f"{index}.jpg")
            label = draw.integers(0, 2, SIZE).astype(np.uint8)
            Image.fromarray(label).save(root / "labels" / split / f"{index}.png")
    Image.fromarray(np.full(SIZE, 9, np.uint8)).save(root / "labels/train/1.png")
    data = (root / "images/train/2.jpg").read_bytes()
    (root / "images/train/2.jpg").write_bytes(data[:-40])
    (root / "classes.txt").write_text("sky\nsea\nsand")
    return root


def scan(root, *flags):
    return segmentation_scan.run([f"--folder={root}", *flags])


def test_everything_that_is_wrong_is_named_and_counted(root, capsys):
    assert scan(root) == 1
    output = capsys.readouterr().out
    assert "labels/train/1.png: it has the label 9, and there are 3 classes, 0 to 2" in output
    assert "labels/train/2.png: its image" in output and "runcated" in output
    assert "3 labels: 1 good, 1 that do not fit, 1 unreadable" in output
    assert "3 labels: 3 good" in output and "       0    2 sand" in output
    assert scan(root, "--split=val") == 0
    output = capsys.readouterr().out
    assert "train" not in output and "       3    1 sea" in output


def test_a_run_takes_what_the_scan_found_and_not_the_other_way_round(root, monkeypatch, capsys):
    looked, check = [], checking.check_file

    def watched(source, index, decode):
        looked.append(decode)
        return check(source, index, decode)

    monkeypatch.setattr(checking, "check_file", watched)
    (root / "classes.txt").write_text("sky\nsea")
    label_folder(str(root), "val")
    assert looked == [False] * 3
    assert scan(root, "--split=val") == 0 and looked[3:] == [True] * 3
    label_folder(str(root), "val")
    assert scan(root, "--split=val") == 0 and len(looked) == 6


def test_a_report_may_lie_elsewhere_and_the_flags_are_those_of_the_folder(root, tmp_path, capsys):
    for path in (root / "labels/val").iterdir():
        paletted = Image.open(path).convert("P")
        paletted.save(path.with_name(f"{path.stem}_mask.png"))
        os.remove(path)
    (root / "names").write_text("sea\nsky")
    report = tmp_path / "report.jsonl"
    flags = ("--split=val", "--label_suffix=_mask", f"--class_names={root}/names", f"--report={report}")
    assert scan(root, *flags) == 0
    assert len([json.loads(line) for line in report.read_text().splitlines()]) == 3
    assert "3 of 3 labels have a palette" in capsys.readouterr().out
    assert scan(root, *flags, "--reduce_zero_label") == 0
    assert "1 sea" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--split=vla",), "did you mean 'val'?"),
        (("--num_threads=0",), "must be at least 1"),
        (("--ade20k",), "objectInfo150.txt"),
        (("--ade20k", "--label_suffix=_x"), "leave out --class_names, --image_suffix and --label_suffix"),
        (("--label_suffix=_x",), "3 of 3 images have no label"),
    ],
)
def test_wrong_use_is_told_in_a_line(root, flags, words, capsys):
    assert scan(root, *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1


def test_a_folder_without_splits_is_refused(tmp_path, capsys):
    assert scan(tmp_path) == 2 and "there is no folder" in capsys.readouterr().err
    assert scan("") == 2 and "--folder= is empty" in capsys.readouterr().err


def test_a_split_without_a_labeled_pixel_is_no_good(root, capsys):
    for path in (root / "labels/val").iterdir():
        Image.fromarray(np.full(SIZE, 255, np.uint8)).save(path)
    assert scan(root, "--split=val") == 1
    assert "no pixel of the 3 labels belongs to a class" in capsys.readouterr().out


def test_warnings_of_the_command_have_no_place(root, monkeypatch, capsys):
    (root / "labels/val/notes.txt").touch()
    name = "swin_jax.data.segmentation.scan"
    monkeypatch.setattr(sys, "argv", ["scan", f"--folder={root}", "--split=val"])
    monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module(name, run_name="__main__")
    assert f"warning: {root}/labels/val: left out 1: .txt (1)\n" in capsys.readouterr().err
