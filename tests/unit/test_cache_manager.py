"""The cache of things known about exchanges: ages, rules, processes, damage."""

from __future__ import annotations

import gc
import logging
import math
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from backtester.data import errors
from backtester.data.cache_system import cache_file
from backtester.data.cache_system.cache_manager import (
    FAILED_TTL_S,
    VOLUMES_TTL_S,
    CacheManager,
    ClockOffset,
    FailedSymbol,
)
from backtester.data.model import Market, MarketType

ROOT = Path(__file__).resolve().parents[2]
NOW = 1_750_000_000_000
VOLUMES = {"BTC/USDT": 1.2345678901234567e9, "ETH/USDT": 0.1 + 0.2, "DEAD/USDT": 0.0}
BTC = Market("BTC/USDT", "BTCUSDT", MarketType.SPOT, "BTC", "USDT", created_ms=1_502_942_400_000)
PERP = Market(
    "ETH/USDT:USDT", "ETHUSDT", MarketType.SWAP, "ETH", "USDT", "USDT",
    active=False, linear=True, contract_size=0.01,
)  # fmt: skip


class FakeClock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.ms = NOW

    def __call__(self) -> int:
        return self.ms

    def pass_s(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def cache(folder: Path, clock: FakeClock) -> Iterator[CacheManager]:
    manager = CacheManager(folder, clock=clock)
    yield manager
    manager.close()


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, logger="backtester")
    return lambda: [record.getMessage() for record in caplog.records]


READS: dict[str, tuple[Callable[[CacheManager], object], object]] = {
    "volumes": (lambda c: c.get_all_volumes("binance", max_age_s=math.inf), {}),
    "volumes time": (lambda c: c.volumes_fetched_ms("binance"), None),
    "inception": (lambda c: c.get_inception("binance", "spot", "BTC/USDT"), None),
    "inceptions": (lambda c: c.get_all_timestamps("binance"), {}),
    "failed": (lambda c: c.get_failed("binance"), {}),
    "markets": (lambda c: c.get_markets("binance", max_age_s=math.inf), None),
    "one market": (lambda c: c.get_market("binance", "spot", "BTC/USDT"), None),
    "unified": (lambda c: c.get_unified_markets("binance", max_age_s=math.inf), None),
    "markets time": (lambda c: c.markets_fetched_ms("binance"), None),
    "clock": (lambda c: c.get_clock_offset("binance"), None),
}


def fill(manager: CacheManager, exchange: str = "binance") -> None:
    """Store one of everything."""
    assert manager.save_all_volumes(exchange, VOLUMES)
    assert manager.save_inception(exchange, "spot", "BTC/USDT", 1_502_942_400_000, "first candle")
    gone = errors.UnknownSymbolError("no such symbol")
    assert manager.save_failed(exchange, "spot", "GONE/USDT", gone)
    assert manager.save_markets(exchange, "spot", [BTC], [{"symbol": "BTC/USDT"}])
    assert manager.save_clock_offset(exchange, -37)


def answers(manager: CacheManager, exchange: str = "binance") -> list[object]:
    return [
        manager.get_all_volumes(exchange),
        manager.get_all_timestamps(exchange),
        manager.get_failed(exchange),
        manager.get_markets(exchange),
        manager.get_unified_markets(exchange),
        manager.get_clock_offset(exchange),
    ]


EMPTY: list[object] = [{}, {}, {}, None, None, None]


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------------------- the objects


