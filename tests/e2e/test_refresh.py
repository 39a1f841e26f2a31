"""Bringing up to date what is up to date: hardly anything is asked."""

from __future__ import annotations

import time

import pytest

from backtester.data.settings import venue
from tests.support.world import DAY, HOUR, SECOND, World, ms, same, truth

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
UNITS = ("1w", "1M")


def test_a_refresh_of_series_that_are_up_to_date_asks_for_the_clock_at_most(world: World) -> None:
    """Nothing while the clock is known; a day later one reading for all of its datasets."""
    world.clock.now_ms = ms("2025-06-10T12:00:00")
    for unit in UNITS:
        world.ask(SYMBOLS, unit, "2024-01-01")
    soon = [world.ask(SYMBOLS, unit, only_newer=True) for unit in UNITS]
    assert [one.requests for one in soon] == [[], []]
    world.clock.now_ms += 25 * HOUR
    later = [world.ask(SYMBOLS, unit, only_newer=True) for unit in UNITS]
    assert [[request.path for request in one.requests] for one in later] == [["/api/v3/time"], []]
    for unit, asked in zip(UNITS, later, strict=True):
        for symbol in SYMBOLS:
            expected = truth(symbol, unit, "2024-01-01", world.clock(), world.clock())
            assert same(asked[symbol], expected)


def test_names_of_one_symbol_keep_their_own_way_through_a_refresh(world: World) -> None:
    """What was fetched under one spelling is brought up to date under another."""
    world.ask("BTC/USDT", "1h", "2025-06-10")
    world.clock.now_ms += HOUR
    asked = world.ask(("BTCUSDT", "ETH/USDT"), "1h", "2025-06-10", only_newer=True)
    assert list(asked.result.series) == ["BTCUSDT", "ETH/USDT"]
    for name, symbol in (("BTCUSDT", "BTC/USDT"), ("ETH/USDT", "ETH/USDT")):
        assert same(asked[name], truth(symbol, "1h", "2025-06-10", world.clock(), world.clock()))


@pytest.mark.parametrize("how", [{"only_newer": True}, {"use_cache": False}])
def test_what_is_new_is_told_by_the_clock_as_it_stands(world: World, how: dict[str, bool]) -> None:
    """An earlier reading of a clock that has been put forward since hides no candle."""
    world.ask("BTC/USDT", "1h", "2025-06-10", "2025-06-15T10:00")
    name = venue(world.exchange, world.config)
    world.home.cache.save_clock_offset(name, -2 * HOUR, measured_ms=world.clock() - 2 * SECOND)
    asked = world.ask("BTC/USDT", "1h", "2025-06-10", **how)
    assert same(asked["BTC/USDT"], truth("BTC/USDT", "1h", "2025-06-10", world.clock()))


def test_a_replays_clock_may_be_set_forward(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has closed by then is shown to an update, and up to an end that the question names.

    The second identical question still sends no request.
    """
    ours = world.clock() + 400 * DAY
    monkeypatch.setattr(time, "time_ns", lambda: ours * 1_000_000)
    for end in (None, "2025-06-15"):
        for _ in range(2):
            asked = world.ask("BTC/USDT", "1h", "2025-06-10", end)
        assert asked.requests == []
    questions = ({"end": "2025-06-15T17:00"}, {"only_newer": True}, {"use_cache": False})
    for question in questions:
        world.clock.now_ms += 5 * HOUR
        asked = world.ask("BTC/USDT", "1h", "2025-06-10", **question)
        end = min(world.clock(), ms(question.get("end", "2026-01-01")))
        assert same(asked["BTC/USDT"], truth("BTC/USDT", "1h", "2025-06-10", end, world.clock()))
        assert world.ask("BTC/USDT", "1h", "2025-06-10", question.get("end")).requests == []
