"""Boxes and windows of resized images: PIL's pixels, with the extra `loader` to 1 gray level, and the fast form."""

import io
import logging

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from swin_jax.data.image import jpeg, resizing
from swin_jax.data.image.transforms import eval_transform, train_transform

BICUBIC = Image.Resampling.BICUBIC
FILTERS = (Image.Resampling.BILINEAR, BICUBIC, Image.Resampling.LANCZOS)
PHOTOGRAPH = Image.fromarray(load_sample_image("china.jpg"))


def encoded(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.fixture
def library(real_resizing):
    """The extra `loader`, which tests run without otherwise."""
    pytest.importorskip("cykooz_resizer")
    assert resizing._library() is not None


def difference(found, wanted):
    return np.abs(np.asarray(found).astype(int) - np.asarray(wanted))


def cases(count):
    """(image, box, size) at random: large and small ones, wide and tall ones, grown and shrunk."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        width, height = rng.integers(20, 400, 2)
        image = PHOTOGRAPH.resize((int(width), int(height)))
        left, top = (int(rng.integers(0, side - 8)) for side in image.size)
        right, bottom = (int(rng.integers(start + 8, side + 1)) for start, side in zip((left, top), image.size))
        yield image, (left, top, right, bottom), tuple(map(int, rng.integers(8, 200, 2)))


def test_without_the_extra_boxes_are_those_of_pil():
    for image, box, size in cases(4):
        wanted = np.asarray(image.crop(box).resize(size[::-1], BICUBIC))
        for form in (image, np.asarray(image)):
            np.testing.assert_array_equal(np.asarray(resizing.resize_box(form, box, size, BICUBIC)), wanted)


def check_close(differences):
    """The difference that the module states."""
    values = np.concatenate([found.ravel() for found in differences])
    assert values.max() <= 2 and (values > 1).mean() < 1e-4 and (values > 0).mean() < 0.02


@pytest.mark.parametrize("resample", FILTERS)
def test_boxes_are_close_to_those_of_pil(resample, library):
    found = []
    for image, box, size in cases(20):
        wanted = image.crop(box).resize(size[::-1], resample)
        for form in (image, np.asarray(image)):
            resized = resizing.resize_box(form, box, size, resample)
            assert isinstance(resized, np.ndarray) and resized.shape == (*size, 3)
            found.append(difference(resized, wanted))
    check_close(found)


def test_boxes_of_jpegs_are_those_of_their_pixels(library):
    data = encoded(PHOTOGRAPH)
    pixels = np.asarray(jpeg.open_late(data))
    forms = (jpeg.open_late(data), pixels)
    found = [resizing.resize_box(form, (40, 30, 241, 200), (64, 80), BICUBIC) for form in forms]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("resample", FILTERS)
def test_windows_are_close_to_those_of_pil(resample, turned, library):
    image = PHOTOGRAPH.transpose(Image.Transpose.ROTATE_90) if turned else PHOTOGRAPH
    found = []
    for whole, window in (
        ((256, 341), (58, 16, 282, 240)),
        ((90, 60), (0, 10, 60, 70)),
        ((900, 700), (50, 3, 150, 90)),
    ):
        wanted = image.resize(whole[::-1], resample).crop(window)
        found.append(difference(resizing.resize_window(image, whole, window, resample), wanted))
    check_close(found)


@pytest.mark.parametrize("fast", [False, True])
def test_whole_images_of_any_size_fit(fast, library):
    """Lengths that come from divisions may be longer than the image by their rounding."""
    rng = np.random.default_rng(2)
    for _ in range(60):
        width, height, wide, high = map(int, rng.integers(1, 90, 4))
        image = Image.new("RGB", (width, height), (1, 101, 255))
        found = resizing.resize_window(image, (high, wide), (0, 0, wide, high), BICUBIC, fast)
        assert found.shape == (high, wide, 3) and difference(found, [1, 101, 255]).max() <= 1
        data = jpeg.open_late(encoded(image))
        assert resizing.resize_window(data, (high, wide), (0, 0, wide, high), BICUBIC, fast).shape == (high, wide, 3)


@pytest.mark.parametrize("width", [1, 2, 7])
def test_arrays_are_mirrored_as_pil_does(width):
    pixels = np.arange(3 * 3 * width, dtype=np.uint8).reshape(3, width, 3)
    wanted = np.asarray(resizing.mirror(Image.fromarray(pixels)))
    for form in (pixels, np.asfortranarray(pixels)):
        np.testing.assert_array_equal(resizing.mirror(form), wanted)


def test_a_window_that_leaves_the_image_is_black_there(library):
    found = resizing.resize_window(PHOTOGRAPH, (20, 20), (-2, 0, 18, 20), BICUBIC)
    np.testing.assert_array_equal(found, np.asarray(PHOTOGRAPH.resize((20, 20), BICUBIC).crop((-2, 0, 18, 20))))


def test_transforms_keep_their_draws(library):
    """The extra and the fast form change pixels a little, never what is cut, flipped or augmented."""
    image = PHOTOGRAPH.resize((160, 120))
    with_extra, fast = (train_transform(64, fast=fast) for fast in (False, True))
    for seed in range(8):
        generators = [np.random.default_rng(seed) for _ in range(2)]
        one, two = (t({"image": image}, rng)["image"] for t, rng in zip((with_extra, fast), generators))
        assert generators[0].bit_generator.state == generators[1].bit_generator.state
        assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.9 or one.std() < 1
        again = with_extra({"image": image}, np.random.default_rng(seed))["image"]
        np.testing.assert_array_equal(one, again)


def test_another_order_of_passes_is_noticed(library, monkeypatch, caplog):
    monkeypatch.setattr(resizing, "_down_first", lambda before, after: before[0] < before[1])
    with caplog.at_level(logging.WARNING):
        assert resizing._library.__wrapped__() is None
    assert "resized by PIL" in caplog.text


@pytest.mark.parametrize("extra", [False, True])
def test_the_fast_form_is_close_to_the_exact_one(extra, request):
    if extra:
        request.getfixturevalue("library")
    data = encoded(PHOTOGRAPH.resize((500, 375)))
    exact, fast = (eval_transform(224, fast=fast)({"image": jpeg.open_late(data)}) for fast in (False, True))
    assert 0 < difference(exact["image"], fast["image"]).mean() < 4
    exact, fast = (train_transform(224, auto_augment="", fast=fast) for fast in (False, True))
    for seed in range(3):
        pair = [t({"image": jpeg.open_late(data)}, np.random.default_rng(seed))["image"] for t in (exact, fast)]
        assert 0 < difference(*pair).mean() < 4


@pytest.mark.parametrize("extra", [False, True])
def test_the_fast_form_decodes_large_photographs_smaller(extra, request, monkeypatch):
    if extra:
        request.getfixturevalue("library")
    factors = []
    whole = jpeg.factor
    monkeypatch.setattr(jpeg, "factor", lambda shrink: factors.append(whole(shrink)) or factors[-1])
    data = encoded(PHOTOGRAPH.resize((1000, 750)))
    fast, exact = (eval_transform(224, fast=fast)({"image": jpeg.open_late(data)})["image"] for fast in (True, False))
    assert factors == [2] and fast.shape == exact.shape
    assert difference(fast, exact).mean() < 4
