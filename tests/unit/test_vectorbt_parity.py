"""What open-source VectorBT's `Data` does, ours does: each case runs on both and is compared.

The expected values are never written down here: VectorBT itself gives them. A case is a
function of a namespace (``vectorbt``, or ours) and of a class made on that namespace's
`Data`, as users make them. Its outcome is a value, or an exception with its text, and the
warnings on the way. Where ours means to differ, the case stands in `DEVIATIONS` with what
ours gives; docs/decisions/016 has the reasons.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vectorbt

from backtester import vbt

# Open-source VectorBT asks pandas 3 for what pandas 4 will answer differently.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*inferred_freq"),
    pytest.mark.filterwarnings(r"ignore:isinstance\(obj, DateOffset\)"),
]

NAMES = ("feat0", "feat1", "feat2")


def made_on(base: type) -> Any:
    """Give a user's class on a base: random numbers, shaped and masked as asked."""

    class MyData(base):  # type: ignore[misc, valid-type]
        @classmethod
        def download_symbol(
            cls,
            symbol: Any,
            shape: tuple[int, ...] = (5, 3),
            start: Any = datetime(2020, 1, 1),  # noqa: DTZ001  # a naive index is the case
            columns: Any = None,
            rows: Any = None,
            take: Any = None,
            as_array: bool = False,
            tz: Any = None,
            seed: int = 42,
        ) -> Any:
            number = symbol if isinstance(symbol, int) else len(str(symbol))
            values = np.random.default_rng([seed, number]).random(shape)
            if as_array:
                return values
            index = pd.date_range(start, periods=shape[0], freq="D", tz=tz)
            table: Any = (
                pd.Series(values, index=index, name=columns)
                if values.ndim == 1
                else pd.DataFrame(values, index=index, columns=columns)
            )
            if rows is not None:
                table = table.loc[rows]
            return table if take is None else table.loc[:, take]

        def update_symbol(self, symbol: Any, n: int = 1, **kwargs: Any) -> Any:
            asked = self.select_symbol_kwargs(symbol, self.download_kwargs)
            shape = asked.pop("shape", (5, 3))
            last = self.data[symbol].index[-1]
            if isinstance(last, pd.Timestamp):
                asked["start"] = last.tz_localize(None)
            asked.update(shape=(n, *shape[1:]), seed=asked.get("seed", 42) + 1, **kwargs)
            for mask in ("rows", "take"):
                asked.pop(mask, None) if len(asked.get(mask, ())) != n else None
            return self.download_symbol(symbol, **asked)

    return MyData


SOURCES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "one array": ((0,), {"shape": (5,), "as_array": True}),
    "one wide array": ((0,), {"shape": (5, 3), "as_array": True}),
    "one series": ((0,), {"shape": (5,)}),
    "one named series": ((0,), {"shape": (5,), "columns": "feat0"}),
    "one frame": ((0,), {"shape": (5, 3), "columns": list(NAMES)}),
    "one nameless frame": ((0,), {"shape": (5, 3)}),
    "one column": ((0,), {"shape": (5, 1), "columns": ["feat0"]}),
    "a text": (("AB",), {"columns": list(NAMES)}),
    "a tuple": (((0, 1),), {"columns": list(NAMES)}),
    "list of one": (([0],), {"columns": list(NAMES)}),
    "list of one series": (([0],), {"shape": (5,), "columns": "feat0"}),
    "arrays": (([0, 1],), {"shape": (5,), "as_array": True}),
    "wide arrays": (([0, 1],), {"shape": (5, 3), "as_array": True}),
    "series": (([0, 1],), {"shape": (5,)}),
    "named series": (([0, 1],), {"shape": (5,), "columns": "feat0"}),
    "frames": (([0, 1],), {"columns": list(NAMES)}),
    "nameless frames": (([0, 1],), {}),
    "columns": (([0, 1],), {"shape": (5, 1), "columns": ["feat0"]}),
    "texts": ((["A", "BC"],), {"columns": list(NAMES)}),
    "aware": (([0, 1],), {"columns": list(NAMES), "tz": "UTC"}),
    "localized": (([0, 1],), {"columns": list(NAMES), "tz_localize": "UTC"}),
    "converted": (([0, 1],), {"tz": "UTC", "tz_convert": "Europe/Berlin"}),
    "both zones": (([0],), {"tz_localize": "Asia/Tokyo", "tz_convert": "UTC"}),
    "hours from utc": (([0],), {"tz_localize": 0, "tz_convert": 5}),
    "freq": (([0, 1],), {"wrapper_kwargs": {"freq": "2D"}, "shape": (5,)}),
    "one row": (([0, 1],), {"shape": (1, 3), "columns": list(NAMES)}),
    "empty": (([0, 1],), {"shape": (0, 3), "columns": list(NAMES)}),
}


