"""Import files into the store: the one module of this package with side effects."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from backtester.data.candles import Answer, Candles, Series
from backtester.data.errors import (
    CandleError,
    CorruptDatasetError,
    FetchError,
    OptionError,
    RequestError,
    TransientFetchError,
    UnknownSymbolError,
)
from backtester.data.fetching.symbols import SymbolBook
from backtester.data.home import Home, home_in
from backtester.data.importing.found import Found, Said
from backtester.data.importing.merging import News, news_of
from backtester.data.importing.names import quoted_as_usual, said_by_name, unified
from backtester.data.importing.opening import files_in, series_in
from backtester.data.importing.report import ImportedSeries, ImportReport
from backtester.data.importing.screening import Screened, screen, spacing_of
from backtester.data.model import DatasetKey, MarketType, Timeframe, format_ms

__all__ = ["import_data"]

PathLike = str | os.PathLike[str]

_FLUSH_BYTES = 32 << 20


def import_data(
    paths: PathLike | Sequence[PathLike],
    exchange_id: str | None = None,
    market_type: str | None = None,
    timeframe: str | None = None,
    symbol: str | None = None,
    *,
    last_is_closed: bool = False,
    check: bool = False,
    dry_run: bool = False,
    exchange_config: Mapping[str, Any] | None = None,
    data_dir: PathLike | None = None,
    storage: str = "auto",
) -> ImportReport:
    """Merge candle files of other programs into the store.

    Reads files of VectorBT PRO and open-source VectorBT (``Data.save``), HDF5 files of pandas and
    PyTables, and CSV, Parquet and Feather files, including freqtrade's; also inside zip, gzip and
    bzip2. No code in a file is ever run.

    Parameters
    ----------
    paths : path or list of paths
        Files, or folders of files.
    exchange_id, market_type, timeframe : str, optional
        What the candles are. By default this is read from the file's content or name
        (``binance_spot_1h.…``). It is never guessed: if neither says it, an error asks for it.
    symbol : str, optional
        Names the series of a file that holds one; selects one of a file that holds several.
    last_is_closed : bool
        Also take the last row of every series. By default it counts as unfinished, unless the
        format proves otherwise (our own files, the archives of Binance).
    check : bool
        Compare a sample of every series with the exchange, and take the series only if it matches.
    dry_run : bool
        Report what would be taken, and store nothing.
    exchange_config : Mapping, optional
        ccxt settings for `check`.
    data_dir, storage
        See `fetch_data`.

    Returns
    -------
    ImportReport
        What was taken from each series, what was not, and why. Importing the same files again
        takes nothing.

    Raises
    ------
    RequestError
        An argument is wrong, or a library that a format needs is not installed.
    NothingImportedError
        No series could be read; `account` has the reasons.
    StorageError
        The store could not be written.

    Warns
    -----
    FetchWarning
        Some series could not be taken; ``report.failures`` says why.

    Notes
    -----
    Rows pass the same checks as pages from an exchange. Imported candles count as present and
    nothing counts as absent: a fetch still asks for the gaps between them. A candle that came from
    the exchange itself is kept, and the difference is reported; a candle that was imported or
    saved before is revised.
    """
    asked = Said(
        exchange_id.strip().lower() if exchange_id else None,
        MarketType.parse(market_type) if market_type else None,
        Timeframe.parse(timeframe) if timeframe else None,
        symbol,
    )
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise OptionError("name at least one file to import")
    files = list(dict.fromkeys(file for path in given for file in files_in(path)))
    begun = time.monotonic()
    work = _Import(
        home_in(data_dir, storage),
        asked,
        last_is_closed=last_is_closed,
        check=check,
        config=exchange_config,
        report=ImportReport(dry_run=dry_run),
    )
    work.alone = len(files) == 1
    for path in files:
        work.take_file(path)
    work.finish()
    if symbol and not work.report.series and not work.report.failures:
        raise UnknownSymbolError(f"no series in these files is of {symbol}", symbol=symbol)
    work.report.seconds = time.monotonic() - begun
    work.report.tell()
    return work.report


# --------------------------------------------------------------------------- the work


@dataclass(slots=True)
class _Target:
    """A dataset that is imported into: what of it is known, and what is on its way there."""

    series: dict[str, Series] = field(default_factory=dict)
    pending: list[Answer] = field(default_factory=list)
    imports: dict[str, Any] = field(default_factory=dict)
    """For the metadata: which file brought how many candles of which symbol."""
    changed: bool = False


class _Import:
    """One call of `import_data`."""

    def __init__(
        self,
        home: Home,
        asked: Said,
        *,
        last_is_closed: bool,
        check: bool,
        config: Mapping[str, Any] | None,
        report: ImportReport,
    ) -> None:
        self.home = home
        self.asked = asked
        self.last_is_closed = last_is_closed
        self.check = check
        self.config = config
        self.report = report
        self.now_ms = time.time_ns() // 1_000_000
        self.targets: dict[DatasetKey, _Target] = {}
        self.alone = False
        """Whether there is one file only, to whose one series the user may give any name."""
        self.unreachable: dict[str, FetchError] = {}
        self.books: dict[tuple[str, MarketType], SymbolBook] = {}
        """What is known of the exchanges' markets."""

    def take_file(self, path: Path) -> None:
        """Import one file; what is wrong with it or in it becomes a failure."""
        counts: dict[DatasetKey, dict[str, int]] = {}
        try:
            for found in _chosen(series_in(path), self.asked, alone=self.alone):
                if found.rows is None and found.problem is None:
                    self.report.notes += [f"{found.where}: {note}" for note in found.notes]
                    continue
                one = self._attempt(found, path)
                if one is not None and one.taken:
                    own = counts.setdefault(one.key, {})
                    own[one.symbol] = own.get(one.symbol, 0) + one.taken
        except (CorruptDatasetError, CandleError, RequestError) as error:
            self.report.failures[getattr(error, "path", None) or str(path)] = error
        if counts and not self.report.dry_run:
            origin = _origin(path, self.now_ms)
            for key, taken in counts.items():
                imports = self.targets[key].imports
                number = len(imports) + 1  # files of several folders may share a name
                label = f"{format_ms(self.now_ms)} {number} {path.name}"
                imports[label] = {**origin, "candles": taken}

    def _attempt(self, found: Found, path: Path) -> ImportedSeries | None:
        try:
            one = self._take(found, path)
        except (CandleError, RequestError, CorruptDatasetError, FetchError) as error:
            self.report.failures[found.where] = error
            return None
        self.report.series.append(one)
        return one

    def _take(self, found: Found, path: Path) -> ImportedSeries:
        if found.problem is not None:
            raise found.problem
        said, notes = self._identified(found, path)
        key, symbol, named = self._named(found, said)
        assert found.rows is not None, "a series without rows is a problem or a note"
        rows = screen(
            found.rows,
            key.timeframe,
            now_ms=self.now_ms,
            last_is_closed=self.last_is_closed or found.last_closed,
        )
        checked = self._checked(key, symbol, rows.candles) if self.check else None
        target = self._target(key, symbol)
        news = news_of(
            symbol, rows.candles, target.series[symbol], key.timeframe, asked_ms=self.now_ms
        )
        self._keep(key, target, news)
        if found.rows.unread is not None:
            notes.append(f"cannot read {found.rows.unread[:40]!r} as a number")
        return _imported(found, key, symbol, rows, news, (*found.notes, *notes, *named), checked)

    # ------------------------------------------------------------------ what it is

    def _identified(self, found: Found, path: Path) -> tuple[Said, list[str]]:
        """Join what the user, the content and the names say.

        Raises
        ------
        OptionError
            Content and name contradict each other, and the user does not decide.
        """
        # A member of a zip file has a name of its own, which tells more than the zip's.
        named = said_by_name(found.name).over(said_by_name(path))
        content = self._content(found, named)
        open_questions = Said(
            None if self.asked.exchange else found.said.exchange,
            None if self.asked.market_type else found.said.market_type,
            None if self.asked.timeframe else found.said.timeframe,
        )
        contradictions = open_questions.against(named)
        if contradictions:
            raise OptionError(
                f"its content and its name say different things ({'; '.join(contradictions)}); "
                "say which is right: --exchange, --market-type or --timeframe"
            )
        notes = [
            f"taken as told, though the file says otherwise ({one})"
            for one in self.asked.against(content.over(named))
        ]
        own = content.over(named).symbol
        if self.asked.symbol and own and not _meanings(own) & _meanings(self.asked.symbol):
            notes.append(f"taken as told, though the file says otherwise (symbol: {own})")
        return self.asked.over(content).over(named), notes

    def _content(self, found: Found, named: Said) -> Said:
        """Return what the content says, but for a symbol in its rows that is no pair or an alias.

        Raises
        ------
        OptionError
            Its rows are of another symbol than the user or its name says.
        """
        own = found.said.symbol
        if own is None or not found.symbol_in_rows:
            return found.said
        by_name = named.symbol if named.timeframe or quoted_as_usual(named.symbol) else None
        told = self.asked.symbol or by_name
        if told is None:
            return found.said
        if _meanings(own) & _meanings(told):
            return found.said
        usual = own.upper().replace("XBT", "BTC").replace("XDG", "DOGE")
        bases = {meaning.partition("/")[0].upper() for meaning in _meanings(told)}
        pair = any("/" in meaning for meaning in _meanings(own))
        if _meanings(usual) & _meanings(told) or (not pair and any(b in usual for b in bases)):
            return replace(found.said, symbol=None)  # BTC or BTCUSDT.P, where BTC/USDT is told
        who = "you say" if self.asked.symbol else "its name says"
        raise OptionError(f"its rows are of {own}, and {who} {told}", value=told)

    def _named(self, found: Found, said: Said) -> tuple[DatasetKey, str, list[str]]:
        """Return the dataset and the unified symbol, and what was assumed for it.

        Raises
        ------
        OptionError
            Something is said nowhere.
        UnknownSymbolError
            The symbol could mean several things.
        """
        missing = []
        if said.exchange is None:
            missing.append("the exchange (--exchange binance)")
        if said.market_type is None:
            missing.append("the market type (--market-type spot)")
        if said.timeframe is None:
            apart = spacing_of(found.rows) if found.rows is not None else None
            missing.append(
                "the timeframe (--timeframe "
                + (f"{apart}: so far apart its rows are)" if apart else "1h)")
            )
        if said.symbol is None:
            missing.append("the symbol (--symbol BTC/USDT)")
        if missing or not (said.exchange and said.market_type and said.timeframe and said.symbol):
            raise OptionError(f"neither its name nor its content says {', '.join(missing)}")
        from backtester.data.fetching.exchange import require_known

        key = DatasetKey.of(said.exchange, said.market_type, said.timeframe)
        require_known(key.exchange)
        symbol, notes = self._unified(key, said.symbol)
        return key, symbol, notes

    def _unified(self, key: DatasetKey, name: str) -> tuple[str, list[str]]:
        where = key.exchange, key.market_type
        if where not in self.books:
            self.books[where] = SymbolBook.of(self.home.cache.get_markets(*where) or ())
        book = self.books[where]
        likely = unified(name, key.market_type)
        symbol = book.find(name) or (book.find(likely) if likely else None) or likely
        if symbol is None:
            raise UnknownSymbolError(
                f"which symbol of {key.exchange} {key.market_type} {name!r} is, cannot be told; "
                "name it in full (--symbol BTC/USDT, BTC/USDT:USDT, BTC/USDT:USDT-251226)",
                symbol=name,
                suggestions=book.nearest(name),
            )
        told = re.sub("[-_]", "/", name) == symbol
        notes = [] if told else [f"{name} is taken as {symbol}"]
        if book and book.find(symbol) is None:
            notes.append(f"{symbol} is not among the markets that {key.exchange} has now")
        return symbol, notes

    def _checked(self, key: DatasetKey, symbol: str, candles: Candles) -> dict[str, Any] | None:
        from backtester.data.importing.checking import ExchangeCheck

        if not len(candles):
            return None
        if key.exchange in self.unreachable:
            raise self.unreachable[key.exchange]
        try:
            check = ExchangeCheck(self.home, self.config, self.now_ms)
            found = check.require_market(key, symbol, candles)
        except TransientFetchError as error:  # after all tries: the next would only wait, too
            self.unreachable[key.exchange] = error
            raise
        return found.plain() if found is not None else {"compared": 0}

    # ------------------------------------------------------------------ where it goes

    def _target(self, key: DatasetKey, symbol: str) -> _Target:
        target = self.targets.setdefault(key, _Target())
        if symbol not in target.series:
            try:
                stored = self.home.store.read(key, [symbol])
            except CorruptDatasetError as damage:
                # As in a fetch: what is sound is used, and the file set aside by the next write.
                stored = self.home.store.read(key, [symbol], salvage=True)
                if str(damage) not in self.report.notes:
                    self.report.notes.append(f"{damage}; it is set aside")
            target.series[symbol] = stored.series.get(symbol) or Series()
        return target

    def _keep(self, key: DatasetKey, target: _Target, news: News) -> None:
        if not news.answers or self.report.dry_run:
            return
        symbol = news.answers[0].symbol
        target.series[symbol] = target.series[symbol].with_answers(news.answers)
        target.pending += news.answers
        if sum(a.candles.values.nbytes for a in target.pending) > _FLUSH_BYTES:
            self._flush(key, target)

    def _flush(self, key: DatasetKey, target: _Target) -> None:
        if target.pending:
            self.home.store.commit(key, target.pending)
            target.pending, target.changed = [], True

    def finish(self) -> None:
        """Bring everything into the datasets, and note beside them where it came from."""
        for key, target in self.targets.items():
            self._flush(key, target)
            if target.imports:
                self.home.store.annotate(key, {"imports": target.imports})
            if target.changed:
                self.home.store.fold(key)


