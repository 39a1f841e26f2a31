"""Putting Data objects together, symbol by symbol and row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import pandas as pd
from vectorbt.data.base import Data as _OpenData
from vectorbt.data.base import symbol_dict

from backtester.data.errors import OptionError
from backtester.data.model import Timeframe
from backtester.data.vbt_adapter.frames import metadata_of, own_rows
from backtester.data.vbt_adapter.wrapper import Wrapper

__all__ = ["check_markets", "common_class", "merged"]

_CHOICES = ("nan", "drop", "raise")
_ACCOUNTS = ("failures", "forming")
"""Notes of the pipeline about one answer: what it is silent about has passed."""


def common_class(objects: Sequence[Any], least: type) -> type:
    """Return the most specific class that all are instances of, and `least` where that is none."""
    common = next(c for c in type(objects[0]).__mro__ if all(isinstance(d, c) for d in objects))
    return common if issubclass(common, least) else least


def merged(
    objects: Sequence[Any],
    least: type,
    missing_index: str | None = None,
    missing_columns: str | None = None,
) -> Any:
    """Merge objects into one of their common class; see `Data.merge`."""
    _check(objects, missing_index, missing_columns)
    cls = common_class(objects, least)
    template: Any = next((data for data in objects if type(data) is cls), objects[0])
    pieces = _pieces(objects)
    columns = _columns(pieces, missing_columns or "raise")
    if columns is not None:
        pieces = {
            symbol: [_with_columns(piece, columns) for piece in parts]
            for symbol, parts in pieces.items()
        }
    combined = {symbol: reduce(_over, parts) for symbol, parts in pieces.items()}
    index = _index(combined, missing_index or "nan").rename(objects[0].wrapper.index.name)
    data = {symbol: _on(piece, index) for symbol, piece in combined.items()}
    return template.replace(
        cls_=cls,
        wrapper=_wrapper(objects, template, next(iter(data.values()))),
        data=data,
        single_key=all(getattr(d, "single_key", len(d.symbols) == 1) for d in objects),
        fetch_kwargs=_options(objects, "fetch_kwargs"),
        download_kwargs=_options(objects, "download_kwargs"),
    )


def _check(objects: Sequence[Any], *choices: str | None) -> None:
    if not objects:
        raise OptionError("nothing to merge")
    for data in objects:
        if not isinstance(data, _OpenData):
            raise OptionError(f"cannot merge a {type(data).__name__}; only VectorBT data")
    for choice in choices:
        if choice not in (None, *_CHOICES):
            raise OptionError(f"unknown choice {choice!r}; use one of {', '.join(_CHOICES)}")
    asked = [getattr(data, "fetch_kwargs", {}).get("timeframe") for data in objects]
    timeframes = {Timeframe.parse(one) for one in asked if isinstance(one, str)}
    if len(timeframes) > 1:
        raise OptionError(
            f"cannot merge data of different timeframes: {', '.join(sorted(map(str, timeframes)))}"
        )


def check_markets(objects: Sequence[Any]) -> None:
    """Refuse to take candles of two markets for those of one, because both have the same name.

    Raises
    ------
    OptionError
        Naming the symbol and the markets.
    """
    markets: dict[Any, str] = {}
    for data in objects:
        for symbol in data.symbols:
            asked = data.select_symbol_kwargs(symbol, getattr(data, "fetch_kwargs", {}))
            if "exchange_id" not in asked or "market_type" not in asked:
                continue
            market = f"{asked['exchange_id']} {asked['market_type']}"
            other = markets.setdefault(symbol, market)
            if other != market:
                raise OptionError(
                    f"{symbol} is a market of {other} in one and of {market} in another; "
                    "ask for them by different names"
                )


def _pieces(objects: Sequence[Any]) -> dict[Any, list[Any]]:
    """List the frames of each symbol, in the order of the objects, all in one time zone."""
    zones = [getattr(data.wrapper.index, "tz", None) for data in objects]
    zone = next((zone for zone in zones if zone is not None), None)
    pieces: dict[Any, list[Any]] = {}
    for data in objects:
        for symbol, frame in data.data.items():
            pieces.setdefault(symbol, []).append(_in_zone(frame, zone))
    return pieces


def _in_zone(frame: Any, zone: Any) -> Any:
    index = frame.index
    if zone is None or not isinstance(index, pd.DatetimeIndex) or index.tz == zone:
        return frame
    aware = index.tz_localize("UTC") if index.tz is None else index
    return frame.set_axis(aware.tz_convert(zone))


def _columns(pieces: Mapping[Any, list[Any]], missing: str) -> pd.Index | None:
    """Decide the columns of all frames; None when all agree already."""
    frames = [piece for parts in pieces.values() for piece in parts]
    first = frames[0]
    if all(type(f) is type(first) and _names(f).equals(_names(first)) for f in frames):
        return None
    names = [_names(frame) for frame in frames]
    union: pd.Index = reduce(lambda a, b: a.append(b.difference(a, sort=False)), names)
    shared = union[[all(name in one for one in names) for name in union]]
    if missing == "raise" and len(shared) < len(union):
        lacking = ", ".join(map(str, union.difference(shared, sort=False)))
        raise ValueError(f"not all symbols have the columns {lacking}")
    return shared if missing == "drop" else union


def _names(piece: Any) -> pd.Index:
    return piece.columns if isinstance(piece, pd.DataFrame) else pd.Index([piece.name])


def _with_columns(piece: Any, columns: pd.Index) -> Any:
    frame = piece if isinstance(piece, pd.DataFrame) else piece.to_frame()
    return frame if frame.columns.equals(columns) else frame.reindex(columns=columns)


def _over(earlier: Any, later: Any) -> Any:
    """Combine two frames of one symbol: the later one's own rows win."""
    index = _united(earlier.index, later.index)
    rows = pd.concat([earlier[own_rows(earlier)], later[own_rows(later)]])
    rows = rows[~rows.index.duplicated(keep="last")].sort_index()
    return _on(rows, index)


