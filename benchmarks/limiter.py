"""The rate limiter: how much of what the exchange allows is used for candles."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.harness import Row, in_child, sandbox

WINDOW_S = 60.0
WEIGHT = 2
"""Of a page on Binance: 1,000 candles on spot, 499 on USD-M."""
WINDOWS = 3
CASES = (
    ("spot", "BTC/USDT", 600, 1000, "spot, 600 a minute: a tenth of Binance's"),
    ("swap", "BTC/USDT:USDT", 2400, 499, "USD-M, 2400 a minute: Binance's own"),
)


def run(url: str, market_type: str, symbol: str, limit: int, page: int) -> dict[str, Any]:
    """Fetch for `WINDOWS` windows and a little; tell when each page came and what was refused.

    A budget that nobody has spent from gives its first window at once. So the share is taken
    from the first page to the first one after so many windows' worth of weight: what the limit
    allows in that time is just that.
    """
    from backtester.data.events import Event, PageFetched, Retrying
    from backtester.data.fetching.archives.plan import Source
    from backtester.data.fetching.pipeline import run as fetch
    from backtester.data.fetching.request import FetchRequest
    from backtester.data.home import home_in
    from backtester.data.model import DatasetKey

    pages = limit // WEIGHT * WINDOWS + 2
    came: list[float] = []
    refused = 0

    def note(event: Event) -> None:
        nonlocal refused
        if isinstance(event, PageFetched):
            came.append(time.perf_counter())
        refused += isinstance(event, Retrying)

    end = 1_735_689_600_000
    with tempfile.TemporaryDirectory() as folder:
        request = FetchRequest(
            DatasetKey.of("sandbox", market_type, "1m"),
            (symbol,),
            end - pages * page * 60_000,
            end,
            exchange_config={"sandboxUrl": url},
            source=Source.API,
        )
        fetch(request, home_in(folder), note)
    seconds = came[WINDOWS * limit // WEIGHT] - came[0]
    return {"share": WINDOWS * WINDOW_S / seconds, "refused": refused, "pages": len(came)}


def rows() -> list[Row]:
    """Run all cases at once: they wait nearly all of the time."""

    def measure(case: tuple[str, str, int, int, str]) -> dict[str, Any]:
        with (
            sandbox("--latency-ms", "50", "--weight-limit", str(case[2])) as url,
            tempfile.TemporaryDirectory() as state,
        ):
            words = [url, *map(str, case[:4])]
            answer = in_child("benchmarks.limiter", *words, env={"BACKTESTER_STATE_DIR": state})
            return dict(answer)

    with ThreadPoolExecutor(len(CASES)) as pool:
        results = list(pool.map(measure, CASES))
    return [
        Row(
            what,
            f"{found['share']:.1%} of the limit",
            f"{found['share'] * limit / WEIGHT * page:,.0f} candles a minute; "
            f"{found['refused']} refused of {found['pages']}",
            ">= 95 %, at most 1 refused",
            found["share"] >= 0.95 and found["refused"] <= 1,
        )
        for (_, _, limit, page, what), found in zip(CASES, results, strict=True)
    ]


if __name__ == "__main__":
    print(json.dumps(run(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]))))
