"""A synthetic market: any candle of any symbol at any time, from nothing but a seed.

Prices are whole ticks and volumes whole lots, so every timeframe is the exact
sum of its minutes, and every float is the one nearest to the decimal text that
a server would send. Minutes exist on their own: asking for one never computes
the history before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from backtester.data.candles import Candles
from backtester.data.errors import UnknownSymbolError, UnknownTimeframeError
from backtester.data.model import Interval, MarketType, Timeframe
from backtester.data.sandbox import universe
from backtester.data.sandbox.minutes import (
    CLOSE,
    COLUMNS,
    DAY_MS,
    HIGH,
    LOW,
    MINUTE_MS,
    OPEN,
    SUMMED,
    TRADES,
    VOLUME,
    Line,
    MinuteMaker,
    line_of,
)
from backtester.data.sandbox.noise import MINUTES
from backtester.data.sandbox.source import Bars, Listing, Ticker

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SyntheticMarket"]

_BLOCK_DAYS: Final = 16
_DAY: Final = Timeframe(1, "d")
_MINUTE: Final = Timeframe(1, "m")
_TIMEFRAMES: Final = (
    *(Timeframe(count, "m") for count in (1, 3, 5, 15, 30)),
    *(Timeframe(count, "h") for count in (1, 2, 4, 6, 8, 12)),
    *(Timeframe(1, "d"), Timeframe(3, "d"), Timeframe(1, "w"), Timeframe(1, "M")),
)
_NEVER_LOW: Final = np.int64(2**62)


@dataclass(frozen=True, slots=True)
class _Table:
    """Bars that have trades: times (n,) and int64 columns (9, n)."""

    open_time: NDArray[np.int64]
    columns: NDArray[np.int64]

    def within(self, interval: Interval) -> _Table:
        first, last = np.searchsorted(self.open_time, (interval.start, interval.end))
        return _Table(self.open_time[first:last], self.columns[:, first:last])


_NOTHING: Final = _Table(np.empty(0, np.int64), np.empty((COLUMNS, 0), np.int64))


class SyntheticMarket:
    """A hundred spot symbols, some thirty swaps, six dated contracts, for all time.

    Parameters
    ----------
    seed : int, default 0
        Two markets of one seed are the same market, in any process, on any machine.
    """

    def __init__(self, seed: int = 0) -> None:
        self._minutes = MinuteMaker(seed)
        lines = (line_of(pair, seed) for pair in universe.pairs())
        self._lines = {line.listing.symbol: line for line in lines}
        # 1 KB each: 8 MB at most, some 350 symbol-years.
        self._day_block = lru_cache(maxsize=8192)(self._compute_day_block)

    @property
    def timeframes(self) -> Sequence[Timeframe]:
        return _TIMEFRAMES

    @property
    def end_ms(self) -> int | None:
        return None

    @property
    def outages(self) -> tuple[Interval, ...]:
        """The times at which nothing could be traded, in order."""
        return universe.outages()

    def listings(self, market_type: MarketType | str | None = None) -> list[Listing]:
        """Return every symbol of all time, delisted ones included.

        Parameters
        ----------
        market_type : MarketType or str, optional
            Only these; all when left out.
        """
        kind = None if market_type is None else MarketType.parse(market_type)
        every = (line.listing for line in self._lines.values())
        return [listing for listing in every if kind is None or listing.market.type is kind]

    def listing(self, symbol: str) -> Listing:
        """Return the listing of a unified symbol.

        Raises
        ------
        UnknownSymbolError
        """
        return self._find(symbol).listing

    def candles(self, symbol: str, timeframe: Timeframe, interval: Interval) -> Candles:
        """Return the truth: every complete candle that opens inside `interval`.

        Parameters
        ----------
        symbol : str
            Unified, such as ``BTC/USDT:USDT``.
        timeframe : Timeframe
            Any whole number of minutes, days, weeks or months.
        interval : Interval
            Past or future; need not stand on the grid.

        Returns
        -------
        Candles
            Times at which nobody traded are absent.

        Raises
        ------
        UnknownSymbolError
        UnknownTimeframeError
            For timeframes below a minute.
        """
        line = self._find(symbol)
        table = self._complete(line, timeframe, interval)
        scale = np.array([10.0**places for places in line.decimals[: VOLUME + 1]])
        return Candles(table.open_time, np.ascontiguousarray(table.columns[: VOLUME + 1].T) / scale)

    def bars(self, symbol: str, timeframe: Timeframe, interval: Interval, now_ms: int) -> Bars:
        """Return what an exchange shows at `now_ms`; see `MarketSource.bars`."""
        line = self._find(symbol)
        forming = timeframe.floor(now_ms)
        tables = []
        if interval.start < forming:
            closed = Interval(interval.start, min(interval.end, forming))
            tables.append(self._complete(line, timeframe, closed))
        if forming in interval:
            tables.append(self._forming(line, timeframe, forming, now_ms))
        table = _joined(tables)
        return Bars(table.open_time, table.columns, line.decimals)

    def ticker(self, symbol: str, now_ms: int) -> Ticker:
        """Return the ticker of the 24 hours before `now_ms`, rolling by the minute."""
        line = self._find(symbol)
        open_ms, minute = now_ms - DAY_MS, _MINUTE.floor(now_ms)
        window = Interval(_MINUTE.ceil(open_ms), minute)
        table = _joined(
            [self._complete(line, _MINUTE, window), self._partial_minute(line, minute, now_ms)]
        )
        return _ticker(line, self._summary(line, table, now_ms), open_ms, now_ms)

    # ----------------------------------------------------------------- symbols

    def _find(self, symbol: str) -> Line:
        try:
            return self._lines[symbol]
        except KeyError:
            near = get_close_matches(symbol, self._lines, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise UnknownSymbolError(
                f"the sandbox has no symbol {symbol!r}{hint}", symbol=symbol, suggestions=near
            ) from None

    # ----------------------------------------------------------------- coarser bars

    def _complete(self, line: Line, timeframe: Timeframe, interval: Interval) -> _Table:
        """Make every complete bar that opens inside `interval` and has trades."""
        life = Interval(timeframe.floor(line.life.start), line.life.end)
        inside = interval.intersection(life)
        aligned = timeframe.align(inside) if inside else None
        if aligned is None:
            return _NOTHING
        step = timeframe.typical_ms
        if timeframe.unit in "wMy" or step % DAY_MS == 0:
            days = self._days(line, aligned)
            return days if timeframe == _DAY else _regrouped(days, timeframe)
        if step % MINUTE_MS:
            raise UnknownTimeframeError(
                f"the sandbox has no candles of {timeframe}; its finest are of a minute",
                value=str(timeframe),
                supported=[str(known) for known in _TIMEFRAMES],
            )
        if DAY_MS % step:
            return _regrouped(self._complete(line, _MINUTE, aligned), timeframe)
        return self._intraday(line, step, aligned)

    def _intraday(self, line: Line, step: int, aligned: Interval) -> _Table:
        first, last = aligned.start // DAY_MS, (aligned.end - 1) // DAY_MS
        # A few days at a time: the arrays in hand then stay in the processor's cache.
        tables = []
        for day in range(first, last + 1, _BLOCK_DAYS):
            days = min(_BLOCK_DAYS, last + 1 - day)
            columns = _grouped(self._minutes.days(line, day, days), step // MINUTE_MS)
            tables.append(_present(day * DAY_MS, step, columns))
        return _joined(tables).within(aligned)

    def _days(self, line: Line, aligned: Interval) -> _Table:
        first, last = aligned.start // DAY_MS, (aligned.end - 1) // DAY_MS
        blocks = range(first // _BLOCK_DAYS, last // _BLOCK_DAYS + 1)
        columns = np.concatenate(
            [self._day_block(line.listing.symbol, block) for block in blocks], axis=1
        )
        return _present(blocks.start * _BLOCK_DAYS * DAY_MS, DAY_MS, columns).within(aligned)

    def _compute_day_block(self, symbol: str, block: int) -> NDArray[np.int64]:
        minutes = self._minutes.days(self._lines[symbol], block * _BLOCK_DAYS, _BLOCK_DAYS)
        return _grouped(minutes, MINUTES)

    # ----------------------------------------------------------------- now

    def _forming(self, line: Line, timeframe: Timeframe, open_ms: int, now_ms: int) -> _Table:
        """Make the bar that opened at `open_ms` of what has been traded until `now_ms`."""
        minute = _MINUTE.floor(now_ms)
        parts = []
        since = open_ms
        if open_ms % DAY_MS == 0:
            since = minute - minute % DAY_MS
            if open_ms < since:
                parts.append(self._complete(line, _DAY, Interval(open_ms, since)))
        if since < minute:
            parts.append(self._complete(line, _MINUTE, Interval(since, minute)))
        parts.append(self._partial_minute(line, minute, now_ms))
        table = _joined(parts)
        if not len(table.open_time):
            return table
        columns = _reduced(table.columns, np.zeros(1, np.int64))
        return _Table(np.array([open_ms], np.int64), columns)

    def _partial_minute(self, line: Line, minute: int, now_ms: int) -> _Table:
        """Cut the running minute as if its trades came evenly; nothing in its first moment."""
        elapsed = now_ms - minute
        whole = self._complete(line, _MINUTE, Interval(minute, minute + MINUTE_MS))
        if not elapsed or not len(whole.open_time):
            return _NOTHING
        opened, high, low, closed, *sums = (int(value) for value in whole.columns[:, 0])
        close = opened + (closed - opened) * elapsed // MINUTE_MS
        high = max(opened, close) + (high - max(opened, closed)) * elapsed // MINUTE_MS
        low = min(opened, close) - (min(opened, closed) - low) * elapsed // MINUTE_MS
        volume, quote, trades, taker, taker_quote = (n * elapsed // MINUTE_MS for n in sums)
        cut = (opened, high, low, close, max(volume, 1), quote, max(trades, 1), taker, taker_quote)
        return _Table(whole.open_time, np.array(cut, np.int64)[:, None])

    def _summary(self, line: Line, minutes: _Table, now_ms: int) -> list[int]:
        """Sum a day's minutes; without any, stand still at the last close there was."""
        if len(minutes.open_time):
            return [int(n) for n in _reduced(minutes.columns, np.zeros(1, np.int64))[:, 0]]
        # Whole days are all that is left to look at: today is inside the day just seen.
        today = _DAY.floor(min(now_ms, line.life.end + DAY_MS))
        days = self._complete(line, _DAY, Interval(today - 60 * DAY_MS, today))
        last = int(days.columns[CLOSE, -1]) if len(days.open_time) else 0
        return [last] * 4 + [0] * 5


