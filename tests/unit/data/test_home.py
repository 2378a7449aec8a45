"""Paths below the user's home, written with the `~` that the shell leaves alone after `=`."""

import json
import tarfile
import zipfile

import pytest
from experiments.swin import finetune_folder
from PIL import Image

from swin_jax.core.public_names import name_of
from swin_jax.data import sources
from swin_jax.data.image import archives, own_images, scan
from swin_jax.data.image_text import json_file, lists, patterns


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with pictures of two classes, in folders, an archive, lists and a tar."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (8, 8)).save(tmp_path / f"images/{name}/{i}.png")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(tmp_path / "images/cat/0.png", "cat/0.png")
    (tmp_path / "labels.csv").write_text("path,label\nimages/cat/0.png,cat\nimages/dog/0.png,dog\n")
    rows = [{"image": f"{name}/0.png", "caption": f"a {name}"} for name in ("cat", "dog")]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    (tmp_path / "pairs.csv").write_text("image,caption\ncat/0.png,a cat\ndog/0.png,a dog\n")
    with tarfile.open(tmp_path / "00.tar", "w"):
        pass
    return tmp_path


@pytest.mark.parametrize(
    "read, count",
    [
        (lambda: sources.image_folder("~/images"), 4),
        (lambda: sources.image_folder("~", "images"), 4),
        (lambda: sources.flat_folder("~/images"), 4),
        (lambda: sources.flat_folder("~/images/cat/0.png"), 1),
        (lambda: sources.image_list("~/labels.csv"), 2),
        (lambda: archives.image_zip("~/images.zip"), 1),
        (lambda: archives.flat_zip("~/images.zip"), 1),
        (lambda: own_images.own_images("~/images", "train"), 2),
        (lambda: lists.table("~/pairs.csv", "~/images"), 2),
        (lambda: lists.jsonl("~/pairs.jsonl", "~/images"), 2),
        (lambda: json_file.json_file("~/pairs.json", "~/images"), 2),
    ],
)
def test_sources_read_below_home(home, read, count):
    source = read()
    assert len(source) == count and source[0]["image"].size == (8, 8)


def test_classes_and_shards_below_home_are_found(home):
    assert own_images.count("~/images") == own_images.Count(classes=2, train=2, val=2)
    assert patterns.expand("~/{00..00}.tar") == [str(home / "00.tar")]


def test_a_report_is_written_below_home(home):
    scan.run(["--folder=~/images", "--report=~/report.jsonl"])
    assert (home / "report.jsonl").is_file()


def test_a_folder_is_the_same_with_and_without_its_home(home):
    """Otherwise a second run chose other images to hold back, among them some that the first trained on."""
    fields = {"fn": name_of(own_images.own_images), "root": "~/images", "share": 0.2, "seed": 7}
    (home / "run/checkpoints").mkdir(parents=True)
    saved = {f"data.source.{key}": value for key, value in fields.items()}
    (home / "run/config.json").write_text(json.dumps(saved))
    assert finetune_folder._split_seed("~/run", str(home / "images"), 0.2, 0) == 7
