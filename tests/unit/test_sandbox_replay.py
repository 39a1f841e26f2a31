"""Replaying candle files: bit for bit, only what is there, and never past a damaged file."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtester.data.candles import Candles
from backtester.data.errors import (
    CorruptDatasetError,
    OptionError,
    UnknownSymbolError,
    UnknownTimeframeError,
)
from backtester.data.model import Interval, Timeframe
from backtester.data.sandbox import ReplayMarket, SandboxServer
from backtester.data.sandbox.spelling import plain

HOUR, DAY = 3_600_000, 86_400_000
START = 1_700_000_000_000 - 1_700_000_000_000 % DAY
REAL = Path(__file__).parents[2].parent / "shared" / "candles"
HEADER = ["Open time", "Open", "High", "Low", "Close", "Volume"]
# Values that plain decimals with few digits would not survive.
ROWS = [
    [START, 1e-05, 2.5e-05, 9.1e-06, 1.25e-05, 254270289671127.0],
    [START + HOUR, 0.1, 0.30000000000000004, 0.1, 0.2, 123456.78900000001],
    [START + 3 * HOUR, 3.0, 3.0, 3.0, 3.0, 0.0],
    [START + 4 * HOUR, 4.0, 8.0, 2.0, 6.0, 10.0],
]
HOURS = Timeframe.parse("1h")
EVERYTHING = Interval(0, 2**53)


def write(folder: Path, name: str, rows: list[list[float]], header: list[str] = HEADER) -> Path:
    path = folder / name
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "binance_spot_1h_PEPE-USDT.csv", ROWS)
    write(tmp_path, "binance_spot_1d_ETH-BTC.csv", [[START, 1, 2, 0.5, 1.5, 7]])
    (tmp_path / "README.md").write_text("not candles")
    return tmp_path


def klines(server: SandboxServer, query: str) -> list[list[object]]:
    with urlopen(f"{server.url}/api/v3/klines?{query}", timeout=10) as answer:
        return json.load(answer)


def test_candles_survive_the_file_and_the_wire(folder: Path):
    """Every float of the file comes back from the server in every bit."""
    market = ReplayMarket(folder)
    expected = Candles.of([row[0] for row in ROWS], [row[1:] for row in ROWS])
    assert market.candles("PEPE/USDT", HOURS, EVERYTHING) == expected
    with SandboxServer(market) as server:
        rows = klines(server, "symbol=PEPEUSDT&interval=1h")
    assert Candles.of([row[0] for row in rows], [row[1:6] for row in rows]) == expected
    assert all("e" not in cell for row in rows for cell in row[1:6])
    assert rows[1][6] == START + 2 * HOUR - 1
    assert isinstance(rows[0][8], int)


@settings(deadline=None)
@given(st.floats(min_value=0, allow_infinity=False, allow_nan=False))
def test_decimal_text_is_exact(value: float):
    """The decimal text of any float reads back as the same float, without an exponent."""
    text = plain(value)
    assert float(text) == value
    assert set(text) <= set("0123456789.")


def test_the_clock_stands_behind_the_last_candle(folder: Path):
    """By default everything in the folder has closed, and nothing comes after."""
    market = ReplayMarket(folder)
    assert START + DAY < market.end_ms <= START + DAY + HOUR
    with SandboxServer(market) as server:
        with urlopen(f"{server.url}/api/v3/time", timeout=10) as answer:
            assert json.load(answer) == {"serverTime": market.end_ms}
        assert len(klines(server, "symbol=ETHBTC&interval=1d")) == 1


def test_only_timeframes_of_the_folder_are_served(folder: Path):
    """Another timeframe is Binance's -1120, also when only this symbol lacks it."""
    with SandboxServer(ReplayMarket(folder)) as server:
        for query in ("symbol=PEPEUSDT&interval=4h", "symbol=PEPEUSDT&interval=1d"):
            with pytest.raises(HTTPError) as failure:
                klines(server, query)
            with failure.value as answer:
                assert json.load(answer)["code"] == -1120
    market = ReplayMarket(folder)
    assert [str(timeframe) for timeframe in market.timeframes] == ["1h", "1d"]
    with pytest.raises(UnknownTimeframeError, match="there is 1d"):
        market.candles("ETH/BTC", HOURS, EVERYTHING)
    with pytest.raises(UnknownSymbolError, match="there is ETH/BTC, PEPE/USDT"):
        market.candles("BTC/USDT", HOURS, EVERYTHING)


def test_listings_are_spot_with_the_decimals_it_takes(folder: Path):
    """Symbols are spot from their first candle on, with ticks fine enough for all values."""
    market = ReplayMarket(folder)
    listing = next(item for item in market.listings("spot") if item.symbol == "ETH/BTC")
    assert (listing.price_decimals, listing.lot_decimals) == (1, 0)
    assert (listing.listed_ms, listing.delisted_ms) == (START, None)
    assert market.listings("swap") == []
    assert len(market.listings()) == 2


