"""CLIP's image preprocessing: modes, dtypes, and agreement between the notebook's and the loader's form."""

import pickle

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data.image import transforms as image_lib


def picture(height, width, channels=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("mode", image_lib.RESIZE_MODES)
@pytest.mark.parametrize(("height", "width", "channels"), [(40, 61, 3), (61, 40, 1), (31, 31, 4), (8, 9, 3)])
def test_shape_and_loader_form_agree(mode, height, width, channels):
    image = picture(height, width, channels)
    floats = image_lib.clip_preprocess(32, mode=mode)(image)
    assert floats.shape == (32, 32, 3) and floats.dtype == np.float32
    example = image_lib.clip_eval_transform(32, mode=mode)({"image": image, "label": 3})
    assert example["image"].dtype == np.uint8 and example["label"] == 3
    expected = (example["image"] / 255 - image_lib.CLIP_MEAN) / image_lib.CLIP_STD
    np.testing.assert_allclose(floats, expected, atol=1e-6)
    np.testing.assert_array_equal(image_lib.clip_preprocess(32, mode=mode)(np.asarray(image)), floats)


def test_shortest_crops_the_center():
    array = np.zeros((20, 40, 3), np.uint8)
    array[:, 10:30] = 255
    assert image_lib.clip_eval_transform(20)({"image": array})["image"].min() == 255


def test_longest_keeps_everything_and_pads():
    array = np.full((20, 40, 3), 255, np.uint8)
    image = image_lib.clip_eval_transform(40, mode="longest", fill=7)({"image": array})["image"]
    assert (image[10:30] == 255).all() and (image[:10] == 7).all() and (image[30:] == 7).all()


def test_squash_keeps_the_borders():
    array = np.zeros((20, 40, 3), np.uint8)
    array[:, :20] = 255
    image = image_lib.clip_eval_transform(20, mode="squash")({"image": array})["image"]
    assert (image[:, :8] > 250).all() and (image[:, 12:] < 5).all()


def test_other_statistics():
    array = np.full((8, 8, 3), 255, np.uint8)
    floats = image_lib.clip_preprocess(8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))(array)
    np.testing.assert_array_equal(floats, 1)


def test_training_crop_is_a_function_of_the_generator():
    transform = pickle.loads(pickle.dumps(image_lib.clip_train_transform(24)))
    first, again, other = (transform({"image": picture(50, 60)}, np.random.default_rng(i))["image"] for i in (0, 0, 1))
    assert first.shape == (24, 24, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: image_lib.clip_preprocess(32, mode="center"), "shortest, longest, squash"),
        (lambda: image_lib.clip_preprocess(32, interpolation="cubic"), "bicubic"),
        (lambda: image_lib.clip_preprocess(32)(np.zeros((8, 8, 3), np.float32)), "uint8"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(UserError, match=message):
        call()
