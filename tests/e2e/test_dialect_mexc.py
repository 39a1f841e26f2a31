"""MEXC through ccxt's own class: spot and perpetuals equal the market's truth."""

from __future__ import annotations

import math

import pytest

from backtester.data.candles import Candles
from backtester.data.errors import UnknownMarketTypeError, UnknownSymbolError, UnknownTimeframeError
from backtester.data.fetching.online import markets_and_volumes
from backtester.data.model import MarketType, Served
from tests.e2e.dialects_support import Serve, in_contracts, serve, spans_of
from tests.support.world import DAY, HOUR, MARKET, MINUTE, NOON, World, ms, same, truth

__all__ = ["serve"]

PAGE = {"spot": 500, "swap": 2000}
LOAD = 3
"""Requests before the first candle: the clock, the symbols, the contracts."""
STEP = {"1m": MINUTE, "1h": HOUR, "1d": DAY, "1M": 31 * DAY}
CONTRACT = {
    "BTC/USDT:USDT": 0.0001,
    "ETH/USDT:USDT": 0.0001,
    "DOGE/USDT:USDT": 0.1,
    "OP/USDT:USDT": 0.01,
}
"""Base units in a contract."""
SEARCH = 45
"""Requests that may find a first candle: MEXC does not say when a market began, so a dozen pages
of days since 2009, then hours and minutes, forward and back."""

CASES = [
    pytest.param("spot", "1m", "BTC/USDT", "2019-05-14T20:00", "2019-05-15T21:00", id="outage"),
    pytest.param("spot", "1m", "BAT/USDT", "2024-03-01", "2024-03-02", id="silent-minutes"),
    pytest.param("spot", "1m", "BTC/USDT", NOON - 20 * MINUTE, NOON - 5 * MINUTE, id="small"),
    pytest.param("spot", "1h", "ONDO/USDT", "2024-10-01", None, id="before-listing"),
    pytest.param("spot", "1h", "BTC/USDT", "2017-08-01T00:30", "2017-12-31", id="first-hours"),
    pytest.param("spot", "1d", "BTC/USDT", "2009-01-01", None, id="days"),
    pytest.param("spot", "1M", "ETH/USDT", "2015-01-15", None, id="months"),
    pytest.param("swap", "1m", "DOGE/USDT:USDT", "2025-06-14T00:00:30", None, id="swap-minutes"),
    pytest.param("swap", "1m", "BTC/USDT:USDT", "2020-02-19", "2020-02-20", id="swap-outage"),
    pytest.param("swap", "1h", "OP/USDT:USDT", "2022-01-01", "2022-09-01", id="swap-listing"),
    pytest.param("swap", "1h", "ETH/USDT:USDT", "2024-06-01", None, id="swap-hours"),
    pytest.param("swap", "1d", "BTC/USDT:USDT", "2009-01-01", None, id="swap-days"),
    pytest.param("swap", "1M", "ETH/USDT:USDT", "2015-01-15", None, id="swap-months"),
]


def candle_requests(world: World, since: int = 0) -> int:
    return sum("/kline" in request.path for request in world.sent(since))


def served(symbol: str, timeframe: str, start: str | int, end: str | int) -> Candles:
    """Give the truth as MEXC's contracts count it."""
    found = truth(symbol, timeframe, start, end)
    return in_contracts(found, CONTRACT[symbol]) if symbol in CONTRACT else found


@pytest.mark.parametrize(("market_type", "timeframe", "symbol", "start", "end"), CASES)
def test_equals_the_truth(
    serve: Serve,
    market_type: str,
    timeframe: str,
    symbol: str,
    start: str | int,
    end: str | int | None,
) -> None:
    """Whatever is asked comes bit for bit in base units, and the same again sends nothing."""
    world = serve("mexc")

    asked = world.ask(symbol, timeframe, start, end, market_type=market_type)

    expected = served(symbol, timeframe, start, end or NOON)
    assert len(expected)
    assert same(asked[symbol], expected)
    # A page; a second look at what it lacks, then at the runs at either end of that, twice.
    wanted = asked.result.interval
    assert wanted is not None
    pages = math.ceil((wanted.end - wanted.start) / STEP[timeframe] / PAGE[market_type])
    assert candle_requests(world) <= 6 * pages + (SEARCH if pages >= 4 else 0)
    assert len(asked.requests) == candle_requests(world) + LOAD
    assert {request.status for request in asked.requests} == {200}
    again = world.ask(symbol, timeframe, start, end, market_type=market_type)
    assert again.requests == []
    assert same(again[symbol], expected)


