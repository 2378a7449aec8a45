"""Parts of an avatar's face, the attributes that texts and edits speak of, and what hides what.

All who draw, label, caption or judge avatars take the definitions from here. A face is a dict with
one option of each of CHOICES, by the names that the package python_avatars 1.4.1 has for them.
Options that it has besides are left out: tops that cover the eyes or ignore the hair color,
moustaches, sunglasses, wild mouths, and colors that lie between two others.
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

# How often each option is drawn, relative to the others of its choice. The order of choices and
# options is that of the draws. Beards have the color of the hair.
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

# The choice and the options by which a face has an attribute.
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
# The attribute that hides another one: below a hat no hair is seen, and a beard is not hair.
HIDDEN_BY: Mapping[str, str] = dict.fromkeys(("blond_hair", "red_hair", "black_hair"), "hat")
# Options of these choices are who somebody is; mouth, eyes, brows, glasses and hats may vary.
IDENTITY = ("top", "hair_color", "facial_hair", "nose", "skin_color")

_TEST_SHARE = 5  # one appearance in so many is of the test split


def draw(seed: int, split: str, index: int) -> dict[str, str]:
    """Draws a face; the same everywhere, and of its arguments only.

    One option of each choice is drawn in the order of CHOICES, again and again until the appearance
    is one of the split.

    Args:
        seed: Seed of the whole set.
        split: 'train' or 'test'; no appearance is in both.
        index: Number of the face in its split.
    """
    rng = random.Random(f"{seed} {split} {index}")
    while True:
        # Only random() is promised to give the same numbers in every version of Python.
        face = {choice: _pick(options, rng.random()) for choice, options in CHOICES.items()}
        if is_test(face) == (split == "test"):
            return face


def _pick(options: Mapping[str, int], place: float) -> str:
    bounds = list(itertools.accumulate(options.values()))
    return tuple(options)[bisect.bisect(bounds, place * bounds[-1])]


def is_test(face: Mapping[str, str]) -> bool:
    """True if faces that look like this one belong to the test split: one appearance in five."""
    return zlib.crc32(" ".join(appearance(face).values()).encode()) % _TEST_SHARE == 0


def appearance(face: Mapping[str, str]) -> dict[str, str]:
    """The choices that are seen: colors of what is not there, or is below a hat, are left out."""
    hat, beard = face["top"] in HATS, face["facial_hair"] in BEARDS
    hidden = {"hat_color": not hat, "hair_color": hat and not beard}
    return {choice: option for choice, option in face.items() if not hidden.get(choice, False)}


def attributes(face: Mapping[str, str]) -> np.ndarray:
    """The attributes that a face was drawn with, below a hat too: int8 (8,), 0 or 1 each."""
    return np.array([face[choice] in options for choice, options in MEANING.values()], np.int8)


def visible(marks: Any) -> np.ndarray:
    """The attributes that can be told from a picture.

    Args:
        marks: (..., 8), positive where a face has an attribute: `attributes`, or a classifier's
            decisions.

    Returns:
        bool (..., 8), False where an attribute is hidden by another one that the face has.
    """
    marks = np.asarray(marks)
    seen = np.ones(marks.shape, bool)
    for hidden, by in HIDDEN_BY.items():
        seen[..., ATTRIBUTES.index(hidden)] = marks[..., ATTRIBUTES.index(by)] <= 0
    return seen


def marks(face: Mapping[str, str]) -> np.ndarray:
    """The label of a picture, int8 (8,): 1 or 0, or `labels.UNKNOWN` for what is hidden."""
    found = attributes(face)
    return np.where(visible(found), found, UNKNOWN).astype(np.int8)


IDENTITY_CLASSES = tuple(
    f"{choice} {option}" for choice in IDENTITY for option in CHOICES[choice] if option not in HATS
)


def identity_marks(face: Mapping[str, str]) -> np.ndarray:
    """The identity of a person, int8 (29,): a mark for each of IDENTITY_CLASSES.

    It is 1 for the option that the face has and 0 for the others of the choice. What is not seen is
    `labels.UNKNOWN`: all hair below a hat, and its color if there is no beard either.
    """
    seen = appearance(face)
    found = []
    for name in IDENTITY_CLASSES:
        choice, option = name.split()
        hidden = choice not in seen or seen[choice] in HATS
        found.append(UNKNOWN if hidden else int(seen[choice] == option))
    return np.array(found, np.int8)
