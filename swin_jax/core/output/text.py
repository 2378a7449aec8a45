"""Text for a person to read, whatever the files and names are that it quotes."""

import re
import sys

LENGTH = 4000  # characters of a message
_CUT = " ... "
# Control characters, which a terminal obeys; ends of lines, but those before the indented lines of
# a list; marks that turn the direction of what follows; halves of characters, which bytes of names
# that are not UTF-8 become.
_UNSAFE = re.compile(
    "\n(?!  )|[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def shown(text: object, length: int = LENGTH) -> str:
    """A text that any terminal shows as it is, on one line but for indented ones.

    Control characters are escaped as in Python, and letters of all languages stay. What is longer
    loses its middle, so that a message keeps its advice.

    Args:
        text: A text, or what makes one.
        length: The most characters, more than 10.
    """
    escaped = _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], str(text))
    if len(escaped) <= length:
        return escaped
    end = (length - len(_CUT)) // 3
    return escaped[: length - len(_CUT) - end] + _CUT + escaped[-end:]


def quoted(value: object) -> str:
    """A part of a message, a name or a value: `shown` with 200 characters."""
    return shown(value, 200)


def say(line: object) -> None:
    """Prints a line to standard error, as `shown`; it may have a message and some words."""
    print(shown(line, 2 * LENGTH), file=sys.stderr, flush=True)
