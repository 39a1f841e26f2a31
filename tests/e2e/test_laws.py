"""The ten laws of the design, each by value against the market's truth, requests counted."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import blosc2
import pytest

from backtester.data.candles import Candles
from backtester.data.errors import (
    AccessDeniedError,
    BadResponseError,
    BannedError,
    CorruptDatasetError,
    DataError,
    ExchangeUnavailableError,
    FetchWarning,
    NotServedError,
    RateLimitedError,
    UnknownSymbolError,
)
from backtester.data.events import Event, PageFetched, Retrying
from backtester.data.fetching.data_fetcher import fetch_data, load_data, update_data
from backtester.data.fetching.retries import ATTEMPTS
from backtester.data.home import home_in
from backtester.data.model import Coverage, Interval, Timeframe
from backtester.data.sandbox import Fault, SandboxServer, SyntheticMarket
from backtester.data.sandbox.source import Bars
from backtester.data.storage.data_storage import DataStorage
from tests.support import processes
from tests.support.world import (
    HOUR,
    MARKET,
    MINUTE,
    NOON,
    Clock,
    Page,
    World,
    is_part_of,
    ms,
    same,
    truth,
)

BTC, ETH = "BTC/USDT", "ETH/USDT"

CASES = [
    pytest.param("spot", "1m", BTC, "2019-05-14", "2019-05-16T06:00", id="outage"),
    pytest.param("spot", "1h", "ONDO/USDT", "2024-12-01", "2025-03-01", id="before-listing"),
    pytest.param("spot", "1h", "REP/USDT", "2022-09-01", "2022-12-01", id="delisted"),
    pytest.param("spot", "1m", "REP/USDT", "2021-03-01", "2021-03-02", id="minutes-without-trades"),
    pytest.param("spot", "1h", "VEN/BTC", "2019-01-01", "2019-02-01", id="long-delisted"),
    pytest.param("spot", "1w", BTC, "2024-01-03", "2025-06-11", id="weeks"),
    pytest.param("spot", "1M", ETH, "2019-01-15", "2025-06-01", id="months"),
    pytest.param("swap", "15m", "BTC/USDT:USDT", "2025-06-01", "2025-06-14", id="swap"),
]
"""Market type, timeframe, symbol, start, end: one of every kind of absence, and the calendar."""


def empty_warning(expected: Candles) -> str | None:
    return None if len(expected) else "has no candles"


class Stop(Exception):  # noqa: N818 - no error, an end
    """What a hook raises to end a fetch in the middle."""


def stop_after(pages: int, stop: type[BaseException] = Stop) -> Callable[[Event], None]:
    """Make an event hook that ends a fetch after some pages."""
    left = itertools.count(pages, -1)

    def hook(event: Event) -> None:
        if isinstance(event, PageFetched) and next(left) <= 1:
            raise stop

    return hook


# ------------------------------------------------------------------ 1. the answer is the market's


@pytest.mark.parametrize(("market_type", "timeframe", "symbol", "start", "end"), CASES)
def test_law_1_cold_warm_and_uncached_answers_are_the_truth(
    world: World, market_type: str, timeframe: str, symbol: str, start: str, end: str
) -> None:
    """The same question gives the market's own candles whatever the cache holds."""
    expected = truth(symbol, timeframe, start, end)
    told = {"market_type": market_type, "warns": empty_warning(expected)}
    cold = world.ask(symbol, timeframe, start, end, **told)
    warm = world.ask(symbol, timeframe, start, end, **told)
    world.new_process()
    reread = world.ask(symbol, timeframe, start, end, **told)
    uncached = world.ask(symbol, timeframe, start, end, use_cache=False, **told)
    for answer in (cold, warm, reread, uncached):
        assert same(answer[symbol], expected)
    assert [len(one.requests) for one in (warm, reread)] == [0, 0]
    assert uncached.pages, "use_cache=False must ask"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_law_1_any_order_of_earlier_requests_gives_the_same_answer(
    world: World, order: tuple[int, ...]
) -> None:
    """Pieces fetched in any order, overlapping or apart, add up to one cold answer."""
    pieces = [
        ("2025-01-29", "2025-02-03"),  # over the listing of ONDO
        ("2025-02-02", "2025-03-10"),  # overlaps the first
        ("2025-04-01", "2025-04-20"),  # leaves a hole before it
    ]
    for at in order:
        world.ask(["ONDO/USDT", BTC], "1h", *pieces[at])
    for dates in (("2025-01-20", "2025-05-01"), ("2025-02-02T05:00", "2025-03-01")):
        asked = world.ask(["ONDO/USDT", BTC], "1h", *dates)
        for symbol in ("ONDO/USDT", BTC):
            assert same(asked[symbol], truth(symbol, "1h", *dates))


@pytest.mark.parametrize("pages", [1, 3, 6])
def test_law_1_an_interrupted_fetch_leaves_nothing_that_changes_the_answer(
    world: World, pages: int
) -> None:
    """After a fetch broken off in the middle the same question is answered with the truth."""
    question = ([BTC, ETH], "1m", "2025-06-08", "2025-06-14")
    with pytest.raises(Stop):
        world.ask(*question, on_event=stop_after(pages))
    for symbol in (BTC, ETH):
        assert is_part_of(world.stored(symbol, "1m").candles, truth(symbol, "1m", *question[2:]))
    again = world.ask(*question)
    for symbol in (BTC, ETH):
        assert same(again[symbol], truth(symbol, "1m", "2025-06-08", "2025-06-14"))
    assert world.ask(*question).requests == []


def test_law_1_an_interrupt_in_a_hook_comes_out_as_itself(world: World) -> None:
    """A hook that is hit by Ctrl-C ends the fetch with that, and the next one is whole."""
    question = (BTC, "1m", "2025-06-08", "2025-06-12")
    with pytest.raises(KeyboardInterrupt):
        world.ask(*question, on_event=stop_after(2, KeyboardInterrupt))
    assert same(world.ask(*question)[BTC], truth(BTC, "1m", *question[2:]))


def test_law_1_a_failed_page_leaves_no_hole_in_later_answers(world: World) -> None:
    """One page that fails for good is asked again by the next request, and only that one."""
    lost = ms("2025-06-10T00:00")
    start = ms("2025-06-10T00:00") - 3 * 1000 * MINUTE
    end = start + 6 * 1000 * MINUTE
    rule = world.faults.add(
        Fault.HTTP_500, match=lambda call: call.params.get("startTime") == str(lost)
    )
    with pytest.raises(ExchangeUnavailableError):
        world.ask(BTC, "1m", start, end)
    world.faults.remove(rule)
    again = world.ask(BTC, "1m", start, end)
    assert same(again[BTC], truth(BTC, "1m", start, end))
    assert lost in {page.start for page in again.pages}
    assert len(again.pages) < 6, "pages that came before the failure are not asked again"


