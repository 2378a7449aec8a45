"""The builder of avatars: what is drawn is where it should be, and the same whoever draws it."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data.avatars import attributes as avatars
from swin_jax.data.avatars import images
from swin_jax.data.builders import avatars as builder

PLAIN = {choice: next(iter(options)) for choice, options in avatars.CHOICES.items()} | {"mouth": "SAD"}
ROWS = {"hair": slice(0, 12), "eyes": slice(13, 23), "mouth": slice(23, 32)}


def pixels(**change):
    image = Image.open(io.BytesIO(builder.render(PLAIN | change, 32)))
    assert image.mode == "RGB" and image.size == (32, 32)
    return np.asarray(image).astype(int)


def changed(**change):
    """The parts of the picture in which a face looks otherwise than the plain one."""
    difference = np.abs(pixels(**change) - pixels()).max(axis=(1, 2))
    return {name for name, rows in ROWS.items() if difference[rows].max() > 40}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("avatars")
    builder.build(str(data_dir), num_train=12, num_test=4, workers=1)
    return str(data_dir)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"accessory": "PRESCRIPTION_2"}, {"eyes"}),
        ({"eyes": "SURPRISED"}, {"eyes"}),
        ({"mouth": "BIG_SMILE"}, {"mouth"}),
        ({"facial_hair": "BEARD_MEDIUM"}, {"eyes", "mouth"}),
        ({"top": "WINTER_HAT_3"}, {"hair", "eyes"}),
        ({"hair_color": "RED"}, {"hair", "eyes"}),
        ({"hat_color": "PINK"}, set()),
    ],
    ids=lambda value: str(sorted(value)),
)
def test_an_attribute_is_seen_where_it_lies(change, parts):
    assert changed(**change) == parts


def test_what_is_hidden_is_not_seen():
    for face in (avatars.draw(0, "train", index) for index in range(40)):
        hidden = {choice for choice in face if choice not in avatars.appearance(face)}
        for choice in hidden:
            other = next(option for option in avatars.CHOICES[choice] if option != face[choice])
            assert builder.render(face, 32) == builder.render(face | {choice: other}, 32), choice


def test_hair_has_the_color_that_its_attribute_says():
    reds = {color: pixels(hair_color=color)[3:6, 14:18].mean(axis=(0, 1)) for color in avatars.CHOICES["hair_color"]}
    assert reds["RED"][0] > 180 and reds["RED"][1:].max() < 70
    assert reds["BLACK"].max() < 60
    assert reds["BLONDE_GOLDEN"][0] > reds["BLONDE_GOLDEN"][2] + 60


def test_the_background_is_one_color():
    corners = pixels()[[0, 0, 31, 31], [0, 31, 0, 31]]
    np.testing.assert_array_equal(corners, [builder.BACKGROUND] * 4)


def test_builds_a_readable_data_set(built, capsys):
    for split, count in (("train", 12), ("test", 4)):
        source = images.faces(built, split, with_faces=True)
        assert len(source) == count
        for index in range(count):
            face = avatars.draw(0, split, index)
            record = source[index]
            assert record["face"] == face
            expected = np.asarray(Image.open(io.BytesIO(builder.render(face, 32))))
            np.testing.assert_array_equal(record["image"], expected)
    with pytest.raises(UserError, match="no split 'validation'; they have"):
        images.faces(built, "validation")


def test_stored_attributes_are_those_of_the_definition(built):
    import tensorflow_datasets as tfds

    directory = builder.Path(built) / "avatars" / builder.VERSION
    data = tfds.builder_from_directory(directory)
    for index, record in enumerate(data.as_data_source("train")):
        found = avatars.attributes(avatars.draw(0, "train", index))
        np.testing.assert_array_equal(record["attributes"], found)
        np.testing.assert_array_equal(record["visible"], avatars.visible(found))
    assert all(name in data.info.description for name in (*avatars.ATTRIBUTES, "python_avatars 1.4.1 (MIT"))
    assert "Pablo Stanley" in (directory / "LICENSES.md").read_text()
    with Image.open(directory / "samples.png") as sheet:
        assert sheet.size == (12 * 64, 4 * 64)
        second = np.asarray(sheet)[:64:2, 64:128:2]
        np.testing.assert_array_equal(second, images.faces(built, "train").images[1])


def test_two_processes_draw_what_one_draws(built, tmp_path):
    builder.build(str(tmp_path), num_train=3, num_test=1, workers=2)
    one, two = images.faces(built, "train"), images.faces(str(tmp_path), "train")
    np.testing.assert_array_equal(two.images, one.images[:3])
    assert two.faces == one.faces[:3]


def test_other_sizes_have_names_of_their_own(tmp_path):
    assert builder.build(str(tmp_path), size=48, num_train=1, num_test=1, workers=1).parent.name == "avatars_48"
    assert images.faces(str(tmp_path), "test", name="avatars_48").images.shape == (1, 48, 48, 3)


def test_wrong_numbers_and_what_is_not_installed(tmp_path, built, monkeypatch):
    with pytest.raises(UserError, match="--size must be 16 to 1024"):
        builder.build(str(tmp_path), size=8)
    with pytest.raises(UserError, match="must be positive, not 5 and 0"):
        builder.build(str(tmp_path), num_train=5, num_test=0)
    with pytest.raises(UserError, match="--overwrite"):
        builder.build(built)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "resvg_py", None)
        with pytest.raises(UserError, match=r"pip install -e '.\[avatars\]'"):
            builder.build(str(tmp_path))
    monkeypatch.setattr(builder, "PACKAGE_VERSION", "1.4.0")
    with pytest.raises(UserError, match="1.4.0, not 1.4.1: pip install"):
        builder.build(str(tmp_path))