def test_import_does_nothing(tmp_path: Path) -> None:
    """Importing the objects makes no folder, reads no variable and imports nothing heavy."""
    code = """
import os, sys
os.environ["BACKTESTER_DATA_DIR"] = before = os.path.join(sys.argv[0], os.environ["WHERE"], "a")
from backtester.data.cache_system import cache_manager
assert cache_manager.get_all_volumes("binance") == {}
heavy = {"ccxt", "vectorbt", "numba", "pandas", "blosc2", "aiohttp"} & set(sys.modules)
assert not heavy, heavy
assert not os.path.exists(before)
os.environ["BACKTESTER_DATA_DIR"] = after = os.path.join(os.environ["WHERE"], "b")
assert cache_manager.save_all_volumes("binance", {"BTC/USDT": 1.0})
assert os.listdir(after)[0].startswith("cache.sqlite") and not os.path.exists(before)
"""
    run_python(code, WHERE=str(tmp_path))


def test_the_objects_of_the_package() -> None:
    """The package gives two instances; the modules of these names have the classes."""
    from backtester.data.cache_system import cache_manager, data_fetcher
    from backtester.data.cache_system.metadata_fetcher import MetadataFetcher

    assert isinstance(cache_manager, CacheManager)
    assert isinstance(data_fetcher, MetadataFetcher)


# ---------------------------------------------------------------------------- reading nothing


@pytest.mark.parametrize("name", READS)
def test_reads_without_a_file(name: str, folder: Path, cache: CacheManager) -> None:
    """Reading where nothing is stored is empty and creates nothing."""
    read, nothing = READS[name]
    assert read(cache) == nothing
    assert not folder.exists()


@pytest.mark.parametrize("name", READS)
def test_reads_of_another_exchange(name: str, cache: CacheManager) -> None:
    """What is known of one exchange is not known of another."""
    fill(cache, "okx")
    read, nothing = READS[name]
    assert read(cache) == nothing


@pytest.mark.parametrize("name", READS)
def test_reads_of_another_market_type(name: str, cache: CacheManager) -> None:
    """Spot and swap are kept apart."""
    assert cache.save_all_volumes("binance", VOLUMES, "swap")
    assert cache.save_inception("binance", "swap", "BTC/USDT", 1, "first candle")
    assert cache.save_failed("binance", "swap", "BTC/USDT", errors.NotServedError("no"))
    assert cache.save_markets("binance", "swap", [PERP], [{}])
    read, nothing = READS[name]
    assert read(cache) == nothing


def test_reads_while_another_process_makes_the_file(folder: Path, cache: CacheManager) -> None:
    """A file without tables yet is read as empty and left alone."""
    folder.mkdir()
    (folder / "cache.sqlite").touch()
    assert cache.get_all_volumes("binance") == {}
    assert (folder / "cache.sqlite").stat().st_size == 0


@pytest.mark.parametrize("exchange", ["binance", "binance|hostname=data-api", "Ö 'x'; --", ""])
def test_any_text_is_an_exchange(exchange: str, cache: CacheManager) -> None:
    """An exchange id may be any text."""
    fill(cache, exchange)
    assert cache.get_all_volumes(exchange) == VOLUMES
    assert cache.get_clock_offset(exchange) == ClockOffset(-37, NOW)
    assert answers(cache, "another") == EMPTY


# ---------------------------------------------------------------------------- volumes


def test_volumes_come_back_exactly(cache: CacheManager, folder: Path, clock: FakeClock) -> None:
    """Volumes survive bit for bit, in their order."""
    assert cache.save_all_volumes("binance", VOLUMES)
    assert list(cache.get_all_volumes("binance").items()) == list(VOLUMES.items())
    with closing(CacheManager(folder, clock=clock)) as other:
        assert list(other.get_all_volumes("binance").items()) == list(VOLUMES.items())


def test_volumes_are_replaced_as_a_set(cache: CacheManager) -> None:
    """A symbol missing from the new volumes is gone."""
    cache.save_all_volumes("binance", VOLUMES)
    cache.save_all_volumes("binance", {"XRP/USDT": 5})
    assert cache.get_all_volumes("binance") == {"XRP/USDT": 5.0}


def test_volumes_are_copies(cache: CacheManager) -> None:
    """Changing an answer does not change the cache."""
    cache.save_all_volumes("binance", VOLUMES)
    cache.get_all_volumes("binance").clear()
    assert cache.get_all_volumes("binance") == VOLUMES