# --------------------------------------------------------------------------- tables


def _grouped(minutes: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Aggregate dense minutes (9, days, 1440) by `size`: int64 (9, days * 1440 / size)."""
    split = minutes.reshape(COLUMNS, -1, size)
    if size == 1:
        return split[..., 0]
    groups = np.empty(split.shape[:2], np.int64)
    split[SUMMED].sum(axis=2, out=groups[SUMMED])
    traded = split[TRADES] > 0
    if traded.all():
        groups[OPEN], groups[CLOSE] = split[OPEN, :, 0], split[CLOSE, :, -1]
        split[HIGH].max(axis=1, out=groups[HIGH])
        split[LOW].min(axis=1, out=groups[LOW])
        return groups
    rows = np.arange(split.shape[1])
    groups[OPEN] = split[OPEN, rows, traded.argmax(axis=1)]
    groups[CLOSE] = split[CLOSE, rows, size - 1 - traded[:, ::-1].argmax(axis=1)]
    np.where(traded, split[HIGH], 0).max(axis=1, out=groups[HIGH])
    np.where(traded, split[LOW], _NEVER_LOW).min(axis=1, out=groups[LOW])
    return groups


def _present(start_ms: int, step: int, columns: NDArray[np.int64]) -> _Table:
    """Drop the bars without trades."""
    times = np.arange(columns.shape[1], dtype=np.int64) * step + start_ms
    traded = columns[TRADES] > 0
    return _Table(times, columns) if traded.all() else _Table(times[traded], columns[:, traded])


def _regrouped(table: _Table, timeframe: Timeframe) -> _Table:
    """Aggregate finer bars on any grid."""
    if not len(table.open_time):
        return table
    index = timeframe.indices(table.open_time)
    starts = np.flatnonzero(np.diff(index, prepend=index[0] - 1))
    times = [timeframe.open_time(int(i)) for i in index[starts]]
    return _Table(np.array(times, np.int64), _reduced(table.columns, starts))


def _reduced(columns: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Aggregate bars in groups that begin at `starts`: int64 (9, len(starts))."""
    ends = np.append(starts[1:], columns.shape[1]) - 1
    groups = np.empty((COLUMNS, len(starts)), np.int64)
    groups[OPEN], groups[CLOSE] = columns[OPEN, starts], columns[CLOSE, ends]
    groups[HIGH] = np.maximum.reduceat(columns[HIGH], starts)
    groups[LOW] = np.minimum.reduceat(columns[LOW], starts)
    groups[SUMMED] = np.add.reduceat(columns[SUMMED], starts, axis=1)
    return groups


def _joined(tables: Sequence[_Table]) -> _Table:
    filled = [table for table in tables if len(table.open_time)]
    if len(filled) < 2:
        return filled[0] if filled else _NOTHING
    return _Table(
        np.concatenate([table.open_time for table in filled]),
        np.concatenate([table.columns for table in filled], axis=1),
    )


def _ticker(line: Line, sums: list[int], open_ms: int, now_ms: int) -> Ticker:
    scaled = [n / 10**places for n, places in zip(sums, line.decimals, strict=True)]
    opened, high, low, closed, volume, quote = scaled[:TRADES]
    return Ticker(
        line.listing.symbol,
        open_ms,
        now_ms,
        opened,
        high,
        low,
        closed,
        volume,
        quote,
        round(quote / volume, 8) if volume else 0.0,
        sums[TRADES],
    )
