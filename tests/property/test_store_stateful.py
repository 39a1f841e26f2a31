"""The pickle store against the memory store: any history of writes, crashes and reopenings."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backtester.data.candles import Answer
from backtester.data.errors import DatasetWriteError
from backtester.data.model import DatasetKey
from backtester.data.storage import files, journal, pickle_file
from backtester.data.storage.memory import MemoryStore
from backtester.data.storage.pickle_file import PickleStore
from tests.support.builders import KEY, contents
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


class Stores(RuleBasedStateMachine):
    """Every rule is done to both stores; what is done to the files alone must not be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="stores-"))
        self.store = PickleStore(self.folder / "data")
        self.model = MemoryStore()
        self.patch = pytest.MonkeyPatch()
        # Hypothesis makes thousands of writes, and no power is cut here.
        self.patch.setattr(os, "fsync", lambda _descriptor: None)

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.folder)

    def both(self, do: Callable[[PickleStore | MemoryStore], None]) -> None:
        do(self.store)
        do(self.model)

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

    # -------------------------------------------------------------- what happens to processes

    @rule()
    def reopen(self) -> None:
        """Another process goes on: it remembers nothing."""
        pickle_file._memo._entries.clear()
        pickle_file._sound.clear()
        self.store = PickleStore(self.store.folder)

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

    @rule(key=keys)
    def crash_in_a_replace(self, key: DatasetKey) -> None:
        """A draft was left half written."""
        if self.store.folder.exists():
            draft = self.store.path(key).with_name(f".{self.store.path(key).name}.1-ab.tmp")
            draft.write_bytes(b"half")

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
        assert [(one.key, one.symbols, one.problem) for one in self.store.summary()] == [
            (one.key, one.symbols, None) for one in self.model.summary()
        ]

    @precondition(lambda self: self.store.folder.exists())
    @invariant()
    def leave_nothing_strange(self) -> None:
        assert not list(self.store.folder.glob("*.damaged-*"))
        assert not list(self.store.folder.glob("*.original*"))


Stores.TestCase.settings = settings(
    max_examples=settings().max_examples * 2 // 3, stateful_step_count=25
)
TestStores = Stores.TestCase
