"""Coinbase, certified: ccxt's own class against a server that speaks Advanced Trade's dialect."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from backtester.data.candles import Candles
from backtester.data.errors import UnknownSymbolError
from backtester.data.fetching.online import markets_and_volumes
from backtester.data.model import MarketType, Timeframe
from tests.e2e.dialects_support import Serve, ask_twice, in_contracts, serve
from tests.support.world import DAY, HOUR, MARKET, NOON, World, ms, truth

__all__ = ["serve"]

PAGE = 300
LOAD = 6
"""Requests before the first candle: the clock, three for currencies, two for products."""
SEARCH = 40
"""Most requests to find an inception by windows of 300 days, from 2009 on."""
LATE = ms("2026-10-15T12:34:56")
"""When the market has dated contracts."""
SWAP, FUTURE = "BTC/USDT:USDT", "BTC/USDT:USDT-261225"
LOT = 0.001
"""Base units in a contract of both."""


def ask(world: World, symbol: str, timeframe: str, expected: Candles, **how: Any) -> int:
    """Ask cold and warm for the truth, and count the requests for candles."""
    asked, others = ask_twice(world, symbol, timeframe, expected, path="/candles", **how)
    assert others == LOAD
    return asked


def pages(timeframe: str, start: int, end: int) -> int:
    return -(-(end - start) // (PAGE * Timeframe.parse(timeframe).typical_ms))


SPOT_CASES = [
    pytest.param("BTC/USDT", "1m", "2019-05-14T20:00", "2019-05-15T21:00", id="outage"),
    pytest.param("BTC/USDT", "1m", "2019-05-15T01:00", "2019-05-15T14:00", id="outage-unprobed"),
    pytest.param("REP/USDT", "1m", "2021-03-01", "2021-03-02", id="minutes-without-trades"),
    pytest.param("ONDO/USDT", "1m", "2025-01-29", "2025-02-01", id="1m-listing"),
    pytest.param("ONDO/USDT", "1h", "2024-06-01", "2025-06-16", id="1h-listing"),
    pytest.param("BTC/USDT", "1d", "2016-01-01", "2025-06-16", id="1d-listing"),
    pytest.param("VEN/BTC", "1h", "2018-07-01", "2018-09-01", id="delisted"),
    pytest.param("ETH/USDT", "1m", "2025-06-10T00:00:30", "2025-06-10T00:59:30", id="unaligned"),
    pytest.param("ETH/USDT", "1m", "2025-06-14", "2025-06-16", id="to-the-last-closed"),
    pytest.param("SOL/EUR", "6h", "2025-01-01", "2025-03-17", id="one-whole-page"),
]


@pytest.mark.parametrize(("symbol", "timeframe", "start", "end"), SPOT_CASES)
def test_spot_equals_the_truth(
    serve: Serve, symbol: str, timeframe: str, start: str, end: str
) -> None:
    """Spot candles come bit for bit, within a page each, a second look, and the search."""
    asked = ask(
        serve("coinbase"),
        symbol,
        timeframe,
        truth(symbol, timeframe, start, end),
        start=start,
        end=end,
    )
    # Three each: a page, and two more that must pass over what it leaves out.
    whole = pages(timeframe, ms(start), min(ms(end), NOON))
    assert asked <= 3 * whole + (SEARCH if whole >= 4 else 0)


def test_a_range_without_gaps_costs_one_request_a_page(serve: Serve) -> None:
    """Windows of 300 candles are asked for, and none of them twice."""
    start, end = ms("2025-06-10"), ms("2025-06-10T15:00")
    expected = truth("BTC/USDT", "1m", start, end)
    assert len(expected) == 3 * PAGE
    assert ask(serve("coinbase"), "BTC/USDT", "1m", expected, start=start, end=end) == 3


@pytest.mark.parametrize(
    ("timeframe", "start", "end"),
    [
        ("1m", ms("2025-06-14T20:00:10"), NOON),
        ("1h", ms("2019-09-01"), ms("2019-12-01")),  # over its listing
        ("1d", ms("2018-01-01"), NOON),
    ],
)
def test_swap_volumes_are_in_base_units(serve: Serve, timeframe: str, start: int, end: int) -> None:
    """Contracts of a perpetual-style future come as base units: contracts times their size."""
    expected = in_contracts(truth(SWAP, timeframe, start, end), LOT)
    world = serve("coinbase")
    ask(world, SWAP, timeframe, expected, start=start, end=end, market_type="swap")
    first = next(r for r in world.sent() if r.path.endswith("/candles"))
    assert first.path.split("/")[-2] == "BTC-20DEC30-CDE"


@pytest.mark.parametrize(
    ("timeframe", "start", "end"),
    [
        ("1m", LATE - 7 * HOUR, LATE),
        ("1h", ms("2026-06-01"), LATE),  # over its listing
        ("1d", ms("2026-01-01"), LATE),
    ],
)
def test_dated_contracts_equal_the_truth(
    serve: Serve, timeframe: str, start: int, end: int
) -> None:
    """Dated futures come from before their listing on, in base units."""
    expected = in_contracts(truth(FUTURE, timeframe, start, end, LATE), LOT)
    assert len(expected)
    world = serve("coinbase", LATE)
    ask(world, FUTURE, timeframe, expected, start=start, end=end, market_type="future")


def test_an_outage_longer_than_a_page_on_a_swap(serve: Serve) -> None:
    """Eighteen hours without candles are two empty answers a page, and then known."""
    start, end = ms("2026-03-14T20:00"), ms("2026-03-15T20:00")
    expected = in_contracts(truth(SWAP, "1m", start, end, LATE), LOT)
    world = serve("coinbase", LATE)
    ask(world, SWAP, "1m", expected, start=start, end=end, market_type="swap")


def test_unknown_symbols_and_expired_contracts_fail_by_name(serve: Serve) -> None:
    """A name that is not listed fails with its neighbours, the others come."""
    world = serve("coinbase", LATE)
    asked = world.ask(["BTC/USDT", "BTC/USD"], "1h", "2026-10-10", "2026-10-11", warns="BTC/USD")
    assert len(asked["BTC/USDT"]) == 24
    assert isinstance(asked.result.failures["BTC/USD"], UnknownSymbolError)
    expired = "BTC/USDT:USDT-260925"
    with pytest.raises(UnknownSymbolError):
        world.ask(expired, "1h", "2026-09-10", "2026-09-11", market_type="future")


def test_ten_requests_a_second_are_used_and_none_is_refused(serve: Serve) -> None:
    """With the limiter on the exchange's own limit is kept."""
    world = serve("coinbase", limited=True)
    start, end = ms("2025-06-10"), ms("2025-06-10T15:00")
    expected = truth("BTC/USDT", "1m", start, end)
    ask(world, "BTC/USDT", "1m", expected, start=start, end=end)
    assert {request.status for request in world.sent()} == {200}


