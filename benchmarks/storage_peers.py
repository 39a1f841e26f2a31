"""One way of storing candles, measured in a process of its own.

Runs in any environment with numpy and pandas: ``python benchmarks/storage_peers.py NAME FOLDER``
measures what `Peer` asks of everyone and prints it as JSON. ``FOLDER`` holds the tables that
`benchmarks.storage` prepared; what is stored goes beside them.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

COLUMNS = ["Open", "High", "Low", "Close", "Volume"]
_DAY_MS = 86_400_000
_ENOUGH_S = 1.0


class Tables:
    """What there is to store: ``hours`` (symbols, 5, rows) and ``minutes`` (5, rows)."""

    def __init__(self, folder: Path) -> None:
        facts = json.loads((folder / "facts.json").read_text())
        self.symbols: list[str] = facts["symbols"]
        self.rows: int = facts["rows"]
        """Hours stored at first; there are more to append."""
        self.hours = np.load(folder / "hours.npy", mmap_mode="r")
        self.hour_times = np.load(folder / "hour_times.npy")
        self.minutes = np.load(folder / "minutes.npy", mmap_mode="r")
        self.minute_times = np.load(folder / "minute_times.npy")

    @property
    def month(self) -> tuple[int, int]:
        """The last 30 days of hours, UTC milliseconds, half-open."""
        end = int(self.hour_times[self.rows - 1]) + 3_600_000
        return end - 30 * _DAY_MS, end

    @property
    def week(self) -> tuple[int, int]:
        """Seven days in the middle of the minutes, across no month's end."""
        begin = int(self.minute_times[0]) + 187 * _DAY_MS
        return begin, begin + 7 * _DAY_MS


def frame(times: np.ndarray, values: np.ndarray) -> pd.DataFrame:
    """Build the table that everyone is asked for; values (n, 5)."""
    index = pd.DatetimeIndex(times.view("datetime64[ms]"), tz="UTC")
    return pd.DataFrame(values, index=index, columns=COLUMNS, copy=False)


class Peer:
    """A way of storing candles. Every answer is pandas' own table."""

    scaled = 1
    """Symbols of which one is appended to, where each takes as long as the other."""

    def __init__(self, folder: Path, tables: Tables) -> None:
        self.folder, self.tables = folder, tables

    def table(self, number: int, first: int, last: int) -> pd.DataFrame:
        """Return rows of a symbol's hours."""
        values = np.array(self.tables.hours[number, :, first:last])
        return frame(self.tables.hour_times[first:last], values.T)

    def write(self) -> None:
        """Store the hours."""
        raise NotImplementedError

    def write_minutes(self) -> None:
        """Store the minutes, as the first symbol's."""
        raise NotImplementedError

    def append(self, numbers: Sequence[int], row: int) -> None:
        """Store one more hour of some symbols."""
        raise NotImplementedError

    def hours(self, symbols: Sequence[str], span: tuple[int, int]) -> Any:
        """Return a table of hours per symbol."""
        raise NotImplementedError

    def minutes(self, span: tuple[int, int] | None) -> pd.DataFrame:
        """Return minutes, all where there is no span."""
        raise NotImplementedError

    def closes(self) -> pd.DataFrame:
        """Return the closes of all hours, a column per symbol."""
        raise NotImplementedError

    def size(self) -> int:
        """Tell the bytes on disk."""
        return sum(one.stat().st_size for one in self.folder.rglob("*") if one.is_file())


