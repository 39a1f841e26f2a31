"""Candles built from stored shorter ones, for requests that prefer that to fetching.

What is made is handed out and never stored: a volume summed here may differ from the
exchange's own in its last digits, and what is stored is the exchange's word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backtester.data.candles import COLUMNS, Candles, Series, overlay
from backtester.data.errors import CorruptDatasetError
from backtester.data.model import DatasetKey, Interval, Timeframe
from backtester.data.resampling import derived_note, divides, resample, rule_of
from backtester.data.storage.store import Store

__all__ = ["Derived", "derive", "held_by_shorter"]

_SUMS = np.array([rule_of(name) == "sum" for name in COLUMNS])
_SUM_TOLERANCE = 1e-9
"""Relative; sums of the same volumes differ by no more."""


@dataclass(frozen=True, slots=True)
class Derived:
    """What one symbol's shorter candles tell about the interval of a question."""

    series: Series = field(default_factory=Series)
    sources: tuple[tuple[Interval, Timeframe], ...] = ()
    """Which part was made of which timeframe."""

    def beside(self, own: Series, wanted: Interval) -> Series:
        """Return the exchange's own series, and what was made in the parts it does not cover."""
        series = own.within(wanted)
        coverage, candles = series.coverage, series.candles
        for part in own.coverage.missing(wanted):
            made = self.series.within(part)
            candles = overlay(made.candles, candles)
            coverage = coverage.add(made.coverage)
        return Series(candles, coverage, series.revisions)

    def notes(self, own: Series, wanted: Interval) -> list[dict[str, Any]]:
        """Say what of the answer was made, and of what; see `derived_note`."""
        parts = own.coverage.missing(wanted)
        used = (
            (part.intersection(made), source) for part in parts for made, source in self.sources
        )
        return [derived_note(source, one.start, one.end) for one, source in used if one is not None]

    def differing(self, own: Series, wanted: Interval) -> list[dict[str, Any]]:
        """List the exchange's own candles that shorter ones do not add up to.

        Returns
        -------
        list of dict
            ``open_ms``, and ``own`` and ``made``: open, high, low, close and volume, or None
            where there is no candle. Prices are compared to the last bit.
        """
        found = []
        for span in own.within(wanted).coverage:
            for made in self.series.coverage.within(span.interval):
                theirs, ours = (
                    own.candles.within(made.interval),
                    self.series.candles.within(made.interval),
                )
                found += _differing(theirs, ours)
        return found


def _differing(own: Candles, made: Candles) -> list[dict[str, Any]]:
    times = np.union1d(own.open_time, made.open_time)
    left, right = _on(own, times), _on(made, times)
    prices = (left[:, ~_SUMS] == right[:, ~_SUMS]).all(axis=1)
    near = np.isclose(left[:, _SUMS], right[:, _SUMS], rtol=_SUM_TOLERANCE, atol=0.0)
    volumes = near.all(axis=1)
    return [
        {
            "open_ms": int(times[at]),
            "own": None if np.isnan(left[at]).all() else left[at].tolist(),
            "made": None if np.isnan(right[at]).all() else right[at].tolist(),
        }
        for at in np.flatnonzero(~(prices & volumes))
    ]


def _on(candles: Candles, times: Any) -> Any:
    values = np.full((len(times), candles.values.shape[1]), np.nan)
    values[np.searchsorted(times, candles.open_time)] = candles.values
    return values


def derive(
    store: Store, key: DatasetKey, wanted: Mapping[str, Interval]
) -> tuple[dict[str, Derived], list[CorruptDatasetError]]:
    """Make what can be made of `wanted`, of the longest timeframes that cover it.

    Parameters
    ----------
    store : Store
    key : DatasetKey
        What is asked for; every shorter timeframe of the same market that divides it counts.
    wanted : mapping of str to Interval
        By unified symbol, on the timeframe's grid.

    Returns
    -------
    (dict of Derived, list of CorruptDatasetError)
        By symbol; and the damage that kept a dataset from being used.
    """
    made: dict[str, Derived] = {}
    damage = []
    for source in _shorter(store, key):
        lacking = {
            symbol: gaps
            for symbol, whole in wanted.items()
            if (gaps := made.get(symbol, Derived()).series.coverage.missing(whole))
        }
        if not lacking:
            break
        ends = [one for gaps in lacking.values() for one in gaps]
        within = Interval(min(one.start for one in ends), max(one.end for one in ends))
        try:
            dataset = store.read(source, list(lacking), within=within)
        except CorruptDatasetError as error:
            damage.append(error)
            continue
        for symbol, series in dataset.series.items():
            told = resample(_inside(series, within), source.timeframe, key.timeframe)
            made[symbol] = _filled(made.get(symbol, Derived()), told, lacking[symbol], source)
    return made, damage


def _inside(series: Series, within: Interval) -> Series:
    return Series(series.candles, series.coverage.within(within))


def _filled(known: Derived, told: Series, gaps: Iterable[Interval], source: DatasetKey) -> Derived:
    candles, coverage, sources = known.series.candles, known.series.coverage, known.sources
    for gap in gaps:
        part = told.within(gap)
        candles = overlay(candles, part.candles)
        coverage = coverage.add(part.coverage)
        sources += tuple((span.interval, source.timeframe) for span in part.coverage)
    return Derived(Series(candles, coverage), sources)


def held_by_shorter(store: Store, key: DatasetKey, symbols: Collection[str]) -> set[str]:
    """Return those of `symbols` that a dataset of a shorter timeframe holds."""
    found: set[str] = set()
    for source in _shorter(store, key):
        lacking = [symbol for symbol in symbols if symbol not in found]
        if not lacking:
            break
        try:
            found.update(store.held(source, lacking))
        except CorruptDatasetError:
            continue  # told of when it is read
    return found


def _shorter(store: Store, key: DatasetKey) -> list[DatasetKey]:
    """List the stored datasets that `key` can be made of, the longest timeframe first."""
    fit = [
        one
        for one in store.keys()  # noqa: SIM118  # a store is no dictionary
        if (one.exchange, one.market_type) == (key.exchange, key.market_type)
        and one.timeframe != key.timeframe
        and divides(one.timeframe, key.timeframe)
    ]
    return sorted(fit, key=lambda one: one.timeframe.typical_ms, reverse=True)
