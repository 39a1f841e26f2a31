"""MEXC's REST dialects: spot (version 3) and perpetuals (contract, version 1).

Shapes, caps and codes follow https://www.mexc.com/api-docs (spot-v3 and futures, read
2026-11) and ccxt 4.5.90 `mexc.py`: a spot page has 500 candles though the page says
1000, and its `endTime` does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from backtester.data.errors import UnknownTimeframeError
from backtester.data.model import Interval, MarketType, Timeframe
from backtester.data.sandbox.dialects import Call, Columns, Page, Rejected, Reply
from backtester.data.sandbox.dialects import mexc_payloads as payloads
from backtester.data.sandbox.dialects.common import reply, web_page, whole
from backtester.data.sandbox.source import Bars, Listing, MarketSource, newest, oldest

__all__ = ["Mexc", "make"]

_ROOTS: Final = {"/api/v3/": "spot", "/api/v1/contract/": "contract"}
_WEIGHTS: Final = {"spot": 500, "contract": 100}
"""In ten seconds: spot's own rule, and twenty in two seconds on contracts."""
_TYPES: Final = {"spot": MarketType.SPOT, "contract": MarketType.SWAP}
_MINUTES: Final = (1, 5, 15, 30, 60)
_INTERVALS: Final = {
    "spot": {
        **{f"{count}m": Timeframe(count, "m") for count in _MINUTES},
        "4h": Timeframe(4, "h"),
        "1d": Timeframe(1, "d"),
        "1W": Timeframe(1, "w"),
        "1M": Timeframe(1, "M"),
    },
    "contract": {
        **{f"Min{count}": Timeframe(count, "m") for count in _MINUTES},
        "Hour4": Timeframe(4, "h"),
        "Hour8": Timeframe(8, "h"),
        "Day1": Timeframe(1, "d"),
        "Week1": Timeframe(1, "w"),
        "Month1": Timeframe(1, "M"),
    },
}
_MOST_ROWS: Final = {"spot": 500, "contract": 2000}


def make(market: MarketSource, weight_limits: Mapping[str, int] | None) -> Mexc:
    """Make the dialect; what every module of this folder offers."""
    return Mexc(market, weight_limits)


