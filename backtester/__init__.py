"""Candles of crypto exchanges as VectorBT data: fetched whole, cached, checked.

``from backtester import vbt`` gives VectorBT: VectorBT PRO where it is installed,
otherwise open-source VectorBT with `Data.pull`, `merge`, `select` and the like added.
It is imported then, and not before: that takes seconds.
"""

from __future__ import annotations

from typing import Any

__all__ = ["vbt"]

vbt: Any


def __getattr__(name: str) -> Any:
    if name != "vbt":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from backtester.data.vbt_adapter import namespace

    globals()["vbt"] = namespace()
    return globals()["vbt"]
