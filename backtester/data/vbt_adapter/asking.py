"""How `Data.pull` and `Data.update` ask this package's pipeline."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from vectorbt._settings import settings as vectorbt_settings
from vectorbt.data.base import symbol_dict
from vectorbt.utils.datetime_ import to_timezone

from backtester.data.errors import DataError, EmptyIntervalError, OptionError
from backtester.data.vbt_adapter.frames import own_rows

if TYPE_CHECKING:
    from backtester.data.vbt_adapter.data import Data

__all__ = ["arguments", "ask", "ask_for", "ask_on", "shaped"]

_log = logging.getLogger(__name__)

_ALIASES = {
    "exchange": "exchange_id",
    "start": "start_date",
    "end": "end_date",
    "config": "exchange_config",
}
_NOT_AGAIN = ("end_date", "prefer_resampling")
"""Of one question: an update asks the exchange, up to an end of its own."""
_PAGING = ("limit", "delay", "retries", "show_progress", "tqdm_kwargs")
"""Of VectorBT's `CCXTData`, about how it pages and shows that; no answer depends on them."""
_KNOWN = (
    "exchange_id",
    "timeframe",
    "start_date",
    "end_date",
    "market_type",
    "use_cache",
    "exchange_config",
    "data_dir",
    "include_forming",
    "source",
    "columns",
    "prefer_resampling",
    "storage",
    "on_event",
)


def ask(symbols: Any, **kwargs: Any) -> Any:
    """Put a question to the pipeline; the one place where this package's VectorBT side does."""
    # Imported here, since `data_fetcher` imports this package to build its result.
    from backtester.data.fetching import data_fetcher

    return data_fetcher.fetch_data(symbols, **kwargs)


def arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Put VectorBT's names of options into those of `fetch_data`.

    Raises
    ------
    OptionError
        An option nobody knows, one given under both its names, or an exchange that is no id.
    """
    known: dict[str, Any] = {}
    for name, value in kwargs.items():
        if name in _PAGING:
            continue
        own = _ALIASES.get(name, name)
        if own not in _KNOWN:
            raise OptionError(
                f"unknown option {name!r}; known are {', '.join([*_ALIASES, *_KNOWN])}", option=name
            )
        if own in known:
            raise OptionError(f"{name!r} is given twice, under both its names", option=name)
        known[own] = value
    exchange = known.get("exchange_id", "")
    if not isinstance(exchange, str | symbol_dict):
        kind = type(exchange).__name__
        raise OptionError(
            f"the exchange is named by its id, such as 'binance', not by a {kind}; "
            "its settings go into exchange_config",
            option="exchange",
        )
    return known


def ask_for(symbols: Any, kwargs: Mapping[str, Any]) -> Data:
    """Ask for symbols; see `Data.pull`. Those that are asked for alike, in one question."""
    from backtester.data.vbt_adapter.data import Data
    from backtester.data.vbt_adapter.merging import merged

    asked = arguments(kwargs)
    if not any(isinstance(value, symbol_dict) for value in asked.values()):
        return _known(ask(symbols, **asked), asked)
    groups = _alike(
        (symbol, Data.select_symbol_kwargs(symbol, asked))
        for symbol in ([symbols] if isinstance(symbols, str) else symbols)
    )
    together: Data = merged([_known(ask(some, **own), own) for some, own in groups], Data)
    return together.select(symbols)


def _known(answer: Data, asked: Mapping[str, Any]) -> Data:
    """Note on an answer what was asked, but for what is of this one question."""
    known = {**answer.fetch_kwargs, **asked}
    known.pop("on_event", None)
    return cast("Data", answer.replace(fetch_kwargs=known))


def _alike(questions: Iterable[tuple[Any, dict[str, Any]]]) -> list[tuple[list[Any], Any]]:
    """Group symbols by what is asked of them."""
    groups: dict[Any, tuple[list[Any], dict[str, Any]]] = {}
    for symbol, asked in questions:
        key = tuple((name, repr(value)) for name, value in sorted(asked.items()))
        groups.setdefault(key, ([], asked))[0].append(symbol)
    return list(groups.values())


def shaped(
    data: Data,
    *,
    tz_localize: Any,
    tz_convert: Any,
    missing_index: str | None,
    missing_columns: str | None,
    wrapper_kwargs: Mapping[str, Any] | None,
) -> Data:
    """Apply VectorBT's own options to an answer: time zone, missing rows, wrapper."""
    options = {
        "tz_localize": tz_localize,
        "tz_convert": tz_convert,
        "missing_index": missing_index,
        "missing_columns": missing_columns,
    }
    defaults = vectorbt_settings["data"]
    options = {n: defaults[n] if value is None else value for n, value in options.items()}
    wrapper, tables = data.wrapper, data.data
    index: Any = data.index
    if options["tz_convert"] is not None:
        zoned = index.tz_convert(to_timezone(options["tz_convert"]))
        tables = {symbol: table.set_axis(zoned) for symbol, table in tables.items()}
        wrapper = wrapper.replace(index=zoned)
    if options["missing_index"] != "nan" and len(tables) > 1:
        own = {symbol: table[own_rows(table)] for symbol, table in tables.items()}
        tables = data.align_index(own, missing=options["missing_index"])
        wrapper = wrapper.replace(index=next(iter(tables.values())).index)
    if wrapper_kwargs:
        wrapper = wrapper.replace(**wrapper_kwargs)
    if wrapper is data.wrapper and options == {name: getattr(data, name) for name in options}:
        return data
    return cast("Data", data.replace(wrapper=wrapper, data=tables, **options))


def ask_on(data: Data, end: Any, kwargs: Mapping[str, Any]) -> list[Any]:
    """Ask for what came after each symbol's own last candle; see `Data.update`.

    Symbols that left off at the same time, and were asked for in the same way, are asked
    for together.
    """
    changes = arguments(kwargs)
    if end is not None:
        changes["end_date"] = end

    def question(symbol: Any, last: Any) -> tuple[Any, dict[str, Any]]:
        before = data.select_symbol_kwargs(symbol, data.fetch_kwargs)
        asked = {name: value for name, value in before.items() if name not in _NOT_AGAIN}
        if last is not None:
            asked["start_date"] = last
        own = data.select_symbol_kwargs(symbol, changes)
        asked = {**asked, "use_cache": False, **own}
        if "exchange_id" not in asked or "timeframe" not in asked:
            raise OptionError(
                "these data do not know which exchange and timeframe they are of; "
                "give both: update(exchange='binance', timeframe='1h')"
            )
        return symbol, asked

    return _answers(_alike(question(symbol, last) for symbol, last in data.last_index.items()))


def _answers(groups: Any) -> list[Any]:
    answers: list[Any] = []
    failed: dict[Any, DataError] = {}
    for symbols, asked in groups:
        try:
            answers.append(ask(symbols, **asked))
        except EmptyIntervalError:
            _log.debug("nothing to update: %s go beyond the end asked for", symbols)
        except DataError as error:
            failed.update(dict.fromkeys(symbols, error))
    if failed and not answers:
        raise next(iter(failed.values()))
    for symbol, reason in failed.items():
        warnings.warn(f"{symbol} was not updated: {reason}", RuntimeWarning, stacklevel=4)
    return answers
