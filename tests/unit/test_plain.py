"""The plain pickle: what goes in comes out, and nothing else ever does."""

import os
import pickle
import struct
from io import BytesIO
from pathlib import Path

import blosc2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtester.data.candles import COLUMNS, Candles, Revision, Series
from backtester.data.errors import (
    CorruptDatasetError,
    DatasetTooLargeError,
    DatasetWriteError,
)
from backtester.data.model import Coverage, MarketType, Served, Span
from backtester.data.storage import plain

HOUR = 3_600_000
START = 1_700_000_000_000 // HOUR * HOUR


def candles(count: int, first: int = 0) -> Candles:
    times = START + HOUR * (first + np.arange(count))
    return Candles.of(times, np.arange(count * 5).reshape(count, 5) / 7 + 1)


def a_series(count: int = 3) -> Series:
    end = START + count * HOUR
    coverage = Coverage(
        (
            Span(START - HOUR, START, Served.NOT_LISTED, 5),
            Span(START, end, Served.MARKET, 7),
        )
    )
    revision = Revision(START, (1.0, 2.0, 0.5, 1.5, 9.0), (1.0, 2.0, 0.5, 1.5, 9.5), 0, 7)
    return Series(candles(count), coverage, (revision,))


def payload(**series: Series) -> dict:
    return plain.dataset_payload(
        series or {"BTC/USDT": a_series()},
        {"volume_data": {"BTC/USDT": 1.25e9}, "note": ("a", None, True, -1, b"x")},
        exchange="binance",
        market_type="spot",
        timeframe="1h",
    )


def packed(raw: bytes) -> bytes:
    """Compress like `pack`, whatever `raw` is."""
    return bytes(blosc2.compress2(raw, codec=blosc2.Codec.ZSTD, clevel=1, typesize=8))


def refused(chunk: bytes, reason: str | None = None) -> CorruptDatasetError:
    with pytest.raises(CorruptDatasetError, match=reason) as caught:
        plain.unpack(chunk, "some.pickle.blosc")
    assert caught.value.path == "some.pickle.blosc"
    return caught.value


# ---------------------------------------------------------------------- round trips


def test_what_is_packed_is_unpacked():
    """A payload comes back equal, with exactly the types it had."""
    given_payload = payload()
    back = plain.unpack(plain.pack(given_payload))
    assert back == given_payload
    assert back["metadata"]["note"] == ("a", None, True, -1, b"x")
    assert isinstance(back["series"]["BTC/USDT"]["revisions"][0][1], tuple)


def test_a_series_comes_back_bit_for_bit():
    """Candles, coverage and revisions survive, negative zero and subnormals included."""
    values = candles(2).values.copy()
    values[0] = [-0.0, 5e-324, 1.7976931348623157e308, 0.1, 2.0**-1074]
    series = Series(Candles.of(candles(2).open_time, values), a_series().coverage)
    back = plain.series_from_plain(plain.series_to_plain(series))
    assert back.candles == series.candles
    assert back.coverage == series.coverage
    assert back.revisions == series.revisions


def test_an_empty_series_comes_back():
    """A symbol that was asked for and has no candles keeps its coverage."""
    series = Series(coverage=Coverage((Span(0, HOUR, Served.NOT_LISTED, 1),)))
    back = plain.series_of(plain.unpack(plain.pack(payload(A=series))))["A"]
    assert len(back.candles) == 0
    assert back.coverage == series.coverage


def test_symbols_on_the_same_times_share_them():
    """Equal open times are written once, and come back as one array."""
    both = payload(A=a_series(500), B=a_series(500))
    assert len(plain.dump(both)) < len(plain.dump(payload(A=a_series(500)))) * 2 - 3900
    series = plain.series_of(plain.unpack(plain.pack(both)))
    assert series["A"].candles.open_time is series["B"].candles.open_time


def test_bytes_after_the_chunk_are_for_the_caller_to_cut():
    """The chunk's length is in its header; with a footer behind it a chunk is refused."""
    chunk = plain.pack(payload())
    file = chunk + b"footer"
    assert plain.chunk_length(file[: plain.HEADER_SIZE]) == len(chunk)
    assert plain.unpack(memoryview(file)[: len(chunk)]) == payload()
    refused(file, "after its end")


