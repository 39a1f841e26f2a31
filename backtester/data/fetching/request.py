"""A request and its result, as they travel through the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtester.data.candles import Candles, Revision, Series, overlay
from backtester.data.dates import INCEPTION, is_absolute, parse_date
from backtester.data.errors import (
    DataError,
    DateError,
    EmptyIntervalError,
    OptionError,
    StorageError,
)
from backtester.data.fetching.archives.plan import Source
from backtester.data.fetching.planning import closed_end
from backtester.data.model import DatasetKey, Interval, Timeframe, format_ms

if TYPE_CHECKING:
    from backtester.data.cache_system.cache_manager import ClockOffset

__all__ = ["DEFAULT_CANDLES", "SETTLE_MS", "FetchRequest", "FetchResult", "describe", "wants_all"]

DEFAULT_CANDLES = 1000
"""How many closed candles a request without a start asks for."""
SETTLE_MS = 2_000
"""How long after its close a candle counts as closed: exchanges publish a moment late."""
_DAY_MS = 86_400_000
_SHARED_MS = 1_000
"""How long updates share a reading of the exchange's clock."""


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """One request, as it was made."""

    key: DatasetKey
    symbols: tuple[str, ...]
    """As the caller wrote them; the result uses the same names."""
    start: Any = None
    """See `dates.DateLike`; None for the last 1000 closed candles, or ``"inception"``."""
    end: Any = None
    """Exclusive; None for now."""
    use_cache: bool = True
    """Whether stored candles may be used. What is fetched is stored in any case."""
    include_forming: bool = False
    exchange_config: Mapping[str, Any] | None = None
    only_newer: bool = False
    """Fetch only from each symbol's last stored candle on, including that one."""
    source: Source = Source.AUTO
    """Whether archives may be used in place of the API."""
    prefer_resampling: bool = False
    """Whether candles may be built from stored shorter ones instead of being fetched."""
    account_only: bool = False
    """Whether to store and count the candles without returning tables, so that memory does not grow
    with the range. Has no effect with `prefer_resampling` and `all_columns`, which need tables."""
    all_columns: bool = False
    """Whether to fetch and return all columns that the exchange provides."""

    def __post_init__(self) -> None:
        if self.prefer_resampling and not self.use_cache:
            raise OptionError(
                "prefer_resampling builds candles from stored ones, and use_cache=False requests "
                "all of them from the exchange: they exclude each other"
            )
        if self.prefer_resampling and self.all_columns:
            raise OptionError(
                "resampled candles have no extra columns: prefer_resampling and columns='all' "
                "exclude each other"
            )

    @property
    def dated(self) -> bool:
        """Whether the request does not depend on the current time."""
        return is_absolute(self.start) and is_absolute(self.end)

    def trusts(self, reading: ClockOffset, local_ms: int, usual_ms: int) -> bool:
        """Return whether an earlier reading of the exchange's clock tells what "now" is.

        Usually that depends on its age. Whoever asks for what is new, or for everything again,
        means now; but updates of several datasets in a row share a reading. A replay's clock may
        have been set forward since: an end that lies after it, or an update, reads it again.

        Parameters
        ----------
        reading : ClockOffset
        local_ms : int
            This machine's clock, UTC epoch milliseconds.
        usual_ms : int
            How long a reading is good for.
        """
        renewing = (self.only_newer or not self.use_cache) and not self.dated
        ahead = self.dated and not self.past(local_ms + reading.offset_ms)
        if reading.of_replay and (renewing or ahead):
            return False
        good_for_ms = _SHARED_MS if renewing else usual_ms
        return 0 <= local_ms - reading.measured_ms < good_for_ms

    def past(self, now_ms: int) -> bool:
        """Whether the request is the same at any time from `now_ms` on, UTC epoch milliseconds."""
        return self.dated and self._end(now_ms) <= now_ms

    def resolve(self, now_ms: int) -> Interval:
        """Return the interval of closed candles asked for, on the timeframe's grid.

        Parameters
        ----------
        now_ms : int
            The exchange's clock, UTC epoch milliseconds.

        Raises
        ------
        DateError
            A date cannot be read, or is in the future. An end up to a day ahead counts as "until
            now", for those who write tomorrow's midnight.
        EmptyIntervalError
            The start is not before the end, or no closed candle opens between them.
        """
        timeframe = self.key.timeframe
        start, end = self._start(now_ms), self._end(now_ms)
        if end > now_ms + _DAY_MS:
            raise _future("end_date", end, now_ms)
        grid_end = min(timeframe.ceil(end), closed_end(timeframe, now_ms, SETTLE_MS))
        if start is None:
            earliest = timeframe.ceil(0)  # on the grid: weeks do not begin with the epoch
            return Interval(max(timeframe.next(grid_end, -DEFAULT_CANDLES), earliest), grid_end)
        if start > now_ms:
            raise _future("start_date", start, now_ms)
        _require_order(start, end)
        if timeframe.ceil(start) >= grid_end:
            raise EmptyIntervalError(
                f"no closed {timeframe} candle opens between {format_ms(start)} and "
                f"{format_ms(end)}; the exchange's clock says {format_ms(now_ms)}",
                start=start,
                end=end,
            )
        return Interval(timeframe.ceil(start), grid_end)

    def forming(self, now_ms: int) -> int | None:
        """Return the open time of the candle asked for that has not closed, UTC epoch milliseconds.

        While one candle settles and the next has begun, this is the earlier one, so that there is
        no gap. None if the request ends before it.
        """
        open_time = closed_end(self.key.timeframe, now_ms, SETTLE_MS)
        return open_time if self._end(now_ms) > open_time else None

    def check(self, now_ms: int) -> None:
        """Reject what is wrong regardless of the exchange's clock, before asking for that.

        Parameters
        ----------
        now_ms : int
            This machine's clock, UTC epoch milliseconds.

        Raises
        ------
        DateError
            A date cannot be read.
        EmptyIntervalError
            The start is not before the end.
        """
        start, end = self._start(now_ms), self._end(now_ms)
        if self.dated and start is not None:
            _require_order(start, end)

    def _start(self, now_ms: int) -> int | None:
        if self.start is None:
            return None
        if isinstance(self.start, str) and self.start.strip().lower() == INCEPTION:
            return 0
        return parse_date(self.start, now_ms=now_ms, param="start_date")

    def _end(self, now_ms: int) -> int:
        if self.end is None:
            return now_ms
        return parse_date(self.end, now_ms=now_ms, param="end_date")


