"""Decide which archive files cover what of a question, and what the API keeps.

Pure: the clock and the page size are arguments. A file is known by the calendar
month or day it is of; when one is published, what it costs beside the API, what
of it proves anything, and which of its candles to compare with the API is
decided here.

Sources: the README of the repository binance/binance-public-data and its issues
246, 267, 283, 304 and 386, read 2026-11.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backtester.data.candles import Candles
from backtester.data.errors import OptionError
from backtester.data.model import Interval, Market, MarketType, Served, Span, Timeframe

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "SAMPLE",
    "ArchiveFile",
    "Source",
    "archive_url",
    "archived",
    "choose",
    "deep_only",
    "deep_timeframes",
    "folder_of",
    "monthly_from",
    "proven",
    "reopened",
    "sample",
    "sunken_files",
]

_PUBLIC: Final = "https://data.binance.vision"
_ADDRESSES: Final = {
    "binance": _PUBLIC,
    "binanceusdm": _PUBLIC,
    "binancecoinm": _PUBLIC,
    "gate": "https://download.gatedata.org",
}
_DEEP: Final = {("gate", MarketType.SPOT): frozenset(("1m", "5m", "1h", "4h"))}
"""Archives that are asked for nothing but what the API does not reach back to."""
_DEEP_AFTER_DAYS: Final = 3
"""How long after a month its file in such archives is counted on."""
_DAY: Final = Timeframe(1, "d")
_MONTH: Final = Timeframe(1, "M")
_DAY_MS: Final = _DAY.typical_ms
_MINUTE_MS: Final = 60_000
_TIMEFRAMES: Final = frozenset(
    ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")
)
_DAILY_AFTER_DAYS: Final = 2
"""A day's file appears during the next day; from the one after that it is counted on."""

_REQUESTS: Final = 3
"""The file, its checksum, and the sample asked of the API."""
_ROWS_COST: Final = 0.1
"""What a page's worth of rows costs in a file, in requests: its transfer and its parsing."""
_ADVANTAGE: Final = 2
"""How many times cheaper than the API a file must be to be preferred: the API is the truth."""
FEWEST_FILES = 3
"""Under `Source.AUTO`, how many files of a symbol there must be for any to be taken."""
SAMPLE: Final = 64
"""Grid times of a file asked of the API too: under 100 candles cost the least weight."""


class Source(StrEnum):
    """Where candles are to come from."""

    AUTO = "auto"
    """Archives where they are clearly cheaper, the API for all else."""
    API = "api"
    ARCHIVE = "archive"
    """Archives wherever they have files, the API for all else."""

    @classmethod
    def parse(cls, value: str | Source) -> Source:
        """Read a source.

        Raises
        ------
        OptionError
            For any other word.
        """
        try:
            return cls(str(value).strip().lower())
        except ValueError:
            known = ", ".join(cls)
            raise OptionError(f"unknown source {value!r}; use one of {known}") from None


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One file of one symbol, and what is wanted of it."""

    span: Interval
    """The calendar month or day it is of."""
    monthly: bool
    wanted: tuple[Interval, ...]
    """Disjoint parts of `span`, on the timeframe's grid, in order."""

    @property
    def label(self) -> str:
        """The date in its name: ``2024-01`` or ``2024-01-31``."""
        unit = "datetime64[M]" if self.monthly else "datetime64[D]"
        return str(np.datetime64(self.span.start, "ms").astype(unit))

    def name(self, market_id: str, timeframe: Timeframe) -> str:
        """Give its name: ``BTCUSDT-1m-2024-01.zip``."""
        return f"{market_id}-{timeframe}-{self.label}.zip"

    def path(self, folder: str, market_id: str, timeframe: Timeframe) -> str:
        """Give its path below the archive's address."""
        period = "monthly" if self.monthly else "daily"
        name = self.name(market_id, timeframe)
        return f"data/{folder}/{period}/klines/{market_id}/{timeframe}/{name}"


def archive_url(
    exchange_id: str, config: Mapping[str, Any] | None, sandbox_url: str | None
) -> str | None:
    """Give the address of an exchange's archives; None where it has none.

    ``archiveUrl`` of the settings comes first. Who has moved the exchange's API
    elsewhere with ``urls`` has not said where its archives are.
    """
    settings = config or {}
    named = settings.get("archiveUrl")
    if named is not None:
        return str(named) or None
    if exchange_id == "sandbox":
        return sandbox_url
    return None if settings.get("urls") else _ADDRESSES.get(exchange_id)


