"""The Data object: 200 symbols x 5 years of 1h, beside VectorBT's own class."""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import Row, in_child, median_ms

if TYPE_CHECKING:
    from backtester.data.candles import Candles

SYMBOLS = 200
HOURS = 5 * 365 * 24
HOUR_MS = 3_600_000


def tables() -> dict[str, Candles]:
    """Make candles as the stores give them: one array of times, each column in one piece."""
    from backtester.data.candles import Candles

    times = np.arange(HOURS, dtype=np.int64) * HOUR_MS + 1_577_836_800_000
    random = np.random.default_rng(1)
    return {f"S{i}/USDT": Candles(times, random.random((5, HOURS)).T) for i in range(SYMBOLS)}


def rows() -> list[Row]:
    """Measure ours and theirs in this process, and first calls in processes of their own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pandas tells VectorBT about pandas 4
        return [*_objects(), *_first_calls()]


def _objects() -> list[Row]:
    import vectorbt

    from backtester.data.model import Timeframe
    from backtester.data.vbt_adapter import Data, build

    candles, hour = tables(), Timeframe.parse("1h")
    data = build(candles, timeframe=hour)
    index = data.index.copy()
    index.freq = "1h"
    frames = {s: frame.copy().set_axis(index) for s, frame in data.data.items()}
    theirs = vectorbt.Data.from_data(frames, download_kwargs={})
    base = median_ms(lambda: vectorbt.Data.from_data(frames, download_kwargs={}), 3)
    built = median_ms(lambda: build(candles, timeframe=hour), 20)
    made = median_ms(lambda: Data.from_data(frames), 20)
    base_get = _once_ms(lambda: theirs.get("Close"))
    got = min(_once_ms(lambda d=d: d.get("close")) for d in (data, data.copy(), data.copy()))
    again = median_ms(lambda: data.get("close"), 20)
    base_loc = median_ms(lambda: theirs.loc["2021":"2022"], 3)
    loc = median_ms(lambda: data.loc["2021":"2022"], 5)
    column, base_column = median_ms(lambda: data["Close"], 5), median_ms(lambda: theirs["Close"], 3)
    one = median_ms(lambda: data.select("S7/USDT"), 20)
    part = data.select("S7/USDT").loc["2021":"2022"].data["S7/USDT"].to_numpy()
    shared = np.shares_memory(part, candles["S7/USDT"].values)
    return [
        _row("an object of a shared index", built, "from_data", base, 3),
        _row("Data.from_data of frames", made, "from_data", base),
        _row("get('close') of all, first", got, "get('Close')", base_get, 60),
        _row("get('close') of all, again", again, "get('Close')", base_get),
        _row("loc of two years", loc, "loc", base_loc),
        _row("data['Close']", column, "column", base_column),
        Row("select of one", f"{one:.2f} ms", "", "no copy", shared),
    ]


def _row(what: str, ms: float, verb: str, theirs: float, most: float | None = None) -> Row:
    beside = f"VectorBT's {verb}: {theirs:,.0f} ms, {theirs / ms:,.0f} x"
    target = "" if most is None else f"<= {most:g} ms"
    return Row(what, f"{ms:.2f} ms", beside, target, None if most is None else ms <= most)


def _once_ms(work: Any) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def _first_calls() -> list[Row]:
    """Time what a user waits for in a new process, once byte-code is on disk."""
    in_child("benchmarks.vectorbt_data")
    first = in_child("benchmarks.vectorbt_data")
    return [
        Row(f"first {what}, new process", f"{s:.2f} s", "", "< 1 s", s < 1)
        for what, s in first.items()
    ]


def main() -> None:
    """Be the new process: one indicator and one simulation of a year of hours."""
    from backtester import vbt
    from backtester.data.candles import Candles
    from backtester.data.model import Timeframe
    from backtester.data.vbt_adapter import build

    assert vbt.Data  # VectorBT is imported here, and not counted
    warnings.simplefilter("ignore")
    count = 365 * 24
    times = np.arange(count, dtype=np.int64) * HOUR_MS + 1_577_836_800_000
    walk = 100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.01, count)))
    values = np.column_stack([walk, walk * 1.01, walk * 0.99, walk, walk])
    data = build(
        {s: Candles(times, values) for s in ("A/USDT", "B/USDT")}, timeframe=Timeframe.parse("1h")
    )
    seconds = {}
    begun = time.perf_counter()
    fast, slow = vbt.MA.run(data.close, 10), vbt.MA.run(data.close, 50)
    seconds["indicator"] = time.perf_counter() - begun
    begun = time.perf_counter()
    entries, exits = fast.ma_crossed_above(slow), fast.ma_crossed_below(slow)
    seconds["crossing"] = time.perf_counter() - begun
    begun = time.perf_counter()
    vbt.PF.from_signals(data, entries, exits).value.iloc[-1].sum()
    seconds["from_signals and its value"] = time.perf_counter() - begun
    sys.stdout.write(json.dumps(seconds) + "\n")


if __name__ == "__main__":
    main()
