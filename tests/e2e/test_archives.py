"""Bulk archives through the whole pipeline, against the market's truth, requests counted."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from backtester.data.cli import app
from backtester.data.errors import ExchangeUnavailableError, NotServedError, OptionError
from backtester.data.events import Event, FetchPlanned, PageFetched
from backtester.data.fetching.archives import plan
from backtester.data.fetching.archives.plan import Source
from backtester.data.fetching.archives.source import ArchiveLeft
from backtester.data.fetching.data_fetcher import fetch_data, update_data
from backtester.data.fetching.pipeline import run
from backtester.data.fetching.request import FetchRequest, FetchResult
from backtester.data.model import Interval, MarketType, Timeframe
from backtester.data.sandbox import Fault, SandboxServer
from backtester.data.sandbox.journal import Request
from tests.e2e.dialects_support import Serve, serve
from tests.support.tls_proxy import running_proxy
from tests.support.world import (
    DAY,
    MARKET,
    MINUTE,
    NOON,
    Asked,
    World,
    is_part_of,
    ms,
    pages_of,
    same,
    truth,
)

__all__ = ["serve"]

BTC, SWAP = "BTC/USDT", "BTC/USDT:USDT"


@pytest.fixture(autouse=True)
def short_spans_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a single month show what otherwise takes three: the tests are about the rest."""
    monkeypatch.setattr(plan, "FEWEST_FILES", 1)


def files(asked: Asked) -> list[str]:
    """Give the names of the files asked for, checksums aside."""
    return names(asked.requests)


def names(requests: list[Request]) -> list[str]:
    paths = (one.path for one in requests if one.path.startswith("/data/"))
    return [path.rpartition("/")[2] for path in paths if path.endswith(".zip")]


class Stop(Exception):  # noqa: N818 - no error, an end
    """What a hook raises to end a fetch in the middle."""


def stop_after(pages: int) -> Callable[[Event], None]:
    left = itertools.count(pages, -1)

    def hook(event: Event) -> None:
        if isinstance(event, PageFetched) and next(left) <= 1:
            raise Stop

    return hook


def two_months(
    world: World, archive_url: str, on_event: Callable[[Event], None] | None = None
) -> FetchResult:
    """Ask with archives at another address, whose requests the world cannot count."""
    config = {**world.config, "archiveUrl": archive_url}
    request = FetchRequest(
        world.key("1m"), (BTC,), "2025-04-01", "2025-06-01", exchange_config=config
    )
    return run(request, world.home, on_event)


# ------------------------------------------------------------------ the answer is the market's


@pytest.mark.parametrize(
    ("market_type", "timeframe", "symbol", "start", "end"),
    [
        pytest.param("spot", "1m", BTC, "2024-12-20", "2025-01-10", id="spot-both-units"),
        pytest.param("spot", "1m", BTC, "2019-05-10", "2019-05-20", id="outage"),
        pytest.param("spot", "1h", "ONDO/USDT", "2024-12-01", "2025-03-10", id="before-listing"),
        pytest.param("spot", "1h", "REP/USDT", "2022-08-01", "2022-12-01", id="delisted"),
        pytest.param("spot", "1m", "REP/USDT", "2021-03-01", "2021-03-05", id="holes-everywhere"),
        pytest.param("spot", "1w", BTC, "2024-01-03", "2025-06-11", id="weeks-are-the-apis"),
        pytest.param("swap", "15m", SWAP, "2022-05-15", "2022-06-15", id="futures-both-headers"),
        pytest.param("spot", "1h", BTC, "2025-05-20", None, id="up-to-now"),
    ],
)
def test_archives_and_the_api_give_the_same_table_and_the_same_coverage(
    world: World, market_type: str, timeframe: str, symbol: str, start: str, end: str | None
) -> None:
    """Wherever a candle comes from it has the same bits, and the same times are absent."""
    question = (symbol, timeframe, start, end)
    asked = world.ask(*question, market_type=market_type, source=Source.ARCHIVE)
    assert same(asked[symbol], truth(symbol, timeframe, start, end or NOON))
    assert bool(files(asked)) is (timeframe != "1w")
    stored = world.stored(symbol, timeframe, market_type)
    unit, whole = Timeframe.parse(timeframe), asked.result.interval
    assert whole is not None
    again = world.ask(*question, market_type=market_type)
    assert again.requests == []
    fresh = world.ask(*question, market_type=market_type, source=Source.API, use_cache=False)
    assert files(fresh) == []
    assert fresh.result.revisions == {}
    by_api = world.stored(symbol, timeframe, market_type)
    assert stored.states(unit, whole) == by_api.states(unit, whole)


