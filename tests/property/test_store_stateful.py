"""Every store on disk against the memory store: any history of writes, crashes and reopenings."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backtester.data.candles import Answer
from backtester.data.errors import DatasetWriteError
from backtester.data.model import DatasetKey, Interval, Served
from backtester.data.storage import (
    connections,
    files,
    growing,
    journal,
    pickle_file,
    records,
    sqlite_changes,
    sqlite_dataset,
    sqlite_file,
    sqlite_schema,
)
from backtester.data.storage.growing import GrowingStore, Storage
from backtester.data.storage.memory import MemoryStore
from backtester.data.storage.pickle_file import PickleStore
from backtester.data.storage.sqlite_changes import SqliteChanges
from backtester.data.storage.sqlite_file import SqliteStore
from tests.support.builders import HOUR, KEY, contents, span_of_hours
from tests.support.strategies import answers

KEYS = [KEY, DatasetKey.of("okx", "swap", "1M")]
keys = st.sampled_from(KEYS)
batches = st.lists(answers(), min_size=1, max_size=4)
symbols = st.lists(st.sampled_from(["BTC/USDT", "ETH/USDT", "XRP/USDT"]), max_size=2)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=5),
              st.floats(allow_nan=False), st.binary(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)  # fmt: skip
notes = st.dictionaries(st.sampled_from(["volume_data", "a", "b"]), plain, max_size=2)


def intervals() -> st.SearchStrategy[Interval]:
    """Intervals around the hours that answers are about."""
    pairs = st.tuples(st.integers(-2, 22), st.integers(1, 30))
    return pairs.map(lambda p: span_of_hours(*p))


class Histories(RuleBasedStateMachine):
    """Every rule is done to both stores; what is done to the files alone must not be seen."""

    make: Callable[[Path], Any]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="stores-"))
        self.store = self.make(self.folder / "data")
        self.model = MemoryStore()
        self.patch = pytest.MonkeyPatch()
        # Hypothesis makes thousands of writes, and no power is cut here.
        self.patch.setattr(os, "fsync", lambda _descriptor: None)
        self.patch.setattr(connections, "_SYNCHRONOUS", "OFF")
        self.patch.setattr(growing, "MOST_PICKLE_BYTES", 900)
        # Chunks, tails and merges of a few rows, and small pages.
        self.patch.setattr(sqlite_changes, "_APPENDED_ROWS", 3)
        self.patch.setattr(sqlite_changes, "_TAIL_ROWS", 3)
        self.patch.setattr(sqlite_schema, "PAGE_BYTES", 512)
        self.patch.setattr(records, "period_of", lambda _timeframe, times: times // (8 * HOUR))
        self.patch.setattr(sqlite_dataset, "period_of", records.period_of)

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.folder)

    def both(self, do: Callable[[Any], None]) -> None:
        do(self.store)
        do(self.model)

    def forget(self) -> None:
        """Remember nothing, as another process does."""
        for memo in (pickle_file._memo, sqlite_dataset._memo):
            memo._entries.clear()
            memo._bytes = 0
        pickle_file._sound.clear()

    # -------------------------------------------------------------- what users do

    @rule(key=keys, batch=batches)
    def commit(self, key: DatasetKey, batch: list[Answer]) -> None:
        self.both(lambda store: store.commit(key, batch))

    @rule(key=keys)
    def fold(self, key: DatasetKey) -> None:
        self.both(lambda store: store.fold(key))

    @rule(key=keys, metadata=notes)
    def annotate(self, key: DatasetKey, metadata: dict) -> None:
        self.both(lambda store: store.annotate(key, metadata))

    @rule(key=keys, gone=symbols)
    def delete_symbols(self, key: DatasetKey, gone: list[str]) -> None:
        self.both(lambda store: store.delete(key, gone))

    @rule(key=keys)
    def delete_dataset(self, key: DatasetKey) -> None:
        self.both(lambda store: store.delete(key))

    @rule(key=keys, some=symbols, within=intervals())
    def read_a_part(self, key: DatasetKey, some: list[str], within: Interval) -> None:
        for wanted in (some, None):
            expected = self.model.read(key, wanted, within=within)
            assert contents(self.store.read(key, wanted, within=within)) == contents(expected)
            assert self.store.held(key, wanted) == self.model.held(key, wanted)

    # -------------------------------------------------------------- what happens to processes

    @rule()
    def reopen(self) -> None:
        """Another process goes on."""
        self.forget()
        self.store = self.make(self.folder / "data")

    @rule(key=keys, batch=batches)
    def another_process(self, key: DatasetKey, batch: list[Answer]) -> None:
        """It writes while this one has files open and remembers what it read."""
        kept = dict(sqlite_file._connections._idle)
        sqlite_file._connections._idle.clear()
        self.make(self.folder / "data").commit(key, batch)
        self.model.commit(key, batch)
        for path, idle in kept.items():
            sqlite_file._connections._idle.setdefault(path, []).extend(idle)

    @rule(key=keys)
    def crash_in_a_draft(self, key: DatasetKey) -> None:
        """A draft was left half written."""
        if self.store.folder.exists():
            for name in {PickleStore, SqliteStore}:
                path = name(self.store.folder).path(key)
                for end in ("", "-wal"):
                    path.with_name(f".{path.name}.1-ab.tmp{end}").write_bytes(b"half")

    # -------------------------------------------------------------- what must hold

    @invariant()
    def hold_the_same(self) -> None:
        for key in KEYS:
            expected = contents(self.model.read(key))
            assert contents(self.store.read(key)) == expected
            assert contents(self.store.read(key, salvage=True)) == expected

    @invariant()
    def list_the_same(self) -> None:
        assert self.store.keys() == self.model.keys()
        found = [(one.key, one.symbols, one.problem) for one in self.store.summary()]
        expected = [(one.key, one.symbols, None) for one in self.model.summary()]
        assert sorted(found, key=str) == sorted(expected, key=str)

    @precondition(lambda self: self.store.folder.exists())
    @invariant()
    def leave_nothing_strange(self) -> None:
        assert not list(self.store.folder.glob("*.damaged-*"))
        assert not list(self.store.folder.glob("*.original*"))


class Pickles(Histories):
    """What may happen to a pickle and its journal."""

    make = PickleStore

    @rule(key=keys)
    def crash_before_the_journal_goes(self, key: DatasetKey) -> None:
        """The pickle was replaced, and then the process was killed."""
        path = self.store.journal_path(key)
        left = path.read_bytes() if path.exists() else None
        self.store.fold(key)
        if left is not None:
            path.write_bytes(left)

    @rule(key=keys, gone=symbols)
    def crash_in_a_delete(self, key: DatasetKey, gone: list[str]) -> None:
        """The same, with symbols left out of the new pickle."""
        path = self.store.journal_path(key)
        left = path.read_bytes() if path.exists() else None
        self.both(lambda store: store.delete(key, gone))
        if left is not None and self.store.path(key).exists():
            path.write_bytes(left)

    @rule(key=keys, one=answers(), share=st.floats(0, 0.999))
    def crash_in_a_commit(self, key: DatasetKey, one: Answer, share: float) -> None:
        """A record was written in part, and never acknowledged."""
        path = self.store.journal_path(key)
        if path.exists():
            record = journal._encode_answer(one)
            sound = path.read_bytes()[: journal.read(path, key).sound_bytes]
            path.write_bytes(sound + record[: int(share * len(record))])

    @rule(key=keys, batch=batches)
    def fail_to_write(self, key: DatasetKey, batch: list[Answer]) -> None:
        """The disk was full: nothing of it is kept, and nothing else is lost."""

        def full(path: Path, *_rest: object) -> None:
            raise DatasetWriteError(f"cannot write {path}: full", path=str(path))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "append", full)
            patch.setattr(files, "replace", full)
            with pytest.raises(DatasetWriteError):
                self.store.commit(key, batch)
            with pytest.raises(DatasetWriteError):
                self.store.annotate(key, {"never": 1})


class Sqlites(Histories):
    """What may happen to a SQLite file."""

    make = SqliteStore

    @rule(key=keys, batch=batches)
    def fail_to_write(self, key: DatasetKey, batch: list[Answer]) -> None:
        """The disk was full in the middle: nothing of it is kept, and nothing else is lost."""

        def full(*_arguments: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SqliteChanges, "_write_identity", full)
            patch.setattr(sqlite_dataset, "is_damage", lambda _error: False)
            patch.setattr(sqlite_file, "is_damage", lambda _error: False)
            before = contents(self.store.read(key))
            fresh = Answer("NEVER", batch[0].interval, batch[0].candles, Served.MARKET, 1)
            with pytest.raises(DatasetWriteError):
                self.store.commit(key, [*batch, fresh])
            with pytest.raises(DatasetWriteError):
                self.store.annotate(key, {"never": 1})
        assert contents(self.store.read(key)) == before
        if key not in set(self.model.keys()):
            self.store.delete(key)  # an empty file

    @rule(key=keys, batch=batches)
    def crash_in_a_commit(self, key: DatasetKey, batch: list[Answer]) -> None:
        """It was killed before the transaction ended."""
        if self.store.path(key).exists():

            def killed(*_arguments: object, **_more: object) -> None:
                raise KeyboardInterrupt

            with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
                patch.setattr(SqliteChanges, "_write_record", killed)
                self.store.commit(key, batch)


class Growing(Histories):
    """Moves at any time, also those that are cut off."""

    make = GrowingStore

    @rule(key=keys, to=st.sampled_from(Storage))
    def move(self, key: DatasetKey, to: Storage) -> None:
        if key in set(self.model.keys()):
            self.store.move(key, to)

    @rule(key=keys, to=st.sampled_from([Storage.PICKLE, Storage.SQLITE]))
    def crash_in_a_move(self, key: DatasetKey, to: Storage) -> None:
        """The new file stands, and the old one was not put away."""
        if key in set(self.model.keys()):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(self.store, "_retire", lambda *_: [])
                self.store.move(key, to)

    @rule(storage=st.sampled_from(Storage))
    def pin(self, storage: Storage) -> None:
        """Another process has another form pinned."""
        self.store = GrowingStore(self.folder / "data", storage)


for machine in (Pickles, Sqlites, Growing):
    machine.TestCase.settings = settings(
        max_examples=settings().max_examples // 2, stateful_step_count=25
    )
TestPickles, TestSqlites, TestGrowing = (
    machine.TestCase for machine in (Pickles, Sqlites, Growing)
)
