"""Numbers as decimal text, a column at a time.

Spelling a page of candles cell by cell costs more than making it, so integers
are spelled four digits at a step, as matrices of ASCII: a row per number,
where a zero byte means "nothing here" and is dropped at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["decimals", "integers", "lines", "literal", "plain"]

_STEP: Final = 10_000
_FOUR_DIGITS: Final = np.array(
    [int.from_bytes(b"%04d" % n, sys.byteorder) for n in range(_STEP)], np.uint32
)


def integers(values: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Spell non-negative integers: uint8 (n, width), zero bytes in front of the shorter ones."""
    return _spelled(values, 0)


def decimals(values: NDArray[np.int64], places: int, padded: int) -> list[NDArray[np.uint8]]:
    """Spell ``values / 10**places`` with `padded` decimals, in parts to be set side by side.

    Parameters
    ----------
    values : int64 (n,)
        Not negative.
    places : int
        How many of the digits are decimals.
    padded : int
        How many decimals to show, at least `places`; 0 shows no point either.
    """
    text = _spelled(values, places)
    if not padded:
        return [text]
    point = text.shape[1] - places
    size = len(values)
    return [
        text[:, :point],
        literal(b".", size),
        text[:, point:],
        literal(b"0" * (padded - places), size),
    ]


def literal(text: bytes, size: int) -> NDArray[np.uint8]:
    """Return the same text for each of `size` rows."""
    return np.broadcast_to(np.frombuffer(text, np.uint8), (size, len(text)))


def lines(parts: Sequence[NDArray[np.uint8]]) -> bytes:
    """Set parts side by side and give all rows as one text."""
    return np.concatenate(parts, axis=1).tobytes().translate(None, b"\0")


def plain(value: float) -> str:
    """Spell a float in the fewest digits that read back to the same bits, without exponent.

    >>> plain(9.1e-06)
    '0.0000091'
    """
    text = repr(value)
    return np.format_float_positional(value, trim="-") if "e" in text else text.removesuffix(".0")


def _spelled(values: NDArray[np.int64], places: int) -> NDArray[np.uint8]:
    width = max(len(str(int(values.max(initial=0)))), places + 1)
    steps = -(-width // 4)
    text = np.empty((len(values), steps), np.uint32)
    rest = values
    for at in range(steps - 1, -1, -1):
        left = rest // _STEP
        text[:, at] = _FOUR_DIGITS[rest - left * _STEP]
        rest = left
    digits = text.view(np.uint8)[:, steps * 4 - width :]
    for at in range(width - places - 1):  # leading zeros, up to the one before the point
        digits[:, at] *= values >= 10 ** (width - 1 - at)
    return digits
