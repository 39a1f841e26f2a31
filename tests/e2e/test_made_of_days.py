"""Weeks and months where an exchange has none of ours: made of its days, and said to be."""

from __future__ import annotations

import json

import numpy as np
import pytest

from backtester.data.errors import UnknownTimeframeError
from backtester.data.fetching.data_fetcher import fetch_data, load_data, update_data
from backtester.data.model import Interval, Served, Timeframe
from backtester.data.sandbox import Fault
from tests.e2e.dialects_support import Serve, reach, serve
from tests.support.world import DAY, MARKET, NOON, ms, same, truth

__all__ = ["serve"]

SWAP = "BTC/USDT:USDT"
WEEK = Timeframe.parse("1w")

CASES = [
    pytest.param("kraken", "spot", "BTC/USDT", "1w", id="kraken-weeks"),
    pytest.param("kraken", "spot", "BTC/USDT", "1M", id="kraken-months"),
    pytest.param("coinbase", "spot", "BTC/USDT", "1w", id="coinbase-weeks"),
    pytest.param("coinbase", "spot", "BTC/USDT", "1M", id="coinbase-months"),
    pytest.param("kucoin", "spot", "BTC/USDT", "1w", id="kucoin-weeks"),
    pytest.param("kucoinfutures", "swap", SWAP, "1w", id="kucoinfutures-weeks"),
    pytest.param("kucoinfutures", "swap", SWAP, "1M", id="kucoinfutures-months"),
    pytest.param("gate", "spot", "BTC/USDT", "1w", id="gate-weeks"),
    pytest.param("gate", "spot", "BTC/USDT", "1M", id="gate-months"),
    pytest.param("gate", "swap", SWAP, "1w", id="gate-swap-weeks"),
    pytest.param("mexc", "spot", "BTC/USDT", "1w", id="mexc-weeks"),
    pytest.param("mexc", "swap", SWAP, "1w", id="mexc-swap-weeks"),
    pytest.param("hyperliquid", "spot", "BTC/USDC", "1w", id="hyperliquid-weeks"),
]
START = "2024-02-07"
"""Inside a week and a month, and inside of what Kraken still shows."""


@pytest.mark.parametrize(("exchange", "market_type", "symbol", "timeframe"), CASES)
def test_they_are_the_markets_own(
    serve: Serve, exchange: str, market_type: str, symbol: str, timeframe: str
) -> None:
    """By the calendar, whole ones only, to the bit; asked for once, and noted as made of days."""
    world = serve(exchange)
    expected = truth(symbol, timeframe, START, NOON)
    asked = world.ask(symbol, timeframe, START, market_type=market_type)
    assert asked[symbol].open_time.tolist() == expected.open_time.tolist()
    assert np.array_equal(asked[symbol].values[:, :4], expected.values[:, :4])
    if market_type == "spot" and exchange != "hyperliquid":
        assert same(asked[symbol], expected), "volumes, too"
    else:  # counted in contracts of so much, or in coins
        days = world.stored(symbol, "1d", market_type).candles
        for opened, volume in zip(expected.open_time, asked[symbol].values[:, 4], strict=True):
            unit = Timeframe.parse(timeframe)
            inside = days.within(Interval(int(opened), unit.next(int(opened))))
            assert volume == pytest.approx(inside.values[:, 4].sum(), rel=1e-12)
    (note,) = asked.result.derived[symbol]
    assert (note["from"], note["start_ms"]) == ("1d", int(expected.open_time[0]))
    world.new_process()
    warm = world.ask(symbol, timeframe, START, market_type=market_type)
    assert same(warm[symbol], asked[symbol])
    assert warm.requests == []
    assert warm.result.derived == asked.result.derived


@pytest.mark.parametrize("start", ["inception", None])
def test_all_there_is(serve: Serve, start: str | None) -> None:
    """From before the first candle on, which may be a week of the year 1970."""
    asked = serve("kucoin").ask("ONDO/USDT", "1w", start)
    assert same(asked["ONDO/USDT"], truth("ONDO/USDT", "1w", "2025-01-01", NOON))


def test_weeks_of_an_exchange_that_nobody_has_looked_up(serve: Serve) -> None:
    """They may open on any day: those of days do on Monday."""
    asked = serve("gate", exchange="gateeu").ask("BTC/USDT", "1w", "2025-01-01")
    assert same(asked["BTC/USDT"], truth("BTC/USDT", "1w", "2025-01-01", NOON))
    (note,) = asked.result.derived["BTC/USDT"]
    assert note["from"] == "1d"


def test_days_that_are_stored_are_not_asked_again(serve: Serve) -> None:
    """Weeks after days, and months after both, cost no page."""
    world = serve("coinbase")
    world.ask("BTC/USDT", "1d", "2024-01-01", "2025-06-09")
    sent = len(world.sent())
    weeks = world.ask("BTC/USDT", "1w", "2024-01-01", "2025-06-09")
    months = world.ask("BTC/USDT", "1M", "2024-01-01", "2025-06-01")
    assert same(weeks["BTC/USDT"], truth("BTC/USDT", "1w", "2024-01-01", "2025-06-09"))
    assert same(months["BTC/USDT"], truth("BTC/USDT", "1M", "2024-01-01", "2025-06-01"))
    assert not [request for request in world.sent(sent) if "candles" in request.path]


