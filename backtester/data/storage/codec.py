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
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from backtester.data.storage import blosc
from backtester.data.storage.pickles import UnreadableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

__all__ = ["MOST_ROWS", "VERSION", "decode", "encode"]

VERSION = 1
MOST_ROWS = 1 << 20
"""The most rows of a chunk; a damaged or hostile head must not make us allocate more."""

_MAGIC = b"VBC"
_HEAD = struct.Struct("<3sBIBBq")
_STREAM = struct.Struct("<BBBxIq")
_CRC = struct.Struct("<I")
_PRICES = 4
"""Open, high, low and close stand first and are one group."""

_MOST_EXPONENT = 15
_MOST_TICKS = 2.0**50
"""Beyond, a tick says no less than the float's own bits."""
_MOST_ULPS = 127
_MOST_ODD = 1 / 64
"""Share of values that are no decimals, above which raw floats are smaller and faster."""
_SAMPLE = 256
_POWERS = 10.0 ** np.arange(_MOST_EXPONENT + 1)  # exact up to 10^22
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


@dataclass(frozen=True, slots=True)
class _Stream:
    kind: _Kind
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
    return data + _CRC.pack(zlib.crc32(data, zlib.crc32(name)))


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
    whole: Ints
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
            whole, ulps, fits = _measured(values, exponent)
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
    for exponent in range(_MOST_EXPONENT + 1):
        fits = _measured(finite, exponent)[2]
        if fits.mean() >= 1 - _MOST_ODD:
            return exponent
    return None


def _measured(values: Floats, exponent: int) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Give ticks, differences in the last place, and which values these describe exactly."""
    power = _POWERS[exponent]
    with np.errstate(over="ignore", invalid="ignore"):
        near = np.rint(values * power) + 0.0  # -0.0 is no decimal
        fits = np.abs(near) < _MOST_TICKS  # NaN compares false
        if not fits.all():
            near = np.where(fits, near, 0.0)
        ulps = _bits(values) - _bits(near / power)  # may wrap around, and then does not fit
    fits &= (ulps <= _MOST_ULPS) & (ulps >= -_MOST_ULPS)
    return near.astype(np.int64), ulps, fits


def _without(whole: Ints, ulps: Ints, odd_at: Ints) -> tuple[Ints, Ints]:
    """Let odd values repeat the one before, which costs nothing to keep."""
    if len(odd_at):
        at = np.arange(len(whole))
        at[odd_at] = 0
        whole = whole[np.maximum.accumulate(at)]
        ulps[odd_at] = 0
    return whole, ulps


def _ints(values: Ints, exponent: int = 0) -> _Stream:
    if len(values) == 0:
        return _Stream(_Kind.EQUAL, exponent=exponent)
    low, high = int(values.min()), int(values.max())
    if low == high:
        return _Stream(_Kind.EQUAL, exponent=exponent, base=low)
    if low >= 0:
        kind, base, width = _Kind.FRAMED, low, _width(high - low)
        unsigned = (values - low).astype(_UNSIGNED[width])
    else:
        kind, base, width = _Kind.ZIGZAG, 0, _width(2 * max(high, -low))
        unsigned = ((values << 1) ^ (values >> 63)).astype(_UNSIGNED[width])
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
    """Decode a chunk, trusting nothing in it.

    Returns
    -------
    (int64 (n,), float64 (n, k))
        As they were encoded; the values stand column after column in memory.

    Raises
    ------
    UnreadableError
        It is damaged, of another name, of a later version, or not a chunk.
    """
    if len(chunk) < _HEAD.size + _CRC.size:
        raise UnreadableError("a chunk is cut short")
    magic, version, rows, width, count, first = _HEAD.unpack_from(chunk)
    if magic != _MAGIC:
        raise UnreadableError("it is not a chunk of candles")
    if version != VERSION:
        raise UnreadableError(f"a chunk is of version {version}; this one reads {VERSION}")
    view = memoryview(chunk)
    (checksum,) = _CRC.unpack_from(chunk, len(chunk) - _CRC.size)
    if zlib.crc32(view[: -_CRC.size], zlib.crc32(name)) != checksum:
        raise UnreadableError("a chunk fails its checksum")
    if not 1 <= rows <= MOST_ROWS or not _PRICES <= width < 64:
        raise UnreadableError(f"a chunk claims {rows} rows of {width} columns")
    try:
        streams = _split(view, count)
        times = _read_times(next(streams), first, rows)
        table = np.empty((width, rows))
        _read_prices(streams, table[:_PRICES])
        for column in table[_PRICES:]:
            _read_column(streams, column)
        if next(streams, None) is not None:
            raise UnreadableError("a chunk has more streams than columns")
    except (StopIteration, ValueError, IndexError, OverflowError) as error:
        raise UnreadableError(f"a chunk does not make sense ({error})") from error
    return times, table.T


def _split(view: memoryview, count: int) -> Iterator[_Stream]:
    """Yield the streams; their lengths must add up to the chunk's."""
    described = [_STREAM.unpack_from(view, _HEAD.size + i * _STREAM.size) for i in range(count)]
    at = _HEAD.size + count * _STREAM.size
    for kind, width, exponent, length, base in described:
        if at + length > len(view) - _CRC.size or exponent > _MOST_EXPONENT:
            raise UnreadableError("a chunk's streams do not fit into it")
        yield _Stream(_Kind(kind), width, exponent, base, view[at : at + length])
        at += length
    if at != len(view) - _CRC.size:
        raise UnreadableError("a chunk has something behind its streams")


