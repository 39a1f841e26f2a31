"""What verification finds in series whose bytes are sound."""

from __future__ import annotations

import numpy as np
import pytest

from backtester.data.candles import Candles, Series
from backtester.data.model import Coverage, Interval, Served, Span
from backtester.data.storage.verifying import problems_of
from tests.support.builders import HOUR, KEY, START, answer, candles_at, hours, span_of_hours

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
