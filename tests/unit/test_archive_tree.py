"""The sandbox's archives: paths, formats, publication and switches, byte by byte."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile

import numpy as np
import pytest

from backtester.data.model import Interval, Timeframe
from backtester.data.sandbox import Fault, SandboxServer, SyntheticMarket
from backtester.data.sandbox.archives import ArchiveTree
from backtester.data.sandbox.dialects import Call, Reply
from backtester.data.sandbox.source import Bars
from backtester.data.sandbox.spelling import plain
from tests.support.world import DAY, HOUR, MARKET, NOON, ms

SPOT = "/data/spot/{}/klines/BTCUSDT/1h/BTCUSDT-1h-{}.zip"
USDM = "/data/futures/um/{}/klines/BTCUSDT/1h/BTCUSDT-1h-{}.zip"
COINM = "/data/futures/cm/{}/klines/BTCUSD_PERP/1h/BTCUSD_PERP-1h-{}.zip"


def get(tree: ArchiveTree, path: str, now_ms: int = NOON) -> Reply:
    return tree.answer(Call(path, {}, "archive"), now_ms)


def lines(reply: Reply) -> list[list[str]]:
    assert reply.status == 200
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        (member,) = archive.namelist()
        assert member.endswith(".csv")
        return [line.split(",") for line in archive.read(member).decode().splitlines()]


@pytest.fixture
def tree() -> ArchiveTree:
    return ArchiveTree(MARKET)


@pytest.mark.parametrize(
    ("label", "unit"),
    [("2024-12", 1), ("2025-01", 1000)],
)
def test_spot_has_no_header_and_microseconds_since_2025(
    tree: ArchiveTree, label: str, unit: int
) -> None:
    """Twelve columns as of a kline; close times end in nines of the same unit."""
    rows = lines(get(tree, SPOT.format("monthly", label)))
    start = ms(f"{label}-01")
    assert len(rows) == 31 * 24
    assert {len(row) for row in rows} == {12}
    assert int(rows[0][0]) == start * unit
    assert int(rows[0][6]) == (start + HOUR) * unit - 1
    truth = MARKET.candles("BTC/USDT", Timeframe.parse("1h"), Interval(start, start + HOUR))
    assert [float(cell) for cell in rows[0][1:6]] == truth.values[0].tolist()
    assert all(len(cell.partition(".")[2]) == 8 for cell in rows[0][1:6])


@pytest.mark.parametrize(("label", "header"), [("2022-05", False), ("2022-06", True)])
def test_futures_have_a_header_since_june_2022_and_milliseconds(
    tree: ArchiveTree, label: str, header: bool
) -> None:
    """Old files have none."""
    rows = lines(get(tree, USDM.format("monthly", label)))
    assert (rows[0][0] == "open_time") is header
    assert int(rows[header][0]) == ms(f"{label}-01")


def test_coin_margined_volume_is_contracts_and_base_stands_in_the_eighth_column(
    tree: ArchiveTree,
) -> None:
    """Its header says quote volume there all the same."""
    start = ms("2024-01-01")
    rows = lines(get(tree, COINM.format("daily", "2024-01-01")))
    assert rows[0][7] == "quote_volume"
    bars = MARKET.bars("BTC/USDT:USDT", Timeframe.parse("1h"), Interval(start, start + HOUR), NOON)
    base, quote = (float(bars.table[at, 0]) / 10 ** bars.decimals[at] for at in (4, 5))
    assert int(rows[1][5]) == math.ceil(quote / 100)
    assert float(rows[1][7]) == base


def test_a_checksum_is_the_files(tree: ArchiveTree) -> None:
    """`sha256  name`, of the very bytes."""
    path = SPOT.format("daily", "2024-05-05")
    digest = hashlib.sha256(get(tree, path).body).hexdigest()
    assert get(tree, f"{path}.CHECKSUM").body.decode() == f"{digest}  BTCUSDT-1h-2024-05-05.zip\n"


def test_files_have_the_same_bytes_in_every_tree(tree: ArchiveTree) -> None:
    """They are made of the market alone."""
    path = SPOT.format("monthly", "2024-02")
    assert get(tree, path).body == get(ArchiveTree(MARKET), path).body


@pytest.mark.parametrize(
    "path",
    [
        SPOT.format("daily", "2025-06-15"),
        SPOT.format("monthly", "2025-06"),
        SPOT.format("monthly", "2017-07"),
        SPOT.format("monthly", "2024-13"),
        SPOT.format("daily", "2024-02"),
        SPOT.format("monthly", "2024-02").replace("BTCUSDT-1h", "ETHUSDT-1h"),
        SPOT.format("monthly", "2024-02").replace("BTCUSDT", "NONESUCH"),
        SPOT.format("daily", "2024-02-01").replace("1h", "1w"),
        SPOT.format("monthly", "2024-02").replace("1h", "7h"),
        "/data/",
    ],
)
def test_what_is_not_there_is_not_found(tree: ArchiveTree, path: str) -> None:
    """Not yet published, before the listing, misspelled: 404 with a page in XML."""
    reply = get(tree, path)
    assert reply.status == 404
    assert b"NoSuchKey" in reply.body


def test_files_appear_some_time_after_they_end(tree: ArchiveTree) -> None:
    """A day's on the next day, a month's on the first Monday."""
    day, month = SPOT.format("daily", "2025-05-31"), SPOT.format("monthly", "2025-05")
    ended = ms("2025-06-01")
    assert get(tree, day, ended).status == 404
    assert get(tree, day, ended + DAY).status == 200
    assert get(tree, month, ended + DAY - 1).status == 404
    assert get(tree, month, ended + DAY).status == 200  # the second is a Monday
    assert get(tree, SPOT.replace("1h", "1mo").format("monthly", "2024-02")).status == 200


def test_switches_take_hold_and_let_go(tree: ArchiveTree) -> None:
    """Missing files and rows, other candles, wrong checksums; and all is well again."""
    path, start = SPOT.format("daily", "2024-05-05"), ms("2024-05-05")
    sound = get(tree, path).body
    tree.omit("BTCUSDT", Interval(start, start + 2 * HOUR))
    assert len(lines(get(tree, path))) == 22
    tree.alter("BTCUSDT", "1h", start + 2 * HOUR, (1.0, 4.0, 0.5, 2.0, 0.25))
    assert [float(cell) for cell in lines(get(tree, path))[0][1:6]] == [1, 4, 0.5, 2, 0.25]
    tree.clear()
    checksum = get(tree, f"{path}.CHECKSUM").body
    tree.spoil("2024-05-05", times=1)
    assert get(tree, f"{path}.CHECKSUM").body != checksum
    assert get(tree, f"{path}.CHECKSUM").body == checksum
    tree.remove("2024-05-05")
    assert get(tree, path).status == get(tree, f"{path}.CHECKSUM").status == 404
    tree.clear()
    assert get(tree, path).body == sound


def test_the_server_logs_and_disturbs_archive_requests_but_weighs_nothing() -> None:
    """The tree lies under the server's own address, with the same faults."""
    import urllib.error
    import urllib.request

    with SandboxServer(MARKET, clock=lambda: NOON) as server:
        url = server.url + SPOT.format("daily", "2024-05-05")
        with urllib.request.urlopen(url) as answer:
            assert answer.headers["Content-Type"].startswith("application/zip")
            assert len(answer.read()) > 500
        server.faults.add(Fault.HTTP_503, times=1, match=".zip")
        with pytest.raises(urllib.error.HTTPError, match="503") as caught:
            urllib.request.urlopen(url)
        caught.value.close()
        assert [(one.status, one.weight) for one in server.requests] == [(200, 0), (503, 0)]


def test_a_market_of_decimal_text_is_archived_too(tree: ArchiveTree) -> None:
    """A replayed market knows its candles as text."""

    class Spelled(SyntheticMarket):
        def bars(self, symbol: str, timeframe: Timeframe, interval: Interval, now_ms: int) -> Bars:
            bars = super().bars(symbol, timeframe, interval, now_ms)
            scale = [10**places for places in bars.decimals or ()]
            text = [
                [plain(value / by) for value in row.tolist()]
                for row, by in zip(bars.table, scale, strict=True)
            ]
            return Bars(bars.open_time, np.array(text, object), None)

    spelled = ArchiveTree(Spelled())
    for path in (SPOT.format("daily", "2024-01-01"), COINM.format("daily", "2022-01-01")):
        exact, text = (lines(get(one, path)) for one in (tree, spelled))
        assert [list(map(float, row)) for row in text] == [list(map(float, row)) for row in exact]
