"""Compare a sample of a file's candles with what the exchange itself answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from backtester.data.candles import Candles
from backtester.data.errors import CandleError, DataError
from backtester.data.fetching.exchange import Exchange
from backtester.data.fetching.online import in_thread, markets_of
from backtester.data.fetching.paging import Ask
from backtester.data.fetching.planning import reachable_from
from backtester.data.fetching.retries import trying
from backtester.data.fetching.symbols import SymbolBook
from backtester.data.home import Home
from backtester.data.importing.names import unified
from backtester.data.model import DatasetKey, Interval, MarketType, format_ms

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Comparison", "ExchangeCheck"]

_SAMPLE = 64
"""Grid times per stretch: pages under 100 candles cost the least weight."""
_ENOUGH = 0.9
"""Which share of a sample must match: exchanges do change a candle now and then."""
_PRICES = 1e-6
"""How far two prices may be apart, relatively: files in float32 are as exact as that."""
_VOLUMES = 1e-3


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a sample of a file's candles compares with the exchange's."""

    compared: int
    """Candles that both have."""
    matching: int
    """Of those, how many are the same market's: equal but for rounding."""
    identical: int
    """Of those, how many are equal in every bit."""
    missing: int
    """Candles of the sample that the exchange does not have."""
    first_difference: tuple[int, tuple[float, ...], tuple[float, ...]] | None = None
    """Open time, the file's candle, the exchange's."""

    @property
    def fits(self) -> bool:
        return self.matching >= _ENOUGH * (self.compared + self.missing)

    def plain(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        return {
            "compared": self.compared,
            "matching": self.matching,
            "identical": self.identical,
            "missing": self.missing,
        }


@dataclass(frozen=True, slots=True)
class ExchangeCheck:
    """Compares candles with what exchanges answer; nothing of that is stored."""

    home: Home
    """For what is remembered of exchanges."""
    config: Mapping[str, Any] | None
    """ccxt settings."""
    now_ms: int
    """UTC epoch milliseconds."""

    def require_market(self, key: DatasetKey, symbol: str, candles: Candles) -> Comparison | None:
        """Compare candles with the market they are said to be of.

        Returns
        -------
        Comparison or None
            None where the API does not reach back to any of them.

        Raises
        ------
        CandleError
            They are not that market's; if they are another's of the same exchange, it says which.
        DataError
            The exchange could not be asked.
        """
        found = self.compare(key, symbol, candles)
        if found is None or found.fits:
            return found
        other = self._fitting_market(key, symbol, candles)
        where = f": they are {key.exchange} {other}" if other else ""
        raise CandleError(
            f"they are not the candles of {key} {symbol}{where}; of "
            f"{found.compared + found.missing} compared with the exchange {found.matching} "
            f"match{_example(found)}",
            symbol=symbol,
            comparison=found.plain(),
            fitting_market=other,
        )

    def compare(self, key: DatasetKey, symbol: str, candles: Candles) -> Comparison | None:
        """Ask the exchange for up to three stretches of the candles; None as above."""
        return in_thread(self._compare(key, symbol, candles))

    async def _compare(self, key: DatasetKey, symbol: str, candles: Candles) -> Comparison | None:
        cache = self.home.cache
        limits = cache.get_limits(key.exchange, key.market_type)
        async with Exchange(key.exchange, key.market_type, self.config, limits=limits) as exchange:
            exchange.require_timeframe(key.timeframe)
            depth = exchange.capability.depth
            if depth is not None:
                oldest = reachable_from(key.timeframe, self.now_ms, depth)
                candles = candles.take(candles.open_time >= oldest)
            if not len(candles):
                return None
            markets = await markets_of(exchange, cache, _quiet, sought=(symbol,))
            market = next((one for one in markets if one.symbol == symbol), None)
            if market is None:
                raise SymbolBook.of(markets).unknown(symbol, key.exchange, key.market_type)
            asks = _stretches(candles, key)
            answers = []
            for ask in asks:
                work = partial(exchange.candles, market, key.timeframe, ask)
                answers.append(await trying(work, symbol, _quiet))
        return _counted([candles.within(ask.interval) for ask in asks], answers)

    def _fitting_market(self, key: DatasetKey, symbol: str, candles: Candles) -> str | None:
        """Name the other market of the exchange whose candles these are."""
        pair = symbol.partition(":")[0]
        for market_type in (MarketType.SPOT, MarketType.SWAP):
            other = unified(pair, market_type)
            if market_type is key.market_type or other is None:
                continue
            try:
                there = DatasetKey(key.exchange, market_type, key.timeframe)
                found = self.compare(there, other, candles)
            except DataError:  # the exchange has no such market: it is none of its candles then
                continue
            if found is not None and found.fits:
                return f"{market_type} {other}"
        return None


def _example(found: Comparison) -> str:
    if found.first_difference is None:
        return ""
    time, file, answer = found.first_difference
    return f", and that of {format_ms(time)} is {list(file)} in the file and {list(answer)} there"


def _quiet(_event: object) -> None:
    """Nobody watches: this takes a few requests."""


def _stretches(candles: Candles, key: DatasetKey) -> list[Ask]:
    """Choose the oldest, the middle and the newest stretch of them, disjoint."""
    count = len(candles)
    firsts = {0, max(count // 2 - _SAMPLE // 2, 0), max(count - _SAMPLE, 0)}
    asks: list[Ask] = []
    for first in sorted(firsts):
        start = int(candles.open_time[first])
        if asks and asks[-1].until is not None:
            start = max(start, asks[-1].until)
        last = int(candles.open_time[min(first + _SAMPLE, count) - 1])
        end = min(key.timeframe.next(start, _SAMPLE), key.timeframe.next(last))
        if start < end:
            asks.append(Ask(start, end, key.timeframe.steps(Interval(start, end))))
    return asks


def _counted(samples: list[Candles], answers: list[Candles]) -> Comparison:
    compared = matching = identical = missing = 0
    first = None
    for sample, answer in zip(samples, answers, strict=True):
        both = np.isin(sample.open_time, answer.open_time)
        missing += int((~both).sum())
        mine = sample.values[both]
        theirs = answer.values[np.isin(answer.open_time, sample.open_time)]
        same = _same_market(mine, theirs)
        compared += len(mine)
        matching += int(same.sum())
        identical += int((mine == theirs).all(axis=1).sum())
        if first is None and not same.all():
            row = int(np.argmin(same))
            time = int(sample.open_time[both][row])
            first = time, tuple(mine[row].tolist()), tuple(theirs[row].tolist())
    return Comparison(compared, matching, identical, missing, first)


def _same_market(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.bool_]:
    prices = np.isclose(mine[:, :4], theirs[:, :4], rtol=_PRICES, atol=0.0).all(axis=1)
    volumes = np.isclose(mine[:, 4], theirs[:, 4], rtol=_VOLUMES, atol=0.0)
    return np.asarray(prices & volumes)
