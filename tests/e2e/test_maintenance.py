"""Looking after what is stored: verify, repair, convert, export, history, delete."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from backtester.data import DataStorage, cli, export_data, import_data, load_data, maintenance
from backtester.data.candles import COLUMNS, EXTRAS, Candles, Series
from backtester.data.errors import CorruptDatasetError, DatasetNotFoundError, OptionError
from backtester.data.home import home_in
from tests.support.world import HOUR, World, ms, same, truth

BTC, ETH = "BTC/USDT", "ETH/USDT"
DATES = ("2025-05-20", "2025-06-10")
HERE = ("-e", "sandbox", "-t", "1h")


@pytest.fixture(params=["pickle", "sqlite"])
def stocked(request: pytest.FixtureRequest, world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with two symbols stored, in either form."""
    monkeypatch.setenv("BACKTESTER_SANDBOX_URL", world.server.url)
    monkeypatch.setenv("BACKTESTER_DATA_DIR", str(world.folder))
    world.ask([BTC, ETH], "1h", *DATES)
    DataStorage(world.folder).convert("sandbox", "1h", to=request.param)
    world.new_process()
    return world


def command(*words: str) -> Any:
    result = CliRunner().invoke(cli.app, list(words), prog_name="vbt-data")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def told(*words: str) -> tuple[int, Any]:
    result = command(*words, "--json")
    return result.exit_code, json.loads(result.stdout)


def damage(world: World) -> Path:
    """Change one byte of the candles of a dataset's file."""
    path = home_in(world.folder).store.path(world.key())
    raw = bytearray(path.read_bytes())
    at = raw.find(b"VBC") + 300 if path.suffix == ".sqlite" else 1_000
    raw[at] ^= 4
    path.write_bytes(raw)
    world.new_process()
    return path


def test_a_sound_store_verifies(stocked: World) -> None:
    """Nothing is found, nothing is changed, exit 0."""
    before = stocked.files()
    assert told("verify") == (
        0, {"datasets": 1, "problems": [], "repaired": {}, "failures": {}}
    )  # fmt: skip
    assert stocked.files() == before
    assert "0 problems" in command("verify", "-e", "sandbox").stdout
    assert told("verify", "-e", "binance")[1]["datasets"] == 0


def test_damage_is_found_and_repaired(stocked: World) -> None:
    """Verification names file, symbol and time; repair sets the file aside and fetches just that
    again; everything is as the market has it."""
    path, sent = damage(stocked), len(stocked.server.requests)
    code, account = told("verify")
    assert code == 1
    assert stocked.sent(sent) == []
    symbols = [one["symbol"] for one in account["problems"]]
    assert len(symbols) == (1 if path.suffix == ".sqlite" else 2)
    for one in account["problems"]:
        assert (one["start_ms"], one["end_ms"]) == (ms(DATES[0]), ms(DATES[1]))
        assert str(path) in one["what"]
    code, account = told("verify", "--repair")
    assert code == 0
    assert list(account["repaired"]["sandbox_spot_1h"]["asked_again"]) == symbols
    assert {one.id for one in map(_page, stocked.sent(sent)) if one} == {
        symbol.replace("/", "") for symbol in symbols
    }
    assert path.with_name(f"{path.name}.damaged-1").exists()
    for symbol in (BTC, ETH):
        assert same(stocked.stored(symbol).candles.plain(), truth(symbol, "1h", *DATES))
    assert told("verify")[0] == 0


def _page(request: Any) -> Any:
    from tests.support.world import pages_of

    return next(iter(pages_of([request])), None)


def test_a_repair_brings_further_columns_back(stocked: World) -> None:
    """Nobody knows any more whether what was damaged had them."""
    stocked.ask([BTC, ETH], "1h", *DATES, all_columns=True)
    damage(stocked)
    assert told("verify", "--repair")[0] == 0
    stocked.new_process()
    again = stocked.ask([BTC, ETH], "1h", *DATES, all_columns=True)
    assert again.requests == []
    assert again[BTC].columns == (*COLUMNS, *EXTRAS)


def test_candles_that_break_a_rule_are_fetched_again(stocked: World) -> None:
    """Sound bytes may still hold what cannot be: those candles go, and come as they should."""
    store, key = home_in(stocked.folder).store, stocked.key()
    series = store.read(key, [BTC]).series[BTC]
    values, times = series.candles.values.copy(), series.candles.open_time.copy()
    values[50:52, 1] = 0.0
    times[200] += HOUR // 2
    store.mend(key, {BTC: Series(Candles(times, values), series.coverage)})
    stocked.new_process()
    code, account = told("verify")
    assert code == 1
    assert [(one["symbol"], one["what"]) for one in account["problems"]] == [
        (BTC, "a candle is off the 1h grid"),
        (BTC, "a candle has an open or close outside its low and high"),
    ]
    assert told("verify", "--repair")[0] == 0
    assert same(stocked.stored(BTC).candles.plain(), truth(BTC, "1h", *DATES))
    assert told("verify")[0] == 0


