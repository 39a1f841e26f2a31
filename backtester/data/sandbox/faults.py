"""Faults as switches: what exchanges and networks do wrong, on demand.

A rule says what goes wrong, and when: always, the first n times, every n-th
time, by chance; for all calls or some. The same switches work for every
dialect, since rows are reached through it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from threading import RLock
from typing import Any, Final

from backtester.data.model import Timeframe
from backtester.data.sandbox.dialects import Call, Columns, Dialect, Page, Reply
from backtester.data.sandbox.spelling import plain

__all__ = ["Delivery", "Fault", "Faults", "Rule"]


class Fault(StrEnum):
    """What can go wrong."""

    HTTP_429 = "429"
    """Too many requests, with ``Retry-After: retry_after_s``."""
    HTTP_418 = "418"
    """Banned, with ``Retry-After: retry_after_s``."""
    HTTP_403 = "403"
    HTTP_404 = "404"
    HTTP_451 = "451"
    HTTP_500 = "500"
    HTTP_502 = "502"
    HTTP_503 = "503"
    HTTP_504 = "504"
    DISCONNECTED = "disconnected"
    """The exchange's own "try again": Binance's -1001 with status 500."""
    MAINTENANCE = "maintenance"

    RESET = "reset"
    """The connection is reset before any answer."""
    SLOW_BODY = "slow body"
    """The body takes `delay_s` to arrive."""
    HANGING_BODY = "hanging body"
    """Half the body, and then nothing for as long as the client stays."""
    CUT_BODY = "cut body"
    """Half the body, and then the connection is closed: Content-Length promised more."""

    CUT_JSON = "cut json"
    """Status 200, half the JSON, and a Content-Length that agrees."""
    HTML = "html"
    """Status 200 and a web page."""
    EMPTY_BODY = "empty body"

    EMPTY_LIST = "empty list"
    DUPLICATE_ROWS = "duplicate rows"
    """The last row of a page comes twice."""
    SHUFFLED_ROWS = "shuffled rows"
    DESCENDING_ROWS = "descending rows"
    NULL_FIELD = "null field"
    OFF_GRID_ROW = "off-grid row"
    """One open time is a second late."""
    OUT_OF_WINDOW_ROWS = "out-of-window rows"
    """One row more at each end, outside of what was asked for."""
    INVENTED_ROW = "invented row"
    """The first row also a step earlier: a candle that never was, and looks like any other."""
    NOT_FINITE_ROW = "not-finite row"
    BROKEN_OHLC_ROW = "broken ohlc row"
    """One close stands above its high."""
    SHORT_PAGE = "short page"
    """Only the first half of the rows."""
    REVISION = "revision"
    """A closed candle with other values; switched on by `Faults.revise`."""

    WRONG_CLOCK = "wrong clock"
    """The server's time is off by `offset_ms`."""


_STATUS: Final = {
    Fault.HTTP_403: 403,
    Fault.HTTP_404: 404,
    Fault.HTTP_451: 451,
    Fault.HTTP_500: 500,
    Fault.HTTP_502: 502,
    Fault.HTTP_503: 503,
    Fault.HTTP_504: 504,
}
# Of the delivery: these leave the reply as it is.
_WIRE: Final = frozenset({Fault.RESET, Fault.SLOW_BODY, Fault.HANGING_BODY, Fault.CUT_BODY})
# One row has no order to lose.
_OF_MANY: Final = frozenset({Fault.SHUFFLED_ROWS, Fault.DESCENDING_ROWS, Fault.SHORT_PAGE})

Match = str | Callable[[Call], bool]
"""Which calls a rule is for; see `Faults.add`."""


@dataclass(slots=True, eq=False)
class Rule:
    """One switch that is on; `Faults.remove` switches it off."""

    fault: Fault
    times: int | None = None
    every: int | None = None
    probability: float | None = None
    match: Match | None = None
    retry_after_s: int = 1
    delay_s: float = 1.0
    offset_ms: int = 0
    fired: int = 0
    """How often it has struck."""
    _seen: int = field(default=0, repr=False)
    _dice: random.Random = field(default_factory=random.Random, repr=False)

    def strikes(self, call: Call, symbol: str | None) -> bool:
        """Return whether it strikes this call, and count."""
        if self.times is not None and self.fired >= self.times:
            return False
        if not _matches(self.match, call, symbol):
            return False
        self._seen += 1
        if self.every is not None and self._seen % self.every:
            return False
        if self.probability is not None and self._dice.random() >= self.probability:
            return False
        self.fired += 1
        return True


