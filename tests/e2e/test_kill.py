"""Killed at any moment: the store stays readable, and only what was not stored is repeated."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from backtester.data.model import Interval, Timeframe
from backtester.data.sandbox import Fault
from tests.support import processes
from tests.support.world import Page, World, is_part_of, pages_of, same, truth

BTC, ETH = "BTC/USDT", "ETH/USDT"
IDS = {"BTCUSDT": BTC, "ETHUSDT": ETH}
START, END = "2025-05-25", "2025-06-14"
PAGES = 2 * -(-20 * 24 * 60 // 1000)

_NURSERY = """
import os, signal, sys
from backtester.data.storage.pickle_file import PickleStore
import ccxt.async_support, backtester.data.fetching.online

commit = PickleStore.commit

def acknowledged(self, key, answers):
    commit(self, key, answers)
    for one in answers:
        os.write(1, f"ack {one.symbol} {one.interval.start} {one.interval.end}\\n".encode())

PickleStore.commit = acknowledged

def dying(step):
    '''Die before the step-th thing that touches the disk.'''
    import pathlib
    left = [step]
    def deadly(function):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call
    os.fsync = deadly(os.fsync)
    os.truncate = deadly(os.truncate)
    pathlib.Path.replace = deadly(pathlib.Path.replace)
    pathlib.Path.unlink = deadly(pathlib.Path.unlink)

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            step, start, end = line.split()
            if step != "0":
                dying(int(step))
            ask([BTC, ETH], "1m", start, end)
            code = 0
        finally:
            os._exit(code)
    os.write(1, f"pid {pid}\\n".encode())
    _, status = os.waitpid(pid, 0)
    os.write(1, f"end {status}\\n".encode())
""".replace("BTC", repr(BTC)).replace("ETH", repr(ETH))


@dataclass
class Life:
    """What one process did until its end."""

    status: int = 0
    """As of ``waitpid``: 0 when it came to its own end, 9 when it was killed."""
    acknowledged: list[tuple[str, Interval]] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)


def windows(pages: list[Page]) -> list[Page]:
    """Give the pages that ask for a window, and not for a first or last candle."""
    return [page for page in pages if page.start is not None and page.end is not None]


class Nursery:
    """A process that has imported everything, and forks one that fetches whenever asked."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._process = subprocess.Popen(
            [*processes.PYTHON, "-c", processes.program(world, _NURSERY)],
            env=processes.environment(world),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def live(
        self,
        start: str = START,
        end: str = END,
        *,
        step: int = 0,
        until: Callable[[int], bool] | None = None,
    ) -> Life:
        """Let one process fetch: to its end, to a step of its own, or to a moment of ours.

        Parameters
        ----------
        start, end : str
        step : int
            It kills itself before it touches the disk for this time.
        until : callable, optional
            It is killed when ``until(requests)`` is true, the requests being those it has sent.
        """
        before = len(self.world.server.requests)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{step} {start} {end}\n")
        pid = int(self._line().split()[1])
        if until is not None:
            give_up = time.monotonic() + 20
            while not until(len(self.world.server.requests) - before):
                assert time.monotonic() < give_up
                time.sleep(0.001)
            os.kill(pid, signal.SIGKILL)
        life = Life()
        while (words := self._line().split())[0] == "ack":
            if words[2] != "0":  # else it says from when on there is anything
                life.acknowledged.append((words[1], Interval(int(words[2]), int(words[3]))))
        life.status = int(words[1])
        self.world.wait_until_quiet()
        life.pages = windows(pages_of(self.world.sent(before)))
        return life

    def close(self) -> None:
        self._process.communicate("", timeout=20)

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the nursery has ended"
        return line


@pytest.fixture
def nursery(world: World) -> Iterator[Nursery]:
    nursery = Nursery(world)
    yield nursery
    nursery.close()


def assert_sound(world: World) -> None:
    """Check that the store is readable in full, and holds nothing but the truth."""
    world.new_process()
    minute = Timeframe.parse("1m")
    for symbol in (BTC, ETH):
        series = world.stored(symbol, "1m")
        assert is_part_of(series.candles, truth(symbol, "1m", START, END))
        for span in series.coverage:
            times = series.candles.within(span.interval).open_time
            assert len(times) == minute.steps(span.interval), "covered, and not there"


def assert_never_twice(life: Life, acknowledged: list[tuple[str, Interval]]) -> None:
    """Check that nothing acknowledged earlier was asked for again."""
    for page in life.pages:
        for symbol, interval in acknowledged:
            if IDS[page.id] == symbol:
                assert page.start is not None
                assert page.end is not None
                asked = Interval(page.start, page.end)
                assert asked.intersection(interval) is None


