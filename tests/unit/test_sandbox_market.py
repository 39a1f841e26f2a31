"""The synthetic market: exact, positionless, deterministic, and shaped like an exchange."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtester.data.candles import Candles, check
from backtester.data.errors import UnknownSymbolError, UnknownTimeframeError
from backtester.data.model import Interval, Timeframe
from backtester.data.sandbox.market import SyntheticMarket
from backtester.data.sandbox.source import Bars, Listing, newest, oldest

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOVEMBER_2026 = 1_795_305_600_000  # 2026-11-22
MARKET = SyntheticMarket()
LISTINGS = MARKET.listings()
SYMBOLS = [listing.symbol for listing in LISTINGS]
ONE_MINUTE = Timeframe.parse("1m")

symbols = st.sampled_from(SYMBOLS)
properties = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def life(listing: Listing) -> Interval:
    return Interval(listing.listed_ms, listing.delisted_ms or NOVEMBER_2026 + 365 * DAY)


def moments(symbol: str) -> st.SearchStrategy[int]:
    """Times around a symbol's life, with its ends and the exchange's outages more often."""
    alive = life(MARKET.listing(symbol))
    edges = [alive.start, alive.end, alive.start - HOUR, alive.end - HOUR]
    edges += [at for outage in MARKET.outages for at in (outage.start - HOUR, outage.end - HOUR)]
    return st.one_of(st.integers(alive.start - DAY, alive.end + DAY), st.sampled_from(edges))


def lots(symbol: str, candles: Candles) -> list[tuple[int, int, int, int, int]]:
    """Candles as whole ticks and lots."""
    listing = MARKET.listing(symbol)
    scale = [10**listing.price_decimals] * 4 + [10**listing.lot_decimals]
    return [
        tuple(round(value * by) for value, by in zip(row, scale, strict=True))
        for row in candles.values.tolist()
    ]


def by_hand(symbol: str, timeframe: Timeframe, minutes: Candles) -> dict[int, tuple[int, ...]]:
    """Aggregate minutes in plain Python."""
    rows = zip(minutes.open_time.tolist(), lots(symbol, minutes), strict=True)
    bars = {}
    for opened, group in groupby(rows, key=lambda row: timeframe.floor(row[0])):
        opens, highs, lows, closes, volumes = zip(*(row for _, row in group), strict=True)
        bars[opened] = (opens[0], max(highs), min(lows), closes[-1], sum(volumes))
    return bars


@properties
@given(st.data(), symbols)
@pytest.mark.parametrize("text", ["3m", "15m", "30m", "1h", "4h", "12h", "7m", "90m", "1d"])
def test_coarser_bars_are_exactly_their_minutes(text: str, data: st.DataObject, symbol: str):
    """Open, high, low, close and volume of a bar follow from its minutes without rounding."""
    timeframe = Timeframe.parse(text)
    start = timeframe.floor(data.draw(moments(symbol)))
    window = Interval(start, timeframe.next(start, data.draw(st.integers(1, 3))))
    bars = MARKET.candles(symbol, timeframe, window)
    expected = by_hand(symbol, timeframe, MARKET.candles(symbol, ONE_MINUTE, window))
    assert dict(zip(bars.open_time.tolist(), lots(symbol, bars), strict=True)) == expected


@pytest.mark.parametrize("text", ["3d", "1w", "1M"])
@pytest.mark.parametrize("symbol", ["BTC/USDT", "REP/USDT", "1000PEPE/USDT:USDT"])
def test_weeks_and_months_are_exactly_their_minutes(symbol: str, text: str):
    """Bars longer than a day stand on Mondays and first days and add up like the others."""
    timeframe = Timeframe.parse(text)
    first = timeframe.next(timeframe.floor(MARKET.listing(symbol).listed_ms))
    for start in (timeframe.floor(first - 1), timeframe.next(first, 5)):
        window = Interval(start, timeframe.next(start))
        bars = MARKET.candles(symbol, timeframe, window)
        expected = by_hand(symbol, timeframe, MARKET.candles(symbol, ONE_MINUTE, window))
        assert dict(zip(bars.open_time.tolist(), lots(symbol, bars), strict=True)) == expected


@properties
@given(st.data(), symbols, st.sampled_from(["1m", "5m", "1h", "6h", "1d", "1w"]))
def test_any_split_gives_the_same_candles(data: st.DataObject, symbol: str, text: str):
    """Asking a market without any memory in pieces gives what one question gives."""
    timeframe = Timeframe.parse(text)
    start = data.draw(moments(symbol))
    whole = Interval(start, timeframe.next(start, data.draw(st.integers(1, 400))))
    cuts = sorted(data.draw(st.lists(st.integers(whole.start, whole.end), max_size=3)))
    edges = [whole.start, *cuts, whole.end]
    fresh = SyntheticMarket()
    parts = [
        fresh.candles(symbol, timeframe, Interval(left, right))
        for left, right in pairwise(edges)
        if left < right
    ]
    joined = Candles(
        np.concatenate([part.open_time for part in parts]),
        np.concatenate([part.values for part in parts]),
    )
    assert joined == MARKET.candles(symbol, timeframe, whole)


def test_a_seed_is_a_market_in_any_process():
    """Another interpreter makes the same bits of the same seed."""
    code = (
        "from backtester.data.sandbox.market import SyntheticMarket\n"
        "from backtester.data.model import Interval, Timeframe\n"
        "market = SyntheticMarket(seed=5)\n"
        "window = Interval(1_700_000_000_000, 1_700_000_600_000)\n"
        "print(market.candles('ETH/BTC', Timeframe.parse('1m'), window).values.tobytes().hex())\n"
    )
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    window = Interval(1_700_000_000_000, 1_700_000_600_000)
    here = SyntheticMarket(seed=5).candles("ETH/BTC", ONE_MINUTE, window)
    assert len(here) > 0
    assert other.stdout.strip() == here.values.tobytes().hex()


def test_the_default_market_never_changes():
    """One candle is pinned, since pipelines compare today's run with last year's."""
    window = Interval(1_700_000_000_000, 1_700_000_060_000)
    candles = MARKET.candles("BTC/USDT", ONE_MINUTE, window)
    assert candles.open_time.tolist() == [1_700_000_040_000]
    assert candles.values.tolist() == [[79224.04, 79251.44, 79173.92, 79196.62, 9.98289]]


def test_another_seed_is_another_market():
    """Prices differ between seeds; what is listed does not."""
    other = SyntheticMarket(seed=1)
    window = Interval(1_700_000_000_000, 1_700_006_000_000)
    ours = MARKET.candles("BTC/USDT", ONE_MINUTE, window)
    theirs = other.candles("BTC/USDT", ONE_MINUTE, window)
    assert other.listings() == LISTINGS
    assert ours.open_time.tolist() == theirs.open_time.tolist()
    assert not (ours.values == theirs.values).any()


def test_threads_see_one_market():
    """Eight threads asking at once get what one would."""
    market, days = SyntheticMarket(), Timeframe.parse("1d")
    window = Interval(1_600_000_000_000, 1_610_000_000_000)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: market.candles("SOL/USDT", days, window), range(16)))
    assert all(answer == MARKET.candles("SOL/USDT", days, window) for answer in answers)


# --------------------------------------------------------------------------- shape


@pytest.mark.parametrize("listing", LISTINGS, ids=SYMBOLS)
def test_candles_begin_and_end_with_the_listing(listing: Listing):
    """Nothing trades before the listing or from the delisting on, and something soon after."""
    alive = life(listing)
    days = 40 * DAY
    before = Interval(alive.start - days, alive.start)
    start = Interval(alive.start, alive.start + 6 * HOUR)
    assert not len(MARKET.candles(listing.symbol, ONE_MINUTE, before))
    assert len(MARKET.candles(listing.symbol, ONE_MINUTE, start)) > 100
    if listing.delisted_ms is not None:
        last = Interval(alive.end - 6 * HOUR, alive.end)
        assert len(MARKET.candles(listing.symbol, ONE_MINUTE, last)) > 100
        after = Interval(alive.end, alive.end + days)
        assert not len(MARKET.candles(listing.symbol, ONE_MINUTE, after))
        assert not len(MARKET.candles(listing.symbol, Timeframe.parse("1d"), after))


@pytest.mark.parametrize("listing", LISTINGS, ids=SYMBOLS)
def test_candles_are_sound(listing: Listing):
    """Every candle passes the library's own check, and no integer comes near its limits."""
    alive = life(listing)
    year = Interval(alive.start, min(alive.start + 400 * DAY, alive.end))
    for text, window in (("1d", year), ("1m", Interval(alive.start, alive.start + 2 * DAY))):
        timeframe = Timeframe.parse(text)
        candles = MARKET.candles(listing.symbol, timeframe, window)
        assert check(candles.open_time, candles.values, timeframe, Interval(0, 2**53)) == candles
        assert (candles.values[:, 4] > 0).all()
    months = MARKET.bars(listing.symbol, Timeframe.parse("1M"), year, year.end)
    assert months.table.min() >= 0
    assert months.table[4].max() < 2**53  # a volume must be a float without rounding
    assert months.table[5].max() < 2**61  # a quote volume must be an integer of 63 bits


