"""Text for a person to read, whatever the files and names are that it quotes."""

import re
import sys
from collections.abc import Iterable

LENGTH = 4000  # characters of a message
_ITEM, _ITEMS = 200, 40  # characters of a line of a list, and its lines
_CUT = " ... "
# Control characters, which a terminal obeys, ends of lines among them; marks that turn the
# direction of what follows; halves of characters, which bytes of names that are not UTF-8 become.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: object, length: int = LENGTH) -> str:
    """A text that any terminal shows as it is, on one line.

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


def listed(head: object, items: Iterable[object], length: int = LENGTH) -> str:
    """A line as `shown`, and below it, indented, a line for each item of a list.

    Of a long list the middle is left out, and counted.
    """
    items = list(items)
    if more := max(len(items) - _ITEMS, 0):
        end = _ITEMS // 3
        items[_ITEMS - end : -end] = [f"... and {more} more"]
    return "\n  ".join([shown(head, length), *(shown(item, _ITEM) for item in items)])


def quoted(value: object) -> str:
    """A part of a message, a name or a value: `shown` with 200 characters."""
    return shown(value, 200)


def counted(number: int, noun: str) -> str:
    """A number and what it counts, '1 image' or '1,000 images'.

    Args:
        number: The number.
        noun: The noun in the singular, whose plural ends in s.
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def say(line: object, items: Iterable[object] = ()) -> None:
    """Prints a line to standard error, which may have a message and some words, and below it
    the items of a list; as `listed`.
    """
    print(listed(line, items, 2 * LENGTH), file=sys.stderr, flush=True)