def test_a_repair_that_cannot_fetch_says_so(stocked: World) -> None:
    """The problem is out of the store, what is missing is known to be missing, exit 1."""
    damage(stocked)
    stocked.server.stop()
    home = home_in(stocked.folder)
    problems = maintenance.verify(home, stocked.key())
    done = maintenance.repair(
        home, stocked.key(), problems, {**stocked.config, "sandboxUrl": "http://127.0.0.1:9"}
    )
    assert done.failures.keys() == done.asked.keys() == {one.symbol for one in problems}
    for symbol, interval in done.asked.items():
        left = home.store.read(stocked.key()).series.get(symbol, Series())
        assert left.coverage.missing(interval) == [interval]


def test_a_file_of_which_nothing_is_known(stocked: World) -> None:
    """It is set aside, and told as lost from sight; a later fetch asks for what it wants."""
    path = home_in(stocked.folder).store.path(stocked.key())
    path.write_bytes(b"x" * 40_000)
    stocked.new_process()
    code, account = told("verify", "--repair")
    assert code == 0
    (repaired,) = account["repaired"].values()
    assert repaired["asked_again"] == {}
    assert len(repaired["lost_from_sight"]) == 1
    assert same(stocked.ask(BTC, "1h", *DATES)[BTC], truth(BTC, "1h", *DATES))


# ------------------------------------------------------------------------ history


def test_history_tells_what_was_revised(stocked: World) -> None:
    """From what, to what and when; and the store can be read as it was."""
    at, before = ms("2025-06-05T03:00"), stocked.stored(BTC).candles
    old = before.values[np.searchsorted(before.open_time, at)].tolist()
    new = [old[0], old[1] + 1.0, old[2], old[3], old[4] * 2]
    stocked.faults.revise(BTC, "1h", at, new)
    earlier = stocked.clock.now_ms
    stocked.clock.now_ms += 2 * HOUR
    stocked.ask(BTC, "1h", *DATES, use_cache=False)
    code, account = told("history", BTC, *HERE)
    assert code == 0
    (one,) = account["revisions"]
    assert (one["open_ms"], one["old"], one["new"]) == (at, old, new)
    assert earlier - HOUR < one["old_asked_ms"] <= earlier < one["new_asked_ms"]
    shown = command("history", "BTCUSDT", *HERE).stdout
    assert f"{new[1]!r}" in shown
    was = load_data("sandbox", "1h", [BTC], as_of=earlier, data_dir=stocked.folder)
    now = load_data("sandbox", "1h", [BTC], data_dir=stocked.folder)
    assert was.get("Close")[BTC].tolist() == before.values[:, 3].tolist()
    assert now.get("High")[BTC].iloc[np.searchsorted(before.open_time, at)] == new[1]
    assert told("history", ETH, *HERE)[1]["revisions"] == []


# ------------------------------------------------------------------------ convert, delete


def test_convert_there_and_back(stocked: World) -> None:
    """The dataset answers the same from either form, without a request."""
    sent = len(stocked.server.requests)
    for form, suffix in (("sqlite", ".candles.sqlite"), ("pickle", ".pickle.blosc")):
        code, account = told("convert", "--to", form, *HERE)
        assert code == 0
        assert account["file"].endswith(suffix)
        stocked.new_process()
        assert same(stocked.ask(BTC, "1h", *DATES)[BTC], truth(BTC, "1h", *DATES))
        (summary,) = DataStorage(stocked.folder).get_storage_summary()["files"].values()
        assert summary["symbols"] == [BTC, ETH]
    assert stocked.sent(sent) == []
    assert command("convert", "--to", "auto", *HERE).exit_code == 2
    assert command("convert", "--to", "sqlite", "-e", "sandbox", "-t", "5m").exit_code == 1


def test_delete_asks_first(stocked: World) -> None:
    """Without a yes nothing goes; then exactly what was named."""
    assert command("delete", *HERE).exit_code == 1
    assert DataStorage(stocked.folder).get_stored_symbols("sandbox", "1h") == [BTC, ETH]
    assert told("delete", *HERE, "-s", "ETHUSDT", "--yes") == (0, {"deleted": [ETH]})
    assert DataStorage(stocked.folder).get_stored_symbols("sandbox", "1h") == [BTC]
    assert told("delete", *HERE, "--yes")[0] == 0
    assert not DataStorage(stocked.folder).data_exists("sandbox", "1h")
    assert stocked.files() == {}, "what moves left is gone too"
    with pytest.raises(DatasetNotFoundError):
        DataStorage(stocked.folder).delete("sandbox", "1h")


