"""The command line: flags in, exit codes out; the library does the work.

Data goes to stdout, progress and logs to stderr. Exit 0: all done; 1: something
failed; 2: wrong usage. What a command needs is imported inside it, so that
`--help` and `summary` stay light.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backtester.data import rendering
from backtester.data.commands.importing import import_files
from backtester.data.commands.running import run
from backtester.data.commands.shared import (
    EXIT_FAILED,
    AsJson,
    ColumnSet,
    ConfigFile,
    DataDir,
    ExchangeId,
    MarketTypeName,
    Output,
    Quiet,
    SourceName,
    StorageForm,
    SymbolList,
    Timeframe,
    Verbose,
    settings_of,
    split,
    versions,
)
from backtester.data.commands.storing import convert, delete, export, history, verify
from backtester.data.errors import OptionError

if TYPE_CHECKING:
    from backtester.data.fetching.request import FetchResult

__all__ = ["app", "main", "spec_main"]


app = typer.Typer(
    name="vbt-data",
    help="Fetch, store and check crypto exchange candles for VectorBT.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_versions(asked: bool) -> None:
    if asked:
        typer.echo(versions())
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_show_versions,
            help="Show the versions a bug report needs, and exit.",
        ),
    ] = False,
) -> None:
    pass


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
        str, typer.Option("--quote", help="Quote currency of the markets ranked by --top.")
    ] = "USDT",
    start: Annotated[
        str | None,
        typer.Option(help="Start date, UTC: 2024-01-31, '7 days ago'. Default: 1000 candles."),
    ] = None,
    end: Annotated[str | None, typer.Option(help="End date, exclusive, UTC. Default: now.")] = None,
    inception: Annotated[
        bool, typer.Option("--inception", help="Start at the first candle there is.")
    ] = False,
    no_cache: Annotated[
        bool,
        typer.Option("--no-cache", help="Fetch everything again; the result is still stored."),
    ] = False,
    source: SourceName = "auto",
    columns: ColumnSet = "ohlcv",
    prefer_resampling: Annotated[
        bool,
        typer.Option(
            "--prefer-resampling",
            help="Build candles from stored shorter ones where those cover the range.",
        ),
    ] = False,
    storage_summary: Annotated[
        bool, typer.Option("--storage-summary", help="Show what is stored, and do nothing else.")
    ] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    storage: StorageForm = "auto",
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Fetch candles, downloading only what is not stored yet."""
    output = Output(as_json=as_json, verbose=verbose, quiet=quiet)
    with output.guarded():
        if storage_summary:
            _print_summary(output, data_dir)
            return
        _require_one(output, symbols=symbols, top=top, inception=inception, start=start)
        from backtester.data.fetching.archives.plan import Source
        from backtester.data.fetching.request import FetchRequest, wants_all
        from backtester.data.fetching.symbols import parse_symbols
        from backtester.data.home import home_in
        from backtester.data.model import DatasetKey

        chosen = Source.parse(source)
        key, home = DatasetKey.of(exchange, market_type, timeframe), home_in(data_dir, storage)
        settings = settings_of(config, key.exchange)
        if top is not None:
            from backtester.data.cache_system.metadata_fetcher import MetadataFetcher

            named = MetadataFetcher(home.cache).get_top_symbols(
                key.exchange, quote, top, market_type, exchange_config=settings, refresh=no_cache
            )
        else:
            named = parse_symbols(split(symbols))
        request = FetchRequest(
            key,
            tuple(named),
            "inception" if inception else start,
            end,
            use_cache=not no_cache,
            exchange_config=settings,
            source=chosen,
            prefer_resampling=prefer_resampling,
            account_only=True,
            all_columns=wants_all(columns),
        )
        _run(output, lambda on_event: _pipeline(request, home, on_event))


