"""Decode HDF5 files: pandas' HDFStore in both its formats, and tables of PyTables or h5py.

Read by h5py, never by PyTables or pandas: PyTables unpickles the attributes of every node
it opens, so that a file could run code (law 9). What those libraries pickle and is needed
here, lists of column names, is read by a pattern; pickled columns are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from backtester.data.errors import CandleError, OptionError
from backtester.data.importing.columns import (
    milliseconds,
    place_columns,
    symbol_column,
    ticks_of,
    time_column,
    times_of_texts,
)
from backtester.data.importing.found import Found, Rows
from backtester.data.importing.names import said_by_key
from backtester.data.importing.opening import Content, unreadable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["decode"]

_MOST_NODES = 200_000
_DEEPEST = 16
_HARMLESS_BYTES = 64 << 20
_RATIO = 1000
_UNIT = re.compile(r"datetime64(?:\[(?P<unit>s|ms|us|ns)\])?")
# A list of texts as pickle's protocol 0 writes it, which is how PyTables keeps one.
_LIST = re.compile(rb"\(lp?\d*\n?(?P<items>(?:(?:[VS][^\n]*\n(?:p\d+\n)?|g\d+\n)a)*)\.\Z")
_ITEM = re.compile(rb"(?:V(?P<text>[^\n]*)|S'(?P<old>[^'\n\\]*)'|(?P<again>g\d+))\n(?:p\d+\n)?a")


def decode(content: Content) -> Iterator[Found]:
    """Decode every table of a file, one series per key.

    Raises
    ------
    CorruptDatasetError
        It is damaged or hostile, or holds no tables.
    OptionError
        h5py is not installed.
    """
    with _reading(content.where) as h5py:
        source = str(content.path) if content.path else BytesIO(content.whole())
        with h5py.File(source, "r", locking=False) as file:
            seen = 0
            for path, node in _nodes(file, h5py, content.where):
                seen += 1
                yield _found(content.where, path, node, h5py)
    if not seen:
        raise unreadable(content.where, "it holds no table")


@contextmanager
def _reading(where: str) -> Iterator[Any]:
    try:
        import h5py
        import hdf5plugin  # noqa: F401 - brings the compressions of PyTables
    except ImportError as error:
        raise OptionError(
            "reading HDF5 files needs h5py and hdf5plugin: pip install h5py hdf5plugin",
            value=where,
        ) from error
    try:
        yield h5py
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        if isinstance(error, CandleError):
            raise
        raise unreadable(where, f"HDF5 cannot read it ({error})") from error


# --------------------------------------------------------------------------- finding tables


def _nodes(file: Any, h5py: Any, where: str) -> Iterator[tuple[list[str], Any]]:
    """Walk the file: groups that pandas wrote as one table, and tables of their own.

    Links that leave the file, or lead back into it, are not followed.
    """
    waiting: list[tuple[list[str], Any]] = [([], file)]
    count = 0
    while waiting:
        path, node = waiting.pop()
        count += 1
        if count > _MOST_NODES or len(path) > _DEEPEST:
            raise unreadable(where, "it is nested without end")
        if _text(node, "pandas_type") is not None or (
            isinstance(node, h5py.Dataset) and node.dtype.names
        ):
            yield path, node
            continue
        if not isinstance(node, h5py.Group):
            continue
        names = sorted(node, reverse=True)
        columns = {name.lower() for name in names}
        if {"open", "high", "low", "close"} <= columns:  # an array per column
            yield path, node
            continue
        for name in names:
            link = node.get(name, getlink=True)
            if name.startswith("_i_") or not isinstance(link, h5py.HardLink):
                continue  # PyTables' indexes of columns; links
            waiting.append(([*path, name], node[name]))


def _found(where: str, path: Sequence[str], node: Any, h5py: Any) -> Found:
    place = f"{where}/{PurePosixPath(*path)}" if path else where
    said = said_by_key(path)
    try:
        names, columns = _columns(node, h5py)
        at = place_columns(names, said.symbol)
        _require_one_symbol(names, columns)
        times = columns.times()
        values = [np.asarray(columns.values(names[i]), np.float64) for i in at]
        return Found(place, said, Rows(times, _side_by_side(values, len(times))))
    except CandleError as error:
        return Found(place, said, None, problem=error)


def _require_one_symbol(names: Sequence[str], columns: _Table) -> None:
    """Refuse rows of several symbols under one key."""
    at = symbol_column(names)
    if at is None:
        return
    symbols = sorted(set(np.asarray(columns.values(names[at])).ravel().tolist()))
    if len(symbols) > 1:
        some = ", ".join(str(_plain(one)) for one in symbols[:3])
        raise CandleError(
            f"it holds {len(symbols)} symbols in one table ({some}); write a key for each"
        )


def _plain(label: Any) -> Any:
    return label.decode(errors="replace") if isinstance(label, bytes) else label


def _side_by_side(columns: Sequence[NDArray[np.float64]], rows: int) -> NDArray[np.float64]:
    if any(column.shape != (rows,) for column in columns):
        raise CandleError("its columns are of different lengths")
    return np.stack(columns, axis=1)


def _columns(node: Any, h5py: Any) -> tuple[list[str], _Table]:
    kind = _text(node, "pandas_type")
    table: _Table
    if kind == "frame":
        table = _Fixed(node, h5py)
    elif kind == "frame_table":
        table = _Appendable(_dataset(node, "table", h5py))
    elif kind is not None:
        raise CandleError(f"it is what pandas calls a {kind}, not a table of candles")
    elif isinstance(node, h5py.Dataset):
        table = _Compound(node)
    else:
        table = _Arrays(node, h5py)
    return table.names, table


# --------------------------------------------------------------------------- layouts


class _Table:
    """The columns of one table, whatever its layout."""

    names: list[str]

    def times(self) -> NDArray[np.int64]:
        """Read the open times, UTC epoch milliseconds."""
        raise NotImplementedError

    def values(self, name: str) -> Any:
        """Read a column of numbers."""
        raise NotImplementedError


class _Fixed(_Table):
    """pandas' ``format="fixed"``: blocks of columns, and the two axes."""

    def __init__(self, node: Any, h5py: Any) -> None:
        self._index = _dataset(node, "axis1", h5py)
        self._blocks: dict[str, tuple[Any, int]] = {}
        count = node.attrs.get("nblocks", 0)
        for number in range(int(count)):
            items = _dataset(node, f"block{number}_items", h5py)
            cells = _dataset(node, f"block{number}_values", h5py)
            if items.dtype.kind != "S":  # labels that are no texts; pickled, perhaps
                continue
            for at, name in enumerate(_texts(_read(items))):
                self._blocks[name] = (cells, at)
        self.names = list(self._blocks)

    def times(self) -> NDArray[np.int64]:
        unit = _unit(_text(self._index, "kind"))
        if unit is not None:
            return milliseconds(_whole_numbers(self._index), unit)
        cells, at = self._blocks[self.names[time_column(self.names)]]
        unit = _unit(_text(cells, "value_type"))
        column = _column(cells, at)
        return milliseconds(column.astype(np.int64), unit) if unit else ticks_of(column)

    def values(self, name: str) -> Any:
        cells, at = self._blocks[name]
        return _column(cells, at)


