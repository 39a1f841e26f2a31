"""Candles of a longer timeframe from those of a shorter one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtester.data.errors import OptionError
from backtester.data.model import Interval, Timeframe
from backtester.data.vbt_adapter.frames import own_rows, times_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["resampled", "timeframe_of"]

_RULES = {"open": "first", "high": "max", "low": "min", "close": "last"}
_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}
_WEEK = Timeframe(1, "w")


def timeframe_of(data: Any) -> Timeframe | None:
    """Tell the timeframe of a Data object: as it was asked for, else by its index."""
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


def resampled(data: Any, target: Timeframe) -> tuple[pd.DatetimeIndex, dict[Any, Any]]:
    """Resample every symbol by itself; see `Data.resample`.

    Returns
    -------
    (DatetimeIndex, dict)
        The union of the new open times, named, zoned and counted as the old index, and
        the frames or Series on it.
    """
    source = timeframe_of(data)
    if source is None:
        raise OptionError("cannot tell the timeframe of these data, so not resample them")
    _check(source, target)
    rules = [_rule(name) for name in data.features]
    times = times_of(data.index, "the data")
    tables = {}
    for symbol, frame in data.data.items():
        own = own_rows(frame)
        columns = frame.to_frame() if isinstance(frame, pd.Series) else frame
        tables[symbol] = _groups(times[own], columns[own], rules, source, target)
    union = np.unique(np.concatenate([opens for opens, _ in tables.values()]))
    index = _index_like(union, data.index)
    frames = {}
    for symbol, (opens, columns) in tables.items():
        table = columns.set_axis(index[np.searchsorted(union, opens)]).reindex(index)
        frames[symbol] = table if data.wrapper.ndim > 1 else table.iloc[:, 0]
    return index, frames


def _check(source: Timeframe, target: Timeframe) -> None:
    # Every boundary of the target on the source's grid; 60 cover leap years and months.
    opens = np.array([target.open_time(index) for index in range(60)])
    if not source.on_grid(opens).all() or target.typical_ms < source.typical_ms:
        raise OptionError(
            f"{target} candles are not made of whole {source} candles",
            source=str(source),
            target=str(target),
        )


def _rule(name: Any) -> str:
    word = str(name).casefold()
    if word in _RULES:
        return _RULES[word]
    if "volume" in word or "trades" in word or word == "count":
        return "sum"
    raise OptionError(f"cannot resample the column {name!r}: neither a price nor a sum")


def _groups(
    times: NDArray[np.int64],
    rows: pd.DataFrame,
    rules: list[str],
    source: Timeframe,
    target: Timeframe,
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Reduce one symbol's rows to its whole groups, given their open times."""
    if not len(times):
        return times, rows
    group = target.indices(times)
    starts = np.flatnonzero(np.diff(group, prepend=group[0] - 1))
    ends = np.append(starts[1:], len(times)) - 1
    group = group[starts]
    span = Interval(target.open_time(int(group[0])), target.open_time(int(group[-1]) + 1) + 1)
    bounds = target.grid(span)  # the opens of all groups from the first, and the last one's end
    opens, closes = bounds[group - group[0]], bounds[group - group[0] + 1]
    # A group reaches its end when the candle there exists, or when the neighbour group has
    # candles: then what is missing lies inside the symbol's history (nobody traded, or an
    # outage) and the exchange's own candle lacks it too. At the edges it is unknown.
    step = source.indices(times)
    neighbours = np.diff(group) == 1
    from_start = step[starts] == source.indices(opens)
    to_end = step[ends] == source.indices(closes) - 1
    from_start[1:] |= neighbours
    to_end[:-1] |= neighbours
    whole = from_start & to_end
    reduced = {
        position: _reduce(rows.iloc[:, position].to_numpy(), rule, starts, ends)[whole]
        for position, rule in enumerate(rules)
    }
    return opens[whole], pd.DataFrame(reduced).set_axis(rows.columns, axis=1)


def _reduce(
    values: NDArray[Any], rule: str, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[Any]:
    if rule == "first":
        return values[starts]
    if rule == "last":
        return values[ends]
    reduce = {"max": np.fmax, "min": np.fmin, "sum": np.add}[rule]
    return reduce.reduceat(values, starts)


def _index_like(times: NDArray[np.int64], index: pd.DatetimeIndex) -> pd.DatetimeIndex:
    stamps = pd.DatetimeIndex(times.view("datetime64[ms]"), tz="UTC", name=index.name)
    zoned = stamps.tz_localize(None) if index.tz is None else stamps.tz_convert(index.tz)
    return zoned.as_unit(index.unit)
