"""Reading windows against random markets: whatever is asked how, the market's candles come.

The market is known here as a set, so every claim of an absence can be held against it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backtester.data.candles import Series
from backtester.data.errors import BadResponseError
from backtester.data.fetching.paging import ABSENCE_SETTLE_MS, find_inception, search_inception
from backtester.data.fetching.planning import closed_end, cut
from backtester.data.model import Interval, Served, Timeframe
from tests.property.model_exchange import FAULTS, ModelExchange, nothing
from tests.support.builders import START, candles_at

MOST = 64
"""Grid times of a market."""


@dataclass(frozen=True)
class Question:
    """A market, what is wanted of it, and how large the pages are."""

    timeframe: Timeframe
    times: tuple[int, ...]
    now_ms: int
    wanted: Interval
    page_size: int

    def exchange(self, **how) -> ModelExchange:
        return ModelExchange(self.timeframe, list(self.times), self.now_ms, **how)

    @property
    def first(self) -> int | None:
        return self.times[0] if self.times and self.times[0] <= self.now_ms else None

    def read(self, exchange: ModelExchange, inception: int | None = None, tries: int = 1) -> Series:
        pages = list(cut("X", [self.wanted], self.timeframe, self.page_size))
        return exchange.read_all(pages, exchange.reader(inception), tries)


@st.composite
def questions(draw: st.DrawFn, largest_page: int = 40) -> Question:
    """Markets with a listing, often a delisting, outages and lone missing candles."""
    timeframe = draw(st.sampled_from(["1m", "1h", "1d", "1w", "1M"]).map(Timeframe.parse))
    origin = timeframe.ceil(START)
    listed = draw(st.one_of(st.just(0), st.integers(0, MOST)))
    delisted = draw(st.one_of(st.just(MOST), st.integers(0, MOST)))
    present = set(range(listed, delisted))
    for start, length in draw(
        st.lists(st.tuples(st.integers(0, MOST), st.integers(1, 25)), max_size=3)
    ):
        present -= set(range(start, start + length))
    present -= draw(st.sets(st.integers(0, MOST), max_size=8))
    times = tuple(timeframe.next(origin, i) for i in sorted(present))
    # The clock stands somewhere in the candle after the last grid time, or long after.
    now_ms = timeframe.next(origin, MOST) + draw(
        st.one_of(st.integers(2_000, 130_000), st.integers(0, 30 * timeframe.typical_ms))
    )
    end = closed_end(timeframe, now_ms, 2_000)
    last = timeframe.index(end) - timeframe.index(origin)
    a = draw(st.integers(-10, last - 1))
    b = draw(st.one_of(st.just(last), st.integers(a + 1, last)))
    wanted = Interval(timeframe.next(origin, a), timeframe.next(origin, b))
    return Question(timeframe, times, now_ms, wanted, draw(st.integers(1, largest_page)))


def hold_against_the_market(question: Question, series: Series) -> None:
    """Check that a series tells the truth about a market, and all of it that has settled."""
    timeframe, wanted = question.timeframe, question.wanted
    truth = candles_at(t for t in question.times if t <= question.now_ms)
    assert series.candles.within(wanted) == truth.within(wanted), "exactly the market's candles"
    claimed = truth.take(
        np.array([any(t in s.interval for s in series.coverage) for t in truth.open_time], bool)
    )
    for span in series.coverage:
        # Also what was learnt beyond the wanted interval must hold.
        found = truth.within(span.interval)
        assert set(found.open_time) <= set(series.candles.open_time), "no false absence"
        if span.served is Served.NOT_LISTED:
            assert question.first is None or span.end <= question.first
        if span.served is Served.DELISTED:
            assert span.start > truth.open_time[-1]
    assert len(claimed) <= len(series.candles)
    settled = timeframe.floor(question.now_ms - ABSENCE_SETTLE_MS)
    for open_part in series.coverage.missing(wanted):
        assert open_part.start >= settled, "all that has settled is answered"
        assert len(truth.within(open_part)) == 0


def hold_bounded(question: Question, exchange: ModelExchange) -> None:
    """Check that the number of asks grows with the pages, not with what is missing in them."""
    pages = -(-question.timeframe.steps(question.wanted) // question.page_size)
    assert len(exchange.asks) <= 5 * pages + 3


# ------------------------------------------------------------------------ honest exchanges


@given(questions(), st.booleans())
def test_every_candle_comes_from_a_binance(question: Question, inception_known: bool) -> None:
    """Pages of any size give the market's candles and prove all the rest absent."""
    exchange = question.exchange()
    series = question.read(exchange, question.first if inception_known else None)
    hold_against_the_market(question, series)
    hold_bounded(question, exchange)


