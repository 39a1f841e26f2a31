"""The pickle store's file by its definition: read and written without the code under test.

The format is spelled out once more here on purpose. A change of it that old files would not
survive turns these tests red.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from backtester.data.storage.plain import rebuild_data
from backtester.data.storage.store import Dataset

TRAILER = struct.Struct("<II8s")


class _Unpickler(pickle.Unpickler):
    """Gives the payload instead of making the one call in the file."""

    def find_class(self, module: str, name: str) -> Any:
        assert (module, name) == ("backtester.data.storage.plain", "rebuild_data")
        return lambda payload: payload


class _Call:
    def __init__(self, payload: dict[str, Any]) -> None:
        self.payload = payload

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild_data, (self.payload,)


def split(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Give the chunk and the footer of a file, after checking both."""
    length, checksum, magic = TRAILER.unpack(data[-TRAILER.size :])
    assert magic == b"VBTDATA1"
    footer = data[-TRAILER.size - length : -TRAILER.size]
    assert zlib.crc32(footer) == checksum
    parsed = json.loads(footer)
    chunk = data[: -TRAILER.size - length]
    assert len(chunk) == parsed["chunk_bytes"]
    assert zlib.crc32(chunk) == parsed["chunk_crc32"]
    return chunk, parsed


def payload_of(path: Path) -> dict[str, Any]:
    chunk, _ = split(path.read_bytes())
    return _Unpickler(io.BytesIO(blosc2.decompress2(chunk))).load()


def contents_of(path: Path) -> dict[str, Any]:
    """Give what a file holds as `tests.support.builders.contents` does."""
    payload = payload_of(path)
    market, timeframe = payload["market_type"], payload["timeframe"]
    series = {}
    for symbol, entry in payload["series"].items():
        times = np.frombuffer(entry["open_time"], "<i8")
        table = np.frombuffer(entry["values"], "<f8").reshape(5, len(times)).T
        series[symbol] = {
            "candles": {int(t): row.tobytes() for t, row in zip(times, table, strict=True)},
            "coverage": [tuple(span) for span in entry["coverage"]],
            "revisions": [
                (t, np.array(old).tobytes(), np.array(new).tobytes(), old_asked, new_asked)
                for t, old, new, old_asked, new_asked in entry["revisions"]
            ],
        }
    return {
        "key": f"{payload['exchange']}_{market}_{timeframe.replace('M', 'mo')}",
        "metadata": payload["metadata"],
        "series": series,
    }


def payload(dataset: Dataset, kind: str = "dataset") -> dict[str, Any]:
    """Write a dataset as the payload of format 1."""
    return {
        "format": 1,
        "kind": kind,
        "exchange": dataset.key.exchange,
        "market_type": dataset.key.market_type.value,
        "timeframe": str(dataset.key.timeframe),
        "columns": ["Open", "High", "Low", "Close", "Volume"],
        "metadata": dict(dataset.metadata),
        "series": {
            symbol: {
                "open_time": one.candles.open_time.astype("<i8").tobytes(),
                "values": np.asfortranarray(one.candles.values.astype("<f8")).tobytes(order="F"),
                "coverage": [[s.start, s.end, s.served.value, s.asked_ms] for s in one.coverage],
                "revisions": [
                    [r.open_time, r.old, r.new, r.old_asked_ms, r.new_asked_ms]
                    for r in one.revisions
                ],
            }
            for symbol, one in dataset.series.items()
        },
        "view": None,
    }


def chunk_of(plain: dict[str, Any]) -> bytes:
    return bytes(blosc2.compress2(pickle.dumps(_Call(plain), protocol=4), typesize=8))


def with_footer(chunk: bytes, footer: bytes) -> bytes:
    return chunk + footer + TRAILER.pack(len(footer), zlib.crc32(footer), b"VBTDATA1")


def footer_of(dataset: Dataset, chunk: bytes) -> dict[str, Any]:
    symbols = {}
    for symbol, one in dataset.series.items():
        times = one.candles.open_time.tolist()
        symbols[symbol] = [len(times), times[0] if times else None, times[-1] if times else None]
    return {
        "format": 1,
        "exchange": dataset.key.exchange,
        "market_type": dataset.key.market_type.value,
        "timeframe": str(dataset.key.timeframe),
        "chunk_bytes": len(chunk),
        "chunk_crc32": zlib.crc32(chunk),
        "written_ms": 1,
        "journal": None,
        "journal_bytes": 0,
        "symbols": symbols,
    }


def file_of(dataset: Dataset) -> bytes:
    """Give the bytes of a sound file."""
    chunk = chunk_of(payload(dataset))
    return with_footer(chunk, json.dumps(footer_of(dataset, chunk)).encode())
