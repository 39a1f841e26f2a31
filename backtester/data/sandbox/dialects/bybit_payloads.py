"""How Bybit spells candles, instruments and tickers."""

from __future__ import annotations

from datetime import UTC, datetime

from backtester.data.sandbox.dialects.common import columns_of_text
from backtester.data.sandbox.source import Bars, Listing, Ticker
from backtester.data.sandbox.spelling import plain

__all__ = [
    "id_of",
    "linear_instrument",
    "linear_ticker",
    "rows",
    "spot_instrument",
    "spot_ticker",
]


def rows(bars: Bars) -> list[list[str]]:
    """Spell candles, oldest first: start, four prices, volume (base), turnover (quote)."""
    columns = columns_of_text(bars, range(6))
    return [list(row) for row in zip(map(str, bars.open_time.tolist()), *columns, strict=True)]


def id_of(listing: Listing) -> str:
    """Return Bybit's id: ``BTCUSDT``, dated contracts as ``BTCUSDT-25SEP26``."""
    pair = listing.market.base + listing.market.quote
    if listing.expiry_ms is None:
        return pair
    return f"{pair}-{datetime.fromtimestamp(listing.expiry_ms / 1000, UTC):%d%b%y}".upper()


def spot_instrument(listing: Listing) -> dict[str, object]:
    return {
        "symbol": id_of(listing),
        "baseCoin": listing.market.base,
        "quoteCoin": listing.market.quote,
        "innovation": "0",
        "status": "Trading",
        "marginTrading": "none",
        "lotSizeFilter": {
            "basePrecision": _step(listing.lot_decimals),
            "quotePrecision": _step(listing.lot_decimals + listing.price_decimals),
            "minOrderQty": _step(listing.lot_decimals),
            "maxOrderQty": "1000000000",
            "minOrderAmt": "1",
            "maxOrderAmt": "4000000",
        },
        "priceFilter": {"tickSize": _step(listing.price_decimals)},
    }


def linear_instrument(listing: Listing) -> dict[str, object]:
    tick, lot = _step(listing.price_decimals), _step(listing.lot_decimals)
    dated = listing.expiry_ms is not None
    return {
        "symbol": id_of(listing),
        "contractType": "LinearFutures" if dated else "LinearPerpetual",
        "status": "Trading",
        "baseCoin": listing.market.base,
        "quoteCoin": listing.market.quote,
        "settleCoin": listing.market.settle,
        "launchTime": str(listing.listed_ms),
        "deliveryTime": str(listing.expiry_ms or 0),
        "deliveryFeeRate": "",
        "priceScale": str(listing.price_decimals),
        "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
        "priceFilter": {"minPrice": tick, "maxPrice": "100000000", "tickSize": tick},
        "lotSizeFilter": {
            "maxOrderQty": "1000000000",
            "minOrderQty": lot,
            "qtyStep": lot,
            "postOnlyMaxOrderQty": "1000000000",
            "minNotionalValue": "5",
        },
        "unifiedMarginTrade": True,
        "fundingInterval": 480,
    }


def spot_ticker(listing: Listing, ticker: Ticker) -> dict[str, object]:
    change = (ticker.last - ticker.open) / ticker.open if ticker.open else 0.0
    return {
        "symbol": id_of(listing),
        "bid1Price": plain(ticker.last),
        "bid1Size": _step(listing.lot_decimals),
        "ask1Price": plain(ticker.last),
        "ask1Size": _step(listing.lot_decimals),
        "lastPrice": plain(ticker.last),
        "prevPrice24h": plain(ticker.open),
        "price24hPcnt": f"{change:.4f}",
        "highPrice24h": plain(ticker.high),
        "lowPrice24h": plain(ticker.low),
        "turnover24h": plain(ticker.quote_volume),
        "volume24h": plain(ticker.volume),
    }


def linear_ticker(listing: Listing, ticker: Ticker) -> dict[str, object]:
    # ccxt tells contracts from spot by `openInterestValue`.
    return {
        **spot_ticker(listing, ticker),
        "indexPrice": plain(ticker.last),
        "markPrice": plain(ticker.last),
        "openInterest": "1",
        "openInterestValue": plain(ticker.last),
        "fundingRate": "0.0001",
        "nextFundingTime": str(ticker.close_ms),
        "deliveryFeeRate": "",
        "deliveryTime": str(listing.expiry_ms or 0),
    }


def _step(places: int) -> str:
    return f"{10.0**-places:.{places}f}" if places else "1"
