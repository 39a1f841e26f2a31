"""Which files are taken of a question, and what of them proves anything."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtester.data.candles import Candles
from backtester.data.errors import OptionError
from backtester.data.fetching.archives import plan
from backtester.data.fetching.archives.plan import (
    ArchiveFile,
    Source,
    archive_url,
    archived,
    choose,
    folder_of,
    monthly_from,
    proven,
    sample,
)
from backtester.data.model import Interval, Market, MarketType, Timeframe
from tests.support.world import DAY, HOUR, MINUTE, NOON, ms

ONE_MINUTE, ONE_HOUR = Timeframe.parse("1m"), Timeframe.parse("1h")


@pytest.fixture(autouse=True)
def short_spans_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a single month show what otherwise takes three: the tests are about the rest."""
    monkeypatch.setattr(plan, "FEWEST_FILES", 1)


def span(start: str, end: str) -> Interval:
    return Interval(ms(start), ms(end))


def labels(
    intervals: list[Interval],
    timeframe: str = "1m",
    source: Source = Source.AUTO,
    page_size: int = 1000,
    now_ms: int = NOON,
) -> list[str]:
    files = choose(intervals, Timeframe.parse(timeframe), page_size, now_ms, source)
    return [file.label for file in files]


@pytest.mark.parametrize(
    ("month_end", "published"),
    [
        pytest.param("2024-07-01", "2024-07-02", id="first-is-a-monday"),
        pytest.param("2025-06-01", "2025-06-03", id="first-is-a-sunday"),
        pytest.param("2025-07-01", "2025-07-08", id="first-is-a-tuesday"),
        pytest.param("2025-01-01", "2025-01-07", id="new-year"),
    ],
)
def test_a_month_is_counted_on_after_the_first_monday_behind_it(
    month_end: str, published: str
) -> None:
    """The file of a month is made on the first Monday of the next, at an hour nobody states."""
    assert monthly_from(ms(month_end)) == ms(published)


def test_a_file_knows_its_place_in_the_tree() -> None:
    """Paths are spelled as the archive spells them, for months and days."""
    month = ArchiveFile(span("2024-02-01", "2024-03-01"), True, ())
    day = ArchiveFile(span("2024-02-29", "2024-03-01"), False, ())
    assert month.path("spot", "BTCUSDT", ONE_MINUTE) == (
        "data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-02.zip"
    )
    assert day.path("futures/um", "BTCUSDT", ONE_HOUR) == (
        "data/futures/um/daily/klines/BTCUSDT/1h/BTCUSDT-1h-2024-02-29.zip"
    )


@pytest.mark.parametrize(
    ("kind", "linear", "folder"),
    [
        (MarketType.SPOT, None, "spot"),
        (MarketType.SWAP, True, "futures/um"),
        (MarketType.FUTURE, True, "futures/um"),
        (MarketType.SWAP, False, "futures/cm"),
    ],
)
def test_a_markets_folder_is_by_what_it_is_margined_in(
    kind: MarketType, linear: bool | None, folder: str
) -> None:
    """Spot, USD-M and COIN-M have a folder each."""
    assert folder_of(Market("A/B", "AB", kind, "A", "B", linear=linear)) == folder


@pytest.mark.parametrize(
    ("intervals", "timeframe", "page_size", "expected"),
    [
        pytest.param([("2024-01-01", "2024-04-01")], "1m", 1000,
                     ["2024-01", "2024-02", "2024-03"], id="months-of-minutes"),
        pytest.param([("2024-01-01", "2025-01-01")], "1h", 1000, [], id="hours-are-few"),
        pytest.param([("2024-01-10", "2024-01-16")], "1m", 1000, [], id="a-few-days"),
        pytest.param([("2024-01-03", "2024-02-10")], "1m", 1000, ["2024-01"], id="a-part-of-two"),
        pytest.param([("2025-06-01", "2025-06-15")], "1m", 1000, [], id="not-yet-a-month"),
        pytest.param([("2025-05-01", "2025-06-10")], "1m", 499, ["2025-05"], id="small-pages"),
        pytest.param([("2024-01-01", "2024-02-01")], "5m", 499, ["2024-01"], id="five-minutes"),
        pytest.param([("2024-01-01", "2024-02-01")], "15m", 1000, [], id="fifteen-minutes"),
        pytest.param([("2020-01-01", "2025-01-01")], "1w", 1000, [], id="weeks"),
    ],
)  # fmt: skip
def test_auto_takes_only_files_that_are_clearly_cheaper_than_pages(
    intervals: list[tuple[str, str]], timeframe: str, page_size: int, expected: list[str]
) -> None:
    """Three requests a file must save at least as many again."""
    assert labels([span(*one) for one in intervals], timeframe, page_size=page_size) == expected


