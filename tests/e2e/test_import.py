"""Importing into a data directory: what is stored, told and refused, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from backtester.data import import_data
from backtester.data.candles import Candles
from backtester.data.cli import app
from backtester.data.errors import (
    CandleError,
    CorruptDatasetError,
    FetchWarning,
    NothingImportedError,
    OptionError,
    UnknownExchangeError,
    UnknownSymbolError,
)
from backtester.data.model import DatasetKey, Served
from tests.support.processes import SHARED
from tests.support.world import DAY, HOUR, World, ms, same, truth

BTC, ETH = "BTC/USDT", "ETH/USDT"
FIRST = ms("2025-06-01")
PRO = SHARED / "candles" / "pro_pickles"


def written(path: Path, candles: Candles) -> Path:
    """Write candles as rows of ccxt."""
    rows = zip(candles.open_time.tolist(), candles.values.tolist(), strict=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{time},{','.join(map(repr, row))}\n" for time, row in rows))
    return path


def hourly(symbol: str = BTC, first: str = "2025-06-01", last: str = "2025-06-03") -> Candles:
    return truth(symbol, "1h", first, last)


def shifted(candles: Candles, by: float = 1.0) -> Candles:
    return Candles(candles.open_time.copy(), candles.values + np.array([by] * 4 + [0.0]))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "sandbox_spot_1h_BTC-USDT.csv", hourly())


# ------------------------------------------------------------------ what is stored


def test_an_import_is_stored_and_a_fetch_asks_for_the_rest(world: World, file: Path) -> None:
    """Imported candles are not asked for again; everything else is, the last row included."""
    report = import_data(file)
    (one,) = report.series
    assert (one.new, one.skipped) == (47, {"last row, perhaps unfinished": 1})
    assert same(
        world.stored(BTC).candles, hourly().take(hourly().open_time < hourly().open_time[-1])
    )
    assert {span.served for span in world.stored(BTC).coverage} == {Served.GIVEN}
    asked = world.ask(BTC, start="2025-05-31", end="2025-06-04")
    assert same(asked[BTC], truth(BTC, "1h", "2025-05-31", "2025-06-04"))
    asked_for = {
        time for page in asked.pages for time in range(page.start or 0, page.end or 0, HOUR)
    }
    assert asked_for.isdisjoint(hourly().open_time[:-1].tolist())
    assert int(hourly().open_time[-1]) in asked_for


def test_a_second_import_takes_nothing_and_touches_no_file(world: World, file: Path) -> None:
    """Idempotent, to the last bit of the dataset's file."""
    import_data(file)
    before = world.files()
    again = import_data(file)
    assert (again.taken, again.series[0].known) == (0, 47)
    assert world.files() == before


def test_gaps_of_a_file_are_asked_for(world: World, tmp_path: Path) -> None:
    """A file proves nothing by what it lacks."""
    whole = hourly()
    holed = whole.take(
        (whole.open_time < FIRST + 10 * HOUR) | (whole.open_time >= FIRST + 20 * HOUR)
    )
    import_data(written(tmp_path / "sandbox_spot_1h_BTC-USDT.csv", holed), last_is_closed=True)
    asked = world.ask(BTC, start="2025-06-01", end="2025-06-03")
    assert same(asked[BTC], whole)
    assert [(page.start, page.end) for page in asked.pages] == [
        (FIRST + 10 * HOUR, FIRST + 20 * HOUR)
    ]


def test_nothing_stored_is_narrowed_and_the_exchanges_word_stays(
    world: World, tmp_path: Path
) -> None:
    """Law 4, and law 1: an answer of the exchange outlives every import."""
    world.ask(BTC, start="2025-06-01", end="2025-06-03")
    before = world.files()
    wrong = written(tmp_path / "sandbox_spot_1h_BTC-USDT.csv", shifted(hourly(last="2025-06-04")))
    report = import_data(wrong)
    (one,) = report.series
    assert (one.new, len(one.kept)) == (23, 48)
    assert one.account()["differences"][0]["stored"] == hourly().values[0].tolist()
    assert same(world.ask(BTC, start="2025-06-01", end="2025-06-03")[BTC], hourly())
    assert before.keys() == world.files().keys()


