"""What the name of a file, or of a key inside one, says about its candles. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from backtester.data.errors import UnknownMarketTypeError, UnknownTimeframeError
from backtester.data.export_names import symbol_of
from backtester.data.fetching.capabilities import certified
from backtester.data.importing.found import NOTHING_SAID, Said
from backtester.data.model import MarketType, Timeframe

__all__ = ["closed_period", "quoted_as_usual", "said_by_key", "said_by_name", "stem_of", "unified"]

_SUFFIXES = (
    ".pickle", ".pkl", ".blosc", ".csv", ".txt", ".tsv", ".parquet", ".pq", ".feather", ".arrow",
    ".h5", ".hdf5", ".hdf", ".gz", ".bz2", ".zip",
)  # fmt: skip
_TIMEFRAME = r"[1-9][0-9]{0,3}[a-zA-Z]{1,5}"

# binance_spot_1h.pickle.blosc, binance_spot_1h__6f622322.pickle.blosc, binance_spot_1d_BTC-USDT.csv
_OURS = re.compile(
    r"(?P<exchange>[a-z0-9]+)_(?:(?P<market>spot|swap|futures?)_)?"
    rf"(?P<timeframe>{_TIMEFRAME})(?:__[0-9A-Za-z]+|_(?P<symbol>[^_].*))?\Z"
)
# What we export: binance_spot_1h/BTC-USDT/2025.csv; a day, a month, a year or a decade
_PERIOD = re.compile(r"[0-9]{4}(?:-[0-9]{2}){0,2}\Z|[0-9]{3}0s\Z")
# freqtrade: BTC_USDT-1h.feather, BTC_USDT_USDT-1h-futures.feather
_FREQTRADE = re.compile(
    r"(?P<symbol>[A-Z0-9.]+_[A-Z0-9]+(?:_[A-Z0-9]+)?)-(?P<timeframe>[1-9][0-9]*(?:[smhdw]|Mo))"
    r"(?:-(?P<kind>[a-zA-Z_]+))?\Z"
)
# Binance's archives: BTCUSDT-1h-2024-01.zip, BTCUSD_PERP-1d-2024-01-31.csv
_ARCHIVE = re.compile(
    rf"(?P<symbol>[A-Z0-9]+(?:_[A-Z0-9]+)?)-(?P<timeframe>{_TIMEFRAME})-"
    r"(?P<period>[0-9]{4}-[0-9]{2}(?:-[0-9]{2})?)\Z"
)
# Kraken's archives: XBTUSD_60.csv
_KRAKEN = re.compile(r"(?P<symbol>[A-Z0-9]{5,12})_(?P<minutes>1|5|15|30|60|240|720|1440)\Z")
# What people write themselves: BTC-USDT_1h, BTCUSDT-1h, Binance_BTCUSDT_1h
_LOOSE = re.compile(
    r"(?:(?P<exchange>[A-Za-z][a-z0-9]+)[-_])?(?P<symbol>[A-Z0-9]+(?:[-_/:][A-Z0-9]+){0,2})[-_]"
    rf"(?P<timeframe>{_TIMEFRAME})\Z"
)
_IN_KEY = re.compile(rf"(?:tf_)?(?P<timeframe>{_TIMEFRAME})\Z")
_IDLE_KEYS = frozenset({"ohlcv", "candles", "data", "table", "df", "klines", "kline"})
_KRAKEN_MINUTES = {60: "1h", 240: "4h", 720: "12h", 1440: "1d"}
_KRAKEN_BASES = {"XBT": "BTC", "XDG": "DOGE"}

_EXCHANGES = frozenset({"sandbox", *(row[0] for row in certified())})
_QUOTES = (
    "FDUSD", "USDT", "USDC", "BUSD", "TUSD", "USDD", "USDE", "DAI", "USD", "EUR", "GBP", "TRY",
    "BRL", "JPY", "AUD", "KRW", "BTC", "ETH", "BNB",
)  # fmt: skip
_SETTLING = frozenset({"USDT", "USDC", "BUSD", "FDUSD", "USDE"})
"""Quote currencies whose contracts are settled in themselves on every exchange we know."""


def stem_of(name: str) -> str:
    """Return a file's name without the suffixes of formats and compressions.

    >>> stem_of("binance_spot_1h.pickle.blosc")
    'binance_spot_1h'
    """
    stem = PurePath(name).name
    while (suffix := PurePath(stem).suffix.lower()) in _SUFFIXES:
        stem = stem[: -len(suffix)]
    return stem


def said_by_name(path: PurePath) -> Said:
    """Read what a file's path says.

    >>> said_by_name(PurePath("data/binance/BTC_USDT-1h.feather"))
    Said(exchange='binance', market_type=<MarketType.SPOT: 'spot'>, \
timeframe=Timeframe(count=1, unit='h'), symbol='BTC/USDT')
    """
    stem = stem_of(path.name)
    if (exported := _said_by_export(path)) is not None:
        return exported
    if match := _OURS.match(stem):
        exchange = match["exchange"] if match["market"] else _known(match["exchange"])
        return _said(exchange, match["market"], match["timeframe"], match["symbol"])
    if match := _ARCHIVE.match(stem):
        return _said_by_archive(path, match["symbol"], match["timeframe"])
    if match := _FREQTRADE.match(stem):
        return _said_by_freqtrade(path, match)
    if match := _KRAKEN.match(stem):
        minutes, symbol = int(match["minutes"]), match["symbol"]
        base = next((b for b in _KRAKEN_BASES if symbol.startswith(b)), "")
        symbol = _KRAKEN_BASES.get(base, "") + symbol[len(base) :]
        return _said("kraken", "spot", _KRAKEN_MINUTES.get(minutes, f"{minutes}m"), symbol)
    if match := _LOOSE.match(stem):
        return _said(_known(match["exchange"]), None, match["timeframe"], match["symbol"])
    symbol = stem if unified(stem, MarketType.SPOT) else None
    return Said(symbol=symbol)


def closed_period(path: PurePath) -> bool:
    """Return whether a file has closed candles only: an archive of a day or month that was over.

    Of what we export, too, whose last candle had closed.
    """
    archive = _ARCHIVE.match(stem_of(path.name)) is not None
    return archive or _said_by_export(path) is not None


def other_than_candles(path: PurePath) -> str | None:
    """Name what freqtrade keeps in a file beside candles of trades; None for candles."""
    match = _FREQTRADE.match(stem_of(path.name))
    if match is None or match["kind"] in (None, "futures", "spot"):
        return None
    return match["kind"].replace("_", " ")


def _said_by_export(path: PurePath) -> Said | None:
    """Read the folders that `export_data` makes; None for any other."""
    *_, dataset, folder, name = ("", "", *path.parts)
    match, symbol = _OURS.match(dataset), symbol_of(folder)
    if not (match and match["market"] and _PERIOD.match(stem_of(name)) and symbol):
        return None
    if match["symbol"] or "__" in dataset:
        return None
    return _said(match["exchange"], match["market"], match["timeframe"], symbol)


def _said_by_freqtrade(path: PurePath, match: re.Match[str]) -> Said:
    base, quote, *settle = match["symbol"].split("_")
    symbol = f"{base}/{quote}" + (f":{settle[0]}" if settle else "")
    folders = [part for part in path.parts[:-1] if part != "futures"]
    # Its layout is data/{exchange}/[futures/]; any other folder says nothing.
    exchange = _known(folders[-1]) if len(folders) > 1 and folders[-2] == "data" else None
    market = "swap" if match["kind"] == "futures" or settle else "spot"
    return _said(exchange, market, match["timeframe"], symbol)


def _said_by_archive(path: PurePath, symbol: str, timeframe: str) -> Said:
    """Read a name of Binance's archives; spot and futures have the same, in different folders."""
    folders = set(path.parts[:-1])
    market = "swap" if "futures" in folders or symbol.endswith("_PERP") else None
    if "spot" in folders:
        market = "spot"
    if re.search(r"_[0-9]{6}\Z", symbol):
        market = "future"
    coin_margined = symbol.endswith("USD_PERP")
    if coin_margined:
        base = symbol.removesuffix("USD_PERP")
        symbol = f"{base}/USD:{base}"
    return _said("binancecoinm" if coin_margined else "binance", market, timeframe, symbol)


