"""Bulk archives of the sandbox: its market as zipped tables with checksums, as Binance's.

The tree is ``data/{spot|futures/um|futures/cm}/{daily|monthly}/klines/{ID}/{interval}/
{ID}-{interval}-{YYYY-MM[-DD]}.zip`` and a ``.CHECKSUM`` beside each file. Beside it stands
Gate's: ``spot/candlesticks_{interval}/{YYYYMM}/{ID}-{YYYYMM}.csv.gz``. A file is made when it
is asked for, from the market alone, and has the same bytes in every process. What is wrong
with archives in life is switched on by `ArchiveTree.remove` and its like.

Formats follow the README and the issues 246, 267, 283 and 386 of the repository
binance/binance-public-data, and gate.io/article/21688, read 2026-11.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from threading import RLock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backtester.data.model import Interval, MarketType, Timeframe
from backtester.data.sandbox.dialects import Call, Columns, Reply
from backtester.data.sandbox.dialects import binance_coinm_payloads as coinm
from backtester.data.sandbox.source import Bars, Listing, MarketSource
from backtester.data.sandbox.spelling import decimals, integers, lines, literal, plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ArchiveTree"]

_PATH: Final = re.compile(
    r"/data/(?P<folder>spot|futures/um|futures/cm)/(?P<period>daily|monthly)/klines/"
    r"(?P<id>[A-Z0-9_]+)/(?P<interval>\w+)/"
    r"(?P<name>(?P=id)-(?P=interval)-(?P<label>[0-9]{4}-[0-9]{2}(?:-[0-9]{2})?)\.zip)"
    r"(?P<checksum>\.CHECKSUM)?\Z"
)
_GATE: Final = "gate/spot"
_GATE_PATH: Final = re.compile(
    r"/spot/candlesticks_(?P<interval>1m|5m|1h|4h|1d)/(?P<label>[0-9]{6})/"
    r"(?P<name>(?P<id>[A-Z0-9_]+)-(?P=label)\.csv\.gz)\Z"
)
_MONTHS: Final = frozenset(f"{month:02}" for month in range(1, 13))
_GATE_ORDER: Final = (4, 3, 1, 2, 0)
"""Volume, close, high, low, open: rows of `Bars.table`."""
_DAY_MS: Final = 86_400_000
_DAILY_AFTER_MS: Final = 6 * 3_600_000
"""How long after a day's end its file appears."""
_NO_DAILY: Final = frozenset(("3d", "1w", "1mo"))
_MICROSECONDS_FROM: Final = 1_735_689_600_000  # 2025-01-01, in spot only
_HEADER_FROM: Final = 1_654_041_600_000  # 2022-06-01, in futures only
_HEADER: Final = (
    b"open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    b"taker_buy_volume,taker_buy_quote_volume,ignore\n"
)
_SPOT_DECIMALS: Final = 8
_MADE_IN: Final = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say
_KEPT_BYTES: Final = 100_000_000  # a year of minutes, by months and by days


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a path names."""

    listing: Listing
    folder: str
    market_id: str
    timeframe: Timeframe
    span: Interval
    monthly: bool
    name: str
    checksum: bool


class ArchiveTree:
    """Answers paths of the archive; a dialect whose calls weigh nothing.

    Parameters
    ----------
    market : MarketSource

    Notes
    -----
    Its switches may be used from any thread while it serves.
    """

    columns = Columns(time=0, open=1, high=2, low=3, close=4, volume=5)
    window_s = 60.0
    ccxt_paths: Mapping[str, Any] = MappingProxyType({})  # ccxt does not know archives

    def __init__(self, market: MarketSource) -> None:
        self._market = market
        spot = market.listings(MarketType.SPOT)
        contracts = [*market.listings(MarketType.SWAP), *market.listings(MarketType.FUTURE)]
        self._listings: Mapping[str, Mapping[str, Listing]] = {
            "spot": {item.market.id: item for item in spot},
            "futures/um": {item.market.id: item for item in contracts},
            "futures/cm": coinm.listings(contracts),
            _GATE: {f"{item.market.base}_{item.market.quote}": item for item in spot},
        }
        self._lock = RLock()
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._removed: list[str] = []
        self._omitted: list[tuple[str, Interval]] = []
        self._altered: dict[tuple[str, Timeframe], dict[int, tuple[float, ...]]] = {}
        self._spoiled: list[list[Any]] = []

    # ----------------------------------------------------------------- switches

    def remove(self, name: str) -> None:
        """Take away every file whose name contains this text."""
        with self._lock:
            self._removed.append(name)

    def omit(self, market_id: str, interval: Interval) -> None:
        """Leave rows out of a market's files."""
        with self._lock:
            self._omitted.append((market_id, interval))
            self._files.clear()

    def alter(
        self, market_id: str, timeframe: str | Timeframe, open_time: int, values: Sequence[float]
    ) -> None:
        """Put another candle into a market's files: open, high, low, close, volume."""
        key = market_id, Timeframe.parse(timeframe)
        with self._lock:
            self._altered.setdefault(key, {})[open_time] = tuple(values)
            self._files.clear()

    def spoil(self, name: str, times: int | None = None) -> None:
        """State a wrong checksum for files whose name contains this text, so many times."""
        with self._lock:
            self._spoiled.append([name, times])

    def clear(self) -> None:
        """Switch everything off."""
        with self._lock:
            for switch in (self._removed, self._omitted, self._spoiled):
                switch.clear()
            self._altered.clear()
            self._files.clear()

    # ----------------------------------------------------------------- answering

    def family(self, path: str) -> str | None:
        return "archive" if path.startswith(("/data/", "/spot/candlesticks_")) else None

    def limit(self, call: Call) -> int:
        return 1

    def weight(self, call: Call) -> int:
        return 0

    def symbol(self, call: Call) -> str | None:
        asked = self._asked(call.path)
        return asked.listing.symbol if asked else None

    def answer(self, call: Call, now_ms: int) -> Reply:
        asked = self._asked(call.path)
        if asked is None or now_ms < _published_ms(asked):
            return _absent(call)
        with self._lock:
            packed = self._file(call.path.removesuffix(".CHECKSUM"), asked)
            if packed is None or any(text in asked.name for text in self._removed):
                return _absent(call)
            if not asked.checksum:
                kind = "gzip" if asked.folder == _GATE else "zip"
                return Reply(200, packed, content_type=f"application/{kind}")
            digest = hashlib.sha256(packed).hexdigest()
            if self._spoils(asked.name):
                digest = digest[::-1]
        return Reply(200, f"{digest}  {asked.name}\n".encode(), content_type="text/plain")

    def _asked_of_gate(self, path: str) -> _Asked | None:
        match = _GATE_PATH.match(path)
        listing = self._listings[_GATE].get(match["id"]) if match else None
        if match is None or listing is None or match["label"][4:] not in _MONTHS:
            return None
        label = f"{match['label'][:4]}-{match['label'][4:]}"
        start = int(np.datetime64(label, "ms").astype(np.int64))
        span = Interval(start, Timeframe(1, "M").next(start))
        timeframe = Timeframe.parse(match["interval"])
        return _Asked(listing, _GATE, match["id"], timeframe, span, True, match["name"], False)

    def _asked(self, path: str) -> _Asked | None:
        if path.startswith("/spot/"):
            return self._asked_of_gate(path)
        match = _PATH.match(path)
        listing = self._listings[match["folder"]].get(match["id"]) if match else None
        if match is None or listing is None:
            return None
        interval, monthly = match["interval"], match["period"] == "monthly"
        known = {_spelled(timeframe): timeframe for timeframe in self._market.timeframes}
        timeframe = known.get(interval)
        if timeframe is None or monthly != (len(match["label"]) == len("2024-01")):
            return None
        if interval in _NO_DAILY and not monthly:
            return None
        try:
            start = int(np.datetime64(match["label"], "ms").astype(np.int64))
        except ValueError:
            return None
        end = Timeframe(1, "M").next(start) if monthly else start + _DAY_MS
        span = Interval(start, end)
        return _Asked(
            listing, match["folder"], match["id"], timeframe, span, monthly, match["name"],
            bool(match["checksum"]),
        )  # fmt: skip

    def _file(self, path: str, asked: _Asked) -> bytes | None:
        """Return a file's bytes; None when nothing was traded in its time."""
        packed = self._files.get(path)
        if packed is None:
            bars = self._bars(asked)
            if not len(bars):
                return None
            if asked.folder == _GATE:
                packed = gzip.compress(_gate_table(bars), compresslevel=1, mtime=0)
            else:
                packed = _packed(asked.name, _table(bars, asked))
            self._files[path] = packed
            while sum(map(len, self._files.values())) > _KEPT_BYTES:
                self._files.popitem(last=False)
        self._files.move_to_end(path)
        return packed

    def _bars(self, asked: _Asked) -> Bars:
        symbol, span = asked.listing.symbol, asked.span
        bars = self._market.bars(symbol, asked.timeframe, span, asked.timeframe.next(span.end))
        market_id = asked.market_id
        keep = np.ones(len(bars), np.bool_)
        for omitted_id, omitted in self._omitted:
            if omitted_id == market_id:
                keep &= (bars.open_time < omitted.start) | (bars.open_time >= omitted.end)
        bars = Bars(bars.open_time[keep], bars.table[:, keep].copy(), bars.decimals)
        for open_time, values in self._altered.get((market_id, asked.timeframe), {}).items():
            _alter(bars, open_time, values)
        return bars

    def _spoils(self, name: str) -> bool:
        for entry in self._spoiled:
            text, times = entry
            if text in name and times != 0:
                entry[1] = None if times is None else times - 1
                return True
        return False

    # ----------------------------------------------------------------- what every dialect has

    def weight_headers(self, used: int) -> dict[str, str]:
        return {}

    def limited(self, call: Call, retry_after_s: int) -> Reply:
        return replace(self.failure(429), headers={"Retry-After": str(retry_after_s)})

    def banned(self, until_ms: int, retry_after_s: int) -> Reply:
        return self.failure(403)

    def failure(self, status: int) -> Reply:
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{status}</Code></Error>'
        return Reply(status, text.encode(), content_type="application/xml")

    def disconnected(self) -> Reply:
        return self.failure(500)

    def maintenance(self) -> Reply:
        return self.failure(503)

    def with_clock_off(self, reply: Reply, offset_ms: int) -> Reply:
        return reply

    def rows_of(self, reply: Reply) -> list[list[Any]]:
        return []

    def with_rows(self, reply: Reply, rows: list[list[Any]]) -> Reply:
        return reply


