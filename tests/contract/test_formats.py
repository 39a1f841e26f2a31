"""Files as earlier versions wrote them are read by value: old versions stay readable.

``python -m tests.contract.test_formats`` writes the files of the formats as they are now; a new
version of a format gets files of its own, and the old ones stay.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtester.data.candles import Answer, Candles
from backtester.data.model import Interval, Served
from backtester.data.storage import codec, sqlite_file, sqlite_schema
from backtester.data.storage.pickle_file import PickleStore
from backtester.data.storage.sqlite_file import SqliteStore
from backtester.data.storage.store import Dataset
from tests.support.builders import HOUR, KEY, START, answer, contents

FOLDER = Path(__file__).resolve().parents[1] / "data" / "formats"
VERSION = "v1"
STORES = {"sqlite": SqliteStore, "pickle": PickleStore, "journal": PickleStore}
CHUNKS = ["decimals", "floats", "odd", "irregular", "one"]


def as_text(found: dict[str, Any]) -> dict[str, Any]:
    """Give what `contents` gives as JSON has it, rows as their hexadecimal bits."""
    for one in found["series"].values():
        one["candles"] = {str(time): row.hex() for time, row in one["candles"].items()}
        one["coverage"] = [list(span) for span in one["coverage"]]
        one["revisions"] = [
            [part.hex() if isinstance(part, bytes) else part for part in revision]
            for revision in one["revisions"]
        ]
    return found


@pytest.mark.parametrize("version", ["v1"])
@pytest.mark.parametrize("name", STORES)
def test_datasets_of_earlier_versions(tmp_path: Path, name: str, version: str) -> None:
    """Candles, coverage, revisions and notes are those that were written, and can go on."""
    shutil.copytree(FOLDER / version / name, tmp_path / "data")
    store = STORES[name](tmp_path / "data")
    expected = json.loads((FOLDER / version / "dataset.json").read_text())
    if name == "journal":
        expected["metadata"] = {}
    assert as_text(contents(store.read(KEY))) == expected
    assert store.summary()[0].problem is None
    more = answer("XRP/USDT", 0, 2, asked_ms=9)
    grown = store.read(KEY).with_answers([more])
    store.commit(KEY, [more])
    store.fold(KEY)
    assert contents(store.read(KEY)) == contents(grown)


@pytest.mark.parametrize("version", ["v1"])
@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_of_earlier_versions(name: str, version: str) -> None:
    """Every kind of stream decodes to the bits that were encoded."""
    times, values = codec.decode((FOLDER / version / f"{name}.chunk").read_bytes(), name.encode())
    expected = json.loads((FOLDER / version / "chunks.json").read_text())[name]
    assert [times.tolist(), values.tobytes().hex()] == expected


# ------------------------------------------------------------------------ how they were made


def _tables() -> dict[str, Candles]:
    decimals = answer("X", 0, 40).candles
    odd = decimals.values.copy()
    odd[3, 4], odd[5, 1], odd[6, 0], odd[7, 2] = np.nan, 1e300, -0.0, 5e-324
    odd[8, 4] += 2e-10  # some units in the last place
    return {
        "decimals": decimals,
        "floats": Candles(decimals.open_time, np.sin(decimals.values)),
        "odd": Candles(decimals.open_time, odd),
        "irregular": answer("X", 0, 40, without=(3, 9, 10)).candles,
        "one": Candles(decimals.open_time[:1], decimals.values[:1]),
    }


def _answers() -> list[Answer]:
    tables = _tables()
    span = Interval(START, START + 40 * HOUR)
    return [
        Answer("BTC/USDT", span, tables["decimals"], Served.MARKET, 3),
        Answer("ETH/USDT", span, tables["odd"], Served.MARKET, 4),
        answer("BTC/USDT", 5, 2, seed=1, asked_ms=9),
        answer("BTC/USDT", 366 * 24, 8, asked_ms=9),
        *(answer("BTC/USDT", 366 * 24 + 8 + n, 1, asked_ms=10 + n) for n in range(3)),
        *(answer("SOL/USDT", 10 * n, 5, served=one, asked_ms=5) for n, one in enumerate(Served)),
    ]


def _write() -> None:
    folder = FOLDER / VERSION
    for name, make in STORES.items():
        store: Any = make(folder / name)
        for one in _answers():
            store.commit(KEY, [one])
        if name != "journal":
            store.annotate(KEY, {"volume_data": {"BTC/USDT": 1.5}, "list": [1, "two", None]})
            store.fold(KEY)
        if name == "sqlite":
            sqlite_file._connections.close(store.path(KEY))  # which takes in the log
    (folder / "dataset.json").write_text(json.dumps(as_text(contents(_dataset())), indent=1))
    found = {}
    for name, table in _tables().items():
        (folder / f"{name}.chunk").write_bytes(
            codec.encode(table.open_time, table.values, name.encode())
        )
        found[name] = [table.open_time.tolist(), np.ascontiguousarray(table.values).tobytes().hex()]
    (folder / "chunks.json").write_text(json.dumps(found))


def _dataset() -> Dataset:
    whole = Dataset(KEY).with_answers(_answers())
    return Dataset(KEY, whole.series, {"volume_data": {"BTC/USDT": 1.5}, "list": [1, "two", None]})


if __name__ == "__main__":
    sqlite_schema.PAGE_BYTES = 1024
    _write()
