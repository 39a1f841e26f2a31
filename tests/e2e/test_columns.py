"""`columns='all'`: what an exchange tells of a candle besides, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from backtester.data import cli, export_data, fetch_data, import_data, load_data, update_data
from backtester.data.candles import COLUMNS, EXTRAS, Candles
from backtester.data.errors import OptionError
from backtester.data.fetching.archives import plan
from backtester.data.fetching.request import FetchRequest
from backtester.data.home import home_in
from backtester.data.model import Interval, Timeframe
from backtester.data.storage.data_storage import DataStorage
from tests.e2e.dialects_support import Serve, serve
from tests.support.world import MARKET, NOON, SECOND, Fault, World, ms, same

__all__ = ["serve"]

BTC, ETH = "BTC/USDT", "ETH/USDT"
DATES = ("2025-06-01", "2025-06-08")


def whole_truth(symbol: str, timeframe: str, start: str, end: str) -> Candles:
    """Give the closed candles there are, with all of Binance's columns."""
    unit = Timeframe.parse(timeframe)
    interval = Interval(ms(start), min(ms(end), unit.floor(NOON - 2 * SECOND)))
    bars = MARKET.bars(symbol, unit, interval, NOON)
    assert bars.decimals is not None
    scale = np.array([10.0**places for places in bars.decimals])
    return Candles(bars.open_time, np.ascontiguousarray(bars.table.T) / scale)


def ask(
    world: World, symbols: Any = BTC, timeframe: str = "1h", *dates: str, **options: Any
) -> Any:
    return world.ask(symbols, timeframe, *(dates or DATES), all_columns=True, **options)


@pytest.mark.parametrize("storage", ["pickle", "sqlite"])
def test_all_columns_are_the_markets(world: World, storage: str) -> None:
    """Fetched, stored, and read again without a request, in either form of the store."""
    assert same(ask(world)[BTC], whole_truth(BTC, "1h", *DATES))
    DataStorage(world.folder).convert("sandbox", "1h", to=storage)
    world.new_process()
    again = ask(world)
    assert again.requests == []
    assert same(again[BTC], whole_truth(BTC, "1h", *DATES))
    plain = world.ask(BTC, "1h", *DATES)
    assert plain.requests == []
    assert same(plain[BTC], whole_truth(BTC, "1h", *DATES).plain())


@pytest.mark.parametrize("exchange", ["bybit", "okx", "kucoin", "gate", "bitget", "mexc"])
def test_others_tell_the_quote_volume(serve: Serve, exchange: str) -> None:
    """Of the exchanges whose rows have it, it is the market's; nothing else is made up."""
    world = serve(exchange)
    dates = ("2025-06-05", "2025-06-10")
    asked = ask(world, BTC, "1h", *dates)
    assert same(asked[BTC], Candles.of(*_first(whole_truth(BTC, "1h", *dates), 6)))
    assert ask(world, BTC, "1h", *dates).requests == []


def _first(table: Candles, width: int) -> tuple[Any, Any]:
    return table.open_time, table.values[:, :width]


def test_what_is_stored_without_is_asked_for_again(world: World) -> None:
    """Only that; no candle counts as revised, and a later plain fetch takes nothing away."""
    world.ask(BTC, "1h", "2025-06-03", "2025-06-05")
    asked = ask(world)
    assert len(asked.pages) == 1
    assert asked.result.revisions == {}
    assert same(asked[BTC], whole_truth(BTC, "1h", *DATES))
    world.ask(BTC, "1h", *DATES, use_cache=False)
    again = ask(world)
    assert again.requests == []
    assert same(again[BTC], whole_truth(BTC, "1h", *DATES))


def test_one_symbol_with_and_one_without(world: World) -> None:
    """In one dataset, and in one object: NaN is what was not asked for."""
    ask(world)
    world.ask(ETH, "1h", *DATES)
    data = load_data("sandbox", "1h", [BTC, ETH], columns="all", data_dir=world.folder)
    assert list(data.data[BTC].columns) == [*COLUMNS, *EXTRAS]
    expected = whole_truth(BTC, "1h", *DATES)
    assert data.data[BTC].to_numpy().tobytes() == np.ascontiguousarray(expected.values).tobytes()
    assert data.get("trades")[ETH].isna().all()
    assert data.get("close")[ETH].tolist() == world.stored(ETH).candles.values[:, 3].tolist()
    slim = load_data("sandbox", "1h", [BTC, ETH], data_dir=world.folder)
    assert list(slim.data[BTC].columns) == list(COLUMNS)


@pytest.mark.parametrize("storage", ["pickle", "sqlite"])
def test_one_column_of_all_symbols(world: World, storage: str) -> None:
    """In any case, further ones too; NaN where a symbol's candles lack it."""
    ask(world)
    world.ask(ETH, "1h", *DATES)
    DataStorage(world.folder).convert("sandbox", "1h", to=storage)
    world.new_process()
    store = DataStorage(world.folder)
    trades = store.load_column("trades", "sandbox", "1h")
    assert trades[BTC].tolist() == whole_truth(BTC, "1h", *DATES).values[:, 6].tolist()
    assert trades[ETH].isna().all()
    closes = store.load_column("close", "sandbox", "1h")
    data = load_data("sandbox", "1h", data_dir=world.folder)
    assert closes.equals(data.get("Close"))
    assert closes.index.equals(data.index)
    assert (closes.index.name, closes.columns.name) == ("Open time", "symbol")
    with pytest.raises(OptionError, match="Taker buy volume"):
        store.load_column("vwap", "sandbox", "1h")


