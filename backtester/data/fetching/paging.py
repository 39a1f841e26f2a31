"""Decide how to read one window of one symbol, and when an absence is proven.

Pure, in the sans-I/O manner: `read_window` is a generator that yields the next
`Ask` and is sent the checked candles that came; it returns what it learned.
The caller owns the network, the clock and the retries.

What it guards against: an empty or short answer is never taken for the end of
history. A grid time counts as *absent* only when

* an answer that showed candles around it left it out, and a second one did so
  again; or
* the exchange was asked for the first candle at or after it and named a later
  one, or for its newest and named an earlier one (where it answers such
  questions: `Capability.from_start`); or
* where it cannot be asked so, two answers in a row were empty; and, once its first candle is
  known, two more that reach beyond the window on either side showed none in it; or, at the end
  of a window that has candles, one was empty and another showed only the candle next to it.

A time that closed a moment ago is not absent yet: exchanges publish late.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backtester.data.candles import Candles, overlay
from backtester.data.errors import BadResponseError
from backtester.data.model import Interval, Served, Timeframe, format_ms

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ABSENCE_SETTLE_MS",
    "FIRST_MARKET_MS",
    "Ask",
    "Finding",
    "Reader",
    "find_inception",
    "find_oldest",
    "read_if_listed",
    "read_window",
    "search_inception",
]

ABSENCE_SETTLE_MS = 60_000
"""How long after its close a missing candle may still appear, milliseconds."""

_PROOFS = 2
"""Answers that must pass a grid time over before it is absent."""

_MOST_ASKS = 64
"""Every answer adds candles or proof, so this only ends a liar."""

_FOREVER = 2**62
FIRST_MARKET_MS = 1_230_940_800_000  # 2009-01-03: there was nothing to trade before Bitcoin
_MOST_WINDOWS = 40
"""Empty windows to try on one rung of the search for an inception, if it is finer than a day."""
_MOST_COARSE_WINDOWS = 120
"""And if it is not: windows of 90 days from 2009 to 2038."""
_DAY_MS = 86_400_000
_UNDECIDED = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for candles."""

    since: int | None
    """Open time of the first candle wanted, UTC epoch milliseconds; None asks for the newest
    `limit` candles before `until`."""
    until: int | None
    """End of the window, exclusive; None asks for the first `limit` candles from `since` on."""
    limit: int
    timeframe: Timeframe | None = None
    """Of the candles asked for; None for the reader's own."""

    @property
    def interval(self) -> Interval:
        """Where the candles of an answer must lie."""
        return Interval(self.since or 0, self.until if self.until is not None else _FOREVER)


@dataclass(frozen=True, slots=True)
class Finding:
    """A proven piece of the answer: an interval and what its silence means."""

    interval: Interval
    served: Served


@dataclass(slots=True)
class Reader:
    """What the windows of one series share while they are read."""

    timeframe: Timeframe
    from_start: bool
    now_ms: int
    """The exchange's clock when the fetch began, UTC epoch milliseconds."""
    inception: int | None = None
    """Nothing opens before this, UTC epoch milliseconds; None while unknown."""
    created_ms: int | None = None
    """When the exchange says that the market began, UTC epoch milliseconds; None if it does not.
    That is where its first candle is looked for first, and why there was none before; what lies
    before is looked at all the same."""
    shown: int | None = None
    """A candle that was shown before the inception was looked for, UTC epoch milliseconds."""

    def listed_before(self, time_ms: int) -> bool:
        """Tell whether the market is known to have had a candle before a time."""
        known = self.shown if self.inception is None else self.inception
        return known is not None and known < time_ms

    def unsure_before(self, time_ms: int) -> bool:
        """Tell whether it may have been listed at this time or later, for all that is known."""
        return self.inception is None and not self.listed_before(time_ms)

    @property
    def settled_end(self) -> int:
        """The first grid time at which a missing candle may still appear."""
        return self.timeframe.floor(self.now_ms - ABSENCE_SETTLE_MS)


Asking = Generator[Ask, Candles, tuple[Candles, list[Finding]]]
"""Yields requests, is sent their candles, returns (candles, findings)."""


def find_inception(reader: Reader) -> Generator[Ask, Candles, int | None]:
    """Find the market's first candle where the exchange answers such a question.

    All that lies before it will count as not listed, so one answer is not
    enough: the exchange must also have nothing to show when asked for the
    newest candle before it.

    Returns
    -------
    int or None
        Its open time, UTC epoch milliseconds; None when the market shows no candle.

    Raises
    ------
    BadResponseError
        The two answers contradict each other.
    """
    first = yield Ask(0, None, 1)
    if len(first) == 0:  # an empty answer proves nothing: ask once more
        first = yield Ask(0, None, 1)
    if len(first) == 0:
        return None
    inception = int(first.open_time[0])
    if inception > 0:
        earlier = yield Ask(None, inception, 1)
        if len(earlier):
            raise BadResponseError(
                f"a first candle at {format_ms(inception)}, but also earlier ones"
            )
    reader.inception = inception
    return inception