def said_by_key(parts: Sequence[str]) -> Said:
    """Read what the path of a table inside a file says: ``/binance/BTC_USDT/1h``.

    >>> said_by_key(["BTC", "USDT", "ohlcv", "tf_5m"]).symbol
    'BTC/USDT'
    """
    exchange = market = timeframe = None
    names = []
    for part in parts:
        market_type = _market_type(part)
        if part.lower() in _IDLE_KEYS:
            continue
        if market_type is not None:
            market = market_type
        elif (match := _IN_KEY.match(part)) and _timeframe(match["timeframe"]):
            timeframe = match["timeframe"]
        elif _known(part) and len(parts) > 1:
            exchange = part
        else:
            names.append(part)
    # Folders have names, too; but symbols may be written small.
    names = [name for name in names if not (name.isalpha() and name.islower())] or names
    if len(names) == 1:
        said = said_by_name(PurePath(names[0]))
        if said.timeframe is not None:
            return _said(exchange, market, timeframe, None).over(said)
    return _said(exchange, market, timeframe, "/".join(names) or None)


def _said(
    exchange: str | None, market: str | None, timeframe: str | None, symbol: str | None
) -> Said:
    length = _timeframe(timeframe) if timeframe else None
    if timeframe and length is None:
        return NOTHING_SAID
    return Said(exchange.lower() if exchange else None, _market_type(market), length, symbol)


