"""The public API of the store: save, load and inspect datasets as VectorBT data."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from backtester.data.candles import (
    COLUMNS,
    EXTRAS,
    Answer,
    Candles,
    Revision,
    check,
    given,
    merged_times,
)
from backtester.data.dates import DateLike, parse_date
from backtester.data.errors import DatasetNotFoundError, OptionError
from backtester.data.fetching.planning import closed_end
from backtester.data.fetching.request import wants_all
from backtester.data.fetching.symbols import SymbolBook, parse_symbols
from backtester.data.home import Home, home_in
from backtester.data.model import DatasetKey, Interval, MarketType
from backtester.data.storage.growing import Storage
from backtester.data.storage.store import DatasetSummary

if TYPE_CHECKING:
    import pandas as pd

    from backtester.data.storage.store import Column

__all__ = ["DataStorage", "column_frame", "data_storage", "fetch_kwargs"]

_MEGABYTE = 1_000_000


class DataStorage:
    """The datasets in one directory, as VectorBT Data objects.

    Parameters
    ----------
    data_dir : path, optional
        Default: looked up anew at every call; see `settings.data_directory`.
    storage : str
        Format in which datasets are written: ``'auto'``, ``'pickle'`` or ``'sqlite'``.
    """

    def __init__(
        self, data_dir: str | os.PathLike[str] | None = None, storage: str = "auto"
    ) -> None:
        self._data_dir = data_dir
        self._storage = storage

    def save_data(
        self,
        data: Any,
        exchange_id: str,
        timeframe: str,
        market_type: str = "spot",
    ) -> bool:
        """Merge VectorBT data into the store; stored candles are never removed.

        Parameters
        ----------
        data : Data
            Any VectorBT Data object, or a dict of OHLCV DataFrames by symbol, with a UTC index.
            All-NaN rows (padding) and a candle that has not closed yet are left out.
        exchange_id, timeframe, market_type : str
            The dataset to merge into.

        Returns
        -------
        bool
            Always True; failures raise.

        Raises
        ------
        CandleError
            A table lacks a column, or has impossible candles.
        StorageError
            The file could not be written.
        """
        from backtester.data import vbt_adapter

        key, home = DatasetKey.of(exchange_id, market_type, timeframe), self._home()
        notes = vbt_adapter.metadata_of(data)
        forming = notes.get("forming") or {}
        book = SymbolBook.of(home.cache.get_markets(key.exchange, key.market_type) or ())
        answers: list[Answer] = []
        for name, candles in vbt_adapter.tables_of(data).items():
            closed = _closed(candles, key, forming.get(name))
            answers += given(book.find(name) or name, closed, key.timeframe, asked_ms=_now_ms())
        home.store.commit(key, answers)
        home.store.fold(key)
        if notes.get("volume_data"):
            home.store.annotate(key, {"volume_data": dict(notes["volume_data"])})
        return True

    def load_data(
        self,
        exchange_id: str,
        timeframe: str,
        symbols: Any = None,
        market_type: str = "spot",
        *,
        as_of: DateLike = None,
        columns: str = "ohlcv",
    ) -> Any:
        """Load stored candles without using the network.

        Parameters
        ----------
        exchange_id, timeframe : str
            The dataset, together with `market_type`.
        symbols : str or list of str, optional
            Default: all that are stored.
        market_type : str
        as_of : optional
            A date, UTC: give the candles as they were known then, without later revisions and
            without candles that closed later.
        columns : str
            ``'all'``: also the other columns that are stored; see `fetch_data`.

        Returns
        -------
        Data
            As `fetch_data` returns it: columns Open, High, Low, Close (quote units) and Volume
            (base units), float64; index ``Open time``, UTC.

        Raises
        ------
        DatasetNotFoundError
            The dataset, or one of `symbols`, is not stored.
        CorruptDatasetError
            The file is damaged, or not one of ours.
        """
        from backtester.data import vbt_adapter

        key = DatasetKey.of(exchange_id, market_type, timeframe)
        asked = None if symbols is None else _symbols(symbols)
        found = self.names(key, asked)
        dataset = self._home().store.read(key, list(found.values()))
        series = dict(dataset.series)
        if as_of is not None:
            ms = parse_date(as_of, now_ms=_now_ms(), param="as_of")
            series = {symbol: one.as_of(ms, key.timeframe) for symbol, one in series.items()}
        tables = {name: series[symbol].candles for name, symbol in found.items()}
        if not wants_all(columns):
            tables = {name: table.plain() for name, table in tables.items()}
        return vbt_adapter.build(
            tables,
            timeframe=key.timeframe,
            single=isinstance(symbols, str),
            metadata=dict(dataset.metadata),
            fetch_kwargs=fetch_kwargs(key, self._home().folder),
        )

    def load_column(
        self,
        column: str,
        exchange_id: str,
        timeframe: str,
        symbols: Any = None,
        market_type: str = "spot",
        start_date: DateLike = None,
        end_date: DateLike = None,
    ) -> pd.DataFrame:
        """Load one column of stored candles, such as all closes, without using the network.

        Much faster than `load_data` for many symbols, since only this column is decoded.

        Parameters
        ----------
        column : str
            ``'Open'``, ``'High'``, ``'Low'``, ``'Close'`` (quote units), ``'Volume'`` (base
            units), or one of those that ``columns='all'`` adds. Case does not matter.
        exchange_id, timeframe : str
            The dataset, together with `market_type`.
        symbols : str or list of str, optional
            Default: all that are stored.
        market_type : str
        start_date, end_date : date, optional
            Only candles that open in ``[start_date, end_date)``, UTC. Default: all.

        Returns
        -------
        DataFrame, shape (n, symbols)
            float64, one column per symbol, named as asked for (the column axis is 'symbol'); the
            index is 'Open time', UTC, the union of all, strictly increasing. NaN where a symbol
            has no candle.

        Raises
        ------
        OptionError
            There is no such column.
        DatasetNotFoundError
            The dataset, or one of `symbols`, is not stored.
        CorruptDatasetError
            The file is damaged, or not one of ours.
        """
        known = {name.lower(): name for name in (*COLUMNS, *EXTRAS)}
        named = known.get(str(column).lower())
        if named is None:
            listed = ", ".join(known.values())
            raise OptionError(f"there is no column {column!r}; use one of {listed}", value=column)
        key = DatasetKey.of(exchange_id, market_type, timeframe)
        found = self.names(key, None if symbols is None else _symbols(symbols))
        within = None
        if start_date is not None or end_date is not None:
            now = _now_ms()
            within = Interval(
                0 if start_date is None else parse_date(start_date, now_ms=now, param="start_date"),
                now if end_date is None else parse_date(end_date, now_ms=now, param="end_date"),
            )
        columns = self._home().store.read_column(key, named, list(found.values()), within=within)
        return column_frame({name: columns[symbol] for name, symbol in found.items()})

    def get_storage_summary(self) -> dict[str, Any]:
        """Summarise all datasets without reading their candles.

        Returns
        -------
        dict
            ``pickle_files`` (the number of datasets, in either format), ``total_size_mb`` (10^6
            bytes), ``data_dir`` and ``files``. That has, by file name, ``symbol_count``,
            ``size_mb``, ``candles``, ``symbols`` (a list), ``first_ms`` and ``last_ms`` (open
            times, UTC epoch milliseconds), ``modified_ms``, ``exchange``, ``market_type``,
            ``timeframe`` and ``problem`` (None unless the file is damaged).
        """
        home = self._home()
        found = home.store.summary()
        return {
            "pickle_files": len(found),
            "total_size_mb": round(sum(one.size_bytes for one in found) / _MEGABYTE, 3),
            "data_dir": str(home.folder),
            "files": {one.name: _describe(one) for one in found},
        }

    def data_exists(self, exchange_id: str, timeframe: str, market_type: str = "spot") -> bool:
        """Return whether a dataset is stored; a damaged file counts."""
        key = DatasetKey.of(exchange_id, market_type, timeframe)
        return key in set(self._home().store.keys())

    def get_stored_symbols(
        self, exchange_id: str, timeframe: str, market_type: str = "spot"
    ) -> list[str]:
        """List the stored symbols of a dataset by ccxt's names, sorted; empty if there are none."""
        key = DatasetKey.of(exchange_id, market_type, timeframe)
        return sorted(self._home().store.held(key))

    def get_date_range(
        self,
        exchange_id: str,
        timeframe: str,
        market_type: str = "spot",
        symbol: str | None = None,
    ) -> tuple[pd.Timestamp, pd.Timestamp]:
        """Return the open times of the first and the last stored candle, UTC.

        Parameters
        ----------
        exchange_id, timeframe, market_type : str
            The dataset.
        symbol : str, optional
            Look at this symbol only.

        Raises
        ------
        DatasetNotFoundError
            No candle is stored.
        """
        import pandas as pd

        key = DatasetKey.of(exchange_id, market_type, timeframe)
        found = self.names(key, None if symbol is None else [symbol])
        held = self._home().store.held(key, list(found.values())).values()
        firsts = [one.first_ms for one in held if one.first_ms is not None]
        lasts = [one.last_ms for one in held if one.last_ms is not None]
        if not firsts:
            raise DatasetNotFoundError(f"no candles are stored for {key}", key=str(key))
        first, last = min(firsts), max(lasts)
        return (
            pd.Timestamp(first, unit="ms", tz="UTC"),
            pd.Timestamp(last, unit="ms", tz="UTC"),
        )

    def get_coverage(
        self,
        exchange_id: str,
        timeframe: str,
        symbol: str,
        market_type: str = "spot",
    ) -> pd.DataFrame:
        """Tell which candles are stored, which are confirmed absent and why, and which unknown.

        Parameters
        ----------
        exchange_id, timeframe, symbol, market_type : str
            The dataset, and one symbol of it.

        Returns
        -------
        DataFrame
            One row per interval, from the first to the last time anything is known about:
            ``start`` (inclusive) and ``end`` (exclusive), UTC; ``state``, which is ``present``,
            ``never asked`` or the reason for the absence (``no trades``, ``not_listed``,
            ``delisted``, ``beyond_depth``, ``not_served``); and ``candles``, the number of candle
            times.

        Raises
        ------
        DatasetNotFoundError
            The symbol is not stored.
        """
        import pandas as pd

        key = DatasetKey.of(exchange_id, market_type, timeframe)
        (stored,) = self.names(key, [symbol]).values()
        series = self._home().store.read(key, [stored]).series[stored]
        known = [span.interval for span in series.coverage]
        known += key.timeframe.runs(series.candles.open_time)
        if not known:
            raise DatasetNotFoundError(
                f"nothing is known about {symbol}", key=str(key), symbol=symbol
            )
        whole = Interval(min(one.start for one in known), max(one.end for one in known))
        rows = [
            (part.start, part.end, state, key.timeframe.steps(part))
            for part, state in series.states(key.timeframe, whole)
        ]
        frame = pd.DataFrame(rows, columns=["start", "end", "state", "candles"])
        for side in ("start", "end"):
            frame[side] = pd.to_datetime(frame[side], unit="ms", utc=True)
        return frame

    def revisions(
        self, exchange_id: str, timeframe: str, symbol: str, market_type: str = "spot"
    ) -> tuple[Revision, ...]:
        """List the stored candles of a symbol that the exchange changed later, oldest change first.

        Raises
        ------
        DatasetNotFoundError
            The symbol is not stored.
        """
        key = DatasetKey.of(exchange_id, market_type, timeframe)
        (stored,) = self.names(key, [symbol]).values()
        return self._home().store.read(key, [stored]).series[stored].revisions

    def candles(self, key: DatasetKey, symbol: str, within: Interval | None = None) -> Candles:
        """Return stored candles as plain arrays; `symbol` is ccxt's name of a stored one."""
        return self._home().store.read(key, [symbol], within=within).series[symbol].candles

    def convert(
        self, exchange_id: str, timeframe: str, market_type: str = "spot", *, to: str
    ) -> Path:
        """Convert a dataset to another format, ``'pickle'`` or ``'sqlite'``, and compare the two.

        Returns
        -------
        Path
            The new file; the old one is kept under another name.

        Raises
        ------
        DatasetNotFoundError
            The dataset is not stored.
        OptionError
            There is no such format.
        StorageError
            It could not be read or written; nothing has changed.
        """
        form, key = Storage.parse(to), DatasetKey.of(exchange_id, market_type, timeframe)
        if form is Storage.AUTO:
            raise OptionError("choose the target format: pickle or sqlite", value=to)
        self.names(key)
        return self._home().store.move(key, form)

    def delete(
        self,
        exchange_id: str,
        timeframe: str,
        symbols: str | list[str] | None = None,
        market_type: str = "spot",
    ) -> None:
        """Delete a dataset, or some of its symbols, including coverage and revisions.

        Raises
        ------
        DatasetNotFoundError
            The dataset, or one of `symbols`, is not stored.
        """
        key = DatasetKey.of(exchange_id, market_type, timeframe)
        named = None if symbols is None else list(self.names(key, _symbols(symbols)).values())
        if named is None and not self.data_exists(exchange_id, timeframe, market_type):
            raise DatasetNotFoundError(f"nothing is stored for {key}", key=str(key))
        self._home().store.delete(key, named)

    def _home(self) -> Home:
        return home_in(self._data_dir, self._storage)

    def names(self, key: DatasetKey, asked: Sequence[str] | None = None) -> dict[str, str]:
        """Map each name asked for to its stored symbol; without `asked`, all stored symbols.

        Raises
        ------
        DatasetNotFoundError
            The dataset, or one of the names, is not stored.
        CorruptDatasetError
            The file is damaged, or not one of ours.
        """
        home = self._home()
        held = home.store.held(key, asked)
        if asked is not None and len(held) == len(asked):
            return {name: name for name in asked}
        held = home.store.held(key)
        if not held:
            raise _nothing_stored(key, home)
        book = SymbolBook(held)
        return {
            name: name if name in held else book.find(name) or _not_stored(name, held, key)
            for name in (held if asked is None else asked)
        }


