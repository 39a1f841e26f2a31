"""Weeks and months built from days, where an exchange lacks them or begins them on other days.

Pure: decides which days to ask for, and what they tell. Unlike what is made at a
caller's wish (`deriving`), such candles are stored: there are no others that a
later fetch could ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from backtester.data.candles import COLUMNS, Answer, Candles, Series, overlay
from backtester.data.fetching.request import FetchRequest
from backtester.data.model import Interval, Served, Timeframe
from backtester.data.resampling import reduce_groups, resample, rule_of

__all__ = ["MADE_OF", "answers_of", "forming_of", "question"]

MADE_OF = "made_of"
"""Where a dataset's metadata name the timeframe its candles were made of."""


def question(
    request: FetchRequest,
    source: Timeframe,
    gaps: Mapping[str, list[Interval]],
    now_ms: int,
    forming: Mapping[str, int],
) -> FetchRequest | None:
    """Ask for the shorter candles of which those of a request can be made.

    Parameters
    ----------
    request : FetchRequest
    source : Timeframe
        Of the shorter candles.
    gaps : mapping of str to list of Interval
        By unified symbol, what is to be asked for, on the request's own grid.
    now_ms : int
        The exchange's clock, UTC epoch milliseconds.
    forming : mapping of str to int
        By unified symbol, where the candle opens that is not closed yet but asked for.

    Returns
    -------
    FetchRequest or None
        None when there is nothing to ask for.
    """
    symbols = tuple(dict.fromkeys([*gaps, *forming]))
    if not symbols:
        return None
    # At least one closed candle: a question for none cannot be asked.
    starts = [*forming.values(), source.next(source.floor(now_ms), -2)] if forming else []
    starts += [one.start for intervals in gaps.values() for one in intervals]
    ends = [one.end for intervals in gaps.values() for one in intervals]
    return replace(
        request,
        key=replace(request.key, timeframe=source),
        symbols=symbols,
        # As moments: a small number would be refused, as it might mean seconds.
        start=np.datetime64(max(min(starts), 0), "ms"),
        end=None if forming else np.datetime64(max(ends), "ms"),
        include_forming=bool(forming),
        only_newer=False,
        prefer_resampling=False,
        account_only=False,
        all_columns=False,
    )


def answers_of(
    symbol: str, series: Series, source: Timeframe, target: Timeframe, gaps: list[Interval]
) -> list[Answer]:
    """Return what shorter candles tell about intervals of a longer timeframe.

    Only whole candles; one that reaches beyond the API's depth is beyond it as a whole.
    """
    made = resample(series, source, target)
    spans = list(made.coverage)
    for span in series.coverage:
        if span.served is Served.BEYOND_DEPTH:
            lost = Interval(target.floor(span.start), target.ceil(span.end))
            spans += [
                replace(span, start=part.start, end=part.end)
                for part in lost.subtract([one.interval for one in made.coverage])
            ]
    return [
        Answer(symbol, part, made.candles.within(part), span.served, span.asked_ms)
        for span in spans
        for gap in gaps
        if (part := span.interval.intersection(gap)) is not None
    ]


def forming_of(closed: Candles, forming: Candles, target: Timeframe, open_time: int) -> Candles:
    """Return the candle that is not closed yet, as far as it has come; empty if there is none."""
    whole = Interval(open_time, target.next(open_time))
    parts = overlay(closed, forming).within(whole).plain()
    rules = [rule_of(name) for name in COLUMNS]
    opens, columns = reduce_groups(parts.open_time, list(parts.values.T), rules, target, [whole])
    return Candles(opens, np.stack(columns, axis=1)) if len(opens) else Candles.empty()
