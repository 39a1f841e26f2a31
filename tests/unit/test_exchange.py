"""The one module that talks through ccxt: its paths agree, its errors are ours, it is polite."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from backtester.data.candles import Candles
from backtester.data.errors import (
    AccessDeniedError,
    BadResponseError,
    BannedError,
    DataError,
    ExchangeUnavailableError,
    NotServedError,
    OptionError,
    PermanentFetchError,
    RateLimitedError,
    TransientFetchError,
    UnknownExchangeError,
    UnknownMarketTypeError,
    UnknownSymbolError,
    UnknownTimeframeError,
)
from backtester.data.fetching import exchange as module
from backtester.data.fetching.capabilities import capability_of
from backtester.data.fetching.exchange import Exchange
from backtester.data.fetching.paging import Ask
from backtester.data.model import Interval, Market, MarketType, Timeframe
from backtester.data.sandbox import Fault
from tests.support import processes
from tests.support.tls_proxy import TlsProxy, running_proxy
from tests.support.world import HOUR, MARKET, NOON, World, ms, same, truth

T = TypeVar("T")

BTC = Market("BTC/USDT", "BTCUSDT", MarketType.SPOT, "BTC", "USDT")
BTC_SWAP = Market("BTC/USDT:USDT", "BTCUSDT", MarketType.SWAP, "BTC", "USDT", "USDT")
H1 = Timeframe.parse("1h")
JUNE = Ask(ms("2025-06-01"), ms("2025-06-10"), 216)


def with_exchange(
    work: Callable[[Exchange], Awaitable[T]],
    exchange_id: str,
    market_type: MarketType | str = MarketType.SPOT,
    config: Mapping[str, Any] | None = None,
) -> T:
    """Open an exchange, do some work with it, close it."""

    async def main() -> T:
        async with Exchange(exchange_id, MarketType(market_type), config) as exchange:
            return await work(exchange)

    return asyncio.run(main())


def candles_of(
    exchange_id: str, market: Market, config: Mapping[str, Any], ask: Ask = JUNE, unit: str = "1h"
) -> Candles:
    """Ask one exchange once for candles."""

    async def work(exchange: Exchange) -> Candles:
        if exchange.needs_unified_markets:
            await exchange.load_markets()
        return await exchange.candles(market, Timeframe.parse(unit), ask)

    return with_exchange(work, exchange_id, market.type, config)


@pytest.fixture
def proxy(world: World, tmp_path: Path) -> Iterator[TlsProxy]:
    with running_proxy(world.server.url, tmp_path) as proxy:
        yield proxy


def moved(world: World) -> dict[str, Any]:
    """Reach the sandbox by its addresses in place of the exchange's own."""
    return {"urls": {"api": world.server.ccxt_urls}}


def through(proxy: TlsProxy) -> dict[str, Any]:
    """Reach the sandbox under the exchange's own addresses, by a proxy."""
    return {"httpsProxy": proxy.url, "wssProxy": proxy.url, "verify": False}


# ------------------------------------------------------------------ the same table by any path


@pytest.mark.parametrize("unit", ["1m", "1h", "1d", "1w", "1M"])
@pytest.mark.parametrize("market", [BTC, BTC_SWAP], ids=["spot", "swap"])
def test_raw_and_unified_paths_give_the_same_bits(
    world: World, monkeypatch: pytest.MonkeyPatch, market: Market, unit: str
) -> None:
    """The fast path and ccxt's own parsing read the market's candles to the last bit."""
    timeframe = Timeframe.parse(unit)
    since = timeframe.ceil(ms("2025-06-01" if unit in "1m1h" else "2020-06-01"))
    until = timeframe.next(since, 40)
    expected = truth(market.symbol, unit, since, until)
    ask = Ask(since, until, 40)
    raw = candles_of("sandbox", market, world.config, ask, unit)
    row = replace(capability_of("sandbox", market.type), raw_method=None)
    monkeypatch.setattr(module, "capability_of", lambda *_: row)
    unified = candles_of("sandbox", market, world.config, ask, unit)
    assert same(raw, expected)
    assert same(unified, expected)
    assert len(expected) == 40


