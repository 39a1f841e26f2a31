"""Storing while fetching: nothing is lost, whatever ends the fetch."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from backtester.data.candles import Answer
from backtester.data.errors import DatasetWriteError
from backtester.data.fetching.keeper import Keeper
from backtester.data.model import DatasetKey
from backtester.data.storage.memory import MemoryStore
from tests.support.builders import KEY, answer, applied, contents


class WatchedStore(MemoryStore):
    """Notes the batches it is given, holds them up or fails when told to."""

    def __init__(self, failures: dict[int, Exception] | None = None) -> None:
        super().__init__()
        self.batches: list[list[Answer]] = []
        self.failures = failures or {}
        self.failed = False
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()
        self._written = threading.Condition()

    def wait_for(self, answers: int) -> None:
        """Wait until so many answers were given to `commit`, or one of them failed."""
        with self._written:
            self._written.wait_for(
                lambda: self.failed or sum(map(len, self.batches)) >= answers, timeout=10
            )

    def commit(self, key: DatasetKey, answers: Sequence[Answer]) -> None:
        self.begun.set()
        assert self.go.wait(10)
        error = self.failures.get(len(self.batches))
        with self._written:
            self.batches.append(list(answers))
            self.failed = error is not None
            self._written.notify_all()
        if error is not None:
            raise error
        super().commit(key, answers)


ANSWERS = [answer(first=4 * i, asked_ms=i + 1) for i in range(6)]


def test_everything_kept_is_stored_in_order() -> None:
    """At the end of the fetch the store has every answer, in the order they came."""
    store = WatchedStore()

    async def fetch() -> None:
        async with Keeper(store, KEY) as keeper:
            for one in ANSWERS:
                keeper.keep(one)
                await asyncio.sleep(0)
        assert keeper.error is None

    asyncio.run(fetch())
    assert [one for batch in store.batches for one in batch] == ANSWERS
    assert contents(store.read(KEY)) == contents(applied(*ANSWERS))


def test_what_comes_during_a_write_goes_into_the_next() -> None:
    """A slow disk makes larger batches, not a longer fetch."""
    store = WatchedStore()
    store.go.clear()

    async def fetch() -> None:
        async with Keeper(store, KEY) as keeper:
            keeper.keep(ANSWERS[0])
            await asyncio.to_thread(store.begun.wait, 10)
            for one in ANSWERS[1:]:
                keeper.keep(one)  # does not wait for the write under way
            store.go.set()

    asyncio.run(fetch())
    assert store.batches == [ANSWERS[:1], ANSWERS[1:]]


def test_nothing_fetched_writes_nothing() -> None:
    """No answer, no commit."""
    store = WatchedStore()

    async def fetch() -> None:
        async with Keeper(store, KEY):
            pass

    asyncio.run(fetch())
    assert store.batches == []


@pytest.mark.parametrize("failure", [RuntimeError("bug"), KeyboardInterrupt()], ids=repr)
def test_a_failed_fetch_keeps_what_it_had(failure: BaseException) -> None:
    """Answers that came before the failure are stored before it goes on."""
    store = WatchedStore()

    async def fetch() -> None:
        async with Keeper(store, KEY) as keeper:
            keeper.keep(ANSWERS[0])
            keeper.keep(ANSWERS[1])
            raise failure

    with pytest.raises(type(failure)):
        asyncio.run(fetch())
    assert contents(store.read(KEY)) == contents(applied(*ANSWERS[:2]))


def test_a_cancelled_fetch_keeps_what_it_had() -> None:
    """Ctrl-C in the middle of a write loses neither that batch nor the next."""
    store = WatchedStore()
    store.go.clear()

    async def fetch(ready: asyncio.Event) -> None:
        async with Keeper(store, KEY) as keeper:
            keeper.keep(ANSWERS[0])
            await asyncio.to_thread(store.begun.wait, 10)
            keeper.keep(ANSWERS[1])
            ready.set()
            await asyncio.sleep(60)

    async def main() -> None:
        ready = asyncio.Event()
        task = asyncio.create_task(fetch(ready))
        await ready.wait()
        task.cancel()
        await asyncio.sleep(0)
        store.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert store.batches == [ANSWERS[:1], ANSWERS[1:2]]


def test_a_failed_write_stops_storing_and_not_the_fetch() -> None:
    """The first failure is remembered; no later batch is written over the gap it left."""
    full = DatasetWriteError("no space left", path="x")
    store = WatchedStore({1: full})

    async def fetch() -> Keeper:
        async with Keeper(store, KEY) as keeper:
            for number, one in enumerate(ANSWERS):
                keeper.keep(one)
                await asyncio.to_thread(store.wait_for, number + 1)
        return keeper

    keeper = asyncio.run(fetch())
    assert keeper.error is full
    assert store.batches == [ANSWERS[:1], ANSWERS[1:2]]
    assert contents(store.read(KEY)) == contents(applied(*store.batches[0]))


def test_a_bug_in_the_store_is_not_swallowed() -> None:
    """What is no storage error ends the fetch, loudly."""
    store = WatchedStore({0: ZeroDivisionError("a bug")})

    async def fetch() -> None:
        async with Keeper(store, KEY) as keeper:
            keeper.keep(ANSWERS[0])

    with pytest.raises(ZeroDivisionError, match="a bug"):
        asyncio.run(fetch())
