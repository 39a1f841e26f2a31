"""KuCoin's public dialect: spot, and perpetual and dated futures on a host of their own.

Sources: KuCoin's API reference (www.kucoin.com/docs-new: klines of both, rate-limit), a recorded
answer of `symbols`, issues 350 and 373 of Kucoin/kucoin-api-docs for the weeks, and ccxt 4.5.90
`kucoin.py` for what a client reads. Here the hosts are told apart by the first part of the path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from backtester.data.model import Interval, MarketType, Timeframe
from backtester.data.sandbox.dialects import Call, Columns, Page, Rejected, Reply
from backtester.data.sandbox.dialects import kucoin_payloads as payloads
from backtester.data.sandbox.dialects.common import reply, web_page, whole
from backtester.data.sandbox.source import Listing, MarketSource, newest

__all__ = ["KuCoin", "make"]

_SPOT, _FUTURES = "/spot/api/", "/futures/api/"
_POOL: Final = 2000
"""Weight in 30 seconds of all public calls of an address."""
_WEIGHTS: Final = {
    f"{_SPOT}v1/timestamp": 3,
    f"{_SPOT}v3/currencies": 3,
    f"{_SPOT}v2/symbols": 4,
    f"{_SPOT}v1/market/allTickers": 15,
    f"{_SPOT}v1/market/candles": 3,
    f"{_FUTURES}v1/timestamp": 2,
    f"{_FUTURES}v1/contracts/active": 3,
    f"{_FUTURES}v1/kline/query": 3,
}

_MINUTES = {str(n): Timeframe(n, "m") for n in (1, 5, 15, 30)}
_HOURS = {n: Timeframe(n, "h") for n in (1, 2, 4, 6, 8, 12)}
# Weeks are multiples of seven days since the epoch: they open on Thursday.
_TYPES: Final = {
    **{f"{name}min": unit for name, unit in _MINUTES.items()},
    "3min": Timeframe(3, "m"),
    **{f"{n}hour": unit for n, unit in _HOURS.items()},
    "1day": Timeframe(1, "d"),
    "1week": Timeframe(7, "d"),
    "1month": Timeframe(1, "M"),
}
_GRANULARITIES: Final = {
    **_MINUTES,
    **{str(60 * n): unit for n, unit in _HOURS.items() if n != 6},
    "1440": Timeframe(1, "d"),
    "10080": Timeframe(7, "d"),
}


@dataclass(frozen=True, slots=True)
class _Klines:
    """How the candles of one host are asked for and cut."""

    names: tuple[str, str, str]
    """Of the parameters: timeframe, start, end."""
    timeframes: Mapping[str, Timeframe]
    unit_ms: int
    end_counts: bool
    """Whether a candle that opens at the end belongs to the window."""
    most: int
    """Candles in an answer; of a larger window the newest are kept."""


_HOSTS: Final = {
    _SPOT: _Klines(("type", "startAt", "endAt"), _TYPES, 1000, False, 1500),
    _FUTURES: _Klines(("granularity", "from", "to"), _GRANULARITIES, 1, True, 500),
}


def make(market: MarketSource, weight_limits: Mapping[str, int] | None) -> KuCoin:
    """Make the dialect; what every module of this folder offers."""
    return KuCoin(market, weight_limits)


class KuCoin:
    """Answers as KuCoin would for the symbols of a market.

    Parameters
    ----------
    market : MarketSource
    weight_limits : mapping of str to int, optional
        Weight in 30 seconds, as ``"public"``.
    """

    columns = Columns(time=0, open=1, high=2, low=3, close=4, volume=5)
    window_s = 30.0
    ccxt_paths: Mapping[str, Any] = {"public": "/spot", "futuresPublic": "/futures"}

    def __init__(
        self, market: MarketSource, weight_limits: Mapping[str, int] | None = None
    ) -> None:
        self._market = market
        self._pool = {"public": _POOL, **(weight_limits or {})}["public"]
        self._listings: dict[str, dict[str, Listing]] = {_SPOT: {}, _FUTURES: {}}
        for one in market.listings():
            host = _SPOT if one.market.type is MarketType.SPOT else _FUTURES
            self._listings[host][payloads.symbol_id(one)] = one
        self._endpoints: dict[str, Callable[[Call, int], Reply]] = {
            f"{_SPOT}v1/timestamp": _timestamp,
            f"{_SPOT}v3/currencies": self._currencies,
            f"{_SPOT}v2/symbols": self._symbols,
            f"{_SPOT}v1/market/allTickers": self._tickers,
            f"{_SPOT}v1/market/candles": self._klines,
            f"{_FUTURES}v1/timestamp": _timestamp,
            f"{_FUTURES}v1/contracts/active": self._contracts,
            f"{_FUTURES}v1/kline/query": self._klines,
        }

    # ----------------------------------------------------------------- calls

    def family(self, path: str) -> str | None:
        return "public" if _host_of(path) else None

    def limit(self, call: Call) -> int:
        return self._pool

    def weight(self, call: Call) -> int:
        return _WEIGHTS.get(call.path, 1)

    def symbol(self, call: Call) -> str | None:
        host = _host_of(call.path) or _SPOT
        listing = self._listings[host].get(call.params.get("symbol", ""))
        return listing.symbol if listing else None

    def answer(self, call: Call, now_ms: int) -> Reply:
        endpoint = self._endpoints.get(call.path)
        return (
            _error(404, "404000", "Url Not Found") if endpoint is None else endpoint(call, now_ms)
        )

    # ----------------------------------------------------------------- failures

    def weight_headers(self, used: int) -> dict[str, str]:
        """Return what remains of the pool; how long it lasts is only told where it is empty."""
        remaining = str(max(self._pool - used, 0))
        return {"gw-ratelimit-limit": str(self._pool), "gw-ratelimit-remaining": remaining}

    def limited(self, call: Call, retry_after_s: int) -> Reply:
        refused = _error(429, "429000", "Too many requests. System-level rate limit exceeded.")
        return refused.with_headers({"gw-ratelimit-reset": str(retry_after_s * 1000)})

    def banned(self, until_ms: int, retry_after_s: int) -> Reply:
        return self.limited(Call("", {}, "public"), retry_after_s)

    def failure(self, status: int) -> Reply:
        return web_page(status)

    def disconnected(self) -> Reply:
        return _error(500, "500000", "Internal Server Error")

    def maintenance(self) -> Reply:
        return _error(503, "503000", "Service unavailable")

    def with_clock_off(self, reply: Reply, offset_ms: int) -> Reply:
        payload = orjson.loads(reply.body)
        payload["data"] += offset_ms
        return replace(reply, body=orjson.dumps(payload))

    def rows_of(self, reply: Reply) -> list[list[Any]]:
        return [payloads.in_order(row) for row in orjson.loads(reply.body)["data"]]

    def with_rows(self, reply: Reply, rows: list[list[Any]]) -> Reply:
        of_spot = isinstance(orjson.loads(reply.body)["data"][0][0], str)
        return replace(reply, body=_data([payloads.as_sent(row, of_spot) for row in rows]).body)

    # ----------------------------------------------------------------- candles

    def _klines(self, call: Call, now_ms: int) -> Reply:
        host = _host_of(call.path)
        assert host is not None, "the server asks for paths of a family only"
        rules, listing = _HOSTS[host], self._listings[host].get(call.params.get("symbol", ""))
        if listing is None or not listing.trading_at(now_ms):
            raise Rejected(_refused("This pair is not provided at present"))
        timeframe_name, start_name, end_name = rules.names
        timeframe = rules.timeframes.get(call.params.get(timeframe_name, ""))
        if timeframe is None:
            raise Rejected(_refused("Incorrect candlestick type"))
        start = _whole(call, start_name, 0) * rules.unit_ms
        end = _whole(call, end_name, now_ms // rules.unit_ms + 1) * rules.unit_ms
        window = Interval(start, max(end + rules.end_counts, start + 1))
        bars = newest(self._market, listing, timeframe, window, rules.most, now_ms)
        if end <= start:
            bars = bars[:0]
        rows = payloads.candles(listing, bars) if host == _SPOT else payloads.klines(listing, bars)
        return replace(_data(rows), page=Page(listing.symbol, timeframe), rows=len(bars))

    # ----------------------------------------------------------------- listings and tickers

    def _trading(self, host: str, now_ms: int) -> list[Listing]:
        """Return what can be traded: what is delisted or delivered vanishes."""
        return [one for one in self._listings[host].values() if one.trading_at(now_ms)]

    def _currencies(self, call: Call, now_ms: int) -> Reply:
        markets = [one.market for one in self._trading(_SPOT, now_ms)]
        names = {name for market in markets for name in (market.base, market.quote)}
        return _data([payloads.currency(name) for name in sorted(names)])

    def _symbols(self, call: Call, now_ms: int) -> Reply:
        return _data([payloads.spot_symbol(one) for one in self._trading(_SPOT, now_ms)])

    def _tickers(self, call: Call, now_ms: int) -> Reply:
        tickers = [
            payloads.spot_ticker(one, self._market.ticker(one.symbol, now_ms))
            for one in self._trading(_SPOT, now_ms)
        ]
        return _data({"time": now_ms, "ticker": tickers})

    def _contracts(self, call: Call, now_ms: int) -> Reply:
        return _data(
            [
                payloads.contract(one, self._market.ticker(one.symbol, now_ms))
                for one in self._trading(_FUTURES, now_ms)
            ]
        )


def _timestamp(call: Call, now_ms: int) -> Reply:
    return replace(_data(now_ms), tells_time=True)


def _data(data: object) -> Reply:
    return reply({"code": "200000", "data": data})


def _refused(message: str) -> Reply:
    return _error(200, "400100", message)


def _error(status: int, code: str, message: str) -> Reply:
    return reply({"code": code, "msg": message}, status)


def _host_of(path: str) -> str | None:
    return next((host for host in _HOSTS if path.startswith(host)), None)


def _whole(call: Call, name: str, default: int) -> int:
    found = whole(call, name, lambda name: _refused(f"{name} is invalid"), digits=16)
    return default if found is None else found
