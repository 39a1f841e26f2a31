"""The pickle store passes the contract, and what is true of its files alone.

Damage is in `test_pickle_damage.py`, kills and processes in `test_pickle_processes.py`.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blosc2
import pytest

from backtester.data.candles import Series
from backtester.data.errors import CorruptDatasetError, DatasetWriteError
from backtester.data.model import DatasetKey, Served
from backtester.data.storage import files, journal, pickle_file
from backtester.data.storage.pickle_file import PickleStore
from backtester.data.storage.store import Dataset
from tests.contract import pickle_bytes
from tests.contract.store_contract import BATCH, NOTES, OTHER, StoreContract
from tests.support.builders import (
    DAY,
    KEY,
    START,
    answer,
    applied,
    candles_at,
    contents,
    hours,
)

PRO_PICKLES = Path(__file__).resolve().parents[2].parent / "shared" / "candles" / "pro_pickles"
NAME = "binance_spot_1h.pickle.blosc"


class TestPickleStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder, self.made = tmp_path, 0

    def make(self) -> PickleStore:
        self.made += 1
        return PickleStore(self.folder / str(self.made))

    def raw_contents(self, store: PickleStore, key: DatasetKey) -> dict[str, Any] | None:
        path = store.folder / f"{key.stem}.pickle.blosc"
        return pickle_bytes.contents_of(path) if path.exists() else None

    def raw_put(self, store: PickleStore, dataset: Dataset) -> None:
        store.folder.mkdir()
        path = store.folder / f"{dataset.key.stem}.pickle.blosc"
        path.write_bytes(pickle_bytes.file_of(dataset))


@pytest.fixture
def store(tmp_path: Path) -> PickleStore:
    return PickleStore(tmp_path / "data")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


# ------------------------------------------------------------------------ the folder


def test_files_are_named_as_specified(store: PickleStore) -> None:
    """One pickle per dataset, a journal beside it only while answers are not folded in."""
    store.commit(KEY, BATCH)
    assert names(store.folder) == ["binance_spot_1h.journal"]
    store.fold(KEY)
    assert names(store.folder) == [NAME]
    store.commit(OTHER, BATCH)
    store.fold(OTHER)
    store.commit(KEY, BATCH)
    assert names(store.folder) == [
        "binance_spot_1h.journal", NAME, "okx_swap_1mo.pickle.blosc",
    ]  # fmt: skip


def test_looking_creates_nothing(store: PickleStore) -> None:
    """Reads, summaries, folds and deletes of nothing leave not even a folder."""
    store.read(KEY)
    store.read(KEY, salvage=True)
    store.summary()
    store.keys()
    store.fold(KEY)
    store.delete(KEY)
    store.commit(KEY, [])
    assert not store.folder.exists()


def test_reading_leaves_the_folder_as_it_is(store: PickleStore) -> None:
    """Also where there is something to read, and answers wait to be folded in."""
    store.commit(KEY, BATCH)
    store.fold(KEY)
    store.commit(KEY, BATCH)

    def snapshot() -> dict[str, tuple[bytes, int]]:
        return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in store.folder.iterdir()}

    before = snapshot()
    pickle_file._memo._entries.clear()
    store.read(KEY)
    store.read(KEY, salvage=True)
    store.summary()
    assert snapshot() == before


def test_other_files_are_nobodys_datasets(store: PickleStore) -> None:
    """What is set aside, half written, or named otherwise is not listed."""
    store.commit(KEY, BATCH)
    store.fold(KEY)
    for name in (f"{NAME}.damaged-1", f"{NAME}.original", f".{NAME}.1-ab.tmp", "notes.pickle.blosc",
                 "binance_spot_1M.pickle.blosc", "cache.sqlite", "x.journal"):  # fmt: skip
        (store.folder / name).write_bytes(b"?")
    assert store.keys() == [KEY]
    assert [one.name for one in store.summary()] == [NAME]


def test_leftovers_of_killed_writers_go_with_the_next_write(store: PickleStore) -> None:
    """Drafts are removed under the lock that their writer held."""
    store.commit(KEY, BATCH)
    for name in (f".{NAME}.1-ab.tmp", ".binance_spot_1h.journal.1-ab.tmp"):
        (store.folder / name).write_bytes(b"half")
    store.fold(KEY)
    assert names(store.folder) == [NAME]


def test_any_python_reads_the_file(store: PickleStore) -> None:
    """A file is a Blosc2 chunk of a pickle, as the specification says; a footer follows it."""
    store.commit(KEY, BATCH)
    store.annotate(KEY, NOTES)
    chunk, footer = pickle_bytes.split(store.path(KEY).read_bytes())
    raw = blosc2.decompress2(chunk)
    assert pickle.dumps(None)[:1] == raw[:1]
    assert pickle_bytes.contents_of(store.path(KEY)) == contents(store.read(KEY))
    assert footer["symbols"]["BTC/USDT"] == [5, START, hours(5, 1)[0]]


# ------------------------------------------------------------------------ steps of a fold


def test_a_fold_interrupted_before_the_journal_goes(store: PickleStore) -> None:
    """The journal left behind is in the file already: nothing is applied twice."""
    store.commit(KEY, BATCH)
    left = store.journal_path(KEY).read_bytes()
    store.fold(KEY)
    store.journal_path(KEY).write_bytes(left)
    assert contents(store.read(KEY)) == contents(applied(*BATCH))
    more = answer("BTC/USDT", 0, 6, seed=2, asked_ms=20)
    store.commit(KEY, [more])
    assert contents(store.read(KEY)) == contents(applied(*BATCH, more))
    store.fold(KEY)
    assert contents(store.read(KEY)) == contents(applied(*BATCH, more))
    assert names(store.folder) == [NAME]


def test_a_delete_interrupted_before_the_journal_goes(store: PickleStore) -> None:
    """A symbol deleted from the file does not come back from the journal left behind."""
    store.commit(KEY, BATCH)
    left = store.journal_path(KEY).read_bytes()
    store.delete(KEY, ["BTC/USDT"])
    rest = [a for a in BATCH if a.symbol != "BTC/USDT"]
    store.journal_path(KEY).write_bytes(left)
    assert contents(store.read(KEY)) == contents(applied(*rest))
    store.commit(KEY, [answer("XRP/USDT")])
    store.fold(KEY)
    assert contents(store.read(KEY)) == contents(applied(*rest, answer("XRP/USDT")))


def test_a_reader_meets_a_fold(store: PickleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading the journal and the file, the journal is folded in, twice: nothing is lost.

    Nor do answers of the old journal come back over newer ones.
    """
    newer = answer("BTC/USDT", 0, 6, seed=3, asked_ms=30)
    store.commit(KEY, BATCH)
    read_journal, meddled = journal.read, []

    def read_and_meddle(path: Path, key: DatasetKey) -> journal.Journal:
        found = read_journal(path, key)
        if not meddled:
            meddled.append(True)
            other = PickleStore(store.folder)
            other.fold(KEY)
            other.commit(KEY, [newer])
            other.fold(KEY)
        return found

    monkeypatch.setattr(journal, "read", read_and_meddle)
    assert contents(store.read(KEY)) == contents(applied(*BATCH, newer))
    assert contents(store.read(KEY)) == contents(applied(*BATCH, newer))


