"""The few ways this package touches files: replaced whole, appended durably, set aside."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from backtester.data.errors import DatasetWriteError, StorageError

__all__ = [
    "Signature",
    "append",
    "locked",
    "remove_leftovers",
    "replace",
    "set_aside",
    "signature",
    "writing",
]

_log = logging.getLogger(__name__)

Signature = tuple[int, int, int]


def signature(path: Path) -> Signature | None:
    """Give what changes whenever a file is replaced or grows: inode, size, time of change in ns.

    None where there is no file.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot look at {path}: {error.strerror}", path=str(path)) from error
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that writers of `path` share, waiting for it as long as it takes.

    The lock is the kernel's, so a killed holder frees it.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a write into our error."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatasetWriteError(f"cannot write {path}: {reason}", path=str(path)) from error


def replace(path: Path, parts: Sequence[bytes]) -> None:
    """Replace a file whole: readers see the old or the new one, also after a power cut."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            with draft.open("xb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise
        _sync_directory(path.parent)


def append(path: Path, data: bytes) -> None:
    """Append to a file so that it survives a power cut; on failure nothing is appended."""
    with writing(path):
        created = not path.exists()
        with path.open("ab") as file:
            before = file.tell()
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    os.ftruncate(file.fileno(), before)
                raise
        if created:
            _sync_directory(path.parent)


def set_aside(path: Path) -> Path:
    """Move a damaged file to a free name beside itself and give that name."""
    with writing(path):
        number = 1
        while (target := path.with_name(f"{path.name}.damaged-{number}")).exists():
            number += 1
        path.rename(target)
    _log.warning("%s was damaged and is set aside as %s", path, target.name)
    return target


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` left half written; call under its lock."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError):
            leftover.unlink()


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
