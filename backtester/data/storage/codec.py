r"""Candle tables as compact bytes, bit for bit, and back: the chunks of the `sqlite` store.

Prices are decimals with few digits, so a column is kept as *ticks*: whole numbers of 10^-e.
Open, high, low and close share one exponent and are kept as small differences: the open from
the close before, the close from its open, the high and low from the body. What a value differs
from its decimal is kept beside, counted in units of its last bit: volumes that an exchange
summed up in floating point are off by one or two. Values that are no decimals at all (NaN, -0.0,
1e300) are listed as they are, and a column of such is kept as raw floats.

Layout, all integers little-endian::

    head     magic "VBC" · version u8 · rows u32 · columns u8 · streams u8 · first open time i64
    streams  one descriptor each: kind u8 · width u8 · exponent u8 · 0 u8 · length u32 · base i64
    bodies   in the order of the descriptors, `length` bytes each
    end      crc32 u32 of all before it, begun with the crc32 of the chunk's name

The streams of version 1: the steps between open times; then the group of open, high, low and
close; then each other column. A group is either one stream of float64 bits per column, or ticks:
one stream of integers per column (of prices open less the close before, high less the body,
body less low, close less open), one of the differences in the last place of all its values, and
one of its odd values: their positions u32, then their bits u64. Integers are kept less their
`base`, or zigzag, in the fewest bytes of 1, 2, 4 or 8, compressed by Blosc2; equal ones, and
equal bits, as their base alone. `_Kind` lists the kinds.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from zlib_ng.zlib_ng import crc32  # ten times the speed of zlib's, for the same number

from backtester.data.storage import blosc
from backtester.data.storage.pickles import UnreadableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

__all__ = ["MOST_ROWS", "VERSION", "Chunk", "decode", "encode"]

VERSION = 1
MOST_ROWS = 1 << 20
"""The most rows of a chunk; a damaged or hostile head must not make us allocate more."""

_MAGIC = b"VBC"
_HEAD = struct.Struct("<3sBIBBq")
_STREAM = struct.Struct("<BBBxIq")
_CRC = struct.Struct("<I")
_OPEN, _HIGH, _LOW, _CLOSE = range(4)
_PRICES = 4
"""Open, high, low and close stand first and are one group."""

_MOST_EXPONENT = 15
_MOST_TICKS = 2.0**50
"""Beyond, a tick says no less than the float's own bits."""
_MOST_SMALL_TICKS = 2.0**29
_MOST_ULPS = 127
_MOST_ODD = 1 / 64
"""Share of values that are no decimals, above which raw floats are smaller and faster."""
_SAMPLE = 256
_POWERS = 10.0 ** np.arange(_MOST_EXPONENT + 1)  # exact up to 10^22
_NONE = np.zeros(1, np.int64)
"""Stands for any number of zeros."""
_UNSIGNED: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_SIGNED: dict[int, Any] = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


class _Kind(IntEnum):
    EQUAL = 0
    """All are `base`; no body."""
    FRAMED = 1
    """Unsigned integers, `base` taken off."""
    ZIGZAG = 2
    """Signed integers, the sign in the lowest bit."""
    RAW = 3
    """The bits of float64."""
    ODD = 4
    """Positions u32, then the bits u64 of values that are no decimals."""
    SAME = 5
    """The bits of all are `base`; no body."""


_FLOATS = (_Kind.RAW, _Kind.SAME)


class _Stream(NamedTuple):
    kind: int
    width: int = 0
    exponent: int = 0
    base: int = 0
    body: bytes | memoryview = b""


# --------------------------------------------------------------------------- encoding