@pytest.mark.parametrize(
    ("symbol", "size"), [("BTC/USDT", 500), ("BTC/USDT:USDT", 2000)], ids=["spot", "swap"]
)
def test_long_outage_is_passed_over(serve: Serve, symbol: str, size: int) -> None:
    """Pages before and after an outage of 18 hours come, though one between them may be empty."""
    market_type = "spot" if size == 500 else "swap"
    now = ms("2026-03-18T00:00:10")
    world = serve("mexc", now)

    asked = world.ask(symbol, "1m", "2026-03-14T12:00", "2026-03-17", market_type=market_type)

    expected = truth(symbol, "1m", "2026-03-14T12:00", "2026-03-17", now)
    if symbol in CONTRACT:
        expected = in_contracts(expected, CONTRACT[symbol])
    assert same(asked[symbol], expected)


@pytest.mark.parametrize(
    ("market_type", "symbol"), [("spot", "BTC/USDT"), ("swap", "BTC/USDT:USDT")]
)
def test_whole_pages_cost_a_request_each(serve: Serve, market_type: str, symbol: str) -> None:
    """Three pages with nothing missing take three requests, each with an end of its own."""
    world = serve("mexc")
    start = NOON // MINUTE * MINUTE - 3 * PAGE[market_type] * MINUTE

    asked = world.ask(symbol, "1m", start, market_type=market_type)

    assert len(asked[symbol]) == 3 * PAGE[market_type]
    pages = [one.params for one in asked.requests if "/kline" in one.path]
    assert len(pages) == 3
    assert all({"endTime", "end"} & set(page) for page in pages)


def test_what_lies_before_the_listing_is_told_as_such(serve: Serve) -> None:
    """The first candle is searched for, and all before counts as not listed."""
    world = serve("mexc")

    world.ask("OP/USDT:USDT", "1m", "2022-05-20", "2022-06-03", market_type="swap")

    first = MARKET.listing("OP/USDT:USDT").listed_ms
    spans = spans_of(world, "OP/USDT:USDT", "1m", "swap")
    assert spans == [
        (0, first, Served.NOT_LISTED),
        (first, ms("2022-06-03"), Served.MARKET),
    ]
    assert candle_requests(world) <= SEARCH


def test_unknown_names_are_refused(serve: Serve) -> None:
    """Names that mean nothing, and those delisted, are refused before any candle is asked for."""
    world = serve("mexc")

    for name in ("NOPE/USDT", "WAVES/USDT"):
        with pytest.raises(UnknownSymbolError, match=name):
            world.ask(name)
    with pytest.raises(UnknownSymbolError, match="FTT/USDT:USDT"):
        world.ask("FTT/USDT:USDT", market_type="swap")
    for timeframe in ("3m", "8h"):  # ccxt names eight hours, though only contracts have them
        with pytest.raises(UnknownTimeframeError, match="1m, 5m"):
            world.ask("BTC/USDT", timeframe)
    with pytest.raises(UnknownMarketTypeError):
        world.ask("BTC/USDT:USDT-261225", market_type="future")

    assert candle_requests(world) == 0


def test_limit_is_obeyed(serve: Serve) -> None:
    """At the exchange's own limit nothing is refused."""
    world = serve("mexc", limited=True)

    asked = world.ask("BTC/USDT", "1m", "2025-06-10")

    assert same(asked["BTC/USDT"], truth("BTC/USDT", "1m", "2025-06-10", NOON))
    assert {request.status for request in asked.requests} == {200}


@pytest.mark.parametrize("market_type", ["spot", "swap"])
def test_markets_and_volumes(serve: Serve, market_type: str) -> None:
    """Contract sizes and the 24 h quote volumes are read from MEXC's own shapes."""
    world = serve("mexc")
    kind = MarketType(market_type)

    markets, volumes = markets_and_volumes("mexc", kind, world.home.cache, world.config)

    found = {market.symbol: market for market in markets}
    trading = {one.symbol for one in MARKET.listings(kind) if one.trading_at(NOON)}
    assert set(found) == set(volumes) == trading
    for symbol in trading:
        quote_volume = MARKET.ticker(symbol, NOON).quote_volume
        assert volumes[symbol] == pytest.approx(quote_volume, rel=1e-6)
        assert found[symbol].contract_size == CONTRACT.get(symbol, found[symbol].contract_size)
