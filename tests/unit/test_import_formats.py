"""Every format that can be imported, written by the program it is the format of."""

from __future__ import annotations

import gzip
import io
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backtester.data.candles import COLUMNS, Candles
from backtester.data.errors import CorruptDatasetError, OptionError
from backtester.data.importing.found import NO_TIME, Found
from backtester.data.importing.opening import files_in, series_in
from backtester.data.model import MarketType, Timeframe
from backtester.data.storage.pickle_file import PickleStore
from tests.support.builders import H1, HOUR, KEY, START, answer, candles_at, hours
from tests.support.processes import SHARED

CANDLES = candles_at(hours(0, 30))
BTC, ETH = "BTC/USDT", "ETH/USDT"


def frame(
    candles: Candles = CANDLES, *, unit: str = "us", zone: str | None = "UTC"
) -> pd.DataFrame:
    index = pd.DatetimeIndex(candles.open_time.astype("datetime64[ms]"), name="Open time")
    index = index.as_unit(unit)
    if zone:
        index = index.tz_localize("UTC").tz_convert(zone)
    return pd.DataFrame(candles.values.copy(), index=index, columns=list(COLUMNS))


def flat(candles: Candles = CANDLES, time: str = "date") -> pd.DataFrame:
    """Give the table with its times in a column, as freqtrade stores it."""
    moved = frame(candles).reset_index().rename(columns={"Open time": time})
    return moved.rename(columns=str.lower)


def series(path: Path) -> dict[str, Found]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {found.where.removeprefix(str(path)).strip("/"): found for found in series_in(path)}


def only(path: Path) -> Found:
    (found,) = series(path).values()
    return found


def same(found: Found, expected: Candles = CANDLES) -> bool:
    assert found.problem is None, found.problem
    assert found.rows is not None
    return Candles(found.rows.open_time, found.rows.values) == expected


# ------------------------------------------------------------------ text


def csv_of(rows: Any, header: str = "") -> str:
    lines = [
        ",".join(repr(cell) if isinstance(cell, float) else str(cell) for cell in r) for r in rows
    ]
    return header + "\n".join(lines) + "\n"


def ccxt_rows(candles: Candles = CANDLES) -> list[list[Any]]:
    return [
        [time, *row]
        for time, row in zip(candles.open_time.tolist(), candles.values.tolist(), strict=True)
    ]


def klines() -> list[list[Any]]:
    return [[*row, row[0] + 3_599_999, 1.5, 7, 0.5, 0.7, 0] for row in ccxt_rows()]


