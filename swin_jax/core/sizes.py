"""Sizes of images, windows, patches and cells: one int for all axes, or one int per axis."""

import numbers
from typing import Annotated

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import NotEmpty, PositiveInt, PositiveInts

Size = PositiveInt | PositiveInts
Windows = Size | Annotated[tuple[Size, ...], NotEmpty()]  # of all stages, or one for each


def per_axis(value: Size, axes: int) -> tuple[int, ...]:
    """One int per axis: an int or a 1-tuple is repeated.

    Raises:
        UserError: Another number of entries than axes.
    """
    value = (value,) if isinstance(value, numbers.Integral) else tuple(value)
    if len(value) not in (1, axes):
        raise UserError(f"{value} has {len(value)} entries for {axes} axes")
    return value * axes if len(value) == 1 else value


def cells(size: Size, cell: Size, axes: int = 2) -> tuple[int, ...]:
    """How many cells lie along each axis: a size divided by a cell's.

    Raises:
        UserError: A cell that does not divide the size; entries below 1.
    """
    pairs = list(zip(per_axis(size, axes), per_axis(cell, axes)))
    if any(part < 1 or whole < part or whole % part for whole, part in pairs):
        raise UserError(f"{size} is no multiple of {cell}")
    return tuple(whole // part for whole, part in pairs)


def simplest(sizes: tuple[int, ...]) -> Size:
    """One int if all axes have the same size, or else the tuple:
    how sizes are written and shown.
    """
    return sizes[0] if len(set(sizes)) == 1 else tuple(sizes)
