"""Resolve symbols as people write them.

Pure. ccxt's unified symbols are the only names inside (``BTC/USDT``,
``BTC/USDT:USDT``); the exchange's own id (``BTCUSDT``) and, for contracts,
the bare pair are understood at the door.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from backtester.data.errors import NoSymbolsError, OptionError, UnknownSymbolError
from backtester.data.model import Market, MarketType

__all__ = ["SymbolBook", "parse_symbols"]

_USUAL_QUOTES = ("USDT", "USDC", "USD", "EUR", "BTC")


def parse_symbols(symbols: Any) -> list[str]:
    """Read the `symbols` argument: a list or one str.

    Raises
    ------
    NoSymbolsError
        For none.
    OptionError
        For anything but text, or one named twice.
    """
    given: list[Any]
    if isinstance(symbols, str):
        given = [symbols]
    elif isinstance(symbols, Iterable):
        given = list(symbols)
    else:
        raise OptionError(f"symbols must be a string or a list of strings, not {symbols!r}")
    if not given:
        raise NoSymbolsError("no symbols were given; name some, such as 'BTC/USDT'")
    names = [name.strip() if isinstance(name, str) and _is_text(name) else "" for name in given]
    if "" in names:
        wrong = given[names.index("")]
        raise OptionError(f"{wrong!r} is not a symbol; write it like 'BTC/USDT'")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise OptionError(f"symbols given twice: {', '.join(twice)}", symbols=twice)
    return names


def _is_text(name: str) -> bool:
    """Return whether a name is made of whole characters: half ones come from a terminal's bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


class SymbolBook:
    """Finds the unified symbol that a name means, within one market type.

    Parameters
    ----------
    symbols : iterable of str
        Unified symbols.
    ids : iterable of (str, str), optional
        The exchange's own ids with the symbols they mean.
    """

    def __init__(self, symbols: Iterable[str], ids: Iterable[tuple[str, str]] = ()) -> None:
        self._symbols = dict.fromkeys(symbols)
        self._ids = list(ids)

    @classmethod
    def of(cls, markets: Iterable[Market]) -> SymbolBook:
        """Build a book from an exchange's markets."""
        listed = list(markets)
        return cls((m.symbol for m in listed), ((m.id, m.symbol) for m in listed))

    @cached_property
    def _meanings(self) -> dict[str, set[str]]:
        """What each spelling may mean; most questions name their symbols as they are."""
        meanings: dict[str, set[str]] = {}
        for symbol in self._symbols:
            for spelling in _spellings(symbol):
                meanings.setdefault(spelling, set()).add(symbol)
        for market_id, symbol in self._ids:
            meanings.setdefault(market_id.upper(), set()).add(symbol)
        return meanings

    def __bool__(self) -> bool:
        return bool(self._symbols)

    def find(self, name: str) -> str | None:
        """Return the unified symbol `name` means; None when there is none, or more than one."""
        if name in self._symbols:
            return name
        meanings = self._meanings.get(name.upper(), set())
        return next(iter(meanings)) if len(meanings) == 1 else None

    def nearest(self, name: str, count: int = 3) -> list[str]:
        """Return the symbols whose spelling is nearest to `name`, best first."""
        meant = sorted(self._meanings.get(name.upper(), ()))
        based = [one for one in self._symbols if one.upper().startswith(f"{name.upper()}/")]
        near = difflib.get_close_matches(name.upper(), self._meanings, n=4 * count, cutoff=0.6)
        found = [symbol for spelling in near for symbol in sorted(self._meanings[spelling])]
        return list(dict.fromkeys(meant + sorted(based, key=_by_quote) + found))[:count]

    def unknown(self, name: str, exchange: str, market_type: MarketType) -> UnknownSymbolError:
        """Build the error for a name that means nothing here."""
        near = self.nearest(name)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        return UnknownSymbolError(
            f"{exchange} {market_type} has no symbol {name!r}{hint}",
            symbol=name,
            exchange=exchange,
            market_type=market_type.value,
            suggestions=near,
        )


def _by_quote(symbol: str) -> tuple[int, str]:
    """Order symbols by how usual their quote currency is."""
    quote = symbol.partition("/")[2].partition(":")[0].upper()
    return (_USUAL_QUOTES.index(quote) if quote in _USUAL_QUOTES else len(_USUAL_QUOTES)), symbol


def _spellings(symbol: str) -> set[str]:
    """Return the ways a unified symbol is written, in upper case.

    >>> sorted(_spellings("BTC/USDT:USDT"))
    ['BTC-USDT', 'BTC/USDT', 'BTC/USDT:USDT', 'BTCUSDT', 'BTC_USDT']
    """
    whole = symbol.upper()
    pair, _, settle = whole.partition(":")
    if "-" in settle:  # a dated contract is not meant by its bare pair
        return {whole}
    return {whole, pair, pair.replace("/", ""), pair.replace("/", "-"), pair.replace("/", "_")}
