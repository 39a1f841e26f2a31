"""Random walks that can be entered anywhere: a price path without a history.

Every number is hashed from (key, index), never drawn in sequence, so minute
four billion costs what minute four costs. A path is a Brownian bridge between
days, over a Brownian bridge between anchors 512 days apart: it moves like a
market from minute to minute and still cannot drift away over the decades.

Only additions, multiplications, divisions, square roots and integer arithmetic
are used: IEEE 754 rounds those alike everywhere, which it does not promise for
`exp` or `sin`. So a candle has the same bits on every machine.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from backtester.data.sandbox.universe import Asset

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MINUTES", "Paths", "bits", "fields", "growth", "key", "units"]

MINUTES = 1440
"""Minutes of a day."""

_ANCHOR_DAYS = 512
_FRACTION_OF_DAY = np.arange(MINUTES + 1) / MINUTES
_FRACTION_OF_BLOCK = np.arange(_ANCHOR_DAYS + 1) / _ANCHOR_DAYS
_MARKET = Asset("", 1.0, spread=0.35, daily=0.02, beta=0.0)  # what all assets share
# A step is the sum of two uniform 16-bit numbers: this is its standard deviation.
_STEP = (2 / 12) ** 0.5 * 65536

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = (np.uint64(shift) for shift in (30, 27, 31, 11))


def key(*words: object) -> np.uint64:
    """Return a 64-bit key for what `words` name."""
    text = "\x1f".join(str(word) for word in words)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def bits(stream: np.uint64, index: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash indices into 64 random bits each: the output function of SplitMix64.

    Parameters
    ----------
    stream : uint64
        Which numbers: a `key`.
    index : int64, any shape

    Returns
    -------
    uint64, same shape

    Notes
    -----
    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    z = index.astype(np.uint64)
    z *= _GOLDEN
    z += stream
    z ^= z >> _30
    z *= _MIX_1
    z ^= z >> _27
    z *= _MIX_2
    z ^= z >> _31
    return z


def units(stream: np.uint64, index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Hash indices into uniform numbers of [0, 1)."""
    return np.asarray((bits(stream, index) >> _11) * 2.0**-53, np.float64)


def fields(words: NDArray[np.uint64], width: int) -> NDArray[np.uint64]:
    """Cut random words into `width`-bit numbers along a new last axis, lowest bits first."""
    # Stated as little-endian, so that the same bits mean the same number everywhere.
    cut = words.astype("<u8", copy=False).view(f"<u{width // 8}")
    return cut.reshape(*words.shape, 64 // width)


def growth(eighths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a factor close to ``exp(8 * eighths)``, from multiplications alone.

    ``(1 + u + u²/2)⁸``: positive everywhere, within 2 % of the exponential up
    to a factor of four either way, which is all an invented price needs.
    """
    factor = eighths * 0.5
    factor += 1.0
    factor *= eighths
    factor += 1.0
    for _ in range(3):
        factor *= factor
    return factor


class Paths:
    """The paths of all assets under one seed.

    Parameters
    ----------
    seed : int
        Another seed, another history.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        # Bounded: a block is 4 KB, and there are a handful per asset and decade.
        self._block = lru_cache(maxsize=2048)(self._compute_block)

    def days(self, asset: Asset, first_day: int, count: int) -> NDArray[np.float64]:
        """Return the logarithm of an asset's level at 00:00 UTC of consecutive days.

        Parameters
        ----------
        asset : Asset
        first_day : int
            Days since the epoch.
        count : int

        Returns
        -------
        float64 (count,)
        """
        own = self._walk(asset, first_day, count)
        return own + asset.beta * self._walk(_MARKET, first_day, count) if asset.beta else own

    def minutes(
        self, asset: Asset, first_day: int, levels: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return an asset's level at every minute of consecutive days, as a factor on its `usd`.

        Parameters
        ----------
        asset : Asset
        first_day : int
            Days since the epoch.
        levels : float64 (days + 1,)
            Logarithms at 00:00 of each day and of the one after the last.

        Returns
        -------
        float64 (days, 1441)
            Each row runs from 00:00 to 24:00 inclusive.
        """
        days = len(levels) - 1
        index = np.arange(first_day * MINUTES, (first_day + days) * MINUTES, dtype=np.int64)
        words = bits(key(self._seed, asset.name, "minute"), index.reshape(days, MINUTES))
        walk = np.zeros((days, MINUTES + 1), np.int64)
        np.cumsum(_steps(words), axis=1, dtype=np.int64, out=walk[:, 1:])
        scale = self._unrest(asset, first_day, days) * (asset.daily / MINUTES**0.5 / _STEP / 8)
        ends = levels / 8
        # The slope takes out where the walk ends, its bias included: a bridge.
        slope = ends[1:] - ends[:-1] - scale * walk[:, -1]
        path = walk * scale[:, None]
        path += slope[:, None] * _FRACTION_OF_DAY
        path += ends[:-1, None]
        return growth(path)

    def _unrest(self, asset: Asset, first_day: int, days: int) -> NDArray[np.float64]:
        """Some days are calm and some are not: a factor around 1 for each."""
        index = np.arange(first_day, first_day + days, dtype=np.int64)
        unit = units(key(self._seed, asset.name, "unrest"), index)
        return 0.5 + 1.5 * unit * unit

    def _walk(self, asset: Asset, first_day: int, count: int) -> NDArray[np.float64]:
        first, last = first_day // _ANCHOR_DAYS, (first_day + count - 1) // _ANCHOR_DAYS
        blocks = np.concatenate([self._block(asset, block) for block in range(first, last + 1)])
        start = first_day - first * _ANCHOR_DAYS
        return blocks[start : start + count]

    def _compute_block(self, asset: Asset, block: int) -> NDArray[np.float64]:
        anchors = units(key(self._seed, asset.name, "anchor"), np.arange(block, block + 2))
        ends = (anchors * 2 - 1) * asset.spread
        index = np.arange(block * _ANCHOR_DAYS, (block + 1) * _ANCHOR_DAYS, dtype=np.int64)
        steps = _steps(bits(key(self._seed, asset.name, "day"), index))
        walk = np.concatenate(([0], np.cumsum(steps))) * (asset.daily / _STEP)
        slope = ends[1] - ends[0] - walk[-1]
        level: NDArray[np.float64] = (walk + slope * _FRACTION_OF_BLOCK + ends[0])[:-1]
        level.flags.writeable = False
        return level


def _steps(words: NDArray[np.uint64]) -> NDArray[np.int32]:
    halves = fields(words, 16)
    steps = halves[..., 0].astype(np.int32)
    steps += halves[..., 1]
    return steps
