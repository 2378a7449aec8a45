"""Limits on files of weights; they count and never time, so results are the same on any machine."""

import dataclasses

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import NonNegativeInt, PositiveInt, checked


@checked
@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds on the work that a reader does for one file.

    To change one: `read(path, limits=Limits(depth=500))`. The defaults are far above what any
    published checkpoint needs.

    Attributes:
        inflation: Bytes of arrays for each byte of the file. Arrays take more bytes than the file
            if it is compressed, if they share their numbers, or if strides are zero.
        inflation_floor: Bytes of arrays that a file of any size may hold.
        header: Bytes of the header of a .safetensors file; 100 MB are the format's own bound.
        opcodes: Instructions of all pickles of the file.
        memo: Greatest index under which a pickle may keep an object.
        depth: Levels of nested dicts, lists and modules.
        names: Number of arrays, members of an archive, dicts and modules.
        name_length: Characters of a name.
        number: Greatest number in a name, such as that of a block, and longest axis of an array
            without numbers.
        axes: Axes of an array.
    """

    inflation: PositiveInt = 16
    inflation_floor: NonNegativeInt = 2**26
    header: PositiveInt = 100_000_000
    opcodes: PositiveInt = 1_000_000
    memo: PositiveInt = 1_000_000
    depth: PositiveInt = 100
    names: PositiveInt = 100_000
    name_length: PositiveInt = 1000
    number: PositiveInt = 100_000
    axes: PositiveInt = 32

    def check(self, field: str, value: int, what: str) -> None:
        """Raises UserError, which begins with `what`, if `value` is above the limit `field`."""
        if value > (limit := getattr(self, field)):
            raise exceeded(what, field, limit)

    def bytes_of(self, size: int) -> int:
        """The bytes of arrays that a file of `size` bytes may hold."""
        return self.inflation_floor + self.inflation * size


DEFAULT = Limits()


def exceeded(what: str, field: str, limit: int) -> UserError:
    """The error for a file that asks for more than a limit."""
    return UserError(f"refused: {what}, above the limit {field}={limit:,} of files.limits.Limits")


class Budget:
    """The bytes of arrays that one file may still use.

    Args:
        limits: The bounds.
        size: Bytes of the file.
    """

    def __init__(self, limits: Limits, size: int):
        self._limits, self._size, self._used = limits, size, 0

    def take(self, count: int, what: str) -> None:
        """Counts bytes before they are allocated; raises UserError if there are too many."""
        self._used += count
        if self._used > self._limits.bytes_of(self._size):
            wanted = (
                f"{what} and what comes before it make {self._used:,} bytes out "
                f"of a file of {self._size:,}"
            )
            raise exceeded(wanted, "inflation", self._limits.inflation)
