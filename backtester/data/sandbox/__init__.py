"""A complete exchange on this machine: a synthetic market, served over real HTTP.

Any candle of any symbol at any time is a pure function of (symbol, time), so
history is endless and the truth is known without storing it. Importing this
package loads neither the HTTP server nor an exchange client; the first server
does.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Callable, Mapping
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from backtester.data.sandbox.faults import Fault, Faults
from backtester.data.sandbox.market import SyntheticMarket
from backtester.data.sandbox.replay import ReplayMarket
from backtester.data.sandbox.source import Bars, Listing, MarketSource, Ticker

if TYPE_CHECKING:
    from backtester.data.sandbox.server import SandboxServer

__all__ = [
    "Bars",
    "Fault",
    "Faults",
    "Listing",
    "MarketSource",
    "ReplayMarket",
    "SandboxServer",
    "SyntheticMarket",
    "Ticker",
    "local_server",
    "serve",
]


def __getattr__(name: str) -> Any:
    if name == "SandboxServer":  # brings the HTTP library with it
        from backtester.data.sandbox.server import SandboxServer

        return SandboxServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_lock = Lock()
_shared: tuple[int, SandboxServer] | None = None


def local_server() -> SandboxServer:
    """Return the server of this process, started at the first call.

    Returns
    -------
    SandboxServer
        With the default market and real time, on a free port of 127.0.0.1. It ends with
        the process; a forked child gets one of its own.
    """
    from backtester.data.sandbox.server import SandboxServer

    global _shared
    with _lock:
        # Threads do not survive a fork: what a parent started is not running here.
        if _shared is None or _shared[0] != os.getpid():
            server = SandboxServer().start()
            _shared = (os.getpid(), server)
            atexit.register(_stop_own, os.getpid(), server)
        return _shared[1]


def _stop_own(pid: int, server: SandboxServer) -> None:
    if pid == os.getpid():  # a forked child inherits the note, not the server
        server.stop()


def _forget_lock() -> None:
    # Another thread of the parent may have held it at the fork.
    global _lock
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


def serve(
    market: MarketSource | None = None,
    *,
    clock: Callable[[], int] | None = None,
    latency_s: float = 0.0,
    host: str = "127.0.0.1",
    port: int = 0,
    weight_limits: Mapping[str, int] | None = None,
    faults: Faults | None = None,
    dialect: str = "binance",
    on_start: Callable[[SandboxServer], None] | None = None,
    stop: Event | None = None,
) -> SandboxServer:
    """Serve the sandbox until stopped; this call blocks.

    Parameters
    ----------
    market, clock, latency_s, host, port, weight_limits, faults, dialect
        As for `SandboxServer`.
    on_start : callable, optional
        Called with the running server, whose `url` is then known.
    stop : threading.Event, optional
        Stops the server when set; Ctrl-C does, too.

    Returns
    -------
    SandboxServer
        The stopped server, with its log of requests.

    Raises
    ------
    OSError
        It cannot listen on this address.
    """
    from backtester.data.sandbox.server import SandboxServer

    server = SandboxServer(
        market,
        clock=clock,
        latency_s=latency_s,
        host=host,
        port=port,
        weight_limits=weight_limits,
        faults=faults,
        dialect=dialect,
    )
    with server:
        if on_start is not None:
            on_start(server)
        with contextlib.suppress(KeyboardInterrupt):
            (stop or Event()).wait()
    return server
