"""Decode tables of text: rows of ccxt, Binance's and Kraken's dumps, and what people export.

Numbers come out with the bits that `float` gives. Rows are read one block at a time.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np

from backtester.data.candles import COLUMNS
from backtester.data.errors import CandleError
from backtester.data.importing.columns import (
    numbers,
    place_columns,
    time_column,
    times_of_texts,
)
from backtester.data.importing.found import NOTHING_SAID, Found, Rows, Said
from backtester.data.importing.names import closed_period, said_by_name
from backtester.data.importing.opening import Content, unreadable

__all__ = ["decode"]

_BLOCK = 50_000
_LONGEST_LINE = 1 << 16
_MOST_PREFACE = 5
_KLINE, _CCXT, _KRAKEN = 12, 6, 7
_HEADLESS = {_KLINE, _CCXT, _KRAKEN}
_DELIMITERS = (",", ";", "\t", "|")
_COIN_MARGINED_VOLUME = 7
"""Where a kline of Binance's COIN-M futures counts base units; the sixth counts contracts."""


def decode(content: Content) -> Iterator[Found]:
    """Decode one table.

    Raises
    ------
    CorruptDatasetError
        It is no text, or not a table.
    """
    lines = _lines(content)
    first, delimiter = _first_row(lines, content.where)
    named = said_by_name(content.name)
    notes: tuple[str, ...] = ()
    try:
        header = _is_header(first)
        if header:
            time, values = time_column(first), place_columns(first, named.symbol)
        else:
            time, values = _by_number(len(first))
        if _counts_contracts(named, len(first)):
            values = [*values[:4], _COIN_MARGINED_VOLUME]
            notes = ("volume read from the column of base units: the other counts contracts",)
        read = csv.reader(lines, delimiter=delimiter)
        rows = _rows(read if header else chain([first], read), time, values, len(first))
    except CandleError as error:
        yield Found(content.where, NOTHING_SAID, None, problem=error)
        return
    except (csv.Error, UnicodeDecodeError) as error:
        raise unreadable(content.where, f"it is not a table of text ({error})") from error
    yield Found(
        content.where, NOTHING_SAID, rows, last_closed=closed_period(content.name), notes=notes
    )


def _lines(content: Content) -> Iterator[str]:
    """Read lines, none longer than a row can be: a file without ends of lines is no table."""
    first = True
    while line := content.stream.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE or b"\0" in line:
            raise unreadable(content.where, "it is neither a known format nor a table of text")
        try:
            text = line.decode("utf-8-sig" if first else "utf-8")
        except UnicodeDecodeError as error:
            raise unreadable(
                content.where, "it is neither a known format nor a table of UTF-8 text"
            ) from error
        first = False
        if text.strip():
            yield text


def _first_row(lines: Iterator[str], where: str) -> tuple[list[str], str]:
    """Give the first row and what separates its cells; a line or two of preface is passed over."""
    for line in islice(lines, _MOST_PREFACE):
        delimiter = max(_DELIMITERS, key=line.count)
        if line.startswith("#") or line.count(delimiter) < len(COLUMNS):
            continue
        cells = next(csv.reader([line], delimiter=delimiter))
        return [cell.strip() for cell in cells], delimiter
    raise unreadable(where, "it is neither a known format nor a table of six columns or more")


def _is_header(cells: Sequence[str]) -> bool:
    return not any(re.fullmatch(r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?", cell, re.I) for cell in cells[1:])


def _by_number(columns: int) -> tuple[int, list[int]]:
    """Place the columns of a table without names."""
    if columns not in _HEADLESS:
        raise CandleError(
            f"it has no line with names and {columns} columns; only rows of ccxt (6), "
            "Kraken (7) and Binance (12) are known by their number"
        )
    return 0, [1, 2, 3, 4, 5]


def _counts_contracts(named: Said, columns: int) -> bool:
    return named.exchange == "binancecoinm" and columns == _KLINE


def _rows(reader: Iterator[list[str]], time: int, values: Sequence[int], width: int) -> Rows:
    times, tables = [np.empty(0, np.int64)], [np.empty((0, len(COLUMNS)))]
    while block := list(islice(reader, _BLOCK)):
        if set(map(len, block)) != {width}:
            odd = next(row for row in block if len(row) != width)
            raise CandleError(f"a row has {len(odd)} cells and not {width}: {','.join(odd)[:80]}")
        columns = list(zip(*block, strict=True))
        times.append(times_of_texts(columns[time]))
        tables.append(np.stack([numbers(columns[at]) for at in values], axis=1))
    return Rows(np.concatenate(times), np.concatenate(tables))
