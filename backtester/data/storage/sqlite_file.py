r"""The store for large datasets: one SQLite file each, whose cost follows the question.

``{exchange}_{market_type}_{timeframe}.candles.sqlite`` holds

- ``dataset``: row 1 says whose candles these are and how many symbols there must be, row 2 holds
  the notes;
- ``series``: a record per symbol (see `records`): coverage, the newest candles, and which chunks
  hold the others;
- ``chunks``: encoded stretches of candles (see `codec`). A chunk never changes: one that must
  be different is written anew under a new id;
- ``revisions``: what was revised, per symbol.

SQLite checks neither what it reads nor that a row is missing, so every part carries a checksum
bound to the name of what it belongs to, and every part is counted by another.

A write is one transaction under the dataset's lock. Readers take no lock: each sees the
dataset as the last commit before it left it. A few new candles go into the tail of a record,
which is merged into the last chunk now and then; a fetched page becomes a chunk of its own, and
`fold` joins those of a period.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from backtester.data.candles import COLUMNS, Answer, Series
from backtester.data.errors import CorruptDatasetError, DatasetWriteError, StorageError
from backtester.data.model import DatasetKey, Interval
from backtester.data.storage import files
from backtester.data.storage.connections import Connections
from backtester.data.storage.sqlite_dataset import SqliteDataset, corrupt, create, is_damage
from backtester.data.storage.store import (
    Dataset,
    DatasetSummary,
    SymbolSummary,
    grouped,
    require_same,
)

if TYPE_CHECKING:
    from backtester.data.storage.store import Column

__all__ = ["SUFFIX", "SqliteStore"]

SUFFIX = ".candles.sqlite"

T = TypeVar("T")


class SqliteStore:
    """A `Store` of SQLite files in one flat folder; see the module for the format.

    Parameters
    ----------
    folder : Path
        Created on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: DatasetKey) -> Path:
        """Name the file of a dataset, whether or not it exists."""
        return self.folder / f"{key.stem}{SUFFIX}"

    def keys(self) -> list[DatasetKey]:
        stems = sorted(p.name.removesuffix(SUFFIX) for p in self.folder.glob(f"*{SUFFIX}"))
        return [key for key in map(DatasetKey.from_stem, stems) if key is not None]

    def read(
        self,
        key: DatasetKey,
        symbols: Sequence[str] | None = None,
        *,
        within: Interval | None = None,
        salvage: bool = False,
    ) -> Dataset:
        try:
            with self._reading(key) as file:
                return file.dataset(symbols, within, salvage=salvage)
        except FileNotFoundError:
            return Dataset(key)
        except CorruptDatasetError:
            if salvage:
                return Dataset(key)
            raise

    def read_column(
        self,
        key: DatasetKey,
        column: str,
        symbols: Sequence[str] | None = None,
        *,
        within: Interval | None = None,
    ) -> Mapping[str, Column]:
        number = COLUMNS.index(column)
        try:
            with self._reading(key) as file:
                return file.column(number, symbols, within)
        except FileNotFoundError:
            return {}

    def held(
        self, key: DatasetKey, symbols: Sequence[str] | None = None, *, salvage: bool = False
    ) -> Mapping[str, SymbolSummary]:
        try:
            with self._reading(key) as file:
                return file.held(symbols, salvage=salvage)
        except FileNotFoundError:
            return {}
        except CorruptDatasetError:
            if salvage:
                return {}
            raise

    def commit(self, key: DatasetKey, answers: Sequence[Answer]) -> None:
        if not answers:
            return
        groups = grouped(answers)

        def merge_all(file: SqliteDataset) -> None:
            for symbol, own in groups.items():
                file.merge(symbol, own)

        self._change(key, merge_all)

    def fold(self, key: DatasetKey) -> None:
        if not self.path(key).exists():
            return
        for symbol in self._change(key, lambda file: file.loose()):
            # A transaction each, so that none grows with the dataset.
            self._change(key, partial(SqliteDataset.fold, symbol=symbol))
        with self._connected(key) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def annotate(self, key: DatasetKey, metadata: Mapping[str, Any]) -> None:
        self._change(key, lambda file: file.annotate(metadata))

    def delete(self, key: DatasetKey, symbols: Sequence[str] | None = None) -> None:
        path = self.path(key)
        if not path.exists():
            return
        with files.locked(self.folder / key.stem):
            if symbols is not None and self._change(key, lambda file: file.delete(symbols)):
                return
            _connections.close(path)
            with files.writing(path):
                # The file first: without it the others mean nothing.
                for name in (path, *_beside(path)):
                    name.unlink(missing_ok=True)

    def damage(self, key: DatasetKey) -> list[CorruptDatasetError]:
        try:
            with self._reading(key) as file:
                return file.damage()
        except FileNotFoundError:
            return []
        except CorruptDatasetError as damage:
            return [damage]

    def mend(self, key: DatasetKey, replaced: Mapping[str, Series]) -> None:
        with files.locked(self.folder / key.stem):
            if self.damage(key):
                self._set_aside(key)
            self._change(key, lambda file: file.replace(replaced))

    def summary(self) -> list[DatasetSummary]:
        found = (self._summarise(key) for key in self.keys())
        return [one for one in found if one is not None]

    def close(self, key: DatasetKey) -> None:
        """Write the log of changes back into the file, so that it is whole by itself."""
        with self._connected(key) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _connections.close(self.path(key))
        for name in _beside(self.path(key)):  # other processes may have left them
            name.unlink(missing_ok=True)

    def put(self, dataset: Dataset) -> None:
        """Write a whole dataset in the place of what there is, atomically, and check it by value.

        Raises
        ------
        DatasetWriteError
            It could not be written; what was there is as it was.
        """
        key, path = dataset.key, self.path(dataset.key)
        with files.locked(self.folder / key.stem), files.writing(path):
            draft = self._draft(key, dataset)
            try:
                _connections.close(path)
                for name in _beside(path):  # they belong to the file that is replaced
                    name.unlink(missing_ok=True)
                draft.replace(path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
            files.sync_directory(path.parent)

    # ------------------------------------------------------------------ connections

    @contextmanager
    def _connected(self, key: DatasetKey) -> Iterator[sqlite3.Connection]:
        """Lend a connection, and say in our words what goes wrong with it.

        Raises
        ------
        FileNotFoundError
            There is no such dataset.
        """
        path = self.path(key)
        try:
            with _connections.borrowed(path) as connection:
                yield connection
        except sqlite3.Error as error:
            raise _translated(path, error) from error
        except PermissionError as error:
            raise corrupt(path, f"it cannot be read: {error.strerror}") from error

    @contextmanager
    def _reading(self, key: DatasetKey) -> Iterator[SqliteDataset]:
        """Open a dataset as it is now; what others write meanwhile is not seen."""
        with self._connected(key) as connection:
            connection.execute("BEGIN")
            try:
                yield SqliteDataset(connection, key, self.path(key))
            finally:
                with suppress(sqlite3.Error):  # damage that was met is what is told
                    connection.execute("ROLLBACK")

    @contextmanager
    def _writing(self, key: DatasetKey) -> Iterator[SqliteDataset]:
        """Change a dataset in one transaction, under its lock; it is made if it is not there."""
        path = self.path(key)
        with files.locked(self.folder / key.stem), files.writing(path):
            if not path.exists():
                self._draft(key, Dataset(key)).replace(path)
                files.sync_directory(path.parent)
            try:
                with self._connected(key) as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    try:
                        yield SqliteDataset(connection, key, path)
                        connection.execute("COMMIT")
                    except BaseException:
                        with suppress(sqlite3.Error):  # a full disk may have rolled it back
                            connection.execute("ROLLBACK")
                        raise
            except (CorruptDatasetError, DatasetWriteError):
                raise
            except (StorageError, UnicodeEncodeError) as error:  # half a character in a symbol
                raise DatasetWriteError(f"cannot write {path}: {error}", path=str(path)) from error

    def _change(self, key: DatasetKey, work: Callable[[SqliteDataset], T]) -> T:
        """Change a dataset; damage that is met is set aside, and what is sound is kept.

        Raises
        ------
        DatasetWriteError
            Nothing was changed.
        """
        with files.locked(self.folder / key.stem):
            try:
                with self._writing(key) as file:
                    return work(file)
            except CorruptDatasetError:
                self._set_aside(key)
            with self._writing(key) as file:
                return work(file)

    def _set_aside(self, key: DatasetKey) -> None:
        """Give a damaged file another name, and put what is sound of it in its place."""
        sound, path = self.read(key, salvage=True), self.path(key)
        kept = files.set_aside(path)
        log = _beside(path)[0]
        if log.exists() and log.stat().st_size:
            with files.writing(path), suppress(FileExistsError):
                os.link(log, _beside(kept)[0])
        self.put(sound)

    def _draft(self, key: DatasetKey, dataset: Dataset) -> Path:
        """Write a file of its own with a whole dataset, durably; give its path."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.remove_leftovers(path)
        draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            draft.touch(exist_ok=False)
            with _connections.borrowed(draft) as connection:
                create(connection, key)
                connection.execute("BEGIN IMMEDIATE")
                file = SqliteDataset(connection, key, draft)
                for symbol, series in dataset.series.items():
                    file.add(symbol, series)
                file.annotate(dataset.metadata)
                connection.execute("COMMIT")
                require_same(file.dataset(None, None, salvage=False), dataset, path)
                connection.execute("PRAGMA journal_mode=WAL")
            _connections.close(draft)
            with draft.open("rb") as written:
                os.fsync(written.fileno())
        except BaseException as error:
            _connections.close(draft)
            for name in (draft, *_beside(draft)):
                name.unlink(missing_ok=True)
            if isinstance(error, sqlite3.Error):
                raise DatasetWriteError(f"cannot write {path}: {error}", path=str(path)) from error
            raise
        return draft

    # ------------------------------------------------------------------ summary

    def _summarise(self, key: DatasetKey) -> DatasetSummary | None:
        """Summarise one dataset; None when it was deleted since it was listed."""
        path = self.path(key)
        found = [s for s in map(files.signature, (path, _beside(path)[0])) if s is not None]
        if not found:
            return None
        size, modified = sum(s[1] for s in found), max(s[2] for s in found) // 1_000_000
        try:
            symbols = self.held(key)
        except CorruptDatasetError as error:
            return DatasetSummary(path.name, key, {}, size, modified, str(error))
        return DatasetSummary(path.name, key, symbols, size, modified)


def _beside(path: Path) -> tuple[Path, Path]:
    """Name SQLite's log of changes and its index."""
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def _translated(path: Path, error: sqlite3.Error) -> StorageError:
    if is_damage(error):
        return corrupt(path, str(error))
    return StorageError(f"{path}: {error}", path=str(path), reason=str(error))


_connections = Connections()
