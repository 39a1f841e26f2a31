"""OKX through ccxt's own class: spot, swaps and futures equal the market's truth."""

from __future__ import annotations

import math

import pytest

from backtester.data.cache_system.metadata_fetcher import MetadataFetcher
from backtester.data.errors import (
    UnknownSymbolError,
)
from backtester.data.model import Served
from backtester.data.sandbox.dialects import okx as dialect
from tests.e2e.dialects_support import Serve, serve, spans_of
from tests.support.world import DAY, HOUR, MARKET, MINUTE, NOON, World, ms, same, truth

__all__ = ["serve"]

PAGE = 300
AUGUST = ms("2026-08-01T12:34:56")
"""Dated contracts are listed then."""
SWAP, FUTURE = "BTC/USDT:USDT", "BTC/USDT:USDT-261225"

CASES = [
    pytest.param("spot", "1m", "BTC/USDT", "2019-05-14T20:00", "2019-05-15T21:00", id="outage"),
    pytest.param("spot", "1m", "BTC/USDT", "2018-02-08", "2018-02-09T12:00", id="long-outage"),
    pytest.param("spot", "1m", "BAT/USDT", "2024-03-01", "2024-03-03", id="silent-minutes"),
    pytest.param(
        "spot", "1m", "BTC/USDT", "2025-06-15T12:00:30", "2025-06-15T12:20:30", id="small"
    ),
    pytest.param("spot", "1m", "BTC/USDT", "2025-06-14T00:00:30", None, id="both-endpoints"),
    pytest.param("spot", "1h", "ONDO/USDT", "2024-10-01", None, id="before-listing"),
    pytest.param("spot", "1h", "BTC/USDT", "2017-08-01", "2017-12-31T23:17", id="first-hours"),
    pytest.param("spot", "1d", "BTC/USDT", "2009-01-01", None, id="days"),
    pytest.param("spot", "1w", "BTC/USDT", "2016-01-01", None, id="weeks"),
    pytest.param("spot", "1M", "ETH/USDT", "2015-01-15", None, id="months"),
    pytest.param("swap", "1m", SWAP, "2025-06-14T00:00:30", None, id="swap-minutes"),
    pytest.param("swap", "1h", SWAP, "2019-07-01", "2020-03-01T00:30", id="swap-listing"),
    pytest.param("swap", "1d", "ETH/USDT:USDT", "2018-01-01", None, id="swap-days"),
    pytest.param("swap", "1M", SWAP, "2018-01-01", None, id="swap-months"),
]


def candle_requests(world: World, since: int = 0) -> int:
    return sum(request.path.endswith("candles") for request in world.sent(since))


@pytest.mark.parametrize(("market_type", "timeframe", "symbol", "start", "end"), CASES)
def test_equals_the_truth(
    serve: Serve, market_type: str, timeframe: str, symbol: str, start: str, end: str | None
) -> None:
    """Whatever is asked comes bit for bit in base units; the same question sends nothing."""
    world = serve("okx")

    asked = world.ask(symbol, timeframe, start, end, market_type=market_type)

    expected = truth(symbol, timeframe, start, end or NOON)
    assert len(expected)
    assert same(asked[symbol], expected)
    # A page each; of one with something missing a second look at that, of a silent one a second
    # and two that straddle its ends; the inception by week, day, hour and minute, three each.
    assert asked.result.interval is not None
    steps = asked.result.request.key.timeframe.steps(asked.result.interval)
    assert candle_requests(world) <= 4 * math.ceil(steps / PAGE) + 12
    assert len(asked.requests) == candle_requests(world) + 2
    again = world.ask(symbol, timeframe, start, end, market_type=market_type)
    assert again.requests == []
    assert same(again[symbol], expected)


@pytest.mark.parametrize("timeframe", ["1m", "1h", "1d"])
def test_dated_contracts_equal_the_truth(serve: Serve, timeframe: str) -> None:
    """A dated contract comes from before its listing to its last closed candle."""
    world = serve("okx", AUGUST)
    start = "2026-07-30" if timeframe == "1m" else "2026-05-01"

    asked = world.ask(FUTURE, timeframe, start, market_type="future")

    assert same(asked[FUTURE], truth(FUTURE, timeframe, start, AUGUST, AUGUST))


