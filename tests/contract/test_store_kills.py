"""Every store, killed at any moment: nothing acknowledged is lost, checked by value.

A few dozen kills run with the suite; ``make soak`` does a thousand and more.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backtester.data.candles import Series
from backtester.data.storage import growing, pickle_file, sqlite_dataset, sqlite_file, sqlite_log
from backtester.data.storage.sqlite_file import SqliteStore
from backtester.data.storage.store import Dataset
from tests.contract.nursery import Nursery, opened
from tests.contract.store_worker import SMALL_BYTES, STORES, after, shares, step
from tests.support.builders import KEY, answer, applied, contents, plain_series
from tests.support.processes import ROOT

MORE = answer("MORE/USDT", 0, 3, asked_ms=9)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with opened() as found:
        yield found


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "MOST_PICKLE_BYTES", SMALL_BYTES)


def rows(found: dict[str, Any]) -> set[tuple[str, int, bytes]]:
    return {
        (symbol, time, row)
        for symbol, one in found["series"].items()
        for time, row in one["candles"].items()
    }


def forget() -> None:
    for memo in (pickle_file._memo, sqlite_dataset._memo):
        memo._entries.clear()
        memo._bytes = 0
    pickle_file._sound.clear()


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("kills", [15, pytest.param(400, marks=pytest.mark.slow)])
def test_kills(nursery: Nursery, tmp_path: Path, store: str, kills: int) -> None:
    """After each the dataset is what was acknowledged, or one operation more: never anything else.

    Appends, pages, revisions, folds, notes, moves there and back, and deletes.
    """
    folder, note, chance = tmp_path / "data", tmp_path / "note", random.Random()
    own, truth, number = STORES[store](folder), Dataset(KEY), 0
    during: Counter[str] = Counter()
    for _ in range(kills):
        note.write_bytes(b"")
        child = nursery.born(what="history", folder=folder, store=store, first=number, note=note)
        wanted, patience = chance.randrange(5), time.monotonic() + 60
        while note.stat().st_size < wanted:
            assert time.monotonic() < patience, "it does not work"
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.012))
        os.kill(child, signal.SIGKILL)
        assert nursery.ended(child) == -signal.SIGKILL
        for _ in range(note.stat().st_size):
            truth, number = after(truth, number), number + 1
        forget()
        found, more = contents(own.read(KEY)), after(truth, number)
        for one in own.summary():
            assert one.problem is None
        during[step(number)[0]] += 1
        if found == contents(truth):
            continue
        if step(number)[0] == "delete" and found != contents(more):
            # It had to remove two files, and may have removed one. What is left was there.
            assert rows(found) < rows(contents(truth))
            own.delete(KEY, step(number)[1])
            found = contents(own.read(KEY))
        assert found == contents(more), f"killed in {step(number)}"
        truth, number = more, number + 1
    sys.stdout.write(f"\n{store}: {kills} kills in {number} operations, during {dict(during)}\n")
    own.commit(KEY, [MORE])
    own.fold(KEY)
    forget()
    assert contents(own.read(KEY)) == contents(truth.with_answers([MORE]))
    left = {path.name for path in folder.iterdir()}
    assert not [name for name in left if name.endswith((".tmp", ".tmp-wal", ".tmp-shm"))]
    assert not [name for name in left if "damaged" in name]


# ------------------------------------------------------------------------ side by side


@pytest.mark.parametrize("store", ["sqlite", "growing"])
def test_processes_writing_at_once(nursery: Nursery, tmp_path: Path, store: str) -> None:
    """Symbols of their own and one that all write, folds and moves: all is kept, and a reader sees
    whole commits only, each no later than it was there, and waits for no more than one."""
    writers, count, folder = 3, 25, tmp_path / "data"
    order = {"what": "share", "folder": folder, "store": store, "writers": writers, "count": count}
    children = [nursery.born(who=who, **order) for who in range(writers)]
    pages = {
        one.symbol: [page for page in shares(who, writers, count) if page.symbol == one.symbol]
        for who in range(writers)
        for one in shares(who, writers, count)[:1]
    }
    possible = {
        symbol: [plain_series(Series().with_answers(own[:n])) for n in range(count + 1)]
        for symbol, own in pages.items()
    }
    own, slowest = STORES[store](folder), 0.0
    names = [one for symbol in possible for one in (f"TWIN-{symbol}", symbol)]
    seen: Counter[str] = Counter()
    while any(alive(child) for child in children):
        begun = time.monotonic()
        found = own.read(KEY, names).series  # by name: a question each, and one answer
        slowest = max(slowest, time.monotonic() - begun)
        for symbol, states in possible.items():
            state = states.index(plain_series(found.get(symbol, Series())))
            assert state >= seen[symbol]
            seen[symbol] = state
            if store == "sqlite":  # a journal is read up to where it is written
                twin = found.get(f"TWIN-{symbol}", Series())
                assert states.index(plain_series(twin)) == state, "both or neither"
    assert [nursery.ended(child) for child in children] == [0] * writers
    assert slowest < 5, "milliseconds; but this machine may be busy"
    expected: dict[str, Series] = {}
    for who in range(writers):
        for one in shares(who, writers, count):
            for symbol in (one.symbol, f"TWIN-{one.symbol}"):
                expected[symbol] = expected.get(symbol, Series()).with_answers([one])
    for _ in range(2):
        forget()
        kept = own.read(KEY).series
        assert {symbol: plain_series(one) for symbol, one in kept.items()} == {
            symbol: plain_series(one) for symbol, one in expected.items()
        }
        own.fold(KEY)


def alive(child: int) -> bool:
    """Tell whether a process runs still; its parent has not asked how it ended."""
    return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_replaced_file_keeps_its_log(tmp_path: Path) -> None:
    """A process with the old file open reads the new one, and closing the old one leaves the new
    one's log, in which acknowledged candles are."""
    path = tmp_path / "data"
    program = (
        "import sys; from pathlib import Path\n"
        "from backtester.data.storage.sqlite_file import SqliteStore\n"
        "from tests.support.builders import KEY\n"
        "store = SqliteStore(Path(sys.argv[1]))\n"
        "for line in sys.stdin: print(*store.read(KEY).series, flush=True)\n"
    )
    own = SqliteStore(path)
    own.commit(KEY, [answer("OLD")])
    log = sqlite_log.path_of(own.path(KEY))
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip

        def read() -> list[str]:
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdin.write("read\n")
            other.stdin.flush()
            return other.stdout.readline().split()

        for replace in (
            lambda: own.put(applied(answer("NEW"))),
            lambda: (own.delete(KEY), own.commit(KEY, [answer("NEW")])),
            lambda: (own.retire(KEY), own.commit(KEY, [answer("NEW")])),
        ):
            own.put(applied(answer("OLD")))
            own.commit(KEY, [answer("OLDER")])
            assert read() == ["OLD", "OLDER"]
            replace()
            own.commit(KEY, [answer("NEWER")])
            inode, size = log.stat().st_ino, log.stat().st_size
            assert size
            assert read() == ["NEW", "NEWER"]  # for which it closes the old file
            assert (log.stat().st_ino, log.stat().st_size) == (inode, size)
        assert other.stdin is not None
        other.stdin.close()
    assert other.returncode == 0
    forget()
    sqlite_file._connections.close(own.path(KEY))
    assert contents(own.read(KEY)) == contents(applied(answer("NEW"), answer("NEWER")))


def test_a_fork_with_files_open(tmp_path: Path) -> None:
    """The child opens its own, while a thread of the parent may hold whatever it holds."""
    own = SqliteStore(tmp_path / "data")
    own.commit(KEY, [answer("A")])
    locks = [sqlite_file._connections._lock, sqlite_dataset._memo._lock]
    for lock in locks:
        lock.acquire()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            own.commit(KEY, [answer("B")])
            code = 0 if list(own.read(KEY).series) == ["A", "B"] else 2
        finally:
            os._exit(code)
    for lock in locks:
        lock.release()
    try:
        patience = time.monotonic() + 20
        while alive(child) and time.monotonic() < patience:
            time.sleep(0.01)
    finally:
        if alive(child):
            os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(own.read(KEY).series) == ["A", "B"]
    own.commit(KEY, [answer("C")])
    assert contents(own.read(KEY)) == contents(applied(answer("A"), answer("B"), answer("C")))
