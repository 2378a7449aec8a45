"""Limits on a file of weights: counted, never timed, so that the verdict is the same everywhere."""

import dataclasses

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import NonNegativeInt, PositiveInt, checked


@checked
@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds on what a reader does for one file. `read(path, limits=Limits(depth=500))` moves one.

    The defaults are far above what any published checkpoint needs.

    Attributes:
        inflation: Bytes of arrays for each byte of the file. Compression, arrays that share their
            numbers and strides of zero make more of them than the file holds.
        inflation_floor: Bytes of arrays that a file of any size may hold.
        header: Bytes of the header of a .safetensors file; 100 MB are the format's own bound.
        opcodes: Instructions of all pickles of the file.
        memo: Numbers under which a pickle may keep objects, from 0.
        depth: Levels of dicts, lists and modules inside each other.
        names: Arrays, members of an archive, dicts and modules that are walked through.
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
        """Raises UserError if `value` is above the limit called `field`; `what` says of what."""
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
    """The bytes of arrays that are left to one file.

    Args:
        limits: The bounds.
        size: Bytes of the file.
    """

    def __init__(self, limits: Limits, size: int):
        self._limits, self._size, self._used = limits, size, 0

    def take(self, count: int, what: str) -> None:
        """Counts bytes before they are made; raises UserError where there are too many."""
        self._used += count
        if self._used > self._limits.bytes_of(self._size):
            wanted = (
                f"{what} and what comes before it make {self._used:,} bytes out "
                f"of a file of {self._size:,}"
            )
            raise exceeded(wanted, "inflation", self._limits.inflation)