# ------------------------------------------------------------------------ export


@pytest.mark.parametrize("to", ["parquet", "feather"])
def test_what_is_exported_comes_back_whole(stocked: World, tmp_path: Path, to: str) -> None:
    """Every bit, with units and origin in the file: importing it needs no flag."""
    files = export_data("sandbox", "1h", to=to, output=tmp_path, data_dir=stocked.folder)
    assert [path.relative_to(tmp_path).as_posix() for path in files] == [
        f"sandbox_spot_1h/BTC-USDT/2025.{to}", f"sandbox_spot_1h/ETH-USDT/2025.{to}",
    ]  # fmt: skip
    import pyarrow as pa
    from pyarrow import feather, parquet

    table = (parquet if to == "parquet" else feather).read_table(files[0])
    assert table.schema.field("open_time").type == pa.timestamp("ms", tz="UTC")
    units = {field.name: field.metadata and field.metadata.get(b"unit") for field in table.schema}
    assert units == {
        "open_time": None, "open": b"USDT", "high": b"USDT", "low": b"USDT", "close": b"USDT",
        "volume": b"BTC",
    }  # fmt: skip
    report = import_data(files, data_dir=tmp_path / "elsewhere")
    assert report.taken == 2 * len(truth(BTC, "1h", *DATES))
    kept = home_in(tmp_path / "elsewhere").store.read(stocked.key())
    for symbol in (BTC, ETH):
        assert same(kept.series[symbol].candles, truth(symbol, "1h", *DATES))


def test_csv_keeps_every_digit(stocked: World, tmp_path: Path) -> None:
    """It comes back whole, too; numbers are the same floats, times epoch milliseconds."""
    files = export_data("sandbox", "1h", to="csv", output=tmp_path, data_dir=stocked.folder)
    assert import_data(tmp_path / "sandbox_spot_1h", data_dir=tmp_path / "elsewhere").failures == {}
    kept = home_in(tmp_path / "elsewhere").store.read(stocked.key())
    for symbol in (BTC, ETH):
        assert same(kept.series[symbol].candles, truth(symbol, "1h", *DATES))
    assert len(files) == 2
    (path,) = export_data("sandbox", "1h", BTC, to="csv", start_date="2025-06-01",
                          output=tmp_path, data_dir=stocked.folder)  # fmt: skip
    with path.open() as file:
        header, *rows = csv.reader(file)
    assert header == ["open_time", "open", "high", "low", "close", "volume"]
    found = Candles.of([int(row[0]) for row in rows], [list(map(float, row[1:])) for row in rows])
    assert same(found, truth(BTC, "1h", "2025-06-01", DATES[1]))


def test_duckdb_holds_one_table(stocked: World, tmp_path: Path) -> None:
    """All symbols in it, queried like any other table; writing it again replaces it."""
    duckdb = pytest.importorskip("duckdb")
    for _ in range(2):
        (path,) = export_data("sandbox", "1h", to="duckdb", output=tmp_path,
                              data_dir=stocked.folder)  # fmt: skip
    with duckdb.connect(str(path), read_only=True) as database:
        rows = database.execute(
            "SELECT epoch_ms(open_time), open, high, low, close, volume FROM candles "
            "WHERE symbol = ? ORDER BY 1", [ETH],
        ).fetchall()  # fmt: skip
    found = Candles.of([row[0] for row in rows], [row[1:] for row in rows])
    assert same(found, truth(ETH, "1h", *DATES))
    with pytest.raises(CorruptDatasetError, match="DuckDB files are not read here"):
        import_data(path)


@pytest.mark.parametrize("to", ["parquet", "feather", "duckdb"])
def test_an_export_without_its_library_makes_no_folder(
    stocked: World, tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OptionError, match=r"pip install .*pyarrow\Z"):
        export_data("sandbox", "1h", to=to, output=tmp_path / "out", data_dir=stocked.folder)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported(stocked: World, tmp_path: Path) -> None:
    """An unknown format and an unknown symbol are told, and nothing is written."""
    with pytest.raises(OptionError, match="parquet, feather, csv, duckdb"):
        export_data("sandbox", "1h", to="xlsx", output=tmp_path, data_dir=stocked.folder)
    with pytest.raises(DatasetNotFoundError, match="XRP"):
        export_data("sandbox", "1h", "XRP/USDT", output=tmp_path, data_dir=stocked.folder)
    assert list(tmp_path.glob("sandbox*")) == []