def _column(cells: Any, at: int) -> NDArray[Any]:
    if cells.dtype.kind not in "fiu":
        raise CandleError("a column of it does not hold numbers")
    table = _read(cells)
    # pandas notes that it has transposed a block: (rows, columns) then.
    table = table if cells.attrs.get("transposed", False) else table.T
    if table.ndim != 2 or not 0 <= at < table.shape[1]:
        raise CandleError("a block of it has another shape than its columns")
    return np.asarray(table[:, at])


class _Appendable(_Table):
    """pandas' ``format="table"``: one table whose cells may be blocks of columns."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._rows: NDArray[Any] | None = None
        self._places: dict[str, tuple[str, int | None]] = {}
        for name in table.dtype.names or ():
            labels = _labels(table.attrs.get(f"{name}_kind"))
            if table.dtype[name].subdtype is not None or name.startswith("values_block_"):
                if labels is None:
                    raise CandleError("its columns are named in an unknown way")
                self._places |= {label: (name, at) for at, label in enumerate(labels)}
            elif name != "index":
                self._places[labels[0] if labels else name] = (name, None)
        self.names = list(self._places)

    def _cells(self, field: str) -> NDArray[Any]:
        if self._rows is None:
            self._rows = _read(self._table)
        return np.asarray(self._rows[field])

    def times(self) -> NDArray[np.int64]:
        unit = _unit(_text(self._table, "index_kind"))
        if unit is not None:
            return milliseconds(self._cells("index").astype(np.int64), unit)
        name = self.names[time_column(self.names)]
        field, _ = self._places[name]
        unit = _unit(_text(self._table, f"{field}_dtype"))
        column = self.values(name)
        return milliseconds(column.astype(np.int64), unit) if unit else _times(column)

    def values(self, name: str) -> Any:
        field, at = self._places[name]
        cells = self._cells(field)
        if at is None:
            return cells
        if cells.ndim != 2 or at >= cells.shape[1]:
            raise CandleError("a block of it has another shape than its columns")
        return cells[:, at]


class _Compound(_Table):
    """A table of PyTables or h5py: a field per column."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._rows: NDArray[Any] | None = None
        self.names = list(table.dtype.names)

    def times(self) -> NDArray[np.int64]:
        return _times(self.values(self.names[time_column(self.names)]))

    def values(self, name: str) -> Any:
        if self._rows is None:
            self._rows = _read(self._table)
        cells = np.asarray(self._rows[name])
        if cells.ndim != 1:
            raise CandleError(f"the column {name!r} of it holds more than a value per row")
        return cells