def _nothing_stored(key: DatasetKey, home: Home) -> DatasetNotFoundError:
    """Build the error for a dataset that is not stored; its exchange may be misspelled."""
    from backtester.data.fetching.capabilities import certified

    stored = home.store.keys()
    known = {one.exchange for one in stored} | {row[0] for row in certified()}
    near = [] if key.exchange in known else difflib.get_close_matches(key.exchange, known)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return DatasetNotFoundError(
        f"nothing is stored for {key} in {home.folder}{hint}", key=str(key), suggestions=near
    )


def column_frame(columns: Mapping[str, Column]) -> pd.DataFrame:
    """Put the columns of several symbols side by side, with NaN where one has no candle.

    Parameters
    ----------
    columns : mapping of str to (int64 (n,), float64 (n,))
        Open times, UTC epoch milliseconds, and values; see `Store.read_column`.
    """
    import numpy as np
    import pandas as pd

    from backtester.data.vbt_adapter.frames import time_index

    times = merged_times([times for times, _ in columns.values()])
    values = np.empty((len(columns), len(times)))
    for row, (own, column) in zip(values, columns.values(), strict=True):
        if len(own) == len(times):
            row[:] = column
            continue
        row[:] = np.nan
        # Usually a symbol only lacks what was before its listing: then its own times are one slice.
        first = int(np.searchsorted(times, own[0])) if len(own) else 0
        if np.array_equal(times[first : first + len(own)], own):
            row[first : first + len(own)] = column
        else:
            row[np.searchsorted(times, own)] = column
    names = pd.Index(list(columns), name="symbol")
    return pd.DataFrame(values.T, index=time_index(times), columns=names, copy=False)


