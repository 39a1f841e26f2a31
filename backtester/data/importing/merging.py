"""Decide which candles of a file are new, compared with what is stored. Pure.

An exchange's word counts more than a file's: a stored candle that the exchange answered
stays, and a candle that it has confirmed not to exist is not taken. Candles that were
handed in before are revised.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from backtester.data.candles import Answer, Candles, Series, given
from backtester.data.model import Served, Timeframe

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Difference", "News", "news_of"]

_ABSENCE_PROVEN = frozenset({Served.MARKET, Served.NOT_LISTED, Served.DELISTED})
"""What the exchange says of a time without a candle is about the market, not about its API."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A stored candle that a file shows differently."""

    open_time: int
    """UTC epoch milliseconds."""
    stored: tuple[float, ...]
    """Open, high, low, close, volume."""
    file: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class News:
    """What a file adds to a series."""

    answers: list[Answer]
    """To commit; empty where everything is known."""
    new: int
    """Candles that were not stored."""
    revised: int
    """Candles handed in before that are different now."""
    known: int
    """Candles that are stored with the very same values."""
    kept: list[Difference] = field(default_factory=list)
    """Where the exchange's own answer stays."""
    absent: int = 0
    """Candles whose absence the exchange has confirmed; not taken."""


def news_of(
    symbol: str, candles: Candles, stored: Series, timeframe: Timeframe, *, asked_ms: int
) -> News:
    """Compare a file's candles with what is stored of their symbol.

    Parameters
    ----------
    symbol : str
        Unified.
    candles : Candles
        Screened.
    stored : Series
    timeframe : Timeframe
    asked_ms : int
        When this is done, UTC epoch milliseconds.
    """
    times = candles.open_time
    there, same = _compared(candles, stored.candles)
    spans = _span_numbers(times, stored)
    covered = spans >= 0
    by_exchange = _served_in(spans, stored, frozenset(Served) - {Served.GIVEN})
    absent = ~there & _served_in(spans, stored, _ABSENCE_PROVEN)
    kept = there & ~same & by_exchange
    revised = there & ~same & ~by_exchange
    # What is stored but was never answered for counts as known, and is answered for from now on.
    wanted = (~there & ~absent) | revised | (same & ~covered)
    answers = given(symbol, candles.take(wanted), timeframe, asked_ms=asked_ms)
    return News(
        answers,
        new=int((~there & ~absent).sum()),
        revised=int(revised.sum()),
        known=int(same.sum()),
        kept=_differences(candles.take(kept), stored.candles),
        absent=int(absent.sum()),
    )


def _compared(candles: Candles, stored: Candles) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return, for every candle, whether its time is stored, and whether with the very same bits."""
    there = np.zeros(len(candles), bool)
    same = np.zeros(len(candles), bool)
    if not len(stored):
        return there, same
    stored = stored.plain()  # files have no further columns
    at = np.minimum(np.searchsorted(stored.open_time, candles.open_time), len(stored) - 1)
    there = stored.open_time[at] == candles.open_time
    mine = np.ascontiguousarray(candles.values[there]).view(np.int64)
    theirs = np.ascontiguousarray(stored.values[at[there]]).view(np.int64)
    same[there] = (mine == theirs).all(axis=1)
    return there, same


def _span_numbers(times: NDArray[np.int64], stored: Series) -> NDArray[np.int64]:
    """Return the number of the coverage span that each time lies in; -1 for none."""
    spans = stored.coverage.spans
    if not spans:
        return np.full(len(times), -1)
    starts = np.array([span.start for span in spans])
    ends = np.array([span.end for span in spans])
    at = np.searchsorted(starts, times, side="right") - 1
    return np.where((at >= 0) & (times < ends[at]), at, -1)


def _served_in(
    numbers: NDArray[np.int64], stored: Series, meanings: frozenset[Served]
) -> NDArray[np.bool_]:
    meant = np.array([*(span.served in meanings for span in stored.coverage), False])
    return meant[numbers]  # the last one stands for -1, no span


def _differences(candles: Candles, stored: Candles) -> list[Difference]:
    at, stored = np.searchsorted(stored.open_time, candles.open_time), stored.plain()
    return [
        Difference(int(time), tuple(stored.values[place].tolist()), tuple(row.tolist()))
        for time, place, row in zip(candles.open_time, at, candles.values, strict=True)
    ]
