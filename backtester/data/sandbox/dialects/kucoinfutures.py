"""KuCoin's dialect under the name by which ccxt knows its futures; see `kucoin`."""

from backtester.data.sandbox.dialects.kucoin import KuCoin, make

__all__ = ["KuCoin", "make"]
