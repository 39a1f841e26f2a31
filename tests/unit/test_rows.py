"""Pages read by columns: what ccxt makes of every row, or nothing."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtester.data.fetching.lazy_ccxt import exchange_class
from backtester.data.fetching.rows import RowsPage

SPOT = {"type": "spot", "spot": True, "linear": None, "inverse": None, "contract": False}
SWAP = {"type": "swap", "spot": False, "linear": True, "inverse": False, "contract": True}
INVERSE = {**SWAP, "linear": False, "inverse": True}
TIME = 1_748_736_000_000

# As each exchange sends a row: T a time in milliseconds, S one in seconds, letters for the rest.
SHAPES: list[tuple[str, dict[str, Any], Any]] = [
    ("binance", SPOT, ["T", *"ohlcv", "T", "q", 7, *"bxz"]),
    ("bybit", SPOT, ["T-text", *"ohlcvq"]),
    ("bybit", INVERSE, ["T-text", *"ohlcvq"]),
    ("okx", SPOT, ["T-text", *"ohlcvxq", "1"]),
    ("okx", SWAP, ["T-text", *"ohlcvxq", "1"]),
    ("kraken", SPOT, ["S", *"ohlcxv", 9]),
    ("coinbase", SPOT, {"start": "S-text", "low": "l", "high": "h", "open": "o", "close": "c",
                        "volume": "v"}),
    ("kucoin", SPOT, ["S-text", *"ochlvq"]),
    ("kucoinfutures", SWAP, ["T", 1.5, 2.5, 0.5, 1.25, 77, 3.5]),
    ("gate", SPOT, ["S-text", *"qchlov", "true"]),
    ("gate", SWAP, {"o": "o", "v": 100, "t": "S", "c": "c", "l": "l", "h": "h", "sum": "q"}),
    ("bitget", SPOT, ["T-text", *"ohlcvqq"]),
    ("bitget", SWAP, ["T-text", *"ohlcvq"]),
    ("mexc", SPOT, ["T", *"ohlcv", "T", "q"]),
    ("hyperliquid", SWAP, {"t": "T", "T": "T", "s": "BTC", "i": "1m", "o": "o", "c": "c",
                           "h": "h", "l": "l", "v": "v", "n": 4}),
]  # fmt: skip


@cache
def client(exchange_id: str) -> Any:
    return exchange_class(exchange_id)({})


def cell(shape: Any, at: int, numbers: Any) -> Any:
    """Fill one cell of a shape for the row number `at`."""
    if shape in ("T", "T-text", "S", "S-text"):
        time = (TIME + at * 60_000) // (1 if shape[0] == "T" else 1000)
        return str(time) if shape.endswith("text") else time
    if isinstance(shape, str) and len(shape) == 1 and shape.isalpha():
        return next(numbers)
    return shape


@pytest.mark.parametrize(("exchange_id", "market", "shape"), SHAPES)
@given(data=st.data())
def test_every_certified_exchanges_rows_are_read_as_ccxt_reads_them(
    exchange_id: str, market: Any, shape: Any, data: st.DataObject
) -> None:
    """By columns, with the very floats, whatever the order and the units of its cells."""
    size = data.draw(st.integers(1, 6))
    texts = st.decimals(0, 10**9, places=8).map(str)
    numbers = iter(data.draw(st.lists(texts, min_size=size * 12, max_size=size * 12)))
    rows = [
        {key: cell(one, at, numbers) for key, one in shape.items()}
        if isinstance(shape, dict)
        else [cell(one, at, numbers) for one in shape]
        for at in range(size)
    ]

    def one(row: Any) -> Any:
        return client(exchange_id).parse_ohlcv(row, market)

    page = RowsPage.of(rows, one)
    assert page is not None, "it goes the slow way"
    found = [[t, *v] for t, v in zip(page.times.tolist(), page.values.tolist(), strict=True)]
    assert found == [one(row) for row in rows]


ROW = ["1748736000000", "5", "7", "4", "6", "1.5", "9"]


def bybit(row: Any) -> Any:
    return client("bybit").parse_ohlcv(row, SPOT)


@pytest.mark.parametrize(
    "rows",
    [[], None, {}, "<html>", [1, 2], [[]], [ROW, ROW[:3]], [ROW, None], [ROW, "12345678"],
     [ROW, [*ROW[:4], None, *ROW[5:]], ROW], [ROW, [*ROW[:4], "", *ROW[5:]], ROW],
     [ROW, [*ROW[:4], True, *ROW[5:]], ROW], [ROW, [1.5, *ROW[1:]], ROW],
     [ROW, ["soon", *ROW[1:]], ROW]],
)  # fmt: skip
def test_what_is_not_rows_alike_is_left_to_ccxt(rows: Any) -> None:
    """Nothing, errors, gaps, other types, a short row in the middle: no page is made of it."""
    assert RowsPage.of(rows, bybit) is None


def test_a_class_that_computes_its_cells_is_left_alone() -> None:
    """A number that is no cell of the row cannot be read by columns."""
    assert RowsPage.of([ROW], lambda row: [*bybit(row)[:5], float(row[5]) * 2]) is None
    assert RowsPage.of([ROW], lambda row: bybit(row)[:5]) is None


@pytest.mark.parametrize("rows", [[ROW, [*ROW[:5], "2.5", "9"]], [[*ROW[:5], "2.5", "9"], ROW]])
def test_a_class_that_reads_some_rows_otherwise_is_left_alone(rows: Any) -> None:
    """The first and the last row are compared with what ccxt makes of them."""

    def moody(row: Any) -> Any:
        return [*bybit(row)[:5], 99.0 if row[5] == "1.5" else float(row[5])]

    assert RowsPage.of(rows, moody) is None
