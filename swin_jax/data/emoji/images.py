"""The emoji of several vendors as image-text pairs, with names and keywords as captions and some
concepts held out.

Prepared by `python -m swin_jax.data.builders.emoji`. A concept is held out if the CRC-32 of its
code (its code points in lower-case hex, joined by '-', without fe0f) is a multiple of 10.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import Fraction, PositiveInt, checked
from swin_jax.core.sizes import Size, per_axis
from swin_jax.data import tfds as tfds_directory
from swin_jax.data.image_text.tokenizer import ContextLength, tokenize

TRAIN_VENDORS = ("noto", "noto_v1", "twemoji", "emojione", "fluent_flat")
UNSEEN_VENDORS = ("openmoji", "fluent_3d")
TEMPLATES = ("{}", "an emoji of {}", "a drawing of {}", "a picture of {}")
CONCEPTS = ("seen", "unseen", "all")


def is_unseen(code: str) -> bool:
    """True if the concept with this code is held out of training."""
    return zlib.crc32(code.encode()) % 10 == 0


@dataclasses.dataclass(frozen=True)
class Emoji:
    """Drawings in memory, with their texts.

    Attributes:
        images: uint8 (N, H, W, 3).
        labels: int (N,), numbers of the concepts.
        vendors: Vendor of each drawing.
        class_names: Names of all concepts, in label order.
        keywords: Keywords of each concept.
        groups, subgroups: Names of each concept's group and subgroup.
        unseen: For each concept, True if it is held out of training.
        common: For each concept, True if all five compared vendors draw it.
    """

    images: np.ndarray
    labels: np.ndarray
    vendors: tuple[str, ...]
    class_names: tuple[str, ...]
    keywords: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...]
    subgroups: tuple[str, ...]
    unseen: tuple[bool, ...]
    common: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        label = int(self.labels[index])
        name, keywords = self.class_names[label], self.keywords[label]
        return {"image": self.images[index], "label": label, "name": name, "keywords": keywords}

    def record_name(self, index: int) -> str:
        return f"emoji {self.vendors[index]} {self.class_names[self.labels[index]]}"


def emoji(
    data_dir: str | None,
    vendors: Sequence[str] = TRAIN_VENDORS,
    concepts: str = "all",
    common: bool = False,
    name: str = "emoji",
) -> Emoji:
    """Opens the drawings of some vendors.

    Args:
        data_dir: Folder of data sets; None for the default of `sources.tfds`.
        vendors: Splits of the data set.
        concepts: 'seen', 'unseen' or 'all'.
        common: True for only those concepts that all five compared vendors draw.
        name: 'emoji', or 'emoji_SIZE' for sizes other than 64 pixels.

    Returns:
        A source. Raises UserError if the data set or a vendor is missing.
    """
    if concepts not in CONCEPTS:
        raise UserError(f"concepts={concepts!r} is not one of {CONCEPTS}")
    directory = tfds_directory.find(name, data_dir)
    return _select(_read(directory), tuple(vendors), concepts, common)


@functools.lru_cache(maxsize=2)
def _read(directory: str) -> Emoji:
    """The drawings of all vendors, cached because decoding takes seconds."""
    builder = tfds_directory.open_builder(directory)
    features = builder.info.features
    names = tuple(features["concept"].names)
    concept: dict[int, dict] = {}
    images, labels, vendors = [], [], []
    for vendor in builder.info.splits:
        for record in builder.as_data_source(vendor):
            label = int(record["concept"])
            concept[label] = record
            images.append(record["image"])
            labels.append(label)
            vendors.append(vendor)
    every = [concept[label] for label in range(len(names))]
    return Emoji(
        images=np.stack(images),
        labels=np.array(labels),
        vendors=tuple(vendors),
        class_names=names,
        keywords=tuple(tuple(_text(word) for word in record["keywords"]) for record in every),
        groups=tuple(features["group"].names[record["group"]] for record in every),
        subgroups=tuple(features["subgroup"].names[record["subgroup"]] for record in every),
        unseen=tuple(is_unseen(_text(record["code"])) for record in every),
        common=tuple(bool(record["common"]) for record in every),
    )


def _select(source: Emoji, vendors: tuple[str, ...], concepts: str, common: bool) -> Emoji:
    missing = [vendor for vendor in vendors if vendor not in source.vendors]
    if missing:
        known = ", ".join(dict.fromkeys(source.vendors))
        raise UserError(f"the emoji have no vendor {missing[0]!r}; they have {known}")
    kept = np.isin(source.vendors, vendors)
    unseen = np.array(source.unseen)[source.labels]
    kept &= {"all": np.ones_like(unseen), "seen": ~unseen, "unseen": unseen}[concepts]
    kept &= np.array(source.common)[source.labels] | (not common)
    return dataclasses.replace(
        source,
        images=source.images[kept],
        labels=source.labels[kept],
        vendors=tuple(vendor for vendor, keep in zip(source.vendors, kept) if keep),
    )


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def caption(example: dict[str, Any], rng: np.random.Generator, with_keywords: float = 0.5) -> str:
    """Writes a caption: the name in one of `TEMPLATES`, and sometimes one to three keywords.

    Args:
        example: A record with `name` and `keywords`.
        rng: Generator that draws the template and the keywords.
        with_keywords: Probability of keywords.
    """
    text = TEMPLATES[rng.integers(len(TEMPLATES))].format(example["name"])
    keywords = [word.replace("_", " ") for word in example["keywords"]]
    if keywords and rng.random() < with_keywords:
        count = rng.integers(1, min(3, len(keywords)) + 1)
        text += ", " + ", ".join(keywords[i] for i in rng.permutation(len(keywords))[:count])
    return text


@checked
def pair_train_transform(
    transform: Callable, context_length: ContextLength = 20, with_keywords: Fraction = 0.5
) -> Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]:
    """Adds a tokenized caption to the result of an image transform.

    Args:
        transform: (example, rng) -> example with `image`.
        context_length: Number of tokens; longer captions are cut, which only loses keywords.
        with_keywords: The same as in `caption`.

    Returns:
        transform(example, rng): `image`, `text` int32 (context_length,) and `label`.
    """
    return functools.partial(
        _pair, transform=transform, context_length=context_length, with_keywords=with_keywords
    )


def _pair(example, rng, *, transform, context_length, with_keywords):
    text = tokenize(caption(example, rng, with_keywords), context_length, truncate=True)[0]
    found = transform(example, rng)
    return {"image": found["image"], "text": text, "label": example["label"]}


@checked
def image_eval_transform(size: Size) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Makes the transform that resizes drawings with PIL's antialiased bicubic filter, to `image`
    uint8 (H, W, 3) and `label`.
    """
    return functools.partial(_resize, size=per_axis(size, 2))


