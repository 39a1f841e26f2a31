"""A question's dates become an interval, and its answer plain values."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtester.data.candles import Candles, Series
from backtester.data.errors import (
    BannedError,
    DatasetWriteError,
    DateError,
    EmptyIntervalError,
    UnknownSymbolError,
)
from backtester.data.fetching.planning import closed_end
from backtester.data.fetching.request import (
    DEFAULT_CANDLES,
    SETTLE_MS,
    FetchRequest,
    FetchResult,
    describe,
)
from backtester.data.model import DatasetKey, Interval, Served, Timeframe
from tests.support.builders import DAY, HOUR, KEY, START, answer, candles_at, hours, span_of_hours
from tests.support.strategies import moments, timeframes

NOW = START + 10 * DAY + 90 * 60_000  # 2024-01-11 01:30 UTC: the candle of 00:00 is the last closed
CLOSED = START + 10 * DAY + HOUR


def request(start: Any = None, end: Any = None, timeframe: str = "1h", **rest: Any) -> FetchRequest:
    key = DatasetKey.of("binance", "spot", timeframe)
    return FetchRequest(key, ("BTC/USDT",), start, end, **rest)


# ------------------------------------------------------------------------ the interval

RULES: dict[str, tuple[FetchRequest, tuple[int, int]]] = {
    "nothing said": (request(), (CLOSED - 1000 * HOUR, CLOSED)),
    "only an end": (request(end="2024-01-05"), (START + 4 * DAY - 1000 * HOUR, START + 4 * DAY)),
    "only a start": (request("2024-01-05"), (START + 4 * DAY, CLOSED)),
    "both": (request("2024-01-02", "2024-01-03"), (START + DAY, START + 2 * DAY)),
    "the end is exclusive": (
        request("2024-01-02", "2024-01-02 01:00"), (START + DAY, START + 25 * HOUR),
    ),
    "inside candles": (
        request("2024-01-02 00:30", "2024-01-02 03:30"), (START + 25 * HOUR, START + 28 * HOUR),
    ),
    "a relative start": (request("2 days ago"), (START + 8 * DAY + 2 * HOUR, CLOSED)),
    "a Timestamp": (request(pd.Timestamp("2024-01-05", tz="UTC")), (START + 4 * DAY, CLOSED)),
    "milliseconds": (request(START, START + DAY), (START, START + DAY)),
    "now": (request("2024-01-05", "now"), (START + 4 * DAY, CLOSED)),
    "today's end": (request("2024-01-05", "2024-01-11"), (START + 4 * DAY, START + 10 * DAY)),
    "tomorrow's midnight is now": (request("2024-01-05", "2024-01-12"), (START + 4 * DAY, CLOSED)),
    "inception": (request("inception"), (0, CLOSED)),
    "Inception to a day": (request(" Inception ", "2024-01-02"), (0, START + DAY)),
    "weeks from the epoch": (request("inception", timeframe="1w"), (4 * DAY, START + 7 * DAY)),
    "months": (request("2023-11-15", timeframe="1M"), (START - 31 * DAY, START)),
    "more weeks than there are": (request(timeframe="4w"), (4 * DAY, START - 7 * DAY)),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "bounds"), RULES.values(), ids=RULES)
def test_dates_become_an_interval(asked: FetchRequest, bounds: tuple[int, int]) -> None:
    """Every date rule, at 2024-01-11 01:30 UTC."""
    assert asked.resolve(NOW) == Interval(*bounds)


@pytest.mark.parametrize(
    ("asked", "error", "what"),
    [
        (request("2024-01-12"), DateError, "start_date 2024-01-12 00:00 UTC is in the future"),
        (request(NOW + 1), DateError, "start_date .* is in the future"),
        (request("2024-01-05", "2024-01-13"), DateError, "end_date 2024-01-13 00:00 UTC is in"),
        (request(end=NOW + DAY + 1), DateError, "end_date .* is in the future"),
        (request("garbage"), DateError, "cannot read start_date='garbage'"),
        (request("2024-01-05", "garbage"), DateError, "cannot read end_date='garbage'"),
        (request("1950-01-01"), DateError, "outside the years 1970"),
        (request("2024-01-05", "2024-01-05"), EmptyIntervalError, "not before end_date"),
        (request("2024-01-06", "2024-01-05"), EmptyIntervalError, "not before end_date"),
        (request(NOW, NOW + HOUR), EmptyIntervalError, "no closed 1h candle opens between"),
        (request("2024-01-11 01:00"), EmptyIntervalError, "no closed 1h candle"),
        (request("2024-01-11 00:01"), EmptyIntervalError, "no closed 1h candle"),
        (request("2024-01-02 00:10", "2024-01-02 00:50"), EmptyIntervalError, "no closed 1h"),
        (request("2024-01-03", timeframe="1M"), EmptyIntervalError, "no closed 1M candle"),
        (request(end="1970-01-01"), EmptyIntervalError, "not before the end"),
        (request("inception", "1970-01-01"), EmptyIntervalError, "not before end_date"),
    ],
)  # fmt: skip
def test_questions_without_an_answer(asked: FetchRequest, error: type, what: str) -> None:
    """The future, an empty stretch, and what is no date are told apart, with the times."""
    with pytest.raises(error, match=what):
        asked.resolve(NOW)


def test_a_candle_belongs_to_the_answer_once_it_has_settled() -> None:
    """Two seconds after its close, by the exchange's clock, and not a millisecond earlier."""
    assert request().resolve(CLOSED + HOUR + SETTLE_MS - 1).end == CLOSED
    assert request().resolve(CLOSED + HOUR + SETTLE_MS).end == CLOSED + HOUR


