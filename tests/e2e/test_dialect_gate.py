"""Gate through ccxt's own class: spot, perpetuals and dated contracts equal the market's truth."""

from __future__ import annotations

import math

import pytest

from backtester.data.candles import Candles
from backtester.data.errors import UnknownSymbolError, UnknownTimeframeError
from backtester.data.events import Event, FetchPlanned
from backtester.data.fetching.online import markets_and_volumes
from backtester.data.model import MarketType, Served
from tests.e2e.dialects_support import Serve, in_contracts, reach, serve, spans_of
from tests.support.world import DAY, HOUR, MARKET, MINUTE, NOON, World, ms, same, truth

__all__ = ["serve"]

PAGE = {"spot": 1000, "swap": 1999, "future": 1999}
MARKETS = {"spot": 3, "swap": 3, "future": 2}
"""Requests that list the markets: currencies; pairs and their margins, or a list per settlement."""
DEPTH = 9_980
"""Spot candles within reach: Gate's 10,000 but for the last moments."""
STEP = {"1m": MINUTE, "1h": HOUR, "1d": DAY}
CONTRACT = {
    "BTC/USDT:USDT": 0.0001,
    "ETH/USDT:USDT": 0.0001,
    "DOGE/USDT:USDT": 0.1,
    "OP/USDT:USDT": 0.01,
    "BTC/USDT:USDT-261225": 0.0001,
}
"""Base units in a contract."""
SEARCH = 30
"""Requests that may find a first candle: days, hours and minutes, read forward and back."""
AUGUST = ms("2026-08-01T12:34:56")
"""Dated contracts are listed then."""

CASES = [
    pytest.param("spot", "1m", "BTC/USDT", "2026-03-14T12:00", "2026-03-16", id="long-outage"),
    pytest.param(
        "spot", "1m", "BAT/USDT", "2025-06-12", "2025-06-15T12:00:30", id="silent-minutes"
    ),
    pytest.param(
        "spot", "1m", "BTC/USDT", "2025-06-15T12:00:30", "2025-06-15T12:20:30", id="small"
    ),
    pytest.param("spot", "1h", "ONDO/USDT", "2024-10-01", None, id="before-listing"),
    pytest.param("spot", "1h", "EOS/USDT", "2025-05-01T00:30", "2025-06-10", id="delisted"),
    pytest.param("spot", "1d", "BTC/USDT", "2009-01-01", None, id="days"),
    pytest.param(
        "swap", "1m", "BTC/USDT:USDT", "2026-03-14T12:00", "2026-03-17", id="swap-long-outage"
    ),
    pytest.param("swap", "1m", "DOGE/USDT:USDT", "2025-06-14T00:00:30", None, id="swap-minutes"),
    pytest.param("swap", "1m", "BTC/USDT:USDT", "2020-02-19", "2020-02-20", id="swap-outage"),
    pytest.param("swap", "1h", "OP/USDT:USDT", "2022-01-01", "2022-09-01T00:30", id="swap-listing"),
    pytest.param("swap", "1h", "ETH/USDT:USDT", "2024-06-01", None, id="swap-hours"),
    pytest.param("swap", "1d", "BTC/USDT:USDT", "2009-01-01", None, id="swap-days"),
    pytest.param("future", "1m", "BTC/USDT:USDT-261225", "2026-07-30", None, id="dated-minutes"),
    pytest.param("future", "1h", "BTC/USDT:USDT-261225", "2026-05-01", None, id="dated-hours"),
    pytest.param("future", "1d", "BTC/USDT:USDT-261225", "2026-01-01", None, id="dated-days"),
]


def candle_requests(world: World, since: int = 0) -> int:
    return sum(request.path.endswith("/candlesticks") for request in world.sent(since))


def served(symbol: str, timeframe: str, start: str | int, end: str | int, now_ms: int) -> Candles:
    """Give the truth as Gate's contracts count it."""
    found = truth(symbol, timeframe, start, end, now_ms)
    return in_contracts(found, CONTRACT[symbol]) if symbol in CONTRACT else found


