"""Run ``freqtrade download-data`` against a local server; a program for freqtrade's environment.

The time is taken from when its configuration has been read: exchange, markets, candles, files.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from freqtrade import main
from freqtrade.commands import data_commands
from freqtrade.data import history
from freqtrade.exchange import binance, binance_public_data
from freqtrade.resolvers import ExchangeResolver

assert all((binance, data_commands, ExchangeResolver))
_PATHS = {"public": "/api/v3", "fapiPublic": "/fapi/v1", "dapiPublic": "/dapi/v1"}
_SIDE = {"price_side": "same", "use_order_book": False}


def configuration(url: str, pairs: list[str], folder: Path, source: str) -> dict[str, Any]:
    """Return the least that freqtrade wants to know, with the server's addresses."""
    ccxt = {
        "urls": {"api": {name: url + path for name, path in _PATHS.items()}},
        "enableRateLimit": False,
        "options": {"fetchMarkets": {"types": ["spot"]}},
    }
    return {
        "stake_currency": "USDT", "stake_amount": 10, "max_open_trades": 1, "dry_run": True,
        "trading_mode": "spot", "entry_pricing": _SIDE, "exit_pricing": _SIDE,
        "pairlists": [{"method": "StaticPairList"}],
        "user_data_dir": str(folder), "datadir": str(folder / "data"),
        "exchange": {"name": "binance", "pair_whitelist": pairs, "ccxt_config": ccxt,
                     "only_from_ccxt": source == "api"},
    }  # fmt: skip


def run(url: str, pairs: list[str], start: str, end: str, source: str) -> dict[str, Any]:
    """Download 1m candles of some days into feather files, and count them."""
    their_url = binance_public_data.binance_vision_ohlcv_zip_url
    binance_public_data.binance_vision_ohlcv_zip_url = lambda *words: their_url(*words).replace(
        "https://data.binance.vision", url
    )
    times = []
    download = history.download_data_main

    def timed(config: Any) -> None:
        cpu, begun = time.process_time(), time.perf_counter()
        download(config)
        times.extend((time.perf_counter() - begun, time.process_time() - cpu))

    history.download_data_main = timed
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        path = folder / "config.json"
        path.write_text(json.dumps(configuration(url, pairs, folder, source)))
        words = ["download-data", "-c", str(path), "--userdir", name]
        words += ["--datadir", str(folder / "data"), "-p", *pairs]
        words += ["-t", "1m", "--timerange", f"{start}-{end}"]
        try:
            main.main(words)
        except SystemExit as stop:
            if stop.code:
                raise
        stored = sum(len(pd.read_feather(one)) for one in (folder / "data").rglob("*.feather"))
    return {"seconds": times[0], "cpu": times[1], "candles": stored}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], sys.argv[2].split(","), *sys.argv[3:])))