# ------------------------------------------------------------------ 2. nothing twice, nothing less


@pytest.mark.parametrize(("market_type", "timeframe", "symbol", "start", "end"), CASES)
def test_law_2_the_second_call_sends_nothing_even_in_a_new_process(
    world: World, market_type: str, timeframe: str, symbol: str, start: str, end: str
) -> None:
    """What has been answered is not asked again: outages, the unlisted and delisted included."""
    expected = truth(symbol, timeframe, start, end)
    told = {"market_type": market_type, "warns": empty_warning(expected)}
    world.ask(symbol, timeframe, start, end, **told)
    sent = len(world.sent())
    lengths = processes.python(
        world,
        f"""
import json, sys
found = ask([{symbol!r}], {timeframe!r}, {start!r}, {end!r}, {market_type!r})
assert "ccxt" not in sys.modules and "vectorbt" not in sys.modules
print(json.dumps([found.requests, len(found.series[{symbol!r}].candles)]))
""",
    )
    assert lengths == [0, len(expected)]
    assert world.sent(sent) == []


def test_law_2_relative_dates_are_answered_from_the_store_too(world: World) -> None:
    """A question about "now" is not asked twice before the next candle has closed."""
    for question in [(None, None), ("7 days ago", "now"), ("2025-06-01", None)]:
        world.ask(BTC, "1h", *question)
        assert world.ask(BTC, "1h", *question).requests == []
        sent = len(world.sent())
        code = f"print(len(ask([{BTC!r}], '1h', *{question!r}).series))"
        assert processes.python(world, code) == 1
        assert world.sent(sent) == []


@pytest.mark.parametrize(
    ("market_type", "names"),
    [
        ("spot", ["BTC/USDT", "BTCUSDT", "btc/usdt", "BTC-USDT", "BTC_USDT"]),
        ("swap", ["BTC/USDT:USDT", "BTC/USDT", "BTCUSDT"]),
    ],
)
def test_law_2_another_name_of_a_stored_symbol_sends_nothing(
    world: World, market_type: str, names: list[str]
) -> None:
    """A symbol is one symbol under any of its names, and comes back under the name asked for."""
    unified = names[0]
    expected = truth(unified, "1h", "2025-06-01", "2025-06-10")
    world.ask(names[1], "1h", "2025-06-01", "2025-06-10", market_type=market_type)
    for name in names:
        again = world.ask(name, "1h", "2025-06-01", "2025-06-10", market_type=market_type)
        assert same(again[name], expected)
        assert again.requests == []
    series = world.home.store.read(world.key("1h", market_type)).series
    assert list(series) == [unified]


def test_law_2_an_alias_in_a_new_process_sends_nothing(world: World) -> None:
    """The meaning of a name is remembered across processes."""
    world.ask(BTC, "1h", "2025-06-01", "2025-06-10")
    sent = len(world.sent())
    code = "print(ask(['BTCUSDT'], '1h', '2025-06-01', '2025-06-10').requests)"
    assert processes.python(world, code) == 0
    assert world.sent(sent) == []


def test_law_2_an_earlier_start_asks_only_for_the_earlier_part(world: World) -> None:
    """Back-filling asks exactly for what lies before what is stored."""
    world.ask(BTC, "1h", "2025-06-05", "2025-06-10")
    earlier = world.ask(BTC, "1h", "2025-06-01", "2025-06-10")
    assert len(earlier.requests) == 1
    assert earlier.pages == [Page("BTCUSDT", ms("2025-06-01"), ms("2025-06-05"), 96)]


def test_law_2_a_longer_end_asks_only_for_the_tail(world: World) -> None:
    """Extending asks exactly for what lies behind what is stored."""
    world.ask(BTC, "1h", "2025-06-05", "2025-06-10")
    later = world.ask(BTC, "1h", "2025-06-05", "2025-06-12")
    assert len(later.requests) == 1
    assert later.pages == [Page("BTCUSDT", ms("2025-06-10"), ms("2025-06-12"), 48)]


def test_law_2_a_hole_between_two_stored_stretches_is_asked_alone(world: World) -> None:
    """Of three stretches of which the outer two are stored, only the middle one is asked for."""
    world.ask(BTC, "1h", "2025-06-01", "2025-06-03")
    world.ask(BTC, "1h", "2025-06-08", "2025-06-10")
    whole = world.ask(BTC, "1h", "2025-06-01", "2025-06-10")
    assert whole.pages == [Page("BTCUSDT", ms("2025-06-03"), ms("2025-06-08"), 120)]
    assert same(whole[BTC], truth(BTC, "1h", "2025-06-01", "2025-06-10"))


def test_law_2_a_new_symbol_asks_only_for_that_symbol(world: World) -> None:
    """A third symbol beside two stored ones costs only its own candles."""
    world.ask([BTC, ETH], "1h", "2025-06-01", "2025-06-10")
    three = world.ask([BTC, ETH, "SOL/USDT"], "1h", "2025-06-01", "2025-06-10")
    assert len(three.requests) == 1
    assert three.pages == [Page("SOLUSDT", ms("2025-06-01"), ms("2025-06-10"), 216)]


def test_law_2_time_passing_asks_only_for_what_has_closed_since(world: World) -> None:
    """The same open question an hour later costs one candle."""
    world.ask(BTC, "1h", "2025-06-10")
    world.clock.now_ms += HOUR
    later = world.ask(BTC, "1h", "2025-06-10")
    assert later.pages == [Page("BTCUSDT", ms("2025-06-15T12:00"), ms("2025-06-15T13:00"), 1)]
    assert same(later[BTC], truth(BTC, "1h", "2025-06-10", "2025-07-01", world.clock()))


def test_law_2_inception_is_looked_for_once(world: World) -> None:
    """A market's beginning is found by asking, noted, and not looked for again."""
    first = world.ask("ONDO/USDT", "1d", "inception")
    assert same(first["ONDO/USDT"], truth("ONDO/USDT", "1d", 0, NOON))
    later = world.ask("ONDO/USDT", "1d", "2024-06-01")
    assert later.requests == []
    world.new_process()
    assert world.ask("ONDO/USDT", "1d", "inception").requests == []


# ------------------------------------------------------------------ 3. only closed candles


