"""Pictures of edits side by side, and a video along the strength of one."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from swin_jax.core import storage
from swin_jax.data.video.encode import encode_video
from swin_jax.inference import contact_sheet

_SHOWN = 128  # pixels that smaller frames are enlarged to, in whole steps


def draw_pairs(
    path: str | os.PathLike,
    names: Sequence[str],
    pairs: Sequence[Sequence[np.ndarray]],
    headings: Sequence[str],
    title: str,
) -> None:
    """Writes a sheet with a line for each edit.

    Args:
        path: A picture file.
        names: Names of what was edited.
        pairs: For each name the pictures uint8 (H, W, 3) beside each other: the original, before,
            after.
        headings: Headings of the columns.
        title: Title above all.
    """
    cells = []
    for name, pictures in zip(names, pairs, strict=True):
        cells += [
            (picture, f"{contact_sheet.short(name)}  {heading}")
            for picture, heading in zip(pictures, headings)
        ]
    contact_sheet.draw(path, cells, title, columns=len(headings) * max(1, 6 // len(headings)))


def draw_grid(
    path: str | os.PathLike, cells: Sequence[tuple[np.ndarray, str]], columns: int, title: str
) -> None:
    """Writes a sheet of pictures and their texts, row by row."""
    contact_sheet.draw(path, cells, title, columns=columns)


def write_video(folder: Any, name: str, frames: Sequence[np.ndarray]) -> str:
    """Writes frames uint8 (H, W, 3) as NAME.mp4, NAME.gif without PyAV;
    returns the name of the file.
    """
    times = max(-(-_SHOWN // frames[0].shape[0]), 1)
    frames = [
        np.ascontiguousarray(frame.repeat(times, axis=0).repeat(times, axis=1)) for frame in frames
    ]
    suffix, data = encode_video(frames)
    storage.write(folder / f"{name}{suffix}", data)
    return f"{name}{suffix}"
