"""Where candles come from: every minute of a symbol, made of hashes.

One pass makes whole days as a dense table of integers, prices in ticks and
volumes in lots; everything coarser is added up from it elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from backtester.data.model import Interval, Market, MarketType
from backtester.data.sandbox import universe
from backtester.data.sandbox.noise import MINUTES, Paths, bits, fields, growth, key, units
from backtester.data.sandbox.source import Listing

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["COLUMNS", "DAY_MS", "MINUTE_MS", "Line", "MinuteMaker", "line_of"]

MINUTE_MS: Final = 60_000
DAY_MS: Final = MINUTES * MINUTE_MS
OPEN, HIGH, LOW, CLOSE, VOLUME, QUOTE, TRADES, TAKER, TAKER_QUOTE = range(9)
COLUMNS: Final = 9
SUMMED: Final = slice(VOLUME, COLUMNS)
"""The columns that add up; a candle without trades is absent, whatever its prices say."""

# Trading is quietest at midnight UTC and busiest at half past two in the afternoon.
_BUSIEST: Final = 870
_RHYTHM: Final = 1.4 - 0.8 * np.abs(np.arange(MINUTES) - _BUSIEST) / _BUSIEST
# Contracts stand a little off the spot price; every day's distance differs a little more.
_PREMIUM: Final = {MarketType.SPOT: 0.0, MarketType.SWAP: 0.0009, MarketType.FUTURE: 0.0065}
_PREMIUM_JITTER: Final = 0.0005
# Below this many US dollars a day, minutes pass without a trade.
_LIQUID: Final = 20e6
_SILENCE: Final = 20e3
_MOST_SILENT: Final = 0.6
_TYPICAL_TRADE: Final = 300  # US dollars
_NEVER_MS: Final = 2**62


@dataclass(frozen=True, slots=True)
class Line:
    """A listing with all that its candles are made from."""

    listing: Listing
    pair: universe.Pair
    base: universe.Asset
    quote: universe.Asset
    unit: float
    """Units of the base asset in one: 1000 for a symbol such as 1000PEPE/USDT."""
    key: np.uint64
    silence: int
    """Of 65536 minutes, how many have no trade."""
    trade_lots: int
    """Lots of a typical trade."""
    decimals: tuple[int, ...]
    """Of every column."""

    @property
    def life(self) -> Interval:
        """From the first minute that can have trades to the first that cannot any more."""
        end = self.listing.delisted_ms
        return Interval(self.listing.listed_ms, _NEVER_MS if end is None else end)


def line_of(pair: universe.Pair, seed: int) -> Line:
    """Work out what the candles of a pair are made from."""
    assets = universe.assets()
    base = assets[pair.base.removeprefix("1000")]
    unit = 1000.0 if pair.base.startswith("1000") else 1.0
    listing = _listing(pair)
    silence = min(_SILENCE / pair.turnover, _MOST_SILENT) if pair.turnover < _LIQUID else 0.0
    trade_lots = _TYPICAL_TRADE / (base.usd * unit) * 10**pair.lot_decimals
    lots, product = pair.lot_decimals, pair.price_decimals + pair.lot_decimals
    return Line(
        listing,
        pair,
        base,
        assets[pair.quote],
        unit,
        key(seed, listing.symbol),
        int(silence * 65536),
        max(int(trade_lots), 1),
        (*(pair.price_decimals,) * 4, lots, product, 0, lots, product),
    )


def _listing(pair: universe.Pair) -> Listing:
    symbol, market_id = f"{pair.base}/{pair.quote}", pair.base + pair.quote
    contract = pair.type is not MarketType.SPOT
    if contract:
        symbol += f":{pair.quote}"
    if pair.expiry_ms is not None:
        day = str(np.datetime64(pair.expiry_ms, "ms").astype("datetime64[D]"))
        delivery = day.replace("-", "")[2:]
        symbol, market_id = f"{symbol}-{delivery}", f"{market_id}_{delivery}"
    market = Market(
        symbol,
        market_id,
        pair.type,
        pair.base,
        pair.quote,
        settle=pair.quote if contract else None,
        linear=True if contract else None,
        created_ms=pair.listed_ms if contract else None,  # Binance's spot market does not tell
    )
    return Listing(
        market,
        pair.price_decimals,
        pair.lot_decimals,
        pair.listed_ms,
        pair.delisted_ms,
        pair.expiry_ms,
    )


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Consecutive days of a symbol, and the random numbers they are made of."""

    line: Line
    first_day: int
    """Days since the epoch."""
    days: int
    words: NDArray[np.uint64]
    """64 random bits for every minute, (days, 1440)."""
    levels: NDArray[np.float64]
    """Logarithm of the base asset's level at each 00:00, the last day's 24:00 included."""

    @property
    def interval(self) -> Interval:
        return Interval(self.first_day * DAY_MS, (self.first_day + self.days) * DAY_MS)


