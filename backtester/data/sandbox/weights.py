"""The exchange's rate limits: request weight per window, refusals, bans."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Verdict", "WeightBook"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one call's weight led to."""

    used: int
    """Weight used of the running minute, this call included if it was let in."""
    retry_after_s: int | None = None
    """Whole seconds to wait; None when the call was let in."""
    banned: bool = False


class WeightBook:
    """Counts weight in fixed windows of real time, as Binance does in minutes.

    Parameters
    ----------
    window_s : float
        Length of a window.
    refusals_before_ban : int
        A client that keeps calling after this many refusals in a row is banned.
    ban_s : float
        For how long.
    monotonic : callable, optional
        Seconds of a clock that never goes back. Not the exchange's clock: that
        may stand still, and then nobody could ever call again.

    Notes
    -----
    Not thread-safe: it belongs to the server's loop.
    """

    def __init__(
        self,
        *,
        window_s: float = 60.0,
        refusals_before_ban: int = 10,
        ban_s: float = 120.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._window_s = window_s
        self._patience = refusals_before_ban
        self._ban_s = ban_s
        self._monotonic = monotonic
        self._window = -1
        self._used: Counter[str] = Counter()
        self._refusals = 0
        self._banned_until = -math.inf

    def charge(self, family: str, weight: int, limit: int) -> Verdict:
        """Count one call's weight against a family's limit, or refuse the call."""
        now = self._monotonic()
        window = int(now // self._window_s)
        if window != self._window:
            self._window = window
            self._used.clear()
        used = self._used[family]
        if now < self._banned_until:
            return Verdict(used, _whole_seconds(self._banned_until - now), banned=True)
        if used + weight <= limit:
            self._refusals = 0
            self._used[family] += weight
            return Verdict(used + weight)
        self._refusals += 1
        if self._refusals > self._patience:
            self._refusals = 0
            self._banned_until = now + self._ban_s
            return Verdict(used, _whole_seconds(self._ban_s), banned=True)
        return Verdict(used, _whole_seconds((window + 1) * self._window_s - now))


def _whole_seconds(seconds: float) -> int:
    return max(math.ceil(seconds), 1)
