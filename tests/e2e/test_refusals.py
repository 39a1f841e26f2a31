"""Refused by the exchange: how many calls that costs, who waits, who stops, and for how long."""

from __future__ import annotations

from itertools import groupby
from urllib.request import urlopen

import pytest

from backtester.data.errors import AccessDeniedError, BannedError
from backtester.data.fetching.fetcher import IN_FLIGHT
from backtester.data.sandbox import Fault
from backtester.data.sandbox.weights import WeightBook
from tests.e2e.dialects_support import Serve, serve
from tests.support import processes
from tests.support.world import MARKET, NOON, World, same, truth

__all__ = ["serve"]

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
START, END, DAYS = "2025-05-01", "2025-05-16", 15

_FETCH = """
from dataclasses import replace
from backtester.data.fetching import capabilities, exchange
from backtester.data.fetching.archives.plan import Source
from backtester.data.fetching.budget import Limit
exchange.stated_limits = lambda _answer: ()
for place, row in capabilities._TABLE.items():
    capabilities._TABLE[place] = replace(row, limits=(Limit({believed}, {window_s}),))
found = ask([{symbol!r}], "1m", {start!r}, {end!r}, source=Source.API)
print(len(found.series[{symbol!r}].candles))
"""


def fetch_at_once(world: World, believed: int, window_s: float) -> None:
    """Let a process per symbol fetch its pages, all at the same time, and check what they got."""
    running = [
        processes.start(
            world,
            _FETCH.format(
                symbol=symbol, start=START, end=END, believed=believed, window_s=window_s
            ),
        )
        for symbol in SYMBOLS
    ]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert int(out) == DAYS * 24 * 60
    world.new_process()
    for symbol in SYMBOLS:
        assert same(world.stored(symbol, "1m").candles, truth(symbol, "1m", START, END))


def refused(world: World) -> list[int]:
    """Give how many calls were refused in a row, for each time that this happened."""
    runs = groupby(request.status == 429 for request in world.sent())
    return [len(list(run)) for was_refused, run in runs if was_refused]


def test_a_limit_lower_than_believed_costs_one_call_a_window(world: World) -> None:
    """Only what is under way at the first 429 is refused with it; then one call of all processes.

    The exchange lets a hundredth through of what the client believes, and three processes send
    with all their coroutines.
    """
    world.server._weights = WeightBook(window_s=1.0, refusals_before_ban=1000)
    world.server._dialects[0]._limits["spot"] = 30
    fetch_at_once(world, believed=3000, window_s=1.0)
    first, *later = refused(world)
    assert 1 <= first <= len(SYMBOLS) * IN_FLIGHT
    assert len(later) >= 2, "the limit was met again"
    assert set(later) == {1}


@pytest.mark.parametrize("others", [160, 200], ids=["much", "all"])
def test_what_others_use_of_the_same_address_is_known_before_it_costs_a_call(
    world: World, others: int
) -> None:
    """The exchange's count, which another program has run up, is heeded from its first answer."""
    world.server._weights = WeightBook(window_s=2.0, refusals_before_ban=1000)
    world.server._dialects[0]._limits["spot"] = 200
    query = "symbol=BTCUSDT&interval=1m&limit=1000"
    for _ in range(others // 2):
        urlopen(f"{world.server.url}/api/v3/klines?{query}").close()
    fetch_at_once(world, believed=200, window_s=2.0)
    assert sum(refused(world)) <= len(SYMBOLS), "one call a process at most"


HARD = ("binance", "binanceusdm", "binancecoinm", "bybit", "kraken")
"""They say that they have shut us out."""
DENIED = ("gate", "mexc", "hyperliquid")
"""A 403 that says neither why nor until when: asked once by every run."""
DIALECT = {"binanceusdm": "binance"}


@pytest.mark.parametrize("exchange", [*HARD, *DENIED])
def test_a_ban_is_a_hard_stop(serve: Serve, exchange: str) -> None:
    """What each exchange says to those it has shut out stops everything at the first call.

    The others (OKX, Bitget, Coinbase, KuCoin) go on refusing with 429, no more.
    """
    world = serve(DIALECT.get(exchange, exchange), exchange=exchange)
    market_type = "swap" if exchange in {"binanceusdm", "binancecoinm"} else "spot"
    symbol = {"spot": "BTC/USDT", "swap": "BTC/USDT:USDT"}[market_type]
    symbol = "BTC/USD:BTC" if exchange == "binancecoinm" else symbol
    symbol = "BTC/USDC" if exchange == "hyperliquid" else symbol
    question = (symbol, "1h", "2025-06-10", "2025-06-11")
    world.ask(symbol, "1h", "2025-06-12", "2025-06-13", market_type=market_type)
    rule = world.faults.add(Fault.HTTP_418, retry_after_s=1)
    before = len(world.sent())
    expected = BannedError if exchange in HARD else AccessDeniedError
    with pytest.raises(expected) as caught:
        world.ask(*question, market_type=market_type)
    assert len(world.sent(before)) == 1
    world.faults.remove(rule)
    world.new_process()
    if exchange in DENIED:
        assert len(world.ask(*question, market_type=market_type)[symbol]) == 24
        return
    assert "until 20" in str(caught.value)
    with pytest.raises(BannedError, match="until 20"):
        world.ask(*question, market_type=market_type)
    assert len(world.sent(before)) == 1, "a later run has asked before the ban's end"


def test_an_address_that_is_refused_does_not_knock_for_every_symbol(world: World) -> None:
    """After a 403 or 451 only what is under way comes back refused, whatever is still to ask."""
    symbols = [one.symbol for one in MARKET.listings("spot") if one.trading_at(NOON)][:60]
    world.faults.add(Fault.HTTP_451, match="klines")
    sent = len(world.sent())
    with pytest.raises(AccessDeniedError, match="60 symbols"):
        world.ask(symbols, "1h", "2025-06-01", "2025-06-02")
    asked = [request for request in world.sent(sent) if request.path.endswith("klines")]
    assert len(asked) <= IN_FLIGHT
