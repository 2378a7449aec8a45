"""One folder in, a model out: three flags train it, two use it."""

import csv
import json
import os
import shutil
import warnings

import numpy as np
import pytest

from swin_jax.core import config as configs
from swin_jax.models.swin import Swin
from swin_jax.train import checkpoint
from tests import own_pictures

FILE = "experiments/swin/finetune_folder.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("own") / "mine"
    own_pictures.write(root, 10, seed=0)
    return root


def test_a_folder_gives_a_model_that_names_new_images(folder, tmp_path, launch):
    (folder / "disc" / "broken.png").write_bytes(b"no picture")
    tiny = ("--config.task.model.embed_dim=16", "--config.task.model.depths=(1,1)", "--config.total_steps=10")
    status, out, err = launch(FILE, tmp_path / "run", f"--config.data_dir={folder}", *tiny)
    shutil.copytree(folder, tmp_path / "renamed")
    (folder / "disc" / "broken.png").unlink()
    assert status == 0, err
    assert "25 records, 3 classes (disc, spots, stripes); evaluations: val 6" in err and "eval/val/top1" in out
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum("train/loss" in line for line in lines) == 10  # the curves have points
    own_pictures.write(tmp_path / "new", 1, seed=1)
    status, _, err = launch(None, tmp_path / "run", f"--predict={tmp_path / 'new'}")
    assert status == 0, err
    rows = list(csv.DictReader((tmp_path / "run" / "predictions.csv").open()))
    assert len(rows) == 3 and {row["class_1"] for row in rows} <= set(own_pictures.CLASSES)
    for path in (tmp_path / "renamed").glob("*/*"):  # others would be held back
        path.rename(path.with_name(f"IMG_{path.name}"))
    moved = (f"--config.data_dir={tmp_path / 'renamed'}", *tiny[:2], "--config.total_steps=12")
    status, _, err = launch(FILE, tmp_path / "run", *moved)
    assert status == 2 and "names or order differ from the 25 of then" in err.splitlines()[-1]


def test_sizes_follow_from_the_folder(folder, root):
    config = configs.load(f"{root}/{FILE}")
    config.data_dir = str(folder)
    assert (config.num_classes, config.num_train, config.batch_size, config.total_steps) == (3, 24, 8, 1600)
    config.num_train = 5000
    assert (config.batch_size, config.total_steps) == (64, 60 * 5000 // 64)
    assert config.task.tx.schedule.warmup_steps == config.total_steps // 20


def test_weights_bring_their_architecture_and_recipe(folder, tmp_path, root):
    (tmp_path / "checkpoints").mkdir()
    made = dict(embed_dim=32, depths=[1, 2], num_heads=[1, 2], window_size=7, image_size=56, num_classes=9)
    model = configs.flatten({"task": {"model": configs.spec(Swin, **made)}})
    (tmp_path / "config.json").write_text(json.dumps(model))
    config = configs.load(f"{root}/{FILE}")
    scratch = config.task.tx.schedule.base_lr
    config.data_dir, config.init_from.path = str(folder), str(tmp_path)
    built = configs.build(config.task.model)
    assert (built.embed_dim, built.depths, built.window_size, built.image_size) == (32, (1, 2), 7, 56)
    assert built.num_classes == 3 and config.data.transform.transform.size == 56
    assert config.task.tx.schedule.base_lr < scratch and config.task.tx.layer_scale.decay < 1


def test_a_run_holds_back_what_the_run_before_it_did(folder, tmp_path, root):
    first = configs.load(f"{root}/{FILE}")
    first.data_dir = str(folder)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(configs.flatten(first)))
    second = configs.load(f"{root}/{FILE}")
    second.data_dir, second.seed = f"{folder}/../{folder.name}", 1
    assert second.data.source.seed == second.evals.val.run.data.source.seed == 1
    second.init_from.path = str(tmp_path)
    assert second.data.source.seed == second.evals.val.run.data.source.seed == 0
    trained, held = (configs.build(config.source, "data") for config in (first.data, second.evals.val.run.data))
    names = [{os.path.realpath(source.record_name(i)) for i in range(len(source))} for source in (trained, held)]
    assert len(names[1]) == 6 and not names[0] & names[1]
    with pytest.warns(UserWarning, match="held_back=0.4 holds back: it held back 0.2, which --config.held_back=0.2"):
        second.held_back = 0.4
        assert second.num_train == 18
    second.data_dir = str(tmp_path)  # of other images
    assert second.data.source.seed == 1


