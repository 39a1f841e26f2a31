"""What an earlier implementation of the same specification got wrong: sixteen mistakes.

Each test is about one of them, and fails for whoever makes it again.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backtester.data.cache_system.metadata_fetcher import MetadataFetcher
from backtester.data.errors import (
    CandleError,
    CorruptDatasetError,
    ExchangeUnavailableError,
    FetchWarning,
    OptionError,
    UnknownSymbolError,
)
from backtester.data.fetching.data_fetcher import fetch_data, load_data, update_data
from backtester.data.fetching.pipeline import run
from backtester.data.fetching.request import FetchRequest
from backtester.data.model import Interval, Timeframe
from backtester.data.sandbox import Fault
from backtester.data.storage.data_storage import DataStorage
from tests.support import processes
from tests.support.world import HOUR, MARKET, NOON, World, ms, same, truth

BTC, ETH = "BTC/USDT", "ETH/USDT"


def fetch(world: World, symbols: Any, timeframe: str = "1h", *dates: Any, **options: Any) -> Any:
    """Ask at the front door."""
    return fetch_data(
        symbols, "sandbox", timeframe, *dates, exchange_config=world.config, **options
    )


def frame_of(symbol: str, timeframe: str, start: str, end: str) -> pd.DataFrame:
    """Give the market's candles as a frame another program might have made."""
    table = truth(symbol, timeframe, start, end)
    index = pd.DatetimeIndex(pd.to_datetime(table.open_time, unit="ms", utc=True))
    columns = ["Open", "High", "Low", "Close", "Volume"]
    return pd.DataFrame(table.values, index=index, columns=columns)


def test_1_the_market_type_reaches_the_exchange(world: World) -> None:
    """A swap file holds swap candles: asked for at the swap endpoint, and not the spot ones."""
    dates = ("2025-06-01", "2025-06-10")
    spot = world.ask(BTC, "1h", *dates)
    swap = world.ask(BTC, "1h", *dates, market_type="swap")
    assert {request.path.split("/")[1] for request in spot.requests} == {"api"}
    assert {request.path.split("/")[1] for request in swap.requests} == {"fapi"}
    assert same(swap[BTC], truth("BTC/USDT:USDT", "1h", *dates))
    assert not (spot[BTC].values[:, 0] == swap[BTC].values[:, 0]).all()
    assert sorted(world.files()) == ["sandbox_spot_1h.pickle.blosc", "sandbox_swap_1h.pickle.blosc"]


def test_2_no_narrow_operation_overwrites_wide_history(world: World) -> None:
    """After a narrow fetch, a subset's update and a save of a piece, all history is still there."""
    wide = ("2024-01-01", "2025-06-01")
    world.ask([BTC, ETH], "1d", *wide)
    fetch(world, BTC, "1d", "2025-05-01", "2025-05-10")
    update_data("sandbox", "1d", [BTC], exchange_config=world.config)
    DataStorage().save_data({BTC: frame_of(BTC, "1d", "2025-01-01", "2025-01-05")}, "sandbox", "1d")
    assert same(world.stored(BTC, "1d").candles, truth(BTC, "1d", wide[0], NOON))
    assert same(world.stored(ETH, "1d").candles, truth(ETH, "1d", *wide))


def test_2_what_cannot_be_merged_is_not_overwritten(world: World) -> None:
    """When the old file cannot be read, fresh data come, and the old file is kept beside."""
    world.ask([BTC, ETH], "1h", "2025-05-01", "2025-06-01")
    path = world.folder / "sandbox_spot_1h.pickle.blosc"
    path.write_bytes(path.read_bytes()[:-1])
    broken = path.read_bytes()
    with pytest.warns(FetchWarning, match="set aside"):
        data = fetch(world, BTC, "1h", "2025-05-30", "2025-06-01")
    assert len(data.index) == 48
    assert path.with_name(f"{path.name}.damaged-1").read_bytes() == broken


