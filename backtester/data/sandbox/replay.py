"""Real candles, replayed: a folder of files behind the same interface as the synthetic market.

Files are named ``{exchange}_{market}_{timeframe}_{BASE-QUOTE}``, end in
``.parquet`` or ``.csv``, and have the columns Open time (or Timestamp), Open,
High, Low, Close, Volume in any case and order. Every file is checked like a
page from an exchange before it is served. Values survive bit for bit: they are
sent as the shortest decimal text that reads back to the same float.
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from backtester.data.candles import Candles, check
from backtester.data.errors import (
    CandleError,
    CorruptDatasetError,
    OptionError,
    UnknownSymbolError,
    UnknownTimeframeError,
)
from backtester.data.model import Interval, Market, MarketType, Timeframe
from backtester.data.sandbox.source import Bars, Listing, Ticker
from backtester.data.sandbox.spelling import plain

__all__ = ["ReplayMarket"]

log = logging.getLogger(__name__)

_NAME: Final = re.compile(
    r"(?P<exchange>[a-z0-9]+)_(?P<market>spot|swap|future)_(?P<timeframe>[0-9]+[a-zA-Z]+)_"
    r"(?P<base>[^-_]+)-(?P<quote>[^-_]+)\Z"
)
_TIME_NAMES: Final = ("open time", "timestamp")
_VALUE_NAMES: Final = ("open", "high", "low", "close", "volume")
_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME = range(5)
_DAY_MS: Final = 86_400_000
_SETTLED_MS: Final = 60_000  # how long after the last close the clock stands

_Series = dict[str, dict[Timeframe, Candles]]
_Columns = Mapping[str, NDArray[Any]]


class ReplayMarket:
    """The spot candles of a folder as a market.

    Parameters
    ----------
    folder : path
        Files of other market types in it are skipped, with a warning in the log.
    exchange : str, optional
        Only files of this exchange; needed when two exchanges have the same series there.

    Raises
    ------
    OptionError
        When the folder holds nothing to replay, one series twice, or Parquet files that
        cannot be read for lack of pyarrow.
    CorruptDatasetError
        For a file that does not hold what its name says.

    Notes
    -----
    Exactly the timeframes in the folder are served. Nothing is known of the symbols but
    their candles: they count as listed from the first one on, and never as delisted.
    Number of trades and quote volumes are not in the files and made up.
    """

    def __init__(self, folder: str | Path, exchange: str | None = None) -> None:
        self._series = _load(Path(folder), exchange)
        self._listings = {
            symbol: _listing(symbol, tables.values()) for symbol, tables in self._series.items()
        }

    @property
    def timeframes(self) -> Sequence[Timeframe]:
        every = {timeframe for tables in self._series.values() for timeframe in tables}
        return sorted(every, key=lambda timeframe: timeframe.typical_ms)

    @cached_property
    def end_ms(self) -> int:
        """A minute after the last candle of the folder has closed, UTC epoch milliseconds."""
        closes = [
            timeframe.next(int(candles.open_time[-1]))
            for tables in self._series.values()
            for timeframe, candles in tables.items()
        ]
        return max(closes) + _SETTLED_MS

    def listings(self, market_type: MarketType | str | None = None) -> list[Listing]:
        """Return every symbol of the folder; all are spot."""
        if market_type is not None and MarketType.parse(market_type) is not MarketType.SPOT:
            return []
        return list(self._listings.values())

    def listing(self, symbol: str) -> Listing:
        """Return the listing of a unified symbol.

        Raises
        ------
        UnknownSymbolError
        """
        try:
            return self._listings[symbol]
        except KeyError:
            known = sorted(self._listings)
            raise UnknownSymbolError(
                f"nothing to replay for {symbol!r}; there is {', '.join(known)}",
                symbol=symbol,
                suggestions=known,
            ) from None

    def candles(self, symbol: str, timeframe: Timeframe, interval: Interval) -> Candles:
        """Return the candles of the file that open inside `interval`.

        Raises
        ------
        UnknownSymbolError
        UnknownTimeframeError
            When the folder has no such file for this symbol.
        """
        self.listing(symbol)
        tables = self._series[symbol]
        if timeframe not in tables:
            known = [str(known) for known in tables]
            raise UnknownTimeframeError(
                f"nothing to replay for {symbol} {timeframe}; there is {', '.join(known)}",
                value=str(timeframe),
                supported=known,
            )
        return tables[timeframe].within(interval)

    def bars(self, symbol: str, timeframe: Timeframe, interval: Interval, now_ms: int) -> Bars:
        """Return what an exchange shows at `now_ms`; see `MarketSource.bars`."""
        return _bars(self._shown(symbol, timeframe, interval, now_ms))

    def ticker(self, symbol: str, now_ms: int) -> Ticker:
        """Return the ticker of the 24 hours before `now_ms`, from the finest candles there are."""
        self.listing(symbol)
        open_ms = now_ms - _DAY_MS
        last_open, last = 0, 0.0
        for timeframe in sorted(self._series[symbol], key=lambda known: known.typical_ms):
            every = Interval(min(0, now_ms - 1), now_ms)
            past = self._shown(symbol, timeframe, every, now_ms)
            day = past.values[past.open_time >= timeframe.floor(open_ms)]
            if len(day):
                return _ticker(symbol, day, open_ms, now_ms)
            if len(past) and past.open_time[-1] > last_open:
                last_open, last = int(past.open_time[-1]), float(past.values[-1, _CLOSE])
        return Ticker(symbol, open_ms, now_ms, last, last, last, last, 0.0, 0.0, 0.0, 0)

    def _shown(self, symbol: str, timeframe: Timeframe, interval: Interval, now_ms: int) -> Candles:
        candles = self.candles(symbol, timeframe, interval)
        candles = candles.take(candles.open_time < now_ms)
        forming = timeframe.floor(now_ms)
        if not len(candles) or candles.open_time[-1] != forming:
            return candles
        elapsed = (now_ms - forming) / (timeframe.next(forming) - forming)
        values = candles.values.copy()
        values[-1] = _cut(values[-1], elapsed, self._listings[symbol])
        return Candles(candles.open_time, values)


# --------------------------------------------------------------------------- values


def _cut(row: NDArray[np.float64], elapsed: float, listing: Listing) -> list[float]:
    """Cut a candle as if its trades came evenly; `elapsed` is a share of its time."""
    opened, high, low, closed, volume = (float(value) for value in row)
    places = listing.price_decimals
    close = round(opened + (closed - opened) * elapsed, places)
    high = max(opened, close, round(opened + (high - opened) * elapsed, places))
    low = min(opened, close, round(opened + (low - opened) * elapsed, places))
    return [opened, high, low, close, round(volume * elapsed, listing.lot_decimals)]


def _ticker(symbol: str, day: NDArray[np.float64], open_ms: int, now_ms: int) -> Ticker:
    volume, quote = float(day[:, _VOLUME].sum()), float(_quote_volume(day).sum())
    return Ticker(
        symbol,
        open_ms,
        now_ms,
        open=float(day[0, _OPEN]),
        high=float(day[:, _HIGH].max()),
        low=float(day[:, _LOW].min()),
        last=float(day[-1, _CLOSE]),
        volume=volume,
        quote_volume=quote,
        weighted_average=round(quote / volume, 8) if volume else 0.0,
        trades=int((day[:, _VOLUME] > 0).sum()),
    )


def _quote_volume(values: NDArray[np.float64]) -> NDArray[np.float64]:
    average = (values[:, _OPEN] + values[:, _CLOSE]) / 2
    return np.asarray(average * values[:, _VOLUME])


def _bars(candles: Candles) -> Bars:
    values = candles.values
    volume, quote = values[:, _VOLUME], _quote_volume(values)
    columns = [*values.T, quote, volume > 0, volume / 2, quote / 2]
    table = np.empty((len(columns), len(candles)), object)
    for row, column in zip(table, columns, strict=True):
        row[:] = [plain(float(value)) for value in column]
    return Bars(candles.open_time, table, None)


def _listing(symbol: str, tables: Iterable[Candles]) -> Listing:
    base, quote = symbol.split("/")
    filled = list(tables)
    values = np.concatenate([candles.values for candles in filled])
    market = Market(symbol, base + quote, MarketType.SPOT, base, quote)
    return Listing(
        market,
        price_decimals=_decimals(values[:, :_VOLUME]),
        lot_decimals=_decimals(values[:, _VOLUME]),
        listed_ms=min(int(candles.open_time[0]) for candles in filled),
    )


def _decimals(values: NDArray[np.float64]) -> int:
    """Count the decimals it takes to tell all values exactly."""
    return max(len(plain(value).partition(".")[2]) for value in values.ravel().tolist())


# --------------------------------------------------------------------------- files


def _load(folder: Path, exchange: str | None) -> _Series:
    series: _Series = {}
    readers: dict[str, Callable[[Path], _Columns]] = {".parquet": _parquet, ".csv": _csv}
    for path in sorted(folder.glob("*")):
        match = _NAME.match(path.stem)
        if match is None or path.suffix not in readers:
            continue
        if exchange is not None and match["exchange"] != exchange:
            continue
        if match["market"] != MarketType.SPOT:
            log.warning("%s is not replayed: only spot markets are", path)
            continue
        tables = series.setdefault(f"{match['base']}/{match['quote']}", {})
        timeframe = Timeframe.parse(match["timeframe"])
        if timeframe in tables:
            raise OptionError(
                f"{folder} has {path.stem.partition('_')[2]} of two exchanges; name one",
                value=str(folder),
            )
        tables[timeframe] = _checked(path, readers[path.suffix], timeframe)
    if not series:
        raise OptionError(
            f"nothing to replay in {folder}; files are named like binance_spot_1h_BTC-USDT.parquet",
            value=str(folder),
        )
    return series


def _checked(path: Path, read: Callable[[Path], _Columns], timeframe: Timeframe) -> Candles:
    try:
        return _parsed(read(path), timeframe)
    except OptionError:
        raise
    except (ValueError, OSError) as error:  # a CandleError is a ValueError, as are pyarrow's
        raise CorruptDatasetError(f"{path} cannot be replayed: {error}", path=path) from error


def _parsed(columns: _Columns, timeframe: Timeframe) -> Candles:
    time_name = next((name for name in _TIME_NAMES if name in columns), _TIME_NAMES[0])
    missing = [name for name in (time_name, *_VALUE_NAMES) if name not in columns]
    if missing:
        raise CandleError(f"it has no column {', '.join(missing)}")
    times = columns[time_name].astype(np.int64)
    values = np.stack([columns[name] for name in _VALUE_NAMES], axis=1).astype(np.float64)
    if not len(times):
        raise CandleError("it holds no candles")
    return check(times, values, timeframe, Interval(int(times.min()), int(times.max()) + 1))


def _parquet(path: Path) -> _Columns:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise OptionError(
            "reading Parquet files needs pyarrow: pip install pyarrow",
            value=str(path),
        ) from error
    table = parquet.read_table(path)
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("ms", column.type.tz)).cast(pa.int64())
        columns[name.lower()] = column.to_numpy()
    return columns


def _csv(path: Path) -> _Columns:
    with path.open(newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file)
    columns = zip(*rows, strict=True)  # of text, which numpy reads as float() and int() do
    return {name.lower(): np.array(cells) for name, cells in zip(names, columns, strict=False)}
