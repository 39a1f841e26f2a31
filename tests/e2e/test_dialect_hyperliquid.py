"""Hyperliquid through ccxt's own class: spot and perpetuals equal the market's truth."""

from __future__ import annotations

from typing import Any

import pytest

from backtester.data.candles import Candles
from backtester.data.errors import UnknownMarketTypeError, UnknownSymbolError, UnknownTimeframeError
from backtester.data.events import Event, FetchPlanned
from backtester.data.fetching.budget import Budget, Ticket
from backtester.data.fetching.online import markets_and_volumes
from backtester.data.model import Interval, MarketType, Served, Timeframe
from tests.e2e.dialects_support import Serve, reach, serve, spans_of
from tests.support.world import DAY, HOUR, MARKET, MINUTE, NOON, World, ms, same, truth

__all__ = ["serve"]

DEPTH = 5000
"""The newest candles, the forming one included: all there is, and all in one answer."""
LOAD = {"spot": 3, "swap": 4}
"""Requests before the first candle: the clock, the tokens, the pairs; or the perpetuals and the
list of other builders' exchanges."""
MINUTES = Timeframe.parse("1m")
DOLLARS = {
    "BTC/USDC:USDC": "BTC/USDT:USDT",
    "ETH/USDC:USDC": "ETH/USDT:USDT",
    "OP/USDC:USDC": "OP/USDT:USDT",
    "HYPE/USDC:USDC": "HYPE/USDT:USDT",
    "LUNA/USDC:USDC": "LUNA/USDT:USDT",
}
"""The server's perpetuals trade like these."""

CASES = [
    pytest.param("spot", "1m", "BTC/USDC", "2026-03-14T12:00", "2026-03-16", id="outage"),
    pytest.param("spot", "1m", "BAT/USDT", "2025-06-13", "2025-06-15T12:00:30", id="silences"),
    pytest.param("spot", "1m", "ETH/USDT", NOON - 20 * MINUTE, NOON - 5 * MINUTE, id="small"),
    pytest.param("spot", "1h", "SOL/USDC", "2025-03-01T00:30", None, id="hours"),
    pytest.param("spot", "1d", "BTC/USDT", "2012-01-01", None, id="days"),
    pytest.param("spot", "3d", "ETH/USDT", "2015-01-01", None, id="three-days"),
    pytest.param("spot", "1M", "ETH/USDT", "2015-01-15", None, id="months"),
    pytest.param("swap", "1m", "BTC/USDC:USDC", "2025-06-14T00:00:30", None, id="swap-minutes"),
    pytest.param("swap", "1m", "BTC/USDC:USDC", "2026-03-14T12:00", "2026-03-16", id="swap-outage"),
    pytest.param("swap", "1h", "HYPE/USDC:USDC", "2025-05-01", None, id="swap-listing"),
    pytest.param("swap", "1d", "BTC/USDC:USDC", "2012-01-01", None, id="swap-days"),
    pytest.param("swap", "1d", "LUNA/USDC:USDC", "2020-06-01", "2023-01-01", id="swap-delisted"),
    pytest.param("swap", "1M", "ETH/USDC:USDC", "2015-01-15", None, id="swap-months"),
]


def snapshots(world: World, since: int = 0) -> list[Any]:
    return [one for one in world.sent(since) if one.params.get("type") == "candleSnapshot"]


def is_page(call: Any) -> bool:
    """Tell a request for candles from all the others to the same path."""
    return bool(call.params.get("type") == "candleSnapshot")


def served(
    symbol: str, timeframe: str, start: str | int, end: str | int, now_ms: int = NOON
) -> Candles:
    return truth(DOLLARS.get(symbol, symbol), timeframe, start, end, now_ms)