def test_a_year_of_minutes_takes_40_requests(world: World) -> None:
    """Twelve files, their checksums and samples, a clock, a list of markets, an inception."""
    planned: list[Event] = []
    asked = world.ask(BTC, "1m", "2024-01-01", "2025-01-01", on_event=planned.append)
    assert same(asked[BTC], truth(BTC, "1m", "2024-01-01", "2025-01-01"))
    assert len(files(asked)) == 12
    assert len(asked.requests) == 40
    assert len(asked.pages) == 2 + 12, "the outage of June is confirmed by the file's sample"
    (plan,) = [event for event in planned if isinstance(event, FetchPlanned)]
    assert (plan.symbols, plan.requests, plan.candles) == (1, 12, 366 * 1440)
    assert plan.weight == 12 * 2, "a sample of every file is asked of the API"
    assert world.ask(BTC, "1m", "2024-01-01", "2025-01-01").requests == []


def test_coin_margined_contracts_through_ccxts_own_class(serve: Serve) -> None:
    """The archive's base volume is the API's, over the year its files got a header."""
    world = serve("binancecoinm", NOON)
    world.config = {**world.config, "archiveUrl": world.server.url}
    question = ("BTC/USD:BTC", "1h", "2022-01-01", "2023-01-01")
    asked = world.ask(*question, market_type="swap", source=Source.ARCHIVE)
    assert same(asked["BTC/USD:BTC"], truth(SWAP, *question[1:]))
    assert len(files(asked)) == 12
    assert len({one.path for one in asked.requests if "/futures/cm/monthly/" in one.path}) == 24
    assert sum(one.path.endswith("/klines") for one in asked.requests) <= 12 + 30
    fresh = world.ask(*question, market_type="swap", source=Source.API, use_cache=False)
    assert fresh.result.revisions == {}


# ------------------------------------------------------------------ what auto chooses


@pytest.mark.parametrize(
    ("timeframe", "start", "end", "expected"),
    [
        pytest.param("1m", "2025-04-25", "2025-06-01", ["BTCUSDT-1m-2025-05.zip"], id="a-month"),
        pytest.param("1m", "2025-06-01", None, [], id="too-young"),
        pytest.param("1m", "2025-03-01", "2025-03-08", [], id="a-week"),
        pytest.param("1h", "2023-01-01", "2025-01-01", [], id="hours"),
    ],
)
def test_auto_takes_a_file_only_where_it_is_clearly_cheaper(
    world: World, timeframe: str, start: str, end: str | None, expected: list[str]
) -> None:
    """The default asks the API unless a month of minutes is wanted, and gives the truth."""
    asked = world.ask(BTC, timeframe, start, end)
    assert files(asked) == expected
    assert same(asked[BTC], truth(BTC, timeframe, start, end or NOON))


def test_what_is_stored_is_not_downloaded_again(world: World) -> None:
    """Files are chosen by what is missing, not by what is asked for."""
    world.ask(BTC, "1m", "2025-02-01", "2025-03-01")
    asked = world.ask(BTC, "1m", "2025-01-01", "2025-04-01")
    assert sorted(files(asked)) == ["BTCUSDT-1m-2025-01.zip", "BTCUSDT-1m-2025-03.zip"]
    assert same(asked[BTC], truth(BTC, "1m", "2025-01-01", "2025-04-01"))


def test_the_api_alone_is_asked_when_told_so(world: World) -> None:
    """`source='api'` sends nothing to the archives."""
    asked = world.ask(BTC, "1m", "2025-05-01", "2025-06-01", source=Source.API)
    assert files(asked) == []
    assert len(asked.pages) == 45


# ------------------------------------------------------------------ what is wrong with archives


