"""Symbols as people write them, and the unified ones they mean."""

from __future__ import annotations

from typing import Any

import pytest

from backtester.data.errors import NoSymbolsError, OptionError
from backtester.data.fetching.symbols import SymbolBook, parse_symbols
from backtester.data.model import Market, MarketType


def market(symbol: str, market_id: str, market_type: MarketType = MarketType.SPOT) -> Market:
    base, _, rest = symbol.partition("/")
    return Market(symbol, market_id, market_type, base, rest.partition(":")[0])


SPOT = SymbolBook.of(
    market(symbol, symbol.replace("/", ""))
    for symbol in ("BTC/USDT", "ETH/USDT", "ETH/BTC", "1INCH/USDT", "btc/eur")
)
CONTRACTS = SymbolBook.of(
    [
        market("BTC/USDT:USDT", "BTCUSDT", MarketType.SWAP),
        market("BTC/USDT:USDT-251226", "BTCUSDT_251226", MarketType.FUTURE),
        market("ETH/USDT:USDT", "ETHUSDT", MarketType.SWAP),
        market("ETH/USDC:USDC", "ETHPERP", MarketType.SWAP),
        market("SOL/USD:SOL", "SOLUSD_PERP", MarketType.SWAP),
        market("SOL/USD:USDC", "SOLUSD_X", MarketType.SWAP),
    ]
)


# ------------------------------------------------------------------------ the argument


@pytest.mark.parametrize(
    ("symbols", "names"),
    [
        ("BTC/USDT", ["BTC/USDT"]),
        (["BTC/USDT", " ETH/USDT "], ["BTC/USDT", "ETH/USDT"]),
        (("B", "A"), ["B", "A"]),
        ((name for name in "AB"), ["A", "B"]),
        ({"A": 1}, ["A"]),
    ],
    ids=["one text", "a list", "a tuple keeps its order", "a generator", "a dictionary's keys"],
)
def test_one_symbol_or_several(symbols: Any, names: list[str]) -> None:
    """Text is one symbol; anything with items is several, in their order."""
    assert parse_symbols(symbols) == names


@pytest.mark.parametrize("symbols", [[], (), iter("")], ids=["list", "tuple", "iterator"])
def test_no_symbols(symbols: Any) -> None:
    """Nothing asked for is an error that says so."""
    with pytest.raises(NoSymbolsError, match="no symbols were given"):
        parse_symbols(symbols)


@pytest.mark.parametrize(
    ("symbols", "what"),
    [
        (None, "must be a string or a list"),
        (7, "must be a string or a list"),
        ("", "'' is not a symbol"),
        ("  ", "'  ' is not a symbol"),
        (["A", None], "None is not a symbol"),
        (["A", ["B"]], r"\['B'\] is not a symbol"),
        (["A", "B", "A "], "symbols given twice: A"),
    ],
)
def test_what_is_no_list_of_symbols(symbols: Any, what: str) -> None:
    """A wrong item is named, not skipped."""
    with pytest.raises(OptionError, match=what):
        parse_symbols(symbols)


# ------------------------------------------------------------------------ the book


@pytest.mark.parametrize(
    ("book", "name", "symbol"),
    [
        (SPOT, "BTC/USDT", "BTC/USDT"),
        (SPOT, "btc/usdt", "BTC/USDT"),
        (SPOT, "BTCUSDT", "BTC/USDT"),
        (SPOT, "btc-usdt", "BTC/USDT"),
        (SPOT, "BTC_USDT", "BTC/USDT"),
        (SPOT, "btc/eur", "btc/eur"),
        (SPOT, "BTC/EUR", "btc/eur"),
        (SPOT, "BTC/USDT:USDT", None),
        (SPOT, "BTC", None),
        (SPOT, "USDT/BTC", None),
        (SPOT, "", None),
        (CONTRACTS, "BTC/USDT", "BTC/USDT:USDT"),
        (CONTRACTS, "BTCUSDT", "BTC/USDT:USDT"),
        (CONTRACTS, "BTC/USDT:USDT", "BTC/USDT:USDT"),
        (CONTRACTS, "BTC/USDT:USDT-251226", "BTC/USDT:USDT-251226"),
        (CONTRACTS, "BTCUSDT_251226", "BTC/USDT:USDT-251226"),
        (CONTRACTS, "ETHPERP", "ETH/USDC:USDC"),
        (CONTRACTS, "ETH/USDC", "ETH/USDC:USDC"),
        (CONTRACTS, "SOL/USD", None),  # two contracts are called so
        (CONTRACTS, "SOLUSD_PERP", "SOL/USD:SOL"),
    ],
)
def test_what_a_name_means(book: SymbolBook, name: str, symbol: str | None) -> None:
    """The unified symbol, the exchange's id, other spellings; nothing where it is not certain."""
    assert book.find(name) == symbol


def test_the_nearest_symbols_are_suggested() -> None:
    """A slip of the keyboard is answered with what was probably meant, best first."""
    assert SPOT.nearest("BTC/USDR")[0] == "BTC/USDT"
    assert SPOT.nearest("ETHUSD", count=1) == ["ETH/USDT"]
    assert SPOT.nearest("XYZQ/KKK") == []
    assert SPOT.nearest("btc", count=1) == ["BTC/USDT"], "a bare base means its usual market"
    # All that an ambiguous name could mean.
    assert set(CONTRACTS.nearest("SOL/USD")) >= {"SOL/USD:SOL", "SOL/USD:USDC"}


def test_an_unknown_symbol_is_explained() -> None:
    """The error names what was asked, where, and what is near."""
    error = SPOT.unknown("BTC/USDR", "binance", MarketType.SPOT)
    assert str(error).startswith("binance spot has no symbol 'BTC/USDR'; did you mean 'BTC/USDT'")
    assert (error.symbol, error.exchange, error.market_type) == ("BTC/USDR", "binance", "spot")
    assert error.suggestions[0] == "BTC/USDT"
    assert str(SPOT.unknown("XYZQ/KKK", "okx", MarketType.SWAP)) == (
        "okx swap has no symbol 'XYZQ/KKK'"
    )
