"""Decode Parquet and Feather files, those of pandas and of freqtrade included.

Only the columns of candles are read, batch by batch, as Arrow's own types: the metadata
that pandas writes beside them is not interpreted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson

from backtester.data.errors import CandleError, OptionError
from backtester.data.importing.columns import (
    milliseconds,
    place_columns,
    symbol_column,
    ticks_of,
    time_column,
    times_of_texts,
)
from backtester.data.importing.found import NO_TIME, NOTHING_SAID, Found, Parted, Rows, Said
from backtester.data.importing.names import other_than_candles, said_by_name
from backtester.data.importing.opening import Content, unreadable
from backtester.data.model import DatasetKey

__all__ = ["decode_feather", "decode_parquet"]

_BATCH = 1 << 17
_HARMLESS_ROWS = 2_000_000
_INDEX_NAMES = ("__index_level_0__",)


def decode_parquet(content: Content) -> Iterator[Found]:
    """Decode a Parquet file; errors as in `opening.series_in`."""
    with _reading(content.where) as pa:
        from pyarrow import parquet

        source, size = _source(content, pa)
        with parquet.ParquetFile(source, memory_map=False) as file:
            _require_honest(file.metadata.num_rows, size, content.where)
            names = [field.name for field in file.schema_arrow]
            yield from _found(
                content,
                names,
                lambda wanted: file.iter_batches(_BATCH, columns=wanted),
                size,
                _exported(file.schema_arrow.metadata),
            )


def decode_feather(content: Content) -> Iterator[Found]:
    """Decode a Feather (Arrow IPC) file; errors as in `opening.series_in`."""
    with _reading(content.where) as pa:
        source, size = _source(content, pa)
        reader = pa.ipc.open_file(source)
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        names = [field.name for field in reader.schema]
        yield from _found(
            content,
            names,
            lambda wanted: (batch.select(wanted) for batch in batches),
            size,
            _exported(reader.schema.metadata),
        )


@contextmanager
def _reading(where: str) -> Iterator[Any]:
    try:
        import pyarrow as pa
        import pyarrow.ipc
    except ImportError as error:
        raise OptionError(
            "reading Parquet and Feather files needs pyarrow: pip install pyarrow",
            value=where,
        ) from error
    try:
        yield pa
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        if isinstance(error, CandleError):
            raise
        raise unreadable(where, f"Arrow cannot read it ({error})") from error


def _source(content: Content, pa: Any) -> tuple[Any, int]:
    """Return what Arrow reads from, and its size in bytes."""
    if content.path is not None:
        return str(content.path), content.path.stat().st_size
    data = content.whole()
    return pa.BufferReader(data), len(data)


def _require_honest(rows: int, size: int, where: str) -> None:
    """Refuse a table of more rows than its bytes can hold: a real candle takes several bytes."""
    if rows > max(_HARMLESS_ROWS, size):
        raise unreadable(where, f"it claims {rows} rows in {size} bytes")


def _exported(metadata: Mapping[bytes, bytes] | None) -> Said:
    """Read what a file that we exported says of itself; others say nothing."""
    try:
        told = orjson.loads((metadata or {})[b"backtester"])
        key = DatasetKey.of(told["exchange"], told["market_type"], told["timeframe"])
        return Said(key.exchange, key.market_type, key.timeframe, str(told["symbol"]))
    except (KeyError, TypeError, ValueError):
        return NOTHING_SAID


def _found(
    content: Content, names: Sequence[str], batches: Any, size: int, said: Said
) -> Iterator[Found]:
    other = other_than_candles(content.name)
    if other is not None:
        note = f"left out: it holds {other} data, not candles of trades"
        yield Found(content.where, NOTHING_SAID, None, notes=(note,))
        return
    try:
        known = ["index" if name in _INDEX_NAMES else name for name in names]
        at = [time_column(known), *place_columns(known, said_by_name(content.name).symbol)]
        symbol = symbol_column(known)
        if symbol is not None:
            at.append(symbol)
        parted = _parted([names[i] for i in at], batches, size, content.where)
    except CandleError as error:
        yield Found(content.where, NOTHING_SAID, None, problem=error)
        return
    # Only closed candles are exported.
    closed = said is not NOTHING_SAID
    yield from parted.series(Found(content.where, said, None, last_closed=closed))


def _parted(names: Sequence[str], batches: Any, size: int, where: str) -> Parted:
    """Read time, the five values and, where there is one, the symbol of each row."""
    parted = Parted()
    total = 0
    read: Iterable[Any] = batches(list(names))
    for batch in read:
        total += batch.num_rows
        _require_honest(total, size, where)
        values = np.stack([_values(batch.column(i)) for i in range(1, 6)], axis=1)
        symbols = _symbols(batch.column(6)) if len(names) == 7 else [None]
        if batch.num_rows:
            parted.add(Rows(_times(batch.column(0)), values), symbols)
    return parted


def _symbols(column: Any) -> list[str | None]:
    """Read the symbol of each row, once where all have the same; numbers say nothing."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    names = column.dictionary.to_pylist()
    if not all(isinstance(name, str) for name in names):
        return [None]
    if len(names) == 1 and not column.null_count:
        return [names[0].strip() or None]
    plain = [name.strip() or None for name in names]
    return [None if code is None else plain[code] for code in column.indices.to_pylist()]


def _times(column: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return times_of_texts([cell or "" for cell in column.to_pylist()])
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(column.type):  # a zone changes how it is shown, not when it is
        return milliseconds(_whole_numbers(column), column.type.unit)
    if pa.types.is_signed_integer(column.type):
        return milliseconds(_whole_numbers(column))
    return ticks_of(column.to_numpy(zero_copy_only=False))


def _whole_numbers(column: Any) -> Any:
    import pyarrow as pa

    return column.cast(pa.int64()).fill_null(NO_TIME).to_numpy(zero_copy_only=False)


def _values(column: Any) -> Any:
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise CandleError(f"a column of it is of type {kind}, not of numbers")
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)