def test_a_clock_of_ones_own_cuts_the_running_candle(folder: Path):
    """A candle is shown in part while it runs, and not before it opens."""
    market = ReplayMarket(folder)
    opened = START + 4 * HOUR

    def shown(now_ms: int) -> list[list[str]]:
        bars = market.bars("PEPE/USDT", HOURS, Interval(opened, opened + HOUR), now_ms)
        return bars.table[:5].T.tolist()

    assert shown(opened) == []
    assert shown(opened + HOUR // 2) == [["4", "6", "3", "5", "5"]]
    assert shown(opened + HOUR) == [["4", "8", "2", "6", "10"]]


def test_a_ticker_is_the_last_day(folder: Path):
    """Volume and extremes are those of the finest candles of the last 24 hours."""
    market = ReplayMarket(folder)
    ticker = market.ticker("PEPE/USDT", START + 5 * HOUR)
    assert ticker.volume == sum(row[5] for row in ROWS)
    assert (ticker.open, ticker.last) == (1e-05, 6.0)
    assert (ticker.high, ticker.low) == (8.0, 9.1e-06)
    later = market.ticker("PEPE/USDT", START + 40 * DAY)
    assert (later.volume, later.last) == (0.0, 6.0)
    assert market.ticker("PEPE/USDT", START).last == 0.0


def test_a_folder_of_two_exchanges_needs_a_name(folder: Path):
    """One series of two exchanges is a question back, not a silent choice."""
    write(folder, "bybit_spot_1h_PEPE-USDT.csv", ROWS[:1])
    with pytest.raises(OptionError, match="two exchanges"):
        ReplayMarket(folder)
    assert len(ReplayMarket(folder, "bybit").candles("PEPE/USDT", HOURS, EVERYTHING)) == 1


def test_other_market_types_are_skipped_aloud(folder: Path, caplog: pytest.LogCaptureFixture):
    """A swap's file is not passed off as a spot market, and the log says so."""
    write(folder, "binance_swap_1h_BTC-USDT.csv", ROWS)
    market = ReplayMarket(folder)
    assert "BTC/USDT" not in [item.symbol for item in market.listings()]
    assert "binance_swap_1h_BTC-USDT.csv" in caplog.text


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        ([], HEADER, "no column|no candles"),
        (ROWS, ["Time", *HEADER[1:]], "open time"),
        (ROWS, [*HEADER[:4], "Price", "Volume"], "close"),
        ([[START + 1, 1, 1, 1, 1, 1]], HEADER, "grid"),
        ([[START, 1, 1, 2, 1, 1]], HEADER, "outside its low and high"),
        ([[START, 1, "one", 1, 1, 1]], HEADER, "one"),
        ([[START, 1, 1]], HEADER, "no column"),
        ([ROWS[0], [*ROWS[0][:5], 1.0]], HEADER, "came twice"),
    ],
)
def test_damage_names_the_file(
    tmp_path: Path, rows: list[list[float]], header: list[str], words: str
):
    """A file that does not hold what its name says is an error that names it."""
    path = write(tmp_path, "binance_spot_1h_BTC-USDT.csv", rows, header)
    with pytest.raises(CorruptDatasetError, match=words) as failure:
        ReplayMarket(tmp_path)
    assert failure.value.path == path


def test_nothing_to_replay(tmp_path: Path):
    """An empty or missing folder is an error of the caller."""
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(OptionError, match="nothing to replay"):
            ReplayMarket(folder)


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The optional library is named with the way to get it."""
    (tmp_path / "binance_spot_1h_BTC-USDT.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OptionError, match="pip install pyarrow"):
        ReplayMarket(tmp_path)


@pytest.mark.parametrize("timestamps", [False, True])
def test_parquet_files_hold_the_same(tmp_path: Path, timestamps: bool):
    """Parquet is read like CSV, with open times as integers or as timestamps of any unit."""
    pa = pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
    from pyarrow import parquet

    columns = dict(zip(HEADER, map(list, zip(*ROWS, strict=True)), strict=True))
    if timestamps:
        moments = np.array(columns.pop("Open time"), "datetime64[ms]").astype("datetime64[ns]")
        columns = {"timestamp": pa.array(moments), **columns}
    path = tmp_path / "binance_spot_1h_PEPE-USDT.parquet"
    parquet.write_table(pa.table(columns), path)
    expected = Candles.of([row[0] for row in ROWS], [row[1:] for row in ROWS])
    assert ReplayMarket(tmp_path).candles("PEPE/USDT", HOURS, EVERYTHING) == expected
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptDatasetError, match="PEPE"):
        ReplayMarket(tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="the folder of real candles is not there")
def test_real_candles_replay_bit_for_bit():
    """Real markets, with their gaps and odd floats, come back from the wire as they were stored."""
    pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
    from pyarrow import parquet

    market = ReplayMarket(REAL)
    assert len(market.listings()) >= 5
    with SandboxServer(market) as server:
        for path in sorted(REAL.glob("*.parquet")):
            _, _, text, pair = path.stem.split("_")
            stored = parquet.read_table(path)
            rows = klines(
                server, f"symbol={pair.replace('-', '')}&interval={text}&startTime=0&limit=1000"
            )
            count = len(rows)
            assert count == min(1000, stored.num_rows)
            for at, name in enumerate(("open", "high", "low", "close", "volume"), start=1):
                assert [float(row[at]) for row in rows] == stored[name].to_pylist()[:count]
