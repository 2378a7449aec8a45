"""Pairs of an image and a text, found by their names.

An image and a text of one folder whose names differ only in the suffix are a pair: photo.1.jpg and
photo.1.txt. webdataset cuts names at the first dot instead, where photo.1.jpg, photo.2.jpg and
photo.2.txt are one record whose fields are called 1.jpg, 2.jpg and 2.txt. Names without further
dots are paired alike by both.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swin_jax.data.image.picture import suffixes

# Why a file is left out.
NO_TEXT, NO_IMAGE, AMBIGUOUS, OTHER, SPECIAL, DAMAGED = range(6)
KINDS = (
    "images without {suffix}",
    "{suffix} without an image",
    "of several images or {suffix} of one name",
    "other files",
    "links or other special members",
    "ends of shards that are damaged",
)


@dataclass(frozen=True)
class Grouping:
    """Positions in a list of names.

    Attributes:
        pairs: (image, text) of each pair, in the order in which their first one occurs.
        left_out: (why, a constant of this module; which) of every other name, in order.
    """

    pairs: tuple[tuple[int, int], ...]
    left_out: tuple[tuple[int, int], ...]


def pair_up(names: Sequence[str], text_suffix: str) -> Grouping:
    """Finds the pairs among paths of files; suffixes in any case.

    A name that two images or two texts have, a.jpg beside a.png or one path twice, says of none
    which text is its own: all of them are left out. Names that begin with a dot are other files.

    Args:
        names: Paths.
        text_suffix: Suffix of the texts, such as '.txt'.
    """
    images, texts, left_out = defaultdict(list), defaultdict(list), []
    for position, path in enumerate(names):
        folder, name = os.path.split(os.path.normpath(path))
        stem, suffix = os.path.splitext(name)
        suffix = suffix.lower()
        if name.startswith(".") or suffix not in (*suffixes(), text_suffix):
            left_out.append((OTHER, position))
        else:
            group = texts if suffix == text_suffix else images
            group[os.path.join(folder, stem)].append(position)
    pairs = []
    for key in images.keys() | texts.keys():
        own, captions = images.get(key, []), texts.get(key, [])
        if len(own) == len(captions) == 1:
            pairs.append((own[0], captions[0]))
        elif len(own) > 1 or len(captions) > 1:
            left_out += [(AMBIGUOUS, position) for position in (*own, *captions)]
        else:
            left_out += [(NO_TEXT, position) for position in own]
            left_out += [(NO_IMAGE, position) for position in captions]
    return Grouping(
        tuple(sorted(pairs, key=min)), tuple(sorted(left_out, key=lambda item: item[1]))
    )


def describe(left_out: Mapping[int, tuple[int, str]], text_suffix: str) -> str:
    """One line, 'left out: 2 images without .txt (a.jpg), 1 other files (b.cls)';
    '' if nothing was.

    Args:
        left_out: {why: (how many, the name of one)}.
        text_suffix: Suffix of the texts.
    """
    parts = [
        f"{count:,} {KINDS[why].format(suffix=text_suffix)} ({name})"
        for why, (count, name) in sorted(left_out.items())
        if count
    ]
    return f"left out: {', '.join(parts)}" if parts else ""
