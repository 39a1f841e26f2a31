"""What an import decides before it touches anything: names, columns, rows, news."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest

from backtester.data.candles import Answer, Candles, Series, given
from backtester.data.errors import CandleError
from backtester.data.importing.columns import (
    milliseconds,
    numbers,
    place_columns,
    ticks_of,
    time_column,
    times_of_texts,
    unread_number,
)
from backtester.data.importing.found import NO_TIME, Rows, Said
from backtester.data.importing.merging import news_of
from backtester.data.importing.names import closed_period, said_by_key, said_by_name, unified
from backtester.data.importing.screening import screen
from backtester.data.model import Interval, MarketType, Served, Timeframe
from tests.support.builders import DAY, H1, HOUR, START, answer, candles_at, hours, rows

SPOT, SWAP, FUTURE = MarketType
LATER = START + 1000 * HOUR


def tf(text: str | None) -> Timeframe | None:
    return Timeframe.parse(text) if text else None


@pytest.mark.parametrize(
    ("path", "exchange", "market", "timeframe", "symbol"),
    [
        ("binance_spot_1h.pickle.blosc", "binance", SPOT, "1h", None),
        ("bybit_spot_1h__a7457a90.pickle.blosc", "bybit", SPOT, "1h", None),
        ("okx_swap_1mo.h5", "okx", SWAP, "1M", None),
        ("binance_spot_1d_BTC-USDT.csv.gz", "binance", SPOT, "1d", "BTC-USDT"),
        ("kraken_4h.hdf5", "kraken", None, "4h", None),
        ("user_data/data/okx/BTC_USDT-5m.feather", "okx", SPOT, "5m", "BTC/USDT"),
        ("data/okx/futures/BTC_USDT_USDT-1h-futures.feather", "okx", SWAP, "1h", "BTC/USDT:USDT"),
        ("elsewhere/BTC_USDT-1Mo.feather", None, SPOT, "1M", "BTC/USDT"),
        ("BTCUSDT-1m-2024-01.zip", "binance", None, "1m", "BTCUSDT"),
        ("data/spot/monthly/klines/BTCUSDT-1m-2024-01.zip", "binance", SPOT, "1m", "BTCUSDT"),
        ("futures/um/daily/BTCUSDT-1m-2024-01-31.csv", "binance", SWAP, "1m", "BTCUSDT"),
        ("BTCUSD_PERP-1h-2024-01.zip", "binancecoinm", SWAP, "1h", "BTC/USD:BTC"),
        ("XBTUSD_1440.csv", "kraken", SPOT, "1d", "BTCUSD"),
        ("Binance_BTCUSDT_1h.csv", "binance", None, "1h", "BTCUSDT"),
        ("BTC-USDT_15m.parquet", None, None, "15m", "BTC-USDT"),
        ("BTCUSDT.csv", None, None, None, "BTCUSDT"),
        ("candles.csv", None, None, None, None),
        ("mine_BTCUSDT_1h.csv", None, None, "1h", "BTCUSDT"),
        ("mine_1h.csv", None, None, "1h", None),
        ("x/okx_swap_1h/BTC-USDT_USDT/2025.csv", "okx", SWAP, "1h", "BTC/USDT:USDT"),
        ("okx_spot_1m/%24A~B-USDT/2025-01.csv.gz", "okx", SPOT, "1m", "$A-B/USDT"),
        ("okx_spot_1d/BTC-USDT/2020s.csv", "okx", SPOT, "1d", "BTC/USDT"),
        ("okx_spot_1h/BTC-USDT/mine.csv", None, None, None, None),
        ("okx_1h/BTC-USDT/2025.csv", None, None, None, None),
        ("data/mine/BTC_USDT-1h.feather", None, SPOT, "1h", "BTC/USDT"),
    ],
)
def test_a_name_says_what_it_says(
    path: str, exchange: str | None, market: Any, timeframe: str | None, symbol: str | None
) -> None:
    """Nothing is read into a name that is not in it: not an exchange, nor a market."""
    assert said_by_name(PurePosixPath(path)) == Said(exchange, market, tf(timeframe), symbol)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("BTC_USDT", Said(symbol="BTC_USDT")),
        ("BTCUSDT/1h", Said(timeframe=tf("1h"), symbol="BTCUSDT")),
        ("BTC/USDT/ohlcv/tf_5m", Said(timeframe=tf("5m"), symbol="BTC/USDT")),
        ("okx/swap/BTC-USDT/4h", Said("okx", SWAP, tf("4h"), "BTC-USDT")),
        ("candles/BTC_USDT", Said(symbol="BTC_USDT")),
        ("prices/BTC_USDT", Said(symbol="BTC_USDT")),
        ("btc/usdt", Said(symbol="btc/usdt")),
    ],
)
def test_a_key_says_what_it_says(key: str, expected: Said) -> None:
    """The path of a table in a file is read part by part."""
    assert said_by_key(key.split("/")) == expected


@pytest.mark.parametrize(
    ("name", "market", "expected"),
    [
        ("BTCUSDT", SPOT, "BTC/USDT"),
        ("ETHBTC", SPOT, "ETH/BTC"),
        ("1000PEPEUSDT", SWAP, "1000PEPE/USDT:USDT"),
        ("BTC_USDT_USDT", SWAP, "BTC/USDT:USDT"),
        ("BTC/USDT:USDT", SWAP, "BTC/USDT:USDT"),
        ("BTC/USDT:USDT", SPOT, None),
        ("kPEPE/USDC", SPOT, "kPEPE/USDC"),
        ("btc/usdt", SPOT, "BTC/USDT"),
        ("BTC/USD", SWAP, None),
        ("BTC/USDT", FUTURE, None),
        ("BTC/USDT:USDT-251226", FUTURE, "BTC/USDT:USDT-251226"),
        ("feature", SPOT, None),
        ("USDT", SPOT, None),
    ],
)
def test_a_symbol_is_unified_or_left_open(
    name: str, market: MarketType, expected: str | None
) -> None:
    """What could be two contracts is none: the user must say which."""
    assert unified(name, market) == expected


def test_only_a_dated_archive_proves_that_its_last_candle_was_over() -> None:
    """A file of a month that was over holds closed candles only."""
    assert closed_period(PurePosixPath("BTCUSDT-1m-2024-01.csv"))
    assert closed_period(PurePosixPath("okx_spot_1h/BTC-USDT/2025.csv"))
    assert not closed_period(PurePosixPath("mine/BTC-USDT/2025.csv"))
    assert not closed_period(PurePosixPath("BTC_USDT-1m.feather"))


# ------------------------------------------------------------------ columns and times


@pytest.mark.parametrize(
    ("names", "symbol", "expected"),
    [
        (["Open", "High", "Low", "Close", "Volume"], None, [0, 1, 2, 3, 4]),
        (["volume", "close", "low", "high", "open"], None, [4, 3, 2, 1, 0]),
        (["t", "o", "h", "l", "c", "v"], None, [1, 2, 3, 4, 5]),
        (["date", "open", "high", "low", "close", "Volume BTC", "Volume USDT"], "BTC/USDT",
         [1, 2, 3, 4, 5]),
        (["Volume USDT", "open", "high", "low", "close", "Volume ETH"], "ETHUSDT-x", None),
        (["Close"], None, None),
        (["open", "high", "low", "close"], None, None),
    ],
)  # fmt: skip
def test_columns_are_found_by_their_names(
    names: list[str], symbol: str | None, expected: list[int] | None
) -> None:
    """In any case and order; where one is missing, or two could be meant, nothing is taken."""
    if expected is None:
        with pytest.raises(CandleError, match="it has no"):
            place_columns(names, symbol)
    else:
        assert place_columns(names, symbol) == expected


def test_closes_alone_are_refused_with_the_reason() -> None:
    """The reason names what is missing, and what is there."""
    with pytest.raises(CandleError, match="closes alone are not candles") as caught:
        place_columns(["Close"])
    assert caught.value.missing == ("Open", "High", "Low", "Volume")


@pytest.mark.parametrize(
    "cells",
    [
        ["1704067200"],
        ["1704067200000"],
        ["1704067200000000"],
        ["1704067200000000000"],
        ["1704067200.0"],
        [" 1704067200 "],
        ["2024-01-01"],
        ["2024-01-01 00:00:00"],
        ["2024-01-01T00:00:00Z"],
        ["2024-01-01 00:00:00+00:00"],
        ["2024-01-01 00:00:00.000 UTC"],
        ["2024-01-01 01:00:00+01:00"],
    ],
    ids=" ".join,
)
def test_times_are_read_in_every_unit_and_as_iso(cells: list[str]) -> None:
    """The same moment, whatever it is written in."""
    assert times_of_texts(cells).tolist() == [START]


def test_a_file_may_change_its_unit_in_the_middle() -> None:
    """Binance's dumps count in milliseconds, and in microseconds from 2025 on."""
    assert times_of_texts([str(START), str((START + HOUR) * 1000)]).tolist() == hours(0, 2)


