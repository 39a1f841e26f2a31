"""What holds for every timeframe, interval, coverage and key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backtester.data.model import (
    Coverage,
    DatasetKey,
    Interval,
    MarketType,
    Served,
    Span,
    Timeframe,
)
from tests.support.strategies import moments, small_intervals, small_spans, timeframes

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
LENGTHS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def by_calendar(timeframe: Timeframe, moment: datetime) -> tuple[datetime, datetime]:
    """Find the candle around a moment by Python's own calendar: its open and its close."""
    if timeframe.unit in LENGTHS:
        origin = MONDAY if timeframe.unit == "w" else EPOCH
        length = timedelta(seconds=timeframe.count * LENGTHS[timeframe.unit])
        opened = origin + (moment - origin) // length * length
        return opened, opened + length
    months = timeframe.count * (12 if timeframe.unit == "y" else 1)
    first = ((moment.year - 1970) * 12 + moment.month - 1) // months * months
    years, month = divmod(first, 12)
    closing_years, closing_month = divmod(first + months, 12)
    return (
        datetime(1970 + years, month + 1, 1, tzinfo=UTC),
        datetime(1970 + closing_years, closing_month + 1, 1, tzinfo=UTC),
    )


def to_ms(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


@st.composite
def stretches(draw: st.DrawFn) -> tuple[Timeframe, Interval]:
    """A timeframe and an interval of at most 300 of its candles, on the grid or not."""
    timeframe = draw(timeframes().filter(lambda t: t.typical_ms < 40 * 366 * 86_400_000))
    start = draw(moments())
    if draw(st.booleans()):
        start = timeframe.floor(start)
    length = draw(st.integers(1, 300 * timeframe.typical_ms))
    return timeframe, Interval(start, start + length)


# ------------------------------------------------------------------------ timeframes


@given(timeframes(), moments())
def test_the_grid_is_the_calendars(timeframe: Timeframe, ms: int) -> None:
    """Every candle opens and closes where Python's calendar says."""
    if timeframe.unit in "My" and timeframe.count > 12 * 100:
        timeframe = Timeframe(timeframe.count % 1200 + 1, timeframe.unit)
    try:
        opened, closed = by_calendar(timeframe, EPOCH + timedelta(milliseconds=ms))
    except (ValueError, OverflowError):  # beyond Python's years
        return
    assert (timeframe.floor(ms), timeframe.next(ms)) == (to_ms(opened), to_ms(closed))


@given(timeframes(), moments(-(10**12)))
def test_index_floor_ceil_and_next_agree(timeframe: Timeframe, ms: int) -> None:
    """All of a timeframe's arithmetic tells of one and the same grid."""
    index, opened = timeframe.index(ms), timeframe.floor(ms)
    assert opened <= ms < timeframe.next(ms)
    assert timeframe.open_time(index) == opened
    assert timeframe.index(opened) == index
    assert timeframe.floor(opened) == timeframe.ceil(opened) == opened
    assert timeframe.ceil(ms) == (opened if ms == opened else timeframe.next(ms))
    assert timeframe.next(opened) - opened >= timeframe.typical_ms
    assert timeframe.next(timeframe.next(ms, 3), -3) == opened
    assert timeframe.indices(np.array([ms], np.int64)).tolist() == [index]
    assert timeframe.on_grid(np.array([ms, opened], np.int64)).tolist() == [ms == opened, True]


@given(stretches())
def test_the_grid_of_an_interval(stretch: tuple[Timeframe, Interval]) -> None:
    """The grid lists exactly the open times inside, `steps` counts and `align` bounds them."""
    timeframe, interval = stretch
    expected = []
    at = timeframe.ceil(interval.start)
    while at < interval.end:
        expected.append(at)
        at = timeframe.next(at)
    grid = timeframe.grid(interval)
    assert grid.tolist() == expected
    assert grid.dtype == np.int64
    assert timeframe.steps(interval) == len(expected)
    assert timeframe.on_grid(grid).all()
    aligned = timeframe.align(interval)
    assert aligned == (Interval(expected[0], timeframe.ceil(interval.end)) if expected else None)


@given(stretches(), st.data())
def test_runs_are_neighbours_joined(
    stretch: tuple[Timeframe, Interval], data: st.DataObject
) -> None:
    """Runs hold exactly the candles given, are in order and never touch."""
    timeframe, interval = stretch
    grid = timeframe.grid(interval)
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(grid), max_size=len(grid))))
    times = grid[chosen.astype(bool)] if len(grid) else grid
    runs = timeframe.runs(times)
    held = [timeframe.grid(run).tolist() for run in runs]
    assert [time for run in held for time in run] == times.tolist()
    assert all(a.end < b.start for a, b in pairwise(runs))


@given(timeframes())
def test_a_timeframe_is_read_back(timeframe: Timeframe) -> None:
    """Both of its spellings, the one for people and the one for files, mean it again."""
    assert Timeframe.parse(str(timeframe)) == timeframe
    assert Timeframe.parse(timeframe.file_token) == timeframe


# ------------------------------------------------------------------------ intervals


@given(small_intervals(), st.lists(small_intervals(), max_size=6))
def test_subtracting_is_a_set_difference(whole: Interval, others: list[Interval]) -> None:
    """What is left is every point that no other holds, in maximal pieces."""
    left = whole.subtract(iter(others))
    points = set(range(whole.start, whole.end)).difference(*(range(o.start, o.end) for o in others))
    assert {p for piece in left for p in range(piece.start, piece.end)} == points
    assert sum(piece.end - piece.start for piece in left) == len(points)
    assert all(a.end < b.start for a, b in pairwise(left))


