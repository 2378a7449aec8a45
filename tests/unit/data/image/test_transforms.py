"""Geometry of the image transforms."""

import math
import pickle

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data.image.small import small_eval_transform, small_train_transform
from swin_jax.data.image.transforms import (
    clip_eval_transform,
    crop_transform,
    eval_transform,
    random_crop_box,
    train_transform,
)

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def rng(seed=0):
    return np.random.default_rng(seed)


def ramp(height, width):
    """Red counts columns, green counts rows."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([columns, rows, np.full_like(rows, 7)], -1).astype(np.uint8)


def noise(height, width):
    return rng().integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_random_crops_lie_inside_with_the_asked_area_and_ratio():
    boxes = np.array([random_crop_box(200, 160, SCALE, RATIO, rng(seed)) for seed in range(400)])
    left, top, right, bottom = boxes.T
    assert left.min() >= 0 and top.min() >= 0 and right.max() <= 200 and bottom.max() <= 160
    area = (right - left) * (bottom - top) / (200 * 160)
    ratio = (right - left) / (bottom - top)
    assert 0.07 < area.min() < 0.12 and area.max() > 0.9
    assert 0.7 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.4
    small = np.array([random_crop_box(200, 160, (0.1, 0.3), RATIO, rng(seed)) for seed in range(400)])  # all fit
    assert abs(np.log((small[:, 2] - small[:, 0]) / (small[:, 3] - small[:, 1])).mean()) < 0.03


@pytest.mark.parametrize(
    ("width", "height", "box"),
    [(100, 10, (43, 0, 56, 10)), (10, 100, (0, 43, 10, 56)), (100, 90, (0, 0, 100, 90)), (1, 1, (0, 0, 1, 1))],
)
def test_a_crop_that_never_fits_falls_back_to_the_center(width, height, box):
    assert random_crop_box(width, height, (3.0, 3.0), RATIO, rng()) == box


def test_train_transform_gives_the_size_and_depends_on_the_generator_only():
    transform = pickle.loads(pickle.dumps(train_transform(24)))
    image = ramp(50, 40)
    results = [transform({"image": image, "label": 3}, rng(seed)) for seed in (1, 1, 2)]
    assert (
        results[0]["image"].shape == (24, 24, 3) and results[0]["image"].dtype == np.uint8 and results[0]["label"] == 3
    )
    np.testing.assert_array_equal(results[0]["image"], results[1]["image"])
    assert (results[0]["image"] != results[2]["image"]).any()


def test_flip_probability():
    transform = train_transform(40, scale=(1.0, 1.0), ratio=(1.0, 1.0), auto_augment="", hflip=0.25)
    image = ramp(40, 40)
    flipped = [(transform({"image": image}, rng(seed))["image"] == image[:, ::-1]).all() for seed in range(400)]
    assert np.mean(flipped) == pytest.approx(0.25, abs=0.06)
    unchanged = train_transform(40, scale=(1.0, 1.0), ratio=(1.0, 1.0), auto_augment="", hflip=0.0)(
        {"image": image}, rng()
    )
    np.testing.assert_array_equal(unchanged["image"], image)


def test_crop_is_resized_as_pil_does():
    image = noise(60, 80)
    generator = rng(11)
    box = random_crop_box(80, 60, SCALE, RATIO, generator)
    expected = Image.fromarray(image).crop(box).resize((32, 32), Image.Resampling.BICUBIC)
    result = train_transform(32, hflip=0.0, auto_augment="")({"image": image}, rng(11))["image"]
    np.testing.assert_array_equal(result, np.asarray(expected))


@pytest.mark.parametrize(("height", "width"), [(256, 256), (256, 301), (299, 256)])
def test_eval_crop_takes_the_center_with_halves_rounded_to_even(height, width):
    result = eval_transform(224)({"image": ramp(height, width)})["image"]
    assert result.shape == (224, 224, 3)
    assert result[0, 0, 0] == round((width - 224) / 2) and result[0, 0, 1] == round((height - 224) / 2)


@pytest.mark.parametrize(("size", "short"), [(192, 219), (224, 256), (256, 292), (7, 8)])
def test_eval_crop_resizes_the_short_side(size, short):
    landscape = Image.fromarray(noise(90, 121))
    portrait = landscape.transpose(Image.Transpose.ROTATE_90)
    long = int(short * 121 / 90)
    for image, width, height in ((landscape, long, short), (portrait, short, long)):
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - size) / 2), round((height - size) / 2)
        expected = resized.crop((left, top, left + size, top + size))
        np.testing.assert_array_equal(eval_transform(size)({"image": image})["image"], np.asarray(expected))
    assert int(math.floor(256 / 224 * size)) == short


def test_eval_without_crop_stretches_the_whole_image():
    image = Image.fromarray(ramp(50, 90))
    result = eval_transform(38, crop=False, interpolation="bilinear")({"image": image})["image"]
    np.testing.assert_array_equal(result, np.asarray(image.resize((38, 38), Image.Resampling.BILINEAR)))


def test_arrays_and_pil_images_of_any_mode_give_rgb():
    image = Image.fromarray(ramp(20, 20))
    gray = np.asarray(image.convert("L"))
    transform = eval_transform(16)
    expected = transform({"image": image.convert("L")})["image"]
    assert (expected[..., 0] == expected[..., 2]).all()
    for same in (gray, gray[..., None]):
        np.testing.assert_array_equal(transform({"image": same})["image"], expected)
    for mode in ("CMYK", "RGBA", "P", "1", "LA"):
        assert transform({"image": image.convert(mode)})["image"].shape == (16, 16, 3)


def test_unknown_interpolation_is_a_user_error():
    with pytest.raises(UserError, match="'cubic'"):
        eval_transform(8, interpolation="cubic")


def test_small_eval_keeps_an_image_of_the_right_size():
    image = ramp(28, 28)[..., 0]
    result = small_eval_transform(28)({"image": image, "label": 1})["image"]
    np.testing.assert_array_equal(result, np.repeat(image[..., None], 3, -1))
    assert small_eval_transform(28, channels=1)({"image": image})["image"].shape == (28, 28, 1)


@pytest.mark.parametrize(("length", "size"), [(8, 16), (8, 12), (8, 8)])
def test_small_resize_is_pil_bilinear_where_the_image_grows(length, size):
    image = rng().integers(0, 256, (length, length, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    result = small_eval_transform(size)({"image": image})["image"]
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_small_train_shifts_by_whole_pixels_over_black():
    image = ramp(10, 10) + 1
    transform = small_train_transform(10, padding=2)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    crops = {padded[i : i + 10, j : j + 10].tobytes() for i in range(5) for j in range(5)}
    results = {transform({"image": image}, rng(seed))["image"].tobytes() for seed in range(300)}
    assert results == crops


def test_small_train_without_augmentation_is_small_eval():
    image = rng().integers(0, 256, (8, 8)).astype(np.uint8)
    result = small_train_transform(16, padding=0)({"image": image}, rng())["image"]
    np.testing.assert_array_equal(result, small_eval_transform(16)({"image": image})["image"])


def test_small_train_turns_about_the_center():
    image = np.zeros((21, 21, 3), np.uint8)
    image[8:13, 8:13] = 200
    transform = small_train_transform(21, padding=0, rotation=40.0, zoom=0.2)
    for seed in range(20):
        turned = transform({"image": image}, rng(seed))["image"].astype(float)
        weight = turned.sum((1, 2))
        assert (weight * np.arange(21)).sum() / weight.sum() == pytest.approx(10.0, abs=0.05)
        assert turned.sum() / image.sum() == pytest.approx(1.0, abs=0.5)


def test_small_train_by_a_quarter_turn_is_exact(monkeypatch):
    image = rng().integers(0, 256, (6, 6, 3)).astype(np.uint8)
    generator = rng()
    monkeypatch.setattr("math.radians", lambda degrees: math.pi / 2)
    result = small_train_transform(6, padding=0, rotation=1.0)({"image": image}, generator)["image"]
    np.testing.assert_array_equal(result, np.rot90(image, -1))


def test_small_train_flips():
    image = ramp(6, 6)
    result = small_train_transform(6, padding=0, hflip=1.0)({"image": image}, rng())["image"]
    np.testing.assert_array_equal(result, image[:, ::-1])


def test_crop_transform_takes_every_number_as_given():
    image = noise(40, 47)
    resized = Image.fromarray(image).resize((23, 20), Image.Resampling.BILINEAR)  # int(20 * 47 / 40)
    for rounding, left in (("even", 4), ("floor", 3)):  # of a margin of 7 pixels
        transform = crop_transform(16, 20, "bilinear", rounding)
        found = pickle.loads(pickle.dumps(transform))({"image": image, "label": 3})
        np.testing.assert_array_equal(found["image"], np.asarray(resized.crop((left, 2, left + 16, 18))))
        assert found["label"] == 3
    tall = crop_transform(16, 20, "bilinear", "floor")({"image": image.swapaxes(0, 1)})["image"]
    wanted = Image.fromarray(image.swapaxes(0, 1)).resize((20, 23), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(tall, np.asarray(wanted.crop((2, 3, 18, 19))))


@pytest.mark.parametrize("rounding", ["even", "floor"])
def test_crop_transform_without_a_short_side_shows_the_whole_image(rounding):
    image = noise(40, 47)
    found = crop_transform(16, rounding=rounding)({"image": image})["image"]
    wanted = Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(found, np.asarray(wanted))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(short_side=15), "short_side=15 is less than size=16"),
        (dict(interpolation="cubic"), "interpolation 'cubic' is not known"),
        (dict(rounding="up"), "rounding 'up' is not known"),
    ],
)
def test_crop_transform_refuses_what_it_cannot_do(arguments, message):
    with pytest.raises(UserError, match=message):
        crop_transform(16, **arguments)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "transform",
    [
        eval_transform(224),
        clip_eval_transform(224),
        crop_transform(224, 256),
        crop_transform(224, 256, rounding="floor"),
    ],
)
def test_a_stripe_is_not_resized_by_its_short_side(transform, turned, monkeypatch):
    image = Image.new("RGB", (65_000, 1) if turned else (1, 65_000))
    monkeypatch.setattr("PIL.Image.Image.resize", lambda *args, **kwargs: pytest.fail("was resized"))
    for form in (image, np.asarray(image)):
        with pytest.raises(UnreadableError, match="narrow a picture would be resized to .* more than the limit"):
            transform({"image": form, "label": 0})


def test_a_stripe_is_resized_where_its_short_side_does_not_matter():
    image = Image.new("RGB", (1, 65_000))
    for transform in (
        eval_transform(16, crop=False),
        clip_eval_transform(16, "squash"),
        clip_eval_transform(16, "longest"),
    ):
        assert transform({"image": image, "label": 0})["image"].shape == (16, 16, 3)
    assert eval_transform(8)({"image": image, "label": 0})["image"].shape == (8, 8, 3)  # 9 x 585,000 pixels


@pytest.mark.parametrize(
    "transform",
    [
        crop_transform(100_000),
        eval_transform(100_000, crop=False),
        clip_eval_transform(100_000, "squash"),
        clip_eval_transform(100_000, "longest"),
        clip_eval_transform((8, 10**8), "longest"),
        train_transform(100_000),
    ],
)
def test_no_transform_makes_a_picture_beyond_the_limit(transform, monkeypatch):
    """A config beside weights may ask for 100,000 x 100,000 pixels, 30 GB."""
    image = Image.new("RGB", (50, 40))
    for name in ("Image.resize", "new"):
        monkeypatch.setattr(f"PIL.Image.{name}", lambda *args, **kwargs: pytest.fail("was made"))
    arguments = (np.random.default_rng(0),) if "_train" in str(transform) else ()
    with pytest.raises(UnreadableError, match="would be resized to .* more than the limit"):
        transform({"image": image, "label": 0}, *arguments)
