"""Reading one window: how many asks each case takes, and what each answer proves.

The same for random markets is in `property/test_paging_properties.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from backtester.data.candles import Candles
from backtester.data.errors import BadResponseError
from backtester.data.fetching.paging import (
    ABSENCE_SETTLE_MS,
    Ask,
    Finding,
    Reader,
    find_inception,
    read_if_listed,
    read_window,
    search_inception,
)
from backtester.data.model import Interval, Served, Timeframe
from tests.property.model_exchange import Fault, ModelExchange, beheaded, cut_short, nothing
from tests.support.builders import DAY, H1, HOUR, START, candles_at, hours, span_of_hours

WINDOW = span_of_hours(0, 10)
LONG_AFTER = START + 1000 * HOUR
FIRST = START - 50 * HOUR
"""Where the markets of these tests begin, unless they say otherwise."""


def market(present: Iterable[int], *, first: int | None = FIRST, **rest) -> ModelExchange:
    times = {START + hour * HOUR for hour in present} | ({first} if first is not None else set())
    return ModelExchange(H1, sorted(times), LONG_AFTER, **rest)


def read(exchange: ModelExchange, inception: int | None = FIRST) -> tuple[Candles, list[Finding]]:
    return exchange.drive(read_window(WINDOW, exchange.reader(inception)))


LATER, EARLIER = range(20, 30), range(-20, -10)

CASES: dict[str, tuple[ModelExchange, int | None, list[Ask], list[Finding]]] = {
    "full": (
        market(range(10)),
        FIRST,
        [Ask(START, START + 10 * HOUR, 10)],
        [Finding(WINDOW, Served.MARKET)],
    ),
    "holes inside": (
        market([0, 1, 4, 5, 7, 8, 9]),
        FIRST,
        [Ask(START, START + 10 * HOUR, 10), Ask(START + HOUR, START + 8 * HOUR, 7)],
        [Finding(WINDOW, Served.MARKET)],
    ),
    "holes at both ends": (
        market([3, 4, 5]),
        FIRST,
        [Ask(START, START + 10 * HOUR, 10), Ask(START + 5 * HOUR, START + 10 * HOUR, 5),
         Ask(START, START + 4 * HOUR, 4)],
        [Finding(WINDOW, Served.MARKET)],
    ),
    "delisted within": (
        market(range(6)),
        FIRST,
        [Ask(START, START + 10 * HOUR, 10), Ask(START + 5 * HOUR, START + 10 * HOUR, 5)],
        [Finding(WINDOW, Served.MARKET)],
    ),
    "listed within, known": (
        market(range(6, 10), first=None),
        START + 6 * HOUR,
        [Ask(START, START + 10 * HOUR, 10)],
        [Finding(span_of_hours(0, 6), Served.NOT_LISTED),
         Finding(span_of_hours(6, 4), Served.MARKET)],
    ),
    "listed within, unknown": (
        market(range(6, 10), first=None),
        None,
        [Ask(START, START + 10 * HOUR, 10), Ask(0, None, 1), Ask(None, START + 6 * HOUR, 1)],
        [Finding(span_of_hours(0, 6), Served.NOT_LISTED),
         Finding(span_of_hours(6, 4), Served.MARKET)],
    ),
    "before the listing, known": (
        market(LATER, first=None),
        START + 20 * HOUR,
        [Ask(START, START + 10 * HOUR, 10)],
        [Finding(Interval(0, START + 20 * HOUR), Served.NOT_LISTED)],
    ),
    "before the listing, unknown": (
        market(LATER, first=None),
        None,
        [Ask(START, START + 10 * HOUR, 10), Ask(0, None, 1), Ask(None, START + 20 * HOUR, 1)],
        [Finding(Interval(0, START + 20 * HOUR), Served.NOT_LISTED)],
    ),
    "an outage that ends later": (
        market(LATER),
        FIRST,
        [Ask(START, START + 10 * HOUR, 10), Ask(START, None, 1)],
        [Finding(span_of_hours(0, 20), Served.MARKET)],
    ),
    "delisted before": (
        market(EARLIER),
        FIRST,
        [Ask(START, START + 10 * HOUR, 10), Ask(START, None, 1), Ask(None, None, 1)],
        [Finding(Interval(START - 10 * HOUR, LONG_AFTER - HOUR), Served.DELISTED)],
    ),
    "no candle at all": (
        market([], first=None),
        None,
        [Ask(START, START + 10 * HOUR, 10), *[Ask(0, None, 1)] * 2, Ask(START, None, 1),
         Ask(None, None, 1)],
        [Finding(WINDOW, Served.NOT_SERVED)],
    ),
    "generic, full": (
        market(range(10), from_start=False),
        None,
        [Ask(START, START + 10 * HOUR, 10)],
        [Finding(WINDOW, Served.MARKET)],
    ),
    "generic, holes inside": (
        market([0, 1, 4, 5, 7, 8, 9], from_start=False),
        None,
        [Ask(START, START + 10 * HOUR, 10), Ask(START + HOUR, START + 8 * HOUR, 7)],
        [Finding(WINDOW, Served.MARKET)],
    ),
    "generic, holes inside and delisted within": (
        market([0, 1, 4, 5, 7], from_start=False),
        None,
        [Ask(START, START + 10 * HOUR, 10), Ask(START + HOUR, START + 8 * HOUR, 7),
         Ask(START + 8 * HOUR, START + 10 * HOUR, 2), Ask(START + 7 * HOUR, START + 10 * HOUR, 3)],
        [Finding(WINDOW, Served.MARKET)],
    ),
    "generic, delisted within": (
        market(range(5), from_start=False),
        None,
        [Ask(START, START + 10 * HOUR, 10), Ask(START + 5 * HOUR, START + 10 * HOUR, 5),
         Ask(START + 4 * HOUR, START + 10 * HOUR, 6)],
        [Finding(WINDOW, Served.MARKET)],
    ),
    "generic, nothing": (
        market(LATER, from_start=False),
        None,
        [Ask(START, START + 10 * HOUR, 10)] * 2,
        [Finding(WINDOW, Served.NOT_SERVED)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_each_case_takes(case: str) -> None:
    """An honest exchange is asked exactly this, and its answers prove exactly that."""
    exchange, inception, asks, findings = CASES[case]
    exchange.asks.clear()
    candles, found = read(exchange, inception)
    assert exchange.asks == asks
    assert found == findings
    truth = candles_at(exchange.times)
    assert candles == truth.within(WINDOW)
    for finding in found:  # what reaches beyond the window is empty there in truth
        assert candles.within(finding.interval) == truth.within(finding.interval)


LISTED: dict[str, tuple[ModelExchange, list[Ask], list[Finding] | None]] = {
    "from its start on": (
        market(range(10)),
        [Ask(START, START + 10 * HOUR, 10)],
        [Finding(WINDOW, Served.MARKET)],
    ),
    "with holes": (
        market([0, 1, 4, 5, 7, 8, 9]),
        [Ask(START, START + 10 * HOUR, 10), Ask(START + HOUR, START + 8 * HOUR, 7)],
        [Finding(WINDOW, Served.MARKET)],
    ),
    "not from its start on": (market(range(1, 10)), [Ask(START, START + 10 * HOUR, 10)], None),
    "not at all": (market([]), [Ask(START, START + 10 * HOUR, 10)], None),
}


@pytest.mark.parametrize("case", LISTED)
def test_a_first_page_tells_whether_the_inception_matters(case: str) -> None:
    """One that begins with its first candle is read; of another nothing is concluded."""
    exchange, asks, findings = LISTED[case]
    reader = exchange.reader()
    told = exchange.drive(read_if_listed(WINDOW, reader))
    assert exchange.asks == asks
    assert reader.inception is None
    if findings is None:
        assert (told, reader.shown) == (None, None)
    else:
        assert told == (candles_at(exchange.times).within(WINDOW), findings)
        assert reader.shown == START


@pytest.mark.parametrize("present", [[], range(1, 9), range(10)], ids=["outage", "holes", "full"])
@pytest.mark.parametrize("from_start", [True, False], ids=["from start", "windows"])
def test_a_candle_shown_before_is_as_good_as_the_inception(
    present: Iterable[int], from_start: bool
) -> None:
    """Whoever knows of an earlier candle asks and concludes what the inception would let him."""
    told = []
    for shown, inception in ((None, FIRST), (FIRST, None)):
        exchange = market([*present, *LATER], from_start=from_start)
        reader = exchange.reader(inception)
        reader.shown = shown
        told.append((exchange.drive(read_window(WINDOW, reader)), exchange.asks))
    assert told[0] == told[1]


# ------------------------------------------------------------------------ what cannot be


def faulty(present: Iterable[int], numbers: set[int], **rest) -> ModelExchange:
    return market(present, fault=lambda number: nothing if number in numbers else None, **rest)


@pytest.mark.parametrize(
    ("exchange", "inception", "what"),
    [
        (faulty(range(10), {0}), FIRST, "an empty answer for .*, though it has candles"),
        (faulty([*range(5), *range(7, 10)], {1}), FIRST, "lacks candles that an earlier one had"),
        (faulty(LATER, {1}), FIRST, "though the market goes on"),
        (faulty(EARLIER, {2}), FIRST, "though the market goes on"),
    ],
    ids=["the window", "the second look", "what follows", "the newest"],
)
def test_an_empty_answer_is_caught(
    exchange: ModelExchange, inception: int | None, what: str
) -> None:
    """One answer that contradicts another is a fault to retry, not an absence."""
    with pytest.raises(BadResponseError, match=what):
        read(exchange, inception)


@pytest.mark.parametrize("silent", [1, 2, 3])
@pytest.mark.parametrize("wrong", [cut_short, beheaded])
def test_a_cut_page_and_silences_after_it_hide_nothing(wrong: Fault, silent: int) -> None:
    """By windows alone: what was cut off is asked for together with a candle that must come."""
    faults = {0: wrong, **dict.fromkeys(range(1, 1 + silent), nothing)}
    exchange = market(range(10), from_start=False, fault=faults.get)
    (answer,) = exchange.read(WINDOW, exchange.reader(FIRST), tries=3)
    assert answer.candles == candles_at(hours(0, 10))


def test_an_exchange_that_never_settles_is_left() -> None:
    """One that names another single candle each time is not asked for ever."""
    window = span_of_hours(0, 200)
    trickle = market(range(200), from_start=False, cap=1)
    with pytest.raises(BadResponseError, match="keep changing"):
        trickle.drive(read_window(window, trickle.reader()))
    assert len(trickle.asks) == 65


def test_an_exchange_with_a_smaller_page_than_it_says_loses_nothing() -> None:
    """Where every answer stops short, each shows that the last one did: nothing is absent."""
    for present in (range(10), [0, 2, 3, 5, 8, 9], [1, 2, 4, 6]):
        for cap in (2, 3, 9):
            exchange = market(present, cap=cap)
            candles, findings = read(exchange)
            assert candles.open_time.tolist() == [START + hour * HOUR for hour in present]
            assert findings == [Finding(WINDOW, Served.MARKET)]


# ------------------------------------------------------------------------ too fresh to be absent


def minutes(*numbers: int) -> list[int]:
    return [START + n * 60_000 for n in numbers]


@pytest.mark.parametrize("from_start", [True, False])
@pytest.mark.parametrize(
    ("present", "now_s", "answered_minutes"),
    [
        ([0, 1, 2, 3, 4], 302, 5),  # all there: all answered
        ([0, 1, 2, 3], 302, 4),  # the last may still come
        ([0, 1, 2, 3], 359, 4),
        ([0, 1, 2, 3], 360, 5),  # it had its minute
        ([0, 1, 2], 302, 4),  # the one before had it already
        ([0, 2, 4], 302, 5),  # a later one is there, so the market has gone on
        ([0], 302, 4),
    ],
)
def test_a_candle_that_just_closed_is_not_called_absent(
    present: list[int], now_s: int, answered_minutes: int, from_start: bool
) -> None:
    """A missing tail counts as answered only a minute after its close."""
    assert ABSENCE_SETTLE_MS == 60_000
    minute, window = Timeframe.parse("1m"), Interval(START, START + 300_000)
    exchange = ModelExchange(minute, minutes(*present), START + now_s * 1000, from_start)
    candles, findings = exchange.drive(read_window(window, exchange.reader(START)))
    assert candles.open_time.tolist() == minutes(*present)
    assert findings == [Finding(Interval(START, START + answered_minutes * 60_000), Served.MARKET)]


@pytest.mark.parametrize("from_start", [True, False])
def test_an_empty_window_that_just_closed_proves_nothing(from_start: bool) -> None:
    """A single candle, closed seconds ago and not shown yet, is asked for again next time."""
    exchange = ModelExchange(H1, hours(-5, 5), START + HOUR + 5_000, from_start)
    window = span_of_hours(0, 1)
    candles, findings = exchange.drive(read_window(window, exchange.reader(hours(-5, 1)[0])))
    assert (len(candles), findings) == (0, [])


# ------------------------------------------------------------------------ inceptions


@pytest.mark.parametrize(
    ("present", "empty_answers", "inception", "asks"),
    [
        (LATER, set(), START + 20 * HOUR, 2),
        (LATER, {0}, START + 20 * HOUR, 3),
        ((), set(), None, 2),
    ],
    ids=["listed", "one empty answer", "no market"],
)
def test_the_first_candle_is_asked_for(
    present: Iterable[int], empty_answers: set[int], inception: int | None, asks: int
) -> None:
    """One request tells it, another that nothing is before; neither is believed alone."""
    exchange = faulty(present, empty_answers, first=None)
    reader = exchange.reader()
    assert exchange.drive(find_inception(reader)) == reader.inception == inception
    assert len(exchange.asks) == asks


def test_a_first_candle_with_others_before_is_none() -> None:
    """A liar's first candle would write off all before it as not listed."""

    class Forgetful(ModelExchange):
        def answer(self, ask: Ask) -> Candles:
            return super().answer(Ask(START, None, 1) if ask.since == 0 else ask)

    exchange = Forgetful(H1, [FIRST, *hours(0, 5)], LONG_AFTER)
    reader = exchange.reader()
    with pytest.raises(BadResponseError, match="but also earlier ones"):
        exchange.drive(find_inception(reader))
    assert reader.inception is None


