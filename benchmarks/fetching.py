"""Fetching 1m candles from the sandbox at 50 ms, limiter off, compared with other programs."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from typing import Any

from benchmarks import peers
from benchmarks.harness import Row, in_child, sandbox

BASES = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "BNB", "LTC", "TRX", "LINK")
SYMBOLS = [f"{base}/USDT" for base in BASES]
START, END = "2025-06-01", "2025-07-01"
START_MS, END_MS = 1_748_736_000_000, 1_751_328_000_000
CANDLES = len(SYMBOLS) * 30 * 1440
ROUNDS = 3


def ours(url: str, *, built: bool) -> dict[str, Any]:
    """Fetch instored durably of its own; with the VectorBT object, or without."""
    import blosc2

    from backtester.data import vbt_adapter
    from backtester.data.fetching import lazy_ccxt, online
    from backtester.data.fetching.data_fetcher import as_data
    from backtester.data.fetching.pipeline import run
    from backtester.data.fetching.request import FetchRequest
    from backtester.data.home import home_in
    from backtester.data.model import DatasetKey

    if built:
        from backtester.data.vbt_adapter import data as _vectorbt

        assert all((_vectorbt, vbt_adapter))
    assert all((blosc2, online))
    lazy_ccxt.exchange_class("binance")
    with tempfile.TemporaryDirectory() as folder:
        request = FetchRequest(
            DatasetKey.of("sandbox", "spot", "1m"),
            tuple(SYMBOLS),
            START,
            END,
            exchange_config={"sandboxUrl": url, "enableRateLimit": False},
        )
        cpu, begun = time.process_time(), time.perf_counter()
        result = run(request, home_in(folder))
        if built:
            as_data(result)
        seconds = time.perf_counter() - begun
    return {
        "seconds": seconds,
        "cpu": time.process_time() - cpu,
        "candles": sum(len(series.candles) for series in result.series.values()),
        "requests": result.requests,
    }


def rows() -> list[Row]:
    """Measure all in turn, several times each, and compare the medians."""
    names, span = ",".join(SYMBOLS), (str(START_MS), str(END_MS))
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}

    def note(who: str, run: dict[str, Any]) -> None:
        rates.setdefault(who, []).append(run["candles"] / run["seconds"])
        costs.setdefault(who, []).append(1e6 * run["cpu"] / run["candles"])

    with sandbox("--latency-ms", "50", "--weight-limit", "100000000") as url:
        for round_ in range(ROUNDS + 1):
            for who in ("ours", "built"):
                run = in_child("benchmarks.fetching", who, url)
                assert run["candles"] == CANDLES, run
                note(who, run)
            for who in ("bare_ccxt", "bare_http"):
                note(who, in_child("benchmarks.peers", who, url, names, *span))
            note("freqtrade", peers.freqtrade(url, SYMBOLS, "20250601", "20250701", archives=False))
            if round_ == 0:  # to warm up
                rates.clear()
                costs.clear()
        note("vectorbt", in_child("benchmarks.peers", "vectorbt", url, names, START, END))
    rate = {who: statistics.median(some) for who, some in rates.items()}
    cost = {who: statistics.median(some) for who, some in costs.items()}

    def beside(who: str, name: str, least: float, mine: str = "ours") -> Row:
        ratio = rate[mine] / rate[who]
        return Row(
            "  compared with " + name,
            f"{ratio:.1f} x",
            f"{rate[who]:,.0f} candles/s, {cost[who] / cost[mine]:.1f} x the CPU time",
            f">= {least} x",
            ratio >= least,
        )

    return [
        Row(
            "10 symbols x 30 days x 1m, stored durably",
            f"{rate['ours']:,.0f} candles/s",
            f"{cost['ours']:.1f} µs of CPU time each; a client that parses nothing gets "
            f"{rate['bare_http']:,.0f}/s from the server",
            "",
            None,
        ),
        beside("freqtrade", f"{peers.freqtrade_version()}, download-data", 2),
        beside("bare_ccxt", "ccxt.async_support, gathering in memory", 1.2),
        Row(
            "the same, including the VectorBT object",
            f"{rate['built']:,.0f} candles/s",
            "",
            "",
            None,
        ),
        beside("vectorbt", "vectorbt's CCXTData", 8, "built"),
    ]


def main() -> None:
    """Be one of the processes that are measured."""
    who, url = sys.argv[1:]
    print(json.dumps(ours(url, built=who == "built")))


if __name__ == "__main__":
    main()
