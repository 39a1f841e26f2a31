"""Plain data as one compressed pickle, and reading it without trusting it.

A file of ours is one Blosc2 chunk around the pickle of a single call,
``rebuild_data(payload)``, where the payload is made of plain types only. So any
Python with this package reads it with ``pickle.loads(blosc2.decompress(file))``
and gets a VectorBT Data object, while `unpack` gets the payload without pickle,
without VectorBT and without running anything the file names.

`unpack` does not use `pickle.Unpickler`: its `find_class` can be guarded, its machine
cannot. A dozen bytes (a memo index near 2**31) make it touch gigabytes, and a deeply
nested tuple used as a key overflows the C stack, which ends the process. `_Reader`
knows the opcodes of plain types, one global name that it never looks up, and nothing
else.

A payload, format 1::

    {'format': 1, 'kind': 'dataset' | 'data',
     'exchange': str | None, 'market_type': str | None, 'timeframe': str | None,
     'columns': ['Open', 'High', 'Low', 'Close', 'Volume'],
     'metadata': {...},
     'series': {symbol: {'open_time': int64 bytes, 'values': float64 bytes, column after column,
                         'coverage': [[start, end, served, asked_ms], ...],
                         'revisions': [[open_time, old, new, old_asked_ms, new_asked_ms], ...]}},
     'view': None | {...}}    # what a saved Data object needs beyond its series

All numbers in bytes are little-endian; all times UTC epoch milliseconds.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from backtester.data.candles import COLUMNS, Candles, Revision, Series
from backtester.data.errors import (
    CandleError,
    CorruptDatasetError,
    DatasetTooLargeError,
    DatasetWriteError,
)
from backtester.data.model import Coverage, Served, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FORMAT",
    "HEADER_SIZE",
    "check_payload",
    "chunk_length",
    "dataset_payload",
    "decompress",
    "dump",
    "pack",
    "parse",
    "rebuild_data",
    "series_from_plain",
    "series_of",
    "series_to_plain",
    "unpack",
]

FORMAT = 1
HEADER_SIZE = 32
"""Length of a Blosc2 chunk's header in bytes."""

_LIMIT = 2**31 - 1 - HEADER_SIZE  # Blosc2 counts both sizes of a chunk in an int32
_ROOM = 64 * 2**20  # no file is a bomb that unpacks to this or less
_RATIO = 128  # real candles shrink 2 to 10 times; `pack` stores what would shrink more
_DEPTH = 64
_INT_BITS = 2000  # pickle's short form of an integer, the only one `_Reader` knows
_FLOAT = struct.Struct(">d")
_LEVEL = 1
"""Measured on 14 files of real candles: higher levels gain 1 to 5 % in size and write 3 to
40 times longer. Shuffling bits rather than bytes is as small and is read twice as fast."""


def rebuild_data(payload: dict[str, Any]) -> Any:
    """Give the VectorBT Data object of a payload: what a plain `pickle.loads` calls.

    Returns
    -------
    backtester.data.vbt_adapter.Data

    Raises
    ------
    CorruptDatasetError
        The payload is not one of ours.
    """
    from backtester.data import vbt_adapter  # VectorBT takes seconds to import

    return vbt_adapter.rebuild(payload)


class _Call:
    """Pickles as a call of `rebuild_data`; exists only while a file is written."""

    def __init__(self, payload: dict[str, Any]) -> None:
        self._payload = payload

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[dict[str, Any]]]:
        return rebuild_data, (self._payload,)


# --------------------------------------------------------------------------- writing


def pack(payload: Mapping[str, Any]) -> bytes:
    """Write a payload as one Blosc2 chunk (zstd over shuffled bits).

    Parameters
    ----------
    payload : dict
        As in the module's docstring. Subclasses of plain types and NumPy scalars
        become plain.

    Returns
    -------
    bytes
        `unpack` gives the same payload back.

    Raises
    ------
    DatasetTooLargeError
        Over 2 GiB, more than a chunk can hold; raised before anything is compressed.
    DatasetWriteError
        The payload holds something that is not plain, or not a payload's shape.
    """
    import blosc2

    raw = dump(payload)
    chunk = bytes(_compress(blosc2, raw, _LEVEL))
    if not _plausible(len(raw), len(chunk)):
        # So repetitive that `unpack` would take it for a bomb: store it as it is.
        chunk = bytes(_compress(blosc2, raw, 0))
    return chunk


