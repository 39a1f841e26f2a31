"""What the synthetic exchange lists: data, read once into frozen rows.

The names are those of well-known assets because pipelines are rehearsed with
names; the numbers behind them are invented. Listing dates are near the real
ones where that costs nothing. Nothing here depends on the current time, so a
server whose clock stands in 2020 simply has not listed the later ones yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from backtester.data.model import Interval, MarketType

__all__ = ["Asset", "Pair", "assets", "outages", "pairs"]


@dataclass(frozen=True, slots=True)
class Asset:
    """Something with a price in US dollars."""

    name: str
    usd: float
    """The level its price wanders around, US dollars."""
    spread: float
    """How far it wanders over the years, as a logarithm."""
    daily: float
    """Standard deviation of a day's move, as a logarithm."""
    beta: float
    """How strongly it follows the whole market."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One line of the listing: what is traded against what, how finely, how much, since when."""

    base: str
    quote: str
    type: MarketType
    price_decimals: int
    lot_decimals: int
    turnover: float
    """Typical volume of a day, US dollars."""
    listed_ms: int
    delisted_ms: int | None

    @property
    def expiry_ms(self) -> int | None:
        """Delivery of a dated contract, which ends its trading; None for all others."""
        return self.delisted_ms if self.type is MarketType.FUTURE else None


_ASSETS = """
    BTC    42000     ETH    2400      BNB    350       SOL    110       XRP    0.62
    DOGE   0.11      ADA    0.55      TRX    0.12      AVAX   28        LINK   15
    DOT    8         MATIC  0.85      LTC    95        BCH    320       UNI    8
    ATOM   11        XLM    0.13      ETC    24        FIL    6.5       NEAR   4.6
    APT    9         ARB    1.1       OP     2.1       INJ    22        SUI    1.6
    SEI    0.45      TIA    7.5       STX    1.5       RUNE   4.8       AAVE   110
    MKR    1600      GRT    0.17      ALGO   0.22      VET    0.028     ICP    11
    HBAR   0.085     SAND   0.5       MANA   0.48      AXS    8.2       THETA  1.2
    EOS    1.1       XTZ    1.1       CHZ    0.1       CRV    0.7       SNX    3.1
    COMP   58        ZEC    42        DASH   46        NEO    14        QTUM   3.3
    IOTA   0.27      ENJ    0.4       ZIL    0.026     BAT    0.26      KSM    42
    PEPE   0.0000091 SHIB   0.0000135 FLOKI  0.000095  BONK   0.000021  WIF    1.7
    JUP    0.8       PYTH   0.4       JTO    2.6       ORDI   38        WLD    2.9
    FET    1.1       RENDER 6.2       LDO    2.2       IMX    1.6       GALA   0.033
    ENA    0.6       ONDO   0.9       TON    4.9       NOT    0.012     TAO    380
    HYPE   31        LUNA   48        FTT    33        WAVES  4.4       OMG    3.2
    XMR    158       REP    17        VEN    2.4       ANT    5.1       KITE   0.08
    ZAMA   0.31      LUMEA  1.9       NORTH  0.0042    PUMP   0.0046
"""
_CURRENCIES = (
    Asset("USDT", 1.0, 0.0, 0.0, 0.0),
    Asset("USDC", 1.0, 0.0004, 0.0002, 0.0),
    Asset("FDUSD", 1.0, 0.0006, 0.0003, 0.0),
    Asset("TUSD", 1.0, 0.002, 0.0005, 0.0),
    Asset("EUR", 1.11, 0.06, 0.004, 0.0),
    Asset("JPY", 0.0078, 0.12, 0.005, 0.0),
)
_WILD = {
    "PEPE", "SHIB", "FLOKI", "BONK", "WIF", "DOGE", "LUNA", "FTT", "NOT", "KITE", "ZAMA", "LUMEA",
    "NORTH", "PUMP",
}  # fmt: skip