def test_prices_of_eight_decimals_survive_both_paths(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prices such as 0.00000912 are the floats nearest to what the exchange wrote."""
    pepe = Market("PEPE/USDT", "PEPEUSDT", MarketType.SPOT, "PEPE", "USDT")
    expected = truth("PEPE/USDT", "1h", JUNE.since or 0, JUNE.until or 0)
    assert expected.values[:, 0].max() < 0.001
    assert same(candles_of("sandbox", pepe, world.config), expected)
    row = replace(capability_of("sandbox", MarketType.SPOT), raw_method=None)
    monkeypatch.setattr(module, "capability_of", lambda *_: row)
    assert same(candles_of("sandbox", pepe, world.config), expected)


def test_an_exchange_without_a_row_is_read_whole_by_the_careful_way(world: World) -> None:
    """An id of which nothing is known is asked in small pages, and gives the same candles."""
    unknown = World(world.server, world.clock, world.folder, "binanceus", moved(world))
    dates = ("2019-05-10", "2019-06-10")  # with an outage in it
    asked = unknown.ask("BTC/USDT", "15m", *dates)
    assert same(asked["BTC/USDT"], truth("BTC/USDT", "15m", *dates))
    assert unknown.ask("BTC/USDT", "15m", *dates).requests == []
    assert max(page.limit for page in asked.pages) <= 201


def test_an_exchange_without_a_row_finds_a_listing_by_windows(world: World) -> None:
    """Where "the first candle" cannot be asked for, a market's beginning is found all the same."""
    unknown = World(world.server, world.clock, world.folder, "binanceus", moved(world))
    asked = unknown.ask("ONDO/USDT", "4h", "2023-01-01", "2025-03-01")
    assert same(asked["ONDO/USDT"], truth("ONDO/USDT", "4h", "2023-01-01", "2025-03-01"))


# ------------------------------------------------------------------ the two ways to a real id


@pytest.mark.parametrize(
    ("exchange_id", "market", "host"),
    [
        ("binance", BTC, "api.binance.com:443"),
        ("binance", BTC_SWAP, "fapi.binance.com:443"),
        ("binanceusdm", BTC_SWAP, "fapi.binance.com:443"),
    ],
)
def test_proxies_and_moved_hosts_reach_the_same_candles(
    world: World, proxy: TlsProxy, exchange_id: str, market: Market, host: str
) -> None:
    """`exchange_config` sends a real id through a proxy, or to other hosts, on the fast path."""
    expected = truth(market.symbol, "1h", JUNE.since or 0, JUNE.until or 0)
    assert same(candles_of(exchange_id, market, moved(world)), expected)
    assert proxy.hosts == []
    assert same(candles_of(exchange_id, market, through(proxy)), expected)
    assert set(proxy.hosts) == {host}


@pytest.mark.parametrize("way", ["moved", "proxy"])
def test_a_whole_fetch_goes_by_the_configured_way(world: World, proxy: TlsProxy, way: str) -> None:
    """Clock, markets and candles of `binance` all follow `exchange_config`; nothing goes astray."""
    config = moved(world) if way == "moved" else through(proxy)
    binance = World(world.server, world.clock, world.folder, "binance", config)
    asked = binance.ask(["BTC/USDT", "ETH/USDT"], "1h", "2025-06-01", "2025-06-10")
    for symbol in ("BTC/USDT", "ETH/USDT"):
        assert same(asked[symbol], truth(symbol, "1h", "2025-06-01", "2025-06-10"))
    assert [request.path for request in asked.requests][:2] == [
        "/api/v3/time",
        "/api/v3/exchangeInfo",
    ]
    assert len(asked.pages) == 2
    assert set(proxy.hosts) == (set() if way == "moved" else {"api.binance.com:443"})
    assert (world.folder / "binance_spot_1h.pickle.blosc").exists()


def test_the_account_of_requests_is_kept_per_host_and_way_out(
    world: World, proxy: TlsProxy
) -> None:
    """An exchange counts by address: another proxy or another host is another budget."""

    def key(exchange_id: str, market_type: str, config: Mapping[str, Any]) -> str:
        async def work(exchange: Exchange) -> str:
            return exchange.budget.key

        return with_exchange(work, exchange_id, market_type, config)

    host = world.server.url.removeprefix("http://")
    assert key("sandbox", "spot", world.config) == host
    assert key("binance", "spot", {}) == "api.binance.com"
    assert key("binance", "swap", {}) == key("binanceusdm", "swap", {}) == "fapi.binance.com"
    assert key("binance", "spot", through(proxy)) == f"api.binance.com via {proxy.url}"
    vision = {"urls": {"api": {"public": "https://data-api.binance.vision/api/v3"}}}
    assert key("binance", "spot", vision) == "data-api.binance.vision"


def test_the_configuration_is_left_as_it_was(world: World) -> None:
    """What the caller passes as `exchange_config`, nested parts included, is not changed."""
    config = {**moved(world), "options": {"fetchMarkets": {"types": ["spot"]}}, "timeout": 5000}
    before = deepcopy(config)
    binance = World(world.server, world.clock, world.folder, "binance", config)
    binance.ask("BTC/USDT", "1h", "2025-06-01", "2025-06-10")
    assert config == before


def test_settings_of_the_caller_reach_ccxt(world: World) -> None:
    """Keys, timeouts and options given in `exchange_config` are set on ccxt's object."""

    async def work(exchange: Exchange) -> tuple[Any, ...]:
        client = exchange._client
        return client.apiKey, client.timeout, client.options["recvWindow"], client.verify

    config = {"apiKey": "k", "timeout": 1234, "options": {"recvWindow": 99}, "verify": False}
    assert with_exchange(work, "binance", "spot", config) == ("k", 1234, 99, False)


@pytest.mark.parametrize("config", ["proxy", ["x"], 7])
def test_a_configuration_that_is_no_mapping_is_refused(config: Any) -> None:
    """Anything but a mapping of settings is the caller's mistake."""
    with pytest.raises(OptionError, match="mapping"):
        with_exchange(lambda _: asyncio.sleep(0), "binance", "spot", config)


# ------------------------------------------------------------------ errors, end to end

TRANSLATED: dict[Fault, tuple[type[DataError], bool]] = {
    Fault.HTTP_429: (RateLimitedError, True),
    Fault.HTTP_418: (BannedError, False),
    Fault.HTTP_403: (AccessDeniedError, False),
    Fault.HTTP_404: (NotServedError, False),
    Fault.HTTP_451: (AccessDeniedError, False),
    Fault.HTTP_500: (ExchangeUnavailableError, True),
    Fault.HTTP_502: (ExchangeUnavailableError, True),
    Fault.HTTP_503: (ExchangeUnavailableError, True),
    Fault.HTTP_504: (ExchangeUnavailableError, True),
    Fault.DISCONNECTED: (ExchangeUnavailableError, True),
    Fault.MAINTENANCE: (ExchangeUnavailableError, True),
    Fault.RESET: (ExchangeUnavailableError, True),
    Fault.HANGING_BODY: (ExchangeUnavailableError, True),
    Fault.CUT_BODY: (BadResponseError, True),
    Fault.CUT_JSON: (BadResponseError, True),
    Fault.HTML: (BadResponseError, True),
    Fault.EMPTY_BODY: (BadResponseError, True),
    Fault.NULL_FIELD: (BadResponseError, True),
    Fault.OFF_GRID_ROW: (BadResponseError, True),
    Fault.NOT_FINITE_ROW: (BadResponseError, True),
    Fault.BROKEN_OHLC_ROW: (BadResponseError, True),
}
"""What goes wrong, what we call it, and whether another try is worth it."""


@pytest.mark.parametrize("unified", [False, True], ids=["raw", "unified"])
@pytest.mark.parametrize("fault", TRANSLATED)
def test_what_ccxt_makes_of_a_fault_becomes_our_error(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: Fault, unified: bool
) -> None:
    """Each failure of server or wire has one type, on both paths, whatever ccxt calls it."""
    expected, transient = TRANSLATED[fault]
    if unified:
        row = replace(capability_of("sandbox", MarketType.SPOT), raw_method=None)
        monkeypatch.setattr(module, "capability_of", lambda *_: row)
    world.faults.add(fault, match="klines", retry_after_s=7)
    with pytest.raises(expected) as caught:
        candles_of("sandbox", BTC, {**world.config, "timeout": 300})
    assert type(caught.value) is expected
    assert isinstance(caught.value, TransientFetchError if transient else PermanentFetchError)
    if fault in (Fault.HTTP_429, Fault.HTTP_418):
        assert caught.value.retry_after_s == pytest.approx(7.0)


@pytest.mark.parametrize("fault", [Fault.HTML, Fault.EMPTY_BODY])
def test_an_unreadable_list_of_markets_is_no_final_answer(world: World, fault: Fault) -> None:
    """Crypto.com's class looks for an error code in whatever comes, and finds one in HTML."""
    world.faults.add(fault, match="klines")
    config = {"urls": {"api": {"v1": f"{world.server.url}/api/v3/klines?path="}}}
    with pytest.raises(BadResponseError):
        with_exchange(lambda exchange: exchange.load_markets(), "cryptocom", "spot", config)


def test_a_server_that_is_not_there_is_unavailable(world: World) -> None:
    """A refused connection is worth another try."""
    config = {"sandboxUrl": "http://127.0.0.1:9", "timeout": 1000}
    with pytest.raises(ExchangeUnavailableError):
        candles_of("sandbox", BTC, config)


def test_a_symbol_the_exchange_refuses_is_unknown(world: World) -> None:
    """Binance's -1121 names the symbol as the mistake, and is not retried."""
    nobody = Market("NO/USDT", "NOUSDT", MarketType.SPOT, "NO", "USDT")
    with pytest.raises(UnknownSymbolError, match="Invalid symbol"):
        candles_of("sandbox", nobody, world.config)


def test_a_proxy_that_refuses_is_an_error_of_ours(world: World) -> None:
    """A proxy nobody answers at is an unavailable exchange, not a crash."""
    config = {"httpsProxy": "http://127.0.0.1:9", "timeout": 1000}
    with pytest.raises(ExchangeUnavailableError):
        candles_of("binance", BTC, config)


@pytest.mark.parametrize("exchange_id", ["binnance", "krakn", "nope"])
def test_an_unknown_exchange_names_the_nearest(exchange_id: str) -> None:
    """A misspelt id is answered with the ids it may have meant."""
    with pytest.raises(UnknownExchangeError) as caught:
        with_exchange(lambda _: asyncio.sleep(0), exchange_id)
    meant = {"binnance": "binance", "krakn": "kraken"}.get(exchange_id)
    assert (meant in caught.value.suggestions) == (meant is not None)
    assert meant is None or meant in str(caught.value)


def test_a_market_type_the_exchange_lacks_is_an_error(world: World) -> None:
    """Asking a spot exchange for swaps never falls back to spot."""
    with pytest.raises(UnknownMarketTypeError, match="spot"):
        with_exchange(lambda _: asyncio.sleep(0), "bitvavo", "swap")


def test_a_timeframe_the_exchange_lacks_names_those_it_has(world: World) -> None:
    """Binance has no candles of seven minutes; the error lists what it has."""

    async def work(exchange: Exchange) -> None:
        exchange.require_timeframe(Timeframe.parse("7m"))

    with pytest.raises(UnknownTimeframeError, match="15m") as caught:
        with_exchange(work, "sandbox", "spot", world.config)
    assert "1h" in caught.value.supported


# ------------------------------------------------------------------ what else it knows


@pytest.mark.parametrize("ahead", [-5 * HOUR, 0, 5 * HOUR])
def test_the_clock_is_the_exchanges(world: World, ahead: int) -> None:
    """`now_ms` reads the server's time, whatever this machine's is."""
    world.faults.add(Fault.WRONG_CLOCK, offset_ms=ahead)
    now = with_exchange(lambda one: one.now_ms(), "sandbox", "spot", world.config)
    assert now == NOON + ahead


def test_markets_are_those_of_the_type_with_delisted_ones(world: World) -> None:
    """All listed symbols of the market type come, inactive ones marked, none of another type."""

    async def work(exchange: Exchange) -> list[Market]:
        return (await exchange.load_markets())[0]

    for kind in (MarketType.SPOT, MarketType.SWAP):
        found = {m.symbol: m for m in with_exchange(work, "sandbox", kind, world.config)}
        listed = [one for one in MARKET.listings(kind) if one.known_at(NOON)]
        assert {s: m.active for s, m in found.items()} == {
            one.symbol: one.trading_at(NOON) for one in listed
        }
        assert {market.type for market in found.values()} == {kind}


def test_volumes_are_in_quote_units_by_symbol(world: World) -> None:
    """24 h volumes are those of the market's own tickers, of this market type alone."""

    async def work(exchange: Exchange) -> dict[str, float]:
        await exchange.load_markets()
        return await exchange.quote_volumes()

    for kind in (MarketType.SPOT, MarketType.SWAP):
        found = with_exchange(work, "sandbox", kind, world.config)
        expected = {
            one.symbol: MARKET.ticker(one.symbol, NOON).quote_volume
            for one in MARKET.listings(kind)
            if one.known_at(NOON)
        }
        assert found == expected


def test_the_limits_an_exchange_states_are_heeded(world: World) -> None:
    """A server that allows less than the table says is asked more slowly."""
    world.server._dialects[0]._limits["spot"] = 30

    async def work(exchange: Exchange) -> tuple[float, float]:
        before = exchange.seconds_for(300)
        await exchange.load_markets()
        return before, exchange.seconds_for(300)

    assert with_exchange(work, "sandbox", "spot", world.config) == (0.0, 540.0)


def test_only_what_a_limit_can_use_is_under_way_where_nothing_counts_it() -> None:
    """Half a second's worth, unless the answers tell what is used, or nothing is limited."""

    def at_once(exchange_id: str, market_type: str = "spot", **config: Any) -> int:
        return Exchange(exchange_id, MarketType.parse(market_type), config).at_once(24)

    known = {"binance": 24, "gate": 24, "kucoin": 24}  # their answers count
    pages_a_second = {"okx": 10, "coinbase": 10, "kraken": 1 / 1.2, "bitget": 20, "bybit": 120}
    known |= {name: min(math.ceil(rate / 2) + 1, 24) for name, rate in pages_a_second.items()}
    assert {name: at_once(name) for name in known} == known
    assert 2 <= at_once("bitstamp") <= 24, "without a row, by ccxt's pace"
    assert at_once("okx", enableRateLimit=False) == 24


def test_a_stored_answer_imports_neither_ccxt_nor_vectorbt(world: World) -> None:
    """A question that the store covers costs no import of either, and none of asyncio's clients."""
    world.ask("BTC/USDT", "1h", "2025-06-01", "2025-06-10")
    loaded = processes.python(
        world,
        """
import json, sys
ask(["BTC/USDT"], "1h", "2025-06-01", "2025-06-10")
heavy = {"ccxt", "vectorbt", "numba", "aiohttp", "pandas"}
print(json.dumps(sorted(heavy & set(sys.modules))))
""",
    )
    assert loaded == []


def test_importing_the_package_imports_nothing_heavy() -> None:
    """`import backtester.data` and the commands' module bring none of the big libraries."""
    code = (
        "import sys, backtester.data, backtester.data.cli, backtester.data.fetching.data_fetcher;"
        "sys.exit(', '.join({'ccxt', 'vectorbt', 'numba', 'pandas'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=processes.ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_connection_is_closed_when_the_work_fails(world: World) -> None:
    """Leaving by an error leaves no open connection behind; warnings are errors here."""

    async def work(exchange: Exchange) -> None:
        await exchange.now_ms()
        raise LookupError

    with pytest.raises(LookupError):
        with_exchange(work, "sandbox", "spot", world.config)


def test_candles_outside_of_what_was_asked_for_are_not_believed(world: World) -> None:
    """A page of another time is a bad answer, not an empty one."""
    other = MARKET.candles("BTC/USDT", H1, Interval(ms("2025-05-01"), ms("2025-05-02")))
    rows = [
        [int(time), *map(str, row)] for time, row in zip(other.open_time, other.values, strict=True)
    ]

    async def work(exchange: Exchange) -> Candles:
        async def answer(_params: Mapping[str, Any]) -> list[list[Any]]:
            return rows

        exchange._client.publicGetKlines = answer
        return await exchange.candles(BTC, H1, JUNE)

    with pytest.raises(BadResponseError, match="different time"):
        with_exchange(work, "sandbox", "spot", world.config)
