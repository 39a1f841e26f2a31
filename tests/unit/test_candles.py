"""Candle tables: the gate every candle passes, and merging case by case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backtester.data.candles import (
    COLUMNS,
    Answer,
    Candles,
    Revision,
    Series,
    check,
    given,
    merge,
    merged_times,
    overlay,
)
from backtester.data.errors import CandleError
from backtester.data.model import Coverage, Interval, Served, Span, Timeframe
from tests.support.builders import (
    H1,
    HOUR,
    START,
    answer,
    candles_at,
    hours,
    rows,
    span_of_hours,
)

DAY_OF_HOURS = span_of_hours(0, 24)
GOOD = (10.0, 12.0, 9.0, 11.0, 5.0)


def page(*changes: tuple[int, int, float], times: list[int] | None = None) -> Candles:
    """Check a page of good rows after changes of (row, column, value)."""
    at = hours(0, 6) if times is None else times
    table = np.tile(np.array(GOOD), (len(at), 1))
    for row, column, value in changes:
        table[row, column] = value
    return check(np.array(at, np.int64), table, H1, DAY_OF_HOURS)


# ------------------------------------------------------------------------ the table


@pytest.mark.parametrize(
    ("times", "values"),
    [
        (np.zeros(2, np.int32), np.zeros((2, 5))),
        (np.zeros(2, np.int64), np.zeros((2, 5), np.float32)),
        (np.zeros(2, np.int64), np.zeros((3, 5))),
        (np.zeros(2, np.int64), np.zeros((2, 4))),
        (np.zeros(2, np.int64), np.zeros((2, 10))),
        (np.zeros(2, np.int64), np.zeros(10)),
    ],
)
def test_a_table_has_one_shape(times: Any, values: Any) -> None:
    """Other types and shapes are refused before they get anywhere."""
    with pytest.raises(CandleError, match="candles"):
        Candles(times, values)


def test_tables_cannot_be_changed() -> None:
    """Several answers share an array, so nobody may write to one."""
    table = candles_at(hours(0, 3))
    for array in (table.open_time, table.values, table.within(DAY_OF_HOURS).values):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(TypeError):
        hash(table)


def test_tables_are_equal_bit_by_bit() -> None:
    """-0.0 is not 0.0, and a NaN is equal to the same NaN only."""
    payload = np.array([0x7FF8000000000001], np.int64).view(np.float64)[0]

    def one(value: float) -> Candles:
        return Candles.of([START], [[value] * 5])

    assert one(1.5) == one(1.5)
    assert one(np.nan) == one(np.nan)
    assert one(0.0) != one(-0.0)
    assert one(np.nan) != one(payload)
    assert one(1.5) != candles_at([])
    assert Candles.empty() == candles_at([])
    assert one(1.5) != "candles"


def test_cutting_out_takes_open_times_of_the_interval() -> None:
    """A candle belongs to an interval when it opens in it, the end exclusive."""
    table = candles_at(hours(0, 5))
    assert table.within(span_of_hours(1, 2)).open_time.tolist() == hours(1, 2)
    assert len(table.within(span_of_hours(9, 2))) == 0
    assert table.take(table.open_time > hours(2, 1)[0]).open_time.tolist() == hours(3, 2)


# ------------------------------------------------------------------------ the gate


def test_any_order_and_repetitions_are_put_right() -> None:
    """Exchanges send newest first, twice the same, and one too many at either bound."""
    tidy = candles_at(hours(0, 24))
    outside = candles_at([START - HOUR, START + 24 * HOUR])
    times = np.concatenate([tidy.open_time[::-1], outside.open_time, tidy.open_time[3:7]])
    values = np.concatenate([tidy.values[::-1], outside.values, tidy.values[3:7]])
    assert check(times, values, H1, DAY_OF_HOURS) == tidy


def test_no_rows_are_a_sound_page() -> None:
    """An empty page passes: what it means is not the gate's business."""
    empty = check(np.empty(0, np.int64), np.empty((0, 5)), H1, DAY_OF_HOURS)
    assert empty == Candles.empty()


