"""Gate's monthly files: what its API does not reach back to, proven by its own days."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from backtester.data.candles import Candles
from backtester.data.errors import (
    BadResponseError,
    ExchangeUnavailableError,
    FetchWarning,
    NotServedError,
)
from backtester.data.events import Event
from backtester.data.fetching.archives import reader
from backtester.data.fetching.archives.deep import compared
from backtester.data.fetching.archives.plan import Source, sunken_files
from backtester.data.fetching.archives.source import ArchiveConflict
from backtester.data.fetching.pipeline import run
from backtester.data.fetching.request import FetchRequest
from backtester.data.model import Interval, Served, Timeframe
from backtester.data.sandbox import Fault
from backtester.data.sandbox.archives import ArchiveTree
from backtester.data.sandbox.dialects import Call
from tests.e2e.dialects_support import Serve, reach, serve, spans_of
from tests.support.world import DAY, HOUR, MARKET, NOON, World, is_part_of, ms, same, truth

__all__ = ["serve"]

BTC = "BTC/USDT"
MINUTE, ONE_DAY = Timeframe.parse("1m"), Timeframe.parse("1d")
DEPTH = 9_980


def gate(serve: Serve, at: int = NOON, address: str | None = None) -> World:
    world = serve("gate", at)
    world.config = {**world.config, "archiveUrl": address or world.server.url}
    return world


def files(world: World, since: int = 0) -> list[str]:
    paths = [one.path for one in world.sent(since) if one.path.endswith(".csv.gz")]
    return sorted(path.rpartition("/")[2] for path in paths)


@pytest.mark.parametrize(
    ("symbol", "timeframe", "start", "end"),
    [
        pytest.param(BTC, "1m", "2025-04-10T07:00", "2025-06-01", id="minutes"),
        pytest.param(BTC, "5m", "2024-06-01", None, id="over-an-outage"),
        pytest.param("ONDO/USDT", "1m", "2025-01-31", "2025-04-01", id="from-its-listing"),
        pytest.param("TUSD/USDT", "1m", "2025-05-01", "2025-06-01", id="thin"),
        pytest.param(BTC, "1h", "2024-01-01", None, id="hours"),
    ],
)
def test_files_fill_what_the_api_does_not_reach(
    serve: Serve, symbol: str, timeframe: str, start: str, end: str | None
) -> None:
    """The table is the market's own, also where minutes lack; then nothing is asked again."""
    world = gate(serve)
    asked = world.ask(symbol, timeframe, start, end)
    assert same(asked[symbol], truth(symbol, timeframe, start, end or NOON))
    assert files(world)
    assert {span.served for span in world.stored(symbol, timeframe).coverage} == {Served.MARKET}
    assert asked.result.account()["archives"][symbol]["used"] == files(world)
    assert world.ask(symbol, timeframe, start, end).requests == []


def test_all_columns_of_what_the_api_has_let_go_of_are_not_asked_for_again(serve: Serve) -> None:
    """The files have no quote volumes, and nobody else could tell them."""
    world = gate(serve)
    question = (BTC, "1m", "2025-05-20", "2025-06-01")
    first = world.ask(*question, all_columns=True)
    assert same(first[BTC].plain(), truth(*question))
    assert world.ask(*question, all_columns=True).requests == []


def test_without_them_it_is_beyond_the_depth_as_ever(serve: Serve) -> None:
    """`source='api'` asks no archive, tells the depth, and leaves the archives for later."""
    world = gate(serve)
    oldest = reach("1m", DEPTH, NOON)
    asked = world.ask(BTC, "1m", "2025-05-01", source=Source.API, warns="reaches back")
    assert same(asked[BTC], truth(BTC, "1m", oldest, NOON))
    assert files(world) == []
    later = world.ask(BTC, "1m", "2025-05-01", source=Source.ARCHIVE, warns="reaches back")
    # June's file is not out yet: what of it the API has let go of is nobody's today.
    expected = truth(BTC, "1m", "2025-05-01", NOON)
    lost = (expected.open_time >= ms("2025-06-01")) & (expected.open_time < oldest)
    assert same(later[BTC], expected.take(~lost))
    beyond = [s for s in spans_of(world, BTC, "1m") if s[2] is Served.BEYOND_DEPTH]
    assert beyond == [(ms("2025-06-01"), oldest, Served.BEYOND_DEPTH)]


