"""Coinbase's Advanced Trade dialect: spot, US perpetual-style and dated futures, public part.

Sources: Coinbase's API reference (docs.cdp.coinbase.com/api-reference/advanced-trade-api), a
recorded answer of `candles`, the words of its refusals as users quote them, and ccxt 4.5.90
`coinbase.py` for what a client reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from backtester.data.model import Interval, MarketType, Timeframe
from backtester.data.sandbox.dialects import Call, Columns, Page, Rejected, Reply
from backtester.data.sandbox.dialects import coinbase_payloads as payloads
from backtester.data.sandbox.dialects.common import reply, web_page
from backtester.data.sandbox.source import Listing, MarketSource

__all__ = ["MOST_CANDLES", "Coinbase", "make"]

MOST_CANDLES: Final = 350
"""A window of so many candles is refused."""

_ROOTS: Final = {"/v2/": "data", "/api/v3/brokerage/": "market"}
_PRODUCTS: Final = "/api/v3/brokerage/market/products"
_LIMITS: Final = {"data": 10, "market": 10}  # requests a second and address
_GRANULARITIES: Final = {
    "ONE_MINUTE": Timeframe(1, "m"),
    "FIVE_MINUTE": Timeframe(5, "m"),
    "FIFTEEN_MINUTE": Timeframe(15, "m"),
    "THIRTY_MINUTE": Timeframe(30, "m"),
    "ONE_HOUR": Timeframe(1, "h"),
    "TWO_HOUR": Timeframe(2, "h"),
    "FOUR_HOUR": Timeframe(4, "h"),
    "SIX_HOUR": Timeframe(6, "h"),
    "ONE_DAY": Timeframe(1, "d"),
}
_SECONDS: Final = re.compile(r"[0-9]{1,11}\Z")


def make(market: MarketSource, weight_limits: Mapping[str, int] | None) -> Coinbase:
    """Make the dialect; what every module of this folder offers."""
    return Coinbase(market, weight_limits)


class Coinbase:
    """Answers as Coinbase would for the symbols of a market.

    Parameters
    ----------
    market : MarketSource
    weight_limits : mapping of str to int, optional
        Requests per second, as ``"market"`` (v3) and ``"data"`` (v2).
    """

    columns = Columns(time=0, open=1, high=2, low=3, close=4, volume=5)
    window_s = 1.0
    ccxt_paths: Mapping[str, Any] = {"rest": ""}

    def __init__(
        self, market: MarketSource, weight_limits: Mapping[str, int] | None = None
    ) -> None:
        self._market = market
        self._limits = {**_LIMITS, **(weight_limits or {})}
        self._products = {payloads.product_id(one): one for one in market.listings()}
        self._endpoints: dict[str, Callable[[Call, int], Reply]] = {
            "/v2/time": lambda call, now_ms: reply(payloads.time(now_ms), tells_time=True),
            "/v2/currencies": lambda call, now_ms: reply({"data": payloads.FIAT}),
            "/v2/currencies/crypto": self._coins,
            "/v2/exchange-rates": lambda call, now_ms: reply(payloads.RATES),
            _PRODUCTS: self._list_products,
        }

    # ----------------------------------------------------------------- calls

    def family(self, path: str) -> str | None:
        return next((family for root, family in _ROOTS.items() if path.startswith(root)), None)

    def limit(self, call: Call) -> int:
        return self._limits[call.family]

    def weight(self, call: Call) -> int:
        return 1

    def symbol(self, call: Call) -> str | None:
        listing = self._products.get(_product_of(call))
        return listing.symbol if listing else None

    def answer(self, call: Call, now_ms: int) -> Reply:
        endpoint = self._endpoints.get(call.path)
        if endpoint is None and call.path.endswith("/candles"):
            endpoint = self._candles
        if endpoint is None:
            return reply({"errors": [{"id": "not_found", "message": "Not found"}]}, 404)
        return endpoint(call, now_ms)

    # ----------------------------------------------------------------- failures

    def weight_headers(self, used: int) -> dict[str, str]:
        return {}  # it states nothing

    def limited(self, call: Call, retry_after_s: int) -> Reply:
        return _failed(429, "rate_limit_exceeded", "Too many requests")  # nor how long to wait

    def banned(self, until_ms: int, retry_after_s: int) -> Reply:
        return _failed(429, "rate_limit_exceeded", "Too many requests")

    def failure(self, status: int) -> Reply:
        return web_page(status)

    def disconnected(self) -> Reply:
        return _failed(500, "internal_server_error", "Internal server error")

    def maintenance(self) -> Reply:
        return web_page(503)

    def with_clock_off(self, reply: Reply, offset_ms: int) -> Reply:
        payload = orjson.loads(reply.body)
        payload["data"]["epoch"] += offset_ms // 1000
        return replace(reply, body=orjson.dumps(payload))

    def rows_of(self, reply: Reply) -> list[list[Any]]:
        candles = orjson.loads(reply.body)["candles"]
        return [
            [int(one["start"]) * 1000, *(one[name] for name in payloads.VALUES)] for one in candles
        ]

    def with_rows(self, reply: Reply, rows: list[list[Any]]) -> Reply:
        candles = [
            {"start": str(time // 1000), **dict(zip(payloads.VALUES, values, strict=True))}
            for time, *values in rows
        ]
        return replace(reply, body=orjson.dumps({"candles": candles}))

    # ----------------------------------------------------------------- candles

    def _candles(self, call: Call, now_ms: int) -> Reply:
        listing = self._products.get(_product_of(call))
        if listing is None or not _shown(listing, now_ms):
            raise _refused(404, "NOT_FOUND", "valid product_id is required")
        timeframe = _GRANULARITIES.get(call.params.get("granularity", ""))
        if timeframe is None:
            raise _invalid("granularity argument is invalid")
        start, end = _seconds(call, "start") * 1000, _seconds(call, "end") * 1000
        if end < start:
            raise _invalid("start must be before end")
        if end - start >= MOST_CANDLES * timeframe.typical_ms:
            raise _invalid(
                "start and end argument is invalid - number of candles requested should be less "
                f"than {MOST_CANDLES} "
            )
        window = Interval(start, end + 1)  # both bounds are inclusive
        bars = self._market.bars(listing.symbol, timeframe, window, now_ms)
        body = orjson.dumps({"candles": payloads.candles(listing, bars)})
        return Reply(200, body, Page(listing.symbol, timeframe), rows=len(bars))

    # ----------------------------------------------------------------- listings and tickers

    def _list_products(self, call: Call, now_ms: int) -> Reply:
        kind = call.params.get("product_type")  # all of them, where it is left out
        products = [
            payloads.product(one, self._market.ticker(one.symbol, now_ms), now_ms)
            for one in self._products.values()
            if _shown(one, now_ms) and kind in {None, payloads.product_type(one)}
        ]
        return reply({"products": products, "num_products": len(products)})

    def _coins(self, call: Call, now_ms: int) -> Reply:
        names = {one.market.base for one in self._products.values() if _shown(one, now_ms)}
        return reply({"data": [payloads.coin(name) for name in sorted(names)]})


def _shown(listing: Listing, now_ms: int) -> bool:
    """Return whether it is listed: contracts go when they end, spot stays, no longer trading."""
    if listing.market.type is MarketType.SPOT:
        return listing.known_at(now_ms)
    return listing.trading_at(now_ms)


def _product_of(call: Call) -> str:
    return call.path.removeprefix(f"{_PRODUCTS}/").partition("/")[0]


def _seconds(call: Call, name: str) -> int:
    text = call.params.get(name, "")
    if not _SECONDS.match(text):
        raise _invalid(f"{name} argument is invalid")
    return int(text)


def _invalid(details: str) -> Rejected:
    return _refused(400, "INVALID_ARGUMENT", details)


def _refused(status: int, error: str, details: str) -> Rejected:
    return Rejected(reply({"error": error, "error_details": details, "message": details}, status))


def _failed(status: int, name: str, message: str) -> Reply:
    return reply({"errors": [{"id": name, "message": message}]}, status)
