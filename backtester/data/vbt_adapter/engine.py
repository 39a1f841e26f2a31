"""Which VectorBT is there, and the three things the rest of the package asks of it.

VectorBT PRO is used when it can be imported. It is a private package that this project
cannot be tested against, so only what its users show in public is used: its own
`Data.from_data`, and a `_metadata` dict on the wrapper. Its `pull` and `update` are its
own and do not go through this package's pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from backtester.data.candles import Candles
from backtester.data.errors import CorruptDatasetError, NoSymbolsError
from backtester.data.model import Timeframe
from backtester.data.storage import plain
from backtester.data.vbt_adapter.codes import decode
from backtester.data.vbt_adapter.frames import frames_of

__all__ = ["build", "namespace", "rebuild"]


@lru_cache(maxsize=1)
def _pro() -> Any:
    """Import VectorBT PRO; None where it is not installed."""
    return import_module("vectorbtpro") if find_spec("vectorbtpro") else None


def namespace() -> Any:
    """Return what ``from backtester import vbt`` gives: VectorBT PRO, or the extended open one."""
    if (pro := _pro()) is not None:
        return pro
    from backtester.data.vbt_adapter.extended import NAMESPACE

    return NAMESPACE


def build(
    tables: Mapping[str, Candles],
    *,
    timeframe: Timeframe,
    single: bool = False,
    metadata: Mapping[str, Any] | None = None,
    fetch_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Make a VectorBT Data object of candle tables.

    Parameters
    ----------
    tables : mapping of str to Candles
        By symbol, in the order wanted; a table may be empty.
    timeframe : Timeframe
    single : bool
        The symbol was asked for by its bare name: `get` gives Series instead of frames.
    metadata : mapping, optional
        Becomes ``data.wrapper._metadata``.
    fetch_kwargs : mapping, optional
        How the data were asked for, so that `update` can ask on.

    Returns
    -------
    Data
        Index: the sorted union of all open times, named 'Open time', UTC, nanoseconds.
        Columns Open, High, Low, Close, Volume, float64, NaN where a symbol has no candle.

    Raises
    ------
    NoSymbolsError
        `tables` is empty.
    """
    if not tables:
        raise NoSymbolsError("no symbols to build data of")
    index, frames = frames_of(tables)
    if (pro := _pro()) is not None:
        data = pro.Data.from_data(frames)
        data.wrapper._metadata = dict(metadata or {})
        return data
    from backtester.data.vbt_adapter.data import assemble

    return assemble(index, frames, timeframe, single, metadata, fetch_kwargs)


def rebuild(payload: dict[str, Any], source: str = "the data") -> Any:
    """Make the Data object of a payload, as `plain.rebuild_data` promises.

    Raises
    ------
    CorruptDatasetError
        The payload is not one of ours; `path` is `source`.
    """
    plain.check_payload(payload, source)
    if payload["view"] is not None and _pro() is None:
        from backtester.data.vbt_adapter.saved import restore

        return restore(payload, source)
    names = ("exchange", "market_type", "timeframe")
    exchange, market_type, timeframe = (payload[name] for name in names)
    asked = {"exchange_id": exchange, "market_type": market_type}
    try:
        return build(
            {symbol: one.candles for symbol, one in plain.series_of(payload, source).items()},
            timeframe=Timeframe.parse(timeframe),
            metadata=decode(payload["metadata"]),
            fetch_kwargs={name: value for name, value in asked.items() if value is not None},
        )
    except NoSymbolsError:  # an empty dataset is not a damaged one
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise CorruptDatasetError(f"{source}: {error}", path=source) from error
