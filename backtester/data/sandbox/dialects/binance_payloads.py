"""How Binance spells candles, listings and tickers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import orjson

from backtester.data.model import Timeframe
from backtester.data.sandbox.source import Bars, Listing, Ticker
from backtester.data.sandbox.spelling import decimals, integers, lines, literal, plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["contract", "contract_ticker", "rate_limits", "rows", "spot_symbol", "spot_ticker"]

_PERPETUAL_DELIVERY: Final = 4_133_404_800_000  # Binance's "never", 2100-12-25
_SPOT_DECIMALS: Final = 8


def rows(bars: Bars, timeframe: Timeframe, *, spot: bool) -> bytes:
    """Spell a page: the twelve columns of a kline, prices and volumes as decimal text."""
    if not len(bars):
        return b"[]"
    close_time = _close_times(bars.open_time, timeframe)
    if bars.decimals is None:
        return _rows_of_text(bars, close_time)
    size = len(bars)
    quoted = [
        decimals(values, places, _SPOT_DECIMALS if spot else places)
        for values, places in zip(bars.table, bars.decimals, strict=True)
    ]
    opened, high, low, closed, volume, quote, _, taker, taker_quote = quoted
    between = literal(b'","', size)
    return b"[%b]" % lines(
        [
            literal(b"[", size), integers(bars.open_time), literal(b',"', size),
            *opened, between, *high, between, *low, between, *closed, between, *volume,
            literal(b'",', size), integers(close_time), literal(b',"', size),
            *quote, literal(b'",', size), integers(bars.table[6]), literal(b',"', size),
            *taker, between, *taker_quote, literal(b'","0"],', size),
        ]
    )[:-1]  # fmt: skip


def _close_times(open_time: NDArray[np.int64], timeframe: Timeframe) -> NDArray[np.int64]:
    if timeframe.unit == "M":  # the only unit of Binance's whose length varies
        ends = [timeframe.next(int(opened)) for opened in open_time]
        return np.array(ends, np.int64) - 1
    return open_time + timeframe.typical_ms - 1


def _rows_of_text(bars: Bars, close_time: NDArray[np.int64]) -> bytes:
    times = zip(bars.open_time.tolist(), close_time.tolist(), strict=True)
    columns = zip(*bars.table.tolist(), strict=True)
    rows = [
        [opened, *row[:5], closed, row[5], int(row[6]), *row[7:], "0"]
        for (opened, closed), row in zip(times, columns, strict=True)
    ]
    return orjson.dumps(rows)


# --------------------------------------------------------------------------- listings


def rate_limits(family: str, limit: int) -> list[dict[str, object]]:
    weight = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1}
    raw = {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 61_000}
    return [{**weight, "limit": limit}, *([raw] if family == "spot" else [])]


def _step(places: int) -> str:
    return f"{10.0**-places:.{places}f}" if places else "1"


def _filters(listing: Listing) -> list[dict[str, object]]:
    tick, lot = _step(listing.price_decimals), _step(listing.lot_decimals)
    return [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "100000000", "tickSize": tick},
        {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "9000000000", "stepSize": lot},
        {"filterType": "MARKET_LOT_SIZE", "minQty": lot, "maxQty": "900000000", "stepSize": lot},
        {"filterType": "NOTIONAL", "minNotional": "5.00000000"},
    ]


def spot_symbol(listing: Listing, known: list[Listing], now_ms: int) -> dict[str, object]:
    trading = listing.trading_at(now_ms)
    return {
        "symbol": listing.market.id,
        "status": "TRADING" if trading else "BREAK",
        "baseAsset": listing.market.base,
        "baseAssetPrecision": 8,
        "quoteAsset": listing.market.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "isSpotTradingAllowed": trading,
        "isMarginTradingAllowed": False,
        "filters": _filters(listing),
        "permissions": ["SPOT"],
    }


def contract(listing: Listing, known: list[Listing], now_ms: int) -> dict[str, object]:
    market = listing.market
    over = listing.expiry_ms or listing.delisted_ms
    return {
        "symbol": market.id,
        "pair": market.base + market.quote,
        "contractType": _contract_type(listing, known, now_ms),
        "deliveryDate": over or _PERPETUAL_DELIVERY,
        "onboardDate": listing.listed_ms,
        "status": "TRADING" if listing.trading_at(now_ms) else "SETTLING",
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": market.base,
        "quoteAsset": market.quote,
        "marginAsset": market.settle,
        "pricePrecision": listing.price_decimals,
        "quantityPrecision": listing.lot_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "filters": _filters(listing),
        "orderTypes": ["LIMIT", "MARKET", "STOP"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }


def _contract_type(listing: Listing, known: list[Listing], now_ms: int) -> str:
    if listing.expiry_ms is None:
        return "PERPETUAL"
    earlier = [
        other
        for other in known
        if other.market.base == listing.market.base
        and other.expiry_ms is not None
        and now_ms < other.expiry_ms < listing.expiry_ms
    ]
    return "NEXT_QUARTER" if earlier else "CURRENT_QUARTER"


# --------------------------------------------------------------------------- tickers


def contract_ticker(listing: Listing, ticker: Ticker) -> dict[str, object]:
    change = round(ticker.last - ticker.open, listing.price_decimals)
    percent = 100 * change / ticker.open if ticker.open else 0.0
    return {
        "symbol": listing.market.id,
        "priceChange": plain(change),
        "priceChangePercent": f"{percent:.3f}",
        "weightedAvgPrice": plain(ticker.weighted_average),
        "lastPrice": plain(ticker.last),
        "lastQty": _step(listing.lot_decimals),
        "openPrice": plain(ticker.open),
        "highPrice": plain(ticker.high),
        "lowPrice": plain(ticker.low),
        "volume": plain(ticker.volume),
        "quoteVolume": plain(ticker.quote_volume),
        "openTime": ticker.open_ms,
        "closeTime": ticker.close_ms,
        "firstId": 0,
        "lastId": ticker.trades - 1,
        "count": ticker.trades,
    }


def spot_ticker(listing: Listing, ticker: Ticker) -> dict[str, object]:
    # ccxt tells spot from contracts by the book fields, which only spot has.
    tick, lot = 10.0**-listing.price_decimals, _step(listing.lot_decimals)
    book = {
        "prevClosePrice": plain(ticker.open),
        "bidPrice": plain(round(max(ticker.last - tick, 0.0), listing.price_decimals)),
        "bidQty": lot,
        "askPrice": plain(ticker.last),
        "askQty": lot,
    }
    return {**contract_ticker(listing, ticker), **book}
