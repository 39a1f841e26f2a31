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
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from backtester.data.candles import Answer, Series
from backtester.data.errors import (
    CorruptDatasetError,
    DatasetTooLargeError,
    DatasetWriteError,
    StorageError,
)
from backtester.data.model import DatasetKey, Interval
from backtester.data.storage import files, sqlite_log
from backtester.data.storage.connections import Connections, DamagedLog
from backtester.data.storage.sqlite_changes import SqliteChanges
from backtester.data.storage.sqlite_dataset import SqliteDataset
from backtester.data.storage.sqlite_schema import corrupt, create, is_damage
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
        self._paths: dict[DatasetKey, Path] = {}

    def path(self, key: DatasetKey) -> Path:
        """Name the file of a dataset, whether or not it exists."""
        path = self._paths.get(key)
        if path is None:  # one object for ever, since a path computes its hash and text once
            path = self._paths[key] = self.folder / f"{key.stem}{SUFFIX}"
        return path

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
            with self._reading(key, salvage=salvage) as file:
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
        try:
            with self._reading(key) as file:
                return file.column(column, symbols, within)
        except FileNotFoundError:
            return {}

    def held(
        self, key: DatasetKey, symbols: Sequence[str] | None = None, *, salvage: bool = False
    ) -> Mapping[str, SymbolSummary]:
        try:
            with self._reading(key, salvage=salvage) as file:
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

        def merge_all(file: SqliteChanges) -> None:
            for symbol, own in groups.items():
                file.merge(symbol, own)

        self._change(key, merge_all)

    def fold(self, key: DatasetKey) -> None:
        for symbol in self._change_existing(key, lambda file: file.loose()) or ():
            # A transaction each, so that none grows with the dataset.
            self._change_existing(key, partial(SqliteChanges.fold, symbol=symbol))
        # Nothing depends on it: what it cannot bring into the file stays in the log.
        with suppress(FileNotFoundError, StorageError), self._connected(key) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def annotate(self, key: DatasetKey, metadata: Mapping[str, Any]) -> None:
        self._change(key, lambda file: file.annotate(metadata))

    def delete(self, key: DatasetKey, symbols: Sequence[str] | None = None) -> None:
        path = self.path(key)
        if not path.exists():
            return
        with files.locked(self.folder / key.stem):
            if symbols is not None:
                left = self._change_existing(key, lambda file: file.delete(symbols))
                if left:
                    return
            with files.writing(path), self._in_hand(path):
                # The file first: without it the others mean nothing.
                for name in (path, *_beside(path)):
                    name.unlink(missing_ok=True)
                files.sync_directory(path.parent)

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

    def retire(self, key: DatasetKey) -> Path:
        """Give the file another name, for good and with its log of changes; give that name."""
        path = self.path(key)
        with (
            files.locked(self.folder / key.stem),
            files.writing(path),
            self._in_hand(path) as connection,
        ):
            if connection is not None:
                with suppress(sqlite3.Error):
                    _empty_log(connection)
            kept = files.retire(path)
            log, index = _beside(path)
            if log.exists() and log.stat().st_size:
                log.replace(_beside(kept)[0])
            for name in (log, index):
                name.unlink(missing_ok=True)
        return kept

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
                with self._in_hand(path) as connection:
                    if connection is not None:
                        _empty_log(connection)
                    # They belong to what was there before; over the new file they were damage.
                    for name in _beside(path):
                        name.unlink(missing_ok=True)
                    draft.replace(path)
            except BaseException as error:
                draft.unlink(missing_ok=True)
                if isinstance(error, sqlite3.Error):
                    raise _not_written(path, error) from error
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
        with _translating(self.path(key)), _connections.borrowed(self.path(key)) as connection:
            yield connection

    @contextmanager
    def _reading(self, key: DatasetKey, *, salvage: bool = False) -> Iterator[SqliteDataset]:
        """Open a dataset as it is now; what others write meanwhile is not seen."""
        path = self.path(key)
        log = DamagedLog.IGNORE if salvage else DamagedLog.REFUSE
        with _translating(path), _connections.reading(path, log) as connection:
            yield SqliteDataset(connection, key, path, salvage=salvage)

    @contextmanager
    def _writing(self, key: DatasetKey) -> Iterator[SqliteChanges]:
        """Change a dataset in one transaction, under its lock; it is made if it is not there."""
        path = self.path(key)
        with files.locked(self.folder / key.stem), files.writing(path):
            if not path.exists():
                self.put(Dataset(key))
            try:
                with self._connected(key) as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    try:
                        yield SqliteChanges(connection, key, path)
                        connection.execute("COMMIT")
                    except BaseException:
                        with suppress(sqlite3.Error):  # a full disk may have rolled it back
                            connection.execute("ROLLBACK")
                        raise
            except (CorruptDatasetError, DatasetTooLargeError, DatasetWriteError):
                raise
            except (StorageError, UnicodeEncodeError) as error:  # half a character in a symbol
                raise _not_written(path, error) from error

    def _change(self, key: DatasetKey, work: Callable[[SqliteChanges], T]) -> T:
        """Change a dataset; damage that is met is set aside, and what is sound is kept.

        Raises
        ------
        DatasetWriteError, DatasetTooLargeError
            Nothing was changed.
        """
        with files.locked(self.folder / key.stem):
            try:
                with self._writing(key) as file:
                    return work(file)
            except CorruptDatasetError as damage:
                if isinstance(damage.__cause__, OSError):
                    # It cannot be read just now. It may be sound, so nothing takes its place.
                    raise _not_written(self.path(key), damage) from damage
            try:
                self._set_aside(key)
            except (DatasetTooLargeError, DatasetWriteError):
                raise
            except StorageError as error:
                raise _not_written(self.path(key), error) from error
            with self._writing(key) as file:
                return work(file)

    def _change_existing(self, key: DatasetKey, work: Callable[[SqliteChanges], T]) -> T | None:
        """Change a dataset that is there; one that is not, or no longer, is not made."""
        if not self.path(key).exists():
            return None
        with files.locked(self.folder / key.stem):
            return self._change(key, work) if self.path(key).exists() else None

    @contextmanager
    def _in_hand(self, path: Path) -> Iterator[sqlite3.Connection | None]:
        """Hold a file open while it is replaced, renamed or deleted; None if it cannot be opened.

        The process that is the last to close a file deletes its log, by name. Who holds it open
        until it has another name, or none, lets no one be the last to close it under this one.
        """
        with ExitStack() as stack:
            connection = None
            with suppress(FileNotFoundError, sqlite3.Error):
                connection = stack.enter_context(_connections.borrowed(path, DamagedLog.USE))
            _connections.close(path)
            yield connection
        _connections.close(path)

    def _set_aside(self, key: DatasetKey) -> None:
        """Give a damaged file another name, and put what is sound of it in its place."""
        path = self.path(key)
        with files.writing(path):
            kept = files.set_aside(path)
            log, log_kept = _beside(path)[0], _beside(kept)[0]
            if log.exists() and log.stat().st_size and not log_kept.exists():
                # A copy: SQLite will change the log when it takes in what is sound of it.
                files.replace(log_kept, [log.read_bytes()])
            self.put(self._sound(key, path if path.exists() else kept))

    def _sound(self, key: DatasetKey, path: Path) -> Dataset:
        """Read what is sound of a damaged file and of its log, which have been kept before."""
        try:
            with _translating(path), _connections.reading(path, DamagedLog.USE) as connection:
                file = SqliteDataset(connection, key, path, salvage=True)
                return file.dataset(None, None, salvage=True)
        except CorruptDatasetError as damage:
            if isinstance(damage.__cause__, OSError):
                raise
            return Dataset(key)

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
                file = SqliteChanges(connection, key, draft)
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
            if isinstance(error, sqlite3.Error | CorruptDatasetError):
                raise _not_written(path, error) from error
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
        except StorageError as error:
            return DatasetSummary(path.name, key, {}, size, modified, str(error))
        return DatasetSummary(path.name, key, symbols, size, modified)


def _beside(path: Path) -> tuple[Path, Path]:
    """Name SQLite's log of changes and its index."""
    return sqlite_log.path_of(path), sqlite_log.index_of(path)


def _empty_log(connection: sqlite3.Connection) -> None:
    """Bring all changes into the file, so that nothing is lost with the log.

    Raises
    ------
    sqlite3.OperationalError
        A reader is in the way for a minute.
    """
    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("another process is reading it")


def _not_written(path: Path, error: Exception) -> DatasetWriteError:
    return DatasetWriteError(f"cannot write {path}: {error}", path=str(path))


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if is_damage(error):
            raise corrupt(path, str(error)) from error
        raise StorageError(f"{path}: {error}", path=str(path), reason=str(error)) from error
    except UnicodeDecodeError as error:  # SQLite quotes what it finds, and Python cannot read it
        raise corrupt(path, "its contents are not text") from error
    except PermissionError as error:
        raise corrupt(path, f"it cannot be read: {error.strerror}") from error


_connections = Connections()
