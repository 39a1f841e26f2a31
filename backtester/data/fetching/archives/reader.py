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
    from collections.abc import Iterator
    from typing import IO

    from numpy.typing import NDArray

__all__ = ["VOLUME", "VOLUME_COIN_MARGINED", "read", "verify"]

VOLUME: Final = 5
VOLUME_COIN_MARGINED: Final = 7
"""The column that counts base units where the other counts contracts."""

_COLUMNS: Final = 12
_COMMA, _NEWLINE, _POINT = b",\n."
_FROM_MICROSECONDS: Final = 10**14
"""As milliseconds this is the year 5138; as microseconds 1973."""
_EXACT: Final = 2**53
_WORD: Final = 8
_MARGIN: Final = 2 * _WORD
_ZEROS, _SIXES, _HIGH_HALVES = (np.uint64(0x0101010101010101 * n) for n in (0x30, 0x06, 0xF0))
_STEPS: Final = tuple(
    (np.uint64(power), np.uint64(bits), np.uint64(halves))
    for power, bits, halves in (
        (10, 8, 0x00FF00FF00FF00FF),
        (100, 16, 0x0000FFFF0000FFFF),
        (10_000, 32, 0x00000000FFFFFFFF),
    )
)
_BLOCK: Final = 2**18
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
        parts = [_table(rows, volume_column) for rows in _blocks(packed)]
        times = np.concatenate([part[0] for part in parts] or [np.empty(0, np.int64)])
        values = np.concatenate([part[1] for part in parts] or [np.empty((0, 5), np.float64)])
        return check(_milliseconds(times), values, timeframe, span)
    except (CandleError, BadResponseError, ValueError) as error:
        raise BadResponseError(f"{name}: {error}") from error


def _blocks(packed: bytes) -> Iterator[bytes]:
    """Unpack a table piece by piece, each of whole rows: a processor's cache holds it."""
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            members = archive.infolist()
            if len(members) != 1:
                raise BadResponseError(f"holds {len(members)} files, not one")
            with archive.open(members[0]) as table:
                yield from _whole_rows(table)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadResponseError(f"is no sound zip file: {error}") from error


def _whole_rows(table: IO[bytes]) -> Iterator[bytes]:
    """Cut a table at ends of rows, without a header row."""
    rest = table.readline(_BLOCK)
    if rest[:1].isdigit() and not rest.endswith(b"\n") and len(rest) == _BLOCK:
        raise BadResponseError("has no rows")
    rest = rest if rest[:1].isdigit() else b""
    while block := table.read(_BLOCK):
        rows, end, tail = block.rpartition(b"\n")
        if end:
            yield rest + rows + end
            rest = tail
        elif len(rest) > _BLOCK:
            raise BadResponseError("has no rows")
        else:
            rest += tail
    if rest:
        yield rest if rest.endswith(b"\n") else rest + b"\n"


# --------------------------------------------------------------------------- text to numbers