def test_3_an_unfinished_candle_that_was_stored_is_corrected(world: World) -> None:
    """A file of another program that ends with a forming candle is mended by the next fetch."""
    hours = Timeframe.parse("1h")
    shown = MARKET.bars(BTC, hours, Interval(ms("2025-06-15"), NOON), NOON)
    frame = frame_of(BTC, "1h", "2025-06-15", "2025-06-15T12:00")
    # The values of 12:34, as saved by a program that does not know what is finished.
    scale = [10.0**places for places in (shown.decimals or (0,) * 9)[:5]]
    frame.loc[pd.Timestamp("2025-06-15T12:00", tz="UTC")] = shown.table[:5, -1] / scale
    from backtester import vbt

    path = world.folder / "sandbox_spot_1h.pickle.blosc"
    world.folder.mkdir()
    vbt.Data.from_data({BTC: frame}).save(path)
    original = path.read_bytes()
    world.clock.now_ms += 3 * HOUR
    asked = world.ask(BTC, "1h", "2025-06-15")
    assert same(asked[BTC], truth(BTC, "1h", "2025-06-15", NOON + 3 * HOUR, NOON + 3 * HOUR))
    assert {page.start for page in asked.pages} == {ms("2025-06-15T12:00")}, "and only from there"
    assert path.with_name(f"{path.name}.original").read_bytes() == original


def test_4_dates_and_use_cache_are_looked_at_when_all_symbols_are_stored(world: World) -> None:
    """A full cache is still trimmed to the question, filled backwards, and passed by on demand."""
    world.ask([BTC, ETH], "1h", "2025-06-05", "2025-06-10")
    narrow = fetch(world, [BTC, ETH], "1h", "2025-06-06", "2025-06-07")
    assert (str(narrow.index[0]), str(narrow.index[-1])) == (
        "2025-06-06 00:00:00+00:00",
        "2025-06-06 23:00:00+00:00",
    )
    earlier = fetch(world, [BTC, ETH], "1h", "2025-06-01", "2025-06-07")
    assert str(earlier.index[0]) == "2025-06-01 00:00:00+00:00"
    assert len(earlier.index) == 6 * 24
    sent = len(world.sent())
    fetch(world, [BTC, ETH], "1h", "2025-06-06", "2025-06-07", use_cache=False)
    assert len(world.sent(sent)) == 2


def test_5_no_start_is_1000_candles_and_inception_is_everything(world: World) -> None:
    """What is called inception is the market's first candle, and never a count."""
    assert len(world.ask(BTC, "1d")[BTC]) == 1000
    whole = world.ask(BTC, "1d", "inception")[BTC]
    assert same(whole, truth(BTC, "1d", 0, NOON))
    assert int(whole.open_time[0]) == ms("2017-08-17")
    assert len(world.ask(BTC, "1d")[BTC]) == 1000, "whatever the cache holds"


def test_6_a_table_of_closes_alone_is_not_stored(world: World) -> None:
    """Data without open, high, low and volume are refused, and what is stored keeps them."""
    world.ask(BTC, "1h", "2025-06-01", "2025-06-10")
    before = world.files()
    from backtester import vbt

    closes = load_data("sandbox", "1h").get("Close")
    for data in (vbt.Data.from_data({BTC: closes[BTC]}), {BTC: closes[[BTC]]}):
        with pytest.raises(CandleError, match="Open"):
            DataStorage().save_data(data, "sandbox", "1h")
    assert world.files() == before


