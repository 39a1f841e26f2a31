"""The request budget: its rules by a clock we set, its sharing by real processes."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from backtester.data.errors import BannedError
from backtester.data.fetching import budget as module
from backtester.data.fetching import ledger as ledger_module
from backtester.data.fetching.budget import Budget, Limit
from backtester.data.fetching.ledger import Ledger, default_ledger_path

ROOT = Path(__file__).parents[2]
MINUTE = Limit(10, 60.0)


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0
        self.slept_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept_s += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "state" / "budget.sqlite")
    yield ledger
    ledger.close()


@pytest.fixture
def budget(ledger: Ledger, clock: Time) -> Budget:
    return make_budget(ledger, clock)


def make_budget(ledger: Ledger, clock: Time, *limits: Limit, key: str = "host", **rest) -> Budget:
    rest = {"sleep": clock.sleep, **rest}
    return Budget(ledger, key, limits or (MINUTE,), clock=clock, **rest)


def unpaced(ledger: Ledger, clock: Time) -> Budget:
    """Give a budget without a limit."""
    return Budget(ledger, "host", (), clock=clock, sleep=clock.sleep)


def acquire(budget: Budget, weight: int = 1) -> module.Ticket:
    return asyncio.run(budget.acquire(weight))


def spend(budget: Budget, weight: int, times: int = 1) -> None:
    for _ in range(times):
        acquire(budget, weight).done()


def waited_s(clock: Time, budget: Budget, weight: int = 1) -> float:
    """Acquire, and tell how long that took."""
    before = clock.slept_s
    acquire(budget, weight)
    return clock.slept_s - before


def about(seconds: float) -> object:
    """Allow for the slot a completion is rounded up to, and for the jitter."""
    return pytest.approx(seconds + 0.2, abs=0.4)


# --------------------------------------------------------------------------- the window


def test_up_to_the_limit_nothing_waits(budget: Budget, clock: Time) -> None:
    """Requests up to the limit go at once, all of them."""
    spend(budget, 2, times=5)

    assert clock.slept_s == 0


def test_a_request_counts_until_a_window_after_its_completion(budget: Budget, clock: Time) -> None:
    """The wait runs from the completion, not from the reservation."""
    ticket = acquire(budget, 10)
    clock.now_s += 7
    ticket.done()
    clock.now_s += 20

    assert waited_s(clock, budget) == about(40)


def test_only_as_much_must_expire_as_is_needed(budget: Budget, clock: Time) -> None:
    """The wait ends when enough weight has expired, not when all has."""
    for _ in range(5):
        spend(budget, 2)
        clock.now_s += 10

    assert waited_s(clock, budget, weight=4) == about(20)


def test_all_limits_hold(ledger: Ledger, clock: Time) -> None:
    """The strictest of several limits decides."""
    budget = make_budget(ledger, clock, Limit(10, 60), Limit(15, 300))
    spend(budget, 10)
    assert waited_s(clock, budget, weight=5) == about(60)

    assert waited_s(clock, budget, weight=5) == about(240)


def test_a_weight_above_the_limit_waits_for_an_empty_window(budget: Budget, clock: Time) -> None:
    """A request heavier than the limit is granted alone."""
    spend(budget, 1)

    assert waited_s(clock, budget, weight=25) == about(60)
    assert waited_s(clock, budget, weight=1) == about(120)


def test_a_request_without_weight_is_free(budget: Budget, clock: Time) -> None:
    """Weight 0 passes a spent budget."""
    spend(budget, 10)

    assert waited_s(clock, budget, weight=0) == 0


def test_keys_do_not_share(ledger: Ledger, clock: Time) -> None:
    """Each host has an account of its own."""
    spend(make_budget(ledger, clock, key="one"), 10)

    assert waited_s(clock, make_budget(ledger, clock, key="other"), weight=10) == 0


def test_budgets_of_one_key_share(ledger: Ledger, clock: Time) -> None:
    """What one budget spends the other cannot."""
    spend(make_budget(ledger, clock), 10)

    assert waited_s(clock, make_budget(ledger, clock)) == about(60)


def test_budgets_of_one_key_may_have_other_limits(ledger: Ledger, clock: Time) -> None:
    """What one with a short window spends and forgets, one with a long window still sees."""
    hasty = make_budget(ledger, clock, Limit(1000, 1.0))
    spend(hasty, 10)
    clock.now_s += 30
    spend(hasty, 0)

    assert waited_s(clock, make_budget(ledger, clock)) == about(30)


def test_done_twice_counts_once(budget: Budget, clock: Time) -> None:
    """A ticket is finished once, whoever finishes it again."""
    ticket = acquire(budget, 5)
    ticket.done()
    ticket.done()

    assert waited_s(clock, budget, weight=5) == 0


def test_a_killed_holder_is_charged_for_its_longest_request(budget: Budget, clock: Time) -> None:
    """A request nobody finishes expires a window after it must have ended."""
    acquire(budget, 10)

    assert waited_s(clock, budget) == about(120)


def test_a_late_completion_is_charged_all_the_same(budget: Budget, clock: Time) -> None:
    """A holder taken for dead that comes back is charged from its completion."""
    ticket = acquire(budget, 10)
    clock.now_s += 1000
    spend(budget, 0)
    ticket.done()

    assert waited_s(clock, budget) == about(60)


def test_the_account_stays_small(budget: Budget, ledger: Ledger, clock: Time) -> None:
    """Rows do not grow with requests: slots are shared and old ones forgotten."""
    for some in (make_budget(ledger, clock, Limit(10**6, 60.0)), unpaced(ledger, clock)):
        for _ in range(1200):
            spend(some, 1, times=2)
            clock.now_s += 0.5

        (rows,) = ledger.run(lambda db: db.execute("SELECT count(*) FROM charge").fetchone())
        assert rows == pytest.approx(600, abs=5)


# --------------------------------------------------------------------------- without a limit


def test_without_a_limit_nothing_waits_and_the_others_know(ledger: Ledger, clock: Time) -> None:
    """What is sent unpaced waits for nobody, and counts for whoever keeps to a limit."""
    free = unpaced(ledger, clock)
    for _ in range(30):
        spend(free, 1)
        clock.now_s += 0.01
    assert clock.slept_s == 0
    assert waited_s(clock, make_budget(ledger, clock, Limit(20, 60))) == about(60)


def test_what_was_sent_last_is_told_in_the_end(ledger: Ledger, clock: Time) -> None:
    """Bulk or not, nothing sent stays unknown."""
    free = unpaced(ledger, clock)
    spend(free, 2)
    spend(free, 8)
    assert waited_s(clock, make_budget(ledger, clock), weight=8) == 0
    clock.now_s += 1000
    spend(free, 2)
    spend(free, 8)
    free.settle()
    free.settle()
    assert waited_s(clock, make_budget(ledger, clock)) == about(60)
    assert waited_s(clock, make_budget(ledger, clock), weight=9) == 0


def test_a_pause_holds_the_unpaced_too(ledger: Ledger, clock: Time) -> None:
    """A refusal holds all, and afterwards their requests go one at a time."""
    free = unpaced(ledger, clock)
    make_budget(ledger, clock).pause(30, "asked to")
    assert waited_s(clock, free) == pytest.approx(30, abs=0.1)
    assert at_once(ledger, clock) == 0, "the unpaced one is under way"


def test_a_ban_stops_the_unpaced_too(ledger: Ledger, clock: Time) -> None:
    """Without a limit, but not without the exchange's leave."""
    make_budget(ledger, clock).ban(int(clock() * 1000) + 60_000, "shut out")
    with pytest.raises(BannedError, match="shut out"):
        acquire(unpaced(ledger, clock))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda _: Limit(0, 60), id="no weight"),
        pytest.param(lambda _: Limit(5, 0), id="no window"),
        pytest.param(
            lambda ledger: acquire(Budget(ledger, "host", [MINUTE]), -1), id="negative weight"
        ),
        pytest.param(
            lambda ledger: Budget(ledger, "host", [MINUTE]).pause(float("inf"), ""), id="endless"
        ),
    ],
)
def test_nonsense_is_refused(make: Callable[[Ledger], object], ledger: Ledger) -> None:
    """What cannot be kept is refused where it is said."""
    with pytest.raises(ValueError, match=r"limit|weigh|end"):
        make(ledger)


