r"""What the `sqlite` store keeps per symbol beside its chunks, and how history is cut into chunks.

Pure. A *record* holds a symbol's coverage, its newest few candles as they came (the tail), and
where all others are: segments, each the chunk of one stretch of time, disjoint and in order. A
finished period is one segment; while a fetch runs, each page is a segment of its own.

Layout of a record, all integers little-endian::

    head      version u8 · columns u8 · spans u32 · segments u32 · tail rows u32 · revisions u32
              · candles u64 · first open time i64 · last open time i64 (both 0 without candles)
    spans     start i64 · end i64 · asked_ms i64 · served u8 (see `_SERVED`)
    segments  first open time i64 · last open time i64 · rows u32 · chunk id i64
    tail      open time i64 · float64 per column, row after row
    end       crc32 u32 of all before it, begun with the crc32 of the record's name
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from operator import lt, sub
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from zlib_ng.zlib_ng import crc32

from backtester.data.candles import COLUMNS, EXTRAS, Answer, Candles, Revision, alike
from backtester.data.model import Coverage, Interval, Served, Span, Timeframe
from backtester.data.storage.pickles import UnreadableError
from backtester.data.storage.store import SymbolSummary

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Record",
    "Segment",
    "appended",
    "cut",
    "disjoint",
    "firsts",
    "grown",
    "in_the_way",
    "joined",
    "lengthened",
    "period_name",
    "period_of",
    "read_record",
    "read_revisions",
    "read_summary",
    "tail_of",
    "write_record",
    "write_revisions",
]

_VERSION = 1
_WIDTH = len(COLUMNS)
_HEAD = struct.Struct("<BBIIIIQqq")
_SPAN = struct.Struct("<qqqB")
_SEGMENT = struct.Struct("<qqIq")
_CRC = struct.Struct("<I")
_REVISION = struct.Struct(f"<q{_WIDTH}d{_WIDTH}dqq")

_SERVED = (
    Served.MARKET,
    Served.NOT_LISTED,
    Served.DELISTED,
    Served.BEYOND_DEPTH,
    Served.NOT_SERVED,
    Served.GIVEN,
)
"""The number of each meaning in a file; only ever added to."""
_NO_CANDLES = Candles.empty()
_NUMBERS = {served: number for number, served in enumerate(_SERVED)}


class Segment(NamedTuple):
    """A stretch of candles that stands in one chunk."""

    first: int
    """Open time of its first candle, UTC epoch milliseconds."""
    last: int
    """Open time of its last candle."""
    rows: int
    chunk: int
    """The chunk's id, never used again for another."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What is kept of one symbol, its chunks' contents apart."""

    coverage: Coverage = field(default_factory=Coverage)
    segments: tuple[Segment, ...] = ()
    """Disjoint and in order."""
    tail: bytes = b""
    """The newest candles, all later than those in segments; see `tail_of`."""
    columns: int = _WIDTH
    """How many columns the rows of the tail have."""
    candles: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    revisions: int = 0
    """How many revisions are kept beside."""

    @property
    def tail_rows(self) -> int:
        return len(self.tail) // _row(self.columns).itemsize

    def tail_candles(self) -> Candles:
        """Give the tail as a table."""
        if not self.tail:
            return _NO_CANDLES
        rows = np.frombuffer(self.tail, _row(self.columns))
        return Candles(rows["time"].astype(np.int64), rows["values"].astype(np.float64))

    def tail_within(self, interval: Interval | None) -> Candles:
        """Give the candles of the tail that open inside `interval`; None for all."""
        tail = self.tail_candles()
        if interval is None or not len(tail):
            return tail
        whole = interval.start <= tail.open_time[0] and tail.open_time[-1] < interval.end
        return tail if whole else tail.within(interval)

    def among(self, interval: Interval | None) -> list[Segment]:
        """Give the segments that may have candles inside `interval`; None for all."""
        if interval is None:
            return list(self.segments)
        start, end = interval.start, interval.end
        return [one for one in self.segments if one.last >= start and one.first < end]

    def loose(self, timeframe: Timeframe) -> bool:
        """Tell whether a period stands in more than one segment."""
        periods = period_of(timeframe, firsts(self.segments))
        return bool((periods[1:] == periods[:-1]).any())


@lru_cache(maxsize=8)
def _row(columns: int) -> np.dtype[Any]:
    return np.dtype([("time", "<i8"), ("values", "<f8", (columns,))])


def tail_of(candles: Candles) -> bytes:
    """Write candles as the rows of a tail."""
    rows = np.empty(len(candles), _row(candles.values.shape[1]))
    rows["time"], rows["values"] = candles.open_time, candles.values
    return rows.tobytes()


# --------------------------------------------------------------------------- periods


_DAY_MS = 86_400_000


def period_of(timeframe: Timeframe, times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the period each open time belongs to; a period is one chunk when it is finished.

    Days for steps below a minute, months below a quarter of an hour, years below four hours,
    else decades: 365 to 86,400 rows, mostly 8,760 to 43,200, where neither decoding too much
    nor decoding too often costs (measured: `docs/decisions`).
    """
    step = timeframe.typical_ms
    if step < 60_000:
        return times // _DAY_MS
    months = times.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
    if step < 900_000:
        return months
    return months // (12 if step < 14_400_000 else 120)


