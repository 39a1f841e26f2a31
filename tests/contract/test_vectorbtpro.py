"""What holds under VectorBT PRO, with nothing but the verbs that its users show in public.

PRO is a paid, private package. Where it is installed these tests run on it. Everywhere else
they run on a stand-in, so that at least the tests themselves are known to work: open-source
VectorBT's own `Data`, with the attested verbs, put in PRO's place.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from backtester.data.fetching.data_fetcher import fetch_data, load_data
from backtester.data.storage.data_storage import DataStorage
from backtester.data.vbt_adapter import engine, metadata_of, tables_of
from tests.support.world import World, same, truth

BTC, ETH = "BTC/USDT", "ETH/USDT"
START, END = "2025-06-01", "2025-06-08"


class ProContract:
    """The promises; `pro` is the package in whose objects they must be kept."""

    @pytest.fixture
    def pro(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def data(self, pro: Any, world: World) -> Any:
        return fetch_data([BTC, ETH], "sandbox", "1h", START, END, exchange_config=world.config)

    def test_the_namespace_is_pro_itself(self, pro: Any) -> None:
        """`from backtester import vbt` adds nothing to it and hides nothing of it."""
        assert engine.namespace() is pro

    def test_fetched_data_are_its_own_objects(self, pro: Any, data: Any) -> None:
        """With the candles of the exchange, by value."""
        assert isinstance(data, pro.Data)
        assert list(data.symbols) == [BTC, ETH]
        tables = tables_of(data)
        for symbol in (BTC, ETH):
            assert same(tables[symbol], truth(symbol, "1h", START, END))

    def test_features_are_got_by_name(self, data: Any) -> None:
        """One feature over symbols is a frame with a column per symbol."""
        close = data.get("Close")
        assert list(close.columns) == [BTC, ETH]
        expected = truth(BTC, "1h", START, END)
        assert np.array_equal(close[BTC].dropna(), expected.values[:, 3])
        assert str(close.index.tz) == "UTC"

    def test_select_and_merge_are_its_own(self, pro: Any, data: Any) -> None:
        """Parts can be taken and put together again."""
        parts = [data.select([symbol]) for symbol in (BTC, ETH)]
        assert tables_of(pro.Data.merge(*parts)) == tables_of(data)

    def test_notes_travel_on_the_wrapper(self, data: Any) -> None:
        """The account of the fetch is where the specification's code looks for it."""
        assert metadata_of(data)["exchange"] == "sandbox"
        assert data.wrapper._metadata["timeframe"] == "1h"

    def test_stored_data_come_back_as_its_objects(self, pro: Any, data: Any, world: World) -> None:
        """Loaded from the store, and saved to another."""
        loaded = load_data("sandbox", "1h", [BTC, ETH])
        assert isinstance(loaded, pro.Data)
        assert tables_of(loaded) == tables_of(data)
        elsewhere = DataStorage(world.folder / "elsewhere")
        assert elsewhere.save_data(data, "sandbox", "1h")
        assert tables_of(elsewhere.load_data("sandbox", "1h")) == tables_of(data)

    def test_the_specs_portfolio_lines_work(self, pro: Any, data: Any) -> None:
        """A portfolio of the object itself, its value as an attribute."""
        portfolio = pro.PF.from_signals(data, entries=True, exits=False)
        assert np.isfinite(portfolio.value.iloc[-1].sum())


@pytest.mark.skipif(
    find_spec("vectorbtpro") is None,
    reason="VectorBT PRO is a paid, private package and is not installed here",
)
class TestVectorBTPro(ProContract):
    """The real one, where it is."""

    @pytest.fixture
    def pro(self) -> Any:
        import vectorbtpro

        return vectorbtpro


class TestStandIn(ProContract):
    """Open-source VectorBT in PRO's place: proves the tests, not PRO."""

    @pytest.fixture
    def pro(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        from backtester.data.vbt_adapter.extended import NAMESPACE

        monkeypatch.setattr(engine, "_pro", lambda: NAMESPACE)
        return NAMESPACE