def test_lost_minutes_days_and_files_come_from_the_api(world: World) -> None:
    """What archives lack is neither missing nor absent in the answer."""
    tree = world.server.archives
    for start, length in (
        ("2025-03-04T05:00", 7 * MINUTE),
        ("2025-03-20T05:00", 2 * MINUTE),
        ("2025-03-29", DAY),
    ):
        tree.omit("BTCUSDT", Interval(ms(start), ms(start) + length))
    tree.remove("2025-04")
    asked = world.ask(BTC, "1m", "2025-03-01", "2025-06-01")
    assert same(asked[BTC], truth(BTC, "1m", "2025-03-01", "2025-06-01"))
    assert sorted(files(asked)) == ["BTCUSDT-1m-2025-03.zip", "BTCUSDT-1m-2025-05.zip"]
    states = {state for _, state in world.stored(BTC, "1m").states(
        Timeframe.parse("1m"), Interval(ms("2025-03-01"), ms("2025-06-01")))}  # fmt: skip
    assert states == {"present"}


@pytest.mark.parametrize(
    "fault",
    [Fault.HTTP_503, Fault.RESET, Fault.CUT_BODY, Fault.HTML, Fault.EMPTY_BODY, Fault.CUT_JSON],
)
@pytest.mark.parametrize("suffix", [".zip", ".CHECKSUM"])
def test_a_fault_on_the_way_is_tried_again(world: World, fault: Fault, suffix: str) -> None:
    """Server errors, resets, cut and foreign bodies cost requests, never candles."""
    rule = world.faults.add(
        fault, times=1, match=lambda call: "/data/" in call.path and call.path.endswith(suffix)
    )
    asked = world.ask(BTC, "1d", "2025-04-01", "2025-06-01", source=Source.ARCHIVE)
    assert rule.fired == 1
    assert same(asked[BTC], truth(BTC, "1d", "2025-04-01", "2025-06-01"))
    kept = [answer.path for answer in asked.requests if answer.status == 200]
    assert len([path for path in kept if path.endswith(".zip")]) >= 2


