"""How Gate spells candles, pairs, contracts and tickers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from backtester.data.model import MarketType, Timeframe
from backtester.data.sandbox.dialects.common import columns_of_text
from backtester.data.sandbox.source import Bars, Listing, Ticker
from backtester.data.sandbox.spelling import plain

__all__ = [
    "contract",
    "contract_row",
    "contract_rows",
    "contract_ticker",
    "currency",
    "id_of",
    "multiplier",
    "pair",
    "plain_row",
    "spot_row",
    "spot_rows",
    "spot_ticker",
]

_PER_LOT: Final = 10
"""Contracts in a lot of the market."""
_NAMES: Final = ("t", "o", "h", "l", "c", "v")


def id_of(listing: Listing) -> str:
    """Return Gate's id: ``BTC_USDT``, dated contracts as ``BTC_USDT_20261225``."""
    pair = f"{listing.market.base}_{listing.market.quote}"
    if listing.expiry_ms is None:
        return pair
    return f"{pair}_{datetime.fromtimestamp(listing.expiry_ms / 1000, UTC):%Y%m%d}"


def multiplier(listing: Listing) -> str:
    """Return the size of a contract in base units: a tenth of the market's lot."""
    return _step(listing.lot_decimals + 1)


# --------------------------------------------------------------------------- candles


def spot_rows(bars: Bars, timeframe: Timeframe, now_ms: int) -> list[list[str]]:
    """Spell spot candles, oldest first: seconds, quote volume, c, h, l, o, base volume, closed."""
    times = [str(opened // 1000) for opened in bars.open_time.tolist()]
    closed = [str(timeframe.next(opened) <= now_ms).lower() for opened in bars.open_time.tolist()]
    columns = columns_of_text(bars, (5, 3, 1, 2, 0, 4))
    return [list(row) for row in zip(times, *columns, closed, strict=True)]


def contract_rows(bars: Bars, listing: Listing) -> list[dict[str, object]]:
    """Spell contract candles, oldest first; their volume counts contracts."""
    times = [opened // 1000 for opened in bars.open_time.tolist()]
    prices = columns_of_text(bars, range(4))
    if bars.decimals is None:
        size = float(multiplier(listing))
        volume = [round(float(text) / size) for text in bars.table[4]]
    else:
        volume = (bars.table[4] * _PER_LOT).tolist()
    rows = zip(times, *prices, volume, strict=True)
    return [dict(zip(_NAMES, row, strict=True)) for row in rows]


def plain_row(row: Any) -> list[Any]:
    """Return milliseconds, four prices and volume of a candle of either kind."""
    if isinstance(row, dict):
        return [row["t"] * 1000, *(row[name] for name in _NAMES[1:])]
    return [int(row[0]) * 1000, row[5], row[3], row[4], row[2], row[6]]


def spot_row(row: list[Any]) -> list[Any]:
    """Spell such a row as a spot candle."""
    opened, first, high, low, last, volume = row
    return [str(opened // 1000), "0", last, high, low, first, volume, "true"]


def contract_row(row: list[Any]) -> dict[str, object]:
    """Spell such a row as a contract's candle."""
    return dict(zip(_NAMES, (row[0] // 1000, *row[1:]), strict=True))


# --------------------------------------------------------------------------- listings


def currency(name: str) -> dict[str, object]:
    return {"currency": name, "name": name, "delisted": False, "trade_disabled": False}


def pair(listing: Listing, now_ms: int) -> dict[str, object]:
    return {
        "id": id_of(listing),
        "base": listing.market.base,
        "quote": listing.market.quote,
        "fee": "0.2",
        "min_quote_amount": "3",
        "amount_precision": listing.lot_decimals,
        "precision": listing.price_decimals,
        "trade_status": "tradable" if listing.trading_at(now_ms) else "untradable",
        "sell_start": listing.listed_ms // 1000,
        "buy_start": listing.listed_ms // 1000,
        "type": "normal",
    }


def contract(listing: Listing) -> dict[str, object]:
    told: dict[str, object] = {
        "name": id_of(listing),
        "type": "direct",
        "quanto_multiplier": multiplier(listing),
        "order_size_min": 1,
        "order_size_max": 1_000_000,
        "order_price_round": _step(listing.price_decimals),
        "order_price_deviate": "0.5",
        "mark_price": "1",
        "leverage_min": "1",
        "leverage_max": "100",
        "create_time": listing.listed_ms // 1000,
    }
    if listing.market.type is MarketType.FUTURE:
        base, quote = listing.market.base, listing.market.quote
        told |= {
            "underlying": f"{base}_{quote}",
            "cycle": "QUARTERLY",
            "expire_time": (listing.expiry_ms or 0) // 1000,
        }
    else:
        told |= {"status": "trading", "in_delisting": False}
    return told


# --------------------------------------------------------------------------- tickers


def spot_ticker(listing: Listing, ticker: Ticker) -> dict[str, object]:
    return {
        "currency_pair": id_of(listing),
        **_day(ticker),
        "lowest_ask": plain(ticker.last),
        "highest_bid": plain(ticker.last),
        "base_volume": plain(ticker.volume),
        "quote_volume": plain(ticker.quote_volume),
    }


def contract_ticker(listing: Listing, ticker: Ticker) -> dict[str, object]:
    contracts = round(ticker.volume * _PER_LOT * 10**listing.lot_decimals)
    return {
        "contract": id_of(listing),
        **_day(ticker),
        "total_size": "1",
        "volume_24h": str(contracts),
        "volume_24h_base": plain(ticker.volume),
        "volume_24h_quote": plain(ticker.quote_volume),
        "volume_24h_settle": plain(ticker.quote_volume),
        "mark_price": plain(ticker.last),
        "index_price": plain(ticker.last),
        "funding_rate": "0.0001",
    }


def _day(ticker: Ticker) -> dict[str, object]:
    percent = 100 * (ticker.last - ticker.open) / ticker.open if ticker.open else 0.0
    return {
        "last": plain(ticker.last),
        "change_percentage": f"{percent:.2f}",
        "high_24h": plain(ticker.high),
        "low_24h": plain(ticker.low),
    }


def _step(places: int) -> str:
    return f"{10.0**-places:.{places}f}" if places else "1"
