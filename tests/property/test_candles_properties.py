"""Merging answers against a dictionary; a page's check against its rules one by one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backtester.data.candles import Answer, Series, check, overlay
from backtester.data.errors import CandleError
from backtester.data.model import Interval, Served
from tests.support.builders import H1, HOUR, START, candles_at, plain_series, rows, span_of_hours
from tests.support.strategies import answers, small_intervals

many_answers = st.lists(answers(symbols=("X",)), max_size=8)


def split(batch: list[Answer], cuts: list[int]) -> list[list[Answer]]:
    """Split a list at some places: the same answers in several calls."""
    at = sorted({0, len(batch), *(cut % (len(batch) + 1) for cut in cuts)})
    return [batch[a:b] for a, b in pairwise(at)]


# ------------------------------------------------------------------------ merging


@given(many_answers, st.lists(st.integers(0, 20), max_size=4))
def test_merging_is_a_dictionary_update(batch: list[Answer], cuts: list[int]) -> None:
    """Later wins, no time is ever lost, and exactly the changed bits are revisions.

    However many calls the answers come in, the table and the revisions are the same.
    """
    model: dict[int, bytes] = {}
    changes = []
    for one in batch:
        for time, row in rows(one.candles).items():
            if model.get(time, row) != row:
                changes.append((time, model[time], row))
            model[time] = row
    series = Series()
    for part in split(batch, cuts):
        series = series.with_answers(part)
    assert rows(series.candles) == model
    told = [
        (r.open_time, np.array(r.old).tobytes(), np.array(r.new).tobytes())
        for r in series.revisions
    ]
    assert sorted(told) == sorted(changes)
    assert (np.diff(series.candles.open_time) > 0).all()
    assert plain_series(series) == plain_series(Series().with_answers(batch))


@given(
    st.lists(answers(symbols=("X",), last=6, extras=(0, 1, 4)), max_size=8),
    st.lists(st.integers(0, 20), max_size=4),
)
def test_extra_columns_stay_with_their_candle(batch: list[Answer], cuts: list[int]) -> None:
    """They are kept by answers that say the same candle without them, and go with one revised."""
    model: dict[int, tuple[bytes, list[float]]] = {}
    for one in batch:
        wide = one.candles.widened(9)
        for time, row in zip(wide.open_time.tolist(), wide.values, strict=True):
            core, extras = row[:5].tobytes(), row[5:].tolist()
            before = model.get(time)
            if before is not None and before[0] == core:
                extras = [
                    old if new != new else new for old, new in zip(before[1], extras, strict=True)
                ]
            model[time] = (core, extras)
    series = Series()
    for part in split(batch, cuts):
        series = series.with_answers(part)
    found = series.candles.widened(9)
    for time, row in zip(found.open_time.tolist(), found.values, strict=True):
        core, extras = model.pop(time)
        assert row[:5].tobytes() == core
        assert row[5:].tobytes() == np.array(extras).tobytes()
    assert model == {}
    assert plain_series(series) == plain_series(Series().with_answers(batch))


@given(many_answers)
def test_the_same_answers_again_change_no_candle(batch: list[Answer]) -> None:
    """Merging is idempotent: the last answer of every time is what stays."""
    once = Series().with_answers(batch)
    last = [Answer("X", span_of_hours(0, 20), once.candles, Served.MARKET, 5)]
    again = once.with_answers(last).with_answers(last)
    assert again.candles == once.candles
    assert again.revisions == once.revisions


@given(many_answers, answers(symbols=("X",)))
def test_no_answer_narrows(batch: list[Answer], more: Answer) -> None:
    """Whatever is answered next, every time and every covered moment stays."""
    before = Series().with_answers(batch)
    after = before.with_answers([more])
    assert rows(before.candles).keys() <= rows(after.candles).keys()
    for span in before.coverage:
        assert after.coverage.missing(span.interval) == []
    assert after.revisions[: len(before.revisions)] == before.revisions


@given(st.sets(st.integers(0, 40)), st.lists(st.integers(1, 40), max_size=6), st.data())
def test_pages_in_any_order_make_the_same_series(
    shown: set[int], cuts: list[int], data: st.DataObject
) -> None:
    """Disjoint pages of one answer, in whatever order and batches, are that one answer."""
    table = candles_at(START + hour * HOUR for hour in shown)
    bounds = sorted({0, 41, *cuts})
    pages = []
    for a, b in pairwise(bounds):
        interval = span_of_hours(a, b - a)
        pages.append(Answer("X", interval, table.within(interval), Served.MARKET, 3))
    pages = data.draw(st.permutations(pages))
    series = Series()
    for part in split(list(pages), cuts):
        series = series.with_answers(part)
    whole = Series().with_answers([Answer("X", span_of_hours(0, 41), table, Served.MARKET, 3)])
    assert plain_series(series) == plain_series(whole)


@given(
    st.sets(st.integers(0, 15)), st.integers(0, 2), st.sets(st.integers(0, 15)), st.integers(0, 2)
)
def test_overlay_is_a_dictionary_update(
    first: set[int], seed: int, second: set[int], other_seed: int
) -> None:
    """The union of both, with the second's rows on top; twice is as good as once."""
    one = candles_at((START + h * HOUR for h in first), seed)
    two = candles_at((START + h * HOUR for h in second), other_seed)
    both = overlay(one, two)
    assert rows(both) == {**rows(one), **rows(two)}
    assert list(rows(both)) == sorted(rows(both))
    assert overlay(both, two) == both