# pair, price and lot decimals, millions of US dollars a day, listed (UTC), delisted
_SPOT = """
    BTC/USDT     2 5  1900    2017-08-17T04:00
    ETH/USDT     2 4  1200    2017-08-17T04:00
    BNB/USDT     2 3   260    2017-11-06T03:54
    LTC/USDT     2 3    85    2017-12-13T03:32
    NEO/USDT     3 2     7    2017-11-20T08:00
    BCH/USDT     2 3    62    2019-11-28T10:00
    XRP/USDT     4 1   640    2018-05-04T08:11
    ADA/USDT     4 1   240    2018-04-17T04:00
    EOS/USDT     4 1    14    2018-05-28T04:00    2025-05-27T03:00
    XLM/USDT     4 0    48    2018-05-31T09:30
    ETC/USDT     2 2    32    2018-06-12T08:43
    TRX/USDT     4 1   110    2018-06-11T11:30
    QTUM/USDT    3 1     4    2018-03-30T04:00
    IOTA/USDT    4 0   3.5    2018-05-31T09:31
    VET/USDT     5 1    19    2018-07-25T04:00
    LINK/USDT    2 2   190    2019-01-16T10:00
    WAVES/USDT   4 2   3.8    2019-01-18T10:00    2024-06-17T03:00
    ZIL/USDT     5 1   2.9    2019-05-01T08:00
    BAT/USDT     4 1   2.2    2019-03-04T04:00
    ENJ/USDT     4 1   1.9    2019-03-28T04:12
    ZEC/USDT     2 3    21    2019-03-21T04:00
    DASH/USDT    2 3    11    2019-03-28T04:00
    ATOM/USDT    3 2    34    2019-04-29T04:00
    ALGO/USDT    4 0    26    2019-06-22T00:00
    DOGE/USDT    5 0   520    2019-07-05T12:00
    XMR/USDT     2 3     9    2019-03-15T04:00    2024-02-20T03:00
    OMG/USDT     4 2   1.1    2019-03-15T04:01    2024-05-13T03:00
    REP/USDT     2 3  0.09    2020-02-12T10:00    2022-10-21T03:00
    XTZ/USDT     3 1   6.5    2019-09-24T04:00
    CHZ/USDT     4 0    12    2019-09-06T08:00
    HBAR/USDT    5 0    70    2019-09-29T12:00
    FTT/USDT     4 2   4.2    2019-12-20T10:00
    THETA/USDT   3 1   5.8    2019-03-05T08:00
    MATIC/USDT   4 1    38    2019-04-26T13:00    2024-09-10T03:00
    MKR/USDT     1 4    15    2020-03-11T10:00    2025-09-15T03:00
    KSM/USDT     2 3   2.4    2020-09-03T10:00
    SOL/USDT     2 3   980    2020-08-11T06:00
    DOT/USDT     3 2    82    2020-08-18T23:00
    CRV/USDT     4 1    31    2020-08-15T06:00
    SAND/USDT    4 0    13    2020-08-14T12:00
    MANA/USDT    4 0    10    2020-08-06T08:00
    COMP/USDT    2 3     8    2020-06-25T08:00
    SNX/USDT     3 1   4.6    2020-07-10T10:00
    LUNA/USDT    4 2    95    2020-08-21T10:00    2022-05-13T00:40
    UNI/USDT     3 2    55    2020-09-17T03:00
    AVAX/USDT    2 2   150    2020-09-22T06:30
    RUNE/USDT    3 1    18    2020-09-04T10:00
    NEAR/USDT    3 1    74    2020-10-16T02:00
    AAVE/USDT    2 3    66    2020-10-15T03:00
    FIL/USDT     3 2    40    2020-10-15T08:00
    INJ/USDT     2 2    36    2020-10-21T04:00
    AXS/USDT     3 2     7    2020-11-04T12:00
    GRT/USDT     4 0    14    2020-12-17T10:00
    ANT/USDT     3 1  0.35    2020-11-30T08:00    2023-12-22T03:00
    STX/USDT     4 1    17    2019-10-25T08:00
    FET/USDT     4 1    44    2019-02-28T08:00
    SHIB/USDT    8 0   130    2021-05-10T11:00
    ICP/USDT     3 2    28    2021-05-10T20:15
    GALA/USDT    5 0    25    2021-09-13T06:00
    IMX/USDT     4 1    12    2021-11-11T08:00
    LDO/USDT     4 1    24    2022-05-10T10:00
    OP/USDT      3 2    49    2022-06-01T05:00
    APT/USDT     3 2    58    2022-10-19T01:00
    FLOKI/USDT   8 0    22    2023-05-05T16:01
    PEPE/USDT    8 0   310    2023-05-05T16:00
    ARB/USDT     4 1    88    2023-03-23T14:00
    SUI/USDT     4 1   290    2023-05-03T12:00
    WLD/USDT     3 1    96    2023-07-24T09:00
    SEI/USDT     4 1    42    2023-08-15T12:00
    TIA/USDT     4 2    46    2023-10-31T16:00
    ORDI/USDT    2 2    20    2023-11-07T08:00
    JTO/USDT     4 1     8    2023-12-07T16:30
    BONK/USDT    8 0    52    2023-12-15T08:00
    JUP/USDT     4 1    16    2024-01-31T15:30
    PYTH/USDT    4 1    11    2024-02-02T06:00
    WIF/USDT     4 2    64    2024-03-05T14:00
    ENA/USDT     4 2   105    2024-04-02T08:00
    TAO/USDT     1 4    47    2024-04-11T10:00
    NOT/USDT     6 0     9    2024-05-16T12:00
    RENDER/USDT  3 2    23    2024-07-26T08:00
    TON/USDT     3 2    33    2024-08-08T10:00
    ONDO/USDT    4 1    30    2025-01-31T13:00
    HYPE/USDT    3 2   170    2025-11-18T14:00
    PUMP/USDT    6 0    56    2026-02-11T13:30
    ZAMA/USDT    5 0    18    2026-07-21T09:17
    KITE/USDT    5 0    41    2026-10-06T13:00
    LUMEA/USDT   4 1    29    2026-10-27T08:30
    NORTH/USDT   7 0     6    2026-11-05T15:07
    USDC/USDT    4 0   900    2018-12-15T03:00
    FDUSD/USDT   4 0   350    2023-07-26T08:00
    TUSD/USDT    4 0   0.6    2018-06-19T04:00
    EUR/USDT     4 1    24    2020-01-03T08:00
    ETH/BTC      5 3    70    2017-08-17T04:00
    BNB/BTC      6 2    11    2017-08-17T04:00
    LTC/BTC      6 2     5    2017-08-17T04:00
    XRP/BTC      8 0     9    2017-12-01T06:00
    SOL/BTC      6 2    16    2020-08-11T06:00
    ADA/BTC      8 0     3    2017-11-30T08:00
    DOGE/BTC     8 0   2.6    2019-07-05T12:00
    VEN/BTC      8 0   1.5    2017-10-09T08:00    2018-07-24T08:00
    BTC/EUR      2 5    48    2020-01-03T08:00
    ETH/EUR      2 4    22    2020-01-03T08:01
    SOL/EUR      2 3    12    2021-05-19T10:00
    XRP/EUR      4 1    14    2020-01-03T08:02
    BTC/JPY      0 5   260    2023-08-01T03:00
    ETH/JPY      0 4   120    2023-08-01T03:00
    XRP/JPY      3 1    60    2023-08-01T03:05
    DOGE/JPY     3 0     7    2024-02-07T03:00
    BTC/USDC     2 5   420    2018-12-15T03:00
    ETH/USDC     2 4   210    2018-12-15T03:00
    SOL/USDC     2 3   140    2021-06-14T06:00
    BTC/FDUSD    2 5  1500    2023-08-04T08:00
    ETH/FDUSD    2 4   450    2023-08-04T08:00
"""
_SWAP = """
    BTC/USDT       1 3 14000  2019-09-25T08:00
    ETH/USDT       2 3  9500  2019-11-27T07:45
    BCH/USDT       2 3   190  2019-12-26T08:00
    XRP/USDT       4 1  1500  2020-01-06T08:00
    LTC/USDT       2 3   310  2020-01-09T08:00
    TRX/USDT       5 0   150  2020-01-15T08:00
    ETC/USDT       3 2   120  2020-01-16T08:00
    LINK/USDT      3 2   430  2020-01-17T08:00
    ADA/USDT       4 0   520  2020-01-31T08:00
    BNB/USDT       2 2   480  2020-02-10T08:00
    ZEC/USDT       2 3    70  2020-02-05T08:00
    DOGE/USDT      5 0  1400  2020-07-10T09:00
    DOT/USDT       3 1   210  2020-08-22T07:00
    SOL/USDT       2 2  4200  2020-09-14T07:00
    UNI/USDT       3 0   140  2020-09-18T07:00
    AVAX/USDT      3 0   330  2020-09-23T07:00
    NEAR/USDT      3 0   210  2020-10-15T07:00
    AAVE/USDT      2 1   180  2020-10-16T07:00
    FIL/USDT       3 1   150  2020-10-15T12:00
    LUNA/USDT      4 0   220  2021-02-05T07:00  2022-05-12T15:30
    1000SHIB/USDT  6 0   260  2021-05-10T14:00
    FTT/USDT       4 1    30  2022-03-31T14:30  2022-11-14T09:00
    OP/USDT        4 1   160  2022-06-01T14:00
    APT/USDT       4 1   170  2022-10-19T10:00
    ARB/USDT       4 1   240  2023-03-23T17:00
    SUI/USDT       4 1   900  2023-05-03T15:00
    1000PEPE/USDT  7 0   780  2023-05-05T17:00
    WLD/USDT       4 0   190  2023-07-24T12:00
    TIA/USDT       4 0   110  2023-10-31T18:00
    WIF/USDT       4 1   200  2024-01-18T12:30
    ENA/USDT       4 0   290  2024-04-02T10:00
    HYPE/USDT      3 2   610  2025-05-30T12:30
    KITE/USDT      5 0   130  2026-10-06T15:00
    LUMEA/USDT     4 0    85  2026-10-28T09:30
"""
# Quarterly contracts are delivered on the last Friday of the quarter at 08:00.
_FUTURE = """
    BTC/USDT       1 3   210  2026-03-27T08:00  2026-09-25T08:00
    ETH/USDT       2 3   140  2026-03-27T08:00  2026-09-25T08:00
    BTC/USDT       1 3   260  2026-06-26T08:00  2026-12-25T08:00
    ETH/USDT       2 3   160  2026-06-26T08:00  2026-12-25T08:00
    BTC/USDT       1 3    90  2026-09-25T08:00  2027-03-26T08:00
    ETH/USDT       2 3    60  2026-09-25T08:00  2027-03-26T08:00
"""
# Whole-exchange halts, first minute without trades to first minute with them again.
_OUTAGES = """
    2018-02-08T00:28  2018-02-09T09:30
    2018-06-26T02:00  2018-06-26T12:00
    2018-11-14T02:00  2018-11-14T07:30
    2019-03-12T02:00  2019-03-12T08:00
    2019-05-15T03:00  2019-05-15T13:00
    2019-08-15T02:00  2019-08-15T10:00
    2020-02-19T11:35  2020-02-19T17:00
    2020-11-30T06:00  2020-11-30T07:00
    2021-04-25T04:02  2021-04-25T08:45
    2021-08-13T02:00  2021-08-13T06:30
    2021-09-29T07:00  2021-09-29T09:00
    2023-03-24T12:39  2023-03-24T14:00
    2024-06-10T03:17  2024-06-10T03:31
    2025-08-29T06:18  2025-08-29T06:57
    2026-03-14T22:07  2026-03-15T16:30
    2026-10-20T07:41  2026-10-20T09:58
"""