def test_volumes_age(cache: CacheManager, clock: FakeClock) -> None:
    """Volumes are given up to their time to live, or the age asked for."""
    cache.save_all_volumes("binance", VOLUMES)
    clock.pass_s(VOLUMES_TTL_S)
    assert cache.get_all_volumes("binance") == VOLUMES
    clock.pass_s(0.001)
    assert cache.get_all_volumes("binance") == {}
    assert cache.get_all_volumes("binance", max_age_s=VOLUMES_TTL_S + 1) == VOLUMES
    assert cache.get_all_volumes("binance", max_age_s=math.inf) == VOLUMES
    assert cache.volumes_fetched_ms("binance") == NOW


def test_volumes_of_a_given_time(cache: CacheManager) -> None:
    """The time of fetching can be given."""
    cache.save_all_volumes("binance", VOLUMES, fetched_ms=NOW - 60_000)
    assert cache.volumes_fetched_ms("binance") == NOW - 60_000
    assert cache.get_all_volumes("binance", max_age_s=59) == {}
    assert cache.get_all_volumes("binance", max_age_s=60) == VOLUMES


def test_volumes_of_the_future(cache: CacheManager, clock: FakeClock) -> None:
    """A value saved under a clock that ran ahead is not fresh for ever."""
    cache.save_all_volumes("binance", VOLUMES, fetched_ms=NOW + 86_400_000)
    assert cache.get_all_volumes("binance") == {}
    assert cache.get_all_volumes("binance", max_age_s=math.inf) == VOLUMES


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-9, None, "many"])
def test_volumes_that_are_none(value: Any, cache: CacheManager) -> None:
    """One impossible volume refuses the set and leaves the old one."""
    cache.save_all_volumes("binance", VOLUMES)
    with pytest.raises(errors.OptionError, match="no volume of 'XRP/USDT'"):
        cache.save_all_volumes("binance", {"ETH/USDT": 1.0, "XRP/USDT": value})
    assert cache.get_all_volumes("binance") == VOLUMES


def test_market_types_are_checked(cache: CacheManager) -> None:
    """An unknown market type is an error, not a new drawer."""
    with pytest.raises(errors.UnknownMarketTypeError):
        cache.save_all_volumes("binance", VOLUMES, "options")
    with pytest.raises(errors.UnknownMarketTypeError):
        cache.get_all_volumes("binance", "options")


# ---------------------------------------------------------------------------- inception


def test_inception(cache: CacheManager, clock: FakeClock) -> None:
    """The first candle's time is kept for good, per market type, and can be corrected."""
    cache.save_inception("binance", "spot", "BTC/USDT", 1_600_000_000_000, "market's created time")
    cache.save_inception("binance", "spot", "BTC/USDT", 1_502_942_400_000, "first candle")
    cache.save_inception("binance", "swap", "BTC/USDT", 1_569_888_000_000, "first candle")
    clock.pass_s(1e9)
    assert cache.get_inception("binance", "spot", "BTC/USDT") == 1_502_942_400_000
    assert cache.get_inception("binance", "swap", "BTC/USDT") == 1_569_888_000_000
    assert cache.get_inception("binance", "future", "BTC/USDT") is None
    assert cache.get_all_timestamps("binance", "spot") == {"BTC/USDT": 1_502_942_400_000}


@pytest.mark.parametrize(
    ("open_ms", "source"),
    [(-1, "first candle"), (NOW + 86_400_000, "first candle"), (1, ""), (1, "  ")],
    ids=["before the epoch", "in the future", "no source", "blank source"],
)
def test_inception_that_is_none(open_ms: int, source: str, cache: CacheManager) -> None:
    """A time that cannot be, or that nobody said, is refused."""
    with pytest.raises(errors.OptionError):
        cache.save_inception("binance", "spot", "BTC/USDT", open_ms, source)
    assert cache.get_all_timestamps("binance") == {}