LADDER = [Timeframe.parse(text) for text in ("1d", "1h", "1m")]


def searched(
    exchange: ModelExchange, page_size: int = 200, ladder: list[Timeframe] = LADDER
) -> tuple[int | None, Reader]:
    reader = exchange.reader()
    return exchange.drive(search_inception(ladder, page_size, reader)), reader


def by_minute(first_ms: int, count: int = 3000, **rest) -> ModelExchange:
    times = [first_ms + i * 60_000 for i in range(count)]
    return ModelExchange(LADDER[-1], times, times[-1] + DAY, from_start=False, **rest)


@pytest.mark.parametrize(
    "first_ms", [START, START + 60_000, START + 17 * HOUR + 42 * 60_000, START - 60_000]
)
@pytest.mark.parametrize("page_size", [200, 1000])
def test_windows_find_the_first_candle(first_ms: int, page_size: int) -> None:
    """The day tells where to look for the hour, and the hour where for the minute."""
    exchange = by_minute(first_ms)
    found, reader = searched(exchange, page_size)
    assert found == reader.inception == first_ms
    days_since_2009 = (START - 1_230_940_800_000) // DAY
    assert len(exchange.asks) <= days_since_2009 // page_size + 1 + 2 * 3
    assert all(ask.limit <= page_size for ask in exchange.asks)


