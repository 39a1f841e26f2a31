"""What each exchange's candle endpoint can do, as data.

One row per exchange and market type. An exchange without a row gets `GENERIC`,
which assumes nothing. Certifying an exchange means adding its row here and its
dialect to the tests, nothing else.

Sources: ccxt 4.5.90 (`binance.py`, `describe()['api']` for the costs), the
exchange's API documentation where named; read 2026-11.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backtester.data.fetching.budget import Limit
from backtester.data.model import MarketType

__all__ = ["GENERIC", "Capability", "capability_of", "stated_limits"]

_WINDOWS_S = {"SECOND": 1, "MINUTE": 60}
_LONGEST_WINDOW_S = 300  # the ledger forgets what is older


@dataclass(frozen=True, slots=True)
class Capability:
    """How to ask one exchange for candles of one market type."""

    certified: bool
    """Whether the row was tested against the exchange's dialect."""
    page_size: int
    """Candles per request: not the most it allows, but the most per unit of weight."""
    from_start: bool
    """A `since` without an end is answered with the first candles at or after it, wherever
    they are: one request proves an absence of any length, and finds the inception."""
    asked_early: bool = True
    """Through `fetch_ohlcv`: whether to ask one candle early, as its bound may be exclusive."""
    asked_until: bool = False
    """Through `fetch_ohlcv`: whether the window's end must be sent along as ccxt's `until`."""
    volume_in_contracts: bool = False
    """Whether ccxt hands on contracts where it says base units: times the contract size, then."""
    depth: int | None = None
    """How many of the newest candles the API serves at all; None: back to the listing."""
    archive: str | None = None
    """Where older candles than the API serves can be had, for people."""
    raw_method: str | None = None
    """ccxt's implicit method for the raw endpoint (Binance dialect); None: `fetch_ohlcv`."""
    weights: tuple[tuple[int, int], ...] = ((1_000_000, 1),)
    """Cost of a page: the first entry (limit up to, weight) that fits."""
    limits: tuple[Limit, ...] = ()
    """The exchange's own limits; empty: derived from ccxt's `rateLimit`."""
    weight_per_cost: float = 1.0
    """The exchange's weight units in one of ccxt's cost units."""
    used_weight_header: str | None = None
    """The answer's header that states the weight used in the current window."""
    market_types: tuple[str, ...] = ()
    """Binance-like `options.fetchMarkets.types`: what to load for this market type."""

    def weight(self, limit: int) -> int:
        """Give the cost of a page of `limit` candles in the exchange's units."""
        return next(weight for most, weight in self.weights if limit <= most)


GENERIC = Capability(certified=False, page_size=200, from_start=False)
"""The careful row: pages that every known exchange serves whole (bitget's history gives 200
and skips rows when more are asked), every absence read twice."""

_BINANCE_SPOT = Capability(
    certified=True,
    page_size=1000,
    from_start=True,
    raw_method="publicGetKlines",
    weights=((1000, 2),),
    limits=(Limit(6000, 60.0),),
    weight_per_cost=5.0,  # ccxt: klines cost 0.4, the exchange says 2
    used_weight_header="x-mbx-used-weight-1m",
    market_types=("spot",),
)
_BINANCE_USDM = Capability(
    certified=True,
    page_size=499,  # 249.5 candles per unit of weight; 1000 would give 200
    from_start=True,
    raw_method="fapiPublicGetKlines",
    weights=((99, 1), (499, 2), (1000, 5), (1500, 10)),
    limits=(Limit(2400, 60.0),),
    weight_per_cost=1.0,
    used_weight_header="x-mbx-used-weight-1m",
    market_types=("linear",),
)

_TABLE: dict[tuple[str, MarketType], Capability] = {
    (exchange, market_type): row
    for exchange in ("binance", "sandbox")
    for market_type, row in (
        (MarketType.SPOT, _BINANCE_SPOT),
        (MarketType.SWAP, _BINANCE_USDM),
        (MarketType.FUTURE, _BINANCE_USDM),
    )
} | {
    ("binanceusdm", MarketType.SWAP): _BINANCE_USDM,
    ("binanceusdm", MarketType.FUTURE): _BINANCE_USDM,
}


def stated_limits(answer: Any) -> tuple[Limit, ...]:
    """Read the limits that an answer of the Binance dialect states; empty when it states none.

    Only request weight is read: the limits on the number of raw requests never bind candles.
    """
    if not isinstance(answer, Mapping) or not isinstance(answer.get("rateLimits"), list):
        return ()
    found = []
    for entry in answer["rateLimits"]:
        window_s = _WINDOWS_S.get(entry.get("interval"), 0) * entry.get("intervalNum", 0)
        if entry.get("rateLimitType") == "REQUEST_WEIGHT" and 0 < window_s <= _LONGEST_WINDOW_S:
            found.append(Limit(int(entry["limit"]), float(window_s)))
    return tuple(found)


def capability_of(exchange_id: str, market_type: MarketType) -> Capability:
    """Give the row of an exchange's market type, or `GENERIC`."""
    return _TABLE.get((exchange_id, market_type), GENERIC)
