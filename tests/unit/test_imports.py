"""What is imported when: a cache hit waits for no library that it does not need."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import backtester
from backtester.data.storage.pickle_file import PickleStore
from tests.support.builders import HOUR, KEY, START, answer

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(backtester.__file__).resolve().parent
EXCHANGES = ["aiohttp", "ccxt"]
ENGINES = ["numba", "vectorbt", "vectorbtpro"]
HEAVY = [*EXCHANGES, *ENGINES, "dateparser", "matplotlib", "pandas", "plotly", "scipy"]

CENTRE = [
    "backtester.data.errors", "backtester.data.model", "backtester.data.dates",
    "backtester.data.candles", "backtester.data.events", "backtester.data.fetching.planning",
    "backtester.data.fetching.paging", "backtester.data.fetching.symbols",
    "backtester.data.fetching.faults", "backtester.data.fetching.request",
    "backtester.data.storage.store", "backtester.data.storage.memory",
    "backtester.data.storage.journal",
]  # fmt: skip

COVERED = f"""
from backtester.data.fetching.pipeline import run
from backtester.data.fetching.request import FetchRequest
from backtester.data.home import home_in
from backtester.data.model import DatasetKey
request = FetchRequest(
    DatasetKey.of("binance", "spot", "1h"), ("BTC/USDT",), {START}, "2024-01-01 05:00"
)
result = run(request, home_in())
assert result.requests == 0
assert len(result.series["BTC/USDT"].candles) == 5, result
"""
SUMMARY = """
from backtester.data.storage.data_storage import data_storage
summary = data_storage.get_storage_summary()
assert summary["files"]["binance_spot_1h.pickle.blosc"]["candles"] == 6, summary
assert data_storage.get_stored_symbols("binance", "1h") == ["BTC/USDT"]
assert data_storage.data_exists("binance", "1h")
"""


def modules_after(code: str, folder: Path) -> set[str]:
    """Run a program in a new interpreter; give the top-level packages it has imported."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    report = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    environment = {
        **os.environ,
        "BACKTESTER_DATA_DIR": str(folder / "data"),
        "BACKTESTER_STATE_DIR": str(folder / "state"),
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", report],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Give a folder in whose data directory six candles of BTC/USDT are stored."""
    store = PickleStore(tmp_path / "data")
    store.commit(KEY, [answer(count=6, asked_ms=START + 9 * HOUR)])
    store.fold(KEY)
    return tmp_path


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import backtester", HEAVY),
        ("import backtester.data", HEAVY),
        ("from backtester.data import fetch_data, load_data, DataStorage", HEAVY),
        ("from backtester.data.cache_system import cache_manager, data_fetcher", HEAVY),
        ("\n".join(f"import {name}" for name in CENTRE), [*HEAVY, "blosc2", "sqlite3"]),
    ],
    ids=["package", "data", "front door", "cache system", "centre"],
)
def test_importing_is_cheap_and_leaves_no_trace(
    code: str, unwanted: list[str], tmp_path: Path
) -> None:
    """No heavy library is imported and no file or folder is created."""
    assert modules_after(code, tmp_path).isdisjoint(unwanted)
    assert [path.name for path in tmp_path.rglob("*")] == ["home"]


def test_a_covered_question_imports_no_exchange_and_no_engine(stored: Path) -> None:
    """What the store answers needs neither ccxt nor VectorBT; nor pandas, with dates as ISO."""
    assert modules_after(COVERED, stored).isdisjoint(HEAVY)


def test_a_summary_needs_nothing_heavy(stored: Path) -> None:
    """Printing what is stored waits for no library of tables either."""
    assert modules_after(SUMMARY, stored).isdisjoint(HEAVY)


# ------------------------------------------------------------------------ who may import what


def imports_of(path: Path) -> set[str]:
    """List the top-level packages that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def importers_of(*names: str) -> set[str]:
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if imports_of(path) & set(names)
    }


def test_one_module_knows_ccxt() -> None:
    """An exchange is met through one module only, with another that imports no more than it."""
    assert importers_of("ccxt") == {"data/fetching/lazy_ccxt.py"}
    users = [path for path in PACKAGE.rglob("*.py") if "import exchange_class" in path.read_text()]
    assert [path.name for path in users] == ["exchange.py"]


def test_one_package_knows_vectorbt() -> None:
    """Which engine is installed is known in one place only."""
    importers = importers_of(*ENGINES)
    assert importers
    assert all(path.startswith("data/vbt_adapter/") for path in importers)


def test_the_centre_touches_nothing_outside() -> None:
    """It knows no exchange, no engine, no disk and no clock; errors are told by name."""
    for name in ("model", "dates", "candles", "fetching/planning", "fetching/paging",
                 "fetching/symbols", "fetching/decimals", "fetching/klines",
                 "fetching/rows"):  # fmt: skip
        found = imports_of(PACKAGE / "data" / f"{name}.py")
        assert found.isdisjoint({*EXCHANGES, *ENGINES, "pandas", "os", "pathlib", "time",
                                 "socket", "sqlite3", "asyncio"})  # fmt: skip
