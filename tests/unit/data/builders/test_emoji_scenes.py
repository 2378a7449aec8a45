"""The builder of scenes of emoji, on tiny made-up npm tarballs."""

import fcntl
import json
import os

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data.builders import emoji, emoji_scenes
from swin_jax.data.detection import rle
from swin_jax.data.emoji import scenes
from tests.unit.data.builders.test_emoji import tarball

COUNTS = {"train": 5, "val": 3, "shift": 2}


def icons(names, round_):
    """A disk or a square of a color of its own for each name."""
    shape = '<circle cx="5" cy="5" r="5" fill="{}"/>' if round_ else '<path d="M0 0h10v10H0z" fill="{}"/>'
    drawn = {
        name.replace(" ", "-"): {"body": shape.format(f"hsl({360 * index // 12},100%,50%)")}
        for index, name in enumerate(names)
    }
    return {"width": 10, "height": 10, "icons": drawn}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """(folder of tarballs, the vendors): squares to train on, one of two vendors with older names, disks for shift."""
    folder = tmp_path_factory.mktemp("tarballs")
    names = list(scenes.CODES)
    older = [{"frog": "frog face", "pizza": "slice of pizza"}.get(name, name) for name in names]
    squares = tarball(folder, "@set/squares", {"icons.json": icons(names, False)})
    old = tarball(folder, "@set/old", {"icons.json": icons(older, False)})
    disks = tarball(folder, "@set/disks", {"icons.json": icons(names, True)})
    vendors = {name: emoji.Vendor(squares, "MIT", "Us") for name in scenes.TRAIN_VENDORS}
    vendors["noto_v1"] = emoji.Vendor(old, "MIT", "Us, earlier")
    vendors["openmoji"] = emoji.Vendor(disks, "CC-BY-SA-4.0", "Them")
    return folder, vendors


@pytest.fixture(scope="module")
def built(packages, tmp_path_factory):
    folder, vendors = packages
    return emoji_scenes.build(str(tmp_path_factory.mktemp("data")), str(folder), COUNTS, vendors=vendors)


def read(path, part, split, index):
    return np.asarray(Image.open(path / part / split / f"{index:06d}.png"))


def test_pictures_labels_and_names(built):
    assert built.parts[-2:] == ("emoji_scenes", "1.0.0")
    assert (built / "classes.txt").read_text().splitlines() == list(scenes.CLASSES)
    for split, count in COUNTS.items():
        for part in ("images", "labels"):
            files = sorted(path.name for path in (built / part / split).iterdir())
            assert files == [f"{index:06d}.png" for index in range(count)]
        image, label = read(built, "images", split, 0), read(built, "labels", split, 0)
        assert image.shape == (128, 128, 3) and label.shape == (128, 128) and label.max() in range(1, 13)


def test_a_source_reads_them(built):
    source = scenes.emoji_scenes(str(built.parents[1]), "val")
    assert len(source) == 3 and source.class_names == scenes.CLASSES
    np.testing.assert_array_equal(np.asarray(source[1]["image"]), read(built, "images", "val", 1))
    np.testing.assert_array_equal(source[1]["label"], read(built, "labels", "val", 1))


def test_a_missing_data_set_is_named_with_its_builder(tmp_path):
    with pytest.raises(UserError, match=f"swin_jax.data.builders.emoji_scenes --data_dir={tmp_path}"):
        scenes.emoji_scenes(str(tmp_path), "val")


def test_annotations_are_of_the_objects(built):
    for split in COUNTS:
        content = json.loads((built / "annotations" / f"{split}.json").read_text())
        assert [image["file_name"] for image in content["images"]] == sorted(os.listdir(built / "images" / split))
        assert content["categories"][0] == {"id": 1, "name": "cat face"} and len(content["categories"]) == 12
        assert [found["id"] for found in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
        for found in content["annotations"]:
            mask = rle.decode(found["segmentation"])
            label = read(built, "labels", split, found["image_id"])
            assert (label[mask] == found["category_id"]).all() and mask.sum() == found["area"]
            rows, columns = np.nonzero(mask)
            x, y, width, height = found["bbox"]
            assert (x, y) == (columns.min(), rows.min())
            assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())


