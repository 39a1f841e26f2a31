"""OKX's REST dialect, version 5: spot, linear swaps and linear futures.

Shapes follow https://www.okx.com/docs-v5/en/ (instruments, candlesticks,
candlesticks history, tickers, system time; read 2026-11) and a recorded answer
with candles. Bars that open at Hong Kong's midnight (``6H`` to ``1M`` without
``utc``) are not spoken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from backtester.data.errors import UnknownTimeframeError
from backtester.data.model import Interval, MarketType, Timeframe
from backtester.data.sandbox.dialects import Call, Columns, Page, Rejected, Reply
from backtester.data.sandbox.dialects import okx_payloads as payloads
from backtester.data.sandbox.dialects.common import reply, web_page, whole
from backtester.data.sandbox.source import Bars, Listing, MarketSource, newest

__all__ = ["MOST_ROWS", "Okx", "make"]

_ROOT: Final = "/api/v5/"
_REQUESTS: Final = {
    "market/candles": 40,
    "market/history-candles": 20,
    "market/tickers": 20,
    "public/instruments": 20,
    "public/time": 10,
}
"""Per two seconds and address, each endpoint for itself."""
_TYPES: Final = {
    "SPOT": (MarketType.SPOT,),
    "SWAP": (MarketType.SWAP,),
    "FUTURES": (MarketType.FUTURE,),
    "OPTION": (),
    "MARGIN": (),
}
_BARS: Final = {
    **{f"{minutes}m": Timeframe(minutes, "m") for minutes in (1, 3, 5, 15, 30)},
    **{f"{hours}H": Timeframe(hours, "h") for hours in (1, 2, 4)},
    **{f"{hours}Hutc": Timeframe(hours, "h") for hours in (6, 12)},
    "1Dutc": Timeframe(1, "d"),
    "1Wutc": Timeframe(1, "w"),
    "1Mutc": Timeframe(1, "M"),
}
_DEFAULT_LIMIT: Final = 100
_RECENT: Final = 1440
"""How many of the newest candles `candles` reaches, the forming one included."""
MOST_ROWS: dict[str, int] = {"market/candles": 300, "market/history-candles": 300}
"""Of a page, by endpoint; 100 for the history in older descriptions."""


def make(market: MarketSource, weight_limits: Mapping[str, int] | None) -> Okx:
    """Make the dialect; what every module of this folder offers."""
    return Okx(market, weight_limits)


class Okx:
    """Answers as OKX would for the symbols of a market.

    Parameters
    ----------
    market : MarketSource
    weight_limits : mapping of str to int, optional
        Requests per two seconds by endpoint, such as ``"market/candles"``.

    Notes
    -----
    What has been delisted is gone: neither listed nor shown.
    """

    columns = Columns(time=0, open=1, high=2, low=3, close=4, volume=6)
    window_s = 2.0
    ccxt_paths: Mapping[str, Any] = {"rest": ""}

    def __init__(
        self, market: MarketSource, weight_limits: Mapping[str, int] | None = None
    ) -> None:
        self._market = market
        self._limits = {**_REQUESTS, **(weight_limits or {})}
        self._listings = {payloads.id_of(item): item for item in market.listings()}
        self._endpoints: dict[str, Callable[[Call, int], Reply]] = {
            "market/candles": self._candles,
            "market/history-candles": self._candles,
            "market/tickers": self._tickers,
            "public/instruments": self._instruments,
            "public/time": lambda call, now_ms: _ok([{"ts": str(now_ms)}], tells_time=True),
        }

    # ----------------------------------------------------------------- calls

    def family(self, path: str) -> str | None:
        endpoint = path.removeprefix(_ROOT)
        return endpoint if endpoint in _REQUESTS else None

    def limit(self, call: Call) -> int:
        return self._limits[call.family]

    def weight(self, call: Call) -> int:
        return 1

    def symbol(self, call: Call) -> str | None:
        listing = self._listings.get(call.params.get("instId", ""))
        return listing.symbol if listing else None

    def answer(self, call: Call, now_ms: int) -> Reply:
        return self._endpoints[call.family](call, now_ms)

    # ----------------------------------------------------------------- failures

    def weight_headers(self, used: int) -> dict[str, str]:
        return {}  # it states none

    def limited(self, call: Call, retry_after_s: int) -> Reply:
        return _error("50011", "Too Many Requests", 429)

    def banned(self, until_ms: int, retry_after_s: int) -> Reply:
        return _error("50011", "Too Many Requests", 429)  # it goes on refusing, no more

    def failure(self, status: int) -> Reply:
        return web_page(status)

    def disconnected(self) -> Reply:
        return _error("50004", "API endpoint request timeout", 400)

    def maintenance(self) -> Reply:
        return _error("50001", "Service temporarily unavailable. Please try again later", 503)

    def with_clock_off(self, reply: Reply, offset_ms: int) -> Reply:
        stated = int(orjson.loads(reply.body)["data"][0]["ts"])
        return replace(reply, body=_body([{"ts": str(stated + offset_ms)}]))

    def rows_of(self, reply: Reply) -> list[list[Any]]:
        rows = orjson.loads(reply.body)["data"]
        return [[int(row[0]), *row[1:]] for row in reversed(rows)]

    def with_rows(self, reply: Reply, rows: list[list[Any]]) -> Reply:
        spelled = [[str(row[0]), *row[1:]] for row in reversed(rows)]
        return replace(reply, body=_body(spelled))

    # ----------------------------------------------------------------- endpoints

    def _instruments(self, call: Call, now_ms: int) -> Reply:
        return _ok([payloads.instrument(item) for item in self._trading(call, now_ms)])

    def _tickers(self, call: Call, now_ms: int) -> Reply:
        listed = self._trading(call, now_ms)
        return _ok(
            [payloads.ticker(item, self._market.ticker(item.symbol, now_ms)) for item in listed]
        )

    def _candles(self, call: Call, now_ms: int) -> Reply:
        listing = self._listings.get(call.params.get("instId", ""))
        if listing is None or not listing.trading_at(now_ms):
            raise Rejected(_error("51001", "Instrument ID or Spread ID doesn't exist."))
        timeframe = _BARS.get(call.params.get("bar", "1m"))
        if timeframe is None:
            raise Rejected(_wrong("bar"))
        try:
            bars = self._bars(call, listing, timeframe, now_ms)
        except UnknownTimeframeError:  # the market has no such candles
            raise Rejected(_wrong("bar")) from None
        rows = payloads.rows(bars, listing, timeframe.floor(now_ms))[::-1]
        return replace(_ok(rows), page=Page(listing.symbol, timeframe), rows=len(rows))

    def _bars(self, call: Call, listing: Listing, timeframe: Timeframe, now_ms: int) -> Bars:
        """The newest candles between `before` and `after`, neither of which is included.

        The recent endpoint ends after some candles, the one for history before the forming one.
        """
        limit = min(max(whole(call, "limit", _wrong) or _DEFAULT_LIMIT, 1), MOST_ROWS[call.family])
        before, after = whole(call, "before", _wrong), whole(call, "after", _wrong)
        recent = call.family == "market/candles"
        first = 0 if before is None else before + 1
        last = now_ms if recent else timeframe.floor(now_ms) - 1
        if recent:
            first = max(first, timeframe.next(now_ms, 1 - _RECENT))
        if after is not None:
            last = min(last, after - 1)
        interval = Interval(first, max(last, first) + 1)
        bars = newest(self._market, listing, timeframe, interval, limit, now_ms)
        return bars if first <= last else bars[:0]

    def _trading(self, call: Call, now_ms: int) -> list[Listing]:
        kinds = _TYPES.get(call.params.get("instType", ""))
        if kinds is None:
            raise Rejected(_wrong("instType"))
        known = self._listings.values()
        return [item for item in known if item.market.type in kinds and item.trading_at(now_ms)]


def _ok(data: list[Any], *, tells_time: bool = False) -> Reply:
    return Reply(200, _body(data), tells_time=tells_time)


def _body(data: list[Any]) -> bytes:
    return orjson.dumps({"code": "0", "msg": "", "data": data})


def _wrong(parameter: str) -> Reply:
    return _error("51000", f"Parameter {parameter} error")


def _error(code: str, message: str, status: int = 200) -> Reply:
    return reply({"code": code, "msg": message, "data": []}, status)
