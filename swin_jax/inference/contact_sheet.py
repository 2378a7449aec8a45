"""A sheet of pictures with lines of text above each."""

import math
import os
import warnings
from collections.abc import Sequence

import numpy as np

from swin_jax.core import storage
from swin_jax.core.output.text import shown
from swin_jax.core.ranges import PositiveFloat, PositiveInt, checked

COLUMNS = 8


@checked
def draw(
    path: str | os.PathLike,
    pictures: Sequence[tuple[np.ndarray | None, str]],
    title: str = "",
    columns: PositiveInt = COLUMNS,
    width: PositiveFloat = 1.8,
) -> None:
    """Writes a sheet.

    Args:
        path: A picture file.
        pictures: Pairs of a picture, uint8 (H, W), (H, W, 1) or (H, W, 3), None for an empty place,
            and its text.
        title: Title above all.
        columns: Pictures beside each other.
        width: Width of a picture, in inches.
    """
    from matplotlib.figure import Figure

    columns = min(len(pictures), columns)
    lines = math.ceil(len(pictures) / columns)
    figure = Figure(
        figsize=(width * columns, 2.5 * lines + (0.4 if title else 0)), layout="constrained"
    )
    for i, (picture, text) in enumerate(pictures):
        axes = figure.add_subplot(lines, columns, i + 1)
        if picture is not None:
            picture = picture[..., 0] if picture.ndim == 3 and picture.shape[-1] == 1 else picture
            axes.imshow(picture, cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=255)
        axes.set_axis_off()
        axes.set_title(_lines(text), fontsize=7, loc="left", parse_math=False)
    if title:
        figure.suptitle(_lines(title), fontsize=10, parse_math=False)
    with warnings.catch_warnings():
        # Emoji become boxes; the picture tells.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        storage.write_figure(path, figure, dpi=120)


def short(text: str, length: int = 22) -> str:
    """A text on one line, of at most so many characters."""
    text = shown(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def _lines(text: str) -> str:
    """A text whose lines can be drawn and written."""
    return "\n".join(shown(line) for line in text.split("\n"))
