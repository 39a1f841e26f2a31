"""Bad input of every kind: a typed error, nothing stored changed, no request too many."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backtester.data.cache_system.metadata_fetcher import MetadataFetcher
from backtester.data.errors import (
    AccessDeniedError,
    BadResponseError,
    BannedError,
    CandleError,
    CorruptDatasetError,
    DataError,
    DatasetNotFoundError,
    DatasetWriteError,
    DateError,
    EmptyIntervalError,
    ExchangeUnavailableError,
    FetchWarning,
    NoSymbolsError,
    NothingFetchedError,
    NotServedError,
    OptionError,
    StorageError,
    UnknownExchangeError,
    UnknownMarketTypeError,
    UnknownSymbolError,
    UnknownTimeframeError,
)
from backtester.data.fetching.data_fetcher import (
    fetch_data,
    fetch_top_symbols,
    load_data,
    update_data,
)
from backtester.data.fetching.retries import ATTEMPTS
from backtester.data.sandbox import Fault
from backtester.data.storage import files
from backtester.data.storage.data_storage import DataStorage
from backtester.data.storage.growing import GrowingStore, Storage
from tests.support import processes
from tests.support.builders import contents
from tests.support.world import World, ms, same, truth

BTC, ETH = "BTC/USDT", "ETH/USDT"
DATES = ("2025-06-01", "2025-06-10")


@pytest.fixture
def stocked(world: World) -> World:
    """A world in which something is stored already, and the exchange is known."""
    world.ask([BTC, ETH], "1h", *DATES)
    return world


@contextmanager
def refused(world: World, error: type[DataError], *says: str, requests: int = 0) -> Iterator[None]:
    """Expect exactly this error, its words, this many requests, and no change in the store."""
    before, sent = world.files(), len(world.sent())
    with pytest.raises(error) as caught:
        yield
    world.wait_until_quiet()
    assert type(caught.value) is error
    for words in says:
        assert words in str(caught.value)
    assert len(world.sent(sent)) == requests
    assert world.files() == before


def fetch(world: World, symbols: Any = BTC, **options: Any) -> Any:
    """Ask at the front door."""
    asked = {"exchange_id": "sandbox", "timeframe": "1h", "exchange_config": world.config}
    return fetch_data(symbols, **{**asked, **options})


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("exchange_id", "near"),
    [("binnance", "binance"), ("sandbx", "sandbox"), ("Kraken!", None), ("", None), (None, None)],
)
def test_an_unknown_exchange_names_the_nearest(
    stocked: World, exchange_id: Any, near: str | None
) -> None:
    """A misspelt exchange id costs no request, and the error says what was meant."""
    with refused(stocked, UnknownExchangeError, *([near] if near else [])):
        fetch(stocked, exchange_id=exchange_id, start_date=DATES[0])


@pytest.mark.parametrize(
    ("name", "near"),
    [("BTC/USDTT", "BTC/USDT"), ("BITC/USDT", "BTC/USDT"), ("DOG/USDT", "DOGE/USDT")],
)
def test_an_unknown_symbol_names_the_nearest(stocked: World, name: str, near: str) -> None:
    """A misspelt symbol is answered from the known markets, with the symbols it may have meant."""
    with refused(stocked, UnknownSymbolError, name, near):
        fetch(stocked, name, start_date=DATES[0])


def test_a_symbol_of_another_market_type_is_unknown(stocked: World) -> None:
    """A spot symbol that has no swap is no swap symbol, and no spot candles come instead."""
    with refused(stocked, UnknownSymbolError, "swap", "VET/USDT", requests=1):
        fetch(stocked, "VET/USDT", market_type="swap", start_date=DATES[0])


@pytest.mark.parametrize("timeframe", ["7m", "2d", "1y"])
def test_a_timeframe_the_exchange_lacks_lists_those_it_has(stocked: World, timeframe: str) -> None:
    """The error lists what the exchange has, and nothing was asked."""
    with refused(stocked, UnknownTimeframeError, "1m", "1h", "1M"):
        fetch(stocked, timeframe=timeframe, start_date=DATES[0])


@pytest.mark.parametrize("timeframe", ["1x", "", "h", "0h", "-1h", "1.5h", "1 h m", None, 3600])
def test_what_is_no_timeframe_is_said_to_be_none(stocked: World, timeframe: Any) -> None:
    """Anything but a number and a unit is refused with examples of how to write one."""
    with refused(stocked, UnknownTimeframeError, "1h"):
        fetch(stocked, timeframe=timeframe, start_date=DATES[0])


@pytest.mark.parametrize("market_type", ["options", "margin", "", None])
def test_an_unknown_market_type_lists_the_known(stocked: World, market_type: Any) -> None:
    """Only spot, swap and future are market types."""
    with refused(stocked, UnknownMarketTypeError, "spot, swap, future"):
        fetch(stocked, market_type=market_type, start_date=DATES[0])


@pytest.mark.parametrize(
    ("exchange_id", "market_type"), [("kraken", "swap"), ("binanceusdm", "spot")]
)
def test_a_market_type_the_exchange_lacks_is_never_replaced(
    stocked: World, exchange_id: str, market_type: str
) -> None:
    """An exchange without that market is an error; no other market is asked instead."""
    with refused(stocked, UnknownMarketTypeError, exchange_id, market_type):
        fetch(stocked, exchange_id=exchange_id, market_type=market_type)


# ------------------------------------------------------------------ dates


@pytest.mark.parametrize("cold", [False, True], ids=["known exchange", "first contact"])
@pytest.mark.parametrize("param", ["start_date", "end_date"])
@pytest.mark.parametrize(
    "value",
    ["someday", "", "2025-13-01", "2025-02-30", "31.31.2025", object(), True, math.nan, pd.NaT,
     np.datetime64("NaT"), [1], "1950-01-01"],
    ids=lambda value: "object" if type(value) is object else repr(value),
)  # fmt: skip
def test_a_date_that_cannot_be_read_is_named(
    world: World, param: str, value: Any, cold: bool
) -> None:
    """Nothing is asked before the dates make sense, and the error names the argument."""
    if not cold:
        world.ask([BTC, ETH], "1h", *DATES)
    with refused(world, DateError, param):
        fetch(world, **{"start_date": DATES[0], param: value})


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2025-06-10", "2025-06-01"),
        ("2025-06-10", "2025-06-10"),
        (date(2025, 6, 10), pd.Timestamp("2025-06-09", tz="UTC")),
        ("now", "7 days ago"),
    ],
)
def test_a_start_that_is_not_before_the_end_is_refused(
    stocked: World, start: Any, end: Any
) -> None:
    """An empty or turned-round interval is the caller's mistake."""
    with refused(stocked, EmptyIntervalError, "not before"):
        fetch(stocked, start_date=start, end_date=end)