def _spelled(timeframe: Timeframe) -> str:
    return "1mo" if timeframe == Timeframe(1, "M") else str(timeframe)


def _published_ms(asked: _Asked) -> int:
    if asked.folder == _GATE:
        return asked.span.end + _DAY_MS
    if not asked.monthly:
        return asked.span.end + _DAILY_AFTER_MS
    after = np.datetime64(asked.span.end, "ms").astype("datetime64[D]")
    monday = np.busday_offset(after, 0, roll="forward", weekmask="Mon")
    return int(monday.astype("datetime64[ms]").astype(np.int64))


def _absent(call: Call) -> Reply:
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code>'
        f"<Message>The specified key does not exist.</Message><Key>{call.path[1:]}</Key></Error>"
    )
    return Reply(404, text.encode(), content_type="application/xml")


def _alter(bars: Bars, open_time: int, values: Sequence[float]) -> None:
    at = np.flatnonzero(bars.open_time == open_time)
    for column, value in enumerate(values):
        if bars.decimals is None:
            bars.table[column, at] = plain(value)
        else:
            bars.table[column, at] = round(value * 10 ** bars.decimals[column])


# --------------------------------------------------------------------------- spelling


def _packed(name: str, table: bytes) -> bytes:
    packed = io.BytesIO()
    member = zipfile.ZipInfo(name.removesuffix(".zip") + ".csv", _MADE_IN)
    member.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(member, table, compresslevel=1)
    return packed.getvalue()


