"""A segmenter on a folder like ADE20K's with pictures of several sizes: a run, its evaluation, prediction, export."""

import csv
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import swin_jax
from swin_jax import launch as launcher
from swin_jax.core import config as configs
from swin_jax.core import storage
from swin_jax.data.segmentation import palettes
from swin_jax.inference.segmentation import Method, segment
from swin_jax.pretrained.segmentation import convert
from swin_jax.train import checkpoint

CONFIG = "experiments/segmentation/upernet_ade20k.py"
TINY = ("--config.task.model.embed_dim=8", "--config.task.model.depths=(1,1)", "--config.task.model.num_heads=(1,2)",
        "--config.task.model.window_size=4", "--config.task.model.channels=8", "--config.task.model.pool_scales=(1,2)",
        "--config.task.model.auxiliary_channels=8", "--config.image_size=32", "--config.total_steps=2",
        "--config.batch_size=8", "--config.num_train=8", "--config.data.num_workers=0",
        "--config.evals.val.run.data.data.num_workers=0", "--config.evals.val.run.data.data.batch_size=8",
        "--config.task.tx.schedule.warmup_steps=0", "--config.task.tx.schedule.base_lr=0.05",
        "--config.init_from.required=false", "--config.logs.every=1")  # fmt: skip
VALIDATION = ((40, 48), (80, 96), (20, 61), (30, 36), (40, 122))  # 32 x 38 three times, 32 x 98 twice

CLASSES = (1, 7, 150)  # which the bias of the classifier learns in two updates
NAMES = ("a.jpg", *(f"inside/{name}.jpg" for name in "bcde"))


def scene(rng, size):
    label = np.zeros(size, np.uint8)
    label[: size[0] // 2, : size[1] // 2] = rng.choice(CLASSES)
    label[size[0] // 2 :] = rng.choice(CLASSES)
    return rng.integers(0, 256, (*size, 3)).astype(np.uint8), label


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("ade") / "ADEChallengeData2016", np.random.default_rng(0)
    for split, kind, sizes in (("training", "train", ((40, 48),) * 8), ("validation", "val", VALIDATION)):
        for place in ("images", "annotations"):
            (root / place / split).mkdir(parents=True)
        for i, size in enumerate(sizes):
            image, label = scene(rng, size)
            Image.fromarray(image).save(root / "images" / split / f"ADE_{kind}_{i:08d}.jpg")
            Image.fromarray(label).save(root / "annotations" / split / f"ADE_{kind}_{i:08d}.png")
    rows = [f"{k}\t0.1\t1\t1\tclass {k}, other name" for k in range(1, 151)]
    (root / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]) + "\n")
    return root


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    flags = (f"--workdir={workdir}", f"--config.data_dir={folder}", *TINY)
    assert launcher.run(["launch", f"--config={pathlib.Path(__file__).parents[2] / CONFIG}", *flags]) == 0
    return workdir


