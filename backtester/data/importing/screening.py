"""Decide which rows of a file are candles: the same rules as for a page. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backtester.data.candles import Candles
from backtester.data.errors import CandleError
from backtester.data.fetching.planning import closed_end
from backtester.data.fetching.request import SETTLE_MS
from backtester.data.importing.found import Rows
from backtester.data.model import Timeframe, format_ms

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Screened", "screen"]

_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME = range(5)
_EARLIEST_MS = 1_230_768_000_000
"""2009-01-01: Bitcoin is younger. A count with a digit less is some time in the seventies."""
_NO_CANDLES = frozenset(
    {"not finite numbers", "open or close outside low and high", "negative volume"}
)
"""Reasons that lie in the row itself, and not in when the file was written."""
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


@dataclass(frozen=True, slots=True)
class Screened:
    """The candles of a series, and the rows that are none."""

    candles: Candles
    skipped: dict[str, int]
    """Rows by the reason for which they were left out; none of zero."""


def screen(rows: Rows, timeframe: Timeframe, *, now_ms: int, last_is_closed: bool) -> Screened:
    """Check rows as if an exchange had sent them, row by row.

    Parameters
    ----------
    rows : Rows
    timeframe : Timeframe
    now_ms : int
        UTC epoch milliseconds; what had not closed then is left out.
    last_is_closed : bool
        Otherwise the last row may have been forming when it was stored, and is left out.

    Raises
    ------
    CandleError
        The whole cannot be candles of this timeframe: they stand closer or further apart,
        all off its grid, most without a time, one time has two different candles, or no row
        that is not padding is a candle.
    """
    skipped: dict[str, int] = {}
    kept = rows

    def leave_out(reason: str, bad: NDArray[np.bool_]) -> None:
        nonlocal kept
        count = int(bad.sum())
        if count:
            skipped[reason] = count
            kept = Rows(kept.open_time[~bad], kept.values[~bad])

    leave_out("padding", np.asarray(np.isnan(kept.values).all(axis=1)))
    if not len(kept):
        return Screened(Candles.empty(), skipped)
    leave_out("no time of a candle", kept.open_time < _EARLIEST_MS)
    if 2 * skipped.get("no time of a candle", 0) > len(rows) or not len(kept):
        raise CandleError("most of its rows have no time that a candle could have")
    kept = _sorted(kept)
    leave_out("there twice", _repeats(kept))
    _require_spacing(kept.open_time, timeframe)
    last = int(kept.open_time[-1])
    off = ~timeframe.on_grid(kept.open_time)
    if off.all():
        raise CandleError(
            f"all rows stand off the {timeframe} grid, the first at "
            f"{format_ms(int(kept.open_time[0]))}: perhaps the times of another zone",
            open_time=int(kept.open_time[0]),
        )
    leave_out(f"off the {timeframe} grid", off)
    leave_out("not finite numbers", np.asarray(~np.isfinite(kept.values).all(axis=1)))
    leave_out("open or close outside low and high", _out_of_order(kept.values))
    leave_out("negative volume", kept.values[:, _VOLUME] < 0)
    leave_out("not closed yet", kept.open_time >= closed_end(timeframe, now_ms, SETTLE_MS))
    if not last_is_closed:
        leave_out("last row, perhaps unfinished", kept.open_time == last)
    _require_some(len(kept), skipped, rows.unread)
    times, values = np.ascontiguousarray(kept.open_time), np.ascontiguousarray(kept.values)
    return Screened(Candles(times, values), skipped)


def _require_some(taken: int, skipped: dict[str, int], unread: str | None) -> None:
    """Refuse a series whose rows are all left out for what stands in them."""
    wrong = {why: count for why, count in skipped.items() if why in _NO_CANDLES}
    if taken or not wrong:
        return
    listed = ", ".join(f"{count} {why}" for why, count in wrong.items())
    told = f"; cannot read {unread[:40]!r} as a number" if unread is not None else ""
    raise CandleError(f"none of its rows is a candle: {listed}{told}", skipped=skipped)


def _sorted(rows: Rows) -> Rows:
    if (rows.open_time[1:] > rows.open_time[:-1]).all():
        return rows
    order = np.argsort(rows.open_time, kind="stable")
    return Rows(rows.open_time[order], rows.values[order])


def _repeats(rows: Rows) -> NDArray[np.bool_]:
    """Return, for every sorted row, whether it repeats the one before.

    Raises
    ------
    CandleError
        Two rows of one time differ.
    """
    same = np.append(False, rows.open_time[1:] == rows.open_time[:-1])
    at = np.flatnonzero(same)
    bits = np.ascontiguousarray(rows.values).view(np.int64)
    differ = np.any(bits[at] != bits[at - 1], axis=1)
    if differ.any():
        row = int(at[np.argmax(differ)])
        first = int(rows.open_time[row])
        raise CandleError(
            f"{int(differ.sum())} times have two different candles, the first {format_ms(first)}: "
            f"{rows.values[row - 1].tolist()} and {rows.values[row].tolist()}",
            open_time=first,
        )
    return same


def _require_spacing(times: NDArray[np.int64], timeframe: Timeframe) -> None:
    """Refuse candles of another length: hours all stand on the grid of minutes, too."""
    if len(times) < 2:
        return
    apart, counts = np.unique(np.diff(times), return_counts=True)
    usual = int(apart[np.argmax(counts)])
    neighbours = (np.diff(timeframe.indices(times)) == 1).any()
    if usual < timeframe.typical_ms or not neighbours:
        raise CandleError(
            f"its candles are {_length(usual)} apart, so they are not {timeframe} candles",
            apart_ms=usual,
        )


def _length(ms: int) -> str:
    unit, size = next((unit, size) for unit, size in _UNITS if ms % size == 0)
    return f"{ms // size}{unit}"


def spacing_of(rows: Rows) -> str | None:
    """Return how far apart most rows stand, as a timeframe is written; None for a single row."""
    times = np.unique(rows.open_time[~np.isnan(rows.values).all(axis=1)])
    if len(times) < 2:
        return None
    apart, counts = np.unique(np.diff(times), return_counts=True)
    return _length(int(apart[np.argmax(counts)]))


def _out_of_order(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    body = values[:, [_OPEN, _CLOSE]]
    outside = (body > values[:, [_HIGH]]) | (body < values[:, [_LOW]])
    return np.asarray(outside.any(axis=1))
