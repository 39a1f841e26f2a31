"""What is known about exchanges besides candles: volumes, markets, listings, failures, clocks.

Everything here can be fetched again. So everything has an age, and a problem with
the cache never makes a fetch fail.
"""

from __future__ import annotations

import logging
import math
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import orjson

from backtester.data.cache_system.cache_file import CacheFile, Statement
from backtester.data.errors import (
    DataError,
    DateError,
    EmptyIntervalError,
    NoSymbolsError,
    NotServedError,
    OptionError,
    RequestError,
)
from backtester.data.model import Market, MarketType
from backtester.data.settings import DATA_DIR_VARIABLE, data_directory

__all__ = [
    "FAILED_TTL_S",
    "VOLUMES_TTL_S",
    "CacheManager",
    "ClockOffset",
    "FailedSymbol",
]

log = logging.getLogger(__name__)

FILE_NAME = "cache.sqlite"
VOLUMES_TTL_S = 3_600.0
"""How long volumes count as current, in seconds."""
FAILED_TTL_S = 86_400.0
"""How long a failed symbol is left alone, in seconds."""

_ABOUT_THE_SYMBOL = (RequestError, NotServedError)
_ABOUT_THE_QUESTION = (DateError, EmptyIntervalError, NoSymbolsError, OptionError)

_CLOCK_SLACK_MS = 60_000
"""How far in the future a time may lie: two machines may share a directory."""
_DAY_MS = 86_400_000

