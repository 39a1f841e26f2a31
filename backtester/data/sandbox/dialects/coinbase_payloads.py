"""How Coinbase spells products, candles and the rest."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from backtester.data.model import MarketType
from backtester.data.sandbox.dialects.common import columns_of_text, decimal_text
from backtester.data.sandbox.source import Bars, Listing, Ticker
from backtester.data.sandbox.spelling import plain

__all__ = [
    "FIAT",
    "RATES",
    "VALUES",
    "candles",
    "coin",
    "product",
    "product_id",
    "product_type",
    "time",
]

VALUES: Final = ("open", "high", "low", "close", "volume")
FIAT: Final = [
    {"id": "EUR", "name": "Euro", "min_size": "0.01"},
    {"id": "JPY", "name": "Japanese Yen", "min_size": "1"},
]
RATES: Final = {"data": {"currency": "USD", "rates": {"EUR": "0.9", "USD": "1.0"}}}

_NEVER: Final = "2030-12-20T16:00:00Z"  # the placeholder of contracts that do not expire
_SPOT: Final = MarketType.SPOT


def time(now_ms: int) -> dict[str, object]:
    """Spell the clock: whole seconds."""
    return {"data": {"iso": _iso(now_ms), "epoch": now_ms // 1000}}


def _iso(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def product_id(listing: Listing) -> str:
    """Return Coinbase's id: ``BTC-USDT``, ``BTC-20DEC30-CDE``, ``BTC-26DEC25-CDE``."""
    market = listing.market
    if market.type is _SPOT:
        return f"{market.base}-{market.quote}"
    if listing.expiry_ms is None:
        return f"{market.base}-20DEC30-CDE"
    day = f"{datetime.fromtimestamp(listing.expiry_ms // 1000, UTC):%d%b%y}"
    return f"{market.base}-{day.upper()}-CDE"


def product_type(listing: Listing) -> str:
    return "SPOT" if listing.market.type is _SPOT else "FUTURE"


def coin(name: str) -> dict[str, object]:
    return {"asset_id": name.lower(), "code": name, "name": name, "exponent": 8, "type": "crypto"}


def candles(listing: Listing, bars: Bars) -> list[dict[str, str]]:
    """Spell candles, the newest first; the volume of a contract counts contracts of one lot."""
    columns = columns_of_text(bars, range(5))
    if listing.market.type is not _SPOT:
        columns[4] = _contracts(listing, bars)
    rows = zip(bars.open_time.tolist(), *columns, strict=True)
    spelled = [
        {"start": str(opened // 1000), **dict(zip(VALUES, values, strict=True))}
        for opened, *values in rows
    ]
    return spelled[::-1]


def _contracts(listing: Listing, bars: Bars) -> list[str]:
    if bars.decimals is not None:
        return [str(lots) for lots in bars.table[4].tolist()]
    return [plain(float(volume) * 10.0**listing.lot_decimals) for volume in bars.table[4]]


def product(listing: Listing, ticker: Ticker, now_ms: int) -> dict[str, object]:
    """Spell a product; its last 24 hours are a part of it."""
    market, spot = listing.market, listing.market.type is _SPOT
    tick, lot = decimal_text(1, listing.price_decimals), decimal_text(1, listing.lot_decimals)
    trading = listing.trading_at(now_ms)
    volume = ticker.volume if spot else round(ticker.volume * 10**listing.lot_decimals)
    change = 100 * (ticker.last / ticker.open - 1) if ticker.open else 0.0
    shown = {
        "product_id": product_id(listing),
        "price": plain(ticker.last),
        "price_percentage_change_24h": plain(change),
        "volume_24h": plain(float(volume)),
        "base_increment": lot if spot else "1",
        "quote_increment": tick,
        "price_increment": tick,
        "quote_min_size": "1",
        "quote_max_size": "150000000",
        "base_min_size": lot if spot else "1",
        "base_max_size": "100000000",
        "base_name": market.base if spot else "",
        "quote_name": market.quote,
        "is_disabled": not trading,
        "status": ("online" if trading else "delisted") if spot else "",
        "trading_disabled": not trading,
        "product_type": product_type(listing),
        "quote_currency_id": market.quote,
        "base_currency_id": market.base if spot else "",
        "alias": "",
        "alias_to": [],
        "display_name": product_id(listing) if spot else _display_name(listing),
        "product_venue": "CBE" if spot else "FCM",
        "approximate_quote_24h_volume": plain(ticker.quote_volume),
    }
    return shown if spot else {**shown, "future_product_details": _details(listing, lot)}


def _details(listing: Listing, lot: str) -> dict[str, object]:
    perpetual = listing.expiry_ms is None
    details: dict[str, object] = {
        "venue": "cde",
        "contract_code": listing.market.base,
        "contract_expiry": _NEVER if listing.expiry_ms is None else _iso(listing.expiry_ms),
        "contract_size": lot,
        "contract_root_unit": listing.market.base,
        "contract_expiry_type": "EXPIRING",
        "contract_display_name": _display_name(listing),
    }
    return {**details, "funding_interval": "3600s"} if perpetual else details


def _display_name(listing: Listing) -> str:
    if listing.expiry_ms is None:
        return f"{listing.market.base} PERP"
    day = f"{datetime.fromtimestamp(listing.expiry_ms // 1000, UTC):%d %b %y}"
    return f"{listing.market.base} {day.upper()}"
