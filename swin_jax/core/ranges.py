"""Ranges of numbers: what an argument may be, written in the signature and checked
when it is called.

    @checked
    def sgd(schedule: Callable, momentum: Rate = 0.9, clip_norm: NonNegativeFloat = 0.0): ...

A number that is out of its range trains on without a word (a negative clipping norm ascends
the gradient), so it is refused before anything is built. The names are those of pydantic
where it has one.
"""

import dataclasses
import fnmatch
import functools
import inspect
import math
import numbers
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from swin_jax.core.errors import UserError

T = TypeVar("T", bound=Callable)
_BITS = 63  # of a whole number; none of a config needs more, and a float cannot take any


@dataclasses.dataclass(frozen=True)
class Range:
    """Finite numbers between two bounds.

    Attributes:
        low, high: The bounds, which belong to the range.
        above, below: Bounds that don't.
        also: Single values outside of the bounds that have a meaning of their own.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    also: tuple[float, ...] = ()

    def __contains__(self, value: float) -> bool:
        if value in self.also:
            return True
        if isinstance(value, int) and value.bit_length() > _BITS:
            return False
        return (
            math.isfinite(value)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __repr__(self) -> str:  # what help() shows of a signature: only what is set
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        given = (f"{name}={value}" for name, value in fields.items() if value not in (None, ()))
        return f"Range({', '.join(given)})"

    def __str__(self) -> str:
        if self.low is not None and self.low == self.high:
            return ", or ".join(f"{value:g}" for value in (self.low, *self.also))
        bounds = [
            f"{words} {bound if isinstance(bound, int) else f'{bound:g}'}"
            for words, bound in (
                ("at least", self.low),
                ("above", self.above),
                ("at most", self.high),
                ("below", self.below),
            )
            if bound is not None
        ]
        also = "".join(f", or {value:g}" for value in self.also)
        return (" and ".join(bounds) or "finite") + also


@dataclasses.dataclass(frozen=True)
class Ascending:
    """A rule for a tuple: no number is smaller than the one before it."""


@dataclasses.dataclass(frozen=True)
class NotEmpty:
    """A rule for a tuple: it has an entry."""


PositiveInt = Annotated[int, Range(low=1)]
NonNegativeInt = Annotated[int, Range(low=0)]
PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(low=0)]
FiniteFloat = Annotated[float, Range()]
Fraction = Annotated[float, Range(low=0, high=1)]  # a share, a probability
# A level of confidence, a part to hold out.
OpenFraction = Annotated[float, Range(above=0, below=1)]
Rate = Annotated[float, Range(low=0, below=1)]  # of dropout, momentum, a moving average
Seed = Annotated[int, Range(low=0, below=2**32)]  # what NumPy's generators take
Byte = Annotated[int, Range(low=0, high=255)]  # a level of gray
PositiveInts = Annotated[tuple[PositiveInt, ...], NotEmpty()]
PositiveInterval = Annotated[tuple[PositiveFloat, PositiveFloat], Ascending()]
NonNegativeInterval = Annotated[tuple[NonNegativeFloat, NonNegativeFloat], Ascending()]
_Share = Annotated[float, Range(above=0, high=1)]
Shares = Annotated[tuple[_Share, _Share], Ascending()]  # of an area


class RangeError(UserError):
    """An argument out of its range.

    Attributes:
        argument: Name of the argument.
        reason: The value, and the values that are allowed.
    """

    def __init__(self, argument: str, reason: str):
        super().__init__(f"{argument}{reason}")
        self.argument, self.reason = argument, reason


def checked(fn: T) -> T:
    """Makes a function or a class check its numbers against the ranges in its signature.

    For a dataclass, a flax module among them, that are the annotations of its fields. Numbers
    of NumPy, lists and arrays become Python's own numbers and tuples, so that what is made can
    be compared and hashed.

    Returns:
        The same class, or a function of the same name and signature; a call raises RangeError.
    """
    call = fn.__init__ if inspect.isclass(fn) else fn
    signature = inspect.signature(call)

    @functools.wraps(call)
    def checked_call(*args, **kwargs):
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError:  # the call says it better
            return call(*args, **kwargs)
        check(fn, arguments)
        changed = plain_arguments(fn, arguments)
        args = (
            [changed.get(name, value) for name, value in zip(arguments, args)] if changed else args
        )
        return call(
            *args, **kwargs | {name: changed[name] for name in kwargs.keys() & changed.keys()}
        )

    if not inspect.isclass(fn):
        return checked_call
    fn.__init__ = checked_call
    return fn


def check(fn: Callable, arguments: dict[str, Any]) -> None:
    """Raises RangeError for the first of some arguments of a callable that is out of its range."""
    hints = ranges(fn)
    for name, value in arguments.items():
        if name in hints and (wanted := refusal(hints[name], value)):
            raise RangeError(name, f"={shown(value)}: it must be {wanted}")


def plain_arguments(fn: Callable, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a callable that have a range, as `plain` gives them."""
    hints = ranges(fn)
    return {name: plain(hints[name], value) for name, value in arguments.items() if name in hints}


