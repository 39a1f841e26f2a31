"""Plain data as one compressed pickle, and reading it without trusting it.

A file of ours is one Blosc2 chunk around the pickle of a single call,
``rebuild_data(payload)``, where the payload is made of plain types only. So any
Python with this package reads it with ``pickle.loads(blosc2.decompress(file))``
and gets a VectorBT Data object, while `unpack` gets the payload without pickle,
without VectorBT and without running anything the file names.

A payload, format 1::

    {'format': 1, 'kind': 'dataset' | 'data',
     'exchange': str | None, 'market_type': str | None, 'timeframe': str | None,
     'columns': ['Open', 'High', 'Low', 'Close', 'Volume', ...],   # and the first of `EXTRAS`
     'metadata': {...},
     'series': {symbol: {'open_time': int64 bytes, 'values': float64 bytes, column after column,
                         'coverage': [[start, end, served, asked_ms], ...],
                         'revisions': [[open_time, old, new, old_asked_ms, new_asked_ms], ...]}},
     'view': None | {...}}    # what a saved Data object needs beyond its series

All numbers in bytes are little-endian; all times UTC epoch milliseconds.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from backtester.data.candles import COLUMNS, EXTRAS, Candles, Revision, Series
from backtester.data.errors import (
    CandleError,
    DatasetTooLargeError,
    DatasetWriteError,
)
from backtester.data.model import Coverage, Served, Span
from backtester.data.storage import blosc
from backtester.data.storage.blosc import HEADER_SIZE
from backtester.data.storage.pickles import ATOMS, Call, Machine, UnreadableError, is_key, reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FORMAT",
    "HEADER_SIZE",
    "check_payload",
    "chunk_length",
    "dataset_payload",
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

_LIMIT = blosc.LIMIT
_DEPTH = 64
_INT_BITS = 2000  # pickle's short form of an integer, the only one that is read


def rebuild_data(payload: dict[str, Any]) -> Any:
    """Return the VectorBT Data object of a payload: what a plain `pickle.loads` calls.

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


class _Written:
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
    return blosc.compress(dump(payload))


def dump(payload: Mapping[str, Any]) -> bytes:
    """Write a payload as an uncompressed pickle, protocol 4; errors as in `pack`."""
    try:
        _check_parts(payload)
    except UnreadableError as wrong:
        raise _unwritable(str(wrong)) from None
    arrays = ("open_time", "values")
    size = sum(len(entry[name]) for entry in payload["series"].values() for name in arrays)
    if size <= _LIMIT:
        plain: dict[str, Any] = _plain(payload)
        _share_times(plain["series"].values())
        raw = pickle.dumps(_Written(plain), protocol=4)
        if (size := len(raw)) <= _LIMIT:
            return raw
    raise DatasetTooLargeError(
        f"the data take {size / 2**30:.1f} GiB; a file of this format holds less than 2 GiB. "
        "Keep fewer symbols or a shorter range in it, or use another store",
        size=size,
    )


