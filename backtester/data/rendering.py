"""The output of the commands: tables on stdout, progress and logs on stderr.

Colour and emoji only if the terminal can show them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from backtester.data.model import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from backtester.data.events import Event

__all__ = [
    "error",
    "error_object",
    "print_account",
    "print_anything",
    "print_exchanges",
    "print_import",
    "print_import_briefly",
    "print_summary",
    "print_total",
    "progress",
    "set_up_logging",
]

_MARKS = {
    logging.DEBUG: ("🔍", "debug:"),
    logging.INFO: ("📈", "info:"),
    logging.WARNING: ("⚠️ ", "warning:"),
    logging.ERROR: ("❌", "error:"),
}


def set_up_logging(*, verbose: bool, quiet: bool) -> None:
    """Send the library's logs to stderr: warnings, all when verbose, errors only when quiet."""
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logger = logging.getLogger("backtester")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def print_anything() -> None:
    """Let stdout escape characters that its encoding lacks, as stderr does, and not fail."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def error_object(kind: str, message: str) -> dict[str, Any]:
    """Return what ``--json`` prints of an error."""
    return {"error": {"type": kind, "message": message}}


def error(message: str) -> None:
    """Print an error to stderr."""
    sys.stderr.write(f"{_mark(logging.ERROR)} {message}\n")


def print_account(account: Mapping[str, Any]) -> None:
    """Print the result of a fetch, one line per symbol."""
    from rich.table import Table

    console = _console(sys.stdout)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Symbol")
    table.add_column("Candles", justify="right")
    table.add_column("First (UTC)")
    table.add_column("Last (UTC)")
    table.add_column("Absent")
    for name, one in account["symbols"].items():
        absent = ", ".join(f"{n:,} {why.replace('_', ' ')}" for why, n in one["absent"].items())
        table.add_row(
            name,
            f"{one['candles']:,}",
            _date(one["first_ms"]),
            _date(one["last_ms"]),
            absent or "-",
        )
    for name, failure in account["failures"].items():
        table.add_row(name, "failed", "", "", failure["message"])
    console.print(table)
    print_total(account)


def print_total(account: Mapping[str, Any]) -> None:
    """Print the result of a fetch in one line."""
    total = sum(one["candles"] for one in account["symbols"].values())
    count = account["requests"]
    source = "all from the store, 0 requests" if count == 0 else counted(count, "request")
    used = sum(len(one["used"]) for one in account["archives"].values())
    if refused := sum(len(one["refused"]) for one in account["archives"].values()):
        source += f", {counted(used, 'archive file')} used and {refused} not"
    elif used:
        source += f", {counted(used, 'archive file')}"
    shorter = {one["from"] for notes in account["derived"].values() for one in notes}
    if shorter:
        source += f", some made of {' and '.join(sorted(shorter))} candles"
    _console(sys.stdout).print(
        f"{account['exchange']} {account['market_type']} {account['timeframe']}: "
        f"{counted(total, 'candle')} of {counted(len(account['symbols']), 'symbol')} in "
        f"{_duration(account['seconds'])}, {source}",
        style="bold",
    )


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print what is stored, one line per file."""
    from rich.table import Table

    console = _console(sys.stdout)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, side in (
        ("File", "left"),
        ("Symbols", "right"),
        ("Candles", "right"),
        ("From (UTC)", "left"),
        ("To (UTC)", "left"),
        ("MB", "right"),
    ):
        table.add_column(title, justify="right" if side == "right" else "left", overflow="fold")
    for name, one in summary["files"].items():
        facts = (f"{one['symbol_count']:,}", f"{one['candles']:,}")
        dates = (_date(one["first_ms"]), _date(one["last_ms"]))
        if one["problem"]:
            facts, dates = ("?", "?"), ("damaged", "")
        table.add_row(name, *facts, *dates, f"{one['size_mb']:.3f}")
    if summary["files"]:
        console.print(table)
    files = summary["pickle_files"]
    console.print(
        f"{counted(files, 'dataset')}, {summary['total_size_mb']:.2f} MB in {summary['data_dir']}",
        style="bold",
        soft_wrap=True,
    )
    for one in summary["files"].values():
        if one["problem"]:
            error(one["problem"])


