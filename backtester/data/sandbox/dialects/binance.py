"""Binance's REST dialect: spot, USD-M and COIN-M futures.

Shapes and weights follow Binance's public API documentation for market data
and recorded answers; the client they are tested with is ccxt's own.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from backtester.data.errors import UnknownTimeframeError
from backtester.data.model import Interval, MarketType, Timeframe
from backtester.data.sandbox.dialects import Call, Columns, Page, Rejected, Reply
from backtester.data.sandbox.dialects import binance_coinm_payloads as coinm
from backtester.data.sandbox.dialects import binance_payloads as payloads
from backtester.data.sandbox.dialects.common import web_page
from backtester.data.sandbox.source import Bars, Listing, MarketSource, newest, oldest

__all__ = ["CCXT_PATHS", "WEIGHT_LIMITS", "Binance", "make"]

CCXT_PATHS: Final[Mapping[str, str]] = {
    "public": "/api/v3",
    "fapiPublic": "/fapi/v1",
    "dapiPublic": "/dapi/v1",
}
"""Keys of ccxt's ``urls['api']`` and the paths behind them."""

WEIGHT_LIMITS: Final[Mapping[str, int]] = {"spot": 6000, "usdm": 2400, "coinm": 2400}
"""Weight per minute and family of endpoints."""

_ROOTS: Final = {"/api/v3/": "spot", "/fapi/v1/": "usdm", "/dapi/v1/": "coinm"}
_TYPES: Final = {
    "spot": (MarketType.SPOT,),
    "usdm": (MarketType.SWAP, MarketType.FUTURE),
    "coinm": (MarketType.SWAP, MarketType.FUTURE),
}
_INTERVALS: Final = frozenset(
    ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
)
_DEFAULT_LIMIT: Final = 500
_MOST_ROWS: Final = {"spot": 1000, "usdm": 1500, "coinm": 1500}
_PAGES_KEPT: Final = 64
_LONGEST_MS: Final = {"coinm": 200 * 86_400_000}
"""The longest window in one request: Binance's page on COIN-M klines says 200 days."""
_DESCRIBED: Final = {
    "spot": payloads.spot_symbol,
    "usdm": payloads.contract,
    "coinm": coinm.contract,
}
_TICKERS: Final = {
    "spot": payloads.spot_ticker,
    "usdm": payloads.contract_ticker,
    "coinm": coinm.ticker,
}
_NUMBER: Final = re.compile(r"[0-9]{1,20}\Z")
_LATEST_MS: Final = 2**53
_SYMBOL: Final = re.compile(r"[A-Z0-9_.-]{1,20}\Z")
_ASK: Final = (
    "Please use WebSocket Streams for live updates to avoid polling the API."  # as Binance puts it
)


@dataclass(frozen=True, slots=True)
class _Question:
    """What a klines request asks for."""

    family: str
    listing: Listing
    timeframe: Timeframe
    start: int | None
    end: int | None
    limit: int


def make(market: MarketSource, weight_limits: Mapping[str, int] | None) -> Binance:
    """Make the dialect; what every module of this folder offers."""
    return Binance(market, weight_limits)