def encode(times: Ints, values: Floats, name: bytes = b"") -> bytes:
    """Encode a table, and check that it decodes to the very same bits.

    Parameters
    ----------
    times : int64 (n,)
        Open times, UTC epoch milliseconds, strictly increasing, 1 ≤ n ≤ `MOST_ROWS`.
    values : float64 (n, k)
        Open, high, low, close, then any other columns; 4 ≤ k < 64. Any bits.
    name : bytes
        What the chunk is: decoding it under another name fails.
    """
    rows, width = values.shape
    if not 1 <= rows <= MOST_ROWS or not _PRICES <= width < 64 or len(times) != rows:
        raise ValueError(f"a chunk cannot hold {rows} rows of {width} columns")
    table = np.ascontiguousarray(values.T)
    streams = [_ints(np.diff(times)), *_price_streams(table[:_PRICES])]
    for column in table[_PRICES:]:
        streams += _column_streams(column)
    chunk = _join(int(times[0]), rows, width, streams, name)
    again_times, again_values = decode(chunk, name)
    if not np.array_equal(again_times, times) or not np.array_equal(
        again_values.T.view(np.int64), table.view(np.int64)
    ):
        raise AssertionError("a chunk that does not decode to what was encoded")
    return chunk


def _join(first: int, rows: int, width: int, streams: list[_Stream], name: bytes) -> bytes:
    parts = [_HEAD.pack(_MAGIC, VERSION, rows, width, len(streams), first)]
    parts += (_STREAM.pack(s.kind, s.width, s.exponent, len(s.body), s.base) for s in streams)
    parts += (bytes(s.body) for s in streams)
    data = b"".join(parts)
    return data + _CRC.pack(crc32(data, crc32(name)))


def _price_streams(prices: Floats) -> list[_Stream]:
    ticks = _Ticks.of(prices.reshape(-1))
    if ticks is None:
        return [_raw(column) for column in prices]
    opened, high, low, close = ticks.whole.reshape(_PRICES, -1)
    jump = opened.copy()
    jump[1:] -= close[:-1]
    body = (
        jump,
        high - np.maximum(opened, close),
        np.minimum(opened, close) - low,
        close - opened,
    )
    return [*(_ints(one, ticks.exponent) for one in body), _ints(ticks.ulps), ticks.odd()]


def _column_streams(column: Floats) -> list[_Stream]:
    ticks = _Ticks.of(column)
    if ticks is None:
        return [_raw(column)]
    return [_ints(ticks.whole, ticks.exponent), _ints(ticks.ulps), ticks.odd()]