def period_name(timeframe: Timeframe, ms: int) -> str:
    """Name the period an open time belongs to.

    >>> period_name(Timeframe.parse("1m"), 0), period_name(Timeframe.parse("1h"), 0)
    ('1970-01', '1970')
    """
    day = str(np.datetime64(ms, "ms").astype("datetime64[D]"))
    step = timeframe.typical_ms
    if step < 900_000:
        return day if step < 60_000 else day[:7]
    return day[:-6] if step < 14_400_000 else f"{day[:-7]}0s"


def cut(candles: Candles, timeframe: Timeframe) -> list[Candles]:
    """Cut a table where its periods end, without copying."""
    if not len(candles):
        return []
    periods = period_of(timeframe, candles.open_time)
    edges = [0, *(np.flatnonzero(np.diff(periods)) + 1).tolist(), len(candles)]
    return [Candles(candles.open_time[a:b], candles.values[a:b]) for a, b in pairwise(edges)]


# --------------------------------------------------------------------------- tables


def joined(tables: Sequence[Candles]) -> Candles:
    """Join disjoint tables in order of time, column after column in memory."""
    tables = sorted((t for t in tables if len(t)), key=lambda table: int(table.open_time[0]))
    if len(tables) <= 1:
        return tables[0] if tables else Candles.empty()
    tables = alike(tables)
    rows = sum(map(len, tables))
    times = np.empty(rows, np.int64)
    values = np.empty((tables[0].values.shape[1], rows))
    at = 0
    for table in tables:
        times[at : at + len(table)] = table.open_time
        values[:, at : at + len(table)] = table.values.T
        at += len(table)
    return Candles(times, values.T)


def disjoint(pieces: Sequence[Candles]) -> list[Candles] | None:
    """Put tables in order; None where two of them overlap."""
    ordered = sorted(pieces, key=lambda piece: int(piece.open_time[0]))
    if any(a.open_time[-1] >= b.open_time[0] for a, b in pairwise(ordered)):
        return None
    return ordered


def in_the_way(record: Record, pieces: Sequence[Candles]) -> bool:
    """Tell whether a segment or the tail overlaps one of the pieces."""
    taken = [(segment.first, segment.last) for segment in record.segments]
    if record.tail:
        tail = record.tail_candles().open_time
        taken.append((int(tail[0]), int(tail[-1])))
    firsts = np.array([first for first, _ in taken], np.int64)
    lasts = np.array([last for _, last in taken], np.int64)
    for piece in pieces:
        # Both are sorted: the first that ends at or after the piece's begin must begin after it.
        at = int(np.searchsorted(lasts, piece.open_time[0]))
        if at < len(taken) and firsts[at] <= piece.open_time[-1]:
            return True
    return False


def appended(record: Record, answers: Sequence[Answer]) -> Candles | None:
    """Give the candles of answers if all are new and newer than what is stored, else None.

    An update asks for the last stored candle once more: the same again is nothing new.
    """
    tables: list[Candles] = []
    last = record.last_ms
    for one in answers:
        table = one.candles
        if not len(table):
            continue
        if last is not None and int(table.open_time[0]) <= last:
            begin = Candles(table.open_time[:1], table.values[:1])
            if not record.tail or tables or not record.tail.endswith(tail_of(begin)):
                return None
            table = Candles(table.open_time[1:], table.values[1:])
            if not len(table):
                continue
        tables.append(table)
        last = int(table.open_time[-1])
    return joined(tables)


def grown(record: Record, table: Candles) -> Record:
    """Count a table's candles in."""
    if not len(table):
        return record
    first, last = int(table.open_time[0]), int(table.open_time[-1])
    return replace(
        record,
        candles=record.candles + len(table),
        first_ms=first if record.first_ms is None else min(first, record.first_ms),
        last_ms=last if record.last_ms is None else max(last, record.last_ms),
    )


def lengthened(record: Record, newer: Candles, coverage: Coverage) -> Record:
    """Put newer candles behind the tail, which were answered as `coverage` says."""
    if not len(newer):
        return replace(record, coverage=coverage)
    first, last = int(newer.open_time[0]), int(newer.open_time[-1])
    return replace(
        record,
        coverage=coverage,
        tail=record.tail + tail_of(newer),
        columns=newer.values.shape[1],
        candles=record.candles + len(newer),
        first_ms=first if record.first_ms is None else record.first_ms,
        last_ms=last,
    )


def firsts(segments: Sequence[Segment]) -> NDArray[np.int64]:
    """List where segments begin, int64 (n,)."""
    return np.array([segment.first for segment in segments], np.int64)


# --------------------------------------------------------------------------- bytes


