"""Video Swin's test: several clips and crops of every video, all views at once,
the mean of their probabilities.

Video Swin (arXiv 2106.13230), section 4.1: 4 clips x 3 crops on Kinetics, 1 x 3 on
Something-Something v2. The reference is mmaction2's test of `Recognizer3D` with
`average_clips='prob'`.
"""

import dataclasses
import functools
import hashlib
import inspect
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core import storage
from swin_jax.core.errors import UserError, warn
from swin_jax.core.output.progress import Progress
from swin_jax.core.public_names import first_name, name_of
from swin_jax.core.ranges import NonNegativeInt, PositiveInt, checked
from swin_jax.data.labels import Relabeled, has_several
from swin_jax.data.subsets import Selection
from swin_jax.data.unreadable import left_out, may_leave_out
from swin_jax.evals import features, metrics
from swin_jax.tasks.base import Task, TrainState, check_predicts, probabilities

FUSIONS = ("probability", "score")
_LEFT_OUT = -2  # in place of a label; -1 is one that is not known


def fuse(
    task: Task,
    state: TrainState,
    views: jax.Array,
    frozen: Any,
    views_at_once: int = 0,
    fusion: str = "probability",
    input: str = "video",
) -> jax.Array:
    """The class probabilities of videos from several views of each.

    Args:
        task: A task whose `predict` gives the `logits` of `video`.
        state, frozen: Arguments of `predict`.
        views: (B, V, T, H, W, 3) uint8.
        views_at_once: Views of each video that are computed together, a divisor of V; 0 for all.
            Fewer need less memory.
        fusion: 'probability' is the mean of the views' probabilities,
            'score' the probabilities of their mean logits.
        input: The name of a view in the batch of `predict`; 'image' where views are single frames,
            (B, V, H, W, 3).

    Returns:
        (B, K) float32.
    """
    batch, count, *clip = views.shape
    at_once = views_at_once or count

    def some(part):  # (B, v, T, H, W, 3)
        logits = task.predict(state, {input: part.reshape(-1, *clip)}, frozen)["logits"].astype(
            jnp.float32
        )
        logits = logits.reshape(batch, at_once, -1)
        return (probabilities(task, logits) if fusion == "probability" else logits).sum(1)

    parts = jnp.moveaxis(views.reshape(batch, count // at_once, at_once, *clip), 1, 0)
    mean = jax.lax.map(some, parts).sum(0) / count
    return mean if fusion == "probability" else probabilities(task, mean)


@checked
@dataclasses.dataclass(frozen=True)
class MultiView:
    """Evaluates a classifier of clips on several views of every video.

    Attributes:
        data: A `data.pipeline.EvalData` with `video` uint8 (B, V, T, H, W, 3) and `label`.
        views_at_once: Views of each video that are computed together, a divisor of V; 0 for all.
        fusion: 'probability' or 'score', see `fuse`.
        input: Key of the views, 'video' or 'image', see `fuse`.
        cache: Folder where finished videos are kept, so that a test that was stopped
            resumes with the next one; '' for none. What is kept belongs to one set of weights and
            one set of views.
        save_every: Batches between two writes to the cache.
        progress: True to show a bar.
    """

    data: Any
    views_at_once: NonNegativeInt = 0
    fusion: str = "probability"
    input: str = "video"
    cache: str = ""
    save_every: PositiveInt = 20
    progress: bool = True

    def __post_init__(self):
        if self.fusion not in FUSIONS:
            raise UserError(f"fusion={self.fusion!r} is not one of {FUSIONS}")

    def bind(self, task: Task, placement: Any) -> Callable[[TrainState, Any], dict[str, float]]:
        """Compiles for a task and a `sharding.Placement`; returns run(state,
        frozen) -> {name: value}.

        The values are 'top1', 'top5' (or fewer classes) and 'mean_class' (accuracy averaged over
        classes); of videos with several labels each they are those of `metrics.multi_label_scores`.
        """
        check_predicts(task, "logits", type(self).__name__)
        everywhere = jax.sharding.NamedSharding(placement.mesh, jax.sharding.PartitionSpec())

        @functools.partial(jax.jit, out_shardings=everywhere)
        def count(state, batch, frozen):
            probabilities = fuse(
                task, state, batch[self.input], frozen, self.views_at_once, self.fusion, self.input
            )
            label, out = batch["label"], batch["bad"] > 0
            label = jnp.where(out.reshape(-1, *(1,) * (label.ndim - 1)), _LEFT_OUT, label)
            return probabilities, label, batch["weight"] + out

        def run(state: TrainState, frozen: Any) -> dict[str, float]:
            batch_size = placement.round_up(self.data.batch_size)
            cache = _Cache(self, task, _fingerprint(state, frozen)) if self.cache else None
            parts = cache.parts() if cache else []
            done = _agree(sum(len(label) for _, label in parts))
            total, shown, rows = (
                len(self.data.source),
                self.progress and jax.process_index() == 0,
                [],
            )
            for found in self._progress(
                self._rest(count, state, frozen, placement, batch_size, done), done, shown
            ):
                rows.append(found)
                if cache and len(rows) == self.save_every:
                    parts.append(cache.add(rows))
                    rows = []
            if rows:
                parts.append(cache.add(rows) if cache else _join(rows))
            # Process 0 has the cache and the figures.
            if sum(len(label) for _, label in parts) != total:
                return {}
            probabilities, label = _join(parts)
            read = (label != _LEFT_OUT).reshape(len(label), -1).all(-1)
            probabilities, label = probabilities[read], label[read]
            missing = left_out(self.data, len(label))
            if label.ndim == 2:
                return metrics.multi_label_scores(probabilities, label) | missing
            rank, _ = metrics.rank_labels(
                probabilities, label, np.eye(probabilities.shape[1], dtype=np.float32)
            )
            found = metrics.top_scores(rank, label, probabilities.shape[1])
            del found["mean_top1_top5"]
            return found | {"mean_class": found.pop("mean_per_class")} | missing

        return run

    def _rest(self, count, state, frozen, placement, batch_size: int, done: int) -> Iterator[tuple]:
        """(probabilities, labels) of the videos after the first `done`, a batch at a time."""
        if done == len(self.data.source):
            return
        rest = Selection(self.data.source, tuple(range(done, len(self.data.source))))
        data, pending = dataclasses.replace(self.data, source=rest), None
        for batch in data.batches(batch_size, placement.rows(batch_size)):
            views = batch[self.input].shape[1]
            if self.views_at_once and views % self.views_at_once:
                raise UserError(
                    f"views_at_once={self.views_at_once} does not divide "
                    f"the {views} views of a video"
                )
            chosen = {key: batch[key] for key in (self.input, "label", "weight", "bad")}
            placed = placement.to_global(chosen, batch_size)
            pending, previous = count(state, placed, frozen), pending
            if previous is not None:
                yield _real(*previous)
        yield _real(*pending)

    def _progress(self, found: Iterator[tuple], done: int, shown: bool) -> Iterator[tuple]:
        with Progress(
            total=len(self.data.source), unit="videos", name="test", initial=done, show=shown
        ) as bar:
            for part in found:
                yield part
                bar.update(len(part[1]))


class _Cache:
    """Finished videos in files of (probabilities, label), in order;
    those of other weights or views are left alone.
    """

    def __init__(self, eval_: MultiView, task: Task, weights: str):
        facts = (weights, _text_of(eval_.data.transform), eval_.fusion, len(eval_.data.source))
        # Parts are joined by place: what a record is, and its label, must be as they were.
        facts += (features.text_of_task(task), _records(eval_.data.source))
        facts += ("leave_out",) if may_leave_out(eval_.data) else ()
        facts += ("multi_label",) if has_several(eval_.data.source) else ()
        # What is kept holds labels too.
        facts += (eval_.data.source.index,) if isinstance(eval_.data.source, Relabeled) else ()
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
        self.folder, self.count = pathlib.Path(eval_.cache).expanduser() / key, 0
        self.writes = jax.process_index() == 0
        if self.writes:
            self.folder.mkdir(parents=True, exist_ok=True)

    def parts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The parts up to the first that is lost or torn: the place of later ones is not known."""
        found = []
        while (path := self._part(len(found))).is_file():
            try:
                with np.load(path) as arrays:
                    probabilities, label = arrays["probabilities"], arrays["label"]
                if (
                    probabilities.ndim != 2
                    or probabilities.dtype.kind != "f"
                    or len(probabilities) != len(label)
                ):
                    raise ValueError(f"it holds {probabilities.dtype} {probabilities.shape}")
                found.append((probabilities, label))
            except Exception as error:  # whatever a damaged file provokes in NumPy
                warn(
                    f"{path} cannot be read ({storage.first_line(error)}); "
                    "what it held is computed again"
                )
                break
        self.count = len(found)
        for path in self.folder.glob("part_*.npz") if self.writes else ():
            if path.name >= self._part(self.count).name:
                path.unlink()
        return found

    def _part(self, number: int) -> pathlib.Path:
        return self.folder / f"part_{number:05d}.npz"

    def add(self, rows: list) -> tuple[np.ndarray, np.ndarray]:
        probabilities, label = _join(rows)
        if self.writes:
            with storage.writing(self._part(self.count)) as file:
                np.savez(file, probabilities=probabilities, label=label)
            self.count += 1
        return probabilities, label


def _text_of(value: Any) -> str:
    """A function and its bound arguments, functions among them,
    without the addresses that `repr` shows.
    """
    if isinstance(value, functools.partial):
        bound = [_text_of(x) for x in value.args] + [
            f"{k}={_text_of(x)}" for k, x in sorted(value.keywords.items())
        ]
        return f"{_text_of(value.func)}({', '.join(bound)})"
    return first_name(name_of(value)) if inspect.isroutine(value) else repr(value)


def _real(probabilities, label, weight) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a batch that are videos, those left out among them, and not padding."""
    real = np.asarray(weight) > 0
    return np.asarray(probabilities)[real], np.asarray(label)[real]


def _join(rows: list[tuple]) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.concatenate(column) for column in zip(*rows))


def _records(source: Any) -> str:
    """A hash of what a source tells of its records unread: their names, files and labels."""
    found = hashlib.sha256()
    for index in range(len(source)):
        name = source.record_name(index)
        found.update(f"{name!r} {_stamp(name)}\n".encode("utf-8", "surrogateescape"))
    while source is not None:
        for told in ("labels", "marks", "indices"):
            values = np.ascontiguousarray(getattr(source, told, ()))
            found.update(f"{told} {values.dtype} {values.shape}\n".encode())
            found.update(values.tobytes())
        source = getattr(source, "source", None)
    return found.hexdigest()


def _stamp(name: str) -> tuple[int, ...]:
    """Size and time of change of a record that is a file of its own; () for others."""
    try:
        status = os.stat(name)
    except (OSError, ValueError):  # a name with a zero byte
        return ()
    return status.st_size, storage.changed(status)


def _fingerprint(state: TrainState, frozen: Any) -> str:
    """A short text that differs for other weights."""

    def two(x):
        return jnp.stack([x.sum(), jnp.abs(x).sum()])

    sums = jax.jit(
        lambda tree: jnp.stack([two(x.astype(jnp.float32)) for x in jax.tree.leaves(tree)])
    )
    found = sums((state.params, state.mutable, frozen))
    return hashlib.sha256(np.asarray(found).tobytes()).hexdigest()


def _agree(count: int) -> int:
    """The number that process 0 found, on every process."""
    if jax.process_count() == 1:
        return count
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(count)))
