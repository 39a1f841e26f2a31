"""VectorBT PRO's ``.pickle.blosc`` files, read without running any code of theirs.

Three steps, each bounded by the bytes that are really there: unpack one Blosc2
chunk, run the pickle's opcodes on a machine that can build plain values and
*descriptions* of calls but has no way to make one, then look for tables in what
came out. Neither VectorBT PRO nor dill nor pandas is needed.

Why not `pickle.Unpickler` with a strict `find_class`: on CPython 3.11 a deeply
nested tuple used as a key ends the whole process, one opcode reserves memory for
2**32 memo entries, and BUILD sets attributes on whatever stand-ins it is given.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from backtester.data.candles import COLUMNS, Candles
from backtester.data.errors import CandleError, CorruptDatasetError, UnknownSymbolError
from backtester.data.model import format_ms

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ForeignData", "ForeignTable", "read_pro"]


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
        """Give the candles of one symbol, without the rows that only pad it.

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
                f"{symbol} has only a part of the candle of {format_ms(first)}"
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
    has = f"only {names}, as where closes alone were saved," if len(table.columns) == 1 else names
    raise CandleError(
        f"no candles of {symbol}: the file has {has} and no {', '.join(missing)}",
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
                f"{symbol} has two different candles of {format_ms(first)}",
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
    try:
        machine = _Machine(_unpack(memoryview(data).cast("B")))
        return _Reader(_SMALL + 4 * len(machine.data)).data(machine.run())
    except _UnreadableError as wrong:
        raise CorruptDatasetError(
            f"{source} cannot be read as a VectorBT PRO file: {wrong}",
            path=source,
            reason=str(wrong),
        ) from None


class _UnreadableError(Exception):
    """What is wrong with the file, in plain words."""


# --------------------------------------------------------------------------- the container

_HEADER = struct.Struct("<4B3i6B8B2B")
_CHUNK_FORMAT = 5
_CODECS = {0, 1, 3, 4}  # blosclz, lz4, zlib, zstd; others are looked up as plugins
_FILTERS = {0, 1, 2, 3, 4}  # none, shuffle, bitshuffle, delta, truncation; the same
_HARMLESS_SIZE = 16 << 20
_MAX_RATIO = 1000  # tables that are nearly all padding reach a few hundred


def _unpack(data: memoryview) -> memoryview:
    """Unpack one Blosc2 chunk, after its header has been found plausible.

    Notes
    -----
    The fields are those of `blosc2.h` (c-blosc2 3.3, "Offsets for fields in
    Blosc2 chunk header"). The library trusts the sizes and loads plugins for
    codecs and filters it does not know.
    """
    if len(data) < _HEADER.size:
        raise _UnreadableError(f"it has {len(data)} bytes, fewer than the header of a Blosc2 chunk")
    version, _, flags, item, unpacked, block, packed, *rest = _HEADER.unpack_from(data)
    if version != _CHUNK_FORMAT:
        raise _UnreadableError("it does not begin with a Blosc2 chunk")
    if not _HEADER.size < packed <= len(data):
        raise _UnreadableError(f"it has {len(data)} bytes where its header says {packed}")
    if not 0 < unpacked <= max(_HARMLESS_SIZE, _MAX_RATIO * packed):
        raise _UnreadableError(
            f"its header says that {packed} bytes unpack to {unpacked}, which is out of proportion"
        )
    plain = item and 0 < block <= unpacked and not any(rest[-2:])
    if not plain or flags >> 5 not in _CODECS or not _FILTERS.issuperset(rest[:6]):
        raise _UnreadableError("its Blosc2 header asks for what such files never use")
    import blosc2  # slow to import, and only needed here

    try:
        plain_bytes = blosc2.decompress2(data[:packed], nthreads=1)
    except (RuntimeError, ValueError):
        raise _UnreadableError("its compressed part is damaged") from None
    return memoryview(plain_bytes)


# --------------------------------------------------------------------------- the machine

_CREATE_ARRAY = "dill._dill._create_array"
_LOAD_TYPE = "dill._dill._load_type"
_TIMEDELTA = "datetime.timedelta"
_TIMEZONE = "datetime.timezone"
_DTYPE = "numpy.dtype"
_NDARRAY = "numpy.ndarray"
_RECONSTRUCT_ARRAY = {
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
}
_DATETIME_ARRAY = "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked"
_BLOCK = "pandas._libs.internals._unpickle_block"
_TIMESTAMP = "pandas._libs.tslibs.timestamps._unpickle_timestamp"
_FRAME = "pandas.core.frame.DataFrame"
_NEW_INDEX = "pandas.core.indexes.base._new_Index"
_NEW_DATETIME_INDEX = "pandas.core.indexes.datetimes._new_DatetimeIndex"
_BLOCK_MANAGER = "pandas.core.internals.managers.BlockManager"
_REC_STATE = "vectorbtpro.utils.pickling.RecState"
_RECONSTRUCT = "vectorbtpro.utils.pickling.reconstruct"
_OFFSETS = "pandas._libs.tslibs.offsets."

# Every name in 16 real files of May 2025: VectorBT PRO of that time, pandas 2, numpy 1 and 2.
_NAMES = {
    _CREATE_ARRAY, _LOAD_TYPE, _TIMEDELTA, _TIMEZONE, _DTYPE, _NDARRAY, *_RECONSTRUCT_ARRAY,
    _DATETIME_ARRAY, _BLOCK, _TIMESTAMP, _FRAME, _NEW_INDEX, _NEW_DATETIME_INDEX, _BLOCK_MANAGER,
    _REC_STATE, _RECONSTRUCT,
    "pandas.core.arrays.datetimes.DatetimeArray",
    "pandas.core.dtypes.dtypes.DatetimeTZDtype",
    "pandas.core.indexes.base.Index",
    "pandas.core.indexes.datetimes.DatetimeIndex",
    _OFFSETS + "Day",
    _OFFSETS + "Hour",
    # Not among them, but the same classes for the other timeframes.
    _OFFSETS + "Second",
    _OFFSETS + "Minute",
    _OFFSETS + "Week",
    _OFFSETS + "MonthBegin",
}  # fmt: skip

_MAX_STEPS = 2_000_000  # some 350 per symbol; an object costs up to 200 bytes
_INT32 = range(-(1 << 31), 1 << 31)


@dataclass(frozen=True, slots=True)
class _Name:
    """A global name the file mentions."""

    text: str


@dataclass(slots=True, eq=False)
class _Call:
    """A call the file asks for. Nobody makes it."""

    name: str
    args: tuple[Any, ...]
    state: Any = None


class _Machine:
    """Runs the opcodes these files are made of, and no others.

    What can be on the stack: None, bools, numbers, text, bytes, lists, tuples,
    dictionaries and sets with scalar keys, `_Name` and `_Call`.
    """

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []

    def run(self) -> Any:
        """Give the value the pickle describes."""
        if bytes(self.data[:2]) not in (b"\x80\x04", b"\x80\x05"):
            raise _UnreadableError("it holds no pickle of protocol 4")
        try:
            for _ in range(_MAX_STEPS):
                opcode = self.take(1)[0]
                if opcode == _STOP:
                    return self.stack.pop()
                _OPCODES[opcode](self)
        except KeyError:
            raise _UnreadableError(
                f"it uses the pickle opcode {opcode:#04x}, which such files never do"
            ) from None
        except IndexError:  # of an empty stack, or of a memo entry that is not there
            raise _UnreadableError("its pickle takes more than it has put down") from None
        raise _UnreadableError(f"its pickle has more than {_MAX_STEPS} steps")

    def take(self, size: int) -> memoryview:
        """Give the next bytes of the pickle."""
        taken = self.data[self.at : self.at + size]
        if len(taken) != size:
            raise _UnreadableError("its pickle is cut short")
        self.at += size
        return taken

    def take_int(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def take_text(self, prefix: int) -> str:
        try:
            return str(self.take(self.take_int(prefix)), "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise _UnreadableError("a text in it is not UTF-8") from None

    def take_marked(self) -> list[Any]:
        """Give what was put down since the last mark."""
        return self.take_last(len(self.stack) - self.marks.pop())

    def take_last(self, size: int) -> list[Any]:
        """Give the topmost values, the top one last."""
        first = len(self.stack) - size
        if not 0 <= first <= len(self.stack):
            raise IndexError
        items = self.stack[first:]
        del self.stack[first:]
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise _UnreadableError("it appends to something that is no list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise _UnreadableError("it sets items of something that is no dictionary")
        target.update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def add_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            raise _UnreadableError("it adds to something that is no set")
        target.update(map(_key, items))

    def name(self) -> None:
        module, name = self.take_last(2)
        text = f"{module}.{name}" if type(module) is type(name) is str else ""
        if text not in _NAMES:
            raise _UnreadableError(f"it asks for {text[:80]!r}, which such files never need")
        self.push(_Name(text))

    def call(self) -> None:
        what, args = self.take_last(2)
        if type(args) is not tuple:
            raise _UnreadableError("it calls something without arguments")
        if type(what) is _Name:
            self.push(_Call(what.text, args))
        elif type(what) is _Call and what.name == _LOAD_TYPE and what.args == ("slice",):
            self.push(_Call("slice", args))
        else:
            raise _UnreadableError("it calls something that is no name")

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is not _Call or target.state is not None:
            raise _UnreadableError("it sets the state of something that takes none")
        target.state = state


def _key(key: Any) -> Any:
    """Let only keys through whose hash is cheap and cannot be made to collide."""
    if key is None or type(key) in (str, bool) or (type(key) is int and key in _INT32):
        return key
    raise _UnreadableError("it has a key that is neither text nor a small number")


_STOP = ord(".")
_OPCODES: dict[int, Callable[[_Machine], object]] = {
    0x80: lambda m: m.take(1),  # PROTO
    0x95: lambda m: m.take(8),  # FRAME: how far to read ahead
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),  # NEWTRUE
    0x89: lambda m: m.push(False),  # NEWFALSE
    ord("K"): lambda m: m.push(m.take_int(1)),
    ord("M"): lambda m: m.push(m.take_int(2)),
    ord("J"): lambda m: m.push(m.take_int(4, signed=True)),
    0x8A: lambda m: m.push(m.take_int(m.take_int(1), signed=True)),  # LONG1
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    0x8C: lambda m: m.push(m.take_text(1)),  # SHORT_BINUNICODE
    ord("X"): lambda m: m.push(m.take_text(4)),
    ord("C"): lambda m: m.push(m.take(m.take_int(1))),
    ord("B"): lambda m: m.push(m.take(m.take_int(4))),
    ord(")"): lambda m: m.push(()),
    0x85: lambda m: m.push(tuple(m.take_last(1))),  # TUPLE1
    0x86: lambda m: m.push(tuple(m.take_last(2))),
    0x87: lambda m: m.push(tuple(m.take_last(3))),
    ord("t"): lambda m: m.push(tuple(m.take_marked())),
    ord("]"): lambda m: m.push([]),
    ord("a"): lambda m: m.append(m.take_last(1)),
    ord("e"): lambda m: m.append(m.take_marked()),
    ord("}"): lambda m: m.push({}),
    ord("s"): lambda m: m.set_items(m.take_last(2)),
    ord("u"): lambda m: m.set_items(m.take_marked()),
    0x8F: lambda m: m.push(set()),  # EMPTY_SET
    0x90: lambda m: m.add_items(m.take_marked()),  # ADDITEMS
    0x94: lambda m: m.memo.append(m.stack[-1]),  # MEMOIZE
    ord("h"): lambda m: m.push(m.memo[m.take_int(1)]),
    ord("j"): lambda m: m.push(m.memo[m.take_int(4)]),
    0x93: lambda m: m.name(),  # STACK_GLOBAL
    ord("R"): lambda m: m.call(),
    0x81: lambda m: m.call(),  # NEWOBJ
    ord("b"): lambda m: m.build(),
}


# --------------------------------------------------------------------------- the tables

_NUMBERS = {"f8", "f4", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"}
_BYTE_ORDERS = ("<", ">", "|", "=")
_PER_MS = {"ns": 1_000_000, "us": 1_000, "ms": 1}
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


class _Reader:
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
            raise _UnreadableError(f"it holds no market data but {class_id[:80]!r}")
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
            raise _UnreadableError(f"its data stand in an unknown layout, {layout_id[:80]!r}")
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
            raise _UnreadableError("a table in it is not what it should be")
        key = (read.__name__, id(call))
        if key not in self.seen:
            self.seen[key] = call, read(call)
        return self.seen[key][1]

    def spend(self, size: int) -> None:
        self.budget -= size
        if self.budget < 0:
            raise _UnreadableError("it claims to hold more than it has bytes for")

    def by_symbol(self, frames: Mapping[str, ForeignTable]) -> dict[str, ForeignTable]:
        """Turn a table per feature, symbols in columns, into one per symbol."""
        features = list(frames.values())
        if not features:
            return {}
        times = features[0].open_time
        if any(not np.array_equal(f.open_time, times) for f in features):
            raise _UnreadableError("its features have different times")
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
        manager = state.get("_mgr")
        if type(manager) is not _Call or manager.name != _BLOCK_MANAGER or len(manager.args) != 2:
            raise _UnreadableError("a table in it has no blocks")
        blocks, axes = manager.args
        if type(blocks) is not tuple or type(axes) is not list or len(axes) != 2:
            raise _UnreadableError("a table in it has no two axes")
        names = self.once(self.columns, axes[0])
        times = self.once(self.times, axes[1])
        self.spend(_EACH * (len(names) + 1) + 8 * len(times) * len(names))
        values = np.empty((len(times), len(names)))
        unfilled, numbers = set(range(len(names))), set()
        for block in blocks:
            where, cells = self.block(block, len(times), len(names))
            if not unfilled.issuperset(where):
                raise _UnreadableError("two blocks of a table claim the same column")
            unfilled.difference_update(where)
            if cells is not None:
                values[:, where] = cells.T
                numbers.update(where)
        if unfilled:
            raise _UnreadableError("a column of a table has no values")
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
        if type(call) is not _Call or call.name != _BLOCK or len(call.args) != 3:
            raise _UnreadableError("a block of a table is not one")
        cells, placement, _ = call.args
        where = self.placement(placement, columns)
        if type(cells) is _Call and cells.name == _DATETIME_ARRAY:
            return where, None
        kind, array = self.array(cells)
        if kind not in _NUMBERS:
            return where, None
        if array.shape != (len(where), rows):
            raise _UnreadableError(
                f"a block of shape {array.shape} stands where {(len(where), rows)} is needed"
            )
        if array.dtype.kind in "iu" and bool(((array < -_EXACT) | (array > _EXACT)).any()):
            return where, None
        return where, array

    def placement(self, call: Any, columns: int) -> list[int]:
        """Read the positions of a block's columns, a slice or an array."""
        if type(call) is _Call and call.name == "slice":
            bounds = call.args
            if len(bounds) != 3 or any(type(b) is not int or b not in _INT32 for b in bounds):
                raise _UnreadableError("a block of a table has no place")
            where: Sequence[int] = range(bounds[0], bounds[1], bounds[2] or 1)
        else:
            kind, array = self.array(call)
            if kind not in ("i8", "i4") or array.ndim != 1:
                raise _UnreadableError("a block of a table has no place")
            where = array.astype(np.int64).tolist()
        if len(where) > columns or any(not 0 <= at < columns for at in where):
            raise _UnreadableError("a block of a table is placed outside of it")
        return list(where)

    def columns(self, call: _Call) -> tuple[str, ...]:
        kind, names = self.array(_index_data(call, _NEW_INDEX))
        if kind != "O8" or len(set(names)) != len(names):
            raise _UnreadableError("the columns of a table are not named, or twice the same")
        return tuple(_text(name, "the name of a column") for name in names)

    def times(self, call: _Call) -> NDArray[np.int64]:
        """Read a DatetimeIndex; the time zone only changes how the same times are shown."""
        inner = _index_data(call, _NEW_DATETIME_INDEX)
        if type(inner) is _Call and inner.name == _DATETIME_ARRAY:
            state = inner.state if type(inner.state) is tuple else ()
            # pandas has written the dtype and the array in either order.
            arrays = [part for part in state if type(part) is _Call and _is_array(part)]
            inner = arrays[0] if len(arrays) == 1 else None
        unit, ticks = self.array(inner)
        if (unit not in _PER_MS and unit != "s") or ticks.ndim != 1:
            raise _UnreadableError("the index of a table holds no times")
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
            raise _UnreadableError("its settings are nested without end")
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


def _dict(value: Any, what: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise _UnreadableError(f"{what} is not what it should be")
    return value


def _text(value: Any, what: str) -> str:
    if type(value) is not str:
        raise _UnreadableError(f"{what} is not text")
    return value


def _rebuilt(value: Any, what: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Read ``reconstruct(class_id, RecState)``: the class, its arguments, its attributes."""
    if type(value) is not _Call or value.name != _RECONSTRUCT or len(value.args) != 2:
        raise _UnreadableError(f"{what} is not an object of VectorBT PRO")
    class_id, record = value.args
    if type(record) is not _Call or record.name != _REC_STATE:
        raise _UnreadableError(f"{what} has no state")
    state = _dict(record.state, what)
    return (
        _text(class_id, "the name of a class"),
        _dict(state.get("init_kwargs"), what),
        _dict(state.get("attr_dct"), what),
    )


def _index_data(call: _Call, maker: str) -> Any:
    """Read what an Index was made of: ``maker(class, {"data": ..., "name": ...})``."""
    if call.name != maker or len(call.args) != 2:
        raise _UnreadableError("an axis of a table is not an index of the usual kind")
    return _dict(call.args[1], "an axis of a table").get("data")


def _is_array(call: _Call) -> bool:
    return call.name == _CREATE_ARRAY or call.name in _RECONSTRUCT_ARRAY


def _array(call: Any) -> tuple[str, Any]:
    """Read a numpy array.

    Returns
    -------
    (str, array or list)
        One of `_NUMBERS` and an array of it; a unit of time and its ticks, int64;
        or ``"O8"`` and a list of scalars. Arrays share the file's bytes.
    """
    shape, dtype, fortran, content = _array_state(call)
    kind, stored = _dtype(dtype)
    if kind == "O8":
        if type(content) is not list or any(type(item) not in _SCALARS for item in content):
            raise _UnreadableError("an array in it holds something else than plain values")
        size = prod(shape)
    else:
        if type(content) is not memoryview:
            raise _UnreadableError("an array in it has no bytes")
        size = prod(shape) * stored.itemsize
    if len(content) != size:
        raise _UnreadableError(f"an array of shape {shape} has the bytes of another shape")
    if kind == "O8":
        return kind, content
    return kind, np.ndarray(shape, stored, content, order="F" if fortran else "C")


def _array_state(call: Any) -> tuple[tuple[int, ...], Any, bool, Any]:
    """Read what a numpy array is restored from: shape, dtype, column order, content."""
    if type(call) is not _Call or not _is_array(call):
        raise _UnreadableError("it has something else where an array belongs")
    state = call.state
    if call.name == _CREATE_ARRAY:  # (_reconstruct, its arguments, the state, attributes)
        state = call.args[2] if len(call.args) == 4 else None
    if type(state) is not tuple or len(state) != 5:
        raise _UnreadableError("an array in it has no content")
    _, shape, dtype, fortran, content = state
    if type(shape) is not tuple or any(type(s) is not int or s not in _INT32 for s in shape):
        raise _UnreadableError("an array in it has no shape")
    if len(shape) not in (1, 2) or min(shape) < 0:
        raise _UnreadableError(f"an array in it has the shape {str(shape)[:80]}")
    return shape, dtype, fortran is True, content


def _dtype(call: Any) -> tuple[str, np.dtype[Any]]:
    """Read a dtype: its kind as `_array` gives it, and the dtype of the stored bytes."""
    if type(call) is not _Call or call.name != _DTYPE or type(call.state) is not tuple:
        raise _UnreadableError("an array in it has no type")
    kind, order = call.args[0] if call.args else None, call.state[1:2]
    if order and order[0] in _BYTE_ORDERS:
        if kind == "O8":
            return kind, np.dtype(object)
        if type(kind) is str and kind in _NUMBERS:
            return kind, np.dtype(order[0] + kind)
        unit = _unit(call.state[-1]) if kind == "M8" else None
        if unit is not None:
            return unit, np.dtype(order[0] + "i8")
    named = repr(kind[:20]) if type(kind) is str else "without a name"
    raise _UnreadableError(f"an array in it is of a type it cannot be: {named}")


def _unit(details: Any) -> str | None:
    """Read ``({}, (b"ns", 1, 1, 1))``, numpy's way to write a unit of time."""
    if type(details) is not tuple or len(details) != 2 or type(details[1]) is not tuple:
        return None
    name, multiples = details[1][:1], details[1][1:]
    if not name or type(name[0]) is not memoryview or multiples != (1, 1, 1):
        return None
    return next((unit for unit in ("s", *_PER_MS) if bytes(name[0]) == unit.encode()), None)


def _to_ms(ticks: NDArray[np.int64], unit: str) -> NDArray[np.int64]:
    ticks = ticks.astype(np.int64)  # a copy, in this machine's byte order
    if len(ticks) and int(ticks.min()) == _NOT_A_TIME:
        raise _UnreadableError("a row of a table has no time")
    if unit == "s":
        if bool((np.abs(ticks) > _EXACT).any()):
            raise _UnreadableError("a row of a table has a time beyond all times")
        return ticks * 1_000
    if bool((ticks % _PER_MS[unit]).any()):
        raise _UnreadableError("a row of a table has a time between two milliseconds")
    return ticks // _PER_MS[unit]


def _timestamp_us(call: _Call) -> int:
    """Read ``_unpickle_timestamp(value, freq, tz, unit)``, as UTC epoch microseconds."""
    value, unit = call.args[:1], call.args[3:4] or (10,)
    if len(value) != 1 or type(value[0]) is not int or unit[0] not in tuple(_TICKS_PER_S):
        raise _UnreadableError("a time in it is not one")
    if not -(1 << 63) < value[0] < 1 << 63:
        raise _UnreadableError("a time in it is beyond all times")
    return value[0] * 1_000_000 // _TICKS_PER_S[unit[0]]


def _datetime(call: _Call) -> datetime:
    try:
        moment = _EPOCH + timedelta(microseconds=_timestamp_us(call))
    except OverflowError:
        raise _UnreadableError("a time in it is beyond all times") from None
    return moment if call.args[2:3] != (None,) else moment.replace(tzinfo=None)


def _timedelta(call: Any) -> timedelta:
    try:
        days, seconds, microseconds = call.args if type(call) is _Call else ()
        return timedelta(days, seconds, microseconds)
    except (ValueError, TypeError, OverflowError):
        raise _UnreadableError("a length of time in it is not one") from None


def _timezone(call: _Call) -> timezone:
    try:
        return timezone(_timedelta(call.args[0] if call.args else None))
    except ValueError:
        raise _UnreadableError("a time zone in it is not one") from None


def _locked(array: NDArray[_Item]) -> NDArray[_Item]:
    array.flags.writeable = False
    return array
