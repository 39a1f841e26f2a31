"""Candles of crypto exchanges as VectorBT data: fetched whole, cached, checked.

``from backtester import vbt`` gives VectorBT: VectorBT PRO where it is installed,
otherwise open-source VectorBT with `Data.pull`, `merge`, `select` and the like added.
It is imported then, and not before: that takes seconds.
"""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["vbt"]

vbt: Any

# A library's warnings are for its user's handlers; without any, Python would print them.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name != "vbt":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from backtester.data.vbt_adapter import namespace

    globals()["vbt"] = namespace()
    return globals()["vbt"]
