"""Fetch from an exchange's bulk archives, verified, and leave the rest to the API.

A file is believed when it matches its checksum, every row passes the checks and
a sample of it is what the API answers. All else is told and left to the API: a
file that is missing or refused, and the minutes a file lacks, which prove
nothing by being absent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

import numpy as np

from backtester.data.candles import Candles, overlay
from backtester.data.errors import (
    AccessDeniedError,
    BadResponseError,
    DataError,
    ExchangeUnavailableError,
    NotServedError,
    PermanentFetchError,
)
from backtester.data.events import Event, PageFetched
from backtester.data.fetching.archives import reader
from backtester.data.fetching.archives.plan import (
    ArchiveFile,
    Source,
    choose,
    folder_of,
    proven,
    sample,
)
from backtester.data.fetching.fetcher import SeriesJob
from backtester.data.fetching.paging import Ask, Finding
from backtester.data.fetching.retries import ATTEMPTS, trying
from backtester.data.model import Interval, Market, Served, Timeframe, format_ms

__all__ = ["ArchiveConflict", "ArchiveLeft", "ArchiveSource"]

_log = logging.getLogger(__name__)

_WORKERS = 4
"""Files under way at once; each is in memory while it is read."""
_FIRST_ATTEMPTS = 2
_MISSES_ENOUGH = 2
"""After so many files in a row of little or no use, a symbol's others are not asked for."""
_DENIED = frozenset((401, 403, 407, 451))
_ABSENT = frozenset((404, 410))


@dataclass(frozen=True, slots=True)
class ArchiveLeft(Event):
    """A file was not used; the API is asked for what it covers."""

    symbol: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ArchiveConflict(Event):
    """A file says one thing of a candle and the API another; the API is believed."""

    symbol: str
    name: str
    open_time: int
    """UTC epoch milliseconds."""
    archived: tuple[float, ...]
    """Open, high, low, close, volume as in the file."""
    answered: tuple[float, ...] | None
    """The same as the API answers; None when it shows no such candle."""


class Connection(Protocol):
    """What archives need of an exchange; see `exchange.Exchange`."""

    @property
    def extra_columns(self) -> tuple[int | None, ...]:
        """Where rows have the extra columns that are wanted."""
        ...

    async def candles(self, market: Market, timeframe: Timeframe, ask: Ask) -> Candles:
        """Ask the API for candles."""
        ...

    async def download(self, url: str) -> tuple[int, bytes]:
        """Get a file: HTTP status and body."""
        ...


