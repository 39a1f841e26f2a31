"""Exchanges that know windows only: where to look for the first candle, what silence takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backtester.data.fetching.paging import Ask, Finding, read_window, search_inception
from backtester.data.model import Interval, Served, Timeframe
from tests.property.model_exchange import ModelExchange, nothing
from tests.support.builders import DAY, H1, HOUR, START, candles_at, span_of_hours

LADDER = [Timeframe.parse(text) for text in ("1d", "1h", "1m")]
FIRST = START + 17 * HOUR + 42 * 60_000
LONG_AFTER = START + 1000 * HOUR


@pytest.mark.parametrize(
    ("created_ms", "most"),
    [
        # Two requests a rung, and a third where nothing before the candle was asked for yet.
        pytest.param(FIRST, 3 + 2 * 2, id="right"),
        pytest.param(FIRST - 100 * DAY, 3 + 2 * 2, id="a page too early"),
        pytest.param(FIRST + DAY, 4 + 2 * 2, id="too late"),
        pytest.param(FIRST + 300 * DAY, 40, id="after the last candle"),
        pytest.param(1, 40, id="nonsense"),
    ],
)
def test_a_stated_beginning_only_says_where_to_look(created_ms: int, most: int) -> None:
    """Whatever the exchange states, the first candle is the first; a true word saves requests."""
    times = [FIRST + i * 60_000 for i in range(3000)]
    exchange = ModelExchange(LADDER[-1], times, times[-1] + DAY, from_start=False)

    reader = replace(exchange.reader(), created_ms=created_ms)
    found = exchange.drive(search_inception(LADDER, 200, reader))

    assert found == FIRST
    assert len(exchange.asks) <= most


def test_a_wrong_beginning_and_a_false_silence_hide_nothing() -> None:
    """A stated beginning that is too late is found out even if the first look back is empty."""
    times = [FIRST + i * 60_000 for i in range(3000)]
    exchange = ModelExchange(
        LADDER[-1],
        times,
        times[-1] + DAY,
        from_start=False,
        fault=lambda n: nothing if n == 1 else None,
    )

    reader = replace(exchange.reader(), created_ms=FIRST + DAY)
    found = exchange.drive(search_inception(LADDER, 200, reader))

    assert found == FIRST


def test_short_windows_reach_back_all_the_way() -> None:
    """Where 90 days is the longest window and no beginning is stated, the first day is found."""
    times = [FIRST + i * 60_000 for i in range(3000)]
    exchange = ModelExchange(LADDER[-1], times, times[-1] + DAY, from_start=False)

    assert exchange.drive(search_inception(LADDER, 90, exchange.reader())) == FIRST


def test_a_candle_that_opens_before_the_week_it_ends_in_is_found() -> None:
    """Three days are not a part of one week: the first of them may open on the Sunday before."""
    tuesday = 1_597_104_000_000  # 2020-08-11
    times = [tuesday + i * 60_000 for i in range(3000)]
    exchange = ModelExchange(LADDER[-1], times, times[-1] + DAY, from_start=False)
    ladder = [Timeframe.parse("1w"), Timeframe.parse("3d")]

    assert exchange.drive(search_inception(ladder, 200, exchange.reader())) == tuesday - 2 * DAY


@pytest.mark.parametrize("steps", [1, 2, 7, 10])
def test_two_false_silences_lose_nothing(steps: int) -> None:
    """Empty answers twice in a row where there are candles are caught by what straddles them."""
    times = [START + hour * HOUR for hour in range(-30, 60)]
    exchange = ModelExchange(
        H1, times, LONG_AFTER, from_start=False, fault=lambda n: nothing if n < 2 else None
    )
    window = span_of_hours(0, steps)

    candles, findings = exchange.drive(read_window(window, exchange.reader(START - 30 * HOUR)))

    assert candles == candles_at(times).within(window)
    assert findings == [Finding(window, Served.MARKET)]
    assert max(ask.limit for ask in exchange.asks) <= max(steps, 2)


def test_a_true_silence_takes_two_more_requests() -> None:
    """After the first candle a silent window is asked for twice whole and once in each half."""
    exchange = ModelExchange(H1, [START - 50 * HOUR], LONG_AFTER, from_start=False)
    window = span_of_hours(0, 10)

    candles, findings = exchange.drive(read_window(window, exchange.reader(START - 50 * HOUR)))

    assert (len(candles), findings) == (0, [Finding(window, Served.NOT_SERVED)])
    assert exchange.asks == [
        *[Ask(START, START + 10 * HOUR, 10)] * 2,
        Ask(START - 5 * HOUR, START + 5 * HOUR, 10),
        Ask(START + 5 * HOUR, START + 15 * HOUR, 10),
    ]


def test_before_the_first_candle_silence_is_expected() -> None:
    """Nothing is asked again of a window that ends before the market was listed."""
    exchange = ModelExchange(H1, [START + 20 * HOUR], LONG_AFTER, from_start=False)
    window = Interval(START, START + 10 * HOUR)

    _, findings = exchange.drive(read_window(window, exchange.reader(START + 20 * HOUR)))

    assert len(exchange.asks) == 2
    assert findings == [Finding(window, Served.NOT_LISTED)]


@pytest.mark.parametrize(
    ("created_ms", "told"),
    [
        pytest.param(START + 10 * HOUR, Served.NOT_LISTED, id="right"),
        pytest.param(START + 40 * HOUR, Served.MARKET, id="after a candle that is shown"),
        pytest.param(None, Served.MARKET, id="unsaid"),
    ],
)
def test_silence_before_a_stated_beginning(created_ms: int | None, told: Served) -> None:
    """It was not listed then, unless a candle contradicts; later silence is the market's."""
    times = [START + i * HOUR for i in range(12, 50)]
    exchange = ModelExchange(H1, times, LONG_AFTER, from_start=False)
    reader = replace(exchange.reader(), created_ms=created_ms)

    window = Interval(START, START + 50 * HOUR)
    candles, findings = exchange.drive(read_window(window, reader))

    assert candles.open_time.tolist() == times
    assert findings[0].served is told
    assert (findings[0].interval.end == START + 10 * HOUR) is (told is Served.NOT_LISTED)
    assert findings[-1] == Finding(Interval(findings[-1].interval.start, window.end), Served.MARKET)