def masked(kind: str) -> Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]:
    """Sources whose symbols lack some times or columns, which need `symbol_dict`."""

    def source(ns: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        per = ns.symbol_dict
        rows = per({0: [False, True, True, True, True], 1: [True, True, True, True, False]})
        take = per({0: list(NAMES[1:]), 1: list(NAMES[:2])})
        extra: dict[str, Any] = {"rows": rows} if kind != "columns" else {}
        if kind != "index":
            extra["take"] = take
        return ([0, 1],), {"columns": list(NAMES), **extra}

    return source


MASKED = {
    f"missing {kind}: {choice}": (
        masked(kind),
        {f"missing_{one}": choice for one in ("index", "columns") if kind in (one, "both")},
    )
    for kind in ("index", "columns", "both")
    for choice in ("nan", "drop", "raise", "guess", None)
}

VERBS: dict[str, Callable[[Any], Any]] = {
    "self": lambda d: d,
    "get": lambda d: d.get(),
    "get one": lambda d: d.get("feat0"),
    "get keyword": lambda d: d.get(column="feat1"),
    "get some": lambda d: d.get(["feat0", "feat1"]),
    "get by number": lambda d: d.get(1),
    "get list of one": lambda d: d.get(["feat0"]),
    "get by symbols": lambda d: d.get(d.symbols),
    "get by symbol": lambda d: d.get(d.symbols[0]) if len(d.symbols) > 1 else None,
    "get named level": lambda d: d.get(level_name="coin"),
    "concat": lambda d: d.concat(),
    "concat level": lambda d: d.concat(level_name="coin"),
    "concat level by place": lambda d: d.concat("coin"),
    "update": lambda d: d.update(),
    "update more": lambda d: d.update(n=3),
    "update twice": lambda d: d.update(n=2).update(),
    "update one": lambda d: d.update(n=vectorbt.symbol_dict(dict.fromkeys(d.symbols, 2))),
    "iloc": lambda d: d.iloc[1:4],
    "iloc list": lambda d: d.iloc[[0, 2]],
    "iloc one row": lambda d: d.iloc[0],
    "iloc one row kept": lambda d: d.iloc[[1]],
    "iloc mask": lambda d: d.iloc[np.arange(len(d.wrapper.index)) % 2 == 0],
    "iloc column": lambda d: d.iloc[:, 0],
    "iloc columns": lambda d: d.iloc[:, [0, 2]],
    "iloc block": lambda d: d.iloc[1:3, 1:],
    "iloc cell": lambda d: d.iloc[0, 0],
    "iloc reversed": lambda d: d.iloc[::-1],
    "iloc nothing": lambda d: d.iloc[0:0],
    "loc": lambda d: d.loc["2020-01-02":"2020-01-04"],
    "loc open": lambda d: d.loc["2020-01-03":],
    "loc column": lambda d: d.loc[:, "feat1"],
    "loc columns": lambda d: d.loc[:, ["feat2", "feat0"]],
    "loc missing": lambda d: d.loc["2021-01-01"],
    "column": lambda d: d["feat1"],
    "columns": lambda d: d[["feat0", "feat2"]],
    "one column kept": lambda d: d[["feat0"]],
    "unknown column": lambda d: d["nothing"],
    "rows by mask": lambda d: d[np.arange(len(d.wrapper.index)) > 1],
    "xs": lambda d: d.xs("feat1", axis=1),
    "xs row": lambda d: d.xs(d.wrapper.index[1]),
    "select one": lambda d: d.select_one("feat1"),
    "select one by number": lambda d: d.select_one(1),
    "select one alone": lambda d: d.select_one(),
    "stats": lambda d: d.stats(),
    "stats column": lambda d: d.stats(column="feat0"),
    "stats each": lambda d: d.stats(agg_func=None),
    "stats grouped": lambda d: d.stats(group_by=True),
    "stats group": lambda d: d.stats(column="g", group_by=np.array(["f", "g", "g"])),
    "stats some": lambda d: d.stats(["start", "total_symbols"]),
    "stats tags": lambda d: d.stats(tags="wrapper"),
    "stats settings": lambda d: d.stats(settings={"freq": "1h"}, silence_warnings=True),
    "regroup": lambda d: d.regroup(True),
    "regroup each": lambda d: d.regroup(np.array([0, 0, 1])),
    "regroup index": lambda d: d.regroup(np.array([0, 0, 1])).iloc[1:3],
    "regroup column": lambda d: d.regroup(np.array([0, 0, 1]))[0],
    "regroup not": lambda d: d.regroup(None) is d,
    "copy": lambda d: [d.copy(), d.copy() == d, d.copy() is d],
    "deep copy": lambda d: [d.copy("deep"), d.copy("deep") == d],
    "copy as": lambda d: d.copy(cls=type(d).__mro__[1]).symbols,
    "hybrid copy": lambda d: [d.copy("hybrid"), d.copy(copy_mode="hybrid", nested=True) == d],
    "copy unknown": lambda d: d.copy("what"),
    "copy module": lambda d: [copy.copy(d) == d, copy.deepcopy(d) == d],
    "replace": lambda d: d.replace(missing_index="drop"),
    "replace by place": lambda d: d.replace("deep", None, None, tz_convert="x"),
    "replace modes": lambda d: d.replace(copy_mode_="deep", nested_=False, tz_convert="x"),
    "replace unknown": lambda d: d.replace(flavour=1).config["flavour"],
    "update config": lambda d: (d.update_config(missing_index="raise"), d.config)[1][
        "missing_index"
    ],
    "documented": lambda d: len(d.to_doc().splitlines()) > 3,
    "wrapper equal": lambda d: [
        d.wrapper == vectorbt.ArrayWrapper.from_obj(d.data[d.symbols[0]]),
        vectorbt.ArrayWrapper.from_obj(d.data[d.symbols[0]]) == d.wrapper,
        d.wrapper == d.replace().wrapper,
        d.wrapper == d.replace(wrapper=d.wrapper.replace(freq="3D")).wrapper,
        d.wrapper == 1,
    ],
    "wrapper is one": lambda d: isinstance(d.wrapper, vectorbt.ArrayWrapper),
    "wrapper loads": lambda d: type(d.wrapper).loads(d.wrapper.dumps()) == d.wrapper,
    "resolve self": lambda d: d.resolve_self({"freq": "2h"}).wrapper.freq,
    "resolve attr": lambda d: d.resolve_attr("get", cond_kwargs={}),
    "accepted": lambda d: vectorbt.utils.checks.is_instance_of(d, vectorbt.Data),
    "self aliases": lambda d: [d.self_aliases, d.indexing_kwargs],
    "equal": lambda d: [d == d.replace(), d == d.replace(tz_convert="x"), d == 1],
    "loads": lambda d: [type(d).loads(d.dumps()), type(d).loads(d.dumps()) == d],
    "plot": lambda d: d.plot(column="feat0"),
    "plot by number": lambda d: d.plot(column=1),
    "plot unknown": lambda d: d.plot(column="nothing"),
    "plot all": lambda d: d.plot(),
    "plot options": lambda d: d.plot(column="feat0", width=300, trace_kwargs={"name": "n"}),
    "plots some": lambda d: d["feat2"].plots(subplots=["plot"], show_titles=False),
    "plot rebased": lambda d: d.plot(column="feat0", base=10),
    "plot single": lambda d: d["feat1"].plot(),
    "plots": lambda d: d.plots(settings={"column": "feat0"}),
    "plots column": lambda d: d.plots(column="feat0"),
    "config": lambda d: dict(d.config),
    "writeable": lambda d: d.replace().config.keys() == d.config.keys(),
    "metrics": lambda d: [list(d.metrics), list(d.subplots)],
    "defaults": lambda d: [d.stats_defaults, d.plots_defaults],
    "wrapped": lambda d: d.wrapper.wrap(np.ones(d.wrapper.shape)),
}

CORE = ("one series", "one frame", "list of one", "series", "frames", "aware", "one row", "empty")
"""Tried with every verb."""
FEW = (
    "self", "get", "get one", "get some", "get keyword", "get by number", "get list of one",
    "get by symbols", "concat", "update",
    "update more",
    "stats each", "iloc", "iloc column", "loc", "column", "loads", "wrapper equal",
)  # fmt: skip
"""Tried with every other shape."""
PLOTS = [verb for verb in VERBS if "plot" in verb]
"""Tried with two sources only: a figure takes 50 ms."""


def frames_of(ns: Any, data: Any, **kwargs: Any) -> Any:
    return ns.Data.from_data(data, download_kwargs={}, **kwargs)


def daily(count: int = 4, first: str = "2020-01-01", **kwargs: Any) -> pd.DataFrame:
    index = pd.date_range(first, periods=count, **{"freq": "D", **kwargs})
    values = np.random.default_rng(count).random((count, 2))
    return pd.DataFrame(values, index=index, columns=["a", "b"])


def series(count: int, name: Any = None, first: int = 0) -> pd.Series:
    return pd.Series(np.arange(count) + 0.5, index=range(first, first + count), name=name)


def with_setting(ns: Any, name: str, value: Any, work: Callable[[], Any]) -> Any:
    """Run something under another global default of VectorBT."""
    before = ns.settings["data"][name]
    ns.settings["data"][name] = value
    try:
        return work()
    finally:
        ns.settings["data"][name] = before


class DownError(Exception):
    """What a user's own download raises."""


def failing(ns: Any) -> Any:
    class Down(ns.Data):  # type: ignore[misc, name-defined]
        @classmethod
        def download_symbol(cls, symbol: Any, **kwargs: Any) -> Any:
            raise DownError(symbol)

    return Down.download([1, 2])


def strict(ns: Any) -> Any:
    """A class whose constructor takes VectorBT's own arguments and no others."""

    class Strict(made_on(ns.Data)):  # type: ignore[misc]
        def __init__(
            self, wrapper, data, tz_localize, tz_convert, missing_index, missing_columns,
            download_kwargs,
        ):  # fmt: skip  # type: ignore[no-untyped-def]
            super().__init__(
                wrapper, data, tz_localize, tz_convert, missing_index, missing_columns,
                download_kwargs,
            )  # fmt: skip

    return Strict


def counted(ns: Any) -> Any:
    """A class with metrics and a plot of its own."""

    class Counted(made_on(ns.Data)):  # type: ignore[misc]
        _metrics = ns.Data._metrics.merge_with(
            {"rows": {"title": "Rows", "calc_func": lambda self: len(self.wrapper.index)}}
        )

        @property
        def stats_defaults(self) -> Any:
            return {**super().stats_defaults, "metrics": ["rows", "total_symbols"]}

    return Counted


FREE: dict[str, Callable[[Any], Any]] = {
    "abstract download": lambda ns: ns.Data.download_symbol("x"),
    "from arrays": lambda ns: frames_of(ns, {"x": np.ones(3), "y": np.zeros(3)}),
    "from lists": lambda ns: frames_of(ns, {"x": [[1, 2], [3, 4]]}).get(),
    "from series": lambda ns: frames_of(ns, {"x": series(3, "s")}).get(),
    "from frames": lambda ns: frames_of(ns, {"x": daily(), "y": daily()}),
    "from odd steps": lambda ns: frames_of(ns, {"x": daily(5).iloc[[0, 1, 3]]}),
    "from unsorted": lambda ns: frames_of(ns, {"x": daily().iloc[::-1], "y": daily()}),
    "from twice": lambda ns: frames_of(ns, {"x": daily().iloc[[0, 0, 1]]}),
    "from holes": lambda ns: frames_of(ns, {"x": daily(4), "y": daily(4, "2020-01-03")}),
    "from disjoint": lambda ns: frames_of(ns, {"x": daily(2), "y": daily(2, "2021")}).get("a"),
    "from dropped": lambda ns: frames_of(
        ns, {"x": daily(4), "y": daily(4, "2020-01-03")}, missing_index="drop"
    ),
    "from hours": lambda ns: frames_of(ns, {"x": daily(3, freq="h"), "y": daily(3, freq="h")}),
    "from months": lambda ns: frames_of(ns, {"x": daily(3, freq="MS")}).wrapper.index,
    "from minutes": lambda ns: frames_of(ns, {"x": daily(3, freq="min")}).wrapper.freq,
    "from milliseconds": lambda ns: frames_of(ns, {"x": daily(3, freq="ms", unit="ms")}),
    "from mixed zones": lambda ns: frames_of(
        ns, {"x": daily(3, tz="UTC"), "y": daily(3)}, tz_localize="UTC"
    ),
    "from zones": lambda ns: frames_of(ns, {"x": daily(3, tz="Asia/Tokyo")}, tz_convert="UTC"),
    "from naive converted": lambda ns: frames_of(ns, {"x": daily(3)}, tz_convert="UTC"),
    "from a bad zone": lambda ns: frames_of(ns, {"x": daily(3)}, tz_localize="Mars/Base"),
    "from nowhere": lambda ns: ns.Data.from_data({"x": 5}, download_kwargs={}),
    "from scalars": lambda ns: frames_of(ns, {"x": 5, "y": 6}),
    "from cubes": lambda ns: frames_of(ns, {"x": np.ones((2, 2, 2))}),
    "from series and frame": lambda ns: frames_of(ns, {"x": daily()["a"], "y": daily()[["a"]]}),
    "from other names": lambda ns: frames_of(
        ns, {"x": series(3, "p"), "y": series(3, "q")}, missing_columns="nan"
    ),
    "from one name": lambda ns: frames_of(ns, {"x": series(3, "p"), "y": series(3)}),
    "from other lengths": lambda ns: frames_of(ns, {"x": np.ones(3), "y": np.ones(4)}),
    "from texts": lambda ns: frames_of(ns, {"x": pd.DataFrame({"a": ["p", "q"]})}),
    "from types": lambda ns: frames_of(
        ns,
        {
            s: pd.DataFrame({"i": [1, 2], "f": [0.5, 1], "t": ["a", "b"], "b": [True, False]})
            for s in "xy"
        },
    ).concat(),
    "from whole numbers": lambda ns: frames_of(
        ns, {s: pd.DataFrame({"i": [1, 2]}) for s in "xy"}
    ).get(),
    "from levels": lambda ns: frames_of(
        ns,
        {"x": pd.DataFrame(np.ones((2, 2)), columns=pd.MultiIndex.from_product([[1], [2, 3]]))},
    ),
    "wrapper freq": lambda ns: frames_of(
        ns, {"x": daily(5).iloc[[0, 1, 3]]}, wrapper_kwargs={"freq": "1D"}
    ).wrapper.freq,
    "extra options": lambda ns: dict(frames_of(ns, {"x": np.ones(2)}, flavour=1).config)["flavour"],
    "positional": lambda ns: ns.Data.from_data(
        {"x": daily(3)}, "UTC", "Asia/Tokyo", "nan", "raise", {"freq": "D"}, download_kwargs={}
    ),
    "constructor": lambda ns: ns.Data(
        ns.ArrayWrapper.from_obj(daily()), {"x": daily()}, None, None, "nan", "raise", {"k": 1}
    ),
    "constructor keywords": lambda ns: ns.Data(
        ns.ArrayWrapper.from_obj(daily()), data={"x": daily()}, tz_localize=None,
        tz_convert="UTC", missing_index="nan", missing_columns="raise", download_kwargs={},
    ),
    "constructor misfit": lambda ns: ns.Data(
        ns.ArrayWrapper.from_obj(daily()), {"x": daily(), "y": daily(3)},
        None, None, "nan", "raise", {},
    ),
    "constructor no dict": lambda ns: ns.Data(
        ns.ArrayWrapper.from_obj(daily()), [daily()], None, None, "nan", "raise", {}
    ),
    "align index": lambda ns: ns.Data.align_index({"x": series(3), "y": series(3, first=1)}),
    "align index drop": lambda ns: ns.Data.align_index(
        {"x": series(3), "y": series(3, first=1)}, missing="drop"
    ),
    "align index raise": lambda ns: ns.Data.align_index(
        {"x": series(3), "y": series(3, first=1)}, missing="raise"
    ),
    "align index by place": lambda ns: ns.Data.align_index(
        {"x": series(3), "y": series(3, first=1)}, "what"
    ),
    "align index of one": lambda ns: ns.Data.align_index({"x": series(3)}, "what"),
    "align columns": lambda ns: ns.Data.align_columns({"x": daily(), "y": daily()[["a"]]}),
    "align columns nan": lambda ns: ns.Data.align_columns(
        {"x": daily(), "y": daily()[["a"]]}, missing="nan"
    ),
    "align columns drop": lambda ns: ns.Data.align_columns(
        {"x": daily(), "y": daily()[["a"]]}, "drop"
    ),
    "align columns of series": lambda ns: ns.Data.align_columns(
        {"x": series(2, "p"), "y": series(2, "q")}, "nan"
    ),
    "align columns what": lambda ns: ns.Data.align_columns(
        {"x": daily(), "y": daily()[["a"]]}, "what"
    ),
    "symbol kwargs": lambda ns: ns.Data.select_symbol_kwargs(
        "x", {"a": ns.symbol_dict({"x": 1, "y": 2}), "b": ns.symbol_dict({"y": 3}), "c": 4}
    ),
    "symbol dict": lambda ns: [ns.symbol_dict is vectorbt.symbol_dict, ns.symbol_dict(a=1)],
    "kwargs per symbol": lambda ns: made_on(ns.Data).download(
        [0, 1], seed=ns.symbol_dict({0: 1, 1: 2}), shape=ns.symbol_dict({0: (5, 3), 1: (4, 3)})
    ),
    "update per symbol": lambda ns: made_on(ns.Data)
    .download([0, 1])
    .update(n=ns.symbol_dict({0: 1, 1: 3})),
    "download nothing": lambda ns: made_on(ns.Data).download([]),
    "download unhashable": lambda ns: made_on(ns.Data).download({0: 1}),
    "download set": lambda ns: made_on(ns.Data).download({0}),
    "download positional": lambda ns: made_on(ns.Data).download(
        [0], "UTC", "Asia/Tokyo", "nan", "raise", {"freq": "D"}
    ),
    "download unknown option": lambda ns: made_on(ns.Data).download(0, nothing=1),
    "download fails": failing,
    "download kwargs": lambda ns: made_on(ns.Data).download(0, seed=5).download_kwargs,
    "no update": lambda ns: type("D", (made_on(ns.Data),), {"update_symbol": ns.Data.update_symbol})
    .download(0)
    .update(),
    "default index": lambda ns: with_setting(
        ns, "missing_index", "drop",
        lambda: frames_of(ns, {"x": daily(4), "y": daily(4, "2020-01-03")}),
    ),
    "default zone": lambda ns: with_setting(
        ns, "tz_localize", "UTC", lambda: frames_of(ns, {"x": daily(4)})
    ),
    "default columns": lambda ns: with_setting(
        ns, "missing_columns", "nan",
        lambda: frames_of(ns, {"x": daily(4), "y": daily(4)[["a"]]}),
    ),
    "strict constructor": lambda ns: strict(ns).download([0, 1]).update().iloc[1:],
    "strict one": lambda ns: strict(ns).download(0, columns=list(NAMES))["feat0"].copy().get(),
    "own metrics": lambda ns: counted(ns).download([0, 1]).stats(agg_func=None),
    "own metrics are own": lambda ns: [list(counted(ns)._metrics), list(ns.Data._metrics)],
    "updater": lambda ns: updated(ns),
    "synthetic": lambda ns: synthetic(ns),
    "gbm": lambda ns: ns.GBMData.download(
        ["a", "b"], start="2020-01-01", end="2020-01-05", freq="1h", seed=ns.symbol_dict(a=1, b=2)
    ),
    "gbm paths": lambda ns: ns.GBMData.download(
        "a", start="2020-01-01", end="2020-01-03", freq="1h", n_paths=3, seed=1
    ).get(),
    "gbm updated": lambda ns: ns.GBMData.download(
        "a", start="2020-01-01", end="2020-01-03", freq="1h", seed=1
    ).update(end="2020-01-04", seed=2),
    "is data": lambda ns: [
        isinstance(ns.GBMData.download("a", end=86_400_000, freq="1h", seed=1), ns.Data),
        *(issubclass(getattr(ns, name), ns.Data) for name in CUSTOM),
        issubclass(ns.GBMData, ns.SyntheticData),
    ],
    "portfolio": lambda ns: ns.Portfolio.from_holding(
        frames_of(ns, {"x": daily(), "y": daily()}).get("a"), freq="1D"
    ).total_return(),
}  # fmt: skip

CUSTOM = ("SyntheticData", "GBMData", "YFData", "BinanceData", "CCXTData", "AlpacaData")


def updated(ns: Any) -> Any:
    updater = ns.DataUpdater(made_on(ns.Data).download([0, 1], columns=list(NAMES)))
    updater.update(n=2)
    return [updater.data, updater.config["data"] is updater.data]


def synthetic(ns: Any) -> Any:
    class Ramp(ns.SyntheticData):  # type: ignore[misc, name-defined]
        @classmethod
        def generate_symbol(cls, symbol: Any, index: pd.Index, slope: float = 1.0) -> pd.Series:
            return pd.Series(np.arange(len(index)) * slope, index=index)

    data = Ramp.download(["a", "b"], start="2020-01-01", end="2020-01-05", freq="1D", slope=2)
    return [data, data.update(end="2020-01-07")]


# --------------------------------------------------------------------------- comparing


def described(value: Any) -> Any:
    """Take Data objects and figures apart into what can be compared by value."""
    if isinstance(value, vectorbt.Data):
        names = ("symbols", "tz_localize", "tz_convert", "missing_index", "missing_columns")
        return {
            "data": dict(value.data),
            "wrapper": described(value.wrapper),
            "download_kwargs": value.download_kwargs,
            **{name: getattr(value, name) for name in names},
        }
    if isinstance(value, vectorbt.ArrayWrapper):
        return {"config": dict(value.config), "freq": value.freq, "shape": value.shape}
    if hasattr(value, "to_plotly_json"):
        figure = value.to_plotly_json()
        traces = [{k: v for k, v in one.items() if k != "uid"} for one in figure["data"]]
        return described({**figure, "data": traces})
    if isinstance(value, dict):
        return {key: described(one) for key, one in value.items()}
    return [described(one) for one in value] if isinstance(value, list | tuple) else value


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal down to types, names, zones, steps and bits."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(theirs, pd.DataFrame):
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True, check_freq=True)
    elif isinstance(theirs, pd.Series):
        pd.testing.assert_series_equal(ours, theirs, check_exact=True, check_freq=True)
    elif isinstance(theirs, pd.Index):
        pd.testing.assert_index_equal(ours, theirs, exact=True)
        assert getattr(ours, "freq", None) == getattr(theirs, "freq", None)
    elif isinstance(theirs, np.ndarray):
        np.testing.assert_array_equal(ours, theirs)
    elif inspect.isfunction(theirs):
        assert inspect.isfunction(ours)
    else:
        assert ours == theirs or (ours != ours and theirs != theirs)  # NaN
        assert type(ours) is type(theirs)


