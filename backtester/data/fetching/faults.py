"""What went wrong, from ccxt's exceptions and the HTTP answer to our errors.

Pure: classes are told by the names in their ancestry, so ccxt is not imported.
ccxt's families, not its leaves, say whether another try is worth it, and even
they mislead: a 451 arrives as `ExchangeNotAvailable` and a cut body as
`ExchangeError`. So the HTTP status speaks first.

Source: ccxt 4.5.90 `base/errors.py` and `async_support/base/exchange.py`, and
what its Binance class raised against a local server for each fault.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

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
from backtester.data.model import format_ms

__all__ = ["HttpAnswer", "retry_after_s", "translate"]

DEFAULT_PAUSE_S = 30.0
"""How long to wait after a 429 that does not say."""
_SHORTEST_WAIT_S = 1.0
DEFAULT_BAN_S = 600.0
"""How long to stay away after a ban that does not say."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What the wire said, as far as it said anything."""

    status: int | None = None
    headers: Mapping[str, str] | None = None
    unreadable: bool = False
    """Whether its body is no JSON: an HTML page, cut off, or empty."""


_DENIED = {401, 403, 407, 451, 511}
_ABSENT = {404, 405, 410}
_BAD, _NO_REASON = 400, "ExchangeNotAvailable"
"""What ccxt makes of a 400 whose body says nothing; a code in the body has its own class."""
_TOO_MANY = 429
_BANNED = 418
_TOO_FREQUENT = "too frequent"
"""How Bybit words its ban of ten minutes, with a 403; without that it is its front server that
refuses a region. https://bybit-exchange.github.io/docs/v5/rate-limit"""
_LOCKED_OUT, _LOCKED_OUT_S = "temporary lockout", 900.0
"""How Kraken words a ban, with a 200, and how long it lasts.
https://support.kraken.com/hc/articles/209234858"""
_COME_AGAIN = re.compile(
    r"try again|(internal|server) error|system (error|busy)|service return|timeout|throttled",
    re.IGNORECASE,
)
"""How exchanges word failures of their own that ccxt has as `ExchangeError` or `BadRequest`:
Bybit's 10016, KuCoin's 408000, MEXC's 500 and 513, Bitget's 40015 and 40725, Kraken's
EService:Throttled."""
_COARSE = {"ExchangeError", "BadRequest"}
_TOO_LONG_AGO = re.compile(r"too long ago\D{1,20}(\d{2,7}) points", re.IGNORECASE)
"""How Gate says how many candles ago a window may begin, since February 2026 of contracts as well.
https://github.com/ccxt/ccxt/issues/27861"""
_RESET_MS = "gw-ratelimit-reset"
"""KuCoin's word for it, in milliseconds. https://www.kucoin.com/docs-new/rate-limit"""

_BY_CLASS: dict[str, type[DataError]] = {
    "BadSymbol": UnknownSymbolError,
    "AuthenticationError": AccessDeniedError,
    "RestrictedLocation": AccessDeniedError,
    "DDoSProtection": RateLimitedError,
    "RateLimitExceeded": RateLimitedError,
    "InvalidProxySettings": OptionError,
    "BadResponse": BadResponseError,
    "NetworkError": ExchangeUnavailableError,
    "OperationFailed": ExchangeUnavailableError,
    "ExchangeError": NotServedError,
}
"""ccxt class to ours; the nearest ancestor that stands here decides."""

_WIRE_CAUSES = {"ClientPayloadError", "ClientError", "ContentEncodingError", "ContentLengthError"}


def translate(error: BaseException, answer: HttpAnswer, exchange: str) -> DataError:
    """Return our error for what ccxt raised.

    Parameters
    ----------
    error : BaseException
        From any ccxt call; ours are returned as they are.
    answer : HttpAnswer
        The answer it came from.
    exchange : str
        The exchange's id, for the sentence.
    """
    if isinstance(error, DataError):
        return error
    facts = {"exchange": exchange, "status": answer.status, "ccxt_error": type(error).__name__}
    said = _said(error, exchange)
    locked_out = _LOCKED_OUT in said.lower()
    frequent = answer.status == 403 and _TOO_FREQUENT in said
    if answer.status == _BANNED or frequent or locked_out:
        wait = _told(answer, _LOCKED_OUT_S if locked_out else DEFAULT_BAN_S)
        until = int((time.time() + wait) * 1000)
        return BannedError(
            f"{exchange} has banned this address until {format_ms(until)}; no request "
            f"is sent before then ({said})",
            until_ms=until,
            retry_after_s=wait,
            **facts,
        )
    if answer.status in _DENIED:
        return AccessDeniedError(
            f"{exchange} refuses this address, region or key (HTTP {answer.status}): {said}",
            **facts,
        )
    cls = _class_for(error, answer)
    if cls is RateLimitedError:
        wait = _told(answer, DEFAULT_PAUSE_S)
        return RateLimitedError(
            f"{exchange} asks to slow down: {said}", retry_after_s=wait, **facts
        )
    if cls is NotServedError and (told := _TOO_LONG_AGO.search(said)):
        facts["most_points"] = int(told[1])
    return cls(f"{exchange}: {said}", **facts)


def _class_for(error: BaseException, answer: HttpAnswer) -> type[DataError]:
    ancestry = [cls.__name__ for cls in type(error).__mro__]
    if answer.status == _TOO_MANY:
        return RateLimitedError
    if type(error.__cause__).__name__ in _WIRE_CAUSES and "NetworkError" not in ancestry:
        return BadResponseError  # a body that ended early
    if answer.status in _ABSENT or (answer.status == _BAD and ancestry[0] == _NO_REASON):
        return NotServedError
    if answer.status is not None and answer.status >= 500:
        return ExchangeUnavailableError
    if answer.unreadable and ancestry[0] in _COARSE:
        return BadResponseError  # some of ccxt's classes see an error code in all they cannot read
    for name in ancestry:
        if name in _BY_CLASS:
            passes = ancestry[0] in _COARSE and _COME_AGAIN.search(str(error))
            return ExchangeUnavailableError if passes else _BY_CLASS[name]
    if isinstance(error, (TypeError, ValueError, LookupError, AttributeError)):
        return BadResponseError  # ccxt's parsers stumble like this over what is not an answer
    return PermanentFetchError


def _told(answer: HttpAnswer, default_s: float) -> float:
    """Return the wait the exchange asks for; a second where it says none is needed."""
    told = retry_after_s(answer.headers)
    return default_s if told is None else max(told, _SHORTEST_WAIT_S)


def retry_after_s(headers: Mapping[str, str] | None) -> float | None:
    """Read Retry-After: seconds or an HTTP date; None when it is missing or unreadable.

    Where an exchange has a header of its own for it, that one counts.
    """
    if not headers:
        return None
    named = {name.lower(): value.strip() for name, value in headers.items()}
    own = named.get(_RESET_MS, "")
    if own.isdigit():
        return int(own) / 1000
    value = named.get("retry-after", "")
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    # HTTP dates are GMT, also in the old form that does not say so.
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0.0, aware.timestamp() - time.time())


def _said(error: BaseException, exchange: str) -> str:
    """Return the error's own words, short enough for one line."""
    text = " ".join(str(error).split()).removeprefix(f"{exchange} ")  # our sentence names it
    cause = error.__cause__
    if cause is not None and str(cause) and str(cause) not in text:
        text = f"{text} ({cause})"
    return f"{type(error).__name__}: {text[:300]}{'…' if len(text) > 300 else ''}"