def test_a_shorter_fine_history_does_not_hide_the_coarse_one() -> None:
    """Where no minute is shown from there on, the hour's word stands."""

    class ForgetsMinutes(ModelExchange):
        def shown(self, timeframe: Timeframe | None = None) -> list[int]:
            known = super().shown(timeframe)
            return known if timeframe in LADDER[:2] else []

    times = by_minute(START + 17 * HOUR + 42 * 60_000).times
    exchange = ForgetsMinutes(LADDER[-1], times, times[-1] + DAY, from_start=False)
    assert searched(exchange)[0] == START + 17 * HOUR


def test_a_beginning_too_far_off_is_unknown_and_not_denied() -> None:
    """Where only minutes are to be had, years of empty windows are not searched for a candle."""
    exchange = by_minute(START)
    found, reader = searched(exchange, 200, LADDER[-1:])
    assert (found, reader.inception) == (0, None)
    assert len(exchange.asks) == 40


def test_no_candle_on_any_rung() -> None:
    """A market that shows nothing has no inception, after a bounded search."""
    exchange = ModelExchange(LADDER[-1], [], LONG_AFTER, from_start=False)
    assert searched(exchange) == (None, exchange.reader())
    assert len(exchange.asks) <= 3 * 40


@pytest.mark.parametrize("cap", [5, 7, 100, 199])
def test_a_page_cut_at_its_start_hides_no_first_candle(cap: int) -> None:
    """An exchange that gives the newest of a window shows a candle that is not the first."""
    first = START + 17 * HOUR + 42 * 60_000
    exchange = by_minute(first, cap=cap, newest_first=True)
    found, _ = searched(exchange)
    assert found is not None
    assert found <= first


@pytest.mark.parametrize("fault", range(30))
def test_one_empty_answer_hides_no_first_candle(fault: int) -> None:
    """An empty window right before the first candle seen is asked for twice."""
    first = START + 17 * HOUR + 42 * 60_000
    exchange = by_minute(first, fault=lambda number: nothing if number == fault else None)
    found, _ = searched(exchange)
    assert found is not None
    assert found <= first
