"""The sandbox server: Binance's dialect over real HTTP, its weights, and its faults."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from backtester.data import sandbox
from backtester.data.candles import Candles
from backtester.data.model import Interval, Timeframe
from backtester.data.sandbox import Fault, Faults, SandboxServer, SyntheticMarket
from backtester.data.sandbox.weights import WeightBook

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOW = 1_795_354_223_456  # 2026-11-22, a few seconds into a minute
MARKET = SyntheticMarket()
BTC_LISTED = 1_502_942_400_000


@dataclass
class Clock:
    """A clock that stands where it is put."""

    now_ms: int = NOW

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class Answer:
    """One HTTP answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Asks a server without any help from an exchange library."""

    server: SandboxServer
    timeout_s: float = 10.0

    def get(self, path: str, **params: object) -> Answer:
        host = self.server.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=self.timeout_s)
        with contextlib.closing(connection):
            connection.request("GET", f"{path}?{urlencode(params)}" if params else path)
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read())

    def klines(self, **params: object) -> Any:
        return self.get("/api/v3/klines", **params).json


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def running(clock: Clock) -> Iterator[SandboxServer]:
    with SandboxServer(MARKET, clock=clock, weight_limits={"spot": 10**6, "usdm": 10**6}) as server:
        yield server


@pytest.fixture
def server(running: SandboxServer, clock: Clock) -> SandboxServer:
    running.faults.clear()
    running.requests.clear()
    clock.now_ms = NOW
    return running


@pytest.fixture
def client(server: SandboxServer) -> Client:
    return Client(server)


def times(rows: list[list[Any]]) -> list[int]:
    return [row[0] for row in rows]


def table(rows: list[list[Any]]) -> Candles:
    return Candles.of([row[0] for row in rows], [row[1:6] for row in rows])


# --------------------------------------------------------------------------- klines


def test_from_a_start_the_oldest_come_first(client: Client):
    """With startTime the page begins there, or at the listing if that is later."""
    rows = client.klines(symbol="BTCUSDT", interval="1m", startTime=0, limit=3)
    assert times(rows) == [BTC_LISTED + at * MINUTE for at in range(3)]
    rows = client.klines(symbol="BTCUSDT", interval="1m", startTime=BTC_LISTED + 1, limit=2)
    assert times(rows) == [BTC_LISTED + MINUTE, BTC_LISTED + 2 * MINUTE]


def test_both_bounds_are_inclusive(client: Client):
    """A candle that opens exactly at startTime or endTime is part of the page."""
    start, end = 1_700_000_040_000, 1_700_000_160_000
    rows = client.klines(symbol="BTCUSDT", interval="1m", startTime=start, endTime=end)
    assert times(rows) == [start, start + MINUTE, end]
    rows = client.klines(symbol="BTCUSDT", interval="1m", startTime=start + 1, endTime=end - 1)
    assert times(rows) == [start + MINUTE]
    assert client.klines(symbol="BTCUSDT", interval="1m", startTime=end, endTime=start) == []


def test_without_a_start_the_newest_are_kept(client: Client):
    """The page ends at endTime, or with the candle that is forming now."""
    end = 1_700_000_160_000
    rows = client.klines(symbol="BTCUSDT", interval="1m", endTime=end, limit=2)
    assert times(rows) == [end - MINUTE, end]
    rows = client.klines(symbol="BTCUSDT", interval="1h", limit=3)
    forming = NOW - NOW % HOUR
    assert times(rows) == [forming - 2 * HOUR, forming - HOUR, forming]
    assert rows[-1][6] == forming + HOUR - 1


@pytest.mark.parametrize(
    ("path", "limit", "rows"),
    [
        ("/api/v3/klines", None, 500),
        ("/api/v3/klines", 1000, 1000),
        ("/api/v3/klines", 5000, 1000),
        ("/fapi/v1/klines", None, 500),
        ("/fapi/v1/klines", 1500, 1500),
        ("/fapi/v1/klines", 5000, 1500),
    ],
)
def test_pages_have_a_default_and_a_cap(client: Client, path: str, limit: int | None, rows: int):
    """Spot pages hold 500 to 1000 candles, USD-M pages 500 to 1500; more is silently cut."""
    params = {"symbol": "BTCUSDT", "interval": "1m", "startTime": 1_700_000_040_000}
    if limit is not None:
        params["limit"] = limit
    assert len(client.get(path, **params).json) == rows


def test_rows_have_binances_twelve_columns(client: Client):
    """Times and counts are integers, prices and volumes decimal text, and they fit together."""
    rows = client.klines(symbol="BTCUSDT", interval="1h", startTime=1_699_999_200_000, limit=50)
    for row in rows:
        kinds = [int, *[str] * 5, int, str, int, *[str] * 3]
        assert [type(cell) for cell in row] == kinds
        texts = [row[at] for at in (1, 2, 3, 4, 5, 7, 9, 10)]
        assert all(len(cell.partition(".")[2]) == 8 for cell in texts)
        opened, high, low, closed, volume, quote, taker, taker_quote = map(float, texts)
        assert row[6] == row[0] + HOUR - 1
        assert low <= min(opened, closed) <= max(opened, closed) <= high
        assert low <= quote / volume <= high
        assert 0 < taker < volume
        assert 0 < taker_quote < quote
        assert row[11] == "0"


@pytest.mark.parametrize("interval", ["1m", "5m", "1h", "1d", "1w", "1M"])
@pytest.mark.parametrize(
    ("path", "symbol", "market_id"),
    [
        ("/api/v3/klines", "BTC/USDT", "BTCUSDT"),
        ("/api/v3/klines", "PEPE/USDT", "PEPEUSDT"),
        ("/api/v3/klines", "BTC/JPY", "BTCJPY"),
        ("/fapi/v1/klines", "BTC/USDT:USDT", "BTCUSDT"),
        ("/fapi/v1/klines", "ETH/USDT:USDT-260925", "ETHUSDT_260925"),
    ],
)
def test_text_is_the_truth_bit_for_bit(
    client: Client, path: str, symbol: str, market_id: str, interval: str
):
    """Every number read back from the wire is the market's float, in every bit."""
    timeframe = Timeframe.parse(interval)
    start = max(MARKET.listing(symbol).listed_ms, 1_690_000_000_000)
    page = client.get(path, symbol=market_id, interval=interval, startTime=start, limit=200).json
    until = min(timeframe.next(times(page)[-1]), timeframe.floor(NOW))
    truth = MARKET.candles(symbol, timeframe, Interval(start, until))
    assert len(truth) > 0
    assert table(page).within(Interval(start, until)) == truth


