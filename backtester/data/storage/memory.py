"""A store in dictionaries: the executable definition of the protocol, also for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from backtester.data.candles import Answer, Series
from backtester.data.errors import CorruptDatasetError
from backtester.data.model import DatasetKey, Interval
from backtester.data.storage.store import (
    Dataset,
    DatasetSummary,
    SymbolSummary,
    merged_metadata,
    summarise,
)

if TYPE_CHECKING:
    from backtester.data.storage.store import Column

__all__ = ["MemoryStore"]


class MemoryStore:
    """A `Store` that lives and dies with the process."""

    def __init__(self) -> None:
        self._datasets: dict[DatasetKey, Dataset] = {}
        self._lock = Lock()

    def keys(self) -> list[DatasetKey]:
        return sorted(self._datasets, key=lambda key: key.stem)

    def read(
        self,
        key: DatasetKey,
        symbols: Sequence[str] | None = None,
        *,
        within: Interval | None = None,
        salvage: bool = False,
    ) -> Dataset:
        return self._datasets.get(key, Dataset(key)).select(symbols).showing(within)

    def read_column(
        self,
        key: DatasetKey,
        column: str,
        symbols: Sequence[str] | None = None,
        *,
        within: Interval | None = None,
    ) -> Mapping[str, Column]:
        return self.read(key, symbols, within=within).column(column)

    def held(
        self, key: DatasetKey, symbols: Sequence[str] | None = None, *, salvage: bool = False
    ) -> Mapping[str, SymbolSummary]:
        return summarise(self.read(key, symbols).series)

    def commit(self, key: DatasetKey, answers: Sequence[Answer]) -> None:
        if not answers:
            return
        with self._lock:
            self._datasets[key] = self.read(key).with_answers(answers)

    def fold(self, key: DatasetKey) -> None:
        """Do nothing: a dictionary has one form only."""

    def annotate(self, key: DatasetKey, metadata: Mapping[str, Any]) -> None:
        with self._lock:
            old = self.read(key)
            noted = merged_metadata(old.metadata, metadata)
            self._datasets[key] = Dataset(key, old.series, noted)

    def delete(self, key: DatasetKey, symbols: Sequence[str] | None = None) -> None:
        with self._lock:
            old = self._datasets.pop(key, None)
            if old is not None and symbols is not None:
                left = {s: one for s, one in old.series.items() if s not in symbols}
                if left:
                    self._datasets[key] = Dataset(key, left, old.metadata)

    def damage(self, key: DatasetKey) -> list[CorruptDatasetError]:
        return []

    def mend(self, key: DatasetKey, replaced: Mapping[str, Series]) -> None:
        with self._lock:
            old = self.read(key)
            self._datasets[key] = Dataset(key, {**old.series, **replaced}, old.metadata)

    def summary(self) -> list[DatasetSummary]:
        return [
            DatasetSummary(key.stem, key, summarise(self._datasets[key].series), 0, 0)
            for key in self.keys()
        ]
