"""Errors that the user can mend, records that cannot be read, packages that are not installed,
suggestions, and warnings.
"""

import contextlib
import difflib
import os
import pathlib
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Iterator

from swin_jax.core.output.text import listed, say, shown

_PACKAGE = str(pathlib.Path(__file__).parents[1]) + os.sep
_PYTHON = os.path.dirname(os.__file__) + os.sep


class UserError(ValueError):
    """A mistake that the user can mend; the message says what was wrong and what to do.

    It is the only exception that this package raises on purpose for wrong input. The launcher
    prints the message without a traceback. Whoever catches ValueError around code of this package
    lets a UserError pass first.

    Args:
        message: The message, one line; names in it may be of any text and length.
        items: A list that belongs to it, of names of arrays for example, with a line for each item.

    Attributes:
        message: The line, as it is shown.
        items: The list.
    """

    def __init__(self, message: object = "", items: Iterable[object] = ()) -> None:
        self.message, self.items = shown(message), tuple(items)
        super().__init__(listed(self.message, self.items))

    def __reduce__(self):  # on its way out of a loader process
        return UserError, (self.message, self.items)

    def about(self, place: object) -> "UserError":
        """The same error, which names a file or another place once."""
        place = shown(place)
        text = self.message if place in self.message else f"{place}: {self.message}"
        return UserError(text, self.items)


class UnreadableError(Exception):
    """A record turned out to be unreadable while a transform read it;
    training replaces it by the next readable one.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(shown(message))


@contextlib.contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Raises UserError where an import fails inside of the `with` statement.

    Args:
        name: The extra of setup.py that installs the package.
        purpose: The need for it, which begins the message.
    """
    try:
        yield
    except ImportError as error:
        raise UserError(f"{purpose}: {install(name)} ({error})") from error


def install(name: str) -> str:
    """The command that installs an extra of setup.py."""
    return f"pip install -e '.[{name}]'"


def is_ours(error: BaseException) -> bool:
    """True if code of this package, or a library that it called, raised an error.

    False if that was a file of the user: the deepest frame outside of libraries is theirs, and its
    traceback is what they need.
    """
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [file for file in files if file.startswith(_PACKAGE) or not _is_library(file)]
    return bool(own) and own[-1].startswith(_PACKAGE)


def _is_library(file: str) -> bool:
    """True for a file of Python or of an installed package, and for code without a file."""
    return file.startswith(("<", _PYTHON)) or not {"site-packages", "dist-packages"}.isdisjoint(
        pathlib.Path(file).parts
    )


def nearest(word: str, known: Iterable[str], cutoff: float = 0.0) -> str | None:
    """The most similar of some known words; None if none is as similar as `cutoff`, of 0 to 1."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)


def with_article(name: str) -> str:
    """A name for a sentence, by its first letter: 'a Swin', 'an ArcFace'."""
    return f"an {name}" if name[:1].lower() in tuple("aeiou") else f"a {name}"


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """`; did you mean 'x'?`, or '' where no known word is as similar as `cutoff`, of 0 to 1."""
    near = nearest(word, known, cutoff)
    return f"; did you mean {near!r}?" if near else ""


def frame_outside() -> types.FrameType:
    """The innermost calling frame outside of this package; the outermost of all if none is."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return frame


def warn(message: str) -> None:
    """Warns the user (UserWarning) at the line outside of this package that led here.

    So Python's default filter shows the warning once for each such line.
    """
    frame = frame_outside()
    names = frame.f_globals
    warnings.warn_explicit(
        shown(message),
        UserWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=names.get("__name__") or "<unknown>",  # of None, Python drops the warning
        registry=names.setdefault("__warningregistry__", {}),
    )


def plain_warnings() -> contextlib.AbstractContextManager[None]:
    """Makes a block, of a command, in which warnings without a line of the user have no place.

    Those at a line of the file that called the command, Python's own or the installed script, are
    shown as `warning: TEXT`, once each; all others as Python does.
    """
    return _plain_warnings(frame_outside().f_code.co_filename)


@contextlib.contextmanager
def _plain_warnings(entry: str) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.showwarning = _show_warnings(entry, warnings.showwarning)
        yield


def _show_warnings(entry: str, show: Callable[..., None]) -> Callable[..., None]:
    """A `warnings.showwarning` for a command that the file `entry` called; `show` is Python's."""
    told = set()

    def show_warning(message, category, filename, *where):
        if category is not UserWarning or filename != entry:
            show(message, category, filename, *where)
        elif str(message) not in told:
            told.add(str(message))
            say(f"warning: {message}")

    return show_warning
