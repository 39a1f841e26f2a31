"""Maintain stored data: find what cannot be trusted, and fetch it again."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backtester.data.candles import Candles, Series
from backtester.data.errors import DataError
from backtester.data.fetching.pipeline import run
from backtester.data.fetching.request import FetchRequest
from backtester.data.home import Home
from backtester.data.model import DatasetKey, Interval, format_ms
from backtester.data.storage.verifying import Problem, problems_of

__all__ = ["Repair", "repair", "verify"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Repair:
    """What a repair did."""

    asked: dict[str, Interval] = field(default_factory=dict)
    """What was asked for again, by symbol."""
    failures: dict[str, DataError] = field(default_factory=dict)
    """By symbol: why it could not be had; the next question asks for it again."""
    unknown: list[Problem] = field(default_factory=list)
    """Damage of which nobody knows what was there; it is asked for when it is next wanted."""


def verify(home: Home, key: DatasetKey) -> list[Problem]:
    """Check a dataset: checksums, and the rules that hold of candles and coverage.

    Returns
    -------
    list of Problem
        Empty for a sound dataset. Nothing is changed.
    """
    damage = home.store.damage(key)
    problems = [
        Problem(key, one.facts.get("symbol"), one.facts.get("interval"), str(one)) for one in damage
    ]
    for symbol in home.store.held(key, salvage=bool(damage)):
        found = home.store.read(key, [symbol], salvage=bool(damage)).series
        problems += [p for one in found.values() for p in problems_of(key, symbol, one)]
    return problems


def repair(
    home: Home,
    key: DatasetKey,
    problems: Sequence[Problem],
    exchange_config: Mapping[str, Any] | None = None,
) -> Repair:
    """Take out what cannot be trusted and ask the exchange for just that again.

    A damaged file is set aside first; candles that break a rule are logged and taken out.

    Parameters
    ----------
    home : Home
    key : DatasetKey
    problems : sequence of Problem
        What `verify` found of this dataset.
    exchange_config : Mapping, optional
        As for `fetch_data`.
    """
    done = Repair(unknown=[p for p in problems if p.symbol is None or p.interval is None])
    bad: dict[str, list[Interval]] = {}
    for problem in problems:
        if problem.symbol is not None and problem.interval is not None:
            bad.setdefault(problem.symbol, []).append(problem.interval)
    sound = home.store.read(key, list(bad), salvage=True).series
    for symbol, intervals in bad.items():
        _log_what_goes(key, symbol, sound.get(symbol), intervals)
    home.store.mend(key, {s: one.without(bad[s]) for s, one in sound.items()})
    for symbol, intervals in bad.items():
        hull = Interval(min(i.start for i in intervals), max(i.end for i in intervals))
        done.asked[symbol] = hull
        try:
            # All columns: what cannot be read any more may have had them.
            run(FetchRequest(key, (symbol,), hull.start, hull.end, all_columns=True,
                             exchange_config=exchange_config), home)  # fmt: skip
        except DataError as error:
            done.failures[symbol] = error
    return done


def _log_what_goes(
    key: DatasetKey, symbol: str, series: Series | None, intervals: Iterable[Interval]
) -> None:
    """Keep in the log what is taken out; of what cannot be read, that it was there."""
    for interval in intervals:
        gone = Candles.empty() if series is None else series.candles.within(interval)
        _log.warning("%s %s: what is stored of %s is fetched again", key, symbol, interval)
        for time, row in zip(gone.open_time.tolist(), gone.values.tolist(), strict=True):
            _log.info("%s %s: taken out: %s %r", key, symbol, format_ms(time), row)