# --------------------------------------------------------------------------- the queue


def test_first_come_first_served(budget: Budget) -> None:
    """Waiting coroutines are granted in the order they came, light or heavy."""
    granted: list[int] = []

    async def ask(number: int, weight: int) -> None:
        ticket = await budget.acquire(weight)
        granted.append(number)
        ticket.done()

    async def main() -> None:
        await asyncio.gather(*(ask(number, 1 + number * 7 % 10) for number in range(20)))

    asyncio.run(main())

    assert granted == list(range(20))


def test_the_light_do_not_starve_the_heavy(ledger: Ledger, clock: Time) -> None:
    """A heavy request of one process gets its turn among the light ones of another."""
    light, heavy = make_budget(ledger, clock), make_budget(ledger, clock)
    spend(light, 1, times=10)

    async def main() -> int:
        waiting = asyncio.create_task(heavy.acquire(9))
        await asyncio.sleep(0)
        overtaken = 0
        while not waiting.done():
            (await light.acquire(1)).done()
            overtaken += 1
        return overtaken

    assert asyncio.run(main()) <= 2


async def never(_seconds: float) -> None:
    await asyncio.get_running_loop().create_future()


def test_a_dead_waiter_holds_nobody_up_for_long(ledger: Ledger, clock: Time) -> None:
    """The queue closes up without a process that died in it."""
    spend(make_budget(ledger, clock), 10)

    async def main() -> None:
        dead = asyncio.create_task(make_budget(ledger, clock, sleep=never).acquire(10))
        await asyncio.sleep(0)
        await make_budget(ledger, clock).acquire(10)
        dead.cancel()

    asyncio.run(main())

    assert clock.slept_s == about(60)


