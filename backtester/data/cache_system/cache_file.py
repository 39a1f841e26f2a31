"""One SQLite file of cached facts about exchanges, shared by threads and processes.

Nothing in it is worth an error: a damaged file is set aside and begun anew, and
where none can be written the cache goes on in memory. Both are said once, as a
warning.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["CacheFile", "Statement"]

log = logging.getLogger(__name__)

Statement = tuple[str, Sequence[Any]]
"""SQL and its parameters."""

_BUSY_S = 10.0
"""How long a write waits for those of other processes, in seconds."""
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class CacheFile:
    """A SQLite file that appears with the first write.

    All threads share one connection, one at a time: what is done here takes
    microseconds. It is closed before a fork, since a SQLite connection must not
    cross one, and opened again when next needed.

    Parameters
    ----------
    path : callable
        Gives the file's path; called at every use.
    version : int
        Of the schema, not 0; a file with another one is set aside.
    schema : sequence of str
        ``CREATE TABLE IF NOT EXISTS`` statements.
    """

    def __init__(self, path: Callable[[], str], version: int, schema: Sequence[str]) -> None:
        self._path_now = path
        self._version = version
        self._schema = schema
        self._lock = threading.RLock()
        self._path = ""
        self._identity: tuple[int, int] | None = None
        self._connection: sqlite3.Connection | None = None
        self._in_memory = False
        _FILES.add(self)

    def __del__(self) -> None:
        self._disconnect()

    def read(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query; none where there is no file."""
        with self._lock:
            for _ in range(_TRIES):
                try:
                    connection = self._open(create=False)
                    return connection.execute(sql, params).fetchall() if connection else []
                except _FAULTS as error:
                    if not self._recover(error):
                        break
            return []

    def write(self, *statements: Statement) -> bool:
        """Run statements in one transaction; tell whether they took effect."""
        with self._lock:
            for _ in range(_TRIES):
                try:
                    connection = self._open(create=True)
                    assert connection is not None
                    _transact(connection, statements)
                except _FAULTS as error:
                    if not self._recover(error):
                        break
                else:
                    return True
            return False

    def exists(self) -> bool:
        """Return whether anything has been written."""
        return bool(self.read("SELECT 1"))

    def set_aside(self, why: str) -> None:
        """Set the file aside, because something read from it makes no sense."""
        with self._lock:
            self._set_aside(why)

    def close(self) -> None:
        """Close the file until the next use. What is in memory is kept."""
        with self._lock:
            if not self._in_memory:
                self._disconnect()

    # ------------------------------------------------------------------ opening

    def _open(self, *, create: bool) -> sqlite3.Connection | None:
        """Return the connection to the file as it is named now; None where there is no file."""
        path = self._path_now()
        if path != self._path:
            self._disconnect()
            self._path, self._in_memory = path, False
        if self._in_memory:
            return self._connection
        identity = _identity(path)
        if self._connection is not None and identity == self._identity:
            return self._connection
        self._disconnect()  # it was deleted or replaced, or never opened
        if identity is None and not create:
            return None
        if identity is None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._identity = identity  # first: connecting may already meet damage
        self._connection = _connect(path, "rw" if identity else "rwc")
        self._identity = identity or _identity(path)
        return self._connection if self._prepare(self._connection, create=create) else None

    def _prepare(self, connection: sqlite3.Connection, *, create: bool) -> bool:
        """Make the tables if need be; False when they are not there and may not be made."""
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == self._version:
            return True
        if version != 0:
            raise sqlite3.DatabaseError(f"it is of version {version}, not {self._version}")
        if not create:  # another process is just making it
            self._disconnect()
            return False
        _use_wal(connection)
        _make_tables(connection, self._schema, self._version)
        return True

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._identity = None

    # ------------------------------------------------------------------ trouble

    def _recover(self, error: sqlite3.DatabaseError | OSError) -> bool:
        """Mend what can be mended; False when another try would meet the same."""
        if isinstance(error, OSError):
            return self._go_to_memory(error)
        if isinstance(error, sqlite3.ProgrammingError):
            raise error
        code = getattr(error, "sqlite_errorcode", None)  # the module's own errors have none
        if code is None or code & 0xFF in _DAMAGE:
            return self._set_aside(str(error))
        if code & 0xFF in _BUSY:
            log.warning("%s stayed locked for %g s: %s", self._path, _BUSY_S, error)
            return False
        return self._go_to_memory(error)

    def _set_aside(self, why: str) -> bool:
        opened = self._identity
        self._disconnect()
        if self._in_memory:
            self._in_memory = False
            return True
        if opened != _identity(self._path):
            return True  # another process has set it aside already
        aside = _free_name(self._path)
        try:
            # A log left behind would be applied to the file that comes next.
            for suffix in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    Path(self._path + suffix).rename(aside + suffix)
        except OSError as error:
            return self._go_to_memory(error)
        log.warning("%s is damaged (%s): set aside as %s", self._path, why, Path(aside).name)
        return True

    def _go_to_memory(self, error: Exception) -> bool:
        if self._in_memory:
            return False
        log.warning("%s cannot be used (%s): caching in memory only", self._path, error)
        self._disconnect()
        self._connection = self._copy() or _connect(":memory:", "memory")
        _make_tables(self._connection, self._schema, self._version)
        self._in_memory = True
        return True

    def _copy(self) -> sqlite3.Connection | None:
        """Copy into memory what can be read; None when nothing can."""
        copy = _connect(":memory:", "memory")
        try:
            # Immutable: reading a write-ahead log needs files beside it.
            source = _connect(self._path, "ro&immutable=1")
            try:
                source.backup(copy)
            finally:
                source.close()
            if copy.execute("PRAGMA user_version").fetchone()[0] == self._version:
                return copy
        except sqlite3.Error:
            pass
        copy.close()
        return None