@pytest.mark.parametrize("symbol", ["BTC/USDT", "ETH/BTC", "PEPE/USDT", "BTC/JPY", "USDC/USDT"])
def test_prices_are_plausible(symbol: str):
    """Prices move like those of their kind, and neither run away nor stand still over the years."""
    alive = life(MARKET.listing(symbol))
    days = MARKET.candles(symbol, Timeframe.parse("1d"), alive).values
    moves = np.diff(np.log(days[:, 3])).std()
    assert moves < 0.001 if symbol == "USDC/USDT" else 0.01 < moves < 0.1
    assert days[:, 1].max() / days[:, 2].min() < 300


def test_the_majors_trade_every_minute_outside_outages():
    """BTC has no minute missing but those of the exchange's outages, from its first to now."""
    listing = MARKET.listing("BTC/USDT")
    assert listing.listed_ms == 1_502_942_400_000  # 2017-08-17 04:00
    missing = 0
    for year in (2017, 2018, 2026):
        start = int(np.datetime64(f"{year}-01-01", "ms").astype(np.int64))
        window = Interval(max(start, listing.listed_ms), start + 365 * DAY)
        candles = MARKET.candles("BTC/USDT", ONE_MINUTE, window)
        closed = [part for outage in MARKET.outages if (part := outage.intersection(window))]
        gaps = window.subtract(ONE_MINUTE.runs(candles.open_time))
        assert gaps == closed
        missing += len(gaps)
    assert missing > 4


