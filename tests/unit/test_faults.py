"""From ccxt's exceptions and the HTTP answer to our errors, class by class."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import pytest
from ccxt.base import errors as theirs

from backtester.data import errors as ours
from backtester.data.errors import (
    AccessDeniedError,
    BadResponseError,
    BannedError,
    DataError,
    ExchangeUnavailableError,
    NotServedError,
    OptionError,
    PermanentFetchError,
    RateLimitedError,
    UnknownSymbolError,
)
from backtester.data.fetching import faults
from backtester.data.fetching.faults import HttpAnswer, retry_after_s, translate

NOW_S = 1_700_000_000.0

WITHOUT_STATUS: dict[str, type[DataError]] = {
    **dict.fromkeys(["DDoSProtection", "RateLimitExceeded"], RateLimitedError),
    **dict.fromkeys(
        ["OperationFailed", "NetworkError", "ExchangeNotAvailable", "OnMaintenance",
         "InvalidNonce", "ChecksumError", "RequestTimeout", "CancelPending"],
        ExchangeUnavailableError,
    ),
    **dict.fromkeys(["BadResponse", "NullResponse"], BadResponseError),
    **dict.fromkeys(
        ["AuthenticationError", "PermissionDenied", "AccountNotEnabled", "AccountSuspended",
         "RestrictedLocation"],
        AccessDeniedError,
    ),
    "BadSymbol": UnknownSymbolError,
    "InvalidProxySettings": OptionError,
    **dict.fromkeys(
        ["ExchangeError", "ArgumentsRequired", "BadRequest", "OperationRejected", "NoChange",
         "MarginModeAlreadySet", "MarketClosed", "ManualInteractionNeeded", "InsufficientFunds",
         "InvalidAddress", "AddressPending", "InvalidOrder", "OrderNotFound", "OrderNotCached",
         "OrderImmediatelyFillable", "OrderNotFillable", "DuplicateOrderId",
         "ContractUnavailable", "NotSupported", "ExchangeClosedByUser"],
        NotServedError,
    ),
    **dict.fromkeys(["BaseError", "UnsubscribeError"], PermanentFetchError),
}  # fmt: skip
"""What each of ccxt's classes means by itself."""


@pytest.fixture(autouse=True)
def _stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW_S)


def names_in(tree: dict) -> set[str]:
    return {name for key, inner in tree.items() for name in {key, *names_in(inner)}}


def test_every_class_of_ccxt_is_decided() -> None:
    """The table knows each exception that this ccxt has; a new one must be put in it."""
    assert names_in(theirs.error_hierarchy) == WITHOUT_STATUS.keys()


@pytest.mark.parametrize("name", WITHOUT_STATUS)
def test_classes_without_a_status(name: str) -> None:
    """Where no answer came, ccxt's family decides whether another try is worth it."""
    error = translate(getattr(theirs, name)("words"), HttpAnswer(), "okx")
    assert type(error) is WITHOUT_STATUS[name]
    assert (error.exchange, error.status, error.ccxt_error) == ("okx", None, name)
    assert "okx" in str(error)
    assert "words" in str(error)


BY_STATUS: list[tuple[str, int, type[DataError]]] = [
    # ccxt's name says "try again"; the status says otherwise
    ("ExchangeNotAvailable", 400, NotServedError),
    ("ExchangeNotAvailable", 403, AccessDeniedError),
    ("ExchangeNotAvailable", 404, NotServedError),
    ("ExchangeNotAvailable", 405, NotServedError),
    ("ExchangeNotAvailable", 410, NotServedError),
    ("ExchangeNotAvailable", 451, AccessDeniedError),
    ("RestrictedLocation", 451, AccessDeniedError),
    ("RateLimitExceeded", 403, AccessDeniedError),  # bybit's firewall
    ("AuthenticationError", 401, AccessDeniedError),
    ("AuthenticationError", 511, AccessDeniedError),
    ("NetworkError", 407, AccessDeniedError),
    # too many requests, under whatever name
    ("DDoSProtection", 429, RateLimitedError),
    ("RateLimitExceeded", 429, RateLimitedError),
    ("ExchangeNotAvailable", 429, RateLimitedError),  # okx
    ("ExchangeError", 429, RateLimitedError),
    ("DDoSProtection", 418, BannedError),
    ("RateLimitExceeded", 418, BannedError),
    ("ExchangeError", 418, BannedError),
    ("DDoSProtection", 503, ExchangeUnavailableError),
    # down
    ("ExchangeNotAvailable", 500, ExchangeUnavailableError),
    ("ExchangeNotAvailable", 502, ExchangeUnavailableError),
    ("ExchangeNotAvailable", 520, ExchangeUnavailableError),
    ("RequestTimeout", 504, ExchangeUnavailableError),
    ("OnMaintenance", 503, ExchangeUnavailableError),
    ("OperationFailed", 500, ExchangeUnavailableError),  # binance -1001
    ("ExchangeError", 500, ExchangeUnavailableError),
    # the body had a code of its own
    ("OperationFailed", 400, ExchangeUnavailableError),
    ("DDoSProtection", 400, RateLimitedError),  # binance -1003
    ("OnMaintenance", 400, ExchangeUnavailableError),
    ("BadSymbol", 400, UnknownSymbolError),
    ("BadRequest", 400, NotServedError),
    ("BadSymbol", 200, UnknownSymbolError),
    ("RateLimitExceeded", 200, RateLimitedError),
    ("BadResponse", 200, BadResponseError),
    ("NotSupported", None, NotServedError),
]  # fmt: skip