@given(questions(), st.booleans())
def test_every_candle_comes_from_windows_alone(question: Question, newest_first: bool) -> None:
    """So do exchanges that only know windows, at the price of reading absences twice."""
    exchange = question.exchange(from_start=False, newest_first=newest_first)
    hold_against_the_market(question, question.read(exchange))
    assert Served.DELISTED not in {span.served for span in question.read(exchange).coverage}


@given(questions(), st.integers(2, 40), st.booleans())
def test_a_cap_nobody_told_of_costs_asks_but_no_candle(
    question: Question, cap: int, newest_first: bool
) -> None:
    """Exchanges that cut larger pages at either end lose nothing."""
    exchange = question.exchange(from_start=False, cap=cap, newest_first=newest_first)
    hold_against_the_market(question, question.read(exchange))


@given(questions(), st.integers(2, 40))
def test_a_binance_with_a_cap_loses_nothing(question: Question, cap: int) -> None:
    """Also where a page is trusted to be whole, one that proves shorter is."""
    hold_against_the_market(question, question.read(question.exchange(cap=cap)))


@given(questions(), st.integers(1, 40), st.integers(1, 40))
def test_the_page_size_does_not_matter(question: Question, one: int, other: int) -> None:
    """Two fetches with different pages end with the same table."""
    tables = [
        replace(question, page_size=size).read(question.exchange()).candles for size in (one, other)
    ]
    assert tables[0] == tables[1]


# ------------------------------------------------------------------------ liars