class _Files(Peer):
    """A file per symbol."""

    suffix = ""
    scaled = 10

    def path(self, symbol: str, timeframe: str = "1h") -> Path:
        return self.folder / f"{symbol.replace('/', '_')}-{timeframe}{self.suffix}"

    def write(self) -> None:
        for number, symbol in enumerate(self.tables.symbols):
            self.store(self.table(number, 0, self.tables.rows), symbol)

    def write_minutes(self) -> None:
        values = np.array(self.tables.minutes)
        self.store(frame(self.tables.minute_times, values.T), self.tables.symbols[0], "1m")

    def append(self, numbers: Sequence[int], row: int) -> None:
        for number in numbers:
            symbol = self.tables.symbols[number]
            self.store(pd.concat([self.load(symbol), self.table(number, row, row + 1)]), symbol)

    def hours(self, symbols: Sequence[str], span: tuple[int, int]) -> Any:
        return [self.load(symbol, span=span) for symbol in symbols]

    def minutes(self, span: tuple[int, int] | None) -> pd.DataFrame:
        return self.load(self.tables.symbols[0], "1m", span)

    def closes(self) -> pd.DataFrame:
        return pd.concat({s: self.load(s, column="Close") for s in self.tables.symbols}, axis=1)

    def store(self, table: pd.DataFrame, symbol: str, timeframe: str = "1h") -> None:
        raise NotImplementedError

    def load(
        self,
        symbol: str,
        timeframe: str = "1h",
        span: tuple[int, int] | None = None,
        column: str | None = None,
    ) -> Any:
        raise NotImplementedError


def _stamps(span: tuple[int, int]) -> list[pd.Timestamp]:
    return [pd.Timestamp(one, unit="ms", tz="UTC") for one in span]


class Parquet(_Files):
    """A Parquet file per symbol, zstd, by pandas; a span is asked for as a filter."""

    suffix = ".parquet"

    def store(self, table: pd.DataFrame, symbol: str, timeframe: str = "1h") -> None:
        table.rename_axis("time").to_parquet(self.path(symbol, timeframe), compression="zstd")

    def load(
        self,
        symbol: str,
        timeframe: str = "1h",
        span: tuple[int, int] | None = None,
        column: str | None = None,
    ) -> Any:
        filters = None
        if span is not None:
            first, end = _stamps(span)
            filters = [("time", ">=", first), ("time", "<", end)]
        columns = None if column is None else [column]
        found = pd.read_parquet(self.path(symbol, timeframe), filters=filters, columns=columns)
        return found if column is None else found[column]


class Feather(_Files):
    """What freqtrade stores, by pandas: dates as a column, LZ4 at level 9."""

    suffix = ".feather"

    def store(self, table: pd.DataFrame, symbol: str, timeframe: str = "1h") -> None:
        path = self.path(symbol, timeframe)
        _freqtrades(table).to_feather(path, compression="lz4", compression_level=9)

    def load(
        self,
        symbol: str,
        timeframe: str = "1h",
        span: tuple[int, int] | None = None,
        column: str | None = None,
    ) -> Any:
        found = pd.read_feather(self.path(symbol, timeframe)).set_index("date")
        found.columns = COLUMNS
        if span is not None:
            first, end = _stamps(span)
            found = found.loc[first : end - pd.Timedelta(1, "ms")]
        return found if column is None else found[column]


