"""Video files in class folders: a run, what damaged files get, the test that resumes, and prediction."""

import csv
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from swin_jax import launch as launcher
from tests.unit.data.video import video_files

CONFIG = "experiments/video_swin/video_swin_k400.py:folder"
TINY = ("--config.task.model.embed_dim=16", "--config.task.model.depths=(1,1)", "--config.task.model.num_heads=(1,2)",
        "--config.task.model.window_size=(2,4,4)", "--config.task.model.dtype=float32",
        "--config.frames=5", "--config.size=32", "--config.short_side=36", "--config.accumulate=1",
        "--config.batch_size=8", "--config.num_train=8", "--config.epochs=2", "--config.num_classes=2",
        "--config.data.num_workers=0", "--config.evals.val.run.data.num_workers=0",
        "--config.evals.test.run.data.num_workers=0", "--config.evals.val.run.data.batch_size=8",
        "--config.init_from.required=false", "--config.logs.every=1")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of four videos each, one of them without pictures, one cut off, one of variable frame rate; two
    videos each for the test, one of them of variable frame rate."""
    root = tmp_path_factory.mktemp("videos")
    for split, count in (("train", 4), ("val", 2)):
        for seed, kind in enumerate(("jump", "sit")):
            (root / split / kind).mkdir(parents=True)
            for i in range(count):
                video_files.make(root / split / kind / f"{i}.mp4", count=6 if i == 0 else 20, seed=10 * seed + i)
    video_files.make_audio(root / "train" / "sit" / "1.mp4")
    for path in (root / "train" / "jump" / "3.mp4", root / "val" / "jump" / "1.mp4"):
        video_files.make(path, 4, times=[0, 20, 100, 110])
    path = root / "train" / "jump" / "2.mp4"
    path.write_bytes(path.read_bytes()[:-400])
    return root


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    flags = (f"--workdir={workdir}", f"--config.data_dir={folder}", *TINY)
    assert launcher.run(["launch", f"--config={pathlib.Path(__file__).parents[2] / CONFIG}", *flags]) == 0
    return workdir


def test_damaged_videos_are_replaced_and_counted(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["data/bad_records"] for line in lines if "train/loss" in line] == [3, 3]
    assert any("eval/test/top1" in line for line in lines) and any("eval/val/top1" in line for line in lines)


def test_too_many_damaged_videos_end_the_run(folder, tmp_path, launch):
    flags = (f"--config.data_dir={folder}", *TINY, "--config.max_bad_records=1")
    status, _, err = launch(CONFIG, tmp_path, *flags)
    assert status == 1 and "3 records could not be read and were replaced, more than max_bad_records=1" in err


def test_a_damaged_video_in_a_test_is_named(folder, trained, launch):
    path = folder / "val" / "sit" / "1.mp4"
    whole = path.read_bytes()
    path.write_bytes(whole[:-400])
    status, _, err = launch(CONFIG, trained, f"--config.data_dir={folder}", *TINY, "--config.total_steps=0")
    path.write_bytes(whole)
    assert (
        status == 1
        and "val/sit/1.mp4 cannot be read (UnreadableError: the video has no frames, or its index is cut off" in err
    ), err[-300:]


def test_prediction_of_a_folder_and_of_one_file(folder, trained, launch):
    status, out, err = launch(CONFIG, trained, *TINY, f"--predict={folder / 'train'}")
    assert status == 0 and "6 videos" in out and out.endswith("2 of 8 left out: they cannot be read\n"), err
    assert "left out, cannot be read" in err and "sit/1.mp4" in err and "jump/2.mp4" in err
    rows = {
        pathlib.Path(row["file"]).relative_to(folder): row for row in csv.DictReader(open(trained / "predictions.csv"))
    }
    assert len(rows) == 6 and {row["class_1"] for row in rows.values()} <= {"jump", "sit"}
    with Image.open(trained / "predictions.png") as sheet:
        assert sheet.size[0] > 1000  # two strips beside each other
    path = folder / "train" / "sit" / "3.mp4"
    status, out, _ = launch(CONFIG, trained, *TINY, f"--predict={path}")
    assert status == 0 and "1 video:" in out
    (row,) = csv.DictReader(open(trained / "predictions.csv"))
    expected = rows[pathlib.Path("train/sit/3.mp4")]
    np.testing.assert_allclose(float(row["probability_1"]), float(expected["probability_1"]), atol=1e-5)


def test_a_picture_is_predicted_and_told(trained, tmp_path, launch):
    Image.new("RGB", (64, 48)).save(tmp_path / "still.jpg")
    status, out, err = launch(CONFIG, trained, *TINY, f"--predict={tmp_path / 'still.jpg'}")
    assert status == 0 and "1 video:" in out and "one frame only, which the whole clip repeats" in err, err
    (row,) = csv.DictReader(open(trained / "predictions.csv"))
    assert row["file"].endswith("still.jpg")


@pytest.mark.parametrize(
    "flags, says",
    [
        (("--config.num_train=9",), "the data set has 8 examples, the config 9: give --config.num_train=8"),
        (("--config.num_classes=5",), "the data set has 2 classes (jump, sit), the config 5"),
        (("--config.init_from.required=true",), "starts from weights"),
        (("--config.short_side=16",), "short"),
        (("--config.frames=0",), "image_size=(0, 32, 32): it must be a tuple of 3 whole numbers, at least 1"),
        (("--config.stride=0",), "stride=0: it must be a whole number, at least 1"),
    ],
)
def test_one_line_says_what_to_do(flags, says, folder, tmp_path, launch):
    status, _, err = launch(CONFIG, tmp_path, f"--config.data_dir={folder}", *TINY, *flags)
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert status == 2 and len(errors) == 1 and says in errors[0], err


@pytest.mark.parametrize(
    "flags, lines, says",
    [
        ((), None, "give --config.train_list=FILE and --config.val_list=FILE"),
        (
            ("train_list", "val_list"),
            "jump/0.mp4 0\nsit/0.mp4 3000000000\n",
            "list.txt:2: the label 3000000000 is out of",
        ),
        (("train_list", "val_list"), "jump/0.mp4 0\nsit/0.mp4 300 1\n", "list.txt:2: write `path label`"),
        (("train_list",), "jump/0.mp4 0\n" * 7 + "sit/0.mp4 1\n", "--config.val_list=FILE"),
    ],
)
def test_a_bad_list_is_named_in_one_line(flags, lines, says, folder, tmp_path, launch):
    path = tmp_path / "list.txt"
    path.write_text(lines or "")
    flags = [f"--config.{flag}={path}" for flag in flags]
    status, _, err = launch(CONFIG.removesuffix(":folder"), tmp_path / "run", *TINY, *flags)
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert status == 2 and len(errors) == 1 and says in errors[0], err