@pytest.mark.parametrize("kind", ["checksum", "conflict", "denied"])
def test_a_file_that_is_not_believed_is_told_and_the_api_takes_over(
    world: World, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong checksum, another candle than the API's, a refusal: the answer stays the truth."""
    events: list[Event] = []
    if kind == "checksum":
        world.server.archives.spoil("2025-04")
    elif kind == "conflict":
        world.server.archives.alter("BTCUSDT", "1d", ms("2025-04-09"), (1.0, 4.0, 0.5, 2.0, 0.25))
    else:
        world.faults.add(Fault.HTTP_403, match="2025-04.zip")
    with caplog.at_level(logging.WARNING):
        asked = world.ask(
            BTC, "1d", "2025-04-01", "2025-06-01", source=Source.ARCHIVE, on_event=events.append
        )
    assert same(asked[BTC], truth(BTC, "1d", "2025-04-01", "2025-06-01"))
    (left,) = [event for event in events if isinstance(event, ArchiveLeft)]
    assert left.name == "BTCUSDT-1d-2025-04.zip"
    assert left.reason in caplog.text


def test_a_candle_revised_in_archive_and_api_is_news(world: World) -> None:
    """Asked afresh, a new version of a file is checked again, kept, and the old value logged."""
    world.ask(BTC, "1d", "2025-04-01", "2025-05-01", source=Source.ARCHIVE)
    at, new = ms("2025-04-09"), (100.0, 400.0, 50.0, 200.0, 25.0)
    world.server.archives.alter("BTCUSDT", "1d", at, new)
    world.faults.revise(BTC, "1d", at, new)
    asked = world.ask(BTC, "1d", "2025-04-01", "2025-05-01", source=Source.ARCHIVE, use_cache=False)
    assert files(asked) == ["BTCUSDT-1d-2025-04.zip"]
    (revision,) = asked.result.revisions[BTC]
    assert (revision.open_time, revision.new) == (at, new)


def test_archives_that_cannot_be_reached_leave_everything_to_the_api(world: World) -> None:
    """A closed port costs a few tries, and the answer is whole."""
    events: list[Event] = []
    result = two_months(world, "http://127.0.0.1:9", events.append)
    assert same(result.tables()[BTC], truth(BTC, "1m", "2025-04-01", "2025-06-01"))
    assert names(world.sent()) == []
    assert {one.name for one in events if isinstance(one, ArchiveLeft)} == {
        "BTCUSDT-1m-2025-04.zip",
        "BTCUSDT-1m-2025-05.zip",
    }


def test_archives_asked_for_by_name_that_cannot_be_reached_are_an_error(world: World) -> None:
    """Whoever says 'archive' is not given to the API in silence; what it alone has is kept."""
    config = {**world.config, "archiveUrl": "http://127.0.0.1:9"}
    with pytest.raises(ExchangeUnavailableError, match="'auto' would ask the API"):
        world.ask(BTC, "1m", "2025-05-30", NOON, source=Source.ARCHIVE, exchange_config=config)
    sent = {page.start for page in pages_of(world.sent())}
    assert sent, "the newest days have no file yet"
    stored = world.stored(BTC, "1m").candles
    assert is_part_of(stored, truth(BTC, "1m", "2025-05-30", NOON))
    assert int(stored.open_time[0]) == ms("2025-06-14")


def test_the_account_names_the_files_used_and_refused(world: World) -> None:
    """What came from archives and what did not, and why, in plain values."""
    world.server.archives.remove("BTCUSDT-1m-2025-02")
    world.server.archives.spoil("BTCUSDT-1m-2025-04")
    asked = world.ask([BTC, "ETH/USDT"], "1m", "2025-01-01", "2025-06-01")
    account = json.loads(json.dumps(asked.result.account()))["archives"]
    every = [f"BTCUSDT-1m-2025-0{month}.zip" for month in range(1, 6)]
    refused = {every[1]: "there is no ", every[3]: "does not match its checksum"}
    assert account[BTC]["used"] == [name for name in every if name not in refused]
    assert account[BTC]["refused"].keys() == refused.keys()
    for name, reason in refused.items():
        assert reason in account[BTC]["refused"][name]
    assert len(account["ETH/USDT"]["used"]) == 5
    assert account["ETH/USDT"]["refused"] == {}
    again = world.ask([BTC, "ETH/USDT"], "1m", "2025-01-01", "2025-06-01")
    assert again.result.account()["archives"] == {}


def test_pages_do_not_wait_for_files(world: World) -> None:
    """The API's part comes while files are slow, not after them."""
    world.faults.add(Fault.SLOW_BODY, match=".zip", delay_s=0.5)
    came: list[Interval] = []

    def note(event: Event) -> None:
        if isinstance(event, PageFetched):
            came.append(event.interval)

    asked = world.ask(BTC, "1m", "2025-05-01", NOON, on_event=note)
    assert same(asked[BTC], truth(BTC, "1m", "2025-05-01", NOON))
    assert len(files(asked)) == 1
    assert came[-1].start == ms("2025-05-01"), "the file is the last to arrive"
    assert len(came) > 10


def test_an_update_can_say_where_from(world: World) -> None:
    """`update_data` and the command take a source too."""
    world.ask(BTC, "1m", "2025-04-30", "2025-05-01")
    sent = len(world.sent())
    update_data("sandbox", "1m", exchange_config=world.config, source="api")
    assert names(world.sent(sent)) == []
    assert same(world.stored(BTC, "1m").candles, truth(BTC, "1m", "2025-04-30", NOON))
    with pytest.raises(OptionError, match="unknown source"):
        update_data("sandbox", "1m", exchange_config=world.config, source="ftp")
    world.home.store.delete(world.key("1m"))
    world.ask(BTC, "1m", "2025-04-30", "2025-05-01")
    update_data("sandbox", "1m", exchange_config=world.config, source="archive")
    assert "BTCUSDT-1m-2025-05.zip" in names(world.sent(sent))


# ------------------------------------------------------------------ interrupted


@pytest.mark.parametrize("longer_than", [0, 2 * DAY], ids=["page", "file"])
def test_an_interrupt_comes_out_as_itself_while_files_and_pages_come(
    world: World, longer_than: int
) -> None:
    """Ctrl-C in a hook, of a page or of a file, closes everything and loses nothing."""

    def interrupt(event: Event) -> None:
        if isinstance(event, PageFetched):
            span = event.interval.end - event.interval.start
            if span > longer_than and (longer_than or span < DAY):
                raise KeyboardInterrupt

    question = (BTC, "1m", "2025-04-01", NOON)
    with pytest.raises(KeyboardInterrupt):
        world.ask(*question, on_event=interrupt)
    assert is_part_of(world.stored(BTC, "1m").candles, truth(*question))
    assert same(world.ask(*question)[BTC], truth(*question))


def test_a_fetch_that_is_killed_midway_resumes_where_it_was(world: World) -> None:
    """Files that were read are stored; only the others are asked for again."""
    question = (BTC, "1m", "2024-06-01", "2025-04-01")
    with pytest.raises(Stop):
        world.ask(*question, on_event=stop_after(4))
    stored = world.stored(BTC, "1m")
    missing = stored.coverage.missing(Interval(ms(question[2]), ms(question[3])))
    unit = Timeframe.parse("1M")
    months = {unit.floor(at) for part in missing for at in range(part.start, part.end, DAY)}
    assert 0 < len(months) <= 7
    world.new_process()
    with SandboxServer(MARKET, clock=world.clock) as later:  # what was under way does not count
        request = FetchRequest(
            world.key("1m"), (BTC,), *question[2:], exchange_config={"sandboxUrl": later.url}
        )
        result = run(request, world.home)
        assert len(names(list(later.requests))) == len(months)
        assert result.requests == len(later.requests)
    assert same(result.tables()[BTC], truth(*question))


# ------------------------------------------------------------------ settings


def test_the_archives_address_is_a_setting_that_ccxt_does_not_see(world: World) -> None:
    """`archiveUrl` points elsewhere: to a mirror, say."""
    with SandboxServer(MARKET, clock=world.clock) as mirror:
        result = two_months(world, mirror.url + "/")
        assert len(names(list(mirror.requests))) == 2
        assert all(one.path.startswith("/data/") for one in mirror.requests)
        assert result.requests == len(mirror.requests) + len(world.sent())
    assert names(world.sent()) == []
    assert same(result.tables()[BTC], truth(BTC, "1m", "2025-04-01", "2025-06-01"))


def test_binances_own_address_is_reached_through_the_users_proxy(world: World) -> None:
    """Proxy and TLS settings of `exchange_config` hold for archives as for the API."""
    with running_proxy(world.server.url, world.folder.parent) as proxy:
        world.exchange = "binance"
        world.config = {"httpsProxy": proxy.url, "verify": False}
        asked = world.ask(BTC, "1m", "2025-04-01", "2025-06-01")
    assert same(asked[BTC], truth(BTC, "1m", "2025-04-01", "2025-06-01"))
    assert len(files(asked)) == 2
    assert {"api.binance.com:443", "data.binance.vision:443"} <= set(proxy.hosts)


def test_an_exchange_without_archives_says_so(world: World) -> None:
    """Asking by name for what is not there is an error; `auto` is content with the API."""
    from backtester.data.fetching.exchange import Exchange

    with running_proxy(world.server.url, world.folder.parent) as proxy:
        world.exchange = "binance"
        world.config = {"httpsProxy": proxy.url, "verify": False, "archiveUrl": ""}
        with pytest.raises(NotServedError, match=r"no archives of \w+ are known"):
            world.ask(BTC, "1m", "2025-04-01", "2025-06-01", source=Source.ARCHIVE)
        asked = world.ask(BTC, "1m", "2025-05-01", "2025-06-01")
    assert files(asked) == []
    assert (
        Exchange("binance", MarketType.SPOT, {"archiveUrl": "http://x"}).archive_url == "http://x"
    )


def test_sources_are_named_in_python_and_on_the_command_line(world: World) -> None:
    """`source=` and `--source` mean the same; another word is a usage error."""
    with pytest.raises(OptionError, match="unknown source"):
        fetch_data(BTC, "sandbox", source="ftp", data_dir=world.folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKTESTER_SANDBOX_URL", world.server.url)
        words = ["fetch", "-s", BTC, "-t", "1h", "--start", "2025-04-01", "--end", "2025-06-01",
                 "-e", "sandbox", "--data-dir", str(world.folder), "--json"]  # fmt: skip
        done = CliRunner().invoke(app, [*words, "--source", "archive"])
        assert done.exit_code == 0, done.output
        assert len(names(list(world.server.requests))) == 2
        assert CliRunner().invoke(app, [*words, "--source", "ftp"]).exit_code == 2
