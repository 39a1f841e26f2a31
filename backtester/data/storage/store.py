"""The protocol of a candle store; every implementation passes one contract suite.

A store keeps, per dataset and symbol, a `Series`: candles, coverage, revisions.
It is given *answers* and merges them. Nothing but `delete` and `mend` ever
removes a candle or its coverage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from backtester.data.candles import Answer, Series
from backtester.data.errors import CorruptDatasetError, DatasetWriteError
from backtester.data.model import DatasetKey, Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Column = tuple[NDArray[np.int64], NDArray[np.float64]]
    """Open times, UTC epoch milliseconds, and one column's values; both of shape (n,)."""

__all__ = ["Dataset", "DatasetSummary", "Store", "SymbolSummary", "grouped"]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A dataset as read: series by ccxt symbol, and metadata."""

    key: DatasetKey
    series: Mapping[str, Series] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Plain values only, such as ``{"volume_data": {"BTC/USDT": 1.2e9}}``."""

    def equals(self, other: Dataset) -> bool:
        """Return whether another holds the same, bit for bit."""
        return (
            self.key == other.key
            # By its text, since a NaN is not equal to itself.
            and repr(dict(self.metadata)) == repr(dict(other.metadata))
            and self.series.keys() == other.series.keys()
            and all(one.equals(other.series[symbol]) for symbol, one in self.series.items())
        )

    def with_answers(self, answers: Iterable[Answer]) -> Dataset:
        """Return the dataset after `answers`; see `Series.with_answers`."""
        series = dict(self.series)
        for symbol, own in grouped(answers).items():
            series[symbol] = series.get(symbol, Series()).with_answers(own)
        return Dataset(self.key, series, self.metadata)

    def select(self, symbols: Iterable[str] | None) -> Dataset:
        """Return the dataset with only those of `symbols` that it has; None for all."""
        if symbols is None:
            return self
        wanted = {s: self.series[s] for s in symbols if s in self.series}
        return Dataset(self.key, wanted, self.metadata)

    def column(self, column: str) -> dict[str, Column]:
        """Return one column of every series; see `Store.read_column`."""
        return {
            symbol: (one.candles.open_time, one.candles.column(column))
            for symbol, one in self.series.items()
        }

    def showing(self, interval: Interval | None) -> Dataset:
        """Return the dataset with only the candles inside `interval`; see `Series.showing`."""
        if interval is None:
            return self
        shown = {symbol: one.showing(interval) for symbol, one in self.series.items()}
        return Dataset(self.key, shown, self.metadata)


@dataclass(frozen=True, slots=True)
class SymbolSummary:
    """The content of a dataset for one symbol."""

    candles: int
    first_ms: int | None
    """Open time of the first candle, UTC epoch milliseconds; None without candles."""
    last_ms: int | None
    """Open time of the last candle, UTC epoch milliseconds."""


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """The content of a dataset, known without reading its candles."""

    name: str
    """The file's name."""
    key: DatasetKey
    symbols: Mapping[str, SymbolSummary]
    size_bytes: int
    modified_ms: int
    """UTC epoch milliseconds."""
    problem: str | None = None
    """Why the file cannot be read; None if it can."""


class Store(Protocol):
    """Keeps datasets. Safe for several threads and processes at once."""

    def keys(self) -> list[DatasetKey]:
        """List the datasets, sorted."""
        ...

    def read(
        self,
        key: DatasetKey,
        symbols: Sequence[str] | None = None,
        *,
        within: Interval | None = None,
        salvage: bool = False,
    ) -> Dataset:
        """Read a dataset, or those of `symbols` that it has; empty if nothing is stored.

        Parameters
        ----------
        key : DatasetKey
        symbols : sequence of str, optional
            Unified symbols; None for all.
        within : Interval, optional
            Only the candles and revisions inside it; the coverage is always complete.
        salvage : bool
            Return the provably sound part of a damaged dataset instead of raising.

        Raises
        ------
        CorruptDatasetError
            The dataset is damaged, or not one of ours. It is never read as empty.
        """
        ...

    def read_column(
        self,
        key: DatasetKey,
        column: str,
        symbols: Sequence[str] | None = None,
        *,
        within: Interval | None = None,
    ) -> Mapping[str, Column]:
        """Read one column, such as all closes; parameters and errors as in `read`.

        Parameters
        ----------
        column : str
            One of `COLUMNS`.

        Returns
        -------
        mapping of str to (int64 (n,), float64 (n,))
            By symbol, open times (UTC epoch milliseconds, strictly increasing) and values.
            Symbols may share arrays: they are read-only.
        """
        ...

    def held(
        self, key: DatasetKey, symbols: Sequence[str] | None = None, *, salvage: bool = False
    ) -> Mapping[str, SymbolSummary]:
        """Summarise a dataset, or those of `symbols` that it has, by symbol; see `read`."""
        ...

    def commit(self, key: DatasetKey, answers: Sequence[Answer]) -> None:
        """Store `answers` durably: once this returns, they survive a kill and a power cut.

        Raises
        ------
        DatasetWriteError
            None of `answers` was stored.
        """
        ...

    def fold(self, key: DatasetKey) -> None:
        """Bring the dataset into its final form; the result of `read` does not change.

        A damaged file found on the way is set aside, not overwritten.
        """
        ...

    def annotate(self, key: DatasetKey, metadata: Mapping[str, Any]) -> None:
        """Merge `metadata` into the metadata of the dataset, mappings key by key."""
        ...

    def delete(self, key: DatasetKey, symbols: Sequence[str] | None = None) -> None:
        """Remove a dataset, or some of its symbols, with their coverage."""
        ...

    def damage(self, key: DatasetKey) -> list[CorruptDatasetError]:
        """List everything in a dataset that cannot be read.

        `symbol` and `interval` of an error say what is affected; None if that is unknown.
        """
        ...

    def mend(self, key: DatasetKey, replaced: Mapping[str, Series]) -> None:
        """Replace stored series, and set a damaged file aside.

        For repairs: besides `delete`, the only way to remove something.
        """
        ...

    def summary(self) -> list[DatasetSummary]:
        """Summarise every dataset, sorted by name, without reading candles."""
        ...


def grouped(answers: Iterable[Answer]) -> dict[str, list[Answer]]:
    """Sort answers by symbol, keeping their order."""
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.symbol, []).append(answer)
    return groups


def require_same(found: Dataset, written: Dataset, path: Path) -> None:
    """Make sure that what was read back is what was written.

    Raises
    ------
    DatasetWriteError
        It is not.
    """
    if not found.equals(written):
        raise DatasetWriteError(f"{path} does not contain what was written", path=str(path))


def merged_metadata(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Merge metadata: mappings key by key, for anything else the newer value."""
    merged = dict(old)
    for name, value in new.items():
        before = merged.get(name)
        own = deepcopy(value)  # the caller's may change later
        if isinstance(before, Mapping) and isinstance(own, Mapping):
            merged[name] = {**before, **own}
        else:
            merged[name] = own
    return merged


def summarise(series: Mapping[str, Series]) -> dict[str, SymbolSummary]:
    """Summarise series already in memory."""
    return {symbol: _summarise_one(one) for symbol, one in series.items()}


def _summarise_one(series: Series) -> SymbolSummary:
    times = series.candles.open_time
    if len(times) == 0:
        return SymbolSummary(0, None, None)
    return SymbolSummary(len(times), int(times[0]), int(times[-1]))
