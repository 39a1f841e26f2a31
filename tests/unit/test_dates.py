"""Dates at the door: every way of writing one, and every way to fail."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backtester.data.dates import is_absolute, parse_date
from backtester.data.errors import DateError

NOW = 1_700_000_000_123  # 2023-11-14 22:13:20.123 UTC
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
MIDNIGHT = 1_699_920_000_000
NEW_YEAR = 1_704_067_200_000  # 2024-01-01
EAST = timezone(timedelta(hours=5, minutes=30))


def parse(value: Any, now_ms: int = NOW) -> int:
    return parse_date(value, now_ms=now_ms, param="start_date")


ABSOLUTE = {
    "2024": NEW_YEAR,
    "2024-01": NEW_YEAR,
    "2024-02": NEW_YEAR + 31 * DAY,
    "2024-01-01": NEW_YEAR,
    " 2024-01-01 ": NEW_YEAR,
    "20240101": NEW_YEAR,
    "2024-01-01 12:00": NEW_YEAR + 12 * HOUR,
    "2024-01-01T12:00:00": NEW_YEAR + 12 * HOUR,
    "2024-01-01T12:00:00Z": NEW_YEAR + 12 * HOUR,
    "2024-01-01 12:00:00 UTC": NEW_YEAR + 12 * HOUR,
    "2024-01-01 UTC": NEW_YEAR,
    "2024-01-01T00:00:00+02:00": NEW_YEAR - 2 * HOUR,
    "2024-01-01 00:00:00.123": NEW_YEAR + 123,
    "2024-01-01T00:00:00.123999999": NEW_YEAR + 123,
    "2024-02-29": NEW_YEAR + 59 * DAY,
    "2024/01/01": NEW_YEAR,
    "1 January 2024": NEW_YEAR,
    "Jan 1, 2024 5pm": NEW_YEAR + 17 * HOUR,
    "2024-01-01 00:00 EST": NEW_YEAR + 5 * HOUR,
    "1970-01-01": 0,
    "9999-12-31": 253_402_214_400_000,
    "1701010100000": 1_701_010_100_000,  # as a compact ISO date this were the year 1701
    "1712011512345": 1_712_011_512_345,
}


@pytest.mark.parametrize(("text", "ms"), ABSOLUTE.items())
def test_dates_that_mean_the_same_whatever_the_clock_says(text: str, ms: int) -> None:
    """ISO and worded dates are UTC unless they say otherwise, and need no clock."""
    assert parse(text) == parse(text, now_ms=NOW + 900 * DAY) == ms


@pytest.mark.parametrize(
    ("phrase", "ms"),
    [
        ("now", NOW), (" NOW ", NOW), ("today", MIDNIGHT), ("yesterday", MIDNIGHT - DAY),
        ("7 days ago", NOW - 7 * DAY), ("1 day ago", NOW - DAY), ("1 DAY AGO", NOW - DAY),
        ("90 seconds ago", NOW - 90 * SECOND), ("1 minute ago", NOW - MINUTE),
        ("36 hours ago", NOW - 36 * HOUR), ("2 weeks ago", NOW - 14 * DAY), ("0 days ago", NOW),
        ("a week ago", NOW - 7 * DAY), ("two days ago", NOW - 2 * DAY),
        ("1.5 hours ago", NOW - 90 * MINUTE), ("7 days ago UTC", NOW - 7 * DAY),
        ("1 month ago", NOW - 31 * DAY), ("1 year ago", NOW - 365 * DAY),
        ("yesterday 12:00", MIDNIGHT - DAY + 12 * HOUR),
    ],
)  # fmt: skip
def test_phrases_count_from_the_clock_given(phrase: str, ms: int) -> None:
    """Relative phrases are read against `now_ms` to the millisecond, never the system's clock."""
    assert parse(phrase) == ms
    later = (4 * 365 + 1) * DAY  # the same day four years on
    assert parse(phrase, now_ms=NOW + later) == ms + later


