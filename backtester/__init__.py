"""Crypto exchange candles as VectorBT data: complete, checked and cached.

``from backtester import vbt`` gives VectorBT: VectorBT PRO where it is installed,
otherwise open-source VectorBT with `Data.pull`, `merge`, `select` and the like added.
VectorBT takes seconds to import, so it is imported only when `vbt` is first used.
"""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["vbt"]

vbt: Any

# Logging is the application's to configure; without a handler Python would print warnings.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name != "vbt":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from backtester.data.vbt_adapter import namespace

    globals()["vbt"] = namespace()
    return globals()["vbt"]