class Mexc:
    """Answers as MEXC would for the symbols of a market.

    Parameters
    ----------
    market : MarketSource
    weight_limits : mapping of str to int, optional
        Weight in ten seconds for ``"spot"`` and ``"contract"``.

    Notes
    -----
    What has been delisted is gone: neither listed nor shown.
    """

    columns = Columns(time=0, open=1, high=2, low=3, close=4, volume=5)
    window_s = 10.0
    ccxt_paths: Mapping[str, Any] = {
        "spot": {"public": ""},
        "contract": {"public": "/api/v1/contract"},
    }

    def __init__(
        self, market: MarketSource, weight_limits: Mapping[str, int] | None = None
    ) -> None:
        self._market = market
        self._limits = {**_WEIGHTS, **(weight_limits or {})}
        self._listings = {
            family: {payloads.id_of(item): item for item in market.listings(kind)}
            for family, kind in _TYPES.items()
        }
        self._endpoints: dict[str, Callable[[Call, int], Reply]] = {
            "spot time": lambda call, now_ms: reply({"serverTime": now_ms}, tells_time=True),
            "spot exchangeInfo": self._exchange_info,
            "spot klines": self._klines,
            "spot ticker/24hr": self._spot_tickers,
            "contract ping": lambda call, now_ms: _ok(now_ms, tells_time=True),
            "contract detail": self._detail,
            "contract kline": self._klines,
            "contract ticker": self._contract_tickers,
        }

    # ----------------------------------------------------------------- calls

    def family(self, path: str) -> str | None:
        return next((family for root, family in _ROOTS.items() if path.startswith(root)), None)

    def limit(self, call: Call) -> int:
        return self._limits[call.family]

    def weight(self, call: Call) -> int:
        return {"exchangeInfo": 10, "ticker/24hr": 40}.get(_endpoint(call), 1)

    def symbol(self, call: Call) -> str | None:
        listing = self._listings[call.family].get(_market_id(call))
        return listing.symbol if listing else None

    def answer(self, call: Call, now_ms: int) -> Reply:
        endpoint = self._endpoints.get(f"{call.family} {_endpoint(call)}")
        return web_page(404) if endpoint is None else endpoint(call, now_ms)

    # ----------------------------------------------------------------- failures

    def weight_headers(self, used: int) -> dict[str, str]:
        return {}

    def limited(self, call: Call, retry_after_s: int) -> Reply:
        if call.family == "spot":
            headers = {"Retry-After": str(retry_after_s)}
            return _error("spot", 429, 429, "Too Many Requests").with_headers(headers)
        message = "Requests are too frequent, please try again later"
        return _error("contract", 200, 510, message)

    def banned(self, until_ms: int, retry_after_s: int) -> Reply:
        return web_page(403)

    def failure(self, status: int) -> Reply:
        return web_page(status)

    def disconnected(self) -> Reply:
        return web_page(500)

    def maintenance(self) -> Reply:
        return web_page(503)

    def with_clock_off(self, reply: Reply, offset_ms: int) -> Reply:
        told = orjson.loads(reply.body)
        told["serverTime" if "serverTime" in told else "data"] += offset_ms
        return replace(reply, body=orjson.dumps(told))

    def rows_of(self, reply: Reply) -> list[list[Any]]:
        told = orjson.loads(reply.body)
        return payloads.rows_of(told["data"]) if isinstance(told, dict) else told

    def with_rows(self, reply: Reply, rows: list[list[Any]]) -> Reply:
        told = orjson.loads(reply.body)
        if isinstance(told, list):
            return replace(reply, body=orjson.dumps(rows))
        return replace(reply, body=orjson.dumps({**told, "data": payloads.series_of(rows)}))

    # ----------------------------------------------------------------- candles

    def _klines(self, call: Call, now_ms: int) -> Reply:
        listing = self._listing(call, now_ms)
        timeframe = _INTERVALS[call.family].get(call.params.get("interval", ""))
        if timeframe is None:
            raise _invalid_interval(call)
        try:
            bars = self._bars(call, listing, timeframe, now_ms)
        except UnknownTimeframeError:  # the market has no such candles
            raise _invalid_interval(call) from None
        page = Page(listing.symbol, timeframe)
        if call.family == "spot":
            return replace(reply(payloads.rows(bars, timeframe)), page=page, rows=len(bars))
        series = payloads.series_of(payloads.contract_rows(bars, listing))
        return replace(_ok(series), page=page, rows=len(bars))

    def _bars(self, call: Call, listing: Listing, timeframe: Timeframe, now_ms: int) -> Bars:
        """Spot shows the oldest of a window, contracts its newest; the end does not count."""
        spot = call.family == "spot"
        start, end = _bound(call, "startTime", "start"), _bound(call, "endTime", "end")
        most = _MOST_ROWS[call.family]
        limit = min(_whole(call, "limit") or most, most) if spot else most
        interval = Interval(start or 0, max(min(end or now_ms + 1, now_ms + 1), (start or 0) + 1))
        ask = oldest if spot and start is not None else newest
        bars = ask(self._market, listing, timeframe, interval, limit, now_ms)
        return bars[:0] if start is not None and end is not None and end <= start else bars

    # ----------------------------------------------------------------- listings, tickers

    def _exchange_info(self, call: Call, now_ms: int) -> Reply:
        symbols = [payloads.spot_symbol(item) for item in self._trading("spot", now_ms)]
        return reply({"timezone": "CST", "serverTime": now_ms, "symbols": symbols}, tells_time=True)

    def _detail(self, call: Call, now_ms: int) -> Reply:
        return _ok([payloads.contract(item) for item in self._trading("contract", now_ms)])

    def _spot_tickers(self, call: Call, now_ms: int) -> Reply:
        rows = [
            payloads.spot_ticker(item, self._market.ticker(item.symbol, now_ms))
            for item in self._asked(call, now_ms)
        ]
        return reply(rows[0] if _market_id(call) else rows)

    def _contract_tickers(self, call: Call, now_ms: int) -> Reply:
        rows = [
            payloads.contract_ticker(item, self._market.ticker(item.symbol, now_ms))
            for item in self._asked(call, now_ms)
        ]
        return _ok(rows[0] if _market_id(call) else rows)

    def _asked(self, call: Call, now_ms: int) -> list[Listing]:
        if _market_id(call):
            return [self._listing(call, now_ms)]
        return self._trading(call.family, now_ms)

    def _trading(self, family: str, now_ms: int) -> list[Listing]:
        return [item for item in self._listings[family].values() if item.trading_at(now_ms)]

    def _listing(self, call: Call, now_ms: int) -> Listing:
        listing = self._listings[call.family].get(_market_id(call))
        if listing is not None and listing.trading_at(now_ms):
            return listing
        if call.family == "spot":
            raise Rejected(_error("spot", 400, -1121, "Invalid symbol."))
        raise Rejected(_error("contract", 400, 1001, "Contract does not exist"))


def _endpoint(call: Call) -> str:
    """Return the endpoint's name, without the contract that stands in its path."""
    root = next(root for root, family in _ROOTS.items() if family == call.family)
    name = call.path.removeprefix(root)
    return "kline" if name.startswith("kline/") else name


def _market_id(call: Call) -> str:
    _, found, in_path = call.path.partition("/contract/kline/")
    return in_path if found else call.params.get("symbol", "")


def _bound(call: Call, spot: str, contract: str) -> int | None:
    """Read an end of the window: milliseconds on spot, seconds on contracts."""
    if call.family == "spot":
        return _whole(call, spot)
    seconds = _whole(call, contract)
    return None if seconds is None else seconds * 1000


def _whole(call: Call, name: str) -> int | None:
    def refuse(name: str) -> Reply:
        message = f"Illegal characters found in parameter '{name}'"
        return _error(call.family, 400, -1100, message)

    return whole(call, name, refuse)


def _invalid_interval(call: Call) -> Rejected:
    code = -1121 if call.family == "spot" else 600
    return Rejected(_error(call.family, 400, code, "Invalid interval."))


def _ok(data: object, *, tells_time: bool = False) -> Reply:
    return reply({"success": True, "code": 0, "data": data}, tells_time=tells_time)


def _error(family: str, status: int, code: int, message: str) -> Reply:
    if family == "spot":
        return reply({"code": code, "msg": message}, status)
    return reply({"success": False, "code": code, "message": message})
