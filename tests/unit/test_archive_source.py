"""Files fetched, believed or left to the API, without a network."""

from __future__ import annotations

import asyncio
import logging
import tracemalloc
from collections.abc import Callable

import pytest

from backtester.data.candles import Candles, overlay
from backtester.data.errors import ExchangeUnavailableError
from backtester.data.events import Event, PageFetched
from backtester.data.fetching import retries
from backtester.data.fetching.archives import plan
from backtester.data.fetching.archives import source as source_module
from backtester.data.fetching.archives.plan import Source
from backtester.data.fetching.archives.source import ArchiveConflict, ArchiveLeft, ArchiveSource
from backtester.data.fetching.fetcher import SeriesJob
from backtester.data.fetching.paging import Finding, Reader
from backtester.data.model import Interval, Market, Served, Timeframe
from tests.support.archives import COIN_MARGINED, Direct
from tests.support.world import DAY, HOUR, MARKET, MINUTE, NOON, ms, same


@pytest.fixture(autouse=True)
def short_spans_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a single month show what otherwise takes three: the tests are about the rest."""
    monkeypatch.setattr(plan, "FEWEST_FILES", 1)


BTC = MARKET.listing("BTC/USDT").market
SWAP = MARKET.listing("BTC/USDT:USDT").market


class Run:
    """One fetch from archives, what it learned and what it left."""

    def __init__(
        self,
        connection: Direct,
        market: Market,
        timeframe: str,
        start: str | int,
        end: str | int,
        *,
        source: Source = Source.ARCHIVE,
        keep: Callable[[Candles], object] | None = None,
    ) -> None:
        self.unit = Timeframe.parse(timeframe)
        self.market = market
        self.connection = connection
        first = start if isinstance(start, int) else ms(start)
        self.whole = Interval(first, end if isinstance(end, int) else ms(end))
        self.events: list[Event] = []
        self.proven: list[Interval] = []
        self.candles = Candles.empty()
        self.keep = keep
        self.job = SeriesJob(market, [self.whole], Reader(self.unit, True, connection.now_ms))
        self.archives = ArchiveSource(
            connection,
            "http://archive",
            self.unit,
            page_size=1000,
            now_ms=connection.now_ms,
            source=source,
            on_event=self.events.append,
        )
        self.archives.plan(self.job)
        (left,) = asyncio.run(self.archives.fetch([self.job], self._learn)).values()
        self.left = source_module._joined([*self.job.intervals, *left])

    def _learn(self, job: SeriesJob, candles: Candles, findings: list[Finding]) -> None:
        assert {finding.served for finding in findings} <= {Served.MARKET}
        if self.keep is not None:
            self.keep(candles)
            return
        for finding in findings:
            self.proven.append(finding.interval)
            self.candles = overlay(self.candles, candles.within(finding.interval))

    @property
    def told(self) -> list[str]:
        return [one.reason for one in self.events if isinstance(one, ArchiveLeft)]

    def is_true(self) -> bool:
        """Check that all proven is the truth, and that nothing wanted was forgotten."""
        assert sorted([*self.proven, *self.left])[0].start == self.whole.start
        assert self.whole.subtract([*self.proven, *self.left]) == []
        for part in self.proven:
            truth = self.connection.truth(self.market, self.unit, part)
            assert same(self.candles.within(part), truth)
        return True


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_wait", lambda _attempt, _error: 0.0)


@pytest.mark.parametrize(
    ("market", "timeframe", "start", "end"),
    [
        pytest.param(BTC, "1m", "2024-12-30", "2025-01-04", id="spot-both-units"),
        pytest.param(BTC, "1h", "2024-11-01", "2025-03-01", id="spot-hours"),
        pytest.param(BTC, "1d", "2023-01-01", "2025-01-01", id="spot-days"),
        pytest.param(SWAP, "5m", "2022-05-20", "2022-06-10", id="futures-both-headers"),
    ],
)
def test_what_archives_prove_is_the_truth_bit_for_bit(
    market: Market, timeframe: str, start: str, end: str
) -> None:
    """Whatever a file's format, its candles are the market's."""
    run = Run(Direct(), market, timeframe, start, end)
    assert run.is_true()
    assert run.left == []
    assert run.told == []


def test_coin_margined_volume_is_base_units() -> None:
    """The column called quote volume is what the API answers as volume."""
    run = Run(Direct(), COIN_MARGINED, "1h", "2022-04-01", "2022-08-01")
    assert run.is_true()
    assert run.left == []
    assert all("/futures/cm/" in path for path in run.connection.paths)


def test_a_file_takes_two_downloads_and_one_small_sample() -> None:
    """The checksum, the file, and at most 64 candles of the API."""
    run = Run(Direct(), BTC, "1m", "2024-01-01", "2024-03-01", source=Source.AUTO)
    assert run.archives.requests == len(run.connection.paths) == 4
    assert [ask.limit for ask in run.connection.asked] == [64, 64]
    assert sum(isinstance(event, PageFetched) for event in run.events) == 2


# ------------------------------------------------------------------ holes


def test_a_hole_is_repaired_by_the_sample_that_is_asked_anyway() -> None:
    """Minutes that the file lost are the API's; no further request is needed."""
    connection = Direct()
    lost = Interval(ms("2024-01-10T10:00"), ms("2024-01-10T10:30"))
    connection.tree.omit("BTCUSDT", lost)
    run = Run(connection, BTC, "1m", "2024-01-01", "2024-02-01")
    assert run.is_true()
    assert run.left == []
    assert len(connection.asked) == 1


