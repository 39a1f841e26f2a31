"""A process that works on datasets until it is killed, for `test_store_kills.py` and its kin.

Orders come as JSON lines; for each a child is forked, which takes a hundredth of the time of a new
interpreter, and is a process of its own all the same. A child of "history" does one operation
after the other, chosen by its number, and says each one done, behind its end.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from backtester.data.errors import DatasetWriteError
from backtester.data.storage import growing
from backtester.data.storage.growing import GrowingStore, Storage
from backtester.data.storage.pickle_file import PickleStore
from backtester.data.storage.sqlite_file import SqliteStore
from backtester.data.storage.store import Dataset, Store
from tests.support.builders import KEY, answer, contents

SMALL_BYTES = 20_000
"""What a pickle may have here before it moves."""
STORES: dict[str, Callable[[Path], Store]] = {
    "pickle": PickleStore,
    "sqlite": SqliteStore,
    "growing": GrowingStore,
}
SYMBOLS = [f"S{n}/USDT" for n in range(3)]


def step(number: int) -> list[Any]:
    """Give the operation of this number: its name and what it is about."""
    if number % 97 == 96:
        return ["delete", None]
    if number % 31 == 30:
        return ["delete", [SYMBOLS[number % 3]]]
    if number % 13 == 12:
        return ["move", ["sqlite", "pickle"][number // 13 % 2]]
    if number % 7 == 6:
        return ["fold", None]
    if number % 11 == 10:
        return ["annotate", {"volume_data": {SYMBOLS[number % 3]: float(number)}}]
    return ["commit", number]


def answers(number: int) -> list[Any]:
    """Give what one commit is told: of one symbol or of all, a page or a candle, or a revision."""
    at = 40 * (number // 8)
    if number % 8 == 0:
        return [answer(symbol, at, 40, without=(at + 3,), asked_ms=number) for symbol in SYMBOLS]
    if number % 8 == 5:
        return [answer(SYMBOLS[number % 3], at, 2, seed=number, asked_ms=number)]
    if number % 8 == 3:  # a year later, so that there are several chunks
        return [answer(SYMBOLS[number % 3], 9_000 + at, 30, asked_ms=number)]
    return [answer(symbol, at + 40 + number % 8, 1, asked_ms=number) for symbol in SYMBOLS]


def act(store: Store, number: int) -> None:
    """Carry out an operation."""
    what, about = step(number)
    if what == "commit":
        store.commit(KEY, answers(about))
    elif what == "fold":
        store.fold(KEY)
    elif what == "annotate":
        store.annotate(KEY, about)
    elif what == "delete":
        store.delete(KEY, about)
    elif isinstance(store, GrowingStore):
        store.move(KEY, Storage(about))


def after(dataset: Dataset, number: int) -> Dataset:
    """Give what an operation makes of a dataset, by the protocol's definition."""
    what, about = step(number)
    if what == "commit":
        return dataset.with_answers(answers(about))
    if what == "annotate":
        volumes = {**dataset.metadata.get("volume_data", {}), **about["volume_data"]}
        return Dataset(KEY, dataset.series, {"volume_data": volumes})
    if what == "delete":
        left = {s: one for s, one in dataset.series.items() if about and s not in about}
        return Dataset(KEY, left, dataset.metadata) if left else Dataset(KEY)
    return dataset


def history(folder: Path, store: str, first: int, note: Path) -> None:
    """Do operation after operation, noting each behind its end."""
    growing.MOST_PICKLE_BYTES = SMALL_BYTES
    own = STORES[store](folder)
    done = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = first
    while True:
        act(own, number)
        os.write(done, b".")
        number += 1


def share(folder: Path, store: str, who: int, writers: int, count: int) -> None:
    """Commit pages of a symbol of its own and of one that all write, folding now and then."""
    growing.MOST_PICKLE_BYTES = SMALL_BYTES
    own = STORES[store](folder)
    for number, one in enumerate(shares(who, writers, count)):
        own.commit(KEY, [one, replace(one, symbol=f"TWIN-{one.symbol}")])
        if number % 9 == who:
            own.fold(KEY)
        if number == 20 and isinstance(own, GrowingStore):
            own.move(KEY, [Storage.SQLITE, Storage.PICKLE][who % 2])


