"""Faults of the disk, at every call that changes a file: a typed error, nothing acknowledged lost.

A preloaded library lets the n-th call fail, whoever makes it: Python, or SQLite in C.
"""

from __future__ import annotations

import errno
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backtester.data.storage import sqlite_file
from tests.contract.nursery import Nursery, opened
from tests.contract.store_worker import ACTIONS, REACHED_THE_END, STORES, prepare
from tests.support.builders import KEY

CASES = [
    (store, action)
    for store in STORES
    for action in ACTIONS
    if store == "growing" or not action.startswith("move")
    if store != "growing" or action in ("append", "delete", "move", "move back")
]
DISKS = {
    "does not answer": (errno.EIO, 0),
    "is full": (errno.ENOSPC, 1),
    "becomes full in a write": (0, 1),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make the faulty disk with")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    with opened(LD_PRELOAD=str(library)) as nursery:
        yield nursery


@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize(("store", "action"), CASES)
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_faults(
    faulty: Nursery, tmp_path: Path, store: str, action: str, disk: str, every: int
) -> None:
    """What was acknowledged is there, what was refused is not, and the store goes on."""
    number, lasting = DISKS[disk]
    own = STORES[store](tmp_path / "before")
    prepare(own, action)
    sqlite_file._connections.close(own.path(KEY))
    for at in range(random.randrange(every), 500, every):
        folder = tmp_path / "data"
        shutil.copytree(tmp_path / "before", folder)
        order = {"store": store, "action": action, "number": number, "lasting": lasting}
        code = faulty.ended(faulty.born(what="fault", folder=folder, at=at, **order))
        if code == REACHED_THE_END:
            break
        assert code == 0, f"at call {at}"
        shutil.rmtree(folder)
    else:
        pytest.fail("the action never ended")
    assert at or every > 1 or action == "fold"