def test_subclasses_of_plain_types_become_plain():
    """A StrEnum member, a NumPy number or a shared list is written as what it is worth."""
    shared = [1, 2]
    odd = payload()
    odd["market_type"] = MarketType.SPOT
    odd["metadata"] = {"n": np.float64(1.5), "i": np.int64(3), "twice": [shared, shared]}
    back = plain.unpack(plain.pack(odd))
    assert type(back["market_type"]) is str
    assert type(back["metadata"]["n"]) is float
    assert back["metadata"] == {"n": 1.5, "i": 3, "twice": [[1, 2], [1, 2]]}


def test_flat_candles_are_never_taken_for_a_bomb():
    """Data that shrink out of all proportion are stored so that they can be read back."""
    count = 1_700_000
    flat = Candles(START + HOUR * np.arange(count), np.zeros((5, count)).T)
    chunk = plain.pack(payload(A=Series(flat)))
    assert plain.series_of(plain.unpack(chunk))["A"].candles == flat


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
    ),
    max_leaves=30,
)


@given(st.dictionaries(st.text(max_size=8), plain_values, max_size=5))
@settings(max_examples=150, deadline=None)
def test_any_plain_metadata_come_back(metadata):
    """Whatever plain values users note beside their data are read back as they were."""
    noted = {**payload(), "metadata": metadata}
    assert plain.parse(plain.dump(noted))["metadata"] == metadata


# ---------------------------------------------------------------------- refused when writing


@pytest.mark.parametrize(
    "value",
    [object(), {1}, np.arange(3), os.getcwd, 1 << 5000, {(1, (2,)): 3}],
    ids=["object", "set", "array", "function", "enormous", "nested-key"],
)
def test_what_is_not_plain_is_not_written(value):
    """Metadata that could not be read back are an error when they are written."""
    with pytest.raises(DatasetWriteError, match="cannot be written"):
        plain.pack({**payload(), "metadata": {"x": value}})


def test_a_list_inside_itself_is_not_written():
    """A cycle ends in an error, not in a crash."""
    endless: list = []
    endless.append(endless)
    with pytest.raises(DatasetWriteError, match="nested"):
        plain.pack({**payload(), "metadata": {"x": endless}})


def test_a_payload_without_its_parts_is_not_written():
    """A payload that could not be read is not written."""
    broken = payload()
    del broken["view"]
    with pytest.raises(DatasetWriteError, match="parts"):
        plain.pack(broken)


def test_too_much_for_one_file_is_said_before_anything_is_written(monkeypatch):
    """Arrays beyond a chunk's limit raise before they are copied or compressed."""
    monkeypatch.setattr(plain, "_LIMIT", 10_000)
    monkeypatch.setattr(plain, "_plain", pytest.fail)
    with pytest.raises(DatasetTooLargeError, match="2 GiB"):
        plain.pack(payload(A=a_series(500)))


def test_too_much_metadata_for_one_file_is_said_too(monkeypatch):
    """What only the finished pickle shows to be too large raises as well."""
    monkeypatch.setattr(plain, "_LIMIT", 10_000)
    with pytest.raises(DatasetTooLargeError):
        plain.pack({**payload(), "metadata": {"x": "y" * 20_000}})


# ---------------------------------------------------------------------- hostile files


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("nested", [False, True], ids=["bare", "in-a-payload"])
def test_no_call_in_a_file_is_made(tmp_path, protocol, nested):
    """A file that names os.system, eval or getattr is refused and runs nothing."""
    canary = tmp_path / "canary"
    attacks = [
        Attack(os.system, f"touch {canary}"),
        Attack(eval, f"open({str(canary)!r}, 'w')"),
        Attack(exec, f"open({str(canary)!r}, 'w')"),
        Attack(getattr, "text", "upper"),
        Attack(Path.touch, canary),
    ]
    for attack in attacks:
        content = {**payload(), "metadata": {"x": attack}}
        call = Attack(plain.rebuild_data, content) if nested else attack
        refused(packed(pickle.dumps(call, protocol)))
    assert not canary.exists()


def call_of(body: bytes) -> bytes:
    """A protocol 4 pickle that calls `rebuild_data` with whatever `body` pushes."""
    module, name = plain.rebuild_data.__module__, plain.rebuild_data.__qualname__
    words = b"".join(b"\x8c" + bytes([len(w)]) + w.encode() for w in (module, name))
    return b"\x80\x04" + words + b"\x93" + body + b"R."