def _chosen(series: Iterator[Found], asked: Said, *, alone: bool) -> Iterable[Found]:
    """Return the series of a file that are asked for: all, or those that may mean the symbol."""
    if asked.symbol is None:
        return series
    first, second = next(series, None), next(series, None)
    both = [one for one in (first, second) if one is not None]
    if alone and len(both) == 1:
        return both
    wanted = _meanings(asked.symbol)

    def meant(found: Found) -> bool:
        name = found.said.over(said_by_name(found.name)).symbol
        return name is None or bool(wanted & _meanings(name))

    return filter(meant, chain(both, series))


def _meanings(name: str) -> set[str]:
    """Return the unified symbols that a name may mean, of any market."""
    return {name} | {one for one in (unified(name, kind) for kind in MarketType) if one}


def _origin(path: Path, now_ms: int) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": digest,
        "imported_ms": now_ms,
    }


def _imported(
    found: Found,
    key: DatasetKey,
    symbol: str,
    screened: Screened,
    news: News,
    notes: tuple[str, ...],
    checked: dict[str, Any] | None,
) -> ImportedSeries:
    assert found.rows is not None
    times = screened.candles.open_time
    return ImportedSeries(
        where=found.where,
        key=key,
        symbol=symbol,
        rows=len(found.rows),
        skipped=screened.skipped,
        new=news.new,
        revised=news.revised,
        known=news.known,
        kept=news.kept,
        absent=news.absent,
        first_ms=int(times[0]) if len(times) else None,
        last_ms=int(times[-1]) if len(times) else None,
        notes=notes,
        checked=checked,
    )
