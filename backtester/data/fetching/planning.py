"""Decide what to ask for: turn the wanted and the covered intervals into pages.

Pure: the clock, the coverage and the page size are arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from backtester.data.model import Coverage, Interval, Timeframe

__all__ = ["Page", "closed_end", "cut", "interleave", "missing", "pages_needed", "reachable_from"]


@dataclass(frozen=True, slots=True)
class Page:
    """One window to ask for: at most a page of grid times of one symbol."""

    symbol: str
    interval: Interval
    """On the timeframe's grid."""


def closed_end(timeframe: Timeframe, now_ms: int, settle_ms: int) -> int:
    """Return the end of the closed candles: the open time of the first that is not closed.

    A candle is closed when the exchange's clock `now_ms` has passed its close by
    `settle_ms`, since exchanges publish the last trades a moment late.

    >>> closed_end(Timeframe.parse("1h"), 7_200_500, 2_000)
    3600000
    >>> closed_end(Timeframe.parse("1h"), 7_202_000, 2_000)
    7200000
    """
    return timeframe.floor(now_ms - settle_ms)


def reachable_from(timeframe: Timeframe, now_ms: int, depth: int) -> int:
    """Return the open time of the oldest of the `depth` newest candles, the forming one included.

    >>> reachable_from(Timeframe.parse("1h"), 7_200_500, 2)
    3600000
    """
    return timeframe.next(now_ms, 1 - depth)


def missing(
    wanted: Mapping[str, Interval], covered: Mapping[str, Coverage]
) -> dict[str, list[Interval]]:
    """Return per symbol the parts of `wanted` never asked for; no entry where there are none."""
    parts = {symbol: covered[symbol].missing(whole) for symbol, whole in wanted.items()}
    return {symbol: intervals for symbol, intervals in parts.items() if intervals}


def cut(
    symbol: str, intervals: list[Interval], timeframe: Timeframe, page_size: int
) -> Iterator[Page]:
    """Cut the intervals of one symbol into pages of at most `page_size` grid times, in order."""
    for interval in intervals:
        at, last = timeframe.index(interval.start), timeframe.index(interval.end - 1)
        while at <= last:
            upto = min(at + page_size, last + 1)
            start = max(timeframe.open_time(at), interval.start)
            yield Page(symbol, Interval(start, min(timeframe.open_time(upto), interval.end)))
            at = upto


def pages_needed(intervals: list[Interval], timeframe: Timeframe, page_size: int) -> int:
    """Count the pages that `cut` gives, without making them."""
    steps = (timeframe.index(i.end - 1) - timeframe.index(i.start) + 1 for i in intervals)
    return sum(-(-count // page_size) for count in steps)


def interleave(streams: list[Iterator[Page]]) -> Iterator[Page]:
    """Take pages from all symbols in turn, so that none waits for another's history."""
    for row in zip_longest(*streams):
        yield from (page for page in row if page is not None)