def test_an_interval_without_a_closed_candle_says_so(stocked: World) -> None:
    """Between 12:00 and 12:34 no hour has closed: the error says what the clock says."""
    with refused(stocked, EmptyIntervalError, "no closed 1h candle", "2025-06-15 12:34:56"):
        fetch(stocked, start_date="2025-06-15 12:00")


@pytest.mark.parametrize(
    ("start", "end", "param"),
    [
        ("2025-06-16", None, "start_date"),
        ("2030-01-01", "2031-01-01", "end_date"),
        ("2025-06-01", "2025-07-01", "end_date"),
        ("in 3 days", None, "start_date"),
    ],
)
def test_dates_in_the_future_are_refused(
    stocked: World, start: str, end: str | None, param: str
) -> None:
    """What has not happened cannot be fetched; the exchange's clock is quoted."""
    with refused(stocked, DateError, param, "future", "2025-06-15 12:34:56"):
        fetch(stocked, start_date=start, end_date=end)


def test_tomorrows_midnight_means_until_now(stocked: World) -> None:
    """An end less than a day ahead is understood as "now", and asks for nothing to come."""
    asked = stocked.ask(BTC, "1h", "2025-06-15", "2025-06-16")
    assert same(asked[BTC], truth(BTC, "1h", "2025-06-15", "2025-06-16"))