def test_a_cancelled_waiter_leaves_the_queue(ledger: Ledger, clock: Time) -> None:
    """Cancelling a wait gives its place up at once."""
    waiter = make_budget(ledger, clock, sleep=never)
    spend(waiter, 10)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiter.acquire(1), 0.01)

    asyncio.run(main())

    assert ledger.run(lambda db: db.execute("SELECT * FROM waiter").fetchall()) == []


def test_a_wait_is_told_once(ledger: Ledger, clock: Time) -> None:
    """The hook hears how long and why, once however often the wait looks up."""
    told: list[tuple[float, str]] = []
    budget = make_budget(ledger, clock, on_wait=lambda *wait: told.append(wait))
    spend(budget, 10)

    acquire(budget)

    assert told == [(about(60), "the budget of 10 per 60 s is spent")]


def test_what_is_told_is_the_least_wait(ledger: Ledger, clock: Time) -> None:
    """The strictest limit decides, and a request under way may be over at once."""
    told: list[tuple[float, str]] = []
    limits = Limit(10, 60), Limit(10, 300)
    budget = make_budget(ledger, clock, *limits, on_wait=lambda *wait: told.append(wait))
    acquire(budget, 10)

    acquire(budget)

    assert told == [(about(300), "the budget of 10 per 300 s is spent")]


def test_loops_may_follow_each_other_and_run_side_by_side(ledger: Ledger) -> None:
    """One budget serves loops in turn, and loops of several threads at once."""
    budget = Budget(ledger, "host", [Limit(20, 0.2)])
    granted: list[int] = []

    async def ask(weight: int) -> None:
        ticket = await budget.acquire(weight)
        granted.append(weight)
        ticket.done()

    async def main() -> None:
        await asyncio.gather(*(ask(1) for _ in range(15)))

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(main())

    assert len(granted) == 60
    assert len(budget._turns) == 1


# --------------------------------------------------------------------------- the exchange's word


def test_the_use_of_others_is_charged(budget: Budget, clock: Time) -> None:
    """What the exchange counts beyond the ledger is charged for a window."""
    spend(budget, 3)
    acquire(budget, 0).done(used_header=8)

    assert waited_s(clock, budget, weight=2) == 0
    assert waited_s(clock, budget, weight=1) == about(60)


def test_an_exchange_that_counts_less_changes_nothing(budget: Budget, clock: Time) -> None:
    """A lower count, say after the exchange's minute turned, frees nothing."""
    acquire(budget, 10).done(used_header=1)

    assert waited_s(clock, budget) == about(60)


