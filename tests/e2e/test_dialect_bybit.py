"""Bybit through ccxt's own class: spot and linear contracts equal the market's truth."""

from __future__ import annotations

import math

import pytest

from backtester.data.cache_system.metadata_fetcher import MetadataFetcher
from backtester.data.errors import (
    BannedError,
    RateLimitedError,
    UnknownSymbolError,
)
from backtester.data.fetching import faults
from backtester.data.model import Served
from backtester.data.sandbox import Fault
from backtester.data.sandbox.dialects import bybit
from tests.e2e.dialects_support import Serve, serve, spans_of
from tests.support.world import DAY, HOUR, MARKET, MINUTE, NOON, World, ms, same, truth

__all__ = ["serve"]

PAGE = 1000
AUGUST = ms("2026-08-01T12:34:56")
"""Dated contracts are listed then."""
SWAP, FUTURE = "BTC/USDT:USDT", "BTC/USDT:USDT-261225"
MARKETS = {"spot": 1, "swap": 4, "future": 4}
"""Market types, and the requests that list them: two for each category of contracts."""

CASES = [
    pytest.param("spot", "1m", "BTC/USDT", "2019-05-14T20:00", "2019-05-15T21:00", id="outage"),
    pytest.param(
        "spot", "1m", "BTC/USDT", "2018-02-07T20:00", "2018-02-09T12:00", id="long-outage"
    ),
    pytest.param("spot", "1m", "BAT/USDT", "2024-03-01", "2024-03-03", id="silent-minutes"),
    pytest.param(
        "spot", "1m", "BTC/USDT", "2025-06-15T12:00:30", "2025-06-15T12:20:30", id="small"
    ),
    pytest.param("spot", "1h", "ONDO/USDT", "2024-10-01", None, id="before-listing"),
    pytest.param("spot", "1h", "BTC/USDT", "2017-08-01", "2017-12-31T23:17", id="first-hours"),
    pytest.param("spot", "1d", "BTC/USDT", "2009-01-01", None, id="days"),
    pytest.param("spot", "1w", "BTC/USDT", "2016-01-01", None, id="weeks"),
    pytest.param("spot", "1M", "ETH/USDT", "2015-01-15", None, id="months"),
    pytest.param("swap", "1m", SWAP, "2025-06-14T00:00:30", None, id="swap-minutes"),
    pytest.param("swap", "1h", SWAP, "2019-07-01", "2020-03-01T00:30", id="swap-listing"),
    pytest.param("swap", "1d", "ETH/USDT:USDT", "2018-01-01", None, id="swap-days"),
    pytest.param("swap", "1M", SWAP, "2018-01-01", None, id="swap-months"),
]


def kline_requests(world: World, since: int = 0) -> int:
    return sum(request.path.endswith("/kline") for request in world.sent(since))


@pytest.mark.parametrize(("market_type", "timeframe", "symbol", "start", "end"), CASES)
def test_equals_the_truth(
    serve: Serve, market_type: str, timeframe: str, symbol: str, start: str, end: str | None
) -> None:
    """Whatever is asked comes bit for bit, and the same question again sends nothing."""
    world = serve("bybit")

    asked = world.ask(symbol, timeframe, start, end, market_type=market_type)

    expected = truth(symbol, timeframe, start, end or NOON)
    assert len(expected)
    assert same(asked[symbol], expected)
    # A page each, a second look at what is missing in it, and up to six to find out since when
    # and why a page is empty.
    assert asked.result.interval is not None
    steps = asked.result.request.key.timeframe.steps(asked.result.interval)
    assert kline_requests(world) <= 2 * math.ceil(steps / PAGE) + 6
    assert len(asked.requests) == kline_requests(world) + 1 + MARKETS[market_type]
    again = world.ask(symbol, timeframe, start, end, market_type=market_type)
    assert again.requests == []
    assert same(again[symbol], expected)


@pytest.mark.parametrize("timeframe", ["1m", "1h", "1d"])
def test_dated_contracts_equal_the_truth(serve: Serve, timeframe: str) -> None:
    """A dated contract comes from before its listing to its last closed candle."""
    world = serve("bybit", AUGUST)
    start = "2026-07-30" if timeframe == "1m" else "2026-05-01"

    asked = world.ask(FUTURE, timeframe, start, market_type="future")

    assert same(asked[FUTURE], truth(FUTURE, timeframe, start, AUGUST, AUGUST))


def test_whole_pages_cost_a_request_each(serve: Serve) -> None:
    """A thousand candles come per request: 4,000 minutes with nothing missing take four."""
    world = serve("bybit")
    start = NOON // MINUTE * MINUTE - 4 * PAGE * MINUTE

    asked = world.ask("BTC/USDT", "1m", start)

    assert len(asked["BTC/USDT"]) == 4 * PAGE
    assert kline_requests(world) == 4


