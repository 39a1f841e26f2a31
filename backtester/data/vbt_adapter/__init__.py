"""The only package that knows VectorBT: candles to Data objects and back.

`build` makes a Data object of candle tables, `tables_of` makes candle tables of any
Data object and `metadata_of` gives what is noted on it, `rebuild` restores a saved
one, `Data` is open-source VectorBT's class with the verbs VectorBT users know, and
`namespace` is what ``from backtester import vbt`` gives. Which VectorBT is there is
decided in `engine`.

Importing this package imports none: VectorBT takes seconds, so it waits until one of
these names needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backtester.data.vbt_adapter.data import Data
    from backtester.data.vbt_adapter.engine import build, namespace, rebuild
    from backtester.data.vbt_adapter.frames import metadata_of, tables_of

__all__ = ["Data", "build", "metadata_of", "namespace", "rebuild", "tables_of"]

_HOMES = {
    "Data": "data",
    "build": "engine",
    "metadata_of": "frames",
    "namespace": "engine",
    "rebuild": "engine",
    "tables_of": "frames",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value  # asked once
    return value