# ------------------------------------------------------------------ lists and counts


@pytest.mark.parametrize(
    ("symbols", "error"),
    [
        ([], NoSymbolsError),
        ((), NoSymbolsError),
        (None, OptionError),
        (7, OptionError),
        ("", OptionError),
        ([""], OptionError),
        ([None], OptionError),
        ([BTC, BTC], OptionError),
        ([BTC, " BTC/USDT "], OptionError),
        ([BTC, "BTCUSDT"], OptionError),
        (b"BTC/USDT", OptionError),
    ],
    ids=repr,
)
def test_symbols_must_be_some_names_each_once(
    stocked: World, symbols: Any, error: type[DataError]
) -> None:
    """No symbols, no names, and one name twice, also by another spelling, are refused."""
    with refused(stocked, error):
        fetch(stocked, symbols, start_date=DATES[0])


@pytest.mark.parametrize("limit", [0, -1, True, 2.5, "ten", math.inf], ids=repr)
def test_the_number_of_top_symbols_must_be_a_count(stocked: World, limit: Any) -> None:
    """`limit` is a whole number from 1 on."""
    with refused(stocked, OptionError, repr(limit)):
        fetch_top_symbols("sandbox", limit=limit, exchange_config=stocked.config)


def test_a_quote_nobody_quotes_in_lists_those_in_use(stocked: World) -> None:
    """An unknown quote currency is answered with the known ones."""
    with refused(stocked, NotServedError, "XYZ", "USDT", requests=2):
        fetch_top_symbols("sandbox", quote_currency="XYZ", exchange_config=stocked.config)


@pytest.mark.parametrize("top", ["0", "-1"])
def test_top_0_is_wrong_usage(stocked: World, top: str) -> None:
    """The command refuses --top 0 with code 2 and no request."""
    sent = len(stocked.sent())
    done = processes.command(stocked, "--top", top, "-e", "sandbox", "--json")
    assert done.returncode == 2
    assert "at least 1" in done.stderr
    assert stocked.sent(sent) == []


@pytest.mark.parametrize(
    "flags",
    [
        ("--top", "3", "--symbols", BTC),
        ("--symbols", BTC, "--inception", "--start", "2025-01-01"),
        ("--symbols", BTC, "--verbose", "--quiet"),
    ],
    ids=" ".join,
)
def test_flags_that_exclude_each_other_are_wrong_usage(
    stocked: World, flags: tuple[str, ...]
) -> None:
    """Two flags that contradict each other end with code 2 and a sentence about both."""
    before, sent = stocked.files(), len(stocked.sent())
    done = processes.command(stocked, *flags, "--exchange", "sandbox")
    assert done.returncode == 2
    assert "exclude each other" in done.stderr
    assert (stocked.files(), stocked.sent(sent)) == (before, [])


# ------------------------------------------------------------------ the data directory

_POWERLESS = """
import ctypes, os
if os.geteuid() == 0:  # the superuser may write anywhere: give that up
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, none) == 0
"""
_TOLD = """
import json
print(json.dumps({{"account": found.account(), "candles": len(found.series[{symbol!r}].candles)}}))
"""


def test_a_missing_data_directory_is_made_by_the_first_write(world: World) -> None:
    """Asking for what is stored makes no directory; storing does, with its parents."""
    with pytest.raises(DatasetNotFoundError):
        load_data("sandbox", "1h")
    assert DataStorage().get_storage_summary()["pickle_files"] == 0
    assert DataStorage().data_exists("sandbox", "1h") is False
    assert DataStorage().get_stored_symbols("sandbox", "1h") == []
    assert not world.folder.exists()
    deep = world.folder / "a" / "b"
    World(world.server, world.clock, deep, config=world.config).ask(BTC, "1h", *DATES)
    assert (deep / "sandbox_spot_1h.pickle.blosc").exists()