@dataclass(frozen=True, slots=True)
class Delivery:
    """A reply, and what goes wrong with it or on its way."""

    reply: Reply
    fault: Fault | None = None
    delay_s: float = 0.0


class Faults:
    """The switchboard of a server; safe to use from any thread while it runs."""

    def __init__(self) -> None:
        self._lock = RLock()  # a rule's `match` may itself throw switches
        self._rules: list[Rule] = []
        self._revisions: dict[Page, dict[int, tuple[float, ...]]] = {}

    def add(
        self,
        fault: Fault | str,
        *,
        times: int | None = None,
        every: int | None = None,
        probability: float | None = None,
        seed: int = 0,
        match: Match | None = None,
        retry_after_s: int = 1,
        delay_s: float = 1.0,
        offset_ms: int = 0,
    ) -> Rule:
        """Switch a fault on.

        Parameters
        ----------
        fault : Fault
        times : int, optional
            Strike at most this often. Default: always.
        every : int, optional
            Strike every n-th matching call.
        probability : float, optional
            Strike at random, from a generator seeded with `seed`.
        match : str or callable, optional
            Strike only calls whose path contains this text, or whose symbol it is, as the
            exchange or ccxt spells it; or those for which ``match(call)`` is true.
        retry_after_s : int, default 1
            What a 429 or 418 asks for, seconds.
        delay_s : float, default 1.0
            How long a slow body takes, seconds.
        offset_ms : int, default 0
            How far a wrong clock is ahead, milliseconds.

        Returns
        -------
        Rule
            Its `fired` counts the strikes. Of several rules the first that strikes wins.
        """
        kind = Fault(fault)
        if kind is Fault.REVISION:
            raise ValueError("a revision needs values: use Faults.revise")
        rule = Rule(
            kind, times, every, probability, match, retry_after_s, delay_s, offset_ms,
            _dice=random.Random(seed),
        )  # fmt: skip
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """Switch a fault off; nothing happens when it is off already."""
        with self._lock:
            if rule in self._rules:
                self._rules.remove(rule)

    def revise(
        self, symbol: str, timeframe: str | Timeframe, open_time: int, values: Sequence[float]
    ) -> None:
        """Change a closed candle for good, as exchanges sometimes do.

        Parameters
        ----------
        symbol : str
            Unified.
        timeframe : Timeframe or str
            Only candles of this timeframe change.
        open_time : int
            UTC epoch milliseconds.
        values : sequence of five floats
            Open, high, low, close, volume.
        """
        page = Page(symbol, Timeframe.parse(timeframe))
        with self._lock:
            self._revisions.setdefault(page, {})[open_time] = tuple(values)

    def clear(self) -> None:
        """Switch everything off and forget revisions."""
        with self._lock:
            self._rules.clear()
            self._revisions.clear()

    def befall(self, dialect: Dialect, call: Call, reply: Reply, now_ms: int) -> Delivery:
        """Let the first rule that strikes have its way with a reply, after any revision."""
        with self._lock:
            revisions = dict(self._revisions.get(reply.page, {})) if reply.page else {}
            symbol = dialect.symbol(call)
            rule = next(
                (
                    rule
                    for rule in self._rules
                    if _can_befall(rule.fault, reply) and rule.strikes(call, symbol)
                ),
                None,
            )
        revised = _revised(dialect, reply, revisions) if revisions else reply
        if rule is not None:
            changed = _changed(rule, dialect, call, revised, now_ms)
            return Delivery(changed, rule.fault, rule.delay_s)
        return Delivery(revised, Fault.REVISION if revised is not reply else None)


def _revised(dialect: Dialect, reply: Reply, revisions: dict[int, tuple[float, ...]]) -> Reply:
    rows, at = dialect.rows_of(reply), dialect.columns
    struck = [row for row in rows if row[at.time] in revisions]
    for row in struck:
        cells = (at.open, at.high, at.low, at.close, at.volume)
        for cell, value in zip(cells, revisions[row[at.time]], strict=True):
            row[cell] = plain(value)
    return dialect.with_rows(reply, rows) if struck else reply


def _matches(match: Match | None, call: Call, symbol: str | None) -> bool:
    if match is None:
        return True
    if callable(match):
        return match(call)
    return match in call.path or match in {symbol, call.params.get("symbol")}