def test_7_merged_and_loaded_data_can_still_be_updated(world: World) -> None:
    """Merging, selecting, loading and saving leave an object that brings itself up to date."""
    from backtester import vbt

    one = fetch(world, [BTC], "1h", "2025-06-10")
    two = fetch(world, [ETH], "1h", "2025-06-12")
    world.clock.now_ms += 5 * HOUR
    for data in (
        vbt.Data.merge(one, two),
        vbt.Data.merge(one, two).select([BTC]),
        load_data("sandbox", "1h").replace(),
    ):
        assert type(data) is vbt.Data
        newer = data.update(exchange_config=world.config)
        for symbol, start in ((BTC, "2025-06-10"), (ETH, "2025-06-12")):
            if symbol in data.symbols:
                expected = truth(symbol, "1h", start, world.clock(), world.clock())
                closes = newer.get("Close", symbol).dropna()
                assert closes.to_numpy().tolist() == expected.values[:, 3].tolist()


def test_8_nothing_but_candles_is_stored(world: World) -> None:
    """Symbols with different histories share a file without a row of padding."""
    world.ask("ONDO/USDT", "1d", "2025-05-01", "2025-06-01")
    world.ask(BTC, "1d", "2020-01-01", "2025-06-01")
    alone = len(world.files()["sandbox_spot_1d.pickle.blosc"])
    series = world.home.store.read(world.key("1d")).series
    assert {symbol: len(one.candles) for symbol, one in series.items()} == {
        "ONDO/USDT": 31,
        BTC: 1978,
    }
    assert not any(np.isnan(one.candles.values).any() for one in series.values())
    world.ask(ETH, "1d", "2025-05-31", "2025-06-01")
    assert len(world.files()["sandbox_spot_1d.pickle.blosc"]) < alone + 2000
    data = load_data("sandbox", "1d")
    assert DataStorage().save_data(data, "sandbox", "1d")
    info = DataStorage().get_storage_summary()["files"]["sandbox_spot_1d.pickle.blosc"]
    assert info["candles"] == 31 + 1978 + 1


def test_9_flat_bars_are_kept_and_times_are_unique(world: World) -> None:
    """Two candles with equal values are two candles; one candle sent twice is one."""
    index = pd.date_range("2025-06-01", periods=5, freq="1h", tz="UTC")
    flat = pd.DataFrame(
        {"Open": 1.5, "High": 1.5, "Low": 1.5, "Close": 1.5, "Volume": 0.0}, index=index
    )
    DataStorage().save_data({"FLAT/USDT": flat}, "sandbox", "1h")
    assert len(load_data("sandbox", "1h", "FLAT/USDT").index) == 5
    world.faults.add(Fault.DUPLICATE_ROWS, match="klines")
    asked = world.ask(BTC, "1h", "2025-06-01", "2025-06-10")
    assert same(asked[BTC], truth(BTC, "1h", "2025-06-01", "2025-06-10"))


def test_10_resampling_is_per_symbol_exact_and_by_the_calendar(world: World) -> None:
    """Longer candles are the market's own, for each symbol by itself; impossible ones refused."""
    data = fetch(world, ["ONDO/USDT", BTC], "4h", "2024-12-02", "2025-06-09")
    for rule, start in (("1d", "2024-12-02"), ("1w", "2024-12-02")):
        longer = data.resample(rule)
        for symbol in (BTC, "ONDO/USDT"):
            expected = truth(symbol, rule, start, "2025-06-09")
            found = longer.get(symbol=symbol).dropna()
            # A group that begins before the first candle is not whole.
            whole = expected.open_time >= found.index[0].value // 1_000_000
            np.testing.assert_allclose(found.to_numpy(), expected.values[whole], rtol=1e-12)
            assert len(expected) - whole.sum() <= (0 if symbol == BTC else 1)
    assert {day.weekday() for day in data.resample("1w").index} == {0}
    months = data.resample("1M")
    assert [str(day.date()) for day in months.index[:2]] == ["2025-01-01", "2025-02-01"]
    with pytest.raises(OptionError, match="6h"):
        data.resample("6h")