def test_candles_handed_in_before_become_revisions(
    world: World, file: Path, tmp_path: Path
) -> None:
    """What the last file said is logged, and what this one says is stored."""
    import_data(file, last_is_closed=True)
    other = written(tmp_path / "other" / file.name, shifted(hourly()))
    report = import_data(other, last_is_closed=True)
    assert report.series[0].revised == 48
    stored = world.stored(BTC)
    assert same(stored.candles, shifted(hourly()))
    assert [r.old for r in stored.revisions] == [tuple(row) for row in hourly().values]


def test_where_it_came_from_is_noted(world: World, file: Path) -> None:
    """The dataset remembers the file, its fingerprint, and what it brought."""
    import hashlib

    import_data(file)
    (noted,) = world.home.store.read(world.key()).metadata["imports"].values()
    assert noted == {
        "file": file.name,
        "bytes": file.stat().st_size,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "imported_ms": world.clock(),
        "candles": {BTC: 47},
    }


def test_files_of_one_name_are_both_noted(world: World, file: Path, tmp_path: Path) -> None:
    """Folders of years hold files of the same names."""
    later = written(tmp_path / "later" / file.name, hourly(first="2025-06-05", last="2025-06-06"))
    import_data([file, later])
    noted = world.home.store.read(world.key()).metadata["imports"].values()
    assert [one["candles"] for one in noted] == [{BTC: 47}, {BTC: 23}]


def test_a_dry_run_touches_nothing(world: World, file: Path) -> None:
    """It tells what would be taken."""
    report = import_data(file, dry_run=True)
    assert (report.taken, report.account()["dry_run"]) == (47, True)
    assert world.files() == {}


def test_many_files_of_one_symbol_and_many_symbols(world: World, tmp_path: Path) -> None:
    """Months of an archive join without a seam, each proving that its last candle was over."""
    folder = tmp_path / "spot"
    for day in (1, 2, 3):
        for symbol in (BTC, ETH):
            name = f"{symbol.replace('/', '')}-1h-2025-06-{day:02}.csv"
            day_of = truth(symbol, "1h", FIRST + (day - 1) * DAY, FIRST + day * DAY)
            written(folder / name, day_of)
    import_data(folder, "sandbox")
    for symbol in (BTC, ETH):
        assert same(world.stored(symbol).candles, hourly(symbol, last="2025-06-04"))
        assert len(world.stored(symbol).coverage.spans) == 1


