"""Training and evaluation batches from random-access sources, on grain.

The order of the data is a function of (seed, step): source -> seed -> shuffle -> repeat ->
random_map, and row i of update s is element s * batch_size + i. Each process reads only its own
rows, so batches and augmentations do not depend on the number of loader workers or threads or of
processes that share a batch, and a run resumes at any step. Loaders work on all rows of an update
at once, which keeps their cost per image small.
"""

import dataclasses
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import grain
import numpy as np
from absl import flags

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import NonNegativeInt, PositiveInt, Seed, checked
from swin_jax.data import labels, unreadable, workers

_NARROW = {np.dtype(np.int64): np.int32, np.dtype(np.float64): np.float32}


class Source(Protocol):
    """A data set with random access; opens files lazily, as it is pickled to loader workers."""

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def record_name(self, index: int) -> str: ...


@checked
@dataclasses.dataclass(frozen=True)
class TrainData:
    """An endless, shuffled, augmented stream of batches.

    Attributes:
        source: The data set that is read.
        transform: `transform(example, rng) -> example`;
            every value that it returns is stacked into the batch.
        batch_size: Rows of the global batch.
        seed: Seed of the order and of the augmentation, 0 to 2**32 - 1.
        num_workers: Loader processes; 0 reads in threads of this process. Batches are passed
            through /dev/shm, which must have room for num_workers * (prefetch + 2) of them.
        num_threads: Number of reading threads if num_workers is 0; 0 reads a batch only on
            request.
        prefetch: Batches kept ready (by each worker).
        expected_classes: Number of classes of the model; 0 skips the check.
        expected_examples: Number of examples in an epoch of the config; 0 skips the check.
    """

    source: Source
    transform: Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]
    batch_size: PositiveInt
    seed: Seed = 0
    num_workers: NonNegativeInt = 0
    num_threads: NonNegativeInt = 2
    prefetch: NonNegativeInt = 4
    expected_classes: NonNegativeInt = 0
    expected_examples: NonNegativeInt = 0

    def __post_init__(self):
        _check(self.source)

    @property
    def num_examples(self) -> int:
        """Records in one epoch."""
        return len(self.source)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The source's class names, in label order."""
        return self.source.class_names

    @property
    def multi_label(self) -> bool:
        """True if `label` is int8 (B, K), a mark for each class, instead of int32 (B,)."""
        return labels.has_several(self.source)

    def with_classes(self, index: Sequence[int], class_names: Sequence[str]) -> "TrainData":
        """The same records with the class numbers of another data set;
        `index` has the new number of each class.
        """
        return dataclasses.replace(
            self, source=labels.Relabeled(self.source, tuple(index), tuple(class_names))
        )

    def with_marks(self) -> "TrainData":
        """The same records with a mark for each class, for a task that takes several labels."""
        return dataclasses.replace(self, source=labels.marked(self.source, self.expected_classes))

    def check_counts(self) -> None:
        """Raises UserError, as `batches` does, if the counts are not the expected ones."""
        _check_counts(self.source, self.expected_classes, self.expected_examples)

    def batches(self, start_step: int, rows: Sequence[int]) -> Iterator[dict[str, np.ndarray]]:
        """Yields this process's rows of the batches of updates start_step, start_step + 1,
        ..., endlessly.

        Args:
            start_step: The first update; starting there equals skipping the batches before it.
            rows: R row numbers, 0 to batch_size - 1.

        Returns:
            An iterator of `image` uint8 (R, H, W, C), `label` int32 (R,), whatever else the
            transform returns, and `bad` uint8 (R,), 1 where a record was unreadable and the next
            readable one took its place. Call its `close()` to stop the workers. It raises UserError
            after `unreadable.MAX_RUN` unreadable records in a row.
        """
        self.check_counts()
        batches = _TrainBatches(
            self.elements(), self.batch_size, start_step, _check_rows(rows, self.batch_size)
        )
        return _iterate(
            batches, self.num_workers, self.num_threads, self.prefetch, self.expected_classes
        )

    def elements(self) -> grain.MapDataset:
        """The endless random-access sequence of examples.

        Row i of update s is element number s * batch_size + i.
        """
        read = functools.partial(
            unreadable.read_or_next, source=self.source, transform=self.transform
        )
        return self._order().random_map(read)

    def records(self, update: int, rows: Sequence[int]) -> list[int]:
        """The numbers, from 0, of the records that belong in rows of an update.

        If a record is unreadable, its row has another record instead.
        """
        order = self._order()
        return [int(order[update * self.batch_size + row]) for row in rows]

    def _order(self) -> grain.MapDataset:
        return grain.MapDataset.range(len(self.source)).seed(self.seed).shuffle().repeat()