def test_a_header_is_charged_with_the_completion(budget: Budget, clock: Time) -> None:
    """The header of an answer counts the answered request, too."""
    acquire(budget, 2).done(used_header=10)

    assert waited_s(clock, budget) == about(60)


def test_the_same_news_is_charged_once(budget: Budget, clock: Time) -> None:
    """A second answer with the same count brings no second charge."""
    for _ in range(5):
        acquire(budget, 0).done(used_header=6)

    assert waited_s(clock, budget, weight=4) == 0


def test_a_pause_holds_everyone(budget: Budget, ledger: Ledger, clock: Time) -> None:
    """After a 429 every budget of the key waits, and knows why."""
    told: list[tuple[float, str]] = []
    other = make_budget(ledger, clock, on_wait=lambda *wait: told.append(wait))
    budget.pause(30, "429, Retry-After 30")

    assert waited_s(clock, other) == about(30)
    assert told == [(pytest.approx(30), "429, Retry-After 30")]


def test_of_several_pauses_the_latest_end_holds(budget: Budget, clock: Time) -> None:
    """A shorter pause does not shorten a longer one."""
    budget.pause(30, "long")
    budget.pause(5, "short")
    budget.pause(40, "longer")
    budget.pause(1, "shortest")

    assert waited_s(clock, budget) == about(40)


def at_once(ledger: Ledger, clock: Time) -> int:
    """Count the requests that a budget lets go at the same moment; all are over afterwards."""

    class Enough(Exception):  # noqa: N818 - the end of the count
        pass

    async def no_sleep(_seconds: float) -> None:
        raise Enough

    patient = make_budget(ledger, clock, Limit(1000, 60), sleep=no_sleep)
    tickets: list[module.Ticket] = []

    async def count() -> None:
        while len(tickets) < 100:
            tickets.append(await patient.acquire(1))

    with suppress(Enough):
        asyncio.run(count())
    for ticket in tickets:
        ticket.done()
    return len(tickets)


def test_after_a_pause_requests_go_one_at_a_time_and_then_more(ledger: Ledger, clock: Time) -> None:
    """Who was refused sends one and waits for its answer; each quiet window doubles that."""
    budget = make_budget(ledger, clock, Limit(1000, 60))
    assert at_once(ledger, clock) == 100
    budget.pause(30, "429")
    assert at_once(ledger, clock) == 0
    clock.now_s += 30.5
    for most in (1, 1, 2, 4, 8, 16, 100):
        assert at_once(ledger, clock) == most
        clock.now_s += 30 if most == 1 else 60
    budget.pause(30, "429")
    clock.now_s += 91
    assert at_once(ledger, clock) == 2
    budget.pause(1, "429")  # refused once more: all over again
    clock.now_s += 2
    assert at_once(ledger, clock) == 1


def test_with_care_the_others_come_first(ledger: Ledger, clock: Time) -> None:
    """While one may go at a time, a newcomer does not overtake a process that waits."""
    budget = make_budget(ledger, clock, Limit(1000, 60))
    budget.pause(1, "429")
    clock.now_s += 1.5
    first = acquire(budget)
    waiting = make_budget(ledger, clock, Limit(1000, 60))

    async def wait_for_it() -> None:
        gone: list[str] = []

        async def go(name: str, one: Budget) -> None:
            (await one.acquire(1)).done()
            gone.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(go("waited", waiting))
            await asyncio.sleep(0)
            first.done()
            group.create_task(go("newcomer", budget))
        assert gone == ["waited", "newcomer"]

    asyncio.run(wait_for_it())


def test_a_ban_refuses_at_once(budget: Budget, clock: Time) -> None:
    """Under a ban nothing waits: the error names until when, and survives pickling."""
    budget.ban(1_700_000_600_123, "418, way too much request weight")

    with pytest.raises(BannedError) as caught:
        acquire(budget)

    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error) == (
        "host has banned this address until 2023-11-14 22:23:20 UTC:"
        " 418, way too much request weight"
    )
    assert error.facts == {
        "exchange": "host",
        "key": "host",
        "until_ms": 1_700_000_600_123,
        "reason": "418, way too much request weight",
    }
    assert clock.slept_s == 0


