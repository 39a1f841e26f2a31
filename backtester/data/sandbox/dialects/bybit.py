"""Bybit's REST dialect, version 5: spot and linear contracts, and an empty inverse.

Shapes follow https://bybit-exchange.github.io/docs/v5/market (kline, instrument,
tickers, time; read 2026-11) and recorded answers. How a window is read beyond
that: pybit issue 186 for a `start` alone, ccxt 4.5.90 `bybit.py` (`fetch_ohlcv`)
for a `start` between two candles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from backtester.data.errors import UnknownTimeframeError
from backtester.data.model import Interval, MarketType, Timeframe
from backtester.data.sandbox.dialects import Call, Columns, Page, Rejected, Reply
from backtester.data.sandbox.dialects import bybit_payloads as payloads
from backtester.data.sandbox.dialects.common import reply, web_page, whole
from backtester.data.sandbox.source import Bars, Listing, MarketSource, newest, oldest

__all__ = ["Bybit", "make"]

_ROOT: Final = "/v5/market/"
_REQUESTS: Final = 600
"""Per five seconds and address: https://bybit-exchange.github.io/docs/v5/rate-limit."""
_TYPES: Final = {
    "spot": (MarketType.SPOT,),
    "linear": (MarketType.SWAP, MarketType.FUTURE),
    "inverse": (),
    "option": (),
}
_INTERVALS: Final = {
    **{str(minutes): Timeframe(minutes, "m") for minutes in (1, 3, 5, 15, 30)},
    **{str(hours * 60): Timeframe(hours, "h") for hours in (1, 2, 4, 6, 12)},
    "D": Timeframe(1, "d"),
    "W": Timeframe(1, "w"),
    "M": Timeframe(1, "M"),
}
_DEFAULT_LIMIT: Final = 200
_MOST_ROWS: Final = 1000


def make(market: MarketSource, weight_limits: Mapping[str, int] | None) -> Bybit:
    """Make the dialect; what every module of this folder offers."""
    return Bybit(market, weight_limits)