@dataclass(frozen=True, slots=True)
class _Ticks:
    """Values as whole numbers of 10^-exponent, and what is not quite one."""

    exponent: int
    whole: NDArray[Any]
    """int64, or int32 where no difference of two can exceed it."""
    ulps: Ints
    """What a value's bits differ from those of its decimal."""
    odd_at: Ints
    odd_bits: Ints

    @classmethod
    def of(cls, values: Floats) -> _Ticks | None:
        """Find the decimals; None where the values are better kept as they are."""
        sample = values[:: max(1, len(values) // _SAMPLE)]
        for _ in range(3):  # a sample may miss the few values with more digits
            exponent = _exponent_of(sample)
            if exponent is None:
                return None
            exact = _exact(values, _POWERS[exponent])
            if exact is not None:
                return cls(exponent, *exact, _NONE[:0], _NONE[:0])
            whole, ulps, fits = _measured(values, _POWERS[exponent])
            odd_at = np.flatnonzero(~fits)
            if len(odd_at) <= max(2, int(_MOST_ODD * len(values))):
                return cls(exponent, *_without(whole, ulps, odd_at), odd_at, _bits(values)[odd_at])
            sample = values[odd_at[:: max(1, len(odd_at) // _SAMPLE)]]
        return None

    def odd(self) -> _Stream:
        positions = self.odd_at.astype("<u4").tobytes()
        return _Stream(_Kind.ODD, body=positions + self.odd_bits.astype("<i8").tobytes())


def _exponent_of(sample: Floats) -> int | None:
    """Give the least exponent at which nearly all of a sample are decimals."""
    finite = sample[np.isfinite(sample)]
    if len(finite) == 0:
        return None
    for first, behind in ((0, 6), (6, _MOST_EXPONENT + 1)):  # several at once; most are small
        fits = _measured(finite, _POWERS[first:behind, np.newaxis])[2]
        enough = np.flatnonzero(fits.mean(axis=1) >= 1 - _MOST_ODD)
        if len(enough):
            return first + int(enough[0])
    return None


def _exact(values: Floats, power: float) -> tuple[NDArray[Any], Ints] | None:
    """Give ticks and differences in the last place where these describe all values exactly.

    The same as `_measured` in fewer steps, and ticks in 4 bytes where their differences fit too.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        near = values * power
        np.rint(near, out=near)
        near += 0.0
        most = max(-near.min(), near.max())
        if not most < _MOST_TICKS:  # NaN compares false
            return None
        again = near / power
        ulps = np.subtract(_bits(values), _bits(again), out=_bits(again))
    low, high = int(ulps.min()), int(ulps.max())
    if low < -_MOST_ULPS or high > _MOST_ULPS:
        return None
    whole = near.astype(np.int32 if most < _MOST_SMALL_TICKS else np.int64)
    return whole, ulps if low or high else _NONE


def _measured(values: Floats, power: Any) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Give ticks, differences in the last place, and which values these describe exactly."""
    with np.errstate(over="ignore", invalid="ignore"):
        near = values * power
        np.rint(near, out=near)
        near += 0.0  # -0.0 is no decimal
        fits = np.abs(near) < _MOST_TICKS  # NaN compares false
        if not fits.all():
            near[~fits] = 0.0
        again = near / power
        ulps = np.subtract(_bits(values), _bits(again), out=_bits(again))  # may wrap: does not fit
    fits &= ulps <= _MOST_ULPS
    fits &= ulps >= -_MOST_ULPS
    return near.astype(np.int64), ulps, fits


def _without(whole: Ints, ulps: Ints, odd_at: Ints) -> tuple[Ints, Ints]:
    """Let odd values repeat the one before, which costs nothing to keep."""
    if len(odd_at):
        at = np.arange(len(whole))
        at[odd_at] = 0
        whole = whole[np.maximum.accumulate(at)]
        ulps[odd_at] = 0
    return whole, ulps


def _ints(values: NDArray[Any], exponent: int = 0) -> _Stream:
    if len(values) == 0:
        return _Stream(_Kind.EQUAL, exponent=exponent)
    low, high = int(values.min()), int(values.max())
    if low == high:
        return _Stream(_Kind.EQUAL, exponent=exponent, base=low)
    if low >= 0:
        kind, base, width = _Kind.FRAMED, low, _width(high - low)
        unsigned = values.astype(_UNSIGNED[width])
        if low:  # in the narrow type, which wraps around to the same
            unsigned -= np.array(low).astype(_UNSIGNED[width])
    else:
        kind, base, width = _Kind.ZIGZAG, 0, _width(2 * max(high, -low))
        signed = values.astype(_SIGNED[width])
        unsigned = (signed << 1 ^ signed >> 8 * width - 1).view(_UNSIGNED[width])
    return _Stream(kind, width, exponent, base, blosc.compress_array(unsigned))


def _width(most: int) -> int:
    return next(width for width in _UNSIGNED if most < 1 << (8 * width))


def _raw(column: Floats) -> _Stream:
    bits = _bits(column)
    if (bits == bits[0]).all():
        return _Stream(_Kind.SAME, base=int(bits[0]))
    return _Stream(_Kind.RAW, 8, body=blosc.compress_array(bits.view(np.uint64)))


def _bits(values: Floats) -> Ints:
    return values.view(np.int64)


# --------------------------------------------------------------------------- decoding


def decode(chunk: bytes, name: bytes = b"") -> tuple[Ints, Floats]:
    """Decode a whole chunk, trusting nothing in it.

    Returns
    -------
    (int64 (n,), float64 (n, k))
        As they were encoded; the values stand column after column in memory.

    Raises
    ------
    UnreadableError
        It is damaged, of another name, of a later version, or not a chunk.
    """
    opened = Chunk.open(chunk, name)
    times, table = np.empty(opened.rows, np.int64), np.empty((opened.width, opened.rows))
    opened.read_times(0, opened.rows, times)
    opened.read(0, opened.rows, table)
    return times, table.T


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk that was checked and cut into its streams, to be decoded as far as is asked.

    Whatever is read of it raises UnreadableError where it does not make sense.
    """

    rows: int
    width: int
    first: int
    """Open time of the first row, UTC epoch milliseconds."""
    last: int
    """Open time of the last row."""
    _step: int
    _irregular: Ints | None
    """All open times where the steps between them differ."""
    _streams: _Streams
    _groups: tuple[int, ...]
    """Which streams are the first of the prices and of each other column."""

    @classmethod
    def open(cls, chunk: bytes, name: bytes = b"") -> Chunk:
        """Check a chunk; errors as in `decode`."""
        if len(chunk) < _HEAD.size + _CRC.size:
            raise UnreadableError("a chunk is cut short")
        magic, version, rows, width, count, first = _HEAD.unpack_from(chunk)
        if magic != _MAGIC:
            raise UnreadableError("it is not a chunk of candles")
        if version != VERSION:
            raise UnreadableError(f"a chunk has version {version}; this package reads {VERSION}")
        view = memoryview(chunk)
        (checksum,) = _CRC.unpack_from(chunk, len(chunk) - _CRC.size)
        if crc32(view[: -_CRC.size], crc32(name)) != checksum:
            raise UnreadableError("a chunk fails its checksum")
        if not 1 <= rows <= MOST_ROWS or not _PRICES <= width < 64:
            raise UnreadableError(f"a chunk claims {rows} rows of {width} columns")
        try:
            streams = _Streams.cut(view, count)
            groups = _grouped(streams, width)
            steps = streams[0]
            if steps.kind == _Kind.EQUAL:
                last, step, irregular = first + steps.base * (rows - 1), max(steps.base, 1), None
                if (rows > 1 and steps.base <= 0) or last >= 2**63:
                    raise UnreadableError("a chunk's open times do not increase")
            else:
                irregular, step = _read_times(steps, first, rows), 0
                last = int(irregular[-1])
        except _NONSENSE as error:
            raise _senseless(error) from error
        return cls(rows, width, first, last, step, irregular, streams, groups)

    def read_times(self, begin: int, end: int, out: Ints) -> None:
        """Write the open times of rows ``[begin, end)`` into `out`."""
        if self._irregular is not None:
            out[:] = self._irregular[begin:end]
        else:
            np.multiply(np.arange(begin, end), self._step, out=out)
            out += self.first

    def grid(self, begin: int, end: int) -> object:
        """Give a key that is equal to another's where the open times of both are the same."""
        if self._irregular is not None:
            return self._irregular[begin:end].tobytes()
        return self.first + begin * self._step, self._step, end - begin

    def window(self, start: int, end: int) -> tuple[int, int]:
        """Give the rows ``[first, last)`` that open inside ``[start, end)`` ms."""
        if self._irregular is not None:
            first, last = np.searchsorted(self._irregular, (start, end)).tolist()
            return first, last
        ends = (-((self.first - edge) // self._step) for edge in (start, end))
        first, last = (min(max(row, 0), self.rows) for row in ends)
        return first, last

    def read(self, begin: int, end: int, out: Floats) -> None:
        """Decode rows ``[begin, end)`` into `out`, float64 (k, end - begin)."""
        try:
            self._read_prices(begin, end, dict(enumerate(out[:_PRICES])))
            for number in range(_PRICES, self.width):
                self._read_other(number, begin, end, out[number])
        except _NONSENSE as error:
            raise _senseless(error) from error

    def read_column(self, number: int, begin: int, end: int, out: Floats) -> None:
        """Decode rows ``[begin, end)`` of one column into `out`, float64 (end - begin,)."""
        try:
            if number < _PRICES:
                self._read_prices(begin, end, {number: out})
            else:
                self._read_other(number, begin, end, out)
        except _NONSENSE as error:
            raise _senseless(error) from error

    def _read_prices(self, begin: int, end: int, out: Mapping[int, Floats]) -> None:
        """Decode some of open, high, low and close, without a temporary array too many."""
        streams, at, rows = self._streams, self._groups[0], self.rows
        jumps = streams[at]
        if jumps.kind in _FLOATS:
            for number, column in out.items():
                _read_raw(streams[at + number], rows, begin, end, column)
            return
        jump, body = _read_ints(jumps, rows, 0, end), _read_ints(streams[at + 3], rows, 0, end)
        # Whole numbers to the end: exact in floats too, and one division gives the float that was.
        close = np.add(jump[begin:], body[begin:], out=out.get(_CLOSE), dtype=np.float64)
        if 0 < begin < end:
            close[0] += int(np.add.reduce(jump[:begin])) + int(np.add.reduce(body[:begin]))
        np.add.accumulate(close, out=close)
        if out.keys() != {_CLOSE}:
            opened = np.subtract(close, body[begin:], out=out.get(_OPEN))
        if _HIGH in out:
            high = np.maximum(opened, close, out=out[_HIGH])
            high += _read_ints(streams[at + 1], rows, begin, end)
        if _LOW in out:
            low = np.minimum(opened, close, out=out[_LOW])
            low -= _read_ints(streams[at + 2], rows, begin, end)
        power, mended = _POWERS[jumps.exponent], streams.are_nothing(at + _PRICES)
        for number, column in out.items():
            column /= power
            if not mended:
                self._mend(at + _PRICES, (number, _PRICES), begin, end, column)

    def _read_other(self, number: int, begin: int, end: int, out: Floats) -> None:
        at = self._groups[number - _PRICES + 1]
        whole = self._streams[at]
        if whole.kind in _FLOATS:
            _read_raw(whole, self.rows, begin, end, out)
            return
        np.divide(_read_ints(whole, self.rows, begin, end), _POWERS[whole.exponent], out=out)
        if not self._streams.are_nothing(at + 1):
            self._mend(at + 1, (0, 1), begin, end, out)

    def _mend(self, at: int, place: tuple[int, int], begin: int, end: int, out: Floats) -> None:
        """Put back what decimals alone do not tell, by the two streams from `at` on.

        `place` says which column of its group `out` is, and how many there are.
        """
        ulps, odd, (number, columns) = self._streams[at], self._streams[at + 1], place
        skipped, rows = number * self.rows, columns * self.rows
        if ulps.kind != _Kind.EQUAL or ulps.base:
            bits = _bits(out)
            bits += _read_ints(ulps, rows, skipped + begin, skipped + end)
        if odd.kind != _Kind.ODD or len(odd.body) % 12:
            raise UnreadableError("a chunk's odd values are missing")
        count = len(odd.body) // 12
        if count:
            at_row = np.frombuffer(odd.body, "<u4", count)
            if int(at_row.max()) >= rows:
                raise UnreadableError("a chunk has odd values after its end")
            here = (at_row >= skipped + begin) & (at_row < skipped + end)
            odd_bits = np.frombuffer(odd.body, "<i8", count, offset=4 * count)
            _bits(out)[at_row[here] - (skipped + begin)] = odd_bits[here]


_NONSENSE = (ValueError, IndexError, OverflowError, TypeError, struct.error)
"""What numpy and Python raise of numbers that do not make sense."""


def _senseless(error: Exception) -> UnreadableError:
    return UnreadableError(f"a chunk does not make sense ({error})")


_NOTHING = [(_Kind.EQUAL, 0, 0, 0, 0), (_Kind.ODD, 0, 0, 0, 0)]


@dataclass(frozen=True, slots=True)
class _Streams:
    """The streams of a chunk, each made when it is asked for: most questions are about a few."""

    _described: Sequence[tuple[int, int, int, int, int]]
    _begins: Sequence[int]
    _view: memoryview

    @classmethod
    def cut(cls, view: memoryview, count: int) -> _Streams:
        """Cut a chunk; the lengths of its streams must add up to its own."""
        begin = _HEAD.size + count * _STREAM.size
        described = list(_STREAM.iter_unpack(view[_HEAD.size : begin]))
        begins = list(accumulate((one[3] for one in described), initial=begin))
        if begins[-1] != len(view) - _CRC.size:
            raise UnreadableError("a chunk's streams do not fit into it")
        return cls(described, begins, view)

    def __len__(self) -> int:
        return len(self._described)

    def __getitem__(self, at: int) -> _Stream:
        kind, width, exponent, length, base = self._described[at]
        begin = self._begins[at]
        return _Stream(kind, width, exponent, base, self._view[begin : begin + length])

    def kind(self, at: int) -> int:
        return self._described[at][0]

    def are_nothing(self, at: int) -> bool:
        """Tell of the two streams from `at` on that they say: all values are their decimals."""
        return self._described[at : at + 2] == _NOTHING


def _grouped(streams: _Streams, width: int) -> tuple[int, ...]:
    """Tell where the streams of each column begin; there must be neither too few nor too many."""
    begins, at = [], 1
    for number in range(1 + width - _PRICES):
        begins.append(at)
        raw = streams.kind(at) in _FLOATS
        at += (1 if raw else 3) if number else (_PRICES if raw else _PRICES + 2)
    if at != len(streams):
        raise UnreadableError("a chunk has the wrong number of streams for its columns")
    return tuple(begins)


def _read_times(steps: _Stream, first: int, rows: int) -> Ints:
    times = np.empty(rows, np.int64)
    times[0] = first
    np.cumsum(_read_ints(steps, rows - 1, 0, rows - 1), out=times[1:])
    times[1:] += first
    if not (times[1:] > times[:-1]).all():
        raise UnreadableError("a chunk's open times do not increase")
    return times


def _read_ints(stream: _Stream, rows: int, begin: int, end: int) -> NDArray[Any]:
    """Decode values ``[begin, end)`` of the `rows` in a stream, as narrow as they are kept."""
    if stream.kind == _Kind.EQUAL:
        return np.full(end - begin, stream.base, np.int64)
    unsigned = _unpack(stream, rows)[begin:end]
    if stream.kind == _Kind.FRAMED:
        if stream.base or stream.width == 8:
            return unsigned.astype(np.int64) + stream.base
        return unsigned
    if stream.kind != _Kind.ZIGZAG:
        raise UnreadableError("a chunk has floats where integers belong")
    signs = unsigned & 1
    np.negative(signs, out=signs)  # all bits set where the value is negative
    unsigned >>= 1
    unsigned ^= signs
    return unsigned.view(_SIGNED[stream.width])


def _read_raw(stream: _Stream, rows: int, begin: int, end: int, column: Floats) -> None:
    if stream.kind == _Kind.SAME:
        _bits(column)[:] = stream.base
    elif stream.kind == _Kind.RAW:
        _bits(column)[:] = _unpack(stream, rows)[begin:end].view(np.int64)
    else:
        raise UnreadableError("a chunk has integers where floats belong")


def _unpack(stream: _Stream, rows: int) -> NDArray[Any]:
    item = _UNSIGNED.get(stream.width)
    if item is None:
        raise UnreadableError(f"a chunk has integers of {stream.width} bytes")
    unpacked = np.empty(rows, item)
    blosc.decompress_array(stream.body, unpacked)
    return unpacked