def test_a_ban_is_never_shortened(budget: Budget, clock: Time) -> None:
    """An earlier end does not replace a later one, and a ban ends by itself."""
    budget.ban(1_700_000_600_000, "long")
    budget.ban(1_700_000_001_000, "short")
    clock.now_s += 599

    with pytest.raises(BannedError, match="long"):
        acquire(budget)

    clock.now_s += 1.001
    acquire(budget)


def test_a_ban_is_remembered_across_runs(tmp_path: Path, clock: Time) -> None:
    """A new run on the same ledger knows of the ban, and of the name to blame."""
    first, second = Ledger(tmp_path / "l"), Ledger(tmp_path / "l")
    make_budget(first, clock).ban(1_700_000_600_000, "418")
    first.close()

    with pytest.raises(BannedError, match="binance has banned this address"):
        acquire(make_budget(second, clock, exchange="binance"))
    second.close()


def test_a_ban_reaches_those_who_wait(ledger: Ledger, clock: Time) -> None:
    """A request already waiting fails within a second of the ban."""
    waiting, other = make_budget(ledger, clock), make_budget(ledger, clock)
    spend(waiting, 10)

    async def main() -> None:
        task = asyncio.create_task(waiting.acquire(1))
        await asyncio.sleep(0)
        other.ban(1_700_009_000_000, "418")
        await task

    with pytest.raises(BannedError):
        asyncio.run(main())
    assert clock.slept_s < 2


# --------------------------------------------------------------------------- the clock


def test_a_clock_set_back_costs_no_more_than_a_request_and_a_window(
    budget: Budget, clock: Time
) -> None:
    """Charges from the future are charged from now, at the longest."""
    spend(budget, 5)
    acquire(budget, 5)
    clock.now_s -= 86_400

    assert 60 <= waited_s(clock, budget) <= 121
    assert waited_s(clock, budget, weight=4) <= 121


def test_a_pause_keeps_its_length_when_the_clock_is_set_back(budget: Budget, clock: Time) -> None:
    """A pause is a length of time, whatever the clock says."""
    budget.pause(30, "429")
    clock.now_s -= 86_400

    assert waited_s(clock, budget) == about(30)


def test_a_dead_waiter_from_the_future_is_forgotten(ledger: Ledger, clock: Time) -> None:
    """A waiter left in the future by a clock set back holds nobody up."""
    spend(make_budget(ledger, clock), 10)
    ledger.run(lambda db: db.execute(module._WAIT, (None, "host", 10, clock.now_s + 9999)))

    assert waited_s(clock, make_budget(ledger, clock), weight=10) == about(60)


# --------------------------------------------------------------------------- the file


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_default_ledger_is_in_the_state_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The environment decides first, then the platform."""
    monkeypatch.setenv("BACKTESTER_STATE_DIR", str(tmp_path))
    assert default_ledger_path() == tmp_path / "budget.sqlite"

    monkeypatch.delenv("BACKTESTER_STATE_DIR")
    assert default_ledger_path().parts[-2:] == ("backtester", "budget.sqlite")


def test_nothing_is_made_before_the_first_use(tmp_path: Path, clock: Time) -> None:
    """Making a ledger and a budget touches no disk."""
    make_budget(Ledger(tmp_path / "a" / "b"), clock)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["the folder is a file", "the file is a folder"])
def test_a_ledger_that_cannot_be_opened_is_kept_in_memory(
    kind: str, tmp_path: Path, clock: Time, caplog: pytest.LogCaptureFixture
) -> None:
    """A fetch goes on with a budget of its own, after one warning."""
    path = tmp_path / "there" / "budget.sqlite"
    if kind == "the folder is a file":
        path.parent.write_text("")
    else:
        path.mkdir(parents=True)
    ledger = Ledger(path)
    budget = make_budget(ledger, clock)

    spend(budget, 10)
    assert waited_s(clock, budget) == about(60)

    (warning,) = warnings_in(caplog)
    assert "this process counts only its own requests" in warning
    assert str(path) in warning
    ledger.close()


def test_a_damaged_ledger_is_replaced(
    tmp_path: Path, clock: Time, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is no ledger gives way to one that others share."""
    path = tmp_path / "budget.sqlite"
    path.write_bytes(b"no database at all" * 1000)
    first, second = Ledger(path), Ledger(path)

    spend(make_budget(first, clock), 10)
    assert waited_s(clock, make_budget(second, clock)) == about(60)

    (warning,) = warnings_in(caplog)
    assert "is damaged" in warning
    first.close()
    second.close()


