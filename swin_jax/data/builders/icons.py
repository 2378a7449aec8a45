"""Finds the icons of emoji in an Iconify set, and makes their SVG files."""

import re
from collections.abc import Mapping
from typing import Any

from swin_jax.data.builders.unicode_emoji import (
    Concept,
)


def svg(icons: dict[str, Any], drawing: tuple[str, Mapping[str, Any]]) -> str:
    """The SVG file of an icon in an Iconify set, given as (slug, flips)."""
    slug, change = drawing
    icon = icons["icons"][slug]
    left, top = (icon.get(key, icons.get(key, 0)) for key in ("left", "top"))
    # 16 is Iconify's default.
    width, height = (icon.get(key, icons.get(key, 16)) for key in ("width", "height"))
    body = icon["body"]
    flip_x, flip_y = bool(change.get("hFlip")), bool(change.get("vFlip"))
    if flip_x or flip_y:
        shift = f"{(2 * left + width) * flip_x} {(2 * top + height) * flip_y}"
        body = (
            f'<g transform="translate({shift}) scale({-1 if flip_x else 1} '
            f'{-1 if flip_y else 1})">{body}</g>'
        )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{body}</svg>'
    )


def match(
    icons: dict[str, Any], chars: Mapping[str, str], concepts: tuple[Concept, ...]
) -> dict[str, Any]:
    """Finds the icon of each concept by code points, or else by name: {code: (slug, flips)}."""
    names = {_slug(concept.name) for concept in concepts}
    drawings = {}
    for concept in concepts:
        by_code = _resolve(icons, chars.get(concept.code))
        by_name = None if by_code else _resolve(icons, _slug(concept.name))
        # Names change over time: 'cricket' is an old name of the cricket game's icon, not of the
        # insect.
        if (
            by_name
            and by_name[0] != _slug(concept.name)
            and by_name[0] in names
            and not any(by_name[1].values())
        ):
            by_name = None
        if by_code or by_name:
            drawings[concept.code] = by_code or by_name
    return drawings


def _resolve(icons: dict[str, Any], slug: str | None) -> tuple[str, dict[str, Any]] | None:
    """Follows aliases to an icon; returns its slug and the combined flips, or None without icon."""
    change = {}
    for _ in range(10):  # aliases of aliases; a longer chain is a cycle
        if slug in icons["icons"]:
            return slug, change
        alias = icons.get("aliases", {}).get(slug)
        if alias is None or "rotate" in alias:  # no emoji is rotated
            return None
        change = {
            key: change.get(key, False) != alias.get(key, False) for key in ("hFlip", "vFlip")
        }
        slug = alias["parent"]
    return None


def _slug(name: str) -> str:
    """The Iconify slug of a Unicode name; spells out # and *, which distinguish two keycaps."""
    name = name.lower().replace("#", " pound").replace("*", " asterisk")
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")
