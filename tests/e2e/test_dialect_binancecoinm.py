"""Binance COIN-M through ccxt's own class: inverse contracts equal the market's truth."""

from __future__ import annotations

import math

import pytest

from backtester.data.cache_system.metadata_fetcher import MetadataFetcher
from backtester.data.fetching.online import markets_and_volumes
from backtester.data.model import MarketType, Served
from tests.e2e.dialects_support import Serve, serve, spans_of
from tests.support.world import DAY, HOUR, MARKET, MINUTE, NOON, World, ms, same, truth

__all__ = ["serve"]

PAGE = 499
LONGEST = 200 * DAY
"""Between `startTime` and `endTime`, by Binance."""
AUGUST = ms("2026-08-01T12:34:56")
"""Dated contracts are listed then."""
LINEAR = {
    "BTC/USD:BTC": "BTC/USDT:USDT",
    "ETH/USD:ETH": "ETH/USDT:USDT",
    "ZEC/USD:ZEC": "ZEC/USDT:USDT",
    "LUNA/USD:LUNA": "LUNA/USDT:USDT",
    "OP/USD:OP": "OP/USDT:USDT",
    "BTC/USD:BTC-261225": "BTC/USDT:USDT-261225",
}
"""The server's coin-margined contracts trade like these, in base units."""
STEP = {"1m": MINUTE, "1h": HOUR, "1d": DAY, "1w": 7 * DAY, "1M": 31 * DAY}
SEARCH = 30
"""Requests that may find a first candle: days, hours and minutes, each read forward from when the
contract was made, then back."""

CASES = [
    pytest.param("1m", "BTC/USD:BTC", "2020-02-19T00:00", "2020-02-20T00:00", id="outage"),
    pytest.param("1m", "BTC/USD:BTC", "2026-03-14T12:00", "2026-03-16T00:00", id="long-outage"),
    pytest.param("1m", "ZEC/USD:ZEC", "2024-03-01", "2024-03-02", id="minutes"),
    pytest.param("1m", "BTC/USD:BTC", "2025-06-15T12:00:30", "2025-06-15T12:20:30", id="small"),
    pytest.param("1m", "BTC/USD:BTC", "2019-09-25", "2019-09-26T00:00:01", id="first-minutes"),
    pytest.param("1h", "OP/USD:OP", "2022-01-01", "2022-09-01T00:17", id="before-listing"),
    pytest.param("1h", "BTC/USD:BTC", "2024-06-15T00:30", None, id="year-of-hours"),
    pytest.param("1d", "BTC/USD:BTC", "2009-01-01", None, id="days"),
    pytest.param("1w", "BTC/USD:BTC", "2019-01-01", None, id="weeks"),
    pytest.param("1M", "ETH/USD:ETH", "2019-01-15", None, id="months"),
    pytest.param("1h", "LUNA/USD:LUNA", "2022-04-01", "2022-07-01", id="delisted"),
]


def klines(world: World, since: int = 0) -> int:
    return sum(request.path == "/dapi/v1/klines" for request in world.sent(since))


def page_of(timeframe: str) -> int:
    return min(PAGE, LONGEST // STEP[timeframe])


@pytest.mark.parametrize(("timeframe", "symbol", "start", "end"), CASES)
def test_equals_the_truth(
    serve: Serve, timeframe: str, symbol: str, start: str, end: str | None
) -> None:
    """Whatever is asked comes bit for bit in base units, and the same again sends nothing."""
    now = max(NOON, ms(end or start) + HOUR)
    world = serve("binancecoinm", now)

    asked = world.ask(symbol, timeframe, start, end, market_type="swap")

    expected = truth(LINEAR[symbol], timeframe, start, end or now, now)
    assert len(expected)
    assert same(asked[symbol], expected)
    # A page each; what is missing in one, or a page of nothing, is asked for twice.
    wanted = asked.result.interval
    assert wanted is not None
    pages = math.ceil((wanted.end - wanted.start) / STEP[timeframe] / page_of(timeframe))
    assert klines(world) <= 2 * pages + 4 + SEARCH
    assert len(asked.requests) == klines(world) + 2  # the clock and the markets
    again = world.ask(symbol, timeframe, start, end, market_type="swap")
    assert again.requests == []
    assert same(again[symbol], expected)


@pytest.mark.parametrize("timeframe", ["1m", "1h", "1d"])
def test_dated_contracts_equal_the_truth(serve: Serve, timeframe: str) -> None:
    """A dated contract comes from before its listing to its last closed candle."""
    world = serve("binancecoinm", AUGUST)
    symbol = "BTC/USD:BTC-261225"
    start = "2026-07-30" if timeframe == "1m" else "2026-05-01"

    asked = world.ask(symbol, timeframe, start, market_type="future")

    assert same(asked[symbol], truth(LINEAR[symbol], timeframe, start, AUGUST, AUGUST))


def test_whole_pages_cost_a_request_each(serve: Serve) -> None:
    """Pages are of 499 candles and weigh 2: three in a row with nothing missing take three."""
    world = serve("binancecoinm")
    start = NOON // MINUTE * MINUTE - 3 * PAGE * MINUTE

    asked = world.ask("BTC/USD:BTC", "1m", start, market_type="swap")

    assert len(asked["BTC/USD:BTC"]) == 3 * PAGE
    pages = [one for one in asked.requests if one.path == "/dapi/v1/klines"]
    assert [(one.params["limit"], one.weight) for one in pages] == [(str(PAGE), 2)] * 3


def test_no_window_is_longer_than_allowed(serve: Serve) -> None:
    """Two hundred days are the most in one request, whatever the page could hold."""
    world = serve("binancecoinm")

    asked = world.ask("BTC/USD:BTC", "1d", "2019-01-01", market_type="swap")

    assert {one.status for one in asked.requests} == {200}
    assert all(
        int(page.end or 0) - int(page.start or 0) <= LONGEST for page in asked.pages if page.start
    )


def test_what_lies_before_the_listing_is_told_as_such(serve: Serve) -> None:
    """The first candle is searched for, and all before counts as not listed."""
    world = serve("binancecoinm")

    world.ask("OP/USD:OP", "1h", "2021-01-01", market_type="swap")

    first = MARKET.listing("OP/USDT:USDT").listed_ms
    spans = spans_of(world, "OP/USD:OP", "1h", "swap")
    assert spans == [
        (0, first, Served.NOT_LISTED),
        (first, NOON // HOUR * HOUR, Served.MARKET),
    ]


def test_markets_and_volumes(serve: Serve) -> None:
    """Contract sizes are dollars, and volumes are worth what was traded of the coin."""
    world = serve("binancecoinm")

    markets, volumes = markets_and_volumes(
        "binancecoinm", MarketType.SWAP, world.home.cache, world.config
    )

    found = {market.symbol: market for market in markets}
    assert found["BTC/USD:BTC"].contract_size == 100.0
    assert found["ETH/USD:ETH"].contract_size == 10.0
    assert found["BTC/USD:BTC"].linear is False
    for symbol in ("BTC/USD:BTC", "ETH/USD:ETH"):
        ticker = MARKET.ticker(LINEAR[symbol], NOON)
        assert volumes[symbol] == pytest.approx(ticker.volume * ticker.weighted_average, rel=1e-6)
    best = MetadataFetcher(world.home.cache).get_market_data(
        "binancecoinm", "USD", 1, market_type="swap", exchange_config=world.config
    )
    assert list(best) == [max(volumes, key=volumes.__getitem__)]
