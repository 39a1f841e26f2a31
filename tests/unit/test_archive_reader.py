"""Zip bytes to candles: every format there is, and everything that is none."""

from __future__ import annotations

import hashlib
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtester.data.candles import Candles
from backtester.data.errors import BadResponseError
from backtester.data.fetching.archives import reader
from backtester.data.model import Interval, Timeframe
from tests.support.world import DAY, HOUR, MINUTE, ms, same

NAME = "BTCUSDT-1m-2024-01-01.zip"
ONE_MINUTE = Timeframe.parse("1m")
START = ms("2024-01-01")
DAY_ONE = Interval(START, START + DAY)
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)


def packed(text: str, **more: str) -> bytes:
    blob = io.BytesIO()
    with zipfile.ZipFile(blob, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"table.csv": text, **more}.items():
            member = zipfile.ZipInfo(name)  # of a fixed date: the bytes name tests, see below
            archive.writestr(member, content, zipfile.ZIP_DEFLATED)
    return blob.getvalue()


def row(at: int, cells: str = "5.0,7.0,4.0,6.0,1.5", close: int = 0, quote: str = "9.25") -> str:
    return f"{at},{cells},{close},{quote},3,0.5,4.5,0\n"


def read(text: str, span: Interval = DAY_ONE, volume: int = reader.VOLUME) -> Candles:
    return reader.read(packed(text), NAME, ONE_MINUTE, span, volume)


EXPECTED = Candles.of([START, START + MINUTE], [[5, 7, 4, 6, 1.5]] * 2)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(row(START) + row(START + MINUTE), id="plain"),
        pytest.param(HEADER + row(START) + row(START + MINUTE), id="header"),
        pytest.param((row(START) + row(START + MINUTE)).rstrip("\n"), id="no-last-line-end"),
        pytest.param((HEADER + row(START) + row(START + MINUTE)).replace("\n", "\r\n"), id="crlf"),
        pytest.param(row(START * 1000) + row((START + MINUTE) * 1000), id="microseconds"),
        pytest.param(row(START) + row((START + MINUTE) * 1000), id="units-mixed"),
        pytest.param(row(START + MINUTE) + row(START), id="descending"),
        pytest.param(row(START) + row(START + MINUTE) * 2, id="a-row-twice"),
        pytest.param(
            row(START - MINUTE) + row(START) + row(START + MINUTE) + row(START + DAY),
            id="rows-of-other-days",
        ),
        pytest.param(
            row(START) + row(START + MINUTE, "5,7.00,4.000,6.0,1.50000000"), id="uneven-decimals"
        ),
    ],
)
def test_every_spelling_of_a_table_is_read(text: str) -> None:
    """Header or none, milliseconds or microseconds, any line ends: the same candles."""
    assert same(read(text), EXPECTED)


def test_coin_margined_volume_is_in_the_eighth_column() -> None:
    """Whatever its header calls it: base units, where the sixth column counts contracts."""
    found = read(HEADER + row(START, "5,7,4,6,12"), volume=reader.VOLUME_COIN_MARGINED)
    assert found.values[0].tolist() == [5, 7, 4, 6, 9.25]


def test_an_empty_table_has_no_candles() -> None:
    """Of an empty file, or of one with only a header, nothing is claimed."""
    assert len(read("")) == len(read(HEADER)) == 0


def test_a_table_longer_than_a_block_is_read_whole() -> None:
    """Blocks are cut at ends of rows, wherever they fall."""
    month = Interval(START, START + 31 * DAY)
    times = range(START, month.end, MINUTE)
    found = read(HEADER + "".join(row(at) for at in times), month)
    assert found.open_time.tolist() == list(times)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("<html><body>Hello</body></html>\n1\n2\n", "12 columns", id="html"),
        pytest.param(row(START)[:-3] + "\n", "12 columns", id="eleven-columns"),
        pytest.param(row(START) + row(START + MINUTE)[:30], "12 columns", id="cut-short"),
        pytest.param(row(START).replace("5.0", "five"), "float", id="a-word"),
        pytest.param(row(START).replace("5.0", ""), "float", id="an-empty-cell"),
        pytest.param(row(START).replace("5.0", "nan"), "finite", id="not-a-number"),
        pytest.param(row(START).replace("1.5", "-1.5"), "negative volume", id="negative-volume"),
        pytest.param(row(START).replace("6.0", "8.0"), "outside its low and high", id="ohlc"),
        pytest.param(row(START + 1000), "off the 1m grid", id="off-grid"),
        pytest.param(row(START * 1000 + 1), "whole milliseconds", id="odd-microseconds"),
        pytest.param(row(START) + row(START, "5,7,4,5,1"), "different values", id="contradiction"),
        pytest.param(row(START).replace(str(START), "1.5e12"), "whole numbers", id="time-as-float"),
    ],
)
def test_a_table_that_breaks_a_rule_is_refused_by_name(text: str, said: str) -> None:
    """One bad row refuses the file: nobody knows what else is wrong in it."""
    with pytest.raises(BadResponseError, match=said) as caught:
        read(text)
    assert str(caught.value).startswith(NAME)


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html></html>", id="html"),
        pytest.param(packed(row(START))[:-30], id="cut"),
        pytest.param(packed(row(START), other="x"), id="two-members"),
    ],
)
def test_what_is_no_zip_of_one_table_is_refused(blob: bytes) -> None:
    """Damage is told, never read as empty."""
    with pytest.raises(BadResponseError, match=NAME):
        reader.read(blob, NAME, ONE_MINUTE, DAY_ONE)