def _compress(blosc2: Any, raw: bytes, level: int) -> Any:
    return blosc2.compress2(
        raw,
        codec=blosc2.Codec.ZSTD,
        clevel=level,
        typesize=8,
        filters=[blosc2.Filter.BITSHUFFLE],
        filters_meta=[0],
    )


def dump(payload: Mapping[str, Any]) -> bytes:
    """Write a payload as an uncompressed pickle, protocol 4; errors as in `pack`."""
    size = _bytes_within(payload)
    if size <= _LIMIT:
        plain: dict[str, Any] = _plain(payload)
        try:
            check_payload(plain)
        except CorruptDatasetError as error:
            raise DatasetWriteError(f"cannot be written: {error}", path=None) from error
        _share_times(plain["series"].values())
        raw = pickle.dumps(_Call(plain), protocol=4)
        if (size := len(raw)) <= _LIMIT:
            return raw
    raise DatasetTooLargeError(
        f"the data take {size / 2**30:.1f} GiB; a file of this format holds less than 2 GiB. "
        "Keep fewer symbols or a shorter range in it, or use another store",
        size=size,
    )


def _bytes_within(payload: Mapping[str, Any]) -> int:
    """Count the bytes of the arrays, without copying any."""
    series = payload.get("series")
    entries = series.values() if isinstance(series, Mapping) else ()
    return sum(
        len(value)
        for entry in entries
        if isinstance(entry, Mapping)
        for value in entry.values()
        if isinstance(value, bytes)
    )