def test_a_forming_candle_ends_with_the_clock(client: Client, clock: Clock):
    """A candle grows with the exchange's clock, closes, and never changes again."""
    hour = 1_700_002_800_000
    ask = {"symbol": "BTCUSDT", "interval": "1h", "startTime": hour, "limit": 1}
    clock.now_ms = hour
    assert client.klines(**ask) == []
    volumes = []
    for minutes in (0.5, 20, 40, 60, 61, 10_000):
        clock.now_ms = hour + int(minutes * MINUTE)
        volumes.append(float(client.klines(**ask)[0][5]))
    assert volumes[0] < volumes[1] < volumes[2] < volumes[3] == volumes[4] == volumes[5]
    clock.now_ms = hour - 1
    assert client.klines(**ask) == []  # what was rendered later is not shown earlier


def test_delisted_symbols_still_serve_their_past(client: Client):
    """A symbol in BREAK has candles up to its last minute and none after."""
    ended = MARKET.listing("LUNA/USDT").delisted_ms
    rows = client.klines(symbol="LUNAUSDT", interval="1m", limit=2)
    assert times(rows) == [ended - 2 * MINUTE, ended - MINUTE]
    assert client.klines(symbol="LUNAUSDT", interval="1m", startTime=ended) == []


def test_a_page_runs_on_behind_an_outage(client: Client):
    """From a start inside the longest outage, the page begins where trading resumed."""
    outage = max(MARKET.outages, key=lambda outage: outage.end - outage.start)
    rows = client.klines(symbol="BTCUSDT", interval="1m", startTime=outage.start, limit=5)
    assert times(rows) == [outage.end + at * MINUTE for at in range(5)]
    until = outage.start + 1000 * MINUTE
    assert not client.klines(symbol="BTCUSDT", interval="1m", startTime=outage.start, endTime=until)


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"interval": "1h"}, -1102),
        ({"symbol": "BTCUSDT"}, -1102),
        ({"symbol": "", "interval": "1h"}, -1102),
        ({"symbol": "NOPEUSDT", "interval": "1h"}, -1121),
        ({"symbol": "BTC/USDT", "interval": "1h"}, -1100),
        ({"symbol": "BTCUSDT", "interval": "7m"}, -1120),
        ({"symbol": "BTCUSDT", "interval": "1s"}, -1120),
        ({"symbol": "BTCUSDT", "interval": "1h", "limit": "many"}, -1100),
        ({"symbol": "BTCUSDT", "interval": "1h", "limit": "0"}, -1130),
        ({"symbol": "BTCUSDT", "interval": "1h", "startTime": "-1"}, -1100),
        ({"symbol": "BTCUSDT", "interval": "1h", "endTime": "soon"}, -1100),
    ],
)
def test_bad_questions_get_binances_errors(client: Client, params: dict[str, str], code: int):
    """Each mistake is answered with status 400 and Binance's own code."""
    answer = client.get("/api/v3/klines", **params)
    assert (answer.status, answer.json["code"]) == (400, code)
    assert answer.json["msg"]