def search_inception(
    ladder: list[Timeframe], page_size: int, reader: Reader
) -> Generator[Ask, Candles, int | None]:
    """Find the market's first candle by windows alone, from the coarsest timeframe down.

    A day's candle tells the day, the hours in it the hour, and so on. Where a
    finer timeframe shows nothing from there on (its history may be shorter),
    what the coarser one said stands.

    Parameters
    ----------
    ladder : list of Timeframe
        From the longest to the reader's own.
    page_size : int
        Candles per request.

    Returns
    -------
    int or None
        Nothing opens before this time, UTC epoch milliseconds; None when there is no candle; 0
        when there may be some, but too far from where the search began.
    """
    found: int | None = None
    for rung in ladder:
        floor = rung.floor(FIRST_MARKET_MS if found is None else found)
        likely = max(floor, rung.floor(reader.created_ms or 0)) if found is None else floor
        shown = yield from _first_shown(rung, likely, page_size, reader.now_ms)
        if shown is None and likely > floor:
            shown = yield from _first_shown(rung, floor, page_size, reader.now_ms)
        if shown == _UNDECIDED and rung is ladder[0]:
            return _UNDECIDED
        if shown:
            doubted = likely > floor  # nothing before it has been asked for yet
            # Three days may open before the week that told where to look for them.
            found = yield from _first_before(rung, floor, page_size, shown, doubted=doubted)
    reader.inception = found
    return found


def _first_shown(
    rung: Timeframe, floor: int, page_size: int, now_ms: int
) -> Generator[Ask, Candles, int | None]:
    """Go forward by windows to the first that shows a candle; 0 if it is not among so many."""
    since = floor
    for _ in range(_MOST_WINDOWS if rung.typical_ms < _DAY_MS else _MOST_COARSE_WINDOWS):
        if since > now_ms:
            return None
        until = rung.next(since, page_size)
        candles = yield Ask(since, until, page_size, rung)
        if len(candles) == 0 and until > now_ms:  # the last one: ask once more
            candles = yield Ask(since, until, page_size, rung)
        if len(candles):
            return int(candles.open_time[0])
        since = until
    return _UNDECIDED if since <= now_ms else None


def _first_before(
    rung: Timeframe, floor: int, page_size: int, shown: int, *, doubted: bool
) -> Generator[Ask, Candles, int]:
    """Go back from a candle while there are earlier ones.

    The page that showed it may have been cut at its start, and the empty
    answer before it a fault; there was none yet if it is `doubted`.
    """
    for _ in range(_MOST_ASKS):
        since = max(rung.next(shown, -page_size), floor)
        if since >= shown:
            return shown
        ask = Ask(since, shown, rung.steps(Interval(since, shown)), rung)
        earlier = yield ask
        if len(earlier) == 0 and doubted:
            earlier = yield ask
        if len(earlier) == 0:
            return shown
        shown = int(earlier.open_time[0])
    raise BadResponseError(f"the exchange's answers before {format_ms(shown)} keep changing")


def find_oldest(
    interval: Interval, page_size: int, reader: Reader
) -> Generator[Ask, Candles, int | None]:
    """Find the oldest candle of what an API of limited depth still holds of an interval.

    It holds few enough for one answer, whatever the interval's length.

    Returns
    -------
    int or None
        Its open time, UTC epoch milliseconds; None when two answers were empty.
    """
    start = max(interval.start, reader.timeframe.floor(FIRST_MARKET_MS))
    if start >= interval.end:
        return None
    for _ in range(_PROOFS):
        held = yield Ask(start, interval.end, page_size)
        if len(held):
            return int(held.open_time[0])
    return None


def read_window(window: Interval, reader: Reader) -> Asking:
    """Read one window whole.

    Returns
    -------
    (Candles, list of Finding)
        The candles of the window, and the intervals that are answered by them.
        Findings may reach beyond the window where an answer proved more; they
        leave out what is too fresh to be called absent.
    """
    candles = yield Ask(window.start, window.end, reader.timeframe.steps(window))
    if len(candles):
        return (yield from _complete(window, candles, reader))
    if reader.from_start:
        return (yield from _explain_empty(window, reader))
    again = yield Ask(window.start, window.end, reader.timeframe.steps(window))
    if len(again) == 0 and reader.listed_before(window.start):
        again = yield from _straddled(window, reader.timeframe)
    if len(again):
        return (yield from _complete(window, again, reader))
    return Candles.empty(), _silence(window, Served.NOT_SERVED, reader)