def test_no_symbol_trades_in_an_outage():
    """An outage stops every market at once, and bars inside of one are absent."""
    for outage in MARKET.outages:
        for symbol in ("BTC/USDT", "ETH/BTC", "DOGE/USDT", "BTC/USDT:USDT"):
            assert not len(MARKET.candles(symbol, ONE_MINUTE, outage))
    night = next(outage for outage in MARKET.outages if outage.end - outage.start > 12 * HOUR)
    hours = MARKET.candles("BTC/USDT", Timeframe.parse("1h"), night)
    assert len(hours) <= 1


def test_some_outage_is_longer_than_a_page_of_minutes():
    """A pager that stops at an empty page of 1000 minutes is caught out by one outage at least."""
    assert max(outage.end - outage.start for outage in MARKET.outages) > 1000 * MINUTE
    assert min(outage.end - outage.start for outage in MARKET.outages) < HOUR


def test_illiquid_symbols_miss_minutes_but_not_days():
    """Where little is traded, minutes without a candle are common and days without one unknown."""
    window = Interval(1_610_000_000_000, 1_610_000_000_000 + 2 * DAY)
    minutes = MARKET.candles("REP/USDT", ONE_MINUTE, window)
    assert 0.3 < len(minutes) / (2 * 1440) < 0.95
    days = Timeframe.parse("1d")
    year = Interval(1_610_000_000_000, 1_640_000_000_000)
    assert len(MARKET.candles("REP/USDT", days, year)) == days.steps(year)


def test_the_universe_has_what_pipelines_trip_over():
    """Many quotes, tiny prices, recent and delisted symbols, expired and running contracts."""
    spot, swap, future = (MARKET.listings(kind) for kind in ("spot", "swap", "future"))
    assert len(spot) >= 100
    assert len(swap) >= 30
    assert len(future) == 6
    assert {listing.market.quote for listing in spot} >= {"USDT", "BTC", "EUR", "JPY", "USDC"}
    assert len({listing.symbol for listing in LISTINGS}) == len(LISTINGS)
    assert min(listing.listed_ms for listing in spot) == MARKET.listing("BTC/USDT").listed_ms
    recent = [item for item in spot if 0 < NOVEMBER_2026 - item.listed_ms < 60 * DAY]
    assert len(recent) >= 3
    assert len([item for item in spot if item.delisted_ms is not None]) >= 5
    assert {item.trading_at(NOVEMBER_2026) for item in future} == {True, False}
    assert MARKET.listing("PEPE/USDT").price_decimals == 8
    assert "BTC/USDT:USDT-261225" in SYMBOLS
    assert MARKET.listing("BTC/USDT:USDT-261225").market.id == "BTCUSDT_261225"


