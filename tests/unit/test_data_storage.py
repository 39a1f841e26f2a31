"""The spec's face of the storage, without VectorBT where it is not needed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from backtester.data.candles import Answer, Candles
from backtester.data.errors import DatasetNotFoundError, OptionError
from backtester.data.home import home_in
from backtester.data.model import DatasetKey, Interval, Served
from backtester.data.storage.data_storage import DataStorage

HOUR = 3_600_000
KEY = DatasetKey.of("sandbox", "spot", "1h")


def candle_table(*hours: int) -> Candles:
    return Candles.of([hour * HOUR for hour in hours], [[1.0, 2.0, 0.5, 1.5, 9.0]] * len(hours))


def test_coverage_tells_present_absent_and_never_asked(tmp_path: Path) -> None:
    """Every stretch between the first and the last known time has one of the three states."""
    store = home_in(tmp_path).store
    store.commit(
        KEY,
        [
            Answer("BTC/USDT", Interval(0, 10 * HOUR), Candles.empty(), Served.NOT_LISTED, 1),
            Answer("BTC/USDT", Interval(10 * HOUR, 15 * HOUR), candle_table(10, 11, 13, 14)),
            Answer("BTC/USDT", Interval(20 * HOUR, 21 * HOUR), candle_table(20)),
        ],
    )
    found = DataStorage(tmp_path).get_coverage("sandbox", "1h", "BTCUSDT")
    hours = [(int(t.timestamp()) // 3600) for t in found["start"]]
    assert list(zip(hours, found["state"], found["candles"], strict=True)) == [
        (0, "not_listed", 10),
        (10, "present", 2),
        (12, "no trades", 1),
        (13, "present", 2),
        (15, "never asked", 5),
        (20, "present", 1),
    ]
    assert found["end"].iloc[-1] == pd.Timestamp(21 * HOUR, unit="ms", tz="UTC")


def test_coverage_of_nothing_is_an_error(tmp_path: Path) -> None:
    """A symbol nothing is stored of is an error, not an empty table."""
    with pytest.raises(DatasetNotFoundError):
        DataStorage(tmp_path).get_coverage("sandbox", "1h", "BTC/USDT")


def test_a_misspelled_exchange_gets_a_suggestion(tmp_path: Path) -> None:
    """Nothing is stored of it, and nothing could be."""
    with pytest.raises(DatasetNotFoundError, match="did you mean 'binance'"):
        DataStorage(tmp_path).load_data("binnance", "1h")
    with pytest.raises(DatasetNotFoundError) as caught:
        DataStorage(tmp_path).load_data("binance", "1h")
    assert caught.value.suggestions == []


@pytest.mark.parametrize("storage", ["pickle", "sqlite"])
def test_a_column_of_many_symbols_stands_side_by_side(tmp_path: Path, storage: str) -> None:
    """One index for all, NaN where a symbol has no candle, names as they were asked for."""
    found = {"BTC/USDT": candle_table(0, 1, 2, 5), "ETH/USDT": candle_table(1, 2, 3)}
    home_in(tmp_path, storage).store.commit(
        KEY, [Answer(name, Interval(0, 6 * HOUR), table) for name, table in found.items()]
    )
    data = DataStorage(tmp_path, storage)
    nan = float("nan")
    hours = [pd.Timestamp(hour * HOUR, unit="ms", tz="UTC") for hour in (0, 1, 2, 3, 5)]
    closes = pd.DataFrame(
        {"BTC/USDT": [1.5, 1.5, 1.5, nan, 1.5], "ETH/USDT": [nan, 1.5, 1.5, 1.5, nan]},
        index=pd.DatetimeIndex(hours, name="Open time").as_unit("ns"),
        columns=pd.Index(["BTC/USDT", "ETH/USDT"], name="symbol"),
    )
    pd.testing.assert_frame_equal(data.load_column("Close", "sandbox", "1h"), closes)
    part = data.load_column(
        "Volume", "sandbox", "1h", ["ETHUSDT"], start_date=hours[2], end_date=hours[3]
    )
    assert part.to_dict("list") == {"ETHUSDT": [9.0]}
    assert list(part.index) == [hours[2]]
    none = data.load_column("Open", "sandbox", "1h", "BTC/USDT", start_date=hours[3])
    assert none.to_dict("list") == {"BTC/USDT": [1.0]}
    with pytest.raises(OptionError, match="no column 'vwap'; use one of Open, High"):
        data.load_column("vwap", "sandbox", "1h")
    with pytest.raises(DatasetNotFoundError, match="SOL/USDT"):
        data.load_column("Close", "sandbox", "1h", ["SOL/USDT"])