def shares(who: int, writers: int, count: int) -> list[Any]:
    """Give what a writer commits: see `share`."""
    own = [answer(f"OWN{who}/USDT", 3 * i, 3, seed=who, asked_ms=7) for i in range(count)]
    common = [
        answer("SHARED/USDT", 2 * i, 2, without=(2 * i,), asked_ms=7)
        for i in range(who, writers * count, writers)
    ]
    return [one for pair in zip(own, common, strict=True) for one in pair]


REVISED = [answer(symbol, 4, 3, seed=5, asked_ms=99) for symbol in SYMBOLS]
ACTIONS: dict[str, tuple[Callable[[Any], None], Callable[[Dataset], Dataset]]] = {
    "append": (
        lambda store: store.commit(KEY, answers(49)), lambda old: old.with_answers(answers(49))
    ),
    "page": (
        lambda store: store.commit(KEY, answers(56)), lambda old: old.with_answers(answers(56))
    ),
    "revise": (
        lambda store: store.commit(KEY, REVISED), lambda old: old.with_answers(REVISED)
    ),
    "fold": (lambda store: store.fold(KEY), lambda old: old),
    "annotate": (
        lambda store: store.annotate(KEY, {"y": 2}),
        lambda old: Dataset(KEY, old.series, {**old.metadata, "y": 2}),
    ),
    "delete a symbol": (
        lambda store: store.delete(KEY, SYMBOLS[:1]),
        lambda old: Dataset(
            KEY, {s: one for s, one in old.series.items() if s != SYMBOLS[0]}, old.metadata
        ),
    ),
    "delete": (lambda store: store.delete(KEY), lambda old: Dataset(KEY)),
    "move": (lambda store: store.move(KEY, Storage.SQLITE), lambda old: old),
    "move back": (lambda store: store.move(KEY, Storage.PICKLE), lambda old: old),
}  # fmt: skip
"""What can be done, and what it makes of a dataset by the protocol's definition."""
REACHED_THE_END = 3


def prepare(store: Any, action: str) -> None:
    """Make what an action is done to."""
    for number in range(30):
        if step(number)[0] in ("commit", "annotate"):
            act(store, number)
    if action == "move back":
        store.move(KEY, Storage.SQLITE)


def fault(folder: Path, store: str, action: str, at: int, number: int, lasting: int) -> None:
    """Carry out an action while a change of a file fails, and check all there is to check."""
    disk = ctypes.CDLL(os.environ["LD_PRELOAD"])
    own: Any = STORES[store](folder)
    do, define = ACTIONS[action]
    before = own.read(KEY)
    old, new = contents(before), contents(define(before))
    failed = None
    disk.fail_at(ctypes.c_long(at), number, lasting)
    try:
        do(own)
    except DatasetWriteError as error:
        failed = error
    if not disk.has_failed():
        os._exit(REACHED_THE_END)
    disk.fail_at(ctypes.c_long(-1), 0, 0)
    found = contents(own.read(KEY))
    if failed is None:
        assert found == new, "acknowledged"
    elif action in ("append", "page", "revise"):
        assert found == old, "refused"
    else:
        assert found in (old, new) or action == "delete"
    (summary,) = own.summary() or [None]
    assert summary is None or summary.problem is None
    do(own)
    if action not in ("append", "page", "revise") or failed is not None:
        assert contents(own.read(KEY)) == new, "done once more"


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def nursery() -> None:
    """Fork a child for every order and say its pid, and how a child ended when asked for it."""
    for name in ("blosc2", "backtester.data.storage.foreign"):  # else every child imports them
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            say(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]))
            continue
        child = os.fork()
        if child == 0:
            code = 1
            try:
                what = {"history": history, "share": share, "fault": fault}[order.pop("what")]
                what(**{k: Path(v) if k in ("folder", "note") else v for k, v in order.items()})
                code = 0
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(code)
        say(child)


if __name__ == "__main__":
    nursery()