def test_a_large_import_is_committed_in_parts(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What memory holds back is bounded."""
    monkeypatch.setattr("backtester.data.importing.importer._FLUSH_BYTES", 1)
    for symbol in (BTC, ETH):
        written(tmp_path / "in" / f"sandbox_spot_1h_{symbol.replace('/', '-')}.csv", hourly(symbol))
    assert import_data(tmp_path / "in").taken == 94
    assert import_data(tmp_path / "in").taken == 0


def test_an_import_into_sqlite(world: World, file: Path) -> None:
    """The same candles, coverage and provenance in the other form of storage."""
    import_data(file, storage="sqlite")
    assert next(iter(world.files())) == "sandbox_spot_1h.candles.sqlite"
    assert same(world.stored(BTC).candles, hourly(last="2025-06-02 23:00"))
    assert "imports" in world.home.store.read(world.key()).metadata
    assert import_data(file).taken == 0


def test_a_damaged_dataset_is_set_aside_and_told(world: World, file: Path) -> None:
    """Law 7: damage is not emptiness, and is kept."""
    import_data(file)
    path = world.folder / "sandbox_spot_1h.pickle.blosc"
    path.write_bytes(path.read_bytes()[:-100])
    report = import_data(file)
    assert report.taken == 47
    assert "set aside" in report.notes[0]
    assert (world.folder / f"{path.name}.damaged-1").exists()


# ------------------------------------------------------------------ what it is of


def test_flags_count_more_than_names_and_are_told(world: World, file: Path) -> None:
    """Spot candles under a swap's name, and the other way round, were seen in the wild."""
    report = import_data(file, market_type="swap", symbol="BTC/USDT:USDT")
    assert report.series[0].key == DatasetKey.of("sandbox", "swap", "1h")
    assert "market type: swap and spot" in report.series[0].notes[0]


@pytest.mark.parametrize(
    ("name", "flags", "match"),
    [
        ("BTC-USDT_1h.csv", {}, "the exchange"),
        ("BTC-USDT_1h.csv", {"exchange_id": "sandbox"}, "the market type"),
        ("BTC-USDT.csv", {"exchange_id": "sandbox", "market_type": "spot"}, "timeframe 1h"),
        ("sandbox_spot_1h.csv", {}, "the symbol"),
    ],
)
def test_what_is_said_nowhere_is_asked_for(
    world: World, tmp_path: Path, name: str, flags: dict[str, str], match: str
) -> None:
    """An exchange, a market or a length of candles is never assumed."""
    with pytest.raises(OptionError, match=match):
        import_data(written(tmp_path / name, hourly()), **flags)  # type: ignore[arg-type]
    assert world.files() == {}


def test_a_misspelled_exchange_makes_no_dataset(world: World, file: Path) -> None:
    """It would never be fetched into."""
    with pytest.raises(UnknownExchangeError, match="binance"):
        import_data(file, "binnance")


def test_an_ambiguous_symbol_is_asked_for(world: World, tmp_path: Path) -> None:
    """A swap of BTC/USD may be settled in either; known markets decide."""
    path = written(tmp_path / "sandbox_swap_1h_BTC-USD.csv", hourly())
    with pytest.raises(UnknownSymbolError, match="name it in full"):
        import_data(path)
    assert import_data(path, symbol="BTC/USD:BTC").series[0].symbol == "BTC/USD:BTC"


def test_known_markets_tell_what_a_name_means(world: World, tmp_path: Path) -> None:
    """After a fetch, the exchange's own list does."""
    world.ask(BTC, start="2025-06-01", end="2025-06-02")
    path = written(tmp_path / "sandbox_spot_1h_BTCUSDT.csv", hourly())
    (one,) = import_data(path).series
    assert (one.symbol, one.known, one.new) == (BTC, 24, 23)
    path = written(tmp_path / "sandbox_spot_1h_NOPE-USDT.csv", hourly())
    assert "not among the markets" in import_data(path).series[0].notes[0]


def test_content_and_name_in_contradiction_are_refused(world: World, tmp_path: Path) -> None:
    """Which of the two lies, only the user knows."""
    world.ask(BTC, start="2025-06-01", end="2025-06-02")
    source = world.folder / "sandbox_spot_1h.pickle.blosc"
    copy = tmp_path / "okx_spot_1h.pickle.blosc"
    copy.write_bytes(source.read_bytes())
    with pytest.raises(OptionError, match="exchange: sandbox and okx"):
        import_data(copy)
    assert import_data(copy, "okx").taken == 24


def test_one_symbol_of_a_file_of_many(world: World, tmp_path: Path) -> None:
    """Named in any spelling."""
    world.ask([BTC, ETH], start="2025-06-01", end="2025-06-02")
    source = world.folder / "sandbox_spot_1h.pickle.blosc"
    report = import_data(source, symbol="ETHUSDT", data_dir=tmp_path / "new")
    assert [one.symbol for one in report.series] == [ETH]


def labelled(path: Path, rows: dict[str, Candles]) -> Path:
    """Write candles of several symbols into one table, in turn."""
    table = pd.concat(
        [
            pd.DataFrame(candles.values, columns=["open", "high", "low", "close", "volume"]).assign(
                pair=name, time=candles.open_time
            )
            for name, candles in rows.items()
        ]
    ).sort_values(["time", "pair"])
    table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_of_several_symbols_is_told_apart(
    world: World, tmp_path: Path, suffix: str
) -> None:
    """Each row counts for its own symbol; a flag takes one of them."""
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    mixed = {"BTCUSDT": hourly(), "ETHUSDT": hourly(ETH)}
    path = labelled(tmp_path / f"sandbox_spot_1h.{suffix}", mixed)
    with pytest.raises(UnknownSymbolError, match="no series in these files is of SOL/USDT"):
        import_data(path, symbol="SOL/USDT")
    (one,) = import_data(path, symbol=ETH, dry_run=True).series
    assert (one.symbol, one.taken) == (ETH, 47)
    assert import_data(path).taken == 2 * 47
    for symbol in (BTC, ETH):
        kept = world.home.store.read(world.key()).series[symbol].candles
        assert same(kept, truth(symbol, "1h", "2025-06-01", "2025-06-02T23:00"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_that_say_another_symbol_are_refused(
    world: World, tmp_path: Path, suffix: str
) -> None:
    """Whether the flag or the name of the file says otherwise; a name of the same is none."""
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    path = labelled(tmp_path / f"sandbox_spot_1h.{suffix}", {"ETHUSDT": hourly(ETH)})
    with pytest.raises(OptionError, match="its rows are of ETHUSDT, and you say BTC/USDT"):
        import_data(path, symbol=BTC)
    named = path.rename(tmp_path / f"sandbox_spot_1h_BTC-USDT.{suffix}")
    with pytest.raises(OptionError, match="its rows are of ETHUSDT, and its name says BTC-USDT"):
        import_data(named)
    (one,) = import_data(named, symbol=ETH).series
    assert (one.symbol, one.taken) == (ETH, 47)
    for own in ("XBT/USDT", "BTC", "BTCUSDT.P"):
        labelled(named, {own: hourly()})
        (one,) = import_data(named, dry_run=True).series
        assert (one.symbol, one.taken) == (BTC, 47)


def test_a_symbol_renames_no_other_files_candles(world: World, file: Path, tmp_path: Path) -> None:
    """Among many files it chooses; alone, a file is what the user says, and that is told."""
    other = written(tmp_path / "sandbox_spot_1h_ETH-USDT.csv", hourly(ETH))
    report = import_data([file, other], symbol=BTC)
    assert [(one.where, one.symbol) for one in report.series] == [(str(file), BTC)]
    (one,) = import_data(other, symbol="SOL/USDT").series
    assert (one.symbol, "symbol: ETH-USDT" in one.notes[0]) == ("SOL/USDT", True)


# ------------------------------------------------------------------ failures


def test_one_bad_series_does_not_cost_the_others(world: World, file: Path, tmp_path: Path) -> None:
    """What cannot be taken is named with its reason, and the rest is stored."""
    bad = tmp_path / "sandbox_spot_1h_ETH-USDT.csv"
    bad.write_text("time,close\n" + "1,2\n" * 9)
    lying = written(tmp_path / "sandbox_spot_1m_SOL-USDT.csv", hourly("SOL/USDT"))
    with pytest.warns(FetchWarning, match="2 series or files"):
        report = import_data([bad, file, lying])
    assert [one.symbol for one in report.series] == [BTC]
    assert {where: type(error) for where, error in report.failures.items()} == {
        str(bad): CorruptDatasetError, str(lying): CandleError,
    }  # fmt: skip


def test_conflicts_within_a_file_are_refused(world: World, tmp_path: Path) -> None:
    """Nothing of a series is taken that says two things of one time."""
    path = written(tmp_path / "sandbox_spot_1h_BTC-USDT.csv", hourly())
    other = written(tmp_path / "other.csv", shifted(hourly()))
    path.write_text(path.read_text() + other.read_text().splitlines()[0] + "\n")
    with pytest.raises(CandleError, match="two different candles"):
        import_data(path)
    assert world.files() == {}


def test_numbers_that_cannot_be_read_are_named(world: World, file: Path) -> None:
    """Where nothing came of a file, as an error; empty rows alone are none."""
    rows = [line.split(",") for line in file.read_text().splitlines()]
    commas = [";".join([time, *(cell.replace(".", ",") for cell in row)]) for time, *row in rows]
    file.write_text("time;open;high;low;close;volume\n" + "\n".join(commas))
    done = run(str(file))
    assert done.exit_code == 1
    assert f"48 not finite numbers; cannot read '{commas[0].split(';')[1]}' as a number" in (
        done.stderr
    )
    head = "time,open,high,low,close,volume\n"
    for cell in ("1 BTC", '"1,000.5"'):
        file.write_text(head + "".join(f"{','.join([*row[:5], cell])}\n" for row in rows))
        with pytest.raises(CandleError, match=f"cannot read '{cell.strip(chr(34))}' as a number"):
            import_data(file)
    some = [*rows[:-2], [*rows[-2][:5], "many"], rows[-1]]
    file.write_text(head + "".join(f"{','.join(row)}\n" for row in some))
    (one,) = import_data(file).series
    assert (one.taken, one.skipped["not finite numbers"]) == (46, 1)
    assert one.notes == ("cannot read 'many' as a number",)
    file.write_text(head + "".join(f"{row[0]},,,,,\n" for row in rows))
    empty = run(str(file), "--json")
    assert (empty.exit_code, json.loads(empty.stdout)["series"][0]["skipped"]) == (
        0,
        {"padding": 48},
    )


def test_a_missing_column_is_named(world: World, file: Path) -> None:
    """Also where there are too few columns for a table of candles."""
    file.write_text("time,open,high,low,close\n1,2,2,2,2\n")
    with pytest.raises(CorruptDatasetError, match="it has no Volume; its columns are 'time'"):
        import_data(file)


def test_nothing_at_all_is_an_error_with_the_account(world: World, tmp_path: Path) -> None:
    """Each file with its reason."""
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_bytes(b"\0")
    with pytest.raises(NothingImportedError) as caught:
        import_data([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert set(caught.value.account["failures"]) == {str(tmp_path / n) for n in ("a.csv", "b.csv")}
    with pytest.raises(OptionError, match="at least one"):
        import_data([])


# ------------------------------------------------------------------ checked by the exchange


def test_a_check_confirms_what_is_the_exchanges(world: World, file: Path) -> None:
    """The sample is compared with the exchange itself, and nothing of the answer is stored."""
    report = import_data(file, check=True, exchange_config=world.config)
    assert report.series[0].checked == {
        "compared": 47, "matching": 47, "identical": 47, "missing": 0,
    }  # fmt: skip
    assert {span.served for span in world.stored(BTC).coverage} == {Served.GIVEN}


def test_a_check_unmasks_another_markets_candles(world: World, tmp_path: Path) -> None:
    """Spot candles under a swap's name are refused, and called what they are."""
    path = written(tmp_path / "sandbox_swap_1h_BTC-USDT.csv", hourly())
    with pytest.raises(CandleError, match="they are sandbox spot BTC/USDT") as caught:
        import_data(path, check=True, exchange_config=world.config)
    assert caught.value.fitting_market == "spot BTC/USDT"
    assert world.files() == {}


def test_a_check_refuses_what_is_no_markets(world: World, tmp_path: Path) -> None:
    """The first difference is shown."""
    path = written(tmp_path / "sandbox_spot_1h_BTC-USDT.csv", shifted(hourly(), 5.0))
    with pytest.raises(CandleError, match="0 match, and that of 2025-06-01 00:00 UTC"):
        import_data(path, check=True, exchange_config=world.config)


def test_a_check_samples_long_histories(world: World, tmp_path: Path) -> None:
    """Three stretches, whatever the length."""
    long = truth(BTC, "1h", "2024-01-01", "2025-06-01")
    path = written(tmp_path / "sandbox_spot_1h_BTC-USDT.csv", long)
    (one,) = import_data(path, check=True, exchange_config=world.config).series
    assert one.checked is not None
    assert one.checked["compared"] + one.checked["missing"] <= 3 * 64
    assert one.checked["identical"] == one.checked["compared"] > 150
    assert len([r for r in world.sent() if r.path.endswith("klines")]) == 3


def test_a_check_that_cannot_be_made_takes_nothing(world: World, file: Path) -> None:
    """No silent fallback to taking it unchecked."""
    config = {"sandboxUrl": "http://127.0.0.1:9", "verify": False}
    with pytest.raises(Exception, match=r"127\.0\.0\.1"):
        import_data(file, check=True, exchange_config=config)
    assert world.files() == {}


# ------------------------------------------------------------------ the command


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["import", *words], prog_name="vbt-data")


def test_the_command_tells_rows_taken_and_why_not(world: World, file: Path) -> None:
    """A line per series for people, one object for machines; a second run takes nothing."""
    shown = run(str(file))
    assert shown.exit_code == 0, shown.stderr
    assert "1 last row, perhaps unfinished" in shown.stdout
    assert "47 candles of 1 series taken" in shown.stdout
    told = json.loads(run(str(file), "--json").stdout)
    assert (told["taken"], told["series"][0]["known"], told["failures"]) == (0, 47, {})


def test_quietly_the_command_prints_one_line(world: World, file: Path) -> None:
    """With notes and rows left out, too."""
    shown = run(str(file), "-q", "-t", "1h", "-s", "BTCUSDT")
    assert shown.stdout.startswith("47 candles of 1 series taken in ")
    assert (shown.stdout.count("\n"), shown.stderr) == (1, "")


def test_each_flag_of_the_command_means_what_it_says(world: World, tmp_path: Path) -> None:
    """As the function's arguments."""
    path = written(tmp_path / "x.csv", hourly())
    elsewhere = tmp_path / "elsewhere"
    words = (str(path), "-e", "sandbox", "-m", "spot", "-t", "1h", "-s", BTC, "--json")
    words = (*words, "--data-dir", str(elsewhere), "--last-is-closed")
    dry = json.loads(run(*words, "--dry-run").stdout)
    assert (dry["taken"], dry["dry_run"], elsewhere.exists()) == (48, True, False)
    assert json.loads(run(*words).stdout)["taken"] == 48
    assert (elsewhere / "sandbox_spot_1h.pickle.blosc").exists()


def test_the_command_exits_by_what_came(world: World, file: Path, tmp_path: Path) -> None:
    """0: all; 1: some or all failed; 2: wrong usage."""
    broken = tmp_path / "broken.csv"
    broken.write_bytes(b"\0\0")
    some = run(str(file), str(broken))
    assert some.exit_code == 1
    assert f"not imported: {broken}" in some.stdout
    assert run(str(broken)).exit_code == 1
    assert run(str(tmp_path / "missing.csv")).exit_code == 2
    assert run().exit_code == 2
    assert run(str(file), "--config", "x.toml").exit_code == 2


def test_the_command_checks_with_the_exchange(
    world: World, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--check says how the sample compares."""
    monkeypatch.setenv("BACKTESTER_SANDBOX_URL", world.server.url)
    shown = run(str(file), "--check")
    assert "checked, 47 of 47 candles are what the exchange answers, 47 to the last bit" in (
        shown.stdout
    )


# ------------------------------------------------------------------ real files


@pytest.mark.skipif(
    not PRO.is_dir(), reason="needs real VectorBT PRO files, not part of the project"
)
def test_real_pro_files_come_in_whole(world: World) -> None:
    """Every closed candle of every symbol, by value; closes alone are refused."""
    parquet = pytest.importorskip("pyarrow.parquet")
    with pytest.warns(FetchWarning, match="closes alone"):
        report = import_data(PRO)
    assert len(report.failures) == 3
    store = world.home.store
    for one in report.series:
        stored = store.read(one.key).series[one.symbol].candles
        name = f"{one.key.stem}_{one.symbol.replace('/', '-')}.parquet"
        if (PRO.parent / name).exists() and one.rows < 1000:
            expected = parquet.read_table(PRO.parent / name).to_pandas()
            columns = ["open", "high", "low", "close", "volume"]
            assert stored.values.tolist() == expected[columns].to_numpy().tolist()
    with pytest.warns(FetchWarning):
        assert import_data(PRO).taken == 0
