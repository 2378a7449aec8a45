"""Own images in folders, first weights, linear probing, prediction; and what bad input gets."""

import csv
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import swin_jax
from swin_jax.core.params import flatten
from swin_jax.train import checkpoint
from tests.experiments import config_path

SMALL = ("--config.image_size=32", "--config.task.model.embed_dim=16",
         "--config.task.model.depths=(1,1)", "--config.task.model.num_heads=(1,2)", "--config.task.model.window_size=4",
         "--config.task.model.dtype=float32",
         "--config.data.num_workers=0", "--config.evals.val.run.data.num_workers=0",
         "--config.evals.val.run.data.batch_size=8", "--config.batch_size=8", "--config.epochs=2",
         "--config.warmup_epochs=0", "--config.checkpoint.every=2", "--config.logs.every=1")  # fmt: skip
DATA = ("--config.num_classes=2", "--config.num_train=16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes, bright and dark, 8 training and 3 validation images each."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for kind, low in (("bright", 150), ("dark", 0)):
            (root / split / kind).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(low, low + 100, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / kind / f"{i}.jpg")
    return root


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A workdir of four steps on the folder."""
    from swin_jax import launch

    workdir = tmp_path_factory.mktemp("trained")
    status = launch.run(["launch", f"--config={config_path('swin_in1k:folder')}", f"--workdir={workdir}",
                         f"--config.data_dir={folder}", *SMALL, *DATA, "--config.task.ema_decay=0.9"])  # fmt: skip
    assert status == 0
    return workdir


def test_prediction_writes_names_and_pictures(trained, folder, launch):
    flags = (*SMALL, *DATA, "--config.task.ema_decay=0.9")
    status, out, err = launch("experiments/swin/swin_in1k.py:folder", trained, *flags, f"--predict={folder / 'val'}")
    assert status == 0, err
    rows = list(csv.DictReader(open(trained / "predictions.csv")))
    assert len(rows) == 6 and list(rows[0]) == ["image", "class_1", "probability_1", "class_2", "probability_2"]
    assert {row["class_1"] for row in rows} <= {"bright", "dark"}
    for row in rows:
        np.testing.assert_allclose(float(row["probability_1"]) + float(row["probability_2"]), 1, atol=1e-5)
    assert Image.open(trained / "predictions.png").size[0] > 300
    # The notebook's door gives the same numbers.
    model, variables = swin_jax.load(weights=trained)
    path = folder / "val" / rows[0]["image"]
    probabilities = jax.nn.softmax(model.apply(variables, swin_jax.preprocess(trained)(path)))[0]
    expected = {row: float(rows[0][f"probability_{i}"]) for i in (1, 2) for row in (rows[0][f"class_{i}"],)}
    np.testing.assert_allclose(probabilities, [expected["bright"], expected["dark"]], atol=1e-4)


def test_prediction_of_any_kind_of_picture(trained, folder, tmp_path, launch):
    """Color, gray, 16 bits, transparent and damaged ones; the damaged is named and left out."""
    gray = np.arange(40, dtype=np.uint8)[:, None].repeat(40, 1) * 6
    for name, picture in {
        "rgb.png": Image.fromarray(np.stack([gray] * 3, -1)),
        "gray.png": Image.fromarray(gray),
        "deep.png": Image.fromarray(gray.astype(np.uint16) * 257),
        "rgba.png": Image.fromarray(np.stack([gray] * 3 + [gray * 0 + 255], -1)),
        "cmyk.jpg": Image.fromarray(gray).convert("CMYK"),
        "bit.png": Image.fromarray(gray).convert("1"),
    }.items():
        picture.save(tmp_path / name)
    (tmp_path / "damaged.jpg").write_bytes((folder / "val" / "dark" / "0.jpg").read_bytes()[:300])
    flags = (*SMALL, *DATA, "--config.task.ema_decay=0.9", f"--predict={tmp_path}")
    status, out, err = launch("experiments/swin/swin_in1k.py:folder", trained, *flags)
    assert status == 0 and "6 images" in out, err
    assert "left out, cannot be read" in err and "damaged.jpg" in err
    rows = {pathlib.Path(r["image"]).name: r for r in csv.DictReader(open(trained / "predictions.csv"))}
    for name in ("gray.png", "deep.png", "rgba.png"):
        assert rows[name]["probability_1"] == rows["rgb.png"]["probability_1"], name


def test_an_unusable_workdir_is_one_line(tmp_path, launch):
    (tmp_path / "file").write_text("")
    status, _, err = launch("experiments/quickstart.py:fake", tmp_path / "file")
    assert status == 2 and err == f"error: --workdir={tmp_path / 'file'} cannot be used: File exists\n"


def test_linear_probing_is_an_override(trained, folder, tmp_path, launch):
    status, _, err = launch(
        "experiments/swin/swin_in1k.py:folder", tmp_path, *SMALL, *DATA, f"--config.data_dir={folder}",
        f"--config.init_from.path={trained}", "--config.init_from.backbone=true", "--config.task.tx.freeze=^(?!head)",
    )  # fmt: skip
    assert status == 0, err
    assert "left at initialization: head/bias, head/kernel" in err
    _, before, _ = checkpoint.load_params(trained)  # the average is what is taken
    after, _, _ = checkpoint.load_params(tmp_path)
    before, after = flatten(before), flatten(after)
    assert any((before[path] != after[path]).any() for path in after if path.startswith("head/"))
    for path in after:
        if not path.startswith("head/"):
            np.testing.assert_array_equal(before[path], after[path], err_msg=path)


def test_fine_tuning_from_a_workdir_resizes_windows_and_heads(trained, folder, tmp_path, launch):
    flags = [flag.replace("window_size=4", "window_size=5") for flag in SMALL]
    flags = [flag.replace("image_size=32", "image_size=40") for flag in flags]
    with pytest.warns(UserWarning, match="resized"):
        status, _, err = launch("experiments/swin/swin_in1k_finetune.py:folder", tmp_path, *flags, *DATA,
                                f"--config.data_dir={folder}", f"--config.init_from.path={trained}")  # fmt: skip
    assert status == 0 and f"starts from {trained}" in err


def test_a_training_from_weights_of_another_window_asks_how_to_resize_them(trained, folder, tmp_path, launch):
    flags = [flag.replace("window_size=4", "window_size=5") for flag in SMALL]
    flags = [flag.replace("image_size=32", "image_size=40") for flag in flags]
    status, _, err = launch("experiments/swin/swin_in1k.py:folder", tmp_path, *flags, *DATA,
                            f"--config.data_dir={folder}", f"--config.init_from.path={trained}")  # fmt: skip
    assert status == 1 and "bicubic" in err and "geometric" in err


def test_weights_that_do_not_fit_are_listed_and_those_of_another_size_are_one_line(trained, folder, tmp_path, launch):
    flags = [*SMALL, "--config.num_classes=2", "--config.num_train=16", f"--config.data_dir={folder}"]
    flags += [f"--config.init_from.path={trained}", "--config.task.model.ape=true"]
    fields = "--config.task.model.mlp_ratio=2.0"
    status, _, err = launch("experiments/swin/swin_in1k.py:folder", tmp_path, *flags, fields)
    assert status == 1
    table = "mlp.fc1.bias: (128,), expected (64,)"
    for part in (str(trained), "missing     absolute_pos_embed", f"mis-shaped  layers.1.blocks.0.{table}"):
        assert part in err
    flags[3] = "--config.task.model.num_heads=(2,4)"
    status, _, err = launch("experiments/swin/swin_in1k.py:folder", tmp_path, *flags)
    last = err.splitlines()[-1]
    assert status == 1 and str(trained) in last and "num_heads=(1, 2), the model is one of num_heads=(2, 4)" in last


def test_a_fine_tuning_without_weights_says_what_it_needs(folder, tmp_path, launch):
    status, _, err = launch("experiments/swin/swin_in1k_finetune.py:folder", tmp_path, *SMALL, *DATA,
                            f"--config.data_dir={folder}")  # fmt: skip
    assert status == 2 and "--config.init_from.path=" in err


def test_other_numbers_of_classes_and_images_are_named(folder, tmp_path, launch):
    status, _, err = launch("experiments/swin/swin_in1k.py:folder", tmp_path, *SMALL, f"--config.data_dir={folder}")
    assert status == 2 and "--config.num_classes=2 --config.num_train=16" in err
    status, _, err = launch(
        "experiments/swin/swin_in1k.py:folder", tmp_path, *SMALL, f"--config.data_dir={folder}", DATA[0]
    )
    assert status == 2 and "--config.num_train=16" in err


def test_classes_are_compared_by_name_with_the_training_data_and_the_checkpoint(trained, folder, tmp_path, launch):
    for split, kinds in (("train", ("bright", "dark")), ("val", ("Dark", "bright"))):
        for kind in kinds:
            shutil.copytree(folder / split / kind.lower(), tmp_path / "images" / split / kind)
    recipe = "experiments/swin/swin_in1k.py:folder"
    given = f"--config.data_dir={tmp_path / 'images'}"
    status, _, err = launch(recipe, tmp_path / "run", *SMALL, *DATA, given)
    assert status == 2 and "'val' and the training data" in err and "'Dark'" in err and "'dark'" in err
    # Nothing is trained here, so that the training data does not count.
    only = (*SMALL, *DATA, "--config.task.ema_decay=0.9", given, "--config.total_steps=0")
    status, _, err = launch(recipe, trained, *only)
    assert status == 2 and "'val' and the checkpoint in" in err and "'Dark'" in err
    scores = []
    for name in ("bright", "dark"):
        shutil.rmtree(tmp_path / "images" / "val")
        shutil.copytree(folder / "val" / name, tmp_path / "images" / "val" / name)
        status, _, err = launch(recipe, trained, *only)
        assert status == 0 and "1 of the 2 classes" in err, err
        scores.append(float(re.search(r"val/top1 (\S+)", err)[1]))
    status, _, err = launch(recipe, trained, *only[:-2], f"--config.data_dir={folder}", only[-1])
    assert np.mean(scores) == pytest.approx(float(re.search(r"val/top1 (\S+)", err)[1]), abs=1e-4)


@pytest.fixture
def damaged_folder(folder, tmp_path):
    copy = tmp_path / "damaged"
    shutil.copytree(folder, copy)
    for name in ("bright/3.jpg", "dark/5.jpg"):
        data = (copy / "train" / name).read_bytes()
        (copy / "train" / name).write_bytes(data[: len(data) // 3])
    return copy


def test_truncated_images_are_named_replaced_and_counted(damaged_folder, tmp_path, launch, caplog):
    arguments = (
        "experiments/swin/swin_in1k.py:folder",
        tmp_path / "run",
        *SMALL,
        *DATA,
        f"--config.data_dir={damaged_folder}",
    )
    status, _, err = launch(*arguments)
    assert status == 0, err
    assert "dark/5.jpg" in caplog.text and "bright/3.jpg" in caplog.text
    text = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert any('"data/bad_records": 2.0' in line for line in text)  # in each of two epochs


def test_too_many_truncated_images_stop_the_run(damaged_folder, tmp_path, launch):
    arguments = (
        "experiments/swin/swin_in1k.py:folder",
        tmp_path / "run",
        *SMALL,
        *DATA,
        f"--config.data_dir={damaged_folder}",
    )
    status, _, err = launch(*arguments, "--config.max_bad_records=1")
    assert status == 1 and "more than max_bad_records=1" in err


def test_a_truncated_image_in_an_evaluation_is_named_or_left_out(damaged_folder, tmp_path, launch):
    path = damaged_folder / "val" / "dark" / "1.jpg"
    path.write_bytes(path.read_bytes()[:400])
    status, _, err = launch("experiments/swin/swin_in1k.py:folder", tmp_path / "run", *SMALL, *DATA,
                            f"--config.data_dir={damaged_folder}", "--config.max_bad_records=100",
                            "--config.checkpoint.every=4")  # fmt: skip
    assert status == 1 and "dark/1.jpg" in err and "unreadable='leave_out'" in err
    assert (tmp_path / "run" / "checkpoints" / "2").is_dir()  # though none was due at that step
    status, _, err = launch("experiments/swin/swin_in1k.py:folder", tmp_path / "run", *SMALL, *DATA,
                            f"--config.data_dir={damaged_folder}", "--config.max_bad_records=100",
                            "--config.evals.val.run.data.unreadable=leave_out")  # fmt: skip
    assert status == 0, err
    assert "step 2 of 4" in err and re.search(r"val/left_out 1\.0000", err), err


@pytest.mark.parametrize(
    "config, flags, says",
    [
        ("swin_fashion_mnist", ("--config.data_dir=nowhere",), "swin_jax.data.builders.fashion_mnist"),
        ("swin_in1k", ("--config.data_dir=nowhere",), "swin_jax.data.builders.imagenet2012"),
        ("swin_in1k:folder", (), "--config.data_dir="),
        ("quickstart:fake", ("--config.batch_size=12",), "12, which is not a multiple of the 8 batch shards"),
        ("quickstart:fake", ("--config.mesh.tensor=3",), "tensor=3 does not fit 8 devices"),
        ("quickstart:fake", ("--config.task.accumulate=3",), "batch_size 8 is not a multiple of accumulate 3"),
        (
            "quickstart:fake",
            ("--config.task.accumulate=0",),
            "--config.task.accumulate=0: it must be a whole number",
        ),
        ("swin_in1k:fake", ("--config.batch_size=136", "--config.num_train=999"), "of task.mix_group = 128"),
        ("quickstart:fake", ("--predict=nowhere",), "train first"),
        ("quickstart:fake", ("--config.init_from.path=nowhere",), "neither a workdir"),
        ("quickstart:fake", ("--config.total_steps=0",), "nothing to evaluate"),
        ("quickstart:fake", ("--config.total_steps=-1",), "--config.total_steps=-1: it must be a whole number"),
        ("quickstart:fake", ("--config.task.model.embed_dim=17",), "do not divide 17 channels"),
        ("quickstart:fake", ("--allow_change=seeed",), "did you mean 'seed'"),
        ("swin_in1k:fake", ("--config.batch_size=0",), "--config.batch_size=0: it must be a whole number, at least 1"),
        ("swin_in1k:fake", ("--config.num_train=4",), "num_train 4 is less than batch_size 8"),
    ],
)
def test_one_line_says_what_to_do(config, flags, says, tmp_path, launch):
    status, _, err = launch(config_path(config), tmp_path, *flags)
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert status == 2 and len(errors) == 1 and says in errors[0], err
    assert "Traceback" not in err


@pytest.mark.parametrize("flags", [("--predict=pictures",), ("--config.total_steps=0",)])
def test_the_folder_of_a_run_that_died_before_its_first_checkpoint_is_no_model(flags, tmp_path, launch):
    (tmp_path / "checkpoints").mkdir()
    status, _, err = launch("experiments/quickstart.py:fake", tmp_path, *flags)
    assert status == 2 and "no checkpoint in" in err


def test_a_profile_is_written(tmp_path, launch):
    status, _, err = launch("experiments/quickstart.py:fake", tmp_path, "--profile=2-3")
    assert status == 0 and "profile of steps 2-3" in err
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
