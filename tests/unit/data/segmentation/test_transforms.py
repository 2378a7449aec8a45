"""Transforms of images and their labels: geometry that both share, choices that a generator draws, extreme sizes."""

import zlib

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data import fake
from swin_jax.data.pipeline import TrainData
from swin_jax.data.segmentation import photometric, resizing, transforms

PLAIN = dict(hflip=0.0, distort=False)


def rng(seed=0):
    return np.random.default_rng(seed)


def coded(height, width):
    """Red and label count columns, green counts rows, so that geometry shows in both."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([columns, rows, np.full_like(rows, 7)], -1).astype(np.uint8)
    return {"image": image, "label": columns.astype(np.uint8)}


def noise(height, width, seed=0, classes=4):
    draw = rng(seed)
    image = draw.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return {"image": image, "label": draw.integers(0, classes, (height, width)).astype(np.uint8)}


def test_image_and_label_stay_together():
    transform = transforms.train_transform(16, scale=None, distort=False)
    seen = set()
    for seed in range(20):
        found = transform(coded(30, 40), rng(seed))
        assert found["image"].shape == (16, 16, 3) and found["label"].shape == (16, 16)
        np.testing.assert_array_equal(found["image"][..., 0], found["label"])
        steps = np.diff(found["label"][0].astype(int))
        assert (steps == steps[0]).all() and abs(steps[0]) == 1
        seen.add((int(found["label"][0].min()), int(found["image"][0, 0, 1]), int(steps[0])))
    assert len(seen) > 15 and {step for *_, step in seen} == {1, -1}


def test_a_generator_decides_everything():
    example, transform = noise(40, 60), transforms.train_transform((32, 24), scale=(128, 32))
    one, other, third = (transform(example, rng(seed)) for seed in (5, 5, 6))
    for key in ("image", "label", "size"):
        np.testing.assert_array_equal(one[key], other[key])
    assert one["image"].shape == third["image"].shape == (32, 24, 3)
    assert (one["image"] != third["image"]).any()


def test_a_crop_is_the_part_of_the_resized_image():
    example, size, box = noise(37, 50), (61, 90), (7, 11, 39, 75)
    part = np.s_[box[0] : box[2], box[1] : box[3]]
    whole = resizing.resize_image(example["image"], size)
    np.testing.assert_array_equal(resizing.resize_image(example["image"], size, box), whole[part])
    whole = resizing.resize_labels(example["label"], size)
    np.testing.assert_array_equal(resizing.resize_labels(example["label"], size, box), whole[part])
    np.testing.assert_array_equal(resizing.resize_image(example["image"], (37, 50)), example["image"])


# The checksums are zlib.crc32 of what OpenCV 5.0.0 (x86, AVX2) makes of the arrays of these tests:
#     cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV), cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), cv2.resize(image, (40, 9))
LEVELS = np.arange(0, 256, 5)


def test_hue_saturation_and_value_are_those_of_opencv():
    colors = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS, indexing="ij"), -1)
    found = np.stack(photometric.to_hsv(colors.astype(np.uint8)), -1)
    assert zlib.crc32(found.astype(np.uint8)) == 2523014156


def test_colors_of_hue_saturation_and_value_are_those_of_opencv():
    saturation, hue, value = np.meshgrid(LEVELS, np.arange(180), LEVELS, indexing="ij")
    lines = (array.reshape(208, 2340) for array in (hue, saturation, value))  # 2340 is no multiple of 32
    assert zlib.crc32(np.ascontiguousarray(photometric.to_rgb(*lines))) == 2347277937


def test_bilinear_interpolation_is_that_of_opencv():
    assert zlib.crc32(resizing.resize_image(noise(20, 27)["image"], (9, 40))) == 378030178


def test_bilinear_interpolation_is_that_of_float_numbers_within_one_level():
    image = noise(23, 31)["image"]
    for size in ((41, 17), (12, 62), (23, 40), (5, 5)):
        found = resizing.resize_image(image, size).astype(float)
        at = [np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1) for n, m in zip(size, image.shape)]
        weights = [np.maximum(1 - abs(x[:, None] - np.arange(m)), 0) for x, m in zip(at, image.shape)]
        expected = np.einsum("ih,jw,hwc->ijc", *weights, image.astype(float))
        assert abs(found - expected).max() <= 1


def test_labels_are_taken_from_one_pixel_as_opencv_takes_them():
    # At 80 to 98 pixels, cv2.resize with INTER_NEAREST takes pixel 49 from 39, where 49 * 80 / 98 is 40.
    row = resizing.resize_labels(np.arange(80, dtype=np.uint8)[None], (1, 98))[0]
    assert row[49] == 39 and row[50] == 40 and row[-1] == 79


@pytest.mark.parametrize("height, width", [(1, 1), (1, 300), (300, 1), (3, 5), (64, 64), (200, 30)])
@pytest.mark.parametrize("scale", [(256, 64), None])
def test_images_of_any_size_are_padded_to_the_crop(height, width, scale):
    transform = transforms.train_transform(48, scale=scale, ratio=(0.5, 0.5))
    found = transform(noise(height, width), rng())
    rows, columns = found["size"]
    assert found["image"].shape == (48, 48, 3) and found["image"].dtype == np.uint8
    assert 1 <= rows <= 48 and 1 <= columns <= 48
    expected = (height, width) if scale is None else resizing.fitted_size((height, width), (128, 32))
    assert (rows, columns) == (min(expected[0], 48), min(expected[1], 48))
    assert (found["label"][:rows, :columns] < 4).all()
    assert (found["label"][rows:] == IGNORED).all() and (found["label"][:, columns:] == IGNORED).all()
    assert (found["image"][rows:] == 0).all() and (found["image"][:, columns:] == 0).all()


@pytest.mark.parametrize("color", [0, 255, 77])
def test_an_image_of_one_color_stays_one(color):
    example = {"image": np.full((30, 50, 3), color, np.uint8), "label": np.zeros((30, 50), np.uint8)}
    found = transforms.train_transform(16, scale=(64, 40), **PLAIN)(example, rng())
    # OpenCV's integers lose the last level of some, as they do with images of any content.
    assert abs(found["image"].astype(int) - color).max() <= 1 and (found["label"] == 0).all()
    for seed in range(8):
        found = transforms.train_transform(16, scale=(64, 40))(example, rng(seed))
        assert len(np.unique(found["image"])) == 1


def test_a_narrow_image_keeps_a_side_of_one_pixel():
    assert resizing.fitted_size((1, 60000), (2048, 512)) == (1, 2048)
    assert transforms.random_scale((3, 1), (0.1, 0.1), rng()) == (1, 1)


def test_mostly_one_class_is_tried_again_but_taken_in_the_end():
    label = np.zeros((40, 40), np.uint8)
    label[:, 36:] = 1
    crops = [transforms.random_crop(label, (40, 40), (8, 8), 0.75, rng(seed)) for seed in range(60)]
    good = np.mean([transforms.is_mixed(label[:, left:right], 0.75) for _, left, _, right in crops])
    once = [transforms.random_crop(label, (40, 40), (8, 8), 1.0, rng(seed)) for seed in range(60)]
    plain = np.mean([transforms.is_mixed(label[:, left:right], 0.75) for _, left, _, right in once])
    assert good > 0.6 and plain < 0.3
    for values in (0, IGNORED):  # one class, and none at all
        crop = transforms.random_crop(np.full((9, 9), values, np.uint8), (9, 9), (4, 4), 0.75, rng())
        assert crop[2] - crop[0] == crop[3] - crop[1] == 4


def test_ignored_pixels_do_not_count_when_classes_are_mixed():
    label = np.full((10, 10), IGNORED, np.uint8)
    assert not transforms.is_mixed(label, 0.75)
    label[0, :3] = 1
    assert not transforms.is_mixed(label, 0.75)
    label[0, 3:5] = 0
    assert transforms.is_mixed(label, 0.75) and not transforms.is_mixed(label, 0.6)


def test_the_ratio_is_drawn_from_its_whole_range():
    draw = rng()
    scales = np.array([transforms.random_scale((2048, 512), (0.5, 2.0), draw) for _ in range(300)])
    assert 1024 <= scales[:, 0].min() < 1100 and 4000 < scales[:, 0].max() <= 4096
    assert (abs(scales[:, 0] - 4 * scales[:, 1]) < 4).all()


def test_a_label_of_another_size_is_no_record():
    example = {**noise(30, 50), "label": np.zeros((30, 49), np.uint8)}
    with pytest.raises(UnreadableError, match="49 x 30 pixels, its image 50 x 30"):
        transforms.train_transform(16)(example, rng())


def test_evaluation_resizes_the_image_only():
    example = noise(30, 50)
    found = transforms.eval_transform((128, 32))(example)
    assert found["image"].shape == (32, 53, 3)
    np.testing.assert_array_equal(found["label"], example["label"])
    assert transforms.eval_transform(None)(example)["image"] is example["image"]
    gray = Image.fromarray(example["image"]).convert("L")
    assert transforms.eval_transform((128, 32))({**example, "image": gray})["image"].shape == (32, 53, 3)


def test_training_reads_the_same_batches_from_any_step():
    source = fake.scenes((40, 50), num_examples=10)
    data = TrainData(source, transforms.train_transform(32, scale=(80, 48)), batch_size=2, num_threads=0)
    batches, later = data.batches(0, range(2)), data.batches(2, range(2))
    first = [next(batches) for _ in range(3)][2]
    second = next(later)
    assert set(first) == {"image", "label", "size", "bad"}
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])


def test_each_step_of_the_distortion_is_drawn_half_of_the_time():
    draws = [photometric.draw(rng(seed)) for seed in range(400)]
    for name in ("brightness", "contrast", "saturation", "hue"):
        assert 0.4 < np.mean([getattr(draw, name) is not None for draw in draws]) < 0.6, name
    assert 0.4 < np.mean([draw.contrast_first for draw in draws]) < 0.6
    hues = {draw.hue for draw in draws} - {None}
    assert min(hues) == -18 and max(hues) == 17
    levels = [draw.brightness for draw in draws if draw.brightness is not None]
    assert -32 <= min(levels) < -28 and 28 < max(levels) <= 32
    factors = [draw.contrast for draw in draws if draw.contrast is not None]
    assert 0.5 <= min(factors) < 0.55 and 1.45 < max(factors) <= 1.5


def test_no_choice_leaves_the_image_and_gray_keeps_no_hue():
    image = noise(6, 33)["image"]
    np.testing.assert_array_equal(photometric.distort(image, photometric.Photometric()), image)
    gray = np.repeat(image[..., :1], 3, axis=-1)
    found = photometric.distort(gray, photometric.Photometric(saturation=1.5, hue=7))
    assert abs(found.astype(int) - gray).max() <= 1  # what OpenCV cuts off on the way there and back
    dark = photometric.distort(image, photometric.Photometric(brightness=-0.5))
    np.testing.assert_array_equal(dark, np.maximum(image.astype(int) - 1, 0))


def test_arguments_out_of_range_are_refused():
    for wrong in (dict(ratio=(2.0, 0.5)), dict(hflip=2.0), dict(scale=(0, 512)), dict(most_of_one_class=-1.0)):
        with pytest.raises(UserError):
            transforms.train_transform(16, **wrong)