@pytest.mark.parametrize(("market_type", "timeframe", "symbol", "start", "end"), CASES)
def test_equals_the_truth(
    serve: Serve, market_type: str, timeframe: str, symbol: str, start: str, end: str | None
) -> None:
    """Whatever is asked comes bit for bit in base units, and the same again sends nothing."""
    now = AUGUST if market_type == "future" else max(NOON, ms(end or start) + HOUR)
    if market_type == "swap" and end:
        now = ms(end) + HOUR  # its past is not served for ever
    world = serve("gate", now)

    asked = world.ask(symbol, timeframe, start, end, market_type=market_type)

    expected = served(symbol, timeframe, start, end or now, now)
    assert len(expected)
    assert same(asked[symbol], expected)
    # A page; a second look at what it lacks, then at the runs at either end of that, twice.
    wanted = asked.result.interval
    assert wanted is not None
    pages = math.ceil((wanted.end - wanted.start) / STEP[timeframe] / PAGE[market_type])
    assert candle_requests(world) <= 6 * pages + (SEARCH if pages >= 4 else 0)
    assert len(asked.requests) == candle_requests(world) + 1 + MARKETS[market_type]
    assert {request.status for request in asked.requests} == {200}
    again = world.ask(symbol, timeframe, start, end, market_type=market_type)
    assert again.requests == []
    assert same(again[symbol], expected)