def _united(first: pd.Index, second: pd.Index) -> pd.Index:
    return first if first.equals(second) else first.union(second)


def _index(combined: Mapping[Any, Any], missing: str) -> pd.Index:
    pieces = list(combined.values())
    if missing == "nan":
        return reduce(_united, (piece.index for piece in pieces))
    own = [piece.index[own_rows(piece)] for piece in pieces]
    shared: pd.Index = reduce(lambda a, b: a if a.equals(b) else a.intersection(b), own)
    if missing == "raise" and any(len(one) != len(shared) for one in own):
        raise ValueError("not all symbols have the same index")
    return shared


def _on(piece: Any, index: pd.Index) -> Any:
    # One index object for all: VectorBT compares the indexes of all symbols.
    return piece.set_axis(index) if piece.index.equals(index) else piece.reindex(index)


def _wrapper(objects: Sequence[Any], template: Any, frame: Any) -> Wrapper:
    steps = [data.wrapper.config["freq"] for data in objects]
    wrapper = Wrapper.of(template.wrapper).replace(
        index=frame.index,
        columns=_names(frame),
        ndim=frame.ndim,
        freq=next((step for step in steps if step is not None), None),
    )
    wrapper._metadata = _metadata(objects)
    return wrapper


def _metadata(objects: Sequence[Any]) -> dict[str, Any]:
    """Unite notes; of two dictionaries under one name the entries, else the later wins."""
    united: dict[str, Any] = {}
    for data in objects:
        for name, value in metadata_of(data).items():
            before = united.get(name)
            if isinstance(value, Mapping) and isinstance(before, Mapping):
                passed = data.symbols if name in _ACCOUNTS else ()
                kept = {key: note for key, note in before.items() if key not in passed}
                united[name] = {**kept, **value}
            else:
                united[name] = value
    return united


def _options(objects: Sequence[Any], name: str) -> dict[str, Any]:
    """Unite what the objects were asked; what differs is kept per symbol."""
    by_symbol: dict[Any, dict[str, Any]] = {}
    for data in objects:
        for symbol in data.symbols:
            options = data.select_symbol_kwargs(symbol, getattr(data, name, {}))
            by_symbol[symbol] = {**by_symbol.get(symbol, {}), **options}
    united: dict[str, Any] = {}
    for option in dict.fromkeys(key for options in by_symbol.values() for key in options):
        values = {s: options[option] for s, options in by_symbol.items() if option in options}
        first = next(iter(values.values()))
        same = len(values) == len(by_symbol) and all(
            v is first or v == first for v in values.values()
        )
        united[option] = first if same else symbol_dict(values)
    return united
