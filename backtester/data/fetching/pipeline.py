"""The way of every request: plan, fetch, check, store, select.

`run` answers from the store alone when the store covers the question; it then
touches no exchange and imports no ccxt.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from backtester.data.candles import Answer, Revision, Series
from backtester.data.errors import (
    CorruptDatasetError,
    DataError,
    FetchWarning,
    NothingFetchedError,
    OptionError,
    RequestError,
    StorageError,
)
from backtester.data.events import CandlesRevised, Event, FetchFinished
from backtester.data.fetching.archives.plan import Source, deep_timeframes, reopened
from backtester.data.fetching.deriving import Derived, derive, held_by_shorter
from backtester.data.fetching.making import MADE_OF
from backtester.data.fetching.planning import missing, reachable_from
from backtester.data.fetching.request import FetchRequest, FetchResult, Tally
from backtester.data.fetching.symbols import SymbolBook
from backtester.data.home import Home
from backtester.data.model import Coverage, Interval, Served, Timeframe, counted, format_ms
from backtester.data.resampling import derived_note
from backtester.data.settings import venue
from backtester.data.storage.memo import in_passing
from backtester.data.storage.store import Dataset, SymbolSummary, grouped

__all__ = ["Task", "run"]

_log = logging.getLogger(__name__)

_PART = 20_000
"""Candles of one symbol that are looked at at once where none are handed out: some 1 MB."""
_CLOCK_TRUSTED_MS = 86_400_000
"""How long a reading of the exchange's clock may tell what "now" is without asking again."""


def run(
    request: FetchRequest, home: Home, on_event: Callable[[Event], None] | None = None
) -> FetchResult:
    """Answer a request, from the store as far as it covers it and else from the exchange.

    Raises
    ------
    RequestError
        The question cannot be asked like this.
    FetchError
        Nothing could be had of any symbol.
    """
    if on_event is not None and not callable(on_event):
        raise OptionError(f"on_event must be callable, not {on_event!r}")
    begun = time.monotonic()
    task = Task(request, home, on_event or (lambda _event: None))
    if not task.answered_by_store():
        request.check(_now_ms())
        from backtester.data.fetching import online

        online.answer(task)
    task.result.seconds = time.monotonic() - begun
    task.report()
    return task.result