@pytest.mark.parametrize(
    ("timeframe", "symbol", "start", "end"),
    [
        ("1m", "BTC/USDT", "2019-05-14T20:00", "2019-05-15T21:00"),
        ("1m", "BAT/USDT", "2024-03-01", "2024-03-02"),
        ("1h", "ONDO/USDT", "2024-10-01", None),
    ],
    ids=["outage", "silent-minutes", "before-listing"],
)
def test_shorter_pages_than_asked_for_hide_nothing(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    timeframe: str,
    symbol: str,
    start: str,
    end: str | None,
) -> None:
    """A page cut at its old end, as Bybit cuts them, is not taken for silence before it."""
    monkeypatch.setattr(bybit, "_MOST_ROWS", 100)
    world = serve("bybit")

    asked = world.ask(symbol, timeframe, start, end)

    assert same(asked[symbol], truth(symbol, timeframe, start, end or NOON))


def test_a_start_is_never_sent_alone(serve: Serve) -> None:
    """What Bybit gives from a start alone is not settled, so every question names its end."""
    world = serve("bybit")

    world.ask("ONDO/USDT", "1h", "inception")

    asked = [one.params for one in world.sent() if one.path.endswith("/kline")]
    assert all("end" in params for params in asked if "start" in params)


def test_inception_is_found(serve: Serve) -> None:
    """The first candle is found from weeks to hours, and all before counts as not listed."""
    world = serve("bybit")

    world.ask("ONDO/USDT", "1h", "inception")

    first = MARKET.listing("ONDO/USDT").listed_ms
    spans = spans_of(world, "ONDO/USDT", "1h")
    assert spans[0] == (0, first, Served.NOT_LISTED)
    assert [span[2] for span in spans] == [Served.NOT_LISTED, Served.MARKET]
    assert spans[1][1] == NOON // HOUR * HOUR
    # By weeks, days and hours, each until nothing earlier is shown.
    assert kline_requests(world) == math.ceil((NOON - first) / HOUR / PAGE) + 6


def test_delisted_symbol_is_unknown(serve: Serve) -> None:
    """What Bybit has delisted is gone, which is said as such."""
    world = serve("bybit")

    with pytest.raises(UnknownSymbolError, match="EOS/USDT"):
        world.ask("EOS/USDT", "1h", "2025-05-01")


def test_symbol_delisted_since_its_markets_were_read(serve: Serve) -> None:
    """A symbol that vanished since yesterday's list of markets is refused by name."""
    world = serve("bybit", MARKET.listing("EOS/USDT").delisted_ms - DAY)
    world.ask("EOS/USDT", "1h", "2025-05-01", "2025-05-02")
    world.clock.now_ms += 2 * DAY

    with pytest.raises(UnknownSymbolError, match="Not supported symbols"):
        world.ask("EOS/USDT", "1h", "2025-05-01", "2025-05-04")

    stored = world.stored("EOS/USDT").candles
    assert same(stored, truth("EOS/USDT", "1h", "2025-05-01", "2025-05-02"))


def test_limit_is_obeyed(serve: Serve) -> None:
    """At the exchange's own limit nothing is refused."""
    world = serve("bybit", limited=True)

    asked = world.ask("BTC/USDT", "1m", "2025-06-01")

    assert same(asked["BTC/USDT"], truth("BTC/USDT", "1m", "2025-06-01", NOON))
    assert {request.status for request in asked.requests} == {200}


def test_ban_is_a_hard_stop(serve: Serve) -> None:
    """A 403 that says "too frequent" is a ban of ten minutes; nothing is asked before its end."""
    world = serve("bybit", limited=True)
    world.ask("BTC/USDT", "1h", "2025-06-01", "2025-06-02")
    world.faults.add(Fault.HTTP_418, match="/kline")
    before = len(world.sent())

    for _ in range(2):
        with pytest.raises(BannedError):
            world.ask("BTC/USDT", "1h", "2025-06-03", "2025-06-04")

    assert len(world.sent(before)) == 1


def test_rate_limit_error_is_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exchange that refuses for good ends in the error that says so."""
    monkeypatch.setattr(faults, "DEFAULT_PAUSE_S", 0.01)
    world = serve("bybit")
    world.faults.add(Fault.HTTP_429, match="/kline")

    with pytest.raises(RateLimitedError, match="Too many visits"):
        world.ask("BTC/USDT", "1h", "2025-06-03", "2025-06-04")


@pytest.mark.parametrize("market_type", ["spot", "swap"])
def test_top_symbols(serve: Serve, market_type: str) -> None:
    """The most traded symbols are ranked by the quote volume of the last 24 hours."""
    world = serve("bybit")
    fetcher = MetadataFetcher(world.home.cache)

    found = fetcher.get_market_data(
        "bybit", "USDT", 3, market_type=market_type, exchange_config=world.config
    )

    trading = [one for one in MARKET.listings(market_type) if one.trading_at(NOON)]
    volumes = {one.symbol: MARKET.ticker(one.symbol, NOON).quote_volume for one in trading}
    quoted = [symbol for symbol in volumes if symbol.split(":")[0].endswith("/USDT")]
    best = sorted(quoted, key=volumes.__getitem__, reverse=True)[:3]
    assert {name: one["quote_volume"] for name, one in found.items()} == {
        name: volumes[name] for name in best
    }
