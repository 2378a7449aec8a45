"""Pairs of image and label files, which have the same name."""

import bisect
import os
import unicodedata
from collections.abc import Mapping, Sequence

from swin_jax.core.errors import UserError, warn

_SHOWN = 8  # files that a message names


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
            end only; two files of one name; no images.
    """
    by_image = _by_name(images, image_suffix, "images")
    by_label = _by_name(labels, label_suffix, "labels")
    if not by_image:
        ending = f" that ends in {image_suffix!r}" if image_suffix else ""
        raise UserError(f"there is no image{ending} for the labels in {place}")
    missing = [name for name in by_image if name not in by_label]
    if missing:
        raise UserError(_missing(missing, by_image, by_label, place))
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


def _missing(
    missing: Sequence[str], by_image: Mapping[str, str], by_label: Mapping[str, str], place: str
) -> str:
    """The message for images without a label."""
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
        advice = f"give label_suffix={min(endings)!r}"
    else:
        advice = "give a label the name of its image"
    return (
        f"{len(missing)} of {len(by_image)} images have no label in {place}: {_listed(found)}; "
        f"{advice}"
    )


def _folded(name: str) -> str:
    """The same for names that differ in case, or in how letters with accents are composed."""
    return unicodedata.normalize("NFC", name).casefold()


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