def read_if_listed(
    window: Interval, reader: Reader
) -> Generator[Ask, Candles, tuple[Candles, list[Finding]] | None]:
    """Read one window whole if it shows a candle at its very start; else give None.

    Where it does, the inception lies before all that is asked for, and need not be found.
    """
    candles = yield Ask(window.start, window.end, reader.timeframe.steps(window))
    if len(candles) == 0 or int(candles.open_time[0]) != window.start:
        return None
    reader.shown = window.start
    return (yield from _complete(window, candles, reader))


def _straddled(window: Interval, timeframe: Timeframe) -> Generator[Ask, Candles, Candles]:
    """Ask for the halves of a silent window, each together with what lies next to it.

    The market was listed by then, so its silence may be a fault; these answers have something
    to show unless it is longer than the window. Gives what they show inside.
    """
    steps = timeframe.steps(window)
    half = (steps + 1) // 2
    middle = timeframe.next(window.start, half)
    first = timeframe.next(window.start, -max(steps - half, 1))
    shown = yield Ask(first, middle, timeframe.steps(Interval(first, middle)))
    if middle < window.end:
        last = timeframe.next(window.end, half)
        later = yield Ask(middle, last, timeframe.steps(Interval(middle, last)))
        shown = overlay(shown, later)
    return shown.within(window)


def _complete(window: Interval, candles: Candles, reader: Reader) -> Asking:
    """Ask again for what an answer left out, until its absence was shown twice."""
    if len(candles) == reader.timeframe.steps(window):  # whole, as most pages are
        return candles, _silence(window, Served.MARKET, reader, candles)
    headless = int(candles.open_time[0]) > window.start
    if headless and reader.from_start and reader.unsure_before(window.start):
        yield from find_inception(reader)
    first = int(candles.open_time[0])
    if reader.from_start and first < (reader.inception or 0):
        raise BadResponseError(f"a candle at {format_ms(first)}, before the market's first candle")
    shown = _Shown(window, reader)
    shown.add(window, candles)
    narrow = False
    for _ in range(_MOST_ASKS):
        doubtful = shown.doubtful(candles, narrow=narrow)
        if doubtful is None:
            return candles, _silence(window, Served.MARKET, reader, candles)
        again = yield Ask(doubtful.start, doubtful.end, reader.timeframe.steps(doubtful))
        known = not reader.from_start and _known(doubtful, candles, again)
        spoken = _spoken(doubtful, candles, again) if reader.from_start else doubtful
        before, candles = len(candles), overlay(candles, again)
        shown.add(spoken, again, more=len(candles) > before, known=known)
        narrow = not reader.from_start and len(candles) == before
    raise BadResponseError(f"the exchange's answers for {window} keep changing")


def _spoken(asked: Interval, before: Candles, again: Candles) -> Interval:
    """Give how much of what was asked an answer speaks for: less where its page was cut.

    Raises
    ------
    BadResponseError
        It lacks a candle shown before, though it has later ones, or none.
    """
    known = before.within(asked).open_time
    end = int(again.open_time[-1]) + 1 if len(again) else asked.end
    if not np.isin(known[known < end], again.open_time).all():
        raise BadResponseError(f"an answer for {asked} lacks candles that an earlier one had")
    return Interval(asked.start, end if (known >= end).any() else asked.end)


def _known(asked: Interval, before: Candles, again: Candles) -> bool:
    """Tell whether an answer shows again what was shown of an end of the window, and no more.

    Raises
    ------
    BadResponseError
        It is empty, though it was asked for a candle shown before, too.
    """
    known = before.within(asked).open_time
    if len(known) and len(again) == 0:
        raise BadResponseError(f"an answer for {asked} lacks candles that an earlier one had")
    return len(known) == 1 and np.array_equal(known, again.open_time)


def _explain_empty(window: Interval, reader: Reader) -> Asking:
    """Find out why a window came back empty: by the market's first, next or newest candle."""
    if reader.unsure_before(window.start):
        yield from find_inception(reader)
    if reader.inception is not None and reader.inception >= window.end:
        return Candles.empty(), [Finding(Interval(0, reader.inception), Served.NOT_LISTED)]
    following = yield Ask(window.start, None, 1)
    if len(following) == 0:
        return (yield from _explain_end(window, reader))
    next_open = int(following.open_time[0])
    if next_open < window.end:
        raise BadResponseError(f"an empty answer for {window}, though it has candles")
    return Candles.empty(), _silence(Interval(window.start, next_open), Served.MARKET, reader)


