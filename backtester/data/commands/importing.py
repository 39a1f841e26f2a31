"""`vbt-data import`: import candle files of other programs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from backtester.data import rendering
from backtester.data.commands.shared import (
    EXIT_FAILED,
    AsJson,
    ConfigFile,
    DataDir,
    Output,
    Quiet,
    StorageForm,
    Verbose,
    settings_of,
)

__all__ = ["import_files"]


def import_files(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files, or folders of files.")
    ],
    exchange: Annotated[
        str | None,
        typer.Option("--exchange", "-e", help="Exchange id, if the files do not say it."),
    ] = None,
    market_type: Annotated[
        str | None,
        typer.Option(
            "--market-type",
            "--market",
            "-m",
            help="spot, swap or future, if the files do not say it.",
        ),
    ] = None,
    timeframe: Annotated[
        str | None,
        typer.Option("--timeframe", "-t", help="Candle length, if the files do not say it."),
    ] = None,
    symbol: Annotated[
        str | None,
        typer.Option("--symbol", "-s", help="Name a file's only series, or select one of several."),
    ] = None,
    last_is_closed: Annotated[
        bool,
        typer.Option("--last-is-closed", help="Also take the last row of every series."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Compare a sample with the exchange before taking it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would be taken, and store nothing.")
    ] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    storage: StorageForm = "auto",
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Import candle files of other programs.

    Reads VectorBT PRO, open-source VectorBT, HDF5, CSV, Parquet, Feather and freqtrade files.
    """
    output = Output(as_json=as_json, verbose=verbose, quiet=quiet)
    with output.guarded():
        from backtester.data.importing.importer import import_data

        if config is not None and exchange is None:
            output.usage("--config needs --exchange: its tables are named by exchange")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what went wrong is in the account
            report = import_data(
                files,
                exchange,
                market_type,
                timeframe,
                symbol,
                last_is_closed=last_is_closed,
                check=check,
                dry_run=dry_run,
                exchange_config=settings_of(config, exchange or ""),
                data_dir=data_dir,
                storage=storage,
            )
        render = rendering.print_import_briefly if quiet else rendering.print_import
        output.show(report.account(), render)
        if report.failures:
            raise typer.Exit(EXIT_FAILED)
