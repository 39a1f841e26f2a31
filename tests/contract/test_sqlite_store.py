"""The SQLite store passes the contract, and keeps its own promises."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtester.data.model import DatasetKey
from backtester.data.storage import sqlite_dataset, sqlite_file, sqlite_log
from backtester.data.storage.sqlite_file import SqliteStore
from backtester.data.storage.store import Dataset
from tests.contract.store_contract import StoreContract
from tests.support.builders import HOUR, KEY, START, answer, applied, contents


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


def test_several_chunks_and_a_tail_are_one_table(tmp_path: Path) -> None:
    """They are put together in order, whole or one column of them."""
    store, years = SqliteStore(tmp_path), [0, 9_000, 18_000, 27_000]
    for first in years:
        store.commit(KEY, [answer("BTC/USDT", first, 40, seed=first)])
    store.commit(KEY, [answer("BTC/USDT", 27_040, 3)])
    expected = [one for first in years for one in range(first, first + 40)] + [
        *range(27_040, 27_043)
    ]
    times, closes = store.read_column(KEY, "Close")["BTC/USDT"]
    assert times.tolist() == [START + hour * HOUR for hour in expected]
    found = store.read(KEY).series["BTC/USDT"].candles
    assert found.open_time.tolist() == times.tolist()
    parts = [answer("BTC/USDT", first, 40, seed=first).candles.values for first in years]
    whole = np.concatenate([*parts, answer("BTC/USDT", 27_040, 3).candles.values])
    assert found.values.tobytes() == whole.tobytes()
    assert closes.tobytes() == whole[:, 3].tobytes()


def test_a_replacement_that_is_cut_off_loses_nothing(tmp_path: Path) -> None:
    """What stood in the log alone is in the file before the log goes."""
    store = SqliteStore(tmp_path / "data")
    child = os.fork()
    if child == 0:
        store.commit(KEY, [answer("BTC/USDT"), answer("ETH/USDT")])
        Path.replace = lambda *_: os._exit(9)  # type: ignore[method-assign]
        try:
            store.put(applied(answer("XRP/USDT")))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not sqlite_log.path_of(store.path(KEY)).exists()
    expected = applied(answer("BTC/USDT"), answer("ETH/USDT"))
    assert contents(store.read(KEY)) == contents(expected)


def test_a_reader_looks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is replaced after it was found and before it is read is found anew."""
    store = SqliteStore(tmp_path / "data")
    store.commit(KEY, [answer("OLD")])
    pool, new = sqlite_file._connections, applied(answer("NEW"))
    take = pool._take

    def replaced_meanwhile(*arguments: Any) -> Any:
        connection = take(*arguments)
        monkeypatch.setattr(pool, "_take", take)
        store.put(new)
        return connection

    monkeypatch.setattr(pool, "_take", replaced_meanwhile)
    assert contents(store.read(KEY)) == contents(new)
