"""Whether SQLite's log of changes (``-wal``), as a killed process leaves it, is damaged.

A log is a header and frames, each a page as some transaction left it; a frame that ends a
transaction says so. SQLite believes frames up to the first whose checksum is wrong, and forgets
the rest without a word: that is what a transaction looks like which was cut off. It is also what
a flipped bit looks like, and then acknowledged transactions are behind it. Since a checksum
continues the one before it, which stands in the file, frames behind a wrong one can be checked.

The last transaction of a log cannot be told from one that was cut off. Nor can a log that was
cut: its end is where its last whole transaction ends.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.uint32]

__all__ = ["index_of", "is_damaged", "path_of"]

# https://www.sqlite.org/fileformat2.html#walformat
_HEADER = struct.Struct(">8I")
_MAGIC = 0x377F0682
"""Its last bit says that checksums are made of big-endian words."""
_FRAME_HEADER_BYTES = 24
_PAGE_SIZES = [1 << power for power in range(9, 17)]
_BATCH_FRAMES = 128


def path_of(path: Path) -> Path:
    """Name the log of a file."""
    return path.with_name(f"{path.name}-wal")


def index_of(path: Path) -> Path:
    """Name the log's index, which processes share and which can be made anew."""
    return path.with_name(f"{path.name}-shm")


def is_damaged(path: Path) -> bool:
    """Tell whether the log of the file at `path` has sound transactions behind a damaged one."""
    log = path_of(path)
    try:
        # What is being written while we read may look damaged, but not twice at the same place.
        first = _damage(log.read_bytes())
        return first is not None and first == _damage(log.read_bytes())
    except FileNotFoundError:
        return False


def _damage(log: bytes) -> int | None:
    """Give where the first damage is that whole transactions stand behind, or None."""
    if len(log) < _HEADER.size:
        return None
    magic, _, page, _, *salts, one, other = _HEADER.unpack_from(log)
    order = ">u4" if magic & 1 else "<u4"
    head = np.frombuffer(log, order, 6).astype(np.uint32)[None]
    sums = _continued(np.zeros((1, 2), np.uint32), head)[0].tolist()
    if magic & ~1 == _MAGIC and sums == [one, other] and page in _PAGE_SIZES:
        heads, sound = _checked(log, page, order, (one, other))
        ours = (heads[:, 2:4] == np.array(salts, np.uint32)).all(axis=1)
        sound &= ours
        first = int(np.argmin(sound)) if not sound.all() else len(sound)
        # Where the next one continues it, the wrong frame is of this log, whatever it says.
        if sound[first + 1 : first + 2].any():
            ours[first] = True
        ends = np.flatnonzero(ours[first:] & (heads[first:, 1] != 0))
        lost = len(ends) and sound[first + int(ends[0]) + 1 :].any()
        return _HEADER.size + first * (_FRAME_HEADER_BYTES + page) if lost else None
    # SQLite takes a log without a sound header for an empty one.
    for page in _PAGE_SIZES:
        for order in ("<u4", ">u4"):
            heads, sound = _checked(log, page, order, (one, other))
            if (sound & (heads[:, 1] != 0)).any():
                return 0
    return None


def _checked(
    log: bytes, page: int, order: str, seed: tuple[int, int]
) -> tuple[Words, NDArray[np.bool_]]:
    """Give the headers of all frames, and which checksums continue those before them."""
    size = _FRAME_HEADER_BYTES + page
    count = (len(log) - _HEADER.size) // size
    frames = np.frombuffer(log, np.uint8, count * size, _HEADER.size).reshape(count, size)
    heads = np.ascontiguousarray(frames[:, :_FRAME_HEADER_BYTES]).view(">u4").astype(np.uint32)
    seeds = np.concatenate([np.array([seed], np.uint32), heads[:-1, 4:6]])
    sound = np.zeros(count, np.bool_)
    for at in range(0, count, _BATCH_FRAMES):  # so that no second copy of the whole is made
        batch = slice(at, at + _BATCH_FRAMES)
        data = np.concatenate([frames[batch, :8], frames[batch, _FRAME_HEADER_BYTES:]], axis=1)
        sums = _continued(seeds[batch], data.view(order).astype(np.uint32, copy=False))
        sound[batch] = (sums == heads[batch, 4:6]).all(axis=1)
    return heads, sound


def _continued(seeds: Words, words: Words) -> Words:
    """Continue checksums over a row of words each.

    SQLite adds words in pairs, ``a += x + b; b += y + a``: linear, so that all rows are done by
    one product with what each word counts for in the end.
    """
    start, weights = _weights(words.shape[1] // 2)
    return words @ weights + seeds @ start


@lru_cache(4)
def _weights(pairs: int) -> tuple[Words, Words]:
    weights = np.empty((pairs, 2, 2), np.uint32)
    step = np.array([[1, 1], [1, 2]], np.uint32)  # of (a, b) on (a, b), as rows
    power = np.eye(2, dtype=np.uint32)
    for at in reversed(range(pairs)):
        weights[at] = np.array([[1, 1], [0, 1]], np.uint32) @ power  # of (x, y) on (a, b)
        power = step @ power
    return power, weights.reshape(2 * pairs, 2)
