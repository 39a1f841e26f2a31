"""Data objects in files: as plain payloads, and back.

Candles are written as series, each symbol with its own open times and no padding, just
as the stores write them; everything else an object can hold (other columns, other
types, any index) is written column by column into the payload's ``view``::

    {'index': ..., 'columns': ..., 'symbols': [...], 'ndim': 1 | 2,
     'frames': None | [{'name': ..., 'columns': [...]}, ...],   # None: see the series
     'wrapper': {...}, 'options': {...},                        # as the constructors take them
     'crc32': int}                                              # of all the rest
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtester.data.candles import Candles, Series
from backtester.data.errors import CandleError, CorruptDatasetError, OptionError
from backtester.data.storage import files, plain
from backtester.data.vbt_adapter.codes import decode, encode, without_secrets
from backtester.data.vbt_adapter.frames import COLUMN_INDEX, spread, times_of

if TYPE_CHECKING:
    from backtester.data.vbt_adapter.data import Data

__all__ = ["dump", "load", "restore", "save"]

_NAN_BITS = np.array([np.nan]).view(np.int64)[0]
_MISFITS = (
    LookupError, TypeError, ValueError, AttributeError, AssertionError, ArithmeticError,
)  # fmt: skip
_OTHER_COMPRESSIONS = {".gz", ".bz2", ".xz", ".lzma", ".zip", ".zst", ".lz4"}


def dump(data: Data) -> bytes:
    """Return an object as a pickle of plain types."""
    return plain.dump(_payload(data))


def save(data: Data, path: Path) -> None:
    """Write an object to a file; see `Data.save`."""
    suffix = path.suffix.lower()
    if suffix in _OTHER_COMPRESSIONS:
        raise OptionError(f"cannot compress as {suffix}; use .pickle.blosc or .pickle", path=path)
    write = plain.pack if suffix == ".blosc" else plain.dump
    files.replace(path, [write(_payload(data))])


def load(content: bytes, source: str) -> Data:
    """Read what `dump` or `save` wrote, or a file of the data directory."""
    if content[:1] == b"\x80":  # a pickle that is not compressed
        payload = plain.parse(content, source)
    else:
        chunk = memoryview(content)
        chunk = chunk[: plain.chunk_length(chunk[: plain.HEADER_SIZE], source)]
        payload = plain.unpack(chunk, source)
    from backtester.data.vbt_adapter.engine import rebuild

    data: Data = rebuild(payload, source)
    return data


# --------------------------------------------------------------------------- writing


def _payload(data: Data) -> dict[str, Any]:
    series = _series(data)
    asked = data.fetch_kwargs
    names = {
        "exchange": asked.get("exchange_id"),
        "market_type": asked.get("market_type"),
        "timeframe": asked.get("timeframe"),
    }
    payload = plain.dataset_payload(
        series or {},
        encode(data.wrapper._metadata, "wrapper._metadata"),
        kind="data",
        view=_view(data, with_frames=series is None),
        **{name: str(one) if isinstance(one, str) else None for name, one in names.items()},
    )
    payload["view"]["crc32"] = _fingerprint(payload)
    return payload


def _series(data: Data) -> dict[str, Series] | None:
    """Return the candles of an object that holds nothing else; None for any other."""
    try:
        times = times_of(data.index, "the data")
    except CandleError:
        return None
    if not data.wrapper.columns.equals(COLUMN_INDEX) or not (times[1:] > times[:-1]).all():
        return None
    series = {}
    for symbol, frame in data.data.items():
        if not isinstance(frame, pd.DataFrame) or set(frame.dtypes) != {np.dtype(np.float64)}:
            return None
        values = frame.to_numpy()
        # The very NaN that padding consists of: any other must come back as it is.
        padding = (np.ascontiguousarray(values).view(np.int64) == _NAN_BITS).all(axis=1)
        if not isinstance(symbol, str) or not np.isfinite(values[~padding]).all():
            return None
        series[str(symbol)] = Series(Candles(times[~padding], values[~padding]))
    return series


def _view(data: Data, *, with_frames: bool) -> dict[str, Any]:
    wrapper = {
        k: v for k, v in data.wrapper.config.items() if k not in ("index", "columns", "ndim")
    }
    options = {k: v for k, v in data.config.items() if k not in ("wrapper", "data")}
    options["single_key"] = data._single_key
    options["fetch_kwargs"] = {k: v for k, v in data.fetch_kwargs.items() if k != "data_dir"}
    return {
        "index": encode(data.wrapper.index, "the index"),
        "columns": encode(data.wrapper.columns, "the columns"),
        "symbols": encode(data.symbols, "the symbols"),
        "ndim": data.wrapper.ndim,
        "frames": [_frame(s, f) for s, f in data.data.items()] if with_frames else None,
        "wrapper": encode(wrapper, "the wrapper"),
        "options": {k: encode(without_secrets(v), k) for k, v in options.items()},
    }


def _frame(symbol: Any, frame: Any) -> dict[str, Any]:
    what = f"the data of {symbol!r}"
    if isinstance(frame, pd.Series):
        return {"name": encode(frame.name, what), "columns": [_column(frame, what)]}
    columns = [_column(frame.iloc[:, position], what) for position in range(frame.shape[1])]
    return {"name": None, "columns": columns}


def _column(column: pd.Series, what: str) -> Any:
    return encode(pd.Index(column.array, dtype=column.dtype), what)


def _fingerprint(value: Any, start: int = 0) -> int:
    """Return a checksum of a tree of plain values, `crc32` entries left out."""
    if isinstance(value, bytes):
        return zlib.crc32(value, start)
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "crc32":
                start = _fingerprint(item, zlib.crc32(repr(key).encode(), start))
        return start
    if isinstance(value, list | tuple):
        for item in value:
            start = _fingerprint(item, zlib.crc32(b",", start))
        return start
    return zlib.crc32(repr(value).encode("utf-8", "surrogatepass"), start)


# --------------------------------------------------------------------------- reading


def restore(payload: Mapping[str, Any], source: str) -> Data:
    """Make the object of a checked payload that has a view.

    Raises
    ------
    CorruptDatasetError
        The view is not one that `dump` writes, or its checksum is another.
    """
    from backtester.data.vbt_adapter.data import Data
    from backtester.data.vbt_adapter.wrapper import Wrapper

    view = payload["view"]
    if view.get("crc32") != _fingerprint(payload):
        raise CorruptDatasetError(f"{source}: does not match its checksum", path=source)
    try:
        index, columns = decode(view["index"]), decode(view["columns"])
        wrapper = Wrapper(index, columns, view["ndim"], **decode(view["wrapper"]))
        wrapper._metadata = decode(payload["metadata"])
        data = _frames(payload, index, columns, source)
        if (
            view["ndim"] not in (1, 2)
            or not data
            or any(frame.shape != wrapper.shape for frame in data.values())
        ):
            raise ValueError("its frames are of another shape than its index and columns")
        return Data(wrapper, data, **decode(view["options"]))
    except _MISFITS as error:
        # A checksum proves no good intentions: VectorBT and pandas check the rest.
        raise CorruptDatasetError(
            f"{source}: not a saved Data object ({error})", path=source
        ) from error


def _frames(
    payload: Mapping[str, Any], index: pd.Index, columns: pd.Index, source: str
) -> dict[Any, Any]:
    view = payload["view"]
    symbols = decode(view["symbols"])
    if view["frames"] is None:
        times = times_of(index, source)
        series = plain.series_of(payload, source)
        return {
            symbol: pd.DataFrame(
                spread(series[symbol].candles, times), index=index, columns=columns, copy=False
            )
            for symbol in symbols
        }
    frames: dict[Any, Any] = {}
    for symbol, part in zip(symbols, view["frames"], strict=True):
        arrays = [decode(column).array for column in part["columns"]]
        if view["ndim"] == 1:
            (array,) = arrays
            frames[symbol] = pd.Series(array, index=index, name=decode(part["name"]))
        else:
            frame = pd.DataFrame(dict(enumerate(arrays)), index=index)
            frames[symbol] = frame.set_axis(columns, axis=1)
    return frames
