"""Damage is not emptiness: whatever happens to a file, it is named, kept, and never misread."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backtester.data.errors import CorruptDatasetError, DatasetWriteError
from backtester.data.model import DatasetKey
from backtester.data.storage import files, pickle_file
from backtester.data.storage.memo import Memo
from backtester.data.storage.pickle_file import PickleStore
from backtester.data.storage.store import Dataset
from tests.contract import pickle_bytes
from tests.support.builders import KEY, answer, applied, contents
from tests.unit.test_files import disk_with_room_for, failing

NAME = "binance_spot_1h.pickle.blosc"
JOURNAL = "binance_spot_1h.journal"
BATCH = [
    answer("BTC/USDT", 0, 3, without=(1,), asked_ms=3),
    answer("BTC/USDT", 0, 1, seed=1, asked_ms=4),
    answer("ETH/USDT", 0, 1, asked_ms=4),
]
MORE = answer("XRP/USDT", 5, 2, asked_ms=9)


@pytest.fixture(autouse=True)
def _no_memo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read every file anew: these tests change files in place, faster than clocks tick."""
    monkeypatch.setattr(pickle_file, "_memo", Memo(0))
    monkeypatch.setattr(pickle_file, "_sound", {})


@pytest.fixture
def store(tmp_path: Path) -> PickleStore:
    """A store with one small dataset, folded in."""
    store = PickleStore(tmp_path / "data")
    store.commit(KEY, BATCH)
    store.annotate(KEY, {"x": 1})
    return store


@pytest.fixture
def held(store: PickleStore) -> dict[str, Any]:
    return contents(store.read(KEY))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def assert_told_or_unharmed(store: PickleStore, held: dict[str, Any]) -> bool:
    """Check that a read raises the one right error, or gives exactly what was held."""
    path, told = str(store.path(KEY)), None
    try:
        found = contents(store.read(KEY))
    except CorruptDatasetError as error:
        told = error
    if told is None:
        assert found == held
    else:
        assert told.path == path
        assert path in str(told)
    salvaged = contents(store.read(KEY, salvage=True))["series"]
    assert salvaged in ({}, held["series"])
    (summary,) = store.summary()
    if summary.problem is None:
        assert {s: one.candles for s, one in summary.symbols.items()} == {
            symbol: len(one["candles"]) for symbol, one in held["series"].items()
        }
    return told is not None


# ------------------------------------------------------------------------ every byte


@pytest.mark.parametrize("pattern", [0x01, 0x80, 0xFF])
def test_every_flipped_byte(store: PickleStore, held: dict[str, Any], pattern: int) -> None:
    """A flipped byte anywhere is told, by the file's name; nothing is misread."""
    whole = store.path(KEY).read_bytes()
    told = 0
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= pattern
        store.path(KEY).write_bytes(damaged)
        told += assert_told_or_unharmed(store, held)
    assert told == len(whole)


def test_every_cut(store: PickleStore, held: dict[str, Any]) -> None:
    """A file cut at any length, also to nothing, is told and never read as empty."""
    whole = store.path(KEY).read_bytes()
    for length in range(len(whole)):
        store.path(KEY).write_bytes(whole[:length])
        assert assert_told_or_unharmed(store, held)
    store.path(KEY).write_bytes(whole)
    assert not assert_told_or_unharmed(store, held)


def test_zeros_and_garbage(store: PickleStore, held: dict[str, Any]) -> None:
    """A file whose blocks were lost, or that is something else, or goes on, is told."""
    whole = store.path(KEY).read_bytes()
    for content in (
        bytes(len(whole)),
        whole[:100] + bytes(len(whole) - 100),
        b"<html>502</html>",
        b"\x80\x04N.",
        whole + b"\0",
        whole + whole[:-1],
        b"x" + whole,
    ):
        store.path(KEY).write_bytes(content)
        assert assert_told_or_unharmed(store, held)


def test_a_file_with_another_in_front_of_it(store: PickleStore, held: dict[str, Any]) -> None:
    """Two files in one: the footer does not match what stands before it."""
    whole = store.path(KEY).read_bytes()
    store.path(KEY).write_bytes(whole + whole)
    assert_told_or_unharmed(store, held)


# ------------------------------------------------------------------------ hostile footers