_VERSION = 2
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS documents (
        exchange TEXT, market_type TEXT, kind TEXT, fetched_ms INTEGER NOT NULL,
        stamp BLOB NOT NULL, body BLOB NOT NULL, PRIMARY KEY (exchange, market_type, kind))""",
    """CREATE TABLE IF NOT EXISTS inceptions (
        exchange TEXT, market_type TEXT, symbol TEXT, open_ms INTEGER NOT NULL,
        source TEXT NOT NULL, PRIMARY KEY (exchange, market_type, symbol)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS failures (
        exchange TEXT, market_type TEXT, symbol TEXT, reason TEXT NOT NULL,
        failed_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL,
        PRIMARY KEY (exchange, market_type, symbol)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS clocks (
        exchange TEXT PRIMARY KEY, offset_ms INTEGER NOT NULL, measured_ms INTEGER NOT NULL,
        booted_ms INTEGER NOT NULL) WITHOUT ROWID""",
)
_TABLES = ("documents", "inceptions", "failures", "clocks")
_VOLUMES, _MARKETS, _UNIFIED, _LIMITS = "volumes", "markets", "unified", "limits"
_FROM_DOCUMENT = "FROM documents WHERE exchange = ? AND market_type = ? AND kind = ?"
_MARKET_FIELDS = tuple(f.name for f in fields(Market))


@dataclass(frozen=True, slots=True)
class FailedSymbol:
    """A symbol an exchange said it does not serve."""

    reason: str
    failed_ms: int
    """UTC epoch milliseconds."""
    expires_ms: int
    """When it is worth asking again, UTC epoch milliseconds."""


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """How far an exchange's clock is ahead of this machine's."""

    offset_ms: int
    """Exchange minus local, milliseconds."""
    measured_ms: int
    """By the local clock, UTC epoch milliseconds."""
    booted_ms: int = field(default=0, compare=False)
    """When this machine's monotonic clock began; see `_booted_ms`."""

    @property
    def of_replay(self) -> bool:
        """Whether the clock is a day or more away from ours: it may be set at any moment."""
        return abs(self.offset_ms) >= _DAY_MS


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_SET_MS = 2_000
"""By how much the clock may jump without having been set: a leap second, and rounding."""


def _booted_ms() -> int:
    """Return when the monotonic clock began, by the wall clock: it moves when that is set."""
    return (time.time_ns() - time.clock_gettime_ns(_STEADY)) // 1_000_000


class CacheManager:
    """A small cache beside the datasets, shared by threads and processes.

    Creating one does nothing: the directory is looked up at every use, and the
    file ``cache.sqlite`` is created in it by the first write. Until then, reading
    gives empty results. An exchange id may be any text, such as one that marks a
    special configuration.

    Parameters
    ----------
    data_dir : path, optional
        See `backtester.data.settings.data_directory`.
    clock : callable, optional
        Returns the current time, UTC epoch milliseconds.

    Notes
    -----
    Saving returns whether the value is kept. If the directory cannot be written,
    it is kept in memory only, and a warning says so. An impossible value raises
    `OptionError`.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        clock: Callable[[], int] = _now_ms,
    ) -> None:
        self._data_dir = data_dir
        self._clock = clock
        self._file = CacheFile(self._path, _VERSION, _SCHEMA)
        self._found: tuple[str | None, str] | None = None
        self._decoded: dict[tuple[str, str, str], tuple[bytes, Any]] = {}

    def close(self) -> None:
        """Close the file until the next use."""
        self._file.close()

    def clear(self, exchange_id: str | None = None) -> bool:
        """Forget everything, or everything about one exchange."""
        where, params = ("", ()) if exchange_id is None else (" WHERE exchange = ?", (exchange_id,))
        if not self._file.exists():
            return True
        return self._file.write(*((f"DELETE FROM {t}{where}", params) for t in _TABLES))  # noqa: S608

    # ------------------------------------------------------------------ volumes

    def get_all_volumes(
        self,
        exchange_id: str,
        market_type: str | MarketType = MarketType.SPOT,
        max_age_s: float | None = None,
    ) -> dict[str, float]:
        """Return the 24 h volumes of a market in quote units, by unified symbol.

        Empty when none are stored, or when they are older than `max_age_s`
        seconds (by default `VOLUMES_TTL_S`; ``math.inf`` takes any age).
        """
        age = VOLUMES_TTL_S if max_age_s is None else max_age_s
        return dict(self._load(exchange_id, market_type, _VOLUMES, age) or {})

    def save_all_volumes(
        self,
        exchange_id: str,
        volumes: Mapping[str, float],
        market_type: str | MarketType = MarketType.SPOT,
        fetched_ms: int | None = None,
    ) -> bool:
        """Replace the volumes of a market by `volumes`, all at once.

        Parameters
        ----------
        exchange_id : str
        volumes : mapping of str to float
            24 h volumes in quote units by unified symbol, finite and not negative.
        market_type : str or MarketType
        fetched_ms : int, optional
            When they were fetched, UTC epoch milliseconds; now when left out.
        """
        body = {symbol: _volume(symbol, volume) for symbol, volume in volumes.items()}
        return self._save(exchange_id, market_type, {_VOLUMES: _encode(body)}, fetched_ms)

    def volumes_fetched_ms(
        self, exchange_id: str, market_type: str | MarketType = MarketType.SPOT
    ) -> int | None:
        """Return when the stored volumes were fetched, UTC epoch milliseconds."""
        return self._fetched_ms(exchange_id, market_type, _VOLUMES)

    # ------------------------------------------------------------------ inception

    def get_inception(
        self, exchange_id: str, market_type: str | MarketType, symbol: str
    ) -> int | None:
        """Return the open time of a symbol's first candle, UTC epoch milliseconds."""
        rows = self._file.read(
            "SELECT open_ms FROM inceptions WHERE exchange = ? AND market_type = ? AND symbol = ?",
            exchange_id, _market(market_type), symbol,
        )  # fmt: skip
        return rows[0][0] if rows else None

    def save_inception(
        self,
        exchange_id: str,
        market_type: str | MarketType,
        symbol: str,
        open_ms: int,
        source: str,
    ) -> bool:
        """Keep the open time of a symbol's first candle, as the exchange said it.

        Parameters
        ----------
        exchange_id, market_type, symbol
            What it is about.
        open_ms : int
            UTC epoch milliseconds.
        source : str
            How the exchange said it, such as ``"first candle"`` or ``"market's created time"``;
            never a guess of ours.
        """
        if not 0 <= open_ms <= self._clock() + _CLOCK_SLACK_MS:
            raise OptionError(
                f"{open_ms} ms is no time of a first candle of {symbol!r}", value=open_ms
            )
        if not source.strip():
            raise OptionError(f"the first candle of {symbol!r} needs a source", value=source)
        row = (exchange_id, _market(market_type), symbol, int(open_ms), source)
        return self._file.write(("REPLACE INTO inceptions VALUES (?, ?, ?, ?, ?)", row))

    def get_all_timestamps(
        self, exchange_id: str, market_type: str | MarketType = MarketType.SPOT
    ) -> dict[str, int]:
        """Return all known open times of first candles, UTC epoch milliseconds by symbol."""
        rows = self._file.read(
            "SELECT symbol, open_ms FROM inceptions WHERE exchange = ? AND market_type = ?",
            exchange_id, _market(market_type),
        )  # fmt: skip
        return dict(rows)

    # ------------------------------------------------------------------ failures

    def get_failed(
        self, exchange_id: str, market_type: str | MarketType = MarketType.SPOT
    ) -> dict[str, FailedSymbol]:
        """Return the symbols that are not worth asking again yet."""
        now = self._clock()
        rows = self._file.read(
            "SELECT symbol, reason, failed_ms, expires_ms FROM failures"
            " WHERE exchange = ? AND market_type = ? AND expires_ms > ? AND failed_ms <= ?",
            exchange_id, _market(market_type), now, now + _CLOCK_SLACK_MS,
        )  # fmt: skip
        return {symbol: FailedSymbol(*facts) for symbol, *facts in rows}

    def save_failed(
        self,
        exchange_id: str,
        market_type: str | MarketType,
        symbol: str,
        error: DataError,
        ttl_s: float = FAILED_TTL_S,
    ) -> bool:
        """Remember that an exchange does not serve a symbol, for `ttl_s` seconds.

        Returns
        -------
        bool
            False when nothing was remembered: the error is about the wire, our
            address or the question, and says nothing about the symbol.
        """
        if not isinstance(error, _ABOUT_THE_SYMBOL) or isinstance(error, _ABOUT_THE_QUESTION):
            return False
        if not (math.isfinite(ttl_s) and ttl_s > 0):
            raise OptionError(f"a failure cannot be remembered for {ttl_s!r} s", value=ttl_s)
        now = self._clock()
        row = (exchange_id, _market(market_type), symbol, str(error), now, now + int(ttl_s * 1000))
        return self._file.write(
            ("DELETE FROM failures WHERE expires_ms <= ?", (now,)),
            ("REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?)", row),
        )

    def clear_failed(
        self,
        exchange_id: str,
        market_type: str | MarketType | None = None,
        symbol: str | None = None,
    ) -> bool:
        """Forget failures of an exchange, of one of its markets, or of one symbol."""
        market = None if market_type is None else _market(market_type)
        if not self._file.exists():
            return True
        return self._file.write(
            (
                "DELETE FROM failures WHERE exchange = ?1 AND market_type = ifnull(?2, market_type)"
                " AND symbol = ifnull(?3, symbol)",
                (exchange_id, market, symbol),
            )
        )

    # ------------------------------------------------------------------ markets

    def get_markets(
        self,
        exchange_id: str,
        market_type: str | MarketType = MarketType.SPOT,
        max_age_s: float | None = None,
    ) -> list[Market] | None:
        """Return the markets of one type; None when none are stored, or only older ones.

        Parameters
        ----------
        exchange_id, market_type
            Whose.
        max_age_s : float, optional
            In seconds; any age when left out. An old list still knows what is in it; only a
            fresh one proves that a symbol is missing, see `markets_fetched_ms`.
        """
        known = self._markets(exchange_id, market_type, max_age_s)
        return None if known is None else list(known.values())

    def get_market(
        self,
        exchange_id: str,
        market_type: str | MarketType,
        symbol: str,
        max_age_s: float | None = None,
    ) -> Market | None:
        """Look one symbol up; None alone does not prove it missing, see `get_markets`."""
        return (self._markets(exchange_id, market_type, max_age_s) or {}).get(symbol)

    def get_unified_markets(
        self,
        exchange_id: str,
        market_type: str | MarketType = MarketType.SPOT,
        max_age_s: float | None = None,
    ) -> list[dict[str, Any]] | None:
        """Return the markets as ccxt describes them, for `set_markets`; see `get_markets`."""
        age = math.inf if max_age_s is None else max_age_s
        known: list[dict[str, Any]] | None = self._load(exchange_id, market_type, _UNIFIED, age)
        return known

    def save_markets(
        self,
        exchange_id: str,
        market_type: str | MarketType,
        markets: Sequence[Market],
        unified: Sequence[Mapping[str, Any]] | None = None,
        fetched_ms: int | None = None,
    ) -> bool:
        """Replace the markets of one type, all at once.

        Parameters
        ----------
        exchange_id, market_type
            Whose.
        markets : sequence of Market
        unified : sequence of dict, optional
            The same as ccxt describes them; best without their bulky ``info``.
        fetched_ms : int, optional
            When they were fetched, UTC epoch milliseconds; now when left out.

        Returns
        -------
        bool
            False when they are not kept, or `unified` is not, because it is not JSON.
        """
        rows = [[getattr(market, name) for name in _MARKET_FIELDS] for market in markets]
        bodies: dict[str, bytes | None] = {_UNIFIED: None}
        bodies[_MARKETS] = _encode({"fields": _MARKET_FIELDS, "rows": rows})
        whole = True
        if unified is not None:
            try:
                bodies[_UNIFIED] = _encode(unified)
            except TypeError as error:
                log.warning("%s's markets are cached without ccxt's view: %s", exchange_id, error)
                whole = False
        return self._save(exchange_id, market_type, bodies, fetched_ms) and whole

    def markets_fetched_ms(
        self, exchange_id: str, market_type: str | MarketType = MarketType.SPOT
    ) -> int | None:
        """Return when the stored markets were fetched, UTC epoch milliseconds."""
        return self._fetched_ms(exchange_id, market_type, _MARKETS)

    def _markets(
        self, exchange_id: str, market_type: str | MarketType, max_age_s: float | None
    ) -> dict[str, Market] | None:
        age = math.inf if max_age_s is None else max_age_s
        known: dict[str, Market] | None = self._load(exchange_id, market_type, _MARKETS, age)
        return known

    # ------------------------------------------------------------------ clocks

    def get_clock_offset(self, exchange_id: str) -> ClockOffset | None:
        """Return the last measured offset of an exchange's clock, whatever its age.

        None if this machine has restarted or its clock was set since then, because the offset is
        no longer valid.
        """
        rows = self._file.read(
            "SELECT offset_ms, measured_ms, booted_ms FROM clocks WHERE exchange = ?", exchange_id
        )
        if not rows or abs(rows[0][2] - _booted_ms()) > _SET_MS:
            return None
        return ClockOffset(*rows[0])

    def save_clock_offset(
        self, exchange_id: str, offset_ms: int, measured_ms: int | None = None
    ) -> bool:
        """Keep how far an exchange's clock is ahead of ours, in milliseconds."""
        when = self._clock() if measured_ms is None else measured_ms
        row = (exchange_id, int(offset_ms), int(when), _booted_ms())
        return self._file.write(("REPLACE INTO clocks VALUES (?, ?, ?, ?)", row))

    # ------------------------------------------------------------------ limits

    def get_limits(
        self, exchange_id: str, market_type: str | MarketType = MarketType.SPOT
    ) -> list[tuple[int, float]]:
        """Return the request limits an exchange has stated: (weight, window in seconds) pairs."""
        return list(self._load(exchange_id, market_type, _LIMITS, math.inf) or [])

    def save_limits(
        self,
        exchange_id: str,
        market_type: str | MarketType,
        limits: Sequence[tuple[int, float]],
    ) -> bool:
        """Keep the request limits an exchange states: (weight, window in seconds) pairs."""
        return self._save(exchange_id, market_type, {_LIMITS: _encode(list(limits))}, None)

    # ------------------------------------------------------------------ documents

    def _path(self) -> str:
        # Finding the directory may take longer than the query; only this can change it.
        named = os.environ.get(DATA_DIR_VARIABLE)
        if self._found is None or self._found[0] != named:
            self._found = named, os.fspath(data_directory(self._data_dir) / FILE_NAME)
        return self._found[1]

    def _fetched_ms(self, exchange_id: str, market_type: str | MarketType, kind: str) -> int | None:
        rows = self._file.read(
            f"SELECT fetched_ms {_FROM_DOCUMENT}", exchange_id, _market(market_type), kind
        )
        return rows[0][0] if rows else None

    def _load(
        self, exchange_id: str, market_type: str | MarketType, kind: str, max_age_s: float
    ) -> Any:
        """Return a document that is fresh enough; None when there is none."""
        key = (exchange_id, _market(market_type), kind)
        rows = self._file.read(f"SELECT fetched_ms, stamp {_FROM_DOCUMENT}", *key)
        if not rows or not self._is_fresh(rows[0][0], max_age_s):
            return None
        stamp, value = self._decoded.get(key, (b"", None))
        if stamp == rows[0][1]:
            return value
        rows = self._file.read(f"SELECT stamp, body {_FROM_DOCUMENT}", *key)
        if not rows:
            return None
        try:
            value = _BUILD[kind](orjson.loads(zlib.decompress(rows[0][1])))
        except (zlib.error, ValueError, TypeError, KeyError) as error:
            self._file.set_aside(f"{exchange_id} {kind}: {error}")
            return None
        if kind != _UNIFIED:  # large, changeable by whoever gets it, and needed once
            self._decoded[key] = rows[0][0], value
        return value

    def _save(
        self,
        exchange_id: str,
        market_type: str | MarketType,
        bodies: Mapping[str, bytes | None],
        fetched_ms: int | None,
    ) -> bool:
        """Replace documents, all or none; a body of None removes the document."""
        when = self._clock() if fetched_ms is None else int(fetched_ms)
        steps: list[Statement] = []
        for kind, body in bodies.items():
            key = (exchange_id, _market(market_type), kind)
            if body is None:
                steps.append((f"DELETE {_FROM_DOCUMENT}", key))
            else:
                row = (*key, when, os.urandom(8), body)
                steps.append(("REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?)", row))
        return self._file.write(*steps)

    def _is_fresh(self, fetched_ms: int, max_age_s: float) -> bool:
        age_ms = self._clock() - fetched_ms
        return max_age_s == math.inf or -_CLOCK_SLACK_MS <= age_ms <= max_age_s * 1000


def _market(market_type: str | MarketType) -> str:
    return MarketType.parse(market_type).value


def _volume(symbol: str, value: float) -> float:
    try:
        volume = float(value)
    except (TypeError, ValueError):
        volume = math.nan
    if not (math.isfinite(volume) and volume >= 0):
        raise OptionError(
            f"{value!r} is no volume of {symbol!r}: it must be a finite number, not negative",
            symbol=symbol,
            value=value,
        )
    return volume


def _encode(value: Any) -> bytes:
    # The cheapest level; its checksum is what tells damage.
    return zlib.compress(orjson.dumps(value), 1)


def _build_markets(body: dict[str, Any]) -> dict[str, Market] | None:
    """Build markets by symbol from rows in the order of `Market`'s fields."""
    if tuple(body["fields"]) != _MARKET_FIELDS:
        return None  # kept by another version of this package
    types = {str(known): known for known in MarketType}
    at = _MARKET_FIELDS.index("type")
    markets = {}
    for row in body["rows"]:
        row[at] = types[row[at]]
        market = Market(*row)
        markets[market.symbol] = market
    return markets


def _build_limits(rows: list[Any]) -> list[tuple[int, float]]:
    return [(int(weight), float(window_s)) for weight, window_s in rows]


_BUILD: dict[str, Callable[[Any], Any]] = {
    _VOLUMES: dict,
    _MARKETS: _build_markets,
    _UNIFIED: list,
    _LIMITS: _build_limits,
}