def _table(rows: bytes, volume_column: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read the open times, (n,), and the five columns of candles, (n, 5)."""
    cells = _Cells(b"." * _MARGIN + rows.replace(b"\r", b""))
    times = cells.whole(0)
    values = np.empty((len(times), 5), np.float64)
    values[:, :4] = cells.decimals([1, 2, 3, 4])
    values[:, 4:] = cells.decimals([volume_column])
    return times, values


def _milliseconds(times: NDArray[np.int64]) -> NDArray[np.int64]:
    micro = times > _FROM_MICROSECONDS
    if not micro.any():
        return times
    if (times[micro] % 1000).any():
        raise BadResponseError("has open times that are not whole milliseconds")
    return np.where(micro, times // 1000, times)


class _Cells:
    """The cells of a table of twelve columns, a column at a time.

    Digits are read eight at a step: as one 64-bit word whose bytes are added up
    in pairs, then in fours, then in eights.

    Parameters
    ----------
    text : bytes
        Rows of cells, the last one ended too, behind `_MARGIN` bytes that are none.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._bytes = np.frombuffer(text, np.uint8)
        self._words = np.ndarray((max(len(text) - 7, 0),), "<u8", text, strides=(1,))
        ends = np.flatnonzero(self._bytes <= _COMMA)  # digits and the point are all above
        if len(ends) % _COLUMNS:
            raise BadResponseError(f"is not a table of {_COLUMNS} columns")
        marks = self._bytes[ends].reshape(-1, _COLUMNS)
        if (marks[:, :-1] != _COMMA).any() or (marks[:, -1] != _NEWLINE).any():
            raise BadResponseError(f"is not a table of {_COLUMNS} columns")
        self._ends: NDArray[np.int64] = np.ascontiguousarray(ends.reshape(-1, _COLUMNS).T)

    def whole(self, column: int) -> NDArray[np.int64]:
        """Read a column of whole numbers.

        Raises
        ------
        BadResponseError
            Something in it is not one, or has more than 16 digits.
        """
        starts, ends = self._starts(column), self._ends[column]
        numbers = self._digits(starts, ends)
        if numbers is None:
            raise BadResponseError("has open times that are not whole numbers")
        return numbers

    def decimals(self, columns: list[int]) -> NDArray[np.float64]:
        """Read columns of decimals, (n, columns), none of them the first; like ones together.

        Raises
        ------
        ValueError
            Something in them is not a number.
        """
        ends = self._ends[columns]
        starts = self._ends[[column - 1 for column in columns]] + 1
        return self._numbers(starts.ravel(), ends.ravel()).reshape(ends.shape).T

    def _numbers(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.float64]:
        places = self._places(starts, ends)
        if places is None:
            return self._one_by_one(starts, ends)
        points = ends - (places + 1) if places else ends
        whole = self._digits(starts, points)
        part = self._digits(points + 1, ends) if places else np.zeros_like(starts)
        if whole is None or part is None:
            return self._one_by_one(starts, ends)
        # Volumes come padded with zeros to eight decimals: what all rows have is left out
        # where the integer would not fit.
        if places and not part.any():
            places = 0
        while places and int(whole.max()) >= _EXACT // 10**places and not (part % 10).any():
            places, part = places - 1, part // 10
        numbers: NDArray[np.float64] = (whole * 10**places + part) / 10.0**places
        large = np.flatnonzero(whole >= _EXACT // 10**places)
        if len(large):
            numbers[large] = self._one_by_one(starts[large], ends[large])
        return numbers

    def _starts(self, column: int) -> NDArray[np.int64]:
        if column:
            return np.asarray(self._ends[column - 1] + 1)
        return np.concatenate(([_MARGIN], self._ends[-1][:-1] + 1))

    def _places(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> int | None:
        """Give how many decimals every row has; None when they differ."""
        point = self._text.find(b".", int(starts[0]), int(ends[0]))
        places = int(ends[0]) - 1 - point if point >= 0 else 0
        if places and not (self._bytes[ends - (places + 1)] == _POINT).all():
            return None
        return places

    def _digits(
        self, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> NDArray[np.int64] | None:
        """Read one to sixteen digits of every row; None when there is anything else."""
        lengths = ends - starts
        shortest, longest = int(lengths.min()), int(lengths.max())
        if shortest < 1 or longest > 2 * _WORD:
            return None
        low = self._word(ends, lengths, shortest)
        if longest <= _WORD or low is None:
            return low
        high = self._word(ends - _WORD, lengths - _WORD, shortest - _WORD)
        return None if high is None else high * 10**_WORD + low

    def _word(
        self, ends: NDArray[np.int64], lengths: NDArray[np.int64], shortest: int
    ) -> NDArray[np.int64] | None:
        """Read the last eight digits of every row, or as many as it has."""
        words = self._words[ends - _WORD]
        words ^= _ZEROS
        if shortest < _WORD:  # what stands in front belongs to the cell before
            spare = (8 * np.clip(_WORD - lengths, 0, _WORD)).astype(np.uint64)
            words = (words >> spare) << spare
        if (np.bitwise_or.reduce(words | (words + _SIXES)) & _HIGH_HALVES) != 0:
            return None
        for power, bits, halves in _STEPS:
            right = words >> bits
            words *= power
            words += right
            words &= halves
        return words.view(np.int64)

    def _one_by_one(
        self, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        text = self._text
        cells = zip(starts.tolist(), ends.tolist(), strict=True)
        return np.array([float(text[start:end]) for start, end in cells], np.float64)
