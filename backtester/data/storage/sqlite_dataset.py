"""Reading one dataset inside a transaction of its SQLite file; see `sqlite_file` for the format."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import orjson

from backtester.data.candles import COLUMNS, EXTRAS, Candles, Revision, Series
from backtester.data.errors import CorruptDatasetError
from backtester.data.model import DatasetKey, Interval, Timeframe
from backtester.data.storage import codec, plain, records
from backtester.data.storage.memo import Memo, is_in_passing
from backtester.data.storage.pickles import UnreadableError
from backtester.data.storage.records import (
    Record,
    Segment,
    period_of,
)
from backtester.data.storage.sqlite_schema import (
    APPLICATION,
    FORMAT,
    IDENTITY,
    NOTES,
    SCHEMA,
    SEQUENCES,
    corrupt,
    is_damage,
    is_identity,
    name_sum,
)
from backtester.data.storage.store import Dataset, SymbolSummary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from backtester.data.storage.store import Column

__all__ = ["SqliteDataset"]

T = TypeVar("T")

_MANY = 16
"""From so many symbols on, one query for all of them takes less than one for each."""
_MEMO_BYTES = 256 << 20
_HARMLESS_BYTES, _MOST_RATIO = 1 << 30, 1_000
"""A file that unpacks to more than the first, and to so many times its own size, is a bomb. A
market whose price never moves shrinks as much for a while, real ones 5 to 20 times."""
_ROW_BYTES = 8 * (1 + len(COLUMNS))

_memo: Memo[Series] = Memo(_MEMO_BYTES)
"""Series as read, by file, symbol and interval; of the version that the record's bytes are."""


class _Part(NamedTuple):
    """Rows ``[begin, end)`` of a chunk that stands where a segment says."""

    segment: Segment
    chunk: codec.Chunk
    begin: int
    end: int

    @property
    def rows(self) -> int:
        return self.end - self.begin

    def read(self, out: NDArray[np.float64]) -> None:
        """Decode into a table (k, n), which may be wider than the chunk."""
        self.chunk.read(self.begin, self.end, out[: self.chunk.width])
        out[self.chunk.width :] = np.nan

    def read_column(self, number: int, out: NDArray[np.float64]) -> None:
        if number < self.chunk.width:
            self.chunk.read_column(number, self.begin, self.end, out)
        else:
            out[:] = np.nan


@dataclass(frozen=True, slots=True)
class _Opened:
    """What candles of a symbol are asked for, not decoded yet."""

    parts: Sequence[_Part]
    tail: Candles = field(default_factory=Candles.empty)
    """Newer than all parts."""

    @property
    def decoded_rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def rows(self) -> int:
        return self.decoded_rows + len(self.tail)

    @property
    def width(self) -> int:
        """How many columns the widest part has."""
        widest: int = self.tail.values.shape[1]
        return max([widest, *(part.chunk.width for part in self.parts)])

    @property
    def grid(self) -> object:
        """Give a key that is equal to another's where the open times of both are the same."""
        parts = (part.chunk.grid(part.begin, part.end) for part in self.parts)
        return (*parts, self.tail.open_time.tobytes())

    def times(self) -> NDArray[np.int64]:
        times = np.empty(self.rows, np.int64)
        at = 0
        for part in self.parts:
            part.chunk.read_times(part.begin, part.end, times[at : at + part.rows])
            at += part.rows
        times[at:] = self.tail.open_time
        return times