def _not_stored(name: str, held: Iterable[str], key: DatasetKey) -> NoReturn:
    symbols = sorted(held)
    more = f" and {len(symbols) - 8} more" if len(symbols) > 8 else ""
    raise DatasetNotFoundError(
        f"{name!r} is not stored for {key}; stored symbols: {', '.join(symbols[:8])}{more}",
        key=str(key),
        symbol=name,
    )


def fetch_kwargs(
    key: DatasetKey, folder: Path, exchange_config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what a Data object must remember to be updated later."""
    return {
        "exchange_id": key.exchange,
        "timeframe": str(key.timeframe),
        "market_type": key.market_type.value,
        "data_dir": str(folder),
        "exchange_config": dict(exchange_config or {}),
    }


def _symbols(symbols: Any) -> list[str]:
    if isinstance(symbols, str) and symbols.strip().lower() in set(MarketType):
        raise OptionError(
            f"{symbols!r} was passed as symbols; write market_type={symbols!r}", value=symbols
        )
    return parse_symbols(symbols)


def _closed(candles: Candles, key: DatasetKey, forming_ms: int | None) -> Candles:
    """Drop candles that have not closed, by the clock and by the data's own metadata."""
    if not len(candles):
        return candles
    whole = Interval(int(candles.open_time[0]), int(candles.open_time[-1]) + 1)
    checked = check(candles.open_time, candles.values, key.timeframe, whole)
    closed = checked.open_time < closed_end(key.timeframe, _now_ms(), 0)
    if forming_ms is not None and int(checked.open_time[-1]) == forming_ms:
        closed[-1] = False
    return checked.take(closed)


def _describe(found: DatasetSummary) -> dict[str, Any]:
    symbols = found.symbols.values()
    firsts = [one.first_ms for one in symbols if one.first_ms is not None]
    lasts = [one.last_ms for one in symbols if one.last_ms is not None]
    return {
        "symbol_count": len(found.symbols),
        "size_mb": round(found.size_bytes / _MEGABYTE, 3),
        "candles": sum(one.candles for one in symbols),
        "symbols": sorted(found.symbols),
        "first_ms": min(firsts, default=None),
        "last_ms": max(lasts, default=None),
        "modified_ms": found.modified_ms,
        "exchange": found.key.exchange,
        "market_type": found.key.market_type.value,
        "timeframe": str(found.key.timeframe),
        "problem": found.problem,
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


data_storage = DataStorage()
