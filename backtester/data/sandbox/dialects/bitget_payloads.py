"""How Bitget spells candles, symbols, contracts and tickers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from backtester.data.sandbox.dialects.common import columns_of_text
from backtester.data.sandbox.source import Bars, Listing, Ticker
from backtester.data.sandbox.spelling import plain

__all__ = ["contract", "contract_ticker", "id_of", "rows", "spot_symbol", "spot_ticker"]

_QUARTERS: Final = {3: "H", 6: "M", 9: "U", 12: "Z"}


def rows(bars: Bars, *, spot: bool) -> list[list[str]]:
    """Spell candles, oldest first: time, four prices, base volume, quote volume.

    Spot has the quote volume twice, in USDT and in the quote currency.
    """
    columns = columns_of_text(bars, [*range(6), 5] if spot else range(6))
    return [list(row) for row in zip(map(str, bars.open_time.tolist()), *columns, strict=True)]


def id_of(listing: Listing) -> str:
    """Return Bitget's id: ``BTCUSDT``, dated contracts as ``BTCUSDTU26``."""
    pair = listing.market.base + listing.market.quote
    if listing.expiry_ms is None:
        return pair
    day = datetime.fromtimestamp(listing.expiry_ms / 1000, UTC)
    return f"{pair}{_QUARTERS[day.month]}{day:%y}"


def spot_symbol(listing: Listing) -> dict[str, object]:
    return {
        "symbol": id_of(listing),
        "baseCoin": listing.market.base,
        "quoteCoin": listing.market.quote,
        "minTradeAmount": "0",
        "maxTradeAmount": "10000000000",
        "takerFeeRate": "0.002",
        "makerFeeRate": "0.002",
        "pricePrecision": str(listing.price_decimals),
        "quantityPrecision": str(listing.lot_decimals),
        "quotePrecision": str(listing.price_decimals + listing.lot_decimals),
        "status": "online",
        "minTradeUSDT": "1",
        "buyLimitPriceRatio": "0.05",
        "sellLimitPriceRatio": "0.05",
    }


def contract(listing: Listing) -> dict[str, object]:
    dated = listing.expiry_ms is not None
    lot = _step(listing.lot_decimals)
    return {
        "symbol": id_of(listing),
        "baseCoin": listing.market.base,
        "quoteCoin": listing.market.quote,
        "buyLimitPriceRatio": "0.01",
        "sellLimitPriceRatio": "0.01",
        "feeRateUpRatio": "0.005",
        "makerFeeRate": "0.0002",
        "takerFeeRate": "0.0006",
        "openCostUpRatio": "0.01",
        "supportMarginCoins": [listing.market.settle],
        "minTradeNum": lot,
        "priceEndStep": "1",
        "volumePlace": str(listing.lot_decimals),
        "pricePlace": str(listing.price_decimals),
        "sizeMultiplier": lot,
        "symbolType": "delivery" if dated else "perpetual",
        "minTradeUSDT": "5",
        "maxSymbolOrderNum": "200",
        "maxProductOrderNum": "400",
        "maxPositionNum": "150",
        "symbolStatus": "normal",
        "offTime": "-1",
        "limitOpenTime": "-1",
        "deliveryTime": str(listing.expiry_ms or ""),
        "deliveryStartTime": str(listing.listed_ms) if dated else "",
        "deliveryPeriod": "",
        "launchTime": str(listing.listed_ms),
        "fundInterval": "8",
        "minLever": "1",
        "maxLever": "125",
        "posLimit": "0.05",
        "maintainTime": "",
    }


def spot_ticker(listing: Listing, ticker: Ticker) -> dict[str, object]:
    change = (ticker.last - ticker.open) / ticker.open if ticker.open else 0.0
    lot = _step(listing.lot_decimals)
    return {
        "symbol": id_of(listing),
        "lastPr": plain(ticker.last),
        "open": plain(ticker.open),
        "high24h": plain(ticker.high),
        "low24h": plain(ticker.low),
        "bidPr": plain(ticker.last),
        "bidSz": lot,
        "askPr": plain(ticker.last),
        "askSz": lot,
        "baseVolume": plain(ticker.volume),
        "quoteVolume": plain(ticker.quote_volume),
        "usdtVolume": plain(ticker.quote_volume),
        "change24h": f"{change:.5f}",
        "ts": str(ticker.close_ms),
    }


def contract_ticker(listing: Listing, ticker: Ticker) -> dict[str, object]:
    # ccxt tells contracts from spot by `markPrice`.
    return {
        **spot_ticker(listing, ticker),
        "markPrice": plain(ticker.last),
        "indexPrice": plain(ticker.last),
        "fundingRate": "0.0001",
        "holdingAmount": "1",
    }


def _step(places: int) -> str:
    return f"{10.0**-places:.{places}f}" if places else "1"
