"""Evaluation of pictures of several sizes: grouped by the size at which a network sees them, so
that a batch has pictures of one size, of which none is padded.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UserError
from swin_jax.core.output.progress import Progress
from swin_jax.core.ranges import PositiveFloat, checked
from swin_jax.data import unreadable
from swin_jax.data.labels import Relabeled
from swin_jax.data.pipeline import EvalData
from swin_jax.data.segmentation.resizing import fitted_size
from swin_jax.data.segmentation.transforms import Scale, eval_transform

_THREADS = 8
Shape = tuple[int, int]


@checked
@dataclasses.dataclass(frozen=True)
class SeveralSizes:
    """Every picture of a data set once, in batches of pictures of one size.

    Attributes:
        data: The data set, with `data.segmentation.transforms.eval_transform` as its transform.
        scale: The argument `scale` of the transform.
        ratios: Factors on the scale at which a network sees each picture. `ops.label_maps.SCALES`
            are those of the published results at several scales, which are mirrored too.
        flip: True if it sees them mirrored as well.
    """

    data: EvalData
    scale: Scale | None = (2048, 512)
    ratios: tuple[PositiveFloat, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self):
        if not self.ratios or (self.scale is None and tuple(self.ratios) != (1.0,)):
            raise UserError(f"ratios={self.ratios}: give some, and a scale that they multiply")
        fitted = getattr(self.data.transform, "keywords", {}).get("scale", self.scale)
        if (fitted and sorted(fitted)) != (self.scale and sorted(self.scale)):
            raise UserError(
                f"scale={self.scale} groups pictures by another size than their transform's "
                f"scale={fitted} gives them: give both the same, as --config.scale= does"
            )

    @property
    def scales(self) -> tuple[Scale | None, ...]:
        """The scale of each ratio."""
        if self.scale is None:
            return (None,)
        return tuple(tuple(max(int(s * ratio), 1) for s in self.scale) for ratio in self.ratios)

    @property
    def num_examples(self) -> int:
        """Records in the source."""
        return self.data.num_examples

    @property
    def class_names(self) -> tuple[str, ...]:
        """The source's class names, in label order."""
        return self.data.class_names

    @property
    def batch_size(self) -> int:
        """Rows of the global batch that is asked for."""
        return self.data.batch_size

    @property
    def unreadable(self) -> str:
        """Treatment of a record that cannot be read."""
        return self.data.unreadable

    def with_classes(self, index: Sequence[int], class_names: Sequence[str]) -> "SeveralSizes":
        """The same records with the labels of another set:
        `index` has the new number of each class.
        """
        return dataclasses.replace(self, data=self.data.with_classes(index, class_names))

    def check_counts(self) -> None:
        """Raises UserError where the source is not of the expected number of classes."""
        self.data.check_counts()

    @functools.cached_property
    def groups(self) -> dict[tuple[Shape, ...], tuple[list[int], Shape]]:
        """{(H, W) of the network's input at each ratio: (records, the largest height and width of
        a label)}.

        Reads the head of every file, once. A file whose head cannot be read, where such records are
        left out, is in any group. Raises UserError for one where they are not.
        """
        found: dict[tuple[Shape, ...], tuple[list[int], Shape]] = {}
        unknown = []
        with (
            ThreadPoolExecutor(_THREADS) as pool,
            Progress(self.num_examples, "sizes", show=self.num_examples > 1000) as bar,
        ):
            sizes = pool.map(functools.partial(_size, self.data), range(self.num_examples))
            for record, size in enumerate(sizes):
                bar.update()
                if size is None:
                    unknown.append(record)
                    continue
                fitted = tuple(
                    size if scale is None else fitted_size(size, scale) for scale in self.scales
                )
                records, largest = found.setdefault(fitted, ([], size))
                records.append(record)
                found[fitted] = records, (max(largest[0], size[0]), max(largest[1], size[1]))
        if not found:
            raise UserError("no picture of the data set can be read; check it")
        found = dict(sorted(found.items()))
        next(iter(found.values()))[0].extend(unknown)
        return found

    def batches(self, batch_size: int, rows: Sequence[int]) -> Iterator[dict[str, np.ndarray]]:
        """Yields batches as `EvalData.batches` does, each of one size of `image`, and of `image_1`
        and so on where there are several ratios.

        `label` is uint8 (R, H, W) for the largest label of its group, 255 beyond its own size,
        which is in `original`, int32 (R, 2).
        """
        parts = [
            records[i : i + batch_size]
            for records, _ in self.groups.values()
            for i in range(0, len(records), batch_size)
        ]
        labels = {size: largest for size, (_, largest) in self.groups.items()}
        transforms = (self.data.transform,)
        if len(self.scales) > 1:
            transforms = tuple(map(eval_transform, self.scales))
        transform = functools.partial(_prepared, transforms=transforms, labels=labels)
        data = dataclasses.replace(self.data, transform=transform)
        return data.batches_of(parts, batch_size, rows)


def _size(data: EvalData, record: int) -> Shape | None:
    """(H, W) of a picture, by the head of its file where the source tells it; None where it cannot
    be read and is left out.
    """
    source = data.source
    while isinstance(source, Relabeled):  # the same pictures
        source = source.source
    try:
        if callable(getattr(source, "image_size", None)):
            return source.image_size(record)
        height, width = source[record]["label"].shape
        return height, width
    except unreadable.CAUSES as error:
        if unreadable.may_leave_out(data):
            return None
        raise UserError(
            f"{source.record_name(record)} cannot be read ({unreadable.describe(error)}); an "
            "evaluation needs every picture: repair or remove it, or leave unreadable ones out "
            "with unreadable='leave_out' of its data"
        ) from error


def _prepared(
    example: dict[str, Any],
    transforms: Sequence[Callable[[dict[str, Any]], dict[str, Any]]],
    labels: Mapping[tuple[Shape, ...], Shape],
) -> dict[str, Any]:
    """A transformed example whose label has the size that is given for those of its images."""
    images = [transform(example)["image"] for transform in transforms]
    label = example["label"]
    room = np.full(labels[tuple(image.shape[:2] for image in images)], IGNORED, np.uint8)
    room[: label.shape[0], : label.shape[1]] = label
    more = {f"image_{i}": image for i, image in enumerate(images[1:], 1)}
    original = np.array(label.shape, np.int32)
    return {**example, "image": images[0], **more, "label": room, "original": original}
