"""Every error raised on purpose, one tree.

The tree::

    DataError                                anything below
    ├── RequestError(ValueError)             the caller can fix it; never retried
    │   ├── UnknownExchangeError
    │   ├── UnknownSymbolError(LookupError)
    │   ├── UnknownTimeframeError
    │   ├── UnknownMarketTypeError
    │   ├── DateError
    │   ├── EmptyIntervalError
    │   ├── NoSymbolsError
    │   └── OptionError
    ├── FetchError                           the exchange or the wire
    │   ├── TransientFetchError              worth another try
    │   │   ├── RateLimitedError             the exchange asked us to wait
    │   │   ├── ExchangeUnavailableError(ConnectionError)
    │   │   └── BadResponseError             an answer that is not candles
    │   ├── PermanentFetchError              another try would answer the same
    │   │   ├── AccessDeniedError(PermissionError)
    │   │   ├── BannedError                  the exchange has shut this address out
    │   │   └── NotServedError               the exchange knows no such thing
    │   └── NothingFetchedError              every symbol failed
    ├── StorageError
    │   ├── DatasetNotFoundError(LookupError)
    │   ├── CorruptDatasetError              damage, never emptiness
    │   ├── DatasetTooLargeError
    │   └── DatasetWriteError(OSError)
    ├── CandleError(ValueError)              a table broke a rule of candles
    └── NothingImportedError                 no series of any file could be imported

Beside it stands one warning, `FetchWarning`.

Facts stand in attributes; the sentence is built from them. Every error
survives pickling, since work crosses threads and processes.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AccessDeniedError",
    "BadResponseError",
    "BannedError",
    "CandleError",
    "CorruptDatasetError",
    "DataError",
    "DatasetNotFoundError",
    "DatasetTooLargeError",
    "DatasetWriteError",
    "DateError",
    "EmptyIntervalError",
    "ExchangeUnavailableError",
    "FetchError",
    "FetchWarning",
    "NoSymbolsError",
    "NotServedError",
    "NothingFetchedError",
    "NothingImportedError",
    "OptionError",
    "PermanentFetchError",
    "RateLimitedError",
    "RequestError",
    "StorageError",
    "TransientFetchError",
    "UnknownExchangeError",
    "UnknownMarketTypeError",
    "UnknownSymbolError",
    "UnknownTimeframeError",
]


class DataError(Exception):
    """Base of everything this package raises on purpose.

    Parameters
    ----------
    message : str
        One sentence for a person: what was asked, what was found, what to do.
    **facts
        The same in parts, readable as attributes and kept by pickling.
    """

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        # Only reached when normal lookup fails; `facts` itself may be missing
        # while an instance is being unpickled.
        facts = self.__dict__.get("facts", {})
        try:
            return facts[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self.args[0]), self.facts)


def _rebuild(cls: type[DataError], message: str, facts: dict[str, Any]) -> DataError:
    return cls(message, **facts)


class RequestError(DataError, ValueError):
    """The question cannot be asked like this; the caller can mend it."""


class UnknownExchangeError(RequestError):
    """No exchange of this id; `suggestions` names the nearest."""


class UnknownSymbolError(RequestError, LookupError):
    """The market has no such symbol; `symbol` and `suggestions` say more."""


class UnknownTimeframeError(RequestError):
    """Not a timeframe, or not one of this exchange; `supported` lists those."""


class UnknownMarketTypeError(RequestError):
    """Not a market type, or one the exchange does not have."""


class DateError(RequestError):
    """A date that cannot be read, or one that lies in the future."""


class EmptyIntervalError(RequestError):
    """The start is not before the end."""


class NoSymbolsError(RequestError):
    """Nothing was asked for."""


class OptionError(RequestError):
    """Options that exclude each other, or a value out of range."""


class FetchError(DataError):
    """The exchange or the wire failed; `exchange`, `symbol` and `interval` say where."""


class TransientFetchError(FetchError):
    """A failure that may pass: retried with a growing wait."""


class RateLimitedError(TransientFetchError):
    """The exchange asked us to wait; `retry_after_s` is what it said, or None."""


class ExchangeUnavailableError(TransientFetchError, ConnectionError):
    """The exchange is down, in maintenance, or cannot be reached."""


class BadResponseError(TransientFetchError):
    """An answer that is not what was asked for: HTML, cut JSON, foreign rows."""


class PermanentFetchError(FetchError):
    """A failure that another try would only repeat."""


class AccessDeniedError(PermanentFetchError, PermissionError):
    """The exchange refuses this address, region or key."""


class BannedError(PermanentFetchError):
    """The exchange has shut this address out until `until_ms` (UTC epoch milliseconds)."""


class NotServedError(PermanentFetchError):
    """The exchange does not offer what was asked for."""


class NothingFetchedError(FetchError):
    """Every symbol failed; `failures` maps each to its reason."""


class StorageError(DataError):
    """The data directory or a file in it."""


class DatasetNotFoundError(StorageError, LookupError):
    """Nothing is stored under this name."""


class CorruptDatasetError(StorageError):
    """A file that is damaged, foreign or hostile; `path` names it. Never read as empty."""


class DatasetTooLargeError(StorageError):
    """More than one file of this format can hold."""


class DatasetWriteError(StorageError, OSError):
    """A file could not be written: read-only, full, or gone; `path` names it."""


class CandleError(DataError, ValueError):
    """A table that breaks a rule of candles: order, grid, finite numbers, OHLC order."""


class NothingImportedError(DataError):
    """Not one series of the files could be imported; `failures` maps each to its reason."""


class FetchWarning(UserWarning):
    """Something did not go as asked; the result is returned and its account says what."""
