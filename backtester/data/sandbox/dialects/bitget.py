"""Bitget's REST dialect, version 2: spot and USDT-margined contracts.

Shapes follow https://www.bitget.com/api-doc (spot and contract: market data;
read 2026-11) and the examples in ccxt 4.5.90's `bitget.py`, which also is the
source of how far the endpoint for recent candles reaches. Bars that open at
Hong Kong's midnight (``6H`` to ``1M`` without ``utc``) are not spoken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from backtester.data.errors import UnknownTimeframeError
from backtester.data.model import Interval, MarketType, Timeframe
from backtester.data.sandbox.dialects import Call, Columns, Page, Rejected, Reply
from backtester.data.sandbox.dialects import bitget_payloads as payloads
from backtester.data.sandbox.dialects.common import reply, web_page, whole
from backtester.data.sandbox.source import Bars, Listing, MarketSource, newest

__all__ = ["Bitget", "make"]

_ROOT: Final = "/api/v2/"
_REQUESTS: Final = 20
"""Per second and address, each endpoint for itself."""
_DAY_MS: Final = 86_400_000
_LONGEST_MS: Final = 90 * _DAY_MS
"""Of a window of contracts."""
_RECENT_MS: Final = 30 * _DAY_MS
_RECENT_BARS: Final = 1440
_MOST_ROWS: Final = {"candles": 1000, "history-candles": 200}
_DEFAULT_LIMIT: Final = 100
_UTC: Final = {
    "6Hutc": Timeframe(6, "h"),
    "12Hutc": Timeframe(12, "h"),
    "1Dutc": Timeframe(1, "d"),
    "3Dutc": Timeframe(3, "d"),
    "1Wutc": Timeframe(1, "w"),
    "1Mutc": Timeframe(1, "M"),
}
_GRANULARITIES: Final = {
    "spot": {
        **{f"{minutes}min": Timeframe(minutes, "m") for minutes in (1, 3, 5, 15, 30)},
        **{f"{hours}h": Timeframe(hours, "h") for hours in (1, 4)},
        **_UTC,
    },
    "mix": {
        **{f"{minutes}m": Timeframe(minutes, "m") for minutes in (1, 3, 5, 15, 30)},
        **{f"{hours}H": Timeframe(hours, "h") for hours in (1, 2, 4)},
        **_UTC,
    },
}


def make(market: MarketSource, weight_limits: Mapping[str, int] | None) -> Bitget:
    """Make the dialect; what every module of this folder offers."""
    return Bitget(market, weight_limits)


class Bitget:
    """Answers as Bitget would for the symbols of a market.

    Parameters
    ----------
    market : MarketSource
    weight_limits : mapping of str to int, optional
        Requests per second by endpoint, such as ``"spot/market/candles"``.

    Notes
    -----
    What has been delisted is gone: neither listed nor shown.
    """

    columns = Columns(time=0, open=1, high=2, low=3, close=4, volume=5)
    window_s = 1.0
    ccxt_paths: Mapping[str, Any] = dict.fromkeys(
        ("spot", "mix", "user", "p2p", "broker", "margin", "common", "tax", "convert", "copy",
         "earn", "uta"), ""
    )  # fmt: skip

    def __init__(
        self, market: MarketSource, weight_limits: Mapping[str, int] | None = None
    ) -> None:
        self._market = market
        self._limits = weight_limits or {}
        self._listings: dict[str, dict[str, Listing]] = {"spot": {}, "mix": {}}
        for item in market.listings():
            part = "spot" if item.market.type is MarketType.SPOT else "mix"
            self._listings[part][payloads.id_of(item)] = item
        self._endpoints: dict[str, Callable[[Call, int], Reply]] = {
            "public/time": self._time,
            "spot/public/coins": lambda call, now_ms: _ok([], now_ms),
            "margin/currencies": lambda call, now_ms: _ok([], now_ms),
            "spot/public/symbols": self._symbols,
            "mix/market/contracts": self._symbols,
            "spot/market/tickers": self._tickers,
            "mix/market/tickers": self._tickers,
            "spot/market/candles": self._candles,
            "spot/market/history-candles": self._candles,
            "mix/market/candles": self._candles,
            "mix/market/history-candles": self._candles,
        }

    # ----------------------------------------------------------------- calls

    def family(self, path: str) -> str | None:
        endpoint = path.removeprefix(_ROOT)
        return endpoint if endpoint in self._endpoints else None

    def limit(self, call: Call) -> int:
        return self._limits.get(call.family, _REQUESTS)

    def weight(self, call: Call) -> int:
        return 1

    def symbol(self, call: Call) -> str | None:
        listing = self._listings.get(_part(call), {}).get(call.params.get("symbol", ""))
        return listing.symbol if listing else None

    def answer(self, call: Call, now_ms: int) -> Reply:
        return self._endpoints[call.family](call, now_ms)

    # ----------------------------------------------------------------- failures

    def weight_headers(self, used: int) -> dict[str, str]:
        return {}  # it states none

    def limited(self, call: Call, retry_after_s: int) -> Reply:
        return _error("429", "Too Many Requests", 429)

    def banned(self, until_ms: int, retry_after_s: int) -> Reply:
        return _error("429", "Too Many Requests", 429)  # it goes on refusing, no more

    def failure(self, status: int) -> Reply:
        return web_page(status)

    def disconnected(self) -> Reply:
        return _error("40725", "service return an error", 500)

    def maintenance(self) -> Reply:
        return _error("40200", "Server upgrade, please try again later", 503)

    def with_clock_off(self, reply: Reply, offset_ms: int) -> Reply:
        stated = int(orjson.loads(reply.body)["data"]["serverTime"]) + offset_ms
        return replace(reply, body=_body({"serverTime": str(stated)}, stated))

    def rows_of(self, reply: Reply) -> list[list[Any]]:
        return [[int(row[0]), *row[1:]] for row in orjson.loads(reply.body)["data"]]

    def with_rows(self, reply: Reply, rows: list[list[Any]]) -> Reply:
        payload = orjson.loads(reply.body)
        payload["data"] = [[str(row[0]), *row[1:]] for row in rows]
        return replace(reply, body=orjson.dumps(payload))

    # ----------------------------------------------------------------- endpoints

    def _time(self, call: Call, now_ms: int) -> Reply:
        return replace(_ok({"serverTime": str(now_ms)}, now_ms), tells_time=True)

    def _symbols(self, call: Call, now_ms: int) -> Reply:
        describe = payloads.spot_symbol if _part(call) == "spot" else payloads.contract
        return _ok([describe(item) for item in self._trading(call, now_ms)], now_ms)

    def _tickers(self, call: Call, now_ms: int) -> Reply:
        spell = payloads.spot_ticker if _part(call) == "spot" else payloads.contract_ticker
        listed = self._trading(call, now_ms)
        rows = [spell(item, self._market.ticker(item.symbol, now_ms)) for item in listed]
        return _ok(rows, now_ms)

    def _candles(self, call: Call, now_ms: int) -> Reply:
        listing = self._listing(call, now_ms)
        timeframe = _GRANULARITIES[_part(call)].get(call.params.get("granularity", ""))
        if timeframe is None:
            raise Rejected(_wrong("granularity"))
        try:
            bars = self._bars(call, listing, timeframe, now_ms)
        except UnknownTimeframeError:  # the market has no such candles
            raise Rejected(_wrong("granularity")) from None
        rows = payloads.rows(bars, spot=_part(call) == "spot")
        page = Page(listing.symbol, timeframe)
        return replace(_ok(rows, now_ms), page=page, rows=len(rows))

    def _bars(self, call: Call, listing: Listing, timeframe: Timeframe, now_ms: int) -> Bars:
        """The newest candles after `startTime` and before `endTime`.

        The recent endpoint ends some time ago, the one for history before the forming candle.
        Spot's history knows no `startTime` at all.
        """
        endpoint = call.family.rsplit("/", 1)[1]
        limit = min(max(whole(call, "limit", _wrong) or _DEFAULT_LIMIT, 1), _MOST_ROWS[endpoint])
        start, end = whole(call, "startTime", _wrong), whole(call, "endTime", _wrong)
        last = now_ms if endpoint == "candles" else timeframe.floor(now_ms) - 1
        last = last if end is None else min(last, end - 1)
        if _part(call) == "mix":
            _require_short(start, end)
        elif endpoint == "history-candles":
            start = None
        first = 0 if start is None else start + 1
        if endpoint == "candles":
            first = max(first, _recent_from(timeframe, now_ms))
        interval = Interval(first, max(last, first) + 1)
        bars = newest(self._market, listing, timeframe, interval, limit, now_ms)
        return bars if first <= last else bars[:0]

    def _trading(self, call: Call, now_ms: int) -> list[Listing]:
        part = _part(call)
        if part == "mix" and call.params.get("productType", "").upper() != "USDT-FUTURES":
            return []
        return [item for item in self._listings[part].values() if item.trading_at(now_ms)]

    def _listing(self, call: Call, now_ms: int) -> Listing:
        market_id = call.params.get("symbol", "")
        listing = self._listings[_part(call)].get(market_id)
        if listing is None or not listing.known_at(now_ms):
            raise Rejected(_error("40034", f"Parameter {market_id} does not exist"))
        if not listing.trading_at(now_ms):
            raise Rejected(_error("40309", "The symbol has been removed"))
        return listing


def _part(call: Call) -> str:
    return call.family.split("/", 1)[0]


def _recent_from(timeframe: Timeframe, now_ms: int) -> int:
    if timeframe.unit == "m":
        return now_ms - _RECENT_MS
    return timeframe.next(now_ms, 1 - _RECENT_BARS)


def _require_short(start: int | None, end: int | None) -> None:
    if start is not None and end is not None and end - start > _LONGEST_MS:
        message = "startTime and endTime interval cannot be greater than 90 days"
        raise Rejected(_error("00001", message))


def _ok(data: Any, now_ms: int) -> Reply:
    return Reply(200, _body(data, now_ms))


def _body(data: Any, now_ms: int) -> bytes:
    return orjson.dumps({"code": "00000", "msg": "success", "requestTime": now_ms, "data": data})


def _wrong(parameter: str) -> Reply:
    return _error("40020", f"Parameter {parameter} error")


def _error(code: str, message: str, status: int = 400) -> Reply:
    return reply({"code": code, "msg": message, "requestTime": 0, "data": None}, status)
