"""One exchange through ccxt: the only module that uses it.

ccxt builds, signs and sends the requests and reads the answers, so that every
setting of `exchange_config` (proxies, hosts, keys, `verify`, timeouts) holds on
every path. What it does not do is left to others: the shared budget (`budget`),
retries (`fetcher`), paging (`paging`), checking (`candles`).
"""

from __future__ import annotations

import difflib
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from backtester.data.candles import Candles, check
from backtester.data.errors import (
    BadResponseError,
    BannedError,
    CandleError,
    DataError,
    ExchangeUnavailableError,
    NotServedError,
    OptionError,
    RateLimitedError,
    UnknownExchangeError,
    UnknownMarketTypeError,
    UnknownTimeframeError,
)
from backtester.data.fetching.archives.plan import archive_url
from backtester.data.fetching.budget import Budget, Limit, Ticket
from backtester.data.fetching.capabilities import (
    Capability,
    capability_of,
    certified,
    stated_limits,
)
from backtester.data.fetching.faults import HttpAnswer, translate
from backtester.data.fetching.klines import KlinesPage
from backtester.data.fetching.ledger import Ledger, default_ledger_path
from backtester.data.fetching.paging import Ask
from backtester.data.fetching.rows import RowsPage
from backtester.data.model import Market, MarketType, Timeframe
from backtester.data.settings import sandbox_url, venue

__all__ = ["Exchange", "require_known"]

_GENERIC_WINDOW_S = 4.0
_DOWNLOAD_S = 300.0
_SLOW_S = 0.5
_COST_PARTS = 100  # ccxt's costs are fractions; the ledger counts whole units

_DAY = Timeframe.parse("1d")
_MADE = frozenset({"1w", "1M"})

_NO_ANSWER = HttpAnswer()

_ticket: ContextVar[Ticket | None] = ContextVar("ticket", default=None)
_answer: ContextVar[HttpAnswer] = ContextVar("answer", default=_NO_ANSWER)
_page_weight: ContextVar[int | None] = ContextVar("page_weight", default=None)