# ------------------------------------------------------------------ SIGKILL


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_moments_and_started_again(
    world: World, nursery: Nursery, seed: int
) -> None:
    """Kill after kill, progress is kept: the whole costs what is needed and what was in flight."""
    dice = random.Random(seed)
    world.server.latency_s = 0.01
    acknowledged: list[tuple[str, Interval]] = []
    sent = lost = killed = 0
    for _ in range(12):
        moment, pause = dice.randint(1, 24), dice.random() * 0.03

        def reached(requests: int, moment: int = moment, pause: float = pause) -> bool:
            if requests < moment:
                return False
            time.sleep(pause)
            return True

        life = nursery.live(until=reached)
        assert_never_twice(life, acknowledged)
        acknowledged += life.acknowledged
        killed += life.status == signal.SIGKILL
        sent += len(life.pages)
        lost += len(life.pages) - len(life.acknowledged)
        assert_sound(world)
        kept = sum(len(world.stored(symbol, "1m").candles) for symbol in (BTC, ETH))
        if PAGES - kept // 1000 <= 24:  # not enough left for every moment
            break
    assert killed >= 2
    last = world.ask([BTC, ETH], "1m", START, END)
    for symbol in (BTC, ETH):
        assert same(last[symbol], truth(symbol, "1m", START, END))
    assert_never_twice(Life(pages=windows(last.pages)), acknowledged)
    total = sent + len(windows(last.pages))
    assert total <= PAGES + lost, "more was asked again than was lost"
    assert world.ask([BTC, ETH], "1m", START, END).requests == []


def test_killed_before_any_step_that_touches_the_disk(world: World, nursery: Nursery) -> None:
    """Wherever between two steps of writing it dies, nothing is lost, broken, or asked twice."""
    question = ("2025-05-31", "2025-06-02")
    world.ask(BTC, "1m", "2025-05-31", "2025-05-31T18:00")
    world.ask("SOL/USDT", "1m", "2025-06-01", "2025-06-02")
    before = world.folder.parent / "before"
    world.new_process()
    shutil.copytree(world.folder, before)
    steps = 0
    while True:
        shutil.rmtree(world.folder)
        shutil.copytree(before, world.folder)
        steps += 1
        life = nursery.live(*question, step=steps)
        assert_sound(world)
        stored = world.stored("SOL/USDT", "1m").candles
        assert same(stored, truth("SOL/USDT", "1m", "2025-06-01", "2025-06-02"))
        again = world.ask([BTC, ETH], "1m", *question)
        for symbol in (BTC, ETH):
            assert same(again[symbol], truth(symbol, "1m", *question))
        assert_never_twice(Life(pages=windows(again.pages)), life.acknowledged)
        world.ask("SOL/USDT", "1m", "2025-06-02", "2025-06-02T01:00")
        assert sorted(world.files()) == ["sandbox_spot_1m.pickle.blosc"]
        assert not list(world.folder.glob(".*.tmp")), "the next writer cleans up"
        if life.status == 0:
            break
        assert life.status == signal.SIGKILL
    assert steps > 5
    assert life.acknowledged


# ------------------------------------------------------------------ Ctrl-C


@contextmanager
def interrupted(world: World, code: str, moment: int) -> Iterator[subprocess.Popen[str]]:
    """Start a program and send it SIGINT once it has sent some requests; it must end soon."""
    process = processes.start(world, code)
    try:
        while len(world.server.requests) < moment and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        process.wait(timeout=20)
        assert time.monotonic() - begun < 10, "it did not end promptly"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_an_interrupt_ends_promptly_and_keeps_what_came(world: World) -> None:
    """After Ctrl-C what was fetched is stored, sound, and not asked for again."""
    world.server.latency_s = 0.1
    code = f"ask([{BTC!r}, {ETH!r}], '1m', {START!r}, {END!r})"
    with interrupted(world, code, 35) as process:
        assert process.returncode == -signal.SIGINT
    world.wait_until_quiet()
    world.server.latency_s = 0.0
    assert_sound(world)
    kept = sum(len(world.stored(symbol, "1m").candles) for symbol in (BTC, ETH))
    assert kept >= 1000
    last = world.ask([BTC, ETH], "1m", START, END)
    for symbol in (BTC, ETH):
        assert same(last[symbol], truth(symbol, "1m", START, END))
    steps = sum(page.limit for page in windows(last.pages))
    assert steps == 2 * 20 * 24 * 60 - kept


@pytest.mark.parametrize("why", ["hanging answer", "pause", "retry"])
def test_an_interrupt_ends_any_wait(world: World, why: str) -> None:
    """Ctrl-C is heard while an answer hangs, while the budget waits, and between two tries."""
    fault = {
        "hanging answer": Fault.HANGING_BODY,
        "pause": Fault.HTTP_429,
        "retry": Fault.HTTP_503,
    }[why]
    world.faults.add(fault, match="klines", retry_after_s=60)
    code = f"ask([{BTC!r}], '1h', '2025-06-01')"
    with interrupted(world, code, 3) as process:
        assert process.returncode == -signal.SIGINT
    assert world.files() == {}


def test_an_interrupted_command_says_so_and_exits_130(world: World) -> None:
    """The command tells what has come and is stored, and exits as shells expect."""
    world.server.latency_s = 0.1
    code = (
        "import sys\nfrom backtester.data.cli import main\n"
        f"sys.argv[1:] = ['fetch', '-s', '{BTC},{ETH}', '-e', 'sandbox', '-t', '1m',"
        f" '--start', '{START}', '--end', '{END}', '--json']\nmain()"
    )
    process = processes.start(world, code)
    while len(world.server.requests) < 35 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert_sound(world)
    told = json.loads(out)
    assert told["interrupted"] is True
    kept = {symbol: len(world.stored(symbol, "1m").candles) for symbol in told["symbols"]}
    assert {symbol: one["candles"] for symbol, one in told["symbols"].items()} == kept
    assert sum(kept.values()) > 0
    assert f"{sum(kept.values()):,} candles" in err
