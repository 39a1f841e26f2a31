"""What every store of candles must do, by value.

A store passes by subclassing `StoreContract`: a fixture that makes stores, and two raw accessors
that reach what is kept without the store under test.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtester.data.candles import COLUMNS, EXTRAS, Answer, Series
from backtester.data.model import DatasetKey, Served
from backtester.data.storage.store import Dataset, Store, SymbolSummary
from tests.support.builders import (
    HOUR,
    KEY,
    START,
    answer,
    applied,
    candles_at,
    contents,
    hours,
    plain_series,
    span_of_hours,
)
from tests.support.strategies import answers

OTHER = DatasetKey.of("okx", "swap", "1M")
BATCH = [
    answer("BTC/USDT", 0, 6, without=(2,), asked_ms=3),
    answer("ETH/USDT", 0, 4, served=Served.NOT_LISTED, asked_ms=4),
    answer("ETH/USDT", 4, 3, asked_ms=4),
    answer("BTC/USDT", 3, 2, seed=1, asked_ms=9),  # revises two candles
    answer("SOL/USDT", 0, 2, served=Served.DELISTED, asked_ms=5),  # without any candle
]
NOTES = {
    "volume_data": {"BTC/USDT": 1.2345678901234567e9, "ETH/USDT": float("inf")},
    "list": [1, -(2**62), "two", None, True, [0.1]],
    "tuple": (1, ("x", b"\0\xff")),
    "日本": {"": ""},
}


class StoreContract:
    """The tests; subclasses say which store."""

    def make(self) -> Store:
        """Make a new store that holds nothing."""
        raise NotImplementedError

    def raw_contents(self, store: Store, key: DatasetKey) -> dict[str, Any] | None:
        """Give what a store keeps of a dataset in its lasting form; None where it has none."""
        raise NotImplementedError

    def raw_put(self, store: Store, dataset: Dataset) -> None:
        """Put a dataset into a store behind its back."""
        raise NotImplementedError

    @pytest.fixture
    def store(self) -> Store:
        return self.make()

    # -------------------------------------------------------------- nothing there

    def test_an_unknown_dataset_is_empty(self, store: Store) -> None:
        """Reading, listing, folding and deleting what is not there is no error."""
        assert contents(store.read(KEY)) == contents(Dataset(KEY))
        assert contents(store.read(KEY, ["BTC/USDT"], salvage=True)) == contents(Dataset(KEY))
        store.fold(KEY)
        store.delete(KEY)
        store.delete(KEY, ["BTC/USDT"])
        assert store.keys() == []
        assert store.summary() == []
        assert self.raw_contents(store, KEY) is None

    def test_no_answers_make_no_dataset(self, store: Store) -> None:
        """Committing nothing leaves nothing."""
        store.commit(KEY, [])
        store.fold(KEY)
        assert store.keys() == []

    # -------------------------------------------------------------- keeping

    def test_what_is_committed_is_read(self, store: Store) -> None:
        """Candles, coverage and revisions are exactly those the answers make."""
        store.commit(KEY, BATCH)
        assert contents(store.read(KEY)) == contents(applied(*BATCH))

    def test_folding_changes_nothing_that_is_read(self, store: Store) -> None:
        """The lasting form holds the same, bit for bit, and folding again does nothing."""
        store.commit(KEY, BATCH)
        before = contents(store.read(KEY))
        for _ in range(2):
            store.fold(KEY)
            assert contents(store.read(KEY)) == before == self.raw_contents(store, KEY)

    def test_answers_after_a_fold_are_read_with_the_rest(self, store: Store) -> None:
        """Between a commit and the next fold a reader sees both."""
        for number, one in enumerate(BATCH):
            store.commit(KEY, [one])
            assert contents(store.read(KEY)) == contents(applied(*BATCH[: number + 1]))
            if number % 2:
                store.fold(KEY)
                assert contents(store.read(KEY)) == contents(applied(*BATCH[: number + 1]))

    def test_what_lies_there_is_read(self, store: Store) -> None:
        """A dataset that another process left is this store's dataset, and grows like its own."""
        left = Dataset(KEY, applied(*BATCH[:3]).series, NOTES)
        self.raw_put(store, left)
        assert contents(store.read(KEY)) == contents(left)
        store.commit(KEY, BATCH[3:])
        assert contents(store.read(KEY)) == contents(left.with_answers(BATCH[3:]))

    def test_one_batch_or_many(self, store: Store) -> None:
        """How answers are grouped into commits leaves no trace."""
        other = self.make()
        store.commit(KEY, BATCH)
        for one in BATCH:
            other.commit(KEY, [one])
        assert contents(store.read(KEY)) == contents(other.read(KEY))

    def test_nothing_narrows(self, store: Store) -> None:
        """Smaller answers, empty answers and folds leave every earlier candle and its coverage."""
        store.commit(KEY, BATCH)
        before = store.read(KEY)
        store.commit(KEY, [answer("BTC/USDT", 1, 1, asked_ms=11)])
        store.commit(KEY, [answer("BTC/USDT", 0, 6, without=range(6), asked_ms=12)])
        store.fold(KEY)
        store.annotate(KEY, {"x": 1})
        after = store.read(KEY)
        for symbol, series in before.series.items():
            kept = plain_series(after.series[symbol])["candles"]
            assert kept.keys() >= plain_series(series)["candles"].keys()
            for span in series.coverage:
                assert after.series[symbol].coverage.missing(span.interval) == []

    def test_changed_and_back_again(self, store: Store) -> None:
        """A candle that one commit revises twice, to what it was, has both revisions."""
        there_and_back = [answer(count=6, asked_ms=3), answer(first=2, count=1, seed=1, asked_ms=4)]
        there_and_back.append(answer(first=2, count=2, asked_ms=5))
        store.commit(KEY, there_and_back[:1])
        store.commit(KEY, there_and_back[1:])
        assert contents(store.read(KEY)) == contents(applied(*there_and_back))
        assert len(store.read(KEY).series["BTC/USDT"].revisions) == 2

    def test_symbols_can_be_picked(self, store: Store) -> None:
        """Those that are there come in the order asked for; the others are left out."""
        store.commit(KEY, BATCH)
        picked = store.read(KEY, ["ETH/USDT", "XRP/USDT", "BTC/USDT"])
        assert list(picked.series) == ["ETH/USDT", "BTC/USDT"]
        assert plain_series(picked.series["BTC/USDT"]) == plain_series(
            applied(*BATCH).series["BTC/USDT"]
        )
        assert store.read(KEY, []).series == {}

    @pytest.mark.parametrize("folded", [True, False])
    def test_a_part_of_the_time_can_be_picked(self, store: Store, folded: bool) -> None:
        """Candles and revisions inside an interval, with the whole coverage."""
        store.commit(KEY, BATCH)
        if folded:
            store.fold(KEY)
        for first, count in ((0, 2), (3, 1), (2, 1), (-5, 3), (4, 90)):
            part = span_of_hours(first, count)
            expected = applied(*BATCH).showing(part)
            assert contents(store.read(KEY, within=part)) == contents(expected)
            assert contents(store.read(KEY, ["ETH/USDT"], within=part)) == contents(
                expected.select(["ETH/USDT"])
            )

    @pytest.mark.parametrize("folded", [True, False])
    def test_what_is_held_is_told_without_candles(self, store: Store, folded: bool) -> None:
        """Of those symbols that are there, in the order asked for."""
        assert store.held(KEY) == {}
        store.commit(KEY, BATCH)
        if folded:
            store.fold(KEY)
        whole = {
            "BTC/USDT": SymbolSummary(5, START, START + 5 * HOUR),
            "ETH/USDT": SymbolSummary(3, START + 4 * HOUR, START + 6 * HOUR),
            "SOL/USDT": SymbolSummary(0, None, None),
        }
        assert store.held(KEY) == whole
        assert list(store.held(KEY, ["SOL/USDT", "X", "ETH/USDT"]).items()) == [
            ("SOL/USDT", whole["SOL/USDT"]), ("ETH/USDT", whole["ETH/USDT"]),
        ]  # fmt: skip
        assert store.held(KEY, salvage=True) == whole

    @pytest.mark.parametrize("folded", [False, True])
    def test_a_column_is_that_of_the_candles(self, store: Store, folded: bool) -> None:
        """Of any symbols and any time, by value; read before and after the candles are."""
        store.commit(KEY, BATCH)
        if folded:
            store.fold(KEY)
            store.commit(KEY, [answer("BTC/USDT", 6, 2)])  # newer than what was folded
        for symbols in (None, ["ETH/USDT", "NO/USDT"], []):
            for within in (None, span_of_hours(1, 5), span_of_hours(100, 1)):
                before = {c: store.read_column(KEY, c, symbols, within=within) for c in COLUMNS}
                candles = store.read(KEY, symbols, within=within).series
                for number, column in enumerate(COLUMNS):
                    after = store.read_column(KEY, column, symbols, within=within)
                    for found in (before[column], after):
                        assert list(found) == list(candles)
                        for symbol, (times, values) in found.items():
                            table = candles[symbol].candles
                            assert times.tolist() == table.open_time.tolist()
                            assert values.tobytes() == table.values[:, number].tobytes()
                            assert not times.flags.writeable
                            assert not values.flags.writeable
        assert store.read_column(OTHER, "Close") == {}

    def test_datasets_do_not_mix(self, store: Store) -> None:
        """A timeframe, market type or exchange has its own candles."""
        keys = [KEY, OTHER, DatasetKey.of("okx", "swap", "1m"), DatasetKey.of("okx", "spot", "1m")]
        for number, key in enumerate(keys):
            store.commit(key, [answer(count=number + 1)])
        store.fold(keys[0])
        assert store.keys() == sorted(keys, key=lambda key: key.stem)
        for number, key in enumerate(keys):
            assert contents(store.read(key)) == contents(applied(answer(count=number + 1), key=key))

    @pytest.mark.parametrize(
        "symbol", ["../x", "a/b/c", ".", " ", "日本/USDT:USDT-251226", '"\\\n']
    )
    def test_any_text_is_a_symbol(self, store: Store, symbol: str) -> None:
        """Names are data, not paths."""
        store.commit(KEY, [answer(symbol)])
        assert contents(store.read(KEY)) == contents(applied(answer(symbol)))
        store.fold(KEY)
        assert contents(store.read(KEY)) == contents(applied(answer(symbol)))
        assert list(store.summary()[0].symbols) == [symbol]

    def test_all_bits_are_kept(self, store: Store) -> None:
        """Also those that print alike: signed zeros, NaN payloads, the smallest numbers."""
        table = candles_at(hours(0, 1)).of(hours(0, 1), [[-0.0, 5e-324, 1e308, float("nan"), 0.1]])
        odd = Answer("X", answer(count=1).interval, table)
        store.commit(KEY, [odd])
        store.fold(KEY)
        assert store.read(KEY).series["X"].candles == table

    @pytest.mark.parametrize("folded", [True, False])
    def test_extra_columns_are_kept(self, store: Store, folded: bool) -> None:
        """Where they were told; candles without, and answers that do not tell them, do not mind."""
        first, second = answer("X", 0, 4), answer("Y", 0, 3)
        wide = Answer("X", span_of_hours(2, 6), candles_at(hours(2, 6), extras=4), asked_ms=2)
        narrow = Answer("X", span_of_hours(3, 2), candles_at(hours(3, 2)), asked_ms=3)
        revising = Answer("X", span_of_hours(6, 1), candles_at(hours(6, 1), seed=5), asked_ms=4)
        for one in (first, second, wide, narrow, revising):
            store.commit(KEY, [one])
            if folded:
                store.fold(KEY)
        assert contents(store.read(KEY)) == contents(applied(first, second, wide, narrow, revising))
        table = store.read(KEY).series["X"].candles
        assert table.columns == (*COLUMNS, *EXTRAS)
        told = ~np.isnan(table.values[:, 5:]).any(axis=1)
        assert told.tolist() == [False, False, True, True, True, True, False, True]
        assert store.read(KEY).series["Y"].candles.columns == COLUMNS

    # -------------------------------------------------------------- notes

    def test_notes_are_merged(self, store: Store) -> None:
        """Mappings key by key, of anything else the newer; candles are not touched."""
        store.commit(KEY, BATCH)
        store.annotate(KEY, {"volume_data": {"A": 1.0, "B": 2.0}, "n": [1]})
        store.annotate(KEY, {"volume_data": {"B": 3.0}, "n": [2], "m": None})
        expected = Dataset(
            KEY,
            applied(*BATCH).series,
            {"volume_data": {"A": 1.0, "B": 3.0}, "n": [2], "m": None},
        )
        assert contents(store.read(KEY)) == contents(expected)
        store.commit(KEY, [answer("XRP/USDT")])
        store.fold(KEY)
        assert contents(store.read(KEY)) == contents(expected.with_answers([answer("XRP/USDT")]))

    def test_notes_of_all_plain_types(self, store: Store) -> None:
        """Numbers, texts, bytes, lists, tuples and mappings come back as they were."""
        store.annotate(KEY, NOTES)
        kept = store.read(KEY).metadata
        assert kept == NOTES
        assert type(kept["tuple"]) is tuple
        assert type(kept["list"][4]) is bool
        assert store.keys() == [KEY]

    def test_notes_are_the_stores_own(self, store: Store) -> None:
        """What the caller does to its dictionary afterwards does not reach the store."""
        volumes = {"A": 1.0}
        store.annotate(KEY, {"volume_data": volumes})
        volumes["A"] = 99.0
        assert store.read(KEY).metadata == {"volume_data": {"A": 1.0}}

    # -------------------------------------------------------------- deleting

    @pytest.mark.parametrize("folded", [True, False])
    def test_deleting_a_symbol(self, store: Store, folded: bool) -> None:
        """It goes with its coverage and revisions, and does not come back with the next answer."""
        store.commit(KEY, BATCH)
        store.annotate(KEY, {"x": 1})
        if not folded:
            store.commit(KEY, [answer("BTC/USDT", 20, 1)])
        store.delete(KEY, ["BTC/USDT", "nothing", "BTC/USDT"])
        rest = Dataset(KEY, applied(*(a for a in BATCH if a.symbol != "BTC/USDT")).series, {"x": 1})
        assert contents(store.read(KEY)) == contents(rest)
        again = answer("BTC/USDT", 30, 1)
        store.commit(KEY, [again])
        store.fold(KEY)
        assert contents(store.read(KEY)) == contents(rest.with_answers([again]))

    @pytest.mark.parametrize("folded", [True, False])
    @pytest.mark.parametrize("symbols", [None, ["BTC/USDT", "ETH/USDT", "SOL/USDT"]])
    def test_deleting_a_dataset(
        self, store: Store, folded: bool, symbols: list[str] | None
    ) -> None:
        """Without a symbol left there is no dataset; the others stay."""
        store.commit(KEY, BATCH)
        store.commit(OTHER, BATCH[:1])
        if folded:
            store.fold(KEY)
        store.delete(KEY, symbols)
        assert store.keys() == [OTHER]
        assert contents(store.read(KEY)) == contents(Dataset(KEY))
        assert self.raw_contents(store, KEY) is None
        assert contents(store.read(OTHER)) == contents(applied(BATCH[0], key=OTHER))
        store.commit(KEY, BATCH[1:2])
        assert contents(store.read(KEY)) == contents(applied(BATCH[1]))

    # -------------------------------------------------------------- looking

    @pytest.mark.parametrize("folded", [True, False])
    def test_a_summary_tells_what_is_held(self, store: Store, folded: bool) -> None:
        """Per dataset and symbol, with or without answers that are not folded in."""
        store.commit(OTHER, BATCH[:1])
        store.commit(KEY, BATCH)
        if folded:
            store.fold(KEY)
        first, second = store.summary()
        assert (first.key, second.key) == (KEY, OTHER)
        assert first.name.startswith("binance_spot_1h")
        assert second.name.startswith("okx_swap_1mo")
        assert first.problem is None
        assert first.symbols == {
            "BTC/USDT": SymbolSummary(5, START, START + 5 * HOUR),
            "ETH/USDT": SymbolSummary(3, START + 4 * HOUR, START + 6 * HOUR),
            "SOL/USDT": SymbolSummary(0, None, None),
        }

    # -------------------------------------------------------------- mending

    @pytest.mark.parametrize("folded", [True, False])
    def test_what_cannot_be_trusted_is_replaced(self, store: Store, folded: bool) -> None:
        """Series are put in the place of others; all else stays, and nothing is damaged."""
        store.commit(KEY, BATCH)
        store.annotate(KEY, {"x": 1})
        if folded:
            store.fold(KEY)
        assert store.damage(KEY) == []
        series = applied(*BATCH).series["BTC/USDT"].without([span_of_hours(1, 2)])
        store.mend(KEY, {"BTC/USDT": series})
        expected = Dataset(KEY, {**applied(*BATCH).series, "BTC/USDT": series}, {"x": 1})
        assert contents(store.read(KEY)) == contents(expected)
        store.commit(KEY, BATCH[:1])
        assert contents(store.read(KEY)) == contents(expected.with_answers(BATCH[:1]))

    # -------------------------------------------------------------- any order of events

    def test_any_commits_and_folds(self) -> None:
        """The dataset is always what the protocol's definition makes of the answers so far."""

        @given(st.lists(st.lists(answers(extras=(0, 0, 1, 4)), max_size=3), max_size=6))
        def check(steps: list[list[Answer]]) -> None:
            store, expected = self.make(), Dataset(KEY)
            for step in steps:
                if step:
                    store.commit(KEY, step)
                    expected = expected.with_answers(step)
                else:
                    store.fold(KEY)
                assert contents(store.read(KEY)) == contents(expected)

        check()

    # -------------------------------------------------------------- many at once

    def test_threads_with_symbols_of_their_own(self, store: Store) -> None:
        """Nobody's answers are lost, whoever folds when."""
        per_thread = {
            f"S{n}": [answer(f"S{n}", 4 * i, 4, seed=n, asked_ms=i + 1) for i in range(6)]
            for n in range(6)
        }

        def write(symbol: str) -> None:
            for number, one in enumerate(per_thread[symbol]):
                store.commit(KEY, [one])
                if number % 3 == 2:
                    store.fold(KEY)

        in_threads(*(lambda symbol=symbol: write(symbol) for symbol in per_thread))
        for _ in range(2):
            kept = store.read(KEY)
            assert {s: plain_series(one) for s, one in kept.series.items()} == {
                s: plain_series(Series().with_answers(own)) for s, own in per_thread.items()
            }
            store.fold(KEY)

    def test_threads_with_one_symbol(self, store: Store) -> None:
        """Pages of one history from several threads make that history."""
        pages = [answer("X", 3 * i, 3, without=(3 * i + 1,), asked_ms=7) for i in range(24)]

        def write(own: list[Answer]) -> None:
            for one in own:
                store.commit(KEY, [one])
            store.fold(KEY)

        in_threads(*(lambda n=n: write(pages[n::4]) for n in range(4)))
        assert contents(store.read(KEY)) == contents(applied(*pages))

    def test_readers_never_see_less(self, store: Store) -> None:
        """A reader that begins after a commit sees it, whatever writers and folds do meanwhile."""
        acknowledged, done, problems = 0, threading.Event(), []

        def write() -> None:
            nonlocal acknowledged
            try:
                for number in range(40):
                    store.commit(KEY, [answer("X", number, 1, asked_ms=7)])
                    acknowledged = number + 1
                    if number % 3 == 0:
                        store.fold(KEY)
            finally:
                done.set()

        def read() -> None:
            while not done.is_set():
                promised = acknowledged
                series = store.read(KEY).series.get("X", Series())
                count = len(series.candles)
                if count < promised or plain_series(series) != plain_series(
                    Series().with_answers([answer("X", 0, count, asked_ms=7)] if count else [])
                ):
                    problems.append((promised, count))

        in_threads(write, read, read)
        assert problems == []


def in_threads(*work: Callable[[], None]) -> None:
    """Run all at once; raise the first failure."""
    failures: list[BaseException] = []

    def run(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]
