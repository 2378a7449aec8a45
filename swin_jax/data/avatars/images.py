"""Avatars in memory, with attributes, identities or captions to learn.

Prepared by `python -m swin_jax.data.builders.avatars`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import Fraction, PositiveInt, checked
from swin_jax.data import tfds as tfds_directory
from swin_jax.data.avatars import attributes as avatars
from swin_jax.data.avatars.captions import caption
from swin_jax.data.image_text.tokenizer import ContextLength, tokenize

LABELS = {"attributes": avatars.ATTRIBUTES, "identity": avatars.IDENTITY_CLASSES}
_MARKS = {"attributes": avatars.marks, "identity": avatars.identity_marks}


@dataclasses.dataclass(frozen=True)
class Avatars:
    """Faces and their labels.

    A record has `image` uint8 (H, W, 3), `label`, and on request `face`,
    the option of each choice.

    Attributes:
        images: uint8 (N, H, W, 3).
        faces: The choices of each face.
        split: Name of the split, for messages.
        labels: 'attributes', a mark for each of `attributes.ATTRIBUTES`, or 'identity', one for
            each of `attributes.IDENTITY_CLASSES`; -1 for what the image does not show.
        with_faces: True for records with `face`, from which captions are written.
    """

    multi_label: ClassVar[bool] = True

    images: np.ndarray
    faces: tuple[dict[str, str], ...]
    split: str
    labels: str = "attributes"
    with_faces: bool = False

    def __post_init__(self):
        if self.labels not in LABELS:
            raise UserError(f"labels={self.labels!r} is not one of {', '.join(LABELS)}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the marks."""
        return LABELS[self.labels]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        face = self.faces[index]
        record = {"image": self.images[index], "label": _MARKS[self.labels](face)}
        return record | ({"face": face} if self.with_faces else {})

    def record_name(self, index: int) -> str:
        return f"avatar {self.split} {index}"


def faces(
    data_dir: str | None,
    split: str,
    labels: str = "attributes",
    with_faces: bool = False,
    name: str = "avatars",
) -> Avatars:
    """Opens the faces of a split.

    Args:
        data_dir: Folder of data sets; None for the default of `sources.tfds`.
        split: 'train' or 'test'.
        labels: 'attributes' or 'identity', see `Avatars`.
        with_faces: True for records with `face`.
        name: 'avatars', or 'avatars_SIZE' for other sizes than 32 pixels.

    Returns:
        A source.

    Raises:
        UserError: The data set or the split is missing, or `labels` is neither of these.
    """
    images, choices = _read(tfds_directory.find(name, data_dir), split)
    return Avatars(images, choices, split, labels, with_faces)


@functools.lru_cache(maxsize=4)
def _read(directory: str, split: str) -> tuple[np.ndarray, tuple[dict[str, str], ...]]:
    """The images and faces of a split, cached because decoding takes seconds."""
    builder = tfds_directory.open_builder(directory)
    if split not in builder.info.splits:
        raise UserError(
            f"the avatars have no split {split!r}; they have {', '.join(builder.info.splits)}"
        )
    features = builder.info.features
    images, choices = [], []
    with tfds_directory.split_errors("avatars", split):
        for record in builder.as_data_source(split):
            images.append(record["image"])
            face = {choice: features[choice].names[record[choice]] for choice in avatars.CHOICES}
            choices.append(face)
    return np.stack(images), tuple(choices)


@checked
def pair_train_transform(
    context_length: ContextLength = 32, left_out: Fraction = 0.3
) -> Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]:
    """Makes the training transform of pairs, which writes a new caption at each visit.

    Args:
        context_length: Number of tokens.
        left_out: Probability of leaving out a part of the face, independently for each.

    Returns:
        transform(example, rng): `image`, and `text` int32 (context_length,), from an example
        with `face`.
    """
    return functools.partial(_pair, context_length=context_length, left_out=left_out)


def _pair(example, rng, *, context_length, left_out):
    text = caption(example["face"], rng, left_out)
    return {"image": example["image"], "text": tokenize(text, context_length)[0]}


@checked
def fake_faces(
    num_examples: PositiveInt = 24,
    image_size: PositiveInt = 32,
    split: str = "train",
    labels: str = "attributes",
    with_faces: bool = False,
) -> Avatars:
    """Makes random faces with noise as images, to try experiments without data.

    Args:
        num_examples: Length of the source.
        image_size: Height and width in pixels.
        split: 'train' or 'test'.
        labels: The same as in `faces`.
        with_faces: The same as in `faces`.
    """
    rng = np.random.default_rng(len(split))
    choices = tuple(avatars.draw(0, split, index) for index in range(num_examples))
    images = rng.integers(0, 256, (num_examples, image_size, image_size, 3))
    return Avatars(images.astype(np.uint8), choices, split, labels, with_faces)
