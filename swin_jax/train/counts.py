"""Counts of a run beside its metrics: records that cannot be read, and texts that were cut.

A record counts once, however often it comes up.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from swin_jax.core.errors import UserError

# What `Counts.totals` gives; both have these names in the log and in checkpoints.
BAD, TRUNCATED = "bad_records", "truncated_texts"
_NUMBERS = "bad_record_numbers"  # in checkpoints

Mark = tuple[int, int]  # a state of the counts of a process


class Counts:
    """The reports of the batches of a run, in this process and in those that it resumes.

    Args:
        meta: Metadata of the checkpoint that the run starts from; {} if there is none.
        batch_size: Rows of the global batch.
        rows: Row numbers of this process.
        records: `records(update, rows)`, the numbers of the records in these rows of an update.
            None for data whose records have no numbers; there each row is a record of its own.
    """

    def __init__(
        self,
        meta: Mapping[str, Any],
        batch_size: int,
        rows: Sequence[int],
        records: Callable[[int, Sequence[int]], Sequence[int]] | None = None,
    ):
        self._batch_size, self._rows = batch_size, rows
        self._records = records or self._positions
        self._update = meta.get("examples_seen", 0) // batch_size  # whose batch comes next
        self._before = frozenset(meta.get(_NUMBERS, ()))
        # A checkpoint without numbers counted records as often as they came up.
        self._unnumbered = meta.get(BAD, 0) - len(self._before)
        self._truncated_before = meta.get(TRUNCATED, 0)
        # The new numbers of this process as keys, in the order in which they came up.
        self._bad = {}
        self._truncated = 0

    def add(self, batch: Mapping[str, np.ndarray]) -> None:
        """Counts this process's rows of the next update, by `bad` and `truncated` of the batch."""
        if "bad" in batch and np.any(batch["bad"]):
            rows = [self._rows[i] for i in np.flatnonzero(batch["bad"])]
            numbers = map(int, self._records(self._update, rows))
            self._bad |= dict.fromkeys(n for n in numbers if n not in self._before)
        if "truncated" in batch:
            self._truncated += int(batch["truncated"].sum())
        self._update += 1

    def mark(self) -> Mark:
        """The state of this process, for `totals` of what was counted up to now."""
        return len(self._bad), self._truncated

    def totals(self, mark: Mark | None = None) -> dict[str, int]:
        """{BAD: records, TRUNCATED: texts} of the whole run; call it on every process.

        Args:
            mark: State, from `mark`, up to which is counted; None for all.
        """
        bad, texts = self._gather(mark or self.mark())
        return {BAD: self._unnumbered + len(bad), TRUNCATED: self._truncated_before + texts}

    def saved(self, mark: Mark | None = None) -> dict[str, Any]:
        """The metadata of a checkpoint from which `Counts` continues; call it on every process.

        Args:
            mark: Counts up to there; None for all.
        """
        bad, texts = self._gather(mark or self.mark())
        counts = {BAD: self._unnumbered + len(bad), TRUNCATED: self._truncated_before + texts}
        return {**counts, _NUMBERS: sorted(bad)}

    def check(self, limit: int) -> None:
        """Raises UserError if this process alone knows of more bad records than `limit`."""
        check_bad(self._unnumbered + len(self._before) + len(self._bad), limit)

    def _gather(self, mark: Mark) -> tuple[set[int], int]:
        """Bad records of all processes, earlier ones included, and the number of cut texts."""
        num_bad, truncated = mark
        local = np.array([num_bad, truncated, len(self._rows)], np.int32)
        found = multihost_utils.process_allgather(local).reshape(-1, 3)
        most, numbers = int(found[:, 0].max()), list(self._bad)[:num_bad]
        if most and jax.process_count() > 1:
            padded = np.full(most, -1, np.int32)
            padded[: len(numbers)] = numbers
            numbers = multihost_utils.process_allgather(padded).ravel().tolist()
        # A mesh may give several processes the same rows.
        texts = int(found[:, 1].sum()) * self._batch_size // int(found[:, 2].sum())
        return {*self._before, *numbers} - {-1}, texts

    def _positions(self, update: int, rows: Sequence[int]) -> list[int]:
        return [(update * self._batch_size + row) % 2**31 for row in rows]


def check_bad(bad_records: int, limit: int) -> None:
    """Raises UserError for more bad records than `max_bad_records` of a config allows."""
    if bad_records > limit:
        raise UserError(
            f"{bad_records} records could not be read and were replaced, more than "
            f"max_bad_records={limit}; the warnings above name them"
        )