FOREIGN = {
    "nothing": b"",
    "one byte": b"\x80",
    "empty": b"\x80\x04.",
    "no call": b"\x80\x04N.",
    "old protocol": b"\x80\x02}.",
    "text protocol": b"cos\nsystem\n(S'true'\ntR.",
    "another name": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "never stops": call_of(b"}\x85")[:-1],
    "goes on": call_of(b"}\x85") + b"N.",
    "arguments that are no tuple": call_of(b"}"),
    "no dictionary": call_of(b"N\x85"),
    "two arguments": call_of(b"}}\x86"),
    "no argument": call_of(b")"),
    "dictionary in itself": call_of(b"}\x94}\x8c\x01ah\x00s\x85"),
    "list referred to": call_of(b"]\x94h\x00\x85"),
    "deep lists": call_of(b"]" * 100_000 + b"a" * 99_999 + b"\x85"),
    # Each of these two ends a process that reads it with pickle.Unpickler.
    "deep tuple as a key": call_of(b"})" + b"\x85" * 500_000 + b"Ns\x85"),
    "enormous memo": call_of(b"}" + b"r\xff\xff\xff\x7f" + b"\x85"),
    "enormous bytes": call_of(b"\x8e" + struct.pack("<Q", 2**62) + b"\x85"),
    "enormous text": call_of(b"\x8d" + struct.pack("<Q", 2**63) + b"\x85"),
    "state set on an object": call_of(b"}N}b\x85"),
    "text that is none": call_of(b"}\x8c\x01\xffNs\x85"),
    "new object": call_of(b"N\x81\x85"),
    "extension": call_of(b"\x82\x01\x85"),
    "persistent id": call_of(b"\x8c\x01xQ\x85"),
    "buffer": call_of(b"\x97\x85"),
    "open brackets": call_of(b"(((((\x85"),
    "unknown memo": call_of(b"j\xff\xff\xff\x7f\x85"),
}


@pytest.mark.parametrize("raw", FOREIGN.values(), ids=FOREIGN)
def test_a_pickle_of_anything_else_is_refused(raw):
    """Cut, foreign, recursive and exhausting pickles are all just corrupt."""
    with pytest.raises(CorruptDatasetError):
        plain.parse(raw)


def test_every_opcode_alone_is_harmless():
    """No opcode that pickle knows does anything else than build plain data or be refused."""
    for code in range(256):
        for operand in (b"", b"\x00" * 8, b"\xff" * 8, b"os\nsystem\n"):
            with pytest.raises(CorruptDatasetError):
                plain.parse(call_of(bytes([code]) + operand + b"\x85"))


class Guarded(pickle.Unpickler):
    """What a careful user of pickle would write; ours must agree with it on good files."""

    def find_class(self, module, name):
        assert (module, name) == (plain.rebuild_data.__module__, "rebuild_data")
        return lambda read: read


def test_python_reads_what_we_write():
    """The file is an ordinary pickle in an ordinary chunk."""
    raw = blosc2.decompress2(plain.pack(payload()))
    assert Guarded(BytesIO(raw)).load() == payload()


def header(**changes: int) -> bytes:
    fields = bytearray(plain.pack(payload())[: plain.HEADER_SIZE])
    for name, value in changes.items():
        at = {"size": 4, "block": 8, "length": 12}.get(name)
        if at is None:
            fields[int(name.removeprefix("byte"))] = value
        else:
            fields[at : at + 4] = struct.pack("<i", value)
    return bytes(fields)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 2**31 - 1},
        {"size": 2**31 - 33},
        {"size": 2**30},
        {"size": -1},
        {"block": 0},
        {"block": -5},
        {"block": 2**31 - 1},
        {"length": 31},
        {"length": -1},
        {"byte0": 4},
        {"byte2": 7 << 5},
        {"byte3": 0},
        {"byte21": 200},
        {"byte22": 200},
        {"byte31": 0x08},
        {"byte31": 0x10},
    ],
    ids=str,
)
def test_a_hostile_header_is_refused_before_anything_is_unpacked(monkeypatch, changes):
    """Impossible sizes, foreign codecs and lazy chunks never reach the decompressor."""
    monkeypatch.setattr(blosc2, "decompress2", pytest.fail)
    length = changes.get("length", 0)
    body = header(**changes) + bytes(max(length, 600) - plain.HEADER_SIZE)
    refused(body)
    with pytest.raises(CorruptDatasetError):
        plain.chunk_length(header(**changes), "some.pickle.blosc")


def test_a_chunk_of_zeros_is_no_bomb():
    """Blosc2's 32 bytes for a gigabyte of zeros are refused by their header."""
    refused(bytes(blosc2.compress2(bytes(2**26), typesize=8)))


