"""What VectorBT objects hold beside candles, as plain values and back.

Plain values stay as they are; others become a dictionary with a tag. Decoding calls
nothing but the constructors named here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, cast
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from backtester.data.errors import DatasetWriteError

__all__ = ["decode", "encode", "without_secrets"]

_TAG = "__type__"
_NUMERIC = "biufm"


# --------------------------------------------------------------------------- values


def encode(value: Any, what: str = "the data") -> Any:
    """Make a value plain.

    Raises
    ------
    DatasetWriteError
        It is neither plain nor a time, a duration, a time zone, an index or an array.
    """
    if value is None or isinstance(value, bool | bytes):
        return value
    for base, exact in ((str, str.__str__), (int, int), (float, float)):
        if isinstance(value, base):
            return exact(value)
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value.item()
    if isinstance(value, Mapping):
        return _encode_mapping(value, what)
    if isinstance(value, list | tuple):
        items = [encode(item, what) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return _encode_odd(value, what)


def _encode_mapping(value: Mapping[Any, Any], what: str) -> dict[Any, Any]:
    if _TAG in value:
        raise DatasetWriteError(f"{what} cannot be saved: {_TAG!r} is a reserved name", path=None)
    entries = {
        _encode_key(key, what): encode(item, f"{what}[{key!r}]") for key, item in value.items()
    }
    # VectorBT's own dictionary of one value per symbol.
    return (
        _tagged("by_symbol", values=entries) if type(value).__name__ == "symbol_dict" else entries
    )


def _encode_key(key: Any, what: str) -> Any:
    plain = encode(key, what)
    if isinstance(plain, list | dict):
        raise DatasetWriteError(f"{what} cannot be saved: {key!r} as a name in it", path=None)
    return plain


def _encode_odd(value: Any, what: str) -> dict[str, Any]:
    if isinstance(value, datetime) and value is not pd.NaT:
        kind = "stamp" if isinstance(value, pd.Timestamp) else "time"
        return _tagged(kind, index=_encode_index(pd.DatetimeIndex([value]), what))
    if isinstance(value, pd.Timedelta):
        return _tagged("step", ns=value.value)
    if isinstance(value, timedelta):
        return _tagged("duration", of=[value.days, value.seconds, value.microseconds])
    if isinstance(value, tzinfo):
        return _tagged("zone", zone=_encode_zone(value, what))
    if isinstance(value, pd.tseries.offsets.BaseOffset):
        return _tagged("frequency", name=value.freqstr)
    if isinstance(value, pd.Index):
        return _tagged("index", **_encode_index(value, what))
    if isinstance(value, np.ndarray) and value.dtype.kind in _NUMERIC:
        return _tagged("array", shape=value.shape, **_encode_numbers(value.ravel()))
    raise DatasetWriteError(
        f"{what} cannot be saved: a {type(value).__name__} is no plain value; "
        "take it out first, as in data.replace(download_kwargs={})",
        path=None,
    )


def _tagged(tag: str, /, **parts: Any) -> dict[str, Any]:
    return {_TAG: tag, **parts}


def decode(value: Any) -> Any:
    """Turn a plain value back.

    Raises
    ------
    LookupError, TypeError, ValueError
        It is not one that `encode` makes.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if isinstance(value, tuple):
        return tuple(decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    if _TAG not in value:
        return {key: decode(item) for key, item in value.items()}
    return _DECODERS[value[_TAG]](value)


def _decode_by_symbol(value: Mapping[str, Any]) -> Any:
    from vectorbt.data.base import symbol_dict

    return symbol_dict({key: decode(item) for key, item in value["values"].items()})


def _decode_array(value: Mapping[str, Any]) -> Any:
    return _decode_numbers(value).reshape(value["shape"])


# --------------------------------------------------------------------------- indexes


def _encode_index(index: pd.Index, what: str) -> dict[str, Any]:
    """Encode an index, or a column taken as one."""
    name = {"names": encode(list(index.names), what)}
    if isinstance(index, pd.RangeIndex):
        return {"kind": "range", "range": [index.start, index.stop, index.step], **name}
    if isinstance(index, pd.DatetimeIndex):
        return {
            "kind": "times",
            "unit": index.unit,
            "zone": None if index.tz is None else _encode_zone(index.tz, what),
            "freq": index.freqstr,
            **_encode_numbers(index.asi8),
            **name,
        }
    if isinstance(index.dtype, np.dtype) and index.dtype.kind in _NUMERIC:
        return {"kind": "numbers", **_encode_numbers(index.to_numpy()), **name}
    if index.dtype == object or index.dtype == "str":
        word = "object" if index.dtype == object else "str"
        return {"kind": "labels", "dtype": word, "items": encode(list(index), what), **name}
    raise DatasetWriteError(f"{what} cannot be saved: values of type {index.dtype}", path=None)


def _decode_index(value: Mapping[str, Any]) -> pd.Index:
    kind, names = value["kind"], decode(value["names"])
    if kind == "range":
        index: pd.Index = pd.RangeIndex(*value["range"])
    elif kind == "times":
        stamps = _decode_numbers(value).view(f"datetime64[{value['unit']}]")
        index = pd.DatetimeIndex(stamps)
        if value["zone"] is not None:
            index = index.tz_localize("UTC").tz_convert(_decode_zone(value["zone"]))
        if value["freq"] is not None:
            index = pd.DatetimeIndex(index, freq=value["freq"])
    elif kind == "numbers":
        index = pd.Index(_decode_numbers(value))
    elif kind == "labels":
        items = decode(value["items"])
        if len(names) > 1:
            return pd.MultiIndex.from_tuples(items, names=names)
        index = pd.Index(items, dtype=value["dtype"], tupleize_cols=False)
    else:
        raise ValueError("an index of no known kind")
    return index.rename(names[0])


def _encode_numbers(values: Any) -> dict[str, Any]:
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return {"dtype": little.dtype.str, "data": little.tobytes()}


def _decode_numbers(value: Mapping[str, Any]) -> Any:
    dtype = np.dtype(str(value["dtype"]))
    if dtype.kind not in _NUMERIC:
        raise ValueError("an array of no known type")
    if not value["data"]:
        return np.empty(0, dtype.newbyteorder("="))
    return np.frombuffer(value["data"], dtype).astype(dtype.newbyteorder("="), copy=False)


def _encode_zone(zone: tzinfo, what: str) -> str | float:
    if zone is UTC:
        return "UTC"
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)  # zoneinfo, pytz
    if isinstance(name, str):
        return name
    offset = zone.utcoffset(None)
    if offset is None:
        raise DatasetWriteError(f"{what} cannot be saved: the time zone {zone!r}", path=None)
    return offset.total_seconds()


