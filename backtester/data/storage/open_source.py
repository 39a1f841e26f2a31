"""Files that `Data.save` of open-source VectorBT writes, read without running any code.

The pickle is one of pickles: a tuple of two, the first a dictionary whose ``dct`` is the
pickle of the arguments, in which ``data`` holds a DataFrame per symbol. All of them are run
on a machine like that of VectorBT PRO's files (see `inert`). Users put what they like into
an object, so it takes every name of the libraries that such an object is made of; names are
written down and never looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from backtester.data.storage.inert import ForeignData, ProMachine, Reader, is_array
from backtester.data.storage.pickles import Call, Name, UnreadableError

__all__ = ["read_unpacked"]

_MOVED = {  # what pandas 3 calls by shorter names
    "pandas.DataFrame": "pandas.core.frame.DataFrame",
    "pandas.Index": "pandas.core.indexes.base.Index",
    "pandas.DatetimeIndex": "pandas.core.indexes.datetimes.DatetimeIndex",
    "pandas.DatetimeTZDtype": "pandas.core.dtypes.dtypes.DatetimeTZDtype",
    "pandas.arrays.DatetimeArray": "pandas.core.arrays.datetimes.DatetimeArray",
}
_ARROW_STRINGS = "pandas.arrays.ArrowStringArray"
_SERIES = frozenset({"pandas.Series", "pandas.core.series.Series"})
_RESTORE = "pyarrow.lib._restore_array"
_ALIAS = "pyarrow.lib.type_for_alias"
_BUFFER = "pyarrow.lib.py_buffer"
_LOAD_TYPE = "dill._dill._load_type"
_OFFSET_WIDTHS = {"large_string": "<i8", "string": "<i4"}
_LIBRARIES = (
    "pandas.", "numpy.", "pyarrow.lib.", "vectorbt.", "dill._dill.", "datetime.", "zoneinfo.",
    "pytz.", "dateutil.", "collections.",
)  # fmt: skip


class _Names(frozenset[str]):
    """Every name of the libraries, and how Python has a time zone looked up."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name.startswith(_LIBRARIES) or name == "builtins.getattr")


class _Machine(ProMachine):
    """Takes more names, and calls of what another call would give."""

    names = _Names()

    def callee(self, what: Name | Call) -> str:
        if isinstance(what, Name):
            return _MOVED.get(what.text, what.text)
        if what.name == _LOAD_TYPE and what.args[:1] in {("slice",), ("bytearray",)}:
            return str(what.args[0])
        return f"{what.name}()"


class _Reader(Reader):
    """Reads the labels of pandas 3 and PyArrow, too: texts side by side in one run of bytes."""

    def may_be_numbers(self, cells: Call) -> bool:
        return is_array(cells)

    def labels(self, data: Any) -> Sequence[Any]:
        if type(data) is not Call or data.name != _ARROW_STRINGS:
            return super().labels(data)
        state = data.state if type(data.state) is dict else {}
        restored = state.get("_pa_array")
        if type(restored) is not Call or restored.name != _RESTORE:
            raise UnreadableError("the names in it are stored in an unknown way")
        return _arrow_texts(restored)


def read_unpacked(content: memoryview) -> ForeignData:
    """Read the pickle of a file.

    Raises
    ------
    UnreadableError
        What is wrong, in words; see `pickles.reading`.
    """
    outer = _Machine(content).run()
    if type(outer) is not tuple or len(outer) != 2 or type(outer[0]) is not memoryview:
        raise UnreadableError("it was not saved by VectorBT")
    config = _inner(outer[0])
    arguments = _inner(config.get("dct"))
    parts = arguments.get("data")
    if type(parts) is not dict or "wrapper" not in arguments:
        raise UnreadableError("it holds no market data")
    reader = _Reader((1 << 20) + 4 * len(content))
    tables = {}
    for symbol, part in parts.items():
        if type(symbol) is not str:
            raise UnreadableError("a symbol in it is not text")
        if type(part) is Call and part.name in _SERIES:
            raise UnreadableError(
                f"it holds a single column for {symbol}, as if only closes had been saved"
            )
        tables[symbol] = reader.once(reader.frame, part)
    return ForeignData(
        tables=tables,
        layout="symbol_dict",
        class_id="vectorbt",
        fetch_kwargs=reader.plain_dict(arguments.get("download_kwargs")),
    )


def _inner(pickled: Any) -> dict[str, Any]:
    if type(pickled) is not memoryview:
        raise UnreadableError("it was not saved by VectorBT")
    value = _Machine(pickled).run()
    if type(value) is not dict:
        raise UnreadableError("it was not saved by VectorBT")
    return value


def _arrow_texts(restored: Call) -> list[str]:
    """Read a PyArrow array of texts: ``(type, length, nulls, offset, [None, ends, bytes], …)``."""
    problem = UnreadableError("the names in it are not an array of strings")
    try:
        ((kind, length, nulls, offset, buffers, *_),) = restored.args
        _, ends, texts = buffers
        width = _OFFSET_WIDTHS[kind.args[0]]
        if kind.name != _ALIAS or nulls != 0 or offset != 0 or not 0 <= length < 1 << 20:
            raise problem
        bounds = np.frombuffer(_buffer(ends), width)[: length + 1].tolist()
        raw = bytes(_buffer(texts))
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise problem from error
    inside = len(bounds) == length + 1 and all(0 <= b <= len(raw) for b in bounds)
    if not inside or bounds != sorted(bounds):
        raise problem
    try:
        return [raw[a:b].decode() for a, b in pairwise(bounds)]
    except UnicodeDecodeError as error:
        raise problem from error


def _buffer(call: Any) -> memoryview:
    """Read ``py_buffer(bytearray(b"…"))``, with or without the bytearray."""
    (content,) = call.args
    if call.name != _BUFFER:
        raise TypeError("no buffer")
    if type(content) is Call and content.name == "bytearray":
        (content,) = content.args
    if type(content) is not memoryview:
        raise TypeError("no bytes")
    return content
