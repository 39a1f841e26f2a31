"""Write stored candles to files that other programs read."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from backtester.data.candles import COLUMNS, EXTRAS, Candles
from backtester.data.dates import DateLike, parse_date
from backtester.data.errors import DatasetWriteError, OptionError
from backtester.data.export_names import folder_of
from backtester.data.fetching.request import wants_all
from backtester.data.model import DatasetKey, Interval
from backtester.data.storage.data_storage import DataStorage
from backtester.data.storage.records import cut, period_name

__all__ = ["FORMATS", "export_data"]

FORMATS = ("parquet", "feather", "csv", "duckdb")
_LATEST_MS = 2**62


def export_data(
    exchange_id: str,
    timeframe: str,
    symbols: str | list[str] | None = None,
    market_type: str = "spot",
    *,
    to: str = "parquet",
    columns: str = "ohlcv",
    output: str | os.PathLike[str] | None = None,
    start_date: DateLike = None,
    end_date: DateLike = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """Write stored candles to Parquet, Feather or CSV files, or to a DuckDB database.

    Parquet, Feather and CSV get one file per symbol and period (a month of minutes, a year of
    hours, a decade of days): ``{output}/{exchange}_{market_type}_{timeframe}/{BASE-QUOTE}/
    {period}.{to}``. DuckDB gets one file with a table ``candles``. The columns are ``open_time``
    (UTC), ``open``, ``high``, ``low``, ``close`` (quote units) and ``volume`` (base units); the
    metadata of a file says its units and origin. CSV has no metadata, and its ``open_time`` is in
    epoch milliseconds.

    Parameters
    ----------
    exchange_id, timeframe, symbols, market_type
        As for `load_data`.
    to : str
        One of `FORMATS`.
    columns : str
        ``'all'``: also the other columns that are stored; see `fetch_data`.
    output : path, optional
        A folder. Default: the current one.
    start_date, end_date : optional
        Inclusive and exclusive, UTC. Default: everything that is stored.
    data_dir : path, optional
        See `fetch_data`.

    Returns
    -------
    list of Path
        The files written. Existing files of the same name are replaced atomically.

    Raises
    ------
    DatasetNotFoundError
        The dataset, or one of `symbols`, is not stored.
    OptionError
        The format is unknown, or the library that writes it is not installed.
    DatasetWriteError
        A file could not be written.
    """
    storage = DataStorage(data_dir)
    key = DatasetKey.of(exchange_id, market_type, timeframe)
    names = [symbols] if isinstance(symbols, str) else symbols
    within = _interval(start_date, end_date)
    everything = wants_all(columns)

    def table_of(symbol: str) -> Candles:
        table = storage.candles(key, symbol, within)
        return table if everything else table.plain()

    tables = ((symbol, table_of(symbol)) for symbol in storage.names(key, names).values())
    folder = Path(output) if output is not None else Path()
    if to == "duckdb":
        names_of = (*COLUMNS, *EXTRAS) if everything else COLUMNS
        return [_write_duckdb(folder / f"{key.stem}.duckdb", key, tables, names_of)]
    if to not in FORMATS:
        raise OptionError(f"unknown format {to!r}; use one of {', '.join(FORMATS)}")
    write = _writer(to)
    written = []
    for symbol, table in tables:
        for piece in cut(table, key.timeframe):
            period = period_name(key.timeframe, int(piece.open_time[0]))
            path = folder / key.stem / folder_of(symbol) / f"{period}.{to}"
            with _replacing(path) as draft:
                write(piece, draft, _origin(key, symbol))
            written.append(path)
    return written


def _interval(start: DateLike, end: DateLike) -> Interval | None:
    if start is None and end is None:
        return None
    import time

    now = time.time_ns() // 1_000_000
    first = 0 if start is None else parse_date(start, now_ms=now, param="start_date")
    last = _LATEST_MS if end is None else parse_date(end, now_ms=now, param="end_date")
    return Interval(first, last)


def _origin(key: DatasetKey, symbol: str) -> dict[str, str]:
    return {
        "exchange": key.exchange,
        "market_type": key.market_type.value,
        "timeframe": str(key.timeframe),
        "symbol": symbol,
    }


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a draft to write; it replaces `path` once it is complete."""
    draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        draft.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatasetWriteError(f"cannot write {path}: {reason}", path=str(path)) from error
    finally:
        with suppress(OSError):  # the folder may be none
            draft.unlink(missing_ok=True)


