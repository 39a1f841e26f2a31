"""How `Data.pull` and `Data.update` ask this package's pipeline."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backtester.data.errors import DataError, EmptyIntervalError, OptionError

if TYPE_CHECKING:
    from backtester.data.vbt_adapter.data import Data

__all__ = ["arguments", "ask", "ask_on"]

_log = logging.getLogger(__name__)

_ALIASES = {"exchange": "exchange_id", "start": "start_date", "end": "end_date"}
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
    "on_event",
)


def ask(symbols: Any, **kwargs: Any) -> Any:
    """Put a question to the pipeline; the one place where this package's VectorBT side does."""
    # Imported here: the front door imports this package to build its answer.
    from backtester.data.fetching import data_fetcher

    return data_fetcher.fetch_data(symbols, **kwargs)


def arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Put VectorBT's names of options into those of `fetch_data`.

    Raises
    ------
    OptionError
        An option nobody knows, or one given under both its names.
    """
    known: dict[str, Any] = {}
    for name, value in kwargs.items():
        own = _ALIASES.get(name, name)
        if own not in _KNOWN:
            raise OptionError(
                f"unknown option {name!r}; known are {', '.join([*_ALIASES, *_KNOWN])}", option=name
            )
        if own in known:
            raise OptionError(f"{name!r} is given twice, under both its names", option=name)
        known[own] = value
    return known


def ask_on(data: Data, end: Any, kwargs: Mapping[str, Any]) -> list[Any]:
    """Ask for what came after each symbol's own last candle; see `Data.update`.

    Symbols that left off at the same time, and were asked for in the same way, are asked
    for together.
    """
    changes = arguments(kwargs)
    if end is not None:
        changes["end_date"] = end
    groups: dict[Any, tuple[list[Any], dict[str, Any]]] = {}
    for symbol, last in data.last_index.items():
        before = data.select_symbol_kwargs(symbol, data.fetch_kwargs)
        asked = {name: value for name, value in before.items() if name != "end_date"}
        if last is not None:
            asked["start_date"] = last
        asked = {**asked, "use_cache": False, **changes}
        if "exchange_id" not in asked or "timeframe" not in asked:
            raise OptionError(
                "these data do not know which exchange and timeframe they are of; "
                "give both: update(exchange='binance', timeframe='1h')"
            )
        key = (last, tuple((name, repr(value)) for name, value in sorted(asked.items())))
        groups.setdefault(key, ([], asked))[0].append(symbol)
    return _answers(groups.values())


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
