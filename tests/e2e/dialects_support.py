"""What the tests of all dialects share: an exchange that speaks one, and its truth.

`serve` is a fixture: import it into the test module, with the fixtures of
`tests.support` that it builds on. ``serve("kraken", ms)`` gives a `World` whose
`server` speaks the dialect and whose `config` is the `exchange_config` that
makes ccxt's unmodified class talk to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtester.data.candles import Candles
from backtester.data.model import Interval, Timeframe
from backtester.data.sandbox import Fault, SandboxServer
from backtester.data.sandbox.weights import Verdict, WeightBook
from tests.support.world import DAY, MARKET, NOON, Clock, World, same

__all__ = [
    "BROKEN",
    "KRAKEN_ROWS",
    "Patient",
    "Serve",
    "ask_twice",
    "in_contracts",
    "kraken_truth",
    "reach",
    "serve",
    "spans_of",
]

Serve = Callable[..., World]
"""Called with a dialect's name, and optionally a clock or where it shall stand (ms), ccxt's
id where that is another than the dialect's, and more settings of `exchange_config`."""

BROKEN = [
    Fault.CUT_JSON,
    Fault.DESCENDING_ROWS,
    Fault.DUPLICATE_ROWS,
    Fault.EMPTY_LIST,
    Fault.HTML,
    Fault.NULL_FIELD,
    Fault.OFF_GRID_ROW,
    Fault.OUT_OF_WINDOW_ROWS,
    Fault.SHORT_PAGE,
]
"""What can be wrong with one page, in any dialect; the truth comes all the same."""

KRAKEN_ROWS = 721
"""What Kraken shows: 720 complete candles and the forming one."""


class Patient(WeightBook):
    """Refuses nobody, for tests that lift the client's limiter."""

    def charge(self, family: str, weight: int, limit: int) -> Verdict:
        return Verdict(weight)


@pytest.fixture
def serve(apart: Path, impatient: None, clock: Clock) -> Iterator[Serve]:
    """Start exchanges that speak a dialect, with an empty data directory."""
    with ExitStack() as stack:

        def start(
            dialect: str,
            at: int | Clock = NOON,
            *,
            exchange: str | None = None,
            limited: bool = False,
            **settings: Any,
        ) -> World:
            clock.now_ms = at if isinstance(at, int) else at()
            weights = None if limited else Patient()
            server = SandboxServer(MARKET, clock=clock, dialect=dialect, weights=weights)
            stack.enter_context(server)
            config = {"urls": {"api": server.ccxt_urls}, "enableRateLimit": limited, **settings}
            world = World(server, clock, apart, exchange=exchange or dialect, config=config)
            stack.callback(world.new_process)
            return world

        yield start


def ask_twice(
    world: World, symbol: str, timeframe: str, expected: Candles, *, path: str, **how: Any
) -> tuple[int, int]:
    """Ask cold and warm, and compare both with the truth; the warm one must ask for nothing.

    Returns
    -------
    (int, int)
        How many requests the cold one sent for candles, which have `path` in theirs, and how many
        others.
    """
    cold = world.ask(symbol, timeframe, **how)
    assert same(cold[symbol], expected)
    warm = world.ask(symbol, timeframe, **how)
    assert same(warm[symbol], expected)
    assert warm.requests == []
    asked = sum(path in request.path for request in cold.requests)
    return asked, len(cold.requests) - asked


def in_contracts(candles: Candles, size: float) -> Candles:
    """Give candles whose volumes have gone through whole contracts of `size` base units."""
    values = candles.values.copy()
    values[:, 4] = np.rint(values[:, 4] / size) * size
    return Candles(candles.open_time.copy(), values)


def kraken_truth(symbol: str, timeframe: str, start: int, end: int, now_ms: int = NOON) -> Candles:
    """Give the closed candles that Kraken still shows: silence is filled in, flat and empty."""
    unit = Timeframe.parse(timeframe)
    first = max(start, reach(timeframe, KRAKEN_ROWS, now_ms))
    window = Interval(unit.ceil(first), min(end, unit.floor(now_ms - 2_000)))
    traded = MARKET.candles(symbol, unit, Interval(window.start - 3 * DAY, window.end))
    grid = unit.grid(window)
    grid = grid[grid >= traded.open_time[0]]
    last = np.searchsorted(traded.open_time, grid, side="right") - 1
    values = traded.values[last].copy()
    silent = traded.open_time[last] != grid
    values[silent, :4] = values[silent, 3:4]
    values[silent, 4] = 0.0
    return Candles(grid, values)


def spans_of(world: World, symbol: str, timeframe: str, market_type: str = "spot") -> list[Any]:
    """List (start, end, what the answer meant) of the stored coverage of a symbol."""
    coverage = world.stored(symbol, timeframe, market_type).coverage
    return [(span.start, span.end, span.served) for span in coverage]


def reach(timeframe: str, count: int, now_ms: int) -> int:
    """Give the open time of the oldest of the `count` newest candles, the forming one included."""
    unit = Timeframe.parse(timeframe)
    span = 2 * count * unit.typical_ms  # more than enough, also of months
    return int(unit.grid(Interval(max(now_ms - span, 0), now_ms + 1))[-count])