def _decode_zone(zone: str | float) -> tzinfo:
    if zone == "UTC":
        return UTC
    return ZoneInfo(zone) if isinstance(zone, str) else timezone(timedelta(seconds=zone))


_DECODERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "by_symbol": _decode_by_symbol,
    "stamp": lambda value: _decode_index(value["index"])[0],
    "time": lambda value: _decode_index(value["index"])[0].to_pydatetime(),
    "step": lambda value: pd.Timedelta(value["ns"], "ns"),
    "duration": lambda value: timedelta(*value["of"]),
    "zone": lambda value: _decode_zone(value["zone"]),
    "frequency": lambda value: pd.tseries.frequencies.to_offset(value["name"]),
    "index": _decode_index,
    "array": _decode_array,
}


# --------------------------------------------------------------------------- secrets

# What ccxt calls credentials (`requiredCredentials` in its base Exchange), lower case.
_SECRETS = {
    "apikey", "secret", "uid", "accountid", "login", "password", "twofa", "privatekey",
    "walletaddress", "token",
}  # fmt: skip
_PASSWORD_IN_URL = re.compile(r"://[^/\s@]*:[^/\s@]*@")


def without_secrets(value: Any) -> Any:
    """Leave keys to accounts, and addresses with a password in them, out of a value.

    Files of candles are passed around; keys must not travel with them.
    """
    if isinstance(value, Mapping):
        kept = {
            name: without_secrets(item)
            for name, item in value.items()
            if not (isinstance(name, str) and name.casefold() in _SECRETS)
            and not (isinstance(item, str) and _PASSWORD_IN_URL.search(item))
        }
        if type(value).__name__ == "symbol_dict":
            return cast("Callable[[Any], Any]", type(value))(kept)
        return kept
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return value
