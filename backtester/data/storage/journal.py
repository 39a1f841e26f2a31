r"""The journal beside a pickle: answers of a running fetch, appended as they come.

Rewriting a pickle for every page would cost the square of a long fetch. So
pages go into an append-only file of checksummed records and are folded into the
pickle later. A reader applies the journal on top of the pickle.

Layout, all integers little-endian::

    record   head · crc32 of the head u32 · meta · data
    head     magic "VJ1\\n" · meta length u32 · data length u32 · crc32 of meta and data u32
    meta     JSON; of the first record {"journal": id, "dataset": stem}, of the
             others {"symbol", "start", "end", "served", "asked_ms", "candles", "columns"}
    data     open times int64 (n,), then values float64 (n, columns), row after row

A record that reaches past the end of the file was being written when its writer
was killed: it was never acknowledged, and the next writer cuts it off. A record
that is there in full but whose checksum fails is damage, and said so; so is a
damaged length, which would hide all records behind it.
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
from backtester.data.errors import CandleError, DatasetWriteError, EmptyIntervalError
from backtester.data.model import DatasetKey, Interval, Served
from backtester.data.storage import files

__all__ = ["NONE", "Journal", "extend", "parse", "read", "replace"]

_MAGIC = b"VJ1\n"
_HEAD = struct.Struct("<4sIII")
_CRC = struct.Struct("<I")
_BEGIN = _HEAD.size + _CRC.size
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
        """Return the answers that the pickle does not have yet."""
        if journal_id != self.id:
            return list(self.answers)
        return [
            answer
            for answer, begin in zip(self.answers, self.offsets, strict=True)
            if begin >= offset
        ]


NONE = Journal("", (), (), 0)
"""Where there is no journal."""


def read(path: Path, key: DatasetKey) -> Journal:
    """Read the journal of a dataset; an empty one where there is no file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return NONE
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
        head, body, end = record
        try:
            meta = orjson.loads(head)
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
    data = _encoded(path, key, answers, begin=sound_bytes == 0)
    with files.writing(path):
        if path.exists() and path.stat().st_size > sound_bytes:
            os.truncate(path, sound_bytes)
    files.append(path, data)
    return sound_bytes + len(data)


def replace(path: Path, key: DatasetKey, answers: Iterable[Answer]) -> int:
    """Put a new journal with these answers in the place of another; errors as in `extend`.

    Returns
    -------
    int
        How far the file is sound now.
    """
    data = _encoded(path, key, answers, begin=True)
    files.replace(path, [data])
    return len(data)


def _encoded(path: Path, key: DatasetKey, answers: Iterable[Answer], *, begin: bool) -> bytes:
    parts = []
    if begin:
        parts.append(_encode({"journal": secrets.token_hex(8), "dataset": key.stem}, b""))
    try:
        parts.extend(_encode_answer(answer) for answer in answers)
    except orjson.JSONEncodeError as error:  # such as half a character in a symbol
        raise DatasetWriteError(f"cannot write {path}: {error}", path=str(path)) from error
    return b"".join(parts)


def _record(data: bytes, at: int) -> tuple[bytes, bytes, int] | str | None:
    """Read one record: meta, data and end, or None when it is cut off, or what is wrong with it."""
    if not data.startswith(_MAGIC[: len(data) - at], at):
        return f"no record begins at byte {at}"
    begin = at + _BEGIN
    if begin > len(data):
        return None
    _, meta_bytes, data_bytes, checksum = _HEAD.unpack_from(data, at)
    if _CRC.unpack_from(data, at + _HEAD.size)[0] != zlib.crc32(data[at : at + _HEAD.size]):
        return f"the head of the record at byte {at} fails its checksum"
    end = begin + meta_bytes + data_bytes
    if end > len(data):
        return None
    if zlib.crc32(data[begin:end]) != checksum:
        return f"the record at byte {at} fails its checksum"
    return data[begin : begin + meta_bytes], data[begin + meta_bytes : end], end


def _encode(meta: dict[str, Any], body: bytes) -> bytes:
    text = orjson.dumps(meta)
    checksum = zlib.crc32(body, zlib.crc32(text))
    head = _HEAD.pack(_MAGIC, len(text), len(body), checksum)
    return head + _CRC.pack(zlib.crc32(head)) + text + body


def _encode_answer(answer: Answer) -> bytes:
    candles = answer.candles
    meta = {
        "symbol": answer.symbol,
        "start": answer.interval.start,
        "end": answer.interval.end,
        "served": answer.served.value,
        "asked_ms": answer.asked_ms,
        "candles": len(candles),
        "columns": candles.values.shape[1],
    }
    times = candles.open_time.astype("<i8", copy=False).tobytes()
    return _encode(meta, times + candles.values.astype("<f8", copy=False).tobytes())


def _decode(meta: dict[str, Any], body: bytes) -> Answer:
    count = int(meta["candles"])
    width = int(meta.get("columns", _WIDTH))
    if len(body) != count * 8 * (1 + width):
        raise ValueError(f"{len(body)} bytes for {count} candles")
    times = np.frombuffer(body, "<i8", count).astype(np.int64)
    values = np.frombuffer(body, "<f8", offset=8 * count).astype(np.float64)
    if not (times[1:] > times[:-1]).all():
        raise ValueError("its open times do not increase")
    return Answer(
        str(meta["symbol"]),
        Interval(_time(meta["start"]), _time(meta["end"])),
        Candles(times, values.reshape(count, width)),
        Served(meta["served"]),
        _time(meta["asked_ms"]),
    )


def _time(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError(f"{value!r} is not a time")
    return value


def _identify(meta: dict[str, Any], key: DatasetKey) -> str:
    if meta["dataset"] != key.stem:
        raise ValueError(f"it belongs to {meta['dataset']}, not to {key.stem}")
    return str(meta["journal"])
