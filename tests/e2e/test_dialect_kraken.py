"""Kraken, certified: ccxt's own class against a server that speaks Kraken's dialect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backtester.data.candles import Candles
from backtester.data.errors import UnknownMarketTypeError, UnknownSymbolError
from backtester.data.events import Event, FetchPlanned
from backtester.data.fetching.online import markets_and_volumes
from backtester.data.model import MarketType, Served
from backtester.data.sandbox import Fault
from tests.e2e.dialects_support import (
    KRAKEN_ROWS,
    Serve,
    kraken_truth,
    reach,
    serve,
    spans_of,
)
from tests.support.world import DAY, HOUR, MARKET, MINUTE, NOON, World, ms, same

__all__ = ["serve"]

LOAD = 3
"""Requests before the first candle: the clock, the assets, the pairs."""


def check(
    world: World, symbol: str, timeframe: str, start: int, end: int, **options: Any
) -> Candles:
    """Ask cold and warm, and compare with the truth."""
    expected = kraken_truth(symbol, timeframe, start, end, world.clock())
    cold = world.ask(symbol, timeframe, start, end, **options)
    assert same(cold[symbol], expected)
    warm = world.ask(symbol, timeframe, start, end, **options)
    assert same(warm[symbol], expected)
    assert warm.requests == []
    return expected


@pytest.mark.parametrize("timeframe", ["1m", "1h", "1d"])
def test_from_before_the_listing_everything_within_its_depth_comes(
    serve: Serve, timeframe: str
) -> None:
    """All 720 complete candles come, older ones are told as beyond the API's depth."""
    world = serve("kraken")
    oldest = reach(timeframe, KRAKEN_ROWS, NOON)
    told = f"reaches back to {np.datetime64(oldest // MINUTE, 'm')}".replace("T", " ")
    found = check(world, "BTC/USDT", timeframe, ms("2017-01-01"), NOON, warns=told)
    assert len(found) == KRAKEN_ROWS - 1
    # The window fits into one page, so one request brings all of it.
    assert [r.path for r in world.sent()].count("/0/public/OHLC") == 1
    assert len(world.sent()) == LOAD + 1
    beyond, market = spans_of(world, "BTC/USDT", timeframe)
    assert beyond[1:] == (oldest, Served.BEYOND_DEPTH)
    assert market[0] == oldest
    assert market[2] is Served.MARKET


def test_the_warning_names_the_archive(serve: Serve) -> None:
    """Who asks for more than the API has is told where the rest is."""
    world = serve("kraken")
    world.ask("ETH/EUR", "1h", "2024-01-01", "2025-06-01", warns="support.kraken.com")


def test_what_is_beyond_the_depth_altogether_is_no_listing_date(serve: Serve) -> None:
    """Of a window older than the API is sure to reach two answers have to show nothing."""
    world = serve("kraken")
    told = "beyond depth / BTC/USDT: kraken's API does not reach back to [2024-01-01 00:00 UTC, "
    asked = world.ask("BTC/USDT", "1m", "2024-01-01", "2024-01-02", warns=told)
    assert len(asked["BTC/USDT"]) == 0
    assert len(asked.requests) == LOAD + 2
    assert world.home.cache.get_inception("kraken", "spot", "BTC/USDT") is None
    assert {served for *_, served in spans_of(world, "BTC/USDT", "1m")} == {Served.BEYOND_DEPTH}


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (NOON - 3 * HOUR, NOON - HOUR),  # neither on the grid
        (ms("2025-06-15T02:00"), ms("2025-06-15T02:07")),
        (ms("2025-06-15T12:30"), NOON + DAY),
    ],
    ids=["unaligned", "small", "into-the-future"],
)
def test_windows_inside_the_depth(serve: Serve, start: int, end: int) -> None:
    """Small windows, unaligned ones and those that reach into the future give their candles."""
    assert len(check(serve("kraken"), "SOL/USDT", "1m", start, end))


def test_an_outage_longer_than_a_page_is_filled_in(serve: Serve) -> None:
    """An outage of 18 hours is shown flat, as Kraken shows it."""
    now = ms("2026-03-15T17:00:10")
    found = check(serve("kraken", now), "BTC/USDT", "1m", ms("2026-03-15T05:01"), now)
    assert (found.values[:, 4] == 0).sum() > 600


def test_minutes_without_trades_are_filled_in(serve: Serve) -> None:
    """Scattered minutes without trades are flat candles without volume."""
    now = ms("2022-03-01T12:00:30")
    found = check(serve("kraken", now), "REP/USDT", "1m", now - 11 * HOUR, now)
    assert 0 < (found.values[:, 4] == 0).sum() < len(found)


