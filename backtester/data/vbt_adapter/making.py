"""Prepare frames by symbol for one Data object: in one time zone, on one index.

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
    made: dict[Any, Any] = {}
    given_index: Any = None
    own: Any = None
    for symbol, given in data.items():
        table = given if isinstance(given, pd.Series | pd.DataFrame) else _table(given)
        index = table.index
        if isinstance(index, pd.DatetimeIndex):
            if given_index is None or not _alike(index, given_index):
                given_index, own = index, _stepped(_zoned(index, tz_localize, tz_convert))
            if index is not own and not (index.is_(own) and index.freq == own.freq):
                table = table.set_axis(own)
        made[symbol] = table
    return made


def _table(values: Any) -> pd.Series | pd.DataFrame:
    array = np.asarray(values)
    return pd.Series(array) if array.ndim == 1 else pd.DataFrame(array)


def _alike(one: pd.Index, other: pd.Index) -> bool:
    if one is other:
        return True
    return one.dtype == other.dtype and one.name == other.name and one.equals(other)


def _zoned(index: Any, tz_localize: Any, tz_convert: Any) -> Any:
    if tz_localize is not None and not is_tz_aware(index):
        index = index.tz_localize(to_timezone(tz_localize))
    if tz_convert is not None and index.tz != (zone := to_timezone(tz_convert)):
        index = index.tz_convert(zone)
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
    """Return whether all tables stand on the very same index, or on views of it."""
    first = next(iter(data.values())).index
    return all(table.index is first or table.index.is_(first) for table in data.values())


def share_columns(data: Mapping[Any, Any]) -> bool:
    """Return whether all tables are frames with equal columns."""
    first = next(iter(data.values()))
    return isinstance(first, pd.DataFrame) and all(
        isinstance(table, pd.DataFrame)
        and (table.columns is first.columns or table.columns.identical(first.columns))
        for table in data.values()
    )
