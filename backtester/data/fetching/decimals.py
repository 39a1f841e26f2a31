"""Parse decimal numbers from text, thousands at a time, without an object for each.

Pure. The numbers have the bits that `float` gives: a decimal of at most 15
digits is an integer divided by a power of ten, both of which a float holds
exactly, and IEEE 754 rounds a division correctly. What is longer, or written in
another way, is left to `float` itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Decimals"]

_POINT: Final = ord(".")
_WORD: Final = 8
_EXACT: Final = 2**53
_ZEROS, _SIXES, _HIGH_HALVES = (np.uint64(0x0101010101010101 * n) for n in (0x30, 0x06, 0xF0))
_STEPS: Final = tuple(
    (np.uint64(power), np.uint64(bits), np.uint64(halves))
    for power, bits, halves in (
        (10, 8, 0x00FF00FF00FF00FF),
        (100, 16, 0x0000FFFF0000FFFF),
        (10_000, 32, 0x00000000FFFFFFFF),
    )
)


class Decimals:
    """A text with numbers in it, at places that the caller knows.

    Digits are read eight at a step: as one 64-bit word whose bytes are added up
    in pairs, then in fours, then in eights.

    Parameters
    ----------
    text : bytes
        ASCII.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text + b"." * _WORD  # a word may begin in the last cell and end behind it
        self._bytes = np.frombuffer(self._text, np.uint8)
        self._words = np.ndarray((len(text) + 1,), "<u8", self._text, strides=(1,))

    def whole(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """Read whole numbers of at most 16 digits, (n,), each between its start and end.

        Raises
        ------
        ValueError
            Something is not one.
        """
        numbers = self._digits(starts, ends - starts)
        if numbers is None:
            raise ValueError("not whole numbers of at most 16 digits")
        return numbers

    def columns(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.float64]:
        """Read columns of numbers.

        Parameters
        ----------
        starts, ends : int64 (k, n)
            Where each number begins and ends, by column and row.

        Returns
        -------
        float64 (n, k)

        Raises
        ------
        ValueError
            Something is not a number.
        """
        table = np.empty((starts.shape[1], starts.shape[0]))
        if not starts.shape[1]:
            return table
        alike: dict[int, list[int]] = {}  # a column's numbers have as many decimals as its first
        for column, (start, end) in enumerate(zip(starts[:, 0], ends[:, 0], strict=True)):
            point = self._text.find(b".", start, end)
            alike.setdefault(int(end) - 1 - point if point >= 0 else 0, []).append(column)
        for places, some in alike.items():
            everything = len(alike) == 1
            first, last = (starts, ends) if everything else (starts[some], ends[some])
            table[:, some] = self._numbers(first.ravel(), last.ravel(), places).reshape(
                first.shape
            ).T  # fmt: skip
        return table

    def _numbers(
        self, starts: NDArray[np.int64], ends: NDArray[np.int64], places: int
    ) -> NDArray[np.float64]:
        """Read numbers of so many decimals; all one by one where some have others."""
        points = ends - (places + 1) if places else ends
        whole = part = None
        if not places or bool((self._bytes[points] == _POINT).all()):
            whole = self._digits(starts, points - starts)
        if whole is not None and places:
            part = self._digits(points + 1, places)
        if whole is None or (places and part is None):
            return self._one_by_one(starts, ends)
        if part is None:
            part = np.zeros_like(whole)
        # Numbers come padded with zeros: what all have is left out where the integer would not fit.
        if places and not part.any():
            places = 0
        most = int(whole.max())
        while places and most >= _EXACT // 10**places and not (part % 10).any():
            places, part = places - 1, part // 10
        numbers: NDArray[np.float64] = (whole * 10**places + part) / 10.0**places
        if most >= _EXACT // 10**places:
            large = np.flatnonzero(whole >= _EXACT // 10**places)
            numbers[large] = self._one_by_one(starts[large], ends[large])
        return numbers

    def _digits(
        self, starts: NDArray[np.int64], lengths: NDArray[np.int64] | int
    ) -> NDArray[np.int64] | None:
        """Read one to sixteen digits of every number; None when there is anything else."""
        shortest, longest = int(np.min(lengths)), int(np.max(lengths))
        if shortest < 1 or longest > 2 * _WORD:
            return None
        if longest <= _WORD:
            return self._word(starts, lengths, whole=shortest == _WORD)
        high = np.maximum(lengths - _WORD, 0)
        low = self._word(starts + high, lengths - high, whole=shortest >= _WORD)
        upper = self._word(starts, high, whole=shortest == 2 * _WORD)
        return None if low is None or upper is None else upper * 10**_WORD + low

    def _word(
        self, starts: NDArray[np.int64], lengths: NDArray[np.int64] | int, *, whole: bool
    ) -> NDArray[np.int64] | None:
        """Read at most eight digits of every number; `whole` words have just eight."""
        words = self._words[starts]
        words ^= _ZEROS
        if not whole:  # what stands behind the number is pushed out, zeros come in front of it
            words <<= np.asarray(8 * (_WORD - lengths)).astype(np.uint64)
        if (np.bitwise_or.reduce(words | (words + _SIXES)) & _HIGH_HALVES) != 0:
            return None
        for power, bits, halves in _STEPS:
            right = words >> bits
            words *= power
            words += right
            words &= halves
        return words.view(np.int64)

    def _one_by_one(
        self, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        cells = zip(starts.tolist(), ends.tolist(), strict=True)
        return np.array([float(self._text[start:end]) for start, end in cells], np.float64)
