"""The spec's store: one ``{exchange}_{market_type}_{timeframe}.pickle.blosc`` per dataset.

The file is a Blosc2 chunk of a pickle of plain types (see `plain`), followed by
a footer that the chunk's readers ignore::

    chunk · footer JSON · footer length u32 · crc32 of the footer u32 · "VBTDATA1"

The footer states identity, the chunk's checksum, and what a summary needs, so
that a summary reads a few hundred bytes. A running fetch writes to the journal
beside the file (see `journal`); `fold` brings it in by one atomic replace.

Readers take no lock: they read the journal first and the file second, and the
file says how much of which journal it contains.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from backtester.data.candles import Answer, Series
from backtester.data.errors import CorruptDatasetError, DatasetWriteError
from backtester.data.model import DatasetKey, Interval
from backtester.data.storage import files, journal, plain
from backtester.data.storage.memo import Memo
from backtester.data.storage.store import (
    Dataset,
    DatasetSummary,
    SymbolSummary,
    merged_metadata,
    require_same,
    summarise,
)

if TYPE_CHECKING:
    from backtester.data.storage.store import Column

__all__ = ["SUFFIX", "PickleStore"]

SUFFIX = ".pickle.blosc"
_JOURNAL_SUFFIX = ".journal"
_TRAILER = struct.Struct("<II8s")
_MAGIC = b"VBTDATA1"
_FORMAT = 1
_MOST_FOOTER_BYTES = 64 << 20
_MEMO_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class _Base:
    """What the pickle itself holds, and how much of which journal is in it."""

    dataset: Dataset
    journal_id: str | None = None
    journal_bytes: int = 0
    foreign: bool = False
    """Written by another program: kept beside ours when it is replaced."""
    damaged: bool = False
    """Not readable as a dataset: set aside when it is replaced."""


class PickleStore:
    """A `Store` of pickles in one flat folder; see the module for the format.

    Parameters
    ----------
    folder : Path
        Created on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: DatasetKey) -> Path:
        """Name the file of a dataset, whether or not it exists."""
        return self.folder / f"{key.stem}{SUFFIX}"

    def journal_path(self, key: DatasetKey) -> Path:
        """Name the journal of a dataset, whether or not it exists."""
        return self.folder / f"{key.stem}{_JOURNAL_SUFFIX}"

    def keys(self) -> list[DatasetKey]:
        stems = {
            path.name.removesuffix(suffix)
            for suffix in (SUFFIX, _JOURNAL_SUFFIX)
            for path in self.folder.glob(f"*{suffix}")
        }
        found = (DatasetKey.from_stem(stem) for stem in sorted(stems))
        return [key for key in found if key is not None]

    def read(
        self,
        key: DatasetKey,
        symbols: Sequence[str] | None = None,
        *,
        within: Interval | None = None,
        salvage: bool = False,
    ) -> Dataset:
        path, state = self.path(key), self._state(key)
        dataset = _memo.get(path, state)
        if dataset is None:
            dataset = self._read_files(key, salvage=salvage)
            # Written to meanwhile, it may not be what this state stands for.
            if not salvage and state == self._state(key):
                _memo.put(path, state, dataset, _bytes_of(dataset))
        return dataset.select(symbols).showing(within)

    def read_column(
        self,
        key: DatasetKey,
        column: str,
        symbols: Sequence[str] | None = None,
        *,
        within: Interval | None = None,
    ) -> Mapping[str, Column]:
        return self.read(key, symbols, within=within).column(column)

    def held(
        self, key: DatasetKey, symbols: Sequence[str] | None = None, *, salvage: bool = False
    ) -> Mapping[str, SymbolSummary]:
        # Reading all of it here costs little: whoever asks reads candles of it next.
        return summarise(self.read(key, symbols, salvage=salvage).series)

    def commit(self, key: DatasetKey, answers: Sequence[Answer]) -> None:
        if not answers:
            return
        path = self.journal_path(key)
        with files.locked(self.folder / key.stem):
            journal.extend(path, key, answers, self._sound_journal_bytes(key))
            _sound[path] = _require(files.signature(path))

    def fold(self, key: DatasetKey) -> None:
        if files.signature(self.journal_path(key)) is None:
            return
        with files.locked(self.folder / key.stem):
            self._rewrite(key)

    def annotate(self, key: DatasetKey, metadata: Mapping[str, Any]) -> None:
        with files.locked(self.folder / key.stem):
            self._rewrite(key, metadata=metadata)

    def delete(self, key: DatasetKey, symbols: Sequence[str] | None = None) -> None:
        path = self.path(key)
        if files.signature(path) is None and files.signature(self.journal_path(key)) is None:
            return
        with files.locked(self.folder / key.stem):
            if symbols is not None:
                self._rewrite(key, without=symbols)
                if self._read_files(key, salvage=False).series:
                    return
            with files.writing(path):
                path.unlink(missing_ok=True)
                self.journal_path(key).unlink(missing_ok=True)

    def damage(self, key: DatasetKey) -> list[CorruptDatasetError]:
        try:
            self._read_files(key, salvage=False)
        except CorruptDatasetError as damage:
            return self._symbols_of(key, damage) or [damage]
        return []

    def mend(self, key: DatasetKey, replaced: Mapping[str, Series]) -> None:
        with files.locked(self.folder / key.stem):
            self._rewrite(key, replaced=replaced)

    def summary(self) -> list[DatasetSummary]:
        found = (self._summarise(key) for key in self.keys())
        return [one for one in found if one is not None]

    def put(self, dataset: Dataset) -> None:
        """Write a whole dataset in the place of what there is, atomically, and check it by value.

        Raises
        ------
        DatasetWriteError, DatasetTooLargeError
            It could not be written; what was there is as it was.
        """
        key, path = dataset.key, self.path(dataset.key)
        with files.locked(self.folder / key.stem):
            parts = _encode(dataset, journal.NONE)
            require_same(_decode(memoryview(b"".join(parts)), key, path).dataset, dataset, path)
            with files.writing(path):
                self.journal_path(key).unlink(missing_ok=True)
            files.replace(path, parts)

    # ------------------------------------------------------------------ reading

    def _state(self, key: DatasetKey) -> _State:
        return files.signature(self.path(key)), files.signature(self.journal_path(key))

    def _read_files(self, key: DatasetKey, *, salvage: bool) -> Dataset:
        while True:
            before = files.signature(self.journal_path(key))
            log = self._read_journal(key, salvage=salvage)
            base = self._read_base(key, salvage=salvage)
            if log.id in ("", base.journal_id) or before == files.signature(self.journal_path(key)):
                return base.dataset.with_answers(log.since(base.journal_id, base.journal_bytes))
            # The journal was folded in meanwhile, perhaps twice: its answers may be old news.

    def _read_journal(self, key: DatasetKey, *, salvage: bool) -> journal.Journal:
        path = self.journal_path(key)
        try:
            log = journal.read(path, key)
        except OSError as error:
            if salvage:
                return journal.NONE
            raise _corrupt(path, f"it cannot be read: {error.strerror}") from error
        if log.problem is not None and not salvage:
            raise _corrupt(path, log.problem)
        return log

    def _read_base(self, key: DatasetKey, *, salvage: bool) -> _Base:
        path = self.path(key)
        try:
            data = memoryview(path.read_bytes())
        except FileNotFoundError:
            return _Base(Dataset(key))
        except OSError as error:
            if salvage:
                return _Base(Dataset(key))
            raise _corrupt(path, f"it cannot be read: {error.strerror}") from error
        try:
            return _decode(data, key, path)
        except CorruptDatasetError:
            if salvage:
                return _Base(Dataset(key))
            raise

    def _sound_journal_bytes(self, key: DatasetKey) -> int:
        """Return how far the journal can be appended to, scanning it only if others wrote to it."""
        path = self.journal_path(key)
        now = files.signature(path)
        if now is None:
            return 0
        if _sound.get(path) == now:
            return now[1]
        with files.writing(path):
            log = journal.read(path, key)
        if log.problem is None:
            return log.sound_bytes
        # Keep the evidence, and go on with what is sound and not in the file yet.
        base = self._read_base(key, salvage=True)
        files.set_aside(path)
        return journal.replace(path, key, log.since(base.journal_id, base.journal_bytes))

    def _symbols_of(
        self, key: DatasetKey, damage: CorruptDatasetError
    ) -> list[CorruptDatasetError]:
        """Return what a damaged file held, if at least its footer is sound."""
        try:
            footer = _read_footer(self.path(key))
        except CorruptDatasetError:
            return []
        return [
            CorruptDatasetError(
                str(damage), path=damage.path, reason=damage.reason, symbol=symbol,
                interval=Interval(first, key.timeframe.next(last)) if count else None,
            )
            for symbol, (count, first, last) in (footer or {"symbols": {}})["symbols"].items()
        ]  # fmt: skip

    # ------------------------------------------------------------------ writing

    def _rewrite(
        self,
        key: DatasetKey,
        *,
        metadata: Mapping[str, Any] | None = None,
        without: Sequence[str] = (),
        replaced: Mapping[str, Series] | None = None,
    ) -> None:
        """Replace the file by file + journal; call under the dataset's lock."""
        path, journal_path = self.path(key), self.journal_path(key)
        log, base = self._read_for_rewrite(key)
        dataset = base.dataset.with_answers(log.since(base.journal_id, base.journal_bytes))
        dataset = Dataset(
            key,
            {
                **{s: one for s, one in dataset.series.items() if s not in without},
                **(replaced or {}),
            },
            merged_metadata(dataset.metadata, metadata or {}),
        )
        parts = _encode(dataset, log)
        if base.foreign:
            files.keep_original(path)
        if base.damaged:
            files.set_aside(path)
        if log.problem is not None:
            files.set_aside(journal_path)
        files.remove_leftovers(path)
        files.remove_leftovers(journal_path)
        files.replace(path, parts)
        with files.writing(journal_path):
            journal_path.unlink(missing_ok=True)
        _memo.put(path, self._state(key), dataset, _bytes_of(dataset))

    def _read_for_rewrite(self, key: DatasetKey) -> tuple[journal.Journal, _Base]:
        """Read what is sound of both files.

        Raises
        ------
        DatasetWriteError
            One cannot be read just now. It may be sound, so nothing is put in its place.
        """
        path, journal_path = self.path(key), self.journal_path(key)
        with files.writing(journal_path):
            log = journal.read(journal_path, key)
        try:
            return log, self._read_base(key, salvage=False)
        except CorruptDatasetError as damage:
            if isinstance(damage.__cause__, OSError):
                raise DatasetWriteError(
                    f"cannot write {path}: {damage}", path=str(path)
                ) from damage
            return log, _Base(Dataset(key), damaged=True)

    # ------------------------------------------------------------------ summary

    def _summarise(self, key: DatasetKey) -> DatasetSummary | None:
        """Summarise one dataset; None when it was deleted since it was listed."""
        path = self.path(key)
        sizes = [signature for signature in self._state(key) if signature]
        if not sizes:
            return None
        size, modified = sum(s[1] for s in sizes), max(s[2] for s in sizes) // 1_000_000
        try:
            symbols = self._symbols(key)
        except CorruptDatasetError as error:
            return DatasetSummary(path.name, key, {}, size, modified, str(error))
        return DatasetSummary(path.name, key, symbols, size, modified)

    def _symbols(self, key: DatasetKey) -> dict[str, SymbolSummary]:
        """Read the footer; only what an unfinished fetch or another program left needs more."""
        path = self.path(key)
        if files.signature(self.journal_path(key)) is None:
            footer = _read_footer(path)
            if footer is not None:
                _check_identity(footer, key, path)
                return {s: SymbolSummary(*facts) for s, facts in footer["symbols"].items()}
        return summarise(self.read(key).series)


