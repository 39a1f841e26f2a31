"""How Binance spells its coin-margined contracts.

They are the market's contracts once more, worth a fixed number of dollars each
and settled in the coin: ``BTC/USDT:USDT`` is served as ``BTCUSD_PERP``. Source:
developers.binance.com, coin-margined futures, market data (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from backtester.data.sandbox.dialects import binance_payloads as linear
from backtester.data.sandbox.source import Bars, Listing, Ticker
from backtester.data.sandbox.spelling import plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["contract", "dollars", "id_of", "in_contracts", "listings", "ticker"]


def listings(contracts: Iterable[Listing]) -> dict[str, Listing]:
    """Return those listings that are served coin-margined too, by Binance's id."""
    return {
        id_of(item): item
        for item in contracts
        if item.market.quote == "USDT" and not item.market.base.startswith("1000")
    }


def id_of(listing: Listing) -> str:
    """Return Binance's id: ``BTCUSD_PERP``, dated contracts as ``BTCUSD_261225``."""
    dated = listing.market.id.partition("_")[2]
    return f"{listing.market.base}USD_{dated or 'PERP'}"


def dollars(listing: Listing) -> int:
    """Return the size of a contract, US dollars."""
    return 100 if listing.market.base == "BTC" else 10


def contract(listing: Listing, known: list[Listing], now_ms: int) -> dict[str, object]:
    told = linear.contract(listing, known, now_ms)
    base = listing.market.base
    return {
        **{name: value for name, value in told.items() if name != "status"},
        "symbol": id_of(listing),
        "pair": f"{base}USD",
        "contractStatus": told["status"],
        "contractSize": dollars(listing),
        "quoteAsset": "USD",
        "marginAsset": base,
        "quantityPrecision": 0,
        "equalQtyPrecision": 4,
    }


def ticker(listing: Listing, ticker: Ticker) -> dict[str, object]:
    told = linear.contract_ticker(listing, ticker)
    told.pop("quoteVolume")
    return {
        **told,
        "symbol": id_of(listing),
        "pair": f"{listing.market.base}USD",
        "lastQty": "1",
        "volume": str(round(ticker.quote_volume / dollars(listing))),
        "baseVolume": plain(ticker.volume),
    }


def in_contracts(bars: Bars, listing: Listing) -> Bars:
    """Put contracts where other markets have base units, and base units for quote units."""
    table = bars.table.copy()
    table[[4, 7]] = [_contracts(bars, row, dollars(listing)) for row in (5, 8)]
    table[[5, 8]] = bars.table[[4, 7]]
    if bars.decimals is None:
        return replace(bars, table=table)
    prices, lots = bars.decimals[:4], bars.decimals[4]
    return replace(bars, table=table, decimals=(*prices, 0, lots, 0, 0, lots))


def _contracts(bars: Bars, row: int, size: int) -> NDArray[Any]:
    """Count the contracts that a quote volume is worth, begun ones as whole."""
    if bars.decimals is None:
        return np.array([str(-(-float(text) // size)) for text in bars.table[row]], object)
    counted: NDArray[Any] = -(-bars.table[row] // (size * 10 ** bars.decimals[row]))
    return counted
