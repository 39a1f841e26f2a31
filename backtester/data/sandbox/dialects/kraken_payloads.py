"""How Kraken spells assets, pairs, candles and tickers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Final

from backtester.data.model import Market
from backtester.data.sandbox.dialects.common import columns_of_text
from backtester.data.sandbox.source import Bars, Listing, Ticker
from backtester.data.sandbox.spelling import plain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["asset_pair", "assets", "filled_rows", "names", "pair_id", "ticker", "time"]

# The oldest assets have a class letter in front: X for coins, Z for money. ccxt 4.5.90
# `kraken.py`, `commonCurrencies`, undoes it.
_OWN_NAMES: Final = {
    "BTC": "XXBT",
    "DOGE": "XXDG",
    **{name: f"X{name}" for name in ("ETC", "ETH", "LTC", "XLM", "XMR", "XRP", "ZEC")},
    **{name: f"Z{name}" for name in ("AUD", "CAD", "EUR", "GBP", "JPY", "USD")},
}
_RENAMED: Final = {"LUNA": "LUNA2", "REP": "REPV2"}  # the newer of two; also there
_LOT_DECIMALS: Final = 8


def time(now_ms: int) -> dict[str, object]:
    """Spell the clock: whole seconds."""
    moment = datetime.fromtimestamp(now_ms // 1000, UTC)
    return {"unixtime": now_ms // 1000, "rfc1123": format_datetime(moment)}


# --------------------------------------------------------------------------- listings


def _asset_id(name: str) -> str:
    return _OWN_NAMES.get(name) or _altname(name)


def _altname(name: str) -> str:
    return _OWN_NAMES[name][1:] if name in _OWN_NAMES else _RENAMED.get(name, name)


def pair_id(market: Market) -> str:
    """Return Kraken's id: with both class letters where both assets have one, else with none."""
    if _OWN_NAMES.keys() >= {market.base, market.quote}:
        return _asset_id(market.base) + _asset_id(market.quote)
    return _altname(market.base) + _altname(market.quote)


def names(market: Market) -> set[str]:
    """Return all names that Kraken understands for a pair."""
    base, quote = _altname(market.base), _altname(market.quote)
    return {pair_id(market), base + quote, f"{base}/{quote}"}


def assets(markets: Iterable[Market]) -> dict[str, dict[str, object]]:
    known = sorted({name for market in markets for name in (market.base, market.quote)})
    return {
        _asset_id(name): {
            "aclass": "currency",
            "altname": _altname(name),
            "decimals": 10,
            "display_decimals": 5,
            "status": "enabled",
        }
        for name in known
    }


def asset_pair(listing: Listing) -> dict[str, object]:
    market = listing.market
    base, quote = _altname(market.base), _altname(market.quote)
    return {
        "altname": base + quote,
        "wsname": f"{base}/{quote}",
        "aclass_base": "currency",
        "base": _asset_id(market.base),
        "aclass_quote": "currency",
        "quote": _asset_id(market.quote),
        "lot": "unit",
        "pair_decimals": listing.price_decimals,
        "cost_decimals": 5,
        "lot_decimals": _LOT_DECIMALS,
        "lot_multiplier": 1,
        "leverage_buy": [],
        "leverage_sell": [],
        "fees": [[0, 0.26], [50000, 0.24]],
        "fees_maker": [[0, 0.16], [50000, 0.14]],
        "fee_volume_currency": "ZUSD",
        "margin_call": 80,
        "margin_stop": 40,
        "ordermin": "0.0002",
        "costmin": "0.5",
        "tick_size": plain(10.0**-listing.price_decimals),
        "status": "online",
    }


# --------------------------------------------------------------------------- candles


def filled_rows(
    grid: NDArray[np.int64], earlier: Bars, bars: Bars, price_decimals: int
) -> list[list[Any]]:
    """Spell one row for each grid time from the first candle on.

    Times without trades are flat at the close before them, with volume and count zero.
    """
    traded = {row[0]: row for row in _rows(bars, price_decimals)}
    before = _rows(earlier, price_decimals)
    close = before[-1][4] if before else None
    rows = []
    for time_s in (grid // 1000).tolist():
        row = traded.get(time_s)
        if row is None and close is not None:
            row = [time_s, close, close, close, close, "0.0", "0.00000000", 0]
        if row is not None:
            close = row[4]
            rows.append(row)
    return rows


def _rows(bars: Bars, price_decimals: int) -> list[list[Any]]:
    """Spell candles: seconds, open, high, low, close, average price, volume, trades."""
    columns = columns_of_text(bars, range(7))
    return [
        [time // 1000, *prices, _average(volume, quote, price_decimals), volume, int(float(trades))]
        for time, *prices, volume, quote, trades in zip(
            bars.open_time.tolist(), *columns, strict=True
        )
    ]


def _average(volume: str, quote: str, places: int) -> str:
    base = float(volume)
    return f"{float(quote) / base:.{places}f}" if base else "0.0"


# --------------------------------------------------------------------------- tickers


def ticker(listing: Listing, now: Ticker) -> dict[str, object]:
    """Spell the last 24 hours; the first of each pair would be today's, and is the same here."""
    last, lot = plain(now.last), plain(10.0**-listing.lot_decimals)
    average, volume = plain(now.weighted_average), plain(now.volume)
    return {
        "a": [last, "1", lot],
        "b": [last, "1", lot],
        "c": [last, lot],
        "v": [volume, volume],
        "p": [average, average],
        "t": [now.trades, now.trades],
        "l": [plain(now.low), plain(now.low)],
        "h": [plain(now.high), plain(now.high)],
        "o": plain(now.open),
    }