def _plain(value: Any, depth: int = 0) -> Any:
    """Copy a value into exact plain types, each container its own object.

    `_Reader` refuses a container that is referred to twice, so none may be written.
    """
    if type(value) in _ATOMS:
        if type(value) is int and value.bit_length() > _INT_BITS:
            raise _not_plain("an enormous integer")
        return value
    if depth > _DEPTH:
        raise _not_plain("something nested too deep, or inside itself")
    if isinstance(value, Mapping):
        copy = {_plain(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
        if not all(map(_is_key, copy)):
            raise _not_plain("a key that is neither a plain value nor a tuple of some")
        return copy
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, tuple):
        return tuple([_plain(item, depth + 1) for item in value])
    if isinstance(value, np.generic):
        return _plain(value.item(), depth + 1)
    if isinstance(value, str):  # such as a member of a StrEnum
        return str.__str__(value)
    for base in (int, float):
        if isinstance(value, base):
            return base(value)
    raise _not_plain(f"a {type(value).__name__}")


def _not_plain(what: str) -> DatasetWriteError:
    return DatasetWriteError(
        f"the data cannot be written: they hold {what}; only plain types are kept", path=None
    )


def _share_times(entries: Iterable[dict[str, Any]]) -> None:
    """Let symbols with equal open times share one object: it is written once."""
    seen: dict[tuple[int, bytes, bytes], bytes] = {}
    for entry in entries:
        times = entry["open_time"]
        known = seen.setdefault((len(times), times[:8], times[-8:]), times)
        if known == times:
            entry["open_time"] = known


# --------------------------------------------------------------------------- the chunk


def unpack(chunk: bytes | memoryview, source: str = "the data") -> dict[str, Any]:
    """Read a payload back from exactly one chunk, trusting nothing in it.

    Parameters
    ----------
    chunk : bytes or memoryview
        The chunk alone. Where more follows it, cut it first: `chunk_length`.
    source : str
        What the error calls the file, usually its path.

    Returns
    -------
    dict
        A checked payload, see `check_payload`.

    Raises
    ------
    CorruptDatasetError
        For anything else than what `pack` writes; `path` is `source`.
    """
    return parse(decompress(chunk, source), source)


def decompress(chunk: bytes | memoryview, source: str = "the data") -> bytes:
    """Decompress exactly one Blosc2 chunk; errors as in `unpack`."""
    view = memoryview(chunk).cast("B")
    length = chunk_length(view[:HEADER_SIZE], source)
    if length != len(view):
        problem = "is cut short" if length > len(view) else "has something behind its end"
        _refuse(source, f"the chunk {problem}: {len(view)} bytes, {length} by its header")
    import blosc2

    try:
        raw = blosc2.decompress2(view)
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        _refuse(source, f"the chunk does not decompress ({error})", error)
    if not isinstance(raw, bytes) or len(raw) != _int32(view, 4):
        _refuse(source, "the chunk does not decompress to the size its header names")
    return raw


def chunk_length(header: bytes | memoryview, source: str = "the data") -> int:
    """Give the length of the chunk that begins with this 32-byte header.

    Every field that decides what the decompressor allocates, or which code it runs,
    is checked here: sizes, codec and filters. Blosc2 looks for codecs it does not know
    among the installed packages, by starting Python; no file shall make it do that.

    Raises
    ------
    CorruptDatasetError
        Not the header of an ordinary Blosc2 chunk, or one that unpacks to too much.

    Notes
    -----
    Layout: c-blosc2's README_CHUNK_FORMAT.rst. Byte 0 format, 2 flags, 3 type size,
    int32 at 4 unpacked size, 8 block size, 12 packed size, 16-21 filters, 22 codec,
    31 more flags.
    """
    if len(header) < HEADER_SIZE:
        _refuse(source, f"only {len(header)} bytes, less than a header")
    size, block, length = _int32(header, 4), _int32(header, 8), _int32(header, 12)
    known = (
        header[0] == 5
        and header[2] >> 5 in (0, 1, 3, 4)  # blosclz, lz4, zlib, zstd
        and header[3] > 0
        and set(header[16:22]) <= {0, 1, 2}  # none, shuffle, bit shuffle
        and header[22] <= 5
        and header[31] == 0  # neither lazy nor a run of one value
    )
    if not known:
        _refuse(source, "not a Blosc2 chunk of the kind this package writes or reads")
    if size < 0 or length < HEADER_SIZE or not 0 < block <= max(size, 1):
        _refuse(source, "the sizes in the chunk's header contradict each other")
    if not _plausible(size, length):
        _refuse(source, f"{length} bytes would unpack to {size}: that is no candle data")
    return length


def _plausible(size: int, length: int) -> bool:
    return size <= _LIMIT and size <= max(_ROOM, _RATIO * length)


def _int32(view: bytes | memoryview, at: int) -> int:
    return int.from_bytes(view[at : at + 4], "little", signed=True)


def _refuse(source: str, reason: str, cause: BaseException | None = None) -> NoReturn:
    raise CorruptDatasetError(f"{source}: {reason}", path=source) from cause


# --------------------------------------------------------------------------- the pickle


def parse(raw: bytes, source: str = "the data") -> dict[str, Any]:
    """Read a payload from an uncompressed pickle; errors as in `unpack`."""
    try:
        payload = _Reader(raw).read()
    except _Unreadable as error:
        _refuse(source, f"not a pickle of plain data: {error}")
    except (LookupError, ValueError, TypeError, OverflowError, MemoryError) as error:
        # What a damaged opcode or length leads to: an operand missing, or of another type.
        _refuse(source, f"the pickle is damaged ({type(error).__name__})", error)
    return check_payload(payload, source)


class _Unreadable(Exception):  # noqa: N818  # never leaves this module
    pass


class _Name:
    """Stands on the reader's stack where pickle would put the function."""


_ATOMS = frozenset({str, bytes, int, float, bool, type(None)})
_REDUCE, _STOP = pickle.REDUCE[0], pickle.STOP[0]


def _is_key(key: Any) -> bool:
    return type(key) in _ATOMS or (type(key) is tuple and all(type(item) in _ATOMS for item in key))


class _Reader:
    """Reads the pickle of one `rebuild_data(payload)` call and gives the payload.

    Builds a tree: no container is ever referred to twice, so whoever walks it does
    work in proportion to the file. Opcodes: Python's `Lib/pickletools.py`.
    """

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 2
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # stacks below open marks
        self._memo: list[Any] = []

    def read(self) -> Any:
        raw, operations = self._raw, _OPERATIONS
        if raw[:1] != pickle.PROTO or raw[1] not in (4, 5):
            raise _Unreadable("it does not begin like one")
        while (code := raw[self._at]) != _REDUCE:
            self._at += 1
            operation = operations.get(code)
            if operation is None:
                raise _Unreadable(f"opcode {bytes([code])!r} is not one of plain data")
            operation(self)
        # The call is the last thing but its own memo entry; nothing can hold its result.
        if raw[self._at + 1 :] not in (pickle.STOP, pickle.MEMOIZE + pickle.STOP):
            raise _Unreadable("it goes on after its one call")
        if self._outer or len(self._stack) != 2 or type(self._stack[0]) is not _Name:
            raise _Unreadable("it is not one call")
        (payload,) = self._stack[1]
        return payload

    # Operands. A slice beyond the end is short rather than an error: so `take`.

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._raw):
            raise _Unreadable("it is cut short")
        taken = self._raw[self._at : end]
        self._at = end
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def cut_to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    # Operations, by what they build.

    def atom(self, value: Any) -> None:
        self._stack.append(value)

    def text(self, width: int) -> None:
        # As pickle writes it: a lone surrogate in a name must come back too.
        self.atom(self.take(self.number(width)).decode("utf-8", "surrogatepass"))

    def data(self, width: int) -> None:
        self.atom(self.take(self.number(width)))

    def mark(self) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def memoize(self) -> None:
        self._memo.append(self._stack[-1])

    def get(self, width: int) -> None:
        value = self._memo[self.number(width)]
        if type(value) not in _ATOMS:
            raise _Unreadable("a container is referred to twice")
        self.atom(value)

    def append(self) -> None:
        value = self._stack.pop()
        self._list().append(value)

    def appends(self) -> None:
        items = self.cut_to_mark()
        self._list().extend(items)

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key], [value])

    def set_items(self) -> None:
        items = self.cut_to_mark()
        self._set(items[::2], items[1::2])

    def pack(self, count: int) -> None:
        if len(self._stack) < count:
            raise _Unreadable("a value is missing")
        items = self._stack[-count:]
        del self._stack[-count:]
        self.atom(tuple(items))

    def pack_to_mark(self) -> None:
        self.atom(tuple(self.cut_to_mark()))

    def name(self) -> None:
        if self._outer or self._stack != [rebuild_data.__module__, rebuild_data.__qualname__]:
            named = ".".join(part for part in self._stack[-2:] if type(part) is str)
            raise _Unreadable(f"it names {named!r:.80}, which a file of ours does not")
        self._stack = [_Name()]

    def _list(self) -> list[Any]:
        if type(self._stack[-1]) is not list:
            raise _Unreadable("an item without its list")
        return self._stack[-1]

    def _set(self, keys: list[Any], values: list[Any]) -> None:
        if type(self._stack[-1]) is not dict or not all(map(_is_key, keys)):
            raise _Unreadable("an item without its dictionary, or with a key that is not plain")
        self._stack[-1].update(zip(keys, values, strict=True))