class ArchiveSource:
    """The archives of one exchange for one fetch; what they do not prove is left to the API.

    Parameters
    ----------
    connection : Connection
        Open.
    url : str
        Where the archives are, such as ``https://data.binance.vision``.
    timeframe : Timeframe
    page_size : int
        Candles per request to the API.
    now_ms : int
        The exchange's clock, UTC epoch milliseconds.
    source : Source
    on_event : callable
    """

    def __init__(
        self,
        connection: Connection,
        url: str,
        timeframe: Timeframe,
        *,
        page_size: int,
        now_ms: int,
        source: Source,
        on_event: Callable[[Event], None],
    ) -> None:
        self._connection = connection
        self._url = url.rstrip("/")
        self._timeframe = timeframe
        self._page_size = page_size
        self._now_ms = now_ms
        self._source = source
        self._on_event = on_event
        self._files: dict[str, list[ArchiveFile]] = {}
        self.used: dict[str, list[str]] = {}
        """Names of the files whose candles are in the answer, by symbol."""
        self.refused: dict[str, dict[str, str]] = {}
        """Why other files were not used, by symbol and name."""
        self._misses: Counter[str] = Counter()
        self._unreachable: DataError | None = None
        self._reached = False
        # Two at once only wait for each other, for the interpreter's lock; one after the other
        # each is done sooner, and its requests go on while the next is read.
        self._reading = asyncio.Lock()
        self.requests = 0
        """Requests sent to the archives; samples go to the API and are counted there."""

    deep = False
    """Whether they are asked for what the API does not reach back to, and for nothing else."""

    def has_some_of(self, job: SeriesJob) -> bool:
        """Tell whether files would be asked for if the market were listed all the time."""
        return bool(self._choice(job))

    def _choice(self, job: SeriesJob) -> list[ArchiveFile]:
        where = self._timeframe, self._page_size, self._now_ms, self._source
        return choose(job.intervals, *where)

    def plan(self, job: SeriesJob) -> None:
        """Take what files cover off a job's intervals, to be fetched from them."""
        files = self._choice(job)
        taken = [part for file in files for part in file.wanted]
        self._files[job.symbol] = files
        job.intervals = [rest for part in job.intervals for rest in part.subtract(taken)]

    @property
    def planned(self) -> tuple[int, int, set[str]]:
        """How many files are planned, for how many grid times, and of which symbols."""
        files = [file for files in self._files.values() for file in files]
        steps = self._steps(part for file in files for part in file.wanted)
        return len(files), steps, {symbol for symbol, some in self._files.items() if some}

    @property
    def failure(self) -> DataError | None:
        """Why archives that were asked for by name gave nothing at all, if they did not."""
        if self._source is not Source.ARCHIVE or self._unreachable is None:
            return None
        said = f"the archives at {self._url} cannot be reached ({self._unreachable})"
        return type(self._unreachable)(f"{said}; the source 'auto' would ask the API instead")

    async def fetch(
        self,
        jobs: Sequence[SeriesJob],
        learn: Callable[[SeriesJob, Candles, list[Finding]], None],
    ) -> dict[str, list[Interval]]:
        """Fetch the planned files, symbols in turn.

        Parameters
        ----------
        jobs : sequence of SeriesJob
        learn : callable
            Given what every file proves as soon as it is read.

        Returns
        -------
        dict of str to list of Interval
            By symbol, what they do not prove: it is left to the API.
        """
        left: dict[str, list[Interval]] = {job.symbol: [] for job in jobs}
        streams = ([(job, file) for file in self._files.get(job.symbol, ())] for job in jobs)
        work = (one for row in zip_longest(*streams) for one in row if one is not None)

        async def worker() -> None:
            for job, file in work:  # the workers share the iterator
                answered = await self._answered(job, file, learn)
                for part in file.wanted:
                    left[job.symbol] += part.subtract(answered)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_WORKERS):
                    group.create_task(worker())
        except BaseExceptionGroup as errors:  # one failure is what the caller can act on
            raise errors.exceptions[0] from None
        return {symbol: _joined(parts) for symbol, parts in left.items()}

    # ------------------------------------------------------------------ one file

    async def _answered(
        self,
        job: SeriesJob,
        file: ArchiveFile,
        learn: Callable[[SeriesJob, Candles, list[Finding]], None],
    ) -> list[Interval]:
        """Use a file if it can be believed; give what of it is answered for."""
        name = file.name(job.market.id, self._timeframe)
        if self._unreachable is not None or self._misses[job.symbol] >= _MISSES_ENOUGH:
            self._refuse(job.symbol, name, "not asked for, as others were of no use")
            return []
        try:
            candles, confirmed = await self._believed(job.market, file, name)
        except DataError as error:
            self._leave(job.symbol, name, error)
            return []
        answered = proven(candles, file.wanted, self._timeframe, self._page_size, confirmed)
        mostly = 2 * self._steps(answered) >= self._steps(file.wanted)
        self._misses[job.symbol] = 0 if mostly else self._misses[job.symbol] + 1
        if answered:
            self.used.setdefault(job.symbol, []).append(name)
            learn(job, candles, [Finding(part, Served.MARKET) for part in answered])
            found = sum(len(candles.within(part)) for part in answered)
            self._on_event(PageFetched(job.symbol, file.span, found))
        else:
            self._refuse(job.symbol, name, "it proves nothing of what is asked for")
        return answered

    def _refuse(self, symbol: str, name: str, reason: str) -> None:
        self.refused.setdefault(symbol, {})[name] = reason

    def _steps(self, intervals: Iterable[Interval]) -> int:
        return sum(map(self._timeframe.steps, intervals))

    def _leave(self, symbol: str, name: str, error: DataError) -> None:
        self._misses[symbol] += 1
        if not self._reached and not isinstance(error, NotServedError):
            self._unreachable = error
        missing = isinstance(error, NotServedError)
        level = logging.INFO if missing else logging.WARNING
        instead = "nobody else has it" if self.deep else "the API is asked instead"
        _log.log(level, "%s: archive not used, %s: %s", symbol, instead, error)
        self._refuse(symbol, name, str(error))
        self._on_event(ArchiveLeft(symbol, name, str(error)))

    async def _believed(
        self, market: Market, file: ArchiveFile, name: str
    ) -> tuple[Candles, Interval | None]:
        """Give a file's candles, verified and compared, and where the API confirmed their holes.

        Raises
        ------
        NotServedError
            There is no such file.
        FetchError
            It could not be had, or not be believed.
        """
        path = file.path(folder_of(market), market.id, self._timeframe)
        packed = await self._verified(f"{self._url}/{path}", name, market.symbol)
        coin_margined = folder_of(market) == "futures/cm"
        column = reader.VOLUME_COIN_MARGINED if coin_margined else reader.VOLUME
        async with self._reading:
            candles = await asyncio.to_thread(
                reader.read,
                packed,
                name,
                self._timeframe,
                file.span,
                column,
                self._connection.extra_columns,
            )
        stretch = sample(candles, file.wanted, self._timeframe, self._page_size, name)
        if stretch is None:
            return candles, None
        answered = await self._compared(market, name, candles.within(stretch), stretch)
        first, last = int(answered.open_time[0]), int(answered.open_time[-1])
        return overlay(candles, answered), Interval(first, self._timeframe.next(last))

    async def _verified(self, url: str, name: str, symbol: str) -> bytes:
        """Get a file that matches its checksum; both again if they differ, it may just change."""
        for attempt in (1, 2):
            checksum = await self._get(f"{url}.CHECKSUM", symbol)
            packed = await self._get(url, symbol)
            try:
                await asyncio.to_thread(reader.verify, packed, checksum, name)
            except BadResponseError as error:
                if attempt == 2:
                    raise
                _log.warning("%s: %s; downloading both again", symbol, error)
                continue
            break
        return packed

    async def _get(self, url: str, symbol: str) -> bytes:
        async def once() -> bytes:
            self.requests += 1
            status, body = await self._connection.download(url)
            self._reached = True
            if status == 200:
                return body
            raise _refusal(status, url)

        # A host that has not answered yet may not be reachable from here at all; the API is.
        attempts = ATTEMPTS if self._reached else _FIRST_ATTEMPTS
        return await trying(once, symbol, self._on_event, attempts=attempts)

    async def _compared(
        self, market: Market, name: str, candles: Candles, stretch: Interval
    ) -> Candles:
        """Compare a sample with the API's answer, and give that.

        Raises
        ------
        BadResponseError
            They differ; both values are logged.
        """
        ask = Ask(stretch.start, stretch.end, self._timeframe.steps(stretch))
        answered = await trying(
            lambda: self._connection.candles(market, self._timeframe, ask),
            market.symbol,
            self._on_event,
        )
        conflicts = list(_conflicts(candles, answered))
        for open_time, ours, theirs in conflicts:
            _log.warning(
                "%s: the candle of %s is %s in %s and %s in the API's answer",
                market.symbol, format_ms(open_time), ours, name, theirs or "missing",
            )  # fmt: skip
            self._on_event(ArchiveConflict(market.symbol, name, open_time, ours, theirs))
        if conflicts:
            raise BadResponseError(
                f"{len(conflicts)} of {len(candles)} candles of {name} differ from the API's"
            )
        return answered


