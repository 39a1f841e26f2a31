"""Fetching 1m candles from the sandbox, beside vectorbt's own download."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from typing import Any

from benchmarks.harness import Row, in_child, sandbox

BASES = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "BNB", "LTC", "TRX", "LINK")
SYMBOLS = [f"{base}/USDT" for base in BASES]
START, END = "2025-06-01", "2025-07-01"
CANDLES = len(SYMBOLS) * 30 * 1440
BUDGET_WEIGHT = 600
"""Weight per minute of the exchange in the limiter's benchmark: small, so that it binds."""


def ours(url: str, *, limiter: bool) -> dict[str, Any]:
    """Fetch through the public door, in this process."""
    import ccxt.async_support

    from backtester.data import vbt_adapter
    from backtester.data.fetching import online
    from backtester.data.fetching.data_fetcher import fetch_data
    from backtester.data.vbt_adapter import data as _vectorbt

    assert all((ccxt.async_support, online, vbt_adapter, _vectorbt))
    before = _memory_bytes()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        data = fetch_data(
            SYMBOLS,
            "sandbox",
            "1m",
            START,
            END,
            data_dir=folder,
            exchange_config={"sandboxUrl": url, "enableRateLimit": limiter},
        )
        seconds = time.perf_counter() - begun
    frames = data.data.values()
    return {
        "seconds": seconds,
        "candles": int(sum(frame["Close"].notna().sum() for frame in frames)),
        "result_bytes": sum(frame.to_numpy().nbytes for frame in frames)
        + data.wrapper.index.to_numpy().nbytes,
        "extra_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
        "requests": data.wrapper._metadata["requests"],
    }


def theirs(url: str) -> dict[str, Any]:
    """Download the same with vectorbt's CCXTData: its own loop, pages of 1000, no limiter."""
    import ccxt
    import vectorbt as vbt

    exchange = ccxt.binance(
        {"enableRateLimit": False, "options": {"fetchMarkets": {"types": ["spot"]}}}
    )
    exchange.urls["api"] = {**exchange.urls["api"], "public": f"{url}/api/v3"}
    exchange.load_markets()
    begun = time.perf_counter()
    data = vbt.CCXTData.download(
        SYMBOLS,
        exchange=exchange,
        timeframe="1m",
        start=f"{START} UTC",
        end=f"{END} UTC",
        limit=1000,
        delay=0,
        show_progress=False,
    )
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "candles": int(data.get("Close").notna().sum().sum())}


def budget(url: str, minutes: float) -> dict[str, Any]:
    """Fetch under a small budget for some minutes; tell the weight spent and what was refused."""
    from backtester.data.events import Retrying
    from backtester.data.fetching.data_fetcher import fetch_data

    refused = []
    pages = int(BUDGET_WEIGHT * minutes / 2)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        fetch_data(
            "BTC/USDT",
            "sandbox",
            "1m",
            1_735_689_600_000 - pages * 60_000_000,
            1_735_689_600_000,
            data_dir=folder,
            exchange_config={"sandboxUrl": url},
            source="api",
            on_event=lambda event: refused.append(event) if isinstance(event, Retrying) else None,
        )
    return {"seconds": time.perf_counter() - begun, "weight": 2 * pages, "refused": len(refused)}


def rows() -> list[Row]:
    """Measure both in turn, three times each, then the budget and the memory."""
    with sandbox("--latency-ms", "50", "--weight-limit", "1000000") as url:
        mine = [in_child("benchmarks.fetching", "ours", url) for _ in range(3)]
        peer = in_child("benchmarks.fetching", "theirs", url)
    rate = statistics.median(run["candles"] / run["seconds"] for run in mine)
    peer_rate = peer["candles"] / peer["seconds"]
    extra = max(run["extra_bytes"] for run in mine)
    result = mine[0]["result_bytes"]
    allowed = 3 * result + 100_000_000
    minutes = 3.0
    with sandbox("--latency-ms", "50", "--weight-limit", str(BUDGET_WEIGHT)) as url:
        limited = in_child("benchmarks.fetching", "budget", url, str(minutes))
    # A cold budget gives its first window at once, so the ceiling of w windows is w - 1 minutes.
    ceiling_s = (minutes - 1) * 60
    share = ceiling_s / limited["seconds"]
    return [
        Row(
            "10 symbols x 30 days x 1m at 50 ms, limiter off",
            f"{rate:,.0f} candles/s",
            f"{rate / peer_rate:.1f} x vectorbt CCXTData ({peer_rate:,.0f}/s)",
            ">= 8 x",
            rate >= 8 * peer_rate,
        ),
        Row(
            f"limiter on, {limited['weight']} weight at {BUDGET_WEIGHT}/min",
            f"{share:.1%} of the budget",
            f"{limited['refused']} refused, {limited['seconds']:.0f} s",
            ">= 90 %, none refused",
            share >= 0.9 and not limited["refused"],
        ),
        Row(
            "peak memory of that fetch over its imports",
            f"{extra / 1e6:.0f} MB",
            f"result {result / 1e6:.0f} MB",
            f"<= {allowed / 1e6:.0f} MB (3 x result + 100)",
            extra <= allowed,
        ),
    ]


def _memory_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def main() -> None:
    """Be one of the processes that are measured."""
    which, url, *rest = sys.argv[1:]
    if which == "ours":
        print(json.dumps(ours(url, limiter=False)))
    elif which == "theirs":
        print(json.dumps(theirs(url)))
    else:
        print(json.dumps(budget(url, float(rest[0]))))


if __name__ == "__main__":
    main()
