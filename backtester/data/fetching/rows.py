"""Read a page of candle rows by columns, with the result that ccxt has row by row.

Pure. Its `parse_ohlcvs` takes some 3 ms for a thousand rows, a function call per
cell. Which cell of a row becomes which number it alone knows, so it is shown a
row of numbers that tell themselves apart; then columns are read instead of
cells. What cannot be read so, or comes out otherwise than ccxt reads the first
and the last row, is left to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RowsPage"]

_PROBE, _STEP = 1_000_003, 7_919
"""The numbers of the row that is shown: far from each other, and from each other's thousandfold."""
_SHORT = 8
_SECOND_MS = 1_000
_NUMBERS = {int, float, str}  # a bool would pass for a number


class RowsPage(list[Any]):
    """A page whose rows were read by columns; a list, since that is what ccxt hands on.

    Parameters
    ----------
    times : int64 (n,)
        UTC epoch milliseconds, in the order of the wire.
    values : float64 (n, 5)
    """

    def __init__(self, times: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        super().__init__()
        self.times = times
        self.values = values

    @classmethod
    def of(cls, rows: Any, parse_one: Callable[[Any], Any]) -> RowsPage | None:
        """Read rows as `parse_one` reads each; None where that cannot be done by columns."""
        if not isinstance(rows, list) or set(map(type, rows)) not in ({list}, {dict}):
            return None
        try:
            cells, scale = _layout(rows[0], parse_one)
            columns = [[row[cell] for row in rows] for cell in cells]
            kinds = [set(map(type, column)) for column in columns]
            if float in kinds[0] or not set().union(*kinds) <= _NUMBERS:
                return None
            times = np.fromiter(map(int, columns[0]), np.int64, len(rows)) * scale
            values = np.empty((len(rows), 5))
            for at, column in enumerate(columns[1:]):
                values[:, at] = np.fromiter(map(float, column), np.float64, len(rows))
            for at in (0, -1):
                if parse_one(rows[at]) != [int(times[at]), *values[at].tolist()]:
                    return None
        except (TypeError, ValueError, LookupError, OverflowError):
            return None
        return cls(times, values)


def _layout(row: Any, parse_one: Callable[[Any], Any]) -> tuple[Sequence[Any], int]:
    """Find out which cells of a row become time, open, high, low, close and volume.

    Returns
    -------
    (sequence, int)
        Their six indices or keys, and how many milliseconds a unit of the first is.

    Raises
    ------
    ValueError
        They are not cells of the row as they stand.
    """
    keys = list(row) if isinstance(row, dict) else list(range(len(row)))
    # A time keeps its length: by that KuCoin's class tells which of two layouts it has.
    numbers = {
        (int(row[key]) if _is_long(row[key]) else _PROBE) + _STEP * at: key
        for at, key in enumerate(keys)
    }
    shown = {key: number if isinstance(row[key], int) else str(number)
             for number, key in numbers.items()}  # fmt: skip
    time, *rest = parse_one(shown if isinstance(row, dict) else list(shown.values()))
    scale = 1 if time in numbers else _SECOND_MS
    if len(rest) != 5 or time % scale or not {time // scale, *rest} <= numbers.keys():
        raise ValueError("a row that is not read cell by cell")
    return [numbers[one] for one in (time // scale, *rest)], scale


def _is_long(cell: Any) -> bool:
    return str(cell).isdecimal() and len(str(cell)) > _SHORT