@pytest.mark.parametrize("ahead_ms", [-300_000, 300_000, 26 * HOUR, 400 * 24 * HOUR])
def test_law_3_a_machine_whose_clock_is_set_asks_the_exchange_again(
    world: World, monkeypatch: pytest.MonkeyPatch, ahead_ms: int
) -> None:
    """Nothing of the future is stored, nothing stored is hidden, no question is refused.

    How far the exchange's clock was ahead of one that was wrong says nothing once that is right.
    """
    wrong = [ahead_ms]
    monkeypatch.setattr(time, "time_ns", lambda: (world.clock() + wrong[0]) * 1_000_000)
    world.ask(BTC, "1m", "2025-06-15T11:00")
    wrong[0] = 0
    asked = world.ask(BTC, "1m", "2025-06-15T11:00")
    assert same(asked[BTC], truth(BTC, "1m", "2025-06-15T11:00", NOON))
    assert max(span.end for span in world.stored(BTC, "1m").coverage) <= NOON
    dated = world.ask(BTC, "1m", "2025-06-15T11:00", "2025-06-15T12:30")
    assert same(dated[BTC], truth(BTC, "1m", "2025-06-15T11:00", "2025-06-15T12:30"))


def test_law_3_the_forming_candle_is_neither_returned_nor_stored(world: World) -> None:
    """At 12:34 the last candle of an hour is that of 11:00, and nothing else is kept."""
    asked = world.ask(BTC, "1h", "2025-06-15")
    assert int(asked[BTC].open_time[-1]) == ms("2025-06-15T11:00")
    assert same(world.stored(BTC).candles, truth(BTC, "1h", "2025-06-15", NOON))
    assert world.stored(BTC).coverage.missing(Interval(ms("2025-06-15T12:00"), NOON)) == [
        Interval(ms("2025-06-15T12:00"), NOON)
    ]


@pytest.mark.parametrize(
    ("second", "last"), [(0, "10:00"), (1, "10:00"), (2, "11:00"), (3, "11:00")]
)
def test_law_3_a_candle_is_closed_after_a_moment_of_settling(
    world: World, second: int, last: str
) -> None:
    """Just after the hour the last trades may still arrive, so its candle waits two seconds."""
    world.clock.now_ms = ms(f"2025-06-15T12:00:0{second}")
    asked = world.ask(BTC, "1h", "2025-06-15")
    assert int(asked[BTC].open_time[-1]) == ms(f"2025-06-15T{last}")


@pytest.mark.parametrize("minutes", [-90, 90])
def test_law_3_the_exchanges_clock_decides_and_not_ours(world: World, minutes: int) -> None:
    """A machine whose clock is wrong stores the same candles as one whose clock is right."""
    machine = time.time_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: machine() + minutes * MINUTE * 1_000_000)
        asked = world.ask(BTC, "1h", "2025-06-15")
        assert same(asked[BTC], truth(BTC, "1h", "2025-06-15", NOON))
        assert world.ask(BTC, "1h", "2025-06-15").requests == []
        later = world.ask(ETH, "1h", "2025-06-15")  # by the clock as it was measured before
        assert same(later[ETH], truth(ETH, "1h", "2025-06-15", NOON))
        assert len(later.requests) == 1


def test_law_3_a_forming_candle_asked_for_is_returned_and_not_stored(world: World) -> None:
    """`include_forming` adds the candle as it stands now; the store never sees it."""
    asked = world.ask(BTC, "1h", "2025-06-15", include_forming=True)
    shown = MARKET.bars(BTC, Timeframe.parse("1h"), Interval(ms("2025-06-15"), NOON), NOON)
    assert asked[BTC].open_time.tolist() == shown.open_time.tolist()
    assert int(asked[BTC].open_time[-1]) == ms("2025-06-15T12:00")
    assert same(world.stored(BTC).candles, truth(BTC, "1h", "2025-06-15", NOON))
    world.clock.now_ms += HOUR
    later = world.ask(BTC, "1h", "2025-06-15")
    final = truth(BTC, "1h", "2025-06-15", NOON + HOUR, NOON + HOUR)
    assert same(later[BTC], final)
    assert later[BTC] != asked[BTC], "the forming values were not the final ones"


def test_law_3_a_forming_candle_stays_out_of_the_store_when_the_data_are_saved(
    world: World,
) -> None:
    """Data that carry a forming candle can be saved; only what has closed is kept."""
    data = fetch_data(
        [BTC],
        "sandbox",
        "1h",
        "2025-06-15",
        exchange_config=world.config,
        include_forming=True,
    )
    assert len(data.index) == 13
    storage = DataStorage(world.folder / "elsewhere")
    assert storage.save_data(data, "sandbox", "1h") is True
    kept = home_in(world.folder / "elsewhere").store.read(world.key()).series[BTC]
    assert same(kept.candles, truth(BTC, "1h", "2025-06-15", NOON))
    # An hour later the machine's clock alone would call it closed; the data know better.
    world.clock.now_ms += HOUR
    storage.save_data(data, "sandbox", "1h")
    kept = home_in(world.folder / "elsewhere").store.read(world.key()).series[BTC]
    assert same(kept.candles, truth(BTC, "1h", "2025-06-15", NOON))


def test_law_3_the_end_is_exclusive_for_the_forming_candle_too(world: World) -> None:
    """A question that ends where the forming candle begins does not get it."""
    asked = world.ask(BTC, "1h", "2025-06-15", "2025-06-15T12:00", include_forming=True)
    assert same(asked[BTC], truth(BTC, "1h", "2025-06-15", "2025-06-15T12:00"))
    wider = world.ask(BTC, "1h", "2025-06-15", "2025-06-15T12:01", include_forming=True)
    assert int(wider[BTC].open_time[-1]) == ms("2025-06-15T12:00")


def test_law_3_a_settling_candle_counts_as_forming(world: World) -> None:
    """In the seconds after its close a candle that may still change comes, and is not kept."""
    world.clock.now_ms = ms("2025-06-15T12:00:01")
    asked = world.ask(BTC, "1h", "2025-06-15", include_forming=True)
    assert same(asked[BTC], truth(BTC, "1h", "2025-06-15", "2025-06-15T12:00"))
    assert same(world.stored(BTC).candles, truth(BTC, "1h", "2025-06-15", "2025-06-15T11:00"))


def test_law_3_a_symbol_without_its_forming_candle_fails_alone(world: World) -> None:
    """When only one symbol's forming candle cannot be had, the others come with theirs."""
    hour = str(ms("2025-06-15T12:00"))
    world.faults.add(
        Fault.HTTP_500,
        match=lambda call: (
            call.params.get("symbol") == "ETHUSDT" and call.params.get("startTime") == hour
        ),
    )
    asked = world.ask([BTC, ETH], "1h", "2025-06-15", include_forming=True, warns=ETH)
    assert list(asked.result.failures) == [ETH]
    assert int(asked[BTC].open_time[-1]) == ms("2025-06-15T12:00")
    assert same(world.stored(ETH).candles, truth(ETH, "1h", "2025-06-15", NOON))


# ------------------------------------------------------------------ 4. nothing narrows


def held(world: World, timeframe: str = "1h") -> dict[str, tuple[Candles, Coverage]]:
    series = world.home.store.read(world.key(timeframe)).series
    return {symbol: (one.candles, one.coverage) for symbol, one in series.items()}