KLINE_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
    "taker_buy_quote_volume,ignore\n"
)
TEXTS: dict[str, Callable[[], str]] = {
    "ccxt": lambda: csv_of(ccxt_rows()),
    "ccxt with names": lambda: csv_of(ccxt_rows(), "timestamp,open,high,low,close,volume\n"),
    "kline": lambda: csv_of(klines()),
    "kline with names": lambda: csv_of(klines(), KLINE_HEADER),
    "kline in microseconds": lambda: csv_of([[r[0] * 1000, *r[1:]] for r in klines()]),
    "kraken": lambda: csv_of([[r[0] // 1000, *r[1:], 3] for r in ccxt_rows()]),
    "pandas": lambda: frame().to_csv(),
    "pandas in Berlin": lambda: frame(zone="Europe/Berlin").to_csv(),
    "pandas without a zone": lambda: frame(zone=None).to_csv(),
    "semicolons": lambda: frame().to_csv(sep=";"),
    "tabs": lambda: frame().to_csv(sep="\t"),
    "a byte order mark": lambda: "\ufeff" + frame().to_csv(),
    "windows": lambda: frame().to_csv().replace("\n", "\r\n"),
    "a preface": lambda: (
        "https://www.example.com\n"
        + csv_of(
            [[r[0] // 1000, "x", BTC, *r[1:], 9.0] for r in reversed(ccxt_rows())],
            "unix,date,symbol,open,high,low,close,Volume BTC,Volume USDT\n",
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TEXTS)
def test_texts(kind: str, tmp_path: Path) -> None:
    """The same candles bit for bit, in every way people and exchanges write them down."""
    path = tmp_path / "binance_spot_1h_BTC-USDT.csv"
    path.write_bytes(TEXTS[kind]().encode())
    found = only(path)
    assert found.rows is not None
    order = np.argsort(found.rows.open_time)
    assert Candles(found.rows.open_time[order], found.rows.values[order]) == CANDLES


def test_a_large_text_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a block ends nothing is lost."""
    monkeypatch.setattr("backtester.data.importing.text._BLOCK", 700)
    (tmp_path / "x.csv").write_text(TEXTS["kline with names"]())
    assert same(only(tmp_path / "x.csv"))


@pytest.mark.parametrize("seed", range(4))
def test_numbers_of_every_kind_keep_their_bits(seed: int, tmp_path: Path) -> None:
    """Few digits and many, padded, small and large, in the usual way and in none."""
    rng = np.random.default_rng(seed)
    values = rng.random((200, 5)) * 10.0 ** rng.integers(-9, 12, (200, 1))
    write = [repr, "{:.8f}".format, "{:.3e}".format, "{:.15g}".format][seed]
    texts = [[write(float(cell)) for cell in row] for row in values]
    path = tmp_path / "x.csv"
    path.write_text(csv_of([[START + i * HOUR, *row] for i, row in enumerate(texts)]))
    rows = only(path).rows
    assert rows is not None
    assert rows.values.tolist() == [[float(cell) for cell in row] for row in texts]


def test_quoted_cells_and_cells_with_spaces(tmp_path: Path) -> None:
    """One odd row among plain ones is read like the others."""
    lines = TEXTS["ccxt"]().splitlines()
    lines[7] = ",".join(f'"{cell}"' for cell in lines[7].split(","))
    lines[9] = lines[9].replace(",", ", ")
    (tmp_path / "x.csv").write_text("\n".join(lines))
    assert same(only(tmp_path / "x.csv"))


def test_coin_margined_klines_count_base_units(tmp_path: Path) -> None:
    """Their sixth column counts contracts; the eighth is the volume."""
    path = tmp_path / "BTCUSD_PERP-1h-2024-01.csv"
    path.write_text(csv_of([[*row[:5], 123.0, row[6], row[5], *row[8:]] for row in klines()]))
    found = only(path)
    assert same(found)
    assert found.last_closed
    assert "base units" in found.notes[0]


@pytest.mark.parametrize("pack", ["gz", "bz2", "zip"])
def test_compressed_texts(pack: str, tmp_path: Path) -> None:
    """The member's own name says what it holds."""
    import bz2

    text = TEXTS["kline"]().encode()
    path = tmp_path / f"BTCUSDT-1h-2024-01.csv.{pack}"
    if pack == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("ETHUSDT-1h-2024-01.csv", text)
    else:
        path.write_bytes({"gz": gzip.compress, "bz2": bz2.compress}[pack](text))
    found = only(path)
    assert same(found)
    assert found.last_closed
    assert found.name.name == f"{'ETHUSDT' if pack == 'zip' else 'BTCUSDT'}-1h-2024-01.csv"


def test_a_zip_of_many_is_read_member_by_member(tmp_path: Path) -> None:
    """As exchanges hand out their whole history."""
    path = tmp_path / "Kraken_OHLCVT.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("XBTUSD_60.csv", "ETHUSD_60.csv"):
            archive.writestr(f"spot/{name}", TEXTS["kraken"]())
    found = series(path)
    assert list(found) == ["spot/XBTUSD_60.csv", "spot/ETHUSD_60.csv"]
    assert all(same(one) for one in found.values())


def test_one_bad_member_does_not_cost_the_others(tmp_path: Path) -> None:
    """What systems put into zips by themselves is passed over."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/._a_1h.csv", b"\0\1")
        archive.writestr("README.txt", "All candles there are.\n")
        archive.writestr("BTC-USDT_1h.csv", TEXTS["ccxt"]())
    found = series(path)
    assert list(found) == ["README.txt", "BTC-USDT_1h.csv"]
    assert "neither a known format" in str(found["README.txt"].problem)
    assert same(found["BTC-USDT_1h.csv"])


def test_members_share_what_a_zip_may_unpack_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bomb may come in many small parts."""
    monkeypatch.setattr("backtester.data.importing.opening._HARMLESS", 1 << 16)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"{number}.csv", "1704067200000,1,1,1,1,1\n" * 2500)
    assert path.stat().st_size * 200 < 40 * 2500 * 24
    with pytest.raises(CorruptDatasetError, match="far more"):
        series(path)


# ------------------------------------------------------------------ Parquet and Feather


def _parquet(path: Path, table: pd.DataFrame) -> None:
    table.to_parquet(path)


def _feather(path: Path, table: pd.DataFrame) -> None:
    table.to_feather(path, compression="lz4", compression_level=9)


@pytest.mark.parametrize("write", [_parquet, _feather], ids=["parquet", "feather"])
@pytest.mark.parametrize(
    "table",
    [
        frame(),
        frame(unit="ns"),
        frame(zone="Asia/Tokyo"),
        frame(zone=None),
        flat(),
        flat(time="open_time").astype({"open_time": "int64"}),
        flat().assign(date=lambda t: t["date"].astype(str)),
        frame().assign(n=3, note="x")[["note", "Volume", "Close", "Low", "n", "High", "Open"]],
    ],
    ids=["index", "ns", "zone", "naive", "column", "counts", "texts", "more columns"],
)  # fmt: skip
def test_arrow_tables(write: Callable[..., None], table: pd.DataFrame, tmp_path: Path) -> None:
    """What pandas and freqtrade write, whatever the index was."""
    pytest.importorskip("pyarrow")
    if write is _feather and not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index()  # pandas itself refuses any other
    path = tmp_path / "binance_spot_1h_BTC-USDT.bin"
    write(path, table)
    assert same(only(path))


def test_tables_inside_compressed_files(tmp_path: Path) -> None:
    """What must be read in jumps is unpacked first."""
    pytest.importorskip("pyarrow")
    pytest.importorskip("tables")
    _parquet(tmp_path / "x.parquet", frame())
    _feather(tmp_path / "x.feather", flat())
    frame().to_hdf(tmp_path / "x.h5", key="BTC_USDT")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("x.parquet", "x.feather", "x.h5"):
            archive.write(tmp_path / name, name)
    found = series(tmp_path / "x.zip")
    assert list(found) == ["x.parquet", "x.feather", "x.h5/BTC_USDT"]
    assert all(same(one) for one in found.values())


@pytest.mark.parametrize("kind", ["timestamp", "count", "text"])
def test_rows_without_a_time_keep_the_others(kind: str, tmp_path: Path) -> None:
    """A null is no time; the other numbers lose no digit to it."""
    pytest.importorskip("pyarrow")
    table = flat().astype({"date": "datetime64[ns, UTC]"})
    if kind == "count":
        table["date"] = table["date"].astype("int64").astype("Int64")
    if kind == "text":
        table["date"] = table["date"].astype(str)
    table.loc[3, "date"] = None
    table.to_parquet(tmp_path / "x.parquet")
    rows = only(tmp_path / "x.parquet").rows
    assert rows is not None
    expected = CANDLES.open_time.tolist()
    assert rows.open_time.tolist() == [*expected[:3], NO_TIME, *expected[4:]]


def test_single_precision_is_widened_exactly(tmp_path: Path) -> None:
    """Each stored float is a float64, too."""
    pytest.importorskip("pyarrow")
    narrow = frame().astype("float32")
    narrow.to_parquet(tmp_path / "x.parquet")
    rows = only(tmp_path / "x.parquet").rows
    assert rows is not None
    assert rows.values.tolist() == narrow.to_numpy().astype(np.float64).tolist()


def test_what_freqtrade_keeps_beside_candles_is_left_out(tmp_path: Path) -> None:
    """Mark prices and funding rates have the same columns."""
    pytest.importorskip("pyarrow")
    path = tmp_path / "BTC_USDT_USDT-1h-mark.feather"
    _feather(path, flat())
    found = only(path)
    assert (found.rows, found.problem) == (None, None)
    assert "mark" in found.notes[0]


# ------------------------------------------------------------------ HDF5


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """Give a file name for HDF5; pandas needs PyTables to write it."""
    pytest.importorskip("tables")
    pytest.importorskip("h5py")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTables', on keys such as '1h'
        yield tmp_path / "binance_spot_1h.h5"


LAYOUTS: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
    "fixed": (frame(), {"format": "fixed"}),
    "fixed ns naive": (frame(unit="ns", zone=None), {"format": "fixed"}),
    "fixed column": (flat(), {"format": "fixed"}),
    "fixed more": (frame().assign(trades=3, note="x"), {"format": "fixed"}),
    "table": (frame(), {"format": "table"}),
    "table ns": (frame(unit="ns"), {"format": "table"}),
    "table columns": (flat(), {"format": "table", "data_columns": True}),
    "table mixed": (flat(), {"format": "table", "data_columns": ["date"]}),
    "table more": (frame().assign(trades=3, note="x"), {"format": "table"}),
    "blosc": (frame(), {"format": "table", "complib": "blosc:zstd", "complevel": 9}),
    "blosc lz4": (frame(), {"format": "fixed", "complib": "blosc:lz4", "complevel": 5}),
    "bzip2": (frame(), {"format": "table", "complib": "bzip2", "complevel": 5}),
    "zlib": (frame(), {"format": "fixed", "complib": "zlib", "complevel": 5}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_pandas_writes(layout: str, store: Path) -> None:
    """Both formats, every compression, times in the index or in a column."""
    table, options = LAYOUTS[layout]
    table.to_hdf(store, key="BTC_USDT", **options)
    found = series(store)
    assert list(found) == ["BTC_USDT"]
    assert same(found["BTC_USDT"])
    assert found["BTC_USDT"].said.symbol == "BTC_USDT"


def test_one_symbol_per_key(store: Path) -> None:
    """Keys name symbols, and may name timeframes, exchanges and markets."""
    keys = ("BTC_USDT", "ETH_USDT/4h", "SOL/USDT/ohlcv/tf_5m", "okx/swap/XRPUSDT")
    for seed, key in enumerate(keys):
        frame(candles_at(hours(0, 9), seed)).to_hdf(store, key=key, format="table")
    found = series(store)
    assert set(found) == set(keys)
    for seed, key in enumerate(keys):
        assert same(found[key], candles_at(hours(0, 9), seed))
    assert found["SOL/USDT/ohlcv/tf_5m"].said.symbol == "SOL/USDT"
    assert found["ETH_USDT/4h"].said.timeframe == Timeframe.parse("4h")
    assert found["okx/swap/XRPUSDT"].said.market_type is MarketType.SWAP


def test_tables_without_pandas(store: Path) -> None:
    """A table of PyTables, and an array per column as h5py writes them."""
    import h5py
    import tables

    names = "timestamp,open,high,low,close,volume"
    record = np.rec.fromarrays([CANDLES.open_time, *CANDLES.values.T], names=names)
    with tables.open_file(store, "w") as file:
        packed = tables.Filters(complevel=5, complib="blosc2")
        file.create_table("/", "BTC_USDT", obj=np.asarray(record), filters=packed)
    with h5py.File(store, "a") as file:
        for name, column in zip(
            names.split(","), [CANDLES.open_time, *CANDLES.values.T], strict=True
        ):
            file.create_dataset(f"ETH_USDT/{name}", data=column, compression="gzip")
    found = series(store)
    assert set(found) == {"BTC_USDT", "ETH_USDT"}
    assert all(same(one) for one in found.values())


def test_several_symbols_under_one_key_are_refused(store: Path) -> None:
    """One symbol in all rows is no matter."""
    for key, second in (("one", "BTCUSDT"), ("two", "ETHUSDT")):
        table = frame().assign(pair=["BTCUSDT"] * 15 + [second] * 15)
        table.to_hdf(store, key=key, format="table")
    found = series(store)
    assert same(found["one"])
    assert "2 symbols in one table (BTCUSDT, ETHUSDT)" in str(found["two"].problem)


def test_closes_alone_in_hdf5_are_a_problem_of_their_key_only(store: Path) -> None:
    """The next key is read all the same."""
    frame()[["Close"]].to_hdf(store, key="BTC_USDT")
    frame().to_hdf(store, key="ETH_USDT")
    found = series(store)
    assert "closes alone" in str(found["BTC_USDT"].problem)
    assert same(found["ETH_USDT"])


# ------------------------------------------------------------------ pickles


def data_of(tables: dict[str, pd.DataFrame], **options: Any) -> Any:
    import vectorbt as plain

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vectorbt's own, on symbols of different length
        return plain.Data.from_data(
            tables, **{"download_kwargs": {}, "missing_index": "nan", **options}
        )


def test_what_open_source_vectorbt_saves(tmp_path: Path) -> None:
    """Each symbol with its padding, and what the download was asked for."""
    short = candles_at(hours(0, 12), seed=3)
    asked = {BTC: {"timeframe": "1h", "exchange": "binance"}}
    data = data_of({BTC: frame(), ETH: frame(short)}, download_kwargs=asked)
    data.save(tmp_path / "x.pickle")
    found = series(tmp_path / "x.pickle")
    assert same(found[BTC])
    assert (found[BTC].said.exchange, found[BTC].said.timeframe) == ("binance", H1)
    rows = found[ETH].rows
    assert rows is not None
    assert np.isnan(rows.values[12:]).all()
    assert Candles(rows.open_time[:12], rows.values[:12]) == short


def test_vectorbt_files_of_other_makes(tmp_path: Path) -> None:
    """Columns of other types are left out, gzip is unpacked, object labels are read."""
    mixed = frame().assign(trades=range(30), note="x")
    mixed.columns = pd.Index(list(mixed.columns), dtype=object)
    saved = tmp_path / "x.pickle"
    data_of({BTC: mixed}).save(saved)
    assert same(only(saved))
    packed = tmp_path / "y.pickle.gz"
    packed.write_bytes(gzip.compress(saved.read_bytes()))
    assert same(only(packed))


SAVED_WITHOUT_PYARROW = """
import sys, warnings
sys.modules["pyarrow"] = None  # as where it is not installed
warnings.simplefilter("ignore")
import pandas as pd, vectorbt
table = pd.read_csv(sys.argv[1], index_col=0, parse_dates=True, float_precision="round_trip")
assert type(table.assign(note="x")["note"].array).__name__ != "ArrowStringArray"
vectorbt.Data.from_data({"BTC/USDT": table.assign(note="x")}, download_kwargs={}).save(sys.argv[2])
"""


def test_what_vectorbt_saves_without_pyarrow(tmp_path: Path) -> None:
    """pandas 3 keeps texts in another way there, the names of columns among them."""
    frame().to_csv(tmp_path / "x.csv")
    paths = [str(tmp_path / name) for name in ("x.csv", "x.pickle")]
    subprocess.run([sys.executable, "-c", SAVED_WITHOUT_PYARROW, *paths], check=True, timeout=120)
    assert b"ArrowStringArray" not in Path(paths[1]).read_bytes()
    assert same(only(Path(paths[1])))


def test_what_users_put_beside_candles_is_no_matter(tmp_path: Path) -> None:
    """Arguments, columns and time zones of any kind are passed over."""
    moment = pd.Timestamp("2024-01-01", tz="Europe/Berlin")
    asked = {"start": moment, "end": moment.to_pydatetime(), "delay": pd.Timedelta("1h"),
             "weights": np.arange(3), "offset": pd.offsets.MonthEnd()}  # fmt: skip
    table = frame(zone="Europe/Berlin").assign(
        kind=pd.Categorical(["a", "b"] * 15), day=moment, flag=True, maybe=pd.array([1.5] * 30)
    )
    data_of({BTC: table}, download_kwargs={BTC: asked}, tz_localize=None, tz_convert=None).save(
        tmp_path / "x.pickle"
    )
    assert same(only(tmp_path / "x.pickle"))


def test_single_columns_of_vectorbt_are_refused(tmp_path: Path) -> None:
    """Closes alone say that they are."""
    data_of({BTC: frame()["Close"]}).save(tmp_path / "x.pickle")
    with pytest.raises(CorruptDatasetError, match="only closes"):
        series(tmp_path / "x.pickle")


def test_our_own_files(tmp_path: Path) -> None:
    """A dataset says itself what it is of, and that its last candle was closed."""
    kept = PickleStore(tmp_path)
    kept.commit(KEY, [answer(count=6)])
    kept.fold(KEY)
    moved = kept.path(KEY).rename(tmp_path / "copy.pickle.blosc")
    found = only(moved)
    assert same(found, candles_at(hours(0, 6)))
    assert found.last_closed
    said = found.said
    assert (said.exchange, said.market_type, said.timeframe, said.symbol) == (
        "binance", MarketType.SPOT, H1, BTC,
    )  # fmt: skip


PRO = SHARED / "candles" / "pro_pickles"


@pytest.mark.skipif(
    not PRO.is_dir(), reason="needs real VectorBT PRO files, not part of the project"
)
class TestRealProFiles:
    """Files that VectorBT PRO wrote in May 2025."""

    def test_the_candles_are_those_recovered_earlier(self) -> None:
        """Compared by value with what was published from these very files."""
        parquet = pytest.importorskip("pyarrow.parquet")
        (path,) = PRO.glob("bybit_spot_1h__*")
        found = series(path)
        for symbol in (BTC, ETH, "DOGE/USDT"):
            name = f"bybit_spot_1h_{symbol.replace('/', '-')}.parquet"
            expected = parquet.read_table(PRO.parent / name).to_pandas()
            rows = found[symbol].rows
            assert rows is not None
            present = ~np.isnan(rows.values).all(axis=1)
            # Published were closed candles; the file's last one was not.
            times = expected["timestamp"].astype("datetime64[ms, UTC]").astype("int64")
            assert rows.open_time[present][:-1].tolist() == times.tolist()
            values = expected[[name.lower() for name in COLUMNS]].to_numpy()
            assert rows.values[present][:-1].tolist() == values.tolist()
            assert found[symbol].said.exchange == "bybit"

    def test_uncompressed_they_are_read_as_well(self, tmp_path: Path) -> None:
        """The suffix does not matter, the first byte does."""
        import blosc2

        (path,) = PRO.glob("binance_spot_1h__*")
        raw = tmp_path / "x.pickle"
        raw.write_bytes(blosc2.decompress2(path.read_bytes()))
        mine, theirs = only(raw).rows, only(path).rows
        assert mine is not None
        assert theirs is not None
        assert mine.values.tolist() == theirs.values.tolist()

    def test_closes_alone_are_refused_with_the_reason(self) -> None:
        """One of them lost its other columns when it was saved."""
        (path,) = PRO.glob("binance_spot_4h__*")
        found = series(path)
        assert len(found) == 3
        assert all("closes alone" in str(one.problem) for one in found.values())


# ------------------------------------------------------------------ hostile and damaged files


class Evil:
    """Would say so if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("unpickled",))


def bomb_zip() -> bytes:
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.csv", "w") as member,
    ):
        member.write(b"timestamp,open,high,low,close,volume\n")
        row = b"1704067200000,1,1,1,1,1\n" * 50_000
        for _ in range(4):
            member.write(row)
    return file.getvalue()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "zeros": lambda: bytes(100),
    "random": lambda: np.random.default_rng(1).bytes(4000),
    "words": lambda: b"hello world\n" * 20,
    "one long line": lambda: b"1," * 200_000,
    "returns alone": lambda: b"time,open,high\rlow,close,volume,n\n",
    "latin": lambda: "timestamp,open,high,low,close,völume\n".encode("latin-1"),
    "pickled code": lambda: pickle.dumps(Evil(), protocol=4),
    "old pickle": lambda: pickle.dumps({"a": 1}, protocol=2),
    "pickled dict": lambda: pickle.dumps({"BTC/USDT": [1, 2]}, protocol=4),
    "nested code": lambda: pickle.dumps((pickle.dumps(Evil(), 4), b""), protocol=4),
    "cut gzip": lambda: gzip.compress(TEXTS["ccxt"]().encode())[:-20],
    "gzip twice": lambda: gzip.compress(gzip.compress(b"x,")),
    "cut zip": lambda: bomb_zip()[:-30],
    "zip bomb": bomb_zip,
    "gzip bomb": lambda: gzip.compress(b"\n" * (2 << 20)),
    "parquet magic": lambda: b"PAR1" + bytes(60) + b"PAR1",
    "feather magic": lambda: b"ARROW1\0\0" + bytes(60) + b"ARROW1",
    "sqlite": lambda: b"SQLite format 3\0" + bytes(4000),
    "old feather": lambda: b"FEA1" + bytes(60),
    "hdf5 magic": lambda: b"\x89HDF\r\n\x1a\n" + bytes(600),
    "blosc header": lambda: b"\x05\x01" + b"\xff" * 60,
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_a_typed_error_that_names_it(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the bytes, nothing runs, nothing is exhausted, and the file is named."""
    monkeypatch.setattr("backtester.data.importing.opening._HARMLESS", 1 << 20)
    path = tmp_path / "candles.bin"
    path.write_bytes(HOSTILE[kind]())
    with pytest.raises(CorruptDatasetError) as caught:
        series(path)
    assert str(path) in str(caught.value)
    assert caught.value.path.startswith(str(path))
    assert capsys.readouterr().out == ""


def test_a_row_of_another_width_is_a_problem(tmp_path: Path) -> None:
    """A cut row could shift every cell behind it."""
    (tmp_path / "x.csv").write_text(TEXTS["ccxt"]() + "1704067200000,1\n")
    assert "2 cells" in str(only(tmp_path / "x.csv").problem)


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_damaged_arrow_files(suffix: str, tmp_path: Path) -> None:
    """Cut anywhere they are refused; altered anywhere they are refused or read without harm."""
    pytest.importorskip("pyarrow")
    path = tmp_path / f"x.{suffix}"
    (_parquet if suffix == "parquet" else _feather)(path, flat())
    sound = path.read_bytes()
    rng = np.random.default_rng(5)
    for cut in rng.integers(8, len(sound) - 1, 20):
        path.write_bytes(sound[:cut])
        with pytest.raises(CorruptDatasetError, match=str(path)):
            series(path)
    named = set()
    for at in rng.integers(8, len(sound) - 8, 60):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :])
        try:
            series(path)
        except CorruptDatasetError as error:
            named.add(error.path)
    assert named == {str(path)}


def test_hdf5_runs_nothing(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pickle in any attribute or cell is left alone: PyTables would load it on opening."""
    import h5py
    import tables

    frame().to_hdf(store, key="BTC_USDT", format="table")
    frame().assign(note=["x"] * 30).to_hdf(store, key="ETH_USDT", format="fixed")
    code = np.bytes_(pickle.dumps(Evil(), 0))
    with h5py.File(store, "a") as file:
        for node in (file, file["BTC_USDT"], file["BTC_USDT/table"], file["ETH_USDT"]):
            for name in ("TITLE", "FILTERS", "info", "values_cols", "encoding"):
                node.attrs[name] = code
    found = series(store)
    assert same(found["BTC_USDT"])
    assert same(found["ETH_USDT"])
    with h5py.File(store, "a") as file:
        file["BTC_USDT/table"].attrs["values_block_0_kind"] = code
    assert "unknown way" in str(series(store)["BTC_USDT"].problem)
    assert capsys.readouterr().out == ""
    with tables.open_file(store):  # the reason for all this
        pass
    assert "unpickled" in capsys.readouterr().out


def test_hdf5_stays_in_its_file_and_bounds(store: Path) -> None:
    """Links out of the file, cells of other files, and claims of size are refused."""
    import h5py

    secret = store.with_name("secret.bin")
    secret.write_bytes(bytes(30 * 8))
    with h5py.File(store, "w") as file:
        file["away"] = h5py.ExternalLink("other.h5", "/x")
        file["round"] = h5py.SoftLink("/")
        for name in ("timestamp", "open", "high", "low", "close"):
            file[f"BTC_USDT/{name}"] = CANDLES.open_time
            file.create_dataset(f"ETH_USDT/{name}", shape=(2**40,), dtype="f8", chunks=(2**16,))
        file.create_dataset(
            "BTC_USDT/volume", shape=(30,), dtype="f8", external=[(str(secret), 0, 240)]
        )
        file["ETH_USDT/volume"] = np.zeros(30)
    found = series(store)
    assert set(found) == {"BTC_USDT", "ETH_USDT"}
    assert "another file" in str(found["BTC_USDT"].problem)
    assert "claims" in str(found["ETH_USDT"].problem)


def test_damaged_hdf5(store: Path) -> None:
    """Cut or altered anywhere, it is refused or read without harm."""
    frame().to_hdf(store, key="BTC_USDT", format="table", complib="blosc", complevel=5)
    sound = store.read_bytes()
    rng = np.random.default_rng(5)
    named = set()
    for number in range(60):
        at = int(rng.integers(8, len(sound)))
        altered = sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :]
        store.write_bytes(sound[:at] if number % 3 == 0 else altered)
        try:
            series(store)
        except CorruptDatasetError as error:
            named.add(error.path)
    assert named == {str(store)}


# ------------------------------------------------------------------ what is opened at all


def test_a_folder_gives_its_files_and_follows_no_link(tmp_path: Path) -> None:
    """Files of known suffixes, in order, in all folders below."""
    for name in ("b.csv", "deep/a.feather", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.csv").symlink_to(tmp_path / "b.csv")
    (tmp_path / "round").symlink_to(tmp_path)
    assert files_in(tmp_path) == [tmp_path / "b.csv", tmp_path / "deep/a.feather"]


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe would wait for ever."""
    import os

    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "pipe.csv", tmp_path / "missing.csv", tmp_path / "empty"):
        with pytest.raises(OptionError, match=str(path)):
            files_in(path)


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 300], ids=["empty", "null byte", "too long"])
def test_what_is_no_path_is_refused(path: str) -> None:
    """An empty variable of a shell script must not import the current directory."""
    with pytest.raises(OptionError, match=r"cannot import (''|.+): "):
        files_in(path)
