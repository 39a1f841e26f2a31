"""Read one archive file: a zip of one CSV table, verified, to checked candles.

Pure: bytes in, candles out. The numbers come out with the same bits as from
`float`: a decimal of at most 15 digits is an integer divided by a power of ten,
both of which a float holds exactly, and IEEE 754 rounds a division correctly.

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
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

from backtester.data.candles import Candles, check
from backtester.data.errors import BadResponseError, CandleError
from backtester.data.model import Interval, Timeframe

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["VOLUME", "VOLUME_COIN_MARGINED", "read", "verify"]

VOLUME: Final = 5
VOLUME_COIN_MARGINED: Final = 7
"""The column that counts base units where the other counts contracts."""

_COLUMNS: Final = 12
_COMMA, _NEWLINE, _POINT, _ZERO, _NINE = b",\n.09"
_FROM_MICROSECONDS: Final = 10**14
"""As milliseconds this is the year 5138; as microseconds 1973."""
_EXACT: Final = 2**53
_MOST_DIGITS: Final = 18  # an int64 holds them
_MOST_BYTES: Final = 512 * 2**20
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
        raise BadResponseError(f"the checksum of {name} is not one: {start!r}")
    found = hashlib.sha256(packed).hexdigest()
    if found != stated["digest"].lower():
        raise BadResponseError(
            f"{name} does not match its checksum: its sha256 is {found}, not {stated['digest']}"
        )


def read(
    packed: bytes, name: str, timeframe: Timeframe, span: Interval, volume_column: int = VOLUME
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
        times, values = _table(_unpacked(packed), volume_column)
        return check(times, values, timeframe, span)
    except (CandleError, BadResponseError, ValueError) as error:
        raise BadResponseError(f"{name}: {error}") from error


def _unpacked(packed: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            members = archive.infolist()
            if len(members) != 1:
                raise BadResponseError(f"holds {len(members)} files, not one")
            if members[0].file_size > _MOST_BYTES:
                raise BadResponseError(f"unpacks to {members[0].file_size} bytes")
            return archive.read(members[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadResponseError(f"is no sound zip file: {error}") from error


# --------------------------------------------------------------------------- text to numbers


def _table(text: bytes, volume_column: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read the open times in milliseconds, (n,), and the five columns of candles, (n, 5)."""
    text = _rows_of(text)
    cells = _Cells(text)
    times = cells.numbers(0)
    if times.dtype != np.int64:
        raise BadResponseError("has open times that are not whole numbers")
    values = np.empty((len(times), 5), np.float64)
    for at, column in enumerate((1, 2, 3, 4, volume_column)):
        values[:, at] = cells.numbers(column)
    return _milliseconds(times), values


def _rows_of(text: bytes) -> bytes:
    """Drop a header row and foreign line ends."""
    text = text.replace(b"\r", b"") if b"\r" in text else text
    if text and not text[:1].isdigit():
        _, _, text = text.partition(b"\n")
    return text if text.endswith(b"\n") or not text else text + b"\n"


def _milliseconds(times: NDArray[np.int64]) -> NDArray[np.int64]:
    micro = times > _FROM_MICROSECONDS
    if not micro.any():
        return times
    if (times[micro] % 1000).any():
        raise BadResponseError("has open times that are not whole milliseconds")
    return np.where(micro, times // 1000, times)


class _Cells:
    """The cells of a table of twelve columns, a column at a time."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._bytes = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero(self._bytes <= _COMMA)  # digits and the point are all above
        if len(ends) % _COLUMNS:
            raise BadResponseError(f"is not a table of {_COLUMNS} columns")
        ends = ends.reshape(-1, _COLUMNS)
        marks = self._bytes[ends]
        if (marks[:, :-1] != _COMMA).any() or (marks[:, -1] != _NEWLINE).any():
            raise BadResponseError(f"is not a table of {_COLUMNS} columns")
        self._ends = np.ascontiguousarray(ends.T)

    def numbers(self, column: int) -> NDArray[np.int64] | NDArray[np.float64]:
        """Read a column of plain decimals: int64 where it has no point, else float64."""
        ends = self._ends[column]
        if not len(ends):
            return np.empty(0, np.int64)
        starts = self._starts(column)
        lengths = ends - starts
        if not lengths.min():
            raise BadResponseError("has an empty cell")
        places = self._places(starts, ends)
        if places is None:
            return self._one_by_one(starts, ends)
        # Prices come padded with zeros to eight decimals: what all rows have is left out.
        padding = self._padding(ends, places)
        ends, lengths, places = ends - padding, lengths - padding, places - padding
        width = int(lengths.max())
        if width > _MOST_DIGITS:
            return self._one_by_one(starts, ends)
        whole = self._whole(ends, lengths, width, places)
        if whole is None:
            return self._one_by_one(starts, ends)
        if not places:
            return whole
        numbers = whole / 10.0**places
        large = np.flatnonzero(whole >= _EXACT)
        if len(large):
            numbers[large] = self._one_by_one(starts[large], ends[large])
        return numbers

    def _starts(self, column: int) -> NDArray[np.int64]:
        if column:
            return self._ends[column - 1] + 1
        return np.concatenate((np.zeros(1, np.int64), self._ends[-1][:-1] + 1))

    def _places(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> int | None:
        """Give how many decimals every row has; None when they differ."""
        point = self._text.find(b".", int(starts[0]), int(ends[0]))
        places = int(ends[0]) - 1 - point if point >= 0 else 0
        if places and not (self._bytes[ends - (places + 1)] == _POINT).all():
            return None
        return places

    def _padding(self, ends: NDArray[np.int64], places: int) -> int:
        padding = 0
        while padding < places - 1 and (self._bytes[ends - (padding + 1)] == _ZERO).all():
            padding += 1
        return padding

    def _whole(
        self, ends: NDArray[np.int64], lengths: NDArray[np.int64], width: int, places: int
    ) -> NDArray[np.int64] | None:
        """Read the digits as one integer per row; None when there is anything else."""
        shortest = int(lengths.min())
        total = np.zeros(len(ends), np.int64)
        for back in range(width, 0, -1):
            if places and back == places + 1:  # the point, which every row has here
                continue
            digits = self._bytes[ends - back] - np.uint8(_ZERO)
            if back > shortest:
                digits[lengths < back] = 0  # what stands there belongs to the cell before
            if digits.max() > _NINE - _ZERO:
                return None
            total *= 10
            total += digits
        return total

    def _one_by_one(
        self, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        text = self._text
        cells = zip(starts.tolist(), ends.tolist(), strict=True)
        return np.array([float(text[start:end]) for start, end in cells], np.float64)
