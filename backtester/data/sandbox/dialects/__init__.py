"""The APIs of exchanges, called dialects: one module each, all spoken by one server.

A dialect knows an exchange's routes, parameters, payloads, weights and errors,
and nothing of sockets, threads or faults; it turns a `Call` into a `Reply`. The
server owns the rest. Faults reach into a page of candles through `rows_of` and
`with_rows`, so they need not know where an exchange keeps its rows either.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from backtester.data.errors import OptionError
from backtester.data.model import Timeframe

if TYPE_CHECKING:
    from backtester.data.sandbox.source import MarketSource

__all__ = ["Call", "Columns", "Dialect", "Page", "Rejected", "Reply", "dialect_for"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request as a dialect sees it."""

    path: str
    """Without host and query, such as ``/api/v3/klines``."""
    params: Mapping[str, str]
    family: str
    """The group of endpoints it belongs to, as its dialect names it."""


@dataclass(frozen=True, slots=True)
class Page:
    """What the rows of a reply are candles of."""

    symbol: str
    """Unified."""
    timeframe: Timeframe
    asked: tuple[int | None, int | None] | None = field(default=None, compare=False)
    """The first and the last moment asked for, both inclusive, UTC epoch milliseconds; None where
    the call names none, or the dialect does not say."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer before it goes over the wire."""

    status: int
    body: bytes
    page: Page | None = None
    """Set when the body is a page of candles."""
    rows: int = 0
    """How many candles that page holds."""
    tells_time: bool = False
    """The body holds the exchange's clock."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    def with_headers(self, headers: Mapping[str, str]) -> Reply:
        """Return the same reply with more headers."""
        return replace(self, headers={**self.headers, **headers})


class Rejected(Exception):  # noqa: N818 - control flow, never seen outside
    """A call that the exchange refuses; `reply` is what it answers."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a row of candles keeps its values."""

    time: int
    open: int
    high: int
    low: int
    close: int
    volume: int


class Dialect(Protocol):
    """How one exchange speaks."""

    columns: Columns
    window_s: float
    """How long a request counts against its family's limit, seconds."""
    ccxt_paths: Mapping[str, Any]
    """Keys of ccxt's ``urls['api']``, nested as there, and the paths behind them."""

    def family(self, path: str) -> str | None:
        """Return the group of endpoints that share one weight limit; None for foreign paths."""
        ...

    def limit(self, call: Call) -> int:
        """Return the weight that a window allows in a call's family."""
        ...

    def weight(self, call: Call) -> int:
        """Return the weight of a call."""
        ...

    def symbol(self, call: Call) -> str | None:
        """Return the unified symbol a call asks for; None when it asks for none or many."""
        ...

    def answer(self, call: Call, now_ms: int) -> Reply:
        """Answer a call at a moment of the exchange's clock, UTC epoch milliseconds.

        Raises
        ------
        Rejected
            The call is refused; the server sends its reply.
        """
        ...

    def weight_headers(self, used: int) -> dict[str, str]:
        """Return the headers that tell a client how much weight it has used in this window."""
        ...

    def limited(self, call: Call, retry_after_s: int) -> Reply:
        """Refuse a call because the limit is reached."""
        ...

    def banned(self, until_ms: int, retry_after_s: int) -> Reply:
        """Refuse a call because the address is banned until a moment of the exchange's clock."""
        ...

    def failure(self, status: int) -> Reply:
        """Fail with an HTTP status, as this exchange's front servers word it."""
        ...

    def disconnected(self) -> Reply:
        """Fail with the exchange's own "try again" error."""
        ...

    def maintenance(self) -> Reply:
        """Fail because the whole exchange is being worked on."""
        ...

    def with_clock_off(self, reply: Reply, offset_ms: int) -> Reply:
        """Return a reply that tells the time, with its clock off by `offset_ms`."""
        ...

    def rows_of(self, reply: Reply) -> list[list[Any]]:
        """Take the rows out of a page of candles."""
        ...

    def with_rows(self, reply: Reply, rows: list[list[Any]]) -> Reply:
        """Return the same page with other rows."""
        ...


def dialect_for(
    name: str, market: MarketSource, weight_limits: Mapping[str, int] | None = None
) -> Dialect:
    """Return a dialect by name: what `make` of the module of that name makes.

    Raises
    ------
    OptionError
        There is no such module; it names those there are.
    """
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    known = [one for one in known if not one.endswith(("_payloads", "common"))]
    if name not in known:
        raise OptionError(f"no dialect {name!r}; there are {', '.join(known)}", value=name)
    made: Dialect = import_module(f"{__name__}.{name}").make(market, weight_limits)
    return made
