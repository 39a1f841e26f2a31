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
    """What is about to be asked, and what that costs. Sent once, before the first page."""

    exchange: str
    symbols: int
    """How many symbols need anything at all."""
    requests: int
    """Pages to ask; listing look-ups and confirmations of empty answers come on top."""
    candles: int
    """Grid times in those pages; the market may have fewer."""
    weight: int
    """The exchange's own cost units."""
    seconds: float
    """At the budget's pace, a lower bound; 0 when unlimited."""
    size_bytes: int
    """Candles in memory, at 48 bytes each."""


@dataclass(frozen=True, slots=True)
class PageFetched(Event):
    """One page came and passed the checks."""

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
    """The budget is spent or the exchange asked for a pause."""

    exchange: str
    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class SymbolFailed(Event):
    """One symbol ended without all of what was asked."""

    symbol: str
    reason: str


@dataclass(frozen=True, slots=True)
class CandlesRevised(Event):
    """The exchange answered differently for stored closed candles."""

    symbol: str
    count: int


@dataclass(frozen=True, slots=True)
class FetchFinished(Event):
    """The account of the whole fetch."""

    requests: int
    candles: int
    seconds: float


OnEvent = Callable[[Event], None]
