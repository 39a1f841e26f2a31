"""Reading VectorBT PRO's files: every layout bit for bit, and nothing else at all."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

import blosc2
import numpy as np
import pandas as pd
import pytest

from backtester.data.candles import COLUMNS, Candles
from backtester.data.errors import CandleError, CorruptDatasetError, UnknownSymbolError
from backtester.data.storage import inert
from backtester.data.storage.inert import ForeignData, ForeignTable, read_pro

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "candles"
HOUR = 3_600_000
START = 1_700_000_000_000 // HOUR * HOUR

# ---------------------------------------------------------------------------- writing such files


class RecState:
    """VectorBT PRO's record of an object, as far as its pickles show it."""

    def __init__(self, kwargs: dict[str, Any], attributes: dict[str, Any]) -> None:
        self.init_args = ()
        self.init_kwargs = kwargs
        self.attr_dct = attributes


def reconstruct(class_id: str, state: RecState) -> None:
    """Stand for VectorBT PRO's function."""


def _create_array(*args: Any) -> None:
    """Stand for dill's function."""


def _load_type(name: str) -> None:
    """Stand for dill's function."""


def _reconstruct(*args: Any) -> None:
    """Stand for numpy's function under its older name."""


class Saved:
    """Anything VectorBT PRO saves: the name of a class and what it was made of."""

    def __init__(self, class_id: str, attributes: dict[str, Any] | None = None, **kwargs: Any):
        self.class_id = class_id
        self.record = RecState(kwargs, attributes or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return reconstruct, (self.class_id, self.record)


class SliceType:
    """What dill writes in place of the class `slice`."""

    def __call__(self, *args: Any) -> None: ...

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_type, ("slice",)


SLICE = SliceType()
FOREIGN_NAMES: list[tuple[Any, str]] = [
    (RecState, "vectorbtpro.utils.pickling"),
    (reconstruct, "vectorbtpro.utils.pickling"),
    (_create_array, "dill._dill"),
    (_load_type, "dill._dill"),
    (_reconstruct, "numpy.core.multiarray"),
]


PANDAS_NAMES = {  # as they were before pandas 3
    pd.DataFrame: "pandas.core.frame",
    pd.Index: "pandas.core.indexes.base",
    pd.DatetimeIndex: "pandas.core.indexes.datetimes",
    pd.DatetimeTZDtype: "pandas.core.dtypes.dtypes",
    pd.arrays.DatetimeArray: "pandas.core.arrays.datetimes",
}


@pytest.fixture(autouse=True)
def foreign_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pickle find our stand-ins under the names that real files use."""
    modules = {module: ModuleType(module) for _, module in FOREIGN_NAMES}
    for thing, module in FOREIGN_NAMES:
        monkeypatch.setattr(thing, "__module__", module)
        setattr(modules[module], thing.__name__, thing)
    for cls, module in PANDAS_NAMES.items():
        monkeypatch.setattr(cls, "__module__", module)
    for parent in ("vectorbtpro", "vectorbtpro.utils", "dill", "numpy.core"):
        modules[parent] = ModuleType(parent)
    for path, stand_in in modules.items():
        monkeypatch.setitem(sys.modules, path, stand_in)


class ProPickler(pickle.Pickler):
    """Write slices and arrays the way dill does, and pandas the way pandas does."""

    def __init__(self, file: Any, *, dill: bool, old_numpy: bool, protocol: int) -> None:
        super().__init__(file, protocol=protocol)
        self.dill = dill
        self.old_numpy = old_numpy

    def reducer_override(self, thing: Any) -> Any:
        if type(thing) is slice:
            return SLICE, (thing.start, thing.stop, thing.step)
        if type(thing) is not np.ndarray:
            return NotImplemented
        make, args, state = cast("tuple[Any, ...]", thing.__reduce__())
        make = _reconstruct if self.old_numpy else make
        return (_create_array, (make, args, state, None)) if self.dill else (make, args, state)


def pickled(value: Any, *, dill: bool = True, old_numpy: bool = False, protocol: int = 4) -> bytes:
    file = io.BytesIO()
    ProPickler(file, dill=dill, old_numpy=old_numpy, protocol=protocol).dump(value)
    return file.getvalue()


def packed(content: bytes, **settings: Any) -> bytes:
    return bytes(blosc2.compress2(content, **{"typesize": 1, **settings}))


def data_object(tables: dict[str, Any], layout: str = "symbol_dict", **more: Any) -> Saved:
    def group(entries: dict[str, Any]) -> Saved:
        return Saved(f"vectorbtpro.data.base.{layout}", **entries)

    kwargs: dict[str, Any] = {
        "wrapper": Saved("vectorbtpro.base.wrapping.ArrayWrapper", ndim=2),
        "data": group(tables),
        "single_key": False,
        "fetch_kwargs": group({name: {"timeframe": "1h"} for name in tables}),
        "last_index": group({name: pd.Timestamp(START, unit="ms", tz="UTC") for name in tables}),
        "missing_index": "nan",
    }
    return Saved("vectorbtpro.data.custom.ccxt.CCXTData", **(kwargs | more))


Unit = Literal["s", "ms", "us", "ns"]


def times(count: int, unit: Unit = "ns", tz: str | None = "UTC") -> pd.DatetimeIndex:
    index = pd.DatetimeIndex(pd.to_datetime(START + HOUR * np.arange(count), unit="ms"))
    return index.as_unit(unit).tz_localize(tz).rename("Open time")


def frame(
    values: np.ndarray[Any, Any],
    columns: Iterable[str] = COLUMNS,
    index: pd.DatetimeIndex | None = None,
) -> Any:
    """Make a table whose column names are plain objects, as before pandas 3."""
    names = pd.Index(list(columns), dtype=object)
    return pd.DataFrame(values, index=times(len(values)) if index is None else index, columns=names)


def random_values(rows: int, columns: int = 5, seed: int = 1) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(seed).normal(100, 30, (rows, columns))
    values.flat[:4] = [-0.0, 5e-324, 1.7976931348623157e308, np.inf][: values.size]
    return values


def same_bits(one: Any, other: Any) -> bool:
    one, other = np.ascontiguousarray(one), np.ascontiguousarray(other)
    return bool(one.shape == other.shape and one.tobytes() == other.tobytes())


def read(value: Any, **how: Any) -> ForeignData:
    return read_pro(packed(pickled(value, **how)), "some.pickle.blosc")


# ---------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("old_numpy", [False, True], ids=["numpy._core", "numpy.core"])
@pytest.mark.parametrize(
    ("dill", "protocol"),
    [(False, 4), (True, 4), (True, 5)],
    ids=["numpy's arrays", "dill's arrays", "dill's arrays, protocol 5"],
)
def test_symbol_dictionary(dill: bool, protocol: int, old_numpy: bool) -> None:
    """A table per symbol comes back bit for bit, under both names of numpy and of the maker."""
    values = {"BTC/USDT": random_values(7), "ETH/USDT": random_values(7, seed=2)}
    data = read(
        data_object({symbol: frame(v) for symbol, v in values.items()}),
        dill=dill, old_numpy=old_numpy, protocol=protocol,
    )  # fmt: skip
    assert data.layout == "symbol_dict"
    assert data.class_id == "vectorbtpro.data.custom.ccxt.CCXTData"
    assert list(data.tables) == list(values)
    for symbol, table in data.tables.items():
        assert table.columns == COLUMNS
        assert table.open_time.dtype == np.int64
        assert table.open_time.tolist() == [START + HOUR * i for i in range(7)]
        assert table.values.dtype == np.float64
        assert same_bits(table.values, values[symbol])
        assert data.candles(symbol) == Candles.of(table.open_time, values[symbol])


def test_feature_dictionary() -> None:
    """A table per feature, symbols in columns, becomes a table per symbol."""
    symbols = ["BTC/USDT", "ETH/USDT", "XRP/USDT"]
    values = {name: random_values(4, 3, seed) for seed, name in enumerate(COLUMNS)}
    tables = {name: frame(v, symbols) for name, v in values.items()}
    data = read(data_object(tables, "feature_dict"))
    assert data.layout == "feature_dict"
    assert list(data.tables) == symbols
    for at, symbol in enumerate(symbols):
        expected = np.column_stack([values[name][:, at] for name in COLUMNS])
        assert data.tables[symbol].columns == COLUMNS
        assert same_bits(data.tables[symbol].values, expected)
        assert same_bits(data.candles(symbol).values, expected)
    assert data.last_index == dict.fromkeys(symbols, START)


def test_features_of_different_symbols() -> None:
    """A symbol has the features that name it."""
    tables = {"Open": frame(random_values(2, 2), "AB"), "Close": frame(random_values(2, 1), "B")}
    data = read(data_object(tables, "feature_dict"))
    assert {s: t.columns for s, t in data.tables.items()} == {
        "A": ("Open",),
        "B": ("Open", "Close"),
    }


def test_features_of_different_times() -> None:
    """Features whose times differ do not make a table."""
    tables = {"Open": frame(random_values(2, 1), "A"), "Close": frame(random_values(3, 1), "A")}
    with pytest.raises(CorruptDatasetError, match="different times"):
        read(data_object(tables, "feature_dict"))


def test_several_blocks() -> None:
    """Columns are put in their places however pandas has grouped them."""
    values = random_values(6)
    table = frame(values)
    count = np.arange(6, dtype=np.int64) * 7
    table.insert(2, "Trades", count)
    table.insert(0, "Small", np.arange(6, dtype=np.int16) - 3)
    table["Volume"] = values[:, 4] * 2
    data = read(data_object({"A": table}))
    found = data.tables["A"]
    assert found.columns == ("Small", "Open", "High", "Trades", "Low", "Close", "Volume")
    expected = np.column_stack(
        [np.arange(6) - 3, values[:, 0], values[:, 1], count, values[:, 2], values[:, 3],
         values[:, 4] * 2]
    )  # fmt: skip
    assert same_bits(found.values, expected)
    assert same_bits(data.candles("A").values, expected[:, [1, 2, 4, 5, 6]])


def test_blocks_in_scattered_places() -> None:
    """A block placed by a list of positions fills those."""
    floats, whole = random_values(3, 3), np.arange(6, dtype=np.int64).reshape(3, 2)
    table = frame(floats, ["a", "c", "d"])
    table.insert(1, "b", whole[:, 0])
    table.insert(4, "e", whole[:, 1])
    table = table.copy()
    table._mgr = table._mgr.consolidate()  # one block of a, c, d and one of b, e
    found = read(data_object({"A": table})).tables["A"]
    assert found.columns == ("a", "b", "c", "d", "e")
    expected = np.column_stack([floats[:, 0], whole[:, 0], floats[:, 1:], whole[:, 1]])
    assert same_bits(found.values, expected)


def test_memory_order_and_byte_order() -> None:
    """Column-major and big-endian arrays have the same values."""
    values = random_values(5)
    tables = {
        "column-major": frame(np.asfortranarray(values)),
        "row-major": frame(np.ascontiguousarray(values)),
        "big-endian": frame(values.astype(">f8")),
        "single": frame(values[1:].astype(np.float32).clip(0, 1e9), index=times(5)[1:]),
    }
    data = read(data_object(tables))
    for name in ("column-major", "row-major", "big-endian"):
        assert same_bits(data.tables[name].values, values), name
    single = values[1:].astype(np.float32).clip(0, 1e9).astype(np.float64)
    assert same_bits(data.tables["single"].values, single)


def test_odd_bits_survive() -> None:
    """Signed zeros and the bits inside NaN are kept."""
    bits = np.array([[0x8000000000000000, 0x7FF8000000000001, 0xFFF8DEADBEEF0000, 1, 2]], np.uint64)
    data = read(data_object({"A": frame(bits.view(np.float64))}))
    assert data.tables["A"].values.view(np.uint64).tolist() == bits.tolist()


@pytest.mark.parametrize("tz", ["UTC", None])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_units_of_time(unit: Unit, tz: str | None) -> None:
    """The unit of the index is read from the file; a naive one counts as UTC."""
    data = read(data_object({"A": frame(random_values(3), index=times(3, unit, tz))}))
    assert data.tables["A"].open_time.tolist() == [START, START + HOUR, START + 2 * HOUR]


@pytest.mark.parametrize("freq", ["1s", "1min", "15min", "1h", "4h", "1D", "W-MON", "MS", None])
def test_frequencies(freq: str | None) -> None:
    """An index with a frequency is read like one without."""
    index = pd.date_range("2024-01-01", periods=3, freq=freq or "7min", tz="UTC", unit="ns")
    index = index if freq else index[[0, 1, 2]]
    data = read(data_object({"A": frame(random_values(3), index=index)}))
    assert data.tables["A"].open_time.tolist() == index.as_unit("ms").asi8.tolist()


def test_one_index_for_all() -> None:
    """Tables that share an index in the file share their times."""
    index = times(4)
    tables = {name: frame(random_values(4), index=index) for name in "ABC"}
    data = read(data_object(tables))
    assert data.tables["A"].open_time is data.tables["C"].open_time


def test_nothing_in_it() -> None:
    """No symbols, and symbols without rows, are no damage."""
    assert read(data_object({})).tables == {}
    data = read(data_object({"A": frame(np.empty((0, 5)))}))
    assert data.tables["A"].values.shape == (0, 5)
    assert len(data.candles("A")) == 0
    assert read(data_object({}, "feature_dict")).tables == {}


def test_columns_that_are_no_numbers() -> None:
    """Columns of text, times and numbers too large are named and left out."""
    values = random_values(3)
    table = frame(values)
    table["Note"] = pd.Series(["x", None, "y"], index=table.index, dtype=object)
    table["Close time"] = times(3, "ns", None)
    table["Id"] = np.array([1, 2, 2**53 + 1])
    data = read(data_object({"A": table}))
    assert data.tables["A"].columns == COLUMNS
    assert data.tables["A"].left_out == ("Note", "Close time", "Id")
    assert same_bits(data.candles("A").values, values)


def test_what_follows_the_chunk_is_ignored() -> None:
    """Bytes after the chunk are not looked at, as VectorBT PRO does not."""
    content = packed(pickled(data_object({"A": frame(random_values(3))})))
    assert read_pro(memoryview(content + b"more"), "x").tables.keys() == {"A"}


@pytest.mark.parametrize(
    "settings",
    [
        {"codec": codec, "filters": [kind], "filters_meta": [0], "typesize": 8, "clevel": level}
        for codec in (blosc2.Codec.BLOSCLZ, blosc2.Codec.LZ4, blosc2.Codec.LZ4HC,
                      blosc2.Codec.ZLIB, blosc2.Codec.ZSTD)
        for kind in (blosc2.Filter.NOFILTER, blosc2.Filter.SHUFFLE, blosc2.Filter.BITSHUFFLE)
        for level in (0, 5)
    ],
    ids=lambda s: f"{s['codec'].name}-{s['filters'][0].name}-{s['clevel']}",
)  # fmt: skip
def test_compressions(settings: dict[str, Any]) -> None:
    """Every codec and filter Blosc2 has built in is understood."""
    values = random_values(200)
    content = packed(pickled(data_object({"A": frame(values)})), **settings)
    assert same_bits(read_pro(content, "x").tables["A"].values, values)


def test_the_arrays_are_locked() -> None:
    """Nobody can change a table that others may share."""
    table = read(data_object({"A": frame(random_values(3))})).tables["A"]
    with pytest.raises(ValueError, match="read-only"):
        table.values[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        table.open_time[0] = 1


# ---------------------------------------------------------------------------- settings


def test_settings_become_plain() -> None:
    """Arguments and settings come out as plain values; what has none is left out."""
    moment = pd.Timestamp("2025-05-24 19:51:13.196335", tz="UTC")
    asked = {
        "start": "2 days ago", "end": moment, "until": moment.tz_localize(None), "limit": 1000,
        "ratio": 0.5, "none": None, "flags": [True, (1, 2)], "names": {"a"}, "raw": b"ab",
        "wait": timedelta(days=1, seconds=2), "zone": timezone(timedelta(hours=2)),
        "every": pd.Timedelta("1h").to_pytimedelta(), "range": slice(1, 2),
        "config": Saved("vectorbtpro.utils.config.Config", proxies={"https": "x"}),
        "ranges": [slice(1, 2)],
    }  # fmt: skip
    stored = Saved("vectorbtpro.data.base.symbol_dict", A=asked)
    wrapper = Saved(
        "vectorbtpro.base.wrapping.ArrayWrapper", {"_metadata": {"volume_data": {"A": 1.5}}}, ndim=2
    )
    data = read(data_object({"A": frame(random_values(2))}, fetch_kwargs=stored, wrapper=wrapper))
    when = datetime(2025, 5, 24, 19, 51, 13, 196335, tzinfo=UTC)
    assert data.fetch_kwargs == {
        "A": {
            "start": "2 days ago", "end": when, "until": when.replace(tzinfo=None), "limit": 1000,
            "ratio": 0.5, "none": None, "flags": [True, (1, 2)], "names": {"a"}, "raw": b"ab",
            "wait": timedelta(days=1, seconds=2), "zone": timezone(timedelta(hours=2)),
            "every": timedelta(hours=1), "config": {"proxies": {"https": "x"}},
        }
    }  # fmt: skip
    assert data.metadata == {
        "single_key": False,
        "missing_index": "nan",
        "wrapper": {"_metadata": {"volume_data": {"A": 1.5}}},
    }


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_last_index(unit: Unit) -> None:
    """The last time asked for is read per symbol, in any unit; other values are left out."""
    moment = pd.Timestamp(START, unit="ms", tz="UTC").as_unit(unit)
    last = Saved("vectorbtpro.data.base.symbol_dict", A=moment, B=None)
    tables = {"A": frame(random_values(2)), "B": frame(random_values(2))}
    assert read(data_object(tables, last_index=last)).last_index == {"A": START}


# ---------------------------------------------------------------------------- candles


def table_of(
    open_times: list[int], rows: list[list[float]], columns: tuple[str, ...] = COLUMNS
) -> ForeignData:
    values = np.array(rows, np.float64).reshape(len(open_times), len(columns))
    table = ForeignTable(np.array(open_times, np.int64), columns, values)
    return ForeignData({"A": table}, "symbol_dict", "x")


NAN = math.nan
BAR = [1.0, 3.0, 0.5, 2.0, 10.0]


def test_padding_is_dropped() -> None:
    """Rows without any value are padding; zero volume is not."""
    flat = [2.0, 2.0, 2.0, 2.0, 0.0]
    data = table_of([0, 60, 120, 180], [[NAN] * 5, BAR, [NAN] * 5, flat])
    assert data.candles("A") == Candles.of([60, 180], [BAR, flat])


@pytest.mark.parametrize("at", range(5), ids=COLUMNS)
def test_half_a_row_is_an_error(at: int) -> None:
    """A row with some values and not others is neither candle nor padding."""
    half = [*BAR[:at], NAN, *BAR[at + 1 :]]
    with pytest.raises(CandleError, match=r"A has an incomplete candle at 1970-01-01 00:01"):
        table_of([0, 60_000], [BAR, half]).candles("A")


def test_other_columns_may_be_empty() -> None:
    """Only the five columns decide what is padding; others are not looked at."""
    columns = ("Volume", "Extra", "Close", "Low", "High", "Open")
    data = table_of([0, 60], [[10.0, NAN, 2.0, 0.5, 3.0, 1.0], [NAN, 5.0] + [NAN] * 4], columns)
    assert data.candles("A") == Candles.of([0], [BAR])


def test_columns_in_another_case() -> None:
    """Lower-case names serve where the exact ones are missing."""
    data = table_of([0], [BAR], tuple(name.lower() for name in COLUMNS))
    assert data.candles("A") == Candles.of([0], [BAR])
    both = table_of([0], [[*BAR, 99.0]], (*COLUMNS, "close"))
    assert both.candles("A") == Candles.of([0], [BAR])


def test_closes_alone_are_no_candles() -> None:
    """A file of closes says that this is all it has."""
    with pytest.raises(CandleError, match=r"only 'Close', .* only closes .* no Open, High, Low, V"):
        table_of([0], [[2.0]], ("Close",)).candles("A")


@pytest.mark.parametrize("missing", COLUMNS)
def test_a_missing_column_is_named(missing: str) -> None:
    """No candle is made up where a column is missing."""
    columns = tuple(name for name in COLUMNS if name != missing)
    with pytest.raises(CandleError, match=f"no {missing}$") as caught:
        table_of([0], [[1.0] * 4], columns).candles("A")
    assert caught.value.missing == (missing,)


def test_rows_out_of_order() -> None:
    """Rows are sorted, and what is there twice is taken once."""
    other = [2.0, 4.0, 1.0, 3.0, 5.0]
    data = table_of([120, 60, 120], [other, BAR, other])
    assert data.candles("A") == Candles.of([60, 120], [BAR, other])


def test_one_time_with_two_rows() -> None:
    """Two different candles of one time are an error, not a choice."""
    with pytest.raises(CandleError, match="two different candles at 1970-01-01 00:01"):
        table_of([60_000, 60_000], [BAR, [2.0, 4.0, 1.0, 3.0, 5.0]]).candles("A")


def test_an_unknown_symbol() -> None:
    """A symbol that is not there is an error that names those that are."""
    with pytest.raises(UnknownSymbolError, match="no symbol 'B'; it has A"):
        table_of([0], [BAR]).candles("B")


# ---------------------------------------------------------------------------- real files

needs_real = pytest.mark.skipif(
    not (REAL / "pro_pickles").is_dir(), reason="the folder of real files is not there"
)


def real_files() -> list[Path]:
    return sorted((REAL / "pro_pickles").glob("*.pickle.blosc"))


@pytest.fixture(params=real_files(), ids=lambda p: p.name.split(".")[0])
def real_file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def stored_arrays(path: Path) -> list[bytes]:
    """Give every run of bytes in the pickle, found by a disassembler."""
    steps = pickletools.genops(blosc2.decompress2(path.read_bytes()))
    return [bytes(arg) for op, arg, _ in steps if op.name.endswith("BINBYTES") and arg]


@needs_real
def test_real_files_bit_for_bit(real_file: Path) -> None:
    """Every cell of a real file is the bytes that stand in it."""
    data = read_pro(real_file.read_bytes(), str(real_file))
    stored = stored_arrays(real_file)
    for table in data.tables.values():
        ticks = (table.open_time * 1_000_000).astype("<i8").tobytes()
        assert ticks in stored
        for column in table.values.T:
            assert any(np.ascontiguousarray(column).tobytes() in run for run in stored)
        assert bool(np.all(np.diff(table.open_time) > 0))


@needs_real
def test_real_files_against_known_candles() -> None:
    """Where the same candles are known from elsewhere, they are the same."""
    parquet = pytest.importorskip("pyarrow.parquet")
    compared = set()
    for path in real_files():
        data = read_pro(path.read_bytes(), str(path))
        for symbol in data.tables:
            name = f"{path.name.split('__')[0]}_{symbol.replace('/', '-')}.parquet"
            if not (REAL / name).is_file() or data.layout == "feature_dict":
                continue
            known = parquet.read_table(REAL / name).to_pandas()
            times_known = known.iloc[:, 0].dt.as_unit("ms").astype(np.int64).to_numpy()
            candles = data.candles(symbol)
            _, here, there = np.intersect1d(candles.open_time, times_known, return_indices=True)
            assert len(here) == len(known) == len(candles) - 1  # its last one was still forming
            assert same_bits(candles.values[here], known.iloc[there, 1:6].to_numpy())
            compared.add(name)
    assert len(compared) == 3


@needs_real
@pytest.mark.parametrize(
    ("start", "layout", "class_name", "candles"),
    [
        ("binance_spot_1d__6f", "symbol_dict", "Data", {"BTC/USDT": 2840}),
        ("binance_spot_1h__db", "symbol_dict", "CCXTData", {"BTC/USDT": 720}),
        ("bybit_spot_1h__a7", "symbol_dict", "Data",
         {"BTC/USDT": 48, "ETH/USDT": 48, "DOGE/USDT": 24}),
        ("binance_spot_4h__e6", "feature_dict", "Data",
         {"BTC/USDT": None, "ETH/USDT": None, "USDC/USDT": None}),
    ],
)  # fmt: skip
def test_what_real_files_hold(
    start: str, layout: str, class_name: str, candles: dict[str, int | None]
) -> None:
    """The four real files: plain, one of another class, one with padding, one of closes alone."""
    (path,) = (path for path in real_files() if path.name.startswith(start))
    data = read_pro(path.read_bytes(), str(path))
    assert (data.layout, data.class_id.rpartition(".")[2]) == (layout, class_name)
    assert list(data.tables) == list(candles)
    assert list(data.last_index) == list(candles)
    for symbol, count in candles.items():
        if count is None:
            with pytest.raises(CandleError, match="only closes"):
                data.candles(symbol)
        else:
            assert len(data.candles(symbol)) == count
            assert data.last_index[symbol] == int(data.candles(symbol).open_time[-1])


# ---------------------------------------------------------------------------- hostile files


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def pro_pickle(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


def outcome(data: bytes) -> str:
    """Read a file that may be anything; whatever comes out must be usable."""
    try:
        found = read_pro(data, "odd.pickle.blosc")
    except CorruptDatasetError as error:
        return "corrupt" if error.path == "odd.pickle.blosc" and len(str(error)) < 300 else "odd"
    for symbol, table in found.tables.items():
        assert table.values.shape == (len(table.open_time), len(table.columns))
        assert table.values.dtype == np.float64
        assert table.open_time.dtype == np.int64
        try:
            found.candles(symbol)
        except CandleError:
            continue
    return "valid"


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Path]:
    """A file that appears if code of a pickle runs."""
    path = tmp_path / "it ran"
    yield path
    assert not path.exists()


def hostile_calls(path: Path) -> dict[str, bytes]:
    touch = f"touch '{path}'"
    python = f"open({str(path)!r}, 'w')"
    return {
        "os.system": name("os", "system") + text(touch) + b"\x85R",
        "posix.system": name("posix", "system") + text(touch) + b"\x85R",
        "subprocess": name("subprocess", "getoutput") + text(touch) + b"\x85R",
        "eval": name("builtins", "eval") + text(python) + b"\x85R",
        "exec": name("builtins", "exec") + text(python) + b"\x85R",
        "open": name("builtins", "open") + text(str(path)) + text("w") + b"\x86R",
        "getattr": name("builtins", "getattr") + name("os", "system") + b"\x85R",
        "dotted": name("numpy", "ndarray.__class__.__base__.__subclasses__") + b")R",
        "dotted module": name("datetime", "sys.modules") + b")R",
        "numpy's back door": name("numpy", "f2py.crackfortran.myeval") + text(python) + b"\x85R",
        "dill's eval": name("dill._dill", "_eval_repr") + text(python) + b"\x85R",
        "dill's types": name("dill._dill", "_load_type") + text("CodeType") + b"\x85R)R",
        "dill's import": name("dill._dill", "_import_module") + text("os") + b"\x85R",
        "runpy": name("runpy", "run_path") + text(str(path)) + b"\x85R",
        "GLOBAL": b"cos\nsystem\n" + text(touch) + b"\x85R",
        "INST": b"(" + text(touch) + b"ios\nsystem\n",
        "OBJ": b"(" + name("os", "system") + text(touch) + b"o",
        "EXT1": b"\x82\x01)R",
        "persistent": text("x") + b"Q",
        "NEWOBJ": name("subprocess", "Popen") + text(touch) + b"\x85\x81",
        "NEWOBJ_EX": name("subprocess", "Popen") + b")}" + b"\x92",
        "BUILD on a name": name("numpy", "ndarray") + b"}" + text("__call__") + b"Nsb",
        "slots by BUILD": name("pandas.core.frame", "DataFrame")
        + b"N}" + text("__setstate__") + name("numpy", "dtype") + b"s\x86b",
        "out of band": b"\x97",
    }  # fmt: skip


@pytest.mark.parametrize("which", hostile_calls(Path("x")))
def test_no_code_of_the_file_runs(which: str, sentinel: Path) -> None:
    """What asks for code is refused, alone and hidden among what is needed."""
    call = hostile_calls(sentinel)[which]
    assert outcome(packed(pro_pickle(call))) == "corrupt"
    assert outcome(packed(pro_pickle(b"}" + text("data") + call + b"s"))) == "corrupt"
    honest = pickled(data_object({"A": frame(random_values(2))}))
    for at in range(11, len(honest), 37):  # after the frame's header
        assert outcome(packed(honest[:at] + call + honest[at:])) == "corrupt"


@pytest.mark.parametrize("known", sorted(inert.NAMES))
@pytest.mark.parametrize(
    "arguments",
    [b")", text("os.system") + b"\x85", b"NNN\x87", b"(NNNNt",
     b"(" + b"J\xff\xff\xff\x7f" * 5 + b"t", b"}\x85", b"])\x86", b"(" + text("O8") + b"\x89\x88t"],
    ids=["none", "a command", "three", "four", "large", "a dict", "a list", "objects"],
)  # fmt: skip
def test_stand_ins_called_with_nonsense(known: str, arguments: bytes, sentinel: Path) -> None:
    """A known name with other arguments is refused, wherever it stands."""
    module, _, attribute = known.rpartition(".")
    call = name(module, attribute) + arguments + b"R"
    state = b"(" + text(f"touch {sentinel}") + b"Nt"
    for body in (call, call + b"}b", call + state + b"b", call + b")R"):
        assert outcome(packed(pro_pickle(body))) == "corrupt"


def mutated(value: Any, change: Callable[[Any], Any]) -> Iterator[Any]:
    """Give copies of a description with one part of it changed."""
    if isinstance(value, inert._Call):
        for args in mutated(value.args, change):
            if type(args) is tuple:  # the machine sees to that
                yield inert._Call(value.name, args, value.state)
        for state in mutated(value.state, change):
            yield inert._Call(value.name, value.args, state)
        for other in sorted(inert.NAMES)[::5]:
            yield inert._Call(other, value.args, value.state)
    elif isinstance(value, (tuple, list)):
        for at, item in enumerate(value):
            for new in mutated(item, change):
                yield type(value)((*value[:at], new, *value[at + 1 :]))
            yield type(value)((*value[:at], *value[at + 1 :]))
    elif isinstance(value, dict):
        for key, item in value.items():
            for new in mutated(item, change):
                yield {**value, key: new}
            yield {k: v for k, v in value.items() if k != key}
    yield change(value)


@pytest.mark.parametrize("layout", ["symbol_dict", "feature_dict"])
@pytest.mark.parametrize(
    "new",
    [None, -1, 2**31 - 1, 2**2000, math.nan, "f8", "O8", memoryview(b"ns"), (), [], {}, [[]],
     ("slice",), {"data": 1}, inert._Name("numpy.ndarray"), inert._Call("slice", (0, 2**31 - 1, 1)),
     inert._Call("datetime.timedelta", (10**12, 0, 0))],
    ids=lambda v: type(v).__name__ + str(v)[:12],
)  # fmt: skip
def test_descriptions_with_one_part_replaced(new: Any, layout: str) -> None:
    """Whatever stands in place of any one part, the result is a refusal or well-formed tables."""
    value = data_object({"Open": frame(random_values(2, 1), "A")}, layout)
    honest = inert.ProMachine(memoryview(pickled(value))).run()
    tried = 0
    for odd in mutated(honest, lambda _old: new):
        tried += 1
        try:
            found = inert.Reader(budget=1 << 20).data(odd)
        except inert._UnreadableError:
            continue
        for table in found.tables.values():
            assert table.values.shape == (len(table.open_time), len(table.columns))
            assert all(type(column) is str for column in table.columns)
    assert tried > 150


# ---------------------------------------------------------------------------- bombs


def header(**fields: int) -> bytes:
    """Give a chunk whose header says something else."""
    places = {"version": 0, "flags": 2, "item": 3, "filter": 16, "more": 30, "special": 31}
    sizes = {"unpacked": 4, "block": 8, "packed": 12}
    chunk = bytearray(packed(pickled(data_object({"A": frame(random_values(50))}))))
    for field, value in fields.items():
        if field in sizes:
            struct.pack_into("<i", chunk, sizes[field], value)
        else:
            chunk[places[field]] = value
    return bytes(chunk)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"unpacked": 2**31 - 1}, "implausible"),
        ({"unpacked": 0}, "implausible"),
        ({"unpacked": -1}, "implausible"),
        ({"unpacked": 17 << 20}, "implausible"),
        ({"packed": 2**31 - 1}, "its header says"),
        ({"packed": 32}, "its header says"),
        ({"packed": -5}, "its header says"),
        ({"block": 0}, "never need"),
        ({"block": -1}, "never need"),
        ({"block": 2**31 - 1}, "never need"),
        ({"item": 0}, "never need"),
        ({"flags": 0xC5}, "never need"),
        ({"filter": 160}, "never need"),
        ({"special": 0x10}, "never need"),
        ({"special": 0x30, "unpacked": 16 << 20}, "never need"),
        ({"special": 0x08}, "never need"),
        ({"more": 1}, "never need"),
        ({"version": 2}, "does not begin with a Blosc2 chunk"),
        ({"version": 6}, "does not begin with a Blosc2 chunk"),
    ],
    ids=str,
)
def test_headers_are_checked_first(
    fields: dict[str, int], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is unpacked before the header has been found plausible."""
    monkeypatch.setattr(blosc2, "decompress2", lambda *_a, **_k: pytest.fail("it unpacked"))
    with pytest.raises(CorruptDatasetError, match=reason):
        read_pro(header(**fields), "x")


def test_a_bomb_that_tells_its_size() -> None:
    """A small file that honestly says how much it unpacks to is refused for that."""
    bomb = packed(bytes(64 << 20))
    assert len(bomb) < 1000
    assert outcome(bomb) == "corrupt"


def peak_mb(body: str) -> float:
    """Give the memory that reading a pickle takes at most, in a process of its own."""
    code = f"""
import resource, sys
sys.path.insert(0, {str(ROOT)!r})
from backtester.data.errors import CorruptDatasetError
from backtester.data.storage import inert
import blosc2, struct
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    inert.unpack = memoryview
    inert.read_pro(b"\\x80\\x04" + {body} + b".", "x")
except CorruptDatasetError:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units elsewhere")
@pytest.mark.parametrize(
    "body",
    [
        'b"N" + b"r\\xff\\xff\\xff\\x7f"',
        'b"\\x8e" + struct.pack("<Q", 1 << 40)',
        'b"\\x96" + struct.pack("<Q", 1 << 40)',
        'b"B\\xff\\xff\\xff\\xff"',
        'b"X\\xff\\xff\\xff\\xff"',
        'b"\\x95" + struct.pack("<Q", 1 << 40)',
        'b"\\x8b\\xff\\xff\\xff\\x7f"',
        'b")" + b"\\x85" * 300_000 + b"}" + b"h\\x00Ns"',
        'b"}" + b")" + b"\\x85" * 300_000 + b"Ns"',
        'b"]" * 300_000 + b"a" * 299_999',
        'b"(" * 2_000_001',
        'b"}" * 2_000_001',
    ],
    ids=["memo index", "bytes8", "bytearray8", "bytes", "text", "frame", "long", "deep tuple",
         "deep key", "deep list", "marks", "steps"],
)  # fmt: skip
def test_pickles_that_claim_memory(body: str) -> None:
    """Claims of size and depth neither end the process nor take memory the file does not have."""
    assert peak_mb(body) < 400


def array(shape: tuple[int, ...], kind: str = "f8", content: Any = b"") -> Any:
    """Describe an array by hand."""
    dtype = inert._Call("numpy.dtype", (kind, False, True), (3, "<", None, None, None, -1, -1, 0))
    content = memoryview(content) if isinstance(content, bytes) else content
    maker = "numpy._core.multiarray._reconstruct"
    return inert._Call(maker, (inert._Name("numpy.ndarray"),), (1, shape, dtype, False, content))


@pytest.mark.parametrize(
    "shape", [(2**31 - 1,), (2**31 - 1, 2**31 - 1), (0, 2**31 - 1), (1,), (-1,), (), (1, 1, 1),
              (2**40,), (2**2000,), (True,), (1.0,), ("1",), ([],)],
    ids=lambda s: str(s)[:30],
)  # fmt: skip
def test_shapes_are_held_against_the_bytes(shape: Any) -> None:
    """An array is never larger than the bytes that stand behind it."""
    if shape == (0, 2**31 - 1):
        assert inert._array(array(shape))[1].size == 0
        return
    with pytest.raises(inert._UnreadableError):
        inert._array(array(shape))


@pytest.mark.parametrize(
    "kind",
    ["O", "O4", "V8", "S8", "U2", "f2", "f16", "c16", "m8", "M8", "f8,f8", "i8\0", "", None, 8],
    ids=repr,
)  # fmt: skip
def test_types_are_a_short_list(kind: Any) -> None:
    """Only plain numbers, times and lists of plain values are arrays."""
    with pytest.raises(inert._UnreadableError, match="of a type"):
        inert._array(array((1,), kind, bytes(8)))


@pytest.mark.parametrize(
    "content", [[inert._Name("numpy.ndarray")], [[]], [b"x"], [None, None], (None,), bytes(8)],
    ids=repr,
)  # fmt: skip
def test_object_arrays_hold_plain_values(content: Any) -> None:
    """An array of objects is a list of plain values of the right length."""
    assert inert._array(array((1,), "O8", ["x"])) == ("O8", ["x"])
    with pytest.raises(inert._UnreadableError):
        inert._array(array((1,), "O8", content))


def test_bytes_used_again_and_again() -> None:
    """A file that makes a thousand tables of the same bytes is refused before it fills memory."""
    values = random_values(20_000)
    index = times(20_000)
    shared = frame(values, index=index)
    tables = {f"S{i}": shared.copy(deep=False) for i in range(1000)}
    for table in tables.values():
        table._mgr = shared._mgr
    content = pickled(data_object(tables))
    assert len(content) < 2_000_000
    with pytest.raises(CorruptDatasetError, match="more data than it has bytes for"):
        read_pro(packed(content), "x")


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def test_settings_nested_without_end() -> None:
    """Settings may not be deeper, or unfold wider, than settings are."""
    circle: list[Any] = []
    circle.append(circle)
    wide: list[Any] = []
    for _ in range(30):
        wide = [wide, wide]
    for odd in (nested(100), circle, wide):
        settings = Saved("vectorbtpro.data.base.symbol_dict", A=odd)
        with pytest.raises(CorruptDatasetError, match="nested too deeply"):
            read(data_object({"A": frame(random_values(2))}, fetch_kwargs=settings))


def test_one_description_in_two_roles() -> None:
    """What has been read as names does not pass for times."""
    honest = inert.ProMachine(
        memoryview(pickled(data_object({"A": frame(random_values(2))})))
    ).run()
    tables = honest.args[1].state["init_kwargs"]["data"].args[1].state["init_kwargs"]
    axes = tables["A"].state["_mgr"].args[1]
    axes[1] = axes[0]
    with pytest.raises(inert._UnreadableError, match="index of the usual kind"):
        inert.Reader(budget=1 << 20).data(honest)


# ---------------------------------------------------------------------------- damage


@pytest.fixture
def small_pickle() -> bytes:
    return pickled(data_object({"A": frame(random_values(2))}))


def test_cut_at_every_length(small_pickle: bytes) -> None:
    """A file cut short anywhere is corrupt, in the chunk and inside it."""
    whole = packed(small_pickle)
    assert outcome(whole) == "valid"
    assert {outcome(whole[:size]) for size in range(len(whole))} == {"corrupt"}
    cut = {outcome(packed(small_pickle[:size], clevel=0)) for size in range(1, len(small_pickle))}
    assert cut == {"corrupt"}


@pytest.mark.parametrize("flip", [0xFF, 0x01, 0x80, 0x20])
def test_every_byte_changed(flip: int, small_pickle: bytes) -> None:
    """Any one changed byte gives an error or well-formed tables, never anything else."""
    whole = packed(small_pickle)
    for at in range(len(whole)):
        outcome(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
    for at in range(len(small_pickle)):
        changed = small_pickle[:at] + bytes([small_pickle[at] ^ flip]) + small_pickle[at + 1 :]
        outcome(packed(changed, clevel=0))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "fewer than the header"),
        (b"\x05" * 31, "fewer than the header"),
        (b"PAR1" + bytes(100), "does not begin with a Blosc2 chunk"),
        (b"<html>" * 20, "does not begin with a Blosc2 chunk"),
        (packed(b"no pickle" * 9), "no pickle of protocol 4"),
        (packed(pickle.dumps({"a": 1}, protocol=2)), "no pickle of protocol 4"),
        (packed(pickle.dumps({"a": 1}, protocol=4)), "not an object of VectorBT PRO"),
        (packed(b"\x80\x04."), "pops more than it pushed"),
        (packed(b"\x80\x04h\x07."), "pops more than it pushed"),
        (packed(b"\x80\x04u."), "pops more than it pushed"),
        (packed(b"\x80\x04N"), "cut short"),
    ],
    ids=["empty", "short", "parquet", "html", "text", "protocol 2", "a dict", "nothing",
         "no memo", "no mark", "no end"],
)  # fmt: skip
def test_other_files(content: bytes, reason: str) -> None:
    """Other files are corrupt, and the message says in which way."""
    with pytest.raises(CorruptDatasetError, match=reason):
        read_pro(content, "x")


def test_another_object_of_vectorbt_pro() -> None:
    """Something else that VectorBT PRO saved is named."""
    with pytest.raises(CorruptDatasetError, match=r"it holds 'vectorbtpro\.portfolio"):
        read(Saved("vectorbtpro.portfolio.base.Portfolio", wrapper=None))


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (pd.DatetimeIndex(["2024-01-01", None], tz="UTC").as_unit("ns"), "has no time"),
        (
            pd.DatetimeIndex(["2024-01-01", "2024-01-01 00:00:00.0000001"], tz="UTC"),
            "not a whole millisecond",
        ),
        (np.array([0, 2**62], "M8[s]").view("M8[s]"), "out of range"),
    ],
    ids=["no time", "too fine", "too far"],
)
def test_times_that_are_none(index: Any, reason: str) -> None:
    """A row without a usable time is damage."""
    table = frame(random_values(2), index=pd.DatetimeIndex(index))
    with pytest.raises(CorruptDatasetError, match=reason):
        read(data_object({"A": table}))


def test_importing_it_is_cheap() -> None:
    """The module imports neither pandas nor blosc2 nor ccxt nor VectorBT."""
    code = (
        "import sys, backtester.data.storage.inert\n"
        "heavy = {'pandas', 'blosc2', 'ccxt', 'vectorbt', 'numba', 'dill'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
