"""What was decoded a moment ago, kept in memory while its file stands as it was."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Generic, TypeVar

__all__ = ["Memo", "in_passing", "is_in_passing"]

Value = TypeVar("Value")

_in_passing: ContextVar[bool] = ContextVar("in_passing", default=False)


@contextmanager
def in_passing() -> Iterator[None]:
    """Read parts without keeping them: for a walk through more than memory shall hold."""
    token = _in_passing.set(True)
    try:
        yield
    finally:
        _in_passing.reset(token)


def is_in_passing() -> bool:
    """Return whether what is read now is not to be kept."""
    return _in_passing.get()


class Memo(Generic[Value]):
    """Values by name and version, the least recently used dropped beyond a size.

    Parameters
    ----------
    most_bytes : int
        The most that is kept, in bytes as their owners state them.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Hashable, Value, int]] = OrderedDict()
        self._lock = Lock()
        os.register_at_fork(after_in_child=self._unlock)

    def _unlock(self) -> None:
        """Take a lock of its own in a forked child: another thread may have held the old one."""
        self._lock = Lock()

    def get(self, name: Hashable, version: Hashable) -> Value | None:
        """Return a value if it is known and of this version."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is None or entry[0] != version:
                return None
            self._entries.move_to_end(name)
            return entry[1]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def put(self, name: Hashable, version: Hashable, value: Value, size: int) -> None:
        """Keep a value in the place of its earlier version; one that is too big is not kept."""
        with self._lock:
            old = self._entries.pop(name, None)
            self._bytes -= old[2] if old else 0
            if size <= self._most_bytes:
                self._entries[name] = (version, value, size)
                self._bytes += size
            while self._bytes > self._most_bytes:
                _, (_, _, dropped) = self._entries.popitem(last=False)
                self._bytes -= dropped