@given(
    questions(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(sorted(FAULTS)),
    st.integers(0, 12),
)
def test_one_bad_answer_makes_no_absence(
    question: Question, from_start: bool, inception_known: bool, fault: str, number: int
) -> None:
    """One answer empty, short or without its middle is caught, or made good by the next."""
    exchange = question.exchange(
        from_start=from_start, fault=lambda n: FAULTS[fault] if n == number else None
    )
    inception = question.first if inception_known else None
    # What raises is tried again, as the fetcher does: the fault has passed by then.
    series = question.read(exchange, inception, tries=2)
    hold_against_the_market(question, series)


@given(questions(), st.sampled_from(sorted(FAULTS)), st.integers(0, 3), st.booleans())
def test_one_bad_answer_within_a_window_surfaces_or_heals(
    question: Question, fault: str, number: int, from_start: bool
) -> None:
    """A window read with one bad answer is right, or ends in an error worth a retry."""
    exchange = question.exchange(
        from_start=from_start, fault=lambda n: FAULTS[fault] if n == number else None
    )
    question = replace(question, page_size=MOST * 60)
    try:
        series = question.read(exchange)
    except BadResponseError:
        return
    hold_against_the_market(question, series)


@given(questions(largest_page=12), st.sets(st.integers(0, 400)))
@example(
    Question(Timeframe.parse("1h"), tuple(range(START, START + 36_000_000, 3_600_000)),
             START + 72_000_000, Interval(START, START + 36_000_000), 5),
    set(range(401)),
)  # fmt: skip
def test_nothing_is_no_proof_against_a_known_listing(question: Question, empty: set[int]) -> None:
    """However many answers are empty: where the first candle is known, none is called absent."""
    if question.first is None:
        return
    exchange = question.exchange(fault=lambda n: nothing if n in empty else None)
    reader, truth = exchange.reader(question.first), candles_at(question.times)
    for page in cut("X", [question.wanted], question.timeframe, question.page_size):
        try:
            found = exchange.read(page.interval, reader)
        except BadResponseError:
            continue
        for answer in found:
            shown = truth.within(answer.interval).open_time
            assert [t for t in shown if t <= question.now_ms] == answer.candles.open_time.tolist()


@given(questions(), st.integers(0, 3), st.booleans(), st.booleans())
def test_what_is_published_late_is_not_called_absent(
    question: Question, unpublished: int, from_start: bool, inception_known: bool
) -> None:
    """The newest candles, closed less than a minute ago and not shown yet, stay unasked for."""
    settled = question.timeframe.floor(question.now_ms - ABSENCE_SETTLE_MS)
    newest = [t for t in question.times if settled <= t <= question.now_ms]
    late = frozenset(newest[len(newest) - unpublished :]) if unpublished else frozenset()
    exchange = question.exchange(from_start=from_start, late=late)
    known = question.first is not None and question.first not in late and inception_known
    series = question.read(exchange, question.first if known else None)
    for time in late:
        assert all(time not in span.interval for span in series.coverage)
    # When they are published, asking for exactly what is open completes the table.
    pages = [
        page
        for part in series.coverage.missing(question.wanted)
        for page in cut("X", [part], question.timeframe, question.page_size)
    ]
    exchange.late = frozenset()
    rest = exchange.read_all(pages, exchange.reader(question.first))
    told = candles_at(t for t in question.times if t <= question.now_ms).within(question.wanted)
    shown = set(series.candles.open_time) | set(rest.candles.open_time)
    assert {t for t in shown if t in question.wanted} == set(told.open_time)


# ------------------------------------------------------------------------ inceptions


@given(questions(), st.integers(0, 2))
def test_the_first_candle_is_found_despite_one_bad_answer(question: Question, number: int) -> None:
    """Asked from the start of time, a market names its first candle; one silence is no proof."""
    exchange = question.exchange(fault=lambda n: nothing if n == number else None)
    assert exchange.drive(find_inception(exchange.reader())) == question.first


@given(
    st.integers(0, 40 * 24 * 60),
    st.integers(1, 4000),
    st.sampled_from([(200, 10**9), (200, 60), (1000, 500)]),
    st.booleans(),
    st.integers(0, 60),
)
def test_no_search_ends_after_the_first_candle(
    first_minute: int, count: int, sizes: tuple[int, int], newest_first: bool, fault: int
) -> None:
    """Whether pages are cut at an end, or one answer is empty: nothing is written off."""
    page_size, cap = sizes
    ladder = [Timeframe.parse(text) for text in ("1d", "1h", "1m")]
    times = [START + (first_minute + i) * 60_000 for i in range(count)]
    exchange = ModelExchange(ladder[-1], times, times[-1] + 86_400_000, from_start=False)
    if fault % 2:  # one or the other: two faults at once are beyond what is promised
        exchange.cap, exchange.newest_first = cap, newest_first
    else:
        exchange.fault = lambda n: nothing if n == fault else None
    reader = exchange.reader()
    found = exchange.drive(search_inception(ladder, page_size, reader))
    assert found is not None
    assert found <= times[0]
    assert len(exchange.asks) <= 100


def test_the_comparison_would_notice() -> None:
    """A false absence, a lost candle, an invented one and an open part are each told."""
    hour = 3_600_000
    market = Question(
        Timeframe.parse("1h"), (START, START + hour), START + 24 * hour,
        Interval(START, START + 3 * hour), 10,
    )  # fmt: skip
    right = market.read(market.exchange())
    hold_against_the_market(market, right)
    invented = replace(market, times=(*market.times, START + 2 * hour))
    lost = replace(market, times=market.times[:1])
    for wrong in (
        invented.read(invented.exchange()),
        lost.read(lost.exchange()),
        Series(right.candles),
        right.within(Interval(START, START + 2 * hour)),
    ):
        with pytest.raises(AssertionError):
            hold_against_the_market(market, wrong)