def test_the_last_month_is_left_to_the_api_until_its_file_is_out() -> None:
    """June 2025 ends on a Monday; its file is counted on from the 8th of July."""
    june = [span("2025-06-01", "2025-07-01")]
    assert labels(june, now_ms=ms("2025-07-07T23:59")) == []
    assert labels(june, now_ms=ms("2025-07-08")) == ["2025-06"]


def test_archives_by_name_are_months_first_then_days_then_nothing() -> None:
    """Days are taken where no month is out; yesterday and today are the API's."""
    found = labels([span("2025-05-01", "2025-06-15T12:00")], source=Source.ARCHIVE)
    assert found == ["2025-05", *(f"2025-06-{day:02}" for day in range(1, 14))]


def test_a_few_days_of_a_month_are_taken_as_days() -> None:
    """A whole month is not downloaded for two days of it, but is for twenty."""
    assert labels([span("2024-03-05", "2024-03-07")], source=Source.ARCHIVE) == [
        "2024-03-05",
        "2024-03-06",
    ]
    assert labels([span("2024-03-05", "2024-03-25")], source=Source.ARCHIVE) == ["2024-03"]


def test_the_api_by_name_takes_no_file() -> None:
    """`source='api'` never downloads."""
    assert labels([span("2020-01-01", "2025-01-01")], source=Source.API) == []


def test_only_timeframes_with_daily_files_are_taken() -> None:
    """Weeks and months begin in one file and end in another; the API has years of them a page."""
    assert [text for text in ("1m", "1h", "1d", "3d", "1w", "1M", "7m")
            if archived(Timeframe.parse(text))] == ["1m", "1h", "1d"]  # fmt: skip


@st.composite
def wanted(draw: st.DrawFn) -> list[Interval]:
    first = ms("2024-11-01") // HOUR
    marks = sorted(draw(st.sets(st.integers(first, first + 200 * 24), min_size=2, max_size=8)))
    pairs = [(a, b) for a, b in pairwise(marks)][::2]
    return [Interval(a * HOUR, b * HOUR) for a, b in pairs]


@given(wanted(), st.sampled_from(list(Source)), st.integers(0, 60), st.sampled_from([499, 1000]))
def test_files_take_disjoint_parts_of_what_is_wanted_and_nothing_young(
    intervals: list[Interval], source: Source, days: int, page_size: int
) -> None:
    """Whatever is asked: files lie apart, inside the question, and are all published."""
    now_ms = ms("2025-02-01") + days * DAY
    files = choose(intervals, ONE_MINUTE, page_size, now_ms, source)
    assert all(a.span.end <= b.span.start for a, b in pairwise(files))
    for file in files:
        inside = [part for one in intervals if (part := one.intersection(file.span))]
        assert list(file.wanted) == inside
        age = now_ms - file.span.end
        assert age >= DAY
        if file.monthly:
            assert monthly_from(file.span.end) <= now_ms


# ------------------------------------------------------------------ believing


def table(times: list[int]) -> Candles:
    return Candles.of(times, np.ones((len(times), 5)))


@given(st.sets(st.integers(0, 399)), st.integers(5, 120))
def test_what_is_not_proven_is_windows_of_a_page_around_holes(
    missing: set[int], page_size: int
) -> None:
    """Proven parts have no hole; the rest holds at most a page each and ends in holes."""
    whole = Interval(0, 400 * MINUTE)
    candles = table([at * MINUTE for at in range(400) if at not in missing])
    parts = proven(candles, [whole], ONE_MINUTE, page_size)
    for part in parts:
        assert len(candles.within(part)) == ONE_MINUTE.steps(part)
    for rest in whole.subtract(parts):
        assert rest.start // MINUTE in missing
        assert rest.end // MINUTE - 1 in missing
    assert len(whole.subtract(parts)) <= len(missing)