def test_the_forger_forges_well(store: PickleStore, held: dict[str, Any]) -> None:
    """A file made by the format's definition is read: the cases below fail for their own reason."""
    store.path(KEY).write_bytes(pickle_bytes.file_of(store.read(KEY)))
    assert not assert_told_or_unharmed(store, held)


@pytest.mark.parametrize("footer", [b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff", b"{}"])
def test_footers_that_are_none(store: PickleStore, held: dict[str, Any], footer: bytes) -> None:
    """A right checksum around nonsense is damage, not another exception."""
    chunk = pickle_bytes.chunk_of(pickle_bytes.payload(applied(*BATCH)))
    store.path(KEY).write_bytes(pickle_bytes.with_footer(chunk, footer))
    assert assert_told_or_unharmed(store, held)


@pytest.mark.parametrize(
    "part",
    ["format", "exchange", "market_type", "timeframe", "chunk_bytes", "chunk_crc32", "journal",
     "journal_bytes", "symbols"],
)  # fmt: skip
@pytest.mark.parametrize("value", ["gone", None, "x", -1, 2**70, 1.5, [], {"X": 1}], ids=repr)
def test_footers_with_a_wrong_part(
    store: PickleStore, held: dict[str, Any], part: str, value: Any
) -> None:
    """A part that is missing, or of another kind, is damage too."""
    dataset = store.read(KEY)
    chunk = pickle_bytes.chunk_of(pickle_bytes.payload(dataset))
    footer = pickle_bytes.footer_of(dataset, chunk)
    footer[part] = value
    if value == "gone":
        del footer[part]
    store.path(KEY).write_bytes(pickle_bytes.with_footer(chunk, json.dumps(footer).encode()))
    if (part, value) in [("journal", None), ("journal", "x"), ("journal_bytes", -1)]:
        assert not assert_told_or_unharmed(store, held)  # possible: of a journal long gone
    else:
        assert assert_told_or_unharmed(store, held)


def test_a_later_format_is_named(store: PickleStore) -> None:
    """A file of a version to come is refused as such, and left in place."""
    dataset = store.read(KEY)
    chunk = pickle_bytes.chunk_of(pickle_bytes.payload(dataset))
    footer = pickle_bytes.footer_of(dataset, chunk) | {"format": 2}
    store.path(KEY).write_bytes(pickle_bytes.with_footer(chunk, json.dumps(footer).encode()))
    with pytest.raises(CorruptDatasetError, match="format 1"):
        store.read(KEY)


# ------------------------------------------------------------------------ other people's names


def test_a_renamed_dataset_is_refused(store: PickleStore) -> None:
    """A file under another dataset's name does not become that dataset's candles."""
    for stem in ("okx_spot_1h", "binance_swap_1h", "binance_spot_4h"):
        other = DatasetKey.from_stem(stem)
        assert other is not None
        shutil.copy(store.path(KEY), store.path(other))
        with pytest.raises(CorruptDatasetError, match="holds binance spot 1h candles, not") as e:
            store.read(other)
        assert e.value.path == str(store.path(other))
        summary = next(one for one in store.summary() if one.key == other)
        assert "holds binance spot 1h" in str(summary.problem)


def test_a_renamed_journal_is_refused(store: PickleStore) -> None:
    """Nor does a journal."""
    store.commit(KEY, [MORE])
    other = DatasetKey.of("okx", "spot", "1h")
    shutil.copy(store.journal_path(KEY), store.journal_path(other))
    with pytest.raises(CorruptDatasetError, match="belongs to binance_spot_1h"):
        store.read(other)
    store.commit(other, [MORE])
    assert contents(store.read(other)) == contents(applied(MORE, key=other))


# ------------------------------------------------------------------------ setting aside


def test_a_damaged_file_stays_until_it_is_replaced(store: PickleStore) -> None:
    """Reads, commits and summaries leave it; the fold sets it aside and goes on without it."""
    damaged = store.path(KEY).read_bytes()[:-9] + b"!" * 9
    store.path(KEY).write_bytes(damaged)
    store.commit(KEY, [MORE])
    for _ in range(2):
        with pytest.raises(CorruptDatasetError):
            store.read(KEY)
        assert store.summary()[0].problem is not None
    assert contents(store.read(KEY, salvage=True)) == contents(applied(MORE))
    assert names(store.folder) == [JOURNAL, NAME]
    store.fold(KEY)
    assert contents(store.read(KEY)) == contents(applied(MORE))
    assert names(store.folder) == [NAME, f"{NAME}.damaged-1"]
    assert (store.folder / f"{NAME}.damaged-1").read_bytes() == damaged


@pytest.mark.parametrize(
    "write",
    [lambda s: s.annotate(KEY, {"y": 2}), lambda s: s.delete(KEY, ["BTC/USDT"])],
    ids=["annotate", "delete a symbol"],
)
def test_every_rewrite_keeps_the_evidence(
    store: PickleStore, write: Callable[[PickleStore], None]
) -> None:
    """Whatever replaces a damaged file keeps it byte for byte first."""
    store.path(KEY).write_bytes(b"bad")
    write(store)
    assert (store.folder / f"{NAME}.damaged-1").read_bytes() == b"bad"
    store.path(KEY).write_bytes(b"worse")
    write(store)
    assert (store.folder / f"{NAME}.damaged-2").read_bytes() == b"worse"


@pytest.fixture
def journaled(store: PickleStore) -> list[Any]:
    """Three answers in the journal, not folded in."""
    answers = [answer("XRP/USDT", 3 * i, 3, asked_ms=9 + i) for i in range(3)]
    for one in answers:
        store.commit(KEY, [one])
    return answers


@pytest.mark.parametrize("pattern", [0x01, 0xFF])
def test_every_flipped_byte_of_a_journal(
    store: PickleStore, held: dict[str, Any], journaled: list[Any], pattern: int
) -> None:
    """It is told, by the journal's name; what is sound before it can be salvaged."""
    path = store.journal_path(KEY)
    whole, base = path.read_bytes(), applied(*BATCH)
    possible = [contents(base.with_answers(journaled[:n]))["series"] for n in range(4)]
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= pattern
        path.write_bytes(damaged)
        with pytest.raises(CorruptDatasetError) as caught:
            store.read(KEY)
        assert caught.value.path == str(path)
        assert contents(store.read(KEY, salvage=True))["series"] in possible
        assert store.summary()[0].problem is not None


@pytest.mark.parametrize("write", ["commit", "fold", "annotate"])
def test_a_damaged_journal_is_set_aside_and_salvaged(
    store: PickleStore, journaled: list[Any], write: str
) -> None:
    """The records before the damage stay in the dataset, the file is kept byte for byte."""
    path = store.journal_path(KEY)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    dataset = Dataset(KEY, applied(*BATCH, *journaled[:2]).series, {"x": 1})
    if write == "commit":
        store.commit(KEY, [MORE])
        dataset = dataset.with_answers([MORE])
    elif write == "fold":
        store.fold(KEY)
    else:
        store.annotate(KEY, {"x": 1})
    assert contents(store.read(KEY)) == contents(dataset)
    assert (store.folder / f"{JOURNAL}.damaged-1").read_bytes() == damaged
    store.fold(KEY)
    assert contents(store.read(KEY)) == contents(dataset)
    assert names(store.folder) == [f"{JOURNAL}.damaged-1", NAME]


def test_a_journal_damaged_after_it_was_folded_in(store: PickleStore) -> None:
    """Answers that the file has already are not applied once more over newer ones."""
    changing = [answer("XRP/USDT", 5, 2, seed=seed, asked_ms=9 + seed) for seed in range(3)]
    store.commit(KEY, changing)
    left = bytearray(store.journal_path(KEY).read_bytes())
    store.fold(KEY)
    left[-1] ^= 1
    store.journal_path(KEY).write_bytes(left)
    later = answer("XRP/USDT", 9, 1, asked_ms=20)
    store.commit(KEY, [later])
    expected = Dataset(KEY, applied(*BATCH, *changing, later).series, {"x": 1})
    assert contents(store.read(KEY)) == contents(expected)


# ------------------------------------------------------------------------ writes that fail


@pytest.mark.parametrize("kind", ["full disk", "fsync", "rename"])
@pytest.mark.parametrize("damage", ["sound", "damaged file", "damaged journal"])
def test_a_failed_fold_leaves_everything(
    store: PickleStore,
    journaled: list[Any],
    kind: str,
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Old content and acknowledged answers stay where they are, damage stays damage, no drafts."""
    path = {"damaged file": store.path(KEY), "damaged journal": store.journal_path(KEY)}.get(damage)
    if path is not None:
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    before = {p.name: p.read_bytes() for p in store.folder.iterdir()}
    for _ in range(3):
        with (
            monkeypatch.context() as patch,
            disk_with_room_for(200 if kind == "full disk" else 10**9),
        ):
            if kind == "fsync":
                patch.setattr(os, "fsync", failing(errno.EIO))
            if kind == "rename":
                patch.setattr(Path, "replace", failing())
            for write in (lambda: store.fold(KEY), lambda: store.annotate(KEY, {"y": 2})):
                with pytest.raises(DatasetWriteError, match="cannot write"):
                    write()
    after = {p.name: p.read_bytes() for p in store.folder.iterdir()}
    aside = {name for name in after if ".damaged-" in name}
    assert {name: data for name, data in after.items() if name not in aside} == before
    assert len(aside) == (path is not None), "kept once, however often it is tried"
    if path is not None:
        with pytest.raises(CorruptDatasetError):
            store.read(KEY)
    store.fold(KEY)  # there is room again
    kept = {"sound": [*BATCH, *journaled], "damaged file": journaled}.get(
        damage, [*BATCH, *journaled[:2]]
    )
    notes = {} if damage == "damaged file" else {"x": 1}
    assert contents(store.read(KEY)) == contents(Dataset(KEY, applied(*kept).series, notes))
    assert sorted(names(store.folder)) == sorted([NAME, *aside])


@pytest.mark.parametrize("room", [0, 10, 100, 200])
def test_a_failed_commit_keeps_nothing_of_it(
    store: PickleStore, journaled: list[Any], room: int
) -> None:
    """Where the disk is full, what was acknowledged stays and the rest is not half there."""
    before = contents(store.read(KEY))
    size = store.journal_path(KEY).stat().st_size
    with disk_with_room_for(size + room), pytest.raises(DatasetWriteError, match="File too large"):
        store.commit(KEY, [MORE])
    assert contents(store.read(KEY)) == before
    assert store.journal_path(KEY).stat().st_size == size
    store.commit(KEY, [MORE])
    expected = Dataset(KEY, applied(*BATCH, *journaled).series, {"x": 1}).with_answers([MORE])
    assert contents(store.read(KEY)) == contents(expected)


def test_a_failed_first_commit_leaves_no_dataset(tmp_path: Path) -> None:
    """Not even an empty journal, which would be listed."""
    store = PickleStore(tmp_path / "data")
    with disk_with_room_for(20), pytest.raises(DatasetWriteError):
        store.commit(KEY, BATCH)
    assert store.keys() == []
    assert names(store.folder) == []


# ------------------------------------------------------------------------ reads that fail


@pytest.mark.parametrize("which", ["file", "journal"])
def test_what_cannot_be_read_just_now_is_not_set_aside(
    store: PickleStore, journaled: list[Any], which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of file handles, or a disk that does not answer: nothing sound is taken for damage."""
    expected = contents(store.read(KEY))
    path = store.path(KEY) if which == "file" else store.journal_path(KEY)
    read_bytes = Path.read_bytes

    def fail(self: Path) -> bytes:
        if self == path:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return read_bytes(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(CorruptDatasetError, match="cannot be read: Too many open files"):
            store.read(KEY)
        store.read(KEY, salvage=True)
        for write in (lambda: store.fold(KEY), lambda: store.annotate(KEY, {"y": 2})):
            with pytest.raises(DatasetWriteError, match="Too many open files"):
                write()
    assert contents(store.read(KEY)) == expected
    assert names(store.folder) == [JOURNAL, NAME]


@pytest.mark.parametrize("name", [NAME, JOURNAL])
def test_a_folder_in_the_place_of_a_file(tmp_path: Path, name: str) -> None:
    """It is told, by its name, in reads, writes and summaries; and it is not touched."""
    store = PickleStore(tmp_path / "data")
    (store.folder / name).mkdir(parents=True)
    with pytest.raises(CorruptDatasetError, match="cannot be read: Is a directory"):
        store.read(KEY)
    assert "cannot be read" in str(store.summary()[0].problem)
    with pytest.raises(DatasetWriteError):
        store.annotate(KEY, {"x": 1})
    assert (store.folder / name).is_dir()
    assert files.signature(store.folder / name) is not None
