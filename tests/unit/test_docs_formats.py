"""docs/formats.md is true: files are read by what it says, with struct, json and zlib alone."""

from __future__ import annotations

import io
import json
import pickle
import re
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blosc2
import pytest

from backtester.data.cache_system.cache_manager import CacheManager
from backtester.data.candles import COLUMNS
from backtester.data.model import MarketType, Served
from backtester.data.storage.pickle_file import PickleStore
from tests.support.builders import KEY, START, answer, candles_at, hours
from tests.support.processes import ROOT

PAGE = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
BTC, ETH = "BTC/USDT", "ETH/USDT"


@pytest.fixture
def store(tmp_path: Path) -> PickleStore:
    """Give a store with two symbols, a gap, a revision and a note."""
    store = PickleStore(tmp_path)
    store.commit(KEY, [answer(BTC, 0, 6, without=[3]), answer(ETH, 2, 3)])
    store.commit(KEY, [answer(BTC, 5, 2, seed=1, asked_ms=9)])
    store.annotate(KEY, {"note": 1})
    return store


def doubles(raw: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(raw) // 8}d", raw))


def longs(raw: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(raw) // 8}q", raw))


class Plain(pickle.Unpickler):
    """Takes the one call that may be in a file for its argument."""

    def find_class(self, module: str, name: str) -> Any:
        assert (module, name) == ("backtester.data.storage.plain", "rebuild_data")
        return lambda payload: payload


def parts(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Cut a dataset into its chunk and its footer, as the page says."""
    length, checksum, magic = struct.unpack("<II8s", data[-16:])
    assert magic == b"VBTDATA1"
    footer = data[-16 - length : -16]
    assert zlib.crc32(footer) == checksum
    told = json.loads(footer)
    chunk = data[: told["chunk_bytes"]]
    assert len(data) == len(chunk) + length + 16
    assert zlib.crc32(chunk) == told["chunk_crc32"]
    return chunk, told


def test_a_dataset_is_read_by_the_page(store: PickleStore) -> None:
    """Footer, chunk, pickle and series, to the last number."""
    chunk, footer = parts(store.path(KEY).read_bytes())
    assert {k: footer[k] for k in ("format", "exchange", "market_type", "timeframe")} == {
        "format": 1, "exchange": "binance", "market_type": "spot", "timeframe": "1h",
    }  # fmt: skip
    assert footer["symbols"] == {
        BTC: [6, START, hours(6, 1)[0]], ETH: [3, hours(2, 1)[0], hours(4, 1)[0]],
    }  # fmt: skip
    version, _, _, item, unpacked, block, packed = struct.unpack_from("<4B3i", chunk)
    assert (version, item, packed) == (5, 8, len(chunk))
    raw = blosc2.decompress2(chunk)
    assert len(raw) == unpacked >= block
    assert raw[:2] == b"\x80\x04"
    payload = Plain(io.BytesIO(raw)).load()
    assert payload["columns"] == list(COLUMNS)
    assert (payload["format"], payload["kind"], payload["view"]) == (1, "dataset", None)
    assert payload["metadata"] == {"note": 1}
    series = payload["series"][ETH]
    expected = candles_at(hours(2, 3))
    assert longs(series["open_time"]) == expected.open_time.tolist()
    assert doubles(series["values"]) == expected.values.T.ravel().tolist()
    assert series["coverage"] == [[START + 7_200_000, START + 18_000_000, "market", 1]]
    (revision,) = payload["series"][BTC]["revisions"]
    old, new = (candles_at(hours(5, 1), seed).values[0].tolist() for seed in (0, 1))
    assert [list(x) if isinstance(x, tuple) else x for x in revision] == [
        hours(5, 1)[0], old, new, 1, 9,
    ]  # fmt: skip


def records(data: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Cut a journal into its records, as the page says."""
    at = 0
    while at < len(data):
        magic, meta, body, checksum = struct.unpack_from("<4sIII", data, at)
        (of_head,) = struct.unpack_from("<I", data, at + 16)
        assert magic == b"VJ1\n"
        assert zlib.crc32(data[at : at + 16]) == of_head
        begin, at = at + 20, at + 20 + meta + body
        assert zlib.crc32(data[begin:at]) == checksum
        yield json.loads(data[begin : begin + meta]), data[begin + meta : at]


def test_a_journal_is_read_by_the_page(store: PickleStore) -> None:
    """Records, and how the dataset says which of them it has."""
    store.commit(KEY, [answer(ETH, 8, 2, asked_ms=5)])
    journal = store.journal_path(KEY).read_bytes()
    (first, nothing), (meta, body) = records(journal)
    assert (first["dataset"], nothing) == ("binance_spot_1h", b"")
    assert meta == {
        "symbol": ETH, "start": hours(8, 1)[0], "end": hours(10, 1)[0], "served": "market",
        "asked_ms": 5, "candles": 2, "columns": 5,
    }  # fmt: skip
    expected = candles_at(hours(8, 2))
    assert longs(body[:16]) == expected.open_time.tolist()
    assert doubles(body[16:]) == expected.values.ravel().tolist()
    _, before = parts(store.path(KEY).read_bytes())
    assert before["journal"] != first["journal"]
    store.fold(KEY)
    _, after = parts(store.path(KEY).read_bytes())
    assert (after["journal"], after["journal_bytes"]) == (first["journal"], len(journal))


def test_a_saved_object_has_no_footer(tmp_path: Path) -> None:
    """The chunk alone, or the bare pickle."""
    from backtester.data import vbt_adapter

    data = vbt_adapter.build({BTC: candles_at(hours(0, 3))}, timeframe=KEY.timeframe)
    data.save(tmp_path / "x.pickle.blosc")
    data.save(tmp_path / "x.pickle")
    chunk = (tmp_path / "x.pickle.blosc").read_bytes()
    assert struct.unpack_from("<i", chunk, 12) == (len(chunk),)
    for raw in (blosc2.decompress2(chunk), (tmp_path / "x.pickle").read_bytes()):
        payload = Plain(io.BytesIO(raw)).load()
        assert payload["kind"] == "data"
        assert "crc32" in payload["view"]
        assert longs(payload["series"][BTC]["open_time"]) == hours(0, 3)


def test_the_cache_has_the_tables_of_the_page(tmp_path: Path) -> None:
    """Every table and column is on the page."""
    cache = CacheManager(tmp_path)
    cache.save_inception("binance", MarketType.SPOT, BTC, START, "first candle")
    cache.close()
    file = sqlite3.connect(tmp_path / "cache.sqlite")
    try:
        assert file.execute("PRAGMA user_version").fetchone() == (2,)
        tables = [
            name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        section = PAGE[PAGE.index("## `cache.sqlite`") :]
        for table in tables:
            row = next(line for line in section.splitlines() if line.startswith(f"| `{table}`"))
            for _, column, *_ in file.execute(f"PRAGMA table_info({table})"):
                assert re.search(rf"\b{column}\b", row), (table, column)
    finally:
        file.close()


def test_every_meaning_of_an_answer_is_on_the_page() -> None:
    """A new one must be written down."""
    section = PAGE[PAGE.index("`served` says") : PAGE.index("A time in no interval")]
    assert set(re.findall(r"`([a-z_]+)`", section)) - {"served"} == {str(one) for one in Served}


def test_the_names_in_the_directory_are_those_of_the_page(store: PickleStore) -> None:
    """Nothing lies there that the page does not know."""
    store.commit(KEY, [answer(ETH, 8, 2)])
    found = {path.name for path in store.folder.iterdir()}
    assert found == {
        "binance_spot_1h.pickle.blosc", "binance_spot_1h.journal", ".binance_spot_1h.lock",
    }  # fmt: skip
    for name in found:
        assert f"`{name}`" in PAGE
