"""The journal: torn anywhere it keeps what was acknowledged, damaged anywhere it says so."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtester.data.candles import Answer, Candles, Series
from backtester.data.errors import DatasetWriteError
from backtester.data.model import DatasetKey, Interval, Served
from backtester.data.storage import journal
from tests.support.builders import KEY, START, answer, plain_series

ANSWERS = [
    answer("BTC/USDT", 0, 3, asked_ms=7),
    answer("ETH/USDT", 0, 2, served=Served.NOT_LISTED),
    answer("BTC/USDT", 3, 2, without=(4,), asked_ms=8),
]


def plain(answers: Any) -> list[dict[str, Any]]:
    """Give answers as plain values, bit for bit."""
    return [
        {"symbol": a.symbol, "interval": a.interval, "served": a.served, "asked": a.asked_ms,
         "candles": plain_series(Series(a.candles))["candles"]}
        for a in answers
    ]  # fmt: skip


def written(path: Path, *batches: list[Answer]) -> bytes:
    at = 0
    for batch in batches:
        at = journal.extend(path, KEY, batch, at)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "binance_spot_1h.journal"


@pytest.fixture
def whole(path: Path) -> bytes:
    """The bytes of a journal of three answers."""
    return written(path, *([one] for one in ANSWERS))


# ------------------------------------------------------------------------ writing and reading


def test_what_is_appended_is_read(path: Path) -> None:
    """In order, bit for bit, with where each record begins; no file is an empty journal."""
    assert journal.read(path, KEY) == journal.NONE
    sound = journal.extend(path, KEY, ANSWERS[:2], 0)
    first = journal.read(path, KEY)
    assert plain(first.answers) == plain(ANSWERS[:2])
    assert first.sound_bytes == sound == path.stat().st_size
    sound = journal.extend(path, KEY, ANSWERS[2:], sound)
    second = journal.read(path, KEY)
    assert plain(second.answers) == plain(ANSWERS)
    assert second.id == first.id != ""
    assert second.sound_bytes == sound
    assert second.offsets[:2] == first.offsets
    assert second.problem is None


def test_odd_values_survive(path: Path) -> None:
    """NaN payloads, signed zeros, infinities and any symbol come back bit for bit."""
    odd = np.array([0x7FF8000000000001, 1 << 63, 0x7FF0000000000000, 1, 2**64 - 1], np.uint64)
    table = Candles.of([START], odd.view(np.float64))
    symbols = ["../x", "", "\0", "日本/USDT:USDT-251226", '"\\', "x" * 5_000]
    answers = [Answer(s, Interval(START, START + 1), table, Served.GIVEN, -1) for s in symbols]
    written(path, answers)
    assert plain(journal.read(path, KEY).answers) == plain(answers)


def test_what_cannot_be_written_is_not_begun(path: Path) -> None:
    """Half a character in a symbol is a write error, and the journal stays as it was."""
    whole = written(path, ANSWERS)
    with pytest.raises(DatasetWriteError, match="cannot write"):
        journal.extend(path, KEY, [ANSWERS[0], answer("\ud800")], len(whole))
    assert path.read_bytes() == whole


def test_what_the_pickle_has_is_left_out(path: Path) -> None:
    """A pickle notes a journal's name and length; what lies behind that length is news."""
    written(path, ANSWERS[:1], ANSWERS[1:])
    log = journal.read(path, KEY)
    for count, offset in enumerate([*log.offsets, log.sound_bytes]):
        assert log.since(log.id, offset) == list(log.answers[count:])
    assert log.since("another", log.sound_bytes) == list(log.answers)
    assert log.since(None, 0) == list(log.answers)


def test_two_journals_have_two_names(path: Path) -> None:
    """A new journal in the place of an old one is not taken for it."""
    written(path, ANSWERS)
    first = journal.read(path, KEY).id
    path.unlink()
    written(path, ANSWERS)
    assert journal.read(path, KEY).id != first


def test_a_journal_in_the_place_of_another(path: Path) -> None:
    """Replacing keeps exactly the answers given, under a new name."""
    written(path, ANSWERS)
    before = journal.read(path, KEY)
    sound = journal.replace(path, KEY, ANSWERS[1:])
    after = journal.read(path, KEY)
    assert plain(after.answers) == plain(ANSWERS[1:])
    assert after.id != before.id
    assert after.sound_bytes == sound == path.stat().st_size
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# ------------------------------------------------------------------------ torn by a kill


def test_a_journal_torn_anywhere_keeps_what_was_whole(whole: bytes, path: Path) -> None:
    """Cut at every length: all records before the cut are there, and it is no damage."""
    ends = [*journal.parse(whole, KEY).offsets[1:], len(whole)]
    for length in range(len(whole)):
        torn = journal.parse(whole[:length], KEY)
        count = sum(end <= length for end in ends)
        assert torn.problem is None
        assert plain(torn.answers) == plain(ANSWERS[:count])
        assert torn.sound_bytes <= length


