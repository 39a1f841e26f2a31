"""Dates as people write them, converted to UTC epoch milliseconds.

The only place that understands "7 days ago". `now` is always an argument: it is
the exchange's clock, which only the caller knows.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from backtester.data.errors import DateError

__all__ = ["INCEPTION", "DateLike", "is_absolute", "parse_date"]

DateLike = str | int | float | date | datetime | None
"""ISO text, a relative phrase, epoch milliseconds, a date, a datetime, a pandas Timestamp or a
numpy datetime64. Naive ones are UTC."""

INCEPTION = "inception"
"""As a start: from the first candle there is."""

_YEAR = re.compile(r"\d{4}\Z")
_YEAR_MONTH = re.compile(r"\d{4}-\d{2}\Z")
_ISO_START = re.compile(r"\d{4}-\d{2}-\d{2}")
_EPOCH_MS = re.compile(r"\d{13}\Z")  # `fromisoformat` takes some for the year 1701
_AGO = re.compile(r"(\d{1,6})\s*(second|minute|hour|day|week)s?\s+ago\Z")
_UNIT_MS = {
    "second": 1_000,
    "minute": 60_000,
    "hour": 3_600_000,
    "day": 86_400_000,
    "week": 604_800_000,
}
_AMBIGUOUS = re.compile(r"-|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}")
_FIRST_MARKET_S = 10**11
_EARLIEST_MS = 0
_LATEST_MS = 253_402_300_799_000  # the end of the year 9999


def is_absolute(value: Any) -> bool:
    """Return whether a date does not depend on the current time."""
    if value is None:
        return False
    if isinstance(value, str):
        text = value.strip()
        return text.lower() == INCEPTION or bool(
            _YEAR.match(text) or _YEAR_MONTH.match(text) or _ISO_START.match(text)
        )
    return True


def parse_date(value: Any, *, now_ms: int, param: str) -> int:
    """Read one date.

    Parameters
    ----------
    value
        See `DateLike`. ``"today"`` and ``"yesterday"`` are midnights UTC; a bare year or
        month is its first moment; a bare number is UTC epoch milliseconds.
    now_ms : int
        What "now" is, UTC epoch milliseconds.
    param : str
        The argument's name, for the error.

    Returns
    -------
    int
        UTC epoch milliseconds.

    Raises
    ------
    DateError
        It cannot be read, or is before 1970.

    Examples
    --------
    >>> parse_date("2024-01-01", now_ms=0, param="start_date")
    1704067200000
    >>> parse_date("1 hour ago", now_ms=1704067200000, param="start_date")
    1704063600000
    """
    ms = _read(value, now_ms)
    if ms is None:
        raise DateError(
            f"cannot read {param}={value!r} as a date; write it like '2024-01-31', "
            "'2024-01-31 12:00', '7 days ago' or 'now' (UTC)",
            param=param,
            value=str(value),
        )
    if not _EARLIEST_MS <= ms <= _LATEST_MS:
        raise DateError(f"{param}={value!r} lies outside the years 1970 to 9999", param=param)
    return ms


def _read(value: Any, now_ms: int) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return _read_text(value.strip(), now_ms)
    if isinstance(value, datetime):  # pandas' Timestamp is one; its NaT is not equal to itself
        return _to_ms(value) if value == value else None
    if isinstance(value, date):
        return _to_ms(datetime.combine(value, time(), UTC))
    if isinstance(value, int | float):  # NumPy's float64 is one
        return _read_number(value)
    if hasattr(value, "astype") and getattr(value, "dtype", None) is not None:
        return _read_numpy(value)
    return None


def _read_number(value: float) -> int | None:
    finite = value == value and abs(value) != float("inf")
    # Seconds, most likely: read as milliseconds they would mean January 1970.
    return int(value) if finite and not 0 < abs(value) < _FIRST_MARKET_S else None


def _read_numpy(value: Any) -> int | None:
    import numpy as np

    if value.ndim == 0 and value.dtype.kind == "M":
        if np.isnat(value):
            return None
        years = int(value.astype("datetime64[Y]").astype(np.int64))
        if not 0 <= years < 8030:  # a far one would wrap around in milliseconds
            return _EARLIEST_MS - 1
        return int(value.astype("datetime64[ms]").astype(np.int64))
    if value.ndim == 0 and value.dtype.kind in "iu":
        return _read_number(int(value))
    return None


def _read_text(text: str, now_ms: int) -> int | None:
    lowered = text.lower()
    if lowered == "now":
        return now_ms
    ago = _AGO.match(lowered)
    if ago:  # by far the commonest phrase; dateparser needs a millisecond for it
        return now_ms - int(ago[1]) * _UNIT_MS[ago[2]]
    if lowered in ("today", "yesterday"):
        midnight = _from_ms(now_ms).replace(hour=0, minute=0, second=0, microsecond=0)
        return _to_ms(midnight - timedelta(days=lowered == "yesterday"))
    if _EPOCH_MS.match(text):
        return int(text)
    if _YEAR.match(text) or _YEAR_MONTH.match(text):
        text = f"{text}-01-01" if _YEAR.match(text) else f"{text}-01"
    if _ISO_START.match(text) and not _is_day(text[:10]):
        return None  # of "2024-13-01" dateparser would make the 13th of January
    try:  # vectorbt's examples end their dates with " UTC"
        return _to_ms(datetime.fromisoformat(text.removesuffix(" UTC")))
    except (ValueError, OverflowError):
        return _read_phrase(text, now_ms)


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _read_phrase(text: str, now_ms: int) -> int | None:
    """Read relative phrases and worded dates; dateparser is what VectorBT uses too."""
    if not text or _YEAR.match(text) or _AMBIGUOUS.match(text):
        return None  # 05/06/2026 is two dates, and "-5 days ago" is none
    import dateparser

    # What begins like an ISO date must not depend on the clock: see `is_absolute`.
    absolute = bool(_ISO_START.match(text))
    moment = dateparser.parse(
        text,
        languages=["en"],
        settings={
            "PARSERS": ["absolute-time"]
            if absolute
            else ["timestamp", "relative-time", "absolute-time"],
            "RELATIVE_BASE": _from_ms(now_ms).replace(tzinfo=None),
            "TIMEZONE": "UTC",
            "TO_TIMEZONE": "UTC",
            "RETURN_AS_TIMEZONE_AWARE": True,
            # "2" or "May" would otherwise be completed from today's date.
            "REQUIRE_PARTS": ["day", "month", "year"],
            "DATE_ORDER": "YMD",
        },
    )
    return None if moment is None else _to_ms(moment)


def _from_ms(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def _to_ms(moment: datetime) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    # Integer arithmetic: a float of seconds loses milliseconds.
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
