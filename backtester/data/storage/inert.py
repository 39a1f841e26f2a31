"""VectorBT PRO's ``.pickle.blosc`` files, read without running any code of theirs.

Three steps, each bounded by the bytes that are really there: unpack one Blosc2
chunk (see `blosc`), run the pickle's opcodes on a machine that builds plain values
and *descriptions* of calls (see `pickles`), then look for tables in what came out.
Neither VectorBT PRO nor dill nor pandas is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from backtester.data.candles import COLUMNS, Candles
from backtester.data.errors import CandleError, UnknownSymbolError
from backtester.data.model import format_ms
from backtester.data.storage import blosc
from backtester.data.storage.pickles import Call as _Call
from backtester.data.storage.pickles import Machine, reading
from backtester.data.storage.pickles import Name as _Name
from backtester.data.storage.pickles import UnreadableError as _UnreadableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "NAMES",
    "ForeignData",
    "ForeignTable",
    "ProMachine",
    "Reader",
    "is_array",
    "read_pro",
    "read_unpacked",
    "unpack",
]


# --------------------------------------------------------------------------- what comes out


@dataclass(frozen=True, slots=True, eq=False)
class ForeignTable:
    """What a foreign file holds of one symbol, padding included. The arrays are read-only."""

    open_time: NDArray[np.int64]
    """UTC epoch milliseconds, shape (n,), in the file's order; a naive index counts as UTC."""
    columns: tuple[str, ...]
    """The names of the `k` columns of `values`."""
    values: NDArray[np.float64]
    """Shape (n, k); floats bit for bit as stored, whole numbers converted."""
    left_out: tuple[str, ...] = ()
    """Columns that hold something else than numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class ForeignData:
    """The content of one foreign file."""

    tables: Mapping[str, ForeignTable]
    """By symbol, whatever the layout."""
    layout: str
    """``"symbol_dict"``, a table per symbol, or ``"feature_dict"``, a table per feature."""
    class_id: str
    """The class that was saved, such as ``vectorbtpro.data.custom.ccxt.CCXTData``."""
    last_index: Mapping[str, int] = field(default_factory=dict)
    """By symbol, the last time asked for, UTC epoch milliseconds; may be finer than a candle."""
    fetch_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """By symbol, or by feature in a feature dictionary, as plain values."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Everything else that is plain; what is not is left out."""

    def candles(self, symbol: str) -> Candles:
        """Return the candles of one symbol, without the rows that only pad it.

        Every table of such a file carries the index of all symbols; a row
        without any of the five values is padding, not data. Rows out of order
        are sorted, and a row that is there twice is taken once.

        Returns
        -------
        Candles
            Strictly increasing; not yet checked against a timeframe.

        Raises
        ------
        UnknownSymbolError
            The file has no such symbol.
        CandleError
            A column of `COLUMNS` is missing, a row has only some of the five
            values, or one time has two different rows.
        """
        try:
            table = self.tables[symbol]
        except KeyError:
            raise UnknownSymbolError(
                f"the file has no symbol {symbol!r}; it has {', '.join(self.tables)}",
                symbol=symbol,
                suggestions=tuple(self.tables),
            ) from None
        values = table.values[:, _ohlcv_positions(symbol, table)]
        absent = np.isnan(values)
        padding = absent.all(axis=1)
        broken = absent.any(axis=1) & ~padding
        if broken.any():
            first = int(table.open_time[np.argmax(broken)])
            raise CandleError(
                f"{symbol} has an incomplete candle at {format_ms(first)}"
                f" ({int(broken.sum())} such rows)",
                symbol=symbol,
                open_time=first,
            )
        return _in_order(symbol, table.open_time[~padding], values[~padding])