def test_a_folder_is_known_by_its_classes_when_its_path_is_another(folder, tmp_path, root, monkeypatch):
    """A copy, or a relative path from elsewhere: what was held back had been trained on, without a word."""
    first, second = (configs.load(f"{root}/{FILE}") for _ in range(2))
    first.data_dir, first.seed, second.init_from.path = str(folder), 1, str(tmp_path / "run")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    values = configs.flatten(first)
    (tmp_path / "run" / "config.json").write_text(json.dumps(values | {"data.source.root": folder.name}))
    monkeypatch.setattr(checkpoint, "class_names", lambda path: ("disc", "spots", "stripes"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / "copy")
    own_pictures.write(tmp_path / "more", 2, seed=1)
    for name in ("spots", "stripes"):
        os.rename(tmp_path / "more" / name, tmp_path / "more" / f"other_{name}")
    for where in (folder, "copy", "more"):  # which has one of the classes
        second.data_dir = str(where)
        assert second.data.source.seed == 1
    with pytest.warns(UserWarning, match="may have been trained on some of the images that held_back=0.4 holds back"):
        second.held_back = 0.4
        assert second.data.source.seed == 1
    os.rename("more/disc", "more/other")
    second.data_dir = "./more"
    assert second.data.source.seed == 0
    image_folder = {"data.source.fn": "swin_jax.data.sources.image_folder"}
    (tmp_path / "run" / "config.json").write_text(json.dumps(values | image_folder))
    second.data_dir = "./copy"
    with pytest.warns(UserWarning, match="was trained on images of the same classes, perhaps on some that are held"):
        assert second.data.source.seed == 0
    shutil.copytree("copy", "split/train")
    shutil.copytree("copy", "split/val")
    second.data_dir = "split"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert second.data.source.seed == 0


@pytest.mark.parametrize(
    "flags, message",
    [((), "give --config.data_dir=DIR"), (("--config.data_dir=nowhere",), "there is no folder nowhere")],
)
def test_a_folder_that_is_not_there_is_one_line(flags, message, tmp_path, launch):
    status, _, err = launch(FILE, tmp_path, *flags)
    assert status == 2 and message in err.splitlines()[-1]


def test_the_pictures_of_a_class_differ_in_all_but_its_pattern():
    rng = np.random.default_rng(0)
    for kind in own_pictures.CLASSES:
        images = [own_pictures.draw(rng, kind) for _ in range(20)]
        means = np.array([np.asarray(image).mean((0, 1)) for image in images])
        assert np.ptp(means, axis=0).min() > 80 and len({image.size for image in images}) > 15


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_three_kinds_of_pictures_are_told_apart(seed, tmp_path, launch):
    """As the table of docs/own_images.md, on drawings that its recipe was not chosen on."""
    own_pictures.write(tmp_path / "mine", 30, seed=2000 + seed)
    flags = (f"--config.data_dir={tmp_path / 'mine'}", f"--config.seed={seed}")
    assert launch(FILE, tmp_path / "run", *flags)[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    held_back = [line["eval/val/top1"] for line in lines if "eval/val/top1" in line][-1]
    own_pictures.write(tmp_path / "new", 100, seed=3000 + seed)
    assert launch(None, tmp_path / "run", f"--predict={tmp_path / 'new'}")[0] == 0
    rows = list(csv.DictReader((tmp_path / "run" / "predictions.csv").open()))
    right = [row["image"].split("/")[-2] == row["class_1"] for row in rows]
    assert len(rows) == 300
    print(f"| {seed} | {held_back:.1%} | {np.mean(right):.1%} |")
    assert held_back >= 0.95 and np.mean(right) >= 0.95
