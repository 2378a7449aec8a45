"""Labels of each pixel: mapped to another set by name, checked in batches, and made up."""

import numpy as np
import pytest

from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UserError
from swin_jax.data import fake, labels
from swin_jax.data.image.transforms import to_rgb
from swin_jax.data.pipeline import EvalData, TrainData

SCENES = fake.scenes((12, 20), num_classes=3, num_examples=6)


def same(example, rng=None):
    return example


def batch(data, size=4):
    batches = data.batches(*((0,) if isinstance(data, TrainData) else (size,)), range(size))
    found = next(batches)
    batches.close()
    return found


def test_scenes_are_equal_at_any_time_and_every_class_has_its_color():
    for index in range(len(SCENES)):
        one, other = SCENES[index], fake.scenes((12, 20), 3, 6)[index]
        assert one["image"].shape == (12, 20, 3) and one["label"].shape == (12, 20)
        assert one["image"].dtype == one["label"].dtype == np.uint8
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["label"], other["label"])
        assert set(np.unique(one["label"])) <= {0, 1, 2, IGNORED} and (one["label"] == IGNORED).any()
    colors = np.stack([SCENES[i]["image"].reshape(-1, 3) for i in range(6)]).reshape(-1, 3)
    classes = np.stack([SCENES[i]["label"].ravel() for i in range(6)]).ravel()
    means = [colors[classes == label].mean(axis=0) for label in range(3)]
    assert min(np.abs(means[i] - means[j]).max() for i in range(3) for j in range(i)) > 20
    assert to_rgb(SCENES[0]["image"]).size == (20, 12)


def test_another_split_has_other_scenes_in_the_same_colors():
    test = fake.scenes((12, 20), 3, 6, split="test")[0]
    assert (test["label"] != SCENES[0]["label"]).any()
    background = [scene["image"][scene["label"] == 0].mean(axis=0) for scene in (test, SCENES[0])]
    np.testing.assert_allclose(*background, atol=8)


def test_scenes_refuse_what_a_byte_cannot_tell():
    with pytest.raises(UserError, match="at most 255 classes"):
        fake.scenes(8, num_classes=256)
    with pytest.raises(UserError, match="'train' and 'test'"):
        fake.scenes(8, split="val")


@pytest.mark.parametrize("make", [TrainData, EvalData])
def test_batches_have_a_label_for_each_pixel(make):
    data = make(source=SCENES, transform=same, batch_size=4, num_threads=0, expected_classes=3)
    found = batch(data)
    assert found["label"].shape == (4, 12, 20) and found["label"].dtype == np.uint8
    with pytest.raises(UserError, match="has 3 classes"):
        batch(make(source=SCENES, transform=same, batch_size=4, num_threads=0, expected_classes=2))


def test_a_label_beyond_the_classes_is_refused_in_a_batch_and_255_is_none():
    maps = np.zeros((2, 4, 4), np.uint8)
    maps[1, 2, 3] = IGNORED
    labels.check(maps, 2)
    labels.check(np.full((1, 2, 2), IGNORED, np.uint8), 2)
    maps[0, 0, 0] = 2
    with pytest.raises(UserError, match="has the label 2; the model has 2 classes"):
        labels.check(maps, 2)


def test_labels_of_pixels_are_mapped_by_name_and_255_stays():
    data = EvalData(source=SCENES, transform=same, batch_size=4, num_threads=0)
    mapped = batch(data.with_classes((3, 0, 1), ("class 1", "class 2", "other", "class 0")))["label"]
    plain = batch(data)["label"]
    assert mapped.dtype == np.uint8
    for before, after in {0: 3, 1: 0, 2: 1, IGNORED: IGNORED}.items():
        np.testing.assert_array_equal(mapped == after, plain == before)


def test_a_pixel_of_no_class_of_its_set_is_an_error_when_labels_are_mapped():
    source = labels.Relabeled(SCENES, (1, 0), ("class 1", "class 0"))
    index = next(i for i in range(len(SCENES)) if (SCENES[i]["label"] == 2).any())
    with pytest.raises(
        UserError, match=f"fake train scene {index} has the label 2, but its data set has only 2 classes"
    ):
        source[index]
