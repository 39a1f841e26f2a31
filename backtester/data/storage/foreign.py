"""Read a file of another program where one of our datasets is expected.

That is a Data object somebody saved under a dataset's name, or a file of
VectorBT PRO. Its candles count as present and nothing as absent; its last
candle may have been forming when it was saved, so it is shown but not counted
as answered: the next fetch asks for it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from backtester.data.candles import Candles, Series, check, given
from backtester.data.errors import CandleError, CorruptDatasetError
from backtester.data.model import Coverage, DatasetKey, Interval
from backtester.data.storage import inert, plain
from backtester.data.storage.store import Dataset

__all__ = ["read"]


def read(data: memoryview, key: DatasetKey, path: Path) -> Dataset:
    """Read a file without our footer as the dataset `key`.

    Raises
    ------
    CorruptDatasetError
        It is neither, or its candles do not fit the timeframe, or it holds no whole candles.
    """
    try:
        series = {symbol: _series(symbol, candles, key) for symbol, candles in _tables(data, path)}
    except CandleError as error:
        raise CorruptDatasetError(
            f"{path} does not hold {key} candles: {error}", path=str(path), reason=str(error)
        ) from error
    return Dataset(key, series)


def _tables(data: memoryview, path: Path) -> Iterable[tuple[str, Candles]]:
    try:
        payload = plain.unpack(data, str(path))
    except CorruptDatasetError as not_ours:
        try:
            foreign = inert.read_pro(data, str(path))
        except CorruptDatasetError as error:
            raise CorruptDatasetError(
                f"{path} cannot be trusted: it is neither a complete file of this package "
                f"({not_ours.reason}) nor one of VectorBT PRO ({error.reason})",
                path=str(path),
                reason="cut off, altered or foreign",
            ) from not_ours
        return ((symbol, foreign.candles(symbol)) for symbol in foreign.tables)
    if payload["kind"] != "data":
        raise CorruptDatasetError(
            f"{path} cannot be trusted: it is truncated", path=str(path), reason="cut off"
        )
    entries = payload["series"].items()
    return ((symbol, plain.series_from_plain(one, str(path)).candles) for symbol, one in entries)


def _series(symbol: str, candles: Candles, key: DatasetKey) -> Series:
    if not len(candles):
        return Series()
    whole = Interval(int(candles.open_time[0]), int(candles.open_time[-1]) + 1)
    # Copied: the arrays may be views of the file's bytes, in any order.
    table = check(candles.open_time, np.ascontiguousarray(candles.values), key.timeframe, whole)
    finished = Candles(table.open_time[:-1], table.values[:-1])
    answered = given(symbol, finished, key.timeframe, asked_ms=0)
    return Series(table, Coverage().add(answer.span for answer in answered))