def _ohlcv_positions(symbol: str, table: ForeignTable) -> list[int]:
    """Find the five columns by name, in any case when the exact one is missing."""
    found = {name.lower(): at for at, name in enumerate(table.columns)}
    found |= {name: at for at, name in enumerate(table.columns)}
    positions = [found.get(name, found.get(name.lower())) for name in COLUMNS]
    missing = [name for name, at in zip(COLUMNS, positions, strict=True) if at is None]
    if not missing:
        return [at for at in positions if at is not None]
    names = ", ".join(repr(name) for name in table.columns) or "nothing"
    has = f"only {names}, as if only closes had been saved," if len(table.columns) == 1 else names
    raise CandleError(
        f"no candles for {symbol}: the file has {has} but no {', '.join(missing)}",
        symbol=symbol,
        missing=tuple(missing),
    )


def _in_order(symbol: str, times: NDArray[np.int64], values: NDArray[np.float64]) -> Candles:
    if not bool(np.all(np.diff(times) > 0)):
        order = np.argsort(times, kind="stable")
        times, values = times[order], values[order]
        again = np.flatnonzero(times[1:] == times[:-1])
        bits = np.ascontiguousarray(values).view(np.int64)
        differ = np.any(bits[again] != bits[again + 1], axis=1)
        if differ.any():
            first = int(times[again[np.argmax(differ)]])
            raise CandleError(
                f"{symbol} has two different candles at {format_ms(first)}",
                symbol=symbol,
                open_time=first,
            )
        once = np.append(times[1:] != times[:-1], True)
        times, values = times[once], values[once]
    return Candles(times, np.ascontiguousarray(values))


def read_pro(data: bytes | memoryview, source: str) -> ForeignData:
    """Read a file that VectorBT PRO saved.

    Parameters
    ----------
    data : bytes or memoryview
        The whole file.
    source : str
        Its path, for messages.

    Returns
    -------
    ForeignData

    Raises
    ------
    CorruptDatasetError
        For anything else than a whole, honest file of this kind: cut short,
        altered, hostile, or of another make. `path` is `source`.
    """
    with reading(source, " as a VectorBT PRO file"):
        content = unpack(memoryview(data).cast("B"))
        return read_unpacked(content)


def read_unpacked(content: memoryview) -> ForeignData:
    """Read the pickle itself, where it stands in a file without compression.

    Raises
    ------
    UnreadableError
        What is wrong, in words; see `pickles.reading`.
    """
    return Reader(_SMALL + 4 * len(content)).data(ProMachine(content).run())


MAX_RATIO = 1000  # tables that are nearly all padding reach a few hundred


def unpack(data: memoryview) -> memoryview:
    """Unpack the chunk a file begins with; VectorBT PRO does not look at what follows it."""
    length = blosc.chunk_length(data[: blosc.HEADER_SIZE], ratio=MAX_RATIO)
    return memoryview(blosc.decompress(data[:length], ratio=MAX_RATIO))


# --------------------------------------------------------------------------- the names

