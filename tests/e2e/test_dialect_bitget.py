"""Bitget through ccxt's own class: spot, swaps and futures equal the market's truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from backtester.data.cache_system.metadata_fetcher import MetadataFetcher
from backtester.data.errors import UnknownSymbolError, UnknownTimeframeError
from backtester.data.model import Served
from backtester.data.sandbox.dialects import Call, Reply, bitget
from tests.e2e.dialects_support import Serve, serve, spans_of
from tests.support.world import DAY, HOUR, MARKET, MINUTE, NOON, World, ms, same, truth

__all__ = ["serve"]

PAGE = 199
"""Of the 200 that come at most, one for the end of the window, if that counts."""
SHORTER = {"1d": 89, "1M": 2}
"""Pages of contracts: 89 days hold no more candles."""
LISTING = {"spot": 3, "swap": 7}
"""Requests that list a market: coins, symbols and margins; coins and six kinds of contracts."""
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
    pytest.param("spot", "3d", "ONDO/USDT", "2013-01-01", None, id="three-days"),
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
    world = serve("bitget")

    asked = world.ask(symbol, timeframe, start, end, market_type=market_type)

    expected = truth(symbol, timeframe, start, end or NOON)
    assert len(expected)
    assert same(asked[symbol], expected)
    # A page each; of one with something missing a second look at that, of a silent one a second
    # and two that straddle its ends; the inception by its week among those since 2009, five
    # pages, then by week, day, hour and minute, three requests each.
    assert asked.result.interval is not None
    steps = asked.result.request.key.timeframe.steps(asked.result.interval)
    page = SHORTER.get(timeframe, PAGE) if market_type == "swap" else PAGE
    assert candle_requests(world) <= 4 * math.ceil(steps / page) + 5 + 12
    assert len(asked.requests) == candle_requests(world) + 1 + LISTING[market_type]
    again = world.ask(symbol, timeframe, start, end, market_type=market_type)
    assert again.requests == []
    assert same(again[symbol], expected)


def test_two_hours_are_candles_of_contracts_only(serve: Serve) -> None:
    """Spot has no 2h candles, though ccxt names them: that is said before any is asked for."""
    world = serve("bitget")

    with pytest.raises(UnknownTimeframeError, match="no 2h candles"):
        world.ask("BTC/USDT", "2h", "2025-06-01")

    assert candle_requests(world) == 0
    asked = world.ask(SWAP, "2h", "2025-06-01", market_type="swap")
    assert same(asked[SWAP], truth(SWAP, "2h", "2025-06-01", NOON))


@pytest.mark.parametrize("timeframe", ["1m", "1h", "1d"])
def test_dated_contracts_equal_the_truth(serve: Serve, timeframe: str) -> None:
    """A dated contract comes from before its listing to its last closed candle."""
    world = serve("bitget", AUGUST)
    start = "2026-07-30" if timeframe == "1m" else "2026-05-01"

    asked = world.ask(FUTURE, timeframe, start, market_type="future")

    assert same(asked[FUTURE], truth(FUTURE, timeframe, start, AUGUST, AUGUST))


@pytest.mark.parametrize("market_type", ["spot", "swap"])
@pytest.mark.parametrize("end_counts", [False, True], ids=["exclusive", "inclusive"])
def test_bounds_rounded_down_hide_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, market_type: str, end_counts: bool
) -> None:
    """Whether Bitget rounds a window's bounds to its candles and counts the end or not, all comes.

    Of a page that is too long the newest are kept.
    """
    whole = bitget.whole

    def rounded(call: Call, name: str, refuse: Callable[[str], Reply]) -> int | None:
        value = whole(call, name, refuse)
        if value is None or not name.endswith("Time"):
            return value
        return value // HOUR * HOUR + int(end_counts and name == "endTime")

    monkeypatch.setattr(bitget, "whole", rounded)
    world = serve("bitget")
    symbol = SWAP if market_type == "swap" else "BTC/USDT"

    asked = world.ask(symbol, "1h", "2025-05-01", "2025-06-01", market_type=market_type)

    assert same(asked[symbol], truth(symbol, "1h", "2025-05-01", "2025-06-01"))


def test_whole_pages_cost_a_request_each(serve: Serve) -> None:
    """A page of candles comes per request, the newest thousand of them from `candles`."""
    world = serve("bitget")
    start = NOON // MINUTE * MINUTE - 6 * PAGE * MINUTE
    world.ask("BTC/USDT", "1m", start, start + PAGE * MINUTE)
    before = len(world.sent())

    world.ask("BTC/USDT", "1m", start + PAGE * MINUTE, start + 4 * PAGE * MINUTE)
    asked = world.ask("BTC/USDT", "1m", start)

    paths = sorted(request.path.rsplit("/", 1)[1] for request in world.sent(before))
    assert paths == ["candles"] * 5
    assert len(asked["BTC/USDT"]) == 6 * PAGE


@pytest.mark.parametrize(
    ("market_type", "symbol", "search"),
    [
        # The listing time that is stated for contracts is confirmed; on spot it is the pages of
        # weeks since 2009. Then day and hour, two requests each.
        pytest.param("swap", "HYPE/USDT:USDT", 3 + 2, id="stated"),
        pytest.param("spot", "ONDO/USDT", 5 + 1 + 4, id="searched"),
    ],
)
def test_inception_takes_few_requests(
    serve: Serve, market_type: str, symbol: str, search: int
) -> None:
    """All before the first candle counts as not listed, and finding it takes few requests."""
    world = serve("bitget")

    world.ask(symbol, "1h", "inception", market_type=market_type)

    first = MARKET.listing(symbol).listed_ms // HOUR * HOUR
    assert spans_of(world, symbol, "1h", market_type) == [
        (0, first, Served.NOT_LISTED),
        (first, NOON // HOUR * HOUR, Served.MARKET),
    ]
    assert candle_requests(world) <= math.ceil((NOON - first) / HOUR / PAGE) + search


def test_delisted_symbol_is_unknown(serve: Serve) -> None:
    """What Bitget has delisted is gone, which is said as such."""
    world = serve("bitget")

    with pytest.raises(UnknownSymbolError, match="EOS/USDT"):
        world.ask("EOS/USDT", "1h", "2025-05-01")


def test_symbol_delisted_since_its_markets_were_read(serve: Serve) -> None:
    """A symbol that vanished since yesterday's list of markets is refused by name."""
    world = serve("bitget", MARKET.listing("EOS/USDT").delisted_ms - DAY)
    world.ask("EOS/USDT", "1h", "2025-05-01", "2025-05-02")
    world.clock.now_ms += 2 * DAY

    with pytest.raises(UnknownSymbolError, match="has been removed"):
        world.ask("EOS/USDT", "1h", "2025-05-01", "2025-05-04")


