"""What a market must provide to be served: the interface between truth and transport.

A `MarketSource` knows every candle for all time; what an exchange would show
of them at one moment is asked for with that moment as an argument. The two
paging questions every REST dialect asks ("the first n from here", "the last n
up to here") are answered here once, for any source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from backtester.data.candles import Candles
from backtester.data.model import Interval, Market, MarketType, Timeframe

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Bars",
    "Listing",
    "MarketSource",
    "Ticker",
    "newest",
    "oldest",
]


@dataclass(frozen=True, slots=True)
class Listing:
    """One symbol of an exchange, and when it could be traded."""

    market: Market
    """`active` is meant as of the listing; `market_at` tells it for a moment."""
    price_decimals: int
    """Prices are whole multiples of ``10**-price_decimals``, the tick."""
    lot_decimals: int
    """Volumes are whole multiples of ``10**-lot_decimals``, the lot."""
    listed_ms: int
    """Open time of the first minute that can have trades, UTC epoch milliseconds."""
    delisted_ms: int | None = None
    """First moment without trades for good, UTC epoch milliseconds; None while traded."""
    expiry_ms: int | None = None
    """Delivery of a dated contract, UTC epoch milliseconds; None for all others."""

    @property
    def symbol(self) -> str:
        return self.market.symbol

    def known_at(self, now_ms: int) -> bool:
        """Return whether the exchange has listed it by `now_ms`; delisted ones stay known."""
        return self.listed_ms <= now_ms

    def trading_at(self, now_ms: int) -> bool:
        """Return whether it can be traded at `now_ms`."""
        ended = self.delisted_ms is not None and self.delisted_ms <= now_ms
        return self.known_at(now_ms) and not ended

    def market_at(self, now_ms: int) -> Market:
        """Return the market with `active` as it is at `now_ms`."""
        return replace(self.market, active=self.trading_at(now_ms))


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """Candles as an exchange spells them: exact numbers with all of Binance's columns.

    Either whole multiples of tick and lot (`decimals` set, the fast way), or,
    for sources that know only floats, the shortest decimal text of each.
    """

    open_time: NDArray[np.int64]
    """UTC epoch milliseconds, shape (n,), strictly increasing."""
    table: NDArray[Any]
    """Shape (9, n): open, high, low, close, volume, quote volume, number of trades,
    taker buy volume, taker buy quote volume. int64, or str objects."""
    decimals: tuple[int, ...] | None
    """How many decimals each row of an int64 table has; None for a table of text."""

    def __len__(self) -> int:
        return len(self.open_time)

    def __getitem__(self, which: slice) -> Bars:
        return Bars(self.open_time[which], self.table[:, which], self.decimals)

    @classmethod
    def joined(cls, parts: Sequence[Bars]) -> Bars:
        """Join bars of one series, given in order."""
        if len(parts) == 1:
            return parts[0]
        times = np.concatenate([part.open_time for part in parts])
        return cls(times, np.concatenate([part.table for part in parts], 1), parts[0].decimals)


@dataclass(frozen=True, slots=True)
class Ticker:
    """The last 24 hours of a symbol, rolling by the minute."""

    symbol: str
    open_ms: int
    close_ms: int
    open: float
    high: float
    low: float
    last: float
    volume: float
    """Base units."""
    quote_volume: float
    """Quote units."""
    weighted_average: float
    """Quote volume by volume, to 8 decimals; 0 without trades."""
    trades: int


class MarketSource(Protocol):
    """A market that can be asked for any candle of any time."""

    @property
    def timeframes(self) -> Sequence[Timeframe]:
        """The timeframes it has candles of."""
        ...

    @property
    def end_ms(self) -> int | None:
        """The moment after which it knows nothing, UTC epoch milliseconds; None when endless.

        A server without a clock of its own stands still there.
        """
        ...

    def listings(self, market_type: MarketType | str | None = None) -> Sequence[Listing]:
        """Return every symbol of all time, of one market type or of all."""
        ...

    def candles(self, symbol: str, timeframe: Timeframe, interval: Interval) -> Candles:
        """Return the truth: the complete candles that open inside `interval`."""
        ...

    def bars(self, symbol: str, timeframe: Timeframe, interval: Interval, now_ms: int) -> Bars:
        """Return what an exchange shows, at `now_ms`, of the candles that open inside `interval`.

        The candle that is forming then holds what has been traded so far, and
        nothing opens at or after `now_ms`.
        """
        ...

    def ticker(self, symbol: str, now_ms: int) -> Ticker:
        """Return the ticker of the 24 hours before `now_ms`."""
        ...


def oldest(
    source: MarketSource,
    listing: Listing,
    timeframe: Timeframe,
    interval: Interval,
    limit: int,
    now_ms: int,
) -> Bars:
    """Return the first `limit` candles that open inside `interval`, however far apart they are.

    Parameters
    ----------
    source : MarketSource
    listing : Listing
        The symbol.
    timeframe : Timeframe
    interval : Interval
        Need not stand on the grid.
    limit : int
        At least 1.
    now_ms : int
        The exchange's clock, UTC epoch milliseconds.

    Returns
    -------
    Bars
        At most `limit`, ascending.
    """
    windows = _windows(listing, timeframe, interval, limit, now_ms, forward=True)
    return _gather(source, listing, timeframe, windows, limit, now_ms, forward=True)


def newest(
    source: MarketSource,
    listing: Listing,
    timeframe: Timeframe,
    interval: Interval,
    limit: int,
    now_ms: int,
) -> Bars:
    """Return the last `limit` candles that open inside `interval`, ascending; as `oldest`."""
    windows = _windows(listing, timeframe, interval, limit, now_ms, forward=False)
    return _gather(source, listing, timeframe, windows, limit, now_ms, forward=False)


def _windows(
    listing: Listing,
    timeframe: Timeframe,
    interval: Interval,
    limit: int,
    now_ms: int,
    *,
    forward: bool,
) -> Iterator[Interval]:
    """Cut what can hold candles into growing windows, from the end that is asked for."""
    end = min(now_ms if listing.delisted_ms is None else listing.delisted_ms, now_ms)
    alive = Interval(timeframe.floor(listing.listed_ms), max(end, listing.listed_ms) + 1)
    inside = interval.intersection(alive)
    aligned = timeframe.align(inside) if inside else None
    size = limit
    while aligned is not None:
        if forward:
            cut = min(timeframe.next(aligned.start, size), aligned.end)
            window, rest = Interval(aligned.start, cut), (cut, aligned.end)
        else:
            cut = max(timeframe.next(aligned.end, -size), aligned.start)
            window, rest = Interval(cut, aligned.end), (aligned.start, cut)
        yield window
        aligned = Interval(*rest) if rest[0] < rest[1] else None
        size *= 2


def _gather(
    source: MarketSource,
    listing: Listing,
    timeframe: Timeframe,
    windows: Iterable[Interval],
    limit: int,
    now_ms: int,
    *,
    forward: bool,
) -> Bars:
    parts: list[Bars] = []
    found = 0
    for window in windows:
        parts.append(source.bars(listing.symbol, timeframe, window, now_ms))
        found += len(parts[-1])
        if found >= limit:
            break
    if not parts:
        return Bars(np.empty(0, np.int64), np.empty((9, 0), np.int64), (0,) * 9)
    joined = Bars.joined(parts if forward else parts[::-1])
    return joined[:limit] if forward else joined[max(found - limit, 0) :]