def test_a_month_is_looked_for_again_when_its_file_is_out(serve: Serve) -> None:
    """What was beyond reach in June is there in July, and asked for once."""
    world = gate(serve)
    question = (BTC, "1m", "2025-06-01", "2025-06-15")
    first = world.ask(*question, warns="reaches back")
    assert len(first[BTC]) < len(truth(*question))
    assert world.ask(*question, warns="reaches back").requests == []
    world.clock.now_ms = ms("2025-07-05")
    again = world.ask(*question)
    assert files(world) == ["BTC_USDT-202506.csv.gz"]
    assert same(again[BTC], truth(*question))
    assert world.ask(*question).requests == []


def test_a_day_that_is_not_the_apis_is_told_and_not_used(serve: Serve) -> None:
    """Both values are named; the days around it are used, and the hole is said to be one."""
    world = gate(serve)
    day = ms("2025-05-12")
    at = day + 5 * HOUR
    row = truth(BTC, "1m", at, at + 60_000).values[0].tolist()
    world.server.archives.alter("BTC_USDT", "1m", at, [*row[:4], row[4] + 1.0])
    world.server.archives.omit("BTC_USDT", Interval(ms("2025-05-20T03:00"), ms("2025-05-20T04:00")))
    told: list[Event] = []
    asked = world.ask(
        BTC, "1m", "2025-05-01", "2025-06-01", on_event=told.append, warns="reaches back"
    )
    conflicts = [event for event in told if isinstance(event, ArchiveConflict)]
    assert [event.open_time for event in conflicts] == [day, ms("2025-05-20")]
    own = truth(BTC, "1d", day, day + DAY).values[0].tolist()
    assert list(conflicts[0].answered or ()) == own
    assert conflicts[0].archived[4] == pytest.approx(own[4] + 1.0, rel=1e-9)
    expected = truth(BTC, "1m", "2025-05-01", "2025-06-01")
    days = expected.open_time // DAY * DAY
    assert same(asked[BTC], expected.take((days != day) & (days != ms("2025-05-20"))))


def test_files_that_lack_or_cannot_be_read_leave_the_depth_as_it_is(serve: Serve) -> None:
    """Missing or cut: named in the account with the reason, and nothing wrong is stored."""
    world = gate(serve)
    world.server.archives.remove("BTC_USDT-202503")
    world.faults.add(Fault.CUT_JSON, match="BTC_USDT-202504")
    asked = world.ask(BTC, "1m", "2025-03-01", "2025-06-01", warns="reaches back")
    account = json.loads(json.dumps(asked.result.account()))["archives"][BTC]
    assert account["used"] == ["BTC_USDT-202505.csv.gz"]
    assert "ends early" in account["refused"]["BTC_USDT-202504.csv.gz"]
    assert "there is no" in account["refused"]["BTC_USDT-202503.csv.gz"]
    assert same(asked[BTC], truth(BTC, "1m", "2025-05-01", "2025-06-01"))


def test_a_file_that_came_cut_is_asked_for_once_more(serve: Serve) -> None:
    """A transfer that failed is no reason to do without a month for good."""
    world = gate(serve)
    world.faults.add(Fault.CUT_JSON, match="BTC_USDT-202504", times=1)
    asked = world.ask(BTC, "1m", "2025-04-01", "2025-05-01")
    assert same(asked[BTC], truth(BTC, "1m", "2025-04-01", "2025-05-01"))
    assert files(world) == 2 * ["BTC_USDT-202504.csv.gz"]


def test_older_months_than_the_listing_are_not_asked_for_one_by_one(serve: Serve) -> None:
    """The newest file comes first; two that are not there end it."""
    world = gate(serve)
    asked = world.ask("ONDO/USDT", "1m", "2023-01-01", "2025-06-01", warns="reaches back")
    assert same(asked["ONDO/USDT"], truth("ONDO/USDT", "1m", "2025-01-01", "2025-06-01"))
    assert len(files(world)) == 5 + 2


def test_archives_that_cannot_be_reached(serve: Serve) -> None:
    """`auto` goes without, and says so; `archive` fails."""
    world = gate(serve, address="http://127.0.0.1:9")
    question = (BTC, "1m", "2025-05-01")
    request = FetchRequest(world.key("1m"), (BTC,), question[2], exchange_config=world.config)
    with pytest.warns(FetchWarning, match="reaches back"):
        result = run(request, world.home)
    assert len(result.archives[BTC]["refused"]) == 1
    assert is_part_of(result.tables()[BTC], truth(BTC, "1m", "2025-05-01", NOON))
    with pytest.raises(ExchangeUnavailableError, match="cannot be reached"):
        world.ask(*question, source=Source.ARCHIVE)
    with pytest.raises(NotServedError, match=r"no archives of \w+ are known"):
        world.ask("BTC/USDT:USDT", "1m", "2025-05-01", market_type="swap", source=Source.ARCHIVE)


