"""How KuCoin spells symbols, contracts, candles and tickers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from backtester.data.model import MarketType
from backtester.data.sandbox.dialects.common import columns_of_text, decimal_text
from backtester.data.sandbox.source import Bars, Listing, Ticker
from backtester.data.sandbox.spelling import plain

__all__ = [
    "as_sent",
    "candles",
    "contract",
    "currency",
    "in_order",
    "klines",
    "spot_symbol",
    "spot_ticker",
    "symbol_id",
]

_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME, _QUOTE = range(6)
_QUARTERS: Final = {3: "H", 6: "M", 9: "U", 12: "Z"}


def symbol_id(listing: Listing) -> str:
    """Return KuCoin's id: ``BTC-USDT``, ``XBTUSDTM``, ``XBTMZ26``."""
    market = listing.market
    if market.type is MarketType.SPOT:
        return f"{market.base}-{market.quote}"
    if listing.expiry_ms is None:
        return f"{_futures_base(listing)}{market.quote}M"
    day = datetime.fromtimestamp(listing.expiry_ms // 1000, UTC)
    return f"{_futures_base(listing)}M{_QUARTERS[day.month]}{day:%y}"


def _futures_base(listing: Listing) -> str:
    return "XBT" if listing.market.base == "BTC" else listing.market.base


# --------------------------------------------------------------------------- candles


def candles(listing: Listing, bars: Bars) -> list[list[str]]:
    """Spell spot candles, newest first: seconds, open, close, high, low, base, quote volume."""
    columns = columns_of_text(bars, (_OPEN, _CLOSE, _HIGH, _LOW, _VOLUME, _QUOTE))
    times = [str(time // 1000) for time in bars.open_time.tolist()]
    return [list(row) for row in zip(times, *columns, strict=True)][::-1]


def klines(listing: Listing, bars: Bars) -> list[list[float]]:
    """Spell the futures' candles, oldest first: their volume counts contracts of one lot."""
    columns = columns_of_text(bars, (_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME))
    numbers = [[float(text) for text in column] for column in columns]
    lots = [round(volume * 10**listing.lot_decimals) for volume in numbers[_VOLUME]]
    return [list(row) for row in zip(bars.open_time.tolist(), *numbers[:4], lots, strict=True)]


def in_order(row: list[Any]) -> list[Any]:
    """Return a row as milliseconds, open, high, low, close and the rest, of whichever host."""
    if not isinstance(row[0], str):
        return row
    time, opened, closed, high, low, *rest = row
    return [int(time) * 1000, opened, high, low, closed, *rest]


def as_sent(row: list[Any], of_spot: bool) -> list[Any]:
    """Undo `in_order`."""
    if not of_spot:
        return row
    time, opened, high, low, closed, *rest = row
    return [str(time // 1000), opened, closed, high, low, *rest]


# --------------------------------------------------------------------------- listings


def currency(name: str) -> dict[str, object]:
    return {"currency": name, "name": name, "fullName": name, "precision": 8, "chains": []}


def spot_symbol(listing: Listing) -> dict[str, object]:
    market = listing.market
    tick, lot = decimal_text(1, listing.price_decimals), decimal_text(1, listing.lot_decimals)
    return {
        "symbol": symbol_id(listing),
        "name": symbol_id(listing),
        "baseCurrency": market.base,
        "quoteCurrency": market.quote,
        "feeCurrency": market.quote,
        "market": "USDS",
        "baseMinSize": lot,
        "quoteMinSize": "0.1",
        "baseMaxSize": "10000000000",
        "quoteMaxSize": "99999999",
        "baseIncrement": lot,
        "quoteIncrement": "0.000001",
        "priceIncrement": tick,
        "priceLimitRate": "0.1",
        "isMarginEnabled": False,
        "enableTrading": True,
    }


def contract(listing: Listing, ticker: Ticker) -> dict[str, object]:
    """Spell a contract with its last 24 hours, whose volume counts base units."""
    market, dated = listing.market, listing.expiry_ms is not None
    return {
        "symbol": symbol_id(listing),
        "rootSymbol": market.settle,
        "type": "FFICSX" if dated else "FFWCSX",
        "firstOpenDate": listing.listed_ms,
        "expireDate": listing.expiry_ms,
        "settleDate": listing.expiry_ms,
        "baseCurrency": _futures_base(listing),
        "quoteCurrency": market.quote,
        "settleCurrency": market.settle,
        "maxOrderQty": 1000000,
        "maxPrice": 1000000.0,
        "lotSize": 1,
        "tickSize": 10.0**-listing.price_decimals,
        "multiplier": float(decimal_text(1, listing.lot_decimals)),
        "makerFeeRate": 0.0002,
        "takerFeeRate": 0.0006,
        "isQuanto": True,
        "isInverse": False,
        "status": "Open",
        "turnoverOf24h": ticker.quote_volume,
        "volumeOf24h": ticker.volume,
        "lastTradePrice": ticker.last,
        "lowPrice": ticker.low,
        "highPrice": ticker.high,
        "nextFundingRateTime": None if dated else 20_022_985,
        "maxLeverage": 100,
    }


# --------------------------------------------------------------------------- tickers


def spot_ticker(listing: Listing, ticker: Ticker) -> dict[str, object]:
    return {
        "symbol": symbol_id(listing),
        "symbolName": symbol_id(listing),
        "buy": plain(ticker.last),
        "sell": plain(ticker.last),
        "changePrice": plain(round(ticker.last - ticker.open, listing.price_decimals)),
        "high": plain(ticker.high),
        "low": plain(ticker.low),
        "vol": plain(ticker.volume),
        "volValue": plain(ticker.quote_volume),
        "last": plain(ticker.last),
        "averagePrice": plain(ticker.weighted_average),
        "takerFeeRate": "0.001",
        "makerFeeRate": "0.001",
        "takerCoefficient": "1",
        "makerCoefficient": "1",
    }