def test_shift_has_the_drawings_of_the_other_vendor(packages):
    """A disk covers less of its box than a square does."""
    folder, vendors = packages
    for name, opaque in (("noto", 1.0), ("openmoji", np.pi / 4)):
        sprite = emoji_scenes.load_sprites(folder / vendors[name].package.tarball, name)[3]
        assert abs((sprite[..., 3] > 127).mean() - opaque) < 0.03 and sprite.shape == (96, 96, 4)


def test_backgrounds_of_training_and_tests_share_no_pixel():
    photo = np.arange(10)[None, :, None].repeat(3, 2)
    left, right = (emoji_scenes._halves([photo], side)[0] for side in (False, True))
    assert not np.intersect1d(left, right).size and left.shape[1] + right.shape[1] == 10


def test_licenses_are_beside_the_data(built, capsys):
    text = (built / "LICENSES.md").read_text()
    assert "noto_v1: MIT. Us, earlier" in text and "openmoji: CC-BY-SA-4.0. Them" in text
    assert "china.jpg: CC-BY-2.0" in text and "fluent_3d" not in text


def test_a_scene_depends_on_its_number_alone(built, packages, tmp_path):
    folder, vendors = packages
    fewer = emoji_scenes.build(str(tmp_path), str(folder), dict.fromkeys(COUNTS, 1), vendors=vendors)
    for split in COUNTS:
        np.testing.assert_array_equal(read(fewer, "images", split, 0), read(built, "images", split, 0))


def test_what_is_there_is_kept_until_the_new_data_is_whole(packages, tmp_path, monkeypatch):
    folder, vendors = packages
    arguments = dict(source=str(folder), counts=dict.fromkeys(COUNTS, 1), vendors=vendors)
    path = emoji_scenes.build(str(tmp_path), **arguments)
    with pytest.raises(UserError, match="--overwrite"):
        emoji_scenes.build(str(tmp_path), **arguments)

    def stopped(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(scenes, "compose", stopped)
        with pytest.raises(KeyboardInterrupt):
            emoji_scenes.build(str(tmp_path), **arguments, overwrite=True)
    assert (path / "LICENSES.md").exists() and (path / "images" / "val" / "000000.png").exists()
    emoji_scenes.build(str(tmp_path), **{**arguments, "counts": {**COUNTS, "val": 2}}, overwrite=True)
    assert [entry.name for entry in path.parent.iterdir()] == ["1.0.0"] and len(os.listdir(path / "images/val")) == 2


def test_a_second_builder_is_refused(packages, tmp_path):
    folder, vendors = packages
    (tmp_path / "emoji_scenes").mkdir()
    handle = os.open(tmp_path / "emoji_scenes", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(UserError, match="another builder is at work"):
            emoji_scenes.build(str(tmp_path), str(folder), COUNTS, vendors=vendors)
    finally:
        os.close(handle)


def test_a_missing_drawing_is_named(packages, tmp_path):
    folder, vendors = packages
    some = icons([name for name in scenes.CODES if name != "guitar"], False)
    package = tarball(tmp_path, "@set/some", {"icons.json": some})
    (folder / package.tarball).write_bytes((tmp_path / package.tarball).read_bytes())
    lacking = {**vendors, "twemoji": emoji.Vendor(package, "MIT", "Us")}
    with pytest.raises(UserError, match=r"\(twemoji\) has no drawing of: guitar"):
        emoji_scenes.build(str(tmp_path), str(folder), COUNTS, vendors=lacking)


def test_empty_splits_are_refused(packages, tmp_path):
    with pytest.raises(UserError, match="--num_val must be positive, not 0"):
        emoji_scenes.build(str(tmp_path), str(packages[0]), {"val": 0}, vendors=packages[1])