def outcome(work: Callable[[], Any]) -> dict[str, Any]:
    """Run something: what came, and what users were told on the way."""
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = {"value": described(work())}
        except Exception as error:  # noqa: BLE001  # whatever theirs raises is the expected value
            # What a KeyError of ours says beyond the key helps, and nobody reads it by program.
            text = "" if isinstance(error, KeyError) else str(error)
            result = {"raised": type(error).__name__, "text": text}
    told = [str(one.message) for one in caught if one.category in (UserWarning, RuntimeWarning)]
    return {**result, "told": told}


# --------------------------------------------------------------------------- the tests


def source(ns: Any, name: str) -> Any:
    if name in SOURCES:
        args, kwargs = SOURCES[name]
    else:
        build, choices = MASKED[name]
        args, kwargs = build(ns)
        kwargs = {**kwargs, **choices}
    return made_on(ns.Data).download(*args, **kwargs)


def is_empty(found: dict[str, Any]) -> bool:
    """VectorBT: IndexError, from deep inside."""
    return all(len(table) == 0 for table in found["value"]["data"].values())


def is_refused(found: dict[str, Any]) -> bool:
    """VectorBT: another column, or a row, than was asked for."""
    return bool(found["raised"] == "KeyError")


def keeps_floats(found: dict[str, Any]) -> bool:
    """VectorBT: columns of objects."""
    tables = found["value"]
    if not isinstance(tables, list):
        tables = tables.values() if isinstance(tables, dict) else [tables]
    return {dtype for table in tables for dtype in table.dtypes} == {np.dtype(np.float64)}