class Binance:
    """Answers as Binance would for the symbols of a market.

    Parameters
    ----------
    market : MarketSource
    weight_limits : mapping of str to int, optional
        Weight per minute for ``"spot"``, ``"usdm"`` and ``"coinm"``; those left out keep
        Binance's own.

    Notes
    -----
    Not thread-safe: it belongs to the server's loop.
    """

    columns = Columns(time=0, open=1, high=2, low=3, close=4, volume=5)
    window_s = 60.0
    ccxt_paths = CCXT_PATHS

    def __init__(
        self, market: MarketSource, weight_limits: Mapping[str, int] | None = None
    ) -> None:
        self._market = market
        self._limits = {**WEIGHT_LIMITS, **(weight_limits or {})}
        self._intervals = {str(t): t for t in market.timeframes if str(t) in _INTERVALS}
        self._listings: dict[str, dict[str, Listing]] = {
            family: {item.market.id: item for kind in kinds for item in market.listings(kind)}
            for family, kinds in _TYPES.items()
            if family != "coinm"
        }
        contracts = [item for kind in _TYPES["coinm"] for item in market.listings(kind)]
        self._listings["coinm"] = coinm.listings(contracts)
        # Rendered pages that can no longer change, with the moment from which that is so.
        self._pages: OrderedDict[_Question, tuple[int, Reply]] = OrderedDict()
        self._endpoints: dict[str, Callable[[Call, int], Reply]] = {
            "ping": lambda call, now_ms: _json({}),
            "time": lambda call, now_ms: _json({"serverTime": now_ms}, tells_time=True),
            "exchangeInfo": self._exchange_info,
            "klines": self._klines,
            "ticker/24hr": self._tickers,
        }

    # ----------------------------------------------------------------- calls

    def family(self, path: str) -> str | None:
        return next((family for root, family in _ROOTS.items() if path.startswith(root)), None)

    def limit(self, call: Call) -> int:
        return self._limits[call.family]

    def weight(self, call: Call) -> int:
        """Return a call's weight, by the tables of Binance's documentation."""
        spot, endpoint = call.family == "spot", _endpoint(call)
        if endpoint == "klines":
            return 2 if spot else _klines_weight(call.params.get("limit", ""))
        if endpoint == "exchangeInfo":
            return 20 if spot else 1
        if endpoint == "ticker/24hr":
            return _ticker_weight(call.params) if spot else 1 if "symbol" in call.params else 40
        return 1

    def symbol(self, call: Call) -> str | None:
        listing = self._listings[call.family].get(call.params.get("symbol", ""))
        return listing.symbol if listing else None

    def answer(self, call: Call, now_ms: int) -> Reply:
        return self._endpoints.get(_endpoint(call), _unknown_path)(call, now_ms)

    # ----------------------------------------------------------------- failures

    def weight_headers(self, used: int) -> dict[str, str]:
        return {"x-mbx-used-weight": str(used), "x-mbx-used-weight-1m": str(used)}

    def limited(self, call: Call, retry_after_s: int) -> Reply:
        message = (
            f"Too much request weight used; current limit is {self.limit(call)} request "
            f"weight per 1 MINUTE. {_ASK}"
        )
        return _error(429, -1003, message, retry_after_s)

    def banned(self, until_ms: int, retry_after_s: int) -> Reply:
        message = f"Way too much request weight used; IP banned until {until_ms}. {_ASK}"
        return _error(418, -1003, message, retry_after_s)

    def failure(self, status: int) -> Reply:
        if status == 451:
            message = (
                "Service unavailable from a restricted location according to 'b. Eligibility' "
                "in the terms of use."
            )
            return _error(451, 0, message)
        return web_page(status)

    def disconnected(self) -> Reply:
        message = "Internal error; unable to process your request. Please try again."
        return _error(500, -1001, message)

    def maintenance(self) -> Reply:
        return _error(503, 1, "System is under maintenance.")

    def with_clock_off(self, reply: Reply, offset_ms: int) -> Reply:
        payload = orjson.loads(reply.body)
        payload["serverTime"] += offset_ms
        return replace(reply, body=orjson.dumps(payload))

    def rows_of(self, reply: Reply) -> list[list[Any]]:
        rows: list[list[Any]] = orjson.loads(reply.body)
        return rows

    def with_rows(self, reply: Reply, rows: list[list[Any]]) -> Reply:
        return replace(reply, body=orjson.dumps(rows))

    # ----------------------------------------------------------------- candles

    def _klines(self, call: Call, now_ms: int) -> Reply:
        listing = self._listing(call, _required(call, "symbol"), now_ms)
        timeframe = self._intervals.get(_required(call, "interval"))
        if timeframe is None:
            raise _invalid_interval()
        limit = _whole(call, "limit")
        if limit == 0:
            raise _rejected(-1130, "Data sent for parameter 'limit' is not valid.")
        question = _Question(
            call.family,
            listing,
            timeframe,
            *_bounds(call),
            min(limit or _DEFAULT_LIMIT, _MOST_ROWS[call.family]),
        )
        settled_ms, reply = self._pages.get(question, (0, None))
        if reply is None or now_ms < settled_ms:
            return self._rendered(question, now_ms)
        self._pages.move_to_end(question)
        return reply

    def _rendered(self, question: _Question, now_ms: int) -> Reply:
        listing, timeframe = question.listing, question.timeframe
        try:
            bars = self._bars(question, now_ms)
        except UnknownTimeframeError:  # the market has it, but not of this symbol
            raise _invalid_interval() from None
        if question.family == "coinm":
            bars = coinm.in_contracts(bars, listing)
        body = payloads.rows(bars, timeframe, spot=question.family == "spot")
        page = Page(listing.symbol, timeframe, (question.start, question.end))
        reply = Reply(200, body, page, rows=len(bars))
        settled_ms = _settled_ms(question, bars)
        if settled_ms is not None and settled_ms <= now_ms:
            self._pages[question] = (settled_ms, reply)
            if len(self._pages) > _PAGES_KEPT:
                self._pages.popitem(last=False)
        return reply

    def _bars(self, question: _Question, now_ms: int) -> Bars:
        """From `startTime` the oldest come first; without it, the newest are kept."""
        start = question.start or 0
        last_open = now_ms if question.end is None else min(question.end, now_ms)
        interval = Interval(start, max(last_open, start) + 1)
        ask = newest if question.start is None else oldest
        bars = ask(
            self._market, question.listing, question.timeframe, interval, question.limit, now_ms
        )
        return bars if start <= last_open else bars[:0]

    def _listing(self, call: Call, market_id: str, now_ms: int) -> Listing:
        if not _SYMBOL.match(market_id):
            raise _illegal("symbol", "^[A-Z0-9-_.]{1,20}$")
        listing = self._listings[call.family].get(market_id)
        if listing is None or not listing.known_at(now_ms):
            raise _rejected(-1121, "Invalid symbol.")
        return listing

    # ----------------------------------------------------------------- listings

    def _exchange_info(self, call: Call, now_ms: int) -> Reply:
        known = [item for item in self._listings[call.family].values() if item.known_at(now_ms)]
        if "symbol" in call.params or "symbols" in call.params:
            known = self._asked(call, now_ms)
        describe = _DESCRIBED[call.family]
        payload = {
            "timezone": "UTC",
            "serverTime": now_ms,
            "rateLimits": payloads.rate_limits(call.family, self.limit(call)),
            "exchangeFilters": [],
            "symbols": [describe(item, known, now_ms) for item in known],
        }
        return _json(payload, tells_time=True)

    def _asked(self, call: Call, now_ms: int) -> list[Listing]:
        """Read `symbol` or `symbols`."""
        if "symbol" in call.params:
            return [self._listing(call, call.params["symbol"], now_ms)]
        try:
            ids = orjson.loads(call.params["symbols"])
        except orjson.JSONDecodeError:
            ids = None
        if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
            raise _illegal(
                "symbols", '^\\[("[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}){0,1}\\]$'
            )
        return [self._listing(call, market_id, now_ms) for market_id in ids]

    # ----------------------------------------------------------------- tickers

    def _tickers(self, call: Call, now_ms: int) -> Reply:
        if "symbol" in call.params or (call.family == "spot" and "symbols" in call.params):
            asked = self._asked(call, now_ms)
        else:
            asked = [item for item in self._listings[call.family].values() if item.known_at(now_ms)]
        spell = _TICKERS[call.family]
        payload = [spell(item, self._market.ticker(item.symbol, now_ms)) for item in asked]
        return _json(payload[0] if "symbol" in call.params else payload)