# ------------------------------------------------------------------------- by itself


def packed(path: str) -> bytes:
    reply = ArchiveTree(MARKET).answer(Call(path, {}, "archive"), NOON)
    assert reply.status == 200
    return reply.body


PATH = "/spot/candlesticks_1m/202502/BTC_USDT-202502.csv.gz"
FEBRUARY = Interval(ms("2025-02-01"), ms("2025-03-01"))


def test_a_file_is_read_to_the_bit_and_told_when_it_is_none() -> None:
    """Six columns, seconds, gzip; with a header row too, and nothing else."""
    expected = truth(BTC, "1m", "2025-02-01", "2025-03-01")
    whole = packed(PATH)
    assert same(reader.read_gate(whole, "x", MINUTE, FEBRUARY), expected)
    text = gzip.decompress(whole)
    headed = gzip.compress(b"timestamp,volume,close,high,low,open\n" + text)
    assert same(reader.read_gate(headed, "x", MINUTE, FEBRUARY), expected)
    other_checksum = whole[:-8] + b"\0\1\2\3" + whole[-4:]
    other_marks = gzip.compress(text.replace(b",", b";"))
    cut = whole[:-9], whole[: len(whole) // 2]
    for broken in (*cut, other_checksum, other_marks, b"<html>", b"", text):
        with pytest.raises(BadResponseError, match=r"^x: "):
            reader.read_gate(broken, "x", MINUTE, FEBRUARY)


def test_days_are_compared_with_their_volume() -> None:
    """Equal days are proven, absences between the API's days too; others are conflicts."""
    span = Interval(ms("2025-02-01"), ms("2025-02-06"))
    hours = Timeframe.parse("1h")
    candles = MARKET.candles(BTC, hours, span)
    days = MARKET.candles(BTC, ONE_DAY, span)
    grid = [Interval(at, at + DAY) for at in days.open_time.tolist()]
    assert compared(candles, days, hours, span) == (grid, [])
    without_second = candles.take(candles.open_time // DAY != days.open_time[1] // DAY)
    same_days, conflicts = compared(without_second, days, hours, span)
    assert same_days == [grid[0], *grid[2:]]
    assert [(one.open_time, one.archived) for one in conflicts] == [(grid[1].start, None)]
    neither = days.take(np.arange(5) != 1)
    assert compared(without_second, neither, hours, span) == (grid, [])
    last = days.take(np.arange(5) < 4)
    same_days, conflicts = compared(without_second, last.take(np.arange(4) != 1), hours, span)
    assert [one.answered for one in conflicts] == [None]
    assert same_days == grid[:4]
    assert compared(Candles.empty(), Candles.empty(), hours, span) == ([], [])


def test_silence_at_the_beginning_of_a_day_is_no_conflict() -> None:
    """A flat candle stands for it in a file, while the API's day begins with the first trade."""
    span = Interval(ms("2025-02-01"), ms("2025-02-03"))
    hours = Timeframe.parse("1h")
    real = MARKET.candles(BTC, hours, span)
    values = real.values.copy()
    values[24, :4], values[24, 4] = values[23, 3] * 2, 0.0
    days = MARKET.candles(BTC, ONE_DAY, span).values.copy()
    rest = values[25:]
    days[1] = rest[0, 0], rest[:, 1].max(), rest[:, 2].min(), rest[-1, 3], rest[:, 4].sum()
    shown = Candles.of(ONE_DAY.grid(span), days)
    same_days, conflicts = compared(Candles.of(real.open_time, values), shown, hours, span)
    assert (len(same_days), conflicts) == (2, [])
    values[24, 4] = values[30, 4]
    _, (one,) = compared(Candles.of(real.open_time, values), shown, hours, span)
    assert one.open_time == ms("2025-02-02"), "a candle with trades counts"


def test_the_newest_months_come_first_and_only_those_that_are_out() -> None:
    """A month is counted on from three days after it."""
    wanted = [Interval(ms("2025-03-15"), ms("2025-06-10"))]
    labels = [one.label for one in sunken_files(wanted, ms("2025-06-15"))]
    assert labels == ["2025-05", "2025-04", "2025-03"]
    assert [one.label for one in sunken_files(wanted, ms("2025-06-03"))] == labels[1:]


def test_sums_of_minutes_are_the_days_own() -> None:
    """What the comparison rests on: decimals add up to decimals."""
    minutes = MARKET.candles(BTC, MINUTE, FEBRUARY)
    days = MARKET.candles(BTC, ONE_DAY, FEBRUARY)
    found, conflicts = compared(minutes, days, MINUTE, FEBRUARY)
    assert (len(found), conflicts) == (28, [])