def assert_not_narrower(
    now: dict[str, tuple[Candles, Coverage]], before: dict[str, tuple[Candles, Coverage]]
) -> None:
    for symbol, (candles, coverage) in before.items():
        assert is_part_of(candles, now[symbol][0])
        for span in coverage:
            assert now[symbol][1].missing(span.interval) == []


@pytest.mark.parametrize("use_cache", [True, False])
def test_law_4_a_narrow_fetch_keeps_the_wide_history(world: World, use_cache: bool) -> None:
    """A day asked for after a month leaves the month in place, for all symbols."""
    world.ask([BTC, ETH], "1h", "2025-05-01", "2025-06-01")
    before = held(world)
    world.ask(BTC, "1h", "2025-05-10", "2025-05-11", use_cache=use_cache)
    assert_not_narrower(held(world), before)
    assert held(world).keys() == before.keys()
    assert world.ask([BTC, ETH], "1h", "2025-05-01", "2025-06-01").requests == []


def test_law_4_a_failing_fetch_changes_no_file(world: World) -> None:
    """A fetch that fails leaves every byte of the store as it was."""
    world.ask([BTC, ETH], "1h", "2025-05-01", "2025-06-01")
    before = world.files()
    world.faults.add(Fault.HTTP_503, match="klines")
    with pytest.raises(ExchangeUnavailableError):
        world.ask([BTC, ETH], "1h", "2025-04-01", "2025-06-01")
    assert world.files() == before


def test_law_4_updating_a_subset_keeps_the_others(world: World) -> None:
    """`update_data` of one symbol leaves the other symbols stored and answered."""
    world.ask([BTC, ETH], "1h", "2025-05-01", "2025-06-01")
    before = held(world)
    updated = update_data("sandbox", "1h", [BTC], exchange_config=world.config)
    assert list(updated.symbols) == [BTC]
    assert_not_narrower(held(world), before)
    assert same(world.stored(BTC).candles, truth(BTC, "1h", "2025-05-01", NOON))
    assert same(world.stored(ETH).candles, truth(ETH, "1h", "2025-05-01", "2025-06-01"))


def test_law_4_saving_a_piece_keeps_the_rest(world: World) -> None:
    """`save_data` merges: a narrow object saved over wide history takes nothing away."""
    world.ask([BTC, ETH], "1h", "2025-05-01", "2025-06-01")
    before = held(world)
    piece = load_data("sandbox", "1h", [BTC]).loc["2025-05-10":"2025-05-12"]
    assert DataStorage().save_data(piece, "sandbox", "1h") is True
    assert_not_narrower(held(world), before)
    assert world.ask([BTC, ETH], "1h", "2025-05-01", "2025-06-01").requests == []


def test_law_4_an_answer_that_lacks_a_stored_candle_does_not_remove_it(world: World) -> None:
    """An exchange that forgets a candle later does not make us forget it."""
    world.ask(BTC, "1h", "2025-06-01", "2025-06-10")
    world.faults.add(Fault.SHORT_PAGE, match="klines", times=40)
    with suppress(BadResponseError):
        world.ask(BTC, "1h", "2025-06-01", "2025-06-10", use_cache=False)
    world.faults.clear()
    assert same(world.stored(BTC).candles, truth(BTC, "1h", "2025-06-01", "2025-06-10"))


def test_law_4_deleting_is_the_one_way_to_lose_candles(world: World) -> None:
    """`delete` takes a symbol's candles and coverage, and the next fetch asks for them again."""
    world.ask([BTC, ETH], "1h", "2025-06-01", "2025-06-10")
    world.home.store.delete(world.key(), [BTC])
    assert list(held(world)) == [ETH]
    again = world.ask([BTC, ETH], "1h", "2025-06-01", "2025-06-10")
    assert again.pages == [Page("BTCUSDT", ms("2025-06-01"), ms("2025-06-10"), 216)]


# ------------------------------------------------------------------ 5. every page is checked

PERMANENT = {
    Fault.HTTP_429: RateLimitedError,
    Fault.HTTP_418: BannedError,
    Fault.HTTP_403: AccessDeniedError,
    Fault.HTTP_404: NotServedError,
    Fault.HTTP_451: AccessDeniedError,
    Fault.HTTP_500: ExchangeUnavailableError,
    Fault.HTTP_502: ExchangeUnavailableError,
    Fault.HTTP_503: ExchangeUnavailableError,
    Fault.HTTP_504: ExchangeUnavailableError,
    Fault.DISCONNECTED: ExchangeUnavailableError,
    Fault.MAINTENANCE: ExchangeUnavailableError,
    Fault.RESET: ExchangeUnavailableError,
    Fault.HANGING_BODY: ExchangeUnavailableError,
    Fault.CUT_BODY: BadResponseError,
    Fault.CUT_JSON: BadResponseError,
    Fault.HTML: BadResponseError,
    Fault.EMPTY_BODY: BadResponseError,
    Fault.EMPTY_LIST: NotServedError,
    Fault.NULL_FIELD: BadResponseError,
    Fault.OFF_GRID_ROW: BadResponseError,
    Fault.NOT_FINITE_ROW: BadResponseError,
    Fault.BROKEN_OHLC_ROW: BadResponseError,
}
"""What a fault that does not go away ends in; the others are harmless."""
HARMLESS = (
    Fault.SLOW_BODY,
    Fault.DUPLICATE_ROWS,
    Fault.SHUFFLED_ROWS,
    Fault.DESCENDING_ROWS,
    Fault.OUT_OF_WINDOW_ROWS,
)
FOR_GOOD = {Fault.HTTP_418, Fault.HTTP_403, Fault.HTTP_404, Fault.HTTP_451}
"""Faults that no retry can help."""
TRIES = {
    **dict.fromkeys(FOR_GOOD, 1),
    Fault.EMPTY_LIST: 5,  # the page, the first candle there is (twice), the newest, and its proof
    Fault.RESET: 2 * ATTEMPTS,  # the HTTP client itself asks once more each time
}
"""Requests for one page until a fault that stays is final; for all others the number of tries."""


def test_law_5_every_fault_is_looked_at() -> None:
    """The tables below leave no switch of the sandbox out."""
    elsewhere = {Fault.REVISION, Fault.WRONG_CLOCK, Fault.SHORT_PAGE, Fault.INVENTED_ROW}
    assert {*PERMANENT, *HARMLESS, *elsewhere} == set(Fault)


def patient(world: World, fault: Fault) -> dict[str, Any]:
    """Give settings under which a fault costs little time."""
    return {**world.config, "timeout": 300} if fault is Fault.HANGING_BODY else dict(world.config)


