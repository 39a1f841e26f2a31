"""Gate's REST dialect, version 4: spot, perpetuals and dated contracts settled in USDT.

Shapes, caps and errors follow https://www.gate.com/docs/developers/apiv4/en (read
2026-11), a recorded listing of 2021 and the labels that ccxt 4.5.90 knows
(`gate.py`, `exceptions`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from backtester.data.errors import UnknownTimeframeError
from backtester.data.model import Interval, MarketType, Timeframe
from backtester.data.sandbox.dialects import Call, Columns, Page, Rejected, Reply
from backtester.data.sandbox.dialects import gate_payloads as payloads
from backtester.data.sandbox.dialects.common import reply, web_page, whole
from backtester.data.sandbox.source import Bars, Listing, MarketSource, newest, oldest

__all__ = ["Gate", "make"]

_ROOT: Final = "/api/v4/"
_REQUESTS: Final = 200
"""Per ten seconds, address and endpoint."""
_TYPES: Final = {
    "spot": MarketType.SPOT,
    "futures": MarketType.SWAP,
    "delivery": MarketType.FUTURE,
}
_INTERVALS: Final = {
    **{f"{minutes}m": Timeframe(minutes, "m") for minutes in (1, 5, 15, 30)},
    **{f"{hours}h": Timeframe(hours, "h") for hours in (1, 2, 4, 8)},
    "1d": Timeframe(1, "d"),
    "7d": Timeframe(7, "d"),  # every seven days since 1970, so from Thursday on
}
_MOST_POINTS: Final = {"spot": 1000, "futures": 2000, "delivery": 2000}
_DEFAULT_LIMIT: Final = 100
_REACH: Final = 10_000
"""Points ago that a window of spot or perpetuals may begin (ccxt issue 27861)."""


def make(market: MarketSource, weight_limits: Mapping[str, int] | None) -> Gate:
    """Make the dialect; what every module of this folder offers."""
    return Gate(market, weight_limits)


class Gate:
    """Answers as Gate would for the symbols of a market.

    Parameters
    ----------
    market : MarketSource
    weight_limits : mapping of str to int, optional
        Requests per ten seconds by endpoint, such as ``"spot/candlesticks"``.
    """

    columns = Columns(time=0, open=1, high=2, low=3, close=4, volume=5)
    window_s = 10.0
    ccxt_paths: Mapping[str, Any] = {
        "public": dict.fromkeys(
            ("wallet", "futures", "margin", "delivery", "spot", "options", "sub_accounts", "earn"),
            _ROOT.rstrip("/"),
        )
    }

    def __init__(
        self, market: MarketSource, weight_limits: Mapping[str, int] | None = None
    ) -> None:
        self._market = market
        self._limits = weight_limits or {}
        self._listings = {
            kind: {payloads.id_of(item): item for item in market.listings(market_type)}
            for kind, market_type in _TYPES.items()
        }
        self._endpoints: dict[str, Callable[[Call, int], Reply]] = {
            "spot/time": lambda call, now_ms: reply({"server_time": now_ms}, tells_time=True),
            "spot/currencies": self._currencies,
            "spot/currency_pairs": self._pairs,
            "margin/currency_pairs": _nothing,
            "futures/usdt/contracts": self._contracts,
            "futures/btc/contracts": _nothing,
            "delivery/usdt/contracts": self._contracts,
            "options/underlyings": _nothing,
        }
        for kind in ("spot", "futures/usdt", "delivery/usdt"):
            self._endpoints[f"{kind}/candlesticks"] = self._candlesticks
            self._endpoints[f"{kind}/tickers"] = self._tickers

    # ----------------------------------------------------------------- calls

    def family(self, path: str) -> str | None:
        return path.removeprefix(_ROOT) if path.startswith(_ROOT) else None

    def limit(self, call: Call) -> int:
        return self._limits.get(call.family, _REQUESTS)

    def weight(self, call: Call) -> int:
        return 1

    def symbol(self, call: Call) -> str | None:
        listing = self._listings.get(_kind(call), {}).get(_market_id(call))
        return listing.symbol if listing else None

    def answer(self, call: Call, now_ms: int) -> Reply:
        endpoint = self._endpoints.get(call.family)
        return web_page(404) if endpoint is None else endpoint(call, now_ms)

    # ----------------------------------------------------------------- failures

    def weight_headers(self, used: int) -> dict[str, str]:
        return {
            "X-Gate-RateLimit-Limit": str(_REQUESTS),
            "X-Gate-RateLimit-Requests-Remain": str(max(_REQUESTS - used, 0)),
        }

    def limited(self, call: Call, retry_after_s: int) -> Reply:
        return _error(429, "TOO_MANY_REQUESTS", "Request Rate limit Exceeded (311)")

    def banned(self, until_ms: int, retry_after_s: int) -> Reply:
        return web_page(403)

    def failure(self, status: int) -> Reply:
        return web_page(status)

    def disconnected(self) -> Reply:
        return _error(500, "SERVER_ERROR", "Internal server error")

    def maintenance(self) -> Reply:
        return web_page(503)

    def with_clock_off(self, reply: Reply, offset_ms: int) -> Reply:
        told = orjson.loads(reply.body)
        return replace(reply, body=orjson.dumps({"server_time": told["server_time"] + offset_ms}))

    def rows_of(self, reply: Reply) -> list[list[Any]]:
        return [payloads.plain_row(row) for row in orjson.loads(reply.body)]

    def with_rows(self, reply: Reply, rows: list[list[Any]]) -> Reply:
        # An empty page is the same for both kinds.
        spot = not reply.rows or isinstance(orjson.loads(reply.body)[0], list)
        spell = payloads.spot_row if spot else payloads.contract_row
        return replace(reply, body=orjson.dumps([spell(row) for row in rows]))

    # ----------------------------------------------------------------- endpoints

    def _currencies(self, call: Call, now_ms: int) -> Reply:
        names = {
            name
            for item in self._listings["spot"].values()
            for name in (item.market.base, item.market.quote)
        }
        return reply([payloads.currency(name) for name in sorted(names)])

    def _pairs(self, call: Call, now_ms: int) -> Reply:
        known = [item for item in self._listings["spot"].values() if item.known_at(now_ms)]
        return reply([payloads.pair(item, now_ms) for item in known])

    def _contracts(self, call: Call, now_ms: int) -> Reply:
        return reply([payloads.contract(item) for item in self._trading(_kind(call), now_ms)])

    def _tickers(self, call: Call, now_ms: int) -> Reply:
        kind = _kind(call)
        asked = [self._listing(call, now_ms)] if _market_id(call) else self._trading(kind, now_ms)
        spell = payloads.spot_ticker if kind == "spot" else payloads.contract_ticker
        return reply([spell(item, self._market.ticker(item.symbol, now_ms)) for item in asked])

    def _candlesticks(self, call: Call, now_ms: int) -> Reply:
        kind, listing = _kind(call), self._listing(call, now_ms)
        timeframe = _INTERVALS.get(call.params.get("interval", ""))
        if timeframe is None:
            raise _invalid("Invalid interval")
        try:
            bars = self._bars(call, listing, timeframe, now_ms)
        except UnknownTimeframeError:  # the market has no such candles
            raise _invalid("Invalid interval") from None
        if kind == "spot":
            rows: list[Any] = payloads.spot_rows(bars, timeframe, now_ms)
        else:
            rows = payloads.contract_rows(bars, listing)
        page = Page(listing.symbol, timeframe)
        return replace(reply(rows), page=page, rows=len(rows))

    def _bars(self, call: Call, listing: Listing, timeframe: Timeframe, now_ms: int) -> Bars:
        """Both bounds count; without them the newest `limit` come, with them it is refused."""
        start, end, limit = (_whole(call, name) for name in ("from", "to", "limit"))
        if limit is not None and (start is not None or end is not None):
            raise _invalid("limit conflicts with from and to")
        most = _MOST_POINTS[_kind(call)]
        last = now_ms if end is None else min(end * 1000, now_ms)
        if start is None:
            interval = Interval(0, last + 1)
            size = min(limit or _DEFAULT_LIMIT, most)
            return newest(self._market, listing, timeframe, interval, size, now_ms)
        self._require_reach(call, start * 1000, last, timeframe, now_ms)
        interval = Interval(start * 1000, max(last, start * 1000) + 1)
        bars = oldest(self._market, listing, timeframe, interval, most, now_ms)
        return bars if start * 1000 <= last else bars[:0]

    def _require_reach(
        self, call: Call, first: int, last: int, timeframe: Timeframe, now_ms: int
    ) -> None:
        """Refuse what is too long, and what is too long ago but of dated contracts."""
        kind = _kind(call)
        if _MOST_POINTS[kind] * timeframe.typical_ms <= last - first:
            message = f"Too many points requested. Maximum {_MOST_POINTS[kind]} points are allowed"
            raise _invalid(message)
        if kind != "delivery" and first < timeframe.next(now_ms, 1 - _REACH):
            since = "ago" if kind == "spot" else "recently"
            message = f"Candlestick too long ago. Maximum {_REACH} points {since} are allowed"
            raise _invalid(message)

    def _trading(self, kind: str, now_ms: int) -> list[Listing]:
        return [item for item in self._listings[kind].values() if item.trading_at(now_ms)]

    def _listing(self, call: Call, now_ms: int) -> Listing:
        kind, market_id = _kind(call), _market_id(call)
        listing = self._listings[kind].get(market_id)
        if listing is not None and listing.known_at(now_ms):
            return listing
        if kind == "spot":
            message = f"Invalid currency pair {market_id}"
            raise Rejected(_error(400, "INVALID_CURRENCY_PAIR", message))
        raise Rejected(_error(400, "CONTRACT_NOT_FOUND", ""))


def _kind(call: Call) -> str:
    return call.family.partition("/")[0]


def _market_id(call: Call) -> str:
    return call.params.get("currency_pair") or call.params.get("contract", "")


def _nothing(call: Call, now_ms: int) -> Reply:
    return reply([])


def _whole(call: Call, name: str) -> int | None:
    return whole(call, name, lambda name: _invalid(f"Invalid parameter {name}").reply, digits=11)


def _invalid(message: str) -> Rejected:
    return Rejected(_error(400, "INVALID_PARAM_VALUE", message))


def _error(status: int, label: str, message: str) -> Reply:
    return reply({"label": label, "message": message}, status)
