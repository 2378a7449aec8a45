"""What a user did wrong, in one line, and records that cannot be read."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the user can mend; the message says what was wrong and what to do.

    It is the only exception that this package raises on purpose for wrong input. The launcher prints the message
    without a traceback. Whoever catches ValueError around code of this package lets a UserError pass first.
    """


class UnreadableError(Exception):
    """A record turned out to be unreadable while a transform read it; training replaces it by the next readable one."""


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """`; did you mean 'x'?`, or '' where no known word is as similar as `cutoff`, of 0 to 1."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else ""
