"""Data objects of a longer timeframe from those of a shorter one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtester.data.errors import OptionError
from backtester.data.model import Interval, Timeframe
from backtester.data.resampling import check_divides, derived_note, reduce_groups, rule_of
from backtester.data.vbt_adapter.frames import metadata_of, own_rows, times_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["resampled", "timeframe_of"]

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}
_WEEK = Timeframe(1, "w")


def timeframe_of(data: Any) -> Timeframe | None:
    """Return the timeframe of a Data object: as it was asked for, else by its index."""
    asked = getattr(data, "fetch_kwargs", {}).get("timeframe")
    if isinstance(asked, str | Timeframe):
        return Timeframe.parse(asked)
    if not isinstance(data.wrapper.index, pd.DatetimeIndex):
        return None
    times = times_of(data.wrapper.index, "the data")
    steps = np.unique(np.diff(times))
    if not len(steps) or steps[0] <= 0:
        return None
    if (steps % steps[0] == 0).all():
        return _fixed(int(steps[0]), times)
    month = Timeframe(1, "M")
    return month if bool(month.on_grid(times).all()) else None


def _fixed(step_ms: int, times: NDArray[np.int64]) -> Timeframe | None:
    weeks, rest = divmod(step_ms, _WEEK.typical_ms)
    if not rest and bool(_WEEK.on_grid(times).all()):
        return Timeframe(weeks, "w")
    for unit, length in _UNITS.items():
        if step_ms % length == 0:
            return Timeframe(step_ms // length, unit)
    return None


def resampled(
    data: Any, target: Timeframe
) -> tuple[pd.DatetimeIndex, dict[Any, Any], dict[str, Any]]:
    """Resample every symbol by itself; see `Data.resample`.

    Returns
    -------
    (DatetimeIndex, dict, dict)
        The union of the new open times, named, zoned and counted as the old index; the
        frames or Series on it; and the notes that say what was derived from what.
    """
    source = timeframe_of(data)
    if source is None:
        raise OptionError("cannot tell the timeframe of these data, so not resample them")
    check_divides(source, target)
    rules = [rule_of(name) for name in data.features]
    times = times_of(data.index, "the data")
    notes = metadata_of(data)
    forming = notes.pop("forming", {})
    tables = {}
    for symbol, frame in data.data.items():
        own = own_rows(frame)
        if symbol in forming:  # no candle that holds an unfinished one is whole
            own &= times < forming[symbol]
        columns = frame.to_frame() if isinstance(frame, pd.Series) else frame
        arrays = [columns.iloc[:, at].to_numpy()[own] for at in range(columns.shape[1])]
        answered = _answered(times[own], source, target)
        tables[symbol] = reduce_groups(times[own], arrays, rules, target, answered)
    union = np.unique(np.concatenate([opens for opens, _ in tables.values()]))
    index = _index_like(union, data.index)
    notes["derived"] = {
        str(symbol): [derived_note(source, int(opens[0]), target.next(int(opens[-1])))]
        for symbol, (opens, _) in tables.items()
        if len(opens)
    }
    frames = {}
    for symbol, (opens, arrays) in tables.items():
        own_index = index[np.searchsorted(union, opens)]
        table = pd.DataFrame(dict(enumerate(arrays)), index=own_index).reindex(index)
        table = table.set_axis(data.wrapper.columns, axis=1)
        frames[symbol] = table if data.wrapper.ndim > 1 else table.iloc[:, 0]
    return index, frames, notes


def _answered(times: NDArray[np.int64], source: Timeframe, target: Timeframe) -> list[Interval]:
    """Return where a symbol's history is known, by its own open times alone.

    From its first to its last candle where no group between them is empty: what is missing
    there lies inside the symbol's history (nobody traded, or an outage), and the exchange's
    own candle lacks it too. Beyond, it is unknown.
    """
    if not len(times):
        return []
    breaks = np.flatnonzero(np.diff(target.indices(times)) > 1)
    firsts, lasts = np.append(0, breaks + 1), np.append(breaks, len(times) - 1)
    return [
        Interval(int(times[first]), source.next(int(times[last])))
        for first, last in zip(firsts, lasts, strict=True)
    ]


def _index_like(times: NDArray[np.int64], index: pd.DatetimeIndex) -> pd.DatetimeIndex:
    stamps = pd.DatetimeIndex(times.view("datetime64[ms]"), tz="UTC", name=index.name)
    zoned = stamps.tz_localize(None) if index.tz is None else stamps.tz_convert(index.tz)
    return zoned.as_unit(index.unit)