def test_unknown_paths_are_not_found(client: Client, server: SandboxServer):
    """Paths of no dialect and of no endpoint get 404 and are logged."""
    assert client.get("/nothing/here").status == 404
    assert client.get("/api/v3/depth").status == 404
    assert [request.status for request in server.requests] == [404, 404]


# --------------------------------------------------------------------------- listings, tickers


def test_spot_listings_follow_the_clock(client: Client, clock: Clock):
    """exchangeInfo shows what is listed by now, and BREAK for what is delisted by now."""
    now = {row["symbol"]: row for row in client.get("/api/v3/exchangeInfo").json["symbols"]}
    assert now["BTCUSDT"]["status"] == "TRADING"
    assert now["LUNAUSDT"]["status"] == "BREAK"
    assert now["PEPEUSDT"]["filters"][0]["tickSize"] == "0.00000001"
    clock.now_ms = 1_609_459_200_000  # 2021-01-01
    then = {row["symbol"]: row for row in client.get("/api/v3/exchangeInfo").json["symbols"]}
    assert then["LUNAUSDT"]["status"] == "TRADING"
    assert "PEPEUSDT" not in then
    assert client.get("/api/v3/klines", symbol="PEPEUSDT", interval="1h").json["code"] == -1121
    asked = client.get("/api/v3/exchangeInfo", symbol="ETHBTC").json["symbols"]
    assert [row["symbol"] for row in asked] == ["ETHBTC"]


def test_contracts_name_their_kind_and_dates(client: Client, clock: Clock):
    """Perpetuals, the current and the next quarter are told apart, and the delivered settle."""

    def kinds() -> dict[str, tuple[str, str]]:
        rows = client.get("/fapi/v1/exchangeInfo").json["symbols"]
        return {row["symbol"]: (row["contractType"], row["status"]) for row in rows}

    assert kinds()["BTCUSDT"] == ("PERPETUAL", "TRADING")
    assert kinds()["FTTUSDT"] == ("PERPETUAL", "SETTLING")
    assert kinds()["BTCUSDT_260925"] == ("CURRENT_QUARTER", "SETTLING")
    assert kinds()["BTCUSDT_261225"] == ("CURRENT_QUARTER", "TRADING")
    assert kinds()["BTCUSDT_270326"] == ("NEXT_QUARTER", "TRADING")
    clock.now_ms = 1_788_220_800_000  # 2026-09-01
    assert kinds()["BTCUSDT_260925"] == ("CURRENT_QUARTER", "TRADING")
    assert kinds()["BTCUSDT_261225"] == ("NEXT_QUARTER", "TRADING")
    assert "BTCUSDT_270326" not in kinds()
    rows = client.get("/fapi/v1/exchangeInfo").json["symbols"]
    row = next(row for row in rows if row["symbol"] == "BTCUSDT_260925")
    assert row["deliveryDate"] == 1_790_323_200_000
    rows = client.get("/dapi/v1/exchangeInfo").json["symbols"]
    assert {"BTCUSD_PERP", "BTCUSD_260925"} <= {row["symbol"] for row in rows}


def test_tickers_come_alone_in_lists_and_all(client: Client):
    """`symbol` gives an object, `symbols` a list in its order, neither gives every symbol."""
    one = client.get("/api/v3/ticker/24hr", symbol="BTCUSDT").json
    some = client.get("/api/v3/ticker/24hr", symbols='["ETHBTC","BTCUSDT"]').json
    every = client.get("/api/v3/ticker/24hr").json
    assert [row["symbol"] for row in some] == ["ETHBTC", "BTCUSDT"]
    assert some[1] == one
    assert one in every
    truth = MARKET.ticker("BTC/USDT", NOW)
    assert float(one["quoteVolume"]) == truth.quote_volume
    assert float(one["lastPrice"]) == truth.last
    assert client.get("/api/v3/ticker/24hr", symbols="BTCUSDT").json["code"] == -1100
    assert client.get("/api/v3/ticker/24hr", symbol="NOPE").json["code"] == -1121


