"""The commands: flags in, exit codes out; everything else is the library's.

Data goes to stdout, progress and logs to stderr. Exit 0: all done; 1: something
failed; 2: wrong usage. What a command needs is imported inside it, so that
`--help` and `summary` stay light.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backtester.data import rendering
from backtester.data.errors import (
    DataError,
    FetchWarning,
    OptionError,
    RequestError,
    UnknownSymbolError,
)

if TYPE_CHECKING:
    from backtester.data.fetching.request import FetchResult

__all__ = ["app", "main", "spec_main"]

EXIT_FAILED = 1
EXIT_USAGE = 2

app = typer.Typer(
    name="vbt-data",
    help="Candles of crypto exchanges, for backtesting with VectorBT.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

# ------------------------------------------------------------------ flags used by several commands

Timeframe = Annotated[
    str, typer.Option("--timeframe", "-t", help="Length of a candle: 1m, 5m, 1h, 4h, 1d, 1w, 1M.")
]
ExchangeId = Annotated[
    str, typer.Option("--exchange", "-e", help="Exchange id of ccxt, or 'sandbox'.")
]
MarketTypeName = Annotated[
    str, typer.Option("--market-type", "--market", "-m", help="spot, swap or future.")
]
SymbolList = Annotated[
    list[str] | None, typer.Option("--symbols", "-s", help="Symbols, separated by commas.")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where datasets are kept.", show_default=False)
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file with a table of ccxt settings per exchange id (proxies, hosts, keys).",
        show_default=False,
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Detailed logs, and tracebacks.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="One line, and errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="The account as JSON, for machines.")]


@app.command()
def fetch(
    symbols: SymbolList = None,
    top: Annotated[
        int | None, typer.Option("--top", help="The N symbols with the highest 24 h volume.")
    ] = None,
    timeframe: Timeframe = "1d",
    exchange: ExchangeId = "binance",
    market_type: MarketTypeName = "spot",
    quote: Annotated[
        str, typer.Option("--quote", help="Quote currency that --top ranks within.")
    ] = "USDT",
    start: Annotated[
        str | None,
        typer.Option(help="First date, UTC: 2024-01-31, '7 days ago'. Default: 1000 candles."),
    ] = None,
    end: Annotated[str | None, typer.Option(help="End date, exclusive, UTC. Default: now.")] = None,
    inception: Annotated[
        bool, typer.Option("--inception", help="From the first candle there is.")
    ] = False,
    no_cache: Annotated[
        bool,
        typer.Option("--no-cache", help="Ask the exchange afresh; its answer is still stored."),
    ] = False,
    source: Annotated[
        str,
        typer.Option(
            help="auto: bulk archives where they are clearly cheaper than the API; api; archive."
        ),
    ] = "auto",
    storage_summary: Annotated[
        bool, typer.Option("--storage-summary", help="Show what is stored, and do nothing else.")
    ] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Fetch candles into the store, asking only for what it lacks."""
    output = _Output(as_json=as_json, verbose=verbose, quiet=quiet)
    with output.guarded():
        if storage_summary:
            _print_summary(output, data_dir)
            return
        _require_one(output, symbols=symbols, top=top, inception=inception, start=start)
        from backtester.data.fetching.archives.plan import Source
        from backtester.data.fetching.request import FetchRequest
        from backtester.data.fetching.symbols import parse_symbols
        from backtester.data.home import home_in
        from backtester.data.model import DatasetKey

        chosen = Source.parse(source)
        key, home = DatasetKey.of(exchange, market_type, timeframe), home_in(data_dir)
        settings = _settings(config, key.exchange)
        if top is not None:
            from backtester.data.cache_system.metadata_fetcher import MetadataFetcher

            named = MetadataFetcher(home.cache).get_top_symbols(
                key.exchange, quote, top, market_type, exchange_config=settings, refresh=no_cache
            )
        else:
            named = parse_symbols(_split(symbols))
        request = FetchRequest(
            key,
            tuple(named),
            "inception" if inception else start,
            end,
            use_cache=not no_cache,
            exchange_config=settings,
            source=chosen,
        )
        _run(output, lambda on_event: _pipeline(request, home, on_event))


