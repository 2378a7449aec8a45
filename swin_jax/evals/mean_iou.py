"""Mean intersection over union, exact over a whole set, on any mesh.

Reference: `eval_metrics` of Swin-Transformer-Semantic-Segmentation (mmsegmentation 0.11): counts of
all pictures are summed before anything is divided.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UserError
from swin_jax.core.output.text import say
from swin_jax.data.unreadable import left_out
from swin_jax.ops.segmentation import Pass, count_pixels, resized_labels
from swin_jax.tasks.base import Task, TrainState, check_predicts


@dataclasses.dataclass(frozen=True)
class MeanIoU:
    """Evaluates a segmenter on a data set.

    Logits are brought to the size of the network's input and from there to that of the label, as
    published; pixels are counted as integers, so that neither batches nor devices nor processes
    change a figure.

    Attributes:
        data: A `data.pipeline.EvalData`, one program for all of it, or a
            `data.segmentation.several_sizes.SeveralSizes`.
        background: Name of a class; the mean over the others is given as `foreground_iou` too.
            '' for none.
    """

    data: Any
    background: str = ""

    def bind(self, task: Task, placement: Any) -> Callable[[TrainState, Any], dict[str, Any]]:
        """Compiles for a task and a `sharding.Placement`; returns run(state,
        frozen) -> {name: value}, see `scores`; among them `classes`, a table.
        """
        check_predicts(task, "maps", type(self).__name__)
        names = tuple(self.data.class_names)
        if self.background and self.background not in names:
            raise UserError(f"background={self.background!r} is no class of the data set")
        sizes = {size for group in getattr(self.data, "groups", ()) for size in group}
        if len(sizes) > 1 and jax.process_index() == 0:
            say(
                f"{self.data.num_examples:,} pictures of {len(sizes):,} sizes: as many programs "
                "are compiled, which --compilation_cache=FOLDER keeps"
            )

        count = _counter(task, getattr(self.data, "flip", False))

        def run(state: TrainState, frozen: Any) -> dict[str, Any]:
            batch_size = placement.round_up(self.data.batch_size)
            sums: dict[str, Any] = {}
            pending = None
            for batch in self.data.batches(batch_size, placement.rows(batch_size)):
                batch = {key: array for key, array in batch.items() if key not in ("bad", "record")}
                batch = placement.to_global(batch, batch_size)
                pending, previous = count(state, batch, frozen), pending
                _add(sums, previous)
            _add(sums, pending)
            total = sums.pop("count")
            if not sums["labeled"].sum():
                raise UserError(f"{_described(self.data)} has no pixel that belongs to a class")
            return scores(sums, names, self.background) | left_out(self.data, total)

        return run


def _described(data: Any) -> str:
    """A data set by its first record, for messages."""
    source = getattr(getattr(data, "data", data), "source", None)
    first = source.record_name(0) if hasattr(source, "record_name") else ""
    return "the data set" + (f" that begins with {first}" if first else "")


def _counter(task: Task, flip: bool) -> Callable[[TrainState, dict, Any], dict[str, jax.Array]]:
    """Compiles count(state, batch, frozen) -> the counts of `_count`."""

    @jax.jit
    def count_images(state, batch, frozen):
        found = task.predict(state, batch, frozen)
        return _count(found["labels"], batch, found["maps"].shape[-1])

    @jax.jit
    def mirror(image):  # by itself, so that both directions are one program of the network
        return image[:, :, ::-1]

    @jax.jit
    def predict(state, image, frozen):
        return task.predict(state, {"image": image}, frozen)["maps"]

    @functools.partial(jax.jit, static_argnums=2)
    def count_passes(logits, batch, views):
        passes = [Pass(maps, *view) for maps, view in zip(logits, views, strict=True)]
        labels = resized_labels(passes, batch["original"], batch["label"].shape[1:])
        return _count(labels, batch, logits[0].shape[-1])

    def count(state, batch, frozen):
        if "original" not in batch:
            return count_images(state, batch, frozen)
        images = [batch.pop(name) for name in sorted(batch) if name.startswith("image")]
        mirrors = (False, True) if flip else (False,)
        views = [(image, mirrored) for image in images for mirrored in mirrors]
        seen = (mirror(image) if mirrored else image for image, mirrored in views)
        logits = [predict(state, image, frozen) for image in seen]
        views = tuple((image.shape[1:3], mirrored) for image, mirrored in views)
        return count_passes(logits, batch, views)

    return count


def _count(labels: jax.Array, batch: dict[str, jax.Array], classes: int) -> dict[str, jax.Array]:
    """The counts of a batch; rows of weight 0 do not count."""
    valid = batch["weight"] > 0
    label = jnp.where(valid[:, None, None], batch["label"], IGNORED)
    return count_pixels(labels, label, classes) | {"count": valid.sum()}


def scores(
    counts: Mapping[str, np.ndarray], class_names: Sequence[str] = (), background: str = ""
) -> dict[str, Any]:
    """The figures of a whole set.

    Args:
        counts: `intersect`, `predicted` and `labeled`, (K,) integers each, of all its pixels.
        class_names: K of them; others are replaced by numbers.
        background: The same as in `MeanIoU`.

    Returns:
        'mean_iou', the mean over the classes that are labeled or predicted anywhere;
        'mean_accuracy', over those that are labeled, of the share of their pixels that is right;
        'pixel_accuracy', the share of all labeled pixels; with `background` 'foreground_iou';
        'classes', a table of the figures of each class with a row of titles, where '' stands for
        those that a class does not have.

    Raises:
        UserError: No pixel is labeled.
    """
    right, predicted, labeled = (
        np.asarray(counts[name], np.int64) for name in ("intersect", "predicted", "labeled")
    )
    if not labeled.sum():
        raise UserError("the data set has no pixel that belongs to a class")
    names = class_names if len(class_names) == len(right) else [*map(str, range(len(right)))]
    union = predicted + labeled - right
    iou, accuracy = _shares(right, union), _shares(right, labeled)
    found = {
        "mean_iou": float(np.nanmean(iou)),
        "mean_accuracy": float(np.nanmean(accuracy)),
        "pixel_accuracy": float(right.sum() / labeled.sum()),
    }
    if background:
        others = iou[[name != background for name in names]]
        found["foreground_iou"] = float(np.nanmean(others)) if (others >= 0).any() else np.nan
    columns = (iou, accuracy, labeled / labeled.sum())
    rows = [
        (name, *("" if np.isnan(value) else f"{value:.6f}" for value in values))
        for name, *values in zip(names, *columns)
    ]
    titles = ("class", "iou", "accuracy", "share_of_labels")
    return found | {"classes": [titles, *rows]}


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where the whole is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _add(sums: dict[str, Any], counts: Mapping[str, jax.Array] | None) -> None:
    for name, value in (counts or {}).items():
        sums[name] = sums.get(name, 0) + np.asarray(value, np.int64)