class MinuteMaker:
    """Makes minutes under one seed; safe to use from any thread."""

    def __init__(self, seed: int) -> None:
        self._paths = Paths(seed)

    def days(self, line: Line, first_day: int, days: int) -> NDArray[np.int64]:
        """Make every minute of consecutive days.

        Parameters
        ----------
        line : Line
        first_day : int
            Days since the epoch.
        days : int

        Returns
        -------
        int64 (9, days, 1440)
            A minute whose number of trades is 0 has no candle.
        """
        index = np.arange(first_day * MINUTES, (first_day + days) * MINUTES, dtype=np.int64)
        words = bits(line.key, index.reshape(days, MINUTES))
        stretch = _Stretch(line, first_day, days, words, self._levels(line, first_day, days))
        table = np.empty((COLUMNS, days, MINUTES), np.int64)
        ticks = self._ticks(stretch)
        _fill_prices(stretch, ticks, table)
        _fill_volumes(stretch, table)
        absent = _absent(stretch)
        if absent is not None:
            table[SUMMED][:, absent] = 0
        return table

    def _levels(self, line: Line, first_day: int, days: int) -> NDArray[np.float64]:
        index = np.arange(first_day, first_day + days + 1, dtype=np.int64)
        jitter = units(line.key ^ np.uint64(1), index) * _PREMIUM_JITTER
        premium = _PREMIUM[line.pair.type] + jitter
        return self._paths.days(line.base, first_day, days + 1) + premium

    def _ticks(self, stretch: _Stretch) -> NDArray[np.int64]:
        """Return the price at every minute's start and at the day's end, int64 (days, 1441)."""
        line = stretch.line
        price = self._paths.minutes(line.base, stretch.first_day, stretch.levels)
        price *= line.base.usd * line.unit / line.quote.usd * 10**line.pair.price_decimals
        if line.quote.daily:
            quote = self._paths.days(line.quote, stretch.first_day, stretch.days + 1)
            price /= self._paths.minutes(line.quote, stretch.first_day, quote)
        return np.maximum(np.rint(price, out=price).astype(np.int64), 1)


def _fill_prices(stretch: _Stretch, ticks: NDArray[np.int64], table: NDArray[np.int64]) -> None:
    draws = fields(stretch.words, 8)
    opened, high, low, closed = table[OPEN], table[HIGH], table[LOW], table[CLOSE]
    # A market opens where it closed, give or take a tick.
    np.add(ticks[:, :-1], draws[..., 7] & 1, out=opened, casting="unsafe")
    closed[:] = ticks[:, 1:]
    # How far a wick may reach: some 1.2 deviations of a minute's move.
    reach = ticks[:, :1] * (1.2 * stretch.line.base.daily / MINUTES**0.5 / 256)
    np.maximum(opened, closed, out=high)
    high += (draws[..., 4] * reach).astype(np.int64)
    np.minimum(opened, closed, out=low)
    low -= (draws[..., 5] * reach).astype(np.int64)
    np.maximum(low, 1, out=low)


def _fill_volumes(stretch: _Stretch, table: NDArray[np.int64]) -> None:
    volume, taker = table[VOLUME], table[TAKER]
    # Uniform to the fourth power: mostly little, sometimes much; its mean is a fifth.
    draw = fields(stretch.words, 16)[..., 1] * 2.0**-16
    draw *= draw
    draw *= draw
    draw *= _RHYTHM
    draw *= 5 * _lots_a_minute(stretch)[:, None]
    volume[:] = draw
    volume += 1
    average = (table[OPEN] + table[CLOSE]) >> 1
    np.multiply(volume, average, out=table[QUOTE])
    np.floor_divide(volume, stretch.line.trade_lots, out=table[TRADES])
    table[TRADES] += 1
    # Between a quarter and three quarters of the volume took liquidity buying.
    share = (fields(stretch.words, 8)[..., 6] >> 1).astype(np.int64) + 64
    np.right_shift(volume * share, 8, out=taker)
    np.multiply(taker, average, out=table[TAKER_QUOTE])


def _lots_a_minute(stretch: _Stretch) -> NDArray[np.float64]:
    """Return the mean volume of a minute for each day: the turnover is in dollars, lots are not."""
    line = stretch.line
    index = np.arange(stretch.first_day, stretch.first_day + stretch.days, dtype=np.int64)
    busy = 0.5 + units(line.key ^ np.uint64(2), index)
    dollars = growth(stretch.levels[:-1] / 8) * (line.base.usd * line.unit)
    lots = line.pair.turnover / MINUTES * 10**line.pair.lot_decimals
    return np.asarray(busy * lots / dollars, np.float64)


def _absent(stretch: _Stretch) -> NDArray[np.bool_] | None:
    """Return, for every minute, whether it has no candle; None when all have one."""
    span, line = stretch.interval, stretch.line
    closed = [*span.subtract([line.life]), *universe.outages()]
    closed = [part for whole in closed if (part := whole.intersection(span))]
    if not closed and not line.silence:
        return None
    absent = fields(stretch.words, 16)[..., 0] < line.silence
    flat = absent.reshape(-1)
    for part in closed:
        first, last = (int(at - span.start) // MINUTE_MS for at in (part.start, part.end))
        flat[first:last] = True
    return absent
