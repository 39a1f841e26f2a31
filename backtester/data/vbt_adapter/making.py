"""Frames by symbol made fit for one Data object: in one zone, on one index.

As VectorBT does it, once per distinct index instead of once per symbol, and leaving the
caller's frames as they are (VectorBT sets `freq` on their indexes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from vectorbt.utils.datetime_ import is_tz_aware, to_timezone

from backtester.data.vbt_adapter.wrapper import before_pandas_4

__all__ = ["Fitting", "prepared", "share_columns", "share_index"]


class Fitting(dict[Any, Any]):
    """Frames by symbol that are known to have one index and equal columns."""


def prepared(data: Mapping[Any, Any], tz_localize: Any, tz_convert: Any) -> dict[Any, Any]:
    """Make Series and frames of whatever is given, in the zone asked for, with their step.

    Symbols that share an index share it afterwards; so do those with equal ones.
    """
    known: dict[int, tuple[pd.Index, pd.Index]] = {}  # the given one too: its id must not be reused
    made: dict[Any, Any] = {}
    last: pd.Index | None = None
    for symbol, given in data.items():
        table = given if isinstance(given, pd.Series | pd.DataFrame) else _table(given)
        index = table.index
        if not isinstance(index, pd.DatetimeIndex):
            made[symbol] = table
            continue
        if id(index) not in known:
            if last is None or not _alike(index, known[id(last)][0]):
                own = _stepped(_zoned(index, tz_localize, tz_convert))
            else:
                own = known[id(last)][1]
            known[id(index)] = index, own
            last = index
        own = known[id(index)][1]
        made[symbol] = table if own is index else table.set_axis(own)
    return made


def _table(values: Any) -> pd.Series | pd.DataFrame:
    array = np.asarray(values)
    return pd.Series(array) if array.ndim == 1 else pd.DataFrame(array)


def _alike(one: pd.DatetimeIndex, other: pd.Index) -> bool:
    return one.dtype == other.dtype and one.name == other.name and one.equals(other)


def _zoned(index: Any, tz_localize: Any, tz_convert: Any) -> Any:
    if tz_localize is not None and not is_tz_aware(index):
        index = index.tz_localize(to_timezone(tz_localize))
    if tz_convert is not None:
        index = index.tz_convert(to_timezone(tz_convert))
    return index


def _stepped(index: Any) -> Any:
    with before_pandas_4():
        step = index.inferred_freq
        if index.freqstr == step:
            return index
        stepped = index.view()
        stepped.freq = step
    return stepped


def share_index(data: Mapping[Any, Any]) -> bool:
    """Tell whether all tables stand on the very same index."""
    first = next(iter(data.values())).index
    return all(table.index is first for table in data.values())


def share_columns(data: Mapping[Any, Any]) -> bool:
    """Tell whether all tables are frames with equal columns."""
    first = next(iter(data.values()))
    return isinstance(first, pd.DataFrame) and all(
        isinstance(table, pd.DataFrame)
        and (table.columns is first.columns or table.columns.identical(first.columns))
        for table in data.values()
    )
