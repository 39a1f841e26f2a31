"""The part of the pipeline that talks to an exchange: fetch, check, store."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from backtester.data.cache_system.cache_manager import CacheManager, FailedSymbol
from backtester.data.errors import BadResponseError, DataError, NotServedError, StorageError
from backtester.data.events import Event, SymbolFailed, Waiting
from backtester.data.fetching import making
from backtester.data.fetching.archives.deep import DeepArchive
from backtester.data.fetching.archives.plan import Source, deep_only, deep_timeframes
from backtester.data.fetching.archives.source import ArchiveSource
from backtester.data.fetching.exchange import Exchange
from backtester.data.fetching.fetcher import Fetcher, SeriesJob
from backtester.data.fetching.keeper import Keeper
from backtester.data.fetching.paging import Reader
from backtester.data.fetching.pipeline import Task
from backtester.data.fetching.retries import trying
from backtester.data.fetching.symbols import SymbolBook
from backtester.data.model import Interval, Market, MarketType, Timeframe, format_ms

__all__ = ["answer", "in_thread", "markets_of"]

T = TypeVar("T")

_CLOCK_FRESH_MS = 600_000
"""How long a reading of the exchange's clock is good for."""
_CLOCK_DOUBTED_MS = 60_000
"""How far it may be from this machine's to be believed at once."""
_CLOCK_AGREES_MS = 5_000
_CLOCK_READINGS = 4
_MARKETS_FRESH_MS = 3_600_000
"""How long a symbol missing from the list of markets counts as unknown."""
_FAILED_S = 3_600.0
"""How long a symbol that shows no candle is not asked for again."""


def answer(task: Task) -> None:
    """Answer a task from the exchange and the store together, storing every page as it comes."""
    in_thread(_answer(task))


async def _answer(task: Task) -> None:
    request, key = task.request, task.request.key

    def waiting(seconds: float, reason: str) -> None:
        task.on_event(Waiting(key.exchange, seconds, reason))

    limits = task.home.cache.get_limits(key.exchange, key.market_type)
    async with Exchange(
        key.exchange,
        key.market_type,
        request.exchange_config,
        limits=limits,
        on_wait=waiting,
        extras=request.all_columns,
    ) as exchange:
        exchange.require_timeframe(key.timeframe)
        now_ms = await _exchange_now(task, exchange)
        request.resolve(now_ms)  # a date that cannot be answered, before anything is asked for
        try:
            markets = await _name_online(task, exchange)
            wanted = task.wanted(now_ms)
            task.read(wanted)
            if (source := exchange.made_of(key.timeframe)) is not None:
                await _make(task, exchange, source, wanted, now_ms)
            else:
                await _fill(task, exchange, markets, wanted, now_ms)
        finally:
            task.result.requests += exchange.requests
    task.select(wanted)


async def _fill(
    task: Task,
    exchange: Exchange,
    markets: Mapping[str, Market],
    wanted: Mapping[str, Interval],
    now_ms: int,
) -> None:
    """Ask for what the store lacks of `wanted`, store it, and note what it taught."""
    jobs = [
        SeriesJob(markets[symbol], intervals, _reader(task, exchange, markets[symbol], now_ms))
        for symbol, intervals in task.gaps(wanted).items()
    ]
    archives = _archives(task, exchange, now_ms)
    try:
        await _fetch(task, exchange, jobs, archives)
        for job in jobs:
            _note(task, job)
        if task.request.include_forming:
            await _add_forming(task, exchange, markets)
    finally:
        if archives is not None:
            task.result.requests += archives.requests
            for symbol in [*archives.used, *archives.refused]:
                task.result.archives[task.asked_name(symbol)] = {
                    "used": sorted(archives.used.get(symbol, [])),
                    "refused": dict(sorted(archives.refused.get(symbol, {}).items())),
                }


async def _make(
    task: Task,
    exchange: Exchange,
    source: Timeframe,
    wanted: Mapping[str, Interval],
    now_ms: int,
) -> None:
    """Make candles the exchange does not have of its shorter ones, which are stored as well."""
    request, target = task.request, task.request.key.timeframe
    gaps = task.gaps(wanted)
    open_time = request.forming(now_ms) if request.include_forming else None
    forming = {} if open_time is None else dict.fromkeys(task.names.values(), open_time)
    asked = making.question(request, source, gaps, now_ms, forming)
    if asked is None:
        return
    shorter = Task(asked, task.home, task.on_event)
    try:
        markets = await _name_online(shorter, exchange)
        needed = shorter.wanted(now_ms)
        shorter.read(needed)
        await _fill(shorter, exchange, markets, needed, now_ms)
    finally:
        task.result.requests += shorter.result.requests
        task.result.storage_error = task.result.storage_error or shorter.result.storage_error
        for symbol, files in shorter.result.archives.items():
            task.result.archives[task.asked_name(symbol)] = files
    for symbol, error in shorter.result.failures.items():
        task.result.failures[task.asked_name(symbol)] = error
    answers = [
        answer
        for symbol, intervals in gaps.items()
        for answer in making.answers_of(symbol, shorter.known(symbol), source, target, intervals)
    ]
    for symbol, opened in forming.items():
        if symbol not in shorter.result.failures:
            task.result.forming[task.asked_name(symbol)] = making.forming_of(
                shorter.known(symbol).candles, shorter.result.forming[symbol], target, opened
            )
    task.learn(answers, made_of=source)
    try:
        await asyncio.to_thread(task.home.store.commit, request.key, answers)
        task.home.store.annotate(request.key, {making.MADE_OF: str(source)})
    except StorageError as error:
        task.result.storage_error = error


