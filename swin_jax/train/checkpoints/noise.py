"""Silences what libraries print when a save fails,
beside the error that they raise: hundreds of lines that say nothing more.
"""

import functools
import logging
import sys


@functools.cache
def hush() -> None:
    """Keeps it from stderr, for the rest of this process; all else is printed as before."""
    logging.getLogger("absl").addFilter(_is_news)
    for hook in ("excepthook", "unraisablehook"):
        setattr(sys, hook, _without_echoes(getattr(sys, hook)))


def _is_news(record: logging.LogRecord) -> bool:
    """False for an error of Orbax, which it raises as well, where its result is waited for."""
    return not ("orbax" in record.pathname and record.levelno >= logging.ERROR)


def _without_echoes(show):
    """A hook of `sys` that leaves out the callbacks of a save whose event loop has ended
    with its first error.
    """

    @functools.wraps(show)
    def hook(*arguments):
        error = arguments[1] if len(arguments) > 1 else arguments[0].exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            show(*arguments)

    return hook