def plain(hint: Any, value: Any) -> Any:
    """A value in Python's own numbers and tuples.

    Args:
        hint: An annotation, as for `refusal`.
        value: Any value; what the annotation does not allow is given back as it is.
    """
    if refusal(hint, value):
        return value
    if _range(hint) is not None:
        return value.item() if hasattr(value, "item") else value
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return plain(parts[0], value)
    if origin in (typing.Union, types.UnionType):
        return plain(next(part for part in parts if not refusal(part, value)), value)
    if (origin is tuple and parts) or origin is Sequence:
        values = value.tolist() if hasattr(value, "tolist") else value
        same = origin is Sequence or parts[-1] is Ellipsis
        return tuple(map(plain, parts[:1] * len(values) if same else parts, values))
    return value


def check_settings(settings: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Raises UserError for the first setting of a run that is out of its range.

    Args:
        settings: {dotted key: value}.
        hints: {dotted key: annotation}; `*` stands for any part of a key.
    """
    for name, value in settings.items():
        for pattern, hint in hints.items():
            if fnmatch.fnmatchcase(name, pattern) and (wanted := refusal(hint, value)):
                raise UserError(f"--config.{name}={shown(value)}: it must be {wanted}")


def check_each(name: str, values: Sequence, count: int, what: str) -> None:
    """Raises RangeError for an argument that has not a number for each of `count` things,
    'channels' for example.
    """
    if len(values) != count:
        raise RangeError(
            name, f"={shown(values)}: it must have a number for each of {count} {what}"
        )


def check_pattern(name: str, given: Any, pattern: Any) -> None:
    """Raises RangeError for anything but a regular expression that says something.

    The empty one matches every name: '--config.KEY=' on a command line makes one where '()' is
    meant.

    Args:
        name: Name of the argument.
        given: Its value, which holds the pattern.
        pattern: The pattern, a str.
    """
    if not isinstance(pattern, str):
        raise RangeError(name, f"={shown(given)}: {shown(pattern)} is not a regular expression")
    if not pattern:
        reason = "'' matches all names: leave it out, or write '.*' where all are meant"
        raise RangeError(name, f"={shown(given)}: {reason}")
    try:
        re.compile(pattern)
    except re.error as error:
        reason = f"={shown(given)}: {pattern!r} is not a regular expression: {error}"
        raise RangeError(name, reason) from error


def check_statistics(mean: Sequence, std: Sequence, channels: int) -> None:
    """Raises RangeError where mean or standard deviation have not a number for each channel,
    or are of pixels in 0..255.
    """
    check_each("mean", mean, channels, "channels")
    check_each("std", std, channels, "channels")
    check_scale(mean, std)


def check_scale(mean: Sequence, std: Sequence) -> None:
    """Raises RangeError for a mean or a standard deviation of pixels in 0..255, as mmcv and Keras
    write them: normalized with it, pixels in 0..1 are all but constant.
    """
    # A deviation of pixels in 0..1 is at most 0.5; 1 leaves them as they are.
    for name, values, most in (("mean", mean, 1), ("std", std, 2)):
        if any(value > most for value in values):
            raise RangeError(
                name,
                f"={shown(values)}: it must be of pixels in 0..1, not 0..255: divide it by 255",
            )


@functools.cache
def ranges(fn: Callable) -> dict[str, Any]:
    """{argument: annotation} of the arguments of a callable that have a range."""
    try:
        hints = typing.get_type_hints(
            fn if not inspect.isclass(fn) else _fields(fn), include_extras=True
        )
    except NameError:  # a library's annotations may name types that exist only for type checkers
        return {}
    return {name: hint for name, hint in hints.items() if name != "return" and _has_range(hint)}


def _fields(cls: type) -> Callable:
    """The callable that carries the annotations of a class's arguments."""
    return cls if dataclasses.is_dataclass(cls) else inspect.unwrap(cls.__init__)


def _has_range(hint: Any) -> bool:
    return _range(hint) is not None or any(map(_has_range, typing.get_args(hint)))


def _range(hint: Any) -> Range | None:
    return next(
        (part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Range)), None
    )


