"""One request budget per exchange host and way out, shared by a whole machine.

An exchange counts what an address asks of it, whoever asks: so threads,
coroutines and processes keep one account, in a small SQLite file, the *ledger*.
It holds to one rule: a request is charged from its reservation until one window
after its completion. The exchange counts it somewhere in between, so that none
of its windows, fixed or rolling, ever holds more than the limit. The price is
the requests' own duration: the best rate is ``limit / (window + duration)``.

Without a limit nothing is paced: then a request only looks whether a pause or a
ban holds, and what was sent is told to the others of the key in bulk.
"""

from __future__ import annotations

import asyncio
import math
import random
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from backtester.data.errors import BannedError
from backtester.data.fetching.ledger import Ledger, LedgerBusyError
from backtester.data.model import format_ms

__all__ = ["Budget", "Limit", "Ticket"]

_SLOTS = 200  # per window: completions are rounded up to a slot, which costs 0.5 % at most
_TIDY_S = 0.1  # between clean-ups of the account: not every request needs one
_KEEP_S = 300.0  # no charge is forgotten earlier: other budgets of the key may look back further
_NAP_S = 1.0  # the longest sleep, so that a ban by another process is soon noticed
_LATE_S = 1.0  # after which the queue closes up without a waiter: it may be dead
_TURN_S = 0.005  # what a waiter is given to take its turn
_CAREFUL_WINDOWS = 5  # after a refusal: 1, 2, 4, 8, 16 requests at once, and then as many as fit
_JITTER_S = 0.002  # so that processes do not all wake in the same instant
_UNPACED_WINDOW_S = 1.0  # by which care is counted where there is no limit
_UNTOLD_S = 0.1  # how long what was sent without a limit may be unknown to others


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `weight` of the exchange's cost units in any `window_s` seconds."""

    weight: int
    window_s: float

    def __post_init__(self) -> None:
        if self.weight <= 0 or not self.window_s > 0:
            raise ValueError(f"a limit needs a positive weight and window, not {self}")

    def __str__(self) -> str:
        return f"{self.weight} per {self.window_s:g} s"


_FORGET_CHARGES = "DELETE FROM charge WHERE key = ? AND over_at <= ?"
_FORGET_WAITERS = "DELETE FROM waiter WHERE key = ? AND NOT back_by BETWEEN ? AND ?"
_MEND_CHARGES = "UPDATE charge SET over_at = :last WHERE key = :key AND over_at > :last"
_MEND_PAUSE = """UPDATE hold SET until = until - set_at + :now, set_at = :now
    WHERE key = :key AND kind <> 'ban' AND set_at > :now"""
_HELD = "SELECT kind, until, reason FROM hold WHERE key = ? AND until > ? ORDER BY kind"
_AHEAD = "SELECT total(weight) FROM waiter WHERE key = ? AND place < ?"
_BEFORE = """SELECT (SELECT count(*) FROM waiter WHERE key = :key AND place < :place)
    + (SELECT count(*) FROM charge WHERE key = :key AND running AND over_at > :now)"""
_CHARGED = "SELECT total(weight) FROM charge WHERE key = ? AND over_at > ?"
_CHARGES = """SELECT CASE WHEN running THEN min(over_at, ?) ELSE over_at END AS earliest, weight
    FROM charge WHERE key = ? AND over_at > ? ORDER BY earliest"""
_WAIT = "INSERT OR REPLACE INTO waiter (place, key, weight, back_by) VALUES (?, ?, ?, ?)"
_LEAVE = "DELETE FROM waiter WHERE place = ?"
_START = "INSERT INTO charge (id, key, weight, running, over_at) VALUES (?, ?, ?, 1, ?)"
_END = "DELETE FROM charge WHERE id = ?"
_ADD = "UPDATE charge SET weight = weight + ? WHERE key = ? AND over_at = ? AND NOT running"
_SPEND = "INSERT INTO charge (weight, key, over_at, running) VALUES (?, ?, ?, 0)"
_HOLD = """INSERT INTO hold (key, kind, set_at, until, reason) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (key, kind) DO UPDATE
    SET set_at = excluded.set_at, until = excluded.until, reason = excluded.reason
    WHERE excluded.until > until"""