class SqliteDataset:
    """One dataset inside a transaction.

    Parameters
    ----------
    connection : sqlite3.Connection
    key : DatasetKey
    path : Path
        For errors to name.
    salvage : bool
        Do without what the file says of itself as a whole, where that is damaged.
    """

    def __init__(
        self, connection: sqlite3.Connection, key: DatasetKey, path: Path, *, salvage: bool = False
    ) -> None:
        self._execute = connection.execute
        self._key = key
        self._stem = key.stem
        self._path = path
        self._check_form()
        identity = self._read_identity(salvage=salvage)
        self._id: str = identity["id"]
        self._count: int = identity["symbols"]
        self._names: int = identity["names"]
        self._position: int = identity["position"]
        self._notes: int = identity["notes"]
        self._complete = False
        """Whether `_check_names` has found all symbols there."""
        self._unpacked = 0
        """How many bytes of candles were read so far."""

    # ------------------------------------------------------------------ reading

    def dataset(
        self, symbols: Sequence[str] | None, within: Interval | None, *, salvage: bool
    ) -> Dataset:
        """Read a dataset or a part of it; see `Store.read`."""
        series: dict[str, Series] = {}
        for symbol, data in self._records(symbols, salvage=salvage):
            name = (self._path, self._id, symbol, within)
            known = _memo.get(name, data)
            if known is None:
                try:
                    known = self._series(symbol, data, within, salvage=salvage)
                except CorruptDatasetError:
                    if salvage:
                        continue
                    raise
                if not salvage and not (within and is_in_passing()):
                    size = known.candles.open_time.nbytes + known.candles.values.nbytes
                    _memo.put(name, data, known, size + len(data))
            series[symbol] = known
        return Dataset(self._key, series, self._read_notes(salvage=salvage))

    def held(self, symbols: Sequence[str] | None, *, salvage: bool) -> dict[str, SymbolSummary]:
        """Tell what is held; see `Store.held`."""
        held = {}
        for symbol, data in self._records(symbols, salvage=salvage):
            try:
                held[symbol] = records.read_summary(data, self._name(symbol))
            except UnreadableError as error:
                if not salvage:
                    raise self._damaged(str(error), symbol) from error
        return held

    def _records(
        self, symbols: Sequence[str] | None, *, salvage: bool
    ) -> Iterator[tuple[str, bytes]]:
        """Yield the bytes of records, of those that there are."""
        if symbols is None and salvage:
            yield from self._sound_records()
        elif symbols is None:
            self._check_names()
            query = "SELECT symbol, record FROM series ORDER BY position"
            for symbol, data in self._execute(query):
                yield symbol, self._blob(data, symbol)
        else:
            found = {} if salvage else self._many_records(symbols)
            for symbol in symbols:
                try:
                    data = found.get(symbol) or self._record(symbol, salvage=salvage)
                except CorruptDatasetError:
                    if not salvage:
                        raise
                    continue
                if data is not None:
                    yield symbol, data

    def _sound_records(self) -> Iterator[tuple[str, bytes]]:
        """Yield the records that can be reached from either end of a damaged table."""
        seen: dict[str, bytes] = {}
        for order in ("ASC", "DESC"):
            last = None
            with suppress(sqlite3.DatabaseError):
                query = f"SELECT symbol, record FROM series ORDER BY symbol {order}"  # noqa: S608
                for symbol, data in self._execute(query):
                    if not isinstance(symbol, str):
                        break
                    if last is not None and (symbol <= last) == (order == "ASC"):
                        break  # a table that leads back into itself
                    last = symbol
                    if isinstance(data, bytes) and symbol not in seen:
                        seen[symbol] = data
                        yield symbol, data
                else:
                    return

    def _many_records(self, symbols: Sequence[str]) -> dict[str, bytes]:
        """Read records by one query, as far as that goes; the rest are looked for one by one."""
        if len(symbols) < _MANY:
            return {}
        query = "SELECT symbol, record FROM series WHERE symbol IN (SELECT value FROM json_each(?))"
        with suppress(sqlite3.DatabaseError):  # whose record it is turns out one by one
            asked = orjson.dumps(list(symbols)).decode()
            return {
                symbol: data
                for symbol, data in self._execute(query, (asked,))
                if isinstance(data, bytes)
            }
        return {}

    def _record(self, symbol: str, *, salvage: bool = False) -> bytes | None:
        row = self._one("SELECT record FROM series WHERE symbol = ?", symbol, symbol)
        if row is not None:
            return self._blob(row[0], symbol)
        if not salvage:
            self._check_names()  # it is not there; is it missing?
        return None

    def _one(
        self, query: str, value: object, symbol: str | None = None, segment: Segment | None = None
    ) -> Any:
        """Ask for one row, None where there is none; damage met is told with where it is."""
        try:
            return self._execute(query, (value,)).fetchone()
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise self._damaged(str(error), symbol, segment) from error
            raise

    def _blob(
        self, value: object, symbol: str | None = None, segment: Segment | None = None
    ) -> bytes:
        """Make sure that a value is bytes: SQLite lets any column hold anything."""
        if not isinstance(value, bytes):
            raise self._damaged("something else stands where bytes belong", symbol, segment)
        return value

    def _check_names(self) -> None:
        """Make sure, once, that no symbol has gone missing or changed its name."""
        if self._complete:
            return
        count = names = size = 0
        last = ""
        # In the table's own order, in which a table that leads back into itself is noticed.
        query = "SELECT symbol, length(record) FROM series NOT INDEXED ORDER BY symbol"
        for symbol, length in self._execute(query):
            if not isinstance(symbol, str) or (count and symbol <= last):
                break
            last = symbol
            count, names, size = count + 1, names + name_sum(symbol), size + (length or 0)
        else:
            if (count, names % 2**32) == (self._count, self._names) and size <= self._bytes():
                self._complete = True
                return
        raise self._damaged(f"it should hold {self._count} symbols and holds others")

    def _bytes(self) -> int:
        pages: int = self._execute("PRAGMA page_count").fetchone()[0]
        size: int = self._execute("PRAGMA page_size").fetchone()[0]
        return pages * size

    def column(
        self, column: str, symbols: Sequence[str] | None, within: Interval | None
    ) -> dict[str, Column]:
        """Read one column; see `Store.read_column`."""
        number = (*COLUMNS, *EXTRAS).index(column)
        grids: dict[object, NDArray[np.int64]] = {}
        found: dict[str, Column] = {}
        for symbol, record in self._records(symbols, salvage=False):
            known = _memo.get((self._path, self._id, symbol, within), record)
            if known is not None:
                found[symbol] = known.candles.open_time, known.candles.column(column)
                continue
            opened = self._open(symbol, record, within)
            values = np.empty(opened.rows)
            self._decode(symbol, opened, values, lambda part, out: part.read_column(number, out))
            values[opened.decoded_rows :] = opened.tail.column(column)
            values.flags.writeable = False
            # Most symbols of a dataset have candles at the same times: these are made once.
            grid = opened.grid
            times = grids.get(grid)
            if times is None:
                times = grids.setdefault(grid, opened.times())
                times.flags.writeable = False
            found[symbol] = times, values
        return found

    def _series(
        self, symbol: str, data: bytes, within: Interval | None, *, salvage: bool
    ) -> Series:
        record = self._parsed(symbol, data)
        coverage, parts = record.coverage, []
        for segment in record.among(within):
            try:
                if salvage:  # so that none fails further down
                    self._chunk(symbol, segment)
                parts.append(self._open_part(symbol, segment, within))
            except CorruptDatasetError:
                if not salvage:
                    raise
                # What it held is asked for again.
                coverage = coverage.remove(self._span(segment))
        candles = self._table(symbol, _Opened(parts, record.tail_within(within)))
        revisions = self._revisions(symbol, record, salvage=salvage)
        if within is not None:
            revisions = tuple(one for one in revisions if one.open_time in within)
        return Series(candles, coverage, revisions)

    def _parsed(self, symbol: str, data: bytes) -> Record:
        try:
            return records.read_record(data, self._name(symbol))
        except UnreadableError as error:
            raise self._damaged(str(error), symbol) from error

    def _chunk(self, symbol: str, segment: Segment) -> Candles:
        return self._table(symbol, _Opened([self._open_part(symbol, segment, None)]))

    def _open(self, symbol: str, data: bytes, within: Interval | None) -> _Opened:
        record = self._parsed(symbol, data)
        parts = [self._open_part(symbol, one, within) for one in record.among(within)]
        return _Opened(parts, record.tail_within(within))

    def _open_part(self, symbol: str, segment: Segment, within: Interval | None) -> _Part:
        chunk = self._opened(symbol, segment)
        if within is None:
            return _Part(segment, chunk, 0, chunk.rows)
        return _Part(segment, chunk, *chunk.window(within.start, within.end))

    def _table(self, symbol: str, opened: _Opened) -> Candles:
        width, decoded, tail = opened.width, opened.decoded_rows, opened.tail
        values = np.empty((width, decoded + len(tail)))
        self._decode(symbol, opened, values, _Part.read)
        if len(tail):
            values[:, decoded:] = tail.widened(width).values.T
        return Candles(opened.times(), values.T)

    def _decode(
        self,
        symbol: str,
        opened: _Opened,
        out: NDArray[np.float64],
        read: Callable[[_Part, Any], None],
    ) -> None:
        """Decode parts one behind the other along the last axis of `out`."""
        at = 0
        for part in opened.parts:
            try:
                read(part, out[..., at : at + part.rows])
            except UnreadableError as error:
                raise self._damaged(str(error), symbol, part.segment) from error
            at += part.rows

    def _opened(self, symbol: str, segment: Segment) -> codec.Chunk:
        row = self._one("SELECT data FROM chunks WHERE id = ?", segment.chunk, symbol, segment)
        if row is None:
            raise self._damaged("a chunk is missing", symbol, segment)
        self._unpacked += segment.rows * _ROW_BYTES
        if self._unpacked > _HARMLESS_BYTES and self._unpacked > _MOST_RATIO * self._bytes():
            raise self._damaged("it claims to hold more than is possible", symbol, segment)
        try:
            data = self._blob(row[0], symbol, segment)
            chunk = codec.Chunk.open(data, self._name(symbol))
        except UnreadableError as error:
            raise self._damaged(str(error), symbol, segment) from error
        found = (chunk.rows, chunk.first, chunk.last)
        known = len(COLUMNS) <= chunk.width <= len(COLUMNS) + len(EXTRAS)
        if found != (segment.rows, segment.first, segment.last) or not known:
            raise self._damaged("a chunk is not the expected one", symbol, segment)
        return chunk

    def _revisions(
        self, symbol: str, record: Record, *, salvage: bool = False
    ) -> tuple[Revision, ...]:
        if not record.revisions:
            return ()
        try:
            row = self._one("SELECT data FROM revisions WHERE symbol = ?", symbol, symbol)
            data = None if row is None else self._blob(row[0], symbol)
            found = () if data is None else records.read_revisions(data, self._name(symbol))
        except (CorruptDatasetError, UnreadableError) as error:
            if salvage:
                return ()
            raise self._damaged(str(error), symbol) from error
        if len(found) != record.revisions and not salvage:
            raise self._damaged("some of its revisions are missing", symbol)
        return found

    def _check_form(self) -> None:
        """Make sure that the tables are ours, and nothing else is there."""
        query = "SELECT sql FROM sqlite_schema WHERE sql NOT NULL LIMIT 9"
        schema = self._execute(query).fetchall()
        application = self._execute("PRAGMA application_id").fetchone()[0]
        version = self._execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION:
            raise self._damaged("it is a SQLite file of another program")
        if version != FORMAT:
            raise self._damaged(f"its format is {version}; this version reads format {FORMAT}")
        # Anything more, such as a trigger, would be run by what we ask.
        if {sql for (sql,) in schema} != {*SCHEMA, SEQUENCES} or len(schema) != len(SCHEMA) + 1:
            raise self._damaged("its tables are not those of a dataset")

    def _read_identity(self, *, salvage: bool) -> dict[str, Any]:
        identity: Any = None
        try:
            data = self._part(IDENTITY)
            with suppress(ValueError):
                identity = None if data is None else orjson.loads(data)
        except CorruptDatasetError:
            if not salvage:
                raise
        if not is_identity(identity):
            if salvage:  # records and chunks say themselves whose they are
                return {"id": "", "symbols": 0, "names": 0, "position": 0, "notes": 0}
            raise self._damaged("it does not say whose candles it holds")
        if identity["dataset"] != self._key.stem:
            raise self._damaged(f"it holds {identity['dataset']}, not {self._key.stem}")
        return dict(identity)

    def _read_notes(self, *, salvage: bool = False) -> Mapping[str, Any]:
        try:
            data = self._part(NOTES)
            if zlib.crc32(data or b"") != self._notes and self._id:
                raise self._damaged("its notes are not those that belong here")
            found = plain.parse(data, str(self._path))["metadata"] if data else {}
        except CorruptDatasetError:
            if salvage:
                return {}
            raise
        return found

    def _part(self, part: int) -> bytes | None:
        """Read one part of what is said of the whole dataset."""
        row = self._one("SELECT data FROM dataset WHERE id = ?", part)
        if row is None:
            return None
        data = self._blob(row[0])
        if len(data) < 4 or zlib.crc32(data[4:], part) != int.from_bytes(data[:4], "little"):
            raise self._damaged("what it says of itself fails its checksum")
        return data[4:]

    def _damaged(
        self, reason: str, symbol: str | None = None, segment: Segment | None = None
    ) -> CorruptDatasetError:
        span = None if segment is None else self._span(segment)
        return corrupt(self._path, reason, symbol, span)

    def _span(self, segment: Segment) -> Interval:
        return Interval(segment.first, self._timeframe.next(segment.last))

    def _name(self, symbol: str) -> bytes:
        """Give what the checksums of a symbol's parts begin with."""
        return f"{self._stem}\0{symbol}".encode()

    def damage(self) -> list[CorruptDatasetError]:
        """List all that cannot be read, chunk by chunk."""
        found = [
            self._damaged(row[0])
            for row in self._execute("PRAGMA integrity_check")
            if row[0] != "ok"
        ]

        def tried(work: Callable[..., T], *arguments: Any) -> T | None:
            try:
                return work(*arguments)
            except CorruptDatasetError as damage:
                found.append(damage)
            return None

        tried(self._check_names)
        tried(self._read_notes)
        for symbol, data in self._records(None, salvage=True):
            record = tried(self._parsed, symbol, data)
            if record is not None:
                tried(self._revisions, symbol, record)
                for segment in record.segments:
                    tried(self._chunk, symbol, segment)
        return found

    @property
    def _timeframe(self) -> Timeframe:
        return self._key.timeframe

    def _periods(self, times: Any) -> Any:
        return period_of(self._timeframe, times)