def keeps_types(found: dict[str, Any]) -> bool:
    """VectorBT: texts become objects."""
    kinds = [str(table.dtypes.iloc[0]) for table in found["value"].values()]
    return kinds == ["int64", "float64", "str", "bool"]


DEVIATIONS: dict[tuple[str, str], Callable[[dict[str, Any]], bool]] = {
    # An empty selection is an empty object.
    **{(name, "iloc nothing"): is_empty for name in CORE},
    **{(name, "loc"): is_empty for name in ("one row", "wide arrays", "one wide array")},
    **{("one row", verb): is_empty for verb in ("iloc", "iloc block", "loc open", "rows by mask")},
    **{
        ("empty", verb): is_empty
        for verb in (
            "iloc", "iloc mask", "iloc columns", "iloc block", "iloc reversed", "loc", "loc open",
            "loc columns", "columns", "one column kept", "rows by mask",
        )
    },
    # Features keep their types, where VectorBT's go through objects.
    **{
        ("empty", verb): keeps_floats
        for verb in VERBS
        if verb.startswith(("get", "concat", "resolve attr")) and "get by" not in verb
    },
    ("free", "from types"): keeps_types,
    # What `get` gives is what was asked for: never another column, never a row.
    **{
        (name, verb): is_refused
        for name in ("named series", "columns", "missing columns: drop", "missing both: drop")
        for verb in ("get one", "get keyword", "get some")
        if (name.startswith("missing")) == (verb == "get one") or verb == "get some"
    },
    ("one array", "get by number"): is_refused,
    **{(f"missing {kind}: drop", "get list of one"): is_refused for kind in ("columns", "both")},
    # A Series has a name too, its own or 0.
    **{
        key: lambda found: found["value"].shape == (5, 1)
        for key in (
            ("one array", "get by symbols"),
            ("one series", "get by symbols"),
            ("one named series", "get list of one"),
            ("list of one series", "get list of one"),
        )
    },
    **{
        (name, "get one"): lambda found: found["value"].name == "feat0"
        for name in ("one named series", "list of one series")
    },
    # Nothing to make data of is said, not stumbled over.
    ("free", "download nothing"): lambda found: found["raised"] == "NoSymbolsError",
}  # fmt: skip


