"""Files are replaced whole, appended durably and set aside whole; failures leave no trace."""

from __future__ import annotations

import errno
import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backtester.data.errors import DatasetWriteError, StorageError
from backtester.data.storage import files


@contextmanager
def disk_with_room_for(size: int) -> Iterator[None]:
    """Let the kernel refuse to let any file grow beyond `size`, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def failing(number: int = errno.ENOSPC, *, at_call: int = 1) -> Callable[..., None]:
    """Make a function that fails like the operating system, from its `at_call`th call on."""
    calls = 0

    def fail(*_args: object, **_rest: object) -> None:
        nonlocal calls
        calls += 1
        if calls >= at_call:
            raise OSError(number, os.strerror(number))

    return fail


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ------------------------------------------------------------------------ replacing


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """The parts make the new content, the folder is made, and nothing else is left in it."""
    path = tmp_path / "new" / "deep" / "file"
    files.replace(path, [b"one", b"", b"two"])
    assert path.read_bytes() == b"onetwo"
    before = files.signature(path)
    files.replace(path, [b"three!"])
    assert path.read_bytes() == b"three!"
    assert files.signature(path) != before
    assert names(path.parent) == {"file"}


def test_a_power_cut_finds_the_old_file_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content is on the disk before the name points to it, and the name before we return."""
    order: list[str] = []
    sync, rename = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content")
        sync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        order.append("name")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    files.replace(tmp_path / "file", [b"x"])
    assert order == ["content", "name", "folder"]
    order.clear()
    files.append(tmp_path / "log", b"x")
    assert sorted(order) == ["content", "folder"]
    order.clear()
    files.append(tmp_path / "log", b"x")
    assert order == ["content"]


