"""What a SQLite file of candles must look like: its tables, what it says of itself, its damage."""

from __future__ import annotations

import secrets
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import orjson

from backtester.data.errors import CorruptDatasetError, DatasetTooLargeError
from backtester.data.model import DatasetKey, Interval

__all__ = [
    "APPLICATION",
    "FORMAT",
    "IDENTITY",
    "NOTES",
    "PAGE_BYTES",
    "SCHEMA",
    "SEQUENCES",
    "corrupt",
    "create",
    "is_damage",
    "is_identity",
    "name_sum",
    "write_part",
]

APPLICATION = 0x56425443
"""Tells `file` and us that a SQLite file is one of these: "VBTC"."""
FORMAT = 1
PAGE_BYTES = 16_384
SCHEMA = (
    "CREATE TABLE dataset (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE series (symbol TEXT PRIMARY KEY, position INTEGER NOT NULL, "
    "loose INTEGER NOT NULL, record BLOB NOT NULL) WITHOUT ROWID",
    "CREATE INDEX loose_series ON series (loose) WHERE loose",
    "CREATE TABLE chunks (id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB NOT NULL)",
    "CREATE TABLE revisions (symbol TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID",
)
SEQUENCES = "CREATE TABLE sqlite_sequence(name,seq)"
"""SQLite's own, for ids that are never used again."""
IDENTITY, NOTES = 1, 2
_DAMAGE = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_CONSTRAINT,  # an index that does not know what its table holds
    sqlite3.SQLITE_MISMATCH,
}

_MOST_PART_BYTES = 128 << 20
"""The most bytes of notes; half of what a connection allows a value to have."""


def name_sum(symbol: str) -> int:
    return zlib.crc32(symbol.encode())


def create(connection: sqlite3.Connection, key: DatasetKey) -> None:
    connection.executescript(
        f"PRAGMA page_size={PAGE_BYTES}; PRAGMA application_id={APPLICATION}; "
        f"PRAGMA user_version={FORMAT}; "
        # A draft that is not finished is thrown away: it needs no log, and one wait for the disk.
        "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
    )
    for statement in SCHEMA:
        connection.execute(statement)
    identity = {
        "dataset": key.stem,
        "id": secrets.token_hex(16),
        "symbols": 0,
        "names": 0,
        "position": 0,
        "notes": 0,
    }
    write_part(connection.execute, IDENTITY, orjson.dumps(identity))


def is_identity(value: object) -> bool:
    kinds = {
        "dataset": str, "id": str, "symbols": int, "names": int, "position": int, "notes": int,
    }  # fmt: skip
    return (
        isinstance(value, dict)
        and value.keys() == kinds.keys()
        and all(type(value[name]) is kind for name, kind in kinds.items())
        and 0 <= value["position"] < 2**62
    )


def write_part(execute: Any, part: int, data: bytes) -> None:
    if len(data) > _MOST_PART_BYTES:
        raise DatasetTooLargeError(
            f"a dataset's notes take {len(data) >> 20} MiB; they must take less than "
            f"{_MOST_PART_BYTES >> 20} MiB",
            size=len(data),
        )
    sealed = zlib.crc32(data, part).to_bytes(4, "little") + data
    execute("INSERT OR REPLACE INTO dataset VALUES (?, ?)", (part, sealed))


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether an error is about what the file holds, not about the disk or other users."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # Python's own: text that is not UTF-8, or a mistake of ours
        return isinstance(error, sqlite3.OperationalError)
    return code & 0xFF in _DAMAGE


def corrupt(
    path: Path, reason: str, symbol: str | None = None, span: Interval | None = None
) -> CorruptDatasetError:
    when = f" in {span}" if span else ""
    what = f": its data for {symbol}{when}" if symbol else ""
    return CorruptDatasetError(
        f"{path}{what} cannot be trusted: {reason}",
        path=str(path), reason=reason, symbol=symbol, interval=span,
    )  # fmt: skip
