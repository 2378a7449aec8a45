"""Rows of an array, so many at a time, and the progress of work that takes long."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from swin_jax.core.output.progress import steps


def filled(rows: np.ndarray, start: int, size: int) -> tuple[np.ndarray, int]:
    """The batch (size, ...) that begins at a row, and how many of its rows are real.

    The last of several batches repeats its last row, so that nothing is compiled for another size.
    """
    batch = rows[start : start + size]
    missing = size - len(batch) if start else 0
    return np.concatenate([batch, *[batch[-1:]] * missing]), len(batch)


def progress(items: Sequence, name: str, show: bool = True) -> Iterable[Any]:
    """The items; process 0 shows how many are done."""
    return steps(items, "steps", name, show and jax.process_index() == 0)