def _explain_end(window: Interval, reader: Reader) -> Asking:
    """Tell a delisted market from a fault: by its newest candle, which must lie before."""
    newest = yield Ask(None, None, 1)
    if len(newest) == 0 and reader.unsure_before(window.start):
        return Candles.empty(), _silence(window, Served.NOT_SERVED, reader)
    if len(newest) == 0 or int(newest.open_time[-1]) >= window.start:
        raise BadResponseError(f"an empty answer for {window}, though the market goes on")
    after = reader.timeframe.next(int(newest.open_time[-1]))
    end = max(window.end, reader.timeframe.floor(reader.now_ms))
    return Candles.empty(), _silence(Interval(after, end), Served.DELISTED, reader)


def _silence(
    window: Interval, served: Served, reader: Reader, candles: Candles | None = None
) -> list[Finding]:
    """State what an answered window proves.

    That is all of it but a tail too fresh to be absent; before the inception, or what the
    exchange says of it where no candle contradicts, it is that the market was not listed.
    """
    end = min(window.end, reader.settled_end)
    if candles is not None and len(candles):
        end = min(window.end, max(end, reader.timeframe.next(int(candles.open_time[-1]))))
    begun = reader.inception
    if begun is None and reader.created_ms is not None:
        created = reader.timeframe.floor(reader.created_ms)
        begun = created if not candles or created <= int(candles.open_time[0]) else None
    listed = min(max(window.start, begun or 0), window.end)
    findings = []
    if window.start < min(listed, end):
        findings.append(Finding(Interval(window.start, min(listed, end)), Served.NOT_LISTED))
    if listed < end:
        findings.append(Finding(Interval(listed, end), served))
    return findings


class _Shown:
    """How often each grid time of a window was passed over by an answer."""

    def __init__(self, window: Interval, reader: Reader) -> None:
        self._grid = reader.timeframe.grid(window)
        self._times = np.zeros(len(self._grid), np.int8)
        self._times[self._grid < (reader.inception or 0)] = _PROOFS
        self._reader = reader

    def add(
        self, asked: Interval, candles: Candles, *, more: bool = False, known: bool = False
    ) -> None:
        """Count an answer for all that it speaks for.

        That is everything asked where the exchange honours windows, and
        otherwise what lies between its first and last candle: the rest may have
        been cut off. An empty answer speaks for all that was asked, and so does
        one that is `known`: it has what was shown before, and nothing else. One
        that shows `more` than those before takes their word for the rest away:
        their pages were cut, too.
        """
        start, end = asked.start, asked.end
        if len(candles) and not known and not self._reader.from_start:
            start, end = int(candles.open_time[0]), int(candles.open_time[-1]) + 1
        first, last = np.searchsorted(self._grid, (start, end))
        times = self._times[first:last]
        if more and self._reader.from_start:
            times[times < _PROOFS] = 0
        times += 1

    def doubtful(self, candles: Candles, *, narrow: bool) -> Interval | None:
        """Give where to ask again: a stretch around what is neither there nor proven absent.

        It is the hull of all doubtful times and one candle further on either
        side, so that an honest answer has something to show. Where the first
        candle after a time can be asked for, what lies behind the last candle
        comes first, since a page may have been cut there; elsewhere what lies
        between candles does, and then the ends: alone, and once that was empty
        with the candle next to them. `narrow` gives the first doubtful run
        without a margin: a smaller window is what gets past a smaller page.
        """
        absent = ~np.isin(self._grid, candles.open_time)
        doubtful = np.flatnonzero(absent & (self._times < _PROOFS))
        if len(doubtful) == 0:
            return None
        margin = 1
        if self._reader.from_start:
            behind = doubtful[self._grid[doubtful] > candles.open_time[-1]]
            doubtful = behind if len(behind) else doubtful
        else:
            doubtful, margin = self._of_windows(doubtful, candles, narrow=narrow)
        first = max(int(doubtful[0]) - margin, 0)
        last = min(int(doubtful[-1]) + margin, len(self._grid) - 1)
        return Interval(int(self._grid[first]), self._reader.timeframe.next(int(self._grid[last])))

    def _of_windows(
        self, doubtful: NDArray[np.int64], candles: Candles, *, narrow: bool
    ) -> tuple[NDArray[np.int64], int]:
        """Give what to ask for where only windows can be asked for, and how far around it."""
        first, last = np.searchsorted(self._grid, candles.open_time[[0, -1]])
        between = (first < doubtful) & (doubtful < last)
        if between.any() and not narrow:
            return doubtful[between], 1
        if narrow:
            breaks = np.flatnonzero(np.diff(doubtful) != 1)
            doubtful = doubtful[: breaks[0] + 1] if len(breaks) else doubtful
        return doubtful, int(not between[0] and self._times[doubtful].min() > 0)