# ---------------------------------------------------------------------- the format


def _encode(dataset: Dataset, log: journal.Journal) -> list[bytes]:
    key = dataset.key
    identity = {
        "exchange": key.exchange,
        "market_type": key.market_type.value,
        "timeframe": str(key.timeframe),
    }
    payload = plain.dataset_payload(
        dataset.series,
        dataset.metadata,
        exchange=identity["exchange"],
        market_type=identity["market_type"],
        timeframe=identity["timeframe"],
    )
    chunk = plain.pack(payload)
    symbols = {
        symbol: [one.candles, one.first_ms, one.last_ms]
        for symbol, one in summarise(dataset.series).items()
    }
    footer = orjson.dumps(
        {
            "format": _FORMAT,
            **identity,
            "chunk_bytes": len(chunk),
            "chunk_crc32": zlib.crc32(chunk),
            "written_ms": time.time_ns() // 1_000_000,
            "journal": log.id or None,
            "journal_bytes": log.sound_bytes,
            "symbols": symbols,
        }
    )
    return [chunk, footer, _TRAILER.pack(len(footer), zlib.crc32(footer), _MAGIC)]


def _decode(data: memoryview, key: DatasetKey, path: Path) -> _Base:
    footer = _parse_footer(data, path)
    if footer is None:
        return _decode_foreign(data, key, path)
    _check_identity(footer, key, path)
    chunk = data[: footer["chunk_bytes"]]
    if len(chunk) != footer["chunk_bytes"] or zlib.crc32(chunk) != footer["chunk_crc32"]:
        raise _corrupt(path, "its contents do not match its checksum")
    payload = plain.unpack(chunk, str(path))
    dataset = Dataset(key, plain.series_of(payload, str(path)), payload["metadata"])
    return _Base(dataset, footer["journal"], footer["journal_bytes"])