# ---------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    "error",
    [errors.UnknownSymbolError("gone"), errors.UnknownTimeframeError("no 3m"),
     errors.NotServedError("not here"), errors.RequestError("bad")],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
def test_failures_that_are_remembered(error: errors.DataError, cache: CacheManager) -> None:
    """What an exchange says about a symbol is remembered with its reason and end."""
    assert cache.save_failed("binance", "spot", "GONE/USDT", error)
    expected = FailedSymbol(str(error), NOW, NOW + round(FAILED_TTL_S * 1000))
    assert cache.get_failed("binance") == {"GONE/USDT": expected}


@pytest.mark.parametrize(
    "error",
    [errors.TransientFetchError("x"), errors.RateLimitedError("x"), errors.BadResponseError("x"),
     errors.ExchangeUnavailableError("x"), errors.BannedError("x"), errors.AccessDeniedError("x"),
     errors.PermanentFetchError("x"), errors.FetchError("x"), errors.CandleError("x"),
     errors.CorruptDatasetError("x"), errors.DateError("x"), errors.OptionError("x"),
     errors.EmptyIntervalError("x"), errors.NoSymbolsError("x"), ValueError("x")],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
def test_failures_that_are_not(error: Any, cache: CacheManager, folder: Path) -> None:
    """Trouble with the wire, our address or the question says nothing about a symbol."""
    assert cache.save_failed("binance", "spot", "BTC/USDT", error) is False
    assert cache.get_failed("binance") == {}
    assert not folder.exists()


def test_failures_expire(cache: CacheManager, clock: FakeClock) -> None:
    """A failed symbol is asked again when its time is over."""
    cache.save_failed("binance", "spot", "A/USDT", errors.NotServedError("no"), ttl_s=10)
    cache.save_failed("binance", "spot", "B/USDT", errors.NotServedError("no"), ttl_s=20)
    clock.pass_s(9.999)
    assert set(cache.get_failed("binance")) == {"A/USDT", "B/USDT"}
    clock.pass_s(0.001)
    assert set(cache.get_failed("binance")) == {"B/USDT"}
    clock.pass_s(10)
    assert cache.get_failed("binance") == {}


def test_failures_of_the_future(cache: CacheManager, clock: FakeClock) -> None:
    """A failure noted by a clock that ran ahead is not believed."""
    clock.pass_s(1e9)
    cache.save_failed("binance", "spot", "A/USDT", errors.NotServedError("no"))
    clock.pass_s(-1e9)
    assert cache.get_failed("binance") == {}


@pytest.mark.parametrize("ttl_s", [0, -1, math.inf, math.nan])
def test_failures_always_expire(ttl_s: float, cache: CacheManager) -> None:
    """No failure can be remembered for ever."""
    with pytest.raises(errors.OptionError):
        cache.save_failed("binance", "spot", "A/USDT", errors.NotServedError("no"), ttl_s=ttl_s)


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        (("binance",), {"okx spot A"}),
        (("binance", "spot"), {"okx spot A", "binance swap A"}),
        (("binance", "spot", "A"), {"okx spot A", "binance swap A", "binance spot B"}),
        (("binance", None, "A"), {"okx spot A", "binance spot B"}),
    ],
    ids=["exchange", "market", "symbol", "symbol in all markets"],
)
def test_failures_are_cleared(scope: tuple[Any, ...], left: set[str], cache: CacheManager) -> None:
    """Failures can be forgotten by exchange, market and symbol."""
    every = ["okx spot A", "binance swap A", "binance spot A", "binance spot B"]
    for key in every:
        exchange, market, symbol = key.split()
        assert cache.save_failed(exchange, market, symbol, errors.NotServedError("no"))
    assert cache.clear_failed(*scope)
    kept = {k for k in every if k.split()[2] in cache.get_failed(*k.split()[:2])}
    assert kept == left