# ------------------------------------------------------------------------ the memo


@pytest.mark.parametrize(
    "meddle",
    [
        lambda other: other.commit(KEY, [answer("XRP/USDT")]),
        lambda other: (other.commit(KEY, [answer("XRP/USDT")]), other.fold(KEY)),
        lambda other: other.annotate(KEY, {"x": 1}),
        lambda other: other.delete(KEY, ["BTC/USDT"]),
        lambda other: other.delete(KEY),
    ],
    ids=["commit", "fold", "annotate", "delete a symbol", "delete"],
)
def test_the_memo_ends_with_what_it_remembers(
    store: PickleStore, meddle: Callable[[PickleStore], Any]
) -> None:
    """What was read is remembered only as long as both files are the same."""
    store.commit(KEY, BATCH)
    store.fold(KEY)
    assert store.read(KEY).series["BTC/USDT"] is store.read(KEY).series["BTC/USDT"]
    # A copy of the folder stands for another process: its own memo knows nothing.
    copy = PickleStore(store.folder.with_name("copy"))
    shutil.copytree(store.folder, copy.folder)
    meddle(copy)
    shutil.rmtree(store.folder)
    shutil.copytree(copy.folder, store.folder)
    assert contents(store.read(KEY)) == contents(copy.read(KEY))