def test_11_no_candle_is_interpolated_and_no_gap_hidden(world: World) -> None:
    """Ten hours without trade are ten hours without candles, and said to be."""
    asked = world.ask(BTC, "1m", "2019-05-15", "2019-05-16")
    expected = truth(BTC, "1m", "2019-05-15", "2019-05-16")
    assert len(expected) == 24 * 60 - 600
    assert same(asked[BTC], expected)
    minute = Timeframe.parse("1m")
    whole = Interval(ms("2019-05-15"), ms("2019-05-16"))
    states = asked.result.series[BTC].states(minute, whole)
    assert [word for _, word in states] == ["present", "no trades", "present"]
    assert states[1][0] == Interval(ms("2019-05-15T03:00"), ms("2019-05-15T13:00"))
    short = world.ask("XMR/USDT", "1m", "2021-03-01", "2021-03-01T06:00")  # no gap is too small
    morning = Interval(ms("2021-03-01"), ms("2021-03-01T06:00"))
    states = short.result.series["XMR/USDT"].states(minute, morning)
    gaps = [part for part, word in states if word == "no trades"]
    missing = 360 - len(truth("XMR/USDT", "1m", "2021-03-01", "2021-03-01T06:00"))
    assert sum(gap.end - gap.start for gap in gaps) // 60_000 == missing > 0


def test_12_a_failure_teaches_nothing_about_a_symbol(world: World) -> None:
    """After an exchange's failure nothing is believed of a symbol: no inception, no blacklist."""
    world.faults.add(Fault.HTTP_503, match="klines")
    with pytest.raises(ExchangeUnavailableError):
        world.ask(["ONDO/USDT", BTC], "1h", "inception")
    world.faults.clear()
    cache = world.home.cache
    assert cache.get_all_timestamps("sandbox") == {}
    assert cache.get_failed("sandbox") == {}
    asked = world.ask(["ONDO/USDT", BTC], "4h", "inception")
    assert same(asked["ONDO/USDT"], truth("ONDO/USDT", "4h", 0, NOON))
    assert same(asked[BTC], truth(BTC, "4h", 0, NOON))


def test_12_what_failed_is_named_every_time_and_comes_back(world: World) -> None:
    """A symbol the user names is never dropped in silence, and is found once it is listed."""
    world.clock.now_ms = ms("2025-01-31T12:30")  # half an hour before ONDO
    for _ in range(2):
        asked = world.ask([BTC, "ONDO/USDT"], "1h", "2025-01-30", warns="ONDO/USDT")
        assert isinstance(asked.result.failures["ONDO/USDT"], UnknownSymbolError)
    world.clock.now_ms += 3 * HOUR
    found = world.ask([BTC, "ONDO/USDT"], "1h", "2025-01-30")
    expected = truth("ONDO/USDT", "1h", "2025-01-30", world.clock(), world.clock())
    assert same(found["ONDO/USDT"], expected)
    assert len(expected) == 2


def test_13_volumes_are_ranked_within_one_quote_and_market_type(world: World) -> None:
    """Yen are not dollars, and swaps are not spot: neither mixes into a ranking."""
    fetcher = MetadataFetcher(world.home.cache)
    for kind, quote in (("spot", "USDT"), ("spot", "JPY"), ("spot", "BTC"), ("swap", "USDT")):
        top = fetcher.get_market_data(
            "sandbox", quote, 5, market_type=kind, exchange_config=world.config
        )
        volumes = {
            one.symbol: MARKET.ticker(one.symbol, NOON).quote_volume
            for one in MARKET.listings(kind)
            if one.trading_at(NOON) and one.market.quote == quote
        }
        expected = sorted(volumes, key=volumes.__getitem__, reverse=True)[:5]
        assert {name: one["quote_volume"] for name, one in top.items()} == {
            name: volumes[name] for name in expected
        }
        assert list(top) == expected
        assert {one["quote"] for one in top.values()} == {quote}
        assert {one["type"] for one in top.values()} == {kind}