def test_a_ledger_damaged_in_use_is_replaced(
    tmp_path: Path, clock: Time, caplog: pytest.LogCaptureFixture
) -> None:
    """Overwriting the file under an open ledger costs its content, not the fetch."""
    path = tmp_path / "budget.sqlite"
    ledger, other = Ledger(path), Ledger(path)
    spend(make_budget(ledger, clock), 1)
    ledger.close()
    spend(make_budget(ledger, clock), 1)
    damaged = bytearray(path.read_bytes())
    damaged[100:] = os.urandom(len(damaged) - 100)
    path.with_suffix(".sqlite-wal").write_bytes(b"")
    path.write_bytes(damaged)

    spend(make_budget(other, clock), 10)
    assert waited_s(clock, make_budget(ledger, clock)) == about(60)

    assert "is damaged" in warnings_in(caplog)[0]
    ledger.close()
    other.close()


def test_a_deleted_ledger_is_made_anew_for_all(tmp_path: Path, clock: Time) -> None:
    """After the file is deleted, everyone who had it open meets in the new one."""
    path = tmp_path / "budget.sqlite"
    first, second = Ledger(path), Ledger(path)
    spend(make_budget(first, clock), 1)
    spend(make_budget(second, clock), 1)
    for file in tmp_path.iterdir():
        file.unlink()

    spend(make_budget(first, clock), 10)

    assert waited_s(clock, make_budget(second, clock)) == about(60)
    first.close()
    second.close()