@given(
    timeframes(),
    moments(10**12, 4 * 10**12),
    st.one_of(st.none(), st.just("inception"), st.integers(0, 4 * 10**12)),
    st.one_of(st.none(), st.integers(0, 4 * 10**12)),
)
def test_what_is_asked_for_is_closed_and_on_the_grid(
    timeframe: Timeframe, now_ms: int, start: Any, end: int | None
) -> None:
    """Whatever the dates: an interval of whole closed candles inside them, or an error."""
    asked = FetchRequest(DatasetKey("binance", KEY.market_type, timeframe), ("X",), start, end)
    try:
        found = asked.resolve(now_ms)
    except (DateError, EmptyIntervalError):
        return
    assert timeframe.align(found) == found
    assert found.start >= 0
    assert found.end <= closed_end(timeframe, now_ms, SETTLE_MS)
    first = 0 if start == "inception" else start
    until = now_ms if end is None else end
    assert timeframe.next(found.end, -1) < until, "the last candle opens before the end"
    if first is not None:
        assert found.start >= first
        assert timeframe.next(found.start, -1) < max(first, 1), "no earlier candle was asked for"
        later = timeframe.next(found.end)
        assert later > until or later > closed_end(timeframe, now_ms, SETTLE_MS)
    else:
        steps = timeframe.steps(found)
        assert steps == DEFAULT_CANDLES or found.start == timeframe.ceil(0)


@pytest.mark.parametrize(
    ("asked", "dated"),
    [
        (request("2024-01-01", "2024-01-02"), True),
        (request("inception", START), True),
        (request(datetime(2024, 1, 1, tzinfo=UTC), pd.Timestamp("2024-01-02")), True),
        (request("2024-01-01"), False),
        (request(end="2024-01-01"), False),
        (request("7 days ago", "2024-01-02"), False),
        (request("2024-01-01", "now"), False),
        (request(), False),
    ],
)
def test_which_questions_need_no_clock(asked: FetchRequest, dated: bool) -> None:
    """Only those whose both ends mean the same on every day."""
    assert asked.dated is dated


@pytest.mark.parametrize(
    ("asked", "now_ms", "open_ms"),
    [
        (request(), NOW, CLOSED),
        (request("2024-01-05", "2024-01-12"), NOW, CLOSED),
        (request("2024-01-05", "2024-01-11 01:00"), NOW, None),
        (request("2024-01-05", "2024-01-11 01:00:01"), NOW, CLOSED),
        (request("2024-01-05", "2024-01-06"), NOW, None),
        (request(), CLOSED + HOUR + 1_999, CLOSED),
        (request(), CLOSED + HOUR + 2_000, CLOSED + HOUR),
    ],
)
def test_which_candle_is_forming(asked: FetchRequest, now_ms: int, open_ms: int | None) -> None:
    """The first that is not closed, if the question reaches it: never a gap before it."""
    assert asked.forming(now_ms) == open_ms
    if open_ms is not None:
        assert asked.resolve(now_ms).end == open_ms


# ------------------------------------------------------------------------ the answer


