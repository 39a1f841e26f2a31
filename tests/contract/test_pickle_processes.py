"""Several processes and killed processes: nothing acknowledged is ever lost, checked by value."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backtester.data.candles import Series
from backtester.data.errors import CorruptDatasetError
from backtester.data.storage import pickle_file
from backtester.data.storage.pickle_file import PickleStore
from backtester.data.storage.store import Dataset
from tests.contract import pickle_bytes
from tests.contract.pickle_worker import ACTIONS, CRASHED, MORE, SHARED, page, pages_of
from tests.support.builders import KEY, answer, applied, contents, plain_series

ROOT = Path(__file__).resolve().parents[2]
KILLS = 45
NAME = "binance_spot_1h.pickle.blosc"


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.contract.pickle_worker", *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def nursery() -> Iterator[subprocess.Popen[str]]:
    """A process that forks children to be killed."""
    with start("nursery") as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


def order(nursery: subprocess.Popen[str], **what: Any) -> int:
    """Have a child born; give its pid."""
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    nursery.stdin.write(json.dumps(what) + "\n")
    nursery.stdin.flush()
    return int(nursery.stdout.readline())


def ended(nursery: subprocess.Popen[str]) -> int:
    assert nursery.stdout is not None
    return int(nursery.stdout.readline())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


# ------------------------------------------------------------------------ side by side


def test_processes_writing_at_once_lose_nothing(tmp_path: Path) -> None:
    """Four writers, each with its own symbol and all with one more, fold whenever they like."""
    writers, count, folder = 4, 10, tmp_path / "data"
    processes = [start("write", folder, who, writers, count) for who in range(writers)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # none begins before all are there
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    store = PickleStore(folder)
    while any(process.poll() is None for process in processes):
        store.read(KEY)  # a reader in between is never told of damage
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    expected: dict[str, Series] = {}
    for who in range(writers):
        for one in pages_of(who, writers, count):
            expected[one.symbol] = expected.get(one.symbol, Series()).with_answers([one])
    for _ in range(2):
        kept = store.read(KEY).series
        assert {symbol: plain_series(one) for symbol, one in kept.items()} == {
            symbol: plain_series(one) for symbol, one in expected.items()
        }
        store.fold(KEY)
    assert len(kept[SHARED].candles) == writers * count
    assert names(folder) == [NAME]


# ------------------------------------------------------------------------ killed at any moment


def test_kills_lose_no_acknowledged_answer(nursery: subprocess.Popen[str], tmp_path: Path) -> None:
    """After each kill -9 the dataset is exactly all that was acknowledged, or one answer more."""
    folder, acknowledged = tmp_path / "data", tmp_path / "acknowledged"
    store, truth, number, chance = PickleStore(folder), Dataset(KEY), 0, random.Random()
    for kill in range(KILLS):
        acknowledged.write_bytes(b"")
        child = order(nursery, folder=str(folder), first=number, acknowledged=str(acknowledged))
        wanted = chance.randrange(6)
        patience = time.monotonic() + 30
        while acknowledged.stat().st_size < wanted:
            assert time.monotonic() < patience, "the writer does not write"
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.008))
        os.kill(child, signal.SIGKILL)
        assert ended(nursery) == -signal.SIGKILL
        kept = acknowledged.stat().st_size
        truth = truth.with_answers(page(number + i) for i in range(kept))
        one_more = truth.with_answers([page(number + kept)])
        found = contents(store.read(KEY))
        if found == contents(one_more) and found != contents(truth):
            truth, kept = one_more, kept + 1
        assert found == contents(truth), f"after kill {kill}, {kept} acknowledged"
        (summary,) = store.summary() or [None]
        assert summary is None or summary.problem is None
        number += kept
    assert number >= KILLS
    store.commit(KEY, [MORE])
    store.fold(KEY)
    assert contents(store.read(KEY)) == contents(truth.with_answers([MORE]))
    assert names(folder) == [NAME], "no draft of a killed writer is left"


# ------------------------------------------------------------------------ killed at every step

BATCH = [
    answer("BTC/USDT", 0, 3, without=(1,), asked_ms=3),
    answer("ETH/USDT", 0, 1, asked_ms=4),
]
LATER = [answer("BTC/USDT", 3, 2, asked_ms=5), answer("SOL/USDT", 0, 2, asked_ms=6)]


def folded_and_journal(store: PickleStore) -> Dataset:
    store.commit(KEY, BATCH)
    store.fold(KEY)
    store.commit(KEY, LATER[:1])
    store.commit(KEY, LATER[1:])
    return applied(*BATCH, *LATER)


def torn_journal(store: PickleStore) -> Dataset:
    folded_and_journal(store)
    path = store.journal_path(KEY)
    path.write_bytes(path.read_bytes()[:-7])
    return applied(*BATCH, *LATER[:1])


def folded_in_already(store: PickleStore) -> Dataset:
    dataset = folded_and_journal(store)
    left = store.journal_path(KEY).read_bytes()
    store.fold(KEY)
    store.journal_path(KEY).write_bytes(left)
    return dataset


def foreign_file(store: PickleStore) -> Dataset:
    table = {"BTC/USDT": Series(applied(*BATCH).series["BTC/USDT"].candles)}
    store.folder.mkdir()
    plain = pickle_bytes.payload(Dataset(KEY, table), kind="data")
    store.path(KEY).write_bytes(pickle_bytes.chunk_of(plain))
    dataset = store.read(KEY).with_answers(LATER)
    store.commit(KEY, LATER)
    return dataset


def damaged_file(store: PickleStore) -> Dataset:
    folded_and_journal(store)
    path = store.path(KEY)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    return applied(*LATER)


def damaged_journal(store: PickleStore) -> Dataset:
    folded_and_journal(store)
    path = store.journal_path(KEY)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    return applied(*BATCH, *LATER[:1])


def nothing_yet(_store: PickleStore) -> Dataset:
    return Dataset(KEY)


def after(action: str, before: Dataset) -> Dataset:
    """Give what a finished action makes of a dataset, by the protocol's definition."""
    if action == "commit":
        return before.with_answers([MORE])
    if action == "annotate":
        return Dataset(KEY, before.series, {"y": 2})
    if action == "delete a symbol":
        return Dataset(KEY, {s: one for s, one in before.series.items() if s != "BTC/USDT"})
    return Dataset(KEY) if action == "delete" else before


