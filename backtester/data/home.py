"""A data directory and everything in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from backtester.data.cache_system.cache_manager import CacheManager
from backtester.data.errors import StorageError
from backtester.data.settings import data_directory
from backtester.data.storage.growing import GrowingStore, Storage

__all__ = ["Home", "home_in"]


@dataclass(frozen=True, slots=True)
class Home:
    """A folder, its datasets, and what is remembered of exchanges beside them."""

    folder: Path
    store: GrowingStore
    cache: CacheManager


def home_in(
    data_dir: str | os.PathLike[str] | None = None, storage: str | Storage = Storage.AUTO
) -> Home:
    """Return the home in a directory: the argument, else see `settings.data_directory`.

    Parameters
    ----------
    data_dir : path, optional
    storage : str
        The form in which datasets are kept when they are written; see `Storage`.

    Raises
    ------
    OptionError
        There is no such form.
    StorageError
        There is something there that is not a folder, or there can be none.
    """
    folder = data_directory(data_dir)
    try:
        return _home(folder.absolute(), Storage.parse(storage))
    except OSError as error:  # its name is too long, or a relative one starts from nowhere
        reason = error.strerror or str(error)
        raise StorageError(
            f"the data directory {folder} cannot be reached: {reason}",
            path=str(folder), reason=reason,
        ) from error  # fmt: skip


@lru_cache(maxsize=64)
def _home(folder: Path, storage: Storage) -> Home:
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"the data directory {folder} is not a folder", path=str(folder))
    return Home(folder, GrowingStore(folder, storage), CacheManager(folder))
