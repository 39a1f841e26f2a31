"""What a fetch costs the client: CPU time, start-up, memory."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from typing import Any

from benchmarks.harness import Row, in_child, peak_bytes, sandbox

PAGES = 600
SERIES = 1_000
DAYS = (30, 360)
MONTHS_END = 1_735_689_600_000


def page(url: str) -> dict[str, Any]:
    """Get pages of 1,000 candles, 24 at once, to checked tables; processor time of this process."""
    from backtester.data.fetching.exchange import Exchange
    from backtester.data.fetching.paging import Ask
    from backtester.data.model import MarketType, Timeframe

    minute = Timeframe.parse("1m")

    async def main() -> float:
        config = {"sandboxUrl": url, "enableRateLimit": False}
        async with Exchange("sandbox", MarketType.SPOT, config) as exchange:
            markets, _ = await exchange.load_markets()
            market = next(one for one in markets if one.symbol == "BTC/USDT")

            async def get(count: int) -> None:
                asks = iter(range(count))

                async def worker() -> None:
                    for number in asks:
                        since = MONTHS_END + number % 60 * 60_000_000
                        ask = Ask(since, since + 60_000_000, 1000)
                        assert len(await exchange.candles(market, minute, ask)) == 1000

                await asyncio.gather(*(worker() for _ in range(24)))

            await get(120)
            begun = time.process_time()
            await get(PAGES)
            return (time.process_time() - begun) / PAGES * 1000

    return {"ms": asyncio.run(main())}


def imports(which: str) -> dict[str, Any]:
    """Import what a fetch needs of ccxt, or all of it; numpy is there already."""
    import numpy

    assert numpy
    before, begun = peak_bytes(), time.perf_counter()
    if which == "all":
        import ccxt.async_support as ccxt

        ccxt.binance({})
    else:
        from backtester.data.fetching.lazy_ccxt import exchange_class

        exchange_class("binance")({})
    seconds = time.perf_counter() - begun
    grown = peak_bytes() - before
    return {"seconds": seconds, "mb": grown / 1e6}


def refresh(url: str) -> dict[str, Any]:
    """Bring up to date what is: hot, with the clock known, and when it must be read."""
    import numpy as np

    from backtester.data.candles import Answer, Candles
    from backtester.data.fetching import request as asking
    from backtester.data.fetching.pipeline import run
    from backtester.data.fetching.request import FetchRequest, FetchResult
    from backtester.data.home import home_in
    from backtester.data.model import DatasetKey, Interval, Market, MarketType
    from backtester.data.settings import venue

    config = {"sandboxUrl": url}
    names = tuple(f"C{number:04d}/USDT" for number in range(SERIES))
    key, now_ms = DatasetKey.of("sandbox", "spot", "1h"), time.time_ns() // 1_000_000
    end = key.timeframe.floor(now_ms - 2_000)
    span = Interval(key.timeframe.next(end, -1440), end)
    table = Candles(key.timeframe.grid(span), np.ones((1440, 5)))
    with tempfile.TemporaryDirectory() as folder:
        home = home_in(folder)
        home.store.commit(key, [Answer(name, span, table, asked_ms=now_ms) for name in names])
        home.store.fold(key)
        markets = [
            Market(name, name.replace("/", ""), MarketType.SPOT, "C", "USDT") for name in names
        ]
        home.cache.save_markets(key.exchange, key.market_type, markets, None)
        home.cache.save_clock_offset(venue(key.exchange, config), 0)
        request = FetchRequest(key, names, exchange_config=config, only_newer=True)

        def median(count: int) -> tuple[float, FetchResult]:
            times = []
            for _ in range(count):
                begun = time.perf_counter()
                result = run(request, home)
                times.append((time.perf_counter() - begun) * 1000)
                assert len(result.series) == SERIES
            return statistics.median(times), result

        median(2)
        known_ms, silent = median(15)
        asking._SHARED_MS = -1  # as if the last update had been a while ago
        median(2)
        read_ms, asked = median(9)
    return {
        "known_ms": known_ms,
        "known_requests": silent.requests,
        "read_ms": read_ms,
        "read_requests": asked.requests,
    }


def memory(url: str, days: int) -> dict[str, Any]:
    """Fetch as ``vbt-data fetch`` does, which hands out no table; the peak over the imports."""
    import blosc2
    import psutil

    from backtester.data.events import Event
    from backtester.data.fetching import lazy_ccxt, online
    from backtester.data.fetching.archives.plan import Source
    from backtester.data.fetching.pipeline import run
    from backtester.data.fetching.request import FetchRequest
    from backtester.data.home import home_in
    from backtester.data.model import DatasetKey

    assert all((blosc2, online))
    lazy_ccxt.exchange_class("binance")
    process, pages = psutil.Process(), 0

    def look(_event: Event) -> None:
        nonlocal pages
        pages = max(pages, process.memory_info().rss)

    with tempfile.TemporaryDirectory() as folder:
        request = FetchRequest(
            DatasetKey.of("sandbox", "spot", "1m"),
            ("BTC/USDT", "ETH/USDT", "SOL/USDT"),
            MONTHS_END - days * 86_400_000,
            MONTHS_END,
            exchange_config={"sandboxUrl": url, "enableRateLimit": False},
            source=Source.API,
            account_only=True,
        )
        home = home_in(folder, "sqlite")
        before = process.memory_info().rss
        result = run(request, home, look)
    peak = peak_bytes()
    candles = sum(map(result.candles_of, result.series))
    return {
        "mb": (peak - before) / 1e6,
        "pages_mb": (pages - before) / 1e6,
        "table_mb": candles * 48 / 1e6,
    }


def rows() -> list[Row]:
    """Measure each in a process of its own, several times, and take medians."""

    def median(*words: str, rounds: int = 5) -> dict[str, float]:
        runs = [in_child("benchmarks.costs", *words) for _ in range(rounds)]
        return {name: statistics.median(run[name] for run in runs) for name in runs[0]}

    with sandbox("--weight-limit", "100000000") as url:
        pages = median("page", url, rounds=3)
        again = median("refresh", url, rounds=3)
        held = [median("memory", url, str(days), rounds=1) for days in DAYS]
    one, everything = median("imports", "one"), median("imports", "all")
    silent = again["known_requests"] == 0 and again["read_requests"] == 1
    return [
        Row(
            "a page of 1,000 candles, from socket to validated table",
            f"{pages['ms']:.2f} ms of CPU time",
            f"load {os.getloadavg()[0]:.1f}",
            "<= 2 ms",
            pages["ms"] <= 2,
        ),
        Row(
            "importing what a fetch needs of ccxt",
            f"{one['seconds']:.2f} s, {one['mb']:.0f} MB",
            f"all of ccxt: {everything['seconds']:.2f} s, {everything['mb']:.0f} MB",
            "<= 0.6 s",
            one["seconds"] <= 0.6,
        ),
        Row(
            f"refreshing {SERIES:,} series that are up to date, warm",
            f"{again['known_ms']:.0f} ms, {again['known_requests']:.0f} requests",
            f"{again['read_ms']:.0f} ms if the clock is read: {again['read_requests']:.0f}",
            "<= 50 ms, one at most",
            again["known_ms"] <= 50 and silent,
        ),
        Row(
            f"peak memory of a fetch of 3 symbols x {DAYS[1]} days x 1m, no table",
            f"{held[1]['mb']:.0f} MB for {held[1]['table_mb']:.0f} MB of candles",
            f"{DAYS[0]} days: {held[0]['mb']:.0f} MB for {held[0]['table_mb']:.0f} MB",
            "<= a quarter of what the range adds",
            4 * (held[1]["mb"] - held[0]["mb"]) <= held[1]["table_mb"] - held[0]["table_mb"],
        ),
    ]


def main() -> None:
    """Be one of the processes that are measured."""
    which, *words = sys.argv[1:]
    if which == "memory":
        print(json.dumps(memory(words[0], int(words[1]))))
    else:
        measure = {"page": page, "imports": imports, "refresh": refresh}[which]
        print(json.dumps(measure(*words)))


if __name__ == "__main__":
    main()