# ---------------------------------------------------------------------------- markets


def test_markets_come_back_whole(cache: CacheManager, folder: Path, clock: FakeClock) -> None:
    """Every field of a market survives, in this and in another manager."""
    assert cache.save_markets("binance", "swap", [PERP, BTC], None)
    with closing(CacheManager(folder, clock=clock)) as other:
        for manager in (cache, other, other):
            assert manager.get_markets("binance", "swap") == [PERP, BTC]
            assert manager.get_market("binance", "swap", "BTC/USDT") == BTC
            assert manager.get_market("binance", "swap", "NO/USDT") is None


def test_markets_age(cache: CacheManager, clock: FakeClock) -> None:
    """Markets are given at any age, or up to the age asked for, with the time of fetching."""
    cache.save_markets("binance", "spot", [BTC], [{"symbol": "BTC/USDT"}])
    clock.pass_s(60)
    assert cache.get_markets("binance", max_age_s=60) == [BTC]
    assert cache.get_unified_markets("binance", max_age_s=60) == [{"symbol": "BTC/USDT"}]
    assert cache.get_market("binance", "spot", "BTC/USDT", max_age_s=60) == BTC
    clock.pass_s(0.001)
    assert cache.get_markets("binance", max_age_s=60) is None
    assert cache.get_unified_markets("binance", max_age_s=60) is None
    assert cache.get_market("binance", "spot", "BTC/USDT", max_age_s=60) is None
    clock.pass_s(1e9)
    assert cache.get_markets("binance") == [BTC]
    assert cache.get_unified_markets("binance") == [{"symbol": "BTC/USDT"}]
    assert cache.get_market("binance", "spot", "BTC/USDT") == BTC
    assert cache.markets_fetched_ms("binance") == NOW


def test_no_markets_is_not_unknown(cache: CacheManager) -> None:
    """An exchange that said it has no such markets is remembered as that."""
    cache.save_markets("binance", "future", [])
    assert cache.get_markets("binance", "future") == []


def test_unified_markets(cache: CacheManager) -> None:
    """ccxt's own view is kept beside, given anew each time, and replaced together."""
    unified = [{"symbol": "BTC/USDT", "limits": {"amount": {"min": 1e-05, "max": None}}}]
    cache.save_markets("binance", "spot", [BTC], unified)
    first = cache.get_unified_markets("binance")
    assert first == unified
    first.clear()
    assert cache.get_unified_markets("binance") == unified
    cache.save_markets("binance", "spot", [BTC])
    assert cache.get_unified_markets("binance") is None


def test_unified_markets_that_are_not_json(
    cache: CacheManager, warned: Callable[[], list[str]]
) -> None:
    """Markets are kept even where ccxt's view of them cannot be, and that is said."""
    assert cache.save_markets("binance", "spot", [BTC], [{"symbol": object()}]) is False
    assert cache.get_markets("binance") == [BTC]
    assert cache.get_unified_markets("binance") is None
    assert "without ccxt's view" in warned()[0]


def test_markets_of_another_version(
    cache: CacheManager, folder: Path, warned: Callable[[], list[str]]
) -> None:
    """Markets written with other fields are unknown, not misread."""
    cache.save_markets("binance", "spot", [BTC])
    body = zlib.compress(b'{"fields":["symbol","id"],"rows":[["BTC/USDT","BTCUSDT"]]}')
    with closing(sqlite3.connect(folder / "cache.sqlite")) as raw, raw:
        raw.execute("UPDATE documents SET body = ?, stamp = ?", (body, b"other"))
    assert cache.get_markets("binance") is None
    assert warned() == []


# ---------------------------------------------------------------------------- clocks, clearing


