"""Candles to store: random walks in ticks, the same in every run.

Synthetic data flatters a tick codec: real prices move by more ticks, and real volumes are
sometimes sums of binary fractions. Sizes are therefore measured on real candles.
"""

from __future__ import annotations

import numpy as np

HOUR_MS, MINUTE_MS = 3_600_000, 60_000
BEGIN_MS = 1_577_836_800_000
"""2020-01-01 UTC."""


def times(rows: int, step_ms: int) -> np.ndarray:
    """Return open times, int64 (rows,), from 2020 on."""
    return BEGIN_MS + step_ms * np.arange(rows, dtype=np.int64)


def table(number: int, rows: int) -> np.ndarray:
    """Walk one symbol's prices; float64 (5, rows): open, high, low, close, volume."""
    random = np.random.default_rng(number)
    digits = 1 + number % 5  # decimals of the price
    price = int(10 ** random.uniform(3.5, 5.5))  # in ticks
    spread = max(2.0, price * 0.004)
    moves = np.rint(random.standard_normal(rows, np.float32) * spread).astype(np.int64)
    close = np.abs(price + np.cumsum(moves)) + price // 4
    opened = np.roll(close, 1)
    opened[0] = close[0]
    reach = np.abs(random.standard_normal((2, rows), np.float32) * (spread / 2)).astype(np.int64)
    high = np.maximum(opened, close) + reach[0]
    low = np.maximum(np.minimum(opened, close) - reach[1], 1)
    lots = np.exp(random.standard_normal(rows, np.float32) * 1.1 + 10).astype(np.int64)
    ticks = np.stack([opened, high, low, close]) / 10.0**digits
    return np.concatenate([ticks, lots[None] / 10.0 ** (2 + number % 3)])


def symbol(number: int) -> str:
    """Name the symbol of a table."""
    return f"C{number:04d}/USDT"
