"""The sandbox exchange over real HTTP: transport, clock, log, weights and faults.

A dialect (`dialects`) decides how answers are worded, a market (`source`) what
is in them. The server runs in a daemon thread of its own, on a loop of its own,
and listens on the loopback interface only unless told otherwise.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from threading import Thread
from types import TracebackType
from typing import Any, Final, Self

import orjson
from aiohttp import web

from backtester.data.sandbox.archives import ArchiveTree
from backtester.data.sandbox.dialects import Call, Dialect, Rejected, Reply, dialect_for
from backtester.data.sandbox.faults import Delivery, Fault, Faults
from backtester.data.sandbox.journal import Journal, Request
from backtester.data.sandbox.market import SyntheticMarket
from backtester.data.sandbox.source import MarketSource
from backtester.data.sandbox.weights import Verdict, WeightBook

__all__ = ["SandboxServer"]

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 30.0
_GOODBYE_S: Final = 0.1  # how long open answers may take when the server stops
_SLOW_PIECES: Final = 10
_LINGER_NOT_AT_ALL: Final = struct.pack("ii", 1, 0)


class SandboxServer:
    """A local exchange that speaks the REST API of a real one.

    Parameters
    ----------
    market : MarketSource, optional
        What is traded. Default: a `SyntheticMarket`.
    clock : callable, optional
        Returns the exchange's time, UTC epoch milliseconds. Default: real time, or the end of a
        market that has one.
    latency_s : float, default 0.0
        Delay of every answer, in seconds.
    host : str, default "127.0.0.1"
    port : int, default 0
        0 chooses a free port.
    weight_limits : mapping of str to int, optional
        Request weight per minute for ``"spot"`` (6000), ``"usdm"`` (2400), ``"coinm"`` (2400).
    faults : Faults, optional
        Default: switches of its own.
    weights : WeightBook, optional
        Overrides the dialect's window and rules for bans.
    dialect : str, default "binance"
        Which exchange's API to speak: the name of a module in `dialects`.

    Examples
    --------
    >>> with SandboxServer(clock=lambda: 1_700_000_000_000) as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(
        self,
        market: MarketSource | None = None,
        *,
        clock: Callable[[], int] | None = None,
        latency_s: float = 0.0,
        host: str = "127.0.0.1",
        port: int = 0,
        weight_limits: Mapping[str, int] | None = None,
        faults: Faults | None = None,
        weights: WeightBook | None = None,
        dialect: str = "binance",
    ) -> None:
        self.market: MarketSource = SyntheticMarket() if market is None else market
        self.clock = clock or _clock_of(self.market)
        self.latency_s = latency_s
        self.faults = Faults() if faults is None else faults
        self.requests = Journal()
        self.archives = ArchiveTree(self.market)
        self._address = (host, port)
        spoken = dialect_for(dialect, self.market, weight_limits)
        self._weights = WeightBook(window_s=spoken.window_s) if weights is None else weights
        self._dialects: tuple[Dialect, ...] = (spoken,)
        self._thread: Thread | None = None
        self._bound: tuple[str, int] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None

    # ----------------------------------------------------------------- life

    def start(self) -> Self:
        """Listen, and return once the port is open.

        Raises
        ------
        OSError
            It cannot listen on this address.
        """
        if self._thread is not None:
            return self
        started: Future[tuple[str, int]] = Future()
        self._thread = Thread(target=self._run, args=(started,), name="sandbox", daemon=True)
        self._thread.start()
        try:
            self._bound = started.result(_START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop listening and close every connection; stopping twice is harmless."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stopped is not None:
            self._loop.call_soon_threadsafe(self._stopped.set)
        thread.join(_STOP_TIMEOUT_S)
        self._loop = self._stopped = self._bound = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it listens, such as ``http://127.0.0.1:40123``.

        Raises
        ------
        RuntimeError
            While it does not.
        """
        if self._bound is None:
            raise RuntimeError("the sandbox server is not running: call start() first")
        host, port = self._bound
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def ccxt_urls(self) -> dict[str, Any]:
        """What to put into ``urls['api']`` of ccxt's class to make it talk to this server."""
        urls: dict[str, Any] = _under(self.url, self._dialects[0].ccxt_paths)
        return urls

    def _run(self, started: Future[tuple[str, int]]) -> None:
        try:
            asyncio.run(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, started: Future[tuple[str, int]]) -> None:
        # Cancelled handlers: a client that leaves must end its hanging body.
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=_GOODBYE_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, *self._address).start()
            self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
            host, port = runner.addresses[0][:2]
            started.set_result((host, port))
            await self._stopped.wait()
        finally:
            await runner.cleanup()

    # ----------------------------------------------------------------- answering

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        delivery = self._delivery(request.path, await _params(request))
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        match delivery.fault:
            case Fault.RESET:
                return _reset(request)
            case Fault.SLOW_BODY:
                return await _slowly(request, delivery)
            case Fault.HANGING_BODY:
                return await _hanging(request, delivery.reply)
            case Fault.CUT_BODY:
                return await _cut(request, delivery.reply)
        reply = delivery.reply
        return web.Response(status=reply.status, body=reply.body, headers=_headers(reply))

    def _delivery(self, path: str, params: Mapping[str, str]) -> Delivery:
        """Decide what a request is answered, and write it down."""
        now_ms = self.clock()
        if (family := self.archives.family(path)) is not None:
            return self._filed(Call(path, params, family), now_ms)
        for dialect in self._dialects:
            family = dialect.family(path)
            if family is not None:
                return self._answered(dialect, Call(path, params, family), now_ms)
        self.requests.append(Request(path, params, now_ms, 404, 0))
        return Delivery(Reply(404, b"no such path", content_type="text/plain"))

    def _filed(self, call: Call, now_ms: int) -> Delivery:
        """Answer from the archives: in life another host, which counts no weight."""
        reply = self.archives.answer(call, now_ms)
        delivery = self.faults.befall(self.archives, call, reply, now_ms)
        status = 0 if delivery.fault is Fault.RESET else delivery.reply.status
        self.requests.append(Request(call.path, call.params, now_ms, status, 0, delivery.fault))
        return delivery

    def _answered(self, dialect: Dialect, call: Call, now_ms: int) -> Delivery:
        weight = dialect.weight(call)
        verdict = self._weights.charge(call.family, weight, dialect.limit(call))
        if verdict.retry_after_s is None:
            delivery = self.faults.befall(dialect, call, _reply(dialect, call, now_ms), now_ms)
        else:
            weight = 0
            delivery = Delivery(_refusal(dialect, call, verdict, verdict.retry_after_s, now_ms))
        reply = delivery.reply.with_headers(dialect.weight_headers(verdict.used))
        status = 0 if delivery.fault is Fault.RESET else reply.status
        self.requests.append(
            Request(call.path, call.params, now_ms, status, weight, delivery.fault)
        )
        return replace(delivery, reply=reply)