@pytest.mark.parametrize("fault", [f for f in PERMANENT if f is not Fault.HTTP_429])
def test_law_5_a_fault_that_stays_stores_nothing_and_is_named(world: World, fault: Fault) -> None:
    """What is not candles is neither stored nor taken for an absence; the error has its kind."""
    world.ask(ETH, "1h", "2025-06-01", "2025-06-05")
    before = world.files()
    world.faults.add(fault, match="klines", retry_after_s=1)
    sent = len(world.sent())
    with pytest.raises(PERMANENT[fault]) as caught:
        world.ask(BTC, "1h", "2025-06-01", "2025-06-10", exchange_config=patient(world, fault))
    tries = len(world.sent(sent))
    assert tries == TRIES.get(fault, ATTEMPTS)
    assert isinstance(caught.value, DataError)
    assert world.files() == before
    world.faults.clear()
    if fault is Fault.EMPTY_LIST:
        world.clock.now_ms += 2 * HOUR  # what shows no candle is left alone for a while
    if fault is not Fault.HTTP_418:
        again = world.ask([BTC, ETH], "1h", "2025-06-01", "2025-06-10")
        for symbol in (BTC, ETH):
            assert same(again[symbol], truth(symbol, "1h", "2025-06-01", "2025-06-10"))


@pytest.mark.parametrize(
    "fault", [f for f in (*PERMANENT, *HARMLESS, Fault.SHORT_PAGE) if f not in FOR_GOOD]
)
def test_law_5_a_fault_that_passes_is_survived(world: World, fault: Fault) -> None:
    """Two bad answers among good ones cost retries, and neither a candle nor a false absence."""
    world.faults.add(fault, match="klines", times=2, every=2, delay_s=0.05)
    asked = world.ask(
        [BTC, "REP/USDT"],
        "1h",
        "2022-09-01",
        "2022-12-01",
        exchange_config=patient(world, fault),
    )
    for symbol in (BTC, "REP/USDT"):
        expected = truth(symbol, "1h", "2022-09-01", "2022-12-01")
        assert same(asked[symbol], expected)
        assert same(world.stored(symbol).candles, expected)


@pytest.mark.parametrize(
    "fault", [f for f in (*PERMANENT, *HARMLESS, Fault.SHORT_PAGE) if f not in FOR_GOOD]
)
def test_law_5_a_fault_that_strikes_once_costs_one_request(world: World, fault: Fault) -> None:
    """One bad answer is asked for once more, and rows in disorder not even that."""
    world.ask(ETH, "1h", "2025-06-01", "2025-06-05")
    world.faults.add(fault, match="klines", times=1, delay_s=0.01)
    asked = world.ask(BTC, "1h", "2025-06-01", "2025-06-10", exchange_config=patient(world, fault))
    assert same(asked[BTC], truth(BTC, "1h", "2025-06-01", "2025-06-10"))
    proofs = {Fault.EMPTY_LIST: 4}  # an empty answer might be true: what there is, is asked for
    more = 0 if fault in HARMLESS else proofs.get(fault, 1)
    assert len(asked.requests) == 1 + more


@pytest.mark.parametrize("address", ["http://nowhere.invalid", "http://127.0.0.1:1"])
def test_law_5_an_address_that_does_not_answer_is_tried_and_named(
    world: World, address: str
) -> None:
    """No such name, and nobody listening: tried as often as any failure, and nothing is stored."""
    failures = []
    with pytest.raises(ExchangeUnavailableError, match=r"invalid|127\.0\.0\.1") as caught:
        world.ask(
            BTC,
            "1h",
            "2025-06-01",
            exchange_config={"sandboxUrl": address},
            on_event=lambda event: failures.append(event) if isinstance(event, Retrying) else None,
        )
    assert len(failures) == ATTEMPTS - 1
    assert caught.value.exchange == "sandbox"
    assert world.files() == {}
    assert world.sent() == []


class Relisting(SyntheticMarket):
    """A market in which one symbol is taken off the list, and comes back after some weeks."""

    away = Interval(ms("2025-05-01T08:00"), ms("2025-06-01T10:00"))

    def bars(self, symbol: str, timeframe: Timeframe, interval: Interval, now_ms: int) -> Bars:
        bars = super().bars(symbol, timeframe, interval, now_ms)
        times = bars.open_time
        there = (times < self.away.start) | (times >= self.away.end) | (symbol != "ZIL/USDT")
        return bars if there.all() else bars[there]


def test_law_5_a_symbol_that_is_listed_again_goes_on(apart: Path, clock: Clock) -> None:
    """What lies between is absent for good, what comes after is asked for, and nothing twice."""
    symbol, dates = "ZIL/USDT", ("2025-04-20", "2025-06-14")
    whole = truth(symbol, "1h", *dates)
    away = (whole.open_time >= Relisting.away.start) & (whole.open_time < Relisting.away.end)
    with SandboxServer(Relisting(), clock=clock) as server:
        config = {"sandboxUrl": server.url, "verify": False}
        world = World(server, clock, apart, config=config)
        clock.now_ms = ms("2025-05-20T12:30")
        before = world.ask(symbol, "1h", dates[0])
        expected = truth(symbol, "1h", dates[0], Relisting.away.start)
        assert same(before[symbol], expected)
        states = before.result.series[symbol].states(
            Timeframe.parse("1h"), Interval(ms(dates[0]), ms("2025-05-20T11:00"))
        )
        assert [word for _, word in states] == ["present", "no trades"]
        clock.now_ms = NOON
        after = world.ask(symbol, "1h", *dates)
        assert same(after[symbol], whole.take(~away))
        assert min(page.start or NOON for page in after.pages) >= ms("2025-05-20T11:00")
        assert world.ask(symbol, "1h", *dates).requests == []
        world.new_process()


@pytest.mark.parametrize("fault", HARMLESS)
def test_law_5_rows_out_of_order_or_place_are_put_in_order(world: World, fault: Fault) -> None:
    """An exchange that always answers so is understood, with no request more than needed."""
    world.faults.add(fault, match="klines", delay_s=0.05)
    asked = world.ask(BTC, "1h", "2025-06-01", "2025-06-10")
    assert same(asked[BTC], truth(BTC, "1h", "2025-06-01", "2025-06-10"))
    assert len(asked.pages) == 1


def test_law_5_pages_that_are_always_cut_are_read_to_their_end(world: World) -> None:
    """An exchange that gives half of every larger page is asked for the other half as well."""
    world.faults.add(Fault.SHORT_PAGE, match=lambda call: int(call.params.get("limit", 0)) > 10)
    for timeframe, start, end in (("1h", "2022-09-01", "2022-12-01"), ("1m", "2025-06-01", NOON)):
        asked = world.ask([BTC, ETH], timeframe, start, None if end == NOON else end)
        for symbol in (BTC, ETH):
            assert same(asked[symbol], truth(symbol, timeframe, start, end))