@dataclass(slots=True)
class Task:
    """One request on its way through the pipeline."""

    request: FetchRequest
    home: Home
    on_event: Callable[[Event], None]
    names: dict[str, str] = field(default_factory=dict)
    """The unified symbol of each name asked for that was understood."""
    _asked: dict[str, str] = field(default_factory=dict)
    """The other way round."""
    stored: Dataset = field(init=False)
    """What the store holds, as far as this question needs it."""
    derived: dict[str, Derived] = field(default_factory=dict)
    """What shorter candles tell, where the question prefers them to fetching."""
    result: FetchResult = field(init=False)
    _begun_ms: int = field(init=False)
    _seen: Mapping[str, SymbolSummary] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._begun_ms = _now_ms()
        self.result = FetchResult(self.request, self.home.folder)
        self.stored = Dataset(self.request.key)

    # ------------------------------------------------------------------ plan

    def answered_by_store(self) -> bool:
        """Answer without the exchange if the store covers the question; tell whether it did."""
        request = self.request
        if request.include_forming or not request.use_cache:
            return False
        clock = self.home.cache.get_clock_offset(
            venue(request.key.exchange, request.exchange_config)
        )
        local_ms = _now_ms()
        now_ms = local_ms + (clock.offset_ms if clock else 0)
        known = False
        try:
            known = clock is not None and request.trusts(clock, local_ms, _CLOCK_TRUSTED_MS)
            # An old reading is good enough for what is past: that much a clock does not drift.
            if not (known or request.past(now_ms)) or not self._name_offline():
                return False
            wanted = self.wanted(now_ms)
        except RequestError:
            if known:
                raise
            return False  # by a clock that may be wrong; the exchange's decides
        self.read(wanted)
        if self.gaps(wanted):
            return False
        if self.result.storage_error is not None:
            self._mend()
        self.select(wanted)
        return True

    def _mend(self) -> None:
        """Set aside the damaged file beside which a journal has the answer, as is said then."""
        try:
            self.home.store.fold(self.request.key)
        except StorageError as error:
            self.result.storage_error = error

    def name(self, name: str, symbol: str) -> None:
        """Note which unified symbol a name means.

        Raises
        ------
        OptionError
            When another name asked for means the same.
        """
        other = self._asked.setdefault(symbol, name)
        if other != name:
            raise OptionError(f"{other!r} and {name!r} are the same symbol, {symbol}")
        self.names[name] = symbol

    def _name_offline(self) -> bool:
        """Understand every name by what is stored; tell whether that worked."""
        key, asked = self.request.key, self.request.symbols
        held = self._known(asked)
        if len(held) < len(asked):
            book = SymbolBook.of(self.home.cache.get_markets(key.exchange, key.market_type) or ())
            found = {name: name if name in held else book.find(name) for name in asked}
            held = self._known([symbol for symbol in found.values() if symbol is not None])
            if not all(symbol in held for symbol in found.values()):
                return False
            for name, symbol in found.items():
                assert symbol is not None, "it is held"
                self.name(name, symbol)
        else:
            for name in asked:
                self.name(name, name)
        return True

    def _known(self, symbols: Sequence[str]) -> set[str]:
        """Return those of `symbols` with stored data that may answer the request."""
        held = set(self._held(symbols))
        if self.request.prefer_resampling:
            rest = [symbol for symbol in symbols if symbol not in held]
            held |= held_by_shorter(self.home.store, self.request.key, rest)
        return held

    def _held(self, symbols: Sequence[str]) -> Mapping[str, SymbolSummary]:
        store, key = self.home.store, self.request.key
        try:
            self._seen = store.held(key, symbols)
        except CorruptDatasetError as damage:
            self.result.storage_error = damage
            self._seen = store.held(key, symbols, salvage=True)
        return self._seen

    def wanted(self, now_ms: int) -> dict[str, Interval]:
        """Resolve the dates by the exchange's clock: what is wanted of every unified symbol."""
        whole = self.request.resolve(now_ms)
        self.result.as_of_ms = now_ms
        self.result.interval = whole
        if not self.request.only_newer:
            return dict.fromkeys(self.names.values(), whole)
        wanted = {}
        held, self._seen = self._seen, {}  # as naming them has found it a moment ago
        if not all(symbol in held for symbol in self.names.values()):
            held = self._held(list(self.names.values()))
        for symbol in self.names.values():
            last = held[symbol].last_ms if symbol in held else None
            start = whole.start if last is None else last
            if start < whole.end:
                wanted[symbol] = Interval(start, whole.end)
        return wanted

    def read(self, wanted: Mapping[str, Interval]) -> None:
        """Read from the store what `wanted` and the result need of it."""
        store, key, symbols = self.home.store, self.request.key, list(self.names.values())
        within = None
        if self.counts:  # coverage comes whole with any
            within = Interval(0, 1)
        elif wanted and not self.request.only_newer:  # an update hands out all that is stored
            within = Interval(
                min(one.start for one in wanted.values()), max(one.end for one in wanted.values())
            )
        try:
            self.stored = store.read(key, symbols, within=within)
        except CorruptDatasetError as damage:
            # What it held is asked for again, and the file is set aside when that is stored.
            self.result.storage_error = damage
            self.stored = store.read(key, symbols, within=within, salvage=True)
        if self.request.prefer_resampling:
            self.derived, unreadable = derive(store, key, wanted)
            for one in unreadable:
                _warn(f"{one}; no candles are built from it")

    def gaps(self, wanted: Mapping[str, Interval]) -> dict[str, list[Interval]]:
        """Return, per unified symbol, which parts of `wanted` to request."""
        use_cache = self.request.use_cache
        covered = {s: self.known(s).coverage if use_cache else Coverage() for s in wanted}
        if self.request.all_columns:
            covered = {symbol: self._told(symbol, one) for symbol, one in covered.items()}
        for symbol, made in self.derived.items():
            covered[symbol] = covered[symbol].add(made.series.coverage)
        if use_cache:
            covered = {s: self._reopened(coverage) for s, coverage in covered.items()}
        gaps = missing(wanted, covered)
        if self.request.only_newer:
            # Where something newer is asked for, the last stored candle is asked for again: one
            # that another program stored while it was forming is mended so.
            return {symbol: [wanted[symbol]] for symbol in gaps}
        return gaps

    def _reopened(self, coverage: Coverage) -> Coverage:
        """Return coverage without what archives may have that the API does not reach back to."""
        key, source = self.request.key, self.request.source
        if str(key.timeframe) not in deep_timeframes(key.exchange, key.market_type):
            return coverage
        if source is Source.API:
            return coverage
        again = reopened(coverage, _now_ms(), all_of_it=source is Source.ARCHIVE)
        return Coverage(
            tuple(
                replace(span, start=part.start, end=part.end)
                for span in coverage
                for part in span.interval.subtract(again)
            )
        )

    def _told(self, symbol: str, coverage: Coverage) -> Coverage:
        """Take out of a coverage the candles whose extra columns were not asked for yet."""
        key, table = self.request.key, self.known(symbol).candles
        from backtester.data.fetching.capabilities import capability_of

        row = capability_of(key.exchange, key.market_type)
        extras = [at for at, column in enumerate(row.extra_columns) if column is not None]
        untold = table.untold(extras)
        if row.depth is not None:  # what the API has let go of it cannot tell more about
            oldest = reachable_from(key.timeframe, self.result.as_of_ms, row.depth)
            untold = untold.take(untold.open_time >= oldest)
        for run in key.timeframe.runs(untold.open_time):
            coverage = coverage.remove(run)
        return coverage

    def inception(self, symbol: str) -> int | None:
        """Return the open time of the first candle, if the store knows it, UTC epoch milliseconds.

        It is of this timeframe: the first 1m candle may open hours after the first 1d one.
        """
        for span in self.known(symbol).coverage:
            if span.served is Served.NOT_LISTED and span.start == 0:
                return span.end
        return None

    # ------------------------------------------------------------------ select

    @property
    def counts(self) -> bool:
        """Whether the candles are counted in the store, and not handed out."""
        asked = self.request
        return asked.account_only and not (asked.prefer_resampling or asked.all_columns)

    def select(self, wanted: Mapping[str, Interval]) -> None:
        """Put what is stored of `wanted` into the result, under the names asked for."""
        if self.counts:
            self._count(wanted)
            return
        for name in self.request.symbols:
            symbol = self.names.get(name)
            if symbol is None or name in self.result.failures:
                continue
            series = self.known(symbol)
            if symbol in self.derived:
                self._note_derived(name, self.derived[symbol], series, wanted[symbol])
                series = self.derived[symbol].beside(series, wanted[symbol])
            elif not self.request.only_newer:  # an update hands out all that is stored
                series = series.within(wanted[symbol])
            self.result.series[name] = series
            times = series.candles.open_time
            if len(times):
                self._note_made(name, int(times[0]), int(times[-1]))

    def _note_made(self, name: str, first_ms: int, last_ms: int) -> None:
        """Say so where the exchange has no candles of this length, and these were made."""
        source = self.stored.metadata.get(MADE_OF)
        if source is not None:
            end = self.request.key.timeframe.next(last_ms)
            note = derived_note(Timeframe.parse(source), first_ms, end)
            self.result.derived.setdefault(name, []).append(note)

    def _count(self, wanted: Mapping[str, Interval]) -> None:
        """Put into the result how much is stored of `wanted`, looking at a part at a time."""
        result, timeframe = self.result, self.request.key.timeframe
        held = self._held(list(self.names.values())) if self.request.only_newer else {}
        for name in self.request.symbols:
            symbol = self.names.get(name)
            if symbol is None or name in result.failures or result.interval is None:
                continue
            tally, series = Tally(), Series()
            for part in _parts(result.interval, timeframe):
                series = self._read_part(symbol, part)
                tally.add(series, timeframe, part)
            if symbol in held:  # an update accounts for all that is stored
                one = held[symbol]
                tally = Tally(one.candles, one.first_ms, one.last_ms, tally.absent)
            if tally.first_ms is not None and tally.last_ms is not None:
                self._note_made(name, tally.first_ms, tally.last_ms)
            result.tallies[name] = tally
            result.series[name] = Series(coverage=series.coverage)
            if symbol in wanted and result.requests:
                revised = tuple(self._revised(symbol, wanted[symbol]))
                result.revisions.update({name: revised} if revised else {})

    def _revised(self, symbol: str, interval: Interval) -> Iterator[Revision]:
        """Yield what was revised since the task began."""
        for part in _parts(interval, self.request.key.timeframe):
            for revision in self._read_part(symbol, part).revisions:
                if revision.new_asked_ms >= self._begun_ms:
                    yield revision

    def _read_part(self, symbol: str, part: Interval) -> Series:
        store, key = self.home.store, self.request.key
        with in_passing():
            try:
                found = store.read(key, [symbol], within=part)
            except CorruptDatasetError as damage:
                self.result.storage_error = damage
                found = store.read(key, [symbol], within=part, salvage=True)
        return found.series.get(symbol) or Series()

    def _note_derived(self, name: str, made: Derived, own: Series, wanted: Interval) -> None:
        if notes := made.notes(own, wanted):
            self.result.derived[name] = notes
        if differing := made.differing(own, wanted):
            self.result.differing[name] = differing

    def learn(self, answers: list[Answer], made_of: Timeframe | None = None) -> None:
        """Merge fresh answers into what is stored, noting what they revised.

        Parameters
        ----------
        answers : list of Answer
        made_of : Timeframe, optional
            Of which shorter candles theirs were made, see `making`.
        """
        before, self.stored = self.stored, self.stored.with_answers(answers)
        if made_of is not None:
            notes = {**self.stored.metadata, MADE_OF: str(made_of)}
            self.stored = Dataset(self.stored.key, self.stored.series, notes)
        for symbol in grouped(answers):
            known = before.series.get(symbol, Series()).revisions
            revised = self.stored.series[symbol].revisions[len(known) :]
            if revised:
                self.result.revisions[self.asked_name(symbol)] = revised

    def known(self, symbol: str) -> Series:
        """Return what is known about a symbol, as far as the request needs it."""
        return self.stored.series.get(symbol) or Series()

    def asked_name(self, symbol: str) -> str:
        """Return the name by which a unified symbol was requested."""
        return self._asked[symbol]

    # ------------------------------------------------------------------ report

    def report(self) -> None:
        """Say what happened: by event, by log line, and by warning where it was not as asked.

        Raises
        ------
        FetchError, RequestError
            When nothing came of any symbol.
        """
        result, key = self.result, self.request.key
        candles = sum(map(result.candles_of, result.series))
        self.on_event(FetchFinished(result.requests, candles, result.seconds))
        _log.info(
            "%s: %s of %s, %s, %.3f s",
            key, counted(candles, "candle"), counted(len(result.series), "symbol"),
            counted(result.requests, "request"), result.seconds,
        )  # fmt: skip
        for name, revised in result.revisions.items():
            self.on_event(CandlesRevised(name, len(revised)))
            _log.warning("%s %s: the exchange revised %d stored candles", key, name, len(revised))
        for name, differing in result.differing.items():
            _log.warning(
                "%s %s: %d of the exchange's candles differ from the sum of its shorter ones, the "
                "first at %s; the exchange's own are returned",
                key, name, len(differing), format_ms(differing[0]["open_ms"]),
            )  # fmt: skip
        if result.failures and not result.series:
            raise _all_failed(result) from next(iter(result.failures.values()))
        if result.failures:
            _warn(
                f"{len(result.failures)} of {len(self.request.symbols)} symbols failed: "
                + "; ".join(f"{name}: {error}" for name, error in result.failures.items())
            )
        for name, series in result.series.items():
            if not result.candles_of(name) and result.interval is not None:
                reasons = result.tally_of(name).absent
                words = ", ".join(sorted(reason.replace("_", " ") for reason in reasons))
                _warn(f"{name} has no candles in {result.interval}: {words}")
            self._tell_depth(name, series)
        if result.storage_error is not None:
            _warn(_storage_sentence(result.storage_error))

    def _tell_depth(self, name: str, series: Series) -> None:
        """Warn where the exchange's API does not reach back as far as was asked."""
        cut = [span.end for span in series.coverage if span.served is Served.BEYOND_DEPTH]
        if not cut:
            return
        key = self.request.key
        from backtester.data.fetching.capabilities import capability_of

        archive = capability_of(key.exchange, key.market_type).archive
        reach = f"only reaches back to {format_ms(max(cut))}"
        if (asked := self.result.interval) is not None and max(cut) >= asked.end:
            reach = f"does not reach back to {asked}"
        _warn(
            f"{name}: {key.exchange}'s API {reach} for {key.timeframe} candles"
            + (f"; older ones: {archive}" if archive else "")
        )