_OPERATIONS: dict[int, Callable[[_Reader], None]] = {
    code[0]: operation
    for code, operation in {
        pickle.FRAME: lambda r: r.take(8),
        pickle.MARK: _Reader.mark,
        pickle.MEMOIZE: _Reader.memoize,
        pickle.BINGET: lambda r: r.get(1),
        pickle.LONG_BINGET: lambda r: r.get(4),
        pickle.NONE: lambda r: r.atom(None),
        pickle.NEWTRUE: lambda r: r.atom(True),
        pickle.NEWFALSE: lambda r: r.atom(False),
        pickle.BININT1: lambda r: r.atom(r.number(1)),
        pickle.BININT2: lambda r: r.atom(r.number(2)),
        pickle.BININT: lambda r: r.atom(int.from_bytes(r.take(4), "little", signed=True)),
        pickle.LONG1: lambda r: r.atom(int.from_bytes(r.take(r.number(1)), "little", signed=True)),
        pickle.BINFLOAT: lambda r: r.atom(_FLOAT.unpack(r.take(8))[0]),
        pickle.SHORT_BINUNICODE: lambda r: r.text(1),
        pickle.BINUNICODE: lambda r: r.text(4),
        pickle.BINUNICODE8: lambda r: r.text(8),
        pickle.SHORT_BINBYTES: lambda r: r.data(1),
        pickle.BINBYTES: lambda r: r.data(4),
        pickle.BINBYTES8: lambda r: r.data(8),
        pickle.EMPTY_DICT: lambda r: r.atom({}),
        pickle.SETITEM: _Reader.set_item,
        pickle.SETITEMS: _Reader.set_items,
        pickle.EMPTY_LIST: lambda r: r.atom([]),
        pickle.APPEND: _Reader.append,
        pickle.APPENDS: _Reader.appends,
        pickle.EMPTY_TUPLE: lambda r: r.atom(()),
        pickle.TUPLE1: lambda r: r.pack(1),
        pickle.TUPLE2: lambda r: r.pack(2),
        pickle.TUPLE3: lambda r: r.pack(3),
        pickle.TUPLE: _Reader.pack_to_mark,
        pickle.STACK_GLOBAL: _Reader.name,
    }.items()
}


