"""Sizes of images, windows, patches and cells: one int for all axes, or one int per axis;
and flags that set them in a config.
"""

import ast
import numbers
import re
import typing
from collections.abc import Sequence
from typing import Annotated

from swin_jax.core import ranges
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import NotEmpty, PositiveInt, PositiveInts

Size = PositiveInt | PositiveInts
Windows = Size | Annotated[tuple[Size, ...], NotEmpty()]  # of all stages, or one for each

# Keys whose one whole number may be (height, width) instead.
_SIZES = ("image_size", "size", "patch_size", "window_size", "merge_size", "mask_cell", "cell")


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
    """The number of cells along each axis: a size divided by a cell's.

    Raises:
        UserError: A cell that does not divide the size; entries below 1.
    """
    pairs = list(zip(per_axis(size, axes), per_axis(cell, axes)))
    if any(part < 1 or whole < part or whole % part for whole, part in pairs):
        raise UserError(f"{size} is not a multiple of {cell}")
    return tuple(whole // part for whole, part in pairs)


def simplest(sizes: tuple[int, ...]) -> Size:
    """One int if all axes have the same size, or else the tuple:
    how sizes are written and shown.
    """
    return sizes[0] if len(set(sizes)) == 1 else tuple(sizes)


def set_sizes(config, arguments: Sequence[str]) -> list[str]:
    """Sets keys that are one whole number for all axes to (height, width),
    where flags ask for that.

    A config's int takes no tuple from a flag, though sizes may be either;
    keys that refer to it follow.

    Args:
        config: The config to change.
        arguments: Flags, `--config.image_size=(32,64)` among them;
            `window_size` may be a size for each stage.

    Returns:
        The other flags.

    Raises:
        UserError: Entries that are not whole numbers, or below 1.
    """
    joined = []
    for argument in arguments:
        if (
            joined
            and re.fullmatch(rf"--?config\.(.*\.)?({'|'.join(_SIZES)})", joined[-1])
            and argument[:1] != "-"
        ):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    found = {argument: _size_flag(config, argument) for argument in joined}
    oblong = {
        key for key, text in filter(None, found.values()) if not re.fullmatch(r"[-+]?\d+", text)
    }
    for argument in joined:
        if found[argument] and (key := found[argument][0]) in oblong:
            holder, name = _inner(config, key.rpartition(".")[0]), key.rpartition(".")[2]
            with holder.ignore_type():
                holder[name] = _read_size(
                    argument, Windows if name == "window_size" else Size, found[argument][1]
                )
    return [
        argument for argument in joined if not found[argument] or found[argument][0] not in oblong
    ]


def _size_flag(config, argument: str) -> tuple[str, str] | None:
    """(key, text) of a flag for a size that is one whole number in a config; None for others."""
    given = re.fullmatch(r"--?config\.((?:.*\.)?(\w+))=\s*(.*)", argument)
    if not given or given[2] not in _SIZES:
        return None
    holder = _inner(config, given[1].rpartition(".")[0])
    if holder and given[2] in holder and holder.get_type(given[2]) is int:
        return given[1], given[3]
    return None


def _inner(config, key: str | None) -> typing.Any:
    """The inner config of a dotted key, or None."""
    for part in key.split(".") if key else ():
        config = config[part] if part in config else None
        # A ConfigDict: models import this module, and need no ml_collections.
        if not hasattr(config, "ignore_type"):
            return None
    return config


def _read_size(argument: str, hint: typing.Any, text: str) -> Size:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = None
    if ranges.refusal(hint, value):
        raise UserError(
            f"{argument} is neither a whole number nor (height, width) as (32,64), both at least 1"
        )
    value = ranges.plain(hint, value)
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value