def test_a_ranking_by_volume_needs_the_quote(client: Client):
    """Volumes in yen are larger numbers than volumes in dollars, so ranking must compare alike."""
    rows = client.get("/api/v3/ticker/24hr").json
    ranked = sorted(rows, key=lambda row: -float(row["quoteVolume"]))
    assert ranked[0]["symbol"] == "BTCJPY"
    dollars = [row["symbol"] for row in ranked if row["symbol"].endswith("USDT")]
    assert dollars[0] == "BTCUSDT"


def test_time_and_ping(client: Client):
    """The server tells the exchange's clock, not the machine's."""
    assert client.get("/api/v3/time").json == {"serverTime": NOW}
    assert client.get("/fapi/v1/time").json == {"serverTime": NOW}
    assert client.get("/api/v3/ping").json == {}


# --------------------------------------------------------------------------- the real client


async def _with_ccxt(server: SandboxServer, kind: str, job: Any) -> Any:
    import ccxt.async_support as ccxt

    options = {"fetchMarkets": {"types": [kind]}, "defaultType": "spot"}
    if kind == "linear":
        options["defaultType"] = "swap"
    exchange = ccxt.binance({"enableRateLimit": False, "options": options})
    exchange.urls["api"].update(server.ccxt_urls)
    try:
        return await job(exchange)
    finally:
        await exchange.close()


@pytest.mark.parametrize(("kind", "types"), [("spot", ["spot"]), ("linear", ["swap", "future"])])
def test_ccxt_reads_the_listing(server: SandboxServer, kind: str, types: list[str]):
    """ccxt's unmodified binance class finds exactly our markets, with our types and states."""
    markets = asyncio.run(_with_ccxt(server, kind, lambda exchange: exchange.load_markets()))
    expected = {item.symbol: item for name in types for item in MARKET.listings(name)}
    expected = {name: item for name, item in expected.items() if item.known_at(NOW)}
    assert set(markets) == set(expected)
    for symbol, item in expected.items():
        found, market = markets[symbol], item.market_at(NOW)
        assert (found["id"], found["type"], found["active"]) == (
            market.id,
            market.type,
            market.active,
        )
        assert (found["base"], found["quote"], found["settle"]) == (
            market.base,
            market.quote,
            market.settle,
        )
        assert found["created"] == market.created_ms
        assert found["expiry"] == item.expiry_ms


@pytest.mark.parametrize(
    ("kind", "symbol"),
    [
        ("spot", "BTC/USDT"),
        ("spot", "BONK/USDT"),
        ("linear", "BTC/USDT:USDT"),
        ("linear", "BTC/USDT:USDT-261225"),
    ],
)
def test_ccxt_reads_the_truth(server: SandboxServer, kind: str, symbol: str):
    """Candles, tickers and the clock pass through ccxt without a bit changed."""

    async def ask(exchange: Any) -> tuple[Any, ...]:
        pages = [
            await exchange.fetch_ohlcv(symbol, text, since, limit=1000)
            for text in ("1m", "1h", "1d", "1w", "1M")
        ]
        return pages, await exchange.fetch_tickers(), await exchange.fetch_time()

    since = max(MARKET.listing(symbol).listed_ms, 1_780_000_000_000)
    pages, tickers, told = asyncio.run(_with_ccxt(server, kind, ask))
    for text, rows in zip(("1m", "1h", "1d", "1w", "1M"), pages, strict=True):
        timeframe = Timeframe.parse(text)
        until = min(timeframe.next(rows[-1][0]), timeframe.floor(NOW))
        truth = MARKET.candles(symbol, timeframe, Interval(since, until))
        assert len(truth) > 0
        assert (
            Candles.of(times(rows), [row[1:] for row in rows]).within(Interval(since, until))
            == truth
        )
    ticker = MARKET.ticker(symbol, NOW)
    found = tickers[symbol]
    assert (found["quoteVolume"], found["baseVolume"], found["last"], found["vwap"]) == (
        ticker.quote_volume,
        ticker.volume,
        ticker.last,
        ticker.weighted_average,
    )
    assert told == NOW


# --------------------------------------------------------------------------- weights