@pytest.mark.parametrize(("name", "status", "expected"), BY_STATUS)
def test_the_status_speaks_first(name: str, status: int, expected: type[DataError]) -> None:
    """A 451 is no outage, a 429 under any name is a pause, and a 418 stops everything."""
    error = translate(getattr(theirs, name)("words"), HttpAnswer(status, {}), "binance")
    assert type(error) is expected
    assert error.status == status


CUT = aiohttp.ClientPayloadError("Response payload is not completed")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        # async ccxt calls a body that ended early an ExchangeError
        (caused(theirs.ExchangeError("x"), CUT), 200, BadResponseError),
        (caused(theirs.ExchangeError("x"), CUT), None, BadResponseError),
        (caused(theirs.NetworkError("x"), CUT), 200, ExchangeUnavailableError),
        (caused(theirs.ExchangeError("x"), CUT), 429, RateLimitedError),
        (caused(theirs.ExchangeError("x"), ValueError("no")), 200, NotServedError),
        # ccxt's parsers over what is not an answer
        (TypeError("'NoneType'"), 200, BadResponseError),
        (KeyError("data"), 200, BadResponseError),
        (IndexError("list index"), 200, BadResponseError),
        (ValueError("JSON"), 200, BadResponseError),
        (AttributeError("get"), 200, BadResponseError),
        (AttributeError("get"), 502, ExchangeUnavailableError),
        (RuntimeError("?"), 200, PermanentFetchError),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_not_ccxts_own(
    error: Exception, status: int | None, expected: type[DataError]
) -> None:
    """Cut bodies and stumbling parsers are faults to retry; what nobody knows is not."""
    assert type(translate(error, HttpAnswer(status), "binance")) is expected


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "ExchangeError",
            'bybit {"retCode":10016,"retMsg":"System error. Please try again later."}',
        ),
        ("BadRequest", 'kucoin {"code":"408000","msg":"Network timeout, please try again later"}'),
        ("ExchangeError", 'mexc {"success":false,"code":500,"message":"Internal error!"}'),
        ("ExchangeError", 'bitget {"code":"40015","msg":"System is abnormal, please try again"}'),
        ("ExchangeError", 'bybit {"retCode":10016,"retMsg":"Server error."}'),
        ("ExchangeError", 'bitget {"code":"40725","msg":"service return an error"}'),
        ("ExchangeError", "kraken EService: Throttled: 1700000030"),
    ],
)
def test_an_exchange_that_says_come_again_is_asked_again(name: str, words: str) -> None:
    """Failures of their own that ccxt takes for final ones are retried; so is no wrong symbol."""
    error = translate(getattr(theirs, name)(words), HttpAnswer(200, {}), "x")
    assert type(error) is ExchangeUnavailableError
    assert type(translate(theirs.BadSymbol(words), HttpAnswer(200, {}), "x")) is UnknownSymbolError


def test_what_cannot_be_read_is_no_final_answer() -> None:
    """Some of ccxt's classes look for an error code in HTML, too; a code that is there counts."""
    said = theirs.ExchangeError("cryptocom <!DOCTYPE html>")
    assert type(translate(said, HttpAnswer(200, unreadable=True), "x")) is BadResponseError
    assert type(translate(said, HttpAnswer(200), "x")) is NotServedError
    assert type(translate(said, HttpAnswer(404, unreadable=True), "x")) is NotServedError