def _read_times(steps: _Stream, first: int, rows: int) -> Ints:
    if steps.kind is _Kind.EQUAL:
        last = first + steps.base * (rows - 1)
        if (rows > 1 and steps.base <= 0) or last >= 2**63:
            raise UnreadableError("a chunk's open times do not increase")
        return np.arange(rows) * steps.base + first
    times = np.empty(rows, np.int64)
    times[0] = first
    np.cumsum(_read_ints(steps, rows - 1), out=times[1:])
    times[1:] += first
    if not (times[1:] > times[:-1]).all():
        raise UnreadableError("a chunk's open times do not increase")
    return times


def _read_prices(streams: Iterator[_Stream], table: Floats) -> None:
    stream = next(streams)
    rows = table.shape[1]
    if stream.kind in _FLOATS:
        _read_raw(stream, table[0])
        for column in table[1:]:
            _read_raw(next(streams), column)
        return
    jump, above, below, body = (
        _read_ints(one, rows) for one in (stream, next(streams), next(streams), next(streams))
    )
    # As floats: exact for ticks, and divided without another conversion.
    close = np.cumsum(np.add(jump, body, dtype=np.float64))
    opened = close - body
    high = np.maximum(opened, close) + above
    low = np.minimum(opened, close) - below
    power = _POWERS[stream.exponent]
    for column, ticks in zip(table, (opened, high, low, close), strict=True):
        np.divide(ticks, power, out=column)
    _mend(streams, table.reshape(-1))


def _read_column(streams: Iterator[_Stream], column: Floats) -> None:
    stream = next(streams)
    if stream.kind in _FLOATS:
        _read_raw(stream, column)
        return
    np.divide(_read_ints(stream, len(column)), _POWERS[stream.exponent], out=column)
    _mend(streams, column)


def _mend(streams: Iterator[_Stream], values: Floats) -> None:
    """Put back what decimals alone do not tell."""
    ulps, odd = next(streams), next(streams)
    if ulps.kind is not _Kind.EQUAL or ulps.base:
        _bits(values)[:] += _read_ints(ulps, len(values))
    if odd.kind is not _Kind.ODD or len(odd.body) % 12:
        raise UnreadableError("a chunk's odd values are missing")
    count = len(odd.body) // 12
    if count:
        positions = np.frombuffer(odd.body, "<u4", count)
        _bits(values)[positions] = np.frombuffer(odd.body, "<i8", count, offset=4 * count)


def _read_ints(stream: _Stream, rows: int) -> Ints:
    if stream.kind is _Kind.EQUAL:
        return np.full(rows, stream.base, np.int64)
    unsigned = _unpack(stream, rows)
    if stream.kind is _Kind.FRAMED:
        return unsigned.astype(np.int64) + stream.base if stream.base else unsigned
    if stream.kind is not _Kind.ZIGZAG:
        raise UnreadableError("a chunk has floats where integers belong")
    signs = -(unsigned & 1)  # all bits set where the value is negative
    return (unsigned >> 1 ^ signs).view(_SIGNED[stream.width])


def _read_raw(stream: _Stream, column: Floats) -> None:
    if stream.kind not in _FLOATS:
        raise UnreadableError("a chunk has integers where floats belong")
    same = stream.kind is _Kind.SAME
    _bits(column)[:] = stream.base if same else _unpack(stream, len(column)).view(np.int64)


def _unpack(stream: _Stream, rows: int) -> NDArray[Any]:
    item = _UNSIGNED.get(stream.width)
    if item is None:
        raise UnreadableError(f"a chunk has integers of {stream.width} bytes")
    raw = blosc.decompress(stream.body)
    if len(raw) != rows * stream.width:
        raise UnreadableError("a chunk's streams are of different lengths")
    return np.frombuffer(raw, item)