def _resize(example, *, size):
    from PIL import Image

    image = Image.fromarray(np.asarray(example["image"])).convert("RGB")
    return {
        "image": np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC)),
        "label": example["label"],
    }


@checked
def fake_emoji(
    num_examples: PositiveInt = 24, vendor: str = "noto", image_size: PositiveInt = 40
) -> Emoji:
    """Makes synthetic drawings of eight concepts, one of them held out, to run without data."""
    rng = np.random.default_rng(zlib.crc32(vendor.encode()))
    names = ("red square", "blue circle", "cat", "dog", "tree", "boat", "hat", "star")
    patterns = np.random.default_rng(0).integers(32, 224, (len(names), image_size, image_size, 3))
    labels = np.arange(num_examples) % len(names)
    images = patterns[labels] + rng.integers(-32, 32, (num_examples, image_size, image_size, 3))
    return Emoji(
        images=images.astype(np.uint8),
        labels=labels,
        vendors=(vendor,) * num_examples,
        class_names=names,
        keywords=(("thing", "small_drawing"),) * len(names),
        groups=tuple("Shapes" if i in (0, 1, 7) else "Things" for i in range(len(names))),
        subgroups=tuple("shape" if i in (0, 1, 7) else "thing" for i in range(len(names))),
        unseen=tuple(i == 7 for i in range(len(names))),
        common=(True,) * len(names),
    )
