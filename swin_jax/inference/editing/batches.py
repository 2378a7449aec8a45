"""Rows of an array, so many at a time, and a bar on standard error over work that takes long."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np


def filled(rows: np.ndarray, start: int, size: int) -> tuple[np.ndarray, int]:
    """The batch (size, ...) that begins at a row, and how many of its rows are real.

    The last of several batches repeats its last row, so that nothing is compiled for another size.
    """
    batch = rows[start : start + size]
    missing = size - len(batch) if start else 0
    return np.concatenate([batch, *[batch[-1:]] * missing]), len(batch)


def progress(items: Sequence, name: str, show: bool = True) -> Iterable[Any]:
    """The items, with a bar of their number that process 0 shows."""
    import tqdm

    hidden = not show or jax.process_index() != 0
    return tqdm.tqdm(items, desc=name, file=sys.stderr, disable=hidden, dynamic_ncols=True)