class Freqtrade(_Files):
    """freqtrade's own handler of its own format."""

    def __init__(self, folder: Path, tables: Tables) -> None:
        super().__init__(folder, tables)
        from freqtrade.data.history.datahandlers.featherdatahandler import FeatherDataHandler
        from freqtrade.enums import CandleType

        self._handler, self._spot = FeatherDataHandler(folder), CandleType.SPOT

    def store(self, table: pd.DataFrame, symbol: str, timeframe: str = "1h") -> None:
        self._handler.ohlcv_store(symbol, timeframe, _freqtrades(table), self._spot)

    def load(
        self,
        symbol: str,
        timeframe: str = "1h",
        span: tuple[int, int] | None = None,
        column: str | None = None,
    ) -> Any:
        from freqtrade.configuration import TimeRange

        asked = TimeRange("date", "date", span[0] // 1000, span[1] // 1000 - 1) if span else None
        found = self._handler.ohlcv_load(
            symbol,
            timeframe,
            self._spot,
            timerange=asked,
            fill_missing=False,
            drop_incomplete=False,
        ).set_index("date")
        found.columns = COLUMNS
        return found if column is None else found[column]


def _freqtrades(table: pd.DataFrame) -> pd.DataFrame:
    found = table.rename_axis("date").reset_index()
    found.columns = ["date", *(name.lower() for name in COLUMNS)]
    return found


class Arctic(Peer):
    """ArcticDB on LMDB, many symbols by its calls for many."""

    def __init__(self, folder: Path, tables: Tables) -> None:
        super().__init__(folder, tables)
        import arcticdb

        self._arctic = arcticdb
        store = arcticdb.Arctic(f"lmdb://{folder}/arctic?map_size=8GB")
        self._hours, self._minutes = (
            store.get_library(name, create_if_missing=True) for name in ("hours", "minutes")
        )

    def write(self) -> None:
        for begin in range(0, len(self.tables.symbols), 50):
            numbers = range(begin, min(begin + 50, len(self.tables.symbols)))
            self._hours.write_batch([self._payload(n, 0, self.tables.rows) for n in numbers])

    def write_minutes(self) -> None:
        values = np.array(self.tables.minutes)
        table = frame(self.tables.minute_times, values.T)
        self._minutes.write(self.tables.symbols[0], table)

    def append(self, numbers: Sequence[int], row: int) -> None:
        self._hours.append_batch([self._payload(n, row, row + 1) for n in numbers])

    def hours(self, symbols: Sequence[str], span: tuple[int, int]) -> Any:
        first, end = _stamps(span)
        asked = (first, end - pd.Timedelta(1, "ms"))
        requests = [self._arctic.ReadRequest(symbol, date_range=asked) for symbol in symbols]
        return [one.data for one in self._hours.read_batch(requests)]

    def minutes(self, span: tuple[int, int] | None) -> pd.DataFrame:
        asked = None
        if span is not None:
            first, end = _stamps(span)
            asked = (first, end - pd.Timedelta(1, "ms"))
        return self._minutes.read(self.tables.symbols[0], date_range=asked).data

    def closes(self) -> pd.DataFrame:
        requests = [
            self._arctic.ReadRequest(symbol, columns=["Close"]) for symbol in self.tables.symbols
        ]
        found = self._hours.read_batch(requests)
        return pd.concat({one.symbol: one.data["Close"] for one in found}, axis=1)

    def _payload(self, number: int, first: int, last: int) -> Any:
        return self._arctic.WritePayload(
            self.tables.symbols[number], self.table(number, first, last)
        )


class _Ours(Peer):
    """One of our stores, through its protocol."""

    def __init__(self, folder: Path, tables: Tables) -> None:
        super().__init__(folder, tables)
        from backtester.data.model import DatasetKey

        self.store = self.make()
        self._hour, self._minute = (DatasetKey.of("made", "spot", one) for one in ("1h", "1m"))

    def make(self) -> Any:
        raise NotImplementedError

    def write(self) -> None:
        self.write_symbols(self.tables.symbols, self.tables.rows)

    def write_symbols(self, symbols: Sequence[str], rows: int) -> None:
        """Store hours of any number of symbols, their tables over and over."""
        for begin in range(0, len(symbols), 20):
            self.commit(self.answers(symbols[begin : begin + 20], begin, 0, rows))
        self.fold()

    def commit(self, answers: Sequence[Any]) -> None:
        self.store.commit(self._hour, answers)

    def fold(self) -> None:
        self.store.fold(self._hour)

    def write_minutes(self) -> None:
        from backtester.data.candles import Answer, Candles
        from backtester.data.model import Interval

        times = self.tables.minute_times
        table = Candles(times, np.array(self.tables.minutes).T)
        span = Interval(int(times[0]), int(times[-1]) + 60_000)
        self.store.commit(self._minute, [Answer(self.tables.symbols[0], span, table, asked_ms=1)])
        self.store.fold(self._minute)

    def append(self, numbers: Sequence[int], row: int) -> None:
        found = [self.answers([self.tables.symbols[n]], n, row, row + 1)[0] for n in numbers]
        self.commit(found)

    def hours(self, symbols: Sequence[str], span: tuple[int, int]) -> Any:
        found = self.read(symbols, span).series
        return [frame(one.candles.open_time, one.candles.values) for one in found.values()]

    def minutes(self, span: tuple[int, int] | None) -> pd.DataFrame:
        symbol = self.tables.symbols[0]
        within = None if span is None else _interval(span)
        found = self.store.read(self._minute, [symbol], within=within).series[symbol].candles
        return frame(found.open_time, found.values)

    def read(self, symbols: Sequence[str], span: tuple[int, int]) -> Any:
        return self.store.read(self._hour, symbols, within=_interval(span))

    def closes(self) -> pd.DataFrame:
        from backtester.data.storage.data_storage import column_frame

        return column_frame(self.store.read_column(self._hour, "Close"))

    def answers(self, symbols: Sequence[str], number: int, first: int, last: int) -> list[Any]:
        """Give rows of symbols as answers; their tables are those from `number` on, in a circle."""
        from backtester.data.candles import Answer, Candles
        from backtester.data.model import Interval

        times = self.tables.hour_times[first:last]
        span = Interval(int(times[0]), int(times[-1]) + 3_600_000)
        numbers = (n % len(self.tables.symbols) for n in range(number, number + len(symbols)))
        tables = (np.array(self.tables.hours[n, :, first:last]).T for n in numbers)
        return [
            Answer(symbol, span, Candles(times, table), asked_ms=1)
            for symbol, table in zip(symbols, tables, strict=True)
        ]


def _interval(span: tuple[int, int]) -> Any:
    from backtester.data.model import Interval

    return Interval(*span)


class Sqlite(_Ours):
    """The `sqlite` store; its memo is off, so that every read decodes."""

    def make(self) -> Any:
        from backtester.data.storage import sqlite_dataset
        from backtester.data.storage.memo import Memo
        from backtester.data.storage.sqlite_file import SqliteStore

        sqlite_dataset._memo = Memo(0)
        return SqliteStore(self.folder)


class Pickle(_Ours):
    """The spec's pickle; its memo is off, and an append is folded in."""

    def make(self) -> Any:
        from backtester.data.storage import pickle_file
        from backtester.data.storage.memo import Memo

        pickle_file._memo = Memo(0)
        return pickle_file.PickleStore(self.folder)

    def append(self, numbers: Sequence[int], row: int) -> None:
        super().append(numbers, row)
        self.store.fold(self._hour)


class Limit(Peer):
    """The physical limit: the very bytes asked for are read, from raw arrays, into a table."""

    def write(self) -> None:
        with (self.folder / "hours").open("wb") as rows, (self.folder / "closes").open("wb") as one:
            for number in range(len(self.tables.symbols)):
                rows.write(
                    _raw(self.tables.hour_times, self.tables.hours[number], self.tables.rows)
                )
                one.write(np.array(self.tables.hours[number, 3, : self.tables.rows]).tobytes())
            os.fsync(rows.fileno())
        self._open = os.open(self.folder / "hours", os.O_RDWR)

    def write_minutes(self) -> None:
        raw = _raw(self.tables.minute_times, self.tables.minutes, len(self.tables.minute_times))
        (self.folder / "minutes").write_bytes(raw)

    def append(self, numbers: Sequence[int], row: int) -> None:
        for number in numbers:
            part = self.tables.hours[number, :, row : row + 1]
            place = (number * self.tables.rows + self.tables.rows - 1) * 48
            os.pwrite(self._open, _raw(self.tables.hour_times[row : row + 1], part, 1), place)
        os.fsync(self._open)

    def hours(self, symbols: Sequence[str], span: tuple[int, int]) -> Any:
        whole, rows = self.tables.rows, (span[1] - span[0]) // 3_600_000
        numbers = (self.tables.symbols.index(symbol) for symbol in symbols)
        return [self._rows("hours", n * whole + whole - rows, rows) for n in numbers]

    def minutes(self, span: tuple[int, int] | None) -> pd.DataFrame:
        first, rows = 0, len(self.tables.minute_times)
        if span is not None:
            first = (span[0] - int(self.tables.minute_times[0])) // 60_000
            rows = (span[1] - span[0]) // 60_000
        return self._rows("minutes", first, rows)

    def closes(self) -> pd.DataFrame:
        values = np.fromfile(self.folder / "closes").reshape(-1, self.tables.rows)
        index = pd.DatetimeIndex(
            self.tables.hour_times[: self.tables.rows].view("M8[ms]"), tz="UTC"
        )
        return pd.DataFrame(values.T, index=index, columns=self.tables.symbols, copy=False)

    def _rows(self, name: str, first: int, rows: int) -> pd.DataFrame:
        file = os.open(self.folder / name, os.O_RDONLY)
        raw = np.frombuffer(os.pread(file, rows * 48, first * 48), np.float64).reshape(rows, 6)
        os.close(file)
        return frame(raw[:, 0].view(np.int64).copy(), raw[:, 1:])


def _raw(times: np.ndarray, values: np.ndarray, rows: int) -> bytes:
    table = np.empty((rows, 6))
    table[:, 0].view(np.int64)[:] = times[:rows]
    table[:, 1:] = values[:, :rows].T
    return table.tobytes()


WAYS: dict[str, type[Peer]] = {
    "limit": Limit,
    "sqlite": Sqlite,
    "pickle": Pickle,
    "parquet": Parquet,
    "feather": Feather,
    "freqtrade": Freqtrade,
    "arcticdb": Arctic,
}


def median_s(work: Callable[[], object], most: int = 40) -> float:
    """Return the median duration of up to `most` runs, fewer where they take long; seconds.

    The first is for warming up, unless it takes so long that it warmed up by itself.
    """
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) <= most and (not times or time.perf_counter() - begun < _ENOUGH_S):
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    return statistics.median(times[1:] or times)


