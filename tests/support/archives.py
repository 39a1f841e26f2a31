"""Archives without a network: a tree answered in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from backtester.data.candles import Candles
from backtester.data.fetching.paging import Ask
from backtester.data.model import Interval, Market, MarketType, Timeframe
from backtester.data.sandbox.archives import ArchiveTree
from backtester.data.sandbox.dialects import Call
from backtester.data.sandbox.source import MarketSource
from tests.support.world import MARKET, NOON

COIN_MARGINED = Market(
    "BTC/USD:BTC", "BTCUSD_PERP", MarketType.SWAP, "BTC", "USD", "BTC",
    linear=False, contract_size=100.0,
)  # fmt: skip
"""As ccxt describes it; its trades are those of the linear contract."""


@dataclass
class Direct:
    """A connection whose API is the market's truth and whose archives are a tree of it."""

    market: MarketSource = MARKET
    now_ms: int = NOON
    asked: list[Ask] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    answer: Callable[[Candles], Candles] = lambda candles: candles
    """What the API makes of the truth."""
    extra_columns: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        self.tree = ArchiveTree(self.market)

    async def candles(self, market: Market, timeframe: Timeframe, ask: Ask) -> Candles:
        self.asked.append(ask)
        return self.answer(self.truth(market, timeframe, ask.interval))

    def truth(self, market: Market, timeframe: Timeframe, interval: Interval) -> Candles:
        linear = market.symbol.replace("USD:BTC", "USDT:USDT")
        return self.market.candles(linear, timeframe, interval)

    async def download(self, url: str) -> tuple[int, bytes]:
        path = urlsplit(url).path
        self.paths.append(path)
        reply = self.tree.answer(Call(path, {}, "archive"), self.now_ms)
        return reply.status, reply.body
