"""KuCoin's futures, certified: ccxt's own class against a server that speaks their dialect."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from backtester.data.candles import Candles
from backtester.data.errors import UnknownMarketTypeError, UnknownSymbolError, UnknownTimeframeError
from backtester.data.fetching.online import markets_and_volumes
from backtester.data.model import MarketType, Timeframe
from tests.e2e.dialects_support import Serve, ask_twice, in_contracts, serve
from tests.support.world import DAY, HOUR, MARKET, NOON, World, ms, truth

__all__ = ["serve"]

PAGE = 499
LOAD = 3
"""Requests before the first candle: the clock, currencies, contracts."""
SEARCH = 8
"""Most requests to find an inception: the contract's opening date is stated."""
LATE = ms("2026-10-15T12:34:56")
"""When the market has dated contracts."""
SWAP, FUTURE = "BTC/USDT:USDT", "BTC/USDT:USDT-261225"
LOT = 0.001
"""Base units in a contract of both."""


def ask(world: World, symbol: str, timeframe: str, start: int, end: int, **how: Any) -> int:
    """Ask cold and warm for the truth in base units, and count the requests for candles."""
    expected = expected_of(symbol, timeframe, start, end, world.clock())
    assert len(expected)
    asked, others = ask_twice(
        world, symbol, timeframe, expected, path="/kline/query", start=start, end=end, **how
    )
    assert others == LOAD
    return asked


def expected_of(symbol: str, timeframe: str, start: int, end: int, now_ms: int) -> Candles:
    return in_contracts(truth(symbol, timeframe, start, end, now_ms), LOT)


CASES = [
    pytest.param("swap", SWAP, "1m", NOON - DAY + 30_000, NOON, NOON, id="unaligned"),
    pytest.param("swap", SWAP, "1m", NOON - HOUR, NOON - 30_000, NOON, id="small"),
    pytest.param(
        "swap", SWAP, "1m", ms("2026-03-14T12:00"), ms("2026-03-15T23:00"), LATE, id="outage"
    ),
    pytest.param("swap", SWAP, "1m", ms("2019-09-24"), ms("2019-09-27"), NOON, id="1m-listing"),
    pytest.param("swap", SWAP, "1h", ms("2019-01-01"), ms("2020-01-01"), NOON, id="1h-listing"),
    pytest.param("swap", SWAP, "1d", ms("2015-01-01"), NOON, NOON, id="1d-listing"),
    pytest.param("future", FUTURE, "1m", LATE - 20 * HOUR, LATE, LATE, id="dated-minutes"),
    pytest.param("future", FUTURE, "1h", ms("2026-05-01"), LATE, LATE, id="dated-hours"),
    pytest.param("future", FUTURE, "1d", ms("2026-05-01"), LATE, LATE, id="dated-days"),
]


@pytest.mark.parametrize(("market_type", "symbol", "timeframe", "start", "end", "now"), CASES)
def test_contracts_equal_the_truth_in_base_units(
    serve: Serve, market_type: str, symbol: str, timeframe: str, start: int, end: int, now: int
) -> None:
    """Candles come bit for bit, and their volumes are contracts times the contract's size."""
    world = serve("kucoinfutures", now)
    asked = ask(world, symbol, timeframe, start, end, market_type=market_type)
    # Four each: a page, a second look at what it leaves out, and one more at either end of that.
    whole = -(-(end - start) // (PAGE * Timeframe.parse(timeframe).typical_ms))
    assert asked <= 4 * whole + (SEARCH if whole >= 4 else 0)


def test_a_range_without_gaps_costs_one_request_a_page(serve: Serve) -> None:
    """Windows of 499 candles are asked for, and none of them twice."""
    start, world = ms("2025-06-10"), serve("kucoinfutures")
    assert ask(world, SWAP, "1m", start, start + 3 * PAGE * 60_000, market_type="swap") == 3


@pytest.mark.parametrize("timeframe", ["3m", "6h"])
def test_timeframes_that_only_spot_has_are_refused(serve: Serve, timeframe: str) -> None:
    """What ccxt's class names and the futures lack is refused before anything is asked."""
    world = serve("kucoinfutures")
    with pytest.raises(UnknownTimeframeError, match="it has 1m, 5m"):
        world.ask(SWAP, timeframe, "2024-01-01", "2025-01-01", market_type="swap")
    assert world.sent() == []


def test_it_has_no_spot(serve: Serve) -> None:
    """Spot is the other id's business."""
    with pytest.raises(UnknownMarketTypeError):
        serve("kucoinfutures").ask("BTC/USDT", "1h", "2025-06-01")


def test_unknown_and_delivered_contracts_fail_by_name(serve: Serve) -> None:
    """A contract that is over vanishes from the list, and the error names it."""
    world = serve("kucoinfutures", LATE)
    for symbol in ("BTC/USDT:USDT-260925", "NOPE/USDT:USDT-261225"):
        with pytest.raises(UnknownSymbolError, match=symbol):
            world.ask(symbol, "1h", "2026-09-10", "2026-09-11", market_type="future")


def test_the_pool_is_not_overdrawn(serve: Serve) -> None:
    """With the limiter on nothing is refused."""
    world = serve("kucoinfutures", limited=True)
    ask(world, SWAP, "1m", ms("2025-06-10"), ms("2025-06-12"), market_type="swap")
    assert {request.status for request in world.sent()} == {200}


@pytest.mark.parametrize("market_type", ["swap", "future"])
def test_markets_and_volumes(serve: Serve, market_type: str) -> None:
    """What trades is listed, with its listing date and its volume in quote units."""
    world, kind = serve("kucoinfutures", LATE), MarketType.parse(market_type)
    markets, volumes = markets_and_volumes("kucoinfutures", kind, world.home.cache, world.config)
    trading = {one.symbol: one for one in MARKET.listings(kind) if one.trading_at(LATE)}
    assert {market.symbol: market.created_ms for market in markets} == {
        symbol: one.listed_ms for symbol, one in trading.items()
    }
    assert {market.contract_size for market in markets} >= {LOT}
    symbol = SWAP if market_type == "swap" else FUTURE
    assert volumes[symbol] == pytest.approx(MARKET.ticker(symbol, LATE).quote_volume)


def test_of_a_large_window_the_newest_candles_come_oldest_first(serve: Serve) -> None:
    """A window beyond 500 candles loses its beginning; its end counts."""
    end = ms("2025-06-10")
    query = f"symbol=XBTUSDTM&granularity=1&from={end - 900 * 60_000}&to={end}"
    url = f"{serve('kucoinfutures').server.url}/futures/api/v1/kline/query?{query}"
    with urllib.request.urlopen(url) as answer:
        rows = json.load(answer)["data"]
    assert [row[0] for row in rows] == list(range(end - 499 * 60_000, end + 1, 60_000))
    assert all(isinstance(row[5], int) for row in rows)


def test_the_forming_candle_is_handed_out(serve: Serve) -> None:
    """A candle that is not closed comes when it is asked for and is not stored."""
    world = serve("kucoinfutures")
    asked = world.ask(SWAP, "1h", NOON - DAY, include_forming=True, market_type="swap")
    assert asked.result.forming[SWAP].open_time.tolist() == [ms("2025-06-15T12:00")]
    stored = world.stored(SWAP, "1h", "swap").candles
    assert stored.open_time[-1] == ms("2025-06-15T11:00")