_CREATE_ARRAY = "dill._dill._create_array"
_LOAD_TYPE = "dill._dill._load_type"
_TIMEDELTA = "datetime.timedelta"
_TIMEZONE = "datetime.timezone"
_DTYPE = "numpy.dtype"
_RECONSTRUCT_ARRAY = {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"}
_BACKED_ARRAY = "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked"
_BLOCK = "pandas._libs.internals._unpickle_block"
_TIMESTAMP = "pandas._libs.tslibs.timestamps._unpickle_timestamp"
_FRAME = "pandas.core.frame.DataFrame"
_NEW_INDEX = "pandas.core.indexes.base._new_Index"
_NEW_DATETIME_INDEX = "pandas.core.indexes.datetimes._new_DatetimeIndex"
_BLOCK_MANAGER = "pandas.core.internals.managers.BlockManager"
_REC_STATE = "vectorbtpro.utils.pickling.RecState"
_RECONSTRUCT = "vectorbtpro.utils.pickling.reconstruct"

# Every name in 16 real files of May 2025: VectorBT PRO of that time, pandas 2, numpy 1 and 2.
# Only Day and Hour are among the offsets there; the others are those of the other timeframes.
_OFFSETS = ("Second", "Minute", "Hour", "Day", "Week", "MonthBegin")
NAMES = {
    _CREATE_ARRAY, _LOAD_TYPE, _TIMEDELTA, _TIMEZONE, _DTYPE, "numpy.ndarray", *_RECONSTRUCT_ARRAY,
    _BACKED_ARRAY, _BLOCK, _TIMESTAMP, _FRAME, _NEW_INDEX, _NEW_DATETIME_INDEX, _BLOCK_MANAGER,
    _REC_STATE, _RECONSTRUCT,
    "pandas.core.arrays.datetimes.DatetimeArray", "pandas.core.dtypes.dtypes.DatetimeTZDtype",
    "pandas.core.indexes.base.Index", "pandas.core.indexes.datetimes.DatetimeIndex",
    *(f"pandas._libs.tslibs.offsets.{name}" for name in _OFFSETS),
}  # fmt: skip


class ProMachine(Machine):
    """Knows the names of these files, and how dill has a class called."""

    names = frozenset(NAMES)
    most_steps = 2_000_000  # some 350 per symbol, each taking up to 200 bytes of memory

    def callee(self, what: _Name | _Call) -> str:
        if isinstance(what, _Call) and what.name == _LOAD_TYPE and what.args == ("slice",):
            return "slice"
        return super().callee(what)


# --------------------------------------------------------------------------- the tables

_NUMBERS = {"f8", "f4", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"}
_BYTE_ORDERS = ("<", ">", "|", "=")
_PER_MS = {"ns": 1_000_000, "us": 1_000, "ms": 1}
_UNITS = ("s", *_PER_MS)
_TICKS_PER_S = {7: 1, 8: 1_000, 9: 1_000_000, 10: 1_000_000_000}  # by numpy's number of the unit
_NOT_A_TIME = -(1 << 63)  # numpy's NaT
_EXACT = 1 << 53  # beyond this a float64 skips whole numbers
_Item = TypeVar("_Item", bound=np.generic)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SCALARS = (str, int, float, bool, type(None))
_SMALL = 1 << 20
_EACH = 64  # bytes, about, that a table and each of its columns cost besides the cells
_MAX_DEPTH = 32
_MAX_PLAIN = 200_000  # some 20 per symbol
_INT32 = range(-(1 << 31), 1 << 31)


class Reader:
    """Finds the tables in what the machine put together.

    Parameters
    ----------
    budget : int
        How many bytes all that is read may take. Honest files need little more
        than their own size; one that refers to the same bytes again and again
        would need any amount.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.plain_budget = _MAX_PLAIN
        # By reader and identity; the calls are kept, so that an identity stays taken.
        self.seen: dict[tuple[str, int], tuple[_Call, Any]] = {}

    def data(self, root: Any) -> ForeignData:
        """Read the saved object."""
        class_id, kwargs, _ = _rebuilt(root, "the file")
        if "data" not in kwargs or "wrapper" not in kwargs:
            raise _UnreadableError(f"it holds {class_id[:80]!r}, which is not market data")
        layout_id, parts, _ = _rebuilt(kwargs["data"], "the data")
        layout = layout_id.rpartition(".")[2]
        frames = {
            _text(name, "a name"): self.once(self.frame, part) for name, part in parts.items()
        }
        if layout == "symbol_dict":
            tables = frames
        elif layout == "feature_dict":
            tables = self.by_symbol(frames)
        else:
            raise _UnreadableError(f"its data have an unknown layout, {layout_id[:80]!r}")
        return ForeignData(
            tables=tables,
            layout=layout,
            class_id=class_id,
            last_index=self.last_index(kwargs.get("last_index"), tables, layout),
            fetch_kwargs=self.plain_dict(kwargs.get("fetch_kwargs")),
            metadata=self.metadata(kwargs),
        )

    def once(self, read: Callable[[_Call], Any], call: Any) -> Any:
        """Read a description that several places may share, once."""
        if type(call) is not _Call:
            raise _UnreadableError("a table in it does not have the expected form")
        key = (read.__name__, id(call))
        if key not in self.seen:
            self.seen[key] = call, read(call)
        return self.seen[key][1]

    def spend(self, size: int) -> None:
        self.budget -= size
        if self.budget < 0:
            raise _UnreadableError("it claims to hold more data than it has bytes for")

    def by_symbol(self, frames: Mapping[str, ForeignTable]) -> dict[str, ForeignTable]:
        """Turn a table per feature, symbols in columns, into one per symbol."""
        features = list(frames.values())
        if not features:
            return {}
        times = features[0].open_time
        same = all(np.array_equal(f.open_time, times) for f in features)
        _expect(same, "its features have different times")
        self.spend(_EACH * sum(len(f.columns) + len(f.left_out) for f in features))
        cells: dict[str, dict[str, NDArray[np.float64]]] = {}
        left_out: dict[str, list[str]] = {}
        for feature, frame in frames.items():
            for at, symbol in enumerate(frame.columns):
                cells.setdefault(symbol, {})[feature] = frame.values[:, at]
            for symbol in frame.left_out:
                left_out.setdefault(symbol, []).append(feature)
        tables = {}
        for symbol in cells | left_out:
            columns = cells.get(symbol, {})
            self.spend(8 * len(times) * len(columns))
            values = np.empty((len(times), len(columns)))
            for at, column in enumerate(columns.values()):
                values[:, at] = column
            skipped = tuple(left_out.get(symbol, ()))
            tables[symbol] = ForeignTable(times, tuple(columns), _locked(values), skipped)
        return tables

    # ------------------------------------------------------------------ frames

    def frame(self, call: _Call) -> ForeignTable:
        """Read a DataFrame: float blocks of shape (columns of the block, rows)."""
        state = _dict(call.state if call.name == _FRAME else None, "a table")
        problem = "a table in it has no blocks on two axes"
        blocks, axes = _args(state.get("_mgr"), _BLOCK_MANAGER, (tuple, list), problem)
        _expect(len(axes) == 2, problem)
        names = self.once(self.columns, axes[0])
        times = self.once(self.times, axes[1])
        self.spend(_EACH * (len(names) + 1) + 8 * len(times) * len(names))
        values = np.empty((len(times), len(names)))
        unfilled, numbers = set(range(len(names))), set()
        for block in blocks:
            where, cells = self.block(block, len(times), len(names))
            _expect(unfilled.issuperset(where), "two blocks of a table claim the same column")
            unfilled.difference_update(where)
            if cells is not None:
                values[:, where] = cells.T
                numbers.update(where)
        _expect(not unfilled, "a column of a table has no values")
        if len(numbers) < len(names):
            values = values[:, sorted(numbers)]
        return ForeignTable(
            times,
            tuple(name for at, name in enumerate(names) if at in numbers),
            _locked(values),
            tuple(name for at, name in enumerate(names) if at not in numbers),
        )

    def block(
        self, call: Any, rows: int, columns: int
    ) -> tuple[list[int], NDArray[np.float64] | None]:
        """Read where a block belongs and its cells; None for cells that are no numbers."""
        parts = (_Call, _Call, object)
        cells, placement, _ = _args(call, _BLOCK, parts, "a block of a table is invalid")
        where = self.placement(placement, columns)
        if not self.may_be_numbers(cells):
            return where, None
        kind, array = self.array(cells)
        if kind not in _NUMBERS:
            return where, None
        _expect(array.shape == (len(where), rows), "a block of a table has the wrong shape")
        if array.dtype.kind in "iu" and bool(((array < -_EXACT) | (array > _EXACT)).any()):
            return where, None
        return where, array

    def may_be_numbers(self, cells: _Call) -> bool:
        """Return whether a block's cells should be an array of NumPy's."""
        return cells.name != _BACKED_ARRAY

    def placement(self, call: _Call, columns: int) -> list[int]:
        """Read the positions of a block's columns, a slice or an array."""
        where: Sequence[int]
        if call.name == "slice":
            bounds = _args(call, "slice", (int, int, int), _NO_PLACE)
            _expect(all(bound in _INT32 for bound in bounds), _NO_PLACE)
            where = range(bounds[0], bounds[1], bounds[2] or 1)
        else:
            kind, array = self.array(call)
            _expect(kind in ("i8", "i4") and array.ndim == 1, _NO_PLACE)
            where = array.tolist()
        _expect(len(where) <= columns and all(0 <= at < columns for at in where), _NO_PLACE)
        return list(where)

    def columns(self, call: _Call) -> tuple[str, ...]:
        labels = self.labels(_index_data(call, _NEW_INDEX))
        names = tuple(_text(label, "the name of a column") for label in labels)
        _expect(len(set(names)) == len(names), "two columns of a table have the same name")
        return names

    def labels(self, data: Any) -> Sequence[Any]:
        """Read what an index of names was made of."""
        kind, labels = self.array(_backing(data))
        _expect(kind == "O8", "the columns of a table are not named")
        return labels  # type: ignore[no-any-return]  # a list, where the kind is that

    def times(self, call: _Call) -> NDArray[np.int64]:
        """Read a DatetimeIndex; the time zone only changes how the same times are shown."""
        unit, ticks = self.array(_backing(_index_data(call, _NEW_DATETIME_INDEX)))
        _expect(unit in _UNITS and ticks.ndim == 1, "the index of a table holds no times")
        return _locked(_to_ms(ticks, unit))

    def array(self, call: Any) -> tuple[str, Any]:
        kind, content = _array(call)
        self.spend(8 * len(content) if kind not in _NUMBERS else content.size)
        return kind, content

    # ------------------------------------------------------------------ the rest

    def last_index(
        self, value: Any, tables: Mapping[str, ForeignTable], layout: str
    ) -> dict[str, int]:
        """Read the last times asked for; of several features the earliest counts for all."""
        if value is None:
            return {}
        _, entries, _ = _rebuilt(value, "its last index")
        read = {
            _text(name, "a name"): _timestamp_us(entry) // 1_000
            for name, entry in entries.items()
            if type(entry) is _Call and entry.name == _TIMESTAMP
        }
        if layout == "symbol_dict":
            return read
        return dict.fromkeys(tables, min(read.values())) if read else {}

    def metadata(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        known = ("data", "wrapper", "last_index", "fetch_kwargs")
        rest = {name: value for name, value in kwargs.items() if name not in known}
        _, _, attributes = _rebuilt(kwargs["wrapper"], "its wrapper")
        return self.plain_dict(rest | ({"wrapper": attributes} if attributes else {}))

    def plain_dict(self, value: Any) -> dict[str, Any]:
        read = self.plain(value) if value is not None else {}
        return read if type(read) is dict else {}

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Turn a description into plain values; `_ODD` where there are none for it."""
        self.plain_budget -= 1
        if depth > _MAX_DEPTH or self.plain_budget < 0:
            raise _UnreadableError("its settings are nested too deeply")
        if type(value) in _SCALARS:
            return value
        if type(value) in (memoryview, set):
            self.spend(len(value))
            return bytes(value) if type(value) is memoryview else set(value)
        if type(value) is dict:
            entries = {key: self.plain(entry, depth + 1) for key, entry in value.items()}
            return {key: entry for key, entry in entries.items() if entry is not _ODD}
        if type(value) in (list, tuple):
            items = [self.plain(item, depth + 1) for item in value]
            return _ODD if any(item is _ODD for item in items) else type(value)(items)
        return self.plain_call(value, depth) if type(value) is _Call else _ODD

    def plain_call(self, call: _Call, depth: int) -> Any:
        if call.name == _RECONSTRUCT:
            return self.plain(_rebuilt(call, "a setting")[1], depth + 1)
        if call.name == _TIMESTAMP:
            return _datetime(call)
        if call.name == _TIMEDELTA:
            return _timedelta(call)
        if call.name == _TIMEZONE:
            return _timezone(call)
        return _ODD


_ODD: Any = object()
"""In place of a plain value: there is none for this."""


_NO_PLACE = "a block of a table has no place in it"


def _expect(truth: bool, otherwise: str) -> None:
    if not truth:
        raise _UnreadableError(otherwise)


def _args(call: Any, name: str, kinds: tuple[type, ...], otherwise: str) -> tuple[Any, ...]:
    """Return the arguments of a call of `name`, each of its kind; of any where that is object."""
    _expect(type(call) is _Call and call.name == name, otherwise)
    return _parts(call.args, kinds, otherwise)


def _parts(value: Any, kinds: tuple[type, ...], otherwise: str) -> tuple[Any, ...]:
    """Return the parts of a tuple; kinds as for `_args`."""
    if type(value) is not tuple or len(value) != len(kinds):
        raise _UnreadableError(otherwise)
    pairs = zip(value, kinds, strict=True)
    _expect(all(kind in (object, type(part)) for part, kind in pairs), otherwise)
    return value


def _dict(value: Any, what: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise _UnreadableError(f"{what} does not have the expected form")
    return value


def _text(value: Any, what: str) -> str:
    if type(value) is not str:
        raise _UnreadableError(f"{what} is not text")
    return value


def _rebuilt(value: Any, what: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Read an object of VectorBT PRO, ``reconstruct(class_id, RecState)``.

    Returns
    -------
    (str, dict, dict)
        The class, its arguments, its attributes.
    """
    problem = f"{what} is not an object of VectorBT PRO"
    class_id, record = _args(value, _RECONSTRUCT, (str, _Call), problem)
    _expect(record.name == _REC_STATE, problem)
    state = _dict(record.state, what)
    return class_id, _dict(state.get("init_kwargs"), what), _dict(state.get("attr_dct"), what)


def _index_data(call: _Call, maker: str) -> Any:
    """Read what an Index was made of: ``maker(class, {"data": ..., "name": ...})``."""
    problem = "an axis of a table is not an index of the usual kind"
    return _args(call, maker, (object, dict), problem)[1].get("data")


def is_array(call: _Call) -> bool:
    return call.name == _CREATE_ARRAY or call.name in _RECONSTRUCT_ARRAY


def _array(call: Any) -> tuple[str, Any]:
    """Read a numpy array.

    Returns
    -------
    (str, array or list)
        One of `_NUMBERS` and an array of it; a unit of time and its ticks, int64;
        or ``"O8"`` and a list of scalars. Arrays share the file's bytes.
    """
    problem = "it has something else where an array belongs"
    _expect(type(call) is _Call and is_array(call), problem)
    state = call.state
    if call.name == _CREATE_ARRAY:  # of _reconstruct, its arguments, the state, attributes
        _, _, state, _ = _parts(call.args, (object,) * 4, problem)
    _, shape, dtype, fortran, content = _parts(state, (object, tuple, _Call, bool, object), problem)
    kind, stored = _dtype(dtype)
    dimensions = len(shape) in (1, 2) and all(type(s) is int and 0 <= s in _INT32 for s in shape)
    _expect(dimensions, "an array in it has no shape")
    size = prod(shape) * (1 if kind == "O8" else stored.itemsize)
    fits = type(content) is (list if kind == "O8" else memoryview) and len(content) == size
    _expect(fits, "an array in it has content of the wrong size")
    if kind != "O8":
        return kind, np.ndarray(shape, stored, content, order="F" if fortran else "C")
    plain = all(type(item) in _SCALARS for item in content)
    _expect(plain, "an array in it holds something other than plain values")
    return kind, content


def _dtype(call: Any) -> tuple[str, np.dtype[Any]]:
    """Read a dtype: its kind as `_array` gives it, and the dtype of the stored bytes."""
    _expect(type(call) is _Call and call.name == _DTYPE, "an array in it has no dtype")
    kind, state = call.args[0] if call.args else None, call.state
    named = repr(kind[:20]) if type(kind) is str else "without a name"
    problem = f"an array in it is of a type it cannot be: {named}"
    _expect(type(kind) is str and type(state) is tuple and len(state) > 1, problem)
    order = state[1]
    _expect(order in _BYTE_ORDERS, problem)
    if kind == "O8":
        return kind, np.dtype(object)
    if kind in _NUMBERS:
        return kind, np.dtype(order + kind)
    _expect(kind == "M8", problem)
    # numpy's way to write a unit of time: ({}, (b"ns", 1, 1, 1)).
    _, unit = _parts(state[-1], (object, tuple), problem)
    name, *multiples = _parts(unit, (memoryview, int, int, int), problem)
    known = next((one for one in _UNITS if name == one.encode()), "")
    _expect(known != "" and multiples == [1, 1, 1], problem)
    return known, np.dtype(order + "i8")


def _backing(data: Any) -> Any:
    """Return the array of NumPy's that one of pandas' own is made of: times, or texts."""
    if type(data) is not _Call or data.name != _BACKED_ARRAY:
        return data
    state = data.state if type(data.state) is tuple else ()
    # pandas has written the dtype and the array in either order.
    arrays = [part for part in state if type(part) is _Call and is_array(part)]
    return arrays[0] if len(arrays) == 1 else None


def _to_ms(ticks: NDArray[np.int64], unit: str) -> NDArray[np.int64]:
    ticks = ticks.astype(np.int64)  # a copy, in this machine's byte order
    _expect(not (ticks == _NOT_A_TIME).any(), "a row of a table has no time")
    if unit == "s":
        far = (np.abs(ticks) > _EXACT).any()
        _expect(not far, "a row of a table has a time that is out of range")
        return ticks * 1_000
    odd = (ticks % _PER_MS[unit]).any()
    _expect(not odd, "a row of a table has a time that is not a whole millisecond")
    return ticks // _PER_MS[unit]


def _timestamp_us(call: _Call) -> int:
    """Read ``_unpickle_timestamp(value, freq, tz, unit)``, as UTC epoch microseconds."""
    value, unit = call.args[:1], call.args[3:4] or (10,)
    if len(value) != 1 or type(value[0]) is not int or unit[0] not in tuple(_TICKS_PER_S):
        raise _UnreadableError("a time in it is invalid")
    if not -(1 << 63) < value[0] < 1 << 63:
        raise _UnreadableError("a time in it is out of range")
    return value[0] * 1_000_000 // _TICKS_PER_S[unit[0]]


def _datetime(call: _Call) -> datetime:
    try:
        moment = _EPOCH + timedelta(microseconds=_timestamp_us(call))
    except OverflowError:
        raise _UnreadableError("a time in it is out of range") from None
    return moment if call.args[2:3] != (None,) else moment.replace(tzinfo=None)


def _timedelta(call: Any) -> timedelta:
    try:
        days, seconds, microseconds = call.args if type(call) is _Call else ()
        return timedelta(days, seconds, microseconds)
    except (ValueError, TypeError, OverflowError):
        raise _UnreadableError("a duration in it is invalid") from None


def _timezone(call: _Call) -> timezone:
    try:
        return timezone(_timedelta(call.args[0] if call.args else None))
    except ValueError:
        raise _UnreadableError("a time zone in it is invalid") from None


def _locked(array: NDArray[_Item]) -> NDArray[_Item]:
    array.flags.writeable = False
    return array