def _archives(task: Task, exchange: Exchange, now_ms: int) -> ArchiveSource | None:
    """Return the exchange's archives, if it has any and they may be used.

    Raises
    ------
    NotServedError
        They are asked for by name, and it has none.
    """
    source, key = task.request.source, task.request.key
    if source is Source.API:
        return None
    deep = deep_timeframes(exchange.id, key.market_type)
    if exchange.archive_url is None or (deep_only(exchange.id) and not deep):
        if source is Source.ARCHIVE:
            raise NotServedError(
                f"no archives of {exchange.id} are known; give their address as 'archiveUrl' in "
                "exchange_config, or use source='auto'",
                exchange=exchange.id,
            )
        return None
    if deep_only(exchange.id) and str(key.timeframe) not in deep:
        return None
    return (DeepArchive if deep else ArchiveSource)(
        exchange,
        exchange.archive_url,
        key.timeframe,
        page_size=exchange.capability.page_of(key.timeframe),
        now_ms=now_ms,
        source=source,
        on_event=task.on_event,
    )


async def _fetch(
    task: Task, exchange: Exchange, jobs: list[SeriesJob], archives: ArchiveSource | None
) -> None:
    """Fetch the jobs into the store and into what the task knows."""
    key = task.request.key
    async with Keeper(task.home.store, key) as keeper:
        fetcher = Fetcher(
            exchange, key.timeframe, keeper.keep, task.on_event, archives, retain=not task.counts
        )
        await fetcher.run(jobs)
    task.learn([answer for job in jobs for answer in job.answers])
    for job in jobs:
        job.answers.clear()  # merged by now; folding needs the memory
    try:
        if keeper.error is not None:
            raise keeper.error
        task.home.store.fold(key)  # in this thread: nothing else is left to run, and a
        # thread of its own would keep a heap of its own
    except StorageError as error:
        task.result.storage_error = error


def _note(task: Task, job: SeriesJob) -> None:
    """Note how a job ended: its failure, and what it found out about the market."""
    where = task.request.key.exchange, task.request.key.market_type, job.symbol
    cache = task.home.cache
    if job.reader.inception is not None:
        known = cache.get_inception(*where)
        if known is None or known < job.reader.inception:  # finer timeframes tell more
            cache.save_inception(*where, job.reader.inception, "first candle")
    if job.error is not None:
        task.result.failures[task.asked_name(job.symbol)] = job.error
        if "status" not in job.error.facts:  # about the symbol, not about one HTTP answer
            cache.save_failed(*where, job.error, ttl_s=_FAILED_S)


async def _add_forming(task: Task, exchange: Exchange, markets: Mapping[str, Market]) -> None:
    """Ask for the forming candle of every symbol that has not failed."""
    open_time = task.request.forming(task.result.as_of_ms)
    if open_time is None:
        return
    timeframe = task.request.key.timeframe
    fetcher = Fetcher(exchange, timeframe, lambda _answer: None, task.on_event)
    for name, symbol in task.names.items():
        if name in task.result.failures:
            continue
        try:
            task.result.forming[name] = await fetcher.forming(markets[symbol], open_time)
        except DataError as error:
            task.result.failures[name] = error
            task.on_event(SymbolFailed(name, str(error)))


def _reader(task: Task, exchange: Exchange, market: Market, now_ms: int) -> Reader:
    return Reader(
        task.request.key.timeframe,
        exchange.capability.from_start,
        now_ms,
        task.inception(market.symbol),
        market.created_ms,
    )


# -------------------------------------------------------------------------- what is known of it


async def _exchange_now(task: Task, exchange: Exchange) -> int:
    """Return the exchange's time, by a fresh reading if the last one cannot be trusted."""
    cache, local = task.home.cache, time.time_ns() // 1_000_000
    known = cache.get_clock_offset(exchange.venue)
    if known is not None and task.request.trusts(known, local, _CLOCK_FRESH_MS):
        exchange.follow_clock(known.offset_ms)
        return local + known.offset_ms
    offset = await _clock_offset(exchange, task.on_event, known.offset_ms if known else None)
    cache.save_clock_offset(exchange.venue, offset)
    return time.time_ns() // 1_000_000 + offset


