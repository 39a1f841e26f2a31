"""A cache hit: 2 symbols x 30 days of 1h out of 8 symbols x 1 year."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import Row, in_child, median_ms

SYMBOLS = [f"{base}/USDT" for base in ("BTC", "ETH", "SOL", "XRP", "ADA", "BNB", "LTC", "TRX")]
START, END = "2025-06-01", "2025-07-01"


def prepare(folder: Path) -> None:
    """Store the dataset: 8 symbols, a year of 1h, as an exchange would have answered it."""
    from backtester.data.candles import Answer
    from backtester.data.home import home_in
    from backtester.data.model import DatasetKey, Interval
    from backtester.data.sandbox import SyntheticMarket

    key = DatasetKey.of("sandbox", "spot", "1h")
    year = Interval(1_735_689_600_000, 1_767_225_600_000)
    market, store = SyntheticMarket(), home_in(folder).store
    store.commit(
        key,
        [Answer(s, year, market.candles(s, key.timeframe, year), asked_ms=1) for s in SYMBOLS],
    )
    store.fold(key)


def ask(folder: str) -> object:
    """Ask the question through the public door."""
    from backtester.data.fetching.data_fetcher import fetch_data

    return fetch_data(SYMBOLS[:2], "sandbox", "1h", START, END, data_dir=folder)


def limit_ms(folder: Path) -> float:
    """Measure the least it could take: slicing arrays in memory and building two frames."""
    import pandas as pd

    from backtester.data.candles import COLUMNS
    from backtester.data.home import home_in
    from backtester.data.model import DatasetKey, Interval

    dataset = home_in(folder).store.read(DatasetKey.of("sandbox", "spot", "1h"))
    window = Interval(1_748_736_000_000, 1_751_328_000_000)

    def build() -> None:
        for symbol in SYMBOLS[:2]:
            part = dataset.series[symbol].candles.within(window)
            index = pd.DatetimeIndex(part.open_time.astype("datetime64[ms]"), tz="UTC")
            pd.DataFrame(np.array(part.values), index=index, columns=list(COLUMNS))

    return median_ms(build, 200)


def rows() -> list[Row]:
    """Measure hot in this process, cold in processes of their own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        hot, least = median_ms(lambda: ask(name), 200), limit_ms(folder)
        colds = sorted(in_child("benchmarks.cache_hit", name)["cold_ms"] for _ in range(5))
    cold = colds[len(colds) // 2]
    return [
        Row(
            "warm hit, including the VectorBT object",
            f"{hot:.2f} ms",
            f"{hot / least:.1f} x slicing + frames ({least:.2f} ms)",
            "<= 2 ms",
            hot <= 2,
        ),
        Row("new process, without imports", f"{cold:.1f} ms", "", "<= 30 ms", cold <= 30),
    ]


def main() -> None:
    """Be the new process: import, then ask once."""
    import blosc2

    from backtester.data import vbt_adapter
    from backtester.data.cache_system import cache_file
    from backtester.data.fetching import data_fetcher
    from backtester.data.storage import pickle_file
    from backtester.data.vbt_adapter import data as _vectorbt

    assert all((vbt_adapter, cache_file, data_fetcher, pickle_file, _vectorbt, blosc2))
    begun = time.perf_counter()
    ask(sys.argv[1])
    print(json.dumps({"cold_ms": (time.perf_counter() - begun) * 1000}))


if __name__ == "__main__":
    main()
