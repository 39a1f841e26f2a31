"""What verification finds in series whose bytes are sound."""

from __future__ import annotations

import numpy as np
import pytest

from backtester.data.candles import Candles, Revision, Series, check
from backtester.data.errors import CandleError
from backtester.data.model import Coverage, Interval, Served, Span
from backtester.data.storage.verifying import problems_of
from tests.support.builders import H1, HOUR, KEY, START, answer, candles_at, hours, span_of_hours

SOUND = Series().with_answers([answer("X", 0, 6, without=(2,)), answer("X", 9, 3)])


def changed(at: int, column: int, value: float) -> Series:
    values = SOUND.candles.values.copy()
    values[at, column] = value
    return Series(Candles(SOUND.candles.open_time, values), SOUND.coverage)


def found(series: Series) -> list[tuple[Interval | None, str]]:
    return [(one.interval, one.what) for one in problems_of(KEY, "X", series)]


def test_a_sound_series_has_no_problem() -> None:
    """Gaps that were answered and times never asked are none; neither is an empty series."""
    assert found(SOUND) == []
    assert found(Series()) == []


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        (1, 0.0, "has an open or close outside its low and high"),
        (3, np.nan, "has a value that is not a finite number"),
        (4, -1.0, "has a negative volume"),
    ],
)
def test_a_broken_candle_is_named(column: int, value: float, what: str) -> None:
    """With its time and the rule it breaks."""
    assert found(changed(3, column, value)) == [(span_of_hours(4, 1), f"a candle {what}")]


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


def test_neighbours_are_one_problem() -> None:
    """Not one per candle."""
    values = SOUND.candles.values.copy()
    values[[0, 1, 2], 4] = -1.0  # hours 0, 1 and 3
    series = Series(Candles(SOUND.candles.open_time, values), SOUND.coverage)
    assert [interval for interval, _ in found(series)] == [span_of_hours(0, 2), span_of_hours(3, 1)]


def test_a_candle_off_the_grid_is_found() -> None:
    """The problem spans the candle time it stands in."""
    series = Series(
        candles_at([START + HOUR // 2]), Coverage((Span(START, START + HOUR, Served.MARKET, 1),))
    )
    assert found(series) == [(span_of_hours(0, 1), "a candle is off the 1h grid")]


def test_a_candle_needs_coverage_that_may_have_candles() -> None:
    """One that nobody answered for, or where the answer was that there are none, is a problem."""
    bare = Series(
        candles_at(hours(0, 2)), Coverage((Span(START, START + HOUR, Served.DELISTED, 1),))
    )
    assert found(bare) == [
        (span_of_hours(0, 1), "candles where the coverage says delisted"),
        (span_of_hours(1, 1), "candles that no answer covers"),
    ]


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
    left = SOUND.without([span_of_hours(1, 2), span_of_hours(10, 1)])
    assert left.candles == SOUND.candles.take(
        ~np.isin(SOUND.candles.open_time, hours(1, 2) + hours(10, 1))
    )
    assert left.coverage.missing(span_of_hours(0, 6)) == [span_of_hours(1, 2)]
    assert left.coverage.missing(span_of_hours(9, 3)) == [span_of_hours(10, 1)]
