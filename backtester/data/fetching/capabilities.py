"""What each exchange's candle endpoint can do, as data.

One row per exchange and market type. An exchange without a row gets `GENERIC`,
which assumes nothing. Certifying an exchange means adding its row here and its
dialect to the tests, nothing else.

Sources: ccxt 4.5.90 (`binance.py`, `describe()['api']` for the costs), the
exchange's API documentation where named; read 2026-11.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from backtester.data.fetching.budget import Limit
from backtester.data.model import MarketType, Timeframe

__all__ = ["GENERIC", "Capability", "capability_of", "certified", "stated_limits"]

_WINDOWS_S = {"SECOND": 1, "MINUTE": 60}
_LONGEST_WINDOW_S = 300  # the ledger forgets what is older


@dataclass(frozen=True, slots=True)
class Capability:
    """How to ask one exchange for candles of one market type."""

    certified: bool
    """Whether the row was tested against the exchange's dialect."""
    page_size: int
    """Candles per request: not the most it allows, but the most per unit of weight."""
    from_start: bool
    """A `since` without an end is answered with the first candles at or after it, wherever
    they are: one request proves an absence of any length, and finds the inception."""
    asked_early: bool = True
    """Through `fetch_ohlcv`: whether to ask one candle early, as its bound may be exclusive."""
    asked_until: bool = False
    """Through `fetch_ohlcv`: whether the window's end must be sent along as ccxt's `until`."""
    bounds: tuple[str, str] | None = None
    """The API's own names of a window's start and end, which are then sent past what ccxt makes
    of `since` and `until`: its grid of weeks and months is not the exchange's. `asked_early` is
    then by a millisecond only, and what opens at the window's end may come along."""
    history: tuple[int, tuple[str, Any]] | None = None
    """Where recent candles have an endpoint of their own: how many of them may safely be asked
    of it, and the parameter that sends `fetch_ohlcv` to the other one for what is older. Well
    within what it holds: ccxt's own choice is by a clock, and a request may wait."""
    longest_window_ms: int | None = None
    """The longest stretch of time in one request, milliseconds; None: a page of any length."""
    volume_in_contracts: bool = False
    """Whether ccxt hands on contracts where it says base units: times the contract size, then."""
    depth: int | None = None
    """How many of the newest candles the API serves at all; None: back to the listing."""
    depth_by_clock: bool = False
    """Whether `depth` counts times, and what is older is refused; else it counts candles, which
    reach further back where times lack theirs: of a market that has ended, to before its end."""
    lacking: tuple[str, ...] = ()
    """Timeframes that ccxt's class names though this market type has none of them."""
    other_grid: tuple[str, ...] = ()
    """Timeframes it has, but opens at other times than ours; weeks are made of its days then."""
    archive: str | None = None
    """Where older candles than the API serves can be had, for people."""
    raw_method: str | None = None
    """ccxt's implicit method for the raw endpoint (Binance dialect); None: `fetch_ohlcv`."""
    volume_column: int = 5
    """Where a row of it has the base volume."""
    extra_columns: tuple[int | None, ...] = ()
    """Where the exchange's own row has the first of `candles.EXTRAS`; None: it has no such."""
    weights: tuple[tuple[int, int], ...] = ((1_000_000, 1),)
    """Cost of a page: the first entry (limit up to, weight) that fits."""
    weighed_by_rows: bool = False
    """Whether a page costs what `weights` says whatever ccxt's cost, which leaves out the rows."""
    limits: tuple[Limit, ...] = ()
    """The exchange's own limits; empty: derived from ccxt's `rateLimit`."""
    weight_per_cost: float = 1.0
    """The exchange's weight units in one of ccxt's cost units."""
    used_weight_header: str | None = None
    """The answer's header that states the weight used in the current window."""
    remaining_weight_headers: tuple[str, str] | None = None
    """Where no header states that: those which state the limit, and what is left of it."""
    tickers: tuple[tuple[str, str], ...] = ()
    """Parameters without which ccxt's `fetch_tickers` asks for those of other markets."""
    market_types: tuple[str, ...] = ()
    """Binance-like `options.fetchMarkets.types`: what to load for this market type."""

    def page_of(self, timeframe: Timeframe) -> int:
        """Return how many candles of this length to ask for at once."""
        if self.longest_window_ms is None:
            return self.page_size
        return min(self.page_size, max(self.longest_window_ms // timeframe.longest_ms, 1))

    @property
    def candles_per_second(self) -> float | None:
        """What the exchange's limit allows at full pages; None where ccxt's pace is kept."""
        if not self.limits:
            return None
        tightest = min(limit.weight / limit.window_s for limit in self.limits)
        return tightest / self.weight(self.page_size) * self.page_size

    def weight(self, limit: int) -> int:
        """Return the cost of a page of `limit` candles in the exchange's units."""
        served = min(limit, self.page_size)
        return next(weight for most, weight in self.weights if served <= most)


GENERIC = Capability(certified=False, page_size=200, from_start=False, other_grid=("1w",))
"""The careful row: pages that every known exchange serves whole (bitget's history gives 200
and skips rows when more are asked), every absence read twice, weeks made of days, as theirs may
open on any day (ccxt's class of Bitstamp even asks for three days where it says a week)."""

_BINANCE_SPOT = Capability(
    certified=True,
    page_size=1000,
    from_start=True,
    raw_method="publicGetKlines",
    extra_columns=(7, 8, 9, 10),
    weights=((1000, 2),),
    limits=(Limit(6000, 60.0),),
    weight_per_cost=5.0,  # ccxt: klines cost 0.4, the exchange says 2
    used_weight_header="x-mbx-used-weight-1m",
    market_types=("spot",),
)
_BINANCE_USDM = Capability(
    certified=True,
    page_size=499,  # 249.5 candles per unit of weight; 1000 would give 200
    from_start=True,
    raw_method="fapiPublicGetKlines",
    extra_columns=(7, 8, 9, 10),
    weights=((99, 1), (499, 2), (1000, 5), (1500, 10)),
    limits=(Limit(2400, 60.0),),
    weight_per_cost=1.0,
    used_weight_header="x-mbx-used-weight-1m",
    market_types=("linear",),
)

# developers.binance.com, coin-margined futures, kline data: at most 200 days between startTime and
# endTime, column 5 counts contracts and column 7 is base volume. A start alone is not answered
# with what comes first (ccxt issue 8454).
_BINANCE_COINM = replace(
    _BINANCE_USDM,
    from_start=False,
    longest_window_ms=200 * 86_400_000,
    raw_method="dapiPublicGetKlines",
    volume_column=7,
    extra_columns=(None, 8, 10),  # what would be quote volumes are contracts there
    market_types=("inverse",),
)

# docs.kraken.com/api-reference/market-data/get-ohlc-data: the forming candle and up to 720 more;
# a recorded answer has 721 rows. Its weeks open on Thursday, and its "2w" is 21600 minutes.
# Its support pages promise one public request a second, and ccxt has seen that refused.
_KRAKEN = Capability(
    certified=True,
    page_size=720,
    from_start=False,
    asked_early=False,  # ccxt's `kraken.py` does so itself: there `since` is exclusive
    other_grid=("1w", "2w"),
    depth=721,
    limits=(Limit(1, 1.2),),
    archive="https://support.kraken.com/hc/en-us/articles/360047124832 (a ZIP file per quarter)",
)

# https://bybit-exchange.github.io/docs/v5/market/kline and /rate-limit. Of a window the newest are
# kept. What a `start` alone gives is not settled, the oldest from there on (pybit issue 186) or the
# newest of all (ccxt issue 16551), so nothing is built on it. ccxt rounds `since` up to whole weeks
# and months of its own (`bybit.py`), and takes no end but `until`.
_BYBIT = Capability(
    certified=True,
    extra_columns=(6,),
    page_size=1000,
    from_start=False,
    asked_early=False,
    bounds=("start", "end"),
    limits=(Limit(600, 5.0),),
    weight_per_cost=0.2,  # ccxt: every public request costs 5, the exchange counts requests
    market_types=("spot",),
)
_BYBIT_CONTRACTS = replace(_BYBIT, extra_columns=(), market_types=("linear", "inverse"))

# docs.cdp.coinbase.com, advanced-trade: 10 public requests a second; a window of 350 candles is
# refused, ccxt's `coinbase.py` asks for 300. Both bounds are inclusive. The contracts of its US
# venue count contracts (those it had elsewhere had a contract size of 1).
_COINBASE = Capability(
    certified=True,
    page_size=300,
    from_start=False,
    asked_early=False,
    limits=(Limit(10, 1.0),),
    weight_per_cost=1 / 3,  # ccxt: a public v3 request costs 3
)
_COINBASE_CONTRACTS = replace(_COINBASE, volume_in_contracts=True)

# https://www.okx.com/docs-v5/en/ (candlesticks, candlesticks history). The newest of a window are
# kept. `candles` holds the 1,440 newest and takes 40 requests in 2 s, `history-candles` all and
# 20; here they share one budget. Where the latter gives 100 at a time, as it did until 2025, a
# page takes more requests.
_OKX = Capability(
    certified=True,
    page_size=300,
    from_start=False,
    asked_early=False,  # ccxt's `okx.py` does so itself: there `before` is exclusive
    asked_until=True,
    history=(1000, ("type", "HistoryCandles")),
    weights=((300, 2),),
    limits=(Limit(40, 2.0),),
    weight_per_cost=2.0,  # ccxt: history-candles cost 1, candles a half
)

# www.kucoin.com/docs-new: klines, and rate-limit: public calls of an address share a pool of 2000
# in 30 s (ccxt's pace is that of the spot pool, twice as fast); a page costs 3 of it. Its weeks
# open on Thursday (Kucoin/kucoin-api-docs, issues 350 and 373). At most 1500 candles come, the
# end not counting; with the early one asked for, a page is whole even if it did count.
_KUCOIN = Capability(
    certified=True,
    extra_columns=(6,),
    page_size=1499,
    from_start=False,
    other_grid=("1w",),
    weights=((1500, 3),),
    limits=(Limit(2000, 30.0),),
    weight_per_cost=1.0,
    remaining_weight_headers=("gw-ratelimit-limit", "gw-ratelimit-remaining"),
    market_types=("spot",),
)
# At most 500 candles, both bounds counting. ccxt: costs of futures count double.
_KUCOIN_CONTRACTS = replace(
    _KUCOIN,
    extra_columns=(),
    page_size=499,
    asked_early=False,
    volume_in_contracts=True,
    lacking=("3m", "6h", "1M"),
    weight_per_cost=0.5,
    market_types=("contract",),
)

# www.gate.com/docs/developers/apiv4/en: 200 public requests of an endpoint in 10 s. Both bounds
# count, and a window of too many points is refused; so is one that begins more than 10,000 points
# ago on spot. That is an error and not an empty page, so a fetch that takes minutes keeps away
# from the edge. "1w" is Gate's "7d": every seven days since 1970, from Thursday on.
_GATE = Capability(
    certified=True,
    extra_columns=(1,),
    page_size=1000,
    from_start=False,
    asked_early=False,
    depth=9_980,
    depth_by_clock=True,
    other_grid=("1w",),
    archive="https://download.gatedata.org (files of a month: spot/candlesticks_1m and others)",
    limits=(Limit(200, 10.0),),
    remaining_weight_headers=("x-gate-ratelimit-limit", "x-gate-ratelimit-requests-remain"),
    market_types=("spot",),
)
# At most 2000 candles, of which ccxt asks for 1999 (`gate.py`). How far back they go it says when
# it refuses; of contracts that was as far as spot in 2026, and all the way before.
_GATE_CONTRACTS = replace(
    _GATE,
    extra_columns=(),
    page_size=1999,
    volume_in_contracts=True,
    depth=None,
    archive="https://download.gatedata.org (files of a month: futures_usdt and others)",
)

# https://www.bitget.com/api-doc/spot/market/Get-History-Candle-Data and the same of contract: at
# most 200, of a window the newest; both ends may be exclusive. The one for recent candles reaches
# back 30 days for minutes and 1,440 candles for the rest, ccxt's `bitget.py` says.
_BITGET = Capability(
    certified=True,
    extra_columns=(7,),
    page_size=199,
    from_start=False,
    asked_until=True,
    bounds=("startTime", "endTime"),
    history=(1000, ("useHistoryEndpoint", True)),
    lacking=("2h",),
    limits=(Limit(20, 1.0),),
    market_types=("spot",),
)
# The same of contracts, whose windows are of 90 days at most, of which one is for the margins.
_BITGET_CONTRACTS = replace(
    _BITGET,
    extra_columns=(),
    longest_window_ms=89 * 86_400_000,
    lacking=(),
    market_types=("swap",),
)

# www.mexc.com/api-docs/spot-v3: 500 weight of an endpoint in 10 s. A page has 500 candles, whatever
# is asked for, and its end does not count (ccxt `mexc.py`, which adds a millisecond to `until`, but
# makes up an end by its own clock where there is none). Nobody says on which day its weeks open, so
# ours are made of its days.
_MEXC = Capability(
    certified=True,
    extra_columns=(7,),
    page_size=500,
    from_start=False,
    asked_early=False,
    asked_until=True,
    lacking=("8h",),
    other_grid=("1w",),
    limits=(Limit(500, 10.0),),
)
# www.mexc.com/api-docs/futures: 20 requests in 2 s and at most 2000 candles, the newest up to now
# where no end is named.
_MEXC_CONTRACTS = replace(
    _MEXC,
    extra_columns=(),
    page_size=2000,
    volume_in_contracts=True,
    lacking=(),
    weights=((2000, 1),),
    limits=(Limit(20, 2.0),),
    weight_per_cost=0.5,  # ccxt: a request costs 2
)

# hyperliquid.gitbook.io, info endpoint and rate limits: the newest 5000 candles, and 1200 weight a
# minute, of which candles cost 20 and one more for every 60 that come (ccxt counts 4, as it does
# not know how many that will be; its other costs are halves). Weeks open on Thursday:
# github.com/rainbow-me/rainbow/pull/6920.
_HYPERLIQUID = Capability(
    certified=True,
    page_size=5000,
    from_start=False,
    asked_early=False,
    asked_until=True,
    depth=5000,
    other_grid=("1w",),
    weights=((60, 21), (300, 25), (1500, 45), (5000, 104)),
    weighed_by_rows=True,
    limits=(Limit(1200, 60.0),),
    weight_per_cost=2.0,
    market_types=("spot",),
)

_TABLE: dict[tuple[str, MarketType], Capability] = {
    (exchange, market_type): row
    for exchange in ("binance", "sandbox")
    for market_type, row in (
        (MarketType.SPOT, _BINANCE_SPOT),
        (MarketType.SWAP, _BINANCE_USDM),
        (MarketType.FUTURE, _BINANCE_USDM),
    )
} | {
    ("binanceusdm", MarketType.SWAP): _BINANCE_USDM,
    ("binanceusdm", MarketType.FUTURE): _BINANCE_USDM,
    ("binancecoinm", MarketType.SWAP): _BINANCE_COINM,
    ("binancecoinm", MarketType.FUTURE): _BINANCE_COINM,
    ("bitget", MarketType.SPOT): _BITGET,
    ("bitget", MarketType.SWAP): _BITGET_CONTRACTS,
    ("bitget", MarketType.FUTURE): _BITGET_CONTRACTS,
    ("bybit", MarketType.SPOT): _BYBIT,
    ("bybit", MarketType.SWAP): _BYBIT_CONTRACTS,
    ("bybit", MarketType.FUTURE): _BYBIT_CONTRACTS,
    ("okx", MarketType.SPOT): replace(_OKX, market_types=("spot",), extra_columns=(7,)),
    ("okx", MarketType.SWAP): replace(_OKX, market_types=("swap",)),
    ("okx", MarketType.FUTURE): replace(_OKX, market_types=("future",)),
    ("gate", MarketType.SPOT): _GATE,
    ("gate", MarketType.SWAP): replace(_GATE_CONTRACTS, market_types=("swap",)),
    ("gate", MarketType.FUTURE): replace(
        _GATE_CONTRACTS,
        market_types=("future",),
        tickers=(("settle", "usdt"),),  # ccxt: of those settled in bitcoin, which there are none of
    ),
    ("kraken", MarketType.SPOT): _KRAKEN,
    ("coinbase", MarketType.SPOT): _COINBASE,
    ("coinbase", MarketType.SWAP): _COINBASE_CONTRACTS,
    ("coinbase", MarketType.FUTURE): _COINBASE_CONTRACTS,
    ("hyperliquid", MarketType.SPOT): _HYPERLIQUID,
    ("hyperliquid", MarketType.SWAP): replace(_HYPERLIQUID, market_types=("swap", "hip3")),
    ("mexc", MarketType.SPOT): _MEXC,
    ("mexc", MarketType.SWAP): _MEXC_CONTRACTS,
    ("kucoin", MarketType.SPOT): _KUCOIN,
    ("kucoin", MarketType.SWAP): _KUCOIN_CONTRACTS,
    ("kucoin", MarketType.FUTURE): _KUCOIN_CONTRACTS,
    ("kucoinfutures", MarketType.SWAP): _KUCOIN_CONTRACTS,
    ("kucoinfutures", MarketType.FUTURE): _KUCOIN_CONTRACTS,
}


def stated_limits(answer: Any) -> tuple[Limit, ...]:
    """Read the limits that an answer of the Binance dialect states; empty when it states none.

    Only request weight is read: the limits on the number of raw requests never bind candles.
    """
    if not isinstance(answer, Mapping) or not isinstance(answer.get("rateLimits"), list):
        return ()
    found = []
    for entry in answer["rateLimits"]:
        window_s = _WINDOWS_S.get(entry.get("interval"), 0) * entry.get("intervalNum", 0)
        if entry.get("rateLimitType") == "REQUEST_WEIGHT" and 0 < window_s <= _LONGEST_WINDOW_S:
            found.append(Limit(int(entry["limit"]), float(window_s)))
    return tuple(found)


def certified() -> list[tuple[str, MarketType, Capability]]:
    """List the rows of the table, by exchange and market type."""
    return sorted(
        ((exchange, market_type, row) for (exchange, market_type), row in _TABLE.items()),
        key=lambda entry: entry[:2],
    )


def capability_of(exchange_id: str, market_type: MarketType) -> Capability:
    """Return the row of an exchange's market type, or `GENERIC`."""
    return _TABLE.get((exchange_id, market_type), GENERIC)