@dataclass
class Stopwatch:
    """Seconds that pass when told to."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize(
    ("path", "params", "weight"),
    [
        ("/api/v3/klines", {"symbol": "BTCUSDT", "interval": "1h"}, 2),
        ("/api/v3/exchangeInfo", {}, 20),
        ("/api/v3/time", {}, 1),
        ("/api/v3/ticker/24hr", {}, 80),
        ("/api/v3/ticker/24hr", {"symbol": "BTCUSDT"}, 2),
        ("/api/v3/ticker/24hr", {"symbols": json.dumps(["BTCUSDT"] * 20)}, 2),
        ("/api/v3/ticker/24hr", {"symbols": json.dumps(["BTCUSDT"] * 21)}, 40),
        ("/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "1h", "limit": 99}, 1),
        ("/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "1h", "limit": 499}, 2),
        ("/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "1h"}, 5),
        ("/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "1h", "limit": 1000}, 5),
        ("/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "1h", "limit": 1500}, 10),
        ("/fapi/v1/ticker/24hr", {}, 40),
        ("/fapi/v1/ticker/24hr", {"symbol": "BTCUSDT"}, 1),
    ],
)
def test_weights(
    client: Client, server: SandboxServer, path: str, params: dict[str, object], weight: int
):
    """Each call costs what Binance's tables say."""
    assert client.get(path, **params).status == 200
    assert server.requests[-1].weight == weight
    assert server.requests.weight() == weight


def test_weight_is_counted_by_the_minute_and_told():
    """The header tells what is used; over the limit come 429 and a wait; a minute heals."""
    watch = Stopwatch(seconds=70.0)
    weights = WeightBook(monotonic=watch)
    with SandboxServer(MARKET, clock=Clock(), weight_limits={"spot": 5}, weights=weights) as server:
        client = Client(server)
        ask = {"symbol": "BTCUSDT", "interval": "1h", "limit": 1}
        used = [client.get("/api/v3/klines", **ask).headers["x-mbx-used-weight-1m"] for _ in "ab"]
        assert used == ["2", "4"]
        refused = client.get("/api/v3/klines", **ask)
        assert (refused.status, refused.json["code"]) == (429, -1003)
        assert refused.headers["retry-after"] == "50"
        assert refused.headers["x-mbx-used-weight-1m"] == "4"
        assert client.get("/api/v3/time").status == 200  # one weight is left
        assert client.get("/fapi/v1/klines", **ask).status == 200  # another limit
        watch.seconds = 120.0
        assert client.get("/api/v3/klines", **ask).headers["x-mbx-used-weight-1m"] == "2"
        assert [request.weight for request in server.requests] == [2, 2, 0, 1, 1, 2]
        limits = client.get("/fapi/v1/exchangeInfo").json["rateLimits"]
        assert limits[0]["limit"] == 2400


def test_a_client_that_keeps_on_is_banned():
    """After several refusals comes 418 for everything, until the ban is over."""
    watch = Stopwatch()
    weights = WeightBook(refusals_before_ban=3, ban_s=300.0, monotonic=watch)
    with SandboxServer(MARKET, clock=Clock(), weight_limits={"spot": 1}, weights=weights) as server:
        client = Client(server)
        assert client.get("/api/v3/ping").status == 200
        assert [client.get("/api/v3/ping").status for _ in range(4)] == [429, 429, 429, 418]
        watch.seconds = 100.0
        banned = client.get("/fapi/v1/ping")
        assert (banned.status, banned.json["code"]) == (418, -1003)
        assert banned.headers["retry-after"] == "200"
        assert str(NOW + 200_000) in banned.json["msg"]
        watch.seconds = 300.0
        assert client.get("/api/v3/ping").status == 200


def test_waiting_between_refusals_is_forgiven():
    """A client that is let in again starts with a clean slate."""
    watch = Stopwatch()
    book = WeightBook(refusals_before_ban=1, monotonic=watch)
    verdicts = []
    for minute in range(4):
        watch.seconds = minute * 60.0
        verdicts += [book.charge("spot", 1, 1), book.charge("spot", 1, 1)]
    assert [verdict.banned for verdict in verdicts] == [False] * 8
    assert [verdict.retry_after_s for verdict in verdicts] == [None, 60] * 4


# --------------------------------------------------------------------------- the log


def test_the_log_tells_what_was_asked(client: Client, server: SandboxServer):
    """Path, parameters, time, status, weight and fault of each request are kept in order."""
    server.faults.add(Fault.HTTP_503, times=1)
    client.get("/api/v3/time")
    client.get("/api/v3/klines", symbol="BTCUSDT", interval="1h", limit=1)
    first, second = server.requests
    assert (first.path, first.status, first.fault) == ("/api/v3/time", 503, "503")
    assert second.params == {"symbol": "BTCUSDT", "interval": "1h", "limit": "1"}
    assert (second.at_ms, second.status, second.weight, second.fault) == (NOW, 200, 2, None)
    assert server.requests.count() == len(server.requests) == 2
    assert server.requests.count("klines") == 1
    server.requests.clear()
    assert server.requests.count() == 0


