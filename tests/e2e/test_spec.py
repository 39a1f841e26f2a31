"""The specification, line by line: its imports, signatures, snippets, commands, files and keys.

Where it says `vectorbtpro` stands ``from backtester import vbt``, and where it would ask
Binance, the sandbox is asked; everything else is verbatim. Its contradictions have been
settled, and each settlement is a test at the end.
"""

# ruff: noqa: E501 - a line of the specification is longer

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import re
import shlex
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backtester.data import settings
from backtester.data.cache_system.cache_manager import CacheManager
from backtester.data.cache_system.metadata_fetcher import MetadataFetcher
from backtester.data.candles import Candles
from backtester.data.errors import OptionError, UnknownMarketTypeError
from backtester.data.fetching import data_fetcher as front_door
from backtester.data.fetching.fetcher import IN_FLIGHT
from backtester.data.model import DatasetKey
from backtester.data.sandbox import SandboxServer
from backtester.data.storage import blosc, plain
from backtester.data.storage.data_storage import DataStorage
from backtester.data.vbt_adapter.frames import tables_of
from tests.support import processes
from tests.support.world import HOUR, MARKET, NOON, World, ms, same, truth

BTC, ETH = "BTC/USDT", "ETH/USDT"
SPEC = processes.SHARED / "spec.md"

# ------------------------------------------------------------------ the snippets, verbatim

FETCHING = """\
from backtester.data.fetching.data_fetcher import fetch_data, fetch_top_symbols

# Basic data fetching
data = fetch_data(
    symbols=['BTC/USDT', 'ETH/USDT'],
    exchange_id='binance',
    timeframe='1h',
    start_date='7 days ago',
    use_cache=True,
    market_type='spot'
)

# Volume-based symbol selection
data = fetch_top_symbols(
    exchange_id='binance',
    quote_currency='USDT',
    limit=10,
    timeframe='1h',
    market_type='spot'
)
"""
STORING = """\
from backtester.data.storage.data_storage import data_storage

# Save VBT data (preserves all metadata)
success = data_storage.save_data(vbt_data, 'binance', '1h', 'spot')

# Load VBT data (full functionality preserved)
data = data_storage.load_data('binance', '1h', market_type='spot')

# Get storage summary
summary = data_storage.get_storage_summary()
"""
CACHING = """\
from backtester.data.cache_system import cache_manager, data_fetcher

# Volume-based operations
volumes = cache_manager.get_all_volumes('binance')
cache_manager.save_all_volumes('binance', volume_data)

# Market data with volume
market_data = data_fetcher.get_market_data(
    exchange_id='binance',
    quote_currency='USDT',
    limit=20,
    top_by_volume=True
)
"""
USING = """\
import vectorbtpro as vbt
from backtester.data.fetching.data_fetcher import fetch_data

# Fetch and use data
data = fetch_data(['BTC/USDT', 'ETH/USDT'], timeframe='1h')

# All VBT functionality works
close = data.get('close')
rsi = vbt.talib('RSI').run(close['BTC/USDT'])
portfolio = vbt.PF.from_signals(data, entries=True, exits=False)

print(f"Latest RSI: {rsi.real.iloc[-1]:.2f}")
print(f"Portfolio value: ${portfolio.value.iloc[-1].sum():.2f}")
"""
RANKING = """\
from backtester.data.fetching.data_fetcher import fetch_top_symbols

# Get top symbols with volume metadata
data = fetch_top_symbols(
    exchange_id='binance',
    quote_currency='USDT',
    limit=10,
    timeframe='1h'
)

# Access volume rankings
if hasattr(data.wrapper, '_metadata'):
    volumes = data.wrapper._metadata['volume_data']
    for symbol in data.symbols:
        volume = volumes.get(symbol, 0)
        print(f"{symbol}: ${volume/1000000:.1f}M")
"""
SUMMARISING = """\
from backtester.data.storage.data_storage import data_storage

# Get comprehensive storage info
summary = data_storage.get_storage_summary()
print(f"Total files: {summary['pickle_files']}")
print(f"Total size: {summary['total_size_mb']:.2f} MB")

for filename, info in summary['files'].items():
    print(f"{filename}: {info['symbol_count']} symbols, {info['size_mb']} MB")
"""
COMMANDS = """\
# Fetch top 5 symbols by volume
python backtester/scripts/fetch_data_cli.py --top 5 --timeframe 1h

# Fetch specific symbols
python backtester/scripts/fetch_data_cli.py --symbols BTC/USDT,ETH/USDT --timeframe 4h

# Fetch from inception (maximum history)
python backtester/scripts/fetch_data_cli.py --symbols SOL/USDT --timeframe 1d --inception

# Fetch with custom date range
python backtester/scripts/fetch_data_cli.py --symbols BTC/USDT --timeframe 1h --start "30 days ago" --end "now"

# Show storage summary
python backtester/scripts/fetch_data_cli.py --storage-summary

# Use alias script (if available)
./backtester/scripts/fetch --top 10 --timeframe 1d --verbose
"""
SNIPPETS = (FETCHING, STORING, CACHING, USING, RANKING, SUMMARISING, COMMANDS)


