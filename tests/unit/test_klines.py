"""Pages read from their text: the bits that JSON and ccxt give, or no page at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtester.data.fetching.klines import KlinesPage
from tests.support.world import World, ms

TEXTS = (1, 2, 3, 4, 5, 7, 9, 10, 11)
START = ms("2025-06-01")
ROW = [START, "5.10", "7.00", "4.99", "6.00", "1.5", START + 59_999, "9.25", 3, "0.5", "4.5", "0"]


@st.composite
def numbers(draw: st.DrawFn) -> str:
    whole = draw(st.integers(0, 10 ** draw(st.integers(1, 17))))
    places = draw(st.sampled_from([0, 1, 2, 5, 8, 8, 8, 10]))
    part = draw(st.integers(0, 10**places - 1)) if places else 0
    return f"{whole}.{part:0{places}}" if places else str(whole)


ROWS = st.lists(
    st.tuples(st.integers(0, 10**15), *[numbers()] * 5, st.integers(0, 10**15), numbers(),
              st.integers(0, 10**7), *[numbers()] * 3),
    min_size=1, max_size=12,
)  # fmt: skip


def text_of(rows: Any) -> str:
    return orjson.dumps(rows).decode()


@given(ROWS)
def test_a_page_has_the_bits_that_ccxt_gives(rows: list[tuple[Any, ...]]) -> None:
    """Every column of text, rounded as ccxt's own `float` does; the times as they are."""
    page = KlinesPage.of(text_of(rows))
    assert page is not None
    assert page.open_times().tolist() == [row[0] for row in rows]
    expected = [[float(row[column]) for column in TEXTS] for row in rows]
    assert page.columns(TEXTS).tolist() == expected


@given(st.data())
def test_a_damaged_page_is_none_or_fails_as_its_json_does(data: st.DataObject) -> None:
    """One character of a page is changed or its end is lost: never another number than written."""
    text = text_of([ROW, [START + 60_000, *ROW[1:]]])
    at = data.draw(st.integers(0, len(text) - 1))
    cut = data.draw(st.booleans())
    other = data.draw(st.sampled_from('09.,"[]-e n{'))
    damaged = text[:at] if cut else text[:at] + other + text[at + 1 :]
    page = KlinesPage.of(damaged)
    if page is None:
        return
    assert not cut
    try:
        found = page.open_times().tolist(), page.columns((1, 2, 3, 4, 5)).tolist()
    except ValueError:
        return
    try:
        rows = orjson.loads(damaged)
    except ValueError:  # in a cell that nobody reads
        rows = orjson.loads(text)
    assert found == ([row[0] for row in rows], [[float(c) for c in row[1:6]] for row in rows])


@pytest.mark.parametrize(
    "answer",
    ["", "[]", "[[]]", '{"code":-1121,"msg":"Invalid symbol."}', "<html></html>",
     text_of([ROW, ROW[:11]]), text_of([[*ROW[:5], None, *ROW[6:]]]), text_of([ROW])[:-1],
     text_of([[*ROW[:1], *map(float, ROW[1:6]), *ROW[6:]]]), text_of([ROW]) + "[",
     text_of([ROW]).replace("5.10", "٥.10"), text_of([ROW]).replace(",", ", ")],
)  # fmt: skip
def test_what_is_no_page_goes_the_way_of_every_answer(answer: str) -> None:
    """No candles, an error, a cut, other types, other spacing: JSON reads it, or refuses it."""
    assert KlinesPage.of(answer) is None


def test_a_fetch_reads_its_pages_from_their_text(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fast way is the one that is taken, and hands on its very numbers."""
    shapes = []
    read = KlinesPage.columns

    def noted(page: KlinesPage, wanted: Any) -> Any:
        table = read(page, wanted)
        shapes.append(table.shape)
        return np.where(table == table[0, 4], 12.5, table)

    monkeypatch.setattr(KlinesPage, "columns", noted)
    asked = world.ask("BTC/USDT", "1h", "2025-06-01", "2025-06-03")
    assert shapes == [(48, 5)]
    assert asked["BTC/USDT"].values[0, 4] == 12.5
