"""Read one archive file: a zip of one CSV table, verified, to checked candles.

Pure: bytes in, candles out.

Formats (binance-public-data, read 2026-11): twelve columns as of a kline, with
or without a header row; times in milliseconds or, in spot since 2025, in
microseconds; COIN-M counts contracts in the sixth column and base units in the
eighth, whatever its header calls that.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from zlib_ng import zlib_ng

from backtester.data.candles import Candles, check
from backtester.data.errors import BadResponseError, CandleError
from backtester.data.fetching.decimals import Decimals
from backtester.data.model import Interval, Timeframe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["VOLUME", "VOLUME_COIN_MARGINED", "read", "read_gate", "verify"]

VOLUME: Final = 5
VOLUME_COIN_MARGINED: Final = 7
"""The column that counts base units where the other counts contracts."""

_COLUMNS: Final = 12
_GATE_COLUMNS: Final = 6
_GATE: Final = (5, 3, 4, 2, 1)
"""Where Gate has open, high, low, close and volume."""
_GZIP: Final = 16 + zlib_ng.MAX_WBITS
_COMMA, _NEWLINE = b",\n"
_FROM_MICROSECONDS: Final = 10**14
"""As milliseconds this is the year 5138; as microseconds 1973."""
_BLOCK: Final = 2**18
"""More than any row has."""
_PIECE: Final = 2**16
"""Deflated bytes at a step: some 170 KB of a table."""
_LOCAL_HEADER: Final = 30
_ENCRYPTED: Final = 0x1
_DEFLATE_ERROR: Final[Any] = zlib_ng.error  # an exception type, of which its stubs make one value
_CHECKSUM: Final = re.compile(r"(?P<digest>[0-9a-fA-F]{64})(?:\s+\*?(?P<name>\S+))?\s*\Z")


def verify(packed: bytes, checksum: bytes, name: str) -> None:
    """Compare a file with its CHECKSUM.

    Parameters
    ----------
    packed : bytes
        The zip file.
    checksum : bytes
        The other file: ``<sha256>  <name>``.
    name : str

    Raises
    ------
    BadResponseError
        They differ, or the CHECKSUM is none, or of another file.
    """
    stated = _CHECKSUM.match(checksum[:1000].decode("ascii", "replace").strip())
    if stated is None or stated["name"] not in {None, name}:
        start = " ".join(checksum[:60].decode("ascii", "replace").split())
        raise BadResponseError(f"the checksum file of {name} is invalid: {start!r}")
    found = hashlib.sha256(packed).hexdigest()
    if found != stated["digest"].lower():
        raise BadResponseError(
            f"{name} does not match its checksum: its sha256 is {found}, not {stated['digest']}"
        )


def read(
    packed: bytes,
    name: str,
    timeframe: Timeframe,
    span: Interval,
    volume_column: int = VOLUME,
    extra_columns: Sequence[int | None] = (),
) -> Candles:
    """Read the candles of a verified file.

    Parameters
    ----------
    packed : bytes
        The zip file.
    name : str
        Its name, for the sentence.
    timeframe : Timeframe
    span : Interval
        The month or day it is of.
    volume_column : int
        `VOLUME` or `VOLUME_COIN_MARGINED`.
    extra_columns : sequence of int or None
        Where the first of `candles.EXTRAS` are, if they are wanted.

    Returns
    -------
    Candles
        Those inside `span`, volume in base units.

    Raises
    ------
    BadResponseError
        It is not a zip of one table, or a candle in it breaks a rule (`candles.check`).
    """
    try:
        columns = (1, 2, 3, 4, volume_column, *extra_columns)
        known = [column for column in columns if column is not None]
        times, values = _joined(
            (_table(rows, _COLUMNS, known) for rows in _blocks(packed)), len(known)
        )
        if len(known) < len(columns):
            told, values = values, np.full((len(times), len(columns)), np.nan)
            values[:, [at for at, column in enumerate(columns) if column is not None]] = told
        return check(_milliseconds(times), values, timeframe, span)
    except (CandleError, BadResponseError, ValueError) as error:
        raise BadResponseError(f"{name}: {error}") from error


def read_gate(packed: bytes, name: str, timeframe: Timeframe, span: Interval) -> Candles:
    """Read the candles of one of Gate's files: seconds, volume, close, high, low, open.

    Parameters
    ----------
    packed : bytes
    name : str
        Its name, for the sentence.
    timeframe : Timeframe
    span : Interval
        The month it is of.

    Returns
    -------
    Candles
        Those inside `span`.

    Raises
    ------
    BadResponseError
        It is not gzip of such a table, or cut, or a candle in it breaks a rule.
    """
    try:
        blocks = _whole_rows(_gunzipped(packed))
        times, values = _joined(_table(rows, _GATE_COLUMNS, [*_GATE]) for rows in blocks)
        return check(times * 1000, values, timeframe, span)
    except (CandleError, BadResponseError, ValueError, _DEFLATE_ERROR) as error:
        raise BadResponseError(f"{name}: {error}") from error


def _gunzipped(packed: bytes) -> Iterator[bytes]:
    inflate = zlib_ng.decompressobj(_GZIP)
    for at in range(0, len(packed), _PIECE):
        yield inflate.decompress(packed[at : at + _PIECE])
    if not inflate.eof:  # its own checksum is compared at the end
        raise BadResponseError("is not a valid gzip file: it ends early")


def _joined(
    parts: Iterable[tuple[NDArray[np.int64], NDArray[np.float64]]], width: int = 5
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    read = list(parts)
    times = np.concatenate([part[0] for part in read] or [np.empty(0, np.int64)])
    return times, np.concatenate([part[1] for part in read] or [np.empty((0, width))])


def _blocks(packed: bytes) -> Iterator[bytes]:
    """Unpack a table piece by piece, each of whole rows: a processor's cache holds it."""
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            members = archive.infolist()
        if len(members) != 1:
            raise BadResponseError(f"holds {len(members)} files, not one")
        yield from _whole_rows(_inflated(packed, members[0]))
    except (zipfile.BadZipFile, _DEFLATE_ERROR, EOFError, NotImplementedError) as error:
        raise BadResponseError(f"is not a valid zip file: {error}") from error


