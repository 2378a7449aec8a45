"""Reads pickles without running foreign code, and limits the number of instructions.

The instructions are those of Python's `pickletools`, protocols 0 to 5. The caller decides which
names a pickle may use, see unpickle.py. Sets are returned empty, and entries of dicts whose keys
are neither texts nor numbers are dropped: hashing forged keys can take forever, and none of them
are weights.
"""

import codecs
import os
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

from swin_jax.core.errors import UserError
from swin_jax.pretrained.files.limits import Budget, Limits, exceeded

# Greater numbers can be made to share one hash, and equal texts are compared letter by letter.
_BITS_OF_KEY = 60
_LONGEST_KEY = 10_000
_BYTES_PER_ITEM = 64


class Sealed:
    """A function that a pickle may call, wrapped so that the pickle cannot change it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *arguments):
        return self._function(*arguments)


class Counter:
    """The part of the limits that all pickles of one file have used up.

    Args:
        limits: The bounds.
        budget: Bytes that the file may make, shared with the readers of its arrays.
    """

    def __init__(self, limits: Limits, budget: Budget):
        self.limits, self.budget, self.opcodes = limits, budget, 0


def put(entries: dict, key: Any, value: Any) -> None:
    """Stores an entry under a text or a plain number; ignores any other key."""
    if isinstance(key, int) and key.bit_length() > _BITS_OF_KEY:
        return
    if isinstance(key, (str, bytes)) and len(key) > _LONGEST_KEY:
        raise ValueError(f"a key of {len(key)} characters")
    if key is None or isinstance(key, (str, bytes, int, float)):
        entries[key] = value


class Pickle:
    """Reads one pickle, once.

    Args:
        file: An open file at the start of the pickle; after `load` it is at the end.
        find: (module, name) -> a `Sealed` function, a class to make or a name;
            raises UserError for any other.
        persistent: A persistent id -> the object outside the pickle that it stands for.
        states: Classes whose objects take a state by `__setstate__`.
        counter: The limits, and how much of them is used up.
    """

    def __init__(
        self,
        file: BinaryIO,
        find: Callable[[str, str], Any],
        persistent: Callable[[Any], Any],
        states: tuple[type, ...],
        counter: Counter,
    ):
        self._file, self._find, self._persistent, self._states = file, find, persistent, states
        self._counter, self._limits = counter, counter.limits
        self._stack, self._marks, self._memo = [], [], {}
        position = file.tell()
        self._end = file.seek(0, os.SEEK_END)
        file.seek(position)

    def load(self) -> Any:
        """The object in the pickle.

        Raises:
            UserError: A name is refused, or a limit is exceeded.
            ValueError, IndexError, KeyError, TypeError: The bytes are not a pickle, or damaged.
        """
        while True:
            code = self._file.read(1)
            if code == b".":
                return self._stack.pop()
            self._counter.opcodes += 1
            if self._counter.opcodes > self._limits.opcodes:
                raise exceeded("a pickle of more instructions", "opcodes", self._limits.opcodes)
            if not code:
                raise ValueError("the pickle ends too early")
            if code not in _OPCODES:
                raise ValueError(f"{code!r} is not an instruction of a pickle")
            _OPCODES[code](self)

    def _bytes(self, length: int) -> bytes:
        if length < 0 or length > self._end - self._file.tell():
            raise ValueError("the end is missing")
        return self._file.read(length)

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _raw_line(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise ValueError("the end is missing")
        return line[:-1]

    def _line(self) -> str:
        return self._raw_line().decode("utf-8")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise ValueError("a pickle that takes from an empty stack")
        return self._stack.pop()

    def _pop_mark(self) -> list:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _keep(self, index: int) -> None:
        if index < 0:
            raise ValueError("a pickle that keeps an object under a negative number")
        if index > self._limits.memo:
            raise exceeded(
                f"a pickle that keeps an object under the number {index}", "memo", self._limits.memo
            )
        self._memo[index] = self._stack[-1]

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _pop_any(self) -> None:
        if self._marks and len(self._stack) == self._marks[-1]:
            self._marks.pop()
        else:
            self._stack.pop()

    def _int_line(self) -> None:
        text = self._line()
        self._push(text == "01" if text in ("00", "01") else int(text))

    def _long(self, length: int) -> None:
        self._push(int.from_bytes(self._bytes(length), "little", signed=True))

    def _string_line(self) -> None:
        text = self._raw_line()
        if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in b"\"'":
            raise ValueError("a text without quotes")
        self._push(codecs.escape_decode(text[1:-1])[0].decode("latin1"))

    def _text(self, form: str) -> None:
        self._push(str(self._bytes(self._number(form)), "utf-8", "surrogatepass"))

    def _dict(self, items: list) -> None:
        found = {}
        self._fill(found, items)
        self._push(found)

    def _fill(self, entries: Any, items: list) -> None:
        if not isinstance(entries, dict):
            raise ValueError(f"a pickle that sets entries of a {type(entries).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            put(entries, key, value)

    def _append(self, items: list) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)
        elif not isinstance(self._stack[-1], dict):
            raise ValueError(f"a pickle that appends to a {type(self._stack[-1]).__name__}")

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._fill(self._stack[-1], [key, value])

    def _set_items(self) -> None:
        items = self._pop_mark()
        self._fill(self._stack[-1], items)

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._global(module, name)

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a pickle that names a function by something other than text")
        self._push(self._find(module, name))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        self._call(function, arguments)

    def _new(self, with_keywords: bool = False) -> None:
        if with_keywords:
            self._pop()
        arguments, kind = self._pop(), self._pop()
        if not isinstance(kind, type):
            raise ValueError("a pickle that makes an object of something other than a class")
        self._call(kind, arguments)

    def _inst(self) -> None:
        module, name = self._line(), self._line()
        self._call(self._find(module, name), tuple(self._pop_mark()))

    def _obj(self) -> None:
        function, *arguments = self._pop_mark()
        self._call(function, tuple(arguments))

    def _call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, (Sealed, type)) or not isinstance(arguments, tuple):
            raise ValueError("a pickle that calls something other than a function")
        self._charge(arguments)
        self._push(function(*arguments))

    def _build(self) -> None:
        state, target = self._pop(), self._stack[-1]
        if isinstance(target, Sealed):
            raise UserError("refused: the file tries to change a function of the reader")
        if isinstance(target, self._states):
            self._charge(state if isinstance(state, tuple) else (state,))
            target.__setstate__(state)
        elif not isinstance(target, dict):  # attributes of a dict are ignored; they hold no weights
            raise ValueError(f"a pickle that gives a state to a {type(target).__name__}")

    def _charge(self, arguments: tuple) -> None:
        """Counts the bytes of arguments that a function may copy: a file can pass the same large
        argument many times.
        """
        for value in arguments:
            if isinstance(value, (str, bytes)):
                self._counter.budget.take(len(value), "a pickle")
            elif isinstance(value, (list, tuple)) and len(value) > _BYTES_PER_ITEM:
                self._counter.budget.take(_BYTES_PER_ITEM * len(value), "a pickle")


def ordered_dict(pairs: Any = ()) -> OrderedDict:
    """The OrderedDict that a pickle makes: empty, or from pairs."""
    found = OrderedDict()
    for key, value in pairs:
        put(found, key, value)
    return found


def _constant(value: Any) -> Callable[[Pickle], None]:
    return lambda p: p._push(value)


def _replace_with_tuple(count: int) -> Callable[[Pickle], None]:
    def run(p: Pickle) -> None:
        if len(p._stack) < count:
            raise ValueError("a pickle that takes from an empty stack")
        p._stack[-count:] = [tuple(p._stack[-count:])]

    return run


_OPCODES: dict[bytes, Callable[[Pickle], Any]] = {
    b"(": Pickle._mark,
    b"0": Pickle._pop_any,
    b"1": Pickle._pop_mark,
    b"2": lambda p: p._push(p._stack[-1]),
    b"F": lambda p: p._push(float(p._line())),
    b"I": Pickle._int_line,
    b"J": lambda p: p._push(p._number("<i")),
    b"K": lambda p: p._push(p._number("<B")),
    b"M": lambda p: p._push(p._number("<H")),
    b"G": lambda p: p._push(p._number(">d")),
    b"L": lambda p: p._push(int(p._line().removesuffix("L"))),
    b"\x8a": lambda p: p._long(p._number("<B")),
    b"\x8b": lambda p: p._long(p._number("<i")),
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"P": lambda p: p._push(p._persistent(p._line())),
    b"Q": lambda p: p._push(p._persistent(p._pop())),
    b"R": Pickle._reduce,
    b"S": Pickle._string_line,
    b"T": lambda p: p._push(p._bytes(p._number("<i")).decode("latin1")),
    b"U": lambda p: p._push(p._bytes(p._number("<B")).decode("latin1")),
    b"V": lambda p: p._push(p._raw_line().decode("raw-unicode-escape")),
    b"X": lambda p: p._text("<I"),
    b"\x8c": lambda p: p._text("<B"),
    b"\x8d": lambda p: p._text("<Q"),
    b"B": lambda p: p._push(p._bytes(p._number("<I"))),
    b"C": lambda p: p._push(p._bytes(p._number("<B"))),
    b"\x8e": lambda p: p._push(p._bytes(p._number("<Q"))),
    b"\x96": lambda p: p._push(p._bytes(p._number("<Q"))),
    b"a": lambda p: p._append([p._pop()]),
    b"e": lambda p: p._append(p._pop_mark()),
    b"b": Pickle._build,
    b"c": lambda p: p._global(p._line(), p._line()),
    b"\x93": Pickle._stack_global,
    b"i": Pickle._inst,
    b"o": Pickle._obj,
    b"\x81": Pickle._new,
    b"\x92": lambda p: p._new(with_keywords=True),
    b"d": lambda p: p._dict(p._pop_mark()),
    b"l": lambda p: p._push(p._pop_mark()),
    b"t": lambda p: p._push(tuple(p._pop_mark())),
    b"}": lambda p: p._push({}),
    b"]": lambda p: p._push([]),
    b")": _constant(()),
    b"\x85": _replace_with_tuple(1),
    b"\x86": _replace_with_tuple(2),
    b"\x87": _replace_with_tuple(3),
    b"s": Pickle._set_item,
    b"u": Pickle._set_items,
    b"\x8f": lambda p: p._push(set()),
    b"\x90": Pickle._pop_mark,
    b"\x91": lambda p: (p._pop_mark(), p._push(frozenset())),
    b"g": lambda p: p._push(p._memo[int(p._line())]),
    b"h": lambda p: p._push(p._memo[p._number("<B")]),
    b"j": lambda p: p._push(p._memo[p._number("<I")]),
    b"p": lambda p: p._keep(int(p._line())),
    b"q": lambda p: p._keep(p._number("<B")),
    b"r": lambda p: p._keep(p._number("<I")),
    b"\x94": lambda p: p._keep(len(p._memo)),
    b"\x80": lambda p: p._number("<B"),
    b"\x95": lambda p: p._number("<Q"),
}
