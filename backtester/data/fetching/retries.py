"""Do something again while its failure may pass.

Twenty lines of our own, since every request passes here twice: see
``docs/decisions/027``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from backtester.data.errors import RateLimitedError, TransientFetchError
from backtester.data.events import Event, Retrying

__all__ = ["ATTEMPTS", "DEADLINE_S", "trying"]

T = TypeVar("T")

ATTEMPTS = 6
"""Tries of one request: with the waits between them about half a minute of trouble."""
DEADLINE_S = 300.0
"""From its first failure on, how long something is tried again: a failure whose wait would end
later is final. The budget's own waits before that count for nothing."""
_LONGEST_WAIT_S = 15.0


async def trying(
    work: Callable[[], Awaitable[T]],
    what: str,
    on_event: Callable[[Event], None],
    *,
    attempts: int = ATTEMPTS,
) -> T:
    """Do something, again after a failure that may pass, with a growing wait.

    Parameters
    ----------
    work : callable
        Gives a new awaitable for every try.
    what : str
        The symbol or exchange it is about, for the event.
    on_event : callable
    attempts : int

    Raises
    ------
    TransientFetchError
        The last failure: after so many tries, or when the next would come more than
        `DEADLINE_S` after the first failure.
    """
    attempt, failed_at = 1, None
    while True:
        try:
            return await work()
        except TransientFetchError as error:
            now = time.monotonic()
            failed_at = now if failed_at is None else failed_at
            wait_s = _wait(attempt, error)
            comes_s = max(wait_s, getattr(error, "retry_after_s", None) or 0.0)
            if attempt >= attempts or now + comes_s - failed_at > DEADLINE_S:
                raise
            on_event(Retrying(what, attempt, wait_s, str(error)))
        await _sleep(wait_s)
        attempt += 1


_sleep = asyncio.sleep


def _wait(attempt: int, error: TransientFetchError) -> float:
    """Wait longer after each try, seconds, and by chance, so that not all come back at once.

    After a 429 not at all, since the budget holds everyone back; and long at once where the
    exchange says that it is being worked on.
    """
    if isinstance(error, RateLimitedError):
        return 0.0
    if getattr(error, "ccxt_error", None) == "OnMaintenance":
        return _LONGEST_WAIT_S * random.uniform(0.5, 1.0)
    return 0.2 + random.uniform(0.0, min(_LONGEST_WAIT_S, 0.5 * 2 ** (attempt - 1)))
