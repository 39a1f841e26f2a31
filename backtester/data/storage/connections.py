"""Open SQLite files, kept open between uses: opening one costs more than asking it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from urllib.parse import quote

__all__ = ["Connections"]

_BUSY_S = 60.0
"""Writers take turns by a lock of their own; only other programs can make us wait here."""
_MOST_IDLE = 32


class Connections:
    """A pool of connections to files that may be replaced or deleted by anyone.

    A connection belongs to the file it was opened on, not to the path; it is used again only
    while that very file is still there. After a fork the child opens its own.
    """

    def __init__(self) -> None:
        self._idle: dict[Path, list[tuple[int, sqlite3.Connection]]] = {}
        self._abandoned: list[object] = []
        self._pid = os.getpid()
        self._lock = Lock()

    @contextmanager
    def borrowed(self, path: Path) -> Iterator[sqlite3.Connection]:
        """Lend a connection in autocommit mode to the file at `path`.

        Raises
        ------
        FileNotFoundError
            There is no file.
        sqlite3.DatabaseError
            It cannot be opened.
        """
        inode = path.stat().st_ino
        connection = self._take(path, inode) or _open(path)
        try:
            yield connection
        except BaseException:
            # Whatever state it is in, nobody shall meet it again.
            with suppress(sqlite3.Error):
                connection.close()
            raise
        self._give(path, inode, connection)

    def close(self, path: Path) -> None:
        """Close what is idle of a file, before it is replaced or deleted."""
        with self._lock:
            idle = self._idle.pop(path, []) if self._pid == os.getpid() else []
        for _, connection in idle:
            connection.close()

    def _take(self, path: Path, inode: int) -> sqlite3.Connection | None:
        with self._lock:
            self._forget_after_fork()
            idle = self._idle.get(path, [])
            while idle:
                opened, connection = idle.pop()
                if opened == inode:
                    return connection
                connection.close()
        return None

    def _give(self, path: Path, inode: int, connection: sqlite3.Connection) -> None:
        with self._lock:
            self._forget_after_fork()
            self._idle.setdefault(path, []).append((inode, connection))
            while sum(map(len, self._idle.values())) > _MOST_IDLE:
                oldest = next(iter(self._idle))
                _, dropped = self._idle[oldest].pop(0)
                if not self._idle[oldest]:
                    del self._idle[oldest]
                dropped.close()

    def _forget_after_fork(self) -> None:
        if self._pid != os.getpid():
            # Closing a parent's connection would drop locks and files the parent still uses.
            self._abandoned.append(self._idle)
            self._idle, self._pid = {}, os.getpid()


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _configured(path, "mode=rw")
    except sqlite3.OperationalError:
        # A log of changes needs a writable folder; without one the file can be read as it is,
        # unless changes wait in the log.
        if os.access(path.parent, os.W_OK) or path.with_name(f"{path.name}-wal").exists():
            raise
        return _configured(path, "mode=ro&immutable=1")


def _configured(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?{mode}",
        uri=True,
        timeout=_BUSY_S,
        isolation_level=None,
        check_same_thread=False,  # a pool lends to one thread at a time
    )
    try:
        # FULL: a commit waits for the disk, so what was acknowledged survives a power cut.
        # The others: no file shall make SQLite run anything or believe broken pages.
        connection.executescript(
            "PRAGMA synchronous=FULL; PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;"
        )
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection
