"""The budget's promise: no window of the exchange holds more than the limit, whatever the mix."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from backtester.data.fetching.budget import Budget, Limit, seconds_until_room
from backtester.data.fetching.ledger import Ledger

EPOCH_S = 1_700_000_000.0
MAX_REQUEST_S = 20.0


class _SkippingSelector(selectors.DefaultSelector):
    """Skips the time a loop would sleep."""

    skipped_s = 0.0

    def select(self, timeout: float | None = None) -> list:
        assert timeout is not None, "everybody waits for nothing"
        self.skipped_s += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose sleeps take no time."""

    def __init__(self) -> None:
        self.selector = _SkippingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.skipped_s


def now() -> float:
    return EPOCH_S + asyncio.get_running_loop().time()


def simulate(main):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


def open_budgets(count: int, limits: Sequence[Limit]) -> list[Budget]:
    """Stand in for processes: budgets that know of each other by the ledger alone."""
    ledger = Ledger(None)
    return [
        Budget(ledger, "host", limits, max_request_s=MAX_REQUEST_S, clock=now) for _ in range(count)
    ]


def most_in_window(arrivals: list[tuple[float, int]], window_s: float) -> int:
    """Give the most that any rolling window holds, to a microsecond."""
    arrivals = sorted(arrivals)
    most = first = held = 0
    for at, weight in arrivals:
        held += weight
        while arrivals[first][0] <= at - window_s + 1e-6:
            held -= arrivals[first][1]
            first += 1
        most = max(most, held)
    return most


@dataclass(frozen=True)
class Order:
    process: int
    at_s: float
    weight: int
    duration_s: float
    arrives: float
    """The share of the duration after which the exchange counts it."""
    killed: bool
    """Its holder never tells that it is over."""


seconds = st.floats(0, 30, allow_nan=False)
orders = st.lists(
    st.builds(
        Order,
        process=st.integers(0, 2),
        at_s=seconds,
        weight=st.integers(1, 10),
        duration_s=st.floats(0, MAX_REQUEST_S) | st.floats(0, 0.2),
        arrives=st.floats(0, 1) | st.sampled_from([0.0, 1.0]),
        killed=st.booleans() | st.just(value=False),
    ),
    max_size=60,
)
limits = st.lists(
    st.builds(Limit, st.integers(10, 40), st.sampled_from([0.5, 2.0, 7.3, 60.0])),
    min_size=1,
    max_size=2,
    unique_by=lambda limit: limit.window_s,
)


@given(orders=orders, limits=limits)
@settings(deadline=None, max_examples=60)
def test_no_window_ever_holds_more_than_the_limit(orders: list[Order], limits: list[Limit]) -> None:
    """Any arrivals, weights, durations and kills, and the exchange counts within every limit."""
    arrivals: list[tuple[float, int]] = []

    async def send(order: Order, budget: Budget) -> None:
        await asyncio.sleep(order.at_s)
        ticket = await budget.acquire(order.weight)
        arrivals.append((now() + order.arrives * order.duration_s, order.weight))
        await asyncio.sleep(order.duration_s)
        if not order.killed:
            ticket.done()

    async def main() -> None:
        budgets = open_budgets(3, limits)
        await asyncio.gather(*(send(order, budgets[order.process]) for order in orders))
        budgets[0].ledger.close()

    simulate(main)

    assert len(arrivals) == len(orders)
    for limit in limits:
        assert most_in_window(arrivals, limit.window_s) <= limit.weight


@given(
    processes=st.integers(1, 4),
    weight=st.integers(1, 4),
    limit=st.builds(Limit, st.integers(200, 300), st.sampled_from([6.0, 10.0, 60.0])),
    duration=st.floats(0.001, 0.01),
)
@settings(deadline=None, max_examples=20)
def test_the_limit_is_used(processes: int, weight: int, limit: Limit, duration: float) -> None:
    """Under saturation at least 95 % of the limit is spent, and no process starves."""
    windows = 4
    arrivals: list[tuple[float, int]] = []
    counts = [0] * processes

    async def send_for_ever(process: int, budget: Budget) -> None:
        while True:
            ticket = await budget.acquire(weight)
            arrivals.append((now() - EPOCH_S, weight))
            counts[process] += 1
            await asyncio.sleep(duration * limit.window_s)
            ticket.done()

    async def main() -> None:
        budgets = open_budgets(processes, [limit])
        senders = [
            asyncio.create_task(send_for_ever(process, budget))
            for process, budget in enumerate(budgets)
            for _ in range(40)
        ]
        await asyncio.sleep(windows * limit.window_s)
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        budgets[0].ledger.close()

    simulate(main)

    spent = sum(weight for at, weight in arrivals if at < windows * limit.window_s)
    assert spent >= 0.95 * windows * limit.weight
    assert min(counts) >= 0.5 * sum(counts) / processes


@given(
    ends=st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5)), max_size=20).map(sorted),
    demand=st.integers(1, 30),
)
def test_the_wait_is_the_shortest_that_suffices(ends: list[tuple[float, int]], demand: int) -> None:
    """After the wait the demand fits or nothing is charged; at any earlier expiry it did not."""
    limit, at = Limit(20, 100.0), 100.0

    wait_s = seconds_until_room(ends, limit, demand, at)

    def charged_after(moment: float) -> int:
        return sum(weight for over_at, weight in ends if over_at + limit.window_s > moment)

    def fits(moment: float) -> bool:
        return charged_after(moment) + demand <= limit.weight or not charged_after(moment)

    def later(moment: float) -> float:
        return moment + 1e-9

    assert fits(later(at + wait_s))
    assert not any(
        fits(later(over_at + limit.window_s))
        for over_at, _ in ends
        if over_at + limit.window_s < at + wait_s - 1e-6
    )
