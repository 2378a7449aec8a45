"""Captions of avatars."""

import numpy as np
import pytest

from swin_jax.data.avatars import attributes as avatars
from swin_jax.data.avatars import captions
from swin_jax.data.image_text.tokenizer import encode

FACE = {choice: next(iter(options)) for choice, options in avatars.CHOICES.items()}
FACE |= {"top": "BUN", "hair_color": "RED", "accessory": "ROUND", "facial_hair": "NONE", "eyes": "DEFAULT"}
WORDS = {
    "glasses": ("glasses",),
    "beard": ("beard",),
    "hat": (" hat",),
    "smile": (" smil",),
    "surprised_eyes": ("surprised eyes", "wide open eyes"),
    "blond_hair": ("blond hair", "blonde hair"),
    "red_hair": ("red hair",),
    "black_hair": ("black hair",),
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_caption_speaks_of_each_attribute_that_is_seen_and_of_no_other(rng):
    for index in range(300):
        face = avatars.draw(0, "train", index)
        text = captions.caption(face, rng, left_out=0.0)
        said = [any(word in text for word in words) for words in WORDS.values()]
        np.testing.assert_array_equal(said, avatars.marks(face) == 1, err_msg=text)


def test_parts_are_left_out_as_often_as_is_asked(rng):
    texts = [captions.caption(FACE, rng, left_out=0.25) for _ in range(800)]
    for word in ("glasses", "red hair"):
        assert abs(np.mean([word in text for text in texts]) - 0.75) < 0.06
    bare = {captions.caption(FACE, rng, left_out=1.0) for _ in range(100)}
    assert bare == {t.format(subject) for t in captions.TEMPLATES for subject in captions.SUBJECTS}


def test_forms_of_a_sentence(rng):
    texts = {captions.caption(FACE, rng, left_out=0.0) for _ in range(1500)}
    assert {
        "a face with round glasses, red hair and a smile",
        "a drawing of a person with a smile, glasses and red hair",
    } <= texts
    assert not [text for text in texts if "  " in text or ", and" in text]


def test_captions_fit_in_the_context(rng):
    longest = max(len(encode(captions.caption(avatars.draw(0, "test", i), rng, 0.0))) for i in range(300))
    assert longest + 2 <= 32


def test_every_attribute_has_its_texts():
    assert tuple(captions.TEXT_PAIRS) == avatars.ATTRIBUTES
    assert {without for _, without in captions.TEXT_PAIRS.values()} == {captions.NEUTRAL}
