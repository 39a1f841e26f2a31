"""Candle tables: what one is, checking a page, merging answers into a series.

Pure: no clock, no disk, no network. A series travels as arrays: `open_time`
int64 (n,) in UTC epoch milliseconds and `values` float64 (n, k) with the
columns of `COLUMNS`, and as many of `EXTRAS` as were asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from backtester.data.errors import CandleError
from backtester.data.model import Coverage, Interval, Served, Span, Timeframe, format_ms

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "COLUMNS",
    "EXTRAS",
    "Answer",
    "Candles",
    "Revision",
    "Series",
    "alike",
    "check",
    "faults",
    "given",
    "merge",
    "merged_times",
    "overlay",
]

COLUMNS = ("Open", "High", "Low", "Close", "Volume")
"""Open, high, low, close in quote units, volume in base units."""
EXTRAS = ("Quote volume", "Trades", "Taker buy volume", "Taker buy quote volume")
"""What some exchanges provide as well: the volume in quote units, the number of trades, and the
part of both volumes that takers bought. A table has the first k of them; NaN means unknown."""

_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME = range(5)


@dataclass(frozen=True, slots=True, eq=False)
class Candles:
    """A table of candles, strictly increasing in time.

    Equal to another when every time and every bit of every value is equal.
    The arrays are read-only: several answers may share them.
    """

    open_time: NDArray[np.int64]
    """Open times, UTC epoch milliseconds, shape (n,), strictly increasing."""
    values: NDArray[np.float64]
    """Shape (n, k), columns as in `COLUMNS` and the first k - 5 of `EXTRAS`."""

    def __post_init__(self) -> None:
        if self.open_time.dtype != np.int64 or self.values.dtype != np.float64:
            raise CandleError("candles are int64 times and float64 values")
        width = self.values.shape[-1]
        if not len(COLUMNS) <= width <= len(COLUMNS) + len(EXTRAS) or self.values.shape != (
            len(self.open_time),
            width,
        ):
            raise CandleError(
                f"candles of shape {self.values.shape} for {len(self.open_time)} times"
            )
        self.open_time.flags.writeable = False
        self.values.flags.writeable = False

    @classmethod
    def empty(cls) -> Candles:
        return cls(np.empty(0, np.int64), np.empty((0, len(COLUMNS)), np.float64))

    @classmethod
    def of(cls, open_time: object, values: object) -> Candles:
        """Build a table from anything array-like, copying it."""
        times = np.array(open_time, dtype=np.int64).reshape(-1)
        table = np.array(values, dtype=np.float64)
        width = table.shape[1] if table.ndim == 2 and len(table) else len(COLUMNS)
        return cls(times, table.reshape(len(times), width))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns of `values`."""
        return (*COLUMNS, *EXTRAS[: self.values.shape[1] - len(COLUMNS)])

    def __len__(self) -> int:
        return len(self.open_time)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Candles):
            return NotImplemented
        return np.array_equal(self.open_time, other.open_time) and np.array_equal(
            _bits(self.values), _bits(other.values)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have no stable hash

    def within(self, interval: Interval) -> Candles:
        """Return the candles that open inside `interval`, without copying."""
        first, last = np.searchsorted(self.open_time, (interval.start, interval.end))
        return Candles(self.open_time[first:last], self.values[first:last])

    def column(self, name: str) -> NDArray[np.float64]:
        """Return one column, (n,); all NaN if the table does not have it."""
        number = (*COLUMNS, *EXTRAS).index(name)
        if number < self.values.shape[1]:
            return self.values[:, number]
        return np.full(len(self), np.nan)

    def plain(self) -> Candles:
        """Return the table without extra columns, and without copying."""
        if self.values.shape[1] == len(COLUMNS):
            return self
        return Candles(self.open_time, self.values[:, : len(COLUMNS)])

    def widened(self, width: int) -> Candles:
        """Return the table with at least this many columns, the added ones NaN."""
        lacking = width - self.values.shape[1]
        if lacking <= 0:
            return self
        unknown = np.full((len(self), lacking), np.nan)
        return Candles(self.open_time, np.concatenate((self.values, unknown), axis=1))

    def untold(self, extras: Sequence[int]) -> Candles:
        """Return the candles that lack one of some extra columns, given by place in `EXTRAS`."""
        wide = self.widened(len(COLUMNS) + len(EXTRAS)).values
        told = wide[:, [len(COLUMNS) + at for at in extras]]
        return self.take(np.asarray(np.isnan(told).any(axis=1)))

    def trimmed(self) -> Candles:
        """Return the table without trailing extra columns that are all NaN."""
        width = self.values.shape[1]
        while width > len(COLUMNS) and np.isnan(self.values[:, width - 1]).all():
            width -= 1
        if width == self.values.shape[1]:
            return self
        return Candles(self.open_time, self.values[:, :width])

    def take(self, mask: NDArray[np.bool_]) -> Candles:
        """Return the candles where `mask` is true."""
        return Candles(self.open_time[mask], self.values[mask])


@dataclass(frozen=True, slots=True)
class Revision:
    """A closed candle that the exchange later answered differently."""

    open_time: int
    """UTC epoch milliseconds."""
    old: tuple[float, ...]
    """Open, high, low, close, volume as stored before."""
    new: tuple[float, ...]
    old_asked_ms: int
    """When the old value was answered, UTC epoch milliseconds; 0 when unknown."""
    new_asked_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What an exchange (or a user) said about one interval of one series."""

    symbol: str
    interval: Interval
    candles: Candles
    """Every candle of the interval; what is missing here is missing there."""
    served: Served = Served.MARKET
    asked_ms: int = 0

    @property
    def span(self) -> Span:
        return Span(self.interval.start, self.interval.end, self.served, self.asked_ms)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Everything known about one symbol in one dataset."""

    candles: Candles = field(default_factory=Candles.empty)
    coverage: Coverage = field(default_factory=Coverage)
    revisions: tuple[Revision, ...] = ()

    def equals(self, other: Series) -> bool:
        """Return whether another holds the same, bit for bit."""
        return (
            self.candles == other.candles
            and self.coverage == other.coverage
            # By their text, since a NaN is not equal to itself.
            and repr(self.revisions) == repr(other.revisions)
        )

    def with_answers(self, answers: Sequence[Answer]) -> Series:
        """Return the series after merging `answers`; where two differ, the later one wins.

        Candles are only ever added or revised, never removed: an answer that
        lacks a stored candle leaves it in place (law 4).
        """
        if not answers:
            return self
        candles, revisions = merge(self.candles, self.coverage, answers)
        coverage = self.coverage.add(a.span for a in answers)
        return Series(candles, coverage, self.revisions + tuple(revisions))

    def within(self, interval: Interval) -> Series:
        """Return the part of the series inside `interval`; candle arrays are shared."""
        return Series(
            self.candles.within(interval),
            self.coverage.within(interval),
            tuple(r for r in self.revisions if r.open_time in interval),
        )

    def showing(self, interval: Interval) -> Series:
        """Return the series with only the candles and revisions inside `interval`.

        Its coverage stays complete, so that it also says what is known outside the interval.
        """
        return Series(
            self.candles.within(interval),
            self.coverage,
            tuple(r for r in self.revisions if r.open_time in interval),
        )

    def as_of(self, ms: int, timeframe: Timeframe) -> Series:
        """Return the series as it was known at `ms`, UTC epoch milliseconds.

        Later revisions are undone, and candles that closed later are left out. A candle that had
        closed but was fetched later is included, since the time of its first answer is not kept.
        """
        end = timeframe.floor(ms)
        values = self.candles.values.copy()
        for revision in reversed(self.revisions):
            if revision.new_asked_ms > ms:
                at = int(np.searchsorted(self.candles.open_time, revision.open_time))
                values[at] = np.nan  # what was told besides is not known any more
                values[at, : len(COLUMNS)] = revision.old
        first = [int(ms) for ms in self.candles.open_time[:1]]
        whole = Interval(min([*first, *(span.start for span in self.coverage), end - 1]), end)
        return Series(
            Candles(self.candles.open_time, values).within(whole),
            self.coverage.within(whole),
            tuple(r for r in self.revisions if r.new_asked_ms <= ms),
        )

    def without(self, intervals: Iterable[Interval]) -> Series:
        """Return the series as if nothing had ever been asked of some intervals.

        For repairs only; nothing else takes candles out of a series.
        """
        keep = np.ones(len(self.candles), bool)
        coverage = self.coverage
        for interval in intervals:
            first, last = np.searchsorted(self.candles.open_time, (interval.start, interval.end))
            keep[first:last] = False
            coverage = coverage.remove(interval)
        return Series(self.candles.take(keep), coverage, self.revisions)

    def states(self, timeframe: Timeframe, interval: Interval) -> list[tuple[Interval, str]]:
        """Tell of every part of `interval` whether it is present, absent (and why) or unknown.

        Returns
        -------
        list of (Interval, str)
            In order, filling `interval`. The word is ``"present"``, ``"never asked"`` or the
            reason of a confirmed absence: ``"no trades"``, or a value of `Served`.
        """
        present = timeframe.runs(self.candles.within(interval).open_time)
        parts = [(run, "present") for run in present]
        for gap in interval.subtract(present):
            spans = self.coverage.within(gap)
            for span in spans:
                word = "no trades" if span.served is Served.MARKET else span.served.value
                parts.append((span.interval, word))
            parts.extend((hole, "never asked") for hole in spans.missing(gap))
        return sorted(parts)


def merge(
    stored: Candles, coverage: Coverage, answers: Sequence[Answer]
) -> tuple[Candles, list[Revision]]:
    """Merge answers into a stored table.

    Parameters
    ----------
    stored : Candles
        What is there already.
    coverage : Coverage
        Its coverage, for the time at which a revised candle was first answered.
    answers : sequence of Answer
        In the order they came; the last one wins.

    Returns
    -------
    (Candles, list of Revision)
        The union of all times, and every stored or earlier candle that a later
        answer changed in any bit, in the order of the answers. Both are what
        merging the answers one by one gives. Extra columns that a later answer does
        not tell are kept while the candle is the same; they alone make no revision.
    """
    tables = alike([stored, *(a.candles for a in answers)])
    filled = [(number, table) for number, table in enumerate(tables) if len(table)]
    if not filled:
        return stored, []
    if len(filled) == 1:
        return filled[0][1], []
    ordered = sorted((t for _, t in filled), key=lambda table: int(table.open_time[0]))
    times = np.concatenate([t.open_time for t in ordered])
    if bool(np.all(np.diff(times) > 0)):  # pages side by side: nothing to compare
        return Candles(times, np.concatenate([t.values for t in ordered])), []
    core = len(COLUMNS)
    times = np.concatenate([t.open_time for _, t in filled])
    values = np.concatenate([t.values for _, t in filled])
    source = np.repeat([number for number, _ in filled], [len(t) for _, t in filled])
    order = np.argsort(times, kind="stable")  # stable: of equal times the later answer is last
    times, values, source = times[order], values[order], source[order]
    repeats = np.flatnonzero(times[1:] == times[:-1]) + 1
    differ = np.any(_bits(values[repeats, :core]) != _bits(values[repeats - 1, :core]), axis=1)
    changed = repeats[differ]
    if values.shape[1] > core:
        for i in repeats[~differ]:
            row = values[i]
            np.copyto(row, values[i - 1], where=np.isnan(row))
    revisions = []
    merged = 0
    for i in changed[np.argsort(source[changed], kind="stable")]:  # by answer, then by time
        number = int(source[i]) - 1
        coverage = coverage.add(a.span for a in answers[merged:number])
        merged = number
        revisions.append(
            Revision(
                int(times[i]),
                tuple(values[i - 1, :core].tolist()),
                tuple(values[i, :core].tolist()),
                _asked_at(coverage, int(times[i])),
                answers[number].asked_ms,
            )
        )
    last = np.append(times[1:] != times[:-1], True)
    return Candles(times[last], values[last]).trimmed(), revisions


def alike(tables: Sequence[Candles]) -> list[Candles]:
    """Give all tables the columns of the widest."""
    width = max(table.values.shape[1] for table in tables)
    return [table.widened(width) for table in tables]


def _asked_at(coverage: Coverage, ms: int) -> int:
    return next((s.asked_ms for s in coverage if s.start <= ms < s.end), 0)


def _bits(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.ascontiguousarray(values).view(np.int64)


def check(
    open_time: NDArray[np.int64],
    values: NDArray[np.float64],
    timeframe: Timeframe,
    interval: Interval,
) -> Candles:
    """Validate one page and sort it; every candle passes through here (law 5).

    Rows may be in any order and repeated, as exchanges send them. Rows outside
    `interval` are dropped, since several exchanges add one at either end.
    Anything else that is wrong makes the page invalid.

    Parameters
    ----------
    open_time : int64 (n,)
        UTC epoch milliseconds, in the order received.
    values : float64 (n, k)
        Columns as in `Candles`.
    timeframe : Timeframe
    interval : Interval
        What was asked for.

    Returns
    -------
    Candles
        Strictly increasing, inside `interval`, on the grid.

    Raises
    ------
    CandleError
        Names the first bad row: off the grid, not finite, not in OHLC order,
        negative volume, or two different candles of one time.
    """
    times, table = _in_order(open_time, values, interval)
    candles = Candles(np.ascontiguousarray(times), np.ascontiguousarray(table))
    for what, bad in faults(candles, timeframe):
        _reject(times, bad, what)
    return candles


def faults(candles: Candles, timeframe: Timeframe) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield each rule that some candles break, with a mask of those that do."""
    times, table = candles.open_time, candles.values
    off = ~timeframe.on_grid(times)
    if off.any():
        yield f"is off the {timeframe} grid", off
    finite = np.isfinite(table[:, : len(COLUMNS)])
    if not finite.all():
        yield "has a value that is not a finite number", np.asarray(~finite.all(axis=1))
    first, high, low, last = (table[:, at] for at in (_OPEN, _HIGH, _LOW, _CLOSE))
    outside = (first > high) | (last > high) | (first < low) | (last < low)
    if outside.any():
        yield "has an open or close outside its low and high", outside
    negative = table[:, _VOLUME] < 0
    if negative.any():
        yield "has a negative volume", negative
    told = table[:, len(COLUMNS) :]
    odd = (told < 0) | np.isinf(told)  # NaN is what is not known
    if odd.any():
        yield "has a further column that is negative or infinite", np.asarray(odd.any(axis=1))


def _in_order(
    open_time: NDArray[np.int64], values: NDArray[np.float64], interval: Interval
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Drop the rows outside of `interval`, put the rest in order and each time once."""
    inside = (open_time >= interval.start) & (open_time < interval.end)
    if inside.all() and (open_time[1:] > open_time[:-1]).all():  # as nearly all pages are
        return open_time[:], values[:]
    times, table = open_time[inside], values[inside]
    order = np.argsort(times, kind="stable")
    times, table = times[order], table[order]
    repeats = np.flatnonzero(times[1:] == times[:-1])
    if len(repeats):
        differ = np.any(_bits(table[repeats]) != _bits(table[repeats + 1]), axis=1)
        _reject(times[repeats], differ, "came twice with different values")
        keep = np.append(times[1:] != times[:-1], True)
        times, table = times[keep], table[keep]
    return times, table


def _reject(times: NDArray[np.int64], bad: NDArray[np.bool_], what: str) -> None:
    if bad.any():
        first = int(times[np.argmax(bad)])
        raise CandleError(
            f"the candle of {format_ms(first)} {what} ({int(bad.sum())} such of {len(times)} rows)",
            open_time=first,
        )


def given(symbol: str, candles: Candles, timeframe: Timeframe, *, asked_ms: int) -> list[Answer]:
    """Turn candles given by the user into answers: present where they are, nothing absent."""
    return [
        Answer(symbol, run, candles.within(run), Served.GIVEN, asked_ms)
        for run in timeframe.runs(candles.open_time)
    ]


def overlay(first: Candles, second: Candles) -> Candles:
    """Return the union of two tables; where both have a time, the second's values."""
    if not len(first) or not len(second):
        return first if len(first) else second
    first, second = alike((first, second))
    times = np.concatenate((second.open_time, first.open_time))
    values = np.concatenate((second.values, first.values))
    unique, at = np.unique(times, return_index=True)  # the first occurrence: the second table's
    return Candles(unique, values[at])


def merged_times(times: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the sorted union of several arrays of open times, int64 (n,).

    Usually the longest array has all of them, and nothing needs sorting.
    """
    # Tables of one dataset often share the very array.
    distinct = {id(one): one for one in times}
    longest_first = sorted(distinct.values(), key=len, reverse=True)
    if not longest_first:
        return np.empty(0, np.int64)
    union, *rest = longest_first
    for one in rest:
        if not _contains(union, one):
            union = np.union1d(union, one)
    return union


def _contains(union: NDArray[np.int64], times: NDArray[np.int64]) -> bool:
    if not len(times):
        return True
    first = int(np.searchsorted(union, times[0]))
    if np.array_equal(union[first : first + len(times)], times):
        return True
    places = np.searchsorted(union, times)
    return bool(places[-1] < len(union)) and np.array_equal(union[places], times)