@checked
@dataclasses.dataclass(frozen=True)
class EvalData:
    """Every record of a source exactly once, in order.

    Attributes:
        source: The data set that is read.
        transform: `transform(example) -> example`.
        batch_size: Desired rows of the global batch (a mesh may need it rounded up), at most the
            number of records.
        num_workers: Loader processes; 0 reads in threads of this process.
        num_threads: Number of reading threads if num_workers is 0; 0 reads a batch only on
            request.
        prefetch: Batches kept ready (by each worker).
        expected_classes: Number of classes of the model; 0 skips the check.
        unreadable: Treatment of unreadable records: 'refuse' ends the evaluation and names the
            record, as results without it are not comparable; 'leave_out' evaluates the others and
            reports their number as `left_out`.
    """

    source: Source
    transform: Callable[[dict[str, Any]], dict[str, Any]]
    batch_size: PositiveInt
    num_workers: NonNegativeInt = 0
    num_threads: NonNegativeInt = 2
    prefetch: NonNegativeInt = 4
    expected_classes: NonNegativeInt = 0
    unreadable: str = "refuse"

    def __post_init__(self):
        _check(self.source)
        unreadable.check_policy(self.unreadable)
        object.__setattr__(self, "batch_size", min(self.batch_size, len(self.source)))

    @property
    def num_examples(self) -> int:
        """Records in the source."""
        return len(self.source)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The source's class names, in label order."""
        return self.source.class_names

    @property
    def multi_label(self) -> bool:
        """True if `label` is int8 (B, K), a mark for each class, instead of int32 (B,)."""
        return labels.has_several(self.source)

    def with_classes(self, index: Sequence[int], class_names: Sequence[str]) -> "EvalData":
        """The same records with the class numbers of another data set;
        `index` has the new number of each class.
        """
        return dataclasses.replace(
            self, source=labels.Relabeled(self.source, tuple(index), tuple(class_names))
        )

    def with_marks(self) -> "EvalData":
        """The same records with a mark for each class, for a task that takes several labels."""
        return dataclasses.replace(self, source=labels.marked(self.source, self.expected_classes))

    def check_counts(self) -> None:
        """Raises UserError, as `batches` does, if the number of classes is not the expected one."""
        _check_counts(self.source, self.expected_classes)

    def num_batches(self, batch_size: int) -> int:
        """Number of global batches that cover all records; the same on every process."""
        return -(-len(self.source) // batch_size)

    def batches(self, batch_size: int, rows: Sequence[int]) -> Iterator[dict[str, np.ndarray]]:
        """Yields this process's rows of num_batches(batch_size) batches.

        Args:
            batch_size: Rows of the global batch.
            rows: R row numbers, 0 to batch_size - 1.

        Returns:
            An iterator of batches like those of TrainData, with `record` int32 (R,), numbers in the
            source, and `weight` float32 (R,): 1 for a record, 0 where the last record is repeated
            to fill the batch and for an unreadable record that is left out, which has `bad` 1 and
            another record's values. It raises UserError if an unreadable record is to be refused,
            and after `unreadable.MAX_RUN` unreadable records in a row.
        """
        whole = range(len(self.source))
        parts = [whole[i : i + batch_size] for i in whole[::batch_size]]
        return self.batches_of(parts, batch_size, rows)

    def batches_of(
        self, parts: Sequence[Sequence[int]], batch_size: int, rows: Sequence[int]
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields one batch for each part of the records, in the form of `batches`.

        Args:
            parts: The numbers of the records of each batch, at least one and at most batch_size.
            batch_size, rows: The same as in `batches`.
        """
        self.check_counts()
        rows = _check_rows(rows, batch_size)
        batches = _EvalBatches(self.source, self.transform, parts, rows, self.unreadable)
        # Starting workers takes seconds, which a single batch is not worth.
        workers = 0 if len(batches) == 1 else min(self.num_workers, len(batches))
        return _iterate(batches, workers, self.num_threads, self.prefetch, self.expected_classes)


@dataclasses.dataclass(frozen=True)
class _TrainBatches:
    """Item j is this process's rows of update start_step + j."""

    elements: grain.MapDataset
    batch_size: int
    start_step: int
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return sys.maxsize // self.batch_size - self.start_step

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        first = (self.start_step + int(index)) * self.batch_size
        return _stack([self.elements[first + row] for row in self.rows])


@dataclasses.dataclass(frozen=True)
class _EvalBatches:
    """Item j is this process's rows of evaluation batch j, which has the records `parts[j]`."""

    source: Source
    transform: Callable[[dict[str, Any]], dict[str, Any]]
    parts: Sequence[Sequence[int]]
    rows: tuple[int, ...]
    policy: str

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        part = self.parts[int(index)]
        records = [int(part[min(row, len(part) - 1)]) for row in self.rows]
        found = {i: self._read(i) for i in dict.fromkeys(records)}
        left_out = {i for i, example in found.items() if example is None}
        if left_out:  # another record, with weight 0, gives their rows the right shapes
            found |= dict.fromkeys(left_out, self._stand_in(part, found))
        real = np.array([row < len(part) for row in self.rows])
        out = np.array([i in left_out for i in records])
        batch = _stack([found[i] for i in records])
        batch["record"] = np.array(records, np.int32)
        batch["bad"] = (real & out).astype(np.uint8)
        batch["weight"] = (real & ~out).astype(np.float32)
        return batch

    def _stand_in(self, part: Sequence[int], found: dict[int, Any]) -> dict[str, Any]:
        """A readable record, preferably of the same batch, as others may differ in size."""
        for record in part:
            if example := found.get(record) or self._read(record):
                return example
        return unreadable.stand_in(self.source, int(part[-1]), self.transform)

    def _read(self, index: int) -> dict[str, Any] | None:
        return unreadable.read_for_evaluation(self.source, index, self.transform, self.policy)


def _stack(examples: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Stacks examples to a batch; 64-bit numbers become 32-bit ones."""
    batch = {key: np.stack([example[key] for example in examples]) for key in examples[0]}
    return {
        key: value.astype(_NARROW.get(value.dtype, value.dtype), copy=False)
        for key, value in batch.items()
    }


def _iterate(
    batches, num_workers: int, num_threads: int, prefetch: int, classes: int
) -> Iterator[dict[str, np.ndarray]]:
    """Starts reading ahead and returns a generator that stops the readers when it is closed."""
    dataset = grain.MapDataset.source(batches)
    num_workers = min(num_workers, os.cpu_count() or 1)  # more would only compete
    if num_workers > 0:
        # Grain 0.2.18 reads absl flags to start workers, which fails if they are not parsed.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        workers.start_tracker()
        dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        options = grain.MultiprocessingOptions(
            num_workers=num_workers, per_worker_buffer_size=max(prefetch, 1)
        )
        dataset = dataset.mp_prefetch(options, worker_init_fn=workers.set_up)
    else:
        buffer_size = max(prefetch, num_threads) if num_threads > 0 else 0
        options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=buffer_size)
        dataset = dataset.to_iter_dataset(options)
    iterator = iter(dataset)
    if num_workers > 0 or num_threads > 0:
        iterator.start_prefetch()
    return _closing(iterator, classes)


def _closing(iterator, classes: int) -> Iterator[dict[str, np.ndarray]]:
    close = iterator.close
    try:
        while True:
            with workers.watched():
                batch = next(iterator, None)
            if batch is None:
                return
            # Workers send a subclass that pickles by reference to its shared memory;
            # a plain view keeps that memory alive.
            batch = {key: np.asarray(value) for key, value in batch.items()}
            if "label" in batch:
                labels.check(batch["label"], classes)
            yield batch
    except BaseException as error:
        if not isinstance(error, (Exception, GeneratorExit)):
            # Closing waits up to 25 s for each busy loader, and saving must not wait for that.
            close = threading.Thread(target=close, daemon=True).start
        raise
    finally:
        close()


def _check(source: Source) -> None:
    if len(source) == 0:
        raise UserError("the data set has no examples")


def _check_counts(source: Source, classes: int, examples: int = 0) -> None:
    """Raises UserError if a source's number of classes or examples is not that of the config;
    0 skips the check.
    """
    found, wanted, keys, names = [], [], [], source.class_names
    if classes and names and len(names) != classes:
        shown = ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")
        found.append(f"{len(names)} classes ({shown})")
        wanted.append(str(classes))
        keys.append(f"--config.num_classes={len(names)}")
    if examples and len(source) != examples:
        found.append(f"{len(source)} examples")
        wanted.append(str(examples))
        keys.append(f"--config.num_train={len(source)}")
    if keys:
        raise UserError(
            f"the data set has {' and '.join(found)}, the config {' and '.join(wanted)}: "
            f"give {' '.join(keys)}"
        )


def _check_rows(rows: Sequence[int], batch_size: int) -> tuple[int, ...]:
    rows = tuple(int(row) for row in rows)
    if not rows or min(rows) < 0 or max(rows) >= batch_size:
        raise ValueError(f"rows must be numbers from 0 to {batch_size - 1}, got {rows}")
    return rows
