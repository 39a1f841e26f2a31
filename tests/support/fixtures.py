"""Fixtures for all tests that meet an exchange: `world`, and what keeps it apart and fast."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backtester.data.fetching import retries
from backtester.data.sandbox import SandboxServer
from tests.support.world import MARKET, Clock, World


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep data, budget and settings of a test to itself; gives the data directory."""
    folder = tmp_path / "data"
    monkeypatch.setenv("BACKTESTER_DATA_DIR", str(folder))
    monkeypatch.setenv("BACKTESTER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("BACKTESTER_SANDBOX_URL", raising=False)
    return folder


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once: the number of tries stays, only the waits between them go."""
    monkeypatch.setattr(retries, "_wait", lambda _attempt, _error: 0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Stop the time of this machine too, where the exchange's clock stands."""
    clock = Clock()
    monkeypatch.setattr(time, "time_ns", lambda: clock() * 1_000_000)
    # The steady clock goes along: time passes, and nobody sets the clock.
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _which: clock() * 1_000_000)
    return clock


@pytest.fixture
def world(apart: Path, impatient: None, clock: Clock) -> Iterator[World]:
    """Give an exchange at 2025-06-15 12:34:56 UTC and an empty data directory."""
    with SandboxServer(MARKET, clock=clock) as server:
        # There is no TLS here, and to load the certificates takes longer than a fetch.
        config: dict[str, Any] = {"sandboxUrl": server.url, "verify": False}
        world = World(server, clock, apart, config=config)
        yield world
        world.new_process()