def test_limit_is_obeyed(serve: Serve) -> None:
    """At the exchange's own limit nothing is refused."""
    world = serve("bitget", limited=True)

    asked = world.ask("BTC/USDT", "1h", "2024-12-20")

    assert candle_requests(world) > 20
    assert same(asked["BTC/USDT"], truth("BTC/USDT", "1h", "2024-12-20", NOON))
    assert {request.status for request in asked.requests} == {200}


@pytest.mark.parametrize("market_type", ["spot", "swap"])
def test_top_symbols(serve: Serve, market_type: str) -> None:
    """The most traded symbols are ranked by the quote volume of the last 24 hours."""
    world = serve("bitget")
    fetcher = MetadataFetcher(world.home.cache)

    found = fetcher.get_market_data(
        "bitget", "USDT", 3, market_type=market_type, exchange_config=world.config
    )

    trading = [one for one in MARKET.listings(market_type) if one.trading_at(NOON)]
    volumes = {one.symbol: MARKET.ticker(one.symbol, NOON).quote_volume for one in trading}
    quoted = [symbol for symbol in volumes if symbol.split(":")[0].endswith("/USDT")]
    best = sorted(quoted, key=volumes.__getitem__, reverse=True)[:3]
    assert {name: one["quote_volume"] for name, one in found.items()} == {
        name: volumes[name] for name in best
    }