class Bybit:
    """Answers as Bybit would for the symbols of a market.

    Parameters
    ----------
    market : MarketSource
    weight_limits : mapping of str to int, optional
        Requests per five seconds for ``"market"``.

    Notes
    -----
    What has been delisted is gone: neither listed nor shown.
    """

    columns = Columns(time=0, open=1, high=2, low=3, close=4, volume=5)
    window_s = 5.0
    ccxt_paths: Mapping[str, Any] = dict.fromkeys(
        ("spot", "futures", "v2", "public", "private"), ""
    )

    def __init__(
        self, market: MarketSource, weight_limits: Mapping[str, int] | None = None
    ) -> None:
        self._market = market
        self._limit = (weight_limits or {}).get("market", _REQUESTS)
        self._listings = {
            category: {
                payloads.id_of(item): item for kind in kinds for item in market.listings(kind)
            }
            for category, kinds in _TYPES.items()
        }
        self._endpoints: dict[str, Callable[[Call, int], Reply]] = {
            "time": self._time,
            "instruments-info": self._instruments,
            "kline": self._kline,
            "tickers": self._tickers,
        }

    # ----------------------------------------------------------------- calls

    def family(self, path: str) -> str | None:
        return "market" if path.startswith(_ROOT) else None

    def limit(self, call: Call) -> int:
        return self._limit

    def weight(self, call: Call) -> int:
        return 1

    def symbol(self, call: Call) -> str | None:
        listed = self._listings.get(call.params.get("category", ""), {})
        listing = listed.get(call.params.get("symbol", ""))
        return listing.symbol if listing else None

    def answer(self, call: Call, now_ms: int) -> Reply:
        endpoint = self._endpoints.get(call.path.removeprefix(_ROOT))
        return web_page(404) if endpoint is None else endpoint(call, now_ms)

    # ----------------------------------------------------------------- failures

    def weight_headers(self, used: int) -> dict[str, str]:
        return {"X-Bapi-Limit": str(self._limit), "X-Bapi-Limit-Status": str(self._limit - used)}

    def limited(self, call: Call, retry_after_s: int) -> Reply:
        return _error(10006, "Too many visits. Exceeded the API Rate Limit.")

    def banned(self, until_ms: int, retry_after_s: int) -> Reply:
        # It does not say until when: ten minutes at least, by the page named above.
        return reply({"retCode": 10018, "retMsg": "403, access too frequent"}, 403)

    def failure(self, status: int) -> Reply:
        return web_page(status)

    def disconnected(self) -> Reply:
        # The wording that ccxt knows as RequestTimeout.
        return _error(10016, "Request timeout, please try again later")

    def maintenance(self) -> Reply:
        return web_page(503)

    def with_clock_off(self, reply: Reply, offset_ms: int) -> Reply:
        payload = orjson.loads(reply.body)
        return replace(reply, body=_body(payload["result"], payload["time"] + offset_ms))

    def rows_of(self, reply: Reply) -> list[list[Any]]:
        rows = orjson.loads(reply.body)["result"]["list"]
        return [[int(row[0]), *row[1:]] for row in reversed(rows)]

    def with_rows(self, reply: Reply, rows: list[list[Any]]) -> Reply:
        payload = orjson.loads(reply.body)
        payload["result"]["list"] = [[str(row[0]), *row[1:]] for row in reversed(rows)]
        return replace(reply, body=orjson.dumps(payload))

    # ----------------------------------------------------------------- endpoints

    def _time(self, call: Call, now_ms: int) -> Reply:
        result = {"timeSecond": str(now_ms // 1000), "timeNano": str(now_ms * 1_000_000)}
        return _ok(result, now_ms, tells_time=True)

    def _instruments(self, call: Call, now_ms: int) -> Reply:
        category = _category(call)
        listed = self._trading(category, now_ms)
        if "status" in call.params and call.params["status"] != "Trading":
            listed = []
        describe = payloads.spot_instrument if category == "spot" else payloads.linear_instrument
        result = {"category": category, "list": [describe(item) for item in listed]}
        if category != "spot":
            result["nextPageCursor"] = ""
        return _ok(result, now_ms)

    def _tickers(self, call: Call, now_ms: int) -> Reply:
        category = _category(call)
        listed = self._trading(category, now_ms)
        if "symbol" in call.params:
            listed = [self._listing(call, now_ms)]
        spell = payloads.spot_ticker if category == "spot" else payloads.linear_ticker
        rows = [spell(item, self._market.ticker(item.symbol, now_ms)) for item in listed]
        return _ok({"category": category, "list": rows}, now_ms)

    def _kline(self, call: Call, now_ms: int) -> Reply:
        category, listing = _category(call), self._listing(call, now_ms)
        timeframe = _INTERVALS.get(call.params.get("interval", ""))
        if timeframe is None:
            raise Rejected(_error(10001, "Invalid period!"))
        try:
            bars = self._bars(call, listing, timeframe, now_ms)
        except UnknownTimeframeError:  # the market has no such candles
            raise Rejected(_error(10001, "Invalid period!")) from None
        rows = payloads.rows(bars)[::-1]
        result = {"symbol": call.params["symbol"], "category": category, "list": rows}
        page = Page(listing.symbol, timeframe)
        return replace(_ok(result, now_ms), page=page, rows=len(rows))

    def _bars(self, call: Call, listing: Listing, timeframe: Timeframe, now_ms: int) -> Bars:
        """From a `start` alone the oldest come first; with an `end`, the newest are kept.

        The candle that contains `start` is shown, and what opens at `end`.
        """
        # Whether a start of 0 counts is not known (issue 186 sends 9999): nobody shall rely on it.
        start, end = whole(call, "start", _invalid), whole(call, "end", _invalid)
        limit = min(max(whole(call, "limit", _invalid) or _DEFAULT_LIMIT, 1), _MOST_ROWS)
        first = timeframe.floor(start) if start else 0
        last = min(now_ms, now_ms if end is None else end)
        interval = Interval(first, max(last, first) + 1)
        ask = oldest if start and end is None else newest
        bars = ask(self._market, listing, timeframe, interval, limit, now_ms)
        return bars if first <= last else bars[:0]

    def _trading(self, category: str, now_ms: int) -> list[Listing]:
        return [item for item in self._listings[category].values() if item.trading_at(now_ms)]

    def _listing(self, call: Call, now_ms: int) -> Listing:
        listing = self._listings[_category(call)].get(call.params.get("symbol", ""))
        if listing is None or not listing.trading_at(now_ms):
            raise Rejected(_error(10001, "Not supported symbols"))
        return listing


def _category(call: Call) -> str:
    category = call.params.get("category", "linear")  # the documented default
    if category not in _TYPES:
        raise Rejected(_invalid("Category"))
    return category


def _ok(result: Mapping[str, Any], now_ms: int, *, tells_time: bool = False) -> Reply:
    return Reply(200, _body(result, now_ms), tells_time=tells_time)


def _body(result: Mapping[str, Any], now_ms: int) -> bytes:
    return orjson.dumps(
        {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": now_ms}
    )


def _invalid(parameter: str) -> Reply:
    return _error(10001, f"params error: {parameter} is invalid")


def _error(code: int, message: str) -> Reply:
    """Return an error: its status is 200, only the code in the body says that it is one."""
    return reply({"retCode": code, "retMsg": message, "result": {}, "retExtInfo": {}, "time": 0})
