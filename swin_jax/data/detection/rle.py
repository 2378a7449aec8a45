"""Masks as COCO writes them: run-length encoded, as text.

Runs go down the columns and begin with the zeros. In the text each run, from the fourth on, is the
difference to the run two before it, in groups of five bits of which a sixth says that more follow;
48 is added to make a character. Checked against outputs of pycocotools 2.0.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError

_FIRST = 48  # the character of 0


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Encodes a mask.

    Args:
        mask: bool (H, W), of at least one pixel.

    Returns:
        {"size": [H, W], "counts": text}, the `segmentation` of an annotation.
    """
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    ends = [*changes.tolist(), flat.size]
    if flat[0]:
        ends.insert(0, 0)  # the first run is of zeros, even if there are none
    runs = np.diff([0, *ends]).tolist()
    return {"size": list(mask.shape), "counts": _text(runs)}


def decode(segmentation: Mapping[str, Any]) -> np.ndarray:
    """Decodes a mask.

    Args:
        segmentation: {"size": [H, W], "counts": text, or the runs as a list}.

    Returns:
        bool (H, W). Raises UserError where the runs are not those of a mask of this size.
    """
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    runs = _runs(counts) if isinstance(counts, (str, bytes)) else list(counts)
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise UserError(f"the runs of a mask do not cover its {height} x {width} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")


def _text(runs: list[int]) -> str:
    characters = []
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)  # bit 4 of the last group is the sign
            characters.append(chr(_FIRST + bits + 32 * more))
    return "".join(characters)


def _runs(text: str | bytes) -> list[int]:
    codes = text if isinstance(text, bytes) else text.encode()
    runs, value, shift = [], 0, 0
    for code in codes:
        bits = code - _FIRST
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
