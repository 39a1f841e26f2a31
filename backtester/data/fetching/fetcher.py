"""Carry out a plan: many windows of many symbols at once, each read whole.

The edge between the pure readers of `paging` and an open `Exchange`: it sends
what they ask, retries what may pass, hands on what is proven, and keeps one
symbol's failure from touching the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from backtester.data.candles import Answer, Candles
from backtester.data.errors import (
    AccessDeniedError,
    BannedError,
    DataError,
    ExchangeUnavailableError,
    NotServedError,
    RateLimitedError,
    TransientFetchError,
)
from backtester.data.events import Event, FetchPlanned, PageFetched, SymbolFailed
from backtester.data.fetching.archives.plan import SAMPLE
from backtester.data.fetching.exchange import Exchange
from backtester.data.fetching.paging import (
    FIRST_MARKET_MS,
    Ask,
    Finding,
    Reader,
    find_inception,
    find_oldest,
    read_if_listed,
    read_window,
    search_inception,
)
from backtester.data.fetching.planning import (
    Page,
    cut,
    interleave,
    pages_needed,
    reachable_from,
)
from backtester.data.fetching.retries import trying
from backtester.data.model import Interval, Market, Served, Timeframe

if TYPE_CHECKING:
    from backtester.data.fetching.archives.source import ArchiveSource

__all__ = ["Fetcher", "SeriesJob"]

T = TypeVar("T")

IN_FLIGHT = 24
"""Requests under way at once, at the most: enough for any budget at 200 ms, few enough to hold in
memory. See `Exchange.at_once`."""
_BYTES_PER_CANDLE = 48
_PAGES_WORTH_A_PROBE = 4
"""From so many pages on, asking for the inception first costs less than it may save."""


_EDGE = 20
"""How far to keep from the edge of what an exchange says it serves, in candles: it moves on."""


class _GivenUpError(Exception):
    """One request failed for good: not to be tried again with the walk it belongs to."""

    def __init__(self, error: TransientFetchError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True)
class SeriesJob:
    """What to fetch of one symbol, and how far it has come."""

    market: Market
    intervals: list[Interval]
    """Never asked for, on the grid, in order."""
    reader: Reader
    answers: list[Answer] = field(default_factory=list)
    silences: list[Interval] = field(default_factory=list)
    """Proven to hold no candle; may reach beyond the page that was asked."""
    first_page: PageFetched | None = None
    """Its first page, if that was read before all else."""
    sunk: list[Interval] = field(default_factory=list)
    """Older than the API is sure to reach; archives may have it."""
    reach: int | None = None
    """The oldest candle that the API was seen to reach back to, UTC epoch milliseconds."""
    shown: int = 0
    """How many candles have come."""
    error: DataError | None = None

    @property
    def symbol(self) -> str:
        return self.market.symbol

    def knows(self, window: Interval) -> bool:
        """Tell whether an answer to another window has proven this one empty."""
        return any(s.start <= window.start and window.end <= s.end for s in self.silences)


class Fetcher:
    """Fetches jobs from one exchange.

    Parameters
    ----------
    exchange : Exchange
        Open.
    timeframe : Timeframe
    keep : callable
        Given every answer as it comes, to be stored.
    on_event : callable
    archives : ArchiveSource, optional
        Asked first for what it has.
    retain : bool
        Whether jobs are to end with their answers; else these are only handed to `keep`.
    """

    def __init__(
        self,
        exchange: Exchange,
        timeframe: Timeframe,
        keep: Callable[[Answer], None],
        on_event: Callable[[Event], None],
        archives: ArchiveSource | None = None,
        *,
        retain: bool = True,
    ) -> None:
        self._exchange = exchange
        self._timeframe = timeframe
        self._keep = keep
        self._on_event = on_event
        self._archives = archives
        self._retain = retain
        self._stop: DataError | None = None
        self._page_size = exchange.capability.page_of(timeframe)
        self._at_once = exchange.at_once(IN_FLIGHT)
        self._begun_ms = time.time_ns() // 1_000_000
        self._last_success = time.monotonic()
        self._too_old = 0
        """Before this the exchange has refused to serve candles, UTC epoch milliseconds."""

    async def run(self, jobs: list[SeriesJob]) -> None:
        """Fetch all jobs; each ends with all its answers, or with its error set."""
        await _in_parallel((self._begin(job) for job in jobs), self._at_once)
        sound = [job for job in jobs if job.error is None]
        if self._archives is not None:
            for job in sound:
                self._archives.plan(job)
        self._on_event(self._plan(jobs))
        for job in jobs:
            if job.first_page is not None:
                self._on_event(job.first_page)
                read = job.first_page.interval
                job.intervals = [rest for one in job.intervals for rest in one.subtract([read])]
        pages = self._pages([(job, job.intervals) for job in jobs])
        if self._archives is None:
            await _in_parallel(pages, self._at_once)
            await _in_parallel((self._reach_back(job) for job in jobs if job.sunk), self._at_once)
            return
        left: dict[str, list[Interval]] = {}
        async with _beside(pages, self._at_once):
            left = await self._archives.fetch(sound, self._learn)
        if (failure := self._archives.failure) is not None:
            for job in sound:
                self._fail(job, failure)
        if self._archives.deep:  # nobody else has it
            for job in sound:
                self._sink(job, left[job.symbol])
            return
        rest = self._pages([(job, left[job.symbol]) for job in sound])
        await _in_parallel(rest, self._at_once)

    def _pages(self, parts: list[tuple[SeriesJob, list[Interval]]]) -> Iterator[Awaitable[None]]:
        """Give the reading of intervals page by page, symbols in turn."""
        by_symbol = {job.symbol: job for job, _ in parts}
        pages = interleave(
            [
                cut(job.symbol, intervals, self._timeframe, self._page_size)
                for job, intervals in parts
            ]
        )
        return (self._read(by_symbol[page.symbol], page) for page in pages)

    async def forming(self, market: Market, open_time: int) -> Candles:
        """Ask for the candle that is still forming; it is handed out and never stored."""
        ask = Ask(open_time, self._timeframe.next(open_time), 1)
        return await self._trying(market.symbol, lambda: self._ask(market, ask))

    # ------------------------------------------------------------------ one symbol

    async def _begin(self, job: SeriesJob) -> None:
        """Drop what cannot be there: older than the API reaches, or before the inception.

        The inception is looked for where the first page does not begin with its first candle.
        """
        capability, reader = self._exchange.capability, job.reader
        if capability.depth is not None:
            oldest = reachable_from(self._timeframe, reader.now_ms, capability.depth)
            self._drop_before(job, oldest, Served.BEYOND_DEPTH)
        needed = pages_needed(job.intervals, self._timeframe, self._page_size)
        # Where history is cut off, a first candle that is shown need not be the first there was.
        askable = reader.inception is None and capability.depth is None
        worth = askable and needed >= _PAGES_WORTH_A_PROBE
        if worth and not await self._read_first(job) and not self._too_old:
            await self._probe(job)
        self._drop_before(job, self._too_old, Served.BEYOND_DEPTH)
        if job.error is None and reader.inception:
            self._drop_before(job, reader.inception, Served.NOT_LISTED)

    def _drop_before(self, job: SeriesJob, limit_ms: int, served: Served) -> None:
        """Take what lies before a time off the job's list, as answered."""
        if limit_ms <= 0:
            return
        before = Interval(0, limit_ms)
        dropped = [part for one in job.intervals if (part := one.intersection(before))]
        if dropped and served is Served.NOT_LISTED:
            dropped = [before]  # proven for all that lies before, whatever was asked
        if served is Served.BEYOND_DEPTH and self._may_have_older():
            job.sunk = dropped
        else:
            self._learn(job, Candles.empty(), [Finding(part, served) for part in dropped])
        job.intervals = [rest for one in job.intervals for rest in one.subtract([before])]

    def _may_have_older(self) -> bool:
        """Tell whether candles may be had from before those that the API is sure to have."""
        deep = self._archives is not None and self._archives.deep
        return deep or not self._exchange.capability.depth_by_clock

    async def _reach_back(self, job: SeriesJob) -> None:
        """Read what the newest candles reach back to where times among them lack theirs.

        The API holds so many candles, not so many times. One request tells where they begin;
        where all of them have come already, none is needed.
        """
        if job.error is not None or self._holds_no_more(job):
            self._sink(job, job.sunk)
            return
        reach = Interval(job.sunk[0].start, job.sunk[-1].end)
        try:
            oldest = await self._drive(job, lambda: find_oldest(reach, self._page_size, job.reader))
        except DataError as error:
            self._fail(job, error)
            return
        job.reach = oldest
        held = [] if oldest is None else [Interval(oldest, reach.end)]
        for part in job.sunk:
            for rest in part.subtract(held):
                self._sink(job, [rest])
            for kept in held:
                if within := part.intersection(kept):
                    await self._read(job, Page(job.symbol, within))

    def _holds_no_more(self, job: SeriesJob) -> bool:
        """Tell whether every time that the API is sure to reach back to has shown its candle."""
        if not job.intervals:
            return False
        sure = Interval(job.sunk[-1].end, job.intervals[-1].end)
        newest = self._timeframe.next(sure.end) >= self._timeframe.floor(job.reader.now_ms)
        return newest and job.shown >= self._timeframe.steps(sure)

    def _sink(self, job: SeriesJob, parts: list[Interval]) -> None:
        """Note what neither the API nor archives have, unless the fetch has failed."""
        if job.error is None:
            self._learn(job, Candles.empty(), [Finding(p, Served.BEYOND_DEPTH) for p in parts])

    async def _read_first(self, job: SeriesJob) -> bool:
        """Read the first page if its market was listed by then; tell whether it was, or failed."""
        if job.intervals[0].start < max(FIRST_MARKET_MS, job.market.created_ms or 0):
            return False
        if self._archives is not None and self._archives.has_some_of(job):
            return False
        page = next(cut(job.symbol, job.intervals, self._timeframe, self._page_size))
        try:
            found = await self._drive(job, lambda: read_if_listed(page.interval, job.reader))
        except DataError as error:
            if self._is_too_old(job, error):
                return False
            self._fail(job, error)
            return True
        if found is None:
            return False
        self._learn(job, *found)
        job.first_page = PageFetched(job.symbol, page.interval, len(found[0]))
        return True

    async def _probe(self, job: SeriesJob) -> None:
        """Find a symbol's inception by asking."""

        def probe() -> Generator[Ask, Candles, int | None]:
            if self._exchange.capability.from_start:
                return find_inception(job.reader)
            ladder = [*self._exchange.coarser(self._timeframe), self._timeframe]
            size = min(self._exchange.capability.page_of(rung) for rung in ladder)
            return search_inception(ladder, size, job.reader)

        try:
            inception = await self._drive(job, probe)
        except DataError as error:
            if not self._is_too_old(job, error):
                self._fail(job, error)
            return
        if inception is None:
            self._fail(job, self._no_candle(job))

    def _plan(self, jobs: list[SeriesJob]) -> FetchPlanned:
        """Say what the pages of all jobs will cost."""
        capability, size = self._exchange.capability, self._page_size
        todo = [job for job in jobs if job.error is None and job.intervals]
        requests = candles = weight = 0
        for job in todo:
            pages = pages_needed(job.intervals, self._timeframe, size)
            steps = sum(self._timeframe.steps(interval) for interval in job.intervals)
            requests, candles = requests + pages, candles + steps
            last = min(max(steps - (pages - 1) * size, 1), size)
            weight += (pages - 1) * capability.weight(size) + capability.weight(last)
        symbols = {job.symbol for job in todo}
        if self._archives is not None:
            files, steps, theirs = self._archives.planned
            requests, candles, symbols = requests + files, candles + steps, symbols | theirs
            weight += files * capability.weight(SAMPLE)  # a page of each, to compare
        return FetchPlanned(
            exchange=self._exchange.id,
            symbols=len(symbols),
            requests=requests,
            candles=candles,
            weight=weight,
            seconds=self._exchange.seconds_for(weight),
            size_bytes=candles * _BYTES_PER_CANDLE,
        )

    async def _read(self, job: SeriesJob, page: Page) -> None:
        """Read one page of a job, unless the job has failed or an answer covered it meanwhile."""
        if job.error is not None or job.knows(page.interval):
            return
        within = page.interval.subtract([Interval(0, self._too_old)] if self._too_old else [])
        self._sink(job, page.interval.subtract(within))
        for window in within:
            await self._read_within(job, window)

    async def _read_within(self, job: SeriesJob, window: Interval) -> None:
        """Read a window, or what of it the exchange does not refuse as too old."""
        try:
            candles, findings = await self._drive(job, lambda: read_window(window, job.reader))
        except DataError as error:
            if self._is_too_old(job, error) and window.start < self._too_old:
                await self._read(job, Page(job.symbol, window))
            else:
                self._fail(job, error)
            return
        if self._exchange.capability.from_start and any(
            finding.served is Served.NOT_SERVED for finding in findings
        ):
            # A listed market that shows no candle anywhere: a fault, or it has yet to open. Kept
            # as coverage, it would never be asked for again.
            self._fail(job, self._no_candle(job))
            return
        self._learn(job, candles, self._sunk(job, candles, findings))
        self._on_event(PageFetched(job.symbol, window, len(candles)))

    def _is_too_old(self, job: SeriesJob, error: DataError) -> bool:
        """Tell whether candles were refused for their age, and note what age is."""
        points = error.facts.get("most_points")
        if points is None:
            return False
        oldest = reachable_from(self._timeframe, self._now_ms(job), points - _EDGE)
        self._too_old = max(self._too_old, oldest)
        return True

    def _now_ms(self, job: SeriesJob) -> int:
        """Return the exchange's time."""
        return job.reader.now_ms + time.time_ns() // 1_000_000 - self._begun_ms

    def _sunk(self, job: SeriesJob, candles: Candles, findings: list[Finding]) -> list[Finding]:
        """Tell what an API of limited depth has let go of since the fetch began from absences."""
        depth = self._exchange.capability.depth
        if depth is None:
            return findings
        oldest = reachable_from(self._timeframe, self._now_ms(job), depth)
        if len(candles):
            oldest = min(oldest, int(candles.open_time[0]))
        if job.reach is not None:
            oldest = min(oldest, job.reach)
        if oldest <= 0:  # 5,000 months reach further back than anything
            return findings
        sunk, told = Interval(0, oldest), []
        for finding in findings:
            if gone := finding.interval.intersection(sunk):
                told.append(Finding(gone, Served.BEYOND_DEPTH))
            kept = finding.interval.subtract([sunk])
            told += [Finding(rest, finding.served) for rest in kept]
        return told

    def _learn(self, job: SeriesJob, candles: Candles, findings: list[Finding]) -> None:
        asked_ms = time.time_ns() // 1_000_000
        for finding in findings:
            found = candles.within(finding.interval)
            answer = Answer(job.symbol, finding.interval, found, finding.served, asked_ms)
            job.shown += len(found)
            if not len(found):
                job.silences.append(finding.interval)
            if self._retain:
                job.answers.append(answer)
            self._keep(answer)

    def _no_candle(self, job: SeriesJob) -> NotServedError:
        what = f"{self._exchange.id} shows no {self._timeframe} candle of {job.symbol}"
        return NotServedError(what, exchange=self._exchange.id, symbol=job.symbol)

    def _fail(self, job: SeriesJob, error: DataError) -> None:
        if job.error is None:
            job.error = error
            self._on_event(SymbolFailed(job.symbol, str(error)))

    # ------------------------------------------------------------------ one request

    async def _drive(self, job: SeriesJob, begin: Callable[[], Generator[Ask, Candles, T]]) -> T:
        """Let a reader of `paging` ask until it knows; begin again where answers contradict.

        Requests are tried again one by one: of a walk that begins anew at every fault, a long
        one would hardly ever come to its end.
        """
        try:
            return await self._trying(job.symbol, lambda: self._walk(job, begin()))
        except _GivenUpError as given_up:
            raise given_up.error from given_up.error.__cause__

    async def _walk(self, job: SeriesJob, walk: Generator[Ask, Candles, T]) -> T:
        try:
            ask = next(walk)
            while True:
                ask = walk.send(await self._answer(job, ask))
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _answer(self, job: SeriesJob, ask: Ask) -> Candles:
        try:
            return await self._trying(job.symbol, lambda: self._ask(job.market, ask))
        except TransientFetchError as error:
            raise _GivenUpError(error) from error

    async def _ask(self, market: Market, ask: Ask) -> Candles:
        candles = await self._exchange.candles(market, ask.timeframe or self._timeframe, ask)
        self._last_success = time.monotonic()
        return candles

    async def _trying(self, symbol: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do something, again after a failure that may pass.

        The first symbol whose tries are used up while nothing at all came from
        the exchange stops the others: they would only repeat its wait. So does
        the first that is told that this address, region or key is not served.
        """
        if self._stop is not None:
            raise self._stop
        begun = time.monotonic()
        try:
            return await trying(work, symbol, self._on_event)
        except (BannedError, AccessDeniedError) as error:
            self._stop = error
            raise
        except (ExchangeUnavailableError, RateLimitedError) as error:
            if self._last_success < begun:
                self._stop = error
            raise


async def _in_parallel(work: Iterator[Awaitable[None]], at_once: int) -> None:
    """Run a stream of coroutines, so many at a time, creating each only when it starts."""
    async with _beside(work, at_once):
        pass


@asynccontextmanager
async def _beside(work: Iterator[Awaitable[None]], at_once: int) -> AsyncIterator[None]:
    """Run a stream of coroutines beside a block, which ends when both have; see `_in_parallel`.

    The block runs in the task that is there: an interrupt that is raised in a task of its own
    would leave the loop before those around it have put their things in order.
    """

    async def worker() -> None:
        for one in work:  # the workers share the iterator
            await one

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())
            yield
    except BaseExceptionGroup as errors:  # one failure is what the caller can act on
        raise errors.exceptions[0] from None
