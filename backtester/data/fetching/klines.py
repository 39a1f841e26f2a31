"""Read a page of Binance's klines straight from its text.

Pure. As JSON a page of 1,000 rows is 12,000 objects that live for a moment;
made into arrays at once it takes half the time. A text is taken for a page only
if all of its punctuation is that of one, so whatever is not goes the way of
every other answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backtester.data.fetching.decimals import Decimals

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KlinesPage"]

_ROW: Final = b'[,"","","","","",,"",,"","",""]'
"""Open time, open, high, low, close, volume, close time, quote volume, trades, taker volume,
taker quote volume, and one that says nothing: numbers of time and trades, texts for the rest."""
_PERIOD: Final = len(_ROW) + 1
_NUMERALS: Final = b"0123456789."
_QUOTE: Final = ord('"')
_QUOTES: Final = _ROW.count(b'"')
_QUOTED: Final = {column: 2 * at for at, column in enumerate((1, 2, 3, 4, 5, 7, 9, 10, 11))}
"""Which of a row's quotes begins the text of a column."""
_TRADES: Final = 8


class KlinesPage(list[Any]):
    """A page whose rows are never made; a list, since ccxt looks whether an answer is one.

    Parameters
    ----------
    text : bytes
        What `of` found to be a page.
    rows : int
    """

    def __init__(self, text: bytes, rows: int) -> None:
        super().__init__()
        self._numbers = Decimals(text)
        quotes = np.flatnonzero(np.frombuffer(text, np.uint8) == _QUOTE)
        self._quotes: NDArray[np.int64] = np.ascontiguousarray(quotes.reshape(rows, _QUOTES).T)

    @classmethod
    def of(cls, answer: str) -> KlinesPage | None:
        """Take an answer for a page of at least one row; None when it is anything else."""
        if not (answer.startswith("[[") and answer.isascii()):
            return None
        text = answer.encode()
        punctuation = text.translate(None, _NUMERALS)
        rows, rest = divmod(len(punctuation) - 1, _PERIOD)
        if rest or punctuation != b"[" + b",".join([_ROW] * rows) + b"]":
            return None
        return cls(text, rows)

    def open_times(self) -> NDArray[np.int64]:
        """Read the open times, UTC epoch milliseconds, (n,).

        Raises
        ------
        ValueError
            One is not a whole number.
        """
        first, last = self._quotes[0], self._quotes[-1]
        starts = np.concatenate(([len("[[")], last[:-1] + len('"],[')))
        return self._numbers.whole(starts, first - 1)

    def columns(self, wanted: Sequence[int]) -> NDArray[np.float64]:
        """Read columns other than times, (n, k), counted from 0 for the open time.

        Raises
        ------
        ValueError
            Something in them is not a number.
        """
        bounds = [self._bounds(column) for column in wanted]
        return self._numbers.columns(
            np.stack([begin for begin, _ in bounds]), np.stack([end for _, end in bounds])
        )

    def _bounds(self, column: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where a column's numbers begin and end, (n,) each."""
        if column == _TRADES:  # without quotes of its own, between two that have them
            return self._quotes[_QUOTED[7] + 1] + len('",'), self._quotes[_QUOTED[9]] - len(",")
        at = _QUOTED[column]
        return self._quotes[at] + 1, self._quotes[at + 1]