def _inflated(packed: bytes, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Inflate a member in pieces; `zipfile` does so with a zlib that takes twice as long.

    Layout (APPNOTE.TXT 4.3.7): a local header of 30 bytes, the last four of which are the lengths
    of a name and of extra fields, both of which follow; then the data.
    """
    if member.compress_type != zipfile.ZIP_DEFLATED or member.flag_bits & _ENCRYPTED:
        raise NotImplementedError("its member is not simply deflated")
    header = packed[member.header_offset :][:_LOCAL_HEADER]
    if not header.startswith(b"PK\x03\x04"):
        raise zipfile.BadZipFile("its member is not where its directory says")
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    start = member.header_offset + _LOCAL_HEADER + name + extra
    data = memoryview(packed)[start : start + member.compress_size]
    inflate = zlib_ng.decompressobj(-zlib_ng.MAX_WBITS)
    size = crc = 0
    for at in range(0, len(data), _PIECE):
        piece = inflate.decompress(data[at : at + _PIECE])
        size, crc = size + len(piece), zlib_ng.crc32(piece, crc)
        yield piece
    if not inflate.eof or size != member.file_size or crc != member.CRC:
        raise zipfile.BadZipFile("its member is not what its directory says")


def _whole_rows(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Cut a table that comes in pieces at ends of rows, and leave a header row out."""
    rest, begun = b"", False
    for piece in pieces:
        rows, end, tail = piece.rpartition(b"\n")
        if not end:
            rest += tail
            if len(rest) > _BLOCK:
                raise BadResponseError("has no rows")
            continue
        block, rest = rest + rows + end, tail
        if not begun and not block[:1].isdigit():
            block = block[block.index(b"\n") + 1 :]
        begun = True
        if block:
            yield block
    if rest and (begun or rest[:1].isdigit()):
        yield rest + b"\n"


# --------------------------------------------------------------------------- text to numbers


def _table(
    rows: bytes, width: int, wanted: list[int]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read the open times, (n,), and the columns that are wanted, (n, k)."""
    text = rows.replace(b"\r", b"")
    characters = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(characters <= _COMMA)  # digits and the point are all above
    if len(ends) % width:
        raise BadResponseError(f"is not a table of {width} columns")
    marks = characters[ends].reshape(-1, width)
    if (marks[:, :-1] != _COMMA).any() or (marks[:, -1] != _NEWLINE).any():
        raise BadResponseError(f"is not a table of {width} columns")
    rows_ends = ends.reshape(-1, width)
    numbers = Decimals(text)
    times = numbers.whole(np.concatenate(([0], rows_ends[:-1, -1] + 1)), rows_ends[:, 0])
    begin, end = rows_ends[:, [column - 1 for column in wanted]].T + 1, rows_ends[:, wanted].T
    return times, numbers.columns(begin, np.ascontiguousarray(end))


def _milliseconds(times: NDArray[np.int64]) -> NDArray[np.int64]:
    micro = times > _FROM_MICROSECONDS
    if not micro.any():
        return times
    if (times[micro] % 1000).any():
        raise BadResponseError("has open times that are not whole milliseconds")
    return np.where(micro, times // 1000, times)
