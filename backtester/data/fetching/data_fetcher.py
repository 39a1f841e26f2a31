"""The front door: ask for candles, get VectorBT data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from backtester.data.cache_system.metadata_fetcher import MetadataFetcher
from backtester.data.dates import DateLike
from backtester.data.events import OnEvent
from backtester.data.fetching.archives.plan import Source
from backtester.data.fetching.pipeline import run
from backtester.data.fetching.request import FetchRequest, FetchResult, wants_all
from backtester.data.fetching.symbols import parse_symbols
from backtester.data.home import home_in
from backtester.data.model import DatasetKey
from backtester.data.storage.data_storage import DataStorage, fetch_kwargs

__all__ = ["as_data", "fetch_data", "fetch_top_symbols", "load_data", "update_data"]

PathLike = str | os.PathLike[str]


def fetch_data(
    symbols: str | list[str],
    exchange_id: str = "binance",
    timeframe: str = "1d",
    start_date: DateLike = None,
    end_date: DateLike = None,
    use_cache: bool = True,
    market_type: str = "spot",
    *,
    exchange_config: Mapping[str, Any] | None = None,
    data_dir: PathLike | None = None,
    include_forming: bool = False,
    source: str = "auto",
    columns: str = "ohlcv",
    prefer_resampling: bool = False,
    storage: str = "auto",
    on_event: OnEvent | None = None,
) -> Any:
    """Fetch candles, from the store as far as it has them and else from the exchange.

    Parameters
    ----------
    symbols : str or list of str
        ``'BTC/USDT'``, ``'BTC/USDT:USDT'``; the exchange's own ``'BTCUSDT'`` is understood too.
        The result uses the names as given. A bare str gives Series from ``get``.
    exchange_id : str
        ccxt's id, or ``'sandbox'`` for the exchange that comes with this package.
    timeframe : str
        ``'1m'`` is a minute, ``'1M'`` a month.
    start_date
        Inclusive. ISO text, a phrase like ``'7 days ago'``, a date, datetime, Timestamp or UTC
        epoch milliseconds; naive ones are UTC. None: the last 1000 closed candle times before
        the end. ``'inception'``: from the first candle there is.
    end_date
        Exclusive; None: now. "Now" is the exchange's clock.
    use_cache : bool
        False asks the exchange afresh for everything. What it answers is stored either way.
    market_type : str
        ``'spot'``, ``'swap'`` or ``'future'``.
    exchange_config : Mapping, optional
        ccxt constructor settings: proxies, hosts, keys, timeouts.
    data_dir : path, optional
        Where datasets are kept; see `settings.data_directory`.
    include_forming : bool
        Add the candle that has not closed yet. It is never stored.
    source : str
        ``'auto'``: the exchange's bulk archives where it has any and they are clearly cheaper,
        its API for all else; ``'api'``: never archives; ``'archive'``: archives wherever they
        have files. Their address can be set with ``archiveUrl`` in `exchange_config`.
    columns : str
        ``'all'``: what the exchange tells of a candle besides comes along as further columns, and
        is stored: Quote volume, Trades, Taker buy volume, Taker buy quote volume. NaN is what it
        does not tell. Stored candles that lack them are asked for again.
    prefer_resampling : bool
        Make candles of stored ones of shorter timeframes where those cover the question, and
        ask the exchange only for the rest. Prices are the exchange's own to the last bit,
        volumes to rounding (1e-9). What was made of what stands in
        ``data.wrapper._metadata['derived']``; stored candles of the exchange that differ from
        their parts are given as they are, logged, and listed in ``['differing']``.
    storage : str
        The form in which the dataset is kept: ``'pickle'``, ``'sqlite'``, or ``'auto'``: a pickle
        that moves to SQLite once it is large.
    on_event : callable, optional
        Called with progress events, see `backtester.data.events`.

    Returns
    -------
    Data
        VectorBT data: per symbol columns Open, High, Low, Close (quote units), Volume (base
        units), float64; index ``Open time``, UTC. Several symbols share the union of their
        times, NaN where one has no candle. Symbols that failed are missing, named by a
        warning and in ``data.wrapper._metadata['failures']``.

    Raises
    ------
    RequestError
        The question cannot be asked like this; nothing was asked or stored.
    FetchError
        No symbol could be fetched.

    Examples
    --------
    >>> data = fetch_data("BTC/USDT", timeframe="1h", start_date="7 days ago")  # doctest: +SKIP
    """
    request = FetchRequest(
        DatasetKey.of(exchange_id, market_type, timeframe),
        tuple(parse_symbols(symbols)),
        start_date,
        end_date,
        use_cache,
        include_forming,
        exchange_config,
        source=Source.parse(source),
        all_columns=wants_all(columns),
        prefer_resampling=prefer_resampling,
    )
    result = run(request, home_in(data_dir, storage), on_event)
    return as_data(result, single=isinstance(symbols, str))


def fetch_top_symbols(
    exchange_id: str = "binance",
    quote_currency: str = "USDT",
    limit: int = 10,
    timeframe: str = "1d",
    market_type: str = "spot",
    start_date: DateLike = None,
    end_date: DateLike = None,
    use_cache: bool = True,
    *,
    exchange_config: Mapping[str, Any] | None = None,
    data_dir: PathLike | None = None,
    include_forming: bool = False,
    source: str = "auto",
    columns: str = "ohlcv",
    prefer_resampling: bool = False,
    storage: str = "auto",
    on_event: OnEvent | None = None,
) -> Any:
    """Fetch the candles of the symbols with the highest 24 h volume.

    Parameters
    ----------
    exchange_id : str
    quote_currency : str
        Only markets quoted in this currency are ranked.
    limit : int
        How many symbols.
    timeframe, market_type, start_date, end_date, use_cache
        See `fetch_data`.
    exchange_config, data_dir, include_forming, source, columns
        See `fetch_data`.
    prefer_resampling, storage, on_event
        See `fetch_data`.

    Returns
    -------
    Data
        As of `fetch_data`, in descending order of volume, with the 24 h volumes in quote units
        by symbol in ``data.wrapper._metadata['volume_data']``.
    """
    home = home_in(data_dir, storage)
    markets = MetadataFetcher(home.cache).get_market_data(
        exchange_id,
        quote_currency,
        limit,
        market_type=market_type,
        refresh=not use_cache,
        exchange_config=exchange_config,
    )
    request = FetchRequest(
        DatasetKey.of(exchange_id, market_type, timeframe),
        tuple(parse_symbols(list(markets))),
        start_date,
        end_date,
        use_cache,
        include_forming,
        exchange_config,
        source=Source.parse(source),
        all_columns=wants_all(columns),
        prefer_resampling=prefer_resampling,
    )
    volumes = {symbol: market["quote_volume"] for symbol, market in markets.items()}
    return as_data(run(request, home, on_event), volume_data=volumes)


def update_data(
    exchange_id: str,
    timeframe: str,
    symbols: str | list[str] | None = None,
    market_type: str = "spot",
    end_date: DateLike = None,
    *,
    exchange_config: Mapping[str, Any] | None = None,
    data_dir: PathLike | None = None,
    storage: str = "auto",
    source: str = "auto",
    columns: str = "ohlcv",
    on_event: OnEvent | None = None,
) -> Any:
    """Bring what is stored up to the last closed candle, each symbol from its own last one on.

    Parameters
    ----------
    exchange_id, timeframe, market_type : str
    symbols : str or list of str, optional
        All that are stored when not given.
    end_date
        Exclusive; None: now.
    exchange_config, data_dir, storage, source, columns, on_event
        See `fetch_data`.

    Returns
    -------
    Data
        All that is stored of those symbols.

    Raises
    ------
    DatasetNotFoundError
        Nothing is stored of this dataset.
    """
    key = DatasetKey.of(exchange_id, market_type, timeframe)
    if symbols is None:
        symbols = list(DataStorage(data_dir).names(key))
    request = FetchRequest(
        key,
        tuple(parse_symbols(symbols)),
        end=end_date,
        exchange_config=exchange_config,
        only_newer=True,
        source=Source.parse(source),
        all_columns=wants_all(columns),
    )
    result = run(request, home_in(data_dir, storage), on_event)
    return as_data(result, single=isinstance(symbols, str))


def load_data(
    exchange_id: str,
    timeframe: str,
    symbols: str | list[str] | None = None,
    market_type: str = "spot",
    *,
    as_of: DateLike = None,
    columns: str = "ohlcv",
    data_dir: PathLike | None = None,
) -> Any:
    """Load what is stored, without any network; see `DataStorage.load_data`."""
    return DataStorage(data_dir).load_data(
        exchange_id, timeframe, symbols, market_type, as_of=as_of, columns=columns
    )


def as_data(
    result: FetchResult,
    *,
    single: bool = False,
    volume_data: Mapping[str, float] | None = None,
) -> Any:
    """Make the VectorBT object of a result, its account in ``wrapper._metadata``.

    Parameters
    ----------
    result : FetchResult
    single : bool
        One symbol was asked for by name and not in a list.
    volume_data : Mapping, optional
        24 h volumes in quote units by symbol, carried along in the metadata.
    """
    from backtester.data import vbt_adapter

    request = result.request
    metadata = result.metadata()
    if volume_data is not None:
        metadata["volume_data"] = {name: volume_data[name] for name in result.series}
    return vbt_adapter.build(
        result.tables(),
        timeframe=request.key.timeframe,
        single=single,
        metadata=metadata,
        fetch_kwargs={
            **fetch_kwargs(request.key, result.folder, request.exchange_config),
            **({"columns": "all"} if request.all_columns else {}),
        },
    )
