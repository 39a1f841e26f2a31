"""Random histories against the exchange: whatever happened before, every answer is the truth."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backtester.data.candles import Candles, Series
from backtester.data.errors import (
    CorruptDatasetError,
    DataError,
    EmptyIntervalError,
    NotServedError,
)
from backtester.data.events import Event, PageFetched
from backtester.data.fetching import retries
from backtester.data.model import Interval, Served, Timeframe
from backtester.data.sandbox import Fault, SandboxServer
from backtester.data.sandbox.faults import Rule
from backtester.data.storage.data_storage import DataStorage
from tests.support.world import HOUR, MARKET, MINUTE, Asked, Clock, World, ms, truth

SYMBOLS = ("BTC/USDT", "NOT/USDT", "WAVES/USDT")
"""An old one; one listed 2024-05-16; one delisted 2024-06-17, while histories are played."""
TIMEFRAMES = ("5m", "4h")
BEGINNING = {"5m": ms("2024-06-08"), "4h": ms("2024-05-10")}
"""The 5m histories hold the outage of 2024-06-10, the 4h ones the listing."""
STEP = {"5m": 6 * HOUR, "4h": 36 * HOUR}
FAULTS = (
    Fault.HTTP_503, Fault.RESET, Fault.CUT_BODY, Fault.CUT_JSON, Fault.HTML, Fault.EMPTY_BODY,
    Fault.EMPTY_LIST, Fault.DUPLICATE_ROWS, Fault.SHUFFLED_ROWS, Fault.NULL_FIELD,
    Fault.OFF_GRID_ROW, Fault.OUT_OF_WINDOW_ROWS, Fault.BROKEN_OHLC_ROW, Fault.SHORT_PAGE,
)  # fmt: skip

some_symbols = st.lists(st.sampled_from(SYMBOLS), min_size=1, unique=True)
a_timeframe = st.sampled_from(TIMEFRAMES)


class Stop(Exception):  # noqa: N818 - no error, an end
    """What a hook raises to end a fetch as a kill would, as far as one process can play it."""


class Histories(RuleBasedStateMachine):
    """Plays what users, exchanges and disks do, and compares every answer with the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="histories-"))
        self.clock = Clock(ms("2024-06-16T12:34:56"))
        self.patch = pytest.MonkeyPatch()
        self.patch.setenv("BACKTESTER_STATE_DIR", str(self.home / "state"))
        self.patch.setattr(time, "time_ns", lambda: self.clock() * 1_000_000)
        self.patch.setattr(retries, "_wait", lambda _attempt, _error: 0.0)
        server = SandboxServer(MARKET, clock=self.clock).start()
        self.world = World(
            server,
            self.clock,
            self.home / "data",
            config={"sandboxUrl": server.url, "verify": False},
        )
        self.fault: Rule | None = None
        self.damaged: set[str] = set()
        self.shunned: set[str] = set()
        """Symbols that once showed no candle: left alone for an hour, and said to be."""
        self.versions: dict[tuple[str, str, int], list[tuple[float, ...]]] = {}
        """The values a candle has had, the exchange's present ones last."""

    def teardown(self) -> None:
        self.world.server.stop()
        self.world.new_process()
        self.patch.undo()
        shutil.rmtree(self.home)

    # -------------------------------------------------------------- what users do

    @rule(
        symbols=some_symbols,
        timeframe=a_timeframe,
        first=st.integers(0, 30),
        count=st.integers(1, 12),
        use_cache=st.sampled_from([True, True, True, False]),
    )
    def fetch(
        self, symbols: list[str], timeframe: str, first: int, count: int, use_cache: bool
    ) -> None:
        start = BEGINNING[timeframe] + first * STEP[timeframe]
        end = min(start + count * STEP[timeframe], self.clock())
        if start < end:
            self.ask(symbols, timeframe, start, end, use_cache=use_cache)

    @rule(symbols=some_symbols, timeframe=a_timeframe, days=st.integers(1, 5))
    def fetch_up_to_now(self, symbols: list[str], timeframe: str, days: int) -> None:
        self.ask(symbols, timeframe, f"{days} days ago", None)

    @rule(timeframe=a_timeframe)
    def update(self, timeframe: str) -> None:
        if timeframe in self.damaged:
            return
        stored = self.stored(timeframe)
        names = [symbol for symbol, one in stored.items() if len(one.candles)]
        if not names:
            return
        asked = self.try_to_ask(names, timeframe, None, None, only_newer=True)
        if asked is None:
            return
        unit = Timeframe.parse(timeframe)
        for name, series in asked.result.series.items():
            since = int(stored[name].candles.open_time[-1])
            rest = series.candles.within(Interval(since, max(unit.floor(self.clock()), since + 1)))
            self.check(rest, name, timeframe, since, self.clock(), exact=False)

    @rule(symbol=st.sampled_from(SYMBOLS), timeframe=a_timeframe)
    def delete(self, symbol: str, timeframe: str) -> None:
        if timeframe not in self.damaged:
            self.world.home.store.delete(self.world.key(timeframe), [symbol])

    @rule(timeframe=a_timeframe)
    def save_what_was_loaded(self, timeframe: str) -> None:
        if timeframe in self.damaged:
            return
        before = self.stored(timeframe)
        frames = {
            symbol: pd.DataFrame(
                one.candles.values,
                index=pd.to_datetime(one.candles.open_time, unit="ms", utc=True),
                columns=["Open", "High", "Low", "Close", "Volume"],
            )
            for symbol, one in before.items()
            if len(one.candles)
        }
        if frames:
            DataStorage(self.world.folder).save_data(frames, "sandbox", timeframe)
        after = self.stored(timeframe)
        assert after.keys() == before.keys()
        for symbol, one in before.items():
            assert after[symbol].candles == one.candles

    @rule(symbols=some_symbols, timeframe=a_timeframe, pages=st.integers(1, 3))
    def be_killed(self, symbols: list[str], timeframe: str, pages: int) -> None:
        left = [pages]

        def hook(event: Event) -> None:
            left[0] -= isinstance(event, PageFetched)
            if left[0] <= 0:
                raise Stop

        start = BEGINNING[timeframe]
        try:
            self.try_to_ask(symbols, timeframe, start, None, on_event=hook)
        except Stop:
            self.world.new_process()

    @rule()
    def be_another_process(self) -> None:
        self.world.new_process()

    # -------------------------------------------------------------- what happens to them

    @rule(minutes=st.sampled_from([1, 7, 55, 300, 1500]))
    def time_passes(self, minutes: int) -> None:
        self.clock.now_ms += minutes * MINUTE

    @rule(fault=st.sampled_from(FAULTS), times=st.integers(1, 3))
    def something_goes_wrong(self, fault: Fault, times: int) -> None:
        self.mend()
        # Two pages in a row cut short by chance are more than the design guards against.
        times = 1 if fault is Fault.SHORT_PAGE else times
        self.fault = self.world.faults.add(fault, match="klines", times=times)

    @precondition(lambda self: self.fault is not None)
    @rule()
    def mend(self) -> None:
        if self.fault is not None:
            self.world.faults.remove(self.fault)
            self.fault = None

    @rule(
        timeframe=a_timeframe,
        where=st.floats(0, 1, exclude_max=True),
        cut=st.booleans(),
    )
    def a_file_is_damaged(self, timeframe: str, where: float, cut: bool) -> None:
        path = self.world.folder / f"sandbox_spot_{timeframe}.pickle.blosc"
        if not path.exists() or timeframe in self.damaged:
            return
        content = path.read_bytes()
        at = int(where * len(content))
        altered = content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]
        path.write_bytes(content[:at] if cut else altered)
        self.damaged.add(timeframe)
        with pytest.raises(CorruptDatasetError):
            self.world.home.store.read(self.world.key(timeframe))

    @rule(
        symbol=st.sampled_from(SYMBOLS), timeframe=a_timeframe, ago=st.integers(3, 40),
        factor=st.sampled_from([1.5, 2.0, 3.0]),
    )  # fmt: skip
    def the_exchange_changes_its_mind(
        self, symbol: str, timeframe: str, ago: int, factor: float
    ) -> None:
        unit = Timeframe.parse(timeframe)
        at = unit.next(unit.floor(self.clock()), -ago)
        was = truth(symbol, timeframe, at, at + 1, self.clock())
        if not len(was):
            return
        values = [float(value) for value in was.values[0]]
        values[1] *= factor
        self.world.faults.revise(symbol, timeframe, at, values)
        versions = self.versions.setdefault(
            (symbol, timeframe, at), [tuple(was.values[0].tolist())]
        )
        versions.append(tuple(values))

    # -------------------------------------------------------------- what must hold

    @invariant()
    def the_store_holds_the_truth_and_knows_what_it_holds(self) -> None:
        for timeframe in TIMEFRAMES:
            if timeframe in self.damaged:
                continue
            for symbol, series in self.stored(timeframe).items():
                times = series.candles.open_time
                if len(times):
                    self.check(series.candles, symbol, timeframe, int(times[0]),
                               int(times[-1]) + 1, exact=False, subset=True)  # fmt: skip
                self.check_coverage(series, symbol, timeframe)

    def check_coverage(self, series: Series, symbol: str, timeframe: str) -> None:
        """Check that what counts as answered is answered by what is there."""
        for span in series.coverage:
            if span.served is Served.GIVEN:
                continue
            expected = truth(symbol, timeframe, span.start, span.end, self.clock())
            found = series.candles.within(span.interval).open_time
            assert found.tolist() == expected.open_time.tolist(), (symbol, timeframe, span)

    def stored(self, timeframe: str) -> dict[str, Series]:
        return dict(self.world.home.store.read(self.world.key(timeframe)).series)

    def ask(self, symbols: list[str], timeframe: str, start: Any, end: Any, **options: Any) -> None:
        """Ask, compare with the truth, and ask again: that must cost nothing."""
        asked = self.try_to_ask(symbols, timeframe, start, end, **options)
        if asked is None:
            return
        whole = asked.result.interval
        assert whole is not None
        for name in asked.result.series:
            self.check(
                asked[name], name, timeframe, whole.start, whole.end,
                exact=not options.get("use_cache", True),
            )  # fmt: skip
        if not asked.result.failures and not asked.result.storage_error:
            again = self.world.ask(symbols, timeframe, start, end, warns="")
            assert again.requests == [] or self.is_too_fresh_to_be_absent(asked, timeframe)
            for name in symbols:
                assert again[name] == asked[name]

    def is_too_fresh_to_be_absent(self, asked: Asked, timeframe: str) -> bool:
        """Tell whether a candle was missing so soon after its close that it may yet come."""
        unit = Timeframe.parse(timeframe)
        settled, whole = unit.floor(self.clock() - MINUTE), asked.result.interval
        assert whole is not None
        return settled < whole.end and any(
            not len(one.candles) or one.candles.open_time[-1] < settled
            for one in asked.result.series.values()
        )

    def try_to_ask(
        self, symbols: list[str], timeframe: str, start: Any, end: Any, **options: Any
    ) -> Asked | None:
        """Ask; None when nothing came, for which there must be a reason."""
        broken = self.fault is not None and self.fault.times != self.fault.fired
        failures: dict[str, DataError]
        try:
            asked = self.world.ask(symbols, timeframe, start, end, warns="", **options)
        except EmptyIntervalError:
            return None
        except DataError as error:
            asked, failures = None, error.failures
        else:
            failures = asked.result.failures
        for name, failure in failures.items():
            if isinstance(failure, NotServedError):
                assert broken or name in self.shunned, failure
                self.shunned.add(name)
            else:
                assert broken, failure
        if asked is not None and asked.result.storage_error is not None:
            assert timeframe in self.damaged
            self.damaged.discard(timeframe)
            again = self.world.folder / f"sandbox_spot_{timeframe}.pickle.blosc.damaged-1"
            assert again.exists(), "it was not set aside"
        elif asked is not None:
            assert timeframe not in self.damaged, "damage was not noticed"
        return asked

    def check(
        self, found: Candles, symbol: str, timeframe: str, start: int, end: int, *,
        exact: bool, subset: bool = False,
    ) -> None:  # fmt: skip
        """Compare candles with the truth, any version of a revised one counting unless `exact`."""
        expected = truth(symbol, timeframe, start, end, self.clock())
        if subset:
            kept = np.isin(expected.open_time, found.open_time)
            expected = expected.take(kept)
        assert found.open_time.tolist() == expected.open_time.tolist(), (symbol, timeframe)
        differ = np.flatnonzero((found.values != expected.values).any(axis=1))
        for row in differ:
            versions = self.versions[symbol, timeframe, int(found.open_time[row])]
            assert tuple(found.values[row].tolist()) in (versions[-1:] if exact else versions)
        if exact:
            for (name, unit, at), versions in self.versions.items():
                if (name, unit) == (symbol, timeframe) and at in found.open_time:
                    row = int(np.searchsorted(found.open_time, at))
                    assert tuple(found.values[row].tolist()) == versions[-1]


Histories.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestHistories = Histories.TestCase
