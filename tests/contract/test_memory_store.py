"""The memory store passes the contract: it is the protocol's definition."""

from __future__ import annotations

from typing import Any

from backtester.data.model import DatasetKey
from backtester.data.storage.memory import MemoryStore
from backtester.data.storage.store import Dataset
from tests.contract.store_contract import StoreContract
from tests.support.builders import contents


class TestMemoryStore(StoreContract):
    def make(self) -> MemoryStore:
        return MemoryStore()

    def raw_contents(self, store: MemoryStore, key: DatasetKey) -> dict[str, Any] | None:
        dataset = store._datasets.get(key)
        return None if dataset is None else contents(dataset)

    def raw_put(self, store: MemoryStore, dataset: Dataset) -> None:
        store._datasets[dataset.key] = dataset
