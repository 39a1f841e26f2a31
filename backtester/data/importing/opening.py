"""Open a file of any format, within bounds, and decode the series in it.

What a file is, its first bytes say; its name says only what its candles are of.
"""

from __future__ import annotations

import bz2
import gzip
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import IO, Any

from backtester.data.errors import CandleError, CorruptDatasetError, OptionError
from backtester.data.importing.found import NOTHING_SAID, Found

__all__ = ["Content", "files_in", "series_in", "unreadable"]

_HARMLESS = 64 << 20
"""No file is a bomb that unpacks to this or less."""
_RATIO = 200
"""Text of candles shrinks four to twenty times."""
_MOST_MEMBERS = 50_000
_MOST_BYTES = 4 << 30
"""Of a file that must be in memory as a whole."""
_SUFFIXES = (
    ".pickle", ".pkl", ".blosc", ".csv", ".tsv", ".parquet", ".pq", ".feather", ".arrow", ".h5",
    ".hdf5", ".hdf", ".gz", ".bz2", ".zip",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Content:
    """One file, or one member of a compressed one, open at its beginning."""

    where: str
    """What to call it: the path, with the member's name behind it."""
    name: PurePath
    """Its own path, which says what it holds."""
    stream: io.BufferedReader[Any]
    """Can be read from where it stands; not always rewound."""
    path: Path | None = None
    """Where it lies uncompressed on a disk; None inside a compressed file."""

    def whole(self) -> bytes:
        """Read all of it.

        Raises
        ------
        CorruptDatasetError
            It is larger than any file of ours could be.
        """
        data = self.stream.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise unreadable(self.where, f"it is larger than {_MOST_BYTES >> 30} GiB")
        return data


def unreadable(where: str, reason: str) -> CorruptDatasetError:
    """Build the error for a file that cannot be read as what it is."""
    return CorruptDatasetError(f"{where} cannot be imported: {reason}", path=where, reason=reason)


def files_in(given: str | os.PathLike[str]) -> list[Path]:
    """List what to import of a path: the file itself, or those of a folder with known suffixes.

    Raises
    ------
    OptionError
        There is nothing, or it is neither a file nor a folder.
    """
    if not os.fspath(given):  # which `Path` would take for the current directory
        raise OptionError("cannot import '': name a file or a folder", value="")
    path = Path(given)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionError(f"cannot import {path}: {reason}", value=str(path)) from error
    if stat.S_ISREG(mode):
        return [path]
    if not stat.S_ISDIR(mode):  # a pipe would wait, a device never end
        raise OptionError(f"cannot import {path}: it is no file", value=str(path))
    found = [
        one
        for one in sorted(path.rglob("*"))
        if one.suffix.lower() in _SUFFIXES and one.is_file() and not one.is_symlink()
    ]
    if not found:
        raise OptionError(f"there is nothing to import in {path}", value=str(path))
    return found


def series_in(path: Path) -> Iterator[Found]:
    """Decode a file, one series at a time.

    Raises
    ------
    CorruptDatasetError
        It is damaged, hostile or of no known format; it names the file.
    OptionError
        It cannot be opened, or what its format needs is not installed.
    """
    try:
        with path.open("rb") as stream:
            yield from _decoded(Content(str(path), path, stream, path), path.stat().st_size)
    except FileNotFoundError as error:
        raise OptionError(f"there is no file {path}", value=str(path)) from error
    except PermissionError as error:
        raise OptionError(f"{path} may not be read", value=str(path)) from error
    except OSError as error:
        raise unreadable(str(path), error.strerror or str(error)) from error


def _decoded(content: Content, size: int, *, nested: bool = False) -> Iterator[Found]:
    head = content.stream.peek(16)
    unpack = next((unpack for magic, unpack in _COMPRESSED if head.startswith(magic)), None)
    if unpack is not None:
        if nested:
            raise unreadable(content.where, "it is compressed twice")
        yield from unpack(content, size)
        return
    if not head:
        raise unreadable(content.where, "it is empty")
    if head[8:12] == b"DUCK":
        raise unreadable(
            content.where, "DuckDB files are not read here; export Parquet or Feather instead"
        )
    decode = next((decode for magic, decode in _FORMATS if head.startswith(magic)), _text)
    for found in decode(content):
        yield replace(found, name=content.name)


# ----------------------------------------------------------------------- compressed files


def _gzip(content: Content, size: int) -> Iterator[Found]:
    with gzip.GzipFile(fileobj=content.stream) as stream:
        yield from _unpacked(content, stream, size)


def _bzip2(content: Content, size: int) -> Iterator[Found]:
    with bz2.BZ2File(content.stream) as stream:
        yield from _unpacked(content, stream, size)


def _unpacked(content: Content, stream: gzip.GzipFile | bz2.BZ2File, size: int) -> Iterator[Found]:
    bounded = io.BufferedReader(_Bounded(stream, _Allowance(size), content.where))
    name = content.name.with_suffix("") if content.name.suffix else content.name
    with _unpacking(content.where):
        yield from _decoded(Content(content.where, name, bounded), size, nested=True)


def _zip(content: Content, size: int) -> Iterator[Found]:
    with _unpacking(content.where), zipfile.ZipFile(content.stream) as archive:
        members = [one for one in archive.infolist() if not one.is_dir()]
        if not 0 < len(members) <= _MOST_MEMBERS:
            raise unreadable(content.where, f"it holds {len(members)} files")
        allowance = _Allowance(size)
        for member in members:
            name = PurePath(member.filename)
            if name.name.startswith(".") or "__MACOSX" in name.parts:
                continue  # what systems add by themselves
            where = f"{content.where}/{member.filename}"
            try:
                yield from _member(archive, member, content.name.parent / name, where, allowance)
            except CorruptDatasetError as error:
                if allowance.left < 0:  # a bomb goes on in the next member
                    raise
                yield Found(where, NOTHING_SAID, None, problem=CandleError(error.reason))


def _member(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    name: PurePath,
    where: str,
    allowance: _Allowance,
) -> Iterator[Found]:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise unreadable(where, "it is packed in an unusual way")
    with _unpacking(where), archive.open(member) as stream:
        bounded = io.BufferedReader(_Bounded(stream, allowance, where))
        yield from _decoded(Content(where, name, bounded), member.file_size, nested=True)


@contextmanager
def _unpacking(where: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise unreadable(where, f"its compressed part is damaged ({error})") from error
    except (NotImplementedError, RuntimeError) as error:  # an unknown version, a password
        raise unreadable(where, f"it cannot be unpacked ({error})") from error


class _Allowance:
    """How many bytes a packed file may still unpack to, all of its members together."""

    def __init__(self, packed: int) -> None:
        self.left = max(_HARMLESS, _RATIO * packed)


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than it is allowed."""

    def __init__(
        self,
        stream: IO[bytes] | gzip.GzipFile | bz2.BZ2File,
        allowance: _Allowance,
        where: str,
    ) -> None:
        self._stream = stream
        self._allowance = allowance
        self._where = where

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._allowance.left -= len(data)
        if self._allowance.left < 0:
            raise unreadable(self._where, "it unpacks to far more than it has bytes for")
        return len(data)


# ----------------------------------------------------------------------- formats


def _pickled(content: Content) -> Iterator[Found]:
    from backtester.data.importing import pickled

    return pickled.decode(content)


def _hdf5(content: Content) -> Iterator[Found]:
    from backtester.data.importing import hdf5

    return hdf5.decode(content)


def _parquet(content: Content) -> Iterator[Found]:
    from backtester.data.importing import arrow

    return arrow.decode_parquet(content)


def _feather(content: Content) -> Iterator[Found]:
    from backtester.data.importing import arrow

    return arrow.decode_feather(content)


def _sqlite(content: Content) -> Iterator[Found]:
    raise unreadable(
        content.where, "it is an SQLite file; one of ours is read where it lies: --data-dir FOLDER"
    )


def _old_feather(content: Content) -> Iterator[Found]:
    raise unreadable(
        content.where, "it is a Feather file of version 1; write it again with version 2"
    )


def _text(content: Content) -> Iterator[Found]:
    from backtester.data.importing import text

    return text.decode(content)


_COMPRESSED: tuple[tuple[bytes, Callable[[Content, int], Iterator[Found]]], ...] = (
    (b"\x1f\x8b", _gzip),
    (b"BZh", _bzip2),
    (b"PK\x03\x04", _zip),
    (b"PK\x05\x06", _zip),
)
_FORMATS: tuple[tuple[bytes, Callable[[Content], Iterator[Found]]], ...] = (
    (b"\x80\x04", _pickled),
    (b"\x80\x05", _pickled),
    (b"\x05", _pickled),  # the first byte of a Blosc2 chunk is its format's version
    (b"\x89HDF\r\n\x1a\n", _hdf5),
    (b"PAR1", _parquet),
    (b"ARROW1", _feather),
    (b"FEA1", _old_feather),
    (b"SQLite format 3", _sqlite),
)