# --------------------------------------------------------------------------- formats

_Writer = Callable[[Candles, Path, Mapping[str, str]], None]


def _writer(to: str) -> _Writer:
    """Return the function that writes a format, before anything is made for its files."""
    if to != "csv":
        _require("pyarrow")
    return {"parquet": _write_parquet, "feather": _write_feather, "csv": _write_csv}[to]


def _write_parquet(table: Candles, path: Path, origin: Mapping[str, str]) -> None:
    from pyarrow import parquet

    parquet.write_table(_arrow(table, origin), path, compression="zstd")


def _write_feather(table: Candles, path: Path, origin: Mapping[str, str]) -> None:
    from pyarrow import feather

    feather.write_feather(_arrow(table, origin), str(path), compression="zstd")


def _arrow(table: Candles, origin: Mapping[str, str]) -> Any:
    """Make an Arrow table, its origin and the units of its columns in its metadata."""
    import pyarrow as pa

    base, _, rest = origin["symbol"].partition("/")
    quote = rest.partition(":")[0]
    units = [quote, quote, quote, quote, base, quote, "", base, quote]
    fields = [
        pa.field("open_time", pa.timestamp("ms", tz="UTC"), nullable=False),
        *(
            pa.field(_column(name), pa.float64(), metadata={"unit": unit})
            for name, unit in zip(table.columns, units, strict=False)
        ),
    ]
    schema = pa.schema(fields, metadata={"backtester": json.dumps(dict(origin))})
    times = pa.array(table.open_time).cast(pa.timestamp("ms", tz="UTC"))
    return pa.table([times, *(pa.array(column) for column in table.values.T)], schema=schema)


def _column(name: str) -> str:
    """Name a column as files do: Taker buy volume is taker_buy_volume."""
    return name.lower().replace(" ", "_")


def _write_csv(table: Candles, path: Path, _origin: Mapping[str, str]) -> None:
    import csv

    with path.open("x", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["open_time", *map(_column, table.columns)])
        times, values = table.open_time.tolist(), table.values.tolist()
        # Python writes the shortest text that reads back as the same number.
        rows.writerows([time, *row] for time, row in zip(times, values, strict=True))


def _write_duckdb(
    path: Path, key: DatasetKey, tables: Iterator[tuple[str, Candles]], names: Sequence[str]
) -> Path:
    _require("duckdb", "pyarrow")  # Arrow's tables are handed over without a copy
    import duckdb

    with _replacing(path) as draft, duckdb.connect(str(draft)) as database:
        database.execute(
            "CREATE TABLE candles (symbol VARCHAR NOT NULL, open_time TIMESTAMPTZ NOT NULL, "
            + ", ".join(f"{_column(name)} DOUBLE" for name in names)
            + ")"
        )
        units = "open, high, low, close in quote units, volume in base units, UTC"
        database.execute(f"COMMENT ON TABLE candles IS '{key}: {units}'")
        for symbol, table in tables:
            wide = table.widened(len(names))
            database.register("batch", _arrow(wide, _origin(key, symbol)))
            database.execute("INSERT INTO candles SELECT ?, * FROM batch", [symbol])
    return path


def _require(*packages: str) -> None:
    """Refuse what a format needs and is not installed."""
    try:
        for package in packages:
            import_module(package)
    except ImportError as error:
        names = " ".join(packages)
        raise OptionError(f"this needs {names}: pip install {names}", value=names) from error