def test_what_the_api_confirmed_is_proven() -> None:
    """A hole inside what the API was asked and answered around is no reason to ask again."""
    whole = Interval(0, 100 * MINUTE)
    candles = table([at * MINUTE for at in range(100) if at not in {10, 11, 50}])
    confirmed = Interval(5 * MINUTE, 20 * MINUTE)
    assert proven(candles, [whole], ONE_MINUTE, 10, confirmed) == [
        Interval(0, 50 * MINUTE),
        Interval(51 * MINUTE, 100 * MINUTE),
    ]


@given(st.integers(1, 300), st.text(min_size=1))
def test_a_sample_of_a_whole_file_is_one_stretch_of_its_candles(count: int, name: str) -> None:
    """At most 64 candles, the same ones every time."""
    candles = table([at * MINUTE for at in range(count)])
    whole = (Interval(0, count * MINUTE),)
    stretch = sample(candles, whole, ONE_MINUTE, 1000, name)
    assert stretch is not None
    assert len(candles.within(stretch)) == ONE_MINUTE.steps(stretch) == min(count, 64)
    assert stretch == sample(candles, whole, ONE_MINUTE, 1000, name)


def test_a_sample_goes_to_the_hole_there_is() -> None:
    """One request then compares the file and confirms or repairs its hole."""
    candles = table([at * MINUTE for at in range(1440) if not 500 <= at < 800])
    stretch = sample(candles, (Interval(0, DAY),), ONE_MINUTE, 1000, "x")
    assert stretch == Interval(499 * MINUTE, 801 * MINUTE)


def test_a_file_without_a_wanted_candle_has_no_sample() -> None:
    """There is nothing to compare, and nothing is proven by it."""
    assert sample(table([]), (Interval(0, DAY),), ONE_MINUTE, 1000, "x") is None
    assert proven(table([]), (Interval(0, HOUR),), ONE_MINUTE, 1000) == []


# ------------------------------------------------------------------ words and addresses


def test_sources_are_read_and_others_refused() -> None:
    """Case does not matter; another word is a usage error that lists those there are."""
    assert Source.parse(" Archive ") is Source.ARCHIVE
    with pytest.raises(OptionError, match="use one of auto, api, archive"):
        Source.parse("ftp")


@pytest.mark.parametrize(
    ("exchange", "config", "expected"),
    [
        ("binance", None, "https://data.binance.vision"),
        ("binancecoinm", {}, "https://data.binance.vision"),
        ("sandbox", {}, "http://sandbox"),
        ("kraken", {}, None),
        ("binance", {"archiveUrl": "http://mirror"}, "http://mirror"),
        ("kraken", {"archiveUrl": "http://mirror"}, "http://mirror"),
        ("binance", {"archiveUrl": ""}, None),
        ("binance", {"urls": {"api": {"public": "http://elsewhere"}}}, None),
    ],
)
def test_the_address_is_the_users_else_the_exchanges(
    exchange: str, config: dict[str, object] | None, expected: str | None
) -> None:
    """Who has moved the API has not said where the archives are, and an empty address is none."""
    assert archive_url(exchange, config, "http://sandbox") == expected


def test_auto_keeps_to_the_api_for_a_short_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two months of minutes come from the API in seconds; from three on, files are taken."""
    monkeypatch.setattr(plan, "FEWEST_FILES", 3)
    minute, now_ms = Timeframe.parse("1m"), 1_767_225_600_000  # 2026-01-01
    january, march, april = 1_735_689_600_000, 1_740_787_200_000, 1_743_465_600_000
    for source, end, count in (("auto", march, 0), ("auto", april, 3), ("archive", march, 2)):
        wanted = [Interval(january, end)]
        files = plan.choose(wanted, minute, 1000, now_ms, plan.Source(source))
        assert len(files) == count