def _table(bars: Bars, asked: _Asked) -> bytes:
    """Spell a file: header or none, milliseconds or microseconds, base or contracts."""
    spot = asked.folder == "spot"
    micro = spot and asked.span.start >= _MICROSECONDS_FROM
    close_time = _close_times(bars.open_time, asked.timeframe)
    opened, closed = bars.open_time, close_time
    if micro:
        opened, closed = opened * 1000, closed * 1000 + 999
    header = _HEADER if not spot and asked.span.start >= _HEADER_FROM else b""
    if asked.folder == "futures/cm":
        bars = coinm.in_contracts(bars, asked.listing)
    columns = _columns_of(bars, spot=spot)
    size = len(bars)
    comma = literal(b",", size)
    parts: list[NDArray[np.uint8]] = [integers(opened)]
    for at in range(9):
        parts += [comma, *columns[at]]
        if at == 4:
            parts += [comma, integers(closed)]
    return header + lines([*parts, literal(b",0\n", size)])


def _gate_table(bars: Bars) -> bytes:
    comma = literal(b",", len(bars))
    parts: list[NDArray[np.uint8]] = [integers(bars.open_time // 1000)]
    for at in _GATE_ORDER:
        values = bars.table[at]
        spelled = (
            [_text(values)]
            if bars.decimals is None
            else decimals(values, bars.decimals[at], bars.decimals[at])
        )
        parts += [comma, *spelled]
    return lines([*parts, literal(b"\n", len(bars))])


def _close_times(open_time: NDArray[np.int64], timeframe: Timeframe) -> NDArray[np.int64]:
    if timeframe.unit == "M":
        return np.array([timeframe.next(int(opened)) for opened in open_time], np.int64) - 1
    return open_time + timeframe.typical_ms - 1


def _columns_of(bars: Bars, *, spot: bool) -> list[list[NDArray[np.uint8]]]:
    if bars.decimals is None:
        return [[_text(column)] for column in bars.table]
    return [
        decimals(values, places, _SPOT_DECIMALS if spot and at != 6 else places)
        for at, (values, places) in enumerate(zip(bars.table, bars.decimals, strict=True))
    ]


def _text(column: NDArray[Any]) -> NDArray[np.uint8]:
    spelled = np.array([str(cell) for cell in column], dtype=np.bytes_)
    return spelled.view(np.uint8).reshape(len(spelled), -1)
