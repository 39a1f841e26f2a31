"""The log of a server's requests; tests and users may read it while it grows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Final

__all__ = ["Journal", "Request"]

_KEPT: Final = 200_000


@dataclass(frozen=True, slots=True)
class Request:
    """One request and how it was answered."""

    path: str
    params: Mapping[str, str]
    at_ms: int
    """The exchange's clock, UTC epoch milliseconds."""
    status: int
    """HTTP status; 0 when the connection was reset instead."""
    weight: int
    """What it cost; 0 when it was refused."""
    fault: str | None = None
    """The fault that struck it."""


class Journal:
    """The requests of a server in the order they were answered; the last 200,000 are kept."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests: deque[Request] = deque(maxlen=_KEPT)

    def __iter__(self) -> Iterator[Request]:
        """Iterate over the requests there are now."""
        with self._lock:
            return iter(tuple(self._requests))

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, at: int) -> Request:
        with self._lock:
            return self._requests[at]

    def append(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)

    def clear(self) -> None:
        with self._lock:
            self._requests.clear()

    def count(self, path_suffix: str | None = None) -> int:
        """Count the requests, or those whose path ends like this, such as ``"klines"``."""
        return sum(path_suffix is None or item.path.endswith(path_suffix) for item in self)

    def weight(self) -> int:
        """Add up what the requests cost."""
        return sum(item.weight for item in self)
