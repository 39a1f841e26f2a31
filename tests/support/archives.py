"""Archives without a network: a tree answered in place, and markets that fill it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from backtester.data.candles import Candles
from backtester.data.fetching.paging import Ask
from backtester.data.model import Interval, Market, MarketType, Timeframe
from backtester.data.sandbox.archives import ArchiveTree
from backtester.data.sandbox.dialects import Call
from backtester.data.sandbox.source import Bars, Listing, MarketSource, Ticker
from tests.support.world import MARKET, NOON


class CoinMargined:
    """A market of one inverse contract, whose trades are those of the linear one."""

    _like = "BTC/USDT:USDT"
    timeframes = MARKET.timeframes
    end_ms = None

    def __init__(self) -> None:
        linear = MARKET.listing(self._like)
        market = Market(
            "BTC/USD:BTC", "BTCUSD_PERP", MarketType.SWAP, "BTC", "USD", "BTC",
            linear=False, contract_size=100.0,
        )  # fmt: skip
        self.listing = Listing(market, linear.price_decimals, linear.lot_decimals, linear.listed_ms)

    def listings(self, market_type: MarketType | str | None = None) -> Sequence[Listing]:
        return [self.listing]

    def candles(self, symbol: str, timeframe: Timeframe, interval: Interval) -> Candles:
        return MARKET.candles(self._like, timeframe, interval)

    def bars(self, symbol: str, timeframe: Timeframe, interval: Interval, now_ms: int) -> Bars:
        return MARKET.bars(self._like, timeframe, interval, now_ms)

    def ticker(self, symbol: str, now_ms: int) -> Ticker:
        return MARKET.ticker(self._like, now_ms)


@dataclass
class Direct:
    """A connection whose API is the market's truth and whose archives are a tree of it."""

    market: MarketSource = MARKET
    now_ms: int = NOON
    asked: list[Ask] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    answer: Callable[[Candles], Candles] = lambda candles: candles
    """What the API makes of the truth."""

    def __post_init__(self) -> None:
        self.tree = ArchiveTree(self.market)

    async def candles(self, market: Market, timeframe: Timeframe, ask: Ask) -> Candles:
        self.asked.append(ask)
        return self.answer(self.market.candles(market.symbol, timeframe, ask.interval))

    async def download(self, url: str) -> tuple[int, bytes]:
        path = urlsplit(url).path
        self.paths.append(path)
        reply = self.tree.answer(Call(path, {}, "archive"), self.now_ms)
        return reply.status, reply.body
