"""Scenes of emoji: picture, classes and objects agree, and follow from the generator."""

import numpy as np
import pytest

from swin_jax.data.emoji import scenes

COLORS = {1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255)}
GRAY = np.full((200, 150, 3), 128, np.uint8)


def square(color, size=40):
    """An opaque square."""
    return np.full((size, size, 4), (*color, 255), np.uint8)


SPRITES = {label: [square(color)] for label, color in COLORS.items()}


@pytest.fixture(scope="module")
def drawn():
    return [scenes.compose(SPRITES, [GRAY], np.random.default_rng((0, index))) for index in range(60)]


def test_a_scene_follows_from_its_generator(drawn):
    again = scenes.compose(SPRITES, [GRAY], np.random.default_rng((0, 7)))
    np.testing.assert_array_equal(again.image, drawn[7].image)
    np.testing.assert_array_equal(again.label, drawn[7].label)
    assert not np.array_equal(again.image, drawn[8].image)


def test_the_picture_shows_the_class_of_each_pixel(drawn):
    """Away from edges, which are blended, the strongest channel is that of the class."""
    for scene in drawn:
        assert scene.image.shape == (128, 128, 3) and scene.image.dtype == scene.label.dtype == np.uint8
        inner = np.ones_like(scene.label, bool)
        for axis in (0, 1):
            for shift in (-2, -1, 1, 2):
                inner &= np.roll(scene.label, shift, axis) == scene.label
        for label in COLORS:
            pixels = scene.image[inner & (scene.label == label)].astype(int)
            assert (pixels.argmax(axis=-1) == label - 1).all()
        spread = np.ptp(scene.image[inner & (scene.label == 0)].astype(int), axis=-1)
        assert spread.mean() < 12


def test_objects_are_the_visible_pixels_of_one_emoji(drawn):
    counts = [len(scene.objects) for scene in drawn]
    assert max(counts) <= 7 and 3 < np.mean(counts) < 5
    for scene in drawn:
        for found in scene.objects:
            assert found.mask.sum() >= 40 and (scene.label[found.mask] == found.label).all()
            x, y, width, height = found.box
            tight = np.zeros_like(found.mask)
            tight[y : y + height, x : x + width] = True
            assert (tight | ~found.mask).all()
            assert found.mask[y].any() and found.mask[y + height - 1].any()
            assert found.mask[:, x].any() and found.mask[:, x + width - 1].any()
        assert np.sum([found.mask for found in scene.objects], axis=0).max() <= 1


def test_emoji_behind_others_do_not_count_but_keep_their_pixels(drawn):
    objects = [np.any([found.mask for found in scene.objects], axis=0) for scene in drawn]
    left = [((scene.label > 0) & ~covered).sum() for scene, covered in zip(drawn, objects)]
    assert any(0 < pixels for pixels in left)


@pytest.mark.parametrize(
    ("visible", "inside", "counts"), [(39, 39, False), (40, 40, True), (300, 1000, True), (299, 1000, False)]
)
def test_an_object_has_40_visible_pixels_and_three_tenths_of_those_inside(visible, inside, counts):
    assert scenes.is_object(visible, inside) == counts


def test_sizes_and_places_vary_as_described(drawn):
    """A square of side s, turned by up to 25 degrees, has a box of up to 1.33 s; at most a quarter is outside."""
    boxes = np.array([found.box for scene in drawn for found in scene.objects])
    longer = boxes[:, 2:].max(axis=1)
    assert longer.max() <= 64 * 1.34 + 2 and np.percentile(longer, 90) > 50 and np.percentile(longer, 10) < 30
    at_the_edge = (boxes[:, :2] == 0).any(axis=1) | (boxes[:, :2] + boxes[:, 2:] == 128).any(axis=1)
    assert 0.05 < at_the_edge.mean() < 0.6


def test_transparent_parts_show_the_background():
    sprite = square((255, 0, 0))
    sprite[:, 20:, 3] = 0
    scene = scenes.compose({1: [scenes.crop_sprite(sprite)]}, [GRAY], np.random.default_rng(0))
    assert scenes.crop_sprite(sprite).shape == (40, 20, 4)
    red = scene.image[..., 0].astype(int) - scene.image[..., 1] > 60
    assert (red == (scene.label == 1)).mean() > 0.97


def test_classes_and_splits_are_as_published():
    assert len(scenes.CLASSES) == 13 and scenes.CLASSES[0] == "background"
    assert scenes.SPLITS["train"].vendors == scenes.SPLITS["val"].vendors
    assert not set(scenes.SPLITS["shift"].vendors) & set(scenes.SPLITS["train"].vendors)
    assert [split.count for split in scenes.SPLITS.values()] == [4000, 400, 400]
    assert len({split.seed for split in scenes.SPLITS.values()}) == 3