# --------------------------------------------------------------------------- replies


def _json(payload: object, *, tells_time: bool = False) -> Reply:
    return Reply(200, orjson.dumps(payload), tells_time=tells_time)


def _error(status: int, code: int, message: str, retry_after_s: int | None = None) -> Reply:
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return Reply(status, orjson.dumps({"code": code, "msg": message}), headers=headers)


def _rejected(code: int, message: str) -> Rejected:
    return Rejected(_error(400, code, message))


def _endpoint(call: Call) -> str:
    return call.path.split("/", 3)[3]


def _unknown_path(call: Call, now_ms: int) -> Reply:
    return _error(404, -5000, f"Path {call.path}, Method GET is invalid")


# --------------------------------------------------------------------------- parameters


def _required(call: Call, name: str) -> str:
    value = call.params.get(name, "")
    if not value:
        raise _rejected(
            -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
        )
    return value


def _whole(call: Call, name: str) -> int | None:
    text = call.params.get(name)
    if text is None:
        return None
    if not _NUMBER.match(text):
        raise _illegal(name, "^[0-9]{1,20}$")
    return min(int(text), _LATEST_MS)


def _bounds(call: Call) -> tuple[int | None, int | None]:
    """Read the window's ends: on COIN-M a start alone reaches as far as a window may be long."""
    start, end = _whole(call, "startTime"), _whole(call, "endTime")
    longest = _LONGEST_MS.get(call.family)
    if start is None or longest is None:
        return start, end
    if end is None:
        return start, start + longest
    if end - start > longest:
        hours = longest // 3_600_000
        message = f"Lookup interval is too big. More than {hours} hours between startTime and"
        raise _rejected(-1127, f"{message} endTime.")
    return start, end


def _invalid_interval() -> Rejected:
    return _rejected(-1120, "Invalid interval.")


def _illegal(name: str, legal: str) -> Rejected:
    return _rejected(
        -1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'."
    )


def _klines_weight(limit: str) -> int:
    rows = int(limit) if _NUMBER.match(limit) else _DEFAULT_LIMIT
    return 1 if rows < 100 else 2 if rows < 500 else 5 if rows <= 1000 else 10


def _ticker_weight(params: Mapping[str, str]) -> int:
    if "symbol" in params:
        return 2
    asked = params["symbols"].count('"') // 2 if "symbols" in params else 101
    return 2 if asked <= 20 else 40 if asked <= 100 else 80


def _settled_ms(question: _Question, bars: Bars) -> int | None:
    """Return the moment from which the answer can no longer change; None while it always can."""
    if question.start is not None and len(bars) == question.limit:
        return question.timeframe.next(int(bars.open_time[-1]))
    return None if question.end is None else question.timeframe.next(question.end)