@pytest.mark.parametrize("hours", [-30, -2, -0.05, 0.05, 2, 30])
@pytest.mark.parametrize("times", [1, 2])
def test_law_5_a_wrong_reading_of_the_clock_is_not_believed(
    world: World, hours: float, times: int
) -> None:
    """A clock that jumps and comes back moves no candle into the past, and none into the future."""
    offset = int(hours * HOUR)
    if times == 1:
        world.faults.add(Fault.WRONG_CLOCK, times=1, offset_ms=offset)
    else:  # two readings that do not agree with each other either
        world.faults.add(Fault.WRONG_CLOCK, times=1, offset_ms=offset)
        world.faults.add(Fault.WRONG_CLOCK, times=1, offset_ms=offset * 2)
    asked = world.ask(BTC, "1h", "2025-06-13")
    assert same(asked[BTC], truth(BTC, "1h", "2025-06-13", NOON))
    world.clock.now_ms += 40 * HOUR
    later = world.ask(BTC, "1h", "2025-06-13")
    assert same(later[BTC], truth(BTC, "1h", "2025-06-13", world.clock(), world.clock()))


def test_law_5_a_clock_that_never_agrees_with_itself_is_a_bad_answer(world: World) -> None:
    """Without any two readings that agree nothing is asked for, and nothing stored."""
    for hours in (3, 9, -4, 30):
        world.faults.add(Fault.WRONG_CLOCK, times=1, offset_ms=hours * HOUR)
    with pytest.raises(BadResponseError, match="a different time"):
        world.ask(BTC, "1h", "2025-06-13")
    assert world.files() == {}


def test_law_5_a_candle_from_before_the_listing_is_not_believed(world: World) -> None:
    """A row that an exchange adds before a market's first candle is asked about, and dropped."""
    world.faults.add(Fault.INVENTED_ROW, match="klines", times=1)
    asked = world.ask("ONDO/USDT", "4h", "2025-01-20", "2025-02-10")
    assert same(asked["ONDO/USDT"], truth("ONDO/USDT", "4h", "2025-01-20", "2025-02-10"))
    assert same(world.stored("ONDO/USDT", "4h").candles, asked["ONDO/USDT"])


@pytest.mark.parametrize("times", [1, 2, 3])
def test_law_5_an_empty_answer_is_not_the_end_of_history(world: World, times: int) -> None:
    """Empty pages in the middle of history are asked again until candles come."""
    world.faults.add(Fault.EMPTY_LIST, match="klines", times=times)
    asked = world.ask(BTC, "1m", "2025-06-10", "2025-06-12")
    assert same(asked[BTC], truth(BTC, "1m", "2025-06-10", "2025-06-12"))


def test_law_5_a_bad_page_of_one_symbol_does_not_touch_another(world: World) -> None:
    """A symbol whose pages are broken fails alone; what the other got is stored and true."""
    world.faults.add(Fault.BROKEN_OHLC_ROW, match=ETH)
    asked = world.ask([BTC, ETH], "1h", "2025-06-01", "2025-06-10", warns=ETH)
    assert list(asked.result.series) == [BTC]
    assert same(asked[BTC], truth(BTC, "1h", "2025-06-01", "2025-06-10"))
    assert isinstance(asked.result.failures[ETH], BadResponseError)
    assert len(world.stored(ETH).candles) == 0
    assert not world.stored(ETH).coverage


# ------------------------------------------------------------------ 6. a changed candle is news


def revised(world: World, symbol: str = BTC, at: str = "2025-06-05T03:00") -> list[float]:
    """Let the exchange change its mind about a closed candle; gives the new values."""
    old = truth(symbol, "1h", at, ms(at) + HOUR).values[0]
    changed = [old[0], old[1] * 1.5, old[2], old[3], old[4] + 1.0]
    new = [float(value) for value in changed]
    world.faults.revise(symbol, "1h", ms(at), new)
    return new


def test_law_6_a_revised_candle_is_kept_and_the_old_one_logged(world: World) -> None:
    """The store holds the new values, and the old ones with the times of both answers."""
    world.ask(BTC, "1h", "2025-06-01", "2025-06-10")
    first_asked = world.clock()
    world.clock.now_ms += 5 * MINUTE
    new = revised(world)
    asked = world.ask(BTC, "1h", "2025-06-01", "2025-06-10", use_cache=False)
    expected = truth(BTC, "1h", "2025-06-01", "2025-06-10")
    at = int((ms("2025-06-05T03:00") - ms("2025-06-01")) / HOUR)
    assert asked[BTC].values[at].tolist() == new
    others = [row for row in range(len(expected)) if row != at]
    assert asked[BTC].values[others].tobytes() == expected.values[others].tobytes()
    world.new_process()
    (revision,) = world.stored(BTC).revisions
    assert revision.open_time == ms("2025-06-05T03:00")
    assert list(revision.old) == expected.values[at].tolist()
    assert list(revision.new) == new
    assert (revision.old_asked_ms, revision.new_asked_ms) == (first_asked, world.clock())
    warm = world.ask(BTC, "1h", "2025-06-01", "2025-06-10")
    assert warm.requests == []
    assert same(warm[BTC], asked[BTC])


def test_law_6_the_caller_sees_what_was_revised(world: World) -> None:
    """The account of the fetch and the data's metadata name every revised candle, once."""
    world.ask([BTC, ETH], "1h", "2025-06-01", "2025-06-10")
    new = revised(world)
    data = fetch_data(
        [BTC, ETH],
        "sandbox",
        "1h",
        "2025-06-01",
        "2025-06-10",
        use_cache=False,
        exchange_config=world.config,
    )
    (seen,) = data.wrapper._metadata["revisions"].pop(BTC)
    assert data.wrapper._metadata["revisions"] == {}
    assert (seen["open_ms"], seen["new"]) == (ms("2025-06-05T03:00"), new)
    at = "2025-06-05T03:00:00Z"
    assert data.get("High").loc[at, BTC] == new[1]
    again = world.ask([BTC, ETH], "1h", "2025-06-01", "2025-06-10", use_cache=False)
    assert again.result.revisions == {}
    assert len(world.stored(BTC).revisions) == 1


def test_law_6_an_update_notices_a_revised_last_candle(world: World) -> None:
    """An update asks for the last stored candle again, and reports it if it has changed."""
    world.ask(BTC, "1h", "2025-06-01")
    revised(world, at="2025-06-15T11:00")
    world.clock.now_ms += 2 * HOUR
    asked = world.ask(BTC, "1h", only_newer=True)
    assert [r.open_time for r in asked.result.revisions[BTC]] == [ms("2025-06-15T11:00")]


# ------------------------------------------------------------------ 7. damage is not emptiness


