"""Store answers while the next ones are fetched, many in one write."""

from __future__ import annotations

import asyncio
from types import TracebackType

from backtester.data.candles import Answer
from backtester.data.errors import StorageError
from backtester.data.model import DatasetKey
from backtester.data.storage.store import Store

__all__ = ["Keeper"]


class Keeper:
    """Commits answers in the background; use as ``async with`` around the fetch.

    A durable write takes as long as several pages take to come, so what arrives
    during one write goes into the next. A kill costs at most those and the
    pages still in flight.
    """

    def __init__(self, store: Store, key: DatasetKey) -> None:
        self._store = store
        self._key = key
        self._pending: list[Answer] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._writer: asyncio.Task[None] | None = None
        self.error: StorageError | None = None
        """Why storing stopped; what was fetched is still handed out."""

    def keep(self, answer: Answer) -> None:
        """Queue an answer."""
        self._pending.append(answer)
        self._wake.set()

    async def __aenter__(self) -> Keeper:
        self._writer = asyncio.create_task(self._write())
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Write what is left, also when the fetch failed or was cancelled."""
        self._closing = True
        self._wake.set()
        assert self._writer is not None
        await asyncio.shield(self._writer)

    async def _write(self) -> None:
        while not (self._closing and not self._pending):
            await self._wake.wait()
            self._wake.clear()
            batch, self._pending = self._pending, []
            if self.error is not None or not batch:
                continue
            try:
                await asyncio.to_thread(self._store.commit, self._key, batch)
            except StorageError as error:
                self.error = error
