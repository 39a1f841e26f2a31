"""Hyperliquid's info endpoint: spot and perpetuals, all asked for with POST /info.

Shapes, weights and the reach of 5,000 candles follow
https://hyperliquid.gitbook.io/hyperliquid-docs/for-developers/api (info endpoint, rate
limits; read 2026-11). Dollars are USDC there: the market's ``BTC/USDT:USDT`` is served
as the perpetual ``BTC``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from backtester.data.errors import UnknownTimeframeError
from backtester.data.model import Interval, MarketType, Timeframe
from backtester.data.sandbox.dialects import Call, Columns, Page, Reply
from backtester.data.sandbox.dialects import hyperliquid_payloads as payloads
from backtester.data.sandbox.dialects.common import reply, web_page
from backtester.data.sandbox.source import Bars, Listing, MarketSource, newest

__all__ = ["Hyperliquid", "make"]

_PATH: Final = "/info"
_WEIGHT: Final = 1200
"""A minute and address."""
_CHEAP: Final = frozenset(("exchangeStatus", "allMids", "l2Book"))
_REACH: Final = 5_000
_ROWS_PER_WEIGHT: Final = 60
_INTERVALS: Final = {
    **{f"{minutes}m": Timeframe(minutes, "m") for minutes in (1, 3, 5, 15, 30)},
    **{f"{hours}h": Timeframe(hours, "h") for hours in (1, 2, 4, 8, 12)},
    "1d": Timeframe(1, "d"),
    "3d": Timeframe(3, "d"),
    "1w": Timeframe(7, "d"),  # every seven days since 1970, so from Thursday on
    "1M": Timeframe(1, "M"),
}


def make(market: MarketSource, weight_limits: Mapping[str, int] | None) -> Hyperliquid:
    """Make the dialect; what every module of this folder offers."""
    return Hyperliquid(market, weight_limits)


class Hyperliquid:
    """Answers as Hyperliquid would for the symbols of a market.

    Parameters
    ----------
    market : MarketSource
    weight_limits : mapping of str to int, optional
        Weight per minute for ``"info"``.

    Notes
    -----
    A delisted perpetual stays in the list and says so; a spot pair does not end.
    """

    columns = Columns(time=0, open=1, high=2, low=3, close=4, volume=5)
    window_s = 60.0
    ccxt_paths: Mapping[str, Any] = {"public": "", "private": ""}

    def __init__(
        self, market: MarketSource, weight_limits: Mapping[str, int] | None = None
    ) -> None:
        self._market = market
        self._limit = (weight_limits or {}).get("info", _WEIGHT)
        self._perpetuals = payloads.perpetuals(market.listings(MarketType.SWAP))
        self._pairs = payloads.pairs(market.listings(MarketType.SPOT))
        self._coins = {**self._perpetuals, **self._pairs}
        self._answers: dict[str, Callable[[Call, int], Reply]] = {
            "exchangeStatus": self._status,
            "spotMeta": lambda call, now_ms: reply(payloads.spot_meta(self._pairs)),
            "spotMetaAndAssetCtxs": self._spot,
            "metaAndAssetCtxs": self._swaps,
            "perpDexs": lambda call, now_ms: reply([None]),  # the first one stands for its own
            "candleSnapshot": self._candles,
        }

    # ----------------------------------------------------------------- calls

    def family(self, path: str) -> str | None:
        return "info" if path == _PATH else None

    def limit(self, call: Call) -> int:
        return self._limit

    def weight(self, call: Call) -> int:
        kind = call.params.get("type")
        if kind in _CHEAP:
            return 2
        return 20 + (self._rows_asked(call) // _ROWS_PER_WEIGHT if kind == "candleSnapshot" else 0)

    def symbol(self, call: Call) -> str | None:
        listing = self._coins.get(call.params.get("coin", ""))
        return listing.symbol if listing else None

    def answer(self, call: Call, now_ms: int) -> Reply:
        answer = self._answers.get(call.params.get("type", ""))
        return _unreadable() if answer is None else answer(call, now_ms)

    # ----------------------------------------------------------------- failures

    def weight_headers(self, used: int) -> dict[str, str]:
        return {}

    def limited(self, call: Call, retry_after_s: int) -> Reply:
        return reply(None, 429)

    def banned(self, until_ms: int, retry_after_s: int) -> Reply:
        return web_page(403)

    def failure(self, status: int) -> Reply:
        return web_page(status)

    def disconnected(self) -> Reply:
        return reply(None, 500)

    def maintenance(self) -> Reply:
        return web_page(502)

    def with_clock_off(self, reply: Reply, offset_ms: int) -> Reply:
        told = orjson.loads(reply.body)
        return replace(reply, body=orjson.dumps({**told, "time": told["time"] + offset_ms}))

    def rows_of(self, reply: Reply) -> list[list[Any]]:
        return [[row[name] for name in payloads.COLUMNS] for row in orjson.loads(reply.body)]

    def with_rows(self, reply: Reply, rows: list[list[Any]]) -> Reply:
        told = [dict(zip(payloads.COLUMNS, row, strict=True)) for row in rows]
        return replace(reply, body=orjson.dumps(told))

    # ----------------------------------------------------------------- answers

    def _status(self, call: Call, now_ms: int) -> Reply:
        return reply({"time": now_ms, "specialStatuses": None}, tells_time=True)

    def _spot(self, call: Call, now_ms: int) -> Reply:
        contexts = [
            payloads.spot_context(coin, self._market.ticker(item.symbol, now_ms))
            for coin, item in self._pairs.items()
        ]
        return reply([payloads.spot_meta(self._pairs), contexts])

    def _swaps(self, call: Call, now_ms: int) -> Reply:
        known = {coin: item for coin, item in self._perpetuals.items() if item.known_at(now_ms)}
        contexts = [
            payloads.swap_context(self._market.ticker(item.symbol, now_ms))
            for item in known.values()
        ]
        return reply([payloads.swap_meta(known, now_ms), contexts])

    def _candles(self, call: Call, now_ms: int) -> Reply:
        listing = self._coins.get(call.params.get("coin", ""))
        if listing is None or not listing.known_at(now_ms):
            return reply(None, 500)
        timeframe, window = _asked(call, now_ms)
        if timeframe is None or window is None:
            return _unreadable()
        try:
            bars = self._bars(listing, timeframe, window, now_ms)
        except UnknownTimeframeError:  # the market has no such candles
            return _unreadable()
        rows = payloads.rows(bars, timeframe, call.params["coin"], call.params["interval"])
        return replace(reply(rows), page=Page(listing.symbol, timeframe), rows=len(rows))

    def _bars(self, listing: Listing, timeframe: Timeframe, window: Interval, now_ms: int) -> Bars:
        """Return those of the newest candles that open in the window, both bounds counting."""
        bars = newest(self._market, listing, timeframe, Interval(0, now_ms + 1), _REACH, now_ms)
        first, last = bars.open_time.searchsorted((window.start, window.end))
        return bars[int(first) : int(last)]

    def _rows_asked(self, call: Call) -> int:
        timeframe, window = _asked(call, 2**53)
        if timeframe is None or window is None:
            return 0
        return min((window.end - window.start) // timeframe.typical_ms, _REACH)


def _asked(call: Call, now_ms: int) -> tuple[Timeframe | None, Interval | None]:
    """Read interval and window; None for what cannot be read."""
    texts = call.params.get("startTime", ""), call.params.get("endTime", str(now_ms))
    if not all(text.isascii() and text.isdigit() and len(text) < 17 for text in texts):
        return None, None
    start, end = (int(text) for text in texts)
    window = Interval(start, min(end, now_ms) + 1) if start <= min(end, now_ms) else None
    return _INTERVALS.get(call.params.get("interval", "")), window


def _unreadable() -> Reply:
    text = b"Failed to deserialize the JSON body into the target type"
    return Reply(422, text, content_type="text/plain")
