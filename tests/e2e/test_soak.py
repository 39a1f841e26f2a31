"""A soak: thousands of requests, a fifth of them faulty, several processes, kills among them.

Whatever happens on the way, the tables in the end are the market's own, bit for bit, and so is
what is said to be absent. The short one is part of the suite; ``make soak`` runs the long one.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from backtester.data.model import Interval, Timeframe
from backtester.data.sandbox import Fault
from backtester.data.sandbox.journal import Request
from tests.e2e.dialects_support import Patient, Serve, serve
from tests.support import processes
from tests.support.world import DAY, World, ms, same, truth

__all__ = ["serve"]

MINUTES = Timeframe.parse("1m")
PAGE = 50
"""Candles per request, so that there are many."""

_WORKER = """
import os, signal, sys, threading
from dataclasses import replace
from backtester.data.errors import DataError
from backtester.data.fetching import capabilities, retries
from backtester.data.fetching.archives.plan import Source
import backtester.data.fetching.online, backtester.data.storage.pickle_file, ccxt.async_support

retries._wait = lambda _attempt, _error: 0.001
for place, row in capabilities._TABLE.items():
    capabilities._TABLE[place] = replace(row, page_size={page})

def whole(market_type, symbols, start, end):
    try:
        found = ask(symbols, "1m", int(start), int(end), market_type, source=Source.API)
    except DataError as error:
        print(type(error).__name__, flush=True)
        return False
    return found.complete

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            market_type, symbols, start, end, lives_s = line.split()
            if float(lives_s):
                threading.Timer(float(lives_s), os.kill, (os.getpid(), signal.SIGKILL)).start()
            code = 0 if whole(market_type, symbols.split(","), start, end) else 1
        finally:
            os._exit(code)
    os.write(1, f"end {{os.waitpid(pid, 0)[1]}}\\n".encode())
"""


@dataclass(frozen=True)
class Part:
    """What one worker asks for until it has it."""

    market_type: str
    symbols: tuple[str, ...]
    start: str
    days: int

    @property
    def interval(self) -> Interval:
        return Interval(ms(self.start), ms(self.start) + self.days * DAY)


@dataclass
class Lives:
    """How a worker's processes ended."""

    whole: int = 0
    failed: int = 0
    killed: int = 0


def parts(days: int) -> list[Part]:
    """Divide the work; two workers share a symbol, three a dataset."""
    return [
        Part("spot", ("BTC/USDT", "ETH/USDT"), "2019-05-14", days),  # an outage of ten hours
        Part("spot", ("ONDO/USDT", "BTC/USDT"), "2025-01-31", days),  # a listing
        Part("spot", ("REP/USDT", "XMR/USDT"), "2022-10-18", days),  # thin, and a delisting
        Part("swap", ("BTC/USDT:USDT", "SOL/USDT:USDT"), "2024-06-09", days),  # 14 minutes of it
    ]


WHOLE_FAULTS = (
    Fault.HTTP_500, Fault.HTTP_502, Fault.HTTP_503, Fault.HTTP_504, Fault.DISCONNECTED,
    Fault.MAINTENANCE, Fault.RESET, Fault.SLOW_BODY, Fault.CUT_BODY, Fault.CUT_JSON, Fault.HTML,
    Fault.EMPTY_BODY, Fault.EMPTY_LIST, Fault.DUPLICATE_ROWS, Fault.SHUFFLED_ROWS,
    Fault.DESCENDING_ROWS, Fault.NULL_FIELD, Fault.OFF_GRID_ROW, Fault.OUT_OF_WINDOW_ROWS,
    Fault.NOT_FINITE_ROW, Fault.BROKEN_OHLC_ROW, Fault.SHORT_PAGE,
)  # fmt: skip
RARE_FAULTS = (Fault.HTTP_429, Fault.HTTP_418, Fault.HTTP_403, Fault.HTTP_404, Fault.HTTP_451)
"""Every one of these stops a whole process, or all of them."""


def go_wrong(world: World, seed: int, *, share: float, rare_every: int) -> None:
    """Let a share of all answers be faulty, each fault as often as any other."""
    faults = [*WHOLE_FAULTS]
    if world.exchange != "sandbox":  # whose dialect alone says what was asked for
        faults.remove(Fault.OUT_OF_WINDOW_ROWS)
    each = 1 - (1 - share) ** (1 / len(faults))
    pages = {"sandbox": "klines"}.get(world.exchange, "candles")
    for number, fault in enumerate(RARE_FAULTS if world.exchange == "sandbox" else ()):
        # Others do not say how long to wait, which is half a minute then.
        world.faults.add(fault, every=rare_every + number, match=pages, retry_after_s=1)
    world.faults.add(Fault.HANGING_BODY, every=rare_every, match=pages)
    for number, fault in enumerate(faults):
        seeded = seed * 100 + number
        world.faults.add(fault, probability=each, seed=seeded, delay_s=0.02)