# ------------------------------------------------------------------------ what is known


@given(many_answers, small_intervals())
def test_states_fill_the_interval(batch: list[Answer], hours: Interval) -> None:
    """Without overlap or hole, and each grid time has the state its answers give it."""
    interval = span_of_hours(hours.start, hours.end - hours.start)
    series = Series().with_answers(batch)
    states = series.states(H1, interval)
    assert states[0][0].start == interval.start
    assert states[-1][0].end == interval.end
    assert all(a[0].end == b[0].start for a, b in pairwise(states))
    last: dict[int, str] = {}
    for one in batch:
        word = "no trades" if one.served is Served.MARKET else one.served.value
        last.update(dict.fromkeys(H1.grid(one.interval).tolist(), word))
    present = rows(series.candles)
    for part, state in states:
        for time in H1.grid(part).tolist():
            expected = "present" if time in present else last.get(time, "never asked")
            assert state == expected


# ------------------------------------------------------------------------ the gate


def sound_row(values: list[float]) -> bool:
    opened, high, low, closed, volume = values
    finite = all(abs(value) < float("inf") for value in values)  # false for NaN too
    return finite and low <= opened <= high and low <= closed <= high and volume >= 0


cells = st.sampled_from([1.0, 2.0, 3.0, 0.0, -1.0, float("nan"), float("inf")])
row = st.one_of(st.just([2.0, 3.0, 1.0, 2.0, 5.0]), st.lists(cells, min_size=5, max_size=5))


@given(
    st.lists(st.tuples(st.integers(-3, 12), st.sampled_from([0, 0, 0, 0, 1]), row), max_size=10),
    small_intervals(10),
)
def test_a_page_passes_when_every_row_does(
    page: list[tuple[int, int, list[float]]], hours: Interval
) -> None:
    """The gate lets through exactly the pages whose rows inside the window are all sound."""
    interval = span_of_hours(hours.start, hours.end - hours.start)
    wire = [(START + hour * HOUR + off, values) for hour, off, values in page]
    inside = [(time, values) for time, values in wire if time in interval]
    times = np.array([time for time, _ in wire], np.int64)
    table = np.array([values for _, values in wire], np.float64).reshape(-1, 5)
    by_time: dict[int, set[bytes]] = {}
    for time, values in inside:
        by_time.setdefault(time, set()).add(np.array(values).tobytes())
    sound = all(
        len(by_time[time]) == 1 and (time - START) % HOUR == 0 and sound_row(values)
        for time, values in inside
    )
    if not sound:
        with pytest.raises(CandleError) as caught:
            check(times, table, H1, interval)
        assert caught.value.open_time in by_time
        return
    checked = check(times, table, H1, interval)
    assert rows(checked) == {time: next(iter(found)) for time, found in by_time.items()}
    assert list(rows(checked)) == sorted(by_time)


@given(st.lists(st.integers(0, 20), max_size=20), st.sets(st.integers(0, 20)))
def test_the_order_of_the_wire_does_not_matter(order: list[int], shown: set[int]) -> None:
    """Rows shuffled and repeated give the table of the rows in order."""
    tidy = candles_at(START + hour * HOUR for hour in shown)
    assume(len(tidy))
    at = np.array([*(i % len(tidy) for i in order), *range(len(tidy))])
    assert check(tidy.open_time[at], tidy.values[at], H1, span_of_hours(0, 21)) == tidy
