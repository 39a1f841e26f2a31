"""What every certified exchange does alike, whatever its dialect, through ccxt's own class.

What one of them does in its own way (pages, depth, listings, weights) stands in its
`test_dialect_*` module.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from backtester.data.candles import Candles
from backtester.data.errors import RateLimitedError, UnknownSymbolError, UnknownTimeframeError
from backtester.data.fetching import faults
from backtester.data.fetching.capabilities import certified
from backtester.data.sandbox import Fault
from tests.e2e.dialects_support import BROKEN, Serve, in_contracts, kraken_truth, serve
from tests.support.world import DAY, HOUR, MINUTE, NOON, Asked, World, same, truth

__all__ = ["serve"]


def is_snapshot(call: Any) -> bool:
    """Tell Hyperliquid's requests for candles from all the others to the same path."""
    return bool(call.params.get("type") == "candleSnapshot")


@dataclass(frozen=True, slots=True)
class Case:
    """One market of an exchange."""

    exchange: str
    match: str | Callable[[Any], bool]
    """Which requests are for candles: a part of their path, or a predicate."""
    symbol: str = "BTC/USDT"
    market_type: str = "spot"
    trades_like: str = ""
    """The market's own name of the symbol, where the exchange calls it otherwise."""
    lot: float = 0.0
    """Base units in a contract, where volumes come in contracts."""
    one_page: bool = False
    """All that there is comes in one page."""

    def ask(self, world: World, start: Any, end: Any = None, **options: Any) -> Asked:
        """Ask for hours."""
        return world.ask(self.symbol, "1h", start, end, market_type=self.market_type, **options)

    def truth(self, start: int, end: int = NOON, now_ms: int = NOON) -> Candles:
        """Give the hours that this exchange shows."""
        symbol = self.trades_like or self.symbol
        if self.exchange == "kraken":
            return kraken_truth(symbol, "1h", start, end, now_ms)
        found = truth(symbol, "1h", start, end, now_ms)
        return in_contracts(found, self.lot) if self.lot else found


SWAP = {"symbol": "BTC/USDT:USDT", "market_type": "swap"}
CASES = [
    Case("binancecoinm", "/klines", "BTC/USD:BTC", "swap", trades_like="BTC/USDT:USDT"),
    Case("bitget", "candles"),
    Case("bybit", "/kline"),
    Case("coinbase", "/candles"),
    Case("gate", "/candlesticks"),
    Case("gate", "/candlesticks", **SWAP, lot=0.0001),
    Case("hyperliquid", is_snapshot, "BTC/USDC", one_page=True),
    Case("kraken", "/OHLC", one_page=True),
    Case("kucoin", "/candles"),
    Case("kucoinfutures", "/kline/query", **SWAP, lot=0.001),
    Case("mexc", "/klines"),
    Case("mexc", "/kline", **SWAP, lot=0.0001),
    Case("okx", "candles"),
]


def cases(*chosen: Case) -> pytest.MarkDecorator:
    """Run a test for each."""
    ids = [f"{case.exchange}-{case.market_type}" for case in chosen]
    return pytest.mark.parametrize("case", chosen, ids=ids)


every_case = cases(*CASES)


def test_no_certified_exchange_is_left_out() -> None:
    """Binance's own dialect is the sandbox's, which all other tests speak."""
    elsewhere = {"binance", "binanceusdm", "sandbox"}
    assert {case.exchange for case in CASES} == {row[0] for row in certified()} - elsewhere


@every_case
def test_a_broken_page_changes_nothing(serve: Serve, case: Case) -> None:
    """Pages that are cut, doubled, shuffled or none at all are seen through."""
    world, start = serve(case.exchange), NOON - 9 * DAY
    expected = case.truth(start)
    for fault in (*BROKEN, Fault.DISCONNECTED):
        rule = world.faults.add(fault, times=1, match=case.match)
        asked = case.ask(world, start, NOON, use_cache=False)
        assert same(asked[case.symbol], expected), fault
        assert rule.fired == 1


@pytest.mark.parametrize(
    "fault", [Fault.SHORT_PAGE, Fault.OUT_OF_WINDOW_ROWS, Fault.CUT_JSON, Fault.DISCONNECTED]
)
@cases(*(case for case in CASES if not case.one_page))
def test_every_third_page_broken_changes_nothing(serve: Serve, case: Case, fault: Fault) -> None:
    """Over a range of many pages the table is still the truth."""
    world, start = serve(case.exchange), NOON - 365 * DAY
    rule = world.faults.add(fault, every=3, match=case.match)

    asked = case.ask(world, start)

    assert rule.fired
    assert same(asked[case.symbol], case.truth(start))


@every_case
def test_a_refused_call_pauses_and_succeeds(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    """Whatever words say that a limit is reached: all wait, and then all comes."""
    monkeypatch.setattr(faults, "DEFAULT_PAUSE_S", 0.2)
    world, start = serve(case.exchange), NOON - 2 * DAY
    rule = world.faults.add(Fault.HTTP_429, times=1, match=case.match)

    asked = case.ask(world, start)

    assert rule.fired == 1
    assert same(asked[case.symbol], case.truth(start))


@pytest.mark.parametrize("exchange", ["bitget", "okx"])
def test_refusals_without_end_are_told(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    """An exchange that refuses for good ends in the error that says so.

    Only two are asked: the others say how long to wait, a second at least, five times over.
    """
    monkeypatch.setattr(faults, "DEFAULT_PAUSE_S", 0.01)
    world = serve(exchange)
    world.faults.add(Fault.HTTP_429, match="candles")

    with pytest.raises(RateLimitedError, match="Too Many Requests"):
        world.ask("BTC/USDT", "1h", NOON - DAY)


@every_case
def test_names_that_mean_nothing_are_refused(serve: Serve, case: Case) -> None:
    """Before any candle is asked for."""
    world = serve(case.exchange)
    candles = world.faults.add(Fault.HTTP_500, match=case.match)
    nope = case.symbol.replace("BTC", "NOPE")

    with pytest.raises(UnknownSymbolError, match=nope):
        world.ask(nope, "1h", market_type=case.market_type)
    with pytest.raises(UnknownTimeframeError, match="1m, "):
        world.ask(case.symbol, "7m", market_type=case.market_type)

    assert candles.fired == 0


@every_case
def test_the_exchange_s_clock_decides_what_is_closed(serve: Serve, case: Case) -> None:
    """Where its clock is five hours behind, so are the candles."""
    world, start = serve(case.exchange), NOON - 2 * DAY
    world.faults.add(Fault.WRONG_CLOCK, offset_ms=-5 * HOUR)

    asked = case.ask(world, start)

    assert same(asked[case.symbol], case.truth(start, now_ms=NOON - 5 * HOUR))


@pytest.mark.parametrize("skew_ms", [20 * MINUTE, -8 * HOUR], ids=["fast", "slow"])
@every_case
def test_our_clock_may_be_wrong(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, case: Case, skew_ms: int
) -> None:
    """ccxt chooses windows and endpoints by the time: a wrong one must cost no candle."""
    world, start = serve(case.exchange), NOON - 2 * DAY
    monkeypatch.setattr(time, "time_ns", lambda: (world.clock() + skew_ms) * 1_000_000)
    monkeypatch.setattr(time, "time", lambda: (world.clock() + skew_ms) / 1_000)

    asked = case.ask(world, start)

    assert same(asked[case.symbol], case.truth(start))