# --------------------------------------------------------------------------- faults

PAGE = {"symbol": "BTCUSDT", "interval": "1h", "startTime": 1_699_999_200_000, "limit": 10}


def page(client: Client) -> Answer:
    return client.get("/api/v3/klines", **PAGE)


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault.HTTP_403, 403),
        (Fault.HTTP_404, 404),
        (Fault.HTTP_429, 429),
        (Fault.HTTP_418, 418),
        (Fault.HTTP_451, 451),
        (Fault.HTTP_500, 500),
        (Fault.HTTP_502, 502),
        (Fault.HTTP_503, 503),
        (Fault.HTTP_504, 504),
        (Fault.DISCONNECTED, 500),
        (Fault.MAINTENANCE, 503),
    ],
)
def test_a_status_fault_strikes_and_passes(
    client: Client, server: SandboxServer, fault: Fault, status: int
):
    """The fault answers as often as it was told to, and the exchange is well again after."""
    good = page(client).body
    rule = server.faults.add(fault, times=2, retry_after_s=7)
    answers = [page(client), page(client)]
    assert [answer.status for answer in answers] == [status, status]
    if status in {418, 429}:
        assert answers[0].headers["retry-after"] == "7"
        assert answers[0].json["code"] == -1003
    assert page(client).body == good
    assert rule.fired == 2
    assert [request.fault for request in server.requests] == [None, fault, fault, None]


def test_binances_own_failures_have_their_words(client: Client, server: SandboxServer):
    """-1001 and maintenance say what ccxt looks for."""
    server.faults.add(Fault.DISCONNECTED, times=1)
    server.faults.add(Fault.MAINTENANCE, times=1)
    assert page(client).json["code"] == -1001
    assert page(client).json["msg"] == "System is under maintenance."


def test_a_reset_connection(client: Client, server: SandboxServer):
    """The client sees its connection reset, and no answer."""
    server.faults.add(Fault.RESET, times=1)
    with pytest.raises(ConnectionResetError):
        page(client)
    assert (server.requests[-1].status, server.requests[-1].fault) == (0, "reset")
    assert page(client).status == 200


def test_a_slow_body(client: Client, server: SandboxServer):
    """The whole body comes, but takes its time."""
    good = page(client).body
    server.faults.add(Fault.SLOW_BODY, delay_s=0.2)
    began = time.monotonic()
    assert page(client).body == good
    assert time.monotonic() - began >= 0.2


def test_a_hanging_body(client: Client, server: SandboxServer):
    """The body stops half way, and the client must lose patience first."""
    server.faults.add(Fault.HANGING_BODY)
    client.timeout_s = 0.2
    with pytest.raises(TimeoutError):
        page(client)


def test_a_server_stops_while_a_body_hangs():
    """Nothing a client waits for keeps the server from stopping."""
    with SandboxServer(MARKET, clock=Clock()) as server:
        server.faults.add(Fault.HANGING_BODY)
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as waiting:
            waiting.sendall(b"GET /api/v3/time HTTP/1.1\r\nHost: sandbox\r\n\r\n")
            assert waiting.recv(1).startswith(b"H")
            server.stop()
            assert b"serverTime" not in waiting.recv(65536)[-8:]


def test_a_cut_body(client: Client, server: SandboxServer):
    """Content-Length promises more than comes before the connection closes."""
    server.faults.add(Fault.CUT_BODY)
    with pytest.raises(http.client.IncompleteRead):
        page(client)