def test_a_flipped_bit_inside_a_zip_is_refused() -> None:
    """The zip's own checksum is looked at as well."""
    blob = bytearray(packed("".join(row(START + at * MINUTE) for at in range(500))))
    blob[120] ^= 1
    with pytest.raises(BadResponseError, match="not a valid zip file"):
        reader.read(bytes(blob), NAME, ONE_MINUTE, DAY_ONE)


@pytest.mark.parametrize("at", [16, 24], ids=["sum", "size"])
def test_a_member_that_is_not_what_the_directory_says_is_refused(at: int) -> None:
    """Its sum and its size are compared, though it inflates without a fault."""
    blob = bytearray(packed(row(START)))
    blob[blob.index(b"PK\x01\x02") + at] ^= 1
    with pytest.raises(BadResponseError, match="not a valid zip file"):
        reader.read(bytes(blob), NAME, ONE_MINUTE, DAY_ONE)


# ------------------------------------------------------------------ numbers


@st.composite
def decimals(draw: st.DrawFn, places: int) -> str:
    whole = draw(st.integers(0, 10 ** draw(st.integers(1, 12))))
    part = draw(st.integers(0, 10**places - 1)) if places else 0
    return f"{whole}.{part:0{places}}" if places else str(whole)


@given(st.integers(0, 10).flatmap(lambda n: st.lists(decimals(n), min_size=1, max_size=20)))
def test_numbers_have_the_bits_that_float_gives(texts: list[str]) -> None:
    """The fast way of reading a column rounds as Python does, to the last bit."""
    rows = "".join(
        row(START + at * MINUTE, f"{text},{text},{text},{text},{text}")
        for at, text in enumerate(texts)
    )
    expected = np.array([float(text) for text in texts])
    assert same(
        read(rows),
        Candles.of(START + np.arange(len(texts)) * MINUTE, np.repeat(expected[:, None], 5, axis=1)),
    )


@pytest.mark.parametrize(
    "text",
    ["0.00000001", "5023270114.00000000", "123456789012.12345678", "9007199254740993.0",
     "90071992547409931", "0.1234567890123456789", "12345678.12345678", "1e3", "0"],
)  # fmt: skip
def test_odd_numbers_have_the_bits_that_float_gives(text: str) -> None:
    """Too many digits for an integer, too many for a float, padding, exponents."""
    found = read(row(START, ",".join([text] * 5)))
    assert found.values[0].tolist() == [float(text)] * 5


# ------------------------------------------------------------------ checksums

BLOB = packed(row(START))
DIGEST = hashlib.sha256(BLOB).hexdigest()


@pytest.mark.parametrize(
    "text", [f"{DIGEST}  {NAME}\n", f"{DIGEST.upper()} *{NAME}", f"{DIGEST}\n"]
)
def test_a_right_checksum_passes(text: str) -> None:
    """As `sha256sum` writes it, in text or binary mode."""
    reader.verify(BLOB, text.encode(), NAME)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{'0' * 64}  {NAME}", "does not match its checksum"),
        (f"{DIGEST}  OTHER.zip", "is invalid"),
        ("<html>not found</html>", "is invalid"),
        ("", "is invalid"),
    ],
)
def test_a_wrong_checksum_is_told(text: str, said: str) -> None:
    """Another digest, another file's, or no checksum at all."""
    with pytest.raises(BadResponseError, match=said):
        reader.verify(BLOB, text.encode(), NAME)


def test_an_hour_of_candles_reads_alike_in_hours() -> None:
    """The grid is the timeframe's."""
    found = reader.read(packed(row(START + HOUR)), NAME, Timeframe.parse("1h"), DAY_ONE)
    assert found.open_time.tolist() == [START + HOUR]