def test_an_outage_that_the_api_shows_too_is_confirmed_absent() -> None:
    """What the file and the API both pass over, with candles on either side, is no candle."""
    run = Run(Direct(), BTC, "1m", "2019-05-01", "2019-06-01")
    assert run.is_true()
    assert run.left == []
    outage = Interval(ms("2019-05-15T03:00"), ms("2019-05-15T13:00"))
    assert len(run.candles.within(outage)) == 0


def test_further_holes_are_left_to_the_api() -> None:
    """One sample speaks for one hole; the rest of what is missing is asked for in pages."""
    connection = Direct()
    holes = [Interval(at, at + 5 * MINUTE) for at in (ms("2024-01-10"), ms("2024-01-20T07:00"))]
    for hole in holes:
        connection.tree.omit("BTCUSDT", hole)
    run = Run(connection, BTC, "1m", "2024-01-01", "2024-02-01")
    assert run.is_true()
    assert run.left == holes[1:]


def test_a_missing_day_is_left_to_the_api() -> None:
    """More than a page is missing: what the sample did not repair counts as never asked."""
    connection = Direct()
    day = Interval(ms("2024-01-10"), ms("2024-01-11"))
    connection.tree.omit("BTCUSDT", day)
    run = Run(connection, BTC, "1m", "2024-01-01", "2024-02-01")
    assert run.is_true()
    assert run.left == [Interval(day.start + 999 * MINUTE, day.end)]


def test_a_hole_that_the_api_does_not_bracket_is_left_to_it() -> None:
    """An answer that ends inside the hole confirms nothing behind it."""
    connection = Direct()
    hole = Interval(ms("2024-01-10T10:00"), ms("2024-01-10T10:30"))
    connection.tree.omit("BTCUSDT", hole)
    connection.answer = lambda candles: candles.within(Interval(0, hole.start + 10 * MINUTE))
    run = Run(connection, BTC, "1m", "2024-01-01", "2024-02-01")
    # The file's candles behind the cut are not in the answer: that is a conflict.
    assert run.left == [run.whole]
    assert len(run.told) == 1


