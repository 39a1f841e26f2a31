"""Candles of a longer timeframe: whole groups, and what their parts' coverage amounts to."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtester.data.candles import Answer, Candles, Series
from backtester.data.errors import OptionError
from backtester.data.fetching.deriving import Derived
from backtester.data.model import Coverage, Interval, Served, Span, Timeframe, format_ms
from backtester.data.resampling import divides, reduce_groups, resample, rule_of
from backtester.data.sandbox import SyntheticMarket
from tests.support.builders import DAY, H1, HOUR, START, candles_at
from tests.support.processes import SHARED

H4, D1, W1, MONTH = map(Timeframe.parse, ("4h", "1d", "1w", "1M"))
ANSWERED = {Served.MARKET, Served.NOT_LISTED, Served.DELISTED, Served.GIVEN}


def series(*spans: tuple[int, int, Served], hours: set[int]) -> Series:
    """A series of hours counted from `START`; candles only where the market showed them."""
    coverage = Coverage().add(Span(START + a * HOUR, START + b * HOUR, s, 7) for a, b, s in spans)
    return Series(candles_at(START + hour * HOUR for hour in hours), coverage)


def states(one: Series, timeframe: Timeframe, interval: Interval) -> dict[int, str]:
    """The state of every open time, by the store's own words."""
    return {
        int(time): state
        for part, state in one.states(timeframe, interval)
        for time in timeframe.grid(part)
    }


@st.composite
def histories(draw: st.DrawFn) -> Series:
    """Two days of hours: spans of any meaning, candles inside those that can have some."""
    bounds = sorted(draw(st.sets(st.integers(0, 48), min_size=2, max_size=7)))
    spans, shown = [], set()
    for first, last in pairwise(bounds):
        served = draw(st.sampled_from([None, Served.MARKET, Served.MARKET, *Served]))
        if served is None:
            continue
        spans.append((first, last, served))
        if served is Served.GIVEN:  # exists where candles do, and nowhere else
            shown |= set(range(first, last))
        if served is Served.MARKET:
            shown |= draw(st.sets(st.integers(first, last - 1)))
    return series(*spans, hours=shown)


@given(histories())
@settings(max_examples=150, deadline=None)
def test_every_group_says_what_its_hours_say(one: Series) -> None:
    """Present, absent and why, or never asked: worked out hour by hour."""
    whole = Interval(START, START + 2 * DAY)
    result = resample(one, H1, H4)
    own = states(one, H1, whole)
    spans = {t: next((s.served for s in one.coverage if t in s.interval), None) for t in own}
    rows = dict(zip(one.candles.open_time.tolist(), one.candles.values, strict=True))
    found = dict(zip(result.candles.open_time.tolist(), result.candles.values, strict=True))
    told = states(result, H4, whole)
    for opened in range(START, START + 2 * DAY, 4 * HOUR):
        times = [opened + n * HOUR for n in range(4)]
        inside = [rows[t] for t in times if t in rows]
        if not all(spans[t] in ANSWERED for t in times):
            assert told[opened] == "never asked"
        elif inside:
            assert told[opened] == "present"
            part = np.array(inside)
            expected = [part[0, 0], part[:, 1].max(), part[:, 2].min(), part[-1, 3]]
            assert found.pop(opened)[:4].tolist() == expected
        else:
            meanings = {spans[t] for t in times}
            (only,) = meanings if len(meanings) == 1 else {Served.MARKET}
            assert told[opened] == ("no trades" if only is Served.MARKET else only.value)
    assert {t for t in found if told[t] == "present"} == set()


@pytest.mark.parametrize("rule", ["15m", "4h", "1d", "1w", "1M"])
def test_candles_equal_the_exchanges_own(rule: str) -> None:
    """To the last bit, volumes too, against a market that makes its own."""
    target = Timeframe.parse(rule)
    source = Timeframe.parse("1m" if target.typical_ms < DAY else "1h")
    span = 10 * HOUR if target.typical_ms < DAY else 70 * DAY
    asked = Interval(START + HOUR, START + HOUR + span)
    market = SyntheticMarket()
    stored = Series().with_answers(
        [Answer("BTC/USDT", asked, market.candles("BTC/USDT", source, asked))]
    )
    result = resample(stored, source, target)
    inside = Interval(target.ceil(asked.start), target.floor(asked.end))
    expected = market.candles("BTC/USDT", target, inside)
    assert [s.interval for s in result.coverage] == [inside]
    assert result.candles.open_time.tolist() == expected.open_time.tolist()
    assert result.candles == expected


def test_the_candle_of_the_listing_is_whole() -> None:
    """Hours before the first trade hold nothing, so the day of the listing is complete."""
    one = series((-48, 5, Served.NOT_LISTED), (5, 48, Served.MARKET), hours=set(range(5, 48)))
    result = resample(one, H1, D1)
    assert result.candles.open_time.tolist() == [START, START + DAY]
    assert [(s.start - START, s.end - START, s.served) for s in result.coverage] == [
        (-2 * DAY, 0, Served.NOT_LISTED),
        (0, 2 * DAY, Served.MARKET),
    ]