@pytest.mark.parametrize("failure", ["write", "fsync", "rename"])
def test_a_failed_replace_leaves_the_old_file(
    failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disk full, a failing sync, a failing rename: the old content stays, no draft is left."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    if failure == "fsync":
        monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    if failure == "rename":
        monkeypatch.setattr(Path, "replace", failing())
    with (
        disk_with_room_for(10_000 if failure == "write" else 10**9),
        pytest.raises(DatasetWriteError, match=r"cannot write .*file: ") as caught,
    ):
        files.replace(path, [b"x" * 6_000, b"y" * 6_000])
    assert caught.value.path == str(path)
    assert isinstance(caught.value, OSError)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_an_interrupted_replace_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during the sync leaves the old file and no draft."""

    def interrupted(_descriptor: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.replace(path, [b"new"])
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    """Drafts of this file go, everybody else's files stay."""
    for name in ("file", ".file.12-ab.tmp", ".file.lock", ".other.12-ab.tmp", "file.tmp"):
        (tmp_path / name).touch()
    files.remove_leftovers(tmp_path / "file")
    assert names(tmp_path) == {"file", ".file.lock", ".other.12-ab.tmp", "file.tmp"}


# ------------------------------------------------------------------------ appending


def test_appending(tmp_path: Path) -> None:
    """A file grows by exactly what is appended, and is made by the first time."""
    path = tmp_path / "log"
    files.append(path, b"one")
    files.append(path, b"two" * 10_000)
    assert path.read_bytes() == b"one" + b"two" * 10_000


@pytest.mark.parametrize("room", [0, 1, 7, 4_096, 9_000])
@pytest.mark.parametrize("size", [10, 9_001, 200_000])
def test_a_full_disk_takes_nothing_or_all(room: int, size: int, tmp_path: Path) -> None:
    """What does not fit is not appended in part, and the place can be used again.

    A buffered file would write its rest once more when it is closed, behind the cut.
    """
    path = tmp_path / "log"
    files.append(path, b"kept")
    with disk_with_room_for(4 + room):
        if size <= room:
            files.append(path, b"x" * size)
        else:
            with pytest.raises(DatasetWriteError, match="cannot write"):
                files.append(path, b"x" * size)
    kept = b"kept" + b"x" * size * (size <= room)
    assert path.read_bytes() == kept
    files.append(path, b"more")
    assert path.read_bytes() == kept + b"more"


@pytest.mark.parametrize("at_call", [1, 2])
def test_a_failed_sync_appends_nothing(
    at_call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither to a new file, which is not left behind, nor to one that is there."""
    path = tmp_path / "log"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.EIO, at_call=at_call))
        with pytest.raises(DatasetWriteError, match="Input/output error"):
            files.append(path, b"one")
    assert names(tmp_path) == set()
    files.append(path, b"one")
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(DatasetWriteError):
        files.append(path, b"two")
    assert path.read_bytes() == b"one"


def test_appending_to_a_folder_that_is_gone(tmp_path: Path) -> None:
    """What the operating system says becomes our error, with the path."""
    path = tmp_path / "gone" / "log"
    with pytest.raises(DatasetWriteError, match="No such file or directory") as caught:
        files.append(path, b"x")
    assert caught.value.path == str(path)


# ------------------------------------------------------------------------ setting aside


def test_a_damaged_file_is_kept_under_a_free_name(tmp_path: Path) -> None:
    """Byte for byte, however often; the same damage is kept once."""
    path = tmp_path / "file"
    for number, content in enumerate((b"bad", b"worse", b""), start=1):
        files.replace(path, [content])
        kept = files.set_aside(path)
        assert kept == files.set_aside(path)
        assert kept.name == f"file.damaged-{number}"
        files.replace(path, [b"sound"])
        assert kept.read_bytes() == content
    assert names(tmp_path) == {"file", *(f"file.damaged-{n}" for n in (1, 2, 3))}


def test_another_programs_file_is_kept(tmp_path: Path) -> None:
    """The first as `.original`, and every other that comes to lie there after it, too."""
    path = tmp_path / "file"
    for content, name in ((b"one", "file.original"), (b"two", "file.original-2")):
        files.replace(path, [content])
        assert files.keep_original(path) == files.keep_original(path) == tmp_path / name
        files.replace(path, [b"ours"])
        assert (tmp_path / name).read_bytes() == content
    assert names(tmp_path) == {"file", "file.original", "file.original-2"}


def test_disks_without_links_set_aside_by_moving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file cannot have two names it gets the other one."""
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    path = tmp_path / "file"
    path.write_bytes(b"bad")
    assert files.set_aside(path).read_bytes() == b"bad"
    assert names(tmp_path) == {"file.damaged-1"}


# ------------------------------------------------------------------------ identity and locks


def test_a_signature_tells_every_change(tmp_path: Path) -> None:
    """Growing, being replaced by equal content, and going away."""
    path = tmp_path / "file"
    seen = [files.signature(path)]
    for change in (
        lambda: path.write_bytes(b"1"),
        lambda: files.append(path, b"2"),
        lambda: files.replace(path, [b"12"]),
    ):
        change()
        seen.append(files.signature(path))
    assert seen[0] is None
    assert len(set(seen)) == len(seen)
    path.unlink()
    assert files.signature(path) is None


def test_what_cannot_be_looked_at_is_not_missing(tmp_path: Path) -> None:
    """A path that leads through a file is an error that names it."""
    blocked = tmp_path / "a file" / "in the way"
    blocked.parent.touch()
    with pytest.raises(StorageError, match=r"cannot access .*in the way") as caught:
        files.signature(blocked)
    assert caught.value.path == str(blocked)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    """The second waits until the first is done, also in another thread of the same process."""
    path, order = tmp_path / "data" / "file", []
    inside = threading.Event()

    def second() -> None:
        assert inside.wait(10)
        with files.locked(path):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with files.locked(path):
        inside.set()
        thread.join(0.05)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_failure_under_the_lock_frees_it(tmp_path: Path) -> None:
    """The next writer is not locked out by an exception."""
    path = tmp_path / "file"
    with pytest.raises(ZeroDivisionError), files.locked(path):
        raise ZeroDivisionError
    with files.locked(path):
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A file in the way of the data directory is a write error, not a crash."""
    (tmp_path / "data").touch()
    with (
        pytest.raises(DatasetWriteError, match="cannot write"),
        files.locked(tmp_path / "data" / "x"),
    ):
        pass
