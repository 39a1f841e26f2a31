"""The terms of the domain as immutable values: timeframes, intervals, coverage, keys.

Pure: no clock, no disk, no network, neither ccxt nor VectorBT. Times are UTC
epoch milliseconds as `int`, ccxt's unit; intervals are half-open `[start, end)`.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from backtester.data.errors import (
    EmptyIntervalError,
    UnknownExchangeError,
    UnknownMarketTypeError,
    UnknownTimeframeError,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Coverage",
    "DatasetKey",
    "Interval",
    "Market",
    "MarketType",
    "Served",
    "Span",
    "Timeframe",
    "counted",
    "format_ms",
]


class MarketType(StrEnum):
    """What is traded: `spot`, perpetual contracts (`swap`) or dated ones (`future`)."""

    SPOT = "spot"
    SWAP = "swap"
    FUTURE = "future"

    @classmethod
    def parse(cls, value: str | MarketType) -> MarketType:
        """Read a market type.

        Raises
        ------
        UnknownMarketTypeError
            For any other word; plural and upper-case spellings are understood.
        """
        try:
            return cls(str(value).strip().lower().removesuffix("s"))
        except ValueError:
            known = ", ".join(cls)
            raise UnknownMarketTypeError(
                f"unknown market type {value!r}; use one of {known}", value=str(value)
            ) from None


# --------------------------------------------------------------------------- timeframes

_FIXED_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_CALENDAR_MONTHS = {"M": 1, "y": 12}
_MONDAY_MS = 4 * _FIXED_MS["d"]  # 1970-01-05, the first Monday of the epoch
_SPELLINGS = {
    "min": "m", "t": "m", "T": "m", "H": "h", "D": "d", "W": "w", "mo": "M", "mon": "M",
    "month": "M", "S": "s", "Y": "y",
}  # fmt: skip
_TIMEFRAME = re.compile(r"([1-9][0-9]{0,3})([a-zA-Z]{1,5})\Z")


@dataclass(frozen=True, slots=True)
class Timeframe:
    """The length of a candle, and the grid of its open times.

    Seconds to days count from the epoch, weeks from Monday 00:00 UTC, months
    and years by the calendar. Every grid time has an integer `index`, and all
    arithmetic is done on indices, so months need no special case elsewhere.

    >>> Timeframe.parse("4h").floor(1_700_000_000_000)
    1699992000000
    >>> Timeframe.parse("1M").next(Timeframe.parse("1M").floor(1_707_000_000_000))
    1709251200000
    """

    count: int
    unit: str

    @classmethod
    def parse(cls, value: str | Timeframe) -> Timeframe:
        """Read a timeframe: ``1m`` is a minute, ``1M`` a month.

        Raises
        ------
        UnknownTimeframeError
            With a list of examples, when the text is not one.
        """
        if isinstance(value, Timeframe):
            return value
        return _parse_timeframe(str(value).strip())

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"

    @property
    def file_token(self) -> str:
        """The spelling in file names, where a month is ``1mo``.

        ``1m`` and ``1M`` would be one name on case-insensitive disks.
        """
        return f"{self.count}mo" if self.unit == "M" else str(self)

    @property
    def typical_ms(self) -> int:
        """The length in milliseconds; of months and years the shortest possible."""
        if self.unit in _CALENDAR_MONTHS:
            days = 28 if self.unit == "M" else 365
            return self.count * days * _FIXED_MS["d"]
        return self.count * _FIXED_MS[self.unit]

    @property
    def longest_ms(self) -> int:
        """The length in milliseconds; of months and years the longest possible."""
        if self.unit in _CALENDAR_MONTHS:
            days = 31 if self.unit == "M" else 366
            return self.count * days * _FIXED_MS["d"]
        return self.typical_ms

    def index(self, ms: int) -> int:
        """Return the grid index of the candle that contains `ms`."""
        if self.unit in _CALENDAR_MONTHS:
            # Plain arithmetic: `datetime` cannot read every int64.
            month = int(np.datetime64(ms, "ms").astype("datetime64[M]").astype(np.int64))
            return month // (self.count * _CALENDAR_MONTHS[self.unit])
        return (ms - self._offset) // self.typical_ms

    def open_time(self, index: int) -> int:
        """Return the open time of the candle with this grid index, UTC epoch milliseconds."""
        if self.unit in _CALENDAR_MONTHS:
            month = index * self.count * _CALENDAR_MONTHS[self.unit]
            return int(np.datetime64(month, "M").astype("datetime64[ms]").astype(np.int64))
        return index * self.typical_ms + self._offset

    def floor(self, ms: int) -> int:
        """Return the open time of the candle that contains `ms`."""
        return self.open_time(self.index(ms))

    def ceil(self, ms: int) -> int:
        """Return the first open time at or after `ms`."""
        return self.open_time(self._ceil_index(ms))

    def next(self, ms: int, steps: int = 1) -> int:
        """Return the open time `steps` candles after the one that contains `ms`."""
        return self.open_time(self.index(ms) + steps)

    def steps(self, interval: Interval) -> int:
        """Count the grid times inside the interval."""
        return self._ceil_index(interval.end) - self._ceil_index(interval.start)

    def grid(self, interval: Interval) -> NDArray[np.int64]:
        """List the grid times inside the interval, int64 of shape (steps,)."""
        indices = np.arange(
            self._ceil_index(interval.start), self._ceil_index(interval.end), dtype=np.int64
        )
        if self.unit in _CALENDAR_MONTHS:
            months = indices * (self.count * _CALENDAR_MONTHS[self.unit])
            return months.astype("datetime64[M]").astype("datetime64[ms]").astype(np.int64)
        return indices * self.typical_ms + self._offset

    def indices(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the grid index of every time, int64 of the same shape."""
        if self.unit in _CALENDAR_MONTHS:
            months = times.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
            return months // (self.count * _CALENDAR_MONTHS[self.unit])
        return (times - self._offset) // self.typical_ms

    def on_grid(self, times: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return, for every time, whether it is an open time of this timeframe."""
        if self.unit in _CALENDAR_MONTHS:
            months = self.indices(times) * (self.count * _CALENDAR_MONTHS[self.unit])
            opens = months.astype("datetime64[M]").astype("datetime64[ms]").astype(np.int64)
            return np.asarray(times == opens)
        return np.asarray((times - self._offset) % self.typical_ms == 0)

    def runs(self, times: NDArray[np.int64]) -> list[Interval]:
        """Join increasing open times into intervals of neighbouring candles."""
        if len(times) == 0:
            return []
        indices = self.indices(times)
        breaks = np.flatnonzero(np.diff(indices) != 1)
        firsts = np.concatenate(([0], breaks + 1))
        lasts = np.concatenate((breaks, [len(times) - 1]))
        return [
            Interval(int(times[first]), self.open_time(int(indices[last]) + 1))
            for first, last in zip(firsts, lasts, strict=True)
        ]

    def align(self, interval: Interval) -> Interval | None:
        """Shrink an interval to the grid times it holds; None when it holds none."""
        start, end = self.ceil(interval.start), self.ceil(interval.end)
        return Interval(start, end) if start < end else None

    @property
    def _offset(self) -> int:
        return _MONDAY_MS if self.unit == "w" else 0

    def _ceil_index(self, ms: int) -> int:
        index = self.index(ms)
        return index if self.open_time(index) == ms else index + 1


@lru_cache(maxsize=256)
def _parse_timeframe(text: str) -> Timeframe:
    match = _TIMEFRAME.match(text)
    unit = match[2] if match else ""
    if unit not in _FIXED_MS and unit not in _CALENDAR_MONTHS:
        unit = _SPELLINGS.get(unit, _SPELLINGS.get(unit.lower() if len(unit) > 1 else unit, ""))
    if match is None or not unit:
        raise UnknownTimeframeError(
            f"unknown timeframe {text!r}; write it like 1m, 5m, 1h, 4h, 1d, 1w or 1M (a month)",
            value=text,
        )
    return Timeframe(int(match[1]), unit)


# --------------------------------------------------------------------------- intervals


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """A range of time `[start, end)`, never empty."""

    start: int
    """UTC epoch milliseconds, inclusive."""
    end: int
    """UTC epoch milliseconds, exclusive."""

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise EmptyIntervalError(
                f"the start {format_ms(self.start)} is not before the end {format_ms(self.end)}",
                start=self.start,
                end=self.end,
            )

    def __contains__(self, ms: int) -> bool:
        return self.start <= ms < self.end

    def __str__(self) -> str:
        return f"[{format_ms(self.start)}, {format_ms(self.end)})"

    def intersection(self, other: Interval) -> Interval | None:
        """Return the part that both share; None if they share nothing."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Interval(start, end) if start < end else None

    def subtract(self, others: Iterable[Interval]) -> list[Interval]:
        """Return the parts of this interval that none of `others` covers, in order."""
        left: list[Interval] = []
        at = self.start
        for other in sorted(others):
            if other.end <= at:
                continue
            if other.start >= self.end:
                break
            if other.start > at:
                left.append(Interval(at, other.start))
            at = other.end
        if at < self.end:
            left.append(Interval(at, self.end))
        return left


# --------------------------------------------------------------------------- coverage


class Served(StrEnum):
    """The meaning of an exchange's answer for an interval.

    Under `MARKET` a grid time with a candle is *present* and one without is
    *confirmed absent* (an outage, or nobody traded). Under the others every
    time without a candle is confirmed absent for the reason named. A time under
    no span was *never asked*.
    """

    MARKET = "market"
    """The market was there; a missing candle means an outage or no trades."""
    NOT_LISTED = "not_listed"
    """Before the symbol's first candle."""
    DELISTED = "delisted"
    """After the symbol's last candle."""
    BEYOND_DEPTH = "beyond_depth"
    """Older than the exchange's API reaches back."""
    NOT_SERVED = "not_served"
    """Nothing came, twice, and the API does not say why: not listed yet, or beyond its depth."""
    GIVEN = "given"
    """The candles were given by the user; nothing is known between them."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """An interval the exchange has answered for, and what the answer meant."""

    start: int
    end: int
    served: Served
    asked_ms: int
    """When the answer came, UTC epoch milliseconds; the earliest of joined spans."""

    @property
    def interval(self) -> Interval:
        return Interval(self.start, self.end)


@dataclass(frozen=True, slots=True)
class Coverage:
    """What an exchange has answered for one series: sorted, disjoint spans.

    Immutable: `add` returns a new one. Where two spans overlap, the later answer
    wins; adjacent spans of the same meaning are joined.

    >>> coverage = Coverage().add([Span(0, 10, Served.MARKET, 1)])
    >>> coverage.missing(Interval(5, 20))
    [Interval(start=10, end=20)]
    """

    spans: tuple[Span, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __iter__(self) -> Iterator[Span]:
        return iter(self.spans)

    def add(self, spans: Iterable[Span]) -> Coverage:
        """Return the coverage with `spans` added, one after the other."""
        kept = list(self.spans)
        for span in spans:
            _claim(kept, span)
        return Coverage(tuple(kept)) if len(kept) else self

    def remove(self, interval: Interval) -> Coverage:
        """Return the coverage as if `interval` had never been asked for."""
        return Coverage(
            tuple(
                Span(part.start, part.end, span.served, span.asked_ms)
                for span in self.spans
                for part in span.interval.subtract([interval])
            )
        )

    def missing(self, wanted: Interval) -> list[Interval]:
        """Return the parts of `wanted` never asked for, in order."""
        return wanted.subtract(span.interval for span in self.spans)

    def within(self, interval: Interval) -> Coverage:
        """Return the part of this coverage inside `interval`."""
        first = bisect_right(self.spans, interval.start, key=lambda span: span.end)
        behind = bisect_left(self.spans, interval.end, lo=first, key=lambda span: span.start)
        parts = (
            Span(max(s.start, interval.start), min(s.end, interval.end), s.served, s.asked_ms)
            for s in self.spans[first:behind]
        )
        return Coverage(tuple(parts))


def _claim(kept: list[Span], new: Span) -> None:
    """Insert a span into sorted, disjoint ones: it overrides others and joins its like.

    Bisection, since a series with many gaps has many spans.
    """
    first = bisect_left(kept, new.start, key=lambda span: span.end)
    behind = bisect_right(kept, new.end, lo=first, key=lambda span: span.start)
    start, end, asked = new.start, new.end, new.asked_ms
    left: list[Span] = []
    right: list[Span] = []
    for old in kept[first:behind]:  # all that overlap or touch
        if old.served != new.served:
            if old.start < new.start:
                left.append(Span(old.start, new.start, old.served, old.asked_ms))
            if old.end > new.end:
                right.append(Span(new.end, old.end, old.served, old.asked_ms))
        elif old.start < new.start or old.end > new.end:
            start, end = min(start, old.start), max(end, old.end)
            asked = min(asked, old.asked_ms)
    kept[first:behind] = [*left, Span(start, end, new.served, asked), *right]


# --------------------------------------------------------------------------- identities

_EXCHANGE_ID = re.compile(r"[a-z0-9]{2,40}\Z")
_DATASET_FILE = re.compile(
    r"(?P<exchange>[a-z0-9]+)_(?P<market>spot|swap|future)_(?P<timeframe>[0-9]+[a-zA-Z]+)\Z"
)


@dataclass(frozen=True, slots=True)
class DatasetKey:
    """One dataset: an exchange's candles of one market type and timeframe.

    The only place that writes and reads the stem of file names,
    ``{exchange}_{market_type}_{timeframe}``.
    """

    exchange: str
    market_type: MarketType
    timeframe: Timeframe

    def __post_init__(self) -> None:
        if not _EXCHANGE_ID.match(self.exchange):  # an id becomes part of a path
            raise UnknownExchangeError(
                f"{self.exchange!r} is not an exchange id; write it like 'binance'",
                value=self.exchange,
                suggestions=[],
            )

    @classmethod
    def of(
        cls, exchange: str, market_type: str | MarketType, timeframe: str | Timeframe
    ) -> DatasetKey:
        """Build a key from user input."""
        return cls(
            str(exchange).strip().lower(),
            MarketType.parse(market_type),
            Timeframe.parse(timeframe),
        )

    @property
    def stem(self) -> str:
        """The file name without its suffix, such as ``binance_spot_1h``."""
        return f"{self.exchange}_{self.market_type}_{self.timeframe.file_token}"

    @classmethod
    def from_stem(cls, stem: str) -> DatasetKey | None:
        """Read a key back from a file's stem; None when the name is not one of ours."""
        match = _DATASET_FILE.match(stem)
        if match is None:
            return None
        try:
            key = cls.of(match["exchange"], match["market"], match["timeframe"])
        except (UnknownTimeframeError, UnknownExchangeError):
            return None
        return key if key.stem == stem else None

    def __str__(self) -> str:
        return f"{self.exchange} {self.market_type} {self.timeframe}"


@dataclass(frozen=True, slots=True)
class Market:
    """One market of an exchange, as ccxt describes it."""

    symbol: str
    """ccxt's unified symbol: ``BTC/USDT``, ``BTC/USDT:USDT``, ``BTC/USDT:USDT-251226``."""
    id: str
    """The exchange's own name for it: ``BTCUSDT``."""
    type: MarketType
    base: str
    quote: str
    settle: str | None = None
    active: bool = True
    linear: bool | None = None
    """Contracts settled in the quote currency; None for spot."""
    contract_size: float = 1.0
    """Base units per contract; 1 for spot."""
    created_ms: int | None = None
    """When the exchange says it was listed, UTC epoch milliseconds; often unknown."""


def counted(number: int, noun: str) -> str:
    """Format a number with its noun.

    >>> counted(1, "symbol"), counted(2000, "symbol"), counted(1, "series")
    ('1 symbol', '2,000 symbols', '1 series')
    """
    return f"{number:,} {noun}" if number == 1 or noun.endswith("s") else f"{number:,} {noun}s"


def format_ms(ms: int) -> str:
    """Format UTC epoch milliseconds for people.

    >>> format_ms(1_700_000_000_000)
    '2023-11-14 22:13:20 UTC'
    """
    try:
        moment = datetime.fromtimestamp(ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"
    text = moment.strftime("%Y-%m-%d %H:%M:%S")
    return f"{text.removesuffix(':00')} UTC"
