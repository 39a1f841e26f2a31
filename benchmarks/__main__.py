"""Run the benchmarks and print their tables: ``make bench``, or ``python -m benchmarks NAME``."""

from __future__ import annotations

import os
import sys
import tempfile
from importlib import import_module

from rich.console import Console
from rich.table import Table

from benchmarks.harness import machine

NAMES = (
    "cache_hit",
    "command",
    "costs",
    "fetching",
    "archives",
    "limiter",
    "storage",
    "vectorbt_data",
)


def main() -> None:
    """Run those named, or all."""
    console = Console(highlight=False, width=150)
    console.print(machine())
    with tempfile.TemporaryDirectory() as state:
        os.environ["BACKTESTER_STATE_DIR"] = state  # a budget nobody has spent from
        for name in sys.argv[1:] or NAMES:
            module = import_module(f"benchmarks.{name}")
            table = Table(title=(module.__doc__ or name).splitlines()[0], title_justify="left")
            for column in ("what", "measured", "against", "target", "met"):
                table.add_column(column)
            for row in module.rows():
                met = {True: "yes", False: "NO", None: ""}[row.met]
                table.add_row(row.what, row.measured, row.against, row.target, met)
            console.print(table)


if __name__ == "__main__":
    main()
