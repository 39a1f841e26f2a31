"""Fetch what an API does not reach back to from archives: Gate's files of a month.

The API cannot be asked for the same candles, but for the days they make. So each
day of a file is compared with the API's own candle of that day, volume and all:
where they are the same the file has every trade of the day, and what it lacks
was not traded. Days that differ, or that the API does not show, are not used.

Files have no checksums but gzip's own. Layout and columns: gate.io/article/21688
and files read by others, see docs/decisions/008.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backtester.data.candles import COLUMNS, Candles
from backtester.data.errors import BadResponseError, DataError
from backtester.data.events import PageFetched
from backtester.data.fetching.archives import reader
from backtester.data.fetching.archives.plan import ArchiveFile, sunken_files
from backtester.data.fetching.archives.source import ArchiveConflict, ArchiveSource
from backtester.data.fetching.fetcher import SeriesJob
from backtester.data.fetching.paging import Ask, Finding
from backtester.data.fetching.retries import trying
from backtester.data.model import Interval, Market, Served, Timeframe, format_ms
from backtester.data.resampling import reduce_groups, rule_of

__all__ = ["DeepArchive", "compared"]

_log = logging.getLogger(__name__)

_DAY = Timeframe.parse("1d")
_VOLUME = COLUMNS.index("Volume")
_AT_ONCE = 4
"""Symbols; each reads its files one after the other."""
_MISSES_ENOUGH = 2
_SAME_VOLUME = 1e-9
"""Relative: sums of decimals, rounded twice."""


class DeepArchive(ArchiveSource):
    """Archives that begin where the API ends."""

    deep = True

    def plan(self, job: SeriesJob) -> None:
        self._files[job.symbol] = sunken_files(job.sunk, self._now_ms)

    async def fetch(
        self,
        jobs: Sequence[SeriesJob],
        learn: Callable[[SeriesJob, Candles, list[Finding]], None],
    ) -> dict[str, list[Interval]]:
        left: dict[str, list[Interval]] = {}
        work = iter(jobs)

        async def worker() -> None:
            for job in work:  # the workers share the iterator
                answered = [
                    part
                    for file in self._files[job.symbol]
                    for part in await self._answered(job, file, learn)
                ]
                left[job.symbol] = [rest for part in job.sunk for rest in part.subtract(answered)]

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_AT_ONCE):
                    group.create_task(worker())
        except BaseExceptionGroup as errors:  # one failure is what the caller can act on
            raise errors.exceptions[0] from None
        return left

    async def _answered(
        self,
        job: SeriesJob,
        file: ArchiveFile,
        learn: Callable[[SeriesJob, Candles, list[Finding]], None],
    ) -> list[Interval]:
        name = f"{job.market.id}-{file.label.replace('-', '')}.csv.gz"
        if self._unreachable is not None or self._misses[job.symbol] >= _MISSES_ENOUGH:
            self._refuse(job.symbol, name, "not asked for, as others were of no use")
            return []
        try:
            candles = await self._read(job.market, file, name)
            days = await self._days(job.market, file.span)
        except DataError as error:
            self._leave(job.symbol, name, error)
            return []
        same, conflicts = compared(candles, days, self._timeframe, file.span)
        for one in conflicts:
            self._tell(job.symbol, name, one)
        answered = [
            part for day in same for wanted in file.wanted if (part := day.intersection(wanted))
        ]
        self._misses[job.symbol] = 0 if answered else self._misses[job.symbol] + 1
        if answered:
            self.used.setdefault(job.symbol, []).append(name)
            learn(job, candles, [Finding(part, Served.MARKET) for part in answered])
            found = sum(len(candles.within(part)) for part in answered)
            self._on_event(PageFetched(job.symbol, file.span, found))
        else:
            self._refuse(job.symbol, name, "no day of it is what the API shows of that day")
        return answered

    async def _read(self, market: Market, file: ArchiveFile, name: str) -> Candles:
        """Download and parse a file, and again if it is bad: no checksum clears the transfer."""

        def parse(packed: bytes) -> Candles:
            return reader.read_gate(packed, name, self._timeframe, file.span)

        month = file.label.replace("-", "")
        url = f"{self._url}/spot/candlesticks_{self._timeframe}/{month}/{name}"
        packed = await self._get(url, market.symbol)
        try:
            return await asyncio.to_thread(parse, packed)
        except BadResponseError as error:
            _log.warning("%s: %s; downloading it again", market.symbol, error)
        packed = await self._get(url, market.symbol)
        return await asyncio.to_thread(parse, packed)

    async def _days(self, market: Market, span: Interval) -> Candles:
        ask = Ask(span.start, span.end, _DAY.steps(span), _DAY)
        return await trying(
            lambda: self._connection.candles(market, _DAY, ask), market.symbol, self._on_event
        )

    def _tell(self, symbol: str, name: str, one: _Conflict) -> None:
        _log.warning(
            "%s: the day of %s is %s in %s and %s in the API's answer; it is not used",
            symbol, format_ms(one.open_time), one.archived or "missing", name, one.answered,
        )  # fmt: skip
        self._on_event(
            ArchiveConflict(symbol, name, one.open_time, one.archived or (), one.answered)
        )


@dataclass(frozen=True, slots=True)
class _Conflict:
    open_time: int
    archived: tuple[float, ...] | None
    answered: tuple[float, ...] | None


def compared(
    candles: Candles, days: Candles, timeframe: Timeframe, span: Interval
) -> tuple[list[Interval], list[_Conflict]]:
    """Compare a file with the API's days.

    Parameters
    ----------
    candles : Candles
        Of the file.
    days : Candles
        Of the API.
    timeframe : Timeframe
        Of the file.
    span : Interval
        The month.

    Returns
    -------
    (list of Interval, list of conflicts)
        The days that are the same in both, or that neither has between days that the API shows;
        and those that differ or that one lacks.
    """
    ours = _days_made_of(candles, span)
    # Flat candles that stand for silence begin with the close before; the API's day need not.
    traded = _days_made_of(candles.take(candles.values[:, _VOLUME] > 0), span)
    theirs = dict(zip(days.open_time.tolist(), days.values, strict=True))
    same, conflicts = [], []
    for day in _days_of(span):
        mine, other = ours.get(day.start), theirs.get(day.start)
        if mine is None and other is None:
            between = len(days) and days.open_time[0] < day.start < days.open_time[-1]
            same += [day] if between else []
        elif other is not None and any(
            made is not None and _alike(made, other) for made in (mine, traded.get(day.start))
        ):
            same.append(day)
        else:
            conflicts.append(_Conflict(day.start, _plain(mine), _plain(other)))
    return same, conflicts


def _days_made_of(candles: Candles, span: Interval) -> dict[int, np.ndarray]:
    rules = [rule_of(name) for name in COLUMNS]
    opens, columns = reduce_groups(candles.open_time, list(candles.values.T), rules, _DAY, [span])
    return dict(zip(opens.tolist(), np.stack(columns, axis=1), strict=True))


def _alike(mine: np.ndarray, other: np.ndarray) -> bool:
    volume = abs(mine[_VOLUME] - other[_VOLUME]) <= _SAME_VOLUME * abs(other[_VOLUME])
    return bool(volume) and np.array_equal(mine[:4], other[:4])


def _days_of(span: Interval) -> Iterator[Interval]:
    for opened in _DAY.grid(span).tolist():
        yield Interval(opened, _DAY.next(opened))


def _plain(row: np.ndarray | None) -> tuple[float, ...] | None:
    return None if row is None else tuple(row.tolist())
