"""Decode pickles with the inert interpreter: VectorBT PRO's, open-source VectorBT's, and our own.

The bytes are never unpickled. Compressed by Blosc2 or plain, what the file is shows in what
comes out of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from backtester.data.errors import (
    CandleError,
    CorruptDatasetError,
    UnknownMarketTypeError,
    UnknownTimeframeError,
)
from backtester.data.importing.columns import place_columns
from backtester.data.importing.found import Found, Rows, Said
from backtester.data.importing.opening import Content, unreadable
from backtester.data.model import MarketType, Timeframe
from backtester.data.storage import blosc, inert, open_source, plain
from backtester.data.storage.inert import ForeignData
from backtester.data.storage.pickles import UnreadableError

__all__ = ["decode"]

_PROTO = 0x80
"""The first byte of every pickle since protocol 2."""


def decode(content: Content) -> Iterator[Found]:
    """Decode a pickle, compressed by Blosc2 or not.

    Raises
    ------
    CorruptDatasetError
        It is damaged, hostile, or none of the three.
    """
    data = memoryview(content.whole())
    try:
        raw = data if data[0] == _PROTO else _unpacked(data)
    except UnreadableError as wrong:
        raise unreadable(content.where, str(wrong)) from wrong
    try:
        payload = plain.parse(bytes(raw), content.where)
    except CorruptDatasetError as not_ours:
        if b"rebuild_data" in bytes(raw[:200]):
            raise unreadable(content.where, not_ours.reason) from not_ours
        yield from _foreign(_read(raw, content.where), content.where)
    else:
        yield from _ours(payload, content.where)


def _unpacked(data: memoryview) -> memoryview:
    """Unpack a Blosc2 chunk; ours is stored as it is where it would shrink like a bomb."""
    length = blosc.chunk_length(data[: blosc.HEADER_SIZE], ratio=inert.MAX_RATIO)
    return memoryview(blosc.decompress(data[:length], ratio=inert.MAX_RATIO))


def _read(raw: memoryview, where: str) -> ForeignData:
    reasons = []
    for kind, read in (
        ("VectorBT PRO", inert.read_unpacked),
        ("open-source VectorBT", open_source.read_unpacked),
    ):
        try:
            return read(raw)
        except UnreadableError as wrong:
            reasons.append(f"as a file of {kind}: {wrong}")
    raise unreadable(where, "; ".join(reasons))


def _foreign(data: ForeignData, where: str) -> Iterator[Found]:
    for symbol, table in data.tables.items():
        place = f"{where}/{symbol}"
        said = _said(data.fetch_kwargs.get(symbol), symbol)
        try:
            at = place_columns(table.columns, symbol)
        except CandleError as error:
            yield Found(place, said, None, problem=_with_left_out(error, table.left_out))
            continue
        yield Found(place, said, Rows(table.open_time, table.values[:, at]))


def _with_left_out(error: CandleError, left_out: Sequence[str]) -> CandleError:
    if not left_out:
        return error
    names = ", ".join(map(repr, left_out))
    return CandleError(f"{error}; of other kinds than numbers are {names}", **error.facts)


def _ours(payload: Mapping[str, Any], where: str) -> Iterator[Found]:
    # A dataset holds closed candles only; an object somebody saved may hold a forming one.
    closed = payload["kind"] == "dataset"
    general = _said(
        {key: payload[key] for key in ("exchange", "market_type", "timeframe")}, symbol=None
    )
    for symbol, series in plain.series_of(payload, where).items():
        values = np.ascontiguousarray(series.candles.plain().values)
        yield Found(
            f"{where}/{symbol}",
            Said(symbol=symbol).over(general),
            Rows(series.candles.open_time, values),
            last_closed=closed,
        )


def _said(arguments: Any, symbol: str | None) -> Said:
    """Read what the arguments of the fetch say, as far as they are of the usual kind."""
    given = arguments if isinstance(arguments, Mapping) else {}
    exchange, timeframe = given.get("exchange"), given.get("timeframe")
    market = given.get("market_type")
    return Said(
        exchange.lower() if isinstance(exchange, str) and exchange.isalnum() else None,
        _parsed(MarketType.parse, market),
        _parsed(Timeframe.parse, timeframe),
        symbol,
    )


def _parsed(parse: Any, text: Any) -> Any:
    try:
        return parse(text) if isinstance(text, str) else None
    except (UnknownMarketTypeError, UnknownTimeframeError):
        return None