def test_a_day_beyond_the_apis_depth_is_not_made_up() -> None:
    """The API shows its evening only: the exchange's own daily candle holds more."""
    one = series((0, 10, Served.BEYOND_DEPTH), (10, 72, Served.MARKET), hours=set(range(10, 72)))
    result = resample(one, H1, D1)
    assert result.candles.open_time.tolist() == [START + DAY, START + 2 * DAY]
    assert result.coverage.missing(Interval(START, START + DAY)) == [Interval(START, START + DAY)]


def test_joined_answers_are_as_old_as_the_oldest() -> None:
    """A group across two answers was not known before both came, nor is it fresher than either."""
    spans = (Span(START, START + 2 * HOUR, Served.NOT_LISTED, 9), Span(
        START + 2 * HOUR, START + 4 * HOUR, Served.MARKET, 5))  # fmt: skip
    whole = Series(candles_at([START + 3 * HOUR]), Coverage(spans))
    assert resample(whole, H1, H4).coverage == Coverage(
        (Span(START, START + 4 * HOUR, Served.MARKET, 5),)
    )


def test_what_a_user_gave_stays_his() -> None:
    """A candle made of handed-in ones in part is not the exchange's word."""
    one = series((0, 3, Served.GIVEN), (3, 8, Served.MARKET), hours=set(range(8)))
    assert [(s.start - START, s.served) for s in resample(one, H1, H4).coverage] == [
        (0, Served.GIVEN),
        (4 * HOUR, Served.MARKET),
    ]


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    """2024 began on a Monday; February has 29 days."""
    one = series((-24, 24 * 62, Served.MARKET), hours=set(range(-24, 24 * 62)))
    weeks = resample(one, H1, W1).candles.open_time
    assert weeks.tolist() == [START + n * 7 * DAY for n in range(8)]
    months = resample(one, H1, MONTH).candles.open_time
    assert months.tolist() == [START, START + 31 * DAY]


@pytest.mark.parametrize(
    ("source", "target"),
    [("4h", "6h"), ("4h", "1h"), ("1w", "1M"), ("7d", "1w"), ("5h", "1d"), ("1M", "1w")],
)
def test_what_is_not_made_of_whole_candles_is_refused(source: str, target: str) -> None:
    """4h into 6h would give half the opens wrong."""
    coarse, fine = Timeframe.parse(target), Timeframe.parse(source)
    assert not divides(fine, coarse)
    with pytest.raises(OptionError, match=f"{target} candles are not made of whole {source}"):
        resample(Series(), fine, coarse)


def test_an_empty_series_makes_an_empty_one() -> None:
    """Nothing asked, nothing known."""
    result = resample(Series(), H1, D1)
    assert result.candles == Candles.empty()
    assert not result.coverage


def test_columns_keep_their_types_and_holes() -> None:
    """Whole numbers stay whole; a missing high hides no other."""
    times = np.arange(4, dtype=np.int64) * HOUR + START
    trades, highs = np.array([1, 2, 3, 4]), np.array([1.0, np.nan, 3.0, 2.0])
    opens, (count, high) = reduce_groups(
        times, [trades, highs], ["sum", "max"], H4, [Interval(START, START + DAY)]
    )
    assert (opens.tolist(), count.tolist(), high.tolist()) == ([START], [10], [3.0])
    assert count.dtype == trades.dtype
    with pytest.raises(OptionError, match="RSI"):
        rule_of("RSI")


REAL = SHARED / "candles"


def real(name: str) -> Candles:
    """Closed candles that Binance once answered."""
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pd.read_parquet(REAL / f"binance_spot_{name}-USDT.parquet")
    times = pd.DatetimeIndex(frame["timestamp"]).as_unit("ms").asi8
    return Candles.of(times, frame[["open", "high", "low", "close", "volume"]].to_numpy())


@pytest.mark.skipif(not REAL.is_dir(), reason="no real candles here")
@pytest.mark.parametrize(
    ("symbol", "rule", "days", "differing"),
    [
        ("XRP", "1h", 2574, []),  # 25 outages among them
        ("SOL", "4h", 1746, []),
        ("PEPE", "4h", 749, []),
        # In its first weeks Binance's own days are not what its hours add up to.
        ("ETH", "4h", 2836, ["2017-09-12", "2017-09-19", "2017-09-20", "2017-09-22"]),
    ],
)
def test_real_candles_make_the_real_days(
    symbol: str, rule: str, days: int, differing: list[str]
) -> None:
    """Years of an exchange's own days from its shorter candles: to the bit, and told where not."""
    source, shorter, own = Timeframe.parse(rule), real(f"{rule}_{symbol}"), real(f"1d_{symbol}")
    answered = Interval(int(shorter.open_time[0]), source.next(int(shorter.open_time[-1])))
    made = resample(Series().with_answers([Answer(symbol, answered, shorter)]), source, D1)
    listed = Interval(int(own.open_time[0]), D1.next(int(own.open_time[-1])))
    stored = Series().with_answers([Answer(symbol, listed, own)])
    (span,) = made.coverage
    both = span.interval.intersection(listed)
    assert both is not None
    assert len(made.candles.within(both)) == len(own.within(both)) == days
    found = Derived(made).differing(stored, both)
    assert [format_ms(one["open_ms"])[:10] for one in found] == differing
