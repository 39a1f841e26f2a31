"""Other processes for `test_pickle_processes.py`: writers to be met, and to be killed.

``python -m tests.contract.pickle_worker write FOLDER WHO COUNT`` commits and folds the pages of one
writer. ``… nursery`` reads orders as JSON lines and forks a child for each, which takes a
hundredth of the time of a new interpreter; a killed child is a killed process all the same.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backtester.data.candles import Answer
from backtester.data.storage.pickle_file import PickleStore
from tests.support.builders import KEY, answer

SHARED = "SHARED/USDT"
CRASHED = 9
STEPS = [(os, "fsync"), (os, "truncate"), (os, "ftruncate"), (os, "link"),
         (Path, "replace"), (Path, "rename"), (Path, "unlink"), (Path, "mkdir")]  # fmt: skip
"""What changes files beyond writing to one that nobody reads yet."""

MORE = answer("XRP/USDT", 5, 2, asked_ms=9)
ACTIONS: dict[str, Callable[[PickleStore], None]] = {
    "fold": lambda store: store.fold(KEY),
    "commit": lambda store: store.commit(KEY, [MORE]),
    "annotate": lambda store: store.annotate(KEY, {"y": 2}),
    "delete a symbol": lambda store: store.delete(KEY, ["BTC/USDT"]),
    "delete": lambda store: store.delete(KEY),
}


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def page(number: int) -> Answer:
    """Give the answer of this number of a long fetch: three symbols, now and then a revision."""
    overlap = number % 5 == 0 and number > 2
    return answer(
        f"S{number % 3}/USDT",
        4 * (number // 3) - overlap,
        4 + overlap,
        seed=number % 2 if overlap else 0,
        asked_ms=7,
    )


def pages_of(who: int, writers: int, count: int) -> list[Answer]:
    """Give what a writer commits: a symbol of its own, and its share of one that all write."""
    own = [answer(f"OWN{who}/USDT", 3 * i, 3, seed=who, asked_ms=7) for i in range(count)]
    shared = [
        answer(SHARED, 2 * i, 2, without=(2 * i,), asked_ms=7)
        for i in range(who, writers * count, writers)
    ]
    return [one for pair in zip(own, shared, strict=True) for one in pair]


def write(folder: Path, who: int, writers: int, count: int) -> None:
    """Commit a writer's pages one by one and fold now and then, once told to begin."""
    store = PickleStore(folder)
    say("ready")
    sys.stdin.readline()
    for number, one in enumerate(pages_of(who, writers, count)):
        store.commit(KEY, [one])
        if number % 5 == who:
            store.fold(KEY)


def write_until_killed(folder: Path, first: int, acknowledged: Path) -> None:
    """Commit page after page, noting each behind its commit; fold at every third."""
    store = PickleStore(folder)
    note = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = first
    while True:
        store.commit(KEY, [page(number)])
        os.write(note, b".")
        number += 1
        if number % 3 == 0:
            store.fold(KEY)


def crash_at(folder: Path, action: str, step: int) -> None:
    """Carry out an action, but end like a killed process before or after some change of a file."""
    passed = 0

    def count() -> None:
        nonlocal passed
        if passed == step:
            os._exit(CRASHED)
        passed += 1

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **rest: Any) -> Any:
            count()
            result = real(*args, **rest)
            count()
            return result

        return call

    os.fsync = lambda _descriptor: None  # a kill, unlike a power cut, loses nothing written
    for owner, name in STEPS:
        setattr(owner, name, counted(getattr(owner, name)))
    ACTIONS[action](PickleStore(folder))


def nursery() -> None:
    """Fork a child for every order and say its pid, then how it ended."""
    for name in ("blosc2", "backtester.data.storage.foreign"):  # else every child imports them
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            folder = Path(order["folder"])
            if "action" in order:
                crash_at(folder, order["action"], order["step"])
            else:
                write_until_killed(folder, order["first"], Path(order["acknowledged"]))
            os._exit(0)
        say(child)
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    if sys.argv[1] == "nursery":
        nursery()
    else:
        write(Path(sys.argv[2]), *map(int, sys.argv[3:]))
