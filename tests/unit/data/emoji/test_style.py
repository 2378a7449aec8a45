"""Augmentation of drawings: what it changes and what it leaves."""

import numpy as np
import pytest
from PIL import Image

from swin_jax.data.emoji.style import style_train_transform

STILL = dict(rotation=0, zoom=(1, 1), shift=0, outline=0, gray=0, hue=0, saturation=(1, 1), gamma=0)


def drawing(size=64):
    image = np.full((size, size, 3), 255, np.uint8)
    image[16:48, 20:40] = (200, 60, 20)
    return image


def transformed(image, seed=0, **options):
    out = style_train_transform(options.pop("size", 64), **options)(
        {"image": image, "label": 3}, np.random.default_rng(seed)
    )
    assert out["label"] == 3 and out["image"].dtype == np.uint8
    return out["image"]


class Middle:
    """A generator whose draws are all in the middle of their ranges."""

    def uniform(self, low=0.0, high=1.0, size=None):
        return (low + high) / 2 if size is None else np.full(size, (low + high) / 2)

    def random(self):
        return 0.5

    def normal(self, mean=0.0, deviation=1.0):
        return mean


def test_nothing_asked_for_changes_nothing():
    image = drawing()
    out = style_train_transform(64, **STILL)({"image": image}, Middle())["image"]
    np.testing.assert_array_equal(out, image)
    half = style_train_transform(32, **STILL)({"image": Image.fromarray(image)}, Middle())["image"]
    assert half.shape == (32, 32, 3) and np.abs(half[12:20, 12:18].astype(int) - (200, 60, 20)).max() <= 1


def test_what_comes_from_outside_is_white():
    out = transformed(np.zeros((64, 64, 3), np.uint8), rotation=15, zoom=(0.5, 0.5), outline=0, gamma=0)
    assert (out[0] == 255).all() and (out[:, 0] == 255).all() and out[32, 32].max() == 0


def test_gray_pictures_are_gray_and_keep_their_brightness():
    out = transformed(drawing(), **STILL | dict(gray=1))
    assert (out == out[..., :1]).all()
    assert abs(int(out[32, 30, 0]) - (0.299 * 200 + 0.587 * 60 + 0.114 * 20)) <= 2


def test_a_turn_of_hue_keeps_the_sum_of_the_channels():
    image = np.full((8, 8, 3), (120, 100, 110), np.uint8)
    turned = [transformed(image, seed, size=8, **STILL | dict(hue=1.0))[4, 4].astype(int) for seed in range(20)]
    assert max(np.abs(color - (120, 100, 110)).max() for color in turned) > 5
    assert all(abs(color.sum() - 330) <= 3 for color in turned)


def test_outlines_are_dark_where_neighbors_differ_and_only_there():
    image = drawing()
    seeds = [transformed(image, seed, **STILL | dict(outline=1)) for seed in range(12)]
    for out in seeds:
        assert (out[:10] == 255).all() and out[12:20, 30].max(-1).min() < 60  # the upper edge, wherever it went
    inside = {tuple(out[32, 30]) for out in seeds}
    assert (255, 255, 255) in inside and len(inside) > 1  # over white, and over the picture


@pytest.mark.parametrize("options", [{}, dict(outline=1)])
def test_it_is_a_function_of_the_generator(options):
    one, same, other = (transformed(drawing(), seed, size=32, **options) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