@dataclass(slots=True)
class Tally:
    """Counts for one symbol; adds up over neighbouring intervals, in order."""

    candles: int = 0
    first_ms: int | None = None
    """Open time of the first candle, UTC epoch milliseconds; None without candles."""
    last_ms: int | None = None
    absent: dict[str, int] = field(default_factory=dict)
    """Number of candle times confirmed absent or never asked for, by state."""

    def add(self, series: Series, timeframe: Timeframe, interval: Interval | None) -> None:
        """Count the candles of a series, and what is absent of an interval."""
        times = series.candles.open_time
        self.candles += len(times)
        if len(times):
            self.first_ms = int(times[0]) if self.first_ms is None else self.first_ms
            self.last_ms = int(times[-1])
        for part, state in series.states(timeframe, interval) if interval else ():
            if state != "present":
                self.absent[state] = self.absent.get(state, 0) + timeframe.steps(part)


@dataclass(slots=True)
class FetchResult:
    """The result of a request, by the symbol names that were asked for."""

    request: FetchRequest
    folder: Path
    """The data directory."""
    interval: Interval | None = None
    """The interval asked for, on the grid; None until it is known."""
    series: dict[str, Series] = field(default_factory=dict)
    """Trimmed to `interval`, in the order asked; with no candles if only the account is wanted."""
    tallies: dict[str, Tally] = field(default_factory=dict)
    """Counts by symbol, under `account_only`."""
    failures: dict[str, DataError] = field(default_factory=dict)
    revisions: dict[str, tuple[Revision, ...]] = field(default_factory=dict)
    """Stored candles that the exchange changed."""
    derived: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What was built from stored shorter candles; see `resampling.derived_note`."""
    differing: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The exchange's own candles that differ from their parts; see `deriving.Derived`."""
    forming: dict[str, Candles] = field(default_factory=dict)
    requests: int = 0
    """Requests sent to the exchange, of any kind."""
    archives: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Which archive files are in the answer, and why others are not: ``used``, a list of names, and
    ``refused``, reasons by name. No entry for a symbol of which none were asked for."""
    as_of_ms: int = 0
    """The exchange's clock when the question was resolved, UTC epoch milliseconds."""
    seconds: float = 0.0
    storage_error: StorageError | None = None
    """Why storing the result, or reading the store, failed."""

    @property
    def complete(self) -> bool:
        """Whether everything was fetched and stored."""
        return not self.failures and self.storage_error is None

    def tables(self) -> dict[str, Candles]:
        """Return the candles by name, with the forming one where it was asked for."""
        tables = {
            name: overlay(one.candles, self.forming[name]) if name in self.forming else one.candles
            for name, one in self.series.items()
        }
        if self.request.all_columns:
            return tables
        return {name: table.plain() for name, table in tables.items()}

    def metadata(self) -> dict[str, Any]:
        """Return what travels with the VectorBT object: plain values, times in UTC milliseconds."""
        key = self.request.key
        return {
            "exchange": key.exchange,
            "market_type": key.market_type.value,
            "timeframe": str(key.timeframe),
            "as_of_ms": self.as_of_ms,
            "requests": self.requests,
            "failures": {name: describe(error) for name, error in self.failures.items()},
            "revisions": {name: _plain(found) for name, found in self.revisions.items()},
            "derived": {name: list(notes) for name, notes in self.derived.items()},
            "differing": {name: list(found) for name, found in self.differing.items()},
            "forming": {n: int(t.open_time[-1]) for n, t in self.forming.items() if len(t)},
        }

    def account(self) -> dict[str, Any]:
        """Return the machine-readable account: what was asked, got, absent and failed.

        Returns
        -------
        dict
            Plain values only. Per symbol ``candles``, ``first_ms``, ``last_ms`` and ``absent``
            (candles confirmed absent, by reason); times are UTC epoch milliseconds.
        """
        key, interval = self.request.key, self.interval
        return {
            "exchange": key.exchange,
            "market_type": key.market_type.value,
            "timeframe": str(key.timeframe),
            "start_ms": interval.start if interval else None,
            "end_ms": interval.end if interval else None,
            "as_of_ms": self.as_of_ms,
            "requests": self.requests,
            "seconds": round(self.seconds, 3),
            "symbols": {name: asdict(self.tally_of(name)) for name in self.series},
            "failures": {name: describe(error) for name, error in self.failures.items()},
            "revisions": {name: len(found) for name, found in self.revisions.items()},
            "archives": self.archives,
            "derived": {name: list(notes) for name, notes in self.derived.items()},
            "differing": {name: len(found) for name, found in self.differing.items()},
            "storage_error": describe(self.storage_error) if self.storage_error else None,
        }

    def tally_of(self, name: str) -> Tally:
        """Count what there is of one symbol."""
        tally = self.tallies.get(name)
        if tally is None:
            tally = Tally()
            tally.add(self.series[name], self.request.key.timeframe, self.interval)
        return tally

    def candles_of(self, name: str) -> int:
        """Return how many candles there are of one symbol."""
        counted = self.tallies.get(name)
        return len(self.series[name].candles) if counted is None else counted.candles


