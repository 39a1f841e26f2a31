"""Candles, answers and datasets for tests, and what they hold as plain values to compare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from backtester.data.candles import Answer, Candles, Series
from backtester.data.model import DatasetKey, Interval, Served, Timeframe
from backtester.data.storage.store import Dataset

HOUR = 3_600_000
DAY = 24 * HOUR
START = 1_704_067_200_000
"""2024-01-01 00:00 UTC, a Monday."""
H1 = Timeframe.parse("1h")
KEY = DatasetKey.of("binance", "spot", "1h")


def candles_at(times: Iterable[int], seed: int = 0, extras: int = 0) -> Candles:
    """Make sound candles at `times`; the values are a function of (time, seed).

    `extras` is how many extra columns they have.
    """
    at = np.array(sorted(times), dtype=np.int64)
    mixed = (at // 1000 * 2_654_435_761 + seed * 97_003) % 1_000_003
    middle = 100.0 + mixed / 1_000.0
    spread = 0.5 + (mixed % 17) / 10.0
    columns = [middle - spread / 2, middle + spread, middle - spread, middle + spread / 3, mixed]
    columns += [mixed * (2.5 + extra) for extra in range(extras)]
    return Candles.of(at, np.column_stack(columns) if len(at) else [])


def hours(first: int, count: int) -> list[int]:
    """List open times of hourly candles, counted from `START`."""
    return [START + (first + i) * HOUR for i in range(count)]


def span_of_hours(first: int, count: int) -> Interval:
    return Interval(START + first * HOUR, START + (first + count) * HOUR)


def answer(
    symbol: str = "BTC/USDT",
    first: int = 0,
    count: int = 4,
    *,
    seed: int = 0,
    without: Sequence[int] = (),
    served: Served = Served.MARKET,
    asked_ms: int = 1,
) -> Answer:
    """Make an answer about `count` hours from hour `first` on; `without` names absent hours."""
    present = [i for i in range(first, first + count) if i not in without]
    shown = [START + i * HOUR for i in present] if served is Served.MARKET else []
    return Answer(symbol, span_of_hours(first, count), candles_at(shown, seed), served, asked_ms)


def rows(candles: Candles) -> dict[int, bytes]:
    """Give a table as a dictionary of the bits of every row."""
    return {
        int(time): np.ascontiguousarray(row).tobytes()
        for time, row in zip(candles.open_time, candles.values, strict=True)
    }


def plain_series(series: Series) -> dict[str, Any]:
    return {
        "candles": rows(series.candles),
        "coverage": [(s.start, s.end, s.served.value, s.asked_ms) for s in series.coverage],
        "revisions": [
            # As bits: a NaN is not equal to itself.
            (r.open_time, np.array(r.old).tobytes(), np.array(r.new).tobytes(),
             r.old_asked_ms, r.new_asked_ms)
            for r in series.revisions
        ],
    }  # fmt: skip


def contents(dataset: Dataset) -> dict[str, Any]:
    """Give everything a dataset says as plain values: equal exactly when nothing differs."""
    return {
        "key": dataset.key.stem,
        "metadata": dict(dataset.metadata),
        "series": {symbol: plain_series(one) for symbol, one in dataset.series.items()},
    }


def applied(*answers: Answer, key: DatasetKey = KEY) -> Dataset:
    """Give the dataset that these answers make, by the definition of the protocol."""
    return Dataset(key).with_answers(answers)
