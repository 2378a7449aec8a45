"""Reads the names, groups and keywords of Unicode's emoji from three npm packages."""

import dataclasses
from pathlib import Path

from swin_jax.data.builders import npm

NAMES = npm.Package(
    "unicode-emoji-json",
    "0.9.0",
    "ae7efacb55533385bf8767d613dbd36c71226669759d95919a6e9059f5e4c401",
)
KEYWORDS = npm.Package(
    "emojilib", "4.0.3", "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303"
)
SUBGROUPS = npm.Package(
    "emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"
)


@dataclasses.dataclass(frozen=True)
class Concept:
    """The meaning of an emoji; `code` is its code points in lower-case hex, joined by '-',
    without fe0f.
    """

    code: str
    name: str
    group: str
    subgroup: str
    keywords: tuple[str, ...]


def read_concepts(names: Path, keywords: Path, subgroups: Path) -> tuple[Concept, ...]:
    """Reads the concepts, in Unicode's order, from the tarballs of the three text packages."""
    by_emoji = npm.read_json(names, "data-by-emoji.json")["data-by-emoji.json"]
    words = npm.read_json(keywords, "dist/emoji-en-US.json")["dist/emoji-en-US.json"]
    # The first keyword repeats the name.
    words = {_code_of(emoji): found[1:] for emoji, found in words.items()}
    files = npm.read_json(subgroups, "en/data.json", "meta/groups.json")
    titles = files["meta/groups.json"]["subgroups"]
    subgroup = {
        code_of_points(entry["hexcode"]): titles[str(entry["subgroup"])]
        for entry in files["en/data.json"]
        if "subgroup" in entry
    }
    return tuple(
        Concept(
            code,
            entry["name"],
            entry["group"],
            subgroup.get(code, "other"),
            tuple(words.get(code, ())),
        )
        for code, entry in ((_code_of(emoji), entry) for emoji, entry in by_emoji.items())
    )


def code_of_points(points: str) -> str:
    """Converts code points in hex, joined by '-', to the code of a concept."""
    return "-".join(point for point in points.lower().split("-") if point != "fe0f")


def _code_of(emoji: str) -> str:
    return code_of_points("-".join(f"{ord(character):04x}" for character in emoji))
