"""The words of the domain, case by case; what holds for all of them is in `property/`."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from backtester.data.errors import (
    EmptyIntervalError,
    UnknownExchangeError,
    UnknownMarketTypeError,
    UnknownTimeframeError,
)
from backtester.data.model import (
    Coverage,
    DatasetKey,
    Interval,
    MarketType,
    Served,
    Span,
    Timeframe,
    format_ms,
)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


# ------------------------------------------------------------------------ timeframes


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1m", "1m"), ("5m", "5m"), ("1min", "1m"), ("15Min", "15m"), ("1t", "1m"), ("5T", "5m"),
        ("1h", "1h"), ("4H", "4h"), ("1d", "1d"), ("1D", "1d"), ("1w", "1w"), ("1W", "1w"),
        ("1M", "1M"), ("1mo", "1M"), ("1mon", "1M"), ("1month", "1M"), ("3M", "3M"),
        ("1s", "1s"), ("1S", "1s"), ("1y", "1y"), ("1Y", "1y"), (" 1h\n", "1h"), ("9999m", "9999m"),
    ],
)  # fmt: skip
def test_spellings_of_timeframes(written: str, meant: str) -> None:
    """The field's and pandas' spellings are understood; only the case of m tells the month."""
    assert str(Timeframe.parse(written)) == meant


@pytest.mark.parametrize(
    "written",
    ["", "h", "1", "0h", "01h", "-1h", "1.5h", "1 h", "1q", "1hour!", "10000m", "1h/..",
     "1ms", "1us", "１h", "1mm", "None", "60"],
)  # fmt: skip
def test_what_is_no_timeframe(written: str) -> None:
    """Anything else is refused with examples, never guessed."""
    with pytest.raises(UnknownTimeframeError, match="write it like 1m, 5m") as caught:
        Timeframe.parse(written)
    assert caught.value.value == written


def test_a_timeframe_parses_to_itself() -> None:
    """What is a timeframe already needs no reading."""
    hour = Timeframe(1, "h")
    assert Timeframe.parse(hour) is hour


@pytest.mark.parametrize(
    ("timeframe", "moment", "floor", "following"),
    [
        ("1m", "2024-02-29 23:59:59", "2024-02-29 23:59", "2024-03-01 00:00"),
        ("4h", "2024-01-01 07:00", "2024-01-01 04:00", "2024-01-01 08:00"),
        ("3d", "1970-01-05 12:00", "1970-01-04", "1970-01-07"),
        ("1w", "2024-01-07 23:59", "2024-01-01", "2024-01-08"),
        ("1w", "1970-01-04 23:59", "1969-12-29", "1970-01-05"),
        ("2w", "1970-01-12", "1970-01-05", "1970-01-19"),
        ("1M", "2024-02-29 12:00", "2024-02-01", "2024-03-01"),
        ("1M", "2023-02-28 23:59", "2023-02-01", "2023-03-01"),
        ("1M", "2100-02-28 23:59", "2100-02-01", "2100-03-01"),
        ("3M", "2024-12-31 23:59", "2024-10-01", "2025-01-01"),
        ("1y", "2024-12-31 23:59", "2024-01-01", "2025-01-01"),
        ("1M", "1969-12-31 23:59", "1969-12-01", "1970-01-01"),
    ],
)
def test_the_grid_follows_the_calendar(
    timeframe: str, moment: str, floor: str, following: str
) -> None:
    """Weeks begin on Mondays, months on the first, leap years included."""
    tf = Timeframe.parse(timeframe)
    assert tf.floor(ms(moment)) == ms(floor)
    assert tf.next(ms(moment)) == ms(following)
    assert tf.next(ms(moment), 0) == ms(floor)
    assert tf.next(ms(following), -1) == ms(floor)
    assert tf.ceil(ms(floor)) == ms(floor)
    assert tf.ceil(ms(floor) + 1) == ms(following)


def test_a_year_of_months() -> None:
    """A leap year has its twelve months and 366 days."""
    year = Interval(ms("2024-01-01"), ms("2025-01-01"))
    assert Timeframe.parse("1M").steps(year) == 12
    assert Timeframe.parse("1d").steps(year) == 366
    assert Timeframe.parse("1M").grid(year).tolist() == [
        ms(f"2024-{month:02}-01") for month in range(1, 13)
    ]


def test_runs_end_where_candles_are_missing() -> None:
    """Neighbouring candles make one interval, also across a month of another length."""
    times = np.array([ms("2024-01-01"), ms("2024-02-01"), ms("2024-04-01")], np.int64)
    assert Timeframe.parse("1M").runs(times) == [
        Interval(ms("2024-01-01"), ms("2024-03-01")),
        Interval(ms("2024-04-01"), ms("2024-05-01")),
    ]
    assert Timeframe.parse("1M").runs(np.empty(0, np.int64)) == []


@pytest.mark.parametrize(
    ("bounds", "aligned"),
    [((0, 7_200_000), (0, 7_200_000)), ((1, 7_199_999), (3_600_000, 7_200_000)), ((1, 2), None)],
)
def test_aligning_gives_the_grid_times_inside(
    bounds: tuple[int, int], aligned: tuple[int, int] | None
) -> None:
    """An interval shrinks to the open times it holds, or to nothing."""
    expected = None if aligned is None else Interval(*aligned)
    assert Timeframe.parse("1h").align(Interval(*bounds)) == expected


# ------------------------------------------------------------------------ intervals


@pytest.mark.parametrize("bounds", [(5, 5), (6, 5)])
def test_no_interval_is_empty(bounds: tuple[int, int]) -> None:
    """An interval that holds nothing cannot be made."""
    with pytest.raises(EmptyIntervalError, match="not before the end") as caught:
        Interval(*bounds)
    assert (caught.value.start, caught.value.end) == bounds


def test_intervals_are_half_open() -> None:
    """The start is inside, the end is not."""
    assert [at in Interval(2, 4) for at in (1, 2, 3, 4)] == [False, True, True, False]
    assert Interval(0, 2).intersection(Interval(2, 4)) is None
    assert Interval(0, 3).intersection(Interval(2, 4)) == Interval(2, 3)


# ------------------------------------------------------------------------ coverage


def test_a_later_answer_of_one_batch_wins() -> None:
    """Within one call the last span claims what two of them answer."""
    coverage = Coverage().add([Span(0, 10, Served.MARKET, 1), Span(4, 6, Served.DELISTED, 2)])
    assert coverage.spans == (
        Span(0, 4, Served.MARKET, 1), Span(4, 6, Served.DELISTED, 2), Span(6, 10, Served.MARKET, 1),
    )  # fmt: skip


def test_touching_spans_of_one_meaning_are_one() -> None:
    """They join, and remember when the earlier answer came."""
    joined = Coverage().add([Span(0, 5, Served.MARKET, 9), Span(5, 8, Served.MARKET, 3)])
    assert joined.spans == (Span(0, 8, Served.MARKET, 3),)
    apart = Coverage().add([Span(0, 5, Served.MARKET, 9), Span(5, 8, Served.GIVEN, 3)])
    assert len(apart.spans) == 2


def test_a_series_full_of_gaps_is_no_burden() -> None:
    """Fifty thousand spans are added in one pass, in any order, not in fifty thousand."""
    spans = [Span(10 * i, 10 * i + 5, Served.GIVEN, 1) for i in range(50_000)]
    assert Coverage().add(spans).spans == tuple(spans)
    assert Coverage().add(reversed(spans)).spans == tuple(spans)


def test_nothing_answered_changes_nothing() -> None:
    """An empty coverage is false, misses everything and stays what it is."""
    empty = Coverage()
    assert not empty
    assert empty.add([]) is empty
    assert empty.missing(Interval(3, 7)) == [Interval(3, 7)]
    assert list(empty.within(Interval(0, 9))) == []


# ------------------------------------------------------------------------ identities


def test_minutes_and_months_have_different_names() -> None:
    """On a disk that ignores case 1m and 1M are two files."""
    stems = [DatasetKey.of("binance", "spot", text).stem for text in ("1m", "1M")]
    assert stems == ["binance_spot_1m", "binance_spot_1mo"]
    assert len({stem.lower() for stem in stems}) == 2


def test_keys_are_understood_as_typed() -> None:
    """Blanks, capitals and plurals at the door do not make another dataset."""
    assert DatasetKey.of(" Binance ", "SPOT", "1H") == DatasetKey.of("binance", "spot", "1h")
    assert DatasetKey.of("okx", "futures", "1d").market_type is MarketType.FUTURE
    assert str(DatasetKey.of("okx", "swap", "1M")) == "okx swap 1M"


@pytest.mark.parametrize(
    "exchange",
    ["../x", "..", "", "a", "/etc/passwd", "binance/..", "bin ance", "bin\0ance", "binance_spot",
     "C:\\x", "bínance", "x" * 41, "binance\n.."],
)  # fmt: skip
def test_no_exchange_id_leaves_the_folder(exchange: str) -> None:
    """An id becomes part of a path, so only letters and digits are one."""
    with pytest.raises(UnknownExchangeError, match="not an exchange id"):
        DatasetKey.of(exchange, "spot", "1h")


@pytest.mark.parametrize("value", ["margin", "", "spotted", "spot/..", "options"])
def test_unknown_market_types(value: str) -> None:
    """A market type we do not know is refused with those we do."""
    with pytest.raises(UnknownMarketTypeError, match="use one of spot, swap, future"):
        DatasetKey.of("binance", value, "1h")


@pytest.mark.parametrize(
    "stem",
    ["", "binance", "binance_spot", "binance_spot_1M", "binance_spot_1H", "binance_spot_60",
     "binance_margin_1h", "Binance_spot_1h", "binance_spot_01h", "binance_spot_1h_x", "a_spot_1h",
     ".binance_spot_1h", "../binance_spot_1h", "binance_spot_1h\n", "my_binance_spot_1h",
     "binance_spot_99999h", "binance_spot_1q", "binance_spots_1h"],
)  # fmt: skip
def test_foreign_names_are_no_datasets(stem: str) -> None:
    """A file whose name we would not have written belongs to somebody else."""
    assert DatasetKey.from_stem(stem) is None


# ------------------------------------------------------------------------ for a person


@pytest.mark.parametrize(
    ("moment", "text"),
    [(0, "1970-01-01 00:00 UTC"), (1_700_000_000_000, "2023-11-14 22:13:20 UTC"),
     (2**62, f"{2**62} ms"), (-(2**62), f"{-(2**62)} ms")],
)  # fmt: skip
def test_times_are_written_for_a_person(moment: int, text: str) -> None:
    """Any integer can stand in a message, also one that is no date."""
    assert format_ms(moment) == text