@given(small_intervals(), small_intervals())
def test_an_intersection_is_what_both_hold(one: Interval, other: Interval) -> None:
    """A point lies in the intersection when it lies in both."""
    shared = one.intersection(other)
    held = {p for p in range(30) if shared is not None and p in shared}
    assert held == {p for p in range(30) if p in one and p in other}
    assert (shared is None) == (not held)


# ------------------------------------------------------------------------ coverage

Batches = list[list[Span]]
batches = st.lists(st.lists(small_spans(), max_size=4), max_size=6)


def covered(added: Batches) -> Coverage:
    coverage = Coverage()
    for batch in added:
        coverage = coverage.add(iter(batch))
    return coverage


def slots(coverage: Coverage) -> dict[int, str]:
    return {at: span.served for span in coverage for at in range(span.start, span.end)}


def assert_well_formed(coverage: Coverage) -> None:
    for a, b in pairwise(coverage.spans):
        assert a.end <= b.start, "sorted and disjoint"
        assert a.end < b.start or a.served != b.served, "what touches and means the same is one"


@given(batches)
def test_a_later_answer_wins(added: Batches) -> None:
    """Slot by slot, coverage is what the last answer said."""
    expected: dict[int, Span] = {}
    for batch in added:
        for span in batch:
            expected.update(dict.fromkeys(range(span.start, span.end), span))
    coverage = covered(added)
    assert slots(coverage) == {at: span.served for at, span in expected.items()}
    assert_well_formed(coverage)
    for span in coverage:  # never younger than any answer it stands for
        assert span.asked_ms <= min(expected[at].asked_ms for at in range(span.start, span.end))
        assert span.asked_ms in {s.asked_ms for batch in added for s in batch}


@given(batches, small_intervals())
def test_missing_is_what_was_never_asked(added: Batches, wanted: Interval) -> None:
    """Missing and covered parts make up what is wanted; asking for them leaves nothing missing."""
    coverage = covered(added)
    missing = coverage.missing(wanted)
    points = [p for piece in missing for p in range(piece.start, piece.end)]
    assert points == [p for p in range(wanted.start, wanted.end) if p not in slots(coverage)]
    answered = coverage.add(Span(m.start, m.end, Served.MARKET, 1) for m in missing)
    assert answered.missing(wanted) == []


@given(batches, st.lists(small_spans(), max_size=4), st.lists(small_spans(), max_size=4))
def test_answers_about_different_times_commute(
    before: Batches, first: list[Span], second: list[Span]
) -> None:
    """Where two answers do not overlap, their order does not change what is known."""
    apart = [
        Span(part.start, part.end, span.served, span.asked_ms)
        for span in second
        for part in span.interval.subtract(one.interval for one in first)
    ]
    start = covered(before)
    assert slots(start.add(first).add(apart)) == slots(start.add(apart).add(first))


@given(batches)
def test_one_batch_or_many(added: Batches) -> None:
    """How answers are grouped leaves no trace, not even in when they came."""
    assert covered(added) == Coverage().add(span for batch in added for span in batch)


@given(batches)
def test_answering_again_changes_nothing(added: Batches) -> None:
    """The same answers once more, and no answers, leave the coverage as it is."""
    coverage = covered(added)
    assert coverage.add(coverage.spans) == coverage
    assert coverage.add([]) == coverage


@given(batches, small_intervals())
def test_removing_and_cutting_out(added: Batches, interval: Interval) -> None:
    """`remove` forgets exactly an interval and `within` keeps exactly it."""
    coverage = covered(added)
    removed, kept = coverage.remove(interval), coverage.within(interval)
    assert slots(removed) == {at: s for at, s in slots(coverage).items() if at not in interval}
    assert slots(kept) == {at: s for at, s in slots(coverage).items() if at in interval}
    assert_well_formed(removed)
    assert_well_formed(kept)
    assert slots(removed.add(kept.spans)) == slots(coverage)


# ------------------------------------------------------------------------ keys

exchange_ids = st.from_regex(r"[a-z0-9]{2,40}", fullmatch=True)


@given(exchange_ids, st.sampled_from(MarketType), timeframes())
def test_a_dataset_is_named_and_found_again(
    exchange: str, market_type: MarketType, timeframe: Timeframe
) -> None:
    """A key is what its file's name says, for every exchange, market type and timeframe."""
    key = DatasetKey(exchange, market_type, timeframe)
    assert DatasetKey.from_stem(key.stem) == key
    assert "/" not in key.stem
    assert not key.stem.startswith(".")


@given(st.text(max_size=60))
def test_any_name_is_ours_or_nobodys(stem: str) -> None:
    """Whatever a file is called, it is a dataset only under the name we would write."""
    key = DatasetKey.from_stem(stem)
    assert key is None or key.stem == stem


@given(st.tuples(exchange_ids, timeframes()), st.tuples(exchange_ids, timeframes()))
def test_no_two_datasets_share_a_name(
    one: tuple[str, Timeframe], other: tuple[str, Timeframe]
) -> None:
    """Different keys have different names, also where the disk ignores case."""
    keys = [DatasetKey.of(exchange, "spot", timeframe) for exchange, timeframe in (one, other)]
    same_name = keys[0].stem.lower() == keys[1].stem.lower()
    assert same_name == (keys[0] == keys[1])
