"""Open SQLite files, kept open between uses: opening one costs more than asking it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from threading import Lock
from urllib.parse import quote

from backtester.data.storage import sqlite_log

__all__ = ["Connections", "DamagedLog"]

_BUSY_S = 60.0
"""Writers take turns by a lock of their own; only other programs can make us wait here."""
_SYNCHRONOUS = "FULL"
"""A commit waits for the disk, so what was acknowledged survives a power cut."""
_MOST_IDLE = 32
_MOST_BYTES = 256 << 20
"""The most bytes of one value; a hostile file must not make us allocate more."""


class DamagedLog(Enum):
    """What to do with a left-over log of changes in which acknowledged ones are damaged."""

    REFUSE = "refuse"
    """Raise an error, every time: once SQLite has opened the log, its damage is forgotten."""
    IGNORE = "ignore"
    """Read the file as if there were no log, and leave both as they are."""
    USE = "use"
    """Let SQLite take in the changes before the damage and forget the others."""


class Connections:
    """A pool of connections to files that may be replaced or deleted by anyone.

    A connection belongs to the file it was opened on, not to the path; it is used again only
    while that very file is still there. After a fork the child opens its own.
    """

    def __init__(self) -> None:
        self._idle: dict[Path, list[tuple[int, sqlite3.Connection]]] = {}
        self._abandoned: list[object] = []
        self._lock = Lock()
        os.register_at_fork(after_in_child=self._forget)

    @contextmanager
    def borrowed(
        self, path: Path, log: DamagedLog = DamagedLog.REFUSE
    ) -> Iterator[sqlite3.Connection]:
        """Lend a connection in autocommit mode to the file at `path`.

        Raises
        ------
        FileNotFoundError
            There is no file.
        sqlite3.DatabaseError
            It cannot be opened.
        """
        inode = _inode(path)
        with self._lent(path, inode, self._take(path, inode) or _open(path, log)) as connection:
            yield connection

    @contextmanager
    def reading(
        self, path: Path, log: DamagedLog = DamagedLog.REFUSE
    ) -> Iterator[sqlite3.Connection]:
        """Lend a connection inside a transaction that reads the file as it is now.

        Raises as `borrowed` does.
        """
        # Who salvages goes on where SQLite has met damage, and that it complains of only once.
        keep = log is DamagedLog.REFUSE
        with self._lent(path, *self._at_rest(path, log), keep=keep) as connection:
            try:
                yield connection
            finally:
                with suppress(sqlite3.Error):  # damage that was met is what is told
                    connection.execute("ROLLBACK")

    def close(self, path: Path) -> None:
        """Close what is idle of a file, before it is replaced or deleted."""
        with self._lock:
            idle = self._idle.pop(path, [])
        for _, connection in idle:
            connection.close()

    def _at_rest(self, path: Path, log: DamagedLog) -> tuple[int, sqlite3.Connection]:
        """Begin to read; give the connection and its file's inode.

        SQLite opens the log by its name. Were the file replaced just now, that might be the
        new file's log over the old file's pages; so a reader looks again after it has begun.
        """
        while True:
            inode = _inode(path)
            try:
                connection = self._take(path, inode) or _open(path, log)
                try:
                    connection.execute("BEGIN")
                    connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
                    if _inode(path) == inode:
                        return inode, connection
                except BaseException:
                    connection.close()
                    raise
                connection.close()
            except sqlite3.Error:
                if _inode(path) == inode:
                    raise

    @contextmanager
    def _lent(
        self, path: Path, inode: int, connection: sqlite3.Connection, *, keep: bool = True
    ) -> Iterator[sqlite3.Connection]:
        try:
            yield connection
        except BaseException:
            # Whatever state it is in, nobody shall meet it again.
            with suppress(sqlite3.Error):
                connection.close()
            raise
        if keep and not isinstance(connection, _Frozen):
            self._give(path, inode, connection)
        else:
            connection.close()

    def _take(self, path: Path, inode: int) -> sqlite3.Connection | None:
        with self._lock:
            idle = self._idle.pop(path, [])
            while idle:
                opened, connection = idle.pop()
                if opened == inode:
                    if idle:
                        self._idle[path] = idle
                    return connection
                connection.close()
        return None

    def _give(self, path: Path, inode: int, connection: sqlite3.Connection) -> None:
        with self._lock:
            self._idle.setdefault(path, []).append((inode, connection))
            while sum(map(len, self._idle.values())) > _MOST_IDLE:
                oldest = next(iter(self._idle))
                _, dropped = self._idle[oldest].pop(0)
                if not self._idle[oldest]:
                    del self._idle[oldest]
                dropped.close()

    def _forget(self) -> None:
        """Begin anew in a forked child: another thread may have held the lock."""
        # Closing a parent's connection would drop locks and files the parent still uses.
        self._abandoned.append(self._idle)
        self._idle, self._lock = {}, Lock()


class _Frozen(sqlite3.Connection):
    """Reads a file as if nobody ever changed it, so it is good for one use only."""


def _inode(path: Path) -> int:
    return path.stat().st_ino


def _open(path: Path, log: DamagedLog) -> sqlite3.Connection:
    if log is not DamagedLog.USE and sqlite_log.is_damaged(path):
        if log is DamagedLog.IGNORE:
            return _configured(path, "mode=ro&immutable=1", _Frozen)
        raise _corrupt("its write-ahead log is damaged, with sound changes after the damage")
    try:
        return _configured(path, "mode=rw")
    except sqlite3.OperationalError:
        # A log of changes needs a writable folder; without one the file can be read as it is,
        # unless changes wait in the log.
        if os.access(path.parent, os.W_OK) or sqlite_log.path_of(path).exists():
            raise
        return _configured(path, "mode=ro&immutable=1", _Frozen)


def _configured(
    path: Path, mode: str, kind: type[sqlite3.Connection] = sqlite3.Connection
) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?{mode}",
        uri=True,
        timeout=_BUSY_S,
        isolation_level=None,
        check_same_thread=False,  # a pool lends to one thread at a time
        factory=kind,
    )
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
        # No file shall make SQLite run anything or believe broken pages.
        connection.executescript(
            f"PRAGMA synchronous={_SYNCHRONOUS}; "
            "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;"
        )
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
    except UnicodeDecodeError as error:  # SQLite quotes what it finds, and Python cannot read it
        connection.close()
        raise _corrupt("its schema is not text") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _corrupt(reason: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