def _can_befall(fault: Fault, reply: Reply) -> bool:
    """Return whether a reply has what a fault breaks; a rule does not count those without."""
    if fault in _ROWS:
        return reply.rows >= (2 if fault in _OF_MANY else 1)
    return reply.tells_time or fault is not Fault.WRONG_CLOCK


def _changed(rule: Rule, dialect: Dialect, call: Call, reply: Reply, now_ms: int) -> Reply:
    fault = rule.fault
    if fault in _WIRE:
        return reply
    if fault in _STATUS:
        return dialect.failure(_STATUS[fault])
    if fault in _ROWS:
        assert reply.page is not None
        rows = _ROWS[fault](dialect.rows_of(reply), dialect.columns, reply.page)
        return dialect.with_rows(reply, rows)
    half = reply.body[: len(reply.body) // 2]
    match fault:
        case Fault.HTTP_429:
            return dialect.limited(call, rule.retry_after_s)
        case Fault.HTTP_418:
            return dialect.banned(now_ms + rule.retry_after_s * 1000, rule.retry_after_s)
        case Fault.DISCONNECTED:
            return dialect.disconnected()
        case Fault.MAINTENANCE:
            return dialect.maintenance()
        case Fault.CUT_JSON:
            return replace(reply, body=half)
        case Fault.HTML:
            return Reply(200, _HTML, content_type="text/html")
        case Fault.EMPTY_BODY:
            return replace(reply, body=b"")
        case Fault.WRONG_CLOCK:
            return dialect.with_clock_off(reply, rule.offset_ms)
    raise AssertionError(fault)


_HTML: Final = b"<!DOCTYPE html><html><body><h1>We will be right back</h1></body></html>"


# --------------------------------------------------------------------------- rows

Rows = list[list[Any]]


def _shuffled(rows: Rows, columns: Columns, page: Page) -> Rows:
    return rows[1::2] + rows[::2]


def _off_grid(rows: Rows, columns: Columns, page: Page) -> Rows:
    rows[len(rows) // 2][columns.time] += 1000
    return rows


def _out_of_window(rows: Rows, columns: Columns, page: Page) -> Rows:
    """Add a row before what was asked for and one behind it, as far as that is known.

    Inside, where nobody traded, they would be inventions, which nothing tells from candles.
    """
    first, last, timeframe = list(rows[0]), list(rows[-1]), page.timeframe
    start, end = page.asked or (first[columns.time], last[columns.time])
    if start is not None:
        first[columns.time] = timeframe.next(timeframe.ceil(start), -1)
        rows = [first, *rows]
    if end is not None:
        last[columns.time] = timeframe.next(timeframe.floor(end))
        rows = [*rows, last]
    return rows


def _invented(rows: Rows, columns: Columns, page: Page) -> Rows:
    first = list(rows[0])
    first[columns.time] = page.timeframe.next(first[columns.time], -1)
    return [first, *rows]


def _broken(rows: Rows, columns: Columns, page: Page) -> Rows:
    row = rows[len(rows) // 2]
    row[columns.close] = plain(float(row[columns.high]) * 2)
    return rows


def _with_cell(value: object) -> Callable[[Rows, Columns, Page], Rows]:
    def change(rows: Rows, columns: Columns, page: Page) -> Rows:
        rows[len(rows) // 2][columns.close] = value
        return rows

    return change


_ROWS: Final[dict[Fault, Callable[[Rows, Columns, Page], Rows]]] = {
    Fault.EMPTY_LIST: lambda rows, columns, page: [],
    Fault.DUPLICATE_ROWS: lambda rows, columns, page: [*rows, list(rows[-1])],
    Fault.SHUFFLED_ROWS: _shuffled,
    Fault.DESCENDING_ROWS: lambda rows, columns, page: rows[::-1],
    Fault.NULL_FIELD: _with_cell(None),
    Fault.OFF_GRID_ROW: _off_grid,
    Fault.OUT_OF_WINDOW_ROWS: _out_of_window,
    Fault.INVENTED_ROW: _invented,
    Fault.NOT_FINITE_ROW: _with_cell("NaN"),
    Fault.BROKEN_OHLC_ROW: _broken,
    Fault.SHORT_PAGE: lambda rows, columns, page: rows[: len(rows) // 2],
}