class Bomb:
    """A pickle that would leave a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


def _decompression_bomb() -> bytes:
    """Make a chunk of a few bytes that claims to hold nearly 2 GiB."""
    chunk = bytearray(blosc2.compress2(bytes(1 << 16), typesize=1))
    chunk[4:8] = ((1 << 31) - 1024).to_bytes(4, "little")
    return bytes(chunk)


def _other_price(data: bytes) -> bytes:
    """Change one bit of one price, and leave all else about the file in order."""
    length, _, magic = struct.unpack("<II8s", data[-16:])
    footer = json.loads(data[-16 - length : -16])
    raw = bytearray(blosc2.decompress2(data[: footer["chunk_bytes"]]))
    price = truth(BTC, "1h", "2025-06-01", "2025-06-10").values[0, 0]
    raw[raw.index(struct.pack("<d", price))] ^= 1
    chunk = bytes(blosc2.compress2(bytes(raw), typesize=8))
    text = json.dumps({**footer, "chunk_bytes": len(chunk)}).encode()
    return chunk + text + struct.pack("<II8s", len(text), zlib.crc32(text), magic)


DAMAGES: dict[str, Callable[[bytes, Path], bytes]] = {
    "cut in half": lambda data, _: data[: len(data) // 2],
    "footer cut off": lambda data, _: data[:-40],
    "last byte cut off": lambda data, _: data[:-1],
    "emptied": lambda data, _: b"",
    "zeroed": lambda data, _: bytes(len(data)),
    "first byte altered": lambda data, _: _flip(data, 0),
    "a candle altered": lambda data, _: _flip(data, len(data) // 2),
    "a price altered": lambda data, _: _other_price(data),
    "footer altered": lambda data, _: _flip(data, len(data) - 60),
    "text": lambda data, _: b"<html>502 Bad Gateway</html>",
    "foreign pickle": lambda data, _: blosc2.compress2(pickle.dumps({"a": 1}), typesize=1),
    "hostile pickle": lambda data, mark: blosc2.compress2(pickle.dumps(Bomb(mark)), typesize=1),
    "hostile pickle, bare": lambda data, mark: pickle.dumps(Bomb(mark)),
    "decompression bomb": lambda data, _: _decompression_bomb(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_law_7_damage_is_an_error_set_aside_and_mended(world: World, damage: str) -> None:
    """A damaged file is never read as empty nor overwritten, and only its content is refetched."""
    world.ask([BTC, ETH], "1h", "2025-06-01", "2025-06-10")
    world.ask(BTC, "4h", "2025-06-01", "2025-06-10")
    path = world.folder / "sandbox_spot_1h.pickle.blosc"
    mark = world.folder.parent / "pwned"
    path.write_bytes(DAMAGES[damage](path.read_bytes(), mark))
    before = world.files()
    for _ in range(2):
        with pytest.raises(CorruptDatasetError) as caught:
            load_data("sandbox", "1h")
        assert path.name in str(caught.value)
        assert world.files() == before, "reading changes nothing"
    summary = DataStorage().get_storage_summary()["files"]
    assert summary["sandbox_spot_4h.pickle.blosc"]["problem"] is None

    asked = world.ask([BTC, ETH], "1h", "2025-06-01", "2025-06-10", warns="set aside")
    for symbol in (BTC, ETH):
        assert same(asked[symbol], truth(symbol, "1h", "2025-06-01", "2025-06-10"))
    window = (ms("2025-06-01"), ms("2025-06-10"), 216)
    assert sorted(asked.pages, key=lambda page: page.id) == [
        Page("BTCUSDT", *window),
        Page("ETHUSDT", *window),
    ]
    after = world.files()
    assert after[f"{path.name}.damaged-1"] == before[path.name]
    assert after["sandbox_spot_4h.pickle.blosc"] == before["sandbox_spot_4h.pickle.blosc"]
    assert world.ask([BTC, ETH], "1h", "2025-06-01", "2025-06-10").requests == []
    assert not mark.exists()


def test_law_7_a_dataset_under_another_name_is_damage(world: World) -> None:
    """A sound file of another market, renamed, is not taken for what its name says."""
    world.ask(BTC, "4h", "2025-06-01", "2025-06-10")
    other = (world.folder / "sandbox_spot_4h.pickle.blosc").read_bytes()
    (world.folder / "sandbox_spot_1h.pickle.blosc").write_bytes(other)
    with pytest.raises(CorruptDatasetError, match="4h"):
        load_data("sandbox", "1h")
    asked = world.ask(BTC, "1h", "2025-06-01", "2025-06-10", warns="set aside")
    assert same(asked[BTC], truth(BTC, "1h", "2025-06-01", "2025-06-10"))


def test_law_7_a_fetch_that_fails_leaves_the_damaged_file_in_place(world: World) -> None:
    """As long as nothing replaces what it held, a damaged file stays where it is."""
    world.ask(BTC, "1h", "2025-06-01", "2025-06-10")
    path = world.folder / "sandbox_spot_1h.pickle.blosc"
    path.write_bytes(path.read_bytes()[:-10])
    before = world.files()
    world.faults.add(Fault.HTTP_503)
    with pytest.raises(ExchangeUnavailableError):
        world.ask(BTC, "1h", "2025-06-01", "2025-06-10")
    assert world.files() == before


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_law_7_a_damaged_journal_costs_only_what_lies_behind_the_damage(
    world: World, where: float
) -> None:
    """An unfinished fetch's journal with a flipped byte is said to be damaged, and mended."""
    question = (BTC, "1m", "2025-06-08", "2025-06-12")
    with pytest.raises(Stop):
        world.ask(*question, on_event=stop_after(5))
    path = world.folder / "sandbox_spot_1m.journal"
    whole = path.read_bytes()
    path.write_bytes(_flip(whole, int(len(whole) * where)))
    world.new_process()
    with pytest.raises(CorruptDatasetError, match="journal"):
        load_data("sandbox", "1m")
    asked = world.ask(*question, warns="set aside")
    assert same(asked[BTC], truth(BTC, "1m", "2025-06-08", "2025-06-12"))
    assert f"{path.name}.damaged-1" in world.files()
    assert world.ask(*question).requests == []


def test_law_7_a_damaged_file_is_set_aside_also_when_a_journal_has_the_answer(
    world: World,
) -> None:
    """What is said to be set aside is: also where a broken-off fetch had refetched it before."""
    question = (BTC, "1m", "2025-06-08", "2025-06-09")
    world.ask(*question)
    path = world.folder / "sandbox_spot_1m.pickle.blosc"
    path.write_bytes(_flip(path.read_bytes(), 0))
    with pytest.raises(Stop):
        world.ask(*question, on_event=stop_after(2))
    assert path.with_name("sandbox_spot_1m.journal").exists()
    asked = world.ask(*question, warns="set aside")
    assert same(asked[BTC], truth(BTC, "1m", "2025-06-08", "2025-06-09"))
    assert f"{path.name}.damaged-1" in world.files()
    assert world.ask(*question).requests == []


# ------------------------------------------------------------------ 8. a failure is loud


