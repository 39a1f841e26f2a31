"""A fetch that hands out no table: the same account, the same store, nothing held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backtester.data.fetching import fetcher as fetcher_module
from backtester.data.fetching import pipeline
from tests.support.world import DAY, HOUR, World, ms, same, truth

SYMBOLS = ("BTC/USDT", "ETHUSDT", "ONDO/USDT")


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_PART", 37)


def beside(world: World, folder: Path) -> World:
    """Give the same exchange with another, empty data directory."""
    return World(world.server, world.clock, folder, world.exchange, world.config)


def accounts(worlds: list[World], *question: Any, **options: Any) -> list[dict[str, Any]]:
    """Ask one with tables and the other without; give what both account for."""
    told = []
    for world, only in zip(worlds, (False, True), strict=True):
        asked = world.ask(*question, account_only=only, **options)
        told.append({**asked.result.account(), "seconds": 0})
        if only:
            assert all(not len(one.candles) for one in asked.result.series.values())
    return told


@pytest.mark.parametrize(
    ("symbols", "unit", "dates", "warns"),
    [
        (SYMBOLS[:2], "1h", ("2025-06-01", "2025-06-10"), None),
        (SYMBOLS[:1], "15m", ("2019-05-10", "2019-06-10"), None),
        (SYMBOLS, "4h", ("2023-01-01", "2024-03-01"), "ONDO/USDT"),
        ((SYMBOLS[0], "NONE/USDT"), "1h", ("2025-06-01", "2025-06-02"), "NONE/USDT"),
    ],
    ids=["whole", "with-an-outage", "before-a-listing", "with-a-failure"],
)
def test_the_account_is_that_of_a_fetch_with_tables(
    world: World, tmp_path: Path, symbols: Any, unit: str, dates: Any, warns: str | None
) -> None:
    """Candles, first, last, absences by reason and failures; cold, and again from the store."""
    worlds = [world, beside(world, tmp_path / "other")]
    cold = accounts(worlds, symbols, unit, *dates, warns=warns)
    assert cold[0] == cold[1]
    assert sum(one["candles"] for one in cold[1]["symbols"].values()) > 0
    again = accounts(worlds, symbols, unit, *dates, warns=warns)
    assert again[0] == again[1]
    for symbol in cold[1]["symbols"]:
        name = "ETH/USDT" if symbol == "ETHUSDT" else symbol
        stored = [one.stored(name, unit) for one in worlds]
        assert same(stored[1].candles, stored[0].candles)
        assert stored[1].coverage == stored[0].coverage


def test_an_update_accounts_for_all_that_is_stored(world: World, tmp_path: Path) -> None:
    """Not for what came alone."""
    worlds = [world, beside(world, tmp_path / "other")]
    accounts(worlds, SYMBOLS[:2], "1h", "2025-04-01")
    world.clock.now_ms += 3 * HOUR
    updated = accounts(worlds, SYMBOLS[:2], "1h", only_newer=True)
    assert updated[0] == updated[1]
    whole = truth(SYMBOLS[0], "1h", "2025-04-01", world.clock(), world.clock())
    assert updated[1]["symbols"][SYMBOLS[0]]["candles"] == len(whole)


def test_what_the_exchange_revised_is_counted(world: World, tmp_path: Path) -> None:
    """Revisions of this fetch are told without its tables, too, and those of earlier ones not."""
    worlds = [world, beside(world, tmp_path / "other")]
    dates = ("2025-06-01", "2025-06-05")
    accounts(worlds, SYMBOLS[0], "1h", *dates)
    for at in ("2025-06-02T05:00", "2025-06-03T07:00"):
        world.clock.now_ms += DAY
        world.faults.revise(SYMBOLS[0], "1h", ms(at), [5.0, 7.0, 4.0, 6.0, 1.5])
        again = accounts(worlds, SYMBOLS[0], "1h", *dates, use_cache=False)
        assert again[0]["revisions"] == again[1]["revisions"] == {SYMBOLS[0]: 1}


def test_no_answer_is_held_until_the_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored is let go of."""
    jobs: list[Any] = []
    run = fetcher_module.Fetcher.run

    async def noted(fetcher: Any, todo: Any) -> None:
        await run(fetcher, todo)
        jobs.extend(len(job.answers) for job in todo)

    monkeypatch.setattr(fetcher_module.Fetcher, "run", noted)
    world.ask(SYMBOLS[0], "1h", "2025-01-01", "2025-06-01", account_only=True)
    world.ask(SYMBOLS[0], "4h", "2025-01-01", "2025-06-01")
    assert jobs[0] == 0
    assert jobs[1] > 0
    expected = truth(SYMBOLS[0], "1h", "2025-01-01", "2025-06-01")
    assert same(world.stored(SYMBOLS[0]).candles, expected)
