"""The rules that stored series must obey, besides having intact bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from backtester.data.candles import Candles, Series, faults
from backtester.data.model import DatasetKey, Interval, Served, Timeframe

__all__ = ["Problem", "problems_of"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something stored that cannot be trusted."""

    key: DatasetKey
    symbol: str | None
    """None where it is the whole file, and nobody knows whose."""
    interval: Interval | None
    """The candle times concerned; None for all of the symbol's."""
    what: str


def problems_of(key: DatasetKey, symbol: str, series: Series) -> list[Problem]:
    """List what is wrong with a series that could be read.

    Candles must be in order, on the grid, finite and in OHLC order; every one of them must be
    covered by an answer that may have had candles.
    """
    timeframe = key.timeframe
    broken = [
        (run, f"a candle {what}")
        for what, bad in faults(series.candles, timeframe)
        for run in _runs(series.candles.take(bad), timeframe)
    ]
    return [
        Problem(key, symbol, run, what) for run, what in [*broken, *_uncovered(series, timeframe)]
    ]


def _uncovered(series: Series, timeframe: Timeframe) -> Iterator[tuple[Interval, str]]:
    times, claimed = series.candles.open_time, np.zeros(len(series.candles), bool)
    for span in series.coverage:
        first, last = np.searchsorted(times, (span.start, span.end))
        claimed[first:last] = True
        if span.served not in (Served.MARKET, Served.GIVEN) and first < last:
            inside = Candles(times[first:last], series.candles.values[first:last])
            word = span.served.value.replace("_", " ")
            for run in _runs(inside, timeframe):
                yield run, f"candles where the coverage says {word}"
    for run in _runs(series.candles.take(~claimed), timeframe):
        yield run, "candles that no answer covers"


def _runs(candles: Candles, timeframe: Timeframe) -> list[Interval]:
    """Join neighbouring candles into intervals, whole ones also where they are off the grid."""
    runs: list[Interval] = []
    for ms in candles.open_time.tolist():
        start, end = timeframe.floor(ms), timeframe.next(ms)
        if runs and start <= runs[-1].end:
            runs[-1] = Interval(runs[-1].start, max(end, runs[-1].end))
        else:
            runs.append(Interval(start, end))
    return runs
