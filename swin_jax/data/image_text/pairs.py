"""Image-text pairs: sources with random access, and the transforms that add a caption's tokens.

A pair source is a source (see sources.py) whose examples are {'image': PIL image, 'text': captions
(str, ...), ...}. `record(i)` is the same without reading the image, for choosing records. Captions
are drawn and tokenized by the transform, in loader workers, so that each epoch sees others. A pair
whose image cannot be read or that has no caption raises when it is read: training replaces and
counts it as any unreadable record.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from swin_jax.core.errors import UnreadableError, UserError, warn
from swin_jax.core.ranges import NonNegativeInt, checked
from swin_jax.data import folders, sources, subsets
from swin_jax.data import tfds as tfds_directory
from swin_jax.data.image import picture
from swin_jax.data.image_text import grouping
from swin_jax.data.image_text.captions import MAX_BYTES, captions_of, from_text
from swin_jax.data.image_text.tokenizer import (
    CONTEXT_LENGTH,
    ContextLength,
    tokenize,
    tokenize_and_flag,
)

Example = dict[str, Any]


class TfdsPairs:
    """One split of a TFDS data set with image and text; pickles as its arguments. See `tfds`."""

    def __init__(
        self,
        directory: str,
        split: str,
        image_key: str,
        text_key: str,
        extra: tuple[str, ...],
        label_key: str,
        conversion: str,
    ):
        """Opens the data set that lies in `directory`, which ends in its version."""
        self._arguments = (directory, split, image_key, text_key, extra, label_key, conversion)
        self._conversion = conversion
        keys = (text_key, *extra, *((label_key,) if label_key else ()))
        self._records, features, name = tfds_directory.open_records(
            directory, split, image_key, keys
        )
        self.class_names = (
            tuple(getattr(features[label_key], "names", None) or ()) if label_key else ()
        )
        plain = {key: features[key] for key in keys if "/" not in key}
        self._labels = {
            key: feature.names for key, feature in plain.items() if getattr(feature, "names", None)
        }
        self._name = f"{name} {split}"
        self._image_key, self._text_key, self._extra, self._label_key = (
            image_key,
            text_key,
            extra,
            label_key,
        )
        if len(self._records):
            with contextlib.suppress(UnreadableError):  # of this record only
                self.record(0)

    def __reduce__(self):
        return TfdsPairs, self._arguments

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        record = self._records[index]
        example = self._texts(record)
        example["text"] = captions_of(example["text"])
        return {"image": picture.decode(record[self._image_key], self._conversion), **example}

    def record(self, index: int) -> Example:
        """The texts and the label of a record."""
        return self._texts(self._records[index])

    def record_name(self, index: int) -> str:
        return f"{self._name} record {index}"

    def _texts(self, record: Example) -> Example:
        example = {key: self._text(record, key) for key in self._extra}
        text = self._text(record, self._text_key)
        example["text"] = (text,) if isinstance(text, str) else text
        return example | ({"label": int(record[self._label_key])} if self._label_key else {})

    def _text(self, record: Example, key: str) -> str | tuple[str, ...]:
        value = functools.reduce(lambda inner, part: inner[part], key.split("/"), record)
        if key in self._labels and isinstance(value, (int, np.integer)):
            return self._labels[key][value]
        if isinstance(value, (bytes, str)):
            return _str(value)
        if isinstance(value, (list, tuple, np.ndarray)) and all(
            isinstance(item, (bytes, str)) for item in value
        ):
            return tuple(map(_str, value))
        raise UserError(f"the feature {key!r} of {self._name} is not a text")


@dataclasses.dataclass(frozen=True)
class FolderPairs:
    """Images with a caption in a text file of the same name beside each. See `folder`.

    Attributes:
        root: Folder of all files.
        paths: Paths of the images, relative to root.
        texts: Paths of the caption files.
        conversion: Conversion of pixels, see `picture.py`.
        caption_lines: True if each line of a text is a caption.
    """

    root: str
    paths: tuple[str, ...]
    texts: tuple[str, ...]
    conversion: str
    caption_lines: bool
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Example:
        text = captions_of(self.record(index)["text"])
        return {"image": picture.decode(self.record_name(index), self.conversion), "text": text}

    def record(self, index: int) -> Example:
        """The caption of an image."""
        with open(os.path.join(self.root, self.texts[index]), "rb") as file:
            return {"text": from_text(file.read(MAX_BYTES + 1), self.caption_lines)}

    def record_name(self, index: int) -> str:
        return os.path.join(self.root, self.paths[index])


def tfds(
    name: str,
    split: str,
    data_dir: str | None = None,
    image_key: str = "image",
    text_key: str = "text",
    extra: Sequence[str] = (),
    label_key: str = "",
    in_memory: bool = False,
    conversion: str = "reference",
) -> TfdsPairs | sources.CachedSource:
    """Pairs of a TFDS data set that was prepared in the array_record format; needs no TensorFlow.

    Args:
        name: The same as in `sources.tfds`.
        split: Split in TFDS's notation.
        data_dir: Folder of data sets.
        image_key: The feature that holds the encoded image.
        text_key: The captions: a text, several ('captions/text' is `text` inside of `captions`), or
            a label, whose class names are the captions.
        extra: Further features of those kinds, which examples get as str or (str,
            ...) for a caption function.
        label_key: An integer feature that becomes `label`; '' for none.
        in_memory: True to keep decoded images, for sets that fit in the memory of every loader
            process.
        conversion: Conversion of pixels: 'display' turns pictures upright by their EXIF orientation
            and lays what is transparent on white, 'reference' does neither, as the recipes of CLIP.

    Returns:
        The source. Raises UserError where the set, split or feature is missing or is of another
        kind.
    """
    picture.check_conversion(conversion)
    directory = tfds_directory.find(name, data_dir)
    source = TfdsPairs(directory, split, image_key, text_key, tuple(extra), label_key, conversion)
    return sources.CachedSource(source) if in_memory else source


def folder(
    root: str | None, conversion: str = "display", caption_lines: bool = False
) -> FolderPairs:
    """Every image under a folder that has a text file of the same name:
    cat.jpg and cat.txt, at any depth.

    Args:
        root: The folder. Files without a partner are left out, and so are those of which several
            share a name; a warning counts them. See grouping.py.
        conversion: Conversion of pixels: 'display' turns pictures upright by their EXIF orientation
              and lays what is transparent on white, 'reference' does neither.
        caption_lines: True if each line of a text is a caption of its own; otherwise a text is one.

    Returns:
        The source, in sorted order. Raises UserError where the folder is missing or has no such
        pair.
    """
    if not root:
        raise UserError(
            "a folder of pairs needs its path: give --config.pairs=DIR "
            "(for validation pairs --config.validation_pairs=DIR)"
        )
    picture.check_conversion(conversion)
    root = os.path.expanduser(root)
    files = folders.files_under(root, (*picture.suffixes(), ".txt"))
    found = grouping.pair_up(files.paths, ".txt")
    left_out = {why: (0, "") for why in range(len(grouping.KINDS))}
    for why, position in reversed(found.left_out):
        left_out[why] = left_out[why][0] + 1, files.paths[position]
    lines = grouping.describe(left_out, ".txt"), folders.describe(files.left_out)
    message = "; ".join(filter(None, lines))
    if not found.pairs:
        raise UserError(
            f"no image in {root} has a caption beside it, "
            f"a.jpg and a.txt ({message or 'it is empty'})"
        )
    if message:
        warn(f"{root}: {len(found.pairs)} pairs; {message}")
    names = [(files.paths[image], files.paths[text]) for image, text in found.pairs]
    return FolderPairs(root, *map(tuple, zip(*names)), conversion, caption_lines)


def select(source: Any, keep: Callable[[Example], bool]) -> subsets.Selection:
    """The records of a pair source for which `keep(record without image)` holds.

    Returns:
        A source in the same order. Records whose texts cannot be read are left out and counted in a
        warning. Raises UserError where none is left.
    """
    indices, unreadable = [], []
    for index in range(len(source)):
        try:
            if keep(source.record(index)):
                indices.append(index)
        except UnreadableError as error:
            unreadable.append(f"{source.record_name(index)} ({error})")
    if unreadable:
        warn(
            f"{len(unreadable)} pairs cannot be read and are left out, the first is {unreadable[0]}"
        )
    if not indices:
        raise UserError(
            f"none of the {len(source)} pairs ({source.record_name(0)}, ...) was asked for"
        )
    return subsets.Selection(source, tuple(indices))


@checked
@dataclasses.dataclass(frozen=True)
class KeywordCaption:
    """A caption function: the record's text in a template,
    then some of its keywords in random order.

    Attributes:
        templates: One is drawn; each holds one '{}'.
        key: The example's keywords (str, ...).
        most: Largest number of keywords; their number is drawn from 0 to this.
    """

    templates: tuple[str, ...] = ("{}",)
    key: str = "keywords"
    most: NonNegativeInt = 4

    def __call__(self, example: Example, rng: np.random.Generator) -> str:
        template = self.templates[rng.integers(len(self.templates))]
        words = example[self.key]
        chosen = rng.permutation(len(words))[: rng.integers(min(self.most, len(words)) + 1)]
        return ", ".join([template.format(any_caption(example, rng)), *(words[i] for i in chosen)])


def any_caption(example: Example, rng: np.random.Generator) -> str:
    """One of the record's captions, drawn by the seed of the data and the number of the
    example in the run.
    """
    captions = example["text"]
    return captions[rng.integers(len(captions)) if len(captions) > 1 else 0]


@checked
def train_transform(
    image: Callable[[Example, np.random.Generator], Example],
    caption: Callable[[Example, np.random.Generator], str] = any_caption,
    context_length: ContextLength = CONTEXT_LENGTH,
    truncate: bool = True,
    clean: str = "openai",
) -> Callable[[Example, np.random.Generator], Example]:
    """Transforms an image and tokenizes a caption of it.

    Args:
        image: The image's transform, such as image.clip_train_transform(224).
        caption: A function that draws the caption.
        context_length: L.
        truncate: True to cut captions that are too long; False raises UserError instead.
        clean: Cleaning of texts, see `tokenizer.tokenize`.

    Returns:
        transform(example, rng): `image` uint8 (H, W, 3), `text` int32 (L,), `truncated` uint8, 1
        where the caption was cut, and `label` where the source has it.
    """
    return functools.partial(
        _train,
        image=image,
        caption=caption,
        context_length=context_length,
        truncate=truncate,
        clean=clean,
    )


@checked
def eval_transform(
    image: Callable[[Example], Example],
    caption: Callable[[Example], str] | None = None,
    context_length: ContextLength = CONTEXT_LENGTH,
    truncate: bool = True,
    clean: str = "openai",
) -> "EvalTransform":
    """The same for evaluation; `caption(example)` is by default the record's first caption.

    Retrieval takes the images from here and searches all captions of the record,
    or the one of `caption`.
    """
    return EvalTransform(image, caption, context_length, truncate, clean)


@dataclasses.dataclass(frozen=True)
class EvalTransform:
    """Transforms an image and tokenizes a caption of it; see `eval_transform`."""

    image: Callable[[Example], Example]
    caption: Callable[[Example], str] | None
    context_length: int
    truncate: bool
    clean: str

    def __call__(self, example: Example) -> Example:
        tokens = {field: getattr(self, field) for field in ("context_length", "truncate", "clean")}
        return _batchable(
            self.image(example)["image"], self.captions(example)[0], example, **tokens
        )

    def captions(self, record: Example) -> tuple[str, ...]:
        """The captions that a record is searched by."""
        return (self.caption(record),) if self.caption else captions_of(record["text"])

    def tokenize(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens (n, L) int32 of n captions; raises UserError for one that is
        too long unless `truncate`.
        """
        return tokenize(texts, self.context_length, self.truncate, self.clean)


def _train(example, rng, *, image, caption, **tokens):
    return _batchable(image(example, rng)["image"], caption(example, rng), example, **tokens)


def _batchable(image, text, example, *, context_length, truncate, clean) -> Example:
    if truncate:
        ids, too_long = tokenize_and_flag(text, context_length, clean)
        ids, cut = ids[0], too_long[0]
    else:
        ids, cut = tokenize(text, context_length, clean=clean)[0], False
    label = {"label": example["label"]} if "label" in example else {}
    return {"image": image, "text": ids, "truncated": np.uint8(cut), **label}


def _str(value: bytes | str) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        raise UnreadableError(f"a text is not UTF-8, at byte {error.start + 1}") from error
