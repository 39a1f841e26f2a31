"""From what is wanted and covered to pages, case by case."""

from __future__ import annotations

import pytest

from backtester.data.fetching.planning import (
    Page,
    closed_end,
    cut,
    interleave,
    missing,
    pages_needed,
)
from backtester.data.model import Coverage, Interval, Served, Span, Timeframe
from tests.support.builders import DAY, H1, HOUR, START, span_of_hours

MONTH = Timeframe.parse("1M")
YEAR = Interval(START, START + 366 * DAY)


@pytest.mark.parametrize(
    ("timeframe", "after_ms", "closed_ms"),
    [
        ("1h", 0, -HOUR), ("1h", 1_999, -HOUR), ("1h", 2_000, 0), ("1h", HOUR + 1_999, 0),
        ("1h", HOUR + 2_000, HOUR), ("1w", 2_000, 0), ("1w", 7 * DAY + 1_999, 0),
        ("1M", 31 * DAY + 1_999, 0), ("1M", 31 * DAY + 2_000, 31 * DAY),
    ],
)  # fmt: skip
def test_a_candle_is_closed_a_moment_after_its_close(
    timeframe: str, after_ms: int, closed_ms: int
) -> None:
    """Not before the exchange's clock has passed the close by the settle time."""
    end = closed_end(Timeframe.parse(timeframe), START + after_ms, 2_000)
    assert end == START + closed_ms


def test_only_symbols_with_something_missing_are_asked() -> None:
    """A covered symbol has no entry, another one exactly its missing parts."""
    whole = span_of_hours(0, 10)
    middle = Coverage().add([Span(START + 2 * HOUR, START + 4 * HOUR, Served.MARKET, 1)])
    covered = {
        "A": Coverage().add([Span(START, START + 10 * HOUR, Served.NOT_LISTED, 1)]),
        "B": middle,
        "C": Coverage(),
    }
    assert missing(dict.fromkeys("ABC", whole), covered) == {
        "B": [span_of_hours(0, 2), span_of_hours(4, 6)],
        "C": [whole],
    }


def test_a_year_of_months_in_pages_of_five() -> None:
    """Months of different lengths fill pages by their number."""
    pages = list(cut("X", [YEAR], MONTH, 5))
    assert [MONTH.steps(page.interval) for page in pages] == [5, 5, 2]
    assert pages_needed([YEAR], MONTH, 5) == 3
    assert pages[0].interval.end == pages[1].interval.start == MONTH.next(START, 5)


def test_pages_do_not_span_what_is_covered() -> None:
    """Two missing parts are not joined into one page, however small."""
    parts = [span_of_hours(0, 1), span_of_hours(5, 3)]
    assert list(cut("X", parts, H1, 2)) == [
        Page("X", span_of_hours(0, 1)),
        Page("X", span_of_hours(5, 2)),
        Page("X", span_of_hours(7, 1)),
    ]


def test_cutting_makes_pages_only_when_asked() -> None:
    """Ten years of seconds cost nothing before the first page is taken."""
    decade = Interval(START, START + 3650 * DAY)
    pages = cut("X", [decade], Timeframe.parse("1s"), 1)
    assert next(pages).interval == Interval(START, START + 1000)
    assert pages_needed([decade], Timeframe.parse("1s"), 1000) == 315_360


def test_symbols_take_turns() -> None:
    """No symbol waits for another's whole history."""
    streams = [
        cut(name, [span_of_hours(0, n)], H1, 1) for name, n in (("A", 3), ("B", 1), ("C", 2))
    ]
    assert [page.symbol for page in interleave(streams)] == list("ABCACA")
    assert list(interleave([])) == []