def test_a_swap_has_a_price_of_its_own():
    """Spot, swap and dated contract of one asset move together at different prices."""
    window = Interval(NOVEMBER_2026 - DAY, NOVEMBER_2026)
    closes = [
        MARKET.candles(symbol, ONE_MINUTE, window).values[:, 3]
        for symbol in ("BTC/USDT", "BTC/USDT:USDT", "BTC/USDT:USDT-261225")
    ]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert not (closes[one] == closes[other]).any()
        assert np.abs(closes[one] / closes[other] - 1).max() < 0.02


def test_crosses_agree_with_their_legs():
    """ETH in BTC is worth about ETH in dollars by BTC in dollars."""
    window = Interval(1_650_000_000_000, 1_650_010_000_000)
    eth, btc, cross = (
        MARKET.candles(symbol, Timeframe.parse("1h"), window).values[:, 3]
        for symbol in ("ETH/USDT", "BTC/USDT", "ETH/BTC")
    )
    assert np.abs(eth / btc / cross - 1).max() < 0.01


# --------------------------------------------------------------------------- at a moment


@properties
@given(st.data(), symbols, st.sampled_from(["1m", "15m", "1h", "1d", "1w", "1M"]))
def test_what_is_shown_now_is_the_truth_and_one_forming_candle(
    data: st.DataObject, symbol: str, text: str
):
    """Closed candles are final, the forming one holds the minutes so far, nothing is ahead."""
    timeframe = Timeframe.parse(text)
    now = data.draw(moments(symbol))
    window = Interval(timeframe.next(now, -5), timeframe.next(now, 3))
    shown = MARKET.bars(symbol, timeframe, window, now)
    forming = timeframe.floor(now)
    closed = MARKET.candles(symbol, timeframe, Interval(window.start, forming))
    count = len(closed)
    assert shown.open_time[:count].tolist() == closed.open_time.tolist()
    assert list(zip(*shown.table[:5, :count].tolist(), strict=True)) == lots(symbol, closed)
    assert shown.open_time[count:].tolist() in ([], [forming])
    if len(shown) > count:
        whole = lots(symbol, MARKET.candles(symbol, timeframe, Interval(forming, forming + 1)))[0]
        opened, high, low, close, volume = shown.table[:5, -1].tolist()
        assert opened == whole[0]
        assert whole[2] <= low <= min(opened, close) <= max(opened, close) <= high <= whole[1]
        assert 0 < volume <= whole[4]


def test_a_forming_candle_grows_minute_by_minute():
    """Its volume is that of the minutes gone by, and a part of the running one's."""
    hour = 1_650_002_400_000
    minutes = MARKET.candles("BTC/USDT", ONE_MINUTE, Interval(hour, hour + HOUR))
    volumes = np.rint(minutes.values[:, 4] * 1e5).astype(int)
    window = Interval(hour, hour + 1)
    for at in range(1, 60):
        whole = MARKET.bars("BTC/USDT", Timeframe.parse("1h"), window, hour + at * MINUTE)
        half = MARKET.bars("BTC/USDT", Timeframe.parse("1h"), window, hour + at * MINUTE + 30_000)
        assert whole.table[4, 0] == volumes[:at].sum()
        assert half.table[4, 0] == volumes[:at].sum() + volumes[at] // 2
    assert len(MARKET.bars("BTC/USDT", Timeframe.parse("1h"), window, hour)) == 0