def check(name: str, verb: str) -> None:
    if (name, verb) in DEVIATIONS:
        assert DEVIATIONS[name, verb](outcome(lambda: VERBS[verb](source(vbt, name))))
    else:
        theirs = outcome(lambda: VERBS[verb](source(vectorbt, name)))
        found = outcome(lambda: VERBS[verb](source(vbt, name)))
        assert found.keys() == theirs.keys(), (found, theirs)
        assert_same(found, theirs)


@pytest.mark.parametrize("name", [*SOURCES, *MASKED])
def test_every_verb_on_every_shape_is_as_in_vectorbt(name: str) -> None:
    """Each public method, with its arguments in every form, whatever a user's class returns."""
    for verb in VERBS if name in CORE else FEW:
        if verb not in PLOTS:
            try:
                check(name, verb)
            except AssertionError as error:
                raise AssertionError(f"{verb}: {error}") from error


@pytest.mark.parametrize("name", ["frames", "one frame"])
@pytest.mark.parametrize("verb", PLOTS)
def test_every_plot_is_as_in_vectorbt(verb: str, name: str) -> None:
    """The same figure: traces, layout and all."""
    check(name, verb)


@pytest.mark.parametrize("name", FREE)
def test_every_way_to_data_is_as_in_vectorbt(name: str) -> None:
    """Constructors, class methods, settings, and the classes that come with VectorBT."""
    if ("free", name) in DEVIATIONS:
        assert DEVIATIONS["free", name](outcome(lambda: FREE[name](vbt)))
        return
    theirs, found = outcome(lambda: FREE[name](vectorbt)), outcome(lambda: FREE[name](vbt))
    assert found.keys() == theirs.keys(), (found, theirs)
    assert_same(found, theirs)