def test_before_the_listing_and_beyond_the_depth(serve: Serve) -> None:
    """A week of the listing is whole; one that the API shows in part is beyond its depth."""
    world = serve("coinbase")
    asked = world.ask("ONDO/USDT", "1w", "2024-12-02", "2025-03-03")
    assert same(asked["ONDO/USDT"], truth("ONDO/USDT", "1w", "2024-12-02", "2025-03-03"))
    assert int(asked["ONDO/USDT"].open_time[0]) == ms("2025-01-27")
    monday = NOON + DAY
    kraken = serve("kraken", monday)
    oldest = reach("1d", 721, monday)
    first = WEEK.ceil(oldest)
    assert first != oldest, "or there would be nothing to see"
    cut = kraken.ask("BTC/USDT", "1w", "2023-01-02", warns="reaches back")
    assert same(cut["BTC/USDT"], truth("BTC/USDT", "1w", first, monday, monday))
    spans = kraken.stored("BTC/USDT", "1w").coverage
    beyond = [span.interval for span in spans if span.served is Served.BEYOND_DEPTH]
    assert beyond == [Interval(ms("2023-01-02"), first)]
    again = kraken.ask("BTC/USDT", "1w", "2023-01-02", warns="reaches back")
    assert again.requests == []


def test_the_forming_week_is_what_there_is_of_it(serve: Serve) -> None:
    """Its days and the forming one make it; it is handed out and never stored."""
    world = serve("coinbase")
    asked = world.ask("BTC/USDT", "1w", "2025-05-05", include_forming=True)
    shown = MARKET.bars("BTC/USDT", WEEK, Interval(ms("2025-05-05"), NOON), NOON)
    assert asked["BTC/USDT"].open_time.tolist() == shown.open_time.tolist()
    scale = [10.0**places for places in (shown.decimals or (0,) * 9)[:5]]
    assert asked["BTC/USDT"].values[-1].tolist() == pytest.approx(
        (shown.table[:5, -1] / scale).tolist(), rel=1e-12
    )
    assert same(world.stored("BTC/USDT", "1w").candles, truth("BTC/USDT", "1w", "2025-05-05", NOON))
    world.clock.now_ms += 7 * DAY
    later = world.ask("BTC/USDT", "1w", "2025-05-05")
    now = world.clock()
    assert same(later["BTC/USDT"], truth("BTC/USDT", "1w", "2025-05-05", now, now))


def test_loaded_and_updated_like_any_other(serve: Serve) -> None:
    """The dataset is there under its own name, says what it is made of, and goes on."""
    world = serve("kucoin")
    dates = ("2025-01-06", "2025-05-05")
    data = fetch_data("BTC/USDT", "kucoin", "1w", *dates, exchange_config=world.config)
    assert data.wrapper._metadata["derived"]["BTC/USDT"][0]["from"] == "1d"
    loaded = load_data("kucoin", "1w")
    assert loaded.wrapper._metadata["made_of"] == "1d"
    assert len(loaded.index) == 17
    newer = update_data("kucoin", "1w", exchange_config=world.config)
    closes = truth("BTC/USDT", "1w", "2025-01-06", NOON).values[:, 3]
    assert newer.get("Close")["BTC/USDT"].to_numpy().tolist() == closes.tolist()
    json.dumps(dict(newer.wrapper._metadata["derived"]))


def test_a_failing_symbol_fails_alone_and_a_revised_day_revises_its_week(serve: Serve) -> None:
    """Faults and revisions of the days arrive at the weeks."""
    world = serve("coinbase")
    world.faults.add(Fault.HTTP_404, match="ETH-USDT/candles")
    dates = ("2025-04-28", "2025-05-12")
    asked = world.ask(["BTC/USDT", "ETH/USDT"], "1w", *dates, warns="ETH/USDT")
    assert list(asked.result.failures) == ["ETH/USDT"]
    before = asked["BTC/USDT"].values[0].tolist()
    changed = truth("BTC/USDT", "1d", "2025-04-30", "2025-05-01").values[0].tolist()
    changed[1] *= 2
    world.faults.revise("BTC/USDT", "1d", ms("2025-04-30"), changed)
    again = world.ask("BTC/USDT", "1w", *dates, use_cache=False)
    assert again["BTC/USDT"].values[0, 1] == changed[1]
    (revision,) = again.result.revisions["BTC/USDT"]
    assert (revision.open_time, list(revision.old)) == (ms("2025-04-28"), before)


def test_other_lengths_are_refused_as_ever(serve: Serve) -> None:
    """What days do not make, or what nobody asked to be made, is no candle of the exchange."""
    world = serve("kraken")
    with pytest.raises(UnknownTimeframeError, match="that open when ours do"):
        world.ask("BTC/USDT", "2w", "2024-01-01", "2025-01-01")
    with pytest.raises(UnknownTimeframeError, match="1m, 5m"):
        world.ask("BTC/USDT", "3M", "2024-01-01", "2025-01-01")
    assert world.sent() == []
