"""A dataset of 50 symbols x 2 years of 1m, 52 million rows: built, read and appended to.

Takes a minute or more, and 400 MB of disk, so it runs only by name: ``python -m benchmarks
storage_large``.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.candle_tables import BEGIN_MS, MINUTE_MS, symbol, table
from benchmarks.harness import Row, in_child, peak_bytes
from benchmarks.storage_peers import frame, median_s

SYMBOLS, MONTHS = 50, 24
BATCH_ROWS = 30 * 1440
"""Candles of a symbol in one commit, about a month of them."""


def rows() -> list[Row]:
    """Do it in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        found = in_child("benchmarks.storage_large", folder)
    batch = BATCH_ROWS * 48
    grew = found["peak"] - found["peak_early"]
    return [
        Row(
            f"{found['rows'] / 1e6:.1f} million rows, committed {BATCH_ROWS:,} at a time, folded",
            f"{found['rows'] / found['write_s'] / 1e6:.1f} million rows/s",
            f"{found['size'] / 1e6:,.0f} MB, {found['size'] / found['rows']:.1f} B/row (synthetic)",
            "",
            None,
        ),
        Row(
            "peak memory while building it, above the imports",
            f"{found['peak'] / 1e6:.0f} MB",
            f"{found['peak_early'] / 1e6:.0f} MB after a tenth; a batch {batch / 1e6:.1f} MB",
            "no more than a tenth needs + 10 batches",
            grew <= 10 * batch,
        ),
        Row(
            "a candle appended to each of 50 symbols, durable",
            f"{found['append'] * 1e3:.1f} ms",
            f"peak memory {found['peak_append'] / 1e6:.0f} MB",
            "",
            None,
        ),
        Row("2 symbols x 30 days, memo off", f"{found['hit'] * 1e3:.2f} ms", "", "", None),
        Row("a week of one symbol, memo off", f"{found['week'] * 1e3:.2f} ms", "", "", None),
        Row(
            "a symbol's two years, memo off",
            f"{found['whole'] * 1e3:.0f} ms",
            "bit for bit as written",
            "",
            None,
        ),
    ]


def build(folder: Path) -> dict[str, Any]:
    """Build, read and append; durations in seconds, sizes in bytes."""
    from backtester.data.candles import Answer, Candles
    from backtester.data.model import DatasetKey, Interval
    from backtester.data.storage import sqlite_dataset
    from backtester.data.storage.memo import Memo
    from backtester.data.storage.sqlite_file import SqliteStore

    sqlite_dataset._memo = Memo(0)
    store, key = SqliteStore(folder), DatasetKey.of("made", "spot", "1m")
    symbols = [symbol(number) for number in range(SYMBOLS)]

    def candles(number: int, first: int, count: int) -> Candles:
        times = BEGIN_MS + MINUTE_MS * np.arange(first, first + count, dtype=np.int64)
        return Candles(times, table(number * 1000 + first // BATCH_ROWS, count).T)

    def answer(number: int, first: int, count: int) -> Answer:
        made = candles(number, first, count)
        span = Interval(int(made.open_time[0]), int(made.open_time[-1]) + MINUTE_MS)
        return Answer(symbols[number], span, made, asked_ms=1)

    warm = DatasetKey.of("made", "spot", "1h")
    store.commit(warm, [Answer("A/B", Interval(0, 3_600_000), Candles.empty(), asked_ms=1)])
    before, spent, early = peak_bytes(), 0.0, 0
    for month in range(MONTHS):
        for number in range(SYMBOLS):
            batch = [answer(number, month * BATCH_ROWS, BATCH_ROWS)]
            begun = time.perf_counter()
            store.commit(key, batch)
            spent += time.perf_counter() - begun
        if month == MONTHS // 10:
            early = peak_bytes() - before
    begun = time.perf_counter()
    store.fold(key)
    spent += time.perf_counter() - begun
    found: dict[str, Any] = {
        "rows": SYMBOLS * MONTHS * BATCH_ROWS,
        "write_s": spent,
        "peak_early": early,
        "peak": peak_bytes() - before,
        "size": store.path(key).stat().st_size,
    }
    end = MONTHS * BATCH_ROWS
    following = iter(range(end, end + 1000))

    def append() -> None:
        row = next(following)
        store.commit(key, [answer(number, row, 1) for number in range(SYMBOLS)])

    found["append"] = median_s(append, 40)
    found["peak_append"] = peak_bytes() - before

    def read(some: list[str], days: int | None) -> list[Any]:
        last = BEGIN_MS + end * MINUTE_MS
        within = None if days is None else Interval(last - days * 86_400_000, last)
        series = store.read(key, some, within=within).series
        return [frame(one.candles.open_time, one.candles.values) for one in series.values()]

    found["hit"] = median_s(lambda: read(symbols[:2], 30))
    found["week"] = median_s(lambda: read(symbols[:1], 7), 100)
    found["whole"] = median_s(lambda: read(symbols[-1:], None), 10)
    (whole,) = read(symbols[-1:], None)
    for month in range(MONTHS):
        part = slice(month * BATCH_ROWS, (month + 1) * BATCH_ROWS)
        made = candles(SYMBOLS - 1, part.start, BATCH_ROWS)
        assert whole.iloc[part].to_numpy().tobytes() == np.ascontiguousarray(made.values).tobytes()
    return found


if __name__ == "__main__":
    print(json.dumps(build(Path(sys.argv[1]))))