def _known(word: str | None) -> str | None:
    """Return a word if it is the id of an exchange: in a loose name it may be anything."""
    return word.lower() if word and word.lower() in _EXCHANGES else None


def _market_type(text: str | None) -> MarketType | None:
    try:
        return MarketType.parse(text) if text else None
    except UnknownMarketTypeError:
        return None


def _timeframe(text: str) -> Timeframe | None:
    try:
        return Timeframe.parse(text)
    except UnknownTimeframeError:
        return None


def quoted_as_usual(name: str | None) -> bool:
    """Return whether a name is a pair beyond doubt: BTCUSDT is, my_data is not.

    >>> quoted_as_usual("BTC-USDT"), quoted_as_usual("my_data")
    (True, False)
    """
    pair = unified(name, MarketType.SPOT) if name else None
    return pair is not None and pair.partition("/")[2] in _QUOTES


def unified(name: str, market_type: MarketType) -> str | None:
    """Return the unified symbol that a name most likely means; None where that would be a guess.

    A name without a mark between base and quote is cut before a well-known quote currency;
    a swap is taken as settled in its quote where that is a stable coin.

    >>> unified("BTCUSDT", MarketType.SPOT), unified("BTC-USDT", MarketType.SWAP)
    ('BTC/USDT', 'BTC/USDT:USDT')
    """
    if re.fullmatch(r"[^/:\s]+/[^/:\s]+:[^/:\s]+", name):
        return name if market_type is not MarketType.SPOT else None
    full = re.fullmatch(r"[^/:\s]+/[^/:\s]+", name) and not name.islower()
    if full and market_type is MarketType.SPOT:
        return name  # kPEPE/USDC: not every symbol is in capitals
    parts = [part for part in re.split(r"[-_/:]", name.strip()) if part]
    if len(parts) == 1:
        whole = parts[0].upper()
        quote = next((q for q in _QUOTES if whole.endswith(q) and len(whole) > len(q) + 1), None)
        parts = [whole.removesuffix(quote), quote] if quote else []
    if len(parts) not in (2, 3) or not all(part.isalnum() for part in parts):
        return None
    base, quote, *settle = (part.upper() for part in parts)
    if market_type is MarketType.SPOT:
        return f"{base}/{quote}" if not settle else None
    if market_type is MarketType.FUTURE:
        return None  # which contract it is, only its full name tells
    if settle:
        return f"{base}/{quote}:{settle[0]}"
    return f"{base}/{quote}:{quote}" if quote in _SETTLING else None
