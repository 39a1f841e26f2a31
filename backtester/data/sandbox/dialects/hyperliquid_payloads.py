"""How Hyperliquid spells candles, perpetuals, pairs and their contexts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from backtester.data.model import Timeframe
from backtester.data.sandbox.dialects.common import columns_of_text
from backtester.data.sandbox.source import Bars, Listing, Ticker
from backtester.data.sandbox.spelling import plain

__all__ = [
    "COLUMNS",
    "pairs",
    "perpetuals",
    "rows",
    "spot_context",
    "spot_meta",
    "swap_context",
    "swap_meta",
]

COLUMNS: Final = ("t", "o", "h", "l", "c", "v")
_WRAPPED: Final = {"BTC": "UBTC", "ETH": "UETH", "SOL": "USOL", "USDT": "USDT0"}
"""Tokens of other chains are traded under names of their own."""
_SPOT_QUOTES: Final = ("USDC", "USDT")


def perpetuals(contracts: Iterable[Listing]) -> dict[str, Listing]:
    """Return those contracts that are served, by coin."""
    return {
        item.market.base: item
        for item in contracts
        if item.market.quote == "USDT" and not item.market.base.startswith("1000")
    }


def pairs(spots: Iterable[Listing]) -> dict[str, Listing]:
    """Return those pairs that are served, as ``@`` and their number: nobody else names them."""
    served = [item for item in spots if item.market.quote in _SPOT_QUOTES]
    return {f"@{number}": item for number, item in enumerate(served)}


# --------------------------------------------------------------------------- candles


def rows(bars: Bars, timeframe: Timeframe, coin: str, interval: str) -> list[dict[str, object]]:
    """Spell candles, oldest first."""
    columns = columns_of_text(bars, range(5))
    return [
        {
            "t": opened,
            "T": timeframe.next(opened) - 1,
            "s": coin,
            "i": interval,
            **dict(zip(COLUMNS[1:], row, strict=True)),
            "n": 1,
        }
        for opened, *row in zip(bars.open_time.tolist(), *columns, strict=True)
    ]


# --------------------------------------------------------------------------- listings


def swap_meta(known: Mapping[str, Listing], now_ms: int) -> dict[str, object]:
    return {
        "universe": [
            {
                "name": coin,
                "szDecimals": item.lot_decimals,
                "maxLeverage": 40,
                **({} if item.trading_at(now_ms) else {"isDelisted": True}),
            }
            for coin, item in known.items()
        ],
        "marginTables": [],
        "collateralToken": 0,
    }


def spot_meta(served: Mapping[str, Listing]) -> dict[str, object]:
    lots = {item.market.base: item.lot_decimals for item in served.values()}
    names = sorted({item.market.quote for item in served.values()} | set(lots))
    index = {name: at for at, name in enumerate(names)}
    return {
        "tokens": [
            {
                "name": _WRAPPED.get(name, name),
                "szDecimals": lots.get(name, 2),
                "weiDecimals": 8,
                "index": at,
                "isCanonical": False,
                "fullName": None,
            }
            for name, at in index.items()
        ],
        "universe": [
            {
                "name": coin,
                "tokens": [index[item.market.base], index[item.market.quote]],
                "index": number,
                "isCanonical": False,
            }
            for number, (coin, item) in enumerate(served.items())
        ],
    }


# --------------------------------------------------------------------------- contexts


def swap_context(ticker: Ticker) -> dict[str, object]:
    return {
        **_day(ticker),
        "funding": "0.0000125",
        "openInterest": "1.0",
        "oraclePx": plain(ticker.last),
        "premium": "0.0",
        "impactPxs": [plain(ticker.last), plain(ticker.last)],
    }


def spot_context(coin: str, ticker: Ticker) -> dict[str, object]:
    return {**_day(ticker), "coin": coin, "circulatingSupply": "1.0", "totalSupply": "1.0"}


def _day(ticker: Ticker) -> dict[str, object]:
    return {
        "prevDayPx": plain(ticker.open),
        "dayNtlVlm": plain(ticker.quote_volume),
        "dayBaseVlm": plain(ticker.volume),
        "markPx": plain(ticker.last),
        "midPx": plain(ticker.last),
    }
