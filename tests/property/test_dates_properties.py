"""Whatever is written as a date is read back as the same moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from backtester.data.dates import is_absolute, parse_date
from backtester.data.errors import DateError
from backtester.data.model import format_ms
from tests.support.strategies import moments

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = 253_402_300_799_000


def parse(value: object, now_ms: int = 0) -> int:
    return parse_date(value, now_ms=now_ms, param="end_date")


@given(moments(last=LAST), st.integers(-23 * 60, 23 * 60))
def test_a_moment_is_read_back_in_every_form(ms: int, zone_minutes: int) -> None:
    """Text, datetimes, Timestamps, NumPy's dates and numbers of one moment give it back."""
    moment = EPOCH + timedelta(milliseconds=ms)
    assert parse(moment) == ms
    assert parse(moment.isoformat()) == ms
    assert parse(moment.replace(tzinfo=None).isoformat(" ")) == ms
    if 1 < moment.year < 9999:
        elsewhere = moment.astimezone(pd.Timestamp(0, tz=zone_minutes * 60).tzinfo)
        assert parse(elsewhere) == parse(elsewhere.isoformat()) == ms
    assert parse(pd.Timestamp(ms, unit="ms")) == parse(pd.Timestamp(ms, unit="ms", tz="UTC")) == ms
    assert parse(np.datetime64(ms, "ms")) == ms
    if ms == 0 or ms >= 10**11:  # smaller numbers are most likely seconds
        assert parse(ms) == parse(float(ms)) == parse(np.int64(ms)) == ms


@given(moments(last=LAST))
def test_what_we_print_can_be_given_back(ms: int) -> None:
    """A time copied from one of our messages is that time, to the second."""
    assert parse(format_ms(ms)) == ms // 1000 * 1000
    assert is_absolute(format_ms(ms))


@given(st.integers(10**12, 10**13 - 1))
def test_milliseconds_as_text(ms: int) -> None:
    """Thirteen digits are milliseconds, as from a shell, and never a compact date."""
    assert parse(str(ms)) == ms


texts = st.one_of(
    st.text(max_size=20),
    st.text("0123456789-:/. TZ+", max_size=20),
    st.builds(
        "{:%Y-%m-%d}{}{}".format,
        st.dates(min_value=EPOCH.date()),
        st.sampled_from(["", " ", "T", "-"]),
        st.sampled_from(["1 day ago", "ago", "now", "EST", "5pm", "noon", "25:00", "yesterday",
                         "2 weeks", "in 3 days", "+99:00", "12", "1", "monday", "May"]),
    ),
)  # fmt: skip


@given(texts, moments(), moments())
def test_any_text_is_a_date_or_an_error(text: str, now_ms: int, other_now_ms: int) -> None:
    """No text ends in another exception, and none that needs no clock depends on it."""
    found = []
    for now in (now_ms, other_now_ms):
        try:
            found.append(parse(text, now_ms=now))
        except DateError:
            found.append(None)
    assert all(ms is None or type(ms) is int for ms in found)
    if is_absolute(text):
        assert found[0] == found[1]


@given(moments(10**12), st.integers(0, 10_000), st.sampled_from(["hour", "day", "week"]))
def test_ago_is_a_subtraction(now_ms: int, count: int, unit: str) -> None:
    """So many hours, days or weeks ago are exactly that many before the clock given."""
    length = {"hour": 3_600_000, "day": 86_400_000, "week": 604_800_000}[unit]
    if now_ms >= count * length:
        assert parse(f"{count} {unit}s ago", now_ms=now_ms) == now_ms - count * length
