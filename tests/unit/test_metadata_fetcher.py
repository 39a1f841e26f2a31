"""What exchanges list and what trades most: asked once, remembered, ranked without mixing."""

from __future__ import annotations

from typing import Any

import pytest

from backtester.data.cache_system.metadata_fetcher import MetadataFetcher
from backtester.data.errors import (
    ExchangeUnavailableError,
    NotServedError,
    OptionError,
    UnknownExchangeError,
)
from backtester.data.model import Market, MarketType
from backtester.data.sandbox import Fault
from tests.support import processes
from tests.support.world import HOUR, MARKET, MINUTE, NOON, World


def fetcher(world: World) -> MetadataFetcher:
    return MetadataFetcher(world.home.cache)


def ask(world: World, quote: str | None = "USDT", *more: Any, **options: Any) -> dict[str, Any]:
    """Ask for market data of the sandbox."""
    return fetcher(world).get_market_data(
        "sandbox", quote, *more, exchange_config=world.config, **options
    )


def volumes(kind: str, quote: str | None, now_ms: int = NOON) -> dict[str, float]:
    """Give the market's own 24 h volumes of what trades, biggest first."""
    found = {
        one.symbol: MARKET.ticker(one.symbol, now_ms).quote_volume
        for one in MARKET.listings(kind)
        if one.trading_at(now_ms) and quote in (None, one.market.quote)
    }
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def remember(world: World, *markets: tuple[str, bool], **ranked: float) -> None:
    """Put markets and volumes into the cache, as if the exchange had answered so."""
    known = [
        Market(f"{base}/USDT", f"{base}USDT", MarketType.SPOT, base, "USDT", active=active)
        for base, active in markets
    ]
    world.home.cache.save_markets("sandbox", "spot", known)
    world.home.cache.save_all_volumes(
        "sandbox", {f"{base}/USDT": volume for base, volume in ranked.items()}
    )


@pytest.mark.parametrize(("kind", "quote"), [("spot", "USDT"), ("spot", "EUR"), ("swap", "USDT")])
def test_the_ranking_is_the_markets_own(world: World, kind: str, quote: str) -> None:
    """Active markets of one type and quote, in descending order of their 24 h quote volume."""
    found = ask(world, quote, market_type=kind)
    expected = volumes(kind, quote)
    assert list(found) == list(expected)
    assert {name: one["quote_volume"] for name, one in found.items()} == expected


def test_each_market_is_described(world: World) -> None:
    """Beside the volume stand the exchange's id, the currencies, the type and the size."""
    assert ask(world, market_type="swap")["ETH/USDT:USDT"] == {
        "quote_volume": MARKET.ticker("ETH/USDT:USDT", NOON).quote_volume,
        "id": "ETHUSDT",
        "base": "ETH",
        "quote": "USDT",
        "settle": "USDT",
        "type": "swap",
        "contract_size": 1.0,
        "created_ms": MARKET.listing("ETH/USDT:USDT").listed_ms,
    }


def test_a_limit_takes_the_first_and_no_quote_takes_all(world: World) -> None:
    """`limit` cuts the ranking; without a quote currency every market is in it."""
    assert list(ask(world, "USDT", 3)) == list(volumes("spot", "USDT"))[:3]
    assert set(ask(world, None)) == set(volumes("spot", None))


def test_an_order_by_name_needs_no_volumes_to_agree(world: World) -> None:
    """`top_by_volume=False` gives the same markets in the order of their symbols."""
    assert list(ask(world, "USDT", 5, False)) == sorted(volumes("spot", "USDT"))[:5]


def test_equal_volumes_stand_in_the_order_of_their_symbols(world: World) -> None:
    """A tie is broken by name, and a market without a volume counts as without trades."""
    remember(world, ("B", True), ("A", True), ("C", True), ("D", True), A=5.0, B=5.0, C=9.0)
    assert {name: one["quote_volume"] for name, one in ask(world).items()} == {
        "C/USDT": 9.0, "A/USDT": 5.0, "B/USDT": 5.0, "D/USDT": 0.0,
    }  # fmt: skip
    assert list(ask(world)) == ["C/USDT", "A/USDT", "B/USDT", "D/USDT"]


def test_what_is_not_traded_any_more_is_not_ranked(world: World) -> None:
    """A market the exchange calls inactive is left out, whatever its volume was."""
    remember(world, ("OLD", False), ("NEW", True), OLD=9.0, NEW=1.0)
    assert list(ask(world)) == ["NEW/USDT"]