def test_a_busy_ledger_is_waited_for(ledger: Ledger, clock: Time) -> None:
    """While another process holds the ledger, asking waits and completions are kept."""
    budget = make_budget(ledger, clock)
    ticket = acquire(budget, 10)
    holder = sqlite3.connect(ledger.path or "", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    ticket.done()
    naps = 0

    async def sleep(seconds: float) -> None:
        nonlocal naps
        naps += 1
        if naps == 3:
            holder.execute("COMMIT")
            holder.close()
        await clock.sleep(seconds)

    assert waited_s(clock, make_budget(ledger, clock, sleep=sleep)) == about(60)
    assert naps > 3


def test_a_ban_is_written_however_busy_the_ledger(ledger: Ledger, clock: Time) -> None:
    """A ban waits for the ledger: the process may end right after."""
    budget = make_budget(ledger, clock)
    spend(budget, 1)
    holder = sqlite3.connect(ledger.path or "", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.1, lambda: (holder.execute("COMMIT"), holder.close()))
    release.start()

    budget.ban(1_700_000_600_000, "418")
    release.join()

    other = Ledger(ledger.path)
    with pytest.raises(BannedError):
        acquire(make_budget(other, clock))
    other.close()


def test_a_ledger_locked_for_ever_is_given_up(
    ledger: Ledger, clock: Time, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When the holder never lets go, the process goes on alone, with what was known."""
    monkeypatch.setattr(ledger_module, "_BUSY_TRIES", 5)
    budget = make_budget(ledger, clock)
    spend(budget, 10)
    holder = sqlite3.connect(ledger.path or "", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    assert waited_s(clock, budget) == about(60)

    holder.close()
    assert len(warnings_in(caplog)) == 1


def test_a_ledger_in_memory_is_forgotten_when_closed(clock: Time) -> None:
    """Without a path nothing outlives `close`."""
    ledger = Ledger(None)
    spend(make_budget(ledger, clock), 10)
    ledger.close()

    assert waited_s(clock, make_budget(ledger, clock), weight=10) == 0
    ledger.close()


# --------------------------------------------------------------------------- real processes

PRELUDE = """
import asyncio, os, random, sys, time
from pathlib import Path
from backtester.data.fetching.budget import Budget, Limit
from backtester.data.fetching.ledger import Ledger

def open_budget(path, *limit, **rest):
    return Budget(Ledger(Path(path)), "host", [Limit(*limit)], **rest)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process that has this module's `PRELUDE`."""
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def output(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    return text


SENDER = """
path, log, name = sys.argv[1:]
async def main():
    budget = open_budget(path, 30, 0.5)
    async def send():
        for _ in range(5):
            ticket = await budget.acquire(1)
            await asyncio.sleep(random.uniform(0, 0.004))
            os.write(out, f"{time.time():.6f} {name}\\n".encode())
            await asyncio.sleep(random.uniform(0, 0.004))
            ticket.done()
    await asyncio.gather(*(send() for _ in range(8)))
out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
print("ready", flush=True)
input()
asyncio.run(main())
"""


def test_processes_share_one_limit(tmp_path: Path) -> None:
    """Three processes never pass the limit in any window, and none starves."""
    log = tmp_path / "log"
    senders = [start(SENDER, tmp_path / "ledger", log, name) for name in "abc"]
    for sender in senders:
        assert sender.stdout.readline() == "ready\n"
    for sender in senders:
        sender.stdin.write("\n")
        sender.stdin.flush()
    for sender in senders:
        output(sender)

    lines = sorted(line.split() for line in log.read_text().splitlines())
    times = [float(at) for at, _ in lines]
    names = [name for _, name in lines]
    assert len(times) == 120
    for index, at in enumerate(times):
        assert sum(0 <= at - earlier < 0.5 for earlier in times[: index + 1]) <= 30
    last = {name: 120 - names[::-1].index(name) for name in "abc"}
    until_the_first_was_done = names[: min(last.values())]
    assert min(until_the_first_was_done.count(name) for name in "abc") >= 10


HOLDER = """
asyncio.run(open_budget(sys.argv[1], 10, 0.3, max_request_s=0.4).acquire(10))
print("held", flush=True)
time.sleep(60)
"""


def test_a_killed_process_does_not_hold_its_charge_for_ever(tmp_path: Path) -> None:
    """After SIGKILL the charge ends with the longest request and a window."""
    holder = start(HOLDER, tmp_path / "ledger")
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    ledger = Ledger(tmp_path / "ledger")
    at = ledger.run(lambda db: db.execute("SELECT over_at FROM charge").fetchone()[0])

    acquire(Budget(ledger, "host", [Limit(10, 0.3)], max_request_s=0.4), 10)

    assert at + 0.3 <= time.time() < at + 10
    ledger.close()


ASKER = """
from backtester.data.errors import BannedError
begun = time.time()
try:
    asyncio.run(open_budget(sys.argv[1], 10, 60).acquire(1))
except BannedError as error:
    print(error.until_ms)
else:
    print(time.time() - begun)
"""


def test_another_process_sees_pause_and_ban(tmp_path: Path) -> None:
    """A pause makes another process wait, a ban makes it fail."""
    ledger = Ledger(tmp_path / "ledger")
    budget = Budget(ledger, "host", [Limit(10, 60)])
    budget.pause(1.5, "429")
    paused_until = time.time() + 1.5
    assert float(output(start(ASKER, tmp_path / "ledger"))) > 0
    assert time.time() >= paused_until - 0.01

    until_ms = int(time.time() * 1000) + 60_000
    budget.ban(until_ms, "418")
    ledger.close()

    assert output(start(ASKER, tmp_path / "ledger")) == f"{until_ms}\n"


FULL_DISK = """
import resource
budget = open_budget(sys.argv[1], 10, 0.5)
asyncio.run(budget.acquire(10)).done()
begun = time.time()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
asyncio.run(budget.acquire(10)).done()
print(time.time() - begun)
"""


def test_a_full_disk_does_not_fail_a_fetch(tmp_path: Path) -> None:
    """When nothing can be written any more, what was charged before still counts."""
    assert float(output(start(FULL_DISK, tmp_path / "ledger"))) >= 0.45


FORKED = """
budget = open_budget(sys.argv[1], 10, 0.5)
asyncio.run(budget.acquire(10)).done()
begun = time.time()
inherited = budget.ledger._connection
if os.fork() == 0:
    asyncio.run(budget.acquire(10)).done()
    os._exit(budget.ledger._connection is inherited or time.time() - begun < 0.45)
print(os.wait()[1])
asyncio.run(budget.acquire(10)).done()
print(time.time() - begun > 0.9)
"""


def test_a_forked_process_opens_the_ledger_for_itself(tmp_path: Path) -> None:
    """A child that inherits a budget shares the account, not the connection."""
    assert output(start(FORKED, tmp_path / "ledger")) == "0\nTrue\n"