def write_record(record: Record, name: bytes) -> bytes:
    """Write a record so that it can only be read under this name: its dataset's and symbol's."""
    parts = [
        _HEAD.pack(
            _VERSION, record.columns, len(record.coverage.spans), len(record.segments),
            record.tail_rows, record.revisions, record.candles, record.first_ms or 0,
            record.last_ms or 0,
        )
    ]  # fmt: skip
    parts += (_SPAN.pack(s.start, s.end, s.asked_ms, _NUMBERS[s.served]) for s in record.coverage)
    parts += (_SEGMENT.pack(s.first, s.last, s.rows, s.chunk) for s in record.segments)
    parts.append(record.tail)
    return _sealed(b"".join(parts), name)


def read_record(data: bytes, name: bytes) -> Record:
    """Read a record back, trusting nothing in it.

    Raises
    ------
    UnreadableError
        It is damaged, of another name, of a later version, or contradicts itself.
    """
    _unseal(data, name)
    try:
        _, columns, spans, segments, rows, revisions, candles, first, last = _head(data)
        at = _HEAD.size
        end = at + spans * _SPAN.size
        covered = tuple(_span(*row) for row in _SPAN.iter_unpack(data[at:end]))
        at, end = end, end + segments * _SEGMENT.size
        held = tuple(map(Segment._make, _SEGMENT.iter_unpack(data[at:end])))
    except (struct.error, IndexError, ValueError) as error:
        raise UnreadableError(f"its record does not make sense ({error})") from error
    if len(data) != end + rows * _row(columns).itemsize + _CRC.size:
        raise UnreadableError("its record does not have the length it states")
    tail = data[end : -_CRC.size]
    record = Record(Coverage(covered), held, tail, columns, candles, first, last, revisions)
    if not _consistent(record, (candles, first, last)):
        raise UnreadableError("its record contradicts itself")
    return record if candles else replace(record, first_ms=None, last_ms=None)


def _consistent(record: Record, totals: tuple[int, int, int]) -> bool:
    """Tell whether all is in order and adds up, as in every record that we write."""
    spans, segments = record.coverage.spans, record.segments
    begins = [segment.first for segment in segments]
    ends = [segment.last for segment in segments]
    counts = [segment.rows for segment in segments]
    most = map(sub, ends, begins)
    if not all(0 < rows <= span + 1 for rows, span in zip(counts, most, strict=True)):
        return False
    if record.tail:
        times = np.frombuffer(record.tail, "<i8")[:: 1 + record.columns]
        if not (times[1:] > times[:-1]).all():
            return False
        counts.append(len(times))
        begins.append(int(times[0]))
        ends.append(int(times[-1]))
    return (
        totals == (sum(counts), begins[0] if begins else 0, ends[-1] if ends else 0)
        and all(map(lt, ends, begins[1:]))
        and all(one.end <= other.start for one, other in pairwise(spans))
    )


def read_summary(data: bytes, name: bytes) -> SymbolSummary:
    """Read of a record what a summary tells; errors as in `read_record`."""
    _unseal(data, name)
    *_, candles, first, last = _head(data)
    return SymbolSummary(candles, first, last) if candles else SymbolSummary(0, None, None)


def write_revisions(revisions: Iterable[Revision], name: bytes) -> bytes:
    """Write revisions: open time, old and new values, and when each was answered."""
    rows = (
        _REVISION.pack(r.open_time, *r.old, *r.new, r.old_asked_ms, r.new_asked_ms)
        for r in revisions
    )
    return _sealed(b"".join(rows), name)


def read_revisions(data: bytes, name: bytes) -> tuple[Revision, ...]:
    """Read revisions back; errors as in `read_record`."""
    _unseal(data, name)
    if (len(data) - _CRC.size) % _REVISION.size:
        raise UnreadableError("its revisions are cut short")
    return tuple(
        Revision(row[0], row[1 : 1 + _WIDTH], row[1 + _WIDTH : -2], row[-2], row[-1])
        for row in _REVISION.iter_unpack(data[: -_CRC.size])
    )


def _head(data: bytes) -> Sequence[int]:
    if len(data) < _HEAD.size + _CRC.size:
        raise UnreadableError("its record is cut short")
    if data[0] != _VERSION:
        raise UnreadableError(f"its record has version {data[0]}; this package reads {_VERSION}")
    head = _HEAD.unpack_from(data)
    if not _WIDTH <= head[1] <= _WIDTH + len(EXTRAS):
        raise UnreadableError(f"its record has {head[1]} columns")
    return head


def _span(start: int, end: int, asked_ms: int, served: int) -> Span:
    if start >= end:
        raise ValueError("an empty span")
    return Span(start, end, _SERVED[served], asked_ms)


def _sealed(data: bytes, name: bytes) -> bytes:
    return data + _CRC.pack(crc32(data, crc32(name)))


def _unseal(data: bytes, name: bytes) -> None:
    if len(data) < _CRC.size:
        raise UnreadableError("its record is cut short")
    view = memoryview(data)
    if crc32(view[: -_CRC.size], crc32(name)) != _CRC.unpack(view[-_CRC.size :])[0]:
        raise UnreadableError("its record fails its checksum")
