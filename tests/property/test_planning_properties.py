"""What holds for every plan: nothing twice, nothing skipped, nothing unclosed."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from backtester.data.fetching.planning import closed_end, cut, interleave, missing, pages_needed
from backtester.data.model import Coverage, Interval, Timeframe
from tests.support.builders import H1, span_of_hours
from tests.support.strategies import moments, small_intervals, small_spans, timeframes


@given(timeframes(), moments(10**12), st.integers(0, 60_000))
def test_no_closed_candle_is_forming(timeframe: Timeframe, now_ms: int, settle_ms: int) -> None:
    """The last closed candle's close lies `settle_ms` back; the next one's does not."""
    end = closed_end(timeframe, now_ms, settle_ms)
    last = timeframe.next(end, -1)
    assert timeframe.next(last) + settle_ms <= now_ms
    assert timeframe.next(end) + settle_ms > now_ms


@given(
    st.sampled_from(["1m", "1h", "1d", "1w", "2w", "1M", "3M", "1y"]).map(Timeframe.parse),
    moments(last=2_000_000_000_000),
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40)), max_size=4),
    st.integers(1, 50),
)
def test_pages_cover_exactly_what_is_missing(
    timeframe: Timeframe, first_ms: int, pieces: list[tuple[int, int]], page_size: int
) -> None:
    """In order, without overlap, none too large, every grid time once."""
    at, intervals = timeframe.ceil(first_ms), []
    for gap, length in pieces:
        start = timeframe.next(at, gap + 1)
        at = timeframe.next(start, length)
        intervals.append(Interval(start, at))
    pages = list(cut("X", intervals, timeframe, page_size))
    wanted = [time for interval in intervals for time in timeframe.grid(interval).tolist()]
    asked = [time for page in pages for time in timeframe.grid(page.interval).tolist()]
    assert asked == wanted
    assert all(1 <= timeframe.steps(page.interval) <= page_size for page in pages)
    assert all(a.interval.end <= b.interval.start for a, b in pairwise(pages))
    assert [m for i in intervals for m in i.subtract(p.interval for p in pages)] == []
    assert all(any(p.interval.end <= i.end and i.start <= p.interval.start for i in intervals)
               for p in pages)  # fmt: skip
    assert {page.symbol for page in pages} <= {"X"}
    assert pages_needed(intervals, timeframe, page_size) == len(pages)
    # No page more than the pieces need.
    assert len(pages) == sum(-(-length // page_size) for _, length in pieces)


@given(st.lists(st.integers(0, 12), max_size=8), st.integers(1, 5))
def test_taking_turns_loses_nothing(lengths: list[int], page_size: int) -> None:
    """Every page of every symbol comes once and in its symbol's order, fairly."""
    names = [f"S{i}" for i in range(len(lengths))]
    plans = {
        name: list(cut(name, [span_of_hours(0, n)] if n else [], H1, page_size))
        for name, n in zip(names, lengths, strict=True)
    }
    taken = list(interleave([iter(pages) for pages in plans.values()]))
    assert {name: [p for p in taken if p.symbol == name] for name in names} == plans
    done = dict.fromkeys(names, 0)
    for page in taken:
        left = [done[name] for name in names if done[name] < len(plans[name])]
        assert done[page.symbol] == min(left), "nobody is a turn ahead"
        done[page.symbol] += 1


@given(
    st.dictionaries(
        st.sampled_from("ABCD"),
        st.tuples(small_intervals(), st.lists(small_spans(), max_size=5)),
    )
)
def test_what_is_missing_and_what_is_covered_make_up_what_is_wanted(plan: dict) -> None:
    """Per symbol a set difference, and no entry where nothing is left."""
    wanted = {symbol: interval for symbol, (interval, _) in plan.items()}
    covered = {symbol: Coverage().add(spans) for symbol, (_, spans) in plan.items()}
    found = missing(wanted, covered)
    for symbol, (interval, spans) in plan.items():
        answered = {p for span in spans for p in range(span.start, span.end)}
        points = {p for part in found.get(symbol, []) for p in range(part.start, part.end)}
        assert points == set(range(interval.start, interval.end)) - answered
        assert (symbol in found) == bool(points)
