"""A market as a set of open times, and exchanges that answer for it: honest, careless or lying."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from backtester.data.candles import Answer, Candles, Series
from backtester.data.errors import BadResponseError
from backtester.data.fetching.paging import Ask, Reader, read_window
from backtester.data.fetching.planning import Page
from backtester.data.model import Interval, Timeframe
from tests.support.builders import candles_at

T = TypeVar("T")
Fault = Callable[[Candles], Candles]


def nothing(_candles: Candles) -> Candles:
    return Candles.empty()


def beheaded(candles: Candles) -> Candles:
    """Leave out the first half: at least one candle, if there is one."""
    return candles.take(np.arange(len(candles)) >= (len(candles) + 1) // 2)


def cut_short(candles: Candles) -> Candles:
    """Leave out the second half: at least one candle, if there is one."""
    return candles.take(np.arange(len(candles)) < len(candles) // 2)


def without_middle(candles: Candles) -> Candles:
    at = np.arange(len(candles))
    return candles.take((at < len(candles) // 3) | (at > 2 * len(candles) // 3))


FAULTS: dict[str, Fault] = {
    "nothing": nothing,
    "no first half": beheaded,
    "no second half": cut_short,
    "no middle": without_middle,
}


@dataclass
class ModelExchange:
    """Answers asks about one market.

    Honest ones of Binance's kind (`from_start`) give the first `limit` candles of a window, of
    all from `since` on, or the newest. Others know windows only, and cut a page that is larger
    than their `cap` at either end.
    """

    timeframe: Timeframe
    times: list[int]
    """Open times of all candles there are, in order; what opens after `now_ms` is not there yet."""
    now_ms: int
    from_start: bool = True
    cap: int = 10**9
    newest_first: bool = False
    """Cut a page that is too large at its start."""
    late: frozenset[int] = frozenset()
    """Candles that have closed but are not shown yet."""
    fault: Callable[[int], Fault | None] = lambda _number: None
    """What is wrong with the answer of this number, counted from 0."""
    asks: list[Ask] = field(default_factory=list)

    def shown(self, timeframe: Timeframe | None = None) -> list[int]:
        open_now = [t for t in self.times if t <= self.now_ms and t not in self.late]
        if timeframe is None:
            return open_now
        return sorted({timeframe.floor(t) for t in open_now})

    def answer(self, ask: Ask) -> Candles:
        candles = self._honest(ask)
        wrong = self.fault(len(self.asks))
        self.asks.append(ask)
        return candles if wrong is None else wrong(candles)

    def _honest(self, ask: Ask) -> Candles:
        assert ask.limit >= 1
        most = min(ask.limit, self.cap)
        times = self.shown(ask.timeframe)
        if self.from_start and ask.since is None:
            return candles_at([t for t in times if ask.until is None or t < ask.until][-most:])
        assert ask.since is not None, "only exchanges of Binance's kind know the newest"
        assert self.from_start or ask.until is not None, "others know windows only"
        inside = [t for t in times if t in ask.interval]
        return candles_at(inside[-most:] if self.newest_first else inside[:most])

    # -------------------------------------------------------------- driving readers

    def reader(self, inception: int | None = None) -> Reader:
        return Reader(self.timeframe, self.from_start, self.now_ms, inception)

    def drive(self, walk: Generator[Ask, Candles, T]) -> T:
        """Answer what a reader of `paging` asks until it is done."""
        try:
            ask = next(walk)
            while True:
                ask = walk.send(self.answer(ask))
        except StopIteration as stop:
            return stop.value

    def read(self, window: Interval, reader: Reader, tries: int = 1) -> list[Answer]:
        """Read one window as the fetcher does: anew after an answer that cannot be."""
        for left in reversed(range(tries)):
            try:
                candles, findings = self.drive(read_window(window, reader))
            except BadResponseError:
                if not left:
                    raise
            else:
                return [
                    Answer("X", f.interval, candles.within(f.interval), f.served, self.now_ms)
                    for f in findings
                ]
        raise AssertionError

    def read_all(self, pages: list[Page], reader: Reader, tries: int = 1) -> Series:
        """Read pages in turn, leaving out what earlier answers proved to be empty."""
        series, silences = Series(), []
        for page in pages:
            if page.interval.subtract(silences):
                found = self.read(page.interval, reader, tries)
                silences += [a.interval for a in found if not len(a.candles)]
                series = series.with_answers(found)
        return series