def _decode_foreign(data: memoryview, key: DatasetKey, path: Path) -> _Base:
    """Read a file without our footer: a saved Data object, or one of VectorBT PRO."""
    from backtester.data.storage import foreign

    return _Base(foreign.read(data, key, path), foreign=True)


def _read_footer(path: Path) -> dict[str, Any] | None:
    """Read the footer alone; None where the file has none or is missing."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 65_536))
            tail = file.read()
            length = _footer_length(tail, path)
            if length is not None and length + _TRAILER.size > len(tail):
                file.seek(max(0, size - length - _TRAILER.size))
                tail = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _corrupt(path, f"it cannot be read: {error.strerror}") from error
    return _parse_footer(memoryview(tail), path)


def _footer_length(tail: bytes | memoryview, path: Path) -> int | None:
    if len(tail) < _TRAILER.size:
        return None
    length, _, magic = _TRAILER.unpack(tail[-_TRAILER.size :])
    if magic != _MAGIC:
        return None
    if length > _MOST_FOOTER_BYTES:
        raise _corrupt(path, "its footer claims an impossible length")
    return int(length)


def _parse_footer(data: memoryview, path: Path) -> dict[str, Any] | None:
    length = _footer_length(data, path)
    if length is None:
        return None
    footer = data[-_TRAILER.size - length : -_TRAILER.size]
    _, checksum, _ = _TRAILER.unpack(data[-_TRAILER.size :])
    if len(footer) != length or zlib.crc32(footer) != checksum:
        raise _corrupt(path, "its footer does not match its checksum")
    try:
        parsed = orjson.loads(footer)
    except ValueError as error:
        raise _corrupt(path, "its footer is not JSON") from error
    if not _is_footer(parsed):
        raise _corrupt(path, f"its footer is not of format {_FORMAT}")
    return parsed  # type: ignore[no-any-return]  # its shape was checked by hand


_FOOTER_PARTS: dict[str, Any] = {
    "exchange": str,
    "market_type": str,
    "timeframe": str,
    "chunk_bytes": int,
    "chunk_crc32": int,
    "journal": (str, type(None)),
    "journal_bytes": int,
    "symbols": dict,
}


def _is_footer(parsed: Any) -> bool:
    return (
        isinstance(parsed, dict)
        and parsed.get("format") == _FORMAT
        and all(isinstance(parsed.get(part, ...), kind) for part, kind in _FOOTER_PARTS.items())
        and all(isinstance(facts, list) and len(facts) == 3 for facts in parsed["symbols"].values())
    )


def _check_identity(footer: Mapping[str, Any], key: DatasetKey, path: Path) -> None:
    inside = (footer["exchange"], footer["market_type"], footer["timeframe"])
    if inside != (key.exchange, key.market_type.value, str(key.timeframe)):
        raise _corrupt(path, f"it holds {' '.join(inside)} candles, not {key} ones")


def _corrupt(path: Path, reason: str) -> CorruptDatasetError:
    return CorruptDatasetError(f"{path} cannot be trusted: {reason}", path=str(path), reason=reason)


def _require(signature: files.Signature | None) -> files.Signature:
    assert signature is not None, "the file was written a moment ago under its lock"
    return signature


# ---------------------------------------------------------------------- the memo

_State = tuple[files.Signature | None, files.Signature | None]


def _bytes_of(dataset: Dataset) -> int:
    tables = [one.candles for one in dataset.series.values()]
    return sum(table.open_time.nbytes + table.values.nbytes for table in tables)


_memo: Memo[Dataset] = Memo(_MEMO_BYTES)
"""Whole datasets by path, of the version that the signatures of both files are."""
_sound: dict[Path, files.Signature] = {}
"""Journals as this process left them: unchanged since, they need no scan before an append."""