def test_law_8_failures_are_errors_accounts_and_exit_codes(world: World) -> None:
    """Part of a request failing warns and is accounted for; all of it failing raises."""
    asked = world.ask([BTC, "NOPE/USDT"], "1h", "2025-06-01", "2025-06-10", warns="NOPE/USDT")
    account = asked.result.account()
    assert list(account["symbols"]) == [BTC]
    assert account["failures"]["NOPE/USDT"]["error"] == "UnknownSymbolError"
    assert json.loads(json.dumps(account)) == account
    with pytest.raises(UnknownSymbolError):
        world.ask(["NOPE/USDT", "NADA/USDT"], "1h", "2025-06-01", "2025-06-10")
    dates = ("--start", "2025-06-01", "--end", "2025-06-10", "--json")
    for symbols, code in [(BTC, 0), (f"{BTC},NOPE/USDT", 1), ("NOPE/USDT", 1)]:
        done = processes.command(world, "-s", symbols, "-e", "sandbox", "-t", "1h", *dates)
        assert done.returncode == code, done.stderr
        told = json.loads(done.stdout)
        assert ("NOPE/USDT" in told["failures"]) == (code == 1)


def test_law_8_the_account_tells_asked_got_absent_and_failed(world: World) -> None:
    """The account of a fetch adds up: candles and absences are all that was asked."""
    question = ("2019-05-14", "2019-05-16")
    asked = world.ask([BTC, "NOPE/USDT"], "1m", *question, warns="NOPE/USDT")
    account = asked.result.account()
    assert (account["start_ms"], account["end_ms"]) == (ms(question[0]), ms(question[1]))
    assert account["requests"] == len(asked.requests)
    one = account["symbols"][BTC]
    expected = truth(BTC, "1m", *question)
    assert one["candles"] == len(expected)
    assert (one["first_ms"], one["last_ms"]) == (
        int(expected.open_time[0]),
        int(expected.open_time[-1]),
    )
    assert one["absent"] == {"no trades": 2 * 24 * 60 - len(expected)} == {"no trades": 600}
    assert set(account["failures"]) == {"NOPE/USDT"}


# ------------------------------------------------------------------ 9. reading runs no code


def test_law_9_a_hostile_file_runs_nothing(world: World) -> None:
    """Whatever stands in a file, no way of reading it runs any of it."""
    world.ask(BTC, "1h", "2025-06-01", "2025-06-10")
    path = world.folder / "sandbox_spot_1h.pickle.blosc"
    sound = path.read_bytes()
    mark = world.folder.parent / "pwned"
    hostile = pickle.dumps(Bomb(mark))
    packed = blosc2.compress2(hostile, typesize=1)
    footer = sound[sound.index(b'{"format"') :]
    from backtester import vbt

    for content in (hostile, packed, packed + footer):
        path.write_bytes(content)
        world.new_process()
        DataStorage().get_storage_summary()
        with pytest.raises(CorruptDatasetError):
            load_data("sandbox", "1h")
        with pytest.raises(CorruptDatasetError):
            vbt.Data.load(path)
        with pytest.warns(FetchWarning, match="set aside"):
            fetch_data(
                [BTC], "sandbox", "1h", "2025-06-01", "2025-06-10", exchange_config=world.config
            )
        assert not mark.exists()


# ------------------------------------------------------------------ 10. one budget

_SMALL = """
from dataclasses import replace
from backtester.data.fetching import exchange
exchange.stated_limits = lambda _answer: ()  # it states limits per minute only
from backtester.data.fetching import capabilities
from backtester.data.fetching.budget import Limit
for place, row in capabilities._TABLE.items():
    capabilities._TABLE[place] = replace(row, limits=(Limit(60, 1.0),))
"""
"""An exchange that allows little, in the eyes of the client."""


def test_law_10_two_processes_share_one_budget(world: World) -> None:
    """Two processes at the limit, each with many pages at once, never see a 429."""
    from backtester.data.sandbox.weights import WeightBook

    world.server._weights = WeightBook(window_s=1.0)
    world.server._dialects[0]._limits["spot"] = 60
    code = _SMALL + (
        "from backtester.data.fetching.archives.plan import Source\n"
        "found = ask([{symbol!r}], '1m', '2025-04-01', '2025-05-01', source=Source.API)\n"
        "print(found.requests, len(found.series[{symbol!r}].candles))"
    )
    running = [processes.start(world, code.format(symbol=symbol)) for symbol in (BTC, ETH)]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert int(out.split()[-1]) == 30 * 24 * 60
    statuses = {request.status for request in world.sent()}
    assert statuses == {200}
    assert len(world.sent()) > 2 * 44
    assert sum(request.weight for request in world.sent()) > 3 * 60, "the limit was reached"


def test_law_10_a_429_makes_every_process_wait(world: World) -> None:
    """The pause an exchange asks of one process holds for the next one as well."""
    arrived: list[float] = []

    def note(call: Any) -> bool:
        arrived.append(time.monotonic())
        return len(arrived) == 1

    world.faults.add(Fault.HTTP_429, match=note, retry_after_s=3)
    first = processes.start(world, f"ask([{BTC!r}], '1h', '2025-06-01')")
    while not arrived:
        time.sleep(0.01)
    second = processes.start(world, f"ask([{ETH!r}], '1h', '2025-06-01')")
    for process in (first, second):
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert min(arrived[1:]) - arrived[0] > 2.9


def test_law_10_a_ban_stops_the_next_process_until_it_ends(world: World) -> None:
    """While the exchange has shut us out, no process knocks; afterwards all goes on."""
    ends: list[float] = []
    world.faults.add(
        Fault.HTTP_418,
        times=1,
        retry_after_s=4,
        match=lambda _call: ends.append(time.monotonic() + 4) or True,
    )
    code = (
        "import backtester.data.fetching.online, ccxt.async_support\n"
        "from backtester.data.errors import BannedError\n"
        "print('ready', flush=True), input()\n"
        f"try:\n    ask([{BTC!r}], '1h', '2025-06-01')\n"
        "except BannedError as error:\n    print(error.until_ms)"
    )
    other = processes.start(world, code)
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    earliest = time.time() + 4
    with pytest.raises(BannedError) as caught:
        world.ask(BTC, "1h", "2025-06-01")
    assert earliest - 0.1 < caught.value.until_ms / 1000 < time.time() + 4
    sent = len(world.sent())
    out, err = other.communicate("go\n", timeout=60)
    assert int(out) == caught.value.until_ms, err
    assert world.sent(sent) == []
    with pytest.raises(BannedError):
        world.ask(BTC, "1h", "2025-06-01")
    assert world.sent(sent) == []
    time.sleep(max(0.0, ends[0] - time.monotonic()) + 0.1)
    asked = world.ask(BTC, "1h", "2025-06-01")
    assert same(asked[BTC], truth(BTC, "1h", "2025-06-01", NOON))