# --------------------------------------------------------------------------- the payload

_PARTS = {
    "format": int,
    "kind": str,
    "exchange": (str, type(None)),
    "market_type": (str, type(None)),
    "timeframe": (str, type(None)),
    "columns": list,
    "metadata": dict,
    "series": dict,
    "view": (dict, type(None)),
}
_SERIES_PARTS = {"open_time": bytes, "values": bytes, "coverage": list, "revisions": list}


def check_payload(payload: Any, source: str = "the data") -> dict[str, Any]:
    """Check that a payload has the shape of format 1, and give it back.

    What stands inside a series is checked by `series_from_plain`, inside a view by
    `vbt_adapter.rebuild`.

    Raises
    ------
    CorruptDatasetError
        Saying what is wrong; `path` is `source`.
    """
    version = payload.get("format") if isinstance(payload, dict) else None
    if type(version) is int and version != FORMAT:
        _refuse(source, f"its format is {version}; this version reads format {FORMAT}")
    if not _has_parts(payload, _PARTS) or payload["kind"] not in ("dataset", "data"):
        _refuse(source, "not a dataset: its parts are not those of one")
    if payload["columns"] != list(COLUMNS):
        _refuse(source, f"its columns are not {', '.join(COLUMNS)}")
    for symbol, entry in payload["series"].items():
        if not isinstance(symbol, str) or not _has_parts(entry, _SERIES_PARTS):
            _refuse(source, f"the series {symbol!r:.80} is not one")
        rows, left = divmod(len(entry["open_time"]), 8)
        if left or len(entry["values"]) != rows * 8 * len(COLUMNS):
            _refuse(source, f"the series {symbol!r:.80} has tables of different lengths")
    if _deeper_than(payload, _DEPTH):
        _refuse(source, "nested too deep")
    return payload  # type: ignore[no-any-return]  # its shape was checked by hand


def _has_parts(value: Any, parts: dict[str, Any]) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == parts.keys()
        and all(isinstance(value[name], kind) for name, kind in parts.items())
    )


def _deeper_than(value: Any, depth: int) -> bool:
    items = value.values() if isinstance(value, dict) else value
    inner = [item for item in items if type(item) in (dict, list, tuple)]
    return bool(inner) and (depth == 0 or any(_deeper_than(item, depth - 1) for item in inner))


