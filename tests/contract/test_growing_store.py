"""Datasets that change their form pass the contract at any size, and are moved whole."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backtester.data.errors import CorruptDatasetError, OptionError
from backtester.data.model import DatasetKey
from backtester.data.storage import growing, pickle_file, sqlite_dataset
from backtester.data.storage.growing import GrowingStore, Storage
from backtester.data.storage.store import Dataset
from tests.contract.store_contract import BATCH, NOTES, StoreContract
from tests.support.builders import KEY, answer, applied, contents

PICKLE, SQLITE = "binance_spot_1h.pickle.blosc", "binance_spot_1h.candles.sqlite"


def forget() -> None:
    for memo in (pickle_file._memo, sqlite_dataset._memo):
        memo.clear()


@pytest.fixture(autouse=True)
def _no_memo() -> Iterator[None]:
    yield
    forget()


def names(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.iterdir() if not path.name.endswith((".lock", "-wal", "-shm"))
    )


class GrowingContract(StoreContract):
    storage = Storage.AUTO

    @pytest.fixture(autouse=True)
    def _folder(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as folder:
            self.folder = Path(folder)
            yield

    def make(self) -> GrowingStore:
        return GrowingStore(Path(tempfile.mkdtemp(dir=self.folder)) / "data", self.storage)

    def raw_contents(self, store: GrowingStore, key: DatasetKey) -> dict[str, Any] | None:
        forget()
        fresh = GrowingStore(store.folder)
        return contents(fresh.read(key)) if fresh.path(key).exists() else None

    def raw_put(self, store: GrowingStore, dataset: Dataset) -> None:
        store._pickles.put(dataset)


class TestGrowingEarly(GrowingContract):
    """Moved as soon as the journal has a record or two."""

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(growing, "MOST_PICKLE_BYTES", 600)


class TestPinnedToSqlite(GrowingContract):
    storage = Storage.SQLITE


class TestPinnedToPickle(GrowingContract):
    storage = Storage.PICKLE

    def raw_put(self, store: GrowingStore, dataset: Dataset) -> None:
        store._sqlite.put(dataset)


# ------------------------------------------------------------------------ moves


@pytest.fixture
def store(tmp_path: Path) -> GrowingStore:
    store = GrowingStore(tmp_path / "data")
    store.commit(KEY, BATCH)
    store.annotate(KEY, NOTES)
    return store


def test_a_small_dataset_stays_a_pickle(store: GrowingStore) -> None:
    """The default is the file that other VectorBT code can read."""
    store.fold(KEY)
    assert names(store.folder) == [PICKLE]


def test_a_large_one_moves_by_itself(
    store: GrowingStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the next write; the old file is kept under another name, and one line says so."""
    monkeypatch.setattr(growing, "MOST_PICKLE_BYTES", 600)
    caplog.set_level(logging.INFO)
    more = answer("XRP/USDT", 0, 3)
    store.commit(KEY, [more])
    assert names(store.folder) == [SQLITE, f"{PICKLE}.moved"]
    expected = Dataset(KEY, applied(*BATCH, more).series, NOTES)
    assert contents(store.read(KEY)) == contents(expected)
    told = [record.getMessage() for record in caplog.records if "is now kept in" in record.message]
    assert len(told) == 1
    assert f"{PICKLE}.moved" in told[0]
    assert [one.name for one in store.summary()] == [SQLITE]


def test_there_and_back_again(store: GrowingStore) -> None:
    """Each move keeps every bit, and the files of all earlier forms."""
    before = contents(store.read(KEY))
    for form in (Storage.SQLITE, Storage.PICKLE, Storage.SQLITE, Storage.SQLITE):
        path = store.move(KEY, form)
        forget()
        assert path.exists()
        assert contents(store.read(KEY)) == before
    assert names(store.folder) == [
        SQLITE, f"{SQLITE}.moved", f"{PICKLE}.moved", f"{PICKLE}.moved-2",
    ]  # fmt: skip