_TRIES = 3  # damaged once, unwritable then, and in memory at last
_FAULTS = (sqlite3.DatabaseError, OSError)


def _connect(path: str, mode: str) -> sqlite3.Connection:
    name = path if mode == "memory" else f"{Path(path).absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(
        name,
        uri=mode != "memory",
        timeout=_BUSY_S,
        isolation_level=None,  # transactions are begun by hand
        check_same_thread=False,  # the lock of `CacheFile` sees to it
    )
    try:
        connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last writes
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Let readers go on while one writes; without it, as on network drives, they wait."""
    give_up = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # SQLite does not wait by itself here.
            if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            return


def _make_tables(connection: sqlite3.Connection, schema: Sequence[str], version: int) -> None:
    steps = [(sql, ()) for sql in schema]
    _transact(connection, [*steps, (f"PRAGMA user_version = {version}", ())])


def _transact(connection: sqlite3.Connection, statements: Iterable[Statement]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for sql, params in statements:
            connection.execute(sql, params)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some failures have rolled back themselves
            connection.execute("ROLLBACK")
        raise


def _identity(path: str) -> tuple[int, int] | None:
    """Tell files of one name apart; None where there is none."""
    try:
        facts = os.stat(path)  # noqa: PTH116  # a Path costs more than the call
    except (FileNotFoundError, NotADirectoryError):
        return None
    return facts.st_dev, facts.st_ino


def _free_name(path: str) -> str:
    number = 1
    while Path(f"{path}.damaged-{number}").exists():
        number += 1
    return f"{path}.damaged-{number}"


# --------------------------------------------------------------------------- forks

_FILES: weakref.WeakSet[CacheFile] = weakref.WeakSet()
_HELD: list[CacheFile] = []


def _before_fork() -> None:
    for file in list(_FILES):
        file._lock.acquire()
        _HELD.append(file)
        file.close()


def _after_fork() -> None:
    while _HELD:
        _HELD.pop()._lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
