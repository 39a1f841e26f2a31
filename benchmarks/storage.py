"""Stores, their peers and the physical limit: 200 symbols x 5 years of 1h, a year of 1m."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import candle_tables
from benchmarks.harness import ROOT, Row, in_child
from benchmarks.peers import ARCTICDB, PEERS, interpreter
from benchmarks.storage_peers import COLUMNS, WAYS, Limit, Sqlite, Tables, frame, median_s

SYMBOLS, ROWS, MORE = 200, 5 * 8_766, 1_520
MINUTES = 365 * 1440
HOURLY = 1_440
"""How many hours in a row are appended, one by one, before reads are measured again."""
CANDLES = Path(os.environ.get("BENCH_CANDLES") or ROOT.parent / "shared" / "candles")
"""Real candles, a Parquet file per dataset and symbol; sizes are measured on these."""
NAMES = {
    "sqlite": "sqlite store", "pickle": "pickle", "parquet": "Parquet per symbol, zstd",
    "feather": "feather as freqtrade's", "freqtrade": "freqtrade's feather",
    "arcticdb": "ArcticDB on LMDB",
}  # fmt: skip


def prepare(folder: Path) -> None:
    """Make the candles, once for everyone."""
    shape = (SYMBOLS, 5, ROWS + MORE)
    hours = np.lib.format.open_memmap(folder / "hours.npy", "w+", np.float64, shape)
    for number in range(SYMBOLS):
        hours[number] = candle_tables.table(number, ROWS + MORE)
    hours.flush()
    np.save(folder / "hour_times.npy", candle_tables.times(ROWS + MORE, candle_tables.HOUR_MS))
    np.save(folder / "minutes.npy", candle_tables.table(SYMBOLS, MINUTES))
    np.save(folder / "minute_times.npy", candle_tables.times(MINUTES, candle_tables.MINUTE_MS))
    symbols = [candle_tables.symbol(number) for number in range(SYMBOLS)]
    (folder / "facts.json").write_text(json.dumps({"symbols": symbols, "rows": ROWS}))


# --------------------------------------------------------------------------- peers


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Measure all, one process at a time; a peer that is not installed is left out."""
    pythons = dict.fromkeys(WAYS, sys.executable)
    for name, home in (("arcticdb", ARCTICDB), ("freqtrade", PEERS)):
        found = interpreter(name, home)
        if found is None:
            del pythons[name]
        else:
            pythons[name] = found
    if "freqtrade" in pythons:
        del pythons["feather"]  # the very same files, written by its own code
    return {name: _measured(python, name, folder) for name, python in pythons.items()}


