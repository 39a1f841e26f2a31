"""Kraken's public REST dialect: spot, and no more of its past than the newest candles.

Sources: Kraken's API reference (docs.kraken.com/api-reference/market-data), recorded answers
of `OHLC` (721 rows: 720 complete candles and the forming one; times without trades filled in)
and of `AssetPairs`, and ccxt 4.5.90 `kraken.py` for what a client reads of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from backtester.data.model import Interval, MarketType, Timeframe
from backtester.data.sandbox.dialects import Call, Columns, Page, Rejected, Reply
from backtester.data.sandbox.dialects import kraken_payloads as payloads
from backtester.data.sandbox.dialects.common import reply, web_page
from backtester.data.sandbox.source import Bars, Listing, MarketSource, newest

__all__ = ["DEPTH", "Kraken", "make"]

DEPTH: Final = 720
"""Complete candles that are served, counted back from the forming one."""

_ROOT: Final = "/0/public/"
_PER_SECOND: Final = 1
# Everything counts from the epoch: weeks begin on Thursday, and 21600 minutes are 15 days.
_INTERVALS: Final = {
    **{str(minutes): Timeframe(minutes, "m") for minutes in (1, 5, 15, 30)},
    **{str(hours * 60): Timeframe(hours, "h") for hours in (1, 4)},
    **{str(days * 1440): Timeframe(days, "d") for days in (1, 7, 15)},
}
_NUMBER: Final = re.compile(r"[0-9]{1,19}(\.[0-9]*)?\Z")


def make(market: MarketSource, weight_limits: Mapping[str, int] | None) -> Kraken:
    """Make the dialect; what every module of this folder offers."""
    return Kraken(market, weight_limits)


class Kraken:
    """Answers as Kraken would for the spot symbols of a market.

    Parameters
    ----------
    market : MarketSource
    weight_limits : mapping of str to int, optional
        Requests per second, as ``"public"``.
    """

    columns = Columns(time=0, open=1, high=2, low=3, close=4, volume=6)
    window_s = 1.0
    ccxt_paths: Mapping[str, Any] = {"public": ""}

    def __init__(
        self, market: MarketSource, weight_limits: Mapping[str, int] | None = None
    ) -> None:
        self._market = market
        self._limits = {"public": _PER_SECOND, **(weight_limits or {})}
        self._listings = {
            payloads.pair_id(one.market): one for one in market.listings(MarketType.SPOT)
        }
        self._names = {
            name: pair
            for pair, one in self._listings.items()
            for name in payloads.names(one.market)
        }
        self._endpoints: dict[str, Callable[[Call, int], Reply]] = {
            "Time": lambda call, now_ms: _result(payloads.time(now_ms), tells_time=True),
            "Assets": self._assets,
            "AssetPairs": self._pairs,
            "Ticker": self._tickers,
            "OHLC": self._ohlc,
        }

    # ----------------------------------------------------------------- calls

    def family(self, path: str) -> str | None:
        return "public" if path.startswith(_ROOT) else None

    def limit(self, call: Call) -> int:
        return self._limits[call.family]

    def weight(self, call: Call) -> int:
        return 1

    def symbol(self, call: Call) -> str | None:
        pair = self._names.get(call.params.get("pair", ""))
        return self._listings[pair].symbol if pair else None

    def answer(self, call: Call, now_ms: int) -> Reply:
        endpoint = self._endpoints.get(call.path.removeprefix(_ROOT))
        return _error("EGeneral:Unknown method") if endpoint is None else endpoint(call, now_ms)

    # ----------------------------------------------------------------- failures

    def weight_headers(self, used: int) -> dict[str, str]:
        return {}  # Kraken states nothing

    def limited(self, call: Call, retry_after_s: int) -> Reply:
        return _error("EAPI:Rate limit exceeded")  # status 200, and no word on how long

    def banned(self, until_ms: int, retry_after_s: int) -> Reply:
        return _error("EGeneral:Temporary lockout")

    def failure(self, status: int) -> Reply:
        return web_page(status)

    def disconnected(self) -> Reply:
        return _error("EGeneral:Internal error")

    def maintenance(self) -> Reply:
        return _error("EService:Unavailable", 503)

    def with_clock_off(self, reply: Reply, offset_ms: int) -> Reply:
        payload = orjson.loads(reply.body)
        payload["result"]["unixtime"] += offset_ms // 1000
        return replace(reply, body=orjson.dumps(payload))

    def rows_of(self, reply: Reply) -> list[list[Any]]:
        result = orjson.loads(reply.body)["result"]
        rows = next(value for key, value in result.items() if key != "last")
        return [[row[0] * 1000, *row[1:]] for row in rows]

    def with_rows(self, reply: Reply, rows: list[list[Any]]) -> Reply:
        result = orjson.loads(reply.body)["result"]
        pair = next(key for key in result if key != "last")
        result[pair] = [[row[0] // 1000, *row[1:]] for row in rows]
        return replace(reply, body=_result(result).body)

    # ----------------------------------------------------------------- candles

    def _ohlc(self, call: Call, now_ms: int) -> Reply:
        pair, listing = self._asked(call.params.get("pair", ""), now_ms)
        timeframe = _INTERVALS.get(call.params.get("interval", "1"))
        since = call.params.get("since", "0")
        if timeframe is None or not _NUMBER.match(since):
            raise Rejected(_error("EGeneral:Invalid arguments"))
        rows = self._newest(listing, timeframe, now_ms)
        # `since` is exclusive and only filters; the forming candle comes whatever it says.
        shown = [row for row in rows[:-1] if row[0] > float(since)] + rows[-1:]
        last = shown[-2][0] if len(shown) > 1 else rows[-1][0]
        body = _result({pair: shown, "last": last}).body
        return Reply(200, body, Page(listing.symbol, timeframe), rows=len(shown))

    def _newest(self, listing: Listing, timeframe: Timeframe, now_ms: int) -> list[list[Any]]:
        forming = timeframe.floor(now_ms)
        oldest = timeframe.next(forming, -DEPTH)
        window = Interval(oldest, forming + 1)
        bars = self._market.bars(listing.symbol, timeframe, window, now_ms)
        earlier = self._before(listing, timeframe, oldest, now_ms)
        grid = timeframe.grid(window)
        return payloads.filled_rows(grid, earlier, bars, listing.price_decimals)

    def _before(self, listing: Listing, timeframe: Timeframe, end: int, now_ms: int) -> Bars:
        """Return the last candle before a time: its close is what silence is filled with."""
        return newest(self._market, listing, timeframe, Interval(0, end), 1, now_ms)

    def _asked(self, name: str, now_ms: int) -> tuple[str, Listing]:
        pair = self._names.get(name)
        if pair is None or not self._listings[pair].trading_at(now_ms):
            raise Rejected(_error("EQuery:Unknown asset pair"))
        return pair, self._listings[pair]

    # ----------------------------------------------------------------- listings and tickers

    def _trading(self, now_ms: int) -> dict[str, Listing]:
        """Return what can be traded: pairs that are delisted vanish."""
        return {pair: one for pair, one in self._listings.items() if one.trading_at(now_ms)}

    def _assets(self, call: Call, now_ms: int) -> Reply:
        return _result(payloads.assets(one.market for one in self._trading(now_ms).values()))

    def _pairs(self, call: Call, now_ms: int) -> Reply:
        trading = self._trading(now_ms).items()
        return _result({pair: payloads.asset_pair(one) for pair, one in trading})

    def _tickers(self, call: Call, now_ms: int) -> Reply:
        asked = self._trading(now_ms)
        if "pair" in call.params:
            asked = dict(self._asked(name, now_ms) for name in call.params["pair"].split(","))
        return _result(
            {
                pair: payloads.ticker(one, self._market.ticker(one.symbol, now_ms))
                for pair, one in asked.items()
            }
        )


def _result(result: object, *, tells_time: bool = False) -> Reply:
    return reply({"error": [], "result": result}, tells_time=tells_time)


def _error(words: str, status: int = 200) -> Reply:
    return reply({"error": [words]}, status)