def work(world: World, part: Part, dice: random.Random, kills: int) -> Lives:
    """Let processes ask for a part, killing some in the middle, until one has it whole."""
    code = processes.program(world, _WORKER.format(page=PAGE))
    nursery = subprocess.Popen(
        [*processes.PYTHON, "-c", code],
        env=processes.environment(world),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    lives = Lives()
    asked = part.market_type, ",".join(part.symbols), part.interval.start, part.interval.end
    try:
        while not lives.whole:
            lives_s = dice.uniform(0.05, 1.5) if lives.killed < kills else 0
            print(*asked, lives_s, file=nursery.stdin, flush=True)
            while (words := nursery.stdout.readline().split())[0] != "end":
                pass
            status = int(words[1])
            lives.killed += status == signal.SIGKILL
            lives.whole += status == 0
            if status not in {0, signal.SIGKILL}:
                lives.failed += 1
                time.sleep(0.1)  # banned, perhaps: no use to ask at once
            assert lives.failed < 200, "it never comes to an end"
    finally:
        nursery.communicate("", timeout=30)
    return lives


def soak(world: World, parts: list[Part], seed: int, *, kills: int, rare_every: int) -> list[Lives]:
    """Run all parts at once under faults, and compare everything stored with the truth."""
    world.config = {**world.config, "enableRateLimit": False, "timeout": 2000}
    world.server._weights = Patient()
    go_wrong(world, seed, share=0.2, rare_every=rare_every)
    with ThreadPoolExecutor() as pool:
        lives = list(
            pool.map(
                lambda numbered: work(world, numbered[1], random.Random(numbered[0]), kills),
                enumerate(parts, seed),
            )
        )
    world.wait_until_quiet()
    world.faults.clear()
    world.new_process()
    before = len(world.server.requests)
    for part in parts:
        start, end = part.interval.start, part.interval.end
        again = world.ask(part.symbols, "1m", start, end, market_type=part.market_type)
        for symbol in part.symbols:
            expected = truth(symbol, "1m", start, end)
            assert same(again[symbol], expected)
            states = again.result.series[symbol].states(MINUTES, part.interval)
            present = [run for run, word in states if word == "present"]
            assert present == MINUTES.runs(expected.open_time)
            assert "never asked" not in {word for _, word in states}
            assert not world.stored(symbol, "1m", part.market_type).revisions
    assert len(world.server.requests) == before, "all was stored"
    return lives


def told(requests: list[Request], lives: list[Lives], seconds: float) -> str:
    """Say in a few lines what a soak was."""
    faulty = Counter(request.fault for request in requests if request.fault)
    return (
        f"{len(requests):,} requests in {seconds:.0f} s, {faulty.total():,} of them faulty "
        f"({faulty.total() / len(requests):.0%}, {len(faulty)} kinds); "
        f"{sum(one.killed for one in lives)} processes killed, "
        f"{sum(one.failed for one in lives)} ended with an error, "
        f"{sum(one.whole for one in lives)} came to their end"
    )


def test_a_short_soak(world: World) -> None:
    """Hundreds of requests of three processes, a kill each: the tables are the truth."""
    lives = soak(world, parts(1)[:3], seed=1, kills=1, rare_every=250)
    requests = world.sent()
    assert len(requests) > 250
    assert sum(request.fault is not None for request in requests) > 0.15 * len(requests)
    assert sum(one.killed for one in lives) >= 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_long_soak(world: World) -> None:
    """At least 20,000 requests, a fifth of them faulty, 40 kills: the tables are the truth."""
    begun = time.monotonic()
    lives = soak(world, parts(95), seed=7, kills=10, rare_every=2000)
    requests = world.sent()
    print(told(requests, lives, time.monotonic() - begun))  # noqa: T201 - what `make soak` is for
    assert len(requests) >= 20_000
    assert sum(request.fault is not None for request in requests) >= 0.195 * len(requests)
    assert sum(one.killed for one in lives) >= 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_soak_by_windows_alone(serve: Serve) -> None:
    """The same of an exchange that can be asked for windows only, and shows no first candle."""
    begun = time.monotonic()
    world = serve("coinbase")
    by_windows = [
        Part("spot", ("BTC/USDT", "ETH/USDT"), "2019-05-13", 12),  # an outage of ten hours
        Part("spot", ("ONDO/USDT", "TUSD/USDT"), "2025-01-29", 12),  # a listing; thin
        Part("spot", ("STX/USDT", "ZIL/USDT"), "2022-10-18", 12),
    ]
    lives = soak(world, by_windows, seed=3, kills=3, rare_every=700)
    requests = world.sent()
    print(told(requests, lives, time.monotonic() - begun))  # noqa: T201 - what `make soak` is for
    assert len(requests) >= 3_000
    assert sum(request.fault is not None for request in requests) >= 0.15 * len(requests)
