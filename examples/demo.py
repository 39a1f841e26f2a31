"""A demo that runs offline: fetch, cache, indicator, portfolio, storage.

Everything is real: HTTP requests to the sandbox exchange on this machine through
ccxt, files on disk, VectorBT's own computations. Run it with `make demo`.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from backtester import vbt
from backtester.data import rendering
from backtester.data.fetching.data_fetcher import fetch_top_symbols
from backtester.data.storage.data_storage import DataStorage

console = Console(highlight=False)


def fetch(data_dir: str, **hooks: Any) -> tuple[Any, float]:
    """Fetch the top symbols, and return the data and how long it took, in seconds."""
    begun = time.perf_counter()
    data = fetch_top_symbols(
        exchange_id="sandbox",
        quote_currency="USDT",
        limit=5,
        timeframe="1h",
        start_date="30 days ago",
        data_dir=data_dir,
        **hooks,
    )
    return data, time.perf_counter() - begun


def show_fetch(data_dir: str) -> Any:
    """Fetch twice: from the exchange, then from the store."""
    console.rule("1. Fetch the top 5 symbols by volume, 1h, 30 days", align="left")
    with rendering.progress(shown=True) as on_event:
        data, cold_s = fetch(data_dir, on_event=on_event)
    volumes = data.wrapper._metadata["volume_data"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Symbol", "24 h volume", "Candles", "Last close"):
        table.add_column(title, justify="left" if title == "Symbol" else "right")
    for symbol in data.symbols:
        close = data.get("close", symbol).dropna()
        volume = f"${volumes[symbol] / 1e6:,.1f}M"
        table.add_row(symbol, volume, f"{len(close):,}", f"{close.iloc[-1]:,.8g}")
    console.print(table)
    requests = data.wrapper._metadata["requests"]
    console.print(f"{requests} requests for the clock and the candles, {cold_s:.2f} s\n")

    console.rule("2. The same request again", align="left")
    again, hot_s = fetch(data_dir)
    same = all(data.data[s].equals(again.data[s]) for s in data.symbols)
    console.print(
        f"{again.wrapper._metadata['requests']} requests, {hot_s * 1000:.1f} ms, "
        f"identical tables: {'yes' if same else 'NO'}\n"
    )
    return again


def show_vectorbt(data: Any) -> None:
    """Compute an indicator and a portfolio on the data."""
    console.rule("3. VectorBT on the data", align="left")
    symbol = data.symbols[0]
    close = data.get("close")
    rsi = vbt.talib("RSI").run(close[symbol])
    console.print(f"RSI(14) of {symbol}: {rsi.real.iloc[-1]:.2f}")
    portfolio = vbt.PF.from_signals(data, entries=True, exits=False)
    values = portfolio.value.iloc[-1]
    console.print(
        f"Buy and hold, $100 in each symbol: ${100 * len(values):,.2f} became "
        f"${values.sum():,.2f}\n"
    )


def show_storage(data_dir: str) -> None:
    """Print what is stored now."""
    console.rule("4. What is stored", align="left")
    rendering.print_summary(DataStorage(data_dir).get_storage_summary())


def main() -> None:
    """Run the four steps in a temporary data directory."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="backtester-demo-") as data_dir:
        data = show_fetch(data_dir)
        show_vectorbt(data)
        show_storage(data_dir)
    took_s = time.perf_counter() - begun
    console.print(f"\nDone in {took_s:.1f} s, not counting imports. Next: make test, README.md")


if __name__ == "__main__":
    main()