def _measured(python: str, name: str, folder: Path) -> Any:
    own = ("limit", "sqlite", "pickle")
    done = subprocess.run(
        [python, str(ROOT / "benchmarks" / "storage_peers.py"), name, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT) if name in own else ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


# --------------------------------------------------------------------------- ours alone


def grown(folder: Path) -> dict[str, float]:
    """Append hours one by one to all symbols, and compare reads with those of a fresh store."""
    own = folder / "grown"
    for name in ("appended", "fresh"):
        (own / name).mkdir(parents=True)
    tables = Tables(folder)
    appended, fresh = (Sqlite(own / name, tables) for name in ("appended", "fresh"))
    appended.write()
    times = []
    for row in range(ROWS, ROWS + HOURLY):
        begun = time.perf_counter()
        appended.append(range(SYMBOLS), row)
        times.append(time.perf_counter() - begun)
    tables.rows = ROWS + HOURLY
    fresh.write()
    month, some = tables.month, tables.symbols[:2]
    for one, other in zip(appended.hours(some, month), fresh.hours(some, month), strict=True):
        assert one.equals(other), "the appended candles are not those of the fresh store"
    reads: dict[str, list[float]] = {"appended": [], "fresh": []}
    for _ in range(5):  # in turn, so that what else the machine does falls on both
        for name, store in (("appended", appended), ("fresh", fresh)):
            reads[name].append(median_s(lambda store=store: store.hours(some, month), 40))
    return {
        "append": statistics.median(times),
        "slowest": max(times),
        **{name: statistics.median(found) for name, found in reads.items()},
    }


def many(folder: Path) -> dict[str, float]:
    """Ask the same of 200 symbols and of 2,000."""
    own = folder / "many"
    own.mkdir()
    tables = Tables(folder)
    few = Sqlite(folder / "sqlite", tables)
    store = Sqlite(own, tables)
    store.write_symbols([candle_tables.symbol(n) for n in range(10 * SYMBOLS)], ROWS)
    some = tables.symbols[:2]
    reads: dict[str, list[float]] = {"few": [], "many": []}
    for _ in range(5):
        for name, one in (("few", few), ("many", store)):
            reads[name].append(median_s(lambda one=one: one.hours(some, tables.month), 40))
    return {name: statistics.median(found) for name, found in reads.items()}


def first_write(folder: Path) -> dict[str, float]:
    """Write 10 million rows into a new store on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    tables = Tables(folder)
    tables.rows = 10_000_000 // 228
    symbols = [candle_tables.symbol(number) for number in range(228)]
    runs = []
    for attempt in range(3):
        own = folder / f"first-{attempt}"
        own.mkdir()
        store = Sqlite(own, tables)
        wall = cpu = 0.0
        for begin in range(0, len(symbols), 12):
            answers = store.answers(symbols[begin : begin + 12], begin, 0, tables.rows)
            wall -= time.perf_counter()
            cpu -= time.process_time()
            store.commit(answers)
            wall += time.perf_counter()
            cpu += time.process_time()
        wall -= time.perf_counter()
        store.fold()
        wall += time.perf_counter()
        runs.append((wall, cpu))
    wall, cpu = sorted(runs)[1]
    rows = len(symbols) * tables.rows
    return {"rows": rows, "rows_s": rows / wall, "rows_cpu_s": rows / cpu}


def reading(folder: Path) -> dict[str, float]:
    """Ask the limit and the store in turn, so that what else the machine does falls on both."""
    from backtester.data.storage import sqlite_dataset
    from backtester.data.storage.memo import Memo

    tables = Tables(folder)
    ways = {"limit": Limit(folder / "limit", tables), "ours": Sqlite(folder / "sqlite", tables)}
    ways["memo"] = ways["ours"]
    memos = {"limit": Memo(0), "ours": Memo(0), "memo": Memo(256 << 20)}
    some, month, week = tables.symbols[:2], tables.month, tables.week
    questions: dict[str, tuple[Callable[[Any], object], int]] = {
        "hit": (lambda way: way.hours(some, month), 40),
        "week": (lambda way: way.minutes(week), 40),
        "year": (lambda way: way.minutes(None), 5),
        "closes": (lambda way: way.closes(), 2),
    }
    found: dict[str, list[float]] = {}
    for _ in range(5):
        for question, (ask, most) in questions.items():
            for name, way in ways.items():
                if name == "memo" and question != "hit":
                    continue
                sqlite_dataset._memo = memos[name]
                took = median_s(lambda ask=ask, way=way: ask(way), most)
                found.setdefault(f"{question} {name}", []).append(took)
    return {name: statistics.median(times) for name, times in found.items()}


def fsync(folder: Path) -> dict[str, float]:
    """Tell what the disk takes to keep a page of the log and 200 of them."""
    path = folder / "fsync"

    def keep(pages: int) -> Callable[[], None]:
        data = os.urandom(pages * 16_408)

        def write() -> None:
            os.pwrite(file, data, 0)
            os.fsync(file)

        return write

    file = os.open(path, os.O_RDWR | os.O_CREAT)
    found = {"one": median_s(keep(2), 40), "all": median_s(keep(60), 20)}
    os.close(file)
    return found


def sizes(folder: Path) -> dict[str, float]:
    """Store all real candles, and the same in Parquet."""
    import pandas as pd

    from backtester.data.candles import Answer, Candles
    from backtester.data.model import DatasetKey, Interval
    from backtester.data.storage.sqlite_file import SqliteStore

    own = folder / "sizes"
    own.mkdir()
    store, parquet, rows = SqliteStore(own), 0, 0
    keys = set()
    for path in sorted(CANDLES.glob("*.parquet")):
        exchange, market, timeframe, symbol = path.stem.split("_")
        key = DatasetKey.of(exchange, market, timeframe)
        table = pd.read_parquet(path)
        open_times = table["timestamp"].to_numpy("datetime64[ms]").astype(np.int64)
        candles = Candles.of(open_times, table[[name.lower() for name in COLUMNS]])
        span = Interval(int(open_times[0]), key.timeframe.next(int(open_times[-1])))
        store.commit(key, [Answer(symbol.replace("-", "/"), span, candles, asked_ms=1)])
        keys.add(key)
        rows += len(table)
        frame(candles.open_time, np.array(candles.values)).to_parquet(
            own / path.name, compression="zstd"
        )
        parquet += (own / path.name).stat().st_size
    for key in keys:
        store.fold(key)
    ours = sum(store.path(key).stat().st_size for key in keys)
    return {"ours": ours, "parquet": parquet, "rows": rows}


# --------------------------------------------------------------------------- rows


def rows() -> list[Row]:
    """Measure everything and compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        found = measure(folder)
        alone = {
            part: in_child("benchmarks.storage", part, name)
            for part in ("reading", "fsync", "grown", "many", "first_write", "sizes")
            if part != "sizes" or CANDLES.is_dir()
        }
    return [*_reading(found, alone), *_writing(found, alone), *_peers(found)]


def _reading(found: dict[str, Any], alone: dict[str, Any]) -> list[Row]:
    grown, many, took = alone["grown"], alone["many"], alone["reading"]
    arctic = found.get("arcticdb")
    beside = f"; ArcticDB {_ms(arctic['year'])}" if arctic else "; ArcticDB: not installed"
    year = took["year ours"] / took["year limit"]
    return [
        _hit("2 symbols x 30 days of 1h of 200 x 5 years, memo off", took, "ours"),
        _hit("the same, memo on", took, "memo"),
        Row(
            "the same from 2,000 symbols, memo off",
            _ms(many["many"]),
            f"{many['many'] / many['few']:.2f} x that of 200 ({_ms(many['few'])})",
            "<= 1.2 x",
            many["many"] <= 1.2 * many["few"],
        ),
        Row(
            f"the same after {HOURLY:,} appends to all symbols",
            _ms(grown["appended"]),
            f"{grown['appended'] / grown['fresh']:.2f} x a fresh store ({_ms(grown['fresh'])})",
            "<= 1.2 x",
            grown["appended"] <= 1.2 * grown["fresh"],
        ),
        Row(
            "one symbol's year of 1m",
            _ms(took["year ours"]),
            f"{year:.1f} x limit ({_ms(took['year limit'])}){beside}",
            "<= 3 x limit, <= ArcticDB",
            year <= 3 and (arctic is None or took["year ours"] <= arctic["year"]),
        ),
        Row(
            "a week of 1m",
            _ms(took["week ours"]),
            f"limit {_ms(took['week limit'])}",
            "<= 1.5 ms",
            took["week ours"] <= 1.5e-3,
        ),
        Row(
            "all closes of 200 symbols x 5 years of 1h, as one frame",
            _ms(took["closes ours"]),
            f"limit {_ms(took['closes limit'])}",
            "<= 200 ms",
            took["closes ours"] <= 0.2,
        ),
    ]  # fmt: skip


def _hit(what: str, found: dict[str, float], way: str) -> Row:
    took, least = found[f"hit {way}"], found["hit limit"]
    return Row(
        what,
        _ms(took),
        f"{took / least:.1f} x limit ({_ms(least)})",
        "<= 1.5 ms, <= 2.5 x limit",
        took <= 1.5e-3 and took <= 2.5 * least,
    )


def _writing(found: dict[str, Any], alone: dict[str, Any]) -> list[Row]:
    ours, disk, first = found["sqlite"], alone["fsync"], alone["first_write"]
    return [
        Row(
            "append a candle to each of 200 symbols, durable",
            _ms(ours["append_all"]),
            f"of which fsync about {_ms(disk['all'])}",
            "<= 15 ms",
            ours["append_all"] <= 15e-3,
        ),
        Row(
            f"the same, median of {HOURLY:,} in a row",
            _ms(alone["grown"]["append"]),
            f"slowest {_ms(alone['grown']['slowest'])}",
            "",
            None,
        ),
        Row(
            "append a candle to one symbol, durable",
            _ms(ours["append_one"]),
            f"of which fsync about {_ms(disk['one'])}",
            "<= 1 ms + fsync",
            ours["append_one"] <= 1e-3 + disk["one"],
        ),
        Row(
            f"first write of {first['rows'] / 1e6:.0f} million rows, one core",
            f"{first['rows_s'] / 1e6:.1f} million rows/s",
            f"{first['rows_cpu_s'] / 1e6:.1f} per CPU second",
            ">= 4 million rows/s",
            first["rows_s"] >= 4e6,
        ),
        _size(alone.get("sizes")),
    ]


def _size(found: dict[str, float] | None) -> Row:
    what, target = "size of real candles", "<= 0.55 x Parquet, zstd"
    if found is None:
        return Row(what, "skipped", f"no real candles: {CANDLES.name} is missing", target, None)
    ratio = found["ours"] / found["parquet"]
    return Row(
        f"{what}, {found['rows']:,.0f} rows",
        f"{found['ours'] / found['rows']:.1f} B/row",
        f"{ratio:.2f} x Parquet, zstd ({found['parquet'] / found['rows']:.1f} B/row)",
        target,
        ratio <= 0.55,
    )


def _peers(found: dict[str, Any]) -> list[Row]:
    """Show each way of storing in one line; made candles flatter the codec's size."""
    lines = []
    for name, label in NAMES.items():
        one = found.get(name)
        if one is None:
            if name != "feather":
                lines.append(Row(label, "not installed", "", "", None))
            continue
        reads = (f"{part} {_ms(one[part])}" for part in ("hit", "year", "week", "closes"))
        lines.append(
            Row(
                label,
                " · ".join(reads),
                f"append 1 {_ms(one['append_one'])}, 200 {_ms(one['append_all'])}; "
                f"write {one['write']:.1f} s; synthetic {one['size'] / SYMBOLS / ROWS:.1f} B/row",
                "",
                None,
            )
        )
    return lines


def _ms(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:,.0f} ms" if ms >= 100 else f"{ms:.3g} ms"


def main() -> None:
    """Be one part in a process of its own."""
    parts = {"grown": grown, "many": many, "first_write": first_write, "reading": reading,
             "fsync": fsync, "sizes": sizes}  # fmt: skip
    print(json.dumps(parts[sys.argv[1]](Path(sys.argv[2]))))


if __name__ == "__main__":
    main()