@pytest.mark.parametrize("symbol", ["BTC/USDT", "ETH/BTC", "TUSD/USDT", "BTC/USDT:USDT"])
def test_a_ticker_is_the_last_day_of_minutes(symbol: str):
    """Volume, quote volume, extremes and last price are those of the 1440 minutes before."""
    now = 1_700_000_040_000
    ticker = MARKET.ticker(symbol, now)
    bars = MARKET.bars(symbol, ONE_MINUTE, Interval(now - DAY, now), now)
    prices = bars.table[:4] / 10 ** bars.decimals[0]
    assert ticker.volume == int(bars.table[4].sum()) / 10 ** bars.decimals[4]
    assert ticker.quote_volume == int(bars.table[5].sum()) / 10 ** bars.decimals[5]
    assert (ticker.open, ticker.last) == (prices[0, 0], prices[3, -1])
    assert (ticker.high, ticker.low) == (prices[1].max(), prices[2].min())
    assert ticker.low <= ticker.weighted_average <= ticker.high


def test_a_ticker_without_trades_stands_at_the_last_price():
    """After a delisting, and in the middle of the longest outage, nothing has been traded."""
    dead = MARKET.ticker("REP/USDT", NOVEMBER_2026)
    last = MARKET.listing("REP/USDT").delisted_ms
    final = MARKET.candles("REP/USDT", ONE_MINUTE, Interval(last - DAY, last))
    assert (dead.volume, dead.quote_volume, dead.trades) == (0, 0, 0)
    assert dead.last == dead.open == final.values[-1, 3]
    outage = max(MARKET.outages, key=lambda outage: outage.end - outage.start)
    waiting = MARKET.ticker("BTC/USDT", outage.end - HOUR)
    before = MARKET.candles("BTC/USDT", ONE_MINUTE, Interval(outage.start - HOUR, outage.start))
    assert waiting.volume == 0
    assert waiting.last == before.values[-1, 3]


# --------------------------------------------------------------------------- paging


def shown(bars: Bars) -> list[int]:
    return bars.open_time.tolist()


@properties
@given(
    st.data(),
    st.sampled_from(["BTC/USDT", "REP/USDT", "LUNA/USDT", "LUMEA/USDT", "TUSD/USDT"]),
    st.sampled_from(["1m", "1h", "1d"]),
    st.integers(1, 120),
)
def test_paging_finds_the_nearest_candles_however_far(
    data: st.DataObject, symbol: str, text: str, limit: int
):
    """The first and the last n candles of an interval are those of its whole list."""
    timeframe, listing = Timeframe.parse(text), MARKET.listing(symbol)
    now = data.draw(moments(symbol))
    start = timeframe.next(now, -data.draw(st.integers(1, 900)))
    end = data.draw(st.integers(start + 1, now + 10 * DAY))
    window = Interval(start, max(end, start + 1))
    every = shown(MARKET.bars(symbol, timeframe, window, now))
    assert shown(oldest(MARKET, listing, timeframe, window, limit, now)) == every[:limit]
    assert shown(newest(MARKET, listing, timeframe, window, limit, now)) == every[-limit:]


def test_paging_from_the_epoch_starts_at_the_listing():
    """Decades without candles cost nothing to skip."""
    listing = MARKET.listing("BTC/USDT")
    page = oldest(MARKET, listing, ONE_MINUTE, Interval(0, 2**53), 3, NOVEMBER_2026)
    assert shown(page) == [listing.listed_ms + at * MINUTE for at in range(3)]
    dead = MARKET.listing("VEN/BTC")
    page = newest(MARKET, dead, ONE_MINUTE, Interval(0, 2**53), 3, NOVEMBER_2026)
    assert dead.delisted_ms - HOUR < shown(page)[-1] < dead.delisted_ms


# --------------------------------------------------------------------------- questions


def test_unknown_symbols_and_seconds_are_named():
    """What the market cannot answer is an error of the caller, never an empty table."""
    window = Interval(1_650_000_000_000, 1_650_000_060_000)
    with pytest.raises(UnknownSymbolError, match="BTCUSDT"):
        MARKET.candles("BTCUSDT", ONE_MINUTE, window)
    with pytest.raises(UnknownTimeframeError, match="1s"):
        MARKET.candles("BTC/USDT", Timeframe.parse("1s"), window)


def test_importing_the_sandbox_loads_no_server():
    """The package can be named without paying for an HTTP library or an exchange client."""
    code = (
        "import sys, backtester.data.sandbox as sandbox\n"
        "heavy = {'aiohttp', 'ccxt', 'pandas', 'vectorbt', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert sandbox.SandboxServer.__name__ == 'SandboxServer'\n"
        "assert 'aiohttp' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