@pytest.mark.parametrize(("market_type", "timeframe", "symbol", "start", "end"), CASES)
def test_equals_the_truth(
    serve: Serve,
    market_type: str,
    timeframe: str,
    symbol: str,
    start: str | int,
    end: str | int | None,
) -> None:
    """Whatever is asked comes bit for bit, and the same question again sends nothing."""
    now = NOON if not isinstance(end, str) else max(NOON, ms(end) + HOUR)
    world = serve("hyperliquid", now)

    asked = world.ask(symbol, timeframe, start, end, market_type=market_type)

    expected = served(symbol, timeframe, start, end or now, now)
    assert len(expected)
    assert same(asked[symbol], expected)
    # One page; a second look at what it lacks, then at the runs at either end of that, twice.
    assert len(snapshots(world)) <= 6
    assert len(asked.requests) == len(snapshots(world)) + LOAD[market_type]
    again = world.ask(symbol, timeframe, start, end, market_type=market_type)
    assert again.requests == []
    assert same(again[symbol], expected)


@pytest.mark.parametrize(
    ("market_type", "symbol"), [("spot", "BTC/USDC"), ("swap", "BTC/USDC:USDC")]
)
@pytest.mark.parametrize("timeframe", ["1m", "1h"])
def test_what_is_older_than_it_reaches_is_told(
    serve: Serve, timeframe: str, market_type: str, symbol: str
) -> None:
    """All that the API has comes in one request; older is beyond its depth and no listing date."""
    world = serve("hyperliquid")
    oldest = reach(timeframe, DEPTH, NOON)
    date = {"1m": "2025-06-12 01:15", "1h": "2024-11-19 05:00"}[timeframe]

    asked = world.ask(
        symbol,
        timeframe,
        "2023-01-01",
        market_type=market_type,
        warns=f"reaches back to {date}",
    )

    assert same(asked[symbol], served(symbol, timeframe, oldest, NOON))
    assert len(asked[symbol]) == DEPTH - 1
    assert len(snapshots(world)) == 1
    assert world.home.cache.get_inception("hyperliquid", market_type, symbol) is None
    beyond, market = spans_of(world, symbol, timeframe, market_type)
    assert beyond == (ms("2023-01-01"), oldest, Served.BEYOND_DEPTH)
    assert market[0] == oldest
    assert market[2] is Served.MARKET


def test_what_is_beyond_its_reach_altogether_is_told(serve: Serve) -> None:
    """Of a window older than the API is sure to reach two answers have to show nothing."""
    world = serve("hyperliquid")

    asked = world.ask("BTC/USDC", "1m", "2024-01-01", "2024-01-02", warns="does not reach back to")

    assert len(asked["BTC/USDC"]) == 0
    assert len(snapshots(world)) == 2
    assert world.ask("BTC/USDC", "1m", "2024-01-01", "2024-01-02", warns="beyond").requests == []


@pytest.mark.parametrize(
    ("market_type", "symbol", "start", "end"),
    [
        pytest.param("spot", "BAT/USDT", "2025-06-01", None, id="silences"),
        pytest.param("swap", "LUNA/USDC:USDC", "2022-05-01", "2022-06-01", id="delisted"),
        pytest.param("swap", "LUNA/USDC:USDC", "2022-05-01", "2025-06-15", id="delisted-long-ago"),
    ],
)
def test_its_reach_is_counted_in_candles(
    serve: Serve, market_type: str, symbol: str, start: str, end: str | None
) -> None:
    """Where minutes lack their candle the newest of them reach further back, and come as well."""
    world = serve("hyperliquid")

    asked = world.ask(symbol, "1m", start, end, market_type=market_type, warns="reaches back to")

    forming = MARKET.bars(DOLLARS.get(symbol, symbol), MINUTES, Interval(NOON - MINUTE, NOON), NOON)
    held = served(symbol, "1m", "2022-01-01", NOON)
    first = int(held.open_time[-(DEPTH - len(forming.open_time))])
    assert first < reach("1m", DEPTH, NOON)
    assert same(asked[symbol], served(symbol, "1m", first, end or NOON))
    beyond, market = spans_of(world, symbol, "1m", market_type)[:2]
    assert beyond == (ms(start), first, Served.BEYOND_DEPTH)
    assert market[0] == first
    again = world.ask(symbol, "1m", start, end, market_type=market_type, warns="reaches back to")
    assert again.requests == []
    assert same(again[symbol], asked[symbol])


