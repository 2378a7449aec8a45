"""Progress of long work on standard error: a bar on a terminal, elsewhere a line every 10 s."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm

from swin_jax.core.output.text import say, shown

SECONDS = 10.0  # without a bar, a sign of life at least this often
_NARROW = 60  # columns below which a bar has no room for its numbers


def draws_bars() -> bool:
    """True if standard error is a terminal that has room for a bar and can draw it anew."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return False
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given) >= _NARROW
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return False
    return columns == 0 or columns >= _NARROW  # 0 is not known


class Progress:
    """The progress of some work; a context manager.

    Args:
        total: Number of things to do.
        unit: Name of what is counted, such as 'images'.
        name: Name of what is done; '' if that is plain.
        initial: Number of things that were done before.
        show: False shows nothing.
    """

    def __init__(
        self, total: int, unit: str, name: str = "", initial: int = 0, show: bool = True
    ) -> None:
        self._total, self._unit, self._name, self._show = total, unit, name, show
        self._initial = self._done = initial
        self._began = self._told = time.monotonic()
        self._note = ""
        self._bar = None
        if show and draws_bars():
            self._bar = tqdm(
                total=total,
                initial=initial,
                unit=f" {unit}",
                desc=name or None,
                dynamic_ncols=True,
                file=sys.stderr,
            )

    def update(self, count: int = 1, note: str = "") -> None:
        """Counts things that are done; a note on them stands behind their number."""
        self._done += count
        self._note = note
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif self._show and time.monotonic() - self._told >= SECONDS:
            self._told = time.monotonic()
            say(self._line())

    def _line(self) -> str:
        text = f"{self._name}: " if self._name else ""
        text += f"{self._done} of {self._total} {self._unit}"
        text += f", {self._note}" if self._note else ""
        if self._done == self._initial:
            return text
        seconds = (self._told - self._began) / (self._done - self._initial)
        remaining = max(self._total - self._done, 0) * seconds
        return f"{text}, ETA {tqdm.format_interval(remaining)}"

    def write(self, line: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(shown(line), file=sys.stderr)
        else:
            say(line)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._bar is not None:
            self._bar.close()


def steps(items: Sequence[Any], unit: str, name: str = "", show: bool = True) -> Iterator[Any]:
    """Yields the items and shows how many are done."""
    with Progress(len(items), unit, name, show=show) as progress:
        for item in items:
            yield item
            progress.update()
