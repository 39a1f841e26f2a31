"""Find the candle columns by their many names, and parse times of every kind. Pure."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from backtester.data.candles import COLUMNS
from backtester.data.errors import CandleError
from backtester.data.importing.found import NO_TIME

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "milliseconds",
    "numbers",
    "place_columns",
    "symbol_column",
    "ticks_of",
    "time_column",
    "times_of_texts",
    "unread_number",
]

_TIME_NAMES = (
    "opentime", "timestamp", "unix", "ts", "time", "datetime", "date", "candlebegintime",
    "start", "startat", "t", "index", "unnamed:0", "",
)  # fmt: skip
"""Normalised names of a column of open times, the most telling first."""
_VALUE_NAMES: Mapping[str, tuple[str, ...]] = {
    "Open": ("open", "o", "openprice", "priceopen"),
    "High": ("high", "h", "highprice", "pricehigh"),
    "Low": ("low", "l", "lowprice", "pricelow"),
    "Close": ("close", "c", "closeprice", "priceclose"),
    "Volume": ("volume", "v", "vol", "basevolume", "volumebase"),
}
_SYMBOL_NAMES = ("symbol", "pair", "ticker", "instrument", "instid", "instrumentid")
_EMPTY = frozenset({"", "-", "na", "n/a", "#n/a", "<na>", "nan", "null", "none"})
"""What programs write into the cell of a number that is not there."""
_PER_MS = {"us": 1_000, "ns": 1_000_000}
_MS_PER = {"s": 1_000, "ms": 1}
_MILLISECONDS, _MICROSECONDS, _NANOSECONDS = 10**11, 10**14, 10**17
"""From which number on a count since the epoch is one of these: all begin in 1973."""
_EXACT = 1 << 53
_MOST = 2.0**63
_ZONE = re.compile(r"(?:Z|z| ?UTC|[+-]00:?00)\Z")
_ISO = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)?\Z"
)


def _normal(name: str) -> str:
    return re.sub(r"[ _\-()]", "", name.strip().lower())


def place_columns(names: Sequence[str], symbol: str | None = None) -> list[int]:
    """Find where the five columns of candles stand.

    Parameters
    ----------
    names : sequence of str
        Of all columns.
    symbol : str, optional
        Tells which of several volumes counts base units: of ``Volume BTC`` and ``Volume USDT``
        the first, for ``BTC/USDT``.

    Raises
    ------
    CandleError
        Some are missing; `missing` names them.
    """
    normal = [_normal(name) for name in names]
    found: dict[str, int] = {}
    for column, spellings in _VALUE_NAMES.items():
        at = next((normal.index(one) for one in spellings if one in normal), None)
        if at is None and column == "Volume":
            at = _base_volume(normal, symbol)
        if at is not None:
            found[column] = at
    missing = [column for column in COLUMNS if column not in found]
    if missing:
        has = ", ".join(repr(name) for name in names) or "nothing"
        alone = len(names) == 1 or missing == ["Open", "High", "Low", "Volume"]
        closes = " (closes alone are not candles)" if alone else ""
        raise CandleError(
            f"it has no {', '.join(missing)}{closes}; its columns are {has}",
            missing=tuple(missing),
        )
    return [found[column] for column in COLUMNS]


def time_column(names: Sequence[str]) -> int:
    """Find where the open times stand.

    Raises
    ------
    CandleError
        No column is called like that.
    """
    normal = [_normal(name) for name in names]
    at = next((normal.index(name) for name in _TIME_NAMES if name in normal), None)
    if at is None:
        has = ", ".join(repr(name) for name in names)
        raise CandleError(f"it has no column of times; its columns are {has}")
    return at


def symbol_column(names: Sequence[str]) -> int | None:
    """Find where the symbol of each row stands; None where there is no such column."""
    normal = [_normal(name) for name in names]
    return next((normal.index(name) for name in _SYMBOL_NAMES if name in normal), None)


def _base_volume(normal: Sequence[str], symbol: str | None) -> int | None:
    of_some = [at for at, name in enumerate(normal) if name.startswith("volume")]
    if len(of_some) == 1:
        return of_some[0]
    base = re.split(r"[-_/:]", symbol)[0].lower() if symbol else None
    matching = [at for at in of_some if base and normal[at] == f"volume{base}"]
    return matching[0] if len(matching) == 1 else None


def milliseconds(ticks: NDArray[np.int64], unit: str | None = None) -> NDArray[np.int64]:
    """Turn counts since the epoch into milliseconds; `NO_TIME` for those between two.

    Parameters
    ----------
    ticks : int64 (n,)
    unit : str, optional
        ``s``, ``ms``, ``us`` or ``ns``; told from each number's size when not given, since
        files change it within (Binance's from 2025 on).
    """
    ticks = ticks.astype(np.int64)
    if unit in _MS_PER:
        far = (ticks > _EXACT) | (ticks < -_EXACT)
        return np.where(far, NO_TIME, np.where(far, 0, ticks) * _MS_PER[unit])
    if unit is None:
        per = np.select(
            [ticks >= _NANOSECONDS, ticks >= _MICROSECONDS], [_PER_MS["ns"], _PER_MS["us"]], 1
        )
        small = (ticks >= 0) & (ticks < _MILLISECONDS)
        ticks = np.where(small, np.where(small, ticks, 0) * 1000, ticks)
    else:
        per = np.full(ticks.shape, _PER_MS[unit])
    return np.where(ticks % per != 0, NO_TIME, ticks // per)


def numbers(cells: Sequence[str]) -> NDArray[np.float64]:
    """Read texts as numbers, bit for bit as `float` does.

    NaN for a cell that is empty or says that it is; infinite for what is no number.
    """
    try:
        return np.array(list(map(float, cells)), np.float64)
    except ValueError:
        return np.array([_number(cell) for cell in cells], np.float64)


def unread_number(cells: Sequence[str]) -> str | None:
    """Return the first cell that is neither a number nor empty."""
    return next((cell for cell in cells if not _readable(cell)), None)


def _number(cell: str) -> float:
    if not _readable(cell):
        return np.inf
    return float(cell) if cell.strip().lower() not in _EMPTY else np.nan


def _readable(cell: str) -> bool:
    if cell.strip().lower() in _EMPTY:
        return True
    with suppress(ValueError):
        float(cell)
        return True
    return False


def times_of_texts(cells: Sequence[str]) -> NDArray[np.int64]:
    """Read texts as times, UTC epoch milliseconds: counts since the epoch or ISO dates.

    A date without a zone is UTC. What is neither becomes `NO_TIME`.

    Raises
    ------
    CandleError
        Most are neither, such as ``01/02/2024``, which could be two days.
    """
    with suppress(ValueError, OverflowError):
        return milliseconds(np.array(list(map(int, map(_whole, cells))), np.int64))
    bare = [_ZONE.sub("", cell.strip()) for cell in cells]
    if all(map(_ISO.match, bare)):
        with suppress(ValueError, UserWarning), warnings.catch_warnings():
            warnings.simplefilter("error")
            return np.array(bare, "datetime64[us]").astype(np.int64) // 1_000
    times = [_time_of_text(cell.strip()) for cell in cells]
    unread = [cell for cell, time in zip(cells, times, strict=True) if time == NO_TIME]
    if 2 * len(unread) > len(cells):
        raise CandleError(
            "its times are neither counts since 1970 nor ISO dates (2024-01-31 10:00), such as "
            f"{unread[0][:40]!r}"
        )
    return np.array(times, np.int64)


def _whole(cell: str) -> str:
    """Return a count as it is, or without a fraction of zero."""
    return cell.strip().rstrip("0").removesuffix(".") if "." in cell else cell


def _time_of_text(cell: str) -> int:
    with suppress(ValueError, OverflowError):
        return int(milliseconds(np.array([int(_whole(cell))], np.int64))[0])
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        return NO_TIME
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def ticks_of(values: Any) -> NDArray[np.int64]:
    """Read an array of whole numbers or of NumPy's datetimes as milliseconds.

    Raises
    ------
    CandleError
        It is of another type.
    """
    array = np.asarray(values)
    if array.dtype.kind == "M":
        return milliseconds(array.astype(np.int64), np.datetime_data(array.dtype)[0])
    if array.dtype.kind == "f":
        whole = np.isfinite(array) & (np.abs(array) < _MOST)
        whole[whole] = array[whole] % 1 == 0
        return np.where(whole, milliseconds(np.where(whole, array, 0).astype(np.int64)), NO_TIME)
    if array.dtype.kind not in "iu":
        raise CandleError(f"its times are of type {array.dtype}")
    return milliseconds(array.astype(np.int64))