BAD_ROWS: dict[str, tuple[tuple[int, int, float], str]] = {
    "NaN": ((3, 0, float("nan")), "not a finite number"),
    "infinite volume": ((3, 4, float("inf")), "not a finite number"),
    "minus infinity": ((3, 2, float("-inf")), "not a finite number"),
    "open above high": ((3, 0, 12.5), "outside its low and high"),
    "close below low": ((3, 3, 8.5), "outside its low and high"),
    "high below low": ((3, 1, 8.0), "outside its low and high"),
    "low above all": ((3, 2, 13.0), "outside its low and high"),
    "negative volume": ((3, 4, -0.5), "negative volume"),
}


@pytest.mark.parametrize(("change", "what"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named(change: tuple[int, int, float], what: str) -> None:
    """A row that cannot be a candle fails the page, and the error says which and why."""
    with pytest.raises(CandleError, match=f"2024-01-01 03:00 UTC .*{what}.*1 such of 6 rows") as e:
        page(change)
    assert e.value.open_time == START + 3 * HOUR


def test_the_first_of_several_bad_rows_is_named() -> None:
    """In time, not in the order of the wire."""
    with pytest.raises(CandleError, match=r"02:00 UTC .*\(2 such of 6 rows\)"):
        page((0, 4, -1), (3, 4, -1), times=hours(0, 6)[::-1])


@pytest.mark.parametrize("late_ms", [1, -1, 1800_000])
def test_a_row_off_the_grid_fails_the_page(late_ms: int) -> None:
    """An open time that is none of this timeframe is a foreign row."""
    times = hours(0, 6)
    times[2] += late_ms
    with pytest.raises(CandleError, match="off the 1h grid") as caught:
        page(times=times)
    assert caught.value.open_time == times[2]


def test_one_time_with_two_candles_fails_the_page() -> None:
    """Two different candles for one time: neither can be believed."""
    times = hours(0, 6)
    times[5] = times[4]
    assert len(page(times=times)) == 5
    with pytest.raises(CandleError, match="04:00 UTC came twice with different values"):
        page((5, 4, 6.0), times=times)


def test_bad_rows_outside_the_window_do_not_matter() -> None:
    """What was not asked for is dropped before it is judged."""
    page((5, 4, -1.0), times=[*hours(0, 5), START + 99 * HOUR + 1])


def test_months_are_on_their_own_grid() -> None:
    """A month begins on the first, whatever the length of the last."""
    month = Timeframe.parse("1M")
    year = Interval(START, START + 366 * 24 * HOUR)
    firsts = month.grid(year)
    table = np.tile(np.array(GOOD), (12, 1))
    assert check(firsts, table, month, year).open_time.tolist() == firsts.tolist()
    with pytest.raises(CandleError, match="2024-01-31 00:00 UTC is off the 1M grid"):
        check(np.array([START + 30 * 24 * HOUR]), table[:1], month, year)


def test_equal_prices_and_no_volume_are_a_candle() -> None:
    """A minute in which nothing happened is a candle like any other."""
    page((1, 1, 11.0), (1, 0, 11.0), (1, 2, 11.0), (1, 4, 0.0), (2, 4, -0.0))


@pytest.mark.parametrize("value", [-1.0, np.inf])
def test_a_further_column_is_checked_too(value: float) -> None:
    """It may be unknown, but neither negative nor infinite; a page with such is no page."""
    table = candles_at(hours(0, 3), extras=4)
    values = table.values.copy()
    values[0, 6] = np.nan
    whole = span_of_hours(0, 3)
    assert len(check(table.open_time, values, H1, whole)) == 3
    values[1, 6] = value
    with pytest.raises(CandleError, match=r"01:00.* further column"):
        check(table.open_time, values, H1, whole)


# ------------------------------------------------------------------------ merging


def test_a_changed_candle_is_news() -> None:
    """The new value is kept, and the old one is told with the times of both answers."""
    series = Series().with_answers([answer(asked_ms=5)])
    revised = series.with_answers([answer(first=1, count=1, seed=1, asked_ms=9)])
    old, new = candles_at(hours(1, 1)), candles_at(hours(1, 1), seed=1)
    assert revised.revisions == (
        Revision(hours(1, 1)[0], tuple(old.values[0]), tuple(new.values[0]), 5, 9),
    )
    assert rows(revised.candles)[hours(1, 1)[0]] == rows(new)[hours(1, 1)[0]]
    assert revised.with_answers([answer(first=1, count=1, seed=1)]).revisions == revised.revisions


@pytest.mark.parametrize("column", range(5), ids=COLUMNS)
def test_a_change_of_any_one_value_is_news(column: int) -> None:
    """Exchanges correct volumes alone, too."""
    values = np.array([GOOD])
    changed = values.copy()
    changed[0, column] += 0.5
    whole = span_of_hours(0, 1)
    first, second = (Answer("X", whole, Candles.of([START], one)) for one in (values, changed))
    (revision,) = Series().with_answers([first, second]).revisions
    assert (revision.old, revision.new) == (GOOD, tuple(changed[0]))


def test_every_change_within_one_batch_is_told() -> None:
    """A candle that changes and changes back was revised twice."""
    batch = [answer(count=1, seed=seed, asked_ms=at) for seed, at in ((0, 1), (1, 2), (0, 3))]
    _, revisions = merge(Candles.empty(), Coverage(), batch)
    assert [(r.old_asked_ms, r.new_asked_ms) for r in revisions] == [(1, 2), (2, 3)]


def test_a_change_of_unknown_age() -> None:
    """A stored candle without coverage was answered at no known time."""
    _, revisions = merge(candles_at(hours(0, 1)), Coverage(), [answer(count=1, seed=1)])
    assert [r.old_asked_ms for r in revisions] == [0]


def test_bits_that_print_alike_are_revisions() -> None:
    """A zero that changes its sign, or a NaN its payload, changes."""
    payload = float(np.array([0x7FF8000000000001], np.int64).view(np.float64)[0])
    span = span_of_hours(0, 2)
    before = Candles.of(hours(0, 2), [[0.0] * 5, [float("nan")] * 5])
    after = Candles.of(hours(0, 2), [[-0.0] * 5, [payload] * 5])
    same, none = merge(before, Coverage(), [Answer("X", span, before)])
    assert (same, none) == (before, [])
    merged, revisions = merge(before, Coverage(), [Answer("X", span, after)])
    assert merged == after
    assert [r.open_time for r in revisions] == hours(0, 2)


def test_an_answer_without_a_stored_candle_takes_nothing() -> None:
    """What has been seen stays, also when the exchange later answers nothing there."""
    series = Series().with_answers([answer(count=4)])
    silent = series.with_answers(
        [answer(count=4, without=(1, 2)), answer(count=4, without=range(4))]
    )
    assert silent.candles == series.candles
    assert silent.revisions == ()
    assert series.with_answers([]) is series


def test_given_candles_say_nothing_between_them() -> None:
    """Candles handed in are present; the gaps among them stay unasked."""
    table = candles_at([*hours(0, 2), *hours(4, 1)])
    answers = given("X", table, H1, asked_ms=7)
    assert [a.span for a in answers] == [
        Span(START, START + 2 * HOUR, Served.GIVEN, 7),
        Span(START + 4 * HOUR, START + 5 * HOUR, Served.GIVEN, 7),
    ]
    series = Series().with_answers(answers)
    assert series.candles == table
    assert series.coverage.missing(span_of_hours(0, 6)) == [
        span_of_hours(2, 2), span_of_hours(5, 1),
    ]  # fmt: skip


def test_the_second_table_lies_on_top() -> None:
    """Of two tables the union, and where both have a time the second's row."""
    one, two = candles_at(hours(0, 4)), candles_at(hours(2, 4), seed=1)
    assert rows(overlay(one, two)) == {**rows(one), **rows(two)}
    assert overlay(one, Candles.empty()) is one
    assert overlay(Candles.empty(), two) is two


def test_the_union_of_times_is_shared_where_all_agree() -> None:
    """Equal indices stay one array; different ones are joined and sorted."""
    one, same, other, inside, holes = (
        np.array(hours(0, 3)), np.array(hours(0, 3)), np.array(hours(2, 2)),
        np.array(hours(1, 2)), np.array(hours(0, 1) + hours(2, 1)),
    )  # fmt: skip
    assert merged_times([one, same]) is one
    assert merged_times([inside, one, holes]) is one
    assert merged_times(iter([other, one])).tolist() == hours(0, 4)
    assert merged_times([np.array([], np.int64), other]) is other
    assert merged_times([]).tolist() == []


# ------------------------------------------------------------------------ what is known


def test_a_series_tells_what_it_knows() -> None:
    """Every part of an interval is present, absent for a reason, or was never asked."""
    series = Series().with_answers(
        [
            answer(first=0, count=2, served=Served.NOT_LISTED),
            answer(first=2, count=4, without=(3,)),
            answer(first=8, count=1, served=Served.DELISTED),
        ]
    )
    assert series.states(H1, span_of_hours(-1, 11)) == [
        (span_of_hours(-1, 1), "never asked"),
        (span_of_hours(0, 2), "not_listed"),
        (span_of_hours(2, 1), "present"),
        (span_of_hours(3, 1), "no trades"),
        (span_of_hours(4, 2), "present"),
        (span_of_hours(6, 2), "never asked"),
        (span_of_hours(8, 1), "delisted"),
        (span_of_hours(9, 1), "never asked"),
    ]


def test_a_series_full_of_gaps_tells_them_all() -> None:
    """Ten thousand gaps are told in one pass, not one pass each."""
    times = [START + 2 * hour * HOUR for hour in range(10_000)]
    series = Series().with_answers(given("X", candles_at(times), H1, asked_ms=1))
    states = series.states(H1, span_of_hours(0, 20_000))
    assert [word for _, word in states] == ["present", "never asked"] * 10_000


def test_cutting_a_series_keeps_what_belongs_to_the_cut() -> None:
    """Candles, coverage and revisions of the interval, nothing of the rest."""
    series = Series().with_answers([answer(count=6), answer(count=6, seed=1)])
    cut = series.within(span_of_hours(2, 3))
    assert cut.candles.open_time.tolist() == hours(2, 3)
    assert [s.interval for s in cut.coverage] == [span_of_hours(2, 3)]
    assert [r.open_time for r in cut.revisions] == hours(2, 3)


# ------------------------------------------------------------------------ as of, without


def test_as_of_undoes_what_came_later() -> None:
    """Revisions after the moment are undone, the last first; candles yet to close are left out."""
    first = answer("X", 0, 4, asked_ms=10)
    second = answer("X", 1, 1, seed=1, asked_ms=START + 5 * HOUR)
    third = answer("X", 1, 2, seed=2, asked_ms=START + 6 * HOUR)
    before = Series().with_answers([first])
    middle = before.with_answers([second])
    series = middle.with_answers([third])
    assert series.as_of(START + 7 * HOUR, H1).equals(series)
    assert series.as_of(START + 6 * HOUR, H1).candles == series.candles
    assert series.as_of(START + 6 * HOUR - 1, H1).candles == middle.candles
    assert series.as_of(START + 6 * HOUR - 1, H1).revisions == middle.revisions
    assert series.as_of(START + 4 * HOUR, H1).candles == before.candles
    early = series.as_of(START + 3 * HOUR - 1, H1)
    assert early.candles == before.candles.within(span_of_hours(0, 2))
    assert early.coverage.missing(span_of_hours(0, 3)) == [span_of_hours(2, 1)]
    assert isinstance(series.revisions[0], Revision)


def test_without_forgets_candles_and_coverage() -> None:
    """What is taken out counts as never asked; the rest stays."""
    series = Series().with_answers([answer("X", 0, 6, without=(2,)), answer("X", 9, 3)])
    left = series.without([span_of_hours(1, 2), span_of_hours(10, 1)])
    assert left.candles == series.candles.take(
        ~np.isin(series.candles.open_time, hours(1, 2) + hours(10, 1))
    )
    assert left.coverage.missing(span_of_hours(0, 6)) == [span_of_hours(1, 2)]
    assert left.coverage.missing(span_of_hours(9, 3)) == [span_of_hours(10, 1)]