def test_clock_offset(cache: CacheManager, clock: FakeClock) -> None:
    """The last measured offset is given with its time, whatever its age."""
    cache.save_clock_offset("binance", 250, measured_ms=5)
    cache.save_clock_offset("binance", -37)
    clock.pass_s(1e9)
    assert cache.get_clock_offset("binance") == ClockOffset(-37, NOW)


def test_clear(cache: CacheManager) -> None:
    """One exchange or everything can be forgotten."""
    for exchange in ("binance", "okx", "bybit"):
        fill(cache, exchange)
    assert cache.clear("okx")
    assert answers(cache, "okx") == EMPTY
    assert answers(cache, "bybit") == answers(cache, "binance") != EMPTY
    assert cache.clear()
    assert answers(cache, "bybit") == answers(cache, "binance") == EMPTY


def test_clearing_nothing(cache: CacheManager, folder: Path) -> None:
    """Forgetting where nothing is stored creates nothing."""
    assert cache.clear()
    assert cache.clear_failed("binance")
    assert not folder.exists()


# ---------------------------------------------------------------------------- sharing


def test_another_manager_sees_writes_at_once(folder: Path, clock: FakeClock) -> None:
    """What one manager saves, another one reads, also when it has read before."""
    with (
        closing(CacheManager(folder, clock=clock)) as one,
        closing(CacheManager(folder, clock=clock)) as two,
    ):
        for volume in (1.0, 2.0, 3.0):
            one.save_all_volumes("binance", {"BTC/USDT": volume})
            one.save_markets("binance", "spot", [BTC] * int(volume))
            one.save_clock_offset("binance", int(volume))
            assert two.get_all_volumes("binance") == {"BTC/USDT": volume}
            assert two.get_clock_offset("binance") == ClockOffset(int(volume), NOW)
            one, two = two, one


def test_the_directory_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """The environment variable is read at every use."""
    with closing(CacheManager(clock=clock)) as manager:
        for name in ("a", "b"):
            monkeypatch.setenv("BACKTESTER_DATA_DIR", str(tmp_path / name))
            assert manager.get_clock_offset("binance") is None
            assert manager.save_clock_offset("binance", 1)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
        monkeypatch.setenv("BACKTESTER_DATA_DIR", str(tmp_path / "a"))
        assert manager.get_clock_offset("binance") == ClockOffset(1, NOW)


def test_a_deleted_file_is_begun_anew(
    cache: CacheManager, folder: Path, warned: Callable[[], list[str]]
) -> None:
    """Deleting the file by hand empties the cache and harms nothing."""
    fill(cache)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert answers(cache) == EMPTY
    fill(cache)
    assert answers(cache) != EMPTY
    assert warned() == []


WRITER = """
import os, sys, time
from pathlib import Path
from backtester.data.cache_system.cache_manager import CacheManager
folder, me = Path(sys.argv[1]), sys.argv[2]
manager = CacheManager(folder / "data")
(folder / f"ready-{me}").touch()
while len(list(folder.glob("ready-*"))) < 3:
    time.sleep(0.001)
for i in range(150):
    assert manager.save_inception("binance", "spot", f"{me}{i}/USDT", 1_500_000_000_000 + i, "said")
    assert manager.save_all_volumes("binance", {f"{me}{j}": float(i) for j in range(50)})
    volumes = manager.get_all_volumes("binance")
    assert len(volumes) == 50 and len(set(volumes.values())) == 1, volumes
manager.close()
"""