def _plain(value: Any, depth: int = 0) -> Any:
    """Copy a value into exact plain types, each container its own object.

    `_Machine` refuses a container that is referred to twice, so none may be written.
    """
    if type(value) in ATOMS:
        if type(value) is int and value.bit_length() > _INT_BITS:
            raise _unwritable("it holds an enormous integer")
        return value
    if depth > _DEPTH:
        raise _unwritable("it is nested too deep, or holds itself")
    if isinstance(value, Mapping):
        copy = {_plain(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
        if not all(map(is_key, copy)):
            raise _unwritable("it has a key that is neither a plain value nor a tuple of some")
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
    raise _unwritable(f"it holds a {type(value).__name__}; only plain types are kept")


def _unwritable(problem: str) -> DatasetWriteError:
    return DatasetWriteError(f"the data cannot be written: {problem}", path=None)


def _share_times(entries: Iterable[dict[str, Any]]) -> None:
    """Let symbols with equal open times share one object: it is written once."""
    seen: dict[tuple[int, bytes, bytes], bytes] = {}
    for entry in entries:
        times = entry["open_time"]
        known = seen.setdefault((len(times), times[:8], times[-8:]), times)
        if known == times:
            entry["open_time"] = known


# --------------------------------------------------------------------------- reading


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
    with reading(source):
        raw = blosc.decompress(chunk)
    return parse(raw, source)


def chunk_length(header: bytes | memoryview, source: str = "the data") -> int:
    """Return the length of the chunk that begins with this header; errors as in `unpack`."""
    with reading(source):
        return blosc.chunk_length(header)


def parse(raw: bytes, source: str = "the data") -> dict[str, Any]:
    """Read a payload from an uncompressed pickle; errors as in `unpack`."""
    with reading(source):
        call = _Machine(raw).run()
        if type(call) is not Call or call.state is not None or len(call.args) != 1:
            raise UnreadableError("its pickle is not one call with one argument")
    return check_payload(call.args[0], source)


class _Machine(Machine):
    """Knows plain types and the one call that stands around them."""

    names = frozenset({f"{rebuild_data.__module__}.{rebuild_data.__qualname__}"})
    tree = True
    most_steps = _LIMIT  # as many as there can be bytes: long histories have millions


# --------------------------------------------------------------------------- the payload

_PARTS = {
    "format": int,
    "kind": str,
    "exchange": (str, type(None)),
    "market_type": (str, type(None)),
    "timeframe": (str, type(None)),
    "columns": list,
    "metadata": Mapping,
    "series": Mapping,
    "view": (Mapping, type(None)),
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
    with reading(source):
        _check_parts(payload)
        if not _is_plain((payload,), _DEPTH + 1):
            raise UnreadableError("it holds something that is not plain, or is nested too deeply")
    return payload  # type: ignore[no-any-return]  # its shape was checked by hand


def _check_parts(payload: Any) -> None:
    version = payload.get("format") if isinstance(payload, Mapping) else None
    if type(version) is int and version != FORMAT:
        raise UnreadableError(f"its format is {version}; this version reads format {FORMAT}")
    if not _has_parts(payload, _PARTS) or payload["kind"] not in ("dataset", "data"):
        raise UnreadableError("its parts are not those of a dataset")
    width = len(payload["columns"])
    if width < len(COLUMNS) or payload["columns"] != [*COLUMNS, *EXTRAS][:width]:
        raise UnreadableError(f"its columns are not {', '.join(COLUMNS)}")
    for symbol, entry in payload["series"].items():
        if not isinstance(symbol, str) or not _has_parts(entry, _SERIES_PARTS):
            raise UnreadableError(f"its series {symbol!r:.80} is invalid")
        rows, left = divmod(len(entry["open_time"]), 8)
        if left or len(entry["values"]) != rows * 8 * width:
            raise UnreadableError(f"its series {symbol!r:.80} has tables of different lengths")


def _has_parts(value: Any, parts: dict[str, Any]) -> bool:
    return (
        isinstance(value, Mapping)
        and value.keys() == parts.keys()
        and all(isinstance(value[name], kind) for name, kind in parts.items())
    )


def _is_plain(container: Any, depth: int) -> bool:
    """Return whether there are only plain values in a container, nested no deeper than `depth`."""
    items = container.values() if type(container) is dict else container
    return all(
        type(item) in (dict, list, tuple) and depth > 0 and _is_plain(item, depth - 1)
        for item in items
        if type(item) not in ATOMS
    )


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
    width = max((one.candles.values.shape[1] for one in series.values()), default=len(COLUMNS))
    return {
        "format": FORMAT,
        "kind": kind,
        "exchange": exchange,
        "market_type": market_type,
        "timeframe": timeframe,
        "columns": [*COLUMNS, *EXTRAS][:width],
        "metadata": metadata,
        "series": {symbol: series_to_plain(one, width) for symbol, one in series.items()},
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


def series_to_plain(series: Series, width: int = len(COLUMNS)) -> dict[str, Any]:
    """Write a series as an entry of a payload's ``series``, with that many columns."""
    candles = series.candles.widened(width)
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
    with reading(source):
        try:
            candles = _candles(entry["open_time"], entry["values"])
            coverage = Coverage(tuple(_span(*row) for row in entry["coverage"]))
            revisions = tuple(_revision(*row) for row in entry["revisions"])
        except (LookupError, TypeError, ValueError) as error:
            raise UnreadableError(f"a series is damaged ({error})") from error
        if any(a.end > b.start for a, b in pairwise(coverage.spans)):
            raise UnreadableError("a series is damaged (its coverage is out of order)")
    return Series(candles, coverage, revisions)


def _candles(open_time: bytes, values: bytes) -> Candles:
    if not open_time and not values:
        return Candles.empty()
    times: NDArray[np.int64] = np.frombuffer(open_time, "<i8").astype(np.int64, copy=False)
    table = np.frombuffer(values, "<f8").astype(np.float64, copy=False)
    width, rest = divmod(len(table), len(times))
    if rest:
        raise ValueError("its tables are of different lengths")
    if not (times[1:] > times[:-1]).all():
        raise CandleError("its open times do not increase")
    return Candles(times, table.reshape(width, len(times)).T).trimmed()


def _span(start: int, end: int, served: str, asked_ms: int) -> Span:
    if not _are_times(start, end, asked_ms) or start >= end:
        raise ValueError("its coverage does not consist of intervals")
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
