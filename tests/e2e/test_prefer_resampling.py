"""Longer candles made of stored shorter ones: no request, the exchange's values, and said so."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from typer.testing import CliRunner

from backtester.data import cli
from backtester.data.candles import Answer, Candles
from backtester.data.errors import OptionError
from backtester.data.fetching.data_fetcher import fetch_data
from backtester.data.model import Interval, Served, Timeframe
from tests.support.world import World, ms, same, truth

BTC, ETH = "BTC/USDT", "ETH/USDT"
START, END = "2025-06-01", "2025-06-08"


def keep(
    world: World, symbol: str, timeframe: str, start: str = START, end: str = END, **kwargs: object
) -> None:
    """Store what the exchange would have answered."""
    interval = Interval(ms(start), ms(end))
    candles = kwargs.pop("candles", None) or truth(symbol, timeframe, start, end)
    assert isinstance(candles, Candles)
    key = world.key(timeframe)
    served = kwargs.pop("served", Served.MARKET)
    assert isinstance(served, Served)
    world.home.store.commit(key, [Answer(symbol, interval, candles, served, asked_ms=1)])


def assert_equal_to(found: Candles, expected: Candles) -> None:
    """Prices to the last bit, volumes to 1e-9."""
    assert found.open_time.tolist() == expected.open_time.tolist()
    assert np.array_equal(found.values[:, :4], expected.values[:, :4])
    np.testing.assert_allclose(found.values[:, 4], expected.values[:, 4], rtol=1e-9)


def test_stored_hours_answer_for_days(world: World) -> None:
    """Not one request, not even for the list of markets; the answer says what it was made of."""
    keep(world, BTC, "1h")
    asked = world.ask(BTC, "1d", START, END, prefer_resampling=True)
    assert asked.requests == []
    assert_equal_to(asked[BTC], truth(BTC, "1d", START, END))
    note = {"from": "1h", "start_ms": ms(START), "end_ms": ms(END)}
    assert asked.result.account()["derived"] == asked.result.metadata()["derived"] == {BTC: [note]}
    assert asked.result.differing == {}
    assert asked.result.complete
    assert world.home.store.held(world.key("1d")) == {}  # what was made is not the exchange's word


def test_only_what_the_shorter_ones_do_not_cover_is_asked_for(world: World) -> None:
    """Three days and a half of hours make three days; the exchange is asked for the other four."""
    keep(world, BTC, "1h", START, "2025-06-04")
    asked = world.ask(BTC, "1d", START, END, prefer_resampling=True)
    assert [(page.start, page.end) for page in asked.pages] == [(ms("2025-06-04"), ms(END))]
    assert_equal_to(asked[BTC], truth(BTC, "1d", START, END))
    own = world.stored(BTC, "1d").candles
    assert same(own, truth(BTC, "1d", "2025-06-04", END))
    again = world.ask(BTC, "1d", START, END, prefer_resampling=True)
    assert again.requests == []
    assert again[BTC] == asked[BTC]


def test_without_the_wish_the_exchange_is_asked(world: World) -> None:
    """What was made for one question never answers another."""
    keep(world, BTC, "1h")
    world.ask(BTC, "1d", START, END, prefer_resampling=True)
    plain = world.ask(BTC, "1d", START, END)
    assert len(plain.pages) == 1
    assert same(plain[BTC], truth(BTC, "1d", START, END))
    assert plain.result.account()["derived"] == {}


def test_the_longest_that_divides_is_taken_and_shorter_ones_fill_up(world: World) -> None:
    """4h for the first days, 1h for the rest; 6h does not divide 4h and has no say."""
    keep(world, BTC, "4h", START, "2025-06-04")
    keep(world, BTC, "1h", "2025-06-03", END)
    keep(world, BTC, "1w", START, END)
    asked = world.ask(BTC, "12h", START, END, prefer_resampling=True)
    assert asked.requests == []
    assert_equal_to(asked[BTC], truth(BTC, "12h", START, END))
    assert [(n["from"], n["start_ms"], n["end_ms"]) for n in asked.result.derived[BTC]] == [
        ("4h", ms(START), ms("2025-06-04")),
        ("1h", ms("2025-06-04"), ms(END)),
    ]


def test_a_timeframe_the_exchange_lacks_can_be_made(world: World) -> None:
    """Nothing has to be asked for, so nobody has to know it."""
    keep(world, BTC, "1h")
    assert_equal_to(
        world.ask(BTC, "3h", START, END, prefer_resampling=True)[BTC], truth(BTC, "3h", START, END)
    )


def test_an_own_candle_that_differs_from_its_parts_is_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The exchange's is given; that its shorter ones add up to another is logged and listed."""
    keep(world, BTC, "1h")
    days = truth(BTC, "1d", START, END)
    values = days.values.copy()
    values[2, 1] = np.nextafter(values[2, 1], np.inf)  # a high, by its last bit
    values[3, 4] *= 1 + 1e-12  # a volume, within rounding
    values[4, 4] *= 1 + 1e-8
    keep(world, BTC, "1d", candles=Candles(days.open_time, values))
    with caplog.at_level(logging.WARNING, "backtester"):
        asked = world.ask(BTC, "1d", START, END, prefer_resampling=True)
    assert asked[BTC] == Candles(days.open_time, values)
    assert asked.result.derived == {}
    differing = asked.result.differing[BTC]
    assert [one["open_ms"] for one in differing] == days.open_time[[2, 4]].tolist()
    assert differing[0]["own"] == values[2].tolist()
    assert differing[0]["made"][:4] == days.values[2, :4].tolist()
    assert asked.result.account()["differing"] == {BTC: 2}
    assert "2 of the exchange's candles differ from the sum of its shorter ones" in caplog.text
    assert "2025-06-03" in caplog.text


