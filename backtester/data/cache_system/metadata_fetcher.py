"""Markets of exchanges: what is listed, and what trades most."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from backtester.data.cache_system.cache_manager import VOLUMES_TTL_S, CacheManager
from backtester.data.errors import NotServedError, OptionError
from backtester.data.model import DatasetKey, Market

__all__ = ["MetadataFetcher"]


class MetadataFetcher:
    """Market data of exchanges, cached for a while.

    Parameters
    ----------
    cache : CacheManager
        Where it is cached.
    """

    def __init__(self, cache: CacheManager) -> None:
        self._cache = cache

    def get_market_data(
        self,
        exchange_id: str = "binance",
        quote_currency: str | None = "USDT",
        limit: int | None = None,
        top_by_volume: bool = True,
        market_type: str = "spot",
        *,
        max_age_s: float = VOLUMES_TTL_S,
        refresh: bool = False,
        exchange_config: Mapping[str, Any] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Return the active markets of one type and quote currency with their 24 h volumes.

        Parameters
        ----------
        exchange_id : str
        quote_currency : str, optional
            Only markets quoted in it. None: all, with volumes in different units.
        limit : int, optional
            The largest number of markets to return. Default: all.
        top_by_volume : bool
            Order by volume; False orders by symbol.
        market_type : str
        max_age_s : float
            Largest age of cached volumes, in seconds.
        refresh : bool
            Ignore the cache.
        exchange_config : Mapping, optional
            ccxt constructor settings.

        Returns
        -------
        dict
            Facts by ccxt symbol, in descending order of volume, ties by symbol:
            ``quote_volume`` (24 h, quote units; 0 if the exchange reports none), ``id``, ``base``,
            ``quote``, ``settle``, ``type``, ``contract_size``, ``created_ms``.

        Raises
        ------
        OptionError
            `limit` is below 1.
        NotServedError
            The exchange has no active market of this type and quote.
        """
        if quote_currency is not None and not isinstance(quote_currency, str):
            raise OptionError(f"{quote_currency!r} is not a quote currency; write it like 'USDT'")
        if limit is not None and (isinstance(limit, bool) or not _is_count(limit)):
            raise OptionError(f"the number of top symbols must be at least 1, not {limit!r}")
        key = DatasetKey.of(exchange_id, market_type, "1d")  # for its checks of id and type
        markets, volumes = self._known(key, max_age_s) if not refresh else (None, None)
        if markets is None or volumes is None:
            from backtester.data.fetching import online

            markets, volumes = online.markets_and_volumes(
                key.exchange, key.market_type, self._cache, exchange_config
            )
        chosen = [
            market for market in markets if market.active and quote_currency in (None, market.quote)
        ] or _chosen_by_other_spelling(markets, quote_currency)
        if not chosen:
            quotes = ", ".join(sorted({m.quote for m in markets if m.active})[:12])
            raise NotServedError(
                f"{key.exchange} {key.market_type} has no active market quoted in "
                f"{quote_currency!r}; it has {quotes or 'none'}",
                exchange=key.exchange,
            )
        ranked = sorted(chosen, key=lambda m: m.symbol)
        if top_by_volume:  # a stable sort: equal volumes stay in the order of their symbols
            ranked.sort(key=lambda m: -volumes.get(m.symbol, 0.0))
        return {m.symbol: _describe(m, volumes.get(m.symbol, 0.0)) for m in ranked[:limit]}

    def get_top_symbols(
        self,
        exchange_id: str = "binance",
        quote_currency: str = "USDT",
        limit: int = 10,
        market_type: str = "spot",
        **kwargs: Any,
    ) -> list[str]:
        """Return the symbols with the highest 24 h volume; see `get_market_data`."""
        ranked = self.get_market_data(
            exchange_id, quote_currency, limit, market_type=market_type, **kwargs
        )
        return list(ranked)

    def _known(
        self, key: DatasetKey, max_age_s: float
    ) -> tuple[list[Market] | None, dict[str, float] | None]:
        volumes = self._cache.get_all_volumes(key.exchange, key.market_type, max_age_s)
        return self._cache.get_markets(key.exchange, key.market_type), volumes or None


def _chosen_by_other_spelling(markets: list[Market], quote: str | None) -> list[Market]:
    wanted = (quote or "").strip().upper()
    return [market for market in markets if market.active and market.quote.upper() == wanted]


def _is_count(value: Any) -> bool:
    try:
        return operator.index(value) >= 1
    except TypeError:
        return False


def _describe(market: Market, volume: float) -> dict[str, Any]:
    return {
        "quote_volume": volume,
        "id": market.id,
        "base": market.base,
        "quote": market.quote,
        "settle": market.settle,
        "type": market.type.value,
        "contract_size": market.contract_size,
        "created_ms": market.created_ms,
    }
