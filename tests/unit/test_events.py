"""Progress as data: values that nobody can change on their way."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from backtester.data import events
from backtester.data.events import Event, FetchPlanned, PageFetched, Waiting
from tests.support.builders import span_of_hours

EXAMPLES: list[Event] = [
    FetchPlanned("binance", 2, 10, 9_000, 20, 1.5, 432_000),
    PageFetched("BTC/USDT", span_of_hours(0, 5), 4),
    events.Retrying("BTC/USDT", 2, 0.5, "HTTP 502"),
    Waiting("binance", 30.0, "the budget is spent"),
    events.SymbolFailed("X", "no such symbol"),
    events.CandlesRevised("BTC/USDT", 3),
    events.FetchFinished(10, 9_000, 2.5),
]


def test_every_event_has_an_example() -> None:
    """All events derive from one base, so that a hook can tell them by class."""
    kinds = {
        getattr(events, name)
        for name in events.__all__
        if isinstance(getattr(events, name), type) and name != "Event"
    }
    assert kinds == {type(one) for one in EXAMPLES}
    assert all(issubclass(kind, Event) for kind in kinds)


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_events_are_values(event: Event) -> None:
    """Equal by content, unchangeable, and fit to cross threads and processes."""
    assert pickle.loads(pickle.dumps(event)) == event
    assert hash(event) == hash(dataclasses.replace(event))
    name = dataclasses.fields(event)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, name, None)
