"""Whatever happens to a SQLite file is told, by file, symbol and period, and never misread."""

from __future__ import annotations

import functools
import json
import logging
import random
import sqlite3
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtester.data.candles import Answer, Candles
from backtester.data.errors import CorruptDatasetError
from backtester.data.model import Coverage, Interval, Served, Span
from backtester.data.storage import codec, connections, sqlite_dataset, sqlite_file, sqlite_schema
from backtester.data.storage.memo import Memo
from backtester.data.storage.pickles import UnreadableError
from backtester.data.storage.records import Record, Segment, read_record, write_record
from backtester.data.storage.sqlite_file import SqliteStore
from backtester.data.storage.store import Dataset
from tests.support.builders import HOUR, KEY, START, answer, applied, contents

NAME = "binance_spot_1h.candles.sqlite"
YEAR = 400 * 24 * HOUR
PAGE = 1024
SYMBOLS = ["BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT"]
NEW = answer("NEW/USDT", 0, 2, asked_ms=9)


@pytest.fixture(autouse=True)
def _no_memo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read every file anew."""
    monkeypatch.setattr(sqlite_dataset, "_memo", Memo(0))


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)  # hundreds of files are set aside


def fill(store: SqliteStore) -> dict[str, Any]:
    """Make a dataset of a few pages: two years, loose segments, tails, revisions, notes."""
    for symbol in SYMBOLS:
        store.commit(KEY, [answer(symbol, 0, 40, without=(3, 4), asked_ms=3)])
        store.commit(KEY, [answer(symbol, 366 * 24, 30, asked_ms=4)])
    store.fold(KEY)
    store.commit(KEY, [answer("ETH/USDT", 3, 4, seed=1, asked_ms=9)])
    store.commit(KEY, [answer("ETH/USDT", 100, 40, asked_ms=9)])  # a segment of its own
    for symbol in SYMBOLS[1:]:
        for hour in range(3):
            store.commit(KEY, [answer(symbol, 366 * 24 + 30 + hour, 1, asked_ms=10)])
    store.annotate(KEY, {"volume_data": {"BTC/USDT": 1.5}})
    held = contents(store.read(KEY))
    assert len(held["series"]["ETH/USDT"]["revisions"]) == 2
    return held


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file without a log beside it, of many small pages."""
    store = SqliteStore(tmp_path_factory.mktemp("original"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_schema, "PAGE_BYTES", PAGE)
        fill(store)
    sqlite_file._connections.close(store.path(KEY))
    assert [p.name for p in store.folder.glob("*.sqlite*")] == [NAME]
    return store.path(KEY)


@pytest.fixture(scope="module")
def held(original: Path) -> dict[str, Any]:
    return contents(SqliteStore(original.parent).read(KEY))


@pytest.fixture
def store(tmp_path: Path, original: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "data")
    store.folder.mkdir()
    put_back(store, original.read_bytes())
    yield store
    sqlite_file._connections.close(store.path(KEY))


def put_back(store: SqliteStore, content: bytes | bytearray, log: bytes | None = None) -> None:
    """Make the folder hold this one file, and perhaps its log."""
    sqlite_file._connections.close(store.path(KEY))
    for path in store.folder.glob("*.sqlite*"):
        path.unlink()
    store.path(KEY).write_bytes(content)
    if log is not None:
        (store.folder / f"{NAME}-wal").write_bytes(log)


def subset(found: dict[str, Any], held: dict[str, Any]) -> bool:
    """Tell whether what was salvaged is sound: no other candles, and no coverage of lost ones."""
    for symbol, one in found["series"].items():
        whole = held["series"][symbol]
        if not one["candles"].items() <= whole["candles"].items():
            return False
        lost = whole["candles"].keys() - one["candles"].keys()
        if any(a <= time < b for time in lost for a, b, *_ in one["coverage"]):
            return False
        if any(not covers(whole["coverage"], span) for span in one["coverage"]):
            return False
        if not set(one["revisions"]) <= set(whole["revisions"]):
            return False
    return found["metadata"] in ({}, held["metadata"])


def covers(spans: list[Any], span: Any) -> bool:
    return any(a <= span[0] and span[1] <= b and rest == list(span[2:]) for a, b, *rest in spans)


def told(store: SqliteStore, held: dict[str, Any], *, held_too: bool = True) -> bool:
    """Check that reads raise the one right error or are exactly right, whole and by symbol."""
    path = str(store.path(KEY))

    def ask(read: Callable[[], dict[str, Any]], right: dict[str, Any]) -> bool:
        found, damage = None, None
        try:
            found = read()
        except CorruptDatasetError as error:
            damage = error
        if damage is None:
            assert found == right
            return False
        assert damage.path == path
        assert path in str(damage)
        return True

    wrong = [ask(lambda: contents(store.read(KEY)), held)]
    counts = {symbol: len(one["candles"]) for symbol, one in held["series"].items()}
    if held_too:
        wrong.append(ask(lambda: {s: n.candles for s, n in store.held(KEY).items()}, counts))
    for symbol in SYMBOLS:
        alone = functools.partial(store.read, KEY, [symbol])
        right = {"key": held["key"], "metadata": held["metadata"], "series": {}}
        right["series"] = {symbol: held["series"][symbol]}
        wrong.append(ask(lambda alone=alone: contents(alone()), right))
    assert subset(contents(store.read(KEY, salvage=True)), held)
    (summary,) = store.summary()
    if held_too:
        assert (summary.problem is not None) == wrong[1]
    return any(wrong)


# ------------------------------------------------------------------------ every byte, every length


def test_an_undamaged_file_is_read(store: SqliteStore, held: dict[str, Any]) -> None:
    """The cases below fail for their own reason."""
    assert not told(store, held)


@pytest.mark.parametrize(
    "every", [61, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_flipped_bytes(
    store: SqliteStore, original: Path, held: dict[str, Any], every: int
) -> None:
    """One bit of any byte: what is read is right or told; most bytes matter."""
    whole = original.read_bytes()
    flips = range(random.randrange(every), len(whole), every)
    found = 0
    for at in flips:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8 if every > 1 else random.randrange(8))
        put_back(store, damaged)
        found += told(store, held)
    used = sum(whole[at] != 0 for at in flips)
    assert found > 0.9 * used, "unused space is zeros"


@pytest.mark.parametrize("every", [509, pytest.param(7, marks=pytest.mark.slow)])
def test_cut_files(store: SqliteStore, original: Path, held: dict[str, Any], every: int) -> None:
    """A file of any other length is told, also an empty one."""
    whole = original.read_bytes()
    lengths = {*range(0, len(whole), every), *range(0, len(whole), PAGE), len(whole) - 1}
    for length in sorted(lengths):
        put_back(store, whole[:length])
        assert told(store, held), length


def test_lost_blocks(store: SqliteStore, original: Path, held: dict[str, Any]) -> None:
    """A page of zeros, of another's content, or of the disk's garbage."""
    whole = original.read_bytes()
    pages = [whole[at : at + PAGE] for at in range(0, len(whole), PAGE)]
    garbage, harmless = random.Random(1).randbytes(PAGE), set()
    for number in range(len(pages)):
        for other in (bytes(PAGE), pages[number - 1], garbage):
            put_back(store, b"".join([*pages[:number], other, *pages[number + 1 :]]))
            if not told(store, held):
                harmless.add(number)
    with closing(sqlite3.connect(original)) as connection:
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    assert len(harmless) <= free + 2, "an index and the ids used so far are read by writers only"


def test_damage_is_told_where_it_is(store: SqliteStore, original: Path) -> None:
    """By file, symbol and period; the other symbols, and the other years, are read."""
    with closing(sqlite3.connect(original)) as connection:
        (data,) = connection.execute("SELECT data FROM chunks ORDER BY id").fetchone()
    whole = bytearray(original.read_bytes())
    at = whole.index(data[:64]) + 40
    whole[at] ^= 4
    put_back(store, whole)
    with pytest.raises(CorruptDatasetError) as caught:
        store.read(KEY)
    damage = caught.value
    assert (damage.path, damage.symbol) == (str(store.path(KEY)), "BTC/USDT")
    assert (damage.interval.start, damage.interval.end) == (START, START + 40 * HOUR)
    for part in (NAME, "BTC/USDT", "2024-01-01"):
        assert part in str(damage)
    assert list(store.read(KEY, SYMBOLS[1:]).series) == SYMBOLS[1:]
    later = store.read(KEY, ["BTC/USDT"], within=Interval(START + 300 * 24 * HOUR, START + YEAR))
    assert len(later.series["BTC/USDT"].candles) == 30
    salvaged = store.read(KEY, salvage=True).series["BTC/USDT"]
    assert len(salvaged.candles) == 30
    assert salvaged.coverage.missing(damage.interval) == [damage.interval]


# ------------------------------------------------------------------------ the next write


@pytest.mark.parametrize("every", [997, pytest.param(41, marks=pytest.mark.slow)])
def test_a_write_keeps_what_is_sound(
    store: SqliteStore, original: Path, held: dict[str, Any], every: int
) -> None:
    """It sets the damaged file aside, byte for byte, if it meets the damage; a file that reads as
    damaged is not so for long, and nothing sound is lost on the way."""
    whole = original.read_bytes()
    for at in range(random.randrange(every), len(whole), every):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << random.randrange(8)
        put_back(store, damaged)
        wrong = told(store, held)  # or only where writers look: an index, free pages
        salvaged = contents(store.read(KEY, salvage=True))
        for symbol in [*SYMBOLS, NEW.symbol]:
            store.commit(KEY, [answer(symbol, 2000, 1, asked_ms=20)])
        aside = store.folder / f"{NAME}.damaged-1"
        if aside.exists():
            assert wrong or salvaged == held
            now = contents(store.read(KEY))
            for symbol, one in salvaged["series"].items():
                kept = now["series"][symbol]
                assert one["candles"].items() <= kept["candles"].items()
                assert all(covers(kept["coverage"], span) for span in one["coverage"])
            for symbol, one in now["series"].items():
                one["candles"].pop(START + 2000 * HOUR)
                if symbol != NEW.symbol:
                    whole_one = held["series"][symbol]
                    assert one["candles"].items() <= whole_one["candles"].items()


# ------------------------------------------------------------------------ what was left by a kill

Left = tuple[bytes, bytes, list[Any]]
LATER = [answer("BTC/USDT", 400 * 24 + i, 1, asked_ms=30 + i) for i in range(6)]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory, original: Path) -> Left:
    """A file and the log that a killed process leaves, and what they held before each commit."""
    store = SqliteStore(tmp_path_factory.mktemp("left"))
    put_back(store, original.read_bytes())
    held = [contents(store.read(KEY))]
    for one in LATER:
        store.commit(KEY, [one])
        held.append(contents(store.read(KEY)))
    log = store.folder / f"{NAME}-wal"
    return store.path(KEY).read_bytes(), log.read_bytes(), held


def test_a_log_that_was_left_is_read(store: SqliteStore, left: Left) -> None:
    """All that was acknowledged is there, and the file takes it in."""
    file, log, held = left
    put_back(store, file, log)
    assert contents(store.read(KEY)) == held[-1]
    assert contents(store.read(KEY, salvage=True)) == held[-1]


@pytest.mark.parametrize("every", [173, pytest.param(7, marks=pytest.mark.slow)])
def test_a_damaged_log(store: SqliteStore, left: Left, every: int) -> None:
    """Its damage is told each time, until a write has set it aside, byte for byte, and the file;
    only in the last transaction it looks like one that was cut off, and that one is lost."""
    file, log, held = left
    found = 0
    for at in [*range(32), *range(32 + random.randrange(every), len(log), every)]:
        damaged = bytearray(log)
        damaged[at] ^= 1 << random.randrange(8)
        put_back(store, file, damaged)
        try:
            now = contents(store.read(KEY))
        except CorruptDatasetError as damage:
            now, found = {"problem": str(damage)}, found + 1
        if "problem" not in now:
            assert held.index(now) >= len(held) - 2, at
            continue
        assert "write-ahead log" in now["problem"]
        if found % 50 == 1:
            assert contents(store.read(KEY, salvage=True)) in held
            with pytest.raises(CorruptDatasetError):
                store.held(KEY)
            store.commit(KEY, [NEW])
            now = contents(store.read(KEY))
            del now["series"][NEW.symbol]
            assert now in held
            assert (store.folder / f"{NAME}.damaged-1").exists()
            assert (store.folder / f"{NAME}.damaged-1-wal").read_bytes() == damaged
    assert found > 0.5 * len(log) / every


def test_a_cut_log(store: SqliteStore, left: Left) -> None:
    """Whole transactions are read up to the cut: SQLite cannot tell it from one of its own."""
    file, log, held = left
    seen = []
    for length in range(0, len(log), 577):
        put_back(store, file, log[:length])
        seen.append(held.index(contents(store.read(KEY))))
    assert seen == sorted(seen)
    assert set(seen) == set(range(len(held) - 1))


def test_a_log_of_a_deleted_dataset_does_not_come_back(store: SqliteStore, left: Left) -> None:
    """A delete may be killed after the file has gone and before its log has."""
    file, log, _ = left
    put_back(store, file, log)
    store.path(KEY).unlink()
    assert contents(store.read(KEY)) == contents(Dataset(KEY))
    store.commit(KEY, [NEW])
    assert contents(store.read(KEY)) == contents(applied(NEW))


# ------------------------------------------------------------------------ hostile files


def seal(data: bytes, part: int) -> bytes:
    return zlib.crc32(data, part).to_bytes(4, "little") + data


def identity(**changed: Any) -> bytes:
    sound = {"dataset": KEY.stem, "id": "x", "symbols": 4, "names": 0, "position": 4, "notes": 0}
    return seal(json.dumps(sound | changed).encode(), 1)


def record(**changed: Any) -> bytes:
    """Make a record of BTC/USDT that contradicts itself."""
    one = Record(
        Coverage((Span(0, 10, Served.MARKET, 1),)), (Segment(0, 9, 2, 1), Segment(10, 19, 2, 2)),
        candles=4, first_ms=0, last_ms=19,
    )  # fmt: skip
    return write_record(replace(one, **changed), f"{KEY.stem}\0BTC/USDT".encode())


RECORD = "UPDATE series SET record = ? WHERE symbol = 'BTC/USDT'"
HOSTILE: dict[str, tuple[str, Any]] = {
    "a trigger": (
        "CREATE TRIGGER t AFTER UPDATE ON series BEGIN DELETE FROM chunks; END", None),
    "a view": ("CREATE VIEW v AS SELECT load_extension('x')", None),
    "a table more": ("CREATE TABLE more (a)", None),
    "an index more": ("CREATE INDEX more ON chunks (length(data))", None),
    "a generated column": ("ALTER TABLE chunks ADD COLUMN x AS (zeroblob(1000000000))", None),
    "a virtual table": ("CREATE VIRTUAL TABLE v USING fts5(a)", None),
    "a table less": ("DROP TABLE revisions", None),
    "another program": ("PRAGMA application_id = 7", None),
    "a later format": ("PRAGMA user_version = 2", None),
    "identity: a number": ("UPDATE dataset SET data = 1000000000000 WHERE id = 1", None),
    "identity: a text": ("UPDATE dataset SET data = 'x' WHERE id = 1", None),
    "identity: not JSON": ("UPDATE dataset SET data = ? WHERE id = 1", seal(b"{", 1)),
    "identity: a list": ("UPDATE dataset SET data = ? WHERE id = 1", seal(b"[]", 1)),
    "identity: another": ("UPDATE dataset SET data = ? WHERE id = 1", identity(dataset="x_y_1h")),
    "identity: negative": ("UPDATE dataset SET data = ? WHERE id = 1", identity(symbols=-4)),
    "identity: infinite": ("UPDATE dataset SET data = ? WHERE id = 1", identity(position=2**64)),
    "identity: a wrong kind": ("UPDATE dataset SET data = ? WHERE id = 1", identity(id=[])),
    "identity: gone": ("DELETE FROM dataset WHERE id = 1", None),
    "notes: a number": ("UPDATE dataset SET data = 5 WHERE id = 2", None),
    "notes: code": ("UPDATE dataset SET data = ? WHERE id = 2",
                    seal(b"cos\nsystem\n(S'touch owned'\ntR.", 2)),
    "notes: gone": ("DELETE FROM dataset WHERE id = 2", None),
    "a record: a number": (RECORD, 7),
    "a record: a text": (RECORD, "x" * 99),
    "a record: empty": (RECORD, b""),
    "a record: too many rows": (RECORD, record(candles=2**63)),
    "a record: overlapping": (RECORD, record(segments=(Segment(0, 9, 2, 1), Segment(9, 19, 2, 2)))),
    "a record: backwards": (RECORD, record(segments=(Segment(10, 19, 2, 1), Segment(0, 9, 2, 2)))),
    "a record: no rows": (RECORD, record(segments=(Segment(0, 9, 0, 1), Segment(10, 19, 4, 2)))),
    "a record: dense": (RECORD, record(segments=(Segment(0, 9, 2**31, 1),), candles=2**31,
                                       last_ms=9)),
    "a record: coverage": (RECORD, record(coverage=Coverage(
        (Span(5, 9, Served.MARKET, 1), Span(0, 6, Served.MARKET, 1))))),
    "a record: another's chunk": (RECORD, record(
        segments=(Segment(START, START + HOUR, 2, 3),), coverage=Coverage(), candles=2,
        first_ms=START, last_ms=START + HOUR)),
    "a symbol: bytes": ("UPDATE series SET symbol = x'ff00' WHERE symbol = 'BTC/USDT'", None),
    "a symbol: not text": (
        "UPDATE series SET symbol = CAST(x'ff00' AS TEXT) WHERE symbol = 'BTC/USDT'", None),
    "a symbol: another": ("UPDATE series SET symbol = 'BTC' WHERE symbol = 'BTC/USDT'", None),
    "a symbol: gone": ("DELETE FROM series WHERE symbol = 'BTC/USDT'", None),
    "a chunk: a text": ("UPDATE chunks SET data = 'VBC'", None),
    "a chunk: a number": ("UPDATE chunks SET data = 2000000000", None),
    "a chunk: huge": ("UPDATE chunks SET data = zeroblob(3000000)", None),
    "chunks: swapped": ("UPDATE chunks SET id = -id", None),
    "revisions: a text": ("UPDATE revisions SET data = 'x'", None),
    "revisions: gone": ("DELETE FROM revisions", None),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(
    store: SqliteStore,
    held: dict[str, Any],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """With sound pages and right checksums: a typed error, little memory, and nothing is run."""
    monkeypatch.setattr(connections, "_MOST_BYTES", 1 << 20)
    monkeypatch.chdir(tmp_path)
    statement, value = HOSTILE[name]
    sqlite_file._connections.close(store.path(KEY))
    with closing(sqlite3.connect(store.path(KEY))) as connection, connection:
        connection.execute(statement, () if value is None else (value,))
    tracemalloc.start()
    try:
        # What is held is told from the heads of records, which a forger can forge.
        assert told(store, held, held_too=not name.startswith("a record"))
        store.commit(KEY, [answer("BTC/USDT", 366 * 24 + 20, 15, asked_ms=99), NEW])
        store.fold(KEY)
        store.delete(KEY, ["SOL/USDT"])
        store.annotate(KEY, {"y": 2})
        if not list(store.folder.glob("*.damaged-1")):  # none of these met it
            store.mend(KEY, {})
        now = contents(store.read(KEY))
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()
    assert list(store.folder.glob(f"{NAME}.damaged-1"))
    assert now["series"].keys() >= {"BTC/USDT", "NEW/USDT"}
    assert now["metadata"]["y"] == 2
    assert not (tmp_path / "owned").exists()
    now["series"].pop("NEW/USDT")
    for symbol in ("ETH/USDT", "XRP/USDT"):
        whole = held["series"][symbol]["candles"]
        assert now["series"].get(symbol, {"candles": {}})["candles"].items() <= whole.items()


@pytest.mark.parametrize("forged", ["a chunk twice", "chunks in another order", "a tail backwards"])
def test_records_that_name_real_chunks_wrongly(
    store: SqliteStore, held: dict[str, Any], forged: str
) -> None:
    """Each chunk is sound and stands where it is said to; together they are no history."""
    sqlite_file._connections.close(store.path(KEY))
    name = f"{KEY.stem}\0ETH/USDT".encode()
    with closing(sqlite3.connect(store.path(KEY))) as connection, connection:
        query = "SELECT record FROM series WHERE symbol = 'ETH/USDT'"
        sound = read_record(connection.execute(query).fetchone()[0], name)
        parts, width = sound.segments, len(sound.tail) // sound.tail_rows
        rows = [sound.tail[at : at + width] for at in range(0, len(sound.tail), width)]
        changed = {
            "a chunk twice": replace(
                sound, segments=(parts[0], *parts), candles=sound.candles + parts[0].rows
            ),
            "chunks in another order": replace(sound, segments=parts[::-1]),
            "a tail backwards": replace(sound, tail=b"".join(rows[::-1])),
        }[forged]
        assert len(parts) > 1
        assert len(rows) > 1
        update = query.replace("SELECT record FROM series", "UPDATE series SET record = ?")
        connection.execute(update, (write_record(changed, name),))
    assert told(store, held, held_too=False)
    with pytest.raises(CorruptDatasetError, match="contradicts itself"):
        store.read(KEY, ["ETH/USDT"])


def test_a_table_that_leads_back_into_itself(tmp_path: Path) -> None:
    """All children of a page are one and the same, over and over: reading ends, with an error."""
    store = SqliteStore(tmp_path / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_schema, "PAGE_BYTES", PAGE)
        store.commit(KEY, [answer(f"S{n:03}") for n in range(100)])
    sqlite_file._connections.close(store.path(KEY))
    with closing(sqlite3.connect(store.path(KEY))) as connection:
        query = "SELECT rootpage FROM sqlite_schema WHERE name = 'series'"
        (root,) = connection.execute(query).fetchone()
    whole = bytearray(store.path(KEY).read_bytes())
    at = (root - 1) * PAGE
    assert whole[at] == 2, "an inner page"
    last = whole[at + 8 : at + 12]
    for number in range(int.from_bytes(whole[at + 3 : at + 5], "big")):
        place = at + 12 + 2 * number
        cell = at + int.from_bytes(whole[place : place + 2], "big")
        whole[cell : cell + 4] = last
    put_back(store, whole)
    with pytest.raises(CorruptDatasetError):
        store.read(KEY)
    assert len(store.read(KEY, salvage=True).series) < 100
    store.commit(KEY, [NEW])
    assert contents(store.read(KEY, [NEW.symbol])) == contents(applied(NEW))


def test_a_small_file_that_unpacks_to_much(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand times its size, and much at that, is no history of prices."""
    flat = Candles.of(
        np.arange(200_000) * HOUR + START, np.broadcast_to([1.0, 1.0, 1.0, 1.0, 0.0], (200_000, 5))
    )
    store.delete(KEY)
    whole = Interval(START, START + 200_000 * HOUR)
    store.commit(KEY, [Answer("FLAT", whole, flat, Served.MARKET, 1)])
    assert store.read(KEY).series["FLAT"].candles == flat
    monkeypatch.setattr(sqlite_dataset, "_HARMLESS_BYTES", 1 << 20)
    monkeypatch.setattr(sqlite_dataset, "_MOST_RATIO", 10)
    with pytest.raises(CorruptDatasetError, match="more than is possible"):
        store.read(KEY)


def test_nonsense_in_a_chunk_with_a_right_checksum() -> None:
    """Any other bytes decode to a table of the shape they claim, or to the one error."""
    table = answer("X", 0, 300, without=(5,)).candles
    chance, errors = random.Random(3), 0
    for values in (table.values, np.sin(table.values), np.full_like(table.values, 2.5)):
        sound = codec.encode(table.open_time, values, b"x")[:-4]
        for _ in range(2_000):
            data = bytearray(sound)
            for _ in range(chance.randrange(1, 4)):
                data[chance.randrange(5 if chance.random() < 0.8 else 3, 200)] = chance.choice(
                    [0, 1, 2, 3, 4, 5, 8, 127, 128, 255]
                )
            chunk = bytes(data) + zlib.crc32(data, zlib.crc32(b"x")).to_bytes(4, "little")
            try:
                times, found = codec.decode(chunk, b"x")
                assert found.shape == (len(times), codec.Chunk.open(chunk, b"x").width)
                assert (np.diff(times) > 0).all()
            except UnreadableError:
                errors += 1
    assert errors > 3_000