def _refusal(status: int, url: str) -> DataError:
    if status in _ABSENT:
        return NotServedError(f"there is no {url}")
    if status in _DENIED:
        return AccessDeniedError(f"{url} is refused to this address (HTTP {status})")
    if status >= 500 or status in {408, 425, 429}:
        # No 429 of the exchange: the archives are another host, with no budget to wait for.
        return ExchangeUnavailableError(f"{url}: HTTP {status}")
    return PermanentFetchError(f"{url}: HTTP {status}")


def _conflicts(
    archived: Candles, answered: Candles
) -> Iterator[tuple[int, tuple[float, ...], tuple[float, ...] | None]]:
    """Give the candles of a file that the API shows differently or not at all."""
    if archived == answered:
        return
    known = dict(zip(answered.open_time.tolist(), answered.values, strict=True))
    for open_time, row in zip(archived.open_time.tolist(), archived.values, strict=True):
        theirs = known.get(open_time)
        if theirs is None or not np.array_equal(row.view(np.int64), theirs.view(np.int64)):
            other = None if theirs is None else tuple(theirs.tolist())
            yield open_time, tuple(row.tolist()), other


def _joined(intervals: list[Interval]) -> list[Interval]:
    """Sort disjoint intervals, joining those that touch: they share pages."""
    joined: list[Interval] = []
    for interval in sorted(intervals):
        if joined and joined[-1].end == interval.start:
            joined[-1] = Interval(joined[-1].start, interval.end)
        else:
            joined.append(interval)
    return joined
