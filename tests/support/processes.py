"""Other processes for tests: Python programs and the command, in a world of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.world import World

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
SHARED = ROOT.parent / "shared"
"""Material that is no part of the project; tests that need it skip without it."""

PYTHON = (sys.executable,)
_STOPPED = (
    "import time; time.time_ns = lambda: {now_ms}_000_000\n"
    "time.clock_gettime_ns = lambda _which: {now_ms}_000_000\n"
)
_ASK = """
import warnings
from backtester.data.fetching.pipeline import run
from backtester.data.fetching.request import FetchRequest
from backtester.data.home import home_in
from backtester.data.model import DatasetKey

def ask(symbols, timeframe="1h", start=None, end=None, market_type="spot", on_event=None, **more):
    more.setdefault("exchange_config", {config!r})
    key = DatasetKey.of({exchange!r}, market_type, timeframe)
    request = FetchRequest(key, tuple(symbols), start, end, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run(request, home_in(), on_event)
"""


def environment(world: World, **more: str) -> dict[str, str]:
    """Give the environment of a program that lives in this world."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BACKTESTER_", "PYTHON"))}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "BACKTESTER_DATA_DIR": str(world.folder),
        "BACKTESTER_STATE_DIR": os.environ["BACKTESTER_STATE_DIR"],
        "BACKTESTER_SANDBOX_URL": world.server.url,
        **more,
    }


def program(world: World, code: str, *, stopped: bool = True) -> str:
    """Complete a program: `ask` puts a question, and time stands where the world's does.

    Parameters
    ----------
    stopped : bool
        False lets this machine's time run.
    """
    ready = _ASK.format(config=dict(world.config), exchange=world.exchange)
    return (_STOPPED.format(now_ms=world.clock()) if stopped else "") + ready + code


def start(world: World, code: str, *, stopped: bool = True) -> subprocess.Popen[str]:
    """Start a program; the caller ends it."""
    return subprocess.Popen(
        [*PYTHON, "-W", "error", "-c", program(world, code, stopped=stopped)],
        env=environment(world),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that a signal meant for it reaches nobody else
    )


def python(world: World, code: str, *, stopped: bool = True) -> Any:
    """Run a program to its end and give what it printed last, read as JSON."""
    process = start(world, code, stopped=stopped)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1]) if out.strip() else None


def command(
    world: World,
    *arguments: str,
    script: Sequence[str] = ("-m", "backtester.data.cli", "fetch"),
    cwd: Path | None = None,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a user would."""
    return subprocess.run(
        [*PYTHON, *script, *arguments],
        env=environment(world, **variables),
        cwd=cwd or world.folder.parent,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