@pytest.mark.parametrize("quote", ["usdt", " USDT ", "Usdt"])
def test_a_quote_is_understood_in_any_case(world: World, quote: str) -> None:
    """Currencies are found however they are spelled."""
    assert list(ask(world, quote, 3)) == list(volumes("spot", "USDT"))[:3]


def test_the_names_alone(world: World) -> None:
    """`get_top_symbols` gives the symbols of the ranking."""
    names = fetcher(world).get_top_symbols("sandbox", "USDT", 4, exchange_config=world.config)
    assert names == list(volumes("spot", "USDT"))[:4]


# ------------------------------------------------------------------ what is remembered


def test_a_ranking_is_remembered_for_an_hour(world: World) -> None:
    """Asked again within the hour nothing is sent; after it the exchange is asked anew."""
    before = ask(world, "USDT", 10)
    sent = len(world.sent())
    world.clock.now_ms += 59 * MINUTE
    world.new_process()
    assert ask(world, "USDT", 10) == before
    assert len(world.sent()) == sent
    world.clock.now_ms += 2 * MINUTE
    later = ask(world, "USDT", 10)
    assert len(world.sent()) == sent + 2
    expected = volumes("spot", "USDT", world.clock())
    assert {name: one["quote_volume"] for name, one in later.items()} == {
        name: expected[name] for name in list(expected)[:10]
    }


def test_how_old_is_the_callers_choice(world: World) -> None:
    """`max_age_s` and `refresh` decide whether what is remembered will do."""
    ask(world)
    world.clock.now_ms += 10 * MINUTE
    sent = len(world.sent())
    ask(world, max_age_s=1200.0)
    assert len(world.sent()) == sent
    ask(world, max_age_s=60.0)
    assert len(world.sent()) == sent + 2
    ask(world, refresh=True)
    assert len(world.sent()) == sent + 4


def test_the_market_types_are_remembered_apart(world: World) -> None:
    """What is known of spot answers nothing about swaps."""
    ask(world)
    sent = len(world.sent())
    assert set(ask(world, market_type="swap")) == set(volumes("swap", "USDT"))
    assert {one.path.split("/")[1] for one in world.sent(sent)} == {"fapi"}


def test_a_remembered_ranking_imports_no_exchange_library(world: World) -> None:
    """Answering from memory costs no import of ccxt."""
    ask(world)
    code = """
import json, sys
from backtester.data.cache_system import data_fetcher
found = data_fetcher.get_market_data("sandbox", "USDT", 2)
print(json.dumps([list(found), "ccxt" in sys.modules]))
"""
    assert processes.python(world, code) == [list(volumes("spot", "USDT"))[:2], False]


def test_a_new_listing_is_ranked_after_the_hour(world: World) -> None:
    """A market listed since is in the next ranking."""
    world.clock.now_ms = MARKET.listing("ONDO/USDT").listed_ms - HOUR
    assert "ONDO/USDT" not in ask(world)
    world.clock.now_ms += 3 * HOUR
    assert "ONDO/USDT" in ask(world)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("limit", [0, -1, True, 1.0, "3"], ids=repr)
def test_a_limit_is_a_count(world: World, limit: Any) -> None:
    """Anything but a whole number from 1 on is refused before anything is asked."""
    with pytest.raises(OptionError, match="at least 1"):
        ask(world, "USDT", limit)
    assert world.sent() == []


def test_an_unknown_quote_lists_the_known(world: World) -> None:
    """Nothing quoted so is an error that says what there is."""
    with pytest.raises(NotServedError, match="BTC, EUR, FDUSD, JPY") as caught:
        ask(world, "XYZ")
    assert caught.value.exchange == "sandbox"


def test_an_unknown_exchange_is_refused(world: World) -> None:
    """A misspelt id names the nearest."""
    with pytest.raises(UnknownExchangeError, match="binance"):
        fetcher(world).get_market_data("binanse")


@pytest.mark.parametrize("endpoint", ["exchangeInfo", "ticker/24hr"])
def test_a_failing_exchange_teaches_nothing(world: World, endpoint: str) -> None:
    """A failure is an error; nothing half-known is remembered of it."""
    world.faults.add(Fault.HTTP_503, match=endpoint)
    with pytest.raises(ExchangeUnavailableError):
        ask(world)
    world.faults.clear()
    assert list(ask(world, "USDT", 3)) == list(volumes("spot", "USDT"))[:3]
