"""Whatever happens to a SQLite file is told, by file, symbol and period, and never misread."""

from __future__ import annotations

import functools
import logging
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backtester.data.errors import CorruptDatasetError
from backtester.data.model import Interval
from backtester.data.storage import sqlite_dataset, sqlite_file
from backtester.data.storage.memo import Memo
from backtester.data.storage.sqlite_file import SqliteStore
from tests.support.builders import HOUR, KEY, START, answer, contents

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
        patch.setattr(sqlite_dataset, "_PAGE_BYTES", PAGE)
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


def told(store: SqliteStore, held: dict[str, Any]) -> bool:
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
    wrong.append(ask(lambda: {s: n.candles for s, n in store.held(KEY).items()}, counts))
    for symbol in SYMBOLS:
        alone = functools.partial(store.read, KEY, [symbol])
        right = {"key": held["key"], "metadata": held["metadata"], "series": {}}
        right["series"] = {symbol: held["series"][symbol]}
        wrong.append(ask(lambda alone=alone: contents(alone()), right))
    assert subset(contents(store.read(KEY, salvage=True)), held)
    (summary,) = store.summary()
    assert (summary.problem is not None) == wrong[1]
    return any(wrong)


# ------------------------------------------------------------------------ every byte, every length


def test_an_undamaged_file_is_read(store: SqliteStore, held: dict[str, Any]) -> None:
    """The cases below fail for their own reason."""
    assert not told(store, held)


@pytest.mark.parametrize("every", [61, pytest.param(1, marks=pytest.mark.slow)])
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
        wrong = told(store, held)
        salvaged = contents(store.read(KEY, salvage=True))
        for symbol in [*SYMBOLS, NEW.symbol]:
            store.commit(KEY, [answer(symbol, 2000, 1, asked_ms=20)])
        aside = store.folder / f"{NAME}.damaged-1"
        if aside.exists():
            assert wrong
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
