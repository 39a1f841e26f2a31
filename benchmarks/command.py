"""The commands as whole processes: start-up, summary, a cached fetch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.cache_hit import SYMBOLS, prepare
from benchmarks.harness import ROOT, Row, median_ms

HEAVY = ("vectorbt", "ccxt", "numba")


def run(*words: str, data_dir: str) -> None:
    """Run the command in a process of its own."""
    subprocess.run(
        [sys.executable, "-m", "backtester.data.cli", *words],
        cwd=ROOT,
        env={**os.environ, "BACKTESTER_DATA_DIR": data_dir},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def imported(*words: str, data_dir: str) -> list[str]:
    """Tell which heavy packages a command imports."""
    code = (
        "import sys; from backtester.data.cli import app\n"
        f"try: app({list(words)!r})\n"
        "except SystemExit: pass\n"
        f"sys.stderr.write(','.join(m for m in {HEAVY!r} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "BACKTESTER_DATA_DIR": data_dir},
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in done.stderr.split(",") if name]


def fifty_datasets(folder: Path) -> None:
    """Fill a folder with 50 sound dataset files."""
    from backtester.data.candles import Answer
    from backtester.data.home import home_in
    from backtester.data.model import DatasetKey, Interval
    from backtester.data.sandbox import SyntheticMarket

    market, store = SyntheticMarket(), home_in(folder).store
    for number in range(50):
        key = DatasetKey.of(f"exchange{number}", "spot", "1h")
        month = Interval(1_735_689_600_000, 1_738_281_600_000)
        table = market.candles("BTC/USDT", key.timeframe, month)
        store.commit(key, [Answer(s, month, table, asked_ms=1) for s in SYMBOLS])
        store.fold(key)


def rows() -> list[Row]:
    """Measure the processes against that of a bare interpreter."""
    with tempfile.TemporaryDirectory() as name:
        fifty_datasets(Path(name))
        bare = median_ms(lambda: subprocess.run([sys.executable, "-c", ""], check=True), 9)
        summary = median_ms(lambda: run("summary", data_dir=name), 9)
        usage = median_ms(lambda: run("--help", data_dir=name), 9)
        loaded = imported("summary", data_dir=name)
        shutil.rmtree(name)
        prepare(Path(name))
        words = ("fetch", "-e", "sandbox", "-t", "1h", "-s", "BTC/USDT,ETH/USDT")
        dates = ("--start", "2025-06-01", "--end", "2025-07-01", "--json")
        fetch = median_ms(lambda: run(*words, *dates, data_dir=name), 5)
        loaded_by_fetch = imported(*words, *dates, data_dir=name)
    against = f"a bare interpreter takes {bare:.0f} ms"
    return [
        Row("vbt-data summary, 50 files", f"{summary:.0f} ms", against, "< 400 ms", summary < 400),
        Row("  imports of " + ", ".join(HEAVY), str(loaded or "none"), "", "none", not loaded),
        Row("vbt-data --help", f"{usage:.0f} ms", against, "< 300 ms", usage < 300),
        Row("vbt-data fetch --json, cached", f"{fetch:.0f} ms", against, "", None),
        Row(
            "  imports of " + ", ".join(HEAVY),
            str(loaded_by_fetch or "none"),
            "",
            "none",
            not loaded_by_fetch,
        ),
    ]