def folder_of(market: Market) -> str:
    """Give the folder a market's files lie in."""
    if market.type is MarketType.SPOT:
        return "spot"
    return "futures/cm" if market.linear is False else "futures/um"


def archived(timeframe: Timeframe) -> bool:
    """Tell whether candles of this length are taken from archives.

    Of those longer than a day one page of the API holds years, and there are no daily files.
    """
    return str(timeframe) in _TIMEFRAMES


def monthly_from(month_end: int) -> int:
    """Give the moment from which a month's file is counted on.

    They are made on the first Monday after the month.

    >>> str(np.datetime64(monthly_from(1_719_792_000_000), "ms"))  # of June 2024: 1 July, a Monday
    '2024-07-02T00:00:00.000'
    """
    day = month_end // _DAY_MS
    weekday = (day + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    return (day + -weekday % 7 + 1) * _DAY_MS


# --------------------------------------------------------------------------- beyond the API


def deep_timeframes(exchange_id: str, market_type: MarketType) -> frozenset[str]:
    """Give the timeframes whose candles archives have from before the API's depth; mostly none."""
    return _DEEP.get((exchange_id, market_type), frozenset())


def deep_only(exchange_id: str) -> bool:
    """Tell whether an exchange's archives are asked for nothing that its API has."""
    return any(exchange == exchange_id for exchange, _ in _DEEP)


def sunken_files(intervals: Sequence[Interval], now_ms: int) -> list[ArchiveFile]:
    """Give the months' files that are out, the newest first: older ones may be before a listing."""
    months = _spans(intervals, _MONTH)
    return [month for month in reversed(months) if _deep_from(month) <= now_ms]


def reopened(coverage: Iterable[Span], now_ms: int, *, all_of_it: bool) -> list[Interval]:
    """Give what counts as beyond the API's depth, and is worth another look at the archives.

    Parameters
    ----------
    coverage : iterable of Span
    now_ms : int
        UTC epoch milliseconds.
    all_of_it : bool
        Or only the months whose file has come out since the look that found nothing.
    """
    return [
        part
        for span in coverage
        if span.served is Served.BEYOND_DEPTH
        for month in _spans([span.interval], _MONTH)
        if all_of_it or span.asked_ms < _deep_from(month) <= now_ms
        for part in month.wanted
    ]


def _deep_from(month: ArchiveFile) -> int:
    return month.span.end + _DEEP_AFTER_DAYS * _DAY_MS


# --------------------------------------------------------------------------- choosing files


def choose(
    intervals: Sequence[Interval],
    timeframe: Timeframe,
    page_size: int,
    now_ms: int,
    source: Source,
) -> list[ArchiveFile]:
    """Choose the files to take of what is wanted of one symbol; the API keeps the rest.

    Each month is taken as one file or as days, whichever costs less; under
    `Source.AUTO` only what is clearly cheaper than its pages.

    Parameters
    ----------
    intervals : sequence of Interval
        Wanted, disjoint, on the grid, in order.
    timeframe : Timeframe
    page_size : int
        Candles per request to the API.
    now_ms : int
        The exchange's clock, UTC epoch milliseconds.
    source : Source

    Returns
    -------
    list of ArchiveFile
        Disjoint, in order.
    """
    if source is Source.API or not intervals or not archived(timeframe):
        return []
    costs = _Costs(timeframe, page_size, source)
    files: list[ArchiveFile] = []
    for month in _spans(intervals, _MONTH):
        days = [
            day
            for day in _spans(month.wanted, _DAY)
            if day.span.end + (_DAILY_AFTER_DAYS - 1) * _DAY_MS <= now_ms and costs.pays(day)
        ]
        if _is_out(month, timeframe, now_ms) and costs.pays(month):
            left = sum(costs.pages(part) for part in month.wanted) - sum(
                costs.pages(part) for day in days for part in day.wanted
            )
            if not days or costs.file(month) <= sum(map(costs.file, days)) + left:
                days = [month]
        files += days
    # Another host is worth the trouble for a long span, not for what the API gives in a second.
    return files if source is Source.ARCHIVE or len(files) >= FEWEST_FILES else []


def _is_out(month: ArchiveFile, timeframe: Timeframe, now_ms: int) -> bool:
    """Tell whether a month's file is published; those of seconds are too big to hold."""
    return timeframe.typical_ms >= _MINUTE_MS and monthly_from(month.span.end) <= now_ms


def _spans(intervals: Sequence[Interval], unit: Timeframe) -> list[ArchiveFile]:
    """Group what is wanted by calendar months or days."""
    found: list[tuple[Interval, list[Interval]]] = []
    for interval in intervals:
        at = interval.start
        while at < interval.end:
            span = Interval(unit.floor(at), unit.next(at))
            if not found or found[-1][0] != span:
                found.append((span, []))
            end = min(interval.end, span.end)
            found[-1][1].append(Interval(at, end))
            at = end
    return [ArchiveFile(span, unit == _MONTH, tuple(parts)) for span, parts in found]


@dataclass(frozen=True, slots=True)
class _Costs:
    """What things cost, in requests."""

    timeframe: Timeframe
    page_size: int
    source: Source

    def pages(self, interval: Interval) -> float:
        return self.timeframe.steps(interval) / self.page_size

    def file(self, file: ArchiveFile) -> float:
        return _REQUESTS + _ROWS_COST * self.pages(file.span)

    def pays(self, file: ArchiveFile) -> bool:
        if self.source is Source.ARCHIVE:
            return True
        return _ADVANTAGE * self.file(file) <= sum(map(self.pages, file.wanted))


# --------------------------------------------------------------------------- believing files


def sample(
    candles: Candles, wanted: Sequence[Interval], timeframe: Timeframe, page_size: int, name: str
) -> Interval | None:
    """Choose what to ask of the API too: one request, to compare with the file.

    Where the file has holes it is the first stretch of them that a page can show
    with candles on either side, so that the same answer repairs or confirms it.
    Otherwise the file's name alone decides, so that one question has one answer.

    Returns
    -------
    Interval or None
        On the grid, with candles of the file in it; None when it has none that are wanted.
    """
    inside = [found for part in wanted if len(found := candles.within(part))]
    if not inside:
        return None
    for part in wanted:
        for window in _windows(_holes(candles, part, timeframe), timeframe, page_size - 2):
            stretch = _around(window, timeframe, page_size)
            if len(candles.within(stretch)):
                return stretch
    largest = max(inside, key=len).open_time
    places = max(len(largest) - SAMPLE + 1, 1)
    start = int(largest[zlib.crc32(name.encode()) % places])
    end = min(timeframe.next(start, SAMPLE), timeframe.next(int(largest[-1])))
    return Interval(start, end)


def _around(window: Interval, timeframe: Timeframe, page_size: int) -> Interval:
    """Widen a window to a sample, also over the file's end: only the API is asked for it."""
    margin = max((min(SAMPLE, page_size) - timeframe.steps(window)) // 2, 1)
    start = max(timeframe.next(window.start, -margin), 0)
    return Interval(start, timeframe.next(window.end, margin))


def proven(
    candles: Candles,
    wanted: Iterable[Interval],
    timeframe: Timeframe,
    page_size: int,
    confirmed: Interval | None = None,
) -> list[Interval]:
    """Give what a file's candles answer for: all that is wanted but windows around its holes.

    A file that lacks a candle proves nothing about it, so the API is asked. Its
    windows hold at most a page each and begin and end at a hole.

    Parameters
    ----------
    confirmed : Interval, optional
        Where the API has been asked and shown candles at either end: what neither shows there
        was passed over twice.
    """
    answered: list[Interval] = []
    for part in wanted:
        holes = _holes(candles, part, timeframe)
        if confirmed is not None:
            holes = holes[(holes < confirmed.start) | (holes >= confirmed.end)]
        answered += part.subtract(_windows(holes, timeframe, page_size))
    return answered


def _holes(candles: Candles, part: Interval, timeframe: Timeframe) -> NDArray[np.int64]:
    grid = timeframe.grid(part)
    times = candles.within(part).open_time
    if len(times) == len(grid):  # whole, as most are
        return grid[:0]
    return grid[~np.isin(grid, times, assume_unique=True)]


def _windows(holes: NDArray[np.int64], timeframe: Timeframe, page_size: int) -> list[Interval]:
    """Gather holes into windows of at most a page that begin and end at one."""
    windows = []
    at = 0
    while at < len(holes):
        start = int(holes[at])
        upto = int(np.searchsorted(holes, timeframe.next(start, page_size)))
        windows.append(Interval(start, timeframe.next(int(holes[upto - 1]))))
        at = upto
    return windows
