"""The candle codec gives back every bit, and nothing that is not what was encoded."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from backtester.data.storage import codec
from backtester.data.storage.pickles import UnreadableError

MINUTE = 60_000

any_float = st.integers(-(2**63), 2**63 - 1).map(lambda bits: np.array(bits).view(np.float64)[()])
awkward = st.sampled_from([
    np.nan, np.array(0x7FF0_0000_0000_0001).view(np.float64)[()], -np.nan, -0.0, 0.0, 5e-324,
    -5e-324, 2.2250738585072014e-308, 1e300, -1e300, np.inf, -np.inf, 0.1 + 0.2, 2.0**53 + 2, 1e22,
])  # fmt: skip
decimals = st.builds(lambda whole, digits: whole / 10**digits,
                     st.integers(-(10**12), 10**12), st.integers(0, 9))  # fmt: skip
sums = st.lists(decimals, min_size=2, max_size=4).map(sum)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Any, Any]:
    """A table of any columns, decimals with something odd among them, or anything at all."""
    rows, width = draw(st.integers(1, 120)), draw(st.integers(4, 9))
    kind = draw(st.sampled_from([decimals, sums, awkward, any_float, decimals | awkward | sums]))
    values = draw(hnp.arrays(np.float64, (rows, width), elements=kind, fill=kind))
    if draw(st.booleans()):
        times = draw(st.integers(-(2**50), 2**50)) + np.arange(rows) * draw(st.integers(1, 10**9))
    else:
        steps = draw(st.lists(st.integers(1, 2**40), min_size=rows, max_size=rows))
        times = draw(st.integers(-(2**60), 2**60)) + np.cumsum(np.array(steps, np.int64))
    return times.astype(np.int64), values


def same(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    return np.array_equal(one[0], other[0]) and np.array_equal(
        np.ascontiguousarray(one[1]).view(np.int64), np.ascontiguousarray(other[1]).view(np.int64)
    )


@given(tables(), st.binary(max_size=9))
def test_every_bit_comes_back(table: tuple[Any, Any], name: bytes) -> None:
    """NaN payloads, signed zeros, subnormals and sums with rounding noise included."""
    chunk = codec.encode(*table, name)
    assert same(codec.decode(chunk, name), table)


@given(st.data())
def test_any_rows_and_any_column_are_those_of_the_whole(data: st.DataObject) -> None:
    """A part that is decoded alone is, bit for bit, what the whole has there."""
    table = data.draw(tables())
    opened = codec.Chunk.open(codec.encode(*table))
    times, (rows, width) = table[0], table[1].shape
    near = st.integers(0, rows - 1).map(lambda row: int(times[row])) | st.integers(-(2**61), 2**61)
    start = data.draw(near) + data.draw(st.integers(-1, 1))
    end = max(start, data.draw(near) + data.draw(st.integers(-1, 1)))
    begin, behind = opened.window(start, end)
    inside = (start <= times) & (times < end)
    shown = np.empty(behind - begin, np.int64)
    opened.read_times(begin, behind, shown)
    assert np.array_equal(shown, times[inside])
    part = np.empty((width, behind - begin))
    opened.read(begin, behind, part)
    assert same((times, part.T), (times, table[1][inside]))
    for number in range(width):
        column = np.empty(behind - begin)
        opened.read_column(number, begin, behind, column)
        assert same((times, column), (times, table[1][inside, number]))


@given(tables())
def test_a_chunk_is_read_under_its_own_name_only(table: tuple[Any, Any]) -> None:
    """A chunk that landed under another symbol or period is damage, not candles."""
    chunk = codec.encode(*table, b"BTC/USDT 2024")
    with pytest.raises(UnreadableError, match="checksum"):
        codec.decode(chunk, b"ETH/USDT 2024")


@given(st.data())
def test_no_changed_byte_is_read(data: st.DataObject) -> None:
    """Cut short, grown, or with any byte changed, a chunk is refused."""
    chunk = codec.encode(*data.draw(tables()))
    at = data.draw(st.integers(0, len(chunk) - 1))
    changed = bytes([chunk[at] ^ data.draw(st.integers(1, 255))])
    for damaged in (chunk[:at] + changed + chunk[at + 1 :], chunk[:at], chunk + b"\0"):
        with pytest.raises(UnreadableError):
            codec.decode(damaged)


def ohlcv(rows: int) -> tuple[Any, Any]:
    """Make prices of two decimals and volumes of five, as exchanges have them."""
    chance = np.random.default_rng(7)
    close = np.round(20_000 + np.cumsum(chance.normal(0, 10, rows)), 2)
    opened = np.append(close[:1], close[:-1])
    high = np.round(np.maximum(opened, close) + chance.exponential(5, rows), 2)
    low = np.round(np.minimum(opened, close) - chance.exponential(5, rows), 2)
    volume = np.round(chance.exponential(100, rows), 5)
    return np.arange(rows) * MINUTE, np.column_stack([opened, high, low, close, volume])


def test_decimals_take_a_fraction_of_their_floats() -> None:
    """Ticks are found, also where sums are off in the last place and a few are no decimals."""
    times, values = ohlcv(5_000)
    plain = len(codec.encode(times, values))
    assert plain < 0.3 * values.nbytes
    noisy = values.copy()
    noisy[::5, 4] = np.nextafter(noisy[::5, 4], np.inf)
    noisy[77] = np.nan
    noisy[78, 1] = -0.0
    chunk = codec.encode(times, noisy)
    assert same(codec.decode(chunk), (times, noisy))
    assert len(chunk) < 1.2 * plain


def test_a_gap_costs_next_to_nothing() -> None:
    """Open times are kept as steps: regular ones in no space, outages in little."""
    times, values = ohlcv(5_000)
    keep = np.ones(5_000, bool)
    keep[[17, 900]] = keep[2_000:2_300] = False
    whole, gappy = codec.encode(times, values), codec.encode(times[keep], values[keep])
    assert len(gappy) < len(whole) + 100


@pytest.mark.parametrize(("rows", "width"), [(0, 5), (3, 3), (3, 64)])
def test_what_no_chunk_can_hold_is_refused(rows: int, width: int) -> None:
    """Nothing is encoded that decoding would refuse."""
    with pytest.raises(ValueError, match="cannot hold"):
        codec.encode(np.arange(rows), np.zeros((rows, width)))


def test_a_later_version_is_told_apart_from_damage() -> None:
    """An older program says what it lacks."""
    chunk = codec.encode(*ohlcv(3))
    with pytest.raises(UnreadableError, match="version 2"):
        codec.decode(chunk[:3] + b"\2" + chunk[4:])


@pytest.mark.parametrize("rows", [4_999, 5_001])
def test_streams_of_another_length_than_the_table_are_refused(rows: int) -> None:
    """Neither is memory behind a column written, nor is what stood in it before believed."""
    chunk = codec.encode(*ohlcv(5_000))
    claimed = chunk[:4] + rows.to_bytes(4, "little") + chunk[8:-4]
    with pytest.raises(UnreadableError, match="does not have the expected size"):
        codec.decode(claimed + zlib.crc32(claimed, zlib.crc32(b"")).to_bytes(4, "little"))