def check(peer: Peer) -> None:
    """Make sure that the answers are what was asked for: by value."""
    tables = peer.tables
    rows = slice(tables.rows - 720, tables.rows)
    for number, found in enumerate(peer.hours(tables.symbols[:2], tables.month)):
        assert np.array_equal(found.to_numpy(), tables.hours[number, :, rows].T), type(peer)
        asked = tables.hour_times[rows].view("datetime64[ms]")
        assert (found.index.tz_convert(None).to_numpy() == asked).all(), type(peer)
    assert len(peer.minutes(tables.week)) == 7 * 1440
    assert np.array_equal(peer.minutes(None).to_numpy(), tables.minutes.T)
    closes = peer.closes().to_numpy()
    assert np.array_equal(closes, tables.hours[:, 3, : tables.rows].T), type(peer)


def measure(peer: Peer) -> dict[str, float]:
    """Ask everything; durations in seconds, hot."""
    tables = peer.tables
    begun = time.perf_counter()
    peer.write()
    wrote = time.perf_counter() - begun
    size = peer.size()
    peer.write_minutes()
    check(peer)
    found = {
        "write": wrote,
        "size": size,
        "hit": median_s(lambda: peer.hours(tables.symbols[:2], tables.month), 100),
        "closes": median_s(peer.closes, 7),
        "year": median_s(lambda: peer.minutes(None), 15),
        "week": median_s(lambda: peer.minutes(tables.week), 100),
    }
    rows = iter(range(tables.rows, tables.hours.shape[2]))
    some = range(0, len(tables.symbols), peer.scaled)
    found["append_all"] = peer.scaled * median_s(lambda: peer.append(some, next(rows)), 15)
    # A symbol that has them all so far, so that every candle is the next.
    found["append_one"] = median_s(lambda: peer.append([0], next(rows)), 40)
    return found


def main() -> None:
    """Be one peer."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    own = folder / name
    own.mkdir()
    print(json.dumps(measure(WAYS[name](own, Tables(folder)))))


if __name__ == "__main__":
    main()
