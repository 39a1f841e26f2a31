"""Binance's dialect under the name by which ccxt knows its COIN-M futures; see `binance`."""

from backtester.data.sandbox.dialects.binance import Binance, make

__all__ = ["Binance", "make"]
