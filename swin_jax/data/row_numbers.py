"""Batches that contain only their row numbers, for tasks that hold the data themselves."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from swin_jax.core.ranges import PositiveInt, checked


@checked
@dataclasses.dataclass(frozen=True)
class RowNumbers:
    """The same batch at every update: `row` int32, 0 to batch_size - 1.

    Attributes:
        batch_size: Rows of the global batch.
    """

    batch_size: PositiveInt

    @property
    def num_examples(self) -> int:
        """Number of rows, which count as the examples."""
        return self.batch_size

    def batches(self, start_step: int, rows: Sequence[int]) -> Iterator[dict[str, np.ndarray]]:
        """Yields the numbers of this process's rows, endlessly."""
        while True:
            yield {"row": np.asarray(rows, np.int32)}
