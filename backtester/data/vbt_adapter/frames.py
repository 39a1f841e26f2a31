"""Candle tables to pandas frames and back; pandas begins here, VectorBT does not.

One unit for every index we make: nanoseconds. VectorBT's own functions and the files
of VectorBT PRO count in them, while pandas alone would choose by how an index came to
be (microseconds from a date range, milliseconds from our integers), and two indexes of
one dataset would differ in `asi8` by factors of a thousand.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtester.data.candles import COLUMNS, EXTRAS, Candles, alike, merged_times
from backtester.data.errors import CandleError, OptionError
from backtester.data.model import Timeframe, format_ms

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "COLUMN_INDEX",
    "frames_of",
    "metadata_of",
    "own_rows",
    "position_of",
    "spread",
    "tables_of",
    "time_index",
    "times_of",
]

COLUMN_INDEX = pd.Index(COLUMNS)
_INDEX_NAME = "Open time"
_NS_PER_MS = 1_000_000
_MOST_MS = (2**63 - 1) // _NS_PER_MS
_PER_MS = {"us": 1_000, "ns": _NS_PER_MS}
_MS_PER = {"s": 1_000, "ms": 1}


# --------------------------------------------------------------------------- to pandas


def time_index(times: NDArray[np.int64]) -> pd.DatetimeIndex:
    """Return the index of open times: named 'Open time', UTC, in nanoseconds.

    Raises
    ------
    CandleError
        A time that nanoseconds cannot hold (before 1677 or after 2262).
    """
    if len(times) and max(-int(times[0]), int(times[-1])) > _MOST_MS:
        raise CandleError(f"the time {format_ms(int(times[-1]))} is beyond what an index holds")
    stamps = (times * _NS_PER_MS).view("datetime64[ns]")
    return pd.DatetimeIndex(stamps, tz="UTC", name=_INDEX_NAME)


def frames_of(tables: Mapping[str, Candles]) -> tuple[pd.DatetimeIndex, dict[str, pd.DataFrame]]:
    """Put tables on one index, the sorted union of their open times.

    Returns
    -------
    (DatetimeIndex, dict of DataFrame)
        Frames of shape (n, k), columns as in `Candles`, float64, NaN where a symbol has no
        candle; no row is NaN for all. The frames share the tables' memory where they can, and
        refuse writes.
    """
    times = merged_times([table.open_time for table in tables.values()])
    index = time_index(times)
    tables = dict(zip(tables, alike(list(tables.values())), strict=True))
    columns = COLUMN_INDEX
    if (names := next(iter(tables.values())).columns) != COLUMNS:
        columns = pd.Index(names)
    frames = {
        symbol: pd.DataFrame(spread(candles, times), index=index, columns=columns, copy=False)
        for symbol, candles in tables.items()
    }
    return index, frames


def spread(candles: Candles, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the values on `times`, which contain every open time of the table."""
    count = len(candles)
    if count == len(times):
        return candles.values
    width = candles.values.shape[1]
    padded = np.full((width, len(times)), np.nan).T  # columns contiguous, as in pandas
    if count:
        first, last = np.searchsorted(times, candles.open_time[[0, -1]])
        if last - first + 1 == count:
            padded[first : last + 1] = candles.values
        else:
            padded[np.searchsorted(times, candles.open_time)] = candles.values
    padded.flags.writeable = False
    return padded


# --------------------------------------------------------------------------- from pandas


def tables_of(data: Any, timeframe: Timeframe | str | None = None) -> dict[str, Candles]:
    """Return the candles of any VectorBT Data object, or of a dict of frames.

    Parameters
    ----------
    data : Data or mapping of symbol to DataFrame
        Ours, open-source VectorBT's or VectorBT PRO's. Open, High, Low, Close and Volume
        are found whatever their case, and so are those of `EXTRAS`; other columns are left
        out. A naive index is UTC.
    timeframe : Timeframe, optional
        When given, every open time must stand on its grid.

    Returns
    -------
    dict of Candles
        Per symbol, strictly increasing; rows that are NaN throughout are padding and go.

    Raises
    ------
    CandleError
        A missing column, a row that is NaN in part, a time that comes twice or is off the
        grid, or an index that is not of times; the message names the symbol.
    OptionError
        `data` holds no frames at all.
    """
    grid = None if timeframe is None else Timeframe.parse(timeframe)
    known: dict[int, NDArray[np.int64]] = {}
    tables = {}
    for symbol, frame in _frames_by_symbol(data).items():
        index = getattr(frame, "index", None)
        if id(index) not in known:  # frames of one Data object mostly share their index
            known[id(index)] = times_of(index, symbol)
        table = _candles(frame, known[id(index)], symbol)
        if grid is not None:
            _reject(table.open_time, ~grid.on_grid(table.open_time), symbol, f"off the {grid} grid")
        tables[str(symbol)] = table
    return tables


def metadata_of(data: Any) -> dict[str, Any]:
    """Return a copy of a Data object's ``wrapper._metadata``; {} if it has none."""
    notes = getattr(getattr(data, "wrapper", None), "_metadata", None)
    return dict(notes) if isinstance(notes, Mapping) else {}