def print_exchanges(found: Mapping[str, Any]) -> None:
    """Print the table of certified exchanges."""
    from rich.table import Table

    console = _console(sys.stdout)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Exchange", "Market", "Page", "Reaches back", "Candles/s at the limit"):
        table.add_column(title, justify="left" if title in ("Exchange", "Market") else "right")
    for one in found["certified"]:
        depth = f"{one['depth']:,} candles" if one["depth"] else "to the listing"
        pace = one["candles_per_second"]
        speed = f"{pace:,.0f}" if pace else "ccxt's pace"
        page = f"{one['page_size']:,}"
        table.add_row(one["exchange"], one["market_type"], page, depth, speed)
    console.print(table)
    console.print(
        "Every other ccxt exchange works too, with careful defaults: pages of 200 candles, and an "
        "absence only counts after a second look.",
        soft_wrap=True,
    )


def print_import(account: Mapping[str, Any]) -> None:
    """Print the result of an import, one line per series, and why rows were left out."""
    from rich.table import Table

    console = _console(sys.stdout)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Dataset")
    table.add_column("Symbol")
    for title in ("Rows", "New", "Revised", "Known"):
        table.add_column(title, justify="right")
    table.add_column("Left out")
    for one in account["series"]:
        left_out = dict(one["skipped"])
        left_out["not what the exchange answered"] = one["differs_from_exchange"]
        left_out["confirmed absent by the exchange"] = one["absent_on_exchange"]
        table.add_row(
            f"{one['exchange']} {one['market_type']} {one['timeframe']}",
            one["symbol"],
            *(f"{one[name]:,}" for name in ("rows", "new", "revised", "known")),
            ", ".join(f"{count:,} {why}" for why, count in left_out.items() if count) or "-",
        )
    if account["series"]:
        console.print(table)
    for one in account["series"]:
        for note in one["notes"]:
            console.print(f"{one['file']}: {note}", soft_wrap=True)
        if one["checked"] is not None:
            console.print(f"{one['file']}: {_checked(one['checked'])}", soft_wrap=True)
    for note in account["notes"]:
        console.print(note, soft_wrap=True)
    print_import_briefly(account)


def print_import_briefly(account: Mapping[str, Any]) -> None:
    """Print the failures of an import, and its result in one line."""
    console = _console(sys.stdout)
    for where, failure in account["failures"].items():
        console.print(f"not imported: {where}: {failure['message']}", soft_wrap=True)
    of = counted(len(account["series"]), "series")
    would = "would be taken" if account["dry_run"] else "taken"
    console.print(
        f"{counted(account['taken'], 'candle')} of {of} {would} in {_duration(account['seconds'])}",
        style="bold",
    )


def _checked(found: Mapping[str, Any]) -> str:
    if not found["compared"]:
        return "not checked, its candles are older than the exchange's API reaches back"
    return (
        f"checked, {found['matching']} of {found['compared'] + found['missing']} candles are what "
        f"the exchange answers, {found['identical']} to the last bit"
    )


def print_files(account: Mapping[str, Any]) -> None:
    """Print which files were written."""
    for path in account["files"]:
        sys.stdout.write(f"{path}\n")
    _console(sys.stdout).print(f"{counted(len(account['files']), 'file')} written", style="bold")


def print_verification(account: Mapping[str, Any]) -> None:
    """Print the problems of stored data, one line each, and what was done about them."""
    console = _console(sys.stdout)
    for one in account["problems"]:
        span = (
            ""
            if one["start_ms"] is None
            else (f" {_date(one['start_ms'])} to {_date(one['end_ms'])}")
        )
        where = f"{one['dataset']} {one['symbol'] or ''}{span}".rstrip()
        console.print(f"{where}: {one['what']}", soft_wrap=True)
    for stem, told in account["repaired"].items():
        again = told["asked_again"]
        console.print(f"{stem}: fetched again for {counted(len(again), 'symbol')}", soft_wrap=True)
        for what in told["lost_from_sight"]:
            console.print(f"  set aside: {what}", soft_wrap=True)
        left = len(told["problems_left"])
        console.print(f"  {counted(left, 'problem')} left" if left else "  no problems left")
    for symbol, failure in account["failures"].items():
        error(f"{symbol}: {failure}")
    console.print(
        f"{counted(account['datasets'], 'dataset')} checked, "
        f"{counted(len(account['problems']), 'problem')} found",
        style="bold",
    )