class Ticket:
    """The right to send one request, charged until a window after `done`."""

    __slots__ = ("_budget", "_open", "id", "weight")

    def __init__(self, budget: Budget, weight: int, *, charged: bool = True) -> None:
        # Never used twice, even by a ledger made anew; None where nothing is paced.
        self.id = random.getrandbits(62) if charged else None
        self.weight = weight
        self._budget = budget
        self._open = True

    def done(self, used_header: int | None = None) -> None:
        """Say that the request is over: an answer came, or it surely never left.

        Parameters
        ----------
        used_header : int, optional
            The exchange's count for its current window of the first limit, such as Binance's
            ``x-mbx-used-weight-1m``: what it has of others' use is charged as well.
        """
        if self._open:
            self._open = False
            self._budget._finish(self, None if used_header is None else int(used_header))


@dataclass(frozen=True, slots=True)
class _Wait:
    seconds: float
    reason: str
    place: int


class Budget:
    """The account of one key in a ledger.

    Each budget holds to its own limits, over what all budgets of the key spend;
    their `max_request_s` must be the same. A budget may serve several threads and
    event loops, at once or in turn.

    Parameters
    ----------
    ledger : Ledger
        Where the account is kept.
    key : str
        What the exchange counts by: its host and our way out, direct or a proxy.
    limits : sequence of Limit
        All hold at once; the first is the one the exchange's header counts. None: nothing is
        paced, and only pauses and bans hold.
    max_request_s : float
        No request may take longer, from its reservation; its holder counts as
        killed then.
    clock : callable
        Seconds since the epoch, the same in all processes. Set back, it prolongs
        waits by `max_request_s` and a window at most; set forward, charges expire
        early, and the exchange's header corrects that.
    sleep : callable
        ``asyncio.sleep`` or a stand-in.
    on_wait : callable, optional
        Called with (seconds, reason) when a request must wait longer than a few
        milliseconds, once for each reason.
    exchange : str, optional
        The name in errors; the key when not given.
    """

    def __init__(
        self,
        ledger: Ledger,
        key: str,
        limits: Sequence[Limit],
        *,
        max_request_s: float = 60.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_wait: Callable[[float, str], None] | None = None,
        exchange: str | None = None,
    ) -> None:
        self.ledger = ledger
        self.key = key
        self.limits = tuple(limits)
        self.max_request_s = max_request_s
        self.exchange = exchange or key
        self._clock = clock
        self._sleep = sleep
        self._on_wait = on_wait
        windows = [limit.window_s for limit in limits] or [_UNPACED_WINDOW_S]
        self._slot_s = min(windows) / _SLOTS
        self._window_s = max(windows)
        self._tidied_at = -math.inf
        self._untold: deque[int] = deque()
        self._told_at = -math.inf
        self._turns: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}

    async def acquire(self, weight: int) -> Ticket:
        """Wait until a request of this weight may be sent, and charge it.

        First come, first served; a weight above a limit is granted when its
        window is empty.

        Raises
        ------
        BannedError
            While the exchange has shut this address out.
        """
        if weight < 0:
            raise ValueError(f"a request cannot weigh {weight}")
        if not (self.limits or self._held()):
            return Ticket(self, weight, charged=False)
        place: int | None = None  # in the queue of all processes, once there is a wait
        told = None
        async with self._turn():
            try:
                while isinstance(outcome := await self._attempt(weight, place), _Wait):
                    place = outcome.place
                    if self._on_wait and outcome.reason != told and outcome.seconds > _TURN_S:
                        told = outcome.reason
                        self._on_wait(outcome.seconds, told)
                    await self._sleep(min(outcome.seconds, _NAP_S) + random.uniform(0, _JITTER_S))
            except BaseException:  # cancelled, too: a queue must not wait for the absent
                if place is not None:
                    self.ledger.post(lambda db: db.execute(_LEAVE, (place,)))
                raise
            return outcome

    def settle(self) -> None:
        """Charge what was sent unpaced and the others of the key have not been told of."""
        weight = 0
        with suppress(IndexError):
            while True:
                weight += self._untold.popleft()
        if not weight:
            return
        now = self._told_at = self._clock()

        def work(db: sqlite3.Connection) -> None:
            self._tidy(db, now)
            self._spend(db, now, weight)

        self.ledger.post(work)

    def pause(self, seconds: float, reason: str) -> None:
        """Let every request of every process wait; of several pauses the latest end holds.

        After it they go one at a time, and twice as many with each window that passes without
        another pause: whoever was refused once must not be so with all that is under way.
        """
        until = self._clock() + seconds
        self._hold("pause", until, reason)
        self._hold("care", until + _CAREFUL_WINDOWS * self._window_s, reason)

    def ban(self, until_ms: int, reason: str) -> None:
        """Refuse every request of every process until `until_ms`, UTC epoch milliseconds."""
        self._hold("ban", until_ms / 1000, reason)

    def _turn(self) -> asyncio.Lock:
        """Give the lock by which the coroutines of this loop ask one at a time, in order."""
        loop = asyncio.get_running_loop()
        if loop not in self._turns:
            for ended in [other for other in list(self._turns) if other.is_closed()]:
                self._turns.pop(ended, None)
        return self._turns.setdefault(loop, asyncio.Lock())

    def _held(self) -> bool:
        """Tell whether a ban, a pause or the care after one may be in force."""
        try:
            return bool(self.ledger.look(_HELD, (self.key, self._clock())))
        except LedgerBusyError:
            return True

    async def _attempt(self, weight: int, place: int | None) -> Ticket | _Wait:
        while True:
            try:
                outcome = self.ledger.run(lambda db: self._reserve(db, weight, place))
            except LedgerBusyError:
                await self._sleep(random.uniform(_JITTER_S, _TURN_S))
            else:
                break
        if isinstance(outcome, BannedError):
            raise outcome
        return outcome

    # What takes `db` runs inside a transaction.

    def _reserve(
        self, db: sqlite3.Connection, weight: int, place: int | None
    ) -> Ticket | _Wait | BannedError:
        now = self._clock()
        self._tidy(db, now)
        wait = None
        for kind, until, reason in db.execute(_HELD, (self.key, now)):  # a ban comes first
            if kind == "ban":
                return self._banned(until, reason)
            if kind == "pause":
                wait = until - now, reason
            elif not self._few_enough(db, now, until, place):
                wait = _TURN_S, "requests go few at a time since one was refused"
        wait = wait or self._wait_for_room(db, now, weight, place)
        if wait:
            seconds, reason = wait
            back_by = now + min(seconds, _NAP_S) + _LATE_S
            place = db.execute(_WAIT, (place, self.key, weight, back_by)).lastrowid
            return _Wait(seconds, reason, place or 0)
        if place is not None:
            db.execute(_LEAVE, (place,))
        ticket = Ticket(self, weight)
        db.execute(_START, (ticket.id, self.key, weight, now + self.max_request_s))
        return ticket

    def _tidy(self, db: sqlite3.Connection, now: float) -> None:
        """Forget what is over, and mend what a clock set back has left in the future."""
        if 0 <= now - self._tidied_at < _TIDY_S:
            return
        self._tidied_at = now
        reach_s = max([_KEEP_S, *(limit.window_s for limit in self.limits)])
        db.execute(_FORGET_CHARGES, (self.key, now - reach_s))
        db.execute(_FORGET_WAITERS, (self.key, now, now + _NAP_S + _LATE_S))
        last = now + max(self.max_request_s, self._slot_s)
        db.execute(_MEND_CHARGES, {"key": self.key, "last": last})
        db.execute(_MEND_PAUSE, {"key": self.key, "now": now})  # a ban's end is the exchange's time

    def _few_enough(
        self, db: sqlite3.Connection, now: float, careful_until: float, place: int | None
    ) -> bool:
        """Tell whether one more request may be under way while the key is handled with care."""
        passed = _CAREFUL_WINDOWS - math.ceil((careful_until - now) / self._window_s)
        asked = {"key": self.key, "place": math.inf if place is None else place, "now": now}
        ((before,),) = db.execute(_BEFORE, asked)
        return bool(before < 2 ** max(passed, 0))

    def _wait_for_room(
        self, db: sqlite3.Connection, now: float, weight: int, place: int | None
    ) -> tuple[float, str] | None:
        """Tell how long `weight` must wait at the least, and why; None when it fits.

        It fits when it leaves room for all who wait ahead of it: nobody is
        overtaken at a cost, and nobody must wake up before others may go. Still
        a newcomer gives them a moment, or the first to wake up would take all.
        """
        ahead = _sum(db, _AHEAD, (self.key, math.inf if place is None else place))
        waits = [(_TURN_S, "others wait for the same budget")] if ahead and place is None else []
        for limit in self.limits:
            before = ahead + self._charged(db, now, limit)
            if before and before + weight > limit.weight:
                charges = db.execute(_CHARGES, (now, self.key, now - limit.window_s)).fetchall()
                seconds = seconds_until_room(charges, limit, ahead + weight, now)
                waits.append((max(seconds, _TURN_S), f"the budget of {limit} is spent"))
        return max(waits, default=None)

    def _finish(self, ticket: Ticket, used: int | None) -> None:
        now = self._clock()
        if ticket.id is None:
            self._untold.append(ticket.weight)
            if not 0 <= now - self._told_at < _UNTOLD_S:
                self.settle()
            return

        def work(db: sqlite3.Connection) -> None:
            db.execute(_END, (ticket.id,))
            self._spend(db, now, ticket.weight)
            if used is not None:
                self._charge_unknown(db, now, used)

        self.ledger.post(work)

    def _charge_unknown(self, db: sqlite3.Connection, now: float, used: int) -> None:
        if not self.limits:  # whose window the count is of; who has one sees it as well
            return
        unknown = used - self._charged(db, now, self.limits[0])
        if unknown > 0:
            self._spend(db, now, unknown)

    def _spend(self, db: sqlite3.Connection, now: float, weight: int) -> None:
        # One row per slot instead of one per request: 200 to sum, not thousands.
        row = (weight, self.key, math.ceil(now / self._slot_s) * self._slot_s)
        if not db.execute(_ADD, row).rowcount:
            db.execute(_SPEND, row)

    def _charged(self, db: sqlite3.Connection, now: float, limit: Limit) -> int:
        return _sum(db, _CHARGED, (self.key, now - limit.window_s))

    def _hold(self, kind: str, until: float, reason: str) -> None:
        if not math.isfinite(until):
            raise ValueError(f"a {kind} must end, not at {until}")
        row = (self.key, kind, self._clock(), until, str(reason))
        self.ledger.post(lambda db: db.execute(_HOLD, row), insist=True)

    def _banned(self, until: float, reason: str) -> BannedError:
        until_ms = round(until * 1000)
        return BannedError(
            f"{self.exchange} has banned this address until {format_ms(until_ms)}: {reason}",
            exchange=self.exchange,
            key=self.key,
            until_ms=until_ms,
            reason=reason,
        )


def seconds_until_room(
    charges: Sequence[tuple[float, int]], limit: Limit, demand: int, now: float
) -> float:
    """Tell when enough charges have left the window for `demand` to fit, or all of them.

    Parameters
    ----------
    charges : sequence of (float, int)
        When each request was over, at the earliest, and its weight; in order of time.
    limit : Limit
    demand : int
    now : float

    Returns
    -------
    float
        Seconds from `now`.

    >>> seconds_until_room([(100.0, 6), (110.0, 4)], Limit(10, 60), 3, now=120.0)
    40.0
    """
    charged = sum(weight for _, weight in charges)
    wait_s = 0.0
    for over_at, weight in charges:
        if charged + demand <= limit.weight:
            break
        charged -= weight
        wait_s = over_at + limit.window_s - now
    return wait_s


def _sum(db: sqlite3.Connection, query: str, parameters: tuple[object, ...]) -> int:
    ((total,),) = db.execute(query, parameters)
    return int(total)