@cache
def assets() -> dict[str, Asset]:
    """Return every asset by name."""
    words = _ASSETS.split()
    listed = [_asset(name, float(usd)) for name, usd in zip(words[::2], words[1::2], strict=True)]
    return {asset.name: asset for asset in (*listed, *_CURRENCIES)}


@cache
def pairs() -> tuple[Pair, ...]:
    """Return every line of the listing: spot, then swaps, then dated contracts."""
    tables = ((MarketType.SPOT, _SPOT), (MarketType.SWAP, _SWAP), (MarketType.FUTURE, _FUTURE))
    return tuple(
        _pair(line.split(), kind) for kind, table in tables for line in table.strip().splitlines()
    )


@cache
def outages() -> tuple[Interval, ...]:
    """Return the halts of the whole exchange, in order."""
    return tuple(
        Interval(*(_ms(word) for word in line.split())) for line in _OUTAGES.strip().splitlines()
    )


def _asset(name: str, usd: float) -> Asset:
    if name == "BTC":
        return Asset(name, usd, spread=0.7, daily=0.014, beta=1.0)
    if name in _WILD:
        return Asset(name, usd, spread=1.1, daily=0.045, beta=1.3)
    return Asset(name, usd, spread=0.8, daily=0.026, beta=1.1)


def _pair(words: list[str], kind: MarketType) -> Pair:
    name, price_decimals, lot_decimals, turnover, listed, *delisted = words
    base, quote = name.split("/")
    return Pair(
        base,
        quote,
        kind,
        int(price_decimals),
        int(lot_decimals),
        float(turnover) * 1e6,
        _ms(listed),
        _ms(delisted[0]) if delisted else None,
    )


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
