"""Captions of avatars' visible parts, and the texts that describe attributes."""

from collections.abc import Mapping, Sequence

import numpy as np

from swin_jax.data.avatars import attributes as avatars

# Texts with and without an attribute, for zero-shot classification and for edits.
NEUTRAL = "a face"
TEXT_PAIRS: Mapping[str, tuple[str, str]] = {
    "glasses": ("a face with glasses", NEUTRAL),
    "beard": ("a face with a beard", NEUTRAL),
    "hat": ("a face with a hat", NEUTRAL),
    "smile": ("a face with a smile", NEUTRAL),
    "surprised_eyes": ("a face with surprised eyes", NEUTRAL),
    "blond_hair": ("a face with blond hair", NEUTRAL),
    "red_hair": ("a face with red hair", NEUTRAL),
    "black_hair": ("a face with black hair", NEUTRAL),
}
SUBJECTS = (NEUTRAL, "a person")
TEMPLATES = ("{}", "a drawing of {}", "a picture of {}", "an avatar of {}")

_PHRASES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "accessory": {
        "PRESCRIPTION_1": ("glasses", "white glasses"),
        "PRESCRIPTION_2": ("glasses", "black glasses"),
        "ROUND": ("glasses", "round glasses"),
    },
    "facial_hair": dict.fromkeys(avatars.BEARDS, ("a beard", "a full beard")),
    "mouth": {
        "SMILE": ("a smile", "a smiling mouth"),
        "BIG_SMILE": ("a smile", "a big smile"),
        "SERIOUS": ("a serious mouth",),
        "SAD": ("a sad mouth",),
        "DISBELIEF": ("an open mouth",),
    },
    "eyes": {
        "SURPRISED": ("surprised eyes", "wide open eyes"),
        "HAPPY": ("closed eyes",),
        "SQUINT": ("narrow eyes",),
    },
}
_HAIR_COLORS = {
    "BLACK": ("black",),
    "BROWN": ("brown",),
    "BLONDE_GOLDEN": ("blond", "blonde"),
    "RED": ("red",),
    "SILVER_GRAY": ("gray", "white"),
}
_HAIR_FORMS = {
    **dict.fromkeys(("SHORT_FLAT", "SHORT_ROUND", "SHORT_WAVED", "CAESAR"), "short"),
    **dict.fromkeys(("BOB", "LONG_NOT_TOO_LONG", "STRAIGHT_STRAND", "DREADS"), "long"),
    **dict.fromkeys(("SHORT_CURLY", "CURLY", "FRO"), "curly"),
}
_HAT_COLORS = {"BLUE_02": "blue", "BLUE_03": "dark blue", "PASTEL_GREEN": "green", "PINK": "pink"}


def caption(face: Mapping[str, str], rng: np.random.Generator, left_out: float = 0.3) -> str:
    """Writes a caption, such as 'a drawing of a person with round glasses, red hair and a smile'.

    Args:
        face: An option of each of `attributes.CHOICES`. Hidden parts are not mentioned.
        rng: Generator that draws the template, the subject, the words, their order, and the parts
            to leave out.
        left_out: Probability of leaving out a part, independently for each.
    """
    parts = [_choose(words, rng) for words in _words(face) if rng.random() >= left_out]
    template, subject = _choose(TEMPLATES, rng), _choose(SUBJECTS, rng)
    if not parts:
        return template.format(subject)
    parts = [parts[i] for i in rng.permutation(len(parts))]
    listed = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    return template.format(f"{subject} with {listed}")


def _words(face: Mapping[str, str]) -> list[Sequence[str]]:
    """The alternative phrases for each part that a caption can mention."""
    found = [
        options[face[choice]] for choice, options in _PHRASES.items() if face[choice] in options
    ]
    if face["top"] in avatars.HATS:
        return [*found, ("a hat", f"a {_HAT_COLORS[face['hat_color']]} hat")]
    hair = [f"{color} hair" for color in _HAIR_COLORS[face["hair_color"]]]
    form = _HAIR_FORMS.get(face["top"])
    return [*found, (*hair, *(f"{form} {words}" for words in hair)) if form else hair]


def _choose(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[rng.integers(len(words))]
