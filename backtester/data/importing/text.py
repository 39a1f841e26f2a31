"""Decode tables of text: rows of ccxt, Binance's and Kraken's dumps, and what people export.

Numbers come out with the bits that `float` gives. Rows are read one block at a time.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backtester.data.candles import COLUMNS
from backtester.data.errors import CandleError
from backtester.data.fetching.decimals import Decimals
from backtester.data.importing.columns import (
    milliseconds,
    numbers,
    place_columns,
    symbol_column,
    time_column,
    times_of_texts,
    unread_number,
)
from backtester.data.importing.found import NOTHING_SAID, Found, Parted, Rows, Said
from backtester.data.importing.names import closed_period, said_by_name
from backtester.data.importing.opening import Content, unreadable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["decode"]

_BLOCK = 1 << 20
_LONGEST_LINE = 1 << 16
_MOST_PREFACE = 5
_KLINE, _CCXT, _KRAKEN = 12, 6, 7
_HEADLESS = {_KLINE, _CCXT, _KRAKEN}
_NEWLINE = ord("\n")
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
    line, first, delimiter = _first_row(content)
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
        symbol = symbol_column(first) if header else None
        layout = _Layout(delimiter, len(first), time, tuple(values), symbol)
        parted = _parted(content, b"" if header else line, layout)
    except CandleError as error:
        yield Found(content.where, NOTHING_SAID, None, problem=error)
        return
    except csv.Error as error:
        raise unreadable(content.where, f"it is not a table of text ({error})") from error
    closed = closed_period(content.name)
    yield from parted.series(
        Found(content.where, NOTHING_SAID, None, last_closed=closed, notes=notes)
    )


def _first_row(content: Content) -> tuple[bytes, list[str], str]:
    """Return the first row, its cells and what separates them; a preface is passed over."""
    lacking = None
    for _ in range(_MOST_PREFACE):
        line = content.stream.readline(_LONGEST_LINE).removeprefix(b"\xef\xbb\xbf")
        text = _decoded(line, content.where)
        delimiter = max(_DELIMITERS, key=text.count)
        if line.startswith(b"#") or text.count(delimiter) < len(COLUMNS):
            lacking = lacking or _lacking(text.strip().split(delimiter))
            continue
        try:
            cells = next(csv.reader([text], delimiter=delimiter))
        except csv.Error as error:
            raise unreadable(content.where, f"it is not a table of text ({error})") from error
        return line, [cell.strip() for cell in cells], delimiter
    raise unreadable(
        content.where,
        lacking or "it is neither a known format nor a table of six columns or more",
    )


def _lacking(names: Sequence[str]) -> str | None:
    """Say which columns a line of names lacks; None for a line that is none."""
    try:
        time_column(names)
        place_columns(names)
    except CandleError as error:
        some = len(error.facts.get("missing", COLUMNS)) < len(COLUMNS)
        return str(error) if some else None
    return None


def _decoded(raw: bytes, where: str) -> str:
    """Read bytes as lines of text."""
    if b"\0" not in raw and (len(raw) < _LONGEST_LINE or b"\n" in raw[-_LONGEST_LINE:]):
        with suppress(UnicodeDecodeError):
            return raw.decode()
    raise unreadable(where, "it is neither a known format nor a table of UTF-8 text")


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


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the cells of a candle stand in a row."""

    delimiter: str
    width: int
    time: int
    values: tuple[int, ...]
    symbol: int | None
    """None where the rows say nothing of it."""


def _parted(content: Content, first: bytes, layout: _Layout) -> Parted:
    """Read all rows, block by block: quickly where a block is made of plain numbers."""
    parted = Parted()
    for block in _blocks(content, first):
        part = _plain_numbers(block, layout)
        if part is None:
            part = _any_cells(_decoded(block, content.where), layout)
        parted.add(*part)
    return parted


def _blocks(content: Content, rest: bytes) -> Iterator[bytes]:
    """Cut what follows the first row at ends of lines; no line may be longer than a row can be."""
    while data := content.stream.read(_BLOCK):
        rows, end, tail = (rest + data).rpartition(b"\n")
        if len(tail) > _LONGEST_LINE:
            raise unreadable(content.where, "it is neither a known format nor a table of text")
        if end:
            yield rows + end
        rest = tail
    if rest.strip():
        yield rest + b"\n"


def _plain_numbers(block: bytes, layout: _Layout) -> tuple[Rows, list[str | None]] | None:
    """Read a block in which every row has its cells, and no cell is quoted; None for others."""
    if b'"' in block or b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
    raw = np.frombuffer(block, np.uint8)
    marks = np.flatnonzero((raw == ord(layout.delimiter)) | (raw == _NEWLINE))
    if len(marks) % layout.width or b'"' in block:
        return None
    ends = np.ascontiguousarray(marks.reshape(-1, layout.width).T)
    newlines = raw[ends] == _NEWLINE
    if newlines[:-1].any() or not newlines[-1].all():
        return None
    starts = np.empty_like(ends)
    starts[1:] = ends[:-1] + 1
    starts[0, 0] = 0
    starts[0, 1:] = ends[-1, :-1] + 1
    cells = Decimals(block)
    try:
        times = cells.whole(starts[layout.time], ends[layout.time])
        values = cells.columns(starts[list(layout.values)], ends[list(layout.values)])
    except ValueError:
        return None
    symbols: list[str | None] = [None]
    if layout.symbol is not None:
        one = _one_text(raw, starts[layout.symbol], ends[layout.symbol])
        if one is None:
            return None
        symbols = [one or None]
    return Rows(milliseconds(times), values), symbols


def _one_text(
    raw: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> str | None:
    """Return the text that all cells of a column have; None where they differ."""
    lengths = ends - starts
    length = int(lengths[0])
    if (lengths != length).any():
        return None
    cells = raw[starts[:, None] + np.arange(length)]
    if (cells != cells[0]).any():
        return None
    try:
        return bytes(cells[0]).decode().strip()
    except UnicodeDecodeError:
        return None  # whoever reads it as text refuses it


def _any_cells(text: str, layout: _Layout) -> tuple[Rows, list[str | None]]:
    """Read a block cell by cell."""
    rows = [row for row in csv.reader(text.splitlines(), delimiter=layout.delimiter) if row]
    if not rows:
        return Rows(np.empty(0, np.int64), np.empty((0, len(COLUMNS)))), [None]
    if set(map(len, rows)) != {layout.width}:
        odd = next(row for row in rows if len(row) != layout.width)
        raise CandleError(
            f"a row has {len(odd)} cells and not {layout.width}: {','.join(odd)[:80]}"
        )
    columns = list(zip(*rows, strict=True))
    values = np.stack([numbers(columns[at]) for at in layout.values], axis=1)
    unread = None
    if np.isinf(values).any():
        unread = unread_number([cell for at in layout.values for cell in columns[at]])
    symbols: list[str | None] = [None]
    if layout.symbol is not None:
        symbols = [cell.strip() or None for cell in columns[layout.symbol]]
    return Rows(times_of_texts(columns[layout.time]), values, unread), symbols