def methods(cls: type) -> dict[str, Any]:
    """Give the public methods of a class."""
    found = {name: getattr(cls, name) for name in dir(cls) if not name.startswith("_")}
    return {name: one for name, one in found.items() if callable(one)}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (vbt.Data, vectorbt.Data),
        (type(vbt.Data.from_data({"x": np.ones(2)}).wrapper), vectorbt.ArrayWrapper),
        (vbt.Portfolio, vectorbt.Portfolio),
        (vbt.PF, vectorbt.Portfolio),
    ],
    ids=["Data", "Wrapper", "Portfolio", "PF"],
)
def test_every_method_takes_the_arguments_of_vectorbts(ours: type, theirs: type) -> None:
    """By place and by name; so code written for theirs can call ours."""
    assert methods(ours).keys() >= methods(theirs).keys()
    for name, method in methods(theirs).items():
        wanted = inspect.signature(method).parameters.values()
        by_place = [one for one in wanted if one.kind is one.POSITIONAL_OR_KEYWORD]
        by_name = [one.name for one in wanted if one.kind is one.KEYWORD_ONLY]
        taken = inspect.signature(getattr(ours, name))
        taken.bind(*by_place, **dict.fromkeys(by_name))
        first = by_place[:1] if "self" in (one.name for one in by_place[:1]) else []
        names = [one.name for one in by_place if one not in first]
        taken.bind(*first, **dict.fromkeys([*names, *by_name]))