def test_appending_after_a_torn_tail(
    whole: bytes, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next writer cuts the tail off and goes on: at every length, nothing else changes."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)  # a thousand would take a minute
    more = answer("SOL/USDT", 9, 1)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        torn = journal.read(path, KEY)
        sound = journal.extend(path, KEY, [more], torn.sound_bytes)
        mended = journal.read(path, KEY)
        assert mended.problem is None
        assert plain(mended.answers) == plain([*torn.answers, more])
        assert sound == mended.sound_bytes == path.stat().st_size


# ------------------------------------------------------------------------ damaged


@pytest.mark.parametrize("pattern", [0x01, 0x80, 0xFF])
def test_no_flipped_byte_goes_unnoticed(whole: bytes, pattern: int) -> None:
    """Wherever a byte changes, the journal says so, and what it still shows is sound.

    Also in a length: it must not pass for a record cut off by a kill, which would hide the rest.
    """
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= pattern
        log = journal.parse(bytes(damaged), KEY)
        assert log.problem is not None
        assert plain(log.answers) == plain(ANSWERS[: len(log.answers)])
        assert log.sound_bytes <= at


def test_garbage_is_damage() -> None:
    """A file that never was a journal, or goes on after one, is not a torn one."""
    for data in (b"x", b"garbage!" * 9, b"\0" * 100, b"VJ2\n" + b"\0" * 100):
        assert journal.parse(data, KEY).problem is not None


def test_another_datasets_journal_is_refused(whole: bytes) -> None:
    """A journal renamed to another dataset does not become its candles."""
    for other in ("binance_spot_4h", "binance_swap_1h", "okx_spot_1h"):
        key = DatasetKey.from_stem(other)
        assert key is not None
        log = journal.parse(whole, key)
        assert log.answers == ()
        assert "belongs to binance_spot_1h" in str(log.problem)


# ------------------------------------------------------------------------ hostile


def record(meta: bytes, body: bytes = b"") -> bytes:
    """Make a record whose checksums are right, whatever it says."""
    head = struct.pack("<4sIII", b"VJ1\n", len(meta), len(body), zlib.crc32(meta + body))
    return head + struct.pack("<I", zlib.crc32(head)) + meta + body


BEGIN = record(b'{"journal": "j", "dataset": "binance_spot_1h"}')
GOOD = {"symbol": "X", "start": 0, "end": 10, "served": "market", "asked_ms": 1, "candles": 1}
ROW = struct.pack("<q5d", 5, 1, 1, 1, 1, 1)
TWO_AT_ONCE = struct.pack("<2q10d", 5, 5, *[1] * 10)


def test_the_forger_forges_well() -> None:
    """A made-up record with everything right is read: the cases below fail for their own reason."""
    log = journal.parse(BEGIN + record(json.dumps(GOOD).encode(), ROW), KEY)
    assert log.problem is None
    assert log.answers[0].candles.open_time.tolist() == [5]


@pytest.mark.parametrize("meta", [b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff", b"{}"])
def test_meta_that_is_none(meta: bytes) -> None:
    """Right checksums around nonsense make no record, neither first nor later."""
    for data in (record(meta), BEGIN + record(meta, ROW)):
        log = journal.parse(data, KEY)
        assert log.answers == ()
        assert "does not make sense" in str(log.problem)


@pytest.mark.parametrize(
    ("changes", "body"),
    [
        ({"candles": -1}, ROW), ({"candles": 2}, ROW), ({"candles": 10**30}, ROW),
        ({"candles": "x"}, ROW), ({"candles": None}, ROW), ({}, ROW[:-1]), ({}, b""),
        ({"served": "maybe"}, ROW), ({"served": None}, ROW),
        ({"start": 10}, ROW), ({"end": 2**70}, ROW), ({"start": -(2**64)}, ROW),
        ({"start": "0"}, ROW), ({"start": 0.5}, ROW), ({"asked_ms": None}, ROW),
        ({"asked_ms": True}, ROW), ({"candles": 2}, TWO_AT_ONCE),
    ],
    ids=str,
)  # fmt: skip
def test_records_that_cannot_be(changes: dict[str, Any], body: bytes) -> None:
    """Sizes that lie, times that are none, candles out of order: damage, never an exception."""
    meta = json.dumps({**GOOD, **changes}).encode()
    log = journal.parse(BEGIN + record(meta, body) + record(json.dumps(GOOD).encode(), ROW), KEY)
    assert log.answers == ()
    assert "does not make sense" in str(log.problem)
    assert log.sound_bytes == len(BEGIN)


@pytest.mark.parametrize("name", GOOD)
def test_records_that_lack_a_part(name: str) -> None:
    """Every part of an answer is needed."""
    meta = {key: value for key, value in GOOD.items() if key != name}
    log = journal.parse(BEGIN + record(json.dumps(meta).encode(), ROW), KEY)
    assert log.answers == ()
    assert log.problem is not None