@pytest.mark.parametrize(
    "cells", [["01/02/2024"], ["yesterday"], ["2024-13-01"], [""], ["x", "y", "1704067200"]]
)
def test_what_could_be_another_time_is_refused(cells: list[str]) -> None:
    """Two readings, or none, is no time; where most are that, the whole is no table."""
    with pytest.raises(CandleError, match="neither counts since 1970 nor ISO"):
        times_of_texts(cells)


def test_a_single_bad_time_costs_its_row_only() -> None:
    """Whatever the others are written in."""
    assert times_of_texts(["1704067200", "x", "1704070800"]).tolist() == [
        START, NO_TIME, START + HOUR,
    ]  # fmt: skip
    assert times_of_texts(["2024-01-01", "2024-01-32", "2024-01-02"]).tolist() == [
        START, NO_TIME, START + DAY,
    ]  # fmt: skip
    mixed = ["1704067200000001", str(2**70), "1704067200", "2024-01-01"]
    assert times_of_texts(mixed).tolist() == [NO_TIME, NO_TIME, START, START]
    found = table(candles_at(hours(0, 9)))
    found.open_time[[2, 5]] = NO_TIME, START // 10  # a digit is missing
    outcome = screened(found)
    assert outcome.skipped == {"no time of a candle": 2}
    assert outcome.candles.open_time.tolist() == [START + h * HOUR for h in (0, 1, 3, 4, 6, 7, 8)]


