"""Open-source VectorBT's `Data` with the methods that VectorBT users know.

Everything of the base class keeps working, for users' own subclasses too: a class that
brings its own `download_symbol` or `update_symbol` is downloaded and updated by it, any
other by this package's pipeline.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from vectorbt._settings import settings as vectorbt_settings
from vectorbt.data.base import Data as _OpenData
from vectorbt.utils.decorators import class_or_instancemethod

from backtester.data.errors import NoSymbolsError, UnknownSymbolError
from backtester.data.model import Timeframe, counted
from backtester.data.vbt_adapter import asking, making, merging, saved
from backtester.data.vbt_adapter.frames import own_rows, position_of
from backtester.data.vbt_adapter.resampling import resampled, timeframe_of
from backtester.data.vbt_adapter.wrapper import Wrapper, before_pandas_4

if TYPE_CHECKING:
    import os

__all__ = ["Data", "assemble"]

_MOST_LISTED = 5
"""How many symbols or features are named when an object is printed."""


class Data(_OpenData):  # type: ignore[misc]  # VectorBT ships no types
    """Candles of one or several symbols, one frame each, on a shared index.

    Objects are immutable: every method returns a new one. What users add to
    ``data.wrapper._metadata`` is carried over, and saved to files.

    Parameters
    ----------
    wrapper : ArrayWrapper
        VectorBT's description of index and columns.
    data : dict
        Frames or Series by symbol, all with the same index and columns.
    tz_localize, tz_convert, missing_index, missing_columns, download_kwargs
        As in VectorBT.
    single_key : bool, optional
        Whether a single symbol was asked for, and not a list: then `get` returns Series.
        Default: as in VectorBT, True if there is just one symbol.
    fetch_kwargs : dict, optional
        The arguments of `pull`, which `update` uses again. A `symbol_dict` holds one value
        per symbol.
    """

    def __init__(
        self,
        wrapper: Any,
        data: dict[Any, Any],
        tz_localize: Any = None,
        tz_convert: Any = None,
        missing_index: str = "nan",
        missing_columns: str = "raise",
        download_kwargs: dict[str, Any] | None = None,
        *,
        single_key: bool | None = None,
        fetch_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # Not in the config, since a subclass's own constructor need not accept them.
        self._single_key = single_key
        self._fetch_kwargs = fetch_kwargs or {}
        self._across_symbols: dict[tuple[int, str], Any] = {}
        fits = isinstance(data, making.Fitting)
        super().__init__(
            Wrapper.of(wrapper),
            {} if fits else data,
            tz_localize=tz_localize,
            tz_convert=tz_convert,
            missing_index=missing_index,
            missing_columns=missing_columns,
            download_kwargs=download_kwargs or {},
            **kwargs,
        )
        if fits:  # VectorBT would compare each table with the first
            self._data = dict(data)
            self.update_config(data=self._data)

    @classmethod
    def from_data(
        cls,
        data: Mapping[Any, Any],
        tz_localize: Any = None,
        tz_convert: Any = None,
        missing_index: str | None = None,
        missing_columns: str | None = None,
        wrapper_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Build an object from arrays, Series or frames by symbol; as in VectorBT.

        Unlike VectorBT, which sets `freq` on their indexes, this leaves the given frames alone.

        Raises
        ------
        NoSymbolsError
            `data` is empty.
        """
        if not data:
            raise NoSymbolsError("no symbols to make data of")
        asked = {
            "tz_localize": tz_localize,
            "tz_convert": tz_convert,
            "missing_index": missing_index,
            "missing_columns": missing_columns,
        }
        for name in asked:
            if asked[name] is None:
                asked[name] = vectorbt_settings["data"][name]
        tables = making.prepared(data, asked["tz_localize"], asked["tz_convert"])
        # A subclass's own way of aligning is called even if there is nothing to align.
        if _is_own(cls, "align_index") or not making.share_index(tables):
            tables = cls.align_index(tables, missing=asked["missing_index"])
        if _is_own(cls, "align_columns") or not making.share_columns(tables):
            tables = cls.align_columns(tables, missing=asked["missing_columns"])
        if making.share_index(tables) and making.share_columns(tables):
            tables = making.Fitting(tables)
        wrapper = Wrapper.from_obj(next(iter(tables.values())), **(wrapper_kwargs or {}))
        return cls(wrapper, tables, **asked, **kwargs)

    # ------------------------------------------------------------------ fetching

    @classmethod
    def pull(
        cls,
        symbols: Any,
        tz_localize: Any = None,
        tz_convert: Any = None,
        missing_index: str | None = None,
        missing_columns: str | None = None,
        wrapper_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Fetch candles; see `backtester.data.fetching.data_fetcher.fetch_data`.

        A subclass with its own `download_symbol` is downloaded with that, and `kwargs` go to it.

        Parameters
        ----------
        symbols : str or list of str
            With a list, `get` returns frames; with a single name, Series.
        tz_localize, tz_convert, missing_index, missing_columns, wrapper_kwargs : optional
            As in VectorBT; candles are in UTC.
        exchange, exchange_id : str, optional
        timeframe : str, optional
        start, start_date, end, end_date : optional
            The start is inclusive, the end exclusive; anything `fetch_data` reads as a date.
        market_type, use_cache, exchange_config, data_dir, include_forming : optional
        source, columns, prefer_resampling, storage, on_event : optional
            As for `fetch_data`. All but the last is kept in `fetch_kwargs` for `update`. Each
            can be a `symbol_dict` with a value per symbol.
        config, limit, delay, retries, show_progress, tqdm_kwargs : optional
            Arguments of VectorBT's `CCXTData`. `config` is another name for `exchange_config`;
            the others are accepted and ignored, since this package does its own paging.

        Raises
        ------
        DataError
            Whatever `fetch_data` raises.
        ValueError
            As asked for by `missing_index`.
        """
        shape = {
            "tz_localize": tz_localize,
            "tz_convert": tz_convert,
            "missing_index": missing_index,
            "missing_columns": missing_columns,
            "wrapper_kwargs": wrapper_kwargs,
        }
        if _is_own(cls, "download_symbol"):
            pulled: Self = super().download(symbols, **shape, **kwargs)
            # As in VectorBT: what can be a dictionary's key is one symbol.
            return pulled._replace(single_key=isinstance(symbols, Hashable))
        single = isinstance(symbols, str)
        answer = asking.ask_for(symbols if single else list(symbols), kwargs)
        return cls._of(asking.shaped(answer, **shape), single_key=single)

    @classmethod
    def fetch(cls, symbols: Any, *args: Any, **kwargs: Any) -> Self:
        """Fetch candles: another name for `pull`."""
        return cls.pull(symbols, *args, **kwargs)

    @classmethod
    def download(cls, symbols: Any, *args: Any, **kwargs: Any) -> Self:
        """Fetch candles: another name for `pull`.

        For a subclass with its own `download_symbol` this is VectorBT's method, which returns
        Series also for a list of one symbol.
        """
        if _is_own(cls, "download_symbol"):
            downloaded: Self = super().download(symbols, *args, **kwargs)
            return downloaded
        return cls.pull(symbols, *args, **kwargs)

    def update(self, end: Any = None, **kwargs: Any) -> Self:
        """Return a new object that also has the candles since the last one.

        Each symbol continues from its own last candle, which is fetched again because it may
        have been unfinished. So a symbol that lags behind the others gets no gap.

        Parameters
        ----------
        end : optional
            Exclusive. Default: now.
        **kwargs
            Arguments of `pull` to use instead of the earlier ones.

        Raises
        ------
        OptionError
            The exchange or timeframe is neither known nor given.
        DataError
            Whatever `fetch_data` raises, if no symbol could be updated. If only some failed,
            a warning names them, and they stay as they are.
        """
        if _is_own(type(self), "update_symbol") or _is_own(type(self), "download_symbol"):
            extra = kwargs if end is None else {**kwargs, "end": end}
            with before_pandas_4():
                updated: Self = super().update(**extra)
            return updated
        answers = [self._of(one) for one in asking.ask_on(self, end, kwargs)]
        together: Self = merging.merged([self, *answers], type(self), self.missing_index)
        return together._replace(
            single_key=self._single_key,
            fetch_kwargs=self.fetch_kwargs,
            download_kwargs=self.download_kwargs,
        )

    # ------------------------------------------------------------------ combining

    @class_or_instancemethod  # type: ignore[untyped-decorator]
    def merge(
        self_or_cls: Any,  # noqa: N805  # called on the class or on an object
        *objects: Any,
        missing_index: str | None = None,
        missing_columns: str | None = None,
    ) -> Any:
        """Combine the symbols of several objects, and the rows of symbols they share.

        A row of a later object replaces that of an earlier one, unless it is all NaN. Called
        on an object, that object comes first.

        Parameters
        ----------
        *objects : Data
            Or a single list of them.
        missing_index : {'nan', 'drop', 'raise'}, optional
            What to do with times that not every symbol has: fill with NaN (the default), drop
            them, or raise ValueError.
        missing_columns : {'nan', 'drop', 'raise'}, optional
            The same for columns; the default is to raise.

        Returns
        -------
        Data
            An instance of the most specific class that all have in common.

        Raises
        ------
        OptionError
            There is nothing to merge, or the markets or timeframes differ.
        ValueError
            Under ``'raise'``; see above.
        """
        cls = self_or_cls if isinstance(self_or_cls, type) else type(self_or_cls)
        if len(objects) == 1 and isinstance(objects[0], list | tuple):
            objects = tuple(objects[0])
        if cls is not self_or_cls:
            objects = (self_or_cls, *objects)
        merging.check_markets([one for one in objects if isinstance(one, _OpenData)])
        return merging.merged(objects, Data, missing_index, missing_columns)

    def select(self, symbols: Any) -> Self:
        """Return an object with only some of the symbols, in the given order.

        Parameters
        ----------
        symbols : label or list of labels
            With a single label, `get` of the result returns Series.

        Raises
        ------
        UnknownSymbolError
            There is no such symbol; the message suggests the closest ones.
        """
        single = isinstance(symbols, str) or not isinstance(symbols, Iterable)
        # A tuple that is not a label itself is a sequence of labels.
        single = single or (isinstance(symbols, Hashable) and symbols in self.symbols)
        chosen = [self._known_symbol(one) for one in ([symbols] if single else symbols)]
        if not chosen:
            raise NoSymbolsError("no symbols to select")
        return self._replace(data={one: self.data[one] for one in chosen}, single_key=single)

    def resample(self, rule: str | Timeframe) -> Self:
        """Return the candles of a longer timeframe.

        Each symbol is resampled by itself. Of each group, the open is the first, the close the
        last, and volumes and counts are summed. A group is complete if the symbol's candles
        reach both its ends; incomplete groups are left out, and so are groups with an
        unfinished candle. ``wrapper._metadata['derived']`` says what the result was made from.

        Parameters
        ----------
        rule : str
            A timeframe: ``4h``, ``1d``, ``1w`` (from Monday), ``1M`` (a calendar month).

        Raises
        ------
        UnknownTimeframeError
            `rule` is not a timeframe.
        OptionError
            `rule` is not a multiple of this object's timeframe, which must be known, or a
            column is neither a price nor a sum.
        """
        target = Timeframe.parse(rule)
        index, data, notes = resampled(self, target)
        wrapper = self.wrapper.replace(index=index, freq=_frequency(target))
        wrapper._metadata = notes
        asked = {**self.fetch_kwargs, "timeframe": str(target)}
        return self._replace(wrapper=wrapper, data=data, fetch_kwargs=asked)

    # ------------------------------------------------------------------ reading

    @property
    def features(self) -> list[Any]:
        """The columns that every symbol has."""
        return list(self.wrapper.columns)

    @property
    def index(self) -> pd.Index:
        """The index that every symbol shares."""
        index: pd.Index = self.wrapper.index
        return index

    @property
    def single_key(self) -> bool:
        """Whether a single symbol was asked for, so that `get` returns Series."""
        return len(self.symbols) == 1 and self._single_key is not False

    @property
    def fetch_kwargs(self) -> dict[str, Any]:
        """The arguments of `pull`, which `update` uses again."""
        return self._fetch_kwargs

    @property
    def timeframe(self) -> str | None:
        """The timeframe, such as ``1h``; None if it is unknown."""
        found = timeframe_of(self)
        return None if found is None else str(found)

    @property
    def freq(self) -> pd.Timedelta | None:
        """The step of the index as VectorBT counts it; for months, their mean length."""
        step: pd.Timedelta | None = self.wrapper.freq
        return step

    @property
    def last_index(self) -> dict[Any, Any]:
        """The time of each symbol's own last candle; None for a symbol without candles."""
        last = {}
        for symbol, frame in self.data.items():
            rows = np.flatnonzero(own_rows(frame))
            last[symbol] = self.index[rows[-1]] if len(rows) else None
        return last

    def get(
        self,
        feature: Any = None,
        symbol: Any = None,
        *,
        column: Any = None,
        level_name: str = "symbol",
        **unknown: Any,
    ) -> Any:
        """Return columns by name: an exact match first, else one that differs only in case.

        Parameters
        ----------
        feature : label or list of labels, optional
            VectorBT calls it `column`. If there is only one feature, symbols work too, as in
            VectorBT.
        symbol : label or list of labels, optional
            Default: all.
        column : label or list of labels, optional
            Another name for `feature`.
        level_name : str
            Name of the symbol axis, as in VectorBT.

        Returns
        -------
        Series or DataFrame or tuple of those
            One feature: a frame with a column per symbol, or a Series for a single symbol.
            All features of one symbol: its frame. Several features of several symbols: a
            tuple with one of the above for each.

        Raises
        ------
        KeyError
            There is no such feature.
        UnknownSymbolError
            There is no such symbol.
        TypeError
            There is no such argument.
        """
        for name in unknown:
            near = get_close_matches(name, ("feature", "symbol", "column", "level_name"), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"get() got an unexpected keyword argument {name!r}{hint}")
        if column is not None:
            feature = column
        if symbol is not None:
            label = symbol if isinstance(symbol, list) else self._known_symbol(symbol)
            return self.select(label).get(feature, level_name=level_name)
        # Always a copy: `data` is read-only memory that a cache shares.
        if feature is None and len(self.symbols) == 1:
            return self.data[self.symbols[0]].copy()
        if feature is not None and len(self.features) == 1 < len(self.symbols):
            return self._of_one_feature(feature, level_name)
        names = self.features if feature is None else feature
        if not isinstance(names, list):
            return self._across(self._position(names), level_name)
        positions = [self._position(name) for name in names]
        if self.single_key:
            table = self.data[self.symbols[0]]
            frame = table.to_frame() if isinstance(table, pd.Series) else table
            return frame.iloc[:, positions].copy()
        found = tuple(self._across(position, level_name) for position in positions)
        # VectorBT gives data of a single column without the tuple around it.
        return found[0] if feature is None and len(found) == 1 else found

    def concat(self, level_name: str = "symbol") -> dict[Any, Any]:
        """Return every feature across the symbols, by feature; a Series is named by its symbol."""
        first = next(iter(self.data.values()))
        names = [first.name] if isinstance(first, pd.Series) else self.features
        found = {name: self._across(at, level_name) for at, name in enumerate(names)}
        if self.single_key:
            return {feature: one.rename(self.symbols[0]) for feature, one in found.items()}
        return found

    @property
    def open(self) -> Any:
        """Open prices; see `get`."""
        return self._attribute("Open")

    @property
    def high(self) -> Any:
        """Highest prices; see `get`."""
        return self._attribute("High")

    @property
    def low(self) -> Any:
        """Lowest prices; see `get`."""
        return self._attribute("Low")

    @property
    def close(self) -> Any:
        """Close prices; see `get`."""
        return self._attribute("Close")

    @property
    def volume(self) -> Any:
        """Volumes in the base currency; see `get`."""
        return self._attribute("Volume")

    def plot(self, column: Any = None, base: float | None = None, **kwargs: Any) -> Any:
        """Plot one column of every symbol; by default the closes."""
        if column is None and self.wrapper.ndim > 1:
            column = "Close" if position_of(self.features, "Close") is not None else None
        at = None if column is None else position_of(self.features, column)
        if at is not None:  # else VectorBT may know it as a position
            column = self.features[at]
        return super().plot(column=column, base=base, **kwargs)

    # ------------------------------------------------------------------ files

    def dumps(self, **_kwargs: Any) -> bytes:
        """Return the object as a pickle of plain types.

        Raises
        ------
        DatasetWriteError
            The object holds something that is not data, such as a client in
            `download_kwargs`.
        """
        return saved.dump(self)

    @classmethod
    def loads(cls, dumps: bytes, **_kwargs: Any) -> Self:
        """Read the bytes that `dumps` returned, without running any code in them.

        Raises
        ------
        CorruptDatasetError
            The bytes are damaged, or something else.
        """
        return cls._of(saved.load(dumps, "the bytes"))

    def save(self, fname: str | os.PathLike[str], **_kwargs: Any) -> None:
        """Write the object to a file, replacing an existing one atomically.

        The data directory, keys and passwords are not written.

        Parameters
        ----------
        fname : path
            Compressed if it ends in ``.blosc``, as in ``candles.pickle.blosc``.

        Raises
        ------
        DatasetWriteError
            The file could not be written, or as in `dumps`.
        DatasetTooLargeError
            The data take 2 GiB or more.
        OptionError
            The suffix names a compression that is not supported.
        """
        saved.save(self, Path(fname))

    @classmethod
    def load(cls, fname: str | os.PathLike[str], **_kwargs: Any) -> Self:
        """Read a file that `save` wrote, or a dataset file, without running any code in it.

        Raises
        ------
        CorruptDatasetError
            The file is damaged, or something else; `path` names it.
        FileNotFoundError
            There is no such file.
        """
        path = Path(fname)
        return cls._of(saved.load(path.read_bytes(), str(path)))

    def __repr__(self) -> str:
        """Return symbols, rows, span and features, in one line."""
        symbols, features = _listed(self.symbols), _listed(self.features)
        rows = counted(len(self.index), "row")
        span = f" from {self.index[0]} to {self.index[-1]}" if len(self.index) else ""
        return f"<{type(self).__name__} of {symbols}: {rows}{span}; {features}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # For copies and other processes, where the class itself is wanted back.
        own = {name: getattr(self, name) for name in self.writeable_attrs}
        return _revive, (type(self), dict(self.config), own)

    # ------------------------------------------------------------------ inside

    def replace(self, *modes: Any, **changes: Any) -> Any:
        """Return a changed copy; a note made on its wrapper later is not made on this one's."""
        own = {f"_{n}": changes.pop(n) for n in ("single_key", "fetch_kwargs") if n in changes}
        changed = super().replace(*modes, **{"wrapper": self.wrapper.apart(), **changes})
        for name, value in own.items():
            setattr(changed, name, value)
        return changed

    def indexing_func(self, pd_indexing_func: Callable[[Any], Any], **kwargs: Any) -> Self:
        """Index every symbol alike, sharing the memory of what is kept.

        VectorBT first indexes two tables of positions as large as a symbol's own.
        """
        first = next(iter(self.data.values()))
        if kwargs or self.wrapper.grouper.is_grouped():
            indexed: Self = super().indexing_func(pd_indexing_func, **kwargs)
            return indexed
        wrapper = _indexed(self.wrapper, first, pd_indexing_func(first))
        if wrapper is None:
            wrapper = self.wrapper.indexing_func(pd_indexing_func)
        data = {symbol: pd_indexing_func(table) for symbol, table in self.data.items()}
        return self._replace(wrapper=wrapper, data=data)

    @property
    def writeable_attrs(self) -> set[str]:
        """Name what VectorBT copies and compares beside the arguments."""
        return {"_single_key", "_fetch_kwargs"}

    def _replace(self, **changes: Any) -> Self:
        changed: Self = self.replace(**changes)
        return changed

    @classmethod
    def _of(cls, other: Data, **changes: Any) -> Self:
        """Return an object of this class with another one's content."""
        if type(other) is cls and not changes:
            return other
        made: Self = other.replace(cls_=cls, **changes)
        return made

    def _known_symbol(self, name: Any) -> Any:
        position = position_of(self.symbols, name)
        if position is None:
            near = get_close_matches(str(name), [str(s) for s in self.symbols], 3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UnknownSymbolError(
                f"the data have no symbol {name!r}{hint}", symbol=name, suggestions=near
            )
        return self.symbols[position]

    def _position(self, name: Any) -> int:
        position = position_of(self.features, name)
        if position is None:
            there = ", ".join(map(str, self.features))
            raise KeyError(f"the data have no feature {name!r}; there are {there}")
        return position

    def _of_one_feature(self, name: Any, level_name: str) -> Any:
        """Return the only feature, or some symbols of it, by name."""
        across = self._across(0, level_name)
        names = name if isinstance(name, list) else [name]
        if all(one in self.symbols for one in names):
            return across[name].copy()
        if self.wrapper.ndim > 1 or self.data[self.symbols[0]].name is not None:
            for one in names:  # a Series without a name goes by any
                self._position(one)
        return across

    def _across(self, position: int, level_name: str = "symbol") -> Any:
        """Return one feature of all symbols; put together once, and everyone's own to write to."""
        if self.single_key:
            (table,) = self.data.values()
            return (table if isinstance(table, pd.Series) else table.iloc[:, position]).copy()
        key = position, level_name
        if key not in self._across_symbols:
            self._across_symbols[key] = self._put_together(position, level_name)
        # Copied on write: the cache keeps the original.
        return self._across_symbols[key].copy(deep=False)

    def _put_together(self, position: int, level_name: str) -> pd.DataFrame:
        columns = [
            frame if isinstance(frame, pd.Series) else frame.iloc[:, position]
            for frame in self.data.values()
        ]
        names = pd.Index(self.symbols, name=level_name)
        kinds = {column.dtype for column in columns}
        if len(kinds) == 1 and isinstance(kinds.pop(), np.dtype):
            table = np.array([column.to_numpy() for column in columns]).T
            return pd.DataFrame(table, index=self.index, columns=names, copy=False)
        together: pd.DataFrame = pd.concat(columns, axis=1).set_axis(names, axis=1)
        return together

    def _attribute(self, feature: str) -> Any:
        if position_of(self.features, feature) is None:
            raise AttributeError(f"the data have no feature {feature!r}")
        return self.get(feature)


def assemble(
    index: pd.DatetimeIndex,
    frames: dict[str, pd.DataFrame],
    timeframe: Timeframe,
    single: bool,
    metadata: Mapping[str, Any] | None,
    fetch_kwargs: Mapping[str, Any] | None,
) -> Data:
    """Make the object of frames that are known to fit; see `engine.build`."""
    columns = next(iter(frames.values())).columns
    wrapper = Wrapper(index, columns, 2, freq=_frequency(timeframe))
    wrapper._metadata = dict(metadata or {})
    asked = {"timeframe": str(timeframe), **(fetch_kwargs or {})}
    return Data(wrapper, making.Fitting(frames), single_key=single, fetch_kwargs=asked)


def _frequency(timeframe: Timeframe) -> pd.Timedelta:
    # VectorBT knows fixed steps only, and reads pandas' name of a month, 'MS', as a
    # millisecond; so months and years get their mean length in the Gregorian calendar.
    if timeframe.unit in ("M", "y"):
        months = timeframe.count * (12 if timeframe.unit == "y" else 1)
        return pd.Timedelta(days=365.2425 / 12 * months)
    return pd.Timedelta(timeframe.typical_ms, "ms")


def _listed(names: Sequence[Any]) -> str:
    """List names, the first few of many.

    >>> _listed("abcdefg"), _listed(["BTC/USDT"])
    ('a, b, c, d, e and 2 more', 'BTC/USDT')
    """
    first, rest = map(str, names[:_MOST_LISTED]), len(names) - _MOST_LISTED
    return ", ".join(first) + (f" and {rest} more" if rest > 0 else "")


def _is_own(cls: type[Data], method: str) -> bool:
    """Return whether a class brings a method that VectorBT leaves to its users."""
    return inspect.getattr_static(cls, method) is not inspect.getattr_static(_OpenData, method)


def _indexed(wrapper: Wrapper, before: Any, after: Any) -> Wrapper | None:
    """Return the wrapper of an indexed table; None where VectorBT must find out what it means."""
    if isinstance(before, pd.DataFrame) and isinstance(after, pd.DataFrame) and after.shape[1]:
        return wrapper.replace(index=after.index, columns=after.columns)
    if len(before.index) < 2 or not isinstance(after, pd.Series):
        return None  # a single row may be a row or a column
    if isinstance(before, pd.Series):
        return wrapper.replace(index=after.index)
    if after.index.is_(before.index) and before.columns.is_unique:
        at = before.columns.get_loc(after.name)
        return wrapper.replace(columns=before.columns[[at]], ndim=1)
    return None


def _revive(cls: type[Data], config: dict[str, Any], own: dict[str, Any]) -> Data:
    data = cls(**config)
    for name, value in own.items():
        setattr(data, name, value)
    return data
