"""Pickles read without running anything: plain values, and descriptions of calls.

`pickle.Unpickler` with a strict `find_class` is not enough: on CPython 3.11 a deeply
nested tuple used as a key overflows the C stack and ends the process, one opcode
reserves memory for 2**32 memo entries, and BUILD sets attributes on whatever stands
there. `Machine` knows the opcodes that data are made of, looks no name up, and writes
calls down instead of making them. It never recurses, and takes no memory that the bytes
and steps of the pickle do not pay for.

Opcodes: Python's ``Lib/pickletools.py``.
"""

from __future__ import annotations

import pickle
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from backtester.data.errors import CorruptDatasetError

__all__ = ["ATOMS", "Call", "Machine", "Name", "UnreadableError", "is_key", "reading"]

ATOMS = frozenset({str, bytes, int, float, bool, type(None)})
"""The types of values that hold no others."""

_STARTS = (pickle.PROTO + b"\x04", pickle.PROTO + b"\x05")
_STOP = pickle.STOP[0]
_FLOAT = struct.Struct(">d")
_MOST_OF_ONE_HASH = 16


class UnreadableError(Exception):
    """What is wrong with a file, in plain words; `reading` adds which file it is."""


@contextmanager
def reading(source: str, kind: str = "") -> Iterator[None]:
    """Turn an `UnreadableError` into a `CorruptDatasetError` that names the file.

    Parameters
    ----------
    source : str
        The file's path, or what else to call it.
    kind : str
        What it was read as, such as ``" as a VectorBT PRO file"``.
    """
    try:
        yield
    except UnreadableError as wrong:
        raise CorruptDatasetError(
            f"{source} cannot be read{kind}: {wrong}", path=source, reason=str(wrong)
        ) from wrong.__cause__


@dataclass(frozen=True, slots=True)
class Name:
    """A global name that a pickle mentions, as ``module.name``."""

    text: str


@dataclass(slots=True, eq=False)
class Call:
    """A call that a pickle asks for. Nobody makes it."""

    name: str
    args: tuple[Any, ...]
    state: Any = None
    """What the pickle would have its result take on (BUILD)."""