def test_row_numbers_are_no_times() -> None:
    """A table whose index was lost has none."""
    found = Rows(np.arange(9), candles_at(hours(0, 9)).values.copy())
    with pytest.raises(CandleError, match="no time that a candle could have"):
        screened(found)


def test_times_of_arrays() -> None:
    """Whole numbers and NumPy's datetimes of every unit; not a number is no time."""
    for unit in ("s", "ms", "us", "ns"):
        moment = np.array([START], "datetime64[ms]").astype(f"datetime64[{unit}]")
        assert ticks_of(moment).tolist() == [START]
    assert ticks_of(np.array([START / 1000])).tolist() == [START]
    for unit in ("s", "ms", "us", "ns"):
        assert ticks_of(np.array(["NaT"], f"datetime64[{unit}]")).tolist() == [NO_TIME]
    assert ticks_of(np.array([np.nan, np.inf, 0.5, 1e300])).tolist() == [NO_TIME] * 4
    assert milliseconds(np.array([1]), "us").tolist() == [NO_TIME]
    assert milliseconds(np.array([2**62, -(2**62)]), "s").tolist() == [NO_TIME] * 2
    with pytest.raises(CandleError, match="of type bool"):
        ticks_of(np.array([True]))


def test_numbers_have_the_bits_of_float() -> None:
    """Also the awkward ones; what is no number becomes none, one by one."""
    cells = ["0.1", "1e-8", "123456789.123456789", "9007199254740993", "", "N/A", "null", "x"]
    found = numbers(cells)
    assert found[:4].tolist() == [float(cell) for cell in cells[:4]]
    assert np.isnan(found[4:7]).all(), "empty"
    assert np.isinf(found[7]), "not empty, and no number"
    assert unread_number(cells) == "x"
    assert unread_number(cells[:7]) is None


def test_a_column_of_times_is_found() -> None:
    """The most telling name wins."""
    assert time_column(["date", "Open time", "open"]) == 1
    assert time_column(["", "open"]) == 0
    with pytest.raises(CandleError, match="no column of times"):
        time_column(["open", "close"])


# ------------------------------------------------------------------ rows


def table(candles: Candles) -> Rows:
    return Rows(candles.open_time.copy(), candles.values.copy())


def screened(found: Rows, timeframe: Timeframe = H1, **options: Any) -> Any:
    options = {"now_ms": LATER, "last_is_closed": True, **options}
    return screen(found, timeframe, **options)