@pytest.mark.parametrize("to", ["parquet", "feather", "csv"])
def test_exports_have_the_columns_that_are_named(world: World, tmp_path: Path, to: str) -> None:
    """Five, or all that are stored; what is imported from them are candles."""
    ask(world)
    for columns, width in (("ohlcv", 5), ("all", 9)):
        (path,) = export_data("sandbox", "1h", to=to, columns=columns, output=tmp_path,
                              data_dir=world.folder)  # fmt: skip
        read = {"parquet": pd.read_parquet, "feather": pd.read_feather, "csv": pd.read_csv}[to]
        frame = read(path)
        names = [name.lower().replace(" ", "_") for name in (*COLUMNS, *EXTRAS)]
        assert list(frame.columns) == ["open_time", *names[:width]]
        expected = whole_truth(BTC, "1h", *DATES).values[:, :width]
        assert np.array_equal(frame[names[:width]].to_numpy(), expected)
        into = tmp_path / columns
        said = ("sandbox", "spot", "1h", BTC) if to == "csv" else ()
        import_data(path, *said, last_is_closed=True, data_dir=into)
        kept = home_in(into).store.read(world.key()).series[BTC].candles
        assert same(kept, whole_truth(BTC, "1h", *DATES).plain())


@pytest.mark.parametrize("storage", ["pickle", "sqlite"])
def test_imports_into_and_out_of_wide_datasets(world: World, tmp_path: Path, storage: str) -> None:
    """A file of five columns takes nothing away from nine; one of nine gives its candles."""
    world.ask(BTC, "1h", *DATES)
    narrow = tmp_path / "sandbox_spot_1h.pickle.blosc"
    narrow.write_bytes((world.folder / narrow.name).read_bytes())
    ask(world)
    wide = tmp_path / "wide" / narrow.name
    wide.parent.mkdir()
    wide.write_bytes((world.folder / narrow.name).read_bytes())
    DataStorage(world.folder).convert("sandbox", "1h", to=storage)
    report = import_data(narrow, data_dir=world.folder)
    assert report.taken == 0
    assert same(world.stored(BTC).candles, whole_truth(BTC, "1h", *DATES))
    import_data(wide, last_is_closed=True, data_dir=tmp_path / "into")
    kept = home_in(tmp_path / "into").store.read(world.key()).series[BTC].candles
    assert same(kept, whole_truth(BTC, "1h", *DATES).plain())


def test_saved_data_keep_them(world: World, tmp_path: Path) -> None:
    """`save_data` stores what the object has."""
    ask(world)
    data = load_data("sandbox", "1h", columns="all", data_dir=world.folder)
    assert DataStorage(tmp_path / "copy").save_data(data, "sandbox", "1h") is True
    kept = home_in(tmp_path / "copy").store.read(world.key()).series[BTC].candles
    assert same(kept, whole_truth(BTC, "1h", *DATES))


def test_minutes_from_archives_have_them_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bulk files have the same columns, and the sample compares them all."""
    monkeypatch.setattr(plan, "FEWEST_FILES", 1)
    dates = ("2025-05-20", "2025-06-03")
    found = ask(world, BTC, "5m", *dates, source=plan.Source.ARCHIVE)
    assert any("/data/" in request.path for request in found.requests)
    assert same(found[BTC], whole_truth(BTC, "5m", *dates))


def test_faulty_pages_do_not_change_it(world: World) -> None:
    """Shuffled and doubled rows keep each candle's own columns."""
    for fault in (Fault.SHUFFLED_ROWS, Fault.DUPLICATE_ROWS):
        world.faults.add(fault, times=1)
    dates = ("2025-03-01", "2025-06-01")
    assert same(ask(world, BTC, "1h", *dates)[BTC], whole_truth(BTC, "1h", *dates))


def test_the_public_door(world: World, tmp_path: Path) -> None:
    """`fetch_data`, its object's `update`, `update_data` and the command know the option."""
    options: dict[str, Any] = {"exchange_config": world.config, "data_dir": world.folder}
    data = fetch_data(BTC, "sandbox", "1h", *DATES, columns="all", **options)
    assert data.get("Trades").tolist() == whole_truth(BTC, "1h", *DATES).values[:, 6].tolist()
    longer = data.update("2025-06-09")
    dates = (DATES[0], "2025-06-09")
    assert (
        longer.get("Quote volume").tolist() == whole_truth(BTC, "1h", *dates).values[:, 5].tolist()
    )
    updated = update_data("sandbox", "1h", end_date="2025-06-10", columns="all", **options)
    dates = (DATES[0], "2025-06-10")
    assert (
        updated.get("Trades")[BTC].tolist() == whole_truth(BTC, "1h", *dates).values[:, 6].tolist()
    )
    with pytest.raises(OptionError, match="'ohlcv' or 'all'"):
        fetch_data(BTC, "sandbox", "1h", *DATES, columns="close", **options)
    with pytest.raises(OptionError, match="exclude each other"):
        FetchRequest(world.key(), (BTC,), all_columns=True, prefer_resampling=True)


def test_the_command_stores_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """--columns all; the account counts the same candles."""
    monkeypatch.setenv("BACKTESTER_SANDBOX_URL", world.server.url)
    words = ["fetch", "-e", "sandbox", "-t", "1h", "-s", BTC, "--start", DATES[0],
             "--end", DATES[1],
             "--columns", "all", "--data-dir", str(world.folder), "--json"]  # fmt: skip
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["symbols"][BTC]["candles"] == 168
    assert same(world.stored(BTC).candles, whole_truth(BTC, "1h", *DATES))