# ---------------------------------------------------------------------- damaged files


def outcome(chunk: bytes) -> dict | None:
    """What reading gives: a payload that holds valid series, or None for a refusal."""
    try:
        read = plain.unpack(chunk)
        plain.series_of(read)
    except CorruptDatasetError:
        return None
    return plain.check_payload(read)


def small() -> bytes:
    return plain.pack(payload(A=a_series(2)))


def test_a_file_cut_anywhere_is_refused():
    """No prefix of a file is taken for a file."""
    chunk = small()
    for length in range(len(chunk)):
        refused(chunk[:length])


def test_a_pickle_cut_anywhere_is_refused():
    """The same without the compression, whose own checks would hide the pickle's."""
    raw = plain.dump(payload(A=a_series(2)))
    for length in range(len(raw)):
        with pytest.raises(CorruptDatasetError):
            plain.parse(raw[:length])


def test_any_flipped_byte_gives_a_refusal_or_a_valid_payload():
    """No damage to the chunk raises anything else, whatever the byte becomes."""
    chunk = small()
    for at in range(len(chunk)):
        for flip in (0x01, 0x80, 0xFF):
            broken = bytearray(chunk)
            broken[at] ^= flip
            outcome(bytes(broken))


def test_any_flipped_byte_of_the_pickle_gives_a_refusal_or_a_valid_payload():
    """No damage to the pickle inside raises anything else either."""
    raw = plain.dump(payload(A=a_series(2)))
    for at in range(len(raw)):
        for value in range(0, 256, 5):
            broken = bytearray(raw)
            broken[at] = value
            try:
                read = plain.parse(bytes(broken))
                plain.series_of(read)
            except CorruptDatasetError:
                continue
            plain.check_payload(read)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_noise_is_refused(noise):
    """Bytes that are no file of ours are never read as one."""
    assert outcome(noise) is None
    with pytest.raises(CorruptDatasetError):
        plain.parse(b"\x80\x04" + noise)


# ---------------------------------------------------------------------- payloads


def changed(**changes: object) -> dict:
    return {**payload(), **changes}


def with_series(**changes: object) -> dict:
    return changed(series={"A": {**plain.series_to_plain(a_series()), **changes}})


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (None, "parts"),
        ([], "parts"),
        (changed(format=2), "format is 2; this version reads format 1"),
        (changed(format="1"), "parts"),
        (changed(kind="other"), "parts"),
        (changed(exchange=5), "parts"),
        (changed(columns=list(COLUMNS)[:4]), "columns"),
        (changed(extra=1), "parts"),
        (changed(series={5: {}}), "is invalid"),
        (changed(series={"A": {}}), "is invalid"),
        (with_series(open_time=b"1234567"), "different lengths"),
        (with_series(values=b""), "different lengths"),
        (with_series(coverage={}), "is invalid"),
    ],
)
def test_a_payload_of_another_shape_is_refused(broken, reason):
    """The check names what is wrong."""
    with pytest.raises(CorruptDatasetError, match=reason):
        plain.check_payload(broken, "some file")


two_equal_times = np.array([START, START, START + HOUR]).astype("<i8").tobytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"open_time": two_equal_times},
        {"coverage": [[START, START, "market", 1]]},
        {"coverage": [[START, START + 1, "nobody", 1]]},
        {"coverage": [[START, START + 1, "market"]]},
        {"coverage": [[1.5, START + 1, "market", 1]]},
        {"coverage": [[START, 2**63, "market", 1]]},
        {"coverage": [[0, 10, "market", 1], [5, 20, "market", 1]]},
        {"coverage": [5]},
        {"revisions": [[START, (1.0,), (1.0, 2.0), 0, 1]]},
        {"revisions": [[START, "ab", (1.0, 2.0), 0, 1]]},
        {"revisions": [[True, (), (), 0, 1]]},
    ],
    ids=str,
)
def test_a_series_that_breaks_a_rule_is_refused(changes):
    """Times that do not increase, coverage out of order and broken rows are corrupt."""
    with pytest.raises(CorruptDatasetError, match="A"):
        plain.series_of(with_series(**changes), "some file")


def test_importing_the_module_imports_neither_pandas_nor_vectorbt():
    """The stores stay light until a VectorBT object is wanted."""
    import subprocess
    import sys

    code = (
        "import sys, backtester.data.storage.plain; "
        "print([m for m in ('pandas', 'vectorbt', 'blosc2', 'numba') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
