"""The parts of an avatar's face, the attributes used in texts and edits, and which hide others.

Drawing, labels, captions and evaluation of avatars share these definitions. A face is a dict with
one option of each of CHOICES, named as in the package python_avatars 1.4.1. Some of its options
are left out: tops that cover the eyes or ignore the hair color, moustaches, sunglasses, odd
mouths, and colors between two others.
"""

import bisect
import itertools
import random
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from swin_jax.data.labels import UNKNOWN

HAIR = (
    *("SHORT_FLAT", "SHORT_ROUND", "SHORT_WAVED", "SHORT_CURLY", "CAESAR", "BUN", "BOB"),
    *("LONG_NOT_TOO_LONG", "STRAIGHT_STRAND", "CURLY", "FRO", "DREADS"),
)
HATS = ("HAT", "WINTER_HAT_1", "WINTER_HAT_2", "WINTER_HAT_3", "WINTER_HAT_4")
GLASSES = ("PRESCRIPTION_1", "PRESCRIPTION_2", "ROUND")
BEARDS = ("BEARD_LIGHT", "BEARD_MEDIUM", "BEARD_MAGESTIC")  # the package spells it so
SMILES = ("SMILE", "BIG_SMILE")

# Relative frequency of each option within its choice. Choices are drawn in this order. Beards have
# the color of the hair.
CHOICES: Mapping[str, Mapping[str, int]] = {
    "top": {**dict.fromkeys(HAIR, 5), **dict.fromkeys(HATS, 4)},
    "hair_color": dict.fromkeys(("BLACK", "BROWN", "BLONDE_GOLDEN", "RED", "SILVER_GRAY"), 1),
    "hat_color": dict.fromkeys(("BLUE_02", "BLUE_03", "PASTEL_GREEN", "PINK"), 1),
    "skin_color": dict.fromkeys(("PALE", "LIGHT", "BROWN", "DARK_BROWN", "BLACK"), 1),
    "nose": dict.fromkeys(("DEFAULT", "SMALL", "WIDE"), 1),
    "facial_hair": {"NONE": 6, **dict.fromkeys(BEARDS, 1)},
    "accessory": {"NONE": 6, **dict.fromkeys(GLASSES, 1)},
    "eyes": dict.fromkeys(("DEFAULT", "HAPPY", "SQUINT", "SURPRISED"), 1),
    "eyebrows": dict.fromkeys(("DEFAULT", "FLAT_NATURAL", "RAISED_EXCITED"), 1),
    "mouth": dict.fromkeys((*SMILES, "SERIOUS", "SAD", "DISBELIEF"), 1),
}

# The choice that decides on each attribute, and the options that have it.
MEANING: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "glasses": ("accessory", GLASSES),
    "beard": ("facial_hair", BEARDS),
    "hat": ("top", HATS),
    "smile": ("mouth", SMILES),
    "surprised_eyes": ("eyes", ("SURPRISED",)),
    "blond_hair": ("hair_color", ("BLONDE_GOLDEN",)),
    "red_hair": ("hair_color", ("RED",)),
    "black_hair": ("hair_color", ("BLACK",)),
}
ATTRIBUTES = tuple(MEANING)
# {attribute: the one that hides it}: a hat hides the hair, and a beard does not count as hair.
HIDDEN_BY: Mapping[str, str] = dict.fromkeys(("blond_hair", "red_hair", "black_hair"), "hat")
# The choices that make up a person's identity; mouth, eyes, brows, glasses and hats may vary.
IDENTITY = ("top", "hair_color", "facial_hair", "nose", "skin_color")

_TEST_SHARE = 5  # one in this many appearances belongs to the test split


def draw(seed: int, split: str, index: int) -> dict[str, str]:
    """Draws a random face, which depends only on the arguments and is the same on every machine.

    Draws one option of each choice in the order of CHOICES, and repeats until the appearance
    belongs to the split.

    Args:
        seed: Seed of the whole data set.
        split: 'train' or 'test'; no appearance is in both.
        index: Number of the face in its split.
    """
    rng = random.Random(f"{seed} {split} {index}")
    while True:
        # Only random() is guaranteed to give the same numbers in every version of Python.
        face = {choice: _pick(options, rng.random()) for choice, options in CHOICES.items()}
        if is_test(face) == (split == "test"):
            return face


def _pick(options: Mapping[str, int], place: float) -> str:
    bounds = list(itertools.accumulate(options.values()))
    return tuple(options)[bisect.bisect(bounds, place * bounds[-1])]


def is_test(face: Mapping[str, str]) -> bool:
    """True if the appearance of a face belongs to the test split, as one in five does."""
    return zlib.crc32(" ".join(appearance(face).values()).encode()) % _TEST_SHARE == 0


def appearance(face: Mapping[str, str]) -> dict[str, str]:
    """The visible choices of a face, without the colors of missing or hidden parts."""
    hat, beard = face["top"] in HATS, face["facial_hair"] in BEARDS
    hidden = {"hat_color": not hat, "hair_color": hat and not beard}
    return {choice: option for choice, option in face.items() if not hidden.get(choice, False)}


def attributes(face: Mapping[str, str]) -> np.ndarray:
    """The attributes of a face, including those hidden by a hat: int8 (8,), each 0 or 1."""
    return np.array([face[choice] in options for choice, options in MEANING.values()], np.int8)


def visible(marks: Any) -> np.ndarray:
    """The attributes that can be seen in an image.

    Args:
        marks: (..., 8), positive where a face has an attribute, from `attributes` or a classifier.

    Returns:
        bool (..., 8), False if another attribute of the face hides the attribute.
    """
    marks = np.asarray(marks)
    seen = np.ones(marks.shape, bool)
    for hidden, by in HIDDEN_BY.items():
        seen[..., ATTRIBUTES.index(hidden)] = marks[..., ATTRIBUTES.index(by)] <= 0
    return seen


def marks(face: Mapping[str, str]) -> np.ndarray:
    """The label of a face's image, int8 (8,): 1, 0, or `labels.UNKNOWN` for hidden attributes."""
    found = attributes(face)
    return np.where(visible(found), found, UNKNOWN).astype(np.int8)


IDENTITY_CLASSES = tuple(
    f"{choice} {option}" for choice in IDENTITY for option in CHOICES[choice] if option not in HATS
)


def identity_marks(face: Mapping[str, str]) -> np.ndarray:
    """The identity of a person, int8 (29,): a mark for each of IDENTITY_CLASSES.

    A mark is 1 for the option that the face has and 0 for the others of the choice. Hidden choices
    are `labels.UNKNOWN`: the hair under a hat, and its color unless there is a beard.
    """
    seen = appearance(face)
    found = []
    for name in IDENTITY_CLASSES:
        choice, option = name.split()
        hidden = choice not in seen or seen[choice] in HATS
        found.append(UNKNOWN if hidden else int(seen[choice] == option))
    return np.array(found, np.int8)
