"""Words that people type for a model -> the name that they mean, or the names that are nearest."""

import difflib
import re
from collections.abc import Sequence

from swin_jax.core.errors import UserError
from swin_jax.pretrained.family import Family

_PREFIXES = ("hf-hub:", "hf_hub:", "https://huggingface.co/")
_LETTERS = {"t": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant"}
_SAME = {"k400": "kinetics400", "k600": "kinetics600", "k700": "kinetics700", "ssv2": "sthv2"}
_MOST = 3  # suggestions
_LEAST = 0.5  # similarity of a word that shares no part with a name


def find(word: str, families: Sequence[Family]) -> tuple[Family, str] | None:
    """The family that a word belongs to and the word as the family knows it; None for none."""
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
    """`; the nearest name is 'x'`, or names, for a word that means no model.

    Names are compared part by part ('swin_t' and 'Swin-T' are swin and tiny), then letter by letter.
    """
    word = _without_prefix(word)
    parts = _parts(word)
    for family in families:
        if parts == _parts(family.title):
            return f"; the nearest name is {family.usual!r}"
    scores = {}
    for family in families:
        others = [_parts(other.title) for other in families if other is not family]
        title = _parts(family.title).difference(*others)  # 'video', which the names themselves leave out
        for name in family.names():
            own = _parts(name) | title
            ratio = difflib.SequenceMatcher(None, word.lower(), name.lower()).ratio()
            scores[name] = (len(parts & own), ratio)
    best = max(shared for shared, _ in scores.values())
    near = sorted((name for name in scores if scores[name][0] == best), key=lambda name: -scores[name][1])
    if not best:
        near = [name for name in near if scores[name][1] >= _LEAST]
    if not near:
        return "; swin_jax.list_models() gives all names"
    also = [name for name in near[1:_MOST] if scores[name][1] > 0.9 * scores[near[0]][1]]
    or_these = f" (or {' or '.join(map(repr, also))})" if also else ""
    return f"; the nearest name is {near[0]!r}{or_these}"


def _parts(word: str) -> frozenset[str]:
    """The parts of a name, in small letters, short forms written out."""
    word = re.sub(r"swin[ _-]v2", "swinv2", word.lower())
    words = re.findall(r"[a-z0-9]+", word)
    return frozenset(_SAME.get(part, _LETTERS.get(part, part)) for part in words)


def unknown(word: str, families: Sequence[Family]) -> UserError:
    """The error for a name that means no model."""
    return UserError(f"no model is called {word!r}{suggest(word, families)}")
