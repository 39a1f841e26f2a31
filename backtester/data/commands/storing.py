"""`vbt-data convert`, `export`, `verify`, `history`, `delete`: work on stored data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backtester.data import rendering
from backtester.data.commands.shared import (
    EXIT_FAILED,
    AsJson,
    ColumnSet,
    ConfigFile,
    DataDir,
    ExchangeId,
    MarketTypeName,
    Output,
    SymbolList,
    Timeframe,
    Verbose,
    settings_of,
    split,
)

if TYPE_CHECKING:
    from backtester.data.model import DatasetKey
    from backtester.data.storage.verifying import Problem

__all__ = ["convert", "delete", "export", "history", "verify"]


def convert(
    to: Annotated[str, typer.Option("--to", help="Target format: pickle or sqlite.")],
    timeframe: Timeframe = "1d",
    exchange: ExchangeId = "binance",
    market_type: MarketTypeName = "spot",
    data_dir: DataDir = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Convert a dataset to another storage format.

    The old file is kept under another name.
    """
    output = Output(as_json=as_json, verbose=verbose)
    with output.guarded():
        from backtester.data.storage.data_storage import DataStorage

        path = DataStorage(data_dir).convert(exchange, timeframe, market_type, to=to)
        output.show({"file": str(path)}, lambda told: typer.echo(told["file"]))


def export(
    to: Annotated[
        str, typer.Option("--to", help="Target format: parquet, feather, csv or duckdb.")
    ] = "parquet",
    target: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write to.", show_default="here"),
    ] = None,
    timeframe: Timeframe = "1d",
    exchange: ExchangeId = "binance",
    market_type: MarketTypeName = "spot",
    symbols: SymbolList = None,
    columns: ColumnSet = "ohlcv",
    start: Annotated[str | None, typer.Option(help="Start date, inclusive, UTC.")] = None,
    end: Annotated[str | None, typer.Option(help="End date, exclusive, UTC.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Export stored candles for other programs, one file per symbol and period."""
    output = Output(as_json=as_json, verbose=verbose)
    with output.guarded():
        from backtester.data.exporting import export_data

        written = export_data(
            exchange,
            timeframe,
            split(symbols) or None,
            market_type,
            to=to,
            columns=columns,
            output=target,
            start_date=start,
            end_date=end,
            data_dir=data_dir,
        )
        output.show({"files": [str(path) for path in written]}, rendering.print_files)


def verify(
    exchange: Annotated[
        str | None, typer.Option("--exchange", "-e", help="Only datasets of this exchange.")
    ] = None,
    timeframe: Annotated[
        str | None, typer.Option("--timeframe", "-t", help="Only datasets of this timeframe.")
    ] = None,
    market_type: Annotated[
        str | None,
        typer.Option("--market-type", "--market", "-m", help="Only datasets of this market type."),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set bad data aside, and fetch only that again.")
    ] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Check stored data: checksums, candle rules, coverage. Exits with 1 if something is bad."""
    output = Output(as_json=as_json, verbose=verbose)
    with output.guarded():
        from backtester.data import maintenance
        from backtester.data.home import home_in

        home = home_in(data_dir)
        account: dict[str, Any] = {"datasets": 0, "problems": [], "repaired": {}, "failures": {}}
        keys = home.store.keys()
        for key in (key for key in keys if _chosen(key, exchange, timeframe, market_type)):
            problems = maintenance.verify(home, key)
            account["datasets"] += 1
            account["problems"] += map(_described, problems)
            if problems and repair:
                done = maintenance.repair(home, key, problems, settings_of(config, key.exchange))
                account["failures"] |= {s: str(error) for s, error in done.failures.items()}
                left = maintenance.verify(home, key)
                account["repaired"][key.stem] = {
                    "asked_again": {s: str(one) for s, one in done.asked.items()},
                    "lost_from_sight": [p.what for p in done.unknown],
                    "problems_left": [_described(p) for p in left],
                }
        output.show(account, rendering.print_verification)
        left = [one for told in account["repaired"].values() for one in told["problems_left"]]
        if account["failures"] or left or (account["problems"] and not repair):
            raise typer.Exit(EXIT_FAILED)


def history(
    symbol: Annotated[str, typer.Argument(help="The symbol, such as BTC/USDT.")],
    timeframe: Timeframe = "1d",
    exchange: ExchangeId = "binance",
    market_type: MarketTypeName = "spot",
    data_dir: DataDir = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show the stored candles that the exchange changed later.

    Lists the old and the new value, and when each was received.
    """
    output = Output(as_json=as_json, verbose=verbose)
    with output.guarded():
        from backtester.data.storage.data_storage import DataStorage

        storage = DataStorage(data_dir)
        found = storage.revisions(exchange, timeframe, symbol, market_type)
        changes = [
            {
                "open_ms": one.open_time,
                "old": list(one.old),
                "new": list(one.new),
                "old_asked_ms": one.old_asked_ms,
                "new_asked_ms": one.new_asked_ms,
            }
            for one in found
        ]
        output.show({"symbol": symbol, "revisions": changes}, rendering.print_history)


def delete(
    timeframe: Timeframe = "1d",
    exchange: ExchangeId = "binance",
    market_type: MarketTypeName = "spot",
    symbols: SymbolList = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Delete a dataset, or some symbols of it."""
    output = Output(as_json=as_json, verbose=verbose)
    with output.guarded():
        from backtester.data.model import DatasetKey, counted
        from backtester.data.storage.data_storage import DataStorage

        key, storage = DatasetKey.of(exchange, market_type, timeframe), DataStorage(data_dir)
        named = list(storage.names(key, split(symbols) or None).values())
        all_of_it = f"all of {key} ({counted(len(named), 'symbol')})"
        what = f"{', '.join(named)} of {key}" if symbols else all_of_it
        if not yes and not typer.confirm(f"Delete {what}?", err=True):
            raise typer.Exit(EXIT_FAILED)
        storage.delete(exchange, timeframe, named if symbols else None, market_type)
        told = {"deleted": named}
        output.show(told, lambda _: typer.echo(f"deleted {what}"))


def _chosen(
    key: DatasetKey, exchange: str | None, timeframe: str | None, market_type: str | None
) -> bool:
    from backtester.data.model import MarketType
    from backtester.data.model import Timeframe as Length

    return (
        (exchange is None or key.exchange == exchange.strip().lower())
        and (timeframe is None or key.timeframe == Length.parse(timeframe))
        and (market_type is None or key.market_type is MarketType.parse(market_type))
    )


def _described(problem: Problem) -> dict[str, Any]:
    interval = problem.interval
    return {
        "dataset": problem.key.stem,
        "symbol": problem.symbol,
        "start_ms": interval.start if interval else None,
        "end_ms": interval.end if interval else None,
        "what": problem.what,
    }