def test_krakens_lockout_is_a_ban_of_a_quarter_of_an_hour() -> None:
    """It comes with status 200 and as the class of a mere pause."""
    error = translate(
        theirs.DDoSProtection("kraken EGeneral:Temporary lockout"), HttpAnswer(200), "x"
    )
    assert type(error) is BannedError
    assert error.until_ms == int((NOW_S + 900) * 1000)


def test_our_own_errors_pass_through() -> None:
    """What is translated already stays as it is, whatever the status."""
    error = ours.CandleError("x")
    assert translate(error, HttpAnswer(418), "binance") is error


def test_exactly_these_are_tried_again() -> None:
    """Of all classes at status 200, the retried ones are those that may pass."""
    retried = {
        name
        for name in WITHOUT_STATUS
        if isinstance(
            translate(getattr(theirs, name)(""), HttpAnswer(200), "x"), ours.TransientFetchError
        )
    }
    assert retried == {
        "DDoSProtection", "RateLimitExceeded", "OperationFailed", "NetworkError",
        "ExchangeNotAvailable", "OnMaintenance", "InvalidNonce", "ChecksumError",
        "RequestTimeout", "CancelPending", "BadResponse", "NullResponse",
    }  # fmt: skip


# ------------------------------------------------------------------------ how long


def http_date(seconds: float) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=NOW_S + seconds)
    return format_datetime(moment, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (None, None), ({}, None), ({"Date": "x"}, None),
        ({"Retry-After": "17"}, 17.0), ({"retry-after": " 17 "}, 17.0),
        ({"RETRY-AFTER": "0.5"}, 0.5), ({"Retry-After": "0"}, 0.0), ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": ""}, None), ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None), ({"Retry-After": "inf"}, None),
        ({"Retry-After": "1e999"}, None),
        ({"Retry-After": http_date(90)}, 90.0), ({"Retry-After": http_date(-90)}, 0.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:14:50 +0000"}, 90.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:14:50 -0000"}, 90.0),
        ({"Retry-After": "Tue Nov 14 22:14:50 2023"}, 90.0),  # the oldest form, GMT as well
        ({"Retry-After": "Tue, 99 Nov 2023 22:14:50 GMT"}, None),
    ],
    ids=str,
)  # fmt: skip
def test_forms_of_retry_after(
    headers: dict[str, str] | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds or an HTTP date in any zone; what cannot be read is as if nothing was said."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert retry_after_s(headers) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_pause_lasts_as_long_as_the_exchange_says() -> None:
    """Or half a minute, where it does not say."""
    limited = theirs.RateLimitExceeded("slow down")
    said = translate(limited, HttpAnswer(429, {"Retry-After": "7"}), "x")
    unsaid = translate(limited, HttpAnswer(429, {}), "x")
    assert (said.retry_after_s, unsaid.retry_after_s) == (7.0, faults.DEFAULT_PAUSE_S)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [({"Retry-After": "120"}, 120.0), ({}, 600.0), ({"Retry-After": "inf"}, 600.0)],
    ids=str,
)
def test_a_ban_says_until_when(headers: dict[str, str], wait_s: float) -> None:
    """In milliseconds of the epoch, and in words."""
    error = translate(theirs.DDoSProtection("go away"), HttpAnswer(418, headers), "binance")
    assert error.until_ms == int((NOW_S + wait_s) * 1000)
    assert error.retry_after_s == wait_s
    assert "banned this address until 2023-11-14" in str(error)


def test_long_words_are_shortened() -> None:
    """A page of HTML in an exception does not become a page in our message."""
    error = translate(theirs.ExchangeError("<html>\n" + "x " * 9000), HttpAnswer(200), "okx")
    assert len(str(error)) < 400
    assert "\n" not in str(error)
    assert str(error).endswith("…")
    causal = caused(theirs.NetworkError("binance GET url"), OSError("connection refused"))
    assert "(connection refused)" in str(translate(causal, HttpAnswer(), "binance"))


def test_a_sentence_names_the_exchange_once() -> None:
    """ccxt begins its messages with the exchange's id, and so do we."""
    refused = theirs.ExchangeNotAvailable("kraken GET https://api.kraken.com/0/public/Time")
    assert str(translate(refused, HttpAnswer(None), "kraken")) == (
        "kraken: ExchangeNotAvailable: GET https://api.kraken.com/0/public/Time"
    )