@pytest.mark.parametrize(
    ("market_type", "symbol"), [("spot", "BTC/USDT"), ("swap", "BTC/USDT:USDT")]
)
def test_whole_pages_cost_a_request_each(serve: Serve, market_type: str, symbol: str) -> None:
    """Three pages with nothing missing take three requests, each as long as is allowed."""
    world = serve("gate")
    size = PAGE[market_type]

    asked = world.ask(
        symbol, "1m", NOON // MINUTE * MINUTE - 3 * size * MINUTE, market_type=market_type
    )

    assert len(asked[symbol]) == 3 * size
    pages = [one.params for one in asked.requests if one.path.endswith("/candlesticks")]
    assert [(int(page["to"]) - int(page["from"])) // 60 + 1 for page in pages] == [size] * 3
    assert all("limit" not in page for page in pages)


@pytest.mark.parametrize("timeframe", ["1m", "1h"])
def test_what_is_older_than_spot_reaches_is_told(serve: Serve, timeframe: str) -> None:
    """All that the API has comes; what is older is beyond its depth and no listing date."""
    world = serve("gate")
    oldest = reach(timeframe, DEPTH, NOON)
    date = {"1m": "2025-06-08 14:15", "1h": "2024-04-25 17:00"}[timeframe]

    asked = world.ask("BTC/USDT", timeframe, "2023-01-01", warns=f"reaches back to {date}")

    assert "download.gatedata.org" in asked.warnings[0]
    assert same(asked["BTC/USDT"], truth("BTC/USDT", timeframe, oldest, NOON))
    assert len(asked["BTC/USDT"]) == DEPTH - 1
    assert candle_requests(world) == 10
    assert world.home.cache.get_inception("gate", "spot", "BTC/USDT") is None
    beyond, market = spans_of(world, "BTC/USDT", timeframe)
    assert beyond == (ms("2023-01-01"), oldest, Served.BEYOND_DEPTH)
    assert market == (oldest, NOON // STEP[timeframe] * STEP[timeframe], Served.MARKET)


@pytest.mark.parametrize("start", ["2023-01-01", "2025-06-08"])
def test_what_it_says_is_too_old_is_beyond_its_depth(serve: Serve, start: str) -> None:
    """How far back contracts go is told by one refusal; all that is within comes."""
    world = serve("gate")
    symbol, oldest = "BTC/USDT:USDT", reach("1m", DEPTH, NOON)

    asked = world.ask(
        symbol, "1m", start, market_type="swap", warns="reaches back to 2025-06-08 14:15"
    )

    assert same(asked[symbol], served(symbol, "1m", oldest, NOON, NOON))
    assert [request.status for request in asked.requests].count(400) == 1
    beyond, market = spans_of(world, symbol, "1m", "swap")
    assert beyond == (ms(start), oldest, Served.BEYOND_DEPTH)
    assert market[0] == oldest
    told = "does not reach back"
    older = world.ask(symbol, "1m", "2022-01-01", "2022-01-02", market_type="swap", warns=told)
    assert len(older[symbol]) == 0
    assert [request.status for request in older.requests] == [400]


def test_a_fetch_of_minutes_does_not_fall_off_the_edge(serve: Serve) -> None:
    """Ten minutes between plan and request still find the oldest page within reach."""
    world = serve("gate")

    def late(event: Event) -> None:
        if isinstance(event, FetchPlanned):
            world.clock.now_ms = NOON + 10 * MINUTE

    asked = world.ask("BTC/USDT", "1m", reach("1m", DEPTH, NOON), NOON, on_event=late)

    assert len(asked["BTC/USDT"]) == DEPTH - 1
    assert {request.status for request in asked.requests} == {200}


def test_before_a_stated_beginning_nothing_was_listed(serve: Serve) -> None:
    """What was silent twice then is no outage, though nobody has looked for the first candle."""
    world = serve("gate", ms("2025-02-15T12:34:56"))
    start = ms("2025-01-20")
    asked = world.ask("ONDO/USDT", "1h", start, "2025-02-05")
    first = int(asked["ONDO/USDT"].open_time[0])
    assert spans_of(world, "ONDO/USDT", "1h") == [
        (start, first, Served.NOT_LISTED),
        (first, ms("2025-02-05"), Served.MARKET),
    ]


def test_swap_before_its_listing_is_told_as_such(serve: Serve) -> None:
    """A contract's first candle is searched for, and all before counts as not listed."""
    now = ms("2022-12-01T12:34:56")
    world = serve("gate", now)

    world.ask("OP/USDT:USDT", "1h", "2022-01-01", market_type="swap")

    first = MARKET.listing("OP/USDT:USDT").listed_ms
    spans = spans_of(world, "OP/USDT:USDT", "1h", "swap")
    assert spans == [
        (0, first, Served.NOT_LISTED),
        (first, now // HOUR * HOUR, Served.MARKET),
    ]


def test_unknown_symbols_and_timeframes(serve: Serve) -> None:
    """Names that mean nothing are refused before any candle is asked for; so are delisted ones."""
    world = serve("gate")

    with pytest.raises(UnknownSymbolError, match="NOPE/USDT"):
        world.ask("NOPE/USDT")
    with pytest.raises(UnknownSymbolError, match="FTT/USDT:USDT"):
        world.ask("FTT/USDT:USDT", market_type="swap")
    with pytest.raises(UnknownTimeframeError, match="1m, 5m"):
        world.ask("BTC/USDT", "3m")

    assert candle_requests(world) == 0


@pytest.mark.parametrize("market_type", ["spot", "swap", "future"])
def test_markets_and_volumes(serve: Serve, market_type: str) -> None:
    """Contract sizes and the 24 h quote volumes are read from Gate's own shapes."""
    now_ms = ms("2026-10-20T12:00") if market_type == "future" else NOON  # when any trade
    world = serve("gate", now_ms)
    kind = MarketType(market_type)

    markets, volumes = markets_and_volumes("gate", kind, world.home.cache, world.config)

    found = {market.symbol: market for market in markets}
    trading = {one.symbol for one in MARKET.listings(kind) if one.trading_at(now_ms)}
    assert trading
    assert {symbol for symbol, market in found.items() if market.active} == trading
    for symbol in trading:
        quote_volume = MARKET.ticker(symbol, now_ms).quote_volume
        assert volumes[symbol] == pytest.approx(quote_volume, rel=1e-6)
        assert found[symbol].contract_size == CONTRACT.get(symbol, found[symbol].contract_size)