def test_the_snippets_here_are_those_of_the_specification() -> None:
    """Every block of code in the specification is run by this module, word for word."""
    if not SPEC.exists():
        pytest.skip(f"the specification is not at {SPEC}")
    blocks = re.findall(r"```(?:python|bash)\n(.*?)```", SPEC.read_text(encoding="utf-8"), re.S)
    assert sorted(blocks) == sorted(SNIPPETS)


@pytest.fixture
def sold(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world whose exchange the snippets find by its id alone."""
    monkeypatch.setenv("BACKTESTER_SANDBOX_URL", world.server.url)
    yield world
    from backtester.data.cache_system import cache_manager

    cache_manager.close()


def execute(snippet: str, **names: Any) -> dict[str, Any]:
    """Run a snippet of the specification against the sandbox."""
    code = snippet.replace("import vectorbtpro as vbt", "from backtester import vbt")
    code = code.replace("exchange_id='binance'", "exchange_id='sandbox'")
    code = code.replace("timeframe='1h')", "timeframe='1h', exchange_id='sandbox')")
    names["__name__"] = "snippet"
    exec(compile(code, "spec.md", "exec"), names)
    return names


def test_fetching_as_specified(sold: World) -> None:
    """The fetching snippet gives the last seven days, and then the ten biggest symbols."""
    names = execute(FETCHING.split("# Volume-based")[0])
    expected = truth(BTC, "1h", NOON - 7 * 24 * HOUR, NOON)
    assert names["data"].get("close")[BTC].tolist() == expected.values[:, 3].tolist()
    data = execute(FETCHING)["data"]
    assert len(data.symbols) == 10
    volumes = data.wrapper._metadata["volume_data"]
    assert list(volumes) == list(data.symbols) == sorted(volumes, key=lambda s: -volumes[s])
    assert len(data.index) == 1000


def test_storing_as_specified(sold: World) -> None:
    """What is saved is loaded again: values, symbols, metadata; the summary counts it."""
    data = front_door.fetch_top_symbols("sandbox", limit=3, timeframe="1h")
    names = execute(STORING, vbt_data=data)
    assert names["success"] is True
    loaded = names["data"]
    assert sorted(loaded.symbols) == sorted(data.symbols)
    for symbol in data.symbols:
        assert loaded.get(symbol=symbol).equals(data.get(symbol=symbol))
    assert loaded.wrapper._metadata["volume_data"] == data.wrapper._metadata["volume_data"]
    assert names["summary"]["files"]["binance_spot_1h.pickle.blosc"]["symbol_count"] == 3


def test_caching_as_specified(sold: World) -> None:
    """Volumes are kept by exchange, and market data are ranked by them."""
    names = execute(CACHING, volume_data={BTC: 2.5e9, ETH: 1.0e9})
    assert names["volumes"] == {}
    assert names["cache_manager"].get_all_volumes("binance") == {BTC: 2.5e9, ETH: 1.0e9}
    ranked = [one["quote_volume"] for one in names["market_data"].values()]
    assert len(ranked) == 20
    assert ranked == sorted(ranked, reverse=True)
    assert all(one["quote"] == "USDT" for one in names["market_data"].values())


def test_using_as_specified(sold: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Indicators and portfolios take the data as they come, and give finite numbers."""
    pytest.importorskip("talib", reason="the TA-Lib package is not installed")
    names = execute(USING)
    lines = capsys.readouterr().out.splitlines()
    rsi = re.fullmatch(r"Latest RSI: ([0-9.]+)", lines[0])
    value = re.fullmatch(r"Portfolio value: \$([0-9.]+)", lines[1])
    assert rsi is not None
    assert 0 < float(rsi[1]) < 100
    # Everything is held from the first close on: the value follows the price.
    closes = names["close"]
    expected = sum(100 * closes[s].iloc[-1] / closes[s].iloc[0] for s in (BTC, ETH))
    assert value is not None
    assert float(value[1]) == pytest.approx(expected, abs=0.01)


def test_ranking_as_specified(sold: World, capsys: pytest.CaptureFixture[str]) -> None:
    """The ranking prints the biggest first, in millions of quote units."""
    execute(RANKING)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    ticker = MARKET.ticker(lines[0].split(":")[0], NOON)
    assert lines[0] == f"{ticker.symbol}: ${ticker.quote_volume / 1e6:.1f}M"
    millions = [float(line.split("$")[1].rstrip("M")) for line in lines]
    assert millions == sorted(millions, reverse=True)


def test_summarising_as_specified(sold: World, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary's keys are those of the specification, its numbers those of the disk."""
    sold.ask([BTC, ETH], "1h", "2025-06-01", "2025-06-10")
    sold.ask(BTC, "4h", "2025-06-01", "2025-06-10")
    execute(SUMMARISING)
    lines = capsys.readouterr().out.splitlines()
    sizes = {name: len(content) for name, content in sold.files().items()}
    assert lines[0] == "Total files: 2"
    assert lines[1] == f"Total size: {sum(sizes.values()) / 1e6:.2f} MB"
    assert lines[2:] == [
        f"{name}: {count} symbols, {round(sizes[name] / 1e6, 3)} MB"
        for name, count in (
            ("sandbox_spot_1h.pickle.blosc", 2),
            ("sandbox_spot_4h.pickle.blosc", 1),
        )
    ]


# ------------------------------------------------------------------ the commands, verbatim


def commands() -> list[str]:
    return [line for line in COMMANDS.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("line", commands())
@pytest.mark.parametrize("where", ["checkout", "elsewhere"])
def test_every_documented_command_runs(world: World, tmp_path: Path, line: str, where: str) -> None:
    """The commands run from the checkout as documented, and from any other directory."""
    words = shlex.split(line)
    if where == "elsewhere":
        scripts = str(processes.ROOT / "backtester/scripts")
        words = [re.sub(r"^(\./)?backtester/scripts", scripts, word) for word in words]
    environment = processes.environment(world)
    environment.pop("PYTHONPATH")
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    more = [] if "--storage-summary" in words else ["--exchange", "sandbox"]
    done = subprocess.run(
        [*words, *more],
        cwd=processes.ROOT if where == "checkout" else tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [row.split() for row in done.stdout.splitlines()[1:] if "/USDT" in row]
    counts = {row[0]: int(row[1].replace(",", "")) for row in rows}
    if "--top" in words:
        assert len(counts) == int(words[words.index("--top") + 1])
    elif "--inception" in words:
        assert counts == {"SOL/USDT": len(truth("SOL/USDT", "1d", 0, NOON))}
    elif "--start" in words:
        assert counts == {BTC: len(truth(BTC, "1h", NOON - 30 * 24 * HOUR, NOON))}
    elif "--symbols" in words:
        assert counts == {BTC: 1000, ETH: 1000}
    else:
        assert done.stdout.startswith("0 datasets")
        assert str(world.folder) in done.stdout


def test_the_alias_scripts_are_programs() -> None:
    """`fetch` can be started by its path alone, at both places."""
    for folder in ("backtester/scripts", "backtester/data/scripts"):
        path = processes.ROOT / folder / "fetch"
        assert path.stat().st_mode & stat.S_IXUSR, f"{path} is not executable"
        assert path.read_text().startswith("#!/usr/bin/env python3\n")


@pytest.mark.parametrize("option", [
    "--top", "--symbols", "--timeframe", "--exchange", "--market-type", "--inception", "--start",
    "--end", "--no-cache", "--verbose", "--quiet", "--storage-summary",
])  # fmt: skip
def test_every_specified_option_is_there(option: str) -> None:
    """The command knows every option of the specification under its name."""
    import typer

    from backtester.data.cli import app

    fetch = typer.main.get_command(app).commands["fetch"]  # type: ignore[attr-defined]
    names = [name for parameter in fetch.params for name in parameter.opts]
    assert option in names


# ------------------------------------------------------------------ signatures, files, verbs


def test_the_signatures_are_the_specified_ones() -> None:
    """Names, order and defaults of all functions that the specification calls."""

    def leading(function: Any, count: int) -> list[tuple[str, Any]]:
        parameters = list(inspect.signature(function).parameters.values())
        return [(p.name, p.default) for p in parameters if p.kind is not p.KEYWORD_ONLY][:count]

    assert leading(front_door.fetch_data, 7) == [
        ("symbols", inspect.Parameter.empty),
        ("exchange_id", "binance"),
        ("timeframe", "1d"),
        ("start_date", None),
        ("end_date", None),
        ("use_cache", True),
        ("market_type", "spot"),
    ]
    assert leading(front_door.fetch_top_symbols, 5) == [
        ("exchange_id", "binance"),
        ("quote_currency", "USDT"),
        ("limit", 10),
        ("timeframe", "1d"),
        ("market_type", "spot"),
    ]
    empty = inspect.Parameter.empty
    assert leading(DataStorage().save_data, 4) == [
        ("data", empty), ("exchange_id", empty), ("timeframe", empty), ("market_type", "spot"),
    ]  # fmt: skip
    assert leading(DataStorage().load_data, 4) == [
        ("exchange_id", empty), ("timeframe", empty), ("symbols", None), ("market_type", "spot"),
    ]  # fmt: skip
    assert [name for name, _ in leading(MetadataFetcher(CacheManager()).get_market_data, 4)] == [
        "exchange_id", "quote_currency", "limit", "top_by_volume",
    ]  # fmt: skip


def test_fetch_data_takes_its_arguments_by_position(sold: World) -> None:
    """Symbols, exchange, timeframe, start, end, cache, market type, in this order."""
    data = front_door.fetch_data([BTC], "sandbox", "15m", "2025-06-01", "2025-06-02", False, "swap")
    expected = truth("BTC/USDT:USDT", "15m", "2025-06-01", "2025-06-02")
    assert data.get("Open")[BTC].tolist() == expected.values[:, 0].tolist()
    assert list(sold.files()) == ["sandbox_swap_15m.pickle.blosc"]


def test_the_data_look_as_specified(sold: World) -> None:
    """Columns, index, zone and types; a list gives frames, a bare name Series."""
    data = front_door.fetch_data([BTC], "sandbox", "1h", "2025-06-01", "2025-06-10")
    assert list(data.features) == ["Open", "High", "Low", "Close", "Volume"]
    assert (data.index.name, str(data.index.tz)) == ("Open time", "UTC")
    frame = data.get()
    assert set(map(str, frame.dtypes)) == {"float64"}
    assert data.get("close").equals(data.get("Close"))
    assert list(data.get("close").columns) == [BTC]
    bare = front_door.fetch_data(BTC, "sandbox", "1h", "2025-06-01", "2025-06-10")
    assert bare.get("close").ndim == 1
    assert bare.get("close").tolist() == data.get("close")[BTC].tolist()


def test_files_are_named_and_placed_as_specified(sold: World) -> None:
    """One flat folder, a file per exchange, market type and timeframe, readable by Blosc2."""
    for timeframe, kind in (("1h", "spot"), ("4h", "spot"), ("1d", "swap")):
        sold.ask(BTC, timeframe, "2025-06-01", "2025-06-10", market_type=kind)
    assert sorted(sold.files()) == [
        "sandbox_spot_1h.pickle.blosc",
        "sandbox_spot_4h.pickle.blosc",
        "sandbox_swap_1d.pickle.blosc",
    ]
    assert not [path for path in sold.folder.rglob("*") if path.is_dir()]
    import blosc2

    for content in sold.files().values():
        assert blosc2.decompress2(content)[:1] == b"\x80", "a pickle in a Blosc2 chunk"


def test_the_verbs_of_vectorbt_work_on_the_data(sold: World) -> None:
    """pull, update, merge, select, save, load and resample, as VectorBT users know them."""
    from backtester import vbt

    data = vbt.Data.pull(
        [BTC, ETH], exchange="sandbox", timeframe="1h", start="2025-06-01", end="2025-06-10"
    )
    assert data.get("close")[ETH].tolist() == (
        truth(ETH, "1h", "2025-06-01", "2025-06-10").values[:, 3].tolist()
    )
    newer = data.update(end="2025-06-12")
    assert (len(data.index), len(newer.index)) == (9 * 24, 11 * 24)
    other = vbt.Data.pull(["SOL/USDT"], exchange="sandbox", timeframe="1h",
                          start="2025-06-01", end="2025-06-12")  # fmt: skip
    merged = vbt.Data.merge(newer, other)
    assert list(merged.symbols) == [BTC, ETH, "SOL/USDT"]
    assert list(merged.select([ETH]).symbols) == [ETH]
    path = sold.folder.parent / "mine.pickle.blosc"
    merged.save(path)
    assert vbt.Data.load(path).get("volume").equals(merged.get("volume"))
    days = merged.resample("1d").get("high")[BTC]
    assert days.tolist() == truth(BTC, "1d", "2025-06-01", "2025-06-12").values[:, 1].tolist()
    sent = len(sold.sent())
    vbt.Data.pull([BTC, ETH, "SOL/USDT"], exchange="sandbox", timeframe="1h",
                  start="2025-06-01", end="2025-06-12")  # fmt: skip
    assert sold.sent(sent) == [], "pull and fetch_data share the store"


def test_a_fetch_works_where_an_event_loop_is_running(sold: World) -> None:
    """A notebook has a loop of its own: the front door is called inside it like anywhere."""

    async def cell() -> Any:
        return front_door.fetch_data([BTC], "sandbox", "1h", "2025-06-01", "2025-06-10")

    data = asyncio.run(cell())
    expected = truth(BTC, "1h", "2025-06-01", "2025-06-10")
    assert data.get("close")[BTC].tolist() == expected.values[:, 3].tolist()


# ------------------------------------------------------------------ contradictions, as settled


@pytest.mark.parametrize("folder", ["backtester/scripts", "backtester/data/scripts"])
@pytest.mark.parametrize("name", ["fetch_data_cli.py", "fetch"])
def test_settled_1_the_scripts_are_at_both_places(
    world: World, tmp_path: Path, folder: str, name: str
) -> None:
    """One implementation, reached from both paths, without installation and from anywhere."""
    script = processes.ROOT / folder / name
    done = processes.command(
        world, "--storage-summary", "--json", script=(str(script),), cwd=tmp_path, PYTHONPATH=""
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data_dir"] == str(world.folder)


def test_settled_1_there_is_an_installed_command_too() -> None:
    """The package's metadata name a console command that exists."""
    project = tomllib.loads((processes.ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"vbt-data": "backtester.data.cli:main"}
    from backtester.data.cli import main

    assert callable(main)


def test_settled_2_where_the_data_are(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Argument before environment before checkout before the user's folder; nothing on import."""
    assert settings.data_directory(tmp_path / "given") == tmp_path / "given"
    assert settings.data_directory() == world.folder
    monkeypatch.delenv("BACKTESTER_DATA_DIR")
    checkout = processes.ROOT / "backtester" / "data" / "vbt_data"
    assert settings.data_directory() == checkout
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        elsewhere = settings.data_directory()
        assert elsewhere.name == "vbt_data"
        assert processes.ROOT not in elsewhere.parents
    before = checkout.exists()
    code = "from backtester.data.cache_system import cache_manager, data_fetcher\n"
    code += "from backtester.data.storage.data_storage import data_storage\n"
    code += "print(data_storage.get_storage_summary()['pickle_files'])"
    processes.python(world, code)
    assert (world.folder.exists(), checkout.exists()) == (False, before)


def test_settled_3_the_cache_package_exports_objects() -> None:
    """`cache_manager` and `data_fetcher` are ready-made objects, not modules."""
    from backtester.data.cache_system import cache_manager, data_fetcher

    assert isinstance(cache_manager, CacheManager)
    assert isinstance(data_fetcher, MetadataFetcher)


def test_settled_4_a_market_type_in_the_place_of_symbols_is_an_error(sold: World) -> None:
    """`load_data(exchange, timeframe, 'swap')` says how it is meant instead of finding nothing."""
    sold.ask(BTC, "1h", "2025-06-01", "2025-06-02", market_type="swap")
    with pytest.raises(OptionError, match="market_type='swap'"):
        front_door.load_data("sandbox", "1h", "swap")
    assert len(front_door.load_data("sandbox", "1h", market_type="swap").index) == 24


def test_settled_5_all_three_market_types_work(sold: World) -> None:
    """Spot, swap and future each give their own market; a lacking one is an error."""
    sold.clock.now_ms = ms("2026-05-15T12:34:56")
    found = {}
    dates = ("2026-05-01", "2026-05-02")
    for kind, symbol in (
        ("spot", BTC), ("swap", "BTC/USDT:USDT"), ("future", "BTC/USDT:USDT-260925"),
    ):  # fmt: skip
        asked = sold.ask(symbol, "1h", *dates, market_type=kind)
        assert same(asked[symbol], truth(symbol, "1h", *dates, sold.clock()))
        found[kind] = asked[symbol].values[:, 3].tolist()
    assert len({tuple(closes) for closes in found.values()}) == 3
    with pytest.raises(UnknownMarketTypeError):
        front_door.fetch_data(BTC, "kraken", market_type="future")


@pytest.fixture
def _logging_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("backtester")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.usefixtures("_logging_as_it_was")
def test_settled_6_flags_exclude_each_other_and_have_aliases() -> None:
    """What cannot be meant together is refused; --quote and --market are there."""
    from typer.testing import CliRunner

    from backtester.data.cli import app

    for words in (
        ("--top", "3", "--symbols", BTC),
        ("--verbose", "--quiet", "--symbols", BTC),
        ("--inception", "--start", "2024-01-01", "--symbols", BTC),
    ):
        ended = CliRunner().invoke(app, ["fetch", *words])
        assert ended.exit_code == 2
        assert "exclude each other" in ended.stderr
    shown = CliRunner().invoke(app, ["fetch", "--help"]).stdout
    assert "--quote" in shown
    assert "--market" in shown


def test_settled_7_vbt_is_vectorbt_with_the_specified_verbs() -> None:
    """`from backtester import vbt` has all of VectorBT, and what the specification calls."""
    import vectorbt

    from backtester import vbt

    for name in ("pull", "update", "merge", "select", "save", "load", "resample", "get"):
        assert callable(getattr(vbt.Data, name))
    assert issubclass(vbt.Data, vectorbt.Data)
    assert issubclass(vbt.PF, vectorbt.Portfolio)
    assert (vbt.MA, vbt.RSI) == (vectorbt.MA, vectorbt.RSI)
    assert "vectorbtpro" not in sys.modules


def test_settled_8_no_start_means_1000_closed_candles(sold: World) -> None:
    """Whatever the cache holds; `inception` is all there is, `load_data` all that is stored."""
    days = truth(BTC, "1d", 0, NOON)
    newest = days.take(days.open_time >= days.open_time[-1000])

    def shows(data: Any, expected: Candles) -> bool:
        return same(tables_of(data)[BTC], expected)

    assert shows(front_door.fetch_data([BTC], "sandbox", "1d"), newest)
    assert shows(front_door.fetch_data([BTC], "sandbox", "1d", "inception"), days)
    assert shows(front_door.fetch_data([BTC], "sandbox", "1d"), newest)
    assert shows(front_door.load_data("sandbox", "1d"), days)


def test_settled_9_speed_is_published_warm_and_cold() -> None:
    """A cache hit is measured hot and cold, and both are printed with their sizes."""
    text = (processes.ROOT / "benchmarks" / "cache_hit.py").read_text(encoding="utf-8")
    for words in ("hot", "cold", "symbols"):
        assert words in text


def test_settled_10_requests_go_out_in_parallel_within_the_limit(world: World) -> None:
    """Many pages are under way at once, never more than intended, on one event loop."""
    server = SandboxServer(MARKET, clock=world.clock, latency_s=0.03)
    under_way: list[int] = []
    now = 0
    handle = server._handle

    async def counted(request: Any) -> Any:
        nonlocal now
        now += 1
        under_way.append(now)
        try:
            return await handle(request)
        finally:
            now -= 1
            await asyncio.sleep(0)

    server._handle = counted  # type: ignore[method-assign]
    with server:
        busy = World(server, world.clock, world.folder, config={"sandboxUrl": server.url})
        symbols = [one.symbol for one in MARKET.listings("spot") if one.trading_at(NOON)][:30]
        busy.ask(symbols, "1h", "2025-05-01", "2025-05-10")
    assert 8 < max(under_way) <= IN_FLIGHT


def test_settled_11_a_month_is_spelled_so_that_no_disk_confuses_it(sold: World) -> None:
    """`1M` is stored as `1mo`, beside `1m`, and each file knows what it is."""
    sold.ask(BTC, "1M", "2024-01-01", "2025-06-01")
    sold.ask(BTC, "1m", "2025-06-01", "2025-06-02")
    assert sorted(sold.files()) == ["sandbox_spot_1m.pickle.blosc", "sandbox_spot_1mo.pickle.blosc"]
    assert len(front_door.load_data("sandbox", "1M").index) == 17
    assert len(front_door.load_data("sandbox", "1m").index) == 1440
    assert DatasetKey.from_stem("sandbox_spot_1mo") == DatasetKey.of("sandbox", "spot", "1M")


def test_settled_12_a_merge_that_fails_gives_fresh_data_and_keeps_the_old_file(
    sold: World,
) -> None:
    """Fresh data come with a warning; the file that could not be merged is set aside whole."""
    sold.ask(BTC, "1h", "2025-06-01", "2025-06-10")
    path = sold.folder / "sandbox_spot_1h.pickle.blosc"
    path.write_bytes(b"x" + path.read_bytes()[1:])
    old = path.read_bytes()
    asked = sold.ask(BTC, "1h", "2025-06-01", "2025-06-10", warns="set aside")
    assert same(asked[BTC], truth(BTC, "1h", "2025-06-01", "2025-06-10"))
    assert sold.files()[f"{path.name}.damaged-1"] == old


def test_settled_13_the_summary_unpickles_nothing(
    sold: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keys are exact, and no pickle is opened for them."""
    sold.ask([BTC, ETH], "1h", "2025-06-01", "2025-06-10")
    sold.new_process()

    def opened(*_: Any, **__: Any) -> Any:
        raise AssertionError("a pickle was opened")

    for module in (plain, blosc):
        for name in ("unpack", "parse"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, opened)
    summary = DataStorage().get_storage_summary()
    assert {"pickle_files", "total_size_mb", "files"} <= set(summary)
    (info,) = summary["files"].values()
    assert {"symbol_count", "size_mb"} <= set(info)
    assert (info["symbol_count"], info["candles"], info["problem"]) == (2, 432, None)


def test_settled_14_the_library_logs_plain_text(
    sold: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Log records of the library are words; emoji are the command's."""
    caplog.set_level(logging.DEBUG, "backtester")
    sold.ask([BTC, "NOPE/USDT"], "1h", "2025-06-01", "2025-06-10", warns="NOPE")
    assert len(caplog.records) >= 2
    for record in caplog.records:
        assert record.getMessage().isascii()
        assert record.name.startswith("backtester.")
    emoji = processes.command(sold, "-s", "NOPE/USDT", "-e", "sandbox", PYTHONIOENCODING="utf-8")
    assert "❌" in emoji.stderr
