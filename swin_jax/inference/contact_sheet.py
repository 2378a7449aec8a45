"""A sheet of pictures with lines of text above each."""

import math
import os
from collections.abc import Sequence

import numpy as np

from swin_jax.core import storage
from swin_jax.core.output import plots
from swin_jax.core.output.text import shown
from swin_jax.core.ranges import PositiveFloat, PositiveInt, checked

COLUMNS = 8
# Inches: a line of pictures, the texts and the margin in it, and the title above all.
_LINE, _TEXTS, _MARGIN, _TITLE = 2.5, 0.6, 0.05, 0.4


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
    size = width * columns, _LINE * lines + (_TITLE if title else 0)
    figure = Figure(figsize=size)
    for i, (picture, text) in enumerate(pictures):
        # Placed by hand: a layout that is solved takes minutes for 200 pictures.
        line, column = divmod(i, columns)
        left, bottom = column * width + _MARGIN, (lines - line - 1) * _LINE + _MARGIN
        place = left, bottom, width - 2 * _MARGIN, _LINE - _TEXTS - 2 * _MARGIN
        axes = figure.add_axes([inches / size[i % 2] for i, inches in enumerate(place)])
        if picture is not None:
            picture = picture[..., 0] if picture.ndim == 3 and picture.shape[-1] == 1 else picture
            axes.imshow(picture, cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=255)
        axes.set_axis_off()
        axes.set_anchor("NW")
        axes.set_title(_lines(text), fontsize=7, loc="left", parse_math=False)
    if title:
        top = 1 - _MARGIN / size[1]
        figure.suptitle(_lines(title), y=top, va="top", fontsize=10, parse_math=False)
    with plots.quiet_glyphs():
        storage.write_figure(path, figure, dpi=120)


def short(text: str, length: int = 22) -> str:
    """A text on one line, of at most so many characters."""
    text = shown(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def _lines(text: str) -> str:
    """A text whose lines can be drawn and written."""
    return "\n".join(shown(line) for line in text.split("\n"))