def dataset_payload(
    series: Mapping[str, Series],
    metadata: Mapping[str, Any],
    *,
    exchange: str | None,
    market_type: str | None,
    timeframe: str | None,
    kind: str = "dataset",
    view: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Build a payload; see the module's docstring for its parts."""
    return {
        "format": FORMAT,
        "kind": kind,
        "exchange": exchange,
        "market_type": market_type,
        "timeframe": timeframe,
        "columns": list(COLUMNS),
        "metadata": metadata,
        "series": {symbol: series_to_plain(one) for symbol, one in series.items()},
        "view": view,
    }


def series_of(payload: Mapping[str, Any], source: str = "the data") -> dict[str, Series]:
    """Read every series of a checked payload; errors as in `series_from_plain`.

    Symbols that were written with the same open times share one array of them, which
    `vbt_adapter.build` notices.
    """
    series: dict[str, Series] = {}
    times: dict[int, NDArray[np.int64]] = {}
    for symbol, entry in payload["series"].items():
        one = series_from_plain(entry, f"{source}, {symbol}")
        shared = times.setdefault(id(entry["open_time"]), one.candles.open_time)
        candles = Candles(shared, one.candles.values)
        series[symbol] = Series(candles, one.coverage, one.revisions)
    return series


def series_to_plain(series: Series) -> dict[str, Any]:
    """Write a series as an entry of a payload's ``series``."""
    candles = series.candles
    return {
        "open_time": candles.open_time.astype("<i8", copy=False).tobytes(),
        "values": candles.values.astype("<f8", copy=False).tobytes(order="F"),
        "coverage": [[s.start, s.end, s.served.value, s.asked_ms] for s in series.coverage],
        "revisions": [
            [r.open_time, r.old, r.new, r.old_asked_ms, r.new_asked_ms] for r in series.revisions
        ],
    }


def series_from_plain(entry: Mapping[str, Any], source: str = "the data") -> Series:
    """Read a series back; its arrays are views of the entry's bytes.

    Raises
    ------
    CorruptDatasetError
        The times do not increase, the coverage is not sorted and disjoint, or a part
        is not what `series_to_plain` writes.
    """
    try:
        candles = _candles(entry["open_time"], entry["values"])
        coverage = Coverage(tuple(_span(*row) for row in entry["coverage"]))
        revisions = tuple(_revision(*row) for row in entry["revisions"])
    except (LookupError, TypeError, ValueError) as error:
        _refuse(source, f"a series is damaged ({error})", error)
    spans = coverage.spans
    if any(a.end > b.start for a, b in pairwise(spans)):
        _refuse(source, "a series is damaged (its coverage is not in order)")
    return Series(candles, coverage, revisions)


def _candles(open_time: bytes, values: bytes) -> Candles:
    if not open_time and not values:
        return Candles.empty()
    times: NDArray[np.int64] = np.frombuffer(open_time, "<i8").astype(np.int64, copy=False)
    table = np.frombuffer(values, "<f8").astype(np.float64, copy=False)
    if not (times[1:] > times[:-1]).all():
        raise CandleError("its open times do not increase")
    return Candles(times, table.reshape(len(COLUMNS), len(times)).T)


def _span(start: int, end: int, served: str, asked_ms: int) -> Span:
    if not _are_times(start, end, asked_ms) or start >= end:
        raise ValueError("its coverage is not made of intervals")
    return Span(start, end, Served(served), asked_ms)


def _revision(
    open_time: int, old: Iterable[float], new: Iterable[float], old_asked: int, new_asked: int
) -> Revision:
    before, after = tuple(map(float, old)), tuple(map(float, new))
    if not _are_times(open_time, old_asked, new_asked) or len(before) != len(after):
        raise ValueError("its revisions are not pairs of candles")
    return Revision(open_time, before, after, old_asked, new_asked)


def _are_times(*values: Any) -> bool:
    return all(type(value) is int and -(2**63) <= value < 2**63 for value in values)
