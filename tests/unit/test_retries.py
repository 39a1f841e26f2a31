"""How often, how long and with what waits something is tried again."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from backtester.data.errors import (
    AccessDeniedError,
    DataError,
    ExchangeUnavailableError,
    RateLimitedError,
)
from backtester.data.events import Event, Retrying
from backtester.data.fetching import retries
from backtester.data.fetching.retries import ATTEMPTS, DEADLINE_S, trying


class Failing:
    """Fails as it is told, each try taking some seconds of a clock that only it moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: DataError, takes_s: float) -> None:
        self.tries = 0
        self.now_s = 0.0
        self.waits: list[float] = []
        self._error, self._takes_s = error, takes_s
        monkeypatch.setattr(retries, "time", SimpleNamespace(monotonic=lambda: self.now_s))

        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)
            self.now_s += seconds

        monkeypatch.setattr(retries, "_sleep", sleep)

    async def __call__(self) -> None:
        self.tries += 1
        self.now_s += self._takes_s
        raise self._error

    def run(self, attempts: int = ATTEMPTS) -> list[Event]:
        events: list[Event] = []
        with pytest.raises(type(self._error)) as caught:
            asyncio.run(trying(self, "BTC/USDT", events.append, attempts=attempts))
        assert caught.value is self._error
        return events


def test_tries_are_counted_and_waits_grow_to_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick failures end with the last of the tries, each wait told, none above its cap."""
    failing = Failing(monkeypatch, ExchangeUnavailableError("down"), 0.01)
    told = failing.run(attempts=12)
    assert failing.tries == 12
    assert [event.wait_s for event in told if isinstance(event, Retrying)] == failing.waits
    for number, wait in enumerate(failing.waits):
        assert 0.2 <= wait <= 0.2 + min(15.0, 0.5 * 2**number)
    assert len(set(failing.waits)) == 11, "no two processes come back at once"


def test_after_the_deadline_a_failure_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow failures end when the time is over, whatever tries are left."""
    failing = Failing(monkeypatch, ExchangeUnavailableError("slow"), 120.0)
    failing.run(attempts=100)
    # They fail 0, 120, 240 and 360 seconds after the first failure.
    assert failing.tries == 4
    assert failing.now_s < 120.0 + DEADLINE_S + 120.0


def test_the_time_before_the_first_failure_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that waited long for the budget has all its tries before it."""
    failing = Failing(monkeypatch, ExchangeUnavailableError("down"), 0.0)
    failing.now_s = 10 * DEADLINE_S
    failing.run()
    assert failing.tries == ATTEMPTS


@pytest.mark.parametrize(("retry_after_s", "tries"), [(10.0, ATTEMPTS), (DEADLINE_S + 1, 1)])
def test_a_pause_that_outlasts_the_deadline_is_final(
    monkeypatch: pytest.MonkeyPatch, retry_after_s: float, tries: int
) -> None:
    """Whoever is told to come back in an hour says so now, and not after an hour."""
    error = RateLimitedError("slow down", retry_after_s=retry_after_s)
    failing = Failing(monkeypatch, error, 0.0)
    failing.run()
    assert failing.tries == tries
    assert failing.waits == [0.0] * (tries - 1), "the budget waits, and not the retries"


def test_maintenance_is_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exchange that is being worked on is not back in a second."""
    failing = Failing(monkeypatch, ExchangeUnavailableError("x", ccxt_error="OnMaintenance"), 0.0)
    failing.run()
    assert failing.tries == ATTEMPTS
    assert all(7.5 <= wait <= 15.0 for wait in failing.waits)


def test_what_cannot_pass_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal of this address is the answer."""
    failing = Failing(monkeypatch, AccessDeniedError("no"), 0.0)
    assert failing.run() == []
    assert failing.tries == 1