def test_a_run_evaluates_pictures_of_several_sizes_and_writes_a_table(trained, folder, launch):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    (found,) = [line for line in lines if "eval/val/mean_iou" in line]
    with open(trained / "tables" / "val_classes_0000002.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert found["eval/val/mean_iou"] > 0.1
    assert [row["class"] for row in rows] == [f"class {k}" for k in range(1, 151)]
    shares = [float(row["iou"]) for row in rows if row["iou"]]
    np.testing.assert_allclose(np.mean(shares), found["eval/val/mean_iou"], atol=1e-5)
    labels = [np.asarray(Image.open(path)) for path in sorted(folder.glob("annotations/validation/*"))]
    counts = np.sum([np.bincount(label.ravel(), minlength=151)[1:] for label in labels], axis=0)
    np.testing.assert_allclose([float(row["share_of_labels"]) for row in rows], counts / counts.sum(), atol=1e-6)
    flags = [flag.replace("total_steps=2", "total_steps=0") for flag in TINY]
    status, out, err = launch(CONFIG, trained, f"--config.data_dir={folder}", *flags)
    assert status == 0 and "5 pictures of 2 sizes: as many programs" in out + err, err
    assert f"eval/val/mean_iou {found['eval/val/mean_iou']:.4f}" in out + err


def test_prediction_writes_labels_overlays_a_legend_and_shares(trained, folder, tmp_path, launch):
    pictures = tmp_path / "pictures"
    (pictures / "inside").mkdir(parents=True)
    paths = sorted(folder.glob("images/validation/*"))
    for path, name in zip(paths, NAMES, strict=True):
        (pictures / name).write_bytes(path.read_bytes())
    Image.open(paths[1]).save(pictures / "a.png")
    (pictures / "torn.jpg").write_bytes(paths[0].read_bytes()[:40])
    shutil.rmtree(trained / "predictions", ignore_errors=True)  # of another test, whose order is free
    status, out, err = launch(CONFIG, trained, *TINY, f"--predict={pictures}")
    assert status == 0 and "6 images: " in out and "1 of 7 left out" in out, err
    place = trained / "predictions"
    names = {str(path.relative_to(place / "labels")) for path in (place / "labels").rglob("*.png")}
    assert names == {"a.jpg.png", "a.png.png", *(f"inside/{name}.png" for name in "bcde")}
    with open(place / "shares.csv", newline="") as file:
        rows = {pathlib.Path(row.pop("image")).name: row for row in csv.DictReader(file)}
    assert rows["a.jpg"].pop("label_file") == "labels/a.jpg.png"
    with Image.open(place / rows["b.jpg"].pop("label_file")) as image:
        labels, palette = np.asarray(image), image.getpalette()
        assert image.mode == "P" and labels.shape == VALIDATION[1]
    assert palette[: 3 * 150] == np.ravel(palettes.distinct(150)).tolist()
    shares = np.bincount(labels.ravel(), minlength=150) / labels.size
    np.testing.assert_allclose([*map(float, rows["b.jpg"].values())], shares, atol=1e-6)
    assert [*rows["b.jpg"]] == [f"class {k}" for k in range(1, 151)]
    with Image.open(place / "overlays" / "inside" / "b.png") as overlay, Image.open(pictures / "inside/b.jpg") as own:
        expected = (np.asarray(own).astype(int) + np.array(palettes.distinct(150))[labels]) // 2
        np.testing.assert_array_equal(np.asarray(overlay), expected)
    assert (place / "legend.png").stat().st_size > 500
    # What the evaluation of the same pictures has counted.
    counts = np.zeros((3, 151), int)
    for path, name in zip(sorted(folder.glob("annotations/validation/*")), NAMES):
        label = np.asarray(Image.open(path)).astype(int)
        suffix = ".jpg.png" if name == "a.jpg" else ".png"
        found = np.asarray(Image.open(place / "labels" / name.replace(".jpg", suffix))).astype(int) + 1
        for row, values in zip(counts, (label[label == found], found[label > 0], label)):
            row += np.bincount(values.ravel(), minlength=151)
    right, predicted, labeled = counts[:, 1:]
    with open(trained / "tables" / "val_classes_0000002.csv", newline="") as file:
        for k, row in enumerate(csv.DictReader(file)):
            union = predicted[k] + labeled[k] - right[k]
            assert (row["iou"] != "") == (union > 0)
            np.testing.assert_allclose(float(row["iou"] or 0), right[k] / max(union, 1), atol=2e-3)


@pytest.mark.parametrize(
    "method, flags",
    [
        (Method("slide", 32, 21), ["mode=slide"]),
        (Method(ratios=(0.5, 1.0), flip=True), ["ratios=(0.5,1.0)", "flip=True"]),
    ],
    ids=["windows", "ratios"],
)
def test_prediction_takes_the_passes_that_are_asked_for(trained, folder, launch, method, flags):
    pictures = folder / "images" / "validation"
    flags = [f"--config.predict_method.{flag}" for flag in flags]
    status, out, err = launch(None, trained, *flags, f"--predict={pictures}")
    assert status == 0 and "5 images: " in out, err
    assert ("4 sizes, with one program" in out + err) == (method.mode == "whole")
    model, variables = swin_jax.load(weights=str(trained))
    paths = sorted(pictures.iterdir())
    for path, wanted in zip(paths, segment(model, variables, paths, method), strict=True):
        with Image.open(trained / "predictions" / "labels" / f"{path.stem}.png") as image:
            assert np.mean(np.asarray(image) == wanted) > 0.999


def test_an_exported_segmenter_gives_maps_and_labels_of_the_size_that_is_asked_for(trained, tmp_path, launch):
    path = tmp_path / "model.stablehlo"
    status, _, err = launch(None, trained, "--config.task.image_size=32,44", f"--export={path}")
    assert status == 0, err
    facts = json.loads(path.with_name(path.name + ".json").read_text())
    assert facts["inputs"] == {"image": "uint8 (b, 32, 44, 3)"}
    assert facts["outputs"] == {"labels": "uint8 (b, 32, 44)", "maps": "float32 (b, 8, 11, 150)"}
    assert facts["class_names"][0] == "class 1"
    found = jax.export.deserialize(path.read_bytes()).call({"image": np.zeros((1, 32, 44, 3), np.uint8)})
    assert found["labels"].shape == (1, 32, 44) and np.isfinite(found["maps"]).all()


def test_a_file_in_the_official_layout_is_evaluated_as_a_whole(trained, folder, tmp_path, launch):
    """As a released one: its heads and statistics are taken, and the figures are those of the run."""
    config = configs.load(f"{CONFIG}:fake")
    config.task.model.update(num_classes=150)
    model = configs.build(config.task.model, "task.model")
    variables = checkpoint.load_variables(storage.path(trained))
    save_file(convert.to_official(variables, model, buffers=True), tmp_path / "upernet.safetensors")
    flags = [flag.replace("total_steps=2", "total_steps=0") for flag in TINY]
    path = f"--config.init_from.path={tmp_path / 'upernet.safetensors'}"
    flags = (*flags, f"--config.data_dir={folder}", path, "--config.init_from.backbone=False")
    status, out, err = launch(CONFIG, tmp_path / "run", *flags)
    assert status == 0, err
    whole, own = tmp_path / "run" / "tables" / "val_classes_0000000.csv", trained / "tables" / "val_classes_0000002.csv"
    assert whole.read_text() == own.read_text()


@pytest.mark.parametrize("action", ["--predict={}", "--export={}/model.stablehlo", "--config.total_steps=0"])
def test_heads_that_nothing_trained_are_not_used(action, folder, tmp_path, launch):
    save_file({"patch_embed.proj.weight": np.zeros(3, np.float32)}, tmp_path / "w.safetensors")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    flags = (*TINY, f"--config.data_dir={folder}", f"--config.init_from.path={tmp_path / 'w.safetensors'}")
    status, _, err = launch(CONFIG, tmp_path / "run", *flags, action.format(tmp_path))
    assert status == 2 and "needs a classifier" in err and "--config.init_from.backbone=False" in err, err


@pytest.mark.parametrize(
    "flags, says",
    [
        (("--config.task.accumulate=2", "--config.batch_size=16"), "batch norms would see micro-batches of 8 images"),
        (("--config.task.num_classes=256",), "labels of one byte tell 255 classes apart"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_read(flags, says, tmp_path, launch):
    status, _, err = launch(f"{CONFIG}:fake", tmp_path / "run", *flags)
    assert status == 2 and says in err and err.count("\n") == 1
