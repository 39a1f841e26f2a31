"""Crypto exchange candles as VectorBT data.

The names below are the public API. Each is imported when it is first used, so
that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backtester.data.errors import DataError, FetchWarning
    from backtester.data.exporting import export_data
    from backtester.data.fetching.data_fetcher import (
        fetch_data,
        fetch_top_symbols,
        load_data,
        update_data,
    )
    from backtester.data.importing.importer import import_data
    from backtester.data.storage.data_storage import DataStorage

__all__ = [
    "DataError",
    "DataStorage",
    "FetchWarning",
    "export_data",
    "fetch_data",
    "fetch_top_symbols",
    "import_data",
    "load_data",
    "update_data",
]

_HOMES = {
    "DataError": "backtester.data.errors",
    "DataStorage": "backtester.data.storage.data_storage",
    "FetchWarning": "backtester.data.errors",
    "export_data": "backtester.data.exporting",
    "fetch_data": "backtester.data.fetching.data_fetcher",
    "fetch_top_symbols": "backtester.data.fetching.data_fetcher",
    "import_data": "backtester.data.importing.importer",
    "load_data": "backtester.data.fetching.data_fetcher",
    "update_data": "backtester.data.fetching.data_fetcher",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
