"""How OKX spells candles, instruments and tickers."""

from __future__ import annotations

from typing import Final

import numpy as np

from backtester.data.model import MarketType
from backtester.data.sandbox.dialects.common import columns_of_text, decimal_text
from backtester.data.sandbox.source import Bars, Listing, Ticker
from backtester.data.sandbox.spelling import plain

__all__ = ["CONTRACTS_PER_UNIT", "id_of", "instrument", "rows", "ticker"]

CONTRACTS_PER_UNIT: Final = 100
"""Contracts in one unit of the base asset: `ctVal` is 0.01, as it is for BTC-USDT-SWAP."""
_INST_TYPES: Final = {
    MarketType.SPOT: "SPOT",
    MarketType.SWAP: "SWAP",
    MarketType.FUTURE: "FUTURES",
}


def rows(bars: Bars, listing: Listing, forming_ms: int) -> list[list[str]]:
    """Spell candles, oldest first.

    Time, four prices, volume in contracts (base on spot), in base (quote on spot), in quote,
    and whether the candle is closed. `forming_ms` is the open time of the one that is not.
    """
    opened, high, low, closed, volume, quote = columns_of_text(bars, range(6))
    spot = listing.market.type is MarketType.SPOT
    counted = volume if spot else _in_contracts(bars)
    in_currency = quote if spot else volume
    times = bars.open_time.tolist()
    confirmed = ["0" if at == forming_ms else "1" for at in times]
    columns = (opened, high, low, closed, counted, in_currency, quote, confirmed)
    return [list(row) for row in zip(map(str, times), *columns, strict=True)]


def _in_contracts(bars: Bars) -> list[str]:
    if bars.decimals is None:
        return [plain(float(value) * CONTRACTS_PER_UNIT) for value in bars.table[4]]
    places = bars.decimals[4]
    return [decimal_text(n * CONTRACTS_PER_UNIT, places) for n in bars.table[4].tolist()]


def id_of(listing: Listing) -> str:
    """Return OKX's id: ``BTC-USDT``, ``BTC-USDT-SWAP``, ``BTC-USDT-260925``."""
    market = listing.market
    pair = f"{market.base}-{market.quote}"
    if market.type is MarketType.SPOT:
        return pair
    if listing.expiry_ms is None:
        return f"{pair}-SWAP"
    day = str(np.datetime64(listing.expiry_ms, "ms").astype("datetime64[D]"))
    return f"{pair}-{day.replace('-', '')[2:]}"


def instrument(listing: Listing) -> dict[str, object]:
    market = listing.market
    contract = market.type is not MarketType.SPOT
    pair = f"{market.base}-{market.quote}"
    return {
        "alias": "",
        "baseCcy": "" if contract else market.base,
        "category": "1",
        "ctMult": "1" if contract else "",
        "ctType": "linear" if contract else "",
        "ctVal": str(1 / CONTRACTS_PER_UNIT) if contract else "",
        "ctValCcy": market.base if contract else "",
        "expTime": str(listing.expiry_ms or ""),
        "instFamily": pair if contract else "",
        "instId": id_of(listing),
        "instType": _INST_TYPES[market.type],
        "lever": "50" if contract else "",
        "listTime": str(listing.listed_ms),
        "lotSz": "0.01" if contract else _step(listing.lot_decimals),
        "minSz": "0.01" if contract else _step(listing.lot_decimals),
        "optType": "",
        "quoteCcy": "" if contract else market.quote,
        "settleCcy": market.settle or "",
        "state": "live",
        "stk": "",
        "tickSz": _step(listing.price_decimals),
        "uly": pair if contract else "",
    }


def ticker(listing: Listing, ticker: Ticker) -> dict[str, object]:
    contract = listing.market.type is not MarketType.SPOT
    volume, base = ticker.volume, plain(ticker.volume)
    return {
        "instType": _INST_TYPES[listing.market.type],
        "instId": id_of(listing),
        "last": plain(ticker.last),
        "lastSz": _step(listing.lot_decimals),
        "askPx": plain(ticker.last),
        "askSz": _step(listing.lot_decimals),
        "bidPx": plain(ticker.last),
        "bidSz": _step(listing.lot_decimals),
        "open24h": plain(ticker.open),
        "high24h": plain(ticker.high),
        "low24h": plain(ticker.low),
        # Contracts and base units there, base and quote units here.
        "vol24h": plain(round(volume * CONTRACTS_PER_UNIT, 8)) if contract else base,
        "volCcy24h": base if contract else plain(ticker.quote_volume),
        "ts": str(ticker.close_ms),
    }


def _step(places: int) -> str:
    return f"{10.0**-places:.{places}f}" if places else "1"
