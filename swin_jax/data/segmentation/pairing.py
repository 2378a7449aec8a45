"""Pairs of image and label files, which have the same name."""

import bisect
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from swin_jax.core.errors import UserError, warn
from swin_jax.data.image import picture

_SHOWN = 8  # files that a message names


class _Suffixes(NamedTuple):
    """The ends of the names of images and of labels."""

    image: str
    label: str


def pair(
    images: Sequence[str],
    labels: Sequence[str],
    place: str,
    image_suffix: str = "",
    label_suffix: str = "",
) -> list[tuple[str, str]]:
    """Pairs images with the labels of the same name; folders in front of it must be equal too.

    Args:
        images: Paths of images, relative to their folder.
        labels: Paths of labels, relative to theirs.
        place: The folder of labels, for messages.
        image_suffix: The end of the names of images, before '.jpg', which is not compared; files
            without it are left out.
        label_suffix: The same for labels.

    Returns:
        [(path of an image, path of its label)], in the order of `images`; a warning tells how many
        labels have no image.

    Raises:
        UserError: Images without a label, with the labels whose names differ in case or at their
            end only, and the suffixes that would pair most of them; two files of one name; no
            images.
    """
    by_image = _by_name(images, image_suffix, "images")
    by_label = _by_name(labels, label_suffix, "labels")
    if not by_image:
        ending = f" that ends in {image_suffix!r}" if image_suffix else ""
        hint = _other_spelling("image_suffix", image_suffix, images)
        hint = f"; {hint}" if hint else ""
        raise UserError(f"there is no image{ending} for the labels in {place}{hint}")
    missing = [name for name in by_image if name not in by_label]
    if missing:
        advice = "" if by_label else _other_spelling("label_suffix", label_suffix, labels)
        suffixes = _Suffixes(image_suffix, label_suffix)
        raise UserError(_missing(missing, by_image, by_label, place, suffixes, advice))
    unused = [path for name, path in by_label.items() if name not in by_image]
    if unused:
        warn(f"{place}: there is no image for {_listed(unused)}")
    return [(path, by_label[name]) for name, path in by_image.items()]


def _by_name(paths: Sequence[str], suffix: str, what: str) -> dict[str, str]:
    """{path without the end of its name: path}."""
    found: dict[str, str] = {}
    for path in paths:
        name = os.path.splitext(path)[0]
        if not name.endswith(suffix):
            continue
        name = name.removesuffix(suffix)
        if name in found:
            raise UserError(f"two {what} have one name: {found[name]} and {path}; keep one")
        found[name] = path
    return found


def _other_spelling(flag: str, suffix: str, paths: Sequence[str]) -> str:
    """A hint where no name ends in a suffix: it has the suffix of the files too, or other case."""
    if not suffix or not paths:
        return ""
    stem, ending = os.path.splitext(suffix)
    stem = stem if ending.lower() in picture.suffixes() else suffix
    names = [os.path.splitext(path)[0] for path in paths]
    near = (name[-len(stem) :] for name in names if name.lower().endswith(stem.lower()))
    found = next(near, "") if stem else ""
    if not found:
        return f"no name ends in {flag}={suffix!r}, {os.path.basename(paths[0])} for one"
    return f"{flag} is compared with names as they are and without '.png': give {flag}={found!r}"


def _missing(
    missing: Sequence[str],
    by_image: Mapping[str, str],
    by_label: Mapping[str, str],
    place: str,
    suffixes: _Suffixes,
    advice: str,
) -> str:
    """The message for images without a label; `advice` is '' to find out which one helps."""
    folded = {_folded(name): path for name, path in by_label.items()}
    names = sorted(by_label)
    found, endings = [], set()
    for name in missing:
        similar = folded.get(_folded(name))
        if similar:
            found.append(
                f"{by_image[name]} ({similar} differs in case, or in how letters are stored)"
            )
            continue
        near = bisect.bisect(names, name)
        ending = names[near].removeprefix(name) if near < len(names) else ""
        if ending and names[near].startswith(name) and not ending[0].isalnum():
            endings.add(ending)
            found.append(f"{by_image[name]} ({by_label[names[near]]} ends in {ending!r})")
        else:
            found.append(by_image[name])
    # Those with a similar name say what went wrong with the others too.
    found.sort(key=lambda text: not text.endswith(")"))
    if len(endings) == 1:
        advice = f"give label_suffix={min(endings) + suffixes.label!r}"
    elif endings:
        ends = " or ".join(repr(ending + suffixes.label) for ending in sorted(endings)[:_SHOWN])
        advice = f"label_suffix= takes one of {ends}: let all labels end alike"
    elif not advice and len(missing) == len(by_image):
        advice = _suffix_advice(missing, by_label, names, suffixes)
    advice = advice or "give a label the name of its image"
    return (
        f"{len(missing)} of {len(by_image)} images have no label in {place}: {_listed(found)}; "
        f"{advice}"
    )


def _suffix_advice(
    missing: Sequence[str], by_label: Mapping[str, str], names: Sequence[str], given: _Suffixes
) -> str:
    """The suffixes that would pair most images, where none has a label; '' if there are none."""
    pairs = {pair for name in missing[:_SHOWN] for pair in _ends(name, names)}
    pairs = sorted(pair for pair in pairs if _share_paired(missing, by_label, pair) > 0.5)
    if not pairs:
        return ""
    advice = f"give image_suffix={pairs[0].image + given.image!r}"
    labels = [pair.label + given.label for pair in pairs if pair.image == pairs[0].image]
    if labels == [given.label]:
        return advice
    return f"{advice} and {' or '.join(f'label_suffix={label!r}' for label in labels)}"


def _share_paired(images: Sequence[str], by_label: Mapping[str, str], ends: _Suffixes) -> float:
    """The share of images that have a label of the same name but for these ends."""
    found = (
        name.endswith(ends.image) and name.removesuffix(ends.image) + ends.label in by_label
        for name in images
    )
    return sum(found) / len(images)


def _ends(image: str, names: Sequence[str]) -> Iterator[_Suffixes]:
    """The ends of an image's name and of those of labels behind the longest stem that they share.

    Args:
        image: The name.
        names: Names of labels, sorted.
    """
    near = bisect.bisect(names, image)
    shared = (os.path.commonprefix([image, name]) for name in names[max(near - 1, 0) : near + 1])
    stem = max(shared, key=len, default="")
    # It ends where a word does: 'a_0' is what 'a_0_rgb' and 'a_0_mask' share, not 'a_0_'.
    while stem and image[len(stem) :][:1].isalnum():
        stem = stem[:-1]
    first = bisect.bisect_left(names, stem)
    for name in names[first : first + _SHOWN] if stem else ():
        ends = _Suffixes(image.removeprefix(stem), name.removeprefix(stem))
        if name.startswith(stem) and ends.image and not ends.label[:1].isalnum():
            yield ends


def _folded(name: str) -> str:
    """The same for names that differ in case, or in how letters with accents are composed."""
    return unicodedata.normalize("NFC", name).casefold()


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