class Machine:
    """Runs the opcodes of one pickle, protocol 4 or 5; a subclass says what may be in it.

    What comes out consists of `ATOMS`, lists, tuples, dictionaries and sets with keys that
    hash at once, `Name` and `Call`. Unless it is a `tree`, it may contain itself.

    Parameters
    ----------
    raw : bytes or memoryview
        The pickle. Bytes in the result are slices of it: copies of bytes, views of a memoryview.
    """

    names: ClassVar[frozenset[str]] = frozenset()
    """The global names that may be mentioned."""
    tree: ClassVar[bool] = False
    """Only `ATOMS` may be referred to twice: to walk the result takes no longer than to read it."""
    most_steps: ClassVar[int] = 2_000_000
    """How many opcodes there may be."""

    def __init__(self, raw: bytes | memoryview) -> None:
        self.raw = raw
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []
        self._hashes: dict[int, Counter[int]] = {}

    def run(self) -> Any:
        """Return the one value that the pickle describes.

        Raises
        ------
        UnreadableError
            Anything is amiss; nothing else is ever raised.
        """
        raw, end, code = self.raw, len(self.raw), 0
        if bytes(raw[:2]) not in _STARTS:
            raise UnreadableError("it holds no pickle of protocol 4")
        self.at = 2
        try:
            for _ in range(self.most_steps):
                if self.at == end:
                    raise UnreadableError("its pickle is cut short")
                code = raw[self.at]
                self.at += 1
                if code == _STOP:
                    return self._result()
                _OPERATIONS[code](self)
        except KeyError:
            raise UnreadableError(
                f"it uses the pickle opcode {code:#04x}, which such files never do"
            ) from None
        except IndexError:  # of an empty stack, or of a mark or a memo entry that is not there
            raise UnreadableError("its pickle pops more than it pushed") from None
        except UnicodeDecodeError:
            raise UnreadableError("a string in it is not valid UTF-8") from None
        raise UnreadableError(f"its pickle has more than {self.most_steps} steps")

    def _result(self) -> Any:
        value = self.stack.pop()
        if self.stack or self.marks or self.at != len(self.raw):
            raise UnreadableError("its pickle holds more than one value")
        return value

    def callee(self, what: Name | Call) -> str:
        """Return the name under which a call of `what` is written down."""
        if isinstance(what, Call):
            raise UnreadableError("it calls the result of another call")
        return what.text

    # Operands. They are taken from the bytes that are there, whatever length they claim.

    def take(self, size: int) -> bytes | memoryview:
        start = self.at
        self.at = end = start + size
        if end > len(self.raw):
            raise UnreadableError("its pickle is cut short")
        return self.raw[start:end]

    def take_sized(self, width: int) -> bytes | memoryview:
        return self.take(int.from_bytes(self.take(width), "little"))

    def take_last(self, count: int) -> list[Any]:
        """Take the topmost values off the stack, the top one last."""
        first = len(self.stack) - count
        if not 0 <= first <= len(self.stack):
            raise IndexError
        items = self.stack[first:]
        del self.stack[first:]
        return items

    def take_marked(self) -> list[Any]:
        """Take what was put down since the last mark."""
        return self.take_last(len(self.stack) - self.marks.pop())

    # Operations, by what they build.

    def number(self, width: int, *, signed: bool = False) -> None:
        self.stack.append(int.from_bytes(self.take(width), "little", signed=signed))

    def long(self) -> None:  # of 255 bytes at most: it is the short form of a long number
        self.stack.append(int.from_bytes(self.take_sized(1), "little", signed=True))

    def text(self, width: int) -> None:
        # As pickle writes it: a lone surrogate in a name must come back too.
        self.stack.append(str(self.take_sized(width), "utf-8", "surrogatepass"))

    def recall(self, width: int) -> None:
        value = self.memo[int.from_bytes(self.take(width), "little")]
        if self.tree and type(value) not in ATOMS:
            raise UnreadableError("it refers to the same part of itself twice")
        self.stack.append(value)

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise UnreadableError("it appends to something that is not a list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise UnreadableError("it sets items of something that is not a dictionary")
        target.update(zip(self._keys(target, items[::2]), items[1::2], strict=True))

    def add_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            raise UnreadableError("it adds to something that is not a set")
        target.update(self._keys(target, items))

    def _keys(self, target: object, keys: list[Any]) -> list[Any]:
        """Let only keys through that hash at once, and not many of one hash.

        The hash of a text is this process's secret. Numbers and tuples can be chosen to
        share one, and to put in n of those takes n * n steps.
        """
        for key in keys:
            if type(key) is str:
                continue
            if not is_key(key):
                raise UnreadableError("it has a key that is not a plain value or a tuple of them")
            hashes = self._hashes.setdefault(id(target), Counter())
            hashes[hash(key)] += 1
            if hashes[hash(key)] > _MOST_OF_ONE_HASH:
                raise UnreadableError("it has too many keys with the same hash")
        return keys

    def name(self) -> None:
        module, name = self.take_last(2)
        text = f"{module}.{name}" if type(module) is type(name) is str else ""
        if text not in self.names:
            raise UnreadableError(f"it names {text[:80]!r}, which such files never need")
        self.stack.append(Name(text))

    def call(self) -> None:
        what, args = self.take_last(2)
        if not isinstance(what, Name | Call) or type(args) is not tuple:
            raise UnreadableError("it calls something that is not a name")
        self.stack.append(Call(self.callee(what), args))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is not Call or target.state is not None:
            raise UnreadableError("it sets the state of something that cannot have one")
        target.state = state


def is_key(value: object) -> bool:
    """Return whether a value may be a key: one of `ATOMS`, or a tuple of such."""
    if type(value) is tuple:
        return all(type(item) in ATOMS for item in value)
    return type(value) in ATOMS


_OPERATIONS: dict[int, Callable[[Machine], object]] = {
    code[0]: operation
    for code, operation in {
        pickle.FRAME: lambda m: m.take(8),  # how far to read ahead
        pickle.MARK: lambda m: m.marks.append(len(m.stack)),
        pickle.MEMOIZE: lambda m: m.memo.append(m.stack[-1]),
        pickle.BINGET: lambda m: m.recall(1),
        pickle.LONG_BINGET: lambda m: m.recall(4),
        pickle.NONE: lambda m: m.stack.append(None),
        pickle.NEWTRUE: lambda m: m.stack.append(True),
        pickle.NEWFALSE: lambda m: m.stack.append(False),
        pickle.BININT1: lambda m: m.number(1),
        pickle.BININT2: lambda m: m.number(2),
        pickle.BININT: lambda m: m.number(4, signed=True),
        pickle.LONG1: Machine.long,
        pickle.BINFLOAT: lambda m: m.stack.append(_FLOAT.unpack(m.take(8))[0]),
        pickle.SHORT_BINUNICODE: lambda m: m.text(1),
        pickle.BINUNICODE: lambda m: m.text(4),
        pickle.SHORT_BINBYTES: lambda m: m.stack.append(m.take_sized(1)),
        pickle.BINBYTES: lambda m: m.stack.append(m.take_sized(4)),
        pickle.EMPTY_LIST: lambda m: m.stack.append([]),
        pickle.APPEND: lambda m: m.extend(m.take_last(1)),
        pickle.APPENDS: lambda m: m.extend(m.take_marked()),
        pickle.EMPTY_DICT: lambda m: m.stack.append({}),
        pickle.SETITEM: lambda m: m.set_items(m.take_last(2)),
        pickle.SETITEMS: lambda m: m.set_items(m.take_marked()),
        pickle.EMPTY_SET: lambda m: m.stack.append(set()),
        pickle.ADDITEMS: lambda m: m.add_items(m.take_marked()),
        pickle.EMPTY_TUPLE: lambda m: m.stack.append(()),
        pickle.TUPLE1: lambda m: m.stack.append(tuple(m.take_last(1))),
        pickle.TUPLE2: lambda m: m.stack.append(tuple(m.take_last(2))),
        pickle.TUPLE3: lambda m: m.stack.append(tuple(m.take_last(3))),
        pickle.TUPLE: lambda m: m.stack.append(tuple(m.take_marked())),
        pickle.STACK_GLOBAL: Machine.name,
        pickle.REDUCE: Machine.call,
        pickle.NEWOBJ: Machine.call,
        pickle.BUILD: Machine.build,
    }.items()
}
