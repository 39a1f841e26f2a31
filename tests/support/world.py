"""A whole world for one test: an exchange with a clock we set, a data directory, and the truth."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backtester.data import home as homes
from backtester.data.candles import Candles, Series
from backtester.data.errors import FetchWarning
from backtester.data.fetching import exchange as exchange_module
from backtester.data.fetching.pipeline import run
from backtester.data.fetching.request import FetchRequest, FetchResult
from backtester.data.home import Home, home_in
from backtester.data.model import DatasetKey, Interval, Timeframe
from backtester.data.sandbox import Fault, Faults, SandboxServer, SyntheticMarket
from backtester.data.sandbox.journal import Request
from backtester.data.storage import pickle_file, sqlite_dataset

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


def ms(text: str) -> int:
    """Read an ISO date as UTC epoch milliseconds, without the code under test."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOON = ms("2025-06-15T12:34:56")
"""Where clocks stand when a test says nothing: inside an hour, a minute, a day and a week."""

MARKET = SyntheticMarket()
"""The truth; every server of the tests trades it."""


@dataclass
class Clock:
    """A clock that stands where it is put: the exchange's and this machine's alike."""

    now_ms: int = NOON

    def __call__(self) -> int:
        return self.now_ms


@dataclass(frozen=True)
class Page:
    """One request for candles, as the exchange saw it."""

    id: str
    """The exchange's own name of the symbol."""
    start: int | None
    """UTC epoch milliseconds, inclusive."""
    end: int | None
    """UTC epoch milliseconds, exclusive."""
    limit: int

    @classmethod
    def of(cls, request: Request) -> Page:
        params = request.params
        start, end = params.get("startTime"), params.get("endTime")
        return cls(
            params["symbol"],
            None if start is None else int(start),
            None if end is None else int(end) + 1,
            int(params["limit"]),
        )


def pages_of(requests: Iterable[Request]) -> list[Page]:
    """Give the requests for candles among `requests`."""
    return [Page.of(request) for request in requests if request.path.endswith("/klines")]


@dataclass
class Asked:
    """A question put to the pipeline, its answer, and what the exchange saw of it."""

    result: FetchResult
    requests: list[Request]
    warnings: list[str] = field(default_factory=list)

    @property
    def pages(self) -> list[Page]:
        return pages_of(self.requests)

    def __getitem__(self, name: str) -> Candles:
        return self.result.tables()[name]


@dataclass
class World:
    """An exchange, a clock, a data directory and the truth."""

    server: SandboxServer
    clock: Clock
    folder: Path
    """The data directory."""
    exchange: str = "sandbox"
    config: Mapping[str, Any] = field(default_factory=dict)
    """Reaches the server, as `exchange_config`."""

    @property
    def faults(self) -> Faults:
        return self.server.faults

    @property
    def home(self) -> Home:
        return home_in(self.folder)

    def ask(
        self,
        symbols: str | Sequence[str],
        timeframe: str = "1h",
        start: Any = None,
        end: Any = None,
        *,
        market_type: str = "spot",
        warns: str | None = None,
        on_event: Any = None,
        **options: Any,
    ) -> Asked:
        """Put a question, and check that its account counts the requests that were sent.

        Parameters
        ----------
        warns : str, optional
            What the one warning must contain; without it there must be none.
        """
        before = len(self.server.requests)
        request = FetchRequest(
            self.key(timeframe, market_type),
            (symbols,) if isinstance(symbols, str) else tuple(symbols),
            start,
            end,
            exchange_config=options.pop("exchange_config", self.config),
            **options,
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("error")
            warnings.simplefilter("always", FetchWarning)
            try:
                result = run(request, self.home, on_event)
            except BaseException:
                self.wait_until_quiet()  # what was under way may still arrive
                raise
        asked = Asked(
            result, list(self.server.requests)[before:], [str(one.message) for one in caught]
        )
        if Fault.RESET not in {one.fault for one in asked.requests}:
            # After a reset the HTTP client itself asks once more.
            assert result.requests == len(asked.requests), "the account miscounts the requests"
        if warns is None:
            assert asked.warnings == []
        else:
            assert warns in " / ".join(asked.warnings)
        return asked

    def key(self, timeframe: str = "1h", market_type: str = "spot") -> DatasetKey:
        return DatasetKey.of(self.exchange, market_type, timeframe)

    def stored(self, symbol: str, timeframe: str = "1h", market_type: str = "spot") -> Series:
        """Give what the store holds of a symbol."""
        return self.home.store.read(self.key(timeframe, market_type)).series.get(symbol) or Series()

    def sent(self, since: int = 0) -> list[Request]:
        """Give the requests the exchange has seen, from the one numbered `since` on."""
        return list(self.server.requests)[since:]

    def wait_until_quiet(self) -> None:
        """Wait until requests that nobody waits for any more have arrived."""
        before, stable = -1, 0
        while stable < 3:
            time.sleep(0.02)
            stable = stable + 1 if before == len(self.server.requests) else 0
            before = len(self.server.requests)

    def new_process(self) -> None:
        """Forget what only lives in memory, as a new process would not know it."""
        self.home.cache.close()
        homes._home.cache_clear()
        for memo in (pickle_file._memo, sqlite_dataset._memo):
            memo.clear()
        pickle_file._sound.clear()
        if exchange_module._shared_ledger is not None:
            exchange_module._shared_ledger.close()
            exchange_module._shared_ledger = None

    def files(self) -> dict[str, bytes]:
        """Give the content of every file with candles; caches, locks and drafts are none."""
        return {
            path.name: path.read_bytes()
            for path in sorted(self.folder.glob("*"))
            if path.is_file()
            and not path.name.startswith((".", "cache.sqlite"))
            and not (path.name.endswith(("-wal", "-shm")) and not _waiting(path))
        }


def _waiting(path: Path) -> bool:
    """Tell whether SQLite's log has changes that are not in the file yet."""
    return path.name.endswith("-wal") and path.stat().st_size > 0


def truth(
    symbol: str, timeframe: str, start: str | int, end: str | int, now_ms: int = NOON
) -> Candles:
    """Give the closed candles there are, whoever asks."""
    unit = Timeframe.parse(timeframe)
    first = ms(start) if isinstance(start, str) else start
    last = ms(end) if isinstance(end, str) else end
    closed = unit.floor(now_ms - 2 * SECOND)
    return MARKET.candles(symbol, unit, Interval(first, min(last, closed)))


def same(found: Candles, expected: Candles) -> bool:
    """Compare two tables by every bit; on its own line in an assert it shows both sizes."""
    assert len(found) == len(expected)
    return found == expected


def is_part_of(found: Candles, expected: Candles) -> bool:
    """Tell whether every candle of `found` is, bit for bit, one of `expected`."""
    by_time = {
        int(time): row.tobytes()
        for time, row in zip(expected.open_time, expected.values, strict=True)
    }
    return all(
        by_time.get(int(time)) == row.tobytes()
        for time, row in zip(found.open_time, found.values, strict=True)
    )