def rows_of(found: dict[str, Any]) -> set[tuple[str, int, bytes]]:
    return {
        (symbol, time, row)
        for symbol, one in found["series"].items()
        for time, row in one["candles"].items()
    }


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "prepare",
    [folded_and_journal, torn_journal, folded_in_already, foreign_file, damaged_file,
     damaged_journal, nothing_yet],
)  # fmt: skip
def test_a_kill_at_every_step(
    nursery: subprocess.Popen[str],
    tmp_path: Path,
    prepare: Callable[[PickleStore], Dataset],
    action: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between any two changes of a file the dataset is as before or as after, and can go on.

    What was damaged stays damaged or is set aside; its bytes, and another program's, are kept.
    """
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    for step in range(60):
        pickle_file._memo._entries.clear()
        pickle_file._sound.clear()
        store = PickleStore(tmp_path / str(step))
        before = prepare(store)
        done = contents(after(action, before))
        evidence = {}
        if prepare in (foreign_file, damaged_file):
            evidence["file"] = store.path(KEY).read_bytes()
        if prepare is damaged_journal:
            evidence["journal"] = store.journal_path(KEY).read_bytes()
        order(nursery, folder=str(store.folder), action=action, step=step)
        crashed = ended(nursery) == CRASHED
        try:
            found = contents(store.read(KEY))
        except CorruptDatasetError:
            # As long as the damage lies there it is told; what is sound can be had.
            assert evidence
            assert crashed or action == "commit"
            found = contents(store.read(KEY, salvage=True))
        if action == "delete" and crashed:  # it may have deleted one of the two files
            assert rows_of(found) <= rows_of(contents(before))
        else:
            assert found in ([contents(before), done] if crashed else [done])
        if action != "delete":
            kept = {path.read_bytes() for path in store.folder.glob("*") if path.is_file()}
            assert set(evidence.values()) <= kept
        if not crashed:
            break
        ACTIONS[action](store)
        store.fold(KEY)
        finished = contents(store.read(KEY))
        if action != "commit":
            assert finished == done
        else:  # the killed commit may have been kept before it was acknowledged
            assert rows_of(finished) == rows_of(done)
        assert not [name for name in names(store.folder) if name.endswith(".tmp")]
    else:
        pytest.fail("the action never ended")
    assert step > 0 or prepare is nothing_yet
