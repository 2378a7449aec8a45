"""Encodes and decodes masks in COCO's run-length encoding, as text.

Runs go down the columns and begin with zeros. From the fourth on, the text gives each run as the
difference from the run two before it. Numbers are written in groups of five bits, with a sixth bit
if more groups follow; adding 48 makes a character. Checked against outputs of pycocotools 2.0.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError

_FIRST = 48  # the character of 0
_MOST_PIXELS = 2**28
_MOST_BITS = 60  # of a run, as damaged text could encode one number of millions of bits


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
        bool (H, W). Raises UserError if the runs do not fit the size, if the mask has more than
        268 million pixels, or if the form is another one, such as a polygon.
    """
    size, counts = _fields(segmentation)
    height, width = size
    if height * width > _MOST_PIXELS:
        raise UserError(f"a mask of {height} x {width} pixels is more than {_MOST_PIXELS}")
    runs = _runs(counts) if isinstance(counts, (str, bytes)) else counts
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise UserError(f"the runs of a mask do not cover its {height} x {width} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")


def _fields(segmentation: Any) -> tuple[list[int], str | bytes | list[int]]:
    """Returns size and counts; raises UserError if their form is not that of `decode`."""
    if isinstance(segmentation, Mapping):
        size, counts = (_plain(segmentation.get(name)) for name in ("size", "counts"))
        if _are_whole(size) and len(size) == 2 and min(size) >= 0:
            if isinstance(counts, (str, bytes)) or _are_whole(counts):
                return size, counts
    raise UserError(
        "a mask is {'size': [H, W], 'counts': text or whole numbers}; polygons are not read"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _are_whole(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(x, (int, np.integer)) and not isinstance(x, bool) for x in value
    )


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
        if shift > _MOST_BITS:
            raise UserError("the text of a mask has a number that is too long: it is damaged")
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