def test_a_market_full_of_holes_gives_its_archives_up() -> None:
    """Where windows around holes are most of a file, the API is asked at once."""
    rep = MARKET.listing("REP/USDT").market
    run = Run(Direct(), rep, "1m", "2021-01-01", "2021-07-01", source=Source.AUTO)
    assert run.is_true()
    assert run.archives.requests < 2 * 6 + 1


# ------------------------------------------------------------------ refusals


def test_a_missing_file_proves_nothing() -> None:
    """404 leaves the month to the API; months around it are taken."""
    connection = Direct()
    connection.tree.remove("2024-02")
    run = Run(connection, BTC, "1h", "2024-01-01", "2024-04-01")
    assert run.is_true()
    assert run.left == [Interval(ms("2024-02-01"), ms("2024-03-01"))]
    assert len(run.told) == 1
    assert "there is no" in run.told[0]


def test_after_two_missing_files_a_symbols_others_are_not_asked_for() -> None:
    """A delisted symbol has no files any more, and its absence is the API's to prove."""
    luna = MARKET.listing("LUNA/USDT").market
    run = Run(Direct(), luna, "1h", "2022-04-01", "2025-06-01")
    assert run.is_true()
    assert run.left == [Interval(ms("2022-05-13T01:00"), ms("2025-06-01"))]
    assert len(run.told) <= 8, "those that were under way when the second was missing"


def test_a_wrong_checksum_is_tried_again_and_then_told() -> None:
    """Both are asked for twice; then the API takes over, by name and digest."""
    connection = Direct()
    connection.tree.spoil("2024-02")
    run = Run(connection, BTC, "1h", "2024-02-01", "2024-03-01")
    assert run.left == [run.whole]
    assert run.archives.requests == 4
    assert run.connection.asked == [], "what is not verified is not compared"
    assert "BTCUSDT-1h-2024-02.zip does not match its checksum" in run.told[0]


def test_a_file_that_changes_between_its_checksum_and_itself_is_read_again() -> None:
    """One mismatch is what a revision in the making looks like."""
    connection = Direct()
    connection.tree.spoil("2024-02", times=1)
    run = Run(connection, BTC, "1h", "2024-02-01", "2024-03-01")
    assert run.is_true()
    assert run.left == []
    assert run.archives.requests == 4