def _reply(dialect: Dialect, call: Call, now_ms: int) -> Reply:
    try:
        return dialect.answer(call, now_ms)
    except Rejected as rejected:
        return rejected.reply


def _refusal(dialect: Dialect, call: Call, verdict: Verdict, wait_s: int, now_ms: int) -> Reply:
    if verdict.banned:
        return dialect.banned(now_ms + wait_s * 1000, wait_s)
    return dialect.limited(call, wait_s)


async def _params(request: web.BaseRequest) -> dict[str, str]:
    """Read what is asked: the query, and the fields of a JSON body."""
    params = dict(request.query)
    if request.method == "POST" and (body := await request.read()):
        fields = orjson.loads(body)
        if isinstance(fields, dict):
            nested = fields.pop("req", {})  # hyperliquid wraps its arguments
            params |= {name: str(value) for name, value in {**fields, **nested}.items()}
    return params


def _under(base: str, paths: Any) -> Any:
    if isinstance(paths, Mapping):
        return {key: _under(base, value) for key, value in paths.items()}
    return base + paths


def _clock_of(market: MarketSource) -> Callable[[], int]:
    end_ms = market.end_ms
    return _real_time if end_ms is None else lambda: end_ms


def _real_time() -> int:
    return time.time_ns() // 1_000_000


# --------------------------------------------------------------------------- delivery


def _headers(reply: Reply) -> dict[str, str]:
    return {"Content-Type": f"{reply.content_type};charset=UTF-8", **reply.headers}


def _reset(request: web.BaseRequest) -> web.StreamResponse:
    transport = request.transport
    if transport is not None:
        # Closing without lingering sends RST, as a crashing front server does.
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT_AT_ALL)
        transport.abort()
    return web.Response()


async def _begun(request: web.BaseRequest, reply: Reply, length: int) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=_headers(reply))
    response.content_length = length
    await response.prepare(request)
    return response


async def _slowly(request: web.BaseRequest, delivery: Delivery) -> web.StreamResponse:
    body = delivery.reply.body
    response = await _begun(request, delivery.reply, len(body))
    size = len(body) // _SLOW_PIECES + 1
    for start in range(0, len(body), size):
        await asyncio.sleep(delivery.delay_s / _SLOW_PIECES)
        await response.write(body[start : start + size])
    return response


async def _hanging(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    response = await _begun(request, reply, len(reply.body))
    await response.write(reply.body[: len(reply.body) // 2])
    await asyncio.Event().wait()  # until the client or the server goes
    return response


async def _cut(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    response = await _begun(request, reply, len(reply.body))
    response.force_close()
    await response.write(reply.body[: len(reply.body) // 2])
    return response