def test_whole_pages_cost_a_request_each(serve: Serve) -> None:
    """Three hundred candles come per request, the newest thousand of them from `candles`."""
    world = serve("okx")
    start = NOON // MINUTE * MINUTE - 6 * PAGE * MINUTE
    world.ask("BTC/USDT", "1m", start, start + PAGE * MINUTE)
    before = len(world.sent())

    world.ask("BTC/USDT", "1m", start + PAGE * MINUTE, start + 4 * PAGE * MINUTE)
    asked = world.ask("BTC/USDT", "1m", start)

    paths = sorted(request.path.rsplit("/", 1)[1] for request in world.sent(before))
    assert paths == ["candles"] * 3 + ["history-candles"] * 2
    assert len(asked["BTC/USDT"]) == 6 * PAGE


def test_inception_takes_few_requests(serve: Serve) -> None:
    """The listing time that OKX states is where the first candle is looked for, and confirmed."""
    world = serve("okx")

    world.ask("ONDO/USDT", "1h", "inception")

    first = MARKET.listing("ONDO/USDT").listed_ms
    assert spans_of(world, "ONDO/USDT", "1h") == [
        (0, first, Served.NOT_LISTED),
        (first, NOON // HOUR * HOUR, Served.MARKET),
    ]
    # By week, day and hour, two requests each, and a third before the stated week.
    assert candle_requests(world) <= math.ceil((NOON - first) / HOUR / PAGE) + 7


def test_small_history_pages_are_read_on(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the history gives 100 candles at a time, a page is asked for until it is whole."""
    monkeypatch.setitem(dialect.MOST_ROWS, "market/history-candles", 100)
    world = serve("okx")

    asked = world.ask("BTC/USDT", "1h", "2019-03-01", "2019-06-01")

    assert same(asked["BTC/USDT"], truth("BTC/USDT", "1h", "2019-03-01", "2019-06-01"))
    # Three requests a page, one more where an outage is confirmed; and the inception.
    pages = math.ceil(92 * DAY / HOUR / PAGE)
    assert candle_requests(world) <= 4 * pages + 8


def test_delisted_symbol_is_unknown(serve: Serve) -> None:
    """What OKX has delisted is gone, which is said as such."""
    world = serve("okx")

    with pytest.raises(UnknownSymbolError, match="EOS/USDT"):
        world.ask("EOS/USDT", "1h", "2025-05-01")


def test_symbol_delisted_since_its_markets_were_read(serve: Serve) -> None:
    """A symbol that vanished since yesterday's list of markets is refused by name."""
    world = serve("okx", MARKET.listing("EOS/USDT").delisted_ms - DAY)
    world.ask("EOS/USDT", "1h", "2025-05-01", "2025-05-02")
    world.clock.now_ms += 2 * DAY

    with pytest.raises(UnknownSymbolError, match="doesn't exist"):
        world.ask("EOS/USDT", "1h", "2025-05-01", "2025-05-04")


def test_limit_is_obeyed(serve: Serve) -> None:
    """At the exchange's own limit nothing is refused."""
    world = serve("okx", limited=True)

    asked = world.ask("BTC/USDT", "1h", "2024-06-01")

    assert candle_requests(world) > 20
    assert same(asked["BTC/USDT"], truth("BTC/USDT", "1h", "2024-06-01", NOON))
    assert {request.status for request in asked.requests} == {200}


def test_top_symbols(serve: Serve) -> None:
    """Swaps are ranked in quote units, though OKX counts contracts and tells no quote volume."""
    world = serve("okx")
    fetcher = MetadataFetcher(world.home.cache)

    found = fetcher.get_market_data(
        "okx", "USDT", 3, market_type="swap", exchange_config=world.config
    )

    trading = [one.symbol for one in MARKET.listings("swap") if one.trading_at(NOON)]
    tickers = [MARKET.ticker(symbol, NOON) for symbol in trading]
    worth = {one.symbol: one.volume * one.last for one in tickers}
    best = sorted(worth, key=worth.__getitem__, reverse=True)[:3]
    assert list(found) == best
    for symbol in best:
        assert found[symbol]["quote_volume"] == pytest.approx(worth[symbol], rel=1e-9)
        assert found[symbol]["contract_size"] == 0.01