def test_a_read_only_directory_still_answers_and_says_what_it_could_not_do(
    stocked: World,
) -> None:
    """Stored candles are read, new ones are returned though they cannot be kept, loudly."""
    before = stocked.files()
    for path in (stocked.folder, *stocked.folder.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        stored = _POWERLESS + f"found = ask([{BTC!r}], '1h', *{DATES!r})" + _TOLD.format(symbol=BTC)
        told = processes.python(stocked, stored)
        assert (told["candles"], told["account"]["requests"]) == (216, 0)
        assert told["account"]["storage_error"] is None
        new = (
            _POWERLESS
            + f"found = ask(['SOL/USDT'], '1h', *{DATES!r})"
            + _TOLD.format(symbol="SOL/USDT")
        )
        told = processes.python(stocked, new)
        assert told["candles"] == 216
        assert told["account"]["storage_error"]["error"] == "DatasetWriteError"
        assert str(stocked.folder) in told["account"]["storage_error"]["message"]
    finally:
        for path in (stocked.folder, *stocked.folder.iterdir()):
            path.chmod(0o755)
    assert stocked.files() == before


def test_a_full_disk_keeps_what_was_there_and_is_loud(stocked: World) -> None:
    """A write that does not fit changes no file, and the data come with the reason."""
    before = stocked.files()
    full = """
import resource, signal, sys
sys.dont_write_bytecode = True  # Python would keep what it could write of it
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
"""
    question = f"found = ask(['SOL/USDT'], '1m', *{DATES!r})"
    told = processes.python(stocked, full + question + _TOLD.format(symbol="SOL/USDT"))
    assert told["candles"] == 9 * 24 * 60
    assert told["account"]["storage_error"]["error"] == "DatasetWriteError"
    assert stocked.files() == before
    mended = stocked.ask("SOL/USDT", "1m", *DATES)
    assert same(mended["SOL/USDT"], truth("SOL/USDT", "1m", *DATES))


def test_a_disk_that_fails_at_the_last_moment_loses_nothing(
    stocked: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the pages are safe and only the file cannot be written, all is there again later."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    replace = files.replace
    with monkeypatch.context() as patch:
        patch.setattr(
            files, "replace", lambda path, parts: _failing_write(full, path, parts, replace)
        )
        asked = stocked.ask("SOL/USDT", "1h", *DATES, warns="could not be stored")
    assert same(asked["SOL/USDT"], truth("SOL/USDT", "1h", *DATES))
    stocked.new_process()
    assert stocked.ask("SOL/USDT", "1h", *DATES).requests == []


def _failing_write(full: Callable[..., None], path: Any, parts: Any, replace: Any) -> None:
    with files.writing(path):
        full(path, parts, replace)


def test_a_data_directory_that_is_a_file_is_named_before_anything_is_asked(
    stocked: World,
) -> None:
    """A file where the directory should be is an error that names it, for all who use it."""
    place = stocked.folder.parent / "file"
    place.write_text("not a directory")
    for use in (
        lambda: fetch(stocked, start_date=DATES[0], data_dir=place),
        lambda: load_data("sandbox", "1h", data_dir=place),
        lambda: update_data("sandbox", "1h", data_dir=place),
        lambda: DataStorage(place).get_storage_summary(),
    ):
        with refused(stocked, StorageError, str(place)):
            use()
    assert place.read_text() == "not a directory"


def test_a_full_disk_under_a_large_dataset_is_loud_too(stocked: World) -> None:
    """The same where the dataset lives in SQLite: the data come, and nothing stored is lost."""
    store = GrowingStore(stocked.folder)
    store.move(stocked.key(), Storage.SQLITE)
    before = contents(store.read(stocked.key()))
    full = """
import resource, signal, sys
sys.dont_write_bytecode = True  # Python would keep what it could write of it
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
"""
    question = f"found = ask(['SOL/USDT'], '1h', *{DATES!r})"
    told = processes.python(stocked, full + question + _TOLD.format(symbol="SOL/USDT"))
    assert told["candles"] == 9 * 24
    assert told["account"]["storage_error"]["error"] == "DatasetWriteError"
    assert contents(store.read(stocked.key())) == before
    mended = stocked.ask("SOL/USDT", "1h", *DATES)
    assert same(mended["SOL/USDT"], truth("SOL/USDT", "1h", *DATES))


def test_saving_to_a_full_disk_is_an_error_and_changes_nothing(
    stocked: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`save_data` has nothing to hand out instead, so it raises; what was stored stays."""
    frame = load_data("sandbox", "1h", BTC).get()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with refused(stocked, DatasetWriteError, "No space left"), monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        DataStorage().save_data({"SOL/USDT": frame}, "sandbox", "1h")


# ------------------------------------------------------------------ files


def test_every_reader_names_a_damaged_file(stocked: World) -> None:
    """No reading operation takes a damaged file for an empty one, and none changes it."""
    path = stocked.folder / "sandbox_spot_1h.pickle.blosc"
    path.write_bytes(path.read_bytes()[:-100])
    stocked.new_process()
    storage = DataStorage()
    for read in (
        lambda: load_data("sandbox", "1h"),
        lambda: load_data("sandbox", "1h", BTC),
        lambda: storage.get_stored_symbols("sandbox", "1h"),
        lambda: storage.get_date_range("sandbox", "1h"),
        lambda: update_data("sandbox", "1h", exchange_config=stocked.config),
    ):
        with refused(stocked, CorruptDatasetError, path.name):
            read()
    assert storage.data_exists("sandbox", "1h") is True
    done = processes.command(stocked, "-s", BTC, "-t", "1h", "-e", "sandbox", "--storage-summary")
    assert path.name in done.stdout


def test_the_command_mends_a_damaged_file_and_exits_1(stocked: World) -> None:
    """A fetch over a damaged file brings the data, says that a file was damaged, and exits 1."""
    path = stocked.folder / "sandbox_spot_1h.pickle.blosc"
    path.write_bytes(b"foreign")
    words = ("-s", BTC, "-t", "1h", "-e", "sandbox", "--start", DATES[0], "--end", DATES[1])
    done = processes.command(stocked, *words, "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["symbols"][BTC]["candles"] == 216
    assert told["storage_error"]["error"] == "CorruptDatasetError"
    assert path.with_name(f"{path.name}.damaged-1").read_bytes() == b"foreign"
    assert processes.command(stocked, *words).returncode == 0


def test_what_is_not_stored_names_what_is(stocked: World) -> None:
    """Loading a dataset or symbol that is not there says what there is."""
    with refused(stocked, DatasetNotFoundError, "sandbox spot 4h"):
        load_data("sandbox", "4h")
    with refused(stocked, DatasetNotFoundError, "SOL/USDT", BTC):
        load_data("sandbox", "1h", ["SOL/USDT"])
    with refused(stocked, DatasetNotFoundError):
        update_data("sandbox", "4h", exchange_config=stocked.config)
    with refused(stocked, OptionError, "market_type='swap'"):
        load_data("sandbox", "1h", "swap")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.drop(columns="Volume"), "Volume"),
        (lambda f: f.assign(Close=f["High"] * 2), "low and high"),
        (lambda f: f.assign(Open=np.inf), "finite"),
        (lambda f: f.set_axis(f.index + pd.Timedelta("1s")), "grid"),
        (lambda f: f.reset_index(drop=True), "DatetimeIndex"),
        (lambda f: pd.concat([f, f.iloc[:1] * 1.5]), "twice"),
        (lambda f: f.assign(Volume=-1.0), "negative"),
    ],
    ids=["no volume", "close above high", "infinite", "off grid", "no times", "twice", "negative"],
)
def test_saving_what_are_no_candles_is_refused_and_changes_nothing(
    stocked: World, change: Callable[[pd.DataFrame], pd.DataFrame], says: str
) -> None:
    """`save_data` passes every table through the same gate as the exchange's pages."""
    frame = load_data("sandbox", "1h", BTC).get()
    with refused(stocked, CandleError, BTC if says == "Volume" else "", says):
        DataStorage().save_data({BTC: change(frame)}, "sandbox", "1h")


# ------------------------------------------------------------------ the exchange

TRANSIENT = {
    Fault.HTTP_500: ExchangeUnavailableError,
    Fault.MAINTENANCE: ExchangeUnavailableError,
    Fault.DISCONNECTED: ExchangeUnavailableError,
    Fault.CUT_BODY: BadResponseError,
    Fault.HTML: BadResponseError,
    Fault.CUT_JSON: BadResponseError,
    Fault.EMPTY_BODY: BadResponseError,
}
FINAL = {
    Fault.HTTP_418: BannedError,
    Fault.HTTP_403: AccessDeniedError,
    Fault.HTTP_404: NotServedError,
    Fault.HTTP_451: AccessDeniedError,
}


@pytest.mark.parametrize("endpoint", ["time", "exchangeInfo", "ticker/24hr", "klines"])
@pytest.mark.parametrize("fault", [*TRANSIENT, *FINAL])
def test_an_exchange_that_fails_anywhere_is_a_typed_error(
    world: World, fault: Fault, endpoint: str
) -> None:
    """Whichever endpoint fails: six tries where another may help, one where it cannot."""
    world.faults.add(fault, match=endpoint)
    before = {"time": 0, "exchangeInfo": 1, "klines": 2, "ticker/24hr": 1}[endpoint]
    tries = ATTEMPTS if fault in TRANSIENT else 1
    with refused(world, {**TRANSIENT, **FINAL}[fault], "sandbox", requests=before + tries):
        if endpoint == "ticker/24hr":
            fetch_top_symbols("sandbox", timeframe="1h", exchange_config=world.config)
        else:
            fetch(world, start_date=DATES[0], end_date=DATES[1])
    world.faults.clear()
    if fault is not Fault.HTTP_418:
        asked = world.ask(BTC, "1h", *DATES)
        assert same(asked[BTC], truth(BTC, "1h", *DATES))


def test_an_exchange_that_is_down_is_unavailable(stocked: World) -> None:
    """A server that does not answer is tried a few times and then said to be unavailable."""
    config = dict(stocked.config)
    stocked.server.stop()
    with refused(stocked, ExchangeUnavailableError, "sandbox"):
        fetch(stocked, "SOL/USDT", start_date=DATES[0], end_date=DATES[1], exchange_config=config)
    assert stocked.ask(BTC, "1h", *DATES, exchange_config=config).requests == []
    stocked.server.start()


def test_an_exchange_that_is_too_slow_is_unavailable(stocked: World) -> None:
    """Answers later than the timeout are failures, and the last one is told."""
    stocked.server.latency_s = 0.4
    with refused(stocked, ExchangeUnavailableError, "sandbox", requests=ATTEMPTS):
        fetch(
            stocked,
            "SOL/USDT",
            start_date=DATES[0],
            end_date=DATES[1],
            exchange_config={**stocked.config, "timeout": 100},
        )


def test_one_exchange_down_ends_the_wait_for_all_symbols(stocked: World) -> None:
    """With twenty symbols and no exchange, the tries of the first are enough."""
    names = [one.symbol for one in stocked.server.market.listings("spot")][2:22]
    stocked.faults.add(Fault.HTTP_503, match="klines")
    sent = len(stocked.sent())
    with pytest.raises(ExchangeUnavailableError, match="all 20 symbols failed"):
        fetch(stocked, names, start_date=DATES[0], end_date=DATES[1])
    assert len(stocked.sent(sent)) <= len(names) * ATTEMPTS
    assert len(stocked.sent(sent)) >= ATTEMPTS


@pytest.mark.parametrize(
    "fault",
    [Fault.EMPTY_LIST, Fault.DUPLICATE_ROWS, Fault.SHUFFLED_ROWS, Fault.NULL_FIELD, Fault.HTML,
     Fault.CUT_JSON, Fault.SHORT_PAGE, Fault.OUT_OF_WINDOW_ROWS, Fault.BROKEN_OHLC_ROW],
)  # fmt: skip
def test_bad_pages_now_and_then_change_nothing_in_the_answer(stocked: World, fault: Fault) -> None:
    """Every third page bad: the data are the market's, and what was stored before is untouched."""
    held = stocked.stored(ETH)
    stocked.faults.add(fault, every=3, match="klines")
    asked = stocked.ask([BTC, "SOL/USDT"], "1m", "2025-06-01", "2025-06-05")
    for symbol in (BTC, "SOL/USDT"):
        assert same(asked[symbol], truth(symbol, "1m", "2025-06-01", "2025-06-05"))
    assert same(stocked.stored(ETH).candles, held.candles)


# ------------------------------------------------------------------ some, all


def test_some_symbols_failing_is_a_warning_and_an_account(stocked: World) -> None:
    """The others come; a warning names the failed; metadata and --json say why."""
    stocked.faults.add(Fault.NULL_FIELD, match="SOLUSDT")
    names = [BTC, "NOPE/USDT", "SOL/USDT", ETH]
    with pytest.warns(FetchWarning) as caught:
        data = fetch(stocked, names, start_date="2025-06-01", end_date="2025-06-12")
    (warning,) = caught
    assert "2 of 4 symbols failed" in str(warning.message)
    assert warning.filename == __file__, "the warning points at whoever asked"
    assert list(data.symbols) == [BTC, ETH]
    failures = data.wrapper._metadata["failures"]
    assert {name: one["error"] for name, one in failures.items()} == {
        "NOPE/USDT": "UnknownSymbolError",
        "SOL/USDT": "BadResponseError",
    }
    for name, one in failures.items():
        assert name in str(warning.message)
        assert one["message"] in str(warning.message)
    for symbol in (BTC, ETH):
        expected = truth(symbol, "1h", "2025-06-01", "2025-06-12")
        assert data.get("Close")[symbol].to_numpy().tolist() == expected.values[:, 3].tolist()
    done = processes.command(
        stocked, "-s", ",".join(names), "-e", "sandbox", "-t", "1h", "--start", DATES[0],
        "--end", "2025-06-12", "--json",
    )  # fmt: skip
    assert done.returncode == 1
    told = json.loads(done.stdout)["failures"]
    assert {name: one["error"] for name, one in told.items()} == {
        name: one["error"] for name, one in failures.items()
    }
    for name in failures:
        assert name in done.stderr


def test_all_symbols_failing_in_one_way_raises_that(stocked: World) -> None:
    """When all fail alike, the error is of that kind and knows each of them."""
    with pytest.raises(UnknownSymbolError, match="all 2 symbols failed") as caught:
        fetch(stocked, ["NOPE/USDT", "NADA/USDT"], start_date=DATES[0])
    assert set(caught.value.failures) == {"NOPE/USDT", "NADA/USDT"}
    assert set(caught.value.account["failures"]) == {"NOPE/USDT", "NADA/USDT"}


def test_all_symbols_failing_in_different_ways_raises_for_all(stocked: World) -> None:
    """When all fail for different reasons, one error names each with its own."""
    stocked.faults.add(Fault.NULL_FIELD, match="SOLUSDT")
    with refused(stocked, NothingFetchedError, "NOPE/USDT", "SOL/USDT", requests=ATTEMPTS):
        fetch(stocked, ["NOPE/USDT", "SOL/USDT"], start_date=DATES[0], end_date=DATES[1])


def test_the_metadata_fetcher_refuses_like_the_rest(stocked: World) -> None:
    """Bad arguments of `get_market_data` are typed errors as well."""
    fetcher = MetadataFetcher(stocked.home.cache)
    ask = {"exchange_config": stocked.config}
    with refused(stocked, UnknownMarketTypeError):
        fetcher.get_market_data("sandbox", market_type="nope", **ask)
    with refused(stocked, UnknownExchangeError):
        fetcher.get_market_data("binnance", **ask)
    with refused(stocked, OptionError):
        fetcher.get_top_symbols("sandbox", limit=0, **ask)


assert ms
