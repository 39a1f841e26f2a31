"""The main entry points: ask for candles, get VectorBT data."""

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
    """Fetch candles: from the store where it has them, from the exchange otherwise.

    Parameters
    ----------
    symbols : str or list of str
        ``'BTC/USDT'``, ``'BTC/USDT:USDT'``; the exchange's own ``'BTCUSDT'`` works too. The
        result uses the names as given. With a single str, ``get`` returns Series.
    exchange_id : str
        A ccxt exchange id, or ``'sandbox'`` for the exchange that comes with this package.
    timeframe : str
        Length of a candle: ``'1m'`` is a minute, ``'1M'`` a month.
    start_date
        Inclusive. ISO text, a phrase like ``'7 days ago'``, a date, datetime, Timestamp or UTC
        epoch milliseconds; without a time zone it is UTC. None: the last 1000 closed candle times
        before the end. ``'inception'``: from the first candle the exchange has.
    end_date
        Exclusive; same forms. None: now, by the exchange's clock.
    use_cache : bool
        False fetches everything from the exchange again. The result is stored either way.
    market_type : str
        ``'spot'``, ``'swap'`` or ``'future'``.
    exchange_config : Mapping, optional
        ccxt constructor settings: proxies, hosts, keys, timeouts.
    data_dir : path, optional
        Where datasets are kept; the default is explained in `settings.data_directory`.
    include_forming : bool
        Also return the candle that has not closed yet. It is never stored.
    source : str
        ``'auto'``: bulk archives if the exchange has any and they are clearly cheaper, its API
        otherwise; ``'api'``: never archives; ``'archive'``: archives wherever they have files.
        ``archiveUrl`` in `exchange_config` sets their address.
    columns : str
        ``'ohlcv'``, or ``'all'`` for the other columns that the exchange provides: Quote volume,
        Trades, Taker buy volume, Taker buy quote volume; NaN where it provides none. They are
        stored too, and stored candles without them are fetched again.
    prefer_resampling : bool
        Build candles from stored ones of shorter timeframes where those cover the range, and
        fetch only the rest. Prices equal the exchange's to the last bit, volumes to rounding
        (1e-9). ``data.wrapper._metadata['derived']`` says what was built from what. Where the
        exchange's own candle is stored too and differs, you get that one; the difference is logged
        and listed in ``['differing']``.
    storage : str
        Storage format of the dataset: ``'pickle'``, ``'sqlite'``, or ``'auto'``: a pickle that is
        converted to SQLite once it is large.
    on_event : callable, optional
        Called with progress events; see `backtester.data.events`.

    Returns
    -------
    Data
        VectorBT data. Each symbol has the columns Open, High, Low, Close (quote units) and Volume
        (base units), float64; the index is ``Open time``, UTC. Several symbols share the union of
        their times, with NaN where one has no candle. Symbols that failed are left out; a
        `FetchWarning` names them, and ``data.wrapper._metadata['failures']`` has the reasons.

    Raises
    ------
    RequestError
        An argument is wrong. Nothing was fetched or stored.
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
        See `fetch_data`.
    quote_currency : str
        Rank only markets quoted in this currency.
    limit : int
        Number of symbols.
    timeframe, market_type, start_date, end_date, use_cache
        See `fetch_data`.
    exchange_config, data_dir, include_forming, source, columns
        See `fetch_data`.
    prefer_resampling, storage, on_event
        See `fetch_data`.

    Returns
    -------
    Data
        As `fetch_data` returns it, in descending order of volume. The 24 h volumes by symbol, in
        quote units, are in ``data.wrapper._metadata['volume_data']``.

    Raises
    ------
    RequestError
        An argument is wrong.
    NotServedError
        The exchange has no active market of this type and quote currency.
    FetchError
        The ranking, or every symbol, could not be fetched.
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
    """Bring stored symbols up to the last closed candle, each from its own last candle on.

    Parameters
    ----------
    exchange_id, timeframe, market_type : str
        The dataset.
    symbols : str or list of str, optional
        Default: all that are stored.
    end_date
        Exclusive; None: now, by the exchange's clock.
    exchange_config, data_dir, storage, source, columns, on_event
        See `fetch_data`.

    Returns
    -------
    Data
        The whole stored history of those symbols; shapes and units as for `fetch_data`.

    Raises
    ------
    DatasetNotFoundError
        Nothing is stored of this dataset.
    FetchError
        No symbol could be updated.
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
    """Load stored candles without using the network; see `DataStorage.load_data`."""
    return DataStorage(data_dir).load_data(
        exchange_id, timeframe, symbols, market_type, as_of=as_of, columns=columns
    )


def as_data(
    result: FetchResult,
    *,
    single: bool = False,
    volume_data: Mapping[str, float] | None = None,
) -> Any:
    """Turn a result into a VectorBT object, with the report in ``wrapper._metadata``.

    Parameters
    ----------
    result : FetchResult
    single : bool
        Whether a single symbol was asked for, and not a list.
    volume_data : Mapping, optional
        24 h volumes in quote units by symbol, to add to the metadata.
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
