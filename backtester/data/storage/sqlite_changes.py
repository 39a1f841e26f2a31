"""Changing one dataset inside a transaction of its SQLite file."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson

from backtester.data.candles import Answer, Candles, Series, merge
from backtester.data.storage import codec, plain, records
from backtester.data.storage.records import (
    Record,
    Segment,
    appended,
    cut,
    disjoint,
    firsts,
    grown,
    in_the_way,
    joined,
    lengthened,
)
from backtester.data.storage.sqlite_dataset import SqliteDataset
from backtester.data.storage.sqlite_schema import IDENTITY, NOTES, name_sum, write_part
from backtester.data.storage.store import merged_metadata

__all__ = ["SqliteChanges"]

_APPENDED_ROWS = 32
"""Up to so many new candles at once go into the tail; more are chunks of their own."""
_TAIL_ROWS = 64
"""A tail is merged into its chunk when it has this many rows, or up to twice as many: each
symbol has a length of its own, so that not all are merged by the same commit."""


class SqliteChanges(SqliteDataset):
    """One dataset inside a transaction that may write."""

    def merge(self, symbol: str, answers: Sequence[Answer]) -> None:
        """Merge answers into a series; see `Series.with_answers`, which it equals."""
        data = self._record(symbol)
        record = Record() if data is None else self._parsed(symbol, data)
        coverage = record.coverage.add(one.span for one in answers)
        newer = appended(record, answers)
        if newer is None or len(newer) > _APPENDED_ROWS:
            changed = replace(self._merged(symbol, record, answers), coverage=coverage)
        else:
            fits = record.tail_rows + len(newer) <= _most_tail_rows(symbol) and (
                not record.tail or record.columns == newer.values.shape[1]
            )
            before = record if fits else self._without_tail(symbol, record)
            changed = lengthened(before, newer, coverage)
        self._write_record(symbol, changed, old=None if data is None else record)

    def _merged(self, symbol: str, record: Record, answers: Sequence[Answer]) -> Record:
        """Merge answers into chunks, of which only those in the way are read and rewritten."""
        pieces = disjoint([p for one in answers for p in cut(one.candles, self._timeframe)])
        if pieces is not None and not in_the_way(record, pieces):
            # The tail stays the newest only if nothing newer comes behind it.
            if record.tail and int(pieces[-1].open_time[0]) > (record.last_ms or 0):
                record = self._without_tail(symbol, record)
            return self._with_pieces(symbol, record, pieces)
        return self._rewritten(symbol, record, answers)

    def _rewritten(self, symbol: str, record: Record, answers: Sequence[Answer]) -> Record:
        times = np.concatenate([one.candles.open_time for one in answers])
        periods = set(self._periods(times).tolist())
        touched = [
            segment
            for segment, period in zip(
                record.segments, self._periods(firsts(record.segments)).tolist(), strict=True
            )
            if period in periods
        ]
        tables = [self._chunk(symbol, segment) for segment in touched]
        if record.tail:
            tables.append(record.tail_candles())
        stored = joined(tables)
        merged, revised = merge(stored, record.coverage, answers)
        if merged == stored and not revised:  # changed and back again is two revisions
            return record
        left = replace(
            record,
            segments=tuple(one for one in record.segments if one not in touched),
            tail=b"",
            candles=record.candles - len(stored),
        )
        self._drop(touched)
        if revised:
            known = (*self._revisions(symbol, record), *revised)
            self._execute(
                "INSERT OR REPLACE INTO revisions VALUES (?, ?)",
                (symbol, records.write_revisions(known, self._name(symbol))),
            )
            left = replace(left, revisions=len(known))
        return self._with_pieces(symbol, left, cut(merged, self._timeframe))

    def _with_pieces(self, symbol: str, record: Record, pieces: Sequence[Candles]) -> Record:
        """Add disjoint tables as chunks, neighbours of one period as one."""
        segments = list(record.segments)
        for table in self._neighbours(record, pieces):
            record = grown(record, table)
            segments.append(self._write_chunk(symbol, table))
        segments.sort(key=lambda segment: segment.first)
        return replace(record, segments=tuple(segments))

    def _neighbours(self, record: Record, pieces: Sequence[Candles]) -> Iterator[Candles]:
        """Join tables of one period that no segment stands between."""
        begins = firsts(record.segments)
        run: list[Candles] = []
        for piece in pieces:
            if run and not self._adjacent(run[-1], piece, begins):
                yield joined(run)
                run = []
            run.append(piece)
        if run:
            yield joined(run)

    def _adjacent(self, one: Candles, other: Candles, begins: Any) -> bool:
        ends = np.array([one.open_time[-1], other.open_time[0]])
        first, last = self._periods(ends).tolist()
        before, behind = np.searchsorted(begins, ends).tolist()
        return bool(first == last and before == behind)

    def _without_tail(self, symbol: str, record: Record) -> Record:
        """Move the tail into chunks, into the last one if that is of the same period."""
        segments, tables = list(record.segments), [record.tail_candles()]
        if segments:
            last = segments[-1]
            ends = np.array([last.first, tables[0].open_time[0]])
            first, second = self._periods(ends).tolist()
            if first == second:
                tables.insert(0, self._chunk(symbol, segments.pop()))
                self._drop([last])
        segments += (
            self._write_chunk(symbol, piece) for piece in cut(joined(tables), self._timeframe)
        )
        return replace(record, segments=tuple(segments), tail=b"")

    def fold(self, symbol: str) -> None:
        """Join the segments of every period that has several."""
        data = self._record(symbol)
        if data is None:
            return
        record = self._parsed(symbol, data)
        periods = self._periods(firsts(record.segments)).tolist()
        together: dict[int, list[Segment]] = {}
        for period, segment in zip(periods, record.segments, strict=True):
            together.setdefault(period, []).append(segment)
        segments: list[Segment] = []
        for several in together.values():
            if len(several) > 1:
                table = joined([self._chunk(symbol, segment) for segment in several])
                self._drop(several)
                several = [self._write_chunk(symbol, table)]
            segments += several
        self._write_record(symbol, replace(record, segments=tuple(segments)), old=record)

    def loose(self) -> list[str]:
        """List the symbols that `fold` has something to do for."""
        return [row[0] for row in self._execute("SELECT symbol FROM series WHERE loose")]

    def add(self, symbol: str, series: Series) -> None:
        """Write a series that is not there yet."""
        pieces = cut(series.candles, self._timeframe)
        record = self._with_pieces(symbol, Record(coverage=series.coverage), pieces)
        if series.revisions:
            data = records.write_revisions(series.revisions, self._name(symbol))
            self._execute("INSERT INTO revisions VALUES (?, ?)", (symbol, data))
        self._write_record(symbol, replace(record, revisions=len(series.revisions)))

    def delete(self, symbols: Sequence[str]) -> int:
        """Remove symbols with all there is of them; give how many are left."""
        for symbol, data in dict(self._records(symbols, salvage=False)).items():
            self._drop(self._parsed(symbol, data).segments)
            self._execute("DELETE FROM revisions WHERE symbol = ?", (symbol,))
            self._execute("DELETE FROM series WHERE symbol = ?", (symbol,))
            self._count -= 1
            self._names = (self._names - name_sum(symbol)) % 2**32
        self._write_identity()
        return self._count

    def replace(self, replaced: Mapping[str, Series]) -> None:
        """Put series in the place of those there are."""
        self.delete(list(replaced))
        for symbol, series in replaced.items():
            self.add(symbol, series)

    def annotate(self, metadata: Mapping[str, Any]) -> None:
        """Merge notes into those there are."""
        notes = merged_metadata(self._read_notes(), metadata)
        if not notes:
            return
        payload = plain.dataset_payload({}, notes, exchange=None, market_type=None, timeframe=None)
        data = plain.dump(payload)
        self._write_part(NOTES, data)
        self._notes = zlib.crc32(data)
        self._write_identity()

    def _write_record(self, symbol: str, record: Record, *, old: Record | None = None) -> None:
        data = records.write_record(record, self._name(symbol))
        if old is not None and old.segments is record.segments:
            self._execute("UPDATE series SET record = ? WHERE symbol = ?", (data, symbol))
            return
        loose = record.loose(self._timeframe)
        if old is not None:
            self._execute(
                "UPDATE series SET loose = ?, record = ? WHERE symbol = ?", (loose, data, symbol)
            )
            return
        row = (symbol, self._position, loose, data)
        self._execute("INSERT INTO series VALUES (?, ?, ?, ?)", row)
        self._count += 1
        self._position += 1
        self._names = (self._names + name_sum(symbol)) % 2**32
        self._write_identity()

    def _write_identity(self) -> None:
        self._write_part(
            IDENTITY,
            orjson.dumps(
                {
                    "dataset": self._key.stem,
                    "id": self._id,
                    "symbols": self._count,
                    "names": self._names,
                    "position": self._position,
                    "notes": self._notes,
                }
            ),
        )

    def _write_part(self, part: int, data: bytes) -> None:
        write_part(self._execute, part, data)

    def _write_chunk(self, symbol: str, table: Candles) -> Segment:
        table = table.trimmed()
        data = codec.encode(table.open_time, table.values, self._name(symbol))
        number = self._execute("INSERT INTO chunks (data) VALUES (?)", (data,)).lastrowid
        assert number is not None, "a row was inserted"
        first, last = int(table.open_time[0]), int(table.open_time[-1])
        return Segment(first, last, len(table), number)

    def _drop(self, segments: Iterable[Segment]) -> None:
        for segment in segments:
            self._execute("DELETE FROM chunks WHERE id = ?", (segment.chunk,))


def _most_tail_rows(symbol: str) -> int:
    return _TAIL_ROWS + name_sum(symbol) % _TAIL_ROWS
