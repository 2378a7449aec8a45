"""The images of a pair source, each once with all of its captions: what retrieval is measured on.

Lists may name an image in several lines, and shards may hold it several times, with a caption each.
To train on they are pairs of their own; in a search such an image would stand in its own way, and
each of its captions would count as wrong for its other lines.
"""

import hashlib
import os
from dataclasses import dataclass
from typing import Any

from swin_jax.core.errors import UnreadableError
from swin_jax.data.subsets import Selection


@dataclass(frozen=True)
class Images:
    """A pair source of images that differ; see `by_image`.

    Attributes:
        source: A pair source.
        records: For each image, the numbers of its records in `source`.
    """

    source: Any
    records: tuple[tuple[int, ...], ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """The first record of an image that has a caption, with the captions of all."""
        own = [(index, _record(self.source, index)["text"]) for index in self.records[number]]
        first = next(
            (index for index, texts in own if any(text.strip() for text in texts)), own[0][0]
        )
        return {**self.source[first], "text": tuple(text for _, texts in own for text in texts)}

    def record(self, number: int) -> dict[str, Any]:
        """The same without the image."""
        found = [_record(self.source, index) for index in self.records[number]]
        return {**found[0], "text": tuple(text for record in found for text in record["text"])}

    def record_name(self, number: int) -> str:
        return self.source.record_name(self.records[number][0])


def by_image(source: Any) -> Images:
    """Joins the records of a pair source that name the same image file; reads the texts of all.

    Args:
        source: A pair source. Its records say in `image_path` which file their image is, whatever
            path or link leads to it, or else its `image_bytes(index)` are compared; records of
            other sources are images of their own.

    Returns:
        The images, in the order in which they first occur.
    """
    groups: dict[Any, list[int]] = {}
    chosen = range(len(source))
    if isinstance(source, Selection):  # which tells less of its records than what it selects from
        source, chosen = source.source, source.indices
    for index in chosen:
        try:
            identity = _identity(source, index)
        except (UnreadableError, OSError):  # whoever reads the image says so
            identity = index
        groups.setdefault(identity, []).append(index)
    return Images(source, tuple(map(tuple, groups.values())))


def _identity(source: Any, index: int) -> Any:
    """The value that records of the same image share."""
    path = _record(source, index).get("image_path")
    if path is not None:
        return os.path.realpath(path)
    if hasattr(source, "image_bytes"):
        return hashlib.blake2b(source.image_bytes(index), digest_size=16).digest()
    return index


def _record(source: Any, index: int) -> dict[str, Any]:
    """A record without its image, if the source can give that."""
    return source.record(index) if hasattr(source, "record") else source[index]
