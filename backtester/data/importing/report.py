"""The report of an import: what was taken from each series, what was not, and why."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, field
from typing import Any

from backtester.data.errors import DataError, FetchWarning, NothingImportedError
from backtester.data.fetching.request import describe
from backtester.data.importing.merging import Difference
from backtester.data.model import DatasetKey

__all__ = ["ImportReport", "ImportedSeries"]

_log = logging.getLogger(__name__)

_EXAMPLES = 5


@dataclass(slots=True)
class ImportedSeries:
    """What became of one series of a file."""

    where: str
    key: DatasetKey
    symbol: str
    """Unified; the one it is stored under."""
    rows: int
    """That the file has of it, padding included."""
    skipped: dict[str, int]
    """Rows by the reason for which they were left out."""
    new: int
    """Candles that were not stored before."""
    revised: int
    """Candles handed in before that are different now; each is a `Revision`."""
    known: int
    """Candles that were stored already, bit for bit."""
    kept: list[Difference]
    """Where the exchange's own answer differs, and stays."""
    absent: int
    """Candles that the exchange has confirmed not to exist; not taken."""
    first_ms: int | None
    """Open time of the first candle taken or known, UTC epoch milliseconds."""
    last_ms: int | None
    notes: tuple[str, ...] = ()
    checked: dict[str, Any] | None = None
    """How a sample compares with the exchange; None where it was not asked."""

    @property
    def taken(self) -> int:
        """Candles that the store had not, or had otherwise."""
        return self.new + self.revised

    def account(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "file": self.where,
            "exchange": self.key.exchange,
            "market_type": self.key.market_type.value,
            "timeframe": str(self.key.timeframe),
            "symbol": self.symbol,
            "rows": self.rows,
            "taken": self.taken,
            "new": self.new,
            "revised": self.revised,
            "known": self.known,
            "skipped": self.skipped,
            "differs_from_exchange": len(self.kept),
            "differences": [_plain_difference(one) for one in self.kept[:_EXAMPLES]],
            "absent_on_exchange": self.absent,
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "notes": list(self.notes),
            "checked": self.checked,
        }


def _plain_difference(one: Difference) -> dict[str, Any]:
    return {"open_time": one.open_time, "stored": list(one.stored), "file": list(one.file)}


@dataclass(slots=True)
class ImportReport:
    """What an import took, series by series, and what it could not take."""

    dry_run: bool = False
    series: list[ImportedSeries] = field(default_factory=list)
    failures: dict[str, DataError] = field(default_factory=dict)
    """By file, or by file and series."""
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def taken(self) -> int:
        """Candles taken of all series."""
        return sum(one.taken for one in self.series)

    def account(self) -> dict[str, Any]:
        """Return the machine-readable account: plain values, times in UTC epoch milliseconds."""
        return {
            "dry_run": self.dry_run,
            "taken": self.taken,
            "series": [one.account() for one in self.series],
            "failures": {where: describe(error) for where, error in self.failures.items()},
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
        }

    def tell(self) -> None:
        """Log what happened, and warn or raise where it was not as asked.

        Raises
        ------
        DataError
            Nothing could be taken of any series: the one kind of error there was, or
            `NothingImportedError`.
        """
        _log.info(
            "imported %d candles of %d series in %.3f s",
            self.taken, len(self.series), self.seconds,
        )  # fmt: skip
        for one in self.series:
            if one.kept:
                _log.warning(
                    "%s: %d candles of %s are not what the exchange answered, and not taken",
                    one.where, len(one.kept), one.symbol,
                )  # fmt: skip
        if not self.failures:
            return
        listed = "; ".join(f"{where}: {error}" for where, error in self.failures.items())
        if not self.series:
            raise self._nothing(listed)
        message = f"{len(self.failures)} series or files were not imported: {listed}"
        _log.warning("%s", message)
        warnings.warn(message, FetchWarning, stacklevel=3)

    def _nothing(self, listed: str) -> DataError:
        errors = list(self.failures.values())
        told = {"failures": dict(self.failures), "account": self.account()}
        if len(errors) == 1:
            return type(errors[0])(str(errors[0]), **{**errors[0].facts, **told})
        return NothingImportedError(f"nothing was imported: {listed}", **told)