VALUES: dict[str, tuple[Any, int]] = {
    "naive datetime": (datetime(2024, 1, 1), NEW_YEAR),  # noqa: DTZ001 - naive means UTC here
    "aware datetime": (datetime(2024, 1, 1, tzinfo=EAST), NEW_YEAR - 5 * HOUR - 30 * MINUTE),
    "microseconds": (datetime(2024, 1, 1, 0, 0, 0, 123_999, tzinfo=UTC), NEW_YEAR + 123),
    "date": (date(2024, 1, 1), NEW_YEAR),
    "naive Timestamp": (pd.Timestamp("2024-01-01"), NEW_YEAR),
    "aware Timestamp": (pd.Timestamp("2024-01-01", tz="America/New_York"), NEW_YEAR + 5 * HOUR),
    "nanoseconds": (pd.Timestamp("2024-01-01 00:00:00.001999999"), NEW_YEAR + 1),
    "last Timestamp": (pd.Timestamp.max, 9_223_372_036_854),
    "datetime64 of days": (np.datetime64("2024-01-01"), NEW_YEAR),
    "datetime64 of ns": (np.datetime64("2024-01-01T00:00:00.001999999"), NEW_YEAR + 1),
    "datetime64 of months": (np.datetime64("2024-01"), NEW_YEAR),
    "int": (NEW_YEAR, NEW_YEAR),
    "float": (float(NEW_YEAR) + 0.9, NEW_YEAR),
    "numpy int": (np.int64(NEW_YEAR), NEW_YEAR),
    "numpy float": (np.float64(NEW_YEAR), NEW_YEAR),
    "array of one": (np.array(NEW_YEAR), NEW_YEAR),
    "the epoch": (0, 0),
}


@pytest.mark.parametrize(("value", "ms"), VALUES.values(), ids=VALUES)
def test_values_of_other_types(value: Any, ms: int) -> None:
    """Python's, pandas' and NumPy's dates give plain integers; naive ones are UTC."""
    found = parse(value)
    assert found == ms
    assert type(found) is int


@pytest.mark.parametrize(
    "value",
    ["", " ", "garbage", "inception", "2024-02-30", "2024-13", "2024-13-01", "2024-00", "2024-1332",
     "24:00", "12:00", "2", "May", "5 June", "monday", "0000", "12345", None, True, False,
     float("nan"), float("inf"), pd.NaT, pd.NA, np.datetime64("NaT"), np.bool_(True),
     np.float64("nan"), np.array([1, 2]), [], {}, b"2024-01-01",
     "05/06/2026", "1.2.2024", "-5 days ago", 1_700_000_000, -1, 1.5, np.float64(10**11 - 1),
     np.int64(1_700_000_000),
     pytest.param(object(), id="object")],
    ids=repr,
)  # fmt: skip
def test_what_is_no_date(value: Any) -> None:
    """What cannot be read for certain is refused by name, not completed from today's date.

    That includes dates that are two dates, and numbers that are most likely seconds.
    """
    with pytest.raises(DateError, match=r"cannot read start_date=.* write it like") as caught:
        parse(value)
    assert caught.value.param == "start_date"


@pytest.mark.parametrize(
    "value",
    [-(10**12), "1969-12-31", 10**20, 1e300, datetime.max.replace(tzinfo=UTC), "99999 weeks ago",
     pd.Timestamp("1960-01-01"), np.datetime64(2**62, "s"), np.datetime64(-(2**62), "s"),
     np.datetime64("1969-12-31")],
    ids=repr,
)  # fmt: skip
def test_dates_nobody_can_trade_on(value: Any) -> None:
    """Before 1970 and after 9999 there is an error, also where integers would wrap around."""
    with pytest.raises(DateError, match="outside the years 1970 to 9999"):
        parse(value)


@pytest.mark.parametrize(
    ("value", "absolute"),
    [
        ("2024", True), ("2024-01", True), ("2024-01-01 12:00", True), ("inception", True),
        (" Inception ", True), (0, True), (NEW_YEAR, True), (pd.Timestamp("2024-01-01"), True),
        (None, False), ("now", False), ("today", False), ("7 days ago", False),
        ("in 2 days", False), ("1 May", False),
    ],
    ids=repr,
)  # fmt: skip
def test_what_needs_no_clock(value: Any, absolute: bool) -> None:
    """Only a date that means the same on every day may be answered without the clock."""
    assert is_absolute(value) is absolute
