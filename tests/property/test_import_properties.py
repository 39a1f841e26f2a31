"""What holds of an import beside anything that may be stored."""

from __future__ import annotations

import numpy as np
from hypothesis import given as holds_for
from hypothesis import strategies as st

from backtester.data.candles import Answer, Candles, Series
from backtester.data.export_names import folder_of, symbol_of
from backtester.data.importing.found import Rows
from backtester.data.importing.merging import news_of
from backtester.data.importing.screening import screen
from backtester.data.model import Interval, Served
from tests.support.builders import H1, HOUR, START, candles_at, hours, rows
from tests.support.strategies import answers

BTC = "BTC/USDT"
WHOLE = Interval(START, START + 40 * HOUR)
histories = st.lists(answers(symbols=(BTC,)), max_size=6)
files = st.builds(
    lambda shown, seed: candles_at((START + hour * HOUR for hour in shown), seed),
    st.sets(st.integers(0, 24)),
    st.integers(0, 2),
)


def imported(stored: Series, file: Candles) -> Series:
    return stored.with_answers(news_of(BTC, file, stored, H1, asked_ms=100).answers)


def by_exchange(series: Series) -> dict[int, bytes | None]:
    """Give what the exchange has said of every hour: its candle, or that there is none."""
    shown = rows(series.candles)
    return {
        time: shown.get(time)
        for span in series.coverage
        if span.served not in (Served.GIVEN, Served.BEYOND_DEPTH, Served.NOT_SERVED)
        for time in range(span.start, span.end, HOUR)
    }


@holds_for(histories, files)
def test_the_exchanges_word_outlives_every_import(history: list[Answer], file: Candles) -> None:
    """Candle or absence, it is what it was; and no stored candle is gone (laws 1 and 4)."""
    before = Series().with_answers(history)
    after = imported(before, file)
    said = by_exchange(before)
    shown = rows(after.candles)
    assert {time: shown.get(time) for time in said} == said
    assert rows(before.candles).keys() <= shown.keys()
    for gap in after.coverage.missing(WHOLE):
        assert before.coverage.missing(gap) == [gap], "coverage is never taken back"


@holds_for(histories, files)
def test_a_second_import_brings_nothing(history: list[Answer], file: Candles) -> None:
    """Whatever lay there before the first."""
    after = imported(Series().with_answers(history), file)
    again = news_of(BTC, file, after, H1, asked_ms=101)
    assert again.answers == []
    assert again.new == again.revised == 0


@holds_for(histories, files)
def test_every_row_is_accounted_for(history: list[Answer], file: Candles) -> None:
    """New, revised, known, kept or absent: no candle of a file goes unmentioned."""
    found = news_of(BTC, file, Series().with_answers(history), H1, asked_ms=100)
    assert found.new + found.revised + found.known + len(found.kept) + found.absent == len(file)


@holds_for(st.permutations(range(12)), st.sets(st.integers(0, 11), max_size=4), st.data())
def test_order_repeats_and_bad_rows_cost_no_good_one(
    order: list[int], bad: set[int], data: st.DataObject
) -> None:
    """Sound rows come out in order and bit for bit; each other row is counted."""
    sound = candles_at(hours(0, 12))
    again = data.draw(st.lists(st.integers(0, 11), max_size=3, unique=True))
    values = sound.values.copy()
    for row in bad:
        values[row, data.draw(st.integers(0, 4))] = data.draw(st.sampled_from([np.inf, -np.inf]))
    picked = np.array([*order, *again])
    outcome = screen(
        Rows(sound.open_time[picked], values[picked]),
        H1,
        now_ms=START + 100 * HOUR,
        last_is_closed=True,
    )
    good = np.array([row not in bad for row in range(12)])
    assert outcome.candles == sound.take(good)
    assert len(outcome.candles) + sum(outcome.skipped.values()) == len(picked)


@holds_for(st.text(min_size=1))
def test_a_folder_gives_its_symbol_back(symbol: str) -> None:
    """Whatever is in it, and the name is safe on every file system."""
    folder = folder_of(symbol)
    assert symbol_of(folder) == symbol
    assert folder.isascii()
    assert not set(folder) & set("/\\:.")