def test_processes_write_at_once(tmp_path: Path) -> None:
    """Three processes that begin the file together lose nothing and never see half a set."""
    command = [sys.executable, "-W", "error", "-c", WRITER, str(tmp_path)]
    running = [
        subprocess.Popen([*command, me], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for me in "ABC"
    ]
    noise = [process.communicate(timeout=60)[1] for process in running]
    assert noise == ["", "", ""]
    with closing(CacheManager(tmp_path / "data")) as manager:
        assert len(manager.get_all_timestamps("binance")) == 450
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["cache.sqlite"]


def test_threads_write_at_once(cache: CacheManager) -> None:
    """Threads share a manager."""
    faults: list[Exception] = []

    def work(me: int) -> None:
        try:
            for i in range(50):
                cache.save_inception("binance", "spot", f"{me}-{i}", i, "said")
                cache.get_all_timestamps("binance")
        except Exception as fault:  # noqa: BLE001 - raised by the assertion below
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(cache.get_all_timestamps("binance")) == 400


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_goes_on(cache: CacheManager, folder: Path) -> None:
    """Parent and child of a fork both go on with connections of their own."""
    fill(cache)
    child = os.fork()
    if child == 0:
        good = cache.get_all_volumes("binance") == VOLUMES and all(
            cache.save_inception("child", "spot", f"S{i}", i, "said") for i in range(50)
        )
        cache.close()
        os._exit(0 if good else 1)
    written = all(cache.save_inception("parent", "spot", f"S{i}", i, "said") for i in range(50))
    assert os.waitpid(child, 0)[1] == 0
    assert written
    assert len(cache.get_all_timestamps("child")) == 50
    assert len(cache.get_all_timestamps("parent")) == 50


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_files_are_closed(folder: Path) -> None:
    """Closing, or letting go of a manager, closes its file."""

    def is_open() -> bool:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return any(str(folder) in str(link.readlink()) for link in links)

    manager = CacheManager(folder)
    manager.save_clock_offset("binance", 1)
    assert is_open()
    manager.close()
    assert not is_open()
    assert manager.get_clock_offset("binance") is not None
    assert is_open()
    del manager
    gc.collect()
    assert not is_open()


def test_a_locked_file_is_not_waited_for_forever(
    cache: CacheManager,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    warned: Callable[[], list[str]],
) -> None:
    """While another process keeps the file locked, saving says no and reading goes on."""
    fill(cache)
    cache.close()
    monkeypatch.setattr(cache_file, "_BUSY_S", 0.05)
    with closing(sqlite3.connect(folder / "cache.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert cache.save_clock_offset("binance", 5) is False
        assert cache.get_clock_offset("binance") == ClockOffset(-37, NOW)
        other.execute("ROLLBACK")
    assert "stayed locked" in warned()[0]
    assert cache.save_clock_offset("binance", 5)


# ---------------------------------------------------------------------------- damage


def garbage(path: Path) -> None:
    path.write_bytes(b"this was never a database" * 500)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def scramble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100:] = bytes(b ^ 0x5A for b in content[100:])
    path.write_bytes(content)


def other_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("PRAGMA user_version = 99")


def lost_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("DROP TABLE documents")


def flipped_bit(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        body = bytearray(raw.execute("SELECT body FROM documents").fetchone()[0])
        body[len(body) // 2] ^= 1
        raw.execute("UPDATE documents SET body = ?", (bytes(body),))


@pytest.mark.parametrize(
    "harm", [garbage, cut, scramble, other_version, lost_table, flipped_bit],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_a_damaged_file_is_set_aside(
    harm: Callable[[Path], None],
    folder: Path,
    clock: FakeClock,
    warned: Callable[[], list[str]],
) -> None:
    """Damage is said, kept for inspection, and a new file begun."""
    path = folder / "cache.sqlite"
    for number in (1, 2):
        with closing(CacheManager(folder, clock=clock)) as manager:
            fill(manager)
        harm(path)
        with closing(CacheManager(folder, clock=clock)) as manager:
            assert manager.get_all_volumes("binance") == {}
            aside = folder / f"cache.sqlite.damaged-{number}"
            assert aside.is_file()
            assert not path.exists()
            assert aside.name in warned()[-1]
            fill(manager)
            assert manager.get_all_volumes("binance") == VOLUMES
    assert len(warned()) == 2


def test_damage_is_met_while_writing(
    folder: Path, clock: FakeClock, warned: Callable[[], list[str]]
) -> None:
    """A write that finds the file damaged begins a new one and is kept."""
    folder.mkdir()
    garbage(folder / "cache.sqlite")
    with closing(CacheManager(folder, clock=clock)) as manager:
        fill(manager)
        assert manager.get_all_volumes("binance") == VOLUMES
    assert len(warned()) == 1


def test_damage_under_an_open_file(
    cache: CacheManager, folder: Path, warned: Callable[[], list[str]]
) -> None:
    """A log left by the damaged file is set aside with it and never applied to the next."""
    fill(cache)
    assert (folder / "cache.sqlite-wal").exists()
    garbage(folder / "cache.sqlite")
    with closing(CacheManager(folder, clock=lambda: NOW)) as other:
        fill(other, "okx")
        assert answers(other, "okx") != EMPTY
    assert answers(cache, "okx") != EMPTY


# ---------------------------------------------------------------------------- no place to write


def test_a_file_in_place_of_the_directory(
    folder: Path, clock: FakeClock, warned: Callable[[], list[str]]
) -> None:
    """Where nothing can be written the cache goes on in memory and says so once."""
    folder.write_text("in the way")
    with closing(CacheManager(folder, clock=clock)) as manager:
        assert answers(manager) == EMPTY
        assert warned() == []
        fill(manager)
        assert manager.get_all_volumes("binance") == VOLUMES
        assert manager.get_markets("binance") == [BTC]
        manager.close()
        assert manager.get_clock_offset("binance") == ClockOffset(-37, NOW)
    assert folder.read_text() == "in the way"
    (message,) = warned()
    assert str(folder) in message
    assert "in memory" in message


def test_a_way_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warned: Callable[[], list[str]]
) -> None:
    """Naming another directory ends the time in memory."""
    (tmp_path / "file").touch()
    with closing(CacheManager(clock=lambda: NOW)) as manager:
        monkeypatch.setenv("BACKTESTER_DATA_DIR", str(tmp_path / "file"))
        fill(manager)
        monkeypatch.setenv("BACKTESTER_DATA_DIR", str(tmp_path / "free"))
        assert answers(manager) == EMPTY
        fill(manager)
    assert (tmp_path / "free" / "cache.sqlite").is_file()
    assert len(warned()) == 1


@contextmanager
def powerless() -> Iterator[None]:
    """Take away root's power to write anywhere, for a while."""
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(65534)
    except PermissionError:
        pytest.skip("cannot become a user without rights")
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """A folder that can be read and entered but not written, outside of pytest's private one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill_in = CacheManager(folder, clock=lambda: NOW)
        fill(fill_in)
        fill_in.close()
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def test_a_read_only_directory(locked_folder: Path, warned: Callable[[], list[str]]) -> None:
    """What is stored stays readable, and what is saved is kept in memory, with one warning."""
    with powerless(), closing(CacheManager(locked_folder, clock=lambda: NOW)) as manager:
        assert manager.get_all_volumes("binance") == VOLUMES
        assert manager.get_markets("binance") == [BTC]
        assert manager.save_clock_offset("binance", 5)
        assert manager.get_clock_offset("binance") == ClockOffset(5, NOW)
        assert manager.get_all_volumes("binance") == VOLUMES
    assert len(warned()) == 1
    with closing(CacheManager(locked_folder, clock=lambda: NOW)) as manager:
        assert manager.get_clock_offset("binance") == ClockOffset(-37, NOW)


def test_markets_are_decoded_once(cache: CacheManager) -> None:
    """Looking symbols up again decodes nothing again, until the markets are replaced."""
    cache.save_markets("binance", "spot", [BTC])
    first = cache.get_market("binance", "spot", "BTC/USDT")
    assert cache.get_market("binance", "spot", "BTC/USDT") is first
    cache.save_markets("binance", "spot", [BTC])
    assert cache.get_market("binance", "spot", "BTC/USDT") is not first
