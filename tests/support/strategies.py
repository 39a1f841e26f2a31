"""Hypothesis strategies for the words of the domain."""

from __future__ import annotations

from hypothesis import strategies as st

from backtester.data.candles import Answer
from backtester.data.model import Interval, Served, Span, Timeframe
from tests.support.builders import HOUR, START, candles_at

MS_1970 = 0
MS_2100 = 4_102_444_800_000

UNITS = "smhdwMy"


def timeframes() -> st.SearchStrategy[Timeframe]:
    """Any timeframe, the common ones most often."""
    common = ["1s", "1m", "5m", "15m", "1h", "4h", "1d", "3d", "1w", "1M", "3M", "1y"]
    return st.one_of(
        st.sampled_from(common).map(Timeframe.parse),
        st.builds(Timeframe, st.integers(1, 9999), st.sampled_from(UNITS)),
    )


def moments(first: int = MS_1970, last: int = MS_2100) -> st.SearchStrategy[int]:
    """UTC epoch milliseconds."""
    return st.integers(first, last)


def small_intervals(last: int = 24) -> st.SearchStrategy[Interval]:
    """Intervals on a small grid of whole numbers, where sets can be counted out."""
    pairs = st.tuples(st.integers(0, last - 1), st.integers(1, last))
    return pairs.filter(lambda p: p[0] < p[1]).map(lambda p: Interval(*p))


def small_spans(last: int = 24) -> st.SearchStrategy[Span]:
    return st.builds(
        lambda interval, served, asked: Span(interval.start, interval.end, served, asked),
        small_intervals(last),
        st.sampled_from(Served),
        st.integers(1, 50),
    )


@st.composite
def answers(
    draw: st.DrawFn,
    symbols: tuple[str, ...] = ("BTC/USDT", "ETH/USDT"),
    last: int = 20,
    extras: tuple[int, ...] = (0,),
) -> Answer:
    """An answer about some hours after `START`; equal seeds agree, different ones revise."""
    interval = draw(small_intervals(last))
    served = draw(st.sampled_from([Served.MARKET, Served.MARKET, Served.MARKET, *Served]))
    shown: set[int] = set()
    if served in (Served.MARKET, Served.GIVEN):
        shown = draw(st.sets(st.integers(interval.start, interval.end - 1)))
    return Answer(
        draw(st.sampled_from(symbols)),
        Interval(START + interval.start * HOUR, START + interval.end * HOUR),
        candles_at(
            (START + hour * HOUR for hour in shown),
            draw(st.integers(0, 2)),
            draw(st.sampled_from(extras)),
        ),
        served,
        draw(st.integers(1, 99)),
    )
