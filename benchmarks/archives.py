"""A year of 1m for one symbol from bulk archives, compared with freqtrade."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from typing import Any

from benchmarks import peers
from benchmarks.harness import Row, in_child, sandbox

SYMBOL = "BTC/USDT"
START, END = "2024-01-01", "2025-01-01"
MOST_REQUESTS = 43
ROUNDS = 3


def ours(url: str) -> dict[str, Any]:
    """Fetch the year into a durable store of its own; every file compared with its checksum."""
    import blosc2

    from backtester.data.fetching import lazy_ccxt, online
    from backtester.data.fetching.archives import source
    from backtester.data.fetching.pipeline import run
    from backtester.data.fetching.request import FetchRequest
    from backtester.data.home import home_in
    from backtester.data.model import DatasetKey

    assert all((blosc2, online, source))
    lazy_ccxt.exchange_class("binance")
    with tempfile.TemporaryDirectory() as folder:
        request = FetchRequest(
            DatasetKey.of("sandbox", "spot", "1m"),
            (SYMBOL,),
            START,
            END,
            exchange_config={"sandboxUrl": url, "enableRateLimit": False},
        )
        cpu, begun = time.process_time(), time.perf_counter()
        result = run(request, home_in(folder))
        seconds = time.perf_counter() - begun
    return {
        "seconds": seconds,
        "cpu": time.process_time() - cpu,
        "candles": len(result.series[SYMBOL].candles),
        "requests": result.requests,
    }


def parsing(url: str) -> dict[str, Any]:
    """Read one month's file, verified and checked, and with pandas as freqtrade does."""
    import io
    import urllib.request
    import zipfile

    import pandas as pd

    from backtester.data.fetching.archives import reader
    from backtester.data.model import Interval, Timeframe

    name = "BTCUSDT-1m-2024-01.zip"
    path = f"{url}/data/spot/monthly/klines/BTCUSDT/1m/{name}"
    packed, checksum = (
        urllib.request.urlopen(path + suffix).read()  # noqa: S310 - this very machine
        for suffix in ("", ".CHECKSUM")
    )
    month = Interval(1_704_067_200_000, 1_706_745_600_000)

    def mine() -> object:
        reader.verify(packed, checksum, name)
        return reader.read(packed, name, Timeframe.parse("1m"), month)

    def theirs() -> object:
        with (
            zipfile.ZipFile(io.BytesIO(packed)) as archive,
            archive.open(archive.namelist()[0]) as table,
        ):
            return pd.read_csv(table, usecols=range(6), header=None)

    times: dict[str, list[float]] = {"mine": [], "theirs": []}
    for _ in range(9):
        for who, read in (("mine", mine), ("theirs", theirs)):
            begun = time.perf_counter()
            read()
            times[who].append((time.perf_counter() - begun) * 1000)
    return {who: statistics.median(some) for who, some in times.items()}


def rows() -> list[Row]:
    """Measure both in turn, several times each, once the server has made all files."""
    rates: dict[str, list[float]] = {"ours": [], "freqtrade": []}
    with sandbox("--latency-ms", "50", "--weight-limit", "100000000") as url:
        for round_ in range(ROUNDS + 1):
            run = in_child("benchmarks.archives", "ours", url)
            peer = peers.freqtrade(url, [SYMBOL], "20240101", "20250101", archives=True)
            assert run["candles"] == peer["candles"], (run, peer)
            if round_:
                rates["ours"].append(run["candles"] / run["seconds"])
                rates["freqtrade"].append(peer["candles"] / peer["seconds"])
        parsed = in_child("benchmarks.archives", "parsing", url)
    mine, theirs = (statistics.median(rates[who]) for who in ("ours", "freqtrade"))
    return [
        Row(
            "a year of 1m, checksums verified, stored durably",
            f"{mine:,.0f} rows/s",
            f"{mine / theirs:.1f} x {peers.freqtrade_version()} ({theirs:,.0f}/s, none verified)",
            ">= 1.5 x",
            mine >= 1.5 * theirs,
        ),
        Row(
            "  requests, including the API samples",
            f"{run['requests']}",
            "freqtrade: 366 files or more",
            f"<= {MOST_REQUESTS}",
            run["requests"] <= MOST_REQUESTS,
        ),
        Row(
            "  reading one month's file, verified and checked",
            f"{parsed['mine']:.0f} ms",
            f"{parsed['theirs'] / parsed['mine']:.2f} x the speed of zipfile and pandas.read_csv",
            "",
            None,
        ),
    ]


def main() -> None:
    """Be one of the processes that are measured."""
    which, url = sys.argv[1:]
    print(json.dumps(ours(url) if which == "ours" else parsing(url)))


if __name__ == "__main__":
    main()
