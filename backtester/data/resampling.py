"""Candles of a longer timeframe from those of a shorter one.

Pure: no clock, no disk, no network. Only from a timeframe whose candles make whole
ones of the longer (hours make days, weeks do not make months), on the longer one's own
grid, and only whole groups: every time of a group must have been answered for. A time
confirmed absent is answered (nobody traded: the exchange's own longer candle lacks it
too); a group without a single candle is absent itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from backtester.data.candles import COLUMNS, Candles, Series
from backtester.data.errors import OptionError
from backtester.data.model import Coverage, Interval, Served, Span, Timeframe

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "check_divides",
    "derived_note",
    "divides",
    "reduce_groups",
    "resample",
    "rule_of",
    "whole_groups",
]

_RULES = {"open": "first", "high": "max", "low": "min", "close": "last"}
_REDUCE = {"max": np.fmax, "min": np.fmin}
_MOST_PLACES = 9
_EXACT = 2.0**53
_SAMPLE = 64
_KNOWN = (Served.MARKET, Served.NOT_LISTED, Served.DELISTED, Served.GIVEN)
"""Under these, a time without a candle had none. Beyond an API's depth there may be some."""


@lru_cache(maxsize=256)
def divides(source: Timeframe, target: Timeframe) -> bool:
    """Return whether every candle of `target` is made of whole candles of `source`.

    >>> h4, day, week, month = map(Timeframe.parse, ("4h", "1d", "1w", "1M"))
    >>> divides(h4, day), divides(day, month), divides(week, month), divides(day, h4)
    (True, True, False, False)
    """
    # Every boundary of the target on the source's grid; 60 cover leap years and months.
    opens = np.array([target.open_time(index) for index in range(60)])
    return bool(source.on_grid(opens).all())


def check_divides(source: Timeframe, target: Timeframe) -> None:
    """Refuse a timeframe that is not made of whole candles of another.

    Raises
    ------
    OptionError
        Naming both.
    """
    if not divides(source, target):
        raise OptionError(
            f"{target} candles are not made of whole {source} candles",
            source=str(source),
            target=str(target),
        )


def rule_of(column: Any) -> str:
    """Return how a column is reduced to one value of a group: first, max, min, last or sum.

    Raises
    ------
    OptionError
        It is neither a price nor a sum.

    >>> [rule_of(name) for name in ("Open", "High", "Volume", "Taker buy quote volume")]
    ['first', 'max', 'sum', 'sum']
    """
    word = str(column).casefold()
    if word in _RULES:
        return _RULES[word]
    if "volume" in word or "trades" in word or word == "count":
        return "sum"
    raise OptionError(f"cannot resample the column {column!r}: neither a price nor a sum")


def derived_note(source: Timeframe, start_ms: int, end_ms: int) -> dict[str, Any]:
    """Say in plain values that the candles of a stretch of time were made of shorter ones.

    Lists of these stand by symbol in ``wrapper._metadata['derived']``.
    """
    return {"from": str(source), "start_ms": start_ms, "end_ms": end_ms}


def whole_groups(target: Timeframe, answered: Interval) -> Interval | None:
    """Return the part of an answered interval that holds whole candles of `target`."""
    start, end = target.ceil(answered.start), target.floor(answered.end)
    return Interval(start, end) if start < end else None


def reduce_groups(
    times: NDArray[np.int64],
    columns: Sequence[NDArray[Any]],
    rules: Sequence[str],
    target: Timeframe,
    answered: Sequence[Interval],
) -> tuple[NDArray[np.int64], list[NDArray[Any]]]:
    """Reduce rows to the candles of `target` that are whole.

    Parameters
    ----------
    times : int64 (n,)
        Open times, UTC epoch milliseconds, strictly increasing.
    columns : sequence of arrays (n,)
        Of any number type; NaN counts for nothing in the highest and the lowest.
    rules : sequence of str
        How each column is reduced; see `rule_of`.
    target : Timeframe
        Made of whole candles of the rows' own timeframe.
    answered : sequence of Interval
        Sorted and apart: where a time without a row is known to have none.

    Returns
    -------
    (int64 (m,), list of arrays (m,))
        The open times of the groups that lie inside `answered` and have rows, and their
        columns, each of its own type.
    """
    if not len(times):
        return times, [column[:0] for column in columns]
    group = target.indices(times)
    starts = np.flatnonzero(np.diff(group, prepend=group[0] - 1))
    ends = np.append(starts[1:], len(times)) - 1
    group = group[starts]
    span = Interval(target.open_time(int(group[0])), target.open_time(int(group[-1]) + 1) + 1)
    bounds = target.grid(span)  # the opens of all groups from the first, and the last one's end
    opens, closes = bounds[group - group[0]], bounds[group - group[0] + 1]
    whole = _inside(opens, closes, answered)
    return opens[whole], [
        _reduced(column, rule, starts, ends)[whole]
        for column, rule in zip(columns, rules, strict=True)
    ]


