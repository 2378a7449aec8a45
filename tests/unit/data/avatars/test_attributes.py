"""Draws of avatars, their attributes, and what hides what."""

import collections

import numpy as np
import pytest

from swin_jax.data.avatars import attributes as avatars

PLAIN = {choice: next(iter(options)) for choice, options in avatars.CHOICES.items()}
PLAIN |= {"mouth": "SAD", "hair_color": "BROWN"}
BARE = np.zeros(8, np.int8)


@pytest.fixture(scope="module")
def faces():
    return {split: [avatars.draw(0, split, index) for index in range(2000)] for split in ("train", "test")}


def marked(*names):
    return np.isin(avatars.ATTRIBUTES, names).astype(np.int8)


def test_a_draw_is_of_its_arguments_only():
    """Recorded once: a change of the draws is another data set."""
    assert list(avatars.draw(0, "train", 7).values()) == [
        *("STRAIGHT_STRAND", "BLACK", "BLUE_03", "DARK_BROWN", "DEFAULT", "BEARD_LIGHT"),
        *("NONE", "SURPRISED", "DEFAULT", "BIG_SMILE"),
    ]
    others = [avatars.draw(1, "train", 7), avatars.draw(0, "test", 7), avatars.draw(0, "train", 8)]
    assert avatars.draw(0, "train", 7) not in others


def test_every_option_comes_as_often_as_it_should(faces):
    for choice, options in avatars.CHOICES.items():
        counts = collections.Counter(face[choice] for face in faces["train"])
        for option, weight in options.items():
            rate = weight / sum(options.values())
            assert abs(counts[option] / 2000 - rate) < 4.5 * (rate * (1 - rate) / 2000) ** 0.5, (choice, option)


def test_no_appearance_is_in_both_splits(faces):
    looks = {split: {tuple(avatars.appearance(face).items()) for face in found} for split, found in faces.items()}
    assert not looks["train"] & looks["test"]
    assert all(avatars.is_test(face) for face in faces["test"])
    assert not any(avatars.is_test(face) for face in faces["train"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, BARE),
        ({"accessory": "ROUND"}, marked("glasses")),
        ({"facial_hair": "BEARD_LIGHT"}, marked("beard")),
        ({"top": "HAT"}, marked("hat")),
        ({"mouth": "BIG_SMILE"}, marked("smile")),
        ({"eyes": "SURPRISED"}, marked("surprised_eyes")),
        ({"hair_color": "BLONDE_GOLDEN"}, marked("blond_hair")),
        ({"hair_color": "RED"}, marked("red_hair")),
        ({"hair_color": "BLACK", "mouth": "SMILE"}, marked("black_hair", "smile")),
        ({"top": "WINTER_HAT_4", "hair_color": "RED"}, marked("hat", "red_hair")),
    ],
)
def test_attributes(change, expected):
    np.testing.assert_array_equal(avatars.attributes(PLAIN | change), expected)


def test_a_hat_hides_hair_and_its_color():
    seen = avatars.visible(avatars.attributes(PLAIN | {"top": "HAT", "hair_color": "RED"}))
    np.testing.assert_array_equal(seen, 1 - marked("blond_hair", "red_hair", "black_hair"))
    assert avatars.visible(avatars.attributes(PLAIN | {"hair_color": "RED", "accessory": "ROUND"})).all()
    label = avatars.marks(PLAIN | {"top": "HAT", "hair_color": "RED"})
    np.testing.assert_array_equal(label, [0, 0, 1, 0, 0, -1, -1, -1])
    assert label.dtype == np.int8


def test_decisions_of_a_classifier_hide_too():
    logits = np.full((2, 3, 8), -1.5)
    logits[0, 1, 2] = 0.1  # a hat
    seen = avatars.visible(logits)
    assert seen.shape == (2, 3, 8) and not seen[0, 1, 5:].any() and seen.sum() == 45


def test_a_beard_has_the_color_of_the_hair():
    hat = PLAIN | {"top": "HAT"}
    assert "hair_color" not in avatars.appearance(hat)
    assert avatars.appearance(hat | {"facial_hair": "BEARD_LIGHT"})["hair_color"] == "BROWN"
    assert "hat_color" in avatars.appearance(hat) and "hat_color" not in avatars.appearance(PLAIN)


def test_identity():
    names, found = np.array(avatars.IDENTITY_CLASSES), avatars.identity_marks(PLAIN)
    assert set(names[found == 1]) == {f"{choice} {PLAIN[choice]}" for choice in avatars.IDENTITY}
    assert (found >= 0).all()
    free = PLAIN | {"mouth": "SMILE", "eyes": "SURPRISED", "eyebrows": "FLAT_NATURAL", "accessory": "ROUND"}
    np.testing.assert_array_equal(avatars.identity_marks(free), found)
    hat = avatars.identity_marks(PLAIN | {"top": "HAT"})
    unknown = [name.split()[0] in ("top", "hair_color") for name in names]
    np.testing.assert_array_equal(hat == -1, unknown)
    beard = avatars.identity_marks(PLAIN | {"top": "HAT", "facial_hair": "BEARD_LIGHT"})
    np.testing.assert_array_equal(beard == -1, [name.startswith("top") for name in names])
