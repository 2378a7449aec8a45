"""ADE20K's folder: classes and colors from its list, labels that count from 1."""

import os

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UserError
from swin_jax.data.segmentation import palettes
from swin_jax.data.segmentation.ade20k import ade20k, read_classes

FIRST = ("wall", "building, edifice", "sky", "floor, flooring", "tree", "ceiling", "road, route", "bed ")


def listed(rows=150, header="Idx\tRatio\tTrain\tVal\tStuff\tName", ending=""):
    names = [*FIRST, *(f"thing {i}, object" for i in range(len(FIRST), rows))]
    lines = [f"{i}\t0.01\t100\t10\t1\t{name}{ending}" for i, name in enumerate(names, 1)]
    return "\n".join([header, *lines]) + "\n"


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "ADEChallengeData2016"
    for folder, split in (("training", "train"), ("validation", "val")):
        (root / "images" / folder).mkdir(parents=True)
        (root / "annotations" / folder).mkdir(parents=True)
        for index in (1, 2):
            name = f"ADE_{split}_{index:08d}"
            rows = np.arange(256).reshape(16, 16).clip(0, 150).astype(np.uint8)
            Image.new("RGB", (16, 16), (index, 0, 0)).save(root / f"images/{folder}/{name}.jpg")
            Image.fromarray(rows).save(root / f"annotations/{folder}/{name}.png")
    (root / "objectInfo150.txt").write_text(listed())
    return root


@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_begin_at_zero_and_nothing_is_255(root, split):
    source = ade20k(str(root), split)
    assert len(source) == 2 and f"ADE_{split}_00000002.jpg" in source.record_name(1)
    expected = np.arange(-1, 255).reshape(16, 16).clip(-1, 149)
    expected[0, 0] = IGNORED
    np.testing.assert_array_equal(source[0]["label"], expected)
    assert len(ade20k(str(root.parent), split)) == 2  # the folder around it


def test_names_and_colors_come_from_the_list(root):
    source = ade20k(str(root), "val", check=False)
    assert source.class_names[:8] == ("wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed")
    assert len(source.class_names) == 150 and source.palette == palettes.distinct(150)
    (root / "objectInfo150.txt").write_text(
        listed(header="Idx\tRatio\tTrain\tVal\tStuff\tName\tColor", ending="\t#0102fF")
    )
    source = ade20k(str(root), "val", check=False)
    assert source.palette == ((1, 2, 255),) * 150 and source.class_names[1] == "building"
    os.rename(root / "objectInfo150.txt", root.parent / "objectInfo150.txt")
    assert ade20k(str(root), "val", check=False).class_names[0] == "wall"


def test_two_classes_of_one_first_name_keep_all_names(root):
    text = listed().replace("thing 9, object", "screen, crt").replace("thing 10, object", "screen,  silver")
    (root / "objectInfo150.txt").write_text(text)
    names, _ = read_classes(str(root / "objectInfo150.txt"))
    assert names[9:11] == ("screen, crt", "screen, silver")


@pytest.mark.parametrize(
    "text, words",
    [
        (listed(149), "classes 1 to 150"),
        ("wall\nsky\n", "no columns Idx and Name"),
        ("", "no columns"),
        (None, "has no"),
    ],
)
def test_another_list_is_refused(root, text, words):
    if text is None:
        os.remove(root / "objectInfo150.txt")
    else:
        (root / "objectInfo150.txt").write_text(text)
    with pytest.raises(UserError, match=words):
        ade20k(str(root), "val")


def test_other_sets_are_refused(root, tmp_path):
    array = np.full((16, 16), 151, np.uint8)
    Image.fromarray(array).save(root / "annotations/validation/ADE_val_00000001.png")
    with pytest.raises(UserError, match="has the label 151, and there are 150 classes, 1 to 150"):
        ade20k(str(root), "val")
    (root / "images/ADE").mkdir()
    with pytest.raises(UserError, match="full ADE20K"):
        ade20k(str(root), "val")
    with pytest.raises(UserError, match="there is no folder"):
        ade20k(str(tmp_path / "nowhere"), "val")
    with pytest.raises(UserError, match="needs its folder"):
        ade20k(None, "val")