def test_sound_rows_pass_bit_for_bit_in_order() -> None:
    """Newest first, with padding between: the candles are the same."""
    sound = candles_at(hours(0, 10))
    found = Rows(
        np.append(sound.open_time[::-1], [START + 20 * HOUR, START + 21 * HOUR]),
        np.vstack([sound.values[::-1], np.full((2, 5), np.nan)]),
    )
    outcome = screened(found)
    assert outcome.candles == sound
    assert outcome.skipped == {"padding": 2}


def test_each_bad_row_is_left_out_with_its_reason() -> None:
    """A row costs itself only, and is counted."""
    found = table(candles_at(hours(0, 10)))
    found.open_time[3] += 1
    found.values[4, 0] = np.inf
    found.values[5, 1] = 0.0
    found.values[6, 4] = -1.0
    found.values[7, :3] = np.nan
    outcome = screened(found)
    assert outcome.skipped == {
        "off the 1h grid": 1,
        "not finite numbers": 2,
        "open or close outside low and high": 1,
        "negative volume": 1,
    }
    assert outcome.candles.open_time.tolist() == [START + h * HOUR for h in (0, 1, 2, 8, 9)]


def test_rows_of_which_none_is_a_candle_are_refused() -> None:
    """Other than padding, which may be all there is."""
    broken = table(candles_at(hours(0, 3)))
    broken.values[:, 4] = np.nan
    with pytest.raises(CandleError, match="none of its rows is a candle: 3 not finite numbers"):
        screened(broken)
    broken.values[:] = np.nan
    assert screened(broken).skipped == {"padding": 3}


def test_the_last_row_counts_as_unfinished_unless_told() -> None:
    """Also where the last row of the file is only padding."""
    sound = candles_at(hours(0, 4))
    padded = Rows(
        np.append(sound.open_time, START + 4 * HOUR), np.vstack([sound.values, [np.nan] * 5])
    )
    for found in (table(sound), padded):
        outcome = screened(found, last_is_closed=False)
        assert outcome.candles.open_time.tolist() == hours(0, 3)
        assert outcome.skipped["last row, perhaps unfinished"] == 1
    assert len(screened(table(sound)).candles) == 4


def test_a_last_row_that_is_left_out_anyway_does_not_cost_another() -> None:
    """The candle before it is finished: something came after it."""
    found = table(candles_at(hours(0, 4)))
    found.values[3, 0] = np.nan
    assert len(screened(found, last_is_closed=False).candles) == 3


def test_what_has_not_closed_is_never_taken() -> None:
    """Whatever the user says: law 3."""
    found = table(candles_at(hours(0, 4)))
    outcome = screened(found, now_ms=START + 3 * HOUR + 1)
    assert outcome.candles.open_time.tolist() == hours(0, 2)
    assert outcome.skipped == {"not closed yet": 2}


def test_rows_there_twice_are_taken_once_and_conflicts_refused() -> None:
    """Equal in every bit, or nothing of the series is taken."""
    sound = candles_at(hours(0, 3))
    twice = Rows(np.append(sound.open_time, START), np.vstack([sound.values, sound.values[:1]]))
    outcome = screened(twice)
    assert (outcome.candles, outcome.skipped) == (sound, {"there twice": 1})
    twice.values[3, 3] += 1e-9
    with pytest.raises(CandleError, match="two different candles, the first 2024-01-01 00:00"):
        screened(twice)