def test_bodies_that_are_not_candles(client: Client, server: SandboxServer):
    """Half a JSON, a web page and nothing at all come with status 200 and a true length."""
    good = page(client).body
    server.faults.add(Fault.CUT_JSON, times=1)
    server.faults.add(Fault.HTML, times=1)
    server.faults.add(Fault.EMPTY_BODY, times=1)
    cut, html, empty = page(client), page(client), page(client)
    assert [answer.status for answer in (cut, html, empty)] == [200] * 3
    assert cut.body == good[: len(good) // 2]
    assert html.headers["content-type"].startswith("text/html")
    assert html.body.startswith(b"<!DOCTYPE html>")
    assert empty.body == b""


def test_faults_of_rows(client: Client, server: SandboxServer):
    """Each row fault breaks a page in its own way and leaves the other rows as they were."""
    good = page(client).json

    def struck(fault: Fault) -> list[list[Any]]:
        server.faults.clear()
        server.faults.add(fault, times=1)
        return page(client).json

    assert struck(Fault.EMPTY_LIST) == []
    assert struck(Fault.DUPLICATE_ROWS) == [*good, good[-1]]
    assert struck(Fault.DESCENDING_ROWS) == good[::-1]
    shuffled = struck(Fault.SHUFFLED_ROWS)
    assert shuffled != good
    assert sorted(shuffled) == good
    assert struck(Fault.SHORT_PAGE) == good[:5]
    outside = struck(Fault.OUT_OF_WINDOW_ROWS)
    assert outside[1:] == good  # behind, nothing is outside of what has no end
    assert outside[0][0] == good[0][0] - HOUR
    server.faults.add(Fault.OUT_OF_WINDOW_ROWS, times=1)
    outside = client.get("/api/v3/klines", **PAGE, endTime=good[7][0]).json
    assert outside[1:-1] == good[:8]
    assert (outside[0][0], outside[-1][0]) == (good[0][0] - HOUR, good[8][0])
    assert struck(Fault.INVENTED_ROW) == [[good[0][0] - HOUR, *good[0][1:]], *good]
    for fault, cell, value in (
        (Fault.NULL_FIELD, 4, None),
        (Fault.NOT_FINITE_ROW, 4, "NaN"),
        (Fault.OFF_GRID_ROW, 0, good[5][0] + 1000),
    ):
        rows = struck(fault)
        assert rows[5][cell] == value
        rows[5][cell] = good[5][cell]
        assert rows == good
    broken = struck(Fault.BROKEN_OHLC_ROW)[5]
    assert float(broken[4]) > float(broken[2])


def test_row_faults_wait_for_rows(client: Client, server: SandboxServer):
    """A fault of rows is not used up by a call that has none."""
    rule = server.faults.add(Fault.NULL_FIELD, times=1)
    client.get("/api/v3/time")
    client.klines(symbol="BTCUSDT", interval="1h", startTime=0, endTime=1)
    assert rule.fired == 0
    page(client)
    assert rule.fired == 1


def test_a_revision_is_for_good(client: Client, server: SandboxServer):
    """A revised candle keeps its new values in every later page, and only that candle does."""
    good = page(client).json
    values = (1.5, 2.5, 0.00000125, 2.0, 33.0)
    server.faults.revise("BTC/USDT", "1h", good[3][0], values)
    for _ in range(2):
        rows = page(client).json
        assert tuple(float(cell) for cell in rows[3][1:6]) == values
        assert rows[:3] + rows[4:] == good[:3] + good[4:]
        assert server.requests[-1].fault == "revision"
    futures = client.get("/fapi/v1/klines", **PAGE).json
    assert tuple(float(cell) for cell in futures[3][1:6]) != values
    with pytest.raises(ValueError, match="revise"):
        server.faults.add(Fault.REVISION)


def test_a_wrong_clock(client: Client, server: SandboxServer):
    """The time told is off, and what the exchange shows is not."""
    good = page(client).body
    server.faults.add(Fault.WRONG_CLOCK, offset_ms=-90_000)
    assert client.get("/api/v3/time").json["serverTime"] == NOW - 90_000
    assert client.get("/api/v3/exchangeInfo").json["serverTime"] == NOW - 90_000
    assert page(client).body == good


def test_faults_every_nth_time_and_by_chance(client: Client, server: SandboxServer):
    """A rule can strike every n-th call, or by a chance that repeats with its seed."""
    server.faults.add(Fault.HTTP_500, every=3)
    statuses = [client.get("/api/v3/ping").status for _ in range(7)]
    assert statuses == [200, 200, 500, 200, 200, 500, 200]
    runs = []
    for _ in range(2):
        server.faults.clear()
        server.faults.add("500", probability=0.3, seed=4)
        runs.append([client.get("/api/v3/ping").status for _ in range(40)])
    assert runs[0] == runs[1]
    assert 4 < runs[0].count(500) < 24


def test_faults_choose_their_calls(client: Client, server: SandboxServer):
    """A rule can be for a path, a symbol in either spelling, or whatever a function says."""
    ask = {"symbol": "ETHUSDT", "interval": "1h", "limit": 1}
    for match, statuses in (
        ("klines", [500, 500, 200]),
        ("ETH/USDT", [500, 200, 200]),
        ("ETHUSDT", [500, 500, 200]),
        ("ETH/USDT:USDT", [200, 500, 200]),
        (lambda call: call.family == "usdm", [200, 500, 200]),
    ):
        rule = server.faults.add(Fault.HTTP_500, match=match)
        paths = ("/api/v3/klines", "/fapi/v1/klines")
        found = [client.get(path, **ask).status for path in paths]
        found.append(client.get("/api/v3/time").status)
        assert found == statuses
        server.faults.remove(rule)
        server.faults.remove(rule)


def test_faults_can_be_shared_and_thrown_while_serving():
    """One switchboard works two servers, from any thread."""
    faults = Faults()
    with (
        SandboxServer(MARKET, clock=Clock(), faults=faults) as one,
        SandboxServer(MARKET, clock=Clock(), faults=faults) as other,
    ):
        thread = threading.Thread(target=faults.add, args=(Fault.HTTP_502,))
        thread.start()
        thread.join()
        assert Client(one).get("/api/v3/ping").status == 502
        assert Client(other).get("/api/v3/ping").status == 502


# --------------------------------------------------------------------------- life


def test_latency_delays_every_answer():
    """An answer takes at least the latency asked for."""
    with SandboxServer(MARKET, clock=Clock(), latency_s=0.15) as server:
        began = time.monotonic()
        Client(server).get("/api/v3/ping")
        assert time.monotonic() - began >= 0.15


def test_a_server_starts_and_stops_again():
    """Stopping frees the port, starting again takes one, and both are harmless twice."""
    server = SandboxServer(MARKET, clock=Clock())
    with pytest.raises(RuntimeError, match="not running"):
        server.url  # noqa: B018 - the property raises
    for _ in range(2):
        assert server.start() is server
        assert server.start() is server
        assert Client(server).get("/api/v3/ping").status == 200
        address = server.url
        server.stop()
        server.stop()
        host, port = address.removeprefix("http://").split(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=5)


def test_a_taken_port_is_an_error_at_start():
    """A port in use is told where the server is started, and nothing is left running."""
    with SandboxServer(MARKET, clock=Clock()) as server:
        port = int(server.url.rpartition(":")[2])
        second = SandboxServer(MARKET, port=port)
        with pytest.raises(OSError, match="in use"):
            second.start()
        second.stop()


def test_the_default_clock_is_real_time():
    """Without a clock of its own the exchange lives now."""
    with SandboxServer(MARKET) as server:
        told = Client(server).get("/api/v3/time").json["serverTime"]
    assert abs(told - time.time() * 1000) < 60_000


def test_many_clients_at_once(server: SandboxServer):
    """Concurrent questions get their own answers."""
    answers: dict[int, list[int]] = {}

    def ask(start: int) -> None:
        params = {"symbol": "BTCUSDT", "interval": "1m", "startTime": start, "limit": 3}
        answers[start] = times(Client(server).klines(**params))

    starts = [1_700_000_040_000 + at * HOUR for at in range(24)]
    threads = [threading.Thread(target=ask, args=(start,)) for start in starts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {start: [start + at * MINUTE for at in range(3)] for start in starts}


def test_one_local_server_per_process(monkeypatch: pytest.MonkeyPatch):
    """The shared server is the same for everyone in a process, and another's is left alone."""
    monkeypatch.setattr(sandbox, "_shared", None)
    server = sandbox.local_server()
    try:
        assert sandbox.local_server() is server
        assert Client(server).get("/api/v3/ping").status == 200
        monkeypatch.setattr(os, "getpid", lambda: -1)  # as it is after a fork
        child = sandbox.local_server()
        assert child is not server
        child.stop()
    finally:
        server.stop()


def test_serving_until_told_to_stop():
    """`serve` tells when it listens, blocks, and gives the stopped server back."""
    stop, seen = threading.Event(), []

    def listening(server: SandboxServer) -> None:
        seen.append(Client(server).get("/api/v3/time").json["serverTime"])
        stop.set()

    server = sandbox.serve(MARKET, clock=Clock(), on_start=listening, stop=stop)
    assert seen == [NOW]
    assert server.requests.count() == 1
    with pytest.raises(RuntimeError):
        server.url  # noqa: B018 - the property raises


def test_pages_are_rendered_the_same_from_memory(client: Client):
    """A page remembered is the page rendered, whatever was asked in between."""
    first = page(client).body
    for at in range(70):
        client.klines(symbol="ETHUSDT", interval="1h", startTime=1_600_000_000_000 + at * HOUR)
    assert page(client).body == first == page(client).body
    assert np.array_equal(table(json.loads(first)).open_time, times(json.loads(first)))
