"""KuCoin's spot, certified: ccxt's own class against a server that speaks KuCoin's dialect."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from backtester.data.candles import Candles
from backtester.data.errors import UnknownSymbolError
from backtester.data.events import Event, Waiting
from backtester.data.fetching.capabilities import capability_of
from backtester.data.fetching.exchange import _used_weight
from backtester.data.fetching.faults import HttpAnswer
from backtester.data.fetching.online import markets_and_volumes
from backtester.data.model import Interval, MarketType, Timeframe
from backtester.data.sandbox import Fault
from tests.e2e.dialects_support import Serve, ask_twice, in_contracts, serve
from tests.support.world import DAY, HOUR, MARKET, NOON, World, ms, same, truth

__all__ = ["serve"]

PAGE = 1499
LOAD = 4
"""Requests before the first candle: the clock, currencies, symbols, and tickers for the fees."""
SEARCH = 16
"""Most requests to find an inception by windows of 1499 days, hours and minutes, from 2009 on."""


def ask(world: World, symbol: str, timeframe: str, expected: Candles, **how: Any) -> int:
    """Ask cold and warm for the truth, and count the requests for candles."""
    asked, others = ask_twice(world, symbol, timeframe, expected, path="/candles", **how)
    assert others == LOAD
    return asked


def pages(timeframe: str, start: int, end: int) -> int:
    return -(-(end - start) // (PAGE * Timeframe.parse(timeframe).typical_ms))


CASES = [
    pytest.param("BTC/USDT", "1m", "2018-02-07T12:00", "2018-02-09T18:00", id="outage"),
    pytest.param("BTC/USDT", "1m", "2018-02-04", "2018-02-10", id="outage-probed"),
    pytest.param("BAT/USDT", "1m", "2021-03-01", "2021-03-03", id="minutes-without-trades"),
    pytest.param("ONDO/USDT", "1m", "2025-01-27", "2025-02-02", id="1m-listing"),
    pytest.param("ONDO/USDT", "1h", "2024-06-01", "2025-06-16", id="1h-listing"),
    pytest.param("BTC/USDT", "1d", "2009-01-01", "2025-06-16", id="1d-listing"),
    pytest.param("ETH/USDT", "1M", "2015-01-15", "2025-06-16", id="1M-listing"),
    pytest.param("ETH/USDT", "1m", "2025-06-10T00:00:30", "2025-06-10T00:59:30", id="unaligned"),
    pytest.param("ETH/USDT", "1m", "2025-06-14", "2025-06-16", id="to-the-last-closed"),
    pytest.param("SOL/EUR", "12h", "2022-01-01", "2025-03-17", id="twelve-hours"),
]


@pytest.mark.parametrize(("symbol", "timeframe", "start", "end"), CASES)
def test_spot_equals_the_truth(
    serve: Serve, symbol: str, timeframe: str, start: str, end: str
) -> None:
    """Spot candles come bit for bit, within a page each, a second look, and the search."""
    expected = truth(symbol, timeframe, start, end)
    asked = ask(serve("kucoin"), symbol, timeframe, expected, start=start, end=end)
    # Four each: a page, a second look at what it leaves out, and one more at either end of that.
    whole = pages(timeframe, ms(start), min(ms(end), NOON))
    assert asked <= 4 * whole + (SEARCH if whole >= 4 else 0)


@pytest.mark.parametrize("symbol", ["ETH/USDT", "ONDO/USDT"])
def test_a_window_of_months_reaches_its_end(serve: Serve, symbol: str) -> None:
    """Not only as far as months of 30 days would: ccxt's own, 683 of which end in January."""
    world = serve("kucoin")
    expected = truth(symbol, "1M", "1970-01-01", NOON)
    assert int(expected.open_time[-1]) == ms("2025-05-01")
    assert same(world.ask(symbol, "1M")[symbol], expected)
    assert [state for _, state in world.stored(symbol, "1M").states(
        Timeframe.parse("1M"), Interval(ms("2025-02-01"), ms("2025-06-01"))
    )] == ["present"]  # fmt: skip


def test_a_range_without_gaps_costs_one_request_a_page(serve: Serve) -> None:
    """Windows of 1499 candles are asked for, and none of them twice."""
    start, end = ms("2025-06-10"), ms("2025-06-10") + 3 * PAGE * 60_000
    expected = truth("BTC/USDT", "1m", start, end)
    assert len(expected) == 3 * PAGE
    assert ask(serve("kucoin"), "BTC/USDT", "1m", expected, start=start, end=end) == 3


def test_swaps_are_had_under_this_name_too(serve: Serve) -> None:
    """The exchange's main name has contracts as well, with volumes in base units."""
    symbol, start, end = "BTC/USDT:USDT", NOON - 20 * HOUR, NOON
    expected = in_contracts(truth(symbol, "1m", start, end), 0.001)
    world = serve("kucoin")
    how: dict[str, Any] = {
        "path": "/kline/query",
        "market_type": "swap",
        "start": start,
        "end": end,
    }
    assert ask_twice(world, symbol, "1m", expected, **how) == (3, 3)