@pytest.mark.parametrize(
    ("step", "timeframe", "match"),
    [
        (HOUR, "1m", "are 1h apart"),  # all on the grid of minutes, none of them a minute
        (60_000, "1h", "are 1m apart"),
        (HOUR // 2, "1h", "are 30m apart"),
        (DAY, "1M", "are 1d apart"),
        (4 * HOUR, "1h", "are 4h apart"),
    ],
)
def test_candles_of_another_length_are_refused(step: int, timeframe: str, match: str) -> None:
    """Hours stored as minutes would be silently wrong for ever."""
    times = [START + i * step for i in range(100)]
    with pytest.raises(CandleError, match=match):
        screened(table(candles_at(times)), Timeframe.parse(timeframe))


def test_candles_of_another_zone_are_refused() -> None:
    """Days that begin at 23:00 are another zone's."""
    times = [START - HOUR + i * DAY for i in range(5)]
    with pytest.raises(CandleError, match="zone"):
        screened(table(candles_at(times)), Timeframe.parse("1d"))


def test_months_and_gaps_are_no_other_length() -> None:
    """Months differ in length, and markets pause."""
    months = [START, START + 31 * DAY, START + 60 * DAY, START + 91 * DAY]
    assert (
        len(screened(table(candles_at(months)), Timeframe.parse("1M"), now_ms=2**41).candles) == 4
    )
    gappy = candles_at([*hours(0, 2), *hours(50, 1), *hours(90, 1), *hours(130, 1)])
    assert screened(table(gappy)).candles == gappy


# ------------------------------------------------------------------ beside what is stored

BTC = "BTC/USDT"


def news(candles: Candles, *answers: Answer) -> Any:
    stored = Series().with_answers(answers)
    found = news_of(BTC, candles, stored, H1, asked_ms=99)
    return found, stored.with_answers(found.answers)


def counts(found: Any) -> tuple[int, int, int, int, int]:
    return found.new, found.revised, found.known, len(found.kept), found.absent


def test_new_candles_are_present_and_gaps_unknown() -> None:
    """Imported candles cover themselves only: a fetch asks for what lies between."""
    candles = candles_at([*hours(0, 3), *hours(5, 2)])
    found, after = news(candles)
    assert counts(found) == (5, 0, 0, 0, 0)
    assert after.candles == candles
    assert [(s.start, s.end, s.served) for s in after.coverage] == [
        (START, START + 3 * HOUR, Served.GIVEN),
        (START + 5 * HOUR, START + 7 * HOUR, Served.GIVEN),
    ]


def test_a_second_import_brings_nothing() -> None:
    """Idempotence, to the last span."""
    candles = candles_at([*hours(0, 3), *hours(5, 2)])
    again, _ = news(candles, *given(BTC, candles, H1, asked_ms=7))
    assert again.answers == []
    assert counts(again) == (0, 0, 5, 0, 0)


def test_the_exchanges_word_stays() -> None:
    """A candle that the exchange answered is not revised by a file, but told."""
    found, after = news(candles_at(hours(0, 6), seed=1), answer(first=2, count=2))
    assert counts(found) == (4, 0, 0, 2, 0)
    truth, file = candles_at(hours(2, 2)), candles_at(hours(2, 2), seed=1)
    assert rows(after.candles.within(Interval(START + 2 * HOUR, START + 4 * HOUR))) == rows(truth)
    assert [d.open_time for d in found.kept] == hours(2, 2)
    assert found.kept[0].stored == tuple(truth.values[0])
    assert found.kept[0].file == tuple(file.values[0])
    assert after.revisions == ()


def test_what_was_handed_in_before_is_revised() -> None:
    """Both values are kept, the old one as a revision (law 6)."""
    before = candles_at(hours(0, 3))
    found, after = news(candles_at(hours(0, 3), seed=1), *given(BTC, before, H1, asked_ms=7))
    assert counts(found) == (0, 3, 0, 0, 0)
    assert after.candles == candles_at(hours(0, 3), seed=1)
    assert [(r.old, r.old_asked_ms, r.new_asked_ms) for r in after.revisions] == [
        (tuple(row), 7, 99) for row in before.values
    ]


@pytest.mark.parametrize(
    ("served", "taken"),
    [
        (Served.MARKET, 0),
        (Served.NOT_LISTED, 0),
        (Served.DELISTED, 0),
        (Served.BEYOND_DEPTH, 4),
        (Served.NOT_SERVED, 4),
    ],
)
def test_a_confirmed_absence_stays_unless_it_is_the_apis(served: Served, taken: int) -> None:
    """What an API does not reach, a file may bring; what never traded, none can."""
    hole = Answer(BTC, Interval(START, START + 4 * HOUR), Candles.empty(), served, 1)
    found, after = news(candles_at(hours(0, 4)), hole)
    assert counts(found) == (taken, 0, 0, 0, 4 - taken)
    assert len(after.candles) == taken


def test_what_is_stored_but_was_never_answered_for_is_answered_for() -> None:
    """The same candle from a second source settles it."""
    candles = candles_at(hours(0, 3))
    found = news_of(BTC, candles, Series(candles), H1, asked_ms=99)
    assert counts(found) == (0, 0, 3, 0, 0)
    after = Series(candles).with_answers(found.answers)
    assert [(s.start, s.end) for s in after.coverage] == [(START, START + 3 * HOUR)]
