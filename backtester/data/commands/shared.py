"""What the commands share: flags, output, exit codes.

Data goes to stdout, progress and logs to stderr. Exit 0: all done; 1: something
failed; 2: wrong usage.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from backtester.data import rendering
from backtester.data.errors import (
    DataError,
    FetchWarning,
    OptionError,
    RequestError,
    UnknownSymbolError,
)
from backtester.data.model import counted

__all__ = [
    "EXIT_FAILED",
    "EXIT_USAGE",
    "AsJson",
    "ColumnSet",
    "ConfigFile",
    "DataDir",
    "ExchangeId",
    "MarketTypeName",
    "Output",
    "Quiet",
    "SourceName",
    "StorageForm",
    "SymbolList",
    "Timeframe",
    "Verbose",
    "settings_of",
    "split",
    "versions",
]

EXIT_FAILED = 1
EXIT_USAGE = 2

# ------------------------------------------------------------------ flags used by several commands

Timeframe = Annotated[
    str, typer.Option("--timeframe", "-t", help="Candle length: 1m, 5m, 1h, 4h, 1d, 1w, 1M.")
]
ExchangeId = Annotated[
    str, typer.Option("--exchange", "-e", help="ccxt exchange id, or 'sandbox'.")
]
MarketTypeName = Annotated[
    str, typer.Option("--market-type", "--market", "-m", help="spot, swap or future.")
]
SymbolList = Annotated[
    list[str] | None, typer.Option("--symbols", "-s", help="Symbols, comma-separated.")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where datasets are kept.", show_default=False)
]
ColumnSet = Annotated[
    str,
    typer.Option(help="ohlcv, or all: also trades, quote volume … where provided."),
]
StorageForm = Annotated[
    str,
    typer.Option(
        "--storage", help="pickle, sqlite, or auto: a pickle, converted to SQLite once large."
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file of ccxt settings (proxies, hosts, keys), one table per exchange id.",
        show_default=False,
    ),
]
SourceName = Annotated[
    str,
    typer.Option(
        "--source",
        help="api, archive (bulk files), or auto: archives where clearly cheaper.",
    ),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show detailed logs and tracebacks.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print one line, and errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@dataclass(frozen=True, slots=True)
class Output:
    """How a command reports: as text or JSON, much or little."""

    as_json: bool = False
    verbose: bool = False
    quiet: bool = False

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn errors into one line and an exit code; a traceback only when verbose."""
        if self.verbose and self.quiet:
            self.usage("--verbose and --quiet exclude each other")
        rendering.set_up_logging(verbose=self.verbose, quiet=self.quiet)
        with warnings.catch_warnings():
            # Warnings are logged as well, and a command shows its log.
            warnings.simplefilter("ignore", FetchWarning)
            try:
                yield
            except DataError as error:
                self._report(error)
            except BrokenPipeError:  # nobody reads what we print
                raise
            except OSError as error:  # a port in use, a full disk: nothing of ours
                self._say(type(error).__name__, f"{type(error).__name__}: {error}")
                raise typer.Exit(EXIT_FAILED) from None
            except KeyboardInterrupt:
                self.interrupted({})

    def interrupted(self, came: Mapping[str, int]) -> NoReturn:
        """End after Ctrl-C and report what was fetched; that is stored.

        Parameters
        ----------
        came : mapping of str to int
            Number of candles by symbol.
        """
        if self.as_json:
            symbols = {name: {"candles": count} for name, count in came.items()}
            typer.echo(json.dumps({"interrupted": True, "symbols": symbols}))
        what = f"{sum(came.values()):,} candles of {counted(len(came), 'symbol')}"
        rendering.error(f"interrupted; fetched and stored: {what if came else 'nothing yet'}")
        raise typer.Exit(130) from None

    def usage(self, message: str) -> NoReturn:
        """End with a usage error."""
        self._say(OptionError.__name__, message)
        raise typer.Exit(EXIT_USAGE)

    def show(self, account: Mapping[str, Any], render: Callable[[Mapping[str, Any]], None]) -> None:
        """Print an account, as JSON or as text."""
        if self.as_json:
            typer.echo(json.dumps(account))
        else:
            render(account)

    def _say(self, kind: str, message: str, account: Mapping[str, Any] | None = None) -> None:
        """Report an error on stderr, and with --json on stdout too."""
        if self.as_json:
            typer.echo(json.dumps({**rendering.error_object(kind, message), **(account or {})}))
        rendering.error(message)

    def _report(self, error: DataError) -> None:
        account = getattr(error, "account", {"failures": {}})
        self._say(type(error).__name__, str(error), account)
        if self.verbose:
            import traceback

            traceback.print_exception(error)
        usage = isinstance(error, RequestError) and not isinstance(error, UnknownSymbolError)
        raise typer.Exit(EXIT_USAGE if usage else EXIT_FAILED) from None


def versions() -> str:
    """Return the versions that a bug report needs, in one line."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    def of(package: str) -> str:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            return f"{package} {'from a checkout' if package == 'backtester' else 'not installed'}"

    packages = ", ".join(map(of, ("backtester", "ccxt", "vectorbt", "pandas", "numpy")))
    return f"{packages}, Python {platform.python_version()} on {platform.system()}"


def split(symbols: list[str] | None) -> list[str]:
    """Read the symbols of all --symbols flags, each a comma-separated list."""
    return [part for text in symbols or () for part in text.split(",") if part.strip()]


def settings_of(config: Path | None, exchange: str) -> dict[str, Any] | None:
    """Read the ccxt settings of one exchange from the config file."""
    if config is None:
        return None
    import tomllib

    try:
        parsed = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(f"cannot read the config file {config}: {error}") from error
    table = parsed.get(exchange)
    if table is None:
        tables = ", ".join(f"[{name}]" for name in parsed) or "nothing"
        raise OptionError(f"{config} has no table [{exchange}]; it has {tables}")
    if not isinstance(table, dict):
        raise OptionError(f"{config}: [{exchange}] must be a table of ccxt settings")
    return table