def wants_all(columns: str) -> bool:
    """Read which columns are wanted: ``'ohlcv'`` or ``'all'``.

    Raises
    ------
    OptionError
        Neither.
    """
    if columns not in ("ohlcv", "all"):
        raise OptionError(f"columns must be 'ohlcv' or 'all', not {columns!r}", value=columns)
    return columns == "all"


def describe(error: DataError) -> dict[str, str]:
    """Return an error in plain values: its type's name and its sentence."""
    return {"error": type(error).__name__, "message": str(error)}


def _plain(revisions: tuple[Revision, ...]) -> list[dict[str, Any]]:
    return [
        {
            "open_ms": r.open_time,
            "old": list(r.old),
            "new": list(r.new),
            "old_asked_ms": r.old_asked_ms,
            "new_asked_ms": r.new_asked_ms,
        }
        for r in revisions
    ]


def _require_order(start: int, end: int) -> None:
    if start >= end:
        raise EmptyIntervalError(
            f"start_date {format_ms(start)} is not before end_date {format_ms(end)}",
            start=start,
            end=end,
        )


def _future(param: str, ms: int, now_ms: int) -> DateError:
    return DateError(
        f"{param} {format_ms(ms)} is in the future; the exchange's clock says {format_ms(now_ms)}",
        param=param,
        value=ms,
    )
