"""Random colors leave alone what they are not asked to change, and follow the generator."""

import numpy as np
import pytest

from swin_jax.data.image.color import color_train_transform

STILL = dict(gray=0.0, hue=0.0, saturation=(1.0, 1.0), gamma=0.0)
IMAGE = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)


def changed(seed=0, **options):
    inner = lambda example, rng: {**example, "drawn": rng.random()}  # noqa: E731
    transform = color_train_transform(inner, **STILL | options)
    return transform({"image": IMAGE, "label": 4}, np.random.default_rng(seed))


def test_nothing_changes_where_nothing_may():
    found = changed()
    assert np.abs(found["image"].astype(int) - IMAGE).max() <= 1 and found["label"] == 4
    assert found["image"].dtype == np.uint8 and found["drawn"] == np.random.default_rng(0).random()


@pytest.mark.parametrize("options", [dict(hue=1.0), dict(saturation=(0.0, 0.2)), dict(gamma=0.5), dict(gray=1.0)])
def test_each_change_changes_and_follows_the_generator(options):
    one, same, other = (changed(seed, **options)["image"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != IMAGE).any() and ((one == other).all() == (options == dict(gray=1.0)))


def test_gray_has_equal_channels_and_hue_keeps_brightness():
    gray = changed(gray=1.0)["image"]
    assert (gray == gray[..., :1]).all()
    luma = IMAGE @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray[..., 0] - luma).max() <= 1
    inside = np.full((4, 4, 3), (120, 100, 110), np.uint8)
    transform = color_train_transform(lambda example, rng: example, **STILL | dict(hue=1.0))
    turned = transform({"image": inside}, np.random.default_rng(3))["image"].astype(int)
    assert np.abs(turned.sum(-1) - 330).max() <= 3 and np.abs(turned - inside).max() > 5