@app.command()
def update(
    timeframe: Timeframe = "1d",
    exchange: ExchangeId = "binance",
    market_type: MarketTypeName = "spot",
    symbols: SymbolList = None,
    columns: ColumnSet = "ohlcv",
    end: Annotated[str | None, typer.Option(help="End date, exclusive, UTC. Default: now.")] = None,
    source: SourceName = "auto",
    config: ConfigFile = None,
    data_dir: DataDir = None,
    storage: StorageForm = "auto",
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Bring stored symbols up to the last closed candle."""
    output = Output(as_json=as_json, verbose=verbose, quiet=quiet)
    with output.guarded():
        from backtester.data.fetching.archives.plan import Source
        from backtester.data.fetching.request import FetchRequest, wants_all
        from backtester.data.fetching.symbols import parse_symbols
        from backtester.data.home import home_in
        from backtester.data.model import DatasetKey
        from backtester.data.storage.data_storage import DataStorage

        key, home = DatasetKey.of(exchange, market_type, timeframe), home_in(data_dir, storage)
        named = split(symbols) or list(DataStorage(data_dir).names(key))
        request = FetchRequest(
            key,
            tuple(parse_symbols(named)),
            end=end,
            exchange_config=settings_of(config, key.exchange),
            only_newer=True,
            source=Source.parse(source),
            account_only=True,
            all_columns=wants_all(columns),
        )
        _run(output, lambda on_event: _pipeline(request, home, on_event))


@app.command()
def summary(data_dir: DataDir = None, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Show what is stored."""
    output = Output(as_json=as_json, verbose=verbose)
    with output.guarded():
        _print_summary(output, data_dir)


@app.command()
def exchanges(as_json: AsJson = False) -> None:
    """List the certified exchanges: markets, page size, depth, speed."""
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
    Output(as_json=as_json).show({"certified": rows}, rendering.print_exchanges)


@app.command()
def sandbox(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")
    ] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    dialect: Annotated[str, typer.Option(help="Exchange whose API to speak.")] = "binance",
    replay: Annotated[
        Path | None,
        typer.Option(help="Folder of candle files (Parquet, CSV) to serve instead."),
    ] = None,
    latency_ms: Annotated[
        float, typer.Option(min=0, max=600_000, help="Delay before every answer.")
    ] = 0.0,
    weight_limit: Annotated[
        int | None,
        typer.Option(min=1, help="Request weight allowed per minute.", show_default=False),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="Fault to inject, with its probability: 503=0.1, 'cut json=0.05'."),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Serve the sandbox exchange to other programs until Ctrl-C."""
    output = Output(verbose=verbose)
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


app.command(name="import")(import_files)
for command in (verify, history, convert, export, delete):
    app.command()(command)


def main() -> None:
    """Run ``vbt-data``."""
    run(app)


def spec_main() -> None:
    """Run the spec's script: `fetch` alone, its flags without a subcommand."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(help=fetch.__doc__)(fetch)
    run(alone)


# ------------------------------------------------------------------ what the commands share


def _require_one(
    output: Output,
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


def _pipeline(request: Any, home: Any, on_event: Any) -> FetchResult:
    from backtester.data.fetching.pipeline import run

    return run(request, home, on_event)


def _run(output: Output, work: Callable[[Any], FetchResult]) -> None:
    """Run a fetch with a progress display, print its account, and exit with its code."""
    came: dict[str, int] = {}
    try:
        with rendering.progress(shown=not (output.quiet or output.as_json)) as on_event:
            result = work(_counting(came, on_event))
    except KeyboardInterrupt:
        output.interrupted(came)
    output.show(
        result.account(), rendering.print_total if output.quiet else rendering.print_account
    )
    if not result.complete:
        raise typer.Exit(EXIT_FAILED)


def _counting(came: dict[str, int], on_event: Callable[[Any], None]) -> Callable[[Any], None]:
    """Follow the events of a fetch: how many candles of which symbol have come."""
    from backtester.data.events import PageFetched

    def count(event: Any) -> None:
        if isinstance(event, PageFetched):
            came[event.symbol] = came.get(event.symbol, 0) + event.candles
        on_event(event)

    return count


def _print_summary(output: Output, data_dir: Path | None) -> None:
    from backtester.data.storage.data_storage import DataStorage

    output.show(DataStorage(data_dir).get_storage_summary(), rendering.print_summary)


def _faults(texts: list[str]) -> Any:
    from backtester.data.sandbox import Fault, Faults

    faults = Faults()
    known = [one for one in Fault if one is not Fault.REVISION]
    for text in texts:
        kind, _, chance = text.partition("=")
        if kind.strip() == Fault.REVISION:
            raise OptionError("a revision needs a candle and its values: use Faults.revise")
        if kind.strip() not in known:
            raise OptionError(f"no fault like {kind!r}; there are {', '.join(known)}")
        faults.add(Fault(kind.strip()), probability=_chance(text, chance or "1"))
    return faults


def _chance(text: str, chance: str) -> float:
    try:
        found = float(chance)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:  # neither is what is not a number
        raise OptionError(f"the chance in {text!r} is not a number from 0 to 1")
    return found


if __name__ == "__main__":
    main()