def print_history(account: Mapping[str, Any]) -> None:
    """Print the candles that were changed, one line per changed value."""
    from rich.table import Table

    from backtester.data.candles import COLUMNS

    console = _console(sys.stdout)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Candle (UTC)", "Column", "Was", "Is", "Answered (UTC)", "Changed (UTC)"):
        table.add_column(title, justify="right" if title in ("Was", "Is") else "left")
    for one in account["revisions"]:
        answered = _date(one["old_asked_ms"]) if one["old_asked_ms"] else "unknown"
        for column, old, new in zip(COLUMNS, one["old"], one["new"], strict=True):
            if old != new:
                table.add_row(
                    _date(one["open_ms"]), column, f"{old!r}", f"{new!r}", answered,
                    _date(one["new_asked_ms"]),
                )  # fmt: skip
    if account["revisions"]:
        console.print(table)
    count = len(account["revisions"])
    told = f"{counted(count, 'candle')} of {account['symbol']} changed after being stored"
    console.print(told if count else f"No stored candle of {account['symbol']} has changed.")


@contextmanager
def progress(*, shown: bool) -> Iterator[Callable[[Event], None]]:
    """Draw a fetch's events as a cost preview and a progress bar on stderr.

    Yields
    ------
    callable
        The hook to hand to the fetch.
    """
    if not shown:
        yield lambda _event: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("pages"),
        TimeRemainingColumn(),
        console=_console(sys.stderr),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        yield _Display(bar)


class _Display:
    """Turns events into the bar's state; called from the thread that fetches."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None

    def __call__(self, event: Event) -> None:
        from backtester.data import events

        match event:
            case events.FetchPlanned() if event.requests:
                self._bar.console.print(_preview(event), style="dim")
                self._task = self._bar.add_task("fetching", total=event.requests)
            case events.PageFetched() if self._task is not None:
                self._bar.update(self._task, advance=1, description=f"fetching {event.symbol}")
            case events.Waiting() if event.wait_s >= 1:
                self._say(f"waiting {event.wait_s:.0f} s: {event.reason}")
            case events.Retrying():
                reason = event.reason.removeprefix(f"{event.symbol}: ")
                self._say(f"{event.symbol}: attempt {event.attempt} failed, retrying: {reason}")
            case _:
                pass

    def _say(self, text: str) -> None:
        self._bar.console.print(text, style="yellow", soft_wrap=True)


def _preview(plan: Any) -> str:
    at_least = f", at least {_duration(plan.seconds)}" if plan.seconds else ""
    return (
        f"{plan.exchange}: {counted(plan.requests, 'request')} for up to "
        f"{counted(plan.candles, 'candle')} of {counted(plan.symbols, 'symbol')} "
        f"(weight {plan.weight:,}, {plan.size_bytes / 1e6:.1f} MB{at_least})"
    )


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{_mark(record.levelno)} {super().format(record)}"


def _mark(level: int) -> str:
    emoji, word = _MARKS.get(level, _MARKS[logging.INFO])
    try:
        emoji.encode(sys.stderr.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return word
    return emoji


def _console(stream: Any) -> Console:
    from rich.console import Console

    console = Console(
        file=stream,
        # Piped output is read by programs: never wrapped to a terminal's width.
        width=None if stream.isatty() else 200,
        highlight=False,
        # Names and messages may contain brackets, which are not markup.
        markup=False,
        emoji=False,
    )
    console.on_broken_pipe = _unread  # type: ignore[method-assign]  # its own ends the program
    return console


def _unread() -> None:
    """Leave it to `commands.running` that nobody reads what is printed."""
    raise BrokenPipeError


def _date(ms: int | None) -> str:
    if ms is None:
        return "-"
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else "under 1 ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min"