class _Arrays(_Table):
    """A group with an array per column."""

    def __init__(self, node: Any, h5py: Any) -> None:
        self._arrays: Mapping[str, Any] = {
            name: _dataset(node, name, h5py)
            for name in node
            if isinstance(node.get(name, getlink=True), h5py.HardLink)
            and isinstance(node[name], h5py.Dataset)
        }
        self.names = list(self._arrays)

    def times(self) -> NDArray[np.int64]:
        return _times(self.values(self.names[time_column(self.names)]))

    def values(self, name: str) -> Any:
        return _read(self._arrays[name])


# --------------------------------------------------------------------------- nodes


def _dataset(node: Any, name: str, h5py: Any) -> Any:
    link = node.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink) or not isinstance(node[name], h5py.Dataset):
        raise CandleError(f"it has no {name}")
    return node[name]


def _read(dataset: Any) -> NDArray[Any]:
    """Read a dataset that is what it claims to be: in this file, and of about its bytes' size."""
    if dataset.external or dataset.is_virtual:
        raise CandleError("its cells stand in another file")
    if dataset.dtype.hasobject:
        raise CandleError("it holds pickled objects, which are never read")
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > max(_HARMLESS_BYTES, _RATIO * stored):
        raise CandleError(f"it claims {dataset.nbytes} bytes and has {stored}")
    return np.asarray(dataset[()])


def _whole_numbers(dataset: Any) -> NDArray[np.int64]:
    cells = _read(dataset)
    if cells.dtype.kind not in "iu" or cells.ndim != 1:
        raise CandleError("its index holds no times")
    return cells.astype(np.int64)


def _times(cells: NDArray[Any]) -> NDArray[np.int64]:
    return times_of_texts(_texts(cells)) if cells.dtype.kind == "S" else ticks_of(cells)


def _texts(cells: NDArray[Any]) -> list[str]:
    try:
        return [bytes(cell).decode() for cell in cells.ravel().tolist()]
    except (UnicodeDecodeError, TypeError) as error:
        raise CandleError("a text in it is not UTF-8") from error


def _text(node: Any, name: str) -> str | None:
    """Read an attribute that is a text; None where there is none, or it is something else."""
    try:
        value = node.attrs.get(name)
    except (OSError, TypeError, ValueError, KeyError):
        return None
    if isinstance(value, bytes | np.bytes_):
        value = bytes(value).decode("utf-8", "replace")
    return str(value) if isinstance(value, str) else None


def _unit(kind: str | None) -> str | None:
    """Read the unit of pandas' times; without one they are nanoseconds."""
    match = _UNIT.match(kind or "")
    return (match["unit"] or "ns") if match else None


def _labels(pickled: Any) -> list[str] | None:
    """Read a list of texts from its pickle, by its pattern; None for anything else."""
    raw = bytes(pickled) if isinstance(pickled, bytes | np.bytes_) else None
    match = _LIST.match(raw) if raw else None
    if match is None:
        return None
    labels: list[str] = []
    for item in _ITEM.finditer(match["items"]):
        if item["again"] is not None:
            return None  # a name that is there twice
        text = item["text"] if item["text"] is not None else item["old"]
        labels.append(text.decode("raw-unicode-escape", "replace"))
    return labels
