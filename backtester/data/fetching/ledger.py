"""The small file in which all processes of a machine keep their request budgets."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

__all__ = ["Ledger", "LedgerBusyError", "default_ledger_path"]

log = logging.getLogger(__name__)
T = TypeVar("T")

_BUSY_S = 0.005  # how long another process's transaction may hold up the event loop
_BUSY_TRIES = 1000  # in a row, some ten seconds: the ledger's holder is stopped or stuck
_AGAIN_S = 0.005  # between tries of what must be written


def default_ledger_path() -> Path:
    """Return this user's ledger: in ``BACKTESTER_STATE_DIR``, or the platform's state folder."""
    folder = os.environ.get("BACKTESTER_STATE_DIR") or platformdirs.user_state_path("backtester")
    return Path(folder) / "budget.sqlite"


_SCHEMA = """
CREATE TABLE IF NOT EXISTS charge (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    weight INTEGER NOT NULL,
    running INTEGER NOT NULL,  -- 1: a request under way; 0: all that completed in one slot
    over_at REAL NOT NULL      -- when it completed; while running, when it must have
);
CREATE INDEX IF NOT EXISTS charge_over ON charge (key, over_at);
CREATE TABLE IF NOT EXISTS waiter (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    weight INTEGER NOT NULL,
    back_by REAL NOT NULL      -- when it will have looked again, if it is alive
);
CREATE TABLE IF NOT EXISTS hold (
    key TEXT NOT NULL,
    kind TEXT NOT NULL,        -- 'ban', 'care' or 'pause'
    set_at REAL NOT NULL,
    until REAL NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (key, kind)
);
"""


class LedgerBusyError(Exception):
    """Another process holds the ledger: nothing has happened, try again in a moment."""


class Ledger:
    """The file all processes share; safe to use from any thread, and after a fork.

    A ledger that cannot be kept fails no fetch: it goes on in memory, for this
    process alone, and says so once. A damaged one is replaced.

    Parameters
    ----------
    path : Path or None
        The file, made with its folder on first use; None keeps the ledger in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._in_memory = self.path is None
        self._replaced = False
        self._busy_tries = 0
        self._posted: list[Callable[[sqlite3.Connection], object]] = []

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work`, after all that was posted, in one transaction of some 50 µs.

        Raises
        ------
        LedgerBusyError
            When another process does not let go of the ledger within 5 ms.
        """
        return self._safely(lambda: self._transact(work))

    def look(self, query: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """Read what others may have written meanwhile, in a quarter of the time of `run`.

        Raises
        ------
        LedgerBusyError
        """
        return self._safely(lambda: self._open().execute(query, parameters).fetchall())

    def _safely(self, work: Callable[[], T]) -> T:
        self._notice_fork()
        with self._lock:
            while True:
                try:
                    result = work()
                except (sqlite3.Error, OSError) as error:
                    self._recover(error)
                else:
                    self._busy_tries = 0
                    return result

    def post(self, work: Callable[[sqlite3.Connection], object], *, insist: bool = False) -> None:
        """Do `work` now or, when the ledger is busy, together with the next `run`.

        With `insist` it blocks until `work` is done.
        """
        self._posted.append(work)
        while True:
            try:
                return self.run(lambda _: None)
            except LedgerBusyError:
                if not insist:
                    return None
                time.sleep(_AGAIN_S)

    def close(self) -> None:
        """Close the file, which the next use opens again; what is only in memory is lost."""
        self._notice_fork()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            self._in_memory = self.path is None

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            _INHERITED.append(self._connection)
            self._begin()

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        db = self._open()
        db.execute("BEGIN IMMEDIATE")
        try:
            posted = list(self._posted)
            for earlier in posted:
                earlier(db)
            result = work(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        del self._posted[: len(posted)]  # not before: a failed commit must lose nothing
        return result

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            # A file deleted or replaced meanwhile would be an account nobody shares.
            if self._in_memory or self._file == self._on_disk():
                return self._connection
            self._connection.close()
        if self._in_memory or self.path is None:
            self._connection = _connect(":memory:")
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(self.path)
            self._connection.execute("PRAGMA journal_mode = WAL")  # a commit is one append
            # No syncs: a power cut may cost the ledger, but after the restart its
            # windows are over, and the exchange tells of a forgotten ban again.
            self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(_SCHEMA)
        self._file = self._on_disk()
        return self._connection

    def _on_disk(self) -> tuple[int, int] | None:
        try:
            stat = os.stat(self.path or "")  # noqa: PTH116 - half the time of Path.stat
        except OSError:
            return None
        return stat.st_dev, stat.st_ino

    def _recover(self, error: Exception) -> None:
        """Make another try possible after `error`, or raise."""
        if self._in_memory:
            raise error
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            self._busy_tries += 1
            if self._busy_tries < _BUSY_TRIES:
                raise LedgerBusyError from error
        # Damage is this very class; its subclasses are a full disk, missing rights and so on.
        if type(error) is sqlite3.DatabaseError and not self._replaced:
            log.warning("the request ledger %s is damaged (%s) and is replaced", self.path, error)
            self._replace()
        else:
            log.warning("the request ledger %s cannot be used (%s): this process counts"
                        " only its own requests", self.path, error)  # fmt: skip
            self._go_on_in_memory()

    def _replace(self) -> None:
        self._replaced = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for suffix in ("-wal", "-shm", ""):
            with suppress(OSError):  # what cannot be removed will fail again, and end in memory
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _go_on_in_memory(self) -> None:
        self._in_memory = True
        memory = _connect(":memory:")
        if self._connection is not None:
            with suppress(sqlite3.Error):  # what is charged and held stays so, if it can be read
                self._connection.backup(memory)
            self._connection.close()
        memory.executescript(_SCHEMA)
        self._connection = memory


_INHERITED: list[sqlite3.Connection | None] = []  # SQLite forbids a child even to close them


def _connect(name: str | Path) -> sqlite3.Connection:
    return sqlite3.connect(name, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