def test_what_sinks_below_its_reach_during_a_fetch_is_no_gap(serve: Serve) -> None:
    """Candles that the API lets go of between plan and request are told as beyond its depth."""
    world = serve("hyperliquid")

    def late(event: Event) -> None:
        if isinstance(event, FetchPlanned):
            world.clock.now_ms = NOON + 3 * MINUTE

    start = reach("1m", DEPTH, NOON)
    asked = world.ask("BTC/USDC", "1m", start, NOON, warns="reaches back to", on_event=late)

    sunk = start + 3 * MINUTE
    assert same(asked["BTC/USDC"], served("BTC/USDC", "1m", sunk, NOON))
    assert spans_of(world, "BTC/USDC", "1m")[0] == (start, sunk, Served.BEYOND_DEPTH)


def test_pages_weigh_by_their_rows(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget is charged what Hyperliquid charges: 20, and one more for every 60 candles."""
    charged = []
    acquire = Budget.acquire

    async def noting(budget: Budget, weight: int) -> Ticket:
        charged.append(weight)
        return await acquire(budget, weight)

    monkeypatch.setattr(Budget, "acquire", noting)
    world = serve("hyperliquid", limited=True)
    world.ask("BTC/USDC", "1m", "2023-01-01", warns="reaches back")
    world.ask("BTC/USDC", "1d", NOON - 40 * DAY)

    theirs = [request.weight for request in world.sent()]
    assert theirs == [2, 20, 20, 20 + DEPTH // 60, 20]  # clock, tokens, pairs, a page, a small one
    assert charged == [4, 20, 20, 104, 21]


def test_limit_is_obeyed(serve: Serve) -> None:
    """Ten full pages are nine tenths of a minute's weight, and none of them is refused."""
    world = serve("hyperliquid", limited=True)
    symbols = [
        f"{coin}/USDT" for coin in ("BTC", "ETH", "BNB", "LTC", "XRP", "ADA", "TRX", "LINK", "SOL")
    ]

    asked = world.ask(symbols, "1m", reach("1m", DEPTH, NOON) + HOUR)

    assert {request.status for request in asked.requests} == {200}
    for symbol in symbols:
        start = reach("1m", DEPTH, NOON) + HOUR
        assert same(asked[symbol], served(symbol, "1m", start, NOON))


def test_unknown_names_are_refused(serve: Serve) -> None:
    """Names that mean nothing are refused before any candle is asked for."""
    world = serve("hyperliquid")

    with pytest.raises(UnknownSymbolError, match="NOPE/USDC"):
        world.ask("NOPE/USDC")
    with pytest.raises(UnknownTimeframeError, match="1m, 3m"):
        world.ask("BTC/USDC", "6h")
    with pytest.raises(UnknownMarketTypeError):
        world.ask("BTC/USDC:USDC-261225", market_type="future")

    assert snapshots(world) == []


@pytest.mark.parametrize("market_type", ["spot", "swap"])
def test_markets_and_volumes(serve: Serve, market_type: str) -> None:
    """Listing and 24 h quote volumes are read from Hyperliquid's own shapes."""
    world = serve("hyperliquid")
    kind = MarketType(market_type)

    markets, volumes = markets_and_volumes("hyperliquid", kind, world.home.cache, world.config)

    found = {market.symbol: market for market in markets}
    sample = ["BTC/USDC", "PEPE/USDT"] if market_type == "spot" else list(DOLLARS)
    for symbol in sample:
        quote_volume = MARKET.ticker(DOLLARS.get(symbol, symbol), NOON).quote_volume
        assert volumes[symbol] == pytest.approx(quote_volume, rel=1e-6)
        assert found[symbol].active == (not symbol.startswith("LUNA"))
        assert found[symbol].contract_size == 1.0
