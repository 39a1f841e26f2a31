"""Open-source VectorBT under the names that VectorBT users know: ``vbt.Data``, ``vbt.PF``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pandas as pd
import vectorbt
from vectorbt.data.base import Data as _OpenData
from vectorbt.portfolio.base import Portfolio as _OpenPortfolio

from backtester.data.vbt_adapter.data import Data

__all__ = [
    "NAMESPACE",
    "PF",
    "AlpacaData",
    "BinanceData",
    "GBMData",
    "Portfolio",
    "SyntheticData",
    "YFData",
]


# --------------------------------------------------------------------------- portfolios


class Portfolio(_OpenPortfolio):  # type: ignore[misc]  # VectorBT ships no types
    """VectorBT's `Portfolio`, also of Data objects.

    Where a close is asked for, a Data object may stand: its closes are used, and its
    timeframe where no `freq` is given.
    """

    @classmethod
    def from_signals(cls, close: Any, *args: Any, **kwargs: Any) -> Any:
        """Simulate entries and exits; see VectorBT."""
        return super().from_signals(*_closes(close, kwargs), *args, **kwargs)

    @classmethod
    def from_holding(cls, close: Any, **kwargs: Any) -> Any:
        """Simulate buying at the start and holding; see VectorBT."""
        return super().from_holding(*_closes(close, kwargs), **kwargs)

    @classmethod
    def from_random_signals(cls, close: Any, *args: Any, **kwargs: Any) -> Any:
        """Simulate random entries and exits; see VectorBT."""
        return super().from_random_signals(*_closes(close, kwargs), *args, **kwargs)

    @classmethod
    def from_orders(cls, close: Any, *args: Any, **kwargs: Any) -> Any:
        """Simulate orders; see VectorBT."""
        return super().from_orders(*_closes(close, kwargs), *args, **kwargs)

    @classmethod
    def from_order_func(cls, close: Any, *args: Any, **kwargs: Any) -> Any:
        """Simulate what a function orders; see VectorBT."""
        return super().from_order_func(*_closes(close, kwargs), *args, **kwargs)


def _closes(close: Any, options: dict[str, Any]) -> tuple[Any]:
    """Return what VectorBT takes as closes, and note the step of the index in the options."""
    if not isinstance(close, _OpenData):
        return (close,)
    data = close if isinstance(close, Data) else close.replace(cls_=Data)
    if options.get("freq") is None:
        options["freq"] = data.freq
    return (data.get("Close" if len(data.features) > 1 else data.features[0]),)


# --------------------------------------------------------------------------- the value


class _Callable:
    """A pandas object that is also the method which gave it.

    Everything done with it gives ordinary pandas objects.
    """

    _method: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._method(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        # VectorBT's statistics look up which arguments a method takes.
        return inspect.signature(self._method)


class _CallableSeries(_Callable, pd.Series):
    def __reduce__(self) -> tuple[Any, ...]:
        return pd.Series, (pd.Series(self),)


class _CallableFrame(_Callable, pd.DataFrame):
    def __reduce__(self) -> tuple[Any, ...]:
        return pd.DataFrame, (pd.DataFrame(self),)


class _Value:
    """The attribute `PF.value`: a Series or frame that can be called like VectorBT's method."""

    def __get__(self, portfolio: Any, owner: type) -> Any:
        if portfolio is None:
            return _OpenPortfolio.value  # VectorBT asks the class whether it is a method
        value = portfolio.portfolio_value()
        kind = _CallableFrame if isinstance(value, pd.DataFrame) else _CallableSeries
        result = kind(value)
        # Around pandas' own __setattr__, which takes new names for columns.
        object.__setattr__(result, "_method", portfolio.portfolio_value)
        return result


class PF(Portfolio):
    """`Portfolio` with `value` as an attribute that is the method too."""

    value = _Value()

    def portfolio_value(
        self,
        group_by: Any = None,
        in_sim_order: bool = False,
        wrap_kwargs: Any = None,
        engine: str | None = None,
    ) -> Any:
        """Return the value over time; VectorBT's own method `value`."""
        # Below its cache, which would look `value` up on this object again.
        return _OpenPortfolio.value.func(self, group_by, in_sim_order, wrap_kwargs, engine)


# --------------------------------------------------------------------------- sources


class SyntheticData(Data, vectorbt.SyntheticData):  # type: ignore[misc]
    """VectorBT's `SyntheticData` with the verbs of `Data`."""


class GBMData(SyntheticData, vectorbt.GBMData):  # type: ignore[misc]
    """VectorBT's `GBMData` with the verbs of `Data`."""


class YFData(Data, vectorbt.YFData):  # type: ignore[misc]
    """VectorBT's `YFData` with the verbs of `Data`."""


class BinanceData(Data, vectorbt.BinanceData):  # type: ignore[misc]
    """VectorBT's `BinanceData` with the verbs of `Data`; it does not go through our pipeline."""


class AlpacaData(Data, vectorbt.AlpacaData):  # type: ignore[misc]
    """VectorBT's `AlpacaData` with the verbs of `Data`."""


# --------------------------------------------------------------------------- the namespace


class _Namespace(ModuleType):
    """Everything of VectorBT, with this package's classes in place of some."""

    def __getattr__(self, name: str) -> Any:
        return getattr(vectorbt, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(vectorbt)})


NAMESPACE: Any = _Namespace("backtester.vbt", "Open-source VectorBT with the verbs of its users.")
NAMESPACE.Data = Data
NAMESPACE.CCXTData = Data  # VectorBT's own stops at the first empty page, without an error
NAMESPACE.PF = PF
NAMESPACE.Portfolio = Portfolio
for _source in (SyntheticData, GBMData, YFData, BinanceData, AlpacaData):
    setattr(NAMESPACE, _source.__name__, _source)