def test_a_market_younger_than_the_depth_begins_with_its_first_candle(serve: Serve) -> None:
    """A market of two hours gives these two hours, and is not said to have a listing date."""
    now = ms("2026-10-06T15:10:10")
    world = serve("kraken", now)
    found = check(
        world, "KITE/USDT", "1m", now - DAY, now, warns="reaches back to 2026-10-06 03:10"
    )
    assert found.open_time[0] >= ms("2026-10-06T13:00")
    assert Served.NOT_LISTED not in {span[2] for span in spans_of(world, "KITE/USDT", "1m")}
    # One window, two answers that must pass over what was not there, two of what might be older.
    assert len(world.sent()) == LOAD + 5


def test_what_sinks_below_the_depth_during_a_fetch_is_no_gap(serve: Serve) -> None:
    """Candles that the API lets go of between plan and request are told as beyond its depth."""
    world = serve("kraken")

    def late(event: Event) -> None:
        if isinstance(event, FetchPlanned):
            world.clock.now_ms = NOON + 3 * MINUTE

    start = reach("1m", KRAKEN_ROWS, NOON)
    asked = world.ask(
        "BTC/USDT", "1m", start, NOON, warns="reaches back to 2025-06-15 00:37", on_event=late
    )
    expected = kraken_truth("BTC/USDT", "1m", start + 3 * MINUTE, NOON)
    assert same(asked["BTC/USDT"], expected)
    assert spans_of(world, "BTC/USDT", "1m")[0] == (
        start,
        start + 3 * MINUTE,
        Served.BEYOND_DEPTH,
    )


def test_kraken_has_no_swaps(serve: Serve) -> None:
    """Contracts are another exchange's business, and that is said before anything is asked."""
    with pytest.raises(UnknownMarketTypeError):
        serve("kraken").ask("BTC/USDT:USDT", "1h", "2025-06-01", market_type="swap")


def test_names_are_kraken_s_and_unified(serve: Serve) -> None:
    """Markets with Kraken's class letters and old names are found by either name."""
    world = serve("kraken")
    start, end = NOON - 5 * HOUR, NOON
    for name, symbol in (
        ("XXBTZEUR", "BTC/EUR"),
        ("DOGE/USDT", "DOGE/USDT"),
        ("XETHXXBT", "ETH/BTC"),
        ("SOLXBT", "SOL/BTC"),
    ):
        found = world.ask(name, "1h", start, end)[name]
        assert same(found, kraken_truth(symbol, "1h", start, end))


def test_unknown_and_delisted_symbols_fail_by_name(serve: Serve) -> None:
    """A name that Kraken does not list fails, the others come, and no candle is asked of it."""
    world = serve("kraken")
    with pytest.raises(UnknownSymbolError, match="WAVES/USDT"):
        world.ask("WAVES/USDT", "1h", "2025-06-10", "2025-06-11")
    asked = world.ask(
        ["BTC/USDT", "NOPE/USDT"], "1h", "2025-06-10", "2025-06-11", warns="NOPE/USDT"
    )
    assert len(asked["BTC/USDT"]) == 24
    assert list(asked.result.failures) == ["NOPE/USDT"]


def test_limits_of_the_server_are_not_met(serve: Serve) -> None:
    """With the limiter on, the server's limit of one request a second refuses nothing."""
    world = serve("kraken", limited=True)
    check(world, "BTC/USDT", "1h", NOON - 2 * DAY, NOON)
    assert {request.status for request in world.sent()} == {200}
    assert len(world.sent()) == LOAD + 1


def test_volumes_and_markets(serve: Serve) -> None:
    """The listing and the 24 h quote volumes are read from Kraken's own shapes."""
    world = serve("kraken")
    markets, volumes = markets_and_volumes(
        "kraken", MarketType.SPOT, world.home.cache, world.config
    )
    trading = {one.symbol for one in MARKET.listings("spot") if one.trading_at(NOON)}
    assert {market.symbol for market in markets} == set(volumes) == trading
    for symbol in ("BTC/EUR", "DOGE/USDT"):
        assert volumes[symbol] == pytest.approx(MARKET.ticker(symbol, NOON).quote_volume, rel=1e-6)


def test_the_forming_candle_is_handed_out(serve: Serve) -> None:
    """The last row, which is not closed, comes when it is asked for and is not stored."""
    world = serve("kraken")
    asked = world.ask("BTC/USDT", "1h", NOON - DAY, include_forming=True)
    assert asked.result.forming["BTC/USDT"].open_time.tolist() == [ms("2025-06-15T12:00")]
    assert world.stored("BTC/USDT").candles.open_time[-1] == ms("2025-06-15T11:00")


def test_kraken_s_clock_decides_what_is_closed(serve: Serve) -> None:
    """Where its clock is five hours behind, so are the candles."""
    world = serve("kraken")
    world.faults.add(Fault.WRONG_CLOCK, offset_ms=-5 * HOUR)
    asked = world.ask("BTC/USDT", "1h", NOON - 2 * DAY)
    assert same(
        asked["BTC/USDT"],
        kraken_truth("BTC/USDT", "1h", NOON - 2 * DAY, NOON, NOON - 5 * HOUR),
    )