def test_unknown_and_delisted_symbols_fail_by_name(serve: Serve) -> None:
    """A name that is not listed fails, the others come, and no candle is asked of it."""
    world = serve("kucoin")
    asked = world.ask(
        ["BTC-USDT", "WAVES/USDT"], "1h", "2025-06-10", "2025-06-11", warns="WAVES/USDT"
    )
    assert same(asked["BTC-USDT"], truth("BTC/USDT", "1h", "2025-06-10", "2025-06-11"))
    assert isinstance(asked.result.failures["WAVES/USDT"], UnknownSymbolError)
    assert {r.params["symbol"] for r in asked.requests if "/candles" in r.path} == {"BTC-USDT"}


def test_too_many_requests_pause_as_long_as_told_and_then_succeed(serve: Serve) -> None:
    """A 429 says in a header of its own how long to wait; then its window comes."""
    world = serve("kucoin")
    world.faults.add(Fault.HTTP_429, times=1, match="/candles", retry_after_s=1)
    events: list[Event] = []
    how = {"start": NOON - 2 * DAY, "end": NOON - DAY, "on_event": events.append}
    expected = truth("BTC/USDT", "1h", NOON - 2 * DAY, NOON - DAY)
    assert ask(world, "BTC/USDT", "1h", expected, **how) == 2
    assert 0.5 < sum(event.wait_s for event in events if isinstance(event, Waiting)) < 2


def test_the_pool_is_not_overdrawn(serve: Serve) -> None:
    """With the limiter on nothing is refused, and the weight is counted as the server counts it."""
    world = serve("kucoin", limited=True)
    start, end = ms("2025-06-01"), ms("2025-06-14")
    expected = truth("BTC/USDT", "1m", start, end)
    ask(world, "BTC/USDT", "1m", expected, start=start, end=end)
    assert {request.status for request in world.sent()} == {200}


def test_what_others_use_of_the_pool_is_read_from_the_headers() -> None:
    """The exchange's own count goes into the budget: its limit less what it says is left."""
    row = capability_of("kucoin", MarketType.SPOT)
    headers = {"GW-RateLimit-Limit": "2000", "gw-ratelimit-remaining": "1850"}
    assert _used_weight(HttpAnswer(200, headers), row) == 150
    assert _used_weight(HttpAnswer(200, {"gw-ratelimit-limit": "2000"}), row) is None
    assert _used_weight(HttpAnswer(), row) is None


def test_markets_and_volumes(serve: Serve) -> None:
    """What trades is listed, with its volume of 24 hours in quote units."""
    world = serve("kucoin")
    markets, volumes = markets_and_volumes(
        "kucoin", MarketType.SPOT, world.home.cache, world.config
    )
    trading = {one.symbol for one in MARKET.listings("spot") if one.trading_at(NOON)}
    assert {market.symbol for market in markets} == set(volumes) == trading
    assert volumes["BTC/EUR"] == pytest.approx(MARKET.ticker("BTC/EUR", NOON).quote_volume)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("symbol=NOPE-USDT&type=1min", "not provided"),
        ("symbol=BTC-USDT&type=1m", "candlestick type"),
        ("symbol=BTC-USDT&type=1min&startAt=x", "startAt"),
    ],
)
def test_refusals_are_worded_as_kucoin_words_them(serve: Serve, query: str, words: str) -> None:
    """Unknown symbols and bad parameters are refused with status 200 and a code."""
    url = f"{serve('kucoin').server.url}/spot/api/v1/market/candles?{query}"
    with urllib.request.urlopen(url) as answer:
        said = json.load(answer)
    assert said["code"] == "400100"
    assert words in said["msg"]


def test_of_a_large_window_the_newest_candles_come_newest_first(serve: Serve) -> None:
    """A window beyond 1500 candles loses its beginning; its end does not count."""
    end = ms("2025-06-10") // 1000
    query = f"symbol=BTC-USDT&type=1min&startAt={end - 2000 * 60}&endAt={end}"
    url = f"{serve('kucoin').server.url}/spot/api/v1/market/candles?{query}"
    with urllib.request.urlopen(url) as answer:
        times = [int(row[0]) for row in json.load(answer)["data"]]
    assert times == list(range(end - 60, end - 60 - 1500 * 60, -60))


def test_the_forming_candle_is_handed_out(serve: Serve) -> None:
    """A candle that is not closed comes when it is asked for and is not stored."""
    world = serve("kucoin")
    asked = world.ask("BTC/USDT", "1h", NOON - DAY, include_forming=True)
    assert asked.result.forming["BTC/USDT"].open_time.tolist() == [ms("2025-06-15T12:00")]
    stored = world.stored("BTC/USDT", "1h", "spot").candles
    assert stored.open_time[-1] == ms("2025-06-15T11:00")
