"""Drawings of any color and size become what the digits of the quickstart look like."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from swin_jax.data.image.small import drawing_eval_transform

DARK = dict(ink=(30, 40, 160), paper=(250, 245, 230))
BRIGHT = dict(ink=(250, 250, 120), paper=(20, 40, 60))


def draw(text, ink, paper, size=(200, 260), at=(90, 40), font=150, stroke=6):
    image = Image.new("RGB", size, paper)
    options = dict(font=ImageFont.load_default(font), stroke_width=stroke, fill=ink, stroke_fill=ink)
    ImageDraw.Draw(image).text(at, text, **options)
    return image


def fitted(image, size=8):
    found = drawing_eval_transform(size)({"image": image, "label": 3})
    assert found["label"] == 3 and found["image"].dtype == np.uint8
    return found["image"]


def test_an_image_of_the_size_is_taken_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    np.testing.assert_array_equal(fitted(image)[..., 0], image)
    np.testing.assert_array_equal(fitted(255 - image)[..., 0], 255 - image)


@pytest.mark.parametrize("text", "057")
def test_color_polarity_place_and_page_do_not_matter(text):
    first = fitted(draw(text, **DARK)).astype(int)
    assert first.shape == (8, 8, 1) and first.max() == 255
    assert (first[0] > 0).any() and (first[-1] > 0).any()  # it fills the height
    others = [draw(text, **BRIGHT), draw(text, **DARK, at=(20, 90)), draw(text, **DARK, size=(400, 300), at=(200, 10))]
    for other in others:
        assert np.abs(fitted(other) - first).max() <= 8
    larger = fitted(draw(text, **DARK, size=(900, 900), at=(300, 100), font=450, stroke=18))
    assert np.abs(larger - first).mean() < 12


@pytest.mark.parametrize("level", [0, 255])
def test_an_empty_page_is_black(level):
    noise = np.random.default_rng(0).integers(0, 8, (50, 40, 3), np.uint8)
    assert not fitted(np.abs(np.int16(level) - noise).astype(np.uint8)).any()


def test_a_size_that_is_not_square_is_filled_too():
    found = fitted(draw("8", **DARK), (6, 12))
    assert found.shape == (6, 12, 1) and found[0].any() and found[-1].any() and not found[:, 0].any()


@pytest.mark.parametrize("style", [DARK, BRIGHT, dict(**DARK, size=(900, 900), at=(300, 100), font=450, stroke=18)])
def test_drawn_digits_are_read_by_what_has_learned_the_data(style):
    """By a support vector machine: at least eight of ten figures of a typeface that it has not seen."""
    data = load_digits()
    machine = SVC(C=10, gamma=1e-3).fit(data.images.reshape(-1, 64), data.target)
    figures = [fitted(draw(str(digit), **style)).ravel() * (16 / 255) for digit in range(10)]
    assert (machine.predict(figures) == np.arange(10)).sum() >= 8
    # Stretched and sampled, as other small images are, they are not.
    plain = [np.asarray(draw(str(d), **style).convert("L").resize((8, 8))).ravel() * (16 / 255) for d in range(10)]
    assert (machine.predict(plain) == np.arange(10)).sum() <= 3
