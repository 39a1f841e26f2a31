r"""The journal beside a pickle: answers of a running fetch, appended as they come.

Rewriting a pickle for every page would cost the square of a long fetch. So
pages go into an append-only file of checksummed records and are folded into the
pickle later. A reader applies the journal on top of the pickle.

Layout, all integers little-endian::

    record   magic "VJ1\\n" · meta length u32 · data length u32 · crc32 u32 · meta · data
    meta     JSON; of the first record {"journal": id, "dataset": stem}, of the
             others {"symbol", "start", "end", "served", "asked_ms", "candles"}
    data     open times int64 (n,), then values float64 (n, 5), row after row

A record that reaches past the end of the file was being written when its writer
was killed: it was never acknowledged, and the next writer cuts it off. A record
that is there in full but whose checksum fails is damage, and said so.
"""

from __future__ import annotations

import os
import secrets
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from backtester.data.candles import COLUMNS, Answer, Candles
from backtester.data.errors import CandleError, EmptyIntervalError
from backtester.data.model import DatasetKey, Interval, Served
from backtester.data.storage import files

__all__ = ["Journal", "extend", "parse", "read"]

_MAGIC = b"VJ1\n"
_HEAD = struct.Struct("<4sIII")
_WIDTH = len(COLUMNS)


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal as read."""

    id: str
    """Names this journal; the pickle notes which journal it has folded in, and how far."""
    answers: tuple[Answer, ...]
    offsets: tuple[int, ...]
    """Where each answer's record begins, bytes."""
    sound_bytes: int
    """How far the records are whole and sound."""
    problem: str | None = None
    """What is wrong behind that, if it is more than a record cut off by a kill."""

    def since(self, journal_id: str | None, offset: int) -> list[Answer]:
        """Give the answers that the pickle does not have yet."""
        if journal_id != self.id:
            return list(self.answers)
        return [
            answer
            for answer, begin in zip(self.answers, self.offsets, strict=True)
            if begin >= offset
        ]


_NONE = Journal("", (), (), 0)


def read(path: Path, key: DatasetKey) -> Journal:
    """Read the journal of a dataset; an empty one where there is no file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _NONE
    return parse(data, key)


def parse(data: bytes, key: DatasetKey) -> Journal:
    """Read a journal from its bytes, up to the first record that is cut off or damaged."""
    at, journal_id = 0, ""
    answers: list[Answer] = []
    offsets: list[int] = []
    problem: str | None = None
    while at < len(data):
        record = _record(data, at)
        if record is None:
            break
        if isinstance(record, str):
            problem = record
            break
        meta, body, end = record
        try:
            if at == 0:
                journal_id = _identify(meta, key)
            else:
                answers.append(_decode(meta, body))
                offsets.append(at)
        except (KeyError, TypeError, ValueError, CandleError, EmptyIntervalError) as error:
            problem = f"the record at byte {at} does not make sense: {error}"
            break
        at = end
    return Journal(journal_id, tuple(answers), tuple(offsets), at, problem)


def extend(path: Path, key: DatasetKey, answers: Iterable[Answer], sound_bytes: int) -> int:
    """Append answers durably; call under the dataset's lock.

    Parameters
    ----------
    path : Path
    key : DatasetKey
    answers : iterable of Answer
    sound_bytes : int
        How far the file is known to be sound; what a killed writer left behind is cut off.

    Returns
    -------
    int
        How far the file is sound now.
    """
    parts = []
    if sound_bytes == 0:
        parts.append(_encode({"journal": secrets.token_hex(8), "dataset": key.stem}, b""))
    parts.extend(_encode_answer(answer) for answer in answers)
    data = b"".join(parts)
    with files.writing(path):
        if path.exists() and path.stat().st_size > sound_bytes:
            os.truncate(path, sound_bytes)
    files.append(path, data)
    return sound_bytes + len(data)


def _record(data: bytes, at: int) -> tuple[dict[str, Any], bytes, int] | str | None:
    """Read one record: its parts, or None when it is cut off, or what is wrong with it."""
    if at + _HEAD.size > len(data):
        return None
    magic, meta_bytes, data_bytes, checksum = _HEAD.unpack_from(data, at)
    if magic != _MAGIC:
        return f"no record begins at byte {at}"
    begin = at + _HEAD.size
    end = begin + meta_bytes + data_bytes
    if end > len(data):
        return None
    if zlib.crc32(data[begin:end]) != checksum:
        return f"the record at byte {at} fails its checksum"
    return orjson.loads(data[begin : begin + meta_bytes]), data[begin + meta_bytes : end], end


def _encode(meta: dict[str, Any], body: bytes) -> bytes:
    head = orjson.dumps(meta)
    checksum = zlib.crc32(body, zlib.crc32(head))
    return _HEAD.pack(_MAGIC, len(head), len(body), checksum) + head + body


def _encode_answer(answer: Answer) -> bytes:
    candles = answer.candles
    meta = {
        "symbol": answer.symbol,
        "start": answer.interval.start,
        "end": answer.interval.end,
        "served": answer.served.value,
        "asked_ms": answer.asked_ms,
        "candles": len(candles),
    }
    times = candles.open_time.astype("<i8", copy=False).tobytes()
    return _encode(meta, times + candles.values.astype("<f8", copy=False).tobytes())


def _decode(meta: dict[str, Any], body: bytes) -> Answer:
    count = int(meta["candles"])
    if len(body) != count * 8 * (1 + _WIDTH):
        raise ValueError(f"{len(body)} bytes for {count} candles")
    times = np.frombuffer(body, "<i8", count).astype(np.int64)
    values = np.frombuffer(body, "<f8", offset=8 * count).astype(np.float64)
    return Answer(
        str(meta["symbol"]),
        Interval(int(meta["start"]), int(meta["end"])),
        Candles(times, values.reshape(count, _WIDTH)),
        Served(meta["served"]),
        int(meta["asked_ms"]),
    )


def _identify(meta: dict[str, Any], key: DatasetKey) -> str:
    if meta["dataset"] != key.stem:
        raise ValueError(f"it belongs to {meta['dataset']}, not to {key.stem}")
    return str(meta["journal"])