def shown(value: Any) -> str:
    """A value as a message shows it: a line of at most 100 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else text[:97] + "..."


def refusal(hint: Any, value: Any) -> str:
    """The values that would be allowed in place of a wrong one.

    Args:
        hint: An annotation: a number with a range, a plain type, a tuple or a union of these.
        value: Any value.

    Returns:
        For example 'a whole number, at least 1'; '' if the value is right,
        or the annotation says nothing of it.
    """
    if (found := _range(hint)) is not None:
        return _refused_number(typing.get_args(hint)[0], found, value)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _refused_entries(parts[0], parts[1:], value)
    if origin in (typing.Union, types.UnionType):
        refusals = [refusal(part, value) for part in parts]
        return "" if "" in refusals else _either(refusals)
    if origin is tuple and parts:
        return _refused_tuple(parts, value)
    if origin is Sequence:
        return _refused_tuple((*parts, ...), value)
    if hint is type(None):
        return "" if value is None else "None"
    if isinstance(hint, type) and origin is None:
        return "" if isinstance(value, hint) else f"a {hint.__name__}"
    return ""


def _either(refusals: Sequence[str]) -> str:
    """Alternatives in words, without those that another one begins with."""
    longest = [
        one
        for one in refusals
        if not any(other != one and other.startswith(one) for other in refusals)
    ]
    return ", or ".join(dict.fromkeys(longest))


def _refused_number(kind: type, found: Range, value: Any) -> str:
    abstract = numbers.Integral if kind is int else numbers.Real
    if isinstance(value, abstract) and not isinstance(value, bool) and value in found:
        return ""
    return f"{'a whole number' if kind is int else 'a number'}, {found}"


def _refused_tuple(parts: tuple, value: Any) -> str:
    """The refusal of a value for 'tuple[part, ...]' or 'tuple[part,
    part]'; a list, as JSON has it, or an array is as good.
    """
    several = parts[-1] is Ellipsis
    kinds = list(dict.fromkeys(refusal(part, _Nothing) for part in parts if part is not Ellipsis))
    if len(kinds) > 1:
        wanted = f"a tuple of {' and '.join(kinds)}"
    else:
        plural = kinds[0].replace("a whole number", "whole numbers").replace("a number", "numbers")
        wanted = (
            f"a tuple of {'' if several else f'{len(parts)} '}{plural.replace('a tuple', 'tuples')}"
        )
    if getattr(value, "ndim", 0) == 1:
        value = value.tolist()
    if not isinstance(value, (tuple, list, range)) or not (several or len(value) == len(parts)):
        return wanted
    hints = parts[:1] * len(value) if several else parts
    return wanted if any(map(refusal, hints, value)) else ""


def _refused_entries(hint: Any, rules: Sequence, value: Any) -> str:
    """The refusal of a tuple with rules for its entries together."""
    ascending = Ascending() in rules
    refused = refusal(hint, value) or (ascending and list(value) != sorted(value))
    refused = refused or (NotEmpty() in rules and not len(value))
    return refusal(hint, _Nothing) + ", the smaller one first" * ascending if refused else ""


class _Nothing:
    """A value that no annotation allows."""