def test_14_one_symbol_has_one_place_whatever_it_is_called(world: World) -> None:
    """BTCUSDT and BTC/USDT are one series in the file, and cannot be asked for together."""
    world.ask("BTCUSDT", "1h", "2025-06-01", "2025-06-05")
    world.ask(BTC, "1h", "2025-06-05", "2025-06-10")
    frame = frame_of(BTC, "1h", "2025-06-10", "2025-06-12")
    DataStorage().save_data({"btc-usdt": frame}, "sandbox", "1h")
    assert DataStorage().get_stored_symbols("sandbox", "1h") == [BTC]
    assert same(world.stored(BTC).candles, truth(BTC, "1h", "2025-06-01", "2025-06-12"))
    with pytest.raises(OptionError, match="the same symbol"):
        world.ask([BTC, "BTCUSDT"], "1h", "2025-06-01", "2025-06-05")


def test_15_writers_of_one_file_lose_nothing_to_each_other(world: World) -> None:
    """Four processes that fetch into one dataset at once leave all that each of them fetched."""
    symbols = [BTC, ETH, "SOL/USDT", "XRP/USDT"]
    running = [
        processes.start(world, f"ask([{symbol!r}], '1h', '2025-05-01', '2025-06-01')")
        for symbol in symbols
    ]
    for process in running:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    for symbol in symbols:
        assert same(world.stored(symbol).candles, truth(symbol, "1h", "2025-05-01", "2025-06-01"))
    assert sorted(world.files()) == ["sandbox_spot_1h.pickle.blosc"]


def test_15_threads_of_one_process_lose_nothing_to_each_other(world: World) -> None:
    """Four threads that fetch into one dataset at once leave all that each of them fetched."""
    symbols = [BTC, ETH, "SOL/USDT", "XRP/USDT"]

    def ask(symbol: str) -> int:
        question = FetchRequest(
            world.key(), (symbol,), "2025-05-01", "2025-06-01", exchange_config=world.config
        )
        return len(run(question, world.home).series[symbol].candles)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, symbols)) == [31 * 24] * 4
    for symbol in symbols:
        assert same(world.stored(symbol).candles, truth(symbol, "1h", "2025-05-01", "2025-06-01"))


def test_15_a_symbol_is_never_part_of_a_command_or_a_path(world: World) -> None:
    """Names meant for a shell or a file system are unknown symbols, and do nothing else."""
    mark = world.folder.parent / "pwned"
    for name in (f"$(touch {mark})", f"; touch {mark}", "../../etc/passwd", "a\0b", "`id`"):
        with pytest.raises(UnknownSymbolError):
            world.ask(name, "1h", "2025-06-01", "2025-06-05")
    assert not mark.exists()
    assert world.files() == {}


def test_16_nothing_fails_without_an_error(world: World) -> None:
    """Loading nothing, damage, and a failing exchange raise; none gives None or False."""
    with pytest.raises(LookupError):
        load_data("sandbox", "1h")
    world.faults.add(Fault.HTTP_500)
    with pytest.raises(ExchangeUnavailableError):
        fetch(world, BTC, "1h", "2025-06-01", "2025-06-05")
    world.folder.mkdir(exist_ok=True)
    (world.folder / "sandbox_spot_1h.pickle.blosc").write_bytes(b"")
    with pytest.raises(CorruptDatasetError):
        load_data("sandbox", "1h")


@pytest.mark.parametrize("script", ["backtester/scripts", "backtester/data/scripts"])
def test_16_the_documented_command_runs_from_anywhere(
    world: World, script: str, tmp_path: Path
) -> None:
    """The script needs no installation of the package and no certain directory."""
    done = processes.command(
        world, "--symbols", BTC, "--timeframe", "1d", "--exchange", "sandbox", "--json",
        script=(str(processes.ROOT / script / "fetch_data_cli.py"),), cwd=tmp_path, PYTHONPATH="",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["symbols"][BTC]["candles"] == 1000