@pytest.mark.parametrize("market_type", ["spot", "swap", "future"])
def test_markets_and_volumes(serve: Serve, market_type: str) -> None:
    """Products are read with their volumes of 24 hours in quote units."""
    world, kind = serve("coinbase", LATE), MarketType.parse(market_type)
    markets, volumes = markets_and_volumes("coinbase", kind, world.home.cache, world.config)
    listed = {one.symbol for one in MARKET.listings(kind) if one.known_at(LATE)}
    trading = {one.symbol for one in MARKET.listings(kind) if one.trading_at(LATE)}
    assert {market.symbol for market in markets if market.active} == trading
    assert {market.symbol for market in markets} == (listed if kind == "spot" else trading)
    symbol = {"spot": "ETH/USDT", "swap": SWAP, "future": FUTURE}[market_type]
    assert volumes[symbol] == pytest.approx(MARKET.ticker(symbol, LATE).quote_volume)


@pytest.mark.parametrize(
    ("product", "query", "status", "words"),
    [
        ("NOPE-USDT", "start=0&end=60&granularity=ONE_MINUTE", 404, "valid product_id"),
        ("BTC-USDT", "start=0&end=60&granularity=1m", 400, "granularity argument"),
        ("BTC-USDT", "start=0&end=21000&granularity=ONE_MINUTE", 400, "less than 350"),
    ],
)
def test_refusals_are_worded_as_coinbase_words_them(
    serve: Serve, product: str, query: str, status: int, words: str
) -> None:
    """Unknown products, bad granularities and windows too large are refused, not cut."""
    url = f"{serve('coinbase').server.url}/api/v3/brokerage/market/products/{product}/candles"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}?{query}")
    with refused.value as answer:
        assert answer.status == status
        assert words in json.load(answer)["message"]


def test_candles_come_newest_first_and_with_both_bounds(serve: Serve) -> None:
    """The server's rows descend, and a window's start and end both count."""
    start = ms("2025-06-10") // 1000
    url = f"{serve('coinbase').server.url}/api/v3/brokerage/market/products/BTC-USDT/candles"
    query = f"start={start}&end={start + 120}&granularity=ONE_MINUTE"
    with urllib.request.urlopen(f"{url}?{query}") as answer:
        candles = json.load(answer)["candles"]
    assert [int(one["start"]) - start for one in candles] == [120, 60, 0]


def test_the_forming_candle_is_handed_out(serve: Serve) -> None:
    """A candle that is not closed comes when it is asked for and is not stored."""
    world = serve("coinbase")
    asked = world.ask("BTC/USDT", "1h", NOON - DAY, include_forming=True)
    assert asked.result.forming["BTC/USDT"].open_time.tolist() == [ms("2025-06-15T12:00")]
    stored = world.stored("BTC/USDT", "1h", "spot").candles
    assert stored.open_time[-1] == ms("2025-06-15T11:00")
