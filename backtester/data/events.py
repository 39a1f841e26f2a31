"""Progress as data: frozen events handed to `on_event`.

Any callable of one argument is a hook. Hooks are called from the thread that
fetches; what they raise ends the fetch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backtester.data.model import Interval

__all__ = [
    "CandlesRevised",
    "Event",
    "FetchFinished",
    "FetchPlanned",
    "OnEvent",
    "PageFetched",
    "Retrying",
    "SymbolFailed",
    "Waiting",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class FetchPlanned(Event):
    """The plan of a fetch and its cost. Sent once, before the first page."""

    exchange: str
    symbols: int
    """Number of symbols with anything to fetch."""
    requests: int
    """Pages to request, not counting market lists and second looks at empty answers."""
    candles: int
    """Candle times in those pages; the market may have fewer candles."""
    weight: int
    """Cost of the requests in the exchange's own units."""
    seconds: float
    """Shortest possible duration at the rate limit; 0 when unlimited."""
    size_bytes: int
    """Candles in memory, at 48 bytes each."""


@dataclass(frozen=True, slots=True)
class PageFetched(Event):
    """One page arrived and passed the checks."""

    symbol: str
    interval: Interval
    candles: int


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """A request failed and will be tried again."""

    symbol: str
    attempt: int
    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting(Event):
    """The rate limit is reached, or the exchange asked for a pause."""

    exchange: str
    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class SymbolFailed(Event):
    """One symbol could not be fetched completely."""

    symbol: str
    reason: str


@dataclass(frozen=True, slots=True)
class CandlesRevised(Event):
    """The exchange changed closed candles that were stored."""

    symbol: str
    count: int


@dataclass(frozen=True, slots=True)
class FetchFinished(Event):
    """Totals of the whole fetch."""

    requests: int
    candles: int
    seconds: float


OnEvent = Callable[[Event], None]