def test_an_own_candle_that_is_missing_or_extra_is_told(world: World) -> None:
    """Where one has a candle and the other has none, there is a difference too."""
    keep(world, BTC, "1h")
    days = truth(BTC, "1d", START, END)
    keep(world, BTC, "1d", candles=days.take(np.arange(7) != 5))
    asked = world.ask(BTC, "1d", START, END, prefer_resampling=True)
    (one,) = asked.result.differing[BTC]
    assert (one["open_ms"], one["own"]) == (int(days.open_time[5]), None)
    assert len(asked[BTC]) == 6


def test_some_symbols_are_made_and_others_asked_for(world: World) -> None:
    """Each symbol by itself, under the names asked for."""
    keep(world, BTC, "1h")
    asked = world.ask(["BTCUSDT", ETH], "1d", START, END, prefer_resampling=True)
    assert {page.id for page in asked.pages} == {"ETHUSDT"}
    assert_equal_to(asked["BTCUSDT"], truth(BTC, "1d", START, END))
    assert same(asked[ETH], truth(ETH, "1d", START, END))
    assert list(asked.result.derived) == ["BTCUSDT"]


def test_what_an_api_does_not_reach_is_asked_for(world: World) -> None:
    """Hours beyond the API's depth make no days, for the days may reach further."""
    keep(world, BTC, "1h", START, "2025-06-03", served=Served.BEYOND_DEPTH, candles=Candles.empty())
    keep(world, BTC, "1h", "2025-06-03", END)
    asked = world.ask(BTC, "1d", START, END, prefer_resampling=True)
    assert [(page.start, page.end) for page in asked.pages] == [(ms(START), ms("2025-06-03"))]
    assert_equal_to(asked[BTC], truth(BTC, "1d", START, END))


def test_a_damaged_source_is_named_and_nothing_made_of_it(world: World) -> None:
    """The question is answered by the exchange, and the file stays where it is."""
    keep(world, BTC, "1h")
    world.home.store.fold(world.key("1h"))
    (path,) = world.folder.glob("*_1h.pickle.blosc")
    path.write_bytes(path.read_bytes()[:-200])
    world.new_process()
    asked = world.ask(
        BTC, "1d", START, END, prefer_resampling=True, warns="no candles are built from it"
    )
    assert same(asked[BTC], truth(BTC, "1d", START, END))
    assert path.exists()


def test_asking_afresh_and_making_exclude_each_other(world: World) -> None:
    """`use_cache=False` wants all from the exchange."""
    with pytest.raises(OptionError, match="exclude each other"):
        world.ask(BTC, "1d", START, END, prefer_resampling=True, use_cache=False)


def test_the_front_door_and_the_command_take_the_wish(world: World) -> None:
    """By keyword and by flag; the object and the printed account say what was made."""
    keep(world, BTC, "1h", "2025-06-01", "2025-06-15")
    data = fetch_data(
        BTC, "sandbox", "1d", START, END, exchange_config=world.config, prefer_resampling=True
    )
    assert data.wrapper._metadata["derived"][BTC][0]["from"] == "1h"
    assert data.timeframe == "1d"
    words = ["fetch", "-e", "sandbox", "-t", "4h", "-s", BTC, "--start", START, "--end", END]
    ran = CliRunner().invoke(cli.app, [*words, "--prefer-resampling", "--json"])
    account = json.loads(ran.stdout)
    assert (ran.exit_code, account["requests"]) == (0, 0)
    assert account["symbols"][BTC]["candles"] == 7 * 6
    shown = CliRunner().invoke(cli.app, [*words, "--prefer-resampling"])
    assert "0 requests, some made of 1h candles" in shown.stdout
    clash = CliRunner().invoke(cli.app, [*words, "--prefer-resampling", "--no-cache"])
    assert clash.exit_code == 2


def test_the_candle_that_has_not_closed_still_comes_from_the_exchange(world: World) -> None:
    """The forming candle is nobody's sum."""
    keep(world, BTC, "1h", "2025-06-01", "2025-06-15")
    asked = world.ask(BTC, "1d", START, prefer_resampling=True, include_forming=True)
    assert int(asked[BTC].open_time[-1]) == Timeframe.parse("1d").floor(world.clock.now_ms)
    assert len(asked[BTC]) == 15
    assert asked.result.derived[BTC][0]["end_ms"] == ms("2025-06-15")