def _parts(interval: Interval, timeframe: Timeframe) -> Iterator[Interval]:
    """Cut an interval into parts of so many grid times that a table of one is small."""
    start = interval.start
    while start < interval.end:
        end = min(timeframe.next(start, _PART), interval.end)
        yield Interval(start, end)
        start = end


def _storage_sentence(error: StorageError) -> str:
    if isinstance(error, CorruptDatasetError):
        return (
            f"{error}; it is set aside, and only what this request needs is fetched again "
            "(`vbt-data verify --repair`, run before any fetch, fetches all of it again)"
        )
    return f"the data is complete but could not be stored: {error}"


def _all_failed(result: FetchResult) -> DataError:
    """Return the error of a request without results: of its own kind, if there is only one kind.

    It carries the account, since there is no result to ask for it.
    """
    errors = list(result.failures.values())
    message = str(errors[0])
    if len(errors) > 1:
        listed = "; ".join(f"{name}: {error}" for name, error in result.failures.items())
        message = f"all {len(errors)} symbols failed: {listed}"
    kinds = {type(error) for error in errors}
    kind = kinds.pop() if len(kinds) == 1 else NothingFetchedError
    facts = {**errors[0].facts} if kind is not NothingFetchedError else {}
    told = {"failures": dict(result.failures), "account": result.account()}
    return kind(message, **{**facts, **told})


def _warn(message: str) -> None:
    _log.warning("%s", message)
    warnings.warn(message, FetchWarning, stacklevel=_frames_to_the_caller())


def _frames_to_the_caller() -> int:
    """Count the frames from `_warn` up to the first outside this package: who asked."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        "backtester."
    ):
        frame, depth = frame.f_back, depth + 1
    return depth


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
