"""What a user did wrong, in one line, and records that cannot be read."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error whose message says what was wrong and what to do; the launcher prints it without a traceback.

    `exit_status` is what the launcher exits with: 1 for an error, 2 for a bad flag or config.
    """

    def __init__(self, message: str, exit_status: int = 1):
        super().__init__(message)
        self.exit_status = exit_status


class UnreadableError(Exception):
    """A record turned out to be unreadable while a transform read it; training replaces it by the next readable one."""


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """`; did you mean 'x'?`, or '' where no known word is as similar as `cutoff`, of 0 to 1."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else ""
