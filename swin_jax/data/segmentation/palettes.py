"""A color for each class: read from a file, or made so that all differ."""

import functools
import os
import re
from collections.abc import Sequence

import numpy as np

from swin_jax.core import text_files
from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UserError
from swin_jax.core.output.text import counted

Color = tuple[int, int, int]

BESIDE = "palette.txt"
_LEVELS = np.linspace(0, 255, 8).astype(int)
_HEX = re.compile(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})\b")
_DECIMAL = re.compile(r"\(?(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})\b")


def of_folder(root: str, file: str, count: int) -> tuple[Color, ...]:
    """The colors of a file, or those of palette.txt in a folder of labeled images.

    Args:
        root: The folder; '' for none.
        file: Path of a file of colors; '' for root/palette.txt, if there is one.
        count: Number of classes.

    Returns:
        RGB, 0 to 255; () if there is no file. Raises UserError as `read`.
    """
    beside = os.path.join(os.path.expanduser(root), BESIDE) if root else ""
    file = file or (beside if os.path.isfile(beside) else "")
    return read(file, count) if file else ()


def read(file: str, count: int = 0) -> tuple[Color, ...]:
    """Reads colors, one a line: '120 120 120' or '#787878', with anything behind it.

    Args:
        file: Path of the text file; empty lines are passed over.
        count: Number of classes; 0 does not check.

    Returns:
        RGB, 0 to 255. Raises UserError for a line that is no color, and for another number.
    """
    lines = text_files.read(file).splitlines()
    colors = parse(file, [(number, line) for number, line in enumerate(lines, 1) if line.strip()])
    if count and len(colors) != count:
        raise UserError(
            f"{file} has {counted(len(colors), 'color')}, and there are {count} classes"
        )
    return colors


def parse(file: str, texts: Sequence[tuple[int, str]]) -> tuple[Color, ...]:
    """The colors that texts begin with.

    Args:
        file: The file that they are from, for messages.
        texts: (number of the line, the text).

    Returns:
        RGB, 0 to 255. Raises UserError for a text that is no color.
    """
    colors = []
    for number, text in texts:
        match = _HEX.match(text.strip()) or _DECIMAL.match(text.strip())
        base = 16 if match and match.re is _HEX else 10
        color = tuple(int(part, base) for part in match.groups()) if match else ()
        if not color or max(color) > 255:
            raise UserError(
                f"{file}:{number}: write a color as '120 120 120' or '#787878', "
                f"not {text.strip()[:40]!r}"
            )
        colors.append(color)
    return tuple(colors)


@functools.cache
def distinct(count: int) -> tuple[Color, ...]:
    """The first `count` of a row of colors, each as far from those before it as can be; black and
    white are not among them.

    Raises UserError for more classes than a label of one byte tells apart.
    """
    if count > IGNORED:
        raise UserError(f"labels of one byte distinguish at most {IGNORED} classes, not {count}")
    levels = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), -1).reshape(-1, 3)
    near = np.minimum(_distance(levels, levels[0]), _distance(levels, levels[-1]))
    chosen = []
    for _ in range(count):
        chosen.append(levels[int(near.argmax())])
        near = np.minimum(near, _distance(levels, chosen[-1]))
    return tuple(tuple(map(int, color)) for color in chosen)


def _distance(colors: np.ndarray, color: np.ndarray) -> np.ndarray:
    """The squared distance of colors from another, with roughly the weights of the eye."""
    red = (colors[:, 0] + color[0]) / 2
    square = (colors - color) ** 2.0
    weights = np.stack([2 + red / 256, np.full(len(colors), 4.0), 3 - red / 256], axis=1)
    return (weights * square).sum(axis=1)