def _inside(
    opens: NDArray[np.int64], closes: NDArray[np.int64], answered: Sequence[Interval]
) -> NDArray[np.bool_]:
    """Tell of every `[open, close)` whether one of the intervals holds it whole."""
    if not answered:
        return np.zeros(len(opens), np.bool_)
    starts = np.array([one.start for one in answered], np.int64)
    ends = np.array([one.end for one in answered], np.int64)
    at = np.searchsorted(starts, opens, side="right") - 1
    return np.asarray((at >= 0) & (closes <= ends[at]))


def _reduced(
    values: NDArray[Any], rule: str, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[Any]:
    if rule == "first":
        return values[starts]
    if rule == "last":
        return values[ends]
    if rule == "sum":
        return _summed(values, starts)
    reduced: NDArray[Any] = _REDUCE[rule].reduceat(np.ascontiguousarray(values), starts)
    return reduced


def _summed(values: NDArray[Any], starts: NDArray[np.int64]) -> NDArray[Any]:
    """Sum groups; of floats that stand for decimals, to the float that stands for their sum.

    Added as floats, 0.1 and 0.2 make another number than the 0.3 that an exchange would say.
    """
    if values.dtype == np.float64 and len(values):
        for places in range(_MOST_PLACES):
            scale = 10.0**places
            if _are_decimals(values[:_SAMPLE], scale) and _are_decimals(values, scale):
                sums = np.add.reduceat(np.rint(values * scale), starts)
                if np.abs(sums).max() < _EXACT:
                    return np.asarray(sums / scale)
                break
    return np.asarray(np.add.reduceat(np.ascontiguousarray(values), starts))


def _are_decimals(values: NDArray[np.float64], scale: float) -> bool:
    return bool((np.rint(values * scale) / scale == values).all())


def resample(series: Series, source: Timeframe, target: Timeframe) -> Series:
    """Return what a series of one timeframe tells about a longer one.

    Parameters
    ----------
    series : Series
    source : Timeframe
        Its timeframe.
    target : Timeframe

    Returns
    -------
    Series
        The whole candles of `target`, and the coverage that their parts amount to: a group
        before the listing was not listed, one in the midst of history without a candle is
        absent, one that is answered for in part is not covered, nor one that reaches beyond
        the API's depth. Prices equal the exchange's own to the bit, and so do volumes that are
        decimals of few digits; others to rounding.

    Raises
    ------
    OptionError
        `target` is not made of whole candles of `source`.
    """
    check_divides(source, target)
    known = [span for span in series.coverage if span.served in _KNOWN]
    blocks = _joined(known)
    opens, columns = reduce_groups(
        series.candles.open_time,
        list(series.candles.plain().values.T),
        [rule_of(name) for name in COLUMNS],
        target,
        [block.interval for block in blocks],
    )
    candles = Candles(opens, np.stack(columns, axis=1))
    return Series(candles, _coverage(blocks, known, target))


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Join spans that touch, whatever they mean; asked for when the earliest was."""
    joined: list[Span] = []
    for span in spans:
        if joined and joined[-1].end == span.start:
            last = joined.pop()
            asked = min(last.asked_ms, span.asked_ms)
            joined.append(Span(last.start, span.end, Served.MARKET, asked))
        else:
            joined.append(Span(span.start, span.end, Served.MARKET, span.asked_ms))
    return joined


def _coverage(blocks: Sequence[Span], known: Sequence[Span], target: Timeframe) -> Coverage:
    coverage = Coverage(
        tuple(
            Span(whole.start, whole.end, block.served, block.asked_ms)
            for block in blocks
            if (whole := whole_groups(target, block.interval)) is not None
        )
    )
    for span in known:
        part: Interval | None = span.interval
        if span.served is Served.MARKET:
            continue
        if span.served is Served.GIVEN:  # what a user handed in makes all that is made of it his
            part = Interval(target.floor(span.start), target.ceil(span.end))
        else:  # a candle that holds the first trade is one
            part = whole_groups(target, span.interval)
        if part is not None:
            coverage = coverage.add(
                Span(one.start, one.end, span.served, span.asked_ms)
                for one in (s.interval.intersection(part) for s in coverage)
                if one is not None
            )
    return coverage
