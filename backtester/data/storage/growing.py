"""The store in use: a dataset is a pickle while it is small, and a SQLite file once it is large.

A dataset has one form at a time. While it is converted, both files exist for a moment: then the
complete SQLite file counts, and the next writer sets the pickle aside.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from backtester.data.candles import Answer, Series
from backtester.data.errors import CorruptDatasetError, OptionError
from backtester.data.model import DatasetKey, Interval
from backtester.data.storage import files
from backtester.data.storage.pickle_file import PickleStore
from backtester.data.storage.sqlite_file import SqliteStore
from backtester.data.storage.store import Dataset, DatasetSummary, SymbolSummary

if TYPE_CHECKING:
    from backtester.data.storage.store import Column

__all__ = ["GrowingStore", "Storage"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_PICKLE_BYTES = 16 << 20
"""Above this size, about 700,000 candles, a dataset is converted. At this size a new candle costs
0.1 s and a cold read 25 ms, both growing with the size; see `docs/decisions`."""


class Storage(StrEnum):
    """The storage format of datasets."""

    AUTO = "auto"
    """A pickle at first, SQLite once it is large."""
    PICKLE = "pickle"
    SQLITE = "sqlite"

    @classmethod
    def parse(cls, value: str | Storage) -> Storage:
        """Read the name of a form.

        Raises
        ------
        OptionError
            It is none.
        """
        try:
            return cls(str(value).strip().lower())
        except ValueError:
            known = ", ".join(cls)
            raise OptionError(f"unknown storage {value!r}; use one of {known}") from None


class GrowingStore:
    """A `Store` that keeps each dataset in the form that suits its size.

    Parameters
    ----------
    folder : Path
        Created on the first write.
    storage : Storage
        Any other than `AUTO` is the form that datasets get when they are next written; they are
        read in whichever they have.
    """

    def __init__(self, folder: Path, storage: Storage = Storage.AUTO) -> None:
        self.folder = folder
        self.storage = storage
        self._pickles = PickleStore(folder)
        self._sqlite = SqliteStore(folder)

    def path(self, key: DatasetKey) -> Path:
        """Name the file that a dataset is in, or would be."""
        return self._store_of(key).path(key)

    def keys(self) -> list[DatasetKey]:
        found = {*self._pickles.keys(), *self._sqlite.keys()}
        return sorted(found, key=lambda key: key.stem)

    def read(
        self,
        key: DatasetKey,
        symbols: Sequence[str] | None = None,
        *,
        within: Interval | None = None,
        salvage: bool = False,
    ) -> Dataset:
        return self._reading(
            key, lambda store: store.read(key, symbols, within=within, salvage=salvage)
        )

    def read_column(
        self,
        key: DatasetKey,
        column: str,
        symbols: Sequence[str] | None = None,
        *,
        within: Interval | None = None,
    ) -> Mapping[str, Column]:
        return self._reading(
            key, lambda store: store.read_column(key, column, symbols, within=within)
        )

    def held(
        self, key: DatasetKey, symbols: Sequence[str] | None = None, *, salvage: bool = False
    ) -> Mapping[str, SymbolSummary]:
        return self._reading(key, lambda store: store.held(key, symbols, salvage=salvage))

    def commit(self, key: DatasetKey, answers: Sequence[Answer]) -> None:
        if answers:
            with files.locked(self.folder / key.stem):
                self._settled(key).commit(key, answers)

    def fold(self, key: DatasetKey) -> None:
        if key not in self.keys():
            return
        with files.locked(self.folder / key.stem):
            self._settled(key).fold(key)

    def annotate(self, key: DatasetKey, metadata: Mapping[str, Any]) -> None:
        with files.locked(self.folder / key.stem):
            self._settled(key).annotate(key, metadata)

    def delete(self, key: DatasetKey, symbols: Sequence[str] | None = None) -> None:
        if key not in self.keys():
            return
        with files.locked(self.folder / key.stem):
            if symbols is not None:
                self._settled(key).delete(key, symbols)
                return
            # The pickle first: alone it must not come back as the dataset.
            self._pickles.delete(key)
            self._sqlite.delete(key)
            for copy in self.folder.glob(f"{key.stem}.*.moved*"):  # by moves, of the same candles
                with files.writing(copy):
                    copy.unlink(missing_ok=True)

    def damage(self, key: DatasetKey) -> list[CorruptDatasetError]:
        return self._store_of(key).damage(key)

    def mend(self, key: DatasetKey, replaced: Mapping[str, Series]) -> None:
        with files.locked(self.folder / key.stem):
            self._store_of(key).mend(key, replaced)

    def summary(self) -> list[DatasetSummary]:
        moved = set(self._sqlite.keys())
        found = [one for one in self._pickles.summary() if one.key not in moved]
        return sorted([*found, *self._sqlite.summary()], key=lambda one: one.name)

    def move(self, key: DatasetKey, storage: Storage) -> Path:
        """Convert a dataset to another form; the old file is set aside under another name.

        Returns
        -------
        Path
            The file it is in now.

        Raises
        ------
        CorruptDatasetError
            It is damaged; nothing was moved.
        DatasetWriteError, DatasetTooLargeError
            Nothing was moved.
        """
        with files.locked(self.folder / key.stem):
            form = self._cleared(key)
            if storage not in (Storage.AUTO, form):
                self._move(key, storage)
            return self.path(key)

    # ------------------------------------------------------------------ forms

    def _reading(self, key: DatasetKey, work: Callable[[PickleStore | SqliteStore], T]) -> T:
        """Read from the store of a dataset, and again if it was converted meanwhile."""
        while True:
            form = self._form(key)
            found = work(self._store_of(key))
            if form is self._form(key):
                return found

    def _form(self, key: DatasetKey) -> Storage:
        if self._sqlite.path(key).exists():
            return Storage.SQLITE
        return Storage.PICKLE

    def _store_of(self, key: DatasetKey) -> PickleStore | SqliteStore:
        return self._sqlite if self._form(key) is Storage.SQLITE else self._pickles

    def _settled(self, key: DatasetKey) -> PickleStore | SqliteStore:
        """Return the store of a dataset that is about to be written, moved there if need be."""
        form, size = self._cleared(key), self._pickle_bytes(key)
        wanted = self.storage
        if wanted is Storage.AUTO:
            wanted = Storage.SQLITE if size > MOST_PICKLE_BYTES else form
        if form is Storage.PICKLE and wanted is Storage.SQLITE and not size:
            return self._sqlite  # there is nothing to move
        if wanted is not form:
            # What is damaged its own store sets aside; the next writer moves what is left.
            with suppress(CorruptDatasetError):
                self._move(key, wanted)
        return self._store_of(key)

    def _cleared(self, key: DatasetKey) -> Storage:
        """Return the form of a dataset, after setting aside what a killed move left beside it."""
        form = self._form(key)
        if form is Storage.SQLITE:
            self._retire(key, Storage.PICKLE)
        return form

    def _pickle_bytes(self, key: DatasetKey) -> int:
        paths = (self._pickles.path(key), self._pickles.journal_path(key))
        return sum(found[1] for found in map(files.signature, paths) if found is not None)

    def _move(self, key: DatasetKey, to: Storage) -> None:
        form, source = self._form(key), self._store_of(key)
        target = self._sqlite if to is Storage.SQLITE else self._pickles
        target.put(source.read(key))
        kept = self._retire(key, form)
        _log.info(
            "%s is now kept in %s; the old file was checked against it, has been renamed to %s and "
            "may be deleted", key, target.path(key).name, " and ".join(kept),
        )  # fmt: skip

    def _retire(self, key: DatasetKey, form: Storage) -> list[str]:
        """Rename the files of a form that a dataset no longer has."""
        if form is Storage.SQLITE:
            return [self._sqlite.retire(key).name]
        paths = [self._pickles.path(key), self._pickles.journal_path(key)]
        return [files.retire(path).name for path in paths if path.exists()]