def test_a_pin_is_kept_to(store: GrowingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pinned pickle never moves, however large."""
    monkeypatch.setattr(growing, "MOST_PICKLE_BYTES", 0)
    pinned = GrowingStore(store.folder, Storage.PICKLE)
    pinned.commit(KEY, [answer("XRP/USDT")])
    pinned.fold(KEY)
    assert names(store.folder) == [PICKLE]


@pytest.mark.parametrize("step", ["put", "retire"])
@pytest.mark.parametrize("to", [Storage.SQLITE, Storage.PICKLE])
def test_a_move_that_is_cut_off(
    store: GrowingStore, to: Storage, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the new file stands the old one is the dataset, afterwards the new one; the next
    writer puts things in order, and what was acknowledged meanwhile is kept."""
    if to is Storage.PICKLE:
        store.move(KEY, Storage.SQLITE)
    before = contents(store.read(KEY))

    def killed(*_arguments: object) -> None:
        raise KeyboardInterrupt

    target = store._sqlite if to is Storage.SQLITE else store._pickles
    with monkeypatch.context() as patch:
        patch.setattr(*((target, "put") if step == "put" else (store, "_retire")), killed)
        with pytest.raises(KeyboardInterrupt):
            store.move(KEY, to)
    forget()
    assert contents(store.read(KEY)) == before
    assert [one.key for one in store.summary()] == [KEY]
    more = answer("XRP/USDT", 0, 3)
    store.commit(KEY, [more])
    forget()
    after = contents(Dataset(KEY, applied(*BATCH, more).series, NOTES))
    assert contents(store.read(KEY)) == after
    store.move(KEY, to)
    forget()
    assert contents(store.read(KEY)) == after
    left = [name for name in names(store.folder) if "moved" not in name]
    assert left == [SQLITE if to is Storage.SQLITE else PICKLE]


def test_a_damaged_pickle_is_not_moved(store: GrowingStore) -> None:
    """Its damage is told, and it stays where it is."""
    store.fold(KEY)
    path = store.folder / PICKLE
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    forget()
    with pytest.raises(CorruptDatasetError):
        store.move(KEY, Storage.SQLITE)
    assert names(store.folder) == [PICKLE]


def test_deleting_takes_both_forms(store: GrowingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed move left must not come back as the dataset."""
    with monkeypatch.context() as patch:
        patch.setattr(store, "_retire", lambda *_: ["x"])
        store.move(KEY, Storage.SQLITE)
    assert names(store.folder)[0] == SQLITE
    store.delete(KEY)
    assert names(store.folder) == []
    assert store.keys() == []


def test_deleting_takes_what_moves_kept(store: GrowingStore) -> None:
    """The copies of earlier forms hold the same candles, and go with them."""
    for form in (Storage.SQLITE, Storage.PICKLE, Storage.SQLITE):
        store.move(KEY, form)
    store.delete(KEY)
    assert names(store.folder) == []


@pytest.mark.parametrize("to", [Storage.SQLITE, Storage.PICKLE])
def test_a_dataset_moved_while_it_is_read(
    store: GrowingStore, to: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that looks where the dataset no longer is looks again."""
    if to is Storage.PICKLE:
        store.move(KEY, Storage.SQLITE)
    expected = contents(store.read(KEY))
    forget()
    source = store._store_of(KEY)
    read = source.read

    def moved_first(*arguments: Any, **options: Any) -> Dataset:
        monkeypatch.undo()
        GrowingStore(store.folder).move(KEY, to)
        return read(*arguments, **options)

    monkeypatch.setattr(source, "read", moved_first)
    assert contents(store.read(KEY)) == expected
    assert store.path(KEY).name == (SQLITE if to is Storage.SQLITE else PICKLE)


def test_an_unknown_form_is_refused() -> None:
    """The error lists those there are."""
    with pytest.raises(OptionError, match="auto, pickle, sqlite"):
        Storage.parse("parquet")
