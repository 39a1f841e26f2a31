"""The common result of all decoders, and what a name or a file says about its candles. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from backtester.data.candles import COLUMNS
from backtester.data.errors import CandleError
from backtester.data.model import MarketType, Timeframe

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NOTHING_SAID", "NO_TIME", "Found", "Parted", "Rows", "Said"]


@dataclass(frozen=True, slots=True)
class Said:
    """What is said about candles: by a file's name, by its content, or by the user."""

    exchange: str | None = None
    market_type: MarketType | None = None
    timeframe: Timeframe | None = None
    symbol: str | None = None
    """In any spelling."""

    def over(self, other: Said) -> Said:
        """Return what both say; where both speak, this one counts."""
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        theirs = {f.name: getattr(other, f.name) for f in fields(other)}
        return Said(**{k: theirs[k] if v is None else v for k, v in mine.items()})

    def against(self, other: Said) -> list[str]:
        """List where two contradict each other, symbols aside: those have many spellings."""
        pairs = (
            (f.name.replace("_", " "), getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)
            if f.name != "symbol"
        )
        return [
            f"{name}: {mine} and {theirs}"
            for name, mine, theirs in pairs
            if mine is not None and theirs is not None and mine != theirs
        ]


NOTHING_SAID = Said()
NO_TIME = -(1 << 63)
"""In place of a time that cannot be read; NumPy's NaT is the same number."""
_MOST_SYMBOLS = 20_000
_NAMELESS = PurePath()


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Candles as a file has them: in any order, perhaps padded, unchecked."""

    open_time: NDArray[np.int64]
    """UTC epoch milliseconds, shape (n,); `NO_TIME` where the file has none."""
    values: NDArray[np.float64]
    """Shape (n, 5), columns as in `COLUMNS`; NaN where the file has nothing, infinite where it has
    what cannot be read as a number."""
    unread: str | None = None
    """The first cell that cannot be read as a number; None where all can."""

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.open_time), len(COLUMNS)):
            raise CandleError(f"{len(self.open_time)} times for values {self.values.shape}")

    def __len__(self) -> int:
        return len(self.open_time)

    def take(self, at: NDArray[np.intp]) -> Rows:
        """Return the rows at these positions."""
        return Rows(self.open_time[at], self.values[at])

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Put parts of one series behind each other."""
        return cls(
            np.concatenate([np.empty(0, np.int64), *(part.open_time for part in parts)]),
            np.concatenate([np.empty((0, len(COLUMNS))), *(part.values for part in parts)]),
            next((part.unread for part in parts if part.unread is not None), None),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """One series in a file."""

    where: str
    """The file, and the place in it where it holds several: ``candles.h5/BTC_USDT``."""
    said: Said
    """What the content itself says; what the file's name says is not in it."""
    rows: Rows | None
    """None where `problem` or a note says why there are none."""
    last_closed: bool = False
    """Whether the last candle is known to have been finished when the file was written."""
    notes: tuple[str, ...] = ()
    """What was assumed on the way; without rows or problem, why it is no matter for us."""
    problem: CandleError | None = None
    """Why nothing of it can be taken, such as closes alone."""
    symbol_in_rows: bool = False
    """Whether every row says the symbol that `said` has: no flag and no name makes it another."""
    name: PurePath = _NAMELESS
    """The path of the file, or of a compressed file's member, which may say more."""


class Parted:
    """The rows of one table by the symbol that stands in them; None where none does."""

    def __init__(self) -> None:
        self._parts: dict[str | None, list[Rows]] = {}

    def add(self, rows: Rows, symbols: Sequence[str | None]) -> None:
        """Add rows: of one symbol where there is one, else each of its own."""
        if len(symbols) == 1:
            self._parts.setdefault(symbols[0], []).append(rows)
            return
        numbers: dict[str | None, int] = {}
        which = np.array([numbers.setdefault(one, len(numbers)) for one in symbols], np.intp)
        order = np.argsort(which, kind="stable")
        edges = np.cumsum(np.bincount(which, minlength=len(numbers)))[:-1]
        for symbol, at in zip(numbers, np.split(order, edges), strict=False):
            part = rows.take(at)
            if np.isinf(part.values).any():
                part = replace(part, unread=rows.unread)
            self._parts.setdefault(symbol, []).append(part)
        if len(self._parts) > _MOST_SYMBOLS:
            raise CandleError(f"it has more than {_MOST_SYMBOLS} symbols in one table")

    def series(self, like: Found) -> Iterator[Found]:
        """Return a series per symbol; `like` says what they have in common."""
        several = len(self._parts) > 1
        for symbol, parts in (self._parts or {None: []}).items():
            rows = Rows.joined(parts)
            if symbol is not None:
                where = f"{like.where}/{symbol}" if several else like.where
                said = Said(symbol=symbol).over(like.said)
                yield replace(like, where=where, said=said, rows=rows, symbol_in_rows=True)
            elif several:
                problem = CandleError(f"{len(rows)} rows of it have no symbol, and others have")
                yield replace(like, rows=None, problem=problem)
            else:
                yield replace(like, rows=rows)