def _frames_by_symbol(data: Any) -> Mapping[Any, Any]:
    frames = data if isinstance(data, Mapping) else getattr(data, "data", None)
    if not isinstance(frames, Mapping):
        raise OptionError(
            f"expected VectorBT data or a dict of DataFrames by symbol, got {type(data).__name__}"
        )
    if type(frames).__name__ != "feature_dict":
        return frames
    # VectorBT PRO also keeps data by feature, each frame with a column per symbol.
    symbols = dict.fromkeys(symbol for frame in frames.values() for symbol in frame.columns)
    return {
        symbol: pd.DataFrame({name: frame[symbol] for name, frame in frames.items()})
        for symbol in symbols
    }


def times_of(index: Any, symbol: Any) -> NDArray[np.int64]:
    """Return an index's times in UTC epoch milliseconds, int64 (n,); a naive one is UTC.

    Raises
    ------
    CandleError
        Not a DatetimeIndex, or a time that is missing or not a whole millisecond.
    """
    if not isinstance(index, pd.DatetimeIndex):
        raise CandleError(
            f"{symbol}: candles need a DatetimeIndex, got {type(index).__name__}", symbol=symbol
        )
    if index.hasnans:
        raise CandleError(f"{symbol}: a time in the index is missing", symbol=symbol)
    stamps: NDArray[np.int64] = index.asi8
    if index.unit in _MS_PER:
        return stamps * _MS_PER[index.unit]
    times, rest = np.divmod(stamps, _PER_MS[index.unit])
    _reject(times, rest != 0, symbol, "not a whole millisecond")
    return times


def _candles(frame: Any, times: NDArray[np.int64], symbol: Any) -> Candles:
    positions = [*_positions(frame, symbol), *_extra_positions(frame)]
    standard = positions == list(range(frame.shape[1]))  # then nothing need be copied
    try:
        values = (frame if standard else frame.iloc[:, positions]).to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CandleError(
            f"{symbol}: not all values are numbers ({error})", symbol=symbol
        ) from error
    missing = np.isnan(values[:, : len(COLUMNS)])
    if missing.any():
        holes = missing.sum(axis=1)
        partly = (holes > 0) & (holes < len(COLUMNS))
        _reject(times, partly, symbol, "missing in some columns and present in others")
        times, values = times[holes == 0], values[holes == 0]
    if not (times[1:] > times[:-1]).all():
        order = np.argsort(times, kind="stable")
        times, values = times[order], values[order]
        _reject(times[1:], times[1:] == times[:-1], symbol, "there twice")
    # Whoever can write to the frame must not be able to change the candles.
    return Candles(times, values if _is_frozen(values) else values.copy(order="K")).trimmed()


def _extra_positions(frame: Any) -> list[int]:
    """Find the further columns of candles, as far as they are there one after the other."""
    names = list(frame.columns) if isinstance(frame, pd.DataFrame) else [frame.name]
    found = [position_of(names, name) for name in EXTRAS]
    return [at for at in itertools.takewhile(lambda at: at is not None, found) if at is not None]


def _positions(frame: Any, symbol: Any) -> list[int]:
    names = list(frame.columns) if isinstance(frame, pd.DataFrame) else [frame.name]
    positions = [position_of(names, name) for name in COLUMNS]
    if None in positions:
        lacking = ", ".join(n for n, p in zip(COLUMNS, positions, strict=True) if p is None)
        raise CandleError(
            f"{symbol}: candles need Open, High, Low, Close and Volume; {lacking} is missing",
            symbol=symbol,
            missing=lacking,
        )
    return [position for position in positions if position is not None]


def position_of(names: list[Any], name: Any) -> int | None:
    """Find a name: the exact one first, then the only one that differs in case."""
    if name in names:
        return names.index(name)
    if not isinstance(name, str):
        return None
    folded = name.casefold()
    alike = [
        at for at, one in enumerate(names) if isinstance(one, str) and one.casefold() == folded
    ]
    return alike[0] if len(alike) == 1 else None


def _is_frozen(values: NDArray[np.float64]) -> bool:
    """Return whether nobody can write to the memory below an array."""
    below: Any = values
    while isinstance(below, np.ndarray):
        if below.base is None:
            return not below.flags.writeable
        below = below.base
    return isinstance(below, bytes)


def _reject(times: NDArray[np.int64], bad: NDArray[np.bool_], symbol: Any, what: str) -> None:
    if bad.any():
        first = int(times[np.argmax(bad)])
        raise CandleError(
            f"{symbol}: the candle of {format_ms(first)} is {what} ({int(bad.sum())} such)",
            symbol=symbol,
            open_time=first,
        )


def own_rows(frame: pd.DataFrame | pd.Series) -> NDArray[np.bool_]:
    """Return, for every row, whether it is the symbol's own: not NaN throughout."""
    present: NDArray[np.bool_] = np.asarray(frame.notna())
    return present if present.ndim == 1 else np.asarray(present.any(axis=1))