class Exchange:
    """An open connection to one exchange for one market type; use as ``async with``.

    Parameters
    ----------
    exchange_id : str
        ccxt's id, or ``"sandbox"``.
    market_type : MarketType
    config : Mapping
        ccxt constructor settings. ``enableRateLimit: False`` lifts the budget (pauses and bans
        still hold); ``sandboxUrl`` names a running sandbox server.
    limits : sequence of (int, float)
        Request limits it has stated earlier, (weight, seconds): they count before the table's.
    on_wait : callable, optional
        Called with (seconds, reason) when the budget makes a request wait.

    Raises
    ------
    UnknownExchangeError
        With the nearest ids.
    UnknownMarketTypeError
        When the exchange does not have the market type.
    NotServedError
        When it serves no candles.
    """

    def __init__(
        self,
        exchange_id: str,
        market_type: MarketType,
        config: Mapping[str, Any] | None = None,
        *,
        limits: Sequence[tuple[int, float]] = (),
        on_wait: Callable[[float, str], None] | None = None,
        extras: bool = False,
    ) -> None:
        self.id = exchange_id
        self.venue = venue(exchange_id, config)
        """Whose clock it is, see `settings.venue`."""
        self.market_type = market_type
        self.capability = capability_of(exchange_id, market_type)
        self.extra_columns = self.capability.extra_columns if extras else ()
        """What of the exchange's own rows candles get beside the usual five columns."""
        self.requests = 0
        self.stated_limits: list[tuple[int, float]] = []
        """What the exchange has stated since this connection was made."""
        settings, sandbox_url = _settings(exchange_id, self.capability, market_type, config)
        self.archive_url = archive_url(exchange_id, config, sandbox_url)
        self._client: Any = _connected(_client_class(exchange_id), settings)
        if sandbox_url is not None:
            self._client.urls["api"] = _moved(self._client.urls["api"], sandbox_url)
        self._client.exchange = self
        self._limited = bool(settings.get("enableRateLimit", True))
        self._require_support()
        self.budget = Budget(
            _ledger(),
            _budget_key(self._client, self.capability),
            self._limits([Limit(*one) for one in limits]),
            exchange=exchange_id,
            on_wait=on_wait or (lambda _seconds, _reason: None),
        )
        self._client.enableRateLimit = True  # our own `throttle` decides
        # ccxt waits a quarter of a second for connections that aiohttp 3.12 closes by itself.
        self._client.timeout_on_exit = 0

    async def __aenter__(self) -> Exchange:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.budget.settle()
        await self._client.close()

    # ------------------------------------------------------------------ asking

    async def now_ms(self) -> int:
        """Read the exchange's clock, UTC epoch milliseconds; ours where it shows none."""
        if not self._client.has.get("fetchTime"):
            return time.time_ns() // 1_000_000
        before = time.time_ns() // 1_000_000
        with self._translated():
            theirs = await self._client.fetch_time()
        if not isinstance(theirs, int):
            raise BadResponseError(f"{self.id} answered {theirs!r} as its time")
        # What it showed was true half a round trip ago.
        now_ms: int = theirs + (time.time_ns() // 1_000_000 - before) // 2
        self.follow_clock(now_ms - time.time_ns() // 1_000_000)
        return now_ms

    def follow_clock(self, ahead_ms: int) -> None:
        """Let ccxt go by the exchange's clock, which is so many milliseconds ahead of ours.

        Some of its classes cut windows off at their "now", or choose endpoints by it.
        """
        self._client.ahead_ms = ahead_ms

    async def load_markets(self) -> tuple[list[Market], list[dict[str, Any]]]:
        """Ask for the markets: those of this market type, and ccxt's own records of them."""
        with self._translated():
            loaded = await self._client.load_markets(True)
        if not loaded:
            raise BadResponseError(f"{self.id} lists no markets at all")
        # Only what ccxt needs to ask on; `info` is the bulk of it.
        unified = [
            {name: value for name, value in market.items() if name != "info"}
            for market in loaded.values()
            if market["type"] == self.market_type.value
        ]
        return [_market(entry) for entry in unified], unified

    def use_markets(self, unified: list[dict[str, Any]]) -> None:
        """Give ccxt markets loaded earlier, so that it does not ask for them."""
        self._client.set_markets([{**market, "info": {}} for market in unified])

    @property
    def needs_unified_markets(self) -> bool:
        """Whether asking for candles goes through ccxt's market records."""
        return self.capability.raw_method is None

    def seconds_for(self, weight: int) -> float:
        """Give how long the budget makes requests of this weight wait at least, seconds."""
        if not self.budget.limits:
            return 0.0
        limit = self.budget.limits[0]
        return max(0.0, weight / limit.weight - 1.0) * limit.window_s

    def at_once(self, most: int) -> int:
        """Give how many pages to have under way, at most so many.

        Where the exchange's answers count what is used, or nothing is limited, that is the most.
        Elsewhere what others use of the same address shows only by a refusal, and all that is
        under way then is refused with it: so no more than the limit can use while a slow request
        takes its time.
        """
        row, counted = self.capability, self.capability.used_weight_header
        if not self._limited or counted or row.remaining_weight_headers:
            return most
        page = row.weight(row.page_size) if row.limits else _COST_PARTS
        rate = min(limit.weight / limit.window_s for limit in self.budget.limits) / page
        return min(most, math.ceil(rate * _SLOW_S) + 1)

    def require_timeframe(self, timeframe: Timeframe) -> None:
        """Check that the exchange has candles of this length.

        Raises
        ------
        UnknownTimeframeError
            With the list of those it has.
        """
        if str(timeframe) in self._supported() or self.made_of(timeframe) is not None:
            return
        own = " that open when ours do" if str(timeframe) in self.capability.other_grid else ""
        supported = self._supported()
        raise UnknownTimeframeError(
            f"{self.id} has no {timeframe} candles{own}; it has {', '.join(supported)}",
            value=str(timeframe),
            supported=supported,
        )

    def made_of(self, timeframe: Timeframe) -> Timeframe | None:
        """Tell of which candles those of this length are made here; None where they are served.

        Weeks and months of an exchange that has none, or whose own open on other days.
        """
        supported = self._supported()
        if str(timeframe) in _MADE and str(timeframe) not in supported and str(_DAY) in supported:
            return _DAY
        return None

    def _supported(self) -> list[str]:
        without = {*self.capability.other_grid, *self.capability.lacking}
        return [name for name in self._client.timeframes or {} if name not in without]

    def coarser(self, timeframe: Timeframe) -> list[Timeframe]:
        """Give the exchange's week, day, hour and minute if they are longer, longest first.

        The week only where it is known to begin as ours does, and a page of weeks to be longer
        than one of days. Months never: there are none on some exchanges, and a page of weeks
        reaches far enough.
        """
        row, units = self.capability, [Timeframe.parse(text) for text in ("1w", "1d", "1h", "1m")]
        if "1w" in row.other_grid or row.longest_window_ms is not None:
            units = units[1:]
        known = self._client.timeframes or {}
        return [u for u in units if str(u) in known and u.typical_ms > timeframe.typical_ms]

    async def candles(self, market: Market, timeframe: Timeframe, ask: Ask) -> Candles:
        """Ask for candles once and check what comes.

        Returns
        -------
        Candles
            Those of the answer that lie in ``ask.interval``; volume in base units on certified
            exchanges, as delivered by ccxt on others.

        Raises
        ------
        TransientFetchError
            The request failed in a way that may pass, or the answer is not candles.
        PermanentFetchError, UnknownSymbolError
            Another try would only repeat the failure.
        """
        extras = self.extra_columns
        with self._translated(), self._weighed(ask):
            if self.capability.raw_method is not None:
                rows = await self._raw_rows(market, timeframe, ask)
            else:
                rows = await self._unified_rows(market, timeframe, ask)
                extras = tuple(range(6, 6 + len(extras)))  # put there by `parse_ohlcv`
        times, values = _columns(rows, (1, 2, 3, 4, self.capability.volume_column, *extras))
        if self.capability.volume_in_contracts:
            values[:, 4] *= market.contract_size
        try:
            candles = check(times, values, timeframe, ask.interval)
        except CandleError as error:
            raise BadResponseError(
                f"{self.id} {market.symbol}: {error}", exchange=self.id, symbol=market.symbol
            ) from error
        if len(times) and not len(candles) and self.capability.from_start:
            raise BadResponseError(
                f"{self.id} {market.symbol}: the candles are of a different time"
            )
        return candles

    async def download(self, url: str) -> tuple[int, bytes]:
        """Get a file over ccxt's own session, so that proxies and TLS settings hold.

        No budget: archives are another host, which counts no weight.

        Returns
        -------
        (int, bytes)
            HTTP status and body.

        Raises
        ------
        TransientFetchError
            Nothing came, or not all of it.
        """
        import aiohttp

        client = self._client
        client.open(True)
        http, https, socks = client.check_proxy_settings(url, "GET", None, None)
        session = client.session
        if socks:
            client.socks_proxy_sessions = client.socks_proxy_sessions or {}
            session = client.get_socks_proxy_session(socks)
        quiet_s = client.timeout / 1000
        limit = aiohttp.ClientTimeout(_DOWNLOAD_S, sock_connect=quiet_s, sock_read=quiet_s)
        proxy = http or https or client.aiohttp_proxy
        try:
            async with session.get(url, proxy=proxy, timeout=limit) as response:
                return response.status, await response.read()
        except aiohttp.ClientPayloadError as error:
            raise BadResponseError(f"{url}: the body ended early: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = str(error) or type(error).__name__
            raise ExchangeUnavailableError(f"{url}: {said}") from error

    async def quote_volumes(self) -> dict[str, float]:
        """Ask for the 24 h volume of every market of this type, in quote units, by symbol."""
        with self._translated():
            tickers = await self._client.fetch_tickers(None, dict(self.capability.tickers))
        volumes = {}
        for symbol, ticker in tickers.items():
            market = self._client.markets.get(symbol)
            if market is None or market["type"] != self.market_type.value:
                continue
            volume = _quote_volume(ticker, market)
            if volume is not None:
                volumes[symbol] = volume
        return volumes

    # ------------------------------------------------------------------ within

    async def _raw_rows(self, market: Market, timeframe: Timeframe, ask: Ask) -> Any:
        """Ask the raw endpoint of the Binance dialect; both bounds are inclusive open times."""
        assert self.capability.raw_method is not None
        params: dict[str, Any] = {
            "symbol": market.id,
            "interval": self._client.timeframes[str(timeframe)],
            "limit": ask.limit,
        }
        if ask.since is not None:
            params["startTime"] = ask.since
        if ask.until is not None:
            params["endTime"] = ask.until - 1
        return await getattr(self._client, self.capability.raw_method)(params)

    async def _unified_rows(self, market: Market, timeframe: Timeframe, ask: Ask) -> Any:
        """Ask through ccxt's `fetch_ohlcv`, as the capability row says."""
        since, limit = ask.since, ask.limit
        params: dict[str, Any] = {}
        if since is not None and self.capability.asked_early:
            limit += 1
        if self.capability.bounds is not None:
            params = self._own_bounds(ask)
        elif since is not None and self.capability.asked_early:
            since = max(timeframe.next(since, -1), 0)
        if ask.until is not None and self.capability.asked_until:
            params["until"] = ask.until - 1
        elif ask.until is not None and since is not None and self.capability.bounds is None:
            # ccxt ends a window after `limit` of its own candles, and its month has 30 days.
            its_own_ms = self._client.parse_timeframe(str(timeframe)) * 1000
            limit = max(limit, math.ceil((ask.until - since) / its_own_ms))
        if self.capability.history is not None and ask.since is not None:
            recent, (name, value) = self.capability.history
            if ask.since < timeframe.next(self._client.milliseconds(), -recent):
                params[name] = value
        return await self._client.fetch_ohlcv(
            market.symbol, str(timeframe), since=since, limit=limit, params=params
        )

    def _own_bounds(self, ask: Ask) -> dict[str, Any]:
        """Name a window's ends in the exchange's own words."""
        assert self.capability.bounds is not None
        start, end = self.capability.bounds
        params = {}
        if ask.since is not None:  # 0 might count as not sent
            params[start] = max(ask.since - int(self.capability.asked_early), 1)
        if ask.until is not None:  # on the grid: also right where it is rounded down to that
            params[end] = ask.until - int(not self.capability.asked_early)
        return params

    @contextmanager
    def _weighed(self, ask: Ask) -> Iterator[None]:
        """Let a page cost what the row says, where ccxt cannot know it."""
        known = self.capability.weighed_by_rows and bool(self.capability.limits)
        token = _page_weight.set(self.capability.weight(ask.limit) if known else None)
        try:
            yield
        finally:
            _page_weight.reset(token)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what ccxt raises into our errors."""
        try:
            yield
        except Exception as error:
            ours = getattr(error, "ours", None) or translate(error, _NO_ANSWER, self.id)
            if ours is error:  # the budget's own refusal, or a page of ours that was no page
                raise
            raise ours from error

    def _require_support(self) -> None:
        has = self._client.has
        if has.get(self.market_type.value) is False:
            present = [m.value for m in MarketType if has.get(m.value)]
            raise UnknownMarketTypeError(
                f"{self.id} has no {self.market_type} markets; it has {', '.join(present)}",
                exchange=self.id,
                supported=present,
            )
        if not has.get("fetchOHLCV"):
            raise NotServedError(f"{self.id} serves no candles", exchange=self.id)

    def _limits(self, stated: Sequence[Limit]) -> tuple[Limit, ...]:
        """Give the limits that hold: those stated, else the table's, else ccxt's pace."""
        if not self._limited:
            return ()
        if stated or self.capability.limits:
            return tuple(stated) or self.capability.limits
        per_window = _COST_PARTS * _GENERIC_WINDOW_S * 1000 / self._client.rateLimit
        return (Limit(max(int(per_window), 1), _GENERIC_WINDOW_S),)

    def _heed(self, answer: Any) -> None:
        """Take over the limits that an answer states."""
        if self.capability.limits and (stated := stated_limits(answer)):
            self.stated_limits = [(one.weight, one.window_s) for one in stated]
            self.budget.limits = self._limits(stated)

    def _weight(self, cost: float) -> int:
        scale = self.capability.weight_per_cost if self.capability.limits else _COST_PARTS
        return max(1, round(cost * scale))

    async def _send(self, cost: float | None) -> None:
        """Wait for the budget; called by ccxt before each request."""
        weight = _page_weight.get() or self._weight(1.0 if cost is None else cost)
        _ticket.set(await self.budget.acquire(weight))

    def _judged(self, error: Exception, answer: HttpAnswer) -> DataError:
        """Give our error for a request that failed, and tell the budget what it means for all."""
        ours = translate(error, answer, self.id)
        if isinstance(ours, BannedError):
            self.budget.ban(ours.until_ms, str(ours))
        elif isinstance(ours, RateLimitedError):
            self.budget.pause(ours.retry_after_s, "the exchange asked for a pause")
        return ours

    def _sent(self, answer: HttpAnswer) -> None:
        """Tell the budget that a request is over, and what the exchange counts."""
        self.requests += 1
        ticket = _ticket.get()
        if ticket is not None:
            ticket.done(_used_weight(answer, self.capability))
            _ticket.set(None)


class _Shared:
    """Mixed into ccxt's class: requests pass our budget, and answers are seen whole."""

    exchange: Exchange
    ahead_ms = 0

    def milliseconds(self) -> int:
        now_ms: int = super().milliseconds()  # type: ignore[misc]  # ccxt's, one class up
        return now_ms + self.ahead_ms

    def seconds(self) -> int:  # ccxt's own is not derived from that
        return self.milliseconds() // 1000

    async def throttle(self, cost: float | None = None) -> None:
        await self.exchange._send(cost)

    def on_rest_response(  # ccxt's signature
        self,
        code: int,
        reason: str,
        url: str,
        method: str,
        response_headers: Mapping[str, str],
        response_body: str,
        request_headers: Any,
        request_body: Any,
    ) -> Any:
        _answer.set(HttpAnswer(code, dict(response_headers), unreadable=True))
        return super().on_rest_response(  # type: ignore[misc]  # ccxt's, one class up
            code,
            reason,
            url,
            method,
            response_headers,
            response_body,
            request_headers,
            request_body,
        )

    def parse_ohlcv(self, ohlcv: Any, market: Any = None) -> Any:
        row = super().parse_ohlcv(ohlcv, market)  # type: ignore[misc]  # ccxt's, one class up
        if not self.exchange.extra_columns:
            return row
        # ccxt sorts and filters rows by their first columns, and hands on what is behind.
        told = (None if at is None else ohlcv[at] for at in self.exchange.extra_columns)
        return [*row, *("nan" if one is None else one for one in told)]

    def on_json_response(self, response_body: str) -> Any:
        page = None
        if self.exchange.capability.raw_method is not None:
            page = KlinesPage.of(response_body)
        if page is None:
            page = super().on_json_response(response_body)  # type: ignore[misc]  # ccxt's
        _answer.set(replace(_answer.get(), unreadable=False))
        return page

    def parse_ohlcvs(self, ohlcvs: Any, market: Any = None, *words: Any, **more: Any) -> Any:
        # Certified classes hand on what comes of this as it is, and `check` puts it in order.
        if self.exchange.capability.certified:
            page = RowsPage.of(ohlcvs, lambda row: self.parse_ohlcv(row, market))
            if page is not None:
                return page
        return super().parse_ohlcvs(ohlcvs, market, *words, **more)  # type: ignore[misc]  # ccxt's

    async def fetch(
        self, url: str, method: str = "GET", headers: Any = None, body: Any = None
    ) -> Any:
        _answer.set(_NO_ANSWER)
        try:
            result = await super().fetch(url, method, headers, body)  # type: ignore[misc]
        except Exception as error:
            # Before the ticket is given back, or others would go on what it frees.
            error.ours = self.exchange._judged(error, _answer.get())  # type: ignore[attr-defined]
            raise
        finally:
            self.exchange._sent(_answer.get())
        if not isinstance(result, (dict, list)):
            # An HTML page, a cut body or none at all: ccxt would make rows of its letters.
            start = " ".join(str(result)[:60].split())
            raise BadResponseError(f"{self.exchange.id} did not answer in JSON: {start!r}")
        self.exchange._heed(result)
        return result


def require_known(exchange_id: str) -> None:
    """Refuse an exchange id that neither we nor ccxt know.

    Raises
    ------
    UnknownExchangeError
        With the nearest ids.
    """
    if exchange_id != "sandbox" and exchange_id not in {row[0] for row in certified()}:
        _ccxt_class(exchange_id)


def _client_class(exchange_id: str) -> Any:
    name = "binance" if exchange_id == "sandbox" else exchange_id
    return type(f"Shared_{name}", (_Shared, _ccxt_class(name)), {})


def _ccxt_class(exchange_id: str) -> Any:
    from backtester.data.fetching.lazy_ccxt import exchange_class, exchange_ids

    found = exchange_class(exchange_id)
    if found is None:
        near = difflib.get_close_matches(exchange_id, [*exchange_ids(), "sandbox"], n=3)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UnknownExchangeError(
            f"unknown exchange {exchange_id!r}{hint}", value=exchange_id, suggestions=near
        )
    return found


def _connected(client_class: Any, settings: dict[str, Any]) -> Any:
    try:
        client = client_class(settings)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise OptionError(f"ccxt does not accept this exchange_config: {error}") from error
    if client.verify is True and not client.options.get("include_OS_certificates"):
        client.ssl_context = client.ssl_context or _tls_of(client.cafile)
    return client


@functools.cache
def _tls_of(cafile: str) -> Any:
    """Give what ccxt would make anew for every client: reading the certificates takes 15 ms."""
    import ssl

    return ssl.create_default_context(cafile=cafile)


def _settings(
    exchange_id: str,
    capability: Capability,
    market_type: MarketType,
    config: Mapping[str, Any] | None,
) -> tuple[dict[str, Any], str | None]:
    """Merge the user's ccxt settings over ours; and the sandbox's address, if it is that."""
    if config is not None and not isinstance(config, Mapping):
        raise OptionError(f"exchange_config must be a mapping of ccxt settings, not {config!r}")
    settings = dict(config or {})  # ccxt copies what it takes from it
    settings.pop("archiveUrl", None)  # not ccxt's
    options: dict[str, Any] = {"defaultType": market_type.value}
    if capability.market_types:
        options["fetchMarkets"] = {"types": list(capability.market_types)}
    settings["options"] = options | dict(settings.get("options") or {})
    if exchange_id != "sandbox":
        return settings, None
    url = settings.pop("sandboxUrl", None) or sandbox_url()
    if url is None:
        from backtester.data import sandbox

        url = sandbox.local_server().url
    return settings, url


def _moved(urls: Any, base: str) -> Any:
    """Give ccxt's addresses with another host: ``https://HOST/path`` becomes ``base/path``."""
    if isinstance(urls, Mapping):
        return {name: _moved(value, base) for name, value in urls.items()}
    return base.rstrip("/") + urlsplit(urls).path if isinstance(urls, str) else urls


def _budget_key(client: Any, capability: Capability) -> str:
    """Name whom the exchange counts: its host, and the way out that it sees."""
    urls = client.urls["api"]
    if capability.raw_method and isinstance(urls, Mapping):
        urls = urls[capability.raw_method.partition("Get")[0]]
    while isinstance(urls, Mapping):
        urls = next(iter(urls.values()))
    host = urlsplit(client.implode_hostname(urls)).netloc
    ways = ("httpsProxy", "httpProxy", "socksProxy", "https_proxy", "http_proxy", "aiohttp_proxy")
    proxy = next((getattr(client, way) for way in ways if getattr(client, way, None)), None)
    return f"{host} via {proxy}" if proxy else host


def _ledger() -> Ledger:
    global _shared_ledger
    path = default_ledger_path()
    if _shared_ledger is None or _shared_ledger.path != path:
        _shared_ledger = Ledger(path)
    return _shared_ledger


_shared_ledger: Ledger | None = None


def _used_weight(answer: HttpAnswer, capability: Capability) -> int | None:
    if not answer.headers:
        return None
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if capability.remaining_weight_headers is not None:
        limit, left = (headers.get(name, "") for name in capability.remaining_weight_headers)
        return int(limit) - int(left) if limit.isdigit() and left.isdigit() else None
    used = headers.get(capability.used_weight_header or "", "")
    return int(used) if used.isdigit() else None


def _columns(
    rows: Any, wanted: Sequence[int | None]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Read some columns of rows that begin with the open time: numbers or decimal text.

    A column of None is unknown: NaN.
    """
    known = [(at, column) for at, column in enumerate(wanted) if column is not None]
    if not isinstance(rows, list):
        raise BadResponseError(f"not a list of candles but {str(rows)[:60]!r}")
    try:
        if isinstance(rows, RowsPage):
            return rows.times, rows.values
        if isinstance(rows, KlinesPage):
            times, told = rows.open_times(), rows.columns([column for _, column in known])
            if len(known) == len(wanted):
                return times, told
            values = np.full((len(times), len(wanted)), np.nan)
            values[:, [at for at, _ in known]] = told
            return times, values
        if not rows:
            return np.empty(0, np.int64), np.empty((0, len(wanted)), np.float64)
        columns = list(zip(*rows, strict=True))
        times = np.array(columns[0], dtype=np.int64)
        values = np.full((len(rows), len(wanted)), np.nan)
        for at, column in known:
            values[:, at] = np.fromiter(map(float, columns[column]), np.float64, len(rows))
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise BadResponseError(f"some rows are not candles: {error}") from error
    return times, values


def _market(entry: Mapping[str, Any]) -> Market:
    return Market(
        symbol=entry["symbol"],
        id=str(entry["id"]),
        type=MarketType(entry["type"]),
        base=entry["base"] or "",
        quote=entry["quote"] or "",
        settle=entry.get("settle"),
        active=entry.get("active") is not False,  # ccxt's None means: it does not say
        linear=entry.get("linear"),
        contract_size=float(entry.get("contractSize") or 1.0),
        created_ms=entry.get("created"),
    )


def _quote_volume(ticker: Mapping[str, Any], market: Mapping[str, Any]) -> float | None:
    """Give the 24 h quote volume: as stated, else base volume at the average or last price."""
    stated = ticker.get("quoteVolume")
    if stated is not None:
        return float(stated)
    base, price = ticker.get("baseVolume"), ticker.get("vwap") or ticker.get("last")
    if base is None or price is None:
        return None
    return float(base) * float(price) * float(market.get("contractSize") or 1.0)
