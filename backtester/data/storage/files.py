"""The few ways this package touches files: replaced whole, appended durably, set aside."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path

from filelock import FileLock

from backtester.data.errors import DatasetWriteError, StorageError

__all__ = [
    "Signature",
    "append",
    "keep_original",
    "locked",
    "remove_leftovers",
    "replace",
    "retire",
    "set_aside",
    "signature",
    "sync_directory",
    "writing",
]

_log = logging.getLogger(__name__)

Signature = tuple[int, int, int]

_held = threading.local()
"""The locks that a thread holds."""


def signature(path: Path) -> Signature | None:
    """Return what changes whenever a file is replaced or grows: inode, size, time of change in ns.

    None where there is no file.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot access {path}: {error.strerror}", path=str(path)) from error
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that writers of `path` share, waiting for it as long as it takes.

    The lock is the kernel's, so a killed holder frees it. A thread that holds it may take it
    once more. `path` need not be a file: writers of one dataset share the lock of its stem,
    whichever form it has or is given meanwhile.
    """
    held: set[Path] = _held.__dict__.setdefault("paths", set())
    if path in held:
        yield
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        lock.acquire()
    held.add(path)
    try:
        yield
    finally:
        held.remove(path)
        lock.release()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a write into our error."""
    try:
        yield
    except DatasetWriteError:
        raise
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
        sync_directory(path.parent)


def append(path: Path, data: bytes) -> None:
    """Append to a file so that it survives a power cut; on failure nothing is appended."""
    with writing(path):
        created = not path.exists()
        # Unbuffered: what a buffer could not write it would write once more when it is closed.
        with path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                left = memoryview(data)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
                if created:
                    sync_directory(path.parent)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(file.fileno(), before)
                    if created:
                        path.unlink()
                raise


def set_aside(path: Path) -> Path:
    """Link a damaged file to a free second name, which it keeps when `path` is replaced.

    Until then it stays in place too: a failed replacement does not turn damage into emptiness.
    """
    kept = _keep(path, (f"damaged-{number}" for number in count(1)))
    _log.warning("%s was damaged and has been set aside as %s", path, kept.name)
    return kept


def keep_original(path: Path) -> Path:
    """Link another program's file to a second name, which it keeps when `path` is replaced."""
    kept = _keep(path, chain(["original"], (f"original-{number}" for number in count(2))))
    _log.info("%s was written by another program and is kept as %s", path, kept.name)
    return kept


def retire(path: Path) -> Path:
    """Rename a file that has been replaced by one in another format."""
    with writing(path):
        labels = chain(["moved"], (f"moved-{number}" for number in count(2)))
        names = (path.with_name(f"{path.name}.{label}") for label in labels)
        target = next(name for name in names if not name.exists())
        path.rename(target)
        sync_directory(path.parent)
    return target


def _keep(path: Path, labels: Iterable[str]) -> Path:
    with writing(path):
        for label in labels:
            target = path.with_name(f"{path.name}.{label}")
            if not target.exists():
                break
            if target.samefile(path):  # kept before a replacement that failed
                return target
        try:
            os.link(path, target)
        except OSError:  # not every disk has second names
            path.rename(target)
    return target


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` left half written; call under its lock."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp*"):
        with suppress(OSError):
            leftover.unlink()


def sync_directory(folder: Path) -> None:
    """Make a folder's names survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
