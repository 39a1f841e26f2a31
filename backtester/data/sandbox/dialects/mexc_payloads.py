"""How MEXC spells candles, symbols, contracts and tickers."""

from __future__ import annotations

from typing import Any, Final

from backtester.data.model import MarketType, Timeframe
from backtester.data.sandbox.dialects.common import columns_of_text
from backtester.data.sandbox.source import Bars, Listing, Ticker
from backtester.data.sandbox.spelling import plain

__all__ = [
    "contract",
    "contract_rows",
    "contract_size",
    "contract_ticker",
    "id_of",
    "rows",
    "rows_of",
    "series_of",
    "spot_symbol",
    "spot_ticker",
]

_PER_LOT: Final = 10
"""Contracts in a lot of the market."""
_NAMES: Final = ("time", "open", "high", "low", "close", "vol")


def id_of(listing: Listing) -> str:
    """Return MEXC's id: ``BTCUSDT`` on spot, ``BTC_USDT`` on contracts."""
    spot = listing.market.type is MarketType.SPOT
    return f"{listing.market.base}{'' if spot else '_'}{listing.market.quote}"


def contract_size(listing: Listing) -> float:
    """Return the size of a contract in base units: a tenth of the market's lot."""
    return float(f"1e-{listing.lot_decimals + 1}")


# --------------------------------------------------------------------------- candles


def rows(bars: Bars, timeframe: Timeframe) -> list[list[Any]]:
    """Spell spot candles, oldest first: time, four prices, volume, close time, quote volume."""
    columns = columns_of_text(bars, range(6))
    times = bars.open_time.tolist()
    return [
        [opened, *row[:5], timeframe.next(opened), row[5]]
        for opened, *row in zip(times, *columns, strict=True)
    ]


def contract_rows(bars: Bars, listing: Listing) -> list[list[Any]]:
    """Return milliseconds, four prices and contracts of candles, as numbers."""
    prices = [[float(text) for text in column] for column in columns_of_text(bars, range(4))]
    if bars.decimals is None:
        size = contract_size(listing)
        volume = [float(round(float(text) / size)) for text in bars.table[4]]
    else:
        volume = (bars.table[4] * float(_PER_LOT)).tolist()
    return [list(row) for row in zip(bars.open_time.tolist(), *prices, volume, strict=True)]


def series_of(rows: list[list[Any]]) -> dict[str, list[Any]]:
    """Spell such rows as contracts' candles: a list for each column."""
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in _NAMES]
    columns[0] = [opened // 1000 for opened in columns[0]]
    return dict(zip(_NAMES, columns, strict=True))


def rows_of(series: dict[str, list[Any]]) -> list[list[Any]]:
    """Read such columns as rows again."""
    table = zip(*(series[name] for name in _NAMES), strict=True)
    return [[opened * 1000, *row] for opened, *row in table]


# --------------------------------------------------------------------------- listings


def spot_symbol(listing: Listing) -> dict[str, object]:
    return {
        "symbol": id_of(listing),
        "status": "1",
        "baseAsset": listing.market.base,
        "baseAssetPrecision": listing.lot_decimals,
        "quoteAsset": listing.market.quote,
        "quotePrecision": listing.price_decimals,
        "quoteAssetPrecision": listing.price_decimals,
        "orderTypes": ["LIMIT", "MARKET", "LIMIT_MAKER"],
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "quoteAmountPrecision": "1",
        "baseSizePrecision": "0",
        "permissions": ["SPOT"],
        "filters": [],
        "maxQuoteAmount": "2000000",
        "makerCommission": "0",
        "takerCommission": "0.0005",
    }


def contract(listing: Listing) -> dict[str, object]:
    return {
        "symbol": id_of(listing),
        "baseCoin": listing.market.base,
        "quoteCoin": listing.market.quote,
        "settleCoin": listing.market.settle,
        "contractSize": contract_size(listing),
        "minLeverage": 1,
        "maxLeverage": 200,
        "priceScale": listing.price_decimals,
        "volScale": 0,
        "priceUnit": float(f"1e-{listing.price_decimals}"),
        "volUnit": 1,
        "minVol": 1,
        "maxVol": 1_000_000,
        "takerFeeRate": 0.0002,
        "makerFeeRate": 0,
        "state": 0,
        "apiAllowed": False,
    }


# --------------------------------------------------------------------------- tickers


def spot_ticker(listing: Listing, ticker: Ticker) -> dict[str, object]:
    change = ticker.last - ticker.open
    return {
        "symbol": id_of(listing),
        "priceChange": plain(round(change, listing.price_decimals)),
        "priceChangePercent": f"{change / ticker.open if ticker.open else 0.0:.4f}",
        "prevClosePrice": plain(ticker.open),
        "lastPrice": plain(ticker.last),
        "bidPrice": plain(ticker.last),
        "bidQty": "1",
        "askPrice": plain(ticker.last),
        "askQty": "1",
        "openPrice": plain(ticker.open),
        "highPrice": plain(ticker.high),
        "lowPrice": plain(ticker.low),
        "volume": plain(ticker.volume),
        "quoteVolume": plain(ticker.quote_volume),
        "openTime": ticker.open_ms,
        "closeTime": ticker.close_ms,
    }


def contract_ticker(listing: Listing, ticker: Ticker) -> dict[str, object]:
    change = ticker.last - ticker.open
    return {
        "symbol": id_of(listing),
        "lastPrice": ticker.last,
        "bid1": ticker.last,
        "ask1": ticker.last,
        "volume24": round(ticker.volume / contract_size(listing)),
        "amount24": ticker.quote_volume,
        "high24Price": ticker.high,
        "lower24Price": ticker.low,
        "riseFallRate": round(change / ticker.open, 4) if ticker.open else 0.0,
        "riseFallValue": round(change, listing.price_decimals),
        "timestamp": ticker.close_ms,
    }