async def _clock_offset(
    exchange: Exchange, on_event: Callable[[Event], None], before: int | None
) -> int:
    """Read how far the exchange's clock is ahead, milliseconds.

    One wrong reading would let candles that are yet to come count as closed, or as absent for
    good; so one that neither this machine's clock nor the reading `before` confirms must be
    confirmed by the next.
    """
    for _ in range(_CLOCK_READINGS):
        now_ms = await trying(exchange.now_ms, exchange.id, on_event)
        offset = now_ms - time.time_ns() // 1_000_000
        if abs(offset) <= _CLOCK_DOUBTED_MS:
            return offset
        if before is not None and abs(offset - before) <= _CLOCK_AGREES_MS:
            return offset
        before = offset
    raise BadResponseError(f"the clock of {exchange.id} gives a different time at every request")


async def _name_online(task: Task, exchange: Exchange) -> dict[str, Market]:
    """Understand every name by the exchange's markets; unknown ones become failures."""
    markets = await markets_of(
        exchange, task.home.cache, task.on_event, sought=task.request.symbols
    )
    cache, where = task.home.cache, (exchange.id, exchange.market_type)
    book = SymbolBook.of(markets)
    failed = _failed(cache, where) if task.request.use_cache else {}
    for name in task.request.symbols:
        symbol = book.find(name)
        if symbol is not None and symbol not in failed:
            task.name(name, symbol)
            continue
        error: DataError
        if symbol is None:
            error = book.unknown(name, *where)
            cache.save_failed(*where, name, error)
        else:
            again = format_ms(failed[symbol].expires_ms)
            error = NotServedError(f"{failed[symbol].reason} (not requested again before {again})")
        task.result.failures[name] = error
        task.on_event(SymbolFailed(name, str(error)))
    return {market.symbol: market for market in markets}


def _failed(cache: CacheManager, where: tuple[str, MarketType]) -> dict[str, FailedSymbol]:
    """Return the symbols not worth asking for; what the list of markets did not say since then."""
    fetched = cache.markets_fetched_ms(*where) or 0
    known = cache.get_failed(*where)
    return {symbol: one for symbol, one in known.items() if one.failed_ms >= fetched}


async def markets_of(
    exchange: Exchange,
    cache: CacheManager,
    on_event: Callable[[Event], None],
    *,
    sought: tuple[str, ...] = (),
) -> list[Market]:
    """Return the exchange's markets of its type: remembered ones if they hold all that is sought.

    A name that is not among them is looked for again on the exchange unless the list is fresh:
    it may have been listed since.
    """
    where = exchange.id, exchange.market_type
    markets = cache.get_markets(*where)
    unified = cache.get_unified_markets(*where) if exchange.needs_unified_markets else []
    if markets is not None and unified is not None:
        book = SymbolBook.of(markets)
        fetched = cache.markets_fetched_ms(*where) or 0
        fresh = time.time_ns() // 1_000_000 - fetched < _MARKETS_FRESH_MS
        if fresh or (sought and all(book.find(name) for name in sought)):
            if exchange.needs_unified_markets:
                exchange.use_markets(unified)
            return markets
    return await _load_markets(exchange, cache, on_event)


async def _load_markets(
    exchange: Exchange, cache: CacheManager, on_event: Callable[[Event], None]
) -> list[Market]:
    """Ask the exchange for its markets and remember them."""
    markets, unified = await trying(exchange.load_markets, exchange.id, on_event)
    kept = unified if exchange.needs_unified_markets else None
    cache.save_markets(exchange.id, exchange.market_type, markets, kept)
    if exchange.stated_limits:
        cache.save_limits(exchange.id, exchange.market_type, exchange.stated_limits)
    return markets


def markets_and_volumes(
    exchange_id: str,
    market_type: MarketType,
    cache: CacheManager,
    config: Mapping[str, Any] | None,
) -> tuple[list[Market], dict[str, float]]:
    """Ask an exchange for its markets and their 24 h volumes in quote units, and remember both."""

    def quiet(_event: Event) -> None:
        """Nobody watches: this takes two requests."""

    async def ask() -> tuple[list[Market], dict[str, float]]:
        async with Exchange(exchange_id, market_type, config) as exchange:
            markets = await _load_markets(exchange, cache, quiet)
            volumes = await trying(exchange.quote_volumes, exchange_id, quiet)
        cache.save_all_volumes(exchange_id, volumes, market_type)
        return markets, volumes

    return in_thread(ask())


# -------------------------------------------------------------------------- threads


def in_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own in another thread, and wait for it.

    A notebook has a loop running in this thread already. Ctrl-C cancels the
    coroutine, waits for it to put its things in order, and goes on to the caller.
    """
    done: Future[T] = Future()
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()

    async def main() -> T:
        task = asyncio.ensure_future(work)
        started.set_result((asyncio.get_running_loop(), task))
        return await task

    def thread() -> None:
        try:
            done.set_result(asyncio.run(main()))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            done.set_exception(error)

    runner = threading.Thread(target=thread, name="backtester-fetch", daemon=True)
    runner.start()
    try:
        return done.result()
    except KeyboardInterrupt:
        loop, task = started.result()
        with suppress(RuntimeError):  # the loop may have ended, even by this very interrupt
            loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        runner.join()