@app.command()
def update(
    timeframe: Timeframe = "1d",
    exchange: ExchangeId = "binance",
    market_type: MarketTypeName = "spot",
    symbols: SymbolList = None,
    end: Annotated[str | None, typer.Option(help="End date, exclusive, UTC. Default: now.")] = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Bring what is stored of a dataset up to the last closed candle."""
    output = _Output(as_json=as_json, verbose=verbose, quiet=quiet)
    with output.guarded():
        from backtester.data.fetching.request import FetchRequest
        from backtester.data.fetching.symbols import parse_symbols
        from backtester.data.home import home_in
        from backtester.data.model import DatasetKey
        from backtester.data.storage.data_storage import DataStorage

        key, home = DatasetKey.of(exchange, market_type, timeframe), home_in(data_dir)
        named = _split(symbols) or list(DataStorage(data_dir).names(key))
        request = FetchRequest(
            key,
            tuple(parse_symbols(named)),
            end=end,
            exchange_config=_settings(config, key.exchange),
            only_newer=True,
        )
        _run(output, lambda on_event: _pipeline(request, home, on_event))


@app.command()
def summary(data_dir: DataDir = None, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Show what is stored, without reading any candle."""
    output = _Output(as_json=as_json, verbose=verbose)
    with output.guarded():
        _print_summary(output, data_dir)


@app.command()
def exchanges(as_json: AsJson = False) -> None:
    """Show which exchanges are certified: markets, page size, depth, speed at the limit."""
    from backtester.data.fetching.capabilities import certified

    rows = [
        {
            "exchange": exchange,
            "market_type": market_type.value,
            "page_size": row.page_size,
            "depth": row.depth,
            "candles_per_second": row.candles_per_second,
            "volume_delivered_in": "contracts" if row.volume_in_contracts else "base units",
            "archive": row.archive,
        }
        for exchange, market_type, row in certified()
    ]
    _Output(as_json=as_json).show({"certified": rows}, rendering.print_exchanges)


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    dialect: Annotated[str, typer.Option(help="Whose language to speak.")] = "binance",
    replay: Annotated[
        Path | None,
        typer.Option(help="Folder of candle files (Parquet, CSV) to serve instead."),
    ] = None,
    latency_ms: Annotated[float, typer.Option(help="Wait before every answer.")] = 0.0,
    weight_limit: Annotated[
        int | None, typer.Option(help="Request weight allowed per minute.", show_default=False)
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="A fault, such as 503 or 'cut json', with a chance: 503=0.1."),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Serve the sandbox exchange to other programs, until Ctrl-C."""
    output = _Output(verbose=verbose)
    with output.guarded():
        from backtester.data import sandbox as exchange
        from backtester.data.settings import SANDBOX_VARIABLE

        def started(server: exchange.SandboxServer) -> None:
            typer.echo(server.url)
            typer.echo(f"To use it from here: export {SANDBOX_VARIABLE}={server.url}", err=True)

        limits = None if weight_limit is None else {"spot": weight_limit, "usdm": weight_limit}
        exchange.serve(
            exchange.ReplayMarket(replay) if replay else None,
            latency_s=latency_ms / 1000,
            host=host,
            port=port,
            weight_limits=limits,
            faults=_faults(fault or []),
            dialect=dialect,
            on_start=started,
        )


def main() -> None:
    """Run ``vbt-data``."""
    rendering.print_anything()
    app()


def spec_main() -> None:
    """Run the spec's script: `fetch` alone, its flags without a subcommand."""
    rendering.print_anything()
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(help=fetch.__doc__)(fetch)
    alone()


# ------------------------------------------------------------------ what the commands share


@dataclass(frozen=True, slots=True)
class _Output:
    """How a command speaks: to people or machines, much or little."""

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
            # The same sentences are logged, and logs are what a command shows.
            warnings.simplefilter("ignore", FetchWarning)
            try:
                yield
            except DataError as error:
                self._report(error)
            except OSError as error:  # a port in use, a full pipe: nothing of ours
                rendering.error(f"{type(error).__name__}: {error}")
                raise typer.Exit(EXIT_FAILED) from None
            except KeyboardInterrupt:
                rendering.error("interrupted; what was fetched so far is stored")
                raise typer.Exit(130) from None

    def usage(self, message: str) -> None:
        """End with a usage error."""
        rendering.error(message)
        raise typer.Exit(EXIT_USAGE)

    def show(self, account: Mapping[str, Any], render: Callable[[Mapping[str, Any]], None]) -> None:
        """Print an account: as JSON, or for people."""
        if self.as_json:
            typer.echo(json.dumps(account))
        else:
            render(account)

    def _report(self, error: DataError) -> None:
        if self.as_json:
            described = {"error": type(error).__name__, "message": str(error)}
            account = getattr(error, "account", {"failures": {}})
            typer.echo(json.dumps({"error": described, **account}))
        rendering.error(str(error))
        if self.verbose:
            import traceback

            traceback.print_exception(error)
        usage = isinstance(error, RequestError) and not isinstance(error, UnknownSymbolError)
        raise typer.Exit(EXIT_USAGE if usage else EXIT_FAILED) from None


def _require_one(
    output: _Output,
    *,
    symbols: list[str] | None,
    top: int | None,
    inception: bool,
    start: str | None,
) -> None:
    if symbols is not None and top is not None:
        output.usage("--symbols and --top exclude each other")
    if symbols is None and top is None:
        output.usage("say what to fetch: --symbols BTC/USDT,ETH/USDT or --top 10")
    if inception and start is not None:
        output.usage("--inception and --start exclude each other")


def _split(symbols: list[str] | None) -> list[str]:
    """Read the symbols of all --symbols flags, each a list separated by commas."""
    return [part for text in symbols or () for part in text.split(",") if part.strip()]


def _pipeline(request: Any, home: Any, on_event: Any) -> FetchResult:
    from backtester.data.fetching.pipeline import run

    return run(request, home, on_event)


def _run(output: _Output, work: Callable[[Any], FetchResult]) -> None:
    """Run a fetch under a progress display, print its account, and exit by how it went."""
    with rendering.progress(shown=not (output.quiet or output.as_json)) as on_event:
        result = work(on_event)
    output.show(
        result.account(), rendering.print_total if output.quiet else rendering.print_account
    )
    if not result.complete:
        raise typer.Exit(EXIT_FAILED)


def _print_summary(output: _Output, data_dir: Path | None) -> None:
    from backtester.data.storage.data_storage import DataStorage

    output.show(DataStorage(data_dir).get_storage_summary(), rendering.print_summary)


def _settings(config: Path | None, exchange: str) -> dict[str, Any] | None:
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


def _faults(texts: list[str]) -> Any:
    from backtester.data.sandbox import Fault, Faults

    faults = Faults()
    for text in texts:
        kind, _, chance = text.partition("=")
        try:
            faults.add(Fault(kind.strip()), times=None, probability=float(chance or 1.0))
        except ValueError as error:
            known = ", ".join(Fault)
            raise OptionError(f"no fault like {text!r}; there are {known}") from error
    return faults


if __name__ == "__main__":
    main()