def result() -> FetchResult:
    """Make a result with everything in it: gaps, a failure, a revision, a forming candle."""
    series = Series().with_answers(
        [
            answer(first=0, count=2, served=Served.NOT_LISTED, asked_ms=5),
            answer(first=2, count=4, without=(3,), asked_ms=5),
            answer(first=2, count=1, seed=1, asked_ms=6),
            answer(first=8, count=1, served=Served.DELISTED, asked_ms=5),
        ]
    )
    return FetchResult(
        request("2024-01-01", "2024-01-01 10:00"),
        Path("somewhere"),
        interval=span_of_hours(0, 10),
        series={"BTCUSDT": series, "ETH/USDT": Series()},
        failures={"X": UnknownSymbolError("no X", symbol="X")},
        revisions={"BTCUSDT": series.revisions},
        forming={"BTCUSDT": candles_at(hours(10, 1)), "ETH/USDT": Candles.empty()},
        requests=7,
        as_of_ms=NOW,
        seconds=1.23456,
        storage_error=DatasetWriteError("cannot write", path="p"),
    )


def plainly_equal(value: Any) -> bool:
    """Tell whether a value is made of JSON's types alone and survives JSON."""

    def plain(part: Any) -> bool:
        if isinstance(part, dict):
            return all(type(k) is str and plain(v) for k, v in part.items())
        if isinstance(part, list):
            return all(map(plain, part))
        return type(part) in (str, int, float, bool, type(None))

    return plain(value) and json.loads(json.dumps(value, allow_nan=False)) == value


def test_the_account_tells_everything_in_plain_values() -> None:
    """What was asked, got, absent and failed; every grid time counted once."""
    account = result().account()
    assert account == {
        "exchange": "binance", "market_type": "spot", "timeframe": "1h",
        "start_ms": START, "end_ms": START + 10 * HOUR, "as_of_ms": NOW,
        "requests": 7, "seconds": 1.235,
        "symbols": {
            "BTCUSDT": {
                "candles": 3, "first_ms": START + 2 * HOUR, "last_ms": START + 5 * HOUR,
                "absent": {"not_listed": 2, "no trades": 1, "delisted": 1, "never asked": 3},
            },
            "ETH/USDT": {
                "candles": 0, "first_ms": None, "last_ms": None, "absent": {"never asked": 10},
            },
        },
        "failures": {"X": {"error": "UnknownSymbolError", "message": "no X"}},
        "revisions": {"BTCUSDT": 1}, "archives": {}, "derived": {}, "differing": {},
        "storage_error": {"error": "DatasetWriteError", "message": "cannot write"},
    }  # fmt: skip
    assert plainly_equal(account)
    for one in account["symbols"].values():
        assert one["candles"] + sum(one["absent"].values()) == 10


def test_the_metadata_travels_as_plain_values() -> None:
    """With the revisions in full, and which candle was still forming."""
    metadata = result().metadata()
    old, new = (candles_at(hours(2, 1), seed).values[0].tolist() for seed in (0, 1))
    assert metadata["revisions"] == {
        "BTCUSDT": [
            {"open_ms": hours(2, 1)[0], "old": old, "new": new,
             "old_asked_ms": 5, "new_asked_ms": 6}
        ]
    }  # fmt: skip
    assert metadata["forming"] == {"BTCUSDT": START + 10 * HOUR}
    assert metadata["failures"] == {"X": {"error": "UnknownSymbolError", "message": "no X"}}
    assert plainly_equal(metadata)


def test_an_empty_result_is_accounted_for_too() -> None:
    """Before anything is known there is an account, and it is as plain."""
    empty = FetchResult(request(), Path())
    assert plainly_equal(empty.account())
    assert plainly_equal(empty.metadata())
    assert empty.complete
    assert empty.tables() == {}


def test_the_forming_candle_is_laid_on_top() -> None:
    """It is in the tables that are handed out and not in the series that are kept."""
    one = result()
    tables = one.tables()
    assert tables["BTCUSDT"].open_time.tolist() == hours(2, 1) + hours(4, 2) + hours(10, 1)
    assert len(one.series["BTCUSDT"].candles) == 3
    assert tables["ETH/USDT"] == Candles.empty()


def test_a_result_is_complete_when_nothing_failed() -> None:
    """A failed symbol or a failed write is not complete."""
    one = result()
    assert not one.complete
    one.failures.clear()
    assert not one.complete
    one.storage_error = None
    assert one.complete


def test_an_error_in_plain_values() -> None:
    """Its class and its sentence."""
    assert describe(BannedError("wait", until_ms=np.int64(7))) == {
        "error": "BannedError", "message": "wait",
    }  # fmt: skip
