"""Other programs that fetch candles, run against the same local server as ours.

freqtrade pins its dependencies, so it gets a virtual environment of its own, created from PyPI
at first use (`PEERS`, or the one named by ``BENCH_PEERS``); so does ArcticDB.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT

PEERS = Path(os.environ.get("BENCH_PEERS") or ROOT / ".venv-peers")
ARCTICDB = Path(os.environ.get("BENCH_ARCTICDB") or ROOT / ".venv-arcticdb")
"""ArcticDB does not support pandas 3."""
_DRIVER = ROOT / "benchmarks" / "freqtrade_download.py"


@cache
def interpreter(package: str, home: Path) -> str | None:
    """Return the interpreter of an environment with a package, made if there is none.

    None where that fails.
    """
    python = home / "bin" / "python"
    if not python.exists():
        print(f"Installing {package} into {home} (a minute or two) …", flush=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in ([sys.executable, "-m", "venv", str(home)], [*pip, package]):
            if subprocess.run(command, check=False).returncode:
                return None
    asked = [str(python), "-c", f"import importlib.metadata as m; m.version({package!r})"]
    done = subprocess.run(asked, check=False, stderr=subprocess.DEVNULL)
    return None if done.returncode else str(python)


def freqtrade_python() -> str:
    """Return the interpreter of an environment with freqtrade."""
    python = interpreter("freqtrade", PEERS)
    if python is None:
        raise RuntimeError(f"freqtrade is not installed in {PEERS}")
    return python


def freqtrade(url: str, symbols: list[str], start: str, end: str, *, archives: bool) -> Any:
    """Run ``freqtrade download-data`` for 1m candles, limiter off; dates as ``20250601``."""
    source = "archives" if archives else "api"
    done = subprocess.run(
        [freqtrade_python(), str(_DRIVER), url, ",".join(symbols), start, end, source],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    if done.returncode:
        raise RuntimeError(f"freqtrade failed:\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def freqtrade_version() -> str:
    """Name the release that is measured."""
    code = "import importlib.metadata as m; print(m.version('freqtrade'), m.version('ccxt'))"
    done = subprocess.run(
        [freqtrade_python(), "-c", code], capture_output=True, text=True, check=True
    )
    own, ccxt = done.stdout.split()
    return f"freqtrade {own} with ccxt {ccxt}"


def vectorbt(url: str, symbols: list[str], start: str, end: str) -> dict[str, Any]:
    """Download with vectorbt's CCXTData: its own loop, pages of 1000, no limiter."""
    import ccxt
    import vectorbt as vbt

    exchange = ccxt.binance(
        {"enableRateLimit": False, "options": {"fetchMarkets": {"types": ["spot"]}}}
    )
    exchange.urls["api"] = {**exchange.urls["api"], "public": f"{url}/api/v3"}
    exchange.load_markets()
    cpu, begun = time.process_time(), time.perf_counter()
    data = vbt.CCXTData.download(
        symbols,
        exchange=exchange,
        timeframe="1m",
        start=f"{start} UTC",
        end=f"{end} UTC",
        limit=1000,
        delay=0,
        show_progress=False,
    )
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    candles = int(data.get("Close").notna().sum().sum())
    return {"seconds": seconds, "cpu": cpu, "candles": candles}


def bare_ccxt(url: str, symbols: list[str], start_ms: int, end_ms: int) -> dict[str, Any]:
    """Gather all pages at once with `ccxt.async_support`, limiter off, into lists in memory."""
    import ccxt.async_support as ccxt

    async def gather() -> dict[str, Any]:
        exchange = ccxt.binance(
            {"enableRateLimit": False, "options": {"fetchMarkets": {"types": ["spot"]}}}
        )
        exchange.urls["api"] = {**exchange.urls["api"], "public": f"{url}/api/v3"}
        exchange.timeout = 60_000  # all pages wait in one queue
        try:
            cpu, begun = time.process_time(), time.perf_counter()
            await exchange.load_markets()
            pages = await asyncio.gather(
                *(
                    exchange.fetch_ohlcv(symbol, "1m", since=since, limit=1000)
                    for symbol in symbols
                    for since in range(start_ms, end_ms, 60_000_000)
                )
            )
            seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        finally:
            await exchange.close()
        return {"seconds": seconds, "cpu": cpu, "candles": sum(map(len, pages))}

    return asyncio.run(gather())


def bare_http(url: str, symbols: list[str], start_ms: int, end_ms: int) -> dict[str, Any]:
    """Get the same pages by a bare HTTP client that reads nothing in them: the server's pace."""
    import aiohttp

    async def gather() -> dict[str, Any]:
        urls = [
            f"{url}/api/v3/klines?symbol={symbol.replace('/', '')}&interval=1m"
            f"&startTime={since}&limit=1000"
            for symbol in symbols
            for since in range(start_ms, end_ms, 60_000_000)
        ]
        size = 0
        cpu, begun = time.process_time(), time.perf_counter()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as session:

            async def get(one: str) -> int:
                async with session.get(one) as answer:
                    return len(await answer.read())

            size = sum(await asyncio.gather(*map(get, urls)))
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        return {"seconds": seconds, "cpu": cpu, "candles": 1000 * len(urls), "bytes": size}

    return asyncio.run(gather())


def main() -> None:
    """Be one of the peers in a process of its own."""
    name, url, symbols, start, end = sys.argv[1:]
    peer: Any = {"vectorbt": vectorbt, "bare_ccxt": bare_ccxt, "bare_http": bare_http}[name]
    span = (start, end) if name == "vectorbt" else (int(start), int(end))
    print(json.dumps(peer(url, symbols.split(","), *span)))


if __name__ == "__main__":
    main()
