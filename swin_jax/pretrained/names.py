"""Finds the model name that a word stands for, or suggests the nearest names."""

import difflib
import re
from collections.abc import Sequence

from swin_jax.core.errors import UserError, nearest
from swin_jax.pretrained.family import Family

_PREFIXES = ("hf-hub:", "hf_hub:", "https://huggingface.co/")
_LETTERS = {"t": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant"}
_SAME = {
    "k400": "kinetics400",
    "k600": "kinetics600",
    "k700": "kinetics700",
    "something": "sthv2",
    "ssv2": "sthv2",
}
_LARGEST = {"giant", "huge"}  # suggested last, unless the word contains them
_MOST = 3  # suggestions
_LEAST = 0.5  # similarity of a word that shares no part with a name
_TYPO = 0.75  # similarity of a part that is misspelled


def find(word: str, families: Sequence[Family]) -> tuple[Family, str] | None:
    """The family that a word belongs to, and the word as it accepts it; None if there is none."""
    for spelling in dict.fromkeys((word, _without_prefix(word))):
        for family in families:
            if family.find(spelling) is not None:
                return family, spelling
    return None


def _without_prefix(word: str) -> str:
    for prefix in _PREFIXES:
        word = word.removeprefix(prefix)
    return word.strip("/")


def suggest(word: str, families: Sequence[Family]) -> str:
    """Advice for a word that is not a model name: `; the nearest name is 'x'`, or several names.

    Names are compared part by part ('swin_t' and 'Swin-T' are both swin and tiny), then letter by
    letter.
    """
    word = _without_prefix(word)
    all_parts = {name: _name_parts(name, family, families) for family, name in _names(families)}
    letters = sorted({part for own in all_parts.values() for part in own if part.isalpha()})
    parts = frozenset(_spelled(part, letters) for part in _parts(word))
    for family in families:
        if parts == _parts(family.title):
            return f"; the nearest name is {family.usual!r}"
    ranks = {name: _rank(parts, own) for name, own in all_parts.items()}
    ratios = {name: _similarity(word, name) for name in all_parts}
    best = max(ranks.values())
    near = [name for name in ranks if ranks[name] == best]
    if not parts & all_parts[near[0]]:
        near = [name for name in ratios if ratios[name] >= _LEAST]
    if not near:
        return "; swin_jax.list_models() gives all names"
    near.sort(key=lambda name: -ratios[name])
    also = [name for name in near[1:_MOST] if ratios[name] > 0.9 * ratios[near[0]]]
    or_these = f" (or {' or '.join(map(repr, also))})" if also else ""
    return f"; the nearest name is {near[0]!r}{or_these}"


def _names(families: Sequence[Family]) -> list[tuple[Family, str]]:
    return [(family, name) for family in families for name in family.names()]


def _name_parts(name: str, family: Family, families: Sequence[Family]) -> frozenset[str]:
    """The parts of a name, and those of its family's title that no other title has.

    The name of a Video Swin, for example, does not contain 'video'.
    """
    others = [_parts(other.title) for other in families if other is not family]
    return _parts(name) | _parts(family.title).difference(*others)


def _rank(parts: frozenset[str], own: frozenset[str]) -> tuple[int, ...]:
    """A rank for how well the parts of a word match those of a name; words count before numbers."""
    shared = parts & own
    words = sum(part[0].isalpha() for part in shared)
    return words, len(shared), -len((own - parts) & _LARGEST), -len(own - parts)


def _similarity(word: str, name: str) -> float:
    return difflib.SequenceMatcher(None, word.lower(), name.lower()).ratio()


def _spelled(part: str, known: Sequence[str]) -> str:
    """A part, or the most similar known part if it seems misspelled."""
    if not part.isalpha() or part in known:
        return part
    return nearest(part, known, _TYPO) or part


def _parts(word: str) -> frozenset[str]:
    """The parts of a name, in lower case and with abbreviations expanded."""
    word = re.sub(r"swin[ _-]?(v2|3d)", r"swin\1", word.lower()).replace("videoswin", "video-swin")
    words = re.findall(r"[a-z0-9]+", re.sub(r"patch(?=\d)", "", word))
    return frozenset(_SAME.get(part, _LETTERS.get(part, part)) for part in words)


def unknown(word: str, families: Sequence[Family]) -> UserError:
    """Makes the error for a word that is not a model name."""
    return UserError(f"no model is called {word!r}{suggest(word, families)}")