def test_what_changes_while_it_is_read_is_not_remembered(
    store: PickleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataset that appears during a read is gone when it is deleted."""
    read_journal, meddled = journal.read, []

    def write_first(path: Path, key: DatasetKey) -> journal.Journal:
        if not meddled:
            meddled.append(True)
            PickleStore(store.folder).commit(KEY, BATCH)
        return read_journal(path, key)

    monkeypatch.setattr(journal, "read", write_first)
    assert contents(store.read(KEY)) == contents(applied(*BATCH))
    store.delete(KEY)
    assert contents(store.read(KEY)) == contents(Dataset(KEY))


# ------------------------------------------------------------------------ summaries


def test_a_summary_reads_no_candles(store: PickleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The footer suffices, in a file of any size; the chunk is not even looked at."""
    many = [answer(f"S{n}/USDT", 0, 2) for n in range(3_000)]  # a footer beyond 64 KiB
    store.commit(KEY, many)
    store.fold(KEY)
    pickle_file._memo._entries.clear()
    monkeypatch.setattr(pickle_file, "_decode", None)
    (found,) = store.summary()
    assert found.problem is None
    assert len(found.symbols) == 3_000
    assert found.symbols["S7/USDT"] == (found.symbols["S8/USDT"])
    assert found.size_bytes == store.path(KEY).stat().st_size
    assert found.modified_ms == store.path(KEY).stat().st_mtime_ns // 1_000_000


def test_a_dataset_deleted_while_summarised(
    store: PickleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes away between listing and looking is left out."""
    store.commit(KEY, BATCH)
    store.commit(OTHER, BATCH)
    listed = store.keys()
    store.delete(KEY)
    monkeypatch.setattr(PickleStore, "keys", lambda _self: listed)
    assert [one.key for one in store.summary()] == [OTHER]


# ------------------------------------------------------------------------ files of others


def put_foreign(store: PickleStore, data: bytes) -> None:
    store.folder.mkdir(exist_ok=True)
    store.path(KEY).write_bytes(data)


def data_pickle(*answers: Any) -> bytes:
    """Make the file of a saved Data object of ours: no footer, no coverage."""
    tables = {s: Series(one.candles) for s, one in applied(*answers).series.items()}
    return pickle_bytes.chunk_of(pickle_bytes.payload(Dataset(KEY, tables), kind="data"))


def test_a_saved_data_object_is_read(store: PickleStore) -> None:
    """Its candles are present, nothing is absent, and the last one may have been forming."""
    put_foreign(store, data_pickle(answer(count=5, without=(2,))))
    series = store.read(KEY).series["BTC/USDT"]
    assert series.candles == candles_at(hours(0, 2) + hours(3, 2))
    assert [(s.start, s.end, s.served) for s in series.coverage] == [
        (hours(0, 1)[0], hours(2, 1)[0], Served.GIVEN),
        (hours(3, 1)[0], hours(4, 1)[0], Served.GIVEN),
    ]
    (found,) = store.summary()
    assert (found.problem, found.symbols["BTC/USDT"].candles) == (None, 4)


def test_another_programs_file_is_kept_when_ours_replaces_it(store: PickleStore) -> None:
    """As `.original`, byte for byte; one that comes to lie there later, under the next name."""
    first, second = data_pickle(answer(count=5)), data_pickle(answer(count=7))
    put_foreign(store, first)
    more = answer("BTC/USDT", 5, 3, asked_ms=9)
    expected = contents(store.read(KEY).with_answers([more]))
    store.commit(KEY, [more])
    assert names(store.folder) == ["binance_spot_1h.journal", NAME]
    store.fold(KEY)
    assert contents(store.read(KEY)) == expected
    assert names(store.folder) == [NAME, f"{NAME}.original"]
    assert (store.folder / f"{NAME}.original").read_bytes() == first
    store.fold(KEY)
    store.annotate(KEY, {"x": 1})
    assert names(store.folder) == [NAME, f"{NAME}.original"]
    put_foreign(store, second)
    store.annotate(KEY, {"x": 1})
    assert (store.folder / f"{NAME}.original").read_bytes() == first
    assert (store.folder / f"{NAME}.original-2").read_bytes() == second


def test_a_foreign_file_survives_a_failed_replacement(
    store: PickleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays in place and readable, and is kept once however often it is tried."""
    put_foreign(store, data_pickle(answer(count=5)))
    before = contents(store.read(KEY))

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                store.annotate(KEY, {"x": 1})
    assert contents(store.read(KEY)) == before
    store.annotate(KEY, {"x": 1})
    assert names(store.folder) == [NAME, f"{NAME}.original"]


@pytest.mark.parametrize(
    ("dataset", "why"),
    [
        (Dataset(KEY, {"X": Series(candles_at([START + 1]))}), "does not hold binance spot 1h"),
        (Dataset(KEY, {"X": Series(candles_at([START, START + DAY // 48]))}), "off the 1h grid"),
    ],
)
def test_a_saved_object_of_another_timeframe(
    store: PickleStore, dataset: Dataset, why: str
) -> None:
    """Candles that do not stand on the dataset's grid are refused by name."""
    put_foreign(store, pickle_bytes.chunk_of(pickle_bytes.payload(dataset, kind="data")))
    with pytest.raises(CorruptDatasetError, match=why) as caught:
        store.read(KEY)
    assert caught.value.path == str(store.path(KEY))


def test_files_of_vectorbt_pro_are_read_and_kept(tmp_path: Path) -> None:
    """Real ones: read without running them, replaced only beside their originals."""
    if not PRO_PICKLES.is_dir():
        pytest.skip(f"the files of VectorBT PRO are not at {PRO_PICKLES}")
    read = 0
    for number, source in enumerate(sorted(PRO_PICKLES.glob("*.pickle.blosc"))):
        key = DatasetKey.from_stem(source.name.partition("__")[0])
        assert key is not None
        store = PickleStore(tmp_path / str(number))
        store.folder.mkdir()
        shutil.copy(source, store.path(key))
        (summary,) = store.summary()
        if summary.problem is not None:  # one holds Close only
            with pytest.raises(CorruptDatasetError, match="Open, High, Low"):
                store.read(key)
            continue
        before = store.read(key)
        read += 1
        symbol, series = next(iter(before.series.items()))
        assert len(series.candles) > 0
        assert key.timeframe.on_grid(series.candles.open_time).all()
        store.annotate(key, {"x": 1})
        after = store.read(key)
        assert contents(after)["series"] == contents(before)["series"]
        assert symbol in pickle_bytes.contents_of(store.path(key))["series"]
        kept = store.path(key).with_name(f"{store.path(key).name}.original")
        assert kept.read_bytes() == source.read_bytes()
    assert read >= 3


# ------------------------------------------------------------------------ no writing


def test_a_folder_that_cannot_be_made() -> None:
    """Every write says that it failed and where; reading says that nothing is there."""
    store = PickleStore(Path("/proc/no/such/place"))
    for write in (
        lambda: store.commit(KEY, BATCH),
        lambda: store.annotate(KEY, {"x": 1}),
    ):
        with pytest.raises(
            DatasetWriteError, match="cannot write /proc/no/such/place/binance_spot"
        ):
            write()
    assert store.read(KEY).series == {}
    assert store.keys() == []


def test_a_read_only_folder(store: PickleStore) -> None:
    """What is there can be read; every write says that it failed, and changes nothing."""
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    store.commit(KEY, BATCH)
    store.fold(KEY)
    store.folder.chmod(0o500)
    try:
        for write in (
            lambda: store.commit(KEY, BATCH[:1]),
            lambda: store.annotate(KEY, {"x": 1}),
            lambda: store.delete(KEY),
        ):
            with pytest.raises(DatasetWriteError, match="Permission denied"):
                write()
        pickle_file._memo._entries.clear()
        assert contents(store.read(KEY)) == contents(applied(*BATCH))
    finally:
        store.folder.chmod(0o700)


def test_a_dataset_too_odd_to_write(store: PickleStore) -> None:
    """Notes that are not plain are refused, and what is stored stays."""
    store.commit(KEY, BATCH)
    with pytest.raises(DatasetWriteError, match="plain"):
        store.annotate(KEY, {"x": object()})
    assert contents(store.read(KEY)) == contents(applied(*BATCH))
    assert names(store.folder) == ["binance_spot_1h.journal"]
