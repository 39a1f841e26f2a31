"""The SQLite store passes the contract, and keeps its own promises."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backtester.data.model import DatasetKey
from backtester.data.storage import sqlite_dataset
from backtester.data.storage.sqlite_file import SqliteStore
from backtester.data.storage.store import Dataset
from tests.contract.store_contract import StoreContract
from tests.support.builders import contents


@pytest.fixture(autouse=True)
def _no_memo() -> Iterator[None]:
    yield
    sqlite_dataset._memo._entries.clear()


class TestSqliteStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _folder(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as folder:
            self.folder = Path(folder)
            yield

    def make(self) -> SqliteStore:
        return SqliteStore(Path(tempfile.mkdtemp(dir=self.folder)) / "data")

    def raw_contents(self, store: SqliteStore, key: DatasetKey) -> dict[str, Any] | None:
        sqlite_dataset._memo._entries.clear()
        return contents(SqliteStore(store.folder).read(key)) if store.path(key).exists() else None

    def raw_put(self, store: SqliteStore, dataset: Dataset) -> None:
        SqliteStore(store.folder).put(dataset)