def test_a_conflict_with_the_api_is_told_with_both_values(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The API is believed, the file is not used, and both candles stand in the log."""
    connection, at = Direct(), ms("2024-02-10")
    connection.tree.alter("BTCUSDT", "1d", at, (1.0, 4.0, 0.5, 2.0, 0.25))
    with caplog.at_level(logging.WARNING):
        run = Run(connection, BTC, "1d", "2024-02-01", "2024-03-01")
    assert run.left == [run.whole]
    (conflict,) = [one for one in run.events if isinstance(one, ArchiveConflict)]
    truth = MARKET.candles("BTC/USDT", Timeframe.parse("1d"), Interval(at, at + DAY))
    assert conflict == ArchiveConflict(
        "BTC/USDT", "BTCUSDT-1d-2024-02.zip", at,
        (1.0, 4.0, 0.5, 2.0, 0.25), tuple(truth.values[0].tolist()),
    )  # fmt: skip
    assert str(conflict.archived) in caplog.text
    assert str(conflict.answered) in caplog.text
    assert "1 of 29 candles" in run.told[0]


def test_a_candle_that_only_the_file_has_is_a_conflict() -> None:
    """The API decides what exists, too."""
    connection, at = Direct(), ms("2024-02-10")
    connection.answer = lambda candles: candles.take(candles.open_time != at)
    run = Run(connection, BTC, "1d", "2024-02-01", "2024-03-01")
    (conflict,) = [one for one in run.events if isinstance(one, ArchiveConflict)]
    assert (conflict.open_time, conflict.answered) == (at, None)
    assert run.left == [run.whole]


def test_an_empty_answer_of_the_api_confirms_nothing() -> None:
    """A sample that shows no candle at all refuses the file."""
    connection = Direct()
    connection.answer = lambda _candles: Candles.empty()
    run = Run(connection, BTC, "1d", "2024-02-01", "2024-03-01")
    assert run.left == [run.whole]


def test_archives_that_cannot_be_reached_are_left_alone_after_the_first_try() -> None:
    """One file's tries are enough to know; the API has the rest."""

    class Deaf(Direct):
        async def download(self, url: str) -> tuple[int, bytes]:
            self.paths.append(url)
            raise ExchangeUnavailableError(f"{url}: no route to host")

    run = Run(Deaf(), BTC, "1h", "2020-01-01", "2025-01-01")
    assert run.left == [run.whole]
    assert run.archives.requests <= 6 * retries.ATTEMPTS


@pytest.mark.parametrize(("status", "tries"), [(503, 2), (429, 2), (403, 1), (400, 1)])
def test_failures_that_may_pass_are_tried_again_and_others_not(status: int, tries: int) -> None:
    """By HTTP status, as for the API, but only once: a host that has not served yet may never.

    And a 429 of another host pauses nobody's budget.
    """

    class Failing(Direct):
        async def download(self, url: str) -> tuple[int, bytes]:
            self.paths.append(url)
            return status, b"no"

    run = Run(Failing(), BTC, "1d", "2024-02-01", "2024-03-01")
    assert run.left == [run.whole]
    assert len(run.connection.paths) == tries


def test_symbols_take_turns() -> None:
    """None waits for another's history."""
    connection = Direct()
    unit = Timeframe.parse("1h")
    jobs = [
        SeriesJob(
            MARKET.listing(symbol).market,
            [Interval(ms("2024-01-01"), ms("2024-04-01"))],
            Reader(unit, True, NOON),
        )
        for symbol in ("BTC/USDT", "ETH/USDT")
    ]
    archives = ArchiveSource(
        connection, "http://archive/", unit, page_size=1000, now_ms=NOON,
        source=Source.ARCHIVE, on_event=lambda _event: None,
    )  # fmt: skip
    for job in jobs:
        archives.plan(job)
    assert archives.planned == (6, 2 * 91 * 24, {"BTC/USDT", "ETH/USDT"})
    asyncio.run(archives.fetch(jobs, lambda _job, _candles, _findings: None))
    names = [path.split("/")[-3] for path in connection.paths if path.endswith("CHECKSUM")]
    assert names[:4] == ["BTCUSDT", "ETHUSDT"] * 2


def test_memory_does_not_grow_with_the_years() -> None:
    """What is read is handed on and let go: a year peaks where four months do."""
    connection = Direct()
    Run(connection, BTC, "5m", "2023-01-01", "2024-01-01")  # the tree keeps what it made

    def peak(end: str) -> int:
        tracemalloc.start()
        Run(connection, BTC, "5m", "2023-01-01", end, keep=lambda _candles: None)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    assert peak("2024-01-01") < 1.5 * peak("2023-07-01")


def test_only_what_is_wanted_of_a_file_is_proven() -> None:
    """Parts that the store has already are neither compared nor handed on."""
    connection, unit = Direct(), Timeframe.parse("1h")
    parts = [
        Interval(ms("2024-01-01"), ms("2024-01-03")),
        Interval(ms("2024-01-05T07:00"), ms("2024-02-01")),
    ]
    job = SeriesJob(BTC, list(parts), Reader(unit, True, NOON))
    found: list[Finding] = []
    archives = ArchiveSource(
        connection, "http://archive", unit, page_size=1000, now_ms=NOON,
        source=Source.ARCHIVE, on_event=lambda _event: None,
    )  # fmt: skip
    archives.plan(job)
    asyncio.run(archives.fetch([job], lambda _job, _candles, findings: found.extend(findings)))
    assert [finding.interval for finding in found] == parts
    assert connection.asked[0].until is not None
    assert connection.asked[0].until - (connection.asked[0].since or 0) <= 64 * HOUR
