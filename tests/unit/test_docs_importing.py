"""docs/importing.md runs as it stands: its Python and its commands, in order, offline."""

from __future__ import annotations

import re
import shlex
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from backtester.data.cli import app
from backtester.data.errors import FetchWarning
from backtester.data.storage.data_storage import DataStorage
from tests.support.processes import ROOT, SHARED

PAGE = ROOT / "docs" / "importing.md"
PRO_NAME = "binance_spot_1h__db56ae16.pickle.blosc"


def blocks() -> list[tuple[str, str]]:
    return re.findall(r"```(python|bash)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def put_pro_file(folder: Path, data: Any) -> None:
    """Put a real file of VectorBT PRO there, or one of ours where none is at hand."""
    real = SHARED / "candles" / "pro_pickles" / PRO_NAME
    if real.exists():
        shutil.copy(real, folder / PRO_NAME)
    else:
        data.replace(fetch_kwargs={}).save(folder / PRO_NAME)  # which says of nobody whose it is


def test_the_page_runs_in_order(
    apart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command does what the page says, and what it imports is there afterwards."""
    pytest.importorskip("tables")
    pytest.importorskip("pyarrow")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    names: dict[str, Any] = {}
    commands = 0
    for language, block in blocks():
        if language == "python":
            with warnings.catch_warnings():
                warnings.simplefilter("error", FetchWarning)
                exec(compile(block, PAGE.name, "exec"), names)
            if not Path(PRO_NAME).exists():
                put_pro_file(Path(), names["data"])
            continue
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if not words or "needs that file" in line:
                continue
            assert words[0] == "vbt-data"
            done = CliRunner().invoke(app, words[1:], prog_name="vbt-data")
            assert done.exit_code == (1 if "exits 1" in line else 0), (line, done.output)
            commands += 1
    assert commands >= 11
    stored = {
        name: one["symbols"] for name, one in DataStorage().get_storage_summary()["files"].items()
    }
    both = ["BTC/USDT", "ETH/USDT"]
    expected = {
        "kraken_spot_1h": ["BTC/USDT"],
        "kraken_swap_1h": ["BTC/USDT:USDT"],
        "sandbox_spot_1h": both,
        "mexc_spot_1h": ["BTC/USDT"],
        **{f"{exchange}_spot_1h": both for exchange in ("binance", "bybit", "gate", "okx")},
    }
    assert stored.keys() == {f"{stem}.pickle.blosc" for stem in expected}
    assert all(stored[f"{stem}.pickle.blosc"] == symbols for stem, symbols in expected.items())
